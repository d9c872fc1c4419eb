//! Offers of one dataset that can be subtracted from each other, joined, or compared.
//!
//! Each offer is looked at beside each other one: what the same participant learns who gets both. Says where that can
//! be, not that it will.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::policy::{
    ColumnRule, Columns, Obligations,
    workbench::{Level, Said, written},
};

/// What an offer lets leave.
#[derive(Clone, Debug)]
pub struct ReleaseShape {
    /// The offer.
    pub offer: String,
    /// Its dataset's id.
    pub dataset: String,
    /// Its source.
    pub source: String,
    /// The columns, where they are known.
    pub columns: Option<Columns>,
    /// What each permit of `release` demands, with the floors; by `@id`.
    pub permits: Vec<(String, Obligations)>,
}

/// A release that was made, as a connector remembers it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PastRelease {
    /// The offer.
    pub offer: String,
    /// Its dataset's id.
    pub dataset: String,
    /// The snapshot that left.
    pub snapshot: String,
    /// What was done to it.
    pub obligations: Obligations,
}

/// What two releases tell together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    /// How bad it is.
    pub level: Level,
    /// A stable code.
    pub code: &'static str,
    /// The dataset.
    pub dataset: String,
    /// The two, `offer` or `offer/permit`.
    pub between: [String; 2],
    /// What is so.
    pub message: String,
    /// In Chinese.
    pub message_zh: String,
}

struct Side<'a> {
    name: String,
    obligations: &'a Obligations,
    columns: Option<&'a Columns>,
}

/// Compares all offers, and what left under them before.
pub fn releases(shapes: &[ReleaseShape], history: &[PastRelease]) -> Vec<Joined> {
    let mut found = Vec::new();
    let all: Vec<(&ReleaseShape, Side<'_>)> =
        shapes.iter().flat_map(|shape| shape.sides().map(move |side| (shape, side))).collect();
    for (place, (first, a)) in all.iter().enumerate() {
        for (second, b) in &all[place + 1..] {
            if first.dataset == second.dataset || first.source == second.source {
                found.extend(pair(&first.dataset, a, b, first.offer == second.offer));
            }
        }
    }
    for (place, first) in history.iter().enumerate() {
        for second in &history[place + 1..] {
            let grouped = first.obligations.at_least.is_some() && second.obligations.at_least.is_some();
            if first.dataset == second.dataset && first.snapshot != second.snapshot && grouped {
                let said = Said::new(
                    format!(
                        "two snapshots of `{}` left in groups of at least {}: a row that was added or taken away between them shows in the difference of the counts",
                        first.dataset,
                        group(&first.obligations).min(group(&second.obligations))
                    ),
                    format!("{} 的两个快照均按组放行：其间增删的行会从计数之差中显现", first.dataset),
                );
                let between = [&first.offer, &second.offer].map(Clone::clone);
                found.push(joined(Level::Warning, "snapshot-changed", &first.dataset, between, said));
            }
        }
    }
    found.dedup();
    found
}

impl ReleaseShape {
    fn sides(&self) -> impl Iterator<Item = Side<'_>> {
        self.permits.iter().map(|(permit, obligations)| Side {
            name: if self.permits.len() == 1 { self.offer.clone() } else { format!("{}/{permit}", self.offer) },
            obligations,
            columns: self.columns.as_ref(),
        })
    }
}

impl Side<'_> {
    /// The columns that leave, where they are known: those that are named, at least.
    fn leaving(&self, others: &BTreeSet<String>) -> BTreeSet<String> {
        let all: BTreeSet<String> = match (&self.obligations.keep, self.columns) {
            (Some(keep), _) => keep.clone(),
            (None, Some(columns)) => columns.iter().map(|column| column.name.clone()).collect(),
            (None, None) => self.obligations.columns.keys().chain(others).cloned().collect(),
        };
        all.into_iter().filter(|column| self.obligations.columns.get(column) != Some(&ColumnRule::Drop)).collect()
    }

    fn named(&self) -> BTreeSet<String> {
        let Obligations { columns, keep, at_least, .. } = self.obligations;
        let groups = at_least.iter().flat_map(|at_least| &at_least.columns);
        columns.keys().chain(keep.iter().flatten()).chain(groups).cloned().collect()
    }
}

fn group(obligations: &Obligations) -> u64 {
    obligations.at_least.as_ref().map_or(0, |at_least| at_least.k)
}

fn joined(level: Level, code: &'static str, dataset: &str, between: [String; 2], said: Said) -> Joined {
    Joined { level, code, dataset: dataset.to_owned(), between, message: said.en, message_zh: said.zh }
}

/// `one_offer`: two permits of one offer. Where both apply their obligations are met together, so that less is certain;
/// and what leaves under them leaves under one agreement, with the same pseudonyms.
fn pair(dataset: &str, a: &Side<'_>, b: &Side<'_>, one_offer: bool) -> Vec<Joined> {
    let mut found = Vec::new();
    let between = || [a.name.clone(), b.name.clone()];
    let mut say = |level, code, said| {
        let level = if one_offer { Level::Note } else { level };
        found.push(joined(level, code, dataset, between(), said));
    };
    let (one, other) = (a.obligations, b.obligations);
    let groups = one.at_least.is_some() || other.at_least.is_some();
    let differs = [(one.filter != other.filter, "filter", "筛选条件"), (one.limit != other.limit, "limit", "行数上限")];
    for (_, what, zh) in differs.into_iter().filter(|(differs, ..)| *differs && groups) {
        say(
            Level::Warning,
            "subtract-rows",
            Said::new(
                format!(
                    "`{}` and `{}` differ in `{what}`, and rows leave in groups: the counts of one subtracted from the other's tell of groups that neither shows",
                    a.name, b.name
                ),
                format!("{} 与 {} 的{zh}不同，且按组放行：两者计数相减会显露双方都不公开的小组", a.name, b.name),
            ),
        );
    }
    if let (Some(first), Some(second)) = (&one.at_least, &other.at_least)
        && first.columns != second.columns
    {
        let names = |columns: &BTreeSet<String>| columns.iter().cloned().collect::<Vec<_>>().join(", ");
        say(
            Level::Warning,
            "groups-differ",
            Said::new(
                format!(
                    "`{}` groups by {}, `{}` by {}: what one suppresses, the other may show in another grouping",
                    a.name,
                    names(&first.columns),
                    b.name,
                    names(&second.columns)
                ),
                format!(
                    "{} 按 {} 分组，{} 按 {} 分组：一方隐去的可能由另一方显露",
                    a.name,
                    names(&first.columns),
                    b.name,
                    names(&second.columns)
                ),
            ),
        );
    }
    let named: BTreeSet<String> = a.named().union(&b.named()).cloned().collect();
    let (left, right) = (a.leaving(&named), b.leaving(&named));
    let both: Vec<&String> = left.intersection(&right).collect();
    for column in &both {
        let (first, second) = (one.columns.get(*column), other.columns.get(*column));
        let raw = |rule: Option<&ColumnRule>| rule.is_none();
        if raw(first) != raw(second) {
            let (open, shut, rule) = if raw(first) { (a, b, second) } else { (b, a, first) };
            let rule = rule.map(|rule| {
                let columns = [((*column).clone(), rule.clone())].into();
                written(&Obligations { columns, ..Obligations::default() }).join("")
            });
            say(
                Level::Warning,
                "raw-elsewhere",
                Said::new(
                    format!(
                        "`{}` demands `{}`, but `{}` lets `{column}` leave as it is",
                        shut.name,
                        rule.clone().unwrap_or_default(),
                        open.name
                    ),
                    format!("{} 要求 `{}`，但 {} 原样放行 {column}", shut.name, rule.unwrap_or_default(), open.name),
                ),
            );
        } else if first != second {
            say(
                Level::Note,
                "generalised-differently",
                Said::new(
                    format!(
                        "`{column}` leaves in two ways, in `{}` and `{}`: together they may tell more than either",
                        a.name, b.name
                    ),
                    format!("{column} 在 {} 与 {} 中以两种方式放行：合在一起可能透露更多", a.name, b.name),
                ),
            );
        }
    }
    let links: Vec<&String> = both
        .iter()
        .copied()
        .filter(|column| links(one.columns.get(*column), other.columns.get(*column), one_offer))
        .collect();
    let apart = |own: &BTreeSet<String>, others: &BTreeSet<String>| own.difference(others).cloned().collect::<Vec<_>>();
    let (only_left, only_right) = (apart(&left, &right), apart(&right, &left));
    if !links.is_empty() && !only_left.is_empty() && !only_right.is_empty() {
        let list = links.iter().map(|column| column.as_str()).collect::<Vec<_>>().join(", ");
        say(
            Level::Warning,
            "joinable",
            Said::new(
                format!(
                    "`{}` and `{}` can be joined on {list}: who gets both has {} beside {}",
                    a.name,
                    b.name,
                    only_left.join(", "),
                    only_right.join(", ")
                ),
                format!(
                    "{} 与 {} 可按 {list} 连接：同时取得者可将 {} 与 {} 对应起来",
                    a.name,
                    b.name,
                    only_left.join("、"),
                    only_right.join("、")
                ),
            ),
        );
    }
    found
}

/// Whether rows can be matched by a column: as it is in both, or, under one agreement, a pseudonym of one domain (in
/// another agreement the same value has another pseudonym).
fn links(first: Option<&ColumnRule>, second: Option<&ColumnRule>, one_agreement: bool) -> bool {
    match (first, second) {
        (None, None) => true,
        (Some(ColumnRule::Hash(one)), Some(ColumnRule::Hash(other))) => one_agreement && one == other,
        _ => false,
    }
}
