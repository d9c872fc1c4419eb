//! Commands that ask a running connector and show its answer.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    api::{AddPeer, NegotiateBody, PublishBody, ReasonBody},
    cli::{
        client::{Client, absolute, connect, connect_as, segment},
        output::{Output, alarming, plain, rows, text},
        pending::{self, AddToken},
    },
    id::{AgreementId, DatasetId, OfferId, ParticipantId, ReleaseId},
    identity::Attributes,
    node::STEWARD,
    offer::Approval,
};

/// Partners.
#[derive(Debug, Subcommand)]
pub enum Peer {
    /// Write our invitation, to be handed to a partner.
    Invite {
        /// Where to.
        #[arg(long)]
        out: PathBuf,
    },
    /// Add a partner by its invitation, and compare the fingerprint by another channel.
    Add {
        /// The partner's invitation.
        invitation: PathBuf,
        /// A group that it belongs to; may be repeated.
        #[arg(long)]
        group: Vec<String>,
        /// A role that it has; may be repeated.
        #[arg(long)]
        role: Vec<String>,
        /// A certification that it has; may be repeated.
        #[arg(long)]
        certification: Vec<String>,
        /// Its jurisdiction, such as CN-44.
        #[arg(long)]
        jurisdiction: Option<String>,
        /// Its site, as policies look at it by `context.physicalAddress`.
        #[arg(long)]
        physical_address: Option<String>,
        /// The fingerprint that the partner told you; with it, another one is refused.
        #[arg(long)]
        fingerprint: Option<String>,
        /// Milliseconds to wait after answering this partner before the message that follows is sent; for connectors
        /// that need the time.
        #[arg(long, value_name = "MS", default_value_t = 0)]
        follow_up_delay: u64,
    },
    /// Add a foreign connector, which presents a token instead of a certificate.
    AddToken(AddToken),
    /// Show the partners.
    List,
    /// Refuse a partner everything from now on.
    Revoke {
        /// Which.
        did: ParticipantId,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

/// Offers.
#[derive(Debug, Subcommand)]
pub enum Offer {
    /// Publish an offer, or its next version.
    Publish {
        /// offer.toml
        file: PathBuf,
    },
    /// Show the standing offers.
    List,
    /// Withdraw an offer: no new agreements; those made hold.
    Withdraw {
        /// Which.
        id: OfferId,
    },
}

/// What a partner offers us.
#[derive(Debug, Args)]
pub struct Catalog {
    /// Which partner.
    did: ParticipantId,
}

/// Agree with a partner on a dataset.
#[derive(Debug, Args)]
pub struct Negotiate {
    /// Which partner.
    did: ParticipantId,
    /// Which dataset of its catalog.
    dataset: DatasetId,
    /// In which offer; needed with a foreign provider.
    #[arg(long)]
    offer: Option<OfferId>,
    /// Take our own steps by hand, with `counterseal pending`.
    #[arg(long)]
    manual: bool,
    /// How long to wait for the end, in seconds.
    #[arg(long, default_value_t = 30)]
    wait: u64,
}

/// Agreements.
#[derive(Debug, Subcommand)]
pub enum Agreement {
    /// Put a payment for one on record (a steward's act); policies look at it by payAmount and payReference.
    #[command(after_help = "Example:\n  counterseal agreement payment <id> --amount 100.00 --reference 2026-0117")]
    Payment(super::grounds::PaymentArgs),
    /// Show them.
    List,
    /// Bring in one that was concluded elsewhere, on a platform or on paper.
    Import {
        /// agreement.toml
        file: PathBuf,
    },
    /// Let an imported one come into force; a steward's to do.
    Approve {
        /// Which.
        id: AgreementId,
    },
    /// End one that we provide under; running streams stop, the consumer is told.
    Revoke {
        /// Which.
        id: AgreementId,
        /// Why; the consumer reads it.
        #[arg(long)]
        reason: String,
    },
}

/// Releases.
#[derive(Debug, Subcommand)]
pub enum Release {
    /// Let the agreement go on after a release was never acknowledged; its count stays spent.
    Lift {
        /// Which.
        id: ReleaseId,
    },
}

/// The clock.
#[derive(Debug, Subcommand)]
pub enum ClockCommand {
    /// The wall clock is right, although the last receipt is later; this is receipted.
    Accept,
}

/// `peer …`
pub async fn peer(client: &Client, command: Peer, out: &Output) -> anyhow::Result<()> {
    match command {
        Peer::Invite { out: file } => {
            let answer = client.get("/v1/invitation").await?;
            let invitation = serde_json::to_string_pretty(&answer["invitation"])?;
            std::fs::write(&file, invitation + "\n").with_context(|| file.display().to_string())?;
            out.show(&json!({ "file": file, "fingerprint": answer["fingerprint"] }), |answer| {
                format!(
                    "{} holds our invitation.\nIts fingerprint is {}: read it to the partner by another channel.",
                    file.display(),
                    text(answer, "fingerprint")
                )
            });
        }
        Peer::Add {
            invitation,
            group,
            role,
            certification,
            jurisdiction,
            physical_address,
            fingerprint,
            follow_up_delay,
        } => {
            let attributes = Attributes {
                jurisdiction,
                roles: role.into_iter().collect(),
                certifications: certification.into_iter().collect(),
                groups: group.into_iter().collect(),
                physical_address,
            };
            let body =
                AddPeer { file: absolute(&invitation)?, attributes, fingerprint, follow_up_delay_ms: follow_up_delay };
            let answer = client.post("/v1/peers", &body).await?;
            out.show(&answer, |peer| {
                format!(
                    "added {} ({}) at {}\nIts fingerprint is {}: compare it with the partner's by another channel.",
                    text(peer, "did"),
                    text(peer, "name"),
                    text(peer, "endpoint"),
                    text(peer, "fingerprint")
                )
            });
        }
        Peer::AddToken(args) => pending::add_token(client, args, out).await?,
        Peer::List => {
            let mut answer = client.get("/v1/peers").await?;
            let foreign = client.get("/v1/peers/token").await?;
            // one list, whatever way a partner has to prove who it is
            if let (Some(all), Value::Array(foreign)) = (answer.as_array_mut(), foreign) {
                all.extend(foreign.into_iter().map(|mut peer| {
                    peer["did"] = peer["id"].take();
                    peer["endpoint"] = peer["address"].take();
                    peer["fingerprint"] = "(token)".into();
                    peer
                }));
            }
            out.show(&answer, |peers| rows(peers, &["did", "name", "state", "fingerprint", "endpoint"]));
        }
        Peer::Revoke { did, reason } => {
            let foreign = client.get("/v1/peers/token").await?;
            let by_token = foreign.as_array().is_some_and(|peers| peers.iter().any(|peer| peer["id"] == did.as_str()));
            let path = if by_token { "/v1/peers/token" } else { "/v1/peers" };
            let answer =
                client.post(&format!("{path}/{}/revoke", segment(did.as_str())), &ReasonBody { reason }).await?;
            out.show(&answer, |_| format!("{did} is revoked: its connections are cut, and it is nobody from now on"));
        }
    }
    Ok(())
}

/// `offer …`
pub async fn offer(client: &Client, command: Offer, out: &Output) -> anyhow::Result<()> {
    match command {
        Offer::Publish { file } => {
            let answer = client.post("/v1/offers", &PublishBody { file: absolute(&file)? }).await?;
            out.show(&answer, |offer| {
                let sealed: Vec<String> = offer["sealedFor"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|did| did.as_str().map(plain))
                    .collect();
                format!(
                    "published {} (version {}), {}",
                    text(offer, "id"),
                    text(offer, "version"),
                    if sealed.is_empty() {
                        "open to whom its policy lets discover it".to_owned()
                    } else {
                        format!("sealed for {}", sealed.join(", "))
                    }
                )
            });
        }
        Offer::List => {
            let answer = client.get("/v1/offers").await?;
            out.show(&answer, |offers| rows(offers, &["id", "version", "dataset", "source", "sealedFor", "problem"]));
        }
        Offer::Withdraw { id } => {
            let answer = client.post(&format!("/v1/offers/{}/withdraw", segment(id.as_str())), &json!({})).await?;
            out.show(&answer, |_| format!("{id} is withdrawn; agreements under it hold"));
        }
    }
    Ok(())
}

/// `catalog`
pub async fn catalog(client: &Client, args: Catalog, out: &Output) -> anyhow::Result<()> {
    let answer = client.get(&format!("/v1/peers/{}/catalog", segment(args.did.as_str()))).await?;
    out.show(&answer, |items| match items.as_array() {
        Some(items) if items.is_empty() => format!("{} offers nothing to us", args.did),
        _ => rows(items, &["dataset", "title", "sealed", "offer"]),
    });
    Ok(())
}

/// `negotiate`
pub async fn negotiate(client: &Client, args: Negotiate, out: &Output) -> anyhow::Result<()> {
    let body = NegotiateBody {
        provider: args.did,
        dataset: args.dataset,
        offer: args.offer,
        address: None,
        approval: if args.manual { Approval::Manual } else { Approval::Auto },
        wait_seconds: args.wait,
    };
    let answer = client.post("/v1/negotiations", &body).await?;
    if answer["state"] == "TERMINATED" {
        let refusal =
            serde_json::from_value(answer["ended"].clone()).context("the negotiation ended without a reason")?;
        return Err(super::refused(refusal));
    }
    out.show(&answer, |negotiation| match negotiation["state"].as_str() {
        Some("FINALIZED") => {
            format!("agreement {}\nNext: counterseal fetch {0} --purpose <purpose>", text(negotiation, "agreement"))
        }
        _ => format!(
            "the negotiation is {} so far; look at `counterseal agreement list` later",
            text(negotiation, "state")
        ),
    });
    Ok(())
}

/// `agreement …`
pub async fn agreement(home: &Path, command: Agreement, out: &Output) -> anyhow::Result<()> {
    let client = &connect(home)?;
    match command {
        Agreement::Import { file } => pending::import(client, &file, out).await?,
        Agreement::Approve { id } => pending::approve(&connect_as(home, STEWARD)?, &id, out).await?,
        Agreement::Payment(args) => super::grounds::payment(home, args, out).await?,
        Agreement::List => {
            let answer = client.get("/v1/agreements").await?;
            out.show(&answer, |agreements| rows(agreements, &["id", "dataset", "side", "peer", "state", "releases"]));
        }
        Agreement::Revoke { id, reason } => {
            let answer =
                client.post(&format!("/v1/agreements/{}/revoke", segment(id.as_str())), &ReasonBody { reason }).await?;
            out.show(&answer, |_| {
                format!("{id} is revoked: nothing leaves under it any more, and the consumer is told")
            });
        }
    }
    Ok(())
}

/// `release …`
pub async fn release(client: &Client, command: Release, out: &Output) -> anyhow::Result<()> {
    let Release::Lift { id } = command;
    let answer = client.post(&format!("/v1/releases/{}/lift", segment(id.as_str())), &json!({})).await?;
    out.show(&answer, |_| format!("{id} is lifted; its count stays spent"));
    Ok(())
}

/// `clock …`
pub async fn clock(client: &Client, command: ClockCommand, out: &Output) -> anyhow::Result<()> {
    let ClockCommand::Accept = command;
    let answer = client.post("/v1/clock/accept", &json!({})).await?;
    out.show(&answer, |_| "the wall clock is accepted; decisions go on".to_owned());
    Ok(())
}

/// `status`
pub async fn status(client: &Client, out: &Output) -> anyhow::Result<()> {
    let answer = client.get("/v1/status").await?;
    out.show(&answer, |status| {
        let mut lines = format!(
            "{} ({})\n  endpoint     {}\n  fingerprint  {}\n  peers {}, offers {}, agreements {}, receipts {}, waiting for a person {}\n  certificate  until {}\n",
            text(status, "did"),
            text(status, "name"),
            text(status, "endpoint"),
            text(status, "fingerprint"),
            text(status, "peers"),
            text(status, "offers"),
            text(status, "agreements"),
            text(status, "receipts"),
            text(status, "pending"),
            text(status, "certificateEnds"),
        );
        if status["approvals"].as_u64().is_some_and(|open| open > 0) {
            let open = text(status, "approvals");
            lines.push_str(&format!("  approvals    {open} asked for (counterseal approval list)\n"));
        }
        for duty in status["overdue"].as_array().into_iter().flatten() {
            let what: Vec<String> =
                duty["overdue"].as_array().into_iter().flatten().filter_map(Value::as_str).map(plain).collect();
            let line = format!("  ! OVERDUE: {} owes {} for {}\n", text(duty, "consumer"), what.join("; "), text(duty, "release"));
            lines.push_str(&alarming(&line));
        }
        if let Some(problem) = status["clock"]["sentence"].as_str() {
            lines.push_str(&alarming(&format!("  ! {problem}\n")));
        }
        if let Some(problem) = status["log"]["behind"]["sentence"].as_str() {
            lines.push_str(&alarming(&format!("  ! {problem}\n")));
        }
        for partner in status["restoring"].as_array().into_iter().flatten() {
            let partner = plain(partner.as_str().unwrap_or_default());
            lines.push_str(&alarming(&format!("  ! restored: nothing is decided with {partner} before it says what it knows (restore accept goes on without)\n")));
        }
        let logs = status["log"]["logs"].as_array().map_or(0, Vec::len);
        if logs > 1 {
            let numbers: Vec<String> = status["log"]["logs"].as_array().into_iter().flatten().map(Value::to_string).collect();
            lines.push_str(&format!("  logs         {} (restored; receipts are counted through all)\n", numbers.join(", ")));
        }
        for witness in status["log"]["witnesses"].as_array().into_iter().flatten() {
            lines.push_str(&format!(
                "  witness      {} has cosigned {} of {} entries\n",
                text(witness, "peer"),
                text(witness, "cosigned"),
                text(&status["log"], "size")
            ));
        }
        for alarm in status["alarms"].as_array().into_iter().flatten() {
            let proven = if alarm["proven"] == true { "" } else { " (unproven)" };
            let line = format!("  ! ALARM {}{proven}: {} [{}]\n", text(alarm, "at"), text(alarm, "sentence"), text(alarm, "code"));
            lines.push_str(&alarming(&line));
        }
        lines
    });
    Ok(())
}

/// `copies`
pub async fn copies(client: &Client, out: &Output) -> anyhow::Result<()> {
    let answer = client.get("/v1/copies").await?;
    out.show(&answer, |copies| rows(copies, &["id", "dataset", "state", "bytes", "agreement"]));
    Ok(())
}
