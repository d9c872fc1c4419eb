//! One request, from its arrival to its answer.

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    extract::{Path, Request},
    http::{HeaderMap, Uri, header, request::Parts},
    response::Response,
};
use serde_json::Value;

use crate::{
    id::{MessageId, Pid},
    protocol::{
        Caller, Handler, MAX_BODY, Malformed, ProtocolError,
        error::{Family, Scene},
        json::object,
        message::{Root, from_object},
    },
};

use super::{PathId, Shared};

/// How long a body may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A request of the protocol, and what it gave away so far.
pub struct Call {
    handler: Shared,
    /// The path's pid: none where the path has none, `Err` where it is no pid at all.
    pid: Option<Result<Pid, ()>>,
    parts: Parts,
    body: Body,
    scene: Scene,
}

impl Call {
    pub fn new(handler: Shared, family: Family, pid: Option<PathId>, request: Request) -> Self {
        let pid = pid.map(|pid| pid.map_err(drop).and_then(|Path(text)| process_pid(text)));
        let scene = Scene::new(family, pid.as_ref().and_then(|pid| pid.as_ref().ok()));
        let (parts, body) = request.into_parts();
        Self { handler, pid, parts, body, scene }
    }

    pub fn handler(&self) -> &dyn Handler {
        self.handler.as_ref()
    }

    pub fn uri(&self) -> &Uri {
        &self.parts.uri
    }

    /// Who calls.
    pub fn caller(&self) -> Result<Caller, ProtocolError> {
        self.parts.extensions.get().cloned().ok_or_else(ProtocolError::unauthenticated)
    }

    /// The path's pid, if the path has one; text that can be no process of ours is not found.
    pub fn pid(&self) -> Result<Option<&Pid>, ProtocolError> {
        match &self.pid {
            None => Ok(None),
            Some(Ok(pid)) => Ok(Some(pid)),
            Some(Err(())) => Err(ProtocolError::not_found()),
        }
    }

    /// The body as a JSON object, and as it came.
    pub async fn body(&mut self) -> Result<(Value, Vec<u8>), ProtocolError> {
        let bytes = bounded(&self.parts.headers, std::mem::take(&mut self.body)).await?;
        let value = object(&bytes)?;
        self.scene.learn(&value);
        Ok((value, bytes))
    }

    /// The body as a message, and its `@id`.
    pub async fn message<R: Root>(&mut self) -> Result<(R, Option<MessageId>), ProtocolError> {
        let (value, _) = self.body().await?;
        let id = self.message_id(&value)?;
        Ok((from_object(value)?, id))
    }

    /// The message's `@id`, where it has one.
    pub fn message_id(&self, body: &Value) -> Result<Option<MessageId>, ProtocolError> {
        let wrong = |problem: String| Malformed::Property { kind: "message `@id`", problem }.into();
        match body.get("@id") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(id)) => {
                MessageId::parse(id.as_str()).map(Some).map_err(|error| wrong(error.to_string()))
            }
            Some(_) => Err(wrong("it is not text".into())),
        }
    }

    /// The answer, errors in the type of this path.
    pub fn respond(self, outcome: Result<Response, ProtocolError>) -> Response {
        outcome.unwrap_or_else(|error| {
            tracing::debug!(path = self.parts.uri.path(), %error, "protocol request refused");
            self.scene.respond(&error)
        })
    }
}

/// A pid of ours never holds a slash, nor dots alone.
fn process_pid(text: String) -> Result<Pid, ()> {
    if text.contains('/') || text.bytes().all(|byte| byte == b'.') {
        return Err(());
    }
    Pid::parse(text).map_err(drop)
}

/// At most [`MAX_BODY`] bytes, within [`BODY_TIMEOUT`]. A length that is announced too large is refused unread.
pub async fn bounded(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, ProtocolError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(ProtocolError::too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error)) if over_limit(&error) => Err(ProtocolError::too_large()),
        Ok(Err(_)) => Err(ProtocolError::bad("body-broken", "the body ended before it was complete")),
        Err(_) => Err(ProtocolError::slow()),
    }
}

fn over_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
