//! The rows that only the walks write: negotiations, transfers, messages seen, messages to send.

use serde::{Deserialize, Serialize};

use crate::{
    crypto::jws::Jws,
    error::Refusal,
    id::{AgreementId, DatasetId, MessageId, OfferId, ParticipantId, Pid, Sha256},
    offer::Approval,
    protocol::{
        NegotiationState, Party, TransferState,
        message::{ContractAgreement, MessageOffer},
    },
    receipt::row_key,
    time::Timestamp,
};

/// A contract negotiation of ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NegotiationRow {
    /// Our pid.
    pub pid: Pid,
    /// The peer's, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_pid: Option<Pid>,
    /// The side that we are on.
    pub ours: Party,
    /// The other party.
    pub peer: ParticipantId,
    /// Where its messages go.
    pub callback: String,
    /// Where it stands.
    pub state: NegotiationState,
    /// The offer that it is about, as its provider signed it; a foreign provider signs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Jws>,
    /// Whether our steps wait for a person.
    #[serde(default)]
    pub approval: Approval,
    /// What the other side proposed last: the offer or agreement of its message, and what came with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposed: Option<Proposal>,
    /// Its id.
    pub offer_id: OfferId,
    /// Its dataset.
    pub dataset: DatasetId,
    /// The agreement, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<AgreementId>,
    /// Why it ended, in every state in which it ended otherwise than finalized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Refusal>,
    /// When it was begun.
    pub begun: Timestamp,
    /// When it last moved.
    pub moved: Timestamp,
}

impl NegotiationRow {
    /// Where negotiations lie.
    pub const PREFIX: &'static str = "n/";

    /// The row's key.
    pub fn key(pid: &Pid) -> Vec<u8> {
        row_key(Self::PREFIX, &[pid.as_str()])
    }

    /// The key that finds a negotiation by the peer's pid.
    pub fn peer_key(peer: &ParticipantId, pid: &Pid) -> Vec<u8> {
        row_key("np/", &[peer.as_str(), pid.as_str()])
    }

    /// (consumerPid, providerPid); an unknown one is empty.
    pub fn pids(&self) -> (Option<Pid>, Option<Pid>) {
        match self.ours {
            Party::Consumer => (Some(self.pid.clone()), self.peer_pid.clone()),
            Party::Provider => (self.peer_pid.clone(), Some(self.pid.clone())),
        }
    }
}

/// Where a request came from, and what for: facts of a decision that may be made again (provider). Kept where it can be
/// erased, until the negotiation is over.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AskedWith {
    /// The caller's address.
    pub remote: Option<std::net::IpAddr>,
    /// The purpose that the consumer declared.
    pub purpose: Option<String>,
}

impl AskedWith {
    /// Where they lie.
    pub const PREFIX: &'static str = "nf/";

    /// The row's key: that of the negotiation, under another prefix.
    pub fn key(pid: &Pid) -> Vec<u8> {
        row_key(Self::PREFIX, &[pid.as_str()])
    }
}

/// What a partner's message proposed, kept until we answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Proposal {
    /// A counter-offer.
    Offer(MessageOffer),
    /// An agreement.
    Agreement(Box<ContractAgreement>),
}

impl NegotiationRow {
    /// Whether it is our turn: nobody but us can take the next step (ending it aside).
    pub const fn our_turn(&self) -> bool {
        match self.ours {
            Party::Provider => matches!(
                self.state,
                NegotiationState::Requested | NegotiationState::Accepted | NegotiationState::Verified
            ),
            Party::Consumer => matches!(self.state, NegotiationState::Offered | NegotiationState::Agreed),
        }
    }
}

/// A transfer process of ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferRow {
    /// Our pid.
    pub pid: Pid,
    /// The peer's, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_pid: Option<Pid>,
    /// The side that we are on.
    pub ours: Party,
    /// The other party.
    pub peer: ParticipantId,
    /// Where its messages go.
    pub callback: String,
    /// Where it stands.
    pub state: TransferState,
    /// Under which agreement.
    pub agreement: AgreementId,
    /// `HttpData-PULL`.
    pub format: String,
    /// Whether our steps wait for a person.
    #[serde(default)]
    pub approval: Approval,
    /// The certificate that the consumer asked with: tokens are bound to it (provider).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Sha256>,
    /// Where the data is, and the token for it (consumer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Why it ended or was suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Refusal>,
    /// When it was begun.
    pub begun: Timestamp,
    /// When it last moved.
    pub moved: Timestamp,
}

/// What a transfer start message told the consumer.
#[derive(Clone, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where releases are asked for.
    pub url: String,
    /// The name, in the home's `tokens` folder, of the file that holds the token.
    pub token: String,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.url).finish_non_exhaustive()
    }
}

impl TransferRow {
    /// Whether it is our turn: the consumer waits for the start.
    pub fn our_turn(&self) -> bool {
        self.ours == Party::Provider && self.state == TransferState::Requested
    }

    /// Where transfers lie.
    pub const PREFIX: &'static str = "t/";

    /// The row's key.
    pub fn key(pid: &Pid) -> Vec<u8> {
        row_key(Self::PREFIX, &[pid.as_str()])
    }

    /// The key that finds a transfer by the peer's pid.
    pub fn peer_key(peer: &ParticipantId, pid: &Pid) -> Vec<u8> {
        row_key("tp/", &[peer.as_str(), pid.as_str()])
    }

    /// (consumerPid, providerPid); an unknown one is empty.
    pub fn pids(&self) -> (Option<Pid>, Option<Pid>) {
        match self.ours {
            Party::Consumer => (Some(self.pid.clone()), self.peer_pid.clone()),
            Party::Provider => (self.peer_pid.clone(), Some(self.pid.clone())),
        }
    }
}

/// A message that was taken: the same `@id` from the same peer gets the same answer, and changes nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// The process that it was about (ours).
    pub process: Pid,
    /// The answer's body.
    pub answer: serde_json::Value,
}

impl Seen {
    /// The row's key.
    pub fn key(peer: &ParticipantId, message: &MessageId) -> Vec<u8> {
        row_key("m/", &[peer.as_str(), message.as_str()])
    }
}

/// A message that waits in the outbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Letter {
    /// Orders letters; the row key's tail.
    pub seq: u64,
    /// To whom.
    pub peer: ParticipantId,
    /// The process of ours that it belongs to: letters of one process go out in order.
    pub process: Pid,
    /// What kind of process that is.
    pub about: About,
    /// The whole address.
    pub url: String,
    /// The body.
    pub body: serde_json::Value,
    /// Whether it ends the process: nothing follows from its failing.
    pub last: bool,
    /// The token that goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenSpec>,
    /// Not before.
    pub due: Timestamp,
    /// Given up after.
    pub give_up: Timestamp,
}

/// All that a token is made from but the key: signatures are deterministic, so that it is the same at each attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenSpec {
    /// The transfer (our pid).
    pub transfer: Pid,
    /// Which of its tokens.
    pub jti: String,
    /// The certificate it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Sha256>,
    /// When it was issued.
    pub issued: Timestamp,
}

/// What a letter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum About {
    /// A contract negotiation.
    Negotiation,
    /// A transfer process.
    Transfer,
    /// The other half of a receipt, a statement: nothing follows from its answer.
    Notice,
}

impl Letter {
    /// Where letters lie.
    pub const PREFIX: &'static str = "x/";

    /// The row's key: by time of writing.
    pub fn key(seq: u64) -> Vec<u8> {
        let mut key = Self::PREFIX.as_bytes().to_vec();
        key.extend_from_slice(&seq.to_be_bytes());
        key
    }
}
