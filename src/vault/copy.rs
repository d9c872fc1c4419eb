//! The files of a copy.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    crypto::{
        Hasher, SealingKey, b64,
        ece::{self, Keying, Opener, Sealer},
    },
    id::CopyId,
    receipt::Segment,
};

const ONE_TIME: &str = "one-time.key";
const KEY: &str = "copy.key";
const BLOCK: usize = 1 << 18;

/// Why a copy can't be written or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The file system.
    #[error("{path}: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// A file that is not what it was: wrong length for a key, or an altered body.
    #[error("{path} is damaged: {problem}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The disk is too small for what is coming.
    #[error("the copy needs about {needed} bytes, and the disk below {path} has {free}; free some and fetch again")]
    NoRoom {
        /// The vault.
        path: PathBuf,
        /// Expected bytes.
        needed: u64,
        /// Available bytes.
        free: u64,
    },
    /// What should take the plaintext did not.
    #[error("the reader went away: {0}")]
    Reader(io::Error),
}

/// The consumer's copies on disk.
#[derive(Clone, Debug)]
pub struct Vault {
    folder: PathBuf,
}

impl Vault {
    /// The vault below this home; made if it isn't there (0700).
    pub fn open(home: &Path) -> Result<Self, VaultError> {
        let folder = home.join("vault");
        private_folder(&folder)?;
        Ok(Self { folder })
    }

    /// The folder of a copy.
    pub fn folder(&self, copy: &CopyId) -> PathBuf {
        // minted by us: `urn:uuid:` and a UUID
        self.folder.join(copy.as_str().rsplit(':').next().unwrap_or_default())
    }

    /// Makes the folder of a new copy.
    pub fn create(&self, copy: &CopyId) -> Result<PathBuf, VaultError> {
        let folder = self.folder(copy);
        private_folder(&folder)?;
        sync_folder(&self.folder)?;
        Ok(folder)
    }

    /// Refuses if the disk hasn't room for `needed` bytes and a reserve of 16 MiB.
    pub fn room_for(&self, needed: u64) -> Result<(), VaultError> {
        let stat = rustix::fs::statvfs(&self.folder)
            .map_err(|error| VaultError::File { path: self.folder.clone(), error: error.into() })?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < needed.saturating_add(16 << 20) {
            return Err(VaultError::NoRoom { path: self.folder.clone(), needed, free });
        }
        Ok(())
    }

    /// Keeps the one-time key of a release, synced before anything is acknowledged with it.
    pub fn keep_one_time(&self, copy: &CopyId, key: &SealingKey) -> Result<(), VaultError> {
        write_key(&self.folder(copy), ONE_TIME, key.bytes())
    }

    /// The one-time key, if it is (still) there.
    pub fn one_time(&self, copy: &CopyId) -> Result<Option<SealingKey>, VaultError> {
        Ok(read_key(&self.folder(copy).join(ONE_TIME))?.map(|bytes| SealingKey::from_bytes(*bytes)))
    }

    /// Keeps the keying material, then deletes the one-time key.
    pub fn keep_key(&self, copy: &CopyId, keying: &Keying) -> Result<(), VaultError> {
        let folder = self.folder(copy);
        write_key(&folder, KEY, keying.bytes())?;
        destroy_file(&folder.join(ONE_TIME))?;
        sync_folder(&folder)
    }

    /// The keying material of a copy that is held.
    pub fn keying(&self, copy: &CopyId) -> Result<Option<Keying>, VaultError> {
        Ok(read_key(&self.folder(copy).join(KEY))?.map(|bytes| Keying::from_bytes(*bytes)))
    }

    /// Seals a plaintext of our own into the folder of a new copy, synced; `seen` gets it as it passes by. Gives the body
    /// and the bytes of plaintext.
    pub fn seal(
        &self,
        copy: &CopyId,
        keying: &Keying,
        salt: [u8; 16],
        input: &mut dyn Read,
        seen: &mut dyn Write,
    ) -> Result<(Segment, u64), VaultError> {
        let path = self.folder(copy).join("0.ece");
        let file_error = |error| VaultError::File { path: path.clone(), error };
        let damaged = |error: ece::EceError| VaultError::Damaged { path: path.clone(), problem: error.to_string() };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(file_error)?;
        let mut sealer = Sealer::new(keying, salt, "");
        let mut hasher = Hasher::new();
        let (mut coded, mut plain) = (0, 0);
        let mut write = |bytes: &[u8]| {
            hasher.update(bytes);
            coded += bytes.len() as u64;
            file.write_all(bytes)
        };
        write(&sealer.header()).map_err(file_error)?;
        let mut next = record(input).map_err(VaultError::Reader)?;
        loop {
            let mut present = std::mem::take(&mut next);
            // only a full record can have another after it
            if present.len() == ece::RECORD_PLAIN {
                next = record(input).map_err(VaultError::Reader)?;
            }
            seen.write_all(&present).map_err(VaultError::Reader)?;
            plain += present.len() as u64;
            let last = next.is_empty();
            sealer.seal_record(&mut present, last).map_err(damaged)?;
            write(&present).map_err(file_error)?;
            if last {
                break;
            }
        }
        file.sync_all().map_err(file_error)?;
        sync_folder(&self.folder(copy))?;
        Ok((Segment { salt: b64(&salt), bytes: coded, sha256: hasher.finish() }, plain))
    }

    /// Opens the coded bodies in order into `out`; says how many bytes of plaintext they held.
    pub fn open_copy(
        &self,
        copy: &CopyId,
        keying: &Keying,
        segments: &[Segment],
        out: &mut dyn Write,
    ) -> Result<u64, VaultError> {
        let mut plain = Vec::with_capacity(BLOCK + ece::RECORD_PLAIN);
        let mut block = vec![0; BLOCK];
        let mut total = 0;
        for (index, _) in segments.iter().enumerate() {
            let path = self.folder(copy).join(format!("{index}.ece"));
            let file_error = |error| VaultError::File { path: path.clone(), error };
            let damaged = |error: ece::EceError| VaultError::Damaged { path: path.clone(), problem: error.to_string() };
            let mut file = File::open(&path).map_err(file_error)?;
            let mut opener = Opener::new(keying);
            loop {
                let read = file.read(&mut block).map_err(file_error)?;
                if read == 0 {
                    break;
                }
                opener.push(&block[..read], &mut plain).map_err(damaged)?;
                out.write_all(&plain).map_err(VaultError::Reader)?;
                total += plain.len() as u64;
                plain.clear();
            }
            if index + 1 == segments.len() {
                opener.finish_into(&mut plain).map_err(damaged)?;
                out.write_all(&plain).map_err(VaultError::Reader)?;
                total += plain.len() as u64;
                plain.clear();
            } else {
                // a kept prefix: whole records, none of them the final one
                opener.finish_prefix().map_err(damaged)?;
            }
        }
        out.flush().map_err(VaultError::Reader)?;
        Ok(total)
    }

    /// Destroys the keys of all copies but these.
    pub fn destroy_but(&self, known: &[CopyId]) -> Result<(), VaultError> {
        let file_error = |error| VaultError::File { path: self.folder.clone(), error };
        let known: Vec<PathBuf> = known.iter().map(|copy| self.folder(copy)).collect();
        for entry in fs::read_dir(&self.folder).map_err(file_error)? {
            let folder = entry.map_err(file_error)?.path();
            if folder.is_dir() && !known.contains(&folder) {
                destroy_in(&folder)?;
            }
        }
        Ok(())
    }

    /// Destroys the keys of a copy: overwritten, synced, removed. Without them the bodies are noise.
    pub fn destroy(&self, copy: &CopyId) -> Result<(), VaultError> {
        let folder = self.folder(copy);
        match folder.try_exists() {
            Ok(true) => destroy_in(&folder),
            Ok(false) => Ok(()),
            // whatever can't be looked at is not destroyed
            Err(error) => Err(VaultError::File { path: folder, error }),
        }
    }
}

/// As many bytes as make a record, fewer at the end.
fn record(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(ece::RECORD_PLAIN + 32);
    input.take(ece::RECORD_PLAIN as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Destroys all keys in the folder of a copy, also those that a crash left half in their place.
fn destroy_in(folder: &Path) -> Result<(), VaultError> {
    for name in [KEY, ONE_TIME] {
        destroy_file(&folder.join(name))?;
        destroy_file(&folder.join(fresh(name)))?;
    }
    sync_folder(folder)
}

/// Where a key is written before it is in its place.
fn fresh(name: &str) -> String {
    format!("{name}.new")
}

fn private_folder(folder: &Path) -> Result<(), VaultError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| VaultError::File { path: folder.to_owned(), error })
}

fn sync_folder(folder: &Path) -> Result<(), VaultError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| VaultError::File { path: folder.to_owned(), error })
}

/// Writes a key so that after a crash there is either all of it or none: a new file, synced, renamed.
fn write_key(folder: &Path, name: &str, key: &[u8; 32]) -> Result<(), VaultError> {
    let (path, fresh) = (folder.join(name), folder.join(fresh(name)));
    (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(key)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)
    })()
    .map_err(|error| VaultError::File { path: path.clone(), error })?;
    sync_folder(folder)
}

fn read_key(path: &Path) -> Result<Option<Zeroizing<[u8; 32]>>, VaultError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(VaultError::File { path: path.to_owned(), error }),
    };
    match <[u8; 32]>::try_from(bytes.as_slice()) {
        Ok(key) => Ok(Some(Zeroizing::new(key))),
        Err(_) => Err(VaultError::Damaged {
            path: path.to_owned(),
            problem: format!("a key has 32 bytes, this file has {}", bytes.len()),
        }),
    }
}

fn destroy_file(path: &Path) -> Result<(), VaultError> {
    let destroy = || {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.write_all(&[0; 32])?;
        file.sync_all()?;
        fs::remove_file(path)
    };
    match destroy() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(VaultError::File { path: path.to_owned(), error }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::{RandomExt as _, SystemRandom},
        time::Timestamp,
    };

    #[test]
    fn what_we_seal_opens_to_what_it_was_and_no_plaintext_lies_beside_it() {
        let home = tempfile::tempdir().unwrap();
        let vault = Vault::open(home.path()).unwrap();
        for size in [0, 1, ece::RECORD_PLAIN, ece::RECORD_PLAIN + 1, 3 * ece::RECORD_PLAIN] {
            let copy: CopyId = SystemRandom.urn(Timestamp::from_millis(0)).parse().unwrap();
            let keying = Keying::from_bytes(SystemRandom.array());
            let text = b"secret. ".iter().copied().cycle().take(size).collect::<Vec<u8>>();
            vault.create(&copy).unwrap();
            let (segment, plain) =
                vault.seal(&copy, &keying, SystemRandom.array(), &mut text.as_slice(), &mut io::sink()).unwrap();
            assert_eq!(plain, size as u64);
            let body = fs::read(vault.folder(&copy).join("0.ece")).unwrap();
            assert_eq!(segment.bytes, body.len() as u64);
            assert!(!body.windows(6).any(|window| window == b"secret"));
            let mut opened = Vec::new();
            assert_eq!(vault.open_copy(&copy, &keying, &[segment], &mut opened).unwrap(), size as u64);
            assert_eq!(opened, text);
        }
    }
}
