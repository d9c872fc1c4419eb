//! Who we are and whom we know: keys, certificates, participant statements, peers, transfer tokens.
//!
//! Owns the key files of a home, the statement that binds a DID to its keys, the fingerprint that people compare, the
//! peers that were paired, and the check that runs at every request ([`authenticate`]). Reads its rows; they are
//! written by `exchange`, through the committer.

pub mod token;

mod keys;
mod partner;
mod peer;
mod rotation;
mod statement;

pub use self::{
    keys::{KeyFileError, Keys, read_secret_file},
    partner::{Partner, TokenPeer, TokenPeers},
    peer::{Attributes, Peer, PeerState, Peers, authenticate},
    rotation::Rotating,
    statement::{
        Endpoints, Invitation, MAX_CHAIN, PublicKeys, Statement, StatementError, did_document, fingerprint,
        same_fingerprint, verify_chain, verify_next,
    },
};
