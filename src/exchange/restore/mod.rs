//! Restore: after a backup was put back, partners say what they know of the receipts that were lost with the old store.
//!
//! The old log may have grown past what the backup holds, so receipts go on in a new one, whose first entry is `restored`
//! and names the old one. Then each partner is told, and gives back what it holds: our receipts that the backup lacks, from
//! which the counts are made again, and its own. One more `restored` receipt for each names the old log's highest
//! checkpoint that it had cosigned. Until a partner has answered, nothing is decided under agreements with it.

mod take;
mod waiting;

use std::collections::{BTreeMap, HashSet};

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    agreement::{AgreementRow, AgreementState, ApprovalRow, Approver, ConsentRow, SubjectRow, Tally, subject_key},
    crypto::b64,
    dataplane::{ReleaseRow, ReleaseState},
    error::Refusal,
    exchange::{Exchange, catalog::parsed, refuse, retry, use_copy::consumes},
    id::{AgreementId, ParticipantId, ReleaseId, Sha256},
    identity::Peer,
    offer::Extent,
    policy::{Action, Amount},
    protocol::{
        BASE, Party,
        extension::{
            Announcement, LoggedReceipt, Lost, MAX_HALVES, RestorationAnswer, RestorationRequest, restorations_path,
        },
    },
    receipt::{
        Commit, Epoch, Kind, LogProof, PartnerHalf, PeerCheckpoint, Receipt,
        checkpoint::{Checkpoint, epoch_of},
        entry, list, read, row_key,
    },
    time::{Timestamp, Zone},
    vault::CopyRow,
};

pub use self::waiting::{Restorations, Restorer, WAITING, Waiting};

/// Where it lies that a store was restored.
pub const RESTORED: &[u8] = b"self/restored";
/// Receipts of ours that only partners kept.
const RECOVERED: &str = "hr/";
/// The most pages about one agreement.
const MOST: usize = 100_000;

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

/// What each party's half is of, that the other keeps.
const fn shared(party: Party) -> &'static [Kind] {
    match party {
        Party::Provider => &[Kind::Released, Kind::Delivered, Kind::Revoked],
        Party::Consumer => {
            &[Kind::Acknowledged, Kind::Opened, Kind::Disputed, Kind::Used, Kind::Deleted, Kind::Reported]
        }
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
        // which of these were used, withdrawn or removed since the backup, no partner can say: they are put on record anew
        for prefix in [ApprovalRow::PREFIX, ConsentRow::PREFIX, Approver::PREFIX] {
            let rows =
                self.store.scan(prefix.as_bytes(), None, usize::MAX).await.map_err(refuse("store-unreadable"))?;
            rows.into_iter().for_each(|(key, _)| commit.delete_blind(key));
        }
        commit.put(&row, &Restored { recorded: true, ..restored }).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }

    /// A steward says that a partner is not waited for any more: the backup's counts are to count. It is asked all the
    /// same, if it can be.
    pub async fn accept_restoration(&self, partner: &ParticipantId) -> Result<(), Refusal> {
        if self.restorations.over(partner).is_ok() {
            let waiting = self.restorations.waiting();
            let waiting = waiting.iter().map(ParticipantId::as_str).collect::<Vec<_>>().join(", ");
            let sentence = format!(
                "nothing waits for what `{partner}` knows; {}",
                if waiting.is_empty() { "nobody is waited for".to_owned() } else { format!("waited for: {waiting}") }
            );
            return Err(Refusal::new("restore-not-waiting", sentence));
        }
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Restored, None);
        receipt.consumer = Some(partner.clone());
        receipt.reason = Some(Refusal::new("restore-accepted", "a steward goes on with what the backup holds"));
        self.node_receipt(&mut commit, receipt)?;
        match self.peers.by_did(partner) {
            Some(_) => {
                let waiting = Waiting { partner: partner.clone(), accepted: true };
                commit.put_blind(Waiting::key(partner), &waiting).map_err(refuse("internal"))?;
            }
            None => commit.delete_blind(Waiting::key(partner)),
        }
        self.commit(commit).await?;
        self.post();
        Ok(())
    }

    /// Our log, if it was begun by a restore: for partners who don't know it yet.
    async fn own_announcement(&self) -> Result<Option<Announcement>, Refusal> {
        let unreadable = refuse("store-unreadable");
        let log = self.log.now().await.map_err(&unreadable)?;
        if log.epoch == 1 {
            return Ok(None);
        }
        let missing = || Refusal::new("receipt-missing", "the new log has no first receipt");
        let stored = self.receipts.at(log.first).await.map_err(&unreadable)?.ok_or_else(missing)?;
        Ok(Some(Announcement { restored: self.logged(&stored.jws).await?, tag: b64(&stored.tag) }))
    }

    /// Tells a partner of our log, and asks nothing.
    pub(super) async fn announce_log(&self, peer: &Peer) -> Result<(), Refusal> {
        if let Some(announcement) = self.own_announcement().await? {
            self.ask_restoration(peer, &RestorationRequest { announcement, lost: None }).await?;
        }
        Ok(())
    }

    /// A peer that is added after a restore has to know our log before anything else.
    pub(super) async fn tell_new_peer(&self, commit: &mut Commit, peer: &ParticipantId) -> Result<(), Refusal> {
        if self.log.epoch().await.map_err(refuse("store-unreadable"))? > 1 {
            let waiting = Waiting { partner: peer.clone(), accepted: false };
            commit.put_blind(Waiting::key(peer), &waiting).map_err(refuse("internal"))?;
        }
        Ok(())
    }

    /// Asks one partner. Gives the number of receipts of ours that came back.
    async fn recover(&self, partner: &ParticipantId) -> Result<u64, Refusal> {
        let unreadable = refuse("store-unreadable");
        let peer = self.peer(partner)?;
        let missing = || Refusal::new("internal", "no restore began this log");
        let announcement = self.own_announcement().await?.ok_or_else(missing)?;
        let request = RestorationRequest { announcement, lost: None };
        let answer = self.ask_restoration(&peer, &request).await?;
        if let Some(announcement) = &answer.announcement {
            self.take_announcement(&peer, announcement).await?;
        }
        let epochs = self.log.epochs().await.map_err(&unreadable)?;
        let witnessed = self.witnessed_before(&answer.witnessed, &epochs);
        for known in &witnessed {
            self.not_forked(partner, known, &epochs).await?;
        }
        let mut lost = 0;
        for agreement in self.agreements().await?.iter().filter(|agreement| agreement.peer() == partner) {
            // what only we have signed, nobody else has receipts of
            let whole = agreement.by_provider.is_some() && agreement.by_consumer.is_some() && !agreement.one_sided;
            if whole {
                lost += self.recover_agreement(&peer, agreement, &epochs, &request).await?;
            }
        }
        let mut commit = Commit::new();
        // one for each log that this partner knows, the newest first, which also says how much came back
        let mut known: Vec<Option<PeerCheckpoint>> = witnessed.into_iter().map(Some).collect();
        known.sort_by_key(|known| std::cmp::Reverse(known.as_ref().map(|known| known.epoch)));
        if known.is_empty() {
            known.push(None);
        }
        for (at, prior_log) in known.into_iter().enumerate() {
            let mut receipt = self.receipt(Kind::Restored, None);
            receipt.consumer = Some(partner.clone());
            receipt.prior_log = prior_log;
            receipt.counted = (at == 0).then_some(lost);
            self.node_receipt(&mut commit, receipt)?;
        }
        commit.delete_blind(Waiting::key(partner));
        let data = json!({ "peer": partner, "recovered": lost });
        self.announce(&mut commit, "org.counterseal.restored", partner.as_str(), data);
        self.commit(commit).await?;
        // it knows our new log now: what waited for that goes out
        self.post();
        self.owe_witnesses().await?;
        Ok(lost)
    }

    /// What a partner shows that it cosigned of our earlier logs; what we did not sign is nothing.
    fn witnessed_before(&self, notes: &[String], epochs: &[Epoch]) -> Vec<PeerCheckpoint> {
        let newest = epochs.last().map_or(1, |newest| newest.epoch);
        let signed = notes.iter().filter_map(|note| {
            let claimed = Checkpoint::claimed(note).ok()?;
            let epoch = epoch_of(&claimed.origin, &self.us).filter(|epoch| *epoch < newest)?;
            let known = Checkpoint::verify(note, &claimed.origin, &self.keys.log.public()).ok()?;
            Some(PeerCheckpoint { epoch, size: known.size, root: known.root })
        });
        signed.collect()
    }

    /// What a partner cosigned of a log that we have is that log.
    async fn not_forked(
        &self,
        partner: &ParticipantId,
        known: &PeerCheckpoint,
        epochs: &[Epoch],
    ) -> Result<(), Refusal> {
        let unreadable = refuse("store-unreadable");
        let Some(ours) = epochs.iter().find(|ours| ours.epoch == known.epoch && ours.size >= known.size) else {
            return Ok(());
        };
        let Some(log) = self.log.of_epoch(ours.epoch).await.map_err(&unreadable)? else { return Ok(()) };
        if log.root(known.size).await.map_err(&unreadable)? == known.root {
            return Ok(());
        }
        let sentence = format!("`{partner}` has cosigned another log of ours than the one that was backed up");
        Err(Refusal::new("log-forked", sentence))
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
        agreement: &AgreementRow,
        epochs: &[Epoch],
        request: &RestorationRequest,
    ) -> Result<u64, Refusal> {
        let mut lost = Lost { agreement: agreement.id().clone(), known: BTreeMap::new(), after: 0 };
        for Epoch { epoch, .. } in epochs.iter().rev().skip(1) {
            let count = self.receipts.series_length(*epoch, &agreement.series_key()).await;
            lost.known.insert(*epoch, count.map_err(refuse("store-unreadable"))?);
        }
        let newest = epochs.last().map_or(1, |newest| newest.epoch);
        let mut recovered = 0;
        for _ in 0..MOST {
            let request = RestorationRequest { lost: Some(lost.clone()), ..request.clone() };
            let answer = match self.ask_restoration(peer, &request).await {
                // it was agreed on, and the partner has let go of it: it holds no receipt of it
                Err(refusal) if refusal.is("not-found") => break,
                answer => answer?,
            };
            recovered += retry!(self.keep_recovered(peer, agreement.id(), newest, &answer))?;
            let before = lost.clone();
            for half in &answer.own {
                if let Some(epoch) = LogProof::log_of(&half.logged.proof).and_then(|log| epoch_of(&log, &self.us)) {
                    let known = lost.known.entry(epoch).or_default();
                    *known = (*known).max(half.logged.number.saturating_add(1));
                }
            }
            lost.after = answer.after.unwrap_or(before.after).max(before.after);
            if answer.own.len() < MAX_HALVES && answer.after.is_none() {
                break;
            }
            if lost == before {
                return Err(Refusal::new("restore-answer", "there is said to be more, and nothing comes"));
            }
        }
        // whatever was kept before a crash and not acted upon
        let halves = self.receipts.halves(agreement.id()).await.map_err(refuse("store-unreadable"))?;
        if consumes(agreement)
            && let Some(revoked) = halves.iter().find(|half| half.kind == Kind::Revoked.as_str())
        {
            let unsaid = || Refusal::new("agreement-revoked", "the provider gave no reason");
            let why = crate::evidence::claimed(&revoked.jws).and_then(|receipt| receipt.reason).unwrap_or_else(unsaid);
            self.learn_of_revocation(agreement.id(), why).await?;
        }
        Ok(recovered)
    }

    /// One page of what a partner gave back, checked and kept, and what it does to counts and state, in one commit. What
    /// doesn't hold is nothing: it neither counts nor keeps the rest from counting.
    async fn keep_recovered(
        &self,
        peer: &Peer,
        id: &AgreementId,
        newest: u64,
        answer: &RestorationAnswer,
    ) -> Result<u64, Refusal> {
        let unreadable = refuse("store-unreadable");
        let (row, mut agreement) = self.agreement(id).await?;
        let offer = self.agreed_offer(&agreement)?;
        let zone = offer.policy.zone;
        let offered = agreement.source.as_ref().and_then(|pin| pin.extent).or(offer.dataset.extent);
        let copies = if consumes(&agreement) { self.all_copies().await? } else { Vec::new() };
        let subject_key = subject_key(&agreement.agreement.consumer.id, &agreement.agreement.dataset);
        let subject = read::<SubjectRow>(&*self.store, &subject_key).await.map_err(&unreadable)?;
        let mut tallies = subject.value.clone().unwrap_or_default();
        let mut commit = Commit::new();
        let mut recovered = 0;
        let mut seen = HashSet::new();
        for half in &answer.own {
            let receipt = match self.check_recovered(&agreement, newest, &half.logged) {
                Ok(receipt) => receipt,
                Err(refusal) => {
                    tracing::warn!(peer = %peer.did, %refusal, "what a partner gave back as ours is not ours");
                    continue;
                }
            };
            let sha256 = half.logged.receipt.sha256();
            let key = recovered_key(id, &sha256);
            let known = read::<PartnerHalf>(&*self.store, &key).await.map_err(&unreadable)?;
            let here = self.receipts.by_sha256(&sha256).await.map_err(&unreadable)?;
            if known.value.is_some() || here.is_some() || !seen.insert(sha256) {
                continue;
            }
            let amount = most(offered, &copies, receipt.release.as_ref()).once();
            apply(&mut agreement, &mut tallies, &receipt, amount, zone);
            if receipt.kind == Kind::Delivered
                && let Some(release) = &receipt.release
            {
                self.close_delivered(&mut commit, &agreement, release).await?;
            }
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
        let mut places = HashSet::new();
        for half in &answer.mine {
            let kinds = shared(other(agreement.ours));
            let key = |kid: &_| self.peers.verifying_key(kid);
            let checked = match self.check_half(&agreement, peer, kinds, &half.logged, key).await {
                Ok(checked) => checked,
                Err(refusal) => {
                    tracing::warn!(peer = %peer.did, %refusal, "a receipt of a partner's does not hold");
                    continue;
                }
            };
            // two with one number in one answer: the second is found out when it comes alone
            if seen.insert(half.logged.receipt.sha256())
                && places.insert((LogProof::log_of(&half.logged.proof), half.logged.number))
            {
                self.keep_half(&mut commit, &checked)?;
                if checked.new {
                    self.mark_duty(&mut commit, &agreement, &checked.receipt).await?;
                }
            }
        }
        if recovered > 0 {
            commit.put(&subject, &tallies).map_err(refuse("internal"))?;
        }
        commit.put(&row, &agreement).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        Ok(recovered)
    }

    /// A release that the backup has open was delivered since: it does not lapse.
    async fn close_delivered(
        &self,
        commit: &mut Commit,
        agreement: &AgreementRow,
        release: &ReleaseId,
    ) -> Result<(), Refusal> {
        let key = ReleaseRow::key(release);
        let row = read::<ReleaseRow>(&*self.store, &key).await.map_err(refuse("store-unreadable"))?;
        if let Some(open) = row.value.clone().filter(|row| row.state == ReleaseState::Open) {
            self.begin_duties(commit, agreement, release, open.released.sha256(), open.duties)?;
            commit.put(&row, &ReleaseRow { state: ReleaseState::Delivered, ..open }).map_err(refuse("internal"))?;
        }
        Ok(())
    }

    /// A receipt of our own that we don't have: signed by us, in an earlier log of ours, in our series.
    fn check_recovered(
        &self,
        agreement: &AgreementRow,
        newest: u64,
        logged: &LoggedReceipt,
    ) -> Result<Receipt, Refusal> {
        let receipt = crate::receipt::verify(&logged.receipt, &self.us, |kid| self.verifying_key(kid))
            .map_err(refuse("receipt-signature"))?
            .into_payload();
        if receipt.agreement.as_ref() != Some(agreement.id()) || !shared(agreement.ours).contains(&receipt.kind) {
            return Err(Refusal::new("receipt-mismatch", "the receipt is not of this agreement, or not of this side"));
        }
        let log = LogProof::log_of(&logged.proof).unwrap_or_default();
        let epoch = epoch_of(&log, &self.us).filter(|epoch| *epoch < newest);
        let epoch = epoch.ok_or_else(|| Refusal::new("receipt-unproven", "it is in no earlier log of ours"))?;
        let tag = agreement.series_key().in_epoch(epoch).tag(logged.number);
        LogProof::parse(&logged.proof)
            .and_then(|proof| proof.verify(&entry(&tag, &logged.receipt.sha256()), &log, &self.keys.log.public()))
            .map_err(refuse("receipt-unproven"))?;
        Ok(receipt)
    }

    /// Receipts of ours under an agreement that only the partner kept.
    pub(super) async fn recovered(&self, id: &AgreementId) -> Result<Vec<PartnerHalf>, Refusal> {
        let prefix = row_key(RECOVERED, &[id.as_str()]);
        let rows =
            list::<PartnerHalf>(&*self.store, &prefix, None, usize::MAX).await.map_err(refuse("store-unreadable"))?;
        Ok(rows.into_iter().filter_map(|row| row.value).collect())
    }
}

fn recovered_key(agreement: &AgreementId, sha256: &Sha256) -> Vec<u8> {
    [&row_key(RECOVERED, &[agreement.as_str()])[..], sha256.as_bytes()].concat()
}

/// How much a release or a use was about is not in its receipt: the most that it can have been is what is offered, or what
/// we hold of that release, where that is more.
fn most(offered: Option<Extent>, copies: &[CopyRow], release: Option<&ReleaseId>) -> Extent {
    let held = copies.iter().filter(|copy| release.is_some() && copy.release.as_ref() == release);
    held.fold(offered.unwrap_or_default(), |most, copy| Extent {
        bytes: most.bytes.max(copy.bytes),
        records: most.records.max(copy.contents.as_ref().and_then(|contents| contents.records)),
    })
}

/// What a receipt of ours that came back does to the agreement: what it spent is spent, what it ended is over.
fn apply(agreement: &mut AgreementRow, tallies: &mut SubjectRow, receipt: &Receipt, amount: Amount, zone: Zone) {
    let mut spend = |tally: &mut Tally, action: &str| {
        tally.spend(amount, receipt.time, zone);
        tallies.entry(action.to_owned()).or_default().spend(amount, receipt.time, zone);
    };
    let closes = |open: Option<&ReleaseId>| open.is_some() && open == receipt.release.as_ref();
    match receipt.kind {
        Kind::Released => spend(&mut agreement.releases, Action::Release.as_str()),
        Kind::Delivered if closes(agreement.open.as_ref().map(|open| &open.id)) => agreement.open = None,
        Kind::Used => {
            if let Some(action) = &receipt.action {
                spend(agreement.uses.entry(action.clone()).or_default(), action);
            }
        }
        Kind::Revoked => {
            agreement.state = AgreementState::Revoked;
            agreement.ended.clone_from(&receipt.reason);
        }
        _ => {}
    }
}
