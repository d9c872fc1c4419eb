//! Revoke: a provider ends an agreement; a consumer that learns of it destroys its keys.

use crate::{
    agreement::{AgreementRow, AgreementState, Status},
    crypto::jws::{self, Kid, Typ},
    error::Refusal,
    exchange::{
        Exchange,
        open::Process,
        refuse, retry,
        rows::About,
        use_copy::{consumes, key_destroyed},
    },
    id::{AgreementId, Did, Pid},
    identity::{Peer, PeerState},
    protocol::{
        Party,
        extension::{Half, HalvesRequest, StatusAnswer},
    },
    receipt::{Commit, Kind, Receipt, read},
};
use std::time::Duration;

/// Kinds whose halves are sent on their own.
const TOLD: &[Kind] = &[Kind::Used, Kind::Deleted, Kind::Revoked, Kind::Reported];

impl Exchange {
    // === the provider ===

    /// Ends an agreement: no release, no stream, no key from this commit on; the consumer is told.
    pub async fn revoke_agreement(&self, id: &AgreementId, reason: &str) -> Result<(), Refusal> {
        let done = retry!(self.revoke_once(id, reason));
        self.post();
        done
    }

    async fn revoke_once(&self, id: &AgreementId, reason: &str) -> Result<(), Refusal> {
        let (row, mut agreement) = self.agreement(id).await?;
        if agreement.ours != Party::Provider {
            return Err(Refusal::new("agreement-not-ours", "only its provider can revoke an agreement"));
        }
        if agreement.state == AgreementState::Revoked {
            return Err(Refusal::new("agreement-revoked", format!("agreement {id} was revoked before")));
        }
        let why = Refusal::new("agreement-revoked", reason.chars().take(500).collect::<String>());
        agreement.state = AgreementState::Revoked;
        agreement.ended = Some(why.clone());
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Revoked, Some(&agreement));
        receipt.reason = Some(why.clone());
        let jws = self.agreement_receipt(&mut commit, &agreement, receipt)?;
        self.tell_half(&mut commit, &agreement, &agreement.negotiation, Kind::Revoked, jws)?;
        for pid in self.running_transfers(|process| process.agreement.as_ref() == Some(id)) {
            self.terminate_transfer(&mut commit, &pid, &why).await?;
        }
        commit.put(&row, &agreement).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }

    /// Revokes a peer: its connections are cut, and it is nobody at its next request.
    pub async fn revoke_peer(&self, did: &Did, reason: &str) -> Result<(), Refusal> {
        let row = read::<Peer>(&*self.store, &Peer::key(did)).await.map_err(refuse("store-unreadable"))?;
        let Some(mut peer) = row.value.clone() else {
            return Err(Refusal::new("peer-unknown", format!("`{did}` is not a peer")));
        };
        peer.state = PeerState::Revoked;
        let why = Refusal::new("peer-revoked", reason.chars().take(500).collect::<String>());
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Revoked, None);
        receipt.consumer = Some(did.clone().into());
        receipt.reason = Some(why.clone());
        self.node_receipt(&mut commit, receipt)?;
        for pid in self.running_transfers(|process| process.peer == *did) {
            self.terminate_transfer(&mut commit, &pid, &why).await?;
        }
        commit.put(&row, &peer).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        self.clients.forget(&did.clone().into());
        for spki in &peer.statement.tls {
            self.connections.cut(spki);
        }
        Ok(())
    }

    pub(super) fn running_transfers(&self, of: impl Fn(&Process) -> bool) -> Vec<Pid> {
        let transfers = self.open_processes.that(|process| process.about == About::Transfer && of(process));
        transfers.into_iter().map(|process| process.pid).collect()
    }

    /// The signed state of an agreement, for its consumer.
    pub(super) async fn status_for(&self, peer: &Did, id: &AgreementId) -> Result<StatusAnswer, Refusal> {
        let unknown = || Refusal::new("agreement-unknown", "there is no such agreement of this participant");
        let (_, agreement) = self
            .agreement(id)
            .await
            .map_err(|refusal| if refusal.is("agreement-unknown") { unknown() } else { refusal })?;
        if agreement.ours != Party::Provider || agreement.peer() != peer {
            return Err(unknown());
        }
        let now = self.clock.now();
        let state = match agreement.in_force(now) {
            Err(refusal) if refusal.is("agreement-expired") => AgreementState::Expired,
            _ => agreement.state,
        };
        let status = Status {
            v: 1,
            agreement: id.clone(),
            state,
            issued_at: now,
            valid_until: now.plus(Duration::from_secs(agreement.agreement.freshness_seconds)),
        };
        let status = jws::sign(Typ::Status, &self.keys.signing_kid(), &self.keys.signing, &status)
            .map_err(refuse("internal"))?;
        Ok(StatusAnswer { status })
    }

    // === halves, and what they tell ===

    /// Keeps the partner's halves; a `revoked` by the provider ends the agreement here.
    pub(super) async fn take_halves(&self, peer: &Peer, body: HalvesRequest) -> Result<(), Refusal> {
        for half in body.halves {
            let unknown = || Refusal::new("agreement-unknown", "there is no such agreement with this participant");
            let (_, agreement) = self
                .agreement(&half.agreement)
                .await
                .map_err(|refusal| if refusal.is("agreement-unknown") { unknown() } else { refusal })?;
            if *agreement.peer() != peer.did {
                return Err(unknown());
            }
            let receipt = retry!(self.take_half(&agreement, peer, &half))?;
            if receipt.kind == Kind::Revoked && consumes(&agreement) {
                let why =
                    receipt.reason.unwrap_or_else(|| Refusal::new("agreement-revoked", "the provider gave no reason"));
                self.learn_of_revocation(&half.agreement, why).await?;
            }
        }
        self.post();
        Ok(())
    }

    async fn take_half(&self, agreement: &AgreementRow, peer: &Peer, half: &Half) -> Result<Receipt, Refusal> {
        let key = |kid: &Kid| self.peers.verifying_key(kid);
        let checked = self.check_half(agreement, peer, TOLD, &half.logged, key).await?;
        if checked.receipt.kind.as_str() != half.kind {
            return Err(Refusal::new("receipt-mismatch", "the receipt is not what it is said to be"));
        }
        let mut commit = Commit::new();
        self.keep_half(&mut commit, &checked)?;
        if checked.new {
            self.mark_duty(&mut commit, agreement, &checked.receipt).await?;
        }
        self.commit(commit).await?;
        Ok(checked.receipt)
    }

    /// The consumer knows: nothing is used any more, and the keys of its copies are destroyed.
    pub(super) async fn learn_of_revocation(&self, id: &AgreementId, why: Refusal) -> Result<(), Refusal> {
        self.end_agreement(id, AgreementState::Revoked, why).await
    }

    /// Ends the consumer's side of an agreement, and destroys the keys of its copies.
    async fn end_agreement(&self, id: &AgreementId, state: AgreementState, why: Refusal) -> Result<(), Refusal> {
        retry!(self.mark_ended(id, state, &why))?;
        for copy in self.copies(Some(id)).await? {
            let why = key_destroyed();
            self.destroy_copy(copy, None, why).await?;
        }
        self.finish_derived().await
    }

    /// Destroys keys of copies under agreements that are over: those whose time has come, and what a crash left undone.
    pub async fn finish_ended(&self) -> Result<(), Refusal> {
        let now = self.clock.now();
        for agreement in self.agreements().await?.iter().filter(|agreement| consumes(agreement)) {
            let over = agreement.agreement.valid_until.is_some_and(|until| now >= until);
            let state = match agreement.state {
                AgreementState::Active if over => AgreementState::Expired,
                AgreementState::Active | AgreementState::Pending => continue,
                ended => ended,
            };
            let why = agreement.ended.clone().unwrap_or_else(|| Refusal::new("agreement-expired", "its time is over"));
            // one that can't be ended now keeps no other from its end
            if let Err(refusal) = self.end_agreement(agreement.id(), state, why).await {
                tracing::error!(agreement = %agreement.id(), %refusal, "an agreement could not be ended; it is tried again");
            }
        }
        self.finish_derived().await?;
        self.post();
        Ok(())
    }

    async fn mark_ended(&self, id: &AgreementId, state: AgreementState, why: &Refusal) -> Result<(), Refusal> {
        let (row, mut agreement) = self.agreement(id).await?;
        if matches!(agreement.state, AgreementState::Revoked) || agreement.state == state {
            return Ok(());
        }
        agreement.state = state;
        agreement.ended = Some(why.clone());
        let mut commit = Commit::new();
        commit.put(&row, &agreement).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }
}
