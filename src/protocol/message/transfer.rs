//! Transfer process messages (DSP 2025-1 §9.3).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    id::{AgreementId, Pid},
    protocol::{
        error::Pids,
        json::{id, many, maybe_code, maybe_id, reasons},
        message::{Address, refusing, vocabulary},
        transfer::Event,
    },
};

vocabulary! {
    /// The states of a transfer process that both parties see.
    TransferState {
        /// The consumer asked.
        Requested = "REQUESTED",
        /// Data may flow.
        Started = "STARTED",
        /// Held for now.
        Suspended = "SUSPENDED",
        /// Done. Final.
        Completed = "COMPLETED",
        /// Ended before it was done. Final.
        Terminated = "TERMINATED",
    }
}

impl TransferState {
    /// Whether nothing can follow.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Terminated)
    }
}

/// Any transfer message.
#[derive(Clone, Debug, PartialEq)]
pub enum TransferMessage {
    /// The consumer asks.
    Request(TransferRequest),
    /// The provider starts, or either resumes.
    Start(TransferStart),
    /// Done.
    Completion(TransferCompletion),
    /// Hold.
    Suspension(TransferSuspension),
    /// The end.
    Termination(TransferTermination),
}

impl TransferMessage {
    /// What it does to the state machine.
    pub const fn event(&self) -> Event {
        match self {
            Self::Request(_) => Event::Request,
            Self::Start(_) => Event::Start,
            Self::Completion(_) => Event::Complete,
            Self::Suspension(_) => Event::Suspend,
            Self::Termination(_) => Event::Terminate,
        }
    }

    /// The pids that it names.
    pub const fn pids(&self) -> Pids<'_> {
        let (provider, consumer) = match self {
            Self::Request(m) => (None, &m.consumer_pid),
            Self::Start(m) => (Some(&m.provider_pid), &m.consumer_pid),
            Self::Completion(m) => (Some(&m.provider_pid), &m.consumer_pid),
            Self::Suspension(m) => (Some(&m.provider_pid), &m.consumer_pid),
            Self::Termination(m) => (Some(&m.provider_pid), &m.consumer_pid),
        };
        Pids { provider, consumer: Some(consumer) }
    }
}

/// `TransferRequestMessage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferRequest {
    /// The consumer's pid.
    #[serde(deserialize_with = "id")]
    pub consumer_pid: Pid,
    /// Under which agreement.
    #[serde(deserialize_with = "id")]
    pub agreement_id: AgreementId,
    /// A distribution's format.
    #[serde(deserialize_with = "id")]
    pub format: String,
    /// Where the provider answers.
    #[serde(deserialize_with = "id")]
    pub callback_address: Address,
    /// Where to push to; we pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_address: Option<DataAddress>,
    /// Between Counterseal peers: what for, as the consumer declares.
    #[serde(rename = "https://w3id.org/counterseal/ns#purpose", default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
}

/// `TransferStartMessage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferStart {
    /// The provider's pid.
    #[serde(deserialize_with = "id")]
    pub provider_pid: Pid,
    /// The consumer's pid.
    #[serde(deserialize_with = "id")]
    pub consumer_pid: Pid,
    /// Where to pull from; the specification's prose wants it in a provider's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_address: Option<DataAddress>,
}

/// `TransferCompletionMessage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferCompletion {
    /// The provider's pid.
    #[serde(deserialize_with = "id")]
    pub provider_pid: Pid,
    /// The consumer's pid.
    #[serde(deserialize_with = "id")]
    pub consumer_pid: Pid,
}

/// `TransferSuspensionMessage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferSuspension {
    /// The provider's pid.
    #[serde(deserialize_with = "id")]
    pub provider_pid: Pid,
    /// The consumer's pid.
    #[serde(deserialize_with = "id")]
    pub consumer_pid: Pid,
    /// A reason code, the sender's own.
    #[serde(default, deserialize_with = "maybe_code", skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why, in sentences.
    #[serde(default, deserialize_with = "reasons", skip_serializing_if = "Vec::is_empty")]
    pub reason: Vec<String>,
}

/// `TransferTerminationMessage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferTermination {
    /// The provider's pid.
    #[serde(deserialize_with = "id")]
    pub provider_pid: Pid,
    /// The consumer's pid.
    #[serde(deserialize_with = "id")]
    pub consumer_pid: Pid,
    /// A reason code, the sender's own.
    #[serde(default, deserialize_with = "maybe_code", skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why, in sentences.
    #[serde(default, deserialize_with = "reasons", skip_serializing_if = "Vec::is_empty")]
    pub reason: Vec<String>,
}

refusing!(TransferSuspension, TransferTermination);

/// `TransferProcess`: the state, as answers and `GET` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferProcess {
    /// The provider's pid.
    #[serde(deserialize_with = "id")]
    pub provider_pid: Pid,
    /// The consumer's pid.
    #[serde(deserialize_with = "id")]
    pub consumer_pid: Pid,
    /// The state.
    pub state: TransferState,
}

/// `DataAddress`: where and how to pull.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "@type", rename = "DataAddress", rename_all = "camelCase")]
pub struct DataAddress {
    /// What kind of endpoint.
    #[serde(deserialize_with = "id")]
    pub endpoint_type: String,
    /// Its URL; see [`Self::url`].
    #[serde(default, deserialize_with = "maybe_id", skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What else it takes; holds the token.
    #[serde(default, deserialize_with = "many", skip_serializing_if = "Vec::is_empty")]
    pub endpoint_properties: Vec<EndpointProperty>,
}

impl DataAddress {
    /// The endpoint type of an HTTP endpoint.
    pub const HTTP: &'static str = "https://w3id.org/idsa/v4.1/HTTP";

    /// An HTTP endpoint that takes `token` as bearer token.
    pub fn http(endpoint: &Address, token: &str) -> Self {
        let property = |name: &str, value: &str| EndpointProperty { name: name.into(), value: value.into() };
        Self {
            endpoint_type: Self::HTTP.into(),
            endpoint: Some(endpoint.to_string()),
            endpoint_properties: vec![property("authorization", token), property("authType", "bearer")],
        }
    }

    /// The endpoint's URL: at its own place, or among the properties as EDC has it.
    pub fn url(&self) -> Option<&str> {
        self.endpoint.as_deref().or_else(|| self.property("endpoint"))
    }

    /// The token.
    pub fn token(&self) -> Option<&str> {
        self.property("authorization")
    }

    /// An endpoint property by its name, plain or in EDC's namespace.
    pub fn property(&self, name: &str) -> Option<&str> {
        let plain = |given: &str| given.strip_prefix("https://w3id.org/edc/v0.0.1/ns/").unwrap_or(given) == name;
        self.endpoint_properties.iter().find(|property| plain(&property.name)).map(|property| property.value.as_str())
    }
}

/// A name and a value; the value may be a token, so that it is never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "@type", rename = "EndpointProperty")]
pub struct EndpointProperty {
    /// Such as `authorization`, `authType`.
    #[serde(deserialize_with = "id")]
    pub name: String,
    /// Always text.
    pub value: String,
}

impl fmt::Debug for EndpointProperty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointProperty").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_data_address_is_read_in_edcs_dialect() {
        let edc = "https://w3id.org/edc/v0.0.1/ns/";
        let property = |name: &str, value: &str| json!({"@type": "EndpointProperty", "name": format!("{edc}{name}"), "value": value});
        let address: DataAddress = serde_json::from_value(json!({
            "@type": "DataAddress", "endpointType": DataAddress::HTTP,
            "endpointProperties": [property("endpoint", "http://p.example/public"), property("authorization", "T")],
        }))
        .unwrap();
        assert_eq!((address.url(), address.token()), (Some("http://p.example/public"), Some("T")));
    }

    #[test]
    fn a_token_is_not_shown_by_debug() {
        let address = DataAddress::http(&Address::parse("https://p.example/x").unwrap(), "SECRET");
        assert_eq!(address.token(), Some("SECRET"));
        assert!(!format!("{address:?}").contains("SECRET"));
    }
}
