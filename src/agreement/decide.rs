//! `decide`: the one function that discover, negotiate, release and use all call.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    agreement::{AgreementRow, PartyFacts, SubjectRow, Tally},
    id::ParticipantId,
    identity::Attributes,
    offer::{Extent, Offer},
    policy::{Action, Asked, Before, ContextFact, Decision, Facts, Money, Principal, Resource, Slice, Spent, Value},
    protocol::extension::Software,
    time::Timestamp,
};

/// What is asked, and by whom.
#[derive(Clone)]
pub struct Question<'a> {
    /// discover, negotiate, release, or a use.
    pub action: Action,
    /// Who asks.
    pub principal: Principal,
    /// Its site, as its operator's partner recorded it.
    pub site: Option<&'a str>,
    /// What for: the offer's dataset.
    pub offer: &'a Offer,
    /// The agreement it happens under, where there is one.
    pub agreement: Option<&'a AgreementRow>,
    /// The purpose that was declared, where one was.
    pub purpose: Option<&'a str>,
    /// Where the request came from, where it came over a connection.
    pub address: Option<IpAddr>,
    /// What reads it.
    pub software: &'a Software,
    /// Which part of it.
    pub asked: &'a Asked,
    /// How it is handed over.
    pub delivery: Delivery,
    /// How much it is, before obligations: that of the copy in a use.
    pub extent: Option<Extent>,
    /// When the copy arrived, in a use.
    pub arrived: Option<Timestamp>,
    /// What the participant has spent of the dataset under all its agreements.
    pub subject: Option<&'a SubjectRow>,
    /// The consents in force.
    pub consents: &'a BTreeSet<String>,
    /// What has been done first, for exactly this request.
    pub met: &'a BTreeSet<Before>,
    /// When.
    pub now: Timestamp,
}

/// How data is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Whether it leaves sealed.
    pub sealed: bool,
    /// The dictionary's code: 01 file, 02 stream, 03 API.
    pub method: &'static str,
}

static NO_SOFTWARE: Software = Software {
    application: String::new(),
    algorithm: String::new(),
    machine_learning_models: BTreeSet::new(),
    execution_env: String::new(),
};
static NOTHING_ASKED: Asked = Asked { fields: None, filter: None };
static NO_CONSENTS: BTreeSet<String> = BTreeSet::new();
static NOTHING_MET: BTreeSet<Before> = BTreeSet::new();

impl<'a> Question<'a> {
    /// A question about a whole dataset, of which nothing else is known.
    pub fn new(action: Action, principal: Principal, offer: &'a Offer, now: Timestamp) -> Self {
        Self {
            action,
            principal,
            site: None,
            offer,
            agreement: None,
            purpose: None,
            address: None,
            software: &NO_SOFTWARE,
            asked: &NOTHING_ASKED,
            delivery: Delivery::file(true),
            extent: offer.dataset.extent,
            arrived: None,
            subject: None,
            consents: &NO_CONSENTS,
            met: &NOTHING_MET,
            now,
        }
    }
}

impl Delivery {
    /// A file, sealed or in plain.
    pub const fn file(sealed: bool) -> Self {
        Self { sealed, method: "01" }
    }
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
    let dataset = &question.offer.dataset;
    slice.decide(&Facts {
        principal: question.principal.clone(),
        action: question.action,
        resource: Resource {
            dataset: dataset.id.clone(),
            collection: dataset.collection.clone(),
            provider: question.offer.provider.clone(),
            classification: dataset.classification.clone(),
            parents: dataset.parents.clone(),
        },
        context,
        met: question.met.clone(),
    })
}

fn gather(fact: ContextFact, question: &Question<'_>) -> Option<Value> {
    let text = |text: &str| Some(Value::Text(text.to_owned()));
    let number = |number: u64| Value::Long(i64::try_from(number).unwrap_or(i64::MAX));
    let zone = question.offer.policy.zone;
    match fact {
        ContextFact::Now | ContextFact::Time => Some(Value::Time(question.now)),
        ContextFact::TimeWindow => {
            let from = question.arrived.or_else(|| Some(question.agreement?.agreement.valid_from));
            let passed = from.map(|from| question.now.since(from)).unwrap_or_default();
            Some(Value::Span(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX)))
        }
        ContextFact::Weekday => Some(Value::Long(i64::from(zone.civil(question.now).weekday))),
        ContextFact::TimeOfDay => Some(Value::Span(zone.civil(question.now).since_midnight)),
        // nobody declared a purpose: that is known, and a value; so below
        ContextFact::Purpose => text(question.purpose.unwrap_or_default()),
        ContextFact::Application => text(&question.software.application),
        ContextFact::Algorithm => text(&question.software.algorithm),
        ContextFact::MachineLearningModels => Some(Value::Texts(question.software.machine_learning_models.clone())),
        ContextFact::ExecutionEnv => text(&question.software.execution_env),
        ContextFact::EncryptMode => text(if question.delivery.sealed { "02" } else { "01" }),
        ContextFact::DeliveryMethod => text(question.delivery.method),
        ContextFact::Count => Some(number(spent(question).total.count)),
        ContextFact::Frequency => Some(Value::Frequency(spent(question).frequency())),
        ContextFact::Spent => Some(Value::Spent(Box::new(spent(question)))),
        ContextFact::Subject => {
            let tally = question.subject?.get(question.action.as_str()).copied().unwrap_or_default();
            Some(Value::Spent(Box::new(tally.at(question.now, zone))))
        }
        ContextFact::DataSize => Some(number(question.extent?.bytes)),
        ContextFact::DataRecord => Some(number(question.extent?.records?)),
        ContextFact::DataField => Some(Value::Texts(question.asked.fields(&question.offer.dataset.columns).ok()?)),
        ContextFact::ValueExpression => {
            let filter = question.asked.filter(&question.offer.dataset.columns).ok()?;
            text(&filter.map(|filter| filter.tree.to_string()).unwrap_or_default())
        }
        ContextFact::PayAmount => {
            let paid = question.agreement.and_then(|row| row.payment.as_ref());
            Some(Value::Decimal(paid.map_or(Some(Money(0)), |payment| Money::parse(&payment.amount))?))
        }
        ContextFact::PayReference => {
            text(question.agreement.and_then(|row| row.payment.as_ref()).map_or("", |payment| &payment.reference))
        }
        ContextFact::Approval => {
            let role = |before: &Before| match before {
                Before::Approve(role) => Some(role.clone()),
                _ => None,
            };
            Some(Value::Texts(question.met.iter().filter_map(role).collect()))
        }
        ContextFact::Consent => Some(Value::Texts(question.consents.clone())),
        ContextFact::Agreement => text(question.agreement.map_or("", |row| row.id().as_str())),
        ContextFact::NetworkAddress => question.address.map(Value::Ip),
        ContextFact::Region => question.principal.jurisdiction.clone().map(Value::Text),
        ContextFact::PhysicalAddress => text(question.site.unwrap_or_default()),
    }
}

/// What was spent under the agreement by this action, before this request.
fn spent(question: &Question<'_>) -> Spent {
    let Some(row) = question.agreement else { return Spent::default() };
    row.tally(question.action).at(question.now, question.offer.policy.zone)
}

/// The tally of an action under an agreement.
impl AgreementRow {
    /// What was spent by this action.
    pub fn tally(&self, action: Action) -> Tally {
        match action {
            Action::Use(action) => self.uses.get(action.as_str()).copied().unwrap_or_default(),
            _ => self.releases,
        }
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
