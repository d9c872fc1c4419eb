//! Copies as the consumer keeps them: rows `v/…`.

use serde::{Deserialize, Serialize};

use crate::{
    crypto::jws::Jws,
    id::{AgreementId, CopyId, DatasetId, Pid, ReleaseId, RequestId},
    receipt::{Segment, row_key},
    time::Timestamp,
    vault::Contents,
};

/// Where copies lie in the store.
pub const PREFIX: &str = "v/";

/// Where purposes lie: each under its copy's key with this prefix.
pub const PURPOSES: &str = "vp/";

/// The row's key.
pub fn key(id: &CopyId) -> Vec<u8> {
    row_key(PREFIX, &[id.as_str()])
}

/// Where the purpose lies that a copy is asked for with: where it can be erased, until there is a release.
pub fn purpose_key(id: &CopyId) -> Vec<u8> {
    row_key(PURPOSES, &[id.as_str()])
}

/// A copy and the exchange that it came by.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyRow {
    /// Minted by us; its UUID names the folder.
    pub id: CopyId,
    /// The agreement.
    pub agreement: AgreementId,
    /// The dataset, for people.
    pub dataset: DatasetId,
    /// Our transfer.
    pub transfer: Pid,
    /// The request that we made; repeated after a restart.
    pub request: RequestId,
    /// The provider's id of the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseId>,
    /// The provider's `released` receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Jws>,
    /// The stream's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What arrived.
    #[serde(default)]
    pub segments: Vec<Segment>,
    /// Our acknowledgement, to be sent again as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledgement: Option<Jws>,
    /// Our `acknowledged` receipt of the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Jws>,
    /// Where it stands.
    pub state: CopyState,
    /// Bytes of plaintext, once opened.
    #[serde(default)]
    pub bytes: u64,
    /// What was seen in it when it was opened first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
    /// Whether we gave it up ourselves: what was derived from it stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
    /// When it was begun.
    pub begun: Timestamp,
}

impl CopyRow {
    /// When it arrived; of one that was never looked into, when it was begun.
    pub fn arrived(&self) -> Timestamp {
        self.contents.as_ref().and_then(|contents| contents.arrived).unwrap_or(self.begun)
    }
}

/// Where a copy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CopyState {
    /// Asked for, or on its way.
    Receiving,
    /// The sealed bytes are here and were acknowledged; the key is not.
    Sealed,
    /// The key is here, and opened what was promised.
    Held,
    /// The key did not open it, or not to what was promised.
    Disputed,
    /// The key was destroyed.
    Destroyed,
}

impl CopyState {
    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Sealed => "sealed",
            Self::Held => "held",
            Self::Disputed => "disputed",
            Self::Destroyed => "destroyed",
        }
    }
}
