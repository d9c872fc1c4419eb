//! Pair: invitations, peers, and our own statement as it changes.

use std::{path::Path, sync::Arc, time::Duration};

use serde::Serialize;

use crate::{
    crypto::jws::Jws,
    error::Refusal,
    exchange::{Exchange, outbox::Draft, refuse, rows::About},
    id::{Did, Pid},
    identity::{
        Attributes, Invitation, Keys, MAX_CHAIN, Peer, PeerState, Statement, fingerprint, same_fingerprint,
        verify_chain, verify_next,
    },
    protocol::{
        BASE,
        extension::{self, StatementRequest},
    },
    receipt::{Commit, Committer, Kind, Row, read},
    store::Store,
    time::Timestamp,
};

/// Our own chain of statements.
const OWN: &[u8] = b"self/statements";
/// How many of them peers were told of (the letters may still wait).
const TOLD: &[u8] = b"self/told";

/// What our operator says of a partner when adding it.
#[derive(Clone, Debug, Default)]
pub struct Pairing {
    /// Facts in decisions.
    pub attributes: Attributes,
    /// The fingerprint that the partner read out, if it is known already.
    pub fingerprint: Option<String>,
    /// How long we wait after answering this partner before we send what follows from its message.
    pub follow_up_delay: Duration,
}

/// A peer, for people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerView {
    /// Who.
    pub did: Did,
    /// Its name for itself.
    pub name: String,
    /// Where it is.
    pub endpoint: String,
    /// The fingerprint of its newest statement.
    pub fingerprint: String,
    /// Whether it may do anything.
    pub state: PeerState,
    /// What our operator says of it.
    pub attributes: Attributes,
}

impl From<&Peer> for PeerView {
    fn from(peer: &Peer) -> Self {
        Self {
            did: peer.did.clone(),
            name: peer.statement.name.clone(),
            endpoint: peer.statement.endpoints.dsp.clone(),
            fingerprint: fingerprint(&peer.history),
            state: peer.state,
            attributes: peer.attributes.clone(),
        }
    }
}

/// Our chain of statements; where keys or endpoint changed since, a newer one is signed by the key before and added.
/// `rotated` are the keys that take the place of `keys` when the statement that names them is on the disk.
/// The second value says whether peers have to be told.
pub async fn own_statements(
    store: &dyn Store,
    committer: &Committer,
    keys: &Keys,
    rotated: Option<&Keys>,
    name: &str,
    endpoint: &str,
    now: Timestamp,
) -> Result<(Vec<Jws>, bool), Refusal> {
    let row: Row<Vec<Jws>> = read(store, OWN).await.map_err(refuse("store-unreadable"))?;
    let told = read::<usize>(store, TOLD).await.map_err(refuse("store-unreadable"))?.value.unwrap_or(1);
    let mut chain = row.value.clone().unwrap_or_default();
    let newest = match chain.is_empty() {
        true => None,
        false => Some(verify_chain(&chain).map_err(refuse("statement-broken"))?),
    };
    let seq = newest.as_ref().map_or(1, |newest| newest.seq + 1);
    let next =
        Statement::own(rotated.unwrap_or(keys), seq, name, endpoint, now).map_err(refuse("statement-invalid"))?;
    if newest.as_ref().is_some_and(|newest| newest.says_the_same(&next)) {
        return Ok((chain.clone(), told < chain.len()));
    }
    // the first one is signed by the key that it names
    let by = match &newest {
        None => rotated.unwrap_or(keys),
        Some(_) => keys,
    };
    if newest.as_ref().is_some_and(|newest| newest.keys.signing != by.signing.public()) {
        return Err(Refusal::new(
            "statement-key",
            "the signing key in this home is not the one in our newest statement: a rotation is signed by the key before",
        ));
    }
    chain.push(next.sign(&by.signing).map_err(refuse("statement-invalid"))?);
    let mut commit = Commit::new();
    commit.put(&row, &chain).map_err(refuse("internal"))?;
    committer.commit(commit).await.map_err(super::commit_refusal)?;
    let tell = told < chain.len();
    Ok((chain, tell))
}

impl Exchange {
    /// Our invitation, to be handed to a partner.
    pub fn invitation(&self) -> Invitation {
        Invitation::new(self.statements.clone())
    }

    /// Adds a partner by its invitation file, or updates what we say of it. Gives back its fingerprint, to be compared
    /// by another channel.
    pub async fn add_peer(&self, file: &Path, pairing: Pairing) -> Result<PeerView, Refusal> {
        let (invitation, statement) = Invitation::load(file).map_err(refuse("invitation-invalid"))?;
        let shown = fingerprint(&invitation.statements);
        if let Some(told) = &pairing.fingerprint
            && !same_fingerprint(told, &shown)
        {
            return Err(Refusal::new(
                "fingerprint-differs",
                format!(
                    "the invitation's fingerprint is {shown}, not the one that you were told: it is not the partner's, or was changed on its way"
                ),
            ));
        }
        if statement.did == self.us {
            return Err(Refusal::new(
                "invitation-own",
                "this is our own invitation: hand it to the partner, and add theirs",
            ));
        }
        // one way to prove who it is: a participant that presents a token is no certificate peer
        if self.token_peers.by_id(&statement.did.clone().into()).is_some() {
            return Err(Refusal::new(
                "peer-taken",
                format!("`{}` is known as a foreign connector, by its token", statement.did),
            ));
        }
        if let Some(other) = statement.tls.iter().find_map(|spki| self.peers.by_spki(spki))
            && other.did != statement.did
        {
            return Err(Refusal::new(
                "certificate-taken",
                format!("the invitation pins a certificate that is pinned for `{}` already", other.did),
            ));
        }
        let row = read::<Peer>(&*self.store, &Peer::key(&statement.did)).await.map_err(refuse("store-unreadable"))?;
        if let Some(known) = &row.value
            && known.statement.seq > statement.seq
        {
            return Err(Refusal::new(
                "invitation-old",
                format!("the invitation has statement {}; we hold {} already", statement.seq, known.statement.seq),
            ));
        }
        if let Some(known) = &row.value
            && known.state == PeerState::Active
            && !invitation.statements.starts_with(&known.history)
        {
            return Err(Refusal::new(
                "invitation-other-key",
                format!(
                    "`{}` is paired with another key, which this invitation does not continue; revoke it first if its key was lost",
                    statement.did
                ),
            ));
        }
        let peer = Peer {
            did: statement.did.clone(),
            history: invitation.statements,
            state: PeerState::Active,
            attributes: pairing.attributes,
            follow_up_delay_ms: u64::try_from(pairing.follow_up_delay.as_millis()).unwrap_or(u64::MAX),
            added: self.clock.now(),
            statement,
        };
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Configured, None);
        receipt.consumer = Some(peer.did.clone().into());
        receipt.refers = Some(peer.statement_sha256());
        receipt.reason = Some(Refusal::new("peer-added", "a partner was paired"));
        self.node_receipt(&mut commit, receipt)?;
        commit.put(&row, &peer).map_err(refuse("internal"))?;
        if row.value.is_none() {
            self.tell_new_peer(&mut commit, &peer.did.clone().into()).await?;
        }
        self.commit(commit).await?;
        Ok(PeerView::from(&peer))
    }

    /// All peers.
    pub fn peer_views(&self) -> Vec<PeerView> {
        self.peers.all().iter().map(|peer| PeerView::from(&**peer)).collect()
    }

    /// Tells every active peer of our newest statement.
    pub async fn push_statement(&self) -> Result<(), Refusal> {
        let Some(statement) = self.statements.last() else { return Ok(()) };
        let mut commit = Commit::new();
        let process: Pid = self.mint();
        for peer in self.peers.all().iter().filter(|peer| self.peers.is_active(&peer.did)) {
            let body =
                serde_json::to_value(StatementRequest { statement: statement.clone() }).map_err(refuse("internal"))?;
            self.letter(
                &mut commit,
                Draft {
                    peer: &peer.did.clone().into(),
                    process: &process,
                    about: About::Notice,
                    url: format!("{}{BASE}{}", peer.statement.endpoints.dsp, extension::statement_path()),
                    body,
                    last: true,
                    token: None,
                },
            )?;
        }
        let mut receipt = self.receipt(Kind::Rotated, None);
        receipt.refers = Some(statement.sha256());
        self.node_receipt(&mut commit, receipt)?;
        let told = read::<usize>(&*self.store, TOLD).await.map_err(refuse("store-unreadable"))?;
        commit.put(&told, &self.statements.len()).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        self.post();
        Ok(())
    }

    /// Takes a peer's newer statement, signed by the key that we hold.
    pub(super) async fn take_statement(&self, peer: &Arc<Peer>, statement: &Jws) -> Result<(), Refusal> {
        let row = read::<Peer>(&*self.store, &Peer::key(&peer.did)).await.map_err(refuse("store-unreadable"))?;
        let Some(mut known) = row.value.clone() else {
            return Err(Refusal::new("peer-unknown", "no such peer"));
        };
        if known.history.last() == Some(statement) {
            return Ok(());
        }
        if known.history.len() >= MAX_CHAIN {
            return Err(Refusal::new("statement-refused", "too many statements: pair again with a fresh invitation"));
        }
        let next = verify_next(&known.statement, statement).map_err(refuse("statement-refused"))?;
        if let Some(other) = next.payload().tls.iter().find_map(|spki| self.peers.by_spki(spki))
            && other.did != known.did
        {
            return Err(Refusal::new(
                "certificate-taken",
                "the statement pins a certificate that another peer pins already",
            ));
        }
        known.statement = next.into_payload();
        known.history.push(statement.clone());
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Rotated, None);
        receipt.consumer = Some(known.did.clone().into());
        receipt.refers = Some(statement.sha256());
        self.node_receipt(&mut commit, receipt)?;
        commit.put(&row, &known).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }
}
