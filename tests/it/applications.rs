//! Uses at the consumer: registered applications, what policies see of them, and what stops them.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use counterseal::{
    error::Refusal,
    exchange::{Handed, Handing, HandoverState, Registration, UseRequest},
    id::AgreementId,
    receipt::{Commit, Filter, Kind, PartnerHalf, list},
    time::{Clock as _, ManualClock, SystemClock},
    vault::{Application, CopyRow, CopyState, Way, key},
};

use crate::{
    house::{COHORT, agreed, paired},
    locks::{Actor, OPEN, pair_with, start, wanted},
};

const PLAIN: &str = "id,age\n1,38\n2,52\n";

pub fn asks(action: &str, application: Option<&str>) -> UseRequest {
    UseRequest {
        of: "d".into(),
        purpose: "x".into(),
        action: action.into(),
        application: application.map(str::to_owned),
    }
}

fn application(name: &str, way: Way) -> Application {
    Application {
        name: name.into(),
        way,
        algorithm: None,
        models: BTreeSet::new(),
        environment: String::new(),
        agreements: BTreeSet::new(),
        registered: None,
    }
}

fn sh(script: &str) -> Way {
    Way::Pipe { command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec() }
}

async fn register(actor: &Actor, application: Application) -> Application {
    let wanted = Registration { application, algorithm_file: None, algorithm_sha256: None };
    actor.node.exchange.register_application(wanted).await.unwrap()
}

/// Everything that a use streams, or how it broke off.
pub async fn read(actor: &Actor, request: &UseRequest) -> Result<String, Refusal> {
    let mut used = actor.node.exchange.use_copy(request).await?;
    let mut plain = Vec::new();
    while let Some(block) = used.data.recv().await {
        plain.extend_from_slice(&block.map_err(|error| Refusal::new("stream-broken", error.to_string()))?);
    }
    Ok(String::from_utf8(plain).unwrap())
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> String {
    result.unwrap_err().code.as_str().to_owned()
}

/// A policy that lets data be had, and used as `uses` says.
fn policy(uses: &str) -> String {
    format!(
        "@id(\"have\") permit (principal, action in [Action::\"discover\", Action::\"negotiate\", Action::\"release\"], resource);\n{uses}"
    )
}

/// The kinds of the receipts that the other side has sent.
pub async fn halves(actor: &Actor, agreement: &AgreementId) -> Vec<String> {
    let rows =
        list::<PartnerHalf>(&*actor.node.exchange.store, &PartnerHalf::prefix(agreement), None, 100).await.unwrap();
    rows.into_iter().filter_map(|row| row.value).map(|half| half.kind).collect()
}

async fn holding(folder: &Path, policy: &str) -> (Actor, Actor, AgreementId) {
    let (provider, consumer, agreement) = pair_with(folder, policy, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    (provider, consumer, agreement)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_sees_what_was_registered_and_nothing_that_the_caller_says() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("count.sh");
    std::fs::write(&script, "wc -l\n").unwrap();
    let algorithm = counterseal::vault::hash(&script).unwrap();
    let uses = format!(
        "@id(\"stats\") permit (principal, action == Action::\"compute\", resource) when {{
           context.application == \"stats\" && context.algorithm == \"{algorithm}\" && context.deliveryMethod == \"02\"
           && context.executionEnv == \"02\" && context.machineLearningModels == [\"m1\"] }};"
    );
    let (_provider, consumer, agreement) = holding(folder.path(), &policy(&uses)).await;
    let exchange = &consumer.node.exchange;
    // nobody is registered: whatever the caller says
    assert_eq!(code(read(&consumer, &asks("compute", Some("stats"))).await), "application-unknown");
    let count = || Registration {
        application: Application {
            models: BTreeSet::from(["m1".to_owned()]),
            environment: "02".into(),
            ..application("stats", Way::Pipe { command: vec!["/bin/sh".into(), script.display().to_string()] })
        },
        algorithm_file: Some(script.clone()),
        algorithm_sha256: None,
    };
    exchange.register_application(count()).await.unwrap();
    assert_eq!(read(&consumer, &asks("compute", Some("stats"))).await.unwrap().trim(), "3");
    // without it, or through another, the policy says no
    assert_eq!(code(read(&consumer, &asks("compute", None)).await), "policy-no-permit");
    register(&consumer, application("other", sh("cat"))).await;
    assert_eq!(code(read(&consumer, &asks("compute", Some("other"))).await), "policy-no-permit");
    // bound to another agreement
    let mut bound = count();
    bound.application.agreements = BTreeSet::from([agreement.clone()]);
    exchange.register_application(bound).await.unwrap();
    read(&consumer, &asks("compute", Some("stats"))).await.unwrap();
    let mut nowhere = count();
    nowhere.application.agreements = BTreeSet::from([AgreementId::parse("urn:other").unwrap()]);
    assert_eq!(code(exchange.register_application(nowhere).await), "agreement-unknown");
    // what it runs was changed
    let before = consumer.count(Kind::Used).await;
    std::fs::write(&script, "cat\n").unwrap();
    assert_eq!(code(read(&consumer, &asks("compute", Some("stats"))).await), "application-changed");
    assert_eq!(consumer.count(Kind::Used).await, before, "nothing was spent");
    // registered anew, it is another algorithm, which the policy doesn't know
    exchange.register_application(count()).await.unwrap();
    assert_eq!(code(read(&consumer, &asks("compute", Some("stats"))).await), "policy-no-permit");
    exchange.remove_application("stats").await.unwrap();
    assert_eq!(code(read(&consumer, &asks("compute", Some("stats"))).await), "application-unknown");
    assert!(consumer.count(Kind::Configured).await >= 5, "each registration is on record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_is_bound_to_one_agreement_reads_nothing_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, first) = holding(folder.path(), OPEN).await;
    let second = consumer.agree(&provider).await;
    consumer.fetch(wanted(&second)).await.unwrap();
    let bound = Application { agreements: BTreeSet::from([first.clone()]), ..application("stats", sh("cat")) };
    register(&consumer, bound).await;
    let of = |agreement: &AgreementId| UseRequest { of: agreement.as_str().into(), ..asks("read", Some("stats")) };
    assert_eq!(read(&consumer, &of(&first)).await.unwrap(), PLAIN);
    assert_eq!(code(read(&consumer, &of(&second)).await), "application-not-bound");
    let denied = Filter { kind: Some(Kind::Denied), ..Default::default() };
    let receipts = consumer.node.exchange.receipts.list(&denied, 0, 10).await.unwrap();
    assert!(receipts.iter().any(|placed| placed.receipt.agreement.as_ref() == Some(&second)), "and that is on record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_an_application_ended_is_told_and_a_failing_one_stays_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (_provider, consumer, _) = holding(folder.path(), OPEN).await;
    let exchange = &consumer.node.exchange;
    for (script, exit, state) in
        [("wc -c", 0, HandoverState::Over), ("cat >/dev/null; exit 7", 7, HandoverState::Failed)]
    {
        register(&consumer, application("stats", sh(script))).await;
        let Handed::Stream(mut used) =
            exchange.hand_over(&asks("read", Some("stats")), &Handing::default()).await.unwrap()
        else {
            panic!("a pipe gives a stream");
        };
        while used.data.recv().await.is_some() {}
        let handover = exchange.handover(&used.handover.unwrap()).await.unwrap();
        assert_eq!((handover.exit_code, handover.state), (Some(exit), state));
    }
    assert_eq!(consumer.count(Kind::Used).await, 2);
    // neither its name nor what it runs is in a receipt
    let used = Filter { kind: Some(Kind::Used), ..Default::default() };
    for placed in exchange.receipts.list(&used, 0, 10).await.unwrap() {
        assert!(placed.receipt.commitments.contains_key("application"));
        let text = serde_json::to_string(&placed.receipt).unwrap();
        assert!(!text.contains("stats") && !text.contains("exit 7"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_handed_out_to_us_alone_and_goes_when_it_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let (_provider, consumer, _) = holding(folder.path(), OPEN).await;
    let exchange = &consumer.node.exchange;
    let (inbox, private) = (folder.path().join("inbox"), std::fs::Permissions::from_mode(0o700));
    std::fs::create_dir(&inbox).unwrap();
    std::fs::set_permissions(&inbox, std::fs::Permissions::from_mode(0o755)).unwrap();
    let reads = Registration {
        application: application("viewer", Way::File { path: inbox.clone() }),
        algorithm_file: None,
        algorithm_sha256: None,
    };
    assert_eq!(code(exchange.register_application(reads.clone()).await), "application-folder");
    std::fs::set_permissions(&inbox, private).unwrap();
    exchange.register_application(reads).await.unwrap();
    let hand = async |keep_seconds| {
        let handing = Handing { keep_seconds, ..Handing::default() };
        match exchange.hand_over(&asks("view", Some("viewer")), &handing).await.unwrap() {
            Handed::Over(handover) => handover,
            other => panic!("{other:?}"),
        }
    };
    let gone = async |path: &Path| {
        let begun = Instant::now();
        while path.exists() {
            assert!(begun.elapsed() < Duration::from_secs(5));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let first = hand(3600).await;
    let path = first.path.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), PLAIN);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(exchange.use_done(&first.id).await.unwrap().state, HandoverState::Over);
    assert!(!path.exists());
    // its time is over
    gone(&hand(0).await.path.unwrap()).await;
    // a copy that is destroyed takes the file with it
    let third = hand(3600).await;
    let deleted = exchange.hand_over(&asks("delete", None), &Handing::default()).await.unwrap();
    assert!(matches!(deleted, Handed::Deleted { .. }));
    gone(&third.path.unwrap()).await;
    // what a crash left is removed at the start, and what is not ours stays
    std::fs::write(inbox.join("counterseal-use-old.data"), PLAIN).unwrap();
    std::fs::write(inbox.join("notes"), "x").unwrap();
    exchange.sweep_handovers().await.unwrap();
    assert_eq!(std::fs::read_dir(&inbox).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_moves_leaves_no_file_in_its_old_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (_provider, consumer, _) = holding(folder.path(), OPEN).await;
    let inbox = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        path
    };
    let (old, new, third) = (inbox("old"), inbox("new"), inbox("third"));
    let viewer = async |path: &Path| {
        register(&consumer, application("viewer", Way::File { path: path.to_owned() })).await;
    };
    let left = |path: &Path| {
        let file = path.join("counterseal-use-left.data");
        std::fs::write(&file, PLAIN).unwrap();
        file
    };
    viewer(&old).await;
    let file = left(&old);
    viewer(&old).await;
    assert!(file.exists(), "it reads from there still");
    viewer(&new).await;
    assert!(!file.exists());
    // a folder that another application reads from is that one's
    let file = left(&new);
    register(&consumer, application("reader", Way::File { path: new.clone() })).await;
    viewer(&third).await;
    assert!(file.exists());
    // and one that becomes a pipe has none any more
    let file = left(&third);
    register(&consumer, application("viewer", sh("cat"))).await;
    assert!(!file.exists());
}

/// Asks for a use, and hangs up as soon as `so_far` holds: what a server does to the request of a client that went away.
async fn hung_up(actor: &Actor, application: &str, keep_seconds: u64, so_far: impl Fn() -> bool) {
    let (request, handing) = (asks("read", Some(application)), Handing { keep_seconds, ..Handing::default() });
    let mut asked = Box::pin(actor.node.exchange.hand_over(&request, &handing));
    let mut look = tokio::time::interval(Duration::from_millis(1));
    std::future::poll_fn(|context| {
        while look.poll_tick(context).is_ready() {}
        // looked at first: what was asked for goes no further once it holds
        if so_far() {
            return Poll::Ready(());
        }
        match asked.as_mut().poll(context) {
            Poll::Ready(handed) => panic!("it was over before: {handed:?}"),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
}

async fn ended(actor: &Actor) -> HandoverState {
    let exchange = &actor.node.exchange;
    let used = Filter { kind: Some(Kind::Used), ..Default::default() };
    let id = exchange.receipts.list(&used, 0, 10).await.unwrap()[0].receipt.id.clone();
    let begun = Instant::now();
    loop {
        let state = exchange.handover(&id).await.unwrap().state;
        if state != HandoverState::Running || begun.elapsed() > Duration::from_secs(5) {
            return state;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_goes_also_when_whoever_asked_for_it_hung_up_while_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let (_provider, consumer, _) = holding(folder.path(), OPEN).await;
    let inbox = folder.path().join("inbox");
    std::fs::create_dir(&inbox).unwrap();
    std::fs::set_permissions(&inbox, std::fs::Permissions::from_mode(0o700)).unwrap();
    register(&consumer, application("viewer", Way::File { path: inbox.clone() })).await;
    let files = || std::fs::read_dir(&inbox).unwrap().count();
    hung_up(&consumer, "viewer", 1, || files() > 0).await;
    assert_eq!(ended(&consumer).await, HandoverState::Over);
    assert_eq!(files(), 0, "no plaintext is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_to_a_service_ends_also_when_whoever_asked_for_it_hung_up() {
    let folder = tempfile::tempdir().unwrap();
    let (_provider, consumer, _) = holding(folder.path(), OPEN).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    register(&consumer, application("service", Way::Http { url, method: Default::default() })).await;
    let socket = std::cell::OnceCell::new();
    hung_up(&consumer, "service", 0, || listener.accept().is_ok_and(|(accepted, _)| socket.set(accepted).is_ok()))
        .await;
    drop(socket);
    assert_eq!(ended(&consumer).await, HandoverState::Failed, "the service did not answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_on_this_machine_gets_the_plaintext_and_a_redirect_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let (_provider, consumer, _) = holding(folder.path(), OPEN).await;
    let exchange = &consumer.node.exchange;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let answers = [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        ];
        answers.map(|answer| {
            let (mut socket, _) = listener.accept().unwrap();
            let mut got = String::new();
            let mut block = [0; 4096];
            while !got.ends_with(PLAIN) {
                let read = socket.read(&mut block).unwrap();
                assert!(read > 0, "{got}");
                got.push_str(std::str::from_utf8(&block[..read]).unwrap());
            }
            socket.write_all(answer.as_bytes()).unwrap();
            got
        })
    });
    let away = application("away", Way::Http { url: "http://192.0.2.1/".into(), method: Default::default() });
    let away = Registration { application: away, algorithm_file: None, algorithm_sha256: None };
    assert_eq!(code(exchange.register_application(away).await), "application-address");
    let url = format!("http://{address}/in");
    register(&consumer, application("service", Way::Http { url, method: Default::default() })).await;
    let answered = exchange.hand_over(&asks("process", Some("service")), &Handing::default()).await.unwrap();
    assert!(matches!(&answered, Handed::Over(handover) if handover.status == Some(200)), "{answered:?}");
    let refusal = exchange.hand_over(&asks("process", Some("service")), &Handing::default()).await.unwrap_err();
    assert!(refusal.is("application-failed") && refusal.sentence.contains("307"), "{refusal}");
    assert_eq!(consumer.count(Kind::Used).await, 2, "it stays counted");
    let asked = serving.join().unwrap()[0].to_lowercase();
    assert!(asked.starts_with("post /in http/1.1") && asked.contains("content-length: 17\r\n"), "{asked}");
    // one that streams only is asked before anything is spent
    assert_eq!(code(read(&consumer, &asks("process", Some("service"))).await), "use-without-stream");
    assert_eq!(consumer.count(Kind::Used).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_may_always_delete_but_where_a_policy_forbids_it() {
    for (uses, deleted) in [
        ("", Ok(())),
        ("@id(\"d\") permit (principal, action == Action::\"delete\", resource);", Ok(())),
        ("@id(\"d\") @before(\"approve(board)\") permit (principal, action == Action::\"delete\", resource);", Ok(())),
        ("@id(\"keep\") forbid (principal, action == Action::\"delete\", resource);", Err("policy-forbids")),
        (
            "@id(\"keep\") forbid (principal, action == Action::\"delete\", resource) when { context.region == \"CN-44\" };",
            Err("fact-missing"),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (provider, consumer, agreement) = holding(folder.path(), &policy(uses)).await;
        let exchange = &consumer.node.exchange;
        let copy = exchange.all_copies().await.unwrap().remove(0);
        let result = exchange.hand_over(&asks("delete", None), &Handing::default()).await;
        let key = exchange.vault.folder(&copy.id).join("copy.key");
        assert_eq!(key.exists(), deleted.is_err());
        assert_eq!(consumer.count(Kind::Used).await, 0, "deleting is no use of the data");
        match deleted {
            Err(why) => {
                assert_eq!(code(result), why);
                assert_eq!((consumer.count(Kind::Deleted).await, consumer.count(Kind::Denied).await), (0, 1));
            }
            Ok(()) => {
                result.unwrap();
                assert_eq!(exchange.all_copies().await.unwrap()[0].state, CopyState::Destroyed);
                assert_eq!(consumer.count(Kind::Deleted).await, 1);
                assert_eq!(
                    code(exchange.hand_over(&asks("delete", None), &Handing::default()).await),
                    "copy-without-key"
                );
                assert_eq!(code(read(&consumer, &asks("read", None)).await), "copy-without-key");
                let begun = Instant::now();
                while !halves(&provider, &agreement).await.contains(&"deleted".to_owned()) {
                    assert!(begun.elapsed() < Duration::from_secs(10), "the provider is told");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_contract_can_promise_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_provider, consumer, _) = holding(folder.path(), OPEN).await;
    for action in ["logRecordSend", "alert", "compensate", "sell", "grantUse"] {
        assert_eq!(code(read(&consumer, &asks(action, None)).await), "action-not-a-use", "{action}");
    }
    assert_eq!(code(read(&consumer, &asks("release", None)).await), "action-unknown");
    assert_eq!(consumer.count(Kind::Used).await, 0);
    read(&consumer, &asks("resultDownload", None)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_is_decided_on_what_is_really_in_the_copy() {
    let folder = tempfile::tempdir().unwrap();
    let uses = format!(
        "@id(\"r\") permit (principal, action == Action::\"read\", resource) when {{
           context.dataSize == {} && context.dataRecord == 2 && context.dataField == [\"id\", \"age\"]
           && context.timeWindow < duration(\"1h\") && context.subject.total.records < 4 }};
         @id(\"v\") permit (principal, action == Action::\"view\", resource) when {{ context.dataRecord == 3 }};
         @id(\"n\") permit (principal, action == Action::\"access\", resource) when {{ context.networkAddress.isLoopback() }};",
        PLAIN.len()
    );
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let (provider, consumer, agreement) = pair_with(folder.path(), &policy(&uses), clock.clone()).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    read(&consumer, &asks("read", None)).await.unwrap();
    assert_eq!(code(read(&consumer, &asks("view", None)).await), "policy-no-permit");
    // who asks over no connection has no address
    assert_eq!(code(read(&consumer, &asks("access", None)).await), "fact-missing");
    let local = Handing { from: Some([127, 0, 0, 1].into()), ..Handing::default() };
    assert!(matches!(
        consumer.node.exchange.hand_over(&asks("access", None), &local).await.unwrap(),
        Handed::Stream(_)
    ));
    clock.advance(Duration::from_secs(3601));
    assert_eq!(code(read(&consumer, &asks("read", None)).await), "policy-no-permit", "the window is over");
    // the window is that of the copy: a fresh one has its own
    consumer.fetch(wanted(&agreement)).await.unwrap();
    read(&consumer, &asks("read", None)).await.unwrap();
    // a copy that came before this was kept is looked into at its first use
    let mut copies = consumer.node.exchange.all_copies().await.unwrap();
    copies.sort_by_key(|copy| copy.begun);
    let newest = copies.pop().unwrap();
    let mut commit = Commit::new();
    commit.put_blind(key(&newest.id), &CopyRow { contents: None, ..newest.clone() }).unwrap();
    consumer.node.exchange.committer.commit(commit).await.unwrap();
    assert_eq!(code(read(&consumer, &asks("view", None)).await), "policy-no-permit", "not three records");
    let seen =
        consumer.node.exchange.all_copies().await.unwrap().into_iter().find(|copy| copy.id == newest.id).unwrap();
    assert_eq!(seen.contents.unwrap().records, Some(2));
    // four records were read by now, whatever the agreement
    let again = consumer.agree(&provider).await;
    consumer.fetch(wanted(&again)).await.unwrap();
    let other = UseRequest { of: again.as_str().into(), ..asks("read", None) };
    assert_eq!(code(read(&consumer, &other).await), "policy-no-permit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixty_four_who_race_for_the_last_use_one_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let uses = "@id(\"once\") permit (principal, action == Action::\"read\", resource) when { context.subject.total.count < 1 };";
    let (_provider, consumer, _) = holding(folder.path(), &policy(uses)).await;
    let racers = (0..64).map(|_| {
        let exchange = consumer.node.exchange.clone();
        tokio::spawn(async move { exchange.use_copy(&asks("read", None)).await.map(|_| ()) })
    });
    let results: Vec<Result<(), Refusal>> =
        futures_util::future::join_all(racers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    assert_eq!(consumer.count(Kind::Used).await, 1);
}

/// Long enough to be stopped, and over by itself: a test that fails leaves nothing behind.
const ENDLESS: &str = "i=0; while [ $i -lt 400 ]; do echo still here; sleep 0.05; i=$((i + 1)); done";

/// Starts a use that would go on for ever, and waits for its first word.
async fn endless(consumer: &Actor) -> counterseal::exchange::Used {
    register(consumer, application("endless", sh(ENDLESS))).await;
    let mut used = consumer.node.exchange.use_copy(&asks("read", Some("endless"))).await.unwrap();
    assert!(used.data.recv().await.unwrap().is_ok());
    used
}

/// How a use broke off, and how long that took.
async fn broken(mut used: counterseal::exchange::Used) -> (String, Duration) {
    let begun = Instant::now();
    loop {
        match tokio::time::timeout(Duration::from_secs(10), used.data.recv()).await.expect("it goes on") {
            Some(Ok(_)) => {}
            Some(Err(error)) => return (error.to_string(), begun.elapsed()),
            None => panic!("it ended as if nothing had been"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_stops_within_a_second_when_its_agreement_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = holding(folder.path(), OPEN).await;
    let used = endless(&consumer).await;
    let handover = used.handover.clone().unwrap();
    provider.node.exchange.revoke_agreement(&agreement, "enough").await.unwrap();
    // as soon as the consumer knows
    let known = async {
        while consumer.node.exchange.agreement_row(&agreement).await.unwrap().state.as_str() == "active" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), known).await.unwrap();
    let (why, took) = broken(used).await;
    assert!(why.contains("agreement-revoked") && took < Duration::from_secs(1), "{why} after {took:?}");
    let handover = consumer.node.exchange.handover(&handover).await.unwrap();
    assert!(handover.problem.unwrap().is("agreement-revoked"));
    assert_eq!(code(read(&consumer, &asks("read", None)).await), "agreement-revoked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_gets_nothing_more_once_the_agreement_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let (provider, consumer) = (start(folder.path(), "p", clock.clone()).await, start(folder.path(), "c", clock).await);
    provider.add(&consumer).await;
    consumer.add(&provider).await;
    let rows: String = (0..500_000).map(|row| format!("{row},38\n")).collect();
    std::fs::write(counterseal::cli::data_folder(&provider.home).join("d.csv"), format!("id,age\n{rows}")).unwrap();
    provider.publish_as_it_lies(OPEN).await;
    let agreement = consumer.agree(&provider).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let exchange = &consumer.node.exchange;
    assert_eq!(read(&consumer, &asks("read", None)).await.unwrap().len(), rows.len() + 7);
    let mut used = exchange.use_copy(&asks("read", None)).await.unwrap();
    used.data.recv().await.unwrap().unwrap();
    provider.node.exchange.revoke_agreement(&agreement, "enough").await.unwrap();
    while exchange.agreement_row(&agreement).await.unwrap().state.as_str() == "active" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // the row can be read a moment before the stream's own watch has seen it
    tokio::time::sleep(Duration::from_millis(500)).await;
    let error = used.data.recv().await.unwrap().unwrap_err().to_string();
    assert!(error.contains("agreement-revoked"), "{error}");
    assert!(used.data.recv().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_does_not_outlive_the_connector_that_feeds_it() {
    let folder = tempfile::tempdir().unwrap();
    let (_provider, consumer, _) = holding(folder.path(), OPEN).await;
    let marker = folder.path().join("marker");
    let script = format!("i=0; while [ $i -lt 400 ]; do date > {}; sleep 0.05; i=$((i + 1)); done", marker.display());
    register(&consumer, application("endless", sh(&script))).await;
    let _used = consumer.node.exchange.use_copy(&asks("read", Some("endless"))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(marker.exists());
    consumer.node.stop().await;
    std::fs::remove_file(&marker).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!marker.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_stops_when_its_copy_is_destroyed_or_its_application_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (_provider, consumer, _) = holding(folder.path(), OPEN).await;
    let exchange = &consumer.node.exchange;
    let used = endless(&consumer).await;
    exchange.remove_application("endless").await.unwrap();
    let (why, took) = broken(used).await;
    assert!(why.contains("application-unknown") && took < Duration::from_secs(1), "{why} after {took:?}");
    let used = endless(&consumer).await;
    exchange.hand_over(&asks("delete", None), &Handing::default()).await.unwrap();
    let (why, took) = broken(used).await;
    assert!(why.contains("copy-without-key") && took < Duration::from_secs(1), "{why} after {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_outlives_the_freshness_limit_only_while_the_provider_answers() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let (provider, consumer, _) = pair_with(folder.path(), OPEN, clock.clone()).await;
    let offer = std::fs::read_to_string(provider.home.join("o.toml")).unwrap();
    std::fs::write(provider.home.join("o.toml"), format!("freshness_seconds = 100\n{offer}")).unwrap();
    provider.node.exchange.publish(&provider.home.join("o.toml")).await.unwrap();
    let agreement = consumer.agree(&provider).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let mut used = endless(&consumer).await;
    let begun = clock.now();
    // ahead of the limit a newer word is asked for, and the use goes on past it
    clock.advance(Duration::from_secs(85));
    let asked = async {
        loop {
            let row = consumer.node.exchange.agreement_row(&agreement).await.unwrap();
            if row.status.is_some_and(|known| known.received > begun) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.expect("a newer word comes");
    clock.advance(Duration::from_secs(60));
    tokio::time::sleep(Duration::from_millis(600)).await;
    while let Ok(block) = tokio::time::timeout(Duration::from_millis(1), used.data.recv()).await {
        block.unwrap().unwrap();
    }
    // nobody answers any more
    provider.node.stop().await;
    clock.advance(Duration::from_secs(100));
    let (why, took) = broken(used).await;
    assert!(why.contains("status-stale") && took < Duration::from_secs(1), "{why} after {took:?}");
}

#[test]
fn an_operator_registers_uses_and_deletes_by_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let (hospital, research) = paired(folder.path());
    let agreement = agreed(&hospital, &research);
    research.ok(&["fetch", &agreement, "--purpose", "research"]);
    let uses = ["use", COHORT, "--purpose", "research"];
    let using = |more: &[&'static str]| [&uses[..], more].concat();
    // registered, shown, used
    let script = research.write("count.sh", "wc -l\n");
    research.ok(&[
        "application",
        "register",
        "lines",
        "--kind",
        "pipe",
        "--algorithm",
        &script,
        "--env",
        "02",
        "--command",
        "sh",
        &script,
    ]);
    let shown = research.json(&["application", "show", "lines"]);
    assert_eq!((shown["name"].as_str(), shown["way"]["kind"].as_str()), (Some("lines"), Some("pipe")));
    assert!(shown["way"]["command"][0].as_str().unwrap().starts_with('/'), "{shown}");
    assert!(research.ok(&["application", "list"]).contains("lines"));
    let plain = research.ok(&uses);
    let counted = research.ok(&using(&["--application", "lines"]));
    assert_eq!(counted.trim(), plain.lines().count().to_string());
    assert_eq!(research.ok(&using(&["--application", "lines", "--quiet"])), "");
    // one that fails says so
    research.ok(&[
        "application",
        "register",
        "fails",
        "--kind",
        "pipe",
        "--command",
        "sh",
        "-c",
        "cat >/dev/null; exit 9",
    ]);
    let (code, sentence) = research.refused(&using(&["--application", "fails"]));
    assert!(
        code == "application-failed" && sentence.contains("exit code 9") && sentence.contains("stays counted"),
        "{sentence}"
    );
    // what it runs changed; removed; unknown
    research.write("count.sh", "cat\n");
    assert_eq!(research.refused(&using(&["--application", "lines"])).0, "application-changed");
    research.ok(&["application", "remove", "lines"]);
    assert_eq!(research.refused(&using(&["--application", "lines"])).0, "application-unknown");
    // options of two kinds at once
    assert!(
        !research
            .run(&[
                "application",
                "register",
                "x",
                "--kind",
                "pipe",
                "--url",
                "http://127.0.0.1:1/",
                "--command",
                "cat"
            ])
            .status
            .success()
    );
    // a file of its own
    let inbox = folder.path().join("inbox");
    std::fs::create_dir(&inbox).unwrap();
    std::fs::set_permissions(&inbox, std::fs::Permissions::from_mode(0o700)).unwrap();
    research.ok(&["application", "register", "viewer", "--kind", "file", "--path", inbox.to_str().unwrap()]);
    let handed = research.json(&using(&["--application", "viewer"]));
    assert_eq!(std::fs::read_to_string(handed["path"].as_str().unwrap()).unwrap(), plain);
    research.ok(&["use", "done", handed["id"].as_str().unwrap()]);
    assert!(!Path::new(handed["path"].as_str().unwrap()).exists());
    // nothing is written over, and nothing is spent on it
    let out = research.write("there.csv", "precious");
    let to = |more: &[&'static str]| -> Vec<String> {
        let mut all: Vec<String> = uses.iter().map(ToString::to_string).collect();
        all.extend(["--out".to_owned(), out.clone()]);
        all.extend(more.iter().map(ToString::to_string));
        all
    };
    let args = to(&[]);
    let refused = research.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--force"));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "precious");
    let args = to(&["--force"]);
    research.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(std::fs::read_to_string(&out).unwrap(), plain);
    // the policy of the cohort lets nothing be made of it
    let made = ["derived", "register", &script, "--title", "T", "--from", COHORT, "--purpose", "research"];
    assert_eq!(research.refused(&made).0, "policy-no-permit");
    assert_eq!(research.ok(&["derived", "list"]).trim(), "none");
    // contract words, and the end
    assert_eq!(research.refused(&using(&["--action", "sell"])).0, "action-not-a-use");
    assert!(research.json(&using(&["--action", "delete"]))["deleted"].is_string());
    assert_eq!(research.refused(&uses).0, "copy-without-key");
    let log = research.log();
    assert!(!log.contains("exit 9") && !log.contains("count.sh"), "{log}");
}
