//! Agreements: what both parties signed, what was spent under it, and whether a request may be granted.
//!
//! Owns the agreement's and the status statement's formats, the rows with their counters, and [`decide`], the one
//! function that discover, negotiate, release and use all call. Does not own the walks that make, spend and end
//! agreements: those are in `exchange`.

mod counters;
mod decide;
mod grounds;
mod manifest;
mod object;
mod row;

pub use counters::{SubjectRow, Tally, subject_key};
pub use decide::{Delivery, Question, decide, principal_of_partner, principal_of_party};
pub use grounds::{
    Approval, ApprovalObject, ApprovalRow, ApprovalState, Approver, ConsentRow, DutyRow, SecondFactorRow,
};
pub use manifest::{Enforcer, ManifestClause, duties, manifest};
pub use object::{Agreement, AgreementState, PartyFacts, Status, verify};
pub use row::{AgreementRow, KnownStatus, OpenRelease, PREFIX, Payment, SeriesSecret, SourcePin, key};

pub use crate::{offer::Extent, protocol::extension::Software};
