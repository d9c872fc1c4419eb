//! Transfer: the process under which releases are made. A provider starts it at once; its grant and token live and end
//! with it.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    time::Duration,
};

use crate::{
    crypto::{RandomExt, jws::Jws},
    dataplane::Grant,
    error::Refusal,
    exchange::{
        Exchange,
        negotiate::into_protocol,
        outbox::Draft,
        refuse, retry,
        rows::{About, Endpoint, TokenSpec, TransferRow},
    },
    id::{AgreementId, Did, MessageId, Pid, Sha256},
    identity::{Peer, token},
    protocol::{
        BASE, Incoming, Party, Pids, ProtocolError, TransferState, check_pids, extension,
        message::{
            self, Address, DataAddress, TransferCompletion, TransferMessage, TransferProcess, TransferRequest,
            TransferStart, TransferTermination,
        },
        outgoing::{Message, Outgoing},
        transfer,
    },
    receipt::{Commit, Row, read},
};

/// How long a transfer token is good.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

type Step = Result<TransferProcess, ProtocolError>;

impl Exchange {
    // === the consumer ===

    /// Asks the provider for a transfer under this agreement.
    pub(super) async fn request_transfer(&self, agreement: &AgreementId, peer: &Peer) -> Result<Pid, Refusal> {
        let now = self.clock.now();
        let pid: Pid = self.mint();
        let row = TransferRow {
            pid: pid.clone(),
            peer_pid: None,
            ours: Party::Consumer,
            peer: peer.did.clone(),
            callback: format!("{}{BASE}", peer.statement.endpoints.dsp),
            state: TransferState::Requested,
            agreement: agreement.clone(),
            format: message::HTTP_PULL.into(),
            endpoint: None,
            ended: None,
            begun: now,
            moved: now,
        };
        let message = TransferMessage::Request(TransferRequest {
            consumer_pid: pid.clone(),
            agreement_id: agreement.clone(),
            format: row.format.clone(),
            callback_address: Address::parse(&format!("{}{BASE}", self.base_url)).map_err(refuse("internal"))?,
            data_address: None,
            purpose: None,
        });
        let mut commit = Commit::new();
        self.say_transfer(&mut commit, &row, message, false, None)?;
        commit.put_new(TransferRow::key(&pid), &row).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        self.post();
        Ok(pid)
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
        commit.put(&kept, &row).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        self.forget_token(&row);
        Ok(())
    }

    // === what peers send ===

    /// How one of our transfers stands, to a peer that is its party.
    pub(super) async fn transfer_for(&self, peer: &Did, pid: &Pid) -> Step {
        let row = read::<TransferRow>(&*self.store, &TransferRow::key(pid))
            .await
            .map_err(refuse("store-unreadable"))
            .map_err(into_protocol)?;
        let row = row.value.filter(|row| row.peer == *peer).ok_or_else(ProtocolError::not_found)?;
        shown(&row)
    }

    /// Takes a transfer message.
    pub(super) async fn take_transfer(
        &self,
        peer: &Peer,
        certificate: Option<Sha256>,
        receiver: Party,
        pid: Option<&Pid>,
        incoming: &Incoming<TransferMessage>,
    ) -> Step {
        let step = retry!(self.transfer_step(peer, certificate, receiver, pid, incoming));
        self.post();
        step
    }

    async fn transfer_step(
        &self,
        peer: &Peer,
        certificate: Option<Sha256>,
        receiver: Party,
        pid: Option<&Pid>,
        incoming: &Incoming<TransferMessage>,
    ) -> Step {
        if let Some(answer) = self.seen(&peer.did, incoming.id.as_ref()).await? {
            return serde_json::from_value(answer).map_err(|_| ProtocolError::busy("the answer can't be read"));
        }
        let (pid, request) = match (pid, &incoming.message) {
            (None, TransferMessage::Request(request)) if receiver == Party::Provider => {
                return self.begin_transfer(peer, certificate, incoming.id.as_ref(), request).await;
            }
            (Some(pid), message) => (pid, message),
            _ => return Err(ProtocolError::not_found()),
        };
        let kept = read::<TransferRow>(&*self.store, &TransferRow::key(pid))
            .await
            .map_err(refuse("store-unreadable"))
            .map_err(into_protocol)?;
        let Some(mut row) = kept.value.clone().filter(|row| row.peer == peer.did) else {
            return Err(ProtocolError::not_found());
        };
        let pids = request.pids();
        let (consumer, provider) = row.pids();
        check_pids(pids, Pids { provider: provider.as_ref(), consumer: consumer.as_ref() })?;
        let named = |error: ProtocolError| error.with_pids(provider.clone(), consumer.clone());
        if row.ours != receiver {
            return Err(named(ProtocolError::illegal(format!(
                "this message addresses the {receiver} of the transfer, which we are not"
            ))));
        }
        let sender = receiver.other();
        row.state =
            transfer::next(Some(row.state), sender, request.event()).map_err(|illegal| named(illegal.into()))?;
        if row.peer_pid.is_none() {
            row.peer_pid = match sender {
                Party::Provider => pids.provider.cloned(),
                Party::Consumer => pids.consumer.cloned(),
            };
        }
        row.moved = self.clock.now();
        let closing = match request {
            TransferMessage::Start(start) => {
                row.ended = None;
                if let (Party::Consumer, Some(data)) = (receiver, &start.data_address) {
                    row.endpoint = self.keep_token(peer, data).map_err(|refusal| named(refusal.into()))?;
                }
                None
            }
            TransferMessage::Completion(_) => Some(Refusal::new("transfer-completed", "the transfer is completed")),
            TransferMessage::Suspension(message) => Some(message.refusal()),
            TransferMessage::Termination(message) => Some(message.refusal()),
            TransferMessage::Request(_) => None,
        };
        if let Some(why) = &closing {
            row.ended = Some(why.clone());
        }
        let mut commit = Commit::new();
        if row.ours == Party::Provider {
            self.set_grant(&mut commit, &row, closing).await.map_err(into_protocol)?;
        }
        let answer = shown(&row)?;
        self.remember(&mut commit, &peer.did, incoming.id.as_ref(), &row.pid, &answer)?;
        commit.put(&kept, &row).map_err(|error| ProtocolError::busy(error.to_string()))?;
        self.commit(commit).await.map_err(into_protocol)?;
        if matches!(row.state, TransferState::Completed | TransferState::Terminated) {
            self.forget_token(&row);
        }
        Ok(answer)
    }

    async fn begin_transfer(
        &self,
        peer: &Peer,
        certificate: Option<Sha256>,
        id: Option<&MessageId>,
        request: &TransferRequest,
    ) -> Step {
        let by_peer = TransferRow::peer_key(&peer.did, &request.consumer_pid);
        let known =
            read::<Pid>(&*self.store, &by_peer).await.map_err(refuse("store-unreadable")).map_err(into_protocol)?;
        if let Some(pid) = &known.value {
            return self.transfer_for(&peer.did, pid).await;
        }
        if !peer.target().allows(request.callback_address.as_str()) {
            return Err(ProtocolError::bad(
                "callback-not-pinned",
                format!(
                    "`{}` is not at the endpoint in your participant statement; answers go nowhere else",
                    request.callback_address
                ),
            ));
        }
        if request.format != message::HTTP_PULL {
            let format: String = request.format.chars().take(60).collect();
            return Err(ProtocolError::bad(
                "format-unsupported",
                format!("the format `{format}` is not offered; {} is", message::HTTP_PULL),
            ));
        }
        let unknown = || ProtocolError::bad("agreement-unknown", "there is no such agreement for you");
        let (_, agreement) = self
            .agreement(&request.agreement_id)
            .await
            .map_err(|refusal| if refusal.is("agreement-unknown") { unknown() } else { into_protocol(refusal) })?;
        if agreement.ours != Party::Provider || agreement.peer() != &peer.did {
            return Err(unknown());
        }
        let now = self.clock.now();
        agreement.in_force(now)?;
        self.agreed_offer(&agreement)?;
        let mut row = TransferRow {
            pid: self.mint(),
            peer_pid: Some(request.consumer_pid.clone()),
            ours: Party::Provider,
            peer: peer.did.clone(),
            callback: request.callback_address.as_str().to_owned(),
            state: TransferState::Requested,
            agreement: agreement.id().clone(),
            format: request.format.clone(),
            endpoint: None,
            ended: None,
            begun: now,
            moved: now,
        };
        let answer = shown(&row)?;
        row.state = transfer::next(Some(row.state), Party::Provider, transfer::Event::Start)?;
        let jti: Pid = self.mint();
        let spec = TokenSpec { transfer: row.pid.clone(), jti: jti.as_str().to_owned(), certificate, issued: now };
        let grant = Grant {
            transfer: row.pid.clone(),
            agreement: row.agreement.clone(),
            peer: peer.did.clone(),
            jti: spec.jti.clone(),
            closed: None,
        };
        let mut commit = Commit::new();
        let endpoint = Address::parse(&format!("{}{BASE}{}", self.base_url, extension::releases_path()))
            .map_err(|error| ProtocolError::busy(error.to_string()))?;
        let (consumer_pid, provider_pid) = both(&row)?;
        let start = TransferStart {
            provider_pid,
            consumer_pid,
            // the token itself is put in at delivery
            data_address: Some(DataAddress::http(&endpoint, "")),
        };
        self.say_transfer(&mut commit, &row, TransferMessage::Start(start), false, Some(spec))
            .map_err(into_protocol)?;
        self.remember(&mut commit, &peer.did, id, &row.pid, &answer)?;
        let busy = |error: serde_json::Error| ProtocolError::busy(error.to_string());
        commit.put(&known, &row.pid).map_err(busy)?;
        commit.put_new(TransferRow::key(&row.pid), &row).map_err(busy)?;
        commit.put_new(Grant::key(&row.pid), &grant).map_err(busy)?;
        self.commit(commit).await.map_err(into_protocol)?;
        Ok(answer)
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
        commit.put(&kept, &row).map_err(refuse("internal"))
    }

    /// A token as its spec says.
    pub(super) fn token(&self, spec: &TokenSpec, peer: &Did) -> Result<Jws, Refusal> {
        token::issue(&self.keys, peer, spec.certificate, &spec.transfer, &spec.jti, spec.issued, TOKEN_TTL)
            .map_err(refuse("internal"))
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
        commit.put(&kept, &row).map_err(refuse("internal"))
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
        commit.put(&kept, &row).map_err(refuse("internal"))
    }

    pub(super) async fn transfer_row(&self, pid: &Pid) -> Result<(Row<TransferRow>, TransferRow), Refusal> {
        let row =
            read::<TransferRow>(&*self.store, &TransferRow::key(pid)).await.map_err(refuse("store-unreadable"))?;
        match row.value.clone() {
            Some(found) => Ok((row, found)),
            None => Err(Refusal::new("transfer-unknown", format!("no transfer has the pid `{pid}`"))),
        }
    }

    // === tokens that we were given ===

    /// Keeps the token of a data address in a file of its own, 0600; the store holds its name.
    fn keep_token(&self, peer: &Peer, data: &DataAddress) -> Result<Option<Endpoint>, Refusal> {
        let (Some(url), Some(token)) = (data.url(), data.token()) else { return Ok(None) };
        if !peer.target().allows(url) {
            return Err(Refusal::new(
                "endpoint-not-pinned",
                "the data address is not at the endpoint in the provider's participant statement",
            ));
        }
        let name: String = self.random.array::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
        (|| {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.tokens)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.tokens.join(&name))?;
            file.write_all(token.as_bytes())?;
            file.sync_all()
        })()
        .map_err(|error: std::io::Error| Refusal::new("disk-failed", format!("a token can't be kept: {error}")))?;
        Ok(Some(Endpoint { url: url.to_owned(), token: name }))
    }

    /// The token of a transfer.
    pub(super) fn kept_token(&self, endpoint: &Endpoint) -> Result<String, Refusal> {
        fs::read_to_string(self.tokens.join(&endpoint.token)).map_err(refuse("token-lost"))
    }

    fn forget_token(&self, row: &TransferRow) {
        if let Some(endpoint) = &row.endpoint {
            let _ = fs::remove_file(self.tokens.join(&endpoint.token));
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
