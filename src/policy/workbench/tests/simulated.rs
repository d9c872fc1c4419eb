//! Requests on record, decided again by another policy.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{DatasetId, ParticipantId, Sha256},
    policy::{
        Action, Column, ColumnKind, Columns, ContextFact, Facts, Principal, Resource, Slice, Value,
        workbench::{Recorded, Terms, simulate},
    },
    time::{Timestamp, Zone},
};

const OLD: &str = "@id(\"get\") @during(\"band(age, 10)\") permit (principal, action == Action::\"release\", resource) when { context.purpose == \"research\" && context.count < 3 };";

fn slice(cedar: &str) -> Slice {
    floored(cedar, "")
}

fn floored(cedar: &str, floor: &str) -> Slice {
    let columns = ["id", "age"].map(|name| Column { name: name.into(), kind: ColumnKind::Integer });
    let terms = Terms {
        offer: "o".into(),
        cedar: cedar.into(),
        global: String::new(),
        floor: floor.into(),
        connector_floor: String::new(),
        zone: Zone::BEIJING,
        columns: Columns::new(columns.to_vec()).unwrap(),
    };
    terms.compile().unwrap()
}

fn facts(purpose: &str, count: i64) -> Facts {
    Facts {
        principal: Principal {
            id: ParticipantId::parse("did:web:research.invalid").unwrap(),
            jurisdiction: None,
            roles: BTreeSet::new(),
            certifications: BTreeSet::new(),
            groups: BTreeSet::from(["research".to_owned()]),
        },
        action: Action::Release,
        resource: Resource {
            dataset: DatasetId::parse("d").unwrap(),
            collection: None,
            provider: ParticipantId::parse("did:web:hospital.invalid").unwrap(),
            classification: None,
            parents: BTreeSet::new(),
        },
        context: [
            (ContextFact::Purpose, Value::Text(purpose.into())),
            (ContextFact::Count, Value::Long(count)),
            (ContextFact::Region, Value::Text("CN-44".into())),
        ]
        .into(),
        met: BTreeSet::new(),
    }
}

/// What stays on record of a decision.
fn decided(slice: &Slice, index: u64, facts: &Facts) -> Recorded {
    let decision = slice.decide(facts);
    Recorded {
        receipt: format!("urn:uuid:0190a000-0000-7000-8000-{index:012}").parse().unwrap(),
        index,
        time: Timestamp::from_millis(index as i64),
        kind: "released".into(),
        agreement: None,
        consumer: Some(facts.principal.id.clone()),
        action: Some("release".into()),
        verdict: decision.verdict.as_str().into(),
        policies: decision.policies,
        reason: decision.reason.map(|reason| reason.code.as_str().to_owned()),
        policy_sha256: decision.policy_sha256,
        request: Some(String::from_utf8(decision.request).unwrap()),
    }
}

/// Four requests: allowed with 0, 1 and 2 before it; and one for another purpose.
fn past() -> (BTreeMap<Sha256, Slice>, Vec<Recorded>) {
    let old = slice(OLD);
    let requests = [facts("research", 0), facts("research", 1), facts("research", 2), facts("marketing", 2)];
    let recorded = (1..).zip(&requests).map(|(index, facts)| decided(&old, index, facts)).collect();
    ([(old.sha256(), old)].into(), recorded)
}

#[test]
fn a_policy_that_says_the_same_changes_nothing() {
    let (old, recorded) = past();
    let found = simulate(&slice(OLD), &old, &recorded).unwrap();
    assert_eq!((found.requests, found.same), (4, 4));
    // another name for the same thing is no difference
    let found = simulate(&slice(&OLD.replace("\"get\"", "\"other\"")), &old, &recorded).unwrap();
    assert!(found.same == 4 && found.differing.is_empty() && found.unsaid.is_empty(), "{found:?}");
}

#[test]
fn what_would_be_refused_or_allowed_now_is_counted_with_its_receipts_and_explained() {
    let (old, recorded) = past();
    let found = simulate(&slice(&OLD.replace("count < 3", "count < 1")), &old, &recorded).unwrap();
    assert_eq!((found.same, found.differing.len()), (2, 1));
    let group = &found.differing[0];
    assert_eq!((group.then.verdict.as_str(), group.now.verdict.as_str(), group.count), ("allow", "default-deny", 2));
    assert_eq!(group.now.reason.as_deref(), Some("policy-no-permit"));
    assert_eq!(group.receipts[0].receipt, recorded[2].receipt, "the newest first");
    let sentence = &group.explanation.policies[0].sentence.en;
    assert!(sentence.contains("`context.count < 1` is not so: count is 2"), "{sentence}");

    let wider = OLD.replace("context.purpose == \"research\" && ", "");
    let found = simulate(&slice(&wider), &old, &recorded).unwrap();
    let group = &found.differing[0];
    assert_eq!((group.then.verdict.as_str(), group.now.verdict.as_str(), group.count), ("default-deny", "allow", 1));
    assert_eq!(group.receipts[0].receipt, recorded[3].receipt);

    let forbid = format!(
        "{OLD} @id(\"no\") forbid (principal, action == Action::\"release\", resource) when {{ context.count == 0 }};"
    );
    let found = simulate(&slice(&forbid), &old, &recorded).unwrap();
    assert_eq!((found.differing[0].now.verdict.as_str(), found.differing[0].now.verdict_zh()), ("deny", "拒绝"));
    assert_eq!(found.differing[0].now.policies, ["no"]);
}

#[test]
fn other_demands_on_the_bytes_or_on_what_comes_before_and_after_are_differences() {
    let (old, recorded) = past();
    let annotated = |text: &str| OLD.replace("@during(\"band(age, 10)\")", text);
    let found = simulate(&slice(&annotated("@during(\"band(age, 20); drop(id)\")")), &old, &recorded).unwrap();
    assert_eq!((found.same, found.differing.len(), found.differing[0].count), (1, 1, 3));
    let group = &found.differing[0];
    assert_eq!(group.then.obligations, ["band(age, 10)"]);
    assert_eq!(group.now.obligations, ["band(age, 20)", "drop(id)"]);
    let after = simulate(&slice(&annotated("@during(\"band(age, 10)\") @after(\"notify\")")), &old, &recorded).unwrap();
    assert_eq!(after.differing[0].now.after, ["notify"]);
    let before =
        simulate(&slice(&annotated("@during(\"band(age, 10)\") @before(\"approve(board)\")")), &old, &recorded)
            .unwrap();
    let group = &before.differing[0];
    assert_eq!((group.now.verdict.as_str(), group.count), ("conditional", 3));
    assert_eq!(group.now.open, ["approve(board)"]);
}

#[test]
fn a_floor_is_a_difference_where_bytes_leave_and_nowhere_else() {
    let open = "@id(\"all\") permit (principal, action, resource);";
    let old = slice(open);
    let mut asking = facts("research", 0);
    asking.action = Action::Negotiate;
    let recorded = [decided(&old, 1, &asking), decided(&old, 2, &facts("research", 0))];
    let found = simulate(&floored(open, "drop(id)"), &[(old.sha256(), old)].into(), &recorded).unwrap();
    assert_eq!((found.same, found.differing.len()), (1, 1));
    assert_eq!(
        (found.differing[0].action, found.differing[0].now.obligations.concat()),
        ("release", "drop(id)".into())
    );
}

#[test]
fn a_fact_that_was_not_looked_at_is_not_guessed() {
    let (old, recorded) = past();
    let regional = OLD.replace("context.count < 3", "context.count < 3 && context.region == \"CN-44\"");
    let found = simulate(&slice(&regional), &old, &recorded).unwrap();
    assert_eq!((found.same, found.differing.len(), found.unsaid.len()), (0, 0, 1));
    assert_eq!((found.unsaid[0].code, found.unsaid[0].count), ("fact-not-looked-at", 4));
    assert_eq!(found.unsaid[0].why.en, "can't be said: region wasn't looked at then");
    assert_eq!(found.unsaid[0].why.zh, "无法判断：当时未查看限制地域(region)");
}

#[test]
fn a_fact_that_could_not_be_had_then_refuses_now() {
    let regional = slice(&OLD.replace("context.count < 3", "context.region == \"CN-44\""));
    let mut missing = facts("research", 0);
    missing.context.remove(&ContextFact::Region);
    let recorded = [decided(&regional, 1, &missing)];
    assert_eq!(recorded[0].reason.as_deref(), Some("fact-missing"));
    let again = slice(&OLD.replace("context.count < 3", "context.region == \"CN-11\""));
    let found = simulate(&again, &[(regional.sha256(), regional)].into(), &recorded).unwrap();
    assert_eq!((found.same, found.unsaid.len()), (1, 0), "{found:?}");
}

#[test]
fn what_is_erased_damaged_or_of_a_policy_that_is_gone_is_counted_and_said() {
    let (old, mut recorded) = past();
    recorded[0].request = None;
    recorded[1].request = Some("{}".into());
    recorded[2].policy_sha256 = Sha256([7; 32]);
    let found = simulate(&slice(OLD), &old, &recorded).unwrap();
    let mut codes: Vec<&str> = found.unsaid.iter().map(|unsaid| unsaid.code).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["contents-erased", "policy-gone", "request-unreadable"]);
    assert_eq!((found.requests, found.same), (4, 1));
}
