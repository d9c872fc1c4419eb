//! Test files, and what they cover.

use super::{COHORT, columns, slice};
use crate::policy::workbench::{CaseResult, Coverage, Suite, run};

const HEAD: &str = r#"
[defaults]
action = "release"
principal = { id = "did:web:research.invalid", groups = ["research"] }
resource = { dataset = "lymph-node-cohort" }
context = { now = "2026-03-02T10:00:00+08:00", purpose = "research" }
"#;

fn outcome(policy: &str, cases: &str) -> (Vec<CaseResult>, Coverage) {
    let cases = Suite::read(&format!("{HEAD}{cases}")).and_then(|suite| suite.cases(&columns())).unwrap();
    run(&slice(policy), &columns(), &cases).unwrap()
}

fn refused(text: &str) -> String {
    Suite::read(text).and_then(|suite| suite.cases(&columns())).unwrap_err().to_string()
}

#[test]
fn the_test_file_that_ships_passes_and_covers_everything() {
    let text = include_str!("../../../../policies/examples/cohort-research.test.toml");
    let cases = Suite::read(text).unwrap().cases(&columns()).unwrap();
    let (results, coverage) = run(&slice(COHORT), &columns(), &cases).unwrap();
    let failed: Vec<_> =
        results.iter().filter(|case| !case.passed).map(|case| (&case.name, &case.differences)).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!((results.len(), coverage.gaps()), (8, vec![]));
    let (seen, of) = coverage.seen();
    assert_eq!(seen, of);
}

#[test]
fn what_comes_out_otherwise_is_named() {
    let (results, _) = outcome(
        COHORT,
        r#"
[[case]]
name = "wrong in everything"
context = { count = 3 }
expect = "allow"
policies = ["cohort-research"]
obligations = "hash(id)"
reason = "policy-forbids"
after = ["notify"]
"#,
    );
    let found: Vec<&str> = results[0].differences.iter().map(|said| said.en.as_str()).collect();
    assert_eq!(
        found,
        [
            "verdict: expected allow, got default-deny",
            "policies: expected cohort-research, got none",
            "obligations: expected hash(id), got none",
            "after: expected notify, got none",
            "reason: expected policy-forbids, got policy-no-permit",
        ]
    );
    assert!(!results[0].passed && results[0].differences[0].zh.starts_with("结论：应为 allow"));
}

#[test]
fn what_comes_first_and_afterwards_is_compared() {
    let policy = r#"@id("a") @before("approve(board); accept('nobody is named')") @after("notify; delete_within(P90D)")
        permit (principal, action == Action::"release", resource);"#;
    let (results, _) = outcome(
        policy,
        r#"
[[case]]
name = "open"
met = ["approve(board)"]
expect = "conditional"
open = ["accept('nobody is named')"]
reason = "policy-conditional"

[[case]]
name = "done"
met = ["approve(board)", "accept('nobody is named')"]
expect = "allow"
open = []
after = ["delete_within(P90D)", "notify"]

[[case]]
name = "all wrong"
expect = "conditional"
open = ["approve(board)"]
"#,
    );
    let passed: Vec<bool> = results.iter().map(|case| case.passed).collect();
    assert_eq!(passed, [true, true, false], "{:?}", results[2].differences);
    assert_eq!(
        results[2].differences[0].en,
        "open: expected approve(board), got approve(board), accept(nobody is named)"
    );
}

#[test]
fn what_is_asked_for_is_a_fact_and_may_be_refused() {
    let policy = r#"@id("a") @during("drop(name); band(age, 10)") permit (principal, action == Action::"release", resource)
        when { context.dataField.containsAll(["id"]) && context.valueExpression == "" };"#;
    let cases = r#"
[[case]]
name = "everything"
expect = "allow"

[[case]]
name = "only what may leave"
asked = { fields = ["id", "age"] }
expect = "allow"

[[case]]
name = "only what may not"
asked = { fields = ["age"] }
expect = "default-deny"

[[case]]
name = "a filter"
asked = { filter = "age > 3" }
expect = "default-deny"
reason = "policy-no-permit"
"#;
    let (results, _) = outcome(policy, cases);
    assert!(results.iter().all(|case| case.passed), "{results:?}");
    let open = policy.replace("&& context.valueExpression == \"\"", "");
    let (results, _) = outcome(&open, &cases.replace("policy-no-permit", "request-fields"));
    assert!(results.iter().all(|case| case.passed), "a filter on a banded column would betray it: {results:?}");
}

#[test]
fn coverage_says_what_no_case_has_seen() {
    let one = |count: u64, purpose: &str| {
        format!(
            "[[case]]\nname = \"{count}{purpose}\"\nexpect = \"allow\"\ncontext = {{ count = {count}, purpose = \"{purpose}\" }}\n"
        )
    };
    let gaps = |cases: &str| {
        outcome(COHORT, cases)
            .1
            .gaps()
            .into_iter()
            .map(|gap| gap.en)
            .filter(|gap| gap.contains("research`"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        gaps(&one(0, "research")),
        [
            "`cohort-research`: its condition is false in no case",
            "`cohort-research`: `context.purpose == \"research\"` is not so in no case",
            "`cohort-research`: `context.count < 3` is not so in no case",
        ]
    );
    assert_eq!(
        gaps(&[one(0, "research"), one(3, "research")].concat()),
        ["`cohort-research`: `context.purpose == \"research\"` is not so in no case"]
    );
    assert!(gaps(&[one(0, "research"), one(3, "research"), one(0, "sales")].concat()).is_empty());
    let elsewhere = "[[case]]\nname = \"x\"\nexpect = \"allow\"\naction = \"discover\"\n";
    assert_eq!(gaps(elsewhere), ["`cohort-research`: no case is about it"]);
}

#[test]
fn what_nobody_reads_is_refused_with_its_line_and_a_suggestion() {
    for (text, place, word) in [
        ("polcy = \"x\"", "1:1", "did you mean `policy`"),
        ("[defaults]\ncontxt = {}", "2:1", "did you mean `context`"),
        ("[[case]]\nname = \"a\"\nexpct = \"allow\"", "3:1", "did you mean `expect`"),
        ("[[case]]\nname = \"a\"\naction = \"release\"\nexpect = \"alow\"", "4:10", "did you mean `allow`"),
        ("[[case]]\nname = \"a\"\naction = \"relase\"\nexpect = \"allow\"", "3:10", "did you mean `release`"),
        (
            "[[case]]\nname = \"a\"\naction = \"release\"\nexpect = \"allow\"\ncontext = { cout = 1 }",
            "5:13",
            "did you mean `count`",
        ),
        (
            "[[case]]\nname = \"a\"\naction = \"release\"\nexpect = \"allow\"\ncontext = { count = \"1\" }",
            "5:21",
            "a whole number",
        ),
        (
            "[[case]]\nname = \"a\"\naction = \"release\"\nexpect = \"allow\"\nobligations = \"hash(nme)\"",
            "5:15",
            "did you mean `name`",
        ),
        (
            "[[case]]\nname = \"a\"\naction = \"release\"\nexpect = \"allow\"\nmet = [\"aprove(x)\"]",
            "5:8",
            "did you mean `approve`",
        ),
        ("[[case]]\nname = \"a\"\nexpect = \"allow\"", "1:1", "`action` is missing"),
        ("[[case]]\naction = \"read\"\nexpect = \"allow\"", "1:1", "`name` is missing"),
        ("zone = \"Beijing\"", "1:8", "+08:00"),
        ("[columns]\nid = \"int\"", "2:6", "text, integer"),
        ("source = \"x\"\n[columns]\nid = \"integer\"", "1:10", "give one of them"),
        ("x = ", "1:5", ""),
    ] {
        let error = refused(text);
        assert!(error.starts_with(&format!("{place}: ")) && error.contains(word), "{text}: {error}");
    }
    let twice =
        format!("{HEAD}[[case]]\nname = \"a\"\nexpect = \"allow\"\n[[case]]\nname = \"a\"\nexpect = \"allow\"\n");
    assert!(refused(&twice).contains("a case `a` already"));
}
