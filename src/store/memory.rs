//! A store in memory, for tests and for what may be forgotten.

use std::{
    collections::BTreeMap,
    ops::Bound,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::store::{Batch, Store, StoreError, check};

/// Rows in a tree in memory.
#[derive(Default)]
pub struct MemoryStore(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows().get(key).cloned())
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_vec()),
            _ => Bound::Included(prefix.to_vec()),
        };
        Ok(self
            .rows()
            .range((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        check(&batch)?;
        let mut rows = self.rows();
        for key in batch.deletes {
            rows.remove(&key);
        }
        rows.extend(batch.puts);
        rows.extend(batch.contents);
        rows.extend(batch.derived);
        Ok(())
    }

    async fn erase(&self, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.rows().remove(key).is_some())
    }

    async fn freeze(&self, _: Vec<Vec<u8>>, mark: (Vec<u8>, Vec<u8>)) -> Result<(), StoreError> {
        self.rows().extend([mark]);
        Ok(())
    }

    async fn thin(&self, _: usize) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn merge(&self, _: CancellationToken) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn backup(&self, _: &Path) -> Result<(), StoreError> {
        Err(StoreError::Failed("a store in memory is not backed up".into()))
    }
}
