//! One contract for every store.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Commit(Batch),
    Reopen,
    Erase(Vec<u8>),
    /// Rows that never change again: so many, written and frozen.
    Freeze(u8),
    Thin(usize),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec![&b"a"[..], b"a/1", b"a/2", b"a/2x", b"b", b"b/\xff", b"b/\xff\x00", b"c"])
        .prop_map(<[u8]>::to_vec)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (4090_usize..4100, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
        1 => (any::<u8>()).prop_map(|byte| vec![byte; 70_000]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let batch =
        (prop::collection::vec((key(), value()), 0..4), prop::collection::vec(key(), 0..2), prop::option::of(value()))
            .prop_map(|(puts, deletes, content)| {
                let contents = content.map(|content| (b"k/content".to_vec(), content)).into_iter().collect();
                Step::Commit(Batch { puts, deletes, contents, ..Batch::default() })
            });
    prop_oneof![8 => batch, 1 => Just(Step::Reopen), 1 => Just(Step::Erase(b"k/content".to_vec())), 2 => (1_u8..40).prop_map(Step::Freeze), 2 => (1_usize..60).prop_map(Step::Thin)]
}

/// What the contract says, in the simplest way.
fn apply(model: &mut BTreeMap<Vec<u8>, Vec<u8>>, step: &Step) {
    match step {
        Step::Commit(batch) => {
            for key in &batch.deletes {
                model.remove(key);
            }
            model.extend(batch.puts.iter().cloned());
            model.extend(batch.contents.iter().cloned());
        }
        Step::Erase(key) => {
            model.remove(key);
        }
        Step::Freeze(count) => model.extend(frozen(model, *count)),
        Step::Reopen | Step::Thin(_) => {}
    }
}

/// Rows that are not there yet, of two prefixes.
fn frozen(model: &BTreeMap<Vec<u8>, Vec<u8>>, count: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
    let first = model.keys().filter(|key| key.starts_with(b"f/")).count() as u64;
    (first..first + u64::from(count))
        .flat_map(|n| {
            let place = n.to_be_bytes();
            [([&b"f/"[..], &place].concat(), vec![n as u8; 300]), ([&b"fi/"[..], &place].concat(), Vec::new())]
        })
        .collect()
}

async fn compare(store: &dyn Store, model: &BTreeMap<Vec<u8>, Vec<u8>>) {
    for prefix in [&b"a"[..], b"a/", b"b", b"b/\xff", b"k", b"zzz", b"f", b"f/", b"fi/"] {
        let expected: Vec<_> =
            model.iter().filter(|(k, _)| k.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect();
        let scanned = store.scan(prefix, None, 1000).await.unwrap();
        assert!(scanned == expected, "{}: {} rows, not {}", prefix.escape_ascii(), scanned.len(), expected.len());
        // page by page is the same
        let (mut paged, mut after) = (Vec::new(), None);
        while let Some(row) = store.scan(prefix, after.as_deref(), 1).await.unwrap().pop() {
            after = Some(row.0.clone());
            paged.push(row);
        }
        assert!(paged == expected, "{}: paged, {} rows, not {}", prefix.escape_ascii(), paged.len(), expected.len());
    }
    for (key, value) in model {
        assert_eq!(store.get(key).await.unwrap().as_ref(), Some(value));
    }
    assert_eq!(store.get(b"absent").await.unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_store_does_what_the_contract_says(steps in prop::collection::vec(step(), 1..16)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let memory = MemoryStore::new();
            let mut disk = Some(SledStore::open(folder.path()).unwrap());
            let mut model = BTreeMap::new();
            for step in &steps {
                let fresh = if let Step::Freeze(count) = step { frozen(&model, *count) } else { Vec::new() };
                apply(&mut model, step);
                match step {
                    Step::Freeze(_) => {
                        let keys: Vec<Vec<u8>> = fresh.iter().map(|(key, _)| key.clone()).collect();
                        for store in [&memory as &dyn Store, disk.as_ref().unwrap()] {
                            let (puts, derived) = fresh.iter().cloned().partition(|(key, _)| key.starts_with(b"f/"));
                            store.commit(Batch { puts, derived, ..Batch::default() }).await.unwrap();
                            store.freeze(keys.clone(), (b"mark".to_vec(), vec![keys.len() as u8])).await.unwrap();
                        }
                    }
                    Step::Thin(limit) => {
                        disk.as_ref().unwrap().thin(*limit).await.unwrap();
                        memory.thin(*limit).await.unwrap();
                    }
                    Step::Commit(batch) => {
                        memory.commit(batch.clone()).await.unwrap();
                        disk.as_ref().unwrap().commit(batch.clone()).await.unwrap();
                    }
                    Step::Erase(key) => {
                        memory.erase(key).await.unwrap();
                        disk.as_ref().unwrap().erase(key).await.unwrap();
                    }
                    Step::Reopen => {
                        drop(disk.take());
                        disk = Some(SledStore::open(folder.path()).unwrap());
                    }
                }
                compare(&memory, &model).await;
                compare(disk.as_ref().unwrap(), &model).await;
            }
            let blobs = folder.path().join("sled/blobs");
            assert!(!blobs.exists() || std::fs::read_dir(blobs).unwrap().next().is_none(), "sled never syncs its blobs");
        });
    }
}

#[tokio::test]
async fn keys_out_of_bounds_are_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let stores: [Box<dyn Store>; 2] = [Box::new(MemoryStore::new()), Box::new(SledStore::open(folder.path()).unwrap())];
    for store in stores {
        let batch =
            |key: Vec<u8>| Batch { puts: vec![(b"fine".to_vec(), vec![1]), (key, vec![1])], ..Batch::default() };
        assert!(matches!(store.commit(batch(vec![])).await, Err(StoreError::Key(0))));
        assert!(matches!(store.commit(batch(vec![1; 257])).await, Err(StoreError::Key(257))));
        assert_eq!(store.get(b"fine").await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_store_that_is_held_says_by_whom() {
    let folder = tempfile::tempdir().unwrap();
    let first = SledStore::open(folder.path()).unwrap();
    let error = SledStore::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    drop(first);
    assert!(SledStore::open(folder.path()).is_ok());
}

#[tokio::test]
async fn erased_content_is_not_on_the_disk_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let secret = b"purpose: a name that has to go".to_vec();
    store.commit(Batch { contents: vec![(b"c/1".to_vec(), secret.clone())], ..Batch::default() }).await.unwrap();
    assert_eq!(store.get(b"c/1").await.unwrap(), Some(secret.clone()));
    store.erase(b"c/1").await.unwrap();
    assert_eq!(store.get(b"c/1").await.unwrap(), None);
    drop(store);
    let found = |path: &std::path::Path| {
        std::fs::read(path).unwrap().windows(secret.len()).any(|window| window == secret.as_slice())
    };
    for entry in std::fs::read_dir(folder.path().join("content")).unwrap() {
        assert!(!found(&entry.unwrap().path()));
    }
    assert!(!found(&folder.path().join("sled/db")));
}

#[tokio::test]
async fn a_damaged_object_is_an_error_and_not_another_value() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    store.commit(Batch { puts: vec![(b"k".to_vec(), vec![7; 5000])], ..Batch::default() }).await.unwrap();
    let object = std::fs::read_dir(folder.path().join("objects")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&object, vec![8; 5000]).unwrap();
    assert!(matches!(store.get(b"k").await, Err(StoreError::Damaged(..))));
}

#[tokio::test]
async fn many_small_tables_become_one_and_nothing_is_lost_or_found_twice() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let (mut model, go) = (BTreeMap::new(), CancellationToken::new());
    let tables = || std::fs::read_dir(folder.path().join("archive")).unwrap().count();
    for n in 0..35_u8 {
        let mut rows = frozen(&model, 3);
        // a value that lies in an object, and one that is in several tables: the latest counts
        rows.push((vec![b'a', b'/', n], vec![n; 5000]));
        rows.push((b"b".to_vec(), vec![n]));
        model.extend(rows.iter().cloned());
        store.commit(Batch { puts: rows.clone(), ..Batch::default() }).await.unwrap();
        store.freeze(rows.into_iter().map(|(key, _)| key).collect(), (b"mark".to_vec(), vec![n])).await.unwrap();
        if n == 15 {
            assert!(!store.merge(go.clone()).await.unwrap(), "not before their rows have left sled");
        }
        while store.thin(4).await.unwrap() {}
        if n == 15 {
            let stopped = CancellationToken::new();
            stopped.cancel();
            assert!(!store.merge(stopped).await.unwrap());
            compare(&store, &model).await;
        }
    }
    assert_eq!(tables(), 35, "the next one took the place of what was given up");
    while store.merge(go.clone()).await.unwrap() {
        compare(&store, &model).await;
    }
    assert_eq!(tables(), 3 + 2);
    compare(&store, &model).await;
    drop(store);
    let store = SledStore::open(folder.path()).unwrap();
    compare(&store, &model).await;
    assert_eq!(std::fs::read_dir(folder.path().join("objects")).unwrap().count(), 0, "they are in the tables");
}

#[tokio::test]
async fn a_store_of_another_format_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let db = ::sled::open(folder.path().join("sled")).unwrap();
    db.insert(b"r/1", b"\0old").unwrap();
    drop(db);
    // sled lets go of its lock a moment after it was dropped
    let refused = loop {
        match SledStore::open(folder.path()) {
            Err(StoreError::Failed(why)) if why.contains("lock") => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            other => break other.err(),
        }
    };
    assert!(
        matches!(&refused, Some(StoreError::Damaged(key, why)) if key.contains("format") && why.contains("version")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn derived_rows_are_found_and_gone_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let row = |key: &[u8]| (key.to_vec(), b"x".to_vec());
    let batch =
        Batch { puts: vec![row(b"b/2")], derived: vec![row(b"b/1"), row(b"b/3"), row(b"c")], ..Batch::default() };
    store.commit(batch).await.unwrap();
    store.commit(Batch { derived: vec![row(b"b/4")], ..Batch::default() }).await.unwrap();
    let keys = |rows: Vec<(Vec<u8>, Vec<u8>)>| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(store.scan(b"b/", None, 9).await.unwrap()), [b"b/1", b"b/2", b"b/3", b"b/4"]);
    assert_eq!(keys(store.scan(b"b/", Some(b"b/1"), 2).await.unwrap()), [b"b/2", b"b/3"]);
    drop(store);
    let store = SledStore::open(folder.path()).unwrap();
    assert_eq!(keys(store.scan(b"", None, 9).await.unwrap()), [b"b/2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_one_moment_of_a_store_that_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SledStore::open(&folder.path().join("store")).unwrap());
    let numbered = |prefix: &str, n: u32| [prefix.as_bytes(), &n.to_be_bytes()].concat();
    // in the archive, in an object, in a pack; one content erased
    for n in 0..40 {
        let rows = vec![(numbered("a/", n), vec![1; 50]), (numbered("b/", n), vec![n as u8; 5000])];
        let contents = vec![(numbered("c/", n), vec![7; 100])];
        store.commit(Batch { puts: rows, contents, ..Batch::default() }).await.unwrap();
        store.freeze(vec![numbered("a/", n), numbered("b/", n)], (b"mark".to_vec(), vec![n as u8])).await.unwrap();
        while store.thin(50).await.unwrap() {}
    }
    store.erase(&numbered("c/", 3)).await.unwrap();
    let stop = CancellationToken::new();
    let writer = {
        let (store, stop) = (store.clone(), stop.clone());
        tokio::spawn(async move {
            let mut n = 40;
            while !stop.is_cancelled() {
                let puts = vec![(numbered("a/", n), vec![1; 50]), (numbered("b/", n), vec![n as u8; 5000])];
                let contents = vec![(numbered("c/", n), vec![7; 100])];
                store.commit(Batch { puts, contents, ..Batch::default() }).await.unwrap();
                if n % 16 == 0 {
                    store.merge(CancellationToken::new()).await.unwrap();
                }
                n += 1;
            }
            n
        })
    };
    let mut taken = Vec::new();
    for number in 0..4 {
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        let backup = folder.path().join(format!("backup-{number}"));
        std::fs::create_dir(&backup).unwrap();
        store.backup(&backup).await.unwrap();
        taken.push(backup);
    }
    stop.cancel();
    let written = writer.await.unwrap();
    let mut before = 0;
    for (number, backup) in taken.iter().enumerate() {
        let restored = SledStore::restore(backup, &folder.path().join(format!("restored-{number}"))).unwrap();
        let rows = |prefix: &'static [u8]| {
            let restored = restored.clone();
            async move { restored.scan(prefix, None, 100_000).await.unwrap() }
        };
        let (a, b, c) = (rows(b"a/").await, rows(b"b/").await, rows(b"c/").await);
        let count = a.len() as u32;
        // each commit whole, none left out in the middle
        assert_eq!(
            a.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(),
            (0..count).map(|n| numbered("a/", n)).collect::<Vec<_>>()
        );
        assert!((0..count).zip(&b).all(|(n, (key, value))| *key == numbered("b/", n) && *value == vec![n as u8; 5000]));
        assert_eq!((b.len(), c.len() + 1), (a.len(), a.len()), "one content was erased");
        assert!(count >= before && count <= written, "{before} {count} {written}");
        before = count;
    }
    assert!(before > 40, "it went on meanwhile");
    assert!(store.get(&numbered("a/", written - 1)).await.unwrap().is_some());
}
