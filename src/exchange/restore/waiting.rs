//! Who has not said yet what it knows: decisions with them wait, and they are asked until they answer.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Refusal,
    exchange::Exchange,
    id::ParticipantId,
    protocol::outgoing,
    receipt::{Mirror, row_key},
    time::Timestamp,
};

/// Partners that have not been asked yet.
pub const WAITING: &str = "rc/";
/// Between two attempts with one partner, at least.
const PAUSE: Duration = Duration::from_secs(1);
/// Between looks while there is nobody to ask.
const IDLE: Duration = Duration::from_secs(60);

/// A partner that is to be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Waiting {
    /// Who.
    pub partner: ParticipantId,
    /// Whether decisions go on without its answer.
    #[serde(default)]
    pub accepted: bool,
}

impl Waiting {
    /// The row's key.
    pub fn key(partner: &ParticipantId) -> Vec<u8> {
        row_key(WAITING, &[partner.as_str()])
    }
}

/// Partners that have not said yet what they know; follows the store.
#[derive(Default)]
pub struct Restorations {
    waiting: Mutex<HashMap<ParticipantId, bool>>,
    wake: Notify,
}

impl Mirror for Restorations {
    fn applied(&self, key: &[u8], value: Option<&[u8]>) {
        if !key.starts_with(WAITING.as_bytes()) {
            return;
        }
        match value.map(serde_json::from_slice::<Waiting>) {
            Some(Ok(waiting)) => {
                self.locked().insert(waiting.partner, waiting.accepted);
                self.wake.notify_one();
            }
            Some(Err(error)) => tracing::error!(%error, "a row of a restoration can't be read"),
            None => self.locked().retain(|partner, _| Waiting::key(partner) != key),
        }
    }
}

impl Restorations {
    /// Refuses as long as this partner has not said what it knows, and no steward goes on without.
    pub fn over(&self, partner: &ParticipantId) -> Result<(), Refusal> {
        if self.locked().get(partner) != Some(&false) {
            return Ok(());
        }
        Err(Refusal::new(
            "restore-unfinished",
            format!(
                "this connector was restored from a backup, and `{partner}` has not said yet what it knows of the receipts that \
                 were lost; it is asked again and again. If it can't be reached any more, a steward may go on with what the \
                 backup holds: `counterseal restore accept {partner}`"
            ),
        ))
    }

    /// Those that decisions wait for.
    pub fn waiting(&self) -> Vec<ParticipantId> {
        let waiting = self.locked();
        let mut waiting: Vec<_> =
            waiting.iter().filter(|(_, accepted)| !**accepted).map(|(one, _)| one.clone()).collect();
        waiting.sort();
        waiting
    }

    fn unasked(&self) -> Vec<ParticipantId> {
        self.locked().keys().cloned().collect()
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<ParticipantId, bool>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks partners until all have answered.
pub struct Restorer(Exchange);

impl Restorer {
    /// Over these walks.
    pub const fn new(exchange: Exchange) -> Self {
        Self(exchange)
    }

    /// Asks those that have not answered, each by itself, again and again, until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut flights: JoinSet<(ParticipantId, bool)> = JoinSet::new();
        let mut flying: HashSet<ParticipantId> = HashSet::new();
        let mut pace: HashMap<ParticipantId, (u32, Timestamp)> = HashMap::new();
        loop {
            let woken = self.0.restorations.wake.notified();
            let now = self.0.clock.now();
            for partner in self.0.restorations.unasked() {
                if flying.contains(&partner) || pace.get(&partner).is_some_and(|(_, next)| *next > now) {
                    continue;
                }
                flying.insert(partner.clone());
                let exchange = self.0.clone();
                flights.spawn(async move {
                    let asked = exchange.recover(&partner).await;
                    match &asked {
                        Ok(lost) => tracing::info!(%partner, lost, "what was lost with the old store is known again"),
                        Err(refusal) => {
                            tracing::warn!(%partner, %refusal, "the restore is not finished with this partner")
                        }
                    }
                    (partner, asked.is_ok())
                });
            }
            let pause = if self.0.restorations.unasked().is_empty() { IDLE } else { PAUSE };
            tokio::select! {
                () = stop.cancelled() => break,
                () = woken => {}
                () = tokio::time::sleep(pause) => {}
                Some(landed) = flights.join_next(), if !flights.is_empty() => match landed {
                    Ok((partner, true)) => {
                        flying.remove(&partner);
                        pace.remove(&partner);
                    }
                    Ok((partner, false)) => {
                        flying.remove(&partner);
                        let attempts = pace.get(&partner).map_or(0, |(attempts, _)| *attempts);
                        let wait = outgoing::backoff(attempts).max(PAUSE);
                        pace.insert(partner, (attempts.saturating_add(1), self.0.clock.now().plus(wait)));
                    }
                    // a panic: whose it was is not known, so all may go again
                    Err(_) => flying.clear(),
                }
            }
        }
        flights.shutdown().await;
    }
}
