//! Import: a contract that was concluded elsewhere (on a platform, on paper) becomes an agreement here. The operator
//! brings it in, a steward approves it; only we sign it, and that is what it says.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    agreement::{self, Agreement, AgreementRow, AgreementState, PartyFacts, SeriesSecret, SourcePin, Tally, manifest},
    crypto::{
        RandomExt as _,
        jws::{self, Typ},
    },
    error::Refusal,
    exchange::{Exchange, refuse, retry},
    id::{AgreementId, DatasetId, OfferId, ParticipantId},
    offer::{Approval, DatasetDescription, Distribution, Offer, OfferedPolicy},
    policy::{self, Columns, PolicySource, Slice},
    protocol::Party,
    receipt::{Commit, Kind, read},
    source::Format,
    time::Timestamp,
};

/// `agreement.toml`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgreementFile {
    /// Its id, as both parties know it.
    id: AgreementId,
    /// The side that we are on.
    side: Party,
    /// The other party.
    peer: ParticipantId,
    /// What it is about.
    dataset: DatasetId,
    /// A title for people.
    #[serde(default)]
    title: String,
    /// Where the contract is: a number, a file's name.
    #[serde(default)]
    reference: String,
    /// The file, below one of our roots; needed where we provide.
    #[serde(default)]
    source: Option<String>,
    /// How its bytes are laid out: `csv`, `jsonl`, `json`, `parquet`.
    #[serde(default = "csv")]
    format: String,
    /// Whether each step of its transfers waits for a person.
    #[serde(default)]
    approval: Approval,
    /// From when it holds; default: now.
    #[serde(default)]
    valid_from: Option<Timestamp>,
    /// Until when.
    #[serde(default)]
    valid_until: Option<Timestamp>,
    /// On what terms.
    policy: PolicySection,
}

fn csv() -> String {
    Format::Csv.to_string()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicySection {
    /// A Cedar file beside the agreement file.
    file: PathBuf,
    /// Obligations that hold whatever permit matched.
    #[serde(default)]
    floor: String,
}

/// What was imported.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// The agreement.
    pub id: AgreementId,
    /// The side that we are on.
    pub side: Party,
    /// The other party.
    pub peer: ParticipantId,
    /// `pending` until a steward approves it.
    pub state: AgreementState,
}

impl Exchange {
    /// Brings an agreement in; nothing happens under it before a steward has approved it. The same one again changes
    /// nothing.
    ///
    /// # Errors
    /// `agreement-file`, `policy-invalid`, `source-unavailable`, `peer-unknown`; `agreement-taken` where a different one
    /// has the id.
    pub async fn import_agreement(&self, file: &Path) -> Result<Imported, Refusal> {
        let unreadable = |path: &Path, error: std::io::Error| {
            Refusal::new("agreement-file", format!("{} can't be read: {error}", path.display()))
        };
        let text = tokio::fs::read_to_string(file).await.map_err(|error| unreadable(file, error))?;
        let described: AgreementFile = toml::from_str(&text)
            .map_err(|error| Refusal::new("agreement-file", format!("{}: {error}", file.display())))?;
        let path = file.with_file_name(&described.policy.file);
        let cedar = tokio::fs::read_to_string(&path).await.map_err(|error| unreadable(&path, error))?;
        self.partner(&described.peer)?;

        let format: Format = described.format.parse().map_err(refuse("format-unsupported"))?;
        let (columns, source) = match (described.side, &described.source) {
            (Party::Provider, Some(source)) => {
                let looked = self.header_of(source, format).await?;
                let pin = SourcePin {
                    path: source.clone(),
                    format: format.to_string(),
                    snapshot: looked.snapshot,
                    published: self.clock.now(),
                    extent: Some(looked.extent),
                };
                (looked.columns, Some(pin))
            }
            (Party::Provider, None) => {
                return Err(Refusal::new("agreement-file", "an agreement that we provide under names its `source`"));
            }
            (Party::Consumer, _) => (Columns::unknown(), None),
        };
        let global = self.global_policy().await?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let slice = Slice::compile(
            PolicySource { name: &name, text: &cedar },
            PolicySource { name: "policy.global", text: &global },
            &described.policy.floor,
            &self.config.policy.floor,
            &columns,
        )
        .map_err(refuse("policy-invalid"))?;
        let now = self.clock.now();
        let us: ParticipantId = self.us.clone().into();
        let provider = match described.side {
            Party::Provider => us.clone(),
            Party::Consumer => described.peer.clone(),
        };
        let offer = Offer {
            v: 1,
            id: OfferId::parse(described.id.as_str()).map_err(refuse("internal"))?,
            provider,
            dataset: DatasetDescription {
                id: described.dataset.clone(),
                title: described.title.clone(),
                description: described.reference.clone(),
                columns,
                collection: None,
                classification: None,
                quality: None,
                extent: source.as_ref().and_then(|pin| pin.extent),
                parents: Default::default(),
                distributions: vec![Distribution {
                    format: "HttpData-PULL".into(),
                    media_type: format.media_type().into(),
                }],
            },
            policy: OfferedPolicy {
                cedar,
                global,
                floor: described.policy.floor.clone(),
                connector_floor: self.config.policy.floor.clone(),
                zone: self.config.policy.zone,
                schema_sha256: slice.schema_sha256(),
                sha256: slice.sha256(),
                odrl: policy::odrl(&slice),
            },
            approval: described.approval,
            freshness_seconds: 24 * 3600,
            valid_from: described.valid_from.unwrap_or(now),
            valid_until: described.valid_until,
            supersedes: None,
            aud: None,
        };
        retry!(self.import_once(&described, &offer, &slice, source.as_ref()))
    }

    async fn import_once(
        &self,
        described: &AgreementFile,
        offer: &Offer,
        slice: &Slice,
        source: Option<&SourcePin>,
    ) -> Result<Imported, Refusal> {
        let partner = self.partner(&described.peer)?;
        let row = read::<AgreementRow>(&*self.store, &agreement::key(&described.id))
            .await
            .map_err(refuse("store-unreadable"))?;
        if let Some(known) = &row.value {
            let same = known.one_sided
                && known.ours == described.side
                && *known.peer() == described.peer
                && known.agreement.dataset == described.dataset
                && known.agreement.policy_sha256 == slice.sha256()
                && known.agreement.valid_until == described.valid_until;
            return if same {
                Ok(imported(known))
            } else {
                Err(Refusal::new(
                    "agreement-taken",
                    format!("a different agreement has the id `{}` already; nothing was changed", described.id),
                ))
            };
        }
        let signed = offer.sign(&self.keys.signing_kid(), &self.keys.signing).map_err(refuse("internal"))?;
        let secret = SeriesSecret(self.random.array());
        let (us, them) =
            (PartyFacts::plain(self.us.clone().into(), Some(self.own_statement())), PartyFacts::of(&partner));
        let (provider, consumer) = match described.side {
            Party::Provider => (us, them),
            Party::Consumer => (them, us),
        };
        let agreement = Agreement {
            v: 1,
            id: described.id.clone(),
            offer: signed.sha256(),
            offer_id: offer.id.clone(),
            dataset: described.dataset.clone(),
            provider,
            consumer,
            policy_sha256: slice.sha256(),
            manifest: manifest(slice),
            duties: agreement::duties(slice),
            series_secret_sha256: secret.sha256(),
            freshness_seconds: offer.freshness_seconds,
            valid_from: offer.valid_from,
            valid_until: offer.valid_until,
        };
        let ours = jws::sign(Typ::Agreement, &self.keys.signing_kid(), &self.keys.signing, &agreement)
            .map_err(refuse("internal"))?;
        let (by_provider, by_consumer) = match described.side {
            Party::Provider => (Some(ours), None),
            Party::Consumer => (None, Some(ours)),
        };
        let kept = AgreementRow {
            agreement,
            ours: described.side,
            // it came of none here
            negotiation: self.mint(),
            offer: signed,
            one_sided: true,
            approval: described.approval,
            by_provider,
            by_consumer,
            state: AgreementState::Pending,
            ended: None,
            series_secret: secret,
            source: source.cloned(),
            releases: Tally::default(),
            uses: Default::default(),
            payment: None,
            open: None,
            status: None,
        };
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Imported, Some(&kept));
        self.record_commitment(&mut commit, &mut receipt, "reference", described.reference.as_bytes());
        self.agreement_receipt(&mut commit, &kept, receipt)?;
        commit.put(&row, &kept).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        Ok(imported(&kept))
    }

    /// A steward's yes to an imported agreement: it is in force from now on.
    ///
    /// # Errors
    /// `agreement-unknown`; `agreement-not-imported`, `agreement-not-pending`.
    pub async fn approve_agreement(&self, id: &AgreementId, steward: &str) -> Result<Imported, Refusal> {
        retry!(self.approve_once(id, steward))
    }

    async fn approve_once(&self, id: &AgreementId, steward: &str) -> Result<Imported, Refusal> {
        let (row, mut agreement) = self.agreement(id).await?;
        if !agreement.one_sided {
            return Err(Refusal::new("agreement-not-imported", format!("agreement {id} was negotiated here")));
        }
        if agreement.state == AgreementState::Active {
            return Ok(imported(&agreement));
        }
        if agreement.state != AgreementState::Pending {
            return Err(Refusal::new(
                "agreement-not-pending",
                format!("agreement {id} is {}: it can't be approved any more", agreement.state.as_str()),
            ));
        }
        agreement.state = AgreementState::Active;
        let mut commit = Commit::new();
        let mut receipt = self.receipt(Kind::Approved, Some(&agreement));
        self.record_commitment(&mut commit, &mut receipt, "approver", steward.as_bytes());
        self.agreement_receipt(&mut commit, &agreement, receipt)?;
        commit.put(&row, &agreement).map_err(refuse("internal"))?;
        self.commit(commit).await?;
        Ok(imported(&agreement))
    }
}

fn imported(row: &AgreementRow) -> Imported {
    Imported { id: row.id().clone(), side: row.ours, peer: row.peer().clone(), state: row.state }
}
