//! Identifiers: what we mint, what others mint, and hashes.
//!
//! What we mint is `urn:uuid:` with a version 7 UUID (RFC 9562). What others mint is opaque text of at most
//! [`MAX_OPAQUE`] bytes, echoed byte for byte and never used as a file name or, unhashed, as a store key.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::time::Timestamp;

/// The longest identifier that we take from anybody, in bytes.
pub const MAX_OPAQUE: usize = 512;

/// Why a text is not an identifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdError {
    /// Empty text.
    #[error("an identifier may not be empty")]
    Empty,
    /// More than [`MAX_OPAQUE`] bytes.
    #[error("an identifier may have at most {MAX_OPAQUE} bytes, this one has {0}")]
    TooLong(usize),
    /// A control character.
    #[error("an identifier may not contain the control character U+{0:04X}")]
    Control(u32),
    /// Not a DID (W3C DID Core §3.1).
    #[error("`{0}` is not a DID (did:<method>:<id>)")]
    NotADid(String),
    /// Not 64 lowercase hexadecimal digits.
    #[error("`{0}` is not a SHA-256 in 64 lowercase hexadecimal digits")]
    NotASha256(String),
}

fn opaque(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_OPAQUE {
        return Err(IdError::TooLong(text.len()));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(IdError::Control(c as u32)),
        None => Ok(()),
    }
}

/// Declares newtypes over opaque text: `parse`, `as_str`, `Display`, `FromStr`, serde.
macro_rules! opaque_ids {
    ($($(#[$doc:meta])* $name:ident $(: $check:path)?),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks the text and keeps it byte for byte.
            pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                opaque(&text)?;
                $($check(&text)?;)?
                Ok(Self(text))
            }

            /// The identifier as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        // equal texts are equal ids, and hash alike: maps are asked by text
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    )*};
}

opaque_ids! {
    /// A participant: a DID for Counterseal peers (W3C DID Core), opaque text for foreign ones.
    ParticipantId,
    /// A decentralised identifier, `did:<method>:<id>`.
    Did: is_did,
    /// A dataset, named by the steward that publishes it.
    DatasetId,
    /// An offer (policy `@id` in the Dataspace Protocol).
    OfferId,
    /// An agreement.
    AgreementId,
    /// A contract negotiation or transfer process at one party (`providerPid`, `consumerPid`).
    Pid,
    /// A message (`@id` of a Dataspace Protocol message).
    MessageId,
    /// A receipt.
    ReceiptId,
    /// A release: one snapshot leaving under a transfer.
    ReleaseId,
    /// A request of a caller's, by which it may be repeated.
    RequestId,
    /// A sealed copy in the vault.
    CopyId,
}

impl From<Did> for ParticipantId {
    fn from(did: Did) -> Self {
        Self(did.0)
    }
}

impl PartialEq<Did> for ParticipantId {
    fn eq(&self, did: &Did) -> bool {
        self.0 == did.0
    }
}

impl PartialEq<ParticipantId> for Did {
    fn eq(&self, participant: &ParticipantId) -> bool {
        self.0 == participant.0
    }
}

impl ParticipantId {
    /// This participant as a DID, if it is one.
    pub fn did(&self) -> Option<Did> {
        Did::parse(self.0.clone()).ok()
    }
}

fn is_did(text: &str) -> Result<(), IdError> {
    let mut parts = text.splitn(3, ':');
    let method = |m: &str| !m.is_empty() && m.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let id = |i: &str| {
        !i.is_empty()
            && !i.ends_with(':')
            && i.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'%'))
    };
    match (parts.next(), parts.next(), parts.next()) {
        (Some("did"), Some(m), Some(i)) if method(m) && id(i) => Ok(()),
        _ => Err(IdError::NotADid(text.to_owned())),
    }
}

/// A fresh `urn:uuid:` of version 7: `now` in its first 48 bits, `random` in the rest (RFC 9562 §5.7).
///
/// Parse it into the newtype that is wanted: `Pid::minted(…)`.
pub fn urn_uuid(now: Timestamp, random: &[u8; 10]) -> String {
    let millis = u64::try_from(now.millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid().urn().to_string()
}

/// Thirty-two bytes of SHA-256 (FIPS 180-4); written as 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The raw digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::NotASha256(text.chars().take(80).collect());
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(wrong());
        }
        let digit = |b: u8| match b {
            b'0'..=b'9' => Ok(b - b'0'),
            b'a'..=b'f' => Ok(b - b'a' + 10),
            _ => Err(wrong()),
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The state of a source at one moment: SHA-256 over {source, length, device, inode, mtime, ctime} of an open descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(pub Sha256);

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_bounded_text() {
        assert_eq!(Pid::parse(""), Err(IdError::Empty));
        assert_eq!(Pid::parse("a".repeat(513)), Err(IdError::TooLong(513)));
        assert_eq!(Pid::parse("a\u{1b}[0m"), Err(IdError::Control(0x1b)));
        assert_eq!(Pid::parse("CD123:ACN0101:456").unwrap().as_str(), "CD123:ACN0101:456");
    }

    #[test]
    fn a_did_has_a_method_and_an_id() {
        assert!(Did::parse("did:web:hospital.invalid").is_ok());
        for wrong in ["did:web", "did::x", "hospital", "did:web:", "did:WEB:x", "did:web:a/b", "did:web:a#b"] {
            assert!(Did::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_minted_id_is_a_version_7_uuid() {
        let id = urn_uuid(Timestamp::from_millis(1_764_000_000_123), &[7; 10]);
        assert!(id.starts_with("urn:uuid:019ab6"), "{id}");
        assert_eq!(&id[9 + 14..9 + 15], "7");
    }

    #[test]
    fn a_hash_reads_what_it_wrote_and_only_lowercase() {
        let hash = Sha256([0xab; 32]);
        assert_eq!(hash.to_string().parse::<Sha256>().unwrap(), hash);
        assert!("AB".repeat(32).parse::<Sha256>().is_err());
        assert!("ab".repeat(31).parse::<Sha256>().is_err());
    }
}
