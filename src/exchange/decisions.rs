//! Decisions on record, with the requests that were decided and the policies that did: what the workbench explains and
//! decides again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    agreement::AgreementRow,
    crypto::{
        commitment,
        jws::{self, Typ},
    },
    error::Refusal,
    exchange::{Exchange, refuse},
    id::{AgreementId, OfferId, ReceiptId, Sha256},
    offer::Offer,
    policy::workbench::{Recorded, Terms},
    protocol::Party,
    receipt::{Filter, Kind, Stored, content_key},
    time::Timestamp,
};

/// Most decisions on a page.
const PAGE: usize = 500;

/// One decision with the policies that decided it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Explicable {
    /// The decision.
    pub decision: Recorded,
    /// The policies.
    pub terms: Terms,
}

/// Decisions under an agreement or an offer, in the order of their agreements and places.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DecisionPage {
    /// The decisions.
    pub decisions: Vec<Recorded>,
    /// The policies that decided these, by their slices' hashes, as far as they are here.
    pub terms: BTreeMap<Sha256, Terms>,
    /// What the offer says today; of an agreement, what was agreed.
    pub standing: Terms,
    /// Where the next page begins; none after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Which decisions.
#[derive(Clone, Debug)]
pub enum DecidedUnder {
    /// Under this agreement.
    Agreement(AgreementId),
    /// Under any agreement about this offer of ours, and negotiations about it.
    Offer(OfferId),
}

/// A page's place: in which agreement (none: in the negotiations that led to none), and from which receipt on.
struct Place(Option<AgreementId>, u64);

impl Place {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let wrong = || Refusal::new("cursor-invalid", format!("`{}` is no `next` of a page", harmless(text)));
        let (agreement, place) = text.rsplit_once('@').ok_or_else(wrong)?;
        let agreement = match agreement {
            "-" => None,
            id => Some(id.parse().map_err(|_| wrong())?),
        };
        Ok(Self(agreement, place.parse().map_err(|_| wrong())?))
    }

    fn written(&self) -> String {
        format!("{}@{}", self.0.as_ref().map_or("-", AgreementId::as_str), self.1)
    }
}

fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

impl Exchange {
    /// What was decided by the decision of this receipt, and by which policies.
    ///
    /// # Errors
    /// `receipt-unknown`, `receipt-undecided`, `contents-erased`, `content-differs`, `policy-gone`.
    pub async fn decision_of(&self, id: &ReceiptId) -> Result<Explicable, Refusal> {
        let stored = self.receipts.by_id(id).await.map_err(refuse("store-unreadable"))?;
        let stored = stored.ok_or_else(|| Refusal::new("receipt-unknown", format!("no receipt has the id `{id}`")))?;
        let Some(decision) = self.recorded(&stored).await? else {
            let kind = stored.receipt.kind.as_str();
            return Err(Refusal::new(
                "receipt-undecided",
                format!("receipt `{id}` ({kind}) tells of no decision of a policy: there is nothing to explain"),
            ));
        };
        if decision.request.is_none() {
            return Err(Refusal::new(
                "contents-erased",
                format!(
                    "the request that receipt `{id}` commits to was erased: what was decided still stands in the \
                     receipt, but not on which facts"
                ),
            ));
        }
        let terms = self.terms_of(&stored, &decision.policy_sha256).await?;
        let terms = terms.ok_or_else(|| {
            let hash = decision.policy_sha256;
            Refusal::new("policy-gone", format!("the policy that decided, {hash}, is not kept here any more"))
        })?;
        Ok(Explicable { decision, terms })
    }

    /// Decisions with their requests, a page at a time.
    ///
    /// # Errors
    /// `agreement-unknown`, `offer-unknown`, `cursor-invalid`.
    pub async fn decisions(
        &self,
        under: &DecidedUnder,
        since: Option<Timestamp>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<DecisionPage, Refusal> {
        let limit = limit.clamp(1, PAGE);
        let (agreements, standing) = self.walked(under).await?;
        let known: BTreeMap<Sha256, &AgreementRow> =
            agreements.iter().map(|row| (row.agreement.policy_sha256, row)).collect();
        let mut segments: Vec<Option<AgreementId>> = agreements.iter().map(|row| Some(row.id().clone())).collect();
        if matches!(under, DecidedUnder::Offer(_)) {
            segments.push(None);
        }
        let from = after.map(Place::parse).transpose()?;
        let begin = match &from {
            None => 0,
            Some(Place(segment, _)) => segments.iter().position(|known| known == segment).ok_or_else(|| {
                Refusal::new("cursor-invalid", "the page's agreement is none of these; begin anew without `after`")
            })?,
        };
        let mut page = DecisionPage { decisions: Vec::new(), terms: BTreeMap::new(), standing, next: None };
        let offers: BTreeSet<Sha256> = self.versions_of(under, &agreements);
        let mut place = from.map_or(0, |Place(_, place)| place);
        for segment in &segments[begin..] {
            let filter = Filter {
                agreement: segment.clone(),
                kind: segment.is_none().then_some(Kind::Negotiated),
                since,
                ..Filter::default()
            };
            loop {
                let found = self.receipts.list(&filter, place, PAGE).await.map_err(refuse("store-unreadable"))?;
                for stored in &found {
                    if page.decisions.len() == limit {
                        page.next = Some(Place(segment.clone(), stored.index).written());
                        return Ok(page);
                    }
                    let elsewhere = stored.receipt.agreement.is_some()
                        || stored.receipt.offer.is_none_or(|offer| !offers.contains(&offer));
                    if segment.is_none() && elsewhere {
                        continue;
                    }
                    let Some(decision) = self.recorded(stored).await? else { continue };
                    if !page.terms.contains_key(&decision.policy_sha256) {
                        let terms = match known.get(&decision.policy_sha256) {
                            Some(row) => Some(self.agreed_terms(row)?),
                            None => self.terms_of(stored, &decision.policy_sha256).await?,
                        };
                        page.terms.extend(terms.map(|terms| (decision.policy_sha256, terms)));
                    }
                    page.decisions.push(decision);
                }
                match found.last() {
                    Some(last) if found.len() == PAGE => place = last.index + 1,
                    _ => break,
                }
            }
            place = 0;
        }
        Ok(page)
    }

    /// The agreements that are meant, in a lasting order, and what stands today.
    async fn walked(&self, under: &DecidedUnder) -> Result<(Vec<AgreementRow>, Terms), Refusal> {
        match under {
            DecidedUnder::Agreement(id) => {
                let row = self.agreement_row(id).await?;
                let terms = self.agreed_terms(&row)?;
                Ok((vec![row], terms))
            }
            DecidedUnder::Offer(id) => {
                let mut rows = self.agreements().await?;
                // another provider may call an offer of its own the same
                rows.retain(|row| row.ours == Party::Provider && row.agreement.offer_id == *id);
                let standing = match (self.offers.get(id), rows.last()) {
                    (Some(live), _) => terms(&live.row.offer),
                    (None, Some(newest)) => self.agreed_terms(newest)?,
                    (None, None) => {
                        return Err(Refusal::new("offer-unknown", format!("no offer of ours has the id `{id}`")));
                    }
                };
                rows.sort_by(|a, b| a.id().cmp(b.id()));
                Ok((rows, standing))
            }
        }
    }

    /// The hashes of all signed versions of an offer that are known here.
    fn versions_of(&self, under: &DecidedUnder, agreements: &[AgreementRow]) -> BTreeSet<Sha256> {
        let DecidedUnder::Offer(id) = under else { return BTreeSet::new() };
        let mut versions: BTreeSet<Sha256> = agreements.iter().map(|row| row.agreement.offer).collect();
        if let Some(live) = self.offers.get(id) {
            versions.extend(live.row.signed.iter().map(|signed| signed.jws.sha256()));
            // re-signing and re-publishing leave the hash of the version before in the next
            versions.extend(live.row.signed.iter().filter_map(|signed| {
                let signer = &live.row.offer.provider;
                jws::verify::<Offer>(&signed.jws, Typ::Offer, signer, |kid| self.verifying_key(kid))
                    .ok()?
                    .payload()
                    .supersedes
            }));
        }
        versions
    }

    /// A receipt's decision; none if it tells of none. What is kept is what the receipt commits to.
    pub(super) async fn recorded(&self, stored: &Stored) -> Result<Option<Recorded>, Refusal> {
        let receipt = &stored.receipt;
        let Some(decision) = &receipt.decision else { return Ok(None) };
        let kept = self.store.get(&content_key(&receipt.id, "request")).await.map_err(refuse("store-unreadable"))?;
        let request = match kept {
            None => None,
            Some(bytes) => {
                let holds = bytes.split_first_chunk::<32>().filter(|(salt, request)| {
                    let committed = commitment(salt, request);
                    committed == decision.request_commit
                });
                let text = holds.and_then(|(_, request)| String::from_utf8(request.to_vec()).ok());
                Some(text.ok_or_else(|| {
                    Refusal::new(
                        "content-differs",
                        format!("the request that is kept is not what receipt `{}` commits to", receipt.id),
                    )
                })?)
            }
        };
        Ok(Some(Recorded {
            receipt: receipt.id.clone(),
            index: stored.index,
            time: receipt.time,
            kind: receipt.kind.as_str().to_owned(),
            agreement: receipt.agreement.clone(),
            consumer: receipt.consumer.clone(),
            action: receipt.action.clone(),
            verdict: decision.verdict.clone(),
            policies: decision.policies.clone(),
            reason: decision.reason.clone(),
            policy_sha256: decision.policy_sha256,
            request,
        }))
    }

    /// The policies of this hash: the agreement's, or of an offer that stands, or of any other agreement.
    async fn terms_of(&self, stored: &Stored, policy: &Sha256) -> Result<Option<Terms>, Refusal> {
        if let Some(id) = &stored.receipt.agreement {
            let row = self.agreement_row(id).await?;
            if row.agreement.policy_sha256 == *policy {
                return self.agreed_terms(&row).map(Some);
            }
        }
        let standing = self.offers.all().into_iter().find(|live| live.row.offer.policy.sha256 == *policy);
        if let Some(live) = standing {
            return Ok(Some(terms(&live.row.offer)));
        }
        let rows = self.agreements().await?;
        rows.iter().find(|row| row.agreement.policy_sha256 == *policy).map(|row| self.agreed_terms(row)).transpose()
    }

    /// The policies that were agreed. The decisions name them by their hash, so that nobody has to have signed yet.
    pub(super) fn agreed_terms(&self, row: &AgreementRow) -> Result<Terms, Refusal> {
        let verified = if row.one_sided {
            jws::verify::<Offer>(&row.offer, Typ::Offer, &self.us, |kid| self.verifying_key(kid))
        } else {
            jws::verify::<Offer>(&row.offer, Typ::Offer, &row.agreement.provider.id, |kid| self.verifying_key(kid))
        };
        Ok(terms(verified.map_err(refuse("offer-signature"))?.payload()))
    }
}

fn terms(offer: &Offer) -> Terms {
    Terms {
        offer: offer.id.as_str().to_owned(),
        cedar: offer.policy.cedar.clone(),
        global: offer.policy.global.clone(),
        floor: offer.policy.floor.clone(),
        connector_floor: offer.policy.connector_floor.clone(),
        zone: offer.policy.zone,
        columns: offer.dataset.columns.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_as_it_is_written_and_nothing_else_is_one() {
        let id = "urn:uuid:0190a000-0000-7000-8000-000000000000";
        for place in [format!("{id}@17"), "-@0".to_owned()] {
            assert_eq!(Place::parse(&place).unwrap().written(), place);
        }
        for wrong in ["", "17", "-@", "-@x", "@17", "\n@17"] {
            assert!(Place::parse(wrong).is_err_and(|refusal| refusal.is("cursor-invalid")), "{wrong:?}");
        }
    }
}
