//! Each lint fires, and its near miss doesn't.

use super::{COHORT, columns, found_in};
use crate::policy::workbench::{Finding, Level};

fn found(own: &str) -> Vec<Finding> {
    found_in(own, "", "", Some(&columns()))
}

fn codes(own: &str) -> Vec<&'static str> {
    found(own).into_iter().map(|finding| finding.code).collect()
}

/// `wrong` has the finding and nothing else of that code; `right` doesn't have it.
fn both_ways(code: &str, wrong: &str, right: &str) -> Finding {
    let findings = found(wrong);
    let mut of_code = findings.iter().filter(|finding| finding.code == code);
    let finding = of_code.next().unwrap_or_else(|| panic!("{code} not in {findings:?}")).clone();
    assert!(!finding.message.is_empty() && !finding.message_zh.is_empty());
    assert!(!finding.message_zh.is_ascii(), "{}", finding.message_zh);
    let near = found(right);
    assert!(near.iter().all(|finding| finding.code != code && finding.level != Level::Error), "{right}: {near:?}");
    finding
}

const GROUP: &str = "principal in Group::\"g\"";

fn release(id: &str, annotations: &str, condition: &str) -> String {
    let when = if condition.is_empty() { String::new() } else { format!("\nwhen {{ {condition} }}") };
    format!("@id(\"{id}\") {annotations}\npermit ({GROUP}, action == Action::\"release\", resource){when};\n")
}

#[test]
fn the_example_is_clean_but_for_a_read_on_anybodys_word() {
    assert_eq!(codes(COHORT), ["declared-only"]);
    let finding = &found(COHORT)[0];
    assert_eq!((finding.policy.as_deref(), finding.line, finding.column), (Some("cohort-use"), 13, 8));
}

#[test]
fn a_policy_that_never_applies() {
    let finding = both_ways(
        "never-applies",
        &release("a", "", "context.count < 3 &&\n  context.count > 5"),
        &release("a", "", "context.count < 5 && context.count > 3"),
    );
    assert_eq!((finding.line, finding.policy.as_deref()), (3, Some("a")));
    assert!(finding.message.contains("context.count"), "{}", finding.message);
    both_ways(
        "never-applies",
        "@id(\"p\") permit (principal in Group::\"g\", action, resource); @id(\"f\") forbid (principal, action, resource) when { context.weekday > 7 };",
        "@id(\"p\") permit (principal in Group::\"g\", action, resource); @id(\"f\") forbid (principal, action, resource) when { context.weekday > 6 };",
    );
}

#[test]
fn a_condition_that_is_always_so() {
    let finding = both_ways(
        "always-true",
        &release("a", "", "context.count < 3 && context.frequency.day >= 0"),
        &release("a", "", "context.count < 3 && context.frequency.day >= 1"),
    );
    assert!(finding.message.contains("`context.frequency.day >= 0`"), "{}", finding.message);
}

#[test]
fn a_permit_that_a_forbid_always_overrides() {
    let forbid = |condition: &str| {
        format!(
            "{}@id(\"f\") forbid (principal, action in [Action::\"release\", Action::\"read\"], resource) {condition};",
            release("a", "", "context.purpose == \"x\" && context.count < 2")
        )
    };
    both_ways("always-forbidden", &forbid(""), &forbid("when { context.count == 0 }"));
    both_ways("always-forbidden", &forbid("when { context.count < 3 }"), &forbid("when { context.count < 1 }"));
    both_ways(
        "always-forbidden",
        &forbid("when { context.purpose != \"y\" }"),
        &forbid("when { context.purpose != \"x\" }"),
    );
    both_ways("always-forbidden", &forbid("unless { context.count > 7 }"), &forbid("unless { context.count == 1 }"));
    // another action, another scope
    assert!(
        !codes(&forbid("").replace("Action::\"release\", Action::\"read\"", "Action::\"read\""))
            .contains(&"always-forbidden")
    );
    assert!(
        !codes(&forbid("").replace("forbid (principal,", "forbid (principal in Group::\"h\","))
            .contains(&"always-forbidden")
    );
    assert!(
        codes(&forbid("").replace("forbid (principal,", "forbid (principal in Group::\"g\","))
            .contains(&"always-forbidden")
    );
}

#[test]
fn a_permit_that_changes_nothing() {
    let two = |first: (&str, &str), second: (&str, &str)| {
        format!("{}{}", release("a", first.0, first.1), release("b", second.0, second.1))
    };
    let wide = ("@during(\"hash(id)\")", "context.count < 5");
    let finding = both_ways("redundant", &two(wide, ("", "context.count < 3")), &two(wide, ("", "context.count < 6")));
    assert_eq!(finding.policy.as_deref(), Some("b"));
    both_ways(
        "redundant",
        &two(wide, ("@during(\"hash(id)\")", "context.count < 3")),
        &two(wide, ("@during(\"drop(age)\")", "context.count < 3")),
    );
    both_ways(
        "redundant",
        &two(wide, ("", "context.count < 3")),
        &two(wide, ("@after(\"notify\")", "context.count < 3")),
    );
    both_ways(
        "redundant",
        &two(wide, ("", "context.count < 3")),
        &two(wide, ("@contract(\"cite us\")", "context.count < 3")),
    );
    both_ways(
        "redundant",
        &two(wide, ("", "context.count < 3")),
        &two(wide, ("@before(\"second_factor\")", "context.count < 3")),
    );
    assert!(!codes(&two(wide, wide)).contains(&"redundant"));
}

#[test]
fn two_policies_that_say_the_same() {
    let two = |second: &str| {
        format!("{}{}", release("a", "", "context.count < 3 && context.purpose == \"x\""), release("b", "", second))
    };
    let finding = both_ways(
        "duplicate",
        &two("context.purpose == \"x\" && context.count <= 2"),
        &two("context.purpose == \"y\" && context.count <= 2"),
    );
    assert_eq!(finding.policy.as_deref(), Some("b"), "said once, of the later one");
    assert_eq!(codes(&two("context.purpose == \"x\" && context.count <= 2")), ["duplicate"]);
}

#[test]
fn a_permit_on_anybodys_word() {
    let open = |condition: &str, before: &str| {
        format!(
            "@id(\"a\") {before} permit (principal, action == Action::\"release\", resource) when {{ {condition} }};"
        )
    };
    let word = "context.purpose == \"x\" && context.application == \"y\"";
    let finding = both_ways("declared-only", &open(word, ""), &open(&format!("{word} && context.count < 3"), ""));
    assert!(finding.message.contains("application, purpose"), "{}", finding.message);
    both_ways("declared-only", &open(word, ""), &open(&format!("{word} && principal.roles.contains(\"r\")"), ""));
    both_ways("declared-only", &open(word, ""), &open(&format!("{word} && principal in Group::\"g\""), ""));
    both_ways("declared-only", &open(word, ""), &open(word, "@before(\"approve(board)\")"));
    both_ways("declared-only", &open(word, ""), "@id(\"a\") permit (principal, action, resource);");
}

#[test]
fn what_nobody_enforces() {
    let use_of = |actions: &str| format!("@id(\"a\") permit ({GROUP}, action in [{actions}], resource);");
    let finding = both_ways(
        "contract-only",
        &use_of("Action::\"read\", Action::\"sell\""),
        &use_of("Action::\"read\", Action::\"distribute\""),
    );
    assert!(finding.message.contains("`sell`") && finding.level == Level::Note);
    assert!(!codes(&use_of("Action::\"use\"")).contains(&"contract-only"), "not named one by one");
    both_ways("contract-only", &release("a", "@contract(\"cite us\")", ""), &release("a", "", ""));
}

#[test]
fn obligations_that_undo_each_other() {
    let during = |text: &str| release("a", &format!("@during(\"{text}\")"), "");
    both_ways("keep-and-drop", &during("keep(id, age); drop(age)"), &during("keep(id, age); drop(name)"));
    both_ways("rule-on-removed", &during("drop(age); band(age, 10)"), &during("drop(id); band(age, 10)"));
    both_ways("rule-on-removed", &during("keep(id); band(age, 10)"), &during("keep(id, age); band(age, 10)"));
    both_ways(
        "group-by-removed",
        &during("at_least(5, grade, age); drop(age)"),
        &during("at_least(5, grade, age); drop(id)"),
    );
    both_ways("one-group", &during("at_least(5, name); redact(name)"), &during("at_least(5, name, age); redact(name)"));
    let nothing = |last: &str| during(&format!("keep(id); drop({last})"));
    assert_eq!(found(&nothing("id")).iter().filter(|finding| finding.code == "nothing-left").count(), 1);
    assert!(!codes(&nothing("age")).contains(&"nothing-left"));
    assert!(codes(&during("match(id); at_least(5, age)")).contains(&"match-in-groups"));
    assert!(!codes(&during("match(id); band(age, 10)")).contains(&"match-in-groups"));
}

#[test]
fn a_column_that_goes_by_meeting() {
    let two = |first: &str, second: &str, condition: &str| {
        format!(
            "{}{}",
            release("a", &format!("@during(\"{first}\")"), "context.purpose == \"x\""),
            release("b", &format!("@during(\"{second}\")"), condition)
        )
    };
    let finding =
        both_ways("meets-to-drop", &two("hash(id)", "band(id, 10)", ""), &two("band(id, 4)", "band(id, 10)", ""));
    assert!(finding.message.contains("`id`") && finding.level == Level::Note, "{}", finding.message);
    // they can't hold together
    both_ways(
        "meets-to-drop",
        &two("hash(id)", "band(id, 10)", ""),
        &two("hash(id)", "band(id, 10)", "context.purpose == \"y\""),
    );
    let one = release("a", "@during(\"band(age, 10)\")", "");
    let with = |floor: &str| {
        found_in(&one, "", floor, Some(&columns())).into_iter().map(|finding| finding.code).collect::<Vec<_>>()
    };
    assert_eq!((with("hash(age)"), with("hash(id)")), (vec!["meets-to-drop"], vec![]));
}

#[test]
fn slips_of_the_hand() {
    let when = |condition: &str| release("a", "", condition);
    both_ways("space-in-name", &when("context.region == \"CN -44\""), &when("context.region == \"CN-44\""));
    both_ways(
        "space-in-name",
        &when("principal.roles.contains(\"data user\")"),
        &when("principal.roles.contains(\"data_user\")"),
    );
    let group = "@id(\"a\") permit (principal in Group::\"the group\", action, resource);";
    both_ways("space-in-name", group, &group.replace("the group", "group"));
    both_ways("region-code", &when("context.region == \"cn\""), &when("context.region == \"CN\""));
    both_ways("number-as-text", &when("context.purpose == \"3\""), &when("context.purpose == \"3a\""));
    both_ways("unknown-code", &when("context.executionEnv == \"5\""), &when("context.executionEnv == \"05\""));
    both_ways(
        "unknown-code",
        &when("[\"02\", \"sealed\"].contains(context.encryptMode)"),
        &when("[\"02\", \"01\"].contains(context.encryptMode)"),
    );
    let hash = "a".repeat(64);
    both_ways(
        "unknown-code",
        &when("context.algorithm == \"sha\""),
        &when(&format!("context.algorithm == \"{hash}\"")),
    );
    let finding = both_ways(
        "unknown-column",
        &when("!context.dataField.contains(\"nmae\")"),
        &when("!context.dataField.contains(\"name\")"),
    );
    assert!(finding.message.contains("did you mean `name`"), "{}", finding.message);
    let until = |time: &str| when(&format!("context.now < datetime(\"{time}\")"));
    both_ways("over", &until("2026-03-01"), &until("2026-03-03"));
    both_ways("over", &until("2026-03-02T09:59:00+0800"), &until("2026-03-02T10:01:00+0800"));
}

#[test]
fn all_errors_are_said_each_at_its_place() {
    let text = "// 患者\n@id(\"a\") permit (principal, action, resource) when { context.purpos == \"x\" };\n\
                @id(\"b\") @durin(\"x\") permit (principal, action, resource);\n\
                permit (principal, action, resource);\n\
                @id(\"a\") @during(\"hash(agee)\") permit (principal, action, resource);\n\
                @id(\"fine\") permit (principal, action, resource);\n";
    let findings = found(text);
    let seen: Vec<_> = findings.iter().map(|f| (f.line, f.code, f.policy.as_deref())).collect();
    assert_eq!(
        seen,
        [
            (2, "invalid", Some("a")),
            (3, "unknown-annotation", Some("b")),
            (4, "no-id", None),
            (5, "id-twice", Some("a")),
            (5, "obligation", Some("a")),
        ]
    );
    assert!(findings.iter().all(|finding| finding.level == Level::Error && !finding.message_zh.is_ascii()));
    assert!(findings[2].message.contains("number 3"), "{}", findings[2].message);
    assert!(findings[4].message.contains("did you mean `age`"), "{}", findings[4].message);
    assert_eq!(found("permit (").len(), 1);
    assert_eq!(codes(""), ["no-policy"]);
    let floor = found_in(&release("a", "", ""), "", "hash(agee)", Some(&columns()));
    assert_eq!(floor.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["obligation"]);
    let twice = found_in(
        "@id(\"a\") permit (principal, action, resource);",
        "\n@id(\"a\") forbid (principal, action, resource);",
        "",
        None,
    );
    assert_eq!(
        twice.iter().map(|f| (f.file.as_str(), f.line, f.code)).collect::<Vec<_>>(),
        [("global.cedar", 2, "id-twice")]
    );
}

#[test]
fn without_columns_the_form_is_checked_and_that_is_said() {
    let text = release(
        "a",
        "@during(\"hash(any); year(day); band(n, 10); round(m, 2); filter(x > 3 and y = 'z'); keep(any, day)\")",
        "",
    );
    let codes = |text: &str| found_in(text, "", "", None).into_iter().map(|finding| finding.code).collect::<Vec<_>>();
    assert_eq!(codes(&text), ["rule-on-removed", "rule-on-removed", "columns-unknown"]);
    assert_eq!(codes(&release("a", "@during(\"hush(any)\")", "")), ["obligation"]);
    assert!(codes(&release("a", "", "")).is_empty(), "no column is named");
}

#[test]
fn every_code_is_documented() {
    let docs = include_str!("../../../../docs/policy/workbench.md");
    let mut codes = std::collections::BTreeSet::new();
    for source in [
        include_str!("../lint/mod.rs"),
        include_str!("../lint/errors.rs"),
        include_str!("../lint/conditions.rs"),
        include_str!("../lint/trust.rs"),
        include_str!("../lint/obligations.rs"),
        include_str!("../lint/slips.rs"),
        include_str!("../releases.rs"),
    ] {
        for text in source.split('"').skip(1).step_by(2) {
            let shaped = text.contains('-') && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
            codes.extend(shaped.then_some(text));
        }
    }
    assert!(codes.len() > 25, "{codes:?}");
    let missing: Vec<_> = codes.iter().filter(|code| !docs.contains(&format!("| `{code}` |"))).collect();
    assert!(missing.is_empty(), "not in docs/policy/workbench.md: {missing:?}");
}
