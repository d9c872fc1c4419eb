//! What has to be done before a release or a use: found, asked for, and spent with what it was for.

use std::{collections::BTreeSet, time::Duration};

use totp_rs::{Builder, Secret, Totp};

use crate::{
    agreement::{
        AgreementRow, ApprovalObject, ApprovalRow, ApprovalState, ConsentRow, Question, SecondFactorRow, decide,
    },
    crypto::jwe,
    error::Refusal,
    exchange::{Exchange, refuse},
    id::{DatasetId, ParticipantId},
    policy::{Action, Before, ContextFact, Decision, Obligations, Slice, Verdict},
    receipt::{Commit, Kind, Receipt, Row, list, read},
    time::Timestamp,
};

/// The content type of a second factor's sealed secret.
pub(super) const SECRET_CTY: &str = "counterseal-second-factor";
/// Most approvals that wait under one agreement.
const MAX_OPEN: usize = 20;
/// Wrong codes before no more are looked at for a while.
const MAX_FAILURES: u32 = 5;
/// That while.
const LOCK: Duration = Duration::from_secs(15 * 60);

/// What a request shows of what was done first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown<'a> {
    /// Statements that it accepts.
    pub accepts: Option<&'a BTreeSet<String>>,
    /// The acting person.
    pub person: Option<&'a str>,
    /// That person's one-time code.
    pub code: Option<&'a str>,
}

/// A request that waits until what has to come first is done.
pub(super) struct Asking<'a> {
    /// The policies.
    pub slice: &'a Slice,
    /// The request, without its grounds.
    pub question: Question<'a>,
    /// Under which agreement.
    pub agreement: &'a AgreementRow,
    /// The source's state, or the copy.
    pub snapshot: String,
    /// The request's own id.
    pub request: String,
    /// Records that were released or used before: for a quota.
    pub spent_records: u64,
    /// What it shows.
    pub shown: Shown<'a>,
}

/// On what a decision rests besides the request itself: rows that must be the same when it is committed.
#[derive(Default)]
pub(super) struct Grounds {
    met: BTreeSet<Before>,
    names: BTreeSet<String>,
    consents: Vec<Row<ConsentRow>>,
    factor: Option<(Row<SecondFactorRow>, SecondFactorRow)>,
    approvals: Vec<Row<ApprovalRow>>,
    missing: Vec<(Row<ApprovalRow>, ApprovalRow)>,
    object: Option<ApprovalObject>,
}

impl Grounds {
    /// Spends what is used once, in the commit of what it was for: approvals and the code. Consents must still stand.
    pub(super) fn spend(&self, commit: &mut Commit) -> Result<(), Refusal> {
        for row in &self.consents {
            commit.expect(row);
        }
        for row in &self.approvals {
            commit.delete(row);
        }
        if let Some((row, next)) = &self.factor {
            commit.put(row, next).map_err(refuse("internal"))?;
        }
        Ok(())
    }
}

impl Exchange {
    /// Decides; where somebody has to approve, looks whether they did for exactly this request, and decides again.
    pub(super) async fn decide_on_grounds(&self, asking: &Asking<'_>) -> Result<(Decision, Grounds), Refusal> {
        let mut grounds = self.grounds(asking).await?;
        let mut decision = decided(asking, &grounds);
        let roles: Vec<String> = decision.open.iter().filter_map(role).map(str::to_owned).collect();
        if decision.verdict == Verdict::Conditional && !roles.is_empty() {
            let object = self.approval_object(asking, &decision)?;
            self.find_approvals(object.clone(), &roles, asking.question.now, &mut grounds).await?;
            decision = decided(asking, &grounds);
            // a policy may look at approvals: what would be done now must be what they saw
            let granted = decision.verdict == Verdict::Allow;
            if granted && self.approval_object(asking, &decision)? != object {
                let sentence = "with its approvals the request would be granted otherwise than what was approved";
                return Err(Refusal::new("approval-differs", sentence));
            }
        }
        Ok((decision, grounds))
    }

    /// What is met without anybody's approval, and the consents that stand.
    async fn grounds(&self, asking: &Asking<'_>) -> Result<Grounds, Refusal> {
        let (slice, question) = (asking.slice, &asking.question);
        let demanded = slice.demands_first();
        let mut grounds = Grounds::default();
        if let Some(accepts) = asking.shown.accepts {
            let accepted = accepts.iter().map(|statement| Before::Accept(statement.clone()));
            grounds.met.extend(accepted.filter(|before| demanded.contains(before)));
        }
        let looks_at_consents = slice.mentions(question.action).contains(&ContextFact::Consent)
            || demanded.iter().any(|before| matches!(before, Before::Consent(_)));
        if looks_at_consents {
            let prefix = ConsentRow::prefix(&question.principal.id, &question.offer.dataset.id);
            let rows =
                list::<ConsentRow>(&*self.store, &prefix, None, 1000).await.map_err(refuse("store-unreadable"))?;
            for row in rows {
                if let Some(consent) = row.value.clone().filter(|consent| consent.holds_at(question.now)) {
                    grounds.met.insert(Before::Consent(consent.name.clone()));
                    grounds.names.insert(consent.name);
                    grounds.consents.push(row);
                }
            }
        }
        if demanded.contains(&Before::SecondFactor)
            && let (Some(person), Some(code)) = (asking.shown.person, asking.shown.code)
        {
            grounds.factor = Some(self.check_code(&question.principal.id, person, code, question.now).await?);
            grounds.met.insert(Before::SecondFactor);
        }
        Ok(grounds)
    }

    /// Exactly what has to be approved.
    fn approval_object(&self, asking: &Asking<'_>, decision: &Decision) -> Result<ApprovalObject, Refusal> {
        let question = &asking.question;
        // what was done to the bytes was done when they left
        let obligations = match question.action {
            Action::Use(_) => Obligations::default(),
            _ => asking
                .slice
                .demanded(&decision.policies)
                .for_request(question.asked, &question.offer.dataset.columns, asking.spent_records)
                .map_err(|error| Refusal::new(error.code(), error.to_string()))?,
        };
        Ok(ApprovalObject {
            principal: question.principal.id.clone(),
            action: question.action.as_str().to_owned(),
            dataset: question.offer.dataset.id.clone(),
            agreement: asking.agreement.id().clone(),
            purpose: question.purpose.unwrap_or_default().to_owned(),
            asked: question.asked.clone(),
            software: question.software.clone(),
            snapshot: asking.snapshot.clone(),
            policy_sha256: decision.policy_sha256,
            obligations,
            request: asking.request.clone(),
        })
    }

    async fn find_approvals(
        &self,
        object: ApprovalObject,
        roles: &[String],
        now: Timestamp,
        grounds: &mut Grounds,
    ) -> Result<(), Refusal> {
        let sha256 = object.sha256();
        grounds.object = Some(object.clone());
        let approvers = self.approvers().await?;
        for name in roles {
            let key = ApprovalRow::key(&sha256, name);
            let row = read::<ApprovalRow>(&*self.store, &key).await.map_err(refuse("store-unreadable"))?;
            match row.value.clone().filter(|approval| now < approval.until) {
                Some(approval) if approval.counts_at(now) => {
                    // who was removed since approves nothing any more
                    let by = match &approval.state {
                        ApprovalState::Approved { by, .. } => by.as_str(),
                        _ => "",
                    };
                    if !approvers.iter().any(|one| one.name == by && one.may_decide(&approval).is_ok()) {
                        let sentence = format!("`{by}`, who approved this as `{name}`, may no longer approve");
                        return Err(Refusal::new("approver-unknown", sentence));
                    }
                    grounds.met.insert(Before::Approve(name.clone()));
                    grounds.approvals.push(row);
                }
                Some(ApprovalRow { state: ApprovalState::Refused { reason, .. }, .. }) => {
                    let sentence = format!("the role `{name}` refused this request: {reason}");
                    return Err(Refusal::new("approval-refused", sentence));
                }
                Some(_) => {}
                None => grounds.missing.push((
                    row,
                    ApprovalRow {
                        id: self.random_id(),
                        role: name.clone(),
                        agreement: object.agreement.clone(),
                        principal: object.principal.clone(),
                        object_sha256: sha256,
                        asked: now,
                        until: now.plus(self.config.approval_deadline()),
                        state: ApprovalState::Open,
                    },
                )),
            }
        }
        Ok(())
    }

    /// A request that may be granted later: puts on record that it waits, asks for the approvals that nobody was asked
    /// for, and says what has to be done first.
    pub(super) async fn hold<T>(
        &self,
        asking: &Asking<'_>,
        decision: &Decision,
        grounds: &Grounds,
        mut receipt: Receipt,
    ) -> Result<T, Refusal> {
        let sentence = decision.reason.as_ref().map_or_else(String::new, |reason| reason.sentence.clone());
        let sentence = format!("not yet: {sentence}; then ask again");
        let refusal = match asking.question.action {
            Action::Use(_) => Refusal::new("use-conditional", sentence),
            _ => Refusal::new("release-conditional", sentence),
        };
        let waits_for_people = decision.open.iter().any(|before| role(before).is_some());
        let new = !grounds.missing.is_empty() || !waits_for_people;
        if new && self.refusals.within_budget(&asking.question.principal.id, asking.question.now) {
            let agreement = asking.agreement.id();
            let waiting = self.approval_rows().await?;
            let open = waiting.iter().filter(|one| one.agreement == *agreement && one.state == ApprovalState::Open);
            if open.count() + grounds.missing.len() > MAX_OPEN {
                let sentence = format!("{MAX_OPEN} approvals are asked for under {agreement} already: wait for those");
                return Err(Refusal::new("approvals-open", sentence));
            }
            let mut commit = Commit::new();
            self.record_decision(&mut commit, &mut receipt, decision);
            let purpose = asking.question.purpose.unwrap_or_default();
            self.record_commitment(&mut commit, &mut receipt, "purpose", purpose.as_bytes());
            receipt.kind = Kind::Conditional;
            receipt.action = Some(asking.question.action.as_str().to_owned());
            receipt.reason = Some(refusal.clone());
            self.agreement_receipt(&mut commit, asking.agreement, receipt)?;
            for (row, approval) in &grounds.missing {
                commit.put(row, approval).map_err(refuse("internal"))?;
                if let Some(object) = &grounds.object {
                    commit.content(approval.object_key(), serde_json::to_vec(object).map_err(refuse("internal"))?);
                }
            }
            self.commit(commit).await?;
        }
        Err(refusal)
    }

    /// A code that is right, was not used before, and comes from somebody who may try: the row as it is then.
    async fn check_code(
        &self,
        participant: &ParticipantId,
        person: &str,
        code: &str,
        now: Timestamp,
    ) -> Result<(Row<SecondFactorRow>, SecondFactorRow), Refusal> {
        let wrong = || {
            Refusal::new(
                "second-factor-wrong",
                "the second factor is wrong, was used before, or nobody is enrolled by that name",
            )
        };
        let key = SecondFactorRow::key(participant, person);
        let row = read::<SecondFactorRow>(&*self.store, &key).await.map_err(refuse("store-unreadable"))?;
        let Some(mut factor) = row.value.clone() else { return Err(wrong()) };
        if factor.locked_until.is_some_and(|until| now < until) {
            let sentence = "too many wrong codes; none is looked at for a quarter of an hour";
            return Err(Refusal::new("second-factor-locked", sentence));
        }
        let secret =
            jwe::open(&self.keys.sealing, SECRET_CTY, &factor.secret).map_err(refuse("second-factor-unreadable"))?;
        let seconds = u64::try_from(now.seconds()).unwrap_or(0);
        match codes(&secret)?.check(code, seconds) {
            Some(step) if step > factor.last_step => {
                factor.last_step = step;
                factor.failures = 0;
                factor.locked_until = None;
                Ok((row, factor))
            }
            _ => {
                factor.failures += 1;
                if factor.failures >= MAX_FAILURES {
                    factor.failures = 0;
                    factor.locked_until = Some(now.plus(LOCK));
                }
                let mut commit = Commit::new();
                commit.put(&row, &factor).map_err(refuse("internal"))?;
                self.commit(commit).await?;
                Err(wrong())
            }
        }
    }

    /// The consents of a participant to a dataset, withdrawn ones too.
    pub async fn consents_of(
        &self,
        participant: &ParticipantId,
        dataset: &DatasetId,
    ) -> Result<Vec<ConsentRow>, Refusal> {
        let prefix = ConsentRow::prefix(participant, dataset);
        let rows = list::<ConsentRow>(&*self.store, &prefix, None, 1000).await.map_err(refuse("store-unreadable"))?;
        Ok(rows.into_iter().filter_map(|row| row.value).collect())
    }

    /// A fresh id as text.
    pub(super) fn random_id(&self) -> String {
        use crate::crypto::RandomExt as _;
        self.random.urn(self.clock.now())
    }
}

fn decided(asking: &Asking<'_>, grounds: &Grounds) -> Decision {
    let question = Question { met: &grounds.met, consents: &grounds.names, ..asking.question.clone() };
    decide(asking.slice, &question)
}

fn role(before: &Before) -> Option<&str> {
    match before {
        Before::Approve(role) => Some(role),
        _ => None,
    }
}

/// One-time codes of this secret (RFC 6238: SHA-1, six digits, 30 seconds, as authenticator apps do).
pub(super) fn codes(secret: &[u8]) -> Result<Totp, Refusal> {
    let codes = Builder::new().with_secret(Secret::from(secret.to_vec())).build();
    codes.map_err(refuse("second-factor-unreadable"))
}
