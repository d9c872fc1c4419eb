//! Decisions, decided again: from the policy, the schema and the request that a receipt names, to the same verdict, policies
//! and reason.

use std::{collections::HashMap, sync::Arc};

use crate::{
    crypto::{commitment, sha256, unb64},
    evidence::{Bundle, Content, verify::Findings},
    id::Sha256,
    offer::Offer,
    policy::{Facts, Slice},
    receipt::{DecisionRecord, Receipt},
};

/// The slices of an export's offers, by their hash.
#[derive(Default)]
pub(super) struct Slices(HashMap<Sha256, Arc<Slice>>);

/// What came of one decision.
pub(super) enum Replayed {
    /// The same.
    Same,
    /// It can't be: erased, not shown, or of another version.
    Not,
}

impl Slices {
    /// Compiles an offer whose signature holds.
    pub fn add(&mut self, offer: &Offer, place: &str, findings: &mut Findings) {
        match offer.slice() {
            Ok(slice) => {
                self.0.insert(slice.sha256(), Arc::new(slice));
            }
            Err(error) => findings.wrong("policy-broken", place, error.to_string()),
        }
    }

    /// Decides again what a receipt says was decided.
    pub fn replay(
        &self,
        receipt: &Receipt,
        decision: &DecisionRecord,
        request: &Content,
        place: &str,
        findings: &mut Findings,
    ) -> Replayed {
        let Some(slice) = self.0.get(&decision.policy_sha256) else { return Replayed::Not };
        if decision.schema_sha256 != slice.schema_sha256() {
            return Replayed::Not;
        }
        let facts = match Facts::read(request.text.as_bytes()) {
            Ok(facts) => facts,
            Err(problem) => {
                findings.wrong("request-broken", place, problem);
                return Replayed::Not;
            }
        };
        let action = receipt.action.as_deref().is_none_or(|action| action == facts.action.as_str());
        if !action {
            findings.wrong(
                "decision-differs",
                place,
                format!("the request that was decided is `{}`", facts.action.as_str()),
            );
        }
        let again = slice.decide(&facts);
        if again.engine != decision.engine {
            return Replayed::Not;
        }
        let reason = again.reason.as_ref().map(|reason| reason.code.as_str());
        let told = |verdict: &str, policies: &[String], reason: Option<&str>| {
            format!(
                "{verdict} by [{}]{}",
                policies.join(", "),
                reason.map(|code| format!(", {code}")).unwrap_or_default()
            )
        };
        let (now, then) = (
            told(again.verdict.as_str(), &again.policies, reason),
            told(&decision.verdict, &decision.policies, decision.reason.as_deref()),
        );
        if now != then {
            findings.wrong("decision-differs", place, format!("the receipt says {then}; the policy says {now}"));
        }
        Replayed::Same
    }
}

/// Every content that is shown is what the receipt commits to, and of a kind that it does commit to.
pub(super) fn contents(
    receipt: &Receipt,
    shown: &std::collections::BTreeMap<String, Content>,
    place: &str,
    findings: &mut Findings,
) {
    for (name, content) in shown {
        let committed = match name.as_str() {
            "request" => receipt.decision.as_ref().map(|decision| decision.request_commit),
            other => receipt.commitments.get(other).copied(),
        };
        let salt = unb64(&content.salt).ok().and_then(|salt| <[u8; 32]>::try_from(salt).ok());
        let holds = salt.is_some_and(|salt| Some(commitment(&salt, content.text.as_bytes())) == committed);
        if !holds {
            findings.wrong("content-differs", place, format!("`{name}` is not what the receipt commits to"));
        }
    }
}

/// The schema beside the receipts is the one that this verifier decides by, or it can't replay.
pub(super) fn schema(bundle: &Bundle, findings: &mut Findings) {
    let found = sha256(bundle.schema.as_bytes());
    let named = bundle.receipts.iter().filter_map(|exported| super::super::bundle::claimed(&exported.jws)?.decision);
    for decision in named {
        if decision.schema_sha256 != found {
            findings.wrong(
                "schema-missing",
                "policies",
                format!("a decision names the schema {}, which isn't there", decision.schema_sha256),
            );
            return;
        }
    }
}
