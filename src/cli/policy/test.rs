//! `counterseal policy test`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    explain,
    files::{Spoken, counted, find, is_test, of_suite, suite},
};
use crate::{
    cli::output::{Output, padded, plain, width},
    policy::workbench::{CaseResult, Coverage, run as run_cases},
};

/// Test files and folders of them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  counterseal policy test
  counterseal policy test policies/cohort.test.toml --require-coverage

A test file stands beside its policy: cohort.test.toml for cohort.cedar.
Exit codes: 0 all cases came out as expected; 1 a case did not, a file can't be read or has no case, nothing was found,
or, with --require-coverage, something is untested.")]
pub struct Test {
    /// *.test.toml files, or folders.
    #[arg(default_value = ".")]
    paths: Vec<PathBuf>,
    /// What no case tests is an error.
    #[arg(long)]
    require_coverage: bool,
    #[command(flatten)]
    spoken: Spoken,
}

struct Ran {
    file: PathBuf,
    policy: String,
    outcome: Result<(Vec<CaseResult>, Coverage), String>,
}

pub fn run(args: Test, out: &Output) -> anyhow::Result<ExitCode> {
    let files = find(&args.paths, is_test)?;
    if files.is_empty() {
        anyhow::bail!("there is no test file here: write NAME.test.toml beside NAME.cedar");
    }
    let ran: Vec<Ran> = files.iter().map(|file| one(file)).collect();
    let results = || ran.iter().filter_map(|ran| ran.outcome.as_ref().ok());
    let cases = results().map(|(cases, _)| cases.len()).sum::<usize>();
    let passed = results().flat_map(|(cases, _)| cases).filter(|case| case.passed).count();
    let broken = ran.iter().filter(|ran| ran.outcome.is_err()).count();
    let gaps = results().map(|(_, coverage)| coverage.gaps().len()).sum::<usize>();
    let value = json!({
        "files": ran.iter().map(as_json).collect::<Vec<_>>(),
        "cases": cases, "passed": passed, "failed": cases - passed, "broken": broken, "gaps": gaps,
    });
    out.show(&value, |_| {
        let mut text: String = ran.iter().map(|ran| shown(ran, &args.spoken)).collect();
        let failed = cases - passed;
        text.push_str(&match args.spoken.lang {
            crate::cli::Lang::En => format!(
                "{}, {}: {passed} passed, {failed} failed; {} broken, {} untested\n",
                counted(ran.len(), "file"),
                counted(cases, "case"),
                counted(broken, "file"),
                counted(gaps, "thing"),
            ),
            crate::cli::Lang::Zh => {
                format!("{} 个文件，{cases} 个用例：{passed} 个通过，{failed} 个未通过；{broken} 个文件有误，{gaps} 处未覆盖\n", ran.len())
            }
        });
        text
    });
    let fine = passed == cases && broken == 0 && (gaps == 0 || !args.require_coverage);
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(file: &Path) -> Ran {
    let mut policy = String::new();
    let outcome = (|| -> anyhow::Result<_> {
        let suite = suite(file)?;
        let around = of_suite(file, &suite)?;
        policy.clone_from(&around.name);
        let (slice, columns) = around.compile()?;
        let cases = suite.cases(&columns).map_err(|wrong| anyhow::anyhow!("{}:{wrong}", file.display()))?;
        if cases.is_empty() {
            anyhow::bail!("{} has no [[case]]: nothing is tested", file.display());
        }
        run_cases(&slice, &columns, &cases).map_err(anyhow::Error::msg)
    })();
    Ran { file: file.to_owned(), policy, outcome: outcome.map_err(|error| format!("{error:#}")) }
}

fn as_json(ran: &Ran) -> Value {
    let file = ran.file.display().to_string();
    match &ran.outcome {
        Err(error) => json!({ "file": file, "policy": ran.policy, "error": error }),
        Ok((cases, coverage)) => {
            let (seen, of) = coverage.seen();
            json!({
                "file": file, "policy": ran.policy, "cases": cases,
                "coverage": { "seen": seen, "of": of, "policies": coverage.policies, "gaps": coverage.gaps() },
            })
        }
    }
}

fn shown(ran: &Ran, spoken: &Spoken) -> String {
    let mut text = format!("{}\n", ran.file.display());
    let (cases, coverage) = match &ran.outcome {
        Ok(both) => both,
        Err(error) => return format!("{text}  ✗ {}\n", plain(error)),
    };
    let widest = cases.iter().map(|case| width(&case.name)).max().unwrap_or(0);
    for case in cases {
        let (sign, verdict) = (if case.passed { '✓' } else { '✗' }, &case.explanation);
        let verdict = spoken.pick(verdict.verdict, verdict.verdict_zh);
        text.push_str(&format!("  {sign} {}  {verdict}\n", padded(&plain(&case.name), widest)));
        if !case.passed {
            for difference in &case.differences {
                text.push_str(&format!("      {}\n", plain(spoken.say(difference))));
            }
            for line in explain::lines(&case.explanation, spoken).lines() {
                text.push_str(&format!("      {line}\n"));
            }
        }
    }
    let (seen, of) = coverage.seen();
    text.push_str(&format!("  {} {seen}/{of}\n", spoken.pick("covered", "覆盖")));
    for gap in coverage.gaps() {
        text.push_str(&format!("    - {}\n", plain(spoken.say(&gap))));
    }
    text
}
