//! Nothing acknowledged is ever lost: the store and its log, killed, cut off from power and from room, again and again.
//!
//! ```text
//!   cargo run --release --example torture -- kill --rounds 200
//!   cargo run --release --example torture -- power --rounds 100    root, loop devices, xfsprogs
//!   cargo run --release --example torture -- faults                root, loop devices, xfsprogs
//! ```
//!
//! A writer process commits with 64 tasks (a state row, a signed receipt, erasable content; values of 1, 8, 64 and 200 KB
//! among them) and says of each commit that it was acknowledged. Whatever then happens to it, afterwards the store opens,
//! the log verifies from the first receipt to the last, every acknowledged receipt is there, and there is no state without
//! its receipt. Linux only: it kills and mounts.

mod check;
mod disk;
mod writer;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, Subcommand};

use self::{disk::Disk, writer::Writer};

#[derive(Parser)]
struct Torture {
    #[command(subcommand)]
    how: How,
}

#[derive(Subcommand)]
enum How {
    /// `kill -9` at random moments.
    Kill {
        #[arg(long, default_value_t = 200)]
        rounds: u32,
    },
    /// Power cuts: what the disk held at a moment, without the page cache, mounted and opened.
    Power {
        #[arg(long, default_value_t = 100)]
        rounds: u32,
        /// Say so and go on where it can't be run.
        #[arg(long)]
        if_possible: bool,
    },
    /// A full disk, a disk that fails to write and to sync, a disk that becomes read-only.
    Faults {
        /// Say so and go on where it can't be run.
        #[arg(long)]
        if_possible: bool,
    },
    /// The process that is tortured.
    #[command(hide = true)]
    Write {
        folder: PathBuf,
        /// Pause between a task's commits, in milliseconds.
        pause: u64,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let (what, done) = match Torture::parse().how {
        How::Write { folder, pause } => {
            writer::write(&folder, Duration::from_millis(pause)).await?;
            return Ok(ExitCode::SUCCESS);
        }
        How::Kill { rounds } => ("kill", kill(rounds).await),
        How::Power { rounds, if_possible } => match possible(if_possible)? {
            true => ("power", power(rounds).await),
            false => return Ok(ExitCode::SUCCESS),
        },
        How::Faults { if_possible } => match possible(if_possible)? {
            true => ("faults", faults().await),
            false => return Ok(ExitCode::SUCCESS),
        },
    };
    match done {
        Ok(line) => {
            println!("{what}: {line}");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            println!("{what}: LOST OR BROKEN: {error:#}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn possible(optional: bool) -> anyhow::Result<bool> {
    match disk::possible() {
        Ok(()) => Ok(true),
        Err(why) if optional => {
            println!("not run here: {why}");
            Ok(false)
        }
        Err(why) => bail!("{why}"),
    }
}

/// Another moment each time, the same ones in each run.
struct Moments(u64);

impl Moments {
    fn between(&mut self, low: u64, high: u64) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis(low + (self.0 >> 33) % (high - low))
    }
}

async fn kill(rounds: u32) -> anyhow::Result<String> {
    let mut moments = Moments(1);
    let (mut acknowledged, mut receipts) = (0, 0);
    let mut folder = tempfile::tempdir()?;
    let mut known = Vec::new();
    for round in 0..rounds {
        if round % 20 == 0 {
            (folder, known) = (tempfile::tempdir()?, Vec::new());
        }
        let mut writer = Writer::start(folder.path(), 15)?;
        // now and then before the store is even open
        tokio::time::sleep(moments.between(5, 500)).await;
        writer.kill()?;
        let acks = writer.acknowledged();
        acknowledged += acks.len();
        known.extend(acks);
        let found = check::check(folder.path(), &known).await.with_context(|| format!("round {round}"))?;
        receipts = receipts.max(found);
    }
    ensure!(
        acknowledged > rounds as usize,
        "only {acknowledged} acknowledgements in {rounds} rounds: nothing was tested"
    );
    Ok(format!(
        "{rounds} times killed, {acknowledged} acknowledged commits all there, up to {receipts} receipts verified at once"
    ))
}

async fn power(rounds: u32) -> anyhow::Result<String> {
    let disk = Disk::new(1500 << 20, 1000 << 20)?;
    let mut moments = Moments(2);
    let (mut acknowledged, mut cuts, mut part) = (0, 0, 0);
    while cuts < rounds {
        let folder = disk.mounted().join(format!("store-{part}"));
        part += 1;
        let writer = Writer::start(&folder, 25)?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        for _ in 0..10.min(rounds - cuts) {
            tokio::time::sleep(moments.between(5, 300)).await;
            // these were acknowledged before the power went; later ones may be there or not
            let acks = writer.acknowledged();
            acknowledged += acks.len();
            let cut = disk.cut()?;
            let name = folder.file_name().context("a name")?;
            let found = cut.mounted().join(name);
            check::check(&found, &acks).await.with_context(|| format!("power cut {cuts}"))?;
            let blobs = found.join("sled/blobs");
            let empty = !blobs.exists() || std::fs::read_dir(&blobs)?.next().is_none();
            ensure!(empty, "sled wrote blobs, which it never syncs");
            cuts += 1;
        }
        drop(writer);
        std::fs::remove_dir_all(&folder)?;
    }
    ensure!(acknowledged > rounds as usize, "only {acknowledged} acknowledgements: nothing was tested");
    Ok(format!("{cuts} power cuts, every acknowledged commit was on the disk each time ({acknowledged} looked for)"))
}

async fn faults() -> anyhow::Result<String> {
    let mut lines = Vec::new();

    // the file system is full: refused, and with room again it goes on without a restart
    let disk = Disk::new(400 << 20, 200 << 20)?;
    let mut writer = Writer::start(&disk.mounted().join("full"), 1)?;
    writer.wait_for(200).await?;
    disk.fill()?;
    writer.wait_for_refusal("Full").await?;
    disk.free()?;
    let before = writer.acknowledged().len();
    writer.wait_for(before + 200).await?;
    writer.kill()?;
    check::check(&disk.mounted().join("full"), &writer.acknowledged()).await.context("after a full disk")?;
    lines.push("full: refused, then went on");
    drop(disk);

    // the device has no room behind the file system: writes and syncs fail with an I/O error
    let disk = Disk::new(200 << 20, 700 << 20)?;
    let mut writer = Writer::start(&disk.mounted().join("failing"), 1)?;
    writer.wait_for(200).await?;
    disk.starve()?;
    writer.wait_for_refusal("Poisoned").await?;
    // room again changes nothing: a sync that failed is not tried again as if it had worked
    disk.feed()?;
    let at = writer.acknowledged().len();
    tokio::time::sleep(Duration::from_millis(700)).await;
    ensure!(writer.acknowledged().len() == at, "something was acknowledged after a failed sync");
    writer.kill()?;
    let acks = writer.acknowledged();
    let again = disk.remounted()?;
    check::check(&again.mounted().join("failing"), &acks).await.context("after failed writes and syncs")?;
    lines.push("failing writes and syncs: poisoned until the restart");
    drop(again);

    // the file system becomes read-only under the writer
    let disk = Disk::new(400 << 20, 200 << 20)?;
    let mut writer = Writer::start(&disk.mounted().join("read-only"), 1)?;
    writer.wait_for(200).await?;
    disk.become_read_only()?;
    writer.wait_for_refusal("Poisoned").await?;
    let at = writer.acknowledged().len();
    tokio::time::sleep(Duration::from_millis(700)).await;
    ensure!(writer.acknowledged().len() == at, "something was acknowledged after a failed write");
    writer.kill()?;
    let acks = writer.acknowledged();
    let again = disk.remounted()?;
    check::check(&again.mounted().join("read-only"), &acks).await.context("after a read-only remount")?;
    drop(again);
    lines.push("read-only: poisoned until the restart");

    // the last write is torn: the tail of sled's log, and of a content pack, as a cut in the middle leaves them
    let folder = tempfile::tempdir()?;
    let mut writer = Writer::start(folder.path(), 1)?;
    writer.wait_for(500).await?;
    writer.kill()?;
    let acks = writer.acknowledged();
    for torn in [1_u64, 100, 5000, 70_000] {
        let copy = tempfile::tempdir()?;
        copy_folder(folder.path(), copy.path())?;
        tear(copy.path(), torn)?;
        check::check(copy.path(), &acks).await.with_context(|| format!("after a torn write of {torn} bytes"))?;
    }
    lines.push("torn writes: left out, nothing acknowledged with them");
    Ok(lines.join("; "))
}

/// Garbage where a write had begun and was not acknowledged: after the end of the content pack, and a half-written object.
fn tear(folder: &Path, bytes: u64) -> anyhow::Result<()> {
    use std::io::Write as _;
    let garbage = vec![0xa5; usize::try_from(bytes)?];
    for entry in std::fs::read_dir(folder.join("content"))? {
        std::fs::OpenOptions::new().append(true).open(entry?.path())?.write_all(&garbage)?;
    }
    std::fs::write(folder.join("objects").join(format!("{}.new", "0".repeat(64))), &garbage)?;
    let log = folder.join("sled/db");
    let length = std::fs::metadata(&log)?.len();
    let mut file = std::fs::OpenOptions::new().append(true).open(&log)?;
    // sled's log is whole segments; what follows the last is the beginning of a write that never ended
    file.write_all(&garbage)?;
    ensure!(std::fs::metadata(&log)?.len() == length + bytes, "the tail is there");
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
