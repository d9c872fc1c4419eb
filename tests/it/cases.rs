//! Decides the cases of a policy's test file by the public API.

use std::collections::{BTreeMap, BTreeSet};

use counterseal::{
    id::{DatasetId, ParticipantId},
    policy::{
        Action, Amount, Asked, Before, Column, ColumnKind, Columns, ContextFact, FactKind, Facts, Frequency, Money,
        PolicySource, Principal, Resource, Slice, Spent, Value,
    },
    time::{Timestamp, Zone},
};
use serde::Deserialize;
use toml::{Table, Value as Toml};

/// A test file, compiled with its policy.
pub struct Cases {
    pub slice: Slice,
    pub columns: Columns,
    pub cases: Vec<Case>,
}

/// A case, and what it was decided on.
pub struct Case {
    pub name: String,
    pub expect: String,
    pub facts: Facts,
    expected: Expected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    floor: String,
    #[serde(default)]
    connector_floor: String,
    #[serde(default)]
    zone: Zone,
    columns: Table,
    #[serde(default)]
    defaults: Table,
    case: Vec<Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    policies: Option<BTreeSet<String>>,
    obligations: Option<String>,
    open: Option<BTreeSet<String>>,
    after: Option<BTreeSet<String>>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    action: String,
    principal: Who,
    resource: What,
    #[serde(default)]
    context: Table,
    #[serde(default)]
    met: BTreeSet<String>,
    #[serde(default)]
    asked: Asked,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Who {
    id: String,
    jurisdiction: Option<String>,
    #[serde(default)]
    groups: BTreeSet<String>,
    #[serde(default)]
    roles: BTreeSet<String>,
    #[serde(default)]
    certifications: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct What {
    dataset: String,
    provider: String,
    collection: Option<String>,
    classification: Option<String>,
    #[serde(default)]
    parents: BTreeSet<String>,
}

impl Cases {
    /// Reads a test file and compiles its policy.
    pub fn read(name: &str, policy: &str, test: &str) -> Self {
        let file: File = toml::from_str(test).unwrap_or_else(|error| panic!("{name}: {error}"));
        let columns = file.columns.iter().map(|(column, kind)| Column {
            name: column.clone(),
            kind: ColumnKind::deserialize(kind.clone()).unwrap_or_else(|error| panic!("{name}: {error}")),
        });
        let columns = Columns::new(columns.collect()).unwrap();
        let slice = compile(policy, &file.floor, &file.connector_floor, &columns)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let cases = file.case.iter().map(|case| Case::read(name, case, &file, &columns)).collect();
        Self { slice, columns, cases }
    }

    /// Decides each case; what went another way than expected.
    pub fn failures(&self) -> Vec<String> {
        self.cases.iter().flat_map(|case| case.failures(self)).collect()
    }
}

impl Case {
    fn read(file: &str, case: &Table, defaults: &File, columns: &Columns) -> Self {
        let mut given = defaults.defaults.clone();
        merge(&mut given, case);
        let mut take = |key: &str| given.remove(key);
        let text = |value: Option<Toml>| value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
        let (name, expect) = (text(take("name")), text(take("expect")));
        let place = format!("{file}: {name}");
        let expected: Table = ["policies", "obligations", "open", "after", "reason"]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), take(key)?)))
            .collect();
        let expected = expected.try_into().unwrap_or_else(|error| panic!("{place}: {error}"));
        let given: Given = given.try_into().unwrap_or_else(|error| panic!("{place}: {error}"));
        let facts = given.facts(&place, defaults.zone, columns);
        Self { name, expect, facts, expected }
    }

    fn failures(&self, of: &Cases) -> Vec<String> {
        let decision = of.slice.decide(&self.facts);
        let mut failures = Vec::new();
        let mut differs = |what: &str, expected: String, found: String| {
            if expected != found {
                failures.push(format!("{}: {what}: expected {expected}, found {found}", self.name));
            }
        };
        let reason = decision.reason.as_ref().map(|reason| reason.code.as_str().to_owned()).unwrap_or_default();
        differs("verdict", self.expect.clone(), decision.verdict.as_str().to_owned());
        let expected = &self.expected;
        if let Some(wanted) = &expected.policies {
            let policies: BTreeSet<String> = decision.policies.iter().cloned().collect();
            differs("policies", format!("{wanted:?}"), format!("{policies:?}"));
        }
        if let Some(wanted) = &expected.open {
            let open: BTreeSet<String> = decision.open.iter().map(ToString::to_string).collect();
            let wanted: BTreeSet<String> = wanted.iter().map(|open| unquoted(open)).collect();
            differs("open", format!("{wanted:?}"), format!("{open:?}"));
        }
        if let Some(wanted) = &expected.after {
            let after: BTreeSet<String> = decision.duties.written().into_iter().collect();
            differs("after", format!("{wanted:?}"), format!("{after:?}"));
        }
        if let Some(wanted) = &expected.reason {
            differs("reason", wanted.clone(), reason);
        }
        if let Some(wanted) = &expected.obligations {
            let anyone = "@id(\"x\") permit (principal, action, resource);";
            let wanted = compile(anyone, wanted, "", &of.columns).unwrap().floor();
            differs("obligations", format!("{wanted:?}"), format!("{:?}", decision.obligations));
        }
        failures
    }
}

fn compile(
    policy: &str,
    floor: &str,
    connector_floor: &str,
    columns: &Columns,
) -> Result<Slice, counterseal::policy::PolicyError> {
    let own = PolicySource { name: "policy.cedar", text: policy };
    Slice::compile(own, PolicySource { name: "global", text: "" }, floor, connector_floor, columns)
}

/// Deep, by key.
fn merge(into: &mut Table, from: &Table) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Toml::Table(into)), Toml::Table(from)) => merge(into, from),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

impl Given {
    fn facts(self, place: &str, zone: Zone, columns: &Columns) -> Facts {
        let met: BTreeSet<Before> = self
            .met
            .iter()
            .map(|met| Before::parse(&unquoted(met)).unwrap_or_else(|| panic!("{place}: {met}")))
            .collect();
        let mut context = BTreeMap::new();
        for fact in ContextFact::ALL {
            if let Some(value) = self.value(place, fact, zone, columns, &met) {
                context.insert(fact, value);
            }
        }
        for name in self.context.keys() {
            assert!(ContextFact::parse(name).is_some(), "{place}: `{name}` is no fact");
        }
        Facts {
            principal: Principal {
                id: ParticipantId::parse(self.principal.id).unwrap(),
                jurisdiction: self.principal.jurisdiction,
                roles: self.principal.roles,
                certifications: self.principal.certifications,
                groups: self.principal.groups,
            },
            action: Action::parse(&self.action).unwrap_or_else(|| panic!("{place}: action {}", self.action)),
            resource: Resource {
                dataset: DatasetId::parse(self.resource.dataset).unwrap(),
                collection: self.resource.collection,
                provider: ParticipantId::parse(self.resource.provider).unwrap(),
                classification: self.resource.classification,
                parents: self.resource.parents,
            },
            context,
            met,
        }
    }

    fn value(
        &self,
        place: &str,
        fact: ContextFact,
        zone: Zone,
        columns: &Columns,
        met: &BTreeSet<Before>,
    ) -> Option<Value> {
        if let Some(given) = self.context.get(fact.name()) {
            return Some(
                typed(fact.kind(), given).unwrap_or_else(|| panic!("{place}: `{}` can't be {given}", fact.name())),
            );
        }
        let now = || Timestamp::parse(self.context.get("now")?.as_str()?).ok();
        let text = |text: &str| Some(Value::Text(text.to_owned()));
        match fact {
            ContextFact::Now | ContextFact::Time => Some(Value::Time(now()?)),
            ContextFact::Weekday => Some(Value::Long(i64::from(zone.civil(now()?).weekday))),
            ContextFact::TimeOfDay => Some(Value::Span(zone.civil(now()?).since_midnight)),
            ContextFact::NetworkAddress | ContextFact::DataSize | ContextFact::DataRecord => None,
            ContextFact::Region => self.principal.jurisdiction.clone().map(Value::Text),
            ContextFact::DataField => Some(Value::Texts(self.asked.fields(columns).ok()?)),
            ContextFact::ValueExpression => {
                text(&self.asked.filter(columns).ok()?.map(|filter| filter.tree.to_string()).unwrap_or_default())
            }
            ContextFact::Approval => Some(Value::Texts(
                met.iter()
                    .filter_map(|met| match met {
                        Before::Approve(role) => Some(role.clone()),
                        _ => None,
                    })
                    .collect(),
            )),
            ContextFact::EncryptMode => text("02"),
            ContextFact::DeliveryMethod => text("01"),
            _ => Some(match fact.kind() {
                FactKind::Text => Value::Text(String::new()),
                FactKind::Long => Value::Long(0),
                FactKind::Span => Value::Span(0),
                FactKind::Decimal => Value::Decimal(Money(0)),
                FactKind::Texts => Value::Texts(BTreeSet::new()),
                FactKind::Frequency => Value::Frequency(Frequency::default()),
                FactKind::Spent => Value::Spent(Box::default()),
                FactKind::Time | FactKind::Ip => return None,
            }),
        }
    }
}

/// `accept('…')`, as it is written in a policy, as [`Before`] shows it.
fn unquoted(text: &str) -> String {
    for quote in ['\'', '"'] {
        if let Some((name, rest)) = text.split_once(&format!("({quote}"))
            && let Some(inner) = rest.strip_suffix(&format!("{quote})"))
        {
            return format!("{name}({inner})");
        }
    }
    text.to_owned()
}

fn typed(kind: FactKind, given: &Toml) -> Option<Value> {
    let whole = |of: &Toml, name: &str| -> Option<u64> {
        of.get(name).map_or(Some(0), |number| u64::try_from(number.as_integer()?).ok())
    };
    let known =
        |of: &Toml, names: &[&str]| of.as_table()?.keys().all(|key| names.contains(&key.as_str())).then_some(());
    const PERIODS: [&str; 6] = ["minute", "hour", "day", "month", "year", "total"];
    Some(match kind {
        FactKind::Text => Value::Text(given.as_str()?.to_owned()),
        FactKind::Long => Value::Long(given.as_integer()?),
        FactKind::Time => Value::Time(Timestamp::parse(given.as_str()?).ok()?),
        FactKind::Span => Value::Span(millis(given.as_str()?)?),
        FactKind::Decimal => Value::Decimal(Money::parse(given.as_str()?)?),
        FactKind::Ip => Value::Ip(given.as_str()?.parse().ok()?),
        FactKind::Texts => {
            Value::Texts(given.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect::<Option<_>>()?)
        }
        FactKind::Frequency => {
            known(given, &PERIODS[..5])?;
            let [minute, hour, day, month, year] =
                ["minute", "hour", "day", "month", "year"].map(|name| whole(given, name));
            Value::Frequency(Frequency { minute: minute?, hour: hour?, day: day?, month: month?, year: year? })
        }
        FactKind::Spent => {
            known(given, &PERIODS)?;
            let amount = |name: &str| -> Option<Amount> {
                let Some(amount) = given.get(name) else { return Some(Amount::default()) };
                known(amount, &["count", "records", "bytes"])?;
                Some(Amount {
                    count: whole(amount, "count")?,
                    records: whole(amount, "records")?,
                    bytes: whole(amount, "bytes")?,
                })
            };
            Value::Spent(Box::new(Spent {
                total: amount("total")?,
                minute: amount("minute")?,
                hour: amount("hour")?,
                day: amount("day")?,
                month: amount("month")?,
                year: amount("year")?,
            }))
        }
    })
}

/// `1d2h3m4s5ms`, as Cedar writes durations.
fn millis(text: &str) -> Option<i64> {
    let (mut rest, mut total) = (text, 0_i64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let length = match &rest[digits..unit] {
            "d" => 86_400_000,
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return None,
        };
        total += rest[..digits].parse::<i64>().ok()? * length;
        rest = &rest[unit..];
    }
    Some(total)
}
