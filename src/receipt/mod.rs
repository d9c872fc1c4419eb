//! Receipts, their log, and the committer: the only way to write; [`Receipts`]: the only way to read them.
//!
//! A walk hands a [`Commit`] to the [`Committer`]: state rows with the versions it read, letters, signed receipts. The
//! committer gathers what waits, leaves out who lost a race, numbers the series, appends the entries, signs one
//! checkpoint, writes one batch, syncs once, tells the mirrors, and answers everybody.
//!
//! ```text
//!   walks ──Commit──▶ queue ──▶ [ check versions → number series → append to tree → sign checkpoint ] ──▶ store, sync
//!     ▲                                                                                               │
//!     └──────────── Committed / Conflict ◀── mirrors (peers, offers, grants) ◀──────────────────────────┘
//! ```
//!
//! Owns the formats of receipt, entry, series tag, tree and checkpoint (all pure) and the rows `r/…`, `s/…`, `h/…`,
//! `log/…`. Does not own what receipts mean to a verifier: that is `evidence`.

pub mod checkpoint;
pub mod merkle;
pub mod note;
pub mod proof;
pub mod tile;
pub mod witness;

mod anchor;
mod archive;
mod commit;
mod committer;
mod log;
mod log_proof;
mod object;
mod place;
mod reader;
mod restore;
mod rows;
mod series;

pub use self::{
    anchor::{Anchor, FileAnchor, Stamp},
    archive::{Archiver, RUN},
    commit::{Commit, CommitError, Committed, Mirror, PartnerHalf, Placed},
    committer::{Committer, Epoch, LogSigner},
    log::Log,
    log_proof::{LogProof, LogProofError},
    object::{DecisionRecord, Kind, NewReceipt, Payload, PeerCheckpoint, Receipt, ReceiptError, Segment, verify},
    place::content_key,
    reader::{Filter, Receipts, Stored},
    restore::{begin_epoch, verify_log},
    rows::{EVENTS, Row, Version, event_key, list, read, replay, row_key},
    series::{ENTRY, SeriesKey, entry},
};

#[cfg(test)]
mod tests;
