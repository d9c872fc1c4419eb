//! Cedar ⇄ ODRL 2.2, for partners who speak only that. A stated subset, both ways (docs/policy/odrl.md).
//!
//! Both languages are read into the same [`rule::Rule`]s, and written from them:
//!
//! ```text
//!   Cedar ── cedar_read ──▶ rules ── json_write ──▶ ODRL
//!   Cedar ◀── cedar_write ── rules ◀── json_read ── ODRL
//! ```
//!
//! What has no exact counterpart is refused by name. An export never claims more than the Cedar, an import never
//! leaves out anything that was said.

mod cedar_read;
mod cedar_write;
mod duty_read;
mod json_read;
mod json_write;
mod literal;
mod rule;
mod term;
mod value_read;

#[cfg(test)]
mod evaluator;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, str::FromStr as _, thread};

use cedar_policy::PolicySet;
use serde_json::{Value as Json, json};

use self::rule::Rule;
use crate::{
    error::Refusal,
    policy::{
        Action, PolicyError, PolicySource, Slice, bounds,
        problem::{explained, harmless, offset},
        slice::{id_of, number_of, validate},
    },
};

/// What is ours in ODRL.
pub const NAMESPACE: &str = "https://w3id.org/counterseal/ns#";
/// What is ODRL's.
const ODRL: &str = "http://www.w3.org/ns/odrl/2/";

/// Why there is no translation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OdrlError {
    /// A policy that says what ODRL can't, or not exactly.
    #[error("policy `{policy}`: {problem}")]
    Cedar {
        /// Its `@id`.
        policy: String,
        /// What, and what could be done.
        problem: String,
    },
    /// Policies that are no policies here.
    #[error("{0}")]
    Policy(String),
    /// ODRL that is not understood here.
    #[error("{at}: {problem}")]
    Json {
        /// A JSON pointer (RFC 6901); `/` is the whole.
        at: String,
        /// The value, and what is understood.
        problem: String,
    },
    /// Two permissions of one action whose duties differ: ODRL lets the consumer pick one, a slice demands both.
    #[error(
        "{first} and {second} may both permit `{action}`, with different duties: ODRL would let the consumer pick, \
         Counterseal demands both; give them the same duties, or different actions"
    )]
    Duties {
        /// A rule.
        first: String,
        /// Another.
        second: String,
        /// What both permit.
        action: String,
    },
}

/// As a refusal, with a code.
impl From<OdrlError> for Refusal {
    fn from(error: OdrlError) -> Self {
        let sentence = error.to_string();
        match error {
            OdrlError::Cedar { .. } | OdrlError::Policy(_) => Refusal::new("odrl-not-expressible", sentence),
            OdrlError::Json { .. } => Refusal::new("odrl-not-understood", sentence),
            OdrlError::Duties { .. } => Refusal::new("odrl-duties-differ", sentence),
        }
    }
}

/// A slice's rules in ODRL, in the shape that the Dataspace Protocol's schema takes (`permission`, `prohibition`):
/// own policies, global ones and floors.
///
/// # Errors
/// Anything that ODRL could not say exactly, by name.
pub fn to_odrl(slice: &Slice) -> Result<Json, OdrlError> {
    on_own_stack(|| of_slice(slice))
}

fn of_slice(slice: &Slice) -> Result<Json, OdrlError> {
    let mut rules = Vec::new();
    for (id, compiled) in &slice.policies {
        let policy = slice.policy(id).ok_or_else(|| OdrlError::Policy(format!("the policy `{id}` is not there")))?;
        let mut rule = cedar_read::rule(id, policy)?;
        if compiled.permit && rule.actions.contains(&Action::Release) {
            for floor in &slice.floors {
                rule.during.push(literal::obligation(floor).ok_or_else(|| OdrlError::Cedar {
                    policy: id.clone(),
                    problem: "a column of the floor has both kinds of quotes in its name".to_owned(),
                })?);
            }
        }
        rules.push(rule);
    }
    finished(&rules)
}

/// The rules of a policy file, as [`to_odrl`] gives those of a slice. Obligations are not checked against columns:
/// publishing does that.
///
/// # Errors
/// As for [`to_odrl`], and what isn't Cedar under the schema.
pub fn text_to_odrl(source: PolicySource<'_>) -> Result<Json, OdrlError> {
    if source.text.len() > bounds::MAX_TEXT {
        return Err(OdrlError::Policy(PolicyError::TooLong(source.text.len()).to_string()));
    }
    bounds::check(source.text).map_err(|out| OdrlError::Policy(source.wrong(out.offset, out.problem).to_string()))?;
    on_own_stack(|| of_text(source))
}

fn of_text(source: PolicySource<'_>) -> Result<Json, OdrlError> {
    let wrong = |error: &dyn std::fmt::Display| OdrlError::Policy(error.to_string());
    let parsed = PolicySet::from_str(source.text)
        .map_err(|error| wrong(&source.wrong(offset(&error).unwrap_or(0), explained(&error))))?;
    if parsed.templates().next().is_some() || parsed.is_empty() {
        return Err(OdrlError::Policy(format!("{}: no policies, or templates with slots", source.name)));
    }
    let mut policies: Vec<_> = parsed.policies().collect();
    policies.sort_by_key(|policy| number_of(policy));
    let (mut ids, mut rules, mut set, mut origin) = (BTreeSet::new(), Vec::new(), PolicySet::new(), Default::default());
    for policy in policies {
        let id = id_of(policy, &source).map_err(|error| wrong(&error))?;
        if !ids.insert(id.clone()) {
            return Err(OdrlError::Policy(format!("two policies have the id `{id}`")));
        }
        rules.push(cedar_read::rule(&id, policy)?);
        let named = policy.new_id(cedar_policy::PolicyId::new(&id));
        set.add(named).map_err(|error| wrong(&error))?;
        std::collections::HashMap::insert(&mut origin, id, source);
    }
    validate(&set, &origin).map_err(|error| wrong(&error))?;
    finished(&rules)
}

/// A view of a slice in ODRL for partners who read only that: the exact translation where there is one, else the
/// standard action under a constraint that names the policy which really decides, and which no one else can fulfil.
pub fn odrl(slice: &Slice) -> Json {
    to_odrl(slice).unwrap_or_else(|_| {
        json!({
            "permission": [{
                "action": "use",
                "constraint": [{
                    "leftOperand": format!("{NAMESPACE}policySha256"),
                    "operator": "eq",
                    "rightOperand": slice.sha256().to_string(),
                }],
            }],
        })
    })
}

/// Rules as a document of their own (`@context`, `@type`).
pub fn document(rules: Json) -> Json {
    let mut document = json!({ "@context": "http://www.w3.org/ns/odrl.jsonld", "@type": "Set" });
    if let (Json::Object(document), Json::Object(rules)) = (&mut document, rules) {
        document.extend(rules);
    }
    document
}

/// Cedar that says what an ODRL policy says; every rule becomes a policy with an `@id`. Takes the shapes that
/// connectors send: with `odrl:` or without, one object or a list, `@id` and typed values. The text has still to be
/// compiled against the dataset's columns.
///
/// # Errors
/// Anything that is not understood, with its JSON pointer: nothing is accepted and ignored.
pub fn from_odrl(odrl: &Json) -> Result<String, OdrlError> {
    let read = json_read::rules(odrl)?;
    same_duties(read.iter().map(|(place, rule)| (format!("`{place}`"), rule)))?;
    Ok(cedar_write::policies(&read))
}

/// The policies may be a peer's, the caller's stack a worker's: see `bounds`.
fn on_own_stack(work: impl FnOnce() -> Result<Json, OdrlError> + Send) -> Result<Json, OdrlError> {
    let gave_up = |problem: &str| OdrlError::Policy(format!("these policies can't be said in ODRL: {problem}"));
    thread::scope(|scope| {
        thread::Builder::new()
            .name("odrl".into())
            .stack_size(bounds::STACK)
            .spawn_scoped(scope, work)
            .map_err(|error| gave_up(&error.to_string()))?
            .join()
            .unwrap_or_else(|_| Err(gave_up("Cedar gave up on them")))
    })
}

fn finished(rules: &[Rule]) -> Result<Json, OdrlError> {
    same_duties(rules.iter().map(|rule| (format!("policy `{}`", rule.id), rule)))?;
    Ok(json_write::rules(rules))
}

/// Whether no two permissions of one action differ in their duties.
fn same_duties<'a>(rules: impl Iterator<Item = (String, &'a Rule)>) -> Result<(), OdrlError> {
    let permits: Vec<_> = rules.filter(|(_, rule)| rule.permit).collect();
    for (place, (name, rule)) in permits.iter().enumerate() {
        for (other_name, other) in &permits[place + 1..] {
            let both = rule
                .actions
                .intersection(&other.actions)
                .find(|action| rule.duties(**action) != other.duties(**action));
            if let Some(action) = both {
                let (first, second) = (name.clone(), other_name.clone());
                return Err(OdrlError::Duties { first, second, action: action.as_str().to_owned() });
            }
        }
    }
    Ok(())
}

/// Foreign text in a message: whole if short.
fn shown(json: &Json) -> String {
    match json {
        Json::String(text) => harmless(text),
        other => legible(&other.to_string()),
    }
}

/// Foreign code in a message: its quotes left as they are.
fn legible(code: &str) -> String {
    harmless(code).replace("\\\"", "\"")
}
