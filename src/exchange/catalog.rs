//! Catalog: what a peer may discover here, and what we may discover there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::Method;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    agreement::{Delivery, Question, decide, principal_of_partner},
    crypto::jws::{Jws, Verified},
    error::Refusal,
    exchange::{Exchange, refuse},
    id::{DatasetId, Did, OfferId, ParticipantId, Sha256},
    identity::{Partner, Peer},
    offer::{self, LiveOffer, Offer, Sealing, SignedOffer},
    policy::{Action, ContextFact, Verdict},
    protocol::{
        Answer, Ask, BASE, CatalogPage, JSON, ProtocolError, VERSION, VERSION_PATH, ask,
        message::{self, Address, Catalog, CatalogRequest, Dataset, HTTP_PUSH, VersionResponse},
        outgoing,
    },
};

/// Datasets on a page.
const PAGE: usize = 100;
/// Most pages that we ask for.
const MAX_PAGES: usize = 1000;
/// Most bytes of an answer.
const MAX_ANSWER: usize = 8 << 20;
/// How long a peer may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// An entry of a partner's catalog.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogItem {
    /// The dataset.
    pub dataset: DatasetId,
    /// Its offer.
    pub offer: OfferId,
    /// Its title; a sealed offer's is inside.
    pub title: Option<String>,
    /// Whether it is sealed for us.
    pub sealed: bool,
    /// The offer's identity.
    pub offer_sha256: Option<Sha256>,
    /// How it can be had.
    pub formats: Vec<String>,
}

/// An offer that a partner made us, verified.
#[derive(Clone, Debug)]
pub struct RemoteOffer {
    /// The offer.
    pub offer: Verified<Offer>,
    /// Whether it came sealed.
    pub sealed: bool,
}

impl Exchange {
    /// The catalog as this peer may see it.
    pub(super) fn catalog_for(
        &self,
        partner: &Partner,
        request: &CatalogRequest,
        page: Option<&str>,
    ) -> Result<CatalogPage, ProtocolError> {
        let query = request.query()?;
        let from = match page {
            None => query.offset,
            Some(page) => page.parse().map_err(|_| ProtocolError::bad("page-unknown", "there is no such page"))?,
        };
        let limit = query.limit.map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(PAGE).clamp(1, PAGE));
        let mut dataset = Vec::new();
        let mut last: Option<DatasetId> = None;
        let mut seen: u64 = 0;
        let mut more = false;
        for live in self.offers.all() {
            let Some(signed) = self.discoverable(partner, &live) else { continue };
            // the first offer of a dataset stands for it
            if last.as_ref() == Some(&live.row.offer.dataset.id) {
                continue;
            }
            last = Some(live.row.offer.dataset.id.clone());
            // an entry is made only where it is looked at
            let entry = if query.criteria.is_empty() { None } else { Some(self.entry(partner, &live, signed)?) };
            if entry.as_ref().is_some_and(|entry| !query.criteria.iter().all(|criterion| criterion.fits(entry))) {
                continue;
            }
            seen += 1;
            if seen <= from {
                continue;
            }
            if dataset.len() == limit {
                more = true;
                break;
            }
            dataset.push(match entry {
                Some(entry) => entry,
                None => self.entry(partner, &live, signed)?,
            });
        }
        Ok(CatalogPage {
            catalog: Catalog {
                id: format!("{}{BASE}/catalog", self.root_for(partner)),
                participant_id: self.us.clone().into(),
                service: vec![offer::service(self.root_for(partner)).map_err(unusable)?],
                dataset,
                catalog: Vec::new(),
            },
            next: more.then(|| (from + limit as u64).to_string()),
        })
    }

    /// One dataset with its offer, signed, or sealed to this peer. Whatever this peer may not see doesn't exist.
    pub(super) fn dataset_for(&self, partner: &Partner, id: &DatasetId) -> Result<Dataset, ProtocolError> {
        let offers = self.offers.of_dataset(id);
        let (live, signed) = offers
            .iter()
            .filter(|live| live.row.withdrawn.is_none())
            .find_map(|live| Some((live, self.discoverable(partner, live)?)))
            .ok_or_else(ProtocolError::not_found)?;
        let mut dataset = self.entry(partner, live, signed)?;
        // a foreign connector takes the offer from its ODRL view
        let Some(peer) = partner.certificate() else { return Ok(dataset) };
        dataset.offer = Some(match &signed.aud {
            None => signed.jws.as_str().to_owned(),
            Some(_) => {
                let key = &peer.statement.keys.sealing;
                let kid = offer::sealing_kid(&peer.did, key);
                offer::seal(&signed.jws, &Sealing { key, kid: &kid }, &*self.random).map_err(unusable)?
            }
        });
        Ok(dataset)
    }

    /// The version of an offer that this peer may discover: it stands, is for everybody or for this peer, and the
    /// policy lets it.
    pub(super) fn discoverable<'a>(&self, partner: &Partner, live: &'a Arc<LiveOffer>) -> Option<&'a SignedOffer> {
        let now = self.clock.now();
        let slice = live.slice.as_ref().ok()?;
        let signed = live.row.version_for(&partner.id())?;
        let reachable = partner.certificate().is_some() || live.row.plain;
        if !reachable || live.row.withdrawn.is_some() || !live.row.offer.stands_at(now) {
            return None;
        }
        let allowed = || {
            let principal = principal_of_partner(partner.id(), partner.attributes());
            let question = Question {
                site: partner.attributes().physical_address.as_deref(),
                delivery: Delivery::file(partner.certificate().is_some()),
                ..Question::new(Action::Discover, principal, &live.row.offer, now)
            };
            decide(slice, &question).verdict == Verdict::Allow
        };
        let allowed = if slice.mentions(Action::Discover).contains(&ContextFact::Now) {
            // the answer may be another one in a moment
            allowed()
        } else {
            self.discoveries.remembered(partner, live, allowed)
        };
        allowed.then_some(signed)
    }

    fn entry(&self, partner: &Partner, live: &LiveOffer, signed: &SignedOffer) -> Result<Dataset, ProtocolError> {
        let root = self.root_for(partner);
        let mut entry =
            offer::entry(&live.row.offer, signed.jws.sha256(), signed.aud.is_some(), root).map_err(unusable)?;
        // foreign connectors have no sealed records to pull: the data can be brought to them, too
        if partner.certificate().is_none()
            && let Some(pull) = entry.distribution.first().cloned()
        {
            entry.distribution.push(message::Distribution { format: HTTP_PUSH.into(), ..pull });
        }
        Ok(entry)
    }

    /// A partner's catalog, all pages of it.
    pub async fn catalog_of(&self, provider: &ParticipantId) -> Result<Vec<CatalogItem>, Refusal> {
        let partner = self.partner(provider)?;
        let base = Address::parse(&partner.base()).map_err(refuse("peer-address"))?;
        if let Some(peer) = partner.certificate() {
            self.check_version(peer).await?;
        }
        let body = message::write(&CatalogRequest::default(), None).to_string();
        let mut url = base.join("/catalog/request");
        let mut items = Vec::new();
        for _ in 0..MAX_PAGES {
            let answer = self.ask_partner(&partner, Method::POST, &url, Some(body.as_bytes())).await?;
            let catalog: Catalog = answer.read(message::read)?;
            items.extend(catalog.clone().into_datasets().into_iter().flat_map(|dataset| {
                dataset.has_policy.clone().into_iter().map(move |offer| CatalogItem {
                    dataset: dataset.id.clone(),
                    offer: offer.id,
                    title: dataset.title.clone(),
                    sealed: dataset.title.is_none() && dataset.offer_sha256.is_some(),
                    offer_sha256: dataset.offer_sha256,
                    formats: dataset.distribution.iter().map(|distribution| distribution.format.clone()).collect(),
                })
            }));
            match answer.next(&base) {
                Some(next) => url = next,
                None => return Ok(items),
            }
        }
        Err(Refusal::new("catalog-endless", format!("the catalog has more than {MAX_PAGES} pages")))
    }

    /// A partner's offer of a dataset: opened if it is sealed, then verified.
    pub async fn offer_of(&self, did: &Did, dataset: &DatasetId) -> Result<RemoteOffer, Refusal> {
        let peer = self.peer(did)?;
        self.check_version(&peer).await?;
        let url = format!("{}{BASE}{}", peer.statement.endpoints.dsp, outgoing::dataset_path(dataset));
        let answer = self.ask(&peer, Method::GET, &url, None, None).await?;
        if answer.status == 404 {
            return Err(Refusal::new(
                "dataset-unknown",
                format!("`{did}` has no dataset `{dataset}` for us; see `counterseal catalog {did}`"),
            ));
        }
        let found: Dataset = answer.read(message::read)?;
        let text = found.offer.ok_or_else(|| {
            Refusal::new(
                "offer-missing",
                "the dataset came without a signed offer; the partner is no Counterseal connector",
            )
        })?;
        let sealed = text.split('.').count() == 5;
        let jws = if sealed {
            offer::unseal(&text, &self.keys.sealing).map_err(refuse("offer-sealed"))?
        } else {
            Jws::parse(text).map_err(refuse("offer-signature"))?
        };
        let offer =
            offer::verify(&jws, did, &self.us, |kid| self.peers.current_key(kid)).map_err(refuse("offer-signature"))?;
        if offer.payload().dataset.id != *dataset {
            return Err(Refusal::new("offer-mismatch", "the signed offer is about another dataset than was asked for"));
        }
        Ok(RemoteOffer { offer, sealed })
    }

    /// Asks a peer, once a statement, which versions of the protocol it speaks (DSP 2025-1 §4.3): ours must be among them,
    /// where we expect it.
    async fn check_version(&self, peer: &Arc<Peer>) -> Result<(), Refusal> {
        let known = (peer.did.clone(), peer.statement.seq);
        if self.spoken.lock().unwrap_or_else(PoisonError::into_inner).contains(&known) {
            return Ok(());
        }
        let url = format!("{}{VERSION_PATH}", peer.statement.endpoints.dsp);
        let answer = self.ask(peer, Method::GET, &url, None, None).await?;
        let versions: VersionResponse = serde_json::from_slice(&answer.body).map_err(|_| {
            Refusal::new(
                "version-unsupported",
                format!("`{}` does not say which protocol versions it speaks", peer.did),
            )
        })?;
        if versions.path() != Some(BASE) {
            let theirs: Vec<String> = versions
                .protocol_versions
                .iter()
                .map(|version| format!("{} at {}", version.version, version.path))
                .collect();
            return Err(Refusal::new(
                "version-unsupported",
                format!("`{}` speaks {}; we speak {VERSION} at {BASE}", peer.did, theirs.join(", ")),
            ));
        }
        self.spoken.lock().unwrap_or_else(PoisonError::into_inner).insert(known);
        Ok(())
    }

    /// One question to a partner of either kind, in its protocol.
    pub(super) async fn ask_partner(
        &self,
        partner: &Partner,
        method: Method,
        url: &str,
        body: Option<&[u8]>,
    ) -> Result<Answer, Refusal> {
        let authorization = self.authorization_for(partner)?;
        let client = self.clients.client_for(&partner.target(), url).map_err(refuse("peer-address"))?;
        let question = Ask {
            method,
            url,
            authorization: authorization.as_deref().map(String::as_str),
            content_type: JSON,
            body,
            limit: MAX_ANSWER,
            timeout: PATIENCE,
        };
        ask(&client, question).await.map_err(|problem| {
            Refusal::new("peer-unreachable", format!("`{}` could not be asked at {url}: {problem}", partner.id()))
        })
    }

    /// What a foreign connector wants to see in `Authorization`.
    pub(super) fn authorization_for(&self, partner: &Partner) -> Result<Option<Zeroizing<String>>, Refusal> {
        match partner {
            Partner::Certificate(_) => Ok(None),
            Partner::Token(peer) => std::fs::read_to_string(self.tokens.join(&peer.outbound))
                .map(|value| Some(Zeroizing::new(value)))
                .map_err(refuse("token-lost")),
        }
    }

    /// One question to a Counterseal peer.
    pub(super) async fn ask(
        &self,
        peer: &Peer,
        method: Method,
        url: &str,
        authorization: Option<&str>,
        body: Option<&[u8]>,
    ) -> Result<Answer, Refusal> {
        let client = self.clients.client_for(&peer.target(), url).map_err(refuse("peer-address"))?;
        let question =
            Ask { method, url, authorization, content_type: JSON, body, limit: MAX_ANSWER, timeout: PATIENCE };
        ask(&client, question).await.map_err(|problem| {
            Refusal::new("peer-unreachable", format!("`{}` could not be asked at {url}: {problem}", peer.did))
        })
    }
}

/// An answer of the extension's, or its refusal.
pub(super) fn parsed<T: serde::de::DeserializeOwned>(answer: &Answer) -> Result<T, Refusal> {
    if !(200..300).contains(&answer.status) {
        return Err(crate::protocol::extension::refusal_from(answer.status, &answer.body));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| Refusal::new("answer-invalid", format!("the provider's answer can't be read: {error}")))
}

/// Verdicts on discovering, by peer and offer, as long as both are the very ones that were decided on: a peer or an
/// offer that changes is another one in memory.
#[derive(Default)]
pub struct Discoveries(Mutex<HashMap<ParticipantId, Seen>>);

struct Seen {
    partner: Partner,
    verdicts: HashMap<OfferId, (Arc<LiveOffer>, bool)>,
}

impl Discoveries {
    fn remembered(&self, partner: &Partner, live: &Arc<LiveOffer>, decide: impl FnOnce() -> bool) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Seen { partner: partner.clone(), verdicts: HashMap::new() };
        let seen = known.entry(partner.id()).or_insert_with(fresh);
        if !seen.partner.is(partner) {
            *seen = fresh();
        }
        match seen.verdicts.get(&live.row.offer.id) {
            Some((decided, verdict)) if Arc::ptr_eq(decided, live) => *verdict,
            _ => {
                let verdict = decide();
                seen.verdicts.insert(live.row.offer.id.clone(), (live.clone(), verdict));
                verdict
            }
        }
    }
}

fn unusable(error: impl std::fmt::Display) -> ProtocolError {
    tracing::error!(%error, "an offer can't be shown");
    ProtocolError::busy("the catalog can't be shown at present")
}
