//! `counterseal policy check`

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use super::files::{Around, Spoken, counted, find, is_offer};
use crate::{
    cli::output::{Output, plain},
    policy::workbench::{Finding, Level, check},
};

/// Policies, offers and folders to check.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  counterseal policy check cohort.cedar --source data/lymph_node.csv
  counterseal policy check offer.toml --root data
  counterseal policy check policies --deny-warnings
  counterseal policy check cohort.cedar --column id=integer --column age=integer --floor 'hash(id)'

Exit codes: 0 nothing but notes and warnings; 1 errors, or warnings with --deny-warnings.")]
pub struct Check {
    /// A .cedar file, an offer.toml, or a folder of them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Warnings are errors.
    #[arg(long)]
    deny_warnings: bool,
    #[command(flatten)]
    around: Around,
    #[command(flatten)]
    spoken: Spoken,
}

pub fn run(args: Check, out: &Output) -> anyhow::Result<ExitCode> {
    let mut files = find(&args.paths, |path| is_offer(path) || path.extension().is_some_and(|ext| ext == "cedar"))?;
    // a policy that an offer names is checked with the offer
    let mut named = HashSet::new();
    let mut findings = Vec::new();
    files.sort_by_key(|path| path.extension().is_none_or(|ext| ext != "toml"));
    let mut checked = 0_usize;
    for file in files {
        if file.canonicalize().is_ok_and(|full| named.contains(&full)) && !args.paths.contains(&file) {
            continue;
        }
        checked += 1;
        match args.around.load(&file) {
            Err(error) => findings.push(unreadable(&file, &error)),
            Ok(policy) => {
                if policy.offer.is_some() {
                    named.extend(Path::new(&policy.name).canonicalize());
                }
                findings.extend(check(&policy.checked()));
            }
        }
    }
    if checked == 0 {
        anyhow::bail!("there is no .cedar file and no offer.toml here");
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings, notes) = (count(Level::Error), count(Level::Warning), count(Level::Note));
    let value = json!({
        "files": checked, "errors": errors, "warnings": warnings, "notes": notes, "findings": findings,
    });
    out.show(&value, |_| {
        let mut text: String = findings.iter().map(|finding| shown(finding, &args.spoken)).collect();
        text.push_str(&match args.spoken.lang {
            crate::cli::Lang::En => format!(
                "{checked} checked: {}, {}, {}\n",
                counted(errors, "error"),
                counted(warnings, "warning"),
                counted(notes, "note")
            ),
            crate::cli::Lang::Zh => {
                format!("已检查 {checked} 个：{errors} 个错误，{warnings} 个警告，{notes} 个提示\n")
            }
        });
        text
    });
    let failed = errors > 0 || args.deny_warnings && warnings > 0;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn shown(finding: &Finding, spoken: &Spoken) -> String {
    let (level, level_zh) = finding.level.words();
    let message = spoken.pick(&finding.message, &finding.message_zh);
    let suggestion = spoken.pick(&finding.suggestion, &finding.suggestion_zh);
    let Finding { file, line, column, code, .. } = finding;
    let mut text = format!("{file}:{line}:{column}: {}[{code}]: {}\n", spoken.pick(level, level_zh), plain(message));
    if !suggestion.is_empty() {
        text.push_str(&format!("    {}\n", plain(suggestion)));
    }
    text
}

fn unreadable(file: &Path, error: &anyhow::Error) -> Finding {
    Finding {
        level: Level::Error,
        code: "file",
        file: file.display().to_string(),
        line: 1,
        column: 1,
        policy: None,
        message: format!("{error:#}"),
        message_zh: format!("文件无法读取或内容有误（{error:#}）"),
        suggestion: String::new(),
        suggestion_zh: String::new(),
    }
}
