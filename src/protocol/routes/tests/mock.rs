//! A handler that answers simply and notes what reached it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Mutex,
};

use async_trait::async_trait;

use crate::{
    crypto::jws::Jws,
    error::Refusal,
    id::{AgreementId, DatasetId, ParticipantId, Pid, ReleaseId},
    protocol::{
        Caller, CatalogPage, Handler, Incoming, Party, Pids, ProtocolError, check_pids,
        extension::{
            AcknowledgementRequest, HalvesRequest, KeyAnswer, LoggedReceipt, OutcomeRequest, ReleaseAnswer,
            ReleaseRequest, RestorationAnswer, RestorationRequest, StatementRequest, StatusAnswer, WitnessedAnswer,
            Witnessing,
        },
        message::{
            Address, Catalog, CatalogRequest, ContractNegotiation, DataService, Dataset, NegotiationMessage,
            NegotiationState, TransferMessage, TransferProcess, TransferState,
        },
        negotiation, transfer as transfers,
    },
    time::Timestamp,
};

/// Knows one negotiation in which it is the provider (`ours`, with consumer `theirs`) and in OFFERED, one transfer
/// likewise in STARTED, and one of each, `foreign`, that is another caller's.
#[derive(Default)]
pub struct Mock {
    seen: Mutex<Vec<String>>,
}

impl Mock {
    /// What reached it since the last call.
    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    fn note(&self, what: impl Into<String>) {
        self.seen.lock().unwrap().push(what.into());
    }
}

fn pid(text: &str) -> Pid {
    Pid::parse(text).unwrap()
}

#[async_trait]
impl Handler for Mock {
    async fn catalog(
        &self,
        caller: &Caller,
        _: CatalogRequest,
        page: Option<String>,
    ) -> Result<CatalogPage, ProtocolError> {
        self.note(format!("catalog {} {page:?}", caller.participant));
        let endpoint_url = Address::parse("https://p.example/2025-1").unwrap();
        let catalog = Catalog {
            id: "c".into(),
            participant_id: ParticipantId::parse("did:web:p.invalid").unwrap(),
            service: vec![DataService { id: "s".into(), endpoint_url }],
            dataset: vec![],
            catalog: vec![],
        };
        Ok(CatalogPage { catalog, next: page.is_none().then(|| "a b>".to_owned()) })
    }

    async fn dataset(&self, _: &Caller, id: &DatasetId) -> Result<Dataset, ProtocolError> {
        self.note(format!("dataset {id}"));
        Err(ProtocolError::not_found())
    }

    async fn negotiation(&self, _: &Caller, at: &Pid) -> Result<ContractNegotiation, ProtocolError> {
        match at.as_str() {
            "ours" => Ok(ContractNegotiation {
                provider_pid: pid("ours"),
                consumer_pid: pid("theirs"),
                state: NegotiationState::Offered,
            }),
            // a careless handler says more than it should
            "foreign" => Err(ProtocolError { sentence: "it is Mallory's".into(), ..ProtocolError::not_found() }
                .with_pids(Some(pid("foreign")), Some(pid("mallory")))),
            _ => Err(ProtocolError::not_found()),
        }
    }

    async fn negotiate(
        &self,
        _: &Caller,
        receiver: Party,
        at: Option<&Pid>,
        message: Incoming<NegotiationMessage>,
    ) -> Result<ContractNegotiation, ProtocolError> {
        self.note(format!("{:?} to {receiver} {at:?}", message.message.event()));
        let state = match at {
            None => None,
            Some(at) => Some(self.negotiation(&caller(), at).await?.state),
        };
        if let Some(at) = at {
            let theirs = pid("theirs");
            check_pids(message.message.pids(), Pids { provider: Some(at), consumer: Some(&theirs) })?;
        }
        let state = negotiation::next(state, receiver.other(), message.message.event())?;
        let Pids { provider, consumer } = message.message.pids();
        let (provider, consumer) = (provider.cloned(), consumer.cloned());
        let (provider_pid, consumer_pid) =
            (provider.unwrap_or_else(|| pid("ours")), consumer.unwrap_or_else(|| pid("ours")));
        Ok(ContractNegotiation { provider_pid, consumer_pid, state })
    }

    async fn transfer_process(&self, _: &Caller, at: &Pid) -> Result<TransferProcess, ProtocolError> {
        match at.as_str() {
            "ours" => Ok(TransferProcess {
                provider_pid: pid("ours"),
                consumer_pid: pid("theirs"),
                state: TransferState::Started,
            }),
            _ => Err(ProtocolError::not_found()),
        }
    }

    async fn transfer(
        &self,
        _: &Caller,
        receiver: Party,
        at: Option<&Pid>,
        message: Incoming<TransferMessage>,
    ) -> Result<TransferProcess, ProtocolError> {
        self.note(format!("{:?} to {receiver} {at:?}", message.message.event()));
        let state = match at {
            None => None,
            Some(at) => Some(self.transfer_process(&caller(), at).await?.state),
        };
        let state = transfers::next(state, receiver.other(), message.message.event())?;
        Ok(TransferProcess { provider_pid: pid("ours"), consumer_pid: pid("theirs"), state })
    }

    async fn release(&self, _: &Caller, token: &str, request: ReleaseRequest) -> Result<ReleaseAnswer, Refusal> {
        self.note(format!("release {token} {} {}", request.request_id, request.purpose));
        if request.purpose == "marketing" {
            return Err(Refusal::new("policy-denied", "policy `cohort` forbids `marketing`"));
        }
        Ok(ReleaseAnswer {
            released: LoggedReceipt { receipt: Jws::parse("a.b.c").unwrap(), number: 1, proof: String::new() },
            release: ReleaseId::parse("r").unwrap(),
            stream: "https://p.example/2025-1/counterseal/v1/releases/r/stream".into(),
            deadline: Timestamp::from_millis(0),
            length: 0,
        })
    }

    async fn acknowledge(
        &self,
        _: &Caller,
        release: &ReleaseId,
        _: AcknowledgementRequest,
    ) -> Result<KeyAnswer, Refusal> {
        self.note(format!("acknowledge {release}"));
        Err(Refusal::new("not-found", format!("release {release} is Mallory's")))
    }

    async fn outcome(&self, _: &Caller, release: &ReleaseId, _: OutcomeRequest) -> Result<(), Refusal> {
        self.note(format!("outcome {release}"));
        Ok(())
    }

    async fn status(&self, _: &Caller, agreement: &AgreementId) -> Result<StatusAnswer, Refusal> {
        self.note(format!("status {agreement}"));
        Ok(StatusAnswer { status: Jws::parse("a.b.c").unwrap() })
    }

    async fn halves(&self, _: &Caller, body: HalvesRequest) -> Result<(), Refusal> {
        self.note(format!("halves {}", body.halves.len()));
        Ok(())
    }

    async fn statement(&self, _: &Caller, _: StatementRequest) -> Result<(), Refusal> {
        self.note("statement");
        Err(Refusal::new("busy", "later"))
    }

    async fn restoration(&self, _: &Caller, body: RestorationRequest) -> Result<RestorationAnswer, Refusal> {
        self.note(format!("restoration {}", body.announcement.restored.number));
        Ok(RestorationAnswer::default())
    }

    async fn witnessed(&self, _: &Caller) -> Result<WitnessedAnswer, Refusal> {
        self.note("witnessed");
        Ok(WitnessedAnswer::default())
    }

    async fn add_checkpoint(&self, _: &Caller, body: &str) -> Result<Witnessing, Refusal> {
        self.note(format!("add-checkpoint {body}"));
        Ok(match body {
            "late" => Witnessing::Conflict(17),
            "forged" => Witnessing::Refused(403, "no".into()),
            _ => Witnessing::Cosigned("line\n".into()),
        })
    }

    async fn log_file(&self, epoch: u64, path: &str) -> Result<Vec<u8>, Refusal> {
        self.note(format!("log {epoch} {path}"));
        if path.starts_with("tile/9") { Err(Refusal::new("tile-unknown", "")) } else { Ok(vec![1, 2]) }
    }
}

pub fn caller() -> Caller {
    Caller {
        participant: ParticipantId::parse("did:web:c.invalid").unwrap(),
        remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        authentication: "mtls",
        certificate: None,
    }
}
