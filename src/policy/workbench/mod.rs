//! The steward's workbench: check a policy, test it, explain a decision, compare releases.
//!
//! Pure: texts, columns and facts are handed in, findings and reports come out, each in English and in Chinese. What a
//! condition comes to is always Cedar's own answer on that part of the policy ([`Anatomy`]); the lints alone read
//! conditions themselves, and say only what is certainly so.

mod anatomy;
mod cases;
mod coverage;
mod explain;
mod given;
mod lint;
mod releases;
mod scan;
mod simulate;
mod tree;
mod written;

use std::thread;

use serde::Serialize;

pub use self::{
    anatomy::{Anatomy, Piece, PieceKind, Seen},
    cases::{Case, CaseResult, Expected, Suite, run},
    coverage::{ConjunctCovered, Coverage, PolicyCovered},
    explain::{Explanation, FactSeen, Outcome, PieceSeen, PolicyExplained, explain},
    given::{Given, Told},
    lint::{Checked, Finding, Level, check, columns_of},
    releases::{Joined, PastRelease, ReleaseShape, releases},
    simulate::{Difference, MOST, Recorded, Side, Simulation, Terms, Touched, Unsaid, simulate},
    tree::Wrong,
    written::{promised, written},
};
use crate::policy::bounds;

/// A sentence in both languages.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Said {
    /// English.
    pub en: String,
    /// 中文.
    pub zh: String,
}

impl Said {
    pub(super) fn new(en: impl Into<String>, zh: impl Into<String>) -> Self {
        Self { en: en.into(), zh: zh.into() }
    }
}

/// Runs on a stack that the deepest policy within the bounds is known to fit: reading syntax trees recurses.
///
/// # Errors
/// No thread could be had, or Cedar gave up.
pub fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("workbench".into())
            .stack_size(bounds::STACK)
            .spawn_scoped(scope, work)
            .map_err(|error| format!("no thread to work on: {error}"))?;
        thread.join().map_err(|_| "Cedar gave up on these policies".to_owned())
    })
}

#[cfg(test)]
mod tests;
