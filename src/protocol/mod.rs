//! Dataspace Protocol 2025-1 over HTTPS, and the peer extension beside it.
//!
//! This room owns what goes over the wire between connectors: the message types ([`message`], [`extension`]), the two
//! state machines ([`negotiation`], [`transfer`]; pure), the routes that hand parsed messages to a [`Handler`]
//! ([`routes`]), and the client side: what each message looks like and where it goes ([`outgoing`]), and one attempt
//! at delivering it ([`deliver`]).
//!
//! It does not own decisions, stored processes, the outbox or who a caller is: `exchange` implements [`Handler`], and
//! `node` puts a [`Caller`] on every authenticated request.
//!
//! ```text
//!   POST body ─▶ size, depth, @context, @type ─▶ message ─▶ Handler ─▶ machine ─▶ state ─▶ 200/201 ContractNegotiation
//!                            └────────────────────┴───────────┴──────────┴─▶ 4xx error of the path's type, code, reason
//! ```
//!
//! Reading is lenient (arrays or single objects, ids as strings or references, errors in any shape); writing is strict
//! (every object validates against the specification's JSON Schemas; empty arrays are left out).

pub mod extension;
pub mod message;
pub mod negotiation;
pub mod outgoing;
pub mod transfer;

mod client;
mod error;
#[cfg(test)]
mod golden;
mod handler;
mod json;
mod routes;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::{
    client::{Answer, Ask, Delivery, JSON, ask, deliver},
    error::{Pids, ProtocolError, check_pids},
    handler::{Caller, CatalogPage, Handler, Incoming},
    json::{MAX_BODY, MAX_DEPTH, Malformed},
    message::{NegotiationState, TransferState},
    routes::{fallback, routes},
};

/// Where the Dataspace Protocol 2025-1 begins below a connector's root: `<root>` + this is the specification's `<base>`.
pub const BASE: &str = "/2025-1";

/// The protocol version that this room speaks.
pub const VERSION: &str = "2025-1";

/// Where versions are published below the root (DSP 2025-1 §4.3): unversioned, unauthenticated.
pub const VERSION_PATH: &str = "/.well-known/dspace-version";

/// The two roles of a contract negotiation or transfer process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Party {
    /// Offers the data.
    Provider,
    /// Asks for the data.
    Consumer,
}

impl Party {
    /// The counterpart's role.
    pub const fn other(self) -> Self {
        match self {
            Self::Provider => Self::Consumer,
            Self::Consumer => Self::Provider,
        }
    }

    /// `provider` or `consumer`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Consumer => "consumer",
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
