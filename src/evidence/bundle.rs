//! The export, as one JSON file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    agreement::SeriesSecret,
    crypto::{jws::Jws, unb64},
    id::{Did, Sha256},
    receipt::{PartnerHalf, Receipt},
};

/// One party's export.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    /// Format version: 1.
    pub v: u8,
    /// Whose it is.
    pub exporter: Did,
    /// Chains of participant statements, oldest first: the exporter's and its partners'.
    pub statements: BTreeMap<Did, Vec<Jws>>,
    /// The newest checkpoint: a C2SP signed note.
    pub checkpoint: String,
    /// Every entry of the log, 65 bytes each, base64url. They betray nothing.
    pub entries: Vec<String>,
    /// The agreements that the receipts are about.
    pub agreements: Vec<ExportedAgreement>,
    /// The receipts.
    pub receipts: Vec<ExportedReceipt>,
    /// What the partners signed.
    pub halves: Vec<PartnerHalf>,
}

/// An agreement with both signatures and the secret of its series; a one-sided one has the exporter's alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExportedAgreement {
    /// By the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_provider: Option<Jws>,
    /// By the consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_consumer: Option<Jws>,
    /// The offer that it is about.
    pub offer: Jws,
    /// Shows the gaps in either party's series.
    pub series_secret: SeriesSecret,
}

/// A receipt and its place.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExportedReceipt {
    /// In the log.
    pub index: u64,
    /// In its series.
    pub number: u64,
    /// As signed.
    pub jws: Jws,
}

/// What a receipt of anybody's refers to; unverified.
pub fn refers_to(jws: &Jws) -> Option<Sha256> {
    let payload = unb64(jws.as_str().split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Receipt>(&payload).ok()?.refers
}
