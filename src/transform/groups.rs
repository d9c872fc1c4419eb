//! `at_least`: which groups are large enough to leave.

use std::collections::{HashMap, hash_map::Entry};

use crate::{crypto::sha256, transform::TransformError};

/// Most groups that are counted: 50 MB, and half as much again while the table grows.
pub const MAX_GROUPS: usize = 1_000_000;

/// Rows of each group, counted in a first pass and again in the second.
pub struct Groups {
    k: u64,
    max: usize,
    /// By the first 16 bytes of the SHA-256 of the released values: of one size however long these are.
    tallies: HashMap<[u8; 16], Tally>,
    scratch: Vec<u8>,
}

/// Saturating: a group of four billion rows is counted as that.
#[derive(Clone, Copy, Default)]
struct Tally {
    first: u32,
    second: u32,
}

impl Groups {
    pub fn new(k: u64, max: usize) -> Self {
        Self { k, max, tallies: HashMap::new(), scratch: Vec::new() }
    }

    /// Adds a released value of the row, with its length. Null is written as nothing, and so is nothing else.
    pub fn add(&mut self, value: &str) {
        self.scratch.extend_from_slice(&(value.len() as u64).to_be_bytes());
        self.scratch.extend_from_slice(value.as_bytes());
    }

    /// The group of the row whose values were added; begins the next row.
    pub fn key(&mut self) -> [u8; 16] {
        let mut key = [0; 16];
        key.copy_from_slice(&sha256(&self.scratch).as_bytes()[..16]);
        self.scratch.clear();
        key
    }

    /// Counts a row, in the first pass.
    pub fn count(&mut self, key: [u8; 16]) -> Result<(), TransformError> {
        let groups = self.tallies.len();
        let tally = match self.tallies.entry(key) {
            Entry::Vacant(_) if groups >= self.max => return Err(TransformError::Groups(self.max)),
            entry => entry.or_default(),
        };
        tally.first = tally.first.saturating_add(1);
        Ok(())
    }

    /// Whether this row, met in the second pass, may leave.
    pub fn is_shown(&mut self, key: [u8; 16]) -> Result<bool, TransformError> {
        let tally = self.tallies.get_mut(&key).ok_or(TransformError::Changed)?;
        tally.second = tally.second.saturating_add(1);
        Ok(u64::from(tally.first) >= self.k)
    }

    /// Whether the second pass met what the first had counted; else what has left may have groups that are too small.
    pub fn finish(self) -> Result<(), TransformError> {
        match self.tallies.values().all(|tally| tally.first == tally.second) {
            true => Ok(()),
            false => Err(TransformError::Changed),
        }
    }
}
