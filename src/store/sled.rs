//! The store on disk: sled 0.34 with an explicit sync (docs/adr/0001-sled.md).
//!
//! sled's own `flush()` does not survive power cuts; `flush()` followed by `sync_data` on its `db` file does. One tree,
//! since a batch is atomic only within one. Values above 4 KiB go to `objects/`: larger pages would spill to sled's
//! `blobs/`, which it never syncs.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use crate::{
    id::Sha256,
    store::{
        Batch, Store, StoreError, check,
        contents::{Contents, Place},
        objects::{Objects, sync_folder},
    },
};

/// Values above this many bytes are spilled to `objects/`.
const MAX_INLINE: usize = 4096;
/// Room that has to be left on the disk before a batch is taken.
const RESERVE: u64 = 32 << 20;
const CACHE: u64 = 32 << 20;

const INLINE: u8 = 0;
const OBJECT: u8 = 1;
const CONTENT: u8 = 2;

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
    poisoned: Mutex<Option<String>>,
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
        let path = folder.join("sled");
        let db = sled::Config::new()
            .path(&path)
            .flush_every_ms(None)
            .cache_capacity(CACHE)
            .open()
            .map_err(|error| StoreError::Failed(error.to_string()))?;
        let log = File::open(path.join("db"))?;
        let objects = Objects::open(folder.join("objects"))?;
        let contents = Contents::open(folder.join("content"))?;
        db.flush().map_err(|error| StoreError::Failed(error.to_string()))?;
        log.sync_all()?;
        sync_folder(&path)?;
        sync_folder(folder)?;
        let store = Self(Arc::new(Inner {
            folder: folder.to_owned(),
            db,
            log,
            objects,
            contents: Mutex::new(contents),
            poisoned: Mutex::new(None),
            _lock: lock,
        }));
        store.0.sweep()?;
        Ok(store)
    }
}

#[async_trait]
impl Store for SledStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.0.db.get(key).map_err(|error| StoreError::Failed(error.to_string()))? {
            Some(value) => self.0.resolve(key, &value).map(Some),
            None => Ok(None),
        }
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        let mut start = prefix.to_vec();
        if let Some(after) = after
            && after >= prefix
        {
            start = after.to_vec();
            // the least key after `after`
            start.push(0);
        }
        self.0
            .db
            .range(start..)
            .map(|row| row.map_err(|error| StoreError::Failed(error.to_string())))
            .take_while(|row| row.as_ref().is_ok_and(|(key, _)| key.starts_with(prefix)) || row.is_err())
            .take(limit)
            .map(|row| {
                let (key, value) = row?;
                Ok((key.to_vec(), self.0.resolve(&key, &value)?))
            })
            .collect()
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        check(&batch)?;
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || inner.commit(batch))
            .await
            .map_err(|error| StoreError::Failed(error.to_string()))?
    }

    async fn erase(&self, key: &[u8]) -> Result<(), StoreError> {
        let row = self.0.db.get(key).map_err(|error| StoreError::Failed(error.to_string()))?;
        if let Some((&CONTENT, place)) = row.as_deref().and_then(<[u8]>::split_first) {
            let place = Place::from_bytes(place).ok_or_else(|| damaged(key, "not a place in a pack"))?;
            self.0.contents().erase(place)?;
        }
        self.commit(Batch { deletes: vec![key.to_vec()], ..Batch::default() }).await
    }
}

impl Inner {
    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut poisoned = self.poisoned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &*poisoned {
            return Err(StoreError::Poisoned(why.clone()));
        }
        // refused before anything is touched: a full disk found in the middle would poison the store
        let needed = RESERVE
            + batch
                .puts
                .iter()
                .chain(&batch.contents)
                .map(|(key, value)| 2 * (key.len() + value.len()) as u64)
                .sum::<u64>();
        let free = free(&self.folder)?;
        if free < needed {
            return Err(StoreError::Full { free, needed });
        }
        self.write(batch).map_err(|error| {
            *poisoned = Some(error.to_string());
            StoreError::Poisoned(error.to_string())
        })
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
        for key in &batch.deletes {
            rows.remove(key.as_slice());
        }
        for (key, value) in &batch.puts {
            let mut row = Vec::with_capacity(1 + value.len().min(MAX_INLINE));
            if value.len() > MAX_INLINE {
                row.push(OBJECT);
                row.extend_from_slice(names.next().as_ref().map_or(&[][..], |name| name.as_bytes()));
            } else {
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
        self.db.apply_batch(rows).map_err(io::Error::other)?;
        self.db.flush().map_err(io::Error::other)?;
        self.log.sync_data()
    }

    fn resolve(&self, key: &[u8], row: &[u8]) -> Result<Vec<u8>, StoreError> {
        match row.split_first() {
            Some((&INLINE, value)) => Ok(value.to_vec()),
            Some((&OBJECT, name)) => {
                let name = <[u8; 32]>::try_from(name).map_err(|_| damaged(key, "not the name of an object"))?;
                self.objects.read(&Sha256(name)).map_err(|error| damaged(key, &error.to_string()))
            }
            Some((&CONTENT, place)) => {
                let place = Place::from_bytes(place).ok_or_else(|| damaged(key, "not a place in a pack"))?;
                self.contents().read(place).map_err(|error| damaged(key, &error.to_string()))
            }
            _ => Err(damaged(key, "neither a value nor a reference")),
        }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes objects that no row names: left by a crash between their sync and the batch, or by rows since replaced.
    fn sweep(&self) -> Result<(), StoreError> {
        if self.objects.is_empty()? {
            return Ok(());
        }
        let mut named = HashSet::new();
        for row in self.db.iter() {
            let (_, value) = row.map_err(|error| StoreError::Failed(error.to_string()))?;
            if let Some((&OBJECT, name)) = value.split_first()
                && let Ok(name) = <[u8; 32]>::try_from(name)
            {
                named.insert(Sha256(name));
            }
        }
        let swept = self.objects.sweep(&named)?;
        if swept > 0 {
            tracing::info!(swept, "removed objects that no row names");
        }
        Ok(())
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
