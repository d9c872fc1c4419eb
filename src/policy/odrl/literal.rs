//! Values and statements as text, on both sides.

use std::{fmt::Write as _, net::IpAddr};

use chrono::{DateTime, NaiveDate, NaiveTime};

use crate::{
    policy::{After, Before, Obligation, ObligationError, iso, odrl::rule::Statement, parse},
    time::Timestamp,
};

/// A literal of Cedar's `datetime`.
pub(super) fn cedar_time(text: &str) -> Option<Timestamp> {
    if text.len() == "2026-01-01".len() {
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        return Some(Timestamp::from_millis(date.and_time(NaiveTime::MIN).and_utc().timestamp_millis()));
    }
    let with_zone = match text.strip_suffix('Z') {
        Some(local) => format!("{local}+0000"),
        None => text.to_owned(),
    };
    let parsed = DateTime::parse_from_str(&with_zone, "%Y-%m-%dT%H:%M:%S%.f%z").ok()?;
    Some(Timestamp::from_millis(parsed.timestamp_millis()))
}

/// A literal of Cedar's `duration`, in milliseconds; none of a negative one.
pub(super) fn cedar_span(text: &str) -> Option<i64> {
    let (mut rest, mut millis) = (text, 0_i64);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (digits, unit) = rest.split_at(end);
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let (unit, left) = unit.split_at(end);
        let length = match unit {
            "d" => 86_400_000,
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return None,
        };
        millis = digits.parse::<i64>().ok()?.checked_mul(length)?.checked_add(millis)?;
        rest = left;
    }
    (!text.is_empty()).then_some(millis)
}

/// xsd:dayTimeDuration of milliseconds.
pub(super) fn iso_span(millis: i64) -> String {
    let (seconds, rest) = (millis / 1000, millis % 1000);
    match (seconds, rest) {
        (seconds, 0) => crate::policy::iso(seconds.unsigned_abs()),
        (seconds, rest) => format!("PT{seconds}.{rest:03}S"),
    }
}

/// The milliseconds of an xsd:duration of fixed length: no years, no months, not negative.
pub(super) fn parse_iso_span(text: &str) -> Option<i64> {
    if let Some(weeks) = text.strip_prefix('P').and_then(|rest| rest.strip_suffix('W')) {
        return weeks.parse::<u32>().ok().map(|weeks| i64::from(weeks) * 7 * 86_400_000);
    }
    let (days, time) = match text.strip_prefix('P')?.split_once('T') {
        Some((days, time)) if !time.is_empty() => (days, time),
        Some(_) => return None,
        None => (text.strip_prefix('P')?, ""),
    };
    let (mut millis, mut any) = (0_i64, false);
    for (part, units) in [(days, &[('D', 86_400_000_i64)][..]), (time, &[('H', 3_600_000), ('M', 60_000), ('S', 1000)])]
    {
        let (mut rest, mut after) = (part, 0);
        while !rest.is_empty() {
            let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
            let (digits, unit) = rest.split_at(end);
            let unit = unit.chars().next()?;
            let place = units.iter().position(|(known, _)| *known == unit).filter(|place| *place >= after)?;
            let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
            let fine = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if !fine(whole) || !fine(fraction) || fraction.len() > 3 || (digits.contains('.') && unit != 'S') {
                return None;
            }
            millis = whole.parse::<i64>().ok()?.checked_mul(units[place].1)?.checked_add(millis)?;
            if unit == 'S' {
                millis = format!("{fraction:0<3}").parse::<i64>().ok()?.checked_add(millis)?;
            }
            (rest, after, any) = (&rest[end + 1..], place + 1, true);
        }
    }
    any.then_some(millis)
}

/// An address or a network as Cedar's `ip` takes it, in one spelling.
pub(super) fn ip(text: &str) -> Option<String> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    // facts have such addresses as the IPv4 ones that they are: nothing would ever be equal to it
    if matches!(address, IpAddr::V6(six) if six.to_ipv4_mapped().is_some()) {
        return None;
    }
    let Some(prefix) = prefix else { return Some(address.to_string()) };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = prefix.parse::<u8>().ok().filter(|length| *length <= most && length.to_string() == prefix)?;
    Some(format!("{address}/{length}"))
}

/// A text as a Cedar string.
pub(super) fn quoted(text: &str) -> String {
    format!("{text:?}")
}

// === impl Statement ===

impl Statement {
    /// One of a name and words; `None` for a word that no quotes hold.
    pub fn new(name: &str, words: impl IntoIterator<Item = String>) -> Option<Self> {
        let mut arguments = String::new();
        for (place, word) in words.into_iter().enumerate() {
            let plain = !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
            let quote = match (plain, word.contains('\''), word.contains('"')) {
                (true, ..) => "",
                (_, false, _) => "'",
                (_, _, false) => "\"",
                _ => return None,
            };
            let comma = if place == 0 { "" } else { ", " };
            let _ = write!(arguments, "{comma}{quote}{word}{quote}");
        }
        Some(Self { name: name.to_owned(), arguments })
    }

    /// What is done first.
    pub fn before(before: &Before) -> Option<Self> {
        match before {
            Before::Approve(role) => Self::new("approve", [role.clone()]),
            Before::Consent(name) => Self::new("consent", [name.clone()]),
            Before::SecondFactor => Self::new("second_factor", []),
            Before::Accept(statement) => Self::new("accept", [statement.clone()]),
        }
    }

    /// What is owed afterwards.
    pub fn after(after: &After) -> Option<Self> {
        match after {
            After::DeleteWithin(time) => Self::new("delete_within", [iso(time.as_secs())]),
            After::Notify => Self::new("notify", []),
            After::Report(time) => Self::new("report", [iso(time.as_secs())]),
        }
    }

    /// Reads what stands in `@during`. Whether the columns are there is checked where they are known.
    pub fn during(text: &str) -> Result<Vec<Self>, ObligationError> {
        parse::statements(text, |name, args| {
            Obligation::known(name)?;
            let read = match name {
                "filter" => Some(Self { name: name.to_owned(), arguments: args.raw.trim().to_owned() }),
                _ => Self::new(name, args.words.clone()),
            };
            read.ok_or_else(|| ObligationError::Syntax(format!("`{name}`: a word with both kinds of quotes in it")))
        })
    }

    /// As it is written in a policy.
    pub fn written(&self) -> String {
        if self.arguments.is_empty() { self.name.clone() } else { format!("{}({})", self.name, self.arguments) }
    }
}

/// An obligation of a floor as a statement.
pub(super) fn obligation(of: &Obligation) -> Option<Statement> {
    let with = |name: &str, words: &[&dyn ToString]| {
        Statement::new(name, words.iter().map(|word: &&dyn ToString| word.to_string()))
    };
    match of {
        Obligation::Drop(columns) => Statement::new("drop", columns.clone()),
        Obligation::Keep(columns) => Statement::new("keep", columns.clone()),
        Obligation::Match(columns) => Statement::new("match", columns.clone()),
        Obligation::Redact(column) => with("redact", &[column]),
        Obligation::Nullify(column) => with("nullify", &[column]),
        Obligation::Hash { column, domain } if domain == column => with("hash", &[column]),
        Obligation::Hash { column, domain } => with("hash", &[column, domain]),
        Obligation::ShowFirst(column, count) => with("show_first", &[column, count]),
        Obligation::ShowLast(column, count) => with("show_last", &[column, count]),
        Obligation::Year(column) => with("year", &[column]),
        Obligation::Band(column, width) => with("band", &[column, width]),
        Obligation::Round(column, places) => with("round", &[column, places]),
        Obligation::Limit(rows) => with("limit", &[rows]),
        Obligation::Quota(records) => with("quota", &[records]),
        Obligation::AtLeast { k, columns } => {
            Statement::new("at_least", std::iter::once(k.to_string()).chain(columns.iter().cloned()))
        }
        Obligation::Watermark { column, keys } => {
            Statement::new("watermark", std::iter::once(column.clone()).chain(keys.iter().cloned()))
        }
        Obligation::Seal => with("seal", &[]),
        Obligation::Filter(filter) => Some(Statement { name: "filter".to_owned(), arguments: filter.tree.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_spans_are_read_on_both_sides() {
        for (text, at) in [
            ("1970-01-02", "1970-01-02T00:00:00.000Z"),
            ("2026-03-02T10:00:00Z", "2026-03-02T10:00:00.000Z"),
            ("2026-03-02T10:00:00.250Z", "2026-03-02T10:00:00.250Z"),
            ("2026-03-02T10:00:00+0800", "2026-03-02T02:00:00.000Z"),
            ("2026-03-02T10:00:00.250+0800", "2026-03-02T02:00:00.250Z"),
        ] {
            assert_eq!(cedar_time(text).unwrap().to_string(), at, "{text}");
        }
        assert_eq!(cedar_time("yesterday"), None);
        for (text, millis) in [("1d2h3m4s5ms", 93_784_005), ("0ms", 0), ("90m", 5_400_000)] {
            assert_eq!(cedar_span(text), Some(millis), "{text}");
            assert_eq!(parse_iso_span(&iso_span(millis)), Some(millis), "{text}");
        }
        for wrong in ["", "1", "-1d", "1w", "d"] {
            assert_eq!(cedar_span(wrong), None, "{wrong}");
        }
        for (text, millis) in [("P2W", 1_209_600_000), ("P1DT12H", 129_600_000), ("PT0.5S", 500), ("PT90M", 5_400_000)]
        {
            assert_eq!(parse_iso_span(text), Some(millis), "{text}");
        }
        for wrong in ["", "P", "PT", "P1Y", "P1M", "-P1D", "PT1M1H", "P1.5D", "1D", "PT5", "P1DT"] {
            assert_eq!(parse_iso_span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn statements_are_written_as_they_are_read() {
        let text = "hash(id, 'a b'); filter(grade = 3 and name <> ')'); seal; round(x, -2); drop(\"don't\")";
        let read = Statement::during(text).unwrap();
        let written: Vec<String> = read.iter().map(Statement::written).collect();
        assert_eq!(written.join("; "), text);
        assert_eq!(Statement::new("accept", ["a'\"".to_owned()]), None);
        assert!(Statement::during("hahs(id)").unwrap_err().to_string().contains("did you mean `hash`"));
    }

    #[test]
    fn networks_have_one_spelling() {
        assert_eq!(ip("10.0.0.0/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(ip("2001:DB8::0").as_deref(), Some("2001:db8::"));
        for wrong in ["10.0.0/8", "10.0.0.0/33", "10.0.0.0/08", "localhost", "10.0.0.0/", "::ffff:10.0.0.1"] {
            assert_eq!(ip(wrong), None, "{wrong}");
        }
    }
}
