//! The template library: each template's rendered tests pass, and nothing that it renders is refused as an offer.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use counterseal::{
    offer::{Approval, OfferFile},
    policy::{
        Column, Columns, Verdict,
        template::{self, SlotType},
    },
};

use crate::cases::Cases;

#[test]
fn the_tests_of_every_template_pass_with_its_examples() {
    let mut failures = Vec::new();
    for template in template::library().unwrap() {
        let name = &template.about().id;
        let rendered = template.render(&template.examples()).unwrap();
        let cases = Cases::read(name, &rendered.policy, &rendered.tests);
        failures.extend(cases.failures().into_iter().map(|failure| format!("{name}: {failure}")));
        for kind in ["allow", "deny"] {
            if !cases.cases.iter().any(|case| case.expect.ends_with(kind)) {
                failures.push(format!("{name}: no case expects {kind}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The cases on both sides of a border move with it.
#[test]
fn the_tests_pass_with_other_numbers_too() {
    let mut failures = Vec::new();
    let mut changed = 0;
    for template in template::library().unwrap() {
        let mut values = template.examples();
        for slot in template.slots() {
            let other = |example: &str| match slot.kind {
                SlotType::Integer => Some((example.parse::<i64>().ok()? * 2 + 1).to_string()),
                SlotType::Decimal => Some(format!("1{example}")),
                SlotType::Duration if example.ends_with('D') => Some(example.replace("PT", "P").replace('P', "P1")),
                _ => None,
            };
            if let Some(value) = other(&slot.example) {
                changed += 1;
                values.insert(slot.name.clone(), value);
            }
        }
        let name = &template.about().id;
        let rendered = template.render(&values).unwrap_or_else(|error| panic!("{name}: {error}"));
        let cases = Cases::read(name, &rendered.policy, &rendered.tests);
        failures.extend(cases.failures().into_iter().map(|failure| format!("{name}: {failure}")));
    }
    assert!(changed > 25, "{changed} values");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A steward's columns have other names than the template's.
#[test]
fn the_tests_pass_for_other_columns_too() {
    let mut failures = Vec::new();
    for template in template::library().unwrap() {
        let name = template.about().id.clone();
        let renamed = |name: &str| format!("{name} 列");
        let columns = template.columns().iter().map(|column| Column { name: renamed(&column.name), kind: column.kind });
        let columns = Columns::new(columns.collect()).unwrap();
        let mut values = template.examples();
        for slot in template.slots().iter().filter(|slot| slot.kind == SlotType::Column) {
            let value = match serde_json::from_str::<Vec<String>>(&slot.example) {
                Ok(list) => serde_json::to_string(&list.iter().map(|one| renamed(one)).collect::<Vec<_>>()).unwrap(),
                Err(_) => renamed(&slot.example),
            };
            values.insert(slot.name.clone(), value);
        }
        let rendered = template.with_columns(columns).render(&values).unwrap_or_else(|error| panic!("{name}: {error}"));
        let cases = Cases::read(&name, &rendered.policy, &rendered.tests);
        failures.extend(cases.failures().into_iter().map(|failure| format!("{name}: {failure}")));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A policy that no case is decided by is one that nobody has tried.
#[test]
fn every_policy_of_every_template_decides_some_case() {
    let mut idle = Vec::new();
    for template in template::library().unwrap() {
        let rendered = template.render(&template.examples()).unwrap();
        let cases = Cases::read(&template.about().id, &rendered.policy, &rendered.tests);
        let deciding: BTreeSet<String> = cases
            .cases
            .iter()
            .map(|case| cases.slice.decide(&case.facts))
            .filter(|decision| decision.verdict != Verdict::DefaultDeny)
            .flat_map(|decision| decision.policies)
            .collect();
        let all: BTreeSet<String> = cases.slice.policy_ids().into_iter().collect();
        idle.extend(all.difference(&deciding).map(|id| format!("{}: {id}", template.about().id)));
    }
    assert!(idle.is_empty(), "{}", idle.join("\n"));
}

#[test]
fn every_rendered_offer_is_an_offer() {
    for template in template::library().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let rendered = template.render(&template.examples()).unwrap();
        fs::write(folder.path().join("policy.cedar"), &rendered.policy).unwrap();
        fs::write(folder.path().join("offer.toml"), &rendered.offer).unwrap();
        let loaded = OfferFile::load(&folder.path().join("offer.toml"));
        let (offer, policy) = loaded.unwrap_or_else(|error| panic!("{}: {error}", template.about().id));
        assert_eq!(policy, rendered.policy);
        let by_hand = template.about().id == "supply-demand";
        assert_eq!(offer.approval == Approval::Manual, by_hand, "{}", template.about().id);
    }
}

#[test]
fn every_template_stands_in_the_list_with_its_titles() {
    let list = include_str!("../../policies/templates/README.md");
    for template in template::library().unwrap() {
        let about = template.about();
        let row = list.lines().find(|line| line.starts_with(&format!("| [`{}`]", about.id))).unwrap_or_default();
        for needed in [&about.title, &about.title_zh, &about.description, &about.description_zh] {
            assert!(row.contains(needed), "{}: {needed}", about.id);
        }
    }
}

fn policy_new(folder: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_counterseal"))
        .current_dir(folder)
        .args(["policy", "new"])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn a_policy_is_made_by_the_command_and_never_overwrites_one() {
    let folder = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let output = policy_new(folder.path(), more);
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code(), out, err)
    };
    let (code, listed, _) = run(&["--list"]);
    assert_eq!(code, Some(0));
    assert!(listed.contains("green-finance") && listed.contains("粤港澳大湾区跨境流动"), "{listed}");

    // no terminal: what is missing is named, and nothing is written
    let (code, _, error) = run(&["count", "--set", "dataset=weather", "--out", "w"]);
    assert_eq!(code, Some(1));
    for needed in ["template-slot-missing", "`source`", "--set group=…", "--set times=…"] {
        assert!(error.contains(needed), "{needed}: {error}");
    }
    assert!(!folder.path().join("w").exists());

    let all = ["count", "--set", "dataset=weather", "--set", "source=weather.csv", "--set", "group=research"];
    let with = |more: &[&str]| run(&[&all, more].concat());
    let (code, out, error) = with(&["--set", "times=2", "--out", "w"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(out.contains("w/policy.test.toml"), "{out}");
    let policy = fs::read_to_string(folder.path().join("w/policy.cedar")).unwrap();
    assert!(policy.starts_with("//") && policy.contains("context.count < 2"), "{policy}");
    let tests = fs::read_to_string(folder.path().join("w/policy.test.toml")).unwrap();
    assert_eq!(Cases::read("w", &policy, &tests).failures(), Vec::<String>::new());

    let (code, _, error) = with(&["--set", "times=5", "--out", "w"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("file-exists"), "{error}");
    assert_eq!(fs::read_to_string(folder.path().join("w/policy.cedar")).unwrap(), policy, "as it was");
    let (code, _, _) = with(&["--set", "times=5", "--out", "w", "--force"]);
    assert_eq!(code, Some(0));
    assert!(fs::read_to_string(folder.path().join("w/policy.cedar")).unwrap().contains("context.count < 5"));

    let (code, _, error) = with(&["--set", "times=many", "--out", "v"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("`times` can't be `many`") && error.contains("at least 1"), "{error}");
}
