//! Checkpoints: C2SP `tlog-checkpoint` in a `signed-note` with Ed25519.
//!
//! ```text
//!   <origin>\n<size>\n<base64 root>\n\n— <origin> <base64(key id ‖ signature)>\n
//! ```

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    crypto::{Hasher, SigningKey, VerifyingKey},
    id::Sha256,
};

/// `signed-note`'s identifier of plain Ed25519 signatures.
const ED25519: u8 = 1;

/// Why a checkpoint was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CheckpointError {
    /// Not three lines, an empty one, and a signature.
    #[error("not a checkpoint: {0}")]
    Syntax(&'static str),
    /// Another log's.
    #[error("the checkpoint's origin is `{0}`")]
    Origin(String),
    /// No signature by this key, or a wrong one.
    #[error("no valid signature by the log's key")]
    Signature,
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

impl Checkpoint {
    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.as_bytes()))
    }

    /// The signed note.
    pub fn sign(&self, key: &SigningKey) -> String {
        let text = self.text();
        let mut signature = key_id(&self.origin, &key.public()).to_vec();
        signature.extend_from_slice(&key.sign_raw(text.as_bytes()));
        format!("{text}\n\u{2014} {} {}\n", self.origin, STANDARD.encode(signature))
    }

    /// Reads a note that `key` signed for `origin`. Signatures by others beside it are left alone.
    pub fn verify(note: &str, origin: &str, key: &VerifyingKey) -> Result<Self, CheckpointError> {
        let (text, signatures) = note.split_once("\n\n").ok_or(CheckpointError::Syntax("no signatures"))?;
        let text = format!("{text}\n");
        let mut lines = text.lines();
        let mut next = || lines.next().ok_or(CheckpointError::Syntax("fewer than three lines"));
        let (named, size, root) = (next()?, next()?, next()?);
        if named != origin {
            return Err(CheckpointError::Origin(named.chars().take(200).collect()));
        }
        let number: u64 = size.parse().map_err(|_| CheckpointError::Syntax("the size is not a number"))?;
        if number.to_string() != size {
            return Err(CheckpointError::Syntax("the size is not written plainly"));
        }
        let root = STANDARD
            .decode(root)
            .ok()
            .and_then(|root| <[u8; 32]>::try_from(root).ok())
            .ok_or(CheckpointError::Syntax("the root is not a hash"))?;
        let expected = key_id(origin, key);
        let signed = signatures
            .lines()
            .filter_map(|line| line.strip_prefix("\u{2014} ")?.rsplit_once(' '))
            .filter(|(name, _)| *name == origin)
            .filter_map(|(_, signature)| STANDARD.decode(signature).ok())
            .any(|signature| {
                signature.strip_prefix(&expected).is_some_and(|signature| key.verify_raw(text.as_bytes(), signature))
            });
        if !signed {
            return Err(CheckpointError::Signature);
        }
        Ok(Self { origin: origin.to_owned(), size: number, root: Sha256(root) })
    }
}

/// `signed-note`: the first four bytes of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ key).
fn key_id(name: &str, key: &VerifyingKey) -> [u8; 4] {
    let mut hasher = Hasher::new();
    hasher.update(name.as_bytes());
    hasher.update(&[b'\n', ED25519]);
    hasher.update(key.bytes());
    let hash = hasher.finish();
    [hash.0[0], hash.0[1], hash.0[2], hash.0[3]]
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
    fn the_key_id_is_that_of_the_signed_note_specification() {
        // C2SP signed-note: `PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW`
        let vkey = STANDARD.decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
        let key = VerifyingKey::parse(vkey[1..].try_into().unwrap()).unwrap();
        assert_eq!(key_id("PeterNeumann", &key), [0xc7, 0x4f, 0x20, 0xa3]);
    }
}
