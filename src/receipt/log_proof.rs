//! Proof that one entry is in a log: C2SP `tlog-proof`. Pure.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    crypto::VerifyingKey,
    id::Sha256,
    receipt::{
        ENTRY,
        checkpoint::{Checkpoint, CheckpointError},
        merkle::leaf_hash,
        proof::verify_inclusion,
    },
};

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// A tree has at most 64 levels.
const MAX_PATH: usize = 64;

/// An entry's place, the path to the root, and the checkpoint that signs the root. Written as text, it verifies by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogProof {
    /// The entry's place.
    pub index: u64,
    /// RFC 6962 §2.1.1.
    pub path: Vec<Sha256>,
    /// The signed note, with cosignatures if there are any.
    pub checkpoint: String,
}

/// Why a proof proves nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogProofError {
    /// Not written as the format says.
    #[error("not a log proof: {0}")]
    Syntax(&'static str),
    /// Its checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The path doesn't lead from the entry to the root.
    #[error("the entry is not in the log at {0}")]
    NotIncluded(u64),
}

impl LogProof {
    /// The origin of the log that a written proof says it is of; unverified.
    pub fn log_of(text: &str) -> Option<String> {
        Some(Checkpoint::claimed(&Self::parse(text).ok()?.checkpoint).ok()?.origin)
    }

    /// Reads a proof.
    pub fn parse(text: &str) -> Result<Self, LogProofError> {
        let syntax = LogProofError::Syntax;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(syntax("no empty line before the checkpoint"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(HEADER) {
            return Err(syntax("another header"));
        }
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).ok_or(syntax("no `index` line"))?;
        let number: u64 = index.parse().map_err(|_| syntax("the index is not a number"))?;
        if number.to_string() != index {
            return Err(syntax("the index is not written plainly"));
        }
        let path = lines
            .map(|line| STANDARD.decode(line).ok().and_then(|hash| <[u8; 32]>::try_from(hash).ok()).map(Sha256))
            .collect::<Option<Vec<_>>>()
            .ok_or(syntax("a line of the path is not a hash"))?;
        if path.len() > MAX_PATH {
            return Err(syntax("more than 64 hashes in the path"));
        }
        Ok(Self { index: number, path, checkpoint: checkpoint.to_owned() })
    }

    /// The checkpoint of `origin`, signed by `key`, under which this entry is.
    pub fn verify(&self, entry: &[u8; ENTRY], origin: &str, key: &VerifyingKey) -> Result<Checkpoint, LogProofError> {
        let checkpoint = Checkpoint::verify(&self.checkpoint, origin, key)?;
        if verify_inclusion(self.index, checkpoint.size, &leaf_hash(entry), &self.path, &checkpoint.root) {
            Ok(checkpoint)
        } else {
            Err(LogProofError::NotIncluded(self.index))
        }
    }
}

impl fmt::Display for LogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HEADER}\nindex {}\n", self.index)?;
        for hash in &self.path {
            writeln!(f, "{}", STANDARD.encode(hash.as_bytes()))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::SigningKey,
        receipt::merkle::{node_hash, root_of},
    };

    #[test]
    fn a_proof_is_of_one_entry_in_one_place_of_one_log() {
        let key = SigningKey::from_seed([1; 32]);
        let entries = [[1; ENTRY], [2; ENTRY], [3; ENTRY]];
        let leaves: Vec<Sha256> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let checkpoint = Checkpoint { origin: "did:web:a/log/1".into(), size: 3, root: root_of(&leaves) };
        let proof =
            LogProof { index: 2, path: vec![node_hash(&leaves[0], &leaves[1])], checkpoint: checkpoint.sign(&key) };
        let text = proof.to_string();
        assert_eq!(LogProof::parse(&text).as_ref(), Ok(&proof));
        let verify = |proof: &LogProof, entry| proof.verify(entry, "did:web:a/log/1", &key.public());
        assert_eq!(verify(&proof, &entries[2]), Ok(checkpoint));
        assert_eq!(verify(&proof, &entries[1]), Err(LogProofError::NotIncluded(2)));
        assert_eq!(verify(&LogProof { index: 1, ..proof.clone() }, &entries[2]), Err(LogProofError::NotIncluded(1)));
        assert!(matches!(
            proof.verify(&entries[2], "did:web:b/log/1", &key.public()),
            Err(LogProofError::Checkpoint(CheckpointError::Origin(_)))
        ));
        for wrong in [text.replace("@v1", "@v2"), text.replace("index 2", "index 02"), text.replace("index 2\n", "")] {
            assert!(matches!(LogProof::parse(&wrong), Err(LogProofError::Syntax(_))), "{wrong}");
        }
    }
}
