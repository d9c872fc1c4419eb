//! Rows that never change again: into tables, out of sled, and many small tables into one.

use std::{io, sync::PoisonError};

use super::{INLINE, Inner, OBJECT, RESERVE, TABLES, damaged, object_named};
use crate::{
    crypto::sha256,
    store::{
        StoreError,
        frozen::{Cursor, Row},
        tables::{Change, Listed},
    },
};

impl Inner {
    pub(super) fn listed(&self) -> Result<Vec<Listed>, StoreError> {
        match self.db.get(TABLES).map_err(|error| StoreError::Failed(error.to_string()))? {
            None => Ok(Vec::new()),
            Some(json) => serde_json::from_slice(&json).map_err(|error| damaged(TABLES, &error.to_string())),
        }
    }

    /// Lists a change of the tables, with whatever else is to be written.
    fn list(&self, change: Change, mut batch: ::sled::Batch) -> Result<(), StoreError> {
        self.exclusively(|| {
            batch.insert(TABLES, serde_json::to_vec(&change.listed)?);
            self.apply(batch)?;
            self.tables.take(change);
            Ok(())
        })
    }

    pub(super) fn freeze(&self, mut keys: Vec<Vec<u8>>, mark: (Vec<u8>, Vec<u8>)) -> Result<(), StoreError> {
        keys.sort_unstable();
        keys.dedup();
        // as much again as the rows take in sled, at the most
        self.room_for(RESERVE)?;
        let rows = keys.iter().filter_map(|key| self.frozen_row(key).transpose());
        let change = self.tables.add(self.listed()?, rows)?;
        let mut batch = ::sled::Batch::default();
        batch.insert(mark.0.as_slice(), [&[INLINE], mark.1.as_slice()].concat());
        self.list(change, batch)?;
        let mut derived = self.derived.write().unwrap_or_else(PoisonError::into_inner);
        for key in &keys {
            derived.remove(key.as_slice());
        }
        Ok(())
    }

    /// A row as a table holds it: large values too, since objects that sled doesn't name are swept.
    fn frozen_row(&self, key: &[u8]) -> io::Result<Option<Row>> {
        let row = match self.db.get(key).map_err(io::Error::other)? {
            Some(row) => row.to_vec(),
            None => match self.derived(key) {
                Some(value) => [&[INLINE], value.as_slice()].concat(),
                None => return Ok(None),
            },
        };
        Ok(match row.first() {
            Some(&OBJECT) => self
                .resolve(key, &row)
                .map_err(io::Error::other)?
                .map(|value| (key.to_vec(), [&[INLINE], value.as_slice()].concat())),
            _ => Some((key.to_vec(), row)),
        })
    }

    pub(super) fn derived(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.derived.read().unwrap_or_else(PoisonError::into_inner).get(key).map(|value| value.to_vec())
    }

    pub(super) fn thin(&self, limit: usize) -> Result<bool, StoreError> {
        let mut listed = self.listed()?;
        let Some(at) = listed.iter().position(|one| !one.thinned) else { return Ok(false) };
        let table = self.tables.now().get(at).cloned().ok_or_else(|| damaged(TABLES, "a listed table is not open"))?;
        let mut resume = self.thinned_to.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cursor = Cursor::new(table, b"", &resume);
        let (mut next, mut gone, mut done) = (resume.clone(), Vec::new(), false);
        while gone.len() < limit {
            let Some((key, frozen)) = cursor.next()? else {
                done = true;
                break;
            };
            next.clone_from(&key);
            next.push(0);
            // most were never in sled
            if self.db.contains_key(&key).map_err(|error| StoreError::Failed(error.to_string()))? {
                gone.push((key, frozen));
            }
        }
        listed[at].thinned = done;
        let mut replaced = Vec::new();
        self.exclusively(|| {
            let mut batch = ::sled::Batch::default();
            for (key, frozen) in &gone {
                // only what is in the table: a row that was written anew since stays where it is
                match self.db.get(key).map_err(io::Error::other)? {
                    Some(row) if row == frozen.as_slice() => batch.remove(key.as_slice()),
                    Some(row) => {
                        if let Some(name) = object_named(&row)
                            && frozen.split_first().is_some_and(|(_, value)| sha256(value) == name)
                        {
                            batch.remove(key.as_slice());
                            replaced.push(name);
                        }
                    }
                    None => {}
                }
            }
            if done {
                batch.insert(TABLES, serde_json::to_vec(&listed)?);
            }
            self.apply(batch)
        })?;
        self.objects.change([], replaced);
        *resume = if done { Vec::new() } else { next };
        Ok(listed.iter().any(|one| !one.thinned))
    }

    pub(super) fn merge(&self, stop: &dyn Fn() -> bool) -> Result<bool, StoreError> {
        let listed = self.listed()?;
        self.room_for(RESERVE + self.tables.next_merge(&listed)?)?;
        match self.tables.merge(listed, stop)? {
            None => Ok(false),
            Some(change) => self.list(change, ::sled::Batch::default()).map(|()| true),
        }
    }
}
