//! What answers the messages: implemented by `exchange`.

use std::net::SocketAddr;

use async_trait::async_trait;

use crate::{
    error::Refusal,
    id::{AgreementId, DatasetId, MessageId, ParticipantId, Pid, ReleaseId, Sha256},
    protocol::{
        Party, ProtocolError,
        extension::{
            AcknowledgementRequest, HalvesRequest, KeyAnswer, OutcomeRequest, ReleaseAnswer, ReleaseRequest,
            RestorationAnswer, RestorationRequest, StatementRequest, StatusAnswer, WitnessedAnswer, Witnessing,
        },
        message::{
            Catalog, CatalogRequest, ContractNegotiation, Dataset, NegotiationMessage, TransferMessage, TransferProcess,
        },
    },
};

/// Who calls, as the connection proved it: a request extension that `node` sets. Without one the routes answer 401.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The authenticated participant.
    pub participant: ParticipantId,
    /// The other end of the connection.
    pub remote: SocketAddr,
    /// How it was authenticated, for receipts; such as `mtls`.
    pub authentication: &'static str,
    /// SHA-256 of the certificate that it showed: tokens are bound to it.
    pub certificate: Option<Sha256>,
}

/// A message and the bytes that it came as.
#[derive(Clone, Debug)]
pub struct Incoming<M> {
    /// What was read.
    pub message: M,
    /// Its `@id`, by which a repetition is known.
    pub id: Option<MessageId>,
    /// The body as received.
    pub body: Vec<u8>,
}

/// One page of a catalog.
#[derive(Clone, Debug)]
pub struct CatalogPage {
    /// What is on it.
    pub catalog: Catalog,
    /// What `page` has to say to get the next one; none on the last.
    pub next: Option<String>,
}

/// Answers what peers send. Every method may be called again with the same message; only the first changes anything.
///
/// Of a process or dataset that is not the caller's, every method says [`ProtocolError::not_found`] (or `not-found`).
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// The catalog as `caller` may see it; `page` as some earlier [`CatalogPage::next`] said.
    async fn catalog(
        &self,
        caller: &Caller,
        request: CatalogRequest,
        page: Option<String>,
    ) -> Result<CatalogPage, ProtocolError>;

    /// One dataset, with its offer.
    async fn dataset(&self, caller: &Caller, id: &DatasetId) -> Result<Dataset, ProtocolError>;

    /// The state of a negotiation in which `pid` is ours.
    async fn negotiation(&self, caller: &Caller, pid: &Pid) -> Result<ContractNegotiation, ProtocolError>;

    /// Takes a negotiation message that addresses us as `receiver`, so that its sender is the other party. `pid` is
    /// ours, from the path, and the same as in the message; none where the message begins a negotiation.
    ///
    /// An implementation checks that its own role in the process is `receiver`.
    async fn negotiate(
        &self,
        caller: &Caller,
        receiver: Party,
        pid: Option<&Pid>,
        message: Incoming<NegotiationMessage>,
    ) -> Result<ContractNegotiation, ProtocolError>;

    /// The state of a transfer process in which `pid` is ours.
    async fn transfer_process(&self, caller: &Caller, pid: &Pid) -> Result<TransferProcess, ProtocolError>;

    /// Takes a transfer message; otherwise as [`Self::negotiate`].
    async fn transfer(
        &self,
        caller: &Caller,
        receiver: Party,
        pid: Option<&Pid>,
        message: Incoming<TransferMessage>,
    ) -> Result<TransferProcess, ProtocolError>;

    /// Decides on a release under the transfer that `token` is for, and opens it. Idempotent by request id.
    async fn release(&self, caller: &Caller, token: &str, request: ReleaseRequest) -> Result<ReleaseAnswer, Refusal>;

    /// Takes the signed acknowledgement of a release and hands over the key, last of all. Idempotent.
    async fn acknowledge(
        &self,
        caller: &Caller,
        release: &ReleaseId,
        body: AcknowledgementRequest,
    ) -> Result<KeyAnswer, Refusal>;

    /// Takes what became of a release at the consumer: opened, or disputed.
    async fn outcome(&self, caller: &Caller, release: &ReleaseId, body: OutcomeRequest) -> Result<(), Refusal>;

    /// The signed status of an agreement.
    async fn status(&self, caller: &Caller, agreement: &AgreementId) -> Result<StatusAnswer, Refusal>;

    /// Takes the partner's halves of the receipts.
    async fn halves(&self, caller: &Caller, body: HalvesRequest) -> Result<(), Refusal>;

    /// Takes the partner's newer participant statement.
    async fn statement(&self, caller: &Caller, body: StatementRequest) -> Result<(), Refusal>;

    /// Learns that the caller's store was restored, and gives back what of its receipts is held here.
    async fn restoration(&self, caller: &Caller, body: RestorationRequest) -> Result<RestorationAnswer, Refusal>;

    /// What was cosigned of the caller's logs.
    async fn witnessed(&self, caller: &Caller) -> Result<WitnessedAnswer, Refusal>;

    /// Takes a checkpoint of the caller's log, and cosigns it if it goes on from the last one.
    async fn add_checkpoint(&self, caller: &Caller, body: &str) -> Result<Witnessing, Refusal>;

    /// A file of our log of this epoch, as C2SP `tlog-tiles` names it: open to anybody.
    async fn log_file(&self, epoch: u64, path: &str) -> Result<Vec<u8>, Refusal>;
}
