//! The peer extension: what Counterseal connectors say to each other beside the Dataspace Protocol.
//!
//! Plain JSON below `<base>` + [`PATH`]; refusals are `{"code", "reason": [sentence]}`. Signatures inside are checked by
//! the handler; here they are bounded text.
//!
//! ```text
//!   POST releases                       transfer token; 201 with the `released` receipt, or 403
//!   GET  releases/{id}/stream           (the data plane's)
//!   POST releases/{id}/acknowledgement  200 with the key, last of all
//!   POST releases/{id}/outcome          204: opened or disputed
//!   GET  agreements/{id}/status         200 with the signed status
//!   POST receipts                       204: other halves (used, deleted, revoked)
//!   POST statement                      204: a newer participant statement
//!   POST restorations                   200: the sender's store was restored; what the receiver holds of its receipts
//!   GET  witnessed                      200: the newest checkpoints of the caller's logs that were cosigned
//!   POST add-checkpoint                 C2SP tlog-witness: 200 with a cosignature
//!   GET  log/{epoch}/…                  C2SP tlog-tiles: checkpoint, tile/…; open to anybody
//! ```

use std::collections::BTreeMap;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    crypto::{SealingPublic, jws::Jws},
    error::Refusal,
    id::{AgreementId, ReleaseId, RequestId, Sha256},
    protocol::{
        error::{read_refusal, refusal_body},
        outgoing::segment,
    },
    time::Timestamp,
};

pub use crate::receipt::Segment;

/// Where the extension begins below `<base>`.
pub const PATH: &str = "/counterseal/v1";

/// The most halves in one request.
pub const MAX_HALVES: usize = 256;

/// The most segments in one acknowledgement: a release is resumed at most seven times.
pub const MAX_SEGMENTS: usize = 8;

/// `POST releases`: asks for one release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseRequest {
    /// The consumer's id of it, by which it may be repeated.
    pub request_id: RequestId,
    /// What for, as the consumer declares.
    pub purpose: String,
    /// Only these columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<BTreeSet<String>>,
    /// Only these rows: a SQL boolean expression over columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// What is to read the data, as the consumer declares.
    #[serde(default, skip_serializing_if = "Software::is_empty")]
    pub software: Software,
    /// Statements that the consumer accepts, word for word.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub accepts: BTreeSet<String>,
    /// The acting person, as enrolled with the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// The person's one-time code (RFC 6238).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

impl ReleaseRequest {
    /// A request for all of it.
    pub fn new(request_id: RequestId, purpose: impl Into<String>) -> Self {
        Self {
            request_id,
            purpose: purpose.into(),
            fields: None,
            filter: None,
            software: Software::default(),
            accepts: BTreeSet::new(),
            person: None,
            code: None,
        }
    }
}

/// The software that is to read the data: what a partner says of its own, or what an operator registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Software {
    /// Its id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub application: String,
    /// SHA-256 of the algorithm, in hex.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub algorithm: String,
    /// Models that it runs, by id or hash.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub machine_learning_models: BTreeSet<String>,
    /// Where it runs (TC609-6-2025-14 C.6): 01 usage control … 06 confidential computing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub execution_env: String,
}

impl Software {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A receipt with what shows that it is in its signer's log: the partner checks both at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedReceipt {
    /// The receipt.
    pub receipt: Jws,
    /// Its number in the signer's series of this agreement.
    pub number: u64,
    /// C2SP `tlog-proof` of its entry.
    pub proof: String,
}

/// The release is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseAnswer {
    /// The provider's `released` receipt.
    pub released: LoggedReceipt,
    /// The release.
    pub release: ReleaseId,
    /// URL of the sealed stream.
    pub stream: String,
    /// When the release lapses if it is not acknowledged.
    pub deadline: Timestamp,
    /// About how many bytes will come: the source's length.
    pub length: u64,
}

/// `POST releases/{id}/acknowledgement`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcknowledgementRequest {
    /// An [`Acknowledgement`], signed by the consumer.
    pub acknowledgement: Jws,
    /// The consumer's `acknowledged` receipt of the same.
    pub acknowledged: LoggedReceipt,
}

/// What the consumer signs before it can read anything: which receipt, which ciphertext, and to which key the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Acknowledgement {
    /// Format version, 1.
    pub v: u8,
    /// The release.
    pub release: ReleaseId,
    /// SHA-256 of the `released` receipt's JWS.
    pub released: Sha256,
    /// The coded bodies that were received, in order; at most [`MAX_SEGMENTS`].
    pub segments: Vec<Segment>,
    /// A key of this release only, to which the keying material is sealed.
    pub one_time_key: SealingPublic,
}

/// The key, last of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyAnswer {
    /// The provider's `delivered` receipt.
    pub delivered: LoggedReceipt,
    /// The keying material, sealed to the one-time key (compact JWE).
    pub key: String,
}

/// `POST releases/{id}/outcome`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutcomeRequest {
    /// The consumer's `opened` or `disputed` receipt.
    pub outcome: LoggedReceipt,
}

/// Answer of `GET agreements/{id}/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusAnswer {
    /// The agreement's status, signed by the provider.
    pub status: Jws,
}

/// `POST receipts`: the sender's halves, for the receiver to keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HalvesRequest {
    /// At most [`MAX_HALVES`].
    pub halves: Vec<Half>,
}

/// One receipt of the sender's, with its place, as it arrived: unverified, unlike a `receipt::PartnerHalf`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Half {
    /// Whose series it is in.
    pub agreement: AgreementId,
    /// The receipt's kind.
    pub kind: String,
    /// The receipt and its place.
    #[serde(flatten)]
    pub logged: LoggedReceipt,
}

/// `POST restorations`: the sender's store was restored from a backup, and its receipts go on in a new log. Asks for what
/// was lost: the receipts of both that the backup doesn't hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestorationRequest {
    /// Which log it is.
    pub announcement: Announcement,
    /// About which agreement, if not just to say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
}

/// A log that was begun by a restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// Its first receipt (`restored`), as number 0 of its signer's own series.
    pub restored: LoggedReceipt,
    /// The series tag in its entry (base64url): nobody else can make it.
    pub tag: String,
}

/// Which receipts under an agreement are missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    /// The agreement.
    pub agreement: AgreementId,
    /// How many of the sender's own it has, by log; of others, none.
    pub known: BTreeMap<u64, u64>,
    /// Where the receiver goes on with its own: what its last answer said.
    #[serde(default)]
    pub after: u64,
}

/// Answer of `POST restorations`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestorationAnswer {
    /// The newest checkpoint of each of the sender's logs that the receiver cosigned, as the sender signed it.
    #[serde(default)]
    pub witnessed: Vec<String>,
    /// The receiver's own log, if that was begun by a restore too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announcement: Option<Announcement>,
    /// The sender's receipts that the receiver holds, in the order of logs and numbers; [`MAX_HALVES`] if there may be more.
    #[serde(default)]
    pub own: Vec<Half>,
    /// The receiver's own; at most [`MAX_HALVES`].
    #[serde(default)]
    pub mine: Vec<Half>,
    /// Where to go on with the receiver's own, if there may be more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// Answer of `GET witnessed`: the newest checkpoint of each of the caller's logs that we cosigned, as the caller signed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessedAnswer {
    /// Signed notes.
    pub checkpoints: Vec<String>,
}

/// What a witness says to `add-checkpoint` (C2SP `tlog-witness`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Witnessing {
    /// 200: the cosignature line.
    Cosigned(String),
    /// 409: the size of the newest checkpoint that was cosigned.
    Conflict(u64),
    /// 400, 403, 404 or 422, and why.
    Refused(u16, String),
}

/// `POST statement`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatementRequest {
    /// The sender's newer participant statement.
    pub statement: Jws,
}

/// `POST releases`, below `<base>`.
pub fn releases_path() -> String {
    format!("{PATH}/releases")
}

/// `GET releases/{id}/stream`, below `<base>`.
pub fn stream_path(release: &ReleaseId) -> String {
    format!("{PATH}/releases/{}/stream", segment(release.as_str()))
}

/// `POST releases/{id}/acknowledgement`, below `<base>`.
pub fn acknowledgement_path(release: &ReleaseId) -> String {
    format!("{PATH}/releases/{}/acknowledgement", segment(release.as_str()))
}

/// `POST releases/{id}/outcome`, below `<base>`.
pub fn outcome_path(release: &ReleaseId) -> String {
    format!("{PATH}/releases/{}/outcome", segment(release.as_str()))
}

/// `GET agreements/{id}/status`, below `<base>`.
pub fn status_path(agreement: &AgreementId) -> String {
    format!("{PATH}/agreements/{}/status", segment(agreement.as_str()))
}

/// `POST receipts`, below `<base>`.
pub fn receipts_path() -> String {
    format!("{PATH}/receipts")
}

/// `POST statement`, below `<base>`.
pub fn statement_path() -> String {
    format!("{PATH}/statement")
}

/// `POST restorations`, below `<base>`.
pub fn restorations_path() -> String {
    format!("{PATH}/restorations")
}

/// `GET witnessed`, below `<base>`.
pub fn witnessed_path() -> String {
    format!("{PATH}/witnessed")
}

/// `POST add-checkpoint`, below `<base>`.
pub fn add_checkpoint_path() -> String {
    format!("{PATH}/add-checkpoint")
}

/// What is under here is open to anybody, below `<base>`: entries and tiles betray nothing.
pub fn log_path() -> String {
    format!("{PATH}/log/")
}

/// The HTTP status that a refusal of the extension travels with: 403 unless its code says otherwise.
pub fn status_of(refusal: &Refusal) -> u16 {
    match refusal.code.as_str() {
        // whether it does not exist or is not the caller's: the routes write one body for both
        "not-found" | "release-unknown" | "agreement-unknown" | "tile-unknown" => 404,
        "unauthenticated" => 401,
        code if code.starts_with("token-") => 401,
        // the peer tries again
        // decided, and not yet: something has to be done first
        "release-conditional" => 202,
        "busy" | "stopping" | "source-unavailable" | "restore-unfinished" => 503,
        code if code.starts_with("store-") => 503,
        "internal" => 500,
        "body-too-large" => 413,
        "body-slow" => 408,
        "conflict" | "release-open" | "request-reused" | "resume-lost" => 409,
        "body-empty" | "body-broken" | "json-invalid" | "json-too-deep" | "message-invalid" | "too-many" => 400,
        _ => 403,
    }
}

/// A refusal as the body that travels.
pub fn refusal_json(refusal: &Refusal) -> serde_json::Value {
    refusal_body(refusal)
}

/// A refusal from a peer's body, whatever its shape.
pub fn refusal_from(status: u16, body: &[u8]) -> Refusal {
    read_refusal(status, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_holds_an_id_as_one_segment() {
        let release = ReleaseId::parse("a/b?c#d é").unwrap();
        assert_eq!(stream_path(&release), "/counterseal/v1/releases/a%2Fb%3Fc%23d%20%C3%A9/stream");
        let minted = ReleaseId::parse("urn:uuid:019ab6").unwrap();
        assert_eq!(outcome_path(&minted), "/counterseal/v1/releases/urn:uuid:019ab6/outcome");
    }

    #[test]
    fn a_refusal_travels_and_comes_back() {
        let refusal = Refusal::new("count-spent", "three of three releases are used");
        assert_eq!(status_of(&refusal), 403);
        assert_eq!(refusal_from(403, refusal_json(&refusal).to_string().as_bytes()), refusal);
        assert_eq!(status_of(&Refusal::new("token-superseded", "")), 401);
    }
}
