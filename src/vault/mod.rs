//! What a consumer holds: copies, sealed at rest, opened by a `use` decision, destroyed by key.
//!
//! A copy is a folder `vault/<uuid>/`: the coded bodies as they arrived (`0.ece`, …), the one-time key while the
//! release is open (`one-time.key`), and the keying material once it was handed over (`copy.key`), both 0600. Its row
//! `v/…` says where it stands. Owns the files; does not decide who may open them.

mod copy;
mod row;

pub use copy::{Vault, VaultError};
pub use row::{CopyRow, CopyState, PREFIX, PURPOSES, key, purpose_key};
