//! Delivery to connectors that behave badly: each fault is "not yet", the message comes again unchanged, and is taken
//! once; what can't be delivered is given up with a reason, on both sides.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use counterseal::{
    exchange::NegotiationRequest,
    id::DatasetId,
    net::{Clients, ConnectionInfo, Connections, Limits, Origin, Target, serve_tls, server_config},
    protocol::NegotiationState,
    time::SystemClock,
};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::locks::{Actor, OPEN, start_with};

/// What the front does with one message.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Status(u16),
    /// Drops the connection without an answer.
    Close,
    /// Takes it, and never answers.
    Hang,
    /// Answers by a byte a second.
    Slow,
    /// Hands it on twice.
    Twice,
    /// Says that it speaks another version of the protocol.
    OldVersion,
    /// Hands it on, and drops the answer: the sender must believe that it did not arrive.
    LoseAnswer,
}

/// Stands where partners believe the consumer to be, with the consumer's keys.
struct Front {
    acts: Mutex<VecDeque<Act>>,
    /// What it does when the acts are over; else it hands on.
    always: Option<Act>,
    /// What it answers as a witness.
    witness: Mutex<(u16, String)>,
    /// How often it was asked as one.
    asked: Mutex<usize>,
    /// `@id` and time of each message that came.
    came: Mutex<Vec<(String, Instant)>>,
    onward: reqwest::Client,
    consumer: String,
}

async fn stand_in_front(
    listener: TcpListener,
    provider: &Actor,
    consumer: &Actor,
    acts: &[Act],
    always: Option<Act>,
) -> Arc<Front> {
    let address = format!("https://{}", consumer.node.running.partner);
    let target = Target {
        peer: consumer.did().clone().into(),
        seq: 0,
        origin: Origin::Pinned(vec![consumer.node.exchange.keys.certificate().spki]),
        endpoints: vec![address.clone()],
    };
    let front = Arc::new(Front {
        acts: Mutex::new(acts.iter().copied().collect()),
        always,
        witness: Mutex::new((503, String::new())),
        asked: Mutex::default(),
        came: Mutex::default(),
        onward: Clients::new(provider.node.exchange.keys.tls.clone()).client_for(&target, &address).unwrap(),
        consumer: address,
    });
    let tls = Arc::new(server_config(&consumer.node.exchange.keys.tls).unwrap());
    let router = Router::new().fallback(meet).with_state(front.clone());
    tokio::spawn(serve_tls(
        listener,
        tls,
        router,
        Arc::new(Connections::default()),
        Limits::default(),
        CancellationToken::new(),
        Arc::new(|_, _| {}),
    ));
    front
}

async fn meet(State(front): State<Arc<Front>>, request: Request) -> Response {
    let connection = request.extensions().get::<ConnectionInfo>().unwrap().cancel.clone();
    // the outbox is what is looked at here; witnessing has its own pace
    if request.uri().path().ends_with("/add-checkpoint") {
        let (status, body) = front.witness.lock().unwrap().clone();
        *front.asked.lock().unwrap() += 1;
        return (StatusCode::from_u16(status).unwrap(), body).into_response();
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    front.came.lock().unwrap().push((message["@id"].as_str().unwrap_or_default().to_owned(), Instant::now()));
    let act = front.acts.lock().unwrap().pop_front().or(front.always);
    match act {
        Some(Act::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Act::Close) => {
            connection.cancel();
            std::future::pending().await
        }
        Some(Act::Hang) => std::future::pending().await,
        Some(Act::Slow) => {
            let bytes = futures_util::stream::unfold(0, |n| async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Some((Ok::<_, std::io::Error>("{"), n + 1))
            });
            Body::from_stream(bytes).into_response()
        }
        Some(Act::OldVersion) => {
            let version = serde_json::json!({"version": "2024-1", "path": "/old", "binding": "HTTPS"});
            axum::Json(serde_json::json!({ "protocolVersions": [version] })).into_response()
        }
        Some(Act::Twice) => {
            let again = request_again(&parts);
            hand_on(&front, again, body.clone()).await;
            hand_on(&front, parts, body).await
        }
        Some(Act::LoseAnswer) => {
            hand_on(&front, parts, body).await;
            connection.cancel();
            std::future::pending().await
        }
        None => hand_on(&front, parts, body).await,
    }
}

fn request_again(parts: &axum::http::request::Parts) -> axum::http::request::Parts {
    let mut again = Request::new(()).into_parts().0;
    again.method = parts.method.clone();
    again.uri = parts.uri.clone();
    again
}

async fn hand_on(front: &Front, parts: axum::http::request::Parts, body: Bytes) -> Response {
    let url = format!("{}{}", front.consumer, parts.uri.path_and_query().unwrap());
    let answer = front.onward.request(parts.method, url).body(body).send().await.unwrap();
    let status = answer.status();
    (status, Body::from(answer.bytes().await.unwrap())).into_response()
}

struct Stage {
    provider: Actor,
    consumer: Actor,
    front: Arc<Front>,
    _folder: tempfile::TempDir,
}

/// Provider and consumer, with the front between them.
async fn stage(acts: &[Act], always: Option<Act>, give_up_seconds: u64, delay: Duration) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let public_url = format!("https://{}", listener.local_addr().unwrap());
    let provider = actor(folder.path(), "p", None, give_up_seconds).await;
    let consumer = actor(folder.path(), "c", Some(public_url), give_up_seconds).await;
    provider.add_waiting(&consumer, delay).await;
    consumer.add(&provider).await;
    std::fs::write(counterseal::cli::data_folder(&provider.home).join("d.csv"), "id,age\n1,38\n").unwrap();
    provider.publish_as_it_lies(OPEN).await;
    let front = stand_in_front(listener, &provider, &consumer, acts, always).await;
    Stage { provider, consumer, front, _folder: folder }
}

async fn actor(folder: &Path, name: &str, public_url: Option<String>, give_up_seconds: u64) -> Actor {
    start_with(folder, name, Arc::new(SystemClock), public_url, |config| {
        config.outbox.attempt_seconds = 1;
        config.outbox.give_up_seconds = give_up_seconds;
    })
    .await
}

impl Stage {
    async fn negotiate(&self) -> counterseal::id::Pid {
        let request = NegotiationRequest::about(self.provider.did().clone(), DatasetId::parse("d").unwrap());
        self.consumer.node.exchange.negotiate(&request).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_that_is_not_ready_gets_the_same_message_again_and_takes_it_once() {
    let acts =
        [Act::Status(404), Act::Status(503), Act::Close, Act::Hang, Act::Slow, Act::Status(429), Act::LoseAnswer];
    let stage = stage(&acts, None, 60, Duration::ZERO).await;
    let pid = stage.negotiate().await;
    let end = stage.consumer.node.exchange.negotiation_end(&pid, Duration::from_secs(60)).await.unwrap();
    assert_eq!(end.state, NegotiationState::Finalized, "{end:?}");
    let came = stage.front.came.lock().unwrap().clone();
    let first = &came[0].0;
    assert!(!first.is_empty());
    assert_eq!(came.iter().filter(|(id, _)| id == first).count(), acts.len() + 1, "the agreement, each time the same");
    assert!(came[..=acts.len()].iter().all(|(id, _)| id == first), "what follows waits for it");
    assert_eq!(stage.consumer.node.exchange.agreements().await.unwrap().len(), 1, "taken once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wire_that_says_everything_twice_changes_nothing() {
    let stage = stage(&[], Some(Act::Twice), 60, Duration::ZERO).await;
    let pid = stage.negotiate().await;
    let end = stage.consumer.node.exchange.negotiation_end(&pid, Duration::from_secs(60)).await.unwrap();
    assert_eq!(end.state, NegotiationState::Finalized, "{end:?}");
    let agreements = stage.consumer.node.exchange.agreements().await.unwrap();
    assert_eq!((agreements.len(), stage.consumer.count(counterseal::receipt::Kind::Agreed).await), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_of_another_protocol_version_is_told_apart_before_anything_is_asked() {
    let stage = stage(&[Act::OldVersion], None, 60, Duration::ZERO).await;
    let asked = stage.consumer.did().clone().into();
    let refused = stage.provider.node.exchange.catalog_of(&asked).await.unwrap_err();
    assert!(refused.is("version-unsupported"), "{refused}");
    assert!(refused.sentence.contains("2024-1 at /old") && refused.sentence.contains("2025-1"), "{refused}");
    assert_eq!(stage.front.came.lock().unwrap().len(), 1, "no catalog was asked for");
    // it was brought up to date
    assert!(stage.provider.node.exchange.catalog_of(&asked).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_not_tried_again() {
    let stage = stage(&[Act::Status(400)], None, 60, Duration::ZERO).await;
    stage.negotiate().await;
    let ended = ended(&stage.provider, Duration::from_secs(20)).await;
    assert!(ended.sentence.contains("400"), "{ended}");
    assert_eq!(stage.front.came.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_delivered_is_given_up_with_a_reason_on_both_sides() {
    let stage = stage(&[], Some(Act::Status(503)), 2, Duration::ZERO).await;
    let pid = stage.negotiate().await;
    let why = ended(&stage.provider, Duration::from_secs(30)).await;
    assert!(why.is("delivery-given-up") && why.sentence.contains("503"), "{why}");
    let tries = stage.front.came.lock().unwrap().len();
    assert!(tries >= 3, "{tries} attempts");
    // the news did not arrive either: the consumer asks
    stage.consumer.node.exchange.inquire().await.unwrap();
    let end = stage.consumer.node.exchange.negotiation_end(&pid, Duration::ZERO).await.unwrap();
    assert_eq!(end.state, NegotiationState::Terminated);
    assert!(end.ended.as_ref().unwrap().is("ended-elsewhere"), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partner_that_needs_time_after_our_answer_gets_it() {
    let delay = Duration::from_millis(700);
    let stage = stage(&[], None, 60, delay).await;
    let begun = Instant::now();
    let pid = stage.negotiate().await;
    let end = stage.consumer.node.exchange.negotiation_end(&pid, Duration::from_secs(60)).await.unwrap();
    assert_eq!(end.state, NegotiationState::Finalized);
    let first = stage.front.came.lock().unwrap()[0].1;
    assert!(first.duration_since(begun) >= delay, "the agreement came after {:?}", first.duration_since(begun));
}

/// Why the provider's one negotiation ended.
async fn ended(provider: &Actor, patience: Duration) -> counterseal::error::Refusal {
    let begun = Instant::now();
    loop {
        let views = provider.node.exchange.negotiations().await.unwrap();
        if let Some(why) = views.first().and_then(|view| view.ended.clone()) {
            return why;
        }
        assert!(begun.elapsed() < patience, "{views:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A witness that says it knows more of our log than we do has to show what we signed: a word alone stops nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_that_lies_about_our_log_does_not_stop_us() {
    let stage = stage(&[], None, 60, Duration::ZERO).await;
    let asked = || *stage.front.asked.lock().unwrap();
    for (status, body) in [(409, "18446744073709551615\n"), (409, "9007199254740991\n"), (410, ""), (404, "")] {
        *stage.front.witness.lock().unwrap() = (status, body.into());
        let before = asked();
        let pid = stage.negotiate().await;
        let end = stage.consumer.node.exchange.negotiation_end(&pid, Duration::from_secs(60)).await.unwrap();
        assert_eq!(end.state, NegotiationState::Finalized, "{status} {body}: {end:?}");
        for _ in 0..400 {
            if asked() > before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        assert!(asked() > before, "{status} {body}: it was asked");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(stage.provider.node.exchange.behind.check().is_ok(), "{status} {body}");
    }
}
