//! The walks: one file each, from a message or a command to one commit.
//!
//! Every walk has the same shape: load rows, ask the pure machine and [`decide`](crate::agreement::decide), put state,
//! counters, outgoing messages and receipts into one [`Commit`], and start over when another commit was faster.
//! Delivery comes after, from the [`outbox`]. What partners send enters by [`handler`]; what the operator asks, by the
//! walks' public methods, which `api` calls.
//!
//! Owns negotiations, transfers and the outbox. Does not own bytes (`dataplane`, `vault`) or decisions (`agreement`).

mod applications;
mod approve;
mod backup;
mod before;
mod catalog;
mod decisions;
mod derived;
mod duty;
mod erase;
mod events;
mod export;
mod fetch;
mod foreign;
mod halves;
mod handler;
mod import;
mod inquire;
mod life;
mod negotiate;
mod open;
mod outbox;
mod pair;
mod pending;
mod plain;
mod publish;
mod push;
mod release;
mod restore;
mod revoke;
mod rows;
mod timer;
mod trace;
mod transfer;
mod use_copy;
mod webhook;
mod witness;

mod refusals;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
    net::SocketAddr,
    ops::Deref,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;
use tokio::sync::Notify;

use crate::{
    agreement::{self, AgreementRow},
    config::Config,
    crypto::{
        Random, RandomExt, VerifyingKey, canonical_json, commitment,
        jws::{Jws, KeyRole, Kid},
    },
    dataplane::{DataPlane, Grants},
    error::Refusal,
    id::{AgreementId, Did, IdError, ParticipantId, ReceiptId, Sha256},
    identity::{Keys, Partner, Peer, PeerState, Peers, Statement, TokenPeers},
    net::{Clients, Connections},
    offer::{Offer, Offers},
    policy::{Decision, Slice},
    protocol::{BASE, message::Address},
    receipt::{
        Commit, CommitError, Committed, Committer, DecisionRecord, Kind, Log, NewReceipt, Receipt, Receipts, Row,
        SeriesKey, content_key, read,
    },
    source::Roots,
    store::Store,
    time::Clock,
    vault::Vault,
};

pub use self::{
    applications::Registration,
    approve::{ConsentBody, Enrolment, NewApprover, PaymentBody},
    backup::{Backup, read_backup},
    catalog::{CatalogItem, Discoveries, RemoteOffer},
    decisions::{DecidedUnder, DecisionPage, Explicable},
    derived::DerivedRequest,
    duty::DutyView,
    erase::Erasure,
    events::Event,
    fetch::{FetchEvent, FetchRequest, With},
    foreign::{ForeignPeer, ForeignView},
    import::Imported,
    negotiate::{NegotiationAction, NegotiationRequest, NegotiationView},
    open::{OpenProcesses, OpenReleases},
    outbox::{Mailbox, Outbox, Sequence},
    pair::{Pairing, PeerView, own_statements},
    pending::Pending,
    publish::Published,
    push::Pushes,
    refusals::Refusals,
    restore::{RESTORED, Restorations, Restored, Restorer, WAITING, Waiting},
    rows::{About, Letter, NegotiationRow, TransferRow},
    timer::Timer,
    trace::{Recipient, TraceRequest, Traced},
    transfer::{TransferAction, TransferView},
    use_copy::{CopyView, First, Handed, Handing, Handover, HandoverState, OpenUses, UseRequest, Used},
    webhook::Webhook,
    witness::{Behind, Cosigned, SEEN, WitnessClient, Witnesses},
};

/// How often a walk starts over when other commits were faster.
const ATTEMPTS: usize = 5;

/// Everything that the walks need, handed in by the node.
pub struct Parts {
    /// Our DID.
    pub us: Did,
    /// What the operator set.
    pub config: Config,
    /// The URL by which partners reach us.
    pub base_url: String,
    /// Our keys.
    pub keys: Arc<Keys>,
    /// Reads.
    pub store: Arc<dyn Store>,
    /// Writes.
    pub committer: Committer,
    /// Receipts.
    pub receipts: Receipts,
    /// Our log, as others see it.
    pub log: Log,
    /// What partners witness of it, and we of theirs.
    pub witnesses: Arc<Witnesses>,
    /// Whether partners know more of it than we do.
    pub behind: Behind,
    /// Partners that have not said yet what they know of what a restore lost.
    pub restorations: Arc<Restorations>,
    /// Our root as foreign connectors reach it: the plain listener's, if there is one.
    pub plain_url: String,
    /// Partners, in memory.
    pub peers: Arc<Peers>,
    /// Foreign connectors, in memory.
    pub token_peers: Arc<TokenPeers>,
    /// Our offers, in memory.
    pub offers: Arc<Offers>,
    /// What may flow, in memory.
    pub grants: Arc<Grants>,
    /// Outbound connections.
    pub clients: Arc<Clients>,
    /// Our copies.
    pub vault: Vault,
    /// Uses of them that are under way.
    pub open_uses: Arc<OpenUses>,
    /// Our datasets' folders.
    pub roots: Arc<Roots>,
    /// The provider's streams.
    pub dataplane: DataPlane,
    /// The clock: never earlier than the last receipt.
    pub clock: Arc<dyn Clock>,
    /// Whether the clock can be decided on.
    pub guard: Arc<dyn ClockGuard>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Wakes the outbox after a commit that holds messages.
    pub mail: Arc<Notify>,
    /// Wakes whoever waits for a process to move on.
    pub moved: Arc<Notify>,
    /// Numbers letters.
    pub sequence: Sequence,
    /// Bounds the receipts of refusals.
    pub refusals: Refusals,
    /// Open connections, to be cut.
    pub connections: Arc<Connections>,
    /// Letters that wait to be delivered.
    pub mailbox: Arc<Mailbox>,
    /// Deadlines of open releases.
    pub open_releases: Arc<OpenReleases>,
    /// Pushes under way.
    pub pushes: Pushes,
    /// Negotiations and transfers that are not over.
    pub open_processes: Arc<OpenProcesses>,
    /// Peers, by statement, that speak our version of the protocol.
    pub spoken: Mutex<HashSet<(Did, u64)>>,
    /// What peers may discover, as decided.
    pub discoveries: Discoveries,
    /// Slices of agreements, compiled.
    pub slices: Slices,
    /// Our own statements, oldest first.
    pub statements: Vec<Jws>,
    /// Where tokens that we were given are kept, one 0600 file each.
    pub tokens: PathBuf,
}

/// Says whether the wall clock can be trusted.
pub trait ClockGuard: Send + Sync {
    /// Refuses while the wall clock is more than five minutes behind the last receipt and nobody has accepted that.
    fn check(&self) -> Result<(), Refusal>;

    /// An operator says that the wall clock is right; until the next time that it falls behind.
    fn accept(&self);
}

/// Compiled slices by their hash; begun anew when there are many.
#[derive(Default)]
pub struct Slices(Mutex<HashMap<Sha256, Arc<Slice>>>);

impl Slices {
    const MANY: usize = 1024;

    fn get(&self, hash: &Sha256) -> Option<Arc<Slice>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }

    fn keep(&self, hash: Sha256, slice: Arc<Slice>) {
        let mut slices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slices.len() >= Self::MANY {
            slices.clear();
        }
        slices.insert(hash, slice);
    }
}

/// The walks of one connector. Cheap to clone.
#[derive(Clone)]
pub struct Exchange {
    parts: Arc<Parts>,
    /// Who has them walked, if a person does.
    acting: Option<Arc<Acting>>,
}

/// A person who acts through the management API: a role that a token proves, and a name that its holder declares.
#[derive(Clone, Debug, Serialize)]
pub struct Acting {
    /// `operator` or `steward`.
    pub role: &'static str,
    /// As the person, or its client, says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Deref for Exchange {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Exchange {
    /// The walks over these parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), acting: None }
    }

    /// The same walks, walked by this person: receipts that come of it commit to who it was.
    pub fn acted_by(&self, person: Acting) -> Self {
        Self { parts: self.parts.clone(), acting: Some(Arc::new(person)) }
    }

    /// A receipt of ours, with what every receipt has; `agreement` decides its series and its parties.
    fn receipt(&self, kind: Kind, under: Option<&AgreementRow>) -> Receipt {
        let mut receipt = Receipt::new(self.mint::<ReceiptId>(), kind, self.clock.now(), self.us.clone().into());
        if let Some(row) = under {
            receipt.series = row.id().as_str().to_owned();
            receipt.provider = row.agreement.provider.id.clone();
            receipt.consumer = Some(row.agreement.consumer.id.clone());
            receipt.one_sided = row.one_sided;
            receipt.agreement = Some(row.id().clone());
            receipt.offer = Some(row.agreement.offer);
            receipt.peer_checkpoint = self.witnesses.newest(row.peer());
        }
        receipt
    }

    /// Signs a receipt into the node's own series.
    fn node_receipt(&self, commit: &mut Commit, receipt: Receipt) -> Result<Jws, Refusal> {
        self.sign_receipt(commit, receipt, SeriesKey::derive(&self.keys.node_series(), &self.us))
    }

    /// Signs a receipt into our series of this agreement.
    fn agreement_receipt(&self, commit: &mut Commit, row: &AgreementRow, receipt: Receipt) -> Result<Jws, Refusal> {
        self.sign_receipt(commit, receipt, row.series_key())
    }

    fn sign_receipt(&self, commit: &mut Commit, mut receipt: Receipt, series: SeriesKey) -> Result<Jws, Refusal> {
        if let Some(acting) = &self.acting {
            let person = canonical_json(acting).map_err(refuse("internal"))?;
            self.record_commitment(commit, &mut receipt, "operator", &person);
        }
        let new = NewReceipt::sign(receipt, &self.keys.signing_kid(), &self.keys.signing, series)
            .map_err(refuse("receipt-too-large"))?;
        let jws = new.jws.clone();
        commit.receipt(new);
        Ok(jws)
    }

    /// Writes a decision into a receipt: what was decided, and a commitment to the whole request, whose content and
    /// salt are kept beside the receipt.
    fn record_decision(&self, commit: &mut Commit, receipt: &mut Receipt, decision: &Decision) {
        let salt = self.random.array::<32>();
        receipt.decision = Some(DecisionRecord {
            verdict: decision.verdict.as_str().to_owned(),
            policies: decision.policies.clone(),
            reason: decision.reason.as_ref().map(|reason| reason.code.as_str().to_owned()),
            policy_sha256: decision.policy_sha256,
            schema_sha256: decision.schema_sha256,
            engine: decision.engine.to_owned(),
            request_commit: commitment(&salt, &decision.request),
        });
        self.keep_content(commit, receipt, "request", &salt, &decision.request);
    }

    /// Commits to a text in the receipt, and keeps text and salt where they may be erased.
    fn record_commitment(&self, commit: &mut Commit, receipt: &mut Receipt, name: &str, content: &[u8]) {
        let salt = self.random.array::<32>();
        receipt.commitments.insert(name.to_owned(), commitment(&salt, content));
        self.keep_content(commit, receipt, name, &salt, content);
    }

    fn keep_content(&self, commit: &mut Commit, receipt: &Receipt, name: &str, salt: &[u8; 32], content: &[u8]) {
        let mut bytes = salt.to_vec();
        bytes.extend_from_slice(content);
        commit.content(content_key(&receipt.id, name), bytes);
    }

    /// Nothing is decided while the wall clock, or the log itself, can't be relied on.
    fn may_decide(&self) -> Result<(), Refusal> {
        self.behind.check()?;
        self.guard.check()
    }

    /// One commit; a lost race comes back as [`conflict`].
    async fn commit(&self, commit: Commit) -> Result<Committed, Refusal> {
        let committed = self.committer.commit(commit).await.map_err(commit_refusal)?;
        self.moved.notify_waiters();
        Ok(committed)
    }

    /// An agreement of ours with its row.
    async fn agreement(&self, id: &AgreementId) -> Result<(Row<AgreementRow>, AgreementRow), Refusal> {
        let row = read::<AgreementRow>(&*self.store, &agreement::key(id)).await.map_err(refuse("store-unreadable"))?;
        match row.value.clone() {
            Some(agreement) => Ok((row, agreement)),
            None => Err(Refusal::new("agreement-unknown", format!("no agreement has the id `{id}`"))),
        }
    }

    /// An agreement of ours.
    pub async fn agreement_row(&self, id: &AgreementId) -> Result<AgreementRow, Refusal> {
        Ok(self.agreement(id).await?.1)
    }

    /// The partner with this id, active, of either kind.
    fn partner(&self, id: &ParticipantId) -> Result<Partner, Refusal> {
        match self.token_peers.by_id(id) {
            None => self.peer(id).map(Partner::Certificate),
            Some(peer) if peer.state == PeerState::Active => Ok(Partner::Token(peer)),
            Some(_) => Err(Refusal::new("peer-revoked", format!("`{id}` was revoked as a peer"))),
        }
    }

    /// Our root as this partner reaches it.
    fn root_for(&self, partner: &Partner) -> &str {
        match partner {
            Partner::Certificate(_) => &self.base_url,
            Partner::Token(_) => &self.plain_url,
        }
    }

    /// Our `<base>` as this partner reaches it.
    fn callback_for(&self, partner: &Partner) -> Result<Address, Refusal> {
        Address::parse(&format!("{}{BASE}", self.root_for(partner))).map_err(refuse("config-public-url"))
    }

    /// The Counterseal peer with this DID, active.
    fn peer(&self, did: &(impl AsRef<str> + Display)) -> Result<Arc<Peer>, Refusal> {
        let peer = self.peers.by_did(did).ok_or_else(|| {
            Refusal::new(
                "peer-unknown",
                format!("`{did}` is not a peer: add its invitation with `counterseal peer add`"),
            )
        })?;
        if self.peers.is_active(did) {
            Ok(peer)
        } else {
            Err(Refusal::new("peer-revoked", format!("`{did}` was revoked as a peer")))
        }
    }

    /// A key by its id: ours, or a peer's.
    fn verifying_key(&self, kid: &Kid) -> Option<VerifyingKey> {
        if *kid.did() != self.us {
            return self.peers.verifying_key(kid);
        }
        // statements were verified as a chain at start; older keys verify what we signed before they were rotated
        let ours = self.statements.iter().rev().find_map(|statement| {
            let keys = Statement::claimed(statement)?.keys;
            [(KeyRole::Signing, keys.signing), (KeyRole::Token, keys.token)]
                .into_iter()
                .find(|(role, key)| Kid::of(&self.us, *role, key) == *kid)
        });
        ours.map(|(_, key)| key)
    }

    /// The hash of our newest statement.
    fn own_statement(&self) -> Sha256 {
        self.statements.last().map_or(Sha256([0; 32]), Jws::sha256)
    }

    /// The slice of an agreement's offer, compiled once and kept.
    fn agreed_slice(&self, agreement: &AgreementRow, offer: &Offer) -> Result<Arc<Slice>, Refusal> {
        let hash = agreement.agreement.policy_sha256;
        if let Some(slice) = self.slices.get(&hash) {
            return Ok(slice);
        }
        let slice = Arc::new(offer.slice().map_err(refuse("policy-unusable"))?);
        if slice.sha256() != hash {
            return Err(Refusal::new("policy-mismatch", "the offer's policy is not the one that was agreed"));
        }
        self.slices.keep(hash, slice.clone());
        Ok(slice)
    }

    /// A fresh id.
    fn mint<T: FromStr<Err = IdError>>(&self) -> T {
        self.random.urn(self.clock.now()).parse().unwrap_or_else(|_| unreachable!("a minted URN is an id"))
    }

    /// Wakes the outbox.
    fn post(&self) {
        self.mail.notify_one();
    }
}

/// The code of a lost race: the walk loads again and starts over.
const CONFLICT: &str = "conflict";

fn commit_refusal(error: CommitError) -> Refusal {
    match error {
        CommitError::Conflict(_) => {
            Refusal::new(CONFLICT, "the same thing was changed by somebody else at the same moment; try again")
        }
        CommitError::Full => Refusal::new(
            "disk-full",
            "the disk is full: nothing was recorded, so nothing was done; free some room and try again",
        ),
        CommitError::Poisoned(why) => Refusal::new(
            "store-poisoned",
            format!("the store failed to write ({why}); nothing more is recorded or released until a restart"),
        ),
        CommitError::Closed => Refusal::new("stopping", "the connector is stopping"),
        other => Refusal::new("store-failed", other.to_string()),
    }
}

/// Turns any error into a refusal with this code.
fn refuse<E: Display>(code: &'static str) -> impl Fn(E) -> Refusal {
    move |error| Refusal::new(code, error.to_string())
}

/// Where a request came from: its address, as a fact.
fn address(remote: SocketAddr) -> Option<std::net::IpAddr> {
    Some(remote.ip().to_canonical())
}

/// Runs a walk until no other commit is faster.
macro_rules! retry {
    ($walk:expr) => {{
        let mut attempt = 0;
        loop {
            match $walk.await {
                Err(error)
                    if error.code.as_str() == $crate::exchange::CONFLICT && attempt < $crate::exchange::ATTEMPTS =>
                {
                    attempt += 1;
                }
                result => break result,
            }
        }
    }};
}
use retry;
