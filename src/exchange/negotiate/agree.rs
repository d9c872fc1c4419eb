//! The agreement: made and signed by the provider, checked and signed by the consumer, in force when both are there.

use crate::{
    agreement::{self, Agreement, AgreementRow, AgreementState, PartyFacts, SeriesSecret, SourcePin, manifest},
    crypto::{RandomExt, jwe, jws},
    error::Refusal,
    exchange::{
        Exchange,
        negotiate::{SECRET_CTY, both, half},
        refuse,
        rows::NegotiationRow,
    },
    id::AgreementId,
    identity::Peer,
    offer::{self, Offer},
    protocol::{
        Party, ProtocolError,
        message::{self, ContractAgreement, ContractEvent, ContractVerification, EventType, NegotiationMessage, Rules},
        negotiation,
    },
    receipt::{Commit, Kind},
};

impl Exchange {
    /// The provider makes and signs the agreement, and sends it.
    pub(super) fn offer_agreement(
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
    pub(super) async fn take_agreement(
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
    pub(super) async fn take_verification(
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
    pub(super) async fn activate(&self, commit: &mut Commit, row: &NegotiationRow) -> Result<(), ProtocolError> {
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
}
