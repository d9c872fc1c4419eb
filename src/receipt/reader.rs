//! Reading receipts: by place, by id, by hash, by agreement.

use std::sync::Arc;

use crate::{
    crypto::jws::Jws,
    id::{AgreementId, ReceiptId, Sha256},
    receipt::{
        Kind, PartnerHalf, Receipt, ReceiptError,
        committer::{HEAD, Head, by_hash_key, indexed, parse_row, payload, receipt_key},
        entry, list, row_key,
        rows::damaged,
    },
    store::Store,
};

/// The only way to read receipts. Cheap to clone.
#[derive(Clone)]
pub struct Receipts(Arc<dyn Store>);

/// A receipt and its place.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its place in the log.
    pub index: u64,
    /// Its number in its series.
    pub number: u64,
    /// Its series tag.
    pub tag: [u8; 32],
    /// As signed.
    pub jws: Jws,
    /// What it says.
    pub receipt: Receipt,
}

impl Stored {
    /// Its log entry.
    pub fn entry(&self) -> [u8; 65] {
        entry(&self.tag, &self.jws.sha256())
    }
}

/// Which receipts.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Under this agreement.
    pub agreement: Option<AgreementId>,
    /// Of this kind.
    pub kind: Option<Kind>,
}

/// Rows read at a time.
const PAGE: usize = 256;

impl Receipts {
    /// Over this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }

    /// Receipts in the log.
    pub async fn size(&self) -> Result<u64, ReceiptError> {
        Ok(self.head().await?.frontier.size())
    }

    /// The newest checkpoint; `None` before the first receipt.
    pub async fn checkpoint(&self) -> Result<Option<String>, ReceiptError> {
        Ok(Some(self.head().await?.checkpoint).filter(|note| !note.is_empty()))
    }

    /// The receipt at this place.
    pub async fn at(&self, index: u64) -> Result<Option<Stored>, ReceiptError> {
        let key = receipt_key(index);
        self.0.get(&key).await?.map(|row| stored(&key, &row)).transpose()
    }

    /// The receipt with this id.
    pub async fn by_id(&self, id: &ReceiptId) -> Result<Option<Stored>, ReceiptError> {
        let key = row_key("ri/", &[id.as_str()]);
        self.find(&key, |stored| stored.receipt.id == *id).await
    }

    /// The receipt whose JWS has this hash.
    pub async fn by_sha256(&self, sha256: &Sha256) -> Result<Option<Stored>, ReceiptError> {
        self.find(&by_hash_key(sha256), |stored| stored.jws.sha256() == *sha256).await
    }

    /// Receipts in the order of the log, from place `from` on, at most `limit`.
    pub async fn list(&self, filter: &Filter, from: u64, limit: usize) -> Result<Vec<Stored>, ReceiptError> {
        let mut found = Vec::new();
        let fits = |stored: &Stored| {
            filter.kind.is_none_or(|kind| stored.receipt.kind == kind)
                && (filter.agreement.is_none() || stored.receipt.agreement == filter.agreement)
        };
        // what has index rows comes by them, what hasn't yet, from the log's tail
        let mut tail = from;
        if let Some(agreement) = &filter.agreement {
            let cursor = indexed(&*self.0).await?;
            let prefix = row_key("ra/", &[agreement.as_str()]);
            let mut after = from.checked_sub(1).map(|before| {
                let mut key = prefix.clone();
                key.extend_from_slice(&before.to_be_bytes());
                key
            });
            loop {
                let keys = self.0.scan(&prefix, after.as_deref(), PAGE).await?;
                let Some((last, _)) = keys.last() else { break };
                after = Some(last.clone());
                for (key, _) in &keys {
                    let place = key.last_chunk::<8>().ok_or_else(|| damaged(key, "no place"))?;
                    let index = u64::from_be_bytes(*place);
                    if index >= cursor {
                        continue;
                    }
                    let stored = self.at(index).await?.ok_or_else(|| damaged(key, "its receipt is missing"))?;
                    if fits(&stored) {
                        found.push(stored);
                        if found.len() == limit {
                            return Ok(found);
                        }
                    }
                }
            }
            tail = tail.max(cursor);
        }
        let mut after = tail.checked_sub(1).map(receipt_key);
        loop {
            let rows = self.0.scan(b"r/", after.as_deref(), PAGE).await?;
            let Some((last, _)) = rows.last() else { return Ok(found) };
            after = Some(last.clone());
            for (key, row) in &rows {
                let stored = stored(key, row)?;
                if fits(&stored) {
                    found.push(stored);
                    if found.len() == limit {
                        return Ok(found);
                    }
                }
            }
        }
    }

    /// The partner's halves under an agreement.
    pub async fn halves(&self, agreement: &AgreementId) -> Result<Vec<PartnerHalf>, ReceiptError> {
        let prefix = PartnerHalf::prefix(agreement);
        let mut halves = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = list::<PartnerHalf>(&*self.0, &prefix, after.as_deref(), PAGE).await?;
            let Some(last) = rows.last() else { return Ok(halves) };
            after = Some(last.key.clone());
            halves.extend(rows.into_iter().filter_map(|row| row.value));
        }
    }

    async fn head(&self) -> Result<Head, ReceiptError> {
        match self.0.get(HEAD).await? {
            None => Ok(Head::default()),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| damaged(HEAD, error.to_string())),
        }
    }

    /// By its index row; or, where the index is behind, in the log's tail.
    async fn find(&self, key: &[u8], wanted: impl Fn(&Stored) -> bool) -> Result<Option<Stored>, ReceiptError> {
        // the cursor first: what it covers has index rows by the time they are looked for
        let cursor = indexed(&*self.0).await?;
        if let Some(place) = self.0.get(key).await? {
            let place = place.try_into().map_err(|_| damaged(key, "no place"))?;
            return self.at(u64::from_be_bytes(place)).await;
        }
        let mut after = cursor.checked_sub(1).map(receipt_key);
        loop {
            let rows = self.0.scan(b"r/", after.as_deref(), PAGE).await?;
            let Some((last, _)) = rows.last() else { return Ok(None) };
            after = Some(last.clone());
            for (key, row) in &rows {
                let stored = stored(key, row)?;
                if wanted(&stored) {
                    return Ok(Some(stored));
                }
            }
        }
    }
}

fn stored(key: &[u8], row: &[u8]) -> Result<Stored, ReceiptError> {
    let place = key.last_chunk::<8>().ok_or_else(|| damaged(key, "no place"))?;
    let (number, tag, jws) = parse_row(key, row)?;
    let receipt = payload(key, &jws)?;
    Ok(Stored { index: u64::from_be_bytes(*place), number, tag, jws, receipt })
}
