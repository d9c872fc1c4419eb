//! `counterseal policy diff`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::proof::{self, Asked};
use crate::cli::output::Output;

/// What a new policy allows that the old one didn't, and the other way round; and what it demands no more.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  counterseal policy diff old.cedar new.cedar --action release
  counterseal policy diff old.cedar new.cedar

Each difference is one request, as a [[case]] that can be pasted into the new policy's test file.
Exit codes: 0 proven alike, and nothing found that is demanded no more; 1 a difference; 2 no solver, or a build without it; 3 not known.")]
pub struct Diff {
    /// The old policy file.
    old: PathBuf,
    /// The new policy file.
    new: PathBuf,
    #[command(flatten)]
    asked: Asked,
}

/// Runs alone.
#[cfg(not(feature = "prove"))]
pub fn run(_: Diff, _: &Output) -> anyhow::Result<ExitCode> {
    Ok(proof::cannot())
}

/// Runs alone.
#[cfg(feature = "prove")]
pub fn run(args: Diff, out: &Output) -> anyhow::Result<ExitCode> {
    use serde_json::{Value as Json, json};

    use crate::policy::prove::{case, diff, loosened};

    let (old, new) = (proof::load(&args.old, &args.asked)?, proof::load(&args.new, &args.asked)?);
    let (actions, solver) = (args.asked.actions()?, args.asked.solver());
    let changes = match proof::answered(diff(&old, &new, &actions, &solver))? {
        Ok(changes) => changes,
        Err(code) => return Ok(code),
    };
    let (looser, unasked) = match proof::answered(loosened(&old, &new, &actions, &solver))? {
        Ok(found) => found,
        Err(code) => return Ok(code),
    };
    let (mut text, mut shown) = (String::new(), Vec::new());
    for change in &changes {
        let action = change.action.as_str();
        let more = proof::shown(&format!("{action}: what the new policy allows more"), &change.more, "nothing", 1);
        let less = proof::shown(&format!("{action}: what the new policy allows no longer"), &change.less, "nothing", 1);
        text.push_str(&more.1);
        text.push_str(&less.1);
        shown.push(json!({ "action": action, "more": more.0, "less": less.0 }));
    }
    let mut demands: Vec<Json> = Vec::new();
    for one in &looser {
        let name = format!("{}: policy `{}` demands less", one.action.as_str(), one.policy);
        let case =
            one.found.decisions.get(1).map(|decision| case(&name, &one.found.facts, decision)).unwrap_or_default();
        text.push_str(&format!("{name}: {}\n\n{case}\n", one.less.join("; ")));
        demands.push(json!({ "action": one.action.as_str(), "policy": one.policy, "less": one.less, "case": case }));
    }
    for why in &unasked {
        text.push_str(&format!("whether less is demanded is not known: {why}\n"));
    }
    let value = json!({ "changes": shown, "demandsLess": demands, "unknown": unasked });
    out.show(&value, |_| text);
    let code = proof::quit(changes.iter().flat_map(|change| [&change.more, &change.less]));
    Ok(match (looser.is_empty(), unasked.is_empty(), code == ExitCode::SUCCESS) {
        (false, ..) => ExitCode::FAILURE,
        (_, false, true) => ExitCode::from(proof::UNKNOWN),
        _ => code,
    })
}
