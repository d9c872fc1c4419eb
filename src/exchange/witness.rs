//! Witnessing: each connector is its partners' witness (C2SP `tlog-witness`).
//!
//! Ours to theirs: whenever a series that we share with a partner has grown, our newest checkpoint goes to it, at most
//! once a second, always once after the last; its cosignature is kept. What is owed is known from two places that are
//! compared at start (the newest receipt with a partner, the size that it cosigned last), so that a partner who was away
//! is caught up with. Theirs to ours: the pure rules are `receipt::witness`'s; here they are carried out, and what they
//! find is an alarm: a receipt, an event, and red in `status`.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    crypto::sha256,
    error::Refusal,
    exchange::{Exchange, catalog::PATIENCE, refuse, retry},
    id::{Did, ParticipantId, Sha256},
    identity::Peer,
    protocol::{
        self, Ask,
        extension::{Witnessing, add_checkpoint_path},
        outgoing,
    },
    receipt::{
        Commit, Kind, Mirror, PeerCheckpoint, Row,
        checkpoint::{Checkpoint, origin, witness_name},
        list, read, row_key,
        tile::Tile,
        witness::{Judgement, Seen, Submission, judge},
    },
    time::Timestamp,
};

/// A checkpoint goes to a partner at most so often.
const PACE: Duration = Duration::from_secs(1);
/// Where what we saw of partners' logs lies.
pub const SEEN: &str = "ws/";
const COSIGNED: &str = "wc/";
const ALARMS: &str = "al/";
/// Longest answer of a witness.
const MAX_ANSWER: usize = 16 << 10;

/// What partners are owed, and what is known of their logs; follows the store.
#[derive(Default)]
pub struct Witnesses {
    /// By partner, the place of the newest receipt that its cosignature doesn't cover yet.
    owed: Mutex<HashMap<ParticipantId, u64>>,
    /// Partners who have not seen our log since we started: an old copy of it would be found out by them.
    unchecked: Mutex<HashSet<ParticipantId>>,
    /// By the log's origin, its newest checkpoint.
    seen: Mutex<HashMap<String, PeerCheckpoint>>,
    wake: Notify,
}

impl Mirror for Witnesses {
    fn applied(&self, key: &[u8], value: Option<&[u8]>) {
        if key.starts_with(SEEN.as_bytes())
            && let Some(seen) = value.and_then(|json| serde_json::from_slice::<Seen>(json).ok())
        {
            locked(&self.seen).insert(seen.origin, PeerCheckpoint { size: seen.size, root: seen.root });
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
        let prefix = format!("{}/log/", did.as_ref());
        let seen = locked(&self.seen);
        let of_epochs = seen
            .iter()
            .filter_map(|(origin, checkpoint)| Some((origin.strip_prefix(&prefix)?.parse::<u64>().ok()?, checkpoint)));
        of_epochs.max_by_key(|(epoch, _)| *epoch).map(|(_, checkpoint)| checkpoint.clone())
    }

    fn covered(&self, partner: &ParticipantId, size: u64) {
        locked(&self.unchecked).remove(partner);
        let mut owed = locked(&self.owed);
        if owed.get(partner).is_some_and(|index| *index < size) {
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

/// What an alarm is about.
pub(super) struct Evidence {
    /// Stable code.
    pub code: &'static str,
    /// For people.
    pub sentence: String,
    /// Whether the objects prove it to anybody.
    pub proven: bool,
    /// What the partner signed.
    pub objects: Vec<String>,
}

/// An alarm that was raised: evidence against a partner's log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    /// Whose log.
    pub peer: Did,
    /// Stable code.
    pub code: String,
    /// For people.
    pub sentence: String,
    /// Whether the objects prove it to anybody, or only to us.
    pub proven: bool,
    /// When it was raised.
    pub at: Timestamp,
    /// What the partner signed.
    pub objects: Vec<String>,
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
                if flying.contains(&partner) {
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
        let Some((checkpoint, note)) = self.log.checkpoint().await.map_err(&unreadable)? else { return Ok(()) };
        let peer = match self.peer(partner) {
            Ok(peer) => peer,
            // whoever is no peer any more is owed nothing
            Err(_) => {
                self.witnesses.covered(partner, u64::MAX);
                return Ok(());
            }
        };
        let row = read::<u64>(&*self.store, &cosigned_size(partner)).await.map_err(&unreadable)?;
        let mut old = row.value.unwrap_or(0);
        let mut asked_again = false;
        loop {
            let Some(proof) = self.log.prove_consistency(old, checkpoint.size).await.map_err(&unreadable)? else {
                // the partner cosigned more of our log than we have: we are an old copy
                let sentence = format!(
                    "`{partner}` has cosigned {old} entries of our log, which has {}: this home is an older copy of itself, or was \
                     restored without a new log",
                    checkpoint.size
                );
                self.behind.set(&sentence);
                return Err(Refusal::new("log-behind", sentence));
            };
            let submission = Submission { old, proof, note: note.clone() };
            match self.ask_witness(&peer, &submission).await? {
                (200, body) => return self.keep_cosignature(&peer, row, &checkpoint, &note, &body).await,
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
        checkpoint: &Checkpoint,
        note: &str,
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
            note: note.to_owned(),
            line: format!("{}\n", line.unwrap_or_default()),
            at,
        };
        let mut commit = Commit::new();
        commit.put_blind(cosigned_key(&cosigned), &cosigned).map_err(refuse("internal"))?;
        commit.put(&row, &checkpoint.size).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        self.witnesses.covered(&partner, checkpoint.size);
        Ok(())
    }

    /// Cosignatures of our checkpoints, by size, from this size on; a page of them.
    pub async fn cosignatures(&self, from: u64, limit: usize) -> Result<Vec<Cosigned>, Refusal> {
        let mut start = COSIGNED.as_bytes().to_vec();
        start.extend_from_slice(&from.to_be_bytes());
        let rows = list::<Cosigned>(&*self.store, COSIGNED.as_bytes(), Some(&start), limit)
            .await
            .map_err(refuse("store-unreadable"))?;
        Ok(rows.into_iter().filter_map(|row| row.value).collect())
    }

    /// How many entries of our log each Counterseal peer has cosigned.
    pub async fn witnessed(&self) -> Result<Vec<(Did, u64)>, Refusal> {
        let mut witnessed = Vec::new();
        for peer in self.peers.all() {
            let row = read::<u64>(&*self.store, &cosigned_size(&peer.did.clone().into()))
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
        if self.log.epoch().await.map_err(&unreadable)? != epoch {
            return Err(unknown());
        }
        if path == "checkpoint" {
            let (checkpoint, mut note) = self.log.checkpoint().await.map_err(&unreadable)?.ok_or_else(unknown)?;
            for cosigned in self.cosignatures(checkpoint.size, 100).await? {
                if cosigned.size == checkpoint.size && cosigned.note == note[..cosigned.note.len().min(note.len())] {
                    note.push_str(&cosigned.line);
                }
            }
            return Ok(note.into_bytes());
        }
        let tile = Tile::parse(path).ok_or_else(unknown)?;
        self.log.tile(tile).await.map_err(&unreadable)?.ok_or_else(unknown)
    }

    // === theirs, to us ===

    /// Whether this is the origin of a log of this participant's that we follow: the one that we know, or its first.
    pub(super) fn is_log_of(&self, log: &str, did: &Did) -> bool {
        let known = locked(&self.witnesses.seen).keys().any(|origin| origin == log);
        known && log.starts_with(&format!("{did}/log/")) || log == origin(did, 1)
    }

    /// `add-checkpoint`: judged by what we saw, cosigned if it goes on from there.
    pub(super) async fn take_checkpoint(&self, peer: &Peer, body: &str) -> Result<Witnessing, Refusal> {
        let refused = |status, why: &str| Ok(Witnessing::Refused(status, why.to_owned()));
        let submission = match Submission::parse(body) {
            Ok(submission) => submission,
            Err(why) => return refused(400, why),
        };
        let claimed = match Checkpoint::claimed(&submission.note) {
            Ok(claimed) => claimed,
            Err(error) => return refused(400, &error.to_string()),
        };
        if !self.is_log_of(&claimed.origin, &peer.did) {
            return refused(404, "this is not a log of yours that we follow");
        }
        match Checkpoint::verify(&submission.note, &claimed.origin, &peer.statement.keys.log) {
            Ok(checkpoint) => retry!(self.judge_checkpoint(peer, &submission, &checkpoint)),
            Err(error) => refused(403, &error.to_string()),
        }
    }

    async fn judge_checkpoint(
        &self,
        peer: &Peer,
        submission: &Submission,
        checkpoint: &Checkpoint,
    ) -> Result<Witnessing, Refusal> {
        let row =
            read::<Seen>(&*self.store, &seen_key(&checkpoint.origin)).await.map_err(refuse("store-unreadable"))?;
        let seen = row.value.clone();
        let known = seen.as_ref().map_or(0, |seen| seen.size);
        let unproven = "the proof does not lead from the checkpoint that we cosigned to this one";
        match judge(seen.as_ref(), submission, checkpoint) {
            Judgement::Accept => {
                let next = Seen {
                    origin: checkpoint.origin.clone(),
                    size: checkpoint.size,
                    root: checkpoint.root,
                    note: submission.note.clone(),
                    doubtful: None,
                };
                let mut commit = Commit::new();
                commit.put(&row, &next).map_err(refuse("internal"))?;
                self.commit(commit).await?;
                let line = checkpoint.cosign(&witness_name(&self.us), &self.keys.cosigner, self.clock.now());
                Ok(Witnessing::Cosigned(line))
            }
            Judgement::Backwards => Ok(Witnessing::Refused(400, "the old size is larger than the checkpoint's".into())),
            Judgement::Conflict(size) => Ok(Witnessing::Conflict(size)),
            Judgement::Forked => {
                self.forked(peer, seen.map(|seen| seen.note), checkpoint, &submission.note).await?;
                Ok(Witnessing::Conflict(known))
            }
            Judgement::Unproven => {
                if let Some(seen) = seen {
                    let next = Seen { doubtful: Some(submission.note.clone()), ..seen };
                    let mut commit = Commit::new();
                    commit.put(&row, &next).map_err(refuse("internal"))?;
                    self.commit(commit).await?;
                }
                Ok(Witnessing::Refused(422, unproven.into()))
            }
            Judgement::UnprovenAgain => {
                let objects = seen.map(|seen| seen.note).into_iter().chain([submission.body()]).collect();
                let sentence = format!(
                    "`{}` twice failed to prove that its log of {} entries goes on from the {known} that we cosigned",
                    peer.did, checkpoint.size
                );
                self.alarm(peer, Evidence { code: "log-unproven", sentence, proven: false, objects }).await?;
                Ok(Witnessing::Refused(422, unproven.into()))
            }
        }
    }

    /// A checkpoint that came with a proof: of the size that we cosigned, it has to be the same.
    pub(super) async fn compare_with_seen(
        &self,
        peer: &Peer,
        checkpoint: &Checkpoint,
        note: &str,
    ) -> Result<(), Refusal> {
        let known = locked(&self.witnesses.seen).get(&checkpoint.origin).cloned();
        match known {
            Some(known) if known.size == checkpoint.size && known.root != checkpoint.root => {
                let row = read::<Seen>(&*self.store, &seen_key(&checkpoint.origin))
                    .await
                    .map_err(refuse("store-unreadable"))?;
                self.forked(peer, row.value.map(|seen| seen.note), checkpoint, note).await?;
                Err(Refusal::new("log-forked", "two signed checkpoints of one size have different roots"))
            }
            _ => Ok(()),
        }
    }

    async fn forked(
        &self,
        peer: &Peer,
        known: Option<String>,
        checkpoint: &Checkpoint,
        note: &str,
    ) -> Result<(), Refusal> {
        let sentence = format!("`{}` signed two different logs of {} entries", peer.did, checkpoint.size);
        let objects = known.into_iter().chain([note.to_owned()]).collect();
        self.alarm(peer, Evidence { code: "log-forked", sentence, proven: true, objects }).await
    }

    // === alarms ===

    /// Puts an alarm on record: evidence, receipt and event in one commit. The same evidence twice is one alarm.
    pub(super) async fn alarm(&self, peer: &Peer, evidence: Evidence) -> Result<(), Refusal> {
        let objects = serde_json::to_vec(&evidence.objects).map_err(refuse("internal"))?;
        // by what is signed, not by its repetition: one alarm a kind and day would do for a partner that keeps at it
        let key = row_key(ALARMS, &[peer.did.as_str(), evidence.code, &sha256(&objects).to_string()]);
        let row = read::<Alarm>(&*self.store, &key).await.map_err(refuse("store-unreadable"))?;
        if row.value.is_some() {
            return Ok(());
        }
        let alarm = Alarm {
            peer: peer.did.clone(),
            code: evidence.code.to_owned(),
            sentence: evidence.sentence.clone(),
            proven: evidence.proven,
            at: self.clock.now(),
            objects: evidence.objects,
        };
        tracing::error!(peer = %peer.did, code = evidence.code, "{}", evidence.sentence);
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Alarm, None);
        receipt.consumer = Some(peer.did.clone().into());
        receipt.refers = Some(sha256(&objects));
        receipt.reason = Some(Refusal::new(evidence.code, evidence.sentence));
        self.node_receipt(&mut commit, receipt)?;
        let data =
            json!({ "peer": alarm.peer, "code": alarm.code, "sentence": alarm.sentence, "proven": alarm.proven });
        self.announce(&mut commit, "org.counterseal.alarm", peer.did.as_str(), data);
        commit.put(&row, &alarm).map_err(refuse("internal"))?;
        match self.commit(commit).await {
            // somebody else raised it at the same moment
            Err(refusal) if refusal.is(super::CONFLICT) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    /// All alarms, oldest first.
    pub async fn alarms(&self) -> Result<Vec<Alarm>, Refusal> {
        let rows =
            list::<Alarm>(&*self.store, ALARMS.as_bytes(), None, 1000).await.map_err(refuse("store-unreadable"))?;
        let mut alarms: Vec<Alarm> = rows.into_iter().filter_map(|row| row.value).collect();
        alarms.sort_by_key(|alarm| alarm.at);
        Ok(alarms)
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

fn seen_key(origin: &str) -> Vec<u8> {
    row_key(SEEN, &[origin])
}

/// Where the size that a partner cosigned last lies.
fn cosigned_size(partner: &ParticipantId) -> Vec<u8> {
    row_key("wo/", &[partner.as_str()])
}

/// By size, then by witness.
fn cosigned_key(cosigned: &Cosigned) -> Vec<u8> {
    let mut key = COSIGNED.as_bytes().to_vec();
    key.extend_from_slice(&cosigned.size.to_be_bytes());
    key.extend_from_slice(Sha256::as_bytes(&sha256(cosigned.witness.as_str().as_bytes())));
    key
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
