//! The plan: obligations compiled against the columns, run over a source.

use std::{
    collections::BTreeSet,
    io::{Read, Seek, SeekFrom, Write},
    sync::Arc,
};

use arrow_array::{BooleanArray, RecordBatch, StringArray, cast::AsArray as _};
use arrow_select::filter::filter_record_batch;

use crate::{
    policy::{ColumnRule, Columns, Obligations},
    transform::{
        TransformError,
        groups::{Groups, MAX_GROUPS},
        rows::{Out, Rows},
        rules::Rule,
        select::Selector,
    },
};

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

/// Obligations ready to be applied to data with these columns.
pub struct Plan {
    columns: Columns,
    /// Places in the file of the columns that are read: those that come out, and those that the filter looks at.
    read: Vec<usize>,
    select: Option<Selector>,
    limit: Option<u64>,
    /// The columns that come out, in order.
    output: Vec<Output>,
    /// k, and the places among `output` whose values make a group.
    at_least: Option<(u64, Vec<usize>)>,
    pub(super) max_groups: usize,
    identity: bool,
}

struct Output {
    name: String,
    /// Among the columns that are read.
    place: usize,
    /// `None` leaves it alone.
    rule: Option<Rule>,
}

impl Plan {
    /// Compiles.
    ///
    /// # Errors
    /// An obligation on a column that isn't there: it could not be met. Obligations that leave no column.
    pub fn compile(
        obligations: &Obligations,
        columns: &Columns,
        hash: Arc<dyn HashKey>,
    ) -> Result<Self, TransformError> {
        let at_least_columns = obligations.at_least.iter().flat_map(|at_least| &at_least.columns);
        let named = obligations.columns.keys().chain(obligations.keep.iter().flatten()).chain(at_least_columns);
        for name in named {
            columns.position(name).ok_or_else(|| TransformError::Column(name.clone()))?;
        }
        let released = |name: &str| {
            obligations.columns.get(name) != Some(&ColumnRule::Drop)
                && obligations.keep.as_ref().is_none_or(|keep| keep.contains(name))
        };
        let looked_at: BTreeSet<&str> = obligations.filter.iter().flat_map(|filter| filter.columns()).collect();
        let is_read = |name: &str| released(name) || looked_at.contains(name);
        let read: Vec<usize> = columns.iter().enumerate().filter(|(_, c)| is_read(&c.name)).map(|(at, _)| at).collect();
        let place = |name: &str| columns.position(name).and_then(|place| read.binary_search(&place).ok());

        let mut output = Vec::new();
        for column in columns.iter().filter(|column| released(&column.name)) {
            let name = column.name.clone();
            let place = place(&name).ok_or_else(|| TransformError::Column(name.clone()))?;
            let rule = obligations.columns.get(&name).map(|rule| Rule::new(rule, |domain| hash.key(domain)));
            let rule =
                rule.transpose().map_err(|obligation| TransformError::Rule { column: name.clone(), obligation })?;
            output.push(Output { name, place, rule });
        }
        if output.is_empty() {
            return Err(TransformError::NoColumns);
        }
        let at_least = obligations.at_least.as_ref().map(|at_least| {
            // a column that is not released separates nobody
            let in_group = |(_, out): &(usize, &Output)| at_least.columns.contains(&out.name);
            (at_least.k, output.iter().enumerate().filter(in_group).map(|(at, _)| at).collect())
        });
        Ok(Self {
            select: obligations.filter.as_ref().map(|filter| Selector::new(filter, &place)).transpose()?,
            limit: obligations.limit,
            max_groups: MAX_GROUPS,
            identity: obligations.is_empty(),
            columns: columns.clone(),
            read,
            output,
            at_least,
        })
    }

    /// Whether the bytes are copied without being parsed.
    pub const fn is_identity(&self) -> bool {
        self.identity
    }

    /// How often the source is read from its start: twice for `at_least`.
    pub const fn passes(&self) -> u8 {
        if self.at_least.is_some() { 2 } else { 1 }
    }

    /// The columns that come out, in order.
    pub fn output_columns(&self) -> Vec<String> {
        self.output.iter().map(|column| column.name.clone()).collect()
    }

    /// Runs over a source, from where it is, in one pass or, for `at_least`, two. `stop` is asked once a batch.
    ///
    /// # Errors
    /// A row that can't be read or generalised, named by its number. What was written before stays written: whoever
    /// reads it must not take it for the whole.
    pub fn run(
        &self,
        mut input: impl Read + Seek,
        out: &mut dyn Write,
        stop: &dyn Fn() -> bool,
    ) -> Result<Outcome, TransformError> {
        if self.identity {
            return copy(input, out, stop);
        }
        let mut groups = None;
        if let Some((k, places)) = &self.at_least {
            let start = input.stream_position()?;
            let counted = groups.insert(Groups::new(*k, places, self.max_groups));
            self.each_batch(&mut input, stop, |released, rows| {
                (0..rows).try_for_each(|row| counted.count(released, row))
            })?;
            input.seek(SeekFrom::Start(start))?;
        }
        let mut writer = Out::new(out, &self.output_columns())?;
        self.each_batch(&mut input, stop, |released, rows| {
            for row in 0..rows {
                let shown = match &mut groups {
                    None => true,
                    Some(groups) => groups.is_shown(released, row)?,
                };
                if shown {
                    writer.write_row(released, row)?;
                }
            }
            Ok(())
        })?;
        groups.map_or(Ok(()), Groups::finish)?;
        let (records, bytes) = writer.finish()?;
        Ok(Outcome { records, bytes })
    }

    /// Filter, limit and generalise, batch by batch: gives the columns that come out, and how many rows.
    fn each_batch(
        &self,
        input: &mut dyn Read,
        stop: &dyn Fn() -> bool,
        mut take: impl FnMut(&[StringArray], usize) -> Result<(), TransformError>,
    ) -> Result<(), TransformError> {
        let mut rows = Rows::new(input, &self.columns, &self.read)?;
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0 {
            if stop() {
                return Err(TransformError::Stopped);
            }
            let first = rows.position();
            let Some(batch) = rows.next_batch()? else { break };
            let (mut selected, mask) = self.filter(batch, first)?;
            selected = selected.slice(0, usize::try_from(left).unwrap_or(usize::MAX).min(selected.num_rows()));
            left -= selected.num_rows() as u64;
            let released = self.generalise(&selected, |row| first + nth_row(mask.as_ref(), row) as u64 + 1)?;
            take(&released, selected.num_rows())?;
        }
        Ok(())
    }

    /// The selected rows of a batch, and which they were.
    fn filter(&self, batch: RecordBatch, first: u64) -> Result<(RecordBatch, Option<BooleanArray>), TransformError> {
        let Some(selector) = &self.select else { return Ok((batch, None)) };
        let mask = selector.select(&batch).map_err(|wrong| TransformError::Value {
            row: first + wrong.row as u64 + 1,
            column: batch.schema_ref().field(wrong.column).name().clone(),
            obligation: "filter",
            needs: "a number",
        })?;
        Ok((filter_record_batch(&batch, &mask)?, Some(mask)))
    }

    /// The columns that come out. `number` is the row number of a row of this batch.
    fn generalise(
        &self,
        batch: &RecordBatch,
        number: impl Fn(usize) -> u64,
    ) -> Result<Vec<StringArray>, TransformError> {
        let released = self.output.iter().map(|out| {
            let column: &StringArray = batch.column(out.place).as_string();
            let Some(rule) = &out.rule else { return Ok(column.clone()) };
            rule.apply(column).map_err(|unfit| TransformError::Value {
                row: number(unfit.row),
                column: out.name.clone(),
                obligation: unfit.obligation,
                needs: unfit.needs,
            })
        });
        released.collect()
    }
}

/// Which row of a batch was the n-th selected one, from 0.
fn nth_row(mask: Option<&BooleanArray>, n: usize) -> usize {
    mask.and_then(|mask| mask.values().set_indices().nth(n)).unwrap_or(n)
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
