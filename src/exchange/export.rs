//! Export: what the operator hands to a verifier.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    agreement::AgreementRow,
    crypto::b64,
    error::Refusal,
    evidence::{
        About, Bundle, Content, ExportedAgreement, ExportedReceipt, Scope,
        folder::{self, Files},
    },
    exchange::{Exchange, refuse},
    id::{AgreementId, ParticipantId, Sha256},
    policy::SCHEMA,
    receipt::{Filter, Kind, LogProof, Receipt, Stored, checkpoint::Checkpoint, content_key},
};

/// Receipts and entries read at a time.
const PAGE: usize = 1000;

impl Exchange {
    /// The export's files, signed.
    pub async fn export_files(&self, scope: Scope, contents: bool) -> Result<Files, Refusal> {
        let bundle = self.export(scope, contents).await?;
        folder::files(&bundle, &self.keys.signing_kid(), &self.keys.signing).map_err(refuse("export-too-large"))
    }

    /// What a scope asks for, and nothing of any other partner. `contents`: with the requests and purposes that the
    /// receipts commit to, as far as they were not erased.
    pub async fn export(&self, scope: Scope, contents: bool) -> Result<Bundle, Refusal> {
        let unreadable = refuse("store-unreadable");
        if let Some(id) = &scope.agreement {
            self.agreement(id).await?;
        }
        let newest = self.log.checkpoint().await.map_err(&unreadable)?;
        let (checkpoint, note) = newest.ok_or_else(|| Refusal::new("log-empty", "there are no receipts yet"))?;
        let mut entries = Vec::new();
        while (entries.len() as u64) < checkpoint.size {
            let page = PAGE.min((checkpoint.size - entries.len() as u64) as usize);
            entries.extend(self.log.entries(entries.len() as u64, page).await.map_err(&unreadable)?);
        }
        let receipts = self.selected(&scope, checkpoint.size).await?;
        let agreements = self.agreements_of(&scope, &receipts).await?;
        let partner = self.only_partner(&scope).await?;
        let mut bundle = Bundle {
            about: About {
                v: 1,
                exporter: self.us.clone(),
                epoch: self.log.epoch().await.map_err(&unreadable)?,
                made: self.clock.now(),
                scope,
            },
            statements: [(self.us.clone(), self.statements.clone())].into(),
            checkpoint: note,
            checkpoints: BTreeMap::new(),
            entries,
            agreements: Vec::new(),
            offers: self.offers_of(&agreements, &receipts, partner.as_ref()),
            schema: SCHEMA.to_owned(),
            receipts: Vec::new(),
            halves: Vec::new(),
            alarms: Vec::new(),
            anchors: Vec::new(),
        };
        for stored in receipts {
            bundle.receipts.push(self.exported(stored, &checkpoint, &bundle.checkpoint, contents).await?);
        }
        let mut partners: BTreeSet<ParticipantId> = partner.iter().cloned().collect();
        for row in agreements {
            partners.insert(row.peer().clone());
            bundle.halves.extend(self.receipts.halves(row.id()).await.map_err(&unreadable)?);
            bundle.agreements.push(ExportedAgreement {
                by_provider: row.by_provider,
                by_consumer: row.by_consumer,
                offer: row.offer,
                series_secret: row.series_secret,
            });
        }
        for partner in &partners {
            if let Some(peer) = self.peers.by_did(partner) {
                bundle.statements.insert(peer.did.clone(), peer.history.clone());
            }
        }
        self.add_cosignatures(&mut bundle, &partners, checkpoint.size).await?;
        bundle.alarms = self.alarms().await?;
        bundle.alarms.retain(|alarm| partners.contains(&ParticipantId::from(alarm.peer.clone())));
        bundle.anchors = self.anchors().await?;
        Ok(bundle)
    }

    /// The receipts of a scope, and those that say when our keys changed.
    async fn selected(&self, scope: &Scope, size: u64) -> Result<Vec<Stored>, Refusal> {
        let filter = Filter {
            agreement: scope.agreement.clone(),
            peer: scope.peer.clone(),
            kind: scope.kind,
            verdict: scope.verdict.clone(),
            since: scope.since,
            until: scope.until,
        };
        let mut found: BTreeMap<u64, Stored> = BTreeMap::new();
        for filter in [filter, Filter { kind: Some(Kind::Rotated), ..Filter::default() }] {
            let mut from = 0;
            loop {
                let page = self.receipts.list(&filter, from, PAGE).await.map_err(refuse("store-unreadable"))?;
                let Some(last) = page.last() else { break };
                from = last.index + 1;
                let ours = |receipt: &Receipt| receipt.kind == Kind::Rotated && receipt.consumer.is_none();
                let wanted = |stored: &Stored| {
                    filter.kind != Some(Kind::Rotated) || scope.kind == filter.kind || ours(&stored.receipt)
                };
                found.extend(page.into_iter().filter(wanted).map(|stored| (stored.index, stored)));
            }
        }
        Ok(found.into_values().filter(|stored| stored.index < size).collect())
    }

    /// The agreements of a scope: whole, or one-sided by their nature.
    async fn agreements_of(&self, scope: &Scope, receipts: &[Stored]) -> Result<Vec<AgreementRow>, Refusal> {
        let named: BTreeSet<&AgreementId> =
            receipts.iter().filter_map(|stored| stored.receipt.agreement.as_ref()).collect();
        let everything = *scope == Scope::default();
        let wanted = |row: &AgreementRow| {
            let whole = row.one_sided || row.by_provider.is_some() && row.by_consumer.is_some();
            let asked = scope.agreement.as_ref() == Some(row.id())
                || scope.is_whole() && scope.peer.as_ref() == Some(row.peer());
            whole && (everything || asked || named.contains(row.id()))
        };
        Ok(self.agreements().await?.into_iter().filter(wanted).collect())
    }

    /// The one partner that a scope is about.
    async fn only_partner(&self, scope: &Scope) -> Result<Option<ParticipantId>, Refusal> {
        match (&scope.peer, &scope.agreement) {
            (Some(peer), _) => Ok(Some(peer.clone())),
            (None, Some(agreement)) => Ok(Some(self.agreement(agreement).await?.1.peer().clone())),
            (None, None) => Ok(None),
        }
    }

    /// Offers of ours whose policies decided in these receipts, besides the agreements' own: those for everybody, or for
    /// the partner that the export is about.
    fn offers_of(
        &self,
        agreements: &[AgreementRow],
        receipts: &[Stored],
        partner: Option<&ParticipantId>,
    ) -> Vec<crate::crypto::jws::Jws> {
        let known: BTreeSet<Sha256> = agreements.iter().map(|row| row.agreement.policy_sha256).collect();
        let needed: BTreeSet<Sha256> = receipts
            .iter()
            .filter_map(|stored| Some(stored.receipt.decision.as_ref()?.policy_sha256))
            .filter(|policy| !known.contains(policy))
            .collect();
        // of a sealed offer, the version for this partner; where the export is about all, one of them
        let all = self.offers.all();
        let wanted = all.iter().filter(|live| needed.contains(&live.row.offer.policy.sha256));
        wanted
            .filter_map(|live| {
                live.row.signed.iter().find(|signed| match (&signed.aud, partner) {
                    (Some(aud), Some(partner)) => partner == aud,
                    _ => true,
                })
            })
            .map(|signed| signed.jws.clone())
            .collect()
    }

    async fn exported(
        &self,
        stored: Stored,
        checkpoint: &Checkpoint,
        note: &str,
        contents: bool,
    ) -> Result<ExportedReceipt, Refusal> {
        let path = self.log.prove_inclusion(stored.index, checkpoint.size).await.map_err(refuse("store-unreadable"))?;
        let proof = LogProof { index: stored.index, path: path.unwrap_or_default(), checkpoint: note.to_owned() };
        let mut exported = ExportedReceipt {
            index: stored.index,
            number: stored.number,
            jws: stored.jws,
            proof: proof.to_string(),
            contents: BTreeMap::new(),
        };
        if contents {
            let request = stored.receipt.decision.as_ref().map(|_| "request");
            for name in stored.receipt.commitments.keys().map(String::as_str).chain(request) {
                let kept =
                    self.store.get(&content_key(&stored.receipt.id, name)).await.map_err(refuse("store-unreadable"))?;
                let content = kept.as_deref().and_then(|bytes| {
                    let (salt, text) = bytes.split_first_chunk::<32>()?;
                    Some(Content { salt: b64(salt), text: String::from_utf8(text.to_vec()).ok()? })
                });
                if let Some(content) = content {
                    exported.contents.insert(name.to_owned(), content);
                }
            }
        }
        Ok(exported)
    }

    /// Cosignatures by these partners, of checkpoints up to this size.
    async fn add_cosignatures(
        &self,
        bundle: &mut Bundle,
        partners: &BTreeSet<ParticipantId>,
        size: u64,
    ) -> Result<(), Refusal> {
        let mut from = 0;
        loop {
            let page = self.cosignatures(from, PAGE).await?;
            let (Some(last), full) = (page.last(), page.len() == PAGE) else { return Ok(()) };
            // those of one size may go on on the next page
            from = if last.size == from { last.size + 1 } else { last.size };
            for cosigned in page {
                let there = bundle.checkpoints.get(&cosigned.size).is_some_and(|note| note.contains(&cosigned.line));
                if there || cosigned.size > size || !partners.contains(&ParticipantId::from(cosigned.witness.clone())) {
                    continue;
                }
                if cosigned.size == size {
                    bundle.checkpoint.push_str(&cosigned.line);
                }
                bundle.checkpoints.entry(cosigned.size).or_insert(cosigned.note).push_str(&cosigned.line);
            }
            if !full {
                return Ok(());
            }
        }
    }
}
