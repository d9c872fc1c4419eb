//! The log: entries under the newest checkpoint, and under each that a partner cosigned.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    crypto::sha256,
    evidence::{
        Anchored, Bundle,
        verify::{Findings, keys::Keys},
    },
    id::Did,
    receipt::{
        checkpoint::{Checkpoint, origin, witness_name},
        merkle::{Frontier, leaf_hash},
    },
    time::Timestamp,
};

/// A cosignature that holds.
#[derive(Clone, Debug, Serialize)]
pub struct Cosignature {
    /// Entries that it covers.
    pub size: u64,
    /// By whom.
    pub by: Did,
    /// When, by that one's clock.
    pub at: Timestamp,
}

/// The newest of each partner.
pub(super) fn newest(cosignatures: &[Cosignature]) -> Vec<Cosignature> {
    let mut newest: BTreeMap<&Did, &Cosignature> = BTreeMap::new();
    for one in cosignatures {
        let known = newest.entry(&one.by).or_insert(one);
        if one.size >= known.size {
            *known = one;
        }
    }
    newest.into_values().cloned().collect()
}

/// Checks checkpoints against entries. Gives the cosignatures that hold, by size.
pub(super) fn check(bundle: &Bundle, keys: &Keys, findings: &mut Findings) -> Vec<Cosignature> {
    let about = &bundle.about;
    let Some(exporter) = keys.parties.get(&about.exporter) else {
        findings.wrong(
            "statement-missing",
            about.exporter.to_string(),
            "the exporter's own statements are not in the export",
        );
        return Vec::new();
    };
    let log = origin(&about.exporter, about.epoch);
    let signed = |note: &str| Checkpoint::verify(note, &log, &exporter.newest.keys.log);
    let newest = match signed(&bundle.checkpoint) {
        Ok(newest) => newest,
        Err(error) => {
            findings.wrong("checkpoint-broken", "checkpoint", error.to_string());
            return Vec::new();
        }
    };
    let mut cosignatures = Vec::new();
    let mut cosigned = bundle.checkpoints.iter().peekable();
    let mut anchored: BTreeMap<u64, Vec<&Anchored>> = BTreeMap::new();
    for anchor in &bundle.anchors {
        let place = format!("anchors.jsonl, number {}", anchor.stamp.serial);
        match signed(&anchor.note) {
            Err(error) => findings.wrong("anchor-broken", place, error.to_string()),
            Ok(_) if sha256(anchor.note.as_bytes()) != anchor.stamp.imprint => {
                findings.wrong("anchor-broken", place, "the stamp is over another note");
            }
            Ok(checkpoint) if checkpoint.size > bundle.entries.len() as u64 => {
                findings.wrong("log-altered", place, "more entries were stamped than there are");
            }
            Ok(checkpoint) => anchored.entry(checkpoint.size).or_default().push(anchor),
        }
    }
    let mut frontier = Frontier::default();
    for size in 0..=bundle.entries.len() as u64 {
        while let Some((_, note)) = cosigned.next_if(|(at, _)| **at == size) {
            let place = format!("checkpoints/{size}");
            match signed(note) {
                Err(error) => findings.wrong("checkpoint-broken", place, error.to_string()),
                Ok(checkpoint) if checkpoint.size != size || checkpoint.root != frontier.root() => {
                    findings.wrong("log-forked", place, "the log that it signs is not the beginning of this one");
                }
                Ok(checkpoint) => {
                    cosignatures.extend(cosigners(&checkpoint, note, keys, &about.exporter, &place, findings))
                }
            }
        }
        for anchor in anchored.remove(&size).into_iter().flatten() {
            if Checkpoint::claimed(&anchor.note).is_ok_and(|checkpoint| checkpoint.root != frontier.root()) {
                let place = format!("anchors.jsonl, number {}", anchor.stamp.serial);
                findings.wrong("log-forked", place, "the log that was stamped is not the beginning of this one");
            }
        }
        if let Some(entry) = bundle.entries.get(size as usize) {
            frontier.push(leaf_hash(entry));
        }
    }
    if let Some((size, _)) = cosigned.next() {
        findings.wrong("log-altered", format!("checkpoints/{size}"), "a partner cosigned more entries than there are");
    }
    if newest.size != bundle.entries.len() as u64 || newest.root != frontier.root() {
        let problem =
            format!("the {} entries are not the {} that the checkpoint signs", bundle.entries.len(), newest.size);
        findings.wrong("log-altered", log, problem);
    } else {
        cosignatures.extend(cosigners(&newest, &bundle.checkpoint, keys, &about.exporter, "checkpoint", findings));
    }
    cosignatures
}

/// The partners whose cosignatures are in a note; lines of others, or that don't verify, are named.
fn cosigners(
    checkpoint: &Checkpoint,
    note: &str,
    keys: &Keys,
    exporter: &Did,
    place: &str,
    findings: &mut Findings,
) -> Vec<Cosignature> {
    let mut found = Vec::new();
    let lines = crate::receipt::note::split(note).map_or_else(Vec::new, |(_, lines)| lines);
    for line in lines.iter().filter(|line| line.name != checkpoint.origin) {
        let party = keys.parties.iter().find(|(did, _)| witness_name(did) == line.name && *did != exporter);
        let held = party.and_then(|(did, party)| {
            let at = checkpoint.cosigned_by(note.split_once("\n\n")?.1, line.name, &party.newest.keys.cosigner).ok()?;
            Some(Cosignature { size: checkpoint.size, by: did.clone(), at })
        });
        match held {
            Some(cosignature) => found.push(cosignature),
            None => findings.wrong(
                "cosignature-broken",
                place,
                format!("the cosignature of `{}` does not hold", line.name.chars().take(200).collect::<String>()),
            ),
        }
    }
    found
}
