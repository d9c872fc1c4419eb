//! Erasure: what receipts commit to (requests, purposes, who acted) and the salts are destroyed, when their time is over or
//! on request. The receipts and their entries stay, so exports still verify; what is gone can't be found by trying, since
//! the salts are gone with it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    dataplane::{ReleaseRow, ReleaseState},
    error::Refusal,
    exchange::{
        Exchange, refuse,
        rows::{AskedWith, NegotiationRow},
    },
    id::{AgreementId, ParticipantId, ReceiptId},
    receipt::{Commit, Filter, Kind, Stored, content_key, read},
    vault::{self, CopyRow, CopyState},
};

const RETAINED: &[u8] = b"self/retained";
/// Receipts looked at in one go of the timer, for each class.
const PAGE: usize = 500;

/// Whose contents are to be erased: those of one receipt, or all under an agreement, or all about a partner.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Erasure {
    /// One receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptId>,
    /// All under this agreement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<AgreementId>,
    /// All about this partner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<ParticipantId>,
    /// Why; on record.
    pub reason: String,
}

/// Classes of receipts, each with its own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// What was decided and done under agreements.
    Decisions,
    /// What was refused.
    Refusals,
    /// The node's own life.
    Operation,
}

impl Class {
    const ALL: [Self; 3] = [Self::Decisions, Self::Refusals, Self::Operation];

    const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Denied => Self::Refusals,
            Kind::Started | Kind::Stopped | Kind::Configured | Kind::Rotated | Kind::Restored | Kind::Alarm => {
                Self::Operation
            }
            _ => Self::Decisions,
        }
    }
}

/// An erasure that was begun.
const ERASING: &[u8] = b"self/erasing";

/// Up to which receipt each class has been looked through.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Retained([u64; 3]);

impl Exchange {
    /// Erases on request. Gives the number of receipts whose contents went.
    pub async fn erase(&self, erasure: &Erasure) -> Result<u64, Refusal> {
        let named = [erasure.receipt.is_some(), erasure.agreement.is_some(), erasure.peer.is_some()];
        if named.into_iter().filter(|named| *named).count() != 1 {
            return Err(Refusal::new("erasure-vague", "name one of: a receipt, an agreement, a peer"));
        }
        if let Some(id) = &erasure.receipt
            && self.receipts.by_id(id).await.map_err(refuse("store-unreadable"))?.is_none()
        {
            return Err(Refusal::new("receipt-unknown", format!("no receipt has the id `{id}`")));
        }
        // what a crash interrupts is taken up at the next start, and is on record whatever happens
        let mut begun = Commit::new();
        begun.put_blind(ERASING.to_vec(), erasure).map_err(refuse("internal"))?;
        self.commit(begun).await?;
        self.carry_out(erasure).await
    }

    /// Erases what was kept for a step that has been taken: purposes of copies that were released, addresses and purposes
    /// of negotiations that are over. What receipts commit to is theirs, and stays as long as its class is kept.
    pub(super) async fn erase_spent(&self) -> Result<(), Refusal> {
        self.erase_filters().await?;
        for (kept, process) in [(AskedWith::PREFIX, NegotiationRow::PREFIX), (vault::PURPOSES, vault::PREFIX)] {
            for (key, _) in self.store.scan(kept.as_bytes(), None, PAGE).await.map_err(refuse("store-unreadable"))? {
                let of = [process.as_bytes(), &key[kept.len()..]].concat();
                let over = if process == NegotiationRow::PREFIX {
                    let row = read::<NegotiationRow>(&*self.store, &of).await.map_err(refuse("store-unreadable"))?;
                    row.value.is_none_or(|row| row.state.is_final())
                } else {
                    let row = read::<CopyRow>(&*self.store, &of).await.map_err(refuse("store-unreadable"))?;
                    row.value.is_none_or(|row| row.release.is_some() || row.state != CopyState::Receiving)
                };
                if over {
                    self.store.erase(&key).await.map_err(refuse("store-failed"))?;
                }
            }
        }
        Ok(())
    }

    /// Erases filters of requests whose releases are closed: they may name persons.
    async fn erase_filters(&self) -> Result<(), Refusal> {
        let filters = self.store.scan(ReleaseRow::FILTERS.as_bytes(), None, PAGE).await;
        for (key, _) in filters.map_err(refuse("store-unreadable"))? {
            let of = [ReleaseRow::PREFIX.as_bytes(), &key[ReleaseRow::FILTERS.len()..]].concat();
            let row = read::<ReleaseRow>(&*self.store, &of).await.map_err(refuse("store-unreadable"))?;
            if row.value.is_none_or(|row| row.state != ReleaseState::Open) {
                self.store.erase(&key).await.map_err(refuse("store-failed"))?;
            }
        }
        Ok(())
    }

    /// Takes up an erasure that was interrupted.
    pub async fn finish_erasing(&self) -> Result<(), Refusal> {
        let row = read::<Erasure>(&*self.store, ERASING).await.map_err(refuse("store-unreadable"))?;
        match row.value {
            Some(erasure) => self.carry_out(&erasure).await.map(|_| ()),
            None => Ok(()),
        }
    }

    async fn carry_out(&self, erasure: &Erasure) -> Result<u64, Refusal> {
        let erased = self.erase_all(erasure).await?;
        let why = Refusal::new("contents-erased", erasure.reason.clone());
        let mut commit = self.record_erasure(erased, erasure.peer.clone(), why)?;
        commit.delete_blind(ERASING.to_vec());
        self.commit(commit).await?;
        Ok(erased)
    }

    async fn erase_all(&self, erasure: &Erasure) -> Result<u64, Refusal> {
        let unreadable = refuse("store-unreadable");
        let mut erased = 0;
        if let Some(id) = &erasure.receipt {
            let stored = self.receipts.by_id(id).await.map_err(&unreadable)?;
            let unknown = || Refusal::new("receipt-unknown", format!("no receipt has the id `{id}`"));
            erased += u64::from(self.erase_contents(&stored.ok_or_else(unknown)?).await?);
        } else {
            let filter =
                Filter { agreement: erasure.agreement.clone(), peer: erasure.peer.clone(), ..Filter::default() };
            let mut from = 0;
            loop {
                let page = self.receipts.list(&filter, from, PAGE).await.map_err(&unreadable)?;
                let Some(last) = page.last() else { break };
                from = last.index + 1;
                for stored in &page {
                    erased += u64::from(self.erase_contents(stored).await?);
                }
            }
        }
        Ok(erased)
    }

    /// Erases what has been kept for as long as its class is; a page at a time.
    pub(super) async fn retain(&self) -> Result<(), Refusal> {
        let unreadable = refuse("store-unreadable");
        let row = read::<Retained>(&*self.store, RETAINED).await.map_err(&unreadable)?;
        let mut retained = row.value.clone().unwrap_or_default();
        let before = retained.0;
        let now = self.clock.now();
        let mut erased = 0;
        for (class, next) in Class::ALL.into_iter().zip(&mut retained.0) {
            let days = match class {
                Class::Decisions => self.config.retention.decisions_days,
                Class::Refusals => self.config.retention.refusals_days,
                Class::Operation => self.config.retention.operation_days,
            };
            let due = |stored: &Stored| now.since(stored.receipt.time) >= Duration::from_secs(days * 86_400);
            if !self.receipts.at(*next).await.map_err(&unreadable)?.is_some_and(|stored| due(&stored)) {
                continue;
            }
            for stored in self.receipts.list(&Filter::default(), *next, PAGE).await.map_err(&unreadable)? {
                if !due(&stored) {
                    break;
                }
                if Class::of(stored.receipt.kind) == class && stored.receipt.contents().next().is_some() {
                    self.erase_contents(&stored).await?;
                    erased += 1;
                }
                *next = stored.index + 1;
            }
        }
        if before == retained.0 {
            return Ok(());
        }
        let why = Refusal::new("contents-erased", "their time of retention is over");
        let mut commit = if erased > 0 { self.record_erasure(erased, None, why)? } else { Commit::new() };
        commit.put(&row, &retained).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }

    /// Whether there was anything to erase.
    async fn erase_contents(&self, stored: &Stored) -> Result<bool, Refusal> {
        let failed = refuse("store-failed");
        let mut any = false;
        for name in stored.receipt.contents() {
            any |= self.store.erase(&content_key(&stored.receipt.id, name)).await.map_err(&failed)?;
        }
        Ok(any)
    }

    fn record_erasure(&self, erased: u64, peer: Option<ParticipantId>, why: Refusal) -> Result<Commit, Refusal> {
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Deleted, None);
        receipt.consumer = peer;
        receipt.counted = Some(erased);
        receipt.reason = Some(why);
        self.node_receipt(&mut commit, receipt)?;
        Ok(commit)
    }
}
