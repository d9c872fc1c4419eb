//! `at_least`: which groups are large enough to leave.

use std::collections::{HashMap, hash_map::Entry};

use arrow_array::{Array as _, StringArray};

use crate::{crypto::sha256, transform::TransformError};

/// Most groups that are counted: 50 MB, and half as much again while the table grows.
pub const MAX_GROUPS: usize = 1_000_000;

/// Rows of each group, counted in a first pass and again in the second.
pub struct Groups<'a> {
    k: u64,
    /// Places, among the released columns, of those that make a group.
    places: &'a [usize],
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

impl<'a> Groups<'a> {
    pub fn new(k: u64, places: &'a [usize], max: usize) -> Self {
        Self { k, places, max, tallies: HashMap::new(), scratch: Vec::new() }
    }

    /// Counts a row, in the first pass.
    pub fn count(&mut self, released: &[StringArray], row: usize) -> Result<(), TransformError> {
        let (key, groups) = (self.key(released, row), self.tallies.len());
        let tally = match self.tallies.entry(key) {
            Entry::Vacant(_) if groups >= self.max => return Err(TransformError::Groups(self.max)),
            entry => entry.or_default(),
        };
        tally.first = tally.first.saturating_add(1);
        Ok(())
    }

    /// Whether this row, met in the second pass, may leave.
    pub fn is_shown(&mut self, released: &[StringArray], row: usize) -> Result<bool, TransformError> {
        let key = self.key(released, row);
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

    /// The released values, each with its length. Null is written as nothing, and so is nothing else.
    fn key(&mut self, released: &[StringArray], row: usize) -> [u8; 16] {
        self.scratch.clear();
        for place in self.places {
            let column = &released[*place];
            let value = if column.is_null(row) { "" } else { column.value(row) };
            self.scratch.extend_from_slice(&(value.len() as u64).to_be_bytes());
            self.scratch.extend_from_slice(value.as_bytes());
        }
        let mut key = [0; 16];
        key.copy_from_slice(&sha256(&self.scratch).as_bytes()[..16]);
        key
    }
}
