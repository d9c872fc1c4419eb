//! `counterseal policy simulate`

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use super::files::{Spoken, counted, read};
use crate::{
    cli::{
        Lang,
        client::{Client, connect, segment},
        output::{Output, plain},
    },
    exchange::DecisionPage,
    id::Sha256,
    offer::OfferFile,
    policy::{
        Slice,
        workbench::{Difference, MOST, Recorded, Side, Simulation, Terms, Touched, simulate},
    },
    time::Timestamp,
};

/// Receipts of a group that a terminal shows.
const SHOWN: usize = 5;

/// A new policy, and what it is tried on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  counterseal --home hospital policy simulate stricter.cedar --offer cohort
  counterseal --home hospital policy simulate stricter.cedar --agreement urn:uuid:… --since 2026-03-01T00:00:00+08:00

Asks the running connector for what it decided (the newest 10,000), and decides each request again.
Whatever isn't given (global policies, floors, columns) is what the offer says today, or what was agreed.
Exit code 0, whatever is found.")]
pub struct Simulate {
    /// A .cedar file, or an offer.toml with its policy.
    policy: PathBuf,
    /// All agreements about this offer of ours; default: the one that the offer.toml names.
    #[arg(long, value_name = "ID")]
    offer: Option<String>,
    /// This agreement alone.
    #[arg(long, value_name = "ID", conflicts_with = "offer")]
    agreement: Option<String>,
    /// Nothing that was decided before.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Other global policies.
    #[arg(long, value_name = "FILE")]
    global: Option<PathBuf>,
    /// Another floor of the offer.
    #[arg(long)]
    floor: Option<String>,
    /// Another floor of the connector.
    #[arg(long)]
    connector_floor: Option<String>,
    #[command(flatten)]
    spoken: Spoken,
}

/// What the connector has on record.
struct Past {
    standing: Terms,
    terms: BTreeMap<Sha256, Terms>,
    /// By place: the newest are kept.
    decisions: BTreeMap<u64, Recorded>,
    /// Older ones that were passed over.
    passed_over: u64,
}

pub async fn run(home: &Path, args: Simulate, out: &Output) -> anyhow::Result<ExitCode> {
    let offer = is_toml(&args.policy).then(|| OfferFile::load(&args.policy)).transpose()?;
    let under = match (&args.agreement, &args.offer, &offer) {
        (Some(agreement), ..) => format!("agreement={}", segment(agreement)),
        (None, Some(id), _) => format!("offer={}", segment(id)),
        (None, None, Some((offer, _))) => format!("offer={}", segment(offer.id.as_str())),
        (None, None, None) => anyhow::bail!("whose decisions? give --offer ID or --agreement ID"),
    };
    let past = past(&connect(home)?, &under, args.since).await?;
    let mut terms = Terms { offer: args.policy.display().to_string(), ..past.standing };
    match &offer {
        Some((offer, text)) => {
            terms.cedar.clone_from(text);
            terms.floor.clone_from(&offer.policy.floor);
        }
        None => terms.cedar = read(&args.policy)?,
    }
    terms.global = args.global.as_deref().map(read).transpose()?.unwrap_or(terms.global);
    terms.floor = args.floor.unwrap_or(terms.floor);
    terms.connector_floor = args.connector_floor.unwrap_or(terms.connector_floor);
    let new = terms.compile()?;
    // one that this build can't enforce any more is missing, and said to be
    let old: BTreeMap<Sha256, Slice> =
        past.terms.values().filter_map(|terms| terms.compile().ok()).map(|slice| (slice.sha256(), slice)).collect();
    let decisions: Vec<Recorded> = past.decisions.into_values().collect();
    let found = simulate(&new, &old, &decisions).map_err(anyhow::Error::msg)?;
    let mut value = json!(found);
    value["passedOver"] = past.passed_over.into();
    value["policySha256"] = json!(new.sha256());
    out.show(&value, |_| shown(&found, past.passed_over, &args.spoken));
    Ok(ExitCode::SUCCESS)
}

async fn past(client: &Client, under: &str, since: Option<Timestamp>) -> anyhow::Result<Past> {
    let since = since.map(|since| format!("&since={}", segment(&since.to_string()))).unwrap_or_default();
    let mut next: Option<String> = None;
    let mut past: Option<Past> = None;
    loop {
        let after = next.as_deref().map(|next| format!("&after={}", segment(next))).unwrap_or_default();
        let answer = client.get(&format!("/v1/decisions?{under}{since}{after}")).await?;
        let page: DecisionPage = serde_json::from_value(answer)?;
        let past = past.get_or_insert_with(|| Past {
            standing: page.standing.clone(),
            terms: BTreeMap::new(),
            decisions: BTreeMap::new(),
            passed_over: 0,
        });
        past.terms.extend(page.terms);
        past.decisions.extend(page.decisions.into_iter().map(|decision| (decision.index, decision)));
        while past.decisions.len() > MOST {
            past.decisions.pop_first();
            past.passed_over += 1;
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    past.ok_or_else(|| anyhow::anyhow!("the connector answered nothing"))
}

fn shown(found: &Simulation, passed_over: u64, spoken: &Spoken) -> String {
    let zh = spoken.lang == Lang::Zh;
    let differ: u64 = found.differing.iter().map(|group| group.count).sum();
    let unsaid: u64 = found.unsaid.iter().map(|group| group.count).sum();
    let mut text = if zh {
        format!("{} 个请求：{} 个结论相同，{differ} 个不同，{unsaid} 个无法判断\n", found.requests, found.same)
    } else {
        let requests = counted(found.requests as usize, "request");
        format!("{requests}: {} decided the same, {differ} otherwise, {unsaid} can't be said\n", found.same)
    };
    if passed_over > 0 {
        text.push_str(&match zh {
            true => format!("另有 {passed_over} 个较早的请求未计入；用 --since 限定时间\n"),
            false => format!("{passed_over} older ones were passed over; narrow it by --since\n"),
        });
    }
    for group in &found.differing {
        text.push_str(&difference(group, spoken));
    }
    for group in &found.unsaid {
        text.push_str(&format!("\n{} × {} [{}]\n", group.count, plain(spoken.say(&group.why)), group.code));
        text.push_str(&receipts(&group.receipts, spoken));
    }
    text
}

fn difference(group: &Difference, spoken: &Spoken) -> String {
    let Difference { then, now, explanation, .. } = group;
    let verdict = |side: &Side| spoken.pick(&side.verdict, side.verdict_zh()).to_owned();
    let what =
        if then.verdict == now.verdict { verdict(now) } else { format!("{} → {}", verdict(then), verdict(now)) };
    let mut text = format!("\n{} × {}: {what}\n", group.count, spoken.pick(group.action, group.action_zh));
    for (name, then, now) in [
        (spoken.pick("obligations", "义务"), &then.obligations, &now.obligations),
        (spoken.pick("first", "须先完成"), &then.open, &now.open),
        (spoken.pick("afterwards", "事后"), &then.after, &now.after),
    ] {
        let listed = |items: &[String]| match items {
            [] => spoken.pick("none", "无").to_owned(),
            items => items.iter().map(|item| plain(item)).collect::<Vec<_>>().join("; "),
        };
        if then != now {
            text.push_str(&format!("  {name}: {} → {}\n", listed(then), listed(now)));
        }
    }
    text.push_str(&format!("  {}\n", plain(spoken.say(&explanation.summary))));
    for policy in &explanation.policies {
        text.push_str(&format!("    {}: {}\n", policy.id, plain(spoken.say(&policy.sentence))));
    }
    text.push_str(&receipts(&group.receipts, spoken));
    text
}

fn receipts(touched: &[Touched], spoken: &Spoken) -> String {
    let line = |one: &Touched| {
        let who = one.consumer.as_ref().map(|who| plain(who.as_str())).unwrap_or_default();
        format!("  {}  {}  {}  {who}\n", one.time, one.kind, one.receipt)
    };
    let mut text: String = touched.iter().take(SHOWN).map(line).collect();
    if let Some(more) = touched.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&match spoken.lang {
            Lang::En => format!("  and {more} more (--json has all)\n"),
            Lang::Zh => format!("  另有 {more} 个（--json 列出全部）\n"),
        });
    }
    text
}

fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| format!("not a time: {error}; write it like 2026-03-01T00:00:00+08:00"))
}
