//! Compact JWS with Ed25519 (RFC 7515, RFC 8037): how every signed object leaves the house.
//!
//! The header is exactly `{alg, typ, kid}`; the payload is its own canonical JSON (RFC 8785); `kid` begins with the
//! signer's DID. `alg` is written `EdDSA`; `Ed25519` (RFC 9864) is read too. Anything else is refused.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, de::Error as _};

use crate::{
    crypto::{CanonicalError, SigningKey, VerifyingKey, b64, canonical_json, sha256, unb64},
    id::{Did, Sha256},
};

/// The longest JWS that is taken, in bytes.
pub const MAX_JWS: usize = 256 * 1024;

/// Why a JWS was not taken or made.
#[derive(Debug, thiserror::Error)]
pub enum JwsError {
    /// Not three base64url parts, or too long.
    #[error("not a compact JWS: {0}")]
    Syntax(&'static str),
    /// A header that is not exactly `{alg, typ, kid}`.
    #[error("the header is not exactly {{alg, typ, kid}}: {0}")]
    Header(String),
    /// An algorithm that nobody told us to accept.
    #[error("the algorithm `{0}` is not accepted")]
    Algorithm(String),
    /// Another kind of object than expected.
    #[error("a `{found}` where a `{expected}` was expected")]
    Type {
        /// Expected `typ`.
        expected: &'static str,
        /// Found `typ`.
        found: String,
    },
    /// `kid` is malformed.
    #[error("`{0}` is not a key id (<did>#<role>-<16 hex digits>)")]
    KeyId(String),
    /// The key belongs to another participant than who must sign this.
    #[error("signed by `{found}`, but `{expected}` has to sign this")]
    Signer {
        /// Who must sign.
        expected: String,
        /// Whose key it is.
        found: Did,
    },
    /// A key for other things.
    #[error("a {found} key signed this; a {expected} key has to")]
    Role {
        /// The role that signs this kind.
        expected: &'static str,
        /// The key's role.
        found: &'static str,
    },
    /// We know no such key of theirs.
    #[error("the key `{0}` is not known")]
    UnknownKey(Kid),
    /// The signature does not match.
    #[error("the signature does not match")]
    Signature,
    /// The payload is not canonical JSON, or not of this kind.
    #[error("the payload is not what it should be: {0}")]
    Payload(String),
    /// What should be signed has no canonical form.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
}

impl JwsError {
    /// Not a compact JWS at all.
    pub const fn syntax() -> Self {
        Self::Syntax("not text")
    }
}

/// The kinds of signed objects; each has its own `typ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typ {
    /// A participant's statement of its keys.
    Statement,
    /// An offer; by the provider.
    Offer,
    /// An agreement; by each party.
    Agreement,
    /// The state of an agreement; by the provider.
    Status,
    /// A usage receipt; by whoever did it.
    Receipt,
    /// Sealed bytes received; by the consumer.
    Acknowledgement,
    /// The list of an export's files; by the exporter.
    Export,
    /// The list of a backup's files; by whose it is.
    Backup,
    /// A transfer token (JWT, RFC 7519); by the provider's token key.
    Token,
}

impl Typ {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Statement,
        Self::Offer,
        Self::Agreement,
        Self::Status,
        Self::Receipt,
        Self::Acknowledgement,
        Self::Export,
        Self::Backup,
        Self::Token,
    ];

    /// As written in the header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Statement => "counterseal-statement+jws",
            Self::Offer => "counterseal-offer+jws",
            Self::Agreement => "counterseal-agreement+jws",
            Self::Status => "counterseal-status+jws",
            Self::Receipt => "counterseal-receipt+jws",
            Self::Acknowledgement => "counterseal-acknowledgement+jws",
            Self::Export => "counterseal-export+jws",
            Self::Backup => "counterseal-backup+jws",
            Self::Token => "JWT",
        }
    }

    const fn role(self) -> KeyRole {
        match self {
            Self::Token => KeyRole::Token,
            _ => KeyRole::Signing,
        }
    }
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyRole {
    /// Signed objects.
    Signing,
    /// Transfer tokens.
    Token,
    /// Log checkpoints.
    Log,
    /// Cosignatures of others' checkpoints.
    Cosigner,
    /// Sealed offers.
    Sealing,
}

impl KeyRole {
    /// As written in a `kid`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Token => "token",
            Self::Log => "log",
            Self::Cosigner => "cosigner",
            Self::Sealing => "sealing",
        }
    }
}

/// A key id: `<did>#<role>-<first 16 hex digits of the public key's SHA-256>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kid {
    did: Did,
    role: KeyRole,
    print: String,
}

impl Kid {
    /// The id of this key.
    pub fn of(did: &Did, role: KeyRole, key: &VerifyingKey) -> Self {
        Self { did: did.clone(), role, print: sha256(key.bytes()).to_string()[..16].to_owned() }
    }

    /// Whose key it is.
    pub const fn did(&self) -> &Did {
        &self.did
    }

    /// What it is for.
    pub const fn role(&self) -> KeyRole {
        self.role
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}-{}", self.did, self.role.as_str(), self.print)
    }
}

impl FromStr for Kid {
    type Err = JwsError;
    fn from_str(text: &str) -> Result<Self, JwsError> {
        let wrong = || JwsError::KeyId(text.chars().take(80).collect());
        let (did, fragment) = text.split_once('#').ok_or_else(wrong)?;
        let (role, print) = fragment.split_once('-').ok_or_else(wrong)?;
        let role = [KeyRole::Signing, KeyRole::Token, KeyRole::Log, KeyRole::Cosigner, KeyRole::Sealing]
            .into_iter()
            .find(|known| known.as_str() == role)
            .ok_or_else(wrong)?;
        if print.len() != 16 || !print.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong());
        }
        Ok(Self { did: Did::parse(did).map_err(|_| wrong())?, role, print: print.to_owned() })
    }
}

/// A compact JWS, as text: bounded and in three parts, otherwise unverified.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Jws(String);

impl Jws {
    /// Takes the text if it can be one.
    pub fn parse(text: impl Into<String>) -> Result<Self, JwsError> {
        let text = text.into();
        if text.len() > MAX_JWS {
            return Err(JwsError::Syntax("longer than 256 KiB"));
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(JwsError::Syntax("a character that is not base64url"));
        }
        if text.split('.').count() != 3 || text.split('.').any(str::is_empty) {
            return Err(JwsError::Syntax("not three parts"));
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the text: what refers to a signed object refers to this.
    pub fn sha256(&self) -> Sha256 {
        sha256(self.0.as_bytes())
    }
}

impl fmt::Display for Jws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Jws {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Jws {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A payload whose signature, kind and signer were checked.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    payload: T,
    kid: Kid,
    jws: Jws,
}

impl<T> Verified<T> {
    /// What was signed.
    pub const fn payload(&self) -> &T {
        &self.payload
    }

    /// What was signed, alone.
    pub fn into_payload(self) -> T {
        self.payload
    }

    /// The key that signed.
    pub const fn kid(&self) -> &Kid {
        &self.kid
    }

    /// The signed text.
    pub const fn jws(&self) -> &Jws {
        &self.jws
    }

    /// The signed text's hash.
    pub fn sha256(&self) -> Sha256 {
        self.jws.sha256()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

/// Signs the canonical JSON of `payload`.
pub fn sign<T: Serialize + ?Sized>(typ: Typ, kid: &Kid, key: &SigningKey, payload: &T) -> Result<Jws, JwsError> {
    let header = Header { alg: "EdDSA".into(), kid: kid.to_string(), typ: typ.as_str().into() };
    let mut text = b64(&canonical_json(&header)?);
    text.push('.');
    text.push_str(&b64(&canonical_json(payload)?));
    let signature = key.sign_raw(text.as_bytes());
    text.push('.');
    text.push_str(&b64(&signature));
    if text.len() > MAX_JWS {
        return Err(JwsError::Syntax("longer than 256 KiB"));
    }
    Ok(Jws(text))
}

/// What the header says, unverified: kind and key.
pub fn peek(jws: &Jws) -> Result<(Typ, Kid), JwsError> {
    let (header, ..) = parts(jws)?;
    let typ = Typ::ALL
        .into_iter()
        .find(|typ| typ.as_str() == header.typ)
        .ok_or_else(|| JwsError::Type { expected: "counterseal object", found: header.typ.clone() })?;
    Ok((typ, header.kid.parse()?))
}

/// Checks that this is a `typ`, signed by `signer` with a key that `key` knows, and reads it.
///
/// # Errors
/// One variant for each thing that can be wrong; nothing of the payload is given out before the signature matched.
pub fn verify<T: DeserializeOwned>(
    jws: &Jws,
    typ: Typ,
    signer: &impl AsRef<str>,
    key: impl FnOnce(&Kid) -> Option<VerifyingKey>,
) -> Result<Verified<T>, JwsError> {
    let (header, payload, signature) = parts(jws)?;
    if header.typ != typ.as_str() {
        return Err(JwsError::Type { expected: typ.as_str(), found: header.typ.chars().take(80).collect() });
    }
    let kid: Kid = header.kid.parse()?;
    if kid.did().as_str() != signer.as_ref() {
        return Err(JwsError::Signer { expected: signer.as_ref().to_owned(), found: kid.did().clone() });
    }
    if kid.role() != typ.role() {
        return Err(JwsError::Role { expected: typ.role().as_str(), found: kid.role().as_str() });
    }
    let key = key(&kid).ok_or_else(|| JwsError::UnknownKey(kid.clone()))?;
    if Kid::of(kid.did(), kid.role(), &key) != kid {
        return Err(JwsError::UnknownKey(kid));
    }
    let signed = jws.0.rsplit_once('.').map_or("", |(signed, _)| signed);
    if !key.verify_raw(signed.as_bytes(), &signature) {
        return Err(JwsError::Signature);
    }
    let value: serde_json::Value =
        serde_json::from_slice(&payload).map_err(|error| JwsError::Payload(error.to_string()))?;
    if canonical_json(&value)? != payload {
        return Err(JwsError::Payload("not canonical JSON (RFC 8785)".into()));
    }
    let payload = serde_json::from_value(value).map_err(|error| JwsError::Payload(error.to_string()))?;
    Ok(Verified { payload, kid, jws: jws.clone() })
}

fn parts(jws: &Jws) -> Result<(Header, Vec<u8>, Vec<u8>), JwsError> {
    let mut texts = jws.0.split('.');
    let mut next =
        || unb64(texts.next().unwrap_or_default()).map_err(|_| JwsError::Syntax("a part that is not strict base64url"));
    let (header, payload, signature) = (next()?, next()?, next()?);
    let header: Header = serde_json::from_slice(&header).map_err(|error| JwsError::Header(error.to_string()))?;
    if header.alg != "EdDSA" && header.alg != "Ed25519" {
        return Err(JwsError::Algorithm(header.alg.chars().take(40).collect()));
    }
    Ok((header, payload, signature))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::crypto::hmac_sha256;

    fn did() -> Did {
        Did::parse("did:web:hospital.invalid").unwrap()
    }

    fn key() -> SigningKey {
        SigningKey::from_seed([1; 32])
    }

    fn kid_for(typ: Typ) -> Kid {
        Kid::of(&did(), typ.role(), &key().public())
    }

    fn read(jws: &Jws, typ: Typ) -> Result<Verified<Value>, JwsError> {
        verify(jws, typ, &did(), |_| Some(key().public()))
    }

    /// A JWS with any header and payload bytes, signed properly.
    fn forge(header: &str, payload: &[u8]) -> Jws {
        let signed = format!("{}.{}", b64(header.as_bytes()), b64(payload));
        let signature = b64(&key().sign_raw(signed.as_bytes()));
        Jws::parse(format!("{signed}.{signature}")).unwrap()
    }

    #[test]
    fn each_kind_is_taken_as_itself_and_as_nothing_else() {
        for made in Typ::ALL {
            let jws = sign(made, &kid_for(made), &key(), &json!({"v": 1})).unwrap();
            for expected in Typ::ALL {
                assert_eq!(read(&jws, expected).is_ok(), made == expected, "{made:?} as {expected:?}");
            }
        }
    }

    #[test]
    fn a_changed_byte_is_found_anywhere() {
        let jws = sign(Typ::Offer, &kid_for(Typ::Offer), &key(), &json!({"v": 1, "id": "x"})).unwrap();
        for index in 0..jws.as_str().len() {
            let mut bytes = jws.as_str().as_bytes().to_vec();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = Jws::parse(String::from_utf8(bytes).unwrap());
            assert!(changed.is_err() || read(&changed.unwrap(), Typ::Offer).is_err(), "byte {index}");
        }
    }

    #[test]
    fn other_headers_are_refused_even_if_signed() {
        let kid = kid_for(Typ::Offer);
        let fine = format!(r#"{{"alg":"Ed25519","kid":"{kid}","typ":"counterseal-offer+jws"}}"#);
        assert!(read(&forge(&fine, b"{}"), Typ::Offer).is_ok());
        for extra in [
            r#""zip":"DEF""#,
            r#""crit":["b64"]"#,
            r#""jwk":{}"#,
            r#""jku":"https://x""#,
            r#""x5u":"https://x""#,
            r#""b64":false"#,
        ] {
            let header = fine.replace("{\"alg\"", &format!("{{{extra},\"alg\""));
            assert!(matches!(read(&forge(&header, b"{}"), Typ::Offer), Err(JwsError::Header(_))), "{extra}");
        }
        for alg in ["none", "HS256", "ES256", "eddsa"] {
            let header = fine.replace("Ed25519", alg);
            assert!(matches!(read(&forge(&header, b"{}"), Typ::Offer), Err(JwsError::Algorithm(_))), "{alg}");
        }
        let header = fine.replace("Ed25519", "HS256");
        let signed = format!("{}.{}", b64(header.as_bytes()), b64(b"{}"));
        let mac = b64(&hmac_sha256(key().public().bytes(), signed.as_bytes()));
        assert!(read(&Jws::parse(format!("{signed}.{mac}")).unwrap(), Typ::Offer).is_err());
    }

    #[test]
    fn only_canonical_payloads_are_taken() {
        let header = format!(r#"{{"alg":"EdDSA","kid":"{}","typ":"counterseal-offer+jws"}}"#, kid_for(Typ::Offer));
        for payload in [r#"{"b":1,"a":2}"#, r#"{ "a":2}"#, r#"{"a":1.5}"#, r#"{"a":9007199254740992}"#, "x"] {
            assert!(read(&forge(&header, payload.as_bytes()), Typ::Offer).is_err(), "{payload}");
        }
        assert!(read(&forge(&header, br#"{"a":2,"b":1}"#), Typ::Offer).is_ok());
    }

    #[test]
    fn the_party_that_must_sign_has_to() {
        let other = Did::parse("did:web:outsider.invalid").unwrap();
        let jws = sign(Typ::Offer, &Kid::of(&other, KeyRole::Signing, &key().public()), &key(), &json!({})).unwrap();
        assert!(matches!(read(&jws, Typ::Offer), Err(JwsError::Signer { .. })));
        let jws = sign(Typ::Offer, &kid_for(Typ::Token), &key(), &json!({})).unwrap();
        assert!(matches!(read(&jws, Typ::Offer), Err(JwsError::Role { .. })));
        let stranger = SigningKey::from_seed([2; 32]);
        let jws = sign(Typ::Offer, &kid_for(Typ::Offer), &stranger, &json!({})).unwrap();
        assert!(matches!(read(&jws, Typ::Offer), Err(JwsError::Signature)));
    }

    #[test]
    fn rfc_8037_appendix_a_4() {
        let seed = unb64("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let key = SigningKey::from_seed(seed.try_into().unwrap());
        assert_eq!(b64(key.public().bytes()), "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        let signed = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert_eq!(b64(&key.sign_raw(signed.as_bytes())), signature);
    }
}
