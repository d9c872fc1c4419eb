//! Opening a dataset's bytes under the operator's roots.
//!
//! Owns how a path becomes an open descriptor: beneath a root, component by component, following no link; regular files
//! only; never in the connector's home. And what is known of it: its [`SnapshotId`], its columns. Files in this version.

mod header;
mod roots;
mod strict;
mod value;

use std::{fmt, path::PathBuf, str::FromStr};

pub use self::{
    header::header,
    roots::{Opened, Roots},
    strict::{Broken, Strict},
    value::{Decimal, year_of},
};

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
    #[error("the format `{0}` is not available in this version; csv is")]
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
}

impl FromStr for Format {
    type Err = SourceError;
    fn from_str(text: &str) -> Result<Self, SourceError> {
        match text {
            "csv" => Ok(Self::Csv),
            other => Err(SourceError::Format(other.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("csv")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_name_and_others_refused_by_it() {
        assert_eq!("csv".parse::<Format>().unwrap().to_string(), "csv");
        for other in ["parquet", "CSV", "", "jsonl"] {
            let error = other.parse::<Format>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{other}`")) && error.contains("csv is"), "{error}");
        }
    }
}
