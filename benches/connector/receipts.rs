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
    receipt::{Commit, Committer, Kind, LogSigner, NewReceipt, Receipt, SeriesKey},
    store::{SledStore, Store},
    time::{Clock as _, SystemClock},
};

use crate::promise;

const WRITERS: usize = 64;
const ROUND: Duration = Duration::from_secs(3);

/// Durable signed receipts with 64 writers, beside bare sled group commits of the same rows and bytes with the same sync.
pub fn receipts() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let did = Did::parse("did:web:hospital.invalid").expect("a DID");
    let key = Arc::new(SigningKey::from_seed([2; 32]));
    let kid = Kid::of(&did, KeyRole::Signing, &key.public());
    let (signed, bytes) = runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(SledStore::open(&folder.path().join("signed")).expect("a store"));
        let signer = LogSigner { did: did.clone(), key: SigningKey::from_seed([1; 32]) };
        let committer = Committer::start(store, signer, vec![]).await.expect("a committer");
        let begun = Instant::now();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (committer, key, kid, did) = (committer.clone(), key.clone(), kid.clone(), did.clone());
                tokio::spawn(async move {
                    let (mut count, mut bytes) = (0_u64, 0);
                    while begun.elapsed() < ROUND {
                        let now = SystemClock.now();
                        let id = ReceiptId::parse(SystemRandom.urn(now)).expect("an id");
                        let receipt = Receipt::new(id, Kind::Used, now, did.clone().into());
                        let series = SeriesKey::derive(&[writer as u8; 32], &did);
                        let new = NewReceipt::sign(receipt, &kid, &key, series).expect("a receipt");
                        bytes = new.jws.as_str().len();
                        let mut commit = Commit::new();
                        commit.receipt(new);
                        committer.commit(commit).await.expect("committed");
                        count += 1;
                    }
                    (count, bytes)
                })
            })
            .collect();
        let (mut count, mut bytes) = (0, 0);
        for writer in writers {
            let (wrote, length) = writer.await.expect("a writer");
            count += wrote;
            bytes = length;
        }
        committer.stop().await;
        (count as f64 / begun.elapsed().as_secs_f64(), bytes)
    });
    let bare = bare_sled(&runtime, &folder.path().join("bare"), bytes);
    println!("receipts: {signed:.0}/s signed and durable, {bare:.0}/s bare sled of the same rows, bytes and sync");
    promise("signed receipts, of bare sled", signed / bare, signed / bare >= 0.5);
}

/// The rows of a receipt: itself, two index rows, and with each group series, head and cursor rows.
fn bare_sled(runtime: &tokio::runtime::Runtime, path: &std::path::Path, bytes: usize) -> f64 {
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
                    let spread = index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().repeat(4);
                    batch.insert([&b"r/"[..], &place].concat(), vec![7_u8; 41 + bytes]);
                    batch.insert([&b"rs/"[..], &spread].concat(), place.to_vec());
                    batch.insert([&b"ri/"[..], &spread].concat(), place.to_vec());
                    batch.insert([&b"s/"[..], &spread[..1]].concat(), place.to_vec());
                    index += 1;
                }
                batch.insert(&b"head"[..], vec![7_u8; 1200]);
                batch.insert(&b"cursor"[..], index.to_be_bytes().to_vec());
                db.apply_batch(batch).expect("applied");
                db.flush().expect("flushed");
                log.sync_data().expect("synced");
                group.into_iter().for_each(|answer| {
                    let _ = answer.send(());
                });
            }
        });
        let begun = Instant::now();
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut count = 0_u64;
                    while begun.elapsed() < ROUND {
                        let (answer, answered) = tokio::sync::oneshot::channel();
                        sender.send(answer).await.expect("queued");
                        answered.await.expect("committed");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        drop(sender);
        let mut count = 0;
        for writer in writers {
            count += writer.await.expect("a writer");
        }
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        committer.await.expect("ended");
        rate
    })
}
