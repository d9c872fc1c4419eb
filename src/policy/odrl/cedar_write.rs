//! Cedar from rules.

use std::{collections::BTreeSet, fmt::Write as _};

use crate::policy::{
    Action, UseAction,
    odrl::{
        literal::quoted,
        rule::{Atom, Expr, Op, Right, Rule, Statement},
        term::Kind,
    },
    value::span,
};

/// Each with the place that it comes from.
pub(super) fn policies(rules: &[(String, Rule)]) -> String {
    let mut text = "// Read from ODRL; each policy says from which rule.\n".to_owned();
    for (place, rule) in rules {
        let _ = write!(text, "\n// {place}\n{}", policy(rule));
    }
    text
}

fn policy(rule: &Rule) -> String {
    let mut text = format!("@id({})\n", quoted(&rule.id));
    let annotations = [("before", &rule.before), ("during", &rule.during), ("after", &rule.after)];
    for (key, statements) in annotations.into_iter().filter(|(_, statements)| !statements.is_empty()) {
        let written: Vec<String> = statements.iter().map(Statement::written).collect();
        let _ = writeln!(text, "@{key}({})", quoted(&written.join("; ")));
    }
    if let Some(words) = &rule.contract {
        let _ = writeln!(text, "@contract({})", quoted(words));
    }
    let effect = if rule.permit { "permit" } else { "forbid" };
    let _ = write!(text, "{effect} (principal, {}, resource)", scope(&rule.actions));
    match &rule.when {
        Expr::All(parts) if parts.is_empty() => {}
        when => {
            let _ = write!(text, "\nwhen {{ {} }}", expression(when, false));
        }
    }
    text.push_str(";\n");
    text
}

/// `action`, `action == …` or `action in […]`.
fn scope(actions: &BTreeSet<Action>) -> String {
    if actions.len() == Action::all().count() {
        return "action".to_owned();
    }
    let uses: BTreeSet<Action> = UseAction::ALL.into_iter().map(Action::Use).collect();
    let mut names: Vec<&str> = Vec::new();
    if actions.is_superset(&uses) {
        names.extend(actions.difference(&uses).map(|action| action.as_str()));
        names.push("use");
    } else {
        names.extend(actions.iter().map(|action| action.as_str()));
    }
    match names.as_slice() {
        [one] if *one != "use" => format!("action == Action::{}", quoted(one)),
        [one] => format!("action in Action::{}", quoted(one)),
        several => {
            let several: Vec<String> = several.iter().map(|name| format!("Action::{}", quoted(name))).collect();
            format!("action in [{}]", several.join(", "))
        }
    }
}

fn expression(expr: &Expr, inner: bool) -> String {
    let joined = |parts: &[Expr], with: &str| {
        let parts: Vec<String> = parts.iter().map(|part| expression(part, true)).collect();
        let text = parts.join(with);
        if inner && parts.len() > 1 { format!("({text})") } else { text }
    };
    match expr {
        Expr::All(parts) if parts.is_empty() => "true".to_owned(),
        Expr::Any(parts) if parts.is_empty() => "false".to_owned(),
        Expr::All(parts) => joined(parts, " && "),
        Expr::Any(parts) => joined(parts, " || "),
        Expr::Is(atom) => comparison(atom),
    }
}

fn comparison(atom: &Atom) -> String {
    let path = atom.term.cedar.as_str();
    let not = if atom.op == Op::NoneOf { "!" } else { "" };
    let sign = match atom.op {
        Op::Neq => "!=",
        Op::Lt => "<",
        Op::Lteq => "<=",
        Op::Gt => ">",
        Op::Gteq => ">=",
        _ => "==",
    };
    let listed = |texts: &[String], kind: &str| {
        let texts: Vec<String> = texts.iter().map(|text| format!("{kind}{}", quoted(text))).collect();
        format!("[{}]", texts.join(", "))
    };
    match (atom.term.kind, &atom.right) {
        (Kind::Recipient, Right::Text(group)) if atom.op == Op::PartOf => {
            format!("principal in Group::{}", quoted(group))
        }
        (Kind::Recipient, Right::Text(id)) => format!("principal {sign} Participant::{}", quoted(id)),
        (Kind::Dataset, Right::Text(id)) => format!("resource {sign} Dataset::{}", quoted(id)),
        (Kind::Recipient, Right::Texts(ids)) => format!("{not}({path} in {})", listed(ids, "Participant::")),
        (Kind::Dataset, Right::Texts(ids)) => format!("{not}({path} in {})", listed(ids, "Dataset::")),
        (Kind::Groups, Right::Texts(groups)) => format!("{not}(principal in {})", listed(groups, "Group::")),
        (Kind::Collections, Right::Texts(of)) => format!("{not}(resource in {})", listed(of, "Collection::")),
        (Kind::Texts, Right::Texts(texts)) => match atom.op {
            Op::AllOf => format!("{path}.containsAll({})", listed(texts, "")),
            Op::PartOf => format!("{}.containsAll({path})", listed(texts, "")),
            _ => format!("{not}{path}.containsAny({})", listed(texts, "")),
        },
        (_, Right::Texts(texts)) => format!("{not}{}.contains({path})", listed(texts, "")),
        (_, Right::Ip(network)) if atom.op == Op::PartOf => format!("{path}.isInRange(ip({}))", quoted(network)),
        (_, Right::Decimal(money)) => {
            let money = format!("decimal({})", quoted(&money.to_string()));
            match atom.op {
                Op::Lt => format!("{path}.lessThan({money})"),
                Op::Lteq => format!("{path}.lessThanOrEqual({money})"),
                Op::Gt => format!("{path}.greaterThan({money})"),
                Op::Gteq => format!("{path}.greaterThanOrEqual({money})"),
                _ => format!("{path} {sign} {money}"),
            }
        }
        (_, Right::Text(text)) => format!("{path} {sign} {}", quoted(text)),
        (_, Right::Long(number)) => format!("{path} {sign} {number}"),
        (_, Right::Time(at)) => format!("{path} {sign} datetime({})", quoted(&at.to_string())),
        (_, Right::Span(millis)) => format!("{path} {sign} duration({})", quoted(&span(*millis))),
        (_, Right::Ip(address)) => format!("{path} {sign} ip({})", quoted(address)),
    }
}
