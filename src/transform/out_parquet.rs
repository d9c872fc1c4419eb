//! Parquet out: what is untouched keeps its type, what a rule made is text.

use std::{
    io::{self, Write},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use arrow_array::{
    Array as _, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, RecordBatch, StringViewArray,
    builder::StringBuilder,
    cast::AsArray as _,
    types::{
        Decimal128Type, Decimal256Type, DecimalType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
        Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use arrow_select::filter::FilterBuilder;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::Compression,
    file::properties::{EnabledStatistics, WriterProperties},
};

use crate::{
    source::{Broken, ParquetRow, Row as _, guarded},
    transform::{
        TransformError,
        out::Sink,
        plan::{Made, Outcome, Output, Value},
    },
};

/// Most rows of a row group.
const GROUP_ROWS: usize = 1 << 17;
/// A row group with more encoded bytes than this is closed.
const GROUP_BYTES: usize = 16 << 20;

/// Text that is handed to the writer at once: a long text of a dictionary may stand in each row of a batch.
const PIECE_BYTES: usize = 8 << 20;

/// Writes row groups of bounded size, each time the same bytes: nothing in them tells of the time or the machine.
pub struct ParquetOut<'a> {
    inner: &'a mut dyn Write,
    gathered: Gathered,
    writer: ArrowWriter<Gathered>,
    schema: SchemaRef,
    columns: Vec<Column>,
    /// The batch that rows come from, the number of its first row, and which of its rows leave.
    batch: Option<(u64, RecordBatch, Vec<bool>)>,
    /// How many of its rows leave so far.
    count: usize,
    /// Bytes that rules made for them.
    made_bytes: usize,
    outcome: Outcome,
}

struct Column {
    /// Place in the batch.
    place: usize,
    /// What a rule made of the rows that leave.
    texts: Option<StringBuilder>,
    /// Marked values, by their place among the rows that leave.
    marks: Vec<(usize, String)>,
}

/// What the writer wrote and nobody has taken on yet.
#[derive(Clone, Default)]
struct Gathered(Arc<Mutex<Vec<u8>>>);

impl Write for Gathered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> ParquetOut<'a> {
    /// Begins. `read` are the places in the file of the columns that batches have, `fields` all the file's columns.
    pub fn new(
        inner: &'a mut dyn Write,
        output: &[Output],
        read: &[usize],
        fields: &Fields,
    ) -> Result<Self, TransformError> {
        let absent = || Broken::Parquet("a column is not where it was".into());
        let (mut released, mut columns) = (Vec::new(), Vec::new());
        for output in output {
            let place = read.binary_search(&output.place).map_err(|_| absent())?;
            let field = fields.get(output.place).ok_or_else(absent)?;
            released.push(match &output.rule {
                Some(_) => Arc::new(Field::new(&output.name, DataType::Utf8, true)),
                None => field.clone(),
            });
            columns.push(Column {
                place,
                texts: output.rule.as_ref().map(|_| StringBuilder::new()),
                marks: Vec::new(),
            });
        }
        let schema: SchemaRef = Arc::new(Schema::new(released));
        let properties = WriterProperties::builder()
            .set_created_by("counterseal".into())
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_max_row_group_size(GROUP_ROWS)
            .build();
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let gathered = Gathered::default();
        let writer = guarded(|| ArrowWriter::try_new_with_options(gathered.clone(), schema.clone(), options))?;
        let outcome = Outcome { records: 0, bytes: 0 };
        Ok(Self { inner, gathered, writer, schema, columns, batch: None, count: 0, made_bytes: 0, outcome })
    }

    /// Writes the rows of the batch that leave.
    fn end_batch(&mut self) -> Result<(), TransformError> {
        let Some((_, batch, leave)) = self.batch.take() else { return Ok(()) };
        let predicate = FilterBuilder::new(&BooleanArray::from(leave)).optimize().build();
        let failed = |error: arrow_schema::ArrowError| Broken::Parquet(error.to_string());
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for column in &mut self.columns {
            let marks = std::mem::take(&mut column.marks);
            arrays.push(match &mut column.texts {
                Some(texts) => Arc::new(texts.finish()),
                None => {
                    let array = predicate.filter(batch.column(column.place)).map_err(failed)?;
                    if marks.is_empty() { array } else { marked(&array, &marks) }
                }
            });
        }
        let batch = RecordBatch::try_new(self.schema.clone(), arrays).map_err(failed)?;
        self.outcome.records += std::mem::take(&mut self.count) as u64;
        self.made_bytes = 0;
        for piece in pieces(&batch) {
            guarded(|| {
                self.writer.write(&batch.slice(piece.start, piece.len()))?;
                if self.writer.in_progress_size() > GROUP_BYTES {
                    self.writer.flush()?;
                }
                Ok(())
            })?;
            self.pass_on()?;
        }
        Ok(())
    }

    fn pass_on(&mut self) -> Result<(), TransformError> {
        let bytes = std::mem::take(&mut *self.gathered.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.inner.write_all(&bytes)?;
        self.outcome.bytes += bytes.len() as u64;
        Ok(())
    }
}

impl Sink<ParquetRow<'_>> for ParquetOut<'_> {
    fn write(&mut self, row: &ParquetRow<'_>, made: &Made) -> Result<(), TransformError> {
        let first = row.number() - row.index as u64;
        if self.batch.as_ref().is_none_or(|(known, ..)| *known != first) {
            self.end_batch()?;
            self.batch = Some((first, row.batch.clone(), vec![false; row.batch.num_rows()]));
        }
        if let Some((_, _, leave)) = &mut self.batch {
            leave[row.index] = true;
        }
        for (column, value) in self.columns.iter_mut().zip(made.values()) {
            if let Value::Text(text) | Value::Marked(text) = value {
                self.made_bytes += text.len();
            }
            match (value, &mut column.texts) {
                (Value::Text(""), Some(texts)) => texts.append_null(),
                (Value::Text(text) | Value::Marked(text), Some(texts)) => texts.append_value(text),
                (Value::Marked(text), None) => column.marks.push((self.count, text.to_owned())),
                (Value::Same | Value::Text(_), _) => {}
            }
        }
        self.count += 1;
        if self.made_bytes > PIECE_BYTES { self.end_batch() } else { Ok(()) }
    }

    fn finish(mut self) -> Result<Outcome, TransformError> {
        self.end_batch()?;
        guarded(|| self.writer.finish().map(drop))?;
        self.pass_on()?;
        Ok(self.outcome)
    }
}

/// Rows whose texts together are not much longer than a piece may be.
fn pieces(batch: &RecordBatch) -> Vec<Range<usize>> {
    let views: Vec<_> = batch.columns().iter().filter_map(|column| column.as_string_view_opt()).collect();
    // a view begins with its length, in 32 bits
    let bytes = |row: usize| views.iter().map(|column| (column.views()[row] as u32) as usize).sum::<usize>();
    let (mut pieces, mut start, mut sum) = (Vec::new(), 0, 0);
    for row in 0..batch.num_rows() {
        sum += bytes(row);
        if sum > PIECE_BYTES {
            pieces.push(start..row + 1);
            (start, sum) = (row + 1, 0);
        }
    }
    if start < batch.num_rows() {
        pieces.push(start..batch.num_rows());
    }
    pieces
}

/// The column with the marked numbers in it, of its own type; a number that the type doesn't hold stays unmarked.
fn marked(array: &ArrayRef, marks: &[(usize, String)]) -> ArrayRef {
    fn put<T: ArrowPrimitiveType>(
        array: &ArrayRef,
        marks: &[(usize, String)],
        parse: impl Fn(&str) -> Option<T::Native>,
    ) -> ArrayRef {
        let Some(column) = array.as_primitive_opt::<T>() else { return array.clone() };
        let mut values = column.values().to_vec();
        for (at, text) in marks {
            if let (Some(value), Some(number)) = (values.get_mut(*at), parse(text)) {
                *value = number;
            }
        }
        let column = PrimitiveArray::<T>::new(values.into(), column.nulls().cloned());
        Arc::new(column.with_data_type(array.data_type().clone()))
    }
    fn unscaled<T: DecimalType>(text: &str, precision: u8, scale: i8) -> Option<T::Native>
    where
        T::Native: std::str::FromStr,
    {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let zeros = usize::try_from(scale).ok()?.checked_sub(fraction.len())?;
        let number = format!("{whole}{fraction}{}", "0".repeat(zeros)).parse().ok()?;
        T::validate_decimal_precision(number, precision, scale).ok().map(|()| number)
    }
    match array.data_type() {
        DataType::Int8 => put::<Int8Type>(array, marks, |text| text.parse().ok()),
        DataType::Int16 => put::<Int16Type>(array, marks, |text| text.parse().ok()),
        DataType::Int32 => put::<Int32Type>(array, marks, |text| text.parse().ok()),
        DataType::Int64 => put::<Int64Type>(array, marks, |text| text.parse().ok()),
        DataType::UInt8 => put::<UInt8Type>(array, marks, |text| text.parse().ok()),
        DataType::UInt16 => put::<UInt16Type>(array, marks, |text| text.parse().ok()),
        DataType::UInt32 => put::<UInt32Type>(array, marks, |text| text.parse().ok()),
        DataType::UInt64 => put::<UInt64Type>(array, marks, |text| text.parse().ok()),
        DataType::Float32 => put::<Float32Type>(array, marks, |text| text.parse().ok()),
        DataType::Float64 => put::<Float64Type>(array, marks, |text| text.parse().ok()),
        DataType::Decimal128(precision, scale) => {
            put::<Decimal128Type>(array, marks, |text| unscaled::<Decimal128Type>(text, *precision, *scale))
        }
        DataType::Decimal256(precision, scale) => {
            put::<Decimal256Type>(array, marks, |text| unscaled::<Decimal256Type>(text, *precision, *scale))
        }
        DataType::Utf8View => {
            let Some(column) = array.as_string_view_opt() else { return array.clone() };
            let mut marks = marks.iter().peekable();
            let texts = column.iter().enumerate().map(|(at, text)| {
                let mark = marks.next_if(|(place, _)| *place == at);
                mark.map(|(_, text)| text.as_str()).or(text)
            });
            Arc::new(texts.collect::<StringViewArray>())
        }
        _ => array.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_written_in_pieces() {
        let long = "x".repeat(1 << 20);
        let texts: StringViewArray = std::iter::repeat_n(Some(long.as_str()), 20).collect();
        let batch = RecordBatch::try_from_iter([("t", Arc::new(texts) as ArrayRef)]).unwrap();
        assert_eq!(pieces(&batch), [0..9, 9..18, 18..20]);
        assert_eq!(pieces(&batch.slice(0, 9)).len(), 1);
        assert!(pieces(&batch.slice(0, 0)).is_empty());
    }
}
