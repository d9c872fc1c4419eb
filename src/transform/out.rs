//! Text out: CSV (RFC 4180), JSON Lines, a JSON array.

use std::io::Write;

use crate::{
    source::{CsvRow, JsonRow, Row as _},
    transform::{
        TransformError,
        plan::{Made, Outcome, Output, Value},
    },
};

/// What is gathered before it is written on.
const BLOCK: usize = 1 << 16;

/// Where records of one kind go.
pub trait Sink<R: ?Sized> {
    /// Writes one record: what was made of it, and what is left as it was.
    fn write(&mut self, row: &R, made: &Made) -> Result<(), TransformError>;
    /// Ends; says how many records and bytes.
    fn finish(self) -> Result<Outcome, TransformError>;
}

/// Bytes on their way.
struct Gathered<'a> {
    inner: &'a mut dyn Write,
    block: Vec<u8>,
    bytes: u64,
}

impl<'a> Gathered<'a> {
    fn new(inner: &'a mut dyn Write) -> Self {
        Self { inner, block: Vec::with_capacity(BLOCK + (BLOCK >> 2)), bytes: 0 }
    }

    fn pass_on(&mut self, least: usize) -> Result<(), TransformError> {
        if self.block.len() >= least {
            self.inner.write_all(&self.block)?;
            self.bytes += self.block.len() as u64;
            self.block.clear();
        }
        Ok(())
    }
}

/// CSV: fields are quoted where they need it, lines end in CRLF.
pub struct CsvOut<'a> {
    out: Gathered<'a>,
    output: &'a [Output],
    records: u64,
    scratch: String,
}

impl<'a> CsvOut<'a> {
    /// Writes the header.
    pub fn new(inner: &'a mut dyn Write, output: &'a [Output]) -> Self {
        let mut out = Gathered::new(inner);
        for (at, column) in output.iter().enumerate() {
            if at > 0 {
                out.block.push(b',');
            }
            push_field(&mut out.block, &column.name);
        }
        out.block.extend_from_slice(b"\r\n");
        Self { out, output, records: 0, scratch: String::new() }
    }
}

impl Sink<CsvRow<'_>> for CsvOut<'_> {
    fn write(&mut self, row: &CsvRow<'_>, made: &Made) -> Result<(), TransformError> {
        let block = &mut self.out.block;
        let start = block.len();
        for (at, (output, value)) in self.output.iter().zip(made.values()).enumerate() {
            if at > 0 {
                block.push(b',');
            }
            match value {
                Value::Text(text) | Value::Marked(text) => push_field(block, text),
                Value::Same => match row.plain(output.place) {
                    Some(plain) => block.extend_from_slice(plain.as_bytes()),
                    None => push_field(block, row.text(output.place, &mut self.scratch)?),
                },
            }
        }
        if block.len() == start {
            block.extend_from_slice(b"\"\""); // an empty line would be no row
        }
        block.extend_from_slice(b"\r\n");
        self.records += 1;
        self.out.pass_on(BLOCK)
    }

    fn finish(mut self) -> Result<Outcome, TransformError> {
        self.out.pass_on(0)?;
        Ok(Outcome { records: self.records, bytes: self.out.bytes })
    }
}

fn push_field(block: &mut Vec<u8>, field: &str) {
    if !field.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        block.extend_from_slice(field.as_bytes());
        return;
    }
    block.push(b'"');
    for byte in field.bytes() {
        if byte == b'"' {
            block.push(b'"');
        }
        block.push(byte);
    }
    block.push(b'"');
}

/// Objects, a line each; in an array, parted by commas. Each has every column that is released, null where it has no
/// value.
pub struct JsonOut<'a> {
    out: Gathered<'a>,
    output: &'a [Output],
    /// The names with what stands before their values.
    names: Vec<String>,
    array: bool,
    records: u64,
}

impl<'a> JsonOut<'a> {
    /// Begins.
    pub fn new(inner: &'a mut dyn Write, output: &'a [Output], array: bool) -> Self {
        let name = |(at, column): (usize, &Output)| {
            format!("{}{}:", if at == 0 { '{' } else { ',' }, serde_json::Value::from(column.name.as_str()))
        };
        let names = output.iter().enumerate().map(name).collect();
        Self { out: Gathered::new(inner), output, names, array, records: 0 }
    }
}

impl Sink<JsonRow<'_>> for JsonOut<'_> {
    fn write(&mut self, row: &JsonRow<'_>, made: &Made) -> Result<(), TransformError> {
        let block = &mut self.out.block;
        if self.array {
            block.extend_from_slice(if self.records == 0 { b"[\n" } else { b",\n" });
        }
        for ((output, value), name) in self.output.iter().zip(made.values()).zip(&self.names) {
            block.extend_from_slice(name.as_bytes());
            let raw = row.raw(output.place).unwrap_or("null");
            match value {
                Value::Same => block.extend_from_slice(raw.as_bytes()),
                Value::Text("") => block.extend_from_slice(b"null"),
                // a marked number stays the number, or the text, that it was
                Value::Marked(text) if output.rule.is_none() && !raw.starts_with('"') => {
                    block.extend_from_slice(text.as_bytes());
                }
                Value::Text(text) | Value::Marked(text) => {
                    serde_json::to_writer(&mut *block, text).map_err(std::io::Error::from)?;
                }
            }
        }
        block.extend_from_slice(if self.array { b"}" } else { b"}\n" });
        self.records += 1;
        self.out.pass_on(BLOCK)
    }

    fn finish(mut self) -> Result<Outcome, TransformError> {
        if self.array {
            self.out.block.extend_from_slice(if self.records == 0 { b"[]\n" } else { b"\n]\n" });
        }
        self.out.pass_on(0)?;
        Ok(Outcome { records: self.records, bytes: self.out.bytes })
    }
}
