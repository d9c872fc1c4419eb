//! Rules from Cedar, read from its JSON form.

use cedar_policy::{Effect, Policy};
use serde_json::{Value as Json, json};

use crate::policy::{
    Money, ObligationError,
    odrl::{
        OdrlError, legible, literal,
        rule::{Atom, Expr, Op, Right, Rule, Statement},
        term::{Kind, Term},
    },
    parse, syntax,
};

type Read<T> = Result<T, String>;

/// Reads one policy.
pub(super) fn rule(id: &str, policy: &Policy) -> Result<Rule, OdrlError> {
    read(id, policy).map_err(|problem| OdrlError::Cedar { policy: id.to_owned(), problem })
}

fn read(id: &str, policy: &Policy) -> Read<Rule> {
    let est = policy.to_json().map_err(|error| error.to_string())?;
    let mut when = vec![scope("principal", &est["principal"])?, scope("resource", &est["resource"])?];
    for condition in est["conditions"].as_array().into_iter().flatten() {
        when.push(truth(&condition["body"], condition["kind"] == "unless")?);
    }
    let when = Expr::all(when);
    if when.never() {
        return Err("it never applies, which ODRL has no words for; leave it out".to_owned());
    }
    let of = |key: &'static str| policy.annotation(key);
    let wrong = |key: &str, error: ObligationError| format!("`@{key}`: {error}");
    let quotes = || "a word with both kinds of quotes in it has no ODRL form".to_owned();
    let before = of("before").map_or(Ok(Vec::new()), parse::before).map_err(|error| wrong("before", error))?;
    let after = of("after").map_or(Ok(Vec::new()), parse::after).map_err(|error| wrong("after", error))?;
    Ok(Rule {
        id: id.to_owned(),
        permit: policy.effect() == Effect::Permit,
        actions: syntax::actions(&est["action"]),
        when,
        before: before.iter().map(Statement::before).collect::<Option<_>>().ok_or_else(quotes)?,
        during: of("during").map_or(Ok(Vec::new()), Statement::during).map_err(|error| wrong("during", error))?,
        after: after.iter().map(Statement::after).collect::<Option<_>>().ok_or_else(quotes)?,
        contract: policy.annotation("contract").map(|words| words.trim().to_owned()),
    })
}

/// The principal or the resource of a policy's scope.
fn scope(variable: &str, scope: &Json) -> Read<Expr> {
    let variable = json!({ "Var": variable });
    let entity = || json!({ "Value": { "__entity": scope["entity"] } });
    match scope["op"].as_str() {
        Some("All") => Ok(Expr::ALWAYS),
        Some("==") => truth(&json!({ "==": { "left": variable, "right": entity() } }), false),
        Some("in") => truth(&json!({ "in": { "left": variable, "right": entity() } }), false),
        Some("is") if is_ours(&variable, &scope["entity_type"]) => match &scope["in"] {
            Json::Null => Ok(Expr::ALWAYS),
            within => {
                let entity = json!({ "Value": { "__entity": within["entity"] } });
                truth(&json!({ "in": { "left": variable, "right": entity } }), false)
            }
        },
        _ => Err(format!("its scope `{}` has no ODRL form", legible(&scope.to_string()))),
    }
}

/// Whether this variable always has this type: the schema has one type of principal and one of resource.
fn is_ours(variable: &Json, entity_type: &Json) -> bool {
    let (variable, entity_type) = (variable["Var"].as_str(), entity_type.as_str());
    matches!((variable, entity_type), (Some("principal"), Some("Participant")) | (Some("resource"), Some("Dataset")))
}

/// A condition, or where that fails.
fn truth(expr: &Json, negated: bool) -> Read<Expr> {
    let (operator, operands) = match expr.as_object().and_then(|object| object.iter().next()) {
        Some((operator, operands)) => (operator.as_str(), operands),
        None => return Err(no_form(expr, "")),
    };
    let (left, right) = (&operands["left"], &operands["right"]);
    match operator {
        "Value" if operands.is_boolean() => {
            let holds = (operands == &Json::Bool(true)) != negated;
            Ok(if holds { Expr::ALWAYS } else { Expr::Any(Vec::new()) })
        }
        "!" => truth(&operands["arg"], !negated),
        "&&" | "||" => {
            let parts = [truth(left, negated)?, truth(right, negated)?];
            Ok(if (operator == "&&") == negated { Expr::any(parts) } else { Expr::all(parts) })
        }
        "is" if is_ours(left, &operands["entity_type"]) && operands["in"].is_null() => {
            Ok(if negated { Expr::Any(Vec::new()) } else { Expr::ALWAYS })
        }
        _ => {
            let atom = atom(operator, operands).ok_or_else(|| {
                no_form(
                    expr,
                    "what can be said is: a fact or an attribute compared with a literal, joined by && and ||",
                )
            })?;
            if !negated {
                return Ok(Expr::Is(atom));
            }
            atom.negated().ok_or_else(|| no_form(expr, "ODRL has no operator for its opposite"))
        }
    }
}

fn atom(operator: &str, operands: &Json) -> Option<Atom> {
    let (left, right) = match operands.as_array() {
        // methods of extension types
        Some(arguments) => match arguments.as_slice() {
            [left, right] => (left, right),
            _ => return None,
        },
        None => (&operands["left"], &operands["right"]),
    };
    let order = match operator {
        "==" => Some(Op::Eq),
        "!=" => Some(Op::Neq),
        "<" | "lessThan" => Some(Op::Lt),
        "<=" | "lessThanOrEqual" => Some(Op::Lteq),
        ">" | "greaterThan" => Some(Op::Gt),
        ">=" | "greaterThanOrEqual" => Some(Op::Gteq),
        _ => None,
    };
    if let Some(op) = order {
        return match (term(left), term(right)) {
            (Some(term), None) => Atom::new(term, op, right_of(term, right)?),
            (None, Some(term)) => Atom::new(term, op.turned(), right_of(term, left)?),
            _ => None,
        };
    }
    match operator {
        "in" => within(left, right),
        "isInRange" => {
            let term = term(left)?;
            Atom::new(term, Op::PartOf, right_of(term, right)?)
        }
        "contains" => match (term(left), term(right)) {
            (Some(term), None) => Atom::new(term, Op::AnyOf, Right::Texts(vec![text(right)?])),
            (None, Some(term)) if term.kind != Kind::Texts => {
                // `[Participant::"a"].contains(principal)` stands for the participants' ids
                let ids = texts(left).or_else(|| entities(left, kind_of(term.kind)?))?;
                Atom::new(term, Op::AnyOf, Right::Texts(ids))
            }
            _ => None,
        },
        "containsAny" => match (term(left), term(right)) {
            (Some(term), None) => Atom::new(term, Op::AnyOf, Right::Texts(texts(right)?)),
            (None, Some(term)) => Atom::new(term, Op::AnyOf, Right::Texts(texts(left)?)),
            _ => None,
        },
        "containsAll" => match (term(left), term(right)) {
            (Some(term), None) => Atom::new(term, Op::AllOf, Right::Texts(texts(right)?)),
            (None, Some(term)) => Atom::new(term, Op::PartOf, Right::Texts(texts(left)?)),
            _ => None,
        },
        _ => None,
    }
}

/// `principal in Group::"…"`, `resource in [Collection::"…", …]`; an entity is also in itself.
fn within(left: &Json, right: &Json) -> Option<Atom> {
    let (own, own_kind, above, above_kind) = match left["Var"].as_str()? {
        "principal" => ("principal", "Participant", "principal in Group", "Group"),
        "resource" => ("resource", "Dataset", "resource in Collection", "Collection"),
        _ => return None,
    };
    let (own, above) = (Term::of_cedar(own)?, Term::of_cedar(above)?);
    if let Some(id) = entity(right, own_kind) {
        return Atom::new(own, Op::Eq, Right::Text(id));
    }
    match entity(right, above_kind) {
        Some(group) if own.kind == Kind::Recipient => Atom::new(own, Op::PartOf, Right::Text(group)),
        Some(collection) => Atom::new(above, Op::AnyOf, Right::Texts(vec![collection])),
        None => match entities(right, own_kind) {
            Some(ids) => Atom::new(own, Op::AnyOf, Right::Texts(ids)),
            None => Atom::new(above, Op::AnyOf, Right::Texts(entities(right, above_kind)?)),
        },
    }
}

/// What a path stands for: `principal`, `context.spent.day.count`.
fn term(expr: &Json) -> Option<&'static Term> {
    fn path(expr: &Json) -> Option<String> {
        match expr["Var"].as_str() {
            Some(variable) => Some(variable.to_owned()),
            None => {
                let access = expr.get(".")?;
                Some(format!("{}.{}", path(access.get("left")?)?, access["attr"].as_str()?))
            }
        }
    }
    Term::of_cedar(&path(expr)?)
}

fn right_of(term: &Term, expr: &Json) -> Option<Right> {
    let call = |function: &str| text(expr[function].as_array().filter(|arguments| arguments.len() == 1)?.first()?);
    Some(match term.kind {
        Kind::Text => Right::Text(text(expr)?),
        Kind::Recipient => Right::Text(text(expr).or_else(|| entity(expr, "Participant"))?),
        Kind::Dataset => Right::Text(entity(expr, "Dataset")?),
        Kind::Long => {
            Right::Long(expr["Value"].as_i64().or_else(|| expr["neg"]["arg"]["Value"].as_i64()?.checked_neg())?)
        }
        Kind::Time => Right::Time(literal::cedar_time(&call("datetime")?)?),
        Kind::Span => Right::Span(literal::cedar_span(&call("duration")?)?),
        Kind::Decimal => Right::Decimal(Money::parse(&call("decimal")?)?),
        Kind::Ip => Right::Ip(literal::ip(&call("ip")?)?),
        Kind::Texts | Kind::Groups | Kind::Collections => return None,
    })
}

const fn kind_of(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Recipient => Some("Participant"),
        Kind::Dataset => Some("Dataset"),
        _ => None,
    }
}

fn text(expr: &Json) -> Option<String> {
    expr["Value"].as_str().map(str::to_owned)
}

fn texts(expr: &Json) -> Option<Vec<String>> {
    expr["Set"].as_array()?.iter().map(text).collect()
}

fn entity(expr: &Json, kind: &str) -> Option<String> {
    let uid = &expr["Value"]["__entity"];
    (uid["type"] == kind).then(|| uid["id"].as_str().map(str::to_owned))?
}

fn entities(expr: &Json, kind: &str) -> Option<Vec<String>> {
    expr["Set"].as_array()?.iter().map(|one| entity(one, kind)).collect()
}

/// An expression as it was written, as nearly as Cedar gives it back.
fn no_form(expr: &Json, why: &str) -> String {
    let policy = json!({
        "effect": "permit", "principal": { "op": "All" }, "action": { "op": "All" }, "resource": { "op": "All" },
        "conditions": [{ "kind": "when", "body": expr }],
    });
    let text = Policy::from_json(None, policy).map(|policy| policy.to_string()).unwrap_or_default();
    let between = text.split_once("when {").and_then(|(_, rest)| rest.rsplit_once('}')).map(|(body, _)| body.trim());
    let shown = legible(between.unwrap_or(&expr.to_string()));
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    format!("`{shown}` has no ODRL form{why}")
}
