//! What happens in a step, as a scenario's file says it.

use std::{collections::BTreeSet, path::PathBuf};

use serde::Deserialize;

use crate::id::Sha256;

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its line in the file.
    pub line: usize,
    /// What is told.
    pub say: String,
    /// The same in Chinese.
    pub say_zh: String,
    /// The denial that it shows, word for word as in `denials`.
    pub deny: Option<String>,
    /// `None`: it is done. Else the reason code of the refusal.
    pub expect: Option<String>,
    /// A part of the refusal's sentence.
    pub says: Option<String>,
    /// What is done.
    pub act: Act,
}

/// What is done.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Act {
    /// An offer is published, or its next version.
    Publish { by: String, offer: PathBuf },
    /// A source changes: a text is added to a file in the party's data folder.
    Alter { by: String, file: PathBuf, append: String },
    /// An offer is withdrawn.
    WithdrawOffer { by: String, offer: String },
    /// Somebody looks for a dataset in a catalog.
    Catalog { by: String, of: String, dataset: String, seen: bool },
    /// Two negotiate, to an agreement that has this name from then on.
    Negotiate {
        by: String,
        with: String,
        dataset: String,
        #[serde(rename = "as")]
        name: Option<String>,
    },
    /// A release is fetched.
    Fetch(Fetch),
    /// A copy is used.
    Use(Use),
    /// Somebody may approve from now on.
    Approver { at: String, name: String, roles: BTreeSet<String>, of: Option<String> },
    /// The oldest request that waits for this role is approved.
    Approve { at: String, by: String, role: String },
    /// The oldest request that waits for this role is refused.
    Refuse { at: String, by: String, role: String, reason: String },
    /// A consent is put on record.
    Consent { at: String, of: String, dataset: String, name: String, reference: String },
    /// A consent is withdrawn.
    WithdrawConsent {
        at: String,
        of: String,
        dataset: String,
        name: String,
        #[serde(default)]
        reference: String,
    },
    /// A person is enrolled for second factors.
    Enrol { at: String, of: String, person: String },
    /// A payment is put on record.
    Pay { at: String, under: String, amount: String, currency: String, reference: String },
    /// An application is registered.
    Application(App),
    /// Data is made from copies.
    Derive(Derive),
    /// An agreement is revoked by its provider.
    Revoke { at: String, under: String, reason: String },
    /// A peer is revoked.
    RevokePeer { at: String, peer: String, reason: String },
    /// Time goes by for everybody.
    Wait {
        #[serde(rename = "for")]
        time: String,
    },
    /// Whether anything that is owed after releases is overdue, as this party sees it.
    Duties { at: String, overdue: bool },
    /// Many ask at once for what is left.
    Race { by: String, under: String, purpose: String, times: usize, succeed: usize },
    /// A request is made twice with one id.
    Replay { by: String, under: String, purpose: Option<String> },
    /// A receipt in an export is changed, then removed.
    Tamper { at: String },
    /// Both exports are verified offline, and held against each other.
    Evidence { between: [String; 2] },
}

/// `do = "fetch"`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    pub by: String,
    pub under: String,
    pub purpose: String,
    #[serde(default)]
    pub fields: Option<BTreeSet<String>>,
    #[serde(default)]
    pub filter: Option<String>,
    #[serde(default)]
    pub accepts: BTreeSet<String>,
    #[serde(default)]
    pub person: Option<String>,
    #[serde(default)]
    pub code: Option<Code>,
    #[serde(default)]
    pub application: String,
    #[serde(default)]
    pub algorithm: String,
    #[serde(default)]
    pub models: BTreeSet<String>,
    #[serde(default)]
    pub env: String,
    /// Whether it is a request of its own although another one waits; if it isn't said, it goes on with what waits.
    #[serde(default)]
    pub another: bool,
}

/// A one-time code.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Code {
    /// The right one, or none.
    Right(bool),
    /// These digits.
    Digits(String),
}

/// `do = "use"`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    pub by: String,
    pub of: String,
    pub purpose: String,
    #[serde(default = "read")]
    pub action: String,
    #[serde(default)]
    pub application: Option<String>,
    /// Exactly these columns came out, in this order.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// So many rows came out.
    #[serde(default)]
    pub rows: Option<usize>,
    /// Texts that stand in what came out.
    #[serde(default)]
    pub shows: Vec<String>,
    /// Texts that don't.
    #[serde(default)]
    pub hides: Vec<String>,
}

fn read() -> String {
    "read".to_owned()
}

/// `do = "application"`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    pub at: String,
    pub name: String,
    #[serde(default)]
    pub kind: AppKind,
    /// Program, by its whole path, and arguments.
    #[serde(default = "cat")]
    pub command: Vec<String>,
    #[serde(default)]
    pub algorithm: Option<Sha256>,
    #[serde(default)]
    pub models: BTreeSet<String>,
    #[serde(default)]
    pub env: String,
    /// The agreements that it is bound to.
    #[serde(default)]
    pub under: Vec<String>,
}

/// How an application gets its data in a scenario.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppKind {
    /// On its standard input.
    #[default]
    Pipe,
}

fn cat() -> Vec<String> {
    vec!["/bin/cat".to_owned()]
}

/// `do = "derive"`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derive {
    pub by: String,
    pub from: Vec<String>,
    pub id: String,
    pub title: String,
    pub purpose: String,
    pub file: PathBuf,
    #[serde(default)]
    pub application: Option<String>,
}

// === impl Step ===

impl Step {
    /// Whether it shows that something is denied: refused, or kept from being seen.
    pub fn denies(&self) -> bool {
        let kept = match &self.act {
            Act::Catalog { seen, .. } => !seen,
            Act::Use(wanted) => !wanted.hides.is_empty() || wanted.columns.is_some(),
            Act::Race { times, succeed, .. } => succeed < times,
            Act::Replay { .. } | Act::Tamper { .. } => true,
            _ => false,
        };
        self.expect.is_some() || kept
    }
}

// === impl Act ===

impl Act {
    /// What stands behind `do`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Publish { .. } => "publish",
            Self::Alter { .. } => "alter",
            Self::WithdrawOffer { .. } => "withdraw-offer",
            Self::Catalog { .. } => "catalog",
            Self::Negotiate { .. } => "negotiate",
            Self::Fetch(_) => "fetch",
            Self::Use(_) => "use",
            Self::Approver { .. } => "approver",
            Self::Approve { .. } => "approve",
            Self::Refuse { .. } => "refuse",
            Self::Consent { .. } => "consent",
            Self::WithdrawConsent { .. } => "withdraw-consent",
            Self::Enrol { .. } => "enrol",
            Self::Pay { .. } => "pay",
            Self::Application(_) => "application",
            Self::Derive(_) => "derive",
            Self::Revoke { .. } => "revoke",
            Self::RevokePeer { .. } => "revoke-peer",
            Self::Wait { .. } => "wait",
            Self::Duties { .. } => "duties",
            Self::Race { .. } => "race",
            Self::Replay { .. } => "replay",
            Self::Tamper { .. } => "tamper",
            Self::Evidence { .. } => "evidence",
        }
    }

    /// The parties that it names, each with its key.
    pub fn parties(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Publish { by, .. } | Self::Alter { by, .. } | Self::WithdrawOffer { by, .. } => vec![("by", by)],
            Self::Race { by, .. } | Self::Replay { by, .. } => vec![("by", by)],
            Self::Fetch(Fetch { by, .. }) | Self::Use(Use { by, .. }) | Self::Derive(Derive { by, .. }) => {
                vec![("by", by)]
            }
            Self::Catalog { by, of, .. } => vec![("by", by), ("of", of)],
            Self::Negotiate { by, with, .. } => vec![("by", by), ("with", with)],
            Self::Approver { at, of: Some(of), .. } => vec![("at", at), ("of", of)],
            Self::Consent { at, of, .. } | Self::WithdrawConsent { at, of, .. } | Self::Enrol { at, of, .. } => {
                vec![("at", at), ("of", of)]
            }
            Self::RevokePeer { at, peer, .. } => vec![("at", at), ("peer", peer)],
            Self::Approver { at, .. } | Self::Approve { at, .. } | Self::Refuse { at, .. } => vec![("at", at)],
            Self::Pay { at, .. } | Self::Application(App { at, .. }) | Self::Revoke { at, .. } => vec![("at", at)],
            Self::Duties { at, .. } | Self::Tamper { at } => vec![("at", at)],
            Self::Wait { .. } => Vec::new(),
            Self::Evidence { between } => between.iter().map(|party| ("between", party.as_str())).collect(),
        }
    }

    /// The names of agreements that it takes to be there.
    pub fn agreements(&self) -> Vec<&str> {
        match self {
            Self::Fetch(Fetch { under, .. })
            | Self::Pay { under, .. }
            | Self::Revoke { under, .. }
            | Self::Race { under, .. }
            | Self::Replay { under, .. } => vec![under],
            Self::Application(App { under, .. }) => under.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// The file in the folder that it takes to be there, with its key.
    pub fn file(&self) -> Option<(&'static str, &PathBuf)> {
        match self {
            Self::Publish { offer, .. } => Some(("offer", offer)),
            Self::Alter { file, .. } | Self::Derive(Derive { file, .. }) => Some(("file", file)),
            _ => None,
        }
    }
}
