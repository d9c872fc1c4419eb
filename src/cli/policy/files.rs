//! The files that the workbench works on: policies, offers, test files, and the columns of their data.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::{
    cli::Lang,
    offer::OfferFile,
    policy::{
        Column, ColumnKind, Columns, PolicySource, Slice,
        workbench::{Anatomy, Checked, Said, Suite, columns_of},
    },
    source::{Format, Opened, Roots, header},
    time::{Clock as _, SystemClock, Timestamp, Zone},
};

/// Deepest folder that is looked into.
const MAX_DEPTH: usize = 16;
const TEST: &str = ".test.toml";

/// What stands around a policy file.
#[derive(Debug, Default, Args)]
pub struct Around {
    /// A data file whose header says which columns there are.
    #[arg(long, value_name = "FILE")]
    pub source: Option<PathBuf>,
    /// How the source is laid out; default: the offer's or the test file's word, else csv.
    #[arg(long)]
    format: Option<String>,
    /// A column and its kind: text, integer, number, date or boolean.
    #[arg(long, value_name = "NAME=KIND", value_parser = column)]
    column: Vec<Column>,
    /// The connector's global policies.
    #[arg(long, value_name = "FILE")]
    global: Option<PathBuf>,
    /// Obligations that hold whatever permit matched: the offer's floor.
    #[arg(long)]
    floor: Option<String>,
    /// The connector's floor.
    #[arg(long)]
    connector_floor: Option<String>,
    /// Where an offer's source is looked for; default: the offer's own folder.
    #[arg(long, value_name = "FOLDER")]
    root: Vec<PathBuf>,
}

/// Which language.
#[derive(Debug, Default, Args)]
pub struct Spoken {
    /// The language of what is told.
    #[arg(long, value_enum, default_value_t)]
    pub lang: Lang,
}

/// A policy with what stands around it.
pub struct Policy {
    /// Its file's name, for messages.
    pub name: String,
    pub text: String,
    pub global_name: String,
    pub global: String,
    pub floor: String,
    pub connector_floor: String,
    /// `None`: nobody has said.
    pub columns: Option<Columns>,
    /// The data, where it is known and there.
    pub source: Option<PathBuf>,
    pub format: String,
    pub zone: Zone,
    /// The offer, where there is one.
    pub offer: Option<OfferFile>,
}

impl Spoken {
    /// In the language that is asked for.
    pub fn say<'a>(&self, said: &'a Said) -> &'a str {
        self.pick(&said.en, &said.zh)
    }

    pub fn pick<'a>(&self, en: &'a str, zh: &'a str) -> &'a str {
        if self.lang == Lang::Zh { zh } else { en }
    }
}

impl Policy {
    pub fn checked(&self) -> Checked<'_> {
        Checked {
            own: PolicySource { name: &self.name, text: &self.text },
            global: PolicySource { name: &self.global_name, text: &self.global },
            floor: &self.floor,
            connector_floor: &self.connector_floor,
            columns: self.columns.as_ref(),
            now: now(),
        }
    }

    /// Compiles; without known columns, with those that the obligations name.
    pub fn compile(&self) -> anyhow::Result<(Slice, Columns)> {
        let checked = self.checked();
        let columns = match &self.columns {
            Some(columns) => columns.clone(),
            None => columns_of(&checked)?,
        };
        let slice = Slice::compile(checked.own, checked.global, &self.floor, &self.connector_floor, &columns)?;
        Ok((slice, columns))
    }

    /// The dataset that a request is about, unless it says: the offer's, or the only one that the policies name.
    pub fn dataset(&self, slice: &Slice) -> anyhow::Result<Option<String>> {
        if let Some(offer) = &self.offer {
            return Ok(Some(offer.dataset.id.as_str().to_owned()));
        }
        let policies = Anatomy::of(slice).map_err(anyhow::Error::msg)?;
        let mut named: Vec<&str> = policies.iter().filter_map(Anatomy::dataset).collect();
        named.sort_unstable();
        named.dedup();
        Ok(if let [only] = named.as_slice() { Some((*only).to_owned()) } else { None })
    }
}

impl Around {
    /// Loads a policy file, or an offer with its policy.
    pub fn load(&self, path: &Path) -> anyhow::Result<Policy> {
        if is_test(path) {
            bail!("{} is a test file: run it with `counterseal policy test`", path.display());
        }
        let mut policy = if is_toml(path) { self.of_offer(path)? } else { self.of_policy(path)? };
        if let Some(global) = &self.global {
            policy.global = read(global)?;
            policy.global_name = global.display().to_string();
        }
        policy.floor = self.floor.clone().unwrap_or(policy.floor);
        policy.connector_floor = self.connector_floor.clone().unwrap_or(policy.connector_floor);
        policy.format = self.format.clone().unwrap_or(policy.format);
        policy.source = self.source.clone().or(policy.source);
        match (&self.source, self.column.as_slice()) {
            (Some(_), [_, ..]) => bail!("--source and --column both say what columns there are: give one of them"),
            (None, [_, ..]) => policy.columns = Some(Columns::new(self.column.clone())?),
            _ => {}
        }
        if let (Some(source), true) = (&policy.source, self.column.is_empty()) {
            policy.columns = Some(columns(source, &policy.format)?);
        }
        Ok(policy)
    }

    fn of_offer(&self, path: &Path) -> anyhow::Result<Policy> {
        let (offer, text) = OfferFile::load(path)?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let roots = if self.root.is_empty() { std::slice::from_ref(&folder) } else { &self.root };
        let source = roots.iter().map(|root| root.join(&offer.dataset.source)).find(|source| source.is_file());
        if source.is_none() && !self.root.is_empty() {
            bail!("`{}` is below none of the roots", offer.dataset.source);
        }
        Ok(Policy {
            name: offer.policy.file.display().to_string(),
            text,
            floor: offer.policy.floor.clone(),
            source,
            format: offer.dataset.format.clone(),
            zone: offer.policy.zone.unwrap_or_default(),
            offer: Some(offer),
            ..Policy::empty()
        })
    }

    fn of_policy(&self, path: &Path) -> anyhow::Result<Policy> {
        let own = Policy { name: path.display().to_string(), text: read(path)?, ..Policy::empty() };
        let beside = path.with_extension("test.toml");
        if !beside.is_file() {
            return Ok(own);
        }
        // what the test file says of the policy's surroundings
        let suite = suite(&beside)?;
        if suite.policy.as_deref().is_some_and(|named| path.file_name() != Some(named.as_ref())) {
            return Ok(own);
        }
        let around = of_suite(&beside, &suite)?;
        Ok(Policy { name: own.name, text: own.text, ..around })
    }
}

impl Policy {
    fn empty() -> Self {
        Self {
            name: String::new(),
            text: String::new(),
            global_name: "the global policies".to_owned(),
            global: String::new(),
            floor: String::new(),
            connector_floor: String::new(),
            columns: None,
            source: None,
            format: "csv".to_owned(),
            zone: Zone::BEIJING,
            offer: None,
        }
    }
}

/// A test file.
pub fn suite(path: &Path) -> anyhow::Result<Suite> {
    Suite::read(&read(path)?).map_err(|wrong| anyhow::anyhow!("{}:{wrong}", path.display()))
}

/// The policy that a test file is about, with what it says of its surroundings.
pub fn of_suite(path: &Path, suite: &Suite) -> anyhow::Result<Policy> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let stem = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().trim_end_matches(TEST);
    let file = folder.join(suite.policy.clone().unwrap_or_else(|| format!("{stem}.cedar")));
    let source = suite.source.as_ref().map(|source| folder.join(source));
    let columns = match (&suite.columns, &source) {
        (Some(columns), _) => Some(columns.clone()),
        (None, Some(source)) => Some(columns(source, &suite.format)?),
        (None, None) => None,
    };
    let global = suite.global.as_ref().map(|global| folder.join(global));
    Ok(Policy {
        text: read(&file)?,
        name: file.display().to_string(),
        global: global.as_deref().map(read).transpose()?.unwrap_or_default(),
        global_name: global.map(|global| global.display().to_string()).unwrap_or_default(),
        floor: suite.floor.clone(),
        connector_floor: suite.connector_floor.clone(),
        columns,
        source,
        format: suite.format.clone(),
        zone: suite.zone,
        offer: None,
    })
}

/// `1 warning`, `2 warnings`.
pub fn counted(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// Whether it is a test file by its name.
pub fn is_test(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(TEST))
}

fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

/// Whether it is an offer by its name.
pub fn is_offer(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name == "offer.toml" || name.ends_with(".offer.toml")
}

/// The files that are named, and those in folders that are wanted, each once, in order.
pub fn find(paths: &[PathBuf], wanted: impl Fn(&Path) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        let meta = std::fs::metadata(path).with_context(|| path.display().to_string())?;
        if meta.is_dir() {
            walk(path, &wanted, 0, &mut found)?;
        } else {
            found.push(path.clone());
        }
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|path| seen.insert(path.clone()));
    Ok(found)
}

fn walk(folder: &Path, wanted: &impl Fn(&Path) -> bool, depth: usize, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if depth > MAX_DEPTH {
        bail!("{}: folders are nested too deeply", folder.display());
    }
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| folder.display().to_string())?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().with_context(|| path.display().to_string())?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if kind.is_dir() && !hidden {
            walk(&path, wanted, depth + 1, found)?;
        } else if !kind.is_dir() && wanted(&path) {
            found.push(path);
        }
    }
    Ok(())
}

/// Opens a data file as a release would.
pub fn open(path: &Path) -> anyhow::Result<Opened> {
    let full = path.canonicalize().with_context(|| path.display().to_string())?;
    let (Some(folder), Some(name)) = (full.parent(), full.file_name().and_then(|name| name.to_str())) else {
        bail!("{} is no file", path.display());
    };
    let home = tempfile::tempdir()?;
    Ok(Roots::new(vec![folder.to_owned()], home.path())?.open(name)?)
}

/// The columns of a data file.
pub fn columns(path: &Path, format: &str) -> anyhow::Result<Columns> {
    Ok(header(&open(path)?, format.parse::<Format>()?)?)
}

fn column(pair: &str) -> Result<Column, String> {
    let (name, kind) = pair.split_once('=').ok_or("write it as name=kind")?;
    let kind: ColumnKind = serde_json::from_value(kind.into())
        .map_err(|_| format!("`{kind}` is no kind of column: there are text, integer, number, date, boolean"))?;
    Ok(Column { name: name.to_owned(), kind })
}

pub fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
}

pub fn now() -> Timestamp {
    SystemClock.now()
}
