//! Reading receipts: by place, by id, by hash, by agreement.

use std::sync::Arc;

use crate::{
    crypto::jws::Jws,
    id::{AgreementId, Did, ParticipantId, ReceiptId, Sha256},
    receipt::{
        Kind, PartnerHalf, Receipt, ReceiptError, SeriesKey,
        committer::{Head, indexed, load, number, series_key},
        entry, list,
        place::{
            Brief, RECEIPTS, by_agreement, by_hash_key, by_id_key, by_kind, by_partner, by_verdict, last_key,
            parse_row, partner, payload, placed, receipt_key, verdict_code,
        },
        read,
        rows::damaged,
    },
    store::Store,
    time::Timestamp,
};

/// The only way to read receipts. Cheap to clone.
#[derive(Clone)]
pub struct Receipts(Arc<dyn Store>, Did);

/// A receipt and its place.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its place among all receipts of ours: that in the log, until a store is restored.
    pub index: u64,
    /// Its number in its series.
    pub number: u64,
    /// Its series tag.
    pub tag: [u8; 32],
    /// Its hash.
    pub sha256: Sha256,
    /// As signed.
    pub jws: Jws,
    /// What it says.
    pub receipt: Receipt,
}

impl Stored {
    /// Its log entry.
    pub fn entry(&self) -> [u8; 65] {
        entry(&self.tag, &self.sha256)
    }
}

/// Which receipts: those that fit all that is said.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Under this agreement.
    pub agreement: Option<AgreementId>,
    /// About this partner.
    pub peer: Option<ParticipantId>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// Of a decision with this verdict.
    pub verdict: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// The index list that holds all that fits: the shortest that is to be expected.
    fn list(&self) -> Option<Vec<u8>> {
        let agreement = self.agreement.as_ref().map(by_agreement);
        let partner = || self.peer.as_ref().map(by_partner);
        let verdict = || self.verdict.as_deref().map(by_verdict);
        agreement.or_else(partner).or_else(verdict).or_else(|| self.kind.map(by_kind))
    }

    /// Whether a receipt that an index row says this of may fit.
    fn may_fit(&self, brief: &Brief) -> bool {
        self.kind.is_none_or(|kind| kind as u8 == brief.kind)
            && self.verdict.as_deref().is_none_or(|verdict| verdict_code(verdict) == brief.verdict)
            && self.since.is_none_or(|since| brief.time >= since.millis())
            && self.until.is_none_or(|until| brief.time < until.millis())
    }

    fn fits(&self, us: &Did, receipt: &Receipt) -> bool {
        self.kind.is_none_or(|kind| receipt.kind == kind)
            && (self.agreement.is_none() || receipt.agreement == self.agreement)
            && self.peer.as_ref().is_none_or(|peer| partner(us, receipt) == Some(peer))
            && self
                .verdict
                .as_ref()
                .is_none_or(|verdict| receipt.decision.as_ref().is_some_and(|decision| decision.verdict == *verdict))
            && self.since.is_none_or(|since| receipt.time >= since)
            && self.until.is_none_or(|until| receipt.time < until)
    }

    /// Whether nothing after a receipt of this time fits.
    fn is_past(&self, millis: i64) -> bool {
        self.until.is_some_and(|until| millis >= until.millis() + SKEW)
    }
}

/// Milliseconds by which a receipt may be older than the one before it in the log: a commit waits for one sync, not for
/// people.
const SKEW: i64 = 60_000;

/// Rows read at a time.
const PAGE: usize = 256;
/// Index rows read at a time where few fit.
const MOST: usize = 4096;

impl Receipts {
    /// Over this store, which is this participant's.
    pub fn new(store: Arc<dyn Store>, us: Did) -> Self {
        Self(store, us)
    }

    /// The place of the newest receipt in a series that is shared with this partner, whichever log it is in.
    pub async fn last_with(&self, partner: &ParticipantId) -> Result<Option<u64>, ReceiptError> {
        let key = last_key(partner);
        let place = self.0.get(&key).await?;
        place.map(|place| place.try_into().map(u64::from_be_bytes).map_err(|_| damaged(&key, "no place"))).transpose()
    }

    /// How many receipts there are.
    pub async fn size(&self) -> Result<u64, ReceiptError> {
        Ok(self.head().await?.end())
    }

    /// How many receipts of a series there are in one of our logs.
    pub async fn series_length(&self, epoch: u64, series: &SeriesKey) -> Result<u64, ReceiptError> {
        number(&*self.0, &series_key(epoch, &series.name())).await
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
        let key = by_id_key(id);
        self.find(&key, |stored| stored.receipt.id == *id).await
    }

    /// The receipt whose JWS has this hash.
    pub async fn by_sha256(&self, sha256: &Sha256) -> Result<Option<Stored>, ReceiptError> {
        self.find(&by_hash_key(sha256), |stored| stored.sha256 == *sha256).await
    }

    /// Receipts in the order of the log, from place `from` on, at most `limit`. What the filter names goes by index: the
    /// shortest list that holds all that fits is walked, and its rows say enough to pass over what doesn't.
    pub async fn list(&self, filter: &Filter, from: u64, limit: usize) -> Result<Vec<Stored>, ReceiptError> {
        let mut found = Vec::new();
        let start = match filter.since {
            Some(since) => from.max(self.first_since(since).await?),
            None => from,
        };
        // what has index rows comes by them, what hasn't yet, from the log's tail
        let mut place = start;
        if let Some(prefix) = filter.list() {
            let cursor = indexed(&*self.0).await?;
            let mut after = start.checked_sub(1).map(|before| placed(&prefix, before));
            let mut page = PAGE;
            'pages: while found.len() < limit {
                let rows = self.0.scan(&prefix, after.as_deref(), page).await?;
                for (key, brief) in &rows {
                    let place = key.last_chunk::<8>().ok_or_else(|| damaged(key, "no place"))?;
                    let (place, brief) = (u64::from_be_bytes(*place), Brief::read(key, brief)?);
                    if place >= cursor || filter.is_past(brief.time) {
                        break 'pages;
                    }
                    if !filter.may_fit(&brief) {
                        continue;
                    }
                    let stored = self.at(place).await?.ok_or_else(|| damaged(key, "its receipt is missing"))?;
                    if filter.fits(&self.1, &stored.receipt) {
                        found.push(stored);
                        if found.len() == limit {
                            break;
                        }
                    }
                }
                let Some((last, _)) = rows.last().filter(|_| rows.len() == page) else { break };
                after = Some(last.clone());
                // few that fit: look further at once
                page = (page * 4).min(MOST);
            }
            if found.len() == limit {
                return Ok(found);
            }
            place = start.max(cursor);
        }
        let end = self.size().await?;
        let mut after = place.checked_sub(1).map(receipt_key);
        loop {
            let page = PAGE.min(limit - found.len() + 1);
            let rows = self.0.scan(RECEIPTS, after.as_deref(), page).await?;
            let Some((last, _)) = rows.last() else { return Ok(found) };
            after = Some(last.clone());
            for (key, row) in &rows {
                let stored = stored(key, row)?;
                if stored.index >= end || filter.is_past(stored.receipt.time.millis()) {
                    return Ok(found);
                }
                if filter.fits(&self.1, &stored.receipt) {
                    found.push(stored);
                    if found.len() == limit {
                        return Ok(found);
                    }
                }
            }
        }
    }

    /// A place before which every receipt is older than `since`. Times in the log run forward but for what waited to be
    /// committed, which [`SKEW`] bounds.
    async fn first_since(&self, since: Timestamp) -> Result<u64, ReceiptError> {
        let bound = since.millis() - SKEW;
        let (mut low, mut high) = (0, self.size().await?);
        while low < high {
            let middle = low + (high - low) / 2;
            let key = receipt_key(middle);
            let stored = self.at(middle).await?.ok_or_else(|| damaged(&key, "missing"))?;
            if stored.receipt.time.millis() < bound {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The partner's half with this hash.
    pub async fn half(&self, agreement: &AgreementId, sha256: &Sha256) -> Result<Option<PartnerHalf>, ReceiptError> {
        let key = [&PartnerHalf::prefix(agreement)[..], sha256.as_bytes()].concat();
        Ok(read(&*self.0, &key).await?.value)
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
        load(&*self.0).await
    }

    /// By its index row; or, where the index is behind, in the log's tail.
    async fn find(&self, key: &[u8], wanted: impl Fn(&Stored) -> bool) -> Result<Option<Stored>, ReceiptError> {
        // the cursor first: what it covers has index rows by the time they are looked for
        let cursor = indexed(&*self.0).await?;
        if let Some(place) = self.0.get(key).await? {
            let place = place.try_into().map_err(|_| damaged(key, "no place"))?;
            return self.at(u64::from_be_bytes(place)).await;
        }
        let end = self.size().await?;
        let mut after = cursor.checked_sub(1).map(receipt_key);
        loop {
            let rows = self.0.scan(RECEIPTS, after.as_deref(), PAGE).await?;
            let Some((last, _)) = rows.last() else { return Ok(None) };
            after = Some(last.clone());
            for (key, row) in &rows {
                let stored = stored(key, row)?;
                if stored.index < end && wanted(&stored) {
                    return Ok(Some(stored));
                }
            }
        }
    }
}

fn stored(key: &[u8], row: &[u8]) -> Result<Stored, ReceiptError> {
    let place = key.last_chunk::<8>().ok_or_else(|| damaged(key, "no place"))?;
    let row = parse_row(key, row)?;
    let receipt = payload(key, &row.jws)?;
    Ok(Stored {
        index: u64::from_be_bytes(*place),
        number: row.number,
        tag: row.tag,
        sha256: row.sha256,
        jws: row.jws,
        receipt,
    })
}
