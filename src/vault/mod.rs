//! What a consumer holds: copies, sealed at rest, opened by a `use` decision, destroyed by key.
//!
//! A copy is a folder `vault/<uuid>/`: the coded bodies as they arrived (`0.ece`, …), the one-time key while the
//! release is open (`one-time.key`), and the keying material once it was handed over (`copy.key`), both 0600. Its row
//! `v/…` says where it stands. Data derived from copies lies there sealed like a copy. Owns
//! the files, the registered applications and how plaintext is handed to them; does not decide who may open what.

mod application;
mod contents;
mod copy;
mod derived;
mod handover;
mod row;
mod stream;

pub use application::{Algorithm, Application, Method, Way, hash};
pub use contents::{Contents, Counter};
pub use copy::{Vault, VaultError};
pub use derived::{DerivedRow, Parent};
pub use handover::{Ended, Feed, sweep, to_address, to_file, to_pipe, to_stream};
pub use row::{CopyRow, CopyState, PREFIX, PURPOSES, key, purpose_key};
pub use stream::{Plain, Stop};
