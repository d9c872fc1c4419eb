//! Transfer tokens: JWTs (RFC 7519) by the token key, bound to a peer and its certificate (RFC 8705).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    crypto::{
        VerifyingKey,
        jws::{self, Jws, JwsError, KeyRole, Kid, Typ},
    },
    error::Refusal,
    id::{Did, Pid, Sha256},
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
    pub sub: Did,
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

/// RFC 8705 §3.1, with the thumbprint in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// SHA-256 of the certificate.
    #[serde(rename = "x5t#S256")]
    pub thumbprint: Sha256,
}

/// Issues a token for `sub`, good for `ttl`.
pub fn issue(
    keys: &Keys,
    sub: &Did,
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

/// Checks that a bearer token is ours, this caller's, over this certificate, and not over. Whether it is the transfer's
/// current one is the caller's to compare.
pub fn check(
    bearer: &str,
    own: &VerifyingKey,
    caller: &Did,
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
    if claims.sub != *caller {
        return Err(Refusal::new("token-other-party", "the token was issued to another participant"));
    }
    if claims.cnf.is_some() && claims.cnf.as_ref().map(|cnf| &cnf.thumbprint) != thumbprint {
        return Err(Refusal::new("token-other-certificate", "the token is bound to another certificate"));
    }
    if now.seconds() >= claims.exp {
        return Err(Refusal::new("token-expired", "the token is over; start the transfer again"));
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SystemRandom;

    #[test]
    fn a_token_is_good_for_its_party_certificate_and_time_only() {
        let home = tempfile::tempdir().unwrap();
        let did = Did::parse("did:web:hospital.invalid").unwrap();
        let start = Timestamp::from_millis(1_764_000_000_000);
        let keys = Keys::create(home.path(), &did, &[], &SystemRandom, start).unwrap();
        let (peer, other) = (Did::parse("did:web:a.invalid").unwrap(), Did::parse("did:web:b.invalid").unwrap());
        let print = Sha256([7; 32]);
        let pid = Pid::parse("urn:uuid:1").unwrap();
        let token = issue(&keys, &peer, Some(print), &pid, "1", start, Duration::from_secs(60)).unwrap();
        let own = keys.token.public();
        let code = |bearer: &str, who: &Did, print: Option<&Sha256>, now: Timestamp| {
            check(bearer, &own, who, print, now).map(|claims| claims.jti).map_err(|refusal| refusal.code.to_string())
        };
        assert_eq!(code(token.as_str(), &peer, Some(&print), start), Ok("1".into()));
        let refused = |code: &str| Err(code.to_owned());
        assert_eq!(code(token.as_str(), &other, Some(&print), start), refused("token-other-party"));
        assert_eq!(code(token.as_str(), &peer, Some(&Sha256([8; 32])), start), refused("token-other-certificate"));
        assert_eq!(code(token.as_str(), &peer, None, start), refused("token-other-certificate"));
        let later = start.plus(Duration::from_secs(61));
        assert_eq!(code(token.as_str(), &peer, Some(&print), later), refused("token-expired"));
        assert_eq!(code("x.y.z", &peer, Some(&print), start), refused("token-foreign"));
        // signed by us, but not as a token
        let other_kind = jws::sign(Typ::Receipt, &keys.signing_kid(), &keys.signing, &serde_json::json!({})).unwrap();
        assert_eq!(code(other_kind.as_str(), &peer, Some(&print), start), refused("token-foreign"));
        let elsewhere = tempfile::tempdir().unwrap();
        let stranger = Keys::create(elsewhere.path(), &did, &[], &SystemRandom, start).unwrap();
        let forged = issue(&stranger, &peer, Some(print), &pid, "1", start, Duration::from_secs(60)).unwrap();
        assert_eq!(code(forged.as_str(), &peer, Some(&print), start), refused("token-foreign"));
    }
}
