//! The steps that press: races, replays, edited evidence; and evidence held against evidence.

use std::{fs, time::Duration};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::act::{Came, Play, done};
use crate::{
    cli::stage::{Actor, Teller, client, flipped, missing, until},
    error::Refusal,
    evidence::{Finding, Trust, folder, folder::Files, reconcile, verify},
    exchange::FetchRequest,
    id::AgreementId,
    protocol::BASE,
    receipt::Filter,
};

/// The file of an export that holds its receipts, one a line.
const RECEIPTS: &str = "receipts.jsonl";
/// More receipts than a scenario writes.
const MANY: usize = 100_000;

impl Play<'_> {
    /// Many ask at once; who only met another's open release asks again, until the policy has decided on it.
    pub(super) async fn race(
        &self,
        by: &str,
        under: &str,
        purpose: &str,
        [times, succeed]: [usize; 2],
        teller: &mut Teller,
    ) -> Came {
        let (consumer, id) = (self.actor(by)?, &self.agreed(under)?.id);
        let racers = (0..times).map(|_| one_of_many(consumer, request(id, purpose)));
        let mut refusals: Vec<Refusal> = Vec::new();
        for came in futures_util::future::join_all(racers).await {
            refusals.extend(came?.err());
        }
        let got = times - refusals.len();
        let mut codes: Vec<&str> = refusals.iter().map(|refusal| refusal.code.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        teller.check(
            got == succeed,
            format!("of {times} at once, {got} got it; the others: {}", codes.join(", ")),
            format!("{times} 个并发请求中 {got} 个获得；其余：{}", codes.join("、")),
        )?;
        let by_policy = |refusal: &Refusal| {
            ["policy-no-permit", "policy-forbids", "quota-used-up"].iter().any(|code| refusal.is(code))
        };
        teller.check(
            refusals.iter().all(by_policy),
            "nobody was refused for another reason than the policy",
            "其余请求均因策略被拒",
        )?;
        Ok(Ok(()))
    }

    /// A release is asked for twice by one request id, past the consumer's own manners; then it is finished.
    pub(super) async fn replay(&mut self, by: &str, under: &str, purpose: Option<&str>, teller: &mut Teller) -> Came {
        let agreed = self.agreed(under)?.clone();
        let (consumer, provider) = (self.actor(by)?, self.actor(&agreed.provider)?);
        let wanted = match (purpose, agreed.last) {
            (Some(purpose), _) => request(&agreed.id, purpose),
            (None, Some(last)) => last,
            (None, None) => bail!("`purpose` is missing, and no step before fetched under `{under}`"),
        };
        let first = FetchRequest { without_acknowledgement: true, another: true, ..wanted.clone() };
        let copy = done!(consumer.fetch(first).await?);
        let copies = done!(consumer.node.exchange.all_copies().await);
        let copy = copies.into_iter().find(|row| row.id == copy).context("the copy is in the vault")?;
        let release = copy.release.context("a sealed copy has its release")?;
        let spent = async || -> anyhow::Result<u64> {
            Ok(provider
                .node
                .exchange
                .agreement_row(&agreed.id)
                .await
                .map_err(crate::cli::refused)?
                .releases
                .total
                .count)
        };
        let before = spent().await?;
        let body = json!({ "requestId": copy.request, "purpose": wanted.purpose });
        for _ in 0..2 {
            let answer = ask_again(consumer, provider, &body).await?;
            teller.check(
                answer["release"] == release.as_str(),
                format!("the same request again is answered with the same release {release}"),
                format!("重复的请求得到同一次放行 {release}"),
            )?;
        }
        let after = spent().await?;
        teller.check(
            before == after,
            format!("{after} releases are counted, as before"),
            format!("计数仍为 {after} 次放行"),
        )?;
        done!(consumer.fetch(FetchRequest { another: false, without_acknowledgement: false, ..wanted }).await?);
        Ok(Ok(()))
    }

    /// A receipt of an export is changed, then one is taken out: the verifier names the place of each.
    pub(super) async fn tamper(&self, at: &str, teller: &mut Teller) -> Came {
        let trust = self.trust()?;
        let files = self.actor(at)?.export().await?;
        let whole = found(&files, &trust)?;
        teller.check(
            whole.is_empty(),
            format!("the export holds as it is{}", first(&whole)),
            format!("原样导出通过核验{}", first(&whole)),
        )?;
        let text = files.get(RECEIPTS).context("an export has receipts")?;
        let text = String::from_utf8(text.clone())?;
        let all = self.actor(at)?.node.exchange.receipts.list(&Filter::default(), 0, MANY).await?;
        let agreed: Vec<u64> = all.iter().filter(|one| one.receipt.agreement.is_some()).map(|one| one.index).collect();
        let index = agreed.get(agreed.len() / 2).with_context(|| format!("{at} has no receipt of an agreement"))?;
        let victim = text.lines().find(|line| line.contains(&format!("\"index\":{index},")));
        let victim = victim.context("an export has each receipt")?;
        let edited = text.replace(victim, &flipped(victim)?);
        let removed = text.replace(&format!("{victim}\n"), "");
        for (forged, en, zh) in [
            (edited, "one byte of a receipt is changed", "改动收据中的一个字节"),
            (removed, "the receipt is taken out", "删去该收据"),
        ] {
            let mut files = files.clone();
            files.insert(RECEIPTS.to_owned(), forged.into_bytes());
            // the list of files would give it away; a forger writes that anew, so it doesn't count
            let findings: Vec<Finding> =
                found(&files, &trust)?.into_iter().filter(|finding| finding.code != "file-altered").collect();
            teller.check(
                !findings.is_empty(),
                format!("{en}: the verifier finds it{}", first(&findings)),
                format!("{zh}：核验器发现{}", first(&findings)),
            )?;
        }
        Ok(Ok(()))
    }

    /// Both exports, verified offline and reconciled.
    pub(super) async fn evidence(&self, one: &str, other: &str, teller: &mut Teller) -> Came {
        let (left, right) = (self.actor(one)?, self.actor(other)?);
        if self.talk(left, right) {
            for agreed in self.agreements.values() {
                let (provider, consumer) = (self.actor(&agreed.provider)?, self.actor(&agreed.consumer)?);
                let theirs =
                    [&agreed.provider, &agreed.consumer].iter().all(|party| [one, other].contains(&party.as_str()));
                if theirs {
                    until("both hold each other's halves", async || {
                        let open = missing(provider, consumer, &agreed.id).await?;
                        Ok(open + missing(consumer, provider, &agreed.id).await? == 0)
                    })
                    .await?;
                }
            }
            // a partner is shown no two checkpoints at one moment
            self.clock.advance(Duration::from_secs(1));
            for (own, witness) in [(left, right), (right, left)] {
                until("the partner has cosigned the log", async || own.is_cosigned_by(witness).await).await?;
            }
        }
        let trust = self.trust()?;
        let mut bundles = Vec::new();
        for actor in [left, right] {
            let (bundle, findings) = folder::read(&actor.export().await?);
            teller.check(
                findings.is_empty(),
                format!("the export of {} is whole{}", actor.did(), first(&findings)),
                format!("{} 的导出完整{}", actor.did(), first(&findings)),
            )?;
            bundles.push(bundle.context("an export can't be read")?);
        }
        let matched = reconcile(&bundles[0], &bundles[1], &trust);
        for verdict in &matched.verdicts {
            teller.check(
                verdict.holds() && verdict.unproven.is_empty(),
                format!(
                    "{}: {} receipts, authentic, in order, complete{}",
                    verdict.exporter,
                    verdict.receipts,
                    first(&verdict.findings)
                ),
                format!(
                    "{}：{} 份收据，真实、有序、完整{}",
                    verdict.exporter,
                    verdict.receipts,
                    first(&verdict.findings)
                ),
            )?;
        }
        teller.check(
            matched.holds(),
            format!(
                "{} halves fit, under {} agreements{}",
                matched.pairs,
                matched.agreements,
                first(&matched.findings)
            ),
            format!("{} 对半符吻合，涉及 {} 份协议{}", matched.pairs, matched.agreements, first(&matched.findings)),
        )?;
        Ok(Ok(()))
    }

    /// Everybody's first key, as their invitations say.
    fn trust(&self) -> anyhow::Result<Trust> {
        let mut trust = Trust::default();
        for actor in self.actors.values() {
            trust.add(&actor.invite()?.1)?;
        }
        Ok(trust)
    }
}

async fn one_of_many(consumer: &Actor, request: FetchRequest) -> Came {
    for _ in 0..200 {
        match consumer.fetch(request.clone()).await? {
            Err(refusal) if refusal.is("release-open") => tokio::time::sleep(Duration::from_millis(50)).await,
            came => return Ok(came.map(|_| ())),
        }
    }
    bail!("another's release stayed open for 10 s")
}

/// The request with this id, sent by hand with each token that the consumer holds, until one is taken.
async fn ask_again(consumer: &Actor, provider: &Actor, body: &Value) -> anyhow::Result<Value> {
    let (client, base) = client(consumer, provider)?;
    let mut last = "no transfer is running".to_owned();
    for entry in fs::read_dir(consumer.home.join("tokens"))? {
        let token = fs::read_to_string(entry?.path())?;
        let sent = client.post(format!("{base}{BASE}/counterseal/v1/releases")).bearer_auth(token).json(body);
        let answer = sent.send().await?;
        let (fine, text) = (answer.status().is_success(), answer.text().await?);
        if fine {
            return Ok(serde_json::from_str(&text)?);
        }
        last = text;
    }
    bail!("the same request again was refused: {last}")
}

fn request(agreement: &AgreementId, purpose: &str) -> FetchRequest {
    FetchRequest {
        agreement: agreement.clone(),
        purpose: purpose.to_owned(),
        with: Default::default(),
        without_acknowledgement: false,
        another: true,
    }
}

/// All that is wrong with an export.
fn found(files: &Files, trust: &Trust) -> anyhow::Result<Vec<Finding>> {
    let (bundle, mut findings) = folder::read(files);
    if let Some(bundle) = bundle {
        findings.extend(verify(&bundle, trust).findings);
    } else if findings.is_empty() {
        bail!("an export can't be read, and nothing says why");
    }
    Ok(findings)
}

fn first(findings: &[Finding]) -> String {
    findings.first().map(|finding| format!(": {}: {}", finding.place, finding.problem)).unwrap_or_default()
}
