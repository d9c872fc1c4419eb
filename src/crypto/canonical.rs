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
    let value = serde_json::to_value(value)?;
    integers_only(&value)?;
    Ok(serde_json_canonicalizer::to_vec(&value)?)
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
    use serde_json::json;

    use super::*;

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
