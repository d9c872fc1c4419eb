//! What `policy diff` and `policy prove` share: which slices, which actions, which solver.

use std::process::ExitCode;

use clap::Args;

use super::files::Around;

/// The same as for other refusals of what was asked wrongly: 2.
pub const CANNOT_ASK: u8 = 2;
/// Neither proven nor shown.
#[cfg(feature = "prove")]
pub const UNKNOWN: u8 = 3;

/// How it is asked.
#[derive(Debug, Args)]
pub struct Asked {
    /// Only this action (several times: these); default: all.
    #[arg(long, value_name = "ACTION")]
    pub action: Vec<String>,
    /// Seconds that the solver may think about one question.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    #[command(flatten)]
    pub around: Around,
}

/// Says what to install.
#[cfg(not(feature = "prove"))]
pub fn cannot() -> ExitCode {
    eprintln!(
        "error: this build can't prove anything; install one that can (cargo install --path . --features prove) and the \
         solver (apt-get install cvc5)"
    );
    ExitCode::from(CANNOT_ASK)
}

#[cfg(feature = "prove")]
pub use self::with::{answered, load, quit, shown};

#[cfg(feature = "prove")]
mod with {
    use std::{path::Path, time::Duration};

    use anyhow::{Context as _, bail};
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::policy::{
        Action, Slice,
        prove::{Answer, Counterexample, ProveError, Solver, case},
    };

    impl Asked {
        pub fn actions(&self) -> anyhow::Result<Vec<Action>> {
            if self.action.is_empty() {
                return Ok(Action::all().collect());
            }
            let parse = |name: &String| Action::parse(name).with_context(|| format!("there is no action `{name}`"));
            self.action.iter().map(parse).collect()
        }

        /// `CVC5` names it, else it is looked for.
        pub fn solver(&self) -> Solver {
            let binary = std::env::var_os("CVC5").filter(|name| !name.is_empty()).unwrap_or_else(|| "cvc5".into());
            Solver { binary: binary.into(), patience: Duration::from_secs(self.timeout) }
        }
    }

    /// Compiles a policy file, or an offer's.
    pub fn load(path: &Path, asked: &Asked) -> anyhow::Result<Slice> {
        Ok(asked.around.load(path)?.compile()?.0)
    }

    /// Without a solver nothing was asked: that is exit code 2, not a refusal.
    pub fn answered<T>(result: Result<T, ProveError>) -> anyhow::Result<Result<T, ExitCode>> {
        match result {
            Ok(answer) => Ok(Ok(answer)),
            Err(error @ ProveError::Solver(..)) => {
                eprintln!("error: {error}");
                Ok(Err(ExitCode::from(CANNOT_ASK)))
            }
            Err(error) => bail!(error),
        }
    }

    /// An answer as JSON, and as text under what was asked; `at`: which decision of the request is to be pasted.
    pub fn shown(question: &str, answer: &Answer, proven: &str, at: usize) -> (Json, String) {
        match answer {
            Answer::Proven => (json!({ "answer": "proven" }), format!("{question}: {proven} (proven)\n")),
            Answer::Unknown(why) => {
                (json!({ "answer": "unknown", "reason": why }), format!("{question}: not known: {why}\n"))
            }
            Answer::Counterexample(found) => {
                let case = pasted(question, found, at);
                (
                    json!({ "answer": "counterexample", "case": case }),
                    format!("{question}: look at this request\n\n{case}\n"),
                )
            }
        }
    }

    fn pasted(question: &str, found: &Counterexample, at: usize) -> String {
        found.decisions.get(at).map(|decision| case(question, &found.facts, decision)).unwrap_or_default()
    }

    /// 1 if anything was shown, else 3 if anything is unknown, else 0.
    pub fn quit<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> ExitCode {
        let (mut shown, mut unknown) = (false, false);
        for answer in answers {
            shown |= matches!(answer, Answer::Counterexample(_));
            unknown |= matches!(answer, Answer::Unknown(_));
        }
        match (shown, unknown) {
            (true, _) => ExitCode::FAILURE,
            (_, true) => ExitCode::from(UNKNOWN),
            _ => ExitCode::SUCCESS,
        }
    }
}
