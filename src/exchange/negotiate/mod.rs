//! Negotiate: from a request to an agreement that both signed.
//!
//! ```text
//!   consumer                                provider
//!   ContractRequest ──────────────────────▶ decide (negotiate), make and sign the agreement
//!   verify, sign it ◀────────────────────── ContractAgreement (agreementJws, series secret sealed to us)
//!   ContractAgreementVerification ────────▶ verify the consumer's signature: the agreement is in force
//!   in force ◀───────────────────────────── ContractNegotiationEvent FINALIZED
//! ```

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
    id::{AgreementId, DatasetId, Did, Pid},
    protocol::{
        BASE, NegotiationState, Party, ProtocolError,
        message::{
            self, Address, ContractNegotiation, ContractRequest, ContractTermination, Counterpart, MessageOffer,
            NegotiationMessage, Rules,
        },
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
