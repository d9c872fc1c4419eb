//! `counterseal policy show`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};

use super::files::{Around, Spoken};
use crate::{
    cli::output::{Output, plain},
    policy::{
        Action, Clause, Part, Reach,
        workbench::{FactSeen, Said, written},
    },
};

/// A policy file or an offer.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  counterseal policy show cohort.cedar
  counterseal policy show offer.toml --lang zh")]
pub struct Show {
    /// A .cedar file or an offer.toml.
    path: PathBuf,
    #[command(flatten)]
    around: Around,
    #[command(flatten)]
    spoken: Spoken,
}

pub fn run(args: Show, out: &Output) -> anyhow::Result<ExitCode> {
    let policy = args.around.load(&args.path)?;
    let (slice, _) = policy.compile()?;
    let clauses = slice.clauses();
    let floor = written(&slice.floor());
    let value = json!({
        "file": policy.name,
        "sha256": slice.sha256().to_string(),
        "floor": floor,
        "policies": clauses.iter().map(as_json).collect::<Vec<_>>(),
    });
    out.show(&value, |_| {
        let mut text: String = clauses.iter().map(|clause| shown(clause, &args.spoken)).collect();
        if !floor.is_empty() {
            text.push_str(&format!(
                "{}: {}\n",
                args.spoken.pick("floor, for every release", "底线，适用于每次放行"),
                plain(&floor.join("; "))
            ));
        }
        text
    });
    Ok(ExitCode::SUCCESS)
}

/// The parts of a clause: phase, words, who sees to it.
fn parts(clause: &Clause) -> Vec<(Said, String, Said)> {
    let said = |en: &str, zh: &str| Said { en: en.into(), zh: zh.into() };
    let provider = said("the provider's connector enforces it", "由提供方连接器强制执行");
    let consumer = said("the consumer's connector sees to it and attests it", "由使用方连接器执行并证明");
    clause
        .parts
        .iter()
        .map(|part| match part {
            Part::Before(before) => (said("before", "事前"), before.to_string(), provider.clone()),
            Part::During(text) => (said("during", "事中"), text.clone(), provider.clone()),
            Part::After(after) => (said("after", "事后"), after.to_string(), consumer.clone()),
            Part::Contract(words) => (
                said("contract", "合同"),
                words.clone(),
                said("contract only: no machine sees to it", "仅为合同约定：没有系统执行"),
            ),
        })
        .collect()
}

fn reach(action: Action) -> Said {
    let (en, zh) = match action {
        Action::Use(of) if of.reach() == Reach::Promise => ("contract only", "仅为合同约定"),
        Action::Use(_) => ("decided by the consumer's connector", "由使用方连接器决定"),
        _ => ("decided by the provider's connector", "由提供方连接器决定"),
    };
    Said { en: en.into(), zh: zh.into() }
}

fn facts(clause: &Clause) -> Vec<FactSeen> {
    let facts = clause.facts.iter().map(|(fact, _)| FactSeen::of(*fact));
    let attributes = clause.attributes.iter().map(|name| FactSeen {
        name: format!("principal.{name}"),
        zh: "参与方属性".into(),
        value: None,
        source: "operator",
    });
    facts.chain(attributes).collect()
}

fn as_json(clause: &Clause) -> Value {
    let action = |action: &Action| json!({ "name": action.as_str(), "zh": action.zh(), "decides": reach(*action) });
    let fact =
        |fact: &FactSeen| json!({ "name": fact.name, "zh": fact.zh, "source": fact.source, "vouched": fact.vouched() });
    let part = |(phase, text, by): (Said, String, Said)| json!({ "phase": phase.en, "text": text, "enforced": by });
    json!({
        "id": clause.id,
        "effect": if clause.permit { "permit" } else { "forbid" },
        "actions": clause.actions.iter().map(action).collect::<Vec<_>>(),
        "facts": facts(clause).iter().map(fact).collect::<Vec<_>>(),
        "parts": parts(clause).into_iter().map(part).collect::<Vec<_>>(),
        "text": clause.text,
    })
}

fn shown(clause: &Clause, spoken: &Spoken) -> String {
    let pick = |en: &'static str, zh: &'static str| spoken.pick(en, zh);
    let effect = if clause.permit { pick("permit", "许可") } else { pick("forbid", "禁止") };
    let mut text = format!("{effect} {}\n", clause.id);
    let everything = Action::all().all(|action| clause.actions.contains(&action));
    if everything {
        text.push_str(&format!("  {}\n", pick("actions: all of them", "操作：全部")));
    } else {
        let mut by_reach: Vec<(Said, Vec<String>)> = Vec::new();
        for action in &clause.actions {
            let reach = reach(*action);
            let name = format!("{} {}", action.as_str(), action.zh());
            match by_reach.iter_mut().find(|(known, _)| *known == reach) {
                Some((_, names)) => names.push(name),
                None => by_reach.push((reach, vec![name])),
            }
        }
        for (reach, names) in by_reach {
            text.push_str(&format!("  {}: {} ({})\n", pick("actions", "操作"), names.join(", "), spoken.say(&reach)));
        }
    }
    for fact in facts(clause) {
        text.push_str(&format!(
            "  {}: {} {} ({})\n",
            pick("looks at", "依据"),
            fact.name,
            fact.zh,
            spoken.say(&fact.vouched())
        ));
    }
    for (phase, words, by) in parts(clause) {
        text.push_str(&format!("  {}: {} ({})\n", spoken.say(&phase), plain(&words), spoken.say(&by)));
    }
    text
}
