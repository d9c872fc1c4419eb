//! The enforcement manifest: for every clause of an agreement who sees to it, and who vouches for the facts in it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::policy::{Action, Clause, FactSource, Part, Reach, Slice};

/// One clause of the policy, or one part of it, and who sees to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManifestClause {
    /// The policy's `@id`, or which floor.
    pub clause: String,
    /// Which part of it: `conditions`, `conditions of use`, `promises`, `before: …`, `during: …`, `after: …`,
    /// `contract: …`.
    pub part: String,
    /// Who enforces it.
    pub enforcer: Enforcer,
    /// Facts in it that the connection, the store or the clock vouch for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verified: Vec<String>,
    /// Facts in it that an operator vouches for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recorded: Vec<String>,
    /// Facts in it that a party only says of itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub declared: Vec<String>,
}

/// Who enforces a clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Enforcer {
    /// The provider's connector, before the bytes leave.
    #[serde(rename = "provider enforces")]
    Provider,
    /// The consumer's connector, which says so in receipts.
    #[serde(rename = "consumer attests")]
    Consumer,
    /// Nobody's machine: a promise.
    #[serde(rename = "contract only")]
    Contract,
}

impl Enforcer {
    /// The manifest's words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider enforces",
            Self::Consumer => "consumer attests",
            Self::Contract => "contract only",
        }
    }

    /// In Chinese.
    pub const fn zh(self) -> &'static str {
        match self {
            Self::Provider => "提供方执行",
            Self::Consumer => "使用方证明",
            Self::Contract => "仅合同约束",
        }
    }
}

/// The manifest of a slice. A permit that lets everything be used on no condition has nothing about uses to be enforced.
pub fn manifest(slice: &Slice) -> Vec<ManifestClause> {
    let mut listed: Vec<ManifestClause> = slice.clauses().iter().flat_map(of_clause).collect();
    listed.extend(slice.floors().iter().map(|(place, text)| ManifestClause {
        clause: (*place).to_owned(),
        part: format!("during: {text}"),
        enforcer: Enforcer::Provider,
        verified: Vec::new(),
        recorded: Vec::new(),
        declared: Vec::new(),
    }));
    listed
}

/// What the consumer owes after releases, as it is written in the policies: what an agreement lists as duties.
pub fn duties(slice: &Slice) -> Vec<String> {
    let after = |part: Part| match part {
        Part::After(after) => Some(after.to_string()),
        _ => None,
    };
    let duties: BTreeSet<String> =
        slice.clauses().into_iter().flat_map(|clause| clause.parts).filter_map(after).collect();
    duties.into_iter().collect()
}

fn of_clause(clause: &Clause) -> Vec<ManifestClause> {
    let entry = |part: String, enforcer: Enforcer, with_facts: bool| {
        let named = |wanted: FactSource| {
            let facts = clause.facts.iter().filter(|(_, source)| with_facts && *source == wanted);
            facts.map(|(fact, _)| fact.name().to_owned()).collect::<Vec<_>>()
        };
        let attributes = clause.attributes.iter().filter(|_| with_facts).map(|name| format!("principal.{name}"));
        ManifestClause {
            clause: clause.id.clone(),
            part,
            enforcer,
            verified: named(FactSource::Verified),
            recorded: named(FactSource::Operator).into_iter().chain(attributes).collect(),
            declared: named(FactSource::Declared),
        }
    };
    let reaches = |wanted: fn(&Action) -> bool| clause.actions.iter().any(wanted);
    let lifecycle = reaches(|action| !matches!(action, Action::Use(_)));
    let vault = reaches(|action| matches!(action, Action::Use(action) if action.reach() == Reach::Vault));
    let promises = reaches(|action| matches!(action, Action::Use(action) if action.reach() == Reach::Promise));
    let binds = clause.conditional || !clause.permit || clause.names_uses;
    let mut entries = Vec::new();
    if lifecycle {
        entries.push(entry("conditions".into(), Enforcer::Provider, true));
    }
    if vault && binds {
        entries.push(entry("conditions of use".into(), Enforcer::Consumer, true));
    }
    if promises && binds {
        entries.push(entry("promises".into(), Enforcer::Contract, true));
    }
    for part in &clause.parts {
        match part {
            Part::Before(before) => {
                if clause.actions.contains(&Action::Release) {
                    entries.push(entry(format!("before: {before}"), Enforcer::Provider, false));
                }
                if vault {
                    entries.push(entry(format!("before use: {before}"), Enforcer::Consumer, false));
                }
            }
            Part::During(text) => entries.push(entry(format!("during: {text}"), Enforcer::Provider, false)),
            Part::After(after) => entries.push(entry(format!("after: {after}"), Enforcer::Consumer, false)),
            Part::Contract(text) => entries.push(entry(format!("contract: {text}"), Enforcer::Contract, false)),
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Column, ColumnKind, Columns, PolicySource};

    fn listed(policy: &str, floor: &str) -> Vec<(String, String, &'static str)> {
        let columns = Columns::new(vec![Column { name: "id".into(), kind: ColumnKind::Integer }]).unwrap();
        let source = |name, text| PolicySource { name, text };
        let slice = Slice::compile(source("p", policy), source("g", ""), floor, "", &columns).unwrap();
        manifest(&slice).into_iter().map(|one| (one.clause, one.part, one.enforcer.as_str())).collect()
    }

    #[test]
    fn every_part_of_every_clause_has_an_owner() {
        let policy = r#"
            @id("a") @before("approve(board)") @during("hash(id)") @after("notify; delete_within(P1D)") @contract("no re-identification")
            permit (principal, action in [Action::"release", Action::"read"], resource) when { context.purpose == "x" };
            @id("b") permit (principal, action == Action::"discover", resource);
            @id("c") forbid (principal, action == Action::"sell", resource);"#;
        let expected = [
            ("a", "conditions", "provider enforces"),
            ("a", "conditions of use", "consumer attests"),
            ("a", "after: notify", "consumer attests"),
            ("a", "after: delete_within(P1D)", "consumer attests"),
            ("a", "before: approve(board)", "provider enforces"),
            ("a", "before use: approve(board)", "consumer attests"),
            ("a", "contract: no re-identification", "contract only"),
            ("a", "during: hash(id)", "provider enforces"),
            ("b", "conditions", "provider enforces"),
            ("c", "promises", "contract only"),
            ("the offer's floor", "during: hash(id)", "provider enforces"),
        ];
        let mut found = listed(policy, "hash(id)");
        let mut expected: Vec<_> = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c)).into();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_permit_of_everything_on_no_condition_leaves_nothing_to_the_consumer() {
        assert_eq!(
            listed("@id(\"open\") permit (principal, action, resource);", ""),
            [("open".to_owned(), "conditions".to_owned(), "provider enforces")]
        );
        let forbid = "@id(\"open\") permit (principal, action, resource);\n@id(\"no\") forbid (principal, action, resource) when { context.purpose == \"x\" };";
        let owners: Vec<_> = listed(forbid, "").into_iter().map(|(_, _, owner)| owner).collect();
        assert!(owners.contains(&"consumer attests") && owners.contains(&"contract only"));
    }

    #[test]
    fn each_fact_says_who_vouches_for_it() {
        let columns = Columns::new(vec![Column { name: "id".into(), kind: ColumnKind::Integer }]).unwrap();
        let text = r#"@id("a") permit (principal, action == Action::"release", resource)
            when { context.purpose == "x" && context.count < 3 && context.region == "CN" && principal.roles.contains("r") };"#;
        let slice =
            Slice::compile(PolicySource { name: "p", text }, PolicySource { name: "g", text: "" }, "", "", &columns);
        let entry = manifest(&slice.unwrap()).remove(0);
        assert_eq!(entry.verified, ["count"]);
        assert_eq!(entry.recorded, ["region", "principal.roles"]);
        assert_eq!(entry.declared, ["purpose"]);
    }
}
