//! The meet of what concerns rows: filters, limits and groups, as what they let through of small tables.

use super::*;

/// SQL's three values on one row of (age, grade); empty is `None`.
fn holds(expr: &FilterExpr, row: (Option<i64>, Option<i64>)) -> Option<bool> {
    let value = |column: &str| if column == "age" { row.0 } else { row.1 };
    match expr {
        FilterExpr::And(a, b) => match (holds(a, row), holds(b, row)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        },
        FilterExpr::Or(a, b) => match (holds(a, row), holds(b, row)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        },
        FilterExpr::Not(a) => holds(a, row).map(|truth| !truth),
        FilterExpr::IsNull(column) => Some(value(column).is_none()),
        FilterExpr::Compare { column, op, literal: Literal::Number(number) } => {
            let (a, b) = (value(column)?, number.parse::<i64>().unwrap());
            Some(match op {
                Comparison::Eq => a == b,
                Comparison::Ne => a != b,
                Comparison::Lt => a < b,
                Comparison::Le => a <= b,
                Comparison::Gt => a > b,
                Comparison::Ge => a >= b,
            })
        }
        FilterExpr::Compare { .. } => unreachable!("only numbers here"),
    }
}

fn rows() -> impl Iterator<Item = (Option<i64>, Option<i64>)> {
    let values = || [None, Some(0), Some(1), Some(2), Some(3)].into_iter();
    values().flat_map(move |age| values().map(move |grade| (age, grade)))
}

fn condition() -> impl Strategy<Value = String> {
    let leaf = (prop::sample::select(vec!["age", "grade"]), prop::sample::select(vec!["=", "<>", "<", ">="]), 0..4_i64)
        .prop_map(|(column, op, number)| format!("{column} {op} {number}"));
    let leaf = prop_oneof![
        leaf,
        Just("age is null".to_owned()),
        Just("grade between 1 and 2".to_owned()),
        Just("age not in (1, 3)".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..5).prop_map(|parts| format!("({})", parts.join(" and "))),
            prop::collection::vec(inner.clone(), 2..5).prop_map(|parts| format!("({})", parts.join(" or "))),
            inner.prop_map(|one| format!("not ({one})")),
        ]
    })
}

/// Rows that are left when groups under k go, by the columns named.
fn left(rows: &[[u8; 3]], at_least: &AtLeast) -> BTreeSet<usize> {
    let names = ["age", "grade", "id"];
    let key = |row: &[u8; 3]| -> Vec<u8> {
        names.iter().zip(row).filter(|(name, _)| at_least.columns.contains(**name)).map(|(_, value)| *value).collect()
    };
    let size = |of: &[u8; 3]| rows.iter().filter(|row| key(row) == key(of)).count() as u64;
    rows.iter().enumerate().filter(|(_, row)| size(row) >= at_least.k).map(|(place, _)| place).collect()
}

fn group() -> impl Strategy<Value = Obligation> {
    (2_u64..6, prop::sample::subsequence(vec!["age", "grade", "id"], 1..=3))
        .prop_map(|(k, columns)| Obligation::AtLeast { k, columns: columns.into_iter().map(str::to_owned).collect() })
}

proptest! {
    /// What all filters together select is what each of them selects, in any order, however often each is said.
    #[test]
    fn filters_together_select_what_each_selects(texts in prop::collection::vec(condition(), 1..5)) {
        let filters: Vec<Obligation> =
            texts.iter().map(|text| Obligation::Filter(Filter::parse(text, &columns()).unwrap())).collect();
        let met = Obligations::meet(&filters);
        let tree = &met.filter.as_ref().unwrap().tree;
        for row in rows() {
            let each = filters.iter().all(|filter| match filter {
                Obligation::Filter(filter) => holds(&filter.tree, row) == Some(true),
                _ => unreachable!("only filters here"),
            });
            prop_assert_eq!(holds(tree, row) == Some(true), each, "{:?} on {:?}", texts, row);
        }
        prop_assert_eq!(met.sha256(), Obligations::meet(filters.iter().rev().chain(&filters)).sha256());
    }

    /// Whoever is hidden by either demand is hidden by both together.
    #[test]
    fn groups_together_hide_whom_either_hides(
        table in prop::collection::vec([0..2_u8, 0..2_u8, 0..3_u8], 0..24), a in group(), b in group(),
    ) {
        let one = |obligation: &Obligation| Obligations::meet([obligation]).at_least.unwrap();
        let both = Obligations::meet([&a, &b]).at_least.unwrap();
        let left_by_both = left(&table, &both);
        prop_assert!(left_by_both.is_subset(&left(&table, &one(&a))), "{:?} of {:?}, {:?}", both, a, b);
        prop_assert!(left_by_both.is_subset(&left(&table, &one(&b))), "{:?} of {:?}, {:?}", both, a, b);
    }
}

#[test]
fn what_is_kept_is_what_everybody_keeps_and_the_smallest_limit_holds() {
    let keep = |names: &[&str]| Obligation::Keep(names.iter().map(ToString::to_string).collect());
    let met = Obligations::meet(&[
        keep(&["age", "grade"]),
        keep(&["grade", "id"]),
        Obligation::Limit(9),
        Obligation::Limit(4),
    ]);
    assert_eq!((met.keep, met.limit), (Some(BTreeSet::from(["grade".to_owned()])), Some(4)));
    let nothing = Obligations::meet(&[keep(&["age"]), keep(&["id"])]);
    assert_eq!(nothing.keep, Some(BTreeSet::new()), "nothing in common is nothing, not everything");
    assert!(!nothing.is_empty());
}
