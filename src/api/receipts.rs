//! Receipts: lists, one of them, exports, erasure.

use axum::{
    Json,
    extract::{Path, Query},
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::{
        Problem,
        routes::{Answer, By, id, parse, unreadable},
    },
    error::Refusal,
    evidence::{self, Scope},
    exchange::Erasure,
    id::{AgreementId, ParticipantId, ReceiptId},
    receipt::{Filter, Kind, Stored},
    time::Timestamp,
};

#[derive(Deserialize)]
pub(super) struct Which {
    agreement: Option<String>,
    peer: Option<String>,
    kind: Option<Kind>,
    verdict: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    #[serde(default)]
    from: u64,
    #[serde(default = "page")]
    limit: usize,
    /// Of an export: which of our logs.
    epoch: Option<u64>,
    /// Of an export: with what the receipts commit to.
    #[serde(default = "yes")]
    contents: bool,
}

fn yes() -> bool {
    true
}

fn page() -> usize {
    100
}

impl Which {
    fn filter(&self) -> Result<Filter, Problem> {
        Ok(Filter {
            agreement: self.agreement.as_deref().map(id::<AgreementId>).transpose()?,
            peer: self.peer.as_deref().map(id::<ParticipantId>).transpose()?,
            kind: self.kind,
            verdict: self.verdict.clone(),
            since: self.since,
            until: self.until,
        })
    }
}

fn receipt_view(stored: &Stored) -> Value {
    json!({
        "index": stored.index,
        "number": stored.number,
        "sha256": stored.jws.sha256(),
        "receipt": stored.receipt,
    })
}

pub(super) async fn list(By(api): By, Query(which): Query<Which>) -> Answer<Vec<Value>> {
    let filter = which.filter()?;
    let found = api.exchange.receipts.list(&filter, which.from, which.limit.min(1000)).await.map_err(unreadable)?;
    Ok(Json(found.iter().map(receipt_view).collect()))
}

pub(super) async fn show(By(api): By, Path(receipt): Path<String>) -> Answer<Value> {
    let found = api.exchange.receipts.by_id(&id::<ReceiptId>(&receipt)?).await.map_err(unreadable)?;
    let stored = found.ok_or_else(|| Refusal::new("receipt-unknown", format!("no receipt has the id `{receipt}`")))?;
    let mut view = receipt_view(&stored);
    view["jws"] = json!(stored.jws);
    view["halves"] = match &stored.receipt.agreement {
        None => json!([]),
        Some(agreement) => {
            let halves = api.exchange.receipts.halves(agreement).await.map_err(unreadable)?;
            let refers = stored.jws.sha256();
            let answering = halves.iter().filter(|half| evidence::refers_to(&half.jws) == Some(refers));
            json!(answering.map(|half| json!({"kind": half.kind, "jws": half.jws})).collect::<Vec<_>>())
        }
    };
    Ok(Json(view))
}

pub(super) async fn erase(By(api): By, body: Bytes) -> Answer<Value> {
    let erased = api.exchange.erase(&parse::<Erasure>(&body)?).await?;
    Ok(Json(json!({ "erased": erased })))
}

/// The export as a tar archive of its folder.
pub(super) async fn export(By(api): By, Query(which): Query<Which>) -> Result<Response, Problem> {
    let filter = which.filter()?;
    let scope = Scope {
        agreement: filter.agreement,
        peer: filter.peer,
        kind: filter.kind,
        verdict: filter.verdict,
        since: filter.since,
        until: filter.until,
    };
    let files = api.exchange.export_files_of(which.epoch, scope, which.contents).await?;
    let failed = |error: std::io::Error| Problem(Refusal::new("internal", error.to_string()));
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in &files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, bytes.as_slice()).map_err(failed)?;
    }
    let bytes = archive.into_inner().map_err(failed)?;
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], bytes).into_response())
}
