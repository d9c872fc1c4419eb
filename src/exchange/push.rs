//! Push: the provider brings the data to where a foreign consumer asked for it (`HttpData-PUSH`), and completes the transfer.
//!
//! One release a push: decided and on record before the first byte, repeated as it is where the receiver fails. A
//! suspension or revocation cuts it; a new start is a new release.

use std::{
    collections::HashSet,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::stream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    crypto::Hasher,
    dataplane::{Block, Grant, PlainRelease, PlainReleases as _},
    error::Refusal,
    exchange::{Exchange, refuse, rows::TransferRow, transfer::TransferAction},
    id::{Pid, Sha256},
    protocol::{Party, TransferState, message::HTTP_PUSH, outgoing},
    receipt::read,
};

/// How often a receiver that fails is tried.
const TRIES: u32 = 8;
/// How long one push may take at most.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Pushes under way.
#[derive(Default)]
pub struct Pushes(Mutex<HashSet<Pid>>);

impl Pushes {
    fn begin(&self, pid: &Pid) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pid.clone())
    }

    fn end(&self, pid: &Pid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(pid);
    }
}

/// What went out in one attempt.
struct Sent {
    bytes: u64,
    sha256: Sha256,
}

impl Exchange {
    /// Starts every push that is due and not under way: after a start message, and after a restart.
    pub(super) fn start_pushes(&self) {
        for process in self.open_processes.that(|process| process.pushes) {
            if !self.pushes.begin(&process.pid) {
                continue;
            }
            let (exchange, pid) = (self.clone(), process.pid);
            tokio::spawn(async move {
                if let Err(refusal) = exchange.push(&pid).await {
                    tracing::warn!(%pid, %refusal, "a push ended");
                }
                exchange.pushes.end(&pid);
            });
        }
    }

    async fn push(&self, pid: &Pid) -> Result<(), Refusal> {
        let (_, row) = self.transfer_row(pid).await?;
        // whoever closes the grant, by whatever way, cuts the push
        let Some(cut) = self.grants.open(pid).filter(|_| pushes(&row)) else { return Ok(()) };
        let grant = read::<Grant>(&*self.store, &Grant::key(pid)).await.map_err(refuse("store-unreadable"))?;
        let grant = grant.value.ok_or_else(|| Refusal::new("internal", "a transfer without a grant"))?;
        let pushed = match self.release_plain(&grant, None).await {
            Ok(release) => self.push_release(&row, &release, &cut).await,
            Err(refusal) => Err(refusal),
        };
        if cut.is_cancelled() {
            // suspended, completed or terminated meanwhile: whoever did it has said so
            return Ok(());
        }
        match pushed {
            Ok(()) => self.act_on_transfer(pid, TransferAction::Complete, "").await,
            Err(refusal) => {
                self.end_transfer(pid, &refusal).await?;
                Err(refusal)
            }
        }
    }

    async fn push_release(
        &self,
        row: &TransferRow,
        release: &PlainRelease,
        cut: &CancellationToken,
    ) -> Result<(), Refusal> {
        let mut last = String::new();
        for attempt in 0..TRIES {
            let sent = tokio::select! {
                () = cut.cancelled() => return Ok(()),
                sent = self.push_once(row, release) => sent,
            };
            match sent {
                Ok(sent) => return self.delivered_plain(release, sent.bytes, sent.sha256).await,
                Err(refusal) if refusal.is("push-failed") => last = refusal.sentence,
                Err(refusal) => return Err(refusal),
            }
            tokio::select! {
                () = cut.cancelled() => return Ok(()),
                () = tokio::time::sleep(outgoing::backoff(attempt)) => {}
            }
        }
        Err(Refusal::new("push-failed", format!("the receiver did not take the data in {TRIES} attempts: {last}")))
    }

    async fn push_once(&self, row: &TransferRow, release: &PlainRelease) -> Result<Sent, Refusal> {
        let partner = self.partner(&row.peer)?;
        let place = row.endpoint.as_ref().ok_or_else(|| Refusal::new("internal", "a push to nowhere"))?;
        let token = self.kept_token(place)?;
        let client = self.clients.client_for(&partner.target(), &place.url).map_err(refuse("peer-address"))?;
        let stopped = Arc::new(AtomicBool::new(false));
        let blocks = self.dataplane.plain_blocks(release, stopped.clone()).await?;
        let progress = Arc::new(Mutex::new((Hasher::new(), 0, false)));
        let body = reqwest::Body::wrap_stream(bytes(blocks, progress.clone()));
        let mut request =
            client.post(&place.url).timeout(LONGEST).header("content-type", release.format.content_type());
        if !token.is_empty() {
            request = request.header("authorization", token);
        }
        let answer = request.body(body).send().await;
        stopped.store(true, Ordering::Relaxed);
        let failed = |why: String| Refusal::new("push-failed", why);
        let answer = answer.map_err(|error| failed(error.without_url().to_string()))?;
        if !answer.status().is_success() {
            return Err(failed(format!("it answered {}", answer.status())));
        }
        let progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        let (hasher, bytes, whole) = &*progress;
        // an answer before the end is no proof that all was taken
        if !whole {
            return Err(failed("it answered before all was sent".into()));
        }
        Ok(Sent { bytes: *bytes, sha256: hasher.clone().finish() })
    }
}

type Progress = Arc<Mutex<(Hasher, u64, bool)>>;

/// The blocks as a body; what went out is hashed and counted.
fn bytes(
    blocks: mpsc::Receiver<io::Result<Block>>,
    progress: Progress,
) -> impl stream::Stream<Item = io::Result<bytes::Bytes>> {
    stream::try_unfold((blocks, progress), |(mut blocks, progress)| async move {
        let block =
            blocks.recv().await.unwrap_or_else(|| Err(io::Error::other("the transform ended without a word")))?;
        let mut sent = progress.lock().unwrap_or_else(PoisonError::into_inner);
        match block {
            Block::Data(data) => {
                sent.0.update(&data);
                sent.1 += data.len() as u64;
                drop(sent);
                Ok(Some((bytes::Bytes::from(data), (blocks, progress))))
            }
            Block::End(_) => {
                sent.2 = true;
                Ok(None)
            }
        }
    })
}

/// Whether this is a transfer of ours that pushes, and has started.
pub(super) fn pushes(row: &TransferRow) -> bool {
    row.ours == Party::Provider && row.format == HTTP_PUSH && row.state == TransferState::Started
}
