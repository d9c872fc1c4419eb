//! Strict base64url without padding (RFC 4648 §5).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Why a text is not strict base64url.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not strict base64url: {0}")]
pub struct NotBase64(String);

/// base64url without padding.
pub fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads base64url without padding; refuses padding, white space, other alphabets and spare bits that are not zero.
pub fn unb64(text: &str) -> Result<Vec<u8>, NotBase64> {
    URL_SAFE_NO_PAD.decode(text).map_err(|error| NotBase64(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_text_stands_for_some_bytes() {
        assert_eq!(unb64("_-8").unwrap(), [0xff, 0xef]);
        for wrong in ["_-9", "_-8=", "/+8", " _-8", "_", "_-8\n"] {
            assert!(unb64(wrong).is_err(), "{wrong:?}");
        }
    }
}
