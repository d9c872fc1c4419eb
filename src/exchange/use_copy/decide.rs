//! The decision on a use: by the policy of every agreement that the data came under, in one commit with what it spends.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    agreement::{
        AgreementRow, AgreementState, Delivery, Extent, Question, Software, SubjectRow, decide, principal_of_party,
        subject_key,
    },
    crypto::jws::Jws,
    error::Refusal,
    exchange::{
        Exchange,
        before::{Asking as Waiting, Grounds, Shown},
        refuse,
        use_copy::{Target, destroyed},
    },
    id::{AgreementId, ReceiptId},
    offer::Offer,
    policy::{Action, Asked, ContextFact, Decision, Slice, UseAction, Verdict, columns_named, strictest},
    receipt::{Commit, Kind, Row, read},
    time::{Timestamp, Zone},
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
    /// What was done first.
    pub shown: Shown<'a>,
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
    pub subject: Row<SubjectRow>,
    pub asking: Asking,
    /// What it rests on besides the request.
    pub grounds: Grounds,
}

/// What an agreement decides by: to be asked again about other uses.
pub(in crate::exchange) struct Asking {
    pub slice: Arc<Slice>,
    pub offer: Offer,
    pub arrived: Option<Timestamp>,
    pub now: Timestamp,
}

impl Asking {
    /// Decides on these counters.
    pub fn decide(&self, target: &Target, agreement: &AgreementRow, subject: &SubjectRow, how: &How<'_>) -> Decision {
        let (offer, asked) = seen_as(self.offer.clone(), target);
        decide(&self.slice, &self.question((&offer, &asked), target, agreement, subject, how))
    }

    fn question<'a>(
        &self,
        (offer, asked): (&'a Offer, &'a Asked),
        target: &Target,
        agreement: &'a AgreementRow,
        subject: &'a SubjectRow,
        how: &How<'a>,
    ) -> Question<'a> {
        let consumer = &agreement.agreement.consumer;
        Question {
            site: consumer.physical_address.as_deref(),
            agreement: Some(agreement),
            purpose: Some(how.purpose),
            address: how.from,
            software: how.software,
            asked,
            delivery: Delivery { method: how.method, ..Delivery::file(true) },
            extent: Some(extent(target)),
            arrived: self.arrived,
            subject: Some(subject),
            ..Question::new(Action::Use(how.action), principal_of_party(consumer), offer, self.now)
        }
    }
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
        let groups = target.by_agreement();
        for id in groups.keys() {
            self.be_fresh(id).await?;
        }
        let mut answers = Vec::with_capacity(groups.len());
        for (id, copies) in &groups {
            answers.push(self.answer(target, id, copies, how, true).await?);
        }
        // all must allow; of those that don't, the strictest says why
        let (strict, verdict) = strictest(answers.iter().map(|answer| &answer.decision)).ok_or_else(destroyed)?;
        if verdict != Verdict::Allow {
            let answer = &answers[strict];
            let refusal = why_not(&answer.decision);
            return self.deny_use(&answer.agreement, answer.copy, how, Some(&answer.decision), refusal).await;
        }
        let mut first = None;
        let mut subjects: BTreeMap<Vec<u8>, (Row<SubjectRow>, SubjectRow)> = BTreeMap::new();
        for answer in answers {
            answer.grounds.spend(commit)?;
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
            self.tell_half(commit, &answer.agreement, &answer.copy.transfer, Kind::Used, jws)?;
            let (now, amount) = (self.clock.now(), extent(target).once());
            let mut spent = answer.agreement.clone();
            spent.uses.entry(action.to_owned()).or_default().spend(amount, now, answer.zone);
            commit.put(&answer.row, &spent).map_err(refuse("internal"))?;
            // two agreements may be about one dataset: their rows of the subject are one
            let Answer { subject, zone, .. } = answer;
            let value = subject.value.clone().unwrap_or_default();
            let (_, spent) = subjects.entry(subject.key.clone()).or_insert((subject, value));
            spent.entry(action.to_owned()).or_default().spend(amount, now, zone);
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
            let now = self.clock.now();
            let due = |row: &DerivedRow| row.delete_by.is_some_and(|by| now >= by);
            if row.value.as_ref().is_none_or(|row| row.state != CopyState::Held || due(row)) {
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
        let subject = self.subject_row(&agreement).await?;
        let spent = subject.value.clone().unwrap_or_default();
        let arrived = copies.iter().map(|copy| copy.arrived()).min();
        let zone = agreed.policy.zone;
        let asking = Asking { slice, offer: agreed, arrived, now };
        let mut decision = asking.decide(target, &agreement, &spent, how);
        let mut grounds = Grounds::default();
        let action = Action::Use(how.action);
        let rests_on_more =
            asking.slice.mentions(action).contains(&ContextFact::Consent) || decision.verdict == Verdict::Conditional;
        // giving a copy up waits for nobody
        if rests_on_more && how.action != UseAction::Delete {
            let (offer, asked) = seen_as(asking.offer.clone(), target);
            let waiting = Waiting {
                slice: &asking.slice,
                question: asking.question((&offer, &asked), target, &agreement, &spent, how),
                agreement: &agreement,
                snapshot: copy.id.as_str().to_owned(),
                request: how.software.application.clone(),
                spent_records: 0,
                shown: how.shown,
            };
            (decision, grounds) = self.decide_on_grounds(&waiting).await?;
            if decision.verdict == Verdict::Conditional {
                let mut receipt = self.receipt(Kind::Conditional, Some(&agreement));
                receipt.release.clone_from(&copy.release);
                return self.hold(&waiting, &decision, &grounds, receipt).await;
            }
        }
        Ok(Answer { row, agreement, copy, decision, zone, subject, asking, grounds })
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

pub(in crate::exchange) fn extent(target: &Target) -> Extent {
    Extent { bytes: target.bytes(), records: target.contents().records }
}

/// The offer as a use sees it: with the columns that are in the copy, and the datasets that it was derived from.
fn seen_as(mut offer: Offer, target: &Target) -> (Offer, Asked) {
    if let Some(derived) = &target.derived {
        offer.dataset.parents.extend(derived.parent_datasets());
    }
    match target.contents().columns.and_then(columns_named) {
        Some(columns) => {
            offer.dataset.columns = columns;
            (offer, Asked::default())
        }
        // no column has no name: which there are can't be had, and a policy that looks at them refuses
        None => (offer, Asked { fields: Some(BTreeSet::from([String::new()])), filter: None }),
    }
}
