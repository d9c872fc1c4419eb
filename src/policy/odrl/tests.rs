//! Both ways, and both ways again: Cedar decides as an independent ODRL evaluator does.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{evaluator::evaluate, *};
use crate::policy::{Column, ColumnKind, Columns, Duties, Facts, Obligations, Verdict, parse};

mod random;
mod refused;

use random::{facts, policies, reshaped};

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
    ])
    .unwrap()
}

fn compile(own: &str) -> Slice {
    compile_with(own, "", "")
}

fn compile_with(own: &str, global: &str, floor: &str) -> Slice {
    let source = |name, text| PolicySource { name, text };
    Slice::compile(source("own.cedar", own), source("global.cedar", global), floor, "", &columns())
        .unwrap_or_else(|error| panic!("{error}\n{own}"))
}

/// Cedar's decision and ODRL's answer, compared in all that they say.
fn alike(slice: &Slice, odrl: &Json, facts: &Facts) {
    let (decision, answer) = (slice.decide(facts), evaluate(odrl, facts));
    assert_eq!(decision.verdict, answer.verdict, "{:?}\n{odrl:#}", decision.reason);
    let open: BTreeSet<String> = decision.open.iter().map(ToString::to_string).collect();
    let said: BTreeSet<String> = answer.open.iter().map(|text| text.replace('\'', "")).collect();
    assert_eq!(open, said);
    if (decision.verdict, facts.action) == (Verdict::Allow, Action::Release) {
        let (mut bytes, mut owed, mut words) = (Vec::new(), Vec::new(), Vec::new());
        for duty in &answer.duties {
            match (parse::obligations(duty, &columns()), parse::after(duty)) {
                (Ok(of), _) => bytes.extend(of),
                (_, Ok(of)) => owed.extend(of),
                _ => words.push(duty),
            }
        }
        assert_eq!(decision.obligations, Obligations::meet(&bytes), "{odrl:#}");
        assert_eq!(decision.duties, Duties::meet(&owed));
        assert!(words.iter().all(|words| words.starts_with("contract(")), "{words:?}");
    }
}

/// The exact ODRL of a random policy; `None` for one of those that ODRL has no operator for.
fn exported(slice: &Slice) -> Option<Json> {
    match to_odrl(slice) {
        Ok(odrl) => {
            // the protocol's own schema takes it
            crate::protocol::message::Rules::from_odrl(&odrl).unwrap();
            Some(odrl)
        }
        Err(error) => {
            assert!(error.to_string().contains("no operator for its opposite"), "{error}");
            None
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn an_export_decides_as_cedar_does(text in policies(), requests in prop::collection::vec(facts(), 24)) {
        let slice = compile(&text);
        let Some(odrl) = exported(&slice) else { return Ok(()) };
        for facts in &requests {
            alike(&slice, &odrl, facts);
        }
    }

    #[test]
    fn cedar_to_odrl_and_back_decides_alike(
        text in policies(),
        shape in any::<u64>(),
        requests in prop::collection::vec(facts(), 24),
    ) {
        let slice = compile(&text);
        let Some(odrl) = exported(&slice) else { return Ok(()) };
        // as another connector may send it
        let sent = reshaped(&odrl, shape);
        let back = from_odrl(&sent).unwrap_or_else(|error| panic!("{error}\n{sent:#}"));
        let again = compile(&back);
        for facts in &requests {
            let (first, second) = (slice.decide(facts), again.decide(facts));
            prop_assert_eq!(first.verdict, second.verdict, "{}\n{}", text, back);
            prop_assert_eq!(first.open, second.open);
            if facts.action == Action::Release {
                prop_assert_eq!(first.obligations, second.obligations);
                prop_assert_eq!(first.duties, second.duties);
            }
            alike(&again, &odrl, facts);
        }
    }

    #[test]
    fn odrl_to_cedar_and_back_is_the_same_odrl(text in policies(), requests in prop::collection::vec(facts(), 16)) {
        let Some(odrl) = exported(&compile(&text)) else { return Ok(()) };
        let again = to_odrl(&compile(&from_odrl(&odrl).unwrap())).unwrap();
        for facts in &requests {
            prop_assert_eq!(evaluate(&odrl, facts), evaluate(&again, facts), "{:#}\n{:#}", odrl, again);
        }
    }
}

#[test]
fn the_example_is_said_in_odrl() {
    let cohort = include_str!("../../../policies/examples/cohort-research.cedar");
    let slice = compile_with(cohort, "", "seal");
    let odrl = to_odrl(&slice).unwrap();
    let permissions = odrl["permission"].as_array().unwrap();
    let actions: Vec<_> = permissions.iter().map(|rule| rule["action"].as_str().unwrap()).collect();
    let ours = |name: &str| format!("{NAMESPACE}{name}");
    assert_eq!(actions, [&ours("discover"), &ours("negotiate"), &ours("release"), "odrl:read"]);
    assert_eq!(
        permissions[2]["constraint"],
        json!([
            { "leftOperand": "odrl:recipient", "operator": "isPartOf", "rightOperand": "research" },
            { "leftOperand": ours("dataset"), "operator": "eq", "rightOperand": "lymph-node-cohort" },
            { "leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": "research" },
            // fewer than three before are three at most
            {
                "leftOperand": "odrl:count", "operator": "lteq",
                "rightOperand": { "@value": "3", "@type": "xsd:integer" },
            },
        ])
    );
    let duties = permissions[2]["duty"].as_array().unwrap();
    assert_eq!(duties.len(), 7, "six obligations and the floor");
    assert_eq!(
        duties[0],
        json!({
            "action": ours("hash"),
            "constraint": [{ "leftOperand": ours("arguments"), "operator": "eq", "rightOperand": "id" }],
        })
    );
    assert_eq!(duties[6], json!({ "action": ours("seal") }));
    assert_eq!(odrl["prohibition"].as_array().unwrap().len(), 2, "use, and sell, which `use` doesn't include");
    assert_eq!(super::odrl(&slice), odrl, "in the catalog too");
    let text = text_to_odrl(PolicySource { name: "cohort.cedar", text: cohort }).unwrap();
    assert_eq!(text["permission"][2]["duty"].as_array().unwrap().len(), 6, "without floors");
}

#[test]
fn what_odrl_can_not_say_is_in_the_catalog_by_hash_alone() {
    let slice = compile(r#"@id("x") permit (principal, action, resource) when { context.purpose like "res*" };"#);
    let error = to_odrl(&slice).unwrap_err();
    assert!(error.to_string().contains("policy `x`: `context.purpose like \"res*\""), "{error}");
    let view = odrl(&slice);
    assert_eq!(view["permission"][0]["constraint"][0]["rightOperand"], slice.sha256().to_string());
    assert_eq!(view["permission"].as_array().unwrap().len(), 1);
}

#[test]
fn duties_come_first_and_afterwards_by_odrls_own_names() {
    let slice = compile(
        r#"@id("x") @before("consent(research); approve(ethics_board); accept('I will not, ever')")
           @after("delete_within(P90D); notify; report(P30D)") @contract("cite us")
           permit (principal, action, resource);"#,
    );
    let odrl = to_odrl(&slice).unwrap();
    let actions: Vec<_> =
        odrl["permission"][0]["duty"].as_array().unwrap().iter().map(|duty| duty["action"].as_str().unwrap()).collect();
    let ours = |name: &str| format!("{NAMESPACE}{name}");
    let expected = [
        "odrl:obtainConsent",
        &ours("approve"),
        &ours("accept"),
        "odrl:delete",
        "odrl:inform",
        &ours("report"),
        &ours("contract"),
    ];
    assert_eq!(actions, expected);
    assert_eq!(
        odrl["permission"][0]["duty"][3]["constraint"][0],
        json!({
            "leftOperand": "odrl:elapsedTime", "operator": "lteq",
            "rightOperand": { "@value": "P90D", "@type": "xsd:duration" },
        })
    );
    // `use` does not include `sell`: what is owed afterwards stands by the release, what comes first by both
    assert_eq!(odrl["permission"][1]["action"], "odrl:sell");
    assert_eq!(odrl["permission"][1]["duty"].as_array().unwrap().len(), 4);
    let back = from_odrl(&document(odrl)).unwrap();
    for line in [
        "@before(\"consent(research); approve(ethics_board); accept('I will not, ever')\")",
        "@after(\"delete_within(P90D); notify; report(P30D)\")",
        "@contract(\"cite us\")",
    ] {
        assert!(back.contains(line), "{back}");
    }
}
