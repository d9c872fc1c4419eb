//! Compact JWE for one recipient (RFC 7516): `ECDH-ES+A256KW` over X25519 (RFC 7518 §4.6, RFC 8037), `A256GCM`.

use aes_kw::KekAes256;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto::{CanonicalError, Hasher, Random, RandomExt, SealingKey, SealingPublic, b64, canonical_json, unb64};

/// The longest JWE that is taken, in bytes.
pub const MAX_JWE: usize = 512 * 1024;

const ALG: &str = "ECDH-ES+A256KW";
const ENC: &str = "A256GCM";

/// Why something was not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum JweError {
    /// Not five base64url parts of the right lengths.
    #[error("not a compact JWE of ours: {0}")]
    Syntax(&'static str),
    /// A header that is not exactly `{alg, cty, enc, epk, kid}`, or other values than ours.
    #[error("the header is not accepted: {0}")]
    Header(String),
    /// Wrong key, or altered.
    #[error("it does not open with our key")]
    Unopened,
    /// The header has no canonical form.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    cty: String,
    enc: String,
    epk: Epk,
    kid: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Epk {
    crv: String,
    kty: String,
    x: SealingPublic,
}

/// Seals `plaintext` for the holder of `to`. `kid` says which key that is, `cty` what is inside.
pub fn seal(
    to: &SealingPublic,
    kid: &str,
    cty: &str,
    plaintext: &[u8],
    random: &dyn Random,
) -> Result<String, JweError> {
    let ephemeral = SealingKey::generate(random);
    let header = Header {
        alg: ALG.into(),
        cty: cty.into(),
        enc: ENC.into(),
        epk: Epk { crv: "X25519".into(), kty: "OKP".into(), x: ephemeral.public() },
        kid: kid.into(),
    };
    let protected = b64(&canonical_json(&header)?);
    let shared = ephemeral.agree(to).ok_or(JweError::Unopened)?;
    let cek = Zeroizing::new(random.array::<32>());
    let mut wrapped = [0; 40];
    KekAes256::from(concat_kdf(&shared)).wrap(&*cek, &mut wrapped).map_err(|_| JweError::Syntax("key wrap"))?;
    let iv = random.array::<12>();
    let mut body = plaintext.to_vec();
    let tag = content_key(&cek)?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(iv), Aad::from(protected.as_bytes()), &mut body)
        .map_err(|_| JweError::Syntax("too long"))?;
    Ok(format!("{protected}.{}.{}.{}.{}", b64(&wrapped), b64(&iv), b64(&body), b64(tag.as_ref())))
}

/// Opens what was sealed for `key` as `cty`. The plaintext is authentic to whoever knew our public key: to anybody.
pub fn open(key: &SealingKey, cty: &str, jwe: &str) -> Result<Vec<u8>, JweError> {
    if jwe.len() > MAX_JWE {
        return Err(JweError::Syntax("longer than 512 KiB"));
    }
    let parts: Vec<&str> = jwe.split('.').collect();
    let &[protected, wrapped, iv, body, tag] = parts.as_slice() else {
        return Err(JweError::Syntax("not five parts"));
    };
    let decode = |part: &str| unb64(part).map_err(|_| JweError::Syntax("a part that is not strict base64url"));
    let header: Header =
        serde_json::from_slice(&decode(protected)?).map_err(|error| JweError::Header(error.to_string()))?;
    for (name, found, expected) in [
        ("alg", header.alg.as_str(), ALG),
        ("enc", header.enc.as_str(), ENC),
        ("cty", header.cty.as_str(), cty),
        ("crv", header.epk.crv.as_str(), "X25519"),
        ("kty", header.epk.kty.as_str(), "OKP"),
    ] {
        if found != expected {
            let found: String = found.chars().take(40).collect();
            return Err(JweError::Header(format!("{name} is `{found}`, not `{expected}`")));
        }
    }
    let wrapped = <[u8; 40]>::try_from(decode(wrapped)?).map_err(|_| JweError::Syntax("wrapped key"))?;
    let iv = <[u8; 12]>::try_from(decode(iv)?).map_err(|_| JweError::Syntax("iv"))?;
    let tag = decode(tag)?;
    if tag.len() != 16 {
        return Err(JweError::Syntax("tag"));
    }
    let shared = key.agree(&header.epk.x).ok_or(JweError::Unopened)?;
    let mut cek = Zeroizing::new([0; 32]);
    KekAes256::from(concat_kdf(&shared)).unwrap(&wrapped, &mut *cek).map_err(|_| JweError::Unopened)?;
    let mut text = decode(body)?;
    text.extend_from_slice(&tag);
    let length = content_key(&cek)?
        .open_in_place(Nonce::assume_unique_for_key(iv), Aad::from(protected.as_bytes()), &mut text)
        .map_err(|_| JweError::Unopened)?
        .len();
    text.truncate(length);
    Ok(text)
}

fn content_key(cek: &[u8; 32]) -> Result<LessSafeKey, JweError> {
    UnboundKey::new(&AES_256_GCM, cek).map(LessSafeKey::new).map_err(|_| JweError::Unopened)
}

/// Concat KDF (NIST SP 800-56A §5.8.1 as in RFC 7518 §4.6.2), one round of SHA-256: 256 bits for `ECDH-ES+A256KW`,
/// empty `apu` and `apv`.
fn concat_kdf(shared: &[u8; 32]) -> [u8; 32] {
    kdf(shared, ALG.as_bytes(), b"", b"", 256)
}

fn kdf(shared: &[u8], algorithm: &[u8], apu: &[u8], apv: &[u8], bits: u32) -> [u8; 32] {
    let mut hasher = Hasher::new();
    hasher.update(&1_u32.to_be_bytes());
    hasher.update(shared);
    for field in [algorithm, apu, apv] {
        hasher.update(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        hasher.update(field);
    }
    hasher.update(&bits.to_be_bytes());
    hasher.finish().0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SystemRandom;

    #[test]
    fn only_the_recipient_opens_it() {
        let (key, other) = (SealingKey::generate(&SystemRandom), SealingKey::generate(&SystemRandom));
        let sealed = seal(&key.public(), "k", "offer", b"secret", &SystemRandom).unwrap();
        assert_eq!(open(&key, "offer", &sealed).unwrap(), b"secret");
        assert!(matches!(open(&other, "offer", &sealed), Err(JweError::Unopened)));
        assert!(matches!(open(&key, "key", &sealed), Err(JweError::Header(_))));
        assert!(
            open(&key, "offer", &seal(&key.public(), "k", "offer", b"", &SystemRandom).unwrap()).unwrap().is_empty()
        );
    }

    #[test]
    fn a_changed_byte_is_found_anywhere() {
        let key = SealingKey::generate(&SystemRandom);
        let sealed = seal(&key.public(), "k", "offer", b"some offer", &SystemRandom).unwrap();
        for index in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            assert!(open(&key, "offer", std::str::from_utf8(&bytes).unwrap()).is_err(), "byte {index}");
        }
    }

    #[test]
    fn compression_and_other_headers_are_refused() {
        let key = SealingKey::generate(&SystemRandom);
        let sealed = seal(&key.public(), "k", "offer", b"x", &SystemRandom).unwrap();
        let (protected, rest) = sealed.split_once('.').unwrap();
        let header = String::from_utf8(unb64(protected).unwrap()).unwrap();
        let with_zip = b64(header.replace("{\"alg\"", "{\"zip\":\"DEF\",\"alg\"").as_bytes());
        assert!(matches!(open(&key, "offer", &format!("{with_zip}.{rest}")), Err(JweError::Header(_))));
        assert!(matches!(open(&key, "offer", "a.b"), Err(JweError::Syntax(_))));
    }

    #[test]
    fn concat_kdf_matches_rfc_7518_appendix_c() {
        let shared = [
            158, 86, 217, 29, 129, 113, 53, 211, 114, 131, 66, 131, 191, 132, 38, 156, 251, 49, 110, 163, 218, 128,
            106, 72, 246, 218, 167, 121, 140, 254, 144, 196,
        ];
        let derived = kdf(&shared, b"A128GCM", b"Alice", b"Bob", 128);
        assert_eq!(b64(&derived[..16]), "VqqN6vgjbSBcIijNcacQGg");
    }
}
