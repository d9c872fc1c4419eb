//! RFC 4180 as it is written, strictly.
//!
//! A quote that is never closed, or one in the middle of a field, has several readings, and lenient parsers pick one. A
//! reader that guesses where a cell ends may carry the raw cells of later rows inside one that no obligation touches.
//! So what has two readings is refused. A row is kept from filling the memory.

use std::io::Read;

use crate::{
    policy::Columns,
    source::{
        Records, Row,
        broken::{Broken, MAX_FIELD, MAX_RECORD},
        buffer::{Window, valid_text},
    },
};

/// Longest header row, in bytes.
const MAX_HEADER: usize = 1 << 20;

/// The rows of a CSV; lines without anything in them are no rows. A byte order mark is skipped.
pub struct Csv<R> {
    window: Window<R>,
    names: Vec<String>,
    /// Whether the input is only the beginning of a file: its last row may be cut.
    cut: bool,
    row: u64,
    line: u64,
}

/// One row.
pub struct CsvRow<'a> {
    text: &'a str,
    cells: &'a [(u32, u32)],
    /// Whether any cell is quoted.
    quoted: bool,
    number: u64,
}

impl<R: Read> Csv<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Broken::Header`] where it can't be read.
    pub fn open(input: R, cut: bool) -> Result<Self, Broken> {
        let mut csv = Self { window: Window::new(input), names: Vec::new(), cut, row: 0, line: 1 };
        let mut cells = Vec::new();
        let header = |problem: String| Broken::Header(problem);
        while csv.window.fill(csv.line)? {
            let (bytes, ended) = csv.window.bytes();
            let mut scan = Scan { bytes, ended, quote: None };
            let parsed = scan.row(0, usize::MAX, &mut cells).map_err(|problem| problem.at(csv.line))?;
            let Some(parsed) = parsed else {
                if bytes.len() > MAX_HEADER {
                    return Err(header(format!("the header row has more than {MAX_HEADER} bytes; is it a CSV?")));
                }
                continue;
            };
            if parsed.end > MAX_HEADER {
                return Err(header(format!("the header row has more than {MAX_HEADER} bytes; is it a CSV?")));
            }
            if parsed.end > 0 {
                for (at, cell) in cells.iter().enumerate() {
                    let Ok(name) = std::str::from_utf8(&bytes[cell.0 as usize..cell.1 as usize]) else {
                        return Err(header(format!("the header's column {} is not valid UTF-8", at + 1)));
                    };
                    let name = if parsed.quoted { name.replace("\"\"", "\"") } else { name.to_owned() };
                    csv.names.push(name);
                }
            }
            csv.line += parsed.lines;
            csv.window.consume(parsed.next);
            if parsed.end > 0 {
                break;
            }
        }
        Ok(csv)
    }

    /// The header's names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether the header is the published one.
    ///
    /// # Errors
    /// [`Broken::Header`] says what differs.
    pub fn expect(&self, columns: &Columns) -> Result<(), Broken> {
        expect(self.names.iter().map(String::as_str), columns)
    }
}

impl<R: Read> Records for Csv<R> {
    type Row<'a> = CsvRow<'a>;

    fn fill(&mut self) -> Result<bool, Broken> {
        self.window.fill(self.line)
    }

    fn each<E: From<Broken>>(&mut self, mut take: impl FnMut(&CsvRow<'_>) -> Result<bool, E>) -> Result<bool, E> {
        let (bytes, ended) = self.window.bytes();
        let text = valid_text(bytes);
        let mut scan = Scan { bytes, ended: ended && !self.cut, quote: None };
        let mut cells = Vec::with_capacity(self.names.len() + 1);
        let (mut at, mut go_on) = (0, true);
        while go_on && at < bytes.len() {
            let parsed = match scan.row(at, self.names.len(), &mut cells) {
                Ok(Some(parsed)) => parsed,
                // the rest of a sample may be cut anywhere
                Ok(None) | Err(Problem::Open { .. }) if self.cut && ended => {
                    at = bytes.len();
                    break;
                }
                Ok(None) => break,
                Err(problem) => return Err(problem.at(self.line).into()),
            };
            if parsed.end - at > MAX_RECORD {
                return Err(Broken::RecordTooLong(self.line).into());
            }
            if parsed.end > at {
                self.row += 1;
                check(&self.names, bytes, text.len(), &cells, &parsed, (self.row, self.line))?;
                go_on = take(&CsvRow { text, cells: &cells, quoted: parsed.quoted, number: self.row })?;
            }
            self.line += parsed.lines;
            at = parsed.next;
        }
        self.window.consume(at);
        Ok(go_on)
    }
}

/// A row has the header's width, is text, and none of its fields is too long.
fn check(
    names: &[String],
    bytes: &[u8],
    valid: usize,
    cells: &[(u32, u32)],
    parsed: &Parsed,
    (row, line): (u64, u64),
) -> Result<(), Broken> {
    if parsed.fields != names.len() {
        return Err(Broken::Width { row, line, found: parsed.fields, expected: names.len() });
    }
    if parsed.end <= valid && parsed.end - parsed.start <= MAX_FIELD {
        return Ok(());
    }
    for (cell, column) in cells.iter().zip(names) {
        let field = &bytes[cell.0 as usize..cell.1 as usize];
        // also where nobody wants the column: a file that is broken there is not read as if it were whole
        if field.len() > MAX_FIELD && field.len() - memchr::memmem::find_iter(field, "\"\"").count() > MAX_FIELD {
            return Err(Broken::FieldTooLong { row, line, column: column.clone() });
        }
        if std::str::from_utf8(field).is_err() {
            return Err(Broken::Utf8 { row, line, column: column.clone() });
        }
    }
    Ok(())
}

/// Whether a file's columns are the published ones.
pub fn expect<'a>(found: impl ExactSizeIterator<Item = &'a str>, columns: &Columns) -> Result<(), Broken> {
    if found.len() != columns.len() {
        return Err(Broken::Header(format!("{} columns instead of {}", found.len(), columns.len())));
    }
    match found.zip(columns.iter()).find(|(found, column)| *found != column.name) {
        None => Ok(()),
        Some((_, column)) => Err(Broken::Header(format!("column `{}` is not where it was", column.name))),
    }
}

impl CsvRow<'_> {
    /// The cell as it may be written again, where it was not quoted.
    pub fn plain(&self, place: usize) -> Option<&str> {
        let (start, end) = self.cells[place];
        if self.is_quoted(place) { None } else { Some(&self.text[start as usize..end as usize]) }
    }

    fn is_quoted(&self, place: usize) -> bool {
        self.quoted && {
            let start = self.cells[place].0 as usize;
            // before a cell that is not quoted stands a comma, a line's end, or nothing
            start > 0 && self.text.as_bytes()[start - 1] == b'"'
        }
    }
}

impl Row for CsvRow<'_> {
    fn number(&self) -> u64 {
        self.number
    }

    fn text<'a>(&'a self, place: usize, scratch: &'a mut String) -> Result<&'a str, Broken> {
        let (start, end) = self.cells[place];
        let text = &self.text[start as usize..end as usize];
        if !self.is_quoted(place) || !text.contains('"') {
            return Ok(text);
        }
        scratch.clear();
        scratch.extend(text.split("\"\"").enumerate().flat_map(|(at, part)| [if at == 0 { "" } else { "\"" }, part]));
        Ok(scratch)
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    /// Whether the bytes' end is the source's.
    ended: bool,
    /// The next quote, and from where it was looked for.
    quote: Option<(usize, usize)>,
}

struct Parsed {
    start: usize,
    /// Behind the last field.
    end: usize,
    /// Where the next row begins.
    next: usize,
    fields: usize,
    quoted: bool,
    /// Line ends in it and behind it.
    lines: u64,
}

/// What is wrong, so many lines further on.
enum Problem {
    Quote { lines: u64 },
    AfterQuote { lines: u64 },
    Open { lines: u64 },
}

impl Problem {
    const fn at(&self, line: u64) -> Broken {
        match self {
            Self::Quote { lines } => Broken::Quote(line + *lines),
            Self::AfterQuote { lines } => Broken::AfterQuote(line + *lines),
            Self::Open { lines } => Broken::Open(line + *lines),
        }
    }
}

impl Scan<'_> {
    /// The row that begins at `start`; `None` if its end is not there yet. No more than one cell beyond `expected` is
    /// written down, all are counted.
    fn row(&mut self, start: usize, expected: usize, cells: &mut Vec<(u32, u32)>) -> Result<Option<Parsed>, Problem> {
        cells.clear();
        let found = memchr::memchr2(b'\n', b'\r', &self.bytes[start..]);
        let end = match found {
            Some(length) => start + length,
            None => self.bytes.len(),
        };
        if self.next_quote(start) < end {
            return self.quoted_row(start, expected, cells);
        }
        if found.is_none() && !self.ended {
            return Ok(None);
        }
        let fields = split(&self.bytes[start..end], start as u32, expected, cells);
        let newline = self.bytes.get(end) == Some(&b'\n');
        let next = (end + 1).min(self.bytes.len());
        Ok(Some(Parsed { start, end, next, fields, quoted: false, lines: u64::from(newline) }))
    }

    fn next_quote(&mut self, from: usize) -> usize {
        match self.quote {
            Some((looked, at)) if looked <= from && from <= at => at,
            _ => {
                let at = memchr::memchr(b'"', &self.bytes[from..]).map_or(usize::MAX, |length| from + length);
                self.quote = Some((from, at));
                at
            }
        }
    }

    fn quoted_row(
        &self,
        start: usize,
        expected: usize,
        cells: &mut Vec<(u32, u32)>,
    ) -> Result<Option<Parsed>, Problem> {
        let (mut at, mut fields, mut lines) = (start, 0, 0);
        loop {
            let (cell, after) = if self.bytes.get(at) == Some(&b'"') {
                let open = lines;
                let mut from = at + 1;
                let close = loop {
                    let Some(length) = memchr::memchr(b'"', &self.bytes[from..]) else {
                        return if self.ended { Err(Problem::Open { lines: open }) } else { Ok(None) };
                    };
                    lines += newlines(&self.bytes[from..from + length]);
                    let close = from + length;
                    match self.bytes.get(close + 1) {
                        Some(b'"') => from = close + 2,
                        None if !self.ended => return Ok(None),
                        Some(b',' | b'\n' | b'\r') | None => break close,
                        Some(_) => return Err(Problem::AfterQuote { lines }),
                    }
                };
                ((at + 1, close), close + 1)
            } else {
                let rest = &self.bytes[at..];
                let length = rest.iter().position(|byte| matches!(byte, b',' | b'\n' | b'\r' | b'"'));
                match length {
                    Some(length) if rest[length] == b'"' => return Err(Problem::Quote { lines }),
                    None if !self.ended => return Ok(None),
                    _ => {}
                }
                let after = at + length.unwrap_or(rest.len());
                ((at, after), after)
            };
            if fields <= expected {
                cells.push((cell.0 as u32, cell.1 as u32));
            }
            fields += 1;
            if self.bytes.get(after) == Some(&b',') {
                at = after + 1;
                continue;
            }
            lines += u64::from(self.bytes.get(after) == Some(&b'\n'));
            let next = (after + 1).min(self.bytes.len());
            return Ok(Some(Parsed { start, end: after, next, fields, quoted: true, lines }));
        }
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Splits a row without quotes at its commas; counts the fields. `base` is where the row lies.
fn split(row: &[u8], base: u32, expected: usize, cells: &mut Vec<(u32, u32)>) -> usize {
    let (mut fields, mut start) = (0, base);
    let mut field = |end: u32| {
        if fields <= expected {
            cells.push((start, end));
        }
        fields += 1;
        start = end + 1;
    };
    let (eights, rest) = row.as_chunks::<8>();
    let mut at = base;
    for eight in eights {
        let mut commas = commas_in(u64::from_le_bytes(*eight));
        while commas != 0 {
            field(at + commas.trailing_zeros() / 8);
            commas &= commas - 1;
        }
        at += 8;
    }
    for byte in rest {
        if *byte == b',' {
            field(at);
        }
        at += 1;
    }
    field(at);
    fields
}

/// The highest bit of each byte that is a comma, and no other bit: exact, no carry passes from byte to byte.
const fn commas_in(eight: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let differs = eight ^ 0x2c2c_2c2c_2c2c_2c2c;
    !(((differs & LOW) + LOW) | differs | LOW)
}

/// The names in a header row alone; `None` where it is none.
pub fn header_names(header: &[u8]) -> Option<Vec<String>> {
    Csv::open(header, true).ok().map(|csv| csv.names().to_vec())
}
