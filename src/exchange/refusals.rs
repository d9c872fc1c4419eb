//! How many refusals get a receipt of their own: a flood of them must not fill the disk.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::{id::ParticipantId, time::Timestamp};

/// Receipts of refusals a peer may cause in a minute.
const BUDGET: u64 = 60;
const MINUTE: i64 = 60_000;

/// Counts refusals; those over budget, and those of callers nobody knows, go into one receipt a minute.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    minute: i64,
    by_peer: HashMap<ParticipantId, u64>,
    uncounted: u64,
}

impl Refusals {
    /// Whether a refusal of this peer's still gets a receipt of its own; if not, it is counted.
    pub fn within_budget(&self, peer: &ParticipantId, now: Timestamp) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now.millis().div_euclid(MINUTE);
        if counts.minute != minute {
            counts.minute = minute;
            counts.by_peer.clear();
        }
        let spent = counts.by_peer.entry(peer.clone()).or_default();
        *spent += 1;
        let within = *spent <= BUDGET;
        if !within {
            counts.uncounted += 1;
        }
        within
    }

    /// Counts the refusal of a caller whom nobody knows.
    pub fn count(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).uncounted += 1;
    }

    /// What was only counted since the last time.
    pub fn take(&self) -> u64 {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).uncounted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_counted_and_not_receipted() {
        let refusals = Refusals::default();
        let peer = ParticipantId::parse("did:web:x.invalid").unwrap();
        let now = Timestamp::from_millis(0);
        let receipts = (0..10_000).filter(|_| refusals.within_budget(&peer, now)).count();
        assert_eq!((receipts, refusals.take(), refusals.take()), (60, 9_940, 0));
        assert!(refusals.within_budget(&peer, Timestamp::from_millis(60_000)), "a new minute");
    }
}
