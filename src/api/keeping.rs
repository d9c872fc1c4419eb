//! Backup, and what follows a restore.

use std::path::PathBuf;

use axum::{Extension, Json, extract::Path};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    api::routes::{Answer, By, Role, id, parse},
    exchange::Backup,
    id::ParticipantId,
};

/// Where a backup goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackupBody {
    /// A folder that isn't there yet, by its whole path, as the connector sees it.
    pub folder: PathBuf,
}

pub(super) async fn back_up(By(api): By, body: Bytes) -> Answer<Backup> {
    Ok(Json(api.exchange.back_up(parse::<BackupBody>(&body)?.folder).await?))
}

/// A steward's alone: what a partner doesn't say may be counts that were spent.
pub(super) async fn accept_restoration(
    By(api): By,
    Extension(role): Extension<Role>,
    Path(partner): Path<String>,
) -> Answer<Value> {
    role.only_steward("to go on without what a partner knows is for")?;
    let partner = id::<ParticipantId>(&partner)?;
    api.exchange.accept_restoration(&partner).await?;
    Ok(Json(json!({ "partner": partner })))
}
