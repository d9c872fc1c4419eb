//! Negotiate: from a request to an agreement that both signed.
//!
//! ```text
//!   consumer                                provider
//!   ContractRequest ──────────────────────▶ decide (negotiate), make and sign the agreement
//!   verify, sign it ◀────────────────────── ContractAgreement (agreementJws, series secret sealed to us)
//!   ContractAgreementVerification ────────▶ verify the consumer's signature: the agreement is in force
//!   in force ◀───────────────────────────── ContractNegotiationEvent FINALIZED
//! ```

use std::{net::SocketAddr, time::Duration};

use serde::Serialize;

use crate::{
    agreement::{
        self, Agreement, AgreementRow, AgreementState, PartyFacts, Question, SeriesSecret, SourcePin, decide, manifest,
        principal_of_peer,
    },
    crypto::{RandomExt, jwe, jws},
    error::Refusal,
    exchange::{
        Exchange, address,
        outbox::Draft,
        refuse, retry,
        rows::{About, NegotiationRow, Seen},
    },
    id::{AgreementId, DatasetId, Did, MessageId, Pid},
    identity::Peer,
    offer::{self, Offer},
    policy::{Action, Verdict},
    protocol::{
        BASE, Incoming, NegotiationState, Party, Pids, ProtocolError, check_pids,
        message::{
            self, Address, ContractAgreement, ContractEvent, ContractNegotiation, ContractRequest, ContractTermination,
            ContractVerification, Counterpart, EventType, MessageOffer, NegotiationMessage, Rules,
        },
        negotiation,
        outgoing::{Message, Outgoing},
    },
    receipt::{Commit, Kind, PartnerHalf, Row, list, read},
};

/// The content type of the series secret's JWE.
const SECRET_CTY: &str = "counterseal-series-secret";

/// What a person asks for.
#[derive(Clone, Debug)]
pub struct NegotiationRequest {
    /// With whom.
    pub provider: Did,
    /// About what.
    pub dataset: DatasetId,
}

/// How a negotiation stands, for people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NegotiationView {
    /// Our pid.
    pub pid: Pid,
    /// Its state.
    pub state: NegotiationState,
    /// With whom.
    pub peer: Did,
    /// About what.
    pub dataset: DatasetId,
    /// What came of it.
    pub agreement: Option<AgreementId>,
    /// Why it ended.
    pub ended: Option<Refusal>,
}

impl From<NegotiationRow> for NegotiationView {
    fn from(row: NegotiationRow) -> Self {
        Self {
            pid: row.pid,
            state: row.state,
            peer: row.peer,
            dataset: row.dataset,
            agreement: row.agreement,
            ended: row.ended,
        }
    }
}

type Step = Result<ContractNegotiation, ProtocolError>;

impl Exchange {
    // === what the operator asks ===

    /// Begins a negotiation about a partner's offer.
    pub async fn negotiate(&self, request: &NegotiationRequest) -> Result<Pid, Refusal> {
        let peer = self.peer(&request.provider)?;
        let remote = self.offer_of(&request.provider, &request.dataset).await?;
        let offer = remote.offer.payload();
        // refused before anything is asked for: what we could not enforce we don't agree to
        offer.slice().map_err(refuse("policy-unusable"))?;
        let now = self.clock.now();
        if !offer.stands_at(now) {
            return Err(Refusal::new("offer-expired", "the offer does not stand at present"));
        }
        let pid: Pid = self.mint();
        let row = NegotiationRow {
            pid: pid.clone(),
            peer_pid: None,
            ours: Party::Consumer,
            peer: peer.did.clone(),
            callback: format!("{}{BASE}", peer.statement.endpoints.dsp),
            state: NegotiationState::Requested,
            offer: remote.offer.jws().clone(),
            offer_id: offer.id.clone(),
            dataset: offer.dataset.id.clone(),
            agreement: None,
            ended: None,
            begun: now,
            moved: now,
        };
        let message = NegotiationMessage::Request(ContractRequest {
            consumer_pid: pid.clone(),
            counterpart: Counterpart::New {
                callback_address: Address::parse(&format!("{}{BASE}", self.base_url)).map_err(refuse("internal"))?,
            },
            offer: MessageOffer {
                id: offer.id.clone(),
                target: offer.dataset.id.clone(),
                assigner: Some(peer.did.clone().into()),
                assignee: Some(self.us.clone().into()),
                rules: Rules::from_odrl(&offer.policy.odrl).map_err(refuse("policy-unusable"))?,
            },
            offer_sha256: Some(remote.offer.sha256()),
            purpose: None,
        });
        let mut commit = Commit::new();
        self.say(&mut commit, &row, message, false)?;
        commit.put_new(NegotiationRow::key(&pid), &row).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        self.post();
        Ok(pid)
    }

    /// Waits until a negotiation is over, or for so long.
    pub async fn negotiation_end(&self, pid: &Pid, patience: Duration) -> Result<NegotiationView, Refusal> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let (_, row) = self.negotiation_row(pid).await?;
            if matches!(row.state, NegotiationState::Finalized | NegotiationState::Terminated) {
                return Ok(row.into());
            }
            if tokio::time::timeout_at(deadline, moved).await.is_err() {
                return Ok(row.into());
            }
        }
    }

    /// All negotiations.
    pub async fn negotiations(&self) -> Result<Vec<NegotiationView>, Refusal> {
        let rows = list::<NegotiationRow>(&*self.store, NegotiationRow::PREFIX.as_bytes(), None, 10_000)
            .await
            .map_err(refuse("store-unreadable"))?;
        let mut views: Vec<NegotiationRow> = rows.into_iter().filter_map(|row| row.value).collect();
        views.sort_by_key(|row| row.begun);
        Ok(views.into_iter().map(Into::into).collect())
    }

    // === what peers send ===

    /// How one of our negotiations stands, to a peer that is its party.
    pub(super) async fn negotiation_for(&self, peer: &Did, pid: &Pid) -> Step {
        let row = read::<NegotiationRow>(&*self.store, &NegotiationRow::key(pid)).await.map_err(unreadable)?;
        let row = row.value.filter(|row| row.peer == *peer).ok_or_else(ProtocolError::not_found)?;
        shown(&row, row.state)
    }

    /// Takes a negotiation message: duplicates by `@id`, then the machine, then what follows; one commit.
    pub(super) async fn take_negotiation(
        &self,
        peer: &Peer,
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
        peer: &Peer,
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
    async fn begin(&self, peer: &Peer, remote: SocketAddr, id: Option<&MessageId>, request: &ContractRequest) -> Step {
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

    /// The provider makes and signs the agreement, and sends it.
    fn offer_agreement(
        &self,
        commit: &mut Commit,
        peer: &Peer,
        row: &mut NegotiationRow,
        offer: &Offer,
        slice: &crate::policy::Slice,
        published: &offer::OfferRow,
    ) -> Result<(), Refusal> {
        let secret = SeriesSecret(self.random.array());
        let id: AgreementId = self.mint();
        let agreement = Agreement {
            v: 1,
            id: id.clone(),
            offer: row.offer.sha256(),
            offer_id: offer.id.clone(),
            dataset: offer.dataset.id.clone(),
            provider: PartyFacts {
                did: self.us.clone(),
                statement: self.own_statement(),
                jurisdiction: None,
                roles: Default::default(),
                certifications: Default::default(),
                groups: Default::default(),
            },
            consumer: PartyFacts {
                did: peer.did.clone(),
                statement: peer.statement_sha256(),
                jurisdiction: peer.attributes.jurisdiction.clone(),
                roles: peer.attributes.roles.clone(),
                certifications: peer.attributes.certifications.clone(),
                groups: peer.attributes.groups.clone(),
            },
            policy_sha256: slice.sha256(),
            manifest: manifest(slice),
            duties: Vec::new(),
            series_secret_sha256: secret.sha256(),
            freshness_seconds: offer.freshness_seconds,
            valid_from: row.begun,
            valid_until: offer.valid_until,
        };
        let by_provider = jws::sign(jws::Typ::Agreement, &self.keys.signing_kid(), &self.keys.signing, &agreement)
            .map_err(refuse("internal"))?;
        let sealing = &peer.statement.keys.sealing;
        let sealed = jwe::seal(sealing, &offer::sealing_kid(&peer.did, sealing), SECRET_CTY, &secret.0, &*self.random)
            .map_err(refuse("internal"))?;
        let (consumer_pid, provider_pid) = both(row)?;
        row.state = negotiation::next(Some(row.state), Party::Provider, negotiation::Event::Agree)
            .map_err(refuse("internal"))?;
        row.agreement = Some(id.clone());
        let message = NegotiationMessage::Agreement(ContractAgreement {
            provider_pid,
            consumer_pid,
            agreement: message::Agreement {
                id: id.clone(),
                target: offer.dataset.id.clone(),
                assigner: self.us.clone().into(),
                assignee: peer.did.clone().into(),
                timestamp: Some(row.begun),
                rules: Rules::from_odrl(&offer.policy.odrl).map_err(refuse("policy-unusable"))?,
            },
            agreement_jws: Some(by_provider.clone()),
            series_secret_jwe: Some(sealed),
        });
        self.say(commit, row, message, false)?;
        let kept = AgreementRow {
            agreement,
            ours: Party::Provider,
            negotiation: row.pid.clone(),
            offer: row.offer.clone(),
            by_provider,
            by_consumer: None,
            state: AgreementState::Pending,
            ended: None,
            series_secret: secret,
            source: Some(SourcePin {
                path: published.source.clone(),
                format: published.format.clone(),
                snapshot: published.snapshot,
                published: published.published,
            }),
            releases: 0,
            uses: Default::default(),
            open: None,
            status: None,
        };
        commit.put_new(agreement::key(&id), &kept).map_err(refuse("internal"))
    }

    /// The consumer checks the provider's agreement against what it asked for, signs the same, and answers.
    async fn take_agreement(
        &self,
        commit: &mut Commit,
        peer: &Peer,
        row: &mut NegotiationRow,
        message: &ContractAgreement,
    ) -> Result<(), Refusal> {
        let wrong = |sentence: &str| Refusal::new("agreement-mismatch", sentence.to_owned());
        let by_provider = message
            .agreement_jws
            .clone()
            .ok_or_else(|| Refusal::new("agreement-unsigned", "the agreement came without the provider's signature"))?;
        let signed = agreement::verify(&by_provider, &peer.did, |kid| self.peers.current_key(kid))
            .map_err(refuse("agreement-signature"))?;
        let agreement = signed.payload().clone();
        let offer = offer::verify(&row.offer, &peer.did, &self.us, |kid| self.peers.verifying_key(kid))
            .map_err(refuse("offer-signature"))?;
        let slice = offer.payload().slice().map_err(refuse("policy-unusable"))?;
        let sha256 = offer.sha256();
        let offer = offer.payload();
        for (fits, what) in [
            (agreement.v == 1, "its version"),
            (agreement.provider.did == peer.did && agreement.consumer.did == self.us, "its parties"),
            (
                agreement.provider.statement == peer.statement_sha256(),
                "the provider's statement (is it newer than the one we hold?)",
            ),
            (
                agreement.consumer.statement == self.own_statement(),
                "our own statement (has the provider not got our newest one?)",
            ),
            (agreement.offer == sha256 && agreement.offer_id == offer.id, "the offer"),
            (agreement.dataset == offer.dataset.id && message.agreement.target == offer.dataset.id, "the dataset"),
            (agreement.policy_sha256 == slice.sha256(), "the policy"),
            (agreement.manifest == manifest(&slice), "who enforces which clause"),
            (agreement.duties.is_empty(), "duties, of which this version carries out none"),
            (agreement.freshness_seconds == offer.freshness_seconds, "the freshness limit"),
            (agreement.valid_until == offer.valid_until, "its validity"),
            (message.agreement.id == agreement.id, "its id"),
        ] {
            if !fits {
                return Err(wrong(&format!("the agreement is not about what was asked for: {what}")));
            }
        }
        let sealed = message
            .series_secret_jwe
            .as_ref()
            .ok_or_else(|| wrong("the agreement came without the secret of its receipt series"))?;
        let secret: [u8; 32] = jwe::open(&self.keys.sealing, SECRET_CTY, sealed)
            .map_err(refuse("agreement-secret"))?
            .try_into()
            .map_err(|_| wrong("the secret of the receipt series has not 32 bytes"))?;
        let secret = SeriesSecret(secret);
        if secret.sha256() != agreement.series_secret_sha256 {
            return Err(wrong("the secret of the receipt series is not the one in the agreement"));
        }
        let by_consumer = jws::sign(jws::Typ::Agreement, &self.keys.signing_kid(), &self.keys.signing, &agreement)
            .map_err(refuse("internal"))?;
        let kept = AgreementRow {
            ours: Party::Consumer,
            negotiation: row.pid.clone(),
            offer: row.offer.clone(),
            by_provider: by_provider.clone(),
            by_consumer: Some(by_consumer.clone()),
            state: AgreementState::Pending,
            ended: None,
            series_secret: secret,
            source: None,
            releases: 0,
            uses: Default::default(),
            open: None,
            status: None,
            agreement,
        };
        row.state = negotiation::next(Some(row.state), Party::Consumer, negotiation::Event::Verify)
            .map_err(refuse("internal"))?;
        row.agreement = Some(kept.id().clone());
        let (consumer_pid, provider_pid) = both(row)?;
        let answer = ContractVerification { provider_pid, consumer_pid, agreement_jws: Some(by_consumer) };
        self.say(commit, row, NegotiationMessage::Verification(answer), false)?;
        commit.half(half(kept.id(), by_provider));
        commit.put_new(agreement::key(kept.id()), &kept).map_err(refuse("internal"))
    }

    /// The provider checks the consumer's signature over the same: the agreement is in force.
    async fn take_verification(
        &self,
        commit: &mut Commit,
        peer: &Peer,
        row: &mut NegotiationRow,
        message: &ContractVerification,
    ) -> Result<(), Refusal> {
        let id = row.agreement.clone().ok_or_else(|| Refusal::new("agreement-unknown", "no agreement was sent"))?;
        let by_consumer = message.agreement_jws.clone().ok_or_else(|| {
            Refusal::new("agreement-unsigned", "the verification came without the consumer's signature")
        })?;
        let signed = agreement::verify(&by_consumer, &peer.did, |kid| self.peers.current_key(kid))
            .map_err(refuse("agreement-signature"))?;
        let (kept, mut agreement) = self.agreement(&id).await?;
        if *signed.payload() != agreement.agreement {
            return Err(Refusal::new(
                "agreement-mismatch",
                "the consumer signed another agreement than the one we sent",
            ));
        }
        agreement.by_consumer = Some(by_consumer.clone());
        agreement.state = AgreementState::Active;
        let receipt = self.receipt(Kind::Agreed, Some(&agreement));
        self.agreement_receipt(commit, &agreement, receipt)?;
        commit.half(half(&id, by_consumer));
        row.state = negotiation::next(Some(row.state), Party::Provider, negotiation::Event::Finalize)
            .map_err(refuse("internal"))?;
        let (consumer_pid, provider_pid) = both(row)?;
        let event = ContractEvent { provider_pid, consumer_pid, event_type: EventType::Finalized };
        self.say(commit, row, NegotiationMessage::Event(event), false)?;
        commit.put(&kept, &agreement).map_err(refuse("internal"))
    }

    /// FINALIZED: the consumer's copy is in force too.
    async fn activate(&self, commit: &mut Commit, row: &NegotiationRow) -> Result<(), ProtocolError> {
        let Some(id) = &row.agreement else { return Ok(()) };
        let (kept, mut agreement) = self.agreement(id).await?;
        if agreement.state == AgreementState::Pending {
            agreement.state = AgreementState::Active;
            let receipt = self.receipt(Kind::Agreed, Some(&agreement));
            self.agreement_receipt(commit, &agreement, receipt)?;
            commit.put(&kept, &agreement).map_err(|error| ProtocolError::busy(error.to_string()))?;
        }
        Ok(())
    }

    /// A negotiation ended otherwise than finalized; an agreement that was not in force yet ends with it.
    async fn end(&self, commit: &mut Commit, row: &mut NegotiationRow, why: Refusal) -> Result<(), Refusal> {
        row.state = NegotiationState::Terminated;
        row.ended = Some(why.clone());
        if let Some(id) = &row.agreement {
            let (kept, mut agreement) = self.agreement(id).await?;
            if agreement.state != AgreementState::Revoked {
                agreement.state = AgreementState::Expired;
                agreement.ended = Some(why.clone());
                commit.put(&kept, &agreement).map_err(refuse("internal"))?;
            }
        }
        let mut receipt = self.receipt(Kind::Negotiated, None);
        receipt.consumer = Some(match row.ours {
            Party::Provider => row.peer.clone().into(),
            Party::Consumer => self.us.clone().into(),
        });
        if row.ours == Party::Consumer {
            receipt.provider = row.peer.clone().into();
        }
        receipt.offer = Some(row.offer.sha256());
        receipt.reason = Some(why);
        self.node_receipt(commit, receipt).map(|_| ())
    }

    /// We terminate, and say why.
    fn give_up(&self, commit: &mut Commit, row: &mut NegotiationRow, why: Refusal) -> Result<(), Refusal> {
        row.state = NegotiationState::Terminated;
        row.ended = Some(why.clone());
        // the other side has no pid yet: its request gets no answer, and it gives up by itself
        let Ok((consumer_pid, provider_pid)) = both(row) else { return Ok(()) };
        let message = ContractTermination {
            provider_pid,
            consumer_pid,
            code: Some(why.code.as_str().to_owned()),
            reason: vec![why.sentence],
        };
        self.say(commit, row, NegotiationMessage::Termination(message), true)
    }

    fn say(
        &self,
        commit: &mut Commit,
        row: &NegotiationRow,
        message: NegotiationMessage,
        last: bool,
    ) -> Result<(), Refusal> {
        let outgoing = Outgoing { id: self.mint(), to: row.ours.other(), message: Message::Negotiation(message) };
        self.letter(
            commit,
            Draft {
                peer: &row.peer,
                process: &row.pid,
                about: About::Negotiation,
                url: format!("{}{}", row.callback, outgoing.path()),
                body: outgoing.body(),
                last,
                token: None,
            },
        )
    }

    // === what comes of letters ===

    /// The peer took a letter of a negotiation's.
    pub(super) async fn negotiation_delivered(
        &self,
        commit: &mut Commit,
        pid: &Pid,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let (row, mut found) = self.negotiation_row(pid).await?;
        if found.peer_pid.is_some() {
            return Ok(());
        }
        // only the answer to a first request tells the other pid
        let ack: ContractNegotiation =
            message::read(body).map_err(|malformed| Refusal::new("answer-invalid", malformed.to_string()))?;
        let (ours, theirs) = match found.ours {
            Party::Consumer => (ack.consumer_pid, ack.provider_pid),
            Party::Provider => (ack.provider_pid, ack.consumer_pid),
        };
        if ours != found.pid {
            return Err(Refusal::new("pid-mismatch", "the peer's answer is about another negotiation"));
        }
        found.peer_pid = Some(theirs);
        commit.put(&row, &found).map_err(refuse("internal"))
    }

    /// The peer will not take a letter of a negotiation's.
    pub(super) async fn negotiation_undeliverable(
        &self,
        commit: &mut Commit,
        pid: &Pid,
        why: Refusal,
    ) -> Result<(), Refusal> {
        let (row, mut found) = self.negotiation_row(pid).await?;
        if matches!(found.state, NegotiationState::Terminated) {
            return Ok(());
        }
        if found.state == NegotiationState::Finalized && found.ours == Party::Provider {
            // the agreement is signed by both and in force; only the news did not arrive
            found.ended = Some(why);
        } else {
            self.end(commit, &mut found, why).await?;
        }
        commit.put(&row, &found).map_err(refuse("internal"))
    }

    async fn negotiation_row(&self, pid: &Pid) -> Result<(Row<NegotiationRow>, NegotiationRow), Refusal> {
        let row = read::<NegotiationRow>(&*self.store, &NegotiationRow::key(pid))
            .await
            .map_err(refuse("store-unreadable"))?;
        match row.value.clone() {
            Some(found) => Ok((row, found)),
            None => Err(Refusal::new("negotiation-unknown", format!("no negotiation has the pid `{pid}`"))),
        }
    }

    // === duplicates ===

    /// The answer that this message got before.
    pub(super) async fn seen(
        &self,
        peer: &Did,
        id: Option<&MessageId>,
    ) -> Result<Option<serde_json::Value>, ProtocolError> {
        let Some(id) = id else { return Ok(None) };
        Ok(read::<Seen>(&*self.store, &Seen::key(peer, id)).await.map_err(unreadable)?.value.map(|seen| seen.answer))
    }

    /// Keeps the answer, in the commit that the message led to; of two racing copies one loses.
    pub(super) fn remember(
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

fn half(agreement: &AgreementId, jws: jws::Jws) -> PartnerHalf {
    PartnerHalf { agreement: agreement.clone(), kind: "agreement".into(), jws, index: None, number: None }
}

fn both(row: &NegotiationRow) -> Result<(Pid, Pid), Refusal> {
    match row.pids() {
        (Some(consumer), Some(provider)) => Ok((consumer, provider)),
        _ => Err(Refusal::new("pid-unknown", "the other side's pid is not known yet")),
    }
}

fn shown(row: &NegotiationRow, state: NegotiationState) -> Step {
    // before the first answer a consumer doesn't know the provider's pid: there is nothing to show yet
    let (consumer_pid, provider_pid) = both(row).map_err(|_| ProtocolError::not_found())?;
    Ok(ContractNegotiation { provider_pid, consumer_pid, state })
}

fn unreadable(error: impl std::fmt::Display) -> ProtocolError {
    tracing::error!(%error, "the store can't be read");
    ProtocolError::busy("the store can't be read at present")
}

/// Ours, not the peer's, fault is 503: it tries again.
pub(super) fn into_protocol(refusal: Refusal) -> ProtocolError {
    let ours = ["store-", "disk-", "stopping", "conflict", "internal", "receipt-"];
    let status = if ours.iter().any(|prefix| refusal.code.as_str().starts_with(prefix)) { 503 } else { 400 };
    ProtocolError { status, ..ProtocolError::from(refusal) }
}
