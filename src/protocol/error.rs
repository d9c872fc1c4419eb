//! What goes wrong between connectors: our error answers, and those of others.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use crate::{
    error::{Code, Refusal},
    id::Pid,
    protocol::{
        json::{MAX_BODY, Malformed, code, object, sentences},
        message::CONTEXT,
        negotiation, transfer,
    },
};

/// Why a protocol request was not done. Nothing has changed; the routes write it as the error type of the path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence} [{code}, {status}]")]
pub struct ProtocolError {
    /// HTTP status, 4xx or 5xx.
    pub status: u16,
    /// Stable reason code.
    pub code: Code,
    /// What happened and what to do next.
    pub sentence: String,
    /// The process, where the request itself does not name it.
    pub consumer_pid: Option<Pid>,
    /// The process, where the request itself does not name it.
    pub provider_pid: Option<Pid>,
}

impl ProtocolError {
    fn new(status: u16, code: &'static str, sentence: impl Into<String>) -> Self {
        Self { status, code: Code::of(code), sentence: sentence.into(), consumer_pid: None, provider_pid: None }
    }

    /// 400: a message that does not belong in this state or to this sender; the state machines say so.
    pub fn illegal(sentence: impl Into<String>) -> Self {
        Self::new(400, "illegal-transition", sentence)
    }

    /// 400: a message that is wrong in itself.
    pub fn bad(code: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(400, code, sentence)
    }

    /// 404: nothing there *for this caller*. What exists but is not the caller's gets the same answer, byte for byte:
    /// it says nothing but what the request already held.
    pub fn not_found() -> Self {
        Self::new(404, "not-found", "there is no such thing for you here")
    }

    /// 503: not now; the peer tries again.
    pub fn busy(sentence: impl Into<String>) -> Self {
        Self::new(503, "busy", sentence)
    }

    /// 401: the connection says nothing about who calls.
    pub fn unauthenticated() -> Self {
        Self::new(
            401,
            "unauthenticated",
            "this connection is not authenticated; connect with a certificate that we know",
        )
    }

    /// 413: more than [`MAX_BODY`] bytes.
    pub fn too_large() -> Self {
        Self::new(413, "body-too-large", format!("a message has at most {MAX_BODY} bytes"))
    }

    /// 408: the body did not arrive in time.
    pub fn slow() -> Self {
        Self::new(408, "body-slow", "the body did not arrive in time")
    }

    /// Names the process.
    pub fn with_pids(self, provider: Option<Pid>, consumer: Option<Pid>) -> Self {
        Self { provider_pid: provider, consumer_pid: consumer, ..self }
    }
}

/// Status 400 with the refusal's code and sentence.
impl From<Refusal> for ProtocolError {
    fn from(refusal: Refusal) -> Self {
        Self { code: refusal.code, ..Self::new(400, "", refusal.sentence) }
    }
}

impl From<negotiation::Illegal> for ProtocolError {
    fn from(illegal: negotiation::Illegal) -> Self {
        if illegal.state.is_none() { Self::not_found() } else { Self::illegal(illegal.to_string()) }
    }
}

impl From<transfer::Illegal> for ProtocolError {
    fn from(illegal: transfer::Illegal) -> Self {
        if illegal.state.is_none() { Self::not_found() } else { Self::illegal(illegal.to_string()) }
    }
}

impl From<Malformed> for ProtocolError {
    fn from(malformed: Malformed) -> Self {
        Self::bad(malformed.code(), malformed.to_string())
    }
}

/// The two pids of a process, as far as somebody knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pids<'a> {
    /// The provider's.
    pub provider: Option<&'a Pid>,
    /// The consumer's.
    pub consumer: Option<&'a Pid>,
}

/// Holds a message's pids to the stored ones. One that is not stored yet fits: the counterpart's pid is adopted from
/// its answer or its next message, whichever comes first. (That the path's pid is one of the message's, the routes
/// have checked.)
///
/// # Errors
/// 400 `pid-mismatch`. Ask only after the process was found and is the caller's, else the answer betrays that it exists.
pub fn check_pids(message: Pids<'_>, stored: Pids<'_>) -> Result<(), ProtocolError> {
    for (role, said, known) in
        [("providerPid", message.provider, stored.provider), ("consumerPid", message.consumer, stored.consumer)]
    {
        if let (Some(said), Some(known)) = (said, known)
            && said != known
        {
            return Err(ProtocolError::bad("pid-mismatch", format!("`{role}` is not this process's")));
        }
    }
    Ok(())
}

/// What a request gave away before it failed, to be echoed in the error body.
#[derive(Clone, Debug)]
pub struct Scene {
    pub family: Family,
    /// The path's pid; whose it is, only the body says.
    path: Option<Pid>,
    provider: Option<Pid>,
    consumer: Option<Pid>,
}

/// Which error type a path answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Catalog,
    Negotiation,
    Transfer,
}

impl Scene {
    pub fn new(family: Family, path: Option<&Pid>) -> Self {
        Self { family, path: path.cloned(), provider: None, consumer: None }
    }

    /// Takes the pids of a body, valid or not.
    pub fn learn(&mut self, body: &Value) {
        let pid = |key: &str| body.get(key)?.as_str().and_then(|text| Pid::parse(text).ok());
        self.provider = pid("providerPid");
        self.consumer = pid("consumerPid");
    }

    /// The error as the answer of this path.
    pub fn respond(self, error: &ProtocolError) -> Response {
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status == StatusCode::NOT_FOUND {
            // whatever the handler knew, the answer holds only what the request held
            return self.answer(status, &ProtocolError::not_found());
        }
        self.answer(status, error)
    }

    fn answer(self, status: StatusCode, error: &ProtocolError) -> Response {
        let provider = error.provider_pid.as_ref().or(self.provider.as_ref());
        let consumer = error.consumer_pid.as_ref().or(self.consumer.as_ref());
        let body = match self.family {
            Family::Catalog => error_body("CatalogError", None, &error.code, &error.sentence),
            family => {
                let tag = if family == Family::Negotiation { "ContractNegotiationError" } else { "TransferError" };
                let echoed = |pid: Option<&Pid>| pid.or(self.path.as_ref()).map_or(NO_PID, Pid::as_str).to_owned();
                error_body(tag, Some((echoed(provider), echoed(consumer))), &error.code, &error.sentence)
            }
        };
        respond(status, &body)
    }
}

/// A body of one of the protocol's three error types. Pids are required in two of them.
pub fn error_body(tag: &str, pids: Option<(String, String)>, code: &Code, sentence: &str) -> Value {
    let mut body = json!({"@context": [CONTEXT], "@type": tag, "code": code, "reason": [sentence]});
    if let (Some((provider, consumer)), Value::Object(body)) = (pids, &mut body) {
        body.insert("providerPid".into(), provider.into());
        body.insert("consumerPid".into(), consumer.into());
    }
    body
}

/// A JSON answer. One that is not a success may leave the request's body unread, so that the connection ends with it.
pub fn respond(status: StatusCode, body: &Value) -> Response {
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response();
    if matches!(status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNAUTHORIZED | StatusCode::REQUEST_TIMEOUT) {
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    response
}

/// A refusal of the peer extension as a body: `code` and `reason`, as in the protocol's errors.
pub fn refusal_body(refusal: &Refusal) -> Value {
    json!({"code": refusal.code, "reason": [refusal.sentence]})
}

/// Reads anybody's error body: any JSON with `code` and `reason` in whatever shape (EDC's carry no pids; others send
/// `message`, RFC 9457's `title` and `detail`, a list of errors, or no JSON at all).
pub fn read_refusal(status: u16, body: &[u8]) -> Refusal {
    let fields = match object(body) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let said = fields.get("code").and_then(code);
    let reason = ["reason", "message", "detail", "title", "error"]
        .into_iter()
        .filter_map(|key| fields.get(key))
        .map(sentences)
        .find(|sentences| !sentences.is_empty())
        .unwrap_or_else(|| vec![format!("the peer answered {status} without a reason")]);
    received(said.as_deref(), &reason)
}

/// A refusal that somebody else sent.
pub fn received(code: Option<&str>, reason: &[String]) -> Refusal {
    let code = code.map_or(Code::of("unspecified"), Code::received);
    let sentence = if reason.is_empty() { "the peer gave no reason".to_owned() } else { reason.join("; ") };
    Refusal { code, sentence }
}

/// Stands where the protocol wants a pid and nobody has given one: the nil UUID (RFC 9562 §5.9).
const NO_PID: &str = "urn:uuid:00000000-0000-0000-0000-000000000000";

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(text: &str) -> Pid {
        Pid::parse(text).unwrap()
    }

    #[test]
    fn pids_must_be_the_stored_ones_and_an_unknown_one_is_adopted() {
        let (p, c, x) = (pid("p"), pid("c"), pid("x"));
        let both = Pids { provider: Some(&p), consumer: Some(&c) };
        assert!(check_pids(both, both).is_ok());
        assert!(check_pids(both, Pids { provider: None, consumer: Some(&c) }).is_ok());
        assert!(check_pids(both, Pids { provider: Some(&x), consumer: Some(&c) }).unwrap_err().status == 400);
        assert!(check_pids(both, Pids { provider: Some(&p), consumer: Some(&x) }).is_err());
    }

    #[test]
    fn errors_of_others_are_read_whatever_their_shape() {
        let read = |body: &str| read_refusal(409, body.as_bytes());
        let edc =
            read(r#"{"@type":"ContractNegotiationError","code":"409","reason":["wrong state"],"@context":["x"]}"#);
        assert_eq!((edc.code.as_str(), edc.sentence.as_str()), ("409", "wrong state"));
        assert_eq!(read(r#"{"code":409,"reason":{"message":"no"}}"#).sentence, "no");
        assert_eq!(read(r#"{"code":"Not A Code!","detail":"d"}"#).code.as_str(), "other");
        for empty in ["", "<html>", "[]", "null", "{}", r#"{"reason":[]}"#] {
            assert_eq!(read(empty).sentence, "the peer answered 409 without a reason", "{empty}");
        }
    }
}
