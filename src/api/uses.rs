//! Uses at the consumer: copies, registered applications, derived data.

use std::net::IpAddr;

use axum::{
    Extension, Json,
    body::Body,
    extract::Path,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    api::{
        Problem,
        routes::{Answer, By, id, parse},
    },
    exchange::{CopyView, DerivedRequest, First, Handed, Handing, Handover, Registration, UseRequest, Used},
    id::ReceiptId,
    net::ConnectionInfo,
    vault::{Application, DerivedRow},
};

/// Uses a copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UseBody {
    /// The copy, or the dataset or agreement whose newest copy is meant; or a derived dataset.
    pub of: String,
    /// What for.
    pub purpose: String,
    /// Which use.
    #[serde(default = "read")]
    pub action: String,
    /// Which registered application; none: the caller reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// Whether what the application writes is thrown away.
    #[serde(default)]
    pub quiet: bool,
    /// How long a file that is handed out stays.
    #[serde(default = "an_hour")]
    pub keep_seconds: u64,
    /// What was done first.
    #[serde(default)]
    pub first: First,
}

fn read() -> String {
    "read".into()
}

fn an_hour() -> u64 {
    3600
}

/// Where the answer to a use names the use through an application.
pub const USE_ID: &str = "counterseal-use";

pub(super) async fn copies(By(api): By) -> Answer<Vec<CopyView>> {
    Ok(Json(api.exchange.all_copies().await?.into_iter().map(Into::into).collect()))
}

/// A stream where there is one; else JSON.
pub(super) async fn use_copy(
    By(api): By,
    connection: Option<Extension<ConnectionInfo>>,
    body: Bytes,
) -> Result<Response, Problem> {
    let UseBody { of, purpose, action, application, quiet, keep_seconds, first } = parse(&body)?;
    let from: Option<IpAddr> = connection.map(|Extension(info)| info.remote.ip().to_canonical());
    let request = UseRequest { of, purpose, action, application };
    match api.exchange.hand_over(&request, &Handing { from, quiet, keep_seconds, first }).await? {
        Handed::Stream(used) => Ok(streamed(used)),
        Handed::Over(handover) => Ok(Json(handover).into_response()),
        Handed::Deleted { copy, dataset } => Ok(Json(json!({ "deleted": copy, "dataset": dataset })).into_response()),
    }
}

fn streamed(used: Used) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let said = [
        ("counterseal-copy", Some(used.copy.to_string())),
        ("counterseal-number", Some(used.number.to_string())),
        (USE_ID, used.handover.as_ref().map(ToString::to_string)),
    ];
    for (name, value) in said {
        if let Some(Ok(value)) = value.map(|value| HeaderValue::from_str(&value)) {
            headers.insert(name, value);
        }
    }
    let blocks = stream::unfold(used.data, |mut data| async move { Some((data.recv().await?, data)) });
    (headers, Body::from_stream(blocks)).into_response()
}

pub(super) async fn handover(By(api): By, Path(of): Path<String>) -> Answer<Handover> {
    Ok(Json(api.exchange.handover(&id::<ReceiptId>(&of)?).await?))
}

pub(super) async fn done(By(api): By, Path(of): Path<String>) -> Answer<Handover> {
    Ok(Json(api.exchange.use_done(&id::<ReceiptId>(&of)?).await?))
}

pub(super) async fn applications(By(api): By) -> Answer<Vec<Application>> {
    Ok(Json(api.exchange.applications().await?))
}

pub(super) async fn application(By(api): By, Path(name): Path<String>) -> Answer<Application> {
    Ok(Json(api.exchange.application(&name).await?))
}

pub(super) async fn register(By(api): By, body: Bytes) -> Answer<Application> {
    Ok(Json(api.exchange.register_application(parse::<Registration>(&body)?).await?))
}

pub(super) async fn remove(By(api): By, Path(name): Path<String>) -> Answer<Value> {
    api.exchange.remove_application(&name).await?;
    Ok(Json(json!({ "removed": name })))
}

fn derived_view(row: &DerivedRow) -> Value {
    json!({
        "id": row.dataset,
        "title": row.title,
        "state": row.state,
        "bytes": row.bytes,
        "records": row.contents.records,
        "parents": row.parents,
        "deleteBy": row.delete_by,
    })
}

pub(super) async fn derived(By(api): By) -> Answer<Vec<Value>> {
    Ok(Json(api.exchange.all_derived().await?.iter().map(derived_view).collect()))
}

pub(super) async fn register_derived(By(api): By, body: Bytes) -> Answer<Value> {
    Ok(Json(derived_view(&api.exchange.register_derived(&parse::<DerivedRequest>(&body)?).await?)))
}
