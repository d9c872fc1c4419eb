//! A running connector, assembled from its home: store, committer, mirrors, walks, listeners, tasks; and its stop.
//!
//! Nothing is global: several nodes live in one process in the demo and in tests. The clock and randomness are handed
//! in. `start` returns when both listeners answer.

mod clock;
mod place;
mod restore;

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{self, Api, Token},
    config::{Config, ConfigError},
    crypto::{Random, SigningKey},
    dataplane::{DataPlane, Grant, Grants, ReleaseRow},
    error::Refusal,
    exchange::{
        Behind, Discoveries, Exchange, Letter, Mailbox, NegotiationRow, OpenProcesses, OpenReleases, OpenUses, Outbox,
        Parts, Pushes, Refusals, Restorations, Restorer, SEEN, Sequence, Slices, Timer, TransferRow, WAITING, Webhook,
        WitnessClient, Witnesses, own_statements,
    },
    identity::{
        KeyFileError, Keys, Partner, Peer, Peers, TokenPeer, TokenPeers, authenticate, did_document, verify_chain,
    },
    net::{AddressGuard, Clients, ConnectionInfo, Connections, Limits, serve_plain, serve_tls, server_config},
    offer::{self, Offers},
    protocol::{self, Caller, extension},
    receipt::{Archiver, Committer, Log, LogSigner, Mirror, RUN, ReceiptError, Receipts, replay},
    source::{Roots, SourceError},
    store::{SledStore, Store, StoreError},
    time::Clock,
    vault::{Vault, VaultError},
};

pub use self::{
    clock::GuardedClock,
    restore::{Contents, Restoration, restore},
};

/// The file that tells commands where a running node listens.
const RUNNING: &str = "running.json";
/// The operator's token for the management API.
pub const TOKEN: &str = "operator.token";
/// The steward's, which alone approves what others bring in.
pub const STEWARD: &str = "steward.token";

/// Why a connector did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log.
    #[error("the receipt log does not hold: {0}")]
    Log(#[from] ReceiptError),
    /// The sources.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A port.
    #[error(
        "{what} can't listen on {address}: {error}; is another connector running there? set listen.{key} in counterseal.toml"
    )]
    Listen {
        /// Which listener.
        what: &'static str,
        /// Its key in the configuration.
        key: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// A home that was copied.
    #[error(
        "{home} is a copy: its store was made in another place. Two connectors with one log would convict each other of forking it. If the original is gone for good, start once with `counterseal serve --moved`"
    )]
    Copied {
        /// Which home.
        home: PathBuf,
    },
    /// TLS.
    #[error("the certificate can't be used: {0}")]
    Tls(String),
    /// Anything in the walks.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The file system.
    #[error("{path}: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
}

/// Where a running node listens; what `running.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// The management API.
    pub management: SocketAddr,
    /// The partners' listener.
    pub partner: SocketAddr,
    /// The listener for foreign connectors, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<SocketAddr>,
    /// Its process.
    pub process: u32,
}

impl Running {
    /// Whether its process is still there.
    pub fn is_alive(&self) -> bool {
        let process = i32::try_from(self.process).ok().and_then(rustix::process::Pid::from_raw);
        process.is_some_and(|process| rustix::process::test_kill_process(process).is_ok())
    }

    /// What a home's running node wrote.
    pub fn load(home: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(home.join(RUNNING)).ok()?).ok()
    }
}

/// A running connector.
pub struct Node {
    /// Its walks.
    pub exchange: Exchange,
    /// Where it listens.
    pub running: Running,
    home: PathBuf,
    committer: Committer,
    stop_serving: CancellationToken,
    stop_working: CancellationToken,
    servers: JoinSet<()>,
    workers: JoinSet<()>,
}

impl Node {
    /// Starts the connector of this home. `moved` accepts a store that lies elsewhere than where it was made.
    pub async fn start(
        home: &Path,
        config: Config,
        wall: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        moved: bool,
    ) -> Result<Self, StartError> {
        let did = config.participant.did.clone();
        let mut keys = Keys::load(home, &did)?;
        let (token, steward) = (read_token(home, TOKEN)?, read_token(home, STEWARD)?);
        let folder = home.join("store");
        let disk = SledStore::open(&folder)?;
        place::check(&folder, moved)
            .map_err(|wrong| wrong.unwrap_or_else(|| StartError::Copied { home: home.to_owned() }))?;
        let store: Arc<dyn Store> = Arc::new(disk);

        let partner = listen("the partner listener", "partner", config.listen.partner).await?;
        let management = listen("the management API", "management", config.listen.management).await?;
        let plain = match config.listen.plain {
            Some(address) => Some(listen("the plain listener", "plain", address).await?),
            None => None,
        };
        let address = |listener: &TcpListener, of: SocketAddr| listener.local_addr().unwrap_or(of);
        let running = Running {
            partner: address(&partner, config.listen.partner),
            management: address(&management, config.listen.management),
            plain: plain.as_ref().and_then(|listener| listener.local_addr().ok()),
            process: std::process::id(),
        };

        let (peers, token_peers, offers, grants, open, processes) = (
            Arc::new(Peers::default()),
            Arc::new(TokenPeers::default()),
            Arc::new(Offers::default()),
            Arc::new(Grants::default()),
            Arc::new(OpenReleases::default()),
            Arc::new(OpenProcesses::default()),
        );
        let mailbox = Arc::new(Mailbox::default());
        let witnesses = Arc::new(Witnesses::default());
        let restorations = Arc::new(Restorations::default());
        let open_uses = Arc::new(OpenUses::default());
        let mirrors: Vec<Arc<dyn Mirror>> = vec![
            Arc::new(PeerMirror(peers.clone(), token_peers.clone())),
            offers.clone(),
            grants.clone(),
            open.clone(),
            processes.clone(),
            mailbox.clone(),
            witnesses.clone(),
            restorations.clone(),
            open_uses.clone(),
        ];
        for (prefix, mirror) in [
            (Peer::PREFIX, 0),
            (TokenPeer::PREFIX, 0),
            (offer::PREFIX, 1),
            (Grant::PREFIX, 2),
            (ReleaseRow::PREFIX, 3),
            (NegotiationRow::PREFIX, 4),
            (TransferRow::PREFIX, 4),
            (Letter::PREFIX, 5),
            (SEEN, 6),
            (WAITING, 7),
        ] {
            replay(&*store, prefix, &*mirrors[mirror]).await?;
        }
        let signer = LogSigner { did: did.clone(), key: SigningKey::from_seed(*keys.log.seed()) };
        let committer = Committer::start(store.clone(), signer, mirrors).await?;
        let clock = Arc::new(GuardedClock::new(wall, committer.latest_handle()));

        let base_url = config.public_url(running.partner);
        let now = clock.now();
        let rotated = Keys::rotated(home, &did)?;
        let (statements, changed) =
            own_statements(&*store, &committer, &keys, rotated.as_ref(), &config.participant.name, &base_url, now)
                .await?;
        if let Some(rotated) = rotated {
            Keys::finish_rotation(home)?;
            keys = rotated;
        }
        let keys = Arc::new(keys);
        let document = statement_document(&statements)?;
        write(home, "did.json", serde_json::to_string_pretty(&document).unwrap_or_default().as_bytes(), 0o644)?;

        let guard = AddressGuard::new(&config.outbound.allow)
            .map_err(|error| Refusal::new("config-outbound", format!("outbound.allow: {error}")))?;
        let roots = Arc::new(Roots::new(config.sources.roots.clone(), home)?);
        let connections = Arc::new(Connections::default());
        let dataplane = DataPlane::new(
            store.clone(),
            committer.clone(),
            grants.clone(),
            peers.clone(),
            roots.clone(),
            keys.clone(),
            clock.clone(),
            random.clone(),
        );
        let exchange = Exchange::new(Parts {
            us: did.clone(),
            plain_url: config.plain_url(running.plain, running.partner),
            base_url,
            clients: Arc::new(Clients::guarded(keys.tls.clone(), guard)),
            keys: keys.clone(),
            receipts: Receipts::new(store.clone(), did.clone()),
            log: Log::new(store.clone()),
            witnesses: witnesses.clone(),
            behind: Behind::default(),
            restorations: restorations.clone(),
            store,
            committer: committer.clone(),
            peers: peers.clone(),
            token_peers: token_peers.clone(),
            offers,
            grants,
            vault: Vault::open(home)?,
            open_uses,
            roots,
            dataplane: dataplane.clone(),
            sequence: Sequence::starting(now),
            clock: clock.clone(),
            guard: clock.clone(),
            random,
            mail: Arc::new(Notify::new()),
            moved: Arc::new(Notify::new()),
            connections: connections.clone(),
            mailbox,
            pushes: Pushes::default(),
            open_releases: open,
            open_processes: processes,
            spoken: Default::default(),
            discoveries: Discoveries::default(),
            slices: Slices::default(),
            refusals: Refusals::default(),
            statements,
            tokens: home.join("tokens"),
            config,
        });
        exchange.started().await?;
        exchange.owe_witnesses().await?;
        exchange.finish_ended().await?;
        exchange.sweep_handovers().await?;
        exchange.finish_erasing().await?;
        exchange.sign_offers_anew().await?;
        if changed {
            exchange.push_statement().await?;
        }

        let tls = server_config(&keys.tls).map_err(|error| StartError::Tls(error.to_string()))?;
        let (stop_serving, stop_working) = (CancellationToken::new(), CancellationToken::new());
        let (mut servers, mut workers) = (JoinSet::new(), JoinSet::new());
        let partner_routes = partner_router(&exchange, &dataplane, peers, token_peers, clock);
        if let Some(plain) = plain {
            servers.spawn(serve_plain(plain, partner_routes.clone(), Limits::default(), stop_serving.clone()));
        }
        let refusals = exchange.clone();
        servers.spawn(serve_tls(
            partner,
            Arc::new(tls),
            partner_routes,
            connections,
            Limits::default(),
            stop_serving.clone(),
            Arc::new(move |remote, error| {
                refusals.refusals.count();
                tracing::warn!(%remote, %error, "a TLS handshake failed");
            }),
        ));
        let management_routes =
            api::routes(Api { exchange: exchange.clone(), token, steward, address: running.management });
        servers.spawn(serve_plain(management, management_routes, Limits::default(), stop_serving.clone()));
        workers.spawn(Outbox::new(exchange.clone()).run(stop_working.clone()));
        workers.spawn(Timer::new(exchange.clone()).run(stop_working.clone()));
        workers.spawn(Archiver::new(exchange.store.clone(), did.clone(), RUN).run(stop_working.clone()));
        workers.spawn(Restorer::new(exchange.clone()).run(stop_working.clone()));
        workers.spawn(WitnessClient::new(exchange.clone()).run(stop_working.clone()));
        for webhook in &exchange.config.webhooks {
            let webhook = Arc::new(Webhook::new(exchange.clone(), home, webhook)?);
            workers.spawn(webhook.run(stop_working.clone()));
        }
        write(home, RUNNING, serde_json::to_string(&running).unwrap_or_default().as_bytes(), 0o600)?;
        Ok(Self { exchange, running, home: home.to_owned(), committer, stop_serving, stop_working, servers, workers })
    }

    /// Stops: no new connections, running ones get ten seconds, the outbox and the timer finish what they are at, the
    /// committer writes what is queued, last of all `stopped`.
    pub async fn stop(mut self) {
        let _ = fs::remove_file(self.home.join(RUNNING));
        self.stop_serving.cancel();
        self.stop_working.cancel();
        while self.workers.join_next().await.is_some() {}
        while self.servers.join_next().await.is_some() {}
        self.exchange.open_uses.stop_all().await;
        if let Err(refusal) = self.exchange.stopped().await {
            tracing::error!(%refusal, "the stop could not be recorded");
        }
        self.committer.stop().await;
    }
}

struct PeerMirror(Arc<Peers>, Arc<TokenPeers>);

impl Mirror for PeerMirror {
    fn applied(&self, key: &[u8], value: Option<&[u8]>) {
        self.0.applied(key, value);
        self.1.applied(key, value);
    }
}

fn statement_document(statements: &[crate::crypto::jws::Jws]) -> Result<serde_json::Value, StartError> {
    let statement = verify_chain(statements)
        .map_err(|error| Refusal::new("statement-broken", format!("our own statements don't hold: {error}")))?;
    Ok(did_document(&statement))
}

async fn listen(what: &'static str, key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen { what, key, address, error })
}

/// A token of this home, by its file's name.
pub fn read_token(home: &Path, name: &str) -> Result<Token, StartError> {
    let path = home.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Token::new(text.trim())),
        Err(error) => Err(StartError::File { path, error }),
    }
}

/// Writes a file whole: a new one, synced, renamed.
pub fn write(home: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<(), StartError> {
    let path = home.join(name);
    let fresh = home.join(format!(".{name}.new"));
    (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        fs::File::open(home)?.sync_all()
    })()
    .map_err(|error| StartError::File { path: path.clone(), error })
}

/// What partners reach: version metadata and `did.json` for anybody; everything else for peers, known at every request.
fn partner_router(
    exchange: &Exchange,
    dataplane: &DataPlane,
    peers: Arc<Peers>,
    token_peers: Arc<TokenPeers>,
    clock: Arc<GuardedClock>,
) -> Router {
    let document = statement_document(&exchange.statements).unwrap_or_default();
    protocol::routes(Arc::new(exchange.clone()))
        .merge(dataplane.routes())
        .merge(dataplane.plain_routes(Arc::new(exchange.clone())))
        .route("/.well-known/did.json", get(async move || Json(document.clone())))
        .fallback(protocol::fallback)
        .layer(middleware::from_fn_with_state((peers, token_peers, clock, exchange.clone()), known))
}

type Door = (Arc<Peers>, Arc<TokenPeers>, Arc<GuardedClock>, Exchange);

/// Reads who the connection is, anew at each request; whoever is nobody gets the reason.
async fn known(
    State((peers, token_peers, clock, exchange)): State<Door>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().trim_end_matches('/');
    // entries and tiles betray nothing: partners' witnesses and auditors read them without an introduction
    let open_log = format!("{}{}", protocol::BASE, extension::log_path());
    // what is under /data shows a transfer token, which says whose it is
    if matches!(path, protocol::VERSION_PATH | "/.well-known/did.json")
        || path.starts_with("/data/")
        || path.starts_with(&open_log)
    {
        return next.run(request).await;
    }
    let Some(info) = request.extensions().get::<ConnectionInfo>().cloned() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    // who shows a certificate is known by it, whatever token it shows beside
    let presented = request.headers().get(header::AUTHORIZATION).filter(|_| info.client_cert.is_none());
    let partner = match presented {
        Some(value) => token_peers.authenticate(value.as_bytes()).map(Partner::Token),
        None => authenticate(&info, &peers, clock.now()).map(Partner::Certificate),
    };
    match partner {
        Ok(partner) => {
            request.extensions_mut().insert(Caller {
                participant: partner.id(),
                remote: info.remote,
                authentication: partner.authentication(),
                certificate: info.client_cert.map(|certificate| certificate.thumbprint),
            });
            next.run(request).await
        }
        Err(refusal) => {
            exchange.refusals.count();
            tracing::info!(remote = %info.remote, %refusal, "a caller was refused");
            let unknown = refusal.is("certificate-missing") || refusal.is("token-unknown");
            let status = if unknown { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
            (status, Json(extension::refusal_json(&refusal))).into_response()
        }
    }
}
