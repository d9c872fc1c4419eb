//! Facts as a steward writes them, in a test file or on a command line. What is left out has the value that a connector
//! gives when nothing is known: "", 0, an empty set.

use std::collections::BTreeSet;

use crate::{
    id::{DatasetId, ParticipantId},
    policy::{
        Action, Amount, Asked, Before, Columns, ContextFact, FactKind, Facts, Frequency, Money, Principal, Resource,
        Spent, Value, parse,
        problem::{did_you_mean, harmless, nearest},
        workbench::tree::{self, At, Item, Value as Toml, Wrong},
    },
    time::{Timestamp, Zone},
};

const PRINCIPAL: [&str; 5] = ["id", "groups", "roles", "certifications", "jurisdiction"];
const RESOURCE: [&str; 5] = ["dataset", "provider", "collection", "classification", "parents"];
const ASKED: [&str; 2] = ["fields", "filter"];
/// The tables of a request.
pub(super) const TABLES: [&str; 6] = ["principal", "action", "resource", "context", "met", "asked"];
const PERIODS: [&str; 5] = ["minute", "hour", "day", "month", "year"];
const AMOUNTS: [&str; 3] = ["count", "records", "bytes"];

/// A request, ready to be decided.
#[derive(Clone, Debug)]
pub struct Given {
    /// On what.
    pub facts: Facts,
    /// What it asks for, where that is said.
    pub asked: Option<Asked>,
}

/// A request of a command line: `name=value` pairs by table.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The action.
    pub action: String,
    /// `principal`, `resource` or `context`, and the pair.
    pub pairs: Vec<(&'static str, String)>,
    /// Groups of the participant.
    pub groups: Vec<String>,
    /// Roles of the participant.
    pub roles: Vec<String>,
    /// What has been done first.
    pub met: Vec<String>,
    /// The columns that are asked for.
    pub fields: Vec<String>,
    /// The rows that are asked for.
    pub filter: Option<String>,
}

impl Told {
    /// Reads it.
    ///
    /// # Errors
    /// A pair that can't be read, a name that nothing has.
    pub fn given(&self, columns: &Columns, zone: Zone) -> Result<Given, Wrong> {
        let mut request = Item::table();
        let text = |text: &str| Item { at: 0, value: Toml::Text(text.to_owned()) };
        let list = |texts: &[String]| Item { at: 0, value: Toml::List(texts.iter().map(|one| text(one)).collect()) };
        request.put(&["action"], text(&self.action));
        for (table, pair) in &self.pairs {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| Wrong { place: None, problem: format!("`{}` is no name=value", harmless(pair)) })?;
            let path: Vec<&str> = std::iter::once(*table).chain(name.trim().split('.')).collect();
            request.put(&path, typed(&path, value));
        }
        for (table, name, texts) in [
            ("principal", "groups", &self.groups),
            ("principal", "roles", &self.roles),
            ("asked", "fields", &self.fields),
        ] {
            if !texts.is_empty() {
                request.put(&[table, name], list(texts));
            }
        }
        if let Some(filter) = &self.filter {
            request.put(&["asked", "filter"], text(filter));
        }
        if !self.met.is_empty() {
            request.put(&["met"], list(&self.met));
        }
        given(&request, columns, zone).map_err(|wrong| Wrong { place: None, problem: wrong.problem })
    }
}

/// A value of a command line: the fact's kind says whether a text needs no quotes, and a list no brackets.
fn typed(path: &[&str], value: &str) -> Item {
    let item = tree::inline(value);
    let text = || Item { at: 0, value: Toml::Text(value.to_owned()) };
    let kind = match path {
        ["context", name] => ContextFact::parse(name).map(ContextFact::kind),
        ["principal", "groups" | "roles" | "certifications"] | ["resource", "parents"] => Some(FactKind::Texts),
        ["principal" | "resource", _] => Some(FactKind::Text),
        _ => None,
    };
    match (kind, &item.value) {
        (Some(FactKind::Texts), Toml::List(_)) | (Some(FactKind::Text), Toml::Text(_)) => item,
        (Some(FactKind::Texts), _) => {
            let words = value.split(',').map(str::trim).filter(|word| !word.is_empty());
            Item {
                at: 0,
                value: Toml::List(words.map(|word| Item { at: 0, value: Toml::Text(word.to_owned()) }).collect()),
            }
        }
        (Some(FactKind::Text), _) => text(),
        _ => item,
    }
}

/// Reads a request.
pub(super) fn given(request: &Item, columns: &Columns, zone: Zone) -> Result<Given, At> {
    let empty = Item::table();
    let table = |name: &str| request.get(name).unwrap_or(&empty);
    let (who, what, asked) = (table("principal"), table("resource"), table("asked"));
    who.only(&PRINCIPAL)?;
    what.only(&RESOURCE)?;
    asked.only(&ASKED)?;
    let action =
        action(request.get("action").ok_or_else(|| At::new(request.at, "`action` is missing: which action is it?"))?)?;
    let id = |item: Option<&Item>, otherwise: &str| -> Result<ParticipantId, At> {
        let Some(item) = item else {
            return ParticipantId::parse(otherwise).map_err(|error| At::new(request.at, error.to_string()));
        };
        ParticipantId::parse(item.text()?).map_err(|error| At::new(item.at, error.to_string()))
    };
    let dataset = match what.get("dataset") {
        Some(item) => DatasetId::parse(item.text()?).map_err(|error| At::new(item.at, error.to_string()))?,
        None => DatasetId::parse("dataset").map_err(|error| At::new(request.at, error.to_string()))?,
    };
    let principal = Principal {
        id: id(who.get("id"), "did:web:consumer.invalid")?,
        jurisdiction: said(who.get("jurisdiction"))?,
        roles: set(who.get("roles"))?,
        certifications: set(who.get("certifications"))?,
        groups: set(who.get("groups"))?,
    };
    let resource = Resource {
        dataset,
        collection: said(what.get("collection"))?,
        provider: id(what.get("provider"), "did:web:provider.invalid")?,
        classification: said(what.get("classification"))?,
        parents: set(what.get("parents"))?,
    };
    let met = match request.get("met") {
        None => BTreeSet::new(),
        Some(met) => met.texts()?.into_iter().map(|(text, at)| before(text, at)).collect::<Result<_, _>>()?,
    };
    let wanted = request.get("asked").map(|_| -> Result<Asked, At> {
        let fields = asked.get("fields").map(Item::texts).transpose()?;
        let filter = asked.get("filter").map(|filter| filter.text().map(str::to_owned)).transpose()?;
        Ok(Asked {
            fields: fields.map(|fields| fields.into_iter().map(|(field, _)| field.to_owned()).collect()),
            filter,
        })
    });
    let asked = wanted.transpose()?;
    let mut facts = Facts { principal, action, resource, context: Default::default(), met };
    for entry in table("context").entries()? {
        let fact = ContextFact::parse(&entry.key).ok_or_else(|| {
            let hint = did_you_mean(nearest(&entry.key, ContextFact::ALL.into_iter().map(ContextFact::name)), "");
            At::new(entry.at, format!("unknown fact `{}`{hint}", harmless(&entry.key)))
        })?;
        facts.context.insert(fact, value(fact, &entry.item)?);
    }
    fill(&mut facts, asked.as_ref().unwrap_or(&Asked::default()), columns, zone);
    Ok(Given { facts, asked })
}

/// The facts that were left out, as a connector has them when nothing is known.
fn fill(facts: &mut Facts, asked: &Asked, columns: &Columns, zone: Zone) {
    let now = [ContextFact::Now, ContextFact::Time].into_iter().find_map(|fact| match facts.context.get(&fact) {
        Some(Value::Time(now)) => Some(*now),
        _ => None,
    });
    for fact in ContextFact::ALL {
        let known = match fact {
            ContextFact::Now | ContextFact::Time => now.map(Value::Time),
            ContextFact::Weekday => now.map(|now| Value::Long(i64::from(zone.civil(now).weekday))),
            ContextFact::TimeOfDay => now.map(|now| Value::Span(zone.civil(now).since_midnight)),
            ContextFact::DataField => asked.fields(columns).ok().map(Value::Texts),
            ContextFact::ValueExpression => asked
                .filter(columns)
                .ok()
                .map(|filter| Value::Text(filter.map(|filter| filter.tree.to_string()).unwrap_or_default())),
            ContextFact::Approval => Some(Value::Texts(
                facts
                    .met
                    .iter()
                    .filter_map(|met| if let Before::Approve(role) = met { Some(role.clone()) } else { None })
                    .collect(),
            )),
            ContextFact::EncryptMode => Some(Value::Text("02".into())),
            ContextFact::DeliveryMethod => Some(Value::Text("01".into())),
            ContextFact::Region => facts.principal.jurisdiction.clone().map(Value::Text),
            ContextFact::NetworkAddress | ContextFact::DataSize | ContextFact::DataRecord => None,
            other => match other.kind() {
                FactKind::Text => Some(Value::Text(String::new())),
                FactKind::Long => Some(Value::Long(0)),
                FactKind::Span => Some(Value::Span(0)),
                FactKind::Decimal => Some(Value::Decimal(Money(0))),
                FactKind::Texts => Some(Value::Texts(BTreeSet::new())),
                FactKind::Frequency => Some(Value::Frequency(Frequency::default())),
                FactKind::Spent => Some(Value::Spent(Box::default())),
                FactKind::Time | FactKind::Ip => None,
            },
        };
        if let Some(value) = known {
            facts.context.entry(fact).or_insert(value);
        }
    }
}

fn action(item: &Item) -> Result<Action, At> {
    let name = item.text()?;
    Action::parse(name).ok_or_else(|| {
        let hint = did_you_mean(nearest(name, Action::all().map(Action::as_str)), "");
        At::new(item.at, format!("unknown action `{}`{hint}", harmless(name)))
    })
}

/// One thing that is done first.
pub(super) fn before(text: &str, at: usize) -> Result<Before, At> {
    match parse::before(text).map_err(|error| At::new(at, error.to_string()))?.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(At::new(at, "write one in each text: [\"approve(a)\", \"approve(b)\"]")),
    }
}

fn said(item: Option<&Item>) -> Result<Option<String>, At> {
    Ok(item.map(Item::text).transpose()?.filter(|text| !text.is_empty()).map(str::to_owned))
}

fn set(item: Option<&Item>) -> Result<BTreeSet<String>, At> {
    let texts = item.map(Item::texts).transpose()?.unwrap_or_default();
    Ok(texts.into_iter().map(|(text, _)| text.to_owned()).collect())
}

fn value(fact: ContextFact, item: &Item) -> Result<Value, At> {
    let name = fact.name();
    let wrong = |wanted: &str| At::new(item.at, format!("`{name}` takes {wanted}"));
    Ok(match (fact.kind(), &item.value) {
        (FactKind::Text, Toml::Text(text)) => Value::Text(text.clone()),
        (FactKind::Text, _) => return Err(wrong("a text in quotes")),
        (FactKind::Long, Toml::Integer(number)) => Value::Long(*number),
        (FactKind::Long, _) => return Err(wrong("a whole number")),
        (FactKind::Time, Toml::Text(text) | Toml::Literal(text)) => Value::Time(
            Timestamp::parse(text).map_err(|_| wrong("a time with its zone, such as \"2026-03-02T10:00:00+08:00\""))?,
        ),
        (FactKind::Time, _) => return Err(wrong("a time with its zone, such as \"2026-03-02T10:00:00+08:00\"")),
        (FactKind::Span, Toml::Text(text)) => {
            Value::Span(span(text).ok_or_else(|| wrong("a duration, such as \"1d2h30m\""))?)
        }
        (FactKind::Span, _) => return Err(wrong("a duration, such as \"1d2h30m\"")),
        (FactKind::Decimal, Toml::Text(text) | Toml::Literal(text)) => Value::Decimal(
            Money::parse(text).ok_or_else(|| wrong("a number with at most four decimal places, such as \"100.00\""))?,
        ),
        (FactKind::Decimal, Toml::Integer(number)) => {
            Value::Decimal(Money(number.checked_mul(10_000).ok_or_else(|| wrong("a smaller number"))?))
        }
        (FactKind::Decimal, _) => return Err(wrong("a number with at most four decimal places, such as \"100.00\"")),
        (FactKind::Ip, Toml::Text(text)) => {
            Value::Ip(text.parse().map_err(|_| wrong("an address, such as \"192.0.2.7\""))?)
        }
        (FactKind::Ip, _) => return Err(wrong("an address, such as \"192.0.2.7\"")),
        (FactKind::Texts, _) => Value::Texts(set(Some(item))?),
        (FactKind::Frequency, _) => {
            item.only(&PERIODS)?;
            let of = |name: &str| number(item.get(name));
            Value::Frequency(Frequency {
                minute: of("minute")?,
                hour: of("hour")?,
                day: of("day")?,
                month: of("month")?,
                year: of("year")?,
            })
        }
        (FactKind::Spent, _) => {
            item.only(&["total", "minute", "hour", "day", "month", "year"])?;
            let of = |name: &str| amount(item.get(name));
            Value::Spent(Box::new(Spent {
                total: of("total")?,
                minute: of("minute")?,
                hour: of("hour")?,
                day: of("day")?,
                month: of("month")?,
                year: of("year")?,
            }))
        }
    })
}

fn amount(item: Option<&Item>) -> Result<Amount, At> {
    let Some(item) = item else { return Ok(Amount::default()) };
    item.only(&AMOUNTS)?;
    Ok(Amount {
        count: number(item.get("count"))?,
        records: number(item.get("records"))?,
        bytes: number(item.get("bytes"))?,
    })
}

fn number(item: Option<&Item>) -> Result<u64, At> {
    match item {
        None => Ok(0),
        Some(Item { value: Toml::Integer(number), at }) => {
            u64::try_from(*number).map_err(|_| At::new(*at, "a number from 0 is wanted here"))
        }
        Some(item) => Err(At::new(item.at, "a whole number is wanted here")),
    }
}

/// Cedar's durations: `1d2h3m4s5ms`, in milliseconds.
pub(super) fn span(text: &str) -> Option<i64> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    if rest.is_empty() {
        return None;
    }
    let mut millis = 0_i64;
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let Some(after) = after.strip_prefix(unit).filter(|after| !(unit == "m" && after.starts_with('s'))) else {
            continue;
        };
        millis = millis.checked_add(number.parse::<i64>().ok()?.checked_mul(length)?)?;
        rest = after;
    }
    rest.is_empty().then_some(sign * millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::value;

    fn told(pairs: &[(&'static str, &str)]) -> Result<Facts, String> {
        let told = Told {
            action: "release".into(),
            pairs: pairs.iter().map(|(table, pair)| (*table, (*pair).to_owned())).collect(),
            ..Told::default()
        };
        told.given(&Columns::unknown(), Zone::BEIJING).map(|given| given.facts).map_err(|wrong| wrong.problem)
    }

    #[test]
    fn durations_are_read_as_cedar_writes_them() {
        for millis in [0, 1, 90_061_001, -3_600_000, 60_000, 61_000] {
            assert_eq!(span(&value::span(millis)), Some(millis), "{millis}");
        }
        assert_eq!(span("1m30s"), Some(90_000));
        for wrong in ["", "-", "5", "h", "1h1d", "1x"] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_left_out_is_known_to_be_nothing() {
        let facts = told(&[("context", "now=2026-03-02T10:00:00+08:00"), ("principal", "jurisdiction=CN-44")]).unwrap();
        for (fact, value) in [
            (ContextFact::Purpose, Value::Text(String::new())),
            (ContextFact::Count, Value::Long(0)),
            (ContextFact::Weekday, Value::Long(1)),
            (ContextFact::TimeOfDay, Value::Span(36_000_000)),
            (ContextFact::Region, Value::Text("CN-44".into())),
            (ContextFact::EncryptMode, Value::Text("02".into())),
            (ContextFact::PayAmount, Value::Decimal(Money(0))),
        ] {
            assert_eq!(facts.context.get(&fact), Some(&value), "{fact}");
        }
        let nothing = told(&[]).unwrap();
        for fact in [ContextFact::Now, ContextFact::NetworkAddress, ContextFact::Region, ContextFact::DataSize] {
            assert_eq!(nothing.context.get(&fact), None, "{fact}");
        }
    }

    #[test]
    fn values_are_of_their_facts_kind_and_names_are_known() {
        let facts = told(&[
            ("context", "frequency.day=3"),
            ("context", "spent.total.records=5"),
            ("context", "payAmount=100.00"),
            ("context", "application=7"),
            ("context", "consent=a,b"),
            ("context", "networkAddress=192.0.2.7"),
            ("context", "timeWindow=1d2h"),
        ])
        .unwrap();
        let Some(Value::Frequency(often)) = facts.context.get(&ContextFact::Frequency) else { panic!() };
        assert_eq!((often.day, often.hour), (3, 0));
        assert_eq!(facts.context[&ContextFact::PayAmount], Value::Decimal(Money(1_000_000)));
        assert_eq!(facts.context[&ContextFact::Application], Value::Text("7".into()), "a text needs no quotes here");
        for (pair, word) in [
            ("purpos=x", "did you mean `purpose`"),
            ("count=many", "whole number"),
            ("now=2026-03-02", "with its zone"),
            ("frequency.days=3", "did you mean `day`"),
            ("count", "name=value"),
        ] {
            let error = told(&[("context", pair)]).unwrap_err();
            assert!(error.contains(word), "{pair}: {error}");
        }
        assert!(told(&[("principal", "grups=x")]).unwrap_err().contains("did you mean `groups`"));
    }
}
