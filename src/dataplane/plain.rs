//! `GET /data/<transfer>`: a release to a foreign connector, which knows no sealed records. Unsealed bytes, over whatever
//! the connection is; each `GET` is a release of its own, and what is signed about it is signed by us alone.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
};

use async_trait::async_trait;
use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    crypto::Hasher,
    dataplane::{
        Authorized, DataPlane, Grant, HashScope,
        send::{Block, StopOnDrop, produce},
    },
    error::Refusal,
    id::{AgreementId, ParticipantId, Pid, ReleaseId, Sha256, SnapshotId},
    identity::token,
    net::ConnectionInfo,
    policy::{Columns, Obligations},
    source::Format,
    transform::Plan,
};

/// Where a foreign connector pulls from, below our root.
pub fn plain_path(transfer: &Pid) -> String {
    format!("/data/{transfer}")
}

/// A release that was decided and is on record.
#[derive(Clone, Debug)]
pub struct PlainRelease {
    /// The release.
    pub id: ReleaseId,
    /// Under which agreement.
    pub agreement: AgreementId,
    /// In which transfer.
    pub transfer: Pid,
    /// The file, below a root.
    pub source: String,
    /// How its bytes are laid out.
    pub format: Format,
    /// Its state.
    pub snapshot: SnapshotId,
    /// Its columns.
    pub columns: Columns,
    /// What is done to it.
    pub obligations: Obligations,
}

/// Decides and records; `exchange` does.
#[async_trait]
pub trait PlainReleases: Send + Sync + 'static {
    /// One release under this grant, decided now and on record before the first byte.
    async fn release_plain(&self, grant: &Grant, remote: Option<SocketAddr>) -> Result<PlainRelease, Refusal>;

    /// All of it was handed to the socket.
    async fn delivered_plain(&self, release: &PlainRelease, bytes: u64, sha256: Sha256) -> Result<(), Refusal>;

    /// Whether this participant is one whom plain data may go to, and active.
    fn takes_plain(&self, participant: &ParticipantId) -> bool;
}

#[derive(Clone)]
struct Door {
    plane: DataPlane,
    releases: Arc<dyn PlainReleases>,
}

impl DataPlane {
    /// The route, for the listeners that foreign connectors reach.
    pub fn plain_routes(&self, releases: Arc<dyn PlainReleases>) -> Router {
        Router::new().route("/data/{transfer}", get(pull)).with_state(Door { plane: self.clone(), releases })
    }

    /// The bytes of a release, transformed on a thread of their own until `stopped`.
    ///
    /// # Errors
    /// `source-unavailable`, `source-changed`, `obligation-unenforceable`.
    pub async fn plain_blocks(
        &self,
        release: &PlainRelease,
        stopped: Arc<AtomicBool>,
    ) -> Result<mpsc::Receiver<io::Result<Block>>, Refusal> {
        let parts = self.parts();
        let unavailable = |sentence: String| Refusal::new("source-unavailable", sentence);
        let (roots, source) = (parts.roots.clone(), release.source.clone());
        let opened = tokio::task::spawn_blocking(move || roots.open(&source))
            .await
            .map_err(|error| unavailable(error.to_string()))?
            .map_err(|error| {
                tracing::error!(%error, "a source can't be opened");
                unavailable("the source can't be opened".into())
            })?;
        if opened.snapshot() != release.snapshot {
            return Err(Refusal::new("source-changed", "the source changed since it was published"));
        }
        let scope = HashScope { master: parts.keys.master.clone(), agreement: release.agreement.clone() };
        let plan = Plan::compile(&release.obligations, &release.columns, release.format, Arc::new(scope))
            .map_err(|error| Refusal::new("obligation-unenforceable", error.to_string()))?;
        Ok(produce(opened, plan, 0, stopped))
    }
}

type Refused = (StatusCode, Refusal);

async fn pull(
    State(door): State<Door>,
    Extension(connection): Extension<ConnectionInfo>,
    method: Method,
    headers: HeaderMap,
    Path(transfer): Path<String>,
) -> Response {
    match begin(&door, &connection, &method, &headers, &transfer).await {
        Ok((body, format)) => {
            let mut response = Response::new(body);
            let headers = response.headers_mut();
            if let Some(format) = format {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
            }
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err((status, refusal)) => {
            (status, Json(serde_json::json!({ "code": refusal.code, "reason": [refusal.sentence] }))).into_response()
        }
    }
}

async fn begin(
    door: &Door,
    connection: &ConnectionInfo,
    method: &Method,
    headers: &HeaderMap,
    transfer: &str,
) -> Result<(Body, Option<Format>), Refused> {
    let forbidden = |refusal| (StatusCode::FORBIDDEN, refusal);
    let parts = door.plane.parts();
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.strip_prefix("Bearer ").unwrap_or(value));
    let own = parts.keys.token.public();
    let foreign = || Refusal::new("token-foreign", "the token is not good for this transfer");
    let caller = bearer.map(|bearer| token::subject(bearer, &own)).transpose().map_err(forbidden)?;
    let caller = caller.filter(|caller| door.releases.takes_plain(caller)).ok_or_else(|| forbidden(foreign()))?;
    let authorized = parts.grants.authorize(bearer, &own, &caller, None, parts.clock.now()).map_err(forbidden)?;
    if authorized.grant.transfer.as_str() != transfer {
        return Err(forbidden(foreign()));
    }
    // what only looks spends nothing
    if *method == Method::HEAD {
        return Ok((Body::empty(), None));
    }
    let release = door.releases.release_plain(&authorized.grant, Some(connection.remote)).await.map_err(forbidden)?;
    let stopped = Arc::new(AtomicBool::new(false));
    let blocks = door.plane.plain_blocks(&release, stopped.clone()).await.map_err(|refusal| {
        let ours = refusal.is("obligation-unenforceable");
        (if ours { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::CONFLICT }, refusal)
    })?;
    let format = release.format;
    let sending = Sending::new(door.clone(), release, authorized, connection.cancel.clone(), blocks, stopped);
    Ok((sending.body(), Some(format)))
}

/// The body's side: hashes, and hands to the socket.
struct Sending {
    door: Door,
    release: PlainRelease,
    peer: ParticipantId,
    cut: CancellationToken,
    blocks: mpsc::Receiver<io::Result<Block>>,
    hasher: Hasher,
    bytes: u64,
    over: bool,
    _done: DropGuard,
    _stop: StopOnDrop,
}

impl Sending {
    fn new(
        door: Door,
        release: PlainRelease,
        authorized: Authorized,
        connection: CancellationToken,
        blocks: mpsc::Receiver<io::Result<Block>>,
        stopped: Arc<AtomicBool>,
    ) -> Self {
        // a consumer that doesn't read leaves this body unpolled: closing the grant drops the whole connection
        let done = CancellationToken::new();
        let (watch, cut) = (done.clone(), authorized.cut.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = cut.cancelled() => connection.cancel(),
                () = watch.cancelled() => {}
            }
        });
        Self {
            door,
            release,
            peer: authorized.grant.peer,
            cut: authorized.cut,
            blocks,
            hasher: Hasher::new(),
            bytes: 0,
            over: false,
            _done: done.drop_guard(),
            _stop: StopOnDrop(stopped),
        }
    }

    fn body(self) -> Body {
        Body::from_stream(stream::try_unfold(self, |mut sending| async move {
            Ok::<_, io::Error>(sending.next().await?.map(|bytes| (bytes, sending)))
        }))
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.over {
            return Ok(None);
        }
        let block = tokio::select! {
            biased;
            () = self.cut.cancelled() => return Err(io::Error::other("the grant was closed")),
            block = self.blocks.recv() => block,
        };
        if !self.door.releases.takes_plain(&self.peer) {
            return Err(io::Error::other("the peer was revoked"));
        }
        match block {
            Some(Ok(Block::Data(data))) => {
                self.hasher.update(&data);
                self.bytes += data.len() as u64;
                Ok(Some(Bytes::from(data)))
            }
            Some(Ok(Block::End(_))) => {
                self.over = true;
                let sha256 = self.hasher.clone().finish();
                self.door
                    .releases
                    .delivered_plain(&self.release, self.bytes, sha256)
                    .await
                    .map_err(|refusal| io::Error::other(refusal.to_string()))?;
                Ok(None)
            }
            Some(Err(error)) => {
                tracing::warn!(release = %self.release.id, %error, "a plain stream was broken off");
                Err(error)
            }
            None => Err(io::Error::other("the transform ended without a word")),
        }
    }
}
