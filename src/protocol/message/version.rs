//! Which protocol versions a connector speaks (DSP 2025-1 §4.3): plain JSON, no context.

use serde::{Deserialize, Serialize};

use crate::protocol::{BASE, VERSION, json::many};

/// The answer at `/.well-known/dspace-version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionResponse {
    /// Each version that is spoken.
    #[serde(deserialize_with = "many")]
    pub protocol_versions: Vec<Version>,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Such as `2025-1`.
    pub version: String,
    /// What is appended to the root to give `<base>`.
    pub path: String,
    /// Always `HTTPS`; older connectors leave it out.
    #[serde(default)]
    pub binding: String,
}

impl VersionResponse {
    /// What we speak.
    pub fn ours() -> Self {
        let ours = Version { version: VERSION.into(), path: BASE.into(), binding: "HTTPS".into() };
        Self { protocol_versions: vec![ours] }
    }

    /// Where a peer speaks our version below its root, if it does.
    pub fn path(&self) -> Option<&str> {
        let ours = |version: &&Version| version.version == VERSION && matches!(version.binding.as_str(), "HTTPS" | "");
        self.protocol_versions.iter().find(ours).map(|version| version.path.as_str())
    }
}
