//! What partners send: duplicates by `@id`, then the machine, then what follows; one commit.

use crate::{
    dataplane::Grant,
    error::Refusal,
    exchange::{
        Exchange,
        negotiate::into_protocol,
        refuse, retry,
        rows::{Endpoint, TransferRow},
        transfer::{Step, both, shown},
    },
    id::{MessageId, ParticipantId, Pid, Sha256},
    identity::Partner,
    offer::Approval,
    protocol::{
        Incoming, Party, Pids, ProtocolError, TransferState, check_pids,
        message::{self, TransferMessage, TransferRequest},
        transfer,
    },
    receipt::{Commit, read},
};

impl Exchange {
    /// How one of our transfers stands, to a partner that is its party.
    pub(in crate::exchange) async fn transfer_for(&self, peer: &ParticipantId, pid: &Pid) -> Step {
        let row = read::<TransferRow>(&*self.store, &TransferRow::key(pid))
            .await
            .map_err(refuse("store-unreadable"))
            .map_err(into_protocol)?;
        let row = row.value.filter(|row| row.peer == *peer).ok_or_else(ProtocolError::not_found)?;
        shown(&row)
    }

    /// Takes a transfer message.
    pub(in crate::exchange) async fn take_transfer(
        &self,
        partner: &Partner,
        certificate: Option<Sha256>,
        receiver: Party,
        pid: Option<&Pid>,
        incoming: &Incoming<TransferMessage>,
    ) -> Step {
        let step = retry!(self.transfer_step(partner, certificate, receiver, pid, incoming));
        self.post();
        step
    }

    async fn transfer_step(
        &self,
        partner: &Partner,
        certificate: Option<Sha256>,
        receiver: Party,
        pid: Option<&Pid>,
        incoming: &Incoming<TransferMessage>,
    ) -> Step {
        let peer = partner.id();
        if let Some(answer) = self.seen(&peer, incoming.id.as_ref()).await? {
            return serde_json::from_value(answer).map_err(|_| ProtocolError::busy("the answer can't be read"));
        }
        let (pid, request) = match (pid, &incoming.message) {
            (None, TransferMessage::Request(request)) if receiver == Party::Provider => {
                return self.begin_transfer(partner, certificate, incoming.id.as_ref(), request).await;
            }
            (Some(pid), message) => (pid, message),
            _ => return Err(ProtocolError::not_found()),
        };
        let kept = read::<TransferRow>(&*self.store, &TransferRow::key(pid))
            .await
            .map_err(refuse("store-unreadable"))
            .map_err(into_protocol)?;
        let Some(mut row) = kept.value.clone().filter(|row| row.peer == peer) else {
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
        // the answer shows the state that the message led to, whatever follows from it in the same commit
        let answer = shown(&row)?;
        let mut commit = Commit::new();
        let closing = match request {
            TransferMessage::Start(start) => {
                row.ended = None;
                if let (Party::Consumer, Some(data)) = (receiver, &start.data_address) {
                    row.endpoint = self.keep_token(partner, data).map_err(|refusal| named(refusal.into()))?;
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
        if row.ours == Party::Provider {
            self.set_grant(&mut commit, &row, closing).await.map_err(into_protocol)?;
        }
        self.remember(&mut commit, &peer, incoming.id.as_ref(), &row.pid, &answer)?;
        self.keep_transfer(&mut commit, &kept, &row)?;
        self.commit(commit).await.map_err(into_protocol)?;
        if matches!(row.state, TransferState::Completed | TransferState::Terminated) {
            self.forget_token(&row);
        }
        Ok(answer)
    }

    async fn begin_transfer(
        &self,
        partner: &Partner,
        certificate: Option<Sha256>,
        id: Option<&MessageId>,
        request: &TransferRequest,
    ) -> Step {
        let peer = partner.id();
        let by_peer = TransferRow::peer_key(&peer, &request.consumer_pid);
        let known =
            read::<Pid>(&*self.store, &by_peer).await.map_err(refuse("store-unreadable")).map_err(into_protocol)?;
        if let Some(pid) = &known.value {
            return self.transfer_for(&peer, pid).await;
        }
        if !partner.target().allows(request.callback_address.as_str()) {
            return Err(ProtocolError::bad(
                "callback-not-pinned",
                format!(
                    "`{}` is not at the address that is known of you; answers go nowhere else",
                    request.callback_address
                ),
            ));
        }
        let place = match (request.format.as_str(), partner) {
            (message::HTTP_PULL, _) => None,
            (message::HTTP_PUSH, Partner::Token(_)) => Some(push_place(partner, request)?),
            (other, _) => {
                let format: String = other.chars().take(60).collect();
                return Err(ProtocolError::bad(
                    "format-unsupported",
                    format!("the format `{format}` is not offered; {} is", message::HTTP_PULL),
                ));
            }
        };
        let unknown = || ProtocolError::bad("agreement-unknown", "there is no such agreement for you");
        let (_, agreement) = self
            .agreement(&request.agreement_id)
            .await
            .map_err(|refusal| if refusal.is("agreement-unknown") { unknown() } else { into_protocol(refusal) })?;
        if agreement.ours != Party::Provider || *agreement.peer() != peer {
            return Err(unknown());
        }
        let now = self.clock.now();
        agreement.in_force(now)?;
        self.agreed_offer(&agreement)?;
        let mut row = TransferRow {
            pid: self.mint(),
            peer_pid: Some(request.consumer_pid.clone()),
            ours: Party::Provider,
            peer: peer.clone(),
            callback: request.callback_address.as_str().to_owned(),
            state: TransferState::Requested,
            agreement: agreement.id().clone(),
            format: request.format.clone(),
            approval: agreement.approval,
            certificate,
            endpoint: match place {
                Some((url, token)) => Some(Endpoint { url, token: self.keep_secret(&token).map_err(into_protocol)? }),
                None => None,
            },
            ended: None,
            begun: now,
            moved: now,
        };
        let answer = shown(&row)?;
        both(&row)?;
        let mut commit = Commit::new();
        if row.approval == Approval::Auto {
            self.start_transfer(&mut commit, &mut row, None).map_err(into_protocol)?;
        } else {
            // nothing flows before somebody starts it
            let grant = Grant {
                transfer: row.pid.clone(),
                agreement: row.agreement.clone(),
                peer: peer.clone(),
                jti: String::new(),
                closed: Some(Refusal::new("transfer-pending", "the provider has not started the transfer yet")),
            };
            commit.put_new(Grant::key(&row.pid), &grant).map_err(|error| ProtocolError::busy(error.to_string()))?;
        }
        self.remember(&mut commit, &peer, id, &row.pid, &answer)?;
        let busy = |error: serde_json::Error| ProtocolError::busy(error.to_string());
        commit.put(&known, &row.pid).map_err(busy)?;
        self.announce_transfer(&mut commit, None, &row);
        commit.put_new(TransferRow::key(&row.pid), &row).map_err(busy)?;
        self.commit(commit).await.map_err(into_protocol)?;
        Ok(answer)
    }
}

/// Where a consumer wants the data brought, and what it wants to see in `Authorization` there.
fn push_place(partner: &Partner, request: &TransferRequest) -> Result<(String, String), ProtocolError> {
    let place = request.data_address.as_ref().and_then(|data| Some((data.url()?.to_owned(), data.token())));
    let (url, token) = place.ok_or_else(|| {
        ProtocolError::bad("data-address-missing", "a push needs a dataAddress with the endpoint that takes the data")
    })?;
    if !partner.target().allows(&url) {
        return Err(ProtocolError::bad(
            "endpoint-not-pinned",
            "the data address is not at the address that is known of you; data goes nowhere else",
        ));
    }
    let kind = request.data_address.as_ref().and_then(|data| data.property("authType")).unwrap_or_default();
    let token = match token {
        Some(token) if kind == "bearer" && !token.starts_with("Bearer ") => format!("Bearer {token}"),
        Some(token) => token.to_owned(),
        None => String::new(),
    };
    Ok((url, token))
}
