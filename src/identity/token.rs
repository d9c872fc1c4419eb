//! Transfer tokens: JWTs (RFC 7519) by the token key, bound to a peer and its certificate (RFC 8705).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    crypto::{
        VerifyingKey,
        jws::{self, Jws, JwsError, KeyRole, Kid, Typ},
    },
    error::Refusal,
    id::{Did, ParticipantId, Pid, Sha256},
    identity::Keys,
    time::Timestamp,
};

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Who issued it: us.
    pub iss: Did,
    /// Who may use it.
    pub sub: ParticipantId,
    /// Which transfer it is for (our pid).
    pub transfer: Pid,
    /// This one; a transfer has one current.
    pub jti: String,
    /// Issued at, in seconds.
    pub iat: i64,
    /// Ends at, in seconds.
    pub exp: i64,
    /// The certificate it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
}

/// The certificate's thumbprint, as RFC 8705 §3.1 writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// SHA-256 of the certificate, base64url.
    #[serde(rename = "x5t#S256", with = "thumbprint")]
    pub thumbprint: Sha256,
}

mod thumbprint {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::{
        crypto::{b64, unb64},
        id::Sha256,
    };

    pub(super) fn serialize<S: Serializer>(hash: &Sha256, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&b64(hash.as_bytes()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sha256, D::Error> {
        let bytes = unb64(&String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        <[u8; 32]>::try_from(bytes).map(Sha256).map_err(|_| D::Error::custom("a thumbprint has 32 bytes"))
    }
}

/// Issues a token for `sub`, good for `ttl`.
pub fn issue(
    keys: &Keys,
    sub: &ParticipantId,
    thumbprint: Option<Sha256>,
    transfer: &Pid,
    jti: &str,
    now: Timestamp,
    ttl: Duration,
) -> Result<Jws, JwsError> {
    let claims = Claims {
        iss: keys.did().clone(),
        sub: sub.clone(),
        transfer: transfer.clone(),
        jti: jti.to_owned(),
        iat: now.seconds(),
        exp: now.plus(ttl).seconds(),
        cnf: thumbprint.map(|thumbprint| Confirmation { thumbprint }),
    };
    jws::sign(Typ::Token, &keys.token_kid(), &keys.token, &claims)
}

/// Checks that a bearer token is ours, this caller's, over this certificate (both ways: a token that is bound to none
/// isn't good over a connection with one), and not over. Whether it is the transfer's current one (`jti`) is the
/// caller's to compare.
///
/// # Errors
/// `token-foreign`, `token-other-party`, `token-other-certificate`, `token-expired`.
pub fn check(
    bearer: &str,
    own: &VerifyingKey,
    caller: &ParticipantId,
    thumbprint: Option<&Sha256>,
    now: Timestamp,
) -> Result<Claims, Refusal> {
    let foreign = || Refusal::new("token-foreign", "the token is not one that this connector issued");
    let jws = Jws::parse(bearer).map_err(|_| foreign())?;
    let (_, kid) = jws::peek(&jws).map_err(|_| foreign())?;
    if kid != Kid::of(kid.did(), KeyRole::Token, own) {
        return Err(foreign());
    }
    let claims =
        jws::verify::<Claims>(&jws, Typ::Token, kid.did(), |_| Some(*own)).map_err(|_| foreign())?.into_payload();
    if claims.iss != *kid.did() {
        return Err(foreign());
    }
    if claims.sub != *caller {
        return Err(Refusal::new("token-other-party", "the token was issued to another participant"));
    }
    if claims.cnf.as_ref().map(|cnf| &cnf.thumbprint) != thumbprint {
        return Err(Refusal::new("token-other-certificate", "the token is bound to another certificate"));
    }
    if now.seconds() >= claims.exp {
        return Err(Refusal::new("token-expired", "the token is over; start the transfer again"));
    }
    Ok(claims)
}

/// For whom a token is, if it is one of ours; whether it is still good, [`check`] says.
///
/// # Errors
/// `token-foreign`.
pub fn subject(bearer: &str, own: &VerifyingKey) -> Result<ParticipantId, Refusal> {
    let foreign = || Refusal::new("token-foreign", "the token is not one that this connector issued");
    let jws = Jws::parse(bearer).map_err(|_| foreign())?;
    let (_, kid) = jws::peek(&jws).map_err(|_| foreign())?;
    let claims = jws::verify::<Claims>(&jws, Typ::Token, kid.did(), |_| Some(*own)).map_err(|_| foreign())?;
    Ok(claims.into_payload().sub)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{SystemRandom, b64};

    #[test]
    fn a_token_is_good_for_its_party_certificate_and_time_only() {
        let home = tempfile::tempdir().unwrap();
        let did = Did::parse("did:web:hospital.invalid").unwrap();
        let start = Timestamp::from_millis(1_764_000_000_000);
        let keys = Keys::create(home.path(), &did, &[], &SystemRandom, start).unwrap();
        let id = |text: &str| ParticipantId::parse(text).unwrap();
        let (peer, other) = (id("did:web:a.invalid"), id("did:web:b.invalid"));
        let print = Sha256([7; 32]);
        let pid = Pid::parse("urn:uuid:1").unwrap();
        let token = issue(&keys, &peer, Some(print), &pid, "1", start, Duration::from_secs(60)).unwrap();
        let own = keys.token.public();
        let code = |bearer: &str, who: &ParticipantId, print: Option<&Sha256>, now: Timestamp| {
            check(bearer, &own, who, print, now).map(|claims| claims.jti).map_err(|refusal| refusal.code.to_string())
        };
        assert_eq!(code(token.as_str(), &peer, Some(&print), start), Ok("1".into()));
        let refused = |code: &str| Err(code.to_owned());
        assert_eq!(code(token.as_str(), &other, Some(&print), start), refused("token-other-party"));
        assert_eq!(code(token.as_str(), &peer, Some(&Sha256([8; 32])), start), refused("token-other-certificate"));
        assert_eq!(code(token.as_str(), &peer, None, start), refused("token-other-certificate"));
        let unbound = issue(&keys, &peer, None, &pid, "2", start, Duration::from_secs(60)).unwrap();
        assert_eq!(code(unbound.as_str(), &peer, None, start), Ok("2".into()));
        assert_eq!(code(unbound.as_str(), &peer, Some(&print), start), refused("token-other-certificate"));
        let later = start.plus(Duration::from_secs(61));
        assert_eq!(code(token.as_str(), &peer, Some(&print), later), refused("token-expired"));
        assert_eq!(code("x.y.z", &peer, Some(&print), start), refused("token-foreign"));
        assert_eq!(code("", &peer, Some(&print), start), refused("token-foreign"));
        let mut flipped = token.as_str().to_owned();
        flipped.pop();
        assert_eq!(code(&flipped, &peer, Some(&print), start), refused("token-foreign"));
        // signed by us, but not as a token
        let other_kind = jws::sign(Typ::Receipt, &keys.signing_kid(), &keys.signing, &serde_json::json!({})).unwrap();
        assert_eq!(code(other_kind.as_str(), &peer, Some(&print), start), refused("token-foreign"));
        let elsewhere = tempfile::tempdir().unwrap();
        let stranger = Keys::create(elsewhere.path(), &did, &[], &SystemRandom, start).unwrap();
        let forged = issue(&stranger, &peer, Some(print), &pid, "1", start, Duration::from_secs(60)).unwrap();
        assert_eq!(code(forged.as_str(), &peer, Some(&print), start), refused("token-foreign"));
    }
    #[test]
    fn a_token_of_another_kind_or_role_is_foreign() {
        let home = tempfile::tempdir().unwrap();
        let did = Did::parse("did:web:hospital.invalid").unwrap();
        let start = Timestamp::from_millis(1_764_000_000_000);
        let keys = Keys::create(home.path(), &did, &[], &SystemRandom, start).unwrap();
        let peer = ParticipantId::parse("did:web:a.invalid").unwrap();
        let pid = Pid::parse("urn:uuid:1").unwrap();
        let fine = issue(&keys, &peer, None, &pid, "1", start, Duration::from_secs(60)).unwrap();
        let claims = check(fine.as_str(), &keys.token.public(), &peer, None, start).unwrap();
        let refused = |bearer: &Jws| {
            check(bearer.as_str(), &keys.token.public(), &peer, None, start).unwrap_err().code.to_string()
        };
        // the right key over the right claims, but not as a token
        let by_hand = |typ: &str, kid: &Kid| {
            let header = format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"{typ}"}}"#);
            let body = String::from_utf8(crate::crypto::canonical_json(&claims).unwrap()).unwrap();
            let signed = format!("{}.{}", b64(header.as_bytes()), b64(body.as_bytes()));
            Jws::parse(format!("{signed}.{}", b64(&keys.token.sign_raw(signed.as_bytes())))).unwrap()
        };
        let own = keys.token_kid();
        assert!(check(by_hand("JWT", &own).as_str(), &keys.token.public(), &peer, None, start).is_ok());
        for typ in ["counterseal-status+jws", "jwt", "at+jwt"] {
            assert_eq!(refused(&by_hand(typ, &own)), "token-foreign", "{typ}");
        }
        let signing = Kid::of(&did, KeyRole::Signing, &keys.token.public());
        assert_eq!(refused(&by_hand("JWT", &signing)), "token-foreign");
        let other = Kid::of(&peer.did().unwrap(), KeyRole::Token, &keys.token.public());
        assert_eq!(refused(&by_hand("JWT", &other)), "token-foreign");
        // ours by key, another's by what it says
        let iss = Claims { iss: peer.did().unwrap(), ..claims.clone() };
        assert_eq!(refused(&jws::sign(Typ::Token, &keys.token_kid(), &keys.token, &iss).unwrap()), "token-foreign");
        let body = serde_json::to_value(&Claims { cnf: Some(Confirmation { thumbprint: Sha256([7; 32]) }), ..claims });
        assert_eq!(body.unwrap()["cnf"]["x5t#S256"], "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc");
    }
}
