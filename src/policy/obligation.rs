//! Obligations as they are written, one by one, checked against the columns.

use crate::policy::{
    ColumnKind, Columns, Filter, FilterError,
    problem::{did_you_mean, harmless, nearest},
};

/// The widest band.
pub const MAX_BAND: u64 = 1_000_000_000_000;
/// Most rows of a `limit`: the largest integer that canonical JSON has.
const MAX_LIMIT: u64 = (1 << 53) - 1;
/// Longest domain of a `hash`, in bytes.
const MAX_DOMAIN: usize = 64;

/// One obligation of a permit or a floor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obligation {
    /// These columns go.
    Drop(Vec<String>),
    /// Only these stay.
    Keep(Vec<String>),
    /// `***`
    Redact(String),
    /// Empty.
    Nullify(String),
    /// A pseudonym. Columns of one domain (default: the column's name) can be joined.
    Hash {
        /// The column.
        column: String,
        /// The domain.
        domain: String,
    },
    /// The first characters.
    ShowFirst(String, u32),
    /// The last characters.
    ShowLast(String, u32),
    /// The year of a date.
    Year(String),
    /// A band of this width, from 0.
    Band(String, u64),
    /// Rounded to so many decimal places.
    Round(String, i32),
    /// Only rows that fit.
    Filter(Filter),
    /// At most so many rows.
    Limit(u64),
    /// Only rows whose values in these columns at least k released rows share.
    AtLeast {
        /// How many.
        k: u64,
        /// Of which columns.
        columns: Vec<String>,
    },
    /// At most so many records in all, under one agreement: what is left of them is the release's limit.
    Quota(u64),
    /// Only rows that are equal in these columns to values that the request gives.
    Match(Vec<String>),
    /// A keyed mark in the last digits of a column, by which a leaked copy names its recipient.
    Watermark {
        /// The marked column.
        column: String,
        /// By which columns a row is known.
        keys: Vec<String>,
    },
    /// Only as a sealed stream.
    Seal,
}

/// Why an obligation was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ObligationError {
    /// Not `name(arguments)`.
    #[error("{0}")]
    Syntax(String),
    /// Nothing of that name.
    #[error("unknown obligation `{name}`{}", did_you_mean(*suggestion, ""))]
    Unknown {
        /// As written.
        name: String,
        /// The nearest known one.
        suggestion: Option<&'static str>,
    },
    /// Known, but not in this version.
    #[error("the obligation `{0}` is not available in this version; nothing is published that can't be enforced")]
    NotYet(String),
    /// Wrong arguments.
    #[error("`{name}` takes {takes}")]
    Arguments {
        /// The obligation.
        name: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// A column that is not there.
    #[error("`{name}` names the column `{column}`, which the dataset doesn't have{}", did_you_mean(suggestion.as_deref(), ""))]
    Column {
        /// The obligation.
        name: &'static str,
        /// As written.
        column: String,
        /// The nearest known one.
        suggestion: Option<String>,
    },
    /// A column whose values it can't handle.
    #[error("`{name}` needs a column of {needs}; `{column}` holds {kind}")]
    Kind {
        /// The obligation.
        name: &'static str,
        /// The column.
        column: String,
        /// What it holds.
        kind: &'static str,
        /// What is needed.
        needs: &'static str,
    },
    /// A number out of range.
    #[error("`{name}`: `{value}` is out of range; it may be {range}")]
    Range {
        /// The obligation.
        name: &'static str,
        /// As written.
        value: String,
        /// What is possible.
        range: &'static str,
    },
    /// A filter.
    #[error("`filter`: {0}")]
    Filter(#[from] FilterError),
}

impl Obligation {
    /// Every name that is known, this version's and later ones'.
    const NAMES: [&'static str; 17] = [
        "drop",
        "keep",
        "redact",
        "nullify",
        "hash",
        "show_first",
        "show_last",
        "year",
        "band",
        "round",
        "filter",
        "limit",
        "at_least",
        "quota",
        "match",
        "seal",
        "watermark",
    ];

    /// The name of one that is known, this version's or a later one's.
    pub(super) fn known(name: &str) -> Result<&'static str, ObligationError> {
        Self::NAMES.into_iter().find(|known| *known == name).ok_or_else(|| {
            let near = nearest(name, Self::NAMES);
            let suggestion = Self::NAMES.into_iter().find(|known| Some(*known) == near);
            ObligationError::Unknown { name: harmless(name), suggestion }
        })
    }

    /// Makes one from its name and raw arguments, checked against the columns.
    pub(super) fn build(name: &str, args: &Args, columns: &Columns) -> Result<Self, ObligationError> {
        let name = Self::known(name)?;
        let one = |takes| match args.words.as_slice() {
            [column] => Ok(column.as_str()),
            _ => Err(ObligationError::Arguments { name, takes }),
        };
        let two = |takes| match args.words.as_slice() {
            [column, number] => Ok((column.as_str(), number.as_str())),
            _ => Err(ObligationError::Arguments { name, takes }),
        };
        let column = |wanted: &str| {
            columns.get(wanted).map(|column| column.name.clone()).ok_or_else(|| ObligationError::Column {
                name,
                column: harmless(wanted),
                suggestion: columns.nearest(wanted).map(str::to_owned),
            })
        };
        let typed = |wanted: &str, kinds: &[ColumnKind], needs| {
            let name_of = column(wanted)?;
            match columns.get(wanted) {
                Some(column) if !kinds.contains(&column.kind) => {
                    Err(ObligationError::Kind { name, column: name_of, kind: column.kind.as_str(), needs })
                }
                _ => Ok(name_of),
            }
        };
        let several = |words: &[String]| -> Result<Vec<String>, ObligationError> {
            if words.is_empty() {
                return Err(ObligationError::Arguments { name, takes: "at least one column" });
            }
            words.iter().map(|word| column(word)).collect()
        };
        const NUMERIC: [ColumnKind; 2] = [ColumnKind::Integer, ColumnKind::Number];
        Ok(match name {
            "drop" => Self::Drop(several(&args.words)?),
            "keep" => Self::Keep(several(&args.words)?),
            "redact" => Self::Redact(column(one("one column")?)?),
            "nullify" => Self::Nullify(column(one("one column")?)?),
            "hash" => match args.words.as_slice() {
                [only] => Self::Hash { column: column(only)?, domain: only.clone() },
                [_, domain] if domain.is_empty() || domain.len() > MAX_DOMAIN => {
                    return Err(ObligationError::Range {
                        name,
                        value: harmless(domain),
                        range: "a domain of 1 to 64 bytes",
                    });
                }
                [first, domain] => Self::Hash { column: column(first)?, domain: domain.clone() },
                _ => return Err(ObligationError::Arguments { name, takes: "a column, and a domain if it is shared" }),
            },
            "show_first" | "show_last" => {
                let (of, count) = two("a column and a number of characters")?;
                let count = number(name, count, 1, 1000, "1 to 1000")? as u32;
                if name == "show_first" {
                    Self::ShowFirst(column(of)?, count)
                } else {
                    Self::ShowLast(column(of)?, count)
                }
            }
            "year" => Self::Year(typed(one("one column of dates")?, &[ColumnKind::Date], "dates")?),
            "band" => {
                let (of, width) = two("a column of numbers and a width")?;
                Self::Band(typed(of, &NUMERIC, "numbers")?, number(name, width, 1, MAX_BAND, "1 to 10^12")?)
            }
            "round" => {
                let (of, places) = two("a column of numbers and a number of places")?;
                let range = || ObligationError::Range { name, value: harmless(places), range: "-15 to 15" };
                let value: i32 = places.parse().map_err(|_| range())?;
                if !(-15..=15).contains(&value) {
                    return Err(range());
                }
                Self::Round(typed(of, &NUMERIC, "numbers")?, value)
            }
            "filter" => Self::Filter(Filter::parse(&args.raw, columns)?),
            "limit" => Self::Limit(number(name, one("a number of rows")?, 1, MAX_LIMIT, "1 to 2^53 − 1")?),
            "quota" => Self::Quota(number(name, one("a number of records")?, 1, MAX_LIMIT, "1 to 2^53 − 1")?),
            "match" => Self::Match(several(&args.words)?),
            "at_least" => match args.words.split_first() {
                Some((k, of)) if !of.is_empty() => {
                    Self::AtLeast { k: number(name, k, 2, 1_000_000, "2 to 1,000,000")?, columns: several(of)? }
                }
                _ => return Err(ObligationError::Arguments { name, takes: "a number and at least one column" }),
            },
            "watermark" => match args.words.split_first() {
                Some((marked, keys)) if !keys.is_empty() && !keys.contains(marked) => {
                    Self::Watermark { column: typed(marked, &NUMERIC, "numbers")?, keys: several(keys)? }
                }
                _ => {
                    return Err(ObligationError::Arguments {
                        name,
                        takes: "a column of numbers, and the other columns by which a row is known",
                    });
                }
            },
            "seal" if args.words.is_empty() => Self::Seal,
            "seal" => return Err(ObligationError::Arguments { name, takes: "nothing" }),
            later => return Err(ObligationError::NotYet(later.to_owned())),
        })
    }
}

/// Arguments: as words, and as the raw text between the parentheses (for `filter`).
#[derive(Debug, Default)]
pub(super) struct Args {
    pub words: Vec<String>,
    pub raw: String,
}

fn number(name: &'static str, text: &str, least: u64, most: u64, range: &'static str) -> Result<u64, ObligationError> {
    text.parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(|| ObligationError::Range {
        name,
        value: harmless(text),
        range,
    })
}
