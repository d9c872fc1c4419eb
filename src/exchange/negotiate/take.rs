//! What peers send: duplicates by `@id`, then the machine, then what follows; one commit.

use std::{net::SocketAddr, sync::Arc};

use serde::Serialize;

use crate::{
    agreement::{Question, decide, principal_of_peer},
    error::Refusal,
    exchange::{
        Exchange, address,
        negotiate::{Step, into_protocol, shown, unreadable},
        retry,
        rows::{NegotiationRow, Seen},
    },
    id::{Did, MessageId, Pid},
    identity::Peer,
    policy::{Action, Verdict},
    protocol::{
        Incoming, NegotiationState, Party, Pids, ProtocolError, check_pids,
        message::{ContractRequest, NegotiationMessage},
        negotiation,
    },
    receipt::{Commit, Kind, read},
};

impl Exchange {
    /// How one of our negotiations stands, to a peer that is its party.
    pub(in crate::exchange) async fn negotiation_for(&self, peer: &Did, pid: &Pid) -> Step {
        let row = read::<NegotiationRow>(&*self.store, &NegotiationRow::key(pid)).await.map_err(unreadable)?;
        let row = row.value.filter(|row| row.peer == *peer).ok_or_else(ProtocolError::not_found)?;
        shown(&row, row.state)
    }

    /// Takes a negotiation message: duplicates by `@id`, then the machine, then what follows; one commit.
    pub(in crate::exchange) async fn take_negotiation(
        &self,
        peer: &Arc<Peer>,
        remote: SocketAddr,
        receiver: Party,
        pid: Option<&Pid>,
        incoming: &Incoming<NegotiationMessage>,
    ) -> Step {
        let step = retry!(self.negotiation_step(peer, remote, receiver, pid, incoming));
        self.post();
        step
    }

    async fn negotiation_step(
        &self,
        peer: &Arc<Peer>,
        remote: SocketAddr,
        receiver: Party,
        pid: Option<&Pid>,
        incoming: &Incoming<NegotiationMessage>,
    ) -> Step {
        if let Some(answer) = self.seen(&peer.did, incoming.id.as_ref()).await? {
            return serde_json::from_value(answer).map_err(|_| ProtocolError::busy("the answer can't be read"));
        }
        let Some(pid) = pid else {
            return match (&incoming.message, receiver) {
                (NegotiationMessage::Request(request), Party::Provider) => {
                    self.begin(peer, remote, incoming.id.as_ref(), request).await
                }
                _ => Err(ProtocolError::bad(
                    "unsolicited-offer",
                    "this version takes no offers that it has not asked for; it requests them from the catalog",
                )),
            };
        };
        let row = read::<NegotiationRow>(&*self.store, &NegotiationRow::key(pid)).await.map_err(unreadable)?;
        let Some(mut found) = row.value.clone().filter(|found| found.peer == peer.did) else {
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
        let outcome = match &incoming.message {
            NegotiationMessage::Agreement(message) => {
                match self.take_agreement(&mut commit, peer, &mut found, message).await {
                    Ok(()) => Ok(()),
                    Err(refusal) if refusal.code.as_str() == crate::exchange::CONFLICT => return Err(refusal.into()),
                    Err(refusal) => {
                        self.end(&mut commit, &mut found, refusal.clone()).await?;
                        self.give_up(&mut commit, &mut found, refusal.clone())?;
                        Err(ProtocolError::from(refusal).with_pids(provider, consumer))
                    }
                }
            }
            NegotiationMessage::Verification(message) => {
                match self.take_verification(&mut commit, peer, &mut found, message).await {
                    Ok(()) => Ok(()),
                    Err(refusal) => {
                        self.end(&mut commit, &mut found, refusal.clone()).await?;
                        self.give_up(&mut commit, &mut found, refusal.clone())?;
                        Err(ProtocolError::from(refusal).with_pids(provider, consumer))
                    }
                }
            }
            NegotiationMessage::Event(_) => {
                self.activate(&mut commit, &found).await?;
                Ok(())
            }
            NegotiationMessage::Termination(message) => {
                self.end(&mut commit, &mut found, message.refusal()).await?;
                Ok(())
            }
            NegotiationMessage::Offer(_) => {
                let refusal = Refusal::new(
                    "counter-offers-unavailable",
                    "this version takes an offer as it was published, or leaves it",
                );
                self.end(&mut commit, &mut found, refusal.clone()).await?;
                self.give_up(&mut commit, &mut found, refusal)?;
                Ok(())
            }
            NegotiationMessage::Request(_) => Ok(()),
        };
        if outcome.is_ok() {
            self.remember(&mut commit, &peer.did, incoming.id.as_ref(), &found.pid, &answer)?;
        }
        commit.put(&row, &found).map_err(|error| ProtocolError::busy(error.to_string()))?;
        self.commit(commit).await.map_err(into_protocol)?;
        outcome.map(|()| answer)
    }

    /// A consumer's first request.
    async fn begin(
        &self,
        peer: &Arc<Peer>,
        remote: SocketAddr,
        id: Option<&MessageId>,
        request: &ContractRequest,
    ) -> Step {
        let by_peer = NegotiationRow::peer_key(&peer.did, &request.consumer_pid);
        let known = read::<Pid>(&*self.store, &by_peer).await.map_err(unreadable)?;
        if let Some(pid) = &known.value {
            return self.negotiation_for(&peer.did, pid).await;
        }
        let Some(callback) = request.counterpart.callback_address() else {
            return Err(ProtocolError::bad("callback-missing", "a first request names a callbackAddress"));
        };
        if !peer.target().allows(callback.as_str()) {
            return Err(ProtocolError::bad(
                "callback-not-pinned",
                format!("`{callback}` is not at the endpoint in your participant statement; answers go nowhere else"),
            ));
        }
        // one answer for what isn't there, isn't yours, and isn't this any more
        let unknown =
            || ProtocolError::bad("offer-unknown", "there is no such offer for you; look at the catalog again");
        let live = self.offers.get(&request.offer.id).ok_or_else(unknown)?;
        let signed = self.discoverable(peer, &live).ok_or_else(unknown)?.clone();
        let offer = &live.row.offer;
        if request.offer.target != offer.dataset.id {
            return Err(unknown());
        }
        if request.offer_sha256 != Some(signed.jws.sha256()) {
            return Err(ProtocolError::bad(
                "offer-superseded",
                "the offer was published anew since, or the request doesn't say which version it means (offerSha256); get the dataset again",
            ));
        }
        let slice = live.slice.as_ref().map_err(|_| unknown())?;
        self.guard.check()?;
        let now = self.clock.now();
        let decision = decide(
            slice,
            &Question {
                action: Action::Negotiate,
                principal: principal_of_peer(peer),
                offer,
                agreement: None,
                purpose: request.purpose.as_deref(),
                address: address(remote),
                application: None,
                now,
            },
        );
        let pid: Pid = self.mint();
        let mut row = NegotiationRow {
            pid: pid.clone(),
            peer_pid: Some(request.consumer_pid.clone()),
            ours: Party::Provider,
            peer: peer.did.clone(),
            callback: callback.as_str().to_owned(),
            state: NegotiationState::Requested,
            offer: signed.jws.clone(),
            offer_id: offer.id.clone(),
            dataset: offer.dataset.id.clone(),
            agreement: None,
            ended: None,
            begun: now,
            moved: now,
        };
        let answer = shown(&row, row.state)?;
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Negotiated, None);
        receipt.consumer = Some(peer.did.clone().into());
        receipt.offer = Some(signed.jws.sha256());
        receipt.action = Some(Action::Negotiate.as_str().to_owned());
        receipt.authentication = Some("mtls".into());
        self.record_decision(&mut commit, &mut receipt, &decision);
        if decision.verdict == Verdict::Allow {
            self.offer_agreement(&mut commit, peer, &mut row, offer, slice, &live.row).map_err(into_protocol)?;
            receipt.agreement = row.agreement.clone();
        } else {
            let refusal =
                decision.reason.unwrap_or_else(|| Refusal::new("policy-no-permit", "the policy did not allow it"));
            receipt.reason = Some(refusal.clone());
            self.give_up(&mut commit, &mut row, refusal)?;
        }
        self.node_receipt(&mut commit, receipt).map_err(into_protocol)?;
        self.remember(&mut commit, &peer.did, id, &pid, &answer)?;
        let busy = |error: serde_json::Error| ProtocolError::busy(error.to_string());
        commit.put(&known, &pid).map_err(busy)?;
        commit.put_new(NegotiationRow::key(&pid), &row).map_err(busy)?;
        self.commit(commit).await.map_err(into_protocol)?;
        Ok(answer)
    }

    // === duplicates ===

    /// The answer that this message got before.
    pub(in crate::exchange) async fn seen(
        &self,
        peer: &Did,
        id: Option<&MessageId>,
    ) -> Result<Option<serde_json::Value>, ProtocolError> {
        let Some(id) = id else { return Ok(None) };
        Ok(read::<Seen>(&*self.store, &Seen::key(peer, id)).await.map_err(unreadable)?.value.map(|seen| seen.answer))
    }

    /// Keeps the answer, in the commit that the message led to; of two racing copies one loses.
    pub(in crate::exchange) fn remember(
        &self,
        commit: &mut Commit,
        peer: &Did,
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
