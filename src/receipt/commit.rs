//! What a walk wants written, and what came of it.

use serde::{Deserialize, Serialize};

use crate::{
    crypto::jws::Jws,
    id::{AgreementId, ParticipantId, ReceiptId, Sha256},
    receipt::{LogProof, NewReceipt, Row, Version, row_key},
    store::StoreError,
};

/// State, counters, letters, receipts and the partner's halves: all of it lands, or nothing.
#[derive(Debug, Default)]
pub struct Commit {
    pub(super) expects: Vec<(Vec<u8>, Version)>,
    /// JSON, or `None` to delete.
    pub(super) writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(super) receipts: Vec<NewReceipt>,
    pub(super) contents: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) halves: Vec<Vec<u8>>,
    pub(super) events: Vec<serde_json::Map<String, serde_json::Value>>,
}

impl Commit {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nobody may have written this row since it was read.
    pub fn expect<T>(&mut self, row: &Row<T>) {
        self.expects.push((row.key.clone(), row.version));
    }

    /// Writes a row that was read; fails the commit if somebody else wrote it since.
    pub fn put<T, U: Serialize>(&mut self, row: &Row<T>, value: &U) -> Result<(), serde_json::Error> {
        self.expect(row);
        self.put_blind(row.key.clone(), value)
    }

    /// Writes a row that must not be there yet.
    pub fn put_new<U: Serialize>(&mut self, key: Vec<u8>, value: &U) -> Result<(), serde_json::Error> {
        self.expects.push((key.clone(), Version(0)));
        self.put_blind(key, value)
    }

    /// Writes a row whatever it holds.
    pub fn put_blind<U: Serialize>(&mut self, key: Vec<u8>, value: &U) -> Result<(), serde_json::Error> {
        self.writes.push((key, Some(serde_json::to_vec(value)?)));
        Ok(())
    }

    /// Deletes a row that was read; fails the commit if somebody else wrote it since.
    pub fn delete<T>(&mut self, row: &Row<T>) {
        self.expect(row);
        self.writes.push((row.key.clone(), None));
    }

    /// Deletes a row whatever it holds.
    pub fn delete_blind(&mut self, key: Vec<u8>) {
        self.writes.push((key, None));
    }

    /// Adds a signed receipt.
    pub fn receipt(&mut self, receipt: NewReceipt) {
        self.receipts.push(receipt);
    }

    /// Keeps a content where it can be erased.
    pub fn content(&mut self, key: Vec<u8>, bytes: Vec<u8>) {
        self.contents.push((key, bytes));
    }

    /// Announces something: a CloudEvent but for its `id`, which is its number in the order of commits.
    pub fn event(&mut self, event: serde_json::Map<String, serde_json::Value>) {
        self.events.push(event);
    }

    /// Keeps the partner's half of something. The same one twice is kept once.
    pub fn half(&mut self, half: PartnerHalf) {
        let key = half.key();
        if let Ok(json) = serde_json::to_vec(&half) {
            self.halves.push(key.clone());
            self.writes.push((key, Some(json)));
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.receipts.is_empty() && self.contents.is_empty()
    }
}

/// A receipt, or another signed object, of the partner's, verified when it came.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartnerHalf {
    /// Under which agreement.
    pub agreement: AgreementId,
    /// A receipt's kind, or `acknowledgement`.
    pub kind: String,
    /// The signed object.
    pub jws: Jws,
    /// Its number in the partner's series; a receipt has one, other objects don't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Proof that it is in the partner's log, as it was checked when it came (C2SP `tlog-proof`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
}

impl PartnerHalf {
    /// Where the halves of an agreement lie.
    pub fn prefix(agreement: &AgreementId) -> Vec<u8> {
        row_key("h/", &[agreement.as_str()])
    }

    /// Where it lies which receipt has this number in the partner's series under an agreement, in this log of its own.
    pub fn number_key(agreement: &AgreementId, log: &str, number: u64) -> Vec<u8> {
        row_key("hn/", &[agreement.as_str(), log, &number.to_string()])
    }

    /// The log that its proof is of.
    pub fn log(&self) -> Option<String> {
        LogProof::log_of(self.proof.as_deref()?)
    }

    fn key(&self) -> Vec<u8> {
        let mut key = Self::prefix(&self.agreement);
        key.extend_from_slice(self.jws.sha256().as_bytes());
        key
    }
}

/// What came of a commit.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The version that its rows have now.
    pub version: Version,
    /// Its receipts, in the order in which they were added.
    pub receipts: Vec<Placed>,
}

/// A receipt's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The receipt.
    pub id: ReceiptId,
    /// SHA-256 of its JWS.
    pub sha256: Sha256,
    /// Its place among all receipts of ours, from 0: that in the log, until a store is restored.
    pub index: u64,
    /// Its number in its series, from 0.
    pub number: u64,
}

/// Why a commit did not land. Nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Somebody else wrote this row first: load again and start over.
    #[error("row {} was changed by somebody else", .0.escape_ascii())]
    Conflict(Vec<u8>),
    /// The disk is full.
    #[error("the disk is full")]
    Full,
    /// The store failed; nothing is written until a restart.
    #[error("the store failed: {0}")]
    Poisoned(String),
    /// The committer has stopped.
    #[error("the committer has stopped")]
    Closed,
    /// Anything else that the store says.
    #[error(transparent)]
    Store(StoreError),
}

/// A view in memory that follows the store.
pub trait Mirror: Send + Sync {
    /// A row was written (its JSON) or deleted. Called in the order of commits, after the sync, before the callers are
    /// answered.
    fn applied(&self, key: &[u8], value: Option<&[u8]>);

    /// The series that is shared with this partner grew; its newest receipt is at this place.
    fn grew(&self, _partner: &ParticipantId, _index: u64) {}
}
