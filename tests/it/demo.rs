//! The demo is a test of its own: each step checks, and a failed check is an exit code.

use std::process::Command;

use serde_json::Value;

fn demo(args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_counterseal")).arg("demo").args(args).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_step_of_the_demo_holds() {
    let (fine, text) = demo(&["--json"]);
    assert!(fine, "{text}");
    let steps: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<&str> = steps.iter().filter_map(|step| step["id"].as_str()).collect();
    assert_eq!(
        ids,
        [
            "homes",
            "pair",
            "publish",
            "catalog",
            "negotiate",
            "release",
            "use",
            "count",
            "outsider",
            "silence",
            "revoke",
            "verify",
            "flip"
        ]
    );
    assert!(steps.iter().all(|step| step["ok"] == true || step["done"] == true));
    assert!(
        steps.iter().filter(|step| step["id"].is_string()).all(|step| !step["checked"].as_array().unwrap().is_empty())
    );
}

#[test]
fn the_demo_is_told_in_chinese() {
    let (fine, text) = demo(&["--lang", "zh"]);
    assert!(fine && text.contains("医院撤销协议"), "{text}");
}

#[test]
fn a_demo_that_can_not_do_its_work_says_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hospital"), "in the way").unwrap();
    let (fine, text) = demo(&["--folder", folder.path().to_str().unwrap()]);
    assert!(!fine && text.contains("error"), "{text}");
}
