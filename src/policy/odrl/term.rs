//! What constraints are about, and what is done: the names on both sides.

use std::sync::LazyLock;

use crate::policy::{
    Action, ContextFact, FactKind, UseAction,
    odrl::{NAMESPACE, ODRL},
    problem::nearest,
};

/// A left operand.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Term {
    /// As it is written: ODRL's own names with `odrl:`, ours as IRIs.
    pub odrl: String,
    /// The path in Cedar.
    pub cedar: String,
    /// What may be asked of it.
    pub kind: Kind,
    /// What is added to Cedar's number to get ODRL's: ODRL counts the execution that is asked for, the fact those before.
    pub ahead: i64,
}

/// What may be asked of a left operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Long,
    Time,
    Span,
    Decimal,
    Ip,
    /// A set of texts.
    Texts,
    /// The participant: by its id, or `isPartOf` a group.
    Recipient,
    /// The groups of the participant.
    Groups,
    /// The dataset, by its id.
    Dataset,
    /// The dataset's collections.
    Collections,
}

/// ODRL's own left operands, and what they are here.
const CORE: [(&str, ContextFact); 6] = [
    ("purpose", ContextFact::Purpose),
    ("dateTime", ContextFact::Now),
    ("count", ContextFact::Count),
    ("spatial", ContextFact::Region),
    ("systemDevice", ContextFact::Application),
    ("payAmount", ContextFact::PayAmount),
];

/// Other names that mean the same: ODRL's deprecated one, and those of EDC's and its descendants' constraint functions.
const ALSO: [(&str, &str); 5] = [
    ("odrl:system", "odrl:systemDevice"),
    ("POLICY_EVALUATION_TIME", "odrl:dateTime"),
    ("https://w3id.org/edc/v0.0.1/ns/POLICY_EVALUATION_TIME", "odrl:dateTime"),
    ("REFERRING_CONNECTOR", "odrl:recipient"),
    ("https://w3id.org/edc/v0.0.1/ns/REFERRING_CONNECTOR", "odrl:recipient"),
];

/// Actions of ODRL's that are actions here.
const ACTIONS: [(&str, UseAction); 10] = [
    ("transform", UseAction::Transform),
    ("anonymize", UseAction::Anonymize),
    ("read", UseAction::Read),
    ("reproduce", UseAction::Reproduce),
    ("distribute", UseAction::Distribute),
    ("grantUse", UseAction::GrantUse),
    ("sell", UseAction::Sell),
    ("delete", UseAction::Delete),
    ("compensate", UseAction::Compensate),
    ("display", UseAction::View),
];

static TERMS: LazyLock<Vec<Term>> = LazyLock::new(|| {
    let term = |odrl: String, cedar: String, kind| Term { odrl, cedar, kind, ahead: 0 };
    let ours = |name: &str| format!("{NAMESPACE}{name}");
    let mut terms = Vec::new();
    for fact in ContextFact::ALL {
        let (name, cedar) = (fact.name(), format!("context.{}", fact.name()));
        let core = CORE.iter().find(|(_, core)| *core == fact).map(|(core, _)| format!("odrl:{core}"));
        let odrl = core.unwrap_or_else(|| ours(name));
        let kind = match fact.kind() {
            FactKind::Text => Kind::Text,
            FactKind::Long => Kind::Long,
            FactKind::Time => Kind::Time,
            FactKind::Span => Kind::Span,
            FactKind::Decimal => Kind::Decimal,
            FactKind::Ip => Kind::Ip,
            FactKind::Texts => Kind::Texts,
            FactKind::Frequency | FactKind::Spent => {
                for period in ["total", "minute", "hour", "day", "month", "year"] {
                    let members: &[&str] =
                        if fact.kind() == FactKind::Spent { &[".count", ".records", ".bytes"] } else { &[""] };
                    for member in members.iter().filter(|member| !member.is_empty() || period != "total") {
                        let path = format!("{period}{member}");
                        terms.push(term(ours(&format!("{name}.{path}")), format!("{cedar}.{path}"), Kind::Long));
                    }
                }
                continue;
            }
        };
        match fact {
            // the same instant as `now`, which is read in its stead
            ContextFact::Time => {}
            ContextFact::Count => terms.push(Term { ahead: 1, ..term(odrl, cedar, kind) }),
            _ => terms.push(term(odrl, cedar, kind)),
        }
    }
    terms.extend([
        term("odrl:recipient".into(), "principal".into(), Kind::Recipient),
        term(ours("group"), "principal in Group".into(), Kind::Groups),
        term(ours("jurisdiction"), "principal.jurisdiction".into(), Kind::Text),
        term(ours("roles"), "principal.roles".into(), Kind::Texts),
        term(ours("certifications"), "principal.certifications".into(), Kind::Texts),
        term(ours("dataset"), "resource".into(), Kind::Dataset),
        term(ours("collection"), "resource in Collection".into(), Kind::Collections),
        term(ours("provider"), "resource.provider".into(), Kind::Text),
        term(ours("classification"), "resource.classification".into(), Kind::Text),
        term(ours("parents"), "resource.parents".into(), Kind::Texts),
    ]);
    terms
});

impl Term {
    /// All of them.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        TERMS.iter()
    }

    /// By its path in Cedar.
    pub fn of_cedar(path: &str) -> Option<&'static Self> {
        let path = match path {
            "context.time" => "context.now",
            "principal.did" => "principal",
            path => path,
        };
        Self::all().find(|term| term.cedar == path)
    }

    /// By its name in ODRL, as [`short`] gives it; else what is near.
    pub fn of_odrl(name: &str) -> Result<&'static Self, Option<&'static str>> {
        let name = ALSO.iter().find(|(also, _)| *also == name).map_or(name, |(_, means)| means);
        // ODRL's context knows its own names without a prefix
        let own = format!("odrl:{name}");
        Self::all()
            .find(|term| term.odrl == name || term.odrl == own)
            .ok_or_else(|| nearest(last(name), Self::all().map(|term| last(&term.odrl))))
    }
}

/// What an action is called: ODRL's own with `odrl:`, ours as an IRI.
pub(super) fn action(action: Action) -> String {
    let core = ACTIONS.iter().find(|(_, known)| Action::Use(*known) == action);
    core.map_or_else(|| format!("{NAMESPACE}{}", action.as_str()), |(name, _)| format!("odrl:{name}"))
}

/// Every use of a copy.
pub(super) fn any_use() -> String {
    format!("{NAMESPACE}use")
}

/// What ODRL's `use` includes: everything but passing the asset on for good, which is its `transfer`.
pub(super) fn in_use() -> impl Iterator<Item = Action> {
    Action::all().filter(|action| *action != Action::Use(UseAction::Sell))
}

/// The actions of this name, as [`short`] gives it; else what is near.
pub(super) fn actions(name: &str) -> Result<Vec<Action>, Option<&'static str>> {
    if name == any_use() {
        return Ok(UseAction::ALL.into_iter().map(Action::Use).collect());
    }
    let own = name.strip_prefix("odrl:").unwrap_or(name);
    match own {
        "use" => return Ok(in_use().collect()),
        _ if let Some((_, core)) = ACTIONS.iter().find(|(core, _)| *core == own) => {
            return Ok(vec![Action::Use(*core)]);
        }
        _ => {}
    }
    match name.strip_prefix(NAMESPACE).and_then(Action::parse) {
        // ODRL's own name is the only one of those that have one
        Some(found) if action(found) == name => Ok(vec![found]),
        _ => Err(nearest(last(own), ACTIONS.iter().map(|(name, _)| *name).chain(Action::all().map(Action::as_str)))),
    }
}

/// A name as it is compared: ODRL's IRIs with `odrl:` instead, ours in full.
pub(super) fn short(name: &str) -> String {
    match (name.strip_prefix(ODRL), name.strip_prefix("counterseal:")) {
        (Some(own), _) => format!("odrl:{own}"),
        (_, Some(ours)) => format!("{NAMESPACE}{ours}"),
        _ => name.to_owned(),
    }
}

/// The last part of an IRI or a prefixed name.
pub(super) fn last(name: &str) -> &str {
    name.rsplit(['#', '/', ':']).next().unwrap_or(name)
}
