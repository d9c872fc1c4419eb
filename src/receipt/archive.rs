//! The archive: full runs of older receipts leave the working set for immutable tables. Readers don't know which.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    id::Did,
    receipt::{
        Filter, PartnerHalf, ReceiptError, Receipts,
        committer::{FROZEN, indexed, load, number},
        place::{half_key, rows_of},
        read,
        rows::damaged,
    },
    store::Store,
};

/// Receipts in a run, and partners' halves in one of theirs.
pub const RUN: u64 = 16_384;
/// How often it is looked whether there is a full run.
const LOOK: Duration = Duration::from_secs(5);
/// Rows that leave the working set at a time: commits go between.
const THIN: usize = 1000;
/// Pause between those.
const PAUSE: Duration = Duration::from_millis(5);
const HALVES: &[u8] = b"log/frozen-halves";

/// Moves runs to the archive.
pub struct Archiver {
    store: Arc<dyn Store>,
    us: Did,
    run: u64,
}

impl Archiver {
    /// Over this store, which is this participant's; `run` receipts at a time ([`RUN`] but in tests).
    pub fn new(store: Arc<dyn Store>, us: Did, run: u64) -> Self {
        Self { store, us, run: run.max(1) }
    }

    /// Looks now and then, until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        while tokio::time::timeout(LOOK, stop.cancelled()).await.is_err() {
            match self.step(&stop).await {
                Ok(0) => {}
                Ok(runs) => tracing::info!(runs, "older receipts were moved to the archive"),
                Err(error) => tracing::error!(%error, "older receipts could not be moved to the archive"),
            }
        }
    }

    /// Moves the full runs that there are, but for the newest; says how many.
    pub async fn step(&self, stop: &CancellationToken) -> Result<u64, ReceiptError> {
        let mut runs = 0;
        // what a stop left undone first
        self.thin(stop).await?;
        loop {
            let first = self.frozen().await?;
            // the newest run stays: it is what is read, and what has index rows is what is complete
            if indexed(&*self.store).await? < first + 2 * self.run || stop.is_cancelled() {
                self.halves(stop).await?;
                while !stop.is_cancelled() && self.store.merge(stop.clone()).await? {}
                return Ok(runs);
            }
            self.freeze(first, first + self.run).await?;
            self.thin(stop).await?;
            runs += 1;
        }
    }

    /// The same for partners' halves.
    async fn halves(&self, stop: &CancellationToken) -> Result<(), ReceiptError> {
        loop {
            let first = number(&*self.store, HALVES).await?;
            let end = first + self.run;
            if load(&*self.store).await?.halves < end + self.run || stop.is_cancelled() {
                return Ok(());
            }
            let mut keys = Vec::new();
            for n in first..end {
                let place = half_key(n);
                let key = self.store.get(&place).await?.ok_or_else(|| damaged(&place, "missing"))?;
                let half =
                    read::<PartnerHalf>(&*self.store, &key).await?.value.ok_or_else(|| damaged(&key, "missing"))?;
                let numbered = half.number.zip(half.log());
                keys.extend(numbered.map(|(number, log)| PartnerHalf::number_key(&half.agreement, &log, number)));
                keys.extend([place, key]);
            }
            self.store.freeze(keys, (HALVES.to_vec(), end.to_be_bytes().to_vec())).await?;
            self.thin(stop).await?;
        }
    }

    /// Receipts in the archive: those before this place.
    pub async fn frozen(&self) -> Result<u64, ReceiptError> {
        number(&*self.store, FROZEN).await
    }

    async fn freeze(&self, first: u64, end: u64) -> Result<(), ReceiptError> {
        let receipts = Receipts::new(self.store.clone(), self.us.clone());
        let mut keys = Vec::new();
        let mut place = first;
        while place < end {
            let page = receipts.list(&Filter::default(), place, 512.min((end - place) as usize)).await?;
            let Some(last) = page.last() else {
                return Err(damaged(FROZEN, format!("receipt {place} is missing")));
            };
            place = last.index + 1;
            for stored in &page {
                keys.extend(rows_of(&self.us, stored.index, &stored.sha256, &stored.receipt));
            }
        }
        Ok(self.store.freeze(keys, (FROZEN.to_vec(), end.to_be_bytes().to_vec())).await?)
    }

    async fn thin(&self, stop: &CancellationToken) -> Result<(), ReceiptError> {
        while !stop.is_cancelled() && self.store.thin(THIN).await? {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}
