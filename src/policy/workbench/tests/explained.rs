//! Explanations, in both languages.

use super::{COHORT, columns, slice};
use crate::{
    policy::{
        Facts, Verdict,
        workbench::{Explanation, Outcome, Told, explain},
    },
    time::Zone,
};

fn facts(action: &str, pairs: &[(&'static str, &str)]) -> Facts {
    let told = Told {
        action: action.into(),
        groups: vec!["research".into()],
        pairs: [("resource", "dataset=lymph-node-cohort")]
            .iter()
            .chain(pairs)
            .map(|(table, pair)| (*table, (*pair).to_owned()))
            .collect(),
        ..Told::default()
    };
    told.given(&columns(), Zone::BEIJING).unwrap().facts
}

fn of(policy: &str, action: &str, pairs: &[(&'static str, &str)]) -> Explanation {
    explain(&slice(policy), &facts(action, pairs)).unwrap()
}

fn sentence<'a>(explanation: &'a Explanation, id: &str) -> (&'a str, &'a str, Outcome) {
    let policy = explanation.policies.iter().find(|policy| policy.id == id).unwrap();
    (&policy.sentence.en, &policy.sentence.zh, policy.outcome)
}

#[test]
fn the_conjunct_that_fails_is_named_with_its_value() {
    let explained = of(COHORT, "release", &[("context", "purpose=research"), ("context", "count=3")]);
    assert_eq!(
        sentence(&explained, "cohort-research"),
        (
            "did not apply: `context.count < 3` is not so: count is 3",
            "未适用：`context.count < 3` 不成立：使用次数(count)为 3",
            Outcome::Condition
        )
    );
    let (en, zh, outcome) = sentence(&explained, "cohort-use");
    assert_eq!((en, outcome), ("is about other actions: `action == Action::\"read\"`, not `release`", Outcome::Scope));
    assert!(zh.contains("“放行”(release)"), "{zh}");
    assert_eq!((explained.verdict, explained.verdict_zh), ("default-deny", "默认拒绝"));
    assert_eq!(explained.summary.zh, "“放行”未获许可：没有任何策略在此情形下予以许可");
    let purpose = explained.facts.iter().find(|fact| fact.name == "purpose").unwrap();
    assert_eq!((purpose.value.as_deref(), purpose.source), (Some("\"research\""), "declared"));
}

#[test]
fn what_applied_is_named_with_what_it_demands() {
    let explained = of(COHORT, "release", &[("context", "purpose=research")]);
    assert_eq!(
        sentence(&explained, "cohort-research").0,
        "applied: `context.purpose == \"research\"` and `context.count < 3`"
    );
    assert_eq!(explained.deciding, ["cohort-research"]);
    assert!(explained.obligations.contains(&"band(age, 10)".to_owned()), "{:?}", explained.obligations);
    let forbidden = of(COHORT, "release", &[("context", "purpose=marketing")]);
    assert_eq!(sentence(&forbidden, "cohort-never-marketing").2, Outcome::Applied);
    assert!(forbidden.summary.zh.contains("禁止优先于许可"));
}

#[test]
fn a_member_an_unless_and_a_missing_fact_are_explained() {
    let policy = r#"@id("often") permit (principal, action, resource) when { context.frequency.day < 2 };
        @id("abroad") permit (principal, action, resource) unless { context.count > 2 || context.purpose == "x" };
        @id("where") permit (principal, action == Action::"read", resource) when { context.region == "CN" };"#;
    let explained = of(policy, "release", &[("context", "frequency.day=2"), ("context", "purpose=x")]);
    assert_eq!(
        sentence(&explained, "often").0,
        "did not apply: `context.frequency.day < 2` is not so: frequency.day is 2"
    );
    let (en, zh, _) = sentence(&explained, "abroad");
    assert_eq!(
        en,
        "did not apply: it does not hold where `context.purpose == \"x\"`, and that is so: purpose is \"x\""
    );
    assert!(zh.contains("成立时不适用"), "{zh}");
    let missing = of(policy, "read", &[]);
    let (en, zh, outcome) = sentence(&missing, "where");
    assert_eq!(
        (en, outcome),
        ("could not be evaluated: `context.region == \"CN\"` looks at region, which could not be had", Outcome::Error)
    );
    assert!(zh.contains("限制地域(region)"), "{zh}");
    assert_eq!(missing.verdict, Verdict::DefaultDeny.as_str());
}

#[test]
fn what_is_open_is_said_in_both_languages() {
    let policy = r#"@id("a") @before("approve(board)") permit (principal, action == Action::"release", resource);"#;
    let explained = of(policy, "release", &[]);
    assert_eq!(explained.verdict, "conditional");
    assert!(explained.open[0].en.contains("role `board`") && explained.open[0].zh.contains("审批"));
    assert!(explained.summary.zh.contains("须由角色 board 审批"), "{}", explained.summary.zh);
}

#[test]
fn pieces_together_say_what_the_whole_policy_says() {
    // Cedar decides the whole; the pieces must never tell another story
    for (action, purpose, count) in [
        ("release", "research", 0),
        ("release", "research", 3),
        ("release", "marketing", 0),
        ("discover", "", 0),
        ("read", "research", 1),
        ("read", "", 1),
    ] {
        let (purpose, count) = (format!("purpose={purpose}"), format!("count={count}"));
        let pairs = [("context", purpose.as_str()), ("context", count.as_str())];
        let explained = of(COHORT, action, &pairs);
        let applied: Vec<&str> = explained
            .policies
            .iter()
            .filter(|policy| policy.outcome == Outcome::Applied)
            .map(|policy| policy.id.as_str())
            .collect();
        for id in &explained.deciding {
            assert!(applied.contains(&id.as_str()), "{action} {pairs:?}: {id}");
        }
        assert_eq!(applied.is_empty(), explained.deciding.is_empty(), "{action} {pairs:?}");
    }
}

#[test]
fn the_longest_condition_is_explained_on_a_small_stack() {
    let many = |sign: &str| (0..115).map(|n| format!("context.count != {n}")).collect::<Vec<_>>().join(sign);
    for (condition, outcome) in [(many(" && "), Outcome::Condition), (many(" || "), Outcome::Applied)] {
        let policy = format!("@id(\"long\") permit (principal, action, resource) when {{ {condition} }};");
        let explained = of(&policy, "release", &[("context", "count=99")]);
        assert_eq!(sentence(&explained, "long").2, outcome);
    }
}
