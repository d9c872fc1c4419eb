//! What a use reads: a copy, or data derived from copies.

use std::{collections::BTreeMap, io::Write};

use crate::{
    agreement::AgreementRow,
    crypto::ece::Keying,
    error::Refusal,
    exchange::{Exchange, refuse, use_copy::destroyed},
    id::{AgreementId, CopyId, DatasetId},
    receipt::{Commit, Segment, list, read},
    vault::{self, Contents, CopyRow, CopyState, Counter, DerivedRow, VaultError},
};

/// What is read, and the copies whose agreements decide on it.
#[derive(Clone, Debug)]
pub(in crate::exchange) struct Target {
    /// The copy itself, or those that the data was derived from.
    pub copies: Vec<CopyRow>,
    /// The derived dataset.
    pub derived: Option<DerivedRow>,
}

impl Target {
    /// A copy.
    pub fn copy(copy: CopyRow) -> Self {
        Self { copies: vec![copy], derived: None }
    }

    /// Whose key opens it.
    pub fn id(&self) -> Option<&CopyId> {
        self.derived.as_ref().map(|row| &row.copy).or_else(|| self.copies.first().map(|copy| &copy.id))
    }

    /// Its dataset.
    pub fn dataset(&self) -> Option<&DatasetId> {
        self.derived.as_ref().map(|row| &row.dataset).or_else(|| self.copies.first().map(|copy| &copy.dataset))
    }

    /// Its sealed bodies.
    pub fn segments(&self) -> Vec<Segment> {
        let of_copy = || self.copies.first().map(|copy| copy.segments.clone()).unwrap_or_default();
        self.derived.as_ref().map_or_else(of_copy, |row| row.segments.clone())
    }

    /// Bytes of plaintext.
    pub fn bytes(&self) -> u64 {
        let of_copy = || self.copies.first().map_or(0, |copy| copy.bytes);
        self.derived.as_ref().map_or_else(of_copy, |row| row.bytes)
    }

    /// What is in it, where that is known.
    pub fn contents(&self) -> Contents {
        let of_copy = || self.copies.first().and_then(|copy| copy.contents.clone()).unwrap_or_default();
        self.derived.as_ref().map_or_else(of_copy, |row| row.contents.clone())
    }

    /// Where it stands.
    pub fn state(&self) -> CopyState {
        let of_copy = || self.copies.first().map_or(CopyState::Destroyed, |copy| copy.state);
        self.derived.as_ref().map_or_else(of_copy, |row| row.state)
    }

    /// The copies by agreement: each agreement decides once.
    pub fn by_agreement(&self) -> BTreeMap<AgreementId, Vec<&CopyRow>> {
        let mut groups: BTreeMap<AgreementId, Vec<&CopyRow>> = BTreeMap::new();
        for copy in &self.copies {
            groups.entry(copy.agreement.clone()).or_default().push(copy);
        }
        groups
    }

    /// The rows on which a use of it hangs.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys = super::watch::agreement_keys(self.by_agreement().keys());
        match &self.derived {
            Some(row) => keys.push(DerivedRow::key(&row.dataset)),
            None => keys.extend(self.copies.iter().map(|copy| vault::key(&copy.id))),
        }
        keys
    }
}

impl Exchange {
    /// What a request means: a copy or a derived dataset by its id, or the newest copy of a dataset or agreement.
    pub(in crate::exchange) async fn target(&self, of: &str) -> Result<Target, Refusal> {
        let derived = self.all_derived().await?;
        if let Some(row) = derived.into_iter().find(|row| row.dataset.as_str() == of || row.copy.as_str() == of) {
            return self.derived_target(row).await;
        }
        let mut found: Vec<CopyRow> = self.all_copies().await?;
        found.retain(|copy| copy.id.as_str() == of || copy.dataset.as_str() == of || copy.agreement.as_str() == of);
        // held ones first, then the newest
        found.sort_by_key(|copy| (copy.state == CopyState::Held, copy.begun));
        let copy = found.pop().ok_or_else(|| {
            Refusal::new("copy-unknown", format!("no copy of `{of}` is in the vault; get one with `counterseal fetch`"))
        })?;
        Ok(Target::copy(self.looked_into(copy).await?))
    }

    /// A derived dataset with the copies that it was made from.
    pub(in crate::exchange) async fn derived_target(&self, row: DerivedRow) -> Result<Target, Refusal> {
        let mut copies = Vec::with_capacity(row.parents.len());
        for parent in &row.parents {
            let copy =
                read::<CopyRow>(&*self.store, &vault::key(&parent.copy)).await.map_err(refuse("store-unreadable"))?;
            copies.push(copy.value.ok_or_else(|| {
                Refusal::new(
                    "copy-unknown",
                    format!("`{}` was made from a copy that the vault doesn't know", row.dataset),
                )
            })?);
        }
        Ok(Target { copies, derived: Some(row) })
    }

    /// All derived datasets.
    pub async fn all_derived(&self) -> Result<Vec<DerivedRow>, Refusal> {
        let rows = list::<DerivedRow>(&*self.store, DerivedRow::PREFIX.as_bytes(), None, 100_000)
            .await
            .map_err(refuse("store-unreadable"))?;
        Ok(rows.into_iter().filter_map(|row| row.value).collect())
    }

    /// The copy with what is in it: one that came before that was kept is looked into once.
    async fn looked_into(&self, copy: CopyRow) -> Result<CopyRow, Refusal> {
        if copy.contents.is_some() || copy.state != CopyState::Held {
            return Ok(copy);
        }
        let (_, agreement) = self.agreement(&copy.agreement).await?;
        let mut counter = self.counter_of(&agreement);
        let feed = self.feed(&Target::copy(copy.clone()))?;
        let contents = tokio::task::spawn_blocking(move || feed(&mut counter).map(|_| counter.contents()))
            .await
            .map_err(refuse("internal"))?
            .map_err(refuse("vault-unreadable"))?;
        let row = read::<CopyRow>(&*self.store, &vault::key(&copy.id)).await.map_err(refuse("store-unreadable"))?;
        let Some(mut seen) = row.value.clone() else { return Ok(copy) };
        seen.contents = Some(Contents { arrived: Some(copy.begun), ..contents });
        let mut commit = Commit::new();
        commit.put(&row, &seen).map_err(refuse("internal"))?;
        match self.commit(commit).await {
            // somebody else was faster: what he wrote is decided on anyway
            Err(refusal) if !refusal.is(crate::exchange::CONFLICT) => Err(refusal),
            _ => Ok(seen),
        }
    }

    /// Counts what comes under an agreement.
    pub(in crate::exchange) fn counter_of(&self, agreement: &AgreementRow) -> Counter {
        let offer = self.agreed_offer(agreement).ok();
        let kind = offer.and_then(|offer| offer.dataset.distributions.first().map(|way| way.media_type.clone()));
        Counter::of(kind.as_deref().unwrap_or_default())
    }

    /// What writes the plaintext. The key is read now.
    pub(in crate::exchange) fn feed(
        &self,
        target: &Target,
    ) -> Result<impl FnOnce(&mut dyn Write) -> Result<u64, VaultError> + Send + use<>, Refusal> {
        let id = target.id().ok_or_else(destroyed)?.clone();
        let keying: Keying = self.vault.keying(&id).map_err(refuse("vault-unreadable"))?.ok_or_else(destroyed)?;
        let (vault, segments) = (self.vault.clone(), target.segments());
        Ok(move |out: &mut dyn Write| vault.open_copy(&id, &keying, &segments, out))
    }
}
