//! The wire: TLS 1.3 accept loop, and the factory of outbound clients.
//!
//! Every connection between connectors is TLS 1.3 with certificates on both sides (rustls, ring). The accept loop takes
//! any well-formed certificate whose key the other end proves to hold, and says whose it is ([`ConnectionInfo`]); who
//! that may be is read anew at every request, by `identity`. Outbound, a server is known by its pinned public key, and
//! only addresses that its statement names are ever asked; ones inside our own network only where they are named
//! ([`AddressGuard`]).

mod certificate;
mod client;
mod guard;
mod serve;
mod stall;
mod tls;

pub use self::{
    certificate::{CertificateError, PeerCertificate},
    client::{Clients, NetError, Origin, Target, loopback_client},
    guard::{AddressGuard, GuardError, GuardedResolver, Kind as AddressKind},
    serve::{ConnectionInfo, Connections, Failed, Limits, serve_plain, serve_tls},
    tls::{TlsIdentity, client_config, public_config, server_config},
};

#[cfg(test)]
mod tests;
