//! Slices: an offer's own policies and the connector's global ones, compiled once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    str::FromStr as _,
    sync::LazyLock,
    thread,
};

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use serde_json::{Value as Json, json};

use crate::{
    crypto::{canonical_json, sha256},
    id::Sha256,
    policy::{
        Action, After, Before, Columns, ContextFact, FactSource, Obligation, Obligations, PolicyError, bounds, parse,
        problem::{explained, harmless, line_column, nearest, offset},
        syntax,
    },
};

/// The Cedar schema that ships.
pub const SCHEMA: &str = include_str!("../../policies/counterseal.cedarschema");

/// Longest `@id`, in characters: it stands in every receipt that the policy decides.
const MAX_ID: usize = 64;
/// Annotation keys. `contract` is a promise in words, which no machine sees to.
const KEYS: [&str; 5] = ["id", "before", "during", "after", "contract"];

static COMPILED: LazyLock<Result<Schema, String>> =
    LazyLock::new(|| Schema::from_cedarschema_str(SCHEMA).map(|(schema, _)| schema).map_err(|error| error.to_string()));

/// A policy file.
#[derive(Clone, Copy, Debug)]
pub struct PolicySource<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// One policy of a slice, for the enforcement manifest.
#[derive(Clone, Debug)]
pub struct Clause {
    /// Its `@id`.
    pub id: String,
    /// Whether it permits.
    pub permit: bool,
    /// The policy as it was written, annotations included.
    pub text: String,
    /// What it demands besides its conditions.
    pub parts: Vec<Part>,
    /// The actions that it may apply to.
    pub actions: BTreeSet<Action>,
    /// Whether its scope names uses, one by one or as a group.
    pub names_uses: bool,
    /// Whether it has conditions besides its scope.
    pub conditional: bool,
    /// The facts that it mentions, and who vouches for each.
    pub facts: Vec<(ContextFact, FactSource)>,
    /// The participant's attributes that it mentions; the provider's operator vouches for each, at pairing.
    pub attributes: Vec<&'static str>,
}

/// A demand of a clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Has to be done first.
    Before(Before),
    /// `@during`, as it was written.
    During(String),
    /// Is owed afterwards.
    After(After),
    /// A promise in words.
    Contract(String),
}

impl Clause {
    /// Whether it also speaks of uses, which the consumer's connector decides.
    pub fn reaches_use(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Use(_)))
    }
}

/// What is compiled of one policy.
#[derive(Debug)]
pub(super) struct Compiled {
    pub permit: bool,
    pub actions: BTreeSet<Action>,
    pub facts: BTreeSet<ContextFact>,
    pub attributes: BTreeSet<&'static str>,
    pub obligations: Vec<Obligation>,
    pub before: Vec<Before>,
    pub after: Vec<After>,
    pub parts: Vec<Part>,
    names_uses: bool,
    conditional: bool,
    text: String,
}

impl Compiled {
    /// The policy as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// An offer's policies, ready to decide.
#[derive(Debug)]
pub struct Slice {
    pub(super) set: PolicySet,
    pub(super) policies: BTreeMap<String, Compiled>,
    pub(super) floors: Vec<Obligation>,
    floor_texts: Vec<(&'static str, String)>,
    mentions: HashMap<Action, BTreeSet<ContextFact>>,
    /// Everything that some permit wants done first.
    first: BTreeSet<Before>,
    named: BTreeSet<String>,
    sha256: Sha256,
}

impl Slice {
    /// Compiles an offer's own policies with the global ones and both floors, against the dataset's columns.
    ///
    /// # Errors
    /// Anything that this build could not enforce as written, by name.
    pub fn compile(
        own: PolicySource<'_>,
        global: PolicySource<'_>,
        floor: &str,
        connector_floor: &str,
        columns: &Columns,
    ) -> Result<Self, PolicyError> {
        let length = own.text.len() + global.text.len() + floor.len() + connector_floor.len();
        if length > bounds::MAX_TEXT {
            return Err(PolicyError::TooLong(length));
        }
        for source in [own, global] {
            bounds::check(source.text).map_err(|out| source.wrong(out.offset, out.problem))?;
        }
        // the text may be a peer's, the caller's stack a worker's: see `bounds`
        thread::scope(|scope| {
            let compiling = thread::Builder::new()
                .name("policy".into())
                .stack_size(bounds::STACK)
                .spawn_scoped(scope, || Self::compile_here(own, global, floor, connector_floor, columns))
                .map_err(PolicyError::Thread)?;
            compiling.join().unwrap_or_else(|_| Err(PolicyError::Schema("Cedar gave up on these policies".into())))
        })
    }

    pub(super) fn compile_here(
        own: PolicySource<'_>,
        global: PolicySource<'_>,
        floor: &str,
        connector_floor: &str,
        columns: &Columns,
    ) -> Result<Self, PolicyError> {
        let mut set = PolicySet::new();
        let mut policies = BTreeMap::new();
        let mut origin: HashMap<String, PolicySource<'_>> = HashMap::new();
        let mut mentions: HashMap<Action, BTreeSet<ContextFact>> = HashMap::new();
        let mut named = BTreeSet::new();
        for (source, needed) in [(own, true), (global, false)] {
            let parsed = PolicySet::from_str(source.text)
                .map_err(|error| source.wrong(offset(&error).unwrap_or(0), explained(&error)))?;
            if parsed.templates().next().is_some() {
                return Err(PolicyError::Template(source.name.to_owned()));
            }
            if needed && parsed.is_empty() {
                return Err(PolicyError::Empty(source.name.to_owned()));
            }
            named.extend(syntax::dids(source.text));
            let mut in_order: Vec<&Policy> = parsed.policies().collect();
            in_order.sort_by_key(|policy| number_of(policy));
            for policy in in_order {
                let id = id_of(policy, &source)?;
                let est = policy.to_json().map_err(|error| source.wrong(0, error.to_string()))?;
                let found = syntax::read(&est);
                named.extend(found.participants.iter().cloned());
                let compiled = compile(policy, &id, &source, &est, found, columns)?;
                if let Some(first) = origin.insert(id.clone(), source) {
                    return Err(PolicyError::Twice { id, first: first.name.into(), second: source.name.into() });
                }
                for action in &compiled.actions {
                    mentions.entry(*action).or_default().extend(&compiled.facts);
                }
                set.add(policy.new_id(PolicyId::new(&id))).map_err(|error| source.wrong(0, error.to_string()))?;
                policies.insert(id, compiled);
            }
        }
        validate(&set, &origin)?;
        let (mut floors, mut floor_texts) = (Vec::new(), Vec::new());
        for (place, text) in [("the offer's floor", floor), ("the connector's floor", connector_floor)] {
            if !text.trim().is_empty() {
                floor_texts.push((place, text.trim().to_owned()));
                floors.extend(
                    parse::obligations(text, columns)
                        .map_err(|error| PolicyError::Obligation { place: place.to_owned(), error })?,
                );
            }
        }
        let content = json!({
            "own": own.text, "global": global.text, "floor": floor, "connectorFloor": connector_floor,
            "schema": schema_sha256(),
        });
        let sha256 = sha256(&canonical_json(&content).map_err(|error| PolicyError::Schema(error.to_string()))?);
        let first = policies.values().flat_map(|policy: &Compiled| policy.before.iter().cloned()).collect();
        Ok(Self { set, policies, floors, floor_texts, mentions, first, named, sha256 })
    }

    /// The facts that a decision on this action needs: those that any policy which may apply to it mentions.
    pub fn mentions(&self, action: Action) -> &BTreeSet<ContextFact> {
        static NONE: BTreeSet<ContextFact> = BTreeSet::new();
        self.mentions.get(&action).unwrap_or(&NONE)
    }

    /// SHA-256 over texts, floors and schema, in canonical JSON.
    pub fn sha256(&self) -> Sha256 {
        self.sha256
    }

    /// SHA-256 of the Cedar schema.
    pub fn schema_sha256(&self) -> Sha256 {
        schema_sha256()
    }

    /// The participants that the policies name: as entities, and any DID in a string, an id or a comment, since who
    /// gets the policy reads those too.
    pub fn named_participants(&self) -> BTreeSet<String> {
        self.named.clone()
    }

    /// The policy of this `@id`, as Cedar has it.
    pub(super) fn policy(&self, id: &str) -> Option<&Policy> {
        self.set.policy(&PolicyId::new(id))
    }

    /// The policies' `@id`s, in order.
    pub fn policy_ids(&self) -> Vec<String> {
        self.policies.keys().cloned().collect()
    }

    /// What each policy says, for the enforcement manifest.
    pub fn clauses(&self) -> Vec<Clause> {
        self.policies
            .iter()
            .map(|(id, compiled)| Clause {
                id: id.clone(),
                permit: compiled.permit,
                text: compiled.text.clone(),
                parts: compiled.parts.clone(),
                actions: compiled.actions.clone(),
                names_uses: compiled.names_uses,
                conditional: compiled.conditional,
                facts: compiled.facts.iter().map(|fact| (*fact, fact.source())).collect(),
                attributes: compiled.attributes.iter().copied().collect(),
            })
            .collect()
    }

    /// Everything that some permit wants done first.
    pub const fn demands_first(&self) -> &BTreeSet<Before> {
        &self.first
    }

    /// The floors as they are written, and whose they are.
    pub fn floors(&self) -> &[(&'static str, String)] {
        &self.floor_texts
    }

    /// What holds for every release, whatever permit matched.
    pub fn floor(&self) -> Obligations {
        Obligations::meet(&self.floors)
    }
}

pub(super) fn schema_sha256() -> Sha256 {
    static HASH: LazyLock<Sha256> = LazyLock::new(|| sha256(SCHEMA.as_bytes()));
    *HASH
}

impl PolicySource<'_> {
    /// What is wrong at this byte.
    pub(super) fn wrong(&self, offset: usize, problem: String) -> PolicyError {
        let (line, column) = line_column(self.text, offset);
        PolicyError::Syntax { file: self.name.to_owned(), line, column, problem }
    }
}

/// The schema that ships, compiled.
pub(super) fn schema() -> Result<&'static Schema, PolicyError> {
    COMPILED.as_ref().map_err(|error| PolicyError::Schema(error.clone()))
}

/// Strict validation. Warnings count: a policy that can never apply protects or permits nothing.
pub(super) fn validate(set: &PolicySet, origin: &HashMap<String, PolicySource<'_>>) -> Result<(), PolicyError> {
    let result = Validator::new(schema()?.clone()).validate(set, ValidationMode::Strict);
    let problems = result
        .validation_errors()
        .map(|error| (false, offset(error), error.policy_id().to_string(), explained(error)))
        .chain(result.validation_warnings().filter_map(|warning| match warning {
            // Chinese and Latin letters in one string are nothing odd
            cedar_policy::ValidationWarning::MixedScriptString(_) => None,
            other => Some((true, offset(other), other.policy_id().to_string(), explained(other))),
        }));
    // an error comes before the warnings that follow from it
    let Some((_, at, policy, problem)) = problems.min() else { return Ok(()) };
    let (file, text) = origin.get(&policy).map_or(("", ""), |source| (source.name, source.text));
    let (line, column) = line_column(text, at.unwrap_or(0));
    Err(PolicyError::Invalid { file: file.to_owned(), line, column, policy, problem })
}

pub(super) fn id_of(policy: &Policy, source: &PolicySource<'_>) -> Result<String, PolicyError> {
    let Some(id) = policy.annotation("id").filter(|id| !id.is_empty()) else {
        return Err(PolicyError::NoId { file: source.name.to_owned(), number: number_of(policy) + 1 });
    };
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/');
    if id.chars().count() > MAX_ID || !id.chars().all(fine) {
        return Err(PolicyError::BadId { file: source.name.to_owned(), id: harmless(id), max: MAX_ID });
    }
    Ok(id.to_owned())
}

fn compile(
    policy: &Policy,
    id: &str,
    source: &PolicySource<'_>,
    est: &Json,
    found: syntax::Found,
    columns: &Columns,
) -> Result<Compiled, PolicyError> {
    let permit = policy.effect() == Effect::Permit;
    let actions = syntax::actions(&est["action"]);
    let (file, policy_id) = (source.name.to_owned(), id.to_owned());
    let mut annotations: Vec<(&str, &str)> = policy.annotations().collect();
    annotations.sort_unstable();
    let (mut demanded, mut before, mut after, mut parts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let releases = actions.contains(&Action::Release);
    let names_uses = actions.iter().any(|action| matches!(action, Action::Use(_)));
    for (key, value) in annotations {
        let key_owned = key.to_owned();
        let wrong = |error| PolicyError::Obligation { place: format!("{file}: policy `{id}`: `@{key}`"), error };
        match key {
            "id" => {}
            "before" | "during" | "after" | "contract" if !permit => {
                return Err(PolicyError::OnForbid { file, policy: policy_id, key: key_owned });
            }
            "before" | "during" | "after" | "contract" if value.trim().is_empty() => {
                return Err(PolicyError::EmptyAnnotation { file, policy: policy_id, key: key_owned });
            }
            "during" | "after" if !releases => {
                let (key, covers) = (key_owned, "`release`");
                return Err(PolicyError::NoRelease { file, policy: policy_id, key, covers });
            }
            "before" if !actions.iter().any(|action| action.waits()) => {
                let (key, covers) = (key_owned, "`release` or a use");
                return Err(PolicyError::NoRelease { file, policy: policy_id, key, covers });
            }
            "before" => {
                before = parse::before(value).map_err(wrong)?;
                parts.extend(before.iter().cloned().map(Part::Before));
            }
            "during" => {
                demanded = parse::obligations(value, columns).map_err(wrong)?;
                parts.push(Part::During(value.to_owned()));
            }
            "after" => {
                after = parse::after(value).map_err(wrong)?;
                parts.extend(after.iter().cloned().map(Part::After));
            }
            "contract" => parts.push(Part::Contract(value.trim().to_owned())),
            _ => {
                let suggestion = nearest(key, KEYS).and_then(|near| KEYS.into_iter().find(|known| *known == near));
                let key = harmless(key);
                return Err(PolicyError::Annotation { file, policy: policy_id, key, suggestion });
            }
        }
    }
    if let Some(name) = found.unknown.first() {
        let suggestion = nearest(name, syntax::attribute_names()).map(str::to_owned);
        return Err(PolicyError::Has { file, policy: policy_id, attribute: harmless(name), suggestion });
    }
    Ok(Compiled {
        permit,
        actions,
        facts: found.facts,
        attributes: found.attributes,
        obligations: demanded,
        before,
        after,
        parts,
        names_uses: est["action"]["op"] != "All" && names_uses,
        conditional: est["conditions"].as_array().is_some_and(|conditions| !conditions.is_empty()),
        text: policy.to_string(),
    })
}

/// From 0: Cedar names the policies that it parses `policy0`, `policy1`, … in the order of the text.
pub(super) fn number_of(policy: &Policy) -> usize {
    policy.id().to_string().trim_start_matches("policy").parse().unwrap_or(0)
}
