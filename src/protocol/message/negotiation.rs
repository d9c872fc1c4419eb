//! Contract negotiation messages (DSP 2025-1 §7.3).

use serde::{Deserialize, Serialize};

use crate::{
    crypto::jws::Jws,
    id::{Pid, Sha256},
    protocol::{
        error::Pids,
        json::{id, maybe_code, maybe_id, reasons},
        message::{Address, Agreement, MessageOffer, refusing, vocabulary},
        negotiation::Event,
    },
};

vocabulary! {
    /// The states of a contract negotiation that both parties see.
    NegotiationState {
        /// The consumer asked.
        Requested = "REQUESTED",
        /// The provider offered.
        Offered = "OFFERED",
        /// The consumer took the offer.
        Accepted = "ACCEPTED",
        /// The provider sent the agreement.
        Agreed = "AGREED",
        /// The consumer verified the agreement.
        Verified = "VERIFIED",
        /// The agreement holds. Final.
        Finalized = "FINALIZED",
        /// It came to nothing. Final.
        Terminated = "TERMINATED",
    }
}

impl NegotiationState {
    /// Whether nothing can follow.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Finalized | Self::Terminated)
    }
}

vocabulary! {
    /// What a [`ContractEvent`] reports.
    EventType {
        /// The consumer takes the last offer.
        Accepted = "ACCEPTED",
        /// The provider closes the negotiation.
        Finalized = "FINALIZED",
    }
}

/// Any negotiation message.
#[derive(Clone, Debug, PartialEq)]
pub enum NegotiationMessage {
    /// A first request or a counter-offer by the consumer.
    Request(ContractRequest),
    /// A first offer or a counter-offer by the provider.
    Offer(ContractOffer),
    /// The provider's agreement.
    Agreement(ContractAgreement),
    /// The consumer's verification of it.
    Verification(ContractVerification),
    /// `ACCEPTED` or `FINALIZED`.
    Event(ContractEvent),
    /// The end, by either party.
    Termination(ContractTermination),
}

impl NegotiationMessage {
    /// What it does to the state machine.
    pub const fn event(&self) -> Event {
        match self {
            Self::Request(_) => Event::Request,
            Self::Offer(_) => Event::Offer,
            Self::Agreement(_) => Event::Agree,
            Self::Verification(_) => Event::Verify,
            Self::Event(ContractEvent { event_type: EventType::Accepted, .. }) => Event::Accept,
            Self::Event(ContractEvent { event_type: EventType::Finalized, .. }) => Event::Finalize,
            Self::Termination(_) => Event::Terminate,
        }
    }

    /// The pids that it names.
    pub const fn pids(&self) -> Pids<'_> {
        let (provider, consumer) = match self {
            Self::Request(m) => (m.counterpart.pid(), Some(&m.consumer_pid)),
            Self::Offer(m) => (Some(&m.provider_pid), m.counterpart.pid()),
            Self::Agreement(m) => (Some(&m.provider_pid), Some(&m.consumer_pid)),
            Self::Verification(m) => (Some(&m.provider_pid), Some(&m.consumer_pid)),
            Self::Event(m) => (Some(&m.provider_pid), Some(&m.consumer_pid)),
            Self::Termination(m) => (Some(&m.provider_pid), Some(&m.consumer_pid)),
        };
        Pids { provider, consumer }
    }

    /// Where answers go, in a message that begins a negotiation.
    pub const fn callback_address(&self) -> Option<&Address> {
        match self {
            Self::Request(m) => m.counterpart.callback_address(),
            Self::Offer(m) => m.counterpart.callback_address(),
            _ => None,
        }
    }
}

/// The receiver of a request or offer: not yet part of a negotiation, or known by its pid. The specification has
/// exactly one of `callbackAddress` and the receiver's pid; where a peer sends both, the pid counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counterpart {
    /// The message begins a negotiation; the receiver answers to this address.
    New {
        /// The sender's `<base>`.
        callback_address: Address,
    },
    /// The message continues one.
    Known(Pid),
}

impl Counterpart {
    /// The receiver's pid, if it has one.
    pub const fn pid(&self) -> Option<&Pid> {
        match self {
            Self::New { .. } => None,
            Self::Known(pid) => Some(pid),
        }
    }

    /// Where to answer, if this begins a negotiation.
    pub const fn callback_address(&self) -> Option<&Address> {
        match self {
            Self::New { callback_address } => Some(callback_address),
            Self::Known(_) => None,
        }
    }
}

/// `ContractRequestMessage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawRequest", into = "RawRequest")]
pub struct ContractRequest {
    /// The consumer's pid.
    pub consumer_pid: Pid,
    /// The provider.
    pub counterpart: Counterpart,
    /// What the consumer wants.
    pub offer: MessageOffer,
    /// Between Counterseal peers: which version of the offer.
    pub offer_sha256: Option<Sha256>,
    /// Between Counterseal peers: what for, as the consumer declares.
    pub purpose: Option<String>,
}

/// `ContractOfferMessage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawOffer", into = "RawOffer")]
pub struct ContractOffer {
    /// The provider's pid.
    pub provider_pid: Pid,
    /// The consumer.
    pub counterpart: Counterpart,
    /// What the provider offers.
    pub offer: MessageOffer,
    /// Between Counterseal peers: which version of the offer.
    pub offer_sha256: Option<Sha256>,
}

/// `ContractAgreementMessage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContractAgreement {
    /// The provider's pid.
    #[serde(deserialize_with = "id")]
    pub provider_pid: Pid,
    /// The consumer's pid.
    #[serde(deserialize_with = "id")]
    pub consumer_pid: Pid,
    /// The agreement.
    pub agreement: Agreement,
    /// Between Counterseal peers: the agreement, signed by the provider.
    #[serde(rename = "https://w3id.org/counterseal/ns#agreementJws", default, skip_serializing_if = "Option::is_none")]
    pub agreement_jws: Option<Jws>,
    /// Between Counterseal peers: the secret of the agreement's receipt series, sealed to the consumer (compact JWE).
    #[serde(
        rename = "https://w3id.org/counterseal/ns#seriesSecretJwe",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub series_secret_jwe: Option<String>,
}

/// `ContractAgreementVerificationMessage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContractVerification {
    /// The provider's pid.
    #[serde(deserialize_with = "id")]
    pub provider_pid: Pid,
    /// The consumer's pid.
    #[serde(deserialize_with = "id")]
    pub consumer_pid: Pid,
    /// Between Counterseal peers: the agreement, signed by the consumer.
    #[serde(rename = "https://w3id.org/counterseal/ns#agreementJws", default, skip_serializing_if = "Option::is_none")]
    pub agreement_jws: Option<Jws>,
}

/// `ContractNegotiationEventMessage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContractEvent {
    /// The provider's pid.
    #[serde(deserialize_with = "id")]
    pub provider_pid: Pid,
    /// The consumer's pid.
    #[serde(deserialize_with = "id")]
    pub consumer_pid: Pid,
    /// What happened.
    pub event_type: EventType,
}

/// `ContractNegotiationTerminationMessage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContractTermination {
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

refusing!(ContractTermination);

/// `ContractNegotiation`: the state, as answers and `GET` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContractNegotiation {
    /// The provider's pid.
    #[serde(deserialize_with = "id")]
    pub provider_pid: Pid,
    /// The consumer's pid.
    #[serde(deserialize_with = "id")]
    pub consumer_pid: Pid,
    /// The state.
    pub state: NegotiationState,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRequest {
    #[serde(deserialize_with = "id")]
    consumer_pid: Pid,
    #[serde(default, deserialize_with = "maybe_id", skip_serializing_if = "Option::is_none")]
    provider_pid: Option<Pid>,
    #[serde(default, deserialize_with = "maybe_id", skip_serializing_if = "Option::is_none")]
    callback_address: Option<String>,
    offer: MessageOffer,
    #[serde(rename = "https://w3id.org/counterseal/ns#offerSha256", default, skip_serializing_if = "Option::is_none")]
    offer_sha256: Option<Sha256>,
    #[serde(rename = "https://w3id.org/counterseal/ns#purpose", default, skip_serializing_if = "Option::is_none")]
    purpose: Option<String>,
}

impl TryFrom<RawRequest> for ContractRequest {
    type Error = String;
    fn try_from(raw: RawRequest) -> Result<Self, String> {
        let counterpart = counterpart(raw.provider_pid, raw.callback_address, "providerPid")?;
        let RawRequest { consumer_pid, offer, offer_sha256, purpose, .. } = raw;
        Ok(Self { consumer_pid, counterpart, offer, offer_sha256, purpose })
    }
}

impl From<ContractRequest> for RawRequest {
    fn from(request: ContractRequest) -> Self {
        let (provider_pid, callback_address) = request.counterpart.into_parts();
        let ContractRequest { consumer_pid, offer, offer_sha256, purpose, .. } = request;
        Self { consumer_pid, provider_pid, callback_address, offer, offer_sha256, purpose }
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawOffer {
    #[serde(deserialize_with = "id")]
    provider_pid: Pid,
    #[serde(default, deserialize_with = "maybe_id", skip_serializing_if = "Option::is_none")]
    consumer_pid: Option<Pid>,
    #[serde(default, deserialize_with = "maybe_id", skip_serializing_if = "Option::is_none")]
    callback_address: Option<String>,
    offer: MessageOffer,
    #[serde(rename = "https://w3id.org/counterseal/ns#offerSha256", default, skip_serializing_if = "Option::is_none")]
    offer_sha256: Option<Sha256>,
}

impl TryFrom<RawOffer> for ContractOffer {
    type Error = String;
    fn try_from(raw: RawOffer) -> Result<Self, String> {
        let counterpart = counterpart(raw.consumer_pid, raw.callback_address, "consumerPid")?;
        let RawOffer { provider_pid, offer, offer_sha256, .. } = raw;
        Ok(Self { provider_pid, counterpart, offer, offer_sha256 })
    }
}

impl From<ContractOffer> for RawOffer {
    fn from(message: ContractOffer) -> Self {
        let (consumer_pid, callback_address) = message.counterpart.into_parts();
        let ContractOffer { provider_pid, offer, offer_sha256, .. } = message;
        Self { provider_pid, consumer_pid, callback_address, offer, offer_sha256 }
    }
}

impl Counterpart {
    fn into_parts(self) -> (Option<Pid>, Option<String>) {
        match self {
            Self::New { callback_address } => (None, Some(callback_address.to_string())),
            Self::Known(pid) => (Some(pid), None),
        }
    }
}

fn counterpart(pid: Option<Pid>, callback: Option<String>, name: &str) -> Result<Counterpart, String> {
    match (pid, callback) {
        (Some(pid), _) => Ok(Counterpart::Known(pid)),
        (None, Some(text)) => {
            let callback_address = Address::parse(&text).map_err(|error| format!("`callbackAddress`: {error}"))?;
            Ok(Counterpart::New { callback_address })
        }
        (None, None) => Err(format!("neither `callbackAddress` nor `{name}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(extra: serde_json::Value) -> Result<ContractRequest, serde_json::Error> {
        let mut value = json!({
            "consumerPid": "c",
            "offer": {"@id": "o", "@type": "Offer", "target": "d", "permission": [{"action": "use"}]},
        });
        value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(value)
    }

    #[test]
    fn a_request_begins_or_continues_a_negotiation() {
        let first = request(json!({"callbackAddress": "http://127.0.0.1:8083/"})).unwrap();
        assert_eq!(first.counterpart.callback_address().unwrap().as_str(), "http://127.0.0.1:8083");
        let counter = request(json!({"providerPid": "p", "callbackAddress": "http://127.0.0.1:8083"})).unwrap();
        assert_eq!(counter.counterpart.pid().unwrap().as_str(), "p");
        let neither = request(json!({})).unwrap_err().to_string();
        assert_eq!(neither, "neither `callbackAddress` nor `providerPid`");
        assert!(request(json!({"callbackAddress": "file:///x"})).unwrap_err().to_string().contains("callbackAddress"));
    }

    #[test]
    fn a_state_is_read_bare_prefixed_or_as_an_iri() {
        for text in ["AGREED", "dspace:AGREED", "https://w3id.org/dspace/2025/1/AGREED"] {
            assert_eq!(serde_json::from_value::<NegotiationState>(json!(text)).unwrap(), NegotiationState::Agreed);
        }
        for text in ["agreed", "AGREEING", "", "x:AGREED"] {
            assert!(serde_json::from_value::<NegotiationState>(json!(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_termination_says_why_in_any_dialect() {
        let termination: ContractTermination = serde_json::from_value(json!({
            "providerPid": "p", "consumerPid": "c", "code": 1, "reason": [{"message": "no"}, "never"],
        }))
        .unwrap();
        let refusal = termination.refusal();
        assert_eq!((refusal.code.as_str(), refusal.sentence.as_str()), ("1", "no; never"));
        let silent: ContractTermination =
            serde_json::from_value(json!({"providerPid": "p", "consumerPid": "c"})).unwrap();
        assert!(silent.refusal().is("unspecified"));
    }
}
