//! `counterseal application` and `counterseal derived`

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    cli::{
        client::{Client, absolute, connect, connect_as, segment},
        output::{Output, plain, rows, text},
    },
    exchange::{DerivedRequest, Registration},
    id::{AgreementId, DatasetId, Sha256},
    node::STEWARD,
    vault::{self, Way},
};

/// Local applications that may be handed plaintext.
#[derive(Debug, Subcommand)]
pub enum Application {
    /// Register one, or its next version: how it gets the data, and what policies are told of it.
    Register(Box<Register>),
    /// Show them.
    List,
    /// Show one.
    Show {
        /// Which.
        name: String,
    },
    /// Remove one: what it is doing is stopped, files that were handed to it are removed.
    Remove {
        /// Which.
        name: String,
    },
}

/// How an application gets the plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// On its standard input; its standard output is the result.
    Pipe,
    /// As a file below a folder of its own.
    File,
    /// As the body of a request to this machine.
    Http,
}

/// Register an application.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  counterseal application register stats --kind pipe --algorithm count.py --env 02 --command /usr/bin/python3 count.py
  counterseal application register viewer --kind file --path /srv/viewer/inbox
  counterseal application register model --kind http --url http://127.0.0.1:8080/predict --model risk-v3 --agreement urn:uuid:…")]
pub struct Register {
    /// Its name, as policies see it (`context.application`).
    name: String,
    /// How it gets the plaintext.
    #[arg(long)]
    kind: Kind,
    /// Its folder (file): yours alone, mode 0700.
    #[arg(long, required_if_eq("kind", "file"))]
    path: Option<PathBuf>,
    /// Its address on this machine (http).
    #[arg(long, required_if_eq("kind", "http"))]
    url: Option<String>,
    /// Ask by PUT instead of POST (http).
    #[arg(long)]
    put: bool,
    /// What it runs: the file is hashed now, and again at each use.
    #[arg(long, conflicts_with = "sha256")]
    algorithm: Option<PathBuf>,
    /// The SHA-256 of what it runs, where there is no file to hash.
    #[arg(long)]
    sha256: Option<Sha256>,
    /// A model that it runs, by id or hash; may be repeated.
    #[arg(long)]
    model: Vec<String>,
    /// Where it runs: 01 usage control, 02 sandbox, 03 MPC, 04 federated learning, 05 TEE, 06 confidential computing.
    #[arg(long, default_value = "")]
    env: String,
    /// An agreement that it is bound to; may be repeated; none: any.
    #[arg(long)]
    agreement: Vec<AgreementId>,
    /// The program and its arguments (pipe); the last option: all that follows is the command's. No shell reads it.
    #[arg(long, num_args = 1.., allow_hyphen_values = true, required_if_eq("kind", "pipe"))]
    command: Vec<String>,
}

/// Data made from copies.
#[derive(Debug, Subcommand)]
pub enum Derived {
    /// Put a result that was made from copies into the vault; their policies go on deciding on it.
    Register(RegisterDerived),
    /// Show what is there.
    List,
}

/// Register derived data.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  counterseal derived register rates.csv --title \"Rates by region\" --from lymph-node-cohort --purpose research --id rates
  counterseal use rates --purpose research")]
pub struct RegisterDerived {
    /// The result.
    file: PathBuf,
    /// For people.
    #[arg(long)]
    title: String,
    /// A copy or dataset that it was made from; may be repeated.
    #[arg(long, required = true)]
    from: Vec<String>,
    /// What for: the policies of what it was made from decide on it.
    #[arg(long)]
    purpose: String,
    /// Its dataset id; one is made up if there is none.
    #[arg(long)]
    id: Option<DatasetId>,
    /// The registered application that made it.
    #[arg(long)]
    application: Option<String>,
}

/// `application …`
pub async fn application(home: &Path, command: Application, out: &Output) -> anyhow::Result<()> {
    let client = &connect(home)?;
    match command {
        Application::Register(args) => {
            let answer = connect_as(home, STEWARD)?.post("/v1/applications", &registration(*args)?).await?;
            out.show(&answer, |answer| {
                format!(
                    "{} is registered; next: counterseal use <copy> --application {0} --purpose <purpose>",
                    text(answer, "name")
                )
            });
        }
        Application::List => {
            let mut answer = client.get("/v1/applications").await?;
            out.show(&answer.clone(), |_| {
                for one in answer.as_array_mut().into_iter().flatten() {
                    one["kind"] = one["way"]["kind"].clone();
                    one["sha256"] = one["algorithm"]["sha256"].clone();
                }
                rows(&answer, &["name", "kind", "environment", "sha256", "agreements"])
            });
        }
        Application::Show { name } => {
            let answer = client.get(&format!("/v1/applications/{}", segment(&name))).await?;
            out.show(&answer, plain_json);
        }
        Application::Remove { name } => {
            let path = format!("/v1/applications/{}/remove", segment(&name));
            let answer = client.post(&path, &serde_json::json!({})).await?;
            out.show(&answer, |_| format!("{} is removed: no use goes through it any more", plain(&name)));
        }
    }
    Ok(())
}

fn plain_json(value: &serde_json::Value) -> String {
    let written = serde_json::to_string_pretty(value).unwrap_or_default();
    written.lines().map(plain).collect::<Vec<_>>().join("\n")
}

fn registration(args: Register) -> anyhow::Result<Registration> {
    let given = [
        (Kind::Pipe, !args.command.is_empty()),
        (Kind::File, args.path.is_some()),
        (Kind::Http, args.url.is_some() || args.put),
    ];
    if given.iter().any(|(kind, given)| *given && *kind != args.kind) {
        bail!("--command is for --kind pipe, --path for file, --url and --put for http: give those of one kind");
    }
    let way = match args.kind {
        Kind::Pipe => Way::Pipe { command: whole_path(args.command)? },
        Kind::File => Way::File { path: absolute(&args.path.unwrap_or_default())? },
        Kind::Http => Way::Http {
            url: args.url.unwrap_or_default(),
            method: if args.put { vault::Method::Put } else { vault::Method::Post },
        },
    };
    Ok(Registration {
        application: vault::Application {
            name: args.name,
            way,
            algorithm: None,
            models: args.model.into_iter().collect::<BTreeSet<_>>(),
            environment: args.env,
            agreements: args.agreement.into_iter().collect(),
            registered: None,
        },
        algorithm_file: args.algorithm.as_deref().map(absolute).transpose()?,
        algorithm_sha256: args.sha256,
    })
}

/// The program by its whole path: as the shell that we were called from would find it.
fn whole_path(mut command: Vec<String>) -> anyhow::Result<Vec<String>> {
    let program = command.first_mut().context("--command needs a program")?;
    if !program.contains('/') {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join(&*program)).find(|file| file.is_file());
        *program = found.with_context(|| format!("no program `{program}` is on the PATH"))?.display().to_string();
    } else if !Path::new(program.as_str()).is_absolute() {
        *program = absolute(Path::new(program.as_str()))?.display().to_string();
    }
    Ok(command)
}

/// `derived …`
pub async fn derived(client: &Client, command: Derived, out: &Output) -> anyhow::Result<()> {
    match command {
        Derived::Register(args) => {
            let body = DerivedRequest {
                file: absolute(&args.file)?,
                title: args.title,
                from: args.from,
                purpose: args.purpose,
                id: args.id,
                application: args.application,
            };
            let answer = client.post("/v1/derived", &body).await?;
            out.show(&answer, |answer| {
                format!(
                    "{} is in the vault, sealed: {} bytes. The policies of what it was made from decide on each use.\nNext: counterseal use {0} --purpose <purpose>; and destroy {} yourself",
                    text(answer, "id"),
                    text(answer, "bytes"),
                    args.file.display()
                )
            });
        }
        Derived::List => {
            let answer = client.get("/v1/derived").await?;
            out.show(&answer, |all| rows(all, &["id", "title", "state", "bytes", "deleteBy"]));
        }
    }
    Ok(())
}
