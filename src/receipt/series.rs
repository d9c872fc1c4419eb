//! Series: receipts numbered per agreement and party, without a word of whose they are in the log.

use zeroize::Zeroizing;

use crate::{
    crypto::{hkdf_sha256, hmac_sha256},
    id::Sha256,
};

/// Bytes of a log entry: `0x01 ‖ T ‖ SHA-256(JWS)`.
pub const ENTRY: usize = 65;

/// The key of one series: who has it finds a gap, a duplicate, a wrong order or a missing tail; nobody else can tell
/// two series apart.
#[derive(Clone, PartialEq, Eq)]
pub struct SeriesKey(Zeroizing<[u8; 32]>);

impl SeriesKey {
    /// HKDF(secret, the party's DID).
    pub fn derive(secret: &[u8; 32], party: &impl AsRef<str>) -> Self {
        Self(Zeroizing::new(hkdf_sha256(secret, b"", &[b"counterseal/series", party.as_ref().as_bytes()])))
    }

    /// The key in one of the party's logs: so that nobody who reads several of them finds one series in both by its tags.
    pub fn in_epoch(&self, epoch: u64) -> Self {
        match epoch {
            1 => self.clone(),
            _ => Self(Zeroizing::new(hkdf_sha256(&*self.0, b"", &[b"counterseal/series/epoch", &epoch.to_be_bytes()]))),
        }
    }

    /// The tag of number `n` (from 0): HMAC-SHA-256 over `n` as 8 bytes, big-endian.
    pub fn tag(&self, n: u64) -> [u8; 32] {
        hmac_sha256(&*self.0, &n.to_be_bytes())
    }

    /// What names the series in our own store; shown to nobody.
    pub(super) fn name(&self) -> [u8; 32] {
        hmac_sha256(&*self.0, b"counterseal/series/name")
    }
}

impl std::fmt::Debug for SeriesKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SeriesKey(…)")
    }
}

/// The log entry of a receipt: `0x01 ‖ T ‖ SHA-256(JWS)`.
pub fn entry(tag: &[u8; 32], jws: &Sha256) -> [u8; ENTRY] {
    let mut entry = [1; ENTRY];
    entry[1..33].copy_from_slice(tag);
    entry[33..].copy_from_slice(jws.as_bytes());
    entry
}
