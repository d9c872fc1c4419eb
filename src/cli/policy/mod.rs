//! `counterseal policy …`: the steward's workbench. Runs alone, but for what it asks a running
//! connector about: the decision of a receipt, decisions of the past, whose copy a leak was.

mod check;
mod diff;
mod explain;
mod files;
mod new;
mod odrl;
mod preview;
mod proof;
mod prove;
mod releases;
mod show;
mod simulate;
mod test;
mod trace;

use std::{path::Path, process::ExitCode};

use clap::Subcommand;

use crate::cli::output::Output;

/// The workbench.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Begin with a template: a policy, its tests and an offer, with your values in it.
    New(new::New),
    /// What is wrong with policies, and what is likely not meant.
    Check(check::Check),
    /// Run the test files beside policies, and say what they leave untested.
    Test(test::Test),
    /// Why a request is allowed or not, policy by policy.
    Explain(explain::Explain),
    /// What a policy file says, and who enforces it.
    Show(show::Show),
    /// The first rows of a source before and after a policy's obligations.
    Preview(preview::Preview),
    /// Whether offers of one dataset tell more together than each alone.
    Releases(releases::Releases),
    /// What a new policy allows that the old one didn't, and the other way round.
    Diff(diff::Diff),
    /// Whether something can ever be allowed: proven, or a request that shows it.
    Prove(prove::Prove),
    /// What a new policy would have said of what was decided under an offer or an agreement.
    Simulate(simulate::Simulate),
    /// Whose copy a leaked file was.
    Trace(trace::Trace),
    /// To ODRL and back, for partners who speak only that.
    Odrl(odrl::Odrl),
}

/// Runs one.
pub async fn run(home: &Path, command: PolicyCommand, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::New(args) => new::run(args, out),
        PolicyCommand::Check(args) => check::run(args, out),
        PolicyCommand::Test(args) => test::run(args, out),
        PolicyCommand::Explain(args) => explain::run(home, args, out).await,
        PolicyCommand::Show(args) => show::run(args, out),
        PolicyCommand::Preview(args) => preview::run(args, out),
        PolicyCommand::Releases(args) => releases::run(args, out),
        PolicyCommand::Diff(args) => diff::run(args, out),
        PolicyCommand::Prove(args) => prove::run(args, out),
        PolicyCommand::Simulate(args) => simulate::run(home, args, out).await,
        PolicyCommand::Trace(args) => trace::run(home, args, out).await,
        PolicyCommand::Odrl(args) => odrl::run(args, out),
    }
}
