//! Proven, shown, or unknown; never said without one of the three.

use super::*;
use crate::policy::{Column, ColumnKind, Columns, PolicySource, UseAction, Verdict};

/// Loud where there is no solver: what wasn't asked isn't proven.
fn solver() -> Option<Solver> {
    let binary = PathBuf::from(std::env::var_os("CVC5").unwrap_or_else(|| "cvc5".into()));
    match std::process::Command::new(&binary).arg("--version").output() {
        Ok(_) => Some(Solver { binary, patience: Duration::from_secs(20) }),
        Err(error) => {
            eprintln!("!!! SKIPPED: no solver {} ({error}); apt-get install cvc5", binary.display());
            None
        }
    }
}

fn slice(text: &str) -> Slice {
    let columns = Columns::new(vec![Column { name: "id".into(), kind: ColumnKind::Integer }]).unwrap();
    let source = |name, text| PolicySource { name, text };
    Slice::compile(source("own.cedar", text), source("global.cedar", ""), "", "", &columns).unwrap()
}

const RELEASE: [Action; 1] = [Action::Release];
const GBA: &str = r#"
    @id("gba") permit (principal, action in [Action::"release", Action::"read"], resource)
    when { ["CN-44", "HK", "MO"].contains(principal.jurisdiction) && context.count < 3 };
    @id("night") forbid (principal, action, resource) unless { context.timeOfDay >= duration("8h") };"#;

fn the(mut answers: Vec<(Action, Answer)>) -> Answer {
    answers.remove(0).1
}

#[test]
fn nobody_outside_ever_gets_it() {
    let Some(solver) = solver() else { return };
    let outside = "!([\"CN-44\", \"HK\", \"MO\"].contains(principal.jurisdiction))";
    let all: Vec<Action> = Action::all().collect();
    for (action, answer) in never(&slice(GBA), outside, &all, &solver).unwrap() {
        assert!(matches!(answer, Answer::Proven), "{action:?} {answer:?}");
    }
    let answer = the(never(&slice(GBA), "principal.jurisdiction == \"HK\"", &RELEASE, &solver).unwrap());
    let Answer::Counterexample(found) = answer else { panic!("{answer:?}") };
    assert_eq!(found.decisions[0].verdict, Verdict::Allow);
    assert_eq!(found.facts.principal.jurisdiction.as_deref(), Some("HK"));
    let case = case("found", &found.facts, &found.decisions[0]);
    for line in [
        "action = \"release\"",
        "jurisdiction = \"HK\"",
        "expect = \"allow\"",
        "policies = [\"gba\"]",
        "timeOfDay = \"",
    ] {
        assert!(case.contains(line), "{case}");
    }
    assert!(toml::from_str::<toml::Table>(&case).is_ok(), "{case}");
}

#[test]
fn every_kind_of_fact_is_brought_back() {
    let Some(solver) = solver() else { return };
    let all = r#"@id("all") permit (principal in Group::"g", action == Action::"read", resource in Collection::"c") when {
        context.now > datetime("2026-03-02T10:00:00Z") && context.weekday > 5 && context.timeWindow < duration("36h") &&
        context.payAmount.greaterThan(decimal("100.00")) && context.networkAddress.isInRange(ip("10.1.0.0/16")) &&
        context.dataField.contains("age") && context.frequency.day > 2 && context.spent.total.records > 1000 &&
        context.purpose == "研究 \"x\"" && principal.roles.containsAll(["a", "b"]) && principal.did != "did:web:x.invalid" };"#;
    let read = [Action::Use(UseAction::Read)];
    let answer = the(never(&slice(all), "true", &read, &solver).unwrap());
    let Answer::Counterexample(found) = answer else { panic!("{answer:?}") };
    assert_eq!(found.decisions[0].verdict, Verdict::Allow);
    let case = case("found", &found.facts, &found.decisions[0]);
    assert!(toml::from_str::<toml::Table>(&case).is_ok(), "{case}");
    assert!(case.contains("groups = [\"g\"]") && case.contains("collection = \"c\""), "{case}");
}

#[test]
fn what_always_holds_is_proven_and_what_does_not_is_shown() {
    let Some(solver) = solver() else { return };
    let ask = |condition: &str| the(always(&slice(GBA), condition, &RELEASE, &solver).unwrap());
    let day = "principal.jurisdiction == \"MO\" && context.timeOfDay >= duration(\"9h\")";
    assert!(matches!(ask(&format!("{day} && context.count < 2")), Answer::Proven));
    let answer = ask(day);
    let Answer::Counterexample(found) = answer else { panic!("{answer:?}") };
    assert_eq!(found.decisions[0].verdict, Verdict::DefaultDeny);
}

#[test]
fn a_new_policy_that_allows_more_is_caught() {
    let Some(solver) = solver() else { return };
    let new = slice(&GBA.replace("context.count < 3", "context.count < 4 && context.purpose == \"research\""));
    let changes = diff(&slice(GBA), &new, &RELEASE, &solver).unwrap();
    let Answer::Counterexample(more) = &changes[0].more else { panic!("{changes:?}") };
    assert!(more.decisions[1].permits() && !more.decisions[0].permits());
    assert_eq!(more.facts.context[&ContextFact::Count], crate::policy::Value::Long(3));
    let Answer::Counterexample(less) = &changes[0].less else { panic!("{changes:?}") };
    assert!(less.decisions[0].permits() && !less.decisions[1].permits());
    // said otherwise, it is the same
    let same = slice(&GBA.replace("context.count < 3", "!(context.count >= 3)"));
    for change in diff(&slice(GBA), &same, &[Action::Release, Action::Discover], &solver).unwrap() {
        assert!(matches!((&change.more, &change.less), (Answer::Proven, Answer::Proven)), "{change:?}");
    }
}

#[test]
fn what_is_demanded_no_more_is_said() {
    let Some(solver) = solver() else { return };
    let policy = |annotations: &str| {
        slice(&format!(
            "@id(\"p\") {annotations} permit (principal, action in [Action::\"release\", Action::\"read\"], resource) when {{ context.count < 3 }};"
        ))
    };
    let strict = r#"@before("approve(board)") @during("hash(id); limit(5)") @after("delete_within(P30D)")"#;
    let loose = r#"@during("hash(id); limit(9)") @after("delete_within(P60D)")"#;
    let ask = |old: &str, new: &str| loosened(&policy(old), &policy(new), &RELEASE, &solver).unwrap();
    let (found, unknown) = ask(strict, loose);
    assert!(unknown.is_empty() && found.len() == 1, "{found:?} {unknown:?}");
    let less = found[0].less.join("\n");
    for words in
        ["approve(board) is no longer asked first", "\"limit\":5", "delete_within(P30D), now delete_within(P60D)"]
    {
        assert!(less.contains(words), "{less}");
    }
    assert!(ask(loose, strict).0.is_empty() && ask(strict, strict).0.is_empty());
}

/// Cedar skips a policy that errs. Taken as its answer, "the new one allows no more" would be proven here, and wrong:
/// the old one allows nothing where the sum overflows.
#[test]
fn what_fails_is_not_weighed_as_cedar_does() {
    let Some(solver) = solver() else { return };
    let old = slice(
        r#"@id("yes") permit (principal, action, resource);
           @id("sum") forbid (principal, action, resource) when { context.count * 9223372036854775807 < 0 };"#,
    );
    let new = slice(r#"@id("yes") permit (principal, action, resource);"#);
    let changes = diff(&old, &new, &RELEASE, &solver).unwrap();
    let Answer::Unknown(why) = &changes[0].more else { panic!("{changes:?}") };
    assert!(why.contains("policy `sum` can fail"), "{why}");
    // never asks less: what Cedar doesn't allow, we don't
    let never_asked = the(never(&old, "false", &RELEASE, &solver).unwrap());
    assert!(matches!(never_asked, Answer::Proven), "{never_asked:?}");
    // a request that Cedar allows and we don't is no counterexample
    let answer = the(never(&old, "context.count == 5", &RELEASE, &solver).unwrap());
    assert!(matches!(answer, Answer::Unknown(_)), "{answer:?}");
}

#[test]
fn what_is_bounded_can_be_computed_with() {
    let Some(solver) = solver() else { return };
    let (old, new) = ("context.count + 1 <= 3", "context.count < 3");
    let policy =
        |condition: &str| slice(&format!("@id(\"p\") permit (principal, action, resource) when {{ {condition} }};"));
    let changes = diff(&policy(old), &policy(new), &RELEASE, &solver).unwrap();
    assert!(matches!((&changes[0].more, &changes[0].less), (Answer::Proven, Answer::Proven)), "{changes:?}");
    let failing = the(never(&policy(new), "context.count * 9223372036854775807 > 5", &RELEASE, &solver).unwrap());
    assert!(matches!(&failing, Answer::Unknown(why) if why.contains("condition itself")), "{failing:?}");
}

#[test]
fn policies_that_never_apply_are_found() {
    let Some(solver) = solver() else { return };
    let answers = unreachable(
        &slice(
            r#"@id("dead") permit (principal, action == Action::"release", resource) when { context.count < 3 && context.count > 5 };
               @id("eighth-day") forbid (principal, action == Action::"read", resource) when { context.weekday == 8 };
               @id("live") forbid (principal, action == Action::"release", resource) when { context.count > 5 };"#,
        ),
        &solver,
    )
    .unwrap();
    let applies: Vec<(&str, bool)> =
        answers.iter().map(|(id, answer)| (id.as_str(), matches!(answer, Answer::Counterexample(_)))).collect();
    assert_eq!(applies, [("dead", false), ("eighth-day", false), ("live", true)]);
    assert!(answers.iter().all(|(_, answer)| !matches!(answer, Answer::Unknown(_))), "{answers:?}");
}

#[test]
fn a_condition_is_one_condition() {
    let solver = Solver { binary: "/nowhere/cvc5".into(), patience: Duration::from_secs(1) };
    let ask = |condition: &str| never(&slice(GBA), condition, &RELEASE, &solver).unwrap_err().to_string();
    for condition in [
        "context.count <",
        "context.cuont < 3",
        "true }; permit (principal, action, resource) when { true",
        "true } unless { false",
    ] {
        assert!(ask(condition).contains("can't be asked about"), "{condition}");
    }
    assert!(ask("true").contains("/nowhere/cvc5 can't be started"), "{}", ask("true"));
}
