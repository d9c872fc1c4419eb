//! Whose copy a leaked file was: the marks and pseudonyms of every release of a dataset, held against the file.
//!
//! The keys are derived here as they were for the releases, and never leave the process: what is told is what was found.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    agreement::AgreementRow,
    dataplane::{HashScope, ReleaseRow},
    error::Refusal,
    exchange::{Exchange, refuse},
    id::{AgreementId, DatasetId, OfferId, ParticipantId, ReleaseId, SnapshotId},
    policy::{ColumnRule, Columns, Facts, Obligations},
    protocol::Party,
    receipt::{Filter, Kind, list},
    source::{Format, Opened, Roots, each_row},
    transform::{self, Candidate, Found, Hashed, Verdict},
};

/// Rows read at a time.
const PAGE: usize = 1000;
/// Most text of one column of the source that is kept to make its pseudonyms again.
const MOST_VALUES: usize = 256 << 20;

/// What is to be traced.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TraceRequest {
    /// The leaked file, as the connector sees it: an absolute path.
    pub file: PathBuf,
    /// `csv`, `jsonl`, `json` or `parquet`.
    pub format: String,
    /// The dataset that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetId>,
    /// Or an offer of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<OfferId>,
}

/// What was found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Traced {
    /// The dataset.
    pub dataset: DatasetId,
    /// Whose it was: several where copies were put together; nobody where nobody can be named.
    pub named: Vec<Recipient>,
    /// Everybody whose copy carries marks or pseudonyms, and what was found of each.
    pub candidates: Vec<Recipient>,
    /// Releases that carry neither: by these, nobody can be named.
    pub untraceable: Vec<ReleaseId>,
    /// What could not be looked at, and why.
    pub notes: Vec<String>,
}

/// Somebody who got copies under one agreement, all of them treated alike.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recipient {
    /// Who.
    pub participant: ParticipantId,
    /// Under which agreement.
    pub agreement: AgreementId,
    /// By which releases.
    pub releases: Vec<ReleaseId>,
    /// The chance that the best of the marks agrees so well by itself, for anybody of all candidates, as a decimal
    /// logarithm: −9 is one in a billion.
    pub chance_log10: f64,
    /// Whether pseudonyms were found that only this recipient's key makes: then nothing is left to chance.
    pub certain: bool,
    /// A line a mark.
    pub marks: Vec<Mark>,
    /// A line a hashed column.
    pub pseudonyms: Vec<Pseudonyms>,
}

/// What was found of a mark.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mark {
    /// The marked column.
    pub column: String,
    /// Columns that the file lacks, without which the mark can't be read.
    pub missing: Vec<String>,
    /// Rows that this recipient's key marks.
    pub marked: u64,
    /// How many of them agree.
    pub matching: u64,
    /// The chance that so many agree by themselves, as a decimal logarithm.
    pub chance_log10: f64,
}

/// What was found of a hashed column.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pseudonyms {
    /// The column.
    pub column: String,
    /// Whether the file lacks it.
    pub missing: bool,
    /// Distinct pseudonyms in the file.
    pub leaked: u64,
    /// How many of them only this recipient's key makes.
    pub matching: u64,
}

/// A release of the dataset, as far as tracing goes.
struct Release {
    id: ReleaseId,
    agreement: AgreementId,
    peer: ParticipantId,
    origin: Origin,
    obligations: Obligations,
}

/// Of what a release was made.
struct Origin {
    source: String,
    format: String,
    snapshot: SnapshotId,
    columns: Columns,
}

/// What tells copies apart that went out under one agreement.
type Treatment = (BTreeMap<String, BTreeSet<String>>, BTreeMap<String, String>);

/// Copies that are treated alike under one agreement.
struct Suspect {
    peer: ParticipantId,
    releases: Vec<ReleaseId>,
    origin: Origin,
    scope: HashScope,
    treatment: Treatment,
}

impl Exchange {
    /// Reads a leaked file and says whose copy it was.
    ///
    /// # Errors
    /// `trace-vague`, `dataset-unknown`, `offer-unknown`, `format-unsupported`, `leak-unreadable`.
    pub async fn trace(&self, request: TraceRequest) -> Result<Traced, Refusal> {
        let dataset = self.traced_dataset(&request).await?;
        let format: Format = request.format.parse().map_err(refuse("format-unsupported"))?;
        let leak = opened(&request.file)?;
        let mut notes = Vec::new();
        let releases = self.releases_of(&dataset, &mut notes).await?;
        if releases.is_empty() && notes.is_empty() {
            return Err(Refusal::new(
                "dataset-unknown",
                format!("nothing of dataset `{dataset}` was ever released here"),
            ));
        }
        let (suspects, untraceable) = self.suspects(releases);
        let roots = self.roots.clone();
        let found = tokio::task::spawn_blocking(move || {
            let found = hold_against(leak, format, &suspects, &roots, &mut notes)?;
            Ok::<_, Refusal>((found, suspects, notes))
        });
        let (found, suspects, notes) = found.await.map_err(refuse("internal"))??;
        Ok(told(dataset, &found, &suspects, untraceable, notes))
    }

    async fn traced_dataset(&self, request: &TraceRequest) -> Result<DatasetId, Refusal> {
        match (&request.dataset, &request.offer) {
            (Some(dataset), None) => Ok(dataset.clone()),
            (None, Some(id)) => {
                if let Some(live) = self.offers.get(id) {
                    return Ok(live.row.offer.dataset.id.clone());
                }
                let rows = self.agreements().await?;
                let ours = rows.iter().find(|row| row.ours == Party::Provider && row.agreement.offer_id == *id);
                ours.map(|row| row.agreement.dataset.clone())
                    .ok_or_else(|| Refusal::new("offer-unknown", format!("no offer of ours has the id `{id}`")))
            }
            _ => Err(Refusal::new("trace-vague", "name one of: a dataset, an offer of it")),
        }
    }

    /// Every release of a dataset of ours, under whatever offer; plain ones are decided again, since they leave no row.
    async fn releases_of(&self, dataset: &DatasetId, notes: &mut Vec<String>) -> Result<Vec<Release>, Refusal> {
        let unreadable = refuse("store-unreadable");
        let agreements: BTreeMap<AgreementId, AgreementRow> = self
            .agreements()
            .await?
            .into_iter()
            .filter(|row| row.ours == Party::Provider && row.agreement.dataset == *dataset)
            .map(|row| (row.id().clone(), row))
            .collect();
        let mut releases = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = list::<ReleaseRow>(&*self.store, ReleaseRow::PREFIX.as_bytes(), after.as_deref(), PAGE).await;
            let rows = rows.map_err(&unreadable)?;
            let Some(last) = rows.last() else { break };
            after = Some(last.key.clone());
            let of_dataset = rows.into_iter().filter_map(|row| row.value);
            releases.extend(of_dataset.filter(|row| agreements.contains_key(&row.agreement)).map(|row| Release {
                id: row.id,
                agreement: row.agreement,
                peer: row.peer,
                origin: Origin { source: row.source, format: row.format, snapshot: row.snapshot, columns: row.columns },
                obligations: row.obligations,
            }));
        }
        for row in agreements.values().filter(|row| row.one_sided) {
            self.plain_releases(row, &mut releases, notes).await?;
        }
        Ok(releases)
    }

    async fn plain_releases(
        &self,
        row: &AgreementRow,
        releases: &mut Vec<Release>,
        notes: &mut Vec<String>,
    ) -> Result<(), Refusal> {
        let filter = Filter { agreement: Some(row.id().clone()), kind: Some(Kind::Released), ..Filter::default() };
        let terms = self.agreed_terms(row)?;
        let slice = terms.compile().map_err(refuse("policy-unusable"))?;
        let mut from = 0;
        loop {
            let page = self.receipts.list(&filter, from, PAGE).await.map_err(refuse("store-unreadable"))?;
            let Some(last) = page.last() else { return Ok(()) };
            from = last.index + 1;
            for stored in &page {
                let (Some(id), Some(pin)) = (stored.receipt.release.clone(), row.source.clone()) else { continue };
                let request = self.recorded(stored).await?.and_then(|recorded| recorded.request);
                let facts = request.and_then(|request| Facts::read(request.as_bytes()).ok());
                let Some(facts) = facts else {
                    notes.push(format!(
                        "release {id} to {}: what was done to it can't be told any more, since its request was erased",
                        row.peer()
                    ));
                    continue;
                };
                releases.push(Release {
                    id,
                    agreement: row.id().clone(),
                    peer: row.peer().clone(),
                    origin: Origin {
                        source: pin.path,
                        format: pin.format,
                        snapshot: pin.snapshot,
                        columns: terms.columns.clone(),
                    },
                    obligations: slice.decide(&facts).obligations,
                });
            }
        }
    }

    /// Releases with marks or pseudonyms, alike ones together; and those that have neither.
    fn suspects(&self, releases: Vec<Release>) -> (Vec<Suspect>, Vec<ReleaseId>) {
        let mut suspects: Vec<Suspect> = Vec::new();
        let mut untraceable = Vec::new();
        for release in releases {
            let hashed = release.obligations.columns.iter().filter_map(|(column, rule)| match rule {
                ColumnRule::Hash(domain) => Some((column.clone(), domain.clone())),
                _ => None,
            });
            let treatment: Treatment = (release.obligations.watermark.clone(), hashed.collect());
            if treatment.0.is_empty() && treatment.1.is_empty() {
                untraceable.push(release.id);
                continue;
            }
            let alike = suspects.iter_mut().find(|suspect| {
                suspect.scope.agreement == release.agreement
                    && suspect.treatment == treatment
                    && suspect.origin.snapshot == release.origin.snapshot
            });
            if let Some(alike) = alike {
                alike.releases.push(release.id);
                continue;
            }
            suspects.push(Suspect {
                peer: release.peer,
                releases: vec![release.id],
                origin: release.origin,
                scope: HashScope { master: self.keys.master.clone(), agreement: release.agreement },
                treatment,
            });
        }
        (suspects, untraceable)
    }
}

/// A regular file, wherever it is: the steward says so.
fn opened(path: &Path) -> Result<File, Refusal> {
    let wrong = |problem: String| Refusal::new("leak-unreadable", format!("{}: {problem}", path.display()));
    if !path.is_absolute() {
        return Err(wrong("give an absolute path: the connector runs in another folder".into()));
    }
    let is_file = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.is_file();
    if !is_file {
        return Err(wrong("is no regular file".into()));
    }
    File::open(path).map_err(|error| wrong(error.to_string()))
}

/// The distinct values of the columns of a source whose pseudonyms are wanted.
type Values = BTreeMap<String, Arc<Vec<String>>>;
/// A source's state, as it is written.
type SnapshotText = String;

fn hold_against(
    leak: File,
    format: Format,
    suspects: &[Suspect],
    roots: &Roots,
    notes: &mut Vec<String>,
) -> Result<Vec<Found>, Refusal> {
    let mut wanted: BTreeMap<SnapshotText, (&Origin, BTreeSet<&str>)> = BTreeMap::new();
    for suspect in suspects {
        let of = wanted.entry(suspect.origin.snapshot.to_string()).or_insert((&suspect.origin, BTreeSet::new()));
        of.1.extend(suspect.treatment.1.keys().map(String::as_str));
    }
    let mut values: BTreeMap<SnapshotText, Values> = BTreeMap::new();
    for (snapshot, (origin, columns)) in wanted.into_iter().filter(|(_, (_, columns))| !columns.is_empty()) {
        match values_of(origin, &columns, roots, notes) {
            Ok(found) => drop(values.insert(snapshot, found)),
            Err(problem) => notes.push(format!("`{}`: {problem}; marks alone are looked at", origin.source)),
        }
    }
    let candidates = suspects.iter().enumerate().map(|(place, suspect)| {
        let values = values.get(&suspect.origin.snapshot.to_string());
        let hashes = suspect.treatment.1.iter().filter_map(|(column, domain)| {
            let values = values?.get(column)?.clone();
            let each = (0..values.len()).map(move |at| values[at].clone());
            Some(Hashed { column: column.clone(), domain: domain.clone(), values: Box::new(each) })
        });
        Candidate {
            name: place.to_string(),
            key: &suspect.scope,
            watermark: suspect.treatment.0.clone(),
            hashes: hashes.collect(),
        }
    });
    transform::trace(leak, format, candidates.collect()).map_err(refuse("leak-unreadable"))
}

fn values_of(
    origin: &Origin,
    wanted: &BTreeSet<&str>,
    roots: &Roots,
    notes: &mut Vec<String>,
) -> Result<Values, String> {
    let Origin { source: path, format, snapshot, columns } = origin;
    let opened: Opened = roots.open(path).map_err(|error| error.to_string())?;
    if opened.snapshot() != *snapshot {
        return Err("was replaced since the release, so that its pseudonyms can't be made again".into());
    }
    let format: Format = format.parse().map_err(|error: crate::source::SourceError| error.to_string())?;
    struct Column<'a> {
        name: &'a str,
        place: usize,
        values: HashSet<String>,
        bytes: usize,
    }
    let places = columns.iter().enumerate().filter(|(_, column)| wanted.contains(column.name.as_str()));
    let mut kept: Vec<Column<'_>> =
        places.map(|(place, column)| Column { name: &column.name, place, values: HashSet::new(), bytes: 0 }).collect();
    let mut scratch = String::new();
    each_row(&opened, format, columns, &mut |row| {
        for column in &mut kept {
            let text = row.text(column.place, &mut scratch)?;
            if column.bytes <= MOST_VALUES && !column.values.contains(text) {
                column.bytes += text.len() + size_of::<String>();
                column.values.insert(text.to_owned());
            }
        }
        Ok(true)
    })
    .map_err(|error| error.to_string())?;
    let mut values = Values::new();
    for column in kept {
        if column.bytes > MOST_VALUES {
            notes.push(format!(
                "`{path}`: column `{}` has too many values to make all its pseudonyms again; it is not looked at",
                column.name
            ));
        } else {
            values.insert(column.name.to_owned(), Arc::new(column.values.into_iter().collect()));
        }
    }
    Ok(values)
}

fn told(
    dataset: DatasetId,
    found: &[Found],
    suspects: &[Suspect],
    untraceable: Vec<ReleaseId>,
    notes: Vec<String>,
) -> Traced {
    // the more are asked, the more often chance answers
    let asked = found.iter().map(|found| found.marks.len()).sum::<usize>().max(1) as f64;
    let mut candidates = Vec::new();
    let named = match transform::verdict(found) {
        Verdict::Nobody => Vec::new(),
        Verdict::Named { names } => names,
    };
    let mut named_ones = Vec::new();
    for (found, suspect) in found.iter().zip(suspects) {
        let best = found.marks.iter().map(|mark| mark.chance_log10).fold(0.0, f64::min);
        let recipient = Recipient {
            participant: suspect.peer.clone(),
            agreement: suspect.scope.agreement.clone(),
            releases: suspect.releases.clone(),
            chance_log10: (best + asked.log10()).min(0.0),
            certain: found.pseudonyms.iter().any(|found| found.matching > 0),
            marks: found
                .marks
                .iter()
                .map(|mark| Mark {
                    column: mark.column.clone(),
                    missing: mark.missing.clone(),
                    marked: mark.marked,
                    matching: mark.matching,
                    chance_log10: mark.chance_log10,
                })
                .collect(),
            pseudonyms: found
                .pseudonyms
                .iter()
                .map(|found| Pseudonyms {
                    column: found.column.clone(),
                    missing: found.missing,
                    leaked: found.leaked,
                    matching: found.matching,
                })
                .collect(),
        };
        if named.contains(&found.name) {
            named_ones.push(recipient.clone());
        }
        candidates.push(recipient);
    }
    Traced { dataset, named: named_ones, candidates, untraceable, notes }
}
