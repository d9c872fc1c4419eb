//! Restore: after a backup was put back, partners say what they know of the receipts that were lost with the old store.
//!
//! The old log may have grown past what the backup holds, so receipts go on in a new one, whose first entry is `restored`
//! and names the old one. Then each partner is told, and gives back what it holds: our receipts that the backup lacks, from
//! which the counts are made again, and its own. One more `restored` receipt for each names the old log's highest
//! checkpoint that it had cosigned. Until a partner has answered, nothing is decided under agreements with it.

mod take;

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    agreement::{AgreementRow, AgreementState},
    crypto::b64,
    error::Refusal,
    exchange::{Exchange, fetch::parsed, refuse, retry, use_copy::consumes},
    id::{AgreementId, ParticipantId, ReleaseId},
    identity::Peer,
    protocol::{
        BASE, Party,
        extension::{Half, LoggedReceipt, Lost, RestorationAnswer, RestorationRequest, restorations_path},
        outgoing,
    },
    receipt::{
        Commit, Kind, LogProof, Mirror, PartnerHalf, PeerCheckpoint, Receipt,
        checkpoint::{Checkpoint, origin},
        entry, list, read, row_key,
    },
    time::Timestamp,
};

/// Where it lies that a store was restored.
pub const RESTORED: &[u8] = b"self/restored";
/// Partners that have not been asked yet.
pub const WAITING: &str = "rc/";
/// Receipts of ours that only partners kept.
const RECOVERED: &str = "hr/";

/// What was restored, and when it was backed up.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The log as the backup has it.
    pub prior: PeerCheckpoint,
    /// When the backup was made.
    pub backed_up: Timestamp,
    /// Whether the new log says so.
    pub recorded: bool,
}

/// A partner that is to be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Waiting {
    /// Who.
    pub partner: ParticipantId,
}

impl Waiting {
    /// The row's key.
    pub fn key(partner: &ParticipantId) -> Vec<u8> {
        row_key(WAITING, &[partner.as_str()])
    }
}

/// Partners that have not said yet what they know; follows the store.
#[derive(Default)]
pub struct Restorations(Mutex<HashSet<ParticipantId>>);

impl Mirror for Restorations {
    fn applied(&self, key: &[u8], value: Option<&[u8]>) {
        if !key.starts_with(WAITING.as_bytes()) {
            return;
        }
        match value.map(serde_json::from_slice::<Waiting>) {
            Some(Ok(waiting)) => drop(self.locked().insert(waiting.partner)),
            Some(Err(error)) => tracing::error!(%error, "a row of a restoration can't be read"),
            None => self.locked().retain(|partner| Waiting::key(partner) != key),
        }
    }
}

impl Restorations {
    /// Refuses as long as this partner has not said what it knows.
    pub fn over(&self, partner: &ParticipantId) -> Result<(), Refusal> {
        if !self.locked().contains(partner) {
            return Ok(());
        }
        Err(Refusal::new(
            "restore-unfinished",
            format!(
                "this connector was restored from a backup, and `{partner}` has not said yet what it knows of the receipts that \
                 were lost; it is asked again and again. If it can't be reached any more, a steward may go on with what the \
                 backup holds: `counterseal restore accept {partner}`"
            ),
        ))
    }

    /// All of them.
    pub fn waiting(&self) -> Vec<ParticipantId> {
        let mut waiting: Vec<_> = self.locked().iter().cloned().collect();
        waiting.sort();
        waiting
    }

    fn locked(&self) -> MutexGuard<'_, HashSet<ParticipantId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks partners until all have answered.
pub struct Restorer(Exchange);

impl Restorer {
    /// Over these walks.
    pub const fn new(exchange: Exchange) -> Self {
        Self(exchange)
    }

    /// Asks those that wait, again and again, until there are none or it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut attempt = 0;
        loop {
            let waiting = self.0.restorations.waiting();
            if waiting.is_empty() {
                return;
            }
            for partner in waiting {
                let asked = tokio::select! {
                    () = stop.cancelled() => return,
                    asked = self.0.recover(&partner) => asked,
                };
                match asked {
                    Ok(lost) => tracing::info!(%partner, lost, "what was lost with the old store is known again"),
                    Err(refusal) => tracing::warn!(%partner, %refusal, "the restore is not finished with this partner"),
                }
            }
            let pause = outgoing::backoff(attempt).max(Duration::from_secs(1));
            attempt += 1;
            if tokio::time::timeout(pause, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }
}

/// What each party's half is of, that the other keeps.
const fn shared(party: Party) -> &'static [Kind] {
    match party {
        Party::Provider => &[Kind::Released, Kind::Delivered, Kind::Revoked],
        Party::Consumer => &[Kind::Acknowledged, Kind::Opened, Kind::Disputed, Kind::Used, Kind::Deleted],
    }
}

const fn other(party: Party) -> Party {
    match party {
        Party::Provider => Party::Consumer,
        Party::Consumer => Party::Provider,
    }
}

impl Exchange {
    /// The first receipt of a new log: that there is one, and which was before it.
    pub(super) async fn record_restored(&self) -> Result<(), Refusal> {
        let row = read::<Restored>(&*self.store, RESTORED).await.map_err(refuse("store-unreadable"))?;
        let Some(restored) = row.value.clone().filter(|restored| !restored.recorded) else { return Ok(()) };
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Restored, None);
        receipt.prior_log = Some(restored.prior.clone());
        receipt.reason =
            Some(Refusal::new("store-restored", format!("restored from a backup of {}", restored.backed_up)));
        self.node_receipt(&mut commit, receipt)?;
        commit.put(&row, &Restored { recorded: true, ..restored }).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }

    /// A steward says that a partner is not waited for any more: the backup's counts are to count.
    pub async fn accept_restoration(&self, partner: &ParticipantId) -> Result<(), Refusal> {
        if self.restorations.over(partner).is_ok() {
            let sentence = format!("nothing waits for what `{partner}` knows");
            return Err(Refusal::new("restore-not-waiting", sentence));
        }
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Restored, None);
        receipt.consumer = Some(partner.clone());
        receipt.reason = Some(Refusal::new("restore-accepted", "a steward goes on with what the backup holds"));
        self.node_receipt(&mut commit, receipt)?;
        commit.delete_blind(Waiting::key(partner));
        self.commit(commit).await.map(|_| ())
    }

    /// Asks one partner. Gives the number of receipts of ours that came back.
    async fn recover(&self, partner: &ParticipantId) -> Result<u64, Refusal> {
        let unreadable = refuse("store-unreadable");
        let peer = self.peer(partner)?;
        let row = read::<Restored>(&*self.store, RESTORED).await.map_err(&unreadable)?;
        let prior = row.value.ok_or_else(|| Refusal::new("internal", "nothing was restored"))?.prior;
        let first = self.log.now().await.map_err(&unreadable)?.first;
        let missing = || Refusal::new("receipt-missing", "the new log has no first receipt");
        let stored = self.receipts.at(first).await.map_err(&unreadable)?.ok_or_else(missing)?;
        let request =
            RestorationRequest { restored: self.logged(&stored.jws).await?, tag: b64(&stored.tag), lost: None };
        let answer = self.ask_restoration(&peer, &request).await?;
        let log = origin(&self.us, prior.epoch);
        let witnessed = answer.witnessed.map(|note| Checkpoint::verify(&note, &log, &self.keys.log.public()));
        let witnessed = witnessed.transpose().map_err(refuse("restore-answer"))?;
        if witnessed.as_ref().is_some_and(|known| known.size == prior.size && known.root != prior.root) {
            let sentence = format!("`{partner}` has cosigned another log of ours than the one that was backed up");
            return Err(Refusal::new("log-forked", sentence));
        }
        let mut lost = 0;
        for agreement in self.agreements().await?.iter().filter(|agreement| agreement.peer() == partner) {
            lost += self.recover_agreement(&peer, agreement.id(), &prior, &request).await?;
        }
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Restored, None);
        receipt.consumer = Some(partner.clone());
        receipt.prior_log =
            witnessed.map(|known| PeerCheckpoint { epoch: prior.epoch, size: known.size, root: known.root });
        receipt.counted = Some(lost);
        self.node_receipt(&mut commit, receipt)?;
        commit.delete_blind(Waiting::key(partner));
        self.announce(
            &mut commit,
            "org.counterseal.restored",
            partner.as_str(),
            json!({ "peer": partner, "recovered": lost }),
        );
        self.commit(commit).await?;
        // it knows our new log now
        self.owe_witnesses().await?;
        Ok(lost)
    }

    async fn ask_restoration(&self, peer: &Peer, request: &RestorationRequest) -> Result<RestorationAnswer, Refusal> {
        let url = format!("{}{BASE}{}", peer.statement.endpoints.dsp, restorations_path());
        let body = serde_json::to_vec(request).map_err(refuse("internal"))?;
        parsed(&self.ask(peer, Method::POST, &url, None, Some(&body)).await?)
    }

    /// Page by page; what came back before a crash is known when it is asked again.
    async fn recover_agreement(
        &self,
        peer: &Peer,
        id: &AgreementId,
        prior: &PeerCheckpoint,
        request: &RestorationRequest,
    ) -> Result<u64, Refusal> {
        let (_, agreement) = self.agreement(id).await?;
        let unreadable = refuse("store-unreadable");
        let own = self.receipts.series_length(prior.epoch, &agreement.series_key()).await.map_err(&unreadable)?;
        let theirs = origin(&peer.did, self.witnesses.followed(&peer.did));
        let halves = self.receipts.halves(id).await.map_err(&unreadable)?;
        let known = halves.iter().filter(|half| half.log().as_ref() == Some(&theirs)).filter_map(|half| half.number);
        let yours = known.max().map_or(0, |number| number + 1);
        let mut lost = Lost { agreement: id.clone(), own, yours };
        let mut recovered = 0;
        loop {
            let request = RestorationRequest { lost: Some(lost.clone()), ..request.clone() };
            let answer = self.ask_restoration(peer, &request).await?;
            recovered += retry!(self.keep_recovered(peer, id, prior, &answer))?;
            let next = |halves: &[Half], before| halves.last().map_or(before, |half| half.logged.number + 1);
            let after =
                Lost { own: next(&answer.own, lost.own), yours: next(&answer.mine, lost.yours), ..lost.clone() };
            if !answer.more {
                return Ok(recovered);
            }
            if after == lost {
                return Err(Refusal::new("restore-answer", "there is said to be more, and nothing comes"));
            }
            lost = after;
        }
    }

    /// One page of what a partner gave back, checked and kept, and what it does to counts and state, in one commit.
    async fn keep_recovered(
        &self,
        peer: &Peer,
        id: &AgreementId,
        prior: &PeerCheckpoint,
        answer: &RestorationAnswer,
    ) -> Result<u64, Refusal> {
        let (row, mut agreement) = self.agreement(id).await?;
        let mut commit = Commit::new();
        let mut recovered = 0;
        let mut seen = HashSet::new();
        for half in &answer.own {
            let receipt = self.check_recovered(&agreement, prior, &half.logged)?;
            let sha256 = half.logged.receipt.sha256();
            let key = row_key(RECOVERED, &[id.as_str(), &sha256.to_string()]);
            let known = read::<PartnerHalf>(&*self.store, &key).await.map_err(refuse("store-unreadable"))?;
            let here = self.receipts.by_sha256(&sha256).await.map_err(refuse("store-unreadable"))?;
            if known.value.is_some() || here.is_some() || !seen.insert(sha256) {
                continue;
            }
            apply(&mut agreement, &receipt);
            let kept = PartnerHalf {
                agreement: id.clone(),
                kind: receipt.kind.as_str().to_owned(),
                jws: half.logged.receipt.clone(),
                number: Some(half.logged.number),
                proof: Some(half.logged.proof.clone()),
            };
            commit.put_new(key, &kept).map_err(refuse("internal"))?;
            recovered += 1;
        }
        let mut ended = None;
        for half in &answer.mine {
            let kinds = shared(other(agreement.ours));
            let key = |kid: &_| self.peers.verifying_key(kid);
            let checked = self.check_half(&agreement, peer, kinds, &half.logged, key).await?;
            if !seen.insert(half.logged.receipt.sha256()) {
                continue;
            }
            self.keep_half(&mut commit, &checked)?;
            if checked.receipt.kind == Kind::Revoked {
                ended = Some(checked.receipt.reason);
            }
        }
        commit.put(&row, &agreement).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        if let Some(why) = ended.filter(|_| consumes(&agreement)) {
            let unsaid = || Refusal::new("agreement-revoked", "the provider gave no reason");
            self.learn_of_revocation(id, why.unwrap_or_else(unsaid)).await?;
        }
        Ok(recovered)
    }

    /// A receipt of our own that we don't have: signed by us, in our old log, in our series.
    fn check_recovered(
        &self,
        agreement: &AgreementRow,
        prior: &PeerCheckpoint,
        logged: &LoggedReceipt,
    ) -> Result<Receipt, Refusal> {
        let receipt = crate::receipt::verify(&logged.receipt, &self.us, |kid| self.verifying_key(kid))
            .map_err(refuse("receipt-signature"))?
            .into_payload();
        if receipt.agreement.as_ref() != Some(agreement.id()) || !shared(agreement.ours).contains(&receipt.kind) {
            return Err(Refusal::new("receipt-mismatch", "the receipt is not of this agreement, or not of this side"));
        }
        let tag = agreement.series_key().tag(logged.number);
        LogProof::parse(&logged.proof)
            .and_then(|proof| {
                let log = origin(&self.us, prior.epoch);
                proof.verify(&entry(&tag, &logged.receipt.sha256()), &log, &self.keys.log.public())
            })
            .map_err(refuse("receipt-unproven"))?;
        Ok(receipt)
    }

    /// Receipts of ours under an agreement that only the partner kept.
    pub async fn recovered(&self, id: &AgreementId) -> Result<Vec<PartnerHalf>, Refusal> {
        let rows = list::<PartnerHalf>(&*self.store, RECOVERED.as_bytes(), None, 1_000_000)
            .await
            .map_err(refuse("store-unreadable"))?;
        let mut recovered: Vec<_> =
            rows.into_iter().filter_map(|row| row.value).filter(|half| half.agreement == *id).collect();
        recovered.sort_by_key(|half| half.number);
        Ok(recovered)
    }
}

/// What a receipt of ours that came back does to the agreement: what it spent is spent, what it ended is over.
fn apply(agreement: &mut AgreementRow, receipt: &Receipt) {
    let closes = |open: Option<&ReleaseId>| open.is_some() && open == receipt.release.as_ref();
    match receipt.kind {
        Kind::Released => agreement.releases += 1,
        Kind::Delivered if closes(agreement.open.as_ref().map(|open| &open.id)) => agreement.open = None,
        Kind::Used => {
            if let Some(action) = &receipt.action {
                *agreement.uses.entry(action.clone()).or_default() += 1;
            }
        }
        Kind::Revoked => {
            agreement.state = AgreementState::Revoked;
            agreement.ended.clone_from(&receipt.reason);
        }
        _ => {}
    }
}
