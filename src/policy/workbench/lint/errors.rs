//! Everything that is wrong, not only the first.

use std::{collections::BTreeMap, str::FromStr as _};

use cedar_policy::{Policy, PolicySet};

use super::{Checked, Finding, Level, compile};
use crate::policy::{
    PolicyError, PolicySource, bounds,
    problem::{explained, line_column, offset},
    workbench::{Said, on_deep_stack, scan},
};

/// What is wrong with policies and floors: each policy is compiled by itself, at its own place.
pub(super) fn all(checked: &Checked<'_>) -> Vec<Finding> {
    let found = on_deep_stack(|| {
        let mut findings = Vec::new();
        let mut ids = BTreeMap::new();
        let mut broken = false;
        for (source, other) in [(checked.own, checked.global), (checked.global, checked.own)] {
            broken |= of_source(checked, source, other, &mut ids, &mut findings);
        }
        if !broken {
            floors(checked, &mut findings);
        }
        findings
    })
    .unwrap_or_default();
    if !found.is_empty() {
        return found;
    }
    // only together do they not compile
    let error = compile(checked).err();
    error.map(|error| vec![finding(&error, checked.own, 0)]).unwrap_or_default()
}

/// True if the text can't be parsed.
fn of_source<'a>(
    checked: &Checked<'_>,
    source: PolicySource<'a>,
    other: PolicySource<'_>,
    ids: &mut BTreeMap<String, (String, usize)>,
    findings: &mut Vec<Finding>,
) -> bool {
    let PolicySource { name, text } = source;
    let is_own = name == checked.own.name && text == checked.own.text;
    if let Err(out) = bounds::check(text) {
        let said = Said::new(out.problem.clone(), format!("文本超出允许范围：{}", out.problem));
        findings.push(Finding::new(Level::Error, "syntax", name, line_column(text, out.offset)).said(said));
        return true;
    }
    let set = match PolicySet::from_str(text) {
        Ok(set) => set,
        Err(errors) => {
            for error in errors.iter() {
                let problem = explained(error);
                let said = Said::new(problem.clone(), format!("不是合法的 Cedar 文本：{problem}"));
                findings.push(
                    Finding::new(Level::Error, "syntax", name, line_column(text, offset(error).unwrap_or(0)))
                        .said(said),
                );
            }
            return true;
        }
    };
    if set.templates().next().is_some() {
        findings.push(finding(&PolicyError::Template(name.to_owned()), source, 0));
    }
    if is_own && set.is_empty() {
        findings.push(finding(&PolicyError::Empty(name.to_owned()), source, 0));
    }
    let mut in_order: Vec<&Policy> = set.policies().collect();
    in_order.sort_by_key(|policy| number_of(policy));
    let mut cursor = 0;
    for policy in in_order {
        let written = policy.to_string();
        let start = scan::place_of(&written, text, cursor).unwrap_or(0);
        cursor = start + 1;
        let id = policy.annotation("id").filter(|id| !id.is_empty()).map(str::to_owned);
        if let Some(id) = &id
            && let Some((first, line)) = ids.insert(id.clone(), (name.to_owned(), line_column(text, start).0))
        {
            let said = Said::new(
                format!("the id `{id}` is taken already, at {first}:{line}; receipts could not tell the two apart"),
                format!("标识 {id} 已在 {first}:{line} 使用；凭证将无法区分"),
            );
            let mut finding = Finding::new(Level::Error, "id-twice", name, line_column(text, start)).said(said);
            finding.policy = Some(id.clone());
            findings.push(finding);
        }
        // the same place in a text of its own
        let before: String = text[..start].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        let alone = format!("{before}{written}");
        let own = PolicySource { name, text: &alone };
        let empty = PolicySource { name: other.name, text: "" };
        let one = Checked { own, global: empty, floor: "", connector_floor: "", ..*checked };
        if let Err(error) = compile(&one) {
            let error = match error {
                PolicyError::NoId { file, .. } => PolicyError::NoId { file, number: number_of(policy) + 1 },
                other => other,
            };
            let mut finding = finding(&error, source, start);
            finding.policy = finding.policy.or(id);
            findings.push(finding);
        }
    }
    false
}

fn floors(checked: &Checked<'_>, findings: &mut Vec<Finding>) {
    let text = "@id(\"floor\") permit (principal, action, resource);";
    for (floor, connector_floor) in [(checked.floor, ""), ("", checked.connector_floor)] {
        let own = PolicySource { name: checked.own.name, text };
        let global = PolicySource { name: checked.global.name, text: "" };
        if let Err(error) = compile(&Checked { own, global, floor, connector_floor, ..*checked }) {
            findings.push(finding(&error, PolicySource { text: "", ..checked.own }, 0));
        }
    }
}

fn number_of(policy: &Policy) -> usize {
    policy.id().to_string().trim_start_matches("policy").parse().unwrap_or(0)
}

/// An error of the compiler as a finding; `start`: where its policy stands, if the error doesn't say.
fn finding(error: &PolicyError, source: PolicySource<'_>, start: usize) -> Finding {
    let text = error.to_string();
    let (code, zh, policy) = match error {
        PolicyError::Syntax { .. } => ("syntax", "不是合法的 Cedar 文本", None),
        PolicyError::Invalid { policy, .. } => ("invalid", "不符合策略模式", Some(policy)),
        PolicyError::Has { policy, .. } => ("unknown-attribute", "没有该属性", Some(policy)),
        PolicyError::Template(_) => ("template", "不接受带占位符的策略模板", None),
        PolicyError::Empty(_) => ("no-policy", "文件中没有策略，任何人都不会被允许", None),
        PolicyError::TooLong(_) => ("too-long", "策略文本过长", None),
        PolicyError::NoId { .. } => ("no-id", "策略缺少 @id，凭证以其指明作出决定的策略", None),
        PolicyError::BadId { .. } => ("bad-id", "@id 含有不允许的字符或过长", None),
        PolicyError::Twice { .. } => ("id-twice", "两条策略的 @id 相同", None),
        PolicyError::Annotation { policy, .. } => ("unknown-annotation", "未知的注解", Some(policy)),
        PolicyError::EmptyAnnotation { policy, .. } => ("empty-annotation", "注解为空", Some(policy)),
        PolicyError::OnForbid { policy, .. } => ("obligation-on-forbid", "义务只能写在 permit 上", Some(policy)),
        PolicyError::NoRelease { policy, .. } => ("obligation-nowhere", "该许可不涉及此注解所针对的操作", Some(policy)),
        PolicyError::Obligation { .. } => ("obligation", "义务无法执行", None),
        PolicyError::Schema(_) => ("schema", "Cedar 模式无法使用", None),
        PolicyError::Thread(_) => ("no-thread", "无法创建线程", None),
    };
    let place = match error {
        PolicyError::Syntax { line, column, .. } | PolicyError::Invalid { line, column, .. } => (*line, *column),
        // the annotation's own line, where it is about one
        PolicyError::Obligation { place, .. } => {
            let at = annotation(place).and_then(|key| source.text.get(start..)?.find(&format!("@{key}")));
            line_column(source.text, start + at.unwrap_or(0))
        }
        _ => line_column(source.text, start),
    };
    // the place and the policy are said beside it
    let problem = match error {
        PolicyError::Syntax { problem, .. } | PolicyError::Invalid { problem, .. } => problem.clone(),
        PolicyError::Obligation { place, error } => match annotation(place) {
            Some(key) => format!("`@{key}`: {error}"),
            None => format!("{place}: {error}"),
        },
        _ => text,
    };
    let mut finding = Finding::new(Level::Error, code, source.name, place)
        .said(Said::new(problem.clone(), format!("{zh}（{problem}）")));
    finding.policy = policy.cloned();
    finding
}

/// The annotation that an obligation's place names.
fn annotation(place: &str) -> Option<&str> {
    place.rsplit_once("`@")?.1.strip_suffix('`')
}
