//! The participant statement: which keys and endpoints are a DID's, signed by the key before.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    crypto::{
        SealingPublic, VerifyingKey, b64,
        jws::{self, Jws, JwsError, KeyRole, Kid, Typ, Verified},
        sha256,
    },
    id::{Did, Sha256},
    identity::Keys,
    time::Timestamp,
};

/// Most statements in a chain.
const MAX_CHAIN: usize = 256;
/// Crockford's alphabet: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Why a statement was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// The signature or form.
    #[error("the participant statement's signature is not good: {0}")]
    Signature(#[from] JwsError),
    /// About somebody else.
    #[error("the statement is about `{found}`, not about `{expected}`")]
    Did {
        /// Whose was expected.
        expected: Did,
        /// Whose it is.
        found: Did,
    },
    /// Not newer than what is known.
    #[error("the statement has number {found}; it must be greater than {known}, which is known already")]
    Seq {
        /// The newest known.
        known: u64,
        /// Found.
        found: u64,
    },
    /// An empty or too long chain, or a file that is none.
    #[error("not an invitation: {0}")]
    Invitation(String),
}

/// JWS payload, `typ` `counterseal-statement+jws`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement {
    /// Whose keys these are.
    pub did: Did,
    /// Counts from 1; a newer one has a higher number.
    pub seq: u64,
    /// The name that people see.
    pub name: String,
    /// Keys by what they are for.
    pub keys: PublicKeys,
    /// SHA-256 of the SubjectPublicKeyInfo of each TLS certificate in use.
    pub tls: Vec<Sha256>,
    /// Where the connector is.
    pub endpoints: Endpoints,
    /// From when.
    pub valid_from: Timestamp,
}

/// A participant's public keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PublicKeys {
    /// Verifies signed objects.
    pub signing: VerifyingKey,
    /// Seals offers for it.
    pub sealing: SealingPublic,
    /// Verifies its tokens (for itself).
    pub token: VerifyingKey,
    /// Verifies its checkpoints.
    pub log: VerifyingKey,
    /// Verifies its cosignatures.
    pub cosigner: VerifyingKey,
}

/// Where a connector is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoints {
    /// The connector's root; the protocol's base is below it, at `/2025-1`.
    pub dsp: String,
}

impl Statement {
    /// Our own statement.
    pub fn own(keys: &Keys, seq: u64, name: &str, endpoint: &str, now: Timestamp) -> Self {
        Self {
            did: keys.did().clone(),
            seq,
            name: name.to_owned(),
            keys: PublicKeys {
                signing: keys.signing.public(),
                sealing: keys.sealing.public(),
                token: keys.token.public(),
                log: keys.log.public(),
                cosigner: keys.cosigner.public(),
            },
            tls: vec![keys.certificate().spki],
            endpoints: Endpoints { dsp: endpoint.to_owned() },
            valid_from: now,
        }
    }

    /// The signing key's id.
    pub fn signing_kid(&self) -> Kid {
        Kid::of(&self.did, KeyRole::Signing, &self.keys.signing)
    }

    /// Whether two statements say the same but for number and time.
    pub fn says_the_same(&self, other: &Self) -> bool {
        (&self.did, &self.name, &self.keys, &self.tls, &self.endpoints)
            == (&other.did, &other.name, &other.keys, &other.tls, &other.endpoints)
    }
}

/// Checks a chain of statements from the first, signed by its own key, to the newest, each signed by the one before.
pub fn verify_chain(chain: &[Jws]) -> Result<Statement, StatementError> {
    let (first, rest) = chain.split_first().ok_or_else(|| StatementError::Invitation("no statement in it".into()))?;
    if chain.len() > MAX_CHAIN {
        return Err(StatementError::Invitation(format!("more than {MAX_CHAIN} statements in it")));
    }
    // who signs the first is what the first itself says: its DID and key are what people compare
    let (_, kid) = jws::peek(first)?;
    let claimed: Statement = {
        let part = first.as_str().split('.').nth(1).unwrap_or_default();
        let bytes = crate::crypto::unb64(part).map_err(|error| StatementError::Invitation(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| StatementError::Invitation(error.to_string()))?
    };
    let mut current = verify_by(first, kid.did(), &claimed.keys.signing)?.into_payload();
    if current.did != *kid.did() {
        return Err(StatementError::Did { expected: kid.did().clone(), found: current.did });
    }
    for next in rest {
        current = verify_next(&current, next)?.into_payload();
    }
    Ok(current)
}

/// Checks a newer statement: about the same DID, with a higher number, signed by the key of the one before.
pub fn verify_next(known: &Statement, next: &Jws) -> Result<Verified<Statement>, StatementError> {
    let verified = verify_by(next, &known.did, &known.keys.signing)?;
    let found = verified.payload();
    if found.did != known.did {
        return Err(StatementError::Did { expected: known.did.clone(), found: found.did.clone() });
    }
    if found.seq <= known.seq {
        return Err(StatementError::Seq { known: known.seq, found: found.seq });
    }
    Ok(verified)
}

fn verify_by(jws: &Jws, did: &Did, key: &VerifyingKey) -> Result<Verified<Statement>, JwsError> {
    jws::verify(jws, Typ::Statement, did, |_| Some(*key))
}

/// What people compare by another channel: 80 bits of the newest statement's hash, in four groups of four of
/// Crockford's base 32.
pub fn fingerprint(newest: &Jws) -> String {
    let hash = sha256(newest.as_str().as_bytes());
    let mut bits = hash.0[..10].iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    let mut text = Vec::with_capacity(19);
    for place in 0..16 {
        if place > 0 && place % 4 == 0 {
            text.push(b'-');
        }
        text.push(ALPHABET[(bits & 31) as usize]);
        bits >>= 5;
    }
    text.reverse();
    text.into_iter().map(char::from).collect()
}

/// The file that is handed to a partner.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// `invitation`.
    counterseal: String,
    /// The chain of statements, oldest first.
    pub statements: Vec<Jws>,
}

impl Invitation {
    /// An invitation with this chain.
    pub fn new(statements: Vec<Jws>) -> Self {
        Self { counterseal: "invitation".into(), statements }
    }

    /// Reads an invitation and checks its chain; gives the newest statement.
    pub fn parse(text: &str) -> Result<(Self, Statement), StatementError> {
        let invitation: Self =
            serde_json::from_str(text).map_err(|error| StatementError::Invitation(error.to_string()))?;
        if invitation.counterseal != "invitation" {
            return Err(StatementError::Invitation("it says it is something else".into()));
        }
        let statement = verify_chain(&invitation.statements)?;
        Ok((invitation, statement))
    }

    /// Reads an invitation file of at most 1 MiB.
    pub fn load(path: &Path) -> Result<(Self, Statement), StatementError> {
        let unreadable = |problem: String| StatementError::Invitation(format!("{}: {problem}", path.display()));
        let length = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
        if length > 1 << 20 {
            return Err(unreadable(format!("{length} bytes; an invitation is shorter")));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?)
    }

    /// The fingerprint of the newest statement.
    pub fn fingerprint(&self) -> String {
        self.statements.last().map(fingerprint).unwrap_or_default()
    }
}

/// `did.json` (W3C DID Core): for who resolves `did:web`.
pub fn did_document(statement: &Statement) -> Value {
    let did = statement.did.as_str();
    let key = |name: &str, curve: &str, bytes: &[u8; 32]| {
        json!({
            "id": format!("{did}#{name}"), "type": "JsonWebKey2020", "controller": did,
            "publicKeyJwk": {"kty": "OKP", "crv": curve, "x": b64(bytes)},
        })
    };
    json!({
        "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/suites/jws-2020/v1"],
        "id": did,
        "verificationMethod": [
            key("signing", "Ed25519", statement.keys.signing.bytes()),
            key("sealing", "X25519", statement.keys.sealing.bytes()),
        ],
        "assertionMethod": [format!("{did}#signing")],
        "authentication": [format!("{did}#signing")],
        "keyAgreement": [format!("{did}#sealing")],
        "service": [{
            "id": format!("{did}#dsp"), "type": "DataService",
            "serviceEndpoint": format!("{}/.well-known/dspace-version", statement.endpoints.dsp),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{SealingKey, SigningKey};

    fn statement(seq: u64, signing: &SigningKey) -> Statement {
        Statement {
            did: Did::parse("did:web:a.invalid").unwrap(),
            seq,
            name: "A".into(),
            keys: PublicKeys {
                signing: signing.public(),
                sealing: SealingKey::from_bytes([5; 32]).public(),
                token: SigningKey::from_seed([6; 32]).public(),
                log: SigningKey::from_seed([7; 32]).public(),
                cosigner: SigningKey::from_seed([8; 32]).public(),
            },
            tls: vec![Sha256([1; 32])],
            endpoints: Endpoints { dsp: "https://127.0.0.1:1".into() },
            valid_from: Timestamp::from_millis(0),
        }
    }

    fn signed(statement: &Statement, by: &SigningKey) -> Jws {
        let kid = Kid::of(&statement.did, KeyRole::Signing, &by.public());
        jws::sign(Typ::Statement, &kid, by, statement).unwrap()
    }

    #[test]
    fn rotation_needs_the_key_before_and_a_higher_number() {
        let (first, second, stranger) =
            (SigningKey::from_seed([1; 32]), SigningKey::from_seed([2; 32]), SigningKey::from_seed([3; 32]));
        let one = statement(1, &first);
        let rotated = statement(2, &second);
        assert!(verify_next(&one, &signed(&rotated, &first)).is_ok());
        assert!(verify_next(&one, &signed(&rotated, &second)).is_err(), "by the new key alone");
        assert!(verify_next(&one, &signed(&rotated, &stranger)).is_err());
        assert!(matches!(verify_next(&one, &signed(&one, &first)), Err(StatementError::Seq { .. })), "replayed");
        assert!(matches!(
            verify_next(&statement(5, &first), &signed(&rotated, &first)),
            Err(StatementError::Seq { known: 5, found: 2 })
        ));
        let chain = [signed(&one, &first), signed(&rotated, &first), signed(&statement(3, &second), &second)];
        assert_eq!(verify_chain(&chain).unwrap().seq, 3);
        assert!(verify_chain(&[chain[0].clone(), chain[2].clone()]).is_err(), "a link is missing");
        assert!(verify_chain(&chain[1..]).is_err(), "the first must sign itself");
        assert!(verify_chain(&[]).is_err());
    }

    #[test]
    fn a_swapped_invitation_shows_another_fingerprint() {
        let (key, stranger) = (SigningKey::from_seed([1; 32]), SigningKey::from_seed([3; 32]));
        let own = Invitation::new(vec![signed(&statement(1, &key), &key)]);
        let swapped = Invitation::new(vec![signed(&statement(1, &stranger), &stranger)]);
        assert_ne!(own.fingerprint(), swapped.fingerprint());
        assert_eq!(own.fingerprint().len(), 19);
        let text = serde_json::to_string(&own).unwrap();
        let (read, statement) = Invitation::parse(&text).unwrap();
        assert_eq!(read.fingerprint(), own.fingerprint());
        assert_eq!(statement.did.as_str(), "did:web:a.invalid");
        assert!(Invitation::parse("{}").is_err());
        assert!(Invitation::parse(&text.replace("invitation", "offer")).is_err());
    }
}
