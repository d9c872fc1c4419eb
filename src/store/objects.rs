//! Values too large for a page: files `objects/<sha256>`, synced before the batch that names them.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{crypto::sha256, id::Sha256};

/// The folder of large values.
pub struct Objects {
    folder: PathBuf,
    names: Mutex<Names>,
}

/// Which objects rows name, and how many rows do.
#[derive(Default)]
struct Names {
    counts: HashMap<Sha256, u32>,
    /// Whether a backup copies objects; those that no row names any more are then removed after it.
    held: bool,
    later: Vec<Sha256>,
}

impl Objects {
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, names: Mutex::default() })
    }

    /// Writes these values; each file is synced, the folder once.
    pub fn write<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) -> io::Result<Vec<Sha256>> {
        let mut names = Vec::new();
        for value in values {
            let name = sha256(value);
            let path = self.path(&name);
            if fs::metadata(&path).is_ok_and(|meta| meta.len() == value.len() as u64) {
                // written and synced before, or by a commit that failed after: sync it again, it may be the latter
                File::open(&path)?.sync_all()?;
            } else {
                let fresh = self.folder.join(format!("{name}.new"));
                let mut file = File::create(&fresh)?;
                file.write_all(value)?;
                file.sync_all()?;
                fs::rename(&fresh, &path)?;
            }
            names.push(name);
        }
        if !names.is_empty() {
            sync_folder(&self.folder)?;
        }
        Ok(names)
    }

    /// The value of this name, checked against it.
    pub fn read(&self, name: &Sha256) -> io::Result<Vec<u8>> {
        let value = fs::read(self.path(name))?;
        if sha256(&value) == *name {
            Ok(value)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("objects/{name} does not have its own hash")))
        }
    }

    /// Rows were written that name these objects, in place of rows that named those: what no row names any more is removed.
    pub fn change(&self, named: impl IntoIterator<Item = Sha256>, replaced: impl IntoIterator<Item = Sha256>) {
        let mut names = self.names();
        for name in named {
            *names.counts.entry(name).or_default() += 1;
        }
        for name in replaced {
            if let Some(count) = names.counts.get_mut(&name) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    names.counts.remove(&name);
                    names.later.push(name);
                }
            }
        }
        self.remove(&mut names);
    }

    /// The names of all objects, of which none is removed as long as this is held.
    pub fn hold(&self) -> HeldObjects<'_> {
        let mut names = self.names();
        names.held = true;
        HeldObjects { names: names.counts.keys().copied().collect(), objects: self }
    }

    /// Whether there is nothing to sweep.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(fs::read_dir(&self.folder)?.next().is_none())
    }

    fn remove(&self, names: &mut Names) {
        if names.held {
            return;
        }
        for name in std::mem::take(&mut names.later) {
            // named again since
            if !names.counts.contains_key(&name)
                && let Err(error) = fs::remove_file(self.path(&name))
            {
                tracing::warn!(%error, %name, "an object that no row names could not be removed; the next start does it");
            }
        }
    }

    /// Removes files that no row names; says how many. Called at start, with how many rows name each.
    pub fn sweep(&self, named: HashMap<Sha256, u32>) -> io::Result<usize> {
        let mut swept = 0;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let orphan = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<Sha256>().ok())
                .is_none_or(|name| !named.contains_key(&name));
            if orphan {
                fs::remove_file(entry.path())?;
                swept += 1;
            }
        }
        self.names().counts = named;
        Ok(swept)
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn path(&self, name: &Sha256) -> PathBuf {
        self.folder.join(name.to_string())
    }
}

/// Objects that stay until they are copied.
pub struct HeldObjects<'a> {
    pub names: Vec<Sha256>,
    objects: &'a Objects,
}

impl Drop for HeldObjects<'_> {
    fn drop(&mut self) {
        let mut names = self.objects.names();
        names.held = false;
        self.objects.remove(&mut names);
    }
}

/// Makes names in this folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
