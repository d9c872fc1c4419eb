//! The steps in which time goes by: what is due is done, and looked at.

use super::{
    act::{Came, Play, done},
    format::length,
};
use crate::{
    cli::{
        refused,
        stage::{Teller, missing, until},
    },
    exchange::DutyView,
    time::{Clock as _, Timestamp},
};

impl Play<'_> {
    pub(super) async fn wait(&self, time: &str, teller: &mut Teller) -> Came {
        self.clock.advance(length(time).map_err(anyhow::Error::msg)?);
        for actor in self.actors.values() {
            done!(actor.node.exchange.finish_ended().await);
            done!(actor.node.exchange.do_duties().await);
        }
        self.settle().await?;
        let now = self.clock.now();
        teller.check(true, format!("everybody's clock shows {now}"), format!("各方时钟为 {now}"))?;
        Ok(Ok(()))
    }

    /// What consumers did is told to providers; whoever is not reachable any more is not waited for.
    async fn settle(&self) -> anyhow::Result<()> {
        for agreed in self.agreements.values() {
            let (provider, consumer) = (self.actor(&agreed.provider)?, self.actor(&agreed.consumer)?);
            if self.talk(provider, consumer) {
                until("the provider has what the consumer wrote", async || {
                    Ok(missing(consumer, provider, &agreed.id).await? == 0)
                })
                .await?;
                // what is not done in time is for the step to find that looks at duties
                let _ = until("the provider has noted it", async || {
                    let now = self.clock.now();
                    let duties = provider.node.exchange.duties().await.map_err(refused)?;
                    let due = |by: Option<Timestamp>| by.is_some_and(|by| by <= now);
                    let open =
                        |duty: &&DutyView| duty.deleted.is_none() && (due(duty.delete_by) || due(duty.report_by));
                    Ok(duties.iter().filter(|duty| duty.agreement == agreed.id).all(|duty| !open(&duty)))
                })
                .await;
            }
        }
        Ok(())
    }

    pub(super) async fn duties(&self, at: &str, overdue: bool, teller: &mut Teller) -> Came {
        let duties = done!(self.actor(at)?.node.exchange.duties().await);
        for duty in &duties {
            let state = match (&duty.overdue[..], duty.deleted) {
                ([], Some(when)) => format!("{}: {} {when}", duty.duties.join("; "), teller.pick("deleted", "已删除")),
                ([], None) => format!("{}: {}", duty.duties.join("; "), teller.pick("not due yet", "未到期")),
                (late, _) => format!("{}: {}", late.join("; "), teller.pick("overdue", "逾期")),
            };
            teller.show(&format!("{} {state}", duty.consumer));
        }
        let late = duties.iter().filter(|duty| !duty.overdue.is_empty()).count();
        let all = duties.len();
        teller.check(
            (late > 0) == overdue,
            format!("of {all} releases with duties, {late} have one that is overdue"),
            format!("{all} 次负有义务的放行中，{late} 次有逾期义务"),
        )?;
        Ok(Ok(()))
    }
}
