//! The workbench beside a running connector: decisions on record explained and decided again, leaks traced.

use std::{fmt::Write as _, fs, path::Path};

use serde_json::Value;

use crate::house::{House, pair};

const POLICY: &str = "@id(\"see\") permit (principal, action in [Action::\"discover\", Action::\"negotiate\"], resource);
@id(\"get\") @during(\"hash(person); watermark(weight, visit)\") permit (principal, action == Action::\"release\", resource) when { context.purpose == \"research\" && context.count < 2 };
@id(\"read\") permit (principal, action == Action::\"read\", resource);";
const ROWS: usize = 20_000;

/// A hospital that offers `rows` openly, and two who may have it.
fn three(folder: &Path, policy: &str, rows: usize) -> (House, House, House) {
    let [mut hospital, mut lab, mut bank] = ["hospital", "lab", "bank"].map(|name| House::new(folder, name));
    for house in [&mut hospital, &mut lab, &mut bank] {
        house.serve();
    }
    pair(&hospital, &lab);
    pair(&hospital, &bank);
    let mut csv = "person,visit,weight\n".to_owned();
    for visit in 0..rows {
        let _ = writeln!(csv, "p{},{visit},{}.{}", visit / 3, 40 + visit * 7 % 60, 2 + visit % 7);
    }
    fs::write(hospital.data("rows.csv"), csv).unwrap();
    hospital.write("rows.cedar", policy);
    let offer = "id = \"o\"\n[dataset]\nid = \"rows\"\ntitle = \"Rows\"\nsource = \"rows.csv\"\n[policy]\nfile = \"rows.cedar\"\n";
    hospital.json(&["offer", "publish", &hospital.write("offer.toml", offer)]);
    (hospital, lab, bank)
}

fn agree(house: &House, hospital: &House) -> String {
    house.json(&["negotiate", &hospital.did, "rows"])["agreement"].as_str().unwrap().to_owned()
}

fn receipt(house: &House, kind: &str) -> String {
    let listed = house.json(&["receipt", "list", "--kind", kind]);
    listed.as_array().unwrap().last().unwrap()["receipt"]["id"].as_str().unwrap().to_owned()
}

/// A tenth of a copy's rows, backwards.
fn worn(copy: &str) -> String {
    let (header, rows) = copy.split_once('\n').unwrap();
    let mut rows: Vec<&str> = rows.lines().collect();
    rows.retain(|row| row.bytes().map(u32::from).sum::<u32>() % 10 == 3);
    rows.sort_unstable_by(|a, b| b.cmp(a));
    assert!(rows.len() > 500, "{}", rows.len());
    format!("{header}\n{}\n", rows.join("\n"))
}

#[test]
fn a_leak_names_the_recipient_whose_copy_it_was_and_an_outsiders_file_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (hospital, lab, bank) = three(folder.path(), POLICY, ROWS);
    let mut agreements = Vec::new();
    for house in [&lab, &bank] {
        agreements.push(agree(house, &hospital));
        house.json(&["fetch", agreements.last().unwrap(), "--purpose", "research"]);
    }
    let copy = lab.ok(&["use", "rows", "--purpose", "research"]);
    let released = receipt(&hospital, "released");
    let trace = |name: &str, text: &str, how: &[&str]| -> Value {
        let leak = hospital.write(name, text);
        hospital.json(&[&["policy", "trace", &leak], how].concat())
    };
    let names = |traced: &Value| -> Vec<String> {
        let named = traced["named"].as_array().unwrap();
        named.iter().map(|one| one["participant"].as_str().unwrap().to_owned()).collect()
    };
    // by pseudonyms: certain
    let whole = trace("leak.csv", &worn(&copy), &["--dataset", "rows"]);
    assert_eq!(names(&whole), [lab.did.as_str()], "{whole}");
    assert!(whole["named"][0]["certain"] == true && whole["named"][0]["agreement"] == agreements[0], "{whole}");
    assert_eq!(whole["named"][0]["releases"].as_array().unwrap().len(), 1);
    assert_eq!((whole["candidates"].as_array().unwrap().len(), whole["untraceable"].as_array().unwrap().len()), (2, 0));
    // by marks alone, the pseudonyms cut out
    let cut: String = worn(&copy).lines().map(|line| format!("{}\n", line.split_once(',').unwrap().1)).collect();
    let marked = trace("cut.csv", &cut, &["--offer", "o"]);
    assert_eq!(names(&marked), [lab.did.as_str()], "{marked}");
    let named = &marked["named"][0];
    assert!(named["certain"] == false && named["chanceLog10"].as_f64().unwrap() < -30.0, "{named}");
    let other = &marked["candidates"].as_array().unwrap().iter().find(|one| one["participant"] != lab.did.as_str());
    assert!(other.unwrap()["chanceLog10"].as_f64().unwrap() > -5.0, "{other:?}");
    // what nobody got from here names nobody
    let raw = fs::read_to_string(hospital.data("rows.csv")).unwrap();
    assert!(names(&trace("raw.csv", &raw, &["--dataset", "rows"])).is_empty());
    let shown = hospital.ok(&["policy", "trace", &hospital.path("raw.csv"), "--dataset", "rows"]);
    assert!(shown.starts_with("nobody can be named, of 2 recipients"), "{shown}");
    let shown = hospital.ok(&["policy", "trace", &hospital.path("leak.csv"), "--dataset", "rows", "--lang", "zh"]);
    assert!(shown.starts_with(&format!("此文件来自 {}", lab.did)), "{shown}");
    // the source replaced: marks still tell, and that pseudonyms can't is said
    fs::write(hospital.data("rows.csv"), "person,visit,weight\np1,1,1.5\n").unwrap();
    let replaced = trace("leak.csv", &worn(&copy), &["--dataset", "rows"]);
    assert_eq!(names(&replaced), [lab.did.as_str()], "{replaced}");
    assert!(replaced["named"][0]["certain"] == false, "{replaced}");
    assert!(replaced["notes"][0].as_str().unwrap().contains("replaced since the release"), "{replaced}");

    let refused = |args: &[&str]| hospital.refused(&[&["policy", "trace"], args].concat()).0;
    let leak = hospital.path("leak.csv");
    assert_eq!(refused(&[&leak, "--dataset", "nothing"]), "dataset-unknown");
    assert_eq!(refused(&[&leak, "--offer", "nothing"]), "offer-unknown");
    assert_eq!(refused(&[&hospital.path("offer.toml"), "--dataset", "rows", "--format", "jsonl"]), "leak-unreadable");
    assert_eq!(
        refused(&[&hospital.home.display().to_string(), "--dataset", "rows", "--format", "csv"]),
        "leak-unreadable"
    );
    // a steward's act: the operator's token is not enough
    fs::copy(hospital.home.join("operator.token"), hospital.home.join("steward.token")).unwrap();
    assert_eq!(refused(&[&leak, "--dataset", "rows"]), "steward-required");
    assert!(!released.is_empty());
}

#[test]
fn decisions_on_record_are_explained_and_decided_again_by_a_new_policy() {
    let folder = tempfile::tempdir().unwrap();
    let (hospital, lab, bank) = three(folder.path(), POLICY, 10);
    let agreement = agree(&lab, &hospital);
    for _ in 0..2 {
        lab.json(&["fetch", &agreement, "--purpose", "research", "--another"]);
    }
    lab.refused(&["fetch", &agreement, "--purpose", "marketing", "--another"]);
    lab.ok(&["use", "rows", "--purpose", "research"]);
    let other = agree(&bank, &hospital);
    bank.json(&["fetch", &other, "--purpose", "research"]);

    // explained: released, denied, negotiated; used at the consumer
    let explain = |house: &House, kind: &str| house.json(&["policy", "explain", "--receipt", &receipt(house, kind)]);
    let told = explain(&hospital, "released");
    assert_eq!((&told["verdict"], &told["deciding"]), (&"allow".into(), &serde_json::json!(["get"])), "{told}");
    assert_eq!(told["obligations"], serde_json::json!(["hash(person)", "watermark(weight, visit)"]));
    let told = explain(&hospital, "denied");
    assert_eq!(told["verdict"], "default-deny");
    assert!(told["policies"][0]["sentence"]["en"].as_str().unwrap().contains("purpose is \"marketing\""), "{told}");
    assert_eq!(explain(&hospital, "negotiated")["action"], "negotiate");
    assert_eq!(explain(&lab, "used")["action"], "read");
    let text = hospital.ok(&["policy", "explain", "--receipt", &receipt(&hospital, "denied"), "--lang", "zh"]);
    assert!(text.starts_with("默认拒绝"), "{text}");
    let refused = |args: &[&str]| hospital.refused(&[&["policy"], args].concat());
    assert_eq!(refused(&["explain", "--receipt", &receipt(&hospital, "agreed")]).0, "receipt-undecided");
    let nothing = "urn:uuid:0190a000-0000-7000-8000-000000000000";
    assert_eq!(refused(&["explain", "--receipt", nothing]).0, "receipt-unknown");

    // decided again: by the same policy, the same
    let simulate = |name: &str, policy: &str, more: &[&str]| -> Value {
        let file = hospital.write(name, policy);
        hospital.json(&[&["policy", "simulate", &file], more].concat())
    };
    let same = simulate("same.cedar", POLICY, &["--offer", "o"]);
    let decided = same["requests"].as_u64().unwrap();
    assert!(decided >= 6 && same["same"] == decided, "{same}");
    // stricter: the second release would not have been
    let stricter = POLICY.replace("count < 2", "count < 1");
    let found = simulate("stricter.cedar", &stricter, &["--offer", "o"]);
    assert_eq!(found["differing"].as_array().unwrap().len(), 1, "{found}");
    let group = &found["differing"][0];
    assert_eq!((&group["then"]["verdict"], &group["now"]["verdict"]), (&"allow".into(), &"default-deny".into()));
    assert_eq!((&group["count"], &group["receipts"][0]["agreement"]), (&1.into(), &agreement.as_str().into()));
    assert!(!group["receipts"].to_string().contains("research"), "receipts are told without their purpose");
    assert_eq!(simulate("stricter.cedar", &stricter, &["--agreement", &other])["differing"], serde_json::json!([]));
    // wider: what was refused would have been released; the floor given here counts
    let wider = POLICY.replace("context.purpose == \"research\" && context.count < 2", "context.count < 9");
    let found = simulate("wider.cedar", &wider, &["--agreement", &agreement, "--floor", "drop(person)"]);
    let groups = found["differing"].as_array().unwrap();
    let seen: Vec<(&Value, &Value, u64)> = groups
        .iter()
        .map(|group| (&group["then"]["verdict"], &group["now"]["obligations"][0], group["count"].as_u64().unwrap()))
        .collect();
    let drop = &Value::from("drop(person)");
    assert_eq!(seen, [(&"allow".into(), drop, 2), (&"default-deny".into(), drop, 1)], "{found}");
    let file = hospital.path("stricter.cedar");
    let text = hospital.ok(&["policy", "simulate", &file, "--offer", "o"]);
    assert!(
        text.contains("1 × release: allow → default-deny") && text.contains("`context.count < 1` is not so"),
        "{text}"
    );
    let text = hospital.ok(&["policy", "simulate", &hospital.path("offer.toml"), "--lang", "zh"]);
    assert!(text.contains("0 个不同"), "{text}");
    // a fact that nobody looked at
    let regional = POLICY.replace("context.count < 2", "context.count < 2 && context.region == \"CN-44\"");
    let found = simulate("regional.cedar", &regional, &["--offer", "o"]);
    assert_eq!(found["unsaid"][0]["code"], "fact-not-looked-at", "{found}");
    let late = simulate("late.cedar", &regional, &["--offer", "o", "--since", "2999-01-01T00:00:00Z"]);
    assert_eq!(late["requests"], 0);
    assert_eq!(refused(&["simulate", &file, "--offer", "nothing"]).0, "offer-unknown");

    // erased: refused, and counted
    hospital.json(&["receipt", "erase", "--agreement", &agreement, "--reason", "asked for"]);
    let (code, sentence) = refused(&["explain", "--receipt", &receipt(&hospital, "denied")]);
    assert!(code == "contents-erased" && sentence.contains("was erased"), "{sentence}");
    let found = simulate("stricter.cedar", &stricter, &["--agreement", &agreement]);
    assert!(found["differing"] == serde_json::json!([]) && found["unsaid"][0]["code"] == "contents-erased", "{found}");
}
