//! Uses that are under way, and what ends them: the store says so, or time does.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use tokio::task::JoinSet;

use crate::{
    agreement::{self, AgreementRow},
    error::Refusal,
    exchange::{Exchange, use_copy::hand::Handovers},
    id::AgreementId,
    receipt::Mirror,
    time::Timestamp,
    vault::{self, Application, DerivedRow, Stop},
};

/// How often the time is looked at while plaintext flows: a stop bites within a second.
const LOOK: Duration = Duration::from_millis(200);
/// How long applications have to end when we do.
const ENDING: Duration = Duration::from_secs(2);
/// Between two questions for a newer status.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Uses that are under way. Follows the store: the commit that revokes an agreement stops them.
#[derive(Default)]
pub struct OpenUses {
    watched: Arc<Mutex<HashMap<u64, Watched>>>,
    next: AtomicU64,
    pub(super) handovers: Handovers,
}

struct Watched {
    keys: Vec<Vec<u8>>,
    stop: Arc<Stop>,
}

/// A use that is watched, until this is dropped.
pub(in crate::exchange) struct Watch {
    watched: Arc<Mutex<HashMap<u64, Watched>>>,
    id: u64,
    pub stop: Arc<Stop>,
}

impl OpenUses {
    /// Watches rows. To be begun before they are read for a decision: what is written after that either makes the use's
    /// commit fail, or stops it.
    pub(super) fn watch(&self, keys: Vec<Vec<u8>>) -> Watch {
        let (id, stop) = (self.next.fetch_add(1, Ordering::Relaxed), Arc::new(Stop::default()));
        locked(&self.watched).insert(id, Watched { keys, stop: stop.clone() });
        Watch { watched: self.watched.clone(), id, stop }
    }

    /// Stops all of them: what reads on a pipe must not take our end for the data's.
    pub async fn stop_all(&self) {
        for watched in locked(&self.watched).values() {
            watched.stop.now(Refusal::new("stopping", "the connector is stopping"));
        }
        let over = async {
            while !locked(&self.watched).is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(ENDING, over).await.is_err() {
            tracing::warn!("applications did not end in time");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        locked(&self.watched).remove(&self.id);
    }
}

/// What counts in a row: everything else may change while a use goes on.
#[derive(Deserialize)]
struct State {
    state: Option<String>,
}

impl Mirror for OpenUses {
    fn applied(&self, key: &[u8], value: Option<&[u8]>) {
        let watched = locked(&self.watched);
        let mut concerned = watched.values().filter(|watched| watched.keys.iter().any(|known| known == key)).peekable();
        if concerned.peek().is_none() {
            return;
        }
        let Some(why) = ended(key, value) else { return };
        for watched in concerned {
            watched.stop.now(why.clone());
        }
    }
}

/// Why a row that was written ends the uses that hang on it.
fn ended(key: &[u8], value: Option<&[u8]>) -> Option<Refusal> {
    if key.starts_with(Application::PREFIX.as_bytes()) {
        return value
            .is_none()
            .then(|| Refusal::new("application-unknown", "the application was removed while it ran"));
    }
    let state = value.and_then(|value| serde_json::from_slice::<State>(value).ok()).and_then(|row| row.state);
    let state = state.as_deref();
    let copy = [vault::PREFIX, DerivedRow::PREFIX].iter().any(|prefix| key.starts_with(prefix.as_bytes()));
    match (copy, state) {
        (true, Some("held")) | (false, Some("active")) => None,
        (true, _) => Some(Refusal::new("copy-without-key", "the copy was destroyed while it was used")),
        (false, Some("expired")) => Some(Refusal::new("agreement-expired", "the agreement ended during the use")),
        (false, _) => Some(Refusal::new("agreement-revoked", "the agreement was revoked during the use")),
    }
}

/// Until when a use may go on under an agreement on what is known now, and whether a newer status could prolong it.
fn until(agreement: &AgreementRow) -> (Timestamp, Duration) {
    let limit = Duration::from_secs(agreement.agreement.freshness_seconds);
    let status = agreement.status.as_ref();
    let fresh = status.map(|known| known.received.plus(limit).min(known.status.valid_until));
    // one that was never had is over
    (fresh.unwrap_or(Timestamp::from_millis(i64::MIN)), limit / 5)
}

impl Exchange {
    /// Looks at the time for as long as a use goes on: its agreements end, the last word on them grows too old. Asks for a
    /// newer one ahead of that.
    pub(super) fn keep_time(&self, stop: &Arc<Stop>, agreements: Vec<AgreementId>) {
        let (exchange, stop) = (self.clone(), Arc::downgrade(stop));
        tokio::spawn(async move { exchange.watch_time(stop, agreements).await });
    }

    async fn watch_time(&self, stop: Weak<Stop>, agreements: Vec<AgreementId>) {
        let mut asking = JoinSet::new();
        let mut asked: Option<tokio::time::Instant> = None;
        loop {
            let Some(stop) = stop.upgrade() else { return };
            if stop.check().is_err() {
                return;
            }
            for id in &agreements {
                let agreement = match self.agreement(id).await {
                    Ok((_, agreement)) => agreement,
                    Err(refusal) => return stop.now(refusal),
                };
                let now = self.clock.now();
                if let Err(refusal) = agreement.in_force(now) {
                    return stop.now(refusal);
                }
                let (end, ahead) = until(&agreement);
                if now >= end {
                    return stop.now(Refusal::new(
                        "status-stale",
                        format!("the provider's last word on agreement {id} grew too old during the use, and there is no newer one"),
                    ));
                }
                let due = asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN);
                if now.plus(ahead) >= end && due && asking.is_empty() {
                    asked = Some(tokio::time::Instant::now());
                    let (exchange, id) = (self.clone(), id.clone());
                    asking.spawn(async move { exchange.refresh_status(&id).await });
                }
            }
            drop(stop);
            while asking.try_join_next().is_some() {}
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The key of an agreement, a copy and so on, to be watched.
pub(super) fn agreement_keys<'a>(agreements: impl IntoIterator<Item = &'a AgreementId>) -> Vec<Vec<u8>> {
    agreements.into_iter().map(agreement::key).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::CopyId;

    #[test]
    fn what_ends_a_row_stops_the_uses_that_hang_on_it_and_no_other() {
        let uses = OpenUses::default();
        let (a, b) = (AgreementId::parse("urn:a").unwrap(), AgreementId::parse("urn:b").unwrap());
        let copy = CopyId::parse("urn:uuid:c").unwrap();
        let mut keys = agreement_keys([&a]);
        keys.extend([vault::key(&copy), Application::key("stats")]);
        let watch = |keys: &[Vec<u8>]| uses.watch(keys.to_vec());
        let write = |key: Vec<u8>, value: Option<&str>| uses.applied(&key, value.map(str::as_bytes));
        let goes_on = watch(&keys);
        write(agreement::key(&a), Some(r#"{"state":"active","x":1}"#));
        write(vault::key(&copy), Some(r#"{"state":"held"}"#));
        write(Application::key("stats"), Some(r#"{"name":"stats"}"#));
        write(agreement::key(&b), Some(r#"{"state":"revoked"}"#));
        goes_on.stop.check().unwrap();
        for (key, value, code) in [
            (agreement::key(&a), Some(r#"{"state":"revoked"}"#), "agreement-revoked"),
            (agreement::key(&a), Some(r#"{"state":"expired"}"#), "agreement-expired"),
            (agreement::key(&a), Some("not JSON"), "agreement-revoked"),
            (vault::key(&copy), Some(r#"{"state":"destroyed"}"#), "copy-without-key"),
            (vault::key(&copy), None, "copy-without-key"),
            (Application::key("stats"), None, "application-unknown"),
        ] {
            let stopped = watch(&keys);
            write(key, value);
            assert!(stopped.stop.why().unwrap().is(code), "{value:?}");
        }
        assert!(goes_on.stop.why().is_some(), "the same rows");
        drop(goes_on);
        assert!(locked(&uses.watched).is_empty());
    }
}
