//! The meet: what holds when several permits and floors demand things of the same data.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    crypto::{canonical_json, sha256},
    id::Sha256,
    policy::{Filter, Obligation, obligation::MAX_BAND},
};

/// Everything that is demanded of the bytes, together. Two values that any one demand makes alike are alike under it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Obligations {
    /// What happens to each column's values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, ColumnRule>,
    /// Only these columns stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<BTreeSet<String>>,
    /// Only these rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// At most so many rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// At most so many records in all under one agreement; [`Obligations::for_request`] makes a limit of what is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
    /// Columns that the request has to give values for; [`Obligations::for_request`] makes a filter of them.
    #[serde(default, rename = "match", skip_serializing_if = "BTreeSet::is_empty")]
    pub matching: BTreeSet<String>,
    /// Only rows in groups of this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<AtLeast>,
    /// Columns of numbers that carry a mark of their recipient, and by which columns a row is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub watermark: BTreeMap<String, BTreeSet<String>>,
    /// Only as a sealed stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seal: bool,
}

/// Group suppression.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtLeast {
    /// Rows in a group.
    pub k: u64,
    /// What makes a group.
    pub columns: BTreeSet<String>,
}

/// What happens to a column's values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnRule {
    /// The column goes.
    Drop,
    /// `***`
    Redact,
    /// Empty.
    Nullify,
    /// A pseudonym in this domain.
    Hash(String),
    /// The first characters.
    ShowFirst(u32),
    /// The last characters.
    ShowLast(u32),
    /// The year of a date.
    Year,
    /// A band of this width, from 0.
    Band(u64),
    /// Rounded to so many decimal places.
    Round(i32),
}

impl ColumnRule {
    /// A rule under which everything is alike that either makes alike; where no formula gives one, the column goes.
    pub fn meet(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::ShowFirst(a), Self::ShowFirst(b)) => Self::ShowFirst(a.min(b)),
            (Self::ShowLast(a), Self::ShowLast(b)) => Self::ShowLast(a.min(b)),
            (Self::Band(a), Self::Band(b)) => least_common_multiple(a, b).map_or(Self::Drop, Self::Band),
            // two roundings to different places have no common one: the borders of one lie within steps of the other
            _ => Self::Drop,
        }
    }
}

fn least_common_multiple(a: u64, b: u64) -> Option<u64> {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).checked_mul(b).filter(|width| *width <= MAX_BAND)
}

impl Obligations {
    /// All of them together. The order doesn't matter.
    pub fn meet<'a>(demands: impl IntoIterator<Item = &'a Obligation>) -> Self {
        let mut met = Self::default();
        for demand in demands {
            met.add(demand);
        }
        met
    }

    /// Whether nothing is changed in the bytes: they are streamed without being parsed.
    pub fn is_empty(&self) -> bool {
        Self { seal: false, ..self.clone() } == Self::default()
    }

    /// SHA-256 of the canonical JSON.
    pub fn sha256(&self) -> Sha256 {
        match canonical_json(self) {
            Ok(json) => sha256(&json),
            // a number that no parser lets in, in obligations that were made by hand: still a hash of its own
            Err(_) => sha256(format!("{self:?}").as_bytes()),
        }
    }

    fn add(&mut self, demand: &Obligation) {
        match demand {
            Obligation::Drop(columns) => columns.iter().for_each(|column| self.rule(column, ColumnRule::Drop)),
            Obligation::Keep(columns) => {
                let kept: BTreeSet<String> = columns.iter().cloned().collect();
                self.keep = Some(match self.keep.take() {
                    None => kept,
                    Some(before) => before.intersection(&kept).cloned().collect(),
                });
            }
            Obligation::Redact(column) => self.rule(column, ColumnRule::Redact),
            Obligation::Nullify(column) => self.rule(column, ColumnRule::Nullify),
            Obligation::Hash { column, domain } => self.rule(column, ColumnRule::Hash(domain.clone())),
            Obligation::ShowFirst(column, count) => self.rule(column, ColumnRule::ShowFirst(*count)),
            Obligation::ShowLast(column, count) => self.rule(column, ColumnRule::ShowLast(*count)),
            Obligation::Year(column) => self.rule(column, ColumnRule::Year),
            Obligation::Band(column, width) => self.rule(column, ColumnRule::Band(*width)),
            Obligation::Round(column, places) => self.rule(column, ColumnRule::Round(*places)),
            Obligation::Filter(filter) => {
                self.filter = Filter::meet(self.filter.iter().chain([filter]));
            }
            Obligation::Limit(rows) => self.limit = Some(self.limit.map_or(*rows, |before| before.min(*rows))),
            Obligation::AtLeast { k, columns } => {
                let at_least = self.at_least.get_or_insert_with(|| AtLeast { k: *k, columns: BTreeSet::new() });
                at_least.k = at_least.k.max(*k);
                at_least.columns.extend(columns.iter().cloned());
            }
            Obligation::Quota(rows) => self.quota = Some(self.quota.map_or(*rows, |before| before.min(*rows))),
            Obligation::Match(columns) => self.matching.extend(columns.iter().cloned()),
            // All keys of all demands: rows are told apart at least as finely as each demands, so none gets fewer
            // independent marks. (Common keys alone could be a column with two values: two marks in all. And of three
            // demands it would matter which met first.) The price: a trace needs all of these columns in the leak.
            Obligation::Watermark { column, keys } => {
                self.watermark.entry(column.clone()).or_default().extend(keys.iter().cloned());
            }
            Obligation::Seal => self.seal = true,
        }
    }

    fn rule(&mut self, column: &str, rule: ColumnRule) {
        let rule = match self.columns.remove(column) {
            None => rule,
            Some(before) => before.meet(rule),
        };
        self.columns.insert(column.to_owned(), rule);
    }
}
