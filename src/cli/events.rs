//! `counterseal events`: what happens, as it happens.

use anyhow::bail;
use clap::Args;
use futures_util::StreamExt as _;
use serde_json::Value;

use crate::cli::{
    client::Client,
    output::{Output, text},
};

/// Follow what happens to negotiations and transfers.
#[derive(Debug, Args)]
pub struct Events {
    /// Begin after this event's number; 0 shows all that are kept.
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
}

/// Prints an event a line, until it is interrupted or the connector stops.
pub async fn run(client: &Client, args: Events, out: &Output) -> anyhow::Result<()> {
    let response = client.follow("/v1/events", args.after).await?;
    let mut blocks = response.bytes_stream();
    let mut waiting = String::new();
    while let Some(block) = blocks.next().await {
        waiting.push_str(&String::from_utf8_lossy(&block?));
        while let Some(end) = waiting.find('\n') {
            let line: String = waiting.drain(..=end).collect();
            let Some(data) = line.trim_end().strip_prefix("data: ") else { continue };
            let event: Value = serde_json::from_str(data)?;
            out.show(&event, |event| {
                let data = &event["data"];
                format!(
                    "{}  {}  {}  {} {}  {}  {}",
                    text(event, "id"),
                    text(event, "time"),
                    text(event, "type").trim_start_matches("org.counterseal."),
                    text(data, "role"),
                    text(data, "state"),
                    text(data, "peer"),
                    text(data, "pid"),
                )
            });
        }
    }
    bail!("the connector closed the stream; go on with --after <the last number>")
}
