//! Export: what the operator hands to a verifier.

use crate::{
    crypto::b64,
    error::Refusal,
    evidence::{Bundle, ExportedAgreement, ExportedReceipt},
    exchange::{Exchange, refuse},
    id::AgreementId,
    receipt::Filter,
};

/// Receipts read at a time.
const PAGE: usize = 1000;

impl Exchange {
    /// One agreement's receipts and halves, or all of them; of no other partner.
    pub async fn export(&self, only: Option<&AgreementId>) -> Result<Bundle, Refusal> {
        let unreadable = refuse("store-unreadable");
        if let Some(id) = only {
            self.agreement(id).await?;
        }
        let checkpoint = self.receipts.checkpoint().await.map_err(&unreadable)?.unwrap_or_default();
        let size = checkpoint.lines().nth(1).and_then(|size| size.parse::<u64>().ok()).unwrap_or(0);
        let (mut entries, mut receipts) = (Vec::new(), Vec::new());
        let mut from = 0;
        while from < size {
            for stored in self.receipts.list(&Filter::default(), from, PAGE).await.map_err(&unreadable)? {
                from = stored.index + 1;
                if stored.index >= size {
                    // newer than the checkpoint
                    break;
                }
                entries.push(b64(&stored.entry()));
                if only.is_none() || stored.receipt.agreement.as_ref() == only && stored.receipt.series != "node" {
                    receipts.push(ExportedReceipt { index: stored.index, number: stored.number, jws: stored.jws });
                }
            }
        }
        let mut bundle = Bundle {
            v: 1,
            exporter: self.us.clone(),
            statements: [(self.us.clone(), self.statements.clone())].into(),
            checkpoint,
            entries,
            agreements: Vec::new(),
            receipts,
            halves: Vec::new(),
        };
        for row in self.agreements().await? {
            let whole = row.one_sided || row.by_provider.is_some() && row.by_consumer.is_some();
            if !whole || only.is_some_and(|id| row.id() != id) {
                continue;
            }
            if let Some(peer) = self.peers.by_did(row.peer()) {
                bundle.statements.insert(peer.did.clone(), peer.history.clone());
            }
            bundle.halves.extend(self.receipts.halves(row.id()).await.map_err(&unreadable)?);
            bundle.agreements.push(ExportedAgreement {
                by_provider: row.by_provider,
                by_consumer: row.by_consumer,
                offer: row.offer,
                series_secret: row.series_secret,
            });
        }
        Ok(bundle)
    }
}
