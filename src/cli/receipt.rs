//! `counterseal receipt …`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    cli::{
        client::{connect, segment},
        output::{Output, table, text},
    },
    evidence::{Bundle, Finding, Trust, Verdict, match_halves, verify},
    id::{AgreementId, ReceiptId},
    identity::Invitation,
    receipt::Kind,
};

/// Evidence is consistent, but nobody vouches for its keys.
const UNPROVEN: u8 = 3;
/// Evidence does not hold.
const BROKEN: u8 = 4;

/// Receipts.
#[derive(Debug, Subcommand)]
pub enum ReceiptCommand {
    /// Show receipts in the order of the log.
    List {
        /// Only under this agreement.
        #[arg(long)]
        agreement: Option<AgreementId>,
        /// Only of this kind.
        #[arg(long, value_parser = kind)]
        kind: Option<Kind>,
        /// From this place in the log on.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one receipt, as it was signed, and the partner's halves that answer it.
    Show {
        /// Which.
        id: ReceiptId,
    },
    /// Write receipts, halves and the log into one file for a verifier.
    Export {
        /// Only of this agreement; nothing of any other partner is in it.
        #[arg(long)]
        agreement: Option<AgreementId>,
        /// Where to.
        #[arg(long)]
        out: PathBuf,
    },
    /// Check an export offline: authentic, in its log, in order, complete; or what is wrong.
    Verify {
        /// The export.
        file: PathBuf,
        /// Invitations of the participants whose keys you trust.
        #[arg(long)]
        trust: Vec<PathBuf>,
    },
    /// Hold two parties' exports against each other, half to half.
    Match {
        /// One party's export.
        a: PathBuf,
        /// The other's.
        b: PathBuf,
        /// Invitations of the participants whose keys you trust.
        #[arg(long)]
        trust: Vec<PathBuf>,
    },
}

fn kind(text: &str) -> Result<Kind, String> {
    serde_json::from_value(Value::String(text.to_owned())).map_err(|error| error.to_string())
}

/// Runs the command.
pub async fn run(home: &Path, command: ReceiptCommand, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        ReceiptCommand::List { agreement, kind, from, limit } => {
            let mut path = format!("/v1/receipts?from={from}&limit={limit}");
            if let Some(agreement) = agreement {
                path.push_str(&format!("&agreement={}", segment(agreement.as_str())));
            }
            if let Some(kind) = kind {
                path.push_str(&format!("&kind={}", kind.as_str()));
            }
            let answer = connect(home)?.get(&path).await?;
            out.show(&answer, list);
        }
        ReceiptCommand::Show { id } => {
            let answer = connect(home)?.get(&format!("/v1/receipts/{}", segment(id.as_str()))).await?;
            out.show(&answer, |answer| serde_json::to_string_pretty(answer).unwrap_or_default());
        }
        ReceiptCommand::Export { agreement, out: file } => {
            let path = match agreement {
                Some(agreement) => format!("/v1/export?agreement={}", segment(agreement.as_str())),
                None => "/v1/export".to_owned(),
            };
            let answer = connect(home)?.get(&path).await?;
            let count = answer["receipts"].as_array().map_or(0, Vec::len);
            std::fs::write(&file, serde_json::to_string(&answer)? + "\n")
                .with_context(|| file.display().to_string())?;
            out.show(&json!({ "file": file, "receipts": count }), |_| {
                format!("{} holds {count} receipts", file.display())
            });
        }
        ReceiptCommand::Verify { file, trust } => {
            let verdict = verify(&bundle(&file)?, &trusted(&trust)?);
            out.show(&json!(verdict), |_| told(&verdict));
            return Ok(exit(verdict.holds(), verdict.unproven.is_empty()));
        }
        ReceiptCommand::Match { a, b, trust } => {
            let matched = match_halves(&bundle(&a)?, &bundle(&b)?, &trusted(&trust)?);
            out.show(&json!(matched), |_| {
                let mut lines: String = matched.verdicts.iter().map(|verdict| told(verdict) + "\n").collect();
                lines.push_str(&format!("{} agreements in common, {} halves fit\n", matched.agreements, matched.pairs));
                lines + &findings(&matched.findings)
            });
            let proven = matched.verdicts.iter().all(|verdict| verdict.unproven.is_empty());
            return Ok(exit(matched.holds(), proven));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn exit(holds: bool, proven: bool) -> ExitCode {
    match (holds, proven) {
        (false, _) => ExitCode::from(BROKEN),
        (true, false) => ExitCode::from(UNPROVEN),
        (true, true) => ExitCode::SUCCESS,
    }
}

fn list(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = answer
        .as_array()
        .into_iter()
        .flatten()
        .map(|stored| {
            let receipt = &stored["receipt"];
            let reason = receipt["reason"]["code"].as_str().or(receipt["decision"]["verdict"].as_str()).unwrap_or("-");
            vec![
                text(stored, "index"),
                text(receipt, "time"),
                text(receipt, "kind"),
                text(receipt, "action"),
                reason.to_owned(),
                text(receipt, "id"),
            ]
        })
        .collect();
    if rows.is_empty() { "none".to_owned() } else { table(&["index", "time", "kind", "action", "result", "id"], &rows) }
}

fn bundle(path: &Path) -> anyhow::Result<Bundle> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("{} is not an export", path.display()))
}

fn trusted(files: &[PathBuf]) -> anyhow::Result<Trust> {
    let mut trust = Trust::default();
    for file in files {
        let (invitation, _) = Invitation::load(file)?;
        trust.add(&invitation)?;
    }
    Ok(trust)
}

fn told(verdict: &Verdict) -> String {
    let head = match (verdict.holds(), verdict.unproven.is_empty()) {
        (true, true) => "authentic, complete, in order",
        (true, false) => "consistent, keys unproven (name invitations that you trust with --trust)",
        (false, _) => "DOES NOT HOLD",
    };
    format!(
        "{}: {head}\n  {} receipts under a checkpoint of {} entries, {} agreements signed by both, {} halves of partners\n{}",
        verdict.exporter,
        verdict.receipts,
        verdict.entries,
        verdict.agreements,
        verdict.halves,
        findings(&verdict.findings)
    )
}

fn findings(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("  ! {}: {} [{}]\n", finding.place, finding.problem, finding.code)).collect()
}
