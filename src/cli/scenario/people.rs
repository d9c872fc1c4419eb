//! The steps of people who put something on record: approvals, consents, second factors.

use anyhow::Context as _;
use totp_rs::{Builder, Secret};

use super::act::{Came, Factor, Play, done};
use crate::{
    agreement::ApprovalState,
    cli::stage::Teller,
    error::Refusal,
    exchange::{ConsentBody, Enrolment},
    id::DatasetId,
};

impl Play<'_> {
    pub(super) async fn decide(&self, at: &str, by: &str, role: &str, no: Option<&str>, teller: &mut Teller) -> Came {
        let approver = self
            .approvers
            .get(&(at.to_owned(), by.to_owned()))
            .with_context(|| format!("by = \"{by}\": no step before makes that approver at {at}"))?;
        let exchange = &self.actor(at)?.node.exchange;
        let waiting = done!(exchange.approvals().await);
        let oldest = waiting.into_iter().find(|one| one.role == role && one.state == ApprovalState::Open);
        let Some(oldest) = oldest else {
            let nothing = format!("nothing at {at} waits for the role `{role}`");
            return Ok(Err(Refusal::new("approval-unknown", nothing)));
        };
        done!(exchange.decide_approval(approver, &oldest.id, no).await);
        let (who, what) = (&oldest.object.principal, format!("{}, {}", oldest.object.action, oldest.object.purpose));
        let (en, zh) = if no.is_some() { ("refused", "不批准") } else { ("approved", "批准") };
        teller.check(true, format!("{by} {en} exactly this: {who}, {what}"), format!("{by} {zh}：{who}，{what}"))?;
        Ok(Ok(()))
    }

    pub(super) fn consent(&self, of: &str, dataset: &str, name: &str, reference: &str) -> anyhow::Result<ConsentBody> {
        Ok(ConsentBody {
            name: name.to_owned(),
            participant: self.actor(of)?.did().clone().into(),
            dataset: DatasetId::parse(dataset).context("`dataset`")?,
            reference: reference.to_owned(),
            until: None,
        })
    }

    pub(super) async fn enrol(&mut self, at: &str, of: &str, person: &str) -> Came {
        let enrolment = Enrolment { participant: self.actor(of)?.did().clone().into(), person: person.to_owned() };
        let uri = done!(self.actor(at)?.node.exchange.enrol(&enrolment).await);
        let secret = uri.split("secret=").nth(1).and_then(|rest| rest.split('&').next());
        let secret = Secret::try_from_base32(secret.context("an enrolment shows a secret")?);
        let codes = Builder::new().with_secret(secret.map_err(|error| anyhow::anyhow!("{error}"))?).build()?;
        self.factors.insert((at.to_owned(), of.to_owned(), person.to_owned()), Factor { codes, used: None });
        Ok(Ok(()))
    }
}
