//! The accept loops: HTTP/1.1, one task a connection, cut by dropping the socket.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{
    id::Sha256,
    net::{
        PeerCertificate,
        stall::{Patient, Stalling},
    },
};

/// Most bytes of a request's line and headers; more is answered 431.
const MAX_HEADERS: usize = 32 * 1024;

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at one time; more wait to be accepted.
    pub connections: usize,
    /// For the TLS handshake, for the headers of each request, and between two pieces of its body.
    pub patience: Duration,
    /// What connections get to end by themselves at a stop.
    pub grace: Duration,
    /// For a reader that takes nothing of what is being sent to it.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            patience: Duration::from_secs(10),
            grace: Duration::from_secs(10),
            stall: Duration::from_secs(60),
        }
    }
}

/// What is known of the connection that a request came over; a request extension.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The other end.
    pub remote: SocketAddr,
    /// Its certificate, if it showed one; its key was proved.
    pub client_cert: Option<PeerCertificate>,
    /// Cancelling it drops the socket, also in the middle of a blocked write. It is cancelled when the connection ends
    /// by itself, too.
    pub cancel: CancellationToken,
}

/// Open connections by the key of the other end's certificate, to be cut when it is revoked.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<HashMap<Sha256, HashMap<u64, CancellationToken>>>,
    next: AtomicU64,
}

impl Connections {
    /// Drops every connection of this key; says how many.
    pub fn cut(&self, spki: &Sha256) -> usize {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = open.get(spki);
        tokens.into_iter().flat_map(HashMap::values).for_each(CancellationToken::cancel);
        tokens.map_or(0, HashMap::len)
    }

    /// How many connections of this key are open.
    pub fn open(&self, spki: &Sha256) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(spki).map_or(0, HashMap::len)
    }

    fn enter(self: &Arc<Self>, spki: Sha256, cancel: CancellationToken) -> Entered {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).entry(spki).or_default().insert(id, cancel);
        Entered { connections: self.clone(), spki, id }
    }
}

struct Entered {
    connections: Arc<Connections>,
    spki: Sha256,
    id: u64,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tokens) = open.get_mut(&self.spki) {
            tokens.remove(&self.id);
            if tokens.is_empty() {
                open.remove(&self.spki);
            }
        }
    }
}

/// Told of a handshake that did not come about: from where, and why.
pub type Failed = Arc<dyn Fn(SocketAddr, &str) + Send + Sync>;

/// Serves partners until `stop`: TLS, then HTTP/1.1. `failed` is told of each handshake that did not come about.
pub async fn serve_tls(
    listener: TcpListener,
    config: Arc<rustls::ServerConfig>,
    router: Router,
    connections: Arc<Connections>,
    limits: Limits,
    stop: CancellationToken,
    failed: Failed,
) {
    let acceptor = TlsAcceptor::from(config);
    accept(listener, limits, stop, move |stream, remote, stop| {
        let (acceptor, router, connections, failed) =
            (acceptor.clone(), router.clone(), connections.clone(), failed.clone());
        async move {
            let handshake = tokio::time::timeout(limits.patience, acceptor.accept(stream));
            let stream = tokio::select! {
                () = stop.cancelled() => return,
                shaken = handshake => match shaken {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return failed(remote, &error.to_string()),
                    Err(_) => return failed(remote, "the TLS handshake took too long"),
                },
            };
            let client_cert = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|chain| chain.first())
                .and_then(|certificate| PeerCertificate::parse(certificate).ok());
            let cancel = CancellationToken::new();
            let _entered = client_cert.as_ref().map(|cert| connections.enter(cert.spki, cancel.clone()));
            serve(stream, router, ConnectionInfo { remote, client_cert, cancel }, limits, stop).await;
        }
    })
    .await;
}

/// Serves plain HTTP/1.1 until `stop`: for loopback.
pub async fn serve_plain(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    accept(listener, limits, stop, move |stream, remote, stop| {
        let router = router.clone();
        async move {
            let info = ConnectionInfo { remote, client_cert: None, cancel: CancellationToken::new() };
            serve(stream, router, info, limits, stop).await;
        }
    })
    .await;
}

async fn accept<F, T>(listener: TcpListener, limits: Limits, stop: CancellationToken, handle: F)
where
    F: Fn(Stalling<TcpStream>, SocketAddr, CancellationToken) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(limits.connections));
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = room.clone().acquire_owned() => permit,
        };
        let (stream, remote) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // out of descriptors, or the like: it passes or it doesn't, but it must not spin
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let task = handle(Stalling::new(stream, limits.stall), remote, stop.clone());
        tasks.spawn(async move {
            task.await;
            drop(permit);
        });
    }
    drop(listener);
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.grace, all).await.is_err() {
        tasks.shutdown().await;
    }
}

async fn serve<S>(stream: S, router: Router, info: ConnectionInfo, limits: Limits, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let cancel = info.cancel.clone();
    // whatever a handler has started for this connection ends with it
    let _ended = cancel.clone().drop_guard();
    let service = tower::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(info.clone());
        router.clone().oneshot(request.map(|body| Body::new(Patient::new(body, limits.patience))))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.patience)
        .max_header_size(MAX_HEADERS)
        .max_buf_size(128 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    // selected around serving: a cut ends blocked writes too
    tokio::select! {
        result = connection.as_mut() => {
            if let Err(error) = result {
                tracing::debug!(%error, "a connection ended");
            }
            return;
        }
        () = cancel.cancelled() => return,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = cancel.cancelled() => {}
    }
}
