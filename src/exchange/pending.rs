//! Pending actions: steps that wait for a person, or a program of theirs. They are read off the processes themselves, so
//! that a restart loses none, and no list can disagree with the states.

use std::str::FromStr as _;

use serde::Serialize;

use crate::{
    error::Refusal,
    exchange::{Exchange, negotiate::NegotiationAction, open::Process, retry, rows::About, transfer::TransferAction},
    id::{AgreementId, DatasetId, OfferId, ParticipantId, Pid},
    protocol::Party,
    receipt::Commit,
    time::Timestamp,
};

/// A step that waits.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// `negotiation` or `transfer`.
    pub process: About,
    /// Our pid.
    pub pid: Pid,
    /// The side that we are on.
    pub role: Party,
    /// Where it stands.
    pub state: &'static str,
    /// The partner.
    pub peer: ParticipantId,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetId>,
    /// In which offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<OfferId>,
    /// Under which agreement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<AgreementId>,
    /// What may be done.
    pub actions: Vec<&'static str>,
    /// Since when it waits.
    pub since: Timestamp,
    /// When it ends by itself.
    pub deadline: Timestamp,
}

impl Exchange {
    /// All steps that wait for a person, the longest waiting first.
    pub async fn pending(&self) -> Result<Vec<Pending>, Refusal> {
        let mut pending = Vec::new();
        for process in self.open_processes.that(|process| process.our_turn) {
            pending.extend(self.pending_step(&process).await?);
        }
        Ok(pending)
    }

    async fn pending_step(&self, process: &Process) -> Result<Option<Pending>, Refusal> {
        let deadline = process.moved.plus(self.config.approval_deadline());
        Ok(match process.about {
            About::Negotiation => {
                let (_, row) = self.negotiation_row(&process.pid).await?;
                // it may have moved on meanwhile
                row.our_turn().then(|| Pending {
                    process: About::Negotiation,
                    role: row.ours,
                    state: row.state.as_str(),
                    actions: NegotiationAction::legal(&row).map(NegotiationAction::as_str).collect(),
                    pid: row.pid,
                    peer: row.peer,
                    dataset: Some(row.dataset),
                    offer: Some(row.offer_id),
                    agreement: row.agreement,
                    since: row.moved,
                    deadline,
                })
            }
            About::Transfer => {
                let (_, row) = self.transfer_row(&process.pid).await?;
                row.our_turn().then(|| Pending {
                    process: About::Transfer,
                    role: row.ours,
                    state: row.state.as_str(),
                    actions: TransferAction::legal(&row).map(TransferAction::as_str).collect(),
                    pid: row.pid,
                    peer: row.peer,
                    dataset: None,
                    offer: None,
                    agreement: Some(row.agreement),
                    since: row.moved,
                    deadline,
                })
            }
            About::Notice => None,
        })
    }

    /// Ends what has waited for too long, for a person here or for the partner, and says so on both sides.
    pub async fn expire_pending(&self) -> Result<(), Refusal> {
        let (now, patience) = (self.clock.now(), self.config.approval_deadline());
        for process in self.open_processes.that(|process| process.waits && now.since(process.moved) >= patience) {
            let why = if process.our_turn {
                Refusal::new("approval-expired", "nobody decided within the time that the operator has set")
            } else {
                Refusal::new("partner-silent", "the partner took no step within the time that our operator has set")
            };
            let ended = match process.about {
                About::Negotiation => self.terminate_negotiation(&process.pid, &why).await,
                _ => self.end_transfer(&process.pid, &why).await,
            };
            if let Err(refusal) = ended {
                tracing::error!(pid = %process.pid, %refusal, "what waited for too long could not be ended");
            }
        }
        Ok(())
    }

    /// Ends a transfer for a reason of the connector's own.
    pub(super) async fn end_transfer(&self, pid: &Pid, why: &Refusal) -> Result<(), Refusal> {
        let done = retry!(self.end_transfer_once(pid, why));
        self.post();
        done
    }

    async fn end_transfer_once(&self, pid: &Pid, why: &Refusal) -> Result<(), Refusal> {
        let mut commit = Commit::new();
        self.terminate_transfer(&mut commit, pid, why).await?;
        self.commit(commit).await.map(|_| ())
    }

    /// Takes a step by its name, of whichever kind the process is.
    ///
    /// # Errors
    /// `action-unknown`, `action-illegal`, `pid-unknown`, and what the step can meet.
    pub async fn act(&self, about: About, pid: &str, action: &str, reason: &str) -> Result<(), Refusal> {
        let pid = Pid::from_str(pid).map_err(|error| Refusal::new("id-invalid", error.to_string()))?;
        let unknown = |known: Vec<&str>| {
            Refusal::new("action-unknown", format!("`{action}` is no step; known are {}", known.join(", ")))
        };
        match about {
            About::Negotiation => {
                let known = || NegotiationAction::ALL.into_iter().map(NegotiationAction::as_str).collect();
                let action = NegotiationAction::parse(action).ok_or_else(|| unknown(known()))?;
                self.act_on_negotiation(&pid, action, reason).await
            }
            _ => {
                let known = || TransferAction::ALL.into_iter().map(TransferAction::as_str).collect();
                let action = TransferAction::parse(action).ok_or_else(|| unknown(known()))?;
                self.act_on_transfer(&pid, action, reason).await
            }
        }
    }
}
