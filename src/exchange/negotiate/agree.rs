//! The agreement: made and signed by the provider, checked and signed by the consumer, in force when both are there.

use std::net::IpAddr;

use crate::{
    agreement::{
        self, Agreement, AgreementRow, AgreementState, Delivery, PartyFacts, Question, SeriesSecret, SourcePin, Tally,
        decide, manifest, principal_of_partner,
    },
    crypto::{RandomExt, jwe, jws},
    error::Refusal,
    exchange::{
        Exchange,
        negotiate::{SECRET_CTY, both, half},
        refuse,
        rows::{AskedWith, NegotiationRow},
    },
    id::AgreementId,
    identity::{Partner, Peer},
    offer::{self, LiveOffer, OfferRow},
    policy::{Action, Decision, Slice, Verdict},
    protocol::{
        Party,
        message::{self, ContractAgreement, ContractEvent, ContractVerification, EventType, NegotiationMessage, Rules},
        negotiation,
    },
    receipt::{Commit, Kind, Row},
};

impl Exchange {
    /// The provider's yes: the policy is asked (again, where a person took their time), then the agreement is made.
    pub(super) async fn agree_again(
        &self,
        commit: &mut Commit,
        partner: &Partner,
        row: &mut NegotiationRow,
    ) -> Result<(), Refusal> {
        let live = self.live_offer(row)?;
        let slice = live.slice.clone().map_err(refuse("policy-unusable"))?;
        self.may_decide()?;
        let asked = self.store.get(&AskedWith::key(&row.pid)).await.map_err(refuse("store-unreadable"))?;
        let asked: AskedWith = match asked {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(refuse("store-unreadable"))?,
            None => AskedWith::default(),
        };
        let decision = self.decide_negotiation(partner, &live, &slice, asked.purpose.as_deref(), asked.remote);
        if decision.verdict != Verdict::Allow {
            return Err(decision.reason.unwrap_or_else(no_permit));
        }
        self.offer_agreement(commit, partner, row, &live.row, &slice)
    }

    /// Whether the policy lets this partner have an agreement.
    pub(super) fn decide_negotiation(
        &self,
        partner: &Partner,
        live: &LiveOffer,
        slice: &Slice,
        purpose: Option<&str>,
        remote: Option<IpAddr>,
    ) -> Decision {
        let principal = principal_of_partner(partner.id(), partner.attributes());
        let question = Question {
            site: partner.attributes().physical_address.as_deref(),
            purpose,
            address: remote,
            delivery: Delivery::file(partner.certificate().is_some()),
            ..Question::new(Action::Negotiate, principal, &live.row.offer, self.clock.now())
        };
        decide(slice, &question)
    }

    /// The provider makes and signs the agreement, and sends it.
    pub(super) fn offer_agreement(
        &self,
        commit: &mut Commit,
        partner: &Partner,
        row: &mut NegotiationRow,
        published: &OfferRow,
        slice: &Slice,
    ) -> Result<(), Refusal> {
        let offer = &published.offer;
        let signed =
            row.offer.clone().ok_or_else(|| Refusal::new("internal", "an offer of ours without a signature"))?;
        let secret = SeriesSecret(self.random.array());
        let id: AgreementId = self.mint();
        let agreement = Agreement {
            v: 1,
            id: id.clone(),
            offer: signed.sha256(),
            offer_id: offer.id.clone(),
            dataset: offer.dataset.id.clone(),
            provider: PartyFacts::plain(self.us.clone().into(), Some(self.own_statement())),
            consumer: PartyFacts::of(partner),
            policy_sha256: slice.sha256(),
            manifest: manifest(slice),
            duties: agreement::duties(slice),
            series_secret_sha256: secret.sha256(),
            freshness_seconds: offer.freshness_seconds,
            valid_from: row.begun,
            valid_until: offer.valid_until,
        };
        let by_provider = jws::sign(jws::Typ::Agreement, &self.keys.signing_kid(), &self.keys.signing, &agreement)
            .map_err(refuse("internal"))?;
        // the secret of its series, sealed; a foreign connector has no use for it
        let sealed = match partner.certificate() {
            None => None,
            Some(peer) => {
                let sealing = &peer.statement.keys.sealing;
                let kid = offer::sealing_kid(&peer.did, sealing);
                Some(jwe::seal(sealing, &kid, SECRET_CTY, &secret.0, &*self.random).map_err(refuse("internal"))?)
            }
        };
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
                assignee: partner.id(),
                timestamp: Some(row.begun),
                rules: Rules::from_odrl(&offer.policy.odrl).map_err(refuse("policy-unusable"))?,
            },
            agreement_jws: partner.certificate().map(|_| by_provider.clone()),
            series_secret_jwe: sealed,
        });
        self.say(commit, row, message, false)?;
        let kept = AgreementRow {
            agreement,
            ours: Party::Provider,
            negotiation: row.pid.clone(),
            offer: signed,
            one_sided: partner.certificate().is_none(),
            approval: row.approval,
            by_provider: Some(by_provider),
            by_consumer: None,
            state: AgreementState::Pending,
            ended: None,
            series_secret: secret,
            source: Some(SourcePin {
                path: published.source.clone(),
                format: published.format.clone(),
                snapshot: published.snapshot,
                published: published.published,
                extent: published.offer.dataset.extent,
            }),
            releases: Tally::default(),
            uses: Default::default(),
            payment: None,
            open: None,
            status: None,
        };
        commit.put_new(agreement::key(&id), &kept).map_err(refuse("internal"))
    }

    /// The consumer checks the provider's agreement against what it asked for, signs the same, and answers.
    pub(super) async fn take_agreement(
        &self,
        commit: &mut Commit,
        partner: &Partner,
        row: &mut NegotiationRow,
        message: &ContractAgreement,
    ) -> Result<(), Refusal> {
        let by_consumer = match partner {
            Partner::Certificate(peer) => Some(self.countersign(commit, peer, row, message).await?),
            Partner::Token(peer) => {
                let agreement = &message.agreement;
                let fits =
                    agreement.target == row.dataset && agreement.assigner == peer.id && agreement.assignee == self.us;
                if !fits {
                    return Err(Refusal::new(
                        "agreement-mismatch",
                        "the agreement names another dataset, or other parties, than were asked for",
                    ));
                }
                row.agreement = Some(agreement.id.clone());
                None
            }
        };
        row.state = negotiation::next(Some(row.state), Party::Consumer, negotiation::Event::Verify)
            .map_err(refuse("internal"))?;
        let (consumer_pid, provider_pid) = both(row)?;
        let answer = ContractVerification { provider_pid, consumer_pid, agreement_jws: by_consumer };
        self.say(commit, row, NegotiationMessage::Verification(answer), false)
    }

    /// Between Counterseal peers: everything in the agreement is what was asked for, and both sign the same.
    async fn countersign(
        &self,
        commit: &mut Commit,
        peer: &Peer,
        row: &mut NegotiationRow,
        message: &ContractAgreement,
    ) -> Result<jws::Jws, Refusal> {
        let wrong = |sentence: &str| Refusal::new("agreement-mismatch", sentence.to_owned());
        let by_provider = message
            .agreement_jws
            .clone()
            .ok_or_else(|| Refusal::new("agreement-unsigned", "the agreement came without the provider's signature"))?;
        let signed = agreement::verify(&by_provider, &peer.did, |kid| self.peers.current_key(kid))
            .map_err(refuse("agreement-signature"))?;
        let agreement = signed.payload().clone();
        let asked = row.offer.clone().ok_or_else(|| wrong("no signed offer was asked for"))?;
        let offer = offer::verify(&asked, &peer.did, &self.us, |kid| self.peers.verifying_key(kid))
            .map_err(refuse("offer-signature"))?;
        let slice = offer.payload().slice().map_err(refuse("policy-unusable"))?;
        let sha256 = offer.sha256();
        let offer = offer.payload();
        for (fits, what) in [
            (agreement.v == 1, "its version"),
            (agreement.provider.id == peer.did && agreement.consumer.id == self.us, "its parties"),
            (
                agreement.provider.statement == Some(peer.statement_sha256()),
                "the provider's statement (is it newer than the one we hold?)",
            ),
            (
                agreement.consumer.statement == Some(self.own_statement()),
                "our own statement (has the provider not got our newest one?)",
            ),
            (agreement.offer == sha256 && agreement.offer_id == offer.id, "the offer"),
            (agreement.dataset == offer.dataset.id && message.agreement.target == offer.dataset.id, "the dataset"),
            (agreement.policy_sha256 == slice.sha256(), "the policy"),
            (agreement.manifest == manifest(&slice), "who enforces which clause"),
            (agreement.duties == agreement::duties(&slice), "what we owe after releases"),
            (agreement.freshness_seconds == offer.freshness_seconds, "the freshness limit"),
            (agreement.valid_until == offer.valid_until, "its validity"),
            (message.agreement.id == agreement.id, "its id"),
        ] {
            if !fits {
                return Err(wrong(&format!("the agreement is not about what was asked for: {what}")));
            }
        }
        self.can_enforce(&slice, &agreement.manifest).await?;
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
            offer: asked,
            one_sided: false,
            approval: row.approval,
            by_provider: Some(by_provider.clone()),
            by_consumer: Some(by_consumer.clone()),
            state: AgreementState::Pending,
            ended: None,
            series_secret: secret,
            source: None,
            releases: Tally::default(),
            uses: Default::default(),
            payment: None,
            open: None,
            status: None,
            agreement,
        };
        row.agreement = Some(kept.id().clone());
        commit.half(half(kept.id(), by_provider));
        commit.put_new(agreement::key(kept.id()), &kept).map_err(refuse("internal"))?;
        Ok(by_consumer)
    }

    /// The provider checks the consumer's signature over the same. A foreign consumer only says that it agrees.
    pub(super) async fn take_verification(
        &self,
        commit: &mut Commit,
        partner: &Partner,
        row: &NegotiationRow,
        message: &ContractVerification,
    ) -> Result<(Row<AgreementRow>, AgreementRow), Refusal> {
        let id = row.agreement.clone().ok_or_else(|| Refusal::new("agreement-unknown", "no agreement was sent"))?;
        let (kept, mut agreement) = self.agreement(&id).await?;
        let Partner::Certificate(peer) = partner else { return Ok((kept, agreement)) };
        let by_consumer = message.agreement_jws.clone().ok_or_else(|| {
            Refusal::new("agreement-unsigned", "the verification came without the consumer's signature")
        })?;
        let signed = agreement::verify(&by_consumer, &peer.did, |kid| self.peers.current_key(kid))
            .map_err(refuse("agreement-signature"))?;
        if *signed.payload() != agreement.agreement {
            return Err(Refusal::new(
                "agreement-mismatch",
                "the consumer signed another agreement than the one we sent",
            ));
        }
        agreement.by_consumer = Some(by_consumer.clone());
        commit.half(half(&id, by_consumer));
        Ok((kept, agreement))
    }

    /// The provider closes: the agreement is in force.
    pub(super) async fn finalize(&self, commit: &mut Commit, row: &mut NegotiationRow) -> Result<(), Refusal> {
        let found = self.agreement_of(row).await?;
        let (kept, agreement) = found.ok_or_else(|| Refusal::new("agreement-unknown", "no agreement was sent"))?;
        self.finalize_with(commit, row, kept, agreement)
    }

    /// Closes with the agreement's row at hand.
    pub(super) fn finalize_with(
        &self,
        commit: &mut Commit,
        row: &mut NegotiationRow,
        kept: Row<AgreementRow>,
        mut agreement: AgreementRow,
    ) -> Result<(), Refusal> {
        row.state = negotiation::next(Some(row.state), Party::Provider, negotiation::Event::Finalize)
            .map_err(refuse("internal"))?;
        agreement.state = AgreementState::Active;
        let receipt = self.receipt(Kind::Agreed, Some(&agreement));
        self.agreement_receipt(commit, &agreement, receipt)?;
        let (consumer_pid, provider_pid) = both(row)?;
        let event = ContractEvent { provider_pid, consumer_pid, event_type: EventType::Finalized };
        self.say(commit, row, NegotiationMessage::Event(event), false)?;
        commit.put(&kept, &agreement).map_err(refuse("internal"))
    }

    /// FINALIZED: the consumer's copy is in force too. Of a foreign provider's agreement we have none: it came without
    /// a policy that could be decided by.
    pub(in crate::exchange) async fn activate(&self, commit: &mut Commit, row: &NegotiationRow) -> Result<(), Refusal> {
        if let Some((kept, mut agreement)) = self.agreement_of(row).await?
            && agreement.state == AgreementState::Pending
        {
            agreement.state = AgreementState::Active;
            let receipt = self.receipt(Kind::Agreed, Some(&agreement));
            self.agreement_receipt(commit, &agreement, receipt)?;
            commit.put(&kept, &agreement).map_err(refuse("internal"))?;
        }
        Ok(())
    }

    /// The agreement that came of a negotiation, where there is one here.
    pub(super) async fn agreement_of(
        &self,
        row: &NegotiationRow,
    ) -> Result<Option<(Row<AgreementRow>, AgreementRow)>, Refusal> {
        let Some(id) = &row.agreement else { return Ok(None) };
        match self.agreement(id).await {
            // another's agreement may have the id that a foreign provider gave to its own
            Ok((kept, agreement)) => Ok((agreement.negotiation == row.pid).then_some((kept, agreement))),
            Err(refusal) if refusal.is("agreement-unknown") => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }
}

fn no_permit() -> Refusal {
    Refusal::new("policy-no-permit", "the policy did not allow it")
}
