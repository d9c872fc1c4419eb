//! The server that a sealed release is measured against: axum over rustls, reading and writing blocks of 64 KiB.

use std::{path::PathBuf, sync::Arc};

use axum::{Router, body::Body, extract::State, routing::get};
use counterseal::{identity::Keys, net};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio_util::io::ReaderStream;

const HOME: &str = "COUNTERSEAL_BENCH_HOME";
const FILE: &str = "COUNTERSEAL_BENCH_FILE";
const PORT: &str = "COUNTERSEAL_BENCH_PORT";
const BLOCK: usize = 64 << 10;

/// Serves one file with the keys of a home, so that the same client reads from both servers.
pub struct Job {
    home: PathBuf,
    file: PathBuf,
    /// Where the port is written.
    port: PathBuf,
}

impl Job {
    pub fn new(home: PathBuf, file: PathBuf, port: PathBuf) -> Self {
        Self { home, file, port }
    }

    pub fn from_environment() -> Option<Self> {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        Some(Self { home: path(HOME)?, file: path(FILE)?, port: path(PORT)? })
    }

    /// Starts this program again as the server.
    pub fn spawn(&self) -> std::process::Child {
        std::process::Command::new(std::env::current_exe().expect("this program"))
            .env(HOME, &self.home)
            .env(FILE, &self.file)
            .env(PORT, &self.port)
            .spawn()
            .expect("the bare server")
    }

    /// Serves until it is killed.
    pub fn serve(self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let config = counterseal::config::Config::load(&self.home, std::env::vars()).expect("a configuration");
            let keys = Keys::load(&self.home, &config.participant.did).expect("keys");
            let tls = tokio_rustls::TlsAcceptor::from(Arc::new(net::server_config(&keys.tls).expect("TLS")));
            let router = Router::new().route("/{*path}", get(send)).with_state(self.file);
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address").to_string();
            std::fs::write(self.port.with_extension("new"), address).expect("the port's file");
            std::fs::rename(self.port.with_extension("new"), &self.port).expect("the port's file");
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                let (tls, router) = (tls.clone(), router.clone());
                tokio::spawn(async move {
                    let Ok(socket) = tls.accept(socket).await else { return };
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router))
                        .await;
                });
            }
        });
    }
}

async fn send(State(file): State<PathBuf>) -> Body {
    let file = tokio::fs::File::open(file).await.expect("the file");
    Body::from_stream(ReaderStream::with_capacity(file, BLOCK))
}
