//! The committer over both stores.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{checkpoint::Checkpoint, merkle::leaf_hash, *};
use crate::{
    crypto::{
        RandomExt as _, SigningKey, SystemRandom,
        jws::{KeyRole, Kid},
    },
    id::{AgreementId, Did, ReceiptId},
    store::{Batch, MemoryStore, SledStore, Store, StoreError},
    time::Timestamp,
};

const ORIGIN: &str = "did:web:hospital.invalid/log/1";

fn did() -> Did {
    Did::parse("did:web:hospital.invalid").unwrap()
}

fn signer() -> LogSigner {
    LogSigner { did: did(), key: SigningKey::from_seed([1; 32]) }
}

fn series(n: u8) -> SeriesKey {
    SeriesKey::derive(&[n; 32], &did())
}

fn receipt(kind: Kind, agreement: Option<&str>, series: SeriesKey) -> NewReceipt {
    let key = SigningKey::from_seed([2; 32]);
    let now = Timestamp::from_millis(1_764_000_000_000);
    let id = ReceiptId::parse(SystemRandom.urn(now)).unwrap();
    let mut receipt = Receipt::new(id, kind, now, did().into());
    receipt.agreement = agreement.map(|id| AgreementId::parse(id).unwrap());
    NewReceipt::sign(receipt, &Kid::of(&did(), KeyRole::Signing, &key.public()), &key, series).unwrap()
}

async fn committer(store: &Arc<dyn Store>) -> Committer {
    Committer::start(store.clone(), signer(), vec![]).await.unwrap()
}

#[tokio::test]
async fn of_64_who_take_the_last_one_exactly_one_gets_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let committer = committer(&store).await;
    let mut first = Commit::new();
    first.put_new(b"a/x".to_vec(), &1_u64).unwrap();
    committer.commit(first).await.unwrap();
    let row = read::<u64>(&*store, b"a/x").await.unwrap();
    assert_eq!(row.value, Some(1));
    let racers: Vec<_> = (0..64)
        .map(|_| {
            let (committer, row) = (committer.clone(), row.clone());
            tokio::spawn(async move {
                let mut commit = Commit::new();
                commit.put(&row, &0_u64).unwrap();
                commit.receipt(receipt(Kind::Released, None, series(1)));
                committer.commit(commit).await
            })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert!(matches!(error, CommitError::Conflict(key) if key == b"a/x")),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(Receipts::new(store, did()).size().await.unwrap(), 1, "who lost left no receipt");
}

#[tokio::test]
async fn a_lost_race_fails_nobody_else() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let committer = committer(&store).await;
    let row = read::<u64>(&*store, b"a/x").await.unwrap();
    // queued before any is awaited, so that they fall into one group
    let commits: Vec<_> = (0..10_u64)
        .map(|n| {
            let mut commit = Commit::new();
            if n % 2 == 0 {
                commit.put(&row, &n).unwrap()
            } else {
                commit.put_new(vec![b'b', n as u8], &n).unwrap()
            }
            commit.receipt(receipt(Kind::Used, None, series(1)));
            let committer = committer.clone();
            tokio::spawn(async move { committer.commit(commit).await })
        })
        .collect();
    let mut results = Vec::new();
    for commit in commits {
        results.push(commit.await.unwrap());
    }
    assert!(results.iter().skip(1).step_by(2).all(Result::is_ok));
    assert_eq!(results.iter().step_by(2).filter(|result| result.is_ok()).count(), 1);
    let receipts = Receipts::new(store, did());
    let numbers: Vec<u64> =
        receipts.list(&Filter::default(), 0, 100).await.unwrap().iter().map(|stored| stored.number).collect();
    assert_eq!(numbers, (0..6).collect::<Vec<_>>(), "no gap where somebody lost");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash_and_the_checkpoint_covers_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut placed = Vec::new();
    for round in 0..3_u64 {
        let store: Arc<dyn Store> = Arc::new(SledStore::open(folder.path()).unwrap());
        let committer = committer(&store).await;
        for n in 0..5 {
            let mut commit = Commit::new();
            let agreement = format!("urn:agreement:{}", n % 2);
            commit.receipt(receipt(Kind::Used, Some(&agreement), series(n % 2)));
            commit.content(format!("c/{round}/{n}").into_bytes(), b"purpose".to_vec());
            placed.extend(committer.commit(commit).await.unwrap().receipts);
        }
        let receipts = Receipts::new(store.clone(), did());
        for place in &placed {
            let stored = receipts.by_id(&place.id).await.unwrap().unwrap();
            assert_eq!((stored.index, stored.number), (place.index, place.number));
            assert_eq!(receipts.by_sha256(&place.sha256).await.unwrap().unwrap().index, place.index);
        }
        let one = Filter { agreement: Some(AgreementId::parse("urn:agreement:1").unwrap()), ..Filter::default() };
        assert_eq!(receipts.list(&one, 0, 100).await.unwrap().len() as u64, 2 * (round + 1));
        assert_eq!(receipts.list(&one, 0, 1).await.unwrap().len(), 1);

        let mut frontier = merkle::Frontier::default();
        for stored in receipts.list(&Filter::default(), 0, 100).await.unwrap() {
            frontier.push(leaf_hash(&stored.entry()));
            assert_eq!(
                stored.tag,
                series((stored.receipt.agreement.unwrap().as_str() == "urn:agreement:1").into()).tag(stored.number)
            );
        }
        let note = receipts.checkpoint().await.unwrap().unwrap();
        let checkpoint = Checkpoint::verify(&note, ORIGIN, &signer().key.public()).unwrap();
        assert_eq!((checkpoint.size, checkpoint.root), (placed.len() as u64, frontier.root()));
        drop((committer, receipts));
        // a crash: nobody called stop(); wait only until the task has let the store go
        for _ in 0..200 {
            if Arc::strong_count(&store) == 1 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

/// Fails when it is told to, like a disk.
struct Faulty {
    inner: MemoryStore,
    fail: AtomicBool,
    full: AtomicBool,
    poisoned: AtomicBool,
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(key).await
    }
    async fn scan(&self, p: &[u8], a: Option<&[u8]>, l: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        self.inner.scan(p, a, l).await
    }
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(StoreError::Full { free: 0, needed: 1 });
        }
        if self.fail.load(Ordering::SeqCst) {
            self.poisoned.store(true, Ordering::SeqCst);
        }
        if self.poisoned.load(Ordering::SeqCst) {
            return Err(StoreError::Poisoned("sync failed".into()));
        }
        self.inner.commit(batch).await
    }
    async fn erase(&self, key: &[u8]) -> Result<bool, StoreError> {
        self.inner.erase(key).await
    }
    async fn freeze(&self, keys: Vec<Vec<u8>>, mark: (Vec<u8>, Vec<u8>)) -> Result<(), StoreError> {
        self.inner.freeze(keys, mark).await
    }
    async fn thin(&self, limit: usize) -> Result<bool, StoreError> {
        self.inner.thin(limit).await
    }
    async fn merge(&self, stop: CancellationToken) -> Result<bool, StoreError> {
        self.inner.merge(stop).await
    }
    async fn backup(&self, folder: &std::path::Path) -> Result<(), StoreError> {
        self.inner.backup(folder).await
    }
}

#[derive(Default)]
struct Followed(Mutex<Vec<Vec<u8>>>);

impl Mirror for Followed {
    fn applied(&self, key: &[u8], _: Option<&[u8]>) {
        self.0.lock().unwrap().push(key.to_vec());
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_or_mirrored_after_a_failed_sync() {
    let faulty = Arc::new(Faulty {
        inner: MemoryStore::new(),
        fail: AtomicBool::new(false),
        full: AtomicBool::new(false),
        poisoned: AtomicBool::new(false),
    });
    let store: Arc<dyn Store> = faulty.clone();
    let mirror = Arc::new(Followed::default());
    let committer = Committer::start(store, signer(), vec![mirror.clone()]).await.unwrap();
    let commit = |n: u8| {
        let mut commit = Commit::new();
        commit.put_new(vec![b'k', n], &n).unwrap();
        commit.receipt(receipt(Kind::Used, None, series(1)));
        commit
    };
    committer.commit(commit(1)).await.unwrap();
    faulty.full.store(true, Ordering::SeqCst);
    assert!(matches!(committer.commit(commit(2)).await, Err(CommitError::Full)));
    // room again: the work goes on, and the number that was not used is used
    faulty.full.store(false, Ordering::SeqCst);
    assert_eq!(committer.commit(commit(3)).await.unwrap().receipts[0].number, 1);
    faulty.fail.store(true, Ordering::SeqCst);
    assert!(matches!(committer.commit(commit(4)).await, Err(CommitError::Poisoned(_))));
    faulty.fail.store(false, Ordering::SeqCst);
    assert!(matches!(committer.commit(commit(5)).await, Err(CommitError::Poisoned(_))), "until a restart");
    assert_eq!(*mirror.0.lock().unwrap(), [vec![b'k', 1], vec![b'k', 3]]);
}

#[tokio::test]
async fn a_log_that_was_tampered_with_does_not_start() {
    for (what, tamper) in [
        ("a receipt removed", Batch { deletes: vec![place::receipt_key(2)], ..Batch::default() }),
        ("a receipt added", Batch { puts: vec![(place::receipt_key(3), vec![0; 90])], ..Batch::default() }),
        ("no head", Batch { deletes: vec![committer::HEAD.to_vec()], ..Batch::default() }),
        ("head of another", Batch { puts: vec![(committer::HEAD.to_vec(), b"{}".to_vec())], ..Batch::default() }),
    ] {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let first = committer(&store).await;
        for _ in 0..3 {
            let mut commit = Commit::new();
            commit.receipt(receipt(Kind::Used, None, series(1)));
            first.commit(commit).await.unwrap();
        }
        first.stop().await;
        store.commit(tamper).await.unwrap();
        assert!(Committer::start(store, signer(), vec![]).await.is_err(), "{what}");
    }
}

#[tokio::test]
async fn a_log_under_another_key_does_not_start() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let first = committer(&store).await;
    let mut commit = Commit::new();
    commit.receipt(receipt(Kind::Used, None, series(1)));
    first.commit(commit).await.unwrap();
    first.stop().await;
    let other = LogSigner { did: did(), key: SigningKey::from_seed([9; 32]) };
    assert!(Committer::start(store, other, vec![]).await.is_err());
}

#[tokio::test]
async fn a_commit_whose_caller_went_away_is_carried_out() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let committer = committer(&store).await;
    let mut commit = Commit::new();
    commit.put_new(b"k".to_vec(), &1).unwrap();
    {
        let pending = committer.commit(commit);
        tokio::pin!(pending);
        // polled once: queued; then dropped
        assert!(futures_util::poll!(&mut pending).is_pending());
    }
    committer.stop().await;
    assert_eq!(read::<u64>(&*store, b"k").await.unwrap().value, Some(1));
    assert!(matches!(committer.commit(Commit::new()).await, Err(CommitError::Closed)));
}

#[test]
fn a_receipt_that_is_too_long_is_refused() {
    let key = SigningKey::from_seed([2; 32]);
    let id = ReceiptId::parse("urn:uuid:x").unwrap();
    let mut receipt = Receipt::new(id, Kind::Denied, Timestamp::from_millis(0), did().into());
    receipt.reason = Some(crate::error::Refusal::new("x", "y".repeat(4000)));
    let kid = Kid::of(&did(), KeyRole::Signing, &key.public());
    assert!(matches!(NewReceipt::sign(receipt, &kid, &key, series(1)), Err(ReceiptError::TooLong(_))));
}

/// Appends so many receipts in groups, of changing kinds, agreements and partners, a second apart.
async fn grow(committer: &Committer, from: u64, count: u64) {
    let key = SigningKey::from_seed([2; 32]);
    let kid = Kid::of(&did(), KeyRole::Signing, &key.public());
    let mut commit = Commit::new();
    for n in from..from + count {
        let time = Timestamp::from_millis(1_764_000_000_000 + n as i64 * 1000);
        let kind = [Kind::Released, Kind::Delivered, Kind::Denied, Kind::Used][n as usize % 4];
        let mut receipt = Receipt::new(ReceiptId::parse(SystemRandom.urn(time)).unwrap(), kind, time, did().into());
        receipt.consumer = Some(Did::parse(format!("did:web:partner{}.invalid", n % 3)).unwrap().into());
        receipt.agreement = Some(AgreementId::parse(format!("urn:agreement:{}", n % 5)).unwrap());
        receipt.series = format!("urn:agreement:{}", n % 5);
        if kind == Kind::Denied {
            receipt.decision = Some(DecisionRecord {
                verdict: if n % 8 == 2 { "deny" } else { "default-deny" }.into(),
                policies: vec![],
                reason: None,
                policy_sha256: crate::id::Sha256([0; 32]),
                schema_sha256: crate::id::Sha256([0; 32]),
                engine: "none".into(),
                request_commit: crate::id::Sha256([0; 32]),
            });
        }
        commit.receipt(NewReceipt::sign(receipt, &kid, &key, series((n % 5) as u8)).unwrap());
        if n % 7 == 6 {
            committer.commit(std::mem::take(&mut commit)).await.unwrap();
        }
    }
    committer.commit(commit).await.unwrap();
}

#[tokio::test]
async fn tiles_and_proofs_are_those_of_the_entries_at_every_size() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let committer = committer(&store).await;
    let log = Log::new(store.clone());
    assert_eq!(log.checkpoint().await.unwrap(), None);
    grow(&committer, 0, 600).await;
    let entries = log.entries(0, 600).await.unwrap();
    let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    let root = |size: u64| merkle::root_of(&leaves[..size as usize]);
    let (checkpoint, _) = log.checkpoint().await.unwrap().unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (600, root(600)));
    for size in [1, 2, 255, 256, 257, 300, 511, 512, 513, 600] {
        assert_eq!(log.root(size).await.unwrap(), root(size), "{size}");
        for index in [0, 1, 254, 255, 256, 299, 510, 511, 512, 599] {
            let path = log.prove_inclusion(index, size).await.unwrap();
            assert_eq!(path.is_some(), index < size);
            if let Some(path) = path {
                assert!(proof::verify_inclusion(index, size, &leaves[index as usize], &path, &root(size)));
            }
        }
        for old in [0, 1, 17, 255, 256, 512] {
            if let Some(path) = log.prove_consistency(old, size).await.unwrap() {
                assert!(proof::verify_consistency(old, &root(old), size, &root(size), &path), "{old} to {size}");
            }
        }
    }
    for tile in tile::Tile::all(600) {
        let bytes = log.tile(tile).await.unwrap().unwrap();
        match tile.level {
            tile::Level::Entries => {
                let start = (tile.index * 256) as usize;
                assert_eq!(tile::read_bundle(&bytes).unwrap(), entries[start..start + tile.width as usize]);
            }
            tile::Level::Hashes(level) => {
                for (n, hash) in bytes.chunks(32).enumerate() {
                    let span = 256_usize.pow(level.into());
                    let start = (tile.index as usize * 256 + n) * span;
                    assert_eq!(hash, merkle::root_of(&leaves[start..start + span]).0, "{tile}");
                }
            }
        }
    }
    let beyond = tile::Tile { level: tile::Level::Entries, index: 2, width: 89 };
    assert_eq!(log.tile(beyond).await.unwrap(), None, "not there yet");
}

#[tokio::test]
async fn lists_by_index_are_what_a_look_at_every_receipt_finds() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let committer = committer(&store).await;
    let receipts = Receipts::new(store.clone(), did());
    for (from, count) in [(0, 700), (700, 30)] {
        grow(&committer, from, count).await;
        // the last of them may have no index rows yet: what is found is the same
        let at = |n: i64| Some(Timestamp::from_millis(1_764_000_000_000 + n * 1000));
        let all = receipts.list(&Filter::default(), 0, 10_000).await.unwrap();
        assert_eq!(all.len() as u64, from + count);
        let agreement = AgreementId::parse("urn:agreement:3").unwrap();
        let partner = crate::id::ParticipantId::from(Did::parse("did:web:partner1.invalid").unwrap());
        let nobody = crate::id::ParticipantId::from(Did::parse("did:web:nobody.invalid").unwrap());
        for filter in [
            Filter { agreement: Some(agreement.clone()), ..Filter::default() },
            Filter { peer: Some(partner.clone()), ..Filter::default() },
            Filter { peer: Some(nobody), ..Filter::default() },
            Filter { verdict: Some("deny".into()), ..Filter::default() },
            Filter { kind: Some(Kind::Used), peer: Some(partner.clone()), ..Filter::default() },
            Filter { kind: Some(Kind::Used), verdict: Some("deny".into()), ..Filter::default() },
            Filter { since: at(650), ..Filter::default() },
            Filter { since: at(20), until: at(640), ..Filter::default() },
            Filter { since: at(100), until: at(690), kind: Some(Kind::Denied), ..Filter::default() },
            Filter {
                agreement: Some(agreement),
                peer: Some(partner),
                kind: Some(Kind::Denied),
                verdict: Some("deny".into()),
                since: at(1),
                until: at(5000),
            },
        ] {
            let fits = |stored: &&Stored| {
                let receipt = &stored.receipt;
                filter.agreement.as_ref().is_none_or(|one| receipt.agreement.as_ref() == Some(one))
                    && filter.peer.as_ref().is_none_or(|one| receipt.consumer.as_ref() == Some(one))
                    && filter.kind.is_none_or(|one| receipt.kind == one)
                    && filter
                        .verdict
                        .as_ref()
                        .is_none_or(|one| receipt.decision.as_ref().map(|d| &d.verdict) == Some(one))
                    && filter.since.is_none_or(|since| receipt.time >= since)
                    && filter.until.is_none_or(|until| receipt.time < until)
            };
            let expected: Vec<u64> = all.iter().filter(fits).map(|stored| stored.index).collect();
            let whole = receipts.list(&filter, 0, 10_000).await.unwrap();
            assert_eq!(whole.iter().map(|stored| stored.index).collect::<Vec<_>>(), expected, "{filter:?}");
            let (mut paged, mut next) = (Vec::new(), 0);
            loop {
                let page = receipts.list(&filter, next, 7).await.unwrap();
                let Some(last) = page.last() else { break };
                next = last.index + 1;
                paged.extend(page.iter().map(|stored| stored.index));
            }
            assert_eq!(paged, expected, "{filter:?}");
        }
    }
}

#[tokio::test]
async fn what_is_in_the_archive_is_read_listed_proven_and_erased_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SledStore::open(folder.path()).unwrap());
    let writer = committer(&store).await;
    grow(&writer, 0, 700).await;
    let receipts = Receipts::new(store.clone(), did());
    let log = Log::new(store.clone());
    // one with a content
    let key = SigningKey::from_seed([2; 32]);
    let now = Timestamp::from_millis(1_764_000_000_000);
    let mut with = Receipt::new(ReceiptId::parse("urn:uuid:with").unwrap(), Kind::Used, now, did().into());
    with.commitments.insert("purpose".into(), crate::crypto::sha256(b"x"));
    let mut commit = Commit::new();
    commit.content(content_key(&with.id, "purpose"), b"salt and research".to_vec());
    let kid = Kid::of(&did(), KeyRole::Signing, &key.public());
    commit.receipt(NewReceipt::sign(with.clone(), &kid, &key, series(9)).unwrap());
    writer.commit(commit).await.unwrap();
    grow(&writer, 701, 400).await;
    writer.stop().await;
    let before = receipts.list(&Filter::default(), 0, 10_000).await.unwrap();
    let filter = Filter {
        kind: Some(Kind::Denied),
        peer: Some(Did::parse("did:web:partner1.invalid").unwrap().into()),
        ..Filter::default()
    };
    let listed = receipts.list(&filter, 0, 10_000).await.unwrap();
    let root = log.root(before.len() as u64).await.unwrap();
    let stop = CancellationToken::new();
    let archiver = Archiver::new(store.clone(), did(), 256);
    assert_eq!(archiver.step(&stop).await.unwrap(), 3, "1101 receipts: three runs of 256, and the newest stays");
    assert_eq!(archiver.frozen().await.unwrap(), 768);
    assert_eq!(archiver.step(&stop).await.unwrap(), 0);
    let look = async |receipts: &Receipts, log: &Log| {
        let after = receipts.list(&Filter::default(), 0, 10_000).await.unwrap();
        assert_eq!(after.len(), before.len());
        for (then, now) in before.iter().zip(&after) {
            assert_eq!((then.index, then.number, then.tag, &then.jws), (now.index, now.number, now.tag, &now.jws));
        }
        let again = receipts.list(&filter, 0, 10_000).await.unwrap();
        assert_eq!(
            again.iter().map(|one| one.index).collect::<Vec<_>>(),
            listed.iter().map(|one| one.index).collect::<Vec<_>>()
        );
        for stored in [&before[3], &before[700], &before[767], &before[1000]] {
            assert_eq!(receipts.by_id(&stored.receipt.id).await.unwrap().unwrap().index, stored.index);
            assert_eq!(receipts.by_sha256(&stored.sha256).await.unwrap().unwrap().index, stored.index);
        }
        assert_eq!(log.root(before.len() as u64).await.unwrap(), root);
        let path = log.prove_inclusion(5, before.len() as u64).await.unwrap().unwrap();
        assert!(proof::verify_inclusion(5, before.len() as u64, &leaf_hash(&before[5].entry()), &path, &root));
    };
    look(&receipts, &log).await;
    let kept = content_key(&with.id, "purpose");
    assert_eq!(store.get(&kept).await.unwrap().as_deref(), Some(&b"salt and research"[..]));
    drop((receipts, log, archiver));
    // a restart, and the log goes on
    for _ in 0..200 {
        if Arc::strong_count(&store) == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    drop(store);
    let store: Arc<dyn Store> = Arc::new(SledStore::open(folder.path()).unwrap());
    let writer = committer(&store).await;
    look(&Receipts::new(store.clone(), did()), &Log::new(store.clone())).await;
    store.erase(&kept).await.unwrap();
    assert_eq!(store.get(&kept).await.unwrap(), None, "erased, though its row is frozen");
    grow(&writer, 1101, 10).await;
    assert_eq!(Receipts::new(store, did()).size().await.unwrap(), 1111);
}
