//! Parquet: flat columns of plain types, read batch by batch.
//!
//! A Parquet file is a program for its reader: how much room to make, how far to jump. So the footer is walked before
//! it is parsed, pages come through [`pages`] with their caps, and a panic of the parser is an error like others.

mod pages;
mod text;
mod thrift;

use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arrow_array::{Array, RecordBatch};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field, Fields};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ParquetRecordBatchReader, RowGroups},
        parquet_to_arrow_field_levels, parquet_to_arrow_schema,
    },
    basic::{ConvertedType, Repetition, Type as Physical},
    column::page::PageIterator,
    errors::{ParquetError, Result as ParquetResult},
    file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData},
    schema::types::Type,
};

pub use self::text::Typed;
use crate::{
    policy::ColumnKind,
    source::{
        Records, Row,
        broken::{Broken, MAX_FIELD},
    },
};

/// Longest footer.
const MAX_FOOTER: u64 = 32 << 20;
/// Most columns, as of any dataset.
const MAX_COLUMNS: usize = 10_000;
/// Cells of a batch: fewer rows where there are more columns.
const BATCH_CELLS: usize = 1 << 16;
/// The footer's length and the magic number.
const TAIL: u64 = 8;

/// Bytes that can be read anywhere, by several readers at once.
pub trait ReadAt: Send + Sync + 'static {
    /// How many.
    fn length(&self) -> io::Result<u64>;
    /// Fills the buffer from there, or fails.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = self.get(from..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A Parquet file whose footer was read, and whose columns are of types that are handled.
pub struct Parquet {
    file: Arc<dyn ReadAt>,
    metadata: Arc<ParquetMetaData>,
    /// All columns; text as views, so that a batch never repeats a dictionary's long values.
    fields: Fields,
}

/// Batches of some columns.
pub struct Batches {
    reader: ParquetRecordBatchReader,
    /// By place in the batch: name, and place in the file.
    columns: Vec<(String, usize)>,
    width: usize,
    /// Rows given out, and how many the footer promises.
    row: u64,
    total: u64,
    current: Option<RecordBatch>,
}

/// A batch's columns, ready to be read as text.
struct Cells<'a> {
    /// By place in the file.
    columns: Vec<Option<Cell<'a>>>,
    first: u64,
}

struct Cell<'a> {
    name: &'a str,
    nulls: Option<&'a NullBuffer>,
    typed: Typed<'a>,
}

/// One row of a batch.
pub struct ParquetRow<'a> {
    cells: &'a Cells<'a>,
    /// The batch that it is of.
    pub batch: &'a RecordBatch,
    /// Its place in the batch.
    pub index: usize,
}

impl Parquet {
    /// Reads the footer.
    ///
    /// # Errors
    /// [`Broken::Parquet`], and [`Broken::Type`] for a column that is not handled.
    pub fn open(file: Arc<dyn ReadAt>) -> Result<Self, Broken> {
        let wrong = |problem: &str| Broken::Parquet(problem.to_owned());
        let length = file.length()?;
        let mut tail = [0; TAIL as usize];
        let at = length.checked_sub(TAIL + 4).ok_or_else(|| wrong("it is too short"))? + 4;
        file.read_exact_at(&mut tail, at)?;
        let [a, b, c, d, magic @ ..] = tail;
        match &magic {
            b"PAR1" => {}
            b"PARE" => return Err(wrong("its footer is encrypted")),
            _ => return Err(wrong("it does not end as one; is it cut off, or no Parquet file?")),
        }
        let footer = u64::from(u32::from_le_bytes([a, b, c, d]));
        if footer > MAX_FOOTER || footer > at {
            return Err(Broken::Parquet(format!("its footer has {footer} bytes; at most {MAX_FOOTER} are handled")));
        }
        let mut bytes = vec![0; footer as usize];
        file.read_exact_at(&mut bytes, at - footer)?;
        if !(thrift::Walk { bytes: &bytes, at: 0 }).structure(&mut Vec::new(), &mut |_, _| {}) {
            return Err(wrong("its footer is broken"));
        }
        let metadata = guarded(|| ParquetMetaDataReader::decode_metadata(&bytes))?;
        let schema = metadata.file_metadata().schema_descr_ptr();
        if schema.num_columns() > MAX_COLUMNS {
            return Err(Broken::Parquet(format!("it has more than {MAX_COLUMNS} columns")));
        }
        for column in schema.root_schema().get_fields() {
            check_shape(column)?;
        }
        // what a writer says of Arrow's types is left alone: Parquet's own are what is there
        let typed = guarded(|| parquet_to_arrow_schema(&schema, None))?;
        let as_views = |field: &Arc<Field>| match field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 => {
                Arc::new(Field::new(field.name(), DataType::Utf8View, field.is_nullable()))
            }
            _ => field.clone(),
        };
        let fields: Fields = typed.fields().iter().map(as_views).collect();
        for (at, field) in fields.iter().enumerate() {
            let column = schema.column(at);
            let is_text = column.physical_type() == Physical::BYTE_ARRAY;
            // the reader looks for UTF-8 only where this is said; a decimal as bytes could be of any length
            if is_text && column.converted_type() != ConvertedType::UTF8 || text::kind_of(field.data_type()).is_none() {
                let kind = match is_text {
                    true => format!("BYTE_ARRAY ({})", column.converted_type()),
                    false => field.data_type().to_string(),
                };
                let hint = "text (UTF8), integers, floats, booleans, dates, timestamps and decimals are; cast it";
                return Err(Broken::Type { column: field.name().clone(), kind, hint });
            }
        }
        Ok(Self { file, metadata: Arc::new(metadata), fields })
    }

    /// The columns' names and what their types hold; text may hold more, seen in its values.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = (&str, ColumnKind)> {
        let kind = |field: &Field| text::kind_of(field.data_type()).unwrap_or(ColumnKind::Text);
        self.fields.iter().map(move |field| (field.name().as_str(), kind(field)))
    }

    /// All columns in Arrow's types.
    pub const fn fields(&self) -> &Fields {
        &self.fields
    }

    /// How many row groups there are.
    #[cfg(test)]
    pub fn groups(&self) -> usize {
        self.metadata.num_row_groups()
    }

    /// How many records the footer counts.
    pub fn records(&self) -> Result<u64, Broken> {
        let groups = self.metadata.row_groups().iter();
        let total = groups
            .map(|group| u64::try_from(group.num_rows()).ok())
            .try_fold(0_u64, |sum, rows| sum.checked_add(rows?));
        total.ok_or_else(|| Broken::Parquet("its row groups count what can't be".into()))
    }

    /// Reads the columns at these places, in rising order.
    pub fn batches(&self, wanted: &[usize]) -> Result<Batches, Broken> {
        let total = self.records()?;
        let schema = self.metadata.file_metadata().schema_descr();
        let mask = ProjectionMask::leaves(schema, wanted.iter().copied());
        let rows = (BATCH_CELLS / wanted.len().max(1)).clamp(64, 8192);
        let reader = guarded(|| {
            let levels = parquet_to_arrow_field_levels(schema, mask, Some(&self.fields))?;
            ParquetRecordBatchReader::try_new_with_row_groups(&levels, self, rows, None)
        })?;
        let columns = wanted.iter().filter_map(|at| Some((self.fields.get(*at)?.name().clone(), *at))).collect();
        Ok(Batches { reader, columns, width: self.fields.len(), row: 0, total, current: None })
    }
}

impl RowGroups for Parquet {
    fn num_rows(&self) -> usize {
        self.records().map_or(0, |records| usize::try_from(records).unwrap_or(usize::MAX))
    }

    fn column_chunks(&self, column: usize) -> ParquetResult<Box<dyn PageIterator>> {
        let chunks = self.metadata.row_groups().iter().map(|group| match group.columns().get(column) {
            Some(chunk) => Ok(chunk.clone()),
            None => Err(ParquetError::General("a row group lacks a column".into())),
        });
        let chunks: Vec<_> = chunks.collect::<ParquetResult<_>>()?;
        Ok(Box::new(pages::Chunks { file: self.file.clone(), chunks: chunks.into_iter() }))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(self.metadata.row_groups().iter())
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

impl Records for Batches {
    type Row<'a> = ParquetRow<'a>;

    fn fill(&mut self) -> Result<bool, Broken> {
        self.current = guarded(|| self.reader.next().transpose().map_err(ParquetError::from))?;
        let Some(batch) = &self.current else {
            return match self.row == self.total {
                true => Ok(false),
                false => Err(Broken::Parquet("it has fewer rows than its footer says".into())),
            };
        };
        for (array, (column, _)) in batch.columns().iter().zip(&self.columns) {
            let Some(Typed::Text(texts)) = Typed::of(array) else { continue };
            // a view begins with its length, in 32 bits
            if let Some(at) = texts.views().iter().position(|view| (*view as u32) as usize > MAX_FIELD) {
                return Err(Broken::ValueTooLong { row: self.row + at as u64 + 1, column: column.clone() });
            }
        }
        self.row += batch.num_rows() as u64;
        Ok(true)
    }

    fn each<E: From<Broken>>(&mut self, mut take: impl FnMut(&ParquetRow<'_>) -> Result<bool, E>) -> Result<bool, E> {
        let Some(batch) = &self.current else { return Ok(true) };
        let mut columns: Vec<_> = (0..self.width).map(|_| None).collect();
        for (array, (name, place)) in batch.columns().iter().zip(&self.columns) {
            let array: &dyn Array = array;
            let typed = Typed::of(array).ok_or_else(|| Broken::Parquet(format!("column `{name}` changed its type")))?;
            columns[*place] = Some(Cell { name, nulls: array.nulls(), typed });
        }
        let cells = Cells { columns, first: self.row - batch.num_rows() as u64 };
        for index in 0..batch.num_rows() {
            if !take(&ParquetRow { cells: &cells, batch, index })? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Row for ParquetRow<'_> {
    fn number(&self) -> u64 {
        self.cells.first + self.index as u64 + 1
    }

    fn text<'a>(&'a self, place: usize, scratch: &'a mut String) -> Result<&'a str, Broken> {
        let Some(cell) = self.cells.columns.get(place).and_then(Option::as_ref) else {
            return Err(Broken::Parquet("a column was not read".into()));
        };
        if cell.nulls.is_some_and(|nulls| nulls.is_null(self.index)) {
            return Ok("");
        }
        let none = || Broken::NoText { row: self.number(), column: cell.name.to_owned() };
        cell.typed.text(self.index, scratch).ok_or_else(none)
    }

    fn distinct<'a>(&'a self, place: usize, scratch: &'a mut String) -> Result<&'a str, Broken> {
        let cell = self.cells.columns.get(place).and_then(Option::as_ref);
        if cell.is_some_and(|cell| cell.nulls.is_some_and(|nulls| nulls.is_null(self.index))) {
            return Ok("\0null");
        }
        self.text(place, scratch)
    }

    fn short(&self, place: usize) -> Option<(i64, bool)> {
        let cell = self.cells.columns.get(place)?.as_ref()?;
        if cell.nulls.is_some_and(|nulls| nulls.is_null(self.index)) {
            return None;
        }
        cell.typed.short(self.index)
    }
}

fn check_shape(column: &Type) -> Result<(), Broken> {
    let info = column.get_basic_info();
    if column.is_primitive() && info.has_repetition() && info.repetition() != Repetition::REPEATED {
        return Ok(());
    }
    let kind = if column.is_primitive() { "repeated" } else { "nested" }.to_owned();
    Err(Broken::Type { column: column.name().to_owned(), kind, hint: "only flat columns are; unnest it" })
}

/// Runs the parser; what it says, or a panic of it, as an error.
pub fn guarded<T>(run: impl FnOnce() -> ParquetResult<T>) -> Result<T, Broken> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Broken::Parquet(error.to_string())),
        Err(_) => Err(Broken::Parquet("the parser failed on it".into())),
    }
}
