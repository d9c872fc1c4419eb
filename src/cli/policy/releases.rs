//! `counterseal policy releases`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::files::{Around, Spoken, counted, find, is_offer, read};
use crate::{
    cli::output::{Output, plain},
    policy::{
        Action, Obligations,
        workbench::{Level, PastRelease, ReleaseShape, releases},
    },
};

/// Offers, compared.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  counterseal policy releases offers --root data
  counterseal policy releases a/offer.toml b/offer.toml --history released.json

A history is a JSON list of {offer, dataset, snapshot, obligations}.
Exit codes: 0 whatever was found; 1 with --deny-warnings, if something was.")]
pub struct Releases {
    /// offer.toml files, or folders of them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// What left before.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Warnings are errors.
    #[arg(long)]
    deny_warnings: bool,
    #[command(flatten)]
    around: Around,
    #[command(flatten)]
    spoken: Spoken,
}

pub fn run(args: Releases, out: &Output) -> anyhow::Result<ExitCode> {
    let files = find(&args.paths, is_offer)?;
    let mut shapes: Vec<ReleaseShape> = Vec::new();
    for file in &files {
        let policy = args.around.load(file).with_context(|| file.display().to_string())?;
        let (slice, _) = policy.compile()?;
        let offer = policy.offer.context("an offer.toml is wanted here: a policy alone names no dataset")?;
        let permits: Vec<(String, Obligations)> = slice
            .clauses()
            .into_iter()
            .filter(|clause| clause.permit && clause.actions.contains(&Action::Release))
            .map(|clause| (clause.id.clone(), slice.demanded(&[clause.id])))
            .collect();
        if shapes.iter().any(|shape| shape.offer == offer.id.as_str()) {
            anyhow::bail!("{}: there is another offer `{}` here", file.display(), offer.id.as_str());
        }
        shapes.push(ReleaseShape {
            offer: offer.id.as_str().to_owned(),
            dataset: offer.dataset.id.as_str().to_owned(),
            source: offer.dataset.source.clone(),
            columns: policy.columns,
            permits,
        });
    }
    let history: Vec<PastRelease> = match &args.history {
        None => Vec::new(),
        Some(path) => serde_json::from_str(&read(path)?).with_context(|| path.display().to_string())?,
    };
    if shapes.is_empty() && history.is_empty() {
        anyhow::bail!("there is no offer.toml here");
    }
    let found = releases(&shapes, &history);
    out.show(&json!({ "offers": shapes.len(), "findings": found }), |_| {
        let mut text = String::new();
        for finding in &found {
            let (level, zh) = finding.level.words();
            let message = args.spoken.pick(&finding.message, &finding.message_zh);
            text.push_str(&format!("{}[{}]: {}\n", args.spoken.pick(level, zh), finding.code, plain(message)));
        }
        text.push_str(&match args.spoken.lang {
            crate::cli::Lang::En => {
                format!("{} compared: {}\n", counted(shapes.len(), "offer"), counted(found.len(), "finding"))
            }
            crate::cli::Lang::Zh => format!("已比较 {} 个要约：{} 项发现\n", shapes.len(), found.len()),
        });
        text
    });
    let warned = found.iter().any(|finding| finding.level != Level::Note);
    Ok(if args.deny_warnings && warned { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
