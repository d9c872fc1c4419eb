//! The management API: what the commands and the console ask. Loopback, with the operator's token.
//!
//! JSON in, JSON out; errors are problem details (RFC 9457) with our stable code. Owns no walk: every handler calls one.

mod events;
mod grounds;
mod keeping;
mod problem;
mod processes;
mod receipts;
mod routes;
mod uses;
mod workbench;

use std::net::SocketAddr;

use ring::digest;

use crate::exchange::Exchange;

pub use self::{
    keeping::BackupBody,
    problem::Problem,
    routes::{AddPeer, NegotiateBody, OPERATOR, PublishBody, ReasonBody, TransferBody, routes},
    uses::{USE_ID, UseBody},
};

/// What the handlers need.
#[derive(Clone)]
pub struct Api {
    /// The walks.
    pub exchange: Exchange,
    /// The operator's token.
    pub token: Token,
    /// The steward's token: it does what the operator's does, and approves.
    pub steward: Token,
    /// Where we listen: the only `Host` that is answered.
    pub address: SocketAddr,
}

/// A bearer token, kept as its hash.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// The token with this text.
    pub fn new(text: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        Self(hash)
    }

    /// Whether this text is it. Hashes are compared: how long that takes says nothing of the token.
    pub fn is(&self, text: &str) -> bool {
        Self::new(text).0 == self.0
    }
}
