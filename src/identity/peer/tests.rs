//! Who gets in, over real sockets.

use axum::{Extension, Router, extract::State, http::StatusCode, routing::get};
use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    crypto::{SigningKey, SystemRandom},
    identity::Keys,
    net::{Clients, Connections, Limits, PeerCertificate, TlsIdentity, serve_tls, server_config},
    time::{Clock, ManualClock},
};

/// In 2026; certificates below are valid around it.
const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

struct Party {
    _home: tempfile::TempDir,
    keys: Keys,
}

impl Party {
    fn new(name: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let did = Did::parse(format!("did:web:{name}.invalid")).unwrap();
        let keys = Keys::create(home.path(), &did, &[], &SystemRandom, NOW).unwrap();
        Self { _home: home, keys }
    }

    /// As a partner that pins also these TLS keys.
    fn peer(&self, further: &[Sha256]) -> Peer {
        let mut statement = Statement::own(&self.keys, 1, "P", "https://127.0.0.1:1", NOW).unwrap();
        statement.tls.extend(further);
        Peer {
            did: self.keys.did().clone(),
            history: vec![statement.sign(&self.keys.signing).unwrap()],
            statement,
            state: PeerState::Active,
            attributes: Attributes::default(),
            follow_up_delay_ms: 0,
            added: NOW,
        }
    }

    fn spki(&self) -> Sha256 {
        self.keys.certificate().spki
    }
}

fn put(peers: &Peers, peer: &Peer) {
    peers.applied(&Peer::key(&peer.did), Some(&serde_json::to_vec(peer).unwrap()));
}

fn info(certificate: Option<PeerCertificate>) -> ConnectionInfo {
    ConnectionInfo { remote: ([127, 0, 0, 1], 1).into(), client_cert: certificate, cancel: CancellationToken::new() }
}

fn known(peers: &Peers, certificate: &PeerCertificate) -> String {
    match authenticate(&info(Some(certificate.clone())), peers, NOW) {
        Ok(peer) => peer.did.to_string(),
        Err(refusal) => refusal.code.to_string(),
    }
}

/// A certificate of one's own making.
fn certified(dids: &[&str], from: i32, until: i32) -> TlsIdentity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.subject_alt_names.extend(dids.iter().map(|did| SanType::URI((*did).try_into().unwrap())));
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    TlsIdentity { certificate: certificate.der().to_vec(), key: key.serialize_der().into() }
}

struct Door {
    url: String,
    server: Party,
    peers: Arc<Peers>,
    clock: Arc<ManualClock>,
    connections: Arc<Connections>,
    stop: CancellationToken,
}

impl Door {
    async fn open() -> Self {
        let (server, peers, clock) = (Party::new("server"), Arc::new(Peers::default()), Arc::new(ManualClock::at(NOW)));
        let who = |State((peers, clock)): State<(Arc<Peers>, Arc<ManualClock>)>,
                   Extension(info): Extension<ConnectionInfo>| async move {
            match authenticate(&info, &peers, clock.now()) {
                Ok(peer) => (StatusCode::OK, peer.did.to_string()),
                Err(refusal) => (StatusCode::FORBIDDEN, refusal.code.to_string()),
            }
        };
        let router = Router::new().route("/who", get(who)).with_state((peers.clone(), clock.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/who", listener.local_addr().unwrap());
        let (connections, stop) = (Arc::new(Connections::default()), CancellationToken::new());
        tokio::spawn(serve_tls(
            listener,
            Arc::new(server_config(&server.keys.tls).unwrap()),
            router,
            connections.clone(),
            Limits::default(),
            stop.clone(),
            Arc::new(|_, _| {}),
        ));
        Self { url, server, peers, clock, connections, stop }
    }

    fn client(&self, tls: &TlsIdentity) -> reqwest::Client {
        let target = Target {
            peer: self.server.keys.did().clone().into(),
            seq: 1,
            origin: crate::net::Origin::Pinned(vec![self.server.spki()]),
            endpoints: vec![self.url.clone()],
        };
        Clients::new(tls.clone()).client_for(&target, &self.url).unwrap()
    }

    async fn ask(&self, client: &reqwest::Client) -> String {
        client.get(&self.url).send().await.unwrap().text().await.unwrap()
    }
}

#[tokio::test]
async fn each_request_is_judged_by_the_peers_state_then() {
    let door = Door::open().await;
    let partner = Party::new("partner");
    let client = door.client(&partner.keys.tls);
    assert_eq!(door.ask(&client).await, "peer-unknown");
    let mut peer = partner.peer(&[]);
    put(&door.peers, &peer);
    assert_eq!(door.ask(&client).await, "did:web:partner.invalid");
    // over the connection that is open
    peer.state = PeerState::Revoked;
    put(&door.peers, &peer);
    assert_eq!(door.ask(&client).await, "peer-revoked");
    assert_eq!(door.connections.cut(&partner.spki()), 1, "one connection carried them all");
    let client = door.client(&partner.keys.tls);
    assert_eq!(door.ask(&client).await, "peer-revoked", "and over a new one");
    peer.state = PeerState::Active;
    put(&door.peers, &peer);
    assert_eq!(door.ask(&client).await, "did:web:partner.invalid");
    door.peers.applied(&Peer::key(&peer.did), None);
    assert_eq!(door.ask(&client).await, "peer-unknown");
    door.stop.cancel();
}

#[tokio::test]
async fn a_certificate_counts_in_its_time_and_for_its_did() {
    let door = Door::open().await;
    let partner = Party::new("partner");
    let did = partner.keys.did().as_str();
    let cases = [
        (certified(&[did], 2025, 2028), did),
        (certified(&[did], 2020, 2025), "certificate-expired"),
        (certified(&[did], 2028, 2030), "certificate-not-yet-valid"),
        (certified(&["did:web:other.invalid"], 2025, 2028), "certificate-wrong-did"),
        (certified(&[], 2025, 2028), "certificate-wrong-did"),
        (certified(&["did:web:other.invalid", did], 2025, 2028), did),
    ];
    for (tls, answer) in cases {
        put(&door.peers, &partner.peer(&[PeerCertificate::parse(&tls.certificate).unwrap().spki]));
        assert_eq!(door.ask(&door.client(&tls)).await, answer);
    }
    // the one that was fine until the clock went on
    put(&door.peers, &partner.peer(&[]));
    let client = door.client(&partner.keys.tls);
    assert_eq!(door.ask(&client).await, did);
    door.clock.advance(std::time::Duration::from_secs(3 * 365 * 86_400));
    assert_eq!(door.ask(&client).await, "certificate-expired");
    door.stop.cancel();
}

#[test]
fn without_a_certificate_nobody_gets_in() {
    let refusal = authenticate(&info(None), &Peers::default(), NOW).unwrap_err();
    assert!(refusal.is("certificate-missing"));
}

#[test]
fn who_pins_anothers_key_neither_becomes_it_nor_locks_it_out() {
    let (honest, greedy, peers) = (Party::new("honest"), Party::new("greedy"), Peers::default());
    for order in [[true, false], [false, true]] {
        for honest_now in order {
            match honest_now {
                true => put(&peers, &honest.peer(&[])),
                false => put(&peers, &greedy.peer(&[honest.spki()])),
            }
        }
        assert_eq!(known(&peers, &honest.keys.certificate()), "did:web:honest.invalid");
        assert_eq!(known(&peers, &greedy.keys.certificate()), "did:web:greedy.invalid");
    }
    assert_eq!(peers.pinning(&honest.spki()).len(), 2);
    // its going away takes nothing with it
    peers.applied(&Peer::key(greedy.keys.did()), None);
    assert_eq!(known(&peers, &honest.keys.certificate()), "did:web:honest.invalid");
    assert_eq!(known(&peers, &greedy.keys.certificate()), "peer-unknown");
    // nor does its revocation
    put(&peers, &Peer { state: PeerState::Revoked, ..greedy.peer(&[honest.spki()]) });
    assert_eq!(known(&peers, &honest.keys.certificate()), "did:web:honest.invalid");
}

#[test]
fn a_certificate_that_names_two_peers_that_pin_it_is_neither() {
    let (one, two, peers) = (Party::new("one"), Party::new("two"), Peers::default());
    let tls = certified(&["did:web:one.invalid", "did:web:two.invalid"], 2025, 2028);
    let both = PeerCertificate::parse(&tls.certificate).unwrap();
    put(&peers, &one.peer(&[both.spki]));
    assert_eq!(known(&peers, &both), "did:web:one.invalid");
    put(&peers, &two.peer(&[both.spki]));
    assert_eq!(known(&peers, &both), "certificate-wrong-did");
}

#[test]
fn keys_of_older_statements_verify_what_is_old_and_nothing_new() {
    let (party, peers) = (Party::new("rotating"), Peers::default());
    let mut peer = party.peer(&[]);
    let old = peer.statement.signing_kid();
    let log = Kid::of(&peer.did, KeyRole::Log, &peer.statement.keys.log);
    put(&peers, &peer);
    assert!(peers.current_key(&old).is_some());
    let next = SigningKey::from_seed([9; 32]);
    peer.statement.seq = 2;
    peer.statement.keys.signing = next.public();
    peer.history.push(peer.statement.sign(&party.keys.signing).unwrap());
    put(&peers, &peer);
    assert_eq!(peers.verifying_key(&old), Some(party.keys.signing.public()));
    assert_eq!(peers.current_key(&old), None);
    assert_eq!(peers.current_key(&peer.statement.signing_kid()), Some(next.public()));
    assert!(peers.current_key(&log).is_some(), "it has not changed");
    let unknown = Kid::of(&peer.did, KeyRole::Signing, &SigningKey::from_seed([10; 32]).public());
    assert_eq!(peers.verifying_key(&unknown), None);
}

#[test]
fn a_row_that_is_not_what_was_signed_is_nobody() {
    let (party, other, peers) = (Party::new("partner"), Party::new("other"), Peers::default());
    let genuine = party.peer(&[]);
    let spki = party.keys.certificate();
    let mut elsewhere = genuine.clone();
    elsewhere.statement.tls.push(other.spki());
    let mut broken = genuine.clone();
    broken.history = other.peer(&[]).history;
    let empty = Peer { history: vec![], ..genuine.clone() };
    for wrong in [elsewhere, broken, empty] {
        put(&peers, &genuine);
        assert_eq!(known(&peers, &spki), "did:web:partner.invalid");
        put(&peers, &wrong);
        assert_eq!(known(&peers, &spki), "peer-unknown");
        assert!(peers.all().is_empty());
    }
    peers.applied(&Peer::key(other.keys.did()), Some(&serde_json::to_vec(&genuine).unwrap()));
    peers.applied(&Peer::key(other.keys.did()), Some(b"{"));
    peers.applied(b"elsewhere", Some(&serde_json::to_vec(&genuine).unwrap()));
    assert!(peers.all().is_empty());
}
