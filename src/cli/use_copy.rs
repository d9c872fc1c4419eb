//! `counterseal use`

use std::{fs::OpenOptions, io::Write as _, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use serde_json::Value;

use crate::{
    api::{USE_ID, UseBody},
    cli::{
        client::{Client, segment},
        output::{Output, text},
    },
    error::{Code, Refusal},
    exchange::First,
};

/// Use a copy in the vault, if the agreement's policy allows it.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  counterseal use lymph-node-cohort --purpose research | head -3
  counterseal use lymph-node-cohort --purpose research --action compute --application stats
  counterseal use lymph-node-cohort --purpose research --action delete
  counterseal use done urn:uuid:…                       the application has read its file"
)]
pub struct Use {
    #[command(subcommand)]
    command: Option<UseCommand>,
    #[command(flatten)]
    args: Option<UseArgs>,
}

#[derive(Debug, Subcommand)]
enum UseCommand {
    /// The application has read the file that was handed out: remove it.
    Done {
        /// The use, as `use` named it.
        id: String,
    },
}

#[derive(Debug, Args)]
struct UseArgs {
    /// The copy, or the dataset or agreement whose newest copy is meant; or a derived dataset.
    of: String,
    /// What for.
    #[arg(long)]
    purpose: String,
    /// Which use; `delete` destroys the copy's key.
    #[arg(long, default_value = "read")]
    action: String,
    /// Which registered application reads it; without one, you do.
    #[arg(long)]
    application: Option<String>,
    /// Throw away what the application writes.
    #[arg(long, requires = "application")]
    quiet: bool,
    /// How long a file that is handed to an application stays, in seconds.
    #[arg(long, default_value_t = 3600)]
    keep_seconds: u64,
    /// A statement of the policy's that is accepted, word for word; may be repeated.
    #[arg(long)]
    accept: Vec<String>,
    /// The acting person, as enrolled here.
    #[arg(long)]
    person: Option<String>,
    /// That person's one-time code.
    #[arg(long, requires = "person")]
    code: Option<String>,
    /// Where the stream goes; standard output if nowhere else.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write over what is there.
    #[arg(long, requires = "out")]
    force: bool,
}

/// `use`
pub async fn use_copy(client: &Client, command: Use, out: &Output) -> anyhow::Result<()> {
    let args = match (command.command, command.args) {
        (Some(UseCommand::Done { id }), _) => {
            let answer = client.post(&format!("/v1/uses/{}/done", segment(&id)), &serde_json::json!({})).await?;
            out.show(&answer, |_| "the file is removed".into());
            return Ok(());
        }
        (None, Some(args)) => args,
        (None, None) => bail!("say what is to be used: counterseal use <copy> --purpose <purpose>"),
    };
    // before anything is spent
    let mut file = match &args.out {
        Some(path) => Some(create(path, args.force)?),
        None => None,
    };
    let body = UseBody {
        of: args.of,
        purpose: args.purpose,
        action: args.action,
        application: args.application,
        quiet: args.quiet,
        keep_seconds: args.keep_seconds,
        first: First { accepts: args.accept.into_iter().collect(), person: args.person, code: args.code },
    };
    let response = match client.send(reqwest::Method::POST, "/v1/use", &body).await {
        Ok(response) => response,
        Err(error) => {
            discard(&args.out, args.force);
            return Err(error);
        }
    };
    let said = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let use_id = said(USE_ID);
    if said("content-type").is_some_and(|kind| kind.starts_with("application/json")) {
        discard(&args.out, args.force);
        let answer: Value = response.json().await?;
        out.show(&answer, over);
        return Ok(());
    }
    let broken = stream(response, file.as_mut()).await.err();
    // how the application ended says more than that its stream broke off
    if let Some(id) = use_id {
        let handover = client.get(&format!("/v1/uses/{}", segment(&id))).await?;
        if let Some(sentence) = handover["problem"]["sentence"].as_str() {
            let code = Code::received(handover["problem"]["code"].as_str().unwrap_or_default());
            return Err(super::refused(Refusal { code, sentence: format!("{sentence}; the use stays counted") }));
        }
    }
    broken.map_or(Ok(()), Err)
}

async fn stream(response: reqwest::Response, file: Option<&mut std::fs::File>) -> anyhow::Result<()> {
    let mut to: Box<dyn std::io::Write> = match file {
        Some(file) => Box::new(file),
        None => Box::new(std::io::stdout()),
    };
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.context("the stream broke off: the use was stopped, or the copy can't be opened to its end")?;
        match to.write_all(&chunk) {
            // `| head` has seen enough
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
    to.flush()?;
    Ok(())
}

fn over(answer: &Value) -> String {
    if answer["deleted"].is_string() {
        return format!(
            "the key of {} is destroyed; what remains is ciphertext, and the provider is told",
            text(answer, "deleted")
        );
    }
    match answer["path"].as_str() {
        Some(_) => format!(
            "{}\nIt stays until {}; when it was read: counterseal use done {}",
            text(answer, "path"),
            text(answer, "until"),
            text(answer, "id")
        ),
        None => format!("the application answered {}", text(answer, "status")),
    }
}

fn create(path: &PathBuf, force: bool) -> anyhow::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    options.open(path).with_context(|| match path.exists() && !force {
        true => format!("{} is there already; --force writes over it", path.display()),
        false => path.display().to_string(),
    })
}

/// Leaves no empty file behind that was made for a stream which didn't come.
fn discard(path: &Option<PathBuf>, force: bool) {
    if let Some(path) = path.as_ref().filter(|_| !force) {
        let _ = std::fs::remove_file(path);
    }
}
