//! `counterseal scenario`: a folder's `scenario.toml`, played by real connectors on loopback.
//!
//! ```text
//!   scenario.toml ─▶ format: whatever can't be played is refused ─▶ cast: homes, data, pairing
//!                                                                     │
//!   told, as text or JSON ◀─ check: as was expected? ◀─ act: a step ◀─┘
//! ```
//!
//! The same code paths as for a user. All connectors share one clock, which stands still except where a step
//! waits. The first step that doesn't come out as the file says ends the scenario, with its line.

mod act;
mod cast;
mod check;
mod evidence;
mod format;
mod people;
mod step;
mod time;

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::json;

pub use self::format::Scenario;
use self::{act::Play, format::FILE};
use crate::{
    cli::{
        Lang,
        output::Output,
        stage::{Teller, Voice},
    },
    time::{Clock as _, ManualClock, SystemClock},
};

/// How long a step takes that waits for nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// By how much the clock moves at once.
const TICK: Duration = Duration::from_millis(20);

/// A scenario's folder, played on loopback: each step checked, each refusal shown.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  counterseal scenario examples/healthcare
  counterseal scenario examples/healthcare --lang zh
  counterseal --json scenario examples/green-finance --folder /tmp/green    homes and exports stay there

Exit codes: 0 every step came out as scenario.toml says; 1 one did not, or the file can't be played.")]
pub struct ScenarioArgs {
    /// The folder with its scenario.toml.
    path: PathBuf,
    /// The language that it is told in.
    #[arg(long, value_enum, default_value_t)]
    lang: Lang,
    /// Where the parties' homes are made; a temporary folder if not given.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// How a scenario went that held from beginning to end.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Which scenario.
    pub scenario: String,
    /// How many steps came out as was expected.
    pub steps: usize,
    /// The denials that were shown, in the order in which they are promised.
    pub denials: Vec<String>,
    /// How long it took.
    pub milliseconds: u64,
}

/// Plays a scenario; exit code 1 at the first step that doesn't hold.
pub async fn run(args: ScenarioArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let voice = if out.json { Voice::Json } else { Voice::Text };
    let scenario = Scenario::read(&args.path)?;
    let temporary = tempfile::tempdir()?;
    let homes = args.folder.as_deref().unwrap_or(temporary.path());
    perform(&scenario, homes, &mut Teller::new(voice, args.lang)).await?;
    Ok(ExitCode::SUCCESS)
}

/// Plays the scenario of a folder, in a temporary place.
///
/// # Errors
/// What can't be played, or the first step that did not come out as the file says.
pub async fn play(folder: &Path, voice: Voice, lang: Lang) -> anyhow::Result<Report> {
    let scenario = Scenario::read(folder)?;
    let homes = tempfile::tempdir()?;
    perform(&scenario, homes.path(), &mut Teller::new(voice, lang)).await
}

async fn perform(scenario: &Scenario, homes: &Path, teller: &mut Teller) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let now = SystemClock.now();
    // forward only: certificates and signatures hold from the real now on
    let clock = Arc::new(ManualClock::at(scenario.clock.map_or(now, |start| start.after(now))));
    introduce(scenario, teller);
    let actors = cast::assemble(scenario, homes, &clock).await?;
    let mut play = Play::new(scenario, clock, actors);
    let played = steps(&mut play, teller).await;
    play.stop().await;
    played?;
    let report = Report {
        scenario: scenario.id.clone(),
        steps: scenario.steps.len(),
        denials: shown(scenario),
        milliseconds: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    let (steps, denials, seconds) = (report.steps, report.denials.len(), begun.elapsed().as_secs_f64());
    teller.json(&json!({ "done": true, "report": report }));
    teller.say(
        &format!("\nAll {steps} steps held, {denials} denials among them, in {seconds:.1} s."),
        &format!("\n全部 {steps} 步均通过核验，其中演示 {denials} 项拒绝，用时 {seconds:.1} 秒。"),
    );
    Ok(report)
}

async fn steps(play: &mut Play<'_>, teller: &mut Teller) -> anyhow::Result<()> {
    for step in &play.scenario.steps {
        teller.step(step.act.name(), &step.say, &step.say_zh);
        let held = async {
            let clock = play.clock.clone();
            let came = tokio::select! {
                came = play.act(&step.act, teller) => came?,
                never = run_slowly(&clock) => match never {},
            };
            check::expected(step, came, teller)?;
            play.show_receipts(teller).await
        };
        let held = held.await.with_context(|| format!("{FILE}:{}: `{}`", step.line, step.act.name()));
        if let Err(error) = held {
            teller.fail(&error);
            return Err(error);
        }
    }
    teller.finish();
    Ok(())
}

/// What a step waits for for long is due at some time (a letter that is sent again, a checkpoint that is not too soon):
/// then the clock runs. Else it stands, so that what is counted by the minute doesn't depend on the machine.
async fn run_slowly(clock: &ManualClock) -> Infallible {
    tokio::time::sleep(PATIENCE).await;
    loop {
        tokio::time::sleep(TICK).await;
        clock.advance(TICK);
    }
}

fn introduce(scenario: &Scenario, teller: &Teller) {
    teller.json(&json!({
        "scenario": scenario.id,
        "title": teller.pick(&scenario.title, &scenario.title_zh),
        "about": teller.pick(&scenario.about, &scenario.about_zh),
        "parties": scenario.parties.iter().map(|party| &party.name).collect::<Vec<_>>(),
        "denials": scenario.denials,
    }));
    teller.say(&scenario.title, &scenario.title_zh);
    teller.say(scenario.about.trim_end(), scenario.about_zh.trim_end());
    for party in &scenario.parties {
        let title = teller.pick(&party.title, party.title_zh.as_deref().unwrap_or(&party.title));
        let line = format!("  {}  did:web:{}.invalid", title, party.name);
        teller.say(&line, &line);
    }
}

fn shown(scenario: &Scenario) -> Vec<String> {
    let missing = scenario.not_shown();
    scenario.denials.iter().filter(|denial| !missing.contains(&denial.as_str())).cloned().collect()
}
