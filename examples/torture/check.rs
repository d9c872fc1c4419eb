//! After whatever happened: it opens, verifies, and has everything.

use std::{collections::HashMap, path::Path, sync::Arc};

use anyhow::{Context as _, ensure};
use counterseal::{
    crypto::jws::{KeyRole, Kid},
    id::Sha256,
    receipt::{
        Committer, Filter, Receipts,
        checkpoint::{Checkpoint, origin},
        merkle::{Frontier, leaf_hash},
        read, verify,
    },
    store::{SledStore, Store},
};

use crate::writer::{Acknowledged, State, did, filling, series, signer, signing, state_key};

/// Opens the store and looks at all of it. Gives the number of receipts.
pub async fn check(folder: &Path, acknowledged: &[Acknowledged]) -> anyhow::Result<usize> {
    let store: Arc<dyn Store> = Arc::new(SledStore::open(folder).context("it does not open")?);
    let committer = Committer::start(store.clone(), signer(), vec![]).await.context("its log does not hold")?;
    let found = look(&store, acknowledged).await;
    committer.stop().await;
    found
}

async fn look(store: &Arc<dyn Store>, acknowledged: &[Acknowledged]) -> anyhow::Result<usize> {
    let receipts = Receipts::new(store.clone(), did());
    let kid = Kid::of(&did(), KeyRole::Signing, &signing().public());
    let mut frontier = Frontier::default();
    let mut numbers: HashMap<u64, u64> = HashMap::new();
    let mut by_index: HashMap<u64, Sha256> = HashMap::new();
    loop {
        let page = receipts.list(&Filter::default(), frontier.size(), 500).await?;
        if page.is_empty() {
            break;
        }
        for stored in page {
            ensure!(stored.index == frontier.size(), "receipt {} is missing", frontier.size());
            verify(&stored.jws, &did(), |found| (*found == kid).then(|| signing().public()))
                .with_context(|| format!("receipt {}", stored.index))?;
            ensure!(stored.jws.sha256() == stored.sha256, "receipt {} has another hash", stored.index);
            let id = &stored.receipt.id;
            let parts: Vec<u64> = id.as_str().rsplit(':').take(2).map(str::parse).collect::<Result<_, _>>()?;
            let (n, task) = (parts[0], parts[1]);
            let number = numbers.entry(task).or_default();
            ensure!(stored.number == *number, "{id} is number {} of its series, not {number}", stored.number);
            ensure!(stored.tag == series(task).tag(*number), "{id} has another number's tag");
            *number += 1;
            // the release that it is of: in the same commit
            let state = read::<State>(&**store, &state_key(id)).await?.value;
            let expected = State { receipt: id.clone(), filling: filling(task, n) };
            ensure!(state.as_ref() == Some(&expected), "the state of {id} is missing or another");
            let content = store.get(format!("c/{id}").as_bytes()).await?;
            ensure!(
                content.as_deref() == Some(filling(task, n).as_bytes()),
                "the content of {id} is missing or another"
            );
            by_index.insert(stored.index, stored.sha256);
            frontier.push(leaf_hash(&stored.entry()));
        }
    }
    if frontier.size() > 0 {
        let note = receipts.checkpoint().await?.context("no checkpoint")?;
        let checkpoint = Checkpoint::verify(&note, &origin(&did(), 1), &signer().key.public())?;
        ensure!(
            checkpoint.size == frontier.size(),
            "a checkpoint over {} of {} entries",
            checkpoint.size,
            frontier.size()
        );
        ensure!(checkpoint.root == frontier.root(), "the checkpoint is of another log");
    }
    for ack in acknowledged {
        ensure!(by_index.get(&ack.index) == Some(&ack.sha256), "receipt {} was acknowledged and is gone", ack.index);
    }
    // no release without its receipt
    let (mut states, mut after) = (0, None);
    loop {
        let rows = store.scan(b"w/", after.as_deref(), 500).await?;
        let Some((last, _)) = rows.last() else { break };
        after = Some(last.clone());
        states += rows.len();
    }
    ensure!(states == by_index.len(), "{states} states, {} receipts", by_index.len());
    Ok(by_index.len())
}
