//! Steps that a person, or a program of theirs, takes in a negotiation.

use crate::{
    error::Refusal,
    exchange::{
        Exchange,
        negotiate::both,
        refuse, retry,
        rows::{NegotiationRow, Proposal},
    },
    id::Pid,
    protocol::{
        Party,
        message::{
            ContractEvent, ContractOffer, ContractRequest, Counterpart, EventType, MessageOffer, NegotiationMessage,
            Rules,
        },
        negotiation,
    },
    receipt::Commit,
};

/// A step of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NegotiationAction {
    /// The provider's offer or counter-offer.
    Offer,
    /// The provider's agreement.
    Agree,
    /// The provider closes: the agreement holds.
    Finalize,
    /// The consumer takes the last offer.
    Accept,
    /// The consumer's counter-offer.
    Request,
    /// The consumer's signature, or consent, to the agreement.
    Verify,
    /// The end, by either.
    Terminate,
}

impl NegotiationAction {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Offer, Self::Agree, Self::Finalize, Self::Accept, Self::Request, Self::Verify, Self::Terminate];

    /// As in the management API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Agree => "agree",
            Self::Finalize => "finalize",
            Self::Accept => "accept",
            Self::Request => "request",
            Self::Verify => "verify",
            Self::Terminate => "terminate",
        }
    }

    /// By its name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }

    const fn event(self) -> negotiation::Event {
        match self {
            Self::Offer => negotiation::Event::Offer,
            Self::Agree => negotiation::Event::Agree,
            Self::Finalize => negotiation::Event::Finalize,
            Self::Accept => negotiation::Event::Accept,
            Self::Request => negotiation::Event::Request,
            Self::Verify => negotiation::Event::Verify,
            Self::Terminate => negotiation::Event::Terminate,
        }
    }

    /// Those that we may take in a negotiation as it stands.
    pub fn legal(row: &NegotiationRow) -> impl Iterator<Item = Self> {
        let (state, ours) = (row.state, row.ours);
        Self::ALL.into_iter().filter(move |action| negotiation::next(Some(state), ours, action.event()).is_ok())
    }
}

impl Exchange {
    /// Takes a step, if the state machine lets us; `reason` goes to the partner with a termination.
    ///
    /// # Errors
    /// `action-illegal`, and whatever the step itself can meet.
    pub async fn act_on_negotiation(&self, pid: &Pid, action: NegotiationAction, reason: &str) -> Result<(), Refusal> {
        let sentence = if reason.is_empty() { "a person declined" } else { reason };
        let why = Refusal::new("declined", sentence.chars().take(500).collect::<String>());
        let done = retry!(self.negotiation_act(pid, action, &why));
        self.post();
        done
    }

    /// Ends a negotiation for a reason of the connector's own.
    pub(in crate::exchange) async fn terminate_negotiation(&self, pid: &Pid, why: &Refusal) -> Result<(), Refusal> {
        let done = retry!(self.negotiation_act(pid, NegotiationAction::Terminate, why));
        self.post();
        done
    }

    async fn negotiation_act(&self, pid: &Pid, action: NegotiationAction, why: &Refusal) -> Result<(), Refusal> {
        let (kept, mut row) = self.negotiation_row(pid).await?;
        let state = negotiation::next(Some(row.state), row.ours, action.event()).map_err(|_| {
            let legal: Vec<&str> = NegotiationAction::legal(&row).map(NegotiationAction::as_str).collect();
            Refusal::new(
                "action-illegal",
                format!(
                    "`{}` is not possible in {} for the {}; possible: {}",
                    action.as_str(),
                    row.state.as_str(),
                    row.ours,
                    if legal.is_empty() { "nothing".into() } else { legal.join(", ") }
                ),
            )
        })?;
        let partner = self.partner(&row.peer)?;
        row.moved = self.clock.now();
        let mut commit = Commit::new();
        if action == NegotiationAction::Terminate {
            self.end(&mut commit, &mut row, why.clone()).await?;
            self.give_up(&mut commit, &mut row, why.clone())?;
            self.keep_negotiation(&mut commit, &kept, &row)?;
            return self.commit(commit).await.map(|_| ());
        }
        let (consumer_pid, provider_pid) = both(&row)?;
        match action {
            NegotiationAction::Terminate => {}
            NegotiationAction::Offer => {
                row.state = state;
                let message = NegotiationMessage::Offer(ContractOffer {
                    provider_pid,
                    counterpart: Counterpart::Known(consumer_pid),
                    offer: self.own_terms(&row)?,
                    offer_sha256: row.offer.as_ref().map(crate::crypto::jws::Jws::sha256),
                });
                self.say(&mut commit, &row, message, false)?;
            }
            NegotiationAction::Agree => self.agree_again(&mut commit, &partner, &mut row).await?,
            NegotiationAction::Finalize => self.finalize(&mut commit, &mut row).await?,
            NegotiationAction::Accept => {
                row.state = state;
                let event = ContractEvent { provider_pid, consumer_pid, event_type: EventType::Accepted };
                self.say(&mut commit, &row, NegotiationMessage::Event(event), false)?;
            }
            NegotiationAction::Request => {
                row.state = state;
                // the offer that was asked for at first, once more
                let rules = match row.proposed.take() {
                    Some(Proposal::Offer(offer)) => offer.rules,
                    _ => Rules::permit("use"),
                };
                let message = NegotiationMessage::Request(ContractRequest {
                    consumer_pid,
                    counterpart: Counterpart::Known(provider_pid),
                    offer: MessageOffer {
                        id: row.offer_id.clone(),
                        target: row.dataset.clone(),
                        assigner: Some(row.peer.clone()),
                        assignee: Some(self.us.clone().into()),
                        rules,
                    },
                    offer_sha256: row.offer.as_ref().map(crate::crypto::jws::Jws::sha256),
                    purpose: None,
                });
                self.say(&mut commit, &row, message, false)?;
            }
            NegotiationAction::Verify => {
                let Some(Proposal::Agreement(message)) = row.proposed.take() else {
                    return Err(Refusal::new("agreement-unknown", "there is no agreement to verify"));
                };
                self.take_agreement(&mut commit, &partner, &mut row, &message).await?;
            }
        }
        self.keep_negotiation(&mut commit, &kept, &row)?;
        self.commit(commit).await.map(|_| ())
    }

    /// Our offer's terms as a message has them.
    fn own_terms(&self, row: &NegotiationRow) -> Result<MessageOffer, Refusal> {
        let live = self.live_offer(row)?;
        Ok(MessageOffer {
            id: row.offer_id.clone(),
            target: row.dataset.clone(),
            assigner: Some(self.us.clone().into()),
            assignee: Some(row.peer.clone()),
            rules: Rules::from_odrl(&live.row.offer.policy.odrl).map_err(refuse("policy-unusable"))?,
        })
    }

    /// The offer that a negotiation of ours as provider is about, if it still stands as it was asked for.
    pub(super) fn live_offer(&self, row: &NegotiationRow) -> Result<std::sync::Arc<crate::offer::LiveOffer>, Refusal> {
        let gone = || {
            Refusal::new(
                "offer-superseded",
                "the offer was withdrawn or published anew since this negotiation began; the consumer has to ask again",
            )
        };
        let live = self.offers.get(&row.offer_id).filter(|live| live.row.withdrawn.is_none()).ok_or_else(gone)?;
        let stands = row.ours == Party::Provider
            && live.row.signed.iter().any(|signed| Some(&signed.jws) == row.offer.as_ref())
            && live.row.offer.stands_at(self.clock.now());
        if stands { Ok(live) } else { Err(gone()) }
    }
}
