//! Alarms: what a partner's log is caught at, put on record.

use serde_json::json;

use crate::{
    crypto::sha256,
    error::Refusal,
    evidence::Alarm,
    exchange::{CONFLICT, Exchange, refuse},
    identity::Peer,
    receipt::{Commit, Kind, list, read, row_key},
};

const ALARMS: &str = "al/";

/// What an alarm is about.
pub(in crate::exchange) struct Evidence {
    /// Stable code.
    pub code: &'static str,
    /// For people.
    pub sentence: String,
    /// Whether the objects prove it to anybody.
    pub proven: bool,
    /// What the partner signed.
    pub objects: Vec<String>,
}

impl Exchange {
    /// Puts an alarm on record: evidence, receipt and event in one commit. The same evidence twice is one alarm.
    pub(in crate::exchange) async fn alarm(&self, peer: &Peer, evidence: Evidence) -> Result<(), Refusal> {
        let objects = serde_json::to_vec(&evidence.objects).map_err(refuse("internal"))?;
        let key = row_key(ALARMS, &[peer.did.as_str(), evidence.code, &sha256(&objects).to_string()]);
        let row = read::<Alarm>(&*self.store, &key).await.map_err(refuse("store-unreadable"))?;
        if row.value.is_some() {
            return Ok(());
        }
        let alarm = Alarm {
            peer: peer.did.clone(),
            code: evidence.code.to_owned(),
            sentence: evidence.sentence.clone(),
            proven: evidence.proven,
            at: self.clock.now(),
            objects: evidence.objects,
        };
        tracing::error!(peer = %peer.did, code = evidence.code, "{}", evidence.sentence);
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Alarm, None);
        receipt.consumer = Some(peer.did.clone().into());
        receipt.refers = Some(sha256(&objects));
        receipt.reason = Some(Refusal::new(evidence.code, evidence.sentence));
        self.node_receipt(&mut commit, receipt)?;
        let data =
            json!({ "peer": alarm.peer, "code": alarm.code, "sentence": alarm.sentence, "proven": alarm.proven });
        self.announce(&mut commit, "org.counterseal.alarm", peer.did.as_str(), data);
        commit.put(&row, &alarm).map_err(refuse("internal"))?;
        match self.commit(commit).await {
            // somebody else raised it at the same moment
            Err(refusal) if refusal.is(CONFLICT) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    /// All alarms, oldest first.
    pub async fn alarms(&self) -> Result<Vec<Alarm>, Refusal> {
        let rows =
            list::<Alarm>(&*self.store, ALARMS.as_bytes(), None, 1000).await.map_err(refuse("store-unreadable"))?;
        let mut alarms: Vec<Alarm> = rows.into_iter().filter_map(|row| row.value).collect();
        alarms.sort_by_key(|alarm| alarm.at);
        Ok(alarms)
    }
}
