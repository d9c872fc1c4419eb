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
    /// A full disk, writes that fail, a disk that becomes read-only while it is written to.
    Faults {
        /// Say so and go on where it can't be run.
        #[arg(long)]
        if_possible: bool,
    },
    /// The last write ends in the middle.
    Torn {
        #[arg(long, default_value_t = 20)]
        rounds: u32,
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
        How::Torn { rounds } => ("torn", torn(rounds).await),
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

    // writes fail: no file may grow past 6 MB
    let folder = tempfile::tempdir()?;
    let mut writer = Writer::start_limited(folder.path(), 1, 6 << 20)?;
    writer.wait_for(200).await?;
    writer.wait_for_refusal("Poisoned").await?;
    let at = writer.acknowledged().len();
    tokio::time::sleep(Duration::from_millis(700)).await;
    ensure!(writer.acknowledged().len() == at, "something was acknowledged after a failed write");
    writer.kill()?;
    check::check(folder.path(), &writer.acknowledged()).await.context("after failed writes")?;
    lines.push("failing writes: poisoned until the restart");

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

    Ok(lines.join("; "))
}

/// The last write is torn: what is on the disk of it ends in the middle, at each block of it.
async fn torn(rounds: u32) -> anyhow::Result<String> {
    const BLOCK: usize = 4096;
    let mut moments = Moments(3);
    let (mut tears, mut acknowledged) = (0, 0);
    for round in 0..rounds {
        let (folder, before, after) = (tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?);
        let mut writer = Writer::start(folder.path(), 2)?;
        writer.wait_for(50).await?;
        tokio::time::sleep(moments.between(1, 200)).await;
        let mut known = None;
        for (pause, copy) in [(1, &before), (4, &after)] {
            tokio::time::sleep(moments.between(pause, pause + 3)).await;
            writer.pause(true)?;
            tokio::time::sleep(Duration::from_millis(20)).await;
            copy_folder(folder.path(), copy.path())?;
            if known.is_none() {
                known = Some(writer.acknowledged());
            }
            writer.pause(false)?;
        }
        writer.kill()?;
        let known = known.unwrap_or_default();
        acknowledged += known.len();
        let (old, new) = (std::fs::read(before.path().join("sled/db"))?, std::fs::read(after.path().join("sled/db"))?);
        let block =
            |bytes: &[u8], at: usize| bytes.get(at * BLOCK..((at + 1) * BLOCK).min(bytes.len())).map(<[u8]>::to_vec);
        let changed: Vec<usize> =
            (0..new.len().div_ceil(BLOCK)).filter(|at| block(&old, *at) != block(&new, *at)).collect();
        for cut in 0..changed.len() {
            let mut log = old.clone();
            log.resize(new.len().max(old.len()), 0);
            for at in &changed[..cut] {
                let end = ((at + 1) * BLOCK).min(new.len());
                log[at * BLOCK..end].copy_from_slice(&new[at * BLOCK..end]);
            }
            let copy = tempfile::tempdir()?;
            copy_folder(after.path(), copy.path())?;
            std::fs::write(copy.path().join("sled/db"), log)?;
            check::check(copy.path(), &known).await.with_context(|| {
                format!("round {round}: {cut} of {} blocks of the last write were there", changed.len())
            })?;
            tears += 1;
        }
    }
    Ok(format!("{tears} torn writes, {acknowledged} acknowledged commits all there"))
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
