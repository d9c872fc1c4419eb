//! Inquire: a process that waits for a partner and has not moved for long is asked after, so that an end whose news
//! never arrived is an end here too.

use reqwest::Method;

use crate::{
    error::Refusal,
    exchange::{Exchange, open::Process, retry, rows::About},
    protocol::{
        NegotiationState, TransferState,
        message::{self, ContractNegotiation, TransferProcess},
        outgoing,
    },
    receipt::Commit,
};

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
            let over = match waiting.about {
                About::Negotiation => answer
                    .read(message::read::<ContractNegotiation>)
                    .is_ok_and(|shown| shown.state == NegotiationState::Terminated),
                About::Transfer => answer
                    .read(message::read::<TransferProcess>)
                    .is_ok_and(|shown| matches!(shown.state, TransferState::Terminated | TransferState::Completed)),
                About::Notice => false,
            };
            if over {
                retry!(self.ended_elsewhere(&waiting))?;
            }
        }
        Ok(())
    }

    pub(super) async fn ended_elsewhere(&self, waiting: &Process) -> Result<(), Refusal> {
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
