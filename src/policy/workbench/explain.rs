//! Why a decision came out as it did: policy by policy, in both languages.

use serde::Serialize;

use crate::{
    error::Refusal,
    policy::{
        Action, ContextFact, Decision, FactSource, Facts, Slice, Verdict,
        workbench::{Anatomy, Piece, PieceKind, Said, Seen, anatomy::Asked, on_deep_stack, promised, written},
    },
};

/// A decision, explained.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The action.
    pub action: &'static str,
    /// In Chinese.
    pub action_zh: &'static str,
    /// The verdict.
    pub verdict: &'static str,
    /// In Chinese.
    pub verdict_zh: &'static str,
    /// The deciding policies.
    pub deciding: Vec<String>,
    /// Why not, unless it is an allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Refusal>,
    /// The verdict and its reason in a sentence.
    pub summary: Said,
    /// Each policy of the slice.
    pub policies: Vec<PolicyExplained>,
    /// What is demanded of the bytes, floors included.
    pub obligations: Vec<String>,
    /// What has to be done first and has not been.
    pub open: Vec<Said>,
    /// What has been done first.
    pub met: Vec<Said>,
    /// What the consumer owes afterwards.
    pub after: Vec<String>,
    /// The facts that were looked at, and who vouches for each.
    pub facts: Vec<FactSeen>,
}

/// Why a policy applied, or not.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyExplained {
    /// `@id`.
    pub id: String,
    /// `permit` or `forbid`.
    pub effect: &'static str,
    /// Whether it applied.
    pub outcome: Outcome,
    /// In a sentence.
    pub sentence: Said,
    /// Its parts: the scope first.
    pub pieces: Vec<PieceSeen>,
}

/// Whether a policy applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It did.
    Applied,
    /// It is about something else.
    Scope,
    /// A condition is not so.
    Condition,
    /// It could not be evaluated.
    Error,
}

/// A part of a policy, and what it came to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PieceSeen {
    /// As it was written.
    pub text: String,
    /// Whether it is of a condition.
    pub condition: bool,
    /// Whether it lets the policy apply; absent where that could not be evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<bool>,
    /// The values that it met.
    pub seen: Vec<Seen>,
}

/// A fact that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FactSeen {
    /// Its name.
    pub name: String,
    /// In Chinese.
    pub zh: String,
    /// The value, or none.
    pub value: Option<String>,
    /// `verified`, `operator` or `declared`.
    pub source: &'static str,
}

/// Explains what [`Slice::decide`] says of these facts.
///
/// # Errors
/// A slice that can't be taken apart: nothing that compiles.
pub fn explain(slice: &Slice, facts: &Facts) -> Result<Explanation, String> {
    let anatomies = Anatomy::of(slice)?;
    explain_with(slice, &anatomies, facts, &slice.decide(facts))
}

/// The same, of policies that are apart and a decision that is made.
pub(super) fn explain_with(
    slice: &Slice,
    anatomies: &[Anatomy],
    facts: &Facts,
    decision: &Decision,
) -> Result<Explanation, String> {
    let asked = Asked::new(slice, facts);
    let policies = on_deep_stack(|| anatomies.iter().map(|policy| policy_explained(policy, &asked, facts)).collect())?;
    let said = |before: &crate::policy::Before| Said::new(before.todo(), before.todo_zh());
    Ok(Explanation {
        action: facts.action.as_str(),
        action_zh: facts.action.zh(),
        verdict: decision.verdict.as_str(),
        verdict_zh: decision.verdict.zh(),
        deciding: decision.policies.clone(),
        summary: summary(facts.action, decision),
        reason: decision.reason.clone(),
        policies,
        obligations: written(&decision.obligations),
        open: decision.open.iter().map(said).collect(),
        met: decision.met.iter().map(said).collect(),
        after: promised(&decision.duties),
        facts: facts_seen(slice, facts),
    })
}

fn policy_explained(policy: &Anatomy, asked: &Asked, facts: &Facts) -> PolicyExplained {
    let pieces: Vec<(&Piece, PieceSeen)> = policy
        .pieces
        .iter()
        .map(|piece| {
            let seen = PieceSeen {
                text: piece.shown(),
                condition: piece.is_condition(),
                holds: piece.holds(asked),
                seen: piece.seen(facts),
            };
            (piece, seen)
        })
        .collect();
    let failing = pieces.iter().find(|(_, seen)| seen.holds != Some(true));
    let (outcome, sentence) = match failing {
        None => (Outcome::Applied, applied(policy)),
        Some((piece, seen)) if seen.holds.is_none() => (Outcome::Error, unknown(piece, seen)),
        Some((piece, seen)) if piece.is_condition() => (Outcome::Condition, not_so(piece, seen)),
        Some((piece, seen)) => (Outcome::Scope, elsewhere(piece, seen, facts.action)),
    };
    PolicyExplained {
        id: policy.id.clone(),
        effect: if policy.permit { "permit" } else { "forbid" },
        outcome,
        sentence,
        pieces: pieces.into_iter().map(|(_, seen)| seen).collect(),
    }
}

fn applied(policy: &Anatomy) -> Said {
    let parts: Vec<String> = policy.conjuncts().map(|piece| format!("`{}`", piece.shown())).collect();
    if parts.is_empty() {
        return Said::new("applied: it has no condition", "已适用：没有条件限制");
    }
    Said::new(format!("applied: {}", parts.join(" and ")), format!("已适用：{}", parts.join(" 且 ")))
}

fn not_so(piece: &Piece, seen: &PieceSeen) -> Said {
    let met = values(&seen.seen);
    let (en, zh) = if met.en.is_empty() {
        (String::new(), String::new())
    } else {
        (format!(": {}", met.en), format!("：{}", met.zh))
    };
    match piece.kind {
        PieceKind::Unless => Said::new(
            format!("did not apply: it does not hold where `{}`, and that is so{en}", piece.text),
            format!("未适用：当 `{}` 成立时不适用，而其成立{zh}", piece.text),
        ),
        _ => Said::new(
            format!("did not apply: `{}` is not so{en}", piece.text),
            format!("未适用：`{}` 不成立{zh}", piece.text),
        ),
    }
}

fn elsewhere(piece: &Piece, seen: &PieceSeen, action: Action) -> Said {
    let met = values(&seen.seen);
    match piece.kind {
        PieceKind::Action => Said::new(
            format!("is about other actions: `{}`, not `{}`", piece.text, action.as_str()),
            format!("针对其他操作：`{}`，而非“{}”({})", piece.text, action.zh(), action.as_str()),
        ),
        PieceKind::Resource => Said::new(
            format!("is about other datasets: `{}`; {}", piece.text, met.en),
            format!("针对其他数据集：`{}`；{}", piece.text, met.zh),
        ),
        _ => Said::new(
            format!("is about other participants: `{}`; {}", piece.text, met.en),
            format!("针对其他参与方：`{}`；{}", piece.text, met.zh),
        ),
    }
}

fn unknown(piece: &Piece, seen: &PieceSeen) -> Said {
    let missing: Vec<&Seen> = seen.seen.iter().filter(|seen| seen.value.is_none()).collect();
    if missing.is_empty() {
        return Said::new(
            format!("could not be evaluated at `{}`", piece.shown()),
            format!("在 `{}` 处无法求值", piece.shown()),
        );
    }
    let names: Vec<&str> = missing.iter().map(|seen| seen.name.as_str()).collect();
    let zh: Vec<String> = missing.iter().map(|seen| format!("{}({})", seen.zh, seen.name)).collect();
    Said::new(
        format!("could not be evaluated: `{}` looks at {}, which could not be had", piece.shown(), names.join(", ")),
        format!("无法求值：`{}` 需要 {}，但无法取得", piece.shown(), zh.join("、")),
    )
}

fn values(seen: &[Seen]) -> Said {
    let en = seen.iter().map(|seen| match &seen.value {
        Some(value) => format!("{} is {value}", seen.name),
        None => format!("{} could not be had", seen.name),
    });
    let zh = seen.iter().map(|seen| {
        let name = if seen.name.contains(' ') { seen.zh.clone() } else { format!("{}({})", seen.zh, seen.name) };
        match &seen.value {
            Some(value) => format!("{name}为 {value}"),
            None => format!("{name}无法取得"),
        }
    });
    Said::new(en.collect::<Vec<_>>().join(", "), zh.collect::<Vec<_>>().join("，"))
}

fn summary(action: Action, decision: &Decision) -> Said {
    let (verb, zh) = (action.as_str(), action.zh());
    let ids = |ids: &[String]| ids.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ");
    let by = ids(&decision.policies);
    match (decision.verdict, &decision.reason) {
        (Verdict::Allow, _) => Said::new(format!("`{verb}` is allowed by {by}"), format!("策略 {by} 许可“{zh}”")),
        (Verdict::Conditional, _) => {
            let todo: Vec<String> = decision.open.iter().map(crate::policy::Before::todo).collect();
            let todo_zh: Vec<String> = decision.open.iter().map(crate::policy::Before::todo_zh).collect();
            Said::new(
                format!("`{verb}` would be allowed by {by}, but first, {}", todo.join("; ")),
                format!("策略 {by} 许可“{zh}”，但{}", todo_zh.join("；")),
            )
        }
        (Verdict::Deny, _) => Said::new(
            format!("`{verb}` is forbidden by {by}; a forbid goes before every permit"),
            format!("“{zh}”被策略 {by} 禁止，禁止优先于许可"),
        ),
        (Verdict::DefaultDeny, Some(reason)) => {
            let why = match reason.code.as_str() {
                "policy-no-permit" => "没有任何策略在此情形下予以许可".to_owned(),
                "fact-missing" => "策略所需的事实无法取得".to_owned(),
                "fact-mistyped" => "某项事实的类型与策略不符".to_owned(),
                "policy-error" => format!("策略 {by} 无法求值"),
                other => format!("原因代码 {other}"),
            };
            Said::new(reason.sentence.clone(), format!("“{zh}”未获许可：{why}"))
        }
        (Verdict::DefaultDeny, None) => Said::new(format!("`{verb}` is denied by default"), format!("“{zh}”未获许可")),
    }
}

fn facts_seen(slice: &Slice, facts: &Facts) -> Vec<FactSeen> {
    let mut seen: Vec<FactSeen> = slice
        .mentions(facts.action)
        .iter()
        .map(|fact| FactSeen {
            name: fact.name().to_owned(),
            zh: fact.zh().to_owned(),
            value: facts.context.get(fact).map(crate::policy::Value::display),
            source: source(fact.source()),
        })
        .collect();
    let mut about = |name: &str, zh: &str, value: String, source: &'static str| {
        seen.push(FactSeen { name: name.to_owned(), zh: zh.to_owned(), value: Some(value), source });
    };
    let (who, quoted) = (&facts.principal, |text: &str| format!("\"{text}\""));
    about("principal", "参与方", quoted(who.id.as_str()), "verified");
    let texts = |texts: &std::collections::BTreeSet<String>| crate::policy::Value::Texts(texts.clone()).display();
    if slice.policies.values().any(|policy| policy.text().contains("Group::")) {
        about("principal's groups", "参与方所属组", texts(&who.groups), "operator");
    }
    let mentioned = |name| slice.policies.values().any(|policy| policy.attributes.contains(name));
    if mentioned("jurisdiction") {
        about(
            "principal.jurisdiction",
            "参与方法域",
            quoted(who.jurisdiction.as_deref().unwrap_or_default()),
            "operator",
        );
    }
    if mentioned("roles") {
        about("principal.roles", "参与方角色", texts(&who.roles), "operator");
    }
    if mentioned("certifications") {
        about("principal.certifications", "参与方认证", texts(&who.certifications), "operator");
    }
    seen
}

/// A source's name.
pub(super) const fn source(source: FactSource) -> &'static str {
    match source {
        FactSource::Verified => "verified",
        FactSource::Operator => "operator",
        FactSource::Declared => "declared",
    }
}

impl FactSeen {
    /// Who vouches for it, in both languages.
    pub fn vouched(&self) -> Said {
        match self.source {
            "verified" => Said::new("verified by the connector", "连接器已核验"),
            "operator" => Said::new("the operator's word", "运营方确认"),
            _ => Said::new("declared by the partner, not verified", "对方声明，未经核验"),
        }
    }

    /// Who vouches for a fact.
    pub fn of(fact: ContextFact) -> Self {
        Self { name: fact.name().into(), zh: fact.zh().into(), value: None, source: source(fact.source()) }
    }
}
