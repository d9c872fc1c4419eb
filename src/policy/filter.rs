//! `filter(…)`: a SQL boolean expression, parsed to a typed tree and checked against the columns. The text goes nowhere.

use serde::{Deserialize, Serialize};
use sqlparser::{
    ast::{BinaryOperator, Expr, UnaryOperator, Value as SqlValue},
    dialect::GenericDialect,
    parser::Parser,
    tokenizer::Token,
};

use crate::policy::{ColumnKind, Columns};

/// Longest expression, in bytes.
const MAX_TEXT: usize = 4096;
/// Deepest nesting.
const MAX_DEPTH: usize = 32;

/// Why an expression was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FilterError {
    /// Not SQL.
    #[error("`{0}` is not a boolean expression: {1}")]
    Syntax(String, String),
    /// SQL, but more than is handled.
    #[error("`{0}` is not handled in a filter: use comparisons, IN, BETWEEN, IS NULL, AND, OR, NOT")]
    Unsupported(String),
    /// A column that is not there.
    #[error("the filter names the column `{0}`, which the dataset doesn't have")]
    Column(String),
    /// A comparison between things that can't be compared.
    #[error("the column `{column}` holds {kind}; it can't be compared with {literal}")]
    Kind {
        /// The column.
        column: String,
        /// What it holds.
        kind: &'static str,
        /// The literal.
        literal: String,
    },
}

/// A checked filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Filter {
    /// The tree.
    pub tree: FilterExpr,
}

/// Three-valued, as in SQL: a comparison with an empty value is unknown, and only what is true is selected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FilterExpr {
    /// Both.
    And(Box<Self>, Box<Self>),
    /// Either.
    Or(Box<Self>, Box<Self>),
    /// Not.
    Not(Box<Self>),
    /// A column against a literal.
    Compare {
        /// The column.
        column: String,
        /// How.
        op: Comparison,
        /// With what.
        literal: Literal,
    },
    /// Whether a column is empty.
    IsNull(String),
}

/// How a column is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "=, <>, <, <=, >, >=")]
pub enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// With what it is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Literal {
    /// A number, as it was written.
    Number(String),
    /// A text.
    Text(String),
}

impl Filter {
    /// Parses and checks.
    pub fn parse(text: &str, columns: &Columns) -> Result<Self, FilterError> {
        let syntax = |error: String| FilterError::Syntax(text.chars().take(200).collect(), error);
        if text.len() > MAX_TEXT {
            return Err(syntax(format!("longer than {MAX_TEXT} bytes")));
        }
        let mut parser = Parser::new(&GenericDialect {})
            .with_recursion_limit(MAX_DEPTH)
            .try_with_sql(text)
            .map_err(|error| syntax(error.to_string()))?;
        let expr = parser.parse_expr().map_err(|error| syntax(error.to_string()))?;
        if parser.peek_token().token != Token::EOF {
            return Err(syntax(format!("`{}` follows it", parser.peek_token())));
        }
        Ok(Self { tree: tree(&expr, columns)? })
    }

    /// The columns that it looks at.
    pub fn columns(&self) -> Vec<&str> {
        fn walk<'a>(expr: &'a FilterExpr, found: &mut Vec<&'a str>) {
            match expr {
                FilterExpr::And(a, b) | FilterExpr::Or(a, b) => {
                    walk(a, found);
                    walk(b, found);
                }
                FilterExpr::Not(a) => walk(a, found),
                FilterExpr::Compare { column, .. } | FilterExpr::IsNull(column) => found.push(column),
            }
        }
        let mut found = Vec::new();
        walk(&self.tree, &mut found);
        found
    }
}

fn tree(expr: &Expr, columns: &Columns) -> Result<FilterExpr, FilterError> {
    let boxed = |expr: &Expr| tree(expr, columns).map(Box::new);
    Ok(match expr {
        Expr::Nested(inner) => tree(inner, columns)?,
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => FilterExpr::And(boxed(left)?, boxed(right)?),
        Expr::BinaryOp { left, op: BinaryOperator::Or, right } => FilterExpr::Or(boxed(left)?, boxed(right)?),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => FilterExpr::Not(boxed(expr)?),
        Expr::IsNull(inner) => FilterExpr::IsNull(column(inner, columns)?.0),
        Expr::IsNotNull(inner) => FilterExpr::Not(Box::new(FilterExpr::IsNull(column(inner, columns)?.0))),
        Expr::BinaryOp { left, op, right } => {
            let op = comparison(op).ok_or_else(|| FilterError::Unsupported(expr.to_string()))?;
            match literal(right) {
                Some(value) => compare(left, op, value, columns)?,
                None => {
                    let value = literal(left).ok_or_else(|| FilterError::Unsupported(expr.to_string()))?;
                    compare(right, mirrored(op), value, columns)?
                }
            }
        }
        Expr::InList { expr: inner, list, negated } => {
            let mut any: Option<FilterExpr> = None;
            for item in list {
                let value = literal(item).ok_or_else(|| FilterError::Unsupported(item.to_string()))?;
                let one = compare(inner, Comparison::Eq, value, columns)?;
                any = Some(match any {
                    None => one,
                    Some(before) => FilterExpr::Or(Box::new(before), Box::new(one)),
                });
            }
            negate(any.ok_or_else(|| FilterError::Unsupported(expr.to_string()))?, *negated)
        }
        Expr::Between { expr: inner, negated, low, high } => {
            let bound = |expr: &Expr| literal(expr).ok_or_else(|| FilterError::Unsupported(expr.to_string()));
            let both = FilterExpr::And(
                Box::new(compare(inner, Comparison::Ge, bound(low)?, columns)?),
                Box::new(compare(inner, Comparison::Le, bound(high)?, columns)?),
            );
            negate(both, *negated)
        }
        other => return Err(FilterError::Unsupported(other.to_string())),
    })
}

fn negate(expr: FilterExpr, negated: bool) -> FilterExpr {
    if negated { FilterExpr::Not(Box::new(expr)) } else { expr }
}

fn compare(expr: &Expr, op: Comparison, literal: Literal, columns: &Columns) -> Result<FilterExpr, FilterError> {
    let (column, kind) = column(expr, columns)?;
    let fits = match (&literal, kind) {
        (Literal::Number(_), ColumnKind::Integer | ColumnKind::Number) => true,
        (Literal::Text(_), ColumnKind::Text) => true,
        // the order of dates as text is nobody's
        (Literal::Text(_), ColumnKind::Date | ColumnKind::Boolean) => matches!(op, Comparison::Eq | Comparison::Ne),
        _ => false,
    };
    if fits {
        return Ok(FilterExpr::Compare { column, op, literal });
    }
    let literal = match literal {
        Literal::Number(number) => format!("the number {number} in this way"),
        Literal::Text(_) => "a text in this way".to_owned(),
    };
    Err(FilterError::Kind { column, kind: kind.as_str(), literal })
}

fn column(expr: &Expr, columns: &Columns) -> Result<(String, ColumnKind), FilterError> {
    match expr {
        Expr::Identifier(name) => match columns.get(&name.value) {
            Some(column) => Ok((column.name.clone(), column.kind)),
            None => Err(FilterError::Column(name.value.clone())),
        },
        Expr::Nested(inner) => column(inner, columns),
        other => Err(FilterError::Unsupported(other.to_string())),
    }
}

fn literal(expr: &Expr) -> Option<Literal> {
    match expr {
        Expr::Value(value) => match &value.value {
            SqlValue::Number(number, false) => Some(Literal::Number(number.clone())),
            SqlValue::SingleQuotedString(text) => Some(Literal::Text(text.clone())),
            SqlValue::Boolean(value) => Some(Literal::Text(value.to_string())),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match literal(expr)? {
            Literal::Number(number) => Some(Literal::Number(format!("-{number}"))),
            Literal::Text(_) => None,
        },
        _ => None,
    }
}

fn comparison(op: &BinaryOperator) -> Option<Comparison> {
    Some(match op {
        BinaryOperator::Eq => Comparison::Eq,
        BinaryOperator::NotEq => Comparison::Ne,
        BinaryOperator::Lt => Comparison::Lt,
        BinaryOperator::LtEq => Comparison::Le,
        BinaryOperator::Gt => Comparison::Gt,
        BinaryOperator::GtEq => Comparison::Ge,
        _ => return None,
    })
}

/// `5 < a` is `a > 5`.
fn mirrored(op: Comparison) -> Comparison {
    match op {
        Comparison::Lt => Comparison::Gt,
        Comparison::Le => Comparison::Ge,
        Comparison::Gt => Comparison::Lt,
        Comparison::Ge => Comparison::Le,
        same => same,
    }
}
