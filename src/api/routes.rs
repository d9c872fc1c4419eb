//! The routes.

use std::{collections::BTreeMap, convert::Infallible, path::PathBuf, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Request},
    http::{HeaderMap, HeaderValue, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::stream;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    agreement::{AgreementRow, ApprovalState, Approver},
    api::{Api, Problem, events, grounds, keeping, processes, receipts, uses, workbench},
    error::Refusal,
    exchange::{Acting, Exchange, FetchRequest, NegotiationRequest, NegotiationView, Pairing},
    id::{AgreementId, DatasetId, Did, OfferId, ParticipantId, ReleaseId},
    identity::Attributes,
    offer::Approval,
    protocol::message::{Address, HTTP_PULL},
};

pub(super) type Answer<T> = Result<Json<T>, Problem>;

/// Adds a peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddPeer {
    /// The invitation's file, as the connector sees it.
    pub file: PathBuf,
    /// What the operator says of it.
    #[serde(default)]
    pub attributes: Attributes,
    /// The fingerprint that the partner read out: another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// How long we wait after answering this partner before we send what follows, in milliseconds.
    #[serde(default)]
    pub follow_up_delay_ms: u64,
}

/// Publishes an offer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PublishBody {
    /// `offer.toml`, as the connector sees it.
    pub file: PathBuf,
}

/// Negotiates.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NegotiateBody {
    /// With whom.
    pub provider: ParticipantId,
    /// About what.
    pub dataset: DatasetId,
    /// In which offer; needed with a foreign provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<OfferId>,
    /// The provider's `<base>`, if it is another than the one that is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Whether our steps wait for a person.
    #[serde(default)]
    pub approval: Approval,
    /// How long to wait for the end, in seconds.
    #[serde(default = "patience")]
    pub wait_seconds: u64,
}

fn patience() -> u64 {
    30
}

/// Asks for a transfer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferBody {
    /// Under which agreement.
    pub agreement: AgreementId,
    /// How the data goes over.
    #[serde(default = "pull")]
    pub format: String,
    /// The provider's `<base>`, if it is another than the one that is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Whether our steps wait for a person.
    #[serde(default)]
    pub approval: Approval,
}

fn pull() -> String {
    HTTP_PULL.into()
}

/// Why.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReasonBody {
    /// A sentence for the partner.
    #[serde(default)]
    pub reason: String,
}

/// All routes, behind the token and the `Host` check.
pub fn routes(api: Api) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/invitation", get(invitation))
        .route("/v1/peers", get(peers).post(add_peer))
        .route("/v1/peers/token", get(processes::foreign_peers).post(processes::add_foreign))
        .route("/v1/peers/token/{id}/revoke", post(processes::revoke_foreign))
        .route("/v1/peers/{did}/revoke", post(revoke_peer))
        .route("/v1/peers/{did}/catalog", get(catalog))
        .route("/v1/offers", get(offers).post(publish))
        .route("/v1/offers/{id}/withdraw", post(withdraw))
        .route("/v1/negotiations", get(negotiations).post(negotiate))
        .route("/v1/negotiations/{pid}", get(processes::negotiation))
        .route("/v1/negotiations/{pid}/{action}", post(processes::act_on_negotiation))
        .route("/v1/transfers", get(processes::transfers).post(processes::transfer))
        .route("/v1/transfers/{pid}/{action}", post(processes::act_on_transfer))
        .route("/v1/pending", get(processes::pending))
        .route("/v1/approvers", get(grounds::approvers).post(grounds::add_approver))
        .route("/v1/approvers/{name}/remove", post(grounds::remove_approver))
        .route("/v1/approvals", get(grounds::approvals))
        .route("/v1/approvals/{id}/grant", post(grounds::grant_approval))
        .route("/v1/approvals/{id}/refuse", post(grounds::refuse_approval))
        .route("/v1/consents", get(grounds::consents).post(grounds::record_consent))
        .route("/v1/consents/withdraw", post(grounds::withdraw_consent))
        .route("/v1/second-factors", post(grounds::enrol))
        .route("/v1/duties", get(grounds::duties))
        .route("/v1/agreements/{id}/payment", post(grounds::record_payment))
        .route("/v1/events", get(events::follow))
        .route("/v1/agreements", get(agreements))
        .route("/v1/agreements/import", post(processes::import))
        .route("/v1/agreements/{id}/approve", post(processes::approve))
        .route("/v1/agreements/{id}/revoke", post(revoke_agreement))
        .route("/v1/releases/{id}/lift", post(lift))
        .route("/v1/fetch", post(fetch))
        .route("/v1/copies", get(uses::copies))
        .route("/v1/use", post(uses::use_copy))
        .route("/v1/uses/{id}", get(uses::handover))
        .route("/v1/uses/{id}/done", post(uses::done))
        .route("/v1/applications", get(uses::applications).post(uses::register))
        .route("/v1/applications/{name}", get(uses::application))
        .route("/v1/applications/{name}/remove", post(uses::remove))
        .route("/v1/derived", get(uses::derived).post(uses::register_derived))
        .route("/v1/receipts", get(receipts::list))
        .route("/v1/receipts/{id}", get(receipts::show))
        .route("/v1/receipts/{id}/decision", get(workbench::decision))
        .route("/v1/decisions", get(workbench::decisions))
        .route("/v1/trace", post(workbench::trace))
        .route("/v1/receipts/erase", post(receipts::erase))
        .route("/v1/export", get(receipts::export))
        .route("/v1/clock/accept", post(accept_clock))
        .route("/v1/backup", post(keeping::back_up))
        .route("/v1/restorations/{partner}/accept", post(keeping::accept_restoration))
        .fallback(async || Problem(Refusal::new("route-unknown", "the management API has no such route")))
        .layer(middleware::from_fn_with_state(api.clone(), guard))
        .layer(DefaultBodyLimit::max(1 << 20))
        .with_state(api)
}

/// Only the operator, only under our own name: a page of somebody else's can't talk to us.
async fn guard(By(api): By, mut request: Request, next: Next) -> Response {
    match admit(&api, request.headers()) {
        Ok(role) => {
            request.extensions_mut().insert(role);
            next.run(request).await
        }
        Err(refusal) if refusal.is("unauthenticated") => match approver(&api, approvers_token(&request)).await {
            Some(approver) => {
                request.extensions_mut().insert(approver);
                next.run(request).await
            }
            None => Problem(refusal).into_response(),
        },
        Err(refusal) => Problem(refusal).into_response(),
    }
}

/// Whose token it is, where it is an approver's and asks for nothing but approvals.
async fn approver(api: &Api, token: Option<String>) -> Option<Approver> {
    api.exchange.approver_of(&token?).await.ok()?
}

fn approvers_token(request: &Request) -> Option<String> {
    let path = request.uri().path();
    if path != "/v1/approvals" && !path.starts_with("/v1/approvals/") {
        return None;
    }
    request.headers().get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned)
}

/// Who asks, by name: declared.
pub const OPERATOR: &str = "counterseal-operator";

/// Who asks, by the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Operator,
    Steward,
}

impl Role {
    /// Refuses everybody but a steward; `what` begins the sentence.
    pub(super) fn only_steward(self, what: &str) -> Result<(), Problem> {
        match self {
            Self::Steward => Ok(()),
            Self::Operator => Err(Problem(Refusal::new(
                "steward-required",
                format!("{what} a steward, with the token in steward.token in the connector's home"),
            ))),
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Steward => "steward",
        }
    }
}

fn admit(api: &Api, headers: &HeaderMap) -> Result<Role, Refusal> {
    let header = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let port = api.address.port();
    let ours = header(header::HOST).is_some_and(|host| {
        host == api.address.to_string() || host == format!("localhost:{port}") || host == format!("127.0.0.1:{port}")
    });
    if !ours {
        return Err(Refusal::new(
            "host-foreign",
            "this is the management API of a connector; its own address is the only name it answers to",
        ));
    }
    let token = header(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    match token {
        Some(token) if api.token.is(token) => Ok(Role::Operator),
        Some(token) if api.steward.is(token) => Ok(Role::Steward),
        _ => Err(Refusal::new(
            "unauthenticated",
            "the operator's token is missing or wrong; it is in operator.token in the connector's home",
        )),
    }
}

/// What handlers need, with the walks walked by whoever asks: the role is the token's, the name what the caller says of
/// itself in `Counterseal-Operator` (percent-encoded UTF-8).
pub(super) struct By(pub Api);

impl FromRequestParts<Api> for By {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Infallible> {
        let Some(role) = parts.extensions.get::<Role>() else { return Ok(Self(api.clone())) };
        let name = parts.headers.get(OPERATOR).and_then(|value| value.to_str().ok());
        let name = name.map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned());
        let name = name.map(|name| name.chars().filter(|c| !c.is_control()).take(100).collect::<String>());
        let person = Acting { role: role.as_str(), name: name.filter(|name| !name.is_empty()) };
        Ok(Self(Api { exchange: api.exchange.acted_by(person), ..api.clone() }))
    }
}

/// JSON, with our own words for what is wrong with it.
pub(super) fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem(Refusal::new("json-invalid", format!("the request's body: {error}"))))
}

pub(super) fn id<T: std::str::FromStr<Err = crate::id::IdError>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error| {
        Problem(Refusal::new("id-invalid", format!("`{}`: {error}", text.chars().take(80).collect::<String>())))
    })
}

pub(super) fn unreadable(error: impl std::fmt::Display) -> Problem {
    Problem(Refusal::new("store-unreadable", error.to_string()))
}

async fn status(By(api): By) -> Answer<Value> {
    let exchange = &api.exchange;
    let agreements = exchange.agreements().await?;
    let size = exchange.receipts.size().await.map_err(unreadable)?;
    let certificate = exchange.keys.certificate();
    let approvals = exchange.approvals().await?;
    let open_approvals = approvals.iter().filter(|approval| approval.state == ApprovalState::Open).count();
    let mut overdue = exchange.duties().await?;
    overdue.retain(|duty| !duty.overdue.is_empty());
    Ok(Json(json!({
        "did": exchange.us,
        "name": exchange.config.participant.name,
        "endpoint": exchange.base_url,
        "fingerprint": exchange.invitation().fingerprint(),
        "version": env!("CARGO_PKG_VERSION"),
        "peers": exchange.peers.all().len() + exchange.foreign_views().len(),
        "offers": exchange.offers.all().len(),
        "agreements": agreements.len(),
        "receipts": size,
        "pending": exchange.pending().await?.len(),
        "approvals": open_approvals,
        "overdue": overdue,
        "plain": exchange.config.listen.plain.map(|_| &exchange.plain_url),
        "certificateEnds": certificate.not_after,
        "clock": exchange.guard.check().err(),
        "log": log_view(exchange).await?,
        "alarms": exchange.alarms().await?,
        "restoring": exchange.restorations.waiting(),
    })))
}

/// Our log's newest checkpoint, and how far each partner has cosigned it.
async fn log_view(exchange: &Exchange) -> Result<Value, Problem> {
    let checkpoint = exchange.log.checkpoint().await.map_err(unreadable)?;
    let witnesses: Vec<Value> = exchange
        .witnessed()
        .await?
        .into_iter()
        .map(|(peer, size)| json!({ "peer": peer, "cosigned": size, "seen": exchange.witnesses.newest(&peer) }))
        .collect();
    Ok(json!({
        "origin": checkpoint.as_ref().map(|(checkpoint, _)| &checkpoint.origin),
        "size": checkpoint.as_ref().map_or(0, |(checkpoint, _)| checkpoint.size),
        "logs": exchange.log.epochs().await.map_err(unreadable)?.iter().map(|log| log.epoch).collect::<Vec<_>>(),
        "root": checkpoint.as_ref().map(|(checkpoint, _)| checkpoint.root),
        "behind": exchange.behind.check().err(),
        "witnesses": witnesses,
    }))
}

async fn invitation(By(api): By) -> Answer<Value> {
    let invitation = api.exchange.invitation();
    Ok(Json(json!({ "fingerprint": invitation.fingerprint(), "invitation": invitation })))
}

async fn peers(By(api): By) -> Answer<Value> {
    Ok(Json(json!(api.exchange.peer_views())))
}

async fn add_peer(By(api): By, body: Bytes) -> Answer<Value> {
    let body: AddPeer = parse(&body)?;
    let pairing = Pairing {
        attributes: body.attributes,
        fingerprint: body.fingerprint,
        follow_up_delay: Duration::from_millis(body.follow_up_delay_ms),
    };
    Ok(Json(json!(api.exchange.add_peer(&body.file, pairing).await?)))
}

async fn revoke_peer(By(api): By, Path(did): Path<String>, body: Bytes) -> Answer<Value> {
    let body: ReasonBody = parse(&body)?;
    api.exchange.revoke_peer(&id::<Did>(&did)?, &body.reason).await?;
    Ok(Json(json!({ "revoked": did })))
}

async fn catalog(By(api): By, Path(did): Path<String>) -> Answer<Value> {
    Ok(Json(json!(api.exchange.catalog_of(&id(&did)?).await?)))
}

async fn offers(By(api): By) -> Answer<Value> {
    let offers: Vec<Value> = api
        .exchange
        .offers
        .all()
        .iter()
        .map(|live| {
            json!({
                "id": live.row.offer.id,
                "version": live.row.version,
                "dataset": live.row.offer.dataset.id,
                "title": live.row.offer.dataset.title,
                "source": live.row.source,
                "sealedFor": live.row.signed.iter().filter_map(|signed| signed.aud.clone()).collect::<Vec<_>>(),
                "problem": live.slice.as_ref().err(),
            })
        })
        .collect();
    Ok(Json(json!(offers)))
}

async fn publish(By(api): By, body: Bytes) -> Answer<Value> {
    let body: PublishBody = parse(&body)?;
    Ok(Json(json!(api.exchange.publish(&body.file).await?)))
}

async fn withdraw(By(api): By, Path(offer): Path<String>) -> Answer<Value> {
    api.exchange.withdraw(&id::<OfferId>(&offer)?).await?;
    Ok(Json(json!({ "withdrawn": offer })))
}

async fn negotiations(By(api): By) -> Answer<Vec<NegotiationView>> {
    Ok(Json(api.exchange.negotiations().await?))
}

async fn negotiate(By(api): By, body: Bytes) -> Answer<NegotiationView> {
    let body: NegotiateBody = parse(&body)?;
    let request = NegotiationRequest {
        provider: body.provider,
        dataset: body.dataset,
        offer: body.offer,
        address: body.address,
        approval: body.approval,
    };
    let pid = api.exchange.negotiate(&request).await?;
    let wait = Duration::from_secs(body.wait_seconds.min(600));
    Ok(Json(api.exchange.negotiation_end(&pid, wait).await?))
}

fn agreement_view(row: &AgreementRow) -> Value {
    json!({
        "id": row.id(),
        "dataset": row.agreement.dataset,
        "offer": row.agreement.offer_id,
        "side": row.ours,
        "peer": row.peer(),
        "state": row.state,
        "ended": row.ended,
        "releases": row.releases.total.count,
        "spent": row.releases.total,
        "uses": row.uses.iter().map(|(action, tally)| (action.clone(), tally.total.count)).collect::<BTreeMap<_, _>>(),
        "open": row.open,
        "manifest": row.agreement.manifest,
        "validUntil": row.agreement.valid_until,
    })
}

async fn agreements(By(api): By) -> Answer<Vec<Value>> {
    Ok(Json(api.exchange.agreements().await?.iter().map(agreement_view).collect()))
}

async fn revoke_agreement(By(api): By, Path(agreement): Path<String>, body: Bytes) -> Answer<Value> {
    let body: ReasonBody = parse(&body)?;
    api.exchange.revoke_agreement(&id::<AgreementId>(&agreement)?, &body.reason).await?;
    Ok(Json(json!({ "revoked": agreement })))
}

async fn lift(By(api): By, Path(release): Path<String>) -> Answer<Value> {
    api.exchange.lift_release(&id::<ReleaseId>(&release)?).await?;
    Ok(Json(json!({ "lifted": release })))
}

/// Events, one JSON object a line, until the last one says how it ended.
async fn fetch(By(api): By, body: Bytes) -> Result<Response, Problem> {
    let request: FetchRequest = parse(&body)?;
    let (sender, receiver) = mpsc::unbounded_channel();
    // goes on when the listener goes away: the release is open, and somebody waits for the copy
    tokio::spawn(async move { api.exchange.fetch(request, sender).await });
    let lines = stream::unfold(receiver, |mut events| async move {
        let event = events.recv().await?;
        let mut line = serde_json::to_string(&event).unwrap_or_default();
        line.push('\n');
        Some((Ok::<_, std::io::Error>(line), events))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

async fn accept_clock(By(api): By) -> Answer<Value> {
    api.exchange.accept_clock().await?;
    Ok(Json(json!({ "accepted": true })))
}
