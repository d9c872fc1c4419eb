//! Ways around the locks, each refused: races, replays, other people's things, time.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use counterseal::{
    cli::{NewHome, create, data_folder},
    config::Config,
    crypto::SystemRandom,
    error::Refusal,
    exchange::{FetchEvent, FetchRequest, NegotiationRequest, Pairing, UseRequest},
    id::{AgreementId, DatasetId, Did},
    identity::{Attributes, Invitation},
    net::{Clients, Origin, Target},
    node::Node,
    receipt::{Filter, Kind},
    time::{Clock, ManualClock, SystemClock},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub struct Actor {
    pub home: std::path::PathBuf,
    pub node: Node,
}

pub async fn start(folder: &Path, name: &str, clock: Arc<dyn Clock>) -> Actor {
    start_at(folder, name, clock, None).await
}

/// A connector that partners reach at `public_url`.
pub async fn start_at(folder: &Path, name: &str, clock: Arc<dyn Clock>, public_url: Option<String>) -> Actor {
    start_with(folder, name, clock, public_url, |_| {}).await
}

/// A connector whose configuration is changed before it starts.
pub async fn start_with(
    folder: &Path,
    name: &str,
    clock: Arc<dyn Clock>,
    public_url: Option<String>,
    change: impl FnOnce(&mut Config),
) -> Actor {
    let home = folder.join(name);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let did = Did::parse(format!("did:web:{name}.invalid")).unwrap();
    let new = NewHome { did, name: name.into(), partner: any, management: any, public_url, plain: None };
    create(&home, &new, &SystemRandom, clock.now()).unwrap();
    let mut config = Config::load(&home, []).unwrap();
    config.release.deadline_seconds = 60;
    change(&mut config);
    let node = Node::start(&home, config, clock, Arc::new(SystemRandom), false).await.unwrap();
    Actor { home, node }
}

impl Actor {
    pub fn did(&self) -> &Did {
        &self.node.exchange.us
    }

    pub async fn add(&self, other: &Self) {
        self.add_waiting(other, Duration::ZERO).await;
    }

    /// Adds a partner that is to be given so much time before what follows is sent.
    pub async fn add_waiting(&self, other: &Self, delay: Duration) {
        let path = other.home.join("invitation.json");
        let invitation: Invitation = other.node.exchange.invitation();
        std::fs::write(&path, serde_json::to_string(&invitation).unwrap()).unwrap();
        self.node.exchange.add_peer(&path, Pairing { follow_up_delay: delay, ..Pairing::default() }).await.unwrap();
    }

    pub async fn publish(&self, policy: &str) {
        std::fs::write(data_folder(&self.home).join("d.csv"), "id,age\n1,38\n2,52\n").unwrap();
        self.publish_as_it_lies(policy).await;
    }

    /// Publishes the `d.csv` that is there.
    pub async fn publish_as_it_lies(&self, policy: &str) {
        std::fs::write(self.home.join("p.cedar"), policy).unwrap();
        let offer =
            "id = \"o\"\n[dataset]\nid = \"d\"\ntitle = \"D\"\nsource = \"d.csv\"\n[policy]\nfile = \"p.cedar\"\n";
        std::fs::write(self.home.join("o.toml"), offer).unwrap();
        self.node.exchange.publish(&self.home.join("o.toml")).await.unwrap();
    }

    pub async fn agree(&self, provider: &Self) -> AgreementId {
        let request = NegotiationRequest::about(provider.did().clone(), DatasetId::parse("d").unwrap());
        let pid = self.node.exchange.negotiate(&request).await.unwrap();
        let view = self.node.exchange.negotiation_end(&pid, Duration::from_secs(20)).await.unwrap();
        view.agreement.unwrap_or_else(|| panic!("{:?}", view.ended))
    }

    pub async fn fetch(&self, request: FetchRequest) -> Result<(), Refusal> {
        let (sender, mut events) = mpsc::unbounded_channel();
        self.node.exchange.fetch(request, sender).await;
        let mut last = None;
        while let Ok(event) = events.try_recv() {
            last = Some(event);
        }
        match last.unwrap() {
            FetchEvent::Failed { refusal } => Err(refusal),
            FetchEvent::Opened { .. } | FetchEvent::Sealed { .. } => Ok(()),
            other => panic!("{other:?}"),
        }
    }

    pub fn client(&self, provider: &Self) -> reqwest::Client {
        let base = provider.node.exchange.base_url.clone();
        let target = Target {
            peer: provider.did().clone().into(),
            seq: 0,
            origin: Origin::Pinned(vec![provider.node.exchange.keys.certificate().spki]),
            endpoints: vec![base.clone()],
        };
        Clients::new(self.node.exchange.keys.tls.clone()).client_for(&target, &base).unwrap()
    }

    /// The token of the one transfer that is running.
    pub fn token(&self) -> String {
        let entry = std::fs::read_dir(self.home.join("tokens")).unwrap().next().expect("a running transfer").unwrap();
        std::fs::read_to_string(entry.path()).unwrap()
    }

    pub async fn count(&self, kind: Kind) -> usize {
        let filter = Filter { kind: Some(kind), ..Default::default() };
        self.node.exchange.receipts.list(&filter, 0, 10_000).await.unwrap().len()
    }
}

pub fn wanted(agreement: &AgreementId) -> FetchRequest {
    FetchRequest {
        agreement: agreement.clone(),
        purpose: "research".into(),
        with: Default::default(),
        without_acknowledgement: false,
        another: false,
    }
}

pub async fn pair_with(folder: &Path, policy: &str, clock: Arc<dyn Clock>) -> (Actor, Actor, AgreementId) {
    let (provider, consumer) = (start(folder, "p", clock.clone()).await, start(folder, "c", clock).await);
    provider.add(&consumer).await;
    consumer.add(&provider).await;
    provider.publish(policy).await;
    let agreement = consumer.agree(&provider).await;
    (provider, consumer, agreement)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agreement_that_runs_out_takes_its_copies_keys_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let (provider, consumer) =
        (start(folder.path(), "p", clock.clone()).await, start(folder.path(), "c", clock.clone()).await);
    provider.add(&consumer).await;
    consumer.add(&provider).await;
    provider.publish(OPEN).await;
    let until = clock.now().plus(Duration::from_secs(3600));
    let offer = std::fs::read_to_string(provider.home.join("o.toml")).unwrap();
    std::fs::write(provider.home.join("o.toml"), format!("valid_until = \"{until}\"\n{offer}")).unwrap();
    provider.node.exchange.publish(&provider.home.join("o.toml")).await.unwrap();
    let agreement = consumer.agree(&provider).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let request = UseRequest { of: "d".into(), purpose: "x".into(), action: "read".into(), application: None };
    consumer.node.exchange.use_copy(&request).await.unwrap();
    clock.advance(Duration::from_secs(3601));
    assert!(consumer.node.exchange.use_copy(&request).await.unwrap_err().is("agreement-expired"));
    assert!(consumer.fetch(wanted(&agreement)).await.unwrap_err().is("agreement-expired"));
    consumer.node.exchange.finish_ended().await.unwrap();
    assert_eq!(consumer.count(Kind::Deleted).await, 1);
    let copy = consumer.node.exchange.all_copies().await.unwrap().remove(0);
    assert!(!consumer.node.exchange.vault.folder(&copy.id).join("copy.key").exists());
}

const ONCE: &str = "@id(\"see\") permit (principal, action in [Action::\"discover\", Action::\"negotiate\"], resource);
@id(\"once\") @during(\"band(age, 10)\") permit (principal, action == Action::\"release\", resource) when { context.count < 1 };
@id(\"read\") permit (principal, action == Action::\"read\", resource) when { context.count < 2 };";
pub const OPEN: &str = "@id(\"open\") permit (principal, action, resource);";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_race_for_the_last_release_one_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), ONCE, Arc::new(SystemClock)).await;
    let racers = (0..6).map(|_| consumer.fetch(FetchRequest { another: true, ..wanted(&agreement) }));
    let results = futures_util::future::join_all(racers).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    for refusal in results.into_iter().filter_map(Result::err) {
        assert!(refusal.is("policy-no-permit") || refusal.is("release-open"), "{refusal}");
    }
    assert_eq!((provider.count(Kind::Released).await, provider.count(Kind::Delivered).await), (1, 1));
    assert_eq!(provider.node.exchange.agreements().await.unwrap()[0].releases.total.count, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_race_for_the_last_uses_so_many_get_them_as_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let (_provider, consumer, agreement) = pair_with(folder.path(), ONCE, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let request = UseRequest { of: "d".into(), purpose: "x".into(), action: "read".into(), application: None };
    let racers = (0..12).map(|_| consumer.node.exchange.use_copy(&request));
    let results = futures_util::future::join_all(racers).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
    assert_eq!(consumer.count(Kind::Used).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_release_is_not_a_hundred_downloads() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), ONCE, Arc::new(SystemClock)).await;
    consumer.fetch(FetchRequest { without_acknowledgement: true, ..wanted(&agreement) }).await.unwrap();
    let copies = consumer.node.exchange.all_copies().await.unwrap();
    let url = copies[0].stream.clone().unwrap();
    let (client, token) = (consumer.client(&provider), consumer.token());
    let mut served = 0;
    let mut refused = 0;
    let mut salts = std::collections::HashSet::new();
    for _ in 0..100 {
        let answer = client.get(&url).bearer_auth(&token).send().await.unwrap();
        match answer.status().as_u16() {
            200 => {
                served += 1;
                // no salt comes twice: under one key, that would be one keystream over two texts
                assert!(salts.insert(answer.bytes().await.unwrap()[..16].to_vec()));
            }
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    // ciphertext all of them, under one key that nobody has yet
    assert!(served < 32 && refused >= 68, "{served} served, {refused} refused");
    assert_eq!(provider.node.exchange.agreements().await.unwrap()[0].releases.total.count, 1);
    let head = client.head(&url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(head.status().as_u16(), 429);
    for (from, status) in [("?from=1", 400), ("?from=1024", 409)] {
        assert_eq!(
            client.get(format!("{url}{from}")).bearer_auth(&token).send().await.unwrap().status().as_u16(),
            status,
            "{from}"
        );
    }
    assert_eq!(client.get(&url).send().await.unwrap().status().as_u16(), 403, "without the token");
    // going on with it acknowledges, and then it is closed
    consumer.fetch(wanted(&agreement)).await.unwrap_err();
    let again = client.get(&url).bearer_auth(&token).send().await.unwrap();
    assert_ne!(again.status().as_u16(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_is_never_acknowledged_lapses_and_blocks_until_it_is_lifted() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, clock.clone()).await;
    consumer.fetch(FetchRequest { without_acknowledgement: true, ..wanted(&agreement) }).await.unwrap();
    let another = || FetchRequest { another: true, ..wanted(&agreement) };
    assert!(consumer.fetch(another()).await.unwrap_err().is("release-open"));
    let open = provider.node.exchange.agreements().await.unwrap()[0].open.clone().unwrap();
    assert!(provider.node.exchange.lift_release(&open.id).await.unwrap_err().is("release-not-lapsed"));
    clock.advance(Duration::from_secs(61));
    for _ in 0..100 {
        if provider.count(Kind::Lapsed).await == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(provider.count(Kind::Lapsed).await, 1);
    assert!(consumer.fetch(another()).await.unwrap_err().is("release-lapsed"));
    provider.node.exchange.lift_release(&open.id).await.unwrap();
    consumer.fetch(another()).await.unwrap();
    assert_eq!(
        provider.node.exchange.agreements().await.unwrap()[0].releases.total.count,
        2,
        "the lapsed one stays spent"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_set_back_decides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, clock.clone()).await;
    let now = clock.now();
    clock.set(counterseal::time::Timestamp::from_millis(now.millis() - 600_000));
    let refusal = consumer.fetch(wanted(&agreement)).await.unwrap_err();
    assert!(refusal.is("clock-behind"), "{refusal}");
    provider.node.exchange.accept_clock().await.unwrap();
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let request = UseRequest { of: "d".into(), purpose: "x".into(), action: "read".into(), application: None };
    assert!(
        consumer.node.exchange.use_copy(&request).await.unwrap_err().is("clock-behind"),
        "the consumer's own clock"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_peer_is_nobody_at_its_next_request_on_the_same_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    let (client, base) = (consumer.client(&provider), provider.node.exchange.base_url.clone());
    let ask = async || {
        let answer = client.get(format!("{base}/2025-1/catalog/datasets/d")).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ask().await.0, 200);
    provider.node.exchange.revoke_peer(consumer.did(), "left the data space").await.unwrap();
    // its open connection was cut; over another one it hears why
    let next = client.get(format!("{base}/2025-1/catalog/datasets/d")).send().await;
    let refused = next.as_ref().is_ok_and(|answer| answer.status().as_u16() == 403);
    assert!(next.is_err() || refused, "{next:?}");
    let (status, text) = ask().await;
    assert!(status == 403 && text.contains("peer-revoked"), "{status} {text}");
    assert!(consumer.fetch(wanted(&agreement)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_twice_gets_one_answer_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    let (client, base) = (consumer.client(&provider), provider.node.exchange.base_url.clone());
    let request = json!({
        "@context": ["https://w3id.org/dspace/2025/1/context.jsonld"],
        "@type": "TransferRequestMessage",
        "@id": "urn:message:1",
        "consumerPid": "urn:uuid:mine",
        "agreementId": agreement,
        "format": "HttpData-PULL",
        "callbackAddress": format!("{}/2025-1", consumer.node.exchange.base_url),
    });
    let send = async |body: &Value, path: &str| {
        let answer = client.post(format!("{base}/2025-1{path}")).json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let first = send(&request, "/transfers/request").await;
    assert_eq!((first.0, first.1["state"].as_str()), (201, Some("REQUESTED")));
    assert_eq!(send(&request, "/transfers/request").await.1, first.1, "the same `@id`");
    let mut other_id = request.clone();
    other_id["@id"] = "urn:message:2".into();
    assert_eq!(
        send(&other_id, "/transfers/request").await.1["providerPid"],
        first.1["providerPid"],
        "the same consumerPid"
    );
    let pid = first.1["providerPid"].as_str().unwrap();
    let completion = json!({
        "@context": ["https://w3id.org/dspace/2025/1/context.jsonld"],
        "@type": "TransferCompletionMessage",
        "@id": "urn:message:3",
        "providerPid": pid,
        "consumerPid": "urn:uuid:mine",
    });
    let done = send(&completion, &format!("/transfers/{pid}/completion")).await;
    assert_eq!(done.0, 200);
    assert_eq!(send(&completion, &format!("/transfers/{pid}/completion")).await.0, 200, "repeated");
    let mut fresh = completion.clone();
    fresh["@id"] = "urn:message:4".into();
    let (status, error) = send(&fresh, &format!("/transfers/{pid}/completion")).await;
    assert_eq!((status, error["@type"].as_str()), (400, Some("TransferError")), "a new one in a final state");
    let elsewhere = json!({ "callbackAddress": "https://127.0.0.1:1/2025-1" });
    let mut callback = request.clone();
    callback["@id"] = "urn:message:5".into();
    callback["consumerPid"] = "urn:uuid:other".into();
    callback["callbackAddress"] = elsewhere["callbackAddress"].clone();
    assert_eq!(send(&callback, "/transfers/request").await.1["code"], "callback-not-pinned");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_somebody_elses_answers_as_what_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    let outsider = start(folder.path(), "o", Arc::new(SystemClock)).await;
    provider.add(&outsider).await;
    let (client, base) = (outsider.client(&provider), provider.node.exchange.base_url.clone());
    let get = async |path: String| {
        let answer = client.get(format!("{base}/2025-1{path}")).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let row = provider.node.exchange.agreements().await.unwrap().remove(0);
    for (there, absent) in [
        (format!("/negotiations/{}", row.negotiation), "/negotiations/urn:uuid:0".to_owned()),
        (
            format!("/counterseal/v1/agreements/{agreement}/status"),
            "/counterseal/v1/agreements/urn:uuid:0/status".into(),
        ),
    ] {
        let (theirs, nothing) = (get(there.clone()).await, get(absent).await);
        let id = there.split('/').find(|part| part.starts_with("urn:uuid")).unwrap().to_owned();
        assert_eq!(theirs.0, 404);
        assert_eq!(theirs.1.replace(&id, "urn:uuid:0"), nothing.1, "not a byte more");
    }
    drop(consumer);
}

/// The same home again, on the same ports.
pub async fn again(home: &Path, ports: counterseal::node::Running) -> Actor {
    let mut config = Config::load(home, []).unwrap();
    (config.listen.partner, config.listen.management) = (ports.partner, ports.management);
    let node = Node::start(home, config, Arc::new(SystemClock), Arc::new(SystemRandom), false).await.unwrap();
    Actor { home: home.to_owned(), node }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_outbox_survives_a_restart_and_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let ports = [provider.node.running.clone(), consumer.node.running.clone()];
    let homes = [provider.home.clone(), consumer.home.clone()];
    consumer.node.stop().await;
    provider.node.exchange.revoke_agreement(&agreement, "while nobody listens").await.unwrap();
    provider.node.stop().await;
    let [provider_ports, consumer_ports] = ports;
    let provider = again(&homes[0], provider_ports).await;
    // the first attempts find nobody
    tokio::time::sleep(Duration::from_millis(300)).await;
    let consumer = again(&homes[1], consumer_ports).await;
    for _ in 0..400 {
        if consumer.count(Kind::Deleted).await == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let row = consumer.node.exchange.agreements().await.unwrap().remove(0);
    assert_eq!(row.state, counterseal::agreement::AgreementState::Revoked);
    assert!(row.ended.unwrap().sentence.contains("while nobody listens"));
    assert_eq!(consumer.count(Kind::Deleted).await, 1, "the copy's key went with it");
    assert_eq!(provider.count(Kind::Revoked).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_may_discover_follows_offer_and_peer_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, _) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    let sees = async || consumer.node.exchange.catalog_of(&provider.did().clone().into()).await.unwrap().len();
    assert_eq!((sees().await, sees().await), (1, 1));
    provider.publish("@id(\"g\") permit (principal in Group::\"research\", action, resource);").await;
    assert_eq!((sees().await, sees().await), (0, 0), "the offer changed");
    let attributes = Attributes { groups: ["research".to_owned()].into(), ..Attributes::default() };
    provider
        .node
        .exchange
        .add_peer(&consumer.home.join("invitation.json"), Pairing { attributes, ..Pairing::default() })
        .await
        .unwrap();
    assert_eq!((sees().await, sees().await), (1, 1), "the peer changed");
    provider.node.exchange.withdraw(&counterseal::id::OfferId::parse("o").unwrap()).await.unwrap();
    assert_eq!(sees().await, 0, "withdrawn");
}
