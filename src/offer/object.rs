//! The signed offer and its sealed form.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    crypto::{
        Random, SealingKey, SealingPublic, SigningKey, VerifyingKey, jwe,
        jws::{self, Jws, Kid, Typ, Verified},
        sha256,
    },
    id::{DatasetId, Did, OfferId, ParticipantId, Sha256},
    offer::Approval,
    policy::{Amount, Columns, PolicyError, PolicySource, Slice},
    time::{Timestamp, Zone},
};

/// The content type inside a sealed offer's JWE.
const SEALED: &str = "counterseal-offer+jws";

/// Why an offer was not taken.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// The signature, or the object's form, is wrong.
    #[error("the offer's signature is not good: {0}")]
    Signature(#[from] jws::JwsError),
    /// The sealed form can't be opened with our key.
    #[error("the sealed offer can't be opened: {0}")]
    Sealed(#[from] jwe::JweError),
    /// The offer names another provider than who sent it.
    #[error("the offer names the provider `{named}`, but `{sender}` sent it")]
    Provider {
        /// In the offer.
        named: ParticipantId,
        /// On the connection.
        sender: String,
    },
    /// The offer is made out to somebody else.
    #[error("the offer is made out to `{0}`")]
    Audience(Did),
    /// The policy in the offer is not the one whose hash it states, or this build can't enforce it.
    #[error("the offer's policy can't be used: {0}")]
    Policy(#[from] PolicyError),
    /// The stated hash is another.
    #[error("the offer states the policy hash {stated}, its policy has {found}")]
    PolicyHash {
        /// In the offer.
        stated: Sha256,
        /// Computed.
        found: Sha256,
    },
}

/// An offer: JWS payload, `typ` `counterseal-offer+jws`. Its identity is the SHA-256 of the JWS.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Offer {
    /// Format version: 1.
    pub v: u8,
    /// The steward's id.
    pub id: OfferId,
    /// Who offers: a DID, in an offer of a Counterseal connector's.
    pub provider: ParticipantId,
    /// What is offered.
    pub dataset: DatasetDescription,
    /// On what terms.
    pub policy: OfferedPolicy,
    /// Whether each step waits for a person at the provider's.
    pub approval: Approval,
    /// How old a status statement may be at use, in seconds.
    pub freshness_seconds: u64,
    /// From when an agreement may be made.
    pub valid_from: Timestamp,
    /// Until when agreements under it hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    /// The JWS hash of the version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<Sha256>,
    /// The recipient, in a sealed offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<Did>,
}

/// The dataset as described to partners (DCAT).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatasetDescription {
    /// The dataset's id.
    pub id: DatasetId,
    /// dct:title
    pub title: String,
    /// dct:description
    pub description: String,
    /// The columns before any obligation.
    pub columns: Columns,
    /// Collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// Classification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classification: Option<String>,
    /// Quality statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<String>,
    /// How much it is, before any obligation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extent: Option<Extent>,
    /// The datasets that it was derived from.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub parents: BTreeSet<String>,
    /// How it can be had.
    pub distributions: Vec<Distribution>,
}

/// How much data there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Bytes.
    pub bytes: u64,
    /// Records, where they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
}

impl Extent {
    /// What one release or use of it spends.
    pub fn once(self) -> Amount {
        Amount { count: 1, records: self.records.unwrap_or(0), bytes: self.bytes }
    }
}

/// dcat:Distribution
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Distribution {
    /// Transfer format: `HttpData-PULL`.
    pub format: String,
    /// Media type of the plaintext.
    pub media_type: String,
}

/// The policy in full: the consumer decides its uses by the same text.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OfferedPolicy {
    /// The offer's own Cedar policies.
    pub cedar: String,
    /// The connector's global ones, at publishing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub global: String,
    /// The offer's floor.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub floor: String,
    /// The connector's floor.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub connector_floor: String,
    /// Where the policy's days begin.
    #[serde(default)]
    pub zone: Zone,
    /// SHA-256 of the Cedar schema.
    pub schema_sha256: Sha256,
    /// The slice's hash.
    pub sha256: Sha256,
    /// The same in ODRL, as far as it goes.
    pub odrl: serde_json::Value,
}

impl OfferedPolicy {
    /// Compiles the slice of this policy. Errors name the file `origin`.
    pub fn slice(&self, origin: &str, columns: &Columns) -> Result<Slice, PolicyError> {
        Slice::compile(
            PolicySource { name: origin, text: &self.cedar },
            PolicySource { name: "global policies", text: &self.global },
            &self.floor,
            &self.connector_floor,
            columns,
        )
    }
}

impl Offer {
    /// Signs this offer.
    pub fn sign(&self, kid: &Kid, key: &SigningKey) -> Result<Jws, jws::JwsError> {
        jws::sign(Typ::Offer, kid, key, self)
    }

    /// Whether an agreement may be made at `now`.
    pub fn stands_at(&self, now: Timestamp) -> bool {
        self.valid_from <= now && self.valid_until.is_none_or(|until| now < until)
    }

    /// The slice of the offer's policy, its hash checked against the stated one.
    pub fn slice(&self) -> Result<Slice, OfferError> {
        let slice = self.policy.slice(&format!("offer `{}`", self.id), &self.dataset.columns)?;
        if slice.sha256() == self.policy.sha256 {
            Ok(slice)
        } else {
            Err(OfferError::PolicyHash { stated: self.policy.sha256, found: slice.sha256() })
        }
    }
}

/// Checks a received offer: signed by `provider`'s signing key, in `provider`'s name, for everybody or for `us`.
pub fn verify(
    jws: &Jws,
    provider: &impl AsRef<str>,
    us: &impl AsRef<str>,
    key: impl FnOnce(&Kid) -> Option<VerifyingKey>,
) -> Result<Verified<Offer>, OfferError> {
    let offer: Verified<Offer> = jws::verify(jws, Typ::Offer, provider, key)?;
    if offer.payload().provider.as_str() != provider.as_ref() {
        return Err(OfferError::Provider {
            named: offer.payload().provider.clone(),
            sender: provider.as_ref().to_owned(),
        });
    }
    match &offer.payload().aud {
        Some(aud) if aud.as_str() != us.as_ref() => Err(OfferError::Audience(aud.clone())),
        _ => Ok(offer),
    }
}

/// Whom an offer is sealed for.
pub struct Sealing<'a> {
    /// The recipient's sealing key.
    pub key: &'a SealingPublic,
    /// Its key id.
    pub kid: &'a str,
}

/// Seals a signed offer for one recipient: a compact JWE of its own (RFC 7516, RFC 8037).
pub fn seal(jws: &Jws, to: &Sealing<'_>, random: &dyn Random) -> Result<String, OfferError> {
    Ok(jwe::seal(to.key, to.kid, SEALED, jws.as_str().as_bytes(), random)?)
}

/// Opens a sealed offer. What comes out is unverified: nothing is trusted for having been decrypted.
pub fn unseal(sealed: &str, key: &SealingKey) -> Result<Jws, OfferError> {
    let bytes = jwe::open(key, SEALED, sealed)?;
    let text = String::from_utf8(bytes).map_err(|_| jws::JwsError::syntax())?;
    Ok(Jws::parse(text)?)
}

/// The key id under which a recipient's sealing key goes: `<did>#sealing-<first 16 hex of its SHA-256>`.
pub fn sealing_kid(did: &Did, key: &SealingPublic) -> String {
    format!("{did}#sealing-{}", &sha256(key.bytes()).to_string()[..16])
}
