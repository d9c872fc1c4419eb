//! README's walk, with separate processes and two homes.

use std::{fs, time::Duration};

use serde_json::Value;

use crate::house::{COHORT, House, agreed, paired, publish_cohort};

#[test]
fn the_whole_walk_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let (mut hospital, mut research) = paired(folder.path());
    publish_cohort(&hospital, &research.did);
    let catalog = research.json(&["catalog", &hospital.did]);
    assert_eq!((catalog[0]["dataset"].as_str(), catalog[0]["sealed"].as_bool()), (Some(COHORT), Some(true)));
    assert!(catalog[0]["title"].is_null(), "a sealed offer's title is inside");

    let agreement = research.json(&["negotiate", &hospital.did, COHORT])["agreement"].as_str().unwrap().to_owned();
    let fetched = research.json(&["fetch", &agreement, "--purpose", "research"]);
    assert_eq!(fetched["event"], "opened");
    let plain = research.ok(&["use", COHORT, "--purpose", "research"]);
    assert_eq!(plain.lines().count(), 687);
    assert!(plain.lines().next().unwrap().starts_with("id,diagdateb,recdate,age,") && !plain.contains("deathdate"));
    assert!(plain.contains(",1984,1988,30-39,"));
    assert_eq!(research.refused(&["use", COHORT, "--purpose", "marketing"]).0, "policy-forbids");
    assert_eq!(research.json(&["status"])["agreements"], 1);

    let list = hospital.json(&["receipt", "list", "--agreement", &agreement]);
    let kinds: Vec<&str> =
        list.as_array().unwrap().iter().map(|stored| stored["receipt"]["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["negotiated", "agreed", "released", "delivered"]);
    let id = list[2]["receipt"]["id"].as_str().unwrap();
    let shown: Value = serde_json::from_str(&hospital.ok(&["receipt", "show", id])).unwrap();
    assert_eq!(shown["receipt"]["decision"]["verdict"], "allow");
    let answering: Vec<&str> =
        shown["halves"].as_array().unwrap().iter().filter_map(|half| half["kind"].as_str()).collect();
    assert!(answering.contains(&"acknowledged"), "the partner's half that answers it: {answering:?}");

    hospital.json(&["agreement", "revoke", &agreement, "--reason", "the vote was withdrawn"]);
    let (code, sentence) = until(|| {
        let refused = research.refused_or_none(&["use", COHORT, "--purpose", "research"])?;
        (refused.0 == "agreement-revoked").then_some(refused)
    });
    assert!(sentence.contains("the vote was withdrawn"), "{code}: {sentence}");

    let (a, b) = (hospital.path("export"), research.path("export"));
    let trust = [hospital.path("invitation.json"), research.path("invitation.json")];
    until(|| {
        for (house, folder) in [(&hospital, &a), (&research, &b)] {
            let _ = fs::remove_dir_all(folder);
            house.json(&["receipt", "export", "--out", folder]);
        }
        let matched = hospital.run(&["receipt", "reconcile", &a, &b, "--trust", &trust[0], "--trust", &trust[1]]);
        matched.status.success().then_some(())
    });
    // offline: both are stopped
    hospital.stop();
    research.stop();
    let verify = |file: &str, trust: &[&str]| {
        let mut args = vec!["receipt", "verify", file];
        trust.iter().for_each(|path| args.extend(["--trust", path]));
        hospital.run(&args)
    };
    assert_eq!(verify(&a, &[&trust[0], &trust[1]]).status.code(), Some(0));
    assert_eq!(verify(&a, &[]).status.code(), Some(3), "consistent, keys unproven");
    assert_eq!(verify(&a, &[&trust[0]]).status.code(), Some(3), "the partner's keys are unproven");
    let told = String::from_utf8(verify(&a, &[&trust[0], &trust[1]]).stdout).unwrap();
    assert!(told.contains("decided again") && told.contains(" cosigned "), "{told}");
    let receipts = hospital.home.join("export/receipts.jsonl");
    let text = fs::read_to_string(&receipts).unwrap();
    // the last receipt is the revocation, in the agreement's series
    let (before, last) = text.trim_end().rsplit_once('\n').unwrap();
    let number: Value = serde_json::from_str(last).unwrap();
    let number = number["number"].as_u64().unwrap();
    let last = last.replacen(&format!("\"number\":{number},"), &format!("\"number\":{},", number + 1), 1);
    fs::write(&receipts, format!("{before}\n{last}\n")).unwrap();
    let broken = verify(&a, &[&trust[0], &trust[1]]);
    let told = String::from_utf8(broken.stdout).unwrap();
    assert_eq!(broken.status.code(), Some(4));
    assert!(
        told.contains("receipts.jsonl") && told.contains("[file-altered]") && told.contains("[number-wrong]"),
        "{told}"
    );
}

#[test]
fn a_killed_connector_has_everything_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (mut hospital, mut research) = paired(folder.path());
    let agreement = agreed(&hospital, &research);
    research.json(&["fetch", &agreement, "--purpose", "research"]);
    let before = hospital.json(&["receipt", "list", "--agreement", &agreement]);
    hospital.kill();
    research.kill();
    // the ports are the system's to pick: the statements change with them, and the peers are told when both are up
    hospital.serve();
    research.serve();
    assert_eq!(hospital.json(&["receipt", "list", "--agreement", &agreement]), before);
    assert_eq!(research.json(&["copies"])[0]["state"], "held");
}

#[test]
fn public_url_and_the_environment_are_heard() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::new(folder.path(), "hospital");
    house.serve_with(&[], &[("COUNTERSEAL_LISTEN_PUBLIC_URL", "https://data.hospital.example/dsp/")]);
    assert_eq!(house.json(&["status"])["endpoint"], "https://data.hospital.example/dsp");
}

/// Waits for what the outbox brings.
fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..300 {
        if let Some(found) = found() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited 15 s in vain")
}

impl House {
    /// The refusal, if there is one.
    fn refused_or_none(&self, args: &[&str]) -> Option<(String, String)> {
        let mut all = vec!["--json"];
        all.extend(args);
        let output = self.run(&all);
        if output.status.success() {
            return None;
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let value: Value = serde_json::from_str(text.lines().last()?).ok()?;
        Some((value["code"].as_str()?.to_owned(), value["reason"].as_str()?.to_owned()))
    }
}

#[test]
fn keys_rotate_and_partners_go_on_and_what_was_signed_before_still_holds() {
    let folder = tempfile::tempdir().unwrap();
    let (mut hospital, mut research) = paired(folder.path());
    let agreement = agreed(&hospital, &research);
    research.json(&["fetch", &agreement, "--purpose", "research"]);
    let before = hospital.json(&["status"])["fingerprint"].clone();
    for (house, roles) in [(&hospital, &["signing", "token"][..]), (&research, &["signing", "sealing"])] {
        for role in roles {
            house.json(&["key", "rotate", role]);
        }
        assert!(house.refused(&["key", "rotate", roles[0]]).1.contains("exists already"), "one waits");
        house.json(&["key", "renew-certificate"]);
    }
    let listen = |house: &House| house.json(&["status"])["endpoint"].as_str().unwrap().replace("https://", "");
    let places = [listen(&hospital), listen(&research)];
    for (house, place) in [&mut hospital, &mut research].into_iter().zip(&places) {
        house.stop();
        house.serve_with(&[], &[("COUNTERSEAL_LISTEN_PARTNER", place)]);
        assert!(!house.home.join("keys/signing.next.key").exists(), "the new key is in its place");
    }
    assert_ne!(hospital.json(&["status"])["fingerprint"], before);
    // both heard of it, and have a receipt of it
    for house in [&hospital, &research] {
        until(|| {
            let list = house.json(&["receipt", "list", "--kind", "rotated"]);
            (list.as_array().unwrap().len() == 2).then_some(())
        });
    }
    // the agreement that the old keys signed is still in force
    assert_eq!(research.json(&["fetch", &agreement, "--purpose", "research"])["event"], "opened");
    assert_eq!(research.ok(&["use", COHORT, "--purpose", "research"]).lines().count(), 687);
    let trust = [hospital.path("invitation.json"), research.path("invitation.json")];
    for house in [&hospital, &research] {
        let file = house.path("export");
        house.json(&["receipt", "export", "--out", &file]);
        // trusted are the fingerprints from before: the chain of statements leads on from them
        let verified = house.run(&["receipt", "verify", &file, "--trust", &trust[0], "--trust", &trust[1]]);
        assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    }
    // and a new agreement: the standing offer was signed anew, and is sealed for the new key
    assert_eq!(research.json(&["negotiate", &hospital.did, COHORT])["state"], "FINALIZED");
}
