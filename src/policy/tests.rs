//! Slices, verdicts and the meet.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{
    id::{DatasetId, ParticipantId},
    time::Timestamp,
};

mod hostile;
mod partitions;

fn columns() -> Columns {
    let column = |name: &str, kind| Column { name: name.into(), kind };
    Columns::new(vec![
        column("id", ColumnKind::Integer),
        column("diagdateb", ColumnKind::Date),
        column("recdate", ColumnKind::Date),
        column("deathdate", ColumnKind::Date),
        column("age", ColumnKind::Integer),
        column("menopause", ColumnKind::Integer),
        column("grade", ColumnKind::Integer),
        column("name", ColumnKind::Text),
    ])
    .unwrap()
}

fn compile(own: &str) -> Result<Slice, PolicyError> {
    compile_all(own, "", "", "")
}

fn compile_all(own: &str, global: &str, floor: &str, connector: &str) -> Result<Slice, PolicyError> {
    let source = |name, text| PolicySource { name, text };
    Slice::compile(source("own.cedar", own), source("global.cedar", global), floor, connector, &columns())
}

fn refusal(own: &str) -> String {
    compile(own).err().unwrap_or_else(|| panic!("taken: {own}")).to_string()
}

fn facts(action: Action, purpose: &str, count: i64) -> Facts {
    Facts {
        principal: Principal {
            id: ParticipantId::parse("did:web:research.invalid").unwrap(),
            jurisdiction: None,
            roles: BTreeSet::new(),
            certifications: BTreeSet::new(),
            groups: BTreeSet::from(["research".to_owned()]),
        },
        action,
        resource: Resource {
            dataset: DatasetId::parse("lymph-node-cohort").unwrap(),
            collection: None,
            provider: ParticipantId::parse("did:web:hospital.invalid").unwrap(),
            classification: None,
            parents: BTreeSet::new(),
        },
        context: BTreeMap::from([
            (ContextFact::Purpose, Value::Text(purpose.into())),
            (ContextFact::Count, Value::Long(count)),
            (ContextFact::Now, Value::Time(Timestamp::from_millis(1_764_000_000_000))),
        ]),
        met: BTreeSet::new(),
    }
}

const COHORT: &str = include_str!("../../policies/examples/cohort-research.cedar");

#[test]
fn the_example_policies_say_what_their_comments_say() {
    let slice = compile(COHORT).unwrap();
    let read = Action::Use(UseAction::Read);
    for (action, purpose, count, verdict, policies) in [
        (Action::Release, "research", 0, Verdict::Allow, vec!["cohort-research"]),
        (Action::Release, "research", 2, Verdict::Allow, vec!["cohort-research"]),
        (Action::Release, "research", 3, Verdict::DefaultDeny, vec![]),
        (Action::Release, "sales", 0, Verdict::DefaultDeny, vec![]),
        (Action::Release, "marketing", 0, Verdict::Deny, vec!["cohort-never-marketing"]),
        (Action::Discover, "", 0, Verdict::Allow, vec!["cohort-discover"]),
        (read, "research", 9, Verdict::Allow, vec!["cohort-use"]),
        (read, "marketing", 0, Verdict::Deny, vec!["cohort-never-marketing"]),
        (Action::Use(UseAction::Distribute), "research", 0, Verdict::DefaultDeny, vec![]),
    ] {
        let decision = slice.decide(&facts(action, purpose, count));
        assert_eq!(
            (decision.verdict, decision.policies),
            (verdict, policies.iter().map(ToString::to_string).collect()),
            "{action:?} {purpose} {count}"
        );
        assert_eq!(decision.reason.is_none(), verdict == Verdict::Allow);
    }
    let mut outsider = facts(Action::Discover, "", 0);
    outsider.principal.groups.clear();
    assert_eq!(slice.decide(&outsider).verdict, Verdict::DefaultDeny);
    assert!(compile(include_str!("../../policies/examples/open-weather.cedar")).is_ok());
}

#[test]
fn a_forbid_that_fails_beside_a_permit_is_no_allow() {
    let slice = compile(
        r#"@id("yes") permit (principal, action, resource);
           @id("overflows") forbid (principal, action, resource) when { context.count * 9223372036854775807 > 0 };"#,
    )
    .unwrap();
    assert_eq!(slice.decide(&facts(Action::Release, "", 1)).verdict, Verdict::Deny, "1 × max is a number");
    let decision = slice.decide(&facts(Action::Release, "", 2));
    assert_eq!(decision.verdict, Verdict::DefaultDeny);
    assert_eq!(decision.policies, ["overflows"]);
    assert!(decision.reason.unwrap().is("policy-error"));
}

#[test]
fn a_fact_that_is_mentioned_and_missing_is_no_allow() {
    let slice = compile(
        r#"@id("yes") permit (principal, action, resource);
           @id("abroad") forbid (principal, action, resource) when { context has region && context.region != "CN" };"#,
    )
    .unwrap();
    assert!(slice.mentions(Action::Release).contains(&ContextFact::Region));
    let decision = slice.decide(&facts(Action::Release, "", 0));
    assert_eq!(decision.verdict, Verdict::DefaultDeny);
    let reason = decision.reason.unwrap();
    assert!(reason.is("fact-missing") && reason.sentence.contains("region"), "{reason}");
    let mut known = facts(Action::Release, "", 0);
    known.context.insert(ContextFact::Region, Value::Text("CN".into()));
    assert_eq!(slice.decide(&known).verdict, Verdict::Allow);
}

#[test]
fn facts_are_asked_for_only_where_a_policy_can_apply() {
    let slice = compile(COHORT).unwrap();
    let release: Vec<_> = slice.mentions(Action::Release).iter().copied().collect();
    assert_eq!(release, [ContextFact::Count, ContextFact::Purpose]);
    assert!(!slice.mentions(Action::Discover).contains(&ContextFact::Count));
    let whole = compile(r#"@id("x") permit (principal, action == Action::"read", resource) when { context.count < 1 || context has now };"#).unwrap();
    assert_eq!(whole.mentions(Action::Use(UseAction::Read)).len(), 2);
    assert!(whole.mentions(Action::Release).is_empty());
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let permit = |annotations: &str| format!("@id(\"p\") {annotations} permit (principal, action, resource);");
    for (text, words) in [
        ("permit (principal, action, resource);".to_owned(), vec!["@id", "own.cedar: policy number 1"]),
        (permit("@duringg(\"hash(id)\")"), vec!["@duringg", "did you mean `@during`"]),
        (permit("@during(\"\")"), vec!["@during", "empty"]),
        (permit("@during"), vec!["@during", "empty"]),
        (permit("@before(\"aprove(x)\")"), vec!["@before", "did you mean `approve`"]),
        (permit("@after(\"delete_within(90)\")"), vec!["@after", "ISO 8601"]),
        (permit("@contract(\"\")"), vec!["@contract", "empty"]),
        ("@id(\"p\") @contract(\"x\") forbid (principal, action, resource);".into(), vec!["@contract", "permits only"]),
        (permit("@during(\"watermark\")"), vec!["`watermark` takes", "other columns"]),
        (permit("@during(\"hahs(id)\")"), vec!["unknown obligation `hahs`", "did you mean `hash`", "policy `p`"]),
        (permit("@during(\"hash(idd)\")"), vec!["column `idd`", "did you mean `id`"]),
        (permit("@during(\"year(age)\")"), vec!["`year` needs a column of dates", "age", "integers"]),
        (permit("@during(\"band(name, 10)\")"), vec!["`band`", "name", "text"]),
        (permit("@during(\"band(age, 0)\")"), vec!["`band`", "0"]),
        (permit("@during(\"at_least(1, grade)\")"), vec!["`at_least`", "1"]),
        (permit("@during(\"hash(id) year(recdate)\")"), vec!["`;`"]),
        (permit("@during(\"hash(id\")"), vec!["`(`"]),
        (permit("@during(\"filter(grade = 'x')\")"), vec!["filter", "grade"]),
        (permit("@during(\"filter(1 = 1; drop table x)\")"), vec!["filter"]),
        (permit("@during(\"filter(lower(name) = 'x')\")"), vec!["filter", "lower"]),
        (permit("@during(\"filter(nme = 'x')\")"), vec!["filter", "nme"]),
        (
            "@id(\"p\") @during(\"hash(id)\") forbid (principal, action, resource);".into(),
            vec!["forbid", "permits only"],
        ),
        ("@id(\"p\") permit (principal == ?principal, action, resource);".into(), vec!["templates"]),
        (
            "@id(\"p\") permit (principal, action, resource) when { context.purposse == \"x\" };".into(),
            vec!["own.cedar:1:", "purposse"],
        ),
        (
            "@id(\"p\")\npermit (principal, action, resource) when { context.count == \"x\" };".into(),
            vec!["own.cedar:2:"],
        ),
        ("@id(\"p\")\npermit (principal action, resource);".into(), vec!["own.cedar:2:"]),
        (
            "@id(\"a\") permit (principal, action, resource); @id(\"a\") forbid (principal, action, resource);".into(),
            vec!["two policies", "`a`"],
        ),
        (String::new(), vec!["own.cedar", "no policy"]),
    ] {
        let error = refusal(&text);
        for word in words {
            assert!(error.contains(word), "{text}\n  {error}\n  lacks {word}");
        }
    }
    let clash = compile_all(&permit(""), "@id(\"p\") forbid (principal, action, resource);", "", "").unwrap_err();
    assert!(clash.to_string().contains("own.cedar and global.cedar"), "{clash}");
    assert!(compile_all(&permit(""), "@id(\"g\") forbid (principal, action, resource);", "", "").is_ok());
    assert!(compile_all(&permit(""), "", "hahs(id)", "").unwrap_err().to_string().contains("the offer's floor"));
    assert!(compile_all(&permit(""), "", "", "drop(x)").unwrap_err().to_string().contains("the connector's floor"));
}

#[test]
fn the_request_that_is_committed_to_is_all_that_was_decided_on() {
    let slice = compile(COHORT).unwrap();
    let base = slice.decide(&facts(Action::Release, "research", 0)).request;
    assert_eq!(base, slice.decide(&facts(Action::Release, "research", 0)).request);
    let mut other_group = facts(Action::Release, "research", 0);
    other_group.principal.groups.insert("other".into());
    assert_ne!(base, slice.decide(&other_group).request);
    let mut other_class = facts(Action::Release, "research", 0);
    other_class.resource.classification = Some("important".into());
    assert_ne!(base, slice.decide(&other_class).request);
    assert_ne!(base, slice.decide(&facts(Action::Release, "research", 1)).request);
}

#[test]
fn floors_hold_whatever_permit_matched_and_all_permits_count() {
    let slice = compile_all(
        r#"@id("a") @during("band(age, 10); keep(id, age, grade); limit(50); filter(grade = 3)") permit (principal, action, resource);
           @id("b") @during("band(age, 15); keep(id, age, name); limit(20); filter(age > 5)") permit (principal, action, resource);"#,
        "",
        "hash(id)",
        "at_least(5, grade)",
    )
    .unwrap();
    let met = slice.decide(&facts(Action::Release, "", 0)).obligations;
    assert_eq!(met.columns["age"], ColumnRule::Band(30));
    assert_eq!(met.columns["id"], ColumnRule::Hash("id".into()));
    assert_eq!(met.keep.as_ref().unwrap().iter().collect::<Vec<_>>(), ["age", "id"]);
    assert_eq!((met.limit, met.at_least.as_ref().unwrap().k), (Some(20), 5));
    assert!(matches!(met.filter.as_ref().unwrap().tree, FilterExpr::And(..)));
    let again: Obligations = serde_json::from_str(&serde_json::to_string(&met).unwrap()).unwrap();
    assert_eq!((again.sha256(), &again), (met.sha256(), &met));
    assert_ne!(met.sha256(), Obligations::default().sha256());
}

/// What a rule makes of a number in a small domain; alike or not is all that counts.
fn class(rule: &ColumnRule, value: u64) -> String {
    let text = format!("{value:03}");
    match rule {
        ColumnRule::Drop | ColumnRule::Redact | ColumnRule::Nullify => String::new(),
        ColumnRule::Hash(domain) => format!("{domain}/{value}"),
        ColumnRule::ShowFirst(n) => text.chars().take(*n as usize).collect(),
        ColumnRule::ShowLast(n) => text.chars().rev().take(*n as usize).collect(),
        ColumnRule::Year => (value / 100).to_string(),
        ColumnRule::Band(width) => (value / width).to_string(),
        ColumnRule::Round(places) => {
            let step = 10_u64.pow(u32::try_from(-places).unwrap());
            ((value + step / 2) / step).to_string()
        }
    }
}

fn rule() -> impl Strategy<Value = ColumnRule> {
    prop_oneof![
        Just(ColumnRule::Drop),
        Just(ColumnRule::Redact),
        Just(ColumnRule::Nullify),
        Just(ColumnRule::Year),
        prop::sample::select(vec!["a", "b"]).prop_map(|domain| ColumnRule::Hash(domain.into())),
        (1_u32..4).prop_map(ColumnRule::ShowFirst),
        (1_u32..4).prop_map(ColumnRule::ShowLast),
        (1_u64..40).prop_map(ColumnRule::Band),
        (-2_i32..=0).prop_map(ColumnRule::Round),
    ]
}

proptest! {
    /// The meet as a partition of a small domain: whatever either rule makes alike, the meet makes alike.
    #[test]
    fn the_meet_separates_nothing_that_one_of_them_joins(a in rule(), b in rule()) {
        let met = a.clone().meet(b.clone());
        prop_assert_eq!(&met, &b.clone().meet(a.clone()), "in either order");
        for x in 0..200_u64 {
            for y in [x + 1, x + 5, x + 9, x + 30, x + 100] {
                if class(&a, x) == class(&a, y) || class(&b, x) == class(&b, y) {
                    prop_assert_eq!(class(&met, x), class(&met, y), "{:?} ∧ {:?} = {:?} at {} and {}", a, b, met, x, y);
                }
            }
        }
    }

    #[test]
    fn the_meet_of_many_is_the_same_in_any_order(rules in prop::collection::vec(rule(), 1..5)) {
        let fold = |rules: &[ColumnRule]| rules.iter().cloned().reduce(ColumnRule::meet).unwrap();
        let mut reversed = rules.clone();
        reversed.reverse();
        prop_assert_eq!(fold(&rules), fold(&reversed));
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "[a-z_(),;\"' 0-9=<>.*-]{0,60}") {
        let _ = parse::obligations(&text, &columns());
        let _ = Filter::parse(&text, &columns());
    }
}

#[test]
fn the_wider_of_two_bands_would_be_wrong() {
    // 14 | 15 lie in one band of ten and in two of fifteen
    assert_eq!(ColumnRule::Band(10).meet(ColumnRule::Band(15)), ColumnRule::Band(30));
    assert_eq!(ColumnRule::Band(999_999_999_999).meet(ColumnRule::Band(999_999_999_998)), ColumnRule::Drop);
}

#[test]
fn participants_that_a_policy_names_are_found() {
    let slice = compile(
        r#"@id("a") permit (principal == Participant::"did:web:x.invalid", action, resource)
           unless { principal == Participant::"did:web:y.invalid" || principal.did == "did:web:s.invalid" };
           // not for did:web:z.invalid"#,
    )
    .unwrap();
    assert_eq!(
        slice.named_participants().into_iter().collect::<Vec<_>>(),
        ["did:web:s.invalid", "did:web:x.invalid", "did:web:y.invalid", "did:web:z.invalid"]
    );
}
