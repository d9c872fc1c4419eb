//! Offers as the provider keeps them: rows `o/…`, and the view of them in memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use serde::{Deserialize, Serialize};

use crate::{
    crypto::jws::Jws,
    id::{DatasetId, Did, OfferId, SnapshotId},
    offer::Offer,
    policy::Slice,
    receipt::{Mirror, row_key},
    time::Timestamp,
};

/// Where offers lie in the store.
pub const PREFIX: &str = "o/";

/// The row's key.
pub fn key(id: &OfferId) -> Vec<u8> {
    row_key(PREFIX, &[id.as_str()])
}

/// One offer of ours, in its newest version.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfferRow {
    /// Counts from 1 under one offer id.
    pub version: u64,
    /// The file, below a root.
    pub source: String,
    /// `csv`.
    pub format: String,
    /// The source's state when this version was published.
    pub snapshot: SnapshotId,
    /// When.
    pub published: Timestamp,
    /// Whether foreign connectors may have it: as it is, unsealed, with receipts that only we sign.
    #[serde(default)]
    pub plain: bool,
    /// When it was withdrawn, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Timestamp>,
    /// The offer itself; without `aud`, which each sealed version adds.
    pub offer: Offer,
    /// One JWS for everybody, or one for each recipient.
    pub signed: Vec<SignedOffer>,
}

/// A signed version, for everybody (`aud` absent) or for one recipient.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignedOffer {
    /// The recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<Did>,
    /// The offer, signed.
    pub jws: Jws,
}

impl OfferRow {
    /// Whether each recipient gets a sealed version of its own.
    pub fn sealed(&self) -> bool {
        self.signed.iter().any(|signed| signed.aud.is_some())
    }

    /// The version that `peer` may see, if there is one.
    pub fn version_for(&self, peer: &impl AsRef<str>) -> Option<&SignedOffer> {
        self.signed.iter().find(|signed| signed.aud.as_ref().is_none_or(|aud| aud.as_str() == peer.as_ref()))
    }
}

/// An offer that can be decided on: its row and its compiled slice.
#[derive(Debug)]
pub struct LiveOffer {
    /// The row.
    pub row: OfferRow,
    /// The slice; an error means that nobody may have it.
    pub slice: Result<Arc<Slice>, String>,
}

impl LiveOffer {
    fn stands(&self) -> bool {
        self.row.withdrawn.is_none()
    }

    fn place(&self) -> (DatasetId, OfferId) {
        (self.row.offer.dataset.id.clone(), self.row.offer.id.clone())
    }
}

/// All offers of ours; follows the store.
#[derive(Default)]
pub struct Offers(RwLock<Shelf>);

#[derive(Default)]
struct Shelf {
    by_key: HashMap<Vec<u8>, Arc<LiveOffer>>,
    /// Those that are not withdrawn.
    standing: BTreeMap<(DatasetId, OfferId), Arc<LiveOffer>>,
    /// Ids of the standing offers of a dataset.
    by_dataset: HashMap<DatasetId, BTreeSet<OfferId>>,
}

impl Offers {
    /// The offer with this id.
    pub fn get(&self, id: &OfferId) -> Option<Arc<LiveOffer>> {
        self.read().by_key.get(&key(id)).cloned()
    }

    /// The standing offers of this dataset, by offer id.
    pub fn of_dataset(&self, dataset: &DatasetId) -> Vec<Arc<LiveOffer>> {
        let shelf = self.read();
        let ids = shelf.by_dataset.get(dataset).into_iter().flatten();
        ids.filter_map(|id| shelf.standing.get(&(dataset.clone(), id.clone()))).cloned().collect()
    }

    /// All that are not withdrawn, by dataset and offer id.
    pub fn all(&self) -> Vec<Arc<LiveOffer>> {
        self.read().standing.values().cloned().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Shelf> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mirror for Offers {
    fn applied(&self, key: &[u8], value: Option<&[u8]>) {
        if !key.starts_with(PREFIX.as_bytes()) {
            return;
        }
        let live = value.and_then(|bytes| match serde_json::from_slice::<OfferRow>(bytes) {
            Ok(row) => {
                let slice = row.offer.slice().map(Arc::new).map_err(|error| error.to_string());
                Some(Arc::new(LiveOffer { row, slice }))
            }
            Err(error) => {
                // fail closed: an offer that can't be read is no offer
                tracing::error!(%error, "an offer's row can't be read; nobody gets it");
                None
            }
        });
        let mut shelf = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = shelf.by_key.remove(key) {
            let (dataset, id) = before.place();
            if let Some(ids) = shelf.by_dataset.get_mut(&dataset) {
                ids.remove(&id);
            }
            shelf.standing.remove(&(dataset, id));
        }
        if let Some(live) = live {
            if live.stands() {
                let (dataset, id) = live.place();
                shelf.by_dataset.entry(dataset.clone()).or_default().insert(id.clone());
                shelf.standing.insert((dataset, id), live.clone());
            }
            shelf.by_key.insert(key.to_vec(), live);
        }
    }
}
