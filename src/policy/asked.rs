//! What a request asks for of a dataset, and how that joins what is demanded: a request may ask for less than it could
//! get, never for more.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::policy::{
    ColumnRule, Columns, Comparison, Filter, FilterError, FilterExpr, Obligations,
    problem::{did_you_mean, harmless},
};

/// Columns and rows that a request asks for (TC609-6-2025-14 C.6, dataField 数据字段 and valueExpression 数据字段值).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Asked {
    /// Only these columns; none given: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<BTreeSet<String>>,
    /// Only these rows: a SQL boolean expression, like the obligation `filter`'s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

/// Why a request can't have what it asks for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AskError {
    /// A column that is not there.
    #[error("the request asks for the column `{column}`, which the dataset doesn't have{}", did_you_mean(suggestion.as_deref(), ""))]
    Column {
        /// As written.
        column: String,
        /// The nearest known one.
        suggestion: Option<String>,
    },
    /// None of the columns that are asked for may leave.
    #[error("none of the columns that the request asks for may leave")]
    Nothing,
    /// A column that has to leave with the others: it makes the groups, or the mark.
    #[error("the request leaves out `{0}`, by which rows are grouped or marked: ask for it too")]
    Needed(String),
    /// A filter that can't be read.
    #[error("the request's filter: {0}")]
    Filter(#[from] FilterError),
    /// A filter beside group suppression: two answers could be subtracted from each other.
    #[error(
        "the request gives a filter, but rows leave in groups of at least {0} only: answers to two filters could be subtracted from each other"
    )]
    Groups(u64),
    /// A filter over values that don't leave as they are.
    #[error("the request's filter looks at `{0}`, whose values don't leave as they are: it would betray them")]
    Hidden(String),
    /// A column of `match` without a value.
    #[error("rows leave only for known values of `{0}`: give one, as in --filter \"{0} = …\"")]
    Match(String),
    /// Nothing is left of the quota.
    #[error("the quota of {quota} records is used up: {spent} were released before")]
    Quota {
        /// In all.
        quota: u64,
        /// So far.
        spent: u64,
    },
}

impl AskError {
    /// The reason code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Quota { .. } => "quota-used-up",
            _ => "request-fields",
        }
    }
}

impl Asked {
    /// The columns that are asked for: the fact `dataField`.
    ///
    /// # Errors
    /// A column that is not there.
    pub fn fields(&self, columns: &Columns) -> Result<BTreeSet<String>, AskError> {
        let Some(fields) = &self.fields else { return Ok(columns.iter().map(|column| column.name.clone()).collect()) };
        for field in fields {
            if columns.get(field).is_none() {
                let suggestion = columns.nearest(field).map(str::to_owned);
                return Err(AskError::Column { column: harmless(field), suggestion });
            }
        }
        if fields.is_empty() { Err(AskError::Nothing) } else { Ok(fields.clone()) }
    }

    /// The row filter, parsed; its text in one form is the fact `valueExpression`.
    ///
    /// # Errors
    /// What [`Filter::parse`] refuses.
    pub fn filter(&self, columns: &Columns) -> Result<Option<Filter>, AskError> {
        Ok(self.filter.as_deref().map(|text| Filter::parse(text, columns)).transpose()?)
    }
}

impl Obligations {
    /// What is done for this request, `spent` records after those before it: the quota becomes a limit, and what is
    /// asked for narrows the rest.
    ///
    /// # Errors
    /// A request for what may not leave, or that would betray it.
    pub fn for_request(mut self, asked: &Asked, columns: &Columns, spent: u64) -> Result<Self, AskError> {
        if let Some(quota) = self.quota.take() {
            let left = quota.checked_sub(spent).filter(|left| *left > 0).ok_or(AskError::Quota { quota, spent })?;
            self.limit = Some(self.limit.map_or(left, |limit| limit.min(left)));
        }
        let filter = asked.filter(columns)?;
        let matching = std::mem::take(&mut self.matching);
        if let Some(missing) = matching.iter().find(|column| !filter.as_ref().is_some_and(|f| binds(&f.tree, column))) {
            return Err(AskError::Match(missing.clone()));
        }
        if let Some(filter) = filter {
            if let Some(at_least) = &self.at_least {
                return Err(AskError::Groups(at_least.k));
            }
            let shown = |column: &str| {
                !self.watermark.contains_key(column)
                    && !self.columns.contains_key(column)
                    && self.keep.as_ref().is_none_or(|keep| keep.contains(column))
            };
            let looked_at = filter.columns();
            if let Some(hidden) =
                looked_at.iter().find(|column| !shown(column) && !only_bound(&filter, &matching, column))
            {
                return Err(AskError::Hidden((*hidden).to_owned()));
            }
            self.filter = Filter::meet(self.filter.iter().chain([&filter]));
        }
        if asked.fields.is_some() {
            let fields = asked.fields(columns)?;
            let before = self.keep.take();
            let kept: BTreeSet<String> = match before.clone() {
                None => fields,
                Some(keep) => keep.intersection(&fields).cloned().collect(),
            };
            let leaves = |column: &String| self.columns.get(column) != Some(&ColumnRule::Drop);
            if !kept.iter().any(leaves) {
                return Err(AskError::Nothing);
            }
            // groups of fewer columns are larger: answers could be joined to smaller ones. And a mark needs all of its own
            let grouped = self.at_least.iter().flat_map(|at_least| &at_least.columns);
            let marked = self.watermark.iter().flat_map(|(column, keys)| keys.iter().chain([column]));
            let could = |column: &&String| leaves(column) && before.as_ref().is_none_or(|keep| keep.contains(*column));
            if let Some(needed) = grouped.chain(marked).filter(could).find(|column| !kept.contains(*column)) {
                return Err(AskError::Needed(needed.clone()));
            }
            self.keep = Some(kept);
        }
        Ok(self)
    }
}

/// Whether a filter fixes this column to one value, whatever else it says.
fn binds(tree: &FilterExpr, wanted: &str) -> bool {
    match tree {
        FilterExpr::And(a, b) => binds(a, wanted) || binds(b, wanted),
        FilterExpr::Compare { column, op: Comparison::Eq, .. } => column == wanted,
        _ => false,
    }
}

/// Whether a filter looks at this column of `match` in equalities alone, and-ed at the top: then it tells no more than
/// whether there is such a row, which is what `match` allows.
fn only_bound(filter: &Filter, matching: &BTreeSet<String>, wanted: &str) -> bool {
    fn walk(tree: &FilterExpr, wanted: &str) -> bool {
        match tree {
            FilterExpr::And(a, b) => walk(a, wanted) && walk(b, wanted),
            FilterExpr::Compare { column, op: Comparison::Eq, .. } if column == wanted => true,
            other => !Filter { tree: other.clone() }.columns().contains(&wanted),
        }
    }
    matching.contains(wanted) && walk(&filter.tree, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{AtLeast, Column, ColumnKind, ColumnRule};

    fn columns() -> Columns {
        let column = |name: &str, kind| Column { name: name.into(), kind };
        Columns::new(vec![
            column("id_no", ColumnKind::Text),
            column("name", ColumnKind::Text),
            column("life_status", ColumnKind::Text),
            column("age", ColumnKind::Integer),
        ])
        .unwrap()
    }

    fn asked(fields: &[&str], filter: &str) -> Asked {
        Asked {
            fields: (!fields.is_empty()).then(|| fields.iter().map(|field| (*field).to_owned()).collect()),
            filter: (!filter.is_empty()).then(|| filter.to_owned()),
        }
    }

    fn keep(names: &[&str]) -> Option<BTreeSet<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_request_narrows_and_never_widens() {
        let demanded = Obligations { keep: keep(&["life_status", "age"]), limit: Some(9), ..Obligations::default() };
        let less = demanded.clone().for_request(&asked(&["life_status", "name"], ""), &columns(), 0).unwrap();
        assert_eq!(less.keep, keep(&["life_status"]));
        assert_eq!(demanded.clone().for_request(&Asked::default(), &columns(), 0).unwrap(), demanded);
        let nothing = demanded.clone().for_request(&asked(&["name"], ""), &columns(), 0);
        assert_eq!(nothing, Err(AskError::Nothing));
        let slip = demanded.for_request(&asked(&["nam"], ""), &columns(), 0).unwrap_err().to_string();
        assert!(slip.contains("did you mean `name`"), "{slip}");
    }

    #[test]
    fn a_filter_betrays_nothing_that_does_not_leave() {
        let demanded = Obligations {
            keep: keep(&["life_status", "age"]),
            columns: [("age".to_owned(), ColumnRule::Band(10))].into(),
            ..Obligations::default()
        };
        let ask = |filter: &str| demanded.clone().for_request(&asked(&[], filter), &columns(), 0);
        assert!(ask("life_status = 'living'").is_ok());
        assert_eq!(ask("age = 38"), Err(AskError::Hidden("age".into())), "banded");
        assert_eq!(ask("id_no = '1'"), Err(AskError::Hidden("id_no".into())), "not kept");
        assert_eq!(ask("life_status = 'x' or name = 'y'"), Err(AskError::Hidden("name".into())));
        let groups =
            Obligations { at_least: Some(AtLeast { k: 5, columns: BTreeSet::new() }), ..Obligations::default() };
        let refused = groups.for_request(&asked(&[], "life_status = 'living'"), &columns(), 0);
        assert_eq!(refused, Err(AskError::Groups(5)));
    }

    #[test]
    fn groups_and_marks_keep_the_columns_that_make_them() {
        let grouped = Obligations {
            at_least: Some(AtLeast { k: 5, columns: BTreeSet::from(["age".to_owned(), "name".to_owned()]) }),
            columns: [("name".to_owned(), ColumnRule::Drop)].into(),
            ..Obligations::default()
        };
        let ask = |fields: &[&str]| grouped.clone().for_request(&asked(fields, ""), &columns(), 0);
        assert_eq!(ask(&["life_status"]), Err(AskError::Needed("age".into())), "answers could be joined");
        assert!(ask(&["age", "life_status"]).is_ok(), "`name` leaves in no answer");
        assert_eq!(ask(&["name"]), Err(AskError::Nothing));
        let marked = Obligations {
            watermark: [("age".to_owned(), BTreeSet::from(["id_no".to_owned()]))].into(),
            ..Obligations::default()
        };
        let ask = |fields: &[&str], filter: &str| marked.clone().for_request(&asked(fields, filter), &columns(), 0);
        assert_eq!(ask(&["age"], ""), Err(AskError::Needed("id_no".into())));
        assert_eq!(ask(&[], "age = 38"), Err(AskError::Hidden("age".into())), "it would tell the digit that was moved");
        assert!(ask(&["age", "id_no"], "id_no = '1'").is_ok());
    }

    #[test]
    fn a_column_of_match_needs_one_known_value_and_takes_no_search() {
        let demanded = Obligations {
            keep: keep(&["life_status"]),
            matching: BTreeSet::from(["id_no".to_owned()]),
            ..Obligations::default()
        };
        let ask = |filter: &str| demanded.clone().for_request(&asked(&[], filter), &columns(), 0);
        let met = ask("id_no = '440101' and life_status = 'living'").unwrap();
        assert!(met.filter.is_some() && met.matching.is_empty());
        for missing in ["", "life_status = 'living'", "id_no = '1' or id_no = '2'", "not (id_no = '1')"] {
            assert_eq!(ask(missing), Err(AskError::Match("id_no".into())), "{missing}");
        }
        for search in ["id_no = '1' and not (id_no = '2')", "id_no = '1' and id_no > '0'"] {
            assert_eq!(ask(search), Err(AskError::Hidden("id_no".into())), "{search}");
        }
    }

    #[test]
    fn what_is_left_of_a_quota_is_the_limit() {
        let demanded = Obligations { quota: Some(100), limit: Some(80), ..Obligations::default() };
        for (spent, limit) in [(0, 80), (30, 70), (99, 1)] {
            let met = demanded.clone().for_request(&Asked::default(), &columns(), spent).unwrap();
            assert_eq!((met.limit, met.quota), (Some(limit), None));
        }
        for spent in [100, 200] {
            let refused = demanded.clone().for_request(&Asked::default(), &columns(), spent);
            assert_eq!(refused, Err(AskError::Quota { quota: 100, spent }));
        }
    }
}
