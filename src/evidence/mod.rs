//! Evidence: what is exported, and what anybody can check of it without us.
//!
//! A [`Bundle`] is one party's export: its log's entries and checkpoint, its receipts, the partner's halves, the
//! agreements with both signatures, everybody's statements. [`verify`] checks one bundle; [`match_halves`] holds two
//! parties' against each other. Both are pure: no network, no clock, no store.

mod bundle;
mod matching;
mod verify;

pub use self::{
    bundle::{Bundle, ExportedAgreement, ExportedReceipt, refers_to},
    matching::{Matched, match_halves},
    verify::{Finding, Trust, Verdict, verify},
};

#[cfg(test)]
mod tests;
