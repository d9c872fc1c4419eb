//! The timer: deadlines of open releases, ends of agreements, and the receipt of refusals that were only counted.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    error::Refusal,
    exchange::Exchange,
    receipt::{Commit, Kind},
};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between looks at agreements that have run out.
const ENDS: u32 = 5;
/// Ticks between looks at what is owed after releases.
const DUTIES: u32 = 2;
/// Ticks between looks at steps that wait for people.
const PENDING: u32 = 5;
/// Ticks between looks at processes that have not moved for long.
const INQUIRE: u32 = 30;
/// Ticks between deletions of old events.
const PRUNE: u32 = 10;
/// Ticks between looks at whether the log is to be anchored.
const ANCHOR: u32 = 2;
/// Ticks between erasures of what has been kept long enough.
const RETAIN: u32 = 3;
/// Ticks between receipts of counted refusals.
const FLUSH: u32 = 60;

/// Does what is due.
pub struct Timer(Exchange);

impl Timer {
    /// A timer over these walks.
    pub const fn new(exchange: Exchange) -> Self {
        Self(exchange)
    }

    /// Ticks until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = 0_u32;
        let mut inquiry = JoinSet::new();
        while tokio::time::timeout(TICK, stop.cancelled()).await.is_err() {
            ticks += 1;
            self.0.start_pushes();
            if let Err(refusal) = self.deadlines().await {
                tracing::error!(%refusal, "deadlines could not be looked at");
            }
            if ticks.is_multiple_of(ENDS)
                && let Err(refusal) = self.0.finish_ended().await
            {
                tracing::error!(%refusal, "agreements could not be ended");
            }
            if ticks.is_multiple_of(DUTIES)
                && let Err(refusal) = self.0.do_duties().await
            {
                tracing::error!(%refusal, "duties could not be looked at");
            }
            if ticks.is_multiple_of(PRUNE)
                && let Err(refusal) = self.0.forget_approvals().await
            {
                tracing::error!(%refusal, "approvals that nobody used could not be forgotten");
            }
            if ticks.is_multiple_of(PENDING)
                && let Err(refusal) = self.0.finish_withdrawals().await
            {
                tracing::error!(%refusal, "withdrawn consents could not be looked at");
            }
            if ticks.is_multiple_of(PENDING)
                && let Err(refusal) = self.0.expire_pending().await
            {
                tracing::error!(%refusal, "steps that wait for people could not be looked at");
            }
            // partners may be slow to answer: deadlines don't wait for them
            if ticks.is_multiple_of(INQUIRE) && inquiry.is_empty() {
                let exchange = self.0.clone();
                inquiry.spawn(async move {
                    if let Err(refusal) = exchange.inquire().await {
                        tracing::error!(%refusal, "what partners say of processes could not be recorded");
                    }
                });
            }
            while inquiry.try_join_next().is_some() {}
            if ticks.is_multiple_of(PRUNE)
                && let Err(refusal) = self.0.prune_events().await
            {
                tracing::error!(%refusal, "old events could not be deleted");
            }
            if ticks.is_multiple_of(ANCHOR)
                && let Err(refusal) = self.0.anchor().await
            {
                tracing::error!(%refusal, "the log could not be anchored");
            }
            if ticks.is_multiple_of(RETAIN)
                && let Err(refusal) = self.0.erase_spent().await
            {
                tracing::error!(%refusal, "what was kept for steps that have been taken could not be erased");
            }
            if ticks.is_multiple_of(RETAIN)
                && let Err(refusal) = self.0.retain().await
            {
                tracing::error!(%refusal, "contents whose time is over could not be erased");
            }
            if ticks.is_multiple_of(FLUSH)
                && let Err(refusal) = self.0.flush_refusals().await
            {
                tracing::error!(%refusal, "counted refusals could not be recorded");
            }
        }
        let _ = self.0.flush_refusals().await;
    }

    async fn deadlines(&self) -> Result<(), Refusal> {
        let now = self.0.clock.now();
        for id in self.0.open_releases.due(now) {
            match self.0.lapse(&id).await {
                Ok(()) => self.0.open_releases.done(&id),
                // looked at again when the partner has said what it knows
                Err(refusal) if refusal.is("restore-unfinished") => {}
                Err(refusal) => {
                    tracing::error!(release = %id, %refusal, "a release could not be closed at its deadline")
                }
            }
        }
        Ok(())
    }
}

impl Exchange {
    /// One receipt for all refusals that got none of their own.
    async fn flush_refusals(&self) -> Result<(), Refusal> {
        let counted = self.refusals.take();
        if counted == 0 {
            return Ok(());
        }
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Denied, None);
        receipt.counted = Some(counted);
        receipt.reason =
            Some(Refusal::new("refusals-counted", "refusals over budget, or of callers that nobody knows"));
        self.node_receipt(&mut commit, receipt)?;
        self.commit(commit).await.map(|_| ())
    }
}
