//! Values too large for a page: files `objects/<sha256>`, synced before the batch that names them.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::{crypto::sha256, id::Sha256};

/// The folder of large values.
pub struct Objects {
    folder: PathBuf,
}

impl Objects {
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
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

    /// Whether there is anything to sweep.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(fs::read_dir(&self.folder)?.next().is_none())
    }

    /// Removes files that no row names; says how many.
    pub fn sweep(&self, named: &HashSet<Sha256>) -> io::Result<usize> {
        let mut swept = 0;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let orphan = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<Sha256>().ok())
                .is_none_or(|name| !named.contains(&name));
            if orphan {
                fs::remove_file(entry.path())?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    fn path(&self, name: &Sha256) -> PathBuf {
        self.folder.join(name.to_string())
    }
}

/// Makes names in this folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
