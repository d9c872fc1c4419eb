//! Where receipts lie: their rows, the tree's rows, and the index rows that are derived from them.
//!
//! ```text
//!   r/<place>                    in the order of commits, through all of our logs: number in the series ‖ tag ‖ SHA-256(JWS) ‖ the parts of the JWS
//!   tn/<epoch><level><index>     root of a complete subtree of 256^level entries of this log
//!   rw/<partner>                 place of the newest receipt in a series that is shared with it
//!   rs/<SHA-256>, ri/<id>        place
//!   hq/<number>                  key of the partners' half that came as so manieth
//!   ra/<agreement><place>, rp/<partner><place>, rk/<kind>/<place>, rv/<verdict><place>
//!                                kind (u8) ‖ verdict (u8) ‖ milliseconds (i64)
//! ```

use crate::{
    crypto::{b64, jws::Jws, unb64},
    id::{AgreementId, Did, ParticipantId, ReceiptId, Sha256},
    receipt::{Kind, Receipt, ReceiptError, row_key, rows::damaged},
};

pub(super) const RECEIPTS: &[u8] = b"r/";
const NODES: &[u8] = b"tn/";
/// Bytes of a row before the JWS: number, tag, hash.
const ENTRY: usize = 72;

/// A receipt's row, read.
pub(super) struct ReceiptRow {
    pub number: u64,
    pub tag: [u8; 32],
    pub sha256: Sha256,
    pub jws: Jws,
}

pub(super) fn receipt_key(index: u64) -> Vec<u8> {
    placed(RECEIPTS, index)
}

/// A receipt's row: what its entry is made of first, so that entries are read without the receipts. The parts of the JWS
/// lie decoded, header and payload after their lengths: smaller, and they compress.
pub(super) fn row(number: u64, tag: &[u8; 32], sha256: &Sha256, jws: &Jws) -> Vec<u8> {
    let mut row = Vec::with_capacity(ENTRY + jws.as_str().len());
    row.extend_from_slice(&number.to_be_bytes());
    row.extend_from_slice(tag);
    row.extend_from_slice(sha256.as_bytes());
    for (place, part) in jws.as_str().split('.').enumerate() {
        // a JWS is strict base64url: it is made again from this, byte for byte
        let bytes = unb64(part).unwrap_or_default();
        if place < 2 {
            row.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        }
        row.extend_from_slice(&bytes);
    }
    row
}

pub(super) fn parse_row(key: &[u8], row: &[u8]) -> Result<ReceiptRow, ReceiptError> {
    let (number, tag, sha256) = parse_entry(key, row)?;
    let wrong = || damaged(key, "not a receipt's row");
    let part = |rest: &mut &[u8]| {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (part, after) = after.split_at_checked(u16::from_be_bytes(*length).into())?;
        *rest = after;
        Some(b64(part))
    };
    let mut rest = &row[ENTRY..];
    let header = part(&mut rest).ok_or_else(wrong)?;
    let payload = part(&mut rest).ok_or_else(wrong)?;
    let jws = Jws::parse(format!("{header}.{payload}.{}", b64(rest)))?;
    Ok(ReceiptRow { number, tag, sha256, jws })
}

/// The number, tag and hash in a receipt's row.
pub(super) fn parse_entry(key: &[u8], row: &[u8]) -> Result<(u64, [u8; 32], Sha256), ReceiptError> {
    let wrong = || damaged(key, "not a receipt's row");
    let (number, rest) = row.split_first_chunk::<8>().ok_or_else(wrong)?;
    let (tag, rest) = rest.split_first_chunk::<32>().ok_or_else(wrong)?;
    let (sha256, _) = rest.split_first_chunk::<32>().ok_or_else(wrong)?;
    Ok((u64::from_be_bytes(*number), *tag, Sha256(*sha256)))
}

/// What a receipt of our own says; its signature is the verifier's business.
pub(super) fn payload(key: &[u8], jws: &Jws) -> Result<Receipt, ReceiptError> {
    let part = jws.as_str().split('.').nth(1).unwrap_or_default();
    let bytes = unb64(part).map_err(|error| damaged(key, error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| damaged(key, error.to_string()))
}

/// Where the roots of complete subtrees of 256^level entries of a log lie.
pub(super) fn nodes_key(epoch: u64, level: u8) -> Vec<u8> {
    placed_after(&placed(NODES, epoch), &[level])
}

/// Where the root of a complete subtree of 256^level entries lies.
pub(super) fn node_key(epoch: u64, level: u8, index: u64) -> Vec<u8> {
    placed(&nodes_key(epoch, level), index)
}

/// Where the place of the newest receipt in a partner's series lies.
pub(super) fn last_key(partner: &ParticipantId) -> Vec<u8> {
    row_key("rw/", &[partner.as_str()])
}

pub(super) fn by_hash_key(sha256: &Sha256) -> Vec<u8> {
    placed_after(b"rs/", sha256.as_bytes())
}

/// Ids of ours begin with a time: the tables of the archive hold ranges of them that don't overlap.
pub(super) fn by_id_key(id: &ReceiptId) -> Vec<u8> {
    placed_after(b"ri/", id.as_str().as_bytes())
}

/// Where it lies which half came as this one.
pub(super) fn half_key(number: u64) -> Vec<u8> {
    placed(b"hq/", number)
}

pub(super) fn by_agreement(agreement: &AgreementId) -> Vec<u8> {
    row_key("ra/", &[agreement.as_str()])
}

pub(super) fn by_partner(partner: &ParticipantId) -> Vec<u8> {
    row_key("rp/", &[partner.as_str()])
}

pub(super) fn by_kind(kind: Kind) -> Vec<u8> {
    format!("rk/{}/", kind.as_str()).into_bytes()
}

pub(super) fn by_verdict(verdict: &str) -> Vec<u8> {
    row_key("rv/", &[verdict])
}

/// Who the other party of a receipt is: in an agreement's series, and in the node's where it is about somebody.
pub(super) fn partner<'a>(us: &Did, receipt: &'a Receipt) -> Option<&'a ParticipantId> {
    match &receipt.consumer {
        Some(consumer) if *consumer == *us => Some(&receipt.provider),
        other => other.as_ref(),
    }
}

/// Whose witnessing a receipt asks for: the other party of its agreement, if both have signed that.
pub(super) fn counterpart<'a>(us: &Did, receipt: &'a Receipt) -> Option<&'a ParticipantId> {
    if receipt.series == "node" || receipt.one_sided { None } else { partner(us, receipt) }
}

/// What an index row says of its receipt, so that lists are filtered without a look at receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Brief {
    pub kind: u8,
    pub verdict: u8,
    /// Milliseconds.
    pub time: i64,
}

impl Brief {
    pub fn of(receipt: &Receipt) -> Self {
        let verdict = receipt.decision.as_ref().map_or(0, |decision| verdict_code(&decision.verdict));
        Self { kind: receipt.kind as u8, verdict, time: receipt.time.millis() }
    }

    fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [self.kind; 10];
        bytes[1] = self.verdict;
        bytes[2..].copy_from_slice(&self.time.to_be_bytes());
        bytes
    }

    pub fn read(key: &[u8], bytes: &[u8]) -> Result<Self, ReceiptError> {
        match bytes {
            [kind, verdict, time @ ..] => match <[u8; 8]>::try_from(time) {
                Ok(time) => Ok(Self { kind: *kind, verdict: *verdict, time: i64::from_be_bytes(time) }),
                Err(_) => Err(damaged(key, "not an index row")),
            },
            _ => Err(damaged(key, "not an index row")),
        }
    }
}

/// A verdict in an index row; 0 for none.
pub(super) fn verdict_code(verdict: &str) -> u8 {
    let known = ["allow", "conditional", "deny", "default-deny"];
    known.iter().position(|known| *known == verdict).map_or(u8::MAX, |at| at as u8 + 1)
}

/// The index rows of a receipt.
pub(super) fn index_rows(rows: &mut Vec<(Vec<u8>, Vec<u8>)>, us: &Did, index: u64, sha256: &Sha256, receipt: &Receipt) {
    let place = index.to_be_bytes();
    rows.push((by_hash_key(sha256), place.to_vec()));
    rows.push((by_id_key(&receipt.id), place.to_vec()));
    let brief = Brief::of(receipt).to_bytes();
    let mut list = |prefix: Vec<u8>| rows.push((placed_after(&prefix, &place), brief.to_vec()));
    list(by_kind(receipt.kind));
    if let Some(agreement) = &receipt.agreement {
        list(by_agreement(agreement));
    }
    if let Some(partner) = partner(us, receipt) {
        list(by_partner(partner));
    }
    if let Some(decision) = &receipt.decision {
        list(by_verdict(&decision.verdict));
    }
}

/// Where what a receipt commits to is kept.
pub fn content_key(receipt: &ReceiptId, name: &str) -> Vec<u8> {
    format!("c/{receipt}/{name}").into_bytes()
}

/// All rows of a receipt that never change again: itself, its index rows, the places of its contents.
pub(super) fn rows_of(us: &Did, index: u64, sha256: &Sha256, receipt: &Receipt) -> Vec<Vec<u8>> {
    let mut indexes = Vec::new();
    index_rows(&mut indexes, us, index, sha256, receipt);
    let contents = receipt.contents().map(|name| content_key(&receipt.id, name));
    [receipt_key(index)].into_iter().chain(indexes.into_iter().map(|(key, _)| key)).chain(contents).collect()
}

/// The key of a place after a prefix.
pub(super) fn placed(prefix: &[u8], index: u64) -> Vec<u8> {
    placed_after(prefix, &index.to_be_bytes())
}

fn placed_after(prefix: &[u8], place: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    key.extend_from_slice(place);
    key
}
