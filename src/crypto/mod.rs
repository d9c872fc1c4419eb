//! The few primitives that the formats need: sign, verify, seal, open, hash, commitments, canonical JSON.
//!
//! Owns no keys' storage (that is `identity`), no files, no clock. Randomness is handed in ([`Random`]).

pub mod ece;
pub mod jwe;
pub mod jws;

mod base64url;
mod canonical;
mod hash;
mod keys;
mod random;

#[cfg(test)]
mod interop;

pub use base64url::{NotBase64, b64, unb64};
pub use canonical::{CanonicalError, canonical_json};
pub use hash::{Hasher, commitment, hkdf_sha256, hmac_sha256, sha256};
pub use keys::{KeyError, SealingKey, SealingPublic, SigningKey, VerifyingKey};
pub use random::{Random, RandomExt, SystemRandom};
