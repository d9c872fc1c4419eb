//! Checks, cases, coverage, explanations and releases.

mod cases;
mod explained;
mod lints;
mod released;
mod simulated;

use crate::{
    policy::{
        Column, ColumnKind, Columns, PolicySource, Slice,
        workbench::{Checked, Finding, check},
    },
    time::Timestamp,
};

pub const COHORT: &str = include_str!("../../../policies/examples/cohort-research.cedar");

pub fn columns() -> Columns {
    let column = |name: &str, kind| Column { name: name.into(), kind };
    Columns::new(vec![
        column("id", ColumnKind::Integer),
        column("diagdateb", ColumnKind::Date),
        column("recdate", ColumnKind::Date),
        column("deathdate", ColumnKind::Date),
        column("age", ColumnKind::Integer),
        column("menopause", ColumnKind::Integer),
        column("grade", ColumnKind::Integer),
        column("name", ColumnKind::Text),
    ])
    .unwrap()
}

pub fn slice(own: &str) -> Slice {
    let source = |name, text| PolicySource { name, text };
    Slice::compile(source("own.cedar", own), source("global.cedar", ""), "", "", &columns()).unwrap()
}

/// Everything that is found in these policies.
pub fn found_in(own: &str, global: &str, floor: &str, columns: Option<&Columns>) -> Vec<Finding> {
    check(&Checked {
        own: PolicySource { name: "own.cedar", text: own },
        global: PolicySource { name: "global.cedar", text: global },
        floor,
        connector_floor: "",
        columns,
        now: Timestamp::parse("2026-03-02T10:00:00+08:00").unwrap(),
    })
}
