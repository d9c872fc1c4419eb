//! What is wrong with a source's bytes. Names the row and the column, never a value: values are payload.

use std::io;

/// Longest value, in bytes.
pub const MAX_FIELD: usize = 1 << 20;
/// Longest record, in bytes as it is written.
pub const MAX_RECORD: usize = 8 << 20;

/// Why a source's records can't be read. Rows count from 1 and without a header; lines count from 1.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// A quote where none can be.
    #[error("line {0}: a quote inside a field that is not quoted (RFC 4180: quote the field, and double the quote)")]
    Quote(u64),
    /// Something between a closing quote and the field's end.
    #[error("line {0}: text after a field's closing quote (RFC 4180: inside a quoted field, double each quote)")]
    AfterQuote(u64),
    /// The end, inside quotes.
    #[error("the file ends inside a quoted field that begins in line {0}; it is cut off, or a quote is not closed")]
    Open(u64),
    /// A record of more than [`MAX_RECORD`] bytes.
    #[error("the row that begins in line {0} has more than {MAX_RECORD} bytes; is a quote not closed?")]
    RecordTooLong(u64),
    /// The header is not the one that was published.
    #[error("the header is not the one that was published: {0}")]
    Header(String),
    /// A row with too few or too many fields.
    #[error("row {row} (line {line}) has {found} fields, the header has {expected}")]
    #[allow(missing_docs, reason = "the sentence says it")]
    Width { row: u64, line: u64, found: usize, expected: usize },
    /// A field that is not UTF-8.
    #[error("row {row} (line {line}), column `{column}` is not valid UTF-8")]
    #[allow(missing_docs, reason = "the sentence says it")]
    Utf8 { row: u64, line: u64, column: String },
    /// A field that is too long.
    #[error("row {row} (line {line}), column `{column}` has more than {MAX_FIELD} bytes; is a quote not closed?")]
    #[allow(missing_docs, reason = "the sentence says it")]
    FieldTooLong { row: u64, line: u64, column: String },
    /// No JSON, or more than one value.
    #[error("row {row} (line {line}) is not one valid JSON value: see its byte {byte}")]
    #[allow(missing_docs, reason = "the sentence says it")]
    Json { row: u64, line: u64, byte: usize },
    /// JSON, but no object.
    #[error("row {row} (line {line}) is not a JSON object")]
    #[allow(missing_docs, reason = "the sentence says it")]
    NotAnObject { row: u64, line: u64 },
    /// A member that no published column is.
    #[error(
        "row {row} (line {line}) has a member `{column}` that is no column; publish the dataset again if it is new"
    )]
    #[allow(missing_docs, reason = "the sentence says it")]
    UnknownMember { row: u64, line: u64, column: String },
    /// One name twice.
    #[error("row {row} (line {line}) has the member `{column}` twice")]
    #[allow(missing_docs, reason = "the sentence says it")]
    Twice { row: u64, line: u64, column: String },
    /// An object or an array as a value.
    #[error("row {row} (line {line}), column `{column}` holds an object or an array; only flat records are handled")]
    #[allow(missing_docs, reason = "the sentence says it")]
    Nested { row: u64, line: u64, column: String },
    /// Not `[`, elements parted by commas, `]`.
    #[error("line {line}: not a JSON array of objects: {problem}")]
    #[allow(missing_docs, reason = "the sentence says it")]
    Array { line: u64, problem: &'static str },
    /// A Parquet file that can't be read.
    #[error("the Parquet file can't be read: {0}")]
    Parquet(String),
    /// A Parquet column of a type that is not handled.
    #[error("column `{column}` is of the Parquet type {kind}, which is not handled: {hint}")]
    #[allow(missing_docs, reason = "the sentence says it")]
    Type { column: String, kind: String, hint: &'static str },
    /// A value without a text, such as a date in the year 300,000.
    #[error("row {row}, column `{column}` holds a value that can't be written as text")]
    #[allow(missing_docs, reason = "the sentence says it")]
    NoText { row: u64, column: String },
    /// A Parquet value that is too long.
    #[error("row {row}, column `{column}` has more than {MAX_FIELD} bytes")]
    #[allow(missing_docs, reason = "the sentence says it")]
    ValueTooLong { row: u64, column: String },
    /// Reading.
    #[error(transparent)]
    Io(#[from] io::Error),
}
