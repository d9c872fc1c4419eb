//! Foreign connectors: added by the operator with the `Authorization` values of both directions, revoked likewise.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    crypto::sha256,
    error::Refusal,
    exchange::{Exchange, refuse, retry},
    id::ParticipantId,
    identity::{Attributes, PeerState, TokenPeer},
    protocol::message::Address,
    receipt::{Commit, Kind, read},
};

/// Shortest secret that is taken, in bytes.
const SHORTEST: usize = 16;

/// A foreign connector to be added.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForeignPeer {
    /// Its participant id.
    pub id: ParticipantId,
    /// The name that people see.
    #[serde(default)]
    pub name: String,
    /// Its protocol's `<base>`.
    pub address: Address,
    /// The whole `Authorization` value that it presents.
    pub inbound: Zeroizing<String>,
    /// The whole `Authorization` value that we present.
    pub outbound: Zeroizing<String>,
    /// What our operator says of it.
    #[serde(default)]
    pub attributes: Attributes,
    /// How long we wait after answering it before we send what follows, in milliseconds.
    #[serde(default = "delay")]
    pub follow_up_delay_ms: u64,
}

/// Others need the time (the kit's races).
fn delay() -> u64 {
    400
}

/// A foreign connector, for people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ForeignView {
    /// Who.
    pub id: ParticipantId,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// Whether it may do anything.
    pub state: PeerState,
    /// What our operator says of it.
    pub attributes: Attributes,
}

impl From<&TokenPeer> for ForeignView {
    fn from(peer: &TokenPeer) -> Self {
        Self {
            id: peer.id.clone(),
            name: peer.name.clone(),
            address: peer.address.clone(),
            state: peer.state,
            attributes: peer.attributes.clone(),
        }
    }
}

impl Exchange {
    /// Adds a foreign connector, or changes what is known of it.
    ///
    /// # Errors
    /// `peer-taken` where a Counterseal peer has the id: it never gets in by token. `token-weak`, `token-taken`,
    /// `address-insecure`.
    pub async fn add_foreign(&self, peer: &ForeignPeer) -> Result<ForeignView, Refusal> {
        if peer.id == self.us || self.peers.by_did(&peer.id).is_some() {
            return Err(Refusal::new(
                "peer-taken",
                format!("`{}` is known by its certificate, and never gets in by token", peer.id),
            ));
        }
        if peer.inbound.len() < SHORTEST {
            return Err(Refusal::new(
                "token-weak",
                format!("the value that it presents has fewer than {SHORTEST} bytes: anybody could try them all"),
            ));
        }
        let inbound = sha256(peer.inbound.as_bytes());
        if self.token_peers.all().iter().any(|other| other.id != peer.id && other.inbound == inbound) {
            return Err(Refusal::new("token-taken", "another participant presents this very value"));
        }
        let row = TokenPeer {
            id: peer.id.clone(),
            name: peer.name.clone(),
            address: peer.address.as_str().to_owned(),
            inbound,
            outbound: self.keep_secret(&peer.outbound)?,
            state: PeerState::Active,
            attributes: peer.attributes.clone(),
            follow_up_delay_ms: peer.follow_up_delay_ms,
        };
        let partner = crate::identity::Partner::Token(std::sync::Arc::new(row.clone()));
        self.clients.forget(&row.id);
        self.clients.client_for(&partner.target(), &row.address).map_err(|_| {
            Refusal::new(
                "address-insecure",
                format!(
                    "`{}` can't be used: https, or http to this machine itself; an address inside your network has to stand in outbound.allow",
                    row.address
                ),
            )
        })?;
        retry!(self.put_foreign(&row, "peer-added", "a foreign connector was added"))?;
        Ok(ForeignView::from(&row))
    }

    /// Foreign connectors.
    pub fn foreign_views(&self) -> Vec<ForeignView> {
        self.token_peers.all().iter().map(|peer| ForeignView::from(&**peer)).collect()
    }

    /// Revokes a foreign connector: it is nobody at its next request, and its streams are cut.
    pub async fn revoke_foreign(&self, id: &ParticipantId, reason: &str) -> Result<(), Refusal> {
        let Some(peer) = self.token_peers.by_id(id) else {
            return Err(Refusal::new("peer-unknown", format!("`{id}` is not a foreign connector that we know")));
        };
        let row = TokenPeer { state: PeerState::Revoked, ..(*peer).clone() };
        retry!(self.put_foreign(&row, "peer-revoked", reason))?;
        self.clients.forget(id);
        self.post();
        Ok(())
    }

    async fn put_foreign(&self, peer: &TokenPeer, code: &'static str, reason: &str) -> Result<(), Refusal> {
        let row =
            read::<TokenPeer>(&*self.store, &TokenPeer::key(&peer.id)).await.map_err(refuse("store-unreadable"))?;
        let why = Refusal::new(code, reason.chars().take(500).collect::<String>());
        let revoked = peer.state == PeerState::Revoked;
        let mut commit = Commit::new();
        let mut receipt = self.receipt(if revoked { Kind::Revoked } else { Kind::Configured }, None);
        receipt.consumer = Some(peer.id.clone());
        receipt.authentication = Some("token".into());
        receipt.reason = Some(why.clone());
        self.node_receipt(&mut commit, receipt)?;
        if revoked {
            for pid in self.running_transfers(|process| process.peer == peer.id) {
                self.terminate_transfer(&mut commit, &pid, &why).await?;
            }
        }
        commit.put(&row, peer).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }
}
