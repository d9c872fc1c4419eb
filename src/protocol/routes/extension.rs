//! The peer extension's routes.

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::Refusal,
    id::{AgreementId, IdError, ReleaseId},
    protocol::{
        BASE, Caller, Malformed, ProtocolError,
        error::{refusal_body, respond},
        extension::{HalvesRequest, MAX_HALVES, PATH, ReleaseRequest, Witnessing, status_of},
        json::plain,
    },
};

use super::{PathId, Shared, both, call::bounded};

pub fn routes(mut router: Router<Shared>) -> Router<Shared> {
    for (path, method) in [
        ("releases", post(release)),
        ("releases/{id}/acknowledgement", post(acknowledge)),
        ("releases/{id}/outcome", post(outcome)),
        ("agreements/{id}/status", get(status)),
        ("receipts", post(halves)),
        ("statement", post(statement)),
        ("restorations", post(restoration)),
        ("witnessed", get(witnessed)),
        ("add-checkpoint", post(add_checkpoint)),
    ] {
        router = both(router, &format!("{BASE}{PATH}/{path}"), method);
    }
    router.route(&format!("{BASE}{PATH}/log/{{epoch}}/{{*path}}"), get(log_file))
}

async fn release(State(handler): State<Shared>, request: Request) -> Response {
    let outcome = async {
        let (parts, body) = request.into_parts();
        let caller = caller(&parts)?;
        let token = bearer(&parts.headers).ok_or_else(|| {
            Refusal::new(
                "token-missing",
                "a release needs the transfer's token in `Authorization`; see its start message",
            )
        })?;
        let request: ReleaseRequest = read("release request", &parts.headers, body).await?;
        handler.release(&caller, &token, request).await
    };
    answer(StatusCode::CREATED, outcome.await)
}

async fn acknowledge(State(handler): State<Shared>, id: PathId, request: Request) -> Response {
    let outcome = async {
        let (parts, body) = request.into_parts();
        let (caller, release) = (caller(&parts)?, parsed(id, ReleaseId::parse)?);
        let body = read("acknowledgement request", &parts.headers, body).await?;
        handler.acknowledge(&caller, &release, body).await
    };
    answer(StatusCode::OK, outcome.await)
}

async fn outcome(State(handler): State<Shared>, id: PathId, request: Request) -> Response {
    let outcome = async {
        let (parts, body) = request.into_parts();
        let (caller, release) = (caller(&parts)?, parsed(id, ReleaseId::parse)?);
        let body = read("outcome request", &parts.headers, body).await?;
        handler.outcome(&caller, &release, body).await
    };
    done(outcome.await)
}

async fn status(State(handler): State<Shared>, id: PathId, request: Request) -> Response {
    let outcome = async {
        let (parts, _) = request.into_parts();
        let (caller, agreement) = (caller(&parts)?, parsed(id, AgreementId::parse)?);
        handler.status(&caller, &agreement).await
    };
    answer(StatusCode::OK, outcome.await)
}

async fn halves(State(handler): State<Shared>, request: Request) -> Response {
    let outcome = async {
        let (parts, body) = request.into_parts();
        let caller = caller(&parts)?;
        let body: HalvesRequest = read("halves request", &parts.headers, body).await?;
        if body.halves.len() > MAX_HALVES {
            let sentence = format!("{} receipts in one request; send at most {MAX_HALVES}", body.halves.len());
            return Err(Refusal::new("too-many", sentence));
        }
        handler.halves(&caller, body).await
    };
    done(outcome.await)
}

async fn statement(State(handler): State<Shared>, request: Request) -> Response {
    let outcome = async {
        let (parts, body) = request.into_parts();
        let caller = caller(&parts)?;
        handler.statement(&caller, read("statement request", &parts.headers, body).await?).await
    };
    done(outcome.await)
}

async fn restoration(State(handler): State<Shared>, request: Request) -> Response {
    let outcome = async {
        let (parts, body) = request.into_parts();
        let caller = caller(&parts)?;
        handler.restoration(&caller, read("restoration request", &parts.headers, body).await?).await
    };
    answer(StatusCode::OK, outcome.await)
}

async fn witnessed(State(handler): State<Shared>, request: Request) -> Response {
    let outcome = async {
        let (parts, _) = request.into_parts();
        handler.witnessed(&caller(&parts)?).await
    };
    answer(StatusCode::OK, outcome.await)
}

async fn add_checkpoint(State(handler): State<Shared>, request: Request) -> Response {
    let outcome = async {
        let (parts, body) = request.into_parts();
        let caller = caller(&parts)?;
        let bytes = bounded(&parts.headers, body).await.map_err(refusal)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Refusal::new("message-invalid", "not UTF-8"))?;
        handler.add_checkpoint(&caller, text).await
    };
    let text = |status: u16, kind: &'static str, body: String| {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        (status, [(header::CONTENT_TYPE, kind)], body).into_response()
    };
    match outcome.await {
        Ok(Witnessing::Cosigned(line)) => text(200, "text/plain; charset=utf-8", line),
        Ok(Witnessing::Conflict(size)) => text(409, "text/x.tlog.size", format!("{size}\n")),
        Ok(Witnessing::Refused(status, why)) => text(status, "text/plain; charset=utf-8", why + "\n"),
        Err(refusal) => refused(&refusal),
    }
}

async fn log_file(State(handler): State<Shared>, Path((epoch, path)): Path<(String, String)>) -> Response {
    let plain = epoch.parse::<u64>().ok().filter(|number| number.to_string() == epoch);
    let Some(epoch) = plain else { return refused(&Refusal::new("not-found", "no such log")) };
    match handler.log_file(epoch, &path).await {
        Ok(bytes) if path == "checkpoint" => {
            let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
            (headers, bytes).into_response()
        }
        // what is once in a log stays as it is
        Ok(bytes) => {
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream"),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ];
            (headers, bytes).into_response()
        }
        Err(refusal) => refused(&refusal),
    }
}

fn caller(parts: &Parts) -> Result<Caller, Refusal> {
    parts.extensions.get().cloned().ok_or_else(|| refusal(ProtocolError::unauthenticated()))
}

async fn read<T: DeserializeOwned>(
    kind: &'static str,
    headers: &HeaderMap,
    body: axum::body::Body,
) -> Result<T, Refusal> {
    let bytes = bounded(headers, body).await.map_err(refusal)?;
    plain(kind, &bytes).map_err(|malformed: Malformed| Refusal::new(malformed.code(), malformed.to_string()))
}

fn parsed<T>(id: PathId, parse: impl FnOnce(String) -> Result<T, IdError>) -> Result<T, Refusal> {
    id.ok().and_then(|Path(id)| parse(id).ok()).ok_or_else(|| refusal(ProtocolError::not_found()))
}

/// The token of `Authorization`, with `Bearer` or, as some connectors send it, without.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let token = match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        Some(_) => return None,
        None => value,
    };
    let bare_scheme = token.eq_ignore_ascii_case("bearer");
    (!token.is_empty() && !bare_scheme).then(|| token.to_owned())
}

fn refusal(error: ProtocolError) -> Refusal {
    Refusal { code: error.code, sentence: error.sentence }
}

fn answer<T: Serialize>(status: StatusCode, outcome: Result<T, Refusal>) -> Response {
    match outcome.map(|body| serde_json::to_value(body)) {
        Ok(Ok(body)) => respond(status, &body),
        Ok(Err(_)) => refused(&Refusal::new("internal", "the answer could not be written")),
        Err(refusal) => refused(&refusal),
    }
}

fn done(outcome: Result<(), Refusal>) -> Response {
    outcome.map_or_else(|refusal| refused(&refusal), |()| StatusCode::NO_CONTENT.into_response())
}

fn refused(refusal: &Refusal) -> Response {
    tracing::debug!(code = refusal.code.as_str(), "peer extension request refused");
    let status = StatusCode::from_u16(status_of(refusal)).unwrap_or(StatusCode::FORBIDDEN);
    if status == StatusCode::NOT_FOUND {
        // the same bytes for what does not exist and what is not the caller's
        let ProtocolError { code, sentence, .. } = ProtocolError::not_found();
        return respond(status, &refusal_body(&Refusal { code, sentence }));
    }
    respond(status, &refusal_body(refusal))
}
