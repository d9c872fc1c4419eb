//! A decision by the size of everything that the connector has published, and by the size of its own slice beside raw
//! Cedar.

use std::{
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
    str::FromStr as _,
    time::{Duration, Instant},
};

use cedar_policy::{
    Authorizer, Context, Decision as CedarDecision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicySet,
    Request, RestrictedExpression,
};

use counterseal::{
    id::{DatasetId, ParticipantId},
    policy::{
        Action, Column, ColumnKind, Columns, ContextFact, Facts, PolicySource, Principal, Resource, Slice, Value,
        Verdict,
    },
};

use criterion::{BenchmarkId, Criterion};

use crate::promise;

fn slice(n: usize) -> Slice {
    let text = format!(
        "@id(\"p{n}\") @during(\"hash(id); band(age, 10)\") permit (principal in Group::\"research\", \
         action == Action::\"release\", resource == Dataset::\"d{n}\") when {{ context.purpose == \"research\" && context.count < 3 }};"
    );
    compiled(&text)
}

fn compiled(text: &str) -> Slice {
    let columns = Columns::new(vec![
        Column { name: "id".into(), kind: ColumnKind::Integer },
        Column { name: "age".into(), kind: ColumnKind::Integer },
    ])
    .expect("two columns");
    let source = |name, text| PolicySource { name, text };
    Slice::compile(source("p.cedar", text), source("global", ""), "", "", &columns).expect("a policy")
}

fn facts(n: usize) -> Facts {
    Facts {
        principal: Principal {
            id: ParticipantId::parse("did:web:research.invalid").expect("an id"),
            jurisdiction: Some("CN-44".into()),
            roles: BTreeSet::new(),
            certifications: BTreeSet::new(),
            groups: BTreeSet::from(["research".to_owned()]),
        },
        action: Action::Release,
        resource: Resource {
            dataset: DatasetId::parse(format!("d{n}")).expect("an id"),
            collection: None,
            provider: ParticipantId::parse("did:web:hospital.invalid").expect("an id"),
            classification: None,
            parents: BTreeSet::new(),
        },
        context: BTreeMap::from([
            (ContextFact::Purpose, Value::Text("research".into())),
            (ContextFact::Count, Value::Long(1)),
        ]),
        met: BTreeSet::new(),
    }
}

/// Sizes of one slice.
const SIZES: [usize; 4] = [1, 10, 100, 1000];
/// What a decision may cost, of Cedar's own on the same values.
const OVERHEAD: f64 = 1.5;
/// Decisions are timed turn by turn with Cedar's, so that a noisy minute is everybody's.
const ROUNDS: usize = 21;

/// A slice of so many policies about one dataset; each looks at the request, and the last one permits it.
fn text_of(policies: usize) -> String {
    let policy = |n: usize| {
        let purpose = if n + 1 == policies { "research".to_owned() } else { format!("purpose-{n}") };
        format!(
            "@id(\"p{n}\") @during(\"hash(id); band(age, 10)\") permit (principal in Group::\"research\", action == \
             Action::\"release\", resource == Dataset::\"d0\") when {{ context.purpose == \"{purpose}\" && context.count < 3 }};\n"
        )
    };
    (0..policies).map(policy).collect()
}

/// What whoever calls Cedar directly builds for each request, from the same values as [`Slice::decide`].
struct Raw {
    set: PolicySet,
    authorizer: Authorizer,
    kinds: [EntityTypeName; 4],
    action: EntityUid,
    action_entity: Entity,
}

impl Raw {
    fn new(text: &str) -> Self {
        let kinds = ["Participant", "Group", "Dataset", "Collection"];
        let kinds = kinds.map(|name| EntityTypeName::from_str(name).expect("a name"));
        let action = EntityUid::from_str("Action::\"release\"").expect("an action");
        Self {
            set: PolicySet::from_str(text).expect("policies"),
            authorizer: Authorizer::new(),
            kinds,
            action_entity: Entity::new_no_attrs(action.clone(), Default::default()),
            action,
        }
    }

    fn decide(&self, facts: &Facts) -> CedarDecision {
        let [participant, group, dataset, collection] = &self.kinds;
        let uid = |kind: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
        let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
        let texts = |values: &BTreeSet<String>| RestrictedExpression::new_set(values.iter().map(|value| text(value)));
        let (who, what) = (&facts.principal, &facts.resource);
        let principal = uid(participant, who.id.as_str());
        let resource = uid(dataset, what.dataset.as_str());
        let principal_entity = Entity::new(
            principal.clone(),
            [
                ("did".to_owned(), text(who.id.as_str())),
                ("jurisdiction".to_owned(), text(who.jurisdiction.as_deref().unwrap_or_default())),
                ("roles".to_owned(), texts(&who.roles)),
                ("certifications".to_owned(), texts(&who.certifications)),
            ]
            .into(),
            who.groups.iter().map(|name| uid(group, name)).collect(),
        );
        let resource_entity = Entity::new(
            resource.clone(),
            [
                ("provider".to_owned(), text(what.provider.as_str())),
                ("classification".to_owned(), text(what.classification.as_deref().unwrap_or_default())),
                ("parents".to_owned(), texts(&what.parents)),
            ]
            .into(),
            what.collection.iter().map(|name| uid(collection, name)).collect(),
        );
        let entities =
            [principal_entity.expect("an entity"), resource_entity.expect("an entity"), self.action_entity.clone()];
        let entities = Entities::from_entities(entities, None).expect("entities");
        let context = facts.context.iter().map(|(fact, value)| {
            let value = match value {
                Value::Text(value) => text(value),
                Value::Long(number) => RestrictedExpression::new_long(*number),
                other => panic!("the bench has no {other:?}"),
            };
            (fact.name().to_owned(), value)
        });
        let context = Context::from_pairs(context).expect("a context");
        let request = Request::new(principal, self.action.clone(), resource, context, None).expect("a request");
        self.authorizer.is_authorized(&request, &self.set, &entities).decision()
    }
}

/// The time of one run of these, in the best of a few rounds, turn by turn.
fn turn_by_turn(runs: u32, mut one: impl FnMut(), mut other: impl FnMut()) -> [Duration; 2] {
    let mut best = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        for (best, run) in best.iter_mut().zip([&mut one as &mut dyn FnMut(), &mut other]) {
            let begun = Instant::now();
            (0..runs).for_each(|_| run());
            *best = (*best).min(begun.elapsed() / runs);
        }
    }
    best
}

/// One decision by how many policies its slice has, beside Cedar alone on the same values: a request and entities built
/// from them, and `is_authorized` over the same set.
pub fn slices() {
    let facts = facts(0);
    println!("decision, policies in one slice: Counterseal, Cedar alone, overhead");
    for policies in SIZES {
        let text = text_of(policies);
        let (slice, raw) = (compiled(&text), Raw::new(&text));
        assert_eq!(slice.decide(&facts).verdict, Verdict::Allow);
        assert_eq!(raw.decide(&facts), CedarDecision::Allow);
        let runs = (20_000 / (policies as u32 + 9)).max(10);
        let [ours, cedars] = turn_by_turn(
            runs,
            || drop(black_box(slice.decide(black_box(&facts)))),
            || {
                black_box(raw.decide(black_box(&facts)));
            },
        );
        let overhead = ours.as_secs_f64() / cedars.as_secs_f64();
        println!("  {policies:>5}  {ours:>10.1?}  {cedars:>10.1?}  {overhead:.2}");
        promise(&format!("a decision by {policies} of at most 1.5x Cedar alone"), overhead, overhead <= OVERHEAD);
    }
}

/// One decision in a connector that has published so many policies: each offer has a slice of its own.
pub fn decisions(c: &mut Criterion) {
    let slices: Vec<Slice> = (0..10_000).map(slice).collect();
    let mut group = c.benchmark_group("decision");
    let mut medians = Vec::new();
    for published in [1_usize, 100, 10_000] {
        let facts: Vec<Facts> = (0..published).map(facts).collect();
        let mut next = 0;
        let mut decide = || {
            // a stride that visits the offers in no order that a cache likes
            next = (next + 7919) % published;
            let decision = slices[next].decide(&facts[next]);
            assert_eq!(decision.verdict, Verdict::Allow);
            black_box(decision);
        };
        group.bench_function(BenchmarkId::from_parameter(published), |b| b.iter(&mut decide));
        let mut times: Vec<Duration> = (0..20_001)
            .map(|_| {
                let begun = Instant::now();
                decide();
                begun.elapsed()
            })
            .collect();
        medians.push(*times.select_nth_unstable(10_000).1);
    }
    group.finish();
    let ratio = medians[2].as_secs_f64() / medians[0].as_secs_f64();
    println!(
        "decision: median {:.1?} / {:.1?} / {:.1?} with 1 / 100 / 10,000 policies",
        medians[0], medians[1], medians[2]
    );
    promise("a decision with 10,000 policies takes at most 2x one with 1", ratio, ratio <= 2.0);
    let p50 = medians[0].as_secs_f64() * 1e6;
    promise("a decision takes at most 20 us", p50, p50 <= 20.0);
}
