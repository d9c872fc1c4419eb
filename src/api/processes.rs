//! Negotiations and transfers as people take part in them; foreign connectors; imported agreements.

use std::time::Duration;

use axum::{Extension, Json, extract::Path};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    api::{
        Api, Problem, PublishBody, ReasonBody, TransferBody,
        routes::{Answer, By, Role, id, parse},
    },
    error::Refusal,
    exchange::{About, ForeignPeer, Imported, NegotiationView, Pending, TransferView},
    id::{AgreementId, ParticipantId, Pid},
};

pub(super) async fn negotiation(By(api): By, Path(pid): Path<String>) -> Answer<NegotiationView> {
    Ok(Json(api.exchange.negotiation_end(&id::<Pid>(&pid)?, Duration::ZERO).await?))
}

pub(super) async fn act_on_negotiation(By(api): By, Path(step): Path<(String, String)>, body: Bytes) -> Answer<Value> {
    act(&api, About::Negotiation, step, &body).await
}

pub(super) async fn act_on_transfer(By(api): By, Path(step): Path<(String, String)>, body: Bytes) -> Answer<Value> {
    act(&api, About::Transfer, step, &body).await
}

async fn act(api: &Api, about: About, (pid, action): (String, String), body: &Bytes) -> Answer<Value> {
    let ReasonBody { reason } = if body.is_empty() { ReasonBody::default() } else { parse(body)? };
    api.exchange.act(about, &pid, &action, &reason).await?;
    Ok(Json(json!({ "pid": pid, "done": action })))
}

pub(super) async fn transfers(By(api): By) -> Answer<Vec<TransferView>> {
    Ok(Json(api.exchange.transfers().await?))
}

pub(super) async fn transfer(By(api): By, body: Bytes) -> Answer<Value> {
    let body: TransferBody = parse(&body)?;
    let agreement = api.exchange.agreement_row(&body.agreement).await?;
    let pid = api.exchange.request_transfer(&agreement, &body.format, body.address.as_ref(), body.approval).await?;
    Ok(Json(json!({ "pid": pid })))
}

pub(super) async fn pending(By(api): By) -> Answer<Vec<Pending>> {
    Ok(Json(api.exchange.pending().await?))
}

pub(super) async fn foreign_peers(By(api): By) -> Answer<Value> {
    Ok(Json(json!(api.exchange.foreign_views())))
}

pub(super) async fn add_foreign(By(api): By, body: Bytes) -> Answer<Value> {
    // serde's words would quote the body, which holds secrets: only the place is told
    let peer: ForeignPeer = serde_json::from_slice(&body).map_err(|error| {
        Problem(Refusal::new(
            "json-invalid",
            format!("the request's body, line {} column {}", error.line(), error.column()),
        ))
    })?;
    Ok(Json(json!(api.exchange.add_foreign(&peer).await?)))
}

pub(super) async fn revoke_foreign(By(api): By, Path(peer): Path<String>, body: Bytes) -> Answer<Value> {
    let body: ReasonBody = parse(&body)?;
    api.exchange.revoke_foreign(&id::<ParticipantId>(&peer)?, &body.reason).await?;
    Ok(Json(json!({ "revoked": peer })))
}

pub(super) async fn import(By(api): By, body: Bytes) -> Answer<Imported> {
    let body: PublishBody = parse(&body)?;
    Ok(Json(api.exchange.import_agreement(&body.file).await?))
}

/// A steward's alone: the operator who brings a contract in can't also wave it through.
pub(super) async fn approve(
    By(api): By,
    Extension(role): Extension<Role>,
    Path(agreement): Path<String>,
) -> Answer<Imported> {
    role.only_steward("an imported agreement is approved by")?;
    Ok(Json(api.exchange.approve_agreement(&id::<AgreementId>(&agreement)?, role.as_str()).await?))
}
