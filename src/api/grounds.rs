//! Approvals, approvers, consents, second factors, payments, duties.

use axum::{Extension, Json, extract::Path};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    agreement::{Approval, Approver, ConsentRow},
    api::{
        Problem, ReasonBody,
        routes::{Answer, By, Role, id, parse},
    },
    error::Refusal,
    exchange::{ConsentBody, DutyView, Enrolment, NewApprover, PaymentBody},
    id::AgreementId,
};

pub(super) async fn approvers(By(api): By) -> Answer<Vec<Approver>> {
    Ok(Json(api.exchange.approvers().await?))
}

/// A steward's alone: who may approve can let data leave.
pub(super) async fn add_approver(By(api): By, Extension(role): Extension<Role>, body: Bytes) -> Answer<Value> {
    role.only_steward("to name an approver is for")?;
    let new: NewApprover = parse(&body)?;
    let token = api.exchange.add_approver(&new).await?;
    Ok(Json(json!({ "name": new.name, "token": token })))
}

pub(super) async fn remove_approver(
    By(api): By,
    Extension(role): Extension<Role>,
    Path(name): Path<String>,
) -> Answer<Value> {
    role.only_steward("to remove an approver is for")?;
    api.exchange.remove_approver(&name).await?;
    Ok(Json(json!({ "name": name, "removed": true })))
}

/// What waits: an approver sees what they may decide on, everybody else all of it.
pub(super) async fn approvals(By(api): By, approver: Option<Extension<Approver>>) -> Answer<Vec<Approval>> {
    let mut waiting = api.exchange.approvals().await?;
    if let Some(Extension(approver)) = approver {
        waiting.retain(|approval| approver.may_decide(approval).is_ok());
    }
    Ok(Json(waiting))
}

pub(super) async fn grant_approval(
    By(api): By,
    approver: Option<Extension<Approver>>,
    Path(approval): Path<String>,
) -> Answer<Value> {
    api.exchange.decide_approval(&own_token(approver)?, &approval, None).await?;
    Ok(Json(json!({ "id": approval, "state": "approved" })))
}

pub(super) async fn refuse_approval(
    By(api): By,
    approver: Option<Extension<Approver>>,
    Path(approval): Path<String>,
    body: Bytes,
) -> Answer<Value> {
    let ReasonBody { reason } = parse(&body)?;
    if reason.trim().is_empty() {
        return Err(Problem(Refusal::new("reason-missing", "say why: the one who asked reads it")));
    }
    api.exchange.decide_approval(&own_token(approver)?, &approval, Some(&reason)).await?;
    Ok(Json(json!({ "id": approval, "state": "refused" })))
}

/// Operator and steward ask for data in the connector's name: they approve nothing.
fn own_token(approver: Option<Extension<Approver>>) -> Result<Approver, Problem> {
    approver.map(|Extension(approver)| approver).ok_or_else(|| {
        Problem(Refusal::new(
            "approver-required",
            "an approval is given with an approver's own token: `counterseal approver add` makes one",
        ))
    })
}

pub(super) async fn consents(By(api): By) -> Answer<Vec<ConsentRow>> {
    Ok(Json(api.exchange.consents().await?))
}

pub(super) async fn record_consent(By(api): By, Extension(role): Extension<Role>, body: Bytes) -> Answer<Value> {
    role.only_steward("to put a consent on record is for")?;
    let body: ConsentBody = parse(&body)?;
    api.exchange.record_consent(&body).await?;
    Ok(Json(json!({ "name": body.name, "recorded": true })))
}

/// Anybody here may take a consent back: it only ever takes away.
pub(super) async fn withdraw_consent(By(api): By, body: Bytes) -> Answer<Value> {
    let body: ConsentBody = parse(&body)?;
    let revoked = api.exchange.withdraw_consent(&body).await?;
    Ok(Json(json!({ "name": body.name, "withdrawn": true, "revoked": revoked })))
}

pub(super) async fn enrol(By(api): By, Extension(role): Extension<Role>, body: Bytes) -> Answer<Value> {
    role.only_steward("to enrol a person is for")?;
    let body: Enrolment = parse(&body)?;
    let uri = api.exchange.enrol(&body).await?;
    Ok(Json(json!({ "participant": body.participant, "person": body.person, "uri": uri })))
}

pub(super) async fn remove_factor(By(api): By, Extension(role): Extension<Role>, body: Bytes) -> Answer<Value> {
    role.only_steward("to take a second factor away is for")?;
    let body: Enrolment = parse(&body)?;
    api.exchange.remove_factor(&body).await?;
    Ok(Json(json!({ "participant": body.participant, "person": body.person, "removed": true })))
}

pub(super) async fn record_payment(
    By(api): By,
    Extension(role): Extension<Role>,
    Path(agreement): Path<String>,
    body: Bytes,
) -> Answer<Value> {
    role.only_steward("to put a payment on record is for")?;
    let agreement = id::<AgreementId>(&agreement)?;
    api.exchange.record_payment(&agreement, &parse::<PaymentBody>(&body)?).await?;
    Ok(Json(json!({ "agreement": agreement, "recorded": true })))
}

pub(super) async fn duties(By(api): By) -> Answer<Vec<DutyView>> {
    Ok(Json(api.exchange.duties().await?))
}
