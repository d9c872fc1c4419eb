//! The node's own life as receipts: starts, stops, changes of configuration and policy; so a gap in operation shows. And
//! anchors: the newest checkpoint, stamped by somebody else now and then.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    crypto::{canonical_json, sha256},
    error::Refusal,
    evidence::Anchored,
    exchange::{Exchange, refuse},
    id::Sha256,
    receipt::{Anchor as _, Commit, FileAnchor, Kind, list, read},
};

const RUNNING: &[u8] = b"self/running";
const CONFIGURED: &[u8] = b"self/configured";
const ANCHORED: &str = "an/";

/// What was configured when we started last: hashes, never values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Configured {
    configuration: Sha256,
    policy: Sha256,
}

impl Exchange {
    /// The node's first receipts after its start: that it started, whether the run before it ended in order, and whether
    /// configuration or global policies are others than then.
    pub async fn started(&self) -> Result<(), Refusal> {
        self.record_restored().await?;
        let unreadable = refuse("store-unreadable");
        let mut commit = Commit::new();
        let running = read::<bool>(&*self.store, RUNNING).await.map_err(&unreadable)?;
        let mut receipt = self.receipt(Kind::Started, None);
        receipt.reason = running.value.map(|_| {
            Refusal::new(
                "stop-unclean",
                "the run before this one ended without a stop: killed, crashed, or without power",
            )
        });
        self.node_receipt(&mut commit, receipt)?;
        commit.put_blind(RUNNING.to_vec(), &true).map_err(refuse("internal"))?;
        let now = Configured {
            configuration: sha256(&canonical_json(&self.config).map_err(refuse("internal"))?),
            policy: sha256(self.global_policy().await?.as_bytes()),
        };
        let before = read::<Configured>(&*self.store, CONFIGURED).await.map_err(&unreadable)?;
        let changed = |of: fn(&Configured) -> Sha256| before.value.as_ref().is_none_or(|before| of(before) != of(&now));
        let parts = [
            ("configuration", changed(|known| known.configuration), now.configuration),
            ("policy", changed(|known| known.policy), now.policy),
        ];
        if parts.iter().any(|(_, changed, _)| *changed) {
            let mut receipt = self.receipt(Kind::Configured, None);
            // a commitment to the hash: the hash itself would let short values be tried
            for (name, _, hash) in parts.iter().filter(|(_, changed, _)| *changed) {
                self.record_commitment(&mut commit, &mut receipt, name, hash.to_string().as_bytes());
            }
            self.node_receipt(&mut commit, receipt)?;
            commit.put(&before, &now).map_err(refuse("internal"))?;
        }
        self.commit(commit).await.map(|_| ())
    }

    /// The node's last receipt before its stop.
    pub async fn stopped(&self) -> Result<(), Refusal> {
        let mut commit = Commit::new();
        let receipt = self.receipt(Kind::Stopped, None);
        self.node_receipt(&mut commit, receipt)?;
        commit.delete_blind(RUNNING.to_vec());
        self.commit(commit).await.map(|_| ())
    }

    /// An operator says that the wall clock is right, though the last receipt is later.
    pub async fn accept_clock(&self) -> Result<(), Refusal> {
        self.guard.accept();
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Configured, None);
        receipt.reason = Some(Refusal::new("clock-accepted", "the operator says that the wall clock is right"));
        self.node_receipt(&mut commit, receipt)?;
        self.commit(commit).await.map(|_| ())
    }

    /// Has the newest checkpoint stamped, where an anchor is configured and its time has come.
    pub(super) async fn anchor(&self) -> Result<(), Refusal> {
        let Some(folder) = &self.config.anchor.folder else { return Ok(()) };
        let unreadable = refuse("store-unreadable");
        let log = self.log.now().await.map_err(&unreadable)?;
        let note = log.checkpoint;
        if note.is_empty() {
            return Ok(());
        }
        let last = self.anchors().await?.pop();
        let every = Duration::from_secs(self.config.anchor.every_seconds);
        let now = self.clock.now();
        let due = last.is_none_or(|last| last.note != note && now.since(last.stamp.gen_time) >= every);
        if !due {
            return Ok(());
        }
        let anchor = FileAnchor::open(folder).map_err(refuse("anchor-failed"))?;
        let stamp = anchor.stamp(&sha256(note.as_bytes()), now).await.map_err(refuse("anchor-failed"))?;
        let key = [ANCHORED.as_bytes(), &log.epoch.to_be_bytes(), &log.size.to_be_bytes()].concat();
        let mut commit = Commit::new();
        commit.put_blind(key, &Anchored { note, stamp }).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }

    /// Checkpoints of ours that were stamped, by log and size.
    pub async fn anchors(&self) -> Result<Vec<Anchored>, Refusal> {
        let rows = list::<Anchored>(&*self.store, ANCHORED.as_bytes(), None, 100_000)
            .await
            .map_err(refuse("store-unreadable"))?;
        Ok(rows.into_iter().filter_map(|row| row.value).collect())
    }
}
