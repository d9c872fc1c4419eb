//! What an export holds, in memory.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    agreement::SeriesSecret,
    crypto::{jws::Jws, unb64},
    id::{AgreementId, Did, ParticipantId, Sha256},
    receipt::{ENTRY, Kind, PartnerHalf, Receipt, Stamp},
    time::Timestamp,
};

/// One party's export.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Whose it is, and what was asked for.
    pub about: About,
    /// Chains of participant statements, oldest first: the exporter's and its partners'.
    pub statements: BTreeMap<Did, Vec<Jws>>,
    /// The newest checkpoint: a C2SP signed note.
    pub checkpoint: String,
    /// Checkpoints that partners cosigned, with their cosignatures, by size.
    pub checkpoints: BTreeMap<u64, String>,
    /// Every entry of the log. They betray nothing.
    pub entries: Vec<[u8; ENTRY]>,
    /// The agreements that the receipts are about.
    pub agreements: Vec<ExportedAgreement>,
    /// Offers whose policies decided, besides those of agreements.
    pub offers: Vec<Jws>,
    /// The Cedar schema.
    pub schema: String,
    /// The receipts, in the order of the log.
    pub receipts: Vec<ExportedReceipt>,
    /// What the partners signed.
    pub halves: Vec<PartnerHalf>,
    /// The exporter's own receipts that it lost with a store that was restored, as partners gave them back: those of this
    /// log; in an export of the newest, those of all.
    pub recovered: Vec<PartnerHalf>,
    /// Evidence against partners' logs.
    pub alarms: Vec<Alarm>,
    /// Checkpoints that somebody else put a time to.
    pub anchors: Vec<Anchored>,
}

/// Whose export it is, and what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct About {
    /// Format version: 1.
    pub v: u8,
    /// Whose it is.
    pub exporter: Did,
    /// Which log of the exporter's.
    pub epoch: u64,
    /// When it was made.
    pub made: Timestamp,
    /// Which receipts were asked for.
    #[serde(default)]
    pub scope: Scope,
}

/// Which receipts were asked for. An agreement's or a partner's are complete, which a verifier checks; a selection by
/// kind, verdict or time has gaps by its nature, and says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Scope {
    /// Of this agreement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<AgreementId>,
    /// About this partner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<ParticipantId>,
    /// Of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Of decisions with this verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Scope {
    /// Whether the series of its agreements are whole.
    pub fn is_whole(&self) -> bool {
        self.kind.is_none() && self.verdict.is_none() && self.since.is_none() && self.until.is_none()
    }
}

/// An agreement with both signatures and the secret of its series; a one-sided one has the exporter's alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExportedAgreement {
    /// By the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_provider: Option<Jws>,
    /// By the consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_consumer: Option<Jws>,
    /// The offer that it is about.
    pub offer: Jws,
    /// Shows the gaps in either party's series.
    pub series_secret: SeriesSecret,
}

/// A receipt, its place, and what the exporter may show of what it commits to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExportedReceipt {
    /// In the log.
    pub index: u64,
    /// In its series.
    pub number: u64,
    /// As signed.
    pub jws: Jws,
    /// C2SP `tlog-proof`: shows that it is in the log without the rest of the export.
    pub proof: String,
    /// By name (`request`, `purpose`): what the receipt commits to. Absent where it was erased or is not shown.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contents: BTreeMap<String, Content>,
}

/// What a commitment was made over: SHA-256 over the salt and this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Content {
    /// 32 random bytes, base64url.
    pub salt: String,
    /// The text.
    pub text: String,
}

/// An alarm that was raised: evidence against a partner's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Alarm {
    /// Whose log.
    pub peer: Did,
    /// Stable code.
    pub code: String,
    /// For people.
    pub sentence: String,
    /// Whether the objects prove it to anybody, or only to who raised it.
    pub proven: bool,
    /// When it was raised.
    pub at: Timestamp,
    /// What the partner signed.
    pub objects: Vec<String>,
}

/// A checkpoint and the stamp over it. Whether the stamp was given is for whoever gave it to say; that it is over this
/// note, anybody sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Anchored {
    /// The exporter's signed note.
    pub note: String,
    /// The stamp.
    pub stamp: Stamp,
}

/// What a receipt of anybody's says; unverified.
pub fn claimed(jws: &Jws) -> Option<Receipt> {
    let payload = unb64(jws.as_str().split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// What a receipt of anybody's refers to; unverified.
pub fn refers_to(jws: &Jws) -> Option<Sha256> {
    claimed(jws)?.refers
}
