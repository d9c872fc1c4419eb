//! From a path to a descriptor that is what it says.

use std::{
    fs::{self, File},
    io::{Seek as _, SeekFrom},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
};
use serde_json::json;

use crate::{
    crypto::{canonical_json, sha256},
    id::SnapshotId,
    source::SourceError,
};

/// The folders below which datasets may lie.
#[derive(Clone, Debug)]
pub struct Roots {
    roots: Vec<PathBuf>,
    /// Device and inode of the home.
    home: (u64, u64),
}

/// An open source.
#[derive(Debug)]
pub struct Opened {
    file: File,
    path: String,
    full: PathBuf,
    length: u64,
    snapshot: SnapshotId,
}

impl Roots {
    /// Takes the roots that are there; one that isn't yet is looked for at each opening.
    pub fn new(roots: Vec<PathBuf>, home: &Path) -> Result<Self, SourceError> {
        let wrong = |path: &Path, problem: String| SourceError::Root { path: path.to_owned(), problem };
        let meta = fs::metadata(home).map_err(|error| wrong(home, error.to_string()))?;
        for root in &roots {
            if fs::metadata(root).is_ok_and(|meta| !meta.is_dir()) {
                return Err(wrong(root, "it is not a folder".into()));
            }
        }
        Ok(Self { roots, home: (meta.dev(), meta.ino()) })
    }

    /// Opens a file below the first root that has it.
    pub fn open(&self, path: &str) -> Result<Opened, SourceError> {
        let components: Vec<&str> = Path::new(path)
            .components()
            .map(|component| match component {
                Component::Normal(name) => name.to_str(),
                _ => None,
            })
            .collect::<Option<_>>()
            .filter(|components: &Vec<_>| !components.is_empty() && !path.contains('\0'))
            .ok_or_else(|| SourceError::Path(path.chars().take(200).collect()))?;
        for root in &self.roots {
            match self.open_below(root, &components, path) {
                Err(SourceError::NotFound { .. }) => {}
                found => return found,
            }
        }
        let roots = self.roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ");
        Err(SourceError::NotFound { path: path.to_owned(), roots })
    }

    fn open_below(&self, root: &Path, components: &[&str], path: &str) -> Result<Opened, SourceError> {
        let failed = |errno: Errno| match errno {
            Errno::NOENT | Errno::NOTDIR => SourceError::NotFound { path: path.to_owned(), roots: String::new() },
            Errno::LOOP | Errno::MLINK => SourceError::Link(path.to_owned()),
            other => SourceError::File { path: path.to_owned(), error: other.into() },
        };
        // the root itself is the operator's word, links and all
        let mut at: OwnedFd =
            File::open(root).map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?.into();
        let (name, folders) = components.split_last().ok_or_else(|| SourceError::Path(path.to_owned()))?;
        self.not_home(&at, path)?;
        for folder in folders {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            at = openat(&at, *folder, flags | OFlags::RDONLY, Mode::empty()).map_err(|errno| {
                if is_link(&at, folder) { SourceError::Link(path.to_owned()) } else { failed(errno) }
            })?;
            self.not_home(&at, path)?;
        }
        // NONBLOCK: opening a FIFO must not wait for a writer
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file: File = openat(&at, *name, flags, Mode::empty())
            .map_err(|errno| if is_link(&at, name) { SourceError::Link(path.to_owned()) } else { failed(errno) })?
            .into();
        let meta = file.metadata().map_err(|error| SourceError::File { path: path.to_owned(), error })?;
        if !meta.is_file() {
            return Err(SourceError::NotAFile(path.to_owned()));
        }
        Ok(Opened {
            snapshot: snapshot(path, &meta),
            length: meta.len(),
            full: components.iter().fold(root.to_owned(), |full, component| full.join(component)),
            path: path.to_owned(),
            file,
        })
    }

    fn not_home(&self, folder: &OwnedFd, path: &str) -> Result<(), SourceError> {
        let stat = rustix::fs::fstat(folder)
            .map_err(|errno| SourceError::File { path: path.to_owned(), error: errno.into() })?;
        // st_dev and st_ino are u64 on some platforms and other widths on others
        #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
        if (stat.st_dev as u64, stat.st_ino as u64) == self.home {
            return Err(SourceError::Home(path.to_owned()));
        }
        Ok(())
    }
}

fn is_link(at: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(at, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Symlink)
}

impl Opened {
    /// The descriptor once more, at the start.
    pub fn file(&self) -> Result<File, SourceError> {
        let failed = |error| SourceError::File { path: self.path.clone(), error };
        let mut file = self.file.try_clone().map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        Ok(file)
    }

    /// As it was asked for.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Bytes.
    pub const fn len(&self) -> u64 {
        self.length
    }

    /// Whether it has no bytes at all.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Its state when it was opened.
    pub const fn snapshot(&self) -> SnapshotId {
        self.snapshot
    }

    /// Whether the descriptor is still in that state, and the path still leads to it.
    pub fn unchanged(&self) -> Result<(), SourceError> {
        let failed = |error| SourceError::File { path: self.path.clone(), error };
        let here = self.file.metadata().map_err(failed)?;
        let there = fs::symlink_metadata(&self.full).map_err(|_| SourceError::Changed)?;
        let same = snapshot(&self.path, &here) == self.snapshot && snapshot(&self.path, &there) == self.snapshot;
        if same { Ok(()) } else { Err(SourceError::Changed) }
    }
}

/// SHA-256 of {source, length, device, inode, mtime, ctime}, in canonical JSON; numbers as text, since times in
/// nanoseconds pass 2^53.
fn snapshot(path: &str, meta: &fs::Metadata) -> SnapshotId {
    let nanos = |seconds: i64, nanos: i64| (i128::from(seconds) * 1_000_000_000 + i128::from(nanos)).to_string();
    let state = json!({
        "source": path,
        "length": meta.len().to_string(),
        "device": meta.dev().to_string(),
        "inode": meta.ino().to_string(),
        "mtime": nanos(meta.mtime(), meta.mtime_nsec()),
        "ctime": nanos(meta.ctime(), meta.ctime_nsec()),
    });
    SnapshotId(sha256(&canonical_json(&state).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn house() -> (tempfile::TempDir, Roots) {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("data/deep")).unwrap();
        fs::create_dir_all(at("home/keys")).unwrap();
        fs::write(at("data/deep/a.csv"), "x\n1\n").unwrap();
        fs::write(at("secret.csv"), "x\n1\n").unwrap();
        fs::write(at("home/keys/signing.key"), "k").unwrap();
        symlink(at("secret.csv"), at("data/link.csv")).unwrap();
        symlink(folder.path(), at("data/up")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("data/fifo"), rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .unwrap();
        let roots = Roots::new(vec![at("data"), folder.path().to_owned()], &at("home")).unwrap();
        (folder, roots)
    }

    #[test]
    fn a_file_below_a_root_is_opened_and_nothing_else() {
        let (_folder, roots) = house();
        assert_eq!(roots.open("deep/a.csv").unwrap().len(), 4);
        assert_eq!(roots.open("secret.csv").unwrap().len(), 4, "below the second root");
        for path in ["../secret.csv", "/etc/passwd", "deep/../../secret.csv", "", ".", "deep/../deep/a.csv"] {
            assert!(matches!(roots.open(path), Err(SourceError::Path(_))), "{path}");
        }
        for path in ["link.csv", "up/secret.csv", "data/link.csv"] {
            assert!(matches!(roots.open(path), Err(SourceError::Link(_))), "{path}");
        }
        assert!(matches!(roots.open("fifo"), Err(SourceError::NotAFile(_))));
        assert!(matches!(roots.open("deep"), Err(SourceError::NotAFile(_))));
        assert!(matches!(roots.open("home/keys/signing.key"), Err(SourceError::Home(_))));
        let error = roots.open("absent.csv").unwrap_err();
        assert!(matches!(error, SourceError::NotFound { .. }) && error.to_string().contains("absent.csv"));
    }

    #[test]
    fn a_source_that_was_written_or_replaced_is_another_snapshot() {
        let (folder, roots) = house();
        let path = folder.path().join("data/deep/a.csv");
        let opened = roots.open("deep/a.csv").unwrap();
        assert!(opened.unchanged().is_ok());
        assert_eq!(roots.open("deep/a.csv").unwrap().snapshot(), opened.snapshot());
        fs::write(folder.path().join("new.csv"), "x\n1\n").unwrap();
        fs::rename(folder.path().join("new.csv"), &path).unwrap();
        assert!(matches!(opened.unchanged(), Err(SourceError::Changed)), "replaced by an equal one");
        let opened = roots.open("deep/a.csv").unwrap();
        fs::write(&path, "x\n2\n").unwrap();
        assert!(opened.unchanged().is_err(), "written");
        assert_ne!(roots.open("deep/a.csv").unwrap().snapshot(), opened.snapshot());
    }
}
