//! The four verdicts, as a total function.

use std::{collections::BTreeSet, sync::LazyLock};

use cedar_policy::{AuthorizationError, Authorizer, Decision as CedarDecision};

use crate::{
    error::Refusal,
    id::Sha256,
    policy::{
        Before, ContextFact, Duties, Facts, Obligations, Slice, Value, phase, request,
        slice::{Compiled, schema_sha256},
    },
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
    /// What the satisfied permits and the floors demand together of the bytes.
    pub obligations: Obligations,
    /// What has to be done first and has not been; only in `conditional`.
    pub open: Vec<Before>,
    /// What had to be done first and has been.
    pub met: Vec<Before>,
    /// What the consumer owes afterwards.
    pub duties: Duties,
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
    /// permit: default-deny; something that a satisfied permit wants done first: conditional; else allow. Cedar's raw answer is never used alone: it skips a policy that errs.
    ///
    /// Facts that the slice doesn't mention for this action are left out of the request.
    pub fn decide(&self, facts: &Facts) -> Decision {
        let mut context: Vec<(ContextFact, &Value)> = Vec::new();
        let mut missing = Vec::new();
        for fact in self.mentions(facts.action) {
            match facts.context.get(fact) {
                Some(value) => context.push((*fact, value)),
                None => missing.push(fact.name()),
            }
        }
        context.sort_unstable_by_key(|(fact, _)| fact.name());
        // what has been done for it is part of a request only where something is demanded
        let demands = facts.action.waits() && !self.demands_first().is_empty();
        let request = request::canonical(facts, &context, demands);
        let (mut verdict, policies, mut reason) = match request {
            Some(_) => self.judge(facts, &context, &missing),
            None => undecided("policy-error", "a number in the request has no canonical form".into()),
        };
        let (mut open, mut met) = (Vec::new(), Vec::new());
        if verdict == Verdict::Allow && demands {
            let demanded: BTreeSet<Before> =
                self.satisfied(&policies).flat_map(|policy| policy.before.clone()).collect();
            open = phase::open(&demanded, &facts.met);
            met = demanded.into_iter().filter(|before| facts.met.contains(before)).collect();
            if !open.is_empty() {
                let todo: Vec<String> = open.iter().map(Before::todo).collect();
                verdict = Verdict::Conditional;
                reason = Some(Refusal::new("policy-conditional", format!("first, {}", todo.join("; "))));
            }
        }
        let granted = verdict == Verdict::Allow;
        Decision {
            obligations: if granted { self.demanded(&policies) } else { Obligations::default() },
            duties: if granted { self.duties(&policies) } else { Duties::default() },
            open,
            met,
            verdict,
            policies,
            reason,
            request: request.unwrap_or_default(),
            engine: ENGINE,
            policy_sha256: self.sha256(),
            schema_sha256: schema_sha256(),
        }
    }

    fn judge(&self, facts: &Facts, context: &request::Mentioned<'_>, missing: &[&str]) -> Judgement {
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return undecided(
                "fact-missing",
                format!("the policy looks at {missing}, which could not be had; nothing is allowed without it"),
            );
        }
        if let Some((fact, _)) = context.iter().find(|(fact, value)| !fact.takes(value)) {
            return undecided(
                "fact-mistyped",
                format!("{fact} was given as a value of another type than the policy's"),
            );
        }
        let (cedar_request, entities) = match request::cedar(facts, context) {
            Ok(built) => built,
            Err(error) => return undecided("policy-error", format!("the request can't be put to the policy: {error}")),
        };
        static AUTHORIZER: LazyLock<Authorizer> = LazyLock::new(Authorizer::new);
        let response = AUTHORIZER.is_authorized(&cedar_request, &self.set, &entities);
        let errors: BTreeSet<String> = response
            .diagnostics()
            .errors()
            .map(|AuthorizationError::PolicyEvaluationError(error)| error.policy_id().to_string())
            .collect();
        if !errors.is_empty() {
            let names: Vec<String> = errors.into_iter().collect();
            let sentence = format!("{} could not be evaluated; nothing is allowed while that is so", named(&names));
            return (Verdict::DefaultDeny, names, Some(Refusal::new("policy-error", sentence)));
        }
        let deciding: BTreeSet<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        let deciding: Vec<String> = deciding.into_iter().collect();
        match response.decision() {
            CedarDecision::Allow => (Verdict::Allow, deciding, None),
            CedarDecision::Deny if !deciding.is_empty() => {
                let sentence = format!("`{}` is forbidden by {}", facts.action.as_str(), named(&deciding));
                (Verdict::Deny, deciding, Some(Refusal::new("policy-forbids", sentence)))
            }
            CedarDecision::Deny => undecided("policy-no-permit", self.no_permit(facts)),
        }
    }

    fn no_permit(&self, facts: &Facts) -> String {
        let action = facts.action.as_str();
        let near: Vec<String> = self
            .policies
            .iter()
            .filter(|(_, compiled)| compiled.permit && compiled.actions.contains(&facts.action))
            .map(|(id, _)| id.clone())
            .collect();
        if near.is_empty() {
            return format!("no policy permits `{action}` at all");
        }
        format!("no policy permits `{action}` in this case: the conditions of {} are not met", named(&near))
    }

    fn satisfied(&self, policies: &[String]) -> impl Iterator<Item = &Compiled> {
        policies.iter().filter_map(|id| self.policies.get(id))
    }

    /// What these permits and the floors demand together of the bytes.
    pub fn demanded(&self, policies: &[String]) -> Obligations {
        let permits = self.satisfied(policies).flat_map(|policy| &policy.obligations);
        Obligations::meet(permits.chain(&self.floors))
    }

    /// What these permits demand together of the consumer, afterwards.
    pub fn duties(&self, policies: &[String]) -> Duties {
        Duties::meet(self.satisfied(policies).flat_map(|policy| &policy.after))
    }
}

type Judgement = (Verdict, Vec<String>, Option<Refusal>);

fn undecided(code: &'static str, sentence: String) -> Judgement {
    (Verdict::DefaultDeny, Vec::new(), Some(Refusal::new(code, sentence)))
}

/// ``policy `a` ``, ``policies `a`, `b` ``, and no more than five by name.
fn named(ids: &[String]) -> String {
    const MOST: usize = 5;
    let quoted: Vec<String> = ids.iter().take(MOST).map(|id| format!("`{id}`")).collect();
    let word = if ids.len() == 1 { "policy" } else { "policies" };
    match ids.len().saturating_sub(MOST) {
        0 => format!("{word} {}", quoted.join(", ")),
        more => format!("{word} {} and {more} more", quoted.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_name_the_engine_that_decided() {
        assert!(format!("cedar-policy {}", cedar_policy::get_sdk_version()).starts_with(&format!("{ENGINE}.")));
    }
}
