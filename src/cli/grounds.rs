//! `counterseal approver|approval|consent|second-factor|duty …`, `agreement payment`: what people put on record so that a
//! request may be granted, and what is owed afterwards.

use std::{
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    api::ReasonBody,
    cli::{
        client::{Client, connect, connect_as, connect_with, segment},
        output::{Output, alarming, plain, rows, text},
    },
    exchange::{ConsentBody, Enrolment, NewApprover, PaymentBody},
    id::{AgreementId, DatasetId, ParticipantId},
    node::STEWARD,
    time::Timestamp,
};

/// Who may approve, each with a token of their own.
#[derive(Debug, Subcommand)]
pub enum ApproverCommand {
    /// Name an approver (a steward's act); their token goes into a file, and is kept nowhere else.
    #[command(after_help = "Example:\n  counterseal approver add dr-li --role ethics_board --token-out dr-li.token")]
    Add {
        /// Their name.
        name: String,
        /// A role, as policies name it in approve(…); may be repeated.
        #[arg(long, required = true)]
        role: Vec<String>,
        /// The participant that they belong to, if it is not ours: they can't approve what it asks for.
        #[arg(long)]
        participant: Option<ParticipantId>,
        /// Where the token goes: a new file, readable by you alone.
        #[arg(long)]
        token_out: PathBuf,
    },
    /// Show them.
    List,
    /// Take an approver's token away (a steward's act).
    Remove {
        /// Their name.
        name: String,
    },
}

/// Requests that wait for an approval.
#[derive(Debug, Subcommand)]
pub enum ApprovalCommand {
    /// Show them: who asks, for what, and what would be done to the data.
    #[command(after_help = "Example:\n  counterseal approval list --token-file dr-li.token")]
    List {
        /// The approver's token; without one, all are shown to the operator.
        #[arg(long)]
        token_file: Option<PathBuf>,
    },
    /// Approve one: exactly what is shown, once.
    #[command(after_help = "Example:\n  counterseal approval grant urn:uuid:… --token-file dr-li.token")]
    Grant {
        /// Which.
        id: String,
        /// The approver's token.
        #[arg(long)]
        token_file: PathBuf,
    },
    /// Refuse one.
    #[command(
        after_help = "Example:\n  counterseal approval refuse urn:uuid:… --reason \"another matter\" --token-file dr-li.token"
    )]
    Refuse {
        /// Which.
        id: String,
        /// Why; the one who asked reads it.
        #[arg(long)]
        reason: String,
        /// The approver's token.
        #[arg(long)]
        token_file: PathBuf,
    },
}

/// Consents of the persons that data is about.
#[derive(Debug, Subcommand)]
pub enum ConsentCommand {
    /// Put one on record (a steward's act).
    #[command(
        after_help = "Example:\n  counterseal consent record credit-check --participant did:web:bank.hk --dataset credit-ref --reference archive/2026/117"
    )]
    Record {
        #[command(flatten)]
        consent: Consent,
        /// Where the consent itself is kept.
        #[arg(long)]
        reference: String,
        /// Until when it holds, as in 2027-01-01T00:00:00+08:00.
        #[arg(long, value_parser = Timestamp::parse)]
        until: Option<Timestamp>,
    },
    /// It is withdrawn: agreements whose policies ask for it are revoked, at once.
    #[command(
        after_help = "Example:\n  counterseal consent withdraw credit-check --participant did:web:bank.hk --dataset credit-ref"
    )]
    Withdraw {
        #[command(flatten)]
        consent: Consent,
    },
    /// Show those on record.
    List,
}

/// Which consent.
#[derive(Debug, Args)]
pub struct Consent {
    /// Its name, as policies ask for it in consent(…).
    name: String,
    /// To whom the data may be given.
    #[arg(long)]
    participant: ParticipantId,
    /// Which dataset.
    #[arg(long)]
    dataset: DatasetId,
}

/// Second factors of acting persons.
#[derive(Debug, Subcommand)]
pub enum SecondFactorCommand {
    /// Enrol a person (a steward's act): the URI is for their authenticator app, and is shown once.
    #[command(after_help = "Example:\n  counterseal second-factor enrol wang --participant did:web:research.invalid")]
    Enrol {
        /// The person.
        person: String,
        /// Whose person: a partner, or ourselves.
        #[arg(long)]
        participant: ParticipantId,
    },
    /// Take a person's second factor away (a steward's act).
    Remove {
        /// The person.
        person: String,
        /// Whose person.
        #[arg(long)]
        participant: ParticipantId,
    },
}

/// What is owed after releases.
#[derive(Debug, Subcommand)]
pub enum DutyCommand {
    /// Show it: what, when it is due, and what is overdue.
    List,
}

/// `agreement payment`
#[derive(Debug, Args)]
pub struct PaymentArgs {
    /// For which agreement.
    pub id: AgreementId,
    /// How much, as in 100.00.
    #[arg(long)]
    pub amount: String,
    /// In which currency.
    #[arg(long, default_value = "CNY")]
    pub currency: String,
    /// The payment's reference.
    #[arg(long)]
    pub reference: String,
}

/// `approver …`
pub async fn approver(home: &Path, command: ApproverCommand, out: &Output) -> anyhow::Result<()> {
    match command {
        ApproverCommand::Add { name, role, participant, token_out } => {
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&token_out)
                .with_context(|| format!("{}: the token goes into a new file", token_out.display()))?;
            let body = NewApprover { name, roles: role.into_iter().collect(), participant };
            let made = connect_as(home, STEWARD)?.post("/v1/approvers", &body).await;
            let answer = match made {
                Ok(answer) => answer,
                Err(error) => {
                    let _ = std::fs::remove_file(&token_out);
                    return Err(error);
                }
            };
            writeln!(file, "{}", answer["token"].as_str().unwrap_or_default())?;
            file.sync_all()?;
            let shown = json!({ "name": body.name, "roles": body.roles, "tokenFile": token_out });
            out.show(&shown, |_| {
                format!("{} may approve as {}; the token is in {}", body.name, listed(&body.roles), token_out.display())
            });
        }
        ApproverCommand::List => {
            let answer = connect(home)?.get("/v1/approvers").await?;
            out.show(&answer, |approvers| rows(approvers, &["name", "roles", "participant"]));
        }
        ApproverCommand::Remove { name } => {
            let path = format!("/v1/approvers/{}/remove", segment(&name));
            let answer = connect_as(home, STEWARD)?.post(&path, &json!({})).await?;
            out.show(&answer, |_| format!("{name} may no longer approve"));
        }
    }
    Ok(())
}

/// `approval …`
pub async fn approval(home: &Path, command: ApprovalCommand, out: &Output) -> anyhow::Result<()> {
    match command {
        ApprovalCommand::List { token_file } => {
            let client = match token_file {
                Some(file) => connect_with(home, &file)?,
                None => connect(home)?,
            };
            let answer = client.get("/v1/approvals").await?;
            out.show(&answer, |approvals| {
                let shown = approvals.as_array().into_iter().flatten().map(|approval| {
                    let object = &approval["object"];
                    format!(
                        "{}  {} [{}]\n  {} asks to {} `{}` for \"{}\"\n  under {}, until {}\n  what is done to the data: {}\n",
                        text(approval, "id"),
                        text(&approval["state"], "state"),
                        text(approval, "role"),
                        text(object, "principal"),
                        text(object, "action"),
                        text(object, "dataset"),
                        text(object, "purpose"),
                        text(object, "agreement"),
                        text(approval, "until"),
                        plain(&object["obligations"].to_string()),
                    )
                });
                let shown: String = shown.collect();
                if shown.is_empty() { "nothing waits for an approval".to_owned() } else { shown }
            });
        }
        ApprovalCommand::Grant { id, token_file } => {
            let path = format!("/v1/approvals/{}/grant", segment(&id));
            let answer = connect_with(home, &token_file)?.post(&path, &json!({})).await?;
            out.show(&answer, |_| "approved, once, for exactly this request; it goes on when it is made again".into());
        }
        ApprovalCommand::Refuse { id, reason, token_file } => {
            let path = format!("/v1/approvals/{}/refuse", segment(&id));
            let answer = connect_with(home, &token_file)?.post(&path, &ReasonBody { reason }).await?;
            out.show(&answer, |_| "refused; the one who asked is told why".into());
        }
    }
    Ok(())
}

/// `consent …`
pub async fn consent(home: &Path, command: ConsentCommand, out: &Output) -> anyhow::Result<()> {
    let body = |consent: Consent, reference: String, until| ConsentBody {
        name: consent.name,
        participant: consent.participant,
        dataset: consent.dataset,
        reference,
        until,
    };
    match command {
        ConsentCommand::Record { consent, reference, until } => {
            let answer = connect_as(home, STEWARD)?.post("/v1/consents", &body(consent, reference, until)).await?;
            out.show(&answer, |consent| format!("the consent `{}` is on record", text(consent, "name")));
        }
        ConsentCommand::Withdraw { consent } => {
            let answer = connect(home)?.post("/v1/consents/withdraw", &body(consent, String::new(), None)).await?;
            out.show(&answer, |answer| {
                let revoked = answer["revoked"].as_array().map_or(0, Vec::len);
                format!(
                    "the consent `{}` is withdrawn; {revoked} agreement(s) rested on it and are revoked",
                    text(answer, "name")
                )
            });
        }
        ConsentCommand::List => {
            let answer = connect(home)?.get("/v1/consents").await?;
            out.show(&answer, |consents| {
                rows(consents, &["name", "participant", "dataset", "reference", "recorded", "until", "withdrawn"])
            });
        }
    }
    Ok(())
}

/// `second-factor …`
pub async fn second_factor(home: &Path, command: SecondFactorCommand, out: &Output) -> anyhow::Result<()> {
    let (person, participant) = match command {
        SecondFactorCommand::Enrol { person, participant } => (person, participant),
        SecondFactorCommand::Remove { person, participant } => {
            let body = Enrolment { participant, person };
            let answer = connect_as(home, STEWARD)?.post("/v1/second-factors/remove", &body).await?;
            out.show(&answer, |answer| format!("{} has no second factor any more", text(answer, "person")));
            return Ok(());
        }
    };
    let answer = connect_as(home, STEWARD)?.post("/v1/second-factors", &Enrolment { participant, person }).await?;
    out.show(&answer, |answer| {
        format!(
            "{} is enrolled. For the authenticator app, shown once:\n{}",
            text(answer, "person"),
            text(answer, "uri")
        )
    });
    Ok(())
}

/// `duty …`
pub async fn duty(client: &Client, command: DutyCommand, out: &Output) -> anyhow::Result<()> {
    let DutyCommand::List = command;
    let answer = client.get("/v1/duties").await?;
    out.show(&answer, |duties| {
        let mut lines = String::new();
        for duty in duties.as_array().into_iter().flatten() {
            let strings = |member: &str| {
                let listed = duty[member].as_array().into_iter().flatten().filter_map(|one| one.as_str());
                listed.map(plain).collect::<Vec<_>>().join("; ")
            };
            let when = |member: &str, word: &str| match duty[member].as_str() {
                Some(at) => format!(", {word} {}", plain(at)),
                None => String::new(),
            };
            lines.push_str(&format!(
                "{}  {} owes: {}{}{}{}{}\n",
                text(duty, "release"),
                text(duty, "consumer"),
                strings("duties"),
                when("deleteBy", "delete by"),
                when("deleted", "deleted"),
                when("reportBy", "report by"),
                when("reported", "reported"),
            ));
            if duty["overdue"].as_array().is_some_and(|overdue| !overdue.is_empty()) {
                lines.push_str(&alarming(&format!("  ! overdue: {}\n", strings("overdue"))));
            }
        }
        if lines.is_empty() { "nothing is owed".to_owned() } else { lines }
    });
    Ok(())
}

/// `agreement payment`
pub async fn payment(home: &Path, args: PaymentArgs, out: &Output) -> anyhow::Result<()> {
    let path = format!("/v1/agreements/{}/payment", segment(args.id.as_str()));
    let body = PaymentBody { amount: args.amount, currency: args.currency, reference: args.reference };
    let answer = connect_as(home, STEWARD)?.post(&path, &body).await?;
    out.show(&answer, |_| format!("a payment of {} {} for {} is on record", body.amount, body.currency, args.id));
    Ok(())
}

fn listed(roles: &std::collections::BTreeSet<String>) -> String {
    roles.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
