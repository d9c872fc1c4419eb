//! The request that is put to Cedar, and the same request as canonical JSON, which receipts commit to. Both are made
//! from the same typed facts; of the context, only what the slice mentions.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    str::FromStr as _,
    sync::LazyLock,
};

use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression};

use serde::Deserialize;

use crate::{
    id::{DatasetId, ParticipantId},
    policy::{Action, Amount, Before, ContextFact, Facts, Frequency, Money, Principal, Resource, Spent, Value},
    time::Timestamp,
};

/// Largest integer that JSON readers agree on (RFC 8785, I-JSON).
const MAX_SAFE: u64 = (1 << 53) - 1;

/// The facts that are put to Cedar, in the order of their names.
pub(super) type Mentioned<'a> = [(ContextFact, &'a Value)];

/// The whole request in canonical JSON (RFC 8785): principal, action, resource, context, and the entities with their
/// attributes and parents, in Cedar's JSON form. `None` for an integer that has no canonical form.
///
/// Written in canonical order at once, without a tree that is built, sorted and thrown away: it is made at every
/// decision. A test holds it to [`crate::crypto::canonical_json`].
///
/// `with_met`: with what has been done first, where the slice demands something.
pub(super) fn canonical(facts: &Facts, context: &Mentioned<'_>, with_met: bool) -> Option<Vec<u8>> {
    let (principal, resource) = (&facts.principal, &facts.resource);
    let mut out = Writer(Vec::with_capacity(1024));
    out.raw("{\"action\":").uid("Action", facts.action.as_str()).raw(",\"context\":{");
    for (place, (fact, value)) in context.iter().enumerate() {
        out.raw(if place == 0 { "" } else { "," }).text(fact.name()).raw(":");
        match value {
            Value::Text(text) => out.text(text),
            Value::Long(number) if number.unsigned_abs() <= MAX_SAFE => out.raw(&number.to_string()),
            Value::Long(_) => return None,
            Value::Time(at) => out.extension("datetime", &at.to_string()),
            Value::Ip(ip) => out.extension("ip", &ip.to_canonical().to_string()),
            Value::Span(millis) => out.extension("duration", &format!("{millis}ms")),
            Value::Decimal(money) => out.extension("decimal", &money.to_string()),
            Value::Texts(texts) => out.list(texts),
            Value::Frequency(often) => out.numbers(&often.members())?,
            Value::Spent(spent) => {
                for (place, (name, amount)) in spent.members().iter().enumerate() {
                    out.raw(if place == 0 { "{" } else { "," }).text(name).raw(":").numbers(&amount.members())?;
                }
                out.raw("}")
            }
        };
    }
    out.raw("},\"entities\":[{\"attrs\":{\"certifications\":").list(&principal.certifications);
    out.raw(",\"did\":").text(principal.id.as_str());
    out.raw(",\"jurisdiction\":").text(principal.jurisdiction.as_deref().unwrap_or_default());
    out.raw(",\"roles\":").list(&principal.roles);
    out.raw("},\"parents\":").parents("Group", principal.groups.iter());
    out.raw(",\"uid\":").uid("Participant", principal.id.as_str());
    out.raw("},{\"attrs\":{\"classification\":").text(resource.classification.as_deref().unwrap_or_default());
    out.raw(",\"parents\":").list(&resource.parents);
    out.raw(",\"provider\":").text(resource.provider.as_str());
    out.raw("},\"parents\":").parents("Collection", resource.collection.iter());
    out.raw(",\"uid\":").uid("Dataset", resource.dataset.as_str());
    out.raw("}],");
    if with_met && !facts.met.is_empty() {
        out.raw("\"met\":").list(&facts.met.iter().map(ToString::to_string).collect()).raw(",");
    }
    out.raw("\"principal\":").uid("Participant", principal.id.as_str());
    out.raw(",\"resource\":").uid("Dataset", resource.dataset.as_str()).raw("}");
    Some(out.0)
}

impl Facts {
    /// Reads the whole request back from its canonical JSON, to decide on it again.
    ///
    /// # Errors
    /// Anything that this build would not have written byte for byte.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        let request: Read = serde_json::from_slice(json).map_err(|error| format!("not a Cedar request: {error}"))?;
        let [principal, resource] = request.entities;
        let (
            ReadEntity::Participant { attrs: who, parents: groups },
            ReadEntity::Dataset { attrs: what, parents: collections },
        ) = (principal.entity, resource.entity)
        else {
            return Err("not a request of a participant about a dataset".into());
        };
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        let mut context = BTreeMap::new();
        for (name, value) in request.context {
            let fact = ContextFact::parse(&name).ok_or_else(|| format!("`{name}` is no fact that is known here"))?;
            context.insert(fact, value.into_value().ok_or_else(|| format!("`{name}` has a value that can't be read"))?);
        }
        let parse = |error: crate::id::IdError| error.to_string();
        let facts = Self {
            principal: Principal {
                id: ParticipantId::parse(request.principal.id).map_err(parse)?,
                jurisdiction: said(who.jurisdiction),
                roles: who.roles,
                certifications: who.certifications,
                groups: groups.into_iter().map(|uid| uid.id).collect(),
            },
            action: Action::parse(&request.action.id).ok_or("an action that is not known here")?,
            resource: Resource {
                dataset: DatasetId::parse(request.resource.id).map_err(parse)?,
                collection: collections.into_iter().next().map(|uid| uid.id),
                provider: ParticipantId::parse(what.provider).map_err(parse)?,
                classification: said(what.classification),
                parents: what.parents,
            },
            context,
            met: request
                .met
                .iter()
                .map(|text| Before::parse(text).ok_or_else(|| format!("`{text}` is nothing that is done first")))
                .collect::<Result<_, _>>()?,
        };
        let mentioned: Vec<(ContextFact, &Value)> = {
            let mut mentioned: Vec<_> = facts.context.iter().map(|(fact, value)| (*fact, value)).collect();
            mentioned.sort_unstable_by_key(|(fact, _)| fact.name());
            mentioned
        };
        match canonical(&facts, &mentioned, true) {
            Some(again) if again == json => Ok(facts),
            _ => Err("not a request as it is written here".into()),
        }
    }
}

#[derive(Deserialize)]
struct Read {
    principal: Uid,
    action: Uid,
    resource: Uid,
    context: BTreeMap<String, ReadValue>,
    entities: [ReadRow; 2],
    #[serde(default)]
    met: Vec<String>,
}

#[derive(Deserialize)]
struct Uid {
    id: String,
}

#[derive(Deserialize)]
struct ReadRow {
    #[serde(flatten)]
    entity: ReadEntity,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ReadEntity {
    Participant { attrs: Who, parents: Vec<Uid> },
    Dataset { attrs: What, parents: Vec<Uid> },
}

#[derive(Deserialize)]
struct Who {
    jurisdiction: String,
    roles: BTreeSet<String>,
    certifications: BTreeSet<String>,
}

#[derive(Deserialize)]
struct What {
    provider: String,
    classification: String,
    parents: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ReadValue {
    Text(String),
    Long(i64),
    Texts(BTreeSet<String>),
    Extension { __extn: Call },
    Numbers(BTreeMap<String, u64>),
    Amounts(BTreeMap<String, Amount>),
}

#[derive(Deserialize)]
struct Call {
    r#fn: String,
    arg: String,
}

impl ReadValue {
    fn into_value(self) -> Option<Value> {
        match self {
            Self::Text(text) => Some(Value::Text(text)),
            Self::Long(number) => Some(Value::Long(number)),
            Self::Extension { __extn: Call { r#fn, arg } } => match r#fn.as_str() {
                "datetime" => Timestamp::parse(&arg).ok().map(Value::Time),
                "ip" => arg.parse().ok().map(Value::Ip),
                "duration" => arg.strip_suffix("ms")?.parse().ok().map(Value::Span),
                "decimal" => Money::parse(&arg).map(Value::Decimal),
                _ => None,
            },
            Self::Texts(texts) => Some(Value::Texts(texts)),
            Self::Numbers(of) => Frequency::from_members(|name| of.get(name).copied()).map(Value::Frequency),
            Self::Amounts(of) => {
                let get = |name: &str| of.get(name).copied();
                let spent = Spent {
                    total: get("total")?,
                    minute: get("minute")?,
                    hour: get("hour")?,
                    day: get("day")?,
                    month: get("month")?,
                    year: get("year")?,
                };
                Some(Value::Spent(Box::new(spent)))
            }
        }
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn raw(&mut self, json: &str) -> &mut Self {
        self.0.extend_from_slice(json.as_bytes());
        self
    }

    /// RFC 8785 §3.2.2.2: what must be escaped, in the shortest form; all else as it is.
    fn text(&mut self, text: &str) -> &mut Self {
        self.0.push(b'"');
        for &byte in text.as_bytes() {
            match byte {
                b'"' => self.0.extend(b"\\\""),
                b'\\' => self.0.extend(b"\\\\"),
                0x08 => self.0.extend(b"\\b"),
                0x09 => self.0.extend(b"\\t"),
                0x0a => self.0.extend(b"\\n"),
                0x0c => self.0.extend(b"\\f"),
                0x0d => self.0.extend(b"\\r"),
                0..=0x1f => self.0.extend(format!("\\u{byte:04x}").bytes()),
                _ => self.0.push(byte),
            }
        }
        self.0.push(b'"');
        self
    }

    fn uid(&mut self, kind: &str, id: &str) -> &mut Self {
        self.raw("{\"id\":").text(id).raw(",\"type\":").text(kind).raw("}")
    }

    fn extension(&mut self, function: &str, argument: &str) -> &mut Self {
        self.raw("{\"__extn\":{\"arg\":").text(argument).raw(",\"fn\":").text(function).raw("}}")
    }

    fn list(&mut self, texts: &BTreeSet<String>) -> &mut Self {
        self.raw("[");
        for (place, text) in texts.iter().enumerate() {
            self.raw(if place == 0 { "" } else { "," }).text(text);
        }
        self.raw("]")
    }

    /// A record of numbers; `None` for one that has no canonical form.
    fn numbers(&mut self, members: &[(&str, u64)]) -> Option<&mut Self> {
        for (place, (name, number)) in members.iter().enumerate() {
            if *number > MAX_SAFE {
                return None;
            }
            self.raw(if place == 0 { "{" } else { "," }).text(name).raw(":").raw(&number.to_string());
        }
        Some(self.raw("}"))
    }

    fn parents<'a>(&mut self, kind: &str, ids: impl Iterator<Item = &'a String>) -> &mut Self {
        self.raw("[");
        for (place, id) in ids.enumerate() {
            self.raw(if place == 0 { "" } else { "," }).uid(kind, id);
        }
        self.raw("]")
    }
}

struct Names {
    participant: EntityTypeName,
    group: EntityTypeName,
    dataset: EntityTypeName,
    collection: EntityTypeName,
    actions: HashMap<Action, (EntityUid, Entity)>,
}

static NAMES: LazyLock<Result<Names, String>> = LazyLock::new(|| {
    let name = |text: &str| EntityTypeName::from_str(text).map_err(|error| error.to_string());
    let action_type = name("Action")?;
    let action_uid = |id: &str| EntityUid::from_type_name_and_id(action_type.clone(), EntityId::new(id));
    let actions = Action::all()
        .map(|action| {
            let uid = action_uid(action.as_str());
            let parents = match action {
                Action::Use(_) => HashSet::from([action_uid("use")]),
                _ => HashSet::new(),
            };
            (action, (uid.clone(), Entity::new_no_attrs(uid, parents)))
        })
        .collect();
    Ok(Names {
        participant: name("Participant")?,
        group: name("Group")?,
        dataset: name("Dataset")?,
        collection: name("Collection")?,
        actions,
    })
});

/// The same for Cedar.
pub(super) fn cedar(facts: &Facts, context: &Mentioned<'_>) -> Result<(Request, Entities), String> {
    let names = NAMES.as_ref().map_err(Clone::clone)?;
    let uid = |kind: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
    let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
    let texts = |values: &BTreeSet<String>| RestrictedExpression::new_set(values.iter().map(|value| text(value)));
    let (principal, resource) = (&facts.principal, &facts.resource);
    let (action, action_entity) = names.actions.get(&facts.action).ok_or("an action that is not in the schema")?;
    let participant = uid(&names.participant, principal.id.as_str());
    let dataset = uid(&names.dataset, resource.dataset.as_str());
    let participant_entity = Entity::new(
        participant.clone(),
        HashMap::from([
            ("did".to_owned(), text(principal.id.as_str())),
            ("jurisdiction".to_owned(), text(principal.jurisdiction.as_deref().unwrap_or_default())),
            ("roles".to_owned(), texts(&principal.roles)),
            ("certifications".to_owned(), texts(&principal.certifications)),
        ]),
        principal.groups.iter().map(|group| uid(&names.group, group)).collect(),
    )
    .map_err(|error| error.to_string())?;
    let dataset_entity = Entity::new(
        dataset.clone(),
        HashMap::from([
            ("provider".to_owned(), text(resource.provider.as_str())),
            ("classification".to_owned(), text(resource.classification.as_deref().unwrap_or_default())),
            ("parents".to_owned(), texts(&resource.parents)),
        ]),
        resource.collection.iter().map(|collection| uid(&names.collection, collection)).collect(),
    )
    .map_err(|error| error.to_string())?;
    let entities = Entities::from_entities([participant_entity, dataset_entity, action_entity.clone()], None)
        .map_err(|error| error.to_string())?;
    let pairs: Vec<(String, RestrictedExpression)> = context
        .iter()
        .map(|(fact, value)| Ok((fact.name().to_owned(), expression(value)?)))
        .collect::<Result<_, String>>()?;
    let context = Context::from_pairs(pairs).map_err(|error| error.to_string())?;
    let request =
        Request::new(participant, action.clone(), dataset, context, None).map_err(|error| error.to_string())?;
    Ok((request, entities))
}

fn expression(value: &Value) -> Result<RestrictedExpression, String> {
    type Expression = RestrictedExpression;
    let numbers = |members: &[(&str, u64)]| {
        let members = members
            .iter()
            .map(|(name, number)| (name.to_string(), Expression::new_long(i64::try_from(*number).unwrap_or(i64::MAX))));
        Expression::new_record(members).map_err(|error| error.to_string())
    };
    Ok(match value {
        Value::Text(text) => Expression::new_string(text.clone()),
        Value::Long(number) => Expression::new_long(*number),
        Value::Time(at) => Expression::new_datetime(at.to_string()),
        Value::Ip(ip) => Expression::new_ip(ip.to_canonical().to_string()),
        Value::Span(millis) => Expression::new_duration(format!("{millis}ms")),
        Value::Decimal(money) => Expression::new_decimal(money.to_string()),
        Value::Texts(texts) => Expression::new_set(texts.iter().map(|text| Expression::new_string(text.clone()))),
        Value::Frequency(often) => numbers(&often.members())?,
        Value::Spent(spent) => {
            let members =
                spent.members().into_iter().map(|(name, amount)| Ok((name.to_owned(), numbers(&amount.members())?)));
            Expression::new_record(members.collect::<Result<Vec<_>, String>>()?).map_err(|error| error.to_string())?
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::canonical_json;

    proptest! {
        #[test]
        fn the_request_is_its_own_canonical_json(
            texts in prop::collection::btree_set("[\\x00-\\x7f\u{80}-\u{2030}研究\u{1f600}\u{e000}]{0,12}", 0..5),
            one in "[\\x00-\\x20\"\\\\a\u{2028}]{0,20}",
            number in -9_007_199_254_740_991_i64..=9_007_199_254_740_991,
        ) {
            let facts = Facts {
                principal: Principal {
                    id: ParticipantId::parse("did:web:a\"\\.invalid").unwrap(),
                    jurisdiction: Some(one.clone()),
                    roles: texts.clone(),
                    certifications: texts.clone(),
                    groups: texts.clone(),
                },
                action: Action::Release,
                resource: Resource {
                    dataset: DatasetId::parse("数据").unwrap(),
                    collection: texts.first().cloned(),
                    provider: ParticipantId::parse("p").unwrap(),
                    classification: None,
                    parents: texts.clone(),
                },
                context: Default::default(),
                met: texts.iter().map(|text| Before::Accept(text.clone())).collect(),
            };
            let (count, now, purpose) = (Value::Long(number), Value::Time(Timestamp::from_millis(number % (1 << 45))), Value::Text(one));
            let ip = Value::Ip("::ffff:10.0.0.1".parse().unwrap());
            let amount = Amount { count: number.unsigned_abs(), records: 2, bytes: 3 };
            let (often, spent) = (
                Value::Frequency(Frequency { minute: 1, hour: 2, day: 3, month: 4, year: number.unsigned_abs() }),
                Value::Spent(Box::new(Spent { total: amount, year: amount, ..Spent::default() })),
            );
            let (fields, paid, window) = (Value::Texts(texts.clone()), Value::Decimal(Money(number)), Value::Span(number));
            let context = [
                (ContextFact::Count, &count),
                (ContextFact::DataField, &fields),
                (ContextFact::Frequency, &often),
                (ContextFact::NetworkAddress, &ip),
                (ContextFact::Now, &now),
                (ContextFact::PayAmount, &paid),
                (ContextFact::Purpose, &purpose),
                (ContextFact::Spent, &spent),
                (ContextFact::TimeWindow, &window),
            ];
            let bytes = canonical(&facts, &context, true).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(canonical_json(&value).unwrap(), bytes.clone());
            prop_assert_eq!(&value["entities"][0]["parents"].as_array().unwrap().len(), &texts.len());
            prop_assert_eq!(&value["context"]["networkAddress"]["__extn"]["arg"], "10.0.0.1");
            // read back, it is the same request; the IPv4 address is what it was written as
            let read = Facts::read(&bytes).unwrap();
            prop_assert_eq!(&read.principal.groups, &facts.principal.groups);
            prop_assert_eq!(read.context.len(), 9);
            for (fact, value) in context {
                prop_assert!(fact == ContextFact::NetworkAddress || &read.context[&fact] == value, "{}", fact);
            }
            prop_assert_eq!(&read.met, &facts.met);
            let mut spaced = bytes.clone();
            spaced.insert(1, b' ');
            prop_assert!(Facts::read(&spaced).is_err());
        }
    }
}
