//! A store that was restored goes on in a new log: the old one may have grown past what the backup holds, and partners know
//! it. Nothing of the old one is touched.

use std::sync::Arc;

use crate::{
    crypto::VerifyingKey,
    id::Did,
    receipt::{
        Filter, Log, PeerCheckpoint, ReceiptError, Receipts, Version,
        checkpoint::{Checkpoint, origin},
        committer::{HEAD, load},
        merkle::{Frontier, leaf_hash},
        rows::{damaged, encode},
    },
    store::{Batch, Store},
    time::Timestamp,
};

/// More events than are ever made between a backup and its restore.
const EVENTS: u64 = 1_000_000_000;
/// Receipts read at a time.
const PAGE: usize = 512;

/// Reads every receipt of a store: each is what its entry says, and the entries of each log are what its checkpoint signs.
/// Gives the newest log.
///
/// # Errors
/// [`ReceiptError::Damaged`], with the first row that doesn't hold.
pub async fn verify_log(store: Arc<dyn Store>, did: &Did, key: &VerifyingKey) -> Result<PeerCheckpoint, ReceiptError> {
    let receipts = Receipts::new(store.clone(), did.clone());
    let mut newest = None;
    for log in Log::new(store).epochs().await? {
        let mut frontier = Frontier::default();
        while frontier.size() < log.size {
            let page = PAGE.min((log.size - frontier.size()) as usize);
            let page = receipts.list(&Filter::default(), log.first + frontier.size(), page).await?;
            let expected = log.first + frontier.size()..;
            if page.is_empty() || page.iter().zip(expected).any(|(stored, place)| stored.index != place) {
                return Err(damaged(
                    HEAD,
                    format!("log {}: receipts after {} are missing", log.epoch, frontier.size()),
                ));
            }
            for stored in &page {
                if stored.jws.sha256() != stored.sha256 {
                    return Err(damaged(HEAD, format!("receipt {} is not what its entry says", stored.receipt.id)));
                }
                frontier.push(leaf_hash(&stored.entry()));
            }
        }
        if log.size > 0 {
            let signed = Checkpoint::verify(&log.checkpoint, &origin(did, log.epoch), key)
                .map_err(|error| damaged(HEAD, format!("log {}: {error}", log.epoch)))?;
            if signed.size != log.size || signed.root != frontier.root() {
                return Err(damaged(HEAD, format!("log {}: its checkpoint is of other receipts", log.epoch)));
            }
        }
        newest = Some(PeerCheckpoint { epoch: log.epoch, size: log.size, root: frontier.root() });
    }
    newest.ok_or_else(|| damaged(HEAD, "there is no log"))
}

/// Begins the next log of a restored store, before any committer runs over it, and writes these rows with it. Its number is
/// the time in seconds: the same backup may be restored again, and that is another log.
///
/// # Errors
/// A store that can't be read or written; a head that is damaged.
pub async fn begin_epoch(store: &dyn Store, rows: Vec<(Vec<u8>, Vec<u8>)>, now: Timestamp) -> Result<(), ReceiptError> {
    let mut head = load(store).await?;
    let ended = head.epoch();
    head.first = head.end();
    head.epoch = (head.epoch + 1).max(u64::try_from(now.seconds()).unwrap_or(0));
    head.version += 1;
    // followers of events may be further than the backup: no number is given twice
    head.events += EVENTS;
    head.frontier = Frontier::default();
    head.checkpoint.clear();
    head.earlier.push(ended);
    let version = Version(head.version);
    let head = serde_json::to_vec(&head).map_err(|error| damaged(HEAD, error.to_string()))?;
    let mut puts: Vec<_> = rows.into_iter().map(|(key, json)| (key, encode(version, &json))).collect();
    puts.push((HEAD.to_vec(), head));
    Ok(store.commit(Batch { puts, ..Batch::default() }).await?)
}
