//! A decision by the size of everything that the connector has published.

use std::{
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
    time::{Duration, Instant},
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
    let columns = Columns::new(vec![
        Column { name: "id".into(), kind: ColumnKind::Integer },
        Column { name: "age".into(), kind: ColumnKind::Integer },
    ])
    .expect("two columns");
    let source = |name, text| PolicySource { name, text };
    Slice::compile(source("p.cedar", &text), source("global", ""), "", "", &columns).expect("a policy")
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
