//! Random policies as text, requests, and the shapes that connectors give to the same ODRL.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::select};
use serde_json::{Map, Value as Json, json};

use crate::{
    id::{DatasetId, ParticipantId},
    policy::{
        Action, Amount, Before, ContextFact, FactKind, Facts, Frequency, Money, Principal, Resource, Spent, Value,
    },
    time::Timestamp,
};

const WORDS: [&str; 4] = ["research", "marketing", "CN-44", "02"];
const TIMES: [&str; 3] = ["2026-03-02T10:00:00Z", "2026-03-02T18:00:00.500+0800", "2026-03-03"];

fn word() -> impl Strategy<Value = &'static str> {
    select(&WORDS[..])
}

fn few() -> impl Strategy<Value = String> {
    prop::collection::vec(word(), 1..3)
        .prop_map(|words| words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", "))
}

fn named(kind: &'static str) -> impl Strategy<Value = String> {
    prop::collection::vec(select(vec!["did:web:a.invalid", "did:web:b.invalid", "research", "d"]), 1..3)
        .prop_map(move |ids| ids.iter().map(|id| format!("{kind}::\"{id}\"")).collect::<Vec<_>>().join(", "))
}

fn entity(kind: &'static str) -> impl Strategy<Value = String> {
    select(vec!["did:web:a.invalid", "did:web:b.invalid", "research", "d"])
        .prop_map(move |id| format!("{kind}::\"{id}\""))
}

fn order() -> impl Strategy<Value = &'static str> {
    select(vec!["==", "!=", "<", "<=", ">", ">="])
}

fn text_path() -> impl Strategy<Value = &'static str> {
    select(vec![
        "context.purpose",
        "context.region",
        "context.application",
        "context.executionEnv",
        "context.encryptMode",
        "context.agreement",
        "principal.jurisdiction",
        "resource.classification",
        "resource.provider",
        "principal.did",
    ])
}

fn number_path() -> impl Strategy<Value = &'static str> {
    select(vec![
        "context.count",
        "context.weekday",
        "context.dataSize",
        "context.frequency.day",
        "context.spent.total.records",
        "context.subject.month.bytes",
        "context.spent.hour.count",
    ])
}

fn set_path() -> impl Strategy<Value = &'static str> {
    select(vec![
        "context.dataField",
        "context.approval",
        "context.consent",
        "principal.roles",
        "principal.certifications",
        "resource.parents",
    ])
}

fn comparison() -> impl Strategy<Value = String> {
    prop_oneof![
        (text_path(), select(vec!["==", "!="]), word())
            .prop_map(|(path, sign, word)| format!("{path} {sign} \"{word}\"")),
        (text_path(), few()).prop_map(|(path, few)| format!("[{few}].contains({path})")),
        (word(), text_path()).prop_map(|(word, path)| format!("\"{word}\" == {path}")),
        (number_path(), order(), -1_i64..5).prop_map(|(path, sign, number)| format!("{path} {sign} {number}")),
        (0_i64..5, order(), number_path()).prop_map(|(number, sign, path)| format!("{number} {sign} {path}")),
        (select(vec!["context.now", "context.time"]), order(), select(&TIMES[..]))
            .prop_map(|(path, sign, time)| format!("{path} {sign} datetime(\"{time}\")")),
        (select(vec!["context.timeWindow", "context.timeOfDay"]), order(), select(vec!["1d", "2h30m", "1500ms"]))
            .prop_map(|(path, sign, span)| format!("{path} {sign} duration(\"{span}\")")),
        (
            select(vec!["lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"]),
            select(vec!["1.5", "100.00"])
        )
            .prop_map(|(method, money)| format!("context.payAmount.{method}(decimal(\"{money}\"))")),
        select(vec!["10.0.0.0/8", "10.1.2.3"])
            .prop_map(|network| format!("context.networkAddress.isInRange(ip(\"{network}\"))")),
        Just("context.networkAddress == ip(\"10.1.2.3\")".to_owned()),
        (set_path(), word()).prop_map(|(path, word)| format!("{path}.contains(\"{word}\")")),
        (set_path(), select(vec!["containsAny", "containsAll"]), few())
            .prop_map(|(path, method, few)| format!("{path}.{method}([{few}])")),
        (set_path(), select(vec!["containsAny", "containsAll"]), few())
            .prop_map(|(path, method, few)| format!("[{few}].{method}({path})")),
        (select(vec!["==", "!="]), entity("Participant")).prop_map(|(sign, who)| format!("principal {sign} {who}")),
        entity("Participant").prop_map(|who| format!("principal in {who}")),
        entity("Group").prop_map(|group| format!("principal in {group}")),
        named("Group").prop_map(|groups| format!("principal in [{groups}]")),
        named("Participant").prop_map(|who| format!("[{who}].contains(principal)")),
        entity("Dataset").prop_map(|dataset| format!("resource == {dataset}")),
        named("Dataset").prop_map(|datasets| format!("resource in [{datasets}]")),
        entity("Collection").prop_map(|collection| format!("resource in {collection}")),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    comparison().prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.prop_map(|a| format!("!({a})")),
        ]
    })
}

/// What stands above a permit, by what it covers.
const DUTIES: [[&str; 4]; 4] = [
    ["", "", "", ""],
    ["approve(board); consent(research)", "", "", "cite us"],
    ["", "hash(id, 'd e'); filter(grade = 3 and age > 5); band(age, 10)", "delete_within(P2W); notify", ""],
    ["second_factor; accept('I will not, ever')", "keep(id, age); at_least(5, grade); seal", "report(PT12H)", "x"],
];

/// A few policies whose permits have the same duties.
pub fn policies() -> impl Strategy<Value = String> {
    let scope = || {
        prop_oneof![
            3 => Just(("action", true, true)),
            1 => Just(("action == Action::\"release\"", true, true)),
            1 => Just(("action == Action::\"discover\"", false, false)),
            1 => Just(("action in Action::\"use\"", true, false)),
            1 => Just(("action in [Action::\"negotiate\", Action::\"release\", Action::\"view\"]", true, true)),
            1 => Just(("action in [Action::\"use\", Action::\"release\"]", true, true)),
            1 => Just(("action in [Action::\"read\", Action::\"sell\", Action::\"compute\"]", true, false)),
        ]
    };
    let who = select(vec![
        "principal",
        "principal",
        "principal == Participant::\"did:web:a.invalid\"",
        "principal in Group::\"research\"",
        "principal is Participant",
        "principal is Participant in Group::\"d\"",
    ]);
    let what = select(vec!["resource", "resource", "resource == Dataset::\"d\"", "resource in Collection::\"d\""]);
    let clause =
        (any::<bool>(), prop::option::weighted(0.8, condition())).prop_map(|(when, condition)| match condition {
            Some(condition) => format!(" {} {{ {condition} }}", if when { "when" } else { "unless" }),
            None => String::new(),
        });
    let one = (prop::bool::weighted(0.7), scope(), who, what, prop::collection::vec(clause, 0..3));
    (prop::collection::vec(one, 1..4), select(&DUTIES[..])).prop_map(|(policies, [before, during, after, contract])| {
        let mut text = String::new();
        for (place, (permit, (scope, first, releases), who, what, clauses)) in policies.into_iter().enumerate() {
            text.push_str(&format!("@id(\"p{place}\")\n"));
            for (key, value, fits) in [
                ("before", before, first),
                ("during", during, releases),
                ("after", after, releases),
                ("contract", contract, true),
            ] {
                if permit && fits && !value.is_empty() {
                    text.push_str(&format!("@{key}(\"{value}\")\n"));
                }
            }
            let effect = if permit { "permit" } else { "forbid" };
            text.push_str(&format!("{effect} ({who}, {scope}, {what}){};\n", clauses.concat()));
        }
        text
    })
}

fn words() -> impl Strategy<Value = BTreeSet<String>> {
    prop::collection::btree_set(word().prop_map(str::to_owned), 0..3)
}

fn amount() -> impl Strategy<Value = Amount> {
    (0_u64..5, 0_u64..5, 0_u64..5).prop_map(|(count, records, bytes)| Amount { count, records, bytes })
}

fn value(fact: ContextFact) -> BoxedStrategy<Value> {
    match fact.kind() {
        FactKind::Text => {
            prop_oneof![word().prop_map(|word| Value::Text(word.into())), Just(Value::Text(String::new()))].boxed()
        }
        FactKind::Long => (0_i64..5).prop_map(Value::Long).boxed(),
        FactKind::Time => (-3_i64..100_000_000)
            .prop_map(|after| {
                Value::Time(Timestamp::from_millis(1_772_445_600_000 + if after % 2 == 0 { 0 } else { after }))
            })
            .boxed(),
        FactKind::Span => select(vec![0_i64, 1500, 9_000_000, 86_400_000, 90_000_000]).prop_map(Value::Span).boxed(),
        FactKind::Decimal => {
            select(vec![0_i64, 15_000, 1_000_000, 1_000_001]).prop_map(|v| Value::Decimal(Money(v))).boxed()
        }
        FactKind::Ip => {
            select(vec!["10.1.2.3", "10.9.9.9", "192.0.2.1"]).prop_map(|ip| Value::Ip(ip.parse().unwrap())).boxed()
        }
        FactKind::Texts => words().prop_map(Value::Texts).boxed(),
        FactKind::Frequency => [0_u64..5, 0..5, 0..5, 0..5, 0..5]
            .prop_map(|[minute, hour, day, month, year]| Value::Frequency(Frequency { minute, hour, day, month, year }))
            .boxed(),
        FactKind::Spent => (amount(), amount(), amount(), amount())
            .prop_map(|(total, hour, day, month)| {
                Value::Spent(Box::new(Spent { total, hour, day, month, ..Spent::default() }))
            })
            .boxed(),
    }
}

pub fn facts() -> impl Strategy<Value = Facts> {
    let context: Vec<_> = ContextFact::ALL.into_iter().map(value).collect();
    let actions: Vec<Action> = Action::all().collect();
    let lifecycle = select(vec![Action::Release, Action::Release, Action::Negotiate, Action::Discover]);
    let met = prop::sample::subsequence(
        vec![
            Before::Approve("board".into()),
            Before::Consent("research".into()),
            Before::SecondFactor,
            Before::Accept("I will not, ever".into()),
        ],
        0..=4,
    );
    let who = (select(vec!["did:web:a.invalid", "did:web:b.invalid", "did:web:c.invalid"]), word(), words(), words());
    let groups = prop::sample::subsequence(vec!["research".to_owned(), "d".to_owned(), "other".to_owned()], 0..=3);
    let what = (select(vec!["d", "research", "e"]), select(vec![None, Some("d"), Some("other")]), word(), words());
    (prop_oneof![lifecycle, select(actions)], context, met, who, groups, what).prop_map(
        |(
            action,
            values,
            met,
            (id, jurisdiction, roles, certifications),
            groups,
            (dataset, collection, class, parents),
        )| {
            let mut context: BTreeMap<ContextFact, Value> = ContextFact::ALL.into_iter().zip(values).collect();
            let now = context[&ContextFact::Now].clone();
            context.insert(ContextFact::Time, now);
            Facts {
                principal: Principal {
                    id: ParticipantId::parse(id).unwrap(),
                    jurisdiction: Some(jurisdiction.to_owned()),
                    roles,
                    certifications,
                    groups: groups.into_iter().collect(),
                },
                action,
                resource: Resource {
                    dataset: DatasetId::parse(dataset).unwrap(),
                    collection: collection.map(str::to_owned),
                    provider: ParticipantId::parse("research").unwrap(),
                    classification: Some(class.to_owned()),
                    parents,
                },
                context,
                met: met.into_iter().collect(),
            }
        },
    )
}

/// The same ODRL as another connector may write it; which way at each place is taken from the bits of `seed`.
pub fn reshaped(odrl: &Json, seed: u64) -> Json {
    let mut dice = Dice(seed | 1);
    let mut document = Map::from_iter([
        (
            "@context".to_owned(),
            json!(["https://w3id.org/dspace/2025/1/context.jsonld", { "odrl": "http://www.w3.org/ns/odrl/2/" }]),
        ),
        ("@type".to_owned(), dice.pick([json!("Offer"), json!("odrl:Set"), json!(["Agreement"])])),
        ("@id".to_owned(), json!("urn:uuid:0191c3d2-0000-7000-8000-000000000000")),
        ("obligation".to_owned(), json!([])),
    ]);
    for (kind, rules) in odrl.as_object().unwrap() {
        let rules: Vec<Json> = rules.as_array().unwrap().iter().map(|rule| dice.rule(rule)).collect();
        let name = dice.key(kind);
        document.insert(name, dice.list(rules));
    }
    document.into()
}

struct Dice(u64);

impl Dice {
    fn pick<T, const N: usize>(&mut self, of: [T; N]) -> T {
        // xorshift: enough to look different each time
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let place = usize::try_from(self.0 % N as u64).unwrap();
        of.into_iter().nth(place).unwrap()
    }

    fn key(&mut self, name: &str) -> String {
        self.pick([name.to_owned(), format!("odrl:{name}"), format!("http://www.w3.org/ns/odrl/2/{name}")])
    }

    fn list(&mut self, mut items: Vec<Json>) -> Json {
        match (items.len(), self.pick([0, 1, 2])) {
            (1, 0) => items.remove(0),
            (_, 1) => json!({ "@list": items }),
            _ => items.into(),
        }
    }

    /// A name that may be ODRL's own.
    fn name(&mut self, name: &str) -> Json {
        let own = name.strip_prefix("odrl:").unwrap_or(name).to_owned();
        let full = match name.contains("://") {
            true => name.to_owned(),
            false => format!("http://www.w3.org/ns/odrl/2/{own}"),
        };
        self.pick([json!(name), json!(own), json!({ "@id": full }), json!([{ "@id": name }]), json!({ "@value": own })])
    }

    fn rule(&mut self, rule: &Json) -> Json {
        let mut written = Map::new();
        for (member, value) in rule.as_object().unwrap() {
            let value = match member.as_str() {
                "action" => self.name(value.as_str().unwrap()),
                "constraint" => {
                    let items = value.as_array().unwrap().iter().map(|one| self.constraint(one)).collect();
                    self.list(items)
                }
                "duty" => {
                    let items = value.as_array().unwrap().iter().map(|one| self.rule(one)).collect();
                    self.list(items)
                }
                other => panic!("{other}"),
            };
            written.insert(self.key(member), value);
        }
        written.into()
    }

    fn constraint(&mut self, constraint: &Json) -> Json {
        let mut written = Map::new();
        for (member, value) in constraint.as_object().unwrap() {
            let value = match member.as_str() {
                "and" | "or" => {
                    let items = value.as_array().unwrap().iter().map(|one| self.constraint(one)).collect();
                    self.list(items)
                }
                "leftOperand" | "operator" => self.name(value.as_str().unwrap()),
                _ => self.right(value),
            };
            written.insert(self.key(member), value);
        }
        written.into()
    }

    fn right(&mut self, value: &Json) -> Json {
        match value {
            Json::String(text) => {
                self.pick([json!(text), json!({ "@value": text }), json!({ "@value": text, "@type": "xsd:string" })])
            }
            Json::Array(items) => {
                let items = items.iter().map(|one| self.right(one)).collect();
                self.list(items)
            }
            Json::Object(_) => {
                let text = value["@value"].as_str().unwrap();
                let number = text.parse::<i64>().map_or(json!(text), |number| json!(number));
                self.pick([value.clone(), json!(text), number, json!([value])])
            }
            other => panic!("{other}"),
        }
    }
}
