//! The participant statement: which keys and endpoints are a DID's, signed by the key before.

use std::{collections::BTreeSet, fs::File, io::Read as _, path::Path};

use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    crypto::{
        Hasher, SealingPublic, SigningKey, VerifyingKey, b64,
        jws::{self, Jws, JwsError, KeyRole, Kid, Typ, Verified},
        sha256, unb64,
    },
    id::{Did, Sha256},
    identity::Keys,
    time::Timestamp,
};

/// Most statements in a chain.
pub const MAX_CHAIN: usize = 1024;
/// The longest statement, in bytes of its JWS.
const MAX_STATEMENT: usize = 8 * 1024;
/// The longest name, in characters.
const MAX_NAME: usize = 200;
/// Most TLS keys at one time.
const MAX_TLS: usize = 8;
/// The longest invitation file, in bytes.
const MAX_INVITATION: u64 = 1 << 20;
/// Groups of four characters in a fingerprint: 120 bits.
const GROUPS: usize = 6;
/// The greatest number of a statement: what JSON carries exactly (RFC 8785).
const MAX_SEQ: u64 = (1 << 53) - 1;
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
    /// Properly signed, but it says what can't be.
    #[error("the statement of `{did}` can't be taken: {problem}")]
    Content {
        /// Whose.
        did: Did,
        /// What is wrong.
        problem: String,
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
    /// Our own statement; `endpoint` is the connector's root, https.
    ///
    /// # Errors
    /// What no partner would take isn't made: [`StatementError::Content`].
    pub fn own(keys: &Keys, seq: u64, name: &str, endpoint: &str, now: Timestamp) -> Result<Self, StatementError> {
        let own = Self {
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
            endpoints: Endpoints { dsp: as_written(endpoint) },
            valid_from: now,
        };
        own.checked()
    }

    /// Signs it: the first one by its own key, a newer one by the key of the one before.
    pub fn sign(&self, by: &SigningKey) -> Result<Jws, StatementError> {
        let kid = Kid::of(&self.did, KeyRole::Signing, &by.public());
        Ok(jws::sign(Typ::Statement, &kid, by, &self.clone().checked()?)?)
    }

    /// What a statement says, unverified: for one that was verified before.
    pub fn claimed(statement: &Jws) -> Option<Self> {
        let part = statement.as_str().split('.').nth(1)?;
        serde_json::from_slice(&unb64(part).ok()?).ok()
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

    /// What a signature doesn't say: that it makes sense.
    fn checked(self) -> Result<Self, StatementError> {
        let keys = &self.keys;
        let separate: BTreeSet<&[u8; 32]> =
            [&keys.signing, &keys.token, &keys.log, &keys.cosigner].into_iter().map(VerifyingKey::bytes).collect();
        let problem = if self.seq == 0 || self.seq > MAX_SEQ {
            Some(format!("its number is {}; they count from 1", self.seq))
        } else if separate.len() < 4 {
            Some("one key has two roles; keys are separate".into())
        } else if self.tls.is_empty() || self.tls.len() > MAX_TLS {
            Some(format!("it pins {} TLS keys; 1 to {MAX_TLS} may be", self.tls.len()))
        } else if self.tls.iter().collect::<BTreeSet<_>>().len() < self.tls.len() {
            Some("it pins a TLS key twice".into())
        } else {
            name_problem(&self.name).or_else(|| endpoint_problem(&self.endpoints.dsp))
        };
        match problem {
            Some(problem) => Err(StatementError::Content { did: self.did, problem }),
            None => Ok(self),
        }
    }
}

/// People read names, in terminals too: no controls, and nothing that hides or turns text around.
fn name_problem(name: &str) -> Option<String> {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    if name.trim().is_empty() {
        return Some("it has no name".into());
    }
    if name.chars().count() > MAX_NAME {
        return Some(format!("its name is longer than {MAX_NAME} characters"));
    }
    let found = name.chars().find(|c| hidden(*c))?;
    Some(format!("its name contains the invisible character U+{:04X}", found as u32))
}

/// As URLs are written: an operator may write `https://Node.example:443/`.
fn as_written(endpoint: &str) -> String {
    let normal = Url::parse(endpoint).map_or_else(|_| endpoint.to_owned(), String::from);
    normal.trim_end_matches('/').to_owned()
}

/// https, a host, perhaps a port and a path; nothing else.
fn endpoint_problem(endpoint: &str) -> Option<String> {
    let shown = || endpoint.escape_debug().take(200).collect::<String>();
    let Ok(url) = Url::parse(endpoint) else { return Some(format!("its endpoint `{}` is not a URL", shown())) };
    let wrong = if url.scheme() != "https" {
        "is not an https URL"
    } else if !url.has_host() {
        "has no host"
    } else if matches!(url.host_str(), Some("0.0.0.0" | "[::]")) {
        "names no machine; the address by which partners reach this connector is `listen.public_url`"
    } else if !url.username().is_empty() || url.password().is_some() {
        "carries credentials"
    } else if url.query().is_some() || url.fragment().is_some() {
        "has a query or a fragment"
    } else if endpoint.ends_with('/') {
        "ends with a slash"
    } else if as_written(endpoint) != endpoint {
        "is not written as URLs are (lower case, no default port, no `..`)"
    } else {
        return None;
    };
    Some(format!("its endpoint `{}` {wrong}", shown()))
}

/// Checks a chain of statements from the first, signed by its own key, to the newest, each signed by the one before.
/// Gives the newest.
pub fn verify_chain(chain: &[Jws]) -> Result<Statement, StatementError> {
    read_chain(chain)?.pop().ok_or_else(no_statement)
}

/// Checks a chain as [`verify_chain`] does, and gives all of it, oldest first.
pub(super) fn read_chain(chain: &[Jws]) -> Result<Vec<Statement>, StatementError> {
    let (first, rest) = chain.split_first().ok_or_else(no_statement)?;
    if chain.len() > MAX_CHAIN {
        return Err(StatementError::Invitation(format!("more than {MAX_CHAIN} statements in it")));
    }
    let mut statements = vec![verify_first(first)?];
    for next in rest {
        // split_first gave one, and only more are added
        let Some(known) = statements.last() else { return Err(no_statement()) };
        let next = verify_next(known, next)?.into_payload();
        statements.push(next);
    }
    Ok(statements)
}

/// Who signs the first is what the first itself says: its DID and key are what people compare.
fn verify_first(first: &Jws) -> Result<Statement, StatementError> {
    let (_, kid) = jws::peek(first)?;
    let claimed = Statement::claimed(first)
        .ok_or_else(|| StatementError::Invitation("its first statement can't be read".into()))?;
    let verified = verify_by(first, kid.did(), &claimed.keys.signing)?.into_payload();
    if verified.did != *kid.did() {
        return Err(StatementError::Did { expected: kid.did().clone(), found: verified.did });
    }
    Ok(verified)
}

fn no_statement() -> StatementError {
    StatementError::Invitation("no statement in it".into())
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

fn verify_by(jws: &Jws, did: &Did, key: &VerifyingKey) -> Result<Verified<Statement>, StatementError> {
    if jws.as_str().len() > MAX_STATEMENT {
        let problem = format!("it has {} bytes; at most {MAX_STATEMENT} are taken", jws.as_str().len());
        return Err(StatementError::Content { did: did.clone(), problem });
    }
    let verified: Verified<Statement> = jws::verify(jws, Typ::Statement, did, |_| Some(*key))?;
    verified.payload().clone().checked()?;
    Ok(verified)
}

/// What people compare by another channel: 120 bits of the hash of a whole chain, in six groups of four characters of
/// Crockford's base 32.
///
/// Of the whole chain, not of its newest statement alone: another's first statements could be put before a newest one
/// that is genuine, and their keys would then count as earlier ones of this participant.
pub fn fingerprint(chain: &[Jws]) -> String {
    let mut hasher = Hasher::new();
    for statement in chain {
        hasher.update(statement.as_str().as_bytes());
        hasher.update(b"\n");
    }
    let hash = hasher.finish();
    let mut bits = hash.0[..GROUPS * 4 * 5 / 8].iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    let mut text = Vec::with_capacity(GROUPS * 5);
    for place in 0..GROUPS * 4 {
        if place > 0 && place % 4 == 0 {
            text.push(b'-');
        }
        text.push(ALPHABET[(bits & 31) as usize]);
        bits >>= 5;
    }
    text.reverse();
    text.into_iter().map(char::from).collect()
}

/// Whether a fingerprint as somebody typed or read it out is this one: case, blanks and dashes don't matter, nor whether
/// a zero was read as O, or a one as I or L (Crockford).
pub fn same_fingerprint(typed: &str, shown: &str) -> bool {
    let plain = |text: &str| -> Vec<char> {
        text.chars()
            .filter(|c| !c.is_whitespace() && *c != '-')
            .map(|c| match c.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            })
            .collect()
    };
    let typed = plain(typed);
    !typed.is_empty() && typed == plain(shown)
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

    /// Reads an invitation file, of at most 1 MiB.
    pub fn load(path: &Path) -> Result<(Self, Statement), StatementError> {
        let unreadable = |problem: String| StatementError::Invitation(format!("{}: {problem}", path.display()));
        let io = |error: std::io::Error| unreadable(error.to_string());
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(unreadable("not a file".into()));
        }
        let mut text = String::new();
        let length =
            File::open(path).and_then(|file| file.take(MAX_INVITATION + 1).read_to_string(&mut text)).map_err(io)?;
        if length as u64 > MAX_INVITATION {
            return Err(unreadable("longer than 1 MiB; an invitation is shorter".into()));
        }
        Self::parse(&text)
    }

    /// What people compare.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.statements)
    }
}

/// `did.json` (W3C DID Core), for who resolves `did:web`. Its verification methods are named by the key ids that our
/// objects carry.
pub fn did_document(statement: &Statement) -> Value {
    let did = statement.did.as_str();
    let key = |id: &str, curve: &str, bytes: &[u8; 32]| {
        json!({
            "id": id, "type": "JsonWebKey2020", "controller": did,
            "publicKeyJwk": {"kty": "OKP", "crv": curve, "x": b64(bytes)},
        })
    };
    let signing = statement.signing_kid().to_string();
    let sealing = sealing_kid(&statement.did, &statement.keys.sealing);
    json!({
        "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/suites/jws-2020/v1"],
        "id": did,
        "verificationMethod": [
            key(&signing, "Ed25519", statement.keys.signing.bytes()),
            key(&sealing, "X25519", statement.keys.sealing.bytes()),
        ],
        "assertionMethod": [signing],
        "authentication": [signing],
        "keyAgreement": [sealing],
        "service": [{
            "id": format!("{did}#dsp"), "type": "DataService",
            "serviceEndpoint": format!("{}/.well-known/dspace-version", statement.endpoints.dsp),
        }],
    })
}

/// The id of a sealing key, formed as [`Kid`]s are.
fn sealing_kid(did: &Did, key: &SealingPublic) -> String {
    format!("{did}#sealing-{}", &sha256(key.bytes()).to_string()[..16])
}

#[cfg(test)]
mod tests;
