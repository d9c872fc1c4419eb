//! The plan: obligations compiled against the columns, run over a source.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    sync::Arc,
};

use crate::{
    policy::{ColumnRule, Columns, Obligations},
    source::{Batches, Csv, Format, Json, Parquet, ReadAt, Records, Row, expect},
    transform::{
        TransformError,
        groups::{Groups, MAX_GROUPS},
        mark::Mark,
        out::{CsvOut, JsonOut, Sink},
        out_parquet::ParquetOut,
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
    format: Format,
    columns: Columns,
    /// Places in the file of the columns that are read: those that come out, and those that the filter looks at.
    read: Vec<usize>,
    select: Option<Selector>,
    limit: Option<u64>,
    /// The columns that come out, in order.
    output: Vec<Output>,
    /// k, and the places among `output` whose values make a group.
    at_least: Option<(u64, Vec<usize>)>,
    marks: Vec<Mark>,
    pub(super) max_groups: usize,
    identity: bool,
}

/// A column that comes out.
pub struct Output {
    pub name: String,
    /// Its place in the file.
    pub place: usize,
    /// `None` leaves it alone.
    pub rule: Option<Rule>,
}

/// What was made of a row's columns that come out.
pub struct Made {
    kinds: Vec<Kind>,
    texts: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Same,
    Text,
    Marked,
}

/// What comes out in one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// What was there.
    Same,
    /// What a rule made; nothing for an empty value.
    Text(&'a str),
    /// The number that was there, or that a rule made, with its last digit moved.
    Marked(&'a str),
}

impl Plan {
    /// Compiles.
    ///
    /// # Errors
    /// An obligation on a column that isn't there: it could not be met. Obligations that leave no column.
    pub fn compile(
        obligations: &Obligations,
        columns: &Columns,
        format: Format,
        hash: Arc<dyn HashKey>,
    ) -> Result<Self, TransformError> {
        // what depends on the request is made a limit and a filter before: it is never ignored
        for (open, name) in [(obligations.quota.is_some(), "quota"), (!obligations.matching.is_empty(), "match")] {
            if open {
                return Err(TransformError::Open(name));
            }
        }
        let at_least_columns = obligations.at_least.iter().flat_map(|at_least| &at_least.columns);
        let marked = obligations.watermark.iter().flat_map(|(column, keys)| keys.iter().chain([column]));
        let named = obligations.columns.keys().chain(obligations.keep.iter().flatten());
        for name in named.chain(at_least_columns).chain(marked) {
            columns.position(name).ok_or_else(|| TransformError::Column(name.clone()))?;
        }
        let released = |name: &str| {
            obligations.columns.get(name) != Some(&ColumnRule::Drop)
                && obligations.keep.as_ref().is_none_or(|keep| keep.contains(name))
        };
        let looked_at: BTreeSet<&str> = obligations.filter.iter().flat_map(|filter| filter.columns()).collect();
        let is_read = |name: &str| released(name) || looked_at.contains(name);
        let read = columns.iter().enumerate().filter(|(_, c)| is_read(&c.name)).map(|(at, _)| at).collect();

        let mut output = Vec::new();
        for (place, column) in columns.iter().enumerate().filter(|(_, column)| released(&column.name)) {
            let name = column.name.clone();
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
        let place = |name: &str| columns.position(name);
        Ok(Self {
            select: obligations.filter.as_ref().map(|filter| Selector::new(filter, &place)).transpose()?,
            marks: Mark::of(obligations, &output, &*hash)?,
            limit: obligations.limit,
            max_groups: MAX_GROUPS,
            identity: obligations.is_empty(),
            columns: columns.clone(),
            format,
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

    /// Runs over a file, in one pass or, for `at_least`, two. `stop` is asked once a window of records.
    ///
    /// # Errors
    /// A row that can't be read or generalised, named by its number. What was written before stays written: whoever
    /// reads it must not take it for the whole.
    pub fn run(&self, file: File, out: &mut dyn Write, stop: &dyn Fn() -> bool) -> Result<Outcome, TransformError> {
        match self.format {
            Format::Parquet if !self.identity => self.run_parquet(Arc::new(file), out, stop),
            _ => self.run_text(file, out, stop),
        }
    }

    /// The same over text, from where the input stands.
    pub(super) fn run_text(
        &self,
        mut input: impl Read + Seek,
        out: &mut dyn Write,
        stop: &dyn Fn() -> bool,
    ) -> Result<Outcome, TransformError> {
        if self.identity {
            return copy(input, out, stop);
        }
        let start = input.stream_position()?;
        let mut groups = self.groups();
        if let Format::Csv = self.format {
            if let Some(groups) = &mut groups {
                self.count(&mut self.csv(&mut input)?, groups, stop)?;
                input.seek(SeekFrom::Start(start))?;
            }
            let mut rows = self.csv(&mut input)?;
            return self.write(&mut rows, groups, CsvOut::new(out, &self.output), stop);
        }
        let array = self.format == Format::Json;
        if let Some(groups) = &mut groups {
            self.count(&mut Json::new(&mut input, array, Some(&self.columns), false), groups, stop)?;
            input.seek(SeekFrom::Start(start))?;
        }
        let mut rows = Json::new(&mut input, array, Some(&self.columns), false);
        self.write(&mut rows, groups, JsonOut::new(out, &self.output, array), stop)
    }

    /// The same over Parquet.
    pub(super) fn run_parquet(
        &self,
        file: Arc<dyn ReadAt>,
        out: &mut dyn Write,
        stop: &dyn Fn() -> bool,
    ) -> Result<Outcome, TransformError> {
        let parquet = Parquet::open(file)?;
        expect(parquet.columns().map(|(name, _)| name), &self.columns)?;
        let batches = || -> Result<Batches, TransformError> { Ok(parquet.batches(&self.read)?) };
        let mut groups = self.groups();
        if let Some(groups) = &mut groups {
            self.count(&mut batches()?, groups, stop)?;
        }
        let sink = ParquetOut::new(out, &self.output, &self.read, parquet.fields())?;
        self.write(&mut batches()?, groups, sink, stop)
    }

    fn csv<R: Read>(&self, input: R) -> Result<Csv<R>, TransformError> {
        let rows = Csv::open(input, false)?;
        rows.expect(&self.columns)?;
        Ok(rows)
    }

    fn groups(&self) -> Option<Groups> {
        self.at_least.as_ref().map(|(k, _)| Groups::new(*k, self.max_groups))
    }

    fn count<S: Records>(
        &self,
        rows: &mut S,
        groups: &mut Groups,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), TransformError> {
        self.pass(rows, stop, |row, made, scratch| {
            let key = self.group_key(groups, row, made, scratch)?;
            groups.count(key)
        })
    }

    fn write<S: Records, K: for<'a> Sink<S::Row<'a>>>(
        &self,
        rows: &mut S,
        mut groups: Option<Groups>,
        mut sink: K,
        stop: &dyn Fn() -> bool,
    ) -> Result<Outcome, TransformError> {
        self.pass(rows, stop, |row, made, scratch| {
            if let Some(groups) = &mut groups {
                let key = self.group_key(groups, row, made, scratch)?;
                if !groups.is_shown(key)? {
                    return Ok(());
                }
            }
            for mark in &self.marks {
                mark.apply(&self.output, row, made, scratch)?;
            }
            sink.write(row, made)
        })?;
        groups.map_or(Ok(()), Groups::finish)?;
        sink.finish()
    }

    fn group_key<R: Row>(
        &self,
        groups: &mut Groups,
        row: &R,
        made: &Made,
        scratch: &mut String,
    ) -> Result<[u8; 16], TransformError> {
        let places = self.at_least.iter().flat_map(|(_, places)| places);
        for place in places {
            groups.add(made.grouped_by(*place, &self.output, row, scratch)?);
        }
        Ok(groups.key())
    }

    /// Filter, limit and generalise, row by row: gives each row that is selected, and what was made of it.
    fn pass<S: Records>(
        &self,
        rows: &mut S,
        stop: &dyn Fn() -> bool,
        mut take: impl FnMut(&S::Row<'_>, &mut Made, &mut String) -> Result<(), TransformError>,
    ) -> Result<(), TransformError> {
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut made = Made::new(self.output.len());
        let (mut scratch, mut digits) = (String::new(), Vec::new());
        while left > 0 {
            if stop() {
                return Err(TransformError::Stopped);
            }
            if !rows.fill()? {
                break;
            }
            rows.each(|row| -> Result<bool, TransformError> {
                if let Some(select) = &self.select
                    && !self.selects(select, row, &mut scratch)?
                {
                    return Ok(true);
                }
                left -= 1;
                self.generalise(row, &mut made, &mut scratch, &mut digits)?;
                take(row, &mut made, &mut scratch)?;
                Ok(left > 0)
            })?;
        }
        Ok(())
    }

    fn selects<R: Row>(&self, select: &Selector, row: &R, scratch: &mut String) -> Result<bool, TransformError> {
        select.select(row, scratch)?.map_err(|place| TransformError::Value {
            row: row.number(),
            column: self.columns.iter().nth(place).map(|column| column.name.clone()).unwrap_or_default(),
            obligation: "filter",
            needs: "a number",
        })
    }

    fn generalise<R: Row>(
        &self,
        row: &R,
        made: &mut Made,
        scratch: &mut String,
        digits: &mut Vec<u8>,
    ) -> Result<(), TransformError> {
        for (at, output) in self.output.iter().enumerate() {
            let Some(rule) = &output.rule else {
                made.kinds[at] = Kind::Same;
                continue;
            };
            made.kinds[at] = Kind::Text;
            let text = &mut made.texts[at];
            text.clear();
            rule.apply(row.text(output.place, scratch)?, text, digits).map_err(|(obligation, needs)| {
                TransformError::Value { row: row.number(), column: output.name.clone(), obligation, needs }
            })?;
        }
        Ok(())
    }
}

impl Made {
    fn new(columns: usize) -> Self {
        Self { kinds: vec![Kind::Same; columns], texts: vec![String::new(); columns] }
    }

    /// What comes out in each column.
    pub fn values(&self) -> impl Iterator<Item = Value<'_>> {
        self.kinds.iter().zip(&self.texts).map(|(kind, text)| match kind {
            Kind::Same => Value::Same,
            Kind::Text => Value::Text(text),
            Kind::Marked => Value::Marked(text),
        })
    }

    /// The text that comes out in a column.
    pub fn released<'a, R: Row>(
        &'a self,
        at: usize,
        output: &[Output],
        row: &'a R,
        scratch: &'a mut String,
    ) -> Result<&'a str, TransformError> {
        match self.made(at) {
            Some(text) => Ok(text),
            None => Ok(row.text(output[at].place, scratch)?),
        }
    }

    /// By what rows are grouped in a column: what can be told apart as it leaves is told apart here.
    pub fn grouped_by<'a, R: Row>(
        &'a self,
        at: usize,
        output: &[Output],
        row: &'a R,
        scratch: &'a mut String,
    ) -> Result<&'a str, TransformError> {
        match self.made(at) {
            Some(text) => Ok(text),
            None => Ok(row.distinct(output[at].place, scratch)?),
        }
    }

    /// What was made of a column's value; none where it leaves as it is.
    fn made(&self, at: usize) -> Option<&str> {
        match self.kinds[at] {
            Kind::Same => None,
            Kind::Text | Kind::Marked => Some(&self.texts[at]),
        }
    }

    /// Puts a marked number in the column's place.
    pub fn mark(&mut self, at: usize, marked: &str) {
        self.kinds[at] = Kind::Marked;
        self.texts[at].clear();
        self.texts[at].push_str(marked);
    }
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
