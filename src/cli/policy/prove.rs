//! `counterseal policy prove`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::proof::{self, Asked};
use crate::cli::output::Output;

/// Questions about every possible request, answered by proof or by one request that shows the contrary.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  counterseal policy prove gba.cedar --never '![\"CN-44\", \"HK\", \"MO\"].contains(principal.jurisdiction)' --action release
  counterseal policy prove open.cedar --always 'principal in Group::\"research\"' --action read
  counterseal policy prove gba.cedar --unreachable
  counterseal policy prove a.cedar --equivalent b.cedar

A condition is Cedar over principal, action, resource and context. The solver is cvc5, or what CVC5 names.
Exit codes: 0 proven; 1 a counterexample; 2 no solver, or a build without it; 3 not known.")]
pub struct Prove {
    /// The policy file.
    policy: PathBuf,
    #[command(flatten)]
    question: Question,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Question {
    /// Nobody is ever allowed anything where this holds.
    #[arg(long, value_name = "CONDITION")]
    never: Option<String>,
    /// Everybody is always allowed where this holds (perhaps after what comes first).
    #[arg(long, value_name = "CONDITION")]
    always: Option<String>,
    /// Which policies never apply.
    #[arg(long)]
    unreachable: bool,
    /// This policy file allows exactly the same.
    #[arg(long, value_name = "OTHER")]
    equivalent: Option<PathBuf>,
}

/// Runs alone.
#[cfg(not(feature = "prove"))]
pub fn run(_: Prove, _: &Output) -> anyhow::Result<ExitCode> {
    Ok(proof::cannot())
}

/// Runs alone.
#[cfg(feature = "prove")]
pub fn run(args: Prove, out: &Output) -> anyhow::Result<ExitCode> {
    use serde_json::json;

    use crate::policy::prove::{Answer, always, diff, never, unreachable};

    let slice = proof::load(&args.policy, &args.asked)?;
    let (actions, solver) = (args.asked.actions()?, args.asked.solver());
    let Question { never: nowhere, always: everywhere, equivalent, .. } = &args.question;
    // (what is asked about, the answer, what is proven, which decision is shown)
    let asked: Result<Vec<(String, Answer)>, _> = match (nowhere, everywhere, equivalent) {
        (Some(condition), ..) => {
            never(&slice, condition, &actions, &solver).map(|answers| by_action(condition, answers))
        }
        (_, Some(condition), _) => {
            always(&slice, condition, &actions, &solver).map(|answers| by_action(condition, answers))
        }
        (.., Some(other)) => {
            let other = proof::load(other, &args.asked)?;
            diff(&slice, &other, &actions, &solver).map(|changes| {
                let both = changes.into_iter().flat_map(|change| {
                    let action = change.action.as_str();
                    [
                        (format!("{action}: what only the second allows"), change.more),
                        (format!("{action}: what only the first allows"), change.less),
                    ]
                });
                both.collect()
            })
        }
        _ => unreachable(&slice, &solver)
            .map(|answers| answers.into_iter().map(|(id, answer)| (format!("policy `{id}`"), answer)).collect()),
    };
    let answers = match proof::answered(asked)? {
        Ok(answers) => answers,
        Err(code) => return Ok(code),
    };
    let proven = match (nowhere, everywhere, equivalent) {
        (Some(_), ..) => "never allowed",
        (_, Some(_), _) => "always allowed",
        (.., Some(_)) => "nothing (of the verdicts: what is demanded of the bytes was not compared, see `policy diff`)",
        _ => "never applies",
    };
    let (mut text, mut shown) = (String::new(), Vec::new());
    for (question, answer) in &answers {
        let (mut json, line) = match answer {
            // that a policy applies somewhere is what is hoped for
            Answer::Counterexample(_) if args.question.unreachable => (json!({}), format!("{question}: applies\n")),
            answer => proof::shown(question, answer, proven, 0),
        };
        if args.question.unreachable {
            json["answer"] = match answer {
                Answer::Proven => "never applies",
                Answer::Counterexample(_) => "applies",
                Answer::Unknown(_) => "unknown",
            }
            .into();
        }
        json["about"] = question.as_str().into();
        text.push_str(&line);
        shown.push(json);
    }
    out.show(&json!({ "answers": shown }), |_| text);
    if args.question.unreachable {
        let any = |wanted: fn(&Answer) -> bool| answers.iter().any(|(_, answer)| wanted(answer));
        return Ok(if any(|answer| matches!(answer, Answer::Proven)) {
            ExitCode::FAILURE
        } else if any(|answer| matches!(answer, Answer::Unknown(_))) {
            ExitCode::from(proof::UNKNOWN)
        } else {
            ExitCode::SUCCESS
        });
    }
    Ok(proof::quit(answers.iter().map(|(_, answer)| answer)))
}

#[cfg(feature = "prove")]
fn by_action(
    condition: &str,
    answers: Vec<(crate::policy::Action, crate::policy::prove::Answer)>,
) -> Vec<(String, crate::policy::prove::Answer)> {
    let asked = answers.into_iter().map(|(action, answer)| (format!("{} where {condition}", action.as_str()), answer));
    asked.collect()
}
