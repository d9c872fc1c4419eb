//! `counterseal serve`

use std::{path::Path, sync::Arc, time::Instant};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::{config::Config, crypto::SystemRandom, node::Node, time::SystemClock};

/// Run the connector of this home.
#[derive(Debug, Args)]
pub struct Serve {
    /// Accept a store that lies elsewhere than where it was made: the original is gone for good.
    #[arg(long)]
    moved: bool,
}

/// Runs until SIGINT or SIGTERM; a second one exits at once.
pub async fn run(home: &Path, args: Serve) -> anyhow::Result<()> {
    let begun = Instant::now();
    let config = Config::load(home, std::env::vars())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let node = Node::start(home, config, Arc::new(SystemClock), Arc::new(SystemRandom), args.moved).await?;
    let plain = match node.running.plain {
        Some(address) => format!("  foreign     {} (plain HTTP on {address})\n", node.exchange.plain_url),
        None => String::new(),
    };
    eprintln!(
        "{} is ready after {} ms\n  partners    {} (listening on {})\n{plain}  management  http://{}\nStop it with Ctrl-C.",
        node.exchange.us,
        begun.elapsed().as_millis(),
        node.exchange.base_url,
        node.running.partner,
        node.running.management
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("stopping; press Ctrl-C again to stop at once");
    tokio::select! {
        () = node.stop() => {}
        _ = interrupt.recv() => std::process::exit(130),
        _ = terminate.recv() => std::process::exit(143),
    }
    Ok(())
}
