//! `counterseal fetch`

use anyhow::{Context as _, bail};
use clap::Args;
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::{
    cli::{client::Client, output::Output},
    exchange::FetchEvent,
    id::AgreementId,
};

/// Get one release of an agreement's data into the vault, sealed; or go on with one that was begun.
#[derive(Debug, Args)]
pub struct Fetch {
    /// Under which agreement.
    agreement: AgreementId,
    /// What for; the provider's policy decides on it.
    #[arg(long)]
    purpose: String,
    /// Ask for another release, even if one was begun and is not over.
    #[arg(long)]
    another: bool,
}

/// `fetch`
pub async fn fetch(client: &Client, args: Fetch, out: &Output) -> anyhow::Result<()> {
    let body = json!({ "agreement": args.agreement, "purpose": args.purpose, "another": args.another });
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
