//! A disk whose power can be cut: an ext4 file system in an image file, on an xfs that can copy the image in an instant.
//!
//! `cp --reflink` of the image while the writer runs is exactly what the disk held at that moment, without the page cache of
//! the file system inside. The xfs is an image too, so that nothing of the machine's is touched.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, ensure};

/// Says why not.
pub fn possible() -> Result<(), String> {
    if run("id", &["-u"]).map_err(|error| error.to_string())?.trim() != "0" {
        return Err("mounting needs root".into());
    }
    for tool in ["mkfs.xfs", "mkfs.ext4", "losetup"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
        if !found.is_ok_and(|output| output.status.success()) {
            return Err(format!("{tool} is missing (Debian: xfsprogs, e2fsprogs, mount)"));
        }
    }
    Disk::new(320 << 20, 64 << 20).map(|_| ()).map_err(|error| format!("loop devices can't be mounted here: {error:#}"))
}

pub struct Disk {
    // unmounted from the last to the first
    mounts: Vec<PathBuf>,
    folder: tempfile::TempDir,
    inside: PathBuf,
    cuts: AtomicU32,
}

impl Disk {
    /// An xfs of `outer` bytes with an ext4 of `inner` bytes in it, which takes room only as it is written.
    pub fn new(outer: u64, inner: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (image, outside, inside) =
            (folder.path().join("outer.img"), folder.path().join("outer"), folder.path().join("inner"));
        std::fs::create_dir(&outside)?;
        std::fs::create_dir(&inside)?;
        // the smallest xfs has 300 MB
        std::fs::File::create(&image)?.set_len(outer.max(320 << 20))?;
        run("mkfs.xfs", &["-q", "-m", "reflink=1", path(&image)?])?;
        let mut disk = Self { mounts: Vec::new(), folder, inside, cuts: AtomicU32::new(0) };
        run("mount", &["-o", "loop", path(&image)?, path(&outside)?])?;
        disk.mounts.push(outside.clone());
        let image = outside.join("inner.img");
        std::fs::File::create(&image)?.set_len(inner)?;
        run("mkfs.ext4", &["-q", "-F", path(&image)?])?;
        run("mount", &["-o", "loop", path(&image)?, path(&disk.inside)?])?;
        disk.mounts.push(disk.inside.clone());
        Ok(disk)
    }

    /// Where the writer writes.
    pub fn mounted(&self) -> &Path {
        &self.inside
    }

    fn outside(&self) -> PathBuf {
        self.folder.path().join("outer")
    }

    /// What the disk holds at this moment, mounted as after a restart of the machine.
    pub fn cut(&self) -> anyhow::Result<Cut> {
        let number = self.cuts.fetch_add(1, Ordering::Relaxed);
        let copy = self.outside().join(format!("cut-{number}.img"));
        run("cp", &["--reflink=always", path(&self.outside().join("inner.img"))?, path(&copy)?])?;
        let at = self.folder.path().join(format!("cut-{number}"));
        std::fs::create_dir(&at)?;
        run("mount", &["-o", "loop", path(&copy)?, path(&at)?])?;
        Ok(Cut { at, copy })
    }

    /// Takes the room of the file system inside at once, but for 20 MB: less than the store wants to see.
    pub fn fill(&self) -> anyhow::Result<()> {
        let free = run("df", &["--output=avail", "-B1", path(&self.inside)?])?;
        let free: u64 = free.lines().last().unwrap_or_default().trim().parse()?;
        let size = free.saturating_sub(20 << 20).to_string();
        run("fallocate", &["-l", &size, path(&self.inside.join("filling"))?]).map(|_| ())
    }

    pub fn free(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.inside.join("filling"))?)
    }

    /// As a failing disk brings about (`errors=remount-ro`): an ordinary remount is refused while a file is open for
    /// writing.
    pub fn become_read_only(&self) -> anyhow::Result<()> {
        run("mount", &["-o", "remount,abort", path(&self.inside)?]).map(|_| ())
    }

    /// Mounted anew, as after a restart of the machine.
    pub fn remounted(self) -> anyhow::Result<Self> {
        let image = self.outside().join("inner.img");
        // not lazily: the old file system has to be gone before the image is mounted again
        run("umount", &[path(&self.inside)?])?;
        run("mount", &["-o", "loop", path(&image)?, path(&self.inside)?])
            .context("the file system is beyond repair")?;
        Ok(self)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for at in self.mounts.iter().rev() {
            let _ = path(at).and_then(|at| run("umount", &["-l", at]));
        }
    }
}

/// A copy of the disk as it was.
pub struct Cut {
    at: PathBuf,
    copy: PathBuf,
}

impl Cut {
    pub fn mounted(&self) -> &Path {
        &self.at
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let _ = path(&self.at).and_then(|at| run("umount", &[at]));
        let _ = std::fs::remove_file(&self.copy);
        let _ = std::fs::remove_dir(&self.at);
    }
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

fn run(command: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(command).args(arguments).output().with_context(|| command.to_owned())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command} {}: {}", arguments.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
