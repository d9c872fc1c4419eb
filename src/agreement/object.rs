//! The agreement that both parties sign, and the provider's statements about its state.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    agreement::ManifestClause,
    crypto::{
        VerifyingKey,
        jws::{self, Jws, Kid, Typ, Verified},
    },
    id::{AgreementId, DatasetId, OfferId, ParticipantId, Sha256},
    identity::Partner,
    time::Timestamp,
};

/// An agreement: JWS payload, `typ` `counterseal-agreement+jws`, signed by *each* party over the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Agreement {
    /// Format version: 1.
    pub v: u8,
    /// Minted by the provider.
    pub id: AgreementId,
    /// The offer's identity: SHA-256 of its JWS.
    pub offer: Sha256,
    /// The offer's id, for people.
    pub offer_id: OfferId,
    /// What it is about.
    pub dataset: DatasetId,
    /// Who provides.
    pub provider: PartyFacts,
    /// Who consumes, with the attributes that the provider vouches for: uses are decided on them.
    pub consumer: PartyFacts,
    /// The policy slice's hash.
    pub policy_sha256: Sha256,
    /// Who enforces which clause.
    pub manifest: Vec<ManifestClause>,
    /// What the consumer owes after releases, as it is written in the policies.
    pub duties: Vec<String>,
    /// SHA-256 of the secret from which both parties' series keys are derived.
    pub series_secret_sha256: Sha256,
    /// How old a status statement may be at use, in seconds.
    pub freshness_seconds: u64,
    /// From when it holds.
    pub valid_from: Timestamp,
    /// Until when it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
}

/// A party as both agreed to see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartyFacts {
    /// Who: a DID for Counterseal peers.
    pub id: ParticipantId,
    /// SHA-256 of the statement that it had, if it makes any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<Sha256>,
    /// Set by the other's operator at pairing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jurisdiction: Option<String>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<String>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub certifications: BTreeSet<String>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_address: Option<String>,
}

impl PartyFacts {
    /// A party of which nothing is said.
    pub const fn plain(id: ParticipantId, statement: Option<Sha256>) -> Self {
        Self {
            id,
            statement,
            jurisdiction: None,
            roles: BTreeSet::new(),
            certifications: BTreeSet::new(),
            groups: BTreeSet::new(),
            physical_address: None,
        }
    }

    /// A partner, with what our operator says of it.
    pub fn of(partner: &Partner) -> Self {
        let attributes = partner.attributes().clone();
        Self {
            id: partner.id(),
            statement: partner.certificate().map(|peer| peer.statement_sha256()),
            jurisdiction: attributes.jurisdiction,
            roles: attributes.roles,
            certifications: attributes.certifications,
            groups: attributes.groups,
            physical_address: attributes.physical_address,
        }
    }
}

/// Checks a party's signature over an agreement.
pub fn verify(
    jws: &Jws,
    signer: &impl AsRef<str>,
    key: impl FnOnce(&Kid) -> Option<VerifyingKey>,
) -> Result<Verified<Agreement>, jws::JwsError> {
    jws::verify(jws, Typ::Agreement, signer, key)
}

/// The provider's statement about an agreement: JWS payload, `typ` `counterseal-status+jws`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Status {
    /// Format version: 1.
    pub v: u8,
    /// The agreement.
    pub agreement: AgreementId,
    /// Its state.
    pub state: AgreementState,
    /// When the provider said so.
    pub issued_at: Timestamp,
    /// Until when the consumer may rely on it.
    pub valid_until: Timestamp,
}

/// An agreement's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgreementState {
    /// Not yet signed by both, or not yet finalized.
    Pending,
    /// In force.
    Active,
    /// Ended by the provider.
    Revoked,
    /// Its time is over, or its negotiation ended before it came into force.
    Expired,
}

impl AgreementState {
    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}
