//! `counterseal policy trace`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use super::files::{Spoken, counted};
use crate::{
    cli::{
        Lang,
        client::{absolute, connect_as},
        output::{Output, plain},
    },
    exchange::{Recipient, TraceRequest, Traced},
    id::{DatasetId, OfferId},
    node::STEWARD,
    source::Format,
};

/// A leaked file.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  counterseal --home hospital policy trace found.csv --dataset lymph-node-cohort
  counterseal --home hospital policy trace found.jsonl --offer cohort

Holds the file against every release of the dataset that was marked by `watermark` or pseudonymised by `hash`.
Rows may be missing, or in another order. A steward's act; the running connector reads the file itself.
Exit code 0, whether somebody is named or nobody.")]
pub struct Trace {
    /// The file.
    file: PathBuf,
    /// The dataset that it is of.
    #[arg(long, value_name = "ID", required_unless_present = "offer", conflicts_with = "offer")]
    dataset: Option<String>,
    /// Or an offer of it.
    #[arg(long, value_name = "ID")]
    offer: Option<String>,
    /// csv, jsonl, json or parquet; default: by the file's name.
    #[arg(long)]
    format: Option<String>,
    #[command(flatten)]
    spoken: Spoken,
}

pub async fn run(home: &Path, args: Trace, out: &Output) -> anyhow::Result<ExitCode> {
    let named = args.file.extension().and_then(|extension| extension.to_str());
    let format: Format = match args.format.as_deref().or(named) {
        Some(format) => format.parse()?,
        None => anyhow::bail!("{} doesn't say what it is: give --format", args.file.display()),
    };
    let request = TraceRequest {
        file: absolute(&args.file)?,
        format: format.as_str().to_owned(),
        dataset: args.dataset.map(DatasetId::parse).transpose()?,
        offer: args.offer.map(OfferId::parse).transpose()?,
    };
    let traced: Traced = serde_json::from_value(connect_as(home, STEWARD)?.post("/v1/trace", &request).await?)?;
    out.show(&json!(traced), |_| shown(&traced, &args.spoken));
    Ok(ExitCode::SUCCESS)
}

fn shown(traced: &Traced, spoken: &Spoken) -> String {
    let zh = spoken.lang == Lang::Zh;
    let mut text = String::new();
    for recipient in &traced.named {
        text.push_str(&named(recipient, spoken));
    }
    if traced.named.is_empty() {
        text.push_str(&match zh {
            true => format!("无法指明任何接收方（已比对 {} 个）\n", traced.candidates.len()),
            false => format!("nobody can be named, of {}\n", counted(traced.candidates.len(), "recipient")),
        });
    }
    for recipient in &traced.candidates {
        text.push_str(&format!("  {}\n", seen(recipient, spoken)));
    }
    if !traced.untraceable.is_empty() {
        let count = traced.untraceable.len();
        text.push_str(&match zh {
            true => format!("另有 {count} 次放行既无水印也无假名：无法据此指明接收方\n"),
            false => {
                format!("{} had neither marks nor pseudonyms: nobody is named by these\n", counted(count, "release"))
            }
        });
    }
    for note in &traced.notes {
        text.push_str(&format!("{}: {}\n", spoken.pick("note", "注"), plain(note)));
    }
    text
}

fn named(recipient: &Recipient, spoken: &Spoken) -> String {
    let releases: Vec<&str> = recipient.releases.iter().map(|id| id.as_str()).collect();
    let (who, agreement) = (plain(recipient.participant.as_str()), &recipient.agreement);
    let how = match (spoken.lang, recipient.certain) {
        (Lang::En, true) => "it holds pseudonyms that only this recipient's key makes".to_owned(),
        (Lang::Zh, true) => "文件含有仅该接收方密钥才能生成的假名".to_owned(),
        (Lang::En, false) => {
            format!("by chance, marks agree so well less than once in 10^{:.0}", (-recipient.chance_log10).floor())
        }
        (Lang::Zh, false) => {
            format!("水印如此吻合的偶然概率低于 10^-{:.0}", (-recipient.chance_log10).floor())
        }
    };
    format!(
        "{} {who}: {how}\n  {} {agreement}\n  {} {}\n",
        spoken.pick("this was the copy of", "此文件来自"),
        spoken.pick("agreement", "合约"),
        spoken.pick("releases", "放行"),
        releases.join(", ")
    )
}

fn seen(recipient: &Recipient, spoken: &Spoken) -> String {
    let pick = |en: &'static str, zh: &'static str| spoken.pick(en, zh);
    let marks = recipient.marks.iter().map(|mark| {
        if !mark.missing.is_empty() {
            let missing: Vec<String> = mark.missing.iter().map(|name| plain(name)).collect();
            return format!("{}: {} {}", plain(&mark.column), pick("the file lacks", "文件缺少列"), missing.join(", "));
        }
        format!(
            "{}: {}/{} {} (10^{:.1})",
            plain(&mark.column),
            mark.matching,
            mark.marked,
            pick("marks agree", "处水印吻合"),
            mark.chance_log10
        )
    });
    let pseudonyms = recipient.pseudonyms.iter().map(|found| {
        if found.missing {
            return format!("{}: {}", plain(&found.column), pick("the file lacks it", "文件缺少该列"));
        }
        format!(
            "{}: {}/{} {}",
            plain(&found.column),
            found.matching,
            found.leaked,
            pick("pseudonyms are this recipient's", "个假名属于该接收方")
        )
    });
    let found: Vec<String> = marks.chain(pseudonyms).collect();
    format!("{}  {}", plain(recipient.participant.as_str()), found.join("; "))
}
