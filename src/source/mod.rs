//! Opening a dataset's bytes under the operator's roots.
//!
//! Owns how a path becomes an open descriptor: beneath a root, component by component, following no link; regular files
//! only; never in the connector's home. And what is known of it: its [`SnapshotId`], its columns. Files in this version.

mod broken;
mod buffer;
mod csv;
mod header;
mod json;
mod parquet;
mod roots;
mod value;

use std::{fmt, path::PathBuf, str::FromStr};

pub use self::{
    broken::Broken,
    csv::{Csv, CsvRow, expect, header_names},
    header::{each_row, header, records},
    json::{Json, JsonRow},
    parquet::{Batches, Parquet, ParquetRow, ReadAt, Typed, guarded},
    roots::{Opened, Roots},
    value::{Decimal, short_floor, year_of},
};

/// One record, as obligations see it: by the texts of its values.
pub trait Row {
    /// Its number, from 1, without a header.
    fn number(&self) -> u64;

    /// The text of the value in the column at this place of the file; nothing where it is empty or null. `scratch` is
    /// room for a text that doesn't lie anywhere.
    ///
    /// # Errors
    /// A value without a text, named by row and column.
    fn text<'a>(&'a self, place: usize, scratch: &'a mut String) -> Result<&'a str, Broken>;

    /// What tells the value from others where it leaves as it is: more than its text, where a format has several ways to
    /// write one (`1` and `"1"`, null and empty).
    ///
    /// # Errors
    /// As [`Row::text`].
    fn distinct<'a>(&'a self, place: usize, scratch: &'a mut String) -> Result<&'a str, Broken> {
        self.text(place, scratch)
    }

    /// The floor of the number there, and whether the number lies above it, where that can be had without the text;
    /// it's what [`short_floor`] says of the text.
    fn short(&self, _place: usize) -> Option<(i64, bool)> {
        None
    }
}

/// Why a source can't be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// `sources.roots` names something that is no folder.
    #[error("sources.roots: {path} can't be used: {problem}")]
    Root {
        /// The root.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// Nothing, or what no file can be called.
    #[error("`{0}` is not a path below a root: give one like `folder/file.csv`")]
    Path(String),
    /// A path from the file system's top.
    #[error("`{0}` is an absolute path: give one below a root, like `folder/file.csv`")]
    Absolute(String),
    /// `..`
    #[error("`{0}` goes up by `..`: give a path below a root, like `folder/file.csv`")]
    Parent(String),
    /// Below none of the roots.
    #[error("`{path}` is below none of the roots ({roots}); put the file there, or add its folder to sources.roots")]
    NotFound {
        /// As given.
        path: String,
        /// Where it was looked for.
        roots: String,
    },
    /// A symbolic link on the way.
    #[error("`{0}` goes over a symbolic link; links are not followed, since whoever sets one could choose what leaves")]
    Link(String),
    /// A folder, a FIFO, a device.
    #[error("`{path}` is {what}, not a regular file")]
    NotAFile {
        /// As given.
        path: String,
        /// What it is: "a folder", "a FIFO".
        what: &'static str,
    },
    /// In the connector's own home.
    #[error("`{0}` lies in the connector's own home; nothing in there is ever released")]
    Home(String),
    /// Replaced or written since it was opened.
    #[error("`{0}` was replaced or written since it was opened")]
    Changed(String),
    /// The file system.
    #[error("`{path}`: {error}")]
    File {
        /// As given.
        path: String,
        /// What happened.
        error: std::io::Error,
    },
    /// A format that this version doesn't read.
    #[error("the format `{0}` is not available in this version; csv, jsonl, json and parquet are")]
    Format(String),
    /// A header that can't be used.
    #[error("`{path}`: {problem}")]
    Header {
        /// As given.
        path: String,
        /// What is wrong, and where.
        problem: String,
    },
}

/// How a source's bytes are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180, UTF-8, with a header row.
    Csv,
    /// JSON Lines: a flat object a line.
    JsonLines,
    /// One JSON array of flat objects.
    Json,
    /// Apache Parquet with flat columns.
    Parquet,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Csv, Self::JsonLines, Self::Json, Self::Parquet];

    /// Its name in `offer.toml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::JsonLines => "jsonl",
            Self::Json => "json",
            Self::Parquet => "parquet",
        }
    }

    /// As a distribution names it.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::JsonLines => "application/jsonl",
            Self::Json => "application/json",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

impl Format {
    /// As an HTTP answer names it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            other => other.media_type(),
        }
    }
}

impl FromStr for Format {
    type Err = SourceError;
    fn from_str(text: &str) -> Result<Self, SourceError> {
        let known = Self::ALL.into_iter().find(|format| format.as_str() == text);
        known.ok_or_else(|| SourceError::Format(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A stream of records.
pub trait Records {
    /// One of them.
    type Row<'a>: Row;

    /// Reads on, where there is more; false at the end.
    ///
    /// # Errors
    /// The source can't be read, or ends where it may not.
    fn fill(&mut self) -> Result<bool, Broken>;

    /// Each record that was read, until `take` says that it's enough; then false.
    ///
    /// # Errors
    /// A record that is broken, or what `take` says.
    fn each<E: From<Broken>>(&mut self, take: impl FnMut(&Self::Row<'_>) -> Result<bool, E>) -> Result<bool, E>;
}

#[cfg(test)]
mod tests_csv;
#[cfg(test)]
mod tests_json;
#[cfg(test)]
mod tests_parquet;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_name_and_others_refused_by_it() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
            assert!(format.media_type().contains('/'));
        }
        for other in ["xlsx", "CSV", "", "ndjson"] {
            let error = other.parse::<Format>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{other}`")) && error.contains("csv, jsonl"), "{error}");
        }
    }
}
