//! The node's own life in its receipts: starts, stops, changes, who acted; and anchors.

use std::{fs, path::Path, sync::Arc, time::Duration};

use counterseal::{
    cli::data_folder,
    exchange::{Erasure, UseRequest},
    time::{Clock as _, ManualClock, SystemClock},
};
use serde_json::Value;

use crate::{
    house::{House, agreed, paired},
    locks::{start_with, wanted},
};

fn kinds(house: &House) -> Vec<(String, Value)> {
    let list = house.json(&["receipt", "list", "--limit", "1000"]);
    let receipts = list.as_array().unwrap().iter();
    receipts
        .map(|stored| (stored["receipt"]["kind"].as_str().unwrap().to_owned(), stored["receipt"].clone()))
        // a free port at each start is another endpoint in our statement
        .filter(|(kind, _)| kind != "rotated")
        .collect()
}

fn last_of(house: &House, kind: &str) -> Value {
    kinds(house).into_iter().rfind(|(found, _)| found == kind).unwrap_or_else(|| panic!("no {kind}")).1
}

#[test]
fn starts_stops_and_changes_are_receipts_so_that_a_gap_shows() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::new(folder.path(), "solo");
    house.serve();
    assert_eq!(last_of(&house, "started")["reason"], Value::Null, "the first start");
    let first = last_of(&house, "configured");
    assert_eq!(first["commitments"].as_object().unwrap().len(), 2, "{first}");
    house.stop();
    house.serve();
    // nothing was changed, and the stop is on record
    let all = kinds(&house);
    assert_eq!(
        all.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>(),
        ["started", "configured", "stopped", "started"]
    );
    house.kill();
    house.write(
        "all.cedar",
        "@id(\"never\") forbid (principal, action, resource) when { context.purpose == \"spam\" };",
    );
    let with_policies = [("COUNTERSEAL_POLICY_GLOBAL", "all.cedar")];
    house.serve_with(&[], &with_policies);
    assert_eq!(last_of(&house, "started")["reason"]["code"], "stop-unclean");
    let changed = last_of(&house, "configured");
    let named: Vec<&String> = changed["commitments"].as_object().unwrap().keys().collect();
    assert_eq!(named, ["configuration", "policy"]);
    house.stop();
    house.write("all.cedar", "");
    house.serve_with(&[], &with_policies);
    let changed = last_of(&house, "configured");
    assert_eq!(changed["commitments"].as_object().unwrap().keys().collect::<Vec<_>>(), ["policy"], "only the policies");
    assert!(!changed.to_string().contains("never"), "no values");
}

#[test]
fn who_acted_is_committed_to_and_shown_to_whom_the_exporter_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let (hospital, research) = paired(folder.path());
    let agreement = agreed(&hospital, &research);
    let output = crate::house::command(&research.home, &["fetch", &agreement, "--purpose", "research"])
        .env("COUNTERSEAL_OPERATOR", "李 Wei\u{1b}[31m")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let acknowledged = last_of(&research, "acknowledged");
    assert!(acknowledged["commitments"]["operator"].is_string(), "{acknowledged}");
    assert!(!acknowledged.to_string().contains("Wei"), "the name is not in the receipt");
    // the provider's connector acted by itself
    assert!(last_of(&hospital, "released")["commitments"]["operator"].is_null());
    let shown = research.path("shown");
    research.json(&["receipt", "export", "--out", &shown]);
    let text = fs::read_to_string(research.home.join("shown/receipts.jsonl")).unwrap();
    assert!(
        text.contains("李 Wei[31m") && text.contains("operator"),
        "salt and text are there for whoever may see them"
    );
    let hidden = research.path("hidden");
    research.json(&["receipt", "export", "--without-contents", "--out", &hidden]);
    assert!(!fs::read_to_string(research.home.join("hidden/receipts.jsonl")).unwrap().contains("Wei"));
}

#[test]
fn the_log_is_anchored_where_the_operator_says_and_a_stamp_convicts_a_rewritten_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::new(folder.path(), "solo");
    let anchors = folder.path().join("anchors");
    let place = anchors.display().to_string();
    house.serve_with(&[], &[("COUNTERSEAL_ANCHOR_FOLDER", &place), ("COUNTERSEAL_ANCHOR_EVERY_SECONDS", "0")]);
    let stamped = || fs::read_dir(&anchors).map_or(0, Iterator::count);
    for _ in 0..400 {
        if stamped() > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    assert!(stamped() > 0, "the timer had it stamped");
    let export = house.path("export");
    house.json(&["receipt", "export", "--out", &export]);
    let lines = fs::read_to_string(house.home.join("export/anchors.jsonl")).unwrap();
    let anchor: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let kept: Value = serde_json::from_slice(&fs::read(anchors.join("1.json")).unwrap()).unwrap();
    assert_eq!(anchor["stamp"], kept, "what is exported is what the folder holds");
    assert_eq!(house.run(&["receipt", "verify", &export]).status.code(), Some(3));
    // another note under the stamp
    let note = anchor["note"].as_str().unwrap();
    let forged =
        lines.replace(&note.replace('\n', "\\n"), &note.replacen("did:web", "did:wab", 1).replace('\n', "\\n"));
    fs::write(house.home.join("export/anchors.jsonl"), forged).unwrap();
    let output = house.run(&["receipt", "verify", &export]);
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8(output.stdout).unwrap().contains("[anchor-broken]"));
}

fn holds(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().flatten().any(|entry| match entry.path() {
        path if path.is_dir() => holds(&path, bytes),
        path => fs::read(path).unwrap().windows(bytes.len()).any(|window| window == bytes),
    })
}

#[test]
fn what_is_erased_can_not_be_found_by_trying_and_exports_still_verify() {
    let folder = tempfile::tempdir().unwrap();
    let (mut hospital, mut research) = paired(folder.path());
    let agreement = agreed(&hospital, &research);
    let output = crate::house::command(&research.home, &["fetch", &agreement, "--purpose", "research"])
        .env("COUNTERSEAL_OPERATOR", "Ouyang Xiaomeng")
        .output()
        .unwrap();
    assert!(output.status.success());
    let first = research.path("first");
    research.json(&["receipt", "export", "--agreement", &agreement, "--out", &first]);
    let lines = fs::read_to_string(research.home.join("first/receipts.jsonl")).unwrap();
    let with = lines.lines().find(|line| line.contains("Ouyang")).unwrap();
    let with: Value = serde_json::from_str(with).unwrap();
    let salt = counterseal::crypto::unb64(with["contents"]["operator"]["salt"].as_str().unwrap()).unwrap();
    let store = research.home.join("store");
    assert!(holds(&store, &salt) && holds(&store, b"Ouyang"), "it was there");
    let (code, _) = research.refused(&["receipt", "erase", "--receipt", "urn:uuid:none", "--reason", "x"]);
    assert_eq!(code, "receipt-unknown");
    let erased = research.json(&["receipt", "erase", "--agreement", &agreement, "--reason", "she asked for it"]);
    assert!(erased["erased"].as_u64().unwrap() >= 2, "{erased}");
    let record = last_of(&research, "deleted");
    assert_eq!((&record["reason"]["code"], &record["series"]), (&"contents-erased".into(), &"node".into()));
    let again = research.json(&["receipt", "erase", "--agreement", &agreement, "--reason", "again"]);
    assert_eq!(again["erased"], 0, "nothing twice");
    let second = research.path("second");
    research.json(&["receipt", "export", "--agreement", &agreement, "--out", &second]);
    let trust = [hospital.path("invitation.json"), research.path("invitation.json")];
    let verified = research.run(&["receipt", "verify", &second, "--trust", &trust[0], "--trust", &trust[1]]);
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    hospital.stop();
    research.stop();
    // neither the name nor the salt, without which no list of names can be tried against the commitment
    assert!(!holds(&store, b"Ouyang") && !holds(&store, &salt));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_class_is_kept_for_its_time_and_not_longer() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let change = |config: &mut counterseal::config::Config| {
        config.retention.decisions_days = 10;
        config.retention.refusals_days = 2;
    };
    let provider = start_with(folder.path(), "p", clock.clone(), None, change).await;
    let consumer = start_with(folder.path(), "c", clock.clone(), None, change).await;
    provider.add(&consumer).await;
    consumer.add(&provider).await;
    fs::write(data_folder(&provider.home).join("d.csv"), "id,age\n1,38\n").unwrap();
    provider
        .publish_as_it_lies(
            "@id(\"see\") permit (principal, action in [Action::\"discover\", Action::\"negotiate\", Action::\"release\"], resource);
             @id(\"read\") permit (principal, action == Action::\"read\", resource) when { context.purpose == \"research\" };",
        )
        .await;
    let agreement = consumer.agree(&provider).await;
    consumer.fetch(wanted(&agreement)).await.unwrap();
    let exchange = &consumer.node.exchange;
    for purpose in ["research", "marketing"] {
        let request = UseRequest { of: "d".into(), purpose: purpose.into(), action: "read".into(), application: None };
        assert_eq!(exchange.use_copy(&request).await.is_ok(), purpose == "research");
    }
    let shown = async |purpose: &str| {
        let bundle = exchange.export(Default::default(), true).await.unwrap();
        bundle.receipts.iter().any(|one| one.contents.get("purpose").is_some_and(|content| content.text == purpose))
    };
    let retained = async |purpose: &'static str, kept: bool| {
        for _ in 0..1600 {
            if shown(purpose).await == kept {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("`{purpose}` is {}there", if kept { "not " } else { "still " });
    };
    assert!(shown("research").await && shown("marketing").await);
    clock.advance(Duration::from_secs(3 * 86_400));
    retained("marketing", false).await;
    assert!(shown("research").await, "another class");
    clock.advance(Duration::from_secs(8 * 86_400));
    retained("research", false).await;
    let vague = Erasure { receipt: None, agreement: None, peer: None, reason: "x".into() };
    assert!(exchange.erase(&vague).await.unwrap_err().is("erasure-vague"));
}
