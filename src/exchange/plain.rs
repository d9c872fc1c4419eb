//! Plain releases, to foreign connectors: decided and recorded like any other, signed by us alone.

use std::net::SocketAddr;

use async_trait::async_trait;

use crate::{
    agreement::{Delivery, Question, decide, principal_of_partner},
    dataplane::{Grant, PlainRelease, PlainReleases},
    error::Refusal,
    exchange::{
        Exchange, address, refuse,
        release::{can_apply, reserved},
        retry,
    },
    id::{ParticipantId, ReleaseId, Sha256},
    identity::Partner,
    policy::{Action, Asked, Verdict},
    protocol::Party,
    receipt::{Commit, Kind, Payload},
};

#[async_trait]
impl PlainReleases for Exchange {
    async fn release_plain(&self, grant: &Grant, remote: Option<SocketAddr>) -> Result<PlainRelease, Refusal> {
        retry!(self.release_plain_once(grant, remote))
    }

    async fn delivered_plain(&self, release: &PlainRelease, bytes: u64, sha256: Sha256) -> Result<(), Refusal> {
        let (_, agreement) = self.agreement(&release.agreement).await?;
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Delivered, Some(&agreement));
        receipt.transfer = Some(release.transfer.clone());
        receipt.release = Some(release.id.clone());
        receipt.payload = Some(Payload { bytes, records: None, segments: Vec::new() });
        self.record_commitment(&mut commit, &mut receipt, "plaintext", sha256.as_bytes());
        self.agreement_receipt(&mut commit, &agreement, receipt)?;
        self.commit(commit).await.map(|_| ())
    }

    fn takes_plain(&self, participant: &ParticipantId) -> bool {
        matches!(self.partner(participant), Ok(Partner::Token(_)))
    }
}

impl Exchange {
    async fn release_plain_once(&self, grant: &Grant, remote: Option<SocketAddr>) -> Result<PlainRelease, Refusal> {
        let (row, agreement) = self.agreement(&grant.agreement).await?;
        let partner = self.partner(&grant.peer)?;
        if agreement.ours != Party::Provider || *agreement.peer() != grant.peer || !agreement.one_sided {
            return Err(Refusal::new("agreement-unknown", "the transfer's agreement is not this participant's"));
        }
        self.restorations.over(&grant.peer)?;
        self.may_decide()?;
        let now = self.clock.now();
        if let Err(refusal) = agreement.in_force(now) {
            return self.deny(&agreement, &grant.peer, grant, None, refusal).await;
        }
        let offer = self.agreed_offer(&agreement)?;
        let slice = self.agreed_slice(&agreement, &offer)?;
        let decision = decide(
            &slice,
            &Question {
                site: partner.attributes().physical_address.as_deref(),
                agreement: Some(&agreement),
                // a pull has no place for a purpose: none was declared
                purpose: None,
                address: remote.and_then(address),
                delivery: Delivery::file(false),
                ..Question::new(Action::Release, principal_of_partner(partner.id(), partner.attributes()), &offer, now)
            },
        );
        if decision.verdict != Verdict::Allow {
            let refusal = decision
                .reason
                .clone()
                .unwrap_or_else(|| Refusal::new("policy-no-permit", "the policy did not allow it"));
            return self.deny(&agreement, &grant.peer, grant, Some((&decision, "")), refusal).await;
        }
        let spent = agreement.releases.total.records;
        let obligations =
            match decision.obligations.clone().for_request(&Asked::default(), &offer.dataset.columns, spent) {
                Ok(obligations) => obligations,
                Err(wrong) => {
                    let refusal = Refusal::new(wrong.code(), wrong.to_string());
                    return self.deny(&agreement, &grant.peer, grant, Some((&decision, "")), refusal).await;
                }
            };
        let format = agreement.source.as_ref().map(|pin| pin.format.as_str());
        if let Err(refusal) = can_apply(&obligations, &offer.dataset.columns, format) {
            return self.deny(&agreement, &grant.peer, grant, Some((&decision, "")), refusal).await;
        }
        let Some(pin) = agreement.source.clone() else {
            return Err(Refusal::new("source-unavailable", "the agreement names no source of ours"));
        };
        let id: ReleaseId = self.mint();
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Released, Some(&agreement));
        receipt.transfer = Some(grant.transfer.clone());
        receipt.release = Some(id.clone());
        receipt.authentication = Some(partner.authentication().into());
        self.record_decision(&mut commit, &mut receipt, &decision);
        receipt.action = Some(Action::Release.as_str().to_owned());
        receipt.obligations_sha256 = Some(decision.obligations.sha256());
        receipt.snapshot = Some(pin.snapshot);
        self.agreement_receipt(&mut commit, &agreement, receipt)?;
        let mut spent = agreement.clone();
        let amount = reserved(pin.extent.unwrap_or_default(), &obligations);
        spent.releases.spend(amount, now, offer.policy.zone);
        commit.put(&row, &spent).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        Ok(PlainRelease {
            id,
            agreement: agreement.id().clone(),
            transfer: grant.transfer.clone(),
            format: pin.format.parse().map_err(refuse("format-unsupported"))?,
            source: pin.path,
            snapshot: pin.snapshot,
            columns: offer.dataset.columns.clone(),
            obligations,
        })
    }
}
