//! Checkpoints and cosignatures: C2SP `tlog-checkpoint` and `tlog-cosignature`, in signed notes. Pure.
//!
//! ```text
//!   <origin>\n<size>\n<base64 root>\n
//!   \n
//!   — <origin> <base64(key id ‖ Ed25519 signature)>\n          by the log
//!   — <witness> <base64(key id ‖ time ‖ Ed25519 signature)>\n  by partners
//! ```

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    crypto::{SigningKey, VerifyingKey},
    id::{Did, Sha256},
    receipt::note::{self, Algorithm, Line},
    time::Timestamp,
};

/// The largest size, and the largest number of a log: what can be said in JSON (RFC 8785), and so in receipts.
const MAX_NUMBER: u64 = (1 << 53) - 1;

/// Why a checkpoint was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CheckpointError {
    /// Not three lines, an empty one, and signatures.
    #[error("not a checkpoint: {0}")]
    Syntax(&'static str),
    /// Another log's.
    #[error("the checkpoint's origin is `{0}`")]
    Origin(String),
    /// No signature by this key, or a wrong one.
    #[error("no valid signature by the log's key")]
    Signature,
    /// No cosignature by this key, or a wrong one.
    #[error("no valid cosignature by the witness' key")]
    Cosignature,
}

/// A tree as a checkpoint states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log.
    pub origin: String,
    /// Entries.
    pub size: u64,
    /// Tree root.
    pub root: Sha256,
}

/// The origin of a participant's log: `<did>/log/<epoch>`. A restored store begins the next epoch.
pub fn origin(did: &Did, epoch: u64) -> String {
    format!("{did}/log/{epoch}")
}

/// Which of this participant's logs has this origin; `None` for anybody else's.
pub fn epoch_of(origin: &str, did: &(impl AsRef<str> + ?Sized)) -> Option<u64> {
    let number = origin.strip_prefix(did.as_ref())?.strip_prefix("/log/")?;
    number.parse().ok().filter(|epoch: &u64| (1..=MAX_NUMBER).contains(epoch) && epoch.to_string() == number)
}

/// The name by which a participant cosigns: `<did>/witness`.
pub fn witness_name(did: &Did) -> String {
    format!("{did}/witness")
}

impl Checkpoint {
    /// The note's text.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.as_bytes()))
    }

    /// The signed note.
    pub fn sign(&self, key: &SigningKey) -> String {
        let text = self.text();
        let id = note::key_id(&self.origin, Algorithm::Ed25519, &key.public());
        format!("{text}\n{}", note::write_line(&self.origin, id, &key.sign_raw(text.as_bytes())))
    }

    /// What a note says, whoever signed it.
    pub fn claimed(note: &str) -> Result<Self, CheckpointError> {
        let (text, _) = note::split(note).ok_or(CheckpointError::Syntax("not a signed note"))?;
        let mut lines = text.lines();
        let mut next = || lines.next().ok_or(CheckpointError::Syntax("fewer than three lines"));
        let (origin, size, root) = (next()?, next()?, next()?);
        let number: u64 = size.parse().map_err(|_| CheckpointError::Syntax("the size is not a number"))?;
        if number.to_string() != size {
            return Err(CheckpointError::Syntax("the size is not written plainly"));
        }
        if number > MAX_NUMBER {
            return Err(CheckpointError::Syntax("the size is larger than 2^53-1"));
        }
        let root = STANDARD
            .decode(root)
            .ok()
            .and_then(|root| <[u8; 32]>::try_from(root).ok())
            .ok_or(CheckpointError::Syntax("the root is not a hash"))?;
        if lines.next().is_some() {
            return Err(CheckpointError::Syntax("our checkpoints have no extension lines"));
        }
        Ok(Self { origin: origin.to_owned(), size: number, root: Sha256(root) })
    }

    /// Reads a note that `key` signed for `origin`. Signatures by others beside it are left alone.
    pub fn verify(note: &str, origin: &str, key: &VerifyingKey) -> Result<Self, CheckpointError> {
        let checkpoint = Self::claimed(note)?;
        if checkpoint.origin != origin {
            return Err(CheckpointError::Origin(checkpoint.origin.chars().take(200).collect()));
        }
        let text = checkpoint.text();
        let id = note::key_id(origin, Algorithm::Ed25519, key);
        let signed = signatures(note, origin, id).any(|signature| key.verify_raw(text.as_bytes(), &signature));
        if signed { Ok(checkpoint) } else { Err(CheckpointError::Signature) }
    }

    /// This checkpoint's note with the log's own signature lines alone: what others added is not ours to keep.
    pub fn bare(&self, note: &str) -> String {
        let own = format!("\u{2014} {} ", self.origin);
        let lines = note.lines().filter(|line| line.starts_with(&own));
        lines.fold(self.text() + "\n", |bare, line| bare + line + "\n")
    }

    /// A cosignature line over this checkpoint: that it is the largest consistent tree of this log that we know.
    pub fn cosign(&self, name: &str, key: &SigningKey, at: Timestamp) -> String {
        let seconds = u64::try_from(at.seconds()).unwrap_or(0);
        let mut signature = seconds.to_be_bytes().to_vec();
        signature.extend_from_slice(&key.sign_raw(&self.cosigned(seconds)));
        note::write_line(name, note::key_id(name, Algorithm::Cosignature, &key.public()), &signature)
    }

    /// When this witness cosigned the checkpoint, by one of these lines.
    pub fn cosigned_by(&self, lines: &str, name: &str, key: &VerifyingKey) -> Result<Timestamp, CheckpointError> {
        let id = note::key_id(name, Algorithm::Cosignature, key);
        lines
            .lines()
            .filter_map(note::line)
            .filter_map(|line| of(line, name, id))
            .find_map(|signature| {
                let (time, signature) = signature.split_first_chunk::<8>()?;
                let seconds = u64::from_be_bytes(*time);
                let millis = i64::try_from(seconds).ok()?.checked_mul(1000)?;
                key.verify_raw(&self.cosigned(seconds), signature).then_some(Timestamp::from_millis(millis))
            })
            .ok_or(CheckpointError::Cosignature)
    }

    fn cosigned(&self, seconds: u64) -> Vec<u8> {
        format!("cosignature/v1\ntime {seconds}\n{}", self.text()).into_bytes()
    }
}

fn signatures(note: &str, name: &str, id: [u8; 4]) -> impl Iterator<Item = Vec<u8>> {
    let lines = note::split(note).map_or_else(Vec::new, |(_, lines)| lines);
    lines.into_iter().filter_map(|line| of(line, name, id)).collect::<Vec<_>>().into_iter()
}

fn of(line: Line<'_>, name: &str, id: [u8; 4]) -> Option<Vec<u8>> {
    if line.name == name { line.signature.strip_prefix(&id).map(<[u8]>::to_vec) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_reads_what_it_signed_and_nothing_else() {
        let key = SigningKey::from_seed([3; 32]);
        let checkpoint = Checkpoint { origin: "did:web:a.invalid/log/1".into(), size: 17, root: Sha256([5; 32]) };
        let note = checkpoint.sign(&key);
        let verify = |note: &str| Checkpoint::verify(note, "did:web:a.invalid/log/1", &key.public());
        assert_eq!(verify(&note).unwrap(), checkpoint);
        assert_eq!(verify(&note.replace("17", "18")), Err(CheckpointError::Signature));
        assert_eq!(verify(&note.replace("17", "017")), Err(CheckpointError::Syntax("the size is not written plainly")));
        assert!(matches!(verify(&note.replace("/log/1", "/log/2")), Err(CheckpointError::Origin(_))));
        let other = SigningKey::from_seed([4; 32]).public();
        assert_eq!(Checkpoint::verify(&note, &checkpoint.origin, &other), Err(CheckpointError::Signature));
    }

    #[test]
    fn a_cosignature_is_of_one_checkpoint_at_one_time_by_one_witness() {
        let (log, witness) = (SigningKey::from_seed([3; 32]), SigningKey::from_seed([4; 32]));
        let checkpoint = Checkpoint { origin: "did:web:a.invalid/log/1".into(), size: 17, root: Sha256([5; 32]) };
        let at = Timestamp::from_millis(1_679_315_147_000);
        let line = checkpoint.cosign("did:web:b.invalid/witness", &witness, at);
        let by = |checkpoint: &Checkpoint, lines: &str, name: &str, key: &SigningKey| {
            checkpoint.cosigned_by(lines, name, &key.public())
        };
        assert_eq!(by(&checkpoint, &line, "did:web:b.invalid/witness", &witness), Ok(at));
        // beside the log's own signature it stays a note that the log's verifiers read
        let note = checkpoint.sign(&log) + &line;
        assert_eq!(Checkpoint::verify(&note, &checkpoint.origin, &log.public()).unwrap(), checkpoint);
        let wrong = Err(CheckpointError::Cosignature);
        assert_eq!(by(&checkpoint, &line, "did:web:c.invalid/witness", &witness), wrong);
        assert_eq!(by(&checkpoint, &line, "did:web:b.invalid/witness", &log), wrong);
        assert_eq!(
            by(&Checkpoint { size: 18, ..checkpoint.clone() }, &line, "did:web:b.invalid/witness", &witness),
            wrong
        );
        // a log's signature is no cosignature, though the key be the same
        let own = checkpoint.sign(&witness).replace("did:web:a.invalid/log/1 ", "did:web:b.invalid/witness ");
        assert_eq!(by(&checkpoint, &own, "did:web:b.invalid/witness", &witness), wrong);
    }
}
