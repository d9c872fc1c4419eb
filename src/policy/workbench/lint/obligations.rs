//! Obligations that undo each other.

use std::collections::BTreeSet;

use super::{Finding, Level, Looked};
use crate::policy::{
    Action, ColumnRule, Columns, Obligation, Obligations,
    workbench::{Said, written},
};

pub(super) fn lint(
    looked: &[Looked<'_>],
    floors: &[Obligation],
    columns: &Columns,
    known: bool,
    findings: &mut Vec<Finding>,
) {
    for policy in looked.iter().filter(|policy| !policy.compiled.obligations.is_empty()) {
        one(policy, findings);
        let together = policy.compiled.obligations.iter().chain(floors);
        let met = Obligations::meet(together);
        if known && columns.iter().all(|column| !leaves(&met, &column.name)) {
            let said = Said::new(
                format!("no column is left of what `{}` releases: every release under it fails", policy.id()),
                format!("{} 放行后不剩任何字段：其下的每次放行都会失败", policy.id()),
            );
            findings.push(policy.finding(Level::Error, "nothing-left", policy.annotation("during"), said));
        }
        if let Some(at_least) = met.at_least.as_ref().filter(|_| !met.matching.is_empty()) {
            let said = Said::new(
                format!(
                    "`match` and `at_least({}, …)` together refuse every request: a known value may not be asked for where rows leave in groups",
                    at_least.k
                ),
                format!("match 与 at_least({}, …) 并用会拒绝所有请求：按组放行时不得按已知值查询", at_least.k),
            );
            findings.push(policy.finding(Level::Error, "match-in-groups", policy.annotation("during"), said));
        }
        against(
            policy,
            &Obligations::meet(&policy.compiled.obligations),
            &Obligations::meet(floors),
            "the floor",
            "底线要求",
            findings,
        );
    }
    for (place, first) in looked.iter().enumerate() {
        for second in &looked[place + 1..] {
            let releases =
                |policy: &Looked<'_>| policy.compiled.permit && policy.compiled.actions.contains(&Action::Release);
            if releases(first) && releases(second) && first.known.and(&second.known).impossible().is_none() {
                let met = |policy: &Looked<'_>| Obligations::meet(&policy.compiled.obligations);
                let name = format!("`{}`", first.id());
                against(second, &met(second), &met(first), &name, &name, findings);
            }
        }
    }
}

fn leaves(obligations: &Obligations, column: &str) -> bool {
    obligations.columns.get(column) != Some(&ColumnRule::Drop)
        && obligations.keep.as_ref().is_none_or(|keep| keep.contains(column))
}

/// Columns that go only because two demands on them have nothing in common.
fn against(
    policy: &Looked<'_>,
    own: &Obligations,
    other: &Obligations,
    name: &str,
    zh: &str,
    findings: &mut Vec<Finding>,
) {
    for (column, rule) in &own.columns {
        let Some(theirs) = other.columns.get(column) else { continue };
        let dropped = *rule != ColumnRule::Drop
            && *theirs != ColumnRule::Drop
            && rule.clone().meet(theirs.clone()) == ColumnRule::Drop;
        if !dropped {
            continue;
        }
        let shown = |rule: &ColumnRule| {
            let columns = [(column.clone(), rule.clone())].into();
            written(&Obligations { columns, ..Obligations::default() }).join("; ")
        };
        let said = Said::new(
            format!(
                "where `{}` and {name} hold together, the column `{column}` is dropped: `{}` and `{}` have nothing in common",
                policy.id(),
                shown(rule),
                shown(theirs)
            ),
            format!(
                "当 {} 与 {zh} 同时适用时，字段 {column} 会被删除：`{}` 与 `{}` 无法兼顾",
                policy.id(),
                shown(rule),
                shown(theirs)
            ),
        );
        let hint = Said::new(
            "demand the same of the column in both, if it is to leave",
            "若该字段需要放行，请在两处写同样的要求",
        );
        findings.push(policy.finding(Level::Note, "meets-to-drop", policy.annotation("during"), said).hint(hint));
    }
}

/// What the obligations of one permit do to each other.
fn one(policy: &Looked<'_>, findings: &mut Vec<Finding>) {
    let list = &policy.compiled.obligations;
    let named = |pick: &dyn Fn(&Obligation) -> Option<&Vec<String>>| -> BTreeSet<String> {
        list.iter().filter_map(pick).flatten().cloned().collect()
    };
    let dropped = named(&|one| if let Obligation::Drop(columns) = one { Some(columns) } else { None });
    let met = Obligations::meet(list);
    let mut say = |level, code, said: Said, hint: Said| {
        findings.push(policy.finding(level, code, policy.annotation("during"), said).hint(hint));
    };
    for column in met.keep.iter().flatten().filter(|column| dropped.contains(*column)) {
        say(
            Level::Warning,
            "keep-and-drop",
            Said::new(
                format!("the column `{column}` is in `keep` and in `drop`: it is dropped"),
                format!("字段 {column} 同时出现在 keep 与 drop 中：会被删除"),
            ),
            Said::new("name it in one of them", "请只写在其中之一"),
        );
    }
    for one in list {
        let Some(column) = ruled(one) else { continue };
        let gone = dropped.contains(column) || met.keep.as_ref().is_some_and(|keep| !keep.contains(column));
        if gone {
            say(
                Level::Warning,
                "rule-on-removed",
                Said::new(
                    format!("the column `{column}` doesn't leave at all: what else is demanded of it does nothing"),
                    format!("字段 {column} 根本不会放行：对其的其他要求不起作用"),
                ),
                Said::new("take that out, or let the column leave", "请删除该要求，或放行该字段"),
            );
        }
    }
    let Some(groups) = &met.at_least else { return };
    let grouped: Vec<&String> = groups.columns.iter().filter(|column| leaves(&met, column)).collect();
    for column in groups.columns.iter().filter(|column| !leaves(&met, column)) {
        say(
            Level::Warning,
            "group-by-removed",
            Said::new(
                format!("`at_least` groups by `{column}`, which doesn't leave: it separates nobody"),
                format!("at_least 按 {column} 分组，而该字段不放行：不起分组作用"),
            ),
            Said::new("take it out of `at_least`", "请从 at_least 中删除"),
        );
    }
    let flat = |column: &&String| matches!(met.columns.get(*column), Some(ColumnRule::Redact | ColumnRule::Nullify));
    if !grouped.is_empty() && grouped.iter().all(flat) {
        say(
            Level::Warning,
            "one-group",
            Said::new(
                "`at_least` groups by columns that are alike in all rows once they leave: there is one group only",
                "at_least 所依据的字段放行后在所有行中相同：只有一个组",
            ),
            Said::new("group by columns whose values leave", "请按放行其值的字段分组"),
        );
    }
}

/// The column whose values an obligation changes.
fn ruled(obligation: &Obligation) -> Option<&String> {
    match obligation {
        Obligation::Redact(column)
        | Obligation::Nullify(column)
        | Obligation::Hash { column, .. }
        | Obligation::ShowFirst(column, _)
        | Obligation::ShowLast(column, _)
        | Obligation::Year(column)
        | Obligation::Band(column, _)
        | Obligation::Round(column, _) => Some(column),
        _ => None,
    }
}
