//! Disputes between two connectors that really run, settled by their exports.

use std::{net::SocketAddr, path::Path, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, ensure};
use counterseal::{
    cli::{NewHome, create, data_folder},
    config::Config,
    crypto::SystemRandom,
    error::Refusal,
    evidence::{Bundle, Finding, Scope, Trust, reconcile},
    exchange::{FetchEvent, FetchRequest, NegotiationRequest, Pairing},
    id::{AgreementId, DatasetId, Did, ParticipantId},
    node::Node,
    receipt::{Commit, Kind, NewReceipt, Receipt, checkpoint::Checkpoint, merkle},
    time::{Clock as _, SystemClock},
};
use tokio::sync::mpsc;

const POLICY: &str = "@id(\"open\") permit (principal, action, resource);";

/// One party.
struct Party {
    home: PathBuf,
    node: Node,
}

/// What a chapter came to.
pub struct Chapter {
    /// What happened.
    pub title: &'static str,
    /// The finding that settles it; none where nothing is wrong.
    pub expected: Option<&'static str>,
    /// What `reconcile` found.
    pub findings: Vec<Finding>,
}

impl Chapter {
    /// Whether the dispute is settled as it should be.
    pub fn is_settled(&self) -> bool {
        match self.expected {
            None => self.findings.is_empty(),
            Some(code) => self.settling().is_some_and(|finding| finding.code == code),
        }
    }

    /// The finding that settles it.
    pub fn settling(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| Some(finding.code) == self.expected)
    }
}

/// Plays all of them below this folder.
pub async fn play(folder: &Path) -> anyhow::Result<Vec<Chapter>> {
    let (provider, consumer) = pair(&folder.join("one"), 3600).await?;
    let mut chapters = Vec::new();
    let mut settle = |title, expected, findings| chapters.push(Chapter { title, expected, findings });

    let honest = fetched(&provider, &consumer).await?;
    let (left, right) = exports(&provider, &consumer, &honest).await?;
    settle("Both are honest: every half fits.", None, judge(&provider, &consumer, &left, &right)?);

    let mut fewer = right.clone();
    fewer.halves.retain(|half| half.kind != "delivered");
    let title =
        "The consumer says that the key was never handed over; the provider has its own half, the consumer's is gone.";
    settle(title, Some("half-missing"), judge(&provider, &consumer, &left, &fewer)?);

    let mut shorter = left.clone();
    shorter.receipts.pop();
    let title = "The provider leaves its last receipt out of its export.";
    settle(title, Some("receipt-missing"), judge(&provider, &consumer, &shorter, &right)?);
    let title = "…and the consumer holds it, signed by the provider.";
    settle(title, Some("half-denied"), judge(&provider, &consumer, &shorter, &right)?);

    let mut uncounted = right.clone();
    uncounted.halves.retain(|half| half.kind != "released");
    let title = "The consumer says that there was no release at all.";
    settle(title, Some("count-differs"), judge(&provider, &consumer, &left, &uncounted)?);

    let title = "The provider rewrites its log, and signs it anew without the release.";
    settle(title, Some("log-forked"), judge(&provider, &consumer, &rewritten(&provider, &left), &right)?);

    let forged = |agreement: &AgreementId, change: fn(&mut Receipt)| forge(&provider, agreement.clone(), change);
    let bigger = fetched(&provider, &consumer).await?;
    forged(&bigger, |receipt| {
        if let Some(payload) = &mut receipt.payload {
            payload.bytes += 1000;
        }
    })
    .await?;
    let (left, right) = exports(&provider, &consumer, &bigger).await?;
    let title = "The provider claims to have delivered more than was acknowledged.";
    settle(title, Some("size-differs"), judge(&provider, &consumer, &left, &right)?);

    let other = fetched(&provider, &consumer).await?;
    forged(&other, |receipt| {
        if let Some(segment) = receipt.payload.as_mut().and_then(|payload| payload.segments.first_mut()) {
            segment.sha256.0[0] ^= 1;
        }
    })
    .await?;
    let (left, right) = exports(&provider, &consumer, &other).await?;
    let title = "The provider claims to have delivered other bytes than were acknowledged.";
    settle(title, Some("digest-differs"), judge(&provider, &consumer, &left, &right)?);

    let third = fetched(&provider, &consumer).await?;
    forged(&third, |receipt| receipt.consumer = ParticipantId::parse("did:web:somebody-else.invalid").ok()).await?;
    let (left, right) = exports(&provider, &consumer, &third).await?;
    let title = "Under an agreement of two, a receipt names a third.";
    settle(title, Some("party-third"), judge(&provider, &consumer, &left, &right)?);

    let earlier = fetched(&provider, &consumer).await?;
    forged(&earlier, |receipt| {
        receipt.time = counterseal::time::Timestamp::from_millis(receipt.time.millis() - 86_400_000);
    })
    .await?;
    let (left, right) = exports(&provider, &consumer, &earlier).await?;
    let title = "The provider dates the delivery a day before the acknowledgement.";
    settle(title, Some("time-disordered"), judge(&provider, &consumer, &left, &right)?);

    let withheld = agree(&provider, &consumer).await?;
    fetch(&consumer, &withheld, true).await?;
    provider.node.exchange.revoke_agreement(&withheld, "we want it back").await.map_err(refused)?;
    let _ = fetch(&consumer, &withheld, false).await;
    acknowledge_late(&consumer, &withheld).await?;
    let (left, right) = exports(&provider, &consumer, &withheld).await?;
    let title = "The provider takes the acknowledgement and keeps the key.";
    settle(title, Some("key-withheld"), judge(&provider, &consumer, &left, &right)?);

    let (provider, consumer) = pair(&folder.join("two"), 1).await?;
    let never = agree(&provider, &consumer).await?;
    fetch(&consumer, &never, true).await?;
    until("the release has lapsed", async || has(&provider, &never, Kind::Lapsed).await).await?;
    let (left, right) = exports(&provider, &consumer, &never).await?;
    let title = "The consumer takes the sealed bytes and never acknowledges: it can't read them, and the provider has it on record.";
    settle(title, Some("never-acknowledged"), judge(&provider, &consumer, &left, &right)?);
    Ok(chapters)
}

fn judge(provider: &Party, consumer: &Party, left: &Bundle, right: &Bundle) -> anyhow::Result<Vec<Finding>> {
    let mut trust = Trust::default();
    for party in [provider, consumer] {
        trust.add(&party.node.exchange.invitation())?;
    }
    let reconciled = reconcile(left, right, &trust);
    let of_each = reconciled.verdicts.into_iter().flat_map(|verdict| verdict.findings);
    Ok(reconciled.findings.into_iter().chain(of_each).collect())
}

async fn exports(provider: &Party, consumer: &Party, agreement: &AgreementId) -> anyhow::Result<(Bundle, Bundle)> {
    let scope = Scope { agreement: Some(agreement.clone()), ..Scope::default() };
    let left = provider.node.exchange.export(scope.clone(), true).await.map_err(refused)?;
    Ok((left, consumer.node.exchange.export(scope, true).await.map_err(refused)?))
}

/// An agreement under which one release went as it should, with all halves where they belong.
async fn fetched(provider: &Party, consumer: &Party) -> anyhow::Result<AgreementId> {
    let agreement = agree(provider, consumer).await?;
    fetch(consumer, &agreement, false).await?;
    until("the outcome has arrived", async || {
        let halves = provider.node.exchange.receipts.halves(&agreement).await?;
        Ok(halves.iter().any(|half| half.kind == "opened"))
    })
    .await?;
    Ok(agreement)
}

async fn agree(provider: &Party, consumer: &Party) -> anyhow::Result<AgreementId> {
    let exchange = &consumer.node.exchange;
    let request = NegotiationRequest::about(provider.node.exchange.us.clone(), DatasetId::parse("d")?);
    let pid = exchange.negotiate(&request).await.map_err(refused)?;
    let view = exchange.negotiation_end(&pid, Duration::from_secs(30)).await.map_err(refused)?;
    view.agreement.ok_or_else(|| anyhow!("no agreement: {:?}", view.ended))
}

async fn fetch(consumer: &Party, agreement: &AgreementId, without_acknowledgement: bool) -> anyhow::Result<()> {
    let (sender, mut events) = mpsc::unbounded_channel();
    let (agreement, purpose) = (agreement.clone(), "research".to_owned());
    let request =
        FetchRequest { agreement, purpose, with: Default::default(), without_acknowledgement, another: false };
    consumer.node.exchange.fetch(request, sender).await;
    let mut last = None;
    while let Some(event) = events.recv().await {
        last = Some(event);
    }
    match last {
        Some(FetchEvent::Failed { refusal }) => Err(refused(refusal)),
        _ => Ok(()),
    }
}

/// The consumer's connector signs for what it got, though the provider has ended the agreement meanwhile.
async fn acknowledge_late(consumer: &Party, agreement: &AgreementId) -> anyhow::Result<()> {
    let exchange = &consumer.node.exchange;
    let copy = exchange.all_copies().await.map_err(refused)?;
    let copy = copy.into_iter().find(|copy| copy.agreement == *agreement).context("the sealed copy")?;
    let row = exchange.agreement_row(agreement).await.map_err(refused)?;
    let mut receipt = Receipt::new(
        "urn:uuid:late".parse()?,
        Kind::Acknowledged,
        SystemClock.now(),
        row.agreement.provider.id.clone(),
    );
    receipt.series = agreement.as_str().to_owned();
    receipt.agreement = Some(agreement.clone());
    receipt.offer = Some(row.agreement.offer);
    receipt.consumer = Some(row.agreement.consumer.id.clone());
    receipt.release = copy.release.clone();
    receipt.refers = copy.released.as_ref().map(counterseal::crypto::jws::Jws::sha256);
    let mut commit = Commit::new();
    let keys = &exchange.keys;
    commit.receipt(NewReceipt::sign(receipt, &keys.signing_kid(), &keys.signing, row.series_key())?);
    exchange.committer.commit(commit).await?;
    Ok(())
}

/// A party that writes a second `delivered` into its own log, changed as it likes, with its own keys.
async fn forge(provider: &Party, agreement: AgreementId, change: fn(&mut Receipt)) -> anyhow::Result<()> {
    let exchange = &provider.node.exchange;
    let row = exchange.agreement_row(&agreement).await.map_err(refused)?;
    let all = exchange.receipts.list(&filter(&agreement), 0, 100).await?;
    let delivered = all.into_iter().find(|stored| stored.receipt.kind == Kind::Delivered).context("a delivery")?;
    let mut receipt = Receipt { id: format!("urn:uuid:forged-{}", delivered.index).parse()?, ..delivered.receipt };
    change(&mut receipt);
    let mut commit = Commit::new();
    let keys = &exchange.keys;
    commit.receipt(NewReceipt::sign(receipt, &keys.signing_kid(), &keys.signing, row.series_key())?);
    exchange.committer.commit(commit).await?;
    Ok(())
}

/// The provider's export over a log without the release, signed by its own log key.
fn rewritten(provider: &Party, honest: &Bundle) -> Bundle {
    let mut bundle = honest.clone();
    let released = bundle
        .receipts
        .iter()
        .position(|one| counterseal::evidence::claimed(&one.jws).is_some_and(|receipt| receipt.kind == Kind::Released));
    if let Some(at) = released {
        let gone = bundle.receipts.remove(at);
        bundle.entries[gone.index as usize] = [1; 65];
    }
    let leaves: Vec<_> = bundle.entries.iter().map(|entry| merkle::leaf_hash(entry)).collect();
    let origin = format!("{}/log/1", provider.node.exchange.us);
    let checkpoint = Checkpoint { origin, size: leaves.len() as u64, root: merkle::root_of(&leaves) };
    bundle.checkpoint = checkpoint.sign(&provider.node.exchange.keys.log);
    bundle.checkpoints.clear();
    bundle
}

async fn has(party: &Party, agreement: &AgreementId, kind: Kind) -> anyhow::Result<bool> {
    let all = party.node.exchange.receipts.list(&filter(agreement), 0, 100).await?;
    Ok(all.iter().any(|stored| stored.receipt.kind == kind))
}

fn filter(agreement: &AgreementId) -> counterseal::receipt::Filter {
    counterseal::receipt::Filter { agreement: Some(agreement.clone()), ..Default::default() }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    for _ in 0..600 {
        if holds().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Err(anyhow!("waited 15 s in vain until {what}"))
}

/// Two connectors that know each other, and an offer.
async fn pair(folder: &Path, deadline_seconds: u64) -> anyhow::Result<(Party, Party)> {
    let provider = start(folder, "provider", deadline_seconds).await?;
    let consumer = start(folder, "consumer", deadline_seconds).await?;
    for (own, other) in [(&provider, &consumer), (&consumer, &provider)] {
        let invitation = other.home.join("invitation.json");
        std::fs::write(&invitation, serde_json::to_string(&other.node.exchange.invitation())?)?;
        own.node.exchange.add_peer(&invitation, Pairing::default()).await.map_err(refused)?;
    }
    std::fs::write(data_folder(&provider.home).join("d.csv"), "id,age\n1,38\n2,52\n")?;
    std::fs::write(provider.home.join("p.cedar"), POLICY)?;
    let offer = "id = \"o\"\n[dataset]\nid = \"d\"\ntitle = \"D\"\nsource = \"d.csv\"\n[policy]\nfile = \"p.cedar\"\n";
    std::fs::write(provider.home.join("o.toml"), offer)?;
    provider.node.exchange.publish(&provider.home.join("o.toml")).await.map_err(refused)?;
    Ok((provider, consumer))
}

async fn start(folder: &Path, name: &str, deadline_seconds: u64) -> anyhow::Result<Party> {
    std::fs::create_dir_all(folder)?;
    let home = folder.join(name);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let did = Did::parse(format!("did:web:{name}.invalid"))?;
    let new = NewHome { did, name: name.into(), partner: any, management: any, public_url: None, plain: None };
    create(&home, &new, &SystemRandom, SystemClock.now())?;
    let mut config = Config::load(&home, [])?;
    config.release.deadline_seconds = deadline_seconds;
    let node = Node::start(&home, config, Arc::new(SystemClock), Arc::new(SystemRandom), false).await?;
    ensure!(home.exists(), "the home was made");
    Ok(Party { home, node })
}

fn refused(refusal: Refusal) -> anyhow::Error {
    anyhow!("{refusal}")
}
