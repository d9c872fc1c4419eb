//! `offer.toml`: how a steward describes an offer.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    id::{DatasetId, Did, OfferId},
    time::{Timestamp, Zone},
};

/// Why an offer file can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum OfferFileError {
    /// The file, or the policy beside it, can't be read.
    #[error("{path} can't be read: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: std::io::Error,
    },
    /// Not TOML, or an unknown or missing key; with line and column.
    #[error("{path}: {error}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Position and reason.
        error: String,
    },
    /// Something that this build does not do.
    #[error("{path}: `{key} = \"{value}\"` is not available in this version: {hint}")]
    NotYet {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What to do instead.
        hint: &'static str,
    },
}

/// The file, parsed; relative paths resolved against the file's own folder where they name policies.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferFile {
    /// The offer's id: publishing again under the same id makes the next version.
    pub id: OfferId,
    /// What is offered.
    pub dataset: DatasetSection,
    /// On what terms.
    pub policy: PolicySection,
    /// For whom; absent means open to whom the policy lets discover it.
    #[serde(default)]
    pub audience: Option<Audience>,
    /// From when; default: now.
    #[serde(default)]
    pub valid_from: Option<Timestamp>,
    /// Until when.
    #[serde(default)]
    pub valid_until: Option<Timestamp>,
    /// Whether each step waits for a person.
    #[serde(default)]
    pub approval: Approval,
    /// How old, in seconds, the provider's status statement may be when the consumer uses the data.
    #[serde(default = "a_day")]
    pub freshness_seconds: u64,
}

/// Who takes the provider's steps in negotiations and transfers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Approval {
    /// The connector, as the policy decides.
    #[default]
    Auto,
    /// A person or a program of theirs, where the policy allows it at all: each step waits as a pending action.
    Manual,
}

/// `[dataset]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetSection {
    /// The dataset's id.
    pub id: DatasetId,
    /// A title for people.
    pub title: String,
    /// What it is and where it comes from.
    #[serde(default)]
    pub description: String,
    /// The file, below one of the operator's roots.
    pub source: String,
    /// `csv`, `jsonl`, `json` or `parquet`.
    #[serde(default = "csv")]
    pub format: String,
    /// The collection that it belongs to.
    #[serde(default)]
    pub collection: Option<String>,
    /// Classification: a text of the steward's (`general`, `important`).
    #[serde(default)]
    pub classification: Option<String>,
    /// Quality statement.
    #[serde(default)]
    pub quality: Option<String>,
    /// The datasets that it was derived from.
    #[serde(default)]
    pub parents: BTreeSet<String>,
    /// Derived datasets in our vault that it is made of: their parents' policies are inherited.
    #[serde(default)]
    pub derived_from: Vec<DatasetId>,
    /// What it is offered onward for: what those policies are told.
    #[serde(default)]
    pub derived_purpose: String,
}

/// `[policy]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySection {
    /// A Cedar file beside the offer file.
    pub file: PathBuf,
    /// Obligations that hold whatever permit matched.
    #[serde(default)]
    pub floor: String,
    /// Whether clauses that no machine sees to (`contract only` in the manifest) may be in it: `allow` or `refuse`.
    #[serde(default)]
    pub contract_only: ContractOnly,
    /// Where the policy's days begin, as in `+08:00`; default: the connector's `policy.zone`.
    #[serde(default)]
    pub zone: Option<Zone>,
}

/// What an offer thinks of clauses that no machine sees to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContractOnly {
    /// They are listed in the manifest.
    #[default]
    Allow,
    /// The offer isn't published with one.
    Refuse,
}

/// `[audience]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audience {
    /// The recipients for whom the offer is sealed.
    #[serde(default)]
    pub sealed_for: Vec<Did>,
    /// Whether foreign connectors, which present a token, may have it too: unsealed, with receipts that only we sign.
    #[serde(default)]
    pub plain: bool,
    /// Whether foreign connectors may have it although not all of its clauses are enforced before the bytes leave.
    #[serde(default)]
    pub plain_unenforced: bool,
}

fn csv() -> String {
    "csv".into()
}

fn a_day() -> u64 {
    24 * 3600
}

impl OfferFile {
    /// Reads the file and the text of its policy.
    pub fn load(path: &Path) -> Result<(Self, String), OfferFileError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| OfferFileError::Read { path: path.to_owned(), error })
        };
        let text = read(path)?;
        let mut offer: Self = toml::from_str(&text)
            .map_err(|error| OfferFileError::Parse { path: path.to_owned(), error: error.to_string() })?;
        let not_yet = |key, value: &str, hint| OfferFileError::NotYet {
            path: path.to_owned(),
            key,
            value: value.to_owned(),
            hint,
        };
        if offer.dataset.source.contains("://") {
            return Err(not_yet(
                "dataset.source",
                &offer.dataset.source,
                "give a file below one of the roots in counterseal.toml",
            ));
        }
        if offer.audience.as_ref().is_some_and(|audience| !audience.plain && audience.sealed_for.is_empty()) {
            return Err(OfferFileError::Parse {
                path: path.to_owned(),
                error: "audience.sealed_for is empty: name a recipient, or leave [audience] out to publish openly"
                    .into(),
            });
        }
        if offer.freshness_seconds == 0 {
            return Err(OfferFileError::Parse {
                path: path.to_owned(),
                error: "freshness_seconds = 0: a status can't be newer than that; give at least 1".into(),
            });
        }
        offer.policy.file = path.parent().unwrap_or(Path::new(".")).join(&offer.policy.file);
        let policy = read(&offer.policy.file)?;
        Ok((offer, policy))
    }
}
