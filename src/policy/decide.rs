//! The four verdicts, as a total function.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    str::FromStr as _,
    sync::LazyLock,
};

use cedar_policy::{
    Authorizer, Context, Decision as CedarDecision, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request,
    RestrictedExpression,
};
use serde_json::{Value as Json, json};

use crate::{
    crypto::canonical_json,
    error::Refusal,
    id::Sha256,
    policy::{Action, ContextFact, Facts, Obligations, Slice, Value, slice::schema_sha256},
};

/// The engine's name and version, in every receipt of a decision.
const ENGINE: &str = "cedar-policy 4.14";

/// A verdict (TC609-6-2025-15 §7.1.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 允许
    Allow,
    /// 有条件允许: something has to be done first, then it is decided anew.
    Conditional,
    /// 拒绝: a `forbid` says so.
    Deny,
    /// 默认拒绝: nobody permits it, or it could not be decided.
    DefaultDeny,
}

impl Verdict {
    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Conditional => "conditional",
            Self::Deny => "deny",
            Self::DefaultDeny => "default-deny",
        }
    }

    /// In Chinese.
    pub const fn zh(self) -> &'static str {
        match self {
            Self::Allow => "允许",
            Self::Conditional => "有条件允许",
            Self::Deny => "拒绝",
            Self::DefaultDeny => "默认拒绝",
        }
    }
}

/// What was decided, on what, and what it demands.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// The deciding policies' `@id`s, in order.
    pub policies: Vec<String>,
    /// Why not, unless it is an allow.
    pub reason: Option<Refusal>,
    /// What the satisfied permits and the floors demand together.
    pub obligations: Obligations,
    /// Canonical JSON of the whole Cedar request: principal, action, resource, entities, context.
    pub request: Vec<u8>,
    /// What decided.
    pub engine: &'static str,
    /// The slice's hash.
    pub policy_sha256: Sha256,
    /// The schema's hash.
    pub schema_sha256: Sha256,
}

impl Slice {
    /// Decides. In this order: an error, or a fact that is mentioned and missing: default-deny; a `forbid`: deny; no
    /// permit: default-deny; else allow. Cedar's raw answer is never used alone: it skips a policy that errs.
    pub fn decide(&self, facts: &Facts) -> Decision {
        let request = canonical_json(&request_json(facts)).unwrap_or_default();
        let decision = |verdict, policies: Vec<String>, reason: Option<Refusal>| Decision {
            obligations: if verdict == Verdict::Allow { self.demanded(&policies) } else { Obligations::default() },
            verdict,
            policies,
            reason,
            request: request.clone(),
            engine: ENGINE,
            policy_sha256: self.sha256(),
            schema_sha256: schema_sha256(),
        };
        let undecided =
            |code, sentence: String| decision(Verdict::DefaultDeny, vec![], Some(Refusal::new(code, sentence)));
        if request.is_empty() {
            return undecided("policy-error", "the request has no canonical form".into());
        }
        let missing: Vec<&str> = self
            .mentions(facts.action)
            .iter()
            .filter(|fact| !facts.context.contains_key(fact))
            .map(|fact| fact.name())
            .collect();
        if !missing.is_empty() {
            return undecided(
                "fact-missing",
                format!(
                    "the policy looks at {}, which could not be had; nothing is allowed without it",
                    missing.join(", ")
                ),
            );
        }
        let (cedar_request, entities) = match cedar(facts) {
            Ok(built) => built,
            Err(error) => return undecided("policy-error", format!("the request can't be put to the policy: {error}")),
        };
        static AUTHORIZER: LazyLock<Authorizer> = LazyLock::new(Authorizer::new);
        let response = AUTHORIZER.is_authorized(&cedar_request, &self.set, &entities);
        let errors: BTreeSet<String> = response
            .diagnostics()
            .errors()
            .map(|error| match error {
                cedar_policy::AuthorizationError::PolicyEvaluationError(error) => error.policy_id().to_string(),
            })
            .collect();
        if !errors.is_empty() {
            let names: Vec<String> = errors.into_iter().collect();
            let sentence =
                format!("policy {} could not be evaluated; nothing is allowed while it can't", names.join(", "));
            return decision(Verdict::DefaultDeny, names, Some(Refusal::new("policy-error", sentence)));
        }
        let deciding: BTreeSet<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        let deciding: Vec<String> = deciding.into_iter().collect();
        match response.decision() {
            CedarDecision::Allow => decision(Verdict::Allow, deciding, None),
            CedarDecision::Deny if !deciding.is_empty() => {
                let sentence = format!("policy {} forbids it", deciding.join(", "));
                decision(Verdict::Deny, deciding, Some(Refusal::new("policy-forbids", sentence)))
            }
            CedarDecision::Deny => {
                let near: Vec<&str> = self
                    .policies
                    .iter()
                    .filter(|(_, compiled)| compiled.permit && compiled.actions.contains(&facts.action))
                    .map(|(id, _)| id.as_str())
                    .take(5)
                    .collect();
                let sentence = if near.is_empty() {
                    format!("no policy permits `{}` at all", facts.action.as_str())
                } else {
                    format!(
                        "no policy permits `{}` in this case: the conditions of {} are not met",
                        facts.action.as_str(),
                        near.join(", ")
                    )
                };
                undecided("policy-no-permit", sentence)
            }
        }
    }

    fn demanded(&self, policies: &[String]) -> Obligations {
        let permits = policies.iter().filter_map(|id| self.policies.get(id)).flat_map(|policy| &policy.obligations);
        Obligations::meet(permits.chain(&self.floors))
    }
}

/// The whole request, to be committed to and to be decided again by anybody with Cedar.
fn request_json(facts: &Facts) -> Json {
    let principal = &facts.principal;
    let resource = &facts.resource;
    let context: serde_json::Map<String, Json> = facts
        .context
        .iter()
        .map(|(fact, value)| {
            let value = match value {
                Value::Text(text) => json!(text),
                Value::Long(number) => json!(number),
                Value::Time(at) => json!({"__extn": {"fn": "datetime", "arg": at.to_string()}}),
                Value::Ip(ip) => json!({"__extn": {"fn": "ip", "arg": ip.to_string()}}),
            };
            (fact.name().to_owned(), value)
        })
        .collect();
    let uid = |kind: &str, id: &str| json!({"type": kind, "id": id});
    let parents = |kind: &str, ids: &[&str]| ids.iter().map(|id| uid(kind, id)).collect::<Vec<_>>();
    let groups: Vec<&str> = principal.groups.iter().map(String::as_str).collect();
    let collection: Vec<&str> = resource.collection.iter().map(String::as_str).collect();
    json!({
        "principal": uid("Participant", principal.id.as_str()),
        "action": uid("Action", facts.action.as_str()),
        "resource": uid("Dataset", resource.dataset.as_str()),
        "context": context,
        "entities": [
            {
                "uid": uid("Participant", principal.id.as_str()),
                "attrs": {
                    "did": principal.id.as_str(),
                    "jurisdiction": principal.jurisdiction.as_deref().unwrap_or_default(),
                    "roles": principal.roles,
                    "certifications": principal.certifications,
                },
                "parents": parents("Group", &groups),
            },
            {
                "uid": uid("Dataset", resource.dataset.as_str()),
                "attrs": {
                    "provider": resource.provider.as_str(),
                    "classification": resource.classification.as_deref().unwrap_or_default(),
                },
                "parents": parents("Collection", &collection),
            },
        ],
    })
}

struct Names {
    participant: EntityTypeName,
    group: EntityTypeName,
    dataset: EntityTypeName,
    collection: EntityTypeName,
    actions: HashMap<Action, (EntityUid, Entity)>,
}

static NAMES: LazyLock<Result<Names, String>> = LazyLock::new(|| {
    let name = |text: &str| EntityTypeName::from_str(text).map_err(|error| error.to_string());
    let action_type = name("Action")?;
    let action_uid = |id: &str| EntityUid::from_type_name_and_id(action_type.clone(), EntityId::new(id));
    let actions = Action::all()
        .map(|action| {
            let uid = action_uid(action.as_str());
            let parents = match action {
                Action::Use(_) => HashSet::from([action_uid("use")]),
                _ => HashSet::new(),
            };
            (action, (uid.clone(), Entity::new_no_attrs(uid, parents)))
        })
        .collect();
    Ok(Names {
        participant: name("Participant")?,
        group: name("Group")?,
        dataset: name("Dataset")?,
        collection: name("Collection")?,
        actions,
    })
});

/// The same, from typed values, for Cedar.
fn cedar(facts: &Facts) -> Result<(Request, Entities), String> {
    let names = NAMES.as_ref().map_err(Clone::clone)?;
    let uid = |kind: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
    let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
    let texts = |values: &BTreeSet<String>| RestrictedExpression::new_set(values.iter().map(|value| text(value)));
    let (principal, resource) = (&facts.principal, &facts.resource);
    let (action, action_entity) = names.actions.get(&facts.action).ok_or("an action that is not in the schema")?;
    let participant = uid(&names.participant, principal.id.as_str());
    let dataset = uid(&names.dataset, resource.dataset.as_str());
    let string = |error: &dyn std::fmt::Display| error.to_string();
    let participant_entity = Entity::new(
        participant.clone(),
        HashMap::from([
            ("did".to_owned(), text(principal.id.as_str())),
            ("jurisdiction".to_owned(), text(principal.jurisdiction.as_deref().unwrap_or_default())),
            ("roles".to_owned(), texts(&principal.roles)),
            ("certifications".to_owned(), texts(&principal.certifications)),
        ]),
        principal.groups.iter().map(|group| uid(&names.group, group)).collect(),
    )
    .map_err(|error| string(&error))?;
    let dataset_entity = Entity::new(
        dataset.clone(),
        HashMap::from([
            ("provider".to_owned(), text(resource.provider.as_str())),
            ("classification".to_owned(), text(resource.classification.as_deref().unwrap_or_default())),
        ]),
        resource.collection.iter().map(|collection| uid(&names.collection, collection)).collect(),
    )
    .map_err(|error| string(&error))?;
    let entities = Entities::from_entities([participant_entity, dataset_entity, action_entity.clone()], None)
        .map_err(|error| string(&error))?;
    let context =
        Context::from_pairs(facts.context.iter().map(|(fact, value)| (fact.name().to_owned(), expression(value))))
            .map_err(|error| string(&error))?;
    let request = Request::new(participant, action.clone(), dataset, context, None).map_err(|error| string(&error))?;
    Ok((request, entities))
}

fn expression(value: &Value) -> RestrictedExpression {
    match value {
        Value::Text(text) => RestrictedExpression::new_string(text.clone()),
        Value::Long(number) => RestrictedExpression::new_long(*number),
        Value::Time(at) => RestrictedExpression::new_datetime(at.to_string()),
        Value::Ip(ip) => RestrictedExpression::new_ip(ip.to_string()),
    }
}

/// Facts by name, for messages.
impl std::fmt::Display for ContextFact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
