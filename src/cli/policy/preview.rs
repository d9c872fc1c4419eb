//! `counterseal policy preview`

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use super::{
    explain::RequestArgs,
    files::{Around, Policy, Spoken, open},
};
use crate::{
    cli::output::{self, Output, plain},
    policy::{Action, Asked, Column, ColumnKind, Columns, Obligations, Slice, Verdict, workbench::written},
    source::{Format, each_row},
    transform::{HashKey, Plan},
};

/// Longest cell that is shown whole, in characters.
const CELL: usize = 28;
/// Most rows that are shown.
const MAX_ROWS: u64 = 1000;

/// What a release would change.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  counterseal policy preview cohort.cedar --source data/lymph_node.csv --policies cohort-research
  counterseal policy preview offer.toml --root data --rows 3
  counterseal policy preview cohort.cedar --source data/lymph_node.csv --action release --group research --context purpose=research

The pseudonyms of `hash` are made with a key of zeros: in a release they are others.")]
pub struct Preview {
    /// A .cedar file or an offer.toml.
    path: PathBuf,
    /// How many rows of the source are shown.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=MAX_ROWS))]
    rows: u64,
    /// The permits whose obligations are applied; default: what the request gets, or the only permit of `release`.
    #[arg(long, value_delimiter = ',', conflicts_with = "action")]
    policies: Vec<String>,
    #[command(flatten)]
    request: RequestArgs,
    #[command(flatten)]
    around: Around,
    #[command(flatten)]
    spoken: Spoken,
}

/// Keys that are no secret.
struct Zeros;

impl HashKey for Zeros {
    fn key(&self, domain: &str) -> [u8; 32] {
        crate::crypto::hkdf_sha256(&[0; 32], b"", &[b"counterseal/preview", domain.as_bytes()])
    }
}

/// A row of the source, and what leaves of it.
struct Row {
    number: u64,
    before: Vec<String>,
    after: Option<Vec<String>>,
}

struct Previewed {
    columns: Vec<String>,
    leaving: Vec<String>,
    rows: Vec<Row>,
    of: u64,
    released: u64,
}

pub fn run(args: Preview, out: &Output) -> anyhow::Result<ExitCode> {
    let policy = args.around.load(&args.path)?;
    let Some(source) = policy.source.clone() else {
        bail!("which data? give --source FILE (or --root FOLDER for an offer's own source)");
    };
    let format: Format = policy.format.parse()?;
    let columns = super::files::columns(&source, &policy.format)?;
    let policy = Policy { columns: Some(columns.clone()), ..policy };
    let (slice, _) = policy.compile()?;
    let (obligations, permits) = wanted(&args, &policy, &slice, &columns)?;
    let seen = preview(&source, format, &columns, &obligations, args.rows)?;
    let demanded = written(&obligations);
    let rows = |pick: &dyn Fn(&Row) -> Value| seen.rows.iter().map(pick).collect::<Vec<_>>();
    let record = |names: &[String], cells: &[String]| -> Value {
        names.iter().cloned().zip(cells.iter().map(|cell| json!(cell))).collect::<serde_json::Map<_, _>>().into()
    };
    let value = json!({
        "policies": permits,
        "obligations": demanded,
        "columns": seen.columns,
        "leaving": seen.leaving,
        "before": rows(&|row| record(&seen.columns, &row.before)),
        "after": rows(&|row| row.after.as_ref().map_or(Value::Null, |after| record(&seen.leaving, after))),
        "rows": seen.of,
        "released": seen.released,
        "hashKey": "zeros, for the preview alone",
    });
    out.show(&value, |_| shown(&seen, &demanded, &permits, &args.spoken));
    Ok(ExitCode::SUCCESS)
}

/// What is applied, and on whose word.
fn wanted(
    args: &Preview,
    policy: &Policy,
    slice: &Slice,
    columns: &Columns,
) -> anyhow::Result<(Obligations, Vec<String>)> {
    let permits: Vec<String> = slice
        .clauses()
        .into_iter()
        .filter(|clause| clause.permit && clause.actions.contains(&Action::Release))
        .map(|clause| clause.id)
        .collect();
    let (chosen, asked) = if args.request.is_given() {
        let dataset = policy.dataset(slice)?;
        let given = args.request.given(dataset.as_deref(), columns, policy.zone)?;
        let decision = slice.decide(&given.facts);
        if let (false, Some(reason)) = (decision.verdict == Verdict::Allow, decision.reason) {
            return Err(reason.into());
        }
        (decision.policies, given.asked.unwrap_or_default())
    } else {
        let chosen = match (args.policies.as_slice(), permits.as_slice()) {
            ([], [only]) => vec![only.clone()],
            ([], []) => bail!("no policy here permits `release`: nothing would leave"),
            ([], _) => bail!(
                "several policies permit `release`: say which by --policies ({}), or give a request",
                permits.join(", ")
            ),
            (chosen, _) => chosen.to_vec(),
        };
        if let Some(unknown) = chosen.iter().find(|id| !permits.contains(id)) {
            bail!("`{unknown}` is no permit of `release` here; there are {}", permits.join(", "));
        }
        (chosen, Asked::default())
    };
    let obligations = slice.demanded(&chosen).for_request(&asked, columns, 0)?;
    Ok((obligations, chosen))
}

/// Runs the real plan over the whole source, with the row's number beside each row so that both can be laid side by side.
fn preview(
    source: &Path,
    format: Format,
    columns: &Columns,
    obligations: &Obligations,
    rows: u64,
) -> anyhow::Result<Previewed> {
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let mut number = "row".to_owned();
    while names.contains(&number) {
        number.push('_');
    }
    let mut first = Vec::new();
    let mut numbered = tempfile::tempfile()?;
    let of = {
        let mut writer = csv::Writer::from_writer(std::io::BufWriter::new(&mut numbered));
        writer.write_field(&number)?;
        writer.write_record(&names)?;
        let (mut of, mut scratch, mut failed) = (0_u64, String::new(), None);
        each_row(&open(source)?, format, columns, &mut |row| {
            of += 1;
            let mut cells = Vec::with_capacity(names.len());
            for place in 0..names.len() {
                cells.push(row.text(place, &mut scratch)?.to_owned());
            }
            let written = writer.write_field(of.to_string()).and_then(|()| writer.write_record(&cells));
            failed = written.err();
            if of <= rows {
                first.push(Row { number: of, before: cells, after: None });
            }
            Ok(failed.is_none())
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        writer.flush()?;
        of
    };
    numbered.seek(SeekFrom::Start(0))?;
    let with_number =
        std::iter::once(Column { name: number.clone(), kind: ColumnKind::Integer }).chain(columns.iter().cloned());
    let with_number = Columns::new(with_number.collect())?;
    let mut obligations = obligations.clone();
    if let Some(keep) = &mut obligations.keep {
        keep.insert(number);
    }
    let plan = Plan::compile(&obligations, &with_number, Format::Csv, Arc::new(Zeros))?;
    let leaving: Vec<String> = plan.output_columns().into_iter().skip(1).collect();
    if leaving.is_empty() {
        bail!("no column is left: each is dropped, or not kept");
    }
    let mut released = tempfile::tempfile()?;
    plan.run(numbered, &mut std::io::BufWriter::new(&mut released), &|| false)?;
    released.flush()?;
    released.seek(SeekFrom::Start(0))?;
    let mut after: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut count = 0_u64;
    for record in csv::Reader::from_reader(std::io::BufReader::new(&released)).records() {
        let record = record?;
        count += 1;
        let number: u64 = record.get(0).unwrap_or_default().parse().context("the row's number got lost")?;
        if number <= rows {
            after.insert(number, record.iter().skip(1).map(str::to_owned).collect());
        }
    }
    for row in &mut first {
        row.after = after.remove(&row.number);
    }
    Ok(Previewed { columns: names, leaving, rows: first, of, released: count })
}

fn shown(seen: &Previewed, demanded: &[String], permits: &[String], spoken: &Spoken) -> String {
    let pick = |en: &'static str, zh: &'static str| spoken.pick(en, zh);
    let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut text = format!(
        "{}: {}\n",
        permits.join(", "),
        if demanded.is_empty() { pick("no obligations", "无义务").to_owned() } else { demanded.join("; ") }
    );
    let places: Vec<Option<usize>> =
        seen.columns.iter().map(|column| seen.leaving.iter().position(|leaving| leaving == column)).collect();
    // each cell: what is shown, and whether it differs from what was
    let mut grid: Vec<Vec<(String, Change)>> = vec![
        std::iter::once(("#".to_owned(), Change::Same))
            .chain(seen.columns.iter().zip(&places).map(|(column, place)| match place {
                Some(_) => (short(column), Change::Same),
                None => (format!("✗ {}", short(column)), Change::Gone),
            }))
            .collect(),
    ];
    for row in &seen.rows {
        let cells = row.before.iter().zip(&places).map(|(before, place)| match (&row.after, place) {
            (None, _) | (_, None) => (format!("✗ {}", short(before)), Change::Gone),
            (Some(after), Some(place)) => match after.get(*place) {
                Some(same) if same == before => (short(before), Change::Same),
                Some(other) => (format!("{} → {}", short(before), short(other)), Change::Changed),
                None => ("?".to_owned(), Change::Changed),
            },
        });
        let number = if row.after.is_some() { row.number.to_string() } else { format!("✗ {}", row.number) };
        grid.push(std::iter::once((number, Change::Same)).chain(cells).collect());
    }
    let width = |place: usize| {
        grid.iter().filter_map(|row| row.get(place)).map(|(cell, _)| output::width(cell)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..=seen.columns.len()).map(width).collect();
    for row in &grid {
        let mut line = String::new();
        for ((cell, change), width) in row.iter().zip(&widths) {
            let padded = output::padded(cell, *width);
            line.push_str(&if coloured { change.painted(&padded) } else { padded });
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push_str(&match spoken.lang {
        crate::cli::Lang::En => format!("{} of {} rows leave; ✗ stays here; before → after\n", seen.released, seen.of),
        crate::cli::Lang::Zh => format!("{} / {} 行放行；✗ 不放行；变更前 → 变更后\n", seen.released, seen.of),
    });
    if demanded.iter().any(|one| one.starts_with("hash(")) {
        text.push_str(pick(
            "pseudonyms are made with a key of zeros here: in a release they are others\n",
            "此处的假名以全零密钥生成：实际放行时会不同\n",
        ));
    }
    text
}

#[derive(Clone, Copy)]
enum Change {
    Same,
    Changed,
    Gone,
}

impl Change {
    fn painted(self, cell: &str) -> String {
        match self {
            Self::Same => cell.to_owned(),
            Self::Changed => format!("\x1b[1;33m{cell}\x1b[0m"),
            Self::Gone => format!("\x1b[2;9m{cell}\x1b[0m"),
        }
    }
}

fn short(cell: &str) -> String {
    let cell = plain(cell);
    if cell.chars().count() <= CELL { cell } else { cell.chars().take(CELL - 1).chain(['…']).collect() }
}
