//! The provider's stream: `GET …/releases/{id}/stream?from=<record>`.

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    crypto::{
        Hasher, Random, RandomExt, b64,
        ece::{RECORD_PLAIN, RESUME_EVERY, Sealer},
    },
    dataplane::{Authorized, Grants, HashScope, ReleaseRow, ReleaseState, SentBody, release::MAX_BODIES},
    error::Refusal,
    id::{ReleaseId, Sha256},
    identity::{Keys, Peers},
    net::ConnectionInfo,
    offer::Extent,
    policy::Filter,
    protocol::Caller,
    receipt::{Commit, Committer, Segment, read},
    source::{Format, Opened, Roots},
    store::Store,
    time::Clock,
    transform::Plan,
};

/// Blocks in flight between the transform and the socket.
const CHANNEL: usize = 4;

/// What the stream's route needs. Cheap to clone.
#[derive(Clone)]
pub struct DataPlane(Arc<Parts>);

pub(super) struct Parts {
    store: Arc<dyn Store>,
    committer: Committer,
    pub(super) grants: Arc<Grants>,
    peers: Arc<Peers>,
    pub(super) roots: Arc<Roots>,
    pub(super) keys: Arc<Keys>,
    pub(super) clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// What was streamed of releases that are still open, for resuming: lost at a restart, and then they start over.
    bodies: Mutex<HashMap<ReleaseId, Vec<Arc<Outgoing>>>>,
}

/// One response's body while it goes out: where it can be cut and continued.
struct Outgoing {
    salt: [u8; 16],
    from: u64,
    points: Mutex<Vec<Point>>,
}

/// After this many records of the body, this many coded bytes with this hash.
struct Point {
    records: u64,
    bytes: u64,
    sha256: Sha256,
}

#[derive(Deserialize)]
struct Resume {
    #[serde(default)]
    from: u64,
}

impl DataPlane {
    /// Assembles the provider's side.
    #[expect(clippy::too_many_arguments, reason = "handed in one by one, once, by the node")]
    pub fn new(
        store: Arc<dyn Store>,
        committer: Committer,
        grants: Arc<Grants>,
        peers: Arc<Peers>,
        roots: Arc<Roots>,
        keys: Arc<Keys>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let bodies = Mutex::default();
        Self(Arc::new(Parts { store, committer, grants, peers, roots, keys, clock, random, bodies }))
    }

    /// `/2025-1/counterseal/v1/releases/{id}/stream`
    pub fn routes(&self) -> Router {
        Router::new()
            .route("/2025-1/counterseal/v1/releases/{id}/stream", get(stream_release).head(stream_release))
            .with_state(self.clone())
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0
    }

    /// Forgets where the bodies of a release could be cut; called when it is closed.
    pub fn forget(&self, release: &ReleaseId) {
        self.0.bodies.lock().unwrap_or_else(PoisonError::into_inner).remove(release);
    }
}

async fn stream_release(
    State(plane): State<DataPlane>,
    Extension(caller): Extension<Caller>,
    Extension(connection): Extension<ConnectionInfo>,
    method: Method,
    headers: HeaderMap,
    Path(id): Path<String>,
    Query(Resume { from }): Query<Resume>,
) -> Response {
    match begin(&plane.0, &caller, &connection, &headers, &id, from).await {
        Ok(start) => {
            let body = if method == Method::HEAD { Body::empty() } else { start.body(&plane.0, connection.cancel) };
            let mut response = Response::new(body);
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("aes128gcm"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err((status, refusal)) => {
            (status, Json(serde_json::json!({ "code": refusal.code, "reason": [refusal.sentence] }))).into_response()
        }
    }
}

/// A stream that may begin.
struct Start {
    release: ReleaseRow,
    authorized: Authorized,
    opened: Opened,
    plan: Plan,
    from: u64,
}

type Refused = (StatusCode, Refusal);

async fn begin(
    parts: &Arc<Parts>,
    caller: &Caller,
    connection: &ConnectionInfo,
    headers: &HeaderMap,
    id: &str,
    from: u64,
) -> Result<Start, Refused> {
    let refuse = |status, code, sentence: String| Err((status, Refusal::new(code, sentence)));
    let not_found =
        || (StatusCode::NOT_FOUND, Refusal::new("release-unknown", "there is no such release of this participant"));
    let now = parts.clock.now();
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.strip_prefix("Bearer ").unwrap_or(value));
    let thumbprint = connection.client_cert.as_ref().map(|cert| cert.thumbprint);
    let authorized = parts
        .grants
        .authorize(bearer, &parts.keys.token.public(), &caller.participant, thumbprint.as_ref(), now)
        .map_err(|refusal| (StatusCode::FORBIDDEN, refusal))?;
    let id = ReleaseId::parse(id).map_err(|_| not_found())?;
    let unreadable = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "a release can't be read");
        (StatusCode::INTERNAL_SERVER_ERROR, Refusal::new("store-unreadable", "the store can't be read; nothing flows"))
    };
    let release: ReleaseRow = read(&*parts.store, &ReleaseRow::key(&id))
        .await
        .map_err(|error| unreadable(&error))?
        .value
        .filter(|row: &ReleaseRow| row.peer == caller.participant && row.transfer == authorized.grant.transfer)
        .ok_or_else(not_found)?;
    if release.state != ReleaseState::Open || now >= release.deadline {
        return refuse(
            StatusCode::CONFLICT,
            "release-closed",
            "this release is closed: it was acknowledged, or its deadline has passed".into(),
        );
    }
    if !from.is_multiple_of(RESUME_EVERY) {
        return refuse(
            StatusCode::BAD_REQUEST,
            "resume-point",
            format!("from={from}: a stream resumes at multiples of {RESUME_EVERY} records"),
        );
    }
    if from > 0 {
        keep_prefix(parts, &release, from).await?;
    }
    let begun = parts.bodies.lock().unwrap_or_else(PoisonError::into_inner).get(&release.id).map_or(0, Vec::len);
    if begun >= MAX_BODIES {
        return refuse(
            StatusCode::TOO_MANY_REQUESTS,
            "release-exhausted",
            format!("this release was streamed {MAX_BODIES} times without an acknowledgement; ask for another one"),
        );
    }
    let (roots, source) = (parts.roots.clone(), release.source.clone());
    let opened = tokio::task::spawn_blocking(move || roots.open(&source))
        .await
        .map_err(|error| unreadable(&error))?
        .map_err(|error| {
            (StatusCode::CONFLICT, Refusal::new("source-unavailable", format!("the source can't be opened: {error}")))
        })?;
    if opened.snapshot() != release.snapshot {
        return refuse(
            StatusCode::CONFLICT,
            "source-changed",
            "the source changed since this release was decided; the release can't go on".into(),
        );
    }
    let scope = HashScope { master: parts.keys.master.clone(), agreement: release.agreement.clone() };
    let unenforceable = |error: &dyn std::fmt::Display| {
        (StatusCode::INTERNAL_SERVER_ERROR, Refusal::new("obligation-unenforceable", error.to_string()))
    };
    let format: Format = release.format.parse().map_err(|error| unenforceable(&error))?;
    let mut obligations = release.obligations.clone();
    if release.filtered {
        // lies apart, where it can be erased; without it nothing leaves
        let kept =
            parts.store.get(&ReleaseRow::filter_key(&release.id)).await.map_err(|error| unenforceable(&error))?;
        let filter: Option<Filter> = kept.as_deref().and_then(|json| serde_json::from_slice(json).ok());
        let lost = || unenforceable(&"the filter of this release was erased; ask for another one");
        obligations.filter = Some(filter.ok_or_else(lost)?);
    }
    let plan = Plan::compile(&obligations, &release.columns, format, Arc::new(scope))
        .map_err(|error| unenforceable(&error))?;
    Ok(Start { release, authorized, opened, plan, from })
}

/// Closes the prefix that a resume at `from` keeps, as a segment of its own.
async fn keep_prefix(parts: &Parts, release: &ReleaseRow, from: u64) -> Result<(), Refused> {
    let lost = || {
        (
            StatusCode::CONFLICT,
            Refusal::new("resume-lost", format!("nothing is known of record {from}; start over from record 0")),
        )
    };
    let kept = {
        let bodies = parts.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies
            .get(&release.id)
            .into_iter()
            .flat_map(|bodies| bodies.iter().rev())
            .find_map(|body| {
                let points = body.points.lock().unwrap_or_else(PoisonError::into_inner);
                let point = points.iter().find(|point| body.from + point.records == from)?;
                Some(SentBody {
                    segment: Segment { salt: b64(&body.salt), bytes: point.bytes, sha256: point.sha256 },
                    from: body.from,
                    records: point.records,
                    last: false,
                    plain: None,
                })
            })
            .ok_or_else(lost)?
    };
    commit_body(parts, &release.id, &kept).await.map_err(|_| lost())
}

async fn commit_body(parts: &Parts, release: &ReleaseId, body: &SentBody) -> io::Result<()> {
    let mut commit = Commit::new();
    commit.put_blind(body.key(release), body).map_err(io::Error::other)?;
    parts.committer.commit(commit).await.map(|_| ()).map_err(io::Error::other)
}

impl Start {
    fn body(self, parts: &Arc<Parts>, connection: CancellationToken) -> Body {
        let salt = parts.random.array::<16>();
        let keying = self.release.keying(&parts.keys.release);
        let sealer = Sealer::new(&keying, salt, &b64(self.release.released.sha256().as_bytes()));
        let body = Arc::new(Outgoing { salt, from: self.from, points: Mutex::default() });
        parts
            .bodies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(self.release.id.clone())
            .or_default()
            .push(body.clone());

        let header = sealer.header();
        let mut hasher = Hasher::new();
        hasher.update(&header);
        // a consumer that doesn't read leaves this body unpolled: closing the grant drops the whole connection
        let done = CancellationToken::new();
        let (watch, cut) = (done.clone(), self.authorized.cut.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = cut.cancelled() => connection.cancel(),
                () = watch.cancelled() => {}
            }
        });
        let stopped = Arc::new(AtomicBool::new(false));
        let state = Sending {
            parts: parts.clone(),
            release: self.release.id.clone(),
            peer: self.authorized.grant.peer.clone(),
            cut: self.authorized.cut.clone(),
            blocks: produce(self.opened, self.plan, self.from, stopped.clone()),
            sealer,
            hasher,
            bytes: header.len() as u64,
            records: 0,
            pending: None,
            body,
            header: Some(header),
            over: false,
            _done: done.drop_guard(),
            _stop: StopOnDrop(stopped),
        };
        Body::from_stream(stream::try_unfold(state, |mut state| async move {
            Ok::<_, io::Error>(state.next().await?.map(|bytes| (bytes, state)))
        }))
    }
}

/// The body's side of the stream: seals, hashes, hands to the socket.
struct Sending {
    parts: Arc<Parts>,
    release: ReleaseId,
    peer: crate::id::ParticipantId,
    cut: CancellationToken,
    blocks: mpsc::Receiver<io::Result<Block>>,
    sealer: Sealer,
    hasher: Hasher,
    bytes: u64,
    records: u64,
    pending: Option<Vec<u8>>,
    body: Arc<Outgoing>,
    header: Option<Vec<u8>>,
    over: bool,
    _done: DropGuard,
    _stop: StopOnDrop,
}

/// What the transform makes.
pub enum Block {
    /// [`RECORD_PLAIN`] bytes, or fewer at the end.
    Data(Vec<u8>),
    /// All was produced, this much, and the source is still the one that was opened.
    End(Extent),
}

pub(super) struct StopOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Sending {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(header) = self.header.take() {
            return Ok(Some(Bytes::from(header)));
        }
        if self.over {
            return Ok(None);
        }
        loop {
            let block = tokio::select! {
                biased;
                () = self.cut.cancelled() => return Err(io::Error::other("the grant was closed")),
                block = self.blocks.recv() => block,
            };
            // the peer's state is read before each record
            if !self.parts.peers.is_active(&self.peer) {
                return Err(io::Error::other("the peer was revoked"));
            }
            match block {
                Some(Ok(Block::Data(data))) => {
                    if let Some(record) = self.pending.replace(data) {
                        return self.seal(record, false).map(Some);
                    }
                }
                Some(Ok(Block::End(plain))) => {
                    let record = self.pending.take().unwrap_or_default();
                    let bytes = self.seal(record, true)?;
                    self.over = true;
                    let sent = SentBody {
                        segment: Segment {
                            salt: b64(&self.body.salt),
                            bytes: self.bytes,
                            sha256: self.hasher.clone().finish(),
                        },
                        from: self.body.from,
                        records: self.records,
                        last: true,
                        plain: Some(plain),
                    };
                    // known to us before the consumer can acknowledge it
                    commit_body(&self.parts, &self.release, &sent).await?;
                    return Ok(Some(bytes));
                }
                Some(Err(error)) => {
                    tracing::warn!(release = %self.release, %error, "a stream was broken off");
                    return Err(error);
                }
                None => return Err(io::Error::other("the transform ended without a word")),
            }
        }
    }

    fn seal(&mut self, mut record: Vec<u8>, last: bool) -> io::Result<Bytes> {
        self.sealer.seal_record(&mut record, last).map_err(io::Error::other)?;
        self.hasher.update(&record);
        self.bytes += record.len() as u64;
        self.records += 1;
        if self.records.is_multiple_of(RESUME_EVERY) {
            let point = Point { records: self.records, bytes: self.bytes, sha256: self.hasher.clone().finish() };
            self.body.points.lock().unwrap_or_else(PoisonError::into_inner).push(point);
        }
        Ok(Bytes::from(record))
    }
}

/// Reads and transforms on a blocking thread; dropping the receiver ends it.
pub(super) fn produce(
    opened: Opened,
    plan: Plan,
    from: u64,
    stopped: Arc<AtomicBool>,
) -> mpsc::Receiver<io::Result<Block>> {
    let (sender, receiver) = mpsc::channel(CHANNEL);
    tokio::task::spawn_blocking(move || {
        let result = (|| {
            let file = opened.file().map_err(io::Error::other)?;
            let mut out = Blocks {
                skip: from.saturating_mul(RECORD_PLAIN as u64),
                block: Vec::with_capacity(RECORD_PLAIN + 32),
                sender: &sender,
            };
            let whole = plan.is_identity();
            let outcome = plan.run(file, &mut out, &|| stopped.load(Ordering::Relaxed)).map_err(io::Error::other)?;
            out.flush_last()?;
            opened.unchanged().map_err(io::Error::other)?;
            // what is copied as it is was not counted
            let records = (!whole).then_some(outcome.records);
            Ok(Block::End(Extent { bytes: outcome.bytes, records }))
        })();
        let _ = sender.blocking_send(result);
    });
    receiver
}

/// Cuts what is written into records' worth of plaintext.
struct Blocks<'a> {
    skip: u64,
    block: Vec<u8>,
    sender: &'a mpsc::Sender<io::Result<Block>>,
}

impl Blocks<'_> {
    fn send(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(RECORD_PLAIN + 32));
        self.sender
            .blocking_send(Ok(Block::Data(block)))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the connection is gone"))
    }

    fn flush_last(&mut self) -> io::Result<()> {
        if self.block.is_empty() { Ok(()) } else { self.send() }
    }
}

impl Write for Blocks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.skip > 0 {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skipped as u64;
            return Ok(skipped);
        }
        let taken = bytes.len().min(RECORD_PLAIN - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == RECORD_PLAIN {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
