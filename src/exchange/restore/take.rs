//! Theirs, to us: a partner whose store was restored gets back what we hold, and its new log is followed from then on.

use serde_json::json;

use crate::{
    agreement::AgreementRow,
    crypto::unb64,
    error::Refusal,
    exchange::{
        Exchange, refuse, retry,
        witness::{Evidence, ended_key, seen_key},
    },
    identity::Peer,
    protocol::extension::{Announcement, Half, LoggedReceipt, Lost, MAX_HALVES, RestorationAnswer, RestorationRequest},
    receipt::{
        Commit, Filter, Kind, LogProof, PeerCheckpoint, Receipt,
        checkpoint::{Checkpoint, epoch_of, origin},
        entry, read,
        witness::Seen,
    },
};

use super::{other, shared};

/// A `restored` receipt that holds.
struct Announced {
    receipt: Receipt,
    prior: PeerCheckpoint,
    epoch: u64,
    checkpoint: Checkpoint,
    note: String,
}

impl Exchange {
    /// `POST restorations`: checked, put on record once, answered each time.
    pub(in crate::exchange) async fn take_restoration(
        &self,
        peer: &Peer,
        request: RestorationRequest,
    ) -> Result<RestorationAnswer, Refusal> {
        let epoch = self.take_announcement(peer, &request.announcement).await?;
        match &request.lost {
            None => {
                let (witnessed, announcement) = (self.witnessed_of(&peer.did).await?, self.own_announcement().await?);
                Ok(RestorationAnswer { witnessed, announcement, ..RestorationAnswer::default() })
            }
            Some(lost) => self.give_back(peer, epoch, lost).await,
        }
    }

    /// Follows a log that a partner began by a restore; gives its number.
    pub(super) async fn take_announcement(&self, peer: &Peer, announcement: &Announcement) -> Result<u64, Refusal> {
        let announced = self.check_restored(peer, announcement)?;
        let followed = self.witnesses.followed(&peer.did);
        if announced.epoch < followed {
            let sentence = format!("`{}` began log {followed} since; log {} is over", peer.did, announced.epoch);
            return Err(Refusal::new("log-superseded", sentence));
        }
        if announced.epoch > followed {
            retry!(self.follow_restored(peer, &announcement.restored, &announced))?;
            return Ok(announced.epoch);
        }
        self.compare_with_seen(peer, &announced.checkpoint, &announced.note).await?;
        let seen = self.seen_log(&announced.checkpoint.origin).await?;
        let first = seen.and_then(|seen| seen.restored);
        if let Some(first) = first.filter(|first| *first != announcement.restored.receipt) {
            let sentence = format!("`{}` began its log {} twice", peer.did, announced.epoch);
            let shown = &announcement.restored;
            let objects = [first.as_str(), shown.receipt.as_str(), &shown.proof].map(str::to_owned).to_vec();
            self.alarm(peer, Evidence { code: "log-forked", sentence: sentence.clone(), proven: true, objects })
                .await?;
            return Err(Refusal::new("log-forked", sentence));
        }
        Ok(announced.epoch)
    }

    /// Signed by the partner now, and the first entry of a log of its own that it calls later than the one before.
    fn check_restored(&self, peer: &Peer, announcement: &Announcement) -> Result<Announced, Refusal> {
        let unproven = |why: &str| Refusal::new("restore-unproven", format!("the restore is not proven: {why}"));
        let logged = &announcement.restored;
        let receipt = crate::receipt::verify(&logged.receipt, &peer.did, |kid| self.peers.current_key(kid))
            .map_err(refuse("receipt-signature"))?
            .into_payload();
        let prior = receipt
            .prior_log
            .clone()
            .filter(|_| receipt.kind == Kind::Restored && receipt.series == "node" && receipt.consumer.is_none());
        let prior = prior.ok_or_else(|| unproven("its receipt does not say which log was before"))?;
        let tag: Option<[u8; 32]> = unb64(&announcement.tag).ok().and_then(|tag| tag.try_into().ok());
        let tag = tag.ok_or_else(|| unproven("its tag is not 32 bytes"))?;
        let proof = LogProof::parse(&logged.proof).map_err(|error| unproven(&error.to_string()))?;
        let claimed = Checkpoint::claimed(&proof.checkpoint).map_err(|error| unproven(&error.to_string()))?;
        let epoch = epoch_of(&claimed.origin, &peer.did).filter(|epoch| *epoch > prior.epoch);
        let epoch = epoch.ok_or_else(|| unproven("it is not in a later log of the sender's"))?;
        let checkpoint = proof
            .verify(&entry(&tag, &logged.receipt.sha256()), &claimed.origin, &peer.statement.keys.log)
            .map_err(|error| unproven(&error.to_string()))?;
        if proof.index != 0 {
            return Err(unproven("it is not the first entry of its log"));
        }
        let note = checkpoint.bare(&proof.checkpoint);
        Ok(Announced { receipt, prior, epoch, checkpoint, note })
    }

    /// From now on it is the new log that we witness; that it is another, and what we knew of the old one, is on record.
    async fn follow_restored(&self, peer: &Peer, logged: &LoggedReceipt, announced: &Announced) -> Result<(), Refusal> {
        let log = origin(&peer.did, announced.epoch);
        let row = read::<Seen>(&*self.store, &seen_key(&log)).await.map_err(refuse("store-unreadable"))?;
        if row.value.is_some() {
            return Ok(());
        }
        // each new log costs us rows that stay
        if !self.refusals.within_budget(&peer.did.clone().into(), self.clock.now()) {
            return Err(Refusal::new("busy", "too many logs in one minute; announce it again later"));
        }
        let known = self.witnesses.newest(&peer.did);
        self.prior_is_known(peer, logged, announced).await?;
        let mut commit = Commit::new();
        // nothing is added to what was before: as long as we saw it, or as the partner says
        for (epoch, size) in [(announced.prior.epoch, announced.prior.size)]
            .into_iter()
            .chain(known.iter().map(|known| (known.epoch, known.size)))
        {
            let log = origin(&peer.did, epoch);
            let seen = self.seen_log(&log).await?.map_or(0, |seen| seen.size);
            commit.put_blind(ended_key(&log), &seen.max(size)).map_err(refuse("internal"))?;
        }
        let mut receipt = self.receipt(Kind::Restored, None);
        receipt.consumer = Some(peer.did.clone().into());
        receipt.refers = Some(logged.receipt.sha256());
        receipt.reason.clone_from(&announced.receipt.reason);
        receipt.prior_log.clone_from(&known);
        self.node_receipt(&mut commit, receipt)?;
        let data = json!({ "peer": peer.did, "log": log, "before": announced.prior, "known": known });
        self.announce(&mut commit, "org.counterseal.restored", peer.did.as_str(), data);
        let seen = Seen {
            origin: log,
            size: announced.checkpoint.size,
            root: announced.checkpoint.root,
            note: announced.note.clone(),
            doubtful: None,
            restored: Some(logged.receipt.clone()),
        };
        commit.put(&row, &seen).map_err(refuse("internal"))?;
        tracing::warn!(peer = %peer.did, "this partner was restored from a backup; its receipts go on in another log");
        self.commit(commit).await.map(|_| ())
    }

    /// Where it says what was before, that is what we cosigned at that size.
    async fn prior_is_known(&self, peer: &Peer, logged: &LoggedReceipt, announced: &Announced) -> Result<(), Refusal> {
        let seen = self.seen_log(&origin(&peer.did, announced.prior.epoch)).await?;
        let Some(seen) = seen.filter(|seen| seen.size == announced.prior.size && seen.root != announced.prior.root)
        else {
            return Ok(());
        };
        let sentence = format!("`{}` signed two different logs of {} entries", peer.did, seen.size);
        let objects = vec![seen.note, logged.receipt.as_str().to_owned()];
        self.alarm(peer, Evidence { code: "log-forked", sentence, proven: true, objects }).await
    }

    /// A page of its receipts that we hold, and of our own that it should.
    async fn give_back(&self, peer: &Peer, newest: u64, lost: &Lost) -> Result<RestorationAnswer, Refusal> {
        let unknown = || Refusal::new("agreement-unknown", "there is no such agreement with this participant");
        let (_, agreement) = self.agreement(&lost.agreement).await.map_err(|_| unknown())?;
        if *agreement.peer() != peer.did {
            return Err(unknown());
        }
        let theirs: Vec<&str> = shared(other(agreement.ours)).iter().map(|kind| kind.as_str()).collect();
        let mut own: Vec<((u64, u64), Half)> = Vec::new();
        for half in self.receipts.halves(agreement.id()).await.map_err(refuse("store-unreadable"))? {
            let epoch = half.log().and_then(|log| epoch_of(&log, &peer.did)).filter(|epoch| *epoch < newest);
            if let (true, Some(epoch), Some(number), Some(proof)) =
                (theirs.contains(&half.kind.as_str()), epoch, half.number, half.proof)
                && number >= lost.known.get(&epoch).copied().unwrap_or(0)
            {
                let logged = LoggedReceipt { receipt: half.jws, number, proof };
                own.push(((epoch, number), Half { agreement: half.agreement, kind: half.kind, logged }));
            }
        }
        own.sort_by_key(|(place, _)| *place);
        let own = own.into_iter().map(|(_, half)| half).take(MAX_HALVES).collect();
        let (mine, after) = self.own_since(&agreement, lost.after).await?;
        Ok(RestorationAnswer { own, mine, after, ..RestorationAnswer::default() })
    }

    /// Our own receipts of an agreement that the partner keeps too, from a place on, and where to go on after them.
    async fn own_since(&self, agreement: &AgreementRow, place: u64) -> Result<(Vec<Half>, Option<u64>), Refusal> {
        let filter = Filter { agreement: Some(agreement.id().clone()), ..Filter::default() };
        let page = self.receipts.list(&filter, place, MAX_HALVES).await.map_err(refuse("store-unreadable"))?;
        let after = page.last().filter(|_| page.len() == MAX_HALVES).map(|last| last.index + 1);
        let mut mine = Vec::new();
        for stored in page.iter().filter(|stored| stored.receipt.series == agreement.id().as_str()) {
            if shared(agreement.ours).contains(&stored.receipt.kind) {
                let kind = stored.receipt.kind.as_str().to_owned();
                let logged = self.logged(&stored.jws).await?;
                mine.push(Half { agreement: agreement.id().clone(), kind, logged });
            }
        }
        Ok((mine, after))
    }
}
