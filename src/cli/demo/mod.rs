//! `counterseal demo`: a hospital, a research company and an outsider meet on loopback.
//!
//! The same code paths as for a user: three homes, three connectors with their own listeners, real TLS, real disk. After
//! each step the evidence that was checked is shown; if a check fails, the demo fails.

mod cast;
mod story;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use clap::Args;
use serde_json::json;

use crate::cli::{
    Lang,
    output::{Output, said},
    stage::{Teller, Voice},
};

/// Two connectors and an outsider on loopback: the whole story, with what was checked.
#[derive(Debug, Args)]
pub struct Demo {
    /// The language that it is told in.
    #[arg(long, value_enum, default_value_t)]
    lang: Lang,
    /// Leave the connectors running, and say where.
    #[arg(long)]
    keep: bool,
    /// Where the three homes are made; a temporary folder if not given.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// Runs the demo; exit code 1 if a check fails.
pub async fn run(args: Demo, out: &Output) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let temporary = tempfile::tempdir()?;
    let folder = match &args.folder {
        Some(folder) => folder.clone(),
        None if args.keep => temporary.keep(),
        None => temporary.path().to_owned(),
    };
    let mut teller = Teller::new(if out.json { Voice::Json } else { Voice::Text }, args.lang);
    let told = story::tell(&folder, &mut teller).await;
    let cast = match told {
        Ok(cast) => cast,
        Err(error) => {
            teller.fail(&error);
            return Err(error);
        }
    };
    teller.finish();
    let seconds = begun.elapsed().as_secs_f64();
    let steps = teller.steps();
    teller.json(&json!({ "done": true, "steps": steps, "milliseconds": begun.elapsed().as_millis() as u64 }));
    teller.say(
        &format!("\nAll {steps} steps held, in {seconds:.1} s."),
        &format!("\n全部 {steps} 步均通过核验，用时 {seconds:.1} 秒。"),
    );
    if args.keep {
        for actor in cast.actors() {
            let running = &actor.node.running;
            if out.json {
                said!("{}", json!({ "home": actor.home, "did": actor.node.exchange.us, "running": running }));
            } else {
                said!(
                    "  {}  partners https://{}  management http://{}",
                    actor.home.display(),
                    running.partner,
                    running.management
                );
            }
        }
        tokio::signal::ctrl_c().await?;
    }
    cast.stop().await;
    Ok(ExitCode::SUCCESS)
}
