//! ODRL policies in their three protocol shapes (DSP 2025-1 §7.3): in a catalog, in a message, in an agreement.
//!
//! Rules are kept as they came, so that a peer's offer can be echoed byte for byte in meaning: what binds between
//! Counterseal peers is the signed offer with its Cedar text; this is the view that any connector can read.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{
    id::{AgreementId, DatasetId, OfferId, ParticipantId},
    protocol::json::{id, many, maybe_id},
    time::Timestamp,
};

/// An offer in a catalog: no target, it is the dataset's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "@type", rename = "Offer")]
pub struct Offer {
    /// The provider's id of it.
    #[serde(rename = "@id")]
    pub id: OfferId,
    /// What it permits, prohibits and obliges to.
    #[serde(flatten)]
    pub rules: Rules,
}

/// An offer in a negotiation message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "@type", rename = "Offer")]
pub struct MessageOffer {
    /// The provider's id of it; one that a peer issued is echoed byte for byte.
    #[serde(rename = "@id")]
    pub id: OfferId,
    /// The dataset.
    #[serde(deserialize_with = "id")]
    pub target: DatasetId,
    /// The provider, where named.
    #[serde(default, deserialize_with = "maybe_id", skip_serializing_if = "Option::is_none")]
    pub assigner: Option<ParticipantId>,
    /// The consumer, where named.
    #[serde(default, deserialize_with = "maybe_id", skip_serializing_if = "Option::is_none")]
    pub assignee: Option<ParticipantId>,
    /// What it permits, prohibits and obliges to.
    #[serde(flatten)]
    pub rules: Rules,
}

/// An agreement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "@type", rename = "Agreement")]
pub struct Agreement {
    /// Given by the provider.
    #[serde(rename = "@id")]
    pub id: AgreementId,
    /// The dataset, exactly one.
    #[serde(deserialize_with = "id")]
    pub target: DatasetId,
    /// The provider.
    #[serde(deserialize_with = "id")]
    pub assigner: ParticipantId,
    /// The consumer.
    #[serde(deserialize_with = "id")]
    pub assignee: ParticipantId,
    /// When it was made. A time that cannot be read is none: peers differ in XSD's forms, and nothing depends on it.
    #[serde(default, deserialize_with = "maybe_time", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// What it permits, prohibits and obliges to.
    #[serde(flatten)]
    pub rules: Rules,
}

/// The rules of a policy. Written without its empty lists; a policy needs a permission or a prohibition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// What may be done.
    #[serde(default, deserialize_with = "many", skip_serializing_if = "Vec::is_empty")]
    pub permission: Vec<Rule>,
    /// What may not be done.
    #[serde(default, deserialize_with = "many", skip_serializing_if = "Vec::is_empty")]
    pub prohibition: Vec<Rule>,
    /// What must be done.
    #[serde(default, deserialize_with = "many", skip_serializing_if = "Vec::is_empty")]
    pub obligation: Vec<Rule>,
}

impl Rules {
    /// One permission of `action` without constraints; the protocol's context knows the action `use`.
    pub fn permit(action: &str) -> Self {
        Self { permission: vec![Rule::new(action)], ..Self::default() }
    }

    /// The rules of an ODRL object such as `policy::odrl` makes, checked as we write them.
    ///
    /// # Errors
    /// [`PolicyError`] names what the protocol's schema would refuse.
    pub fn from_odrl(odrl: &Value) -> Result<Self, PolicyError> {
        let rules = Self::deserialize(odrl).map_err(|error| PolicyError::Shape(error.to_string()))?;
        rules.check().map(|()| rules)
    }

    /// Whether the specification's schema takes these rules: a permission or prohibition, and each rule an action that
    /// is text, no target, and constraints whose right operand is text, an object or an array.
    ///
    /// # Errors
    /// [`PolicyError`] names what is wrong.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.permission.is_empty() && self.prohibition.is_empty() {
            return Err(PolicyError::NoRule);
        }
        self.permission.iter().chain(&self.prohibition).chain(&self.obligation).try_for_each(Rule::check)
    }
}

/// One ODRL rule, kept as it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rule(pub Map<String, Value>);

impl Rule {
    /// A rule about `action` without constraints.
    pub fn new(action: &str) -> Self {
        Self(Map::from_iter([("action".to_owned(), Value::from(action))]))
    }

    /// The action, if it is plain text.
    pub fn action(&self) -> Option<&str> {
        self.0.get("action").and_then(Value::as_str)
    }

    fn check(&self) -> Result<(), PolicyError> {
        if self.action().is_none_or(str::is_empty) {
            return Err(PolicyError::NoAction);
        }
        if self.0.contains_key("target") {
            return Err(PolicyError::Target);
        }
        match self.0.get("constraint") {
            None => Ok(()),
            Some(Value::Array(constraints)) => constraints.iter().try_for_each(constraint),
            Some(other) => Err(PolicyError::Constraint(other.to_string())),
        }
    }
}

/// An atomic constraint, or exactly one of the four logical ones over further constraints.
fn constraint(value: &Value) -> Result<(), PolicyError> {
    let wrong = || PolicyError::Constraint(value.to_string());
    let object = value.as_object().ok_or_else(wrong)?;
    let logical: Vec<&Value> = LOGICAL.iter().filter_map(|operator| object.get(*operator)).collect();
    let atoms = ["leftOperand", "operator", "rightOperand"].map(|key| object.get(key));
    match (logical.as_slice(), atoms) {
        ([Value::Array(parts)], atoms) if atoms.iter().any(Option::is_none) => parts.iter().try_for_each(constraint),
        ([], [Some(Value::String(_)), Some(Value::String(operator)), Some(right)])
            if OPERATORS.contains(&operator.as_str())
                && (right.is_string() || right.is_object() || right.is_array()) =>
        {
            Ok(())
        }
        _ => Err(wrong()),
    }
}

/// Why rules may not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not rules at all.
    #[error("not the rules of a policy: {0}")]
    Shape(String),
    /// Obligations alone make no policy.
    #[error("a policy needs a permission or a prohibition")]
    NoRule,
    /// A rule without an action.
    #[error("a rule needs an action that is text")]
    NoAction,
    /// The target is the policy's.
    #[error("a rule has no target of its own")]
    Target,
    /// A constraint that the schema refuses.
    #[error("`{0}` is not a constraint (a number or truth value is written as text)")]
    Constraint(String),
}

fn maybe_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Value::deserialize(deserializer).map(|value| value.as_str().and_then(|text| Timestamp::parse(text).ok()))
}

const LOGICAL: [&str; 4] = ["and", "andSequence", "or", "xone"];

const OPERATORS: [&str; 13] = [
    "eq",
    "gt",
    "gteq",
    "lteq",
    "hasPart",
    "isA",
    "isAllOf",
    "isAnyOf",
    "isNoneOf",
    "isPartOf",
    "lt",
    "term-lteq",
    "neq",
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_that_the_schema_would_refuse_are_not_written() {
        let with = |constraint: Value| json!({"permission": [{"action": "use", "constraint": constraint}]});
        let atom = |right: Value| json!({"leftOperand": "count", "operator": "lteq", "rightOperand": right});
        for (odrl, fine) in [
            (json!({"permission": {"action": "use"}}), true),
            (json!({"prohibition": [{"action": "use"}]}), true),
            (json!({"obligation": [{"action": "use"}]}), false),
            (json!({}), false),
            (json!({"permission": [{"action": {"@id": "use"}}]}), false),
            (json!({"permission": [{"action": "use", "target": "x"}]}), false),
            (json!({"permission": ["use"]}), false),
            (with(json!([atom(json!("3"))])), true),
            (with(json!([atom(json!({"@value": "3"}))])), true),
            (with(json!([atom(json!(3))])), false),
            (with(json!([atom(json!(true))])), false),
            (with(json!(atom(json!("3")))), false),
            (with(json!([{"or": [atom(json!("3")), {"and": [atom(json!("4"))]}]}])), true),
            (with(json!([{"or": [atom(json!(3))]}])), false),
            (with(json!([{"or": [], "and": []}])), false),
            (with(json!([{"leftOperand": "count", "operator": "about", "rightOperand": "3"}])), false),
        ] {
            assert_eq!(Rules::from_odrl(&odrl).is_ok(), fine, "{odrl}");
        }
    }

    #[test]
    fn a_peers_rules_are_kept_as_they_came() {
        let offer = json!({
            "@id": "CD123:ACN0101:456", "@type": "Offer", "target": {"@id": "ACN0101"},
            "permission": {"action": "odrl:read", "constraint": {"leftOperand": "x", "odd": 1}},
        });
        let read: MessageOffer = serde_json::from_value(offer).unwrap();
        assert_eq!(read.target.as_str(), "ACN0101");
        assert_eq!(
            serde_json::to_value(read).unwrap(),
            json!({
                "@id": "CD123:ACN0101:456", "@type": "Offer", "target": "ACN0101",
                "permission": [{"action": "odrl:read", "constraint": {"leftOperand": "x", "odd": 1}}],
            })
        );
    }

    #[test]
    fn an_agreements_time_is_read_in_the_kits_form_and_else_left_out() {
        let agreement = |timestamp: &str| {
            let value = json!({
                "@id": "a", "@type": "Agreement", "target": "d", "assigner": "p", "assignee": "c",
                "timestamp": timestamp, "permission": [{"action": "use"}],
            });
            serde_json::from_value::<Agreement>(value).unwrap().timestamp
        };
        assert_eq!(agreement("2025-11-24T16:00:00.123456789Z"), Some(Timestamp::from_millis(1_764_000_000_123)));
        assert_eq!(agreement("yesterday"), None);
    }
}
