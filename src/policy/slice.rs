//! Slices: an offer's own policies and the connector's global ones, compiled once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    str::FromStr as _,
    sync::LazyLock,
};

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use serde_json::{Value as Json, json};

use crate::{
    crypto::{canonical_json, sha256},
    id::Sha256,
    policy::{Action, Columns, ContextFact, FactSource, Obligation, ObligationError, Obligations, UseAction, parse},
};

/// The Cedar schema that ships.
pub const SCHEMA: &str = include_str!("../../policies/counterseal.cedarschema");

/// Most bytes of policy text in a slice.
const MAX_TEXT: usize = 2 << 20;
/// Annotation keys, this version's and later ones'.
const KEYS: [&str; 4] = ["id", "during", "before", "after"];

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

/// Why policies were not taken. Every message names the file and the policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not Cedar.
    #[error("{file}:{line}:{column}: {problem}")]
    Syntax {
        /// Which file.
        file: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// Cedar's message.
        problem: String,
    },
    /// Cedar, but not against our schema.
    #[error("{file}:{line}:{column}: policy `{policy}`: {problem}")]
    Invalid {
        /// Which file.
        file: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// `@id`.
        policy: String,
        /// Cedar's message.
        problem: String,
    },
    /// Cedar templates.
    #[error("{0}: policy templates with slots (`?principal`) are not taken; write policies")]
    Template(String),
    /// No policy at all.
    #[error("{0} holds no policy: nobody could ever be allowed anything")]
    Empty(String),
    /// Too long.
    #[error("{0} bytes of policies; at most {MAX_TEXT} are taken")]
    TooLong(usize),
    /// A policy without `@id`.
    #[error("{file}: policy number {number} has no `@id(\"…\")`: receipts name the deciding policies by it")]
    NoId {
        /// Which file.
        file: String,
        /// In the order of the file, from 1.
        number: usize,
    },
    /// Two policies of one `@id`.
    #[error("two policies have the id `{id}` (in {first} and {second}); receipts could not tell them apart")]
    Twice {
        /// The id.
        id: String,
        /// A file.
        first: String,
        /// The other.
        second: String,
    },
    /// An annotation that nobody would read.
    #[error("{file}: policy `{policy}`: unknown annotation `@{key}`{}; known are @id and @during", suggestion.map(|near| format!("; did you mean `@{near}`?")).unwrap_or_default())]
    Annotation {
        /// Which file.
        file: String,
        /// `@id`.
        policy: String,
        /// As written.
        key: String,
        /// The nearest known one.
        suggestion: Option<&'static str>,
    },
    /// An annotation that says nothing.
    #[error("{file}: policy `{policy}`: `@{key}` is empty; leave it out if nothing is demanded")]
    EmptyAnnotation {
        /// Which file.
        file: String,
        /// `@id`.
        policy: String,
        /// The key.
        key: String,
    },
    /// A phase that this version doesn't enforce.
    #[error(
        "{file}: policy `{policy}`: `@{key}` is not available in this version; nothing is published that can't be enforced"
    )]
    NotYet {
        /// Which file.
        file: String,
        /// `@id`.
        policy: String,
        /// The key.
        key: String,
    },
    /// Obligations on a `forbid`.
    #[error("{file}: policy `{policy}`: `@{key}` on a forbid; obligations ride on permits only")]
    OnForbid {
        /// Which file.
        file: String,
        /// `@id`.
        policy: String,
        /// The key.
        key: String,
    },
    /// An obligation.
    #[error("{place}: {error}")]
    Obligation {
        /// File and policy, or the floor.
        place: String,
        /// What is wrong.
        error: ObligationError,
    },
    /// The schema that ships is broken.
    #[error("the Cedar schema can't be used: {0}")]
    Schema(String),
}

/// One policy of a slice, for the enforcement manifest.
#[derive(Clone, Debug)]
pub struct Clause {
    /// Its `@id`.
    pub id: String,
    /// Whether it permits.
    pub permit: bool,
    /// Whether it also speaks of uses, which the consumer's connector decides.
    pub reaches_use: bool,
    /// The facts that it mentions, and who vouches for each.
    pub facts: Vec<(ContextFact, FactSource)>,
}

/// What is compiled of one policy.
#[derive(Debug)]
pub(super) struct Compiled {
    pub permit: bool,
    pub actions: BTreeSet<Action>,
    pub facts: BTreeSet<ContextFact>,
    pub obligations: Vec<Obligation>,
}

/// An offer's policies, ready to decide.
#[derive(Debug)]
pub struct Slice {
    pub(super) set: PolicySet,
    pub(super) policies: BTreeMap<String, Compiled>,
    pub(super) floors: Vec<Obligation>,
    mentions: HashMap<Action, BTreeSet<ContextFact>>,
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
        let length = own.text.len() + global.text.len();
        if length > MAX_TEXT {
            return Err(PolicyError::TooLong(length));
        }
        let mut set = PolicySet::new();
        let mut policies = BTreeMap::new();
        let mut origin: HashMap<String, String> = HashMap::new();
        let mut mentions: HashMap<Action, BTreeSet<ContextFact>> = HashMap::new();
        let mut named = BTreeSet::new();
        for source in [own, global] {
            let parsed = PolicySet::from_str(source.text).map_err(|error| syntax(&source, &error))?;
            if parsed.templates().next().is_some() {
                return Err(PolicyError::Template(source.name.to_owned()));
            }
            if parsed.is_empty() && source.name == own.name && source.text == own.text {
                return Err(PolicyError::Empty(source.name.to_owned()));
            }
            for policy in parsed.policies() {
                let id = policy
                    .annotation("id")
                    .map(str::to_owned)
                    .filter(|id| !id.is_empty())
                    .ok_or_else(|| PolicyError::NoId { file: source.name.to_owned(), number: number_of(policy) })?;
                let compiled = compile(policy, &id, &source, columns)?;
                if let Some(first) = origin.insert(id.clone(), source.name.to_owned()) {
                    return Err(PolicyError::Twice { id, first, second: source.name.to_owned() });
                }
                for action in &compiled.actions {
                    mentions.entry(*action).or_default().extend(&compiled.facts);
                }
                participants(&policy.to_json().unwrap_or_default(), &mut named);
                set.add(policy.new_id(PolicyId::new(&id))).map_err(|error| PolicyError::Syntax {
                    file: source.name.to_owned(),
                    line: 1,
                    column: 1,
                    problem: error.to_string(),
                })?;
                policies.insert(id, compiled);
            }
        }
        let schema = COMPILED.as_ref().map_err(|error| PolicyError::Schema(error.clone()))?;
        let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
        if let Some(error) = result.validation_errors().next() {
            let policy = error.policy_id().to_string();
            let file = origin.get(&policy).cloned().unwrap_or_else(|| own.name.to_owned());
            let text = if file == own.name { own.text } else { global.text };
            let (line, column) = line_column(text, miette_offset(error).unwrap_or(0));
            return Err(PolicyError::Invalid { file, line, column, policy, problem: explained(error) });
        }
        let mut floors = Vec::new();
        for (place, text) in [("the offer's floor", floor), ("the connector's floor", connector_floor)] {
            if !text.trim().is_empty() {
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
        Ok(Self { set, policies, floors, mentions, named, sha256 })
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

    /// The participants that the policies name.
    pub fn named_participants(&self) -> BTreeSet<String> {
        self.named.clone()
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
                reaches_use: compiled.actions.iter().any(|action| matches!(action, Action::Use(_))),
                facts: compiled.facts.iter().map(|fact| (*fact, fact.source())).collect(),
            })
            .collect()
    }

    /// What holds for every release, whatever permit matched.
    pub fn floor(&self) -> Obligations {
        Obligations::meet(&self.floors)
    }
}

/// A view in ODRL for partners who read only that: the standard action, and which policy really decides.
pub fn odrl(slice: &Slice) -> Json {
    json!({
        "permission": [{
            "action": "use",
            "constraint": [{
                "leftOperand": "https://w3id.org/counterseal/ns#policySha256",
                "operator": "eq",
                "rightOperand": slice.sha256().to_string(),
            }],
        }],
    })
}

pub(super) fn schema_sha256() -> Sha256 {
    static HASH: LazyLock<Sha256> = LazyLock::new(|| sha256(SCHEMA.as_bytes()));
    *HASH
}

fn compile(policy: &Policy, id: &str, source: &PolicySource<'_>, columns: &Columns) -> Result<Compiled, PolicyError> {
    let permit = policy.effect() == Effect::Permit;
    let (file, policy_id) = (source.name.to_owned(), id.to_owned());
    let mut demanded = Vec::new();
    for (key, value) in policy.annotations() {
        let key_owned = key.to_owned();
        match key {
            "id" => {}
            "during" | "before" | "after" if !permit => {
                return Err(PolicyError::OnForbid { file, policy: policy_id, key: key_owned });
            }
            "before" | "after" => return Err(PolicyError::NotYet { file, policy: policy_id, key: key_owned }),
            "during" if value.trim().is_empty() => {
                return Err(PolicyError::EmptyAnnotation { file, policy: policy_id, key: key_owned });
            }
            "during" => {
                demanded = parse::obligations(value, columns)
                    .map_err(|error| PolicyError::Obligation { place: format!("{file}: policy `{id}`"), error })?;
            }
            _ => {
                let suggestion = KEYS
                    .into_iter()
                    .map(|known| (strsim::damerau_levenshtein(known, key), known))
                    .filter(|(distance, _)| *distance <= 2)
                    .min()
                    .map(|(_, known)| known);
                return Err(PolicyError::Annotation { file, policy: policy_id, key: key_owned, suggestion });
            }
        }
    }
    let est = policy.to_json().unwrap_or_default();
    let mut facts = BTreeSet::new();
    context_facts(&est["conditions"], &mut facts);
    Ok(Compiled { permit, actions: actions(&est["action"]), facts, obligations: demanded })
}

/// The actions that a policy's scope may cover.
fn actions(scope: &Json) -> BTreeSet<Action> {
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

/// `context.x` and `context has x`, anywhere below; the context as a whole mentions every fact.
fn context_facts(expr: &Json, found: &mut BTreeSet<ContextFact>) {
    let is_context = |value: &Json| value["Var"] == "context";
    match expr {
        Json::Object(members) => {
            for (key, value) in members {
                match key.as_str() {
                    "." | "has" if is_context(&value["left"]) => {
                        let names = match &value["attr"] {
                            Json::String(name) => vec![name.as_str()],
                            Json::Array(path) => path.first().and_then(Json::as_str).into_iter().collect(),
                            _ => Vec::new(),
                        };
                        found.extend(names.into_iter().filter_map(ContextFact::parse));
                    }
                    "Var" if value == "context" => found.extend(ContextFact::ALL),
                    _ => context_facts(value, found),
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|item| context_facts(item, found)),
        _ => {}
    }
}

/// `Participant::"…"` anywhere in a policy.
fn participants(est: &Json, found: &mut BTreeSet<String>) {
    match est {
        Json::Object(members) => {
            if members.get("type").and_then(Json::as_str) == Some("Participant")
                && let Some(id) = members.get("id").and_then(Json::as_str)
            {
                found.insert(id.to_owned());
            }
            members.values().for_each(|value| participants(value, found));
        }
        Json::Array(items) => items.iter().for_each(|item| participants(item, found)),
        _ => {}
    }
}

/// Cedar names policies that it parses `policy0`, `policy1`, … in the order of the text.
fn number_of(policy: &Policy) -> usize {
    policy.id().to_string().trim_start_matches("policy").parse::<usize>().map_or(1, |place| place + 1)
}

fn syntax(source: &PolicySource<'_>, error: &cedar_policy::ParseErrors) -> PolicyError {
    let at = miette_offset(error).unwrap_or(0);
    let (line, column) = line_column(source.text, at);
    PolicyError::Syntax { file: source.name.to_owned(), line, column, problem: explained(error) }
}

/// The first place that an error of Cedar's points to.
fn miette_offset(error: &dyn miette::Diagnostic) -> Option<usize> {
    if let Some(label) = error.labels().and_then(|mut labels| labels.next()) {
        return Some(label.offset());
    }
    error.related().and_then(|mut related| related.find_map(miette_offset))
}

/// Cedar's message with its help.
fn explained(error: &dyn miette::Diagnostic) -> String {
    let mut text = error.to_string();
    if let Some(help) = error.help() {
        let _ = write!(text, " ({help})");
    }
    text
}

fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
