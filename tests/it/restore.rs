//! Backups: made while the connector runs, without a key in them, and put back without a partner's alarm or a count given
//! back.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::house::{House, pair};

const THRICE: &str =
    "@id(\"see\") permit (principal, action in [Action::\"discover\", Action::\"negotiate\"], resource);
@id(\"thrice\") permit (principal, action == Action::\"release\", resource) when { context.count < 3 };
@id(\"read\") permit (principal, action == Action::\"read\", resource) when { READS };";

/// Two that know each other and are found where they were when they start again.
fn settled(folder: &Path) -> (House, House) {
    let (mut hospital, mut research) = (House::new(folder, "hospital"), House::new(folder, "research"));
    for house in [&mut hospital, &mut research] {
        house.serve();
        house.settle();
    }
    pair(&hospital, &research);
    (hospital, research)
}

fn publish(hospital: &House, id: &str) {
    fs::write(hospital.data(&format!("{id}.csv")), "id,age\n1,38\n2,41\n").unwrap();
    // one way of counting, and the other
    let counted = if id == "d" { "context.subject.total.count" } else { "context.count" };
    // two records in each: three uses, by what they were about and by their number
    let reads = if id == "d" { "context.subject.total.records < 5" } else { "context.count < 3" };
    hospital.write("p.cedar", &THRICE.replace("context.count", counted).replace("READS", reads));
    let offer = hospital.write(
        "o.toml",
        &format!(
            "id = \"{id}\"\n[dataset]\nid = \"{id}\"\ntitle = \"{id}\"\nsource = \"{id}.csv\"\n[policy]\nfile = \"p.cedar\"\n"
        ),
    );
    hospital.ok(&["offer", "publish", &offer]);
}

fn agree(hospital: &House, research: &House, dataset: &str) -> String {
    let answer = research.json(&["negotiate", &hospital.did, dataset]);
    answer["agreement"].as_str().unwrap().to_owned()
}

fn until(house: &House, what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "not yet: {what}\n{}", house.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn restoring(house: &House) -> Vec<Value> {
    house.json(&["status"])["restoring"].as_array().unwrap().clone()
}

/// Every file below, whole.
fn contents(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        all.extend(if path.is_dir() { contents(&path) } else { fs::read(&path).unwrap() });
    }
    all
}

fn lose_store(house: &House) {
    fs::rename(house.home.join("store"), house.home.join("store.lost")).unwrap();
}

fn no_alarms(houses: [&House; 2]) {
    for house in houses {
        assert_eq!(house.json(&["status"])["alarms"], Value::Array(vec![]), "{}", house.did);
    }
}

#[test]
fn a_restored_provider_goes_on_in_a_new_log_and_gives_no_count_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut hospital, mut research) = settled(folder.path());
    publish(&hospital, "d");
    publish(&hospital, "e");
    let (kept, ended) = (agree(&hospital, &research, "d"), agree(&hospital, &research, "e"));
    let fetch = |agreement: &str| ["fetch".to_owned(), agreement.to_owned(), "--purpose".into(), "research".into()];
    let fetched = |agreement: &str| {
        let args = fetch(agreement);
        research.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    };
    fetched(&kept);
    // a consent that may be withdrawn after the backup, an approver who may be removed
    let consent = ["--participant", "did:web:research.invalid", "--dataset", "d", "--reference", "archive/1"];
    hospital.ok(&[&["consent", "record", "credit"][..], &consent].concat());
    let token = folder.path().join("li.token").display().to_string();
    hospital.ok(&["approver", "add", "li", "--role", "board", "--token-out", &token]);
    assert!(
        hospital.json(&["consent", "list"])[0]["name"] == "credit"
            && hospital.json(&["approver", "list"])[0]["name"] == "li"
    );
    let backup = folder.path().join("backup").display().to_string();
    hospital.ok(&["backup", "--out", &backup]);

    // lost with the store: a release that counts, and an end
    fetched(&kept);
    hospital.ok(&["agreement", "revoke", &ended, "--reason", "over"]);
    until(&hospital, "the partner has cosigned what will be lost", || {
        let log = hospital.json(&["status"])["log"].clone();
        log["witnesses"][0]["cosigned"] == log["size"]
    });
    let lost = hospital.json(&["status"])["log"]["size"].as_u64().unwrap();
    hospital.kill();

    // not over what is there
    let (code, _) = hospital.refused(&["restore", "from", &backup, "--accept"]);
    assert_eq!(code, "restore-home");
    lose_store(&hospital);
    // looked at first, and nothing is done
    let looked = hospital.run(&["restore", "from", &backup]);
    assert_eq!(looked.status.code(), Some(1));
    let said = String::from_utf8_lossy(&looked.stdout).into_owned();
    assert!(said.contains("did:web:research.invalid") && said.contains("live offers   d, e"), "{said}");
    assert!(!hospital.home.join("store").exists());
    hospital.ok(&["restore", "from", &backup, "--accept"]);
    hospital.serve();
    until(&hospital, "the partner has said what it knows", || restoring(&hospital).is_empty());

    for gone in ["consent", "approver"] {
        assert_eq!(hospital.json(&[gone, "list"]), serde_json::json!([]), "nobody can say whether it still stands");
    }
    let status = hospital.json(&["status"]);
    let log = status["log"]["origin"].as_str().unwrap();
    let epoch: u64 = log.strip_prefix("did:web:hospital.invalid/log/").unwrap().parse().unwrap();
    assert!(epoch > 1_700_000_000, "{epoch}");
    let states = hospital.json(&["agreement", "list"]);
    let state = |id: &str| states.as_array().unwrap().iter().find(|row| row["id"] == id).unwrap()["state"].clone();
    assert_eq!((state(&kept), state(&ended)), ("active".into(), "revoked".into()));
    fetched(&kept);
    let args = fetch(&kept);
    let (code, sentence) = research.refused(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code, "policy-no-permit", "three were spent, one of them lost with the store: {sentence}");
    until(&hospital, "the new log is cosigned", || {
        let log = hospital.json(&["status"])["log"].clone();
        log["witnesses"][0]["cosigned"] == log["size"]
    });
    no_alarms([&hospital, &research]);

    // both logs verify, and the halves of both fit
    let [before, after, theirs] = ["before", "after", "theirs"].map(|name| folder.path().join(name));
    let [before, after, theirs] = [&before, &after, &theirs].map(|path| path.display().to_string());
    hospital.ok(&["receipt", "export", "--epoch", "1", "--out", &before]);
    hospital.ok(&["receipt", "export", "--out", &after]);
    research.ok(&["receipt", "export", "--out", &theirs]);
    let trust = [hospital.path("invitation.json"), research.path("invitation.json")];
    let trusted = ["--trust", &trust[0], "--trust", &trust[1]];
    for export in [&before, &after, &theirs] {
        let args: Vec<&str> = ["receipt", "verify", export].into_iter().chain(trusted).collect();
        hospital.ok(&args);
    }
    let reconciled = |exports: &[&str]| {
        let args: Vec<&str> = ["--json", "receipt", "reconcile"].into_iter().chain(exports.iter().copied()).collect();
        let output = hospital.run(&args.into_iter().chain(trusted).collect::<Vec<_>>());
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.success(), verdict["findings"] == Value::Array(vec![]), "{verdict}");
        verdict
    };
    let all = reconciled(&[&before, &after, &theirs]);
    assert_eq!(all["findings"], Value::Array(vec![]));
    assert_eq!(all["recovered"], 3, "released, delivered, revoked");
    // who shows only the log that suits it is found out, and accused of nothing else
    for part in [[after.as_str(), &theirs], [&before, &theirs]] {
        let found = reconciled(&part)["findings"].clone();
        let codes: Vec<&str> = found.as_array().unwrap().iter().map(|one| one["code"].as_str().unwrap()).collect();
        assert!(codes.contains(&"log-not-exported"), "{found}");
        assert!(!codes.contains(&"key-withheld") && !codes.contains(&"count-differs"), "{found}");
    }
    // what was lost is said by both: the provider names what its partner had cosigned of the old log
    let restored = hospital.json(&["receipt", "list", "--kind", "restored"]);
    let restored = restored.as_array().unwrap();
    assert_eq!(restored.len(), 2);
    assert_eq!(restored[0]["number"], 0);
    assert_eq!(restored[1]["receipt"]["priorLog"]["size"], lost);
    assert!(restored[0]["receipt"]["priorLog"]["size"].as_u64().unwrap() < lost);
    assert_eq!(restored[1]["receipt"]["counted"], 3, "released, delivered, revoked");
    assert_eq!(research.json(&["receipt", "list", "--kind", "restored"]).as_array().unwrap().len(), 1);

    // the old store, found again: it is not this connector any more
    hospital.stop();
    fs::rename(hospital.home.join("store"), hospital.home.join("store.new")).unwrap();
    fs::rename(hospital.home.join("store.lost"), hospital.home.join("store")).unwrap();
    hospital.serve();
    until(&hospital, "it learns that it is the past", || {
        hospital.json(&["status"])["log"]["behind"]["code"] == "log-behind"
    });
    no_alarms([&hospital, &research]);
    research.stop();
}

#[test]
fn a_restored_consumer_waits_for_what_its_provider_knows_or_for_a_steward() {
    let folder = tempfile::tempdir().unwrap();
    let (mut hospital, mut research) = settled(folder.path());
    publish(&hospital, "d");
    let agreement = agree(&hospital, &research, "d");
    research.ok(&["fetch", &agreement, "--purpose", "research"]);
    let read = ["use", "d", "--purpose", "research"];
    research.ok(&read);
    let backup = folder.path().join("backup").display().to_string();
    research.ok(&["backup", "--out", &backup]);

    // neither the vault's keys nor the home's are in it
    let all = contents(Path::new(&backup));
    let mut keys = Vec::new();
    for folder in [research.home.join("keys"), research.home.join("vault"), research.home.join("tokens")] {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let inside = if path.is_dir() { vec![path.join("copy.key")] } else { vec![path] };
            keys.extend(inside.into_iter().filter_map(|path| fs::read(path).ok()));
        }
    }
    keys.extend(["operator.token", "steward.token"].map(|name| fs::read(research.home.join(name)).unwrap()));
    assert!(keys.len() >= 11, "{} keys", keys.len());
    for key in keys {
        let key = key.trim_ascii();
        assert!(!all.windows(key.len()).any(|window| window == key), "a secret of {} bytes", key.len());
    }

    research.ok(&read);
    let used = |house: &House| house.json(&["receipt", "list", "--kind", "used"]).as_array().unwrap().len();
    assert_eq!(used(&research), 2);
    until(&research, "the provider has both halves", || {
        let export = folder.path().join(format!("e{}", fs::read_dir(folder.path()).unwrap().count()));
        hospital.ok(&["receipt", "export", "--out", &export.display().to_string()]);
        fs::read_to_string(export.join("halves.jsonl")).unwrap().matches("\"kind\":\"used\"").count() == 2
    });
    hospital.stop();
    research.kill();
    // fetched after the backup: in no row, so its key goes
    let orphan = research.home.join("vault/019ab600-0000-7000-8000-000000000000");
    fs::create_dir(&orphan).unwrap();
    fs::write(orphan.join("copy.key"), [7; 32]).unwrap();
    lose_store(&research);
    research.ok(&["restore", "from", &backup, "--accept"]);
    assert!(!orphan.join("copy.key").exists());
    research.serve();
    assert_eq!(restoring(&research), ["did:web:hospital.invalid"]);
    let (code, sentence) = research.refused(&read);
    assert_eq!(code, "restore-unfinished");
    assert!(sentence.contains("restore accept did:web:hospital.invalid"), "{sentence}");

    hospital.serve();
    until(&research, "the provider has said what it knows", || restoring(&research).is_empty());
    research.ok(&read);
    let (code, _) = research.refused(&read);
    assert_eq!(code, "policy-no-permit", "three were used, one of them lost with the store");
    no_alarms([&hospital, &research]);

    // once more, and the provider is gone for good: a steward may go on
    research.kill();
    hospital.stop();
    fs::remove_dir_all(research.home.join("store")).unwrap();
    research.ok(&["restore", "from", &backup, "--accept"]);
    research.serve();
    let (code, _) = research.refused(&["restore", "accept", "did:web:nobody.invalid"]);
    assert_eq!(code, "restore-not-waiting");
    research.ok(&["restore", "accept", &hospital.did]);
    assert!(restoring(&research).is_empty());
}

#[test]
fn a_backup_that_was_altered_or_is_not_ours_is_not_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut hospital, mut research) = settled(folder.path());
    let backup = folder.path().join("backup");
    let path = backup.display().to_string();
    hospital.ok(&["backup", "--out", &path]);
    for there in [&path, &hospital.path("inside"), &hospital.path("store/inside")] {
        let (code, _) = hospital.refused(&["backup", "--out", there]);
        assert_eq!(code, "backup-folder", "never over another, never in the home: {there}");
    }
    let (code, _) = hospital.refused(&["restore", "from", &path, "--accept"]);
    assert_eq!(code, "restore-running");
    for house in [&mut hospital, &mut research] {
        house.stop();
        lose_store(house);
    }
    let refused = |house: &House| {
        let (code, sentence) = house.refused(&["restore", "from", &path, "--accept"]);
        assert!(!house.home.join("store").exists());
        (code, sentence)
    };
    assert_eq!(refused(&research).0, "backup-broken", "another's");
    let mut files = Vec::new();
    for at in [backup.clone(), backup.join("content")] {
        files.extend(fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    }
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let good = fs::read(&file).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 4;
        fs::write(&file, &bad).unwrap();
        assert_eq!(refused(&hospital).0, "backup-broken", "{}", file.display());
        fs::remove_file(&file).unwrap();
        assert_eq!(refused(&hospital).0, "backup-broken", "{}", file.display());
        fs::write(&file, &good).unwrap();
    }
    fs::write(backup.join("content/9.pack"), "more").unwrap();
    assert!(refused(&hospital).1.contains("9.pack"));
    fs::remove_file(backup.join("content/9.pack")).unwrap();
    let (code, _) = hospital.refused(&["restore", "from", &path, "--accept", "--revoke", "did:web:nobody.invalid"]);
    assert_eq!(code, "restore-unknown");
    // what was revoked since the backup is named, and is nobody again
    hospital.ok(&["restore", "from", &path, "--accept", "--revoke", &research.did]);
    hospital.serve();
    let peers = hospital.json(&["peer", "list"]);
    assert_eq!(peers[0]["state"], "revoked", "{peers}");
}

#[test]
fn what_was_erased_is_nowhere_on_either_disk() {
    const PURPOSE: &str = "research-7f3a-to-be-forgotten";
    let folder = tempfile::tempdir().unwrap();
    let (hospital, research) = crate::house::paired(folder.path());
    publish(&hospital, "d");
    let agreement = agree(&hospital, &research, "d");
    research.ok(&["fetch", &agreement, "--purpose", PURPOSE]);
    research.ok(&["use", "d", "--purpose", PURPOSE]);
    let on_disk = |house: &House| {
        let all = contents(&house.home.join("store"));
        all.windows(PURPOSE.len()).filter(|window| *window == PURPOSE.as_bytes()).count()
    };
    assert!(on_disk(&hospital) > 0 && on_disk(&research) > 0, "it was there");
    for house in [&hospital, &research] {
        house.ok(&["receipt", "erase", "--agreement", &agreement, "--reason", "the patient withdrew"]);
        // what was kept for steps that have been taken goes by itself
        until(house, "the purpose is gone", || on_disk(house) == 0);
    }
}

/// The same backup twice, and a backup of a store that had not heard from its partner yet: nothing is forgotten.
#[test]
fn restores_of_restores_give_no_count_back_either() {
    let folder = tempfile::tempdir().unwrap();
    let (mut hospital, mut research) = settled(folder.path());
    publish(&hospital, "d");
    let agreement = agree(&hospital, &research, "d");
    let fetch = ["fetch", agreement.as_str(), "--purpose", "research"];
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name).display().to_string());
    hospital.ok(&["backup", "--out", &first]);
    research.ok(&fetch);
    let restore = |hospital: &mut House, backup: &str| {
        hospital.kill();
        fs::remove_dir_all(hospital.home.join("store")).unwrap();
        // another second, another log
        std::thread::sleep(Duration::from_millis(1100));
        hospital.ok(&["restore", "from", backup, "--accept"]);
        hospital.serve();
    };
    restore(&mut hospital, &first);
    until(&hospital, "it has heard", || restoring(&hospital).is_empty());
    research.ok(&fetch);
    // the very same once more: what was spent in the log between is spent
    restore(&mut hospital, &first);
    until(&hospital, "it has heard again", || restoring(&hospital).is_empty());
    // and from a backup that was made before the partner could be asked
    research.stop();
    restore(&mut hospital, &first);
    assert_eq!(restoring(&hospital).len(), 1);
    hospital.ok(&["backup", "--out", &second]);
    restore(&mut hospital, &second);
    research.serve();
    until(&hospital, "it has heard a third time", || restoring(&hospital).is_empty());
    research.ok(&fetch);
    let (code, _) = research.refused(&fetch);
    assert_eq!(code, "policy-no-permit", "three were spent, in three logs");
    no_alarms([&hospital, &research]);
    // all logs of both hold together
    let mut exports = vec![folder.path().join("theirs").display().to_string()];
    research.ok(&["receipt", "export", "--out", &exports[0]]);
    let log = hospital.json(&["status"])["log"]["origin"].as_str().unwrap().to_owned();
    let newest = folder.path().join("newest").display().to_string();
    hospital.ok(&["receipt", "export", "--out", &newest]);
    assert!(hospital.ok(&["receipt", "list", "--kind", "restored"]).contains("restored"), "{log}");
    exports.push(newest);
    // killed right after a release: the partner's halves rest on more of the first log than it had cosigned
    let one = folder.path().join("one").display().to_string();
    hospital.ok(&["receipt", "export", "--epoch", "1", "--out", &one]);
    let args = ["--json", "receipt", "reconcile", &one, &exports[1], &exports[0]];
    let all: Value = serde_json::from_slice(&hospital.run(&args).stdout).unwrap();
    let codes: Vec<&str> =
        all["findings"].as_array().unwrap().iter().map(|one| one["code"].as_str().unwrap()).collect();
    // two logs of those between are not here
    assert!(codes.iter().all(|code| *code == "log-not-exported"), "{all}");
    let verdict = hospital.run(&["receipt", "verify", &exports[1]]);
    assert_eq!(
        verdict.status.code(),
        Some(3),
        "consistent, keys unproven: {}",
        String::from_utf8_lossy(&verdict.stdout)
    );
}

/// Who is paired after a restore, and who was gone when it happened, can work with the restored connector as anybody can.
#[test]
fn partners_who_come_later_are_told_of_the_new_log() {
    let folder = tempfile::tempdir().unwrap();
    let (mut hospital, mut research) = settled(folder.path());
    publish(&hospital, "d");
    let agreement = agree(&hospital, &research, "d");
    let fetch = ["fetch", agreement.as_str(), "--purpose", "research"];
    let backup = folder.path().join("backup").display().to_string();
    hospital.ok(&["backup", "--out", &backup]);
    research.ok(&fetch);
    research.ok(&fetch);
    research.stop();
    hospital.kill();
    lose_store(&hospital);
    hospital.ok(&["restore", "from", &backup, "--accept"]);
    hospital.serve();
    // a steward goes on without it; it comes back all the same, and what it knows counts
    hospital.ok(&["restore", "accept", &research.did]);
    let mut late = House::new(folder.path(), "late");
    late.serve();
    pair(&hospital, &late);
    until(&hospital, "the new partner knows the log", || restoring(&hospital).is_empty());
    let other = agree(&hospital, &late, "d");
    late.ok(&["fetch", &other, "--purpose", "research"]);
    research.serve();
    until(&hospital, "it was asked", || {
        let restored = hospital.json(&["receipt", "list", "--kind", "restored"]);
        restored.as_array().unwrap().iter().any(|one| one["receipt"]["counted"] == 4)
    });
    research.ok(&fetch);
    assert_eq!(research.refused(&fetch).0, "policy-no-permit");
    no_alarms([&hospital, &research]);
    no_alarms([&late, &research]);
}
