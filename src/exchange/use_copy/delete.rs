//! Destroying: because an agreement ended, a duty fell due, or the consumer gave a copy up.

use std::collections::BTreeSet;

use crate::{
    agreement::Software,
    crypto::jws::Jws,
    error::Refusal,
    exchange::{
        Exchange, Handing, UseRequest,
        fetch::Held,
        refuse, retry,
        use_copy::{How, Target, decide::why_not, destroyed, hand::Handed},
    },
    id::OfferId,
    policy::{Decision, UseAction, Verdict},
    receipt::{Commit, Kind},
    vault::{CopyRow, CopyState, DerivedRow},
};

/// Policy errors that may hide a `forbid`.
const UNDECIDED: [&str; 3] = ["fact-missing", "fact-mistyped", "policy-error"];

/// Why a copy can't be opened any more, as the receipt says it.
pub(in crate::exchange) fn key_destroyed() -> Refusal {
    Refusal::new(
        "key-destroyed",
        "the keying material of this copy was overwritten and removed; what remains is ciphertext",
    )
}

impl Exchange {
    /// Gives a copy, or a derived dataset, up: its key is destroyed, and the provider told. That is no use of the data, so
    /// that no permit is needed; but a policy that forbids it (a retention) is kept to.
    pub(super) async fn delete(
        &self,
        target: Target,
        request: &UseRequest,
        handing: &Handing,
    ) -> Result<Handed, Refusal> {
        self.may_decide()?;
        if target.state() == CopyState::Destroyed {
            return Err(destroyed());
        }
        let software = Software::default();
        let how = How {
            action: UseAction::Delete,
            purpose: &request.purpose,
            software: &software,
            method: "01",
            from: handing.from,
            shown: handing.first.shown(),
        };
        let mut decisions = Vec::new();
        for (id, copies) in target.by_agreement() {
            let answer = self.answer(&target, &id, &copies, &how, false).await?;
            let hidden = answer.decision.reason.as_ref().is_some_and(|why| UNDECIDED.iter().any(|code| why.is(code)));
            if answer.decision.verdict == Verdict::Deny || hidden {
                let refusal = why_not(&answer.decision);
                return self.deny_use(&answer.agreement, answer.copy, &how, Some(&answer.decision), refusal).await;
            }
            decisions.push(answer.decision);
        }
        let (id, dataset) =
            (target.id().ok_or_else(destroyed)?.clone(), target.dataset().ok_or_else(destroyed)?.clone());
        match target.derived {
            Some(row) => self.destroy_derived(&row, "its owner gave it up").await?,
            None => {
                let held =
                    self.copies(None).await?.into_iter().find(|copy| copy.value().id == id).ok_or_else(destroyed)?;
                let why = key_destroyed();
                let decision = decisions.first().map(|decision| (decision, request.purpose.as_str()));
                self.destroy_copy(held, decision, why).await?;
            }
        }
        self.post();
        Ok(Handed::Deleted { copy: id, dataset })
    }

    /// Destroys the key of a copy, says so to the provider, and keeps the receipt. With a decision it was given up.
    pub(in crate::exchange) async fn destroy_copy(
        &self,
        copy: Held,
        given_up: Option<(&Decision, &str)>,
        why: Refusal,
    ) -> Result<(), Refusal> {
        // first of all: a crash leaves a row that says more than there is, never a key that it doesn't know
        self.vault.destroy(&copy.value().id).map_err(refuse("vault-unreadable"))?;
        if copy.value().state == CopyState::Destroyed {
            return Ok(());
        }
        let (_, agreement) = self.agreement(&copy.value().agreement).await?;
        let row = CopyRow { state: CopyState::Destroyed, given_up: given_up.is_some(), ..copy.value().clone() };
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Deleted, Some(&agreement));
        receipt.release.clone_from(&row.release);
        receipt.refers = row.released.as_ref().map(Jws::sha256);
        if let Some((decision, purpose)) = given_up {
            receipt.action = Some(UseAction::Delete.as_str().to_owned());
            self.record_decision(&mut commit, &mut receipt, decision);
            self.record_commitment(&mut commit, &mut receipt, "purpose", purpose.as_bytes());
        }
        receipt.reason = Some(why);
        let jws = self.agreement_receipt(&mut commit, &agreement, receipt)?;
        self.tell_half(&mut commit, &agreement, &row.transfer, Kind::Deleted, jws)?;
        self.keep(copy, row, commit).await.map(|_| ())
    }

    /// Destroys the key of a derived dataset, says so to each provider, and withdraws the offers that brought it onward.
    /// May be asked again: it does what is left to do.
    pub(in crate::exchange) async fn destroy_derived(&self, derived: &DerivedRow, why: &str) -> Result<(), Refusal> {
        self.vault.destroy(&derived.copy).map_err(refuse("vault-unreadable"))?;
        retry!(self.record_derived_gone(derived, why))?;
        self.withdraw_onward(derived).await
    }

    async fn record_derived_gone(&self, derived: &DerivedRow, why: &str) -> Result<(), Refusal> {
        let row = self.derived_row(&derived.dataset).await?;
        // under this id there may be what somebody else registered, who was faster: that is not over
        let Some(now) = row.value.clone().filter(|now| now.copy == derived.copy && now.state != CopyState::Destroyed)
        else {
            return Ok(());
        };
        let mut commit = Commit::new();
        for (id, copies) in self.derived_target(now.clone()).await?.by_agreement() {
            let (_, agreement) = self.agreement(&id).await?;
            let mut receipt = self.receipt(Kind::Deleted, Some(&agreement));
            receipt.reason = Some(Refusal::new(
                "derived-destroyed",
                format!("data derived from what came under this agreement was destroyed with its key: {why}"),
            ));
            self.record_commitment(&mut commit, &mut receipt, "derived", now.dataset.as_str().as_bytes());
            let jws = self.agreement_receipt(&mut commit, &agreement, receipt)?;
            if let Some(copy) = copies.first() {
                self.tell_half(&mut commit, &agreement, &copy.transfer, Kind::Deleted, jws)?;
            }
        }
        commit.put(&row, &DerivedRow { state: CopyState::Destroyed, ..now }).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }

    /// Withdraws the offers of derived data that is gone. Each is then forgotten, so that another offer can have its id; one
    /// that could not be withdrawn is tried again when ended things are looked at.
    async fn withdraw_onward(&self, derived: &DerivedRow) -> Result<(), Refusal> {
        let gone = |now: &DerivedRow| now.copy == derived.copy && now.state == CopyState::Destroyed;
        let row = self.derived_row(&derived.dataset).await?.value.filter(gone);
        let mut withdrawn = BTreeSet::new();
        for offer in row.map(|row| row.offers).unwrap_or_default() {
            match retry!(self.withdraw(&offer)) {
                Err(refusal) if !refusal.is("offer-unknown") => {
                    tracing::error!(%offer, %refusal, "an offer of derived data that is gone could not be withdrawn");
                }
                _ => {
                    withdrawn.insert(offer);
                }
            }
        }
        if withdrawn.is_empty() { Ok(()) } else { retry!(self.forget_onward(derived, &withdrawn)) }
    }

    async fn forget_onward(&self, derived: &DerivedRow, withdrawn: &BTreeSet<OfferId>) -> Result<(), Refusal> {
        let row = self.derived_row(&derived.dataset).await?;
        let Some(mut now) = row.value.clone() else { return Ok(()) };
        now.offers.retain(|offer| !withdrawn.contains(offer));
        let mut commit = Commit::new();
        commit.put(&row, &now).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }
}
