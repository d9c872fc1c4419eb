//! A foreign connector that has got a transfer started: where it pulls, and with which token.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Json, Router, extract::State, routing::any};
use reqwest::Client;
use serde_json::{Value, json};

use crate::{house::House, release::loopback};

const INBOUND: &str = "Bearer of the foreign connector";

/// Imports an agreement about `rows.csv` with a foreign connector, and asks for a transfer in its name: URL and token.
pub async fn start(hospital: &House) -> (String, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let started: Arc<Mutex<Option<Value>>> = Arc::default();
    let router = Router::new().fallback(any(take)).with_state(started.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let (http, base, operator) = loopback(hospital);
    let steward = fs::read_to_string(hospital.home.join("steward.token")).expect("a token");
    hospital.write("foreign.cedar", "@id(\"open\") permit (principal, action, resource);");
    let file = hospital.write(
        "foreign.toml",
        "id = \"foreign\"\nside = \"provider\"\npeer = \"foreign\"\ndataset = \"rows\"\nsource = \"rows.csv\"\n[policy]\nfile = \"foreign.cedar\"\n",
    );
    for (path, token, body) in [
        (
            "/v1/peers/token",
            operator.as_str(),
            json!({ "id": "foreign", "address": address, "inbound": INBOUND, "outbound": INBOUND, "followUpDelayMs": 0 }),
        ),
        ("/v1/agreements/import", operator.as_str(), json!({ "file": file })),
        ("/v1/agreements/foreign/approve", steward.trim(), json!({})),
    ] {
        let answer = http.post(format!("{base}{path}")).bearer_auth(token).json(&body).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap_or_default());
    }
    ask(&http, hospital, &address).await;
    for _ in 0..1000 {
        if let Some(start) = started.lock().expect("not poisoned").take() {
            let properties = start["dataAddress"]["endpointProperties"].as_array().expect("properties");
            let token = properties.iter().find(|property| property["name"] == "authorization").expect("a token");
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            return (text(&start["dataAddress"]["endpoint"]), text(&token["value"]));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the transfer did not start");
}

async fn ask(http: &Client, hospital: &House, address: &str) {
    let running = counterseal::node::Running::load(&hospital.home).expect("a running connector");
    let request = json!({
        "@context": ["https://w3id.org/dspace/2025/1/context.jsonld"], "@type": "TransferRequestMessage",
        "consumerPid": "urn:t", "agreementId": "foreign", "format": "HttpData-PULL", "callbackAddress": address,
    });
    let url = format!("http://{}/2025-1/transfers/request", running.plain.expect("a plain listener"));
    let answer = http.post(url).header("authorization", INBOUND).json(&request).send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 201);
}

async fn take(State(started): State<Arc<Mutex<Option<Value>>>>, Json(message): Json<Value>) {
    if message["@type"] == "TransferStartMessage" {
        *started.lock().expect("not poisoned") = Some(message);
    }
}
