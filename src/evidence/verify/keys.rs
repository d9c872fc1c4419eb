//! Who is who: statement chains, the keys in them, and which of them the verifier trusts.

use std::collections::{BTreeMap, HashMap};

use crate::{
    crypto::{
        VerifyingKey,
        jws::{Jws, KeyRole, Kid},
    },
    id::{Did, Sha256},
    identity::{Invitation, Statement, StatementError, verify_chain},
};

/// Keys that the verifier trusts, from invitations it got by another channel.
#[derive(Debug, Default)]
pub struct Trust(BTreeMap<Did, VerifyingKey>);

impl Trust {
    /// Trusts the first key of this invitation's chain, and so what it signed on.
    pub fn add(&mut self, invitation: &Invitation) -> Result<Did, StatementError> {
        let first = invitation.statements.get(..1).unwrap_or_default();
        let statement = verify_chain(first)?;
        self.0.insert(statement.did.clone(), statement.keys.signing);
        Ok(statement.did)
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is thought of a chain that begins with this key.
    pub(super) fn of(&self, did: &Did, first: &VerifyingKey) -> Standing {
        match self.0.get(did) {
            Some(key) if key == first => Standing::Trusted,
            Some(_) => Standing::Other,
            None => Standing::Unproven,
        }
    }
}

pub(super) enum Standing {
    Trusted,
    Unproven,
    Other,
}

/// A participant as its chain tells.
pub(super) struct Party {
    /// Its newest statement.
    pub newest: Statement,
    /// By signing key, the statement with which that key was superseded.
    pub superseded: HashMap<Kid, Sha256>,
    /// By signing key, which statement named it first.
    pub ages: HashMap<Kid, usize>,
}

/// All keys of the chains.
#[derive(Default)]
pub(super) struct Keys {
    by_kid: HashMap<Kid, VerifyingKey>,
    pub parties: BTreeMap<Did, Party>,
}

impl Keys {
    pub fn get(&self, kid: &Kid) -> Option<VerifyingKey> {
        self.by_kid.get(kid).copied()
    }

    /// Adds a chain; gives its first signing key, or what is wrong with it.
    pub fn add(&mut self, did: &Did, chain: &[Jws]) -> Result<VerifyingKey, String> {
        let mut first = None;
        let (mut superseded, mut ages) = (HashMap::new(), HashMap::new());
        let mut newest: Option<Statement> = None;
        for end in 1..=chain.len() {
            let statement = verify_chain(&chain[..end]).map_err(|error| error.to_string())?;
            if statement.did != *did {
                return Err(format!("the chain is of `{}`", statement.did));
            }
            for (role, key) in [(KeyRole::Signing, statement.keys.signing), (KeyRole::Log, statement.keys.log)] {
                self.by_kid.insert(Kid::of(did, role, &key), key);
            }
            if let Some(before) = newest.filter(|before| before.keys.signing != statement.keys.signing) {
                superseded.insert(before.signing_kid(), chain[end - 1].sha256());
            }
            first.get_or_insert(statement.keys.signing);
            ages.entry(statement.signing_kid()).or_insert(end);
            newest = Some(statement);
        }
        let newest = newest.ok_or("no statement")?;
        self.parties.insert(did.clone(), Party { newest, superseded, ages });
        first.ok_or_else(|| "no statement".to_owned())
    }
}
