//! Whom the outbound clients talk to and whom they don't.

use std::{error::Error as _, process::Command};

use super::*;

const SERVER: &str = "did:web:server.invalid";
const CLIENT: &str = "did:web:client.invalid";

#[tokio::test]
async fn both_sides_are_known_by_their_keys() {
    let (server_keys, client_keys) = (identity(SERVER), identity(CLIENT));
    let server = serve(&server_keys).await;
    let url = format!("{}/who", server.url);
    let client = Clients::new(client_keys).client_for(&target(&server, &server_keys), &url).unwrap();
    assert_eq!(client.get(&url).send().await.unwrap().text().await.unwrap(), CLIENT);
}

#[tokio::test]
async fn a_server_with_another_key_or_an_ended_certificate_is_refused() {
    let (stranger, client_keys) = (identity(SERVER), identity(CLIENT));
    for (from, until, fine) in [(2020, 2090, true), (2020, 2021, false), (2089, 2090, false)] {
        let server_keys = certified(SERVER, from, until);
        let server = serve(&server_keys).await;
        let url = format!("{}/who", server.url);
        let clients = Clients::new(client_keys.clone());
        let client = clients.client_for(&target(&server, &server_keys), &url).unwrap();
        assert_eq!(client.get(&url).send().await.is_ok(), fine, "{from} to {until}");
        let mistaken = Target { seq: 2, ..target(&server, &stranger) };
        let client = clients.client_for(&mistaken, &url).unwrap();
        assert!(client.get(&url).send().await.is_err(), "another key than the pinned one, though the same DID");
        let unpinned = Target { seq: 3, origin: Origin::Pinned(vec![]), ..target(&server, &server_keys) };
        let client = clients.client_for(&unpinned, &url).unwrap();
        assert!(client.get(&url).send().await.is_err(), "no key pinned: nobody");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (server_keys, client_keys) = (identity(SERVER), identity(CLIENT));
    let server = serve(&server_keys).await;
    let url = format!("{}/away", server.url);
    let client = Clients::new(client_keys).client_for(&target(&server, &server_keys), &url).unwrap();
    let answer = client.get(&url).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["location"].as_bytes()), (307, b"/who".as_slice()));
}

/// Runs itself again with proxies in the environment that lead nowhere.
#[tokio::test]
async fn a_proxy_in_the_environment_is_ignored() {
    const NAME: &str = "net::tests::client::a_proxy_in_the_environment_is_ignored";
    if std::env::var_os("COUNTERSEAL_TEST_PROXIED").is_some() {
        let (server_keys, client_keys) = (identity(SERVER), identity(CLIENT));
        let server = serve(&server_keys).await;
        let url = format!("{}/who", server.url);
        let plain = reqwest::Client::builder()
            .tls_backend_preconfigured(client_config(&client_keys, vec![spki(&server_keys)]).unwrap());
        assert!(plain.build().unwrap().get(&url).send().await.is_err(), "the environment does lead astray");
        let client = Clients::new(client_keys).client_for(&target(&server, &server_keys), &url).unwrap();
        assert_eq!(client.get(&url).send().await.unwrap().text().await.unwrap(), CLIENT);
        return;
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", NAME]).env("COUNTERSEAL_TEST_PROXIED", "1").env_remove("NO_PROXY").env_remove("no_proxy");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        again.env(name, "http://127.0.0.1:9");
    }
    let output = tokio::task::spawn_blocking(move || again.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

#[tokio::test]
async fn a_name_that_leads_inside_is_asked_only_if_the_operator_lists_it() {
    let (server_keys, client_keys) = (identity(SERVER), identity(CLIENT));
    let server = serve(&server_keys).await;
    let url = format!("https://partner.example:{}/who", server.address.port());
    let named = Target { endpoints: vec![url.clone()], ..target(&server, &server_keys) };
    let inside = |guard: AddressGuard| {
        guard.looking_up(|_| Box::pin(async { Ok(vec![std::net::IpAddr::from([127, 0, 0, 1])]) }))
    };
    let clients = Clients::guarded(client_keys.clone(), inside(AddressGuard::default()));
    let error = clients.client_for(&named, &url).unwrap().get(&url).send().await.unwrap_err();
    let mut reasons = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        reasons.push(error.to_string());
        cause = error.source();
    }
    assert!(reasons.iter().any(|reason| reason.contains("nothing was sent")), "{reasons:?}");

    let listed = AddressGuard::new(["partner.example"]).unwrap();
    let clients = Clients::guarded(client_keys, inside(listed));
    let answer = clients.client_for(&named, &url).unwrap().get(&url).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), CLIENT);
}

/// A name that led outside when it was checked and leads inside when it is connected to.
#[tokio::test]
async fn a_name_that_changes_its_address_is_checked_again() {
    use reqwest::dns::Resolve as _;
    let turns = Arc::new(Mutex::new(vec![[127, 0, 0, 1], [8, 8, 8, 8]]));
    let guard = AddressGuard::default().looking_up(move |_| {
        let next = turns.lock().unwrap().pop().unwrap();
        Box::pin(async move { Ok(vec![next.into()]) })
    });
    let resolver = guard.resolver();
    assert!(resolver.resolve("partner.example".parse().unwrap()).await.is_ok());
    assert!(resolver.resolve("partner.example".parse().unwrap()).await.is_err());
}

#[tokio::test]
async fn localhost_in_a_statement_is_named() {
    let (server_keys, client_keys) = (identity(SERVER), identity(CLIENT));
    let server = serve(&server_keys).await;
    let url = format!("https://localhost:{}/who", server.address.port());
    let named = Target { endpoints: vec![url.clone()], ..target(&server, &server_keys) };
    let client = Clients::new(client_keys).client_for(&named, &url).unwrap();
    assert_eq!(client.get(&url).send().await.unwrap().text().await.unwrap(), CLIENT);
}

#[test]
fn a_literal_address_that_may_not_be_asked_gives_no_client() {
    let at = |host: &str, guard: AddressGuard| {
        let url = format!("https://{host}:8443/x");
        let target = Target {
            peer: ParticipantId::parse("did:web:a.invalid").unwrap(),
            seq: 1,
            origin: Origin::Pinned(vec![]),
            endpoints: vec![format!("https://{host}:8443")],
        };
        Clients::guarded(identity(CLIENT), guard).client_for(&target, &url).map(|_| ())
    };
    for host in ["169.254.169.254", "2852039166", "[::ffff:127.0.0.1]", "0.0.0.0", "[fe80::1]"] {
        assert!(matches!(at(host, AddressGuard::default()), Err(NetError::Address(_))), "{host}");
    }
    assert!(at("169.254.169.254", AddressGuard::new(["169.254.0.0/16"]).unwrap()).is_ok());
    for host in ["127.0.0.1", "10.0.0.7", "[::1]", "8.8.8.8", "partner.example"] {
        assert!(at(host, AddressGuard::default()).is_ok(), "{host}: its statement names it");
    }
}

#[test]
fn a_client_is_kept_per_peer_and_statement() {
    let clients = Clients::new(identity(CLIENT));
    let target = Target {
        peer: ParticipantId::parse("did:web:a.invalid").unwrap(),
        seq: 1,
        origin: Origin::Pinned(vec![]),
        endpoints: vec!["https://a.example".into()],
    };
    let newer = Target { seq: 2, ..target.clone() };
    let kept = || clients.made.lock().unwrap().keys().map(|(_, seq)| *seq).collect::<Vec<_>>();
    clients.client_for(&target, "https://a.example/x").unwrap();
    assert_eq!(kept(), [1]);
    clients.client_for(&newer, "https://a.example/x").unwrap();
    assert_eq!(kept(), [2], "the older statement's is gone");
    clients.forget(&newer.peer);
    assert!(kept().is_empty());
}

#[test]
fn only_stated_endpoints_are_asked() {
    let target = Target {
        peer: ParticipantId::parse("did:web:a.invalid").unwrap(),
        seq: 1,
        origin: Origin::Pinned(vec![]),
        endpoints: vec!["https://a.example:8443/dsp".into()],
    };
    for fine in ["https://a.example:8443/dsp", "https://a.example:8443/dsp/2025-1/x", "https://A.EXAMPLE:8443/dsp/y"] {
        assert!(target.allows(fine), "{fine}");
    }
    for wrong in [
        "http://a.example:8443/dsp/x",
        "https://a.example/dsp/x",
        "https://a.example:8443/dspx",
        "https://a.example:8443/other",
        "https://a.example:8443/dsp/../admin",
        "https://a.example:8443/dsp/%2e%2e/admin",
        "https://user@a.example:8443/dsp/x",
        "https://:secret@a.example:8443/dsp/x",
        "https://a.example:8443@evil.example/dsp/x",
        "https://127.0.0.1:8443/dsp/x",
        "https://[::ffff:127.0.0.1]:8443/dsp",
        "https://169.254.169.254/dsp",
        "https://2130706433:8443/dsp",
        "https://a.example.evil:8443/dsp",
        "file:///etc/passwd",
        "not a url",
    ] {
        assert!(!target.allows(wrong), "{wrong}");
        let refused = Clients::new(identity(CLIENT)).client_for(&target, wrong);
        assert!(matches!(refused, Err(NetError::NotPinned { .. })), "{wrong}");
    }
}
