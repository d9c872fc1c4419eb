//! CSV in, strictly; CSV out (RFC 4180).

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use arrow_array::{Array as _, ArrayRef, RecordBatch, StringArray, builder::StringBuilder};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use crate::{
    policy::Columns,
    source::{Broken, Strict},
    transform::TransformError,
};

/// Longest field, in bytes.
pub const MAX_FIELD: usize = 1 << 20;
/// Cells that a batch is made for: fewer rows where there are more columns.
const BATCH_CELLS: usize = 1 << 16;
/// Most rows of a batch.
const BATCH_ROWS: usize = 8192;
/// A batch with more bytes than this takes no further row.
const BATCH_BYTES: usize = 2 << 20;

/// Rows of a CSV as batches of text, of the wanted columns; an empty field is null. Lines without anything in them are
/// no rows.
pub struct Rows<R: Read> {
    reader: csv::Reader<Strict<R>>,
    names: Vec<String>,
    /// By place in the file: where to put the field.
    builders: Vec<Option<StringBuilder>>,
    schema: SchemaRef,
    record: csv::ByteRecord,
    batch_rows: usize,
    row: u64,
}

impl<R: Read> Rows<R> {
    /// Reads the header; it must be the published one. `wanted` are the places of the columns that batches have, in
    /// rising order.
    pub fn new(input: R, columns: &Columns, wanted: &[usize]) -> Result<Self, TransformError> {
        let mut reader =
            csv::ReaderBuilder::new().flexible(true).buffer_capacity(1 << 17).from_reader(Strict::new(input));
        let header = reader.byte_headers().map_err(broken)?;
        if header.len() != columns.len() {
            let (found, expected) = (header.len(), columns.len());
            return Err(TransformError::Header(format!("{found} columns instead of {expected}")));
        }
        for (found, column) in header.iter().zip(columns.iter()) {
            if found != column.name.as_bytes() {
                return Err(TransformError::Header(format!("column `{}` is not where it was", column.name)));
            }
        }
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let fields: Vec<Field> = wanted.iter().map(|place| Field::new(&names[*place], DataType::Utf8, true)).collect();
        let batch_rows = (BATCH_CELLS / wanted.len().max(1)).clamp(16, BATCH_ROWS);
        let builder = |place| wanted.contains(&place).then(|| StringBuilder::with_capacity(batch_rows, batch_rows * 8));
        Ok(Self {
            builders: (0..names.len()).map(builder).collect(),
            names,
            reader,
            schema: Arc::new(Schema::new(fields)),
            record: csv::ByteRecord::new(),
            batch_rows,
            row: 0,
        })
    }

    /// Rows given out so far.
    pub const fn position(&self) -> u64 {
        self.row
    }

    /// The next rows; `None` at the end.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, TransformError> {
        let (mut rows, mut bytes) = (0, 0);
        while rows < self.batch_rows && bytes < BATCH_BYTES {
            if !self.reader.read_byte_record(&mut self.record).map_err(broken)? {
                break;
            }
            self.row += 1;
            self.take_record()?;
            rows += 1;
            bytes += self.record.as_slice().len();
        }
        if rows == 0 {
            return Ok(None);
        }
        let finished = self.builders.iter_mut().flatten().map(|builder| Arc::new(builder.finish()) as ArrayRef);
        Ok(Some(RecordBatch::try_new(self.schema.clone(), finished.collect())?))
    }

    fn take_record(&mut self) -> Result<(), TransformError> {
        let (row, line) = (self.row, self.record.position().map_or(0, csv::Position::line));
        if self.record.len() != self.names.len() {
            let (found, expected) = (self.record.len(), self.names.len());
            return Err(TransformError::Width { row, line, found, expected });
        }
        for (place, (field, builder)) in self.record.iter().zip(&mut self.builders).enumerate() {
            if field.is_empty() {
                builder.iter_mut().for_each(StringBuilder::append_null);
                continue;
            }
            let column = || self.names[place].clone();
            if field.len() > MAX_FIELD {
                return Err(TransformError::FieldTooLong { row, line, column: column() });
            }
            // also where nobody wants the column: a file that is broken there is not read as if it were whole
            let text = std::str::from_utf8(field).map_err(|_| TransformError::Utf8 { row, line, column: column() })?;
            if let Some(builder) = builder {
                builder.append_value(text);
            }
        }
        Ok(())
    }
}

/// What went wrong below the parser.
fn broken(error: csv::Error) -> TransformError {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => match error.downcast::<Broken>() {
            Ok(broken) => TransformError::Broken(broken),
            Err(error) => TransformError::Io(error),
        },
        // bytes are read, of any width: nothing else can go wrong
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
        writer.write_record(header).map_err(broken)?;
        Ok(Self { writer, records: 0 })
    }

    /// Writes one row of these columns.
    pub fn write_row(&mut self, columns: &[StringArray], row: usize) -> Result<(), TransformError> {
        for column in columns {
            let field = if column.is_null(row) { "" } else { column.value(row) };
            self.writer.write_field(field).map_err(broken)?;
        }
        self.writer.write_record(None::<&[u8]>).map_err(broken)?;
        self.records += 1;
        Ok(())
    }

    /// Ends; says how many records and bytes.
    pub fn finish(mut self) -> Result<(u64, u64), TransformError> {
        self.writer.flush()?;
        Ok((self.records, self.writer.get_ref().bytes))
    }
}
