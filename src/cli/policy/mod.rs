//! `counterseal policy …`: the steward's workbench. Runs alone, without a home or a running connector.

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
mod test;

use std::process::ExitCode;

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
    /// To ODRL and back, for partners who speak only that.
    Odrl(odrl::Odrl),
}

/// Runs one.
pub fn run(command: PolicyCommand, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::New(args) => new::run(args, out),
        PolicyCommand::Check(args) => check::run(args, out),
        PolicyCommand::Test(args) => test::run(args, out),
        PolicyCommand::Explain(args) => explain::run(args, out),
        PolicyCommand::Show(args) => show::run(args, out),
        PolicyCommand::Preview(args) => preview::run(args, out),
        PolicyCommand::Releases(args) => releases::run(args, out),
        PolicyCommand::Diff(args) => diff::run(args, out),
        PolicyCommand::Prove(args) => prove::run(args, out),
        PolicyCommand::Odrl(args) => odrl::run(args, out),
    }
}
