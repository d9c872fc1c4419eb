//! Policies that never apply, that are always overridden, or that add nothing.

use super::{Finding, Level, Looked, atoms::always};
use crate::policy::{
    Action, Duties, Obligations, Part,
    workbench::{Said, lint::atoms::atom},
};

pub(super) fn lint(looked: &[Looked<'_>], findings: &mut Vec<Finding>) {
    for policy in looked {
        alone(policy, findings);
    }
    let possible: Vec<&Looked<'_>> = looked.iter().filter(|policy| policy.known.impossible().is_none()).collect();
    for (place, policy) in possible.iter().enumerate() {
        let others = possible.iter().enumerate().filter(|(other, _)| *other != place);
        // one reason why a policy is idle is enough
        let reason = others
            .map(|(other, wider)| (other < place, *wider))
            .find_map(|(earlier, wider)| beside(policy, wider, earlier));
        findings.extend(reason);
    }
}

fn alone(policy: &Looked<'_>, findings: &mut Vec<Finding>) {
    let (id, effect, zh) = (policy.id(), effect(policy), effect_zh(policy));
    if let Some(about) = policy.known.impossible() {
        let at = policy.anatomy.conjuncts().next().map_or(0, |piece| piece.at);
        let said = Said::new(
            format!("the {effect} `{id}` can never apply: what it demands of `{about}` contradicts itself"),
            format!("{zh} {id} 永远不会适用：对 {about} 的要求自相矛盾"),
        );
        let hint = Said::new("change the condition, or take the policy out", "请修改条件，或删除该策略");
        findings.push(policy.finding(Level::Warning, "never-applies", at, said).hint(hint));
        return;
    }
    for piece in policy.anatomy.conjuncts().filter(|piece| always(&atom(piece))) {
        let said = Said::new(
            format!("`{}` is always so: it limits nothing", piece.shown()),
            format!("`{}` 恒成立：不起任何限制作用", piece.shown()),
        );
        let hint = Said::new("leave it out, or write what is meant", "请删除，或写明真正的限制");
        findings.push(policy.finding(Level::Warning, "always-true", piece.at, said).hint(hint));
    }
}

/// Why a policy is idle beside one that is as wide.
fn beside(policy: &Looked<'_>, wider: &Looked<'_>, earlier: bool) -> Option<Finding> {
    let within = |narrow: &Looked<'_>, wide: &Looked<'_>| {
        narrow.compiled.actions.is_subset(&wide.compiled.actions) && narrow.known.implies_all(&wide.known)
    };
    if !within(policy, wider) {
        return None;
    }
    let (id, other) = (policy.id(), wider.id());
    match (policy.compiled.permit, wider.compiled.permit) {
        (true, false) => {
            let said = Said::new(
                format!(
                    "the permit `{id}` never lets anything happen: wherever it applies, the forbid `{other}` applies too"
                ),
                format!("许可 {id} 从不生效：凡其适用之处，禁止 {other} 也适用"),
            );
            let hint = Said::new(
                format!("narrow the condition of `{other}`, or take `{id}` out"),
                format!("请收窄 {other} 的条件，或删除 {id}"),
            );
            Some(policy.finding(Level::Warning, "always-forbidden", 0, said).hint(hint))
        }
        (true, true) if adds_nothing(policy, wider) => {
            same_effect(policy, wider, within(wider, policy) && adds_nothing(wider, policy), earlier)
        }
        (false, false) => same_effect(policy, wider, within(wider, policy), earlier),
        _ => None,
    }
}

fn same_effect(policy: &Looked<'_>, wider: &Looked<'_>, alike: bool, earlier: bool) -> Option<Finding> {
    let (id, other, effect, zh) = (policy.id(), wider.id(), effect(policy), effect_zh(policy));
    if alike {
        // said once, of the later one
        let said = Said::new(
            format!("the {effect} `{id}` says the same as `{other}`"),
            format!("{zh} {id} 与 {other} 完全相同"),
        );
        let hint = Said::new("take one of them out", "请删除其中之一");
        return earlier.then(|| policy.finding(Level::Warning, "duplicate", 0, said).hint(hint));
    }
    let (more, more_zh) = match policy.compiled.permit {
        true => (", with all that it demands and more", "，且其全部义务均已包含"),
        false => ("", ""),
    };
    let said = Said::new(
        format!("the {effect} `{id}` changes nothing: wherever it applies, `{other}` applies too{more}"),
        format!("{zh} {id} 不产生任何效果：凡其适用之处，{other} 也适用{more_zh}"),
    );
    let hint = Said::new(
        format!("take `{id}` out, or narrow `{other}`; obligations of all permits that apply are met together"),
        format!("请删除 {id}，或收窄 {other}；所有适用许可的义务一并执行"),
    );
    Some(policy.finding(Level::Warning, "redundant", 0, said).hint(hint))
}

/// Whether a permit demands nothing that the wider one doesn't.
fn adds_nothing(policy: &Looked<'_>, wider: &Looked<'_>) -> bool {
    let (own, theirs) = (policy.compiled, wider.compiled);
    let released = own.actions.contains(&Action::Release);
    let alone = Obligations::meet(&theirs.obligations);
    let both = Obligations::meet(theirs.obligations.iter().chain(&own.obligations));
    let after = Duties::meet(&theirs.after) == Duties::meet(theirs.after.iter().chain(&own.after));
    let contract = |part: &&Part| matches!(part, Part::Contract(_));
    (!released || alone == both)
        && after
        && own.before.iter().all(|before| theirs.before.contains(before))
        && own.parts.iter().filter(contract).all(|part| theirs.parts.contains(part))
}

fn effect(policy: &Looked<'_>) -> &'static str {
    if policy.compiled.permit { "permit" } else { "forbid" }
}

fn effect_zh(policy: &Looked<'_>) -> &'static str {
    if policy.compiled.permit { "许可" } else { "禁止" }
}
