//! On what grounds a request may be granted: approvals, consents, second factors; and what is owed after a release.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    agreement::Software,
    crypto::{canonical_json, sha256},
    error::Refusal,
    id::{AgreementId, DatasetId, ParticipantId, ReleaseId, Sha256, SnapshotId},
    policy::{Asked, Duties, Obligations},
    receipt::row_key,
    time::Timestamp,
};

/// Exactly what somebody approves: nothing of it may be another when the approval is used (threats.md, *Approvals*).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovalObject {
    /// Who asks.
    pub principal: ParticipantId,
    /// To do what.
    pub action: String,
    /// To which dataset.
    pub dataset: DatasetId,
    /// Under which agreement.
    pub agreement: AgreementId,
    /// What for, as it was declared.
    pub purpose: String,
    /// Which part of it.
    pub asked: Asked,
    /// What is to read it.
    #[serde(default, skip_serializing_if = "Software::is_empty")]
    pub software: Software,
    /// The source's state; in a use what is opened, and the copies that it came from.
    pub snapshot: String,
    /// The policies that were agreed.
    pub policy_sha256: Sha256,
    /// What would be done to the bytes.
    pub obligations: Obligations,
    /// The request's own id: a second request is another object.
    pub request: String,
}

impl ApprovalObject {
    /// SHA-256 of the canonical JSON.
    pub fn sha256(&self) -> Sha256 {
        match canonical_json(self) {
            Ok(json) => sha256(&json),
            Err(_) => sha256(format!("{self:?}").as_bytes()),
        }
    }

    /// The text by which a snapshot stands in an object.
    pub fn snapshot(id: &SnapshotId) -> String {
        id.to_string()
    }
}

/// One approval that a policy demands of one role, asked for or given. What exactly is asked for lies beside it, where it
/// can be erased.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalRow {
    /// For people.
    pub id: String,
    /// Who has to approve.
    pub role: String,
    /// Under which agreement.
    pub agreement: AgreementId,
    /// Who asks.
    pub principal: ParticipantId,
    /// SHA-256 of the [`ApprovalObject`].
    pub object_sha256: Sha256,
    /// Since when it is asked for.
    pub asked: Timestamp,
    /// Until when it may be given, and once given, used.
    pub until: Timestamp,
    /// Where it stands.
    pub state: ApprovalState,
}

/// The same with what is asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Approval {
    /// The row.
    #[serde(flatten)]
    pub row: ApprovalRow,
    /// What exactly is asked for.
    pub object: ApprovalObject,
}

impl std::ops::Deref for Approval {
    type Target = ApprovalRow;
    fn deref(&self) -> &ApprovalRow {
        &self.row
    }
}

/// Where an approval stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum ApprovalState {
    /// Nobody has decided.
    Open,
    /// Given, not used yet.
    Approved {
        /// By whom.
        by: String,
        /// When.
        at: Timestamp,
    },
    /// Refused.
    Refused {
        /// By whom.
        by: String,
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
    },
}

impl ApprovalRow {
    /// Where approvals lie.
    pub const PREFIX: &'static str = "ap/";

    /// The row's key: one for each object and role.
    pub fn key(object: &Sha256, role: &str) -> Vec<u8> {
        row_key(Self::PREFIX, &[&object.to_string(), role])
    }

    /// Where the objects of approvals lie: each under its approval's key with this prefix.
    pub const OBJECTS: &'static str = "ao/";

    /// Where its object lies.
    pub fn object_key(&self) -> Vec<u8> {
        row_key(Self::OBJECTS, &[&self.object_sha256.to_string(), &self.role])
    }

    /// Whether it is there to be used at `now`.
    pub fn counts_at(&self, now: Timestamp) -> bool {
        matches!(self.state, ApprovalState::Approved { .. }) && now < self.until
    }
}

/// Somebody who may approve, with a token of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approver {
    /// Their name.
    pub name: String,
    /// In which roles.
    pub roles: BTreeSet<String>,
    /// The participant that they belong to, if it is not ours: what it asks for they can't approve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participant: Option<ParticipantId>,
}

impl Approver {
    /// Where approvers lie, by their tokens' hashes.
    pub const PREFIX: &'static str = "av/";

    /// The row's key.
    pub fn key(token_sha256: &Sha256) -> Vec<u8> {
        row_key(Self::PREFIX, &[&token_sha256.to_string()])
    }

    /// Whether they may decide on this object in this role.
    ///
    /// # Errors
    /// `approver-role`, `approval-by-requester`.
    pub fn may_decide(&self, row: &ApprovalRow) -> Result<(), Refusal> {
        if !self.roles.contains(&row.role) {
            let roles: Vec<&str> = self.roles.iter().map(String::as_str).collect();
            return Err(Refusal::new(
                "approver-role",
                format!("this approval is for the role `{}`; `{}` has {}", row.role, self.name, roles.join(", ")),
            ));
        }
        if self.participant.as_ref() == Some(&row.principal) {
            return Err(Refusal::new(
                "approval-by-requester",
                format!("`{}` belongs to {}, who asks: nobody approves their own request", self.name, row.principal),
            ));
        }
        Ok(())
    }
}

/// A consent on record: of the persons that the data is about, or of whoever speaks for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsentRow {
    /// Its name, as policies ask for it.
    pub name: String,
    /// To whom the data may be given.
    pub participant: ParticipantId,
    /// Which dataset.
    pub dataset: DatasetId,
    /// Where the consent itself is kept: a reference, never its text.
    pub reference: String,
    /// When it was recorded.
    pub recorded: Timestamp,
    /// Until when it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When it was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Timestamp>,
}

impl ConsentRow {
    /// Where consents lie.
    pub const PREFIX: &'static str = "co/";

    /// The row's key.
    pub fn key(participant: &ParticipantId, dataset: &DatasetId, name: &str) -> Vec<u8> {
        [Self::prefix(participant, dataset), row_key("", &[name])].concat()
    }

    /// Where a participant's consents to a dataset lie.
    pub fn prefix(participant: &ParticipantId, dataset: &DatasetId) -> Vec<u8> {
        let mut key = row_key(Self::PREFIX, &[participant.as_str(), dataset.as_str()]);
        key.push(b'/');
        key
    }

    /// Whether it is in force at `now`.
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.withdrawn.is_none() && self.until.is_none_or(|until| now < until)
    }
}

/// A person's second factor (RFC 6238), enrolled here for a participant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecondFactorRow {
    /// Whose.
    pub participant: ParticipantId,
    /// The person.
    pub person: String,
    /// The secret, sealed to our own sealing key.
    pub secret: String,
    /// The newest time step whose code was taken: each code counts once.
    #[serde(default)]
    pub last_step: u64,
    /// Wrong codes since the last right one.
    #[serde(default)]
    pub failures: u32,
    /// Until when no code is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Timestamp>,
}

impl SecondFactorRow {
    /// Where they lie.
    pub const PREFIX: &'static str = "sf/";

    /// The row's key.
    pub fn key(participant: &ParticipantId, person: &str) -> Vec<u8> {
        row_key(Self::PREFIX, &[participant.as_str(), person])
    }
}

/// What a consumer owes after a release, as either side keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DutyRow {
    /// The release.
    pub release: ReleaseId,
    /// Its agreement.
    pub agreement: AgreementId,
    /// Who owes.
    pub consumer: ParticipantId,
    /// The `released` receipt.
    pub released: Sha256,
    /// What is owed.
    pub duties: Duties,
    /// Since when the data is there.
    pub since: Timestamp,
    /// When the copy was destroyed, as far as we know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Timestamp>,
    /// When the last report was made, as far as we know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<Timestamp>,
}

impl DutyRow {
    /// Where duties lie.
    pub const PREFIX: &'static str = "du/";

    /// The row's key.
    pub fn key(release: &ReleaseId) -> Vec<u8> {
        row_key(Self::PREFIX, &[release.as_str()])
    }

    /// When the copy must be destroyed.
    pub fn delete_by(&self) -> Option<Timestamp> {
        let within = self.duties.delete_within?;
        self.deleted.is_none().then(|| self.since.plus(std::time::Duration::from_secs(within)))
    }

    /// When the next report is due; none once the copy is gone.
    pub fn report_by(&self) -> Option<Timestamp> {
        let every = self.duties.report?;
        let last = self.reported.unwrap_or(self.since);
        self.deleted.is_none().then(|| last.plus(std::time::Duration::from_secs(every)))
    }

    /// Which duties are overdue at `now`, `grace` after they fell due, as they are written in policies.
    pub fn overdue_at(&self, now: Timestamp, grace: std::time::Duration) -> Vec<String> {
        let late = |by: Option<Timestamp>| by.is_some_and(|by| now >= by.plus(grace));
        let written = |duties: Duties| duties.written();
        let mut overdue = Vec::new();
        if late(self.delete_by()) {
            overdue.extend(written(Duties { delete_within: self.duties.delete_within, ..Duties::default() }));
        }
        if late(self.report_by()) {
            overdue.extend(written(Duties { report: self.duties.report, ..Duties::default() }));
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn object() -> ApprovalObject {
        ApprovalObject {
            principal: ParticipantId::parse("did:web:research.invalid").unwrap(),
            action: "release".into(),
            dataset: DatasetId::parse("cohort").unwrap(),
            agreement: "urn:uuid:0190a000-0000-7000-8000-000000000000".parse().unwrap(),
            purpose: "research".into(),
            asked: Asked::default(),
            software: Software::default(),
            snapshot: "s".into(),
            policy_sha256: Sha256([0; 32]),
            obligations: Obligations::default(),
            request: "r".into(),
        }
    }

    fn row(role: &str) -> ApprovalRow {
        ApprovalRow {
            id: "x".into(),
            role: role.into(),
            agreement: object().agreement,
            principal: object().principal,
            object_sha256: object().sha256(),
            asked: Timestamp::from_millis(0),
            until: Timestamp::from_millis(100),
            state: ApprovalState::Open,
        }
    }

    #[test]
    fn any_other_request_is_another_object() {
        let base = object();
        let others = [
            ApprovalObject { purpose: "sales".into(), ..base.clone() },
            ApprovalObject { snapshot: "t".into(), ..base.clone() },
            ApprovalObject { software: Software { algorithm: "aa".into(), ..Software::default() }, ..base.clone() },
            ApprovalObject { policy_sha256: Sha256([1; 32]), ..base.clone() },
            ApprovalObject { request: "s".into(), ..base.clone() },
            ApprovalObject { asked: Asked { fields: None, filter: Some("a = 1".into()) }, ..base.clone() },
            ApprovalObject { obligations: Obligations { limit: Some(1), ..Obligations::default() }, ..base.clone() },
            ApprovalObject { principal: ParticipantId::parse("did:web:other.invalid").unwrap(), ..base.clone() },
        ];
        for other in others {
            assert_ne!(other.sha256(), base.sha256(), "{other:?}");
        }
        assert_eq!(base.clone().sha256(), base.sha256());
    }

    #[test]
    fn only_the_named_role_approves_and_never_the_requester() {
        let approver = |roles: &[&str], participant: Option<&str>| Approver {
            name: "dr-li".into(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            participant: participant.map(|id| ParticipantId::parse(id).unwrap()),
        };
        assert!(approver(&["board", "other"], None).may_decide(&row("board")).is_ok());
        assert!(approver(&["board"], Some("did:web:third.invalid")).may_decide(&row("board")).is_ok());
        assert!(approver(&["other"], None).may_decide(&row("board")).unwrap_err().is("approver-role"));
        let own = approver(&["board"], Some("did:web:research.invalid")).may_decide(&row("board"));
        assert!(own.unwrap_err().is("approval-by-requester"));
    }

    #[test]
    fn an_approval_counts_once_given_and_until_its_time_is_over() {
        let mut row = row("board");
        assert!(!row.counts_at(Timestamp::from_millis(1)));
        row.state = ApprovalState::Approved { by: "dr-li".into(), at: Timestamp::from_millis(1) };
        assert!(row.counts_at(Timestamp::from_millis(99)) && !row.counts_at(Timestamp::from_millis(100)));
    }

    #[test]
    fn duties_fall_due_and_are_overdue_after_their_grace() {
        let mut row = DutyRow {
            release: "urn:uuid:0190a000-0000-7000-8000-000000000001".parse().unwrap(),
            agreement: "urn:uuid:0190a000-0000-7000-8000-000000000000".parse().unwrap(),
            consumer: ParticipantId::parse("c").unwrap(),
            released: Sha256([0; 32]),
            duties: Duties { delete_within: Some(100), notify: true, report: Some(30) },
            since: Timestamp::from_millis(0),
            deleted: None,
            reported: None,
        };
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let grace = Duration::from_secs(10);
        assert!(row.overdue_at(at(39), grace).is_empty());
        assert_eq!(row.overdue_at(at(40), grace), ["report(PT30S)"]);
        row.reported = Some(at(35));
        assert_eq!(row.report_by(), Some(at(65)));
        assert_eq!(row.overdue_at(at(111), grace), ["delete_within(PT100S)", "report(PT30S)"]);
        row.deleted = Some(at(90));
        assert!(row.overdue_at(at(1000), grace).is_empty());
    }
}
