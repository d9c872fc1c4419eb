//! Witnessing: each connector is its partners' witness (C2SP `tlog-witness`).
//!
//! Ours to theirs: whenever a series that we share with a partner has grown, our newest checkpoint goes to it, at most
//! once a second, always once after the last; its cosignature is kept. What is owed is known from two places that are
//! compared at start (the newest receipt with a partner, the size that it cosigned last), so that a partner who was away
//! is caught up with. Theirs to ours: the pure rules are `receipt::witness`'s; here they are carried out, and what they
//! find is an alarm: a receipt, an event, and red in `status`.

mod alarm;
mod take;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::Method;
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    crypto::sha256,
    error::Refusal,
    exchange::{
        Exchange,
        catalog::{PATIENCE, parsed},
        refuse,
    },
    id::{Did, ParticipantId, Sha256},
    identity::Peer,
    protocol::{
        self, Ask,
        extension::{WitnessedAnswer, add_checkpoint_path, witnessed_path},
        outgoing,
    },
    receipt::{
        Commit, Epoch, Mirror, PeerCheckpoint, Row,
        checkpoint::{Checkpoint, epoch_of, witness_name},
        list, read, row_key,
        tile::Tile,
        witness::{Seen, Submission},
    },
    time::Timestamp,
};

pub(in crate::exchange) use self::alarm::Evidence;

/// A checkpoint goes to a partner at most so often.
const PACE: Duration = Duration::from_secs(1);
/// Where what we saw of partners' logs lies.
pub const SEEN: &str = "ws/";
const COSIGNED: &str = "wc/";
/// Longest answer of a witness.
const MAX_ANSWER: usize = 16 << 10;
/// What a witness answers that follows a later log.
pub(in crate::exchange) const GONE: u16 = 410;

/// What partners are owed, and what is known of their logs; follows the store.
#[derive(Default)]
pub struct Witnesses {
    /// By partner, the place of the newest receipt that its cosignature doesn't cover yet.
    owed: Mutex<HashMap<ParticipantId, u64>>,
    /// Partners who have not seen our log since we started: an old copy of it would be found out by them.
    unchecked: Mutex<HashSet<ParticipantId>>,
    /// By the log's origin, the newest checkpoint of it that we cosigned.
    seen: Mutex<HashMap<String, (u64, Sha256)>>,
    wake: Notify,
}

impl Mirror for Witnesses {
    fn applied(&self, key: &[u8], value: Option<&[u8]>) {
        if key.starts_with(SEEN.as_bytes())
            && let Some(seen) = value.and_then(|json| serde_json::from_slice::<Seen>(json).ok())
        {
            locked(&self.seen).insert(seen.origin, (seen.size, seen.root));
        }
    }

    fn grew(&self, partner: &ParticipantId, index: u64) {
        locked(&self.owed).insert(partner.clone(), index);
        self.wake.notify_one();
    }
}

impl Witnesses {
    /// The newest checkpoint of a partner's log that we cosigned.
    pub fn newest(&self, did: &(impl AsRef<str> + ?Sized)) -> Option<PeerCheckpoint> {
        let seen = locked(&self.seen);
        let theirs = seen.iter().filter_map(|(origin, checkpoint)| Some((epoch_of(origin, did)?, checkpoint)));
        let newest = theirs.max_by_key(|(epoch, _)| *epoch);
        newest.map(|(epoch, (size, root))| PeerCheckpoint { epoch, size: *size, root: *root })
    }

    /// The log of a partner's that is followed: the newest that it began, its first until then.
    pub fn followed(&self, did: &(impl AsRef<str> + ?Sized)) -> u64 {
        self.newest(did).map_or(1, |newest| newest.epoch)
    }

    fn seen_of(&self, origin: &str) -> Option<(u64, Sha256)> {
        locked(&self.seen).get(origin).copied()
    }

    /// All receipts before this place are cosigned by a partner.
    fn covered(&self, partner: &ParticipantId, end: u64) {
        locked(&self.unchecked).remove(partner);
        let mut owed = locked(&self.owed);
        if owed.get(partner).is_some_and(|index| *index < end) {
            owed.remove(partner);
        }
    }
}

/// A partner's cosignature of a checkpoint of ours, as it is kept and exported.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cosigned {
    /// By whom.
    pub witness: Did,
    /// Entries.
    pub size: u64,
    /// Our signed note.
    pub note: String,
    /// The cosignature line.
    pub line: String,
    /// When, by the witness' clock.
    pub at: Timestamp,
}

/// Sends our checkpoints to partners.
pub struct WitnessClient {
    exchange: Exchange,
    /// Attempts that failed since the last that didn't, and when the next may be, by partner.
    pace: Mutex<HashMap<ParticipantId, (u32, Timestamp)>>,
}

impl WitnessClient {
    /// A client over these walks.
    pub fn new(exchange: Exchange) -> Arc<Self> {
        Arc::new(Self { exchange, pace: Mutex::default() })
    }

    /// Sends what is owed until it is told to stop; then lets what is under way finish.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut flights: JoinSet<ParticipantId> = JoinSet::new();
        let mut flying: Vec<ParticipantId> = Vec::new();
        loop {
            let woken = self.exchange.witnesses.wake.notified();
            let now = self.exchange.clock.now();
            let mut pause = Duration::from_secs(30);
            let owed: Vec<ParticipantId> = locked(&self.exchange.witnesses.owed).keys().cloned().collect();
            for partner in owed {
                if flying.contains(&partner) || self.exchange.restorations.over(&partner).is_err() {
                    continue;
                }
                let next = locked(&self.pace).get(&partner).map_or(now, |(_, next)| *next);
                if next > now {
                    pause = pause.min(next.since(now));
                    continue;
                }
                flying.push(partner.clone());
                let this = self.clone();
                flights.spawn(async move {
                    this.attempt(&partner).await;
                    partner
                });
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = woken => {}
                () = tokio::time::sleep(pause.max(Duration::from_millis(5))) => {}
                Some(landed) = flights.join_next(), if !flights.is_empty() => match landed {
                    Ok(partner) => flying.retain(|other| *other != partner),
                    // a panic: whose it was is not known, so all may go again
                    Err(_) => flying.clear(),
                }
            }
        }
        while flights.join_next().await.is_some() {}
    }

    async fn attempt(&self, partner: &ParticipantId) {
        let outcome = self.exchange.submit(partner).await;
        let now = self.exchange.clock.now();
        let mut pace = locked(&self.pace);
        let entry = pace.entry(partner.clone()).or_insert((0, now));
        *entry = match outcome {
            Ok(()) => (0, now.plus(PACE)),
            Err(refusal) => {
                let wait = outgoing::backoff(entry.0).max(PACE);
                tracing::info!(%partner, %refusal, ?wait, "a checkpoint was not cosigned yet");
                (entry.0.saturating_add(1), now.plus(wait))
            }
        };
    }
}

impl Exchange {
    // === ours, to them ===

    /// What partners are owed: read at start, followed from then on. Everybody with whom we share a series gets one
    /// checkpoint then, so that an old copy of our log is found out.
    pub async fn owe_witnesses(&self) -> Result<(), Refusal> {
        for peer in self.peers.all() {
            let partner: ParticipantId = peer.did.clone().into();
            if let Some(last) = self.receipts.last_with(&partner).await.map_err(refuse("store-unreadable"))? {
                locked(&self.witnesses.unchecked).insert(partner.clone());
                locked(&self.witnesses.owed).entry(partner).or_insert(last);
            }
        }
        self.witnesses.wake.notify_one();
        Ok(())
    }

    /// Before the first release to a partner since we started: does it know more of our log than we do?
    pub(super) async fn checked_by(&self, partner: &ParticipantId) -> Result<(), Refusal> {
        if locked(&self.witnesses.unchecked).contains(partner)
            && let Err(refusal) = self.submit(partner).await
        {
            tracing::warn!(%partner, %refusal, "our log could not be held against what this partner knows of it");
        }
        self.behind.check()
    }

    /// Has our newest checkpoint cosigned by this partner.
    async fn submit(&self, partner: &ParticipantId) -> Result<(), Refusal> {
        let unreadable = refuse("store-unreadable");
        let log = self.log.now().await.map_err(&unreadable)?;
        if log.size == 0 {
            return Ok(());
        }
        let checkpoint = Checkpoint::claimed(&log.checkpoint).map_err(refuse("store-unreadable"))?;
        // after a restore a partner has to know our new log before it can cosign it
        self.restorations.over(partner)?;
        let peer = match self.peer(partner) {
            Ok(peer) => peer,
            // whoever is no peer any more is owed nothing
            Err(_) => {
                self.witnesses.covered(partner, u64::MAX);
                return Ok(());
            }
        };
        let row = read::<u64>(&*self.store, &cosigned_size(log.epoch, partner)).await.map_err(&unreadable)?;
        let mut old = row.value.unwrap_or(0);
        let (mut asked_again, mut announced) = (false, false);
        loop {
            let Some(proof) = self.log.prove_consistency(old, checkpoint.size).await.map_err(&unreadable)? else {
                // it says that it cosigned more of our log than we have: if so, we are an old copy
                return self.held_against(&peer, &log).await;
            };
            let submission = Submission { old, proof, note: log.checkpoint.clone() };
            match self.ask_witness(&peer, &submission).await? {
                (200, body) => return self.keep_cosignature(&peer, row, &log, &checkpoint, &body).await,
                (GONE, _) => return self.held_against(&peer, &log).await,
                // it was not told of our new log yet
                (404, _) if log.epoch > 1 && !announced => {
                    announced = true;
                    self.announce_log(&peer).await?;
                }
                (409, body) => {
                    let known = body.trim_end().parse::<u64>().ok().filter(|known| *known != old && !asked_again);
                    // it knows another size than we thought: the cosignature was lost on its way, or a late one came first
                    old = known
                        .ok_or_else(|| Refusal::new("witness-conflict", "the partner knows another checkpoint"))?;
                    asked_again = true;
                }
                // it asks for the proof once more
                (422, _) if !asked_again => asked_again = true,
                (status, body) => {
                    let why: String = body.chars().filter(|c| !c.is_control()).take(200).collect();
                    return Err(Refusal::new("witness-refused", format!("`{partner}` answered {status}: {why}")));
                }
            }
        }
    }

    /// A partner says that it knows more of our logs than we do. It has to show what we signed: then this home is an old
    /// copy of itself, and nothing is decided any more. Who shows nothing is refused, and that is all.
    async fn held_against(&self, peer: &Peer, log: &Epoch) -> Result<(), Refusal> {
        let url = format!("{}{}", peer.base(), witnessed_path());
        let answer: WitnessedAnswer = parsed(&self.ask(peer, Method::GET, &url, None, None).await?)?;
        for note in answer.checkpoints {
            let Ok(claimed) = Checkpoint::claimed(&note) else { continue };
            let Some(epoch) = epoch_of(&claimed.origin, &self.us) else { continue };
            let newer = epoch > log.epoch || epoch == log.epoch && claimed.size > log.size;
            if newer && Checkpoint::verify(&note, &claimed.origin, &self.keys.log.public()).is_ok() {
                let sentence = format!(
                    "`{}` has cosigned {} entries of {}, and this home has {} of log {}: it is an older copy of itself, or the \
                     connector was restored elsewhere. Stop this one, and run the other",
                    peer.did, claimed.size, claimed.origin, log.size, log.epoch
                );
                self.behind.set(&sentence);
                return Err(Refusal::new("log-behind", sentence));
            }
        }
        Err(Refusal::new("witness-conflict", "the partner says that it knows more of our log, and shows nothing of it"))
    }

    async fn ask_witness(&self, peer: &Peer, submission: &Submission) -> Result<(u16, String), Refusal> {
        let url = format!("{}{}", peer.base(), add_checkpoint_path());
        let client = self.clients.client_for(&peer.target(), &url).map_err(refuse("peer-address"))?;
        let body = submission.body();
        let question = Ask {
            method: Method::POST,
            url: &url,
            authorization: None,
            content_type: "text/plain; charset=utf-8",
            body: Some(body.as_bytes()),
            limit: MAX_ANSWER,
            timeout: PATIENCE,
        };
        let answer =
            protocol::ask(&client, question).await.map_err(|problem| Refusal::new("peer-unreachable", problem))?;
        Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
    }

    async fn keep_cosignature(
        &self,
        peer: &Peer,
        row: Row<u64>,
        log: &Epoch,
        checkpoint: &Checkpoint,
        body: &str,
    ) -> Result<(), Refusal> {
        let partner: ParticipantId = peer.did.clone().into();
        let name = witness_name(&peer.did);
        let at = checkpoint
            .cosigned_by(body, &name, &peer.statement.keys.cosigner)
            .map_err(refuse("cosignature-invalid"))?;
        let line = body.lines().find(|line| checkpoint.cosigned_by(line, &name, &peer.statement.keys.cosigner).is_ok());
        let cosigned = Cosigned {
            witness: peer.did.clone(),
            size: checkpoint.size,
            note: log.checkpoint.clone(),
            line: format!("{}\n", line.unwrap_or_default()),
            at,
        };
        let mut commit = Commit::new();
        commit.put_blind(cosigned_key(log.epoch, &cosigned), &cosigned).map_err(refuse("internal"))?;
        commit.put(&row, &checkpoint.size).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        self.witnesses.covered(&partner, log.first + log.size);
        Ok(())
    }

    /// Cosignatures of checkpoints of this log of ours, by size, from this size on; a page of them.
    pub async fn cosignatures(&self, epoch: u64, from: u64, limit: usize) -> Result<Vec<Cosigned>, Refusal> {
        let prefix = cosigned_in(epoch);
        let mut start = prefix.clone();
        start.extend_from_slice(&from.to_be_bytes());
        let rows =
            list::<Cosigned>(&*self.store, &prefix, Some(&start), limit).await.map_err(refuse("store-unreadable"))?;
        Ok(rows.into_iter().filter_map(|row| row.value).collect())
    }

    /// What we saw of a partner's log.
    pub(super) async fn seen_log(&self, origin: &str) -> Result<Option<Seen>, Refusal> {
        let row = read::<Seen>(&*self.store, &seen_key(origin)).await.map_err(refuse("store-unreadable"))?;
        Ok(row.value)
    }

    /// The newest checkpoint of each of a partner's logs that we cosigned.
    pub(super) async fn witnessed_of(&self, did: &Did) -> Result<Vec<String>, Refusal> {
        let origins: Vec<String> = locked(&self.witnesses.seen).keys().cloned().collect();
        let mut notes = Vec::new();
        for origin in origins.iter().filter(|origin| epoch_of(origin, did).is_some()) {
            notes.extend(self.seen_log(origin).await?.map(|seen| seen.note));
        }
        Ok(notes)
    }

    /// How many entries of our log each Counterseal peer has cosigned.
    pub async fn witnessed(&self) -> Result<Vec<(Did, u64)>, Refusal> {
        let epoch = self.log.epoch().await.map_err(refuse("store-unreadable"))?;
        let mut witnessed = Vec::new();
        for peer in self.peers.all() {
            let row = read::<u64>(&*self.store, &cosigned_size(epoch, &peer.did.clone().into()))
                .await
                .map_err(refuse("store-unreadable"))?;
            witnessed.push((peer.did.clone(), row.value.unwrap_or(0)));
        }
        witnessed.sort();
        Ok(witnessed)
    }

    /// A file of our log; the newest checkpoint with what cosignatures it has.
    pub(super) async fn own_log_file(&self, epoch: u64, path: &str) -> Result<Vec<u8>, Refusal> {
        let unknown = || Refusal::new("tile-unknown", "the log has no such file");
        let unreadable = refuse("store-unreadable");
        let log = self.log.of_epoch(epoch).await.map_err(&unreadable)?.ok_or_else(unknown)?;
        if path == "checkpoint" {
            let (checkpoint, mut note) = log.checkpoint().await.map_err(&unreadable)?.ok_or_else(unknown)?;
            let signed = note.len();
            for cosigned in self.cosignatures(epoch, checkpoint.size, 100).await? {
                if cosigned.size == checkpoint.size && cosigned.note == note[..signed] {
                    note.push_str(&cosigned.line);
                }
            }
            return Ok(note.into_bytes());
        }
        let tile = Tile::parse(path).ok_or_else(unknown)?;
        log.tile(tile).await.map_err(&unreadable)?.ok_or_else(unknown)
    }
}

/// Whether partners have shown that our log is an old copy of itself; nothing is decided from then on.
#[derive(Default)]
pub struct Behind(Mutex<Option<String>>);

impl Behind {
    fn set(&self, sentence: &str) {
        tracing::error!("{sentence}");
        *locked(&self.0) = Some(sentence.to_owned());
    }

    /// Refuses once it is known.
    pub fn check(&self) -> Result<(), Refusal> {
        match &*locked(&self.0) {
            None => Ok(()),
            Some(sentence) => Err(Refusal::new("log-behind", sentence.clone())),
        }
    }
}

/// Where it lies how long a partner's log was when it was over.
pub(in crate::exchange) fn ended_key(origin: &str) -> Vec<u8> {
    row_key("we/", &[origin])
}

/// Where it lies what we saw of a log.
pub(in crate::exchange) fn seen_key(origin: &str) -> Vec<u8> {
    row_key(SEEN, &[origin])
}

/// Where the size lies that a partner cosigned last, of this log.
fn cosigned_size(epoch: u64, partner: &ParticipantId) -> Vec<u8> {
    row_key("wo/", &[&epoch.to_string(), partner.as_str()])
}

fn cosigned_in(epoch: u64) -> Vec<u8> {
    [COSIGNED.as_bytes(), &epoch.to_be_bytes()].concat()
}

/// By log, by size, then by witness.
fn cosigned_key(epoch: u64, cosigned: &Cosigned) -> Vec<u8> {
    let mut key = cosigned_in(epoch);
    key.extend_from_slice(&cosigned.size.to_be_bytes());
    key.extend_from_slice(Sha256::as_bytes(&sha256(cosigned.witness.as_str().as_bytes())));
    key
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
