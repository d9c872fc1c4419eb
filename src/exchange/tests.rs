//! Two connectors' walks against each other, under loss, duplication, reordering and restarts of either side: the real
//! exchange over stores in memory, with the wire between them played by a schedule.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::Request};
use proptest::{
    prelude::*,
    test_runner::{Config as Cases, RngAlgorithm, TestRng, TestRunner},
};
use tower::ServiceExt as _;

use super::*;
use crate::{
    agreement::AgreementState,
    crypto::{SystemRandom, jws::Jws},
    dataplane::Grants,
    identity::{Attributes, Invitation},
    net::{AddressGuard, Clients},
    offer::{Approval, Offers},
    protocol::{
        self, Caller, Delivery, NegotiationState,
        message::{CatalogRequest, MessageOffer, Rules},
    },
    receipt::{Filter, Log, LogSigner, Mirror, list, replay},
    source::Roots,
    store::{Batch, MemoryStore},
    time::{ManualClock, Timestamp},
};

use super::{inquire::Elsewhere, rows::Letter};

/// In milliseconds.
const BEGUN: i64 = 1_790_000_000_000;
const POLICY: &str = "@id(\"open\") permit (principal, action, resource);";

/// Keys, statement and first rows of one side: made once.
pub(super) struct Home {
    folder: tempfile::TempDir,
    did: Did,
    keys: Arc<Keys>,
    statements: Vec<Jws>,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One side while it runs.
struct Side {
    exchange: Exchange,
    store: Arc<MemoryStore>,
    /// Messages that the wire still holds a copy of.
    copies: Vec<Letter>,
}

struct Trusting;

impl ClockGuard for Trusting {
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }
    fn accept(&self) {}
}

impl Home {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let did = Did::parse(format!("did:web:{name}.invalid")).unwrap();
        let now = Timestamp::from_millis(BEGUN);
        let home = folder.path().join("home");
        let keys = Arc::new(Keys::create(&home, &did, &[], &SystemRandom, now).unwrap());
        let statement = Statement::own(&keys, 1, name, &format!("https://{name}.invalid"), now).unwrap();
        let statements = vec![statement.sign(&keys.signing).unwrap()];
        std::fs::create_dir(folder.path().join("data")).unwrap();
        Self { folder, did, keys, statements, rows: Vec::new() }
    }

    /// Starts over what the store holds, as after a restart.
    async fn start(&self, store: Arc<MemoryStore>, clock: &Arc<ManualClock>) -> Side {
        let (peers, token_peers, offers, grants, open, processes) = (
            Arc::new(Peers::default()),
            Arc::new(TokenPeers::default()),
            Arc::new(Offers::default()),
            Arc::new(Grants::default()),
            Arc::new(OpenReleases::default()),
            Arc::new(OpenProcesses::default()),
        );
        struct Known(Arc<Peers>);
        impl Mirror for Known {
            fn applied(&self, key: &[u8], value: Option<&[u8]>) {
                self.0.applied(key, value);
            }
        }
        let mirrors: Vec<Arc<dyn Mirror>> =
            vec![Arc::new(Known(peers.clone())), offers.clone(), grants.clone(), processes.clone()];
        for (prefix, mirror) in [(Peer::PREFIX, 0), (crate::offer::PREFIX, 1), (NegotiationRow::PREFIX, 3)] {
            replay(&*store, prefix, &*mirrors[mirror]).await.unwrap();
        }
        let dynamic: Arc<dyn Store> = store.clone();
        let signer =
            LogSigner { did: self.did.clone(), key: crate::crypto::SigningKey::from_seed(*self.keys.log.seed()) };
        let committer = Committer::start(dynamic.clone(), signer, mirrors).await.unwrap();
        let home = self.folder.path().join("home");
        let roots = Arc::new(Roots::new(vec![self.folder.path().join("data")], &home).unwrap());
        let base_url = format!("https://{}", self.did.as_str().trim_start_matches("did:web:"));
        let mut config = Config::new(self.did.clone(), "x".into());
        config.outbox.give_up_seconds = 600;
        let dataplane = DataPlane::new(
            dynamic.clone(),
            committer.clone(),
            grants.clone(),
            peers.clone(),
            roots.clone(),
            self.keys.clone(),
            clock.clone(),
            Arc::new(SystemRandom),
        );
        let exchange = Exchange::new(Parts {
            us: self.did.clone(),
            plain_url: base_url.clone(),
            base_url,
            clients: Arc::new(Clients::guarded(self.keys.tls.clone(), AddressGuard::default())),
            keys: self.keys.clone(),
            receipts: Receipts::new(dynamic.clone(), self.did.clone()),
            log: Log::new(dynamic.clone()),
            witnesses: Arc::default(),
            behind: Behind::default(),
            restorations: Default::default(),
            store: dynamic,
            committer,
            peers,
            token_peers,
            offers,
            grants,
            vault: Vault::open(&home).unwrap(),
            open_uses: Arc::default(),
            roots,
            dataplane,
            sequence: Sequence::starting(clock.now()),
            clock: clock.clone(),
            guard: Arc::new(Trusting),
            random: Arc::new(SystemRandom),
            mail: Arc::new(Notify::new()),
            moved: Arc::new(Notify::new()),
            connections: Arc::default(),
            mailbox: Arc::default(),
            pushes: Pushes::default(),
            open_releases: open,
            open_processes: processes,
            spoken: Default::default(),
            discoveries: Discoveries::default(),
            slices: Slices::default(),
            refusals: Refusals::default(),
            statements: self.statements.clone(),
            tokens: home.join("tokens"),
            config,
        });
        Side { exchange, store, copies: Vec::new() }
    }

    /// A fresh store with this side's first rows.
    async fn fresh(&self) -> Arc<MemoryStore> {
        let store = MemoryStore::new();
        store.commit(Batch { puts: self.rows.clone(), ..Batch::default() }).await.unwrap();
        Arc::new(store)
    }
}

/// Provider and consumer, paired, with an offer.
pub(super) async fn homes() -> (Home, Home) {
    let (mut provider, mut consumer) = (Home::new("provider"), Home::new("consumer"));
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(BEGUN)));
    let file = provider.folder.path().join("invitation.json");
    let mut first_rows = Vec::new();
    for (us, them) in [(&provider, &consumer), (&consumer, &provider)] {
        std::fs::write(&file, serde_json::to_string(&Invitation::new(them.statements.clone())).unwrap()).unwrap();
        let store = Arc::new(MemoryStore::new());
        let side = us.start(store.clone(), &clock).await;
        side.exchange
            .add_peer(&file, Pairing { attributes: Attributes::default(), ..Pairing::default() })
            .await
            .unwrap();
        if us.did.as_str().contains("provider") {
            let folder = us.folder.path();
            std::fs::write(folder.join("data/d.csv"), "id,age\n1,38\n").unwrap();
            std::fs::write(folder.join("p.cedar"), POLICY).unwrap();
            let offer =
                "id = \"o\"\n[dataset]\nid = \"d\"\ntitle = \"D\"\nsource = \"d.csv\"\n[policy]\nfile = \"p.cedar\"\n";
            std::fs::write(folder.join("o.toml"), offer).unwrap();
            side.exchange.publish(&folder.join("o.toml")).await.unwrap();
        }
        side.exchange.committer.stop().await;
        first_rows.push(store.scan(b"", None, usize::MAX).await.unwrap());
    }
    consumer.rows = first_rows.pop().unwrap();
    provider.rows = first_rows.pop().unwrap();
    (provider, consumer)
}

/// One side's exchange, for tests that play no other.
pub(super) async fn standing_still(home: &Home) -> Exchange {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(BEGUN)));
    home.start(home.fresh().await, &clock).await.exchange
}

/// What the wire does with one message.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Lost,
    AnswerLost,
    /// It arrives, and a copy of it will again, some time later.
    Copied,
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    /// The outbox of a side gets its turn.
    Send(usize, Fate),
    /// A copy that the wire still holds arrives.
    Copy(usize),
    Restart(usize),
    /// Seconds pass.
    Wait(u16),
    /// Somebody ends it by hand.
    Decline(usize),
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let fate = prop_oneof![
        4 => Just(Fate::Arrives),
        3 => Just(Fate::Lost),
        3 => Just(Fate::AnswerLost),
        2 => Just(Fate::Copied),
    ];
    let turn = prop_oneof![
        12 => (0..2_usize, fate).prop_map(|(side, fate)| Turn::Send(side, fate)),
        2 => (0..2_usize).prop_map(Turn::Copy),
        2 => (0..2_usize).prop_map(Turn::Restart),
        2 => (1..400_u16).prop_map(Turn::Wait),
        1 => (0..2_usize).prop_map(Turn::Decline),
    ];
    prop::collection::vec(turn, 0..24)
}

struct World<'a> {
    homes: [&'a Home; 2],
    sides: [Side; 2],
    clock: Arc<ManualClock>,
}

impl<'a> World<'a> {
    async fn new(homes: [&'a Home; 2]) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(BEGUN + 1000)));
        let sides = [
            homes[0].start(homes[0].fresh().await, &clock).await,
            homes[1].start(homes[1].fresh().await, &clock).await,
        ];
        let world = Self { homes, sides, clock };
        let (provider, consumer) = (&world.sides[0].exchange, &world.sides[1].exchange);
        let live = provider.offers.get(&"o".parse().unwrap()).unwrap();
        let partner = consumer.partner(&provider.us.clone().into()).unwrap();
        let terms = MessageOffer {
            id: live.row.offer.id.clone(),
            target: live.row.offer.dataset.id.clone(),
            assigner: None,
            assignee: None,
            rules: Rules::from_odrl(&live.row.offer.policy.odrl).unwrap(),
        };
        let signed = live.row.signed[0].jws.clone();
        consumer.request_agreement(&partner, partner.base(), Some(signed), terms, Approval::Auto).await.unwrap();
        world
    }

    /// The first letter of each process: what an outbox would send now.
    async fn letter(&self, side: usize) -> Option<Letter> {
        let rows = list::<Letter>(&*self.sides[side].store, Letter::PREFIX.as_bytes(), None, 64).await.unwrap();
        rows.into_iter().filter_map(|row| row.value).find(|letter| letter.due <= self.clock.now())
    }

    /// Hands a message to the other side, through its routes.
    async fn arrive(&self, from: usize, letter: &Letter) -> Delivery {
        let body = self.sides[from].exchange.letter_body(letter).await.unwrap();
        let path = letter.url.splitn(4, '/').nth(3).unwrap();
        let mut request = Request::post(format!("/{path}")).body(Body::from(body)).unwrap();
        request.extensions_mut().insert(Caller {
            participant: self.homes[from].did.clone().into(),
            remote: ([127, 0, 0, 1], 1).into(),
            authentication: "mtls",
            certificate: Some(Sha256([7; 32])),
        });
        let handler = Arc::new(self.sides[1 - from].exchange.clone());
        let answer = protocol::routes(handler).oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        Delivery::answered(status, body.to_vec())
    }

    async fn settle(&self, side: usize, letter: &Letter, delivery: Delivery) {
        let exchange = &self.sides[side].exchange;
        match delivery {
            Delivery::Accepted { body, .. } => exchange.delivered(letter, &body).await.unwrap(),
            Delivery::Refused { code, reason, .. } => {
                exchange.undeliverable(letter, Refusal { code, sentence: reason }).await.unwrap();
            }
            Delivery::NotYet(_) if self.clock.now() >= letter.give_up => {
                exchange.undeliverable(letter, Refusal::new("delivery-given-up", "over")).await.unwrap();
            }
            Delivery::NotYet(_) => {}
        }
    }

    async fn play(&mut self, turn: Turn) {
        match turn {
            Turn::Send(side, fate) => {
                let Some(letter) = self.letter(side).await else { return };
                match fate {
                    Fate::Lost => self.settle(side, &letter, Delivery::NotYet("lost".into())).await,
                    Fate::AnswerLost => {
                        self.arrive(side, &letter).await;
                        self.settle(side, &letter, Delivery::NotYet("lost".into())).await;
                    }
                    Fate::Arrives | Fate::Copied => {
                        let delivery = self.arrive(side, &letter).await;
                        self.settle(side, &letter, delivery).await;
                        if matches!(fate, Fate::Copied) {
                            self.sides[side].copies.push(letter);
                        }
                    }
                }
            }
            Turn::Copy(side) => {
                if let Some(letter) = self.sides[side].copies.pop() {
                    self.arrive(side, &letter).await;
                }
            }
            Turn::Restart(side) => {
                self.clock.advance(Duration::from_millis(1));
                self.sides[side].exchange.committer.stop().await;
                let copies = std::mem::take(&mut self.sides[side].copies);
                self.sides[side] = self.homes[side].start(self.sides[side].store.clone(), &self.clock).await;
                self.sides[side].copies = copies;
            }
            Turn::Wait(seconds) => self.clock.advance(Duration::from_secs(seconds.into())),
            Turn::Decline(side) => {
                if let Some(row) = self.negotiation(side).await {
                    // refused where it is over, or the other side's pid isn't known yet
                    let exchange = &self.sides[side].exchange;
                    let _ = exchange.act_on_negotiation(&row.pid, NegotiationAction::Terminate, "declined").await;
                }
            }
        }
    }

    /// The wire is good again, and time passes: everything that waits gets its chance; then each asks after what is open.
    async fn calm_down(&self) {
        for _ in 0..40 {
            let mut sent = false;
            for side in 0..2 {
                while let Some(letter) = self.letter(side).await {
                    sent = true;
                    let delivery = self.arrive(side, &letter).await;
                    let stuck = matches!(delivery, Delivery::NotYet(_)) && self.clock.now() < letter.give_up;
                    self.settle(side, &letter, delivery).await;
                    if stuck {
                        break;
                    }
                }
            }
            if !sent {
                self.inquire().await;
                if (0..2).all(|side| self.sides[side].exchange.open_processes.that(|_| true).is_empty()) {
                    return;
                }
            }
            self.clock.advance(Duration::from_secs(120));
        }
    }

    /// What [`Exchange::inquire`] does, over this wire.
    async fn inquire(&self) {
        for side in 0..2 {
            let exchange = &self.sides[side].exchange;
            let (now, long) = (self.clock.now(), exchange.config.give_up_after());
            for waiting in exchange.open_processes.that(|process| now.since(process.moved) >= long) {
                let Some(theirs) = &waiting.peer_pid else { continue };
                let us = self.homes[side].did.clone().into();
                let shown = self.sides[1 - side].exchange.negotiation_for(&us, theirs).await;
                let word = match shown.map(|shown| shown.state) {
                    Ok(NegotiationState::Terminated) => Elsewhere::Ended,
                    Ok(NegotiationState::Finalized) => Elsewhere::Finalized,
                    _ => Elsewhere::Waits,
                };
                exchange.take_word(&waiting, word).await.unwrap();
            }
        }
    }

    async fn negotiation(&self, side: usize) -> Option<NegotiationRow> {
        let rows = list::<NegotiationRow>(&*self.sides[side].store, NegotiationRow::PREFIX.as_bytes(), None, 8);
        let mut rows: Vec<_> = rows.await.unwrap().into_iter().filter_map(|row| row.value).collect();
        assert!(rows.len() <= 1, "one request begins one negotiation: {rows:?}");
        rows.pop()
    }

    async fn check(&self) {
        let rows = [self.negotiation(0).await, self.negotiation(1).await];
        let consumer = rows[1].as_ref().expect("the consumer asked");
        let mut states = vec![consumer];
        states.extend(rows[0].as_ref());
        for (side, row) in [(1, Some(consumer)), (0, rows[0].as_ref())] {
            let Some(row) = row else { continue };
            assert!(row.state.is_final(), "nothing hangs: {row:?}");
            if row.state == NegotiationState::Terminated {
                assert!(row.ended.is_some(), "a reason: {row:?}");
            }
            let exchange = &self.sides[side].exchange;
            assert!(self.letter(side).await.is_none(), "nothing waits");
            assert!(exchange.pending().await.unwrap().is_empty());
            // no receipt without its state change, or the other way round
            let agreements = exchange.agreements().await.unwrap();
            let count = async |kind| {
                let filter = Filter { kind: Some(kind), ..Filter::default() };
                exchange.receipts.list(&filter, 0, 100).await.unwrap()
            };
            let agreed = count(Kind::Agreed).await.len();
            assert_eq!(agreed, usize::from(row.state == NegotiationState::Finalized), "{row:?}");
            assert_eq!(agreements.iter().filter(|row| row.state == AgreementState::Active).count(), agreed);
            assert!(agreements.iter().all(|row| row.state != AgreementState::Pending), "{agreements:?}");
            let ends = count(Kind::Negotiated).await.iter().filter(|stored| stored.receipt.reason.is_some()).count();
            assert_eq!(ends, usize::from(row.state == NegotiationState::Terminated), "{row:?}");
        }
        let contradict = states.iter().any(|row| row.state == NegotiationState::Finalized)
            && states.iter().any(|row| row.state == NegotiationState::Terminated);
        if contradict {
            assert!(
                states.iter().any(|row| row.state == NegotiationState::Finalized && row.ended.is_some()),
                "whoever believes in the agreement knows that the other may not: {states:?}"
            );
        }
    }
}

#[tokio::test]
async fn ten_thousand_datasets_are_paged_through_and_found_by_a_filter() {
    let (provider, consumer) = homes().await;
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(BEGUN + 1000)));
    let store = provider.fresh().await;
    let (_, bytes) = store.scan(crate::offer::PREFIX.as_bytes(), None, 1).await.unwrap().remove(0);
    let (version, json) = bytes.split_at(8);
    let mut row: serde_json::Value = serde_json::from_slice(json).unwrap();
    let mut batch = Batch::default();
    for n in 0..9_999 {
        row["offer"]["id"] = format!("o{n}").into();
        row["offer"]["dataset"]["id"] = format!("d{n:05}").into();
        row["offer"]["dataset"]["title"] = format!("Rainfall {n}").into();
        let key = crate::offer::key(&format!("o{n}").parse().unwrap());
        batch.puts.push((key, [version, &serde_json::to_vec(&row).unwrap()].concat()));
    }
    store.commit(batch).await.unwrap();
    let side = provider.start(store, &clock).await;
    let partner = side.exchange.partner(&consumer.did.clone().into()).unwrap();
    let page =
        |request: &CatalogRequest, page: Option<&str>| side.exchange.catalog_for(&partner, request, page).unwrap();
    let (mut seen, mut next, mut pages) = (std::collections::BTreeSet::new(), None::<String>, 0);
    loop {
        let shown = page(&CatalogRequest::default(), next.as_deref());
        seen.extend(shown.catalog.dataset.iter().map(|dataset| dataset.id.clone()));
        pages += 1;
        next = shown.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!((seen.len(), pages), (10_000, 100));
    for (criterion, found) in [
        (serde_json::json!({"operandLeft": "id", "operator": "=", "operandRight": "d00042"}), 1),
        (serde_json::json!({"operandLeft": "id", "operator": "in", "operandRight": ["d00001", "d09998", "none"]}), 2),
        (serde_json::json!({"operandLeft": "dct:title", "operator": "like", "operandRight": "%FALL 999%"}), 10),
        (serde_json::json!({"operandLeft": "title", "operator": "=", "operandRight": "rainfall 1"}), 0),
    ] {
        let filter = vec![serde_json::json!({"@type": "QuerySpec", "limit": 50, "filterExpression": [criterion]})];
        let shown = page(&CatalogRequest { filter }, None);
        assert_eq!(shown.catalog.dataset.len(), found, "{criterion}");
    }
    let filter = vec![
        serde_json::json!({"@type": "QuerySpec", "filterExpression": [{"operandLeft": "price", "operator": "<", "operandRight": 3}]}),
    ];
    let refused = side.exchange.catalog_for(&partner, &CatalogRequest { filter }, None).unwrap_err();
    assert!(refused.code.as_str() == "filter-unsupported" && refused.status == 400);
}

/// How many schedules are played, in two halves that run beside each other. The same ones each time, so that a failure is
/// one everywhere; `COUNTERSEAL_SEED=<0..255>` plays others.
const SCHEDULES: u32 = 10_000;

#[test]
fn whatever_the_wire_does_both_sides_end_and_agree_or_know_that_they_do_not() {
    play(SCHEDULES / 2, 1);
}

#[test]
fn whatever_the_wire_does_both_sides_end_and_agree_or_know_that_they_do_not_again() {
    play(SCHEDULES / 2, 2);
}

fn play(schedules: u32, half: u8) {
    let seed: u8 = std::env::var("COUNTERSEAL_SEED").map_or(0, |seed| seed.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (provider, consumer) = runtime.block_on(homes());
    let cases = Cases { cases: schedules, max_shrink_iters: 200, failure_persistence: None, ..Cases::default() };
    let mut bytes = [seed; 32];
    bytes[0] = half;
    let mut runner = TestRunner::new_with_rng(cases, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let played = runner.run(&turns(), |turns| {
        runtime.block_on(async {
            let mut world = World::new([&provider, &consumer]).await;
            for turn in &turns {
                world.play(*turn).await;
            }
            world.calm_down().await;
            world.check().await;
            for side in &world.sides {
                side.exchange.committer.stop().await;
            }
        });
        Ok(())
    });
    if let Err(failed) = played {
        panic!("{failed}");
    }
}
