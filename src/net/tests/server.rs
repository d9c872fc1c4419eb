//! What the accept loop takes and what it doesn't.

use rustls::{
    client::{ResolvesClientCert, Resumption},
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SigningKey},
};

use super::*;

const SERVER: &str = "did:web:server.invalid";
const CLIENT: &str = "did:web:client.invalid";

/// A client that signs with a key that is not its certificate's: rustls' own checks left out.
#[tokio::test]
async fn somebody_elses_certificate_without_its_key_fails_the_handshake() {
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
    let (server_keys, partner, thief) = (identity(SERVER), identity(CLIENT), identity("did:web:thief.invalid"));
    let server = serve(&server_keys).await;
    let key: Arc<dyn SigningKey> =
        ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(thief.key.to_vec()))).unwrap();
    let stolen = CertifiedKey::new(vec![partner.certificate.clone().into()], key);
    let mut config = client_config(&thief, vec![spki(&server_keys)]).unwrap();
    config.client_auth_cert_resolver = Arc::new(Thief(Arc::new(stolen)));
    assert!(!gets_an_answer(&server, config).await);
    assert!(failed_with(&server, "signature").await);
    let config = client_config(&thief, vec![spki(&server_keys)]).unwrap();
    assert!(gets_an_answer(&server, config).await, "with its own certificate it gets through");
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let server_keys = identity(SERVER);
    let server = serve(&server_keys).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        // takes any server, so that only the version can be the reason
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth();
        assert_eq!(gets_an_answer(&server, config).await, version.version == rustls::ProtocolVersion::TLSv1_3);
    }
    assert!(failed_with(&server, "incompatible").await);
}

#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn sessions_are_never_resumed() {
    let (server_keys, client_keys) = (identity(SERVER), identity(CLIENT));
    let server = serve(&server_keys).await;
    let mut config = client_config(&client_keys, vec![spki(&server_keys)]).unwrap();
    config.resumption = Resumption::in_memory_sessions(8);
    for _ in 0..2 {
        let mut tls = connect(&server, config.clone()).await.unwrap();
        say(&mut tls, ASK).await;
        let connection = tls.get_ref().1;
        assert_eq!(connection.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(connection.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_nobody() {
    let server_keys = identity(SERVER);
    let server = serve(&server_keys).await;
    let anonymous = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    let mut tls = connect(&server, anonymous).await.unwrap();
    assert!(say(&mut tls, ASK).await.ends_with("nobody"));
}

#[tokio::test]
async fn only_http_1_1_is_spoken() {
    let (server_keys, client_keys) = (identity(SERVER), identity(CLIENT));
    let server = serve(&server_keys).await;
    let mut config = client_config(&client_keys, vec![spki(&server_keys)]).unwrap();
    let mut tls = connect(&server, config.clone()).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    let answer = say(&mut tls, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    assert!(!answer.contains("200"), "{answer}");
    config.alpn_protocols = vec![b"h2".to_vec()];
    assert!(connect(&server, config).await.is_err());
}

#[tokio::test]
async fn huge_headers_are_refused() {
    let (server_keys, client_keys) = (identity(SERVER), identity(CLIENT));
    let server = serve(&server_keys).await;
    let config = client_config(&client_keys, vec![spki(&server_keys)]).unwrap();
    for (bytes, status) in [(8 * 1024, "HTTP/1.1 200"), (40 * 1024, "HTTP/1.1 431")] {
        let mut tls = connect(&server, config.clone()).await.unwrap();
        let padding = "a".repeat(bytes);
        let request = format!("GET /who HTTP/1.1\r\nhost: x\r\nx-padding: {padding}\r\nconnection: close\r\n\r\n");
        let answer = say(&mut tls, request.as_bytes()).await;
        assert!(answer.starts_with(status), "{bytes}: {answer}");
    }
    let mut tls = connect(&server, config).await.unwrap();
    let request = format!("GET /who HTTP/1.1\r\nhost: x\r\n{}connection: close\r\n\r\n", "x: y\r\n".repeat(150));
    let answer = say(&mut tls, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn who_dawdles_is_dropped() {
    let (server_keys, client_keys) = (identity(SERVER), identity(CLIENT));
    let server = serve(&server_keys).await;
    let config = client_config(&client_keys, vec![spki(&server_keys)]).unwrap();

    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(5), silent.read(&mut [0])).await.expect("dropped");
    assert!(matches!(read, Ok(0) | Err(_)), "over the handshake");
    assert!(failed_with(&server, "too long").await);

    let mut tls = connect(&server, config.clone()).await.unwrap();
    let answer = say(&mut tls, b"GET /who HTTP/1.1\r\nhost: x\r\nx-drip: ").await;
    assert!(!answer.contains("200"), "over the headers: {answer}");

    let mut tls = connect(&server, config.clone()).await.unwrap();
    let answer = say(&mut tls, b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "over the body: {answer}");

    let mut tls = connect(&server, config).await.unwrap();
    let whole = b"POST /length HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc";
    assert!(say(&mut tls, whole).await.ends_with("\r\n\r\n3"));
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_dropped() {
    let (server_keys, client_keys) = (identity(SERVER), identity(CLIENT));
    let stall = Duration::from_millis(200);
    let server = serve_within(&server_keys, Limits { stall, ..limits() }).await;
    let config = client_config(&client_keys, vec![spki(&server_keys)]).unwrap();
    let mut tls = connect(&server, config).await.unwrap();
    tls.write_all(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tls.read_exact(&mut [0; 1000]).await.unwrap();
    let token = server.tokens.lock().unwrap().pop().unwrap();
    tokio::time::timeout(Duration::from_secs(5), token.cancelled()).await.expect("the connection is gone");
}

#[tokio::test]
async fn a_slow_reader_is_not_dropped() {
    let (server_keys, client_keys) = (identity(SERVER), identity(CLIENT));
    let stall = Duration::from_millis(200);
    let server = serve_within(&server_keys, Limits { stall, ..limits() }).await;
    let config = client_config(&client_keys, vec![spki(&server_keys)]).unwrap();
    let mut tls = connect(&server, config).await.unwrap();
    tls.write_all(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut block = vec![0; 4 << 20];
    for _ in 0..10 {
        tls.read_exact(&mut block).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert!(!server.tokens.lock().unwrap().pop().unwrap().is_cancelled());
}

#[tokio::test]
async fn a_cut_drops_open_connections_blocked_writers_included() {
    let (server_keys, client_keys) = (identity(SERVER), identity(CLIENT));
    let server = serve(&server_keys).await;
    let config = client_config(&client_keys, vec![spki(&server_keys)]).unwrap();
    let mut idle = connect(&server, config.clone()).await.unwrap();
    idle.write_all(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    idle.read_exact(&mut [0; 10]).await.unwrap();
    // read a little, then nothing: the server's write blocks
    let mut blocked = connect(&server, config).await.unwrap();
    blocked.write_all(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    blocked.read_exact(&mut [0; 1000]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;

    assert_eq!(server.connections.cut(&spki(&server_keys)), 0, "nobody else's");
    assert_eq!(server.connections.cut(&spki(&client_keys)), 2);
    for tls in [&mut idle, &mut blocked] {
        // what was in flight arrives, then the connection is gone
        say(tls, b"").await;
    }
    assert!(server.tokens.lock().unwrap().iter().all(CancellationToken::is_cancelled));
    assert_eq!(server.connections.cut(&spki(&client_keys)), 0, "and forgotten");
}

#[tokio::test]
async fn a_connections_token_ends_with_it() {
    let (server_keys, client_keys) = (identity(SERVER), identity(CLIENT));
    let server = serve(&server_keys).await;
    let config = client_config(&client_keys, vec![spki(&server_keys)]).unwrap();
    let mut tls = connect(&server, config).await.unwrap();
    say(&mut tls, ASK).await;
    let token = server.tokens.lock().unwrap().pop().unwrap();
    tokio::time::timeout(Duration::from_secs(5), token.cancelled()).await.unwrap();
}

#[tokio::test]
async fn a_stop_lets_a_request_end_and_cuts_who_does_not() {
    let (server_keys, client_keys) = (identity(SERVER), identity(CLIENT));
    let server = serve(&server_keys).await;
    let config = client_config(&client_keys, vec![spki(&server_keys)]).unwrap();
    let mut slow = connect(&server, config.clone()).await.unwrap();
    let mut flooded = connect(&server, config).await.unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    flooded.write_all(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    flooded.read_exact(&mut [0; 1000]).await.unwrap();
    server.stop.cancel();
    assert!(say(&mut slow, b"").await.ends_with("done"));
    tokio::time::timeout(Duration::from_secs(5), server.ended).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
    say(&mut flooded, b"").await;
}

#[tokio::test]
async fn connections_beyond_the_most_wait_their_turn() {
    let (server_keys, client_keys) = (identity(SERVER), identity(CLIENT));
    let server = serve_within(&server_keys, Limits { connections: 1, ..limits() }).await;
    let config = client_config(&client_keys, vec![spki(&server_keys)]).unwrap();
    let mut first = connect(&server, config.clone()).await.unwrap();
    let second = connect(&server, config);
    tokio::pin!(second);
    assert!(tokio::time::timeout(Duration::from_millis(100), second.as_mut()).await.is_err());
    say(&mut first, ASK).await;
    assert!(say(&mut second.await.unwrap(), ASK).await.contains(CLIENT));
}

#[tokio::test]
async fn plain_http_stops_gracefully_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let ended = tokio::spawn(serve_plain(listener, router(Arc::default()), limits(), stop.clone()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.cancel();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("done"), "{answer}");
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("it ends").unwrap();
}
