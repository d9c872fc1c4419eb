//! Use: a local application reads a copy, if the agreement's policy and a fresh status allow it.

use std::io::{self, Write};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{
    agreement::{AgreementRow, AgreementState, Extent, KnownStatus, Question, Status, decide, principal_of_party},
    crypto::jws::{self, Typ},
    error::Refusal,
    exchange::{Exchange, catalog::parsed, halves::unplaced, outbox::Draft, refuse, retry, rows::About},
    id::{AgreementId, CopyId, DatasetId, Pid},
    policy::{Action, UseAction, Verdict},
    protocol::{
        BASE, Party,
        extension::{self, Half, HalvesRequest, StatusAnswer},
    },
    receipt::{Commit, Kind},
    vault::{CopyRow, CopyState},
};

/// What a local application asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UseRequest {
    /// The copy, or the dataset or agreement whose newest copy is meant.
    pub of: String,
    /// What for.
    pub purpose: String,
    /// Which use.
    #[serde(default = "read_action")]
    pub action: String,
    /// Which application.
    #[serde(default)]
    pub application: Option<String>,
}

fn read_action() -> String {
    UseAction::Read.as_str().to_owned()
}

/// A use that was allowed, and its plain stream.
#[derive(Debug)]
pub struct Used {
    /// The copy.
    pub copy: CopyId,
    /// Its dataset.
    pub dataset: DatasetId,
    /// The use's number in our series.
    pub number: u64,
    /// Bytes that will come.
    pub length: u64,
    /// The plaintext, in blocks.
    pub data: mpsc::Receiver<io::Result<Bytes>>,
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
}

impl From<CopyRow> for CopyView {
    fn from(row: CopyRow) -> Self {
        Self { id: row.id, dataset: row.dataset, agreement: row.agreement, state: row.state, bytes: row.bytes }
    }
}

impl Exchange {
    /// Decides a use, records it, and opens the copy.
    pub async fn use_copy(&self, request: &UseRequest) -> Result<Used, Refusal> {
        let action = UseAction::parse(&request.action).ok_or_else(|| {
            let known: Vec<&str> = UseAction::ALL.iter().map(|action| action.as_str()).collect();
            Refusal::new("action-unknown", format!("`{}` is not a use; known are {}", request.action, known.join(", ")))
        })?;
        let copy = self.copy_of(&request.of).await?;
        let number = retry!(self.use_once(&copy, action, request))?;
        self.post();
        let keying = self.vault.keying(&copy.id).map_err(refuse("vault-unreadable"))?.ok_or_else(destroyed)?;
        let (sender, data) = mpsc::channel(4);
        let (vault, id, segments) = (self.vault.clone(), copy.id.clone(), copy.segments.clone());
        tokio::task::spawn_blocking(move || {
            let mut out = ToChannel(sender.clone());
            if let Err(error) = vault.open_copy(&id, &keying, &segments, &mut out) {
                let _ = sender.blocking_send(Err(io::Error::other(error)));
            }
        });
        Ok(Used { copy: copy.id, dataset: copy.dataset, number, length: copy.bytes, data })
    }

    async fn use_once(&self, copy: &CopyRow, action: UseAction, request: &UseRequest) -> Result<u64, Refusal> {
        self.may_decide()?;
        let (_, agreement) = self.agreement(&copy.agreement).await?;
        self.restorations.over(agreement.peer())?;
        if agreement.state == AgreementState::Active && !agreement.status_is_fresh(self.clock.now()) {
            self.refresh_status(&copy.agreement).await?;
        }
        let (row, agreement) = self.agreement(&copy.agreement).await?;
        let now = self.clock.now();
        if let Err(refusal) = agreement.in_force(now) {
            return self.deny_use(&agreement, copy, action, None, refusal).await;
        }
        if copy.state != CopyState::Held {
            return Err(destroyed());
        }
        let offer = self.agreed_offer(&agreement)?;
        let slice = self.agreed_slice(&agreement, &offer)?;
        let decision = decide(
            &slice,
            &Question {
                agreement: Some(&agreement),
                purpose: Some(&request.purpose),
                ..Question::new(Action::Use(action), principal_of_party(&agreement.agreement.consumer), &offer, now)
            },
        );
        if decision.verdict != Verdict::Allow {
            let refusal = decision
                .reason
                .clone()
                .unwrap_or_else(|| Refusal::new("policy-no-permit", "the policy did not allow it"));
            return self.deny_use(&agreement, copy, action, Some((&decision, &request.purpose)), refusal).await;
        }
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Used, Some(&agreement));
        receipt.action = Some(action.as_str().to_owned());
        receipt.release.clone_from(&copy.release);
        receipt.refers = copy.released.as_ref().map(jws::Jws::sha256);
        self.record_decision(&mut commit, &mut receipt, &decision);
        self.record_commitment(&mut commit, &mut receipt, "purpose", request.purpose.as_bytes());
        if let Some(application) = &request.application {
            self.record_commitment(&mut commit, &mut receipt, "application", application.as_bytes());
        }
        let jws = self.agreement_receipt(&mut commit, &agreement, receipt)?;
        let mut spent = agreement.clone();
        let amount = Extent { bytes: copy.bytes, records: None }.once();
        spent.uses.entry(action.as_str().to_owned()).or_default().spend(amount, now, offer.policy.zone);
        commit.put(&row, &spent).map_err(refuse("internal"))?;
        self.tell_half(&mut commit, &agreement, &copy.transfer, Kind::Used, jws)?;
        let committed = self.commit(commit).await?;
        Ok(committed.receipts.first().map_or(0, |placed| placed.number))
    }

    async fn deny_use<T>(
        &self,
        agreement: &AgreementRow,
        copy: &CopyRow,
        action: UseAction,
        decision: Option<(&crate::policy::Decision, &str)>,
        refusal: Refusal,
    ) -> Result<T, Refusal> {
        if self.refusals.within_budget(&self.us.clone().into(), self.clock.now()) {
            let mut commit = Commit::new();
            let mut receipt = self.receipt(Kind::Denied, Some(agreement));
            receipt.action = Some(action.as_str().to_owned());
            receipt.release.clone_from(&copy.release);
            if let Some((decision, purpose)) = decision {
                self.record_decision(&mut commit, &mut receipt, decision);
                self.record_commitment(&mut commit, &mut receipt, "purpose", purpose.as_bytes());
            }
            receipt.reason = Some(refusal.clone());
            self.agreement_receipt(&mut commit, agreement, receipt)?;
            self.commit(commit).await?;
        }
        Err(refusal)
    }

    /// The copy with this id, or the newest one held of this dataset or agreement.
    async fn copy_of(&self, of: &str) -> Result<CopyRow, Refusal> {
        let copies = self.all_copies().await?;
        let matches =
            |copy: &&CopyRow| copy.id.as_str() == of || copy.dataset.as_str() == of || copy.agreement.as_str() == of;
        let mut found: Vec<&CopyRow> = copies.iter().filter(matches).collect();
        // held ones first, then the newest
        found.sort_by_key(|copy| (copy.state == CopyState::Held, copy.begun));
        found.pop().cloned().ok_or_else(|| {
            Refusal::new("copy-unknown", format!("no copy of `{of}` is in the vault; get one with `counterseal fetch`"))
        })
    }

    /// Asks the provider how an agreement stands.
    pub(super) async fn refresh_status(&self, id: &AgreementId) -> Result<(), Refusal> {
        let (_, agreement) = self.agreement(id).await?;
        let stale = |why: String| {
            Refusal::new(
                "status-stale",
                format!(
                    "the provider's last word on agreement {id} is older than its freshness limit of {} s, and there is no newer one: {why}",
                    agreement.agreement.freshness_seconds
                ),
            )
        };
        let peer = self.peer(agreement.peer())?;
        let url = format!("{}{BASE}{}", peer.statement.endpoints.dsp, extension::status_path(id));
        let answer =
            self.ask(&peer, reqwest::Method::GET, &url, None, None).await.map_err(|refusal| stale(refusal.sentence))?;
        let answer: StatusAnswer = parsed(&answer).map_err(|refusal| stale(refusal.sentence))?;
        let status = jws::verify::<Status>(&answer.status, Typ::Status, &peer.did, |kid| self.peers.current_key(kid))
            .map_err(|error| stale(error.to_string()))?;
        let now = self.clock.now();
        if status.payload().agreement != *id || now >= status.payload().valid_until {
            return Err(stale("what it sent is about another agreement, or over".into()));
        }
        if status.payload().state == AgreementState::Revoked {
            return self
                .learn_of_revocation(id, Refusal::new("agreement-revoked", "the provider revoked the agreement"))
                .await;
        }
        retry!(self.keep_status(id, status.payload(), &answer.status))
    }

    async fn keep_status(&self, id: &AgreementId, status: &Status, jws: &jws::Jws) -> Result<(), Refusal> {
        let (row, mut agreement) = self.agreement(id).await?;
        // an older statement replayed never replaces a newer one
        if agreement.status.as_ref().is_some_and(|known| known.status.issued_at > status.issued_at) {
            return Ok(());
        }
        agreement.status = Some(KnownStatus { status: status.clone(), received: self.clock.now(), jws: jws.clone() });
        let mut commit = Commit::new();
        commit.put(&row, &agreement).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }

    /// Sends our half of something to the partner, in the commit that made it.
    pub(super) fn tell_half(
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
pub(super) fn consumes(agreement: &AgreementRow) -> bool {
    agreement.ours == Party::Consumer
}

struct ToChannel(mpsc::Sender<io::Result<Bytes>>);

impl Write for ToChannel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            self.0
                .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
                .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the application went away"))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
