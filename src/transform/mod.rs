//! Obligations applied to data, as a stream of Arrow record batches.
//!
//! ```text
//!   bytes ─▶ CSV rows, checked ─▶ batch ─▶ filter ─▶ limit ─▶ generalise ─▶ at_least ─▶ drop, keep ─▶ CSV ─▶ bytes
//! ```
//!
//! A [`Plan`] is compiled once per release; where nothing has to be changed the bytes are copied and never parsed.
//! Memory is constant: a batch of rows, and with `at_least` one counter a group. The same bytes come out each time, so
//! that a stream can be resumed.
//!
//! Does not own sealing (`dataplane`), nor what the obligations are (`policy`).

mod groups;
mod plan;
mod rows;
mod rules;
mod select;

pub use self::plan::{HashKey, Outcome, Plan};
use crate::source::Broken;

/// Why data could not be transformed. Names the row and the column, never a value: values are payload.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// An obligation names a column that the data doesn't have.
    #[error("the obligation on column `{0}` can't be met: the data has no such column")]
    Column(String),
    /// An obligation whose number is out of bounds, a band of no width among them.
    #[error("`{obligation}` on column `{column}` can't be met: its number is out of bounds")]
    Rule {
        /// Which column.
        column: String,
        /// Which obligation.
        obligation: &'static str,
    },
    /// Obligations that leave no column.
    #[error("no column is left: each is dropped, or not kept")]
    NoColumns,
    /// The header is not the one that was published.
    #[error("the header is not the one that was published: {0}")]
    Header(String),
    /// A row with too few or too many fields.
    #[error("row {row} (line {line}) has {found} fields, the header has {expected}")]
    Width {
        /// From 1, without the header.
        row: u64,
        /// From 1.
        line: u64,
        /// Fields in it.
        found: usize,
        /// Fields in the header.
        expected: usize,
    },
    /// A field that is not UTF-8.
    #[error("row {row} (line {line}), column `{column}` is not valid UTF-8")]
    Utf8 {
        /// From 1, without the header.
        row: u64,
        /// From 1.
        line: u64,
        /// Which column.
        column: String,
    },
    /// A field that is too long.
    #[error(
        "row {row} (line {line}), column `{column}` has more than {} bytes; is a quote not closed?",
        rows::MAX_FIELD
    )]
    FieldTooLong {
        /// From 1, without the header.
        row: u64,
        /// From 1.
        line: u64,
        /// Which column.
        column: String,
    },
    /// Not RFC 4180.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// A value that an obligation can't handle.
    #[error("row {row}, column `{column}`: `{obligation}` needs {needs}")]
    Value {
        /// From 1, without the header.
        row: u64,
        /// Which column.
        column: String,
        /// Which obligation.
        obligation: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// `at_least` over too many groups.
    #[error("`at_least` over more than {0} groups is not done; generalise its columns further")]
    Groups(usize),
    /// The second pass met other rows than the first.
    #[error("the source changed while it was read")]
    Changed,
    /// The reader went away.
    #[error("stopped")]
    Stopped,
    /// Reading or writing.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Arrow.
    #[error("the batch could not be built: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
}

#[cfg(test)]
mod tests;
