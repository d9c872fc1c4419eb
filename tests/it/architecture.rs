//! The rooms import only from rooms below them.

use std::{fs, path::Path};

/// From the top to the ground; a room may use what stands after it.
const ROOMS: [&str; 22] = [
    "cli",
    "node",
    "console",
    "api",
    "exchange",
    "evidence",
    "dataplane",
    "vault",
    "agreement",
    "offer",
    "transform",
    "source",
    "policy",
    "protocol",
    "receipt",
    "identity",
    "net",
    "store",
    "crypto",
    "config",
    "error",
    "ground",
];

fn place(room: &str) -> usize {
    // ids and time are the ground, and know each other
    let room = if matches!(room, "id" | "time") { "ground" } else { room };
    ROOMS.iter().position(|known| *known == room).unwrap_or_else(|| panic!("`{room}` is in no list of rooms"))
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The rooms that a source names: `crate::room` and, in `use crate::{…}`, each first segment.
fn named(source: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in source.match_indices("crate::") {
        let rest = &source[at + "crate::".len()..];
        let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut item = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => rooms.push(word(std::mem::take(&mut item).trim())),
                    _ => {}
                }
                if depth == 0 && c != ',' || depth > 0 {
                    item.push(c);
                }
            }
            rooms.push(word(item.trim()));
        } else {
            rooms.push(word(rest));
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

/// Breaks that are known, each with its reason; nothing may be added without one.
const KNOWN: [(&str, &str); 0] = [];

#[test]
fn a_room_imports_only_from_rooms_below_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    assert!(all.len() > 80, "{} files: is this the house?", all.len());
    let mut wrong = Vec::new();
    for file in all {
        let relative = file.strip_prefix(&src).unwrap();
        let room = relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if matches!(room, "lib" | "main") {
            continue;
        }
        let source = fs::read_to_string(&file).unwrap();
        // tests may look at any room
        let code = source.split("#[cfg(test)]").next().unwrap();
        if relative
            .components()
            .any(|part| part.as_os_str().to_str().is_some_and(|name| name.starts_with("tests") || name == "golden.rs"))
        {
            continue;
        }
        for other in named(code) {
            if place(&other) < place(room) && !KNOWN.contains(&(room, other.as_str())) {
                wrong.push(format!("{} names crate::{other}, which is above it", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_reads_them() {
    assert_eq!(named("use crate::{a::{b, c}, d, e::f};\nuse crate::g::h;"), ["a", "d", "e", "g"]);
}

#[test]
fn every_reason_code_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documented = fs::read_to_string(root.join("docs/reason-codes.md")).unwrap();
    let mut all = Vec::new();
    files(&root.join("src"), &mut all);
    let mut seen = std::collections::BTreeSet::new();
    for file in all {
        let source = fs::read_to_string(&file).unwrap();
        let code = source.split("#[cfg(test)]").next().unwrap();
        let relative = file.strip_prefix(root.join("src")).unwrap().display().to_string();
        if relative.contains("tests") || relative.ends_with("golden.rs") {
            continue;
        }
        let mut calls = vec!["Refusal::new(", "refuse(", "ProtocolError::bad("];
        if relative.starts_with("evidence") {
            calls.push(".wrong(");
        }
        for call in calls {
            for (at, _) in code.match_indices(call) {
                let rest = code[at + call.len()..].trim_start();
                if let Some(text) = rest.strip_prefix('"')
                    && let Some((found, _)) = text.split_once('"')
                {
                    seen.insert(found.to_owned());
                }
            }
        }
    }
    assert!(seen.len() > 80, "{} codes: are these all?", seen.len());
    let missing: Vec<&String> = seen.iter().filter(|code| !documented.contains(&format!("| `{code}` |"))).collect();
    assert!(missing.is_empty(), "not in docs/reason-codes.md: {missing:?}");
}

/// Rows of one prefix are one thing: what lists them reads all of them.
#[test]
fn every_prefix_of_rows_has_one_owner() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    let mut owners = std::collections::BTreeMap::<String, Vec<String>>::new();
    for file in all {
        let relative = file.strip_prefix(&src).unwrap().display().to_string();
        if relative.contains("tests") {
            continue;
        }
        let source = fs::read_to_string(&file).unwrap();
        let code = source.split("#[cfg(test)]").next().unwrap();
        for (at, _) in code.match_indices('"') {
            let text: String = code[at + 1..].chars().take_while(|c| *c != '"').take(5).collect();
            let prefix = text.strip_suffix('/').filter(|letters| {
                (1..=3).contains(&letters.len()) && letters.bytes().all(|letter| letter.is_ascii_lowercase())
            });
            if prefix.is_some() {
                owners.entry(text).or_default().push(relative.clone());
            }
        }
    }
    assert!(owners.len() > 30, "{} prefixes: are these all?", owners.len());
    owners.retain(|_, files| files.len() > 1);
    assert!(owners.is_empty(), "a prefix is written down in several places: {owners:?}");
}
