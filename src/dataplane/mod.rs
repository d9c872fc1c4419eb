//! Releasing and receiving bytes.
//!
//! Owns the stream's route and its client, and what they need to know: a [`Grant`] says what may flow under which
//! token, a [`ReleaseRow`] what exactly leaves. Both are written by `exchange`, in the commits that start, suspend,
//! release and end; the data plane knows no transfer and decides nothing.
//!
//! ```text
//!   file ─▶ transform ─▶ 4 × 64 KiB ─▶ seal ─▶ hash ─▶ socket        (provider; a blocking thread, then the body)
//!   socket ─▶ hash ─▶ <copy>/<n>.ece                                 (consumer; opened only by the vault)
//! ```

mod grant;
mod plain;
mod receive;
mod release;
mod send;

pub use grant::{Authorized, Grant, Grants};
pub use plain::{PlainRelease, PlainReleases, plain_path};
pub use receive::{Progress, ReceiveError, receive};
pub use release::{Delivered, HashScope, ReleaseRow, ReleaseState, SentBody, bodies_prefix, check_segments};
pub use send::{Block, DataPlane};
