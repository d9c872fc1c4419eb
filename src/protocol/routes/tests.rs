//! Requests through the whole router, with a handler that answers simply and notes what reached it.

mod mock;

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, Method, Request as HttpRequest},
};
use serde_json::json;
use tower::ServiceExt;

use super::*;
use crate::protocol::{MAX_BODY, message::CONTEXT};

use self::mock::{Mock, caller};

struct Site {
    mock: Arc<Mock>,
    router: Router,
}

/// A status, the body as text and as JSON, and the headers.
struct Reply {
    status: u16,
    text: String,
    json: Value,
    headers: HeaderMap,
}

impl Reply {
    fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or("")
    }

    fn tag(&self) -> &str {
        self.json["@type"].as_str().unwrap_or("")
    }
}

impl Site {
    fn new() -> Self {
        let mock = Arc::new(Mock::default());
        Self { router: routes(mock.clone()).fallback(fallback), mock }
    }

    async fn send(&self, request: HttpRequest<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 20).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply { status: parts.status.as_u16(), text, json, headers: parts.headers }
    }

    async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> Reply {
        self.send(HttpRequest::builder().method(method).uri(path).extension(caller()).body(body.into()).unwrap()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Reply {
        self.call(Method::POST, path, body.to_string()).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, Body::empty()).await
    }

    fn seen(&self) -> Vec<String> {
        self.mock.seen()
    }
}

fn message(tag: &str, fields: Value) -> Value {
    let mut message = json!({"@context": [CONTEXT], "@type": tag, "@id": "m"});
    message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    message
}

fn first_request() -> Value {
    message(
        "ContractRequestMessage",
        json!({
            "consumerPid": "theirs", "callbackAddress": "https://c.example/2025-1",
            "offer": {"@id": "o", "@type": "Offer", "target": "d", "permission": [{"action": "use"}]},
        }),
    )
}

fn both(tag: &str) -> Value {
    message(tag, json!({"providerPid": "ours", "consumerPid": "theirs"}))
}

const TERMINATION: &str = "ContractNegotiationTerminationMessage";

#[tokio::test]
async fn a_first_message_is_answered_201_and_a_later_one_200() {
    let site = Site::new();
    let reply = site.post("/2025-1/negotiations/request", &first_request()).await;
    assert_eq!((reply.status, reply.tag(), &reply.json["state"]), (201, "ContractNegotiation", &json!("REQUESTED")));
    assert_eq!((&reply.json["consumerPid"], &reply.json["providerPid"]), (&json!("theirs"), &json!("ours")));
    assert_eq!(reply.headers["content-type"], "application/json");

    let reply = site.post("/2025-1/negotiations/ours/termination", &both(TERMINATION)).await;
    assert_eq!((reply.status, &reply.json["state"]), (200, &json!("TERMINATED")));
    assert_eq!(site.seen(), ["Request to provider None", "Terminate to provider Some(Pid(\"ours\"))"]);
}

#[tokio::test]
async fn every_path_of_the_binding_takes_its_message() {
    let offer = || json!({"@id": "o", "@type": "Offer", "target": "d", "permission": [{"action": "use"}]});
    let with = |mut value: Value, key: &str, field: Value| {
        value[key] = field;
        value
    };
    let counter = with(with(first_request(), "providerPid", json!("ours")), "callbackAddress", Value::Null);
    let agreement = json!({
        "@id": "a", "@type": "Agreement", "target": "d", "assigner": "p", "assignee": "c", "permission": [{"action": "use"}],
    });
    let initial_offer = message(
        "ContractOfferMessage",
        json!({"providerPid": "theirs", "callbackAddress": "https://p.example/2025-1", "offer": offer()}),
    );
    let event = |kind| with(both("ContractNegotiationEventMessage"), "eventType", json!(kind));
    let site = Site::new();
    for (path, body, status, seen) in [
        ("negotiations/ours/request", counter, 200, "Request to provider Some(Pid(\"ours\"))"),
        ("negotiations/offers", initial_offer, 201, "Offer to consumer None"),
        ("negotiations/ours/events", event("ACCEPTED"), 200, "Accept to provider Some(Pid(\"ours\"))"),
        // each of these is a provider's to send, or not yet due
        ("negotiations/ours/events", event("FINALIZED"), 400, "Finalize to provider Some(Pid(\"ours\"))"),
        (
            "negotiations/ours/offers",
            with(both("ContractOfferMessage"), "offer", offer()),
            400,
            "Offer to provider Some(Pid(\"ours\"))",
        ),
        (
            "negotiations/ours/agreement",
            with(both("ContractAgreementMessage"), "agreement", agreement),
            400,
            "Agree to provider Some(Pid(\"ours\"))",
        ),
        (
            "negotiations/ours/agreement/verification",
            both("ContractAgreementVerificationMessage"),
            400,
            "Verify to provider Some(Pid(\"ours\"))",
        ),
        (
            "transfers/request",
            message(
                "TransferRequestMessage",
                json!({"consumerPid": "theirs", "agreementId": "a", "format": "f", "callbackAddress": "http://c"}),
            ),
            201,
            "Request to provider None",
        ),
        ("transfers/ours/start", both("TransferStartMessage"), 400, "Start to provider Some(Pid(\"ours\"))"),
        (
            "transfers/ours/completion",
            both("TransferCompletionMessage"),
            200,
            "Complete to provider Some(Pid(\"ours\"))",
        ),
        (
            "transfers/ours/suspension",
            both("TransferSuspensionMessage"),
            200,
            "Suspend to provider Some(Pid(\"ours\"))",
        ),
        (
            "transfers/ours/termination",
            both("TransferTerminationMessage"),
            200,
            "Terminate to provider Some(Pid(\"ours\"))",
        ),
    ] {
        for slash in ["", "/"] {
            let reply = site.post(&format!("/2025-1/{path}{slash}"), &body).await;
            assert_eq!(reply.status, status, "{path}{slash}: {}", reply.text);
            assert_eq!(site.seen(), [seen], "{path}{slash}");
            if status == 400 {
                assert_eq!(reply.code(), "illegal-transition");
            }
        }
    }
    for path in
        ["/2025-1/negotiations/ours", "/2025-1/negotiations/ours/", "/2025-1/transfers/ours", "/2025-1/transfers/ours/"]
    {
        assert_eq!(site.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_receiver_is_whose_pid_is_in_the_path() {
    let site = Site::new();
    let swapped = message(TERMINATION, json!({"providerPid": "theirs", "consumerPid": "ours"}));
    site.post("/2025-1/negotiations/ours/termination", &swapped).await;
    assert_eq!(site.seen(), ["Terminate to consumer Some(Pid(\"ours\"))"]);
}

#[tokio::test]
async fn pids_that_do_not_fit_are_400() {
    let site = Site::new();
    let stranger = message(TERMINATION, json!({"providerPid": "x", "consumerPid": "y"}));
    let reply = site.post("/2025-1/negotiations/ours/termination", &stranger).await;
    assert_eq!((reply.status, reply.code()), (400, "pid-mismatch"));
    assert!(site.seen().is_empty(), "the handler is not asked");

    let half = message(TERMINATION, json!({"providerPid": "ours", "consumerPid": "y"}));
    let reply = site.post("/2025-1/negotiations/ours/termination", &half).await;
    assert_eq!((reply.status, reply.code()), (400, "pid-mismatch"));
    assert_eq!((&reply.json["providerPid"], &reply.json["consumerPid"]), (&json!("ours"), &json!("y")));

    let mut continued = first_request();
    continued["providerPid"] = json!("ours");
    let reply = site.post("/2025-1/negotiations/request", &continued).await;
    assert_eq!((reply.status, reply.code()), (400, "pid-unexpected"));
    let reply = site.post("/2025-1/negotiations/ours/request", &first_request()).await;
    assert_eq!((reply.status, reply.code()), (400, "pid-mismatch"));
}

#[tokio::test]
async fn without_a_caller_nothing_but_the_version_is_answered_and_nothing_is_read() {
    let site = Site::new();
    for (method, path, tag) in [
        (Method::POST, "/2025-1/catalog/request", "CatalogError"),
        (Method::GET, "/2025-1/catalog/datasets/d", "CatalogError"),
        (Method::POST, "/2025-1/negotiations/request", "ContractNegotiationError"),
        (Method::GET, "/2025-1/negotiations/ours", "ContractNegotiationError"),
        (Method::POST, "/2025-1/transfers/ours/start", "TransferError"),
        (Method::GET, "/2025-1/transfers/ours", "TransferError"),
        (Method::POST, "/2025-1/counterseal/v1/releases", ""),
        (Method::POST, "/2025-1/counterseal/v1/releases/r/acknowledgement", ""),
        (Method::POST, "/2025-1/counterseal/v1/releases/r/outcome", ""),
        (Method::GET, "/2025-1/counterseal/v1/agreements/a/status", ""),
        (Method::POST, "/2025-1/counterseal/v1/receipts", ""),
        (Method::POST, "/2025-1/counterseal/v1/statement", ""),
    ] {
        let (body, polled) = endless();
        let reply = site.send(HttpRequest::builder().method(method).uri(path).body(body).unwrap()).await;
        assert_eq!((reply.status, reply.code(), reply.tag()), (401, "unauthenticated", tag), "{path}");
        assert!(reply.json["reason"][0].is_string(), "{path}");
        assert_eq!(polled.load(Ordering::SeqCst), 0, "{path}");
    }
    assert!(site.seen().is_empty());
    for path in ["/.well-known/dspace-version", "/.well-known/dspace-version/"] {
        let reply = site.send(HttpRequest::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!((reply.status, &reply.json["protocolVersions"][0]["path"]), (200, &json!("/2025-1")));
    }
}

/// A body of any number of megabytes that counts how many of them were taken.
fn endless() -> (Body, Arc<AtomicUsize>) {
    let polled = Arc::new(AtomicUsize::new(0));
    let counter = polled.clone();
    let megabyte = Bytes::from(vec![b' '; 1 << 20]);
    let chunks = (0..100).map(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok::<_, std::io::Error>(megabyte.clone())
    });
    (Body::from_stream(futures_util::stream::iter(chunks)), polled)
}

#[tokio::test]
async fn a_hundred_megabytes_are_refused_without_being_read() {
    let site = Site::new();
    for path in ["/2025-1/negotiations/request", "/2025-1/catalog/request", "/2025-1/counterseal/v1/receipts"] {
        let (body, polled) = endless();
        let request = HttpRequest::post(path).extension(caller()).header("content-length", 100 << 20).body(body);
        let reply = site.send(request.unwrap()).await;
        assert_eq!((reply.status, reply.code()), (413, "body-too-large"), "{path}");
        assert_eq!(reply.headers["connection"], "close");
        assert_eq!(polled.load(Ordering::SeqCst), 0, "announced, so not read at all: {path}");

        let (body, polled) = endless();
        let reply = site.call(Method::POST, path, body).await;
        assert_eq!((reply.status, reply.code()), (413, "body-too-large"), "{path}");
        assert!(polled.load(Ordering::SeqCst) <= 2, "{path}: {polled:?} MB read");
    }
    assert!(site.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_breaks_off_is_400() {
    let broken = futures_util::stream::iter([Ok(Bytes::from("{")), Err(std::io::Error::other("gone"))]);
    let reply = Site::new().call(Method::POST, "/2025-1/catalog/request", Body::from_stream(broken)).await;
    assert_eq!((reply.status, reply.code()), (400, "body-broken"));
}

#[tokio::test]
async fn a_bad_body_is_400_with_what_is_wrong_and_never_reaches_the_handler() {
    let bomb = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let padded = |tag: &str| format!("{{\"@context\":[\"{CONTEXT}\"],\"@type\":\"{tag}\"}}");
    let site = Site::new();
    for (body, code) in [
        (String::new(), "body-empty"),
        ("  \n".into(), "body-empty"),
        (bomb, "json-too-deep"),
        ("{".into(), "json-invalid"),
        ("null".into(), "json-invalid"),
        ("[{}]".into(), "json-invalid"),
        ("{}".into(), "context-unknown"),
        (
            json!({"@context": ["https://w3id.org/dspace/2024/1/context.json"], "@type": "x"}).to_string(),
            "context-unknown",
        ),
        (json!({"@context": [CONTEXT]}).to_string(), "type-unexpected"),
        (padded("TransferErrorX"), "type-unexpected"),
        (json!({"@context": [CONTEXT], "@id": 7}).to_string(), "message-invalid"),
        (json!({"@context": [CONTEXT], "@id": "x".repeat(513)}).to_string(), "message-invalid"),
    ] {
        for (path, tag) in [
            ("/2025-1/catalog/request", "CatalogError"),
            ("/2025-1/negotiations/request", "ContractNegotiationError"),
            ("/2025-1/negotiations/ours/events", "ContractNegotiationError"),
            ("/2025-1/transfers/request", "TransferError"),
            ("/2025-1/transfers/ours/completion", "TransferError"),
        ] {
            let reply = site.call(Method::POST, path, body.clone()).await;
            assert_eq!((reply.status, reply.code(), reply.tag()), (400, code, tag), "{path}: {}", reply.text);
            assert_eq!(reply.json["@context"], json!([CONTEXT]));
            assert!(reply.text.len() < 2000);
        }
    }
    let incomplete =
        message("ContractNegotiationEventMessage", json!({"providerPid": "ours", "consumerPid": "theirs"}));
    let reply = site.post("/2025-1/negotiations/ours/events", &incomplete).await;
    assert_eq!((reply.status, reply.code()), (400, "message-invalid"));
    assert!(reply.json["reason"][0].as_str().unwrap().contains("eventType"));
    assert!(site.seen().is_empty());
}

#[tokio::test]
async fn a_filter_that_we_do_not_serve_is_400() {
    let site = Site::new();
    let body = message("CatalogRequestMessage", json!({"filter": [{"keyword": "x"}]}));
    let reply = site.post("/2025-1/catalog/request", &body).await;
    assert_eq!((reply.status, reply.code(), reply.tag()), (400, "filter-unsupported", "CatalogError"));
    assert!(site.seen().is_empty());
}

#[tokio::test]
async fn what_is_not_the_callers_looks_exactly_like_what_does_not_exist() {
    let site = Site::new();
    let same = |text: String, name: &str| text.replace(name, "#");
    for path in ["negotiations", "transfers"] {
        let foreign = site.get(&format!("/2025-1/{path}/foreign")).await;
        let absent = site.get(&format!("/2025-1/{path}/nobody")).await;
        assert_eq!((foreign.status, absent.status), (404, 404));
        assert_eq!(same(foreign.text, "foreign"), same(absent.text, "nobody"));
    }
    let end = |pid: &str| message(TERMINATION, json!({"providerPid": pid, "consumerPid": "theirs"}));
    let foreign = site.post("/2025-1/negotiations/foreign/termination", &end("foreign")).await;
    let absent = site.post("/2025-1/negotiations/nobody/termination", &end("nobody")).await;
    assert_eq!((foreign.status, foreign.tag(), foreign.code()), (404, "ContractNegotiationError", "not-found"));
    assert_eq!(same(foreign.text, "foreign"), same(absent.text, "nobody"));

    // text that can be no pid of ours either
    for odd in ["..%2Fx", "%2E%2E", "a%0Ab", "%FF", &"x".repeat(513)] {
        let reply = site.get(&format!("/2025-1/negotiations/{odd}")).await;
        assert_eq!((reply.status, reply.tag(), reply.code()), (404, "ContractNegotiationError", "not-found"), "{odd}");
    }
    let reply = site.get("/2025-1/catalog/datasets/CAT0103").await;
    assert_eq!((reply.status, reply.tag(), reply.code()), (404, "CatalogError", "not-found"));
    assert!(reply.json.get("providerPid").is_none());
}

#[tokio::test]
async fn a_path_that_does_not_exist_answers_in_its_familys_type() {
    let site = Site::new();
    for (path, tag) in [
        ("/2025-1/negotiations/ours/nothing", "ContractNegotiationError"),
        ("/2025-1/transfers/ours/nothing", "TransferError"),
        ("/nothing", "CatalogError"),
    ] {
        let reply = site.get(path).await;
        assert_eq!((reply.status, reply.tag(), reply.code()), (404, tag, "not-found"), "{path}");
    }
}

#[tokio::test]
async fn a_catalog_says_where_its_next_page_is() {
    let site = Site::new();
    let reply = site.post("/2025-1/catalog/request", &message("CatalogRequestMessage", json!({}))).await;
    let link = "<https://p.example/2025-1/catalog/request?page=a%20b%3E>; rel=\"next\"";
    assert_eq!((reply.status, reply.headers["link"].to_str().unwrap()), (200, link));
    let next = "/2025-1/catalog/request?page=a%20b%3E";
    let reply = site.post(next, &message("CatalogRequestMessage", json!({}))).await;
    assert!(!reply.headers.contains_key("link"));
    assert!(reply.json.get("dataset").is_none(), "an empty array is left out");
    assert_eq!(site.seen(), ["catalog did:web:c.invalid None", "catalog did:web:c.invalid Some(\"a b>\")"]);
}

#[tokio::test]
async fn the_peer_extension_answers_and_refuses() {
    let site = Site::new();
    let base = "/2025-1/counterseal/v1";
    let release = async |authorization: Option<&str>, purpose: &str| {
        let mut request = HttpRequest::post(format!("{base}/releases")).extension(caller());
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let body = json!({"requestId": "q", "purpose": purpose}).to_string();
        site.send(request.body(Body::from(body)).unwrap()).await
    };
    let reply = release(Some("Bearer T"), "research").await;
    assert_eq!((reply.status, &reply.json["release"]), (201, &json!("r")));
    assert_eq!(release(Some("T"), "research").await.status, 201);
    let reply = release(Some("Bearer T"), "marketing").await;
    assert_eq!((reply.status, reply.code()), (403, "policy-denied"));
    for none in [None, Some("Bearer "), Some("Basic eDp5")] {
        let reply = release(none, "research").await;
        assert_eq!((reply.status, reply.code()), (401, "token-missing"), "{none:?}");
    }
    assert_eq!(site.seen(), ["release T q research", "release T q research", "release T q marketing"]);

    let jws = "a.b.c";
    let logged = json!({"receipt": jws, "number": 1, "proof": ""});
    let path = |rest: &str| format!("{base}/{rest}");
    let reply =
        site.post(&path("releases/r/acknowledgement"), &json!({"acknowledgement": jws, "acknowledged": logged})).await;
    assert_eq!((reply.status, reply.text.contains("Mallory")), (404, false));
    assert_eq!(site.post(&path("releases/r/outcome"), &json!({"outcome": logged})).await.status, 204);
    assert_eq!(site.get(&path("agreements/a/status")).await.json["status"], jws);
    assert_eq!(site.post(&path("statement"), &json!({"statement": jws})).await.status, 503);
    let half = json!({"agreement": "a", "kind": "used", "receipt": jws, "number": 1, "proof": ""});
    assert_eq!(site.post(&path("receipts"), &json!({"halves": [half]})).await.status, 204);
    let many = json!({"halves": vec![half; 257]});
    assert_eq!(site.post(&path("receipts"), &many).await.code(), "too-many");
    let checkpoint = async |body: &str| site.call(Method::POST, &path("add-checkpoint"), body.to_owned()).await;
    for (body, status, text) in [("old 0", 200, "line\n"), ("late", 409, "17\n"), ("forged", 403, "no\n")] {
        let reply = checkpoint(body).await;
        assert_eq!((reply.status, reply.text.as_str()), (status, text));
    }
    assert_eq!(site.get(&path("log/1/checkpoint")).await.text.as_bytes(), [1, 2]);
    assert_eq!(site.get(&path("log/1/tile/0/x001/067.p/3")).await.status, 200);
    for nothing in ["log/01/checkpoint", "log/x/checkpoint", "log/1/tile/9/000", "log/1/"] {
        assert_eq!(site.get(&path(nothing)).await.status, 404, "{nothing}");
    }
    for (body, code) in [
        (String::new(), "body-empty"),
        (json!({"acknowledgement": "not a jws"}).to_string(), "message-invalid"),
        (json!({"acknowledgement": 1}).to_string(), "message-invalid"),
        ("[".repeat(MAX_BODY), "json-too-deep"),
    ] {
        let reply = site.call(Method::POST, &path("releases/r/acknowledgement"), body).await;
        assert_eq!((reply.status, reply.code()), (400, code));
    }
}
