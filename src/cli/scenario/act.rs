//! The steps: what people at the parties do, by the same walks as their commands.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use totp_rs::Totp;

use super::{
    check::Seen,
    format::Scenario,
    step::{Act, App, Code, Derive, Fetch, Use},
};
use crate::{
    agreement::{AgreementState, Approver},
    cli::{
        data_folder, refused,
        stage::{Actor, Teller, until},
    },
    error::Refusal,
    exchange::{
        DerivedRequest, FetchRequest, Handed, Handing, NewApprover, PaymentBody, Registration, UseRequest, With,
    },
    id::{AgreementId, DatasetId, OfferId},
    protocol::extension::Software,
    receipt::{Filter, Kind, Receipt},
    time::{Clock as _, ManualClock},
    vault::{Application, Way},
};

/// How long a one-time code is the right one (RFC 6238 §4.1).
const CODE: Duration = Duration::from_secs(30);
/// Most receipts of a party that are looked at.
const RECEIPTS: usize = 100_000;

/// A scenario that is being played.
pub struct Play<'a> {
    pub scenario: &'a Scenario,
    pub(super) clock: Arc<ManualClock>,
    pub(super) actors: BTreeMap<String, Actor>,
    pub(super) agreements: BTreeMap<String, Agreed>,
    pub(super) approvers: BTreeMap<(String, String), Approver>,
    /// By provider, participant and person.
    pub(super) factors: BTreeMap<(String, String, String), Factor>,
    /// How many receipts of each party have been shown.
    shown: BTreeMap<String, u64>,
}

/// An agreement that has a name.
#[derive(Clone, Debug)]
pub struct Agreed {
    pub id: AgreementId,
    pub provider: String,
    pub consumer: String,
    /// What was asked for last.
    pub last: Option<FetchRequest>,
}

/// A person's one-time codes.
pub(super) struct Factor {
    pub codes: Totp,
    /// The last interval whose code was used.
    pub used: Option<i64>,
}

/// Done, or refused; an error is neither, and ends the scenario.
pub type Came = anyhow::Result<Result<(), Refusal>>;

/// Goes on with what was done; a refusal is what came of the step.
macro_rules! done {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(refusal) => return Ok(Err(refusal)),
        }
    };
}
pub(super) use done;

impl<'a> Play<'a> {
    /// All are on the stage, and nothing has happened.
    pub fn new(scenario: &'a Scenario, clock: Arc<ManualClock>, actors: BTreeMap<String, Actor>) -> Self {
        Self {
            scenario,
            clock,
            actors,
            agreements: BTreeMap::new(),
            approvers: BTreeMap::new(),
            factors: BTreeMap::new(),
            shown: BTreeMap::new(),
        }
    }

    /// All go home.
    pub async fn stop(self) {
        futures_util::future::join_all(self.actors.into_values().map(|actor| actor.node.stop())).await;
    }

    /// Does what a step says.
    pub async fn act(&mut self, act: &Act, teller: &mut Teller) -> Came {
        match act {
            Act::Publish { by, offer } => self.publish(by, offer, teller).await,
            Act::Alter { by, file, append } => self.alter(by, file, append, teller),
            Act::WithdrawOffer { by, offer } => {
                let offer = OfferId::parse(offer.clone()).context("`offer`")?;
                Ok(self.actor(by)?.node.exchange.withdraw(&offer).await)
            }
            Act::Catalog { by, of, dataset, seen } => self.catalog([by, of], dataset, *seen, teller).await,
            Act::Negotiate { by, with, dataset, name } => {
                self.negotiate([by, with], dataset, name.as_deref(), teller).await
            }
            Act::Fetch(fetch) => self.fetch(fetch, teller).await,
            Act::Use(wanted) => self.use_copy(wanted, teller).await,
            Act::Approver { at, name, roles, of } => {
                let participant = of.as_ref().map(|of| self.actor(of).map(|of| of.did().clone().into())).transpose()?;
                let exchange = &self.actor(at)?.node.exchange;
                let new = NewApprover { name: name.clone(), roles: roles.clone(), participant };
                let token = done!(exchange.add_approver(&new).await);
                let approver = done!(exchange.approver_of(&token).await).context("a new approver's token is known")?;
                self.approvers.insert((at.clone(), name.clone()), approver);
                Ok(Ok(()))
            }
            Act::Approve { at, by, role } => self.decide(at, by, role, None, teller).await,
            Act::Refuse { at, by, role, reason } => self.decide(at, by, role, Some(reason), teller).await,
            Act::Consent { at, of, dataset, name, reference } => {
                let body = self.consent(of, dataset, name, reference)?;
                Ok(self.actor(at)?.node.exchange.record_consent(&body).await)
            }
            Act::WithdrawConsent { at, of, dataset, name, reference } => {
                let body = self.consent(of, dataset, name, reference)?;
                let revoked = done!(self.actor(at)?.node.exchange.withdraw_consent(&body).await);
                for id in &revoked {
                    self.told_of_revocation(of, id).await?;
                }
                let count = revoked.len();
                teller.check(true, format!("{count} agreements end with it"), format!("{count} 份协议随之终止"))?;
                Ok(Ok(()))
            }
            Act::Enrol { at, of, person } => self.enrol(at, of, person).await,
            Act::Pay { at, under, amount, currency, reference } => {
                let body =
                    PaymentBody { amount: amount.clone(), currency: currency.clone(), reference: reference.clone() };
                let id = self.agreed(under)?.id.clone();
                Ok(self.actor(at)?.node.exchange.record_payment(&id, &body).await)
            }
            Act::Application(app) => self.application(app).await,
            Act::Derive(derive) => self.derive(derive, teller).await,
            Act::Revoke { at, under, reason } => {
                let Agreed { id, consumer, .. } = self.agreed(under)?.clone();
                done!(self.actor(at)?.node.exchange.revoke_agreement(&id, reason).await);
                self.told_of_revocation(&consumer, &id).await?;
                teller.check(true, format!("{consumer} knows of it"), format!("{consumer} 已获知"))?;
                Ok(Ok(()))
            }
            Act::RevokePeer { at, peer, reason } => self.revoke_peer(at, peer, reason, teller).await,
            Act::Wait { time } => self.wait(time, teller).await,
            Act::Duties { at, overdue } => self.duties(at, *overdue, teller).await,
            Act::Race { by, under, purpose, times, succeed } => {
                self.race(by, under, purpose, [*times, *succeed], teller).await
            }
            Act::Replay { by, under, purpose } => self.replay(by, under, purpose.as_deref(), teller).await,
            Act::Tamper { at } => self.tamper(at, teller).await,
            Act::Evidence { between: [one, other] } => self.evidence(one, other, teller).await,
        }
    }

    /// The kinds of receipts that each party wrote since this was shown last.
    pub async fn show_receipts(&mut self, teller: &Teller) -> anyhow::Result<()> {
        let mut news = Vec::new();
        for (name, actor) in &self.actors {
            let from = self.shown.entry(name.clone()).or_default();
            let receipts = actor.node.exchange.receipts.list(&Filter::default(), *from, RECEIPTS).await?;
            if let Some(last) = receipts.last() {
                *from = last.index + 1;
                let kinds: Vec<&str> = receipts.iter().map(|stored| stored.receipt.kind.as_str()).collect();
                news.push(format!("{name}: {}", counted(&kinds)));
            }
        }
        if !news.is_empty() {
            teller.show(&format!("{} {}", teller.pick("receipts", "收据"), news.join("; ")));
        }
        Ok(())
    }

    // === offers and agreements ===

    async fn publish(&self, by: &str, offer: &Path, teller: &mut Teller) -> Came {
        let published = self.actor(by)?.node.exchange.publish(&self.scenario.folder.join(offer)).await;
        let published = done!(published);
        let (id, version, policies) = (&published.id, published.version, published.policies.join(", "));
        teller.check(
            true,
            format!("offer {id}, version {version}, signed; its policies: {policies}"),
            format!("要约 {id} 第 {version} 版已签名；其策略：{policies}"),
        )?;
        Ok(Ok(()))
    }

    fn alter(&self, by: &str, file: &Path, append: &str, teller: &mut Teller) -> Came {
        let path = data_folder(&self.actor(by)?.home).join(file);
        let mut open = OpenOptions::new().append(true).open(&path).with_context(|| {
            format!(
                "file = \"{}\": it is not in {by}'s data folder; data is .csv, .jsonl, .json, .parquet",
                file.display()
            )
        })?;
        open.write_all(append.as_bytes())?;
        let bytes = append.len();
        teller.check(true, format!("{bytes} bytes were added"), format!("追加了 {bytes} 字节"))?;
        Ok(Ok(()))
    }

    async fn catalog(&self, [by, of]: [&str; 2], dataset: &str, seen: bool, teller: &mut Teller) -> Came {
        let provider = self.actor(of)?.did().clone().into();
        let items = done!(self.actor(by)?.node.exchange.catalog_of(&provider).await);
        let all: Vec<&str> = items.iter().map(|item| item.dataset.as_str()).collect();
        let (en, zh) = match seen {
            true => ("sees", "能看到"),
            false => ("does not see", "看不到"),
        };
        teller.check(
            all.contains(&dataset) == seen,
            format!("{by} {en} `{dataset}` (sees: {})", all.join(", ")),
            format!("{by} {zh} `{dataset}`（所见：{}）", all.join("、")),
        )?;
        Ok(Ok(()))
    }

    async fn negotiate(
        &mut self,
        [by, with]: [&str; 2],
        dataset: &str,
        name: Option<&str>,
        teller: &mut Teller,
    ) -> Came {
        let (consumer, provider) = (self.actor(by)?, self.actor(with)?);
        let view = done!(consumer.negotiate(provider.did(), dataset).await);
        if let Some(refusal) = view.ended {
            return Ok(Err(refusal));
        }
        let id = view.agreement.context("the negotiation came to no agreement, and nobody ended it")?;
        let row = done!(consumer.node.exchange.agreement_row(&id).await);
        let theirs = done!(provider.node.exchange.agreement_row(&id).await);
        teller.check(
            row.agreement == theirs.agreement && row.by_provider.is_some() && row.by_consumer.is_some(),
            format!("{id}: the same text, signed by both"),
            format!("{id}：同一文本，双方签名"),
        )?;
        for clause in &row.agreement.manifest {
            teller.show(&format!("{}, {}: {}", clause.clause, clause.part, clause.enforcer.as_str()));
        }
        if let Some(name) = name {
            let agreed = Agreed { id, provider: with.to_owned(), consumer: by.to_owned(), last: None };
            self.agreements.insert(name.to_owned(), agreed);
        }
        Ok(Ok(()))
    }

    async fn revoke_peer(&self, at: &str, peer: &str, reason: &str, teller: &mut Teller) -> Came {
        let (provider, peer) = (self.actor(at)?, self.actor(peer)?);
        done!(provider.node.exchange.revoke_peer(peer.did(), reason).await);
        // its open connections were cut: it hears why on the next one
        until("the peer hears that it was revoked", async || {
            let answer = peer.node.exchange.catalog_of(&provider.did().clone().into()).await;
            Ok(answer.is_err_and(|refusal| !refusal.is("peer-unreachable")))
        })
        .await?;
        teller.check(
            true,
            format!("{} is not heard any more", peer.did()),
            format!("{} 的请求不再受理", peer.did()),
        )?;
        Ok(Ok(()))
    }

    async fn told_of_revocation(&self, consumer: &str, id: &AgreementId) -> anyhow::Result<()> {
        let exchange = &self.actor(consumer)?.node.exchange;
        until("the consumer knows of the revocation", async || {
            Ok(exchange.agreement_row(id).await.map_err(refused)?.state == AgreementState::Revoked)
        })
        .await
    }

    // === data ===

    async fn fetch(&mut self, fetch: &Fetch, teller: &mut Teller) -> Came {
        let agreed = self.agreed(&fetch.under)?.clone();
        let code = self.code(fetch, &agreed.provider)?;
        let request = FetchRequest {
            agreement: agreed.id.clone(),
            purpose: fetch.purpose.clone(),
            with: With {
                fields: fetch.fields.clone(),
                filter: fetch.filter.clone(),
                software: Software {
                    application: fetch.application.clone(),
                    algorithm: fetch.algorithm.clone(),
                    machine_learning_models: fetch.models.clone(),
                    execution_env: fetch.env.clone(),
                },
                accepts: fetch.accepts.clone(),
                person: fetch.person.clone(),
                code,
            },
            without_acknowledgement: false,
            another: fetch.another,
        };
        let copy = done!(self.actor(&fetch.by)?.fetch(request.clone()).await?);
        if let Some(agreed) = self.agreements.get_mut(&fetch.under) {
            agreed.last = Some(request);
        }
        let released = self.last(&agreed.provider, &agreed.id, Kind::Released).await?;
        let policies = released.decision.map(|decision| decision.policies.join(", ")).unwrap_or_default();
        teller.check(
            true,
            format!("released by {policies}; sealed in {}'s vault as {copy}", fetch.by),
            format!("依 {policies} 放行；密封存于 {} 的保险库：{copy}", fetch.by),
        )?;
        Ok(Ok(()))
    }

    /// The code that a fetch shows. One that was used counts no more: then the next one is waited for.
    fn code(&mut self, fetch: &Fetch, provider: &str) -> anyhow::Result<Option<String>> {
        let person = fetch.person.clone().unwrap_or_default();
        match &fetch.code {
            None | Some(Code::Right(false)) => Ok(None),
            Some(Code::Digits(digits)) => Ok(Some(digits.clone())),
            Some(Code::Right(true)) => {
                let key = (provider.to_owned(), fetch.by.clone(), person);
                let factor = self.factors.get_mut(&key).with_context(|| {
                    format!("person = \"{}\": no step before enrols that person of {} at {provider}", key.2, fetch.by)
                })?;
                let interval = |clock: &ManualClock| clock.now().seconds() / 30;
                if factor.used == Some(interval(&self.clock)) {
                    self.clock.advance(CODE);
                }
                factor.used = Some(interval(&self.clock));
                Ok(Some(factor.codes.generate(u64::try_from(self.clock.now().seconds())?).to_string()))
            }
        }
    }

    async fn use_copy(&self, wanted: &Use, teller: &mut Teller) -> Came {
        let request = UseRequest {
            of: self.named(&wanted.of),
            purpose: wanted.purpose.clone(),
            action: wanted.action.clone(),
            application: wanted.application.clone(),
        };
        let mut used = match done!(self.actor(&wanted.by)?.node.exchange.hand_over(&request, &Handing::default()).await)
        {
            Handed::Stream(used) => used,
            Handed::Deleted { copy, .. } => {
                teller.check(true, format!("{copy} is gone: its key was destroyed"), format!("{copy} 的密钥已销毁"))?;
                return Ok(Ok(()));
            }
            Handed::Over(handover) => {
                bail!("`{}` is handed data by `{}`, which can't be looked at", handover.application, handover.kind)
            }
        };
        let mut plain = Vec::new();
        while let Some(block) = used.data.recv().await {
            plain.extend_from_slice(&block.context("the use was stopped")?);
        }
        Seen::read(plain)?.check(wanted, teller)?;
        Ok(Ok(()))
    }

    async fn application(&self, app: &App) -> Came {
        let mut agreements = BTreeSet::new();
        for under in &app.under {
            agreements.insert(self.agreed(under)?.id.clone());
        }
        let wanted = Registration {
            application: Application {
                name: app.name.clone(),
                way: Way::Pipe { command: app.command.clone() },
                algorithm: None,
                models: app.models.clone(),
                environment: app.env.clone(),
                agreements,
                registered: None,
            },
            algorithm_file: None,
            algorithm_sha256: app.algorithm,
        };
        Ok(self.actor(&app.at)?.node.exchange.register_application(wanted).await.map(|_| ()))
    }

    async fn derive(&self, derive: &Derive, teller: &mut Teller) -> Came {
        let actor = self.actor(&derive.by)?;
        let request = DerivedRequest {
            file: fs::canonicalize(self.scenario.folder.join(&derive.file))?,
            title: derive.title.clone(),
            from: derive.from.iter().map(|of| self.named(of)).collect(),
            purpose: derive.purpose.clone(),
            id: Some(DatasetId::parse(derive.id.clone()).context("`id`")?),
            application: derive.application.clone(),
        };
        let row = done!(actor.node.exchange.register_derived(&request).await);
        teller.check(
            row.parents.len() >= derive.from.len(),
            format!(
                "`{}` is sealed in the vault; its parents' policies go on deciding on it (parents: {})",
                row.dataset,
                row.parents.len()
            ),
            format!("`{}` 已密封入库；其 {} 个来源的策略继续有效", row.dataset, row.parents.len()),
        )?;
        Ok(Ok(()))
    }

    // === who and what ===

    pub(super) fn actor(&self, name: &str) -> anyhow::Result<&Actor> {
        self.actors.get(name).with_context(|| format!("`{name}` does not play"))
    }

    pub(super) fn agreed(&self, name: &str) -> anyhow::Result<&Agreed> {
        self.agreements.get(name).with_context(|| format!("under = \"{name}\": there is no such agreement"))
    }

    /// An agreement's id by its name; what has no such name stays as it is: a dataset.
    fn named(&self, of: &str) -> String {
        self.agreements.get(of).map_or_else(|| of.to_owned(), |agreed| agreed.id.to_string())
    }

    /// Whether each is a peer of the other's still.
    pub(super) fn talk(&self, one: &Actor, other: &Actor) -> bool {
        let knows = |a: &Actor, b: &Actor| a.node.exchange.peers.is_active(b.did());
        knows(one, other) && knows(other, one)
    }

    async fn last(&self, of: &str, agreement: &AgreementId, kind: Kind) -> anyhow::Result<Receipt> {
        let filter = Filter { agreement: Some(agreement.clone()), kind: Some(kind), ..Filter::default() };
        let receipts = self.actor(of)?.node.exchange.receipts.list(&filter, 0, RECEIPTS).await?;
        let last = receipts.into_iter().last().map(|stored| stored.receipt);
        last.with_context(|| format!("{of} has no `{}` receipt of this agreement", kind.as_str()))
    }
}

/// `released, used ×3`.
fn counted(kinds: &[&str]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for kind in kinds {
        match counts.iter_mut().find(|(known, _)| known == kind) {
            Some((_, count)) => *count += 1,
            None => counts.push((kind, 1)),
        }
    }
    let texts: Vec<String> = counts
        .into_iter()
        .map(|(kind, count)| if count == 1 { kind.to_owned() } else { format!("{kind} ×{count}") })
        .collect();
    texts.join(", ")
}
