//! Obligations applied to data, as a stream of records.
//!
//! ```text
//!   bytes ─▶ records, checked ─▶ filter ─▶ limit ─▶ generalise ─▶ at_least ─▶ drop, keep ─▶ watermark ─▶ bytes
//! ```
//!
//! What obligations do is defined on the texts of values, so that it is the same for CSV, JSON and Parquet; what none
//! touches leaves as it was, of its own type. A [`Plan`] is compiled once per release; where nothing has to be changed
//! the bytes are copied and never parsed. Memory is constant: a window of records (of Parquet, a batch and an output's
//! row group), and with `at_least` one counter a group. The same bytes come out each time, so that a stream can be
//! resumed.
//!
//! Does not own sealing (`dataplane`), nor what the obligations are (`policy`).

mod groups;
mod mark;
mod out;
mod out_parquet;
mod plan;
mod rules;
mod select;
mod trace;

pub use self::{
    plan::{HashKey, Outcome, Plan},
    trace::{Candidate, Found, Hashed, MarkFound, PseudonymsFound, Verdict, trace, verdict},
};
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
    /// A mark that other obligations would break.
    #[error("`watermark` on column `{column}` can't be met: {problem}")]
    Watermark {
        /// The marked column.
        column: String,
        /// What stands against it, by name.
        problem: String,
    },
    /// An obligation that depends on the request, and was not made to fit one.
    #[error("`{0}` depends on the request and was not resolved for one")]
    Open(&'static str),
    /// Obligations that leave no column.
    #[error("no column is left: each is dropped, or not kept")]
    NoColumns,
    /// A record that can't be read.
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
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_formats;
#[cfg(test)]
mod tests_trace;
