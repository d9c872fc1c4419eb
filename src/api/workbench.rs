//! What the steward's workbench asks of a running connector: decisions on record, and whose copy a leak was.

use axum::{
    Extension, Json,
    extract::{Path, Query},
};
use bytes::Bytes;
use serde::Deserialize;

use crate::{
    api::{
        Problem,
        routes::{Answer, By, Role, id, parse},
    },
    error::Refusal,
    exchange::{DecidedUnder, DecisionPage, Explicable, TraceRequest, Traced},
    id::{AgreementId, OfferId, ReceiptId},
    time::Timestamp,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    agreement: Option<String>,
    offer: Option<String>,
    since: Option<Timestamp>,
    after: Option<String>,
    #[serde(default = "page")]
    limit: usize,
}

fn page() -> usize {
    500
}

/// A decision with its request and its policies.
pub(super) async fn decision(By(api): By, Path(receipt): Path<String>) -> Answer<Explicable> {
    Ok(Json(api.exchange.decision_of(&id::<ReceiptId>(&receipt)?).await?))
}

pub(super) async fn decisions(By(api): By, Query(which): Query<Which>) -> Answer<DecisionPage> {
    let under = match (&which.agreement, &which.offer) {
        (Some(agreement), None) => DecidedUnder::Agreement(id::<AgreementId>(agreement)?),
        (None, Some(offer)) => DecidedUnder::Offer(id::<OfferId>(offer)?),
        _ => return Err(Problem(Refusal::new("decisions-vague", "name one of: an agreement, an offer"))),
    };
    Ok(Json(api.exchange.decisions(&under, which.since, which.after.as_deref(), which.limit).await?))
}

/// A steward's alone: it reads any file that the connector can, and names who broke their word.
pub(super) async fn trace(By(api): By, Extension(role): Extension<Role>, body: Bytes) -> Answer<Traced> {
    role.only_steward("to trace a leak is for")?;
    Ok(Json(api.exchange.trace(parse::<TraceRequest>(&body)?).await?))
}
