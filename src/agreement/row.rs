//! Agreements as a connector keeps them: rows `a/…`, with the counters that their releases and uses spend.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    agreement::{Agreement, AgreementState, Extent, Status, Tally},
    crypto::{b64, jws::Jws, sha256, unb64},
    error::Refusal,
    id::{AgreementId, ParticipantId, Pid, ReleaseId, Sha256, SnapshotId},
    offer::Approval,
    protocol::Party,
    receipt::{SeriesKey, row_key},
    time::Timestamp,
};

/// Where agreements lie in the store.
pub const PREFIX: &str = "a/";

/// The row's key.
pub fn key(id: &AgreementId) -> Vec<u8> {
    row_key(PREFIX, &[id.as_str()])
}

/// An agreement, what was signed about it, and what was spent under it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgreementRow {
    /// What both signed.
    pub agreement: Agreement,
    /// The side that we are on.
    pub ours: Party,
    /// The negotiation that made it.
    pub negotiation: Pid,
    /// The offer's JWS; in a one-sided agreement by us, whoever provides.
    pub offer: Jws,
    /// Whether only we have signed: a foreign connector's agreement, or one that was concluded elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_sided: bool,
    /// Who takes our steps in its transfers.
    #[serde(default)]
    pub approval: Approval,
    /// The provider's signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_provider: Option<Jws>,
    /// The consumer's signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_consumer: Option<Jws>,
    /// Its state as we know it.
    pub state: AgreementState,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Refusal>,
    /// The secret of its series, shared by the parties (base64url).
    pub series_secret: SeriesSecret,
    /// The source as it was offered (provider).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourcePin>,
    /// Releases spent (provider).
    #[serde(default)]
    pub releases: Tally,
    /// Uses spent, by action (consumer).
    #[serde(default)]
    pub uses: std::collections::BTreeMap<String, Tally>,
    /// What was paid for it, as the operator recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<Payment>,
    /// A release that waits for its acknowledgement (provider).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<OpenRelease>,
    /// The newest status statement (consumer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<KnownStatus>,
}

/// A payment for an agreement (TC609-6-2025-14 C.6, payAmount 交易金额).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Payment {
    /// How much, with at most four decimal places.
    pub amount: String,
    /// In which currency (ISO 4217).
    pub currency: String,
    /// The payment's reference.
    pub reference: String,
    /// When it was recorded.
    pub recorded: Timestamp,
}

/// What the offer was published over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourcePin {
    /// The file, below a root.
    pub path: String,
    /// `csv`.
    pub format: String,
    /// Its state when the offer was published.
    pub snapshot: SnapshotId,
    /// When that was.
    pub published: Timestamp,
    /// How much it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extent: Option<Extent>,
}

/// The release that blocks the next one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenRelease {
    /// Which.
    pub id: ReleaseId,
    /// When it lapses.
    pub deadline: Timestamp,
    /// Set once it has lapsed: it stays spent and blocks until it is acknowledged late or lifted.
    pub lapsed: bool,
}

/// A status statement that was verified.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownStatus {
    /// What it said.
    pub status: Status,
    /// When we got it, by our clock.
    pub received: Timestamp,
    /// The statement.
    pub jws: Jws,
}

/// 32 bytes; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SeriesSecret(pub [u8; 32]);

impl SeriesSecret {
    /// What the agreement says of it.
    pub fn sha256(&self) -> Sha256 {
        sha256(&self.0)
    }

    /// A party's series key.
    pub fn key_of(&self, party: &ParticipantId) -> SeriesKey {
        SeriesKey::derive(&self.0, party)
    }
}

impl AgreementRow {
    /// The agreement's id.
    pub fn id(&self) -> &AgreementId {
        &self.agreement.id
    }

    /// The other party.
    pub fn peer(&self) -> &ParticipantId {
        match self.ours {
            Party::Provider => &self.agreement.consumer.id,
            Party::Consumer => &self.agreement.provider.id,
        }
    }

    /// Ourselves.
    pub fn us(&self) -> &ParticipantId {
        match self.ours {
            Party::Provider => &self.agreement.provider.id,
            Party::Consumer => &self.agreement.consumer.id,
        }
    }

    /// The key of our own series under it.
    pub fn series_key(&self) -> SeriesKey {
        self.series_secret.key_of(self.us())
    }

    /// Whether anything may happen under it at `now`; the refusal says why not.
    pub fn in_force(&self, now: Timestamp) -> Result<(), Refusal> {
        let id = self.id();
        match self.state {
            AgreementState::Pending => Err(Refusal::new(
                "agreement-pending",
                format!("agreement {id} is not in force yet: the negotiation that makes it has not been finalized"),
            )),
            AgreementState::Revoked => Err(Refusal::new(
                "agreement-revoked",
                format!(
                    "agreement {id} was revoked by the provider{}",
                    self.ended.as_ref().map(|why| format!(": {}", why.sentence)).unwrap_or_default()
                ),
            )),
            AgreementState::Expired => {
                Err(Refusal::new("agreement-expired", format!("agreement {id} is over; negotiate a new one")))
            }
            AgreementState::Active if !self.one_sided && self.by_consumer.is_none() => Err(Refusal::new(
                "agreement-unsigned",
                format!("agreement {id} lacks the consumer's signature; nothing is released under it"),
            )),
            AgreementState::Active => {
                let agreement = &self.agreement;
                if now < agreement.valid_from {
                    return Err(Refusal::new(
                        "agreement-not-yet-valid",
                        format!("agreement {id} holds from {}; it is {now} now", agreement.valid_from),
                    ));
                }
                match agreement.valid_until {
                    Some(until) if now >= until => Err(Refusal::new(
                        "agreement-expired",
                        format!("agreement {id} ended at {until}; negotiate a new one"),
                    )),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Whether the last status statement is fresh enough for a use at `now` (DESIGN: freshness limit).
    pub fn status_is_fresh(&self, now: Timestamp) -> bool {
        let limit = Duration::from_secs(self.agreement.freshness_seconds);
        self.status.as_ref().is_some_and(|known| {
            known.status.state == AgreementState::Active
                && now >= known.received
                && now.since(known.received) < limit
                && now < known.status.valid_until
        })
    }
}

impl Serialize for SeriesSecret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&b64(&self.0))
    }
}

impl<'de> Deserialize<'de> for SeriesSecret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let bytes = unb64(&String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        bytes.try_into().map(Self).map_err(|_| D::Error::custom("a series secret has 32 bytes"))
    }
}

impl std::fmt::Debug for SeriesSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SeriesSecret(…)")
    }
}
