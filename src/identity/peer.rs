//! Peers: the partners that were paired, in memory, read at every request.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use serde::{Deserialize, Serialize};

use crate::{
    crypto::{
        VerifyingKey,
        jws::{Jws, KeyRole, Kid},
        sha256,
    },
    error::Refusal,
    id::{Did, Sha256},
    identity::{Statement, StatementError, fingerprint, statement::read_chain},
    net::{ConnectionInfo, Origin, Target},
    time::Timestamp,
};

/// A partner as it was paired. Its attributes are what our operator vouches for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Who.
    pub did: Did,
    /// The newest statement that we hold.
    pub statement: Statement,
    /// All of them as signed, oldest first: older keys verify older objects.
    pub history: Vec<Jws>,
    /// Whether it may do anything.
    pub state: PeerState,
    /// Set at pairing.
    pub attributes: Attributes,
    /// How long we wait after answering before we send what follows, in milliseconds.
    #[serde(default)]
    pub follow_up_delay_ms: u64,
    /// When it was paired.
    pub added: Timestamp,
}

/// What our operator says of a peer; facts in decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Attributes {
    /// Such as `CN-44`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jurisdiction: Option<String>,
    /// Roles.
    pub roles: BTreeSet<String>,
    /// Certifications.
    pub certifications: BTreeSet<String>,
    /// Groups of the data space.
    pub groups: BTreeSet<String>,
    /// Its site (TC609-6-2025-14 C.6, physicalAddress 物理地址).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub physical_address: Option<String>,
}

/// Whether a peer may do anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// It may.
    Active,
    /// No longer.
    Revoked,
}

impl Peer {
    /// Where peers lie in the store.
    pub const PREFIX: &'static str = "p/";

    /// The row's key.
    pub fn key(did: &Did) -> Vec<u8> {
        let mut key = Self::PREFIX.as_bytes().to_vec();
        key.extend_from_slice(sha256(did.as_str().as_bytes()).as_bytes());
        key
    }

    /// Its connector, for outbound connections.
    pub fn target(&self) -> Target {
        Target {
            peer: self.did.clone().into(),
            seq: self.statement.seq,
            origin: Origin::Pinned(self.statement.tls.clone()),
            endpoints: vec![self.statement.endpoints.dsp.clone()],
        }
    }

    /// Where its protocol's messages go: `<base>` (DSP 2025-1).
    pub fn base(&self) -> String {
        format!("{}/2025-1", self.statement.endpoints.dsp)
    }

    /// The hash of its newest statement.
    pub fn statement_sha256(&self) -> Sha256 {
        self.history.last().map_or(Sha256([0; 32]), Jws::sha256)
    }

    /// What people compare.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.history)
    }

    /// Every key that was ever its own, by id, and whether it still is.
    fn keys(&self) -> Result<HashMap<Kid, PeerKey>, StatementError> {
        let chain = read_chain(&self.history)?;
        if chain.last() != Some(&self.statement) || self.did != self.statement.did {
            return Err(StatementError::Invitation(format!("the row of `{}` is not what was signed", self.did)));
        }
        let mut keys = HashMap::new();
        for (place, statement) in chain.iter().enumerate() {
            for (role, key) in [
                (KeyRole::Signing, statement.keys.signing),
                (KeyRole::Token, statement.keys.token),
                (KeyRole::Log, statement.keys.log),
                (KeyRole::Cosigner, statement.keys.cosigner),
            ] {
                // the newest comes last, and tells
                keys.insert(Kid::of(&self.did, role, &key), PeerKey { key, current: place + 1 == chain.len() });
            }
        }
        Ok(keys)
    }
}

#[derive(Clone, Copy)]
struct PeerKey {
    key: VerifyingKey,
    current: bool,
}

/// All peers; follows the store.
#[derive(Default)]
pub struct Peers(RwLock<View>);

#[derive(Default)]
struct View {
    by_key: HashMap<Vec<u8>, Arc<Peer>>,
    by_did: HashMap<Did, Arc<Peer>>,
    /// A statement may pin any key, also one that another peer holds: it proves nothing.
    by_spki: HashMap<Sha256, BTreeSet<Did>>,
    keys: HashMap<Kid, PeerKey>,
}

impl Peers {
    /// The peer with this DID, in whatever state.
    pub fn by_did(&self, did: &impl AsRef<str>) -> Option<Arc<Peer>> {
        self.read().by_did.get(did.as_ref()).cloned()
    }

    /// The first of the peers whose newest statements pin this TLS key.
    pub fn by_spki(&self, spki: &Sha256) -> Option<Arc<Peer>> {
        self.pinning(spki).into_iter().next()
    }

    /// The peers whose newest statements pin this TLS key, by DID. That is a claim of theirs, not a proof: whose a
    /// certificate is, [`authenticate`] says.
    pub fn pinning(&self, spki: &Sha256) -> Vec<Arc<Peer>> {
        let view = self.read();
        let dids = view.by_spki.get(spki).into_iter().flatten();
        dids.filter_map(|did| view.by_did.get(did).cloned()).collect()
    }

    /// Whether this peer may do anything.
    pub fn is_active(&self, did: &impl AsRef<str>) -> bool {
        self.read().by_did.get(did.as_ref()).is_some_and(|peer| peer.state == PeerState::Active)
    }

    /// All of them, by DID.
    pub fn all(&self) -> Vec<Arc<Peer>> {
        let mut all: Vec<_> = self.read().by_did.values().cloned().collect();
        all.sort_by(|a, b| a.did.cmp(&b.did));
        all
    }

    /// A peer's key by its id, also one that was rotated away since: for what was signed long ago.
    pub fn verifying_key(&self, kid: &Kid) -> Option<VerifyingKey> {
        self.read().keys.get(kid).map(|key| key.key)
    }

    /// A peer's key by its id if its newest statement names it: for what arrives now. A key that was rotated away, perhaps
    /// because somebody else has it, signs nothing new.
    pub fn current_key(&self, kid: &Kid) -> Option<VerifyingKey> {
        self.read().keys.get(kid).filter(|key| key.current).map(|key| key.key)
    }

    /// A row was written or deleted.
    pub fn applied(&self, key: &[u8], value: Option<&[u8]>) {
        if !key.starts_with(Peer::PREFIX.as_bytes()) {
            return;
        }
        let peer = value.and_then(|bytes| {
            let peer: Peer = serde_json::from_slice(bytes)
                .inspect_err(|error| tracing::error!(%error, "a peer's row can't be read; it is nobody"))
                .ok()?;
            let keys = peer
                .keys()
                .inspect_err(
                    |error| tracing::error!(%error, peer = %peer.did, "its statements don't hold; it is nobody"),
                )
                .ok()?;
            if Peer::key(&peer.did) != key {
                tracing::error!(peer = %peer.did, "a peer's row lies at another's key; it is nobody");
                return None;
            }
            Some((Arc::new(peer), keys))
        });
        let mut view = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = view.by_key.remove(key) {
            view.by_did.remove(&old.did);
            view.by_spki.retain(|_, dids| {
                dids.remove(&old.did);
                !dids.is_empty()
            });
            view.keys.retain(|kid, _| *kid.did() != old.did);
        }
        if let Some((peer, keys)) = peer {
            for spki in &peer.statement.tls {
                view.by_spki.entry(*spki).or_default().insert(peer.did.clone());
            }
            view.keys.extend(keys);
            view.by_did.insert(peer.did.clone(), peer.clone());
            view.by_key.insert(key.to_vec(), peer);
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, View> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who this connection is, at this very request. The refusal says why it is nobody.
///
/// # Errors
/// `certificate-missing`, `peer-unknown`, `certificate-expired`, `certificate-not-yet-valid`, `certificate-wrong-did`,
/// `peer-revoked`.
pub fn authenticate(info: &ConnectionInfo, peers: &Peers, now: Timestamp) -> Result<Arc<Peer>, Refusal> {
    let refuse = |code, sentence: String| Err(Refusal::new(code, sentence));
    let Some(certificate) = &info.client_cert else {
        return refuse(
            "certificate-missing",
            "no client certificate was shown: a connector presents the certificate that its participant statement pins"
                .into(),
        );
    };
    let pinning = peers.pinning(&certificate.spki);
    let Some(pinned) = pinning.first() else {
        return refuse(
            "peer-unknown",
            "this connector doesn't know the certificate that was shown: its operator has to add your invitation \
             (`counterseal peer add`), or your newer statement has not reached it"
                .into(),
        );
    };
    if now > certificate.not_after {
        return refuse("certificate-expired", format!("the certificate ended at {}", certificate.not_after));
    }
    if now < certificate.not_before {
        return refuse("certificate-not-yet-valid", format!("the certificate begins at {}", certificate.not_before));
    }
    // who pins another's key gains nothing and costs the other nothing: the certificate says whose it is
    let mut named = pinning.iter().filter(|peer| certificate.dids.contains(&peer.did));
    let (Some(peer), None) = (named.next(), named.next()) else {
        return refuse(
            "certificate-wrong-did",
            format!(
                "the certificate's key is pinned for {}, but the certificate doesn't name just that DID",
                pinned.did
            ),
        );
    };
    if peer.state == PeerState::Revoked {
        return refuse("peer-revoked", format!("{} was revoked as a peer of this connector", peer.did));
    }
    Ok(peer.clone())
}

#[cfg(test)]
mod tests;
