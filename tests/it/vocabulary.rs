//! The vocabulary's examples and pages: every name of it has an example that allows and one that denies, and stands in
//! the tables as the code has it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use counterseal::policy::{Action, ContextFact, FactKind, FactSource, Reach, Verdict};

use crate::cases::Cases;

/// The operators of TC609-6-2025-14 运算符.
const OPERATORS: [&str; 12] =
    ["eq", "gt", "gteq", "hasPart", "isA", "isAllOf", "isAnyOf", "isNoneOf", "isPartOf", "lt", "lteq", "neq"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn examples() -> BTreeMap<String, Cases> {
    let folder = root().join("policies/vocabulary");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(stem) = name.strip_suffix(".cedar") {
            let policy = fs::read_to_string(&path).unwrap();
            let test = fs::read_to_string(folder.join(format!("{stem}.test.toml")))
                .unwrap_or_else(|error| panic!("{stem}.test.toml: {error}"));
            found.insert(stem.to_owned(), Cases::read(stem, &policy, &test));
        }
    }
    found
}

fn denies(expect: &str) -> bool {
    matches!(expect, "deny" | "default-deny")
}

#[test]
fn every_example_decides_as_it_says() {
    let mut failures = Vec::new();
    for (name, cases) in examples() {
        failures.extend(cases.failures().into_iter().map(|failure| format!("{name}: {failure}")));
        for (kind, fits) in [("allow", (|e| e == "allow") as fn(&str) -> bool), ("deny", denies)] {
            if !cases.cases.iter().any(|case| fits(&case.expect)) {
                failures.push(format!("{name}: no case of it expects: {kind}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A denial is about the fact if the allowed case's value for it, and nothing else, turns it into an allow.
#[test]
fn every_fact_has_an_example_in_which_it_alone_makes_the_difference() {
    let examples = examples();
    let mut missing = Vec::new();
    for fact in ContextFact::ALL {
        let Some(example) = examples.get(fact.name()) else {
            missing.push(format!("{}: no policies/vocabulary/{}.cedar", fact.name(), fact.name()));
            continue;
        };
        let of = |fits: fn(&str) -> bool| example.cases.iter().filter(move |case| fits(&case.expect));
        let makes_the_difference = of(denies).any(|denied| {
            of(|expect| expect == "allow").filter(|case| case.facts.action == denied.facts.action).any(|allowed| {
                let mut facts = denied.facts.clone();
                let Some(value) = allowed.facts.context.get(&fact) else { return false };
                facts.context.insert(fact, value.clone());
                example.slice.decide(&facts).verdict == Verdict::Allow
            })
        });
        if !makes_the_difference {
            missing.push(format!("{}: no denial that this fact alone turns into an allow", fact.name()));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_action_is_allowed_in_one_example_and_denied_in_another() {
    let examples = examples();
    let families = || examples.iter().filter(|(name, _)| name.starts_with("action-")).flat_map(|(_, of)| &of.cases);
    let missing: Vec<&str> = Action::all()
        .filter(|action| {
            let has =
                |fits: fn(&str) -> bool| families().any(|case| case.facts.action == *action && fits(&case.expect));
            !has(|expect| expect == "allow") || !has(denies)
        })
        .map(Action::as_str)
        .collect();
    assert!(missing.is_empty(), "without an allow and a deny: {missing:?}");
}

#[test]
fn every_operator_and_attribute_has_its_example() {
    let examples = examples();
    let missing: Vec<String> = OPERATORS
        .iter()
        .map(|operator| format!("operator-{operator}"))
        .chain(["participant", "dataset", "parents", "before", "during", "after", "match"].map(str::to_owned))
        .filter(|name| !examples.contains_key(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The row of a table that begins with this name.
fn row<'a>(page: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let start = format!("| `{name}` |");
    let line = page.lines().find(|line| line.starts_with(&start))?;
    Some(line.split(" | ").map(|cell| cell.trim_matches(['|', ' ', '`'])).collect())
}

#[test]
fn the_pages_say_of_each_fact_and_action_what_the_code_says() {
    let page = |name: &str| fs::read_to_string(root().join("docs/policy").join(name)).unwrap();
    let (facts, actions) = (page("facts.md"), page("actions.md"));
    let mut wrong = Vec::new();
    for fact in ContextFact::ALL {
        let kind = match fact.kind() {
            FactKind::Text => "String",
            FactKind::Long => "Long",
            FactKind::Time => "datetime",
            FactKind::Span => "duration",
            FactKind::Decimal => "decimal",
            FactKind::Ip => "ipaddr",
            FactKind::Texts => "Set<String>",
            FactKind::Frequency => "Frequency",
            FactKind::Spent => "Spent",
        };
        let source = match fact.source() {
            FactSource::Verified => "verified 已验证",
            FactSource::Operator => "operator 运营方登记",
            FactSource::Declared => "declared 自行声明",
        };
        let has = row(&facts, fact.name()).unwrap_or_default();
        for needed in [fact.zh(), kind, source] {
            if !has.contains(&needed) {
                wrong.push(format!("docs/policy/facts.md: {}: no cell `{needed}`", fact.name()));
            }
        }
    }
    for action in Action::all() {
        let who = match action {
            Action::Use(action) if action.reach() == Reach::Promise => "promise 承诺",
            Action::Use(_) => "vault 数据保险箱",
            _ => "provider 提供方",
        };
        let has = row(&actions, action.as_str()).unwrap_or_default();
        for needed in [action.zh(), who] {
            if !has.contains(&needed) {
                wrong.push(format!("docs/policy/actions.md: {}: no cell `{needed}`", action.as_str()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_link_of_the_pages_leads_to_a_file() {
    let mut pages: Vec<PathBuf> =
        fs::read_dir(root().join("docs/policy")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.extend(["policies/README.md", "policies/templates/README.md"].map(|page| root().join(page)));
    let mut broken = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap();
            if !target.is_empty() && !target.contains("://") && !page.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
