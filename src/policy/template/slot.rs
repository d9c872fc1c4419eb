//! Slots: what a template asks for, and which values it takes.

use chrono::NaiveDate;
use serde::Deserialize;

use crate::{
    id::Did,
    policy::{
        ColumnKind, Columns, Money, UseAction, bounds, phase,
        problem::{harmless, nearest},
    },
    time::{Timestamp, Zone},
};

use super::{
    TemplateError,
    value::{Filled, One},
};

/// Longest text, in bytes.
const MAX_TEXT: usize = 512;
/// Most items of a list.
const MAX_LIST: usize = 200;
/// Largest number: what JSON readers agree on.
const MAX_INTEGER: i64 = (1 << 53) - 1;

/// A slot.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its name, as in `{{name}}`.
    pub name: String,
    /// What it takes.
    pub kind: SlotType,
    /// Whether it takes several.
    pub list: bool,
    /// The question to a person.
    pub prompt: String,
    /// The same in Chinese.
    pub prompt_zh: String,
    /// What it is where nothing is said.
    pub default: Option<String>,
    /// A value that it takes.
    pub example: String,
    min: Option<String>,
    max: Option<String>,
    choices: Vec<String>,
    kinds: Vec<ColumnKind>,
    template: String,
    zone: Zone,
}

/// What a slot takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotType {
    /// Anything on one line.
    Text,
    /// Letters, digits and `-_.:/`.
    Identifier,
    /// A participant's DID.
    Did,
    /// A whole number.
    Integer,
    /// A number with at most four decimal places.
    Decimal,
    /// ISO 8601, of a fixed length.
    Duration,
    /// RFC 3339.
    Datetime,
    /// A day; its midnight in the template's zone.
    Date,
    /// ISO 3166.
    Region,
    /// Letters, digits and `-_.`.
    Role,
    /// An IP address or a range of them.
    Network,
    /// A use.
    Action,
    /// A column of the dataset.
    Column,
    /// One of those that are listed.
    Choice,
}

/// A slot as `template.toml` has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Written {
    name: String,
    r#type: String,
    prompt: String,
    prompt_zh: String,
    default: Option<toml::Value>,
    example: toml::Value,
    min: Option<toml::Value>,
    max: Option<toml::Value>,
    #[serde(default)]
    choices: Vec<String>,
    #[serde(default)]
    kinds: Vec<ColumnKind>,
}

impl Slot {
    pub(super) fn take(written: Written, template: &str, zone: Zone) -> Result<Self, String> {
        let name = written.name;
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || !name.chars().all(fine) {
            return Err(format!("`{}` is no name of a slot: small letters, digits and `_`", harmless(&name)));
        }
        let (list, kind) = match written.r#type.strip_prefix("list of ") {
            Some(of) => (true, of),
            None if written.r#type == "columns" => (true, "column"),
            None => (false, written.r#type.as_str()),
        };
        let kind = SlotType::deserialize(toml::Value::String(kind.to_owned()))
            .map_err(|_| format!("the slot `{name}` has the type `{}`, which there isn't", written.r#type))?;
        if (kind == SlotType::Choice) == written.choices.is_empty() {
            return Err(format!("the slot `{name}`: `choices` go with the type `choice`, and it with them"));
        }
        Ok(Self {
            kind,
            list,
            prompt: written.prompt,
            prompt_zh: written.prompt_zh,
            default: written.default.map(text),
            example: text(written.example),
            min: written.min.map(text),
            max: written.max.map(text),
            choices: written.choices,
            kinds: written.kinds,
            template: template.to_owned(),
            zone,
            name,
        })
    }

    /// What it takes, in words.
    pub fn allowed(&self) -> String {
        let kind = match self.kind {
            SlotType::Text => format!("a text of one line, up to {MAX_TEXT} bytes"),
            SlotType::Identifier => "1 to 64 letters, digits and `-_.:/`".to_owned(),
            SlotType::Did => "a DID, such as did:web:hospital.example".to_owned(),
            SlotType::Integer => "a whole number".to_owned(),
            SlotType::Decimal => "a number with at most four decimal places, such as 100.00".to_owned(),
            SlotType::Duration => "an ISO 8601 duration in days, hours, minutes or seconds, such as P90D".to_owned(),
            SlotType::Datetime => "a time, such as 2026-04-01T00:00:00+08:00".to_owned(),
            SlotType::Date => "a day, such as 2026-04-01".to_owned(),
            SlotType::Region => "a code of ISO 3166, such as CN-4403 or HK".to_owned(),
            SlotType::Role => "1 to 64 bytes of letters, digits and `-_.`".to_owned(),
            SlotType::Network => "an IP address or range, such as 10.20.0.0/16".to_owned(),
            SlotType::Action => "a use, such as read, compute or distribute".to_owned(),
            SlotType::Column if self.kinds.is_empty() => "a column of the dataset".to_owned(),
            SlotType::Column => {
                let kinds: Vec<&str> = self.kinds.iter().map(|kind| kind.as_str()).collect();
                format!("a column of the dataset that holds {}", kinds.join(" or "))
            }
            SlotType::Choice => format!("one of {}", self.choices.join(", ")),
        };
        let kind = if self.list { format!("a list with commas between; each of them {kind}") } else { kind };
        match (&self.min, &self.max) {
            (Some(min), Some(max)) => format!("{kind}, from {min} to {max}"),
            (Some(min), None) => format!("{kind}, at least {min}"),
            (None, Some(max)) => format!("{kind}, at most {max}"),
            (None, None) => kind,
        }
    }

    /// Reads a value, as a person writes it.
    ///
    /// # Errors
    /// [`TemplateError::Value`].
    pub(super) fn read(&self, text: &str, columns: &Columns) -> Result<Filled, TemplateError> {
        let wrong = |value: &str, allowed: String| TemplateError::Value {
            template: self.template.clone(),
            slot: self.name.clone(),
            value: harmless(value),
            allowed,
        };
        if !self.list {
            let one = self.one(text, columns).map_err(|allowed| wrong(text, allowed))?;
            return Ok(Filled::One(one));
        }
        let items: Vec<String> = if text.trim_start().starts_with('[') {
            serde_json::from_str(text).map_err(|_| wrong(text, self.allowed()))?
        } else {
            text.split(',').map(|item| item.trim().to_owned()).collect()
        };
        if items.is_empty() || items.len() > MAX_LIST {
            return Err(wrong(text, format!("1 to {MAX_LIST} of them")));
        }
        let mut list = Vec::new();
        for item in &items {
            let one = self.one(item, columns).map_err(|allowed| wrong(item, allowed))?;
            if list.contains(&one) {
                return Err(wrong(item, "each only once".to_owned()));
            }
            list.push(one);
        }
        Ok(Filled::List(list))
    }

    fn one(&self, text: &str, columns: &Columns) -> Result<One, String> {
        let not = || self.allowed();
        let text = text.trim();
        let name = |more: &str, max: usize| {
            let fine = |c: char| c.is_alphanumeric() || more.contains(c);
            (!text.is_empty() && text.len() <= max && text.chars().all(fine)).then(|| One::Text(text.to_owned()))
        };
        let value = match self.kind {
            SlotType::Text => {
                let fine = !text.is_empty()
                    && text.len() <= MAX_TEXT
                    && !text.chars().any(|c| c.is_control() || bounds::invisible(c));
                fine.then(|| One::Text(text.to_owned()))
            }
            SlotType::Identifier => name("-_.:/", 64),
            SlotType::Role => name("-_.", 64),
            SlotType::Did => Did::parse(text).ok().map(|did| One::Text(did.to_string())),
            SlotType::Integer => text.parse().ok().filter(|number: &i64| number.abs() <= MAX_INTEGER).map(One::Integer),
            SlotType::Decimal => Money::parse(text).map(One::Decimal),
            SlotType::Duration => seconds(text).map(One::Span),
            SlotType::Datetime => Timestamp::parse(text).ok().map(One::Instant),
            SlotType::Date => {
                NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|day| One::Date { day, zone: self.zone })
            }
            SlotType::Region => {
                let fine = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
                ((2..=16).contains(&text.len()) && text.chars().all(fine)).then(|| One::Text(text.to_owned()))
            }
            SlotType::Network => network(text).map(One::Network),
            SlotType::Action => UseAction::parse(text).map(|action| One::Action(action.as_str())),
            SlotType::Column => match columns.get(text) {
                Some(column) if self.kinds.is_empty() || self.kinds.contains(&column.kind) => {
                    Some(One::Column(column.name.clone()))
                }
                Some(column) => return Err(format!("{}; `{text}` holds {}", not(), column.kind.as_str())),
                None => {
                    let names = columns.iter().map(|column| column.name.as_str());
                    return Err(match nearest(text, names.clone()) {
                        Some(near) => format!("{}; did you mean `{near}`?", not()),
                        None => format!("{}: {}", not(), names.take(30).collect::<Vec<_>>().join(", ")),
                    });
                }
            },
            SlotType::Choice => self.choices.iter().find(|choice| *choice == text).cloned().map(One::Text),
        };
        let value = value.ok_or_else(not)?;
        let bound = |bound: &Option<String>| bound.as_ref().map(|text| self.unbound().one(text, columns)).transpose();
        let (min, max) = (bound(&self.min)?, bound(&self.max)?);
        let fits = min.is_none_or(|min| min.at_most(&value)) && max.is_none_or(|max| value.at_most(&max));
        if fits { Ok(value) } else { Err(not()) }
    }

    /// The same without bounds, to read the bounds with.
    fn unbound(&self) -> Self {
        Self { min: None, max: None, ..self.clone() }
    }
}

/// ISO 8601 durations of a fixed length, in seconds.
pub(super) fn seconds(text: &str) -> Option<u64> {
    phase::duration("duration", text).ok().map(|time| time.as_secs())
}

/// An IP address or a range, as Cedar reads it.
fn network(text: &str) -> Option<String> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: std::net::IpAddr = address.parse().ok()?;
    let Some(prefix) = prefix else { return Some(address.to_string()) };
    let bits = prefix.parse::<u8>().ok().filter(|bits| bits.to_string() == prefix)?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then(|| format!("{address}/{bits}"))
}

/// A default or an example, as a person would write it.
fn text(value: toml::Value) -> String {
    match value {
        toml::Value::String(text) => text,
        toml::Value::Array(items) => serde_json::to_string(&items.into_iter().map(text).collect::<Vec<_>>())
            .unwrap_or_else(|_| unreachable!("a list of texts is JSON")),
        other => other.to_string(),
    }
}
