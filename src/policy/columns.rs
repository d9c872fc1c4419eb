//! The columns of a dataset, as its header and a sample show them.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::policy::problem::nearest;

/// Most columns of a dataset.
const MAX: usize = 10_000;

/// Why columns were not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ColumnsError {
    /// None at all.
    #[error("the dataset has no columns")]
    None,
    /// Too many.
    #[error("the dataset has {0} columns; at most {MAX} are handled")]
    TooMany(usize),
    /// A column without a name.
    #[error("column {0} has no name in the header")]
    Unnamed(usize),
    /// Two of one name.
    #[error("the header names `{0}` twice; obligations could not tell them apart")]
    Twice(String),
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// As in the header.
    pub name: String,
    /// What its values look like.
    pub kind: ColumnKind,
}

/// What a column's values look like, in a sample; empty values are of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnKind {
    /// Anything.
    Text,
    /// Whole numbers.
    Integer,
    /// Decimal numbers.
    Number,
    /// Dates.
    Date,
    /// `true` and `false`.
    Boolean,
}

impl ColumnKind {
    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integers",
            Self::Number => "numbers",
            Self::Date => "dates",
            Self::Boolean => "booleans",
        }
    }
}

/// All columns, in order, each with its own name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Columns(Vec<Column>);

impl Columns {
    /// Takes columns with names that differ.
    pub fn new(columns: Vec<Column>) -> Result<Self, ColumnsError> {
        if columns.is_empty() {
            return Err(ColumnsError::None);
        }
        if columns.len() > MAX {
            return Err(ColumnsError::TooMany(columns.len()));
        }
        let mut names = std::collections::HashSet::new();
        for (index, column) in columns.iter().enumerate() {
            if column.name.is_empty() {
                return Err(ColumnsError::Unnamed(index + 1));
            }
            if !names.insert(&column.name) {
                return Err(ColumnsError::Twice(column.name.clone()));
            }
        }
        Ok(Self(columns))
    }

    /// Of data that isn't here and nobody has described: an obligation on any column of it is refused.
    pub const fn unknown() -> Self {
        Self(Vec::new())
    }

    /// The column of this name.
    pub fn get(&self, name: &str) -> Option<&Column> {
        self.0.iter().find(|column| column.name == name)
    }

    /// The known name nearest to what was written, if it is near.
    pub(super) fn nearest(&self, written: &str) -> Option<&str> {
        nearest(written, self.0.iter().map(|column| column.name.as_str()))
    }

    /// Its place, from 0.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|column| column.name == name)
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Column> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: there is at least one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
