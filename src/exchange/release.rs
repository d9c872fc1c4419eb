//! The provider's side of a release: decide, record, open; take the acknowledgement; hand over the key, last.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    agreement::{AgreementRow, Extent, OpenRelease, Question, SubjectRow, principal_of_partner, subject_key},
    crypto::{
        RandomExt,
        ece::Keying,
        jwe,
        jws::{self, Typ},
        sha256,
    },
    dataplane::{Grant, ReleaseRow, ReleaseState, SentBody, bodies_prefix, check_segments},
    error::Refusal,
    exchange::{
        CONFLICT, Exchange, address,
        before::{Asking, Shown},
        refuse, retry,
    },
    id::{ParticipantId, ReleaseId},
    identity::Peer,
    offer::Offer,
    policy::{Action, Amount, Asked, Columns, Decision, Obligations, Verdict},
    protocol::{
        Party,
        extension::{
            Acknowledgement, AcknowledgementRequest, KeyAnswer, OutcomeRequest, ReleaseAnswer, ReleaseRequest,
        },
    },
    receipt::{Commit, Kind, PartnerHalf, Payload, Receipt, Row, list, read},
    source::Format,
    transform::{HashKey, Plan},
};

/// Longest purpose that is taken, in bytes.
const MAX_PURPOSE: usize = 1024;
/// Most models or statements in a request.
const MAX_LISTED: usize = 32;
/// The content type of the keying material's JWE.
pub(super) const KEY_CTY: &str = "counterseal-key";

impl Exchange {
    /// `POST releases`: one release, decided now. Repeating a request id gets the same answer and spends nothing.
    pub(super) async fn release_to(
        &self,
        peer: &ParticipantId,
        remote: SocketAddr,
        grant: &Grant,
        request: ReleaseRequest,
    ) -> Result<ReleaseAnswer, Refusal> {
        bounded(&request)?;
        retry!(self.release_once(peer, remote, grant, &request))
    }

    async fn release_once(
        &self,
        peer: &ParticipantId,
        remote: SocketAddr,
        grant: &Grant,
        request: &ReleaseRequest,
    ) -> Result<ReleaseAnswer, Refusal> {
        let known = read::<ReleaseId>(&*self.store, &ReleaseRow::request_key(peer, &request.request_id))
            .await
            .map_err(refuse("store-unreadable"))?;
        if let Some(id) = &known.value {
            let row = self.release_row(peer, id).await?.1;
            // the same request over another transfer of the same agreement is a continuation; over another agreement, not
            return if row.transfer == grant.transfer {
                self.release_answer(&row).await
            } else {
                Err(Refusal::new("request-reused", "this request id was used for another transfer; take a fresh one"))
            };
        }
        let (row, agreement) = self.agreement(&grant.agreement).await?;
        if agreement.ours != Party::Provider || agreement.peer() != peer {
            return Err(Refusal::new("agreement-unknown", "the transfer's agreement is not this participant's"));
        }
        self.restorations.over(peer)?;
        self.checked_by(peer).await?;
        self.may_decide()?;
        let now = self.clock.now();
        let standing = agreement.in_force(now).and_then(|()| no_open_release(&agreement));
        if let Err(refusal) = standing {
            return self.deny(&agreement, peer, grant, None, refusal).await;
        }
        let offer = self.agreed_offer(&agreement)?;
        let slice = self.agreed_slice(&agreement, &offer)?;
        let partner = self.peer(peer)?;
        let columns = &offer.dataset.columns;
        let asked = Asked { fields: request.fields.clone(), filter: request.filter.clone() };
        if let Err(wrong) = asked.fields(columns).map(|_| ()).and_then(|()| asked.filter(columns).map(|_| ())) {
            let refusal = Refusal::new(wrong.code(), wrong.to_string());
            return self.deny(&agreement, peer, grant, None, refusal).await;
        }
        let subject_key = subject_key(peer, &offer.dataset.id);
        let subject = read::<SubjectRow>(&*self.store, &subject_key).await.map_err(refuse("store-unreadable"))?;
        let mut tallies = subject.value.clone().unwrap_or_default();
        let pinned = agreement.source.as_ref().map(|pin| pin.snapshot.to_string()).unwrap_or_default();
        let asking = Asking {
            slice: &slice,
            question: Question {
                site: partner.attributes.physical_address.as_deref(),
                agreement: Some(&agreement),
                purpose: Some(&request.purpose),
                address: address(remote),
                software: &request.software,
                asked: &asked,
                extent: agreement.source.as_ref().and_then(|pin| pin.extent),
                subject: Some(&tallies),
                ..Question::new(Action::Release, principal_of_partner(peer.clone(), &partner.attributes), &offer, now)
            },
            agreement: &agreement,
            snapshot: pinned,
            request: request.request_id.as_str().to_owned(),
            spent_records: agreement.releases.total.records,
            shown: Shown {
                accepts: Some(&request.accepts),
                person: request.person.as_deref(),
                code: request.code.as_deref(),
            },
        };
        let (decision, grounds) = match self.decide_on_grounds(&asking).await {
            Ok(decided) => decided,
            Err(refusal) if refusal.is(CONFLICT) => return Err(refusal),
            Err(refusal) => return self.deny(&agreement, peer, grant, None, refusal).await,
        };
        if decision.verdict == Verdict::Conditional {
            let mut receipt = self.receipt(Kind::Conditional, Some(&agreement));
            receipt.transfer = Some(grant.transfer.clone());
            return self.hold(&asking, &decision, &grounds, receipt).await;
        }
        if decision.verdict != Verdict::Allow {
            let refusal = decision.reason.clone().unwrap_or_else(no_reason);
            return self.deny(&agreement, peer, grant, Some((&decision, &request.purpose)), refusal).await;
        }
        let obligations = match decision.obligations.clone().for_request(&asked, columns, asking.spent_records) {
            Ok(obligations) => obligations,
            Err(wrong) => {
                let refusal = Refusal::new(wrong.code(), wrong.to_string());
                return self.deny(&agreement, peer, grant, Some((&decision, &request.purpose)), refusal).await;
            }
        };
        if let Err(refusal) = can_apply(&obligations, columns, agreement.source.as_ref().map(|pin| pin.format.as_str()))
        {
            return self.deny(&agreement, peer, grant, Some((&decision, &request.purpose)), refusal).await;
        }
        let Some(pin) = agreement.source.clone() else {
            return Err(Refusal::new("source-unavailable", "the agreement names no source of ours"));
        };
        let (roots, path) = (self.roots.clone(), pin.path.clone());
        let opened = tokio::task::spawn_blocking(move || roots.open(&path)).await.map_err(refuse("internal"))?;
        let changed = match opened {
            Ok(opened) if opened.snapshot() == pin.snapshot => Ok(opened.len()),
            Ok(_) => Err(Refusal::new(
                "source-changed",
                format!(
                    "the data behind this offer was replaced since it was published at {}; the provider has to publish \
                     the offer again, and a new agreement is needed",
                    pin.published
                ),
            )),
            Err(error) => {
                tracing::error!(%error, source = %pin.path, "a source can't be opened");
                Err(Refusal::new("source-unavailable", "the provider can't open the data at present; try again later"))
            }
        };
        let length = match changed {
            Ok(length) => length,
            Err(refusal) => {
                return self.deny(&agreement, peer, grant, Some((&decision, &request.purpose)), refusal).await;
            }
        };

        let id = ReleaseId::parse(self.random.urn(now)).map_err(refuse("internal"))?;
        let deadline = now.plus(Duration::from_secs(self.config.release.deadline_seconds));
        let mut commit = Commit::new();
        let mut receipt = self.release_receipt(Kind::Released, &agreement, grant, &id);
        self.record_decision(&mut commit, &mut receipt, &decision);
        self.record_commitment(&mut commit, &mut receipt, "purpose", request.purpose.as_bytes());
        receipt.action = Some(Action::Release.as_str().to_owned());
        receipt.obligations_sha256 = Some(decision.obligations.sha256());
        if let Some(filter) = &request.filter {
            self.record_commitment(&mut commit, &mut receipt, "filter", filter.as_bytes());
        }
        if let Some(person) = &request.person {
            self.record_commitment(&mut commit, &mut receipt, "person", person.as_bytes());
        }
        receipt.snapshot = Some(pin.snapshot);
        receipt.key_sha256 = Some(Keying::derive(&self.keys.release, id.as_str()).hash());
        let released = self.agreement_receipt(&mut commit, &agreement, receipt)?;
        let next = ReleaseRow {
            id: id.clone(),
            request: request.request_id.clone(),
            transfer: grant.transfer.clone(),
            agreement: agreement.id().clone(),
            offer: offer.id.clone(),
            peer: peer.clone(),
            source: pin.path,
            format: pin.format,
            snapshot: pin.snapshot,
            columns: offer.dataset.columns.clone(),
            duties: decision.duties,
            reserved: reserved(pin.extent.unwrap_or_default(), &obligations),
            reserved_at: now,
            filtered: request.filter.is_some(),
            obligations: Obligations { filter: decision.obligations.filter.clone(), ..obligations.clone() },
            released,
            state: ReleaseState::Open,
            deadline,
            length,
            delivered: None,
        };
        let mut spent = agreement.clone();
        spent.releases.spend(next.reserved, now, offer.policy.zone);
        tallies.entry(Action::Release.as_str().to_owned()).or_default().spend(next.reserved, now, offer.policy.zone);
        commit.put(&subject, &tallies).map_err(refuse("internal"))?;
        grounds.spend(&mut commit)?;
        spent.open = Some(OpenRelease { id: id.clone(), deadline, lapsed: false });
        commit.put(&row, &spent).map_err(refuse("internal"))?;
        commit.put_new(ReleaseRow::key(&id), &next).map_err(refuse("internal"))?;
        if next.filtered {
            let filter = serde_json::to_vec(&obligations.filter).map_err(refuse("internal"))?;
            commit.content(ReleaseRow::filter_key(&id), filter);
        }
        commit.put(&known, &id).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        self.release_answer(&next).await
    }

    async fn release_answer(&self, row: &ReleaseRow) -> Result<ReleaseAnswer, Refusal> {
        Ok(ReleaseAnswer {
            released: self.logged(&row.released).await?,
            release: row.id.clone(),
            stream: format!("{}/2025-1/counterseal/v1/releases/{}/stream", self.base_url, row.id),
            deadline: row.deadline,
            length: row.length,
        })
    }

    /// Leaves a `denied` receipt, then refuses.
    pub(super) async fn deny<T>(
        &self,
        agreement: &AgreementRow,
        peer: &ParticipantId,
        grant: &Grant,
        decision: Option<(&Decision, &str)>,
        refusal: Refusal,
    ) -> Result<T, Refusal> {
        if self.refusals.within_budget(peer, self.clock.now()) {
            let mut commit = Commit::new();
            let mut receipt = self.receipt(Kind::Denied, Some(agreement));
            receipt.transfer = Some(grant.transfer.clone());
            receipt.action = Some(Action::Release.as_str().to_owned());
            if let Some((decision, purpose)) = decision {
                self.record_decision(&mut commit, &mut receipt, decision);
                self.record_commitment(&mut commit, &mut receipt, "purpose", purpose.as_bytes());
            }
            receipt.reason = Some(refusal.clone());
            self.agreement_receipt(&mut commit, agreement, receipt)?;
            self.commit(commit).await?;
        }
        Err(refusal)
    }

    /// `POST releases/{id}/acknowledgement`: against our own rows; then `delivered`, and the key. Idempotent.
    pub(super) async fn take_acknowledgement(
        &self,
        peer: &Peer,
        id: &ReleaseId,
        request: AcknowledgementRequest,
    ) -> Result<KeyAnswer, Refusal> {
        retry!(self.acknowledge_once(peer, id, &request))
    }

    async fn acknowledge_once(
        &self,
        partner: &Peer,
        id: &ReleaseId,
        request: &AcknowledgementRequest,
    ) -> Result<KeyAnswer, Refusal> {
        let peer: &ParticipantId = &partner.did.clone().into();
        self.restorations.over(peer)?;
        let (row, release) = self.release_row(peer, id).await?;
        let acknowledgement =
            jws::verify::<Acknowledgement>(&request.acknowledgement, Typ::Acknowledgement, peer, |kid| {
                self.peers.current_key(kid)
            })
            .map_err(refuse("acknowledgement-signature"))?;
        let sha256 = acknowledgement.sha256();
        let body = acknowledgement.payload();
        if let Some(delivered) = &release.delivered {
            return if delivered.acknowledgement == sha256 {
                self.key_answer(&release, delivered).await
            } else {
                Err(Refusal::new("release-closed", "this release was acknowledged otherwise before"))
            };
        }
        if body.release != release.id || body.released != release.released.sha256() {
            return Err(Refusal::new(
                "acknowledgement-mismatch",
                "the acknowledgement names another release, or another receipt, than this one",
            ));
        }
        let (agreement_row, agreement) = self.agreement(&release.agreement).await?;
        let half = self
            .check_half(&agreement, partner, &[Kind::Acknowledged], &request.acknowledged, |kid| {
                self.peers.current_key(kid)
            })
            .await?;
        if half.receipt.refers != Some(release.released.sha256())
            || half.receipt.payload.as_ref().is_none_or(|payload| payload.segments != body.segments)
        {
            return Err(Refusal::new(
                "acknowledgement-mismatch",
                "the consumer's receipt is not of this acknowledgement",
            ));
        }
        let sent: Vec<SentBody> = list(&*self.store, &bodies_prefix(id), None, 1024)
            .await
            .map_err(refuse("store-unreadable"))?
            .into_iter()
            .filter_map(|row| row.value)
            .collect();
        check_segments(&sent, &body.segments)?;
        // revocation ends a release that is under way: the key stays here
        agreement.in_force(self.clock.now())?;

        let mut commit = Commit::new();
        let grant = Grant {
            transfer: release.transfer.clone(),
            agreement: release.agreement.clone(),
            peer: peer.clone(),
            jti: String::new(),
            closed: None,
        };
        let mut receipt = self.release_receipt(Kind::Delivered, &agreement, &grant, id);
        receipt.refers = Some(sha256);
        receipt.key_sha256 = Some(release.keying(&self.keys.release).hash());
        receipt.payload = Some(Payload {
            bytes: body.segments.iter().map(|segment| segment.bytes).sum(),
            records: sent.iter().rev().find_map(|body| body.plain?.records),
            segments: body.segments.clone(),
        });
        let jws = self.agreement_receipt(&mut commit, &agreement, receipt)?;
        self.keep_half(&mut commit, &half)?;
        commit.half(PartnerHalf {
            agreement: release.agreement.clone(),
            kind: "acknowledgement".into(),
            jws: request.acknowledgement.clone(),
            number: None,
            proof: None,
        });
        self.begin_duties(&mut commit, &agreement, id, release.released.sha256(), release.duties)?;
        let mut next = release.clone();
        next.state = ReleaseState::Delivered;
        next.delivered = Some(crate::dataplane::Delivered {
            acknowledgement: sha256,
            one_time_key: body.one_time_key,
            receipt: jws,
        });
        let mut settled = agreement.clone();
        if settled.open.as_ref().is_some_and(|open| open.id == *id) {
            settled.open = None;
        }
        if let Some(actual) = sent.iter().rev().find_map(|body| body.plain) {
            let zone = self.agreed_offer(&agreement)?.policy.zone;
            let subject_key = subject_key(peer, &agreement.agreement.dataset);
            let subject = read::<SubjectRow>(&*self.store, &subject_key).await.map_err(refuse("store-unreadable"))?;
            let (reserved, when) = (release.reserved, release.reserved_at);
            let records = actual.records.unwrap_or(reserved.records);
            let actual = Amount { count: 1, records, bytes: actual.bytes };
            settled.releases.settle(reserved, actual, when, zone);
            let mut tallies = subject.value.clone().unwrap_or_default();
            tallies.entry(Action::Release.as_str().to_owned()).or_default().settle(reserved, actual, when, zone);
            commit.put(&subject, &tallies).map_err(refuse("internal"))?;
        }
        commit.put(&agreement_row, &settled).map_err(refuse("internal"))?;
        commit.put(&row, &next).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        self.dataplane.forget(id);
        match &next.delivered {
            Some(delivered) => self.key_answer(&next, delivered).await,
            None => Err(no_reason()),
        }
    }

    async fn key_answer(
        &self,
        release: &ReleaseRow,
        delivered: &crate::dataplane::Delivered,
    ) -> Result<KeyAnswer, Refusal> {
        let keying = release.keying(&self.keys.release);
        let kid = format!("one-time-{}", &sha256(delivered.one_time_key.bytes()).to_string()[..16]);
        let key = jwe::seal(&delivered.one_time_key, &kid, KEY_CTY, keying.bytes(), &*self.random)
            .map_err(refuse("internal"))?;
        Ok(KeyAnswer { delivered: self.logged(&delivered.receipt).await?, key })
    }

    /// `POST releases/{id}/outcome`: the consumer's `opened` or `disputed`, kept beside ours.
    pub(super) async fn take_outcome(
        &self,
        peer: &Peer,
        id: &ReleaseId,
        request: OutcomeRequest,
    ) -> Result<(), Refusal> {
        retry!(self.outcome_once(peer, id, &request))
    }

    async fn outcome_once(&self, peer: &Peer, id: &ReleaseId, request: &OutcomeRequest) -> Result<(), Refusal> {
        let (_, release) = self.release_row(&peer.did.clone().into(), id).await?;
        let (_, agreement) = self.agreement(&release.agreement).await?;
        let kinds = [Kind::Opened, Kind::Disputed];
        let half =
            self.check_half(&agreement, peer, &kinds, &request.outcome, |kid| self.peers.verifying_key(kid)).await?;
        let receipt = &half.receipt;
        let delivered = release.delivered.as_ref().map(|delivered| delivered.receipt.sha256());
        if receipt.refers.is_none() || receipt.refers != delivered {
            return Err(Refusal::new("outcome-mismatch", "the outcome is not of this release's delivery"));
        }
        let mut commit = Commit::new();
        self.keep_half(&mut commit, &half)?;
        self.commit(commit).await.map(|_| ())
    }

    async fn release_row(
        &self,
        peer: &ParticipantId,
        id: &ReleaseId,
    ) -> Result<(Row<ReleaseRow>, ReleaseRow), Refusal> {
        let row = read::<ReleaseRow>(&*self.store, &ReleaseRow::key(id)).await.map_err(refuse("store-unreadable"))?;
        match row.value.clone().filter(|release| release.peer == *peer) {
            Some(release) => Ok((row, release)),
            None => Err(Refusal::new("release-unknown", "there is no such release of this participant")),
        }
    }

    fn release_receipt(&self, kind: Kind, agreement: &AgreementRow, grant: &Grant, id: &ReleaseId) -> Receipt {
        let mut receipt = self.receipt(kind, Some(agreement));
        receipt.transfer = Some(grant.transfer.clone());
        receipt.release = Some(id.clone());
        receipt
    }

    /// The offer of an agreement, verified again: nothing in a row is trusted for being there.
    pub(super) fn agreed_offer(&self, agreement: &AgreementRow) -> Result<Offer, Refusal> {
        let (provider, consumer) = (&agreement.agreement.provider.id, &agreement.agreement.consumer.id);
        if agreement.one_sided {
            return self.own_offer(agreement);
        }
        let offer = crate::offer::verify(&agreement.offer, provider, consumer, |kid| self.verifying_key(kid))
            .map_err(refuse("offer-signature"))?;
        if offer.sha256() != agreement.agreement.offer {
            return Err(Refusal::new(
                "offer-mismatch",
                "the agreement is about another offer than the one kept with it",
            ));
        }
        // both signatures, over the same content, before every release and use
        for (jws, signer) in [(agreement.by_provider.as_ref(), provider), (agreement.by_consumer.as_ref(), consumer)] {
            let jws = jws.ok_or_else(|| Refusal::new("agreement-unsigned", "the agreement lacks a signature"))?;
            let signed = crate::agreement::verify(jws, signer, |kid| self.verifying_key(kid))
                .map_err(refuse("agreement-signature"))?;
            if *signed.payload() != agreement.agreement {
                return Err(Refusal::new("agreement-mismatch", "the parties signed different agreements"));
            }
        }
        Ok(offer.into_payload())
    }

    /// The offer of an agreement that only we have signed, as we signed it.
    fn own_offer(&self, agreement: &AgreementRow) -> Result<Offer, Refusal> {
        let offer = jws::verify::<Offer>(&agreement.offer, Typ::Offer, &self.us, |kid| self.verifying_key(kid))
            .map_err(refuse("offer-signature"))?;
        let ours = match agreement.ours {
            Party::Provider => &agreement.by_provider,
            Party::Consumer => &agreement.by_consumer,
        };
        let ours =
            ours.as_ref().ok_or_else(|| Refusal::new("agreement-unsigned", "the agreement lacks our signature"))?;
        let signed = crate::agreement::verify(ours, &self.us, |kid| self.verifying_key(kid))
            .map_err(refuse("agreement-signature"))?;
        if *signed.payload() != agreement.agreement || offer.sha256() != agreement.agreement.offer {
            return Err(Refusal::new("agreement-mismatch", "the agreement is not the one that we signed"));
        }
        Ok(offer.into_payload())
    }

    /// Ends the wait for an acknowledgement that lapsed; the count stays spent.
    pub async fn lift_release(&self, id: &ReleaseId) -> Result<(), Refusal> {
        retry!(self.lift_once(id))
    }

    async fn lift_once(&self, id: &ReleaseId) -> Result<(), Refusal> {
        let row = read::<ReleaseRow>(&*self.store, &ReleaseRow::key(id)).await.map_err(refuse("store-unreadable"))?;
        let Some(release) = row.value.clone() else {
            return Err(Refusal::new("release-unknown", format!("no release has the id `{id}`")));
        };
        let (agreement_row, mut agreement) = self.agreement(&release.agreement).await?;
        if release.state != ReleaseState::Lapsed {
            return Err(Refusal::new(
                "release-not-lapsed",
                format!("only a release whose deadline ({}) has passed can be lifted", release.deadline),
            ));
        }
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Lifted, Some(&agreement));
        receipt.release = Some(id.clone());
        receipt.refers = Some(release.released.sha256());
        self.agreement_receipt(&mut commit, &agreement, receipt)?;
        if agreement.open.as_ref().is_some_and(|open| open.id == *id) {
            agreement.open = None;
        }
        commit.put(&agreement_row, &agreement).map_err(refuse("internal"))?;
        commit.put(&row, &ReleaseRow { state: ReleaseState::Lifted, ..release }).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }

    /// Closes an open release whose deadline has passed: its count stays spent, the agreement stays blocked.
    pub(super) async fn lapse(&self, id: &ReleaseId) -> Result<(), Refusal> {
        let row = read::<ReleaseRow>(&*self.store, &ReleaseRow::key(id)).await.map_err(refuse("store-unreadable"))?;
        let Some(release) = row.value.clone() else { return Ok(()) };
        let now = self.clock.now();
        if release.state != ReleaseState::Open || now < release.deadline {
            return Ok(());
        }
        self.restorations.over(&release.peer)?;
        let (agreement_row, mut agreement) = self.agreement(&release.agreement).await?;
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Lapsed, Some(&agreement));
        receipt.release = Some(id.clone());
        receipt.refers = Some(release.released.sha256());
        self.agreement_receipt(&mut commit, &agreement, receipt)?;
        if let Some(open) = agreement.open.as_mut().filter(|open| open.id == *id) {
            open.lapsed = true;
        }
        commit.put(&agreement_row, &agreement).map_err(refuse("internal"))?;
        commit.put(&row, &ReleaseRow { state: ReleaseState::Lapsed, ..release }).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        self.dataplane.forget(id);
        Ok(())
    }
}

/// Whether these obligations can be applied to data with these columns: found out before anything is spent.
///
/// # Errors
/// `obligations-unmet`.
pub(super) fn can_apply(obligations: &Obligations, columns: &Columns, format: Option<&str>) -> Result<(), Refusal> {
    let unmet = |error: &dyn std::fmt::Display| Refusal::new("obligations-unmet", error.to_string());
    let format: Format = format.unwrap_or("csv").parse().map_err(|error| unmet(&error))?;
    // what depends on the request is made a limit and a filter by it
    let always = Obligations { quota: None, matching: BTreeSet::new(), ..obligations.clone() };
    Plan::compile(&always, columns, format, Arc::new(NoKeys)).map(|_| ()).map_err(|error| unmet(&error))
}

/// Stands for keys where nothing is applied.
struct NoKeys;

impl HashKey for NoKeys {
    fn key(&self, _domain: &str) -> [u8; 32] {
        [0; 32]
    }
}

/// Bounds on what a peer may send along.
fn bounded(request: &ReleaseRequest) -> Result<(), Refusal> {
    let too_long =
        |what: &str, most: usize| Refusal::new("purpose-too-long", format!("{what} has at most {most} bytes"));
    if request.purpose.len() > MAX_PURPOSE {
        return Err(too_long("a purpose", MAX_PURPOSE));
    }
    let software = &request.software;
    let models = &software.machine_learning_models;
    let texts = [&software.application, &software.algorithm, &software.execution_env]
        .into_iter()
        .chain(models)
        .chain(&request.accepts)
        .chain(request.person.iter().chain(&request.code));
    if models.len() > MAX_LISTED || request.accepts.len() > MAX_LISTED {
        return Err(too_long("a list", MAX_LISTED));
    }
    if let Some(long) = texts.into_iter().find(|text| text.len() > MAX_PURPOSE) {
        return Err(too_long(&long.chars().take(20).collect::<String>(), MAX_PURPOSE));
    }
    Ok(())
}

/// What a release spends until it is acknowledged: the most that it can be.
pub(super) fn reserved(extent: Extent, obligations: &Obligations) -> Amount {
    let limit = obligations.limit.unwrap_or(u64::MAX);
    Amount { count: 1, records: extent.records.unwrap_or(0).min(limit), bytes: extent.bytes }
}

fn no_open_release(agreement: &AgreementRow) -> Result<(), Refusal> {
    match &agreement.open {
        None => Ok(()),
        Some(open) if open.lapsed => Err(Refusal::new(
            "release-lapsed",
            format!(
                "release {} was never acknowledged until {}: acknowledge it, or ask the provider's steward to lift it",
                open.id, open.deadline
            ),
        )),
        Some(open) => Err(Refusal::new(
            "release-open",
            format!("release {} waits for its acknowledgement until {}; acknowledge it first", open.id, open.deadline),
        )),
    }
}

fn no_reason() -> Refusal {
    Refusal::new("policy-no-permit", "the policy did not allow it")
}
