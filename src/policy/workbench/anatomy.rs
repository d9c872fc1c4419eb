//! A policy taken apart: its scope and what its conditions join, each evaluated by Cedar for itself.

use std::sync::LazyLock;

use cedar_policy::{Authorizer, Decision, Effect, Entities, Policy, PolicyId, PolicySet, Request};
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::policy::{
    ContextFact, Facts, Slice, Value, request, syntax,
    workbench::{on_deep_stack, scan},
};

/// One policy of a slice, taken apart.
#[derive(Clone, Debug)]
pub struct Anatomy {
    /// `@id`.
    pub id: String,
    /// Whether it permits.
    pub permit: bool,
    /// As it was written.
    pub text: String,
    /// Scope first, then what the conditions join.
    pub pieces: Vec<Piece>,
}

/// A part of a policy that is true or not.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Which part.
    pub kind: PieceKind,
    /// As it was written, on one line.
    pub text: String,
    /// Its first byte in the policy's text.
    pub at: usize,
    /// Its syntax; of an `unless`, what must not be.
    pub(super) tree: Json,
    alone: PolicySet,
}

/// Which part of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// For whom.
    Principal,
    /// For which actions.
    Action,
    /// For which datasets.
    Resource,
    /// What must be.
    When,
    /// What must not be.
    Unless,
}

/// A value that a part of a policy met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// As in the policy, without `context.`.
    pub name: String,
    /// In Chinese.
    pub zh: String,
    /// The value, or that there is none.
    pub value: Option<String>,
}

/// A request that pieces are evaluated on.
pub(super) struct Asked {
    request: Option<(Request, Entities)>,
}

impl Asked {
    /// The request of these facts, as [`Slice::decide`] puts it.
    pub fn new(slice: &Slice, facts: &Facts) -> Self {
        let mut context: Vec<(ContextFact, &Value)> =
            slice.mentions(facts.action).iter().filter_map(|fact| Some((*fact, facts.context.get(fact)?))).collect();
        context.sort_unstable_by_key(|(fact, _)| fact.name());
        Self { request: request::cedar(facts, &context).ok() }
    }
}

impl Anatomy {
    /// The slice's policies, in the order of their ids.
    ///
    /// # Errors
    /// Cedar's JSON form could not be had: nothing that compiles.
    pub fn of(slice: &Slice) -> Result<Vec<Self>, String> {
        on_deep_stack(|| slice.policies.keys().map(|id| Self::one(slice, id)).collect())?
    }

    fn one(slice: &Slice, id: &str) -> Result<Self, String> {
        let policy = slice.set.policy(&PolicyId::new(id)).ok_or_else(|| format!("no policy `{id}`"))?;
        Self::read(id, policy)
    }

    /// One policy, taken apart.
    pub(super) fn read(id: &str, policy: &Policy) -> Result<Self, String> {
        let tree = policy.to_json().map_err(|error| error.to_string())?;
        let text = policy.to_string();
        let mut pieces = Vec::new();
        for (kind, name) in
            [(PieceKind::Principal, "principal"), (PieceKind::Action, "action"), (PieceKind::Resource, "resource")]
        {
            if let Some(scope) = scope(name, &tree[name]) {
                let at = text.find(name).unwrap_or(0);
                pieces.push(Piece::new(kind, scope_text(name, &tree[name]), at, scope)?);
            }
        }
        let written = scan::clauses(&text);
        let conditions = tree["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (place, condition) in conditions.iter().enumerate() {
            let unless = condition["kind"] == "unless";
            let kind = if unless { PieceKind::Unless } else { PieceKind::When };
            let mut parts = Vec::new();
            flatten(&condition["body"], if unless { "||" } else { "&&" }, &mut parts);
            let spans = written
                .get(place)
                .filter(|clause| clause.unless == unless && clause.parts.len() == parts.len())
                .map(|clause| &clause.parts);
            for (number, part) in parts.into_iter().enumerate() {
                let span = spans.map(|spans| spans[number].clone());
                let line = span.as_ref().map(|span| scan::one_line(&text[span.clone()]));
                pieces.push(Piece::new(
                    kind,
                    line.unwrap_or_else(|| printed(part)),
                    span.map_or(0, |s| s.start),
                    part.clone(),
                )?);
            }
        }
        Ok(Self { id: id.to_owned(), permit: policy.effect() == Effect::Permit, text, pieces })
    }

    /// The dataset that the scope names, if it names one.
    pub fn dataset(&self) -> Option<&str> {
        let piece = self.pieces.iter().find(|piece| piece.kind == PieceKind::Resource)?;
        piece.tree["=="]["right"]["Value"]["__entity"]["id"].as_str()
    }

    /// What the conditions join.
    pub fn conjuncts(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().filter(|piece| piece.is_condition())
    }
}

impl Piece {
    fn new(kind: PieceKind, text: String, at: usize, tree: Json) -> Result<Self, String> {
        let condition = if kind == PieceKind::Unless { "unless" } else { "when" };
        let policy = alone(condition, &tree)?;
        let alone = PolicySet::from_policies([policy]).map_err(|error| error.to_string())?;
        Ok(Self { kind, text, at, tree, alone })
    }

    /// Whether it is of a condition, not of the scope.
    pub const fn is_condition(&self) -> bool {
        matches!(self.kind, PieceKind::When | PieceKind::Unless)
    }

    /// As it was written, with `unless` where it must not be.
    pub fn shown(&self) -> String {
        if self.kind == PieceKind::Unless { format!("unless {}", self.text) } else { self.text.clone() }
    }

    /// Whether it lets the policy apply; `None` where Cedar can't say.
    pub(super) fn holds(&self, asked: &Asked) -> Option<bool> {
        static AUTHORIZER: LazyLock<Authorizer> = LazyLock::new(Authorizer::new);
        let (request, entities) = asked.request.as_ref()?;
        let response = AUTHORIZER.is_authorized(request, &self.alone, entities);
        response.diagnostics().errors().next().is_none().then(|| response.decision() == Decision::Allow)
    }

    /// What it looks at, and the values that these have here.
    pub fn seen(&self, facts: &Facts) -> Vec<Seen> {
        let mut paths = Vec::new();
        look(&self.tree, &mut paths);
        let mut seen: Vec<Seen> = paths.iter().filter_map(|path| value_of(path, facts)).collect();
        let variable = match self.kind {
            PieceKind::Principal => "principal",
            PieceKind::Action => "action",
            PieceKind::Resource => "resource",
            PieceKind::When | PieceKind::Unless => "",
        };
        if seen.is_empty() {
            seen.extend(value_of(&[variable.to_owned()], facts));
        }
        seen
    }

    /// The facts that it looks at.
    pub fn facts(&self) -> impl Iterator<Item = ContextFact> {
        syntax::read(&self.tree).facts.into_iter()
    }
}

/// A policy of this condition alone.
fn alone(kind: &str, body: &Json) -> Result<Policy, String> {
    let all = json!({ "op": "All" });
    let policy = json!({
        "effect": "permit", "principal": all, "action": all, "resource": all,
        "conditions": [{ "kind": kind, "body": body }],
    });
    Policy::from_json(None, policy).map_err(|error| error.to_string())
}

/// As Cedar prints it, where the text doesn't tell.
fn printed(tree: &Json) -> String {
    let Ok(policy) = alone("when", tree) else { return tree.to_string() };
    let text = policy.to_cedar().unwrap_or_else(|| policy.to_string());
    let body = scan::clauses(&text).first().and_then(|clause| {
        let (first, last) = (clause.parts.first()?, clause.parts.last()?);
        Some(scan::one_line(&text[first.start..last.end]))
    });
    body.unwrap_or_else(|| tree.to_string())
}

/// A scope's part as an expression; `None` where it is no condition.
fn scope(variable: &str, scope: &Json) -> Option<Json> {
    let left = json!({ "Var": variable });
    let entity = |uid: &Json| json!({ "Value": { "__entity": uid } });
    match scope["op"].as_str()? {
        "==" => Some(json!({ "==": { "left": left, "right": entity(&scope["entity"]) } })),
        "in" => Some(match scope["entities"].as_array() {
            Some(several) => {
                json!({ "in": { "left": left, "right": { "Set": several.iter().map(entity).collect::<Vec<_>>() } } })
            }
            None => json!({ "in": { "left": left, "right": entity(&scope["entity"]) } }),
        }),
        // every principal is a Participant, every resource a Dataset: only the group counts
        "is" => scope["in"].get("entity").map(|uid| json!({ "in": { "left": left, "right": entity(uid) } })),
        _ => None,
    }
}

fn scope_text(variable: &str, scope: &Json) -> String {
    let entity = |uid: &Json| {
        let text = |member: &str| uid[member].as_str().unwrap_or_default().to_owned();
        format!("{}::{:?}", text("type"), text("id"))
    };
    match scope["op"].as_str() {
        Some("==") => format!("{variable} == {}", entity(&scope["entity"])),
        Some("is") => format!(
            "{variable} is {} in {}",
            scope["entity_type"].as_str().unwrap_or_default(),
            entity(&scope["in"]["entity"])
        ),
        _ => match scope["entities"].as_array() {
            Some(several) => format!("{variable} in [{}]", several.iter().map(entity).collect::<Vec<_>>().join(", ")),
            None => format!("{variable} in {}", entity(&scope["entity"])),
        },
    }
}

/// What `sign` joins, in order.
fn flatten<'a>(tree: &'a Json, sign: &str, parts: &mut Vec<&'a Json>) {
    match tree.get(sign) {
        Some(both) => {
            flatten(&both["left"], sign, parts);
            flatten(&both["right"], sign, parts);
        }
        None => parts.push(tree),
    }
}

/// The path of an access: `context.frequency.day` is `["context", "frequency", "day"]`.
pub(super) fn path_of(tree: &Json) -> Option<Vec<String>> {
    if let Some(variable) = tree["Var"].as_str() {
        return Some(vec![variable.to_owned()]);
    }
    let access = tree.get(".")?;
    let mut path = path_of(&access["left"])?;
    path.push(access["attr"].as_str()?.to_owned());
    Some(path)
}

fn look(tree: &Json, paths: &mut Vec<Vec<String>>) {
    if let Some(path) = path_of(tree) {
        if path.len() > 1 && !paths.contains(&path) {
            paths.push(path);
        }
        return;
    }
    match tree {
        Json::Object(members) => {
            if let Some(membership) = members.get("in")
                && let Some(variable) = membership["left"]["Var"].as_str()
            {
                paths.push(vec![variable.to_owned(), "in".to_owned()]);
            }
            members.values().for_each(|member| look(member, paths));
        }
        Json::Array(items) => items.iter().for_each(|item| look(item, paths)),
        _ => {}
    }
}

fn value_of(path: &[String], facts: &Facts) -> Option<Seen> {
    let seen = |name: String, zh: &str, value: Option<String>| Some(Seen { name, zh: zh.to_owned(), value });
    let texts = |texts: &std::collections::BTreeSet<String>| Some(Value::Texts(texts.clone()).display());
    let text = |text: &str| Some(Value::Text(text.to_owned()).display());
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let (who, what) = (&facts.principal, &facts.resource);
    match names.as_slice() {
        ["principal"] => seen("the participant".into(), "参与方", text(who.id.as_str())),
        ["principal", "in"] => seen("the participant's groups".into(), "参与方所属组", texts(&who.groups)),
        ["principal", "did"] => seen("principal.did".into(), "参与方标识", text(who.id.as_str())),
        ["principal", "jurisdiction"] => {
            seen("principal.jurisdiction".into(), "参与方法域", text(who.jurisdiction.as_deref().unwrap_or_default()))
        }
        ["principal", "roles"] => seen("principal.roles".into(), "参与方角色", texts(&who.roles)),
        ["principal", "certifications"] => {
            seen("principal.certifications".into(), "参与方认证", texts(&who.certifications))
        }
        ["action"] | ["action", "in"] => seen("the action".into(), "操作", Some(facts.action.as_str().to_owned())),
        ["resource"] => seen("the dataset".into(), "数据集", text(what.dataset.as_str())),
        ["resource", "in"] => seen(
            "the dataset's collection".into(),
            "数据集所属集合",
            text(what.collection.as_deref().unwrap_or_default()),
        ),
        ["resource", "provider"] => seen("resource.provider".into(), "提供方", text(what.provider.as_str())),
        ["resource", "classification"] => seen(
            "resource.classification".into(),
            "数据分类分级",
            text(what.classification.as_deref().unwrap_or_default()),
        ),
        ["resource", "parents"] => seen("resource.parents".into(), "来源数据集", texts(&what.parents)),
        ["context", name, members @ ..] => {
            let fact = ContextFact::parse(name)?;
            let value = facts.context.get(&fact).map(|value| member(value, members).unwrap_or_else(|| value.display()));
            seen(names[1..].join("."), fact.zh(), value)
        }
        _ => None,
    }
}

/// A member of a counter.
fn member(value: &Value, path: &[&str]) -> Option<String> {
    match (value, path) {
        (Value::Frequency(often), [name]) => {
            often.members().into_iter().find(|(member, _)| member == name).map(|(_, count)| count.to_string())
        }
        (Value::Spent(spent), [period, rest @ ..]) => {
            let (_, amount) = spent.members().into_iter().find(|(member, _)| member == period)?;
            let members = amount.members();
            match rest {
                [name] => members.into_iter().find(|(member, _)| member == name).map(|(_, much)| much.to_string()),
                _ => Some(format!("{{{}}}", members.map(|(name, much)| format!("{name}: {much}")).join(", "))),
            }
        }
        _ => None,
    }
}

/// The first policy of a text, taken apart: for tests and for policies that compile by themselves.
#[cfg(test)]
pub(super) fn apart(text: &str) -> Anatomy {
    Anatomy::read("p", &text.parse().unwrap()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_comes_apart_in_its_own_words() {
        let policy = apart(
            "permit (principal in Group::\"research\", action == Action::\"release\", resource is Dataset)\n when { context.purpose == \"research\" &&\n context.count < 3 } unless { context.frequency.day >= 2 };",
        );
        let texts: Vec<String> = policy.pieces.iter().map(Piece::shown).collect();
        assert_eq!(
            texts,
            [
                "principal in Group::\"research\"",
                "action == Action::\"release\"",
                "context.purpose == \"research\"",
                "context.count < 3",
                "unless context.frequency.day >= 2",
            ]
        );
        let at = policy.pieces[3].at;
        assert!(policy.text[at..].starts_with("context.count < 3"));
        assert_eq!(
            printed(&policy.pieces[3].tree).replace(['(', ')'], "").replace("[\"count\"]", ".count"),
            "context.count < 3"
        );
    }
}
