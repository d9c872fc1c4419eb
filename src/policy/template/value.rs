//! Values of slots, and how each is written where it stands.

use chrono::NaiveDate;

use crate::{
    policy::{Money, phase, value::span},
    time::{Timestamp, Zone},
};

use super::{
    place::{Placeholder, Within},
    slot::seconds,
};

/// What was put into a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    One(One),
    List(Vec<One>),
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum One {
    Text(String),
    Column(String),
    Action(&'static str),
    Integer(i64),
    Decimal(Money),
    /// In seconds.
    Span(u64),
    Instant(Timestamp),
    Date {
        day: NaiveDate,
        zone: Zone,
    },
    Network(String),
}

impl Filled {
    /// Moved, or the first of them, as the placeholder says.
    pub fn shifted(&self, wanted: &Placeholder<'_>) -> Result<Self, String> {
        let first = match (self, wanted.first) {
            (Self::List(list), true) => Self::One(list.first().cloned().ok_or("it is empty")?),
            (Self::One(_), true) => return Err("it is no list".into()),
            (other, false) => other.clone(),
        };
        match (first, wanted.shift) {
            (value, None) => Ok(value),
            (Self::One(one), Some((back, by))) => Ok(Self::One(one.shifted(back, by).ok_or("it can't be moved so")?)),
            (Self::List(_), Some(_)) => Err("a list can't be moved".into()),
        }
    }

    /// As a person reads it.
    pub fn plain(&self) -> String {
        match self {
            Self::One(one) => one.plain(),
            Self::List(list) => list.iter().map(One::plain).collect::<Vec<_>>().join(", "),
        }
    }

    /// As it is written at a place; else what the place takes.
    pub fn written(&self, within: Within) -> Result<String, String> {
        let each = |write: &dyn Fn(&One) -> Result<String, String>| match self {
            Self::One(one) => write(one),
            Self::List(list) => Ok(list.iter().map(write).collect::<Result<Vec<_>, _>>()?.join(", ")),
        };
        let bracketed = |inner: String| if matches!(self, Self::List(_)) { format!("[{inner}]") } else { inner };
        Ok(match within {
            Within::Cedar => bracketed(each(&|one| Ok(one.cedar()))?),
            Within::Toml => bracketed(each(&|one| Ok(one.toml()))?),
            Within::Text => escaped(&self.plain()),
            Within::Obligation => escaped(&each(&One::word)?),
            Within::Filter => escaped(&each(&|one| Ok(one.sql()))?),
        })
    }
}

impl One {
    fn plain(&self) -> String {
        match self {
            Self::Text(text) | Self::Column(text) | Self::Network(text) => text.clone(),
            Self::Action(name) => (*name).to_owned(),
            Self::Integer(number) => number.to_string(),
            Self::Decimal(money) => money.to_string(),
            Self::Span(seconds) => phase::iso(*seconds),
            Self::Instant(at) => at.to_string(),
            Self::Date { day, .. } => day.to_string(),
        }
    }

    /// A literal of Cedar.
    fn cedar(&self) -> String {
        match self {
            Self::Text(_) | Self::Column(_) => quoted(&self.plain()),
            Self::Action(name) => format!("Action::\"{name}\""),
            Self::Integer(number) => number.to_string(),
            Self::Decimal(money) => format!("decimal(\"{money}\")"),
            Self::Span(_) => format!("duration(\"{}\")", self.short()),
            Self::Instant(at) => format!("datetime(\"{at}\")"),
            Self::Date { day, zone } => {
                format!("datetime(\"{day}T00:00:00.000{}\")", zone.to_string().replace(':', ""))
            }
            Self::Network(range) => format!("ip(\"{range}\")"),
        }
    }

    /// A value of TOML, in the test file's forms.
    fn toml(&self) -> String {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Span(_) => quoted(&self.short()),
            other => quoted(&other.plain()),
        }
    }

    /// `90d`
    fn short(&self) -> String {
        match self {
            Self::Span(seconds) => span(i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)),
            other => other.plain(),
        }
    }

    /// A word of the obligations' language. It has no escapes: what holds both quotes can't stand there.
    fn word(&self) -> Result<String, String> {
        let text = self.plain();
        let bare = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        match text.chars().all(bare) && !text.is_empty() {
            true => Ok(text),
            false if !text.contains('\'') => Ok(format!("'{text}'")),
            false if !text.contains('"') => Ok(format!("\"{text}\"")),
            false => Err("no text that has both kinds of quotes, in an obligation".into()),
        }
    }

    /// A name or a literal of SQL.
    fn sql(&self) -> String {
        match self {
            Self::Column(name) => format!("\"{}\"", name.replace('"', "\"\"")),
            Self::Integer(number) => number.to_string(),
            Self::Decimal(money) => money.to_string(),
            other => format!("'{}'", other.plain().replace('\'', "''")),
        }
    }

    fn shifted(&self, back: bool, by: &str) -> Option<Self> {
        Some(match self {
            Self::Integer(number) => {
                let by: i64 = by.parse().ok()?;
                Self::Integer(number.checked_add(if back { -by } else { by })?)
            }
            Self::Decimal(money) => {
                let by = Money::parse(by)?.0;
                Self::Decimal(Money(money.0.checked_add(if back { -by } else { by })?))
            }
            Self::Span(length) => {
                let by = seconds(by)?;
                Self::Span(if back { length.checked_sub(by)? } else { length.checked_add(by)? })
            }
            Self::Instant(at) => {
                let by = i64::try_from(seconds(by)?).ok()?.checked_mul(1000)?;
                Self::Instant(Timestamp::from_millis(at.millis().checked_add(if back { -by } else { by })?))
            }
            Self::Date { day, zone } => {
                let days = seconds(by).filter(|by| by % 86_400 == 0)? / 86_400;
                let days = chrono::Days::new(days);
                let day = if back { day.checked_sub_days(days)? } else { day.checked_add_days(days)? };
                Self::Date { day, zone: *zone }
            }
            _ => return None,
        })
    }

    /// Whether it is no more than another of its type; texts compare by their length.
    pub fn at_most(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a <= b,
            (Self::Decimal(a), Self::Decimal(b)) => a <= b,
            (Self::Span(a), Self::Span(b)) => a <= b,
            (Self::Instant(a), Self::Instant(b)) => a <= b,
            (Self::Date { day: a, .. }, Self::Date { day: b, .. }) => a <= b,
            _ => false,
        }
    }
}

/// A string of Cedar and of TOML alike.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// What stands between the quotes of such a string.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c => out.push(c),
        }
    }
    out
}
