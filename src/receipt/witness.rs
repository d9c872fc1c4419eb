//! The rules of a witness: C2SP `tlog-witness`, `add-checkpoint`. Pure: whoever keeps what was seen hands it in.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    crypto::jws::Jws,
    id::Sha256,
    receipt::{checkpoint::Checkpoint, note::MAX_NOTE, proof::verify_consistency},
};

/// Most hashes in a consistency proof.
const MAX_PROOF: usize = 63;

/// The body of `add-checkpoint`: the size that the witness is thought to know, the proof from there, the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Entries of the checkpoint that the proof begins at.
    pub old: u64,
    /// RFC 6962 §2.1.2.
    pub proof: Vec<Sha256>,
    /// The signed note.
    pub note: String,
}

impl Submission {
    /// Reads a request's body; says what is wrong with it.
    pub fn parse(body: &str) -> Result<Self, &'static str> {
        if body.len() > MAX_NOTE {
            return Err("more than 64 KiB");
        }
        let (head, note) = body.split_once("\n\n").ok_or("no empty line before the checkpoint")?;
        let mut lines = head.split('\n');
        let size = lines.next().and_then(|line| line.strip_prefix("old ")).ok_or("no `old` line")?;
        let old: u64 = size.parse().map_err(|_| "the old size is not a number")?;
        if old.to_string() != size {
            return Err("the old size is not written plainly");
        }
        let proof = lines
            .map(|line| STANDARD.decode(line).ok().and_then(|hash| <[u8; 32]>::try_from(hash).ok()).map(Sha256))
            .collect::<Option<Vec<_>>>()
            .ok_or("a line of the proof is not a hash")?;
        if proof.len() > MAX_PROOF {
            return Err("more than 63 hashes in the proof");
        }
        Ok(Self { old, proof, note: note.to_owned() })
    }

    /// The body.
    pub fn body(&self) -> String {
        let proof: String = self.proof.iter().map(|hash| STANDARD.encode(hash.as_bytes()) + "\n").collect();
        format!("old {}\n{proof}\n{}", self.old, self.note)
    }
}

/// What a witness keeps of a log: the newest checkpoint that it cosigned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Which log.
    pub origin: String,
    /// Its entries.
    pub size: u64,
    /// Its root.
    pub root: Sha256,
    /// As the log signed it.
    pub note: String,
    /// The checkpoint after it whose proof failed, if it is being asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubtful: Option<String>,
    /// Of a log that a restore began: its first receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Jws>,
}

/// What follows from a checkpoint whose signature holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is cosigned, and from now on the newest.
    Accept,
    /// The old size is larger than the checkpoint's: 400.
    Backwards,
    /// The old size is not what we know: 409 with this one. No alarm: reordered, repeated or late.
    Conflict(u64),
    /// The same size with another root, both signed by the log: evidence. 409 and an alarm.
    Forked,
    /// The proof doesn't hold: 422; it is asked again.
    Unproven,
    /// The proof for it failed a second time: 422 and an alarm, marked unproven.
    UnprovenAgain,
}

/// Judges a checkpoint of a log by what was seen of it. The caller has checked its origin and its signature.
pub fn judge(seen: Option<&Seen>, submission: &Submission, checkpoint: &Checkpoint) -> Judgement {
    let empty = crate::crypto::sha256(b"");
    let (size, root) = seen.map_or((0, empty), |seen| (seen.size, seen.root));
    // whatever it says of old sizes: two signed roots of one size are evidence
    if checkpoint.size == size && checkpoint.root != root {
        return Judgement::Forked;
    }
    if submission.old > checkpoint.size {
        return Judgement::Backwards;
    }
    if submission.old != size {
        return Judgement::Conflict(size);
    }
    if verify_consistency(size, &root, checkpoint.size, &checkpoint.root, &submission.proof) {
        return Judgement::Accept;
    }
    let again = seen.and_then(|seen| seen.doubtful.as_ref());
    match again.and_then(|note| Checkpoint::claimed(note).ok()) {
        Some(_) => Judgement::UnprovenAgain,
        None => Judgement::Unproven,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::SigningKey,
        receipt::{
            merkle::{leaf_hash, root_of},
            proof::{Subtree, consistency},
        },
    };

    fn leaves(count: u64) -> Vec<Sha256> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    fn checkpoint(leaves: &[Sha256]) -> Checkpoint {
        Checkpoint { origin: "log".into(), size: leaves.len() as u64, root: root_of(leaves) }
    }

    fn seen(leaves: &[Sha256]) -> Seen {
        let checkpoint = checkpoint(leaves);
        let note = checkpoint.sign(&SigningKey::from_seed([1; 32]));
        Seen {
            origin: checkpoint.origin,
            size: checkpoint.size,
            root: checkpoint.root,
            note,
            doubtful: None,
            restored: None,
        }
    }

    fn submission(leaves: &[Sha256], old: u64) -> Submission {
        let proof = consistency(old, leaves.len() as u64)
            .unwrap_or_default()
            .into_iter()
            .map(|subtree| {
                let hashes: Vec<Sha256> = subtree
                    .nodes()
                    .into_iter()
                    .map(|node| root_of(&leaves[(node.index << node.level) as usize..][..1 << node.level]))
                    .collect();
                Subtree::fold(&hashes).unwrap()
            })
            .collect();
        Submission { old, proof, note: checkpoint(leaves).sign(&SigningKey::from_seed([1; 32])) }
    }

    #[test]
    fn the_rules_hold_at_all_small_sizes() {
        let all = leaves(40);
        for known in 0..20_usize {
            let before = (known > 0).then(|| seen(&all[..known]));
            for size in known..40 {
                let (next, new) = (submission(&all[..size], known as u64), checkpoint(&all[..size]));
                assert_eq!(judge(before.as_ref(), &next, &new), Judgement::Accept, "{known} to {size}");
            }
            // a late one, and one that thinks we know less or more than we do
            for size in 0..known {
                let late = submission(&all[..size], size as u64);
                let judged = judge(before.as_ref(), &late, &checkpoint(&all[..size]));
                assert_eq!(judged, Judgement::Conflict(known as u64), "late {size} after {known}");
            }
            let ahead = submission(&all, known as u64 + 1);
            assert_eq!(judge(before.as_ref(), &ahead, &checkpoint(&all)), Judgement::Conflict(known as u64));
        }
    }

    #[test]
    fn another_history_is_evidence_or_unproven() {
        let (all, mut other) = (leaves(20), leaves(20));
        other[3] = leaf_hash(b"rewritten");
        let mut known = seen(&all[..10]);
        assert_eq!(judge(Some(&known), &submission(&other[..10], 10), &checkpoint(&other[..10])), Judgement::Forked);
        // even where it says something else of the old size
        assert_eq!(judge(Some(&known), &submission(&other[..10], 0), &checkpoint(&other[..10])), Judgement::Forked);
        let forged = submission(&other, 10);
        assert_eq!(judge(Some(&known), &forged, &checkpoint(&other)), Judgement::Unproven);
        known.doubtful = Some(forged.note.clone());
        assert_eq!(judge(Some(&known), &forged, &checkpoint(&other)), Judgement::UnprovenAgain);
        // a proof that holds clears it
        assert_eq!(judge(Some(&known), &submission(&all, 10), &checkpoint(&all)), Judgement::Accept);
        let backwards = Submission { old: 30, ..submission(&all, 10) };
        assert_eq!(judge(Some(&known), &backwards, &checkpoint(&all)), Judgement::Backwards);
        let padded = Submission { proof: vec![Sha256([0; 32])], ..submission(&all, 0) };
        assert_eq!(judge(None, &padded, &checkpoint(&all)), Judgement::Unproven);
    }

    #[test]
    fn a_submission_is_read_as_it_was_written() {
        let all = leaves(20);
        let written = submission(&all, 7);
        assert_eq!(Submission::parse(&written.body()), Ok(written.clone()));
        assert_eq!(Submission::parse(&submission(&all, 0).body()), Ok(submission(&all, 0)));
        let body = written.body();
        for (wrong, why) in [
            (body.replace("old 7", "old 07"), "plainly"),
            (body.replace("old 7", "old -7"), "number"),
            (body.replace("old 7\n", ""), "`old`"),
            (body.replacen("=\n", "\n", 1), "hash"),
            ("old 7".into(), "empty line"),
            (format!("old 0\n{}\n{}", format!("{}\n", STANDARD.encode([0; 32])).repeat(64), written.note), "63"),
        ] {
            assert!(Submission::parse(&wrong).unwrap_err().contains(why), "{why}");
        }
    }
}
