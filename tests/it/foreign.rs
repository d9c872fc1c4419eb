//! Partners that are no Counterseal: known by a token, dealt with by people, given plain bytes where an offer allows it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, Uri},
    routing::any,
};
use counterseal::{
    agreement::AgreementState,
    cli::data_folder,
    evidence::{Bundle, Trust, verify},
    exchange::{About, Erasure, ForeignPeer, TraceRequest},
    id::{AgreementId, DatasetId},
    node::STEWARD,
    receipt::Kind,
    time::{Clock, ManualClock, SystemClock},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::locks::{Actor, start, start_with};

const INBOUND: &str = "Bearer what the partner presents";
const OUTBOUND: &str = "Bearer what we present to it";
const OPEN: &str = "@id(\"open\") permit (principal, action, resource);";
const TWICE: &str = "@id(\"see\") permit (principal, action in [Action::\"discover\", Action::\"negotiate\"], resource);
@id(\"twice\") @during(\"band(age, 10); drop(id)\") permit (principal in Group::\"partners\", action == Action::\"release\", resource) when { context.count < 2 };";

/// Path, body and `Authorization` of each message that came.
type Took = Arc<Mutex<Vec<(String, Value, String)>>>;

/// A foreign connector: takes every message, and remembers it.
struct Foreign {
    address: String,
    took: Took,
    http: reqwest::Client,
}

impl Foreign {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/dsp", listener.local_addr().unwrap());
        let took: Took = Arc::default();
        let router = Router::new().fallback(any(take)).with_state(took.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap();
        Self { address, took, http }
    }

    /// Until a message of this type came.
    async fn message(&self, kind: &str) -> Value {
        for _ in 0..400 {
            if let Some((_, message, _)) =
                self.took.lock().unwrap().iter().rfind(|(_, message, _)| message["@type"] == kind)
            {
                return message.clone();
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("no {kind} came: {:?}", self.took.lock().unwrap());
    }

    async fn post(&self, us: &Actor, path: &str, mut body: Value) -> (u16, Value) {
        body["@context"] = json!(["https://w3id.org/dspace/2025/1/context.jsonld"]);
        self.ask(us, Some(INBOUND), path, Some(&body)).await
    }

    async fn ask(&self, us: &Actor, authorization: Option<&str>, path: &str, body: Option<&Value>) -> (u16, Value) {
        let url = format!("http://{}/2025-1{path}", us.node.running.plain.unwrap());
        let mut request = match body {
            Some(body) => self.http.post(url).json(body),
            None => self.http.get(url),
        };
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    fn as_peer(&self, id: &str) -> ForeignPeer {
        serde_json::from_value(json!({
            "id": id, "name": "EDC", "address": self.address, "inbound": INBOUND, "outbound": OUTBOUND,
            "attributes": { "groups": ["partners"] }, "followUpDelayMs": 10,
        }))
        .unwrap()
    }

    /// Negotiates an agreement, and gets a transfer started: its data address.
    async fn agree_and_start(&self, us: &Actor) -> (String, Value) {
        let (status, answer) = self.post(us, "/negotiations/request", self.request("o", "d")).await;
        assert_eq!((status, answer["state"].as_str()), (201, Some("REQUESTED")), "{answer}");
        let message = self.message("ContractAgreementMessage").await;
        let (pid, agreement) = (text(&message["providerPid"]), text(&message["agreement"]["@id"]));
        assert_eq!(message["agreement"]["assignee"], "BPNL1");
        let verification =
            json!({"@type": "ContractAgreementVerificationMessage", "providerPid": pid, "consumerPid": "urn:c"});
        assert_eq!(self.post(us, &format!("/negotiations/{pid}/agreement/verification"), verification).await.0, 200);
        let event = self.message("ContractNegotiationEventMessage").await;
        assert_eq!(event["eventType"], "FINALIZED");
        let request = json!({"@type": "TransferRequestMessage", "consumerPid": "urn:t", "agreementId": agreement,
            "format": "HttpData-PULL", "callbackAddress": self.address});
        assert_eq!(self.post(us, "/transfers/request", request).await.0, 201);
        (agreement, self.message("TransferStartMessage").await)
    }

    fn request(&self, offer: &str, dataset: &str) -> Value {
        json!({"@type": "ContractRequestMessage", "consumerPid": "urn:c", "callbackAddress": self.address,
            "offer": {"@type": "Offer", "@id": offer, "target": dataset, "permission": [{"action": "use"}]}})
    }
}

async fn take(State(took): State<Took>, uri: Uri, headers: axum::http::HeaderMap, body: Bytes) -> StatusCode {
    let presented = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let text = || Value::String(String::from_utf8(body.to_vec()).unwrap());
    let mut took = took.lock().unwrap();
    took.push((uri.path().to_owned(), serde_json::from_slice(&body).unwrap_or_else(|_| text()), presented));
    // a receiver of data that fails twice
    let times = took.iter().filter(|(path, ..)| path.ends_with("/flaky") && *path == uri.path()).count();
    if (1..3).contains(&times) { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

/// The token and place of a data address.
fn pull(start: &Value) -> (String, String) {
    let properties = start["dataAddress"]["endpointProperties"].as_array().unwrap();
    let token = properties.iter().find(|property| property["name"] == "authorization").unwrap();
    (text(&start["dataAddress"]["endpoint"]), text(&token["value"]))
}

async fn open_to_foreigners(folder: &std::path::Path, clock: Arc<dyn Clock>) -> Actor {
    start_with(folder, "p", clock, None, |config| config.listen.plain = Some("127.0.0.1:0".parse().unwrap())).await
}

async fn publish(us: &Actor, policy: &str, plain: bool) {
    std::fs::write(data_folder(&us.home).join("d.csv"), "id,age\n1,38\n2,52\n").unwrap();
    std::fs::write(us.home.join("p.cedar"), policy).unwrap();
    let audience = if plain { "[audience]\nplain = true\n" } else { "" };
    let offer = format!(
        "id = \"o\"\n[dataset]\nid = \"d\"\ntitle = \"D\"\nsource = \"d.csv\"\n[policy]\nfile = \"p.cedar\"\n{audience}"
    );
    std::fs::write(us.home.join("o.toml"), offer).unwrap();
    us.node.exchange.publish(&us.home.join("o.toml")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_connector_is_known_by_its_token_and_by_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let us = open_to_foreigners(folder.path(), Arc::new(SystemClock)).await;
    let foreign = Foreign::new().await;
    publish(&us, OPEN, true).await;
    us.node.exchange.add_foreign(&foreign.as_peer("BPNL1")).await.unwrap();
    let catalog =
        json!({"@context": ["https://w3id.org/dspace/2025/1/context.jsonld"], "@type": "CatalogRequestMessage"});
    for (authorization, status) in
        [(Some(INBOUND), 200), (None, 401), (Some("Bearer guessed"), 401), (Some(OUTBOUND), 401), (Some("BPNL1"), 401)]
    {
        let (got, answer) = foreign.ask(&us, authorization, "/catalog/request", Some(&catalog)).await;
        assert_eq!(got, status, "{authorization:?}: {answer}");
    }
    // an offer that isn't plain doesn't exist for it
    let seen = foreign.ask(&us, Some(INBOUND), "/catalog/datasets/d", None).await;
    assert_eq!(seen.0, 200);
    publish(&us, OPEN, false).await;
    assert_eq!(foreign.ask(&us, Some(INBOUND), "/catalog/datasets/d", None).await.0, 404);
    // what is for certificates isn't for it
    let (status, answer) = foreign.ask(&us, Some(INBOUND), "/counterseal/v1/agreements/x/status", None).await;
    assert!(status == 403 || status == 404, "{status} {answer}");
    us.node.exchange.revoke_foreign(&"BPNL1".parse().unwrap(), "over").await.unwrap();
    let (status, answer) = foreign.ask(&us, Some(INBOUND), "/catalog/request", Some(&catalog)).await;
    assert_eq!((status, answer["code"].as_str()), (403, Some("peer-revoked")), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_peer_never_gets_in_by_token() {
    let folder = tempfile::tempdir().unwrap();
    let us = open_to_foreigners(folder.path(), Arc::new(SystemClock)).await;
    let peer = start(folder.path(), "c", Arc::new(SystemClock)).await;
    us.add(&peer).await;
    peer.add(&us).await;
    publish(&us, OPEN, true).await;
    let foreign = Foreign::new().await;
    let refused = us.node.exchange.add_foreign(&foreign.as_peer(peer.did().as_str())).await.unwrap_err();
    assert!(refused.is("peer-taken"), "{refused}");
    us.node.exchange.add_foreign(&foreign.as_peer("BPNL1")).await.unwrap();
    for (change, code) in [
        (json!({"id": "BPNL2"}), "token-taken"),
        (json!({"id": "BPNL2", "inbound": "short"}), "token-weak"),
        (
            json!({"id": "BPNL2", "inbound": "Bearer another long one", "address": "http://192.0.2.1/dsp"}),
            "address-insecure",
        ),
    ] {
        let mut body = json!({"id": "x", "address": foreign.address, "inbound": INBOUND, "outbound": OUTBOUND});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let refused = us.node.exchange.add_foreign(&serde_json::from_value(body).unwrap()).await.unwrap_err();
        assert!(refused.is(code), "{code}: {refused}");
    }
    // with its certificate and a stolen token it is who its certificate says: the offer that it gets is signed
    let answer = peer
        .client(&us)
        .get(format!("{}/2025-1/catalog/datasets/d", us.node.exchange.base_url))
        .header("authorization", INBOUND)
        .send()
        .await
        .unwrap();
    let dataset: Value = answer.json().await.unwrap();
    assert!(dataset["https://w3id.org/counterseal/ns#offer"].is_string(), "{dataset}");
    // nor is a token's participant ever known by a certificate as well
    let late = start(folder.path(), "late", Arc::new(SystemClock)).await;
    let mut body = foreign.as_peer(late.did().as_str());
    body.inbound = "Bearer of the late one".to_owned().into();
    us.node.exchange.add_foreign(&body).await.unwrap();
    std::fs::write(late.home.join("i.json"), serde_json::to_string(&late.node.exchange.invitation()).unwrap()).unwrap();
    let refused = us.node.exchange.add_peer(&late.home.join("i.json"), Default::default()).await.unwrap_err();
    assert!(refused.is("peer-taken"), "{refused}");
    us.node.exchange.revoke_peer(peer.did(), "over").await.unwrap();
    let again = peer.client(&us).get(format!("{}/2025-1/catalog/datasets/d", us.node.exchange.base_url));
    let answer = again.header("authorization", INBOUND).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 403, "a token doesn't help a revoked certificate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_release_is_decided_counted_transformed_and_signed_by_us_alone() {
    let folder = tempfile::tempdir().unwrap();
    let us = open_to_foreigners(folder.path(), Arc::new(SystemClock)).await;
    let foreign = Foreign::new().await;
    publish(&us, TWICE, true).await;
    us.node.exchange.add_foreign(&foreign.as_peer("BPNL1")).await.unwrap();
    let (agreement, start) = foreign.agree_and_start(&us).await;
    assert!(foreign.took.lock().unwrap().iter().all(|(_, _, presented)| presented == OUTBOUND), "we present ours");
    let (url, token) = pull(&start);
    let get = async |token: &str| {
        let answer = foreign.http.get(&url).header("authorization", token).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(foreign.http.head(&url).bearer_auth(&token).send().await.unwrap().status().as_u16(), 200);
    assert_eq!(get(INBOUND).await.0, 403, "its own token is none for data");
    assert_eq!(us.count(Kind::Released).await, 0, "looking and failing spend nothing");
    assert_eq!(get(&format!("Bearer {token}")).await, (200, "age\r\n30-39\r\n50-59\r\n".into()));
    assert_eq!(get(&token).await.0, 200);
    let (status, answer) = get(&token).await;
    assert!(status == 403 && answer.contains("policy-no-permit"), "the third of two: {status} {answer}");
    for _ in 0..100 {
        if us.count(Kind::Delivered).await == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        (us.count(Kind::Released).await, us.count(Kind::Delivered).await, us.count(Kind::Denied).await),
        (2, 2, 1)
    );
    let filter = counterseal::receipt::Filter { kind: Some(Kind::Released), ..Default::default() };
    let receipts = us.node.exchange.receipts.list(&filter, 0, 10).await.unwrap();
    assert!(receipts.iter().all(|stored| stored.receipt.one_sided), "and they say so");
    let bundle = us.node.exchange.export(Default::default(), true).await.unwrap();
    let verify = |bundle: &Bundle| verify(bundle, &Trust::default());
    let verdict = verify(&bundle);
    assert!(verdict.holds() && verdict.one_sided == 1 && verdict.agreements == 1, "{verdict:?}");
    let mut shorter = us.node.exchange.export(Default::default(), true).await.unwrap();
    let last = shorter.receipts.iter().rposition(|receipt| receipt.number == 2).unwrap();
    shorter.receipts.remove(last);
    assert!(
        verify(&shorter).findings.iter().any(|finding| finding.code == "receipt-missing"),
        "its series is complete"
    );
    let mut nobody = us.node.exchange.export(Default::default(), true).await.unwrap();
    nobody.agreements[0].by_provider = None;
    assert!(verify(&nobody).findings.iter().any(|finding| finding.code == "agreement-broken"));
    us.node.exchange.revoke_agreement(&AgreementId::parse(agreement).unwrap(), "over").await.unwrap();
    assert_eq!(get(&token).await.0, 403);
    foreign.message("TransferTerminationMessage").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leak_names_the_foreign_connector_whose_plain_copy_it_was_until_its_request_is_erased() {
    let folder = tempfile::tempdir().unwrap();
    let us = open_to_foreigners(folder.path(), Arc::new(SystemClock)).await;
    let foreign = Foreign::new().await;
    publish(&us, &TWICE.replace("band(age, 10); drop(id)", "hash(id)"), true).await;
    us.node.exchange.add_foreign(&foreign.as_peer("BPNL1")).await.unwrap();
    let (agreement, start) = foreign.agree_and_start(&us).await;
    let (url, token) = pull(&start);
    let leak = foreign.http.get(&url).bearer_auth(&token).send().await.unwrap().text().await.unwrap();
    std::fs::write(us.home.join("leak.csv"), leak).unwrap();
    let trace = || {
        let (file, dataset) = (us.home.join("leak.csv"), DatasetId::parse("d").ok());
        us.node.exchange.trace(TraceRequest { file, format: "csv".into(), dataset, offer: None })
    };
    let traced = trace().await.unwrap();
    assert_eq!(traced.named.len(), 1, "{traced:?}");
    assert!(traced.named[0].participant.as_str() == "BPNL1" && traced.named[0].certain, "{traced:?}");
    let agreement = Some(AgreementId::parse(agreement).unwrap());
    let erasure = Erasure { receipt: None, agreement, peer: None, reason: "asked for".into() };
    us.node.exchange.erase(&erasure).await.unwrap();
    let traced = trace().await.unwrap();
    assert!(traced.named.is_empty() && traced.candidates.is_empty(), "{traced:?}");
    assert!(traced.notes[0].contains("BPNL1") && traced.notes[0].contains("erased"), "{traced:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspension_stops_a_plain_stream_and_a_new_start_brings_a_new_token() {
    let folder = tempfile::tempdir().unwrap();
    let us = open_to_foreigners(folder.path(), Arc::new(SystemClock)).await;
    let foreign = Foreign::new().await;
    publish(&us, OPEN, true).await;
    let large = "0123456789,38\n".repeat(4_000_000);
    std::fs::write(data_folder(&us.home).join("d.csv"), format!("id,age\n{large}")).unwrap();
    us.publish_as_it_lies(OPEN).await;
    publish_plain_again(&us).await;
    us.node.exchange.add_foreign(&foreign.as_peer("BPNL1")).await.unwrap();
    let (_, start) = foreign.agree_and_start(&us).await;
    let (url, token) = pull(&start);
    let mut answer = foreign.http.get(&url).bearer_auth(&token).send().await.unwrap();
    assert!(answer.chunk().await.unwrap().is_some(), "it runs");
    let pid = text(&start["providerPid"]);
    us.node.exchange.act(About::Transfer, &pid, "suspend", "for the night").await.unwrap();
    let mut got = 0;
    let cut = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => got += chunk.len(),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(cut && got < large.len(), "{got} bytes");
    let suspension = foreign.message("TransferSuspensionMessage").await;
    assert_eq!(suspension["reason"], json!(["for the night"]));
    assert_eq!(foreign.http.get(&url).bearer_auth(&token).send().await.unwrap().status().as_u16(), 403);
    us.node.exchange.act(About::Transfer, &pid, "start", "").await.unwrap();
    let fresh = loop {
        let (url, fresh) = pull(&foreign.message("TransferStartMessage").await);
        if fresh != token {
            break (url, fresh);
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    };
    let old = foreign.http.get(&url).bearer_auth(&token).send().await.unwrap();
    assert!(old.status().as_u16() == 403 && old.text().await.unwrap().contains("token-superseded"));
    let whole = foreign.http.get(&fresh.0).bearer_auth(&fresh.1).send().await.unwrap();
    assert_eq!(whole.bytes().await.unwrap().len(), large.len() + 7);
}

impl Foreign {
    /// Agrees, and asks for a push to this place.
    async fn ask_push(&self, us: &Actor, agreement: &str, pid: &str, place: &str) -> (u16, Value) {
        let request = json!({"@type": "TransferRequestMessage", "consumerPid": pid, "agreementId": agreement,
            "format": "HttpData-PUSH", "callbackAddress": self.address,
            "dataAddress": {"@type": "DataAddress", "endpointType": "https://w3id.org/idsa/v4.1/HTTP", "endpoint": place,
                "endpointProperties": [
                    {"@type": "EndpointProperty", "name": "authorization", "value": "for the inbox"},
                    {"@type": "EndpointProperty", "name": "authType", "value": "bearer"}]}});
        self.post(us, "/transfers/request", request).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_brings_the_data_once_it_is_taken_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let us = open_to_foreigners(folder.path(), Arc::new(SystemClock)).await;
    let foreign = Foreign::new().await;
    publish(&us, TWICE, true).await;
    us.node.exchange.add_foreign(&foreign.as_peer("BPNL1")).await.unwrap();
    let (agreement, _) = foreign.agree_and_start(&us).await;
    let port = foreign.address.split(':').nth(2).unwrap().split('/').next().unwrap().to_owned();
    for place in [
        "http://127.0.0.1:1/dsp/inbox".to_owned(),
        format!("http://127.0.0.1:{port}/elsewhere"),
        format!("http://127.0.0.1:{port}/dsp/../elsewhere"),
        format!("http://user@127.0.0.1:{port}/dsp/inbox"),
        format!("http://[::1]:{port}/dsp/inbox"),
        format!("http://[::ffff:127.0.0.1]:{port}/dsp/inbox"),
        format!("http://localhost:{port}/dsp/inbox"),
        format!("https://127.0.0.1:{port}/dsp/inbox"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://0.0.0.0/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        let (status, answer) = foreign.ask_push(&us, &agreement, "urn:no", &place).await;
        assert_eq!((status, answer["code"].as_str()), (400, Some("endpoint-not-pinned")), "{place}: {answer}");
    }
    let place = format!("{}/flaky", foreign.address);
    assert_eq!(foreign.ask_push(&us, &agreement, "urn:push", &place).await.0, 201);
    foreign.message("TransferCompletionMessage").await;
    let brought: Vec<_> =
        foreign.took.lock().unwrap().iter().filter(|(path, ..)| path == "/dsp/flaky").cloned().collect();
    assert_eq!(brought.len(), 3, "refused twice, taken once");
    for (_, data, presented) in brought {
        assert_eq!((data.as_str(), presented.as_str()), (Some("age\r\n30-39\r\n50-59\r\n"), "Bearer for the inbox"));
    }
    assert_eq!((us.count(Kind::Released).await, us.count(Kind::Delivered).await), (1, 1), "one release, however often");
    assert_eq!(foreign.ask_push(&us, &agreement, "urn:push2", &place).await.0, 201);
    for _ in 0..400 {
        if us.count(Kind::Delivered).await == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(foreign.ask_push(&us, &agreement, "urn:push3", &place).await.0, 201);
    let end = foreign.message("TransferTerminationMessage").await;
    assert_eq!(end["code"], "policy-no-permit", "the third of two: {end}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_consumer_suspends_and_resumes_without_a_data_address() {
    // the kit's TP:02-04, which it disables: started, suspended by the consumer, started by the consumer, completed
    let folder = tempfile::tempdir().unwrap();
    let us = open_to_foreigners(folder.path(), Arc::new(SystemClock)).await;
    let foreign = Foreign::new().await;
    publish(&us, OPEN, true).await;
    us.node.exchange.add_foreign(&foreign.as_peer("BPNL1")).await.unwrap();
    let (_, start) = foreign.agree_and_start(&us).await;
    let pid = text(&start["providerPid"]);
    let (url, token) = pull(&start);
    for (kind, path, state, data) in [
        ("TransferSuspensionMessage", "suspension", "SUSPENDED", 403),
        ("TransferStartMessage", "start", "STARTED", 200),
        ("TransferCompletionMessage", "completion", "COMPLETED", 403),
    ] {
        let message = json!({"@type": kind, "providerPid": pid, "consumerPid": "urn:t"});
        assert_eq!(foreign.post(&us, &format!("/transfers/{pid}/{path}"), message).await.0, 200, "{kind}");
        let (_, shown) = foreign.ask(&us, Some(INBOUND), &format!("/transfers/{pid}"), None).await;
        assert_eq!(shown["state"], state);
        assert_eq!(foreign.http.get(&url).bearer_auth(&token).send().await.unwrap().status().as_u16(), data, "{kind}");
    }
}

/// The same offer, for foreigners too.
async fn publish_plain_again(us: &Actor) {
    let offer = std::fs::read_to_string(us.home.join("o.toml")).unwrap();
    std::fs::write(us.home.join("o.toml"), format!("{offer}[audience]\nplain = true\n")).unwrap();
    us.node.exchange.publish(&us.home.join("o.toml")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_waits_for_a_steward_and_the_operator_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let us = open_to_foreigners(folder.path(), Arc::new(SystemClock)).await;
    let foreign = Foreign::new().await;
    std::fs::write(data_folder(&us.home).join("d.csv"), "id,age\n1,38\n").unwrap();
    std::fs::write(us.home.join("p.cedar"), OPEN).unwrap();
    let file = us.home.join("a.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let contract = "id = \"contract-17\"\nside = \"provider\"\npeer = \"BPNL1\"\ndataset = \"d\"\nsource = \"d.csv\"\nreference = \"paper, 2026-11-02\"\n[policy]\nfile = \"p.cedar\"\n";
    write(contract);
    let exchange = &us.node.exchange;
    assert!(exchange.import_agreement(&file).await.unwrap_err().is("peer-unknown"));
    exchange.add_foreign(&foreign.as_peer("BPNL1")).await.unwrap();
    std::fs::write(us.home.join("p.cedar"), "permit (principal, action, resource) when { context.nonsense };").unwrap();
    assert!(exchange.import_agreement(&file).await.unwrap_err().is("policy-invalid"), "like any offer's");
    std::fs::write(us.home.join("p.cedar"), OPEN).unwrap();
    assert_eq!(exchange.import_agreement(&file).await.unwrap().state, AgreementState::Pending);
    assert_eq!(exchange.import_agreement(&file).await.unwrap().state, AgreementState::Pending, "the same again");
    write(&contract.replace("dataset = \"d\"", "dataset = \"e\""));
    assert!(exchange.import_agreement(&file).await.unwrap_err().is("agreement-taken"));

    let request = json!({"@type": "TransferRequestMessage", "consumerPid": "urn:t", "agreementId": "contract-17",
        "format": "HttpData-PULL", "callbackAddress": foreign.address});
    let (status, answer) = foreign.post(&us, "/transfers/request", request.clone()).await;
    assert_eq!((status, answer["code"].as_str()), (400, Some("agreement-pending")), "{answer}");
    let approve = async |token: &str| {
        let token = std::fs::read_to_string(us.home.join(token)).unwrap();
        let url = format!("http://{}/v1/agreements/contract-17/approve", us.node.running.management);
        foreign.http.post(url).bearer_auth(token.trim()).send().await.unwrap().status().as_u16()
    };
    assert_eq!(approve(counterseal::node::TOKEN).await, 403, "who brings it in can't wave it through");
    assert_eq!(us.count(Kind::Approved).await, 0);
    assert_eq!(approve(STEWARD).await, 200);
    assert_eq!((us.count(Kind::Imported).await, us.count(Kind::Approved).await), (1, 1));
    assert_eq!(foreign.post(&us, "/transfers/request", request).await.0, 201);
    let (url, token) = pull(&foreign.message("TransferStartMessage").await);
    let got = foreign.http.get(url).bearer_auth(token).send().await.unwrap().text().await.unwrap();
    assert_eq!(got, "id,age\n1,38\n", "untouched: nothing was to be changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_decides_ends_at_its_deadline_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let us = open_to_foreigners(folder.path(), clock.clone()).await;
    let foreign = Foreign::new().await;
    publish(&us, OPEN, true).await;
    let offer = std::fs::read_to_string(us.home.join("o.toml")).unwrap();
    std::fs::write(us.home.join("o.toml"), format!("approval = \"manual\"\n{offer}")).unwrap();
    us.node.exchange.publish(&us.home.join("o.toml")).await.unwrap();
    us.node.exchange.add_foreign(&foreign.as_peer("BPNL1")).await.unwrap();
    let (_, answer) = foreign.post(&us, "/negotiations/request", foreign.request("o", "d")).await;
    let pid = text(&answer["providerPid"]);
    let pending = us.node.exchange.pending().await.unwrap();
    assert_eq!((pending.len(), pending[0].pid.as_str(), pending[0].state), (1, pid.as_str(), "REQUESTED"));
    assert_eq!(pending[0].actions, ["offer", "agree", "terminate"]);
    let refused = us.node.exchange.act(About::Negotiation, &pid, "finalize", "").await.unwrap_err();
    assert!(refused.is("action-illegal") && refused.sentence.contains("agree"), "{refused}");
    us.node.exchange.expire_pending().await.unwrap();
    assert_eq!(us.node.exchange.pending().await.unwrap().len(), 1, "there is time");
    clock.advance(Duration::from_secs(7 * 24 * 3600));
    us.node.exchange.expire_pending().await.unwrap();
    assert!(us.node.exchange.pending().await.unwrap().is_empty());
    clock.advance(Duration::from_secs(1));
    let (_, shown) = foreign.ask(&us, Some(INBOUND), &format!("/negotiations/{pid}"), None).await;
    assert_eq!(shown["state"], "TERMINATED");
    let message = foreign.message("ContractNegotiationTerminationMessage").await;
    assert!(message["reason"][0].as_str().unwrap().contains("nobody decided"), "{message}");
}
