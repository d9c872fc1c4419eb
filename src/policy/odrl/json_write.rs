//! ODRL from rules, as the Dataspace Protocol's schema takes it: one action a rule, as text; numbers as typed text.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use crate::policy::{
    Action, UseAction,
    odrl::{
        NAMESPACE, literal,
        rule::{Atom, Expr, Op, Right, Rule, Statement},
        term,
    },
};

/// `permission` and `prohibition`, each where there is one.
pub(super) fn rules(rules: &[Rule]) -> Json {
    let mut policy = Map::new();
    for (name, permit) in [("permission", true), ("prohibition", false)] {
        let these: Vec<Json> = rules.iter().filter(|rule| rule.permit == permit).flat_map(each_action).collect();
        if !these.is_empty() {
            policy.insert(name.to_owned(), these.into());
        }
    }
    policy.into()
}

/// A rule of ODRL's for each name of its actions.
fn each_action(rule: &Rule) -> Vec<Json> {
    names(&rule.actions).into_iter().map(|(name, covers)| one(rule, &name, &covers)).collect()
}

/// Names that together mean exactly these actions, with what each of them covers.
fn names(actions: &BTreeSet<Action>) -> Vec<(String, BTreeSet<Action>)> {
    let uses: BTreeSet<Action> = UseAction::ALL.into_iter().map(Action::Use).collect();
    let mut left = actions.clone();
    let mut names = Vec::new();
    for (name, covers) in [("use".to_owned(), term::in_use().collect()), (term::any_use(), uses)] {
        if left.is_superset(&covers) {
            left.retain(|action| !covers.contains(action));
            names.push((name, covers));
        }
    }
    names.extend(left.into_iter().map(|action| (term::action(action), BTreeSet::from([action]))));
    names
}

fn one(rule: &Rule, name: &str, covers: &BTreeSet<Action>) -> Json {
    let mut written = Map::from_iter([("action".to_owned(), Json::from(name))]);
    let constraints = match &rule.when {
        Expr::All(parts) => parts.iter().map(constraint).collect(),
        other => vec![constraint(other)],
    };
    if !constraints.is_empty() {
        written.insert("constraint".to_owned(), constraints.into());
    }
    // a copy leaves by a release; nothing is done first to see or negotiate an offer
    let releases = covers.contains(&Action::Release);
    let first = covers.iter().any(|action| action.waits());
    let before = rule.before.iter().filter(|_| first);
    let later = rule.during.iter().chain(&rule.after).filter(|_| releases);
    let mut duties: Vec<Json> = before.chain(later).map(duty).collect();
    duties.extend(rule.contract.as_ref().map(|words| ours("contract", "statement", words.as_str().into())));
    if !duties.is_empty() {
        written.insert("duty".to_owned(), duties.into());
    }
    written.into()
}

fn constraint(expr: &Expr) -> Json {
    match expr {
        Expr::All(parts) => json!({ "and": parts.iter().map(constraint).collect::<Vec<_>>() }),
        Expr::Any(parts) => json!({ "or": parts.iter().map(constraint).collect::<Vec<_>>() }),
        Expr::Is(atom) => comparison(atom),
    }
}

fn comparison(atom: &Atom) -> Json {
    let (mut op, mut right) = (atom.op, atom.right.clone());
    if let (1, Right::Long(before)) = (atom.term.ahead, &right) {
        // "fewer than n before" is "at most n, with this one"; reading took care of what has no number after it
        right = Right::Long(if op == Op::Lt { *before } else { before.saturating_add(1) });
        op = if op == Op::Lt { Op::Lteq } else { op };
    }
    let right = match right {
        Right::Text(text) => text.into(),
        Right::Texts(texts) => texts.into(),
        Right::Long(number) => typed(&number.to_string(), "integer"),
        Right::Time(at) => typed(&at.to_string(), "dateTime"),
        Right::Span(millis) => typed(&literal::iso_span(millis), "duration"),
        Right::Decimal(money) => typed(&money.to_string(), "decimal"),
        Right::Ip(ip) => ip.into(),
    };
    json!({ "leftOperand": atom.term.odrl, "operator": op.as_str(), "rightOperand": right })
}

/// A duty. ODRL's own action where there is one that means it.
fn duty(statement: &Statement) -> Json {
    let argument = statement.arguments.as_str();
    let constrained = |action: &str, left: &str, operator: &str, right: Json| {
        json!({
            "action": action,
            "constraint": [{ "leftOperand": left, "operator": operator, "rightOperand": right }],
        })
    };
    match statement.name.as_str() {
        "consent" => constrained("odrl:obtainConsent", &format!("{NAMESPACE}consent"), "eq", argument.into()),
        "delete_within" => constrained("odrl:delete", "odrl:elapsedTime", "lteq", typed(argument, "duration")),
        "notify" => json!({ "action": "odrl:inform" }),
        name if argument.is_empty() => json!({ "action": format!("{NAMESPACE}{name}") }),
        name => ours(name, "arguments", argument.into()),
    }
}

fn ours(action: &str, left: &str, right: Json) -> Json {
    let left = format!("{NAMESPACE}{left}");
    json!({
        "action": format!("{NAMESPACE}{action}"),
        "constraint": [{ "leftOperand": left, "operator": "eq", "rightOperand": right }],
    })
}

fn typed(value: &str, of: &str) -> Json {
    json!({ "@value": value, "@type": format!("xsd:{of}") })
}
