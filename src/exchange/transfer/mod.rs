//! Transfer: the process under which releases are made. A provider starts it at once, unless a person does; its grant and
//! token live and end with it.

mod act;
mod take;
mod token;

use std::time::Duration;

use serde::Serialize;

use crate::{
    agreement::AgreementRow,
    dataplane::Grant,
    error::Refusal,
    exchange::{
        Exchange,
        outbox::Draft,
        refuse, retry,
        rows::{About, TokenSpec, TransferRow},
    },
    id::{AgreementId, ParticipantId, Pid},
    identity::Partner,
    offer::Approval,
    protocol::{
        BASE, Party, ProtocolError, TransferState, extension,
        message::{
            self, Address, DataAddress, HTTP_PUSH, TransferCompletion, TransferMessage, TransferProcess,
            TransferRequest, TransferStart, TransferTermination,
        },
        outgoing::{Message, Outgoing},
        transfer,
    },
    receipt::{Commit, Row, list, read},
};

pub use self::act::TransferAction;

type Step = Result<TransferProcess, ProtocolError>;

/// How a transfer stands, for people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferView {
    /// Our pid.
    pub pid: Pid,
    /// The side that we are on.
    pub role: Party,
    /// Its state.
    pub state: TransferState,
    /// With whom.
    pub peer: ParticipantId,
    /// Under which agreement.
    pub agreement: AgreementId,
    /// How the data goes over.
    pub format: String,
    /// Why it ended or was suspended.
    pub ended: Option<Refusal>,
}

impl From<TransferRow> for TransferView {
    fn from(row: TransferRow) -> Self {
        Self {
            pid: row.pid,
            role: row.ours,
            state: row.state,
            peer: row.peer,
            agreement: row.agreement,
            format: row.format,
            ended: row.ended,
        }
    }
}

impl Exchange {
    // === the consumer ===

    /// Asks the provider for a transfer under this agreement. `address` is the provider's `<base>`, if it is another than
    /// the one that is known of it.
    pub async fn request_transfer(
        &self,
        agreement: &AgreementRow,
        format: &str,
        address: Option<&Address>,
        approval: Approval,
    ) -> Result<Pid, Refusal> {
        let partner = self.partner(agreement.peer())?;
        if agreement.ours != Party::Consumer {
            return Err(Refusal::new("agreement-not-ours", "only an agreement's consumer asks for a transfer"));
        }
        agreement.in_force(self.clock.now())?;
        let callback = match address {
            None => partner.base(),
            Some(address) if partner.target().allows(address.as_str()) => address.as_str().to_owned(),
            Some(address) => {
                return Err(Refusal::new(
                    "address-not-pinned",
                    format!("`{address}` is not at the address that is known of {}: {}", partner.id(), partner.base()),
                ));
            }
        };
        let now = self.clock.now();
        let row = TransferRow {
            pid: self.mint(),
            peer_pid: None,
            ours: Party::Consumer,
            peer: partner.id(),
            callback,
            state: TransferState::Requested,
            agreement: agreement.id().clone(),
            format: format.to_owned(),
            approval,
            certificate: None,
            endpoint: None,
            ended: None,
            begun: now,
            moved: now,
        };
        let message = TransferMessage::Request(TransferRequest {
            consumer_pid: row.pid.clone(),
            agreement_id: row.agreement.clone(),
            format: row.format.clone(),
            callback_address: self.callback_for(&partner)?,
            data_address: None,
            purpose: None,
        });
        let mut commit = Commit::new();
        self.say_transfer(&mut commit, &row, message, false, None)?;
        self.announce_transfer(&mut commit, None, &row);
        commit.put_new(TransferRow::key(&row.pid), &row).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        self.post();
        Ok(row.pid)
    }

    /// All transfers.
    pub async fn transfers(&self) -> Result<Vec<TransferView>, Refusal> {
        let rows = list::<TransferRow>(&*self.store, TransferRow::PREFIX.as_bytes(), None, 10_000)
            .await
            .map_err(refuse("store-unreadable"))?;
        let mut rows: Vec<TransferRow> = rows.into_iter().filter_map(|row| row.value).collect();
        rows.sort_by_key(|row| row.begun);
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// Waits until a transfer has started or is over.
    pub(super) async fn transfer_started(&self, pid: &Pid, patience: Duration) -> Result<TransferRow, Refusal> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let (_, row) = self.transfer_row(pid).await?;
            match row.state {
                TransferState::Started if row.endpoint.is_some() => return Ok(row),
                TransferState::Terminated | TransferState::Completed | TransferState::Suspended => {
                    return Err(row.ended.unwrap_or_else(|| {
                        Refusal::new("transfer-over", format!("the transfer is {}", row.state.as_str()))
                    }));
                }
                _ => {}
            }
            if tokio::time::timeout_at(deadline, moved).await.is_err() {
                return Err(Refusal::new(
                    "transfer-pending",
                    format!(
                        "the provider has not started the transfer within {} s; fetch again later",
                        patience.as_secs()
                    ),
                ));
            }
        }
    }

    /// The consumer has what it wanted.
    pub(super) async fn complete_transfer(&self, pid: &Pid) -> Result<(), Refusal> {
        let done = retry!(self.complete_once(pid));
        self.post();
        done
    }

    async fn complete_once(&self, pid: &Pid) -> Result<(), Refusal> {
        let (kept, mut row) = self.transfer_row(pid).await?;
        let Ok(state) = transfer::next(Some(row.state), Party::Consumer, transfer::Event::Complete) else {
            return Ok(());
        };
        let (consumer_pid, provider_pid) = both(&row)?;
        row.state = state;
        row.moved = self.clock.now();
        let mut commit = Commit::new();
        let message = TransferMessage::Completion(TransferCompletion { provider_pid, consumer_pid });
        self.say_transfer(&mut commit, &row, message, true, None)?;
        self.keep_transfer(&mut commit, &kept, &row)?;
        self.commit(commit).await?;
        self.forget_token(&row);
        Ok(())
    }

    // === the provider ===

    /// STARTED, for the first time or again: a fresh token, which alone counts from now on.
    fn start_transfer(
        &self,
        commit: &mut Commit,
        row: &mut TransferRow,
        kept: Option<&Row<Grant>>,
    ) -> Result<(), Refusal> {
        let partner = self.partner(&row.peer)?;
        let jti: Pid = self.mint();
        let spec = TokenSpec {
            transfer: row.pid.clone(),
            jti: jti.as_str().to_owned(),
            certificate: row.certificate,
            issued: self.clock.now(),
        };
        let grant = Grant {
            transfer: row.pid.clone(),
            agreement: row.agreement.clone(),
            peer: row.peer.clone(),
            jti: spec.jti.clone(),
            closed: None,
        };
        let endpoint = match &partner {
            Partner::Certificate(_) => format!("{}{BASE}{}", self.base_url, extension::releases_path()),
            Partner::Token(_) => format!("{}{}", self.plain_url, crate::dataplane::plain_path(&row.pid)),
        };
        let endpoint = Address::parse(&endpoint).map_err(refuse("config-public-url"))?;
        let (consumer_pid, provider_pid) = both(row)?;
        row.state = TransferState::Started;
        row.ended = None;
        let start = TransferStart {
            provider_pid,
            consumer_pid,
            // the token itself is put in at delivery; who is brought the data needs none
            data_address: (row.format != HTTP_PUSH).then(|| DataAddress::http(&endpoint, "")),
        };
        self.say_transfer(commit, row, TransferMessage::Start(start), false, Some(spec))?;
        match kept {
            Some(kept) => commit.put(kept, &grant),
            None => commit.put_new(Grant::key(&row.pid), &grant),
        }
        .map_err(refuse("internal"))
    }

    /// A transfer that moved, or of which something became known.
    fn keep_transfer(&self, commit: &mut Commit, kept: &Row<TransferRow>, row: &TransferRow) -> Result<(), Refusal> {
        self.announce_transfer(commit, kept.value.as_ref(), row);
        commit.put(kept, row).map_err(refuse("internal"))
    }

    /// Opens or closes what may flow under a transfer, in the commit that moves it.
    pub(super) async fn set_grant(
        &self,
        commit: &mut Commit,
        row: &TransferRow,
        closed: Option<Refusal>,
    ) -> Result<(), Refusal> {
        let kept = read::<Grant>(&*self.store, &Grant::key(&row.pid)).await.map_err(refuse("store-unreadable"))?;
        if let Some(mut grant) = kept.value.clone()
            && grant.closed != closed
        {
            grant.closed = closed;
            commit.put(&kept, &grant).map_err(refuse("internal"))?;
        }
        Ok(())
    }

    /// The provider ends a transfer, and says why.
    pub(super) async fn terminate_transfer(
        &self,
        commit: &mut Commit,
        pid: &Pid,
        why: &Refusal,
    ) -> Result<(), Refusal> {
        let (kept, mut row) = self.transfer_row(pid).await?;
        let Ok(state) = transfer::next(Some(row.state), row.ours, transfer::Event::Terminate) else { return Ok(()) };
        row.state = state;
        row.ended = Some(why.clone());
        row.moved = self.clock.now();
        if row.ours == Party::Provider {
            self.set_grant(commit, &row, Some(why.clone())).await?;
        }
        if let Ok((consumer_pid, provider_pid)) = both(&row) {
            let message = TransferTermination {
                provider_pid,
                consumer_pid,
                code: Some(why.code.as_str().to_owned()),
                reason: vec![why.sentence.clone()],
            };
            self.say_transfer(commit, &row, TransferMessage::Termination(message), true, None)?;
        }
        self.keep_transfer(commit, &kept, &row)
    }

    fn say_transfer(
        &self,
        commit: &mut Commit,
        row: &TransferRow,
        message: TransferMessage,
        last: bool,
        token: Option<TokenSpec>,
    ) -> Result<(), Refusal> {
        let outgoing = Outgoing { id: self.mint(), to: row.ours.other(), message: Message::Transfer(message) };
        self.letter(
            commit,
            Draft {
                peer: &row.peer,
                process: &row.pid,
                about: About::Transfer,
                url: format!("{}{}", row.callback, outgoing.path()),
                body: outgoing.body(),
                last,
                token,
            },
        )
    }

    // === what comes of letters ===

    /// The peer took a letter of a transfer's.
    pub(super) async fn transfer_delivered(&self, commit: &mut Commit, pid: &Pid, body: &[u8]) -> Result<(), Refusal> {
        let (kept, mut row) = self.transfer_row(pid).await?;
        if row.peer_pid.is_some() {
            return Ok(());
        }
        let ack: TransferProcess =
            message::read(body).map_err(|malformed| Refusal::new("answer-invalid", malformed.to_string()))?;
        if ack.consumer_pid != row.pid {
            return Err(Refusal::new("pid-mismatch", "the peer's answer is about another transfer"));
        }
        row.peer_pid = Some(ack.provider_pid);
        self.keep_transfer(commit, &kept, &row)
    }

    /// The peer will not take a letter of a transfer's.
    pub(super) async fn transfer_undeliverable(
        &self,
        commit: &mut Commit,
        pid: &Pid,
        why: Refusal,
    ) -> Result<(), Refusal> {
        let (kept, mut row) = self.transfer_row(pid).await?;
        if matches!(row.state, TransferState::Completed | TransferState::Terminated) {
            return Ok(());
        }
        row.state = TransferState::Terminated;
        row.ended = Some(why.clone());
        if row.ours == Party::Provider {
            self.set_grant(commit, &row, Some(why)).await?;
        }
        self.keep_transfer(commit, &kept, &row)
    }

    pub(super) async fn transfer_row(&self, pid: &Pid) -> Result<(Row<TransferRow>, TransferRow), Refusal> {
        let row =
            read::<TransferRow>(&*self.store, &TransferRow::key(pid)).await.map_err(refuse("store-unreadable"))?;
        match row.value.clone() {
            Some(found) => Ok((row, found)),
            None => Err(Refusal::new("transfer-unknown", format!("no transfer has the pid `{pid}`"))),
        }
    }
}

fn both(row: &TransferRow) -> Result<(Pid, Pid), Refusal> {
    match row.pids() {
        (Some(consumer), Some(provider)) => Ok((consumer, provider)),
        _ => Err(Refusal::new("pid-unknown", "the other side's pid is not known yet")),
    }
}

fn shown(row: &TransferRow) -> Step {
    let (consumer_pid, provider_pid) = both(row).map_err(|_| ProtocolError::not_found())?;
    Ok(TransferProcess { provider_pid, consumer_pid, state: row.state })
}
