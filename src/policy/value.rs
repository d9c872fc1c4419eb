//! The values of facts.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A fact's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Cedar String.
    Text(String),
    /// Cedar Long.
    Long(i64),
    /// Cedar datetime.
    Time(Timestamp),
    /// Cedar duration, in milliseconds.
    Span(i64),
    /// Cedar decimal.
    Decimal(Money),
    /// Cedar ipaddr; an IPv4 address mapped into IPv6 is taken as the IPv4 address that it is.
    Ip(IpAddr),
    /// Cedar Set<String>.
    Texts(BTreeSet<String>),
    /// How often in the present calendar periods.
    Frequency(Frequency),
    /// What was spent, in all and in the present calendar periods.
    Spent(Box<Spent>),
}

/// A number with four decimal places: Cedar's `decimal`, in ten-thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(pub i64);

/// How much was released or used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Times.
    pub count: u64,
    /// Data records.
    pub records: u64,
    /// Bytes of plaintext.
    pub bytes: u64,
}

/// How often, in the calendar minute, hour, day, month and year of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the periods' own names")]
pub struct Frequency {
    pub minute: u64,
    pub hour: u64,
    pub day: u64,
    pub month: u64,
    pub year: u64,
}

/// What was spent before a request: in all, and in its calendar minute, hour, day, month and year.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the periods' own names")]
pub struct Spent {
    pub total: Amount,
    pub minute: Amount,
    pub hour: Amount,
    pub day: Amount,
    pub month: Amount,
    pub year: Amount,
}

impl Frequency {
    /// By the names of the schema, in the order of their names.
    pub const fn members(&self) -> [(&'static str, u64); 5] {
        let Self { minute, hour, day, month, year } = *self;
        [("day", day), ("hour", hour), ("minute", minute), ("month", month), ("year", year)]
    }

    /// From members by name; `None` unless they are exactly those of [`Self::members`].
    pub(super) fn from_members(mut of: impl FnMut(&str) -> Option<u64>) -> Option<Self> {
        let [day, hour, minute, month, year] = ["day", "hour", "minute", "month", "year"].map(&mut of);
        Some(Self { minute: minute?, hour: hour?, day: day?, month: month?, year: year? })
    }
}

impl Amount {
    /// By the names of the schema, in the order of their names.
    pub const fn members(&self) -> [(&'static str, u64); 3] {
        [("bytes", self.bytes), ("count", self.count), ("records", self.records)]
    }

    /// Both together; saturates.
    #[must_use]
    pub const fn plus(self, more: Self) -> Self {
        Self {
            count: self.count.saturating_add(more.count),
            records: self.records.saturating_add(more.records),
            bytes: self.bytes.saturating_add(more.bytes),
        }
    }

    /// What is left without `less`; at least nothing.
    #[must_use]
    pub const fn minus(self, less: Self) -> Self {
        Self {
            count: self.count.saturating_sub(less.count),
            records: self.records.saturating_sub(less.records),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }
}

impl Spent {
    /// By the names of the schema, in the order of their names.
    pub const fn members(&self) -> [(&'static str, Amount); 6] {
        let Self { total, minute, hour, day, month, year } = *self;
        [("day", day), ("hour", hour), ("minute", minute), ("month", month), ("total", total), ("year", year)]
    }

    /// How often.
    pub const fn frequency(&self) -> Frequency {
        Frequency {
            minute: self.minute.count,
            hour: self.hour.count,
            day: self.day.count,
            month: self.month.count,
            year: self.year.count,
        }
    }
}

impl Money {
    /// Reads `12`, `12.5` or `-12.3456`.
    pub fn parse(text: &str) -> Option<Self> {
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || fraction.len() > 4 {
            return None;
        }
        let whole: i64 = whole.parse().ok()?;
        let fraction: i64 = format!("{fraction:0<4}").parse().ok()?;
        Some(Self(whole.checked_mul(10_000)?.checked_add(fraction)?.checked_mul(sign)?))
    }
}

/// With four decimal places, as Cedar reads it.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, value) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        write!(f, "{sign}{}.{:04}", value / 10_000, value % 10_000)
    }
}

impl Value {
    /// The value as a person reads it.
    pub fn display(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{text}\""),
            Self::Long(number) => number.to_string(),
            Self::Time(at) => at.to_string(),
            Self::Span(millis) => span(*millis),
            Self::Decimal(money) => money.to_string(),
            Self::Ip(ip) => ip.to_canonical().to_string(),
            Self::Texts(texts) => {
                let quoted: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
                format!("[{}]", quoted.join(", "))
            }
            Self::Frequency(often) => {
                let members: Vec<String> = often.members().map(|(name, count)| format!("{name}: {count}")).into();
                format!("{{{}}}", members.join(", "))
            }
            Self::Spent(spent) => {
                let members = spent.members().map(|(name, amount)| {
                    let inner: Vec<String> = amount.members().map(|(name, much)| format!("{name}: {much}")).into();
                    format!("{name}: {{{}}}", inner.join(", "))
                });
                format!("{{{}}}", members.join(", "))
            }
        }
    }
}

/// `1d2h3m4s`, as Cedar writes durations.
pub(crate) fn span(millis: i64) -> String {
    let (sign, mut left) = (if millis < 0 { "-" } else { "" }, millis.unsigned_abs());
    let mut text = sign.to_owned();
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if left >= length {
            text.push_str(&format!("{}{unit}", left / length));
            left %= length;
        }
    }
    if millis == 0 { "0ms".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_reads_what_it_writes_and_nothing_else() {
        for (text, written) in [("100", "100.0000"), ("100.00", "100.0000"), ("-0.5", "-0.5000"), ("0", "0.0000")] {
            let money = Money::parse(text).unwrap();
            assert_eq!(money.to_string(), written);
            assert_eq!(Money::parse(written), Some(money));
        }
        for wrong in ["", "1.", ".5", "1.23456", "1e3", "+1", "1,00", "9223372036854775807"] {
            assert_eq!(Money::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn spans_are_written_as_cedar_reads_them() {
        for (millis, text) in [(0, "0ms"), (90_061_001, "1d1h1m1s1ms"), (-3_600_000, "-1h"), (86_400_000, "1d")] {
            assert_eq!(span(millis), text);
        }
    }
}
