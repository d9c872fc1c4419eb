//! `counterseal.toml`: what an operator sets.
//!
//! One file in the home. Each value can be overridden by an environment variable `COUNTERSEAL_<SECTION>_<KEY>`
//! (`COUNTERSEAL_LISTEN_PARTNER=0.0.0.0:8443`). Unknown sections and keys are refused by name.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{id::Did, time::Zone};

/// The file's name within the home.
pub const FILE: &str = "counterseal.toml";

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path} can't be read: {error}; make a home with `counterseal init`")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: std::io::Error,
    },
    /// Not TOML, or not ours.
    #[error("{path}: {error}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Position and reason.
        error: String,
    },
    /// A value that makes no sense.
    #[error("{key} = {value}: {problem}")]
    Value {
        /// `section.key`.
        key: &'static str,
        /// The offending value.
        value: String,
        /// What is wrong and what to do.
        problem: &'static str,
    },
}

/// The whole file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who we are.
    pub participant: Participant,
    /// Where we listen.
    #[serde(default)]
    pub listen: Listen,
    /// Where datasets may lie.
    #[serde(default)]
    pub sources: Sources,
    /// What holds for every offer.
    #[serde(default)]
    pub policy: Policy,
    /// How releases are bounded.
    #[serde(default)]
    pub release: Release,
    /// How messages are delivered.
    #[serde(default)]
    pub outbox: Outbox,
    /// How steps wait for people.
    #[serde(default)]
    pub approval: Approval,
    /// Whom we may ask inside our own network.
    #[serde(default)]
    pub outbound: Outbound,
    /// Who is told of events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<Webhook>,
    /// How long what receipts commit to is kept.
    #[serde(default)]
    pub retention: Retention,
    /// Who else puts a time to our log.
    #[serde(default)]
    pub anchor: Anchoring,
}

/// `[participant]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Participant {
    /// Our DID.
    pub did: Did,
    /// The name that partners see.
    pub name: String,
}

/// `[listen]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Partners: Dataspace Protocol, peer extension, data plane; TLS 1.3.
    pub partner: SocketAddr,
    /// Management API; loopback.
    pub management: SocketAddr,
    /// Foreign connectors, which have no certificate of ours and present a token: plain HTTP. Loopback only, unless
    /// `behind_proxy` says that a proxy of the operator's stands before it and speaks TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain: Option<SocketAddr>,
    /// The address by which foreign connectors reach us, where it differs from `plain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain_url: Option<String>,
    /// A proxy of the operator's stands before `plain`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub behind_proxy: bool,
    /// The address by which partners reach us, where it differs from `partner` (a proxy, a name).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
}

/// `[sources]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sources {
    /// Folders beneath which datasets may lie; relative ones are from the folder of the configuration
    /// file. Never the home itself, or anything in it.
    pub roots: Vec<PathBuf>,
}

/// `[policy]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// A Cedar file whose policies join every offer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<PathBuf>,
    /// Obligations that hold for every release, whatever permit matched.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub floor: String,
    /// Whether we, as a consumer, make no agreements with clauses that no machine sees to.
    pub refuse_contract_only: bool,
    /// Where the days of policies begin, as a distance from UTC.
    pub zone: Zone,
}

/// `[release]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Release {
    /// Seconds that a consumer has to acknowledge before an open release lapses.
    pub deadline_seconds: u64,
}

/// `[outbox]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outbox {
    /// Seconds after which an undelivered message is given up, with a reason.
    pub give_up_seconds: u64,
    /// Seconds that one attempt may take.
    pub attempt_seconds: u64,
}

/// `[[webhooks]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where events are posted: https, or http to this machine.
    pub url: String,
    /// A file in the home, 0600, with the secret that signs them.
    pub secret_file: PathBuf,
    /// The types that are wanted; all, if there are none.
    #[serde(default)]
    pub types: Vec<String>,
}

/// `[approval]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Approval {
    /// Seconds that a step may wait for a person before the process ends, with a reason.
    pub deadline_seconds: u64,
}

/// `[outbound]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outbound {
    /// Hosts, addresses and networks inside our own network that partners' names may lead to
    /// (`connector.intranet.example`, `10.1.0.0/16`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            partner: SocketAddr::from(([127, 0, 0, 1], 8443)),
            management: SocketAddr::from(([127, 0, 0, 1], 8444)),
            public_url: None,
            plain: None,
            plain_url: None,
            behind_proxy: false,
        }
    }
}

impl Default for Release {
    fn default() -> Self {
        Self { deadline_seconds: 24 * 3600 }
    }
}

impl Default for Approval {
    fn default() -> Self {
        Self { deadline_seconds: 7 * 24 * 3600 }
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self { give_up_seconds: 600, attempt_seconds: 10 }
    }
}

/// Days for which what receipts commit to (requests, purposes, who acted) is kept; then it is erased with its salts. The
/// receipts themselves stay.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Of what was decided and done under agreements.
    pub decisions_days: u64,
    /// Of what was refused.
    pub refusals_days: u64,
    /// Of starts, stops and changes.
    pub operation_days: u64,
}

impl Default for Retention {
    fn default() -> Self {
        let three_years = 3 * 365;
        Self { decisions_days: three_years, refusals_days: three_years, operation_days: three_years }
    }
}

/// Stamps over our checkpoints (RFC 3161 in manner): in a folder that is out of this machine's reach by other means.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Anchoring {
    /// Where stamps go; none are asked for without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// How often, in seconds, while the log grows.
    pub every_seconds: u64,
}

impl Default for Anchoring {
    fn default() -> Self {
        Self { folder: None, every_seconds: 86_400 }
    }
}

impl Config {
    /// A new participant's configuration.
    pub fn new(did: Did, name: String) -> Self {
        Self {
            participant: Participant { did, name },
            listen: Listen::default(),
            sources: Sources::default(),
            policy: Policy::default(),
            release: Release::default(),
            outbox: Outbox::default(),
            approval: Approval::default(),
            outbound: Outbound::default(),
            webhooks: Vec::new(),
            retention: Retention::default(),
            anchor: Anchoring::default(),
        }
    }

    /// Names or addresses that our certificate is for, beside loopback: the host of `listen.public_url`.
    pub fn certificate_hosts(&self) -> Vec<String> {
        let url = self.listen.public_url.as_ref().and_then(|url| reqwest::Url::parse(url).ok());
        url.and_then(|url| url.host_str().map(str::to_owned)).into_iter().collect()
    }

    /// Reads `counterseal.toml` of this home, then the overrides from `environment`.
    pub fn load(home: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let path = home.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|error| ConfigError::Read { path: path.clone(), error })?;
        let parse = |error: String| ConfigError::Parse { path: path.clone(), error };
        let mut table: toml::Table = toml::from_str(&text).map_err(|error| parse(error.to_string()))?;
        let overridden = overlay(&mut table, environment);
        let mut config: Self = if overridden {
            toml::Value::Table(table).try_into().map_err(|error: toml::de::Error| parse(error.to_string()))?
        } else {
            // straight from the text: errors carry line and column
            toml::from_str(&text).map_err(|error| parse(error.to_string()))?
        };
        for root in &mut config.sources.roots {
            *root = home.join(&*root);
        }
        config.policy.global = config.policy.global.map(|file| home.join(file));
        config.anchor.folder = config.anchor.folder.map(|folder| home.join(folder));
        config.check()?;
        Ok(config)
    }

    /// The URL by which partners reach us, without a trailing slash.
    pub fn public_url(&self, bound: SocketAddr) -> String {
        match &self.listen.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("https://{bound}"),
        }
    }

    /// The URL by which foreign connectors reach us: the plain listener's, or the partners' if there is none.
    pub fn plain_url(&self, bound: Option<SocketAddr>, partner: SocketAddr) -> String {
        match (&self.listen.plain_url, bound) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(bound)) => format!("http://{bound}"),
            (None, None) => self.public_url(partner),
        }
    }

    /// How long a step may wait for a person.
    pub fn approval_deadline(&self) -> Duration {
        Duration::from_secs(self.approval.deadline_seconds)
    }

    /// How long a message is tried.
    pub fn give_up_after(&self) -> Duration {
        Duration::from_secs(self.outbox.give_up_seconds)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !self.listen.management.ip().is_loopback() {
            return Err(ConfigError::Value {
                key: "listen.management",
                value: self.listen.management.to_string(),
                problem: "the management API listens on loopback only; reach it by a tunnel",
            });
        }
        if let Some(url) = &self.listen.public_url
            && !url.starts_with("https://")
        {
            return Err(ConfigError::Value {
                key: "listen.public_url",
                value: url.clone(),
                problem: "partners reach a connector by https:// only",
            });
        }
        if let Some(plain) = self.listen.plain
            && !plain.ip().is_loopback()
            && !self.listen.behind_proxy
        {
            return Err(ConfigError::Value {
                key: "listen.plain",
                value: plain.to_string(),
                problem: "plain HTTP is for loopback; set listen.behind_proxy = true if a proxy of yours speaks TLS before it",
            });
        }
        if self.listen.public_url.is_none() && self.listen.partner.ip().is_unspecified() {
            return Err(ConfigError::Value {
                key: "listen.partner",
                value: self.listen.partner.to_string(),
                problem: "every address is bound, so partners can't tell which one to use: set listen.public_url",
            });
        }
        for (key, value) in [
            ("release.deadline_seconds", self.release.deadline_seconds),
            ("outbox.give_up_seconds", self.outbox.give_up_seconds),
            ("outbox.attempt_seconds", self.outbox.attempt_seconds),
            ("approval.deadline_seconds", self.approval.deadline_seconds),
        ] {
            if value == 0 || value > 366 * 24 * 3600 {
                return Err(ConfigError::Value {
                    key,
                    value: value.to_string(),
                    problem: "must be between 1 second and 366 days",
                });
            }
        }
        Ok(())
    }
}

/// Puts `COUNTERSEAL_SECTION_KEY` values over the file's; says whether there were any.
fn overlay(table: &mut toml::Table, environment: impl IntoIterator<Item = (String, String)>) -> bool {
    let mut any = false;
    for (name, text) in environment {
        let Some(rest) = name.strip_prefix("COUNTERSEAL_") else { continue };
        let rest = rest.to_ascii_lowercase();
        let Some((section, key)) = rest.split_once('_') else { continue };
        if ![
            "participant",
            "listen",
            "sources",
            "policy",
            "release",
            "outbox",
            "outbound",
            "approval",
            "anchor",
            "retention",
        ]
        .contains(&section)
        {
            continue;
        }
        // a TOML value where it is one (`5`, `["a"]`), else a string
        let value = toml::from_str::<toml::Table>(&format!("v = {text}"))
            .ok()
            .and_then(|mut parsed| parsed.remove("v"))
            .unwrap_or(toml::Value::String(text));
        let section = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if let toml::Value::Table(section) = section {
            section.insert(key.to_owned(), value);
            any = true;
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(FILE), text).unwrap();
        Config::load(home.path(), environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    const MINIMAL: &str = "[participant]\ndid = \"did:web:hospital.invalid\"\nname = \"Hospital\"\n";

    #[test]
    fn what_is_written_is_read() {
        let config = Config::new(Did::parse("did:web:hospital.invalid").unwrap(), "Hospital".into());
        let again = load(&toml::to_string(&config).unwrap(), &[]).unwrap();
        assert_eq!(again.listen.partner, config.listen.partner);
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config =
            load(MINIMAL, &[("COUNTERSEAL_LISTEN_PARTNER", "127.0.0.1:9"), ("COUNTERSEAL_HOME", "/x")]).unwrap();
        assert_eq!(config.listen.partner.port(), 9);
        let config = load(MINIMAL, &[("COUNTERSEAL_OUTBOX_GIVE_UP_SECONDS", "5")]).unwrap();
        assert_eq!(config.outbox.give_up_seconds, 5);
    }

    #[test]
    fn mistakes_are_named() {
        let error = load(&format!("{MINIMAL}[listen]\npartnr = \"127.0.0.1:1\"\n"), &[]).unwrap_err().to_string();
        assert!(error.contains("partnr") && error.contains("line 5"), "{error}");
        let error = load(&format!("{MINIMAL}[listen]\nmanagement = \"0.0.0.0:1\"\n"), &[]).unwrap_err().to_string();
        assert!(error.contains("listen.management = 0.0.0.0:1"), "{error}");
        let error = load(&format!("{MINIMAL}[listen]\npublic_url = \"http://x\"\n"), &[]).unwrap_err().to_string();
        assert!(error.contains("https"), "{error}");
        let plain = format!("{MINIMAL}[listen]\nplain = \"0.0.0.0:1\"\n");
        let error = load(&plain, &[]).unwrap_err().to_string();
        assert!(error.contains("listen.plain = 0.0.0.0:1") && error.contains("behind_proxy"), "{error}");
        assert!(load(&format!("{plain}behind_proxy = true\n"), &[]).is_ok());
        assert!(load("x = ", &[]).is_err());
    }
}
