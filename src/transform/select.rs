//! Which rows a filter selects: SQL's three values, on raw values.

use std::cmp::Ordering;

use arrow_array::{Array as _, BooleanArray, RecordBatch, StringArray, cast::AsArray as _};

use crate::{
    policy::{Comparison, Filter, FilterExpr, Literal},
    source::Decimal,
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
    Number(usize, Comparison, String),
}

/// A value that is no number in a comparison of numbers.
#[derive(Debug, PartialEq, Eq)]
pub struct NotANumber {
    /// Its row in the batch.
    pub row: usize,
    /// Its column in the batch.
    pub column: usize,
}

impl Selector {
    /// `place` says where in the batch a column is.
    ///
    /// # Errors
    /// A column that isn't there, a number that is none.
    pub fn new(filter: &Filter, place: &dyn Fn(&str) -> Option<usize>) -> Result<Self, TransformError> {
        Ok(Self(node(&filter.tree, place)?))
    }

    /// True where a row is selected; unknown is not true.
    ///
    /// # Errors
    /// A value that is no number where one is compared: it was published as one, and is neither more nor less.
    pub fn select(&self, batch: &RecordBatch) -> Result<BooleanArray, NotANumber> {
        let truth = evaluate(&self.0, batch)?;
        Ok(truth.iter().map(|truth| Some(truth == Some(true))).collect())
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
            Some(_) => Node::Number(at(column)?, *op, number.clone()),
            None => return Err(TransformError::Rule { column: column.clone(), obligation: "filter" }),
        },
    })
}

/// Null is unknown.
fn evaluate(node: &Node, batch: &RecordBatch) -> Result<BooleanArray, NotANumber> {
    let values = |column: &usize| -> &StringArray { batch.column(*column).as_string() };
    Ok(match node {
        Node::And(a, b) => zip(&evaluate(a, batch)?, &evaluate(b, batch)?, |a, b| match (a, b) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        }),
        Node::Or(a, b) => zip(&evaluate(a, batch)?, &evaluate(b, batch)?, |a, b| match (a, b) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        }),
        Node::Not(a) => evaluate(a, batch)?.iter().map(|truth| truth.map(|truth| !truth)).collect(),
        Node::IsNull(column) => {
            let values = values(column);
            (0..values.len()).map(|row| Some(values.is_null(row))).collect()
        }
        Node::Text(column, op, text) => {
            values(column).iter().map(|value| value.map(|value| holds(*op, value.cmp(text.as_str())))).collect()
        }
        Node::Number(column, op, number) => {
            let Some(number) = Decimal::parse(number) else { return Err(NotANumber { row: 0, column: *column }) };
            let compare = |(row, value): (usize, Option<&str>)| match value.map(Decimal::parse) {
                None => Ok(None),
                Some(Some(value)) => Ok(Some(holds(*op, value.cmp(&number)))),
                Some(None) => Err(NotANumber { row, column: *column }),
            };
            values(column).iter().enumerate().map(compare).collect::<Result<_, _>>()?
        }
    })
}

fn zip(a: &BooleanArray, b: &BooleanArray, both: impl Fn(Option<bool>, Option<bool>) -> Option<bool>) -> BooleanArray {
    a.iter().zip(b).map(|(a, b)| both(a, b)).collect()
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
    use std::sync::Arc;

    use arrow_array::ArrayRef;

    use super::*;
    use crate::policy::{Column, ColumnKind, Columns};

    fn columns() -> Columns {
        Columns::new(vec![
            Column { name: "n".into(), kind: ColumnKind::Number },
            Column { name: "t".into(), kind: ColumnKind::Text },
        ])
        .unwrap()
    }

    fn select(filter: &str, numbers: Vec<Option<&str>>, texts: Vec<Option<&str>>) -> Result<Vec<usize>, NotANumber> {
        let batch = RecordBatch::try_from_iter([
            ("n", Arc::new(StringArray::from(numbers)) as ArrayRef),
            ("t", Arc::new(StringArray::from(texts)) as ArrayRef),
        ])
        .unwrap();
        let filter = Filter::parse(filter, &columns()).unwrap();
        let mask = Selector::new(&filter, &|name| columns().position(name)).unwrap().select(&batch)?;
        assert_eq!(mask.null_count(), 0);
        Ok((0..mask.len()).filter(|row| mask.value(*row)).collect())
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
        assert_eq!(wrong, Err(NotANumber { row: 1, column: 0 }));
        assert!(select("t = 'unknown'", vec![Some("unknown")], vec![Some("unknown")]).is_ok(), "nobody compares `n`");
    }
}
