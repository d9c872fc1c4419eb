//! `counterseal policy odrl …`: policies for and from partners who speak ODRL.

use std::{io::Read as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use crate::{
    cli::output::Output,
    error::Refusal,
    policy::{PolicySource, document, from_odrl, text_to_odrl},
};

/// Longest ODRL that is read, in bytes.
const MOST: u64 = 1 << 20;

/// Cedar ⇄ ODRL 2.2.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  counterseal policy odrl export cohort.cedar > cohort.odrl.json
  counterseal policy odrl import partner.json > partner.cedar
  curl … | counterseal policy odrl import -

What has no exact counterpart is refused by name; docs/policy/odrl.md says what has one.
Exit codes: 0 translated; 1 refused.")]
pub struct Odrl {
    #[command(subcommand)]
    direction: Direction,
}

#[derive(Debug, Subcommand)]
enum Direction {
    /// Say a policy file in ODRL.
    Export {
        /// A .cedar file.
        policy: PathBuf,
    },
    /// Say an ODRL policy in Cedar.
    Import {
        /// A JSON file; `-` is the standard input.
        file: PathBuf,
    },
}

/// Runs alone.
pub fn run(args: Odrl, out: &Output) -> anyhow::Result<ExitCode> {
    match args.direction {
        Direction::Export { policy } => {
            let text =
                std::fs::read_to_string(&policy).with_context(|| format!("{} can't be read", policy.display()))?;
            let name = policy.display().to_string();
            let odrl = text_to_odrl(PolicySource { name: &name, text: &text }).map_err(Refusal::from)?;
            out.show(&document(odrl), |odrl| format!("{odrl:#}"));
        }
        Direction::Import { file } => {
            let read: Json =
                serde_json::from_slice(&bytes(&file)?).with_context(|| format!("{} is not JSON", file.display()))?;
            let cedar = from_odrl(&read).map_err(Refusal::from)?;
            // what was understood is a policy here, and says the same when it is said again
            text_to_odrl(PolicySource { name: "the translation", text: &cedar }).map_err(Refusal::from)?;
            out.show(&json!({ "cedar": cedar }), |_| cedar.clone());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn bytes(file: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let place = || format!("{} can't be read", file.display());
    match file.to_str() {
        Some("-") => std::io::stdin().lock().take(MOST + 1).read_to_end(&mut bytes),
        _ => std::fs::File::open(file).with_context(place)?.take(MOST + 1).read_to_end(&mut bytes),
    }
    .with_context(place)?;
    anyhow::ensure!(bytes.len() as u64 <= MOST, "{} is longer than {MOST} bytes", file.display());
    Ok(bytes)
}
