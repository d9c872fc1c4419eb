//! What partners send: duplicates by `@id`, then the machine, then what follows; one commit.

use std::net::SocketAddr;

use serde::Serialize;

use crate::{
    error::Refusal,
    exchange::{
        Exchange, address,
        negotiate::{Step, into_protocol, shown, unreadable},
        retry,
        rows::{AskedWith, NegotiationRow, Proposal, Seen},
    },
    id::{MessageId, ParticipantId, Pid},
    identity::Partner,
    offer::Approval,
    policy::{Action, Verdict},
    protocol::{
        Incoming, NegotiationState, Party, Pids, ProtocolError, check_pids,
        message::{ContractRequest, EventType, NegotiationMessage},
        negotiation,
    },
    receipt::{Commit, Kind, read},
};

impl Exchange {
    /// How one of our negotiations stands, to a partner that is its party.
    pub(in crate::exchange) async fn negotiation_for(&self, peer: &ParticipantId, pid: &Pid) -> Step {
        let row = read::<NegotiationRow>(&*self.store, &NegotiationRow::key(pid)).await.map_err(unreadable)?;
        let row = row.value.filter(|row| row.peer == *peer).ok_or_else(ProtocolError::not_found)?;
        shown(&row, row.state)
    }

    /// Takes a negotiation message: duplicates by `@id`, then the machine, then what follows; one commit.
    pub(in crate::exchange) async fn take_negotiation(
        &self,
        partner: &Partner,
        remote: SocketAddr,
        receiver: Party,
        pid: Option<&Pid>,
        incoming: &Incoming<NegotiationMessage>,
    ) -> Step {
        let step = retry!(self.negotiation_step(partner, remote, receiver, pid, incoming));
        self.post();
        step
    }

    async fn negotiation_step(
        &self,
        partner: &Partner,
        remote: SocketAddr,
        receiver: Party,
        pid: Option<&Pid>,
        incoming: &Incoming<NegotiationMessage>,
    ) -> Step {
        let peer = partner.id();
        if let Some(answer) = self.seen(&peer, incoming.id.as_ref()).await? {
            return serde_json::from_value(answer).map_err(|_| ProtocolError::busy("the answer can't be read"));
        }
        let Some(pid) = pid else {
            return match (&incoming.message, receiver) {
                (NegotiationMessage::Request(request), Party::Provider) => {
                    self.begin(partner, remote, incoming.id.as_ref(), request).await
                }
                _ => Err(ProtocolError::bad(
                    "unsolicited-offer",
                    "this version takes no offers that it has not asked for; it requests them from the catalog",
                )),
            };
        };
        let row = read::<NegotiationRow>(&*self.store, &NegotiationRow::key(pid)).await.map_err(unreadable)?;
        let Some(mut found) = row.value.clone().filter(|found| found.peer == peer) else {
            return Err(ProtocolError::not_found());
        };
        let pids = incoming.message.pids();
        let (consumer, provider) = found.pids();
        check_pids(pids, Pids { provider: provider.as_ref(), consumer: consumer.as_ref() })?;
        let named = |error: ProtocolError| error.with_pids(provider.clone(), consumer.clone());
        if found.ours != receiver {
            return Err(named(ProtocolError::illegal(format!(
                "this message addresses the {receiver} of the negotiation, which we are not"
            ))));
        }
        let sender = receiver.other();
        found.state = negotiation::next(Some(found.state), sender, incoming.message.event())
            .map_err(|illegal| named(illegal.into()))?;
        if found.peer_pid.is_none() {
            found.peer_pid = match sender {
                Party::Provider => pids.provider.cloned(),
                Party::Consumer => pids.consumer.cloned(),
            };
        }
        found.moved = self.clock.now();
        let mut commit = Commit::new();
        // the answer shows the state that the message led to, whatever follows from it in the same commit
        let answer = shown(&found, found.state)?;
        let outcome = match self.follow(&mut commit, partner, &mut found, &incoming.message).await {
            Ok(()) => {
                self.remember(&mut commit, &peer, incoming.id.as_ref(), &found.pid, &answer)?;
                Ok(answer)
            }
            Err(refusal) if refusal.is(crate::exchange::CONFLICT) => return Err(refusal.into()),
            // what the message holds can't be taken: that ends the negotiation
            Err(refusal) => {
                self.end(&mut commit, &mut found, refusal.clone()).await?;
                self.give_up(&mut commit, &mut found, refusal.clone())?;
                Err(named(refusal.into()))
            }
        };
        self.keep_negotiation(&mut commit, &row, &found)?;
        self.commit(commit).await.map_err(into_protocol)?;
        outcome
    }

    /// What we do upon a message that the machine took: our own next step, or nothing where a person takes it.
    async fn follow(
        &self,
        commit: &mut Commit,
        partner: &Partner,
        row: &mut NegotiationRow,
        message: &NegotiationMessage,
    ) -> Result<(), Refusal> {
        let manual = row.approval == Approval::Manual;
        match message {
            // a counter-offer is a person's to weigh, on either side
            NegotiationMessage::Offer(message) => row.proposed = Some(Proposal::Offer(message.offer.clone())),
            NegotiationMessage::Request(_) => {}
            NegotiationMessage::Agreement(message) if manual => {
                row.proposed = Some(Proposal::Agreement(Box::new(message.clone())));
            }
            NegotiationMessage::Agreement(message) => {
                row.proposed = None;
                self.take_agreement(commit, partner, row, message).await?;
            }
            NegotiationMessage::Verification(message) => {
                let (kept, agreement) = self.take_verification(commit, partner, row, message).await?;
                if manual {
                    commit.put(&kept, &agreement).map_err(crate::exchange::refuse("internal"))?;
                } else {
                    self.finalize_with(commit, row, kept, agreement)?;
                }
            }
            NegotiationMessage::Event(event) => match event.event_type {
                EventType::Finalized => self.activate(commit, row).await?,
                EventType::Accepted if manual => {}
                EventType::Accepted => self.agree_again(commit, partner, row).await?,
            },
            NegotiationMessage::Termination(message) => self.end(commit, row, message.refusal()).await?,
        }
        Ok(())
    }

    /// A consumer's first request.
    async fn begin(
        &self,
        partner: &Partner,
        remote: SocketAddr,
        id: Option<&MessageId>,
        request: &ContractRequest,
    ) -> Step {
        let peer = partner.id();
        let by_peer = NegotiationRow::peer_key(&peer, &request.consumer_pid);
        let known = read::<Pid>(&*self.store, &by_peer).await.map_err(unreadable)?;
        if let Some(pid) = &known.value {
            return self.negotiation_for(&peer, pid).await;
        }
        let Some(callback) = request.counterpart.callback_address() else {
            return Err(ProtocolError::bad("callback-missing", "a first request names a callbackAddress"));
        };
        if !partner.target().allows(callback.as_str()) {
            return Err(ProtocolError::bad(
                "callback-not-pinned",
                format!("`{callback}` is not at the address that is known of you; answers go nowhere else"),
            ));
        }
        // one answer for what isn't there, isn't yours, and isn't this any more
        let unknown =
            || ProtocolError::bad("offer-unknown", "there is no such offer for you; look at the catalog again");
        let live = self.offers.get(&request.offer.id).ok_or_else(unknown)?;
        let signed = self.discoverable(partner, &live).ok_or_else(unknown)?.clone();
        let offer = &live.row.offer;
        if request.offer.target != offer.dataset.id {
            return Err(unknown());
        }
        // a foreign connector can't say which version it means: it takes the one that stands
        let same_version = request.offer_sha256 == Some(signed.jws.sha256())
            || request.offer_sha256.is_none() && partner.certificate().is_none();
        if !same_version {
            return Err(ProtocolError::bad(
                "offer-superseded",
                "the offer was published anew since, or the request doesn't say which version it means (offerSha256); get the dataset again",
            ));
        }
        let slice = live.slice.as_ref().map_err(|_| unknown())?;
        self.may_decide()?;
        let now = self.clock.now();
        let decision = self.decide_negotiation(partner, &live, slice, request.purpose.as_deref(), address(remote));
        let mut row = NegotiationRow {
            pid: self.mint(),
            peer_pid: Some(request.consumer_pid.clone()),
            ours: Party::Provider,
            peer: peer.clone(),
            callback: callback.as_str().to_owned(),
            state: NegotiationState::Requested,
            offer: Some(signed.jws.clone()),
            offer_id: offer.id.clone(),
            dataset: offer.dataset.id.clone(),
            approval: offer.approval,
            proposed: None,
            agreement: None,
            ended: None,
            begun: now,
            moved: now,
        };
        let answer = shown(&row, row.state)?;
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Negotiated, None);
        receipt.consumer = Some(peer.clone());
        receipt.offer = Some(signed.jws.sha256());
        receipt.action = Some(Action::Negotiate.as_str().to_owned());
        receipt.authentication = Some(partner.authentication().into());
        receipt.one_sided = partner.certificate().is_none();
        self.record_decision(&mut commit, &mut receipt, &decision);
        if decision.verdict != Verdict::Allow {
            let refusal =
                decision.reason.unwrap_or_else(|| Refusal::new("policy-no-permit", "the policy did not allow it"));
            receipt.reason = Some(refusal.clone());
            self.give_up(&mut commit, &mut row, refusal)?;
        } else if row.approval == Approval::Auto {
            self.offer_agreement(&mut commit, partner, &mut row, &live.row, slice).map_err(into_protocol)?;
            receipt.agreement = row.agreement.clone();
        }
        self.node_receipt(&mut commit, receipt).map_err(into_protocol)?;
        self.remember(&mut commit, &peer, id, &row.pid, &answer)?;
        commit.put(&known, &row.pid).map_err(|error| ProtocolError::busy(error.to_string()))?;
        self.begin_negotiation(&mut commit, &row)?;
        let asked = AskedWith { remote: address(remote), purpose: request.purpose.clone() };
        let asked = serde_json::to_vec(&asked).map_err(|error| ProtocolError::busy(error.to_string()))?;
        commit.content(AskedWith::key(&row.pid), asked);
        self.commit(commit).await.map_err(into_protocol)?;
        Ok(answer)
    }

    // === duplicates ===

    /// The answer that this message got before.
    pub(in crate::exchange) async fn seen(
        &self,
        peer: &ParticipantId,
        id: Option<&MessageId>,
    ) -> Result<Option<serde_json::Value>, ProtocolError> {
        let Some(id) = id else { return Ok(None) };
        Ok(read::<Seen>(&*self.store, &Seen::key(peer, id)).await.map_err(unreadable)?.value.map(|seen| seen.answer))
    }

    /// Keeps the answer, in the commit that the message led to; of two racing copies one loses.
    pub(in crate::exchange) fn remember(
        &self,
        commit: &mut Commit,
        peer: &ParticipantId,
        id: Option<&MessageId>,
        process: &Pid,
        answer: &impl Serialize,
    ) -> Result<(), ProtocolError> {
        let Some(id) = id else { return Ok(()) };
        let busy = |error: serde_json::Error| ProtocolError::busy(error.to_string());
        let seen = Seen { process: process.clone(), answer: serde_json::to_value(answer).map_err(busy)? };
        commit.put_new(Seen::key(peer, id), &seen).map_err(busy)
    }
}
