//! One sample of each message that we send, in each of its forms.

use serde_json::{Value, json};

use crate::{
    crypto::jws::Jws,
    error::Code,
    id::{AgreementId, DatasetId, MessageId, OfferId, ParticipantId, Pid, Sha256},
    protocol::{
        Party::{self, Consumer, Provider},
        error::error_body,
        message::{
            Address, Agreement, Catalog, CatalogRequest, ContractAgreement, ContractEvent, ContractNegotiation,
            ContractOffer, ContractRequest, ContractTermination, ContractVerification, Counterpart, DataAddress,
            DataService, Dataset, Distribution, EventType, HTTP_PULL, MessageOffer,
            NegotiationMessage::{self, Event, Offer, Request, Termination, Verification},
            NegotiationState, Offer as CatalogOffer, Rules, Service, TransferCompletion,
            TransferMessage::{self, Completion, Start, Suspension},
            TransferProcess, TransferRequest, TransferStart, TransferState, TransferSuspension, TransferTermination,
            VersionResponse,
        },
        outgoing::{Message, Outgoing, answer},
    },
    time::Timestamp,
};

/// A golden file, the schema that takes it, and what it holds.
pub struct Case {
    pub file: &'static str,
    pub schema: &'static str,
    pub body: Value,
}

pub fn cases() -> Vec<Case> {
    let negotiation = |to, message| outgoing(to, Message::Negotiation(message)).body();
    let transfer = |to, message| outgoing(to, Message::Transfer(message)).body();
    let case = |file, schema, body| Case { file, schema, body };
    let pids = || Some((provider_pid().to_string(), consumer_pid().to_string()));
    let code = Code::of("illegal-transition");
    let sentence = "a contract offer by the provider is not legal in FINALIZED";
    vec![
        case(
            "version.json",
            "common/protocol-version-schema.json",
            serde_json::to_value(VersionResponse::ours()).unwrap(),
        ),
        case(
            "catalog-request.json",
            "catalog/catalog-request-message-schema.json",
            outgoing(Provider, Message::Catalog(CatalogRequest::default())).body(),
        ),
        case("catalog.json", "catalog/catalog-schema.json", answer(&catalog(vec![dataset(), sealed_dataset()]))),
        case("catalog-empty.json", "catalog/catalog-schema.json", answer(&catalog(vec![]))),
        case("dataset.json", "catalog/dataset-schema.json", answer(&dataset())),
        case("dataset-sealed.json", "catalog/dataset-schema.json", answer(&sealed_dataset())),
        case(
            "catalog-error.json",
            "catalog/catalog-error-schema.json",
            error_body("CatalogError", None, &Code::of("not-found"), "there is no such thing for you here"),
        ),
        case("contract-request-initial.json", REQUEST, negotiation(Provider, Request(request(new())))),
        case(
            "contract-request-counter.json",
            REQUEST,
            negotiation(Provider, Request(request(Counterpart::Known(provider_pid())))),
        ),
        case("contract-offer-initial.json", OFFER, negotiation(Consumer, Offer(offer(new())))),
        case(
            "contract-offer-counter.json",
            OFFER,
            negotiation(Consumer, Offer(offer(Counterpart::Known(consumer_pid())))),
        ),
        case("contract-agreement.json", AGREEMENT, negotiation(Consumer, NegotiationMessage::Agreement(agreement()))),
        case("contract-agreement-verification.json", VERIFICATION, negotiation(Provider, Verification(verification()))),
        case(
            "contract-negotiation-event-accepted.json",
            EVENT,
            negotiation(Provider, Event(event(EventType::Accepted))),
        ),
        case(
            "contract-negotiation-event-finalized.json",
            EVENT,
            negotiation(Consumer, Event(event(EventType::Finalized))),
        ),
        case(
            "contract-negotiation-termination-by-provider.json",
            NEGOTIATION_END,
            negotiation(Consumer, Termination(termination())),
        ),
        case(
            "contract-negotiation-termination-silent.json",
            NEGOTIATION_END,
            negotiation(Provider, Termination(ContractTermination { code: None, reason: vec![], ..termination() })),
        ),
        case("contract-negotiation.json", NEGOTIATION, answer(&negotiation_state())),
        case(
            "contract-negotiation-error.json",
            "negotiation/contract-negotiation-error-schema.json",
            error_body("ContractNegotiationError", pids(), &code, sentence),
        ),
        case(
            "transfer-request.json",
            "transfer/transfer-request-message-schema.json",
            transfer(Provider, TransferMessage::Request(transfer_request())),
        ),
        case("transfer-start.json", "transfer/transfer-start-message-schema.json", transfer(Consumer, Start(start()))),
        case(
            "transfer-start-resume.json",
            "transfer/transfer-start-message-schema.json",
            transfer(Provider, Start(TransferStart { data_address: None, ..start() })),
        ),
        case(
            "transfer-completion.json",
            "transfer/transfer-completion-message-schema.json",
            transfer(Provider, Completion(completion())),
        ),
        case(
            "transfer-suspension.json",
            "transfer/transfer-suspension-message-schema.json",
            transfer(Consumer, Suspension(suspension())),
        ),
        case(
            "transfer-termination.json",
            "transfer/transfer-termination-message-schema.json",
            transfer(Consumer, TransferMessage::Termination(transfer_termination())),
        ),
        case("transfer-process.json", TRANSFER, answer(&transfer_state())),
        case(
            "transfer-error.json",
            "transfer/transfer-error-schema.json",
            error_body("TransferError", pids(), &code, "a transfer start by the consumer is not legal in REQUESTED"),
        ),
    ]
}

pub const REQUEST: &str = "negotiation/contract-request-message-schema.json";
pub const OFFER: &str = "negotiation/contract-offer-message-schema.json";
pub const AGREEMENT: &str = "negotiation/contract-agreement-message-schema.json";
pub const VERIFICATION: &str = "negotiation/contract-agreement-verification-message-schema.json";
pub const EVENT: &str = "negotiation/contract-negotiation-event-message-schema.json";
pub const NEGOTIATION_END: &str = "negotiation/contract-negotiation-termination-message-schema.json";
pub const NEGOTIATION: &str = "negotiation/contract-negotiation-schema.json";
pub const TRANSFER: &str = "transfer/transfer-process-schema.json";

pub fn case(file: &str) -> Case {
    cases().into_iter().find(|case| case.file == file).unwrap()
}

pub fn outgoing(to: Party, message: Message) -> Outgoing {
    Outgoing { id: MessageId::parse("urn:uuid:m").unwrap(), to, message }
}

pub fn provider_pid() -> Pid {
    Pid::parse("urn:uuid:p").unwrap()
}

pub fn consumer_pid() -> Pid {
    Pid::parse("urn:uuid:c").unwrap()
}

pub fn new() -> Counterpart {
    Counterpart::New { callback_address: Address::parse("https://research.invalid/2025-1").unwrap() }
}

pub fn rules() -> Rules {
    let constraint = json!({
        "leftOperand": "https://w3id.org/counterseal/ns#policySha256",
        "operator": "eq",
        "rightOperand": Sha256([0xab; 32]),
    });
    Rules::from_odrl(&json!({"permission": [{"action": "use", "constraint": [constraint]}]})).unwrap()
}

pub fn message_offer() -> MessageOffer {
    MessageOffer {
        id: OfferId::parse("lymph-node-research").unwrap(),
        target: DatasetId::parse("lymph-node-cohort").unwrap(),
        assigner: Some(ParticipantId::parse("did:web:hospital.invalid").unwrap()),
        assignee: Some(ParticipantId::parse("did:web:research.invalid").unwrap()),
        rules: rules(),
    }
}

pub fn request(counterpart: Counterpart) -> ContractRequest {
    ContractRequest {
        consumer_pid: consumer_pid(),
        counterpart,
        offer: message_offer(),
        offer_sha256: Some(Sha256([0xcd; 32])),
        purpose: Some("research".into()),
    }
}

pub fn offer(counterpart: Counterpart) -> ContractOffer {
    let offer_sha256 = Some(Sha256([0xcd; 32]));
    ContractOffer { provider_pid: provider_pid(), counterpart, offer: message_offer(), offer_sha256 }
}

pub fn agreement() -> ContractAgreement {
    let MessageOffer { target, assigner, assignee, rules, .. } = message_offer();
    let agreement = Agreement {
        id: AgreementId::parse("urn:uuid:a").unwrap(),
        target,
        assigner: assigner.unwrap(),
        assignee: assignee.unwrap(),
        timestamp: Some(Timestamp::from_millis(1_764_000_000_123)),
        rules,
    };
    ContractAgreement {
        provider_pid: provider_pid(),
        consumer_pid: consumer_pid(),
        agreement,
        agreement_jws: Some(Jws::parse("eyJh.eyJi.c2ln").unwrap()),
        series_secret_jwe: Some("eyJh.a2V5.aXY.Y3Q.dGFn".into()),
    }
}

pub fn verification() -> ContractVerification {
    let agreement_jws = Some(Jws::parse("eyJh.eyJi.c2ln").unwrap());
    ContractVerification { provider_pid: provider_pid(), consumer_pid: consumer_pid(), agreement_jws }
}

pub fn event(event_type: EventType) -> ContractEvent {
    ContractEvent { provider_pid: provider_pid(), consumer_pid: consumer_pid(), event_type }
}

pub fn termination() -> ContractTermination {
    ContractTermination {
        provider_pid: provider_pid(),
        consumer_pid: consumer_pid(),
        code: Some("policy-denied".into()),
        reason: vec!["policy `cohort-research` permits no negotiation for `marketing`".into()],
    }
}

pub fn negotiation_state() -> ContractNegotiation {
    let state = NegotiationState::Requested;
    ContractNegotiation { provider_pid: provider_pid(), consumer_pid: consumer_pid(), state }
}

pub fn transfer_request() -> TransferRequest {
    TransferRequest {
        consumer_pid: consumer_pid(),
        agreement_id: AgreementId::parse("urn:uuid:a").unwrap(),
        format: HTTP_PULL.into(),
        callback_address: Address::parse("https://research.invalid/2025-1").unwrap(),
        data_address: None,
        purpose: Some("research".into()),
    }
}

pub fn start() -> TransferStart {
    let releases = Address::parse("https://hospital.invalid/2025-1/counterseal/v1/releases").unwrap();
    let data_address = Some(DataAddress::http(&releases, "eyJh.eyJi.c2ln"));
    TransferStart { provider_pid: provider_pid(), consumer_pid: consumer_pid(), data_address }
}

pub fn completion() -> TransferCompletion {
    TransferCompletion { provider_pid: provider_pid(), consumer_pid: consumer_pid() }
}

pub fn suspension() -> TransferSuspension {
    TransferSuspension {
        provider_pid: provider_pid(),
        consumer_pid: consumer_pid(),
        code: Some("agreement-suspended".into()),
        reason: vec!["the provider's steward has suspended the agreement".into()],
    }
}

pub fn transfer_termination() -> TransferTermination {
    TransferTermination {
        provider_pid: provider_pid(),
        consumer_pid: consumer_pid(),
        code: Some("agreement-revoked".into()),
        reason: vec!["the provider has revoked the agreement".into()],
    }
}

pub fn transfer_state() -> TransferProcess {
    let state = TransferState::Started;
    TransferProcess { provider_pid: provider_pid(), consumer_pid: consumer_pid(), state }
}

pub fn catalog(dataset: Vec<Dataset>) -> Catalog {
    let endpoint_url = Address::parse("https://hospital.invalid/2025-1").unwrap();
    Catalog {
        id: "urn:uuid:catalog".into(),
        participant_id: ParticipantId::parse("did:web:hospital.invalid").unwrap(),
        service: vec![DataService { id: "urn:uuid:service".into(), endpoint_url }],
        dataset,
        catalog: vec![],
    }
}

pub fn dataset() -> Dataset {
    Dataset {
        id: DatasetId::parse("seattle-weather").unwrap(),
        title: Some("Weather in Seattle, daily".into()),
        description: Some("Precipitation, temperatures and wind, 2012 to 2015".into()),
        has_policy: vec![CatalogOffer { id: OfferId::parse("seattle-weather-open").unwrap(), rules: rules() }],
        distribution: vec![Distribution {
            format: HTTP_PULL.into(),
            access_service: Service::Id("urn:uuid:service".into()),
        }],
        offer: None,
        offer_sha256: Some(Sha256([0xcd; 32])),
    }
}

pub fn sealed_dataset() -> Dataset {
    Dataset {
        id: DatasetId::parse("lymph-node-cohort").unwrap(),
        title: None,
        description: None,
        offer: Some("eyJh.a2V5.aXY.Y3Q.dGFn".into()),
        ..dataset()
    }
}
