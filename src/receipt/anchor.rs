//! Anchors: somebody outside both parties puts a time to a checkpoint, in the manner of RFC 3161.
//!
//! Both parties together can rewrite all that they share; an anchor bounds how far back. [`Anchor`] is what a time-stamping
//! authority, a notary or a public log would be behind; [`FileAnchor`] keeps stamps in a folder that is out of the
//! connector's reach by other means: write-once storage, another administrator's machine.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{id::Sha256, time::Timestamp};

/// What is known of a digest at a time (RFC 3161 §2.4.2, `TSTInfo`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stamp {
    /// Under which rules it was given; such as `file`.
    pub policy: String,
    /// SHA-256 of the signed note: the message imprint.
    pub imprint: Sha256,
    /// The stamp's number, unique for whoever gives it.
    pub serial: u64,
    /// When it was given, by whoever gives it.
    pub gen_time: Timestamp,
}

/// Gives stamps.
#[async_trait]
pub trait Anchor: Send + Sync {
    /// Stamps a digest at `now`, for good: a stamp that was given can't be taken back.
    ///
    /// # Errors
    /// What the authority, or the file system, says; nothing was stamped then.
    async fn stamp(&self, imprint: &Sha256, now: Timestamp) -> io::Result<Stamp>;
}

/// Stamps in a folder, one file each, never written over.
#[derive(Clone, Debug)]
pub struct FileAnchor {
    folder: PathBuf,
}

impl FileAnchor {
    /// Over this folder, which is made if it isn't there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn write(&self, imprint: &Sha256, now: Timestamp) -> io::Result<Stamp> {
        let mut serial = std::fs::read_dir(&self.folder)?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.parse::<u64>().ok())
            .max()
            .map_or(1, |last| last + 1);
        loop {
            let path = self.folder.join(format!("{serial}.json"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(mut file) => {
                    let stamp = Stamp { policy: "file".into(), imprint: *imprint, serial, gen_time: now };
                    file.write_all(&serde_json::to_vec(&stamp)?)?;
                    file.sync_all()?;
                    return Ok(stamp);
                }
                // somebody else took this number
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => serial += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

#[async_trait]
impl Anchor for FileAnchor {
    async fn stamp(&self, imprint: &Sha256, now: Timestamp) -> io::Result<Stamp> {
        let (this, imprint) = (self.clone(), *imprint);
        tokio::task::spawn_blocking(move || this.write(&imprint, now)).await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::sha256;

    #[tokio::test]
    async fn stamps_are_numbered_and_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let anchor = FileAnchor::open(&folder.path().join("anchors")).unwrap();
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let first = anchor.stamp(&sha256(b"a"), at(1)).await.unwrap();
        let second =
            FileAnchor::open(&folder.path().join("anchors")).unwrap().stamp(&sha256(b"b"), at(2)).await.unwrap();
        assert_eq!((first.serial, second.serial), (1, 2));
        let kept = std::fs::read(folder.path().join("anchors/1.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Stamp>(&kept).unwrap(), first);
        let digest = sha256(b"c");
        let many = futures_util::future::join_all((0..20).map(|n| anchor.stamp(&digest, at(n)))).await;
        let serials: std::collections::BTreeSet<u64> = many.into_iter().map(|stamp| stamp.unwrap().serial).collect();
        assert_eq!(serials.len(), 20);
    }
}
