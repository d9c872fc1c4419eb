//! Refusals: a stable code for programs, a sentence for people.
//!
//! Each room has its own error enum; what crosses to a peer, a user or a receipt is a [`Refusal`].

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

/// A stable, lowercase, hyphenated reason code such as `peer-unknown`. Documented in `docs/reason-codes.md`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(Cow<'static, str>);

impl Code {
    /// A code of this build.
    pub const fn of(code: &'static str) -> Self {
        Self(Cow::Borrowed(code))
    }

    /// A code that somebody else sent: kept if it is at most 64 of `a-z0-9-`, else `other`.
    pub fn received(code: &str) -> Self {
        let fine = !code.is_empty()
            && code.len() <= 64
            && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        Self(if fine { Cow::Owned(code.to_owned()) } else { Cow::Borrowed("other") })
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why something was not done: a code that stays the same between versions, and a sentence that a person can act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{sentence} [{code}]")]
pub struct Refusal {
    /// Stable reason code.
    pub code: Code,
    /// What happened and what to do next. Never holds secrets or payload.
    pub sentence: String,
}

impl Refusal {
    /// A refusal with a code of this build.
    pub fn new(code: &'static str, sentence: impl Into<String>) -> Self {
        Self { code: Code::of(code), sentence: sentence.into() }
    }

    /// Whether this refusal carries `code`.
    pub fn is(&self, code: &str) -> bool {
        self.code.as_str() == code
    }
}
