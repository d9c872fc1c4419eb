//! The workbench through the front door.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

const PERMIT: &str = "@id(\"a\")\n@during(\"hash(id); band(age, 10); drop(name); at_least(2, age)\")\npermit (principal in Group::\"research\", action == Action::\"release\", resource)\nwhen { context.count < 3 };\n";
const DATA: &str = "id,name,age\n1,Ann,31\n2,Ben,38\n3,Cleo,52\n";

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn policy(folder: &Path, args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_counterseal"))
        .arg("policy")
        .args(args)
        .current_dir(folder)
        .env_remove("COUNTERSEAL_HOME")
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn json(folder: &Path, args: &[&str]) -> (i32, Value) {
    let ran = policy(folder, &[args, &["--json"]].concat());
    (ran.code, serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}{}", ran.out, ran.err)))
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn offer(id: &str, policy: &str) -> String {
    format!(
        "id = \"{id}\"\n[dataset]\nid = \"people\"\ntitle = \"People\"\nsource = \"data.csv\"\n[policy]\nfile = \"{policy}\"\n"
    )
}

#[test]
fn a_check_ends_by_what_it_found() {
    let folder = folder(&[
        ("fine.cedar", PERMIT),
        ("odd.cedar", &PERMIT.replace("\"a\"", "\"b\"").replace("count < 3", "count < 0")),
        ("bad/broken.cedar", "@id(\"c\") permit (principal, action, resource) when { context.purpos == \"x\" };"),
        ("offer/offer.toml", &offer("o", "terms.cedar")),
        ("offer/terms.cedar", &PERMIT.replace("hash(id)", "hash(ids)")),
        ("offer/data.csv", DATA),
        ("data.csv", DATA),
    ]);
    let fine = policy(folder.path(), &["check", "fine.cedar", "--source", "data.csv"]);
    assert_eq!((fine.code, fine.out.as_str()), (0, "1 checked: 0 errors, 0 warnings, 0 notes\n"));
    let odd = policy(
        folder.path(),
        &["check", "odd.cedar", "--column", "id=integer", "--column", "age=integer", "--column", "name=text"],
    );
    assert_eq!(odd.code, 0, "{}", odd.err);
    assert!(
        odd.out.starts_with("odd.cedar:4:8: warning[never-applies]: the permit `b` can never apply"),
        "{}",
        odd.out
    );
    assert_eq!(policy(folder.path(), &["check", "odd.cedar", "--deny-warnings"]).code, 1);
    let chinese = policy(folder.path(), &["check", "odd.cedar", "--lang", "zh"]);
    assert!(chinese.out.contains("警告[never-applies]: 许可 b 永远不会适用"), "{}", chinese.out);
    let (code, all) = json(folder.path(), &["check", "."]);
    let seen: Vec<(&str, &str)> = all["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["level"] == "error")
        .map(|finding| (finding["file"].as_str().unwrap(), finding["code"].as_str().unwrap()))
        .collect();
    assert_eq!((code, seen), (1, vec![("./offer/terms.cedar", "obligation"), ("./bad/broken.cedar", "invalid")]));
    assert_eq!(all["files"], 4, "the offer's policy is checked with the offer, once");
    assert!(all["findings"][0]["message"].as_str().unwrap().contains("did you mean `id`"));
    assert_eq!(policy(folder.path(), &["check", "nowhere"]).code, 1);
}

#[test]
fn a_test_run_ends_by_its_cases() {
    let case = |expect: &str| {
        format!(
            "source = \"data.csv\"\n[[case]]\nname = \"third time\"\naction = \"release\"\nprincipal = {{ groups = [\"research\"] }}\ncontext = {{ count = 2 }}\nexpect = \"{expect}\"\n"
        )
    };
    let passing = case("allow");
    let folder = folder(&[("a.cedar", PERMIT), ("a.test.toml", &passing), ("data.csv", DATA)]);
    let write = |text: &str| fs::write(folder.path().join("a.test.toml"), text).unwrap();
    let ran = policy(folder.path(), &["test"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("✓ third time  allow") && ran.out.contains("covered 2/4"), "{}", ran.out);
    assert_eq!(policy(folder.path(), &["test", "--require-coverage"]).code, 1);
    write(&case("deny"));
    let failed = policy(folder.path(), &["test", "a.test.toml"]);
    assert_eq!(failed.code, 1);
    for line in ["✗ third time", "verdict: expected deny, got allow", "● permit a: applied: `context.count < 3`"] {
        assert!(failed.out.contains(line), "{line}: {}", failed.out);
    }
    let (code, value) = json(folder.path(), &["test"]);
    assert_eq!(
        (code, value["failed"].as_u64(), value["files"][0]["cases"][0]["passed"].as_bool()),
        (1, Some(1), Some(false))
    );
    assert_eq!(value["files"][0]["coverage"]["policies"][0]["satisfied"], 1);
    for nothing in
        ["source = \"data.csv\"\n", &passing.replace("expect", "expct"), &passing.replace("data.csv", "no.csv")]
    {
        write(nothing);
        assert_eq!(policy(folder.path(), &["test"]).code, 1, "{nothing}");
    }
    fs::remove_file(folder.path().join("a.test.toml")).unwrap();
    let none = policy(folder.path(), &["test"]);
    assert!(none.code == 1 && none.err.contains("no test file"), "{}", none.err);
}

#[test]
fn a_request_is_explained_and_its_bytes_are_shown() {
    let folder = folder(&[("a.cedar", PERMIT), ("data.csv", DATA), ("offer.toml", &offer("o", "a.cedar"))]);
    let request = ["--action", "release", "--group", "research", "--context", "count=3"];
    let ran = policy(folder.path(), &[&["explain", "a.cedar"], request.as_slice()].concat());
    assert!(
        ran.out.contains("○ permit a: did not apply: `context.count < 3` is not so: count is 3"),
        "{}{}",
        ran.out,
        ran.err
    );
    let (_, value) = json(folder.path(), &[&["explain", "offer.toml"], request.as_slice()].concat());
    assert_eq!(value["policies"][0]["sentence"]["zh"], "未适用：`context.count < 3` 不成立：使用次数(count)为 3");
    let slip = policy(folder.path(), &["explain", "a.cedar", "--action", "relase"]);
    assert!(slip.code == 1 && slip.err.contains("did you mean `release`"), "{}", slip.err);

    let (code, value) = json(folder.path(), &["preview", "offer.toml"]);
    assert_eq!((code, value["rows"].as_u64(), value["released"].as_u64()), (0, Some(3), Some(2)), "{value}");
    assert_eq!(value["leaving"], serde_json::json!(["id", "age"]));
    assert_eq!(value["after"][1]["age"], "30-39");
    assert!(value["after"][2].is_null(), "alone in its group");
    assert_ne!(value["after"][0]["id"], "1");
    assert_eq!(value["before"][2], serde_json::json!({ "id": "3", "name": "Cleo", "age": "52" }));
    let shown = policy(folder.path(), &["preview", "a.cedar", "--source", "data.csv", "--rows", "2"]);
    for part in ["31 → 30-39", "✗ Ann", "2 of 3 rows leave", "key of zeros"] {
        assert!(shown.out.contains(part), "{part}: {}{}", shown.out, shown.err);
    }
    assert!(!shown.out.contains("Cleo") && !shown.out.contains('\x1b'));
    let refused =
        policy(folder.path(), &[&["preview", "a.cedar", "--source", "data.csv"], request.as_slice()].concat());
    assert!(refused.code == 1 && refused.err.contains("policy-no-permit"), "{}", refused.err);
    let unknown = policy(folder.path(), &["preview", "a.cedar", "--source", "data.csv", "--policies", "b"]);
    assert!(unknown.code == 1 && unknown.err.contains("there are a"), "{}", unknown.err);

    let (_, value) = json(folder.path(), &["show", "a.cedar"]);
    assert_eq!(value["policies"][0]["parts"][0]["phase"], "during");
    assert_eq!(value["policies"][0]["facts"][0]["source"], "verified");
}

#[test]
fn offers_of_one_dataset_are_compared() {
    let folder = folder(&[
        ("a/offer.toml", &offer("a", "p.cedar")),
        ("a/p.cedar", PERMIT),
        ("b/offer.toml", &offer("b", "p.cedar")),
        ("b/p.cedar", &PERMIT.replace("band(age, 10); drop(name)", "filter(age > 40)")),
        ("data.csv", DATA),
        (
            "past.json",
            r#"[{"offer":"a","dataset":"people","snapshot":"1","obligations":{"atLeast":{"k":2,"columns":["age"]}}},
                          {"offer":"a","dataset":"people","snapshot":"2","obligations":{"atLeast":{"k":2,"columns":["age"]}}}]"#,
        ),
    ]);
    let (code, value) = json(folder.path(), &["releases", ".", "--root", ".", "--history", "past.json"]);
    let codes: Vec<&str> =
        value["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect();
    assert_eq!((code, codes), (0, vec!["subtract-rows", "raw-elsewhere", "snapshot-changed"]), "{value}");
    assert_eq!(policy(folder.path(), &["releases", ".", "--deny-warnings"]).code, 1);
}
