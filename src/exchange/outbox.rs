//! The outbox: letters wait in rows `x/…` from the commit that wrote them until they are delivered or given up.
//!
//! One worker per peer with work. Letters of one process go out in order, one in flight each; one that isn't answered
//! yet (404, 5xx, a closed or silent connection) holds back only its own process. Delivery is at least once: the row
//! goes when the peer has answered, so after a restart a letter may go out twice, and the receiver knows it by `@id`.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
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
    receipt::{Commit, ReceiptError, list},
    time::Timestamp,
};

/// Letters read at a time.
const PAGE: usize = 512;

/// Sends what the walks wrote.
pub struct Outbox {
    exchange: Exchange,
    /// Failed attempts and the next one, by letter; forgotten at a restart, and then all are due.
    attempts: Mutex<HashMap<u64, (u32, Timestamp)>>,
    busy: Mutex<HashSet<ParticipantId>>,
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
        Arc::new(Self { exchange, attempts: Mutex::default(), busy: Mutex::default() })
    }

    /// Delivers until it is told to stop; then lets the attempts in flight finish.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut workers = JoinSet::new();
        loop {
            // registered before the scan: a letter that is written meanwhile wakes us again
            let mail = self.exchange.mail.notified();
            let pause = self.clone().dispatch(&mut workers).await;
            tokio::select! {
                () = stop.cancelled() => break,
                () = mail => {}
                () = tokio::time::sleep(pause) => {}
                Some(_) = workers.join_next(), if !workers.is_empty() => {}
            }
        }
        while workers.join_next().await.is_some() {}
    }

    /// Starts a worker for each peer that has a letter due; says when to look again.
    async fn dispatch(self: Arc<Self>, workers: &mut JoinSet<()>) -> Duration {
        let letters = match self.letters().await {
            Ok(letters) => letters,
            Err(error) => {
                tracing::error!(%error, "the outbox can't be read");
                return Duration::from_secs(5);
            }
        };
        let now = self.exchange.clock.now();
        let mut next = now.plus(Duration::from_secs(30));
        let mut due: HashMap<ParticipantId, Vec<Letter>> = HashMap::new();
        let mut held: HashSet<(ParticipantId, Pid)> = HashSet::new();
        for letter in letters {
            // only the first of a process: the others wait for it
            if !held.insert((letter.peer.clone(), letter.process.clone())) {
                continue;
            }
            let at = self.due_at(&letter);
            if at <= now {
                due.entry(letter.peer.clone()).or_default().push(letter);
            } else {
                next = next.min(at);
            }
        }
        for (peer, letters) in due {
            if !self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(peer.clone()) {
                continue;
            }
            let this = self.clone();
            workers.spawn(async move {
                for letter in letters {
                    this.attempt(letter).await;
                }
                this.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
                this.exchange.post();
            });
        }
        next.since(now).max(Duration::from_millis(5))
    }

    /// Every letter that waits: those to a peer that is away must not hide the others.
    async fn letters(&self) -> Result<Vec<Letter>, ReceiptError> {
        let mut letters = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = list::<Letter>(&*self.exchange.store, Letter::PREFIX.as_bytes(), after.as_deref(), PAGE).await?;
            let Some(last) = rows.last() else { return Ok(letters) };
            after = Some(last.key.clone());
            letters.extend(rows.into_iter().filter_map(|row| row.value));
        }
    }

    fn due_at(&self, letter: &Letter) -> Timestamp {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.get(&letter.seq).map_or(letter.due, |(_, next)| *next)
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
                    let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
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
                self.attempts.lock().unwrap_or_else(PoisonError::into_inner).remove(&letter.seq);
            }
            // the row is still there: it goes out again
            Err(refusal) => tracing::error!(%refusal, "what follows from a delivery could not be recorded"),
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
        let body = match self.exchange.letter_body(letter) {
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

    pub(super) fn letter_body(&self, letter: &Letter) -> Result<String, Refusal> {
        let mut body = letter.body.clone();
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
