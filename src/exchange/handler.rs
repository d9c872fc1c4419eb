//! What partners send, handed to the walks.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    error::Refusal,
    exchange::Exchange,
    id::{AgreementId, DatasetId, Pid, ReleaseId},
    identity::Peer,
    protocol::{
        Caller, CatalogPage, Handler, Incoming, Party, ProtocolError,
        extension::{
            AcknowledgementRequest, HalvesRequest, KeyAnswer, OutcomeRequest, ReleaseAnswer, ReleaseRequest,
            StatementRequest, StatusAnswer,
        },
        message::{CatalogRequest, ContractNegotiation, Dataset, NegotiationMessage, TransferMessage, TransferProcess},
    },
};

impl Exchange {
    /// The peer behind a caller, active at this very moment.
    fn caller(&self, caller: &Caller) -> Result<Arc<Peer>, Refusal> {
        let did = caller
            .participant
            .did()
            .ok_or_else(|| Refusal::new("peer-unknown", "only Counterseal peers are served in this version"))?;
        self.peer(&did)
    }
}

#[async_trait]
impl Handler for Exchange {
    async fn catalog(
        &self,
        caller: &Caller,
        request: CatalogRequest,
        page: Option<String>,
    ) -> Result<CatalogPage, ProtocolError> {
        let peer = self.caller(caller)?;
        self.catalog_for(&peer, &request, page.as_deref())
    }

    async fn dataset(&self, caller: &Caller, id: &DatasetId) -> Result<Dataset, ProtocolError> {
        let peer = self.caller(caller)?;
        self.dataset_for(&peer, id)
    }

    async fn negotiation(&self, caller: &Caller, pid: &Pid) -> Result<ContractNegotiation, ProtocolError> {
        let peer = self.caller(caller)?;
        self.negotiation_for(&peer.did, pid).await
    }

    async fn negotiate(
        &self,
        caller: &Caller,
        receiver: Party,
        pid: Option<&Pid>,
        message: Incoming<NegotiationMessage>,
    ) -> Result<ContractNegotiation, ProtocolError> {
        let peer = self.caller(caller)?;
        self.take_negotiation(&peer, caller.remote, receiver, pid, &message).await
    }

    async fn transfer_process(&self, caller: &Caller, pid: &Pid) -> Result<TransferProcess, ProtocolError> {
        let peer = self.caller(caller)?;
        self.transfer_for(&peer.did, pid).await
    }

    async fn transfer(
        &self,
        caller: &Caller,
        receiver: Party,
        pid: Option<&Pid>,
        message: Incoming<TransferMessage>,
    ) -> Result<TransferProcess, ProtocolError> {
        let peer = self.caller(caller)?;
        self.take_transfer(&peer, caller.certificate, receiver, pid, &message).await
    }

    async fn release(&self, caller: &Caller, token: &str, request: ReleaseRequest) -> Result<ReleaseAnswer, Refusal> {
        let peer = self.caller(caller)?;
        let bearer = token.strip_prefix("Bearer ").unwrap_or(token);
        let own = self.keys.token.public();
        let authorized = self
            .grants
            .authorize(Some(bearer), &own, &peer.did, caller.certificate.as_ref(), self.clock.now())
            .inspect_err(|_| self.refusals.count())?;
        self.release_to(&peer.did, caller.remote, &authorized.grant, request).await
    }

    async fn acknowledge(
        &self,
        caller: &Caller,
        release: &ReleaseId,
        body: AcknowledgementRequest,
    ) -> Result<KeyAnswer, Refusal> {
        let peer = self.caller(caller)?;
        self.take_acknowledgement(&peer.did, release, body).await
    }

    async fn outcome(&self, caller: &Caller, release: &ReleaseId, body: OutcomeRequest) -> Result<(), Refusal> {
        let peer = self.caller(caller)?;
        self.take_outcome(&peer.did, release, body).await
    }

    async fn status(&self, caller: &Caller, agreement: &AgreementId) -> Result<StatusAnswer, Refusal> {
        let peer = self.caller(caller)?;
        self.status_for(&peer.did, agreement).await
    }

    async fn halves(&self, caller: &Caller, body: HalvesRequest) -> Result<(), Refusal> {
        let peer = self.caller(caller)?;
        self.take_halves(&peer.did, body).await
    }

    async fn statement(&self, caller: &Caller, body: StatementRequest) -> Result<(), Refusal> {
        let peer = self.caller(caller)?;
        self.take_statement(&peer, &body.statement).await
    }
}
