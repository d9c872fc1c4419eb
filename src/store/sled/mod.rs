//! The store on disk: sled 0.34 with an explicit sync (docs/adr/0001-sled.md).
//!
//! sled's own `flush()` does not survive power cuts; `flush()` followed by `sync_data` on its `db` file does. One tree,
//! since a batch is atomic only within one. Values above 4 KiB go to `objects/`: larger pages would spill to sled's
//! `blobs/`, which it never syncs.

mod backup;
mod freeze;

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{
    id::Sha256,
    store::{
        Batch, Store, StoreError, check,
        contents::{Contents, Place},
        frozen::{Cursor, Row, Table},
        objects::{Objects, sync_folder},
        tables::{Listed, Tables, first_of},
    },
};

/// Values above this many bytes are spilled to `objects/`.
const MAX_INLINE: usize = 4096;
/// Room that has to be left on the disk before a batch is taken.
const RESERVE: u64 = 32 << 20;
const CACHE: u64 = 32 << 20;

/// Which format a store is in: one that an earlier build made is not read as if it were of this one.
const FORMAT: &[u8] = b"\0format";
const THIS_FORMAT: &[u8] = b"3";
/// Where the tables are listed: before all rows of ours.
const TABLES: &[u8] = b"\0tables";
/// How far the packs are named by rows.
const PACKED: &[u8] = b"\0packed";

const INLINE: u8 = 0;
const OBJECT: u8 = 1;
const CONTENT: u8 = 2;

/// Rows that are in memory only: the least that a map of them can take.
type Derived = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// Rows in sled, large values and erasable contents in files beside it.
#[derive(Clone)]
pub struct SledStore(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    db: sled::Db,
    /// sled's own log, opened once more to sync it.
    log: File,
    objects: Objects,
    contents: Mutex<Contents>,
    tables: Tables,
    /// What is made from other rows: gone at the next start.
    derived: RwLock<Derived>,
    /// A file that is empty or one byte long.
    pulse: Mutex<(File, bool)>,
    /// How far the table that is being thinned is.
    thinned_to: Mutex<Vec<u8>>,
    poisoned: Mutex<Option<String>>,
    /// Held while a content is erased, and while packs are copied.
    erasing: Mutex<()>,
    _lock: File,
}

impl SledStore {
    /// Opens the store in this folder, or makes it.
    ///
    /// # Errors
    /// [`StoreError::Held`] if another process has it; [`StoreError::Failed`] for what the file system says.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(folder)?;
        let lock = lock(folder)?;
        let db = Self::open_sled(folder)?;
        Self::over(folder, lock, db)
    }

    fn open_sled(folder: &Path) -> Result<sled::Db, StoreError> {
        let config = sled::Config::new().path(folder.join("sled")).flush_every_ms(None).cache_capacity(CACHE);
        config.open().map_err(|error| StoreError::Failed(error.to_string()))
    }

    /// The store over what is in this folder.
    fn over(folder: &Path, lock: File, db: sled::Db) -> Result<Self, StoreError> {
        let path = folder.join("sled");
        let format = db.get(FORMAT).map_err(|error| StoreError::Failed(error.to_string()))?;
        match format {
            Some(format) if format == THIS_FORMAT => {}
            None if db.is_empty() => {
                db.insert(FORMAT, THIS_FORMAT).map_err(|error| StoreError::Failed(error.to_string()))?;
            }
            _ => {
                let problem = "the store is in the format of another version of Counterseal; use that version with it";
                return Err(damaged(FORMAT, problem));
            }
        }
        let log = File::open(path.join("db"))?;
        let objects = Objects::open(folder.join("objects"))?;
        let contents = Contents::open(folder.join("content"))?;
        let pulse = File::create(folder.join("pulse"))?;
        let listed = db.get(TABLES).map_err(|error| StoreError::Failed(error.to_string()))?;
        let listed: Vec<Listed> = match listed {
            None => Vec::new(),
            Some(json) => serde_json::from_slice(&json).map_err(|error| damaged(TABLES, &error.to_string()))?,
        };
        let tables = Tables::open(folder.join("archive"), &listed)
            .map_err(|error| StoreError::Damaged("archive".into(), error.to_string()))?;
        db.flush().map_err(|error| StoreError::Failed(error.to_string()))?;
        log.sync_all()?;
        sync_folder(&path)?;
        sync_folder(folder)?;
        if let Some(home) = folder.parent().filter(|home| home.exists()) {
            sync_folder(home)?;
        }
        let store = Self(Arc::new(Inner {
            folder: folder.to_owned(),
            db,
            log,
            objects,
            contents: Mutex::new(contents),
            tables,
            derived: RwLock::default(),
            pulse: Mutex::new((pulse, false)),
            thinned_to: Mutex::default(),
            poisoned: Mutex::new(None),
            erasing: Mutex::default(),
            _lock: lock,
        }));
        store.0.sweep()?;
        Ok(store)
    }
}

#[async_trait]
impl Store for SledStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(value) = self.0.derived(key) {
            return Ok(Some(value));
        }
        match self.0.row(key)? {
            Some(row) => self.0.resolve(key, &row),
            None => Ok(None),
        }
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        // our own rows lie before all others
        let mut start = if prefix.is_empty() { vec![1] } else { prefix.to_vec() };
        if let Some(after) = after
            && after >= prefix
        {
            start = after.to_vec();
            // the least key after `after`
            start.push(0);
        }
        loop {
            // derived rows first, then tables, then sled: the way that rows never go
            let derived = self.0.derived_from(prefix, &start, limit);
            let tables = self.0.tables.now();
            let rows = self.0.merged(prefix, &start, limit, derived, &tables)?;
            // what was frozen meanwhile may have left sled before it was looked for
            if Arc::ptr_eq(&tables, &self.0.tables.now()) {
                return Ok(rows);
            }
        }
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        check(&batch)?;
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || inner.commit(batch))
            .await
            .map_err(|error| StoreError::Failed(error.to_string()))?
    }

    async fn erase(&self, key: &[u8]) -> Result<bool, StoreError> {
        let (inner, key) = (self.0.clone(), key.to_vec());
        tokio::task::spawn_blocking(move || inner.erase(&key))
            .await
            .map_err(|error| StoreError::Failed(error.to_string()))?
    }

    async fn freeze(&self, keys: Vec<Vec<u8>>, mark: (Vec<u8>, Vec<u8>)) -> Result<(), StoreError> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || inner.freeze(keys, mark))
            .await
            .map_err(|error| StoreError::Failed(error.to_string()))?
    }

    async fn thin(&self, limit: usize) -> Result<bool, StoreError> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || inner.thin(limit))
            .await
            .map_err(|error| StoreError::Failed(error.to_string()))?
    }

    async fn merge(&self, stop: CancellationToken) -> Result<bool, StoreError> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || inner.merge(&|| stop.is_cancelled()))
            .await
            .map_err(|error| StoreError::Failed(error.to_string()))?
    }

    async fn backup(&self, folder: &Path) -> Result<(), StoreError> {
        let (inner, folder) = (self.0.clone(), folder.to_owned());
        tokio::task::spawn_blocking(move || inner.backup(&folder))
            .await
            .map_err(|error| StoreError::Failed(error.to_string()))?
    }
}

impl Inner {
    fn commit(&self, mut batch: Batch) -> Result<(), StoreError> {
        let mut poisoned = self.poisoned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &*poisoned {
            return Err(StoreError::Poisoned(why.clone()));
        }
        // refused before anything is touched: a full disk found in the middle would poison the store. Deletes make room: the
        // reserve is there for them
        let written = || batch.puts.iter().chain(&batch.contents);
        if written().next().is_some() {
            self.room_for(written().map(|(key, value)| 2 * (key.len() + value.len()) as u64).sum())?;
        }
        let derived = std::mem::take(&mut batch.derived);
        if !(batch.puts.is_empty() && batch.deletes.is_empty() && batch.contents.is_empty()) {
            guarded(&mut poisoned, || self.write(batch))?;
        }
        let rows = derived.into_iter().map(|(key, value)| (key.into(), value.into()));
        self.derived.write().unwrap_or_else(PoisonError::into_inner).extend(rows);
        Ok(())
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        let large = batch.puts.iter().filter(|(_, value)| value.len() > MAX_INLINE).map(|(_, value)| value.as_slice());
        let mut names = self.objects.write(large)?.into_iter();
        let places = if batch.contents.is_empty() {
            Vec::new()
        } else {
            self.contents().append(batch.contents.iter().map(|(_, value)| value.as_slice()))?
        };
        let mut rows = sled::Batch::default();
        let mut replaced = Vec::new();
        for key in batch.deletes.iter().chain(batch.puts.iter().map(|(key, _)| key)) {
            replaced.extend(self.db.get(key).map_err(io::Error::other)?.as_deref().and_then(object_named));
        }
        for key in &batch.deletes {
            rows.remove(key.as_slice());
        }
        let mut named: HashMap<&[u8], Sha256> = HashMap::new();
        for (key, value) in &batch.puts {
            let mut row = Vec::with_capacity(1 + value.len().min(MAX_INLINE));
            if value.len() > MAX_INLINE {
                let name = names.next().ok_or_else(|| io::Error::other("a large value has no name"))?;
                row.push(OBJECT);
                row.extend_from_slice(name.as_bytes());
                named.insert(key, name);
            } else {
                named.remove(key.as_slice());
                row.push(INLINE);
                row.extend_from_slice(value);
            }
            rows.insert(key.as_slice(), row);
        }
        for ((key, _), place) in batch.contents.iter().zip(places) {
            let mut row = vec![CONTENT];
            row.extend_from_slice(&place.to_bytes());
            rows.insert(key.as_slice(), row);
        }
        if let Some(end) = self.contents().end().filter(|_| !batch.contents.is_empty()) {
            rows.insert(PACKED, &end[..]);
        }
        self.apply(rows)?;
        self.objects.change(named.into_values(), replaced);
        Ok(())
    }

    /// Overwrites what a content row points to, and deletes the row; says whether there was anything. A sync that fails
    /// poisons: what is read afterwards may be what the disk never got.
    fn erase(&self, key: &[u8]) -> Result<bool, StoreError> {
        let row = self.db.get(key).map_err(|error| StoreError::Failed(error.to_string()))?.map(|row| row.to_vec());
        let row = row.map_or_else(|| self.tables.get(key), |row| Ok(Some(row)))?;
        if row.is_none() {
            return Ok(false);
        }
        let mut present = true;
        if let Some((&CONTENT, place)) = row.as_deref().and_then(<[u8]>::split_first) {
            let place = Place::from_bytes(place).ok_or_else(|| damaged(key, "not a place in a pack"))?;
            let _alone = self.erasing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut poisoned = self.poisoned.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(why) = &*poisoned {
                return Err(StoreError::Poisoned(why.clone()));
            }
            // what is damaged is overwritten too
            present = !matches!(self.contents().read(place), Ok(None));
            guarded(&mut poisoned, || self.contents().erase(place))?;
        }
        self.commit(Batch { deletes: vec![key.to_vec()], ..Batch::default() })?;
        Ok(present)
    }

    /// Refuses if the disk hasn't room for so many bytes and the reserve.
    fn room_for(&self, bytes: u64) -> Result<(), StoreError> {
        let (free, needed) = (free(&self.folder)?, RESERVE + bytes);
        if free < needed { Err(StoreError::Full { free, needed }) } else { Ok(()) }
    }

    fn derived_from(&self, prefix: &[u8], start: &[u8], limit: usize) -> Vec<Row> {
        let derived = self.derived.read().unwrap_or_else(PoisonError::into_inner);
        let rows = derived.range::<[u8], _>((Bound::Included(start), Bound::Unbounded));
        let rows = rows.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    /// Rows of sled, the tables and the memory in one order; of one that several have, sled's counts.
    fn merged(
        &self,
        prefix: &[u8],
        start: &[u8],
        limit: usize,
        derived: Vec<Row>,
        tables: &[Arc<Table>],
    ) -> Result<Vec<Row>, StoreError> {
        let mut frozen: Vec<Cursor> = tables.iter().map(|table| Cursor::new(table.clone(), prefix, start)).collect();
        let mut derived = derived.into_iter().peekable();
        let mut live = self.db.range(start..).peekable();
        let mut rows: Vec<Row> = Vec::new();
        while rows.len() < limit {
            let stored = match live.peek() {
                Some(Ok((key, _))) if key.starts_with(prefix) => Some(key.as_ref()),
                Some(Err(error)) => return Err(StoreError::Failed(error.to_string())),
                _ => None,
            };
            let made = derived.peek().map(|(key, _)| key.as_slice());
            let from_memory = made.is_some_and(|made| stored.is_none_or(|stored| made < stored));
            let next = if from_memory { made } else { stored };
            if let Some((key, value)) = first_of(&mut frozen, next)? {
                if let Some(value) = self.resolve(&key, &value)? {
                    rows.push((key, value));
                }
            } else if from_memory {
                rows.extend(derived.next());
            } else if stored.is_some()
                && let Some(Ok((key, value))) = live.next()
            {
                if let Some(value) = self.resolve(&key, &value)? {
                    rows.push((key.to_vec(), value));
                }
            } else {
                break;
            }
        }
        Ok(rows)
    }

    fn resolve(&self, key: &[u8], row: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match row.split_first() {
            Some((&INLINE, value)) => Ok(Some(value.to_vec())),
            Some((&OBJECT, name)) => {
                let name = <[u8; 32]>::try_from(name).map_err(|_| damaged(key, "not the name of an object"))?;
                match self.objects.read(&Sha256(name)) {
                    // its row was written anew since it was read
                    Err(error) if error.kind() == io::ErrorKind::NotFound => match self.row(key)? {
                        Some(now) if now == row => Err(damaged(key, &error.to_string())),
                        Some(now) => self.resolve(key, &now),
                        None => Ok(None),
                    },
                    read => read.map(Some).map_err(|error| damaged(key, &error.to_string())),
                }
            }
            Some((&CONTENT, place)) => {
                let place = Place::from_bytes(place).ok_or_else(|| damaged(key, "not a place in a pack"))?;
                // the row of an erased content may be frozen: it stays, and there is nothing behind it
                self.contents().read(place).map_err(|error| damaged(key, &error.to_string()))
            }
            _ => Err(damaged(key, "neither a value nor a reference")),
        }
    }

    /// A row as sled or a table has it.
    fn row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.db.get(key).map_err(|error| StoreError::Failed(error.to_string()))? {
            Some(row) => Ok(Some(row.to_vec())),
            None => Ok(self.tables.get(key)?),
        }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With no commit beside it; a failure poisons the store as a commit's does.
    fn exclusively(&self, write: impl FnOnce() -> io::Result<()>) -> Result<(), StoreError> {
        let mut poisoned = self.poisoned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &*poisoned {
            return Err(StoreError::Poisoned(why.clone()));
        }
        self.room_for(0)?;
        guarded(&mut poisoned, write)
    }

    fn apply(&self, batch: sled::Batch) -> io::Result<()> {
        self.db.apply_batch(batch).map_err(io::Error::other)?;
        self.db.flush().map_err(io::Error::other)?;
        self.log.sync_data()?;
        self.take_pulse()
    }

    /// Changes the length of an empty file: a change of metadata, which a file system whose journal is aborted refuses.
    ///
    /// ext4 aborts its journal a moment before it says that it did. In that moment it drops what was to be written, and a
    /// sync that finds nothing to write succeeds: what `just torture` found to be lost although it was synced. So an
    /// acknowledgement takes one thing more that only a living journal does; it costs no sync.
    fn take_pulse(&self) -> io::Result<()> {
        let mut beat = self.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        beat.1 = !beat.1;
        beat.0.set_len(beat.1.into())
    }

    /// What a crash left: objects and contents whose rows never came. Counts which objects rows name.
    fn sweep(&self) -> Result<(), StoreError> {
        let end = self.db.get(PACKED).map_err(|error| StoreError::Failed(error.to_string()))?;
        self.contents().close(end.as_deref())?;
        // most stores have none: nothing to go through all rows for
        if self.objects.is_empty()? {
            return Ok(());
        }
        let mut named: HashMap<Sha256, u32> = HashMap::new();
        for row in self.db.iter() {
            let (_, value) = row.map_err(|error| StoreError::Failed(error.to_string()))?;
            if let Some(name) = object_named(&value) {
                *named.entry(name).or_default() += 1;
            }
        }
        let swept = self.objects.sweep(named)?;
        if swept > 0 {
            tracing::info!(swept, "removed objects that no row names");
        }
        Ok(())
    }
}

/// Writes; until it is done the store counts as failed, so that a panic in the middle poisons it as an error does.
fn guarded(poisoned: &mut Option<String>, write: impl FnOnce() -> io::Result<()>) -> Result<(), StoreError> {
    *poisoned = Some("a write did not come to its end".into());
    match write() {
        Ok(()) => {
            *poisoned = None;
            Ok(())
        }
        Err(error) => {
            *poisoned = Some(error.to_string());
            Err(StoreError::Poisoned(error.to_string()))
        }
    }
}

fn object_named(row: &[u8]) -> Option<Sha256> {
    match row.split_first() {
        Some((&OBJECT, name)) => <[u8; 32]>::try_from(name).ok().map(Sha256),
        _ => None,
    }
}

fn damaged(key: &[u8], problem: &str) -> StoreError {
    StoreError::Damaged(key.escape_ascii().to_string(), problem.to_owned())
}

/// One process, one store: an advisory lock on `lock`, which names its holder.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())?;
            Ok(file)
        }
        Err(fs::TryLockError::WouldBlock) => {
            let holder = fs::read_to_string(&path).unwrap_or_default();
            Err(StoreError::Held(format!("{} (process {})", folder.display(), holder.trim())))
        }
        Err(fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

fn free(folder: &Path) -> Result<u64, StoreError> {
    let stat = rustix::fs::statvfs(folder).map_err(|error| StoreError::Failed(error.to_string()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
