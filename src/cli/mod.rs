//! The commands, one file each; what a terminal shows.
//!
//! Most commands are clients of a running node's management API; `init`, `serve`, `demo`, `doctor`, `key`, most of
//! `policy`, and `receipt verify|match` run alone. Results go to standard output, everything else to standard error.

mod application;
mod backup;
mod client;
mod demo;
mod doctor;
mod events;
mod fetch;
mod grounds;
mod init;
mod key;
mod output;
mod pending;
mod policy;
mod receipt;
mod remote;
mod scenario;
mod serve;
mod stage;
mod use_copy;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::error::Refusal;

pub use self::{
    init::{NewHome, create, data_folder},
    scenario::{Report, Scenario, play},
    stage::Voice,
};

const EXAMPLES: &str = "\
Examples:
  counterseal demo                                   the whole story in ten seconds
  counterseal scenario examples/healthcare           one of the scenarios, each step checked
  counterseal --home hospital init --name Hospital   make a home: keys, certificate, configuration
  counterseal --home hospital serve                  run its connector
  counterseal --home hospital peer invite --out hospital.json
  counterseal --home hospital peer add research.json --group research
  counterseal --home hospital offer publish offer.toml
  counterseal --home research fetch <agreement> --purpose research

Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 evidence is consistent, but its keys are unproven;
4 evidence does not hold.";

/// A trusted data space connector: sealed offers, usage policies, countersigned receipts. 可信数据空间连接器。
#[derive(Debug, Parser)]
#[command(name = "counterseal", version, after_help = EXAMPLES)]
pub struct Cli {
    /// The connector's home: its keys, configuration, store and vault.
    #[arg(long, env = "COUNTERSEAL_HOME", default_value = ".counterseal", global = true)]
    home: PathBuf,
    /// Machine-readable output.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a home: keys, TLS certificate, did.json, counterseal.toml.
    Init(init::Init),
    /// Run the connector of this home.
    Serve(serve::Serve),
    /// Partners: invite, add, add-token, list, revoke.
    #[command(subcommand)]
    Peer(remote::Peer),
    /// Offers of ours: publish, list, withdraw.
    #[command(subcommand)]
    Offer(remote::Offer),
    /// What a partner offers us.
    Catalog(remote::Catalog),
    /// Agree with a partner on a dataset of its catalog.
    Negotiate(remote::Negotiate),
    /// Policies: new, check, test, explain, show, preview, releases, diff, prove, odrl run alone; simulate, trace don't.
    #[command(subcommand)]
    Policy(Box<policy::PolicyCommand>),
    /// Follow what happens to negotiations and transfers.
    Events(events::Events),
    /// Steps that wait for a person: list them, take one.
    #[command(subcommand)]
    Pending(pending::Pending),
    /// Transfers: list, request.
    #[command(subcommand)]
    Transfer(pending::Transfer),
    /// Agreements: list, import, approve, revoke.
    #[command(subcommand)]
    Agreement(remote::Agreement),
    /// Who may approve: add, list, remove.
    #[command(subcommand)]
    Approver(grounds::ApproverCommand),
    /// Requests that wait for an approval: list, grant, refuse.
    #[command(subcommand)]
    Approval(grounds::ApprovalCommand),
    /// Consents of the persons that data is about: record, withdraw, list.
    #[command(subcommand)]
    Consent(grounds::ConsentCommand),
    /// Second factors of acting persons: enrol.
    #[command(subcommand)]
    SecondFactor(grounds::SecondFactorCommand),
    /// What is owed after releases, and what is overdue.
    #[command(subcommand)]
    Duty(grounds::DutyCommand),
    /// Get one release of an agreement's data into the vault, sealed.
    Fetch(fetch::Fetch),
    /// Use a copy in the vault, if the agreement's policy allows it: read it, hand it to an application, delete it.
    Use(use_copy::Use),
    /// Local applications that may be handed plaintext: register, list, show, remove.
    #[command(subcommand)]
    Application(application::Application),
    /// Data made from copies: register, list.
    #[command(subcommand)]
    Derived(application::Derived),
    /// Copies in the vault.
    Copies,
    /// Releases of ours: let an agreement go on after one was never acknowledged.
    #[command(subcommand)]
    Release(remote::Release),
    /// Receipts: list, show, export, verify, match.
    #[command(subcommand)]
    Receipt(receipt::ReceiptCommand),
    /// How the connector stands.
    Status,
    /// What is wrong with this home.
    Doctor,
    /// Our own keys: rotate one, renew the certificate.
    #[command(subcommand)]
    Key(key::Key),
    /// Say that the wall clock is right although the last receipt is later.
    #[command(subcommand)]
    Clock(remote::ClockCommand),
    /// Write the running connector's store into a folder.
    Backup(backup::BackupArgs),
    /// Put a backup back: look at it, restore from it, go on without a partner.
    #[command(subcommand)]
    Restore(backup::Restore),
    /// Two connectors and an outsider on loopback: the whole story, with what was checked.
    Demo(demo::Demo),
    /// A scenario's folder, played on loopback: each step checked, each refusal shown.
    Scenario(scenario::ScenarioArgs),
    /// Completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// The language of what is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// 中文.
    Zh,
}

/// Runs a command line.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("COUNTERSEAL_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default_log(&cli.command))),
        )
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let json = cli.json;
    let result = runtime.block_on(dispatch(cli));
    // whatever still blocks (a reader that went away) is not waited for
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => {
            output::failure(&error, json);
            ExitCode::FAILURE
        }
    }
}

const fn default_log(command: &Command) -> &'static str {
    match command {
        Command::Serve(_) => "counterseal=info,warn",
        Command::Demo(_) | Command::Scenario(_) => "off",
        _ => "warn",
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let out = output::Output { json: cli.json };
    let done = ExitCode::SUCCESS;
    let home = cli.home;
    match cli.command {
        Command::Init(args) => init::run(&home, args, &out).map(|()| done),
        Command::Serve(args) => serve::run(&home, args).await.map(|()| done),
        Command::Demo(args) => demo::run(args, &out).await,
        Command::Scenario(args) => scenario::run(args, &out).await,
        Command::Key(command) => key::run(&home, command, &out).map(|()| done),
        Command::Policy(command) => policy::run(&home, *command, &out).await,
        Command::Doctor => doctor::run(&home, &out).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "counterseal", &mut std::io::stdout());
            Ok(done)
        }
        Command::Receipt(command) => receipt::run(&home, command, &out).await,
        Command::Peer(command) => remote::peer(&client::connect(&home)?, command, &out).await.map(|()| done),
        Command::Offer(command) => remote::offer(&client::connect(&home)?, command, &out).await.map(|()| done),
        Command::Catalog(args) => remote::catalog(&client::connect(&home)?, args, &out).await.map(|()| done),
        Command::Negotiate(args) => remote::negotiate(&client::connect(&home)?, args, &out).await.map(|()| done),
        Command::Agreement(command) => remote::agreement(&home, command, &out).await.map(|()| done),
        Command::Approver(command) => grounds::approver(&home, command, &out).await.map(|()| done),
        Command::Approval(command) => grounds::approval(&home, command, &out).await.map(|()| done),
        Command::Consent(command) => grounds::consent(&home, command, &out).await.map(|()| done),
        Command::SecondFactor(command) => grounds::second_factor(&home, command, &out).await.map(|()| done),
        Command::Duty(command) => grounds::duty(&client::connect(&home)?, command, &out).await.map(|()| done),
        Command::Events(args) => events::run(&client::connect(&home)?, args, &out).await.map(|()| done),
        Command::Pending(command) => pending::pending(&client::connect(&home)?, command, &out).await.map(|()| done),
        Command::Transfer(command) => pending::transfer(&client::connect(&home)?, command, &out).await.map(|()| done),
        Command::Release(command) => remote::release(&client::connect(&home)?, command, &out).await.map(|()| done),
        Command::Clock(command) => remote::clock(&client::connect(&home)?, command, &out).await.map(|()| done),
        Command::Backup(args) => backup::backup(&home, args, &out).await.map(|()| done),
        Command::Restore(command) => backup::run(&home, command, &out).await,
        Command::Status => remote::status(&client::connect(&home)?, &out).await.map(|()| done),
        Command::Copies => remote::copies(&client::connect(&home)?, &out).await.map(|()| done),
        Command::Fetch(args) => fetch::fetch(&client::connect(&home)?, args, &out).await.map(|()| done),
        Command::Use(args) => use_copy::use_copy(&client::connect(&home)?, args, &out).await.map(|()| done),
        Command::Application(command) => {
            application::application(&client::connect(&home)?, command, &out).await.map(|()| done)
        }
        Command::Derived(command) => application::derived(&client::connect(&home)?, command, &out).await.map(|()| done),
    }
}

/// A refusal as an error of a command.
fn refused(refusal: Refusal) -> anyhow::Error {
    anyhow::Error::new(refusal)
}
