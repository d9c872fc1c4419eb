//! Real sockets on loopback.

mod client;
mod server;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    response::Redirect,
    routing::{get, post},
};
use rcgen::{CertificateParams, KeyPair, SanType};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::id::{ParticipantId, Sha256};

/// A self-signed certificate for a DID, valid between the first days of two years.
fn certified(did: &str, from: i32, until: i32) -> TlsIdentity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI(did.try_into().unwrap()));
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    TlsIdentity { certificate: certificate.der().to_vec(), key: key.serialize_der().into() }
}

fn identity(did: &str) -> TlsIdentity {
    certified(did, 2020, 2090)
}

fn spki(identity: &TlsIdentity) -> Sha256 {
    PeerCertificate::parse(&identity.certificate).unwrap().spki
}

struct Server {
    url: String,
    address: SocketAddr,
    connections: Arc<Connections>,
    stop: CancellationToken,
    failures: Arc<Mutex<Vec<String>>>,
    /// The cancellation token of each request's connection.
    tokens: Arc<Mutex<Vec<CancellationToken>>>,
    ended: tokio::task::JoinHandle<()>,
}

fn limits() -> Limits {
    let short = Duration::from_millis(300);
    Limits { patience: short, grace: short, stall: Duration::from_secs(60), ..Limits::default() }
}

async fn serve(identity: &TlsIdentity) -> Server {
    serve_within(identity, limits()).await
}

async fn serve_within(identity: &TlsIdentity, limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, stop) = (Arc::new(Connections::default()), CancellationToken::new());
    let (failures, tokens) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let seen = failures.clone();
    let ended = tokio::spawn(serve_tls(
        listener,
        Arc::new(server_config(identity).unwrap()),
        router(tokens.clone()),
        connections.clone(),
        limits,
        stop.clone(),
        Arc::new(move |_, error| seen.lock().unwrap().push(error.to_owned())),
    ));
    Server { url: format!("https://{address}"), address, connections, stop, failures, tokens, ended }
}

fn router(tokens: Arc<Mutex<Vec<CancellationToken>>>) -> Router {
    let remember = tokens.clone();
    let who = |Extension(info): Extension<ConnectionInfo>| async move {
        tokens.lock().unwrap().push(info.cancel.clone());
        info.client_cert.map_or("nobody".into(), |cert| cert.dids[0].to_string())
    };
    let flood = |Extension(info): Extension<ConnectionInfo>| async move {
        remember.lock().unwrap().push(info.cancel.clone());
        let blocks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0_u8; 65_536]));
        Body::from_stream(blocks)
    };
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        "done"
    };
    Router::new()
        .route("/who", get(who))
        .route("/away", get(|| async { Redirect::temporary("/who") }))
        .route("/flood", get(flood))
        .route("/slow", get(slow))
        .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
}

fn target(server: &Server, identity: &TlsIdentity) -> Target {
    Target {
        peer: ParticipantId::parse("did:web:server.invalid").unwrap(),
        seq: 1,
        origin: Origin::Pinned(vec![spki(identity)]),
        endpoints: vec![server.url.clone()],
    }
}

async fn connect(server: &Server, config: rustls::ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Sends bytes and reads until the server closes; empty if nothing came.
async fn say(tls: &mut TlsStream<TcpStream>, bytes: &[u8]) -> String {
    let _ = tls.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), tls.read_to_end(&mut answer)).await.expect("closed");
    String::from_utf8_lossy(&answer).into_owned()
}

const ASK: &[u8] = b"GET /who HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

async fn gets_an_answer(server: &Server, config: rustls::ClientConfig) -> bool {
    match connect(server, config).await {
        Ok(mut tls) => say(&mut tls, ASK).await.starts_with("HTTP/1.1 200"),
        Err(_) => false,
    }
}

/// Whether the server tells of a handshake that failed so; it may learn of it a moment after the client.
async fn failed_with(server: &Server, word: &str) -> bool {
    for _ in 0..200 {
        if server.failures.lock().unwrap().iter().any(|failure| failure.to_lowercase().contains(word)) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{:?}", server.failures.lock().unwrap())
}
