//! Rules from ODRL, in the shapes that connectors send.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use crate::policy::{
    Action,
    odrl::{
        NAMESPACE, ODRL, OdrlError, duty_read,
        rule::{Atom, Expr, Op, Right, Rule},
        shown,
        term::{self, Term, last, short},
        value_read,
    },
    problem::{did_you_mean, nearest},
};

/// Most rules of one policy.
const MOST_RULES: usize = 256;
/// Deepest nesting of `and` and `or`.
const DEEPEST: usize = 16;
/// What defines ODRL's words for a reader of JSON-LD.
const CONTEXTS: [&str; 5] = [
    "http://www.w3.org/ns/odrl.jsonld",
    "https://www.w3.org/ns/odrl.jsonld",
    "https://w3id.org/dspace/2025/1/context.jsonld",
    "https://w3id.org/dspace/2025/1/odrl-profile.jsonld",
    "https://w3id.org/edc/connector/management/v0.0.1",
];
/// What prefixes may stand for.
const PREFIXES: [(&str, &str); 7] = [
    ("odrl", ODRL),
    ("counterseal", NAMESPACE),
    ("xsd", "http://www.w3.org/2001/XMLSchema#"),
    ("edc", "https://w3id.org/edc/v0.0.1/ns/"),
    ("dspace", "https://w3id.org/dspace/2025/1/"),
    ("dct", "http://purl.org/dc/terms/"),
    ("dcat", "http://www.w3.org/ns/dcat#"),
];

/// A place in the document, for messages.
#[derive(Clone)]
pub(super) struct At(String);

/// A value's members by their names without `odrl:`, each with its place.
pub(super) type Members<'a> = BTreeMap<String, (&'a Json, At)>;

/// Every rule, with its place.
pub(super) fn rules(odrl: &Json) -> Result<Vec<(String, Rule)>, OdrlError> {
    let at = At(String::new());
    let policy = at.members(
        odrl,
        "policy",
        &[
            "@context",
            "@id",
            "uid",
            "@type",
            "type",
            "profile",
            "conflict",
            "permission",
            "prohibition",
            "obligation",
            "target",
            "assigner",
            "assignee",
        ],
    )?;
    if let Some((context, at)) = policy.get("@context") {
        contexts(context, at)?;
    }
    kind(&policy, &["Set", "Offer", "Agreement", "Policy"])?;
    for (name, (value, at)) in &policy {
        match name.as_str() {
            "profile" => {
                let name = at.name(value)?;
                if short(&name) != NAMESPACE {
                    return Err(at.wrong(value, &format!("the only profile that is known here is {NAMESPACE}")));
                }
            }
            "conflict" if short(&at.name(value)?).trim_start_matches("odrl:") != "prohibit" => {
                return Err(at.wrong(value, "a prohibition always wins here; `prohibit` is the only strategy"));
            }
            "obligation" if !at.many(value).is_empty() => {
                return Err(at.wrong(value, "a duty has to stand in the permission that it belongs to, as its `duty`"));
            }
            "@id" | "uid" => drop(at.name(value)?),
            _ => {}
        }
    }
    let whole = parties(&policy, true)?;
    let mut rules = Vec::new();
    for (name, permit) in [("permission", true), ("prohibition", false)] {
        let Some((list, at)) = policy.get(name) else { continue };
        for (rule, at) in at.many(list) {
            let id = format!("odrl-{name}-{}", rules.len() + 1);
            rules.push((at.to_string(), one(rule, &at, id, permit, &whole)?));
            if rules.len() > MOST_RULES {
                return Err(at.wrong(rule, &format!("at most {MOST_RULES} rules are taken")));
            }
        }
    }
    if rules.is_empty() {
        return Err(at.says("there is neither a permission nor a prohibition in it"));
    }
    Ok(rules)
}

fn one(json: &Json, at: &At, id: String, permit: bool, whole: &[Expr]) -> Result<Rule, OdrlError> {
    let kind_of = if permit { "Permission" } else { "Prohibition" };
    let all = ["@id", "uid", "@type", "type", "action", "constraint", "target", "assignee", "duty"];
    let rule = at.members(json, kind_of, if permit { &all } else { &all[..8] })?;
    kind(&rule, &[kind_of, "Rule"])?;
    for (name, at) in ["@id", "uid"].into_iter().filter_map(|name| rule.get(name)) {
        at.name(name)?;
    }
    let Some((action, action_at)) = rule.get("action") else {
        return Err(at.says("a rule needs an `action`"));
    };
    let mut actions = BTreeSet::new();
    for (action, at) in action_at.many(action) {
        actions.extend(one_action(action, &at)?);
    }
    if actions.is_empty() {
        return Err(action_at.wrong(action, "a rule needs an action"));
    }
    let mut when = whole.to_vec();
    when.extend(parties(&rule, false)?);
    if let Some((list, at)) = rule.get("constraint") {
        for (constraint, at) in at.many(list) {
            when.push(condition(constraint, &at, 0)?);
        }
    }
    let mut rule_read = Rule {
        id,
        permit,
        actions,
        when: Expr::all(when),
        before: Vec::new(),
        during: Vec::new(),
        after: Vec::new(),
        contract: None,
    };
    if let Some((list, at)) = rule.get("duty") {
        for (duty, at) in at.many(list) {
            duty_read::add(&mut rule_read, duty, &at)?;
        }
    }
    Ok(rule_read)
}

fn one_action(json: &Json, at: &At) -> Result<Vec<Action>, OdrlError> {
    let name = action_name(json, at)?;
    term::actions(&name).map_err(|near| {
        let near = did_you_mean(near, "");
        at.wrong(
            json,
            &format!(
                "no action that is known here{near}; known are ODRL's use, read, display, reproduce, distribute, \
                 transform, anonymize, delete, grantUse, sell and compensate, and ours ({NAMESPACE}…)"
            ),
        )
    })
}

/// The name of an action: as text, as `@id`, or as earlier connectors wrote it, in `type`.
pub(super) fn action_name(json: &Json, at: &At) -> Result<String, OdrlError> {
    let Json::Object(members) = json else { return Ok(short(&at.name(json)?)) };
    if members.len() == 1 && (members.contains_key("@id") || members.contains_key("@value")) {
        return Ok(short(&at.name(json)?));
    }
    let members = at.members(json, "action", &["@id", "@type", "type"])?;
    match members.get("@id").or_else(|| members.get("type")) {
        Some((name, at)) => {
            kind(&members, &["Action"])
                .or_else(|error| if members.contains_key("@id") { Err(error) } else { Ok(()) })?;
            let name = short(&at.name(name)?);
            Ok(if name == "USE" { "odrl:use".to_owned() } else { name })
        }
        None => Err(at.wrong(json, "an action is a name; refinements of actions are not understood")),
    }
}

/// The target and parties of a policy or rule, as conditions.
fn parties(members: &Members<'_>, whole: bool) -> Result<Vec<Expr>, OdrlError> {
    let mut found = Vec::new();
    let names: &[(&str, &str)] = match whole {
        true => &[("target", "resource"), ("assignee", "principal"), ("assigner", "resource.provider")],
        false => &[("target", "resource"), ("assignee", "principal")],
    };
    for (member, path) in names {
        let Some((value, at)) = members.get(*member) else { continue };
        let name = at.name(value)?;
        let atom = Term::of_cedar(path).and_then(|term| Atom::new(term, Op::Eq, Right::Text(name)));
        found.push(Expr::Is(atom.ok_or_else(|| at.wrong(value, "one identifier is understood here"))?));
    }
    Ok(found)
}

fn condition(json: &Json, at: &At, depth: usize) -> Result<Expr, OdrlError> {
    let members = at.members(
        json,
        "constraint",
        &["@id", "uid", "@type", "type", "leftOperand", "operator", "rightOperand", "and", "or"],
    )?;
    kind(&members, &["AtomicConstraint", "LogicalConstraint", "Constraint"])?;
    let logical: Vec<&str> = ["and", "or"].into_iter().filter(|name| members.contains_key(*name)).collect();
    let atomic = ["leftOperand", "operator", "rightOperand"].map(|name| members.get(name));
    match (logical.as_slice(), atomic) {
        ([operator], [None, None, None]) => {
            if depth >= DEEPEST {
                return Err(at.says(&format!("constraints are nested deeper than {DEEPEST}")));
            }
            let (list, at) = &members[*operator];
            let parts = at.many(list);
            if parts.is_empty() {
                return Err(at.wrong(list, "there is nothing in it"));
            }
            let parts: Vec<Expr> =
                parts.iter().map(|(part, at)| condition(part, at, depth + 1)).collect::<Result<_, _>>()?;
            Ok(if *operator == "and" { Expr::all(parts) } else { Expr::any(parts) })
        }
        ([], [Some(left), Some(operator), Some(right)]) => comparison(left, operator, right),
        _ => Err(at.wrong(
            json,
            "a constraint has a `leftOperand`, an `operator` and a `rightOperand`, or one of `and` and `or`",
        )),
    }
}

fn comparison(left: &(&Json, At), operator: &(&Json, At), right: &(&Json, At)) -> Result<Expr, OdrlError> {
    let name = short(&left.1.name(left.0)?);
    let term = Term::of_odrl(&name).map_err(|near| {
        let near = did_you_mean(near, "");
        left.1.wrong(
            left.0,
            &format!(
                "no left operand that is known here{near}; known are ODRL's purpose, dateTime, count, spatial, \
                 recipient, systemDevice and payAmount, and ours ({NAMESPACE}…)"
            ),
        )
    })?;
    let written = short(&operator.1.name(operator.0)?);
    let own = written.strip_prefix("odrl:").unwrap_or(&written);
    let several = right.0.is_array() || right.0.get("@list").or_else(|| right.0.get("@set")).is_some();
    let op = match Op::NAMES.into_iter().find(|(known, _)| *known == own) {
        Some((_, op)) => op,
        None if own == "hasPart" && !several => Op::AnyOf,
        None => {
            let near = did_you_mean(nearest(own, Op::NAMES.map(|(known, _)| known)), "");
            let known = Op::NAMES.map(|(known, _)| known).join(", ");
            return Err(operator
                .1
                .wrong(operator.0, &format!("no operator that is known here{near}; known are {known}")));
        }
    };
    let listed = last(&name) == "REFERRING_CONNECTOR" && op == Op::PartOf;
    let (op, value) = if listed {
        (Op::AnyOf, value_read::comma_separated(right.0, &right.1)?)
    } else {
        value_read::right(term, op, own == "hasPart", right.0, &right.1)?
    };
    Atom::new(term, op, value).map(Expr::Is).ok_or_else(|| {
        operator
            .1
            .wrong(operator.0, &format!("`{}` is nothing that `{}` is compared by, with this value", own, last(&name)))
    })
}

/// `@type`, or `type`: one of these, with `odrl:` or without.
pub(super) fn kind(members: &Members<'_>, known: &[&str]) -> Result<(), OdrlError> {
    for (value, at) in ["@type", "type"].into_iter().filter_map(|name| members.get(name)) {
        for (value, at) in at.many(value) {
            let name = short(&at.name(value)?);
            if !known.contains(&name.strip_prefix("odrl:").unwrap_or(&name)) {
                return Err(at.wrong(value, &format!("expected {}", known.join(", "))));
            }
        }
    }
    Ok(())
}

/// A context may name what is known; nothing in it may give a word another meaning.
fn contexts(context: &Json, at: &At) -> Result<(), OdrlError> {
    for (one, at) in at.many(context) {
        match one {
            Json::String(url) if CONTEXTS.contains(&url.as_str()) => {}
            Json::Object(terms) => {
                for (name, means) in terms {
                    let at = at.member(name);
                    let vocabulary = name == "@vocab" && PREFIXES.iter().any(|(_, iri)| means == *iri);
                    let prefix = PREFIXES.iter().any(|(prefix, iri)| name == prefix && means == *iri);
                    // a prefix of whatever else, as nothing with it is understood here
                    let other = !name.starts_with('@')
                        && PREFIXES.iter().all(|(prefix, _)| name != prefix)
                        && !KEYWORDS.contains(&name.as_str())
                        && Term::of_odrl(name).is_err()
                        && term::actions(name).is_err()
                        && means.as_str().is_some_and(|iri| iri.ends_with(['/', '#']) && iri.contains("://"));
                    if !vocabulary && !prefix && !other {
                        return Err(at.wrong(means, "a context that gives a word another meaning is not understood"));
                    }
                }
            }
            _ => return Err(at.wrong(one, &format!("contexts that are known here are {}", CONTEXTS.join(", ")))),
        }
    }
    Ok(())
}

/// Every member that is read; none of them may be a prefix.
const KEYWORDS: [&str; 18] = [
    "uid",
    "type",
    "profile",
    "conflict",
    "permission",
    "prohibition",
    "obligation",
    "target",
    "assigner",
    "assignee",
    "action",
    "constraint",
    "duty",
    "leftOperand",
    "operator",
    "rightOperand",
    "and",
    "or",
];

// === impl At ===

impl At {
    /// The place of a member.
    pub fn member(&self, name: &str) -> Self {
        Self(format!("{}/{}", self.0, name.replace('~', "~0").replace('/', "~1")))
    }

    /// An object's members, all of which are known.
    pub fn members<'a>(&self, json: &'a Json, what: &str, known: &[&str]) -> Result<Members<'a>, OdrlError> {
        let Json::Object(object) = json else {
            return Err(self.wrong(json, &format!("expected a {what}, as an object")));
        };
        let mut members = Members::new();
        for (name, value) in object {
            let at = self.member(name);
            let own = short(name);
            let own = own.strip_prefix("odrl:").unwrap_or(&own);
            if !known.contains(&own) {
                let near = did_you_mean(nearest(own, known.iter().copied()), "");
                let known = known.join(", ");
                return Err(
                    at.says(&format!("a {what} has no such member that is understood here{near}; known are {known}"))
                );
            }
            if members.insert(own.to_owned(), (value, at.clone())).is_some() {
                return Err(at.says("the same member stands here twice, with `odrl:` and without"));
            }
        }
        Ok(members)
    }

    /// One or many: alone, in an array, or in JSON-LD's `@list` or `@set`.
    pub fn many<'a>(&self, json: &'a Json) -> Vec<(&'a Json, Self)> {
        match json {
            Json::Array(items) => {
                items.iter().enumerate().map(|(place, item)| (item, self.member(&place.to_string()))).collect()
            }
            Json::Object(members) if members.len() == 1 => match members.iter().next() {
                Some((name, inner)) if name == "@list" || name == "@set" => self.member(name).many(inner),
                _ => vec![(json, self.clone())],
            },
            other => vec![(other, self.clone())],
        }
    }

    /// A name: as text, as `{"@id": …}`, as `{"@value": …}`, or the only one of an array.
    pub fn name(&self, json: &Json) -> Result<String, OdrlError> {
        let text = match json {
            Json::String(text) => Some(text),
            Json::Array(items) if items.len() == 1 => return self.member("0").name(&items[0]),
            Json::Object(members) if members.len() == 1 => match members.iter().next() {
                Some((name, Json::String(text))) if name == "@id" || name == "@value" || name == "uid" => Some(text),
                _ => None,
            },
            _ => None,
        };
        text.filter(|text| !text.is_empty()).cloned().ok_or_else(|| self.wrong(json, "expected one name"))
    }

    /// What is wrong with a value.
    pub fn wrong(&self, value: &Json, problem: &str) -> OdrlError {
        self.says(&format!("`{}`: {problem}", shown(value)))
    }

    /// What is wrong here.
    pub fn says(&self, problem: &str) -> OdrlError {
        OdrlError::Json { at: self.to_string(), problem: problem.to_owned() }
    }
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let harmless: String = self.0.chars().take(200).flat_map(char::escape_debug).collect();
        f.write_str(if harmless.is_empty() { "/" } else { &harmless })
    }
}
