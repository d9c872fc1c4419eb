//! Releases: one snapshot leaving under an agreement. Rows `rl/…`; the bodies that went out, rows `sb/…`.

use serde::{Deserialize, Serialize};

use crate::{
    crypto::{
        ece::{Keying, RESUME_EVERY},
        hkdf_sha256,
        jws::Jws,
    },
    error::Refusal,
    id::{AgreementId, OfferId, ParticipantId, Pid, ReleaseId, RequestId, Sha256, SnapshotId},
    offer::Extent,
    policy::{Amount, Columns, Duties, Obligations},
    receipt::{Segment, row_key},
    time::Timestamp,
    transform::HashKey,
};

/// Most bodies of one release that a consumer may acknowledge together: the first and seven resumes.
pub const MAX_SEGMENTS: usize = 8;
/// Most responses that are begun for one release, retries and resumes together.
pub const MAX_BODIES: usize = 32;

/// A release as the provider keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseRow {
    /// Minted by us.
    pub id: ReleaseId,
    /// The consumer's id for the request: repeating it gets the same answer.
    pub request: RequestId,
    /// The transfer under whose grant it flows.
    pub transfer: Pid,
    /// The agreement that it is spent from.
    pub agreement: AgreementId,
    /// The offer, for people.
    pub offer: OfferId,
    /// Who gets it.
    pub peer: ParticipantId,
    /// The file, below a root.
    pub source: String,
    /// `csv`, `jsonl`, `json` or `parquet`.
    pub format: String,
    /// The source's state: all bodies are of this one.
    pub snapshot: SnapshotId,
    /// The source's columns.
    pub columns: Columns,
    /// What is done to the bytes.
    pub obligations: Obligations,
    /// Whether the request asked for some rows: by which filter lies under [`ReleaseRow::filter_key`], where it can be
    /// erased, until the release is closed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub filtered: bool,
    /// What the consumer owes afterwards.
    #[serde(default, skip_serializing_if = "Duties::is_empty")]
    pub duties: Duties,
    /// What it spent when it was opened: the most that it can be.
    #[serde(default)]
    pub reserved: Amount,
    /// When that was.
    pub reserved_at: Timestamp,
    /// The `released` receipt.
    pub released: Jws,
    /// Where it stands.
    pub state: ReleaseState,
    /// Until when it may be acknowledged.
    pub deadline: Timestamp,
    /// The source's length in bytes: about what will come.
    pub length: u64,
    /// What was answered to the acknowledgement, to be answered again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<Delivered>,
}

/// The provider's end of a release.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivered {
    /// SHA-256 of the acknowledgement.
    pub acknowledgement: Sha256,
    /// The one-time key that the consumer gave (base64url), to which the key is sealed, each time anew.
    pub one_time_key: crate::crypto::SealingPublic,
    /// The `delivered` receipt.
    pub receipt: Jws,
}

/// Where a release stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseState {
    /// May be streamed; waits for the acknowledgement.
    Open,
    /// Acknowledged; the key was handed over.
    Delivered,
    /// The deadline passed without an acknowledgement.
    Lapsed,
    /// Lapsed, and the steward let the agreement go on.
    Lifted,
}

impl ReleaseRow {
    /// Where releases lie.
    pub const PREFIX: &'static str = "rl/";

    /// The row's key.
    pub fn key(id: &ReleaseId) -> Vec<u8> {
        row_key(Self::PREFIX, &[id.as_str()])
    }

    /// Where filters of requests lie.
    pub const FILTERS: &'static str = "rf/";

    /// Where the filter of its request lies, joined to what the policy demands: the row's key, under another prefix.
    pub fn filter_key(id: &ReleaseId) -> Vec<u8> {
        row_key(Self::FILTERS, &[id.as_str()])
    }

    /// The key of the row that finds a release by the consumer's request id.
    pub fn request_key(peer: &ParticipantId, request: &RequestId) -> Vec<u8> {
        row_key("rq/", &[peer.as_str(), request.as_str()])
    }

    /// The keying material: derived, never stored.
    pub fn keying(&self, release_key: &[u8; 32]) -> Keying {
        Keying::derive(release_key, self.id.as_str())
    }
}

/// One HTTP response's body as it went to the socket: whole, or the prefix that a resume kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SentBody {
    /// Its salt, and what the consumer acknowledges of it.
    pub segment: Segment,
    /// The first plaintext record in it, counted over the release.
    pub from: u64,
    /// Records in it.
    pub records: u64,
    /// Whether it holds the final record.
    pub last: bool,
    /// How much plaintext the whole release has, where this body holds its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<Extent>,
}

/// Where the bodies of a release lie.
pub fn bodies_prefix(id: &ReleaseId) -> Vec<u8> {
    let mut key = row_key("sb/", &[id.as_str()]);
    key.push(b'/');
    key
}

impl SentBody {
    /// The row's key.
    pub fn key(&self, id: &ReleaseId) -> Vec<u8> {
        let mut key = bodies_prefix(id);
        key.extend_from_slice(self.segment.salt.as_bytes());
        key.push(if self.last { b'w' } else { b'p' });
        key.extend_from_slice(&self.records.to_be_bytes());
        key
    }
}

/// Whether `acknowledged` are bodies that we sent, in order, without a gap, from the first record to the final one.
pub fn check_segments(sent: &[SentBody], acknowledged: &[Segment]) -> Result<(), Refusal> {
    let wrong = |sentence: String| Err(Refusal::new("acknowledgement-mismatch", sentence));
    if acknowledged.is_empty() || acknowledged.len() > MAX_SEGMENTS {
        return wrong(format!(
            "{} segments were acknowledged; a release has between 1 and {MAX_SEGMENTS}",
            acknowledged.len()
        ));
    }
    let mut next = 0;
    for (index, segment) in acknowledged.iter().enumerate() {
        let last = index + 1 == acknowledged.len();
        let Some(body) = sent.iter().find(|body| body.segment == *segment && body.from == next && body.last == last)
        else {
            return wrong(format!(
                "segment {index} ({} bytes, SHA-256 {}) is not what was sent from record {next} on",
                segment.bytes, segment.sha256
            ));
        };
        if !last && body.records % RESUME_EVERY != 0 {
            return wrong(format!("segment {index} ends at a record where no resume is possible"));
        }
        next += body.records;
    }
    Ok(())
}

/// Keys of `hash(…)`: HKDF(the home's master, agreement ‖ column domain). Links within an agreement, not across.
pub struct HashScope {
    /// The home's master key.
    pub master: zeroize::Zeroizing<[u8; 32]>,
    /// The agreement.
    pub agreement: AgreementId,
}

impl HashKey for HashScope {
    fn key(&self, domain: &str) -> [u8; 32] {
        let agreement = self.agreement.as_str().as_bytes();
        let length = (agreement.len() as u64).to_be_bytes();
        hkdf_sha256(&*self.master, b"", &[b"counterseal/hash", &length, agreement, domain.as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(salt: &str, from: u64, records: u64, last: bool) -> SentBody {
        SentBody {
            segment: Segment { salt: salt.into(), bytes: records * 65_536, sha256: Sha256([records as u8; 32]) },
            from,
            records,
            last,
            plain: None,
        }
    }

    #[test]
    fn only_what_was_sent_without_a_gap_is_acknowledged() {
        let sent = [body("a", 0, 1024, false), body("a", 0, 1500, true), body("b", 1024, 476, true)];
        let seg = |i: usize| sent[i].segment.clone();
        assert!(check_segments(&sent, &[seg(1)]).is_ok());
        assert!(check_segments(&sent, &[seg(0), seg(2)]).is_ok());
        assert!(check_segments(&sent, &[]).is_err());
        assert!(check_segments(&sent, &[seg(0)]).is_err(), "the final record is missing");
        assert!(check_segments(&sent, &[seg(2)]).is_err(), "does not begin at record 0");
        assert!(check_segments(&sent, &[seg(1), seg(2)]).is_err(), "overlaps");
        let mut forged = seg(1);
        forged.bytes += 1;
        assert!(check_segments(&sent, &[forged]).is_err());
    }
}
