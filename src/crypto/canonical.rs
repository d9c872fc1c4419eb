//! JSON Canonicalization Scheme (RFC 8785), integers only up to 2^53 − 1.

use serde::Serialize;
use serde_json::Value;

/// Why a value has no canonical form here.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// A number that is not an integer of magnitude at most 2^53 − 1.
    #[error("the number {0} is not an integer of at most 2^53 − 1")]
    Number(String),
    /// serde could not turn the value into JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// The canonical bytes of `value` (RFC 8785). Signed objects are their own canonical JSON.
pub fn canonical_json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let mut value = serde_json::to_value(value)?;
    integers_only(&value)?;
    if has_ascii_names(&value) {
        // bytes of ASCII sort as UTF-16 does, and serde_json writes strings and integers as RFC 8785 says: a quarter of the time
        value.sort_all_objects();
        return Ok(serde_json::to_vec(&value)?);
    }
    Ok(serde_json_canonicalizer::to_vec(&value)?)
}

fn has_ascii_names(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(has_ascii_names),
        Value::Object(members) => members.iter().all(|(name, value)| name.is_ascii() && has_ascii_names(value)),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Number(_) => true,
    }
}

const MAX_SAFE: u64 = (1 << 53) - 1;

fn integers_only(value: &Value) -> Result<(), CanonicalError> {
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(n), _) if n <= MAX_SAFE => Ok(()),
            (_, Some(n)) if n.unsigned_abs() <= MAX_SAFE => Ok(()),
            _ => Err(CanonicalError::Number(number.to_string())),
        },
        Value::Array(items) => items.iter().try_for_each(integers_only),
        Value::Object(members) => members.values().try_for_each(integers_only),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let text = prop_oneof![any::<String>(), "[ -~\u{0}-\u{1f}\u{7f}\"\\\\/]{0,12}"];
        let number = prop_oneof![0..=MAX_SAFE, 0..1000_u64].prop_map(|n| json!(n));
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            number,
            (-(MAX_SAFE as i64)..0).prop_map(|n| json!(n)),
            text.clone().prop_map(Value::String)
        ];
        leaf.prop_recursive(3, 24, 6, move |inner| {
            let name = prop_oneof![8 => "[a-zA-Z0-9_.:-]{0,8}", 1 => any::<String>(), 1 => "[ -~]{0,4}"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec((name, inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_short_way_writes_what_the_canonicalizer_does(value in values()) {
            prop_assert_eq!(canonical_json(&value).unwrap(), serde_json_canonicalizer::to_vec(&value).unwrap());
        }
    }

    #[test]
    fn members_are_sorted_by_utf_16_and_numbers_are_integers() {
        // RFC 8785 §3.2.3's sorting example
        let value = json!({"\u{20ac}": "Euro", "\r": "CR", "\u{fb33}": "Dalet", "1": "One", "\u{1f600}": "Smiley",
                           "\u{80}": "Control", "\u{f6}": "o"});
        let text = String::from_utf8(canonical_json(&value).unwrap()).unwrap();
        let order: Vec<_> = ["CR", "One", "Control", "\"o\"", "Euro", "Smiley", "Dalet"]
            .iter()
            .map(|v| text.find(v).unwrap())
            .collect();
        assert!(order.is_sorted(), "{text}");
        assert!(canonical_json(&json!({"a": 1.5})).is_err());
        assert!(canonical_json(&json!([1_u64 << 53])).is_err());
        assert!(canonical_json(&json!([(1_u64 << 53) - 1, -7])).is_ok());
    }
}
