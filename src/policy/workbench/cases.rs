//! The test file beside a policy, and how its cases come out.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    error::Refusal,
    policy::{
        After, Before, Column, ColumnKind, Columns, Decision, Duties, Obligations, Slice, Verdict, parse,
        problem::{did_you_mean, harmless, nearest},
        workbench::{
            Anatomy, Coverage, Explanation, Given, Said,
            explain::explain_with,
            given::{self, TABLES},
            on_deep_stack,
            tree::{self, At, Item, Value as Toml, Wrong},
            written,
        },
    },
    time::Zone,
};

const TOP: [&str; 10] =
    ["policy", "global", "floor", "connector_floor", "zone", "source", "format", "columns", "defaults", "case"];
const EXPECTED: [&str; 7] = ["name", "expect", "policies", "obligations", "open", "after", "reason"];
const VERDICTS: [Verdict; 4] = [Verdict::Allow, Verdict::Conditional, Verdict::Deny, Verdict::DefaultDeny];

/// A test file.
#[derive(Clone, Debug)]
pub struct Suite {
    text: String,
    /// The policy file; `None`: the test file's name says.
    pub policy: Option<String>,
    /// The connector's global policies.
    pub global: Option<String>,
    /// The offer's floor.
    pub floor: String,
    /// The connector's floor.
    pub connector_floor: String,
    /// Where days begin.
    pub zone: Zone,
    /// Where the columns come from.
    pub source: Option<String>,
    /// How that is laid out.
    pub format: String,
    /// The columns, where they are stated.
    pub columns: Option<Columns>,
    cases: Vec<Item>,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// Its line in the file.
    pub line: usize,
    /// The request.
    pub given: Given,
    /// What is to come out.
    pub expected: Expected,
}

/// What is to come out of a case; what is not stated is not looked at.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The verdict.
    pub verdict: Verdict,
    /// The deciding policies.
    pub policies: Option<BTreeSet<String>>,
    /// What is demanded of the bytes.
    pub obligations: Option<Obligations>,
    /// What is still open.
    pub open: Option<BTreeSet<Before>>,
    /// What is owed afterwards.
    pub after: Option<Duties>,
    /// The reason code.
    pub reason: Option<String>,
}

/// How a case came out.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaseResult {
    /// Its name.
    pub name: String,
    /// Its line in the file.
    pub line: usize,
    /// Whether everything came out as it is expected.
    pub passed: bool,
    /// The expected verdict.
    pub expected: &'static str,
    /// What came out otherwise.
    pub differences: Vec<Said>,
    /// Why it came out as it did.
    pub explanation: Explanation,
}

impl Suite {
    /// Reads a test file.
    ///
    /// # Errors
    /// Not TOML, an unknown key, a value that can't be: with line and column.
    pub fn read(text: &str) -> Result<Self, Wrong> {
        Self::read_at(text).map_err(|wrong| wrong.in_text(text))
    }

    fn read_at(text: &str) -> Result<Self, At> {
        let file = tree::read(text)?;
        file.only(&TOP)?;
        let said = |key: &str| file.get(key).map(|item| item.text().map(str::to_owned)).transpose();
        if let Some(defaults) = file.get("defaults") {
            defaults.only(&TABLES)?;
        }
        let defaults = file.get("defaults").cloned().unwrap_or_else(Item::table);
        let known: Vec<&str> = TABLES.into_iter().chain(EXPECTED).collect();
        let cases = match file.get("case").map(|item| &item.value) {
            None => Vec::new(),
            Some(Toml::List(items)) => items
                .iter()
                .map(|case| {
                    case.only(&known)?;
                    Ok(Item { at: case.at, ..defaults.merged(case) })
                })
                .collect::<Result<_, At>>()?,
            Some(_) => return Err(At::new(0, "cases are written as [[case]]")),
        };
        let zone = match file.get("zone") {
            None => Zone::BEIJING,
            Some(zone) => zone.text()?.parse().map_err(|error: String| At::new(zone.at, error))?,
        };
        if let (Some(source), Some(_)) = (file.get("source"), file.get("columns")) {
            return Err(At::new(source.at, "`source` and [columns] both say what columns there are: give one of them"));
        }
        Ok(Self {
            text: text.to_owned(),
            policy: said("policy")?,
            global: said("global")?,
            floor: said("floor")?.unwrap_or_default(),
            connector_floor: said("connector_floor")?.unwrap_or_default(),
            zone,
            source: said("source")?,
            format: said("format")?.unwrap_or_else(|| "csv".to_owned()),
            columns: file.get("columns").map(columns).transpose()?,
            cases,
        })
    }

    /// Its cases; the columns say what can be asked for.
    ///
    /// # Errors
    /// A case that can't be read, two cases of one name: with line and column.
    pub fn cases(&self, columns: &Columns) -> Result<Vec<Case>, Wrong> {
        let mut names = BTreeSet::new();
        let cases = self.cases.iter().map(|item| {
            let case = self.case(item, columns)?;
            match names.insert(case.name.clone()) {
                true => Ok(case),
                false => Err(At::new(item.at, format!("there is a case `{}` already", harmless(&case.name)))),
            }
        });
        cases.collect::<Result<_, At>>().map_err(|wrong| wrong.in_text(&self.text))
    }

    fn case(&self, item: &Item, columns: &Columns) -> Result<Case, At> {
        let missing = |key: &str| At::new(item.at, format!("`{key}` is missing in this case"));
        let expect = item.get("expect").ok_or_else(|| missing("expect"))?;
        let name = item.get("name").ok_or_else(|| missing("name"))?.text()?.to_owned();
        let verdict = expect.text()?;
        let verdict = VERDICTS.into_iter().find(|known| known.as_str() == verdict).ok_or_else(|| {
            let hint = did_you_mean(nearest(verdict, VERDICTS.map(Verdict::as_str)), "");
            At::new(
                expect.at,
                format!(
                    "`{}` is no verdict{hint}; there are allow, conditional, deny, default-deny",
                    harmless(verdict)
                ),
            )
        })?;
        let obligations = |item: &Item| -> Result<Obligations, At> {
            let text = item.text()?;
            if text.trim().is_empty() {
                return Ok(Obligations::default());
            }
            let read = parse::obligations(text, columns).map_err(|error| At::new(item.at, error.to_string()))?;
            Ok(Obligations::meet(&read))
        };
        let open = |item: &Item| -> Result<BTreeSet<Before>, At> {
            item.texts()?.into_iter().map(|(text, at)| given::before(text, at)).collect()
        };
        let after = |item: &Item| -> Result<Duties, At> {
            let read = item
                .texts()?
                .into_iter()
                .map(|(text, at)| parse::after(text).map_err(|error| At::new(at, error.to_string())));
            let read: Vec<Vec<After>> = read.collect::<Result<_, At>>()?;
            Ok(Duties::meet(read.iter().flatten()))
        };
        let policies = |item: &Item| -> Result<BTreeSet<String>, At> {
            Ok(item.texts()?.into_iter().map(|(id, _)| id.to_owned()).collect())
        };
        Ok(Case {
            line: crate::policy::problem::line_column(&self.text, item.at).0,
            given: given::given(item, columns, self.zone)?,
            expected: Expected {
                verdict,
                policies: item.get("policies").map(policies).transpose()?,
                obligations: item.get("obligations").map(obligations).transpose()?,
                open: item.get("open").map(open).transpose()?,
                after: item.get("after").map(after).transpose()?,
                reason: item.get("reason").map(|reason| reason.text().map(str::to_owned)).transpose()?,
            },
            name,
        })
    }
}

fn columns(item: &Item) -> Result<Columns, At> {
    let entries = item.entries()?.iter().map(|entry| {
        let kind = entry.item.text()?;
        let kind = column_kind(kind).ok_or_else(|| {
            At::new(
                entry.item.at,
                format!("`{}` is no kind of column: there are text, integer, number, date, boolean", harmless(kind)),
            )
        })?;
        Ok(Column { name: entry.key.clone(), kind })
    });
    Columns::new(entries.collect::<Result<_, At>>()?).map_err(|error| At::new(item.at, error.to_string()))
}

/// A kind by its name in a file or on a command line.
pub(super) fn column_kind(name: &str) -> Option<ColumnKind> {
    Some(match name {
        "text" => ColumnKind::Text,
        "integer" => ColumnKind::Integer,
        "number" => ColumnKind::Number,
        "date" => ColumnKind::Date,
        "boolean" => ColumnKind::Boolean,
        _ => return None,
    })
}

/// Runs all cases.
///
/// # Errors
/// A slice that can't be taken apart: nothing that compiles.
pub fn run(slice: &Slice, columns: &Columns, cases: &[Case]) -> Result<(Vec<CaseResult>, Coverage), String> {
    let anatomies = Anatomy::of(slice)?;
    let mut coverage = Coverage::new(&anatomies);
    let mut results = Vec::new();
    for case in cases {
        on_deep_stack(|| coverage.see(slice, &anatomies, &case.given.facts))?;
        let decision = decided(slice, columns, &case.given);
        let differences = differences(&case.expected, &decision);
        results.push(CaseResult {
            name: case.name.clone(),
            line: case.line,
            passed: differences.is_empty(),
            expected: case.expected.verdict.as_str(),
            differences,
            explanation: explain_with(slice, &anatomies, &case.given.facts, &decision)?,
        });
    }
    Ok((results, coverage))
}

/// What a connector answers: the policy's verdict, and then whether what is asked for may be had.
pub(super) fn decided(slice: &Slice, columns: &Columns, given: &Given) -> Decision {
    let mut decision = slice.decide(&given.facts);
    if let (Verdict::Allow, Some(asked)) = (decision.verdict, &given.asked)
        && let Err(error) = decision.obligations.clone().for_request(asked, columns, 0)
    {
        decision.verdict = Verdict::DefaultDeny;
        decision.obligations = Obligations::default();
        decision.duties = Duties::default();
        decision.reason = Some(Refusal { code: crate::error::Code::of(error.code()), sentence: error.to_string() });
    }
    decision
}

fn differences(expected: &Expected, got: &Decision) -> Vec<Said> {
    let mut found = Vec::new();
    let mut compare = |what: Said, expected: String, got: String| {
        if expected != got {
            let or_none =
                |text: String| if text.is_empty() { Said::new("none", "无") } else { Said::new(text.clone(), text) };
            let (expected, got) = (or_none(expected), or_none(got));
            found.push(Said::new(
                format!("{}: expected {}, got {}", what.en, expected.en, got.en),
                format!("{}：应为 {}，实为 {}", what.zh, expected.zh, got.zh),
            ));
        }
    };
    compare(Said::new("verdict", "结论"), expected.verdict.as_str().into(), got.verdict.as_str().into());
    let list = |texts: &mut dyn Iterator<Item = String>| texts.collect::<Vec<_>>().join(", ");
    if let Some(policies) = &expected.policies {
        let got: BTreeSet<&String> = got.policies.iter().collect();
        compare(
            Said::new("policies", "策略"),
            list(&mut policies.iter().cloned()),
            list(&mut got.into_iter().cloned()),
        );
    }
    if let Some(obligations) = &expected.obligations {
        compare(
            Said::new("obligations", "义务"),
            written(obligations).join("; "),
            written(&got.obligations).join("; "),
        );
    }
    if let Some(open) = &expected.open {
        let got: BTreeSet<&Before> = got.open.iter().collect();
        compare(
            Said::new("open", "待完成"),
            list(&mut open.iter().map(ToString::to_string)),
            list(&mut got.into_iter().map(ToString::to_string)),
        );
    }
    if let Some(after) = &expected.after {
        compare(Said::new("after", "事后义务"), after.written().join("; "), got.duties.written().join("; "));
    }
    if let Some(reason) = &expected.reason {
        let got = got.reason.as_ref().map(|reason| reason.code.as_str().to_owned()).unwrap_or_default();
        compare(Said::new("reason", "原因代码"), reason.clone(), got);
    }
    found
}
