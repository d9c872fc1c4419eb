//! What a new policy would have said of requests that were decided before.
//!
//! A request on record holds the facts that its own policy looked at, and no others. Where the new policy looks at more,
//! nothing is guessed: what it would have said can't be said.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    id::{AgreementId, ParticipantId, ReceiptId, Sha256},
    policy::{
        Action, Before, Columns, ContextFact, Decision, Facts, PolicyError, PolicySource, Slice, Verdict,
        workbench::{Anatomy, Explanation, Said, explain::explain_with, promised, written},
    },
    time::{Timestamp, Zone},
};

/// Most requests that are decided again at once.
pub const MOST: usize = 10_000;

/// A decision on record, with the request that was decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recorded {
    /// Its receipt.
    pub receipt: ReceiptId,
    /// The receipt's place among all.
    pub index: u64,
    /// When.
    pub time: Timestamp,
    /// The receipt's kind: released, used, denied, …
    pub kind: String,
    /// Under which agreement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<AgreementId>,
    /// Who consumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<ParticipantId>,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// What was decided.
    pub verdict: String,
    /// By which policies.
    pub policies: Vec<String>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The hash of the slice that decided.
    pub policy_sha256: Sha256,
    /// The request in canonical JSON; none once it was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// An offer's policies with what stands around them: all that a slice is compiled of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Terms {
    /// The offer, for people.
    pub offer: String,
    /// Its own policies.
    pub cedar: String,
    /// The connector's global ones.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub global: String,
    /// The offer's floor.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub floor: String,
    /// The connector's floor.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub connector_floor: String,
    /// Where the policy's days begin.
    #[serde(default)]
    pub zone: Zone,
    /// The dataset's columns.
    pub columns: Columns,
}

impl Terms {
    /// Compiles them.
    ///
    /// # Errors
    /// Policies that this build can't enforce, by name.
    pub fn compile(&self) -> Result<Slice, PolicyError> {
        Slice::compile(
            PolicySource { name: &self.offer, text: &self.cedar },
            PolicySource { name: "global policies", text: &self.global },
            &self.floor,
            &self.connector_floor,
            &self.columns,
        )
    }
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Simulation {
    /// Requests that were decided again.
    pub requests: u64,
    /// Those of which the new policy says the same.
    pub same: u64,
    /// Those of which it says something else, alike ones together.
    pub differing: Vec<Difference>,
    /// Those of which it can't be said.
    pub unsaid: Vec<Unsaid>,
}

/// Requests that were decided in one way and would be decided in one other.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// What was asked for.
    pub action: &'static str,
    /// In Chinese.
    pub action_zh: &'static str,
    /// What was decided.
    pub then: Side,
    /// What would be.
    pub now: Side,
    /// How many.
    pub count: u64,
    /// Which, the newest first.
    pub receipts: Vec<Touched>,
    /// Why, for the newest of them.
    pub explanation: Explanation,
}

/// A decision, as far as two of them are compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// The verdict.
    pub verdict: String,
    /// By which policies.
    pub policies: Vec<String>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What has to be done first.
    pub open: Vec<String>,
    /// What is demanded of the bytes.
    pub obligations: Vec<String>,
    /// What is owed afterwards.
    pub after: Vec<String>,
}

/// A receipt whose decision would be another, without what the request says.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Touched {
    /// The receipt.
    pub receipt: ReceiptId,
    /// When.
    pub time: Timestamp,
    /// Its kind.
    pub kind: String,
    /// Under which agreement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<AgreementId>,
    /// Who consumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<ParticipantId>,
}

/// Requests of which it can't be said what the new policy says.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unsaid {
    /// `fact-not-looked-at`, `contents-erased`, `policy-gone` or `request-unreadable`.
    pub code: &'static str,
    /// Why.
    pub why: Said,
    /// How many.
    pub count: u64,
    /// Which, the newest first.
    pub receipts: Vec<Touched>,
}

impl Side {
    /// Whether something else follows from the other. Which policies it is that say so, and why not, changes nothing.
    fn differs(&self, other: &Self) -> bool {
        let follows = |side: &Self| {
            let Self { verdict, open, obligations, after, .. } = side.clone();
            (verdict, open, obligations, after)
        };
        follows(self) != follows(other)
    }

    /// Obligations are for what leaves; floors stand in every decision, but do nothing in others.
    fn of(action: Action, decision: &Decision) -> Self {
        let releases = action == Action::Release;
        Self {
            verdict: decision.verdict.as_str().to_owned(),
            policies: decision.policies.clone(),
            reason: decision.reason.as_ref().map(|reason| reason.code.as_str().to_owned()),
            open: decision.open.iter().map(Before::to_string).collect(),
            obligations: if releases { written(&decision.obligations) } else { Vec::new() },
            after: promised(&decision.duties),
        }
    }

    /// The verdict in Chinese.
    pub fn verdict_zh(&self) -> &str {
        [Verdict::Allow, Verdict::Conditional, Verdict::Deny, Verdict::DefaultDeny]
            .into_iter()
            .find(|verdict| verdict.as_str() == self.verdict)
            .map_or(&self.verdict, |verdict| verdict.zh())
    }
}

impl Touched {
    fn of(recorded: &Recorded) -> Self {
        Self {
            receipt: recorded.receipt.clone(),
            time: recorded.time,
            kind: recorded.kind.clone(),
            agreement: recorded.agreement.clone(),
            consumer: recorded.consumer.clone(),
        }
    }
}

/// Decides requests again by a new slice and holds that against what was decided. `old`: the slices that decided, by
/// their hashes, as far as they can be had.
///
/// # Errors
/// A slice that can't be taken apart: nothing that compiles.
pub fn simulate(new: &Slice, old: &BTreeMap<Sha256, Slice>, recorded: &[Recorded]) -> Result<Simulation, String> {
    let anatomies = Anatomy::of(new)?;
    let mut newest: Vec<&Recorded> = recorded.iter().collect();
    newest.sort_by_key(|recorded| std::cmp::Reverse(recorded.index));
    let mut differing: BTreeMap<(&str, Side, Side), Difference> = BTreeMap::new();
    let mut unsaid: BTreeMap<(&str, Said), Unsaid> = BTreeMap::new();
    let mut same = 0;
    for recorded in newest {
        let (facts, then, now) = match again(new, old, recorded) {
            Ok(decided) => decided,
            Err((code, why)) => {
                let group = unsaid.entry((code, why.clone()));
                let group = group.or_insert_with(|| Unsaid { code, why, count: 0, receipts: Vec::new() });
                group.count += 1;
                group.receipts.push(Touched::of(recorded));
                continue;
            }
        };
        let side = Side::of(facts.action, &now);
        if !then.differs(&side) {
            same += 1;
            continue;
        }
        let action = facts.action;
        let key = (action.as_str(), then.clone(), side.clone());
        if !differing.contains_key(&key) {
            let explanation = explain_with(new, &anatomies, &facts, &now)?;
            let (action, action_zh) = (action.as_str(), action.zh());
            let fresh = Difference { action, action_zh, then, now: side, count: 0, receipts: Vec::new(), explanation };
            differing.insert(key.clone(), fresh);
        }
        if let Some(group) = differing.get_mut(&key) {
            group.count += 1;
            group.receipts.push(Touched::of(recorded));
        }
    }
    let mut differing: Vec<Difference> = differing.into_values().collect();
    differing.sort_by_key(|group| std::cmp::Reverse(group.count));
    let mut unsaid: Vec<Unsaid> = unsaid.into_values().collect();
    unsaid.sort_by_key(|group| std::cmp::Reverse(group.count));
    Ok(Simulation { requests: recorded.len() as u64, same, differing, unsaid })
}

/// The request, what was decided of it, and what would be; or why that can't be said.
fn again(
    new: &Slice,
    old: &BTreeMap<Sha256, Slice>,
    recorded: &Recorded,
) -> Result<(Facts, Side, Decision), (&'static str, Said)> {
    let Some(request) = &recorded.request else {
        return Err(("contents-erased", Said::new("the request was erased", "请求内容已被清除")));
    };
    let facts = Facts::read(request.as_bytes()).map_err(|problem| {
        let zh = format!("无法读取请求：{problem}");
        ("request-unreadable", Said::new(format!("the request can't be read: {problem}"), zh))
    })?;
    let Some(decided) = old.get(&recorded.policy_sha256) else {
        let en = "the policy that decided is not here any more, or this build can't enforce it";
        return Err(("policy-gone", Said::new(en, "当时作出决定的策略已不在，或本版本无法执行")));
    };
    // what it looked at and the request doesn't hold could not be had, then as now
    let looked = decided.mentions(facts.action);
    let not_looked: BTreeSet<ContextFact> = new
        .mentions(facts.action)
        .iter()
        .copied()
        .filter(|fact| !facts.context.contains_key(fact) && !looked.contains(fact))
        .collect();
    if !not_looked.is_empty() {
        let names: Vec<&str> = not_looked.iter().map(|fact| fact.name()).collect();
        let zh: Vec<String> = not_looked.iter().map(|fact| format!("{}({})", fact.zh(), fact.name())).collect();
        let were = if names.len() == 1 { "wasn't" } else { "weren't" };
        return Err((
            "fact-not-looked-at",
            Said::new(
                format!("can't be said: {} {were} looked at then", names.join(", ")),
                format!("无法判断：当时未查看{}", zh.join("、")),
            ),
        ));
    }
    let then = Side::of(facts.action, &decided.decide(&facts));
    let now = new.decide(&facts);
    let then = if then.verdict == recorded.verdict {
        then
    } else {
        // another engine decided: the record counts
        let Recorded { verdict, policies, reason, .. } = recorded.clone();
        Side { verdict, policies, reason, open: Vec::new(), obligations: Vec::new(), after: Vec::new() }
    };
    Ok((facts, then, now))
}
