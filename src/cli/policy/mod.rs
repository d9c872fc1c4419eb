//! `counterseal policy …`: runs alone, without a home or a running connector.

mod new;

use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::output::Output;

/// The workbench.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Begin with a template: a policy, its tests and an offer, with your values in it.
    New(new::New),
}

/// Runs one.
pub fn run(command: PolicyCommand, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::New(args) => new::run(args, out),
    }
}
