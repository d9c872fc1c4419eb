//! What both languages are read into.

use std::collections::BTreeSet;

use crate::{
    policy::{
        Action, Money,
        odrl::term::{Kind, Term},
    },
    time::Timestamp,
};

/// A permission or a prohibition.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    /// `@id`.
    pub id: String,
    pub permit: bool,
    pub actions: BTreeSet<Action>,
    pub when: Expr,
    /// What is done first, each as it is written in `@before`.
    pub before: Vec<Statement>,
    /// What is done to the bytes.
    pub during: Vec<Statement>,
    /// What is owed afterwards.
    pub after: Vec<Statement>,
    /// A promise in words.
    pub contract: Option<String>,
}

/// `name(arguments)`, the arguments as they are written in a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Statement {
    pub name: String,
    pub arguments: String,
}

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Is(Atom),
}

/// A comparison, which fits its operand's kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Atom {
    pub term: &'static Term,
    pub op: Op,
    pub right: Right,
}

/// ODRL's operators. `isA`, `term-lteq` have no counterpart; `hasPart` is read as `isAnyOf` of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Eq,
    Neq,
    Lt,
    Lteq,
    Gt,
    Gteq,
    AnyOf,
    NoneOf,
    AllOf,
    PartOf,
}

/// A literal.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Right {
    Text(String),
    Long(i64),
    Time(Timestamp),
    /// Milliseconds, not negative.
    Span(i64),
    Decimal(Money),
    /// An address, or a network in CIDR.
    Ip(String),
    Texts(Vec<String>),
}

// === impl Rule ===

impl Rule {
    /// What is demanded of whoever does this: first, of the bytes, afterwards, and in words.
    pub fn duties<'a>(&'a self, action: Action) -> (Demands<'a>, Demands<'a>, Demands<'a>, Option<&'a str>) {
        let (first, releases) = (action.waits(), action == Action::Release);
        let these = |statements: &'a [Statement], now: bool| statements.iter().filter(|_| now).collect();
        let (during, after) = (these(&self.during, releases), these(&self.after, releases));
        (these(&self.before, first), during, after, self.contract.as_deref())
    }
}

/// Statements, whatever their order.
pub(super) type Demands<'a> = BTreeSet<&'a Statement>;

// === impl Expr ===

impl Expr {
    /// Always.
    pub const ALWAYS: Self = Self::All(Vec::new());

    /// All of them, in one list; one that never holds makes all of it never hold.
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Self::Any(inner) if inner.is_empty() => return Self::Any(inner),
                Self::All(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        if flat.len() == 1 { flat.remove(0) } else { Self::All(flat) }
    }

    /// Any of them, in one list; one that always holds makes all of it hold.
    pub fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Self::All(inner) if inner.is_empty() => return Self::ALWAYS,
                Self::Any(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        if flat.len() == 1 { flat.remove(0) } else { Self::Any(flat) }
    }

    /// Whether it never holds: `false` was written.
    pub fn never(&self) -> bool {
        matches!(self, Self::Any(parts) if parts.is_empty())
    }
}

// === impl Atom ===

impl Atom {
    /// A comparison that the operand's kind allows.
    pub fn new(term: &'static Term, op: Op, right: Right) -> Option<Self> {
        use Kind as K;
        use Op as O;
        let order = matches!(op, O::Eq | O::Neq | O::Lt | O::Lteq | O::Gt | O::Gteq);
        let fits = match (term.kind, &right) {
            (K::Text | K::Recipient | K::Dataset, Right::Text(_)) => {
                matches!(op, O::Eq | O::Neq) || (term.kind == K::Recipient && op == O::PartOf)
            }
            (K::Text | K::Recipient | K::Dataset | K::Groups | K::Collections, Right::Texts(several)) => {
                matches!(op, O::AnyOf | O::NoneOf) && !several.is_empty()
            }
            (K::Texts, Right::Texts(several)) => {
                matches!(op, O::AnyOf | O::NoneOf | O::AllOf | O::PartOf) && !several.is_empty()
            }
            // ODRL's count is one more
            (K::Long, Right::Long(number)) => order && number.checked_add(term.ahead).is_some(),
            (K::Time, Right::Time(_)) | (K::Decimal, Right::Decimal(_)) => order,
            (K::Span, Right::Span(span)) => order && *span >= 0,
            (K::Ip, Right::Ip(ip)) => matches!(op, O::PartOf) || (matches!(op, O::Eq | O::Neq) && !ip.contains('/')),
            _ => false,
        };
        fits.then_some(Self { term, op, right })
    }

    /// What holds exactly where this doesn't; `None` where ODRL has no operator for it.
    pub fn negated(self) -> Option<Expr> {
        let Self { term, op, right } = self;
        let op = match op {
            Op::Eq => Op::Neq,
            Op::Neq => Op::Eq,
            Op::Lt => Op::Gteq,
            Op::Lteq => Op::Gt,
            Op::Gt => Op::Lteq,
            Op::Gteq => Op::Lt,
            Op::AnyOf => Op::NoneOf,
            Op::NoneOf => Op::AnyOf,
            Op::AllOf => {
                let Right::Texts(several) = right else { return None };
                let each = several.into_iter().map(|one| Self::new(term, Op::NoneOf, Right::Texts(vec![one])));
                return Some(Expr::any(each.map(|atom| atom.map(Expr::Is)).collect::<Option<Vec<_>>>()?));
            }
            Op::PartOf => match (term.kind, right) {
                (Kind::Recipient, Right::Text(group)) => {
                    let groups = Term::all().find(|term| term.kind == Kind::Groups)?;
                    return Self::new(groups, Op::NoneOf, Right::Texts(vec![group])).map(Expr::Is);
                }
                _ => return None,
            },
        };
        Self::new(term, op, right).map(Expr::Is)
    }
}

// === impl Op ===

impl Op {
    /// All of them, by ODRL's names.
    pub const NAMES: [(&'static str, Self); 10] = [
        ("eq", Self::Eq),
        ("neq", Self::Neq),
        ("lt", Self::Lt),
        ("lteq", Self::Lteq),
        ("gt", Self::Gt),
        ("gteq", Self::Gteq),
        ("isAnyOf", Self::AnyOf),
        ("isNoneOf", Self::NoneOf),
        ("isAllOf", Self::AllOf),
        ("isPartOf", Self::PartOf),
    ];

    /// ODRL's name.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, op)| *op == self).map_or("eq", |(name, _)| name)
    }

    /// With its sides exchanged.
    pub fn turned(self) -> Self {
        match self {
            Self::Lt => Self::Gt,
            Self::Lteq => Self::Gteq,
            Self::Gt => Self::Lt,
            Self::Gteq => Self::Lteq,
            other => other,
        }
    }
}
