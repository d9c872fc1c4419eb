//! SHA-256 and what is built on it: HMAC, HKDF, salted commitments.

use ring::{digest, hkdf, hmac};

use crate::id::Sha256;

/// SHA-256 of `bytes` (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> Sha256 {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// A running SHA-256. A clone continues from the same point.
#[derive(Clone)]
pub struct Hasher(digest::Context);

impl Hasher {
    /// An empty hash.
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was added.
    pub fn finish(self) -> Sha256 {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        Sha256(out)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

/// HMAC-SHA-256 (RFC 2104).
pub fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref());
    out
}

/// 32 bytes of HKDF-SHA-256 (RFC 5869): extract with `salt` from `ikm`, expand with the concatenation of `info`.
///
/// Callers begin `info` with a label of their own (`b"counterseal/release"`), so that no two uses share output.
pub fn hkdf_sha256(ikm: &[u8], salt: &[u8], info: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(ikm)
        .expand(info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out))
        .expect("32 bytes are under HKDF's limit of 255 × 32");
    out
}

/// A commitment to `content`: SHA-256 over the 32-byte salt, then the content. Who gets the salt and the content can
/// check it; who has neither learns nothing, small domains included.
pub fn commitment(salt: &[u8; 32], content: &[u8]) -> Sha256 {
    let mut hasher = Hasher::new();
    hasher.update(salt);
    hasher.update(content);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_of_abc() {
        assert_eq!(sha256(b"abc").to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn hkdf_matches_rfc_5869_case_1() {
        let okm = hkdf_sha256(&[0x0b; 22], &(0..=0x0c).collect::<Vec<u8>>(), &[&(0xf0..=0xf9).collect::<Vec<u8>>()]);
        assert_eq!(Sha256(okm).to_string(), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
    }
}
