//! The clock: one type for instants, one trait that everything reads them from.
//!
//! Nothing in the house reads the wall clock but [`SystemClock`]; tests hand in a [`ManualClock`].

use std::{
    fmt,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use chrono::{DateTime, Datelike as _, FixedOffset, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// An instant in UTC, in milliseconds since 1970-01-01; written as RFC 3339 with milliseconds and `Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch (JWT's NumericDate).
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This instant moved into the future; saturates.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Time from `earlier` to here; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Reads RFC 3339, any offset.
    pub fn parse(text: &str) -> Result<Self, chrono::ParseError> {
        Ok(Self(DateTime::parse_from_rfc3339(text)?.timestamp_millis()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_millis(self.0) {
            Some(at) => f.write_str(&at.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => write!(f, "{} ms", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|error| D::Error::custom(format!("`{text}` is not an RFC 3339 time: {error}")))
    }
}

/// A fixed distance from UTC, `+08:00`: where a policy's days begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone(FixedOffset);

/// An instant in a zone's calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// ISO 8601: Monday is 1.
    pub weekday: u8,
    /// Milliseconds since midnight.
    pub since_midnight: i64,
    /// Number of the minute, hour, day, month and year since some beginning: equal exactly within the same one.
    pub periods: [i64; 5],
}

impl Zone {
    /// China's, and that of the whole Greater Bay Area: what an offer means that says nothing.
    pub const BEIJING: Self = match FixedOffset::east_opt(8 * 3600) {
        Some(offset) => Self(offset),
        None => unreachable!(),
    };

    /// The zone's calendar at this instant.
    pub fn civil(self, at: Timestamp) -> Civil {
        let local = at.0.saturating_add(i64::from(self.0.local_minus_utc()) * 1000);
        let day = local.div_euclid(86_400_000);
        let date = DateTime::<Utc>::from_timestamp_millis(local).unwrap_or_default();
        Civil {
            weekday: date.weekday().number_from_monday() as u8,
            since_midnight: local.rem_euclid(86_400_000),
            periods: [
                local.div_euclid(60_000),
                local.div_euclid(3_600_000),
                day,
                i64::from(date.year()) * 12 + i64::from(date.month0()),
                i64::from(date.year()),
            ],
        }
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::BEIJING
    }
}

impl std::str::FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("`{text}` is no distance from UTC: write it as in +08:00"))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Where instants come from.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        Timestamp(Utc::now().timestamp_millis())
    }
}

/// A clock that stands still until it is set; for tests.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock standing at `at`.
    pub const fn at(at: Timestamp) -> Self {
        Self(AtomicI64::new(at.0))
    }

    /// Moves the clock, in either direction.
    pub fn set(&self, at: Timestamp) {
        self.0.store(at.0, Ordering::SeqCst);
    }

    /// Moves the clock into the future.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().plus(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reads_what_it_wrote() {
        let at = Timestamp::from_millis(1_764_000_000_123);
        assert_eq!(at.to_string(), "2025-11-24T16:00:00.123Z");
        assert_eq!(Timestamp::parse(&at.to_string()).unwrap(), at);
        assert_eq!(Timestamp::parse("2025-11-25T00:00:00.123+08:00").unwrap(), at);
        assert!(Timestamp::parse("2025-11-25").is_err());
    }

    #[test]
    fn a_zone_has_days_of_its_own() {
        let at = Timestamp::parse("2025-12-31T16:30:00Z").unwrap();
        let (here, there) = (Zone::BEIJING.civil(at), "+00:00".parse::<Zone>().unwrap().civil(at));
        assert_eq!((here.weekday, here.since_midnight), (4, 30 * 60_000));
        assert_eq!((there.weekday, there.since_midnight), (3, (16 * 60 + 30) * 60_000));
        assert_eq!(here.periods[4], there.periods[4] + 1, "it is another year there");
        assert_eq!("-03:30".parse::<Zone>().unwrap().to_string(), "-03:30");
        assert!("Asia/Shanghai".parse::<Zone>().unwrap_err().contains("+08:00"));
    }
}
