//! `decide`: the one function that discover, negotiate, release and use all call.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    agreement::{AgreementRow, PartyFacts},
    id::ParticipantId,
    identity::Attributes,
    offer::Offer,
    policy::{Action, ContextFact, Decision, Facts, Principal, Resource, Slice, Value},
    time::Timestamp,
};

/// What is asked, and by whom.
pub struct Question<'a> {
    /// discover, negotiate, release, or a use.
    pub action: Action,
    /// Who asks.
    pub principal: Principal,
    /// What for: the offer's dataset.
    pub offer: &'a Offer,
    /// The agreement it happens under, where there is one.
    pub agreement: Option<&'a AgreementRow>,
    /// The purpose that was declared, where one was.
    pub purpose: Option<&'a str>,
    /// Where the request came from, where it came over a connection.
    pub address: Option<IpAddr>,
    /// A local application, as it was declared.
    pub application: Option<&'a str>,
    /// When.
    pub now: Timestamp,
}

/// Gathers exactly the facts that the slice mentions for this action, and decides. A fact that can't be had stays
/// out, and the slice answers `default-deny` and names it.
pub fn decide(slice: &Slice, question: &Question<'_>) -> Decision {
    let mut context = BTreeMap::new();
    for fact in slice.mentions(question.action) {
        if let Some(value) = gather(*fact, question) {
            context.insert(*fact, value);
        }
    }
    slice.decide(&Facts {
        principal: question.principal.clone(),
        action: question.action,
        resource: Resource {
            dataset: question.offer.dataset.id.clone(),
            collection: question.offer.dataset.collection.clone(),
            provider: question.offer.provider.clone(),
            classification: question.offer.dataset.classification.clone(),
        },
        context,
    })
}

fn gather(fact: ContextFact, question: &Question<'_>) -> Option<Value> {
    match fact {
        ContextFact::Now => Some(Value::Time(question.now)),
        // nobody declared a purpose: that is known, and a value
        ContextFact::Purpose => Some(Value::Text(question.purpose.unwrap_or_default().to_owned())),
        ContextFact::Application => Some(Value::Text(question.application.unwrap_or_default().to_owned())),
        ContextFact::Count => Some(Value::Long(i64::try_from(spent(question)).unwrap_or(i64::MAX))),
        ContextFact::Agreement => {
            Some(Value::Text(question.agreement.map(|row| row.id().as_str().to_owned()).unwrap_or_default()))
        }
        ContextFact::NetworkAddress => question.address.map(Value::Ip),
        ContextFact::Region => question.principal.jurisdiction.clone().map(Value::Text),
    }
}

/// What was spent of the action's count before this request.
fn spent(question: &Question<'_>) -> u64 {
    let Some(row) = question.agreement else { return 0 };
    match question.action {
        Action::Use(action) => row.uses.get(action.as_str()).copied().unwrap_or(0),
        _ => row.releases,
    }
}

/// A partner as principal, with what our operator says of it.
pub fn principal_of_partner(id: ParticipantId, attributes: &Attributes) -> Principal {
    Principal {
        id,
        jurisdiction: attributes.jurisdiction.clone(),
        roles: attributes.roles.clone(),
        certifications: attributes.certifications.clone(),
        groups: attributes.groups.clone(),
    }
}

/// A party as principal, with what both signed of it.
pub fn principal_of_party(party: &PartyFacts) -> Principal {
    Principal {
        id: party.id.clone(),
        jurisdiction: party.jurisdiction.clone(),
        roles: party.roles.clone(),
        certifications: party.certifications.clone(),
        groups: party.groups.clone(),
    }
}
