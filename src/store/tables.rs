//! The frozen tables of a store: which there are, and how sixteen of them become one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use serde::{Deserialize, Serialize};

use crate::store::frozen::{Cursor, Row, Table};

/// How many tables are merged into one, so that a look has few to go through.
const MERGED: usize = 16;

/// A table, as the store lists it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    number: u32,
    /// Whether its rows have left sled.
    pub thinned: bool,
    /// Whether it was made of others.
    #[serde(default)]
    merged: bool,
}

impl Listed {
    fn file(&self) -> String {
        format!("{}.table", self.number)
    }
}

/// The tables, open, as they are listed.
pub struct Tables {
    folder: PathBuf,
    open: RwLock<Arc<Vec<Arc<Table>>>>,
}

/// Tables that were written and are not listed yet.
pub struct Change {
    pub listed: Vec<Listed>,
    open: Vec<Arc<Table>>,
    gone: Vec<PathBuf>,
}

impl Tables {
    /// Opens what is listed, and removes files that were written and never listed.
    pub fn open(folder: PathBuf, listed: &[Listed]) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if !listed.iter().any(|one| name.to_str() == Some(&one.file())) {
                fs::remove_file(entry.path())?;
            }
        }
        let open: io::Result<Vec<Arc<Table>>> =
            listed.iter().map(|one| Table::open(&folder.join(one.file())).map(Arc::new)).collect();
        Ok(Self { folder, open: RwLock::new(Arc::new(open?)) })
    }

    /// All of them, as they are now.
    pub fn now(&self) -> Arc<Vec<Arc<Table>>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where they lie, in the order in which they are listed.
    pub fn files(&self, listed: &[Listed]) -> Vec<PathBuf> {
        listed.iter().map(|one| self.folder.join(one.file())).collect()
    }

    /// What is frozen at this key. The newest table is looked at first: it is what is asked for most.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        for table in self.now().iter().rev() {
            if let Some(value) = table.get(key)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Writes one more table.
    pub fn add(&self, listed: Vec<Listed>, rows: impl Iterator<Item = io::Result<Row>>) -> io::Result<Change> {
        let mut change = Change { listed, open: self.now().to_vec(), gone: Vec::new() };
        let next = change.next(false);
        change.open.push(self.write(&next, rows)?);
        change.listed.push(next);
        Ok(change)
    }

    /// Bytes of the tables that would be merged next; 0 if there are too few.
    pub fn next_merge(&self, listed: &[Listed]) -> io::Result<u64> {
        let Some(range) = mergeable(listed) else { return Ok(0) };
        self.now()[range].iter().map(|table| Ok(table.file().metadata()?.len())).sum()
    }

    /// Merges the oldest tables that can be; `None` if there are too few, or it is told to stop.
    pub fn merge(&self, listed: Vec<Listed>, stop: &dyn Fn() -> bool) -> io::Result<Option<Change>> {
        let Some(range) = mergeable(&listed) else { return Ok(None) };
        let mut change = Change { listed, open: self.now().to_vec(), gone: Vec::new() };
        let next = Listed { thinned: true, ..change.next(true) };
        let mut cursors: Vec<Cursor> =
            change.open[range.clone()].iter().map(|table| Cursor::new(table.clone(), b"", b"")).collect();
        let rows = std::iter::from_fn(|| {
            if stop() {
                return Some(Err(io::ErrorKind::Interrupted.into()));
            }
            first_of(&mut cursors, None).transpose()
        });
        let table = match self.write(&next, rows) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            other => other?,
        };
        change.open.splice(range.clone(), [table]);
        change.gone = change.listed.splice(range, [next]).map(|one| self.folder.join(one.file())).collect();
        Ok(Some(change))
    }

    /// Takes a change that has been listed durably.
    pub fn take(&self, change: Change) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(change.open);
        for path in change.gone {
            // who still reads it has it open; what can't be removed now goes at the next start
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "a merged table could not be removed");
            }
        }
    }

    fn write(&self, listed: &Listed, rows: impl Iterator<Item = io::Result<Row>>) -> io::Result<Arc<Table>> {
        let path: &Path = &self.folder.join(listed.file());
        Table::write(path, rows).inspect_err(|_| {
            // half a table takes room that commits need
            let _ = fs::remove_file(path.with_extension("new"));
        })?;
        Table::open(path).map(Arc::new)
    }
}

/// The oldest tables that can be merged, if there are enough.
fn mergeable(listed: &[Listed]) -> Option<std::ops::Range<usize>> {
    let first = listed.iter().position(|one| !one.merged)?;
    let range = first..first + MERGED;
    let ready = listed.get(range.clone())?.iter().all(|one| one.thinned && !one.merged);
    ready.then_some(range)
}

impl Change {
    fn next(&self, merged: bool) -> Listed {
        let number = self.listed.iter().map(|one| one.number + 1).max().unwrap_or(0);
        Listed { number, thinned: false, merged }
    }
}

/// The first row of the cursors, if it comes before this key. Of one that several have, the latest table's counts; one
/// that has this key is passed over.
pub fn first_of(frozen: &mut [Cursor], live: Option<&[u8]>) -> io::Result<Option<Row>> {
    let mut first: Option<(usize, Vec<u8>)> = None;
    for (at, cursor) in frozen.iter_mut().enumerate().rev() {
        while let Some((key, _)) = cursor.peek()? {
            if live == Some(key.as_slice()) || first.as_ref().is_some_and(|(_, least)| least == key) {
                cursor.next()?;
                continue;
            }
            if first.as_ref().is_none_or(|(_, least)| key < least) {
                first = Some((at, key.clone()));
            }
            break;
        }
    }
    match first {
        Some((at, key)) if live.is_none_or(|live| key.as_slice() < live) => frozen[at].next(),
        _ => Ok(None),
    }
}
