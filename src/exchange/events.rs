//! Events: each change of a process, as a CloudEvent (CNCF, 1.0), in the very commit that makes it. Their numbers are the
//! order of the commits, so that whoever follows misses none and knows where it stopped.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::{
    error::Refusal,
    exchange::{
        Exchange, refuse,
        rows::{NegotiationRow, TransferRow},
    },
    receipt::{Commit, EVENTS, Row, event_key, list},
};

/// How many events are kept.
const KEPT: u64 = 100_000;
/// How many are read, or deleted, at a time.
const PAGE: usize = 500;
/// The type of an event that says that older ones are gone.
const GAP: &str = "org.counterseal.gap";

/// An event with its number.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its place in the order of commits, from 1.
    pub number: u64,
    /// The CloudEvent.
    pub body: Value,
}

impl Event {
    /// The CloudEvent's `type`.
    pub fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap_or_default()
    }
}

impl Exchange {
    /// Puts the event of a negotiation's change into its commit; nothing where the state is the same.
    pub(super) fn announce_negotiation(
        &self,
        commit: &mut Commit,
        before: Option<&NegotiationRow>,
        row: &NegotiationRow,
    ) {
        if before.is_some_and(|before| before.state == row.state) {
            return;
        }
        self.announce(
            commit,
            "org.counterseal.negotiation",
            row.pid.as_str(),
            json!({
                "pid": row.pid,
                "role": row.ours,
                "state": row.state,
                "peer": row.peer,
                "dataset": row.dataset,
                "offer": row.offer_id,
                "agreement": row.agreement,
                "reason": row.ended,
            }),
        );
    }

    /// The same of a transfer's.
    pub(super) fn announce_transfer(&self, commit: &mut Commit, before: Option<&TransferRow>, row: &TransferRow) {
        if before.is_some_and(|before| before.state == row.state) {
            return;
        }
        self.announce(
            commit,
            "org.counterseal.transfer",
            row.pid.as_str(),
            json!({
                "pid": row.pid,
                "role": row.ours,
                "state": row.state,
                "peer": row.peer,
                "agreement": row.agreement,
                "format": row.format,
                "reason": row.ended,
            }),
        );
    }

    pub(super) fn announce(&self, commit: &mut Commit, kind: &str, subject: &str, data: Value) {
        let mut event = Map::new();
        for (name, value) in [
            ("specversion", json!("1.0")),
            ("source", json!(self.us)),
            ("type", json!(kind)),
            ("subject", json!(subject)),
            ("time", json!(self.clock.now())),
            ("datacontenttype", json!("application/json")),
            ("data", data),
        ] {
            event.insert(name.to_owned(), value);
        }
        commit.event(event);
    }

    /// Events after this number, in order; a page of them. Where the next ones are gone, the first says so.
    pub async fn events_after(&self, after: u64) -> Result<Vec<Event>, Refusal> {
        let rows = list::<Value>(&*self.store, EVENTS.as_bytes(), Some(&event_key(after)), PAGE)
            .await
            .map_err(refuse("store-unreadable"))?;
        let mut events: Vec<Event> = rows
            .into_iter()
            .filter_map(|row| {
                let body = row.value?;
                Some(Event { number: body["id"].as_str()?.parse().ok()?, body })
            })
            .collect();
        if let Some(first) = events.first().map(|event| event.number).filter(|first| *first > after + 1) {
            let body = json!({
                "specversion": "1.0",
                "id": (first - 1).to_string(),
                "source": self.us,
                "type": GAP,
                "time": self.clock.now(),
                "datacontenttype": "application/json",
                "data": { "from": after + 1, "until": first - 1 },
            });
            events.insert(0, Event { number: first - 1, body });
        }
        Ok(events)
    }

    /// The same, or for so long until there is one.
    pub async fn next_events(&self, after: u64, patience: Duration) -> Result<Vec<Event>, Refusal> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let events = self.events_after(after).await?;
            if !events.is_empty() || tokio::time::timeout_at(deadline, moved).await.is_err() {
                return Ok(events);
            }
        }
    }

    /// Deletes events beyond those that are kept, a page at a time.
    pub(super) async fn prune_events(&self) -> Result<(), Refusal> {
        self.prune_events_to(KEPT).await
    }

    async fn prune_events_to(&self, kept: u64) -> Result<(), Refusal> {
        let rows: Vec<Row<Value>> =
            list(&*self.store, EVENTS.as_bytes(), None, PAGE).await.map_err(refuse("store-unreadable"))?;
        let newest = self.committer.events();
        let mut commit = Commit::new();
        for row in rows {
            let number = row.value.as_ref().and_then(|body| body["id"].as_str()).and_then(|id| id.parse::<u64>().ok());
            if number.is_none_or(|number| number + kept <= newest) {
                commit.delete_blind(row.key);
            }
        }
        if commit.is_empty() { Ok(()) } else { self.commit(commit).await.map(|_| ()) }
    }
}
