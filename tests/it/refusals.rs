//! Bad input changes nothing and says what is wrong; what is not available is refused by name.

use std::{fs, path::Path};

use serde_json::Value;

use crate::house::{COHORT, House, agreed, cohort_offer, command, paired, publish_cohort};

#[test]
fn commands_without_a_home_or_a_running_connector_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let output = command(&folder.path().join("nowhere"), &["status"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("init"));
    let house = House::new(folder.path(), "hospital");
    let output = house.run(&["status"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("not running: start it with"));
    let output = house.run(&["init", "--name", "again"]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("nothing was changed"));
}

#[test]
fn a_swapped_invitation_has_another_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let (mut hospital, mut research, mut mallory) = (
        House::new(folder.path(), "hospital"),
        House::new(folder.path(), "research"),
        House::new(&folder.path().join("elsewhere"), "research"),
    );
    for house in [&mut hospital, &mut research, &mut mallory] {
        house.serve();
    }
    let told = research.json(&["peer", "invite", "--out", &research.path("i.json")])["fingerprint"].clone();
    mallory.json(&["peer", "invite", "--out", &mallory.path("i.json")]);
    let (code, sentence) =
        hospital.refused(&["peer", "add", &mallory.path("i.json"), "--fingerprint", told.as_str().unwrap()]);
    assert!(code == "fingerprint-differs" && sentence.contains("told"), "{code}: {sentence}");
    assert_eq!(hospital.json(&["peer", "list"]).as_array().unwrap().len(), 0);
    hospital.json(&["peer", "add", &research.path("i.json"), "--fingerprint", &told.as_str().unwrap().to_lowercase()]);
}

#[test]
fn a_connector_that_can_not_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = House::new(folder.path(), "first");
    first.serve();
    let text = |home: &Path, environment: &[(&str, &str)]| {
        let output = command(home, &["serve"]).envs(environment.iter().copied()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(text(&first.home, &[]).contains("held by another process"));
    let running: Value = serde_json::from_str(&fs::read_to_string(first.home.join("running.json")).unwrap()).unwrap();
    let second = House::new(folder.path(), "second");
    let taken = text(&second.home, &[("COUNTERSEAL_LISTEN_PARTNER", running["partner"].as_str().unwrap())]);
    assert!(taken.contains("can't listen on") && taken.contains("listen.partner"), "{taken}");
    fs::write(second.home.join("counterseal.toml"), "[participant\n").unwrap();
    assert!(text(&second.home, &[]).contains("counterseal.toml"));

    first.stop();
    let copy = folder.path().join("copy");
    let status = std::process::Command::new("cp").arg("-r").arg(&first.home).arg(&copy).status().unwrap();
    assert!(status.success());
    assert!(text(&copy, &[]).contains("is a copy"));
    let mut moved = House::new(folder.path(), "unused");
    moved.home = copy;
    moved.serve_with(&["--moved"], &[]);
}

#[test]
fn what_a_steward_gets_wrong_is_named_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (hospital, research) = paired(folder.path());
    publish_cohort(&hospital, &research.did);
    let policy = fs::read_to_string(hospital.home.join("cohort.cedar")).unwrap();
    let offer = cohort_offer(&research.did);
    let size = || hospital.json(&["status"])["receipts"].clone();
    let before = size();
    for (file, broken, code, words) in [
        ("offer.toml", "id = ".to_owned(), "offer-file", vec!["offer.toml", "line 1"]),
        ("offer.toml", offer.replace("title", "titel"), "offer-file", vec!["titel"]),
        (
            "offer.toml",
            offer.replace("\"lymph_node.csv\"", "\"https://x/y.csv\""),
            "offer-file",
            vec!["https://x/y.csv", "not available"],
        ),
        (
            "offer.toml",
            offer.replace("\"lymph_node.csv\"", "\"../keys/token.key\""),
            "source-unavailable",
            vec!["..", "below a root"],
        ),
        ("offer.toml", offer.replace("\"lymph_node.csv\"", "\"absent.csv\""), "source-unavailable", vec!["absent.csv"]),
        (
            "offer.toml",
            offer.replace("source =", "format = \"xlsx\"\nsource ="),
            "format-unsupported",
            vec!["xlsx", "not available"],
        ),
        (
            "offer.toml",
            offer.replace("source =", "format = \"parquet\"\nsource ="),
            "source-unavailable",
            vec!["lymph_node.csv", "no Parquet file"],
        ),
        (
            "offer.toml",
            offer.replace("source =", "format = \"jsonl\"\nsource ="),
            "source-unavailable",
            vec!["lymph_node.csv", "row 1 (line 1)"],
        ),
        (
            "offer.toml",
            offer.replace("research.invalid", "stranger.invalid"),
            "recipient-unknown",
            vec!["stranger.invalid"],
        ),
        ("cohort.cedar", policy.replace("band(age, 10)", "bnd(age, 10)"), "policy-invalid", vec!["bnd", "band"]),
        (
            "cohort.cedar",
            policy.replace("drop(deathdate)", "drop(deathday)"),
            "policy-invalid",
            vec!["deathday", "deathdate"],
        ),
        (
            "cohort.cedar",
            policy.replace("context.purpose == \"research\" && context.count", "context.porpose"),
            "policy-invalid",
            vec!["cohort.cedar:", "porpose"],
        ),
        (
            "cohort.cedar",
            policy.replace("@during", "@before"),
            "policy-invalid",
            vec!["@before", "unknown obligation `hash`"],
        ),
        (
            "cohort.cedar",
            policy.replace("hash(id)", "watermark(age)"),
            "policy-invalid",
            vec!["watermark", "other columns"],
        ),
        (
            "cohort.cedar",
            policy.replace(
                "permit (principal, action == Action::\"read\"",
                "permit (principal == Participant::\"did:web:other.invalid\", action == Action::\"read\"",
            ),
            "policy-names-participant",
            vec!["did:web:other.invalid"],
        ),
    ] {
        let original = fs::read_to_string(hospital.home.join(file)).unwrap();
        assert_ne!(original, broken, "{code} is a change");
        fs::write(hospital.home.join(file), broken).unwrap();
        let (found, sentence) = hospital.refused(&["offer", "publish", &hospital.path("offer.toml")]);
        assert_eq!(found, code, "{sentence}");
        words.iter().for_each(|word| assert!(sentence.contains(word), "{sentence} lacks {word}"));
        fs::write(hospital.home.join(file), original).unwrap();
    }
    assert_eq!(size(), before, "nothing was recorded");
    assert_eq!(hospital.json(&["offer", "list"])[0]["version"], 1);
    hospital.json(&["offer", "publish", &hospital.path("offer.toml")]);
    assert_eq!(hospital.json(&["offer", "list"])[0]["version"], 2);
}

#[test]
fn a_partner_who_has_not_added_us_yet_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (mut hospital, mut research) = (House::new(folder.path(), "hospital"), House::new(folder.path(), "research"));
    hospital.serve();
    research.serve();
    hospital.json(&["peer", "invite", "--out", &hospital.path("invitation.json")]);
    assert_eq!(research.refused(&["catalog", &hospital.did]).0, "peer-unknown", "we don't know them");
    research.json(&["peer", "add", &hospital.path("invitation.json")]);
    let (code, sentence) = research.refused(&["catalog", &hospital.did]);
    assert!(code == "peer-unknown" && sentence.contains("has to add your invitation"), "{sentence}");
    assert_eq!(hospital.refused(&["peer", "add", &hospital.path("invitation.json")]).0, "invitation-own");
}

#[test]
fn a_file_that_was_replaced_is_not_released() {
    let folder = tempfile::tempdir().unwrap();
    let (hospital, research) = paired(folder.path());
    let agreement = agreed(&hospital, &research);
    let data = hospital.data("lymph_node.csv");
    let text = fs::read_to_string(&data).unwrap();
    fs::write(&data, text.replace("38,1,1,18", "39,1,1,18")).unwrap();
    let (code, sentence) = research.refused(&["fetch", &agreement, "--purpose", "research"]);
    assert!(code == "source-changed" && sentence.contains("publish the offer again"), "{code}: {sentence}");
    let list = hospital.json(&["receipt", "list", "--agreement", &agreement, "--kind", "denied"]);
    assert_eq!(list[0]["receipt"]["reason"]["code"], "source-changed");
    assert_eq!(hospital.json(&["agreement", "list"])[0]["releases"], 0, "no count was spent");
}

#[test]
fn a_row_that_is_broken_ends_the_stream_and_no_key_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let (hospital, research) = paired(folder.path());
    publish_cohort(&hospital, &research.did);
    let data = hospital.data("lymph_node.csv");
    let original = fs::read_to_string(&data).unwrap();
    let publish = |text: String| {
        fs::write(&data, text).unwrap();
        hospital.run(&["offer", "publish", &hospital.path("offer.toml")])
    };
    let rows = original.split_once('\n').unwrap().1;
    // publishing counts the records to the last one: a broken one is found there
    for (before, number) in [(original.clone(), 687), (format!("{original}{rows}"), 1373)] {
        let output = publish(format!("{before}{number},\"short\"\n"));
        let told = format!("row {number} (line {}) has 2 fields, the header has 16", number + 1);
        assert!(String::from_utf8_lossy(&output.stderr).contains(&told));
    }
    // a value that an obligation can't handle is found when it is applied
    let mut cells: Vec<&str> = rows.lines().next().unwrap().split(',').collect();
    cells[4] = "old";
    assert!(publish(format!("{original}{rows}{}\n", cells.join(","))).status.success());
    let agreement = research.json(&["negotiate", &hospital.did, COHORT])["agreement"].as_str().unwrap().to_owned();
    assert_eq!(research.refused(&["fetch", &agreement, "--purpose", "research"]).0, "stream-broken");
    assert!(hospital.log().contains("row 1373, column `age`: `band` needs a number"), "{}", hospital.log());
    assert_eq!(research.json(&["copies"])[0]["state"], "receiving");
}

#[test]
fn the_management_api_is_for_the_operator_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::new(folder.path(), "hospital");
    house.serve();
    let running: Value = serde_json::from_str(&fs::read_to_string(house.home.join("running.json")).unwrap()).unwrap();
    let address = running["management"].as_str().unwrap();
    let token = fs::read_to_string(house.home.join("operator.token")).unwrap();
    let status = |host: &str, authorization: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET /v1/status HTTP/1.1\r\nhost: {host}\r\nauthorization: {authorization}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    let bearer = format!("Bearer {}", token.trim());
    assert_eq!(status(address, &bearer), "200");
    assert_eq!(status(address, "Bearer wrong"), "401");
    assert_eq!(status(address, ""), "401");
    assert_eq!(status("evil.example", &bearer), "421", "another name leads to us: DNS rebinding");
}

#[test]
fn secrets_are_in_no_store_log_or_export() {
    let folder = tempfile::tempdir().unwrap();
    let (mut hospital, mut research) = paired(folder.path());
    let agreement = agreed(&hospital, &research);
    research.json(&["fetch", &agreement, "--purpose", "research"]);
    research.ok(&["use", COHORT, "--purpose", "research"]);
    for house in [&hospital, &research] {
        house.json(&["receipt", "export", "--out", &house.path("export")]);
    }
    let mut canaries: Vec<Vec<u8>> = Vec::new();
    for house in [&hospital, &research] {
        canaries.push(fs::read_to_string(house.home.join("operator.token")).unwrap().trim().as_bytes().to_vec());
        for entry in fs::read_dir(house.home.join("keys")).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let line = if path.ends_with("tls.key") { text.lines().nth(1).unwrap() } else { text.trim() };
            canaries.push(line.as_bytes().to_vec());
        }
    }
    hospital.stop();
    research.stop();
    let mut searched = 0;
    for house in [&hospital, &research] {
        for place in [
            "store/sled/db",
            "serve.log",
            "export/receipts.jsonl",
            "export/halves.jsonl",
            "did.json",
            "invitation.json",
        ] {
            let bytes = fs::read(house.home.join(place)).unwrap();
            for canary in &canaries {
                assert!(
                    !bytes.windows(canary.len()).any(|window| window == canary.as_slice()),
                    "a secret is in {place}"
                );
            }
            searched += 1;
        }
    }
    assert_eq!(searched, 12);
}
