//! The process that is tortured, and its handle.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use counterseal::{
    crypto::{
        SigningKey,
        jws::{KeyRole, Kid},
    },
    id::{Did, ReceiptId, Sha256},
    receipt::{Commit, Committer, Kind, LogSigner, NewReceipt, Receipt, SeriesKey},
    store::{SledStore, Store},
    time::{Clock as _, SystemClock, Timestamp},
};
use serde::{Deserialize, Serialize};

const TASKS: u64 = 64;

/// What a commit's state row holds: enough to know it again.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub receipt: ReceiptId,
    pub filling: String,
}

/// A commit that was acknowledged.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    pub index: u64,
    pub sha256: Sha256,
}

pub fn did() -> Did {
    Did::parse("did:web:tortured.invalid").unwrap_or_else(|_| unreachable!("it is a DID"))
}

pub fn signer() -> LogSigner {
    LogSigner { did: did(), key: SigningKey::from_seed([1; 32]) }
}

pub fn signing() -> SigningKey {
    SigningKey::from_seed([2; 32])
}

pub fn series(task: u64) -> SeriesKey {
    SeriesKey::derive(&[task as u8; 32], &did())
}

/// Where the state of the receipt with this id lies.
pub fn state_key(id: &ReceiptId) -> Vec<u8> {
    format!("w/{id}").into_bytes()
}

/// Its filling: mostly small, sometimes of 1, 8, 64 and 200 KB.
pub fn filling(task: u64, n: u64) -> String {
    let kilobytes = match (task + n) % 64 {
        0 => 200,
        1 | 2 => 64,
        3..=6 => 8,
        7..=14 => 1,
        _ => 0,
    };
    format!("{task}/{n} ").repeat(1 + kilobytes * 128)
}

/// Commits until it is stopped; says of each commit what became of it.
pub async fn write(folder: &Path, pause: Duration) -> anyhow::Result<()> {
    let store: Arc<dyn Store> = Arc::new(SledStore::open(folder)?);
    let committer = Committer::start(store, signer(), vec![]).await?;
    let run = SystemClock.now().millis();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let committer = committer.clone();
        tasks.spawn(async move {
            for n in 0.. {
                let line = match committer.commit(commit(run, task, n)?).await {
                    Ok(committed) => {
                        let placed = committed.receipts.first().context("its receipt")?;
                        format!("ack {} {}\n", placed.index, placed.sha256)
                    }
                    Err(error) => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        format!("refused {error:?}\n").replace(['\r'], "")
                    }
                };
                std::io::stdout().lock().write_all(line.as_bytes())?;
                tokio::time::sleep(pause).await;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

fn commit(run: i64, task: u64, n: u64) -> anyhow::Result<Commit> {
    let id = ReceiptId::parse(format!("urn:torture:{run}:{task}:{n}"))?;
    let receipt = Receipt::new(id.clone(), Kind::Released, Timestamp::from_millis(run + n as i64), did().into());
    let key = signing();
    let mut commit = Commit::new();
    commit.content(format!("c/{id}").into_bytes(), filling(task, n).into_bytes());
    commit.put_new(state_key(&id), &State { receipt: id, filling: filling(task, n) })?;
    commit.receipt(NewReceipt::sign(receipt, &Kid::of(&did(), KeyRole::Signing, &key.public()), &key, series(task))?);
    Ok(commit)
}

/// A writer that runs.
pub struct Writer {
    child: Child,
    heard: Arc<Mutex<Heard>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Heard {
    acknowledged: Vec<Acknowledged>,
    refused: Vec<String>,
}

impl Writer {
    pub fn start(folder: &Path, pause: u64) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("write").arg(folder).arg(pause.to_string());
        Self::spawn(command)
    }

    /// One whose files may not grow past so many bytes: a write beyond fails (`EFBIG`), and doesn't kill.
    pub fn start_limited(folder: &Path, pause: u64, bytes: u64) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        // POSIX counts in blocks of 512 bytes
        let limit = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", bytes / 512);
        command.args(["-c", &limit, "sh"]).arg(std::env::current_exe()?);
        command.arg("write").arg(folder).arg(pause.to_string());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let pipe = child.stdout.take().context("its output")?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let into = heard.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut heard = into.lock().unwrap_or_else(PoisonError::into_inner);
                match line.split_once(' ') {
                    Some(("ack", rest)) => {
                        // a line that the kill cut short acknowledges nothing
                        let parsed = rest.split_once(' ').and_then(|(index, sha256)| {
                            Some(Acknowledged { index: index.parse().ok()?, sha256: sha256.parse().ok()? })
                        });
                        heard.acknowledged.extend(parsed);
                    }
                    _ => heard.refused.push(line),
                }
            }
        });
        Ok(Self { child, heard, reader: Some(reader) })
    }

    /// What was acknowledged so far.
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).acknowledged.clone()
    }

    /// `kill -9`; afterwards all that it said has been read.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Ok(())
    }

    /// Stops it where it is, or lets it go on.
    pub fn pause(&self, paused: bool) -> anyhow::Result<()> {
        let signal = if paused { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        let process = rustix::process::Pid::from_raw(i32::try_from(self.child.id())?).context("its process")?;
        Ok(rustix::process::kill_process(process, signal)?)
    }

    pub async fn wait_for(&mut self, count: usize) -> anyhow::Result<()> {
        for _ in 0..1200 {
            if self.acknowledged().len() >= count {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the writer ended: {status}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("a minute without {count} acknowledgements: {} were heard", self.acknowledged().len())
    }

    pub async fn wait_for_refusal(&mut self, of: &str) -> anyhow::Result<()> {
        for _ in 0..1200 {
            {
                let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                if heard.refused.iter().any(|line| line.contains(of)) {
                    return Ok(());
                }
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the writer ended: {status}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        bail!("a minute without a refusal `{of}`: {:?}", heard.refused.last())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
