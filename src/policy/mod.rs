//! Usage policies: Cedar, the four verdicts, and the obligations that ride on a permit.
//!
//! A [`Slice`] is an offer's own policies and the connector's global ones, compiled once: strictly validated, every
//! annotation understood, every obligation checked against the dataset's columns. [`Slice::decide`] is a pure, total
//! function of typed [`Facts`]. Does not own where facts come from (`agreement`) or what obligations do to bytes
//! (`transform`).

mod action;
mod asked;
mod bounds;
mod columns;
mod decide;
mod facts;
mod filter;
mod inherit;
mod meet;
mod obligation;
mod odrl;
mod parse;
mod phase;
mod problem;
#[cfg(feature = "prove")]
pub mod prove;
mod request;
mod slice;
mod syntax;
pub mod template;
mod value;
pub mod workbench;

pub(crate) use self::problem::{did_you_mean, nearest};
pub use self::{
    action::{Action, Reach, UseAction},
    asked::{AskError, Asked},
    columns::{Column, ColumnKind, Columns, ColumnsError},
    decide::{Decision, Verdict},
    facts::{ContextFact, FactKind, FactSource, Facts, Principal, Resource},
    filter::{Comparison, Filter, FilterError, FilterExpr, Literal},
    inherit::{InheritError, Inheritable, Inherited, columns_named, inherit, strictest},
    meet::{AtLeast, ColumnRule, Obligations},
    obligation::{Obligation, ObligationError},
    odrl::{NAMESPACE, OdrlError, document, from_odrl, odrl, text_to_odrl, to_odrl},
    phase::{After, Before, Duties, iso},
    problem::PolicyError,
    slice::{Clause, Part, PolicySource, SCHEMA, Slice},
    value::{Amount, Frequency, Money, Spent, Value},
};

#[cfg(test)]
mod tests;
