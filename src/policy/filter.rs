//! `filter(…)`: a SQL boolean expression, parsed to a typed tree and checked against the columns. The text goes nowhere.

use std::fmt;

use serde::{Deserialize, Serialize};
use sqlparser::{
    ast::{BinaryOperator, Expr, UnaryOperator, Value as SqlValue},
    dialect::GenericDialect,
    parser::Parser,
    tokenizer::{Token, Tokenizer, Whitespace},
};

use crate::policy::{
    ColumnKind, Columns,
    problem::{did_you_mean, harmless},
};

/// Longest expression, in bytes.
const MAX_TEXT: usize = 4096;
/// Deepest nesting of brackets: where the parser errs it tries each `not (…)` a second time as a function's call, so
/// an error costs twice as much at each level.
const MAX_NESTING: usize = 6;
/// The parser's own limit, which brackets and `not` together may reach.
const MAX_DEPTH: usize = 32;
/// The words of a filter that are no columns.
const WORDS: [&str; 9] = ["AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "TRUE", "FALSE"];
/// Deepest tree, with room for a meet above it: a tree of 60 in JSON is what readers with a limit of 128 take.
const MAX_TREE: usize = 40;
/// Digits on each side of a number's point.
const MAX_DIGITS: usize = 18;

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
    #[error("the filter names the column `{column}`, which the dataset doesn't have{}", did_you_mean(suggestion.as_deref(), ""))]
    Column {
        /// As written.
        column: String,
        /// The nearest known one.
        suggestion: Option<String>,
    },
    /// A comparison with the empty text: empty values are unknown, so it is never true.
    #[error(
        "`{0}` compared with '' is never true: an empty value is unknown; write `{0} IS NULL` or `{0} IS NOT NULL`"
    )]
    Empty(String),
    /// A number that is not compared exactly.
    #[error("the number {0} is not handled: write it in full, with at most 18 digits before and after the point")]
    Number(String),
    /// Nested too deeply.
    #[error("the filter is nested too deeply")]
    Deep,
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
        let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().map_err(|error| syntax(error.to_string()))?;
        vet(&tokens, columns)?;
        let mut parser = Parser::new(&GenericDialect {}).with_recursion_limit(MAX_DEPTH).with_tokens(tokens);
        let expr = parser.parse_expr().map_err(|error| syntax(error.to_string()))?;
        if parser.peek_token().token != Token::EOF {
            return Err(syntax(format!("`{}` follows it", parser.peek_token())));
        }
        let tree = tree(&expr, columns)?;
        if tree.depth() > MAX_TREE {
            return Err(FilterError::Deep);
        }
        Ok(Self { tree })
    }

    /// What all of these filters select, in one form whatever their order, each condition once.
    pub(super) fn meet<'a>(filters: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut conditions: Vec<FilterExpr> = Vec::new();
        for filter in filters {
            filter.tree.conditions(&mut conditions);
        }
        conditions.sort_unstable();
        conditions.dedup();
        joined(conditions, FilterExpr::And).map(|tree| Self { tree })
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

/// As SQL, in one form: every operand in brackets of its own.
impl fmt::Display for FilterExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |column: &str| format!("\"{}\"", column.replace('"', "\"\""));
        match self {
            Self::And(a, b) => write!(f, "({a} AND {b})"),
            Self::Or(a, b) => write!(f, "({a} OR {b})"),
            Self::Not(a) => write!(f, "(NOT {a})"),
            Self::IsNull(column) => write!(f, "({} IS NULL)", name(column)),
            Self::Compare { column, op, literal: Literal::Number(number) } => {
                write!(f, "({} {} {number})", name(column), op.sql())
            }
            Self::Compare { column, op, literal: Literal::Text(text) } => {
                write!(f, "({} {} '{}')", name(column), op.sql(), text.replace('\'', "''"))
            }
        }
    }
}

impl Comparison {
    const fn sql(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "<>",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }
}

/// Lets through what a filter can be made of and nothing else of SQL: the parser never sees a function, a subquery or
/// an `INTERVAL`.
fn vet(tokens: &[Token], columns: &Columns) -> Result<(), FilterError> {
    let unsupported = |what: String| Err(FilterError::Unsupported(harmless(&what)));
    let (mut nesting, mut after_column) = (0_usize, None);
    for token in tokens {
        let column = after_column.take();
        match token {
            Token::Whitespace(Whitespace::Space | Whitespace::Newline | Whitespace::Tab) => after_column = column,
            Token::Word(word) if word.quote_style.is_none() && WORDS.contains(&&*word.value.to_ascii_uppercase()) => {}
            Token::LParen if column.is_some() => return unsupported(format!("{}(…)", column.unwrap_or_default())),
            Token::LParen => {
                nesting += 1;
                if nesting > MAX_NESTING {
                    return Err(FilterError::Deep);
                }
            }
            Token::RParen => nesting = nesting.saturating_sub(1),
            Token::Word(_) | Token::Number(..) | Token::SingleQuotedString(_) if column.is_some() => {
                return unsupported(format!("{} {token}", column.unwrap_or_default()));
            }
            Token::Word(word) => after_column = Some(word.value.as_str()),
            Token::Number(..) | Token::SingleQuotedString(_) | Token::Comma | Token::Minus => {}
            Token::Eq | Token::Neq | Token::Lt | Token::LtEq | Token::Gt | Token::GtEq => {}
            other => return unsupported(other.to_string()),
        }
        // a name that is no column is said to be none, unless it turns out to be a function's
        if let Some(name) = column
            && after_column.is_none()
        {
            named_column(name, columns)?;
        }
    }
    after_column.map_or(Ok(()), |name| named_column(name, columns).map(|_| ()))
}

impl FilterExpr {
    fn depth(&self) -> usize {
        match self {
            Self::And(a, b) | Self::Or(a, b) => 1 + a.depth().max(b.depth()),
            Self::Not(a) => 1 + a.depth(),
            Self::Compare { .. } | Self::IsNull(_) => 1,
        }
    }

    /// The conditions that all have to hold.
    fn conditions(&self, found: &mut Vec<Self>) {
        match self {
            Self::And(a, b) => {
                a.conditions(found);
                b.conditions(found);
            }
            other => found.push(other.clone()),
        }
    }
}

/// One tree of many, as shallow as can be: `AND` and `OR` of three values are associative.
fn joined(mut parts: Vec<FilterExpr>, join: fn(Box<FilterExpr>, Box<FilterExpr>) -> FilterExpr) -> Option<FilterExpr> {
    if parts.len() <= 1 {
        return parts.pop();
    }
    let right = joined(parts.split_off(parts.len() / 2), join)?;
    Some(join(Box::new(joined(parts, join)?), Box::new(right)))
}

fn tree(expr: &Expr, columns: &Columns) -> Result<FilterExpr, FilterError> {
    let boxed = |expr: &Expr| tree(expr, columns).map(Box::new);
    let unsupported = |expr: &Expr| FilterError::Unsupported(expr.to_string().chars().take(200).collect());
    Ok(match expr {
        Expr::Nested(inner) => tree(inner, columns)?,
        Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } => {
            // a chain leans to the left, as long as the text
            let (mut parts, mut rest) = (Vec::new(), expr);
            while let Expr::BinaryOp { left, op: same, right } = rest
                && same == op
            {
                parts.push(tree(right, columns)?);
                rest = left;
            }
            parts.push(tree(rest, columns)?);
            parts.reverse();
            let join = if *op == BinaryOperator::And { FilterExpr::And } else { FilterExpr::Or };
            joined(parts, join).ok_or_else(|| unsupported(expr))?
        }
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => FilterExpr::Not(boxed(expr)?),
        Expr::IsNull(inner) => FilterExpr::IsNull(column(inner, columns)?.0),
        Expr::IsNotNull(inner) => FilterExpr::Not(Box::new(FilterExpr::IsNull(column(inner, columns)?.0))),
        Expr::BinaryOp { left, op, right } => {
            let op = comparison(op).ok_or_else(|| unsupported(expr))?;
            match literal(right) {
                Some(value) => compare(left, op, value, columns)?,
                None => {
                    let value = literal(left).ok_or_else(|| unsupported(expr))?;
                    compare(right, mirrored(op), value, columns)?
                }
            }
        }
        Expr::InList { expr: inner, list, negated } => {
            let parts: Result<Vec<_>, _> = list
                .iter()
                .map(|item| compare(inner, Comparison::Eq, literal(item).ok_or_else(|| unsupported(item))?, columns))
                .collect();
            negate(joined(parts?, FilterExpr::Or).ok_or_else(|| unsupported(expr))?, *negated)
        }
        Expr::Between { expr: inner, negated, low, high } => {
            let bound = |expr: &Expr| literal(expr).ok_or_else(|| unsupported(expr));
            let both = FilterExpr::And(
                Box::new(compare(inner, Comparison::Ge, bound(low)?, columns)?),
                Box::new(compare(inner, Comparison::Le, bound(high)?, columns)?),
            );
            negate(both, *negated)
        }
        other => return Err(unsupported(other)),
    })
}

fn negate(expr: FilterExpr, negated: bool) -> FilterExpr {
    if negated { FilterExpr::Not(Box::new(expr)) } else { expr }
}

fn compare(expr: &Expr, op: Comparison, literal: Literal, columns: &Columns) -> Result<FilterExpr, FilterError> {
    let (column, kind) = column(expr, columns)?;
    let equality = matches!(op, Comparison::Eq | Comparison::Ne);
    match &literal {
        Literal::Text(text) if text.is_empty() => return Err(FilterError::Empty(column)),
        Literal::Number(number) if !is_plain(number) => return Err(FilterError::Number(harmless(number))),
        _ => {}
    }
    let fits = match (&literal, kind) {
        (Literal::Number(_), ColumnKind::Integer | ColumnKind::Number) => true,
        (Literal::Text(_), ColumnKind::Text) => true,
        // the order of dates as text is nobody's
        (Literal::Text(_), ColumnKind::Date) => equality,
        (Literal::Text(text), ColumnKind::Boolean) => equality && matches!(text.as_str(), "true" | "false"),
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
        Expr::Identifier(name) => named_column(&name.value, columns),
        Expr::Nested(inner) => column(inner, columns),
        other => Err(FilterError::Unsupported(other.to_string())),
    }
}

fn named_column(name: &str, columns: &Columns) -> Result<(String, ColumnKind), FilterError> {
    let column = columns.get(name).ok_or_else(|| FilterError::Column {
        column: harmless(name),
        suggestion: columns.nearest(name).map(str::to_owned),
    })?;
    Ok((column.name.clone(), column.kind))
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
            Literal::Number(number) if !number.starts_with('-') => Some(Literal::Number(format!("-{number}"))),
            _ => None,
        },
        _ => None,
    }
}

/// A decimal number in full, of a size that is compared exactly.
fn is_plain(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    [whole, fraction]
        .iter()
        .all(|part| (1..=MAX_DIGITS).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit()))
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
