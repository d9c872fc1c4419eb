//! Events: in the order of commits, from wherever a reader stopped, over restarts; webhooks signed, repeated, in order.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use counterseal::{cli::data_folder, config, node::TOKEN, time::SystemClock};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::locks::{Actor, OPEN, again, start, start_with};

async fn agreed(provider: &Actor, consumer: &Actor) {
    provider.add(consumer).await;
    consumer.add(provider).await;
    std::fs::write(data_folder(&provider.home).join("d.csv"), "id,age\n1,38\n").unwrap();
    provider.publish_as_it_lies(OPEN).await;
    consumer.agree(provider).await;
}

fn states(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["data"]["state"].as_str().unwrap()).collect()
}

/// So many events from the management API, after this one.
async fn follow(actor: &Actor, after: Option<u64>, many: usize) -> Vec<Value> {
    let token = std::fs::read_to_string(actor.home.join(TOKEN)).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let http = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap();
    let mut request = http.get(format!("http://{}/v1/events", actor.node.running.management)).bearer_auth(token.trim());
    if let Some(after) = after {
        request = request.header("last-event-id", after.to_string());
    }
    let mut answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let (mut text, mut events) = (String::new(), Vec::new());
    while events.len() < many {
        let chunk = tokio::time::timeout(Duration::from_secs(20), answer.chunk()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
        events = text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_in_order_and_a_reader_goes_on_where_it_stopped_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let provider = start(folder.path(), "p", Arc::new(SystemClock)).await;
    let consumer = start(folder.path(), "c", Arc::new(SystemClock)).await;
    agreed(&provider, &consumer).await;
    let events = follow(&consumer, Some(0), 3).await;
    assert_eq!(states(&events), ["REQUESTED", "VERIFIED", "FINALIZED"]);
    for (place, event) in events.iter().enumerate() {
        assert_eq!(event["id"], (place + 1).to_string());
        assert_eq!(
            (event["specversion"].as_str(), event["source"].as_str()),
            (Some("1.0"), Some(consumer.did().as_str()))
        );
        assert_eq!(event["type"], "org.counterseal.negotiation");
        assert_eq!(event["subject"], event["data"]["pid"]);
    }
    let (home, ports) = (consumer.home.clone(), consumer.node.running.clone());
    consumer.node.stop().await;
    let consumer = again(&home, ports).await;
    assert_eq!(follow(&consumer, Some(1), 2).await, events[1..], "the same ones, with the same numbers");
    // whoever names none gets what comes
    let (live, ()) = tokio::join!(follow(&consumer, None, 1), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        consumer.agree(&provider).await;
    });
    assert_eq!((live[0]["id"].as_str(), states(&live)), (Some("4"), vec!["REQUESTED"]));
    let token = std::fs::read_to_string(consumer.home.join(TOKEN)).unwrap();
    assert!(!serde_json::to_string(&events).unwrap().contains(token.trim()));
}

/// Headers and body of each delivery.
type Took = Arc<Mutex<Vec<(HeaderMap, Vec<u8>)>>>;

async fn take(State((took, refuse)): State<(Took, Arc<Mutex<u32>>)>, headers: HeaderMap, body: Bytes) -> StatusCode {
    took.lock().unwrap().push((headers, body.to_vec()));
    let mut refuse = refuse.lock().unwrap();
    if *refuse == 0 {
        return StatusCode::NO_CONTENT;
    }
    *refuse -= 1;
    StatusCode::INTERNAL_SERVER_ERROR
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_gets_each_event_signed_and_in_order_until_it_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let (took, refuse): (Took, _) = (Arc::default(), Arc::new(Mutex::new(2)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = Router::new().route("/hook", post(take)).with_state((took.clone(), refuse));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let secret = folder.path().join("hook.secret");
    std::fs::write(&secret, format!("whsec_{}\n", STANDARD.encode([7_u8; 32]))).unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let webhook = config::Webhook { url, secret_file: secret.clone(), types: Vec::new() };
    let provider = start_with(folder.path(), "p", Arc::new(SystemClock), None, |config| {
        config.webhooks = vec![webhook.clone()];
    })
    .await;
    let consumer = start(folder.path(), "c", Arc::new(SystemClock)).await;
    agreed(&provider, &consumer).await;
    for _ in 0..400 {
        if took.lock().unwrap().len() >= 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let took = took.lock().unwrap().clone();
    let numbers: Vec<Value> =
        took.iter().map(|(_, body)| serde_json::from_slice::<Value>(body).unwrap()["id"].clone()).collect();
    assert_eq!(numbers, ["1", "1", "1", "2"], "refused twice, then in order");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[7; 32]);
    for (headers, body) in &took {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        let signature = STANDARD.decode(header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
        let mut signed = format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).into_bytes();
        signed.extend_from_slice(body);
        ring::hmac::verify(&key, &signed, &signature).unwrap();
    }
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let home = provider.home.clone();
    provider.node.stop().await;
    let mut exposed = config::Config::load(&home, []).unwrap();
    exposed.listen.partner = "127.0.0.1:0".parse().unwrap();
    exposed.listen.management = exposed.listen.partner;
    exposed.webhooks = vec![webhook];
    let started = counterseal::node::Node::start(
        &home,
        exposed,
        Arc::new(SystemClock),
        Arc::new(counterseal::crypto::SystemRandom),
        false,
    )
    .await;
    let error = started.err().expect("a secret that others can read").to_string();
    assert!(error.contains("hook.secret") && error.contains("chmod 600"), "{error}");
}
