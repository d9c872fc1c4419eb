//! Durable signed receipts beside bare sled.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use counterseal::{
    crypto::{
        RandomExt as _, SigningKey, SystemRandom,
        jws::{KeyRole, Kid},
    },
    id::{Did, ReceiptId},
    receipt::{
        Commit, Committer, Kind, Log, LogSigner, NewReceipt, Receipt, SeriesKey, merkle::leaf_hash,
        proof::verify_inclusion,
    },
    store::{SledStore, Store},
    time::{Clock as _, SystemClock},
};

use crate::promise;

const WRITERS: [usize; 4] = [1, 8, 64, 512];
const ROUND: Duration = Duration::from_secs(3);

/// What one run came to.
struct Run {
    /// Commits a second.
    rate: f64,
    /// Median and 99th percentile of one append, from before its signature until it is durable.
    p50: Duration,
    p99: Duration,
    /// Bytes of a receipt.
    bytes: usize,
}

impl Run {
    fn of(mut times: Vec<Duration>, begun: Instant, bytes: usize) -> Self {
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
        Self { rate: times.len() as f64 / begun.elapsed().as_secs_f64(), p50: at(50), p99: at(99), bytes }
    }
}

/// Durable signed receipts, beside bare sled group commits with the same sync; then the log.
///
/// Two bare ones: of the same rows and bytes that readers find afterwards (a receipt and its index rows), which bare sled has
/// to write; and of those alone that we write, since our index rows are in memory until they are frozen.
pub fn receipts() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    for writers in WRITERS {
        let folder = tempfile::tempdir().expect("a folder");
        let signed = runtime.block_on(signed(&folder.path().join("signed"), writers));
        let bare = bare_sled(&runtime, &folder.path().join("bare"), signed.bytes, writers, true);
        let least = bare_sled(&runtime, &folder.path().join("least"), signed.bytes, writers, false);
        println!(
            "receipts, {writers} writers: {:.0}/s signed and durable (append p50 {:.2?}, p99 {:.2?}); bare sled, the same rows, bytes and sync: {:.0}/s (p50 {:.2?}, p99 {:.2?}); without the index rows: {:.0}/s, of which ours is {:.2}",
            signed.rate,
            signed.p50,
            signed.p99,
            bare.rate,
            bare.p50,
            bare.p99,
            least.rate,
            signed.rate / least.rate
        );
        if writers == 64 {
            promise(
                "signed receipts with 64 writers, of bare sled",
                signed.rate / bare.rate,
                signed.rate / bare.rate >= 0.6,
            );
        } else {
            println!("          that is {:.2} of bare sled", signed.rate / bare.rate);
        }
    }
    runtime.block_on(log());
}

fn parts() -> (Did, Arc<SigningKey>, Kid) {
    let did = Did::parse("did:web:hospital.invalid").expect("a DID");
    let key = Arc::new(SigningKey::from_seed([2; 32]));
    let kid = Kid::of(&did, KeyRole::Signing, &key.public());
    (did, key, kid)
}

fn receipt(did: &Did, key: &SigningKey, kid: &Kid, series: SeriesKey) -> NewReceipt {
    let now = SystemClock.now();
    let id = ReceiptId::parse(SystemRandom.urn(now)).expect("an id");
    NewReceipt::sign(Receipt::new(id, Kind::Used, now, did.clone().into()), kid, key, series).expect("a receipt")
}

async fn committer(path: &std::path::Path, did: &Did) -> (Arc<dyn Store>, Committer) {
    let store: Arc<dyn Store> = Arc::new(SledStore::open(path).expect("a store"));
    let signer = LogSigner { did: did.clone(), key: SigningKey::from_seed([1; 32]) };
    let committer = Committer::start(store.clone(), signer, vec![]).await.expect("a committer");
    (store, committer)
}

async fn signed(path: &std::path::Path, writers: usize) -> Run {
    let (did, key, kid) = parts();
    let (_, committer) = committer(path, &did).await;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (committer, key, kid, did) = (committer.clone(), key.clone(), kid.clone(), did.clone());
            let series = SeriesKey::derive(&[writer as u8; 32], &did);
            tokio::spawn(async move {
                let (mut times, mut bytes) = (Vec::new(), 0);
                while begun.elapsed() < ROUND {
                    let began = Instant::now();
                    let new = receipt(&did, &key, &kid, series.clone());
                    // as it is kept: the parts decoded, two of them after their lengths
                    bytes = new.jws.as_str().split('.').map(|part| part.len() * 3 / 4).sum::<usize>() + 4;
                    let mut commit = Commit::new();
                    commit.receipt(new);
                    committer.commit(commit).await.expect("committed");
                    times.push(began.elapsed());
                }
                (times, bytes)
            })
        })
        .collect();
    let (mut all, mut bytes) = (Vec::new(), 0);
    for task in tasks {
        let (times, length) = task.await.expect("a writer");
        all.extend(times);
        bytes = length;
    }
    let run = Run::of(all, begun, bytes);
    committer.stop().await;
    run
}

/// Whether appending and proving slow down as the log grows: at a thousand entries and at a million.
async fn log() {
    let (did, key, kid) = parts();
    let folder = tempfile::tempdir().expect("a folder");
    let (store, committer) = committer(folder.path(), &did).await;
    let log = Log::new(store);
    let mut rates = Vec::new();
    let mut size = 0_u64;
    for target in [1_000_u64, 1_000_000] {
        // one signature serves all of these: it is the log that is measured here
        let model = receipt(&did, &key, &kid, SeriesKey::derive(&[0; 32], &did));
        let grow = async |count: u64| {
            let begun = Instant::now();
            let mut left = count;
            while left > 0 {
                let group = left.min(500);
                let mut commit = Commit::new();
                (0..group).for_each(|_| commit.receipt(model.clone()));
                committer.commit(commit).await.expect("committed");
                left -= group;
            }
            count as f64 / begun.elapsed().as_secs_f64()
        };
        grow(target - size).await;
        let appended = grow(20_000).await;
        size = target + 20_000;
        let (checkpoint, _) = log.checkpoint().await.expect("a log").expect("a checkpoint");
        let places: Vec<u64> = (0..500).map(|n| n * 7919 % checkpoint.size).collect();
        let begun = Instant::now();
        let mut proofs = Vec::new();
        for place in &places {
            proofs.push(log.prove_inclusion(*place, checkpoint.size).await.expect("a log").expect("a proof"));
        }
        let proving = places.len() as f64 / begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        for old in &places {
            log.prove_consistency(*old, checkpoint.size).await.expect("a log").expect("a proof");
        }
        let linking = places.len() as f64 / begun.elapsed().as_secs_f64();
        let mut leaves = Vec::new();
        for place in &places {
            leaves.push(leaf_hash(&log.entries(*place, 1).await.expect("a log")[0]));
        }
        let begun = Instant::now();
        for _ in 0..20 {
            for ((place, path), leaf) in places.iter().zip(&proofs).zip(&leaves) {
                assert!(verify_inclusion(*place, checkpoint.size, leaf, path, &checkpoint.root));
            }
        }
        let verifying = 20.0 * places.len() as f64 / begun.elapsed().as_secs_f64();
        println!(
            "log of {size}: {appended:.0} appends/s in commits of 500, {proving:.0} inclusion and {linking:.0} consistency proofs made/s, {verifying:.0} inclusion proofs verified/s"
        );
        rates.push((appended, proving));
    }
    let (small, large) = (rates[0], rates[1]);
    promise("appends at a million, of those at a thousand", large.0 / small.0, large.0 / small.0 >= 0.6);
    promise("proofs at a million, of those at a thousand", large.1 / small.1, large.1 / small.1 >= 0.2);
    committer.stop().await;
}

/// The rows of a receipt: itself and, where they are wanted, its index rows (by hash, by id, by kind); with each group series
/// and head.
fn bare_sled(
    runtime: &tokio::runtime::Runtime,
    path: &std::path::Path,
    bytes: usize,
    writers: usize,
    indexed: bool,
) -> Run {
    let db = sled::Config::new().path(path).flush_every_ms(None).cache_capacity(32 << 20).open().expect("sled");
    let log = std::fs::File::open(path.join("db")).expect("its log");
    let (sender, mut jobs) = tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<()>>(4096);
    runtime.block_on(async move {
        let committer = tokio::task::spawn_blocking(move || {
            let mut index = 0_u64;
            while let Some(first) = jobs.blocking_recv() {
                let mut group = vec![first];
                while group.len() < 1024
                    && let Ok(next) = jobs.try_recv()
                {
                    group.push(next);
                }
                let mut batch = sled::Batch::default();
                for _ in &group {
                    let place = index.to_be_bytes();
                    batch.insert([&b"r/"[..], &place].concat(), vec![7_u8; 73 + bytes]);
                    if indexed {
                        let spread = index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().repeat(4);
                        batch.insert([&b"rs/"[..], &spread].concat(), place.to_vec());
                        batch.insert([&b"ri/urn:uuid:01a20b6f-70be-7cf6-9e8e-"[..], &place].concat(), place.to_vec());
                        batch.insert([&b"rk/used/"[..], &place].concat(), vec![7_u8; 10]);
                    }
                    let series = [7, (index % writers as u64) as u8].repeat(16);
                    batch.insert([&b"s/"[..], &series].concat(), place.to_vec());
                    index += 1;
                }
                batch.insert(&b"head"[..], vec![7_u8; 1200]);
                db.apply_batch(batch).expect("applied");
                db.flush().expect("flushed");
                log.sync_data().expect("synced");
                group.into_iter().for_each(|answer| {
                    let _ = answer.send(());
                });
            }
        });
        let begun = Instant::now();
        let tasks: Vec<_> = (0..writers)
            .map(|_| {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut times = Vec::new();
                    while begun.elapsed() < ROUND {
                        let began = Instant::now();
                        let (answer, answered) = tokio::sync::oneshot::channel();
                        sender.send(answer).await.expect("queued");
                        answered.await.expect("committed");
                        times.push(began.elapsed());
                    }
                    times
                })
            })
            .collect();
        drop(sender);
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("a writer"));
        }
        let run = Run::of(all, begun, bytes);
        committer.await.expect("ended");
        run
    })
}
