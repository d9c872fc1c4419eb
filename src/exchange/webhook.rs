//! Webhooks: events to an operator's own programs, signed after the Standard Webhooks specification, at least once and in
//! order, from wherever the last delivery stopped.

use std::{path::Path, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    config,
    crypto::hmac_sha256,
    error::Refusal,
    exchange::{Event, Exchange, refuse},
    id::ParticipantId,
    net::{Origin, Target},
    protocol::outgoing,
    receipt::{Commit, read, row_key},
};

/// How long one delivery may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long one look for events waits.
const LOOK: Duration = Duration::from_secs(60);
/// The shortest secret, in bytes (Standard Webhooks: 24).
const SHORTEST: usize = 24;

/// One receiver.
pub struct Webhook {
    exchange: Exchange,
    url: String,
    types: Vec<String>,
    secret: Zeroizing<Vec<u8>>,
    target: Target,
}

impl Webhook {
    /// Reads the secret, and checks the address.
    ///
    /// # Errors
    /// `config-webhook`, naming what is wrong.
    pub fn new(exchange: Exchange, home: &Path, of: &config::Webhook) -> Result<Self, Refusal> {
        let wrong = |problem: String| Refusal::new("config-webhook", format!("webhooks: {}: {problem}", of.url));
        let path = home.join(&of.secret_file);
        let text = crate::identity::read_secret_file(&path).map_err(|error| wrong(error.to_string()))?;
        // as the specification writes them: whsec_ and base64; anything else is taken as it is
        let secret = match text.trim().strip_prefix("whsec_") {
            Some(encoded) => STANDARD.decode(encoded).map_err(|error| wrong(format!("{}: {error}", path.display())))?,
            None => text.trim().as_bytes().to_vec(),
        };
        if secret.len() < SHORTEST {
            return Err(wrong(format!("{} holds fewer than {SHORTEST} bytes", path.display())));
        }
        let id = ParticipantId::parse(format!("webhook {}", of.url)).map_err(|error| wrong(error.to_string()))?;
        let target = Target { peer: id, seq: 0, origin: Origin::Public, endpoints: vec![of.url.clone()] };
        exchange.clients.client_for(&target, &of.url).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { exchange, url: of.url.clone(), types: of.types.clone(), secret: Zeroizing::new(secret), target })
    }

    /// Delivers until it is told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let next = async {
                let after = self.cursor().await?;
                self.exchange.next_events(after, LOOK).await
            };
            let events = tokio::select! {
                () = stop.cancelled() => return,
                events = next => events.unwrap_or_default(),
            };
            for event in events {
                loop {
                    let outcome = tokio::select! {
                        () = stop.cancelled() => return,
                        outcome = self.deliver(&event) => outcome,
                    };
                    let Err(why) = outcome else { break };
                    let pause = outgoing::backoff(failures);
                    tracing::warn!(url = %self.url, event = event.number, %why, ?pause, "a webhook did not take an event");
                    failures += 1;
                    if tokio::time::timeout(pause, stop.cancelled()).await.is_ok() {
                        return;
                    }
                }
                failures = 0;
            }
        }
    }

    async fn deliver(&self, event: &Event) -> Result<(), Refusal> {
        if self.types.is_empty() || self.types.iter().any(|kind| kind == event.kind()) {
            let body = event.body.to_string();
            let id = format!("{}/{}", self.exchange.us, event.number);
            let time = self.exchange.clock.now().seconds().to_string();
            let signature = STANDARD.encode(hmac_sha256(&self.secret, format!("{id}.{time}.{body}").as_bytes()));
            let client = self.exchange.clients.client_for(&self.target, &self.url).map_err(refuse("config-webhook"))?;
            let answer = client
                .post(&self.url)
                .timeout(ATTEMPT)
                .header("content-type", "application/cloudevents+json")
                .header("webhook-id", id)
                .header("webhook-timestamp", time)
                .header("webhook-signature", format!("v1,{signature}"))
                .body(body)
                .send()
                .await
                .map_err(refuse("webhook-failed"))?;
            if !answer.status().is_success() {
                return Err(Refusal::new("webhook-failed", format!("it answered {}", answer.status())));
            }
        }
        let mut commit = Commit::new();
        commit.put_blind(self.key(), &event.number).map_err(refuse("internal"))?;
        // not by way of the walks: nobody who waits for events is to be woken by this
        self.exchange.committer.commit(commit).await.map(|_| ()).map_err(crate::exchange::commit_refusal)
    }

    /// Where it stopped; a receiver that is new begins with what comes.
    async fn cursor(&self) -> Result<u64, Refusal> {
        let row = read::<u64>(&*self.exchange.store, &self.key()).await.map_err(refuse("store-unreadable"))?;
        if let Some(number) = row.value {
            return Ok(number);
        }
        let newest = self.exchange.committer.events();
        let mut commit = Commit::new();
        commit.put(&row, &newest).map_err(refuse("internal"))?;
        self.exchange.committer.commit(commit).await.map_err(crate::exchange::commit_refusal)?;
        Ok(newest)
    }

    fn key(&self) -> Vec<u8> {
        row_key("wh/", &[&self.url])
    }
}
