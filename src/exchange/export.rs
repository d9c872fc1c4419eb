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
    receipt::{Epoch, Filter, Kind, Log, LogProof, Receipt, Stored, checkpoint::Checkpoint, content_key},
};

/// Receipts and entries read at a time.
const PAGE: usize = 1000;

impl Exchange {
    /// The files of an export of our newest log, signed.
    pub async fn export_files(&self, scope: Scope, contents: bool) -> Result<Files, Refusal> {
        self.export_files_of(None, scope, contents).await
    }

    /// The files of an export of this log of ours, the newest if none is named, signed.
    pub async fn export_files_of(&self, epoch: Option<u64>, scope: Scope, contents: bool) -> Result<Files, Refusal> {
        let bundle = self.export_of(epoch, scope, contents).await?;
        folder::files(&bundle, &self.keys.signing_kid(), &self.keys.signing).map_err(refuse("export-too-large"))
    }

    /// An export of our newest log.
    pub async fn export(&self, scope: Scope, contents: bool) -> Result<Bundle, Refusal> {
        self.export_of(None, scope, contents).await
    }

    /// What a scope asks for, and nothing of any other partner. `contents`: with the requests and purposes that the
    /// receipts commit to, as far as they were not erased. `epoch`: which of our logs, the newest if none is named.
    pub async fn export_of(&self, epoch: Option<u64>, scope: Scope, contents: bool) -> Result<Bundle, Refusal> {
        let unreadable = refuse("store-unreadable");
        if let Some(id) = &scope.agreement {
            self.agreement(id).await?;
        }
        let newest = self.log.epoch().await.map_err(&unreadable)?;
        let log = match self.log.of_epoch(epoch.unwrap_or(newest)).await.map_err(&unreadable)? {
            Some(log) => log,
            None => {
                let known = self.log.epochs().await.map_err(&unreadable)?;
                let known = known.iter().map(|known| known.epoch.to_string()).collect::<Vec<_>>().join(", ");
                let sentence = format!("there is no log {} of ours; there are {known}", epoch.unwrap_or(newest));
                return Err(Refusal::new("epoch-unknown", sentence));
            }
        };
        let of = log.now().await.map_err(&unreadable)?;
        if of.size == 0 {
            return Err(Refusal::new("log-empty", "there are no receipts yet"));
        }
        let (checkpoint, note) =
            (Checkpoint::claimed(&of.checkpoint).map_err(&refuse("internal"))?, of.checkpoint.clone());
        let mut entries = Vec::new();
        while (entries.len() as u64) < checkpoint.size {
            let page = PAGE.min((checkpoint.size - entries.len() as u64) as usize);
            entries.extend(log.entries(entries.len() as u64, page).await.map_err(&unreadable)?);
        }
        let partner = self.only_partner(&scope).await?;
        let receipts = self.selected(&scope, &of, partner.as_ref()).await?;
        let agreements = self.agreements_of(&scope, &receipts).await?;
        let mut bundle = Bundle {
            about: About { v: 1, exporter: self.us.clone(), epoch: of.epoch, made: self.clock.now(), scope },
            statements: [(self.us.clone(), self.statements.clone())].into(),
            checkpoint: note,
            checkpoints: BTreeMap::new(),
            entries,
            agreements: Vec::new(),
            offers: self.offers_of(&agreements, &receipts, partner.as_ref()),
            schema: SCHEMA.to_owned(),
            receipts: Vec::new(),
            halves: Vec::new(),
            recovered: Vec::new(),
            alarms: Vec::new(),
            anchors: Vec::new(),
        };
        for stored in receipts {
            bundle.receipts.push(self.exported(stored, &log, &of, contents).await?);
        }
        let mut partners: BTreeSet<ParticipantId> = partner.iter().cloned().collect();
        for row in agreements {
            partners.insert(row.peer().clone());
            bundle.halves.extend(self.receipts.halves(row.id()).await.map_err(&unreadable)?);
            let recovered = self.recovered(row.id()).await?.into_iter();
            // the newest export has all of them: of a log that was lost whole there is no other
            let all = of.epoch == newest;
            bundle.recovered.extend(recovered.filter(|half| all || half.log().as_ref() == Some(&checkpoint.origin)));
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
        self.add_cosignatures(&mut bundle, &partners, &of).await?;
        bundle.alarms = self.alarms().await?;
        bundle.alarms.retain(|alarm| partners.contains(&ParticipantId::from(alarm.peer.clone())));
        let anchors = self.anchors().await?.into_iter();
        let of_this = |note: &str| Checkpoint::claimed(note).is_ok_and(|anchored| anchored.origin == checkpoint.origin);
        bundle.anchors = anchors.filter(|anchor| of_this(&anchor.note)).collect();
        Ok(bundle)
    }

    /// The receipts of a scope in one log, and those that say when our keys changed, and which log was before.
    async fn selected(
        &self,
        scope: &Scope,
        of: &Epoch,
        partner: Option<&ParticipantId>,
    ) -> Result<Vec<Stored>, Refusal> {
        let filter = Filter {
            agreement: scope.agreement.clone(),
            peer: scope.peer.clone(),
            kind: scope.kind,
            verdict: scope.verdict.clone(),
            since: scope.since,
            until: scope.until,
        };
        let of_kind = |kind| Filter { kind: Some(kind), ..Filter::default() };
        // our own life, and what is about the partner that the export is about
        let ours = |receipt: &Receipt| receipt.consumer.is_none() || receipt.consumer.as_ref() == partner;
        let end = of.first + of.size;
        let mut found: BTreeMap<u64, Stored> = BTreeMap::new();
        for (filter, all) in [(filter, true), (of_kind(Kind::Rotated), false), (of_kind(Kind::Restored), false)] {
            let mut from = of.first;
            loop {
                let page = self.receipts.list(&filter, from, PAGE).await.map_err(refuse("store-unreadable"))?;
                let Some(last) = page.last().filter(|_| from < end) else { break };
                from = last.index + 1;
                let wanted = |stored: &Stored| stored.index < end && (all || ours(&stored.receipt));
                found.extend(page.into_iter().filter(wanted).map(|stored| (stored.index, stored)));
            }
        }
        Ok(found.into_values().collect())
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
        log: &Log,
        of: &Epoch,
        contents: bool,
    ) -> Result<ExportedReceipt, Refusal> {
        let index = stored.index - of.first;
        let path = log.prove_inclusion(index, of.size).await.map_err(refuse("store-unreadable"))?;
        let proof = LogProof { index, path: path.unwrap_or_default(), checkpoint: of.checkpoint.clone() };
        let mut exported = ExportedReceipt {
            index,
            number: stored.number,
            jws: stored.jws,
            proof: proof.to_string(),
            contents: BTreeMap::new(),
        };
        if contents {
            for name in stored.receipt.contents() {
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

    /// Cosignatures by these partners, of checkpoints of this log.
    async fn add_cosignatures(
        &self,
        bundle: &mut Bundle,
        partners: &BTreeSet<ParticipantId>,
        of: &Epoch,
    ) -> Result<(), Refusal> {
        let (mut from, size) = (0, of.size);
        loop {
            let page = self.cosignatures(of.epoch, from, PAGE).await?;
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
