//! A backup of a running store: a folder that holds all of it as it was at one moment, and the way back.
//!
//! ```text
//!   rows.table      what sled held, as a table of frozen rows
//!   archive/…       the frozen tables
//!   content/…       the packs, as long as they were then
//!   objects/…       large values
//! ```
//!
//! Commits wait while sled's rows are written out (the working set: most rows are in the archive); the other files never
//! change again, or only grow, and are copied after that. Erasure waits until the backup is done: no half-erased content
//! gets into one.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use super::{Inner, RESERVE, SledStore, lock};
use crate::store::{
    StoreError,
    frozen::{Cursor, Table},
    objects::sync_folder,
};

/// The folders of a backup, as of a store.
const FOLDERS: [&str; 3] = ["archive", "content", "objects"];
/// What sled held.
const ROWS: &str = "rows.table";
/// Rows written at a time on the way back.
const ROUND: usize = 4096;

impl SledStore {
    /// Makes the store in this folder, which isn't there yet, from a backup.
    ///
    /// # Errors
    /// [`StoreError::Failed`] for what the file system says; what was written is to be removed then.
    pub fn restore(backup: &Path, folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir(folder)?;
        for name in FOLDERS {
            fs::create_dir(folder.join(name))?;
            for entry in fs::read_dir(backup.join(name))? {
                let entry = entry?;
                let to = folder.join(name).join(entry.file_name());
                fs::copy(entry.path(), &to)?;
                File::open(&to)?.sync_all()?;
            }
            sync_folder(&folder.join(name))?;
        }
        let lock = lock(folder)?;
        let db = Self::open_sled(folder)?;
        rows(backup, |batch| db.apply_batch(batch).map_err(io::Error::other))?;
        Self::over(folder, lock, db)
    }
}

impl Inner {
    /// All of it as it is between two commits, into an empty folder.
    pub(super) fn backup(&self, folder: &Path) -> Result<(), StoreError> {
        for name in FOLDERS {
            make_folder(&folder.join(name))?;
        }
        let _whole = self.erasing.lock().unwrap_or_else(PoisonError::into_inner);
        // objects stay until they are copied, or it failed
        let (parts, _held) = {
            let poisoned = self.poisoned.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(why) = &*poisoned {
                return Err(StoreError::Poisoned(why.clone()));
            }
            self.room_for(RESERVE)?;
            let rows = self.db.iter().map(|row| match row {
                Ok((key, value)) => Ok((key.to_vec(), value.to_vec())),
                Err(error) => Err(io::Error::other(error)),
            });
            Table::write(&folder.join(ROWS), rows)?;
            fs::set_permissions(folder.join(ROWS), fs::Permissions::from_mode(0o600))?;
            let mut parts = Vec::new();
            let listed = self.listed()?;
            for (path, table) in self.tables.files(&listed).iter().zip(self.tables.now().iter()) {
                // a merge may remove the file; it stays as long as somebody has it open
                let file = table.file().try_clone()?;
                let length = file.metadata()?.len();
                parts.push(Part { to: named("archive", path), from: From::Open(file), length });
            }
            for (path, length) in self.contents().packs()? {
                parts.push(Part { to: named("content", &path), from: From::Path(path), length });
            }
            let held = self.objects.hold();
            for name in &held.names {
                let path = self.objects.path(name);
                let length = fs::metadata(&path)?.len();
                parts.push(Part { to: named("objects", &path), from: From::Path(path), length });
            }
            (parts, held)
        };
        Ok(copy(folder, parts)?)
    }
}

/// A file to be copied, and how much of it counts.
struct Part {
    /// Where it goes, below the backup.
    to: PathBuf,
    from: From,
    length: u64,
}

enum From {
    /// A file that may be removed meanwhile.
    Open(File),
    /// One that stays: opened when its turn comes, since there may be many.
    Path(PathBuf),
}

fn named(folder: &str, path: &Path) -> PathBuf {
    Path::new(folder).join(path.file_name().unwrap_or_default())
}

/// Makes a folder of the backup; only the owner may look into it.
fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// Copies the parts into the backup, each synced, then the folders.
fn copy(folder: &Path, parts: Vec<Part>) -> io::Result<()> {
    for part in parts {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(&part.to))?;
        let mut from = match part.from {
            From::Open(file) => file,
            From::Path(path) => File::open(path)?,
        };
        // whoever had it before us shares its position
        from.rewind()?;
        let copied = io::copy(&mut from.take(part.length), &mut file)?;
        if copied != part.length {
            let problem = format!("{} became shorter while it was copied", part.to.display());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
        }
        file.sync_all()?;
    }
    for name in FOLDERS {
        sync_folder(&folder.join(name))?;
    }
    sync_folder(folder)
}

/// Gives the rows of a backup to `write`, some at a time.
fn rows(folder: &Path, mut write: impl FnMut(::sled::Batch) -> io::Result<()>) -> io::Result<()> {
    let mut cursor = Cursor::new(Arc::new(Table::open(&folder.join(ROWS))?), b"", b"");
    let mut batch = ::sled::Batch::default();
    let mut count = 0;
    while let Some((key, value)) = cursor.next()? {
        batch.insert(key, value);
        count += 1;
        if count % ROUND == 0 {
            write(std::mem::take(&mut batch))?;
        }
    }
    write(batch)
}
