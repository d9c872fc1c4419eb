//! `counterseal policy explain`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use super::files::{Around, Spoken, is_test, of_suite, suite};
use crate::{
    cli::{
        client::{connect, segment},
        output::{Output, plain, table},
    },
    exchange::Explicable,
    policy::{
        Columns, Facts,
        workbench::{Explanation, Given, Outcome, Told, explain as explained, run as run_cases},
    },
    time::Zone,
};

/// A case of a test file, a request given here, or the decision of a receipt.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  counterseal policy explain cohort.test.toml --case 'the fourth time is too often'
  counterseal policy explain cohort.cedar --action release --group research --context purpose=research --context count=3
  counterseal policy explain cohort.cedar --action read --context purpose=marketing --lang zh
  counterseal --home hospital policy explain --receipt urn:uuid:…    what the running connector decided, and why

What isn't given has the value that a connector gives when nothing is known: \"\", 0, an empty set.")]
pub struct Explain {
    /// A *.test.toml, a .cedar file, or an offer.toml.
    #[arg(required_unless_present = "receipt")]
    path: Option<PathBuf>,
    /// A receipt of the running connector: its decision, on the facts that it was made on.
    #[arg(long, value_name = "ID", conflicts_with_all = ["path", "case", "action", "source", "column", "global", "floor"])]
    receipt: Option<String>,
    /// The case of the test file.
    #[arg(long)]
    case: Option<String>,
    #[command(flatten)]
    request: RequestArgs,
    #[command(flatten)]
    around: Around,
    #[command(flatten)]
    spoken: Spoken,
}

/// A request on the command line.
#[derive(Debug, Default, Args)]
pub struct RequestArgs {
    /// The action: discover, negotiate, release, or a use such as read.
    #[arg(long)]
    action: Option<String>,
    /// Something about the participant: id, jurisdiction, roles, certifications, groups.
    #[arg(long, value_name = "NAME=VALUE")]
    principal: Vec<String>,
    /// A group of the participant.
    #[arg(long)]
    group: Vec<String>,
    /// A role of the participant.
    #[arg(long)]
    role: Vec<String>,
    /// Something about the dataset: dataset, provider, collection, classification, parents.
    #[arg(long, value_name = "NAME=VALUE")]
    resource: Vec<String>,
    /// A fact: purpose=research, count=2, frequency.day=3, now=2026-03-02T10:00:00+08:00.
    #[arg(long, value_name = "NAME=VALUE")]
    context: Vec<String>,
    /// What has been done first: approve(ethics_board).
    #[arg(long)]
    met: Vec<String>,
    /// A column that is asked for.
    #[arg(long)]
    field: Vec<String>,
    /// The rows that are asked for.
    #[arg(long)]
    filter: Option<String>,
}

impl RequestArgs {
    /// Whether a request is given at all.
    pub const fn is_given(&self) -> bool {
        self.action.is_some()
    }

    /// The request. `dataset` is the offer's, if there is one; the present if no time is given.
    pub fn given(&self, dataset: Option<&str>, columns: &Columns, zone: Zone) -> anyhow::Result<Given> {
        let action = self.action.clone().ok_or_else(|| anyhow::anyhow!("--action is missing: which action is it?"))?;
        let all = |table: &'static str, pairs: &[String]| {
            pairs.iter().map(move |pair| (table, pair.clone())).collect::<Vec<_>>()
        };
        let mut pairs = all("principal", &self.principal);
        pairs.extend(dataset.map(|id| ("resource", format!("dataset={id}"))));
        pairs.extend(all("resource", &self.resource));
        if !self.context.iter().any(|pair| pair.starts_with("now=") || pair.starts_with("time=")) {
            pairs.push(("context", format!("now={}", super::files::now())));
        }
        pairs.extend(all("context", &self.context));
        let told = Told {
            action,
            pairs,
            groups: self.group.clone(),
            roles: self.role.clone(),
            met: self.met.clone(),
            fields: self.field.clone(),
            filter: self.filter.clone(),
        };
        Ok(told.given(columns, zone)?)
    }
}

pub async fn run(home: &Path, args: Explain, out: &Output) -> anyhow::Result<ExitCode> {
    let explanation = match (&args.receipt, &args.path) {
        (Some(receipt), _) => of_receipt(home, receipt).await?,
        (None, Some(path)) => of_file(path, &args)?,
        (None, None) => anyhow::bail!("explain what? give a file, or --receipt ID"),
    };
    out.show(&json!(explanation), |_| lines(&explanation, &args.spoken));
    Ok(ExitCode::SUCCESS)
}

/// Decides again what the receipt says was decided; it must come to the same.
async fn of_receipt(home: &Path, receipt: &str) -> anyhow::Result<Explanation> {
    let answer = connect(home)?.get(&format!("/v1/receipts/{}/decision", segment(receipt))).await?;
    let Explicable { decision, terms } = serde_json::from_value(answer)?;
    let slice = terms.compile()?;
    if slice.sha256() != decision.policy_sha256 {
        anyhow::bail!("the policy that is kept is not the one that decided, {}", decision.policy_sha256);
    }
    let facts = Facts::read(decision.request.unwrap_or_default().as_bytes()).map_err(anyhow::Error::msg)?;
    let explanation = explained(&slice, &facts).map_err(anyhow::Error::msg)?;
    if explanation.verdict != decision.verdict {
        anyhow::bail!(
            "the receipt says {}, the policy says {} here: another version decided; `receipt verify` says more",
            decision.verdict,
            explanation.verdict
        );
    }
    Ok(explanation)
}

fn of_file(path: &Path, args: &Explain) -> anyhow::Result<Explanation> {
    if is_test(path) {
        let suite = suite(path)?;
        let (slice, columns) = of_suite(path, &suite)?.compile()?;
        let cases = suite.cases(&columns).map_err(|wrong| anyhow::anyhow!("{}:{wrong}", path.display()))?;
        let names = || cases.iter().map(|case| format!("  {}", case.name)).collect::<Vec<_>>().join("\n");
        let Some(name) = &args.case else { anyhow::bail!("--case is missing; there are:\n{}", names()) };
        let Some(case) = cases.iter().find(|case| case.name == *name) else {
            anyhow::bail!("there is no case `{name}`; there are:\n{}", names());
        };
        let (mut results, _) = run_cases(&slice, &columns, std::slice::from_ref(case)).map_err(anyhow::Error::msg)?;
        let explanation = results.pop().map(|result| result.explanation);
        return explanation.ok_or_else(|| anyhow::anyhow!("nothing was decided"));
    }
    let policy = args.around.load(path)?;
    let (slice, columns) = policy.compile()?;
    let dataset = policy.dataset(&slice)?;
    let given = args.request.given(dataset.as_deref(), &columns, policy.zone)?;
    explained(&slice, &given.facts).map_err(anyhow::Error::msg)
}

/// An explanation as a terminal shows it.
pub fn lines(explanation: &Explanation, spoken: &Spoken) -> String {
    let pick = |en: &'static str, zh: &'static str| spoken.pick(en, zh);
    let mut text = format!(
        "{}: {}\n",
        spoken.pick(explanation.verdict, explanation.verdict_zh),
        plain(spoken.say(&explanation.summary))
    );
    if let Some(reason) = &explanation.reason {
        text.push_str(&format!("  [{}]\n", reason.code));
    }
    for policy in &explanation.policies {
        let sign = match policy.outcome {
            Outcome::Applied => '●',
            Outcome::Error => '!',
            _ => '○',
        };
        let effect = if policy.effect == "permit" { pick("permit", "许可") } else { pick("forbid", "禁止") };
        text.push_str(&format!("  {sign} {effect} {}: {}\n", policy.id, plain(spoken.say(&policy.sentence))));
    }
    let mut list = |title: &str, items: Vec<String>| {
        if !items.is_empty() {
            text.push_str(&format!(
                "{title}: {}\n",
                items.iter().map(|item| plain(item)).collect::<Vec<_>>().join("; ")
            ));
        }
    };
    list(pick("obligations", "义务"), explanation.obligations.clone());
    list(pick("first", "须先完成"), explanation.open.iter().map(|said| spoken.say(said).to_owned()).collect());
    list(pick("done first", "已完成"), explanation.met.iter().map(|said| spoken.say(said).to_owned()).collect());
    list(pick("afterwards", "事后"), explanation.after.clone());
    let rows: Vec<Vec<String>> = explanation
        .facts
        .iter()
        .map(|fact| {
            let name = if spoken.lang == crate::cli::Lang::Zh {
                format!("{} {}", fact.name, fact.zh)
            } else {
                fact.name.clone()
            };
            let value = fact.value.clone().unwrap_or_else(|| pick("could not be had", "无法取得").to_owned());
            vec![format!("  {name}"), plain(&value), spoken.say(&fact.vouched()).to_owned()]
        })
        .collect();
    text.push_str(&table(&[pick("facts", "事实"), pick("value", "取值"), pick("who vouches", "由谁保证")], &rows));
    text
}
