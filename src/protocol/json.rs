//! Reading JSON that a stranger sent: bounded, and lenient where peers differ.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::Value;

/// The largest message body that we take, in bytes.
pub const MAX_BODY: usize = 1 << 20;

/// The deepest nesting of arrays and objects that we take.
pub const MAX_DEPTH: usize = 64;

/// Why a body is not the message that it should be; a peer sees it as status 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No body.
    #[error("the body is empty; a JSON object is due")]
    Empty,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("the body nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Not JSON.
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    /// JSON, but no object.
    #[error("the body is {0}; a JSON object is due")]
    NotAnObject(&'static str),
    /// `@context` absent or without the protocol's URL.
    #[error("`@context` is not an array holding `{}`", crate::protocol::message::CONTEXT)]
    Context,
    /// Another `@type` than this path takes.
    #[error("`@type` is {found}; `{expected}` is due here")]
    Type {
        /// What this path takes.
        expected: &'static str,
        /// What came, quoted and shortened, or `absent`.
        found: String,
    },
    /// A property absent or of the wrong shape.
    #[error("not a valid {kind}: {problem}")]
    Property {
        /// The `@type` that was read.
        kind: &'static str,
        /// The property and what is wrong with it.
        problem: String,
    },
}

impl Malformed {
    /// The stable reason code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "body-empty",
            Self::TooDeep => "json-too-deep",
            Self::NotJson(_) | Self::NotAnObject(_) => "json-invalid",
            Self::Context => "context-unknown",
            Self::Type { .. } => "type-unexpected",
            Self::Property { .. } => "message-invalid",
        }
    }
}

/// A JSON object from bytes: not empty, not deeper than [`MAX_DEPTH`].
pub fn object(body: &[u8]) -> Result<Value, Malformed> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Malformed::Empty);
    }
    if depth(body) > MAX_DEPTH {
        return Err(Malformed::TooDeep);
    }
    let value = serde_json::from_slice(body).map_err(|error| Malformed::NotJson(shortened(&error.to_string())))?;
    match value {
        Value::Object(_) => Ok(value),
        Value::Null => Err(Malformed::NotAnObject("null")),
        Value::Bool(_) => Err(Malformed::NotAnObject("a boolean")),
        Value::Number(_) => Err(Malformed::NotAnObject("a number")),
        Value::String(_) => Err(Malformed::NotAnObject("a string")),
        Value::Array(_) => Err(Malformed::NotAnObject("an array")),
    }
}

/// A plain (not JSON-LD) body of the peer extension.
pub fn plain<T: DeserializeOwned>(kind: &'static str, body: &[u8]) -> Result<T, Malformed> {
    serde_json::from_value(object(body)?)
        .map_err(|error| Malformed::Property { kind, problem: shortened(&error.to_string()) })
}

/// The deepest nesting of brackets outside strings; counts before anything is parsed or allocated.
fn depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in body {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// At most 300 characters of a text that may quote what a stranger sent, control characters replaced.
pub fn shortened(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(300).map(clean).collect();
    if text.chars().nth(300).is_some() {
        short.push('…');
    }
    short
}

/// An array, a single item where an array is due, or null.
pub fn many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Many<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Many<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array or a single item")
        }

        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            T::deserialize(serde::de::value::StrDeserializer::new(text)).map(|item| vec![item])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(item) = items.next_element()? {
                all.push(item);
            }
            Ok(all)
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
            T::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(|item| vec![item])
        }
    }

    deserializer.deserialize_any(Many(PhantomData))
}

/// An id as a string, or as a JSON-LD reference `{"@id": …}`.
pub fn id<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(deserializer: D) -> Result<T, D::Error> {
    reference(Value::deserialize(deserializer)?).map_err(D::Error::custom)?.parse().map_err(D::Error::custom)
}

/// Like [`id`], absent or null allowed (with `#[serde(default)]`).
pub fn maybe_id<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        value => reference(value).map_err(D::Error::custom)?.parse().map(Some).map_err(D::Error::custom),
    }
}

fn reference(value: Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) => Ok(text),
        Value::Object(mut object) => match object.remove("@id") {
            Some(Value::String(text)) => Ok(text),
            _ => Err("an id is a string or an object with `@id`"),
        },
        _ => Err("an id is a string or an object with `@id`"),
    }
}

/// Text as a string, a JSON-LD value `{"@value": …}`, or the first of several; anything else is none.
pub fn maybe_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    fn text(value: Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text),
            Value::Object(mut object) => object.remove("@value").and_then(text),
            Value::Array(items) => items.into_iter().find_map(text),
            _ => None,
        }
    }
    Value::deserialize(deserializer).map(text)
}

/// A code as a string or a number.
pub fn maybe_code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Value::deserialize(deserializer).map(|value| code(&value))
}

pub fn code(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(shortened(text)),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Reasons in whatever shape: strings as they are, of objects the message or value, else their JSON; at most 16.
pub fn reasons<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Value::deserialize(deserializer).map(|value| sentences(&value))
}

pub fn sentences(value: &Value) -> Vec<String> {
    fn sentence(value: &Value) -> Option<String> {
        match value {
            Value::Null => None,
            Value::String(text) => Some(shortened(text)),
            Value::Object(object) => {
                let named = ["message", "@value", "description", "reason"].into_iter().find_map(|key| object.get(key));
                named.and_then(Value::as_str).map(shortened).or_else(|| Some(shortened(&value.to_string())))
            }
            _ => Some(shortened(&value.to_string())),
        }
    }
    match value {
        Value::Array(items) => items.iter().filter_map(sentence).take(16).collect(),
        single => sentence(single).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn depth_counts_brackets_outside_strings_only() {
        assert_eq!(depth(br#"{"a":[[]]}"#), 3);
        assert_eq!(depth(br#"{"a":"[[[\"[["}"#), 1);
        assert_eq!(depth(b"]]]["), 1);
    }

    #[test]
    fn a_bomb_of_brackets_is_refused_before_it_is_parsed() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(object(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
        assert_eq!(object(nested(MAX_DEPTH).as_bytes()), Err(Malformed::TooDeep));
        assert_eq!(object("[".repeat(MAX_BODY).as_bytes()), Err(Malformed::TooDeep));
    }

    #[test]
    fn only_an_object_is_a_message() {
        assert_eq!(object(b""), Err(Malformed::Empty));
        assert_eq!(object(b" \r\n"), Err(Malformed::Empty));
        assert_eq!(object(b"[]"), Err(Malformed::NotAnObject("an array")));
        assert!(matches!(object(b"{\"a\":"), Err(Malformed::NotJson(_))));
        assert!(matches!(object(b"{\"a\":\"\xff\"}"), Err(Malformed::NotJson(_))));
    }

    #[test]
    fn what_a_stranger_sent_is_quoted_shortened_and_clean() {
        let quoted = shortened(&"\u{1b}[31m".repeat(1000));
        assert_eq!(quoted.chars().count(), 301);
        assert!(!quoted.contains('\u{1b}'));
    }

    #[test]
    fn a_single_item_is_an_array_of_one() {
        #[derive(Deserialize)]
        struct Holder {
            #[serde(default, deserialize_with = "many")]
            items: Vec<Value>,
            #[serde(default, deserialize_with = "many")]
            names: Vec<String>,
        }
        let holder: Holder = serde_json::from_value(json!({"items": {"a": 1}, "names": "x"})).unwrap();
        assert_eq!(holder.items, [json!({"a": 1})]);
        assert_eq!(holder.names, ["x"]);
        let holder: Holder = serde_json::from_value(json!({"items": [1, 2], "names": null})).unwrap();
        assert_eq!((holder.items.len(), holder.names.len()), (2, 0));
    }

    #[test]
    fn reasons_are_read_in_any_shape() {
        assert_eq!(sentences(&json!([{"message": "no"}, "why", 7, null, {"x": 1}])), ["no", "why", "7", "{\"x\":1}"]);
        assert_eq!(sentences(&json!("one")), ["one"]);
        assert_eq!(sentences(&json!(null)), Vec::<String>::new());
        assert_eq!(sentences(&Value::Array(vec![json!("x"); 1000])).len(), 16);
    }
}
