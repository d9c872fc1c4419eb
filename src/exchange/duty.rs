//! Duties after a release: the consumer's connector carries them out, and says so in receipts; the provider's shows what is
//! overdue.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    agreement::{AgreementRow, AgreementState, DutyRow},
    error::Refusal,
    exchange::{Exchange, refuse, retry, use_copy::consumes},
    id::{AgreementId, ParticipantId, ReleaseId, Sha256},
    policy::Duties,
    protocol::Party,
    receipt::{Commit, Kind, Receipt, list, read},
    time::Timestamp,
};

/// How long after its time a duty is shown as overdue: its receipt has to come over, too.
const GRACE: Duration = Duration::from_secs(300);

/// A duty as people see it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DutyView {
    /// The release that it follows.
    pub release: ReleaseId,
    /// Under which agreement.
    pub agreement: AgreementId,
    /// Who owes it.
    pub consumer: ParticipantId,
    /// What is owed, as policies write it.
    pub duties: Vec<String>,
    /// When the copy must be destroyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete_by: Option<Timestamp>,
    /// When it was, as far as we know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Timestamp>,
    /// When the next report is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_by: Option<Timestamp>,
    /// When the last one was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<Timestamp>,
    /// What is overdue.
    pub overdue: Vec<String>,
}

impl Exchange {
    /// What is owed to us, and by us; what is overdue first.
    pub async fn duties(&self) -> Result<Vec<DutyView>, Refusal> {
        let now = self.clock.now();
        let mut views: Vec<DutyView> = self
            .duty_rows()
            .await?
            .into_iter()
            .map(|row| DutyView {
                delete_by: row.delete_by(),
                report_by: row.report_by(),
                overdue: row.overdue_at(now, GRACE),
                duties: row.duties.written(),
                release: row.release,
                agreement: row.agreement,
                consumer: row.consumer,
                deleted: row.deleted,
                reported: row.reported,
            })
            .collect();
        views.sort_by_key(|view| (view.overdue.is_empty(), view.delete_by));
        Ok(views)
    }

    async fn duty_rows(&self) -> Result<Vec<DutyRow>, Refusal> {
        let rows = list::<DutyRow>(&*self.store, DutyRow::PREFIX.as_bytes(), None, usize::MAX)
            .await
            .map_err(refuse("store-unreadable"))?;
        Ok(rows.into_iter().filter_map(|row| row.value).collect())
    }

    /// Duties begin with the data: in the commit that records its arrival, on either side.
    pub(super) fn begin_duties(
        &self,
        commit: &mut Commit,
        agreement: &AgreementRow,
        release: &ReleaseId,
        released: Sha256,
        duties: Duties,
    ) -> Result<(), Refusal> {
        if duties.is_empty() {
            return Ok(());
        }
        let row = DutyRow {
            release: release.clone(),
            agreement: agreement.id().clone(),
            consumer: agreement.agreement.consumer.id.clone(),
            released,
            duties,
            since: self.clock.now(),
            deleted: None,
            reported: None,
        };
        commit.put_new(DutyRow::key(release), &row).map_err(refuse("internal"))
    }

    // === the provider ===

    /// A half of the consumer's that shows a duty done, in the commit that keeps it: a half that came before shows nothing
    /// new, and one under another agreement, or of another release, shows nothing at all.
    pub(super) async fn mark_duty(
        &self,
        commit: &mut Commit,
        agreement: &AgreementRow,
        receipt: &Receipt,
    ) -> Result<(), Refusal> {
        let (Kind::Deleted | Kind::Reported, Some(release)) = (receipt.kind, &receipt.release) else { return Ok(()) };
        let row = read::<DutyRow>(&*self.store, &DutyRow::key(release)).await.map_err(refuse("store-unreadable"))?;
        let Some(mut duty) = row.value.clone() else { return Ok(()) };
        let theirs = duty.agreement == *agreement.id()
            && duty.consumer == *agreement.peer()
            && Some(duty.released) == receipt.refers
            && agreement.ours == Party::Provider;
        if !theirs || duty.deleted.is_some() {
            return Ok(());
        }
        // when it was told, by our clock: theirs would let them be in time whenever they like
        let now = self.clock.now();
        match receipt.kind {
            Kind::Deleted => duty.deleted = Some(now),
            _ => duty.reported = Some(now),
        }
        commit.put(&row, &duty).map_err(refuse("internal"))
    }

    // === the consumer ===

    /// Carries out what is due: destroys keys, makes reports. One that can't be done now keeps no other from being done.
    pub async fn do_duties(&self) -> Result<(), Refusal> {
        let now = self.clock.now();
        let mut worked = false;
        for row in self.duty_rows().await? {
            if row.deleted.is_some() {
                continue;
            }
            let (_, agreement) = self.agreement(&row.agreement).await?;
            if !consumes(&agreement) {
                continue;
            }
            let done = if row.delete_by().is_some_and(|by| now >= by) {
                worked = true;
                self.delete_for(&agreement, &row).await
            } else if row.report_by().is_some_and(|by| now >= by) && agreement.state == AgreementState::Active {
                worked = true;
                retry!(self.report_for(&row))
            } else {
                Ok(())
            };
            if let Err(refusal) = done {
                tracing::error!(release = %row.release, %refusal, "a duty could not be carried out; it is tried again");
            }
        }
        if worked {
            self.post();
        }
        Ok(())
    }

    async fn delete_for(&self, agreement: &AgreementRow, row: &DutyRow) -> Result<(), Refusal> {
        for copy in self.copies(Some(agreement.id())).await? {
            if copy.value().release.as_ref() == Some(&row.release) {
                let why = Refusal::new(
                    "duty-delete",
                    "the time within which the copy had to be deleted is over: its keying material was overwritten and removed",
                );
                self.destroy_copy(copy, None, why).await?;
            }
        }
        retry!(self.end_duty(&row.release))
    }

    async fn end_duty(&self, release: &ReleaseId) -> Result<(), Refusal> {
        let row = read::<DutyRow>(&*self.store, &DutyRow::key(release)).await.map_err(refuse("store-unreadable"))?;
        let Some(mut duty) = row.value.clone().filter(|duty| duty.deleted.is_none()) else { return Ok(()) };
        duty.deleted = Some(self.clock.now());
        let mut commit = Commit::new();
        commit.put(&row, &duty).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }

    async fn report_for(&self, row: &DutyRow) -> Result<(), Refusal> {
        let (_, agreement) = self.agreement(&row.agreement).await?;
        let kept =
            read::<DutyRow>(&*self.store, &DutyRow::key(&row.release)).await.map_err(refuse("store-unreadable"))?;
        let Some(mut duty) = kept.value.clone() else { return Ok(()) };
        let usage: BTreeMap<String, u64> =
            agreement.uses.iter().map(|(action, tally)| (action.clone(), tally.total.count)).collect();
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Reported, Some(&agreement));
        receipt.release = Some(row.release.clone());
        receipt.refers = Some(row.released);
        receipt.usage = usage;
        let jws = self.agreement_receipt(&mut commit, &agreement, receipt)?;
        self.tell_half(&mut commit, &agreement, &agreement.negotiation, Kind::Reported, jws)?;
        duty.reported = Some(self.clock.now());
        commit.put(&kept, &duty).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }

    /// What an agreement's release owes, by the policies that decided it.
    pub(super) fn duties_of(&self, agreement: &AgreementRow, released: &Receipt) -> Result<Duties, Refusal> {
        if agreement.ours != Party::Consumer {
            return Ok(Duties::default());
        }
        let offer = self.agreed_offer(agreement)?;
        let slice = self.agreed_slice(agreement, &offer)?;
        let policies = released.decision.as_ref().map(|decision| decision.policies.clone()).unwrap_or_default();
        Ok(slice.duties(&policies))
    }
}
