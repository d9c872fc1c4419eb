//! Data derived from copies: rows `dv/…`. Sealed at rest like a copy; its parents' agreements decide each use of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    id::{AgreementId, CopyId, DatasetId, OfferId},
    receipt::{Segment, row_key},
    time::Timestamp,
    vault::{Contents, CopyState},
};

/// A derived dataset.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DerivedRow {
    /// Its dataset id: the operator's, or minted by us.
    pub dataset: DatasetId,
    /// Minted by us; its UUID names the folder.
    pub copy: CopyId,
    /// For people.
    pub title: String,
    /// The copies that it was made from; of parents that were derived themselves, theirs.
    pub parents: Vec<Parent>,
    /// Where it stands.
    pub state: CopyState,
    /// The sealed bodies.
    pub segments: Vec<Segment>,
    /// Bytes of plaintext.
    pub bytes: u64,
    /// What is in it.
    #[serde(default)]
    pub contents: Contents,
    /// When it has to be destroyed: the earliest that a parent's policy demands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_by: Option<Timestamp>,
    /// Offers of ours that bring it onward: withdrawn when it goes.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub offers: BTreeSet<OfferId>,
    /// When it was registered.
    pub registered: Timestamp,
}

/// A copy that something was derived from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parent {
    /// The copy.
    pub copy: CopyId,
    /// The agreement that it came under.
    pub agreement: AgreementId,
    /// Its dataset.
    pub dataset: DatasetId,
}

impl DerivedRow {
    /// Where derived datasets lie in the store.
    pub const PREFIX: &'static str = "dv/";

    /// The row's key.
    pub fn key(dataset: &DatasetId) -> Vec<u8> {
        row_key(Self::PREFIX, &[dataset.as_str()])
    }

    /// Its parents' datasets, as policies see them.
    pub fn parent_datasets(&self) -> BTreeSet<String> {
        self.parents.iter().map(|parent| parent.dataset.as_str().to_owned()).collect()
    }
}
