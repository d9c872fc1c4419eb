//! How an agreement stands: the provider's newest word on it.

use crate::{
    agreement::{AgreementState, KnownStatus, Status},
    crypto::jws::{self, Typ},
    error::Refusal,
    exchange::{Exchange, catalog::parsed, refuse, retry},
    id::AgreementId,
    protocol::{
        BASE,
        extension::{self, StatusAnswer},
    },
    receipt::Commit,
};

impl Exchange {
    /// Asks the provider how an agreement stands.
    pub(in crate::exchange) async fn refresh_status(&self, id: &AgreementId) -> Result<(), Refusal> {
        let (_, agreement) = self.agreement(id).await?;
        let stale = |why: String| {
            Refusal::new(
                "status-stale",
                format!(
                    "the provider's last word on agreement {id} is older than its freshness limit of {} s, and there is no newer one: {why}",
                    agreement.agreement.freshness_seconds
                ),
            )
        };
        let peer = self.peer(agreement.peer())?;
        let url = format!("{}{BASE}{}", peer.statement.endpoints.dsp, extension::status_path(id));
        let answer =
            self.ask(&peer, reqwest::Method::GET, &url, None, None).await.map_err(|refusal| stale(refusal.sentence))?;
        let answer: StatusAnswer = parsed(&answer).map_err(|refusal| stale(refusal.sentence))?;
        let status = jws::verify::<Status>(&answer.status, Typ::Status, &peer.did, |kid| self.peers.current_key(kid))
            .map_err(|error| stale(error.to_string()))?;
        let now = self.clock.now();
        if status.payload().agreement != *id || now >= status.payload().valid_until {
            return Err(stale("what it sent is about another agreement, or over".into()));
        }
        if status.payload().state == AgreementState::Revoked {
            return self
                .learn_of_revocation(id, Refusal::new("agreement-revoked", "the provider revoked the agreement"))
                .await;
        }
        retry!(self.keep_status(id, status.payload(), &answer.status))
    }

    async fn keep_status(&self, id: &AgreementId, status: &Status, jws: &jws::Jws) -> Result<(), Refusal> {
        let (row, mut agreement) = self.agreement(id).await?;
        // an older statement replayed never replaces a newer one
        if agreement.status.as_ref().is_some_and(|known| known.status.issued_at > status.issued_at) {
            return Ok(());
        }
        agreement.status = Some(KnownStatus { status: status.clone(), received: self.clock.now(), jws: jws.clone() });
        let mut commit = Commit::new();
        commit.put(&row, &agreement).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }
}
