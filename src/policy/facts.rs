//! What a decision is made on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    id::{DatasetId, ParticipantId},
    time::Timestamp,
};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// See it in the catalog.
    Discover,
    /// Agree on it.
    Negotiate,
    /// Let a snapshot leave.
    Release,
    /// Use a copy.
    Use(UseAction),
}

/// A use, in the words of TC609-6-2025-14 C.5 (`view` and `resultDownload` are extensions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the dictionary's own words")]
pub enum UseAction {
    Read,
    Compute,
    Process,
    Download,
    Storage,
    Distribute,
    PolicyTransmit,
    Delete,
    View,
    ResultDownload,
}

impl UseAction {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Read,
        Self::Compute,
        Self::Process,
        Self::Download,
        Self::Storage,
        Self::Distribute,
        Self::PolicyTransmit,
        Self::Delete,
        Self::View,
        Self::ResultDownload,
    ];

    /// The Cedar action's id.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Compute => "compute",
            Self::Process => "process",
            Self::Download => "download",
            Self::Storage => "storage",
            Self::Distribute => "distribute",
            Self::PolicyTransmit => "policyTransmit",
            Self::Delete => "delete",
            Self::View => "view",
            Self::ResultDownload => "resultDownload",
        }
    }

    /// The use of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

impl Action {
    /// The Cedar action's id.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Discover => "discover",
            Self::Negotiate => "negotiate",
            Self::Release => "release",
            Self::Use(action) => action.as_str(),
        }
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Discover, Self::Negotiate, Self::Release].into_iter().chain(UseAction::ALL.into_iter().map(Self::Use))
    }

    /// The action of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::all().find(|action| action.as_str() == name)
    }
}

/// A fact in the context, named as in TC609-6-2025-14 C.6 where it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContextFact {
    /// The time.
    Now,
    /// What for.
    Purpose,
    /// How often before.
    Count,
    /// Under which agreement.
    Agreement,
    /// From where.
    NetworkAddress,
    /// From which jurisdiction.
    Region,
    /// By which application.
    Application,
}

/// Who vouches for a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactSource {
    /// The connection, the store or the clock.
    Verified,
    /// Our operator, at pairing.
    Operator,
    /// The partner says so of itself.
    Declared,
}

impl ContextFact {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Now, Self::Purpose, Self::Count, Self::Agreement, Self::NetworkAddress, Self::Region, Self::Application];

    /// The attribute's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Purpose => "purpose",
            Self::Count => "count",
            Self::Agreement => "agreement",
            Self::NetworkAddress => "networkAddress",
            Self::Region => "region",
            Self::Application => "application",
        }
    }

    /// The fact of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fact| fact.name() == name)
    }

    /// Who vouches for it.
    pub const fn source(self) -> FactSource {
        match self {
            Self::Purpose | Self::Application => FactSource::Declared,
            Self::Region => FactSource::Operator,
            Self::Now | Self::Count | Self::Agreement | Self::NetworkAddress => FactSource::Verified,
        }
    }

    /// Whether a value is of the fact's type in the schema. One that isn't equals nothing, so that a `forbid` would
    /// be stepped around.
    pub(super) const fn takes(self, value: &Value) -> bool {
        matches!(
            (self, value),
            (Self::Now, Value::Time(_))
                | (Self::Count, Value::Long(_))
                | (Self::NetworkAddress, Value::Ip(_))
                | (Self::Purpose | Self::Agreement | Self::Region | Self::Application, Value::Text(_))
        )
    }
}

/// By name, for messages.
impl std::fmt::Display for ContextFact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A fact's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Cedar String.
    Text(String),
    /// Cedar Long.
    Long(i64),
    /// Cedar datetime.
    Time(Timestamp),
    /// Cedar ipaddr; an IPv4 address mapped into IPv6 is taken as the IPv4 address that it is.
    Ip(IpAddr),
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The participant.
    pub id: ParticipantId,
    /// Its jurisdiction; `None` is known to be unstated, and reads "".
    pub jurisdiction: Option<String>,
    /// Its roles.
    pub roles: BTreeSet<String>,
    /// Its certifications.
    pub certifications: BTreeSet<String>,
    /// Its groups.
    pub groups: BTreeSet<String>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The dataset.
    pub dataset: DatasetId,
    /// The collection that it is in.
    pub collection: Option<String>,
    /// Who provides it.
    pub provider: ParticipantId,
    /// Its classification; `None` reads "".
    pub classification: Option<String>,
}

/// Everything that a decision is made on. A fact that could not be had is not in `context`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Who.
    pub principal: Principal,
    /// Does what.
    pub action: Action,
    /// To what.
    pub resource: Resource,
    /// Under which circumstances.
    pub context: BTreeMap<ContextFact, Value>,
}
