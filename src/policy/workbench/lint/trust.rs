//! What a permit rests on, and what nobody's machine sees to.

use super::{Finding, Level, Looked};
use crate::policy::{
    Action, FactSource, Part, Reach,
    workbench::{PieceKind, Said},
};

pub(super) fn lint(looked: &[Looked<'_>], findings: &mut Vec<Finding>) {
    for policy in looked {
        findings.extend(declared_only(policy));
        promises(policy, findings);
    }
}

/// A permit that whoever says the right words gets.
fn declared_only(policy: &Looked<'_>) -> Option<Finding> {
    let compiled = policy.compiled;
    let about_someone = policy.anatomy.pieces.iter().any(|piece| piece.kind == PieceKind::Principal)
        || policy.anatomy.conjuncts().any(|piece| piece.tree.to_string().contains("{\"Var\":\"principal\"}"));
    let declared =
        !compiled.facts.is_empty() && compiled.facts.iter().all(|fact| fact.source() == FactSource::Declared);
    if !compiled.permit || about_someone || !declared || !compiled.before.is_empty() {
        return None;
    }
    let names: Vec<&str> = compiled.facts.iter().map(|fact| fact.name()).collect();
    let zh: Vec<String> = compiled.facts.iter().map(|fact| format!("{}({})", fact.zh(), fact.name())).collect();
    let at = policy.anatomy.conjuncts().next().map_or(0, |piece| piece.at);
    let said = Said::new(
        format!(
            "the permit `{}` rests only on what the partner says of itself ({}): nothing of it is verified",
            policy.id(),
            names.join(", ")
        ),
        format!("许可 {} 仅依据对方自行声明的内容（{}），没有任何一项经过核验", policy.id(), zh.join("、")),
    );
    let hint = Said::new(
        "add something verified: a group or role of the participant, an approval, a count",
        "请加入经核验的条件：参与方所属组或角色、审批、次数等",
    );
    Some(policy.finding(Level::Warning, "declared-only", at, said).hint(hint))
}

/// Clauses that are contract only.
fn promises(policy: &Looked<'_>, findings: &mut Vec<Finding>) {
    let named = |action: &&Action| policy.anatomy.text.contains(&format!("Action::\"{}\"", action.as_str()));
    let promised = |action: &&Action| matches!(action, Action::Use(of) if of.reach() == Reach::Promise);
    let actions: Vec<&Action> = policy.compiled.actions.iter().filter(promised).filter(named).collect();
    if !actions.is_empty() {
        let names: Vec<String> = actions.iter().map(|action| format!("`{}`", action.as_str())).collect();
        let zh: Vec<String> = actions.iter().map(|action| format!("{}({})", action.zh(), action.as_str())).collect();
        let at = policy.anatomy.pieces.iter().find(|piece| piece.kind == PieceKind::Action).map_or(0, |piece| piece.at);
        let said = Said::new(
            format!("contract only: no connector sees {}, so nobody's machine enforces this", names.join(", ")),
            format!("仅为合同约定：任何连接器都看不到{}，因此没有系统能够强制执行", zh.join("、")),
        );
        findings.push(policy.finding(Level::Note, "contract-only", at, said));
    }
    for part in &policy.compiled.parts {
        if let Part::Contract(words) = part {
            let said = Said::new(
                format!("contract only: \"{words}\" is a promise that no machine sees to"),
                format!("仅为合同约定：“{words}”没有系统能够强制执行"),
            );
            findings.push(policy.finding(Level::Note, "contract-only", policy.annotation("contract"), said));
        }
    }
}
