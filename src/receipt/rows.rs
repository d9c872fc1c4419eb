//! State rows: JSON under a version, read to be written again only if nobody was faster.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    crypto::Hasher,
    receipt::{Mirror, ReceiptError},
    store::Store,
};

/// The commit that last wrote a row; 0 where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub u64);

/// A state row as it was read: its value, and what is expected of it when it is written again.
#[derive(Clone, Debug)]
pub struct Row<T> {
    /// Its key.
    pub key: Vec<u8>,
    /// Its version; 0 if it isn't there.
    pub version: Version,
    /// What it holds.
    pub value: Option<T>,
}

/// A key from a readable prefix and texts of any kind: prefix ‖ SHA-256 over the length-prefixed parts.
pub fn row_key(prefix: &str, parts: &[&str]) -> Vec<u8> {
    let mut hasher = Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let mut key = prefix.as_bytes().to_vec();
    key.extend_from_slice(hasher.finish().as_bytes());
    key
}

/// Reads a state row.
pub async fn read<T: DeserializeOwned>(store: &dyn Store, key: &[u8]) -> Result<Row<T>, ReceiptError> {
    match store.get(key).await? {
        None => Ok(Row { key: key.to_vec(), version: Version(0), value: None }),
        Some(bytes) => decode(key, &bytes),
    }
}

/// Reads state rows in the order of their keys.
pub async fn list<T: DeserializeOwned>(
    store: &dyn Store,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Row<T>>, ReceiptError> {
    store.scan(prefix, after, limit).await?.iter().map(|(key, bytes)| decode(key, bytes)).collect()
}

/// Where events lie: CloudEvents, numbered from 1 in the order of commits.
pub const EVENTS: &str = "e/";

/// The key of an event.
pub fn event_key(number: u64) -> Vec<u8> {
    let mut key = EVENTS.as_bytes().to_vec();
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Shows a mirror all rows under a prefix, at start.
pub async fn replay(store: &dyn Store, prefix: &str, mirror: &dyn Mirror) -> Result<(), ReceiptError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = store.scan(prefix.as_bytes(), after.as_deref(), 1000).await?;
        for (key, bytes) in &rows {
            mirror.applied(key, Some(split(key, bytes)?.1));
        }
        match rows.into_iter().next_back() {
            Some((key, _)) => after = Some(key),
            None => return Ok(()),
        }
    }
}

/// A row's bytes: version as 8 bytes, big-endian, then JSON.
pub(super) fn encode(version: Version, json: &[u8]) -> Vec<u8> {
    let mut bytes = version.0.to_be_bytes().to_vec();
    bytes.extend_from_slice(json);
    bytes
}

pub(super) fn split<'a>(key: &[u8], bytes: &'a [u8]) -> Result<(Version, &'a [u8]), ReceiptError> {
    match bytes.split_first_chunk::<8>() {
        Some((version, json)) => Ok((Version(u64::from_be_bytes(*version)), json)),
        None => Err(damaged(key, "shorter than its version")),
    }
}

pub(super) fn damaged(key: &[u8], problem: impl Into<String>) -> ReceiptError {
    ReceiptError::Damaged { key: key.escape_ascii().to_string(), problem: problem.into() }
}

fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<Row<T>, ReceiptError> {
    let (version, json) = split(key, bytes)?;
    let value = serde_json::from_slice(json).map_err(|error| damaged(key, error.to_string()))?;
    Ok(Row { key: key.to_vec(), version, value: Some(value) })
}
