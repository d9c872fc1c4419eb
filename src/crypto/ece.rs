//! Sealed streams: HTTP content coding `aes128gcm` (RFC 8188), in the strict form that this house uses.
//!
//! ```text
//!   header: salt 16 ‖ rs 4 (always 65,536) ‖ idlen 1 ‖ keyid
//!   record: AES-128-GCM(plaintext ‖ 0x01)   65,519 bytes of plaintext, 65,536 coded
//!   last:   AES-128-GCM(plaintext ‖ 0x02)   0 to 65,519 bytes of plaintext
//! ```

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    crypto::{hkdf_sha256, hmac_sha256, sha256},
    id::Sha256,
};

/// Bytes of a coded record: the `rs` of every body (RFC 8188 §2.1).
pub const RECORD_SIZE: u32 = 65_536;
/// Bytes of plaintext in a full record: without tag (16) and delimiter (1).
pub const RECORD_PLAIN: usize = 65_519;
/// Most records in a body.
pub const MAX_RECORDS: u64 = 1 << 22;
/// Records between points where a stream may be resumed (64 MiB).
pub const RESUME_EVERY: u64 = 1024;

const TAG: usize = 16;
const FIXED_HEADER: usize = 21;

/// Why a body was not sealed or opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EceError {
    /// `rs` is not 65,536.
    #[error("the record size is {0}, not {RECORD_SIZE}")]
    RecordSize(u32),
    /// A record that does not open: altered, out of order, from another body, or under another key.
    #[error("record {0} does not open")]
    Record(u64),
    /// A record whose delimiter is missing or wrong.
    #[error("record {0} has no valid delimiter")]
    Delimiter(u64),
    /// Bytes after the final record.
    #[error("something follows the final record")]
    Trailing,
    /// The body ends before its final record.
    #[error("the body ends after record {0}, before its final record")]
    Truncated(u64),
    /// The header is cut off.
    #[error("the body ends within its header")]
    Header,
    /// Too many records.
    #[error("a body has at most {MAX_RECORDS} records")]
    TooLong,
    /// A record that is too long, or a short one that is not the last.
    #[error("a record of {0} bytes can't be sealed here")]
    Length(usize),
}

/// 32 bytes of keying material: all that it takes to open the bodies of one release.
#[derive(Clone)]
pub struct Keying(Zeroizing<[u8; 32]>);

impl Keying {
    /// From these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Derived from the home's release key and the release's id: never stored by the provider.
    pub fn derive(release_key: &[u8; 32], release_id: &str) -> Self {
        Self::from_bytes(hkdf_sha256(release_key, b"", &[b"counterseal/release", release_id.as_bytes()]))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the `released` receipt says of it. AES-GCM does not commit to its key; this does.
    pub fn hash(&self) -> Sha256 {
        sha256(&*self.0)
    }
}

impl std::fmt::Debug for Keying {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keying(…)")
    }
}

/// The content-encryption key and base nonce of one body (RFC 8188 §2.2, §2.3).
struct BodyKey {
    key: LessSafeKey,
    nonce: [u8; 12],
}

impl BodyKey {
    fn derive(ikm: &[u8], salt: &[u8; 16]) -> Self {
        let mut prk = hmac_sha256(salt, ikm);
        let mut cek = expand(&prk, b"Content-Encoding: aes128gcm\0");
        let nonce = expand(&prk, b"Content-Encoding: nonce\0");
        prk.zeroize();
        let key = UnboundKey::new(&AES_128_GCM, &cek[..16]).expect("an AES-128 key has 16 bytes");
        cek.zeroize();
        let mut base = [0; 12];
        base.copy_from_slice(&nonce[..12]);
        Self { key: LessSafeKey::new(key), nonce: base }
    }

    fn nonce(&self, record: u64) -> Nonce {
        let mut nonce = self.nonce;
        for (byte, counter) in nonce[4..].iter_mut().zip(record.to_be_bytes()) {
            *byte ^= counter;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// HKDF-Expand to one block (RFC 5869 §2.3).
fn expand(prk: &[u8; 32], info: &[u8]) -> [u8; 32] {
    let mut block = info.to_vec();
    block.push(1);
    hmac_sha256(prk, &block)
}

/// Seals one body, record by record.
pub struct Sealer {
    body: BodyKey,
    header: Vec<u8>,
    next: u64,
    over: bool,
}

impl Sealer {
    /// A body under `keying` with a salt that no other body of it has. `keyid` is a hint of at most 255 bytes.
    pub fn new(keying: &Keying, salt: [u8; 16], keyid: &str) -> Self {
        let keyid = &keyid.as_bytes()[..keyid.len().min(255)];
        let mut header = Vec::with_capacity(FIXED_HEADER + keyid.len());
        header.extend_from_slice(&salt);
        header.extend_from_slice(&RECORD_SIZE.to_be_bytes());
        header.push(keyid.len() as u8);
        header.extend_from_slice(keyid);
        Self { body: BodyKey::derive(keying.bytes(), &salt), header, next: 0, over: false }
    }

    /// The bytes before the first record.
    pub fn header(&self) -> Vec<u8> {
        self.header.clone()
    }

    /// Seals a record in place: plaintext in, coded record out. All but the last are full.
    pub fn seal_record(&mut self, record: &mut Vec<u8>, last: bool) -> Result<(), EceError> {
        if self.over {
            return Err(EceError::Trailing);
        }
        if record.len() > RECORD_PLAIN || (!last && record.len() < RECORD_PLAIN) {
            return Err(EceError::Length(record.len()));
        }
        if self.next == MAX_RECORDS {
            return Err(EceError::TooLong);
        }
        record.push(if last { 2 } else { 1 });
        self.body
            .key
            .seal_in_place_append_tag(self.body.nonce(self.next), Aad::empty(), record)
            .map_err(|_| EceError::Length(record.len()))?;
        self.next += 1;
        self.over = last;
        Ok(())
    }
}

/// Opens one body, however its bytes are cut.
pub struct Opener {
    keying: Keying,
    body: Option<BodyKey>,
    buffer: Vec<u8>,
    next: u64,
    over: bool,
}

impl Opener {
    /// For a body under `keying`.
    pub fn new(keying: &Keying) -> Self {
        Self { keying: keying.clone(), body: None, buffer: Vec::new(), next: 0, over: false }
    }

    /// Takes coded bytes, appends plaintext to `out`. Nothing of a record is given out before it was authenticated.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), EceError> {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        if self.body.is_none() {
            let Some(length) = self.read_header()? else { return Ok(()) };
            at = length;
        }
        // a full record is opened once something follows it or at the end: its delimiter says which it is
        while self.buffer.len() - at >= RECORD_SIZE as usize {
            let end = at + RECORD_SIZE as usize;
            self.open_record(at, end, out)?;
            at = end;
        }
        if self.over && at < self.buffer.len() {
            return Err(EceError::Trailing);
        }
        self.buffer.drain(..at);
        Ok(())
    }

    /// Ends the body: the final record must have come, and nothing after it. Gives out what a short final record
    /// held.
    pub fn finish_into(mut self, out: &mut Vec<u8>) -> Result<u64, EceError> {
        if self.body.is_none() {
            return Err(EceError::Header);
        }
        if !self.over {
            let end = self.buffer.len();
            if end == 0 {
                return Err(EceError::Truncated(self.next));
            }
            self.open_record(0, end, out)?;
            if !self.over {
                return Err(EceError::Truncated(self.next));
            }
        }
        Ok(self.next)
    }

    /// Ends a kept prefix: whole records only, none of them the final one.
    pub fn finish_prefix(self) -> Result<u64, EceError> {
        match (self.body, self.over, self.buffer.is_empty()) {
            (None, ..) => Err(EceError::Header),
            (_, true, _) => Err(EceError::Trailing),
            (_, false, false) => Err(EceError::Truncated(self.next)),
            (_, false, true) => Ok(self.next),
        }
    }

    fn read_header(&mut self) -> Result<Option<usize>, EceError> {
        if self.buffer.len() < FIXED_HEADER {
            return Ok(None);
        }
        let mut salt = [0; 16];
        salt.copy_from_slice(&self.buffer[..16]);
        let mut rs = [0; 4];
        rs.copy_from_slice(&self.buffer[16..20]);
        let rs = u32::from_be_bytes(rs);
        if rs != RECORD_SIZE {
            return Err(EceError::RecordSize(rs));
        }
        let length = FIXED_HEADER + usize::from(self.buffer[20]);
        if self.buffer.len() < length {
            return Ok(None);
        }
        self.body = Some(BodyKey::derive(self.keying.bytes(), &salt));
        Ok(Some(length))
    }

    fn open_record(&mut self, from: usize, to: usize, out: &mut Vec<u8>) -> Result<(), EceError> {
        let index = self.next;
        let Some(body) = &self.body else { return Err(EceError::Header) };
        if self.over {
            return Err(EceError::Trailing);
        }
        if index == MAX_RECORDS {
            return Err(EceError::TooLong);
        }
        if to - from <= TAG {
            return Err(EceError::Truncated(index));
        }
        let record = &mut self.buffer[from..to];
        let plain =
            body.key.open_in_place(body.nonce(index), Aad::empty(), record).map_err(|_| EceError::Record(index))?;
        // RFC 8188 §2: padding of zeros after the delimiter; we write none and take none
        match plain.split_last() {
            Some((2, data)) => {
                out.extend_from_slice(data);
                self.over = true;
            }
            Some((1, data)) if data.len() == RECORD_PLAIN => out.extend_from_slice(data),
            _ => return Err(EceError::Delimiter(index)),
        }
        self.next += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::{b64, unb64};

    fn seal(plain: &[u8], salt: u8) -> Vec<u8> {
        let mut sealer = Sealer::new(&Keying::from_bytes([9; 32]), [salt; 16], "hint");
        let mut out = sealer.header();
        let mut chunks: Vec<Vec<u8>> = plain.chunks(RECORD_PLAIN).map(<[u8]>::to_vec).collect();
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        let last = chunks.len() - 1;
        for (index, mut chunk) in chunks.into_iter().enumerate() {
            sealer.seal_record(&mut chunk, index == last).unwrap();
            out.extend(chunk);
        }
        out
    }

    fn open(coded: &[u8], step: usize) -> Result<Vec<u8>, EceError> {
        let mut opener = Opener::new(&Keying::from_bytes([9; 32]));
        let mut out = Vec::new();
        for chunk in coded.chunks(step.max(1)) {
            opener.push(chunk, &mut out)?;
        }
        opener.finish_into(&mut out)?;
        Ok(out)
    }

    fn data(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i % 251) as u8).collect()
    }

    const HEADER: usize = FIXED_HEADER + 4;

    #[test]
    fn what_was_sealed_opens_at_every_length_that_matters() {
        for length in [0, 1, RECORD_PLAIN - 1, RECORD_PLAIN, RECORD_PLAIN + 1, 3 * RECORD_PLAIN] {
            assert_eq!(open(&seal(&data(length), 1), 70_001).unwrap(), data(length), "{length}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_cut_of_the_bytes_opens_the_same(length in 0..3 * RECORD_PLAIN, step in 1_usize..200_000) {
            prop_assert_eq!(open(&seal(&data(length), 1), step).unwrap(), data(length));
        }
    }

    #[test]
    fn a_body_that_is_cut_off_is_refused() {
        let coded = seal(&data(2 * RECORD_PLAIN + 10), 1);
        assert_eq!(open(&coded[..10], 7), Err(EceError::Header));
        assert_eq!(open(&coded[..HEADER], 999), Err(EceError::Truncated(0)));
        assert_eq!(open(&coded[..HEADER + 65_536], 999), Err(EceError::Truncated(1)));
        assert_eq!(open(&coded[..HEADER + 2 * 65_536], 999), Err(EceError::Truncated(2)));
        assert!(open(&coded[..coded.len() - 1], 999).is_err());
    }

    #[test]
    fn records_that_were_moved_or_added_are_refused() {
        let coded = seal(&data(2 * RECORD_PLAIN + 10), 1);
        let mut swapped = coded[..HEADER].to_vec();
        swapped.extend(&coded[HEADER + 65_536..HEADER + 2 * 65_536]);
        swapped.extend(&coded[HEADER..HEADER + 65_536]);
        swapped.extend(&coded[HEADER + 2 * 65_536..]);
        assert_eq!(open(&swapped, 999), Err(EceError::Record(0)));

        let other = seal(&data(2 * RECORD_PLAIN + 10), 2);
        let mut spliced = coded[..HEADER + 65_536].to_vec();
        spliced.extend(&other[HEADER + 65_536..]);
        assert_eq!(open(&spliced, 999), Err(EceError::Record(1)));

        let full = seal(&data(RECORD_PLAIN), 1);
        let mut longer = full.clone();
        longer.push(0);
        assert_eq!(open(&longer, 999), Err(EceError::Trailing));
        longer.extend(vec![0; 70_000]);
        assert_eq!(open(&longer, 200_000), Err(EceError::Trailing));
    }

    #[test]
    fn other_record_sizes_are_refused_before_anything_is_read() {
        for rs in [0_u32, 17, 18, 4096, 65_535, 65_537, u32::MAX] {
            let mut coded = seal(b"x", 1);
            coded[16..20].copy_from_slice(&rs.to_be_bytes());
            assert_eq!(open(&coded, 999), Err(EceError::RecordSize(rs)));
        }
    }

    #[test]
    fn a_prefix_is_whole_records_and_not_the_end() {
        let coded = seal(&data(2 * RECORD_PLAIN + 10), 1);
        let prefix = |to: usize| {
            let mut opener = Opener::new(&Keying::from_bytes([9; 32]));
            opener.push(&coded[..to], &mut Vec::new())?;
            opener.finish_prefix()
        };
        assert_eq!(prefix(HEADER + 65_536), Ok(1));
        assert!(prefix(HEADER + 65_537).is_err());
        assert!(prefix(HEADER - 1).is_err());
    }

    #[test]
    fn nothing_is_sealed_after_the_final_record() {
        let mut sealer = Sealer::new(&Keying::from_bytes([9; 32]), [0; 16], "");
        sealer.seal_record(&mut vec![1], true).unwrap();
        assert_eq!(sealer.seal_record(&mut vec![1], true), Err(EceError::Trailing));
        let mut sealer = Sealer::new(&Keying::from_bytes([9; 32]), [0; 16], "");
        assert_eq!(sealer.seal_record(&mut vec![1], false), Err(EceError::Length(1)));
    }

    #[test]
    fn key_and_nonce_are_rfc_8188_section_3_1() {
        // §3.1: rs 4096, one record, "I am the walrus"
        let body = unb64("I1BsxtFttlv3u_Oo94xnmwAAEAAA-NAVub2qFgBEuQKRapoZu-IxkIva3MEB1PD-ly8Thjg").unwrap();
        let ikm = unb64("yqdlZ-tYemfogSmv7Ws5PQ").unwrap();
        let key = BodyKey::derive(&ikm, &body[..16].try_into().unwrap());
        let mut record = body[21..].to_vec();
        let plain = key.key.open_in_place(key.nonce(0), Aad::empty(), &mut record).unwrap();
        assert_eq!(plain, b"I am the walrus\x02");
        assert_eq!(b64(&body[..16]), "I1BsxtFttlv3u_Oo94xnmw");
    }
}
