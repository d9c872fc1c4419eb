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

/// A check of the demo's that failed.
#[derive(Debug, thiserror::Error)]
#[error("step {step}: this did not hold: {what}")]
struct Failed {
    step: usize,
    what: String,
}

/// Tells the story, step by step.
pub(super) struct Teller {
    json: bool,
    lang: Lang,
    step: usize,
    id: &'static str,
    title: String,
    evidence: Vec<String>,
}

impl Teller {
    /// Begins a step.
    fn step(&mut self, id: &'static str, en: &str, zh: &str) {
        self.finish();
        self.step += 1;
        self.id = id;
        self.title = self.pick(en, zh).to_owned();
        if !self.json {
            said!("\n{:>2}. {}", self.step, self.title);
        }
    }

    /// Something that was checked, and held; else the demo ends.
    fn check(&mut self, holds: bool, en: impl Into<String>, zh: impl Into<String>) -> anyhow::Result<()> {
        let (en, zh) = (en.into(), zh.into());
        if !holds {
            return Err(Failed { step: self.step, what: self.pick(&en, &zh).to_owned() }.into());
        }
        let line = self.pick(&en, &zh).to_owned();
        if !self.json {
            said!("    ✓ {line}");
        }
        self.evidence.push(line);
        Ok(())
    }

    /// Something to look at.
    fn show(&self, text: &str) {
        if !self.json {
            for line in text.lines() {
                said!("      {line}");
            }
        }
    }

    fn finish(&mut self) {
        if self.json && self.step > 0 {
            said!(
                "{}",
                json!({ "step": self.step, "id": self.id, "title": self.title, "checked": self.evidence, "ok": true })
            );
        }
        self.evidence.clear();
    }

    fn pick<'a>(&self, en: &'a str, zh: &'a str) -> &'a str {
        match self.lang {
            Lang::En => en,
            Lang::Zh => zh,
        }
    }
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
    let mut teller =
        Teller { json: out.json, lang: args.lang, step: 0, id: "", title: String::new(), evidence: Vec::new() };
    let told = story::tell(&folder, &mut teller).await;
    let cast = match told {
        Ok(cast) => cast,
        Err(error) => {
            if out.json {
                said!(
                    "{}",
                    json!({ "step": teller.step, "id": teller.id, "ok": false, "error": format!("{error:#}") })
                );
            }
            return Err(error);
        }
    };
    teller.finish();
    let seconds = begun.elapsed().as_secs_f64();
    if out.json {
        said!("{}", json!({ "done": true, "steps": teller.step, "milliseconds": begun.elapsed().as_millis() as u64 }));
    } else {
        let line = match args.lang {
            Lang::En => format!("All {} steps held, in {seconds:.1} s.", teller.step),
            Lang::Zh => format!("全部 {} 步均通过核验，用时 {seconds:.1} 秒。", teller.step),
        };
        said!("\n{line}");
    }
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
