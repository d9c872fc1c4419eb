//! `counterseal receipt …`

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    cli::{
        client::{connect, segment},
        output::{Output, table, text},
    },
    evidence::{
        Bundle, Finding, Trust, Verdict,
        folder::{self, Files},
        reconcile_all, verify,
    },
    exchange::Erasure,
    id::{AgreementId, ParticipantId, ReceiptId},
    identity::Invitation,
    receipt::Kind,
    time::Timestamp,
};

/// Evidence is consistent, but nobody vouches for its keys.
const UNPROVEN: u8 = 3;
/// Evidence does not hold.
const BROKEN: u8 = 4;

/// Which receipts.
#[derive(Debug, Default, Args)]
pub struct Which {
    /// Only under this agreement.
    #[arg(long)]
    agreement: Option<AgreementId>,
    /// Only about this partner.
    #[arg(long)]
    peer: Option<ParticipantId>,
    /// Only of this kind.
    #[arg(long, value_parser = kind)]
    kind: Option<Kind>,
    /// Only of decisions with this verdict: allow, conditional, deny, default-deny.
    #[arg(long)]
    verdict: Option<String>,
    /// Not before this time (RFC 3339, or a date, which begins at midnight UTC).
    #[arg(long, value_parser = time)]
    since: Option<Timestamp>,
    /// Before this time.
    #[arg(long, value_parser = time)]
    until: Option<Timestamp>,
}

impl Which {
    fn query(&self) -> String {
        let text = |name: &str, value: Option<String>| value.map(|value| format!("{name}={}", segment(&value)));
        [
            text("agreement", self.agreement.as_ref().map(|id| id.as_str().to_owned())),
            text("peer", self.peer.as_ref().map(|id| id.as_str().to_owned())),
            text("kind", self.kind.map(|kind| kind.as_str().to_owned())),
            text("verdict", self.verdict.clone()),
            text("since", self.since.map(|at| at.to_string())),
            text("until", self.until.map(|at| at.to_string())),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("&")
    }
}

/// Receipts.
#[derive(Debug, Subcommand)]
pub enum ReceiptCommand {
    /// Show receipts in the order of the log.
    #[command(
        after_help = "Example:\n  counterseal receipt list --peer did:web:research.invalid --verdict deny --since 2026-11-01"
    )]
    List {
        #[command(flatten)]
        which: Which,
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
    /// Write a folder for a verifier: receipts, halves, the log, and all that they rest on.
    #[command(
        after_help = "Example:\n  counterseal receipt export --agreement urn:uuid:… --out evidence\n\nAn export by agreement or by peer is complete, and holds nothing of any other partner."
    )]
    Export {
        #[command(flatten)]
        which: Which,
        /// Leave out what the receipts only commit to: requests, purposes.
        #[arg(long)]
        without_contents: bool,
        /// Which of our logs: after a restore there are several. The newest, if none is named.
        #[arg(long)]
        epoch: Option<u64>,
        /// The folder; it must not be there yet.
        #[arg(long)]
        out: PathBuf,
    },
    /// Erase what receipts commit to: requests, purposes, who acted. The receipts stay, and still verify.
    #[command(
        after_help = "Example:\n  counterseal receipt erase --agreement urn:uuid:… --reason \"the patient withdrew\""
    )]
    Erase {
        /// Of this receipt.
        #[arg(long, group = "what", required = true)]
        receipt: Option<ReceiptId>,
        /// Of all receipts under this agreement.
        #[arg(long, group = "what", required = true)]
        agreement: Option<AgreementId>,
        /// Of all receipts about this partner.
        #[arg(long, group = "what", required = true)]
        peer: Option<ParticipantId>,
        /// Why; on record.
        #[arg(long)]
        reason: String,
    },
    /// Check an export offline: authentic, in its log, in order, complete, decided as it says; or what is wrong.
    #[command(
        after_help = "Exit codes:\n  0  it holds\n  3  consistent, keys unproven: nobody's keys are trusted\n  4  it does not hold\n\nExample:\n  counterseal receipt verify evidence --trust hospital.json --trust research.json"
    )]
    Verify {
        /// The export.
        folder: PathBuf,
        /// Invitations of the participants whose keys you trust.
        #[arg(long)]
        trust: Vec<PathBuf>,
    },
    /// Hold two parties' exports against each other: what is missing, what differs, who is named that shouldn't be.
    #[command(
        visible_alias = "match",
        after_help = "Exit codes:\n  0  all fits\n  3  all fits, keys unproven\n  4  something is missing or differs\n\nExamples:\n  counterseal receipt reconcile ours theirs --trust hospital.json --trust research.json\n  counterseal receipt reconcile ours-log-1 ours theirs --trust hospital.json --trust research.json"
    )]
    Reconcile {
        /// The two parties' exports; of a party whose store was restored, one for each of its logs.
        #[arg(num_args = 1.., required = true, value_name = "EXPORT")]
        exports: Vec<PathBuf>,
        /// Invitations of the participants whose keys you trust.
        #[arg(long)]
        trust: Vec<PathBuf>,
    },
}

fn time(text: &str) -> Result<Timestamp, String> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    Timestamp::parse(&whole).map_err(|error| format!("{error}; write 2026-11-24 or 2026-11-24T08:00:00Z"))
}

fn kind(text: &str) -> Result<Kind, String> {
    serde_json::from_value(Value::String(text.to_owned())).map_err(|error| error.to_string())
}

/// Runs the command.
pub async fn run(home: &Path, command: ReceiptCommand, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        ReceiptCommand::List { which, from, limit } => {
            let path = format!("/v1/receipts?from={from}&limit={limit}&{}", which.query());
            let answer = connect(home)?.get(&path).await?;
            out.show(&answer, list);
        }
        ReceiptCommand::Show { id } => {
            let answer = connect(home)?.get(&format!("/v1/receipts/{}", segment(id.as_str()))).await?;
            out.show(&answer, |answer| serde_json::to_string_pretty(answer).unwrap_or_default());
        }
        ReceiptCommand::Export { which, without_contents, epoch, out: folder } => {
            anyhow::ensure!(!folder.exists(), "{} is there already; name a new folder", folder.display());
            let epoch = epoch.map(|epoch| format!("epoch={epoch}&")).unwrap_or_default();
            let path = format!("/v1/export?contents={}&{epoch}{}", !without_contents, which.query());
            let archive = connect(home)?.send(reqwest::Method::GET, &path, &()).await?.bytes().await?;
            let files = unpack(&archive)?;
            let receipts =
                files.get("receipts.jsonl").map_or(0, |lines| lines.split(|byte| *byte == b'\n').count() - 1);
            write(&folder, &files)?;
            out.show(&json!({ "folder": folder, "receipts": receipts, "files": files.len() }), |_| {
                format!("{} holds {receipts} receipts; its README.md tells an arbiter what to do", folder.display())
            });
        }
        ReceiptCommand::Erase { receipt, agreement, peer, reason } => {
            let erasure = Erasure { receipt, agreement, peer, reason };
            let answer = connect(home)?.post("/v1/receipts/erase", &erasure).await?;
            out.show(&answer, |answer| format!("contents of {} receipts are gone for good", text(answer, "erased")));
        }
        ReceiptCommand::Verify { folder, trust } => {
            let (verdict, proven) = match read(&folder)? {
                (Some(bundle), mut findings) => {
                    let mut verdict = verify(&bundle, &trusted(&trust)?);
                    findings.append(&mut verdict.findings);
                    verdict.findings = findings;
                    let proven = verdict.unproven.is_empty();
                    out.show(&json!(verdict), |_| told(&verdict));
                    (verdict.holds(), proven)
                }
                (None, findings) => {
                    out.show(&json!({ "findings": findings }), |_| unreadable(&folder, &findings));
                    (false, false)
                }
            };
            return Ok(exit(verdict, proven));
        }
        ReceiptCommand::Reconcile { exports, trust } => {
            let mut read_both = Vec::new();
            for folder in &exports {
                match read(folder)? {
                    (Some(bundle), findings) => read_both.push((bundle, findings)),
                    (None, findings) => {
                        out.show(&json!({ "findings": findings }), |_| unreadable(folder, &findings));
                        return Ok(ExitCode::from(BROKEN));
                    }
                }
            }
            let parties: std::collections::BTreeSet<_> =
                read_both.iter().map(|(bundle, _)| &bundle.about.exporter).collect();
            anyhow::ensure!(parties.len() == 2, "these are exports of {} parties: name those of two", parties.len());
            let bundles: Vec<&Bundle> = read_both.iter().map(|(bundle, _)| bundle).collect();
            let mut reconciled = reconcile_all(&bundles, &trusted(&trust)?);
            for (verdict, (_, findings)) in reconciled.verdicts.iter_mut().zip(&mut read_both) {
                findings.append(&mut verdict.findings);
                verdict.findings = std::mem::take(findings);
            }
            out.show(&json!(reconciled), |_| {
                let mut lines: String = reconciled.verdicts.iter().map(|verdict| told(verdict) + "\n").collect();
                let (agreements, pairs) = (reconciled.agreements, reconciled.pairs);
                let lost = match reconciled.recovered {
                    0 => String::new(),
                    count => format!(", {count} of them lost with a store and given back"),
                };
                lines.push_str(&format!("{agreements} agreements in common, {pairs} halves fit{lost}\n"));
                lines + &findings(&reconciled.findings)
            });
            let proven = reconciled.verdicts.iter().all(|verdict| verdict.unproven.is_empty());
            return Ok(exit(reconciled.holds(), proven));
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

/// The files of an export, as the connector packs them. Paths are ours: nothing else is written.
fn unpack(archive: &[u8]) -> anyhow::Result<Files> {
    let mut files = Files::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_str().context("a path that is not UTF-8")?.to_owned();
        let plain = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        anyhow::ensure!(plain && !path.contains('\\'), "the connector packed a file `{path}`");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(path, bytes);
    }
    Ok(files)
}

/// Writes an export's files into a new folder.
pub fn write(folder: &Path, files: &Files) -> anyhow::Result<()> {
    for (path, bytes) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Reads an export's folder: every file under it, links not followed.
fn read(folder: &Path) -> anyhow::Result<(Option<Bundle>, Vec<Finding>)> {
    anyhow::ensure!(
        !folder.join("backup.jws").exists(),
        "{} is a backup and not an export: `counterseal restore from` checks it",
        folder.display()
    );
    fn collect(root: &Path, at: &Path, files: &mut Files) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(at).with_context(|| at.display().to_string())? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() {
                collect(root, &path, files)?;
            } else {
                let name = path.strip_prefix(root)?.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/");
                // whatever is no file is there all the same, and too much
                let bytes = if kind.is_file() { std::fs::read(&path)? } else { Vec::new() };
                files.insert(name, bytes);
            }
        }
        Ok(())
    }
    let mut files = Files::new();
    collect(folder, folder, &mut files)?;
    Ok(folder::read(&files))
}

fn unreadable(folder: &Path, wrong: &[Finding]) -> String {
    format!("{}: DOES NOT HOLD, and can't be read as an export\n{}", folder.display(), findings(wrong))
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
    let head = match (verdict.holds(), verdict.unproven.is_empty(), verdict.whole) {
        (true, true, true) if verdict.epoch > 1 => "authentic, complete within this log, in order",
        (true, true, true) => "authentic, complete, in order",
        (true, true, false) => "authentic, in order; a selection, which is not complete by its nature",
        (true, false, _) => "consistent, keys unproven (name invitations that you trust with --trust)",
        (false, ..) => "DOES NOT HOLD",
    };
    let witnessed: String = verdict
        .witnessed
        .iter()
        .map(|one| format!("  {} cosigned {} of {} entries by {}\n", one.by, one.size, verdict.entries, one.at))
        .collect();
    let once = match verdict.not_replayed {
        0 => String::new(),
        count => format!(", {count} could not be (request erased, not shown, or of another version)"),
    };
    let restored = match &verdict.prior {
        Some(prior) => format!(
            "  log {} was begun by a restore; log {} was before it (receipt export --epoch {})\n",
            verdict.epoch, prior.epoch, prior.epoch
        ),
        None => String::new(),
    };
    format!(
        "{}: {head}\n{restored}  {} receipts under a checkpoint of {} entries, {} agreements, {} halves of partners\n{witnessed}  {} decisions came out the same when decided again{once}\n{}",
        verdict.exporter,
        verdict.receipts,
        verdict.entries,
        verdict.agreements,
        verdict.halves,
        verdict.replayed,
        findings(&verdict.findings)
    )
}

fn findings(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("  ! {}: {} [{}]\n", finding.place, finding.problem, finding.code)).collect()
}
