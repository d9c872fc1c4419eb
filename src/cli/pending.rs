//! `counterseal pending …`, `peer add-token`, `agreement import|approve`, `transfer …`: what people decide, and with whom
//! besides Counterseal peers.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    api::{PublishBody, ReasonBody, TransferBody},
    cli::{
        client::{Client, absolute, segment},
        output::{Output, rows, text},
    },
    id::{AgreementId, ParticipantId, Pid},
    offer::Approval,
    protocol::message::{Address, HTTP_PULL},
};

/// Steps that wait for a person.
#[derive(Debug, Subcommand)]
pub enum Pending {
    /// Show them, with what may be done.
    List,
    /// Take a step: offer, agree, finalize, accept, request, verify, start, suspend, complete, terminate.
    Do {
        /// Which step.
        action: String,
        /// Of which process; `pending list` shows it.
        pid: Pid,
        /// Why; the partner reads it.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// A foreign connector.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  counterseal peer add-token BPNL000000000001 --address https://edc.partner.example/protocol --inbound-file in.txt --outbound-file out.txt"
)]
pub struct AddToken {
    /// Its participant id.
    id: ParticipantId,
    /// Its protocol's base address; messages go nowhere else.
    #[arg(long)]
    address: Address,
    /// A file with the whole Authorization value that it presents.
    #[arg(long)]
    inbound_file: PathBuf,
    /// A file with the whole Authorization value that we present.
    #[arg(long)]
    outbound_file: PathBuf,
    /// Its name.
    #[arg(long, default_value = "")]
    name: String,
    /// A group that it belongs to; may be repeated.
    #[arg(long)]
    group: Vec<String>,
    /// Milliseconds to wait after answering it before the message that follows is sent.
    #[arg(long, value_name = "MS", default_value_t = 400)]
    follow_up_delay: u64,
}

/// Transfers.
#[derive(Debug, Subcommand)]
pub enum Transfer {
    /// Show them.
    List,
    /// Ask the provider of an agreement for one.
    Request {
        /// Under which agreement.
        agreement: AgreementId,
        /// How the data goes over.
        #[arg(long, default_value = HTTP_PULL)]
        format: String,
        /// The provider's base address, if it is another than the one that is known of it.
        #[arg(long)]
        address: Option<Address>,
    },
}

/// `pending …`
pub async fn pending(client: &Client, command: Pending, out: &Output) -> anyhow::Result<()> {
    match command {
        Pending::List => {
            let answer = client.get("/v1/pending").await?;
            out.show(&answer, |pending| {
                rows(pending, &["pid", "process", "role", "state", "peer", "dataset", "actions", "deadline"])
            });
        }
        Pending::Do { action, pid, reason } => {
            let mut found = None;
            for kind in ["negotiations", "transfers"] {
                let all = client.get(&format!("/v1/{kind}")).await?;
                if all.as_array().is_some_and(|rows| rows.iter().any(|row| row["pid"] == pid.as_str())) {
                    found = Some(kind);
                }
            }
            let Some(kind) = found else {
                bail!(
                    "no negotiation or transfer has the pid `{pid}`; `counterseal pending list` shows those that wait"
                );
            };
            let path = format!("/v1/{kind}/{}/{}", segment(pid.as_str()), segment(&action));
            let answer = client.post(&path, &ReasonBody { reason }).await?;
            out.show(&answer, |_| format!("done: {action} of {pid}"));
        }
    }
    Ok(())
}

/// `peer add-token`
pub async fn add_token(client: &Client, args: AddToken, out: &Output) -> anyhow::Result<()> {
    let secret = |path: &Path| {
        std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .with_context(|| format!("{} can't be read", path.display()))
    };
    let body = json!({
        "id": args.id,
        "name": args.name,
        "address": args.address,
        "inbound": secret(&args.inbound_file)?,
        "outbound": secret(&args.outbound_file)?,
        "attributes": { "groups": args.group },
        "followUpDelayMs": args.follow_up_delay,
    });
    let answer = client.post("/v1/peers/token", &body).await?;
    out.show(&answer, |peer| {
        format!(
            "added {} at {}\nIt proves who it is by a shared secret: its half of any receipt is repudiable, and ours says one-sided.",
            text(peer, "id"),
            text(peer, "address")
        )
    });
    Ok(())
}

/// `transfer …`
pub async fn transfer(client: &Client, command: Transfer, out: &Output) -> anyhow::Result<()> {
    match command {
        Transfer::List => {
            let answer = client.get("/v1/transfers").await?;
            out.show(&answer, |transfers| rows(transfers, &["pid", "role", "state", "peer", "agreement", "format"]));
        }
        Transfer::Request { agreement, format, address } => {
            let body = TransferBody { agreement, format, address, approval: Approval::Auto };
            let answer = client.post("/v1/transfers", &body).await?;
            out.show(&answer, |answer| format!("asked: transfer {}", text(answer, "pid")));
        }
    }
    Ok(())
}

/// `agreement import`
pub async fn import(client: &Client, file: &Path, out: &Output) -> anyhow::Result<()> {
    let answer = client.post("/v1/agreements/import", &PublishBody { file: absolute(file)? }).await?;
    out.show(&answer, |agreement| {
        format!(
            "imported {} ({}); nothing happens under it before a steward approves it:\n  counterseal agreement approve {0}",
            text(agreement, "id"),
            text(agreement, "state")
        )
    });
    Ok(())
}

/// `agreement approve`
pub async fn approve(steward: &Client, id: &AgreementId, out: &Output) -> anyhow::Result<()> {
    let answer = steward.post(&format!("/v1/agreements/{}/approve", segment(id.as_str())), &json!({})).await?;
    out.show(&answer, |_| format!("{id} is approved, and in force"));
    Ok(())
}
