//! Which rows a filter selects: SQL's three values, on raw values.

use std::cmp::Ordering;

use arrow_array::{Array as _, BooleanArray, RecordBatch, StringArray, cast::AsArray as _};

use crate::{
    policy::{Columns, Comparison, Filter, FilterExpr, Literal},
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
    Number(usize, Comparison, Decimal),
}

impl Selector {
    pub fn new(filter: &Filter, columns: &Columns) -> Result<Self, TransformError> {
        Ok(Self(node(&filter.tree, columns)?))
    }

    /// True where a row is selected; unknown is not true.
    pub fn select(&self, batch: &RecordBatch) -> BooleanArray {
        let rows = batch.num_rows();
        (0..rows).map(|row| Some(evaluate(&self.0, batch, row) == Some(true))).collect()
    }
}

fn node(expr: &FilterExpr, columns: &Columns) -> Result<Node, TransformError> {
    let place = |name: &str| columns.position(name).ok_or_else(|| TransformError::Column(name.to_owned()));
    let boxed = |expr: &FilterExpr| node(expr, columns).map(Box::new);
    Ok(match expr {
        FilterExpr::And(a, b) => Node::And(boxed(a)?, boxed(b)?),
        FilterExpr::Or(a, b) => Node::Or(boxed(a)?, boxed(b)?),
        FilterExpr::Not(a) => Node::Not(boxed(a)?),
        FilterExpr::IsNull(column) => Node::IsNull(place(column)?),
        FilterExpr::Compare { column, op, literal: Literal::Text(text) } => {
            Node::Text(place(column)?, *op, text.clone())
        }
        FilterExpr::Compare { column, op, literal: Literal::Number(number) } => Node::Number(
            place(column)?,
            *op,
            Decimal::parse(number).ok_or_else(|| TransformError::Column(column.clone()))?,
        ),
    })
}

/// `None` is unknown. A value that is no number compares as unknown.
fn evaluate(node: &Node, batch: &RecordBatch, row: usize) -> Option<bool> {
    let value = |column: usize| {
        let array: &StringArray = batch.column(column).as_string();
        (!array.is_null(row)).then(|| array.value(row))
    };
    match node {
        Node::And(a, b) => match (evaluate(a, batch, row), evaluate(b, batch, row)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        },
        Node::Or(a, b) => match (evaluate(a, batch, row), evaluate(b, batch, row)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        },
        Node::Not(a) => evaluate(a, batch, row).map(|truth| !truth),
        Node::IsNull(column) => Some(value(*column).is_none()),
        Node::Text(column, op, text) => Some(holds(*op, value(*column)?.cmp(text.as_str()))),
        Node::Number(column, op, number) => Some(holds(*op, Decimal::parse(value(*column)?)?.compare(number))),
    }
}

fn holds(op: Comparison, ordering: Ordering) -> bool {
    match op {
        Comparison::Eq => ordering.is_eq(),
        Comparison::Ne => ordering.is_ne(),
        Comparison::Lt => ordering.is_lt(),
        Comparison::Le => ordering.is_le(),
        Comparison::Gt => ordering.is_gt(),
        Comparison::Ge => ordering.is_ge(),
    }
}

/// A decimal number exactly as written: digits and scale.
struct Decimal {
    digits: i128,
    scale: u32,
}

impl Decimal {
    /// At most 18 digits on each side of the point.
    fn parse(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        if whole.len() > 18 || fraction.len() > 18 || whole.len() + fraction.len() == 0 {
            return None;
        }
        let mut digits: i128 = 0;
        for b in whole.bytes().chain(fraction.bytes()) {
            digits = digits * 10 + i128::from(b.checked_sub(b'0').filter(|digit| *digit < 10)?);
        }
        Some(Self { digits: if text.starts_with('-') { -digits } else { digits }, scale: fraction.len() as u32 })
    }

    /// Never overflows: at most 36 digits and 18 more.
    fn compare(&self, other: &Self) -> Ordering {
        let scale = self.scale.max(other.scale);
        let lift = |number: &Self| number.digits.checked_mul(10_i128.pow(scale - number.scale));
        match (lift(self), lift(other)) {
            (Some(a), Some(b)) => a.cmp(&b),
            // too large to lift: its sign and size decide
            (None, _) => self.digits.cmp(&0),
            (_, None) => 0.cmp(&other.digits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_compare_as_numbers() {
        for (a, b, expected) in [
            ("1.50", "1.5", Ordering::Equal),
            ("-2", "1", Ordering::Less),
            ("10", "9", Ordering::Greater),
            ("999999999999999999", "0.000000000000000001", Ordering::Greater),
            ("-999999999999999999", "0.000000000000000001", Ordering::Less),
        ] {
            let (x, y) = (Decimal::parse(a).unwrap(), Decimal::parse(b).unwrap());
            assert_eq!(x.compare(&y), expected, "{a} {b}");
        }
        assert!(Decimal::parse("").is_none() && Decimal::parse("1e3").is_none() && Decimal::parse("x").is_none());
    }
}
