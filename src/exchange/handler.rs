//! What partners send, handed to the walks.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    error::Refusal,
    exchange::Exchange,
    id::{AgreementId, DatasetId, Pid, ReleaseId},
    identity::{Partner, Peer},
    protocol::{
        Caller, CatalogPage, Handler, Incoming, Party, ProtocolError,
        extension::{
            AcknowledgementRequest, HalvesRequest, KeyAnswer, OutcomeRequest, ReleaseAnswer, ReleaseRequest,
            RestorationAnswer, RestorationRequest, StatementRequest, StatusAnswer, WitnessedAnswer, Witnessing,
        },
        message::{CatalogRequest, ContractNegotiation, Dataset, NegotiationMessage, TransferMessage, TransferProcess},
    },
};

impl Exchange {
    /// The partner behind a caller, active at this very moment, and proven in its one way.
    fn caller(&self, caller: &Caller) -> Result<Partner, Refusal> {
        let partner = self.partner(&caller.participant)?;
        if partner.authentication() == caller.authentication {
            Ok(partner)
        } else {
            Err(Refusal::new("peer-unknown", "this participant proves who it is in another way"))
        }
    }

    /// The same, where only Counterseal peers are served.
    fn certified(&self, caller: &Caller) -> Result<Arc<Peer>, Refusal> {
        match self.caller(caller)? {
            Partner::Certificate(peer) => Ok(peer),
            Partner::Token(_) => {
                Err(Refusal::new("peer-unknown", "this is for connectors whose certificate is pinned"))
            }
        }
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
        let partner = self.caller(caller)?;
        self.catalog_for(&partner, &request, page.as_deref())
    }

    async fn dataset(&self, caller: &Caller, id: &DatasetId) -> Result<Dataset, ProtocolError> {
        let partner = self.caller(caller)?;
        self.dataset_for(&partner, id)
    }

    async fn negotiation(&self, caller: &Caller, pid: &Pid) -> Result<ContractNegotiation, ProtocolError> {
        let partner = self.caller(caller)?;
        self.negotiation_for(&partner.id(), pid).await
    }

    async fn negotiate(
        &self,
        caller: &Caller,
        receiver: Party,
        pid: Option<&Pid>,
        message: Incoming<NegotiationMessage>,
    ) -> Result<ContractNegotiation, ProtocolError> {
        let partner = self.caller(caller)?;
        self.take_negotiation(&partner, caller.remote, receiver, pid, &message).await
    }

    async fn transfer_process(&self, caller: &Caller, pid: &Pid) -> Result<TransferProcess, ProtocolError> {
        let partner = self.caller(caller)?;
        self.transfer_for(&partner.id(), pid).await
    }

    async fn transfer(
        &self,
        caller: &Caller,
        receiver: Party,
        pid: Option<&Pid>,
        message: Incoming<TransferMessage>,
    ) -> Result<TransferProcess, ProtocolError> {
        let partner = self.caller(caller)?;
        self.take_transfer(&partner, caller.certificate, receiver, pid, &message).await
    }

    async fn release(&self, caller: &Caller, token: &str, request: ReleaseRequest) -> Result<ReleaseAnswer, Refusal> {
        self.certified(caller)?;
        let bearer = token.strip_prefix("Bearer ").unwrap_or(token);
        let own = self.keys.token.public();
        let authorized = self
            .grants
            .authorize(Some(bearer), &own, &caller.participant, caller.certificate.as_ref(), self.clock.now())
            .inspect_err(|_| self.refusals.count())?;
        self.release_to(&caller.participant, caller.remote, &authorized.grant, request).await
    }

    async fn acknowledge(
        &self,
        caller: &Caller,
        release: &ReleaseId,
        body: AcknowledgementRequest,
    ) -> Result<KeyAnswer, Refusal> {
        let peer = self.certified(caller)?;
        self.take_acknowledgement(&peer, release, body).await
    }

    async fn outcome(&self, caller: &Caller, release: &ReleaseId, body: OutcomeRequest) -> Result<(), Refusal> {
        let peer = self.certified(caller)?;
        self.take_outcome(&peer, release, body).await
    }

    async fn status(&self, caller: &Caller, agreement: &AgreementId) -> Result<StatusAnswer, Refusal> {
        let peer = self.certified(caller)?;
        self.status_for(&peer.did, agreement).await
    }

    async fn halves(&self, caller: &Caller, body: HalvesRequest) -> Result<(), Refusal> {
        let peer = self.certified(caller)?;
        self.take_halves(&peer, body).await
    }

    async fn statement(&self, caller: &Caller, body: StatementRequest) -> Result<(), Refusal> {
        let peer = self.certified(caller)?;
        self.take_statement(&peer, &body.statement).await
    }

    async fn restoration(&self, caller: &Caller, body: RestorationRequest) -> Result<RestorationAnswer, Refusal> {
        let peer = self.certified(caller)?;
        self.take_restoration(&peer, body).await
    }

    async fn witnessed(&self, caller: &Caller) -> Result<WitnessedAnswer, Refusal> {
        let peer = self.certified(caller)?;
        Ok(WitnessedAnswer { checkpoints: self.witnessed_of(&peer.did).await? })
    }

    async fn add_checkpoint(&self, caller: &Caller, body: &str) -> Result<Witnessing, Refusal> {
        let peer = self.certified(caller)?;
        self.take_checkpoint(&peer, body).await
    }

    async fn log_file(&self, epoch: u64, path: &str) -> Result<Vec<u8>, Refusal> {
        self.own_log_file(epoch, path).await
    }
}
