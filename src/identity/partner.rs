//! Partners of either kind: those whose certificate is pinned, and foreign connectors that present a token.
//!
//! Each partner has one way to prove who it is. A certificate peer never gets in by token: no token of it exists.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    crypto::sha256,
    error::Refusal,
    id::{ParticipantId, Sha256},
    identity::{Attributes, Peer, PeerState},
    net::{Origin, Target},
};

/// A foreign connector: it has no certificate of ours, and presents a configured `Authorization` value.
///
/// Its secret is shared, so that whatever it does could have been done by us: its half is repudiable.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenPeer {
    /// Its participant id: any text.
    pub id: ParticipantId,
    /// The name that people see.
    pub name: String,
    /// Its protocol's `<base>`: the only place where messages go, and from where callbacks may be.
    pub address: String,
    /// SHA-256 of the `Authorization` value that it presents.
    pub inbound: Sha256,
    /// The name, in the home's `tokens` folder, of the file with the value that we present.
    pub outbound: String,
    /// Whether it may do anything.
    pub state: PeerState,
    /// Set when it was added.
    pub attributes: Attributes,
    /// How long we wait after answering before we send what follows, in milliseconds.
    pub follow_up_delay_ms: u64,
}

impl TokenPeer {
    /// Where they lie in the store.
    pub const PREFIX: &'static str = "pt/";

    /// The row's key.
    pub fn key(id: &ParticipantId) -> Vec<u8> {
        let mut key = Self::PREFIX.as_bytes().to_vec();
        key.extend_from_slice(sha256(id.as_str().as_bytes()).as_bytes());
        key
    }
}

/// All foreign connectors; follows the store.
#[derive(Default)]
pub struct TokenPeers(RwLock<HashMap<Vec<u8>, Arc<TokenPeer>>>);

impl TokenPeers {
    /// The one with this id, in whatever state.
    pub fn by_id(&self, id: &ParticipantId) -> Option<Arc<TokenPeer>> {
        self.read().get(&TokenPeer::key(id)).cloned()
    }

    /// All of them, by id.
    pub fn all(&self) -> Vec<Arc<TokenPeer>> {
        let mut all: Vec<_> = self.read().values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Who presents this `Authorization` value.
    ///
    /// # Errors
    /// `token-unknown`, `peer-revoked`.
    pub fn authenticate(&self, authorization: &[u8]) -> Result<Arc<TokenPeer>, Refusal> {
        let presented = sha256(authorization);
        let peers = self.read();
        // hashes are compared, all of them: how long that takes tells nothing about a token
        let found = peers.values().fold(None, |found, peer| if peer.inbound == presented { Some(peer) } else { found });
        let peer = found.ok_or_else(|| {
            Refusal::new("token-unknown", "the Authorization value that was presented belongs to no participant")
        })?;
        if peer.state == PeerState::Revoked {
            return Err(Refusal::new("peer-revoked", format!("{} was revoked as a peer of this connector", peer.id)));
        }
        Ok(peer.clone())
    }

    /// A row was written or deleted.
    pub fn applied(&self, key: &[u8], value: Option<&[u8]>) {
        if !key.starts_with(TokenPeer::PREFIX.as_bytes()) {
            return;
        }
        let peer = value.and_then(|bytes| serde_json::from_slice::<TokenPeer>(bytes).ok());
        let mut peers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match peer {
            Some(peer) => peers.insert(key.to_vec(), Arc::new(peer)),
            // unreadable or deleted: nobody
            None => peers.remove(key),
        };
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Vec<u8>, Arc<TokenPeer>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom we deal with.
#[derive(Clone, Debug)]
pub enum Partner {
    /// Another Counterseal.
    Certificate(Arc<Peer>),
    /// A foreign connector.
    Token(Arc<TokenPeer>),
}

impl Partner {
    /// Who.
    pub fn id(&self) -> ParticipantId {
        match self {
            Self::Certificate(peer) => peer.did.clone().into(),
            Self::Token(peer) => peer.id.clone(),
        }
    }

    /// What our operator says of it.
    pub fn attributes(&self) -> &Attributes {
        match self {
            Self::Certificate(peer) => &peer.attributes,
            Self::Token(peer) => &peer.attributes,
        }
    }

    /// Where its protocol's messages go: `<base>`.
    pub fn base(&self) -> String {
        match self {
            Self::Certificate(peer) => peer.base(),
            Self::Token(peer) => peer.address.clone(),
        }
    }

    /// Its connector, for outbound connections.
    pub fn target(&self) -> Target {
        match self {
            Self::Certificate(peer) => peer.target(),
            Self::Token(peer) => {
                Target { peer: peer.id.clone(), seq: 0, origin: Origin::Public, endpoints: vec![peer.address.clone()] }
            }
        }
    }

    /// How long we wait after answering it before we send what follows.
    pub fn follow_up_delay(&self) -> Duration {
        Duration::from_millis(match self {
            Self::Certificate(peer) => peer.follow_up_delay_ms,
            Self::Token(peer) => peer.follow_up_delay_ms,
        })
    }

    /// How it proves who it is, for receipts.
    pub const fn authentication(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "mtls",
            Self::Token(_) => "token",
        }
    }

    /// The Counterseal peer, if it is one.
    pub const fn certificate(&self) -> Option<&Arc<Peer>> {
        match self {
            Self::Certificate(peer) => Some(peer),
            Self::Token(_) => None,
        }
    }

    /// Whether both are the same partner in the same version of what we know of it.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Certificate(a), Self::Certificate(b)) => Arc::ptr_eq(a, b),
            (Self::Token(a), Self::Token(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}
