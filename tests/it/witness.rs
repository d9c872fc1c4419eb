//! Partners witness each other's logs: what they cosign, what they refuse, and what they raise an alarm about.

use std::{path::Path, sync::Arc, time::Duration};

use counterseal::{
    exchange::FetchRequest,
    id::{ParticipantId, Sha256},
    receipt::{
        Kind, Log,
        checkpoint::{Checkpoint, witness_name},
        merkle::{leaf_hash, root_of},
        tile::{Level, Tile, read_bundle},
        witness::Submission,
    },
    time::{Clock, SystemClock},
};
use serde_json::{Value, json};

use crate::{
    house::House,
    locks::{Actor, OPEN, again, pair_with, start, wanted},
};

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..400 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("waited 10 s in vain until {what}");
}

/// How far `witness` has cosigned the log of `of`.
async fn cosigned(of: &Actor, witness: &Actor) -> u64 {
    let all = of.node.exchange.witnessed().await.unwrap();
    all.into_iter().find(|(did, _)| did == witness.did()).map_or(0, |(_, size)| size)
}

async fn all_cosigned(of: &Actor, witness: &Actor) -> bool {
    let last = of.node.exchange.receipts.last_with(&ParticipantId::from(witness.did().clone())).await.unwrap();
    last.is_some_and(|_| true) && cosigned(of, witness).await > last.unwrap()
}

fn log_url(actor: &Actor, path: &str) -> String {
    format!("{}/2025-1/counterseal/v1/log/1/{path}", actor.node.exchange.base_url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_party_cosigns_what_the_other_wrote_about_it() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    until("both have cosigned", async || {
        all_cosigned(&provider, &consumer).await && all_cosigned(&consumer, &provider).await
    })
    .await;
    for (of, witness) in [(&provider, &consumer), (&consumer, &provider)] {
        for cosigned in of.node.exchange.cosignatures(1, 0, 100).await.unwrap() {
            let (log, key) = (format!("{}/log/1", of.did()), of.node.exchange.keys.log.public());
            let checkpoint = Checkpoint::verify(&cosigned.note, &log, &key).unwrap();
            assert_eq!(checkpoint.size, cosigned.size);
            let cosigner = witness.node.exchange.keys.cosigner.public();
            let at = checkpoint.cosigned_by(&cosigned.line, &witness_name(witness.did()), &cosigner).unwrap();
            assert!(SystemClock.now().since(at) < Duration::from_secs(60));
        }
    }
    // from then on receipts say how much of the partner's log their signer knew
    consumer.fetch(FetchRequest { another: true, ..wanted(&agreement) }).await.unwrap();
    let last = consumer.node.exchange.receipts.size().await.unwrap() - 1;
    let receipt = consumer.node.exchange.receipts.at(last).await.unwrap().unwrap().receipt;
    let known = receipt.peer_checkpoint.unwrap();
    assert_eq!(known.root, provider.node.exchange.log.root(known.size).await.unwrap());
    // halves came with their place, and it was checked
    let halves = consumer.node.exchange.receipts.halves(&agreement).await.unwrap();
    let receipts: Vec<_> = halves.iter().filter(|half| half.kind != "agreement").collect();
    assert!(receipts.len() >= 4 && receipts.iter().all(|half| half.number.is_some() && half.proof.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anybody_reads_the_log_and_learns_nothing_of_whose_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    until("it is cosigned", async || all_cosigned(&provider, &consumer).await).await;
    // somebody whom nobody has paired: its certificate opens nothing else
    let stranger = start(folder.path(), "s", Arc::new(SystemClock)).await;
    let client = stranger.client(&provider);
    let get = async |path: &str| {
        let answer = client.get(log_url(&provider, path)).send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
    };
    let (status, note) = get("checkpoint").await;
    let note = String::from_utf8(note).unwrap();
    assert_eq!(status, 200);
    let origin = format!("{}/log/1", provider.did());
    let checkpoint = Checkpoint::verify(&note, &origin, &provider.node.exchange.keys.log.public()).unwrap();
    let mut entries = Vec::new();
    for tile in Tile::all(checkpoint.size).into_iter().filter(|tile| tile.level == Level::Entries) {
        let (status, bytes) = get(&tile.to_string()).await;
        assert_eq!(status, 200, "{tile}");
        entries.extend(read_bundle(&bytes).unwrap());
    }
    let leaves: Vec<Sha256> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    assert_eq!(root_of(&leaves), checkpoint.root, "the entries are those that are signed");
    for path in ["tile/0/000", "tile/entries/999", "tile/1/000", "tile/0/0", "nothing"] {
        assert_eq!(get(path).await.0, 404, "{path}");
    }
    let shown: Vec<u8> = entries.concat().into_iter().chain(note.bytes()).collect();
    let name = consumer.did().as_str().strip_prefix("did:web:").unwrap();
    let own = format!("{}/witness", consumer.did());
    let note_only_names_witnesses = note.replace(&own, "");
    assert!(!note_only_names_witnesses.contains(name), "{note}");
    assert!(!shown.windows(agreement.as_str().len()).any(|window| window == agreement.as_str().as_bytes()));
    for closed in ["receipts", "add-checkpoint"] {
        let url = format!("{}/2025-1/counterseal/v1/{closed}", provider.node.exchange.base_url);
        assert_eq!(client.post(url).body("old 0\n\n").send().await.unwrap().status().as_u16(), 403, "{closed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_who_was_away_catches_up_though_we_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    until("it is cosigned", async || all_cosigned(&provider, &consumer).await).await;
    let consumer_at = consumer.node.running.clone();
    let home = consumer.home.clone();
    consumer.node.stop().await;
    provider.node.exchange.revoke_agreement(&agreement, "over").await.unwrap();
    let (at, provider_home) = (provider.node.running.clone(), provider.home.clone());
    provider.node.stop().await;
    let provider = again(&provider_home, at.clone()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let consumer = again(&home, consumer_at.clone()).await;
    until("what was missed is cosigned", async || all_cosigned(&provider, &consumer).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_one_checkpoint_a_second_and_one_after_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    let begun = std::time::Instant::now();
    for _ in 0..12 {
        consumer.fetch(FetchRequest { another: true, ..wanted(&agreement) }).await.unwrap();
    }
    until("the last is cosigned", async || all_cosigned(&provider, &consumer).await).await;
    let cosignatures = provider.node.exchange.cosignatures(1, 0, 1000).await.unwrap();
    // however long it took here: not more than one a second, and the first at once
    assert!(
        cosignatures.len() as u64 <= begun.elapsed().as_secs() + 2,
        "{} in {:?}",
        cosignatures.len(),
        begun.elapsed()
    );
    let releases = provider.count(Kind::Released).await;
    assert!(cosignatures.len() < releases, "{} for {releases} releases", cosignatures.len());
    // nothing new, nothing sent
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(provider.node.exchange.cosignatures(1, 0, 1000).await.unwrap().len(), cosignatures.len());
}

/// Submits a checkpoint of the provider's log to the consumer, as the provider.
async fn submit(provider: &Actor, consumer: &Actor, submission: &Submission) -> (u16, String) {
    let url = format!("{}/2025-1/counterseal/v1/add-checkpoint", consumer.node.exchange.base_url);
    let answer = provider.client(consumer).post(url).body(submission.body()).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn sign(provider: &Actor, size: u64, root: Sha256) -> String {
    Checkpoint { origin: format!("{}/log/1", provider.did()), size, root }.sign(&provider.node.exchange.keys.log)
}

async fn quiet(provider: &Actor, consumer: &Actor) -> (u64, Sha256) {
    until("it is cosigned", async || all_cosigned(provider, consumer).await).await;
    let known = consumer.node.exchange.witnesses.newest(provider.did()).unwrap();
    (known.size, known.root)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_repeated_and_concurrent_checkpoints_are_no_alarm() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let (size, root) = quiet(&provider, &consumer).await;
    let log: &Log = &provider.node.exchange.log;
    // repeated: the same, cosigned again
    let again = Submission { old: size, proof: vec![], note: sign(&provider, size, root) };
    assert_eq!(submit(&provider, &consumer, &again).await.0, 200);
    // late: an earlier one, with a proof that holds
    let earlier = log.root(size - 2).await.unwrap();
    let late = Submission {
        old: 1,
        proof: log.prove_consistency(1, size - 2).await.unwrap().unwrap(),
        note: sign(&provider, size - 2, earlier),
    };
    assert_eq!(submit(&provider, &consumer, &late).await, (409, format!("{size}\n")));
    assert_eq!(submit(&provider, &consumer, &Submission { old: size + 1, ..late }).await.0, 400);
    // concurrent: of many who go on from here, one is cosigned as going on, the others as repetitions or late ones
    provider.node.exchange.revoke_agreement(&agreement, "over").await.unwrap();
    let (checkpoint, note) = log.checkpoint().await.unwrap().unwrap();
    let proof = log.prove_consistency(size, checkpoint.size).await.unwrap().unwrap();
    let next = Submission { old: size, proof, note };
    let answers = futures_util::future::join_all((0..16).map(|_| submit(&provider, &consumer, &next))).await;
    assert!(answers.iter().all(|(status, _)| matches!(status, 200 | 409)), "{answers:?}");
    assert!(answers.iter().filter(|(status, _)| *status == 200).count() <= 1, "{answers:?}");
    let known = consumer.node.exchange.witnesses.newest(provider.did()).unwrap();
    assert!(known.size >= checkpoint.size);
    assert_eq!(consumer.count(Kind::Alarm).await, 0);
    assert!(consumer.node.exchange.alarms().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forked_log_is_an_alarm_with_evidence_and_a_failing_proof_one_that_is_unproven() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let (size, root) = quiet(&provider, &consumer).await;
    let other = Sha256([7; 32]);

    // a proof that fails is asked for again, and only then an alarm
    let forged = Submission { old: size, proof: vec![Sha256([1; 32])], note: sign(&provider, size + 5, other) };
    assert_eq!(submit(&provider, &consumer, &forged).await.0, 422);
    assert_eq!(consumer.count(Kind::Alarm).await, 0);
    assert_eq!(submit(&provider, &consumer, &forged).await.0, 422);
    let alarms = consumer.node.exchange.alarms().await.unwrap();
    assert_eq!((alarms.len(), alarms[0].code.as_str(), alarms[0].proven), (1, "log-unproven", false));
    assert_eq!(submit(&provider, &consumer, &forged).await.0, 422);
    assert_eq!(consumer.count(Kind::Alarm).await, 1, "the same evidence is one alarm");

    // same size, another root: whoever has both notes can show it to anybody
    let fork = Submission { old: size, proof: vec![], note: sign(&provider, size, other) };
    assert_eq!(submit(&provider, &consumer, &fork).await, (409, format!("{size}\n")));
    let alarms = consumer.node.exchange.alarms().await.unwrap();
    let forked = alarms.iter().find(|alarm| alarm.code == "log-forked").unwrap();
    assert!(forked.proven);
    let (log, key) = (format!("{}/log/1", provider.did()), provider.node.exchange.keys.log.public());
    let roots: Vec<_> = forked.objects.iter().map(|note| Checkpoint::verify(note, &log, &key).unwrap()).collect();
    assert_eq!((roots[0].size, roots[0].root), (size, root));
    assert_eq!((roots[1].size, roots[1].root), (size, other));
    assert_eq!(consumer.count(Kind::Alarm).await, 2);
    let events = consumer.node.exchange.events_after(0).await.unwrap();
    assert_eq!(events.iter().filter(|event| event.kind() == "org.counterseal.alarm").count(), 2);
    let status = status(&consumer).await;
    assert_eq!(status["alarms"].as_array().unwrap().len(), 2, "{status}");
    assert_eq!(status["log"]["witnesses"][0]["peer"], json!(provider.did()));

    // the honest log goes on
    provider.node.exchange.revoke_agreement(&agreement, "over").await.unwrap();
    until("it is cosigned", async || all_cosigned(&provider, &consumer).await).await;

    // somebody else's log, a log that nobody signed, another epoch
    let stranger = Checkpoint { origin: "did:web:x.invalid/log/1".into(), size: 1, root: other };
    let key = &provider.node.exchange.keys.log;
    for (note, status) in [
        (stranger.sign(key), 404),
        (Checkpoint { origin: log.replace("/log/1", "/log/2"), ..stranger.clone() }.sign(key), 404),
        (Checkpoint { origin: log.clone(), ..stranger.clone() }.sign(&consumer.node.exchange.keys.log), 403),
        ("nonsense\n".into(), 400),
    ] {
        let submission = Submission { old: 0, proof: vec![], note };
        assert_eq!(submit(&provider, &consumer, &submission).await.0, status);
    }
}

async fn status(actor: &Actor) -> Value {
    let house = House::elsewhere(actor.home.clone(), "x");
    tokio::task::block_in_place(|| house.json(&["status"]))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_of_a_home_is_found_out_before_it_releases_anything() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let (at, home) = (provider.node.running.clone(), provider.home.clone());
    provider.node.stop().await;
    let old = folder.path().join("old");
    copy(&home.join("store"), &old);
    let provider = again(&home, at.clone()).await;
    for _ in 0..4 {
        consumer.fetch(FetchRequest { another: true, ..wanted(&agreement) }).await.unwrap();
    }
    until("it is cosigned", async || all_cosigned(&provider, &consumer).await).await;
    provider.node.stop().await;
    // the old files, in the folder where they were
    for entry in std::fs::read_dir(home.join("store")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }
    copy(&old, &home.join("store"));
    let provider = again(&home, at.clone()).await;
    let refusal = consumer.fetch(FetchRequest { another: true, ..wanted(&agreement) }).await.unwrap_err();
    assert!(refusal.is("log-behind"), "{refusal}");
    assert_eq!(provider.count(Kind::Released).await, 1, "nothing was released by the copy");
    assert_eq!(status(&provider).await["log"]["behind"]["code"], "log-behind");
    assert_eq!(consumer.count(Kind::Alarm).await, 0, "and nobody is accused");
}

/// A number that no receipt could say would keep us from signing anything that names the partner's checkpoint.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_of_more_than_can_be_said_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    for size in [1 << 53, u64::MAX] {
        let huge = Submission { old: 0, proof: vec![], note: sign(&provider, size, Sha256([7; 32])) };
        let (status, why) = submit(&provider, &consumer, &huge).await;
        assert_eq!(status, 400, "{size}: {why}");
    }
    consumer.fetch(wanted(&agreement)).await.unwrap();
}

/// What we hold of a partner's log stays as it came: a receipt that is shown at another place is an alarm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_that_moves_is_an_alarm_and_takes_nothing_away() {
    let folder = tempfile::tempdir().unwrap();
    let (provider, consumer, agreement) = pair_with(folder.path(), OPEN, Arc::new(SystemClock)).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let request = counterseal::exchange::UseRequest {
        of: "d".into(),
        purpose: "x".into(),
        action: "read".into(),
        application: None,
    };
    consumer.node.exchange.use_copy(&request).await.unwrap();
    let held = async || {
        let halves = provider.node.exchange.receipts.halves(&agreement).await.unwrap();
        halves.into_iter().find(|half| half.kind == "used")
    };
    until("the half has come", async || held().await.is_some()).await;
    let before = held().await.unwrap();
    // the consumer logs the same receipt once more, under the next number, and shows it there
    let exchange = &consumer.node.exchange;
    let row = exchange.agreement_row(&agreement).await.unwrap();
    let stored = exchange.receipts.by_sha256(&before.jws.sha256()).await.unwrap().unwrap();
    let mut commit = counterseal::receipt::Commit::new();
    commit.receipt(counterseal::receipt::NewReceipt {
        receipt: stored.receipt,
        jws: before.jws.clone(),
        series_key: row.series_key(),
    });
    let placed = exchange.committer.commit(commit).await.unwrap().receipts.remove(0);
    let proof = exchange.log.prove(placed.index).await.unwrap().unwrap().to_string();
    let half = json!({ "agreement": agreement, "kind": "used", "receipt": before.jws, "number": placed.number, "proof": proof });
    let url = format!("{}/2025-1/counterseal/v1/receipts", provider.node.exchange.base_url);
    let answer = consumer.client(&provider).post(url).json(&json!({ "halves": [half] })).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "half-moved");
    let after = held().await.unwrap();
    assert_eq!((after.number, after.proof), (before.number, before.proof), "as it came first");
    assert_eq!(provider.node.exchange.alarms().await.unwrap()[0].code, "half-moved");
}
