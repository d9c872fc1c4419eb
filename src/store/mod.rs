//! The local store: `get`, `scan`, `commit`.
//!
//! A [`Store`] keeps byte rows. A [`Batch`] is atomic, and durable when [`Store::commit`] returns: after a power cut it
//! is there, whole. [`SledStore`] is the store on disk; [`MemoryStore`] behaves the same and forgets. Owns no meaning:
//! what rows hold, and who may write them (the committer alone), is `receipt`'s. Rows that never change again can be
//! frozen into compressed tables, so that the working set stays small.

mod contents;
mod frozen;
mod memory;
mod objects;
mod sled;
mod tables;

use std::path::Path;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use self::{memory::MemoryStore, sled::SledStore};

/// Longest key, in bytes.
pub const MAX_KEY: usize = 256;

/// Rows to write and delete together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Rows to write. Of two with one key, the later counts.
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Rows to delete; deleting what isn't there is fine.
    pub deletes: Vec<Vec<u8>>,
    /// Rows whose values lie in content packs, where they can be erased for good ([`Store::erase`]).
    pub contents: Vec<(Vec<u8>, Vec<u8>)>,
    /// Rows that are made from others: found as all others are, until the next start. Whoever makes them makes them
    /// again.
    pub derived: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why the store did not answer or did not take a batch.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("{0} is held by another process; stop that connector first, or use another home")]
    Held(String),
    /// Less room than the reserve.
    #[error("the disk is full: {free} bytes are free, {needed} are needed; nothing was written")]
    Full {
        /// Free bytes.
        free: u64,
        /// Needed bytes.
        needed: u64,
    },
    /// A write or a sync failed before: what is on disk is not known until the store is opened again.
    #[error("the store failed before ({0}); restart to open it again")]
    Poisoned(String),
    /// The file system, or sled.
    #[error("the store failed: {0}")]
    Failed(String),
    /// A key that is empty or too long.
    #[error("a key has 1 to {MAX_KEY} bytes, this one has {0}")]
    Key(usize),
    /// A row that points to what isn't there, or is not a row of ours.
    #[error("the store is damaged at row {0}: {1}")]
    Damaged(String, String),
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Byte rows in the order of their keys.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The row at `key`.
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Rows whose keys begin with `prefix`, in byte order, strictly after `after`, at most `limit`.
    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError>;

    /// Writes all of the batch or nothing; durable when it returns. After a failed write or sync every further commit
    /// is [`StoreError::Poisoned`]: a sync that failed is never tried again as if nothing had happened.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// Overwrites in place what a content row held, and deletes the row; says whether there was anything. What was erased
    /// before is overwritten once more: who repeats it after a failure gets a sync of its own.
    async fn erase(&self, key: &[u8]) -> Result<bool, StoreError>;

    /// Moves rows that will never change again (but by [`Store::erase`]) out of the working set, and keeps `mark` with
    /// them; durable when it returns. They are found as before.
    async fn freeze(&self, keys: Vec<Vec<u8>>, mark: (Vec<u8>, Vec<u8>)) -> Result<(), StoreError>;

    /// Takes the second copy of frozen rows out of the working set, at most `limit` of them; says whether more are left.
    async fn thin(&self, limit: usize) -> Result<bool, StoreError>;

    /// Makes one large table of many small ones; says whether there were enough. Gives up when it is told to stop.
    async fn merge(&self, stop: CancellationToken) -> Result<bool, StoreError>;

    /// Writes all of it, as it is between two commits, into this folder, which is empty. Commits wait for a part of the
    /// time; what is committed after the call began may be in the backup or not. Durable when it returns.
    async fn backup(&self, folder: &Path) -> Result<(), StoreError>;
}

/// Refuses keys that no store takes.
fn check(batch: &Batch) -> Result<(), StoreError> {
    let keys = batch.puts.iter().chain(&batch.contents).chain(&batch.derived).map(|(key, _)| key).chain(&batch.deletes);
    for key in keys {
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(StoreError::Key(key.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
