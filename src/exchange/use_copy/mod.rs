//! Use: a local application reads a copy, if the agreement's policy and a fresh status allow it.
//!
//! ```text
//!   request ─▶ application, target ─▶ decide ─▶ `used` receipt, counters ─▶ plaintext ─▶ terminal, pipe, file, HTTP
//!                                    (each parent's policy)                    ▲
//!                            revoked, destroyed, status too old ─▶ stop ───────┘
//! ```
//!
//! What is read is a copy, or data derived from copies: then the agreement of each of them decides, and all must allow.

mod decide;
mod delete;
mod hand;
mod status;
mod target;
mod watch;

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    agreement::AgreementRow,
    crypto::jws,
    error::Refusal,
    exchange::{Exchange, before::Shown, halves::unplaced, outbox::Draft, refuse, rows::About},
    id::{AgreementId, CopyId, DatasetId, Pid},
    policy::{Reach, UseAction},
    protocol::{
        BASE, Party,
        extension::{self, Half, HalvesRequest},
    },
    receipt::{Commit, Kind},
    vault::{CopyRow, CopyState, Plain},
};

pub(in crate::exchange) use self::{
    decide::{How, extent, why_not},
    delete::key_destroyed,
    target::Target,
};
pub use self::{
    hand::{Handed, Handover, HandoverState},
    watch::OpenUses,
};

/// What a local application asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UseRequest {
    /// The copy, or the dataset or agreement whose newest copy is meant; or a derived dataset.
    pub of: String,
    /// What for.
    pub purpose: String,
    /// Which use.
    #[serde(default = "read_action")]
    pub action: String,
    /// Which registered application; none: whoever asks reads it.
    #[serde(default)]
    pub application: Option<String>,
}

/// How a use is handed over, besides what the registration says.
#[derive(Clone, Debug)]
pub struct Handing {
    /// Where the request came from, where it came over a connection.
    pub from: Option<IpAddr>,
    /// Whether what an application writes is thrown away.
    pub quiet: bool,
    /// How long a file that was handed out stays.
    pub keep_seconds: u64,
    /// What was done first.
    pub first: First,
}

/// What a use shows of what has to be done first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct First {
    /// Statements that are accepted, word for word.
    pub accepts: BTreeSet<String>,
    /// The acting person, as enrolled here.
    pub person: Option<String>,
    /// That person's one-time code.
    pub code: Option<String>,
}

impl First {
    fn shown(&self) -> Shown<'_> {
        Shown { accepts: Some(&self.accepts), person: self.person.as_deref(), code: self.code.as_deref() }
    }
}

impl Default for Handing {
    fn default() -> Self {
        Self { from: None, quiet: false, keep_seconds: 3600, first: First::default() }
    }
}

fn read_action() -> String {
    UseAction::Read.as_str().to_owned()
}

/// A use that was allowed, and its stream: the plaintext, or what the application makes of it.
#[derive(Debug)]
pub struct Used {
    /// The copy.
    pub copy: CopyId,
    /// Its dataset.
    pub dataset: DatasetId,
    /// The use's number in our series.
    pub number: u64,
    /// Bytes of plaintext.
    pub length: u64,
    /// The handing over to an application.
    pub handover: Option<crate::id::ReceiptId>,
    /// The stream, in blocks.
    pub data: Plain,
}

/// How a copy stands, for people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyView {
    /// The copy.
    pub id: CopyId,
    /// Its dataset.
    pub dataset: DatasetId,
    /// Its agreement.
    pub agreement: AgreementId,
    /// Where it stands.
    pub state: CopyState,
    /// Bytes of plaintext.
    pub bytes: u64,
    /// Records, where they could be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
}

impl From<CopyRow> for CopyView {
    fn from(row: CopyRow) -> Self {
        let records = row.contents.as_ref().and_then(|contents| contents.records);
        Self { id: row.id, dataset: row.dataset, agreement: row.agreement, state: row.state, bytes: row.bytes, records }
    }
}

/// The use of this name, if it is one that opens or ends a copy.
fn use_action(name: &str) -> Result<UseAction, Refusal> {
    let Some(action) = UseAction::parse(name) else {
        let known: Vec<&str> = UseAction::ALL.iter().map(|action| action.as_str()).collect();
        let sentence = format!("`{name}` is not a use; known are {}", known.join(", "));
        return Err(Refusal::new("action-unknown", sentence));
    };
    match action.reach() {
        Reach::Vault => Ok(action),
        Reach::Promise => Err(Refusal::new(
            "action-not-a-use",
            format!(
                "`{name}` ({}) needs no copy to be opened: what an agreement says of it is a promise in the contract, and no connector carries it out; use a copy by another action, such as read",
                action.zh()
            ),
        )),
    }
}

impl Exchange {
    /// Decides a use, records it, and opens the copy: a stream, of the plaintext or of what an application on a pipe
    /// makes of it. Uses without one are not done: [`Exchange::hand_over`] does them.
    pub async fn use_copy(&self, request: &UseRequest) -> Result<Used, Refusal> {
        match self.hand_over_if(request, &Handing::default(), true).await? {
            Handed::Stream(used) => Ok(used),
            _ => Err(without_stream()),
        }
    }

    /// Decides a use, records it, and hands the copy over as the registration of the application says; or deletes it.
    pub async fn hand_over(&self, request: &UseRequest, handing: &Handing) -> Result<Handed, Refusal> {
        self.hand_over_if(request, handing, false).await
    }

    /// Sends our half of something to the partner, in the commit that made it.
    pub(in crate::exchange) fn tell_half(
        &self,
        commit: &mut Commit,
        agreement: &AgreementRow,
        process: &Pid,
        kind: Kind,
        jws: jws::Jws,
    ) -> Result<(), Refusal> {
        let Some(peer) = self.peers.by_did(agreement.peer()) else { return Ok(()) };
        let half = Half { agreement: agreement.id().clone(), kind: kind.as_str().to_owned(), logged: unplaced(jws) };
        let body = serde_json::to_value(HalvesRequest { halves: vec![half] }).map_err(refuse("internal"))?;
        self.letter(
            commit,
            Draft {
                peer: agreement.peer(),
                process,
                about: About::Notice,
                url: format!("{}{BASE}{}", peer.statement.endpoints.dsp, extension::receipts_path()),
                body,
                last: true,
                token: None,
            },
        )
    }

    /// The consumer's agreements.
    pub async fn agreements(&self) -> Result<Vec<AgreementRow>, Refusal> {
        let rows =
            crate::receipt::list::<AgreementRow>(&*self.store, crate::agreement::PREFIX.as_bytes(), None, 100_000)
                .await
                .map_err(refuse("store-unreadable"))?;
        let mut agreements: Vec<AgreementRow> = rows.into_iter().filter_map(|row| row.value).collect();
        agreements.sort_by_key(|row| row.agreement.valid_from);
        Ok(agreements)
    }
}

fn destroyed() -> Refusal {
    Refusal::new("copy-without-key", "the copy can't be opened: its key was never handed over, or was destroyed")
}

/// Whether we are this agreement's consumer.
pub(in crate::exchange) fn consumes(agreement: &AgreementRow) -> bool {
    agreement.ours == Party::Consumer
}

fn without_stream() -> Refusal {
    Refusal::new(
        "use-without-stream",
        "this use gives no stream: ask for it where a file, an answer or a deletion can be told",
    )
}
