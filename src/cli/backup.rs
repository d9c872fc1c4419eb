//! `counterseal backup …` and `counterseal restore …`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    api::BackupBody,
    cli::{
        client::{connect, connect_as, segment},
        output::{Output, text},
    },
    config::Config,
    id::{OfferId, ParticipantId},
    node::{Contents, Restoration, STEWARD, StartError, restore},
    time::{Clock as _, SystemClock},
};

/// Write the store of the running connector into a folder, with a signed list of its files. Keys are not in it: neither
/// those of the home (copy `keys/` once, and after each rotation), nor those of the vault.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  counterseal --home hospital backup --out /backups/hospital-2026-11-24")]
pub struct BackupArgs {
    /// The folder; it must not be there yet.
    #[arg(long)]
    out: PathBuf,
}

/// Put a backup back; say who is not waited for any more.
#[derive(Debug, Subcommand)]
pub enum Restore {
    /// Check a backup and, with --accept, put it back into a home that has its keys and no store. Receipts go on in a new
    /// log; partners are asked what they know before anything is decided with them.
    #[command(
        after_help = "Without --accept it only looks, changes nothing, and ends with exit code 1. What was revoked or withdrawn since the backup is in force again in it: look first, then name it.\n\nExample:\n  mv hospital/store hospital/store.lost\n  counterseal --home hospital restore from /backups/hospital-2026-11-24\n  counterseal --home hospital restore from /backups/hospital-2026-11-24 --accept"
    )]
    From {
        /// The backup's folder.
        folder: PathBuf,
        /// Put it back; what the look said becomes valid again has been read.
        #[arg(long)]
        accept: bool,
        /// A peer that was revoked since the backup.
        #[arg(long)]
        revoke: Vec<ParticipantId>,
        /// An offer that was withdrawn since the backup.
        #[arg(long)]
        withdraw: Vec<OfferId>,
    },
    /// Go on with the counts of the backup, though this partner has not said what it knows; a steward's to do.
    #[command(after_help = "Example:\n  counterseal --home hospital restore accept did:web:research.invalid")]
    Accept {
        /// Who: its DID, as `status` names it.
        partner: ParticipantId,
    },
}

/// `backup`
pub async fn backup(home: &Path, args: BackupArgs, out: &Output) -> anyhow::Result<()> {
    let folder = std::path::absolute(&args.out).with_context(|| args.out.display().to_string())?;
    let answer = connect(home)?.post("/v1/backup", &BackupBody { folder: folder.clone() }).await?;
    out.show(&json!({ "folder": folder, "backup": answer }), |_| {
        format!(
            "{} holds {} receipts of log {}, and no key.\nKeep {}/keys elsewhere too: a backup is put back with the keys of its time.",
            folder.display(),
            text(&answer["log"], "size"),
            answer["log"]["epoch"].as_u64().unwrap_or(1),
            home.display()
        )
    });
    Ok(())
}

/// `restore …`
pub async fn run(home: &Path, command: Restore, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Restore::From { folder, accept, revoke, withdraw } => {
            let config = Config::load(home, std::env::vars())?;
            let contents =
                restore(home, &config, &folder, &Restoration { accept, revoke, withdraw }, SystemClock.now())
                    .await
                    .map_err(|error| match error {
                        StartError::Refused(refusal) => anyhow::Error::new(refusal),
                        other => other.into(),
                    })?;
            out.show(&json!(contents), |_| told(home, &folder, &contents));
            Ok(if contents.restored { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Restore::Accept { partner } => {
            let path = format!("/v1/restorations/{}/accept", segment(partner.as_str()));
            let answer = connect_as(home, STEWARD)?.post(&path, &json!({})).await?;
            out.show(&answer, |_| format!("decisions go on with {partner}, with what the backup holds"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn told(home: &Path, folder: &Path, contents: &Contents) -> String {
    let names = |names: Vec<&str>| match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    };
    let (log, made) = (&contents.log, contents.made);
    if !contents.restored {
        return format!(
            "{}: whole, of {made}, {} receipts of log {}. Nothing was changed.\n  active peers  {}\n  live offers   {}\nIf any of these was revoked or withdrawn since, name it with --revoke or --withdraw.\nErasures since then have to be asked for again. Then: --accept",
            folder.display(),
            log.size,
            log.epoch,
            names(contents.peers.iter().map(ParticipantId::as_str).collect()),
            names(contents.offers.iter().map(OfferId::as_str).collect()),
        );
    }
    format!(
        "restored to {made}; receipts go on in a new log\n  asked before anything is decided with them: {}\nNext: counterseal --home {} serve",
        names(contents.partners.iter().map(ParticipantId::as_str).collect()),
        home.display()
    )
}
