//! Checking a policy: what is wrong with it, and what is likely not meant. A lint says only what is certainly so.

mod atoms;
mod conditions;
mod errors;
mod obligations;
mod slips;
mod trust;

use serde::Serialize;

use self::atoms::Known;
use crate::{
    policy::{
        Column, ColumnKind, Columns, FilterError, ObligationError, PolicyError, PolicySource, Slice,
        problem::line_column,
        slice::Compiled,
        workbench::{Anatomy, Said, on_deep_stack, scan},
    },
    time::Timestamp,
};

/// What is checked.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    /// The offer's policies.
    pub own: PolicySource<'a>,
    /// The connector's global policies.
    pub global: PolicySource<'a>,
    /// The offer's floor.
    pub floor: &'a str,
    /// The connector's floor.
    pub connector_floor: &'a str,
    /// The dataset's columns; `None`: nobody has said, so obligations are checked for their form alone.
    pub columns: Option<&'a Columns>,
    /// The present, for times that are over.
    pub now: Timestamp,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// A stable code.
    pub code: &'static str,
    /// The file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The policy's `@id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// What is so.
    pub message: String,
    /// In Chinese.
    pub message_zh: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub suggestion: String,
    /// In Chinese.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub suggestion_zh: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It can't be published, or never works.
    Error,
    /// It is likely not meant.
    Warning,
    /// Worth knowing.
    Note,
}

impl Level {
    /// In both languages.
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Error => ("error", "错误"),
            Self::Warning => ("warning", "警告"),
            Self::Note => ("note", "提示"),
        }
    }
}

/// A policy of the slice that is looked at, and where it stands.
struct Looked<'a> {
    anatomy: Anatomy,
    compiled: &'a Compiled,
    known: Known,
    file: &'a str,
    text: &'a str,
    start: usize,
}

/// Checks: errors first, and where there are none, lints.
pub fn check(checked: &Checked<'_>) -> Vec<Finding> {
    let mut findings = match compile(checked) {
        Err(_) => errors::all(checked),
        Ok((slice, columns)) => {
            on_deep_stack(|| lints(checked, &slice, &columns)).and_then(|found| found).unwrap_or_else(|problem| {
                vec![
                    Finding::new(Level::Error, "cedar", checked.own.name, (1, 1))
                        .said(Said::new(problem.clone(), problem)),
                ]
            })
        }
    };
    if checked.columns.is_none()
        && findings.iter().all(|finding| finding.level != Level::Error)
        && names_columns(checked)
    {
        let said = Said::new(
            "it is not known which columns the dataset has: obligations were checked for their form alone",
            "未知数据集有哪些字段：仅检查了义务的写法",
        );
        let hint = Said::new("give --source FILE or --column name=kind", "请提供 --source 文件或 --column 名称=类型");
        findings.push(Finding::new(Level::Note, "columns-unknown", checked.own.name, (1, 1)).said(said).hint(hint));
    }
    findings.sort_by_cached_key(|finding| {
        (finding.level, finding.file.clone(), finding.line, finding.column, finding.code, finding.policy.clone())
    });
    findings.dedup();
    findings
}

fn names_columns(checked: &Checked<'_>) -> bool {
    let with_none = Checked { columns: Some(&Columns::unknown()), ..*checked };
    compile(&with_none).is_err()
}

fn lints(checked: &Checked<'_>, slice: &Slice, columns: &Columns) -> Result<Vec<Finding>, String> {
    let mut looked = Vec::new();
    for (id, compiled) in &slice.policies {
        let policy = slice.set.policy(&cedar_policy::PolicyId::new(id)).ok_or_else(|| format!("no policy `{id}`"))?;
        let anatomy = Anatomy::read(id, policy)?;
        let at = |source: &PolicySource<'_>| scan::place_of(&anatomy.text, source.text, 0);
        let (file, text, start) = match (at(&checked.own), at(&checked.global)) {
            (Some(start), _) => (checked.own.name, checked.own.text, start),
            (None, Some(start)) => (checked.global.name, checked.global.text, start),
            (None, None) => (checked.own.name, checked.own.text, 0),
        };
        let known = Known::of(&anatomy);
        looked.push(Looked { anatomy, compiled, known, file, text, start });
    }
    let mut findings = Vec::new();
    conditions::lint(&looked, &mut findings);
    trust::lint(&looked, &mut findings);
    obligations::lint(&looked, &slice.floors, columns, checked.columns.is_some(), &mut findings);
    slips::lint(&looked, checked.columns, checked.now, &mut findings);
    Ok(findings)
}

/// Compiles; where no columns are known, with those that the obligations name.
fn compile(checked: &Checked<'_>) -> Result<(Slice, Columns), PolicyError> {
    let Checked { own, global, floor, connector_floor, columns, .. } = *checked;
    if let Some(columns) = columns {
        return Slice::compile(own, global, floor, connector_floor, columns).map(|slice| (slice, columns.clone()));
    }
    let mut columns = Columns::unknown();
    loop {
        let error = match Slice::compile(own, global, floor, connector_floor, &columns) {
            Ok(slice) => return Ok((slice, columns)),
            Err(error) => error,
        };
        let Some(more) = with_wanted(&columns, &error) else { return Err(error) };
        columns = more;
    }
}

/// The columns that obligations and floors name, of kinds that they take: for policies whose data isn't at hand.
///
/// # Errors
/// What else is wrong with them.
pub fn columns_of(checked: &Checked<'_>) -> Result<Columns, PolicyError> {
    compile(&Checked { columns: None, ..*checked }).map(|(_, columns)| columns)
}

/// With the column, or of the kind, that was missed; `None` where that is not what was wrong.
fn with_wanted(columns: &Columns, error: &PolicyError) -> Option<Columns> {
    let PolicyError::Obligation { error, .. } = error else { return None };
    let (name, kind) = match error {
        ObligationError::Column { name, column, .. } => (
            column,
            match *name {
                "year" => ColumnKind::Date,
                "band" | "round" => ColumnKind::Number,
                _ => ColumnKind::Text,
            },
        ),
        ObligationError::Filter(FilterError::Column { column, .. }) => (column, ColumnKind::Text),
        ObligationError::Kind { column, needs, .. } => {
            (column, if *needs == "dates" { ColumnKind::Date } else { ColumnKind::Number })
        }
        ObligationError::Filter(FilterError::Kind { column, kind, .. }) if *kind == "text" => {
            (column, ColumnKind::Number)
        }
        _ => return None,
    };
    let mut all: Vec<Column> = columns.iter().cloned().collect();
    match all.iter_mut().find(|known| known.name == *name) {
        // what was a text by default may become something else once
        Some(known) if known.kind == ColumnKind::Text && kind != ColumnKind::Text => known.kind = kind,
        Some(_) => return None,
        None => all.push(Column { name: name.clone(), kind }),
    }
    Columns::new(all).ok()
}

impl Finding {
    fn new(level: Level, code: &'static str, file: &str, (line, column): (usize, usize)) -> Self {
        Self {
            level,
            code,
            file: file.to_owned(),
            line,
            column,
            policy: None,
            message: String::new(),
            message_zh: String::new(),
            suggestion: String::new(),
            suggestion_zh: String::new(),
        }
    }

    fn said(self, said: Said) -> Self {
        Self { message: said.en, message_zh: said.zh, ..self }
    }

    fn hint(self, said: Said) -> Self {
        Self { suggestion: said.en, suggestion_zh: said.zh, ..self }
    }
}

impl Looked<'_> {
    fn id(&self) -> &str {
        &self.anatomy.id
    }

    /// A finding about this policy, at a byte of its text.
    fn finding(&self, level: Level, code: &'static str, at: usize, said: Said) -> Finding {
        let mut finding = Finding::new(level, code, self.file, line_column(self.text, self.start + at)).said(said);
        finding.policy = Some(self.anatomy.id.clone());
        finding
    }

    /// Where an annotation stands in its text.
    fn annotation(&self, key: &str) -> usize {
        self.anatomy.text.find(&format!("@{key}")).unwrap_or(0)
    }
}
