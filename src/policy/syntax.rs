//! What a policy's syntax says before anything is evaluated: which actions it may apply to, which facts it mentions,
//! whom it names. Read from Cedar's JSON form of the policy. In doubt, more is found rather than less.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::policy::{Action, ContextFact, UseAction};

/// Attributes of `Participant` in the schema.
const PARTICIPANT: [&str; 4] = ["did", "jurisdiction", "roles", "certifications"];
/// Attributes of `Dataset` in the schema.
const DATASET: [&str; 3] = ["provider", "classification", "parents"];
/// Members of the records among the facts.
const MEMBERS: [&str; 9] = ["total", "minute", "hour", "day", "month", "year", "count", "records", "bytes"];

/// What is found in one policy.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Facts of the context.
    pub facts: BTreeSet<ContextFact>,
    /// Attributes of the principal that its provider's operator vouches for.
    pub attributes: BTreeSet<&'static str>,
    /// `has` with a name that nothing has.
    pub unknown: BTreeSet<String>,
    /// `Participant::"…"`.
    pub participants: BTreeSet<String>,
}

/// Reads a policy's JSON form.
pub(super) fn read(est: &Json) -> Found {
    let mut found = Found::default();
    found.walk(est);
    found
}

impl Found {
    fn walk(&mut self, expr: &Json) {
        match expr {
            Json::Object(members) => {
                if members.get("type").and_then(Json::as_str) == Some("Participant")
                    && let Some(id) = members.get("id").and_then(Json::as_str)
                {
                    self.participants.insert(id.to_owned());
                }
                for (key, value) in members {
                    match key.as_str() {
                        "." | "has" if self.attribute(key == "has", value) => {}
                        // the context as a whole: whatever is in it
                        "Var" if value == "context" => self.facts.extend(ContextFact::ALL),
                        _ => self.walk(value),
                    }
                }
            }
            Json::Array(items) => items.iter().for_each(|item| self.walk(item)),
            _ => {}
        }
    }

    /// Reads `left.attr` or `left has attr`; false where the left side has to be walked too.
    fn attribute(&mut self, has: bool, access: &Json) -> bool {
        let names: Vec<&str> = match &access["attr"] {
            Json::String(name) => vec![name],
            Json::Array(path) => path.iter().filter_map(Json::as_str).collect(),
            _ => return false,
        };
        let variable = access["left"]["Var"].as_str();
        for (place, name) in names.iter().enumerate() {
            let fact = ContextFact::parse(name);
            let of_participant = PARTICIPANT.into_iter().find(|known| known == name);
            let known = match (variable, place) {
                (Some("context"), 0) => {
                    self.facts.extend(fact);
                    fact.is_some()
                }
                (Some("principal"), 0) => of_participant.is_some(),
                (Some("resource"), 0) => DATASET.contains(name),
                _ => fact.is_some() || of_participant.is_some() || DATASET.contains(name) || MEMBERS.contains(name),
            };
            if variable != Some("context") {
                self.attributes.extend(of_participant.filter(|name| *name != "did"));
            }
            if has && !known {
                self.unknown.insert((*name).to_owned());
            }
        }
        matches!(variable, Some("context" | "principal" | "resource"))
    }
}

/// Every name that `has` may be asked for.
pub(super) fn attribute_names() -> impl Iterator<Item = &'static str> {
    ContextFact::ALL.into_iter().map(ContextFact::name).chain(PARTICIPANT).chain(DATASET).chain(MEMBERS)
}

/// The actions that a policy's scope may cover.
pub(super) fn actions(scope: &Json) -> BTreeSet<Action> {
    let covered = |uid: &Json| -> Vec<Action> {
        match uid["id"].as_str() {
            Some("use") => UseAction::ALL.into_iter().map(Action::Use).collect(),
            Some(name) => Action::parse(name).into_iter().collect(),
            None => Vec::new(),
        }
    };
    match scope["op"].as_str() {
        Some("==") => covered(&scope["entity"]).into_iter().collect(),
        Some("in") => match scope["entities"].as_array() {
            Some(entities) => entities.iter().flat_map(covered).collect(),
            None => covered(&scope["entity"]).into_iter().collect(),
        },
        _ => Action::all().collect(),
    }
}

/// DIDs anywhere in a text: in strings, ids and comments, which a recipient of the policy reads too.
pub(super) fn dids(text: &str) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    text.match_indices("did:")
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| c.is_ascii_alphanumeric()))
        .filter_map(|(at, _)| {
            let end = text[at..].find(|c| !part(c)).map_or(text.len(), |length| at + length);
            let did = text[at..end].trim_end_matches(['.', ':', '-']);
            (did.matches(':').count() >= 2).then(|| did.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;

    fn found(condition: &str) -> Found {
        let text = format!("permit (principal, action, resource) when {{ {condition} }};");
        read(&cedar_policy::Policy::from_str(&text).unwrap().to_json().unwrap())
    }

    #[test]
    fn a_fact_is_found_however_it_is_written() {
        for condition in [
            "context.region == \"CN\"",
            "context[\"region\"] == \"CN\"",
            "context has region",
            "context has \"region\"",
            "if true then (context.region == \"CN\") else false",
            "[1, 2].containsAny([{a: context.region}])",
            "!(principal.did like \"x*\" && context.region like \"C*\")",
            "{\"Var\": context.region}[\"Var\"] == \"x\"",
            "{\".\": {\"left\": 1, \"attr\": context.region}} == 1",
        ] {
            assert!(found(condition).facts.contains(&ContextFact::Region), "{condition}");
        }
        assert!(found("{\"Var\": \"context\"} == 1").facts.is_empty());
        for whole in ["context == {}", "(if true then context else context).region == 1", "{a: context}.a.now == 1"] {
            assert_eq!(found(whole).facts.len(), ContextFact::ALL.len(), "{whole}");
        }
    }

    #[test]
    fn a_mistyped_has_is_found_whatever_it_is_asked_of() {
        for (condition, name) in [
            ("context has regionn", "regionn"),
            ("principal has region", "region"),
            ("resource has jurisdiction", "jurisdiction"),
            ("(if true then context else context) has regionn", "regionn"),
            ("Participant::\"x\" has jurisdictionn", "jurisdictionn"),
        ] {
            assert_eq!(found(condition).unknown.into_iter().collect::<Vec<_>>(), [name], "{condition}");
        }
        assert!(found("context has region && principal has roles && resource has provider").unknown.is_empty());
    }

    #[test]
    fn dids_are_found_in_strings_and_comments() {
        let text = "// for did:web:a.invalid, not did:web:b.invalid.\n\"did:web:c.invalid:x\" candid:web:no did:x";
        let expected = ["did:web:a.invalid", "did:web:b.invalid", "did:web:c.invalid:x"];
        assert_eq!(dids(text).into_iter().collect::<Vec<_>>(), expected);
    }
}
