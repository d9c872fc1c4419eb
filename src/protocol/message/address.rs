//! Addresses of other connectors.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::protocol::json::shortened;

/// The base URL of a connector's protocol endpoints (`<base>`, `callbackAddress`, `endpointURL`): `http` or `https`
/// with a host, no credentials, query or fragment, at most 2,048 bytes, trailing slashes taken off.
///
/// Whether it may be called is for the outbound factory and the peer's pinned statement to say, not for this type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(String);

impl Address {
    /// Checks a URL.
    ///
    /// # Errors
    /// [`AddressError`] quotes the text.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let wrong = |problem| AddressError { text: shortened(text), problem };
        if text.len() > 2048 {
            return Err(wrong("it is longer than 2,048 bytes"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(wrong("it has a blank, a backslash or a control character"));
        }
        let url = reqwest::Url::parse(text).map_err(|_| wrong("it is not an absolute URL"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong("it is not http or https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it holds credentials"));
        }
        if text.contains(['?', '#']) {
            return Err(wrong("it has a query or a fragment"));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    /// The URL, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL of `path`, which begins with a slash, below this address.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Why a text is no address of a connector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the address of a connector: {problem}")]
pub struct AddressError {
    text: String,
    problem: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_slash_never_doubles() {
        let address = Address::parse("https://a.example:8443/2025-1//").unwrap();
        assert_eq!(address.join("/negotiations/x/offers"), "https://a.example:8443/2025-1/negotiations/x/offers");
    }

    #[test]
    fn only_a_plain_http_url_is_an_address() {
        let long = format!("https://a.example/{}", "x".repeat(2048));
        for wrong in [
            "",
            "a.example/dsp",
            "/2025-1",
            "file:///etc/passwd",
            "https://",
            "https://user@a.example",
            "https://user:pw@a.example",
            "https://a.example/?q",
            "https://a.example/#f",
            "https://a.example/ x",
            "https://a.example/\n",
            "https:\\\\a.example",
            &long,
        ] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
