//! `counterseal fetch`

use anyhow::{Context as _, bail};
use clap::Args;
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::{
    agreement::Software,
    cli::{client::Client, output::Output},
    exchange::{FetchEvent, With},
    id::AgreementId,
};

/// Get one release of an agreement's data into the vault, sealed; or go on with one that was begun.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  counterseal fetch <agreement> --purpose research\n  counterseal fetch <agreement> --purpose subsidy_check --field life_status --filter \"id_no = '440101199001010011'\"\n  counterseal fetch <agreement> --purpose research --accept \"no re-identification\" --person wang --code 123456"
)]
pub struct Fetch {
    /// Under which agreement.
    agreement: AgreementId,
    /// What for; the provider's policy decides on it.
    #[arg(long)]
    purpose: String,
    /// Only this column; may be repeated.
    #[arg(long)]
    field: Vec<String>,
    /// Only these rows: a SQL condition over columns, as in "id_no = '440101…'".
    #[arg(long)]
    filter: Option<String>,
    /// A statement of the policy's that is accepted, word for word; may be repeated.
    #[arg(long)]
    accept: Vec<String>,
    /// The acting person, as enrolled with the provider.
    #[arg(long)]
    person: Option<String>,
    /// That person's one-time code.
    #[arg(long, requires = "person")]
    code: Option<String>,
    #[command(flatten)]
    software: SoftwareArgs,
    /// Ask for another release, even if one was begun and is not over.
    #[arg(long)]
    another: bool,
}

/// What is to read the data, as it is declared to the provider.
#[derive(Debug, Args)]
pub struct SoftwareArgs {
    /// The application.
    #[arg(long)]
    application: Option<String>,
    /// SHA-256 of the algorithm, in hex.
    #[arg(long)]
    algorithm: Option<String>,
    /// A model that it runs; may be repeated.
    #[arg(long)]
    model: Vec<String>,
    /// Where it runs: 01 usage control, 02 sandbox, 03 MPC, 04 federated learning, 05 TEE, 06 confidential computing.
    #[arg(long, value_parser = ["01", "02", "03", "04", "05", "06"])]
    env: Option<String>,
}

/// `fetch`
pub async fn fetch(client: &Client, args: Fetch, out: &Output) -> anyhow::Result<()> {
    let with = With {
        fields: (!args.field.is_empty()).then(|| args.field.iter().cloned().collect()),
        filter: args.filter,
        software: Software {
            application: args.software.application.unwrap_or_default(),
            algorithm: args.software.algorithm.unwrap_or_default(),
            machine_learning_models: args.software.model.into_iter().collect(),
            execution_env: args.software.env.unwrap_or_default(),
        },
        accepts: args.accept.into_iter().collect(),
        person: args.person,
        code: args.code,
    };
    let mut body = serde_json::to_value(with)?;
    for (name, value) in
        [("agreement", json!(args.agreement)), ("purpose", json!(args.purpose)), ("another", json!(args.another))]
    {
        body[name] = value;
    }
    let response = client.send(reqwest::Method::POST, "/v1/fetch", &body).await?;
    let bar = if out.json { ProgressBar::hidden() } else { ProgressBar::no_length() };
    bar.set_style(ProgressStyle::with_template("{spinner} {bytes} of about {total_bytes} {bytes_per_sec}")?);
    let mut chunks = response.bytes_stream();
    let mut buffer = Vec::new();
    let mut last = None;
    while let Some(chunk) = chunks.next().await {
        buffer.extend_from_slice(&chunk.context("the connector went away")?);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let event: FetchEvent = serde_json::from_slice(&line).context("an event can't be read")?;
            match &event {
                FetchEvent::Released { length, .. } => bar.set_length(*length),
                FetchEvent::Progress { bytes } => bar.set_position(*bytes),
                _ => {}
            }
            if out.json && !matches!(event, FetchEvent::Progress { .. }) {
                print!("{}", String::from_utf8_lossy(&line));
            }
            last = Some(event);
        }
    }
    bar.finish_and_clear();
    match last {
        Some(FetchEvent::Opened { copy, bytes }) => {
            if !out.json {
                println!(
                    "{bytes} bytes are in the vault, sealed: copy {copy}\nNext: counterseal use {copy} --purpose {}",
                    args.purpose
                );
            }
            Ok(())
        }
        Some(FetchEvent::Failed { refusal }) => Err(super::refused(refusal)),
        _ => bail!("the connector went away before the fetch was over; fetch again to go on"),
    }
}
