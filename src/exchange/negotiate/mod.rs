//! Negotiate: from a request to an agreement that both signed.
//!
//! ```text
//!   consumer                                provider
//!   ContractRequest ──────────────────────▶ decide (negotiate), make and sign the agreement
//!   verify, sign it ◀────────────────────── ContractAgreement (agreementJws, series secret sealed to us)
//!   ContractAgreementVerification ────────▶ verify the consumer's signature: the agreement is in force
//!   in force ◀───────────────────────────── ContractNegotiationEvent FINALIZED
//! ```

mod act;
mod agree;
mod take;

use std::time::Duration;

use serde::Serialize;

use crate::{
    agreement::AgreementState,
    crypto::jws,
    error::Refusal,
    exchange::{
        Exchange,
        outbox::Draft,
        refuse,
        rows::{About, NegotiationRow},
    },
    id::{AgreementId, DatasetId, OfferId, ParticipantId, Pid},
    identity::Partner,
    offer::Approval,
    protocol::{
        NegotiationState, Party, ProtocolError,
        message::{
            self, Address, ContractNegotiation, ContractRequest, ContractTermination, Counterpart, MessageOffer,
            NegotiationMessage, Rules,
        },
        outgoing::{Message, Outgoing},
    },
    receipt::{Commit, Kind, PartnerHalf, Row, list, read},
};

pub use self::act::NegotiationAction;

/// The content type of the series secret's JWE.
const SECRET_CTY: &str = "counterseal-series-secret";

/// What a person asks for.
#[derive(Clone, Debug)]
pub struct NegotiationRequest {
    /// With whom.
    pub provider: ParticipantId,
    /// About what.
    pub dataset: DatasetId,
    /// About which offer of it; needed with a foreign provider, whose offers are not signed.
    pub offer: Option<OfferId>,
    /// The provider's `<base>`, if it is another than the one that is known of it; it must be below that one.
    pub address: Option<Address>,
    /// Whether our steps wait for a person.
    pub approval: Approval,
}

impl NegotiationRequest {
    /// About a partner's dataset, in its signed offer, with our steps taken at once.
    pub fn about(provider: impl Into<ParticipantId>, dataset: DatasetId) -> Self {
        Self { provider: provider.into(), dataset, offer: None, address: None, approval: Approval::Auto }
    }
}

/// How a negotiation stands, for people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NegotiationView {
    /// Our pid.
    pub pid: Pid,
    /// The side that we are on.
    pub role: Party,
    /// Its state.
    pub state: NegotiationState,
    /// With whom.
    pub peer: ParticipantId,
    /// About what.
    pub dataset: DatasetId,
    /// In which offer.
    pub offer: OfferId,
    /// What came of it.
    pub agreement: Option<AgreementId>,
    /// Why it ended.
    pub ended: Option<Refusal>,
}

impl From<NegotiationRow> for NegotiationView {
    fn from(row: NegotiationRow) -> Self {
        Self {
            pid: row.pid,
            role: row.ours,
            state: row.state,
            peer: row.peer,
            dataset: row.dataset,
            offer: row.offer_id,
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
        let partner = self.partner(&request.provider)?;
        let callback = match &request.address {
            None => partner.base(),
            Some(address) if partner.target().allows(address.as_str()) => address.as_str().to_owned(),
            Some(address) => {
                return Err(Refusal::new(
                    "address-not-pinned",
                    format!("`{address}` is not at the address that is known of {}: {}", partner.id(), partner.base()),
                ));
            }
        };
        let (offer, offer_id, rules) = match &partner {
            Partner::Certificate(peer) => {
                let remote = self.offer_of(&peer.did, &request.dataset).await?;
                let offer = remote.offer.payload();
                // refused before anything is asked for: what we could not enforce we don't agree to
                offer.slice().map_err(refuse("policy-unusable"))?;
                if !offer.stands_at(self.clock.now()) {
                    return Err(Refusal::new("offer-expired", "the offer does not stand at present"));
                }
                if request.offer.as_ref().is_some_and(|wanted| *wanted != offer.id) {
                    return Err(Refusal::new("offer-mismatch", format!("the dataset is offered as `{}`", offer.id)));
                }
                let rules = Rules::from_odrl(&offer.policy.odrl).map_err(refuse("policy-unusable"))?;
                (Some(remote.offer.jws().clone()), offer.id.clone(), rules)
            }
            // whatever it offers is read by a person, in its catalog or in its agreement
            Partner::Token(_) => {
                let offer = request.offer.clone().ok_or_else(|| {
                    Refusal::new("offer-missing", "name the offer: a foreign provider's catalog has its id")
                })?;
                (None, offer, Rules::permit("use"))
            }
        };
        let terms = MessageOffer {
            id: offer_id,
            target: request.dataset.clone(),
            assigner: Some(partner.id()),
            assignee: Some(self.us.clone().into()),
            rules,
        };
        self.request_agreement(&partner, callback, offer, terms, request.approval).await
    }

    /// The first request: for these terms, in this signed offer where there is one.
    pub(super) async fn request_agreement(
        &self,
        partner: &Partner,
        callback: String,
        offer: Option<jws::Jws>,
        terms: MessageOffer,
        approval: Approval,
    ) -> Result<Pid, Refusal> {
        let now = self.clock.now();
        let row = NegotiationRow {
            pid: self.mint(),
            peer_pid: None,
            ours: Party::Consumer,
            peer: partner.id(),
            callback,
            state: NegotiationState::Requested,
            offer_id: terms.id.clone(),
            dataset: terms.target.clone(),
            approval,
            proposed: None,
            agreement: None,
            ended: None,
            begun: now,
            moved: now,
            offer,
        };
        let message = NegotiationMessage::Request(ContractRequest {
            consumer_pid: row.pid.clone(),
            counterpart: Counterpart::New { callback_address: self.callback_for(partner)? },
            offer: terms,
            offer_sha256: row.offer.as_ref().map(jws::Jws::sha256),
            purpose: None,
        });
        let mut commit = Commit::new();
        self.say(&mut commit, &row, message, false)?;
        self.begin_negotiation(&mut commit, &row)?;
        self.commit(commit).await?;
        self.post();
        Ok(row.pid)
    }

    /// Waits until a negotiation is over, or for so long.
    pub async fn negotiation_end(&self, pid: &Pid, patience: Duration) -> Result<NegotiationView, Refusal> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let (_, row) = self.negotiation_row(pid).await?;
            if row.state.is_final() {
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

    // === rows ===

    /// A negotiation that is new.
    fn begin_negotiation(&self, commit: &mut Commit, row: &NegotiationRow) -> Result<(), Refusal> {
        self.announce_negotiation(commit, None, row);
        commit.put_new(NegotiationRow::key(&row.pid), row).map_err(refuse("internal"))
    }

    /// A negotiation that moved, or of which something became known.
    pub(super) fn keep_negotiation(
        &self,
        commit: &mut Commit,
        kept: &Row<NegotiationRow>,
        row: &NegotiationRow,
    ) -> Result<(), Refusal> {
        self.announce_negotiation(commit, kept.value.as_ref(), row);
        commit.put(kept, row).map_err(refuse("internal"))
    }

    // === ends ===

    /// A negotiation ended otherwise than finalized; an agreement that was not in force yet ends with it.
    async fn end(&self, commit: &mut Commit, row: &mut NegotiationRow, why: Refusal) -> Result<(), Refusal> {
        row.state = NegotiationState::Terminated;
        row.ended = Some(why.clone());
        row.proposed = None;
        if let Some((kept, mut agreement)) = self.agreement_of(row).await?
            && agreement.state != AgreementState::Revoked
        {
            agreement.state = AgreementState::Expired;
            agreement.ended = Some(why.clone());
            commit.put(&kept, &agreement).map_err(refuse("internal"))?;
        }
        let mut receipt = self.receipt(Kind::Negotiated, None);
        let us = self.us.clone().into();
        (receipt.provider, receipt.consumer) = match row.ours {
            Party::Provider => (us, Some(row.peer.clone())),
            Party::Consumer => (row.peer.clone(), Some(us)),
        };
        receipt.offer = row.offer.as_ref().map(jws::Jws::sha256);
        receipt.reason = Some(why);
        self.node_receipt(commit, receipt).map(|_| ())
    }

    /// We terminate, and say why.
    fn give_up(&self, commit: &mut Commit, row: &mut NegotiationRow, why: Refusal) -> Result<(), Refusal> {
        row.state = NegotiationState::Terminated;
        row.ended = Some(why.clone());
        row.proposed = None;
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
        self.keep_negotiation(commit, &row, &found)
    }

    /// The peer will not take a letter of a negotiation's.
    pub(super) async fn negotiation_undeliverable(
        &self,
        commit: &mut Commit,
        pid: &Pid,
        why: Refusal,
    ) -> Result<(), Refusal> {
        let (row, mut found) = self.negotiation_row(pid).await?;
        match (found.state, found.ours) {
            (NegotiationState::Terminated, _) => return Ok(()),
            // what came after it says that it did arrive, whatever became of its answer
            (NegotiationState::Finalized, Party::Consumer) => return Ok(()),
            // the agreement is signed by both and in force; only the news did not arrive
            (NegotiationState::Finalized, Party::Provider) => found.ended = Some(why),
            _ => self.end(commit, &mut found, why).await?,
        }
        self.keep_negotiation(commit, &row, &found)
    }

    pub(super) async fn negotiation_row(&self, pid: &Pid) -> Result<(Row<NegotiationRow>, NegotiationRow), Refusal> {
        let row = read::<NegotiationRow>(&*self.store, &NegotiationRow::key(pid))
            .await
            .map_err(refuse("store-unreadable"))?;
        match row.value.clone() {
            Some(found) => Ok((row, found)),
            None => Err(Refusal::new("negotiation-unknown", format!("no negotiation has the pid `{pid}`"))),
        }
    }
}

fn half(agreement: &AgreementId, jws: jws::Jws) -> PartnerHalf {
    PartnerHalf { agreement: agreement.clone(), kind: "agreement".into(), jws, number: None, proof: None }
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
