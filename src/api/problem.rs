//! Problem details (RFC 9457).

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::error::Refusal;

/// A refusal as an HTTP answer.
pub struct Problem(pub Refusal);

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let code = self.0.code.as_str();
        let status = match code {
            "unauthenticated" => StatusCode::UNAUTHORIZED,
            "host-foreign" => StatusCode::MISDIRECTED_REQUEST,
            code if code.ends_with("-unknown") => StatusCode::NOT_FOUND,
            code if code.starts_with("store-") || code == "stopping" => StatusCode::SERVICE_UNAVAILABLE,
            "disk-full" => StatusCode::INSUFFICIENT_STORAGE,
            "peer-unreachable" => StatusCode::BAD_GATEWAY,
            "internal" => StatusCode::INTERNAL_SERVER_ERROR,
            code if code.starts_with("offer-file")
                || code.starts_with("policy-in")
                || code.starts_with("invitation-") =>
            {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            _ => StatusCode::FORBIDDEN,
        };
        let body = json!({
            "type": format!("https://w3id.org/counterseal/problems#{code}"),
            "title": code,
            "status": status.as_u16(),
            "detail": self.0.sentence,
            "code": code,
        });
        let mut response = (status, body.to_string()).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}
