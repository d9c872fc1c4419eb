//! The decision on a use: by the policy of every agreement that the data came under, in one commit with what it spends.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    agreement::{
        AgreementRow, AgreementState, Delivery, Extent, Question, Software, SubjectRow, decide, principal_of_party,
        subject_key,
    },
    crypto::jws::Jws,
    error::Refusal,
    exchange::{Exchange, refuse, use_copy::{Target, destroyed}},
    id::{AgreementId, ReceiptId},
    offer::Offer,
    policy::{Action, Asked, Column, ColumnKind, Columns, Decision, UseAction, Verdict},
    receipt::{Commit, Kind, Row, read},
    time::Zone,
    vault::{self, CopyRow, CopyState, DerivedRow},
};

/// How a use is done.
#[derive(Clone, Debug)]
pub(in crate::exchange) struct How<'a> {
    /// Which use.
    pub action: UseAction,
    /// What for.
    pub purpose: &'a str,
    /// What reads it, as it was registered.
    pub software: &'a Software,
    /// The dictionary's code of the delivery method.
    pub method: &'static str,
    /// Where the request came from.
    pub from: Option<IpAddr>,
}

/// A use that was decided and recorded.
pub(in crate::exchange) struct Decided {
    /// The first `used` receipt.
    pub receipt: ReceiptId,
    /// Its number in our series.
    pub number: u64,
}

/// One agreement's answer.
pub(in crate::exchange) struct Answer<'a> {
    pub row: Row<AgreementRow>,
    pub agreement: AgreementRow,
    pub copy: &'a CopyRow,
    pub decision: Decision,
    pub zone: Zone,
}

impl Exchange {
    /// Decides a use by every agreement and records it, or the refusal. What was spent stays spent.
    pub(in crate::exchange) async fn use_once(&self, target: &Target, how: &How<'_>) -> Result<Decided, Refusal> {
        let mut commit = Commit::new();
        let decided = self.record_use(&mut commit, target, how).await?;
        let committed = self.commit(commit).await?;
        let number = committed.receipts.first().map_or(0, |placed| placed.number);
        Ok(Decided { receipt: decided, number })
    }

    /// Decides a use and puts all that it spends and leaves into a commit.
    pub(in crate::exchange) async fn record_use(
        &self,
        commit: &mut Commit,
        target: &Target,
        how: &How<'_>,
    ) -> Result<ReceiptId, Refusal> {
        self.may_decide()?;
        self.expect_held(commit, target).await?;
        let action = how.action.as_str();
        let mut first = None;
        let mut subjects: BTreeMap<Vec<u8>, (Row<SubjectRow>, SubjectRow)> = BTreeMap::new();
        for (id, copies) in target.by_agreement() {
            self.be_fresh(&id).await?;
            let answer = self.answer(target, &id, &copies, how, true).await?;
            if answer.decision.verdict != Verdict::Allow {
                let refusal = why_not(&answer.decision);
                return self.deny_use(&answer.agreement, answer.copy, how, Some(&answer.decision), refusal).await;
            }
            let mut receipt = self.receipt(Kind::Used, Some(&answer.agreement));
            receipt.action = Some(action.to_owned());
            receipt.release.clone_from(&answer.copy.release);
            receipt.refers = answer.copy.released.as_ref().map(Jws::sha256);
            first.get_or_insert_with(|| receipt.id.clone());
            self.record_decision(commit, &mut receipt, &answer.decision);
            self.record_commitment(commit, &mut receipt, "purpose", how.purpose.as_bytes());
            if !how.software.application.is_empty() {
                self.record_commitment(commit, &mut receipt, "application", how.software.application.as_bytes());
            }
            if let Some(derived) = &target.derived {
                self.record_commitment(commit, &mut receipt, "derived", derived.dataset.as_str().as_bytes());
            }
            let jws = self.agreement_receipt(commit, &answer.agreement, receipt)?;
            let (now, amount) = (self.clock.now(), extent(target).once());
            let mut spent = answer.agreement.clone();
            spent.uses.entry(action.to_owned()).or_default().spend(amount, now, answer.zone);
            commit.put(&answer.row, &spent).map_err(refuse("internal"))?;
            let key = subject_of(&answer.agreement);
            if !subjects.contains_key(&key) {
                let row = self.subject_row(&answer.agreement).await?;
                let value = row.value.clone().unwrap_or_default();
                subjects.insert(key.clone(), (row, value));
            }
            if let Some((_, subject)) = subjects.get_mut(&key) {
                subject.entry(action.to_owned()).or_default().spend(amount, now, answer.zone);
            }
            self.tell_half(commit, &answer.agreement, &answer.copy.transfer, Kind::Used, jws)?;
        }
        for (row, subject) in subjects.values() {
            commit.put(row, subject).map_err(refuse("internal"))?;
        }
        first.ok_or_else(destroyed)
    }

    /// What is opened is there, and stays until the commit lands.
    async fn expect_held(&self, commit: &mut Commit, target: &Target) -> Result<(), Refusal> {
        if let Some(derived) = &target.derived {
            let row = read::<DerivedRow>(&*self.store, &DerivedRow::key(&derived.dataset))
                .await
                .map_err(refuse("store-unreadable"))?;
            if row.value.as_ref().is_none_or(|row| row.state != CopyState::Held) {
                return Err(destroyed());
            }
            commit.expect(&row);
        }
        for copy in &target.copies {
            let row = read::<CopyRow>(&*self.store, &vault::key(&copy.id)).await.map_err(refuse("store-unreadable"))?;
            let there = match &row.value {
                // a parent that we gave up ourselves was derived from lawfully
                Some(copy) => copy.state == CopyState::Held || target.derived.is_some() && copy.given_up,
                None => false,
            };
            // its agreement says more of why it is gone
            if !there && self.agreement(&copy.agreement).await?.1.in_force(self.clock.now()).is_ok() {
                return Err(destroyed());
            }
            commit.expect(&row);
        }
        Ok(())
    }

    /// Asks for the provider's newest word on an agreement, if the last one is too old.
    pub(in crate::exchange) async fn be_fresh(&self, id: &AgreementId) -> Result<(), Refusal> {
        let (_, agreement) = self.agreement(id).await?;
        self.restorations.over(agreement.peer())?;
        if agreement.state == AgreementState::Active && !agreement.status_is_fresh(self.clock.now()) {
            self.refresh_status(id).await?;
        }
        Ok(())
    }

    /// What one agreement's policy says of a use. `in_force`: refuses, on record, under one that is not.
    pub(in crate::exchange) async fn answer<'a>(
        &self,
        target: &Target,
        id: &AgreementId,
        copies: &[&'a CopyRow],
        how: &How<'_>,
        in_force: bool,
    ) -> Result<Answer<'a>, Refusal> {
        let copy = *copies.first().ok_or_else(destroyed)?;
        let (row, agreement) = self.agreement(id).await?;
        let now = self.clock.now();
        if in_force && let Err(refusal) = agreement.in_force(now) {
            return self.deny_use(&agreement, copy, how, None, refusal).await;
        }
        let agreed = self.agreed_offer(&agreement)?;
        let slice = self.agreed_slice(&agreement, &agreed)?;
        let (offer, asked) = seen_as(agreed, target);
        let subject = self.subject_row(&agreement).await?.value.unwrap_or_default();
        let decision = decide(
            &slice,
            &Question {
                agreement: Some(&agreement),
                purpose: Some(how.purpose),
                address: how.from,
                software: how.software,
                asked: &asked,
                delivery: Delivery { method: how.method, ..Delivery::file(true) },
                extent: Some(extent(target)),
                arrived: copies.iter().map(|copy| copy.arrived()).min(),
                subject: Some(&subject),
                ..Question::new(Action::Use(how.action), principal_of_party(&agreement.agreement.consumer), &offer, now)
            },
        );
        Ok(Answer { row, agreement, copy, decision, zone: offer.policy.zone })
    }

    async fn subject_row(&self, agreement: &AgreementRow) -> Result<Row<SubjectRow>, Refusal> {
        read::<SubjectRow>(&*self.store, &subject_of(agreement)).await.map_err(refuse("store-unreadable"))
    }

    /// Records a refusal, within the budget.
    pub(in crate::exchange) async fn deny_use<T>(
        &self,
        agreement: &AgreementRow,
        copy: &CopyRow,
        how: &How<'_>,
        decision: Option<&Decision>,
        refusal: Refusal,
    ) -> Result<T, Refusal> {
        if self.refusals.within_budget(&self.us.clone().into(), self.clock.now()) {
            let mut commit = Commit::new();
            let mut receipt = self.receipt(Kind::Denied, Some(agreement));
            receipt.action = Some(how.action.as_str().to_owned());
            receipt.release.clone_from(&copy.release);
            if let Some(decision) = decision {
                self.record_decision(&mut commit, &mut receipt, decision);
                self.record_commitment(&mut commit, &mut receipt, "purpose", how.purpose.as_bytes());
            }
            receipt.reason = Some(refusal.clone());
            self.agreement_receipt(&mut commit, agreement, receipt)?;
            self.commit(commit).await?;
        }
        Err(refusal)
    }
}

/// Why a decision is no permission.
pub(in crate::exchange) fn why_not(decision: &Decision) -> Refusal {
    let unsaid = || Refusal::new("policy-no-permit", "the policy did not allow it");
    decision.reason.clone().unwrap_or_else(unsaid)
}

fn subject_of(agreement: &AgreementRow) -> Vec<u8> {
    subject_key(agreement.us(), &agreement.agreement.dataset)
}

fn extent(target: &Target) -> Extent {
    Extent { bytes: target.bytes(), records: target.contents().records }
}

/// The offer as a use sees it: with the columns that are in the copy, and the datasets that it was derived from.
fn seen_as(mut offer: Offer, target: &Target) -> (Offer, Asked) {
    if let Some(derived) = &target.derived {
        offer.dataset.parents.extend(derived.parent_datasets());
    }
    let named = |names: BTreeSet<String>| {
        Columns::new(names.into_iter().map(|name| Column { name, kind: ColumnKind::Text }).collect()).ok()
    };
    match target.contents().columns.and_then(named) {
        Some(columns) => {
            offer.dataset.columns = columns;
            (offer, Asked::default())
        }
        // no column has no name: which there are can't be had, and a policy that looks at them refuses
        None => (offer, Asked { fields: Some(BTreeSet::from([String::new()])), filter: None }),
    }
}
