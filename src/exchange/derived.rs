//! Derived data: what was made from copies is kept like a copy, and every parent's policy goes on deciding on it.
//!
//! ```text
//!   copies ─▶ an application ─▶ a file ─▶ register ─▶ sealed in the vault ─▶ use: all parents must allow
//!                                            │                          └─▶ offer onward: forbids and floors inherited
//!                                            └─ `used` (process) under each parent's agreement
//! ```

use std::{
    collections::{BTreeSet, HashSet},
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    agreement::{AgreementState, Software},
    crypto::{RandomExt as _, ece::Keying},
    error::Refusal,
    exchange::{
        Exchange, refuse, retry,
        use_copy::{How, Target, extent, why_not},
    },
    id::{CopyId, DatasetId, OfferId},
    offer::DatasetSection,
    policy::{Columns, Inheritable, Inherited, Reach, UseAction, Verdict, inherit, strictest},
    receipt::{Commit, Row, read},
    time::Timestamp,
    vault::{CopyRow, CopyState, Counter, DerivedRow, Parent},
};

/// Most parents.
const MAX_PARENTS: usize = 32;
/// Making something of a copy is one of these.
const MAKING: [UseAction; 2] = [UseAction::Process, UseAction::Compute];
/// Offering it onward is one of these.
const ONWARD: [UseAction; 2] = [UseAction::Distribute, UseAction::PolicyTransmit];

/// What an operator registers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DerivedRequest {
    /// The result, as the connector sees it.
    pub file: PathBuf,
    /// For people.
    pub title: String,
    /// The copies that it was made from, or derived datasets.
    pub from: Vec<String>,
    /// What for.
    pub purpose: String,
    /// Its dataset id; none: one is minted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<DatasetId>,
    /// The registered application that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
}

/// What an offer inherits, and from whom.
#[derive(Default)]
pub(super) struct Onward {
    pub inherited: Inherited,
    pub parents: BTreeSet<String>,
    targets: Vec<(Target, UseAction)>,
    purpose: String,
}

impl Exchange {
    /// Puts a result that was made from copies into the vault. The making is a use of each of them.
    pub async fn register_derived(&self, request: &DerivedRequest) -> Result<DerivedRow, Refusal> {
        let parents = self.parents_of(&request.from).await?;
        let dataset = self.free_dataset(request.id.clone()).await?;
        let application = match &request.application {
            Some(name) => Some(self.application(name).await?),
            None => None,
        };
        if let Some(application) = &application {
            for agreement in parents.by_agreement().keys() {
                application.bound_to(agreement)?;
            }
            application.unchanged()?;
        }
        let software = application.as_ref().map(|application| application.software()).unwrap_or_default();
        let how = How {
            action: UseAction::Process,
            purpose: &request.purpose,
            software: &software,
            method: application.as_ref().map_or("01", |application| application.delivery()),
            from: None,
            shown: Default::default(),
        };
        let how = How { action: self.which(&parents, &MAKING, &how).await?, ..how };
        let (row, keying) = self.seal_derived(request, dataset, &parents).await?;
        let kept = async {
            self.usable(&parents, &row, &how).await?;
            retry!(self.keep_derived(&parents, &row, &how))?;
            self.keep_derived_key(&row, &keying).await
        };
        if let Err(refusal) = kept.await {
            self.destroy_derived(&row, "it could not be kept").await?;
            return Err(refusal);
        }
        self.post();
        Ok(row)
    }

    /// The copies behind these names, each once.
    async fn parents_of(&self, from: &[String]) -> Result<Target, Refusal> {
        let mut copies: Vec<CopyRow> = Vec::new();
        for of in from {
            let target = self.target(of).await?;
            if target.state() != CopyState::Held {
                return Err(Refusal::new(
                    "copy-without-key",
                    format!("`{of}` can't be what something was made from: its key is not here"),
                ));
            }
            for copy in target.copies {
                if copies.iter().all(|known| known.id != copy.id) {
                    copies.push(copy);
                }
            }
        }
        if copies.is_empty() || copies.len() > MAX_PARENTS {
            return Err(Refusal::new(
                "derived-parents",
                format!("derived data has 1 to {MAX_PARENTS} copies that it was made from: name them with --from"),
            ));
        }
        Ok(Target { copies, derived: None })
    }

    async fn free_dataset(&self, wanted: Option<DatasetId>) -> Result<DatasetId, Refusal> {
        let Some(wanted) = wanted else { return Ok(self.mint()) };
        let copies = self.all_copies().await?;
        let derived = self.all_derived().await?;
        if copies.iter().any(|copy| copy.dataset == wanted) || derived.iter().any(|row| row.dataset == wanted) {
            return Err(taken(&wanted));
        }
        Ok(wanted)
    }

    /// The first of these uses that every agreement allows now; else the refusal of the first, on record.
    async fn which(&self, target: &Target, actions: &[UseAction], how: &How<'_>) -> Result<UseAction, Refusal> {
        self.may_decide()?;
        let mut refused = None;
        for action in actions {
            let how = How { action: *action, ..how.clone() };
            let mut answers = Vec::new();
            for (id, copies) in target.by_agreement() {
                self.be_fresh(&id).await?;
                answers.push(self.answer(target, &id, &copies, &how, true).await?);
            }
            match strictest(answers.iter().map(|answer| &answer.decision)) {
                Some((_, Verdict::Allow)) => return Ok(*action),
                Some((strict, _)) if refused.is_none() => refused = Some((how, answers.swap_remove(strict))),
                _ => {}
            }
        }
        let Some((how, answer)) = refused else {
            return Err(Refusal::new("derived-parents", "there is nothing that it was made from"));
        };
        let refusal = why_not(&answer.decision);
        self.deny_use(&answer.agreement, answer.copy, &how, Some(&answer.decision), refusal).await
    }

    /// Refuses what nobody could use for anything: by no action would all parents allow it, once this making is counted.
    async fn usable(&self, parents: &Target, row: &DerivedRow, how: &How<'_>) -> Result<(), Refusal> {
        let derived = Target { copies: parents.copies.clone(), derived: Some(row.clone()) };
        let mut asked = Vec::new();
        for (id, copies) in parents.by_agreement() {
            let answer = self.answer(&derived, &id, &copies, how, true).await?;
            let mut agreement = answer.agreement.clone();
            let mut subject = answer.subject.value.clone().unwrap_or_default();
            for spent in [&mut agreement.uses, &mut subject] {
                let tally = spent.entry(how.action.as_str().to_owned()).or_default();
                tally.spend(extent(parents).once(), answer.asking.now, answer.zone);
            }
            asked.push((answer, agreement, subject));
        }
        let actions = UseAction::ALL.into_iter().filter(|action| action.reach() == Reach::Vault);
        let usable = actions.filter(|action| *action != UseAction::Delete).any(|action| {
            let how = How { action, ..how.clone() };
            asked.iter().all(|(answer, agreement, subject)| {
                answer.asking.decide(&derived, agreement, subject, &how).verdict == Verdict::Allow
            })
        });
        if usable {
            return Ok(());
        }
        Err(Refusal::new(
            "derived-empty",
            "the policies of what it was made from have no use in common that they allow: nobody could use it",
        ))
    }

    async fn seal_derived(
        &self,
        request: &DerivedRequest,
        dataset: DatasetId,
        parents: &Target,
    ) -> Result<(DerivedRow, Keying), Refusal> {
        let (mut file, bytes) = self.result_file(&request.file)?;
        let copy: CopyId = self.mint();
        self.vault.room_for(bytes).map_err(refuse("disk-full"))?;
        self.vault.create(&copy).map_err(refuse("disk-failed"))?;
        let keying = Keying::from_bytes(self.random.array());
        let (vault, id, key, salt) = (self.vault.clone(), copy.clone(), keying.clone(), self.random.array());
        let mut counter = Counter::of(media_type(&request.file));
        let (segment, bytes, contents) = tokio::task::spawn_blocking(move || {
            let (segment, bytes) = vault.seal(&id, &key, salt, &mut file, &mut counter)?;
            Ok::<_, crate::vault::VaultError>((segment, bytes, counter.contents()))
        })
        .await
        .map_err(refuse("internal"))?
        .map_err(refuse("disk-failed"))?;
        let row = DerivedRow {
            dataset,
            copy,
            title: request.title.clone(),
            parents: parents
                .copies
                .iter()
                .map(|copy| Parent {
                    copy: copy.id.clone(),
                    agreement: copy.agreement.clone(),
                    dataset: copy.dataset.clone(),
                })
                .collect(),
            state: CopyState::Held,
            segments: vec![segment],
            bytes,
            contents,
            delete_by: self.delete_by(parents).await?,
            offers: BTreeSet::new(),
            registered: self.clock.now(),
        };
        Ok((row, keying))
    }

    /// The result, a regular file outside of our home.
    fn result_file(&self, path: &Path) -> Result<(File, u64), Refusal> {
        let wrong = |problem: String| Refusal::new("derived-file", format!("{}: {problem}", path.display()));
        let real = path.canonicalize().map_err(|error| wrong(error.to_string()))?;
        let home = self.tokens.parent().and_then(|home| home.canonicalize().ok());
        if home.is_none_or(|home| real.starts_with(home)) {
            return Err(wrong(
                "it lies in the connector's own home, which holds keys; nothing in there is taken".into(),
            ));
        }
        let no_wait = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
        let flags = i32::try_from(no_wait.bits()).map_err(|error| wrong(error.to_string()))?;
        let file =
            OpenOptions::new().read(true).custom_flags(flags).open(&real).map_err(|error| wrong(error.to_string()))?;
        let found = file.metadata().map_err(|error| wrong(error.to_string()))?;
        if found.is_file() { Ok((file, found.len())) } else { Err(wrong("it is not a regular file".into())) }
    }

    /// The earliest end that the parents' policies demand of what came under them.
    async fn delete_by(&self, parents: &Target) -> Result<Option<Timestamp>, Refusal> {
        let mut earliest = None;
        for copy in &parents.copies {
            let (_, agreement) = self.agreement(&copy.agreement).await?;
            let slice = self.agreed_slice(&agreement, &self.agreed_offer(&agreement)?)?;
            let released = copy.released.as_ref().and_then(|jws| {
                crate::receipt::verify(jws, agreement.peer(), |kid| self.peers.verifying_key(kid)).ok()
            });
            // whichever permits let it leave; where that can't be read, all that could have
            let permits =
                released.and_then(|receipt| receipt.payload().decision.clone().map(|decision| decision.policies));
            let duties = slice.duties(&permits.unwrap_or_else(|| slice.policy_ids()));
            let end = duties.delete_within.map(|seconds| copy.arrived().plus(Duration::from_secs(seconds)));
            earliest = [earliest, end].into_iter().flatten().min();
        }
        Ok(earliest)
    }

    async fn keep_derived(&self, parents: &Target, row: &DerivedRow, how: &How<'_>) -> Result<(), Refusal> {
        // somebody else may have been faster since the id was looked for
        if self.derived_row(&row.dataset).await?.value.is_some() {
            return Err(taken(&row.dataset));
        }
        let mut commit = Commit::new();
        self.record_use(&mut commit, parents, how).await?;
        commit.put_new(DerivedRow::key(&row.dataset), row).map_err(refuse("internal"))?;
        self.commit(commit).await.map(|_| ())
    }

    /// Puts the key beside what the row says is held, unless that was destroyed meanwhile: nobody would come for the key.
    async fn keep_derived_key(&self, row: &DerivedRow, keying: &Keying) -> Result<(), Refusal> {
        self.vault.keep_key(&row.copy, keying).map_err(refuse("disk-failed"))?;
        match self.derived_row(&row.dataset).await?.value {
            Some(now) if now.copy == row.copy && now.state == CopyState::Held => Ok(()),
            _ => {
                self.vault.destroy(&row.copy).map_err(refuse("vault-unreadable"))?;
                Err(Refusal::new("copy-without-key", "the derived data was destroyed while it was being registered"))
            }
        }
    }

    /// A derived dataset with its version.
    pub(super) async fn derived_row(&self, dataset: &DatasetId) -> Result<Row<DerivedRow>, Refusal> {
        read::<DerivedRow>(&*self.store, &DerivedRow::key(dataset)).await.map_err(refuse("store-unreadable"))
    }

    /// Destroys what was derived from data that is over: an agreement ended, a duty fell due, here or for a parent. And does
    /// for what is destroyed already what a crash left undone.
    pub(super) async fn finish_derived(&self) -> Result<(), Refusal> {
        for row in self.all_derived().await? {
            // one that can't be looked at keeps no other from its end
            if let Err(refusal) = self.finish_one_derived(&row).await {
                tracing::error!(dataset = %row.dataset, %refusal, "derived data could not be looked at; it is tried again");
            }
        }
        Ok(())
    }

    async fn finish_one_derived(&self, row: &DerivedRow) -> Result<(), Refusal> {
        let why = match row.state {
            CopyState::Held => match self.why_over(row).await? {
                Some(why) => why,
                None => return Ok(()),
            },
            // no receipt is made of it again
            CopyState::Destroyed => String::new(),
            _ => return Ok(()),
        };
        self.destroy_derived(row, &why).await
    }

    async fn why_over(&self, row: &DerivedRow) -> Result<Option<String>, Refusal> {
        let now = self.clock.now();
        if row.delete_by.is_some_and(|by| now >= by) {
            return Ok(Some("a policy of what it was made from demanded it by now".into()));
        }
        for copy in self.derived_target(row.clone()).await?.copies {
            let (_, agreement) = self.agreement(&copy.agreement).await?;
            let over = agreement.agreement.valid_until.is_some_and(|until| now >= until);
            if over || !matches!(agreement.state, AgreementState::Active | AgreementState::Pending) {
                return Ok(Some("the agreement about what it was made from ended".into()));
            }
            if copy.state == CopyState::Destroyed && !copy.given_up {
                return Ok(Some("what it was made from had to be destroyed".into()));
            }
        }
        Ok(None)
    }

    // === onward ===

    /// What an offer inherits that is made of derived data; every parent must allow it to go onward now.
    pub(super) async fn onward(&self, dataset: &DatasetSection, columns: &Columns) -> Result<Onward, Refusal> {
        let mut onward = Onward { purpose: dataset.derived_purpose.clone(), ..Onward::default() };
        let software = Software::default();
        let how = how_onward(&onward.purpose, &software, ONWARD[0]);
        let mut seen = HashSet::new();
        let mut offers = Vec::new();
        for id in &dataset.derived_from {
            let row = self.derived_held(id).await?.1;
            onward.parents.extend(row.parent_datasets());
            let target = self.derived_target(row).await?;
            let action = self.which(&target, &ONWARD, &how).await?;
            for agreement in target.by_agreement().into_keys() {
                if seen.insert(agreement.clone()) {
                    offers.push(self.agreed_offer(&self.agreement(&agreement).await?.1)?);
                }
            }
            onward.targets.push((target, action));
        }
        let parents: Vec<Inheritable<'_>> = offers
            .iter()
            .map(|offer| Inheritable {
                dataset: offer.dataset.id.as_str(),
                collection: offer.dataset.collection.as_deref(),
                cedar: &offer.policy.cedar,
                global: &offer.policy.global,
                floor: &offer.policy.floor,
                connector_floor: &offer.policy.connector_floor,
            })
            .collect();
        onward.inherited = inherit(&parents, columns).map_err(refuse("policy-uninheritable"))?;
        Ok(onward)
    }

    /// A derived dataset that is held.
    async fn derived_held(&self, id: &DatasetId) -> Result<(Row<DerivedRow>, DerivedRow), Refusal> {
        let row = self.derived_row(id).await?;
        match row.value.clone().filter(|row| row.state == CopyState::Held) {
            Some(held) => Ok((row, held)),
            None => Err(Refusal::new(
                "derived-unknown",
                format!(
                    "dataset.derived_from names `{id}`, which is no derived dataset that the vault holds; see `counterseal derived list`"
                ),
            )),
        }
    }

    /// Derived data that an offer brings onward must be held, and know of the offer, when the offer is committed: whoever
    /// destroys it then withdraws the offer.
    pub(super) async fn expect_onward(
        &self,
        commit: &mut Commit,
        derived: &[DatasetId],
        offer: &OfferId,
    ) -> Result<(), Refusal> {
        for id in derived {
            let (row, mut held) = self.derived_held(id).await?;
            if held.offers.insert(offer.clone()) {
                commit.put(&row, &held).map_err(refuse("internal"))?;
            } else {
                commit.expect(&row);
            }
        }
        Ok(())
    }

    /// Records that derived data goes onward in this offer: a use under each parent's agreement.
    pub(super) async fn goes_onward(&self, onward: &Onward, offer: &OfferId) -> Result<(), Refusal> {
        let software = Software::default();
        for (target, action) in &onward.targets {
            let how = how_onward(&onward.purpose, &software, *action);
            retry!(self.goes_once(target, &how, offer))?;
        }
        self.post();
        Ok(())
    }

    async fn goes_once(&self, target: &Target, how: &How<'_>, offer: &OfferId) -> Result<(), Refusal> {
        let mut commit = Commit::new();
        self.record_use(&mut commit, target, how).await?;
        if let Some(derived) = &target.derived {
            self.expect_onward(&mut commit, std::slice::from_ref(&derived.dataset), offer).await?;
        }
        self.commit(commit).await.map(|_| ())
    }
}

fn taken(dataset: &DatasetId) -> Refusal {
    Refusal::new("dataset-taken", format!("the vault has a dataset `{dataset}` already; give another --id"))
}

fn how_onward<'a>(purpose: &'a str, software: &'a Software, action: UseAction) -> How<'a> {
    How { action, purpose, software, method: "01", from: None, shown: Default::default() }
}

/// Two texts that hold together.
pub(super) fn joined(own: &str, inherited: &str, between: &str) -> String {
    match (own.trim().is_empty(), inherited.is_empty()) {
        (_, true) => own.to_owned(),
        (true, false) => inherited.to_owned(),
        (false, false) => format!("{own}{between}{inherited}"),
    }
}

/// What the file's name says of its format; what says nothing is not counted.
fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => "text/csv",
        Some("jsonl" | "ndjson") => "application/jsonl",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::SystemRandom,
        exchange::tests::{homes, standing_still},
        offer::{self, OfferRow},
    };

    fn registered(exchange: &Exchange, copy: CopyId, state: CopyState) -> DerivedRow {
        DerivedRow {
            dataset: DatasetId::parse("rates").unwrap(),
            copy,
            title: "Rates".into(),
            parents: Vec::new(),
            state,
            segments: Vec::new(),
            bytes: 0,
            contents: Default::default(),
            delete_by: None,
            offers: BTreeSet::new(),
            registered: exchange.clock.now(),
        }
    }

    async fn put(exchange: &Exchange, row: &DerivedRow) {
        let mut commit = Commit::new();
        commit.put_blind(DerivedRow::key(&row.dataset), row).unwrap();
        exchange.commit(commit).await.unwrap();
    }

    async fn now(exchange: &Exchange) -> DerivedRow {
        exchange.derived_row(&DatasetId::parse("rates").unwrap()).await.unwrap().value.unwrap()
    }

    #[tokio::test]
    async fn the_key_of_what_was_destroyed_before_it_came_is_not_kept() {
        let (home, _) = homes().await;
        let exchange = standing_still(&home).await;
        let keying = Keying::from_bytes(SystemRandom.array());
        for (state, kept) in [(CopyState::Held, true), (CopyState::Destroyed, false)] {
            let row = registered(&exchange, exchange.mint(), state);
            exchange.vault.create(&row.copy).unwrap();
            put(&exchange, &row).await;
            assert_eq!(exchange.keep_derived_key(&row, &keying).await.is_ok(), kept);
            assert_eq!(exchange.vault.keying(&row.copy).unwrap().is_some(), kept);
        }
    }

    #[tokio::test]
    async fn who_registers_under_an_id_too_late_destroys_only_his_own() {
        let (home, _) = homes().await;
        let exchange = standing_still(&home).await;
        let winner = registered(&exchange, exchange.mint(), CopyState::Held);
        put(&exchange, &winner).await;
        let loser = registered(&exchange, exchange.mint(), CopyState::Held);
        exchange.destroy_derived(&loser, "it could not be kept").await.unwrap();
        assert_eq!(now(&exchange).await.state, CopyState::Held);
        exchange.destroy_derived(&winner, "enough").await.unwrap();
        assert_eq!(now(&exchange).await.state, CopyState::Destroyed);
    }

    #[tokio::test]
    async fn an_offer_of_what_was_destroyed_meanwhile_is_not_committed() {
        let (home, _) = homes().await;
        let exchange = standing_still(&home).await;
        let id: OfferId = "o".parse().unwrap();
        let offered = async || read::<OfferRow>(&*exchange.store, &offer::key(&id)).await.unwrap();
        let held = registered(&exchange, exchange.mint(), CopyState::Held);
        for (state, committed) in [(CopyState::Held, true), (CopyState::Destroyed, false)] {
            put(&exchange, &DerivedRow { state, ..held.clone() }).await;
            let row = offered().await;
            let before = row.value.clone().unwrap();
            let next = OfferRow { version: before.version + 1, ..before.clone() };
            let result = exchange.commit_offer(&row, &next, std::slice::from_ref(&held.dataset)).await;
            assert_eq!(result.is_ok(), committed);
            assert!(committed || result.unwrap_err().is("derived-unknown"));
            assert_eq!(offered().await.value.unwrap().version > before.version, committed);
            assert_eq!(now(&exchange).await.offers.contains(&id), committed, "who destroys it finds the offer");
        }
    }
}
