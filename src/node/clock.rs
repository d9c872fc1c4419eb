//! `now` is the later of the wall clock and the last receipt.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::{
    error::Refusal,
    exchange::ClockGuard,
    time::{Clock, Timestamp},
};

/// How far behind the last receipt the wall clock may be.
const TOLERATED: Duration = Duration::from_secs(300);

/// A wall clock that is never earlier than the last receipt.
pub struct GuardedClock {
    wall: Arc<dyn Clock>,
    latest: Arc<AtomicI64>,
    /// The last receipt's time when an operator accepted the wall clock.
    accepted: AtomicI64,
}

impl GuardedClock {
    /// Over this wall clock and the log's latest time.
    pub fn new(wall: Arc<dyn Clock>, latest: Arc<AtomicI64>) -> Self {
        Self { wall, latest, accepted: AtomicI64::new(i64::MIN) }
    }

    fn latest(&self) -> Timestamp {
        Timestamp::from_millis(self.latest.load(Ordering::Acquire))
    }
}

impl Clock for GuardedClock {
    fn now(&self) -> Timestamp {
        self.wall.now().max(self.latest())
    }
}

impl ClockGuard for GuardedClock {
    fn check(&self) -> Result<(), Refusal> {
        let (wall, latest) = (self.wall.now(), self.latest());
        if latest.since(wall) <= TOLERATED || latest.millis() <= self.accepted.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Refusal::new(
            "clock-behind",
            format!(
                "the clock says {wall}, but the last receipt is from {latest}: nothing is decided on a clock that was set \
                 back; set it right, or run `counterseal clock accept`"
            ),
        ))
    }

    fn accept(&self) {
        self.accepted.store(self.latest().millis(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    #[test]
    fn a_clock_that_was_set_back_decides_nothing_until_it_is_accepted() {
        let wall = Arc::new(ManualClock::at(Timestamp::from_millis(10_000_000)));
        let latest = Arc::new(AtomicI64::new(10_000_000));
        let clock = GuardedClock::new(wall.clone(), latest.clone());
        wall.set(Timestamp::from_millis(10_000_000 - 299_000));
        assert!(clock.check().is_ok());
        assert_eq!(clock.now().millis(), 10_000_000, "never earlier than the last receipt");
        wall.set(Timestamp::from_millis(10_000_000 - 301_000));
        assert!(clock.check().unwrap_err().is("clock-behind"));
        clock.accept();
        assert!(clock.check().is_ok());
        latest.store(11_000_000, Ordering::Release);
        assert!(clock.check().is_err(), "accepted once, not for ever");
    }
}
