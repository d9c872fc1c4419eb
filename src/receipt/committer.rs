//! The committer: one task, the only one that writes.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::{
    crypto::SigningKey,
    id::{Did, ParticipantId},
    receipt::{
        Commit, CommitError, Committed, Mirror, NewReceipt, Placed, ReceiptError, Version,
        checkpoint::{Checkpoint, origin},
        entry,
        merkle::{Frontier, leaf_hash},
        place::{
            RECEIPTS, counterpart, half_key, index_rows, last_key, node_key, parse_row, payload, placed, receipt_key,
            row,
        },
        rows::{damaged, encode, event_key, split},
    },
    store::{Batch, Store, StoreError},
    time::Timestamp,
};

/// Commits that may wait; more callers wait outside.
const QUEUE: usize = 4096;
/// Most commits in one group.
const GROUP: usize = 1024;

pub(super) const HEAD: &[u8] = b"log/head";
/// The head as others may see it: sled shows a batch before it is on the disk, and nobody may be told of a checkpoint that a
/// crash could take back.
const PUBLISHED: &[u8] = b"log/published";
const INDEXED: &[u8] = b"log/indexed";
/// Receipts before this place are in the archive.
pub(super) const FROZEN: &[u8] = b"log/frozen";

/// One of our logs: its number, where its receipts lie, its newest checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1; a restored store begins the next.
    pub epoch: u64,
    /// The place of its first entry among all receipts of ours.
    pub first: u64,
    /// Entries.
    pub size: u64,
    /// Its newest checkpoint, signed; empty while there are no entries.
    pub checkpoint: String,
}

/// Whose log it is, and what signs its checkpoints.
pub struct LogSigner {
    /// Us.
    pub did: Did,
    /// The log key.
    pub key: SigningKey,
}

/// Where the log stands; written with every group.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head {
    /// The group's number: the version of the rows that it wrote.
    pub version: u64,
    pub frontier: Frontier,
    /// The signed note over it; empty before the first receipt.
    pub checkpoint: String,
    /// The latest time in any receipt, in milliseconds.
    pub latest: i64,
    /// The number of the newest event.
    #[serde(default)]
    pub events: u64,
    /// How many halves of partners have come.
    #[serde(default)]
    pub halves: u64,
    /// Which log of ours this is: the next begins when a store is restored.
    #[serde(default = "one")]
    pub epoch: u64,
    /// The place of its first entry: receipts of the logs before it lie before that.
    #[serde(default)]
    pub first: u64,
    /// The logs before it, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Epoch>,
}

const fn one() -> u64 {
    1
}

impl Head {
    /// The place that the next receipt gets.
    pub fn end(&self) -> u64 {
        self.first + self.frontier.size()
    }

    /// The log as it is now.
    pub fn epoch(&self) -> Epoch {
        let (size, checkpoint) = (self.frontier.size(), self.checkpoint.clone());
        Epoch { epoch: self.epoch, first: self.first, size, checkpoint }
    }
}

impl Default for Head {
    fn default() -> Self {
        Self {
            version: 0,
            frontier: Frontier::default(),
            checkpoint: String::new(),
            latest: 0,
            events: 0,
            halves: 0,
            epoch: one(),
            first: 0,
            earlier: Vec::new(),
        }
    }
}

/// Hands commits to the one task that writes. Cheap to clone.
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::Sender<Job>,
    latest: Arc<AtomicI64>,
    events: Arc<AtomicU64>,
}

enum Job {
    Commit(Commit, oneshot::Sender<Result<Committed, CommitError>>),
    Stop(oneshot::Sender<()>),
}

impl Committer {
    /// Checks the log's head against its rows and begins.
    ///
    /// # Errors
    /// A head, checkpoint or receipt row that doesn't fit the others: the store was altered or belongs to other keys.
    pub async fn start(
        store: Arc<dyn Store>,
        signer: LogSigner,
        mirrors: Vec<Arc<dyn Mirror>>,
    ) -> Result<Self, ReceiptError> {
        let head = load_head(&*store, &signer).await?;
        let latest = Arc::new(AtomicI64::new(head.latest));
        let events = Arc::new(AtomicU64::new(head.events));
        let mut writer = Writer {
            store,
            signer,
            mirrors,
            head,
            series: HashMap::new(),
            latest: latest.clone(),
            events: events.clone(),
        };
        writer.catch_up().await?;
        let json = serde_json::to_vec(&writer.head).map_err(|error| damaged(HEAD, error.to_string()))?;
        writer.store.commit(Batch { derived: vec![(PUBLISHED.to_vec(), json)], ..Batch::default() }).await?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        tokio::spawn(writer.run(jobs));
        Ok(Self { queue, latest, events })
    }

    /// Writes all of it, durably, or nothing. Once queued it is carried out, whether or not somebody still waits.
    pub async fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Job::Commit(commit, answer)).await.map_err(|_| CommitError::Closed)?;
        answered.await.map_err(|_| CommitError::Closed)?
    }

    /// The latest time in any receipt: `now` is never earlier.
    pub fn latest(&self) -> Timestamp {
        Timestamp::from_millis(self.latest.load(Ordering::Acquire))
    }

    /// The same, to follow.
    pub fn latest_handle(&self) -> Arc<AtomicI64> {
        self.latest.clone()
    }

    /// The number of the newest event.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }

    /// Carries out what is queued, then ends.
    pub async fn stop(&self) {
        let (answer, answered) = oneshot::channel();
        if self.queue.send(Job::Stop(answer)).await.is_ok() {
            let _ = answered.await;
        }
    }
}

async fn load_head(store: &dyn Store, signer: &LogSigner) -> Result<Head, ReceiptError> {
    let Some(bytes) = store.get(HEAD).await? else {
        return match store.scan(RECEIPTS, None, 1).await?.is_empty() {
            true => Ok(Head::default()),
            false => Err(damaged(HEAD, "missing, though there are receipts")),
        };
    };
    let head: Head = serde_json::from_slice(&bytes).map_err(|error| damaged(HEAD, error.to_string()))?;
    let size = head.frontier.size();
    if !head.frontier.is_sound() {
        return Err(damaged(HEAD, "its tree can't have that size"));
    }
    if size > 0 {
        let checkpoint = Checkpoint::verify(&head.checkpoint, &origin(&signer.did, head.epoch), &signer.key.public())
            .map_err(|error| damaged(HEAD, format!("its checkpoint: {error}")))?;
        if checkpoint.size != size || checkpoint.root != head.frontier.root() {
            return Err(damaged(HEAD, "its checkpoint is of another tree"));
        }
        if store.get(&receipt_key(head.end() - 1)).await?.is_none() {
            return Err(damaged(&receipt_key(head.end() - 1), "missing, though the checkpoint covers it"));
        }
    }
    if store.get(&receipt_key(head.end())).await?.is_some() {
        return Err(damaged(&receipt_key(head.end()), "no checkpoint covers it"));
    }
    Ok(head)
}

struct Writer {
    store: Arc<dyn Store>,
    signer: LogSigner,
    mirrors: Vec<Arc<dyn Mirror>>,
    head: Head,
    /// Receipts in each series so far.
    series: HashMap<[u8; 32], u64>,
    latest: Arc<AtomicI64>,
    events: Arc<AtomicU64>,
}

type Waiting = (Commit, oneshot::Sender<Result<Committed, CommitError>>);

impl Writer {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut stop = None;
        while stop.is_none() {
            let Some(first) = jobs.recv().await else { break };
            let mut group = Vec::new();
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Commit(commit, answer) => group.push((commit, answer)),
                    Job::Stop(answer) => stop = Some(answer),
                }
                next = if group.len() < GROUP { jobs.try_recv().ok() } else { None };
            }
            self.write(group).await;
        }
        // dropped first, so that whoever waits for the end finds the store let go
        drop(self);
        if let Some(answer) = stop {
            let _ = answer.send(());
        }
    }

    /// One group: who lost a race is left out, everybody else is in one batch, synced once.
    async fn write(&mut self, group: Vec<Waiting>) {
        let version = Version(self.head.version + 1);
        let mut head = Head { version: version.0, ..self.head.clone() };
        let mut series = HashMap::new();
        let mut batch = Batch::default();
        let mut written: HashSet<Vec<u8>> = HashSet::new();
        let mut effects: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        let mut accepted = Vec::new();
        let mut grew: HashMap<ParticipantId, u64> = HashMap::new();
        for (commit, answer) in group {
            match self.check(&commit, &written).await {
                Ok(()) => {}
                Err(error) => {
                    let _ = answer.send(Err(error));
                    continue;
                }
            }
            let mut placed = Vec::with_capacity(commit.receipts.len());
            for receipt in &commit.receipts {
                match self.place(receipt, &mut head, &mut series, &mut batch).await {
                    Ok(place) => {
                        if let Some(partner) = counterpart(&self.signer.did, &receipt.receipt) {
                            grew.insert(partner.clone(), place.index);
                        }
                        placed.push(place);
                    }
                    Err(error) => {
                        // the store can't be read: nothing of this group is written
                        let _ = answer.send(Err(CommitError::Store(error)));
                        refuse_all(accepted, "the store can't be read");
                        return;
                    }
                }
            }
            batch.contents.extend(commit.contents);
            for key in commit.halves {
                batch.puts.push((half_key(head.halves), key));
                head.halves += 1;
            }
            for (key, json) in commit.writes {
                written.insert(key.clone());
                effects.push((key, json));
            }
            for mut event in commit.events {
                head.events += 1;
                event.insert("id".into(), head.events.to_string().into());
                effects.push((event_key(head.events), serde_json::to_vec(&event).ok()));
            }
            accepted.push((answer, Committed { version, receipts: placed }));
        }
        if accepted.is_empty() {
            return;
        }
        // the last write of a key counts
        let mut last: HashMap<&[u8], &Option<Vec<u8>>> = HashMap::new();
        for (key, json) in &effects {
            last.insert(key, json);
        }
        for (key, json) in last {
            match json {
                Some(json) => batch.puts.push((key.to_vec(), encode(version, json))),
                None => batch.deletes.push(key.to_vec()),
            }
        }
        for (partner, index) in &grew {
            batch.puts.push((last_key(partner), index.to_be_bytes().to_vec()));
        }
        for (name, count) in &series {
            batch.puts.push((series_key(head.epoch, name), count.to_be_bytes().to_vec()));
        }
        if head.frontier.size() > self.head.frontier.size() {
            let checkpoint = Checkpoint {
                origin: origin(&self.signer.did, head.epoch),
                size: head.frontier.size(),
                root: head.frontier.root(),
            };
            head.checkpoint = checkpoint.sign(&self.signer.key);
        }
        match serde_json::to_vec(&head) {
            Ok(json) => {
                batch.derived.push((PUBLISHED.to_vec(), json.clone()));
                batch.puts.push((HEAD.to_vec(), json));
            }
            Err(error) => return refuse_all(accepted, &error.to_string()),
        }
        batch.derived.push((INDEXED.to_vec(), head.end().to_be_bytes().to_vec()));
        match self.store.commit(batch).await {
            Ok(()) => {
                self.head = head;
                self.series.extend(series);
                self.latest.store(self.head.latest, Ordering::Release);
                self.events.store(self.head.events, Ordering::Release);
                for (key, json) in &effects {
                    for mirror in &self.mirrors {
                        mirror.applied(key, json.as_deref());
                    }
                }
                for (partner, index) in &grew {
                    for mirror in &self.mirrors {
                        mirror.grew(partner, *index);
                    }
                }
                for (answer, committed) in accepted {
                    let _ = answer.send(Ok(committed));
                }
            }
            Err(error) => {
                tracing::error!(%error, "a group of commits was not written");
                for (answer, _) in accepted {
                    let _ = answer.send(Err(match &error {
                        StoreError::Full { .. } => CommitError::Full,
                        StoreError::Key(length) => CommitError::Store(StoreError::Key(*length)),
                        other => CommitError::Poisoned(other.to_string()),
                    }));
                }
            }
        }
    }

    /// Whether every row is still as this commit expects it, in the store and among those accepted before it.
    async fn check(&self, commit: &Commit, written: &HashSet<Vec<u8>>) -> Result<(), CommitError> {
        for (key, expected) in &commit.expects {
            if written.contains(key) {
                return Err(CommitError::Conflict(key.clone()));
            }
            let found = match self.store.get(key).await.map_err(CommitError::Store)? {
                None => Version(0),
                Some(bytes) => split(key, &bytes).map_err(|error| CommitError::Poisoned(error.to_string()))?.0,
            };
            if found != *expected {
                return Err(CommitError::Conflict(key.clone()));
            }
        }
        for (key, _) in
            commit.writes.iter().map(|(k, v)| (k, v.as_ref())).chain(commit.contents.iter().map(|(k, v)| (k, Some(v))))
        {
            if key.is_empty() || key.len() > crate::store::MAX_KEY {
                return Err(CommitError::Store(StoreError::Key(key.len())));
            }
        }
        Ok(())
    }

    /// Numbers a receipt in its series and appends its entry to the tree.
    async fn place(
        &self,
        new: &NewReceipt,
        head: &mut Head,
        series: &mut HashMap<[u8; 32], u64>,
        batch: &mut Batch,
    ) -> Result<Placed, StoreError> {
        let name = new.series_key.name();
        let number = match series.get(&name).or_else(|| self.series.get(&name)) {
            Some(count) => *count,
            None => match self.store.get(&series_key(head.epoch, &name)).await? {
                None => 0,
                Some(bytes) => u64::from_be_bytes(
                    bytes.try_into().map_err(|_| StoreError::Damaged("s/…".into(), "not a number".into()))?,
                ),
            },
        };
        series.insert(name, number + 1);
        let (epoch, index, sha256) = (head.epoch, head.end(), new.jws.sha256());
        let tag = new.series_key.in_epoch(epoch).tag(number);
        head.frontier.push_with(leaf_hash(&entry(&tag, &sha256)), |node, hash| {
            // what tiles above the lowest hold; the lowest are made of entries
            if node.level.is_multiple_of(8) {
                batch.puts.push((node_key(epoch, node.level / 8, node.index), hash.0.to_vec()));
            }
        });
        head.latest = head.latest.max(new.receipt.time.millis());
        batch.puts.push((receipt_key(index), row(number, &tag, &sha256, &new.jws)));
        index_rows(&mut batch.derived, &self.signer.did, index, &sha256, &new.receipt);
        Ok(Placed { id: new.receipt.id.clone(), sha256, index, number })
    }

    /// Makes the index rows of what is not in the archive.
    async fn catch_up(&mut self) -> Result<(), ReceiptError> {
        let mut index = number(&*self.store, FROZEN).await?;
        while index < self.head.end() {
            let mut derived = Vec::new();
            let after = index.checked_sub(1).map(receipt_key);
            for (key, row) in self.store.scan(RECEIPTS, after.as_deref(), 1024).await? {
                if key != receipt_key(index) {
                    return Err(damaged(&receipt_key(index), "missing"));
                }
                let row = parse_row(&key, &row)?;
                index_rows(&mut derived, &self.signer.did, index, &row.sha256, &payload(&key, &row.jws)?);
                index += 1;
            }
            if derived.is_empty() {
                return Err(damaged(&receipt_key(index), "missing"));
            }
            derived.push((INDEXED.to_vec(), index.to_be_bytes().to_vec()));
            self.store.commit(Batch { derived, ..Batch::default() }).await?;
        }
        Ok(())
    }
}

/// The head as it is on the disk; that of an empty log if there is none.
pub(super) async fn load(store: &dyn Store) -> Result<Head, ReceiptError> {
    let bytes = match store.get(PUBLISHED).await? {
        Some(bytes) => Some(bytes),
        // no committer runs over it
        None => store.get(HEAD).await?,
    };
    match bytes {
        None => Ok(Head::default()),
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| damaged(HEAD, error.to_string())),
    }
}

fn refuse_all(
    accepted: impl IntoIterator<Item = (oneshot::Sender<Result<Committed, CommitError>>, Committed)>,
    why: &str,
) {
    for (answer, _) in accepted {
        let _ = answer.send(Err(CommitError::Store(StoreError::Failed(why.to_owned()))));
    }
}

/// The first receipt that has no index rows (yet): those of the archive are frozen with it, others are made at start.
pub(super) async fn indexed(store: &dyn Store) -> Result<u64, ReceiptError> {
    match store.get(INDEXED).await? {
        Some(bytes) => Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| damaged(INDEXED, "not a number"))?)),
        None => number(store, FROZEN).await,
    }
}

/// A row that holds a number; 0 if it isn't there.
pub(super) async fn number(store: &dyn Store, key: &[u8]) -> Result<u64, ReceiptError> {
    match store.get(key).await? {
        None => Ok(0),
        Some(bytes) => Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| damaged(key, "not a number"))?)),
    }
}

/// Series are numbered from 0 in each of our logs.
pub(super) fn series_key(epoch: u64, name: &[u8; 32]) -> Vec<u8> {
    let mut key = placed(b"s/", epoch);
    key.extend_from_slice(name);
    key
}
