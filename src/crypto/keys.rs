//! Keys: Ed25519 for signatures, X25519 for sealing. Secrets are wiped when dropped and never printed.

use std::fmt;

use curve25519_dalek::edwards::CompressedEdwardsY;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::crypto::{Random, RandomExt, b64, unb64};

/// Why bytes are not a public key that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the one encoding of a point on the curve (RFC 8032 §5.1.3).
    #[error("not the canonical encoding of a point on the curve")]
    NotAPoint,
    /// A point of small order, for which signatures or shared secrets prove nothing.
    #[error("a point of small order")]
    SmallOrder,
    /// Not 32 bytes.
    #[error("a public key has 32 bytes")]
    Length,
}

/// An Ed25519 key pair (RFC 8032).
pub struct SigningKey {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
    public: VerifyingKey,
}

impl SigningKey {
    /// A fresh key.
    pub fn generate(random: &dyn Random) -> Self {
        Self::from_seed(random.array())
    }

    /// The key with this 32-byte seed (RFC 8032 §5.1.5).
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).expect("any 32 bytes are an Ed25519 seed");
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Self { seed, pair, public: VerifyingKey(public) }
    }

    /// The seed, for the key file.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public half.
    pub fn public(&self) -> VerifyingKey {
        self.public
    }

    /// A signature over `message`.
    pub fn sign_raw(&self, message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.pair.sign(message).as_ref());
        out
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

/// An Ed25519 public key: canonical, and not of small order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerifyingKey([u8; 32]);

impl VerifyingKey {
    /// Takes the key if it is canonically encoded and not of small order.
    pub fn parse(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let point = CompressedEdwardsY(bytes).decompress().ok_or(KeyError::NotAPoint)?;
        if point.compress().0 != bytes {
            return Err(KeyError::NotAPoint);
        }
        if point.is_small_order() {
            return Err(KeyError::SmallOrder);
        }
        Ok(Self(bytes))
    }

    /// The encoded point.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verify_raw(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

/// An X25519 key pair (RFC 7748), static: for sealed offers and one-time keys.
pub struct SealingKey {
    bytes: Zeroizing<[u8; 32]>,
    secret: StaticSecret,
}

impl SealingKey {
    /// A fresh key.
    pub fn generate(random: &dyn Random) -> Self {
        Self::from_bytes(random.array())
    }

    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self { bytes: Zeroizing::new(bytes), secret: StaticSecret::from(bytes) }
    }

    /// The bytes, for the key file.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The public half.
    pub fn public(&self) -> SealingPublic {
        SealingPublic(PublicKey::from(&self.secret).to_bytes())
    }

    /// The shared secret with `other`; `None` where it would be all zero (RFC 7748 §6.1).
    pub(super) fn agree(&self, other: &SealingPublic) -> Option<Zeroizing<[u8; 32]>> {
        let shared = self.secret.diffie_hellman(&PublicKey::from(other.0));
        shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.public())
    }
}

/// An X25519 public key that is not of small order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SealingPublic([u8; 32]);

impl SealingPublic {
    /// Takes the key unless every shared secret with it is zero.
    pub fn parse(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let key = Self(bytes);
        // any secret tells: a small-order point gives zero with each of them
        SealingKey::from_bytes([0x42; 32]).agree(&key).map(|_| key).ok_or(KeyError::SmallOrder)
    }

    /// The u-coordinate.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

macro_rules! public_key_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&b64(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bytes = unb64(&String::deserialize(deserializer)?).map_err(D::Error::custom)?;
                let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| D::Error::custom(KeyError::Length))?;
                Self::parse(bytes).map_err(D::Error::custom)
            }
        }
    )*};
}

public_key_text!(VerifyingKey, SealingPublic);

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;

    use super::*;
    use crate::crypto::SystemRandom;

    #[test]
    fn a_signature_counts_only_for_its_message_and_key() {
        let (key, other) = (SigningKey::generate(&SystemRandom), SigningKey::generate(&SystemRandom));
        let signature = key.sign_raw(b"released");
        assert!(key.public().verify_raw(b"released", &signature));
        assert!(!key.public().verify_raw(b"deleted", &signature));
        assert!(!other.public().verify_raw(b"released", &signature));
        assert!(VerifyingKey::parse(*key.public().bytes()).is_ok());
    }

    #[test]
    fn the_eight_small_order_keys_are_refused() {
        for point in EIGHT_TORSION {
            assert_eq!(VerifyingKey::parse(point.compress().0), Err(KeyError::SmallOrder));
        }
    }

    #[test]
    fn a_key_that_is_not_canonical_is_refused() {
        // y = p + 1 encodes the same point as y = 1
        let mut bytes = [0xff; 32];
        bytes[0] = 0xee;
        bytes[31] = 0x7f;
        assert_eq!(VerifyingKey::parse(bytes), Err(KeyError::NotAPoint));
    }

    #[test]
    fn a_sealing_key_of_small_order_is_refused() {
        assert_eq!(SealingPublic::parse([0; 32]), Err(KeyError::SmallOrder));
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(SealingPublic::parse(one), Err(KeyError::SmallOrder));
    }

    #[test]
    fn secrets_are_not_printed() {
        let key = SigningKey::from_seed([7; 32]);
        assert!(!format!("{key:?}").contains(&b64(&[7; 32])));
    }
}
