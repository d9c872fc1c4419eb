//! The messages and objects of the Dataspace Protocol 2025-1, as the HTTPS binding sends them.
//!
//! Structs hold what a message says; `@context`, `@type` and a message's `@id` are added by [`write`] and checked by
//! [`read`]. Nested objects write their `@type` themselves. Unknown properties are ignored, as the protocol asks.
//! Properties of our own are keyed by absolute IRIs below [`NAMESPACE`], which need no context of ours.

mod address;
mod catalog;
mod negotiation;
mod policy;
mod transfer;
mod version;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, de::Error as _};
use serde_json::{Map, Value};

use crate::{
    id::MessageId,
    protocol::json::{Malformed, object, shortened},
};

pub use self::{
    address::{Address, AddressError},
    catalog::{Catalog, CatalogRequest, DataService, Dataset, Distribution, NestedCatalog, Query, Service},
    negotiation::{
        ContractAgreement, ContractEvent, ContractNegotiation, ContractOffer, ContractRequest, ContractTermination,
        ContractVerification, Counterpart, EventType, NegotiationMessage, NegotiationState,
    },
    policy::{Agreement, MessageOffer, Offer, PolicyError, Rule, Rules},
    transfer::{
        DataAddress, EndpointProperty, TransferCompletion, TransferMessage, TransferProcess, TransferRequest,
        TransferStart, TransferState, TransferSuspension, TransferTermination,
    },
    version::{Version, VersionResponse},
};

/// The protocol's JSON-LD context, which every root object names.
pub const CONTEXT: &str = "https://w3id.org/dspace/2025/1/context.jsonld";

/// Where extension properties of ours live.
pub const NAMESPACE: &str = "https://w3id.org/counterseal/ns#";

/// The transfer format that we offer: the consumer pulls over HTTP.
pub const HTTP_PULL: &str = "HttpData-PULL";

/// The transfer format by which the provider brings the data to the consumer.
pub const HTTP_PUSH: &str = "HttpData-PUSH";

/// `@context` of a root object: written as an array of just [`CONTEXT`]; read as that text or an array that holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context;

impl Serialize for Context {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [CONTEXT].serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let holds = match Value::deserialize(deserializer)? {
            Value::String(url) => url == CONTEXT,
            Value::Array(urls) => urls.iter().any(|url| url.as_str() == Some(CONTEXT)),
            _ => false,
        };
        if holds { Ok(Self) } else { Err(D::Error::custom(Malformed::Context)) }
    }
}

/// A root object: what stands alone in a request or response body.
pub trait Root: Serialize + DeserializeOwned {
    /// Its `@type`.
    const TYPE: &'static str;
}

macro_rules! roots {
    ($($name:ident = $tag:literal),* $(,)?) => {$(
        impl Root for $name {
            const TYPE: &'static str = $tag;
        }
    )*};
}

roots! {
    CatalogRequest = "CatalogRequestMessage",
    Catalog = "Catalog",
    Dataset = "Dataset",
    ContractRequest = "ContractRequestMessage",
    ContractOffer = "ContractOfferMessage",
    ContractAgreement = "ContractAgreementMessage",
    ContractVerification = "ContractAgreementVerificationMessage",
    ContractEvent = "ContractNegotiationEventMessage",
    ContractTermination = "ContractNegotiationTerminationMessage",
    ContractNegotiation = "ContractNegotiation",
    TransferRequest = "TransferRequestMessage",
    TransferStart = "TransferStartMessage",
    TransferCompletion = "TransferCompletionMessage",
    TransferSuspension = "TransferSuspensionMessage",
    TransferTermination = "TransferTerminationMessage",
    TransferProcess = "TransferProcess",
}

/// The JSON of a root object, with `@context` and `@type`, and `@id` where a message has one.
pub fn write<R: Root>(root: &R, id: Option<&MessageId>) -> Value {
    let mut object = Map::new();
    object.insert("@context".into(), Value::Array(vec![CONTEXT.into()]));
    object.insert("@type".into(), R::TYPE.into());
    if let Some(id) = id {
        object.insert("@id".into(), id.as_str().into());
    }
    // Serialising into a `Value` fails only for maps with keys that are not text, and no message holds one; should one
    // ever, what comes out lacks its properties and is refused by any peer.
    if let Ok(Value::Object(properties)) = serde_json::to_value(root) {
        object.extend(properties);
    }
    Value::Object(object)
}

/// A root object from a body: `@context` holds the protocol's URL, `@type` is `R`'s.
///
/// # Errors
/// [`Malformed`], with what is wrong; a peer's own text is quoted shortened.
pub fn read<R: Root>(body: &[u8]) -> Result<R, Malformed> {
    from_object(object(body)?)
}

/// Like [`read`], from parsed JSON.
pub fn from_object<R: Root>(value: Value) -> Result<R, Malformed> {
    if value.get("@context").is_none_or(|context| Context::deserialize(context).is_err()) {
        return Err(Malformed::Context);
    }
    match value.get("@type") {
        Some(Value::String(found)) if found == R::TYPE => {}
        Some(found) => {
            return Err(Malformed::Type { expected: R::TYPE, found: format!("`{}`", shortened(&found.to_string())) });
        }
        None => return Err(Malformed::Type { expected: R::TYPE, found: "absent".into() }),
    }
    serde_json::from_value(value)
        .map_err(|error| Malformed::Property { kind: R::TYPE, problem: shortened(&error.to_string()) })
}

/// Declares an enum of the protocol's vocabulary: written as the bare term, read also with a prefix or as an IRI.
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $term:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),*
        }

        impl $name {
            /// Every one of them.
            pub const ALL: [Self; [$($term),*].len()] = [$(Self::$variant),*];

            /// The protocol's term.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $term),*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text: String = $crate::protocol::json::id(deserializer)?;
                let term = text
                    .strip_prefix("dspace:")
                    .or_else(|| text.strip_prefix("https://w3id.org/dspace/2025/1/"))
                    .unwrap_or(&text);
                Self::ALL.into_iter().find(|known| known.as_str() == term).ok_or_else(|| {
                    <D::Error as serde::de::Error>::custom(format_args!(
                        concat!("`{}` is not a ", stringify!($name)),
                        $crate::protocol::json::shortened(&text)
                    ))
                })
            }
        }
    };
}
use vocabulary;

/// Declares `refusal()` on messages that carry a code and reasons.
macro_rules! refusing {
    ($($name:ident),* $(,)?) => {$(
        impl $name {
            /// Why, as the sender puts it; code `unspecified` where it gives none.
            pub fn refusal(&self) -> $crate::error::Refusal {
                $crate::protocol::error::received(self.code.as_deref(), &self.reason)
            }
        }
    )*};
}
use refusing;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Pid;
    use serde_json::json;

    fn event(context: Value, tag: Value) -> Vec<u8> {
        let message = json!({"@context": context, "@type": tag, "providerPid": "p", "consumerPid": {"@id": "c"}, "eventType": "ACCEPTED"});
        serde_json::to_vec(&message).unwrap()
    }

    #[test]
    fn the_context_must_hold_the_protocols_url() {
        let tag = || json!("ContractNegotiationEventMessage");
        for fine in [json!([CONTEXT]), json!(CONTEXT), json!(["https://example.org/x", CONTEXT, {"a": "b"}])] {
            let event = read::<ContractEvent>(&event(fine, tag())).unwrap();
            assert_eq!(event.consumer_pid, Pid::parse("c").unwrap());
        }
        for wrong in
            [json!([]), json!("https://w3id.org/dspace/2024/1/context.json"), json!({"a": CONTEXT}), json!(null)]
        {
            assert_eq!(read::<ContractEvent>(&event(wrong, tag())), Err(Malformed::Context));
        }
    }

    #[test]
    fn the_type_must_be_the_one_that_is_due() {
        for wrong in [json!("ContractOfferMessage"), json!(["ContractNegotiationEventMessage"]), json!(null)] {
            let refused = read::<ContractEvent>(&event(json!([CONTEXT]), wrong)).unwrap_err();
            assert!(matches!(refused, Malformed::Type { .. }), "{refused}");
        }
        let absent = serde_json::to_vec(&json!({"@context": [CONTEXT]})).unwrap();
        let refused = read::<ContractEvent>(&absent).unwrap_err();
        assert_eq!(refused.to_string(), "`@type` is absent; `ContractNegotiationEventMessage` is due here");
    }

    #[test]
    fn what_is_missing_is_named() {
        let body = json!({"@context": [CONTEXT], "@type": "ContractNegotiationEventMessage", "providerPid": "p"});
        let refused = read::<ContractEvent>(&serde_json::to_vec(&body).unwrap()).unwrap_err();
        assert!(refused.to_string().contains("missing field `consumerPid`"), "{refused}");
    }
}
