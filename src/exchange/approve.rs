//! Approvals, consents, second factors, payments: what people put on record so that a request may be granted.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use totp_rs::Secret;

use crate::{
    agreement::{
        AgreementRow, Approval, ApprovalObject, ApprovalRow, ApprovalState, Approver, ConsentRow, Enforcer,
        ManifestClause, Payment, SecondFactorRow,
    },
    crypto::{RandomExt as _, b64, canonical_json, jwe, sha256},
    error::Refusal,
    exchange::{
        Acting, Exchange,
        before::{SECRET_CTY, codes},
        refuse, retry,
    },
    id::{AgreementId, DatasetId, ParticipantId},
    offer::sealing_kid,
    policy::{Action, Before, Clause, ContextFact, Money, Part, Slice, UseAction},
    protocol::Party,
    receipt::{Commit, Kind, list, read},
    time::Timestamp,
};

/// Longest name, reference or reason, in characters.
const MAX_TEXT: usize = 200;
/// Bytes of a second factor's secret (RFC 4226 §4: 160 bits).
const SECRET: usize = 20;

/// A new approver.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewApprover {
    /// Their name.
    pub name: String,
    /// In which roles.
    pub roles: BTreeSet<String>,
    /// The participant that they belong to, if it is not ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participant: Option<ParticipantId>,
}

/// A consent to be recorded or withdrawn.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsentBody {
    /// Its name, as policies ask for it.
    pub name: String,
    /// To whom the data may be given.
    pub participant: ParticipantId,
    /// Which dataset.
    pub dataset: DatasetId,
    /// Where the consent itself is kept; in a withdrawal, why.
    #[serde(default)]
    pub reference: String,
    /// Until when it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A payment to be recorded.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PaymentBody {
    /// How much.
    pub amount: String,
    /// In which currency (ISO 4217).
    pub currency: String,
    /// The payment's reference.
    pub reference: String,
}

/// A person to be enrolled for second factors.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Enrolment {
    /// Whose person: a partner, or ourselves.
    pub participant: ParticipantId,
    /// The person.
    pub person: String,
}

impl Exchange {
    // === approvals ===

    /// Lets somebody approve. Gives the token, which is kept nowhere.
    pub async fn add_approver(&self, new: &NewApprover) -> Result<String, Refusal> {
        short("an approver's name", &new.name)?;
        if new.roles.is_empty() {
            return Err(Refusal::new(
                "approver-role",
                "an approver needs a role: the one that policies name in approve(…)",
            ));
        }
        let approver =
            Approver { name: new.name.clone(), roles: new.roles.clone(), participant: new.participant.clone() };
        if self.approvers().await?.iter().any(|known| known.name == new.name) {
            let sentence = format!("`{}` is an approver already: remove them first", new.name);
            return Err(Refusal::new("approver-known", sentence));
        }
        let token = b64(&self.random.array::<32>());
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Configured, None);
        receipt.reason = Some(Refusal::new("approver-added", "somebody may approve in the roles committed to"));
        let json = canonical_json(&approver).map_err(refuse("internal"))?;
        self.record_commitment(&mut commit, &mut receipt, "approver", &json);
        self.node_receipt(&mut commit, receipt)?;
        commit.put_new(Approver::key(&sha256(token.as_bytes())), &approver).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        Ok(token)
    }

    /// Who may approve.
    pub async fn approvers(&self) -> Result<Vec<Approver>, Refusal> {
        let rows = list::<Approver>(&*self.store, Approver::PREFIX.as_bytes(), None, usize::MAX)
            .await
            .map_err(refuse("store-unreadable"))?;
        Ok(rows.into_iter().filter_map(|row| row.value).collect())
    }

    /// Takes an approver's token away.
    pub async fn remove_approver(&self, name: &str) -> Result<(), Refusal> {
        let rows = list::<Approver>(&*self.store, Approver::PREFIX.as_bytes(), None, usize::MAX)
            .await
            .map_err(refuse("store-unreadable"))?;
        let named = |row: &crate::receipt::Row<Approver>| row.value.as_ref().is_some_and(|known| known.name == name);
        let rows: Vec<_> = rows.into_iter().filter(named).collect();
        if rows.is_empty() {
            return Err(Refusal::new("approver-unknown", format!("no approver is called `{}`", cut(name))));
        }
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Configured, None);
        receipt.reason = Some(Refusal::new("approver-removed", "somebody may no longer approve"));
        self.record_commitment(&mut commit, &mut receipt, "approver", name.as_bytes());
        self.node_receipt(&mut commit, receipt)?;
        rows.iter().for_each(|row| commit.delete(row));
        self.commit(commit).await.map(|_| ())
    }

    /// Whose token this is.
    pub async fn approver_of(&self, token: &str) -> Result<Option<Approver>, Refusal> {
        let key = Approver::key(&sha256(token.as_bytes()));
        Ok(read::<Approver>(&*self.store, &key).await.map_err(refuse("store-unreadable"))?.value)
    }

    /// What waits for an approval, or was decided and not used yet; the oldest first.
    pub async fn approvals(&self) -> Result<Vec<Approval>, Refusal> {
        let mut approvals = Vec::new();
        for row in self.approval_rows().await? {
            if let Some(object) = self.object_of(&row).await? {
                approvals.push(Approval { row, object });
            }
        }
        approvals.sort_by_key(|approval| approval.asked);
        Ok(approvals)
    }

    /// The same without what is asked for.
    pub(super) async fn approval_rows(&self) -> Result<Vec<ApprovalRow>, Refusal> {
        let rows = list::<ApprovalRow>(&*self.store, ApprovalRow::PREFIX.as_bytes(), None, usize::MAX)
            .await
            .map_err(refuse("store-unreadable"))?;
        let now = self.clock.now();
        Ok(rows.into_iter().filter_map(|row| row.value).filter(|approval| now < approval.until).collect())
    }

    /// What exactly is asked for; none once it was erased.
    async fn object_of(&self, row: &ApprovalRow) -> Result<Option<ApprovalObject>, Refusal> {
        let object = self.store.get(&row.object_key()).await.map_err(refuse("store-unreadable"))?;
        let object: Option<ApprovalObject> = object.and_then(|json| serde_json::from_slice(&json).ok());
        Ok(object.filter(|object| object.sha256() == row.object_sha256))
    }

    /// An approver's yes (`reason` none) or no, to exactly what is asked for. The requester is told when it asks again.
    pub async fn decide_approval(&self, by: &Approver, id: &str, refused: Option<&str>) -> Result<(), Refusal> {
        let acting = self.acted_by(Acting { role: "approver", name: Some(by.name.clone()) });
        retry!(acting.decide_approval_once(by, id, refused))
    }

    async fn decide_approval_once(&self, by: &Approver, id: &str, refused: Option<&str>) -> Result<(), Refusal> {
        self.may_decide()?;
        let now = self.clock.now();
        let rows = list::<ApprovalRow>(&*self.store, ApprovalRow::PREFIX.as_bytes(), None, usize::MAX)
            .await
            .map_err(refuse("store-unreadable"))?;
        let found = rows.into_iter().find_map(|row| {
            let approval = row.value.clone().filter(|approval| approval.id == id && now < approval.until)?;
            Some((row, approval))
        });
        let Some((row, mut approval)) = found else {
            return Err(Refusal::new(
                "approval-unknown",
                format!("nothing waits for an approval by the id `{}`", cut(id)),
            ));
        };
        by.may_decide(&approval)?;
        if approval.state != ApprovalState::Open {
            return Err(Refusal::new("approval-decided", "somebody has decided on this already"));
        }
        let Some(object) = self.object_of(&approval).await? else {
            return Err(Refusal::new("approval-unknown", "what is asked for was erased: it has to be asked for anew"));
        };
        let (_, agreement) = self.agreement(&approval.agreement).await?;
        agreement.in_force(now)?;
        let mut commit = Commit::new();
        let kind = if refused.is_some() { Kind::Denied } else { Kind::Approved };
        let mut receipt = self.receipt(kind, Some(&agreement));
        receipt.action = Some(object.action.clone());
        let json = canonical_json(&object).map_err(refuse("internal"))?;
        self.record_commitment(&mut commit, &mut receipt, "object", &json);
        self.record_commitment(&mut commit, &mut receipt, "role", approval.role.as_bytes());
        approval.state = match refused {
            None => {
                approval.until = now.plus(self.config.approval_deadline());
                ApprovalState::Approved { by: by.name.clone(), at: now }
            }
            Some(reason) => {
                let reason = cut(reason);
                receipt.reason = Some(Refusal::new("approval-refused", reason.clone()));
                ApprovalState::Refused { by: by.name.clone(), at: now, reason }
            }
        };
        self.agreement_receipt(&mut commit, &agreement, receipt)?;
        commit.put(&row, &approval).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }

    /// Forgets approvals that were never used in their time: what they tell of a request is not kept longer.
    pub(super) async fn forget_approvals(&self) -> Result<(), Refusal> {
        let now = self.clock.now();
        let rows = list::<ApprovalRow>(&*self.store, ApprovalRow::PREFIX.as_bytes(), None, usize::MAX)
            .await
            .map_err(refuse("store-unreadable"))?;
        for row in rows.into_iter().filter(|row| row.value.as_ref().is_none_or(|approval| now >= approval.until)) {
            let mut commit = Commit::new();
            commit.delete(&row);
            self.commit(commit).await?;
        }
        // what was asked for with them, and with those that were used
        let objects = self.store.scan(ApprovalRow::OBJECTS.as_bytes(), None, 10_000).await;
        for (key, _) in objects.map_err(refuse("store-unreadable"))? {
            let of = [ApprovalRow::PREFIX.as_bytes(), &key[ApprovalRow::OBJECTS.len()..]].concat();
            if self.store.get(&of).await.map_err(refuse("store-unreadable"))?.is_none() {
                self.store.erase(&key).await.map_err(refuse("store-failed"))?;
            }
        }
        Ok(())
    }

    /// Whether our connector can see to what an agreement leaves to its consumer.
    ///
    /// # Errors
    /// `agreement-unenforceable`: an approval or a second factor that nobody here could give; a promise, where our
    /// operator wants none.
    pub(super) async fn can_enforce(&self, slice: &Slice, manifest: &[ManifestClause]) -> Result<(), Refusal> {
        let cannot = |what: String| Err(Refusal::new("agreement-unenforceable", what));
        let promise = manifest.iter().find(|clause| clause.enforcer == Enforcer::Contract);
        if let Some(promise) = promise.filter(|_| self.config.policy.refuse_contract_only) {
            return cannot(format!(
                "policy `{}` has a clause that no machine sees to ({}), and our operator takes none (policy.refuse_contract_only)",
                promise.clause, promise.part
            ));
        }
        let roles: BTreeSet<String> = self.approvers().await?.into_iter().flat_map(|approver| approver.roles).collect();
        let us: ParticipantId = self.us.clone().into();
        // a consumer may always delete: nobody has to approve that
        let uses = |clause: &&Clause| {
            clause.actions.iter().any(|action| matches!(action, Action::Use(action) if *action != UseAction::Delete))
        };
        for clause in slice.clauses().iter().filter(uses) {
            for part in &clause.parts {
                match part {
                    Part::Before(Before::Approve(role)) if !roles.contains(role) => {
                        return cannot(format!(
                            "policy `{}` wants uses approved by `{role}`, and nobody here has that role: `counterseal approver add` first",
                            clause.id
                        ));
                    }
                    Part::Before(Before::SecondFactor) if !self.has_enrolled(&us).await? => {
                        return cannot(format!(
                            "policy `{}` wants a second factor for uses, and nobody here is enrolled: `counterseal second-factor enrol` first",
                            clause.id
                        ));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    async fn has_enrolled(&self, participant: &ParticipantId) -> Result<bool, Refusal> {
        let rows = list::<SecondFactorRow>(&*self.store, SecondFactorRow::PREFIX.as_bytes(), None, usize::MAX)
            .await
            .map_err(refuse("store-unreadable"))?;
        Ok(rows.iter().any(|row| row.value.as_ref().is_some_and(|factor| factor.participant == *participant)))
    }

    // === consents ===

    /// Puts a consent on record; one that was withdrawn may be given anew.
    pub async fn record_consent(&self, body: &ConsentBody) -> Result<(), Refusal> {
        short("a consent's name", &body.name)?;
        short("a consent's reference", &body.reference)?;
        let now = self.clock.now();
        if body.until.is_some_and(|until| until <= now) {
            return Err(Refusal::new("consent-over", "`until` lies in the past: the consent would never hold"));
        }
        let key = ConsentRow::key(&body.participant, &body.dataset, &body.name);
        let row = read::<ConsentRow>(&*self.store, &key).await.map_err(refuse("store-unreadable"))?;
        let consent = ConsentRow {
            name: body.name.clone(),
            participant: body.participant.clone(),
            dataset: body.dataset.clone(),
            reference: body.reference.clone(),
            recorded: now,
            until: body.until,
            withdrawn: None,
        };
        self.commit_consent(&row, &consent, Kind::Approved, Refusal::new("consent-recorded", "a consent is on record"))
            .await
    }

    /// A consent is withdrawn: no request rests on it from this commit on, and the agreements whose policies ask for it
    /// are revoked, which cuts their streams and destroys their copies. Gives those agreements.
    pub async fn withdraw_consent(&self, body: &ConsentBody) -> Result<Vec<AgreementId>, Refusal> {
        let key = ConsentRow::key(&body.participant, &body.dataset, &body.name);
        let row = read::<ConsentRow>(&*self.store, &key).await.map_err(refuse("store-unreadable"))?;
        let Some(mut consent) = row.value.clone() else {
            let sentence = format!("no consent `{}` of this kind is on record", cut(&body.name));
            return Err(Refusal::new("consent-unknown", sentence));
        };
        if consent.withdrawn.is_none() {
            consent.withdrawn = Some(self.clock.now());
            self.commit_consent(&row, &consent, Kind::Revoked, withdrawn(&consent)).await?;
        }
        // what the caller no longer waits for is done all the same
        let exchange = self.clone();
        let revoking = tokio::spawn(async move {
            let agreements = exchange.agreements().await?;
            Ok(exchange.revoke_what_rested_on(&consent, &agreements).await)
        });
        revoking.await.map_err(refuse("internal"))?
    }

    /// Ends what rested on consents that are withdrawn: what a crash, or an agreement that could not be ended, left.
    pub async fn finish_withdrawals(&self) -> Result<(), Refusal> {
        let mut withdrawn = self.consents().await?;
        withdrawn.retain(|consent| consent.withdrawn.is_some());
        if withdrawn.is_empty() {
            return Ok(());
        }
        let agreements = self.agreements().await?;
        for consent in &withdrawn {
            self.revoke_what_rested_on(consent, &agreements).await;
        }
        Ok(())
    }

    /// One that can't be ended now keeps no other from its end: it is tried again.
    async fn revoke_what_rested_on(&self, consent: &ConsentRow, agreements: &[AgreementRow]) -> Vec<AgreementId> {
        let (now, why) = (self.clock.now(), withdrawn(consent));
        let mut revoked = Vec::new();
        for agreement in agreements {
            let about = agreement.ours == Party::Provider
                && *agreement.peer() == consent.participant
                && agreement.agreement.dataset == consent.dataset
                && agreement.in_force(now).is_ok();
            // whether it rests on it can't be said: then it does
            if !about || !self.rests_on_consent(agreement, &consent.name).unwrap_or(true) {
                continue;
            }
            match self.revoke_agreement(agreement.id(), &why.sentence).await {
                Ok(()) => revoked.push(agreement.id().clone()),
                Err(refusal) if refusal.is("agreement-revoked") => {}
                Err(refusal) => {
                    tracing::error!(agreement = %agreement.id(), %refusal, "an agreement without its consent could not be ended; it is tried again");
                }
            }
        }
        revoked
    }

    async fn commit_consent(
        &self,
        row: &crate::receipt::Row<ConsentRow>,
        consent: &ConsentRow,
        kind: Kind,
        why: Refusal,
    ) -> Result<(), Refusal> {
        let mut commit = Commit::new();
        let mut receipt = self.receipt(kind, None);
        receipt.consumer = Some(consent.participant.clone());
        receipt.reason = Some(why);
        let json = canonical_json(consent).map_err(refuse("internal"))?;
        self.record_commitment(&mut commit, &mut receipt, "consent", &json);
        self.node_receipt(&mut commit, receipt)?;
        commit.put(row, consent).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }

    fn rests_on_consent(&self, agreement: &AgreementRow, name: &str) -> Result<bool, Refusal> {
        let offer = self.agreed_offer(agreement)?;
        let slice = self.agreed_slice(agreement, &offer)?;
        let asked = slice.demands_first().contains(&Before::Consent(name.to_owned()));
        Ok(asked
            || slice.clauses().iter().any(|clause| clause.facts.iter().any(|(fact, _)| *fact == ContextFact::Consent)))
    }

    /// All consents on record, withdrawn ones too.
    pub async fn consents(&self) -> Result<Vec<ConsentRow>, Refusal> {
        let rows = list::<ConsentRow>(&*self.store, ConsentRow::PREFIX.as_bytes(), None, usize::MAX)
            .await
            .map_err(refuse("store-unreadable"))?;
        Ok(rows.into_iter().filter_map(|row| row.value).collect())
    }

    // === second factors ===

    /// Enrols a person. Gives what an authenticator app reads (`otpauth://…`): shown once, kept sealed.
    pub async fn enrol(&self, enrolment: &Enrolment) -> Result<String, Refusal> {
        short("a person's name", &enrolment.person)?;
        let secret = self.random.array::<SECRET>();
        let _ = codes(&secret)?;
        let kid = sealing_kid(&self.us, &self.keys.sealing.public());
        let sealed = jwe::seal(&self.keys.sealing.public(), &kid, SECRET_CTY, &secret, &*self.random)
            .map_err(refuse("internal"))?;
        let key = SecondFactorRow::key(&enrolment.participant, &enrolment.person);
        let row = read::<SecondFactorRow>(&*self.store, &key).await.map_err(refuse("store-unreadable"))?;
        let factor = SecondFactorRow {
            participant: enrolment.participant.clone(),
            person: enrolment.person.clone(),
            secret: sealed,
            last_step: 0,
            failures: 0,
            locked_until: None,
        };
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Configured, None);
        receipt.consumer = Some(enrolment.participant.clone());
        receipt.reason = Some(Refusal::new("second-factor-enrolled", "a person was enrolled for second factors"));
        self.record_commitment(&mut commit, &mut receipt, "person", enrolment.person.as_bytes());
        self.node_receipt(&mut commit, receipt)?;
        commit.put(&row, &factor).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        let escaped = percent_encoding::utf8_percent_encode(&enrolment.person, percent_encoding::NON_ALPHANUMERIC);
        let secret = Secret::from(secret.to_vec()).to_base32();
        Ok(format!("otpauth://totp/Counterseal:{escaped}?secret={secret}&issuer=Counterseal"))
    }

    /// Takes a person's second factor away.
    pub async fn remove_factor(&self, enrolment: &Enrolment) -> Result<(), Refusal> {
        let key = SecondFactorRow::key(&enrolment.participant, &enrolment.person);
        let row = read::<SecondFactorRow>(&*self.store, &key).await.map_err(refuse("store-unreadable"))?;
        if row.value.is_none() {
            let sentence = format!("nobody is enrolled as `{}` of {}", cut(&enrolment.person), enrolment.participant);
            return Err(Refusal::new("second-factor-unknown", sentence));
        }
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Configured, None);
        receipt.consumer = Some(enrolment.participant.clone());
        receipt.reason = Some(Refusal::new("second-factor-removed", "a person's second factor was taken away"));
        self.record_commitment(&mut commit, &mut receipt, "person", enrolment.person.as_bytes());
        self.node_receipt(&mut commit, receipt)?;
        commit.delete(&row);
        self.commit(commit).await.map(|_| ())
    }

    // === payments ===

    /// Puts a payment for an agreement on record; the facts `payAmount` and `payReference` are of the newest.
    pub async fn record_payment(&self, id: &AgreementId, body: &PaymentBody) -> Result<(), Refusal> {
        short("a payment's reference", &body.reference)?;
        let Some(amount) = Money::parse(&body.amount).filter(|amount| amount.0 >= 0) else {
            let sentence =
                format!("`{}` is no amount: write it as in 100.00, with at most four decimals", cut(&body.amount));
            return Err(Refusal::new("payment-amount", sentence));
        };
        if body.currency.len() != 3 || !body.currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            let sentence = format!("`{}` is no currency: write three letters, as in CNY", cut(&body.currency));
            return Err(Refusal::new("payment-currency", sentence));
        }
        let (row, mut agreement) = self.agreement(id).await?;
        let payment = Payment {
            amount: amount.to_string(),
            currency: body.currency.clone(),
            reference: body.reference.clone(),
            recorded: self.clock.now(),
        };
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Approved, Some(&agreement));
        receipt.reason = Some(Refusal::new("payment-recorded", "a payment is on record"));
        let json = canonical_json(&payment).map_err(refuse("internal"))?;
        self.record_commitment(&mut commit, &mut receipt, "payment", &json);
        self.agreement_receipt(&mut commit, &agreement, receipt)?;
        agreement.payment = Some(payment);
        commit.put(&row, &agreement).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }
}

fn withdrawn(consent: &ConsentRow) -> Refusal {
    Refusal::new("consent-withdrawn", format!("the consent `{}` was withdrawn", consent.name))
}

fn short(what: &str, text: &str) -> Result<(), Refusal> {
    let fine = !text.trim().is_empty() && text.chars().count() <= MAX_TEXT && !text.chars().any(char::is_control);
    if fine {
        return Ok(());
    }
    Err(Refusal::new(
        "text-invalid",
        format!("{what} has 1 to {MAX_TEXT} characters, none of them a control character"),
    ))
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}
