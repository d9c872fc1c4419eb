//! Inquire: a process that waits for a partner and has not moved for long is asked after, so that an end whose news
//! never arrived is an end here too.

use reqwest::Method;

use crate::{
    error::Refusal,
    exchange::{Exchange, open::Process, retry, rows::About},
    id::Pid,
    protocol::{
        NegotiationState, Party,
        message::{self, ContractNegotiation, TransferProcess},
        outgoing,
    },
    receipt::Commit,
};

/// How a partner shows a process that waits here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    Waits,
    Ended,
    Finalized,
}

impl Exchange {
    /// Asks after every process that has not moved for as long as a message of ours would be tried.
    pub async fn inquire(&self) -> Result<(), Refusal> {
        let now = self.clock.now();
        let long = self.config.give_up_after();
        for waiting in self.open_processes.that(|process| now.since(process.moved) >= long) {
            let Some(theirs) = &waiting.peer_pid else { continue };
            let path = match waiting.about {
                About::Negotiation => outgoing::negotiation_path(theirs),
                _ => outgoing::transfer_path(theirs),
            };
            let url = format!("{}{path}", waiting.callback);
            let Ok(partner) = self.partner(&waiting.peer) else { continue };
            let Ok(answer) = self.ask_partner(&partner, Method::GET, &url, None).await else { continue };
            let shown = match waiting.about {
                About::Negotiation => answer
                    .read(message::read::<ContractNegotiation>)
                    .map(|shown| match shown.state {
                        NegotiationState::Terminated => Elsewhere::Ended,
                        NegotiationState::Finalized => Elsewhere::Finalized,
                        _ => Elsewhere::Waits,
                    })
                    .unwrap_or(Elsewhere::Waits),
                About::Transfer => answer
                    .read(message::read::<TransferProcess>)
                    .map(|shown| if shown.state.is_final() { Elsewhere::Ended } else { Elsewhere::Waits })
                    .unwrap_or(Elsewhere::Waits),
                About::Notice => Elsewhere::Waits,
            };
            retry!(self.take_word(&waiting, shown))?;
        }
        Ok(())
    }

    /// Does what follows from how the partner shows a process.
    pub(super) async fn take_word(&self, waiting: &Process, shown: Elsewhere) -> Result<(), Refusal> {
        match shown {
            Elsewhere::Waits => Ok(()),
            Elsewhere::Ended => self.ended_elsewhere(waiting).await,
            Elsewhere::Finalized => self.finalized_elsewhere(&waiting.pid).await,
        }
    }

    /// The provider has closed, and the news never arrived: what both have signed is in force.
    async fn finalized_elsewhere(&self, pid: &Pid) -> Result<(), Refusal> {
        let (kept, mut row) = self.negotiation_row(pid).await?;
        if row.ours != Party::Consumer || row.state != NegotiationState::Verified {
            return Ok(());
        }
        row.state = NegotiationState::Finalized;
        row.moved = self.clock.now();
        let mut commit = Commit::new();
        self.activate(&mut commit, &row).await?;
        self.keep_negotiation(&mut commit, &kept, &row)?;
        self.commit(commit).await.map(|_| ())
    }

    async fn ended_elsewhere(&self, waiting: &Process) -> Result<(), Refusal> {
        let why = Refusal::new(
            "ended-elsewhere",
            "the partner's connector shows this process as ended; the message that gave its reason never arrived",
        );
        let mut commit = Commit::new();
        match waiting.about {
            About::Negotiation => self.negotiation_undeliverable(&mut commit, &waiting.pid, why).await?,
            About::Transfer => self.transfer_undeliverable(&mut commit, &waiting.pid, why).await?,
            About::Notice => {}
        }
        self.commit(commit).await.map(|_| ())
    }
}
