//! A long life: a log of millions of receipts, most of them in the archive. How fast it starts, how much memory it takes,
//! how fast it appends, how fast pages are found, how many bytes a receipt takes on the disk.
//!
//! `COUNTERSEAL_LIFE=10000000 cargo bench --bench connector -- life`; a million without it.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use counterseal::{
    crypto::{
        Random as _, SigningKey, SystemRandom, b64,
        jws::{Jws, KeyRole, Kid},
        sha256,
    },
    id::{AgreementId, Did, ParticipantId, ReceiptId},
    receipt::{
        Archiver, Commit, Committer, DecisionRecord, Filter, Kind, LogSigner, NewReceipt, RUN, Receipt, Receipts,
        SeriesKey, content_key,
    },
    store::{SledStore, Store},
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;

use crate::promise;

const FOLDER: &str = "COUNTERSEAL_LIFE_FOLDER";
const BEGUN: i64 = 1_764_000_000_000;

fn did() -> Did {
    Did::parse("did:web:hospital.invalid").expect("a DID")
}

fn partner(n: u64) -> ParticipantId {
    ParticipantId::from(Did::parse(format!("did:web:partner-{}.invalid", n % 200)).expect("a DID"))
}

fn agreement(n: u64) -> AgreementId {
    AgreementId::parse(format!("urn:uuid:agreement-{}", n % 1000)).expect("an id")
}

async fn open(folder: &Path) -> (Arc<dyn Store>, Committer) {
    let store: Arc<dyn Store> = Arc::new(SledStore::open(folder).expect("a store"));
    let signer = LogSigner { did: did(), key: SigningKey::from_seed([1; 32]) };
    let committer = Committer::start(store.clone(), signer, vec![]).await.expect("a committer");
    (store, committer)
}

/// A receipt as a release leaves it, but for its signature: random bytes take as much room as a signature does.
fn receipt(n: u64, kid: &Kid) -> (NewReceipt, Vec<u8>) {
    let time = Timestamp::from_millis(BEGUN + n as i64 * 100);
    // as a UUID of version 7 begins with its time
    let (high, low) = (time.millis() >> 16, time.millis() & 0xffff);
    let id = ReceiptId::parse(format!("urn:uuid:{high:08x}-{low:04x}-7d94-b82f-{n:012x}")).expect("an id");
    let kind = [Kind::Released, Kind::Delivered, Kind::Used, Kind::Denied][(n % 4) as usize];
    let mut receipt = Receipt::new(id, kind, time, did().into());
    receipt.consumer = Some(partner(n));
    receipt.agreement = Some(agreement(n));
    receipt.series = agreement(n).as_str().to_owned();
    receipt.action = Some("release".into());
    receipt.commitments = BTreeMap::from([("purpose".into(), sha256(&n.to_be_bytes()))]);
    let hash = sha256(&(n ^ 1).to_be_bytes());
    receipt.key_sha256 = Some(hash);
    receipt.decision = Some(DecisionRecord {
        verdict: if kind == Kind::Denied { "default-deny" } else { "allow" }.into(),
        policies: vec!["cohort-research".into()],
        reason: None,
        policy_sha256: sha256(b"policy"),
        schema_sha256: sha256(b"schema"),
        engine: "cedar-policy 4.14".into(),
        request_commit: sha256(&(n ^ 2).to_be_bytes()),
    });
    let header =
        serde_json::json!({ "alg": "EdDSA", "kid": kid.to_string(), "typ": "counterseal-receipt+jws" }).to_string();
    let payload = serde_json::to_vec(&receipt).expect("JSON");
    let mut signature = [0; 64];
    SystemRandom.fill(&mut signature);
    let text = format!("{}.{}.{}", b64(header.as_bytes()), b64(&payload), b64(&signature));
    let mut request = sha256(&(n ^ 3).to_be_bytes()).0.to_vec();
    request.extend_from_slice(format!("{{\"action\":{{\"id\":\"release\"}},\"context\":{{\"count\":{n},\"networkAddress\":\"10.0.{}.{}\",\"purpose\":\"research\"}}}}", n % 256, n / 256 % 256).as_bytes());
    let series = SeriesKey::derive(&[(n % 251) as u8; 32], &did());
    (NewReceipt { receipt, jws: Jws::parse(text).expect("a JWS"), series_key: series }, request)
}

async fn grow(committer: &Committer, from: u64, count: u64) -> f64 {
    let kid = Kid::of(&did(), KeyRole::Signing, &SigningKey::from_seed([2; 32]).public());
    let begun = Instant::now();
    let mut n = from;
    while n < from + count {
        let mut commits = Vec::new();
        for _ in 0..4 {
            let mut commit = Commit::new();
            for _ in 0..250.min((from + count).saturating_sub(n)) {
                let (new, request) = receipt(n, &kid);
                commit.content(content_key(&new.receipt.id, "request"), request);
                commit.receipt(new);
                n += 1;
            }
            commits.push(committer.commit(commit));
        }
        for done in futures_util::future::join_all(commits).await {
            done.expect("committed");
        }
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

/// The best of three: less than a second each, on a machine that others use too.
async fn best(committer: &Committer, from: u64) -> f64 {
    let mut best = 0_f64;
    for round in 0..3 {
        best = best.max(grow(committer, from + round * 20_000, 20_000).await);
    }
    best
}

fn size_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    entries
        .map(|one| if one.path().is_dir() { size_of(&one.path()) } else { one.metadata().map_or(0, |meta| meta.len()) })
        .sum()
}

/// The process that opens a long log afresh; says how it went.
pub fn reopened() -> bool {
    let Some(folder) = std::env::var_os(FOLDER) else { return false };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let begun = Instant::now();
        let (store, committer) = open(Path::new(&folder)).await;
        let ready = begun.elapsed();
        let receipts = Receipts::new(store, did());
        let size = receipts.size().await.expect("a size");
        let middle = Timestamp::from_millis(BEGUN + size as i64 * 50);
        let mut slowest = Duration::ZERO;
        for filter in [
            Filter { agreement: Some(agreement(7)), ..Filter::default() },
            Filter { peer: Some(partner(7)), ..Filter::default() },
            Filter { kind: Some(Kind::Denied), ..Filter::default() },
            Filter { verdict: Some("default-deny".into()), ..Filter::default() },
            Filter { since: Some(middle), ..Filter::default() },
            Filter { since: Some(middle), peer: Some(partner(3)), kind: Some(Kind::Denied), ..Filter::default() },
        ] {
            for from in [0, size / 2, size - 2000] {
                let mut best = Duration::MAX;
                for _ in 0..3 {
                    let begun = Instant::now();
                    receipts.list(&filter, from, 100).await.expect("a page");
                    best = best.min(begun.elapsed());
                }
                slowest = slowest.max(best);
            }
        }
        let resident = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident =
            resident.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default().trim().to_owned();
        let rate = best(&committer, size).await;
        println!("{} {} {rate:.0} {}", ready.as_millis(), slowest.as_micros(), resident.trim_end_matches(" kB"));
        committer.stop().await;
    });
    true
}

/// Fills a log, archives it, opens it afresh.
pub fn life() {
    let count: u64 = std::env::var("COUNTERSEAL_LIFE").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    runtime.block_on(async {
        let (store, committer) = open(&path).await;
        let stop = CancellationToken::new();
        let archiver = Archiver::new(store, did(), RUN);
        let begun = Instant::now();
        let mut n = 0;
        while n < count {
            let part = RUN.min(count - n);
            // as it goes on: the archive takes its time beside the appends
            let (rate, _) =
                tokio::join!(grow(&committer, n, part), async { archiver.step(&stop).await.expect("archived") });
            n += part;
            if (n / RUN).is_multiple_of(16) {
                println!(
                    "  {n} receipts after {:.0} s, {rate:.0}/s, {} in the archive",
                    begun.elapsed().as_secs_f64(),
                    archiver.frozen().await.expect("a place")
                );
            }
        }
        archiver.step(&stop).await.expect("archived");
        committer.stop().await;
    });
    let parts = ["sled", "archive", "content", "objects"].map(|part| (part, size_of(&path.join(part)) / count));
    println!("  bytes a receipt, by part: {parts:?}");
    let bytes = size_of(&path) / count;
    let mut empty = Vec::new();
    let fresh = folder.path().join("fresh");
    runtime.block_on(async {
        let (_, committer) = open(&fresh).await;
        empty.push(best(&committer, 0).await);
        committer.stop().await;
    });
    let output =
        Command::new(std::env::current_exe().expect("ourselves")).env(FOLDER, &path).output().expect("a process");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [ready, page, rate, resident] = figures[..] else {
        panic!("{text}{}", String::from_utf8_lossy(&output.stderr))
    };
    println!(
        "a log of {count}: {bytes} bytes of disk a receipt; {rate:.0} appends/s, {:.0} into an empty one",
        empty[0]
    );
    promise("milliseconds from start to ready", ready, ready < 2000.0);
    promise("MiB resident", resident / 1024.0, resident / 1024.0 < 150.0);
    promise("appends, of those into an empty log", rate / empty[0], rate / empty[0] >= 0.8);
    promise("milliseconds of the slowest page of 100", page / 1000.0, page / 1000.0 < 50.0);
    promise("bytes of disk a receipt", bytes as f64, bytes < 2048);
}
