//! From a path to a descriptor that is what it says.

use std::{
    fs::{self, File},
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat},
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

/// An open source. What it gives out is all of one snapshot, or an error.
#[derive(Debug)]
pub struct Opened {
    file: File,
    /// The folder that it lies in, and its name there.
    folder: OwnedFd,
    name: String,
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
    ///
    /// # Errors
    /// Each way out of the roots has its own: see [`SourceError`].
    pub fn open(&self, path: &str) -> Result<Opened, SourceError> {
        let components = components(path)?;
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
        let failed = |at: Option<(&OwnedFd, &str)>, errno: Errno| match errno {
            _ if at.is_some_and(|(folder, name)| is_link(folder, name)) => SourceError::Link(path.to_owned()),
            Errno::NOENT | Errno::NOTDIR => SourceError::NotFound { path: path.to_owned(), roots: String::new() },
            Errno::LOOP => SourceError::Link(path.to_owned()),
            Errno::NXIO => SourceError::NotAFile { path: path.to_owned(), what: "a socket or a device" },
            other => SourceError::File { path: path.to_owned(), error: other.into() },
        };
        let (name, folders) = components.split_last().ok_or_else(|| SourceError::Path(path.to_owned()))?;
        // the root itself is the operator's word, links and all
        let mut at: OwnedFd =
            File::open(root).map_err(|error| failed(None, Errno::from_io_error(&error).unwrap_or(Errno::IO)))?.into();
        self.outside_home(&at, path)?;
        for folder in folders {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            at = openat(&at, *folder, flags, Mode::empty()).map_err(|errno| failed(Some((&at, folder)), errno))?;
            let stat = fstat(&at).map_err(|errno| failed(None, errno))?;
            if place(&stat) == self.home {
                return Err(SourceError::Home(path.to_owned()));
            }
        }
        let file = open_file(&at, name).map_err(|errno| failed(Some((&at, name)), errno))?;
        let meta = file.metadata().map_err(|error| SourceError::File { path: path.to_owned(), error })?;
        if !meta.is_file() {
            return Err(SourceError::NotAFile { path: path.to_owned(), what: what(&meta) });
        }
        Ok(Opened {
            snapshot: snapshot(path, &meta),
            length: meta.len(),
            full: components.iter().fold(root.to_owned(), |full, component| full.join(component)),
            path: path.to_owned(),
            name: (*name).to_owned(),
            folder: at,
            file,
        })
    }

    /// Whether the home is neither this root nor one of the folders above it.
    fn outside_home(&self, root: &OwnedFd, path: &str) -> Result<(), SourceError> {
        let failed = |errno: Errno| SourceError::File { path: path.to_owned(), error: errno.into() };
        let mut here = place(&fstat(root).map_err(failed)?);
        let mut up = PathBuf::new();
        loop {
            if here == self.home {
                return Err(SourceError::Home(path.to_owned()));
            }
            // `..` of an open folder is its real parent, whatever links led to it
            up.push("..");
            let above = place(&statat(root, &up, AtFlags::empty()).map_err(failed)?);
            if above == here {
                return Ok(()); // the top is its own parent
            }
            here = above;
        }
    }
}

/// The names on the way; only plain ones.
fn components(path: &str) -> Result<Vec<&str>, SourceError> {
    let shown = || path.chars().take(200).collect::<String>();
    if Path::new(path).is_absolute() {
        return Err(SourceError::Absolute(shown()));
    }
    let mut names = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().ok_or_else(|| SourceError::Path(shown()))?),
            Component::CurDir => {}
            Component::ParentDir => return Err(SourceError::Parent(shown())),
            Component::RootDir | Component::Prefix(_) => return Err(SourceError::Absolute(shown())),
        }
    }
    if names.is_empty() || path.contains('\0') { Err(SourceError::Path(shown())) } else { Ok(names) }
}

fn open_file(folder: &OwnedFd, name: &str) -> Result<File, Errno> {
    // NONBLOCK: opening a FIFO must not wait for a writer
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(folder, name, flags, Mode::empty()).map(File::from)
}

fn is_link(folder: &OwnedFd, name: &str) -> bool {
    statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// Device and inode.
// other widths, or signed, on some platforms
#[allow(clippy::unnecessary_cast)]
const fn place(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

fn what(meta: &fs::Metadata) -> &'static str {
    let kind = meta.file_type();
    match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "something else",
    }
}

impl Opened {
    /// A descriptor of its own, at the start: readers don't move each other.
    ///
    /// # Errors
    /// [`SourceError::Changed`] where the name no longer leads to this snapshot.
    pub fn file(&self) -> Result<File, SourceError> {
        let file = open_file(&self.folder, &self.name).map_err(|_| self.changed())?;
        let meta = file.metadata().map_err(|error| SourceError::File { path: self.path.clone(), error })?;
        if snapshot(&self.path, &meta) == self.snapshot { Ok(file) } else { Err(self.changed()) }
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
        let there = fs::symlink_metadata(&self.full).map_err(|_| self.changed())?;
        let same = snapshot(&self.path, &here) == self.snapshot && snapshot(&self.path, &there) == self.snapshot;
        if same { Ok(()) } else { Err(self.changed()) }
    }

    fn changed(&self) -> SourceError {
        SourceError::Changed(self.path.clone())
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
    use std::{
        io::{Read as _, Seek as _, SeekFrom},
        os::unix::{fs::symlink, net::UnixListener},
    };

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
        symlink("nowhere", at("data/dangling.csv")).unwrap();
        symlink(folder.path(), at("data/up")).unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, at("data/fifo"), FileType::Fifo, mode, 0).unwrap();
        let roots = Roots::new(vec![at("data"), folder.path().to_owned()], &at("home")).unwrap();
        (folder, roots)
    }

    #[test]
    fn a_file_below_a_root_is_opened() {
        let (_folder, roots) = house();
        assert_eq!(roots.open("deep/a.csv").unwrap().len(), 4);
        assert_eq!(roots.open("./deep/a.csv").unwrap().len(), 4);
        assert_eq!(roots.open("secret.csv").unwrap().len(), 4, "below the second root");
    }

    #[test]
    fn each_way_out_is_refused_with_its_own_message() {
        let (folder, roots) = house();
        let _socket = UnixListener::bind(folder.path().join("data/socket")).unwrap();
        for (path, words) in [
            ("../secret.csv", "goes up by `..`"),
            ("deep/../../secret.csv", "goes up by `..`"),
            ("deep/../deep/a.csv", "goes up by `..`"),
            ("/etc/passwd", "an absolute path"),
            ("", "not a path below a root"),
            (".", "not a path below a root"),
            ("a\0b", "not a path below a root"),
            ("link.csv", "symbolic link"),
            ("dangling.csv", "symbolic link"),
            ("up/secret.csv", "symbolic link"),
            ("data/up/secret.csv", "symbolic link"),
            ("fifo", "is a FIFO"),
            ("deep", "is a folder"),
            ("socket", "is a socket"),
            ("home/keys/signing.key", "the connector's own home"),
            ("absent.csv", "below none of the roots"),
            ("deep/a.csv/b.csv", "below none of the roots"),
        ] {
            let error = roots.open(path).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(path), "{path}: {error}");
        }
    }

    #[test]
    fn a_root_in_the_home_gives_nothing_out() {
        let (folder, _) = house();
        let home = folder.path().join("home");
        symlink(home.join("keys"), folder.path().join("looks-harmless")).unwrap();
        for root in [home.clone(), home.join("keys"), folder.path().join("looks-harmless")] {
            let name = if root == home { "keys/signing.key" } else { "signing.key" };
            let error = Roots::new(vec![root], &home).unwrap().open(name).unwrap_err();
            assert!(matches!(error, SourceError::Home(_)), "{error}");
        }
        let beside = Roots::new(vec![folder.path().join("data/deep")], &home).unwrap();
        assert!(beside.open("a.csv").is_ok());
    }

    #[test]
    fn a_root_that_is_no_folder_is_named() {
        let (folder, _) = house();
        let error = Roots::new(vec![folder.path().join("secret.csv")], folder.path()).unwrap_err().to_string();
        assert!(error.contains("secret.csv") && error.contains("not a folder"), "{error}");
        let later = Roots::new(vec![folder.path().join("later")], &folder.path().join("home")).unwrap();
        assert!(matches!(later.open("a.csv"), Err(SourceError::NotFound { .. })));
        fs::create_dir(folder.path().join("later")).unwrap();
        fs::write(folder.path().join("later/a.csv"), "x\n").unwrap();
        assert!(later.open("a.csv").is_ok(), "a root may come later");
    }

    #[test]
    fn two_readers_do_not_move_each_other() {
        let (_folder, roots) = house();
        let opened = roots.open("deep/a.csv").unwrap();
        let (mut one, mut other) = (opened.file().unwrap(), opened.file().unwrap());
        one.seek(SeekFrom::End(0)).unwrap();
        let mut text = String::new();
        other.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x\n1\n");
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
        assert!(matches!(opened.unchanged(), Err(SourceError::Changed(_))), "replaced by an equal one");
        assert!(matches!(opened.file(), Err(SourceError::Changed(_))));

        let opened = roots.open("deep/a.csv").unwrap();
        fs::write(&path, "x\n234\n").unwrap();
        assert!(matches!(opened.unchanged(), Err(SourceError::Changed(_))), "written");
        assert_ne!(roots.open("deep/a.csv").unwrap().snapshot(), opened.snapshot());

        let opened = roots.open("deep/a.csv").unwrap();
        fs::remove_file(&path).unwrap();
        assert!(matches!(opened.unchanged(), Err(SourceError::Changed(_))), "removed");
    }
}
