//! The receipt: what is signed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    crypto::{
        SigningKey, VerifyingKey,
        jws::{self, Jws, JwsError, Kid, Typ, Verified},
    },
    error::Refusal,
    id::{AgreementId, ParticipantId, Pid, ReceiptId, ReleaseId, Sha256, SnapshotId},
    receipt::SeriesKey,
    store::StoreError,
    time::Timestamp,
};

/// Longest receipt as JWS, in bytes.
pub const MAX_RECEIPT: usize = 4000;

/// Why a receipt was not made, or receipts can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// Longer than [`MAX_RECEIPT`].
    #[error("a receipt of {0} bytes is too long: at most {MAX_RECEIPT}")]
    TooLong(usize),
    /// It can't be signed, or its signature is wrong.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row that is not what it should be.
    #[error("row {key} is damaged: {problem}")]
    Damaged {
        /// The row's key.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

/// What happened. The order is on disk, in index rows: new kinds go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An offer was published or withdrawn.
    Offered,
    /// A negotiation was decided or ended.
    Negotiated,
    /// An agreement came into force.
    Agreed,
    /// An agreement was brought in from elsewhere.
    Imported,
    /// Somebody approved.
    Approved,
    /// A snapshot may leave; by the provider, before its first byte.
    Released,
    /// Sealed bytes arrived; by the consumer, before it has the key.
    Acknowledged,
    /// The key was handed over; by the provider.
    Delivered,
    /// The key opened what was promised; by the consumer.
    Opened,
    /// It did not; by the consumer.
    Disputed,
    /// Never acknowledged within its deadline.
    Lapsed,
    /// The steward lets the agreement go on after a lapse.
    Lifted,
    /// A local application read a copy; by the consumer.
    Used,
    /// Something was refused.
    Denied,
    /// An agreement or transfer was suspended.
    Suspended,
    /// An agreement or peer was revoked.
    Revoked,
    /// A copy's key was destroyed; in the node's series: what receipts commit to was erased.
    Deleted,
    /// A participant statement was rotated.
    Rotated,
    /// The store was restored from a backup.
    Restored,
    /// Evidence against somebody's log.
    Alarm,
    /// The node started.
    Started,
    /// The node stopped.
    Stopped,
    /// The configuration changed.
    Configured,
    /// Something waits: it may be granted once what has to come first is done.
    Conditional,
    /// The uses under an agreement, told to the provider; by the consumer.
    Reported,
}

impl Kind {
    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Negotiated => "negotiated",
            Self::Agreed => "agreed",
            Self::Imported => "imported",
            Self::Approved => "approved",
            Self::Released => "released",
            Self::Acknowledged => "acknowledged",
            Self::Delivered => "delivered",
            Self::Opened => "opened",
            Self::Disputed => "disputed",
            Self::Lapsed => "lapsed",
            Self::Lifted => "lifted",
            Self::Used => "used",
            Self::Denied => "denied",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
            Self::Deleted => "deleted",
            Self::Rotated => "rotated",
            Self::Restored => "restored",
            Self::Alarm => "alarm",
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Configured => "configured",
            Self::Conditional => "conditional",
            Self::Reported => "reported",
        }
    }
}

/// A usage receipt: JWS payload, `typ` `counterseal-receipt+jws`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Receipt {
    /// Format version: 1.
    pub v: u8,
    /// Minted by the signer.
    pub id: ReceiptId,
    /// What happened.
    pub kind: Kind,
    /// When, by the signer's clock.
    pub time: Timestamp,
    /// `node`, or the agreement in whose series it is numbered.
    pub series: String,
    /// Who provides (in the node's series: who signs).
    pub provider: ParticipantId,
    /// Who consumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<ParticipantId>,
    /// Under which agreement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<AgreementId>,
    /// Whether the agreement is one that only the signer has signed: no half of the partner's will answer this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_sided: bool,
    /// About which offer: SHA-256 of its JWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Sha256>,
    /// In which transfer process (the signer's pid).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Pid>,
    /// Which release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseId>,
    /// The action that was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// How it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionRecord>,
    /// SHA-256 of the obligations that were applied, in canonical JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obligations_sha256: Option<Sha256>,
    /// What went over the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// SHA-256 of the keying material.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_sha256: Option<Sha256>,
    /// The state of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// Salted commitments by name (`purpose`, …).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub commitments: BTreeMap<String, Sha256>,
    /// SHA-256 of the signed object that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refers: Option<Sha256>,
    /// Why something was refused or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Refusal>,
    /// How many refusals this one stands for, where they were counted together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<u64>,
    /// How often each action was done since the last report.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub usage: BTreeMap<String, u64>,
    /// How the peer was authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<String>,
    /// The partner's newest checkpoint that the signer knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_checkpoint: Option<PeerCheckpoint>,
    /// The log before this one, in which the signer's receipts were until its store was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior_log: Option<PeerCheckpoint>,
}

/// A decision as a receipt tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DecisionRecord {
    /// allow, conditional, deny, default-deny
    pub verdict: String,
    /// The deciding policies' `@id`s.
    pub policies: Vec<String>,
    /// Reason code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The slice's hash.
    pub policy_sha256: Sha256,
    /// The Cedar schema's hash.
    pub schema_sha256: Sha256,
    /// What decided: `cedar-policy` and its version.
    pub engine: String,
    /// Commitment to the whole Cedar request.
    pub request_commit: Sha256,
}

/// Bytes as they went over the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Payload {
    /// Coded bytes in all segments.
    pub bytes: u64,
    /// Data records, where the signer counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// The coded bodies, in order.
    pub segments: Vec<Segment>,
}

/// One coded body (RFC 8188), or the prefix of one that a resume kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Segment {
    /// Its salt (base64url).
    pub salt: String,
    /// Its length, header included.
    pub bytes: u64,
    /// SHA-256 of the coded bytes.
    pub sha256: Sha256,
}

/// Another log's checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerCheckpoint {
    /// Which of its owner's logs.
    #[serde(default = "first_epoch", skip_serializing_if = "is_first_epoch")]
    pub epoch: u64,
    /// Entries.
    pub size: u64,
    /// Tree root.
    pub root: Sha256,
}

const fn first_epoch() -> u64 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_first_epoch(epoch: &u64) -> bool {
    *epoch == 1
}

impl Receipt {
    /// The names of what it commits to, and what may be kept beside it.
    pub fn contents(&self) -> impl Iterator<Item = &str> {
        let request = self.decision.as_ref().map(|_| "request");
        self.commitments.keys().map(String::as_str).chain(request)
    }

    /// A receipt in the node's own series, with nothing said yet but what and when.
    pub fn new(id: ReceiptId, kind: Kind, time: Timestamp, signer: ParticipantId) -> Self {
        Self {
            v: 1,
            id,
            kind,
            time,
            series: "node".into(),
            provider: signer,
            consumer: None,
            agreement: None,
            one_sided: false,
            offer: None,
            transfer: None,
            release: None,
            action: None,
            decision: None,
            obligations_sha256: None,
            payload: None,
            key_sha256: None,
            snapshot: None,
            commitments: BTreeMap::new(),
            refers: None,
            reason: None,
            counted: None,
            usage: BTreeMap::new(),
            authentication: None,
            peer_checkpoint: None,
            prior_log: None,
        }
    }
}

/// A signed receipt on its way into the log. Signed by the caller, in parallel; numbered by the committer.
#[derive(Clone, Debug)]
pub struct NewReceipt {
    /// What was signed.
    pub receipt: Receipt,
    /// The signed form.
    pub jws: Jws,
    /// The key of the series in which it is numbered.
    pub series_key: SeriesKey,
}

impl NewReceipt {
    /// Signs the receipt.
    pub fn sign(receipt: Receipt, kid: &Kid, key: &SigningKey, series_key: SeriesKey) -> Result<Self, ReceiptError> {
        let jws = jws::sign(Typ::Receipt, kid, key, &receipt)?;
        if jws.as_str().len() > MAX_RECEIPT {
            return Err(ReceiptError::TooLong(jws.as_str().len()));
        }
        Ok(Self { receipt, jws, series_key })
    }
}

/// Checks that this is a receipt by `signer`.
pub fn verify(
    jws: &Jws,
    signer: &impl AsRef<str>,
    key: impl FnOnce(&Kid) -> Option<VerifyingKey>,
) -> Result<Verified<Receipt>, JwsError> {
    jws::verify(jws, Typ::Receipt, signer, key)
}
