//! Outbound connections: one factory, a client per (peer, statement).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::{Client, Url, redirect::Policy};

use crate::{
    id::{ParticipantId, Sha256},
    net::{AddressGuard, GuardError, TlsIdentity, client_config, public_config},
};

/// Why nobody was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// An address that the peer's pinned statement doesn't name.
    #[error("`{url}` is not at an endpoint that {peer} has stated ({stated}); nothing was sent there")]
    NotPinned {
        /// The address.
        url: String,
        /// Whose it should be.
        peer: ParticipantId,
        /// Where it may be.
        stated: String,
    },
    /// An address inside our own network that nobody named.
    #[error(transparent)]
    Address(#[from] GuardError),
    /// Our own certificate or key can't be used.
    #[error("no TLS client can be made: {0}")]
    Tls(String),
}

/// A peer as its pinned statement describes its connector.
#[derive(Clone, Debug)]
pub struct Target {
    /// Who.
    pub peer: ParticipantId,
    /// The statement's number.
    pub seq: u64,
    /// How its server is known.
    pub origin: Origin,
    /// Its endpoints.
    pub endpoints: Vec<String>,
}

/// How a server is known to be whom we mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It holds one of these keys, and is shown our certificate.
    Pinned(Vec<Sha256>),
    /// By a certificate of the public PKI for its name, or, over plain HTTP, by being this very machine. It is not shown
    /// our certificate.
    Public,
}

impl Target {
    /// Whether the address is at one of the endpoints: https, same host, same port, no user info, below its path.
    pub fn allows(&self, url: &str) -> bool {
        self.admits(url).is_some()
    }

    fn admits(&self, url: &str) -> Option<Url> {
        let url = Url::parse(url).ok()?;
        let secure = |url: &Url| url.scheme() == "https" || self.origin == Origin::Public && is_loopback(url);
        let at_home = secure(&url)
            && url.username().is_empty()
            && url.password().is_none()
            && self.endpoints.iter().filter_map(|endpoint| Url::parse(endpoint).ok()).any(|endpoint| {
                let base = endpoint.path().trim_end_matches('/');
                endpoint.scheme() == url.scheme()
                    && endpoint.host() == url.host()
                    && endpoint.port_or_known_default() == url.port_or_known_default()
                    && url.path().strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
        at_home.then_some(url)
    }
}

/// Makes and keeps clients.
pub struct Clients {
    identity: TlsIdentity,
    guard: AddressGuard,
    pub(super) made: Mutex<HashMap<(ParticipantId, u64), Client>>,
}

impl Clients {
    /// Clients that show this certificate; the operator lists no hosts inside the own network.
    pub fn new(identity: TlsIdentity) -> Self {
        Self::guarded(identity, AddressGuard::default())
    }

    /// Clients that show this certificate; `guard` holds the operator's list.
    pub fn guarded(identity: TlsIdentity, guard: AddressGuard) -> Self {
        Self { identity, guard, made: Mutex::default() }
    }

    /// A client for this peer, to ask this address. It takes no proxy from the environment, follows no redirect, speaks
    /// HTTP/1.1 over TLS 1.3, and only to a server that holds a key of the statement.
    ///
    /// # Errors
    /// An address elsewhere than at its stated endpoints is refused before anything is resolved, as is a literal one
    /// that may not be asked. (A name is checked when it is resolved.)
    pub fn client_for(&self, target: &Target, url: &str) -> Result<Client, NetError> {
        let guard = self.guard.for_endpoints(&target.endpoints);
        let Some(parsed) = target.admits(url) else {
            return Err(NetError::NotPinned {
                url: url.chars().take(200).collect(),
                peer: target.peer.clone(),
                stated: target.endpoints.join(", "),
            });
        };
        guard.allow_literal(&parsed)?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (target.peer.clone(), target.seq);
        if let Some(client) = made.get(&key) {
            return Ok(client.clone());
        }
        let tls = match &target.origin {
            Origin::Pinned(spki) => client_config(&self.identity, spki.clone()),
            Origin::Public => public_config(),
        }
        .map_err(|error| NetError::Tls(error.to_string()))?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(guard.resolver())
            .https_only(parsed.scheme() == "https")
            .http1_only()
            .no_proxy()
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(Duration::from_secs(5))
            // between two pieces of an answer; a caller's own limit may be shorter
            .read_timeout(Duration::from_secs(300))
            .pool_idle_timeout(Duration::from_secs(8))
            .user_agent(concat!("counterseal/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| NetError::Tls(error.to_string()))?;
        // an older statement's client is never used again
        made.retain(|(peer, _), _| *peer != target.peer);
        made.insert(key, client.clone());
        Ok(client)
    }

    /// Drops the client of a peer that was revoked or removed, with its idle connections.
    pub fn forget(&self, peer: &ParticipantId) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).retain(|(known, _), _| known != peer);
    }
}

/// Whether a URL names this machine itself: a loopback address, or `localhost`.
fn is_loopback(url: &Url) -> bool {
    match url.host_str().map(|host| host.trim_start_matches('[').trim_end_matches(']')) {
        Some(host) => host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}

/// A client for plain HTTP on this machine: no proxy, no redirect. It never speaks TLS, but is built with our provider
/// all the same.
pub fn loopback_client() -> Result<Client, NetError> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| NetError::Tls(error.to_string()))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .no_proxy()
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(Duration::from_secs(5))
        .build()
        .map_err(|error| NetError::Tls(error.to_string()))
}
