//! A solver's counterexample as a typed request that is decided here.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr as _,
};

use cedar_policy::{Entities, EntityUid, EvalResult, Expression, Request, eval_expression};
use cedar_policy_symcc::Env;

use super::Answer;
use crate::{
    id::{DatasetId, ParticipantId},
    policy::{
        Action, Amount, ContextFact, Decision, FactKind, Facts, Frequency, Money, Principal, Resource, Slice, Spent,
        Value, Verdict,
    },
    time::Timestamp,
};

/// A request that shows something, as the slices that were asked about decide it.
#[derive(Debug)]
pub struct Counterexample {
    /// The request, with the facts that any of the slices mentions.
    pub facts: Facts,
    /// What each slice says.
    pub decisions: Vec<Decision>,
}

impl Decision {
    /// Whether it is allowed, or would be once what comes first is done.
    pub fn permits(&self) -> bool {
        matches!(self.verdict, Verdict::Allow | Verdict::Conditional)
    }
}

/// An answer of a solver's: proven, or a request on which the slices really decide as `shows` says.
pub(super) fn shown(
    env: Option<Env>,
    action: Action,
    slices: &[&Slice],
    shows: impl Fn(&[Decision]) -> bool,
) -> Answer {
    let Some(env) = env else { return Answer::Proven };
    let mentioned: BTreeSet<ContextFact> = slices.iter().flat_map(|slice| slice.mentions(action)).copied().collect();
    let candidates = match candidates(&env, action, &mentioned) {
        Some(candidates) => candidates,
        None => return Answer::Unknown("the solver's counterexample can't be read as a request".into()),
    };
    for facts in candidates {
        let decisions: Vec<Decision> = slices.iter().map(|slice| slice.decide(&facts)).collect();
        if shows(&decisions) {
            return Answer::Counterexample(Box::new(Counterexample { facts, decisions }));
        }
    }
    Answer::Unknown(
        "the solver found a request that isn't decided so here: a policy fails on it, or it says what no connector says".into(),
    )
}

/// The same request, the most readable first.
fn candidates(env: &Env, action: Action, mentioned: &BTreeSet<ContextFact>) -> Option<Vec<Facts>> {
    let read = Reader { request: &env.request, entities: &env.entities };
    let (principal, resource) = (env.request.principal()?, env.request.resource()?);
    let mut context = BTreeMap::new();
    for fact in mentioned {
        context.insert(*fact, read.fact(*fact)?);
    }
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    let (did, jurisdiction) = (read.text("principal.did")?, said(read.text("principal.jurisdiction")?));
    let (roles, certifications) = (read.texts("principal.roles")?, read.texts("principal.certifications")?);
    let groups: BTreeSet<String> = read.above(principal, "Group");
    let provider = read.text("resource.provider")?;
    let classification = said(read.text("resource.classification")?);
    let parents = read.texts("resource.parents")?;
    let collection = read.above(resource, "Collection").into_iter().next();
    let (own, dataset) = (principal.id().unescaped().to_owned(), resource.id().unescaped().to_owned());
    // what stands in no policy is anybody's name: a readable one does as well
    let mut found = Vec::new();
    for id in ["did:web:somebody.invalid", &own, &did] {
        for dataset in ["some-dataset", &dataset] {
            for provider in ["did:web:provider.invalid", &provider] {
                let (Ok(id), Ok(dataset), Ok(provider)) =
                    (ParticipantId::parse(id), DatasetId::parse(dataset), ParticipantId::parse(provider))
                else {
                    continue;
                };
                found.push(Facts {
                    principal: Principal {
                        id,
                        jurisdiction: jurisdiction.clone(),
                        roles: roles.clone(),
                        certifications: certifications.clone(),
                        groups: groups.clone(),
                    },
                    action,
                    resource: Resource {
                        dataset,
                        collection: collection.clone(),
                        provider,
                        classification: classification.clone(),
                        parents: parents.clone(),
                    },
                    context: context.clone(),
                    met: BTreeSet::new(),
                });
            }
        }
    }
    Some(found)
}

struct Reader<'a> {
    request: &'a Request,
    entities: &'a Entities,
}

impl Reader<'_> {
    /// What Cedar itself makes of an expression in this request.
    fn value(&self, expression: &str) -> Option<EvalResult> {
        eval_expression(self.request, self.entities, &Expression::from_str(expression).ok()?).ok()
    }

    fn text(&self, path: &str) -> Option<String> {
        match self.value(path)? {
            EvalResult::String(text) => Some(text),
            _ => None,
        }
    }

    fn long(&self, path: &str) -> Option<i64> {
        match self.value(path)? {
            EvalResult::Long(number) => Some(number),
            _ => None,
        }
    }

    fn texts(&self, path: &str) -> Option<BTreeSet<String>> {
        let EvalResult::Set(set) = self.value(path)? else { return None };
        set.iter()
            .map(|one| match one {
                EvalResult::String(text) => Some(text.clone()),
                _ => None,
            })
            .collect()
    }

    /// The literal in `ip("…")` or `decimal("…")`.
    fn literal(&self, path: &str) -> Option<String> {
        let EvalResult::ExtensionValue(text) = self.value(path)? else { return None };
        Some(text.split('"').nth(1)?.to_owned())
    }

    fn above(&self, uid: &EntityUid, kind: &str) -> BTreeSet<String> {
        let above = self.entities.ancestors(uid).into_iter().flatten();
        above.filter(|uid| uid.type_name().to_string() == kind).map(|uid| uid.id().unescaped().to_owned()).collect()
    }

    fn fact(&self, fact: ContextFact) -> Option<Value> {
        let path = format!("context.{}", fact.name());
        let number = |path: &str| self.long(path).and_then(|number| u64::try_from(number).ok());
        Some(match fact.kind() {
            FactKind::Text => Value::Text(self.text(&path)?),
            FactKind::Long => Value::Long(self.long(&path)?),
            FactKind::Texts => Value::Texts(self.texts(&path)?),
            FactKind::Time => Value::Time(Timestamp::from_millis(
                self.long(&format!("{path}.durationSince(datetime(\"1970-01-01\")).toMilliseconds()"))?,
            )),
            FactKind::Span => Value::Span(self.long(&format!("{path}.toMilliseconds()"))?),
            FactKind::Decimal => Value::Decimal(Money::parse(&self.literal(&path)?)?),
            // a network stands for its first address
            FactKind::Ip => Value::Ip(self.literal(&path)?.split('/').next()?.parse().ok()?),
            FactKind::Frequency => Value::Frequency(Frequency::from_members(|name| number(&format!("{path}.{name}")))?),
            FactKind::Spent => {
                let amount = |period: &str| {
                    let of = |name: &str| number(&format!("{path}.{period}.{name}"));
                    Some(Amount { count: of("count")?, records: of("records")?, bytes: of("bytes")? })
                };
                Value::Spent(Box::new(Spent {
                    total: amount("total")?,
                    minute: amount("minute")?,
                    hour: amount("hour")?,
                    day: amount("day")?,
                    month: amount("month")?,
                    year: amount("year")?,
                }))
            }
        })
    }
}
