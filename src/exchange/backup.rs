//! Backup: the store of a running connector in a folder, with a signed list of its files. No key is in it: not those of the
//! home, and not those of the vault, or a copy whose key was destroyed could come back.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    crypto::{
        Hasher, VerifyingKey, canonical_json,
        jws::{self, Jws, Kid, Typ},
        sha256,
    },
    error::Refusal,
    exchange::{Exchange, refuse},
    id::{Did, Sha256},
    receipt::PeerCheckpoint,
    time::Timestamp,
};

/// What is signed: the hash of the list.
const MANIFEST: &str = "backup.jws";
/// The list: SHA-256 by path.
const LIST: &str = "files.json";
/// Longest signed text, and longest list, that is read.
const MAX_MANIFEST: u64 = 64 << 10;
const MAX_LIST: u64 = 1 << 30;

/// What a backup says of itself: JWS payload, `typ` `counterseal-backup+jws`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backup {
    /// Format version: 1.
    pub v: u8,
    /// Whose it is.
    pub did: Did,
    /// When it was made.
    pub made: Timestamp,
    /// A checkpoint of the log that is in it, at least.
    pub log: PeerCheckpoint,
    /// SHA-256 of `files.json`, which has that of every other file by its path.
    pub files: Sha256,
}

impl Exchange {
    /// Writes a backup into this folder, which isn't there yet. What is committed meanwhile may be in it or not.
    ///
    /// # Errors
    /// `backup-folder` where there is something already or nothing can be written; the folder is removed after a failure.
    pub async fn back_up(&self, folder: PathBuf) -> Result<Backup, Refusal> {
        if !folder.is_absolute() {
            return Err(Refusal::new("backup-folder", format!("{}: name it by its whole path", folder.display())));
        }
        let failed = |error: io::Error| Refusal::new("backup-folder", format!("{}: {error}", folder.display()));
        let log = self.log.now().await.map_err(refuse("store-unreadable"))?;
        let root = self.log.root(log.size).await.map_err(refuse("store-unreadable"))?;
        let parent = folder.parent().and_then(|parent| parent.canonicalize().ok());
        let home = self.tokens.parent().and_then(|home| home.canonicalize().ok());
        if let (Some(parent), Some(home)) = (parent, home)
            && parent.starts_with(&home)
        {
            let sentence = format!("{} is in the home itself: what takes that takes the backup too", folder.display());
            return Err(Refusal::new("backup-folder", sentence));
        }
        if folder.exists() {
            let sentence = format!("{} is there already; name a new folder", folder.display());
            return Err(Refusal::new("backup-folder", sentence));
        }
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
        let made = self.clock.now();
        let done = async {
            self.store.backup(&folder).await.map_err(refuse("backup-failed"))?;
            let at = folder.clone();
            let files = tokio::task::spawn_blocking(move || hashes(&at)).await.map_err(refuse("internal"))?;
            let log = PeerCheckpoint { epoch: log.epoch, size: log.size, root };
            let list = canonical_json(&files.map_err(failed)?).map_err(refuse("internal"))?;
            write_synced(&folder.join(LIST), &list).map_err(failed)?;
            let backup = Backup { v: 1, did: self.us.clone(), made, log, files: sha256(&list) };
            let jws = jws::sign(Typ::Backup, &self.keys.signing_kid(), &self.keys.signing, &backup)
                .map_err(refuse("internal"))?;
            write_synced(&folder.join(MANIFEST), jws.as_str().as_bytes()).map_err(failed)?;
            for folder in [Some(folder.as_path()), folder.parent()].into_iter().flatten() {
                File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
            }
            Ok(backup)
        };
        let done = done.await;
        if done.is_err() {
            // half a backup is none
            let _ = fs::remove_dir_all(&folder);
        }
        done
    }
}

/// What a backup says of itself, if every file is as it was signed by this key.
pub fn read_backup(folder: &Path, kid: &Kid, key: &VerifyingKey) -> Result<Backup, Refusal> {
    if folder.join("manifest.jws").exists() {
        let sentence =
            format!("{} is an export and not a backup: `counterseal receipt verify` checks it", folder.display());
        return Err(Refusal::new("backup-broken", sentence));
    }
    let path = folder.join(MANIFEST);
    let broken = |path: &Path, why: String| Refusal::new("backup-broken", format!("{}: {why}", path.display()));
    let text = bounded(&path, MAX_MANIFEST).map_err(|error| broken(&path, error.to_string()))?;
    let text = String::from_utf8(text).map_err(|error| broken(&path, error.to_string()))?;
    let jws = Jws::parse(text).map_err(|error| broken(&path, error.to_string()))?;
    let backup = jws::verify::<Backup>(&jws, Typ::Backup, kid.did(), |named| (named == kid).then_some(*key))
        .map_err(|error| {
            broken(&path, format!("{error}; the keys in this home have to be those of the backup's time"))
        })?
        .into_payload();
    if backup.v != 1 || backup.did != *kid.did() {
        return Err(broken(&path, format!("it is a backup of `{}`, in version {}", backup.did, backup.v)));
    }
    let path = folder.join(LIST);
    let list = bounded(&path, MAX_LIST).map_err(|error| broken(&path, error.to_string()))?;
    if sha256(&list) != backup.files {
        return Err(broken(&path, "it was altered".into()));
    }
    let listed: BTreeMap<String, Sha256> =
        serde_json::from_slice(&list).map_err(|error| broken(&path, error.to_string()))?;
    let there = hashes(folder).map_err(|error| broken(folder, error.to_string()))?;
    for (name, hash) in &listed {
        match there.get(name) {
            None => return Err(broken(&folder.join(name), "it is missing".into())),
            Some(found) if found != hash => return Err(broken(&folder.join(name), "it was altered".into())),
            Some(_) => {}
        }
    }
    match there.keys().find(|name| !listed.contains_key(*name)) {
        Some(name) => Err(broken(&folder.join(name), "it is not in the list of the backup's files".into())),
        None => Ok(backup),
    }
}

/// All files but the list and its signature; links and the like are errors.
fn hashes(folder: &Path) -> io::Result<BTreeMap<String, Sha256>> {
    fn walk(root: &Path, at: &Path, found: &mut BTreeMap<String, Sha256>) -> io::Result<()> {
        for entry in fs::read_dir(at)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = path.strip_prefix(root).ok().and_then(Path::to_str).map(str::to_owned);
            let name = name.ok_or_else(|| io::Error::other("a name that is not UTF-8"))?;
            if kind.is_dir() {
                walk(root, &path, found)?;
            } else if !kind.is_file() {
                return Err(io::Error::other(format!("{name} is no regular file")));
            } else if name != MANIFEST && name != LIST {
                let mut hasher = Hasher::new();
                let (mut file, mut block) = (File::open(&path)?, vec![0; 1 << 18]);
                loop {
                    match file.read(&mut block)? {
                        0 => break,
                        read => hasher.update(&block[..read]),
                    }
                }
                found.insert(name, hasher.finish());
            }
        }
        Ok(())
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found)?;
    Ok(found)
}

fn bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
