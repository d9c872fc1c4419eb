//! Golden files: what each message of ours looks like, byte for byte, and that the specification's schemas take it.
//!
//! `COUNTERSEAL_UPDATE_GOLDEN=1 cargo test golden` writes the files anew; look at the difference before you commit it.

mod cases;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use jsonschema::{Registry, Resource, Validator};
use serde_json::{Value, json};

use crate::{
    crypto::jws::Jws,
    error::Refusal,
    id::{AgreementId, ReleaseId, RequestId},
    protocol::{
        Party::{Consumer, Provider},
        extension::{
            AcknowledgementRequest, Half, HalvesRequest, KeyAnswer, LoggedReceipt, OutcomeRequest, ReleaseAnswer,
            ReleaseRequest, StatementRequest, StatusAnswer, refusal_json,
        },
        message::{
            Catalog, CatalogRequest, ContractAgreement, ContractEvent, ContractNegotiation, ContractOffer,
            ContractRequest, ContractTermination, ContractVerification, Counterpart, Dataset, EventType,
            NegotiationMessage::{self, Event, Offer, Request, Termination, Verification},
            Root, TransferCompletion,
            TransferMessage::{self, Completion, Start, Suspension},
            TransferProcess, TransferRequest, TransferStart, TransferSuspension, TransferTermination, VersionResponse,
            from_object,
        },
        outgoing::{Message, answer},
    },
    time::Timestamp,
};

use self::cases::*;

#[test]
fn every_message_is_as_its_golden_file_and_valid_by_its_schema() {
    let schemas = Schemas::load();
    for Case { file, schema, body } in cases() {
        golden("dsp", file, &body);
        schemas.assert_valid(schema, &body, file);
    }
}

#[test]
fn every_type_that_the_protocol_knows_has_a_golden_file() {
    let tags: BTreeSet<_> = cases().iter().filter_map(|c| Some(c.body.get("@type")?.as_str()?.to_owned())).collect();
    let expected = [
        "Catalog",
        "CatalogError",
        "CatalogRequestMessage",
        "ContractAgreementMessage",
        "ContractAgreementVerificationMessage",
        "ContractNegotiation",
        "ContractNegotiationError",
        "ContractNegotiationEventMessage",
        "ContractNegotiationTerminationMessage",
        "ContractOfferMessage",
        "ContractRequestMessage",
        "Dataset",
        "TransferCompletionMessage",
        "TransferError",
        "TransferProcess",
        "TransferRequestMessage",
        "TransferStartMessage",
        "TransferSuspensionMessage",
        "TransferTerminationMessage",
    ];
    assert_eq!(tags, BTreeSet::from(expected.map(str::to_owned)));
}

#[test]
fn the_schemas_refuse_what_is_broken() {
    let schemas = Schemas::load();
    for Case { file, schema, body } in cases() {
        for required in ["@context", "@type", "providerPid", "consumerPid", "protocolVersions", "hasPolicy"] {
            let mut broken = body.clone();
            // a Dataset's `@type` is not required, and a first message names one pid and a callback
            let named = broken.as_object_mut().unwrap().remove(required).is_some();
            if named && !(required == "@type" && body["@type"] == "Dataset") {
                assert!(!schemas.takes(schema, &broken), "{file} without {required}");
            }
        }
    }
    let mut silent = case("contract-negotiation-termination-by-provider.json").body;
    silent["reason"] = json!([]);
    assert!(!schemas.takes("negotiation/contract-negotiation-termination-message-schema.json", &silent));
    let mut both = case("contract-request-initial.json").body;
    both["providerPid"] = json!("urn:uuid:1");
    assert!(!schemas.takes("negotiation/contract-request-message-schema.json", &both));
}

#[test]
fn what_we_send_we_read() {
    for Case { file, body, .. } in cases() {
        let Some(written) = reread_any(&body) else { continue };
        let mut expected = body.clone();
        if !matches!(body["@type"].as_str(), Some("Catalog" | "Dataset")) {
            expected.as_object_mut().unwrap().remove("@id");
        }
        assert_eq!(written, expected, "{file}");
    }
}

#[test]
fn the_specifications_examples_are_read_and_written_back_valid() {
    let schemas = Schemas::load();
    for (example, schema) in [
        ("catalog/example/catalog-request-message.json", "catalog/catalog-request-message-schema.json"),
        ("catalog/example/catalog.json", "catalog/catalog-schema.json"),
        ("catalog/example/dataset.json", "catalog/dataset-schema.json"),
        ("catalog/example/nested-catalog.json", "catalog/catalog-schema.json"),
        ("negotiation/example/contract-agreement-message-full.json", AGREEMENT),
        ("negotiation/example/contract-agreement-message.json", AGREEMENT),
        ("negotiation/example/contract-agreement-verification-message.json", VERIFICATION),
        ("negotiation/example/contract-negotiation-event-message.json", EVENT),
        ("negotiation/example/contract-negotiation-termination-message.json", NEGOTIATION_END),
        ("negotiation/example/contract-negotiation.json", NEGOTIATION),
        ("negotiation/example/contract-offer-message.json", OFFER),
        ("negotiation/example/contract-offer-message_initial.json", OFFER),
        ("negotiation/example/contract-request-message.json", REQUEST),
        ("negotiation/example/contract-request-message_initial.json", REQUEST),
        ("transfer/example/transfer-completion-message.json", "transfer/transfer-completion-message-schema.json"),
        ("transfer/example/transfer-process.json", TRANSFER),
        ("transfer/example/transfer-request-message.json", "transfer/transfer-request-message-schema.json"),
        ("transfer/example/transfer-start-message.json", "transfer/transfer-start-message-schema.json"),
        ("transfer/example/transfer-suspension-message.json", "transfer/transfer-suspension-message-schema.json"),
        ("transfer/example/transfer-termination-message.json", "transfer/transfer-termination-message-schema.json"),
    ] {
        schemas.assert_valid(schema, &reread_any(&self::example(example)).unwrap(), example);
    }
    let versions: VersionResponse = serde_json::from_value(example("common/example/protocol-version.json")).unwrap();
    assert_eq!(versions.path(), Some("/some/path/2025-1"));
}

#[test]
fn a_message_with_any_property_broken_is_read_or_refused_but_never_panics() {
    let odd = [json!(null), json!(true), json!(-1), json!(1e300), json!(""), json!([]), json!({}), json!([[{}]])];
    let odd = || odd.iter().cloned().chain([json!("x".repeat(600)), json!("\u{0}"), json!({"@id": ["x"]})]);
    let (mut refused, mut read) = (0, 0);
    for Case { body, .. } in cases() {
        for pointer in pointers(&body, String::new()) {
            for value in odd() {
                let mut broken = body.clone();
                *broken.pointer_mut(&pointer).unwrap() = value;
                match attempt_any(&broken) {
                    Some(true) => read += 1,
                    Some(false) => refused += 1,
                    None => {}
                }
            }
        }
    }
    assert!(refused > 1000 && read > 100, "{refused} refused, {read} read");
}

#[test]
fn each_message_goes_to_its_receivers_path() {
    let path = |to, message: NegotiationMessage| outgoing(to, Message::Negotiation(message)).path();
    assert_eq!(path(Provider, Request(request(new()))), "/negotiations/request");
    assert_eq!(
        path(Provider, Request(request(Counterpart::Known(provider_pid())))),
        "/negotiations/urn:uuid:p/request"
    );
    assert_eq!(path(Consumer, Offer(offer(new()))), "/negotiations/offers");
    assert_eq!(path(Consumer, Offer(offer(Counterpart::Known(consumer_pid())))), "/negotiations/urn:uuid:c/offers");
    assert_eq!(path(Consumer, NegotiationMessage::Agreement(agreement())), "/negotiations/urn:uuid:c/agreement");
    assert_eq!(path(Provider, Verification(verification())), "/negotiations/urn:uuid:p/agreement/verification");
    assert_eq!(path(Provider, Event(event(EventType::Accepted))), "/negotiations/urn:uuid:p/events");
    assert_eq!(path(Consumer, Event(event(EventType::Finalized))), "/negotiations/urn:uuid:c/events");
    assert_eq!(path(Provider, Termination(termination())), "/negotiations/urn:uuid:p/termination");
    assert_eq!(path(Consumer, Termination(termination())), "/negotiations/urn:uuid:c/termination");

    let path = |to, message: TransferMessage| outgoing(to, Message::Transfer(message)).path();
    assert_eq!(path(Provider, TransferMessage::Request(transfer_request())), "/transfers/request");
    assert_eq!(path(Consumer, Start(start())), "/transfers/urn:uuid:c/start");
    assert_eq!(path(Provider, Completion(completion())), "/transfers/urn:uuid:p/completion");
    assert_eq!(path(Provider, Suspension(suspension())), "/transfers/urn:uuid:p/suspension");
    let end = TransferMessage::Termination(transfer_termination());
    assert_eq!(path(Consumer, end), "/transfers/urn:uuid:c/termination");
    assert_eq!(outgoing(Provider, Message::Catalog(CatalogRequest::default())).path(), "/catalog/request");
}

#[test]
fn the_peer_extension_is_as_its_golden_files() {
    let jws = || Jws::parse("eyJh.eyJi.c2ln").unwrap();
    let logged = |number| LoggedReceipt {
        receipt: jws(),
        number,
        proof: "c2sp.org/tlog-proof@v1\nindex 41\n\ndid:web:hospital.invalid/log/1\n42\n".into(),
    };
    let deadline = Timestamp::from_millis(1_764_086_400_000);
    let release = ReleaseId::parse("urn:uuid:r").unwrap();
    let request_id = RequestId::parse("urn:uuid:q").unwrap();
    let stream = "https://hospital.invalid/2025-1/counterseal/v1/releases/urn:uuid:r/stream".to_owned();
    let half = Half { agreement: AgreementId::parse("urn:uuid:a").unwrap(), kind: "used".into(), logged: logged(7) };
    let as_value = |value: Result<Value, serde_json::Error>| value.unwrap();
    for (file, body) in [
        ("release-request.json", as_value(serde_json::to_value(ReleaseRequest::new(request_id, "research")))),
        (
            "release-answer.json",
            as_value(serde_json::to_value(ReleaseAnswer {
                released: logged(3),
                release,
                stream,
                deadline,
                length: 52_384,
            })),
        ),
        (
            "acknowledgement-request.json",
            as_value(serde_json::to_value(AcknowledgementRequest { acknowledgement: jws(), acknowledged: logged(2) })),
        ),
        (
            "key-answer.json",
            as_value(serde_json::to_value(KeyAnswer { delivered: logged(4), key: "eyJh..eyJi".into() })),
        ),
        ("outcome-request.json", as_value(serde_json::to_value(OutcomeRequest { outcome: logged(5) }))),
        ("status-answer.json", as_value(serde_json::to_value(StatusAnswer { status: jws() }))),
        ("halves-request.json", as_value(serde_json::to_value(HalvesRequest { halves: vec![half] }))),
        ("statement-request.json", as_value(serde_json::to_value(StatementRequest { statement: jws() }))),
        ("refusal.json", refusal_json(&Refusal::new("count-spent", "three of three releases are used"))),
    ] {
        golden("extension", file, &body);
    }
}

/// JSON pointers to everything in a value.
fn pointers(value: &Value, at: String) -> Vec<String> {
    let below: Vec<String> = match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, value)| pointers(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))))
            .collect(),
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(index, item)| pointers(item, format!("{at}/{index}"))).collect()
        }
        _ => vec![],
    };
    std::iter::once(at).filter(|at| !at.is_empty()).chain(below).collect()
}

/// Whether a body can be read as its `@type` says; none if that names no type that is read.
fn attempt_any(body: &Value) -> Option<bool> {
    fn attempt<R: Root>(body: &Value) -> bool {
        from_object::<R>(body.clone()).is_ok()
    }
    Some(match body["@type"].as_str()? {
        "Catalog" => attempt::<Catalog>(body),
        "CatalogRequestMessage" => from_object::<CatalogRequest>(body.clone()).is_ok_and(|r| r.query().is_ok()),
        "ContractAgreementMessage" => attempt::<ContractAgreement>(body),
        "ContractAgreementVerificationMessage" => attempt::<ContractVerification>(body),
        "ContractNegotiation" => attempt::<ContractNegotiation>(body),
        "ContractNegotiationEventMessage" => attempt::<ContractEvent>(body),
        "ContractNegotiationTerminationMessage" => attempt::<ContractTermination>(body),
        "ContractOfferMessage" => attempt::<ContractOffer>(body),
        "ContractRequestMessage" => attempt::<ContractRequest>(body),
        "Dataset" => attempt::<Dataset>(body),
        "TransferCompletionMessage" => attempt::<TransferCompletion>(body),
        "TransferProcess" => attempt::<TransferProcess>(body),
        "TransferRequestMessage" => attempt::<TransferRequest>(body),
        "TransferStartMessage" => attempt::<TransferStart>(body),
        "TransferSuspensionMessage" => attempt::<TransferSuspension>(body),
        "TransferTerminationMessage" => attempt::<TransferTermination>(body),
        _ => return None,
    })
}

/// What becomes of a body that is read as its `@type` says and written again; none of an error.
fn reread_any(body: &Value) -> Option<Value> {
    Some(match body["@type"].as_str()? {
        "Catalog" => reread::<Catalog>(body),
        "CatalogRequestMessage" => reread::<CatalogRequest>(body),
        "ContractAgreementMessage" => reread::<ContractAgreement>(body),
        "ContractAgreementVerificationMessage" => reread::<ContractVerification>(body),
        "ContractNegotiation" => reread::<ContractNegotiation>(body),
        "ContractNegotiationEventMessage" => reread::<ContractEvent>(body),
        "ContractNegotiationTerminationMessage" => reread::<ContractTermination>(body),
        "ContractOfferMessage" => reread::<ContractOffer>(body),
        "ContractRequestMessage" => reread::<ContractRequest>(body),
        "Dataset" => reread::<Dataset>(body),
        "TransferCompletionMessage" => reread::<TransferCompletion>(body),
        "TransferProcess" => reread::<TransferProcess>(body),
        "TransferRequestMessage" => reread::<TransferRequest>(body),
        "TransferStartMessage" => reread::<TransferStart>(body),
        "TransferSuspensionMessage" => reread::<TransferSuspension>(body),
        "TransferTerminationMessage" => reread::<TransferTermination>(body),
        _ => return None,
    })
}

fn reread<R: Root>(body: &Value) -> Value {
    answer(&from_object::<R>(body.clone()).unwrap())
}

fn example(file: &str) -> Value {
    serde_json::from_slice(&fs::read(tests().join("schemas/dsp").join(file)).unwrap()).unwrap()
}

/// Compares with `tests/golden/<folder>/<file>`, or writes it where the environment asks for that.
fn golden(folder: &str, file: &str, body: &Value) {
    let path = tests().join("golden").join(folder).join(file);
    let pretty = format!("{}\n", serde_json::to_string_pretty(body).unwrap());
    if env::var_os("COUNTERSEAL_UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &pretty).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(pretty, kept, "{} differs; COUNTERSEAL_UPDATE_GOLDEN=1 writes it anew", path.display());
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The specification's schemas, by their `$id`; nothing is fetched.
struct Schemas(Registry);

impl Schemas {
    fn load() -> Self {
        let root = tests().join("schemas/dsp");
        let resources = ["catalog", "common", "negotiation", "transfer"].into_iter().flat_map(|folder| {
            fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
        });
        let resources = resources.map(|path| {
            // three references of the specification's lack a slash; see the README beside the schemas
            let text = fs::read_to_string(path).unwrap().replace(".json#definitions/", ".json#/definitions/");
            let schema: Value = serde_json::from_str(&text).unwrap();
            (schema["$id"].as_str().unwrap().to_owned(), Resource::from_contents(schema))
        });
        Self(Registry::try_from_resources(resources.collect::<Vec<_>>()).unwrap())
    }

    fn validator(&self, schema: &str) -> Validator {
        let reference = json!({
            "$schema": "https://json-schema.org/draft/2019-09/schema",
            "$ref": format!("https://w3id.org/dspace/2025/1/{schema}"),
        });
        jsonschema::options().with_registry(self.0.clone()).build(&reference).unwrap()
    }

    fn takes(&self, schema: &str, body: &Value) -> bool {
        self.validator(schema).is_valid(body)
    }

    fn assert_valid(&self, schema: &str, body: &Value, file: &str) {
        let validator = self.validator(schema);
        let problems: Vec<_> =
            validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(problems.is_empty(), "{file}: {problems:#?}");
    }
}
