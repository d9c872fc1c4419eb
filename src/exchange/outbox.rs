//! The outbox: letters wait in rows `x/…` from the commit that wrote them until they are delivered or given up.
//!
//! Letters of one process go out in order, one in flight each; one that isn't answered yet (404, 5xx, a closed or silent
//! connection) holds back only its own process. Each peer has a bounded number in flight. What waits is known in memory,
//! by a mirror that follows the store. Delivery is at least once: the row goes when the peer has answered, so after a
//! restart a letter may go out twice, and the receiver knows it by `@id`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    error::Refusal,
    exchange::{
        Exchange, refuse, retry,
        rows::{About, Letter, TokenSpec},
    },
    id::{ParticipantId, Pid},
    protocol::{self, Delivery, outgoing},
    receipt::{Commit, Mirror, read},
    time::Timestamp,
};

/// Letters in flight to one peer at a time.
const ABREAST: usize = 32;

/// Sends what the walks wrote.
pub struct Outbox {
    exchange: Exchange,
    /// Failed attempts and the next one, by letter; forgotten at a restart, and then all are due.
    attempts: Mutex<HashMap<u64, (u32, Timestamp)>>,
    /// Letters that are being delivered.
    flying: Mutex<HashSet<u64>>,
}

/// What waits, without the letters' bodies; follows the store.
#[derive(Default)]
pub struct Mailbox(Mutex<BTreeMap<u64, Waiting>>);

/// A letter that waits.
#[derive(Clone)]
struct Waiting {
    seq: u64,
    peer: ParticipantId,
    process: Pid,
    due: Timestamp,
}

impl Mailbox {
    fn waiting(&self) -> Vec<Waiting> {
        locked(&self.0).values().cloned().collect()
    }
}

impl Mirror for Mailbox {
    fn applied(&self, key: &[u8], value: Option<&[u8]>) {
        let Some(seq) = key.strip_prefix(Letter::PREFIX.as_bytes()).and_then(|seq| <[u8; 8]>::try_from(seq).ok())
        else {
            return;
        };
        let seq = u64::from_be_bytes(seq);
        match value.and_then(|bytes| serde_json::from_slice::<Letter>(bytes).ok()) {
            Some(letter) => {
                let waiting = Waiting { seq, peer: letter.peer, process: letter.process, due: letter.due };
                locked(&self.0).insert(seq, waiting);
            }
            None => {
                locked(&self.0).remove(&seq);
            }
        }
    }
}

/// Hands out letter numbers: later ones are greater, over restarts too (as far as the clock goes).
#[derive(Debug)]
pub struct Sequence(AtomicU64);

impl Sequence {
    /// Numbers from this moment on.
    pub fn starting(now: Timestamp) -> Self {
        Self(AtomicU64::new(u64::try_from(now.millis()).unwrap_or(0) << 20))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Outbox {
    /// An outbox over these walks.
    pub fn new(exchange: Exchange) -> Arc<Self> {
        Arc::new(Self { exchange, attempts: Mutex::default(), flying: Mutex::default() })
    }

    /// Delivers until it is told to stop; then lets the attempts in flight finish.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut flights = JoinSet::new();
        loop {
            // registered before the look: a letter that is written meanwhile wakes us again
            let mail = self.exchange.mail.notified();
            let pause = self.clone().dispatch(&mut flights);
            tokio::select! {
                () = stop.cancelled() => break,
                () = mail => {}
                () = tokio::time::sleep(pause) => {}
                Some(_) = flights.join_next(), if !flights.is_empty() => {}
            }
            while flights.try_join_next().is_some() {}
        }
        while flights.join_next().await.is_some() {}
    }

    /// Sends off what is due; says when to look again.
    fn dispatch(self: Arc<Self>, flights: &mut JoinSet<()>) -> Duration {
        let now = self.exchange.clock.now();
        let mut next = now.plus(Duration::from_secs(30));
        let mut abreast: HashMap<ParticipantId, usize> = HashMap::new();
        let mut held: HashSet<(ParticipantId, Pid)> = HashSet::new();
        for letter in self.exchange.mailbox.waiting() {
            let in_flight = abreast.entry(letter.peer.clone()).or_default();
            // only the first of a process: the others wait for it
            if !held.insert((letter.peer.clone(), letter.process.clone())) {
                continue;
            }
            // after a restore a partner has to know our new log first
            if self.exchange.restorations.over(&letter.peer).is_err() {
                continue;
            }
            let at = self.due_at(&letter);
            let mut flying = locked(&self.flying);
            if flying.contains(&letter.seq) {
                *in_flight += 1;
            } else if at > now {
                next = next.min(at);
            } else if *in_flight < ABREAST {
                *in_flight += 1;
                flying.insert(letter.seq);
                let this = self.clone();
                flights.spawn(async move {
                    this.fly(letter.seq).await;
                    locked(&this.flying).remove(&letter.seq);
                });
            }
        }
        next.since(now).max(Duration::from_millis(5))
    }

    fn due_at(&self, letter: &Waiting) -> Timestamp {
        locked(&self.attempts).get(&letter.seq).map_or(letter.due, |(_, next)| *next)
    }

    async fn fly(&self, seq: u64) {
        match read::<Letter>(&*self.exchange.store, &Letter::key(seq)).await {
            Ok(row) => {
                if let Some(letter) = row.value {
                    self.attempt(letter).await;
                }
            }
            Err(error) => {
                tracing::error!(%error, "a letter can't be read");
                let next = self.exchange.clock.now().plus(Duration::from_secs(5));
                locked(&self.attempts).entry(seq).or_insert((0, next)).1 = next;
            }
        }
    }

    async fn attempt(&self, letter: Letter) {
        let delivery = self.deliver(&letter).await;
        let settled = match delivery {
            Delivery::Accepted { body, .. } => self.exchange.delivered(&letter, &body).await,
            Delivery::Refused { status, code, reason } => {
                let sentence = format!("the peer refused our message with status {status}: {reason}");
                self.exchange.undeliverable(&letter, Refusal { code, sentence }).await
            }
            Delivery::NotYet(reason) => {
                let now = self.exchange.clock.now();
                if now >= letter.give_up {
                    let sentence = format!("our message could not be delivered until {}: {reason}", letter.give_up);
                    self.exchange.undeliverable(&letter, Refusal::new("delivery-given-up", sentence)).await
                } else {
                    let mut attempts = locked(&self.attempts);
                    let entry = attempts.entry(letter.seq).or_insert((0, now));
                    let wait = outgoing::backoff(entry.0);
                    *entry = (entry.0 + 1, now.plus(wait).min(letter.give_up));
                    tracing::info!(peer = %letter.peer, url = %letter.url, %reason, ?wait, "not delivered yet");
                    return;
                }
            }
        };
        match settled {
            Ok(()) => {
                locked(&self.attempts).remove(&letter.seq);
            }
            // the row is still there: it goes out again
            Err(refusal) => {
                tracing::error!(%refusal, "what follows from a delivery could not be recorded");
                let next = self.exchange.clock.now().plus(Duration::from_secs(1));
                locked(&self.attempts).entry(letter.seq).or_insert((0, next)).1 = next;
            }
        }
    }

    async fn deliver(&self, letter: &Letter) -> Delivery {
        let (partner, authorization) = match self.exchange.partner(&letter.peer).and_then(|partner| {
            let authorization = self.exchange.authorization_for(&partner)?;
            Ok((partner, authorization))
        }) {
            Ok(found) => found,
            Err(refusal) => {
                return Delivery::Refused { status: 403, code: refusal.code, reason: refusal.sentence };
            }
        };
        let client = match self.exchange.clients.client_for(&partner.target(), &letter.url) {
            Ok(client) => client,
            Err(error) => return Delivery::NotYet(error.to_string()),
        };
        let body = match self.exchange.letter_body(letter).await {
            Ok(body) => body,
            Err(refusal) => return Delivery::Refused { status: 500, code: refusal.code, reason: refusal.sentence },
        };
        let timeout = Duration::from_secs(self.exchange.config.outbox.attempt_seconds);
        let authorization = authorization.as_deref().map(String::as_str);
        protocol::deliver(&client, &letter.url, authorization, body.as_bytes(), timeout).await
    }
}

impl Exchange {
    /// Puts a letter into this commit.
    pub(super) fn letter(&self, commit: &mut Commit, letter: Draft<'_>) -> Result<(), Refusal> {
        let now = self.clock.now();
        let due = now.plus(self.follow_up_delay(letter.peer));
        let letter = Letter {
            seq: self.sequence.next(),
            peer: letter.peer.clone(),
            process: letter.process.clone(),
            about: letter.about,
            url: letter.url,
            body: letter.body,
            last: letter.last,
            token: letter.token,
            due,
            give_up: due.plus(self.config.give_up_after()),
        };
        commit.put_new(Letter::key(letter.seq), &letter).map_err(refuse("internal"))
    }

    /// What came of a letter that the peer took.
    pub(super) async fn delivered(&self, letter: &Letter, body: &[u8]) -> Result<(), Refusal> {
        retry!(self.settle(letter, Ok(body)))
    }

    /// What came of a letter that will never arrive.
    pub(super) async fn undeliverable(&self, letter: &Letter, why: Refusal) -> Result<(), Refusal> {
        tracing::warn!(peer = %letter.peer, url = %letter.url, %why, "a message is given up");
        retry!(self.settle(letter, Err(why.clone())))
    }

    async fn settle(&self, letter: &Letter, outcome: Result<&[u8], Refusal>) -> Result<(), Refusal> {
        let mut commit = Commit::new();
        let followed = match (letter.about, outcome) {
            (About::Notice, _) => Ok(()),
            (About::Negotiation, Ok(body)) => self.negotiation_delivered(&mut commit, &letter.process, body).await,
            (About::Transfer, Ok(body)) => self.transfer_delivered(&mut commit, &letter.process, body).await,
            (_, Err(_)) if letter.last => Ok(()),
            (About::Negotiation, Err(why)) => self.negotiation_undeliverable(&mut commit, &letter.process, why).await,
            (About::Transfer, Err(why)) => self.transfer_undeliverable(&mut commit, &letter.process, why).await,
        };
        match followed {
            // an answer that can't be read ends the process as a refusal does
            Err(why) if why.is("answer-invalid") || why.is("pid-mismatch") => {
                commit = Commit::new();
                match letter.about {
                    About::Negotiation => self.negotiation_undeliverable(&mut commit, &letter.process, why).await?,
                    About::Transfer => self.transfer_undeliverable(&mut commit, &letter.process, why).await?,
                    About::Notice => {}
                }
            }
            followed => followed?,
        }
        commit.delete_blind(Letter::key(letter.seq));
        self.commit(commit).await.map(|_| ())
    }

    pub(super) async fn letter_body(&self, letter: &Letter) -> Result<String, Refusal> {
        let mut body = letter.body.clone();
        if letter.about == About::Notice {
            self.complete_halves(&mut body).await?;
        }
        if let Some(spec) = &letter.token {
            let token = self.token(spec, &letter.peer)?;
            for property in body["dataAddress"]["endpointProperties"].as_array_mut().into_iter().flatten() {
                if property["name"] == "authorization" {
                    property["value"] = token.as_str().into();
                }
            }
        }
        Ok(body.to_string())
    }

    /// How long we wait after answering this peer before we send what follows (reference: the kit's races).
    fn follow_up_delay(&self, peer: &ParticipantId) -> Duration {
        self.partner(peer).map_or(Duration::ZERO, |partner| partner.follow_up_delay())
    }
}

/// What a walk says of a letter.
pub(super) struct Draft<'a> {
    pub peer: &'a ParticipantId,
    pub process: &'a Pid,
    pub about: About,
    pub url: String,
    pub body: serde_json::Value,
    pub last: bool,
    /// A token that goes with it; made at delivery, since nothing secret lies in the store.
    pub token: Option<TokenSpec>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
