//! Which rows a filter selects: SQL's three values, on raw values.

use std::cmp::Ordering;

use crate::{
    policy::{Comparison, Filter, FilterExpr, Literal},
    source::{Broken, Decimal, Row, short_floor},
    transform::TransformError,
};

/// A filter with its columns' places.
pub struct Selector(Node);

enum Node {
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
    IsNull(usize),
    Text(usize, Comparison, String),
    Number(usize, Comparison, Number),
}

struct Number {
    text: String,
    /// The same, where it is a short integer.
    short: Option<i64>,
}

impl Selector {
    /// `place` says where in the batch a column is.
    ///
    /// # Errors
    /// A column that isn't there, a number that is none.
    pub fn new(filter: &Filter, place: &dyn Fn(&str) -> Option<usize>) -> Result<Self, TransformError> {
        Ok(Self(node(&filter.tree, place)?))
    }

    /// Whether a row is selected; unknown is not true. A value that is no number where one is compared is an error,
    /// named by its column's place: it was published as one, and is neither more nor less.
    ///
    /// # Errors
    /// A value that can't be read.
    pub fn select(&self, row: &impl Row, scratch: &mut String) -> Result<Result<bool, usize>, Broken> {
        match evaluate(&self.0, row, scratch) {
            Ok(truth) => Ok(Ok(truth == Some(true))),
            Err(Wrong::NotANumber(place)) => Ok(Err(place)),
            Err(Wrong::Broken(broken)) => Err(broken),
        }
    }
}

enum Wrong {
    NotANumber(usize),
    Broken(Broken),
}

impl From<Broken> for Wrong {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

fn node(expr: &FilterExpr, place: &dyn Fn(&str) -> Option<usize>) -> Result<Node, TransformError> {
    let at = |name: &str| place(name).ok_or_else(|| TransformError::Column(name.to_owned()));
    let boxed = |expr: &FilterExpr| node(expr, place).map(Box::new);
    Ok(match expr {
        FilterExpr::And(a, b) => Node::And(boxed(a)?, boxed(b)?),
        FilterExpr::Or(a, b) => Node::Or(boxed(a)?, boxed(b)?),
        FilterExpr::Not(a) => Node::Not(boxed(a)?),
        FilterExpr::IsNull(column) => Node::IsNull(at(column)?),
        FilterExpr::Compare { column, op, literal: Literal::Text(text) } => Node::Text(at(column)?, *op, text.clone()),
        FilterExpr::Compare { column, op, literal: Literal::Number(number) } => match Decimal::parse(number) {
            Some(_) => {
                let short = short_floor(number).and_then(|(whole, above)| (!above).then_some(whole));
                Node::Number(at(column)?, *op, Number { text: number.clone(), short })
            }
            None => return Err(TransformError::Rule { column: column.clone(), obligation: "filter" }),
        },
    })
}

/// Null is unknown. Both sides are always looked at, so that a broken value is found wherever it stands.
fn evaluate(node: &Node, row: &impl Row, scratch: &mut String) -> Result<Option<bool>, Wrong> {
    Ok(match node {
        Node::And(a, b) => match (evaluate(a, row, scratch)?, evaluate(b, row, scratch)?) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        },
        Node::Or(a, b) => match (evaluate(a, row, scratch)?, evaluate(b, row, scratch)?) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        },
        Node::Not(a) => evaluate(a, row, scratch)?.map(|truth| !truth),
        Node::IsNull(column) => Some(row.text(*column, scratch)?.is_empty()),
        Node::Text(column, op, text) => match row.text(*column, scratch)? {
            "" => None,
            value => Some(holds(*op, value.cmp(text.as_str()))),
        },
        Node::Number(column, op, number) => match (row.short(*column), number.short) {
            (Some(value), Some(whole)) => Some(holds(*op, against(value, whole))),
            _ => match row.text(*column, scratch)? {
                "" => None,
                value => Some(holds(*op, compare(value, number).ok_or(Wrong::NotANumber(*column))?)),
            },
        },
    })
}

fn against((floor, above): (i64, bool), whole: i64) -> Ordering {
    floor.cmp(&whole).then(if above { Ordering::Greater } else { Ordering::Equal })
}

fn compare(value: &str, number: &Number) -> Option<Ordering> {
    if let (Some((floor, above)), Some(whole)) = (short_floor(value), number.short) {
        return Some(against((floor, above), whole));
    }
    Some(Decimal::parse(value)?.cmp(&Decimal::parse(&number.text)?))
}

const fn holds(op: Comparison, ordering: Ordering) -> bool {
    match op {
        Comparison::Eq => ordering.is_eq(),
        Comparison::Ne => ordering.is_ne(),
        Comparison::Lt => ordering.is_lt(),
        Comparison::Le => ordering.is_le(),
        Comparison::Gt => ordering.is_gt(),
        Comparison::Ge => ordering.is_ge(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Column, ColumnKind, Columns};

    fn columns() -> Columns {
        Columns::new(vec![
            Column { name: "n".into(), kind: ColumnKind::Number },
            Column { name: "t".into(), kind: ColumnKind::Text },
        ])
        .unwrap()
    }

    struct Texts([&'static str; 2]);

    impl Row for Texts {
        fn number(&self) -> u64 {
            1
        }
        fn text<'a>(&'a self, place: usize, _: &'a mut String) -> Result<&'a str, Broken> {
            Ok(self.0[place])
        }
    }

    /// The rows that are selected, or the row and the column of what is no number.
    fn select(
        filter: &str,
        numbers: Vec<Option<&'static str>>,
        texts: Vec<Option<&'static str>>,
    ) -> Result<Vec<usize>, (usize, usize)> {
        let filter = Filter::parse(filter, &columns()).unwrap();
        let selector = Selector::new(&filter, &|name| columns().position(name)).unwrap();
        let mut selected = Vec::new();
        for (row, (number, text)) in numbers.into_iter().zip(texts).enumerate() {
            let texts = Texts([number.unwrap_or_default(), text.unwrap_or_default()]);
            if selector.select(&texts, &mut String::new()).unwrap().map_err(|place| (row, place))? {
                selected.push(row);
            }
        }
        Ok(selected)
    }

    #[test]
    fn only_rows_that_are_truly_selected_are() {
        let numbers =
            || vec![Some("1"), Some("2.50"), None, Some("-3"), Some("100000000000000000000000000000000000000.5")];
        let texts = || vec![Some("a"), None, Some("b"), Some("a"), Some("é")];
        for (filter, expected) in [
            ("n > 1", vec![1, 4]),
            ("n = 2.5", vec![1]),
            ("NOT (n > 1)", vec![0, 3]),
            ("n > 1 OR t = 'b'", vec![1, 2, 4]),
            ("n < 2 AND t = 'a'", vec![0, 3]),
            ("NOT (n > 1 AND t = 'x')", vec![0, 2, 3, 4]),
            ("n IS NULL", vec![2]),
            ("n IS NOT NULL AND t IS NULL", vec![1]),
            ("t <> 'a'", vec![2, 4]),
            ("n IN (1, -3.0)", vec![0, 3]),
            ("n BETWEEN 1 AND 3", vec![0, 1]),
        ] {
            assert_eq!(select(filter, numbers(), texts()), Ok(expected), "{filter}");
        }
    }

    #[test]
    fn what_is_no_number_is_neither_more_nor_less() {
        let wrong = select("n > 1", vec![Some("2"), Some("unknown")], vec![None, None]);
        assert_eq!(wrong, Err((1, 0)));
        assert!(select("t = 'unknown'", vec![Some("unknown")], vec![Some("unknown")]).is_ok(), "nobody compares `n`");
    }
}
