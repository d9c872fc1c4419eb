//! What `policy diff` and `policy prove` share: which slices, which actions, which solver.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

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
    /// A column of the dataset and its kind, such as id=integer.
    #[arg(long, value_name = "NAME=KIND")]
    pub column: Vec<String>,
    /// The connector's global policies.
    #[arg(long, value_name = "FILE")]
    pub global: Option<PathBuf>,
    /// The offer's floor.
    #[arg(long, default_value = "")]
    pub floor: String,
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

    use anyhow::{Context as _, anyhow, bail};
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::policy::{
        Action, Column, ColumnKind, Columns, PolicySource, Slice,
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

    /// Compiles a policy file.
    pub fn load(path: &Path, asked: &Asked) -> anyhow::Result<Slice> {
        let read =
            |path: &Path| std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()));
        let columns = asked.column.iter().map(|text| {
            let (name, kind) = text.split_once('=').ok_or_else(|| anyhow!("`{text}`: a column is NAME=KIND"))?;
            let known =
                [ColumnKind::Text, ColumnKind::Integer, ColumnKind::Number, ColumnKind::Date, ColumnKind::Boolean];
            let kind = known.into_iter().find(|known| word(*known) == kind);
            let kind = kind.ok_or_else(|| anyhow!("`{text}`: a kind is text, integer, number, date or boolean"))?;
            Ok(Column { name: name.to_owned(), kind })
        });
        let columns = Columns::new(columns.collect::<anyhow::Result<_>>()?)?;
        let (own, global) = (read(path)?, asked.global.as_deref().map(read).transpose()?.unwrap_or_default());
        let name = path.display().to_string();
        let global_name = asked.global.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        let own = PolicySource { name: &name, text: &own };
        let global = PolicySource { name: &global_name, text: &global };
        Ok(Slice::compile(own, global, &asked.floor, "", &columns)?)
    }

    const fn word(kind: ColumnKind) -> &'static str {
        match kind {
            ColumnKind::Text => "text",
            ColumnKind::Integer => "integer",
            ColumnKind::Number => "number",
            ColumnKind::Date => "date",
            ColumnKind::Boolean => "boolean",
        }
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
