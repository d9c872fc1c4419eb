//! Likely slips of the hand: texts that nothing ever equals, times that are over.

use serde_json::Value as Json;

use super::{Finding, Level, Looked, atoms};
use crate::{
    policy::{
        Columns,
        problem::did_you_mean,
        workbench::{Piece, PieceKind, Said, anatomy::path_of},
    },
    time::Timestamp,
};

pub(super) fn lint(looked: &[Looked<'_>], columns: Option<&Columns>, now: Timestamp, findings: &mut Vec<Finding>) {
    for policy in looked {
        for piece in policy.anatomy.conjuncts() {
            over(policy, piece, now, findings);
            let mut literals = Vec::new();
            compared(&piece.tree, &mut literals);
            for (path, text) in literals {
                let Some((code, said, hint)) = slip(&path, &text, columns) else { continue };
                findings.push(policy.finding(Level::Warning, code, piece.at, said).hint(hint));
            }
        }
        for piece in policy.anatomy.pieces.iter().filter(|piece| piece.kind == PieceKind::Principal) {
            let mut names = Vec::new();
            entities(&piece.tree, "Group", &mut names);
            for name in names {
                if let Some((code, said, hint)) = slip("principal.groups", &name, columns) {
                    findings.push(policy.finding(Level::Warning, code, piece.at, said).hint(hint));
                }
            }
        }
    }
}

/// `now <` a time that is over.
fn over(policy: &Looked<'_>, piece: &Piece, now: Timestamp, findings: &mut Vec<Finding>) {
    let atoms::Atom::Within { path, high, .. } = atoms::atom(piece) else { return };
    if path != "context.now" || high >= i128::from(now.millis()) {
        return;
    }
    let said = Said::new(
        format!("`{}` is over: `{}` applies no more", piece.shown(), policy.id()),
        format!("`{}` 已经过期：{} 不再适用", piece.shown(), policy.id()),
    );
    let hint = Said::new("put the time later, or take the policy out", "请推迟时间，或删除该策略");
    findings.push(policy.finding(Level::Warning, "over", piece.at, said).hint(hint));
}

/// What is odd about a text that a fact is compared with.
fn slip(path: &str, text: &str, columns: Option<&Columns>) -> Option<(&'static str, Said, Said)> {
    let spaced = text.contains(char::is_whitespace);
    let code_of = |known: &[&str]| (!text.is_empty() && !known.contains(&text)).then(|| known.join(", "));
    let hint = |en: &str, zh: &str| Said::new(en, zh);
    match path {
        "context.region"
        | "principal.jurisdiction"
        | "principal.roles"
        | "principal.certifications"
        | "principal.groups"
        | "context.approval"
            if spaced =>
        {
            let words: Vec<&str> = text.split_whitespace().collect();
            let place = matches!(path, "context.region" | "principal.jurisdiction");
            let trimmed = if place { words.concat().to_uppercase() } else { words.join("_") };
            let said = Said::new(
                format!("\"{text}\" has a space in it: names are compared letter by letter"),
                format!("“{text}”中含有空格：名称逐字比较"),
            );
            Some(("space-in-name", said, hint(&format!("is \"{trimmed}\" meant?"), &format!("是否应为“{trimmed}”？"))))
        }
        "context.region" | "principal.jurisdiction" if text.starts_with(|c: char| c.is_ascii_lowercase()) => {
            let upper = text.to_uppercase();
            let said = Said::new(
                format!(
                    "\"{text}\" is written in small letters: jurisdictions are ISO 3166 codes, such as CN or CN-44"
                ),
                format!("“{text}”为小写：法域使用 ISO 3166 代码，如 CN 或 CN-44"),
            );
            Some(("region-code", said, hint(&format!("is \"{upper}\" meant?"), &format!("是否应为“{upper}”？"))))
        }
        "context.region" | "principal.jurisdiction" | "context.purpose"
            if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            let said = Said::new(
                format!("\"{text}\" is a number in quotes: `{path}` is a text, and a number is hardly meant"),
                format!("“{text}”是加了引号的数字：{path} 为文本，可能并非本意"),
            );
            Some(("number-as-text", said, hint("write the name that partners give", "请写合作方使用的名称")))
        }
        "context.executionEnv" => {
            code_of(&["01", "02", "03", "04", "05", "06"]).map(|known| unknown_code(path, text, &known))
        }
        "context.encryptMode" => code_of(&["01", "02"]).map(|known| unknown_code(path, text, &known)),
        "context.deliveryMethod" => code_of(&["01", "02", "03"]).map(|known| unknown_code(path, text, &known)),
        "context.algorithm" if !text.is_empty() && !is_sha256(text) => {
            Some(unknown_code(path, text, "SHA-256 in 64 small hexadecimal digits"))
        }
        "context.dataField" if columns.is_some_and(|columns| columns.get(text).is_none()) => {
            let near = columns.and_then(|columns| columns.nearest(text));
            let said = Said::new(
                format!("the dataset has no column `{text}`{}", did_you_mean(near, "")),
                format!("数据集没有字段 {text}"),
            );
            Some(("unknown-column", said, hint("name a column of the dataset", "请写数据集中的字段")))
        }
        _ => None,
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn unknown_code(path: &str, text: &str, known: &str) -> (&'static str, Said, Said) {
    let name = path.trim_start_matches("context.");
    (
        "unknown-code",
        Said::new(format!("`{name}` is never \"{text}\""), format!("{name} 不会是“{text}”")),
        Said::new(format!("it is one of: {known}"), format!("取值为：{known}")),
    )
}

/// The facts that are compared with texts, wherever that stands in a condition.
fn compared(tree: &Json, found: &mut Vec<(String, String)>) {
    let Json::Object(members) = tree else {
        if let Json::Array(items) = tree {
            items.iter().for_each(|item| compared(item, found));
        }
        return;
    };
    for (sign, operands) in members {
        if matches!(sign.as_str(), "==" | "!=" | "contains" | "containsAny" | "containsAll") {
            for (one, other) in [("left", "right"), ("right", "left")] {
                let Some(path) = path_of(&operands[one]) else { continue };
                let path = path.join(".");
                let literal = &operands[other];
                let items: Vec<&Json> = match literal["Set"].as_array() {
                    Some(items) => items.iter().collect(),
                    None => vec![literal],
                };
                found.extend(items.into_iter().filter_map(atoms::text).map(|text| (path.clone(), text)));
            }
        }
        compared(operands, found);
    }
}

fn entities(tree: &Json, kind: &str, found: &mut Vec<String>) {
    match tree {
        Json::Object(members) => {
            if members.get("type").and_then(Json::as_str) == Some(kind)
                && let Some(id) = members.get("id").and_then(Json::as_str)
            {
                found.push(id.to_owned());
            }
            members.values().for_each(|member| entities(member, kind, found));
        }
        Json::Array(items) => items.iter().for_each(|item| entities(item, kind, found)),
        _ => {}
    }
}
