//! The few primitives that the formats need: sign, verify, seal, open, hash, commitments, canonical JSON.
//!
//! Owns no keys' storage (that is `identity`), no files, no clock. Randomness is handed in ([`Random`]).

mod canonical;
mod hash;
mod random;

pub use canonical::{CanonicalError, canonical_json};
pub use hash::{Hasher, commitment, hkdf_sha256, hmac_sha256, sha256};
pub use random::{Random, RandomExt, SystemRandom};
