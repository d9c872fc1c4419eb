//! Real sockets on loopback.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Router, routing::get};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    crypto::SystemRandom,
    id::{Did, Sha256},
    identity::Keys,
    time::{Clock as _, SystemClock},
};

struct Server {
    url: String,
    address: std::net::SocketAddr,
    connections: Arc<Connections>,
    stop: CancellationToken,
    failures: Arc<std::sync::Mutex<Vec<String>>>,
}

fn identity(did: &str) -> (tempfile::TempDir, Keys) {
    let home = tempfile::tempdir().unwrap();
    let keys = Keys::create(home.path(), &Did::parse(did).unwrap(), &[], &SystemRandom, SystemClock.now()).unwrap();
    (home, keys)
}

async fn serve(keys: &Keys) -> Server {
    let router = Router::new()
        .route(
            "/who",
            get(|Extension(info): Extension<ConnectionInfo>| async move {
                info.client_cert.map(|cert| cert.dids[0].to_string()).unwrap_or_default()
            }),
        )
        .route("/away", get(|| async { axum::response::Redirect::temporary("https://127.0.0.1:1/") }))
        .route(
            "/flood",
            get(|| async {
                let blocks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0_u8; 65_536]));
                axum::body::Body::from_stream(blocks)
            }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, stop) = (Arc::new(Connections::default()), CancellationToken::new());
    let failures = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = failures.clone();
    let limits =
        Limits { patience: Duration::from_millis(300), grace: Duration::from_millis(300), ..Limits::default() };
    tokio::spawn(serve_tls(
        listener,
        Arc::new(server_config(&keys.tls).unwrap()),
        router,
        connections.clone(),
        limits,
        stop.clone(),
        Arc::new(move |_, error| seen.lock().unwrap().push(error.to_owned())),
    ));
    Server { url: format!("https://{address}"), address, connections, stop, failures }
}

fn target(server: &Server, spki: Sha256) -> Target {
    Target {
        peer: Did::parse("did:web:server.invalid").unwrap(),
        seq: 1,
        spki: vec![spki],
        endpoints: vec![server.url.clone()],
    }
}

#[tokio::test]
async fn both_sides_are_known_by_their_keys() {
    let ((_a, server_keys), (_b, client_keys)) =
        (identity("did:web:server.invalid"), identity("did:web:client.invalid"));
    let server = serve(&server_keys).await;
    let url = format!("{}/who", server.url);
    let clients = Clients::new(client_keys.tls.clone());
    let client = clients.client_for(&target(&server, server_keys.certificate().spki), &url).unwrap();
    assert_eq!(client.get(&url).send().await.unwrap().text().await.unwrap(), "did:web:client.invalid");

    let clients = Clients::new(client_keys.tls.clone());
    let wrong = clients.client_for(&target(&server, client_keys.certificate().spki), &url).unwrap();
    assert!(wrong.get(&url).send().await.is_err(), "another key than the pinned one");
    let redirected = client.get(format!("{}/away", server.url)).send().await.unwrap();
    assert_eq!(redirected.status(), 307, "redirects are not followed");
    server.stop.cancel();
}

#[tokio::test]
async fn somebody_elses_certificate_without_its_key_does_not_get_in() {
    let ((_a, server_keys), (_b, partner), (_c, thief)) =
        (identity("did:web:server.invalid"), identity("did:web:partner.invalid"), identity("did:web:thief.invalid"));
    let server = serve(&server_keys).await;
    let stolen = TlsIdentity { certificate: partner.tls.certificate.clone(), key: thief.tls.key.clone() };
    let url = format!("{}/who", server.url);
    // rustls itself refuses to load the pair, or the handshake fails; either way nobody gets in
    let answered = match Clients::new(stolen).client_for(&target(&server, server_keys.certificate().spki), &url) {
        Ok(client) => client.get(&url).send().await.is_ok(),
        Err(_) => false,
    };
    assert!(!answered);
}

/// A client that signs with a key that is not its certificate's: rustls' own checks left out.
#[tokio::test]
async fn a_handshake_signed_by_another_key_is_refused_by_the_server() {
    use rustls::{
        client::ResolvesClientCert,
        sign::{CertifiedKey, SigningKey},
    };
    #[derive(Debug)]
    struct Thief(Arc<CertifiedKey>);
    impl ResolvesClientCert for Thief {
        fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
        fn has_certs(&self) -> bool {
            true
        }
    }
    let ((_a, server_keys), (_b, partner), (_c, thief)) =
        (identity("did:web:server.invalid"), identity("did:web:partner.invalid"), identity("did:web:thief.invalid"));
    let server = serve(&server_keys).await;
    let key: Arc<dyn SigningKey> = rustls::crypto::ring::sign::any_supported_type(
        &rustls::pki_types::PrivateKeyDer::Pkcs8(rustls::pki_types::PrivatePkcs8KeyDer::from(thief.tls.key.to_vec())),
    )
    .unwrap();
    let stolen = CertifiedKey::new(vec![partner.tls.certificate.clone().into()], key);
    let mut config = client_config(&thief.tls, vec![server_keys.certificate().spki]).unwrap();
    config.client_auth_cert_resolver = Arc::new(Thief(Arc::new(stolen)));
    assert!(!gets_an_answer(&server, config).await);
    let config = client_config(&thief.tls, vec![server_keys.certificate().spki]).unwrap();
    assert!(gets_an_answer(&server, config).await, "with its own certificate it does");
    assert!(failed_with(&server, "signature").await);
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

async fn gets_an_answer(server: &Server, config: rustls::ClientConfig) -> bool {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let Ok(mut tls) = TlsConnector::from(Arc::new(config)).connect(name, stream).await else { return false };
    let _ = tls.write_all(b"GET /who HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = tls.read_to_end(&mut answer).await;
    answer.starts_with(b"HTTP/1.1 200")
}

#[tokio::test]
async fn tls_1_2_is_refused_and_sessions_are_never_resumed() {
    let ((_a, server_keys), (_b, client_keys)) =
        (identity("did:web:server.invalid"), identity("did:web:client.invalid"));
    let server = serve(&server_keys).await;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    assert!(!gets_an_answer(&server, config).await);
    assert!(failed_with(&server, "incompatible").await);

    let mut config = client_config(&client_keys.tls, vec![server_keys.certificate().spki]).unwrap();
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    for _ in 0..2 {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let mut tls = TlsConnector::from(config.clone()).connect(name, stream).await.unwrap();
        tls.write_all(b"GET /who HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        tls.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(tls.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_cut_drops_open_connections_blocked_writers_included() {
    let ((_a, server_keys), (_b, client_keys)) =
        (identity("did:web:server.invalid"), identity("did:web:client.invalid"));
    let server = serve(&server_keys).await;
    let url = format!("{}/flood", server.url);
    let clients = Clients::new(client_keys.tls.clone());
    let client = clients.client_for(&target(&server, server_keys.certificate().spki), &url).unwrap();
    // read a little, then nothing: the server's write blocks
    let mut response = client.get(&url).send().await.unwrap();
    response.chunk().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.connections.cut(&server_keys.certificate().spki), 0, "nobody else's");
    assert_eq!(server.connections.cut(&client_keys.certificate().spki), 1);
    let ended =
        tokio::time::timeout(Duration::from_secs(5), async { while let Ok(Some(_)) = response.chunk().await {} });
    assert!(ended.await.is_ok(), "what was in flight arrives, then the connection is gone");
}

#[tokio::test]
async fn who_dawdles_over_headers_is_dropped() {
    let (_a, server_keys) = identity("did:web:server.invalid");
    let server = serve(&server_keys).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut byte = [0; 1];
    let read = tokio::time::timeout(Duration::from_secs(5), silent.read(&mut byte)).await.expect("dropped");
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[test]
fn only_stated_endpoints_are_asked() {
    let target = Target {
        peer: Did::parse("did:web:a.invalid").unwrap(),
        seq: 1,
        spki: vec![],
        endpoints: vec!["https://a.example:8443/dsp".into()],
    };
    for fine in ["https://a.example:8443/dsp", "https://a.example:8443/dsp/2025-1/x", "https://A.EXAMPLE:8443/dsp/y"] {
        assert!(target.allows(fine), "{fine}");
    }
    for wrong in [
        "http://a.example:8443/dsp/x",
        "https://a.example/dsp/x",
        "https://a.example:8443/dspx",
        "https://a.example:8443/other",
        "https://a.example:8443/dsp/../admin",
        "https://user@a.example:8443/dsp/x",
        "https://127.0.0.1:8443/dsp/x",
        "https://[::ffff:127.0.0.1]:8443/dsp",
        "https://169.254.169.254/dsp",
        "https://2130706433:8443/dsp",
        "https://a.example.evil:8443/dsp",
        "file:///etc/passwd",
        "not a url",
    ] {
        assert!(!target.allows(wrong), "{wrong}");
    }
}
