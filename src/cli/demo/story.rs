//! The story.

use std::{fs, path::Path};

use anyhow::Context as _;

use super::cast::{Cast, groups, publish};
use crate::{
    agreement::AgreementState,
    cli::{
        refused,
        stage::{Actor, Teller, client, flipped, kinds_of, missing, until},
    },
    error::Refusal,
    evidence::{Trust, folder, reconcile, verify},
    exchange::FetchRequest,
    id::AgreementId,
    protocol::{BASE, outgoing},
    receipt::Kind,
};

const LYMPH: &str = include_str!("../../../examples/data/lymph_node.csv");
const WEATHER: &str = include_str!("../../../examples/data/seattle-weather.csv");
const COHORT_POLICY: &str = include_str!("../../../policies/examples/cohort-research.cedar");
const WEATHER_POLICY: &str = include_str!("../../../policies/examples/open-weather.cedar");
const ROSTER_POLICY: &str = "@id(\"staff-only\")\npermit (principal in Group::\"hospital-staff\", action, resource);\n";
const ROSTER: &str = "name,ward\nA. Nurse,3\n";

const COHORT: &str = "lymph-node-cohort";
const OPEN: &str = "seattle-weather";

/// Tells it; the cast still stands on the stage.
pub async fn tell(folder: &Path, teller: &mut Teller) -> anyhow::Result<Cast> {
    teller.step(
        "homes",
        "Three connectors, each with its own home, keys, certificate and store",
        "三个连接器，各有自己的主目录、密钥、证书和存储",
    );
    let cast = Cast::assemble(folder).await?;
    let (hospital, research, outsider) = (&cast.hospital, &cast.research, &cast.outsider);
    for actor in cast.actors() {
        let did = actor.did();
        teller.check(
            private_keys(&actor.home)?,
            format!("{did} listens on {}; its 8 keys are files that only it can read", actor.node.running.partner),
            format!("{did} 监听 {}；8 个密钥文件仅其本人可读", actor.node.running.partner),
        )?;
    }

    teller.step(
        "pair",
        "They pair: invitation files, and fingerprints compared by another channel",
        "配对：交换邀请文件，并经另一渠道比对指纹",
    );
    let strange = research_catalog(outsider, hospital, false).await;
    teller.check(
        strange.as_ref().err().is_some_and(|refusal| refusal.is("peer-unknown")),
        "uninvited, the outsider isn't even told what there is: peer-unknown",
        "未受邀者连目录也看不到：peer-unknown",
    )?;
    let seen_by_research = research.add(hospital, groups(&[])).await?;
    let seen_by_hospital = hospital.add(research, groups(&["research"])).await?;
    let own = [hospital.invite()?.1.fingerprint(), research.invite()?.1.fingerprint()];
    teller.check(
        seen_by_research == own[0] && seen_by_hospital == own[1],
        format!("hospital {} and research {} read the same on both sides", own[0], own[1]),
        format!("医院 {} 与研究公司 {} 的指纹两边一致", own[0], own[1]),
    )?;
    outsider.add(hospital, groups(&[])).await?;
    hospital.add(outsider, groups(&[])).await?;
    teller.check(
        hospital.node.exchange.peer_views().len() == 2,
        "the outsider is let into the data space too, but into no group: being known is not being allowed",
        "局外者也被接入数据空间，但不属于任何组：认识不等于允许",
    )?;

    teller.step(
        "publish",
        "The hospital publishes: 686 patients sealed for research, weather for all, a roster for staff",
        "医院发布：686 名患者数据密封给研究公司，天气数据公开，名册仅限员工",
    );
    let sealed_for = format!("\n[audience]\nsealed_for = [\"{}\"]\n", research.did());
    publish(
        hospital,
        COHORT,
        &offer("cohort-research", COHORT, "Lymph node cohort", &sealed_for),
        COHORT_POLICY,
        LYMPH,
    )
    .await?;
    publish(
        hospital,
        OPEN,
        &offer("weather-open", OPEN, "Weather in Seattle, 2012 to 2015", ""),
        WEATHER_POLICY,
        WEATHER,
    )
    .await?;
    publish(hospital, "staff-roster", &offer("roster", "staff-roster", "Staff", ""), ROSTER_POLICY, ROSTER).await?;
    teller.check(
        hospital.node.exchange.offers.all().len() == 3,
        "three offers, each signed, each with its own policy",
        "三份要约，各自签名，各带策略",
    )?;

    teller.step(
        "catalog",
        "Each sees in the catalog what policy lets it discover",
        "各方在目录中只看到策略允许发现的内容",
    );
    let seen = research_catalog(research, hospital, true).await.map_err(refused)?;
    teller.check(
        seen == [COHORT, OPEN],
        format!("research sees {}", seen.join(" and ")),
        format!("研究公司看到 {}", seen.join("、")),
    )?;
    let seen = research_catalog(outsider, hospital, true).await.map_err(refused)?;
    teller.check(
        seen == [OPEN],
        format!("the outsider sees {}", seen.join(" and ")),
        format!("局外者只看到 {}", seen.join("、")),
    )?;
    let (sealed, absent) =
        (raw_dataset(outsider, hospital, COHORT).await?, raw_dataset(outsider, hospital, "no-such-dataset").await?);
    teller.check(
        sealed.0 == 404 && sealed.1.replace(COHORT, "") == absent.1.replace("no-such-dataset", ""),
        "asked for the sealed one, it hears the same 404 as for one that doesn't exist",
        "直接询问密封数据集时，得到与不存在的数据集完全相同的 404",
    )?;

    teller.step("negotiate", "They negotiate, to an agreement that both have signed", "协商，直至双方签署协议");
    let agreement = research.agree(hospital.did(), COHORT).await?;
    let rows = both_rows(hospital, research, &agreement).await?;
    teller.check(
        rows.iter().all(|row| row.state == AgreementState::Active && row.by_consumer.is_some())
            && rows[0].agreement == rows[1].agreement,
        format!("{agreement}: the same text, signed by each, in force on both sides"),
        format!("{agreement}：同一文本，双方签名，双方生效"),
    )?;
    for clause in &rows[0].agreement.manifest {
        let who = declared(&clause.declared);
        teller.show(&format!("{}, {}: {}{who}", clause.clause, clause.part, clause.enforcer.as_str()));
    }

    teller.step(
        "release",
        "A release: the policy decides, its obligations are applied, the key comes last",
        "放行：策略裁决，义务施加于数据，密钥最后交付",
    );
    let copy = research.fetch(fetch(&agreement, "research")).await?.map_err(refused)?;
    let kinds = kinds(hospital, &agreement, &[Kind::Released, Kind::Delivered]).await?;
    teller.check(
        kinds == [Kind::Released, Kind::Delivered],
        "hospital: `released` was on disk before the first byte, `delivered` came for a signed acknowledgement",
        "医院：首字节之前已落盘 `released`，收到签名确认后才有 `delivered`",
    )?;
    let received = kinds_of(research, &agreement).await?;
    teller.check(
        received.ends_with(&[Kind::Acknowledged, Kind::Opened]),
        "research: `acknowledged` before it had the key, `opened` after",
        "研究公司：拿到密钥之前先 `acknowledged`，之后 `opened`",
    )?;
    let stored = fs::read(research.node.exchange.vault.folder(&copy).join("0.ece"))?;
    teller.check(
        !contains(&stored, b"30-39") && !contains(&stored, b"diagdateb"),
        format!("the copy stays sealed in the vault: {} bytes of ciphertext", stored.len()),
        format!("副本在保险库中保持密封：{} 字节密文", stored.len()),
    )?;

    teller.step(
        "use",
        "A local application reads it, for research; for marketing it can't",
        "本地应用以研究目的读取；以营销目的则被拒",
    );
    let plain = research.read(copy.as_str(), "research").await?.map_err(refused)?;
    let lines: Vec<&str> = plain.lines().collect();
    teller.show(&format!("before  {}", LYMPH.lines().nth(1).unwrap_or_default()));
    teller.show(&format!("after   {}", lines.get(1).copied().unwrap_or_default()));
    let header: Vec<&str> = lines.first().copied().unwrap_or_default().split(',').collect();
    let first: Vec<&str> = lines.get(1).copied().unwrap_or_default().split(',').collect();
    teller.check(
        lines.len() > 600
            && !header.contains(&"deathdate")
            && first.get(1) == Some(&"1984")
            && first.get(3) == Some(&"30-39")
            && first.first().is_some_and(|id| id.len() == 22),
        format!("{} patients: id hashed, dates cut to years, age banded, date of death gone", lines.len() - 1),
        format!("{} 名患者：标识已散列，日期截至年份，年龄分段，死亡日期已删除", lines.len() - 1),
    )?;
    let refusal = research.read(copy.as_str(), "marketing").await?.err();
    teller.check(is(&refusal, "policy-forbids"), told(&refusal), told(&refusal))?;

    teller.step("count", "Three releases were agreed; the fourth is refused", "协议允许三次放行；第四次被拒");
    for _ in 0..2 {
        research.fetch(fetch(&agreement, "research")).await?.map_err(refused)?;
    }
    let refusal = research.fetch(fetch(&agreement, "research")).await?.err();
    teller.check(is(&refusal, "policy-no-permit"), told(&refusal), told(&refusal))?;
    teller.check(
        kinds_of(hospital, &agreement).await?.ends_with(&[Kind::Denied]),
        "the refusal is a receipt too",
        "拒绝同样留有收据",
    )?;

    teller.step("outsider", "The outsider tries", "局外者的尝试");
    let refusal = outsider.negotiate(hospital.did(), COHORT).await.err();
    teller.check(
        is(&refusal, "dataset-unknown"),
        "to negotiate for the sealed dataset: for it, there is none",
        "试图协商密封数据集：对它而言并不存在",
    )?;
    let pid = rows[0].negotiation.clone();
    let others = raw(outsider, hospital, &outgoing::negotiation_path(&pid)).await?;
    let absent = raw(outsider, hospital, "/negotiations/urn:uuid:0").await?;
    teller.check(
        others.0 == 404 && absent.0 == 404,
        "to read somebody else's negotiation: 404, as for one that doesn't exist",
        "试图读取他人的协商：404，与不存在者无异",
    )?;
    let status = raw(outsider, hospital, &format!("/counterseal/v1/agreements/{agreement}/status")).await?;
    teller.check(status.0 == 404, "to ask for the agreement's status: 404", "试图查询协议状态：404")?;

    teller.step(
        "silence",
        "A consumer that never acknowledges gets no key, and no next release",
        "从不确认的消费方得不到密钥，也得不到下一次放行",
    );
    let open = research.agree(hospital.did(), OPEN).await?;
    let sealed = research
        .fetch(FetchRequest { without_acknowledgement: true, ..fetch(&open, "weather study") })
        .await?
        .map_err(refused)?;
    let folder = research.node.exchange.vault.folder(&sealed);
    teller.check(
        folder.join("0.ece").exists() && !folder.join("copy.key").exists(),
        "it holds the sealed bytes, and nothing that opens them",
        "它持有密封字节，却没有任何可以打开它们的东西",
    )?;
    let refusal = research.read(sealed.as_str(), "weather study").await?.err();
    teller.check(is(&refusal, "copy-without-key"), told(&refusal), told(&refusal))?;
    let refusal = research.fetch(FetchRequest { another: true, ..fetch(&open, "weather study") }).await?.err();
    teller.check(is(&refusal, "release-open"), told(&refusal), told(&refusal))?;
    let stolen = stolen_token(research, outsider, hospital).await?;
    teller.check(
        stolen.0 == 401 && stolen.1.contains("token-other-party"),
        "research's transfer token in the outsider's hands: token-other-party",
        "局外者持研究公司的传输令牌：token-other-party",
    )?;

    teller.step(
        "revoke",
        "The hospital revokes; the next use is refused, and the copies' keys are destroyed",
        "医院撤销协议；下一次使用被拒，副本密钥被销毁",
    );
    hospital.node.exchange.revoke_agreement(&agreement, "the ethics board withdrew its vote").await.map_err(refused)?;
    until("the revocation arrives", async || {
        Ok(both_rows(hospital, research, &agreement).await?[1].state == AgreementState::Revoked)
    })
    .await?;
    let refusal = research.read(copy.as_str(), "research").await?.err();
    teller.check(is(&refusal, "agreement-revoked"), told(&refusal), told(&refusal))?;
    until("both hold each other's halves", async || {
        Ok(missing(hospital, research, &agreement).await? + missing(research, hospital, &agreement).await? == 0)
    })
    .await?;
    teller.check(
        !research.node.exchange.vault.folder(&copy).join("copy.key").exists(),
        "the key of the copy is gone, and a `deleted` receipt says so",
        "副本密钥已销毁，并有 `deleted` 收据为证",
    )?;

    teller.step(
        "verify",
        "Both logs are verified offline, and matched half to half",
        "两份收据日志离线核验，并逐半对合",
    );
    let mut trust = Trust::default();
    trust.add(&hospital.invite()?.1)?;
    trust.add(&research.invite()?.1)?;
    for (own, witness) in [(&hospital, &research), (&research, &hospital)] {
        until("the partner has cosigned the log", async || own.is_cosigned_by(witness).await).await?;
    }
    let (files, others) = (hospital.export().await?, research.export().await?);
    let ((left, wrong), (right, more)) = (folder::read(&files), folder::read(&others));
    for finding in wrong.iter().chain(&more) {
        teller.show(&format!("{}: {}", finding.place, finding.problem));
    }
    let (left, right) = (left.context("an export can't be read")?, right.context("an export can't be read")?);
    let matched = reconcile(&left, &right, &trust);
    for finding in matched.findings.iter().chain(matched.verdicts.iter().flat_map(|verdict| &verdict.findings)) {
        teller.show(&format!("{}: {}", finding.place, finding.problem));
    }
    for verdict in &matched.verdicts {
        teller.check(
            verdict.holds() && verdict.unproven.is_empty(),
            format!(
                "{}: {} receipts under one checkpoint, authentic, in order, complete",
                verdict.exporter, verdict.receipts
            ),
            format!("{}：{} 份收据在同一检查点之下，真实、有序、完整", verdict.exporter, verdict.receipts),
        )?;
    }
    teller.check(
        matched.holds() && matched.pairs >= 16,
        format!("{} halves fit, under {} agreements", matched.pairs, matched.agreements),
        format!("{} 对半符吻合，涉及 {} 份协议", matched.pairs, matched.agreements),
    )?;

    teller.step("flip", "One byte is flipped in a copy of the evidence", "在证据副本中翻转一个字节");
    let mut forged = files.clone();
    let receipts = forged.get_mut("receipts.jsonl").context("an export has receipts")?;
    let text = String::from_utf8(receipts.clone())?;
    let victim = text.lines().find(|line| line.contains("\"index\":7,")).context("the log is longer than that")?;
    *receipts = text.replace(victim, &flipped(victim)?).into_bytes();
    let (bundle, mut findings) = folder::read(&forged);
    findings.extend(verify(&bundle.context("an export can't be read")?, &trust).findings);
    let told = |code: &str| {
        findings
            .iter()
            .find(|finding| finding.code == code)
            .map(|finding| format!("{}: {}", finding.place, finding.problem))
            .unwrap_or_default()
    };
    teller.check(
        told("file-altered").contains("receipts.jsonl") && told("receipt-broken").contains("receipt at 7 (urn:uuid:"),
        format!("the verifier names it: {}", told("receipt-broken")),
        format!("核验器指出了它：{}", told("receipt-broken")),
    )?;
    Ok(cast)
}

fn offer(id: &str, dataset: &str, title: &str, rest: &str) -> String {
    format!(
        "id = \"{id}\"\n[dataset]\nid = \"{dataset}\"\ntitle = \"{title}\"\nsource = \"{dataset}.csv\"\n[policy]\nfile = \"{dataset}.cedar\"\n{rest}"
    )
}

fn fetch(agreement: &AgreementId, purpose: &str) -> FetchRequest {
    FetchRequest {
        agreement: agreement.clone(),
        purpose: purpose.to_owned(),
        with: Default::default(),
        without_acknowledgement: false,
        another: false,
    }
}

fn is(refusal: &Option<Refusal>, code: &str) -> bool {
    refusal.as_ref().is_some_and(|refusal| refusal.is(code))
}

fn told(refusal: &Option<Refusal>) -> String {
    refusal.as_ref().map_or_else(|| "not refused".to_owned(), ToString::to_string)
}

fn declared(facts: &[String]) -> String {
    if facts.is_empty() { String::new() } else { format!(" (declared, not verified: {})", facts.join(", ")) }
}

fn private_keys(home: &Path) -> anyhow::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut count = 0;
    for entry in fs::read_dir(home.join("keys"))? {
        if entry?.metadata()?.permissions().mode() & 0o077 != 0 {
            return Ok(false);
        }
        count += 1;
    }
    Ok(count == 8)
}

/// What `who` finds in the catalog; `paired` or as a stranger, by the invitation alone.
async fn research_catalog(who: &Actor, provider: &Actor, paired: bool) -> Result<Vec<String>, Refusal> {
    if !paired {
        let answer = raw(who, provider, "/catalog/datasets/x")
            .await
            .map_err(|error| Refusal::new("failed", error.to_string()))?;
        return Err(crate::protocol::extension::refusal_from(answer.0, answer.1.as_bytes()));
    }
    let items = who.node.exchange.catalog_of(&provider.did().clone().into()).await?;
    Ok(items.into_iter().map(|item| item.dataset.to_string()).collect())
}

async fn raw_dataset(who: &Actor, provider: &Actor, dataset: &str) -> anyhow::Result<(u16, String)> {
    raw(who, provider, &format!("/catalog/datasets/{dataset}")).await
}

/// A `GET` with `who`'s own certificate, past all the manners of its connector.
async fn raw(who: &Actor, provider: &Actor, path: &str) -> anyhow::Result<(u16, String)> {
    let (client, base) = client(who, provider)?;
    let answer = client.get(format!("{base}{BASE}{path}")).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// The outsider asks for a release with the token that research holds for its running transfer.
async fn stolen_token(victim: &Actor, thief: &Actor, provider: &Actor) -> anyhow::Result<(u16, String)> {
    let newest = fs::read_dir(victim.home.join("tokens"))?.filter_map(Result::ok).map(|entry| entry.path()).next();
    let token = fs::read_to_string(newest.context("no transfer is running")?)?;
    let (client, base) = client(thief, provider)?;
    let body = serde_json::json!({ "requestId": "urn:uuid:1", "purpose": "weather study" });
    let answer =
        client.post(format!("{base}{BASE}/counterseal/v1/releases")).bearer_auth(token).json(&body).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

async fn both_rows(
    a: &Actor,
    b: &Actor,
    agreement: &AgreementId,
) -> anyhow::Result<Vec<crate::agreement::AgreementRow>> {
    let mut rows = Vec::new();
    for actor in [a, b] {
        let all = actor.node.exchange.agreements().await.map_err(refused)?;
        rows.push(all.into_iter().find(|row| row.id() == agreement).context("an agreement is missing on one side")?);
    }
    Ok(rows)
}

async fn kinds(actor: &Actor, agreement: &AgreementId, of: &[Kind]) -> anyhow::Result<Vec<Kind>> {
    Ok(kinds_of(actor, agreement).await?.into_iter().filter(|kind| of.contains(kind)).collect())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
