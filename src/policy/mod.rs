//! Usage policies: Cedar, the four verdicts, and the obligations that ride on a permit.
//!
//! A [`Slice`] is an offer's own policies and the connector's global ones, compiled once: strictly validated, every
//! annotation understood, every obligation checked against the dataset's columns. [`Slice::decide`] is a pure, total
//! function of typed [`Facts`]. Does not own where facts come from (`agreement`) or what obligations do to bytes
//! (`transform`).

mod bounds;
mod columns;
mod decide;
mod facts;
mod filter;
mod meet;
mod obligation;
mod parse;
mod problem;
mod request;
mod slice;
mod syntax;

pub use self::{
    columns::{Column, ColumnKind, Columns, ColumnsError},
    decide::{Decision, Verdict},
    facts::{Action, ContextFact, FactSource, Facts, Principal, Resource, UseAction, Value},
    filter::{Comparison, Filter, FilterError, FilterExpr, Literal},
    meet::{AtLeast, ColumnRule, Obligations},
    obligation::{Obligation, ObligationError},
    problem::PolicyError,
    slice::{Clause, PolicySource, SCHEMA, Slice, odrl},
};

#[cfg(test)]
mod tests;
