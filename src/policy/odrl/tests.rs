//! Both ways, and both ways again: Cedar decides as an independent ODRL evaluator does.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{evaluator::evaluate, *};
use crate::{
    id::{DatasetId, ParticipantId},
    policy::{
        Action, Amount, Before, Column, ColumnKind, Columns, ContextFact, FactKind, Facts, Frequency, Money, Principal,
        Resource, Spent, UseAction, Value, Verdict,
    },
    protocol_like::schema_takes,
    time::Timestamp,
};

mod random;
mod refused;

use random::{facts, shape, text};

fn columns() -> Columns {
    let column = |name: &str, kind| Column { name: name.into(), kind };
    Columns::new(vec![
        column("id", ColumnKind::Integer),
        column("diagdateb", ColumnKind::Date),
        column("recdate", ColumnKind::Date),
        column("deathdate", ColumnKind::Date),
        column("age", ColumnKind::Integer),
        column("menopause", ColumnKind::Integer),
        column("grade", ColumnKind::Integer),
    ])
    .unwrap()
}

fn compile(own: &str) -> Slice {
    compile_with(own, "", "")
}

fn compile_with(own: &str, global: &str, floor: &str) -> Slice {
    let source = |name, text| PolicySource { name, text };
    Slice::compile(source("own.cedar", own), source("global.cedar", global), floor, "", &columns())
        .unwrap_or_else(|error| panic!("{error}\n{own}"))
}
