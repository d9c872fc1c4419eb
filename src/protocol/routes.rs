//! The server side: from a request to a [`Handler`] and back.
//!
//! Nothing of a body is read before the caller is known, never more than [`MAX_BODY`] of it, and not for longer than
//! [`call::BODY_TIMEOUT`]. Trailing slashes are accepted everywhere.

mod call;
mod extension;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, Request, State, rejection::PathRejection},
    http::{HeaderValue, StatusCode, Uri, header},
    response::Response,
    routing::{MethodRouter, get, post},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    id::{DatasetId, Pid},
    protocol::{
        BASE, CatalogPage, Handler, Incoming, Malformed, Party, Pids, ProtocolError, VERSION_PATH,
        error::{Family, Scene, respond},
        message::{
            Catalog, CatalogRequest, NegotiationMessage, Root, TransferMessage, VersionResponse, from_object, write,
        },
        outgoing::segment,
    },
};

use self::call::Call;

/// The routes of the protocol and of the peer extension, to be served at the root of the partner listener. `node` puts a
/// [`Caller`](super::Caller) on each authenticated request. (The data plane adds `releases/{id}/stream` to them, with
/// that very parameter name.)
pub fn routes(handler: Arc<dyn Handler>) -> Router {
    let router = both(Router::new(), VERSION_PATH, get(async || Json(VersionResponse::ours())));
    let router = catalog_routes(router);
    let router = negotiation_routes(router);
    let router = transfer_routes(router);
    extension::routes(router).with_state(handler)
}

/// The answer where no route is: 404 in the error type of the path. For `node`, which owns the whole router's fallback.
pub async fn fallback(uri: Uri) -> Response {
    let family = match uri.path().strip_prefix(BASE) {
        Some(path) if path.starts_with("/negotiations") => Family::Negotiation,
        Some(path) if path.starts_with("/transfers") => Family::Transfer,
        _ => Family::Catalog,
    };
    Scene::new(family, None).respond(&ProtocolError::not_found())
}

type Shared = Arc<dyn Handler>;
type PathId = Result<Path<String>, PathRejection>;

/// Adds a route, with and without a trailing slash.
fn both(router: Router<Shared>, path: &str, method: MethodRouter<Shared>) -> Router<Shared> {
    router.route(path, method.clone()).route(&format!("{path}/"), method)
}

fn catalog_routes(router: Router<Shared>) -> Router<Shared> {
    let router = both(router, &format!("{BASE}/catalog/request"), post(catalog));
    both(router, &format!("{BASE}/catalog/datasets/{{id}}"), get(dataset))
}

fn negotiation_routes(mut router: Router<Shared>) -> Router<Shared> {
    for (path, kind) in [("request", NegotiationKind::Request), ("offers", NegotiationKind::Offer)] {
        let method = post(move |State(handler), request| negotiate(handler, kind, None, request));
        router = both(router, &format!("{BASE}/negotiations/{path}"), method);
    }
    for (path, kind) in [
        ("request", NegotiationKind::Request),
        ("offers", NegotiationKind::Offer),
        ("agreement", NegotiationKind::Agreement),
        ("agreement/verification", NegotiationKind::Verification),
        ("events", NegotiationKind::Event),
        ("termination", NegotiationKind::Termination),
    ] {
        let method = post(move |State(handler), pid, request| negotiate(handler, kind, Some(pid), request));
        router = both(router, &format!("{BASE}/negotiations/{{id}}/{path}"), method);
    }
    both(router, &format!("{BASE}/negotiations/{{id}}"), get(negotiation))
}

fn transfer_routes(router: Router<Shared>) -> Router<Shared> {
    let request = post(|State(handler), request| transfer(handler, TransferKind::Request, None, request));
    let mut router = both(router, &format!("{BASE}/transfers/request"), request);
    for (path, kind) in [
        ("start", TransferKind::Start),
        ("completion", TransferKind::Completion),
        ("suspension", TransferKind::Suspension),
        ("termination", TransferKind::Termination),
    ] {
        let method = post(move |State(handler), pid, request| transfer(handler, kind, Some(pid), request));
        router = both(router, &format!("{BASE}/transfers/{{id}}/{path}"), method);
    }
    both(router, &format!("{BASE}/transfers/{{id}}"), get(transfer_process))
}

// === catalog ===

async fn catalog(State(handler): State<Shared>, request: Request) -> Response {
    let mut call = Call::new(handler, Family::Catalog, None, request);
    let outcome = catalog_page(&mut call).await;
    call.respond(outcome)
}

async fn catalog_page(call: &mut Call) -> Result<Response, ProtocolError> {
    let caller = call.caller()?;
    let page = page(call.uri());
    let (request, _) = call.message::<CatalogRequest>().await?;
    request.query()?;
    let CatalogPage { catalog, next } = call.handler().catalog(&caller, request, page).await?;
    let link = next.and_then(|next| next_link(&catalog, &next));
    let mut response = written(StatusCode::OK, &catalog);
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// The query parameter `page`, by which a `Link` of ours is followed.
fn page(uri: &Uri) -> Option<String> {
    #[derive(Deserialize)]
    struct Page {
        page: Option<String>,
    }
    Query::<Page>::try_from_uri(uri).ok().and_then(|Query(query)| query.page)
}

/// `Link` to the next page: below the service that the catalog names, which is our public `<base>`.
fn next_link(catalog: &Catalog, next: &str) -> Option<HeaderValue> {
    let path = format!("/catalog/request?page={}", segment(next));
    let url =
        catalog.service.first().map_or_else(|| format!("{BASE}{path}"), |service| service.endpoint_url.join(&path));
    HeaderValue::from_str(&format!("<{url}>; rel=\"next\"")).ok()
}

async fn dataset(State(handler): State<Shared>, id: PathId, request: Request) -> Response {
    let mut call = Call::new(handler, Family::Catalog, None, request);
    let outcome = dataset_shown(&mut call, id).await;
    call.respond(outcome)
}

async fn dataset_shown(call: &mut Call, id: PathId) -> Result<Response, ProtocolError> {
    let caller = call.caller()?;
    let id = id.ok().and_then(|Path(id)| DatasetId::parse(id).ok()).ok_or_else(ProtocolError::not_found)?;
    Ok(written(StatusCode::OK, &call.handler().dataset(&caller, &id).await?))
}

// === negotiations ===

#[derive(Clone, Copy)]
enum NegotiationKind {
    Request,
    Offer,
    Agreement,
    Verification,
    Event,
    Termination,
}

impl NegotiationKind {
    fn read(self, body: Value) -> Result<NegotiationMessage, Malformed> {
        match self {
            Self::Request => from_object(body).map(NegotiationMessage::Request),
            Self::Offer => from_object(body).map(NegotiationMessage::Offer),
            Self::Agreement => from_object(body).map(NegotiationMessage::Agreement),
            Self::Verification => from_object(body).map(NegotiationMessage::Verification),
            Self::Event => from_object(body).map(NegotiationMessage::Event),
            Self::Termination => from_object(body).map(NegotiationMessage::Termination),
        }
    }
}

async fn negotiate(handler: Shared, kind: NegotiationKind, pid: Option<PathId>, request: Request) -> Response {
    let mut call = Call::new(handler, Family::Negotiation, pid, request);
    let outcome = negotiate_message(&mut call, kind).await;
    call.respond(outcome)
}

async fn negotiate_message(call: &mut Call, kind: NegotiationKind) -> Result<Response, ProtocolError> {
    let caller = call.caller()?;
    let (value, body) = call.body().await?;
    let id = call.message_id(&value)?;
    let message = kind.read(value)?;
    let (pid, receiver) = match call.pid()? {
        Some(pid) => (Some(pid), receiver(pid, message.pids())?),
        None => (None, begins(&message)?),
    };
    let status = if pid.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let incoming = Incoming { message, id, body };
    Ok(written(status, &call.handler().negotiate(&caller, receiver, pid, incoming).await?))
}

/// Whom a message addresses that begins a negotiation.
fn begins(message: &NegotiationMessage) -> Result<Party, ProtocolError> {
    let (party, counterpart) = match message {
        NegotiationMessage::Request(request) => (Party::Provider, &request.counterpart),
        NegotiationMessage::Offer(offer) => (Party::Consumer, &offer.counterpart),
        _ => return Err(ProtocolError::not_found()),
    };
    match counterpart.pid() {
        None => Ok(party),
        Some(_) => Err(ProtocolError::bad(
            "pid-unexpected",
            format!(
                "a message that begins a negotiation has no `{party}Pid`; one that continues it goes to its own path"
            ),
        )),
    }
}

/// Whom a message addresses: the one of its two pids that is in the path, which is the receiver's.
fn receiver(path: &Pid, message: Pids<'_>) -> Result<Party, ProtocolError> {
    match message {
        Pids { provider: Some(pid), .. } if pid == path => Ok(Party::Provider),
        Pids { consumer: Some(pid), .. } if pid == path => Ok(Party::Consumer),
        _ => Err(ProtocolError::bad("pid-mismatch", "the pid in the path is neither of those in the message")),
    }
}

async fn negotiation(State(handler): State<Shared>, pid: PathId, request: Request) -> Response {
    let mut call = Call::new(handler, Family::Negotiation, Some(pid), request);
    let outcome = negotiation_shown(&mut call).await;
    call.respond(outcome)
}

async fn negotiation_shown(call: &mut Call) -> Result<Response, ProtocolError> {
    let caller = call.caller()?;
    let pid = call.pid()?.ok_or_else(ProtocolError::not_found)?;
    Ok(written(StatusCode::OK, &call.handler().negotiation(&caller, pid).await?))
}

// === transfers ===

#[derive(Clone, Copy)]
enum TransferKind {
    Request,
    Start,
    Completion,
    Suspension,
    Termination,
}

impl TransferKind {
    fn read(self, body: Value) -> Result<TransferMessage, Malformed> {
        match self {
            Self::Request => from_object(body).map(TransferMessage::Request),
            Self::Start => from_object(body).map(TransferMessage::Start),
            Self::Completion => from_object(body).map(TransferMessage::Completion),
            Self::Suspension => from_object(body).map(TransferMessage::Suspension),
            Self::Termination => from_object(body).map(TransferMessage::Termination),
        }
    }
}

async fn transfer(handler: Shared, kind: TransferKind, pid: Option<PathId>, request: Request) -> Response {
    let mut call = Call::new(handler, Family::Transfer, pid, request);
    let outcome = transfer_message(&mut call, kind).await;
    call.respond(outcome)
}

async fn transfer_message(call: &mut Call, kind: TransferKind) -> Result<Response, ProtocolError> {
    let caller = call.caller()?;
    let (value, body) = call.body().await?;
    let id = call.message_id(&value)?;
    let message = kind.read(value)?;
    let (pid, receiver) = match call.pid()? {
        Some(pid) => (Some(pid), receiver(pid, message.pids())?),
        None => (None, Party::Provider),
    };
    let status = if pid.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let incoming = Incoming { message, id, body };
    Ok(written(status, &call.handler().transfer(&caller, receiver, pid, incoming).await?))
}

async fn transfer_process(State(handler): State<Shared>, pid: PathId, request: Request) -> Response {
    let mut call = Call::new(handler, Family::Transfer, Some(pid), request);
    let outcome = transfer_shown(&mut call).await;
    call.respond(outcome)
}

async fn transfer_shown(call: &mut Call) -> Result<Response, ProtocolError> {
    let caller = call.caller()?;
    let pid = call.pid()?.ok_or_else(ProtocolError::not_found)?;
    Ok(written(StatusCode::OK, &call.handler().transfer_process(&caller, pid).await?))
}

/// A root object as an answer.
fn written<R: Root>(status: StatusCode, root: &R) -> Response {
    respond(status, &write(root, None))
}
