//! Publish and withdraw: `offer.toml` → checks → signed → one commit → in the catalog.

use std::path::Path;

use serde::Serialize;

use crate::{
    agreement::{Enforcer, manifest},
    crypto::jws,
    error::Refusal,
    exchange::{Exchange, derived::joined, refuse, release::can_apply, retry},
    id::{DatasetId, Did, OfferId, Sha256, SnapshotId},
    offer::{
        self, Audience, ContractOnly, DatasetDescription, Distribution, Extent, Offer, OfferFile, OfferRow,
        OfferedPolicy, SignedOffer,
    },
    policy::{self, Action, Columns, PolicySource, Slice},
    receipt::{Commit, Kind, Row, read},
    source::{self, Format},
};

/// What was published.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// The offer.
    pub id: OfferId,
    /// Counts from 1.
    pub version: u64,
    /// The policies' `@id`s.
    pub policies: Vec<String>,
    /// SHA-256 of each signed version.
    pub offers: Vec<Sha256>,
    /// For whom it is sealed; empty if it is open.
    pub sealed_for: Vec<Did>,
    /// The source's columns.
    pub columns: Columns,
}

/// What a look at a source shows.
pub(super) struct Looked {
    pub snapshot: SnapshotId,
    pub columns: Columns,
    pub extent: Extent,
}

/// Whether an offer's clauses have the owners that the steward wants them to have.
fn check_enforced(slice: &Slice, contract_only: ContractOnly, plain: bool) -> Result<(), Refusal> {
    for clause in manifest(slice) {
        let (id, part) = (&clause.clause, &clause.part);
        if contract_only == ContractOnly::Refuse && clause.enforcer == Enforcer::Contract {
            return Err(Refusal::new(
                "policy-contract-only",
                format!(
                    "policy `{id}`: {part}: no machine sees to this, and the offer wants none of that (policy.contract_only)"
                ),
            ));
        }
        if plain && clause.enforcer != Enforcer::Provider {
            return Err(Refusal::new(
                "policy-not-enforced",
                format!(
                    "policy `{id}`: {part}: a foreign connector doesn't enforce this; leave it out for them, or say audience.plain_unenforced = true"
                ),
            ));
        }
    }
    Ok(())
}

impl Exchange {
    /// Publishes the offer that a file describes; under a known id, its next version.
    pub async fn publish(&self, file: &Path) -> Result<Published, Refusal> {
        let (file, cedar) = OfferFile::load(file).map_err(refuse("offer-file"))?;
        let format: Format = file.dataset.format.parse().map_err(refuse("format-unsupported"))?;
        let Looked { snapshot, columns, extent } = self.header_of(&file.dataset.source, format).await?;
        let onward = self.onward(&file.dataset, &columns).await?;
        let global = joined(&self.global_policy().await?, &onward.inherited.forbids, "\n");
        let floor = joined(file.policy.floor.trim_end_matches([';', ' ', '\n']), &onward.inherited.floor, "; ");
        let name = file.policy.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let slice = Slice::compile(
            PolicySource { name: &name, text: &cedar },
            PolicySource { name: "policy.global", text: &global },
            &floor,
            &self.config.policy.floor,
            &columns,
        )
        .map_err(refuse("policy-invalid"))?;
        let Audience { sealed_for: audience, plain, plain_unenforced } = file.audience.unwrap_or_default();
        for clause in slice.clauses().iter().filter(|clause| clause.permit && clause.actions.contains(&Action::Release))
        {
            can_apply(&slice.demanded(std::slice::from_ref(&clause.id)), &columns, Some(&file.dataset.format))
                .map_err(|refusal| {
                    Refusal::new("policy-invalid", format!("policy `{}`: {}", clause.id, refusal.sentence))
                })?;
        }
        check_enforced(&slice, file.policy.contract_only, plain && !plain_unenforced)?;
        if plain && !audience.is_empty() {
            return Err(Refusal::new(
                "offer-file",
                "audience: an offer that is sealed for recipients can't be plain for foreign connectors too",
            ));
        }
        self.check_audience(&slice, &audience)?;

        let id = file.id.clone();
        let row = read::<OfferRow>(&*self.store, &offer::key(&id)).await.map_err(refuse("store-unreadable"))?;
        if let Some(other) = self
            .offers
            .of_dataset(&file.dataset.id)
            .into_iter()
            .find(|live| live.row.offer.id != id && live.row.sealed() == audience.is_empty())
        {
            return Err(Refusal::new(
                "dataset-mixed",
                format!(
                    "dataset `{}` is already offered {} by `{}`; an open entry would betray a sealed one: use another dataset id",
                    file.dataset.id,
                    if other.row.sealed() { "sealed" } else { "openly" },
                    other.row.offer.id
                ),
            ));
        }
        let now = self.clock.now();
        let before = row.value.as_ref();
        let base = Offer {
            v: 1,
            id: id.clone(),
            provider: self.us.clone().into(),
            dataset: DatasetDescription {
                id: file.dataset.id,
                title: file.dataset.title,
                description: file.dataset.description,
                columns: columns.clone(),
                collection: file.dataset.collection,
                classification: file.dataset.classification,
                quality: file.dataset.quality,
                extent: Some(extent),
                parents: file.dataset.parents.into_iter().chain(onward.parents.clone()).collect(),
                distributions: vec![Distribution {
                    format: "HttpData-PULL".into(),
                    media_type: format.media_type().into(),
                }],
            },
            policy: OfferedPolicy {
                cedar,
                global,
                floor,
                connector_floor: self.config.policy.floor.clone(),
                zone: file.policy.zone.unwrap_or(self.config.policy.zone),
                schema_sha256: slice.schema_sha256(),
                sha256: slice.sha256(),
                odrl: policy::odrl(&slice),
            },
            approval: file.approval,
            freshness_seconds: file.freshness_seconds,
            valid_from: file.valid_from.unwrap_or(now),
            valid_until: file.valid_until,
            supersedes: None,
            aud: None,
        };
        if base.valid_until.is_some_and(|until| until <= now) {
            return Err(Refusal::new("offer-expired", "valid_until lies in the past: nobody could take this offer"));
        }
        let recipients: Vec<Option<Did>> =
            if audience.is_empty() { vec![None] } else { audience.iter().cloned().map(Some).collect() };
        let signed = self.signed_versions(&base, recipients, before)?;
        let next = OfferRow {
            version: before.map_or(0, |row| row.version) + 1,
            source: file.dataset.source,
            format: file.dataset.format,
            snapshot,
            published: now,
            plain,
            withdrawn: None,
            offer: base,
            signed,
        };
        self.goes_onward(&onward, &id).await?;
        retry!(self.commit_offer(&row, &next, &file.dataset.derived_from))?;
        Ok(Published {
            id,
            version: next.version,
            policies: slice.policy_ids(),
            offers: next.signed.iter().map(|signed| signed.jws.sha256()).collect(),
            sealed_for: audience,
            columns,
        })
    }

    /// A source's state, columns and size.
    pub(super) async fn header_of(&self, source: &str, format: Format) -> Result<Looked, Refusal> {
        let (roots, path) = (self.roots.clone(), source.to_owned());
        tokio::task::spawn_blocking(move || {
            let opened = roots.open(&path)?;
            let columns = source::header(&opened, format)?;
            let records = source::records(&opened, format, &columns)?;
            let extent = Extent { bytes: opened.len(), records: Some(records) };
            Ok::<_, source::SourceError>(Looked { snapshot: opened.snapshot(), columns, extent })
        })
        .await
        .map_err(refuse("internal"))?
        .map_err(refuse("source-unavailable"))
    }

    /// The text of the policies that join every offer's.
    pub(super) async fn global_policy(&self) -> Result<String, Refusal> {
        match &self.config.policy.global {
            Some(path) => tokio::fs::read_to_string(path).await.map_err(|error| {
                Refusal::new("policy-unreadable", format!("policy.global: {} can't be read: {error}", path.display()))
            }),
            None => Ok(String::new()),
        }
    }

    /// An offer signed for everybody, or for each recipient; each supersedes the one before.
    fn signed_versions(
        &self,
        base: &Offer,
        recipients: impl IntoIterator<Item = Option<Did>>,
        before: Option<&OfferRow>,
    ) -> Result<Vec<SignedOffer>, Refusal> {
        recipients
            .into_iter()
            .map(|aud| {
                let supersedes = before.and_then(|row| {
                    row.signed.iter().find(|signed| signed.aud == aud).map(|signed| signed.jws.sha256())
                });
                let offer = Offer { aud: aud.clone(), supersedes, ..base.clone() };
                let jws = offer.sign(&self.keys.signing_kid(), &self.keys.signing).map_err(refuse("internal"))?;
                Ok(SignedOffer { aud, jws })
            })
            .collect()
    }

    pub(super) async fn commit_offer(
        &self,
        row: &Row<OfferRow>,
        next: &OfferRow,
        derived_from: &[DatasetId],
    ) -> Result<(), Refusal> {
        let mut commit = Commit::new();
        self.expect_onward(&mut commit, derived_from, &next.offer.id).await?;
        for signed in &next.signed {
            let mut receipt = self.receipt(Kind::Offered, None);
            receipt.offer = Some(signed.jws.sha256());
            receipt.consumer = signed.aud.clone().map(Into::into);
            receipt.snapshot = Some(next.snapshot);
            self.node_receipt(&mut commit, receipt)?;
        }
        commit.put(row, next).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }

    /// Signs standing offers anew that a key signed which was rotated away: partners take new things by current keys
    /// only.
    pub async fn sign_offers_anew(&self) -> Result<(), Refusal> {
        let current = self.keys.signing_kid();
        for live in self.offers.all() {
            let by_current = |signed: &SignedOffer| jws::peek(&signed.jws).is_ok_and(|(_, signer)| signer == current);
            if live.row.withdrawn.is_some() || live.row.signed.iter().all(by_current) {
                continue;
            }
            let key = offer::key(&live.row.offer.id);
            let row = read::<OfferRow>(&*self.store, &key).await.map_err(refuse("store-unreadable"))?;
            let Some(before) = row.value.clone() else { continue };
            let recipients: Vec<Option<Did>> = before.signed.iter().map(|signed| signed.aud.clone()).collect();
            let next = OfferRow {
                version: before.version + 1,
                signed: self.signed_versions(&before.offer, recipients, Some(&before))?,
                ..before
            };
            self.commit_offer(&row, &next, &[]).await?;
        }
        Ok(())
    }

    /// Withdraws an offer: no new agreements; those made hold.
    pub async fn withdraw(&self, id: &OfferId) -> Result<(), Refusal> {
        let row = read::<OfferRow>(&*self.store, &offer::key(id)).await.map_err(refuse("store-unreadable"))?;
        let Some(mut offer) = row.value.clone().filter(|offer| offer.withdrawn.is_none()) else {
            return Err(Refusal::new("offer-unknown", format!("no standing offer has the id `{id}`")));
        };
        offer.withdrawn = Some(self.clock.now());
        let mut commit = Commit::new();
        for signed in &offer.signed {
            let mut receipt = self.receipt(Kind::Offered, None);
            receipt.offer = Some(signed.jws.sha256());
            receipt.reason = Some(Refusal::new("offer-withdrawn", "the offer was withdrawn"));
            self.node_receipt(&mut commit, receipt)?;
        }
        commit.put(&row, &offer).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }

    /// A sealed offer is for peers that we know, and its policy names nobody else.
    fn check_audience(&self, slice: &Slice, audience: &[Did]) -> Result<(), Refusal> {
        if audience.is_empty() {
            return Ok(());
        }
        for did in audience {
            if self.peers.by_did(did).is_none() {
                return Err(Refusal::new(
                    "recipient-unknown",
                    format!(
                        "audience.sealed_for names `{did}`, whose sealing key we don't have: `counterseal peer add` its invitation first"
                    ),
                ));
            }
        }
        for named in slice.named_participants() {
            if named == self.us.as_str() {
                continue;
            }
            if audience.len() > 1 || !audience.iter().any(|did| did.as_str() == named) {
                return Err(Refusal::new(
                    "policy-names-participant",
                    format!(
                        "the policy names `{named}`; each recipient of a sealed offer reads the policy, so it may name nobody but its only recipient: use a group"
                    ),
                ));
            }
        }
        Ok(())
    }
}
