//! Grants: what may flow under which token. Rows `g/…` and their view in memory.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    crypto::VerifyingKey,
    error::Refusal,
    id::{AgreementId, ParticipantId, Pid, Sha256},
    identity::token,
    receipt::{Mirror, row_key},
    time::Timestamp,
};

/// Where grants lie in the store.
pub const PREFIX: &str = "g/";

/// What may flow under one token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Names the grant in its token: the transfer that it belongs to.
    pub transfer: Pid,
    /// The agreement.
    pub agreement: AgreementId,
    /// Who may use it.
    pub peer: ParticipantId,
    /// The one token that counts; an earlier one is superseded.
    pub jti: String,
    /// Why nothing flows any more, once it has ended or while it is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Refusal>,
}

impl Grant {
    /// Where grants lie.
    pub const PREFIX: &'static str = PREFIX;

    /// The row's key.
    pub fn key(transfer: &Pid) -> Vec<u8> {
        row_key(PREFIX, &[transfer.as_str()])
    }
}

/// All grants; follows the store. Closing one cuts its streams.
#[derive(Default)]
pub struct Grants(RwLock<HashMap<Vec<u8>, Arc<LiveGrant>>>);

struct LiveGrant {
    grant: Grant,
    cut: CancellationToken,
}

/// A grant whose token was checked for this request.
#[derive(Clone)]
pub struct Authorized {
    /// The grant as it stood.
    pub grant: Grant,
    /// Fires when the grant is closed or replaced.
    pub cut: CancellationToken,
}

impl Grants {
    /// Checks a bearer token: ours, this caller's, over this certificate, current, and its grant open.
    pub fn authorize(
        &self,
        bearer: Option<&str>,
        own_token_key: &VerifyingKey,
        caller: &ParticipantId,
        thumbprint: Option<&Sha256>,
        now: Timestamp,
    ) -> Result<Authorized, Refusal> {
        let bearer = bearer.ok_or_else(|| {
            Refusal::new("token-missing", "the request carries no transfer token; start a transfer to get one")
        })?;
        let claims = token::check(bearer, own_token_key, caller, thumbprint, now)?;
        let grants = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let live = grants
            .get(&Grant::key(&claims.transfer))
            .filter(|live| live.grant.peer == *caller)
            .ok_or_else(|| Refusal::new("token-foreign", "the token belongs to no transfer of this participant"))?;
        if live.grant.jti != claims.jti {
            return Err(Refusal::new(
                "token-superseded",
                "a newer token was issued for this transfer; use the one in the last transfer start message",
            ));
        }
        match &live.grant.closed {
            Some(why) => Err(why.clone()),
            None => Ok(Authorized { grant: live.grant.clone(), cut: live.cut.clone() }),
        }
    }

    /// Fires when the grant is closed or replaced; `None` if it is closed already.
    pub fn open(&self, transfer: &Pid) -> Option<CancellationToken> {
        let grants = self.0.read().unwrap_or_else(PoisonError::into_inner);
        grants.get(&Grant::key(transfer)).filter(|live| live.grant.closed.is_none()).map(|live| live.cut.clone())
    }
}

impl Mirror for Grants {
    fn applied(&self, key: &[u8], value: Option<&[u8]>) {
        if !key.starts_with(PREFIX.as_bytes()) {
            return;
        }
        let grant = value.and_then(|bytes| serde_json::from_slice::<Grant>(bytes).ok());
        let mut grants = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let old = match grant {
            Some(grant) => {
                let cut = CancellationToken::new();
                if grant.closed.is_some() {
                    cut.cancel();
                }
                grants.insert(key.to_vec(), Arc::new(LiveGrant { grant, cut }))
            }
            // unreadable or deleted: nothing flows
            None => grants.remove(key),
        };
        drop(grants);
        if let Some(old) = old {
            old.cut.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{crypto::SystemRandom, id::Did, identity::Keys};

    #[test]
    fn only_the_current_token_of_an_open_grant_counts_and_closing_cuts() {
        let home = tempfile::tempdir().unwrap();
        let us = Did::parse("did:web:p.invalid").unwrap();
        let id = |text: &str| ParticipantId::parse(text).unwrap();
        let (peer, other) = (id("did:web:c.invalid"), id("did:web:o.invalid"));
        let now = Timestamp::from_millis(1_764_000_000_000);
        let keys = Keys::create(home.path(), &us, &[], &SystemRandom, now).unwrap();
        let transfer = Pid::parse("urn:uuid:t").unwrap();
        let print = Sha256([7; 32]);
        let issue = |jti: &str| {
            token::issue(&keys, &peer, Some(print), &transfer, jti, now, Duration::from_secs(60))
                .unwrap()
                .as_str()
                .to_owned()
        };
        let grants = Grants::default();
        let grant = |jti: &str, closed: Option<Refusal>| Grant {
            transfer: transfer.clone(),
            agreement: AgreementId::parse("urn:uuid:a").unwrap(),
            peer: peer.clone(),
            jti: jti.to_owned(),
            closed,
        };
        let write = |grant: &Grant| grants.applied(&Grant::key(&transfer), Some(&serde_json::to_vec(grant).unwrap()));
        let code = |bearer: Option<&str>, who: &ParticipantId| {
            let own = keys.token.public();
            grants
                .authorize(bearer, &own, who, Some(&print), now)
                .map(|_| ())
                .map_err(|refusal| refusal.code.to_string())
        };
        let refused = |code: &str| Err(code.to_owned());
        let (first, second) = (issue("1"), issue("2"));
        assert_eq!(code(Some(&first), &peer), refused("token-foreign"), "no grant yet");
        write(&grant("1", None));
        assert_eq!(code(Some(&first), &peer), Ok(()));
        assert_eq!(code(None, &peer), refused("token-missing"));
        assert_eq!(code(Some(&first), &other), refused("token-other-party"));
        let streaming = grants.authorize(Some(&first), &keys.token.public(), &peer, Some(&print), now).unwrap();
        write(&grant("2", None));
        assert!(streaming.cut.is_cancelled(), "a stream under the superseded token is cut");
        assert_eq!(code(Some(&first), &peer), refused("token-superseded"));
        assert_eq!(code(Some(&second), &peer), Ok(()));
        let streaming = grants.authorize(Some(&second), &keys.token.public(), &peer, Some(&print), now).unwrap();
        write(&grant("2", Some(Refusal::new("agreement-revoked", "over"))));
        assert!(streaming.cut.is_cancelled());
        assert_eq!(code(Some(&second), &peer), refused("agreement-revoked"));
    }
}
