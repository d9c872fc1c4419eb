//! Policy inheritance (策略继承): what holds of data that was derived from others.
//!
//! A use of derived data is decided by every parent's policy, and the strictest answer holds ([`strictest`]). Where it is
//! offered onward, the parents' `forbid`s join the new offer's global policies, and what their permits and floors demand
//! of the bytes joins its floor ([`inherit`]). Permits are never inherited: the new offer's own policy permits.

use std::{str::FromStr as _, thread};

use cedar_policy::{Effect, Policy, PolicyId, PolicySet};
use serde_json::{Value as Json, json};

use crate::{
    crypto::sha256,
    policy::{
        ColumnKind, Columns, Decision, ObligationError, Verdict, bounds,
        obligation::{Args, Obligation},
        parse,
    },
};

/// Obligations on one column each: where the column is gone, nothing is left that they could be demanded of.
const OF_ONE_COLUMN: [&str; 9] =
    ["drop", "redact", "nullify", "hash", "show_first", "show_last", "year", "band", "round"];
/// Longest `@id` of an inherited policy.
const MAX_ID: usize = 64;

/// A policy that data was had under.
#[derive(Clone, Copy, Debug)]
pub struct Inheritable<'a> {
    /// The parent dataset's id.
    pub dataset: &'a str,
    /// The collection that it is in.
    pub collection: Option<&'a str>,
    /// The offer's own policies.
    pub cedar: &'a str,
    /// The global ones.
    pub global: &'a str,
    /// Its floor.
    pub floor: &'a str,
    /// Its connector's.
    pub connector_floor: &'a str,
}

/// What an offer of derived data inherits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Cedar text, to be joined to the offer's global policies.
    pub forbids: String,
    /// Obligations, to be joined to the offer's floor.
    pub floor: String,
    /// Obligations that nothing is left of: their column isn't in the derived data.
    pub vacuous: Vec<String>,
}

/// Why a policy can't be inherited. Then nothing is offered.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// A parent's policy that can't be read.
    #[error("the policy of `{parent}` can't be read: {problem}")]
    Unreadable {
        /// The parent's dataset.
        parent: String,
        /// Why.
        problem: String,
    },
    /// A `forbid` that looks at the dataset: of the derived one it would say something else.
    #[error(
        "`{parent}`: the policy `{policy}` forbids by what it reads of `resource`, which is another dataset here; its provider has to agree to a policy without that"
    )]
    LooksAtResource {
        /// The parent's dataset.
        parent: String,
        /// `@id`.
        policy: String,
    },
    /// An obligation that can't be kept on the derived data.
    #[error("`{parent}`: `{obligation}` can't be kept on the derived data: {problem}")]
    Obligation {
        /// The parent's dataset.
        parent: String,
        /// As it was written.
        obligation: String,
        /// Why.
        problem: String,
    },
    /// No thread to read on.
    #[error("no thread to read policies on: {0}")]
    Thread(#[from] std::io::Error),
}

/// The strictest of several decisions, by its place: a forbid, then what nobody permits, then what has to be done first.
/// None of none: nothing is allowed that nobody decides.
pub fn strictest<'a>(decisions: impl IntoIterator<Item = &'a Decision>) -> Option<(usize, Verdict)> {
    let strictness = |verdict: Verdict| match verdict {
        Verdict::Deny => 0,
        Verdict::DefaultDeny => 1,
        Verdict::Conditional => 2,
        Verdict::Allow => 3,
    };
    let verdicts = decisions.into_iter().map(|decision| decision.verdict).enumerate();
    verdicts.min_by_key(|(place, verdict)| (strictness(*verdict), *place))
}

/// What an offer of data with these columns inherits from its parents.
///
/// # Errors
/// Whatever could not be kept as it was agreed, by name.
pub fn inherit(parents: &[Inheritable<'_>], columns: &Columns) -> Result<Inherited, InheritError> {
    for parent in parents {
        for text in [parent.cedar, parent.global] {
            bounds::check(text).map_err(|out| parent.unreadable(out.problem))?;
        }
    }
    // Cedar's parser recurses: see `bounds`
    thread::scope(|scope| {
        thread::Builder::new()
            .name("inherit".into())
            .stack_size(bounds::STACK)
            .spawn_scoped(scope, || inherit_here(parents, columns))?
            .join()
            .unwrap_or_else(|_| Err(InheritError::Thread(std::io::Error::other("Cedar gave up on these policies"))))
    })
}

fn inherit_here(parents: &[Inheritable<'_>], columns: &Columns) -> Result<Inherited, InheritError> {
    let mut inherited = Inherited::default();
    for (place, parent) in parents.iter().enumerate() {
        for text in [parent.floor, parent.connector_floor].into_iter().filter(|text| !text.trim().is_empty()) {
            inherited.demand(parent, text, columns)?;
        }
        for text in [parent.cedar, parent.global] {
            let policies = PolicySet::from_str(text).map_err(|error| parent.unreadable(error.to_string()))?;
            let mut policies: Vec<&Policy> = policies.policies().collect();
            policies.sort_by_key(|policy| policy.annotation("id").unwrap_or_default().to_owned());
            for policy in policies {
                if policy.effect() == Effect::Forbid {
                    inherited.forbids.extend(parent.forbid(place + 1, policy)?);
                } else if let Some(during) = policy.annotation("during") {
                    inherited.demand(parent, during, columns)?;
                }
            }
        }
    }
    Ok(inherited)
}

impl Inheritable<'_> {
    fn unreadable(&self, problem: impl Into<String>) -> InheritError {
        InheritError::Unreadable { parent: self.dataset.to_owned(), problem: problem.into() }
    }

    /// A forbid as it holds of the derived data; none where it never held of the parent.
    fn forbid(&self, place: usize, policy: &Policy) -> Result<Option<String>, InheritError> {
        let mut est = policy.to_json().map_err(|error| self.unreadable(error.to_string()))?;
        if !self.is_in(&est["resource"]) {
            return Ok(None);
        }
        let id = policy.annotation("id").unwrap_or_default().to_owned();
        if looks_at_resource(&est["conditions"]) {
            return Err(InheritError::LooksAtResource { parent: self.dataset.to_owned(), policy: id });
        }
        est["resource"] = json!({ "op": "All" });
        // told apart from the offer's own, and from another parent's of the same name
        let mut name = format!("inherited-{place}/{id}");
        if name.chars().count() > MAX_ID {
            name = format!("inherited-{place}/{}", &sha256(id.as_bytes()).to_string()[..16]);
        }
        est["annotations"]["id"] = Json::String(name);
        let written = Policy::from_json(Some(PolicyId::new("inherited")), est)
            .map_err(|error| self.unreadable(error.to_string()))?;
        Ok(Some(format!("{written}\n")))
    }

    /// Whether a scope takes the parent in. In doubt it does.
    fn is_in(&self, scope: &Json) -> bool {
        let names = |entity: &Json| {
            let id = entity["id"].as_str();
            match entity["type"].as_str() {
                Some("Dataset") => id == Some(self.dataset),
                Some("Collection") => id.is_some() && id == self.collection,
                _ => true,
            }
        };
        match scope["op"].as_str() {
            Some("==") => names(&scope["entity"]),
            Some("in") => match scope["entities"].as_array() {
                Some(several) => several.iter().any(names),
                None => names(&scope["entity"]),
            },
            Some("is") => scope.get("in").is_none_or(|scope| names(&scope["entity"])),
            _ => true,
        }
    }
}

fn looks_at_resource(json: &Json) -> bool {
    match json {
        Json::Object(members) => {
            members.get("Var").is_some_and(|variable| variable == "resource") || members.values().any(looks_at_resource)
        }
        Json::Array(items) => items.iter().any(looks_at_resource),
        _ => false,
    }
}

impl Inherited {
    /// Adds what a text demands, as far as the columns are there.
    fn demand(&mut self, parent: &Inheritable<'_>, text: &str, columns: &Columns) -> Result<(), InheritError> {
        let statements = parse::pieces(text).map_err(|error| parent.unreadable(error.to_string()))?;
        for (name, mut args) in statements {
            if name == "keep" || name == "drop" {
                args.words.retain(|column| columns.get(column).is_some());
            }
            let written = written(&name, &args);
            let refused = |problem: String| InheritError::Obligation {
                parent: parent.dataset.to_owned(),
                obligation: written.clone(),
                problem,
            };
            match Obligation::build(&name, &args, columns) {
                Ok(_) => {
                    if !self.floor.is_empty() {
                        self.floor.push_str("; ");
                    }
                    self.floor.push_str(&written);
                }
                Err(ObligationError::Column { .. }) if OF_ONE_COLUMN.contains(&name.as_str()) => {
                    self.vacuous.push(written)
                }
                Err(ObligationError::Arguments { .. }) if name == "drop" && args.words.is_empty() => {
                    self.vacuous.push(name);
                }
                Err(_) if name == "keep" && args.words.is_empty() => {
                    return Err(refused("none of its columns is in it, so that nothing may leave".into()));
                }
                Err(error) => return Err(refused(error.to_string())),
            }
        }
        Ok(())
    }
}

/// A statement as its parser reads it.
fn written(name: &str, args: &Args) -> String {
    if !args.raw.is_empty() {
        return format!("{name}({})", args.raw);
    }
    let quoted = |word: &String| {
        let quote = if word.contains('"') { '\'' } else { '"' };
        format!("{quote}{word}{quote}")
    };
    match args.words.as_slice() {
        [] => name.to_owned(),
        words => format!("{name}({})", words.iter().map(quoted).collect::<Vec<_>>().join(", ")),
    }
}

/// Columns of whatever kind: where only their names are known.
pub fn columns_named(names: impl IntoIterator<Item = String>) -> Option<Columns> {
    let column = |name| crate::policy::Column { name, kind: ColumnKind::Text };
    Columns::new(names.into_iter().map(column).collect()).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        id::{DatasetId, ParticipantId},
        policy::{
            Action, Column, ContextFact, Facts, PolicySource, Principal, Resource, Slice, UseAction, Value as Fact,
        },
        time::Timestamp,
    };

    fn columns() -> Columns {
        let column = |name: &str, kind| Column { name: name.into(), kind };
        Columns::new(vec![column("id", ColumnKind::Integer), column("age", ColumnKind::Integer)]).unwrap()
    }

    fn parent<'a>(dataset: &'a str, cedar: &'a str, floor: &'a str) -> Inheritable<'a> {
        Inheritable { dataset, collection: Some("health"), cedar, global: "", floor, connector_floor: "" }
    }

    fn slice(cedar: &str, global: &str, floor: &str) -> Slice {
        let source = |name, text| PolicySource { name, text };
        Slice::compile(source("own", cedar), source("global", global), floor, "", &columns()).unwrap()
    }

    fn facts(action: Action, purpose: &str, count: i64, region: &str, dataset: &str, group: &str) -> Facts {
        Facts {
            principal: Principal {
                id: ParticipantId::parse("did:web:c.invalid").unwrap(),
                jurisdiction: Some(region.into()),
                roles: BTreeSet::new(),
                certifications: BTreeSet::new(),
                groups: BTreeSet::from([group.to_owned()]),
            },
            action,
            resource: Resource {
                dataset: DatasetId::parse(dataset).unwrap(),
                collection: Some(if dataset == "derived" { "made".into() } else { "health".into() }),
                provider: ParticipantId::parse("did:web:p.invalid").unwrap(),
                classification: None,
                parents: BTreeSet::new(),
            },
            context: BTreeMap::from([
                (ContextFact::Purpose, Fact::Text(purpose.into())),
                (ContextFact::Count, Fact::Long(count)),
                (ContextFact::Region, Fact::Text(region.into())),
                (ContextFact::Now, Fact::Time(Timestamp::from_millis(0))),
            ]),
            met: BTreeSet::new(),
        }
    }

    const SCOPES: [&str; 6] = [
        "resource",
        "resource == Dataset::\"a\"",
        "resource == Dataset::\"b\"",
        "resource in Collection::\"health\"",
        "resource in Collection::\"other\"",
        "resource is Dataset in Collection::\"health\"",
    ];
    const WHO: [&str; 3] =
        ["principal", "principal in Group::\"g\"", "principal == Participant::\"did:web:c.invalid\""];
    const WHAT: [&str; 4] = [
        "action",
        "action == Action::\"release\"",
        "action in Action::\"use\"",
        "action in [Action::\"read\", Action::\"distribute\"]",
    ];
    const WHEN: [&str; 5] = [
        "",
        "when { context.purpose == \"sales\" }",
        "when { context.count >= 2 } unless { context.region == \"CN\" }",
        "when { principal.jurisdiction == \"US\" || context.purpose == \"x\" }",
        "unless { context.purpose == \"research\" }",
    ];

    fn clause() -> impl Strategy<Value = (bool, usize, usize, usize, usize)> {
        (any::<bool>(), 0..WHO.len(), 0..WHAT.len(), 0..SCOPES.len(), 0..WHEN.len())
    }

    fn text(clauses: &[(bool, usize, usize, usize, usize)]) -> String {
        let mut text = "@id(\"base\") permit (principal, action, resource);\n".to_owned();
        for (place, (forbid, who, what, on, when)) in clauses.iter().enumerate() {
            let effect = if *forbid { "forbid" } else { "permit" };
            let (who, what, on, when) = (WHO[*who], WHAT[*what], SCOPES[*on], WHEN[*when]);
            text.push_str(&format!("@id(\"c{place}\") {effect} ({who}, {what}, {on}) {when};\n"));
        }
        text
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// What a parent forbids of itself is never allowed of what was derived from it.
        #[test]
        fn the_derived_decision_never_allows_what_a_parent_denies(
            a in prop::collection::vec(clause(), 0..4),
            b in prop::collection::vec(clause(), 0..4),
            asked in prop::collection::vec((0..4_usize, 0..3_usize, 0..4_i64, 0..2_usize, 0..2_usize), 12),
        ) {
            let (a, b) = (text(&a), text(&b));
            let inherited = inherit(&[parent("a", &a, ""), parent("b", &b, "")], &columns()).unwrap();
            let derived = slice("@id(\"all\") permit (principal, action, resource);", &inherited.forbids, "");
            let parents = [("a", slice(&a, "", "")), ("b", slice(&b, "", ""))];
            for (action, purpose, count, region, group) in asked {
                let action = [
                    Action::Release,
                    Action::Discover,
                    Action::Use(UseAction::Read),
                    Action::Use(UseAction::Distribute),
                ][action];
                let purpose = ["research", "sales", "x"][purpose];
                let (region, group) = (["CN", "US"][region], ["g", "h"][group]);
                let of = |dataset| facts(action, purpose, count, region, dataset, group);
                let own: Vec<Decision> = parents.iter().map(|(id, slice)| slice.decide(&of(id))).collect();
                let denied = own.iter().any(|decision| decision.verdict == Verdict::Deny);
                let onward = derived.decide(&of("derived"));
                prop_assert_eq!(onward.verdict == Verdict::Deny, denied, "{:?}\n{}", own, inherited.forbids);
                // and a use here: never more than each allows
                let (_, verdict) = strictest(&own).unwrap();
                prop_assert_eq!(verdict == Verdict::Allow, own.iter().all(|one| one.verdict == Verdict::Allow));
                if denied {
                    prop_assert_eq!(verdict, Verdict::Deny);
                }
            }
        }
    }

    #[test]
    fn nothing_is_allowed_that_nobody_decides() {
        assert_eq!(strictest([]), None);
    }

    #[test]
    fn a_forbid_that_looks_at_the_dataset_can_not_be_inherited() {
        for condition in
            ["resource.classification == \"core\"", "resource.parents.contains(\"x\")", "resource == Dataset::\"a\""]
        {
            let cedar = format!("@id(\"f\") forbid (principal, action, resource) when {{ {condition} }};");
            let error = inherit(&[parent("a", &cedar, "")], &columns()).unwrap_err();
            assert!(matches!(error, InheritError::LooksAtResource { .. }), "{error}");
        }
        // one that never held of the parent is not in the way
        let elsewhere = "@id(\"f\") forbid (principal, action, resource == Dataset::\"z\") when { resource.classification == \"core\" };";
        assert_eq!(inherit(&[parent("a", elsewhere, "")], &columns()).unwrap().forbids, "");
    }

    #[test]
    fn what_is_demanded_of_the_bytes_is_inherited_as_far_as_there_is_something_to_demand_it_of() {
        let cedar = "@id(\"p\") @during(\"band(age, 10); hash(name); keep(id, age, name); limit(5); filter(age > 3)\")
            permit (principal, action, resource);";
        let inherited = inherit(&[parent("a", cedar, "redact(id)"), parent("b", cedar, "")], &columns()).unwrap();
        assert_eq!(inherited.vacuous, ["hash(\"name\")", "hash(\"name\")"]);
        let met =
            slice("@id(\"o\") permit (principal, action, resource);", &inherited.forbids, &inherited.floor).floor();
        assert_eq!((met.limit, met.keep.as_ref().unwrap().len()), (Some(5), 2));
        assert!(met.filter.is_some() && met.columns.contains_key("age") && met.columns.contains_key("id"));
        for (floor, word) in [
            ("keep(name)", "nothing may leave"),
            ("at_least(5, name)", "name"),
            ("filter(name = 'x')", "name"),
            ("match(name)", "name"),
        ] {
            let error = inherit(&[parent("a", cedar, floor)], &columns()).unwrap_err();
            assert!(matches!(&error, InheritError::Obligation { problem, .. } if problem.contains(word)), "{error}");
        }
        // gone, and gone it stays
        assert_eq!(
            inherit(&[parent("a", "@id(\"p\") permit (principal, action, resource);", "drop(name)")], &columns())
                .unwrap()
                .vacuous,
            ["drop"]
        );
    }
}
