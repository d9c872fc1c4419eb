//! Counters: how often, how many records and how many bytes, in all and in the present calendar periods.
//!
//! A tally is spent in the commit of the release or use that it counts, whose preconditions are the versions that were
//! read: of two racing requests one is decided anew, on what the other has spent.

use serde::{Deserialize, Serialize};

use crate::{
    id::{DatasetId, ParticipantId},
    policy::{Amount, Spent},
    receipt::row_key,
    time::{Timestamp, Zone},
};

/// What was spent, in all and in the periods in which it was spent last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// In all.
    pub total: Amount,
    /// In the minute, hour, day, month and year of `last`.
    periods: [Amount; 5],
    /// When it was spent last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Timestamp>,
}

/// What one participant has spent of one dataset under all its agreements (`su/…`), by action.
pub type SubjectRow = std::collections::BTreeMap<String, Tally>;

/// Where a participant's tallies of a dataset lie.
pub fn subject_key(participant: &ParticipantId, dataset: &DatasetId) -> Vec<u8> {
    row_key("su/", &[participant.as_str(), dataset.as_str()])
}

impl Tally {
    /// As facts of a request at `now`: periods that are over count nothing.
    pub fn at(&self, now: Timestamp, zone: Zone) -> Spent {
        let [minute, hour, day, month, year] = self.present(now, zone);
        Spent { total: self.total, minute, hour, day, month, year }
    }

    /// Spends.
    pub fn spend(&mut self, amount: Amount, now: Timestamp, zone: Zone) {
        self.periods = self.present(now, zone).map(|period| period.plus(amount));
        self.total = self.total.plus(amount);
        // a clock that was set back doesn't give a period anew
        self.last = Some(self.last.map_or(now, |last| last.max(now)));
    }

    /// What was reserved at `when` turned out to be `actual`. The count stays as it is.
    pub fn settle(&mut self, reserved: Amount, actual: Amount, when: Timestamp, zone: Zone) {
        let (reserved, actual) = (Amount { count: 0, ..reserved }, Amount { count: 0, ..actual });
        let mended = |amount: Amount| amount.minus(reserved).plus(actual);
        self.total = mended(self.total);
        let Some(last) = self.last else { return };
        let (then, present) = (zone.civil(when).periods, zone.civil(last).periods);
        for (place, amount) in self.periods.iter_mut().enumerate() {
            if then[place] == present[place] {
                *amount = mended(*amount);
            }
        }
    }

    fn present(&self, now: Timestamp, zone: Zone) -> [Amount; 5] {
        let Some(last) = self.last else { return [Amount::default(); 5] };
        let (then, present) = (zone.civil(last).periods, zone.civil(now.max(last)).periods);
        let mut periods = self.periods;
        for (place, amount) in periods.iter_mut().enumerate() {
            if then[place] != present[place] {
                *amount = Amount::default();
            }
        }
        periods
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Amount = Amount { count: 1, records: 100, bytes: 1000 };

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn each_period_ends_when_the_zones_calendar_says() {
        let zone = Zone::BEIJING;
        let mut tally = Tally::default();
        tally.spend(ONE, at("2025-12-31T23:58:10+08:00"), zone);
        tally.spend(ONE, at("2025-12-31T23:59:10+08:00"), zone);
        tally.spend(ONE, at("2025-12-31T23:59:50+08:00"), zone);
        let counts = |now: &str| {
            let often = tally.at(at(now), zone).frequency();
            [often.minute, often.hour, often.day, often.month, often.year]
        };
        assert_eq!(counts("2025-12-31T23:59:59.999+08:00"), [2, 3, 3, 3, 3]);
        assert_eq!(counts("2026-01-01T00:00:00+08:00"), [0, 0, 0, 0, 0]);
        assert_eq!(counts("2025-12-31T15:59:00+08:00"), [2, 3, 3, 3, 3], "set back: nothing is given anew");
        assert_eq!(tally.at(at("2027-01-01T00:00:00Z"), zone).total, Amount { count: 3, records: 300, bytes: 3000 });
    }

    #[test]
    fn what_was_reserved_is_settled_in_its_own_periods() {
        let zone = Zone::BEIJING;
        let actual = Amount { count: 1, records: 40, bytes: 300 };
        let (first, second) = (at("2026-03-01T10:00:00Z"), at("2026-03-02T10:00:00Z"));
        let mut tally = Tally::default();
        tally.spend(ONE, first, zone);
        tally.spend(ONE, second, zone);
        tally.settle(ONE, actual, first, zone);
        let spent = tally.at(second, zone);
        assert_eq!(spent.total, Amount { count: 2, records: 140, bytes: 1300 });
        assert_eq!(spent.month.records, 140);
        assert_eq!(spent.day, ONE, "yesterday's is over");
    }
}
