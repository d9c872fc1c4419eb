//! Evidence: what is exported, and what anybody can check of it without us.
//!
//! A [`Bundle`] is one party's export; [`folder`] writes and reads it as files, which are a static C2SP `tlog-tiles` log
//! beside all that the receipts rest on. [`verify`] checks one export, decisions included; [`reconcile`] holds two
//! parties' against each other. All of it is pure: no network, no clock, no store.

pub mod folder;

mod bundle;
mod reconcile;
mod verify;

pub use self::{
    bundle::{About, Alarm, Anchored, Bundle, Content, ExportedAgreement, ExportedReceipt, Scope, claimed, refers_to},
    reconcile::{Reconciled, reconcile, reconcile_all},
    verify::{Cosignature, Finding, Trust, Verdict, verify},
};
