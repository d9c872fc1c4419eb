//! The scenarios: each folder with a `scenario.toml` is played, its policies' tests run, its denials found.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use counterseal::cli::{Lang, Scenario, Voice, play};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn small() -> PathBuf {
    root().join("tests/it/scenario-small")
}

/// The folders below `examples/` that are scenarios.
fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(root().join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("scenario.toml").is_file())
        .collect();
    folders.sort();
    assert_eq!(folders.len(), 8, "the eight scenarios of the data space");
    folders
}

fn counterseal(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_counterseal")).args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

/// Plays each; an error names its folder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scenario_holds_from_beginning_to_end() {
    let mut broken = Vec::new();
    for folder in folders() {
        if let Err(error) = play(&folder, Voice::Silent, Lang::En).await {
            broken.push(format!("{}: {error:#}", folder.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_scenario_shows_each_denial_that_it_lists_and_its_readme_names_it() {
    for folder in folders() {
        let scenario = Scenario::read(&folder).unwrap_or_else(|error| panic!("{error}"));
        let name = folder.display();
        assert!(!scenario.denials.is_empty(), "{name}: no `denials`");
        assert_eq!(scenario.not_shown(), Vec::<&str>::new(), "{name}: no step shows these");
        assert_eq!(folder.file_name().unwrap().to_str(), Some(scenario.id.as_str()), "{name}: its id is its folder's");
        let readme = fs::read_to_string(folder.join("README.md")).unwrap_or_else(|error| panic!("{name}: {error}"));
        for denial in &scenario.denials {
            assert!(readme.contains(denial.as_str()), "{name}/README.md lacks the denial: {denial}");
        }
    }
}

#[test]
fn the_tests_of_every_scenarios_policies_pass() {
    let folders = folders();
    for folder in folders.iter().chain([&small()]) {
        let policies = |ending: &str| -> BTreeSet<String> {
            let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.filter_map(|name| name.strip_suffix(ending).map(str::to_owned)).collect()
        };
        let (code, text) = counterseal(&["policy", "test", folder.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{}\n{text}", folder.display());
        if *folder != small() {
            let untested: Vec<String> = policies(".cedar").difference(&policies(".test.toml")).cloned().collect();
            assert!(untested.is_empty(), "{}: no NAME.test.toml beside {untested:?}", folder.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_scenario_has_every_kind_of_step_and_holds() {
    let text = fs::read_to_string(small().join("scenario.toml")).unwrap();
    let kinds: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("do = ")).collect();
    assert_eq!(kinds.len(), 24, "{kinds:?}");
    let documented = fs::read_to_string(root().join("docs/scenarios.md")).unwrap();
    for kind in kinds {
        assert!(documented.contains(&format!("| `{}` |", kind.trim_matches('"'))), "docs/scenarios.md lacks {kind}");
    }
    let report = play(&small(), Voice::Silent, Lang::En).await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!((report.steps, report.denials.len()), (text.matches("[[step]]").count(), 5));
}

/// A copy of the small scenario, with this text put in the place of another.
fn changed(folder: &Path, from: &str, to: &str) {
    for entry in fs::read_dir(small()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }
    fs::create_dir_all(folder.join("data")).unwrap();
    for name in ["patients.csv", "open.csv"] {
        fs::copy(small().join("data").join(name), folder.join("data").join(name)).unwrap();
    }
    let text = fs::read_to_string(folder.join("scenario.toml")).unwrap();
    assert!(text.contains(from), "{from}");
    // only its beginning: what follows is no matter
    let text = text.replacen(from, to, 1);
    let end = text.find("say = \"A wrong code is no code\"").unwrap() - "[[step]]\n".len();
    fs::write(folder.join("scenario.toml"), &text[..end]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_comes_out_otherwise_ends_the_scenario_with_its_line() {
    for (from, to, parts) in [
        ("seen = true", "seen = false", ["step 3", "does not see `patients`"]),
        ("expect = \"dataset-unknown\"\n", "as = \"o1\"\n", ["step 6", "it was refused: "]),
        ("expect = \"policy-no-permit\"", "expect = \"policy-forbids\"", ["step 10", "[policy-no-permit]"]),
        ("amount = \"10.00\"", "amount = \"ten\"", ["step 11", "[payment-amount]"]),
        (
            "purpose = \"marketing\"\nexpect",
            "purpose = \"marketing\"\nsays = \"nonsense\"\nexpect",
            ["step 12", "nonsense"],
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        changed(folder.path(), from, to);
        let error = format!("{:#}", play(folder.path(), Voice::Silent, Lang::En).await.unwrap_err());
        assert!(error.starts_with("scenario.toml:"), "{error}");
        for part in parts {
            assert!(error.contains(part), "{from}: {error} lacks {part}");
        }
    }
}

#[test]
fn the_command_tells_each_step_and_exits_with_one_when_it_does_not_hold() {
    let folder = tempfile::tempdir().unwrap();
    changed(folder.path(), "title = \"A small scenario\"", "title = \"A short one\"");
    let path = folder.path().to_str().unwrap();
    let (code, text) = counterseal(&["scenario", path]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("A short one") && text.contains("✓ refused (another purpose): "), "{text}");
    let (code, text) = counterseal(&["scenario", path, "--lang", "zh"]);
    assert!(code == Some(0) && text.contains("医院发布患者数据") && text.contains("全部 12 步"), "{text}");
    let (code, text) = counterseal(&["--json", "scenario", path]);
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(code == Some(0) && lines.len() == 14 && lines[13]["report"]["steps"] == 12, "{text}");

    changed(folder.path(), "seen = true", "seen = false");
    let (code, text) = counterseal(&["scenario", path]);
    assert!(code == Some(1) && text.contains("error: scenario.toml:"), "{text}");
    changed(folder.path(), "seen = true", "sen = true");
    let (code, text) = counterseal(&["scenario", path]);
    assert!(code == Some(1) && text.contains("step 3 (catalog)") && text.contains("did you mean `seen`"), "{text}");
}
