//! The plan: obligations compiled against the columns, run over a source.

use std::{
    collections::HashMap,
    io::{Read, Seek, SeekFrom, Write},
    sync::Arc,
};

use arrow_array::{Array as _, RecordBatch, StringArray, cast::AsArray as _};

use crate::{
    policy::{ColumnRule, Columns, Obligations},
    transform::{
        TransformError,
        rows::{Out, Rows},
        rules::Rule,
        select::Selector,
    },
};

/// Most groups that `at_least` counts.
const MAX_GROUPS: usize = 1_000_000;
/// Block of a plain copy.
const COPY: usize = 1 << 16;

/// Where keys of `hash` come from: one for each domain.
pub trait HashKey: Send + Sync {
    /// The key of this domain.
    fn key(&self, domain: &str) -> [u8; 32];
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Data rows, where they were counted; 0 in a plain copy.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Takes the columns of a batch as released, and the rows that are selected.
type Take<'a> = &'a mut dyn FnMut(&[StringArray], &[usize]) -> Result<(), TransformError>;

/// Obligations ready to be applied to data with these columns.
pub struct Plan {
    columns: Columns,
    /// One a column; `None` leaves it alone.
    rules: Vec<Option<Rule>>,
    /// Places of the columns that come out.
    output: Vec<usize>,
    select: Option<Selector>,
    limit: Option<u64>,
    /// k, and the places whose released values make a group.
    at_least: Option<(u64, Vec<usize>)>,
    identity: bool,
}

impl Plan {
    /// Compiles.
    ///
    /// # Errors
    /// An obligation on a column that isn't there: it could not be met.
    pub fn compile(
        obligations: &Obligations,
        columns: &Columns,
        hash: Arc<dyn HashKey>,
    ) -> Result<Self, TransformError> {
        let exists =
            |name: &String| columns.position(name).map(|_| ()).ok_or_else(|| TransformError::Column(name.clone()));
        obligations.columns.keys().try_for_each(exists)?;
        obligations.keep.iter().flatten().try_for_each(exists)?;
        obligations.at_least.iter().flat_map(|at_least| &at_least.columns).try_for_each(exists)?;
        let released = |name: &String| {
            obligations.columns.get(name) != Some(&ColumnRule::Drop)
                && obligations.keep.as_ref().is_none_or(|keep| keep.contains(name))
        };
        let rules = columns
            .iter()
            .map(|column| obligations.columns.get(&column.name).map(|rule| Rule::new(rule, |domain| hash.key(domain))))
            .collect();
        let output = columns.iter().enumerate().filter(|(_, c)| released(&c.name)).map(|(place, _)| place).collect();
        let at_least = obligations.at_least.as_ref().map(|at_least| {
            // a column that is not released separates nobody
            let places =
                at_least.columns.iter().filter(|name| released(name)).filter_map(|name| columns.position(name));
            (at_least.k, places.collect())
        });
        Ok(Self {
            select: obligations.filter.as_ref().map(|filter| Selector::new(filter, columns)).transpose()?,
            columns: columns.clone(),
            rules,
            output,
            limit: obligations.limit,
            at_least,
            identity: obligations.is_empty(),
        })
    }

    /// Whether the bytes are copied without being parsed.
    pub const fn is_identity(&self) -> bool {
        self.identity
    }

    /// The columns that come out, in order.
    pub fn output_columns(&self) -> Vec<String> {
        let names: Vec<&String> = self.columns.iter().map(|column| &column.name).collect();
        self.output.iter().map(|place| names[*place].clone()).collect()
    }

    /// Runs over a source, from its start, in one pass or, for `at_least`, two. `stop` is asked once a batch.
    pub fn run(
        &self,
        mut input: impl Read + Seek,
        out: &mut dyn Write,
        stop: &dyn Fn() -> bool,
    ) -> Result<Outcome, TransformError> {
        if self.identity {
            return copy(input, out, stop);
        }
        let groups = match &self.at_least {
            None => None,
            Some((_, places)) => {
                let mut groups: HashMap<Vec<u8>, u64> = HashMap::new();
                self.each_batch(&mut input, stop, &mut |released, selected| {
                    for row in selected {
                        let count = groups.entry(group(released, places, *row)).or_default();
                        *count += 1;
                    }
                    if groups.len() > MAX_GROUPS { Err(TransformError::Groups(MAX_GROUPS)) } else { Ok(()) }
                })?;
                input.seek(SeekFrom::Start(0))?;
                Some(groups)
            }
        };
        let mut writer = Out::new(out, &self.output_columns())?;
        self.each_batch(&mut input, stop, &mut |released, selected| {
            let columns: Vec<&StringArray> = self.output.iter().map(|place| &released[*place]).collect();
            let shown = selected.iter().copied().filter(|row| match (&self.at_least, &groups) {
                (Some((k, places)), Some(groups)) => {
                    groups.get(&group(released, places, *row)).is_some_and(|count| count >= k)
                }
                _ => true,
            });
            writer.write(&columns, shown)
        })?;
        let (records, bytes) = writer.finish()?;
        Ok(Outcome { records, bytes })
    }

    /// Filter, limit and generalise, batch by batch: gives the columns as released and the rows that are selected.
    fn each_batch(&self, input: &mut dyn Read, stop: &dyn Fn() -> bool, take: Take<'_>) -> Result<(), TransformError> {
        let mut rows = Rows::new(input, &self.columns)?;
        let mut left = self.limit.unwrap_or(u64::MAX);
        loop {
            if stop() {
                return Err(TransformError::Stopped);
            }
            let first = rows.position();
            let Some(batch) = rows.next_batch()? else { return Ok(()) };
            let mut selected: Vec<usize> = match &self.select {
                None => (0..batch.num_rows()).collect(),
                Some(selector) => {
                    let mask = selector.select(&batch);
                    (0..batch.num_rows()).filter(|row| mask.value(*row)).collect()
                }
            };
            selected.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= selected.len() as u64;
            take(&self.generalise(&batch, first)?, &selected)?;
            if left == 0 {
                return Ok(());
            }
        }
    }

    fn generalise(&self, batch: &RecordBatch, first: u64) -> Result<Vec<StringArray>, TransformError> {
        let mut released = Vec::with_capacity(self.rules.len());
        for (place, rule) in self.rules.iter().enumerate() {
            let column: &StringArray = batch.column(place).as_string();
            released.push(match rule {
                None | Some(Rule::Drop) => column.clone(),
                Some(rule) => rule.apply(column).map_err(|unfit| TransformError::Value {
                    row: first + unfit.row as u64 + 1,
                    column: batch.schema_ref().field(place).name().clone(),
                    obligation: unfit.obligation,
                    needs: unfit.needs,
                })?,
            });
        }
        Ok(released)
    }
}

/// What tells groups apart: the released values, each with its length; null is a value of its own.
fn group(released: &[StringArray], places: &[usize], row: usize) -> Vec<u8> {
    let mut key = Vec::new();
    for place in places {
        let column = &released[*place];
        let value = if column.is_null(row) { "" } else { column.value(row) };
        key.extend_from_slice(&(value.len() as u32).to_be_bytes());
        key.extend_from_slice(value.as_bytes());
    }
    key
}

fn copy(mut input: impl Read, out: &mut dyn Write, stop: &dyn Fn() -> bool) -> Result<Outcome, TransformError> {
    let mut block = vec![0; COPY];
    let mut bytes = 0;
    loop {
        if stop() {
            return Err(TransformError::Stopped);
        }
        let read = input.read(&mut block)?;
        if read == 0 {
            return Ok(Outcome { records: 0, bytes });
        }
        out.write_all(&block[..read])?;
        bytes += read as u64;
    }
}
