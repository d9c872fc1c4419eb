//! Theirs, to us: a partner whose store was restored gets back what we hold, and its new log is followed from then on.

use serde_json::json;

use crate::{
    agreement::AgreementRow,
    crypto::unb64,
    error::Refusal,
    exchange::{Exchange, refuse, retry, witness::seen_key},
    identity::Peer,
    protocol::extension::{Half, LoggedReceipt, Lost, MAX_HALVES, RestorationAnswer, RestorationRequest},
    receipt::{
        Commit, Filter, Kind, LogProof, PeerCheckpoint, Receipt,
        checkpoint::{Checkpoint, epoch_of, origin},
        entry, read,
        witness::Seen,
    },
};

use super::{other, shared};

/// Receipts read at a time.
const PAGE: usize = 256;

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
        let announced = self.check_restored(peer, &request)?;
        let followed = self.witnesses.followed(&peer.did);
        if announced.epoch < followed {
            let sentence = format!("`{}` began log {followed} since; log {} is over", peer.did, announced.epoch);
            return Err(Refusal::new("log-superseded", sentence));
        }
        if announced.epoch == followed {
            self.compare_with_seen(peer, &announced.checkpoint, &announced.note).await?;
        } else {
            retry!(self.follow_restored(peer, &request.restored, &announced))?;
        }
        match &request.lost {
            None => {
                let seen = self.seen_log(&origin(&peer.did, announced.prior.epoch)).await?;
                Ok(RestorationAnswer { witnessed: seen.map(|seen| seen.note), ..RestorationAnswer::default() })
            }
            Some(lost) => self.give_back(peer, announced.prior.epoch, lost).await,
        }
    }

    /// Signed by the partner now, and the first entry of a log of its own that it calls later than the one before.
    fn check_restored(&self, peer: &Peer, request: &RestorationRequest) -> Result<Announced, Refusal> {
        let unproven = |why: &str| Refusal::new("restore-unproven", format!("the restore is not proven: {why}"));
        let logged = &request.restored;
        let receipt = crate::receipt::verify(&logged.receipt, &peer.did, |kid| self.peers.current_key(kid))
            .map_err(refuse("receipt-signature"))?
            .into_payload();
        let prior = receipt
            .prior_log
            .clone()
            .filter(|_| receipt.kind == Kind::Restored && receipt.series == "node" && receipt.consumer.is_none());
        let prior = prior.ok_or_else(|| unproven("its receipt does not say which log was before"))?;
        let tag: Option<[u8; 32]> = unb64(&request.tag).ok().and_then(|tag| tag.try_into().ok());
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
        Ok(Announced { receipt, prior, epoch, checkpoint, note: proof.checkpoint })
    }

    /// From now on it is the new log that we witness; that it is another, and what we knew of the old one, is on record.
    async fn follow_restored(&self, peer: &Peer, logged: &LoggedReceipt, announced: &Announced) -> Result<(), Refusal> {
        let log = origin(&peer.did, announced.epoch);
        let row = read::<Seen>(&*self.store, &seen_key(&log)).await.map_err(refuse("store-unreadable"))?;
        if row.value.is_some() {
            return Ok(());
        }
        let known = self.witnesses.newest(&peer.did);
        let mut commit = Commit::new();
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
        };
        commit.put(&row, &seen).map_err(refuse("internal"))?;
        tracing::warn!(peer = %peer.did, "this partner was restored from a backup; its receipts go on in another log");
        self.commit(commit).await.map(|_| ())
    }

    /// A page of its receipts that we hold, and of our own that it should.
    async fn give_back(&self, peer: &Peer, prior: u64, lost: &Lost) -> Result<RestorationAnswer, Refusal> {
        let unreadable = refuse("store-unreadable");
        let unknown = || Refusal::new("agreement-unknown", "there is no such agreement with this participant");
        let (_, agreement) = self.agreement(&lost.agreement).await.map_err(|_| unknown())?;
        if *agreement.peer() != peer.did {
            return Err(unknown());
        }
        let log = origin(&peer.did, prior);
        let theirs: Vec<&str> = shared(other(agreement.ours)).iter().map(|kind| kind.as_str()).collect();
        let mut own: Vec<Half> = Vec::new();
        for half in self.receipts.halves(agreement.id()).await.map_err(&unreadable)? {
            let of_log = theirs.contains(&half.kind.as_str()) && half.log().as_ref() == Some(&log);
            if let (true, Some(number), Some(proof)) = (of_log, half.number, half.proof)
                && number >= lost.own
            {
                let logged = LoggedReceipt { receipt: half.jws, number, proof };
                own.push(Half { agreement: half.agreement, kind: half.kind, logged });
            }
        }
        own.sort_by_key(|half| half.logged.number);
        let mut mine = self.own_since(&agreement, lost.yours).await?;
        let more = own.len() > MAX_HALVES || mine.len() > MAX_HALVES;
        own.truncate(MAX_HALVES);
        mine.truncate(MAX_HALVES);
        Ok(RestorationAnswer { witnessed: None, own, mine, more })
    }

    /// Our own receipts of an agreement that the partner keeps too, from a number on; one more than goes into an answer.
    async fn own_since(&self, agreement: &AgreementRow, number: u64) -> Result<Vec<Half>, Refusal> {
        let unreadable = refuse("store-unreadable");
        let filter = Filter { agreement: Some(agreement.id().clone()), ..Filter::default() };
        let mut from = self.log.now().await.map_err(&unreadable)?.first;
        let mut mine = Vec::new();
        while mine.len() <= MAX_HALVES {
            let page = self.receipts.list(&filter, from, PAGE).await.map_err(&unreadable)?;
            let Some(last) = page.last() else { break };
            from = last.index + 1;
            let wanted = page.iter().filter(|stored| stored.receipt.series == agreement.id().as_str());
            for stored in wanted.filter(|stored| stored.number >= number) {
                if shared(agreement.ours).contains(&stored.receipt.kind) {
                    let kind = stored.receipt.kind.as_str().to_owned();
                    let logged = self.logged(&stored.jws).await?;
                    mine.push(Half { agreement: agreement.id().clone(), kind, logged });
                }
            }
        }
        Ok(mine)
    }
}
