//! CSV in, strictly; CSV out (RFC 4180).

use std::{
    cell::Cell,
    io::{self, Read, Write},
    rc::Rc,
    sync::Arc,
};

use arrow_array::{Array as _, ArrayRef, RecordBatch, StringArray, builder::StringBuilder};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use crate::{policy::Columns, transform::TransformError};

/// Rows in a batch.
const BATCH: usize = 4096;
/// Most bytes of values in a batch.
const BATCH_BYTES: usize = 4 << 20;
/// Longest row, in bytes.
pub const MAX_ROW: u64 = 8 << 20;

/// Rows of a CSV, as batches of text; an empty field is null.
pub struct Rows<R: Read> {
    reader: csv::Reader<Budgeted<R>>,
    spent: Rc<Cell<u64>>,
    schema: SchemaRef,
    record: csv::ByteRecord,
    row: u64,
}

impl<R: Read> Rows<R> {
    /// Reads the header; it must be the published one.
    pub fn new(input: R, columns: &Columns) -> Result<Self, TransformError> {
        let spent = Rc::new(Cell::new(0));
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .buffer_capacity(1 << 17)
            .from_reader(Budgeted { inner: input, spent: spent.clone() });
        let header = reader.byte_headers().map_err(|error| unwrap_io(error, 0))?;
        if header.len() != columns.len() {
            return Err(TransformError::Header(format!("{} columns instead of {}", header.len(), columns.len())));
        }
        if let Some((_, column)) =
            header.iter().zip(columns.iter()).find(|(found, column)| *found != column.name.as_bytes())
        {
            return Err(TransformError::Header(format!("column `{}` is not where it was", column.name)));
        }
        let fields: Vec<Field> = columns.iter().map(|column| Field::new(&column.name, DataType::Utf8, true)).collect();
        Ok(Self { reader, spent, schema: Arc::new(Schema::new(fields)), record: csv::ByteRecord::new(), row: 0 })
    }

    /// Rows given out before the next batch.
    pub const fn position(&self) -> u64 {
        self.row
    }

    /// The next rows; `None` at the end.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, TransformError> {
        let width = self.schema.fields().len();
        let mut builders: Vec<StringBuilder> =
            (0..width).map(|_| StringBuilder::with_capacity(BATCH, BATCH * 8)).collect();
        let (mut rows, mut bytes) = (0, 0);
        while rows < BATCH && bytes < BATCH_BYTES {
            self.spent.set(0);
            let more =
                self.reader.read_byte_record(&mut self.record).map_err(|error| unwrap_io(error, self.row + 1))?;
            if !more {
                break;
            }
            self.row += 1;
            let line = || self.record.position().map_or(0, csv::Position::line);
            if self.record.len() != width {
                return Err(TransformError::Width {
                    row: self.row,
                    line: line(),
                    found: self.record.len(),
                    expected: width,
                });
            }
            for (index, (field, builder)) in self.record.iter().zip(&mut builders).enumerate() {
                if field.is_empty() {
                    builder.append_null();
                    continue;
                }
                let text = std::str::from_utf8(field).map_err(|_| TransformError::Utf8 {
                    row: self.row,
                    line: line(),
                    column: self.schema.field(index).name().clone(),
                })?;
                builder.append_value(text);
            }
            rows += 1;
            bytes += self.record.as_slice().len();
        }
        if rows == 0 {
            return Ok(None);
        }
        let columns: Vec<ArrayRef> =
            builders.into_iter().map(|mut builder| Arc::new(builder.finish()) as ArrayRef).collect();
        Ok(Some(RecordBatch::try_new(self.schema.clone(), columns)?))
    }
}

/// Fails once a single row has taken more than [`MAX_ROW`]: a quote that is never closed must not fill the memory.
struct Budgeted<R> {
    inner: R,
    spent: Rc<Cell<u64>>,
}

/// Marks the budget's error among those of the file system.
#[derive(Debug, thiserror::Error)]
#[error("a row is too long")]
struct OverBudget;

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.spent.set(self.spent.get() + read as u64);
        if self.spent.get() > MAX_ROW + (1 << 17) {
            return Err(io::Error::other(OverBudget));
        }
        Ok(read)
    }
}

fn unwrap_io(error: csv::Error, row: u64) -> TransformError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<OverBudget>()) => {
            TransformError::RowTooLong { row }
        }
        csv::ErrorKind::Io(error) => TransformError::Io(error),
        other => TransformError::Io(io::Error::other(format!("{other:?}"))),
    }
}

/// Writes batches as CSV: fields are quoted where they need it, lines end in CRLF.
pub struct Out<'a> {
    writer: csv::Writer<Counted<'a>>,
    records: u64,
}

struct Counted<'a> {
    inner: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<'a> Out<'a> {
    /// Writes the header.
    pub fn new(inner: &'a mut dyn Write, header: &[String]) -> Result<Self, TransformError> {
        let mut writer = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .buffer_capacity(1 << 16)
            .from_writer(Counted { inner, bytes: 0 });
        writer.write_record(header).map_err(|error| unwrap_io(error, 0))?;
        Ok(Self { writer, records: 0 })
    }

    /// Writes these rows of these columns.
    pub fn write(&mut self, columns: &[&StringArray], rows: impl Iterator<Item = usize>) -> Result<(), TransformError> {
        let failed = |error| unwrap_io(error, 0);
        for row in rows {
            for column in columns {
                let field = if column.is_null(row) { "" } else { column.value(row) };
                self.writer.write_field(field).map_err(failed)?;
            }
            self.writer.write_record(None::<&[u8]>).map_err(failed)?;
            self.records += 1;
        }
        Ok(())
    }

    /// Ends; says how many records and bytes.
    pub fn finish(mut self) -> Result<(u64, u64), TransformError> {
        self.writer.flush()?;
        Ok((self.records, self.writer.get_ref().bytes))
    }
}
