//! JSON Lines, and one JSON array: flat objects, strictly.
//!
//! A reader only finds where a record ends; what it holds is `serde_json`'s to say, so a record that was cut in the
//! wrong place is no valid JSON.

use std::{borrow::Cow, collections::HashMap, fmt, io::Read};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    policy::Columns,
    source::{
        Records, Row,
        broken::{Broken, MAX_FIELD, MAX_RECORD},
        buffer::{Window, valid_text},
    },
};

/// Most columns that a sample may show.
const MAX_COLUMNS: usize = 10_000;

/// The records of a JSON source. Lines without anything in them are none.
pub struct Json<R> {
    window: Window<R>,
    members: Members,
    shape: Shape,
    cut: bool,
    row: u64,
    line: u64,
}

/// One record.
pub struct JsonRow<'a> {
    /// By place; `None` where the record has no such member.
    values: &'a [Option<&'a str>],
    names: &'a [String],
    number: u64,
}

/// How records are parted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// By line ends.
    Lines,
    /// An array, and where in it the reader is.
    Array(At),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Open,
    FirstOrEnd,
    Record,
    CommaOrEnd,
    Behind,
}

/// The names of the columns.
struct Members {
    names: Vec<String>,
    places: HashMap<String, usize>,
    /// Whether unknown ones are taken in.
    learns: bool,
}

impl<R: Read> Json<R> {
    /// Before the first record. Members are those of `columns`; without any, what comes is learnt.
    pub fn new(input: R, array: bool, columns: Option<&Columns>, cut: bool) -> Self {
        let names: Vec<String> =
            columns.into_iter().flat_map(Columns::iter).map(|column| column.name.clone()).collect();
        let places = names.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
        let shape = if array { Shape::Array(At::Open) } else { Shape::Lines };
        let members = Members { names, places, learns: columns.is_none() };
        Self { window: Window::new(input), members, shape, cut, row: 0, line: 1 }
    }

    /// The names of the members so far.
    pub fn names(&self) -> &[String] {
        &self.members.names
    }
}

impl<R: Read> Records for Json<R> {
    type Row<'a> = JsonRow<'a>;

    fn fill(&mut self) -> Result<bool, Broken> {
        let more = self.window.fill(self.line)?;
        match self.shape {
            Shape::Array(at) if !more && at != At::Behind && !self.cut => {
                let problem = if at == At::Open { "there is nothing" } else { "it is cut off: `]` is missing" };
                Err(Broken::Array { line: self.line, problem })
            }
            _ => Ok(more),
        }
    }

    fn each<E: From<Broken>>(&mut self, mut take: impl FnMut(&JsonRow<'_>) -> Result<bool, E>) -> Result<bool, E> {
        let (bytes, ended) = self.window.bytes();
        let text = valid_text(bytes);
        let mut values: Vec<Option<&str>> = Vec::with_capacity(self.members.names.len());
        let (mut at, mut go_on) = (0, true);
        while go_on && at < bytes.len() {
            let found = next_record(&bytes[at..], ended, &mut self.shape).map_err(|problem| Broken::Array {
                line: self.line + lines(&bytes[at..at + problem.0]),
                problem: problem.1,
            })?;
            let (start, end, next) = match found {
                Found::Record { start, end, next } => (at + start, at + end, at + next),
                Found::Nothing { next } => {
                    self.line += lines(&bytes[at..at + next]);
                    at += next;
                    if next == 0 {
                        break;
                    }
                    continue;
                }
            };
            if self.cut && ended && end == bytes.len() {
                at = bytes.len(); // the end of a sample may have cut this one
                break;
            }
            self.line += lines(&bytes[at..start]);
            let (row, line) = (self.row + 1, self.line);
            if end - start > MAX_RECORD {
                return Err(Broken::RecordTooLong(line).into());
            }
            let Some(record) = text.get(start..end) else {
                let byte = text.len().saturating_sub(start) + 1;
                return Err(Broken::Json { row, line, byte }.into());
            };
            self.row = row;
            self.members.read(record, &mut values, (row, line))?;
            go_on = take(&JsonRow { values: &values, names: &self.members.names, number: row })?;
            self.line += lines(&bytes[start..next]);
            at = next;
        }
        if self.cut && ended {
            at = bytes.len();
        }
        self.window.consume(at);
        Ok(go_on)
    }
}

impl Members {
    fn read<'a>(
        &mut self,
        record: &'a str,
        values: &mut Vec<Option<&'a str>>,
        (row, line): (u64, u64),
    ) -> Result<(), Broken> {
        if !record.starts_with('{') {
            return Err(match serde_json::from_str::<&RawValue>(record) {
                Ok(_) => Broken::NotAnObject { row, line },
                Err(error) => Broken::Json { row, line, byte: error.column() },
            });
        }
        values.clear();
        values.resize(self.names.len(), None);
        let mut problem = None;
        let mut deserializer = serde_json::Deserializer::from_str(record);
        let object = Object { members: self, values, problem: &mut problem, row, line };
        let read = object.deserialize(&mut deserializer).and_then(|()| deserializer.end());
        match (read, problem) {
            (_, Some(problem)) => Err(problem),
            // the parser's own words may hold a value
            (Err(error), None) => Err(Broken::Json { row, line, byte: error.column() }),
            (Ok(()), None) => Ok(()),
        }
    }
}

/// Takes a record's members to their places.
struct Object<'m, 'a> {
    members: &'m mut Members,
    values: &'m mut Vec<Option<&'a str>>,
    problem: &'m mut Option<Broken>,
    row: u64,
    line: u64,
}

impl<'a> DeserializeSeed<'a> for Object<'_, 'a> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Object<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(mut self, mut map: M) -> Result<(), M::Error> {
        let mut expected = 0;
        while let Some(Name(name)) = map.next_key()? {
            // members mostly come in the order of the columns
            let place = match self.members.names.get(expected) {
                Some(next) if *next == *name => Some(expected),
                _ => self.place(&name),
            };
            let Some(place) = place else {
                return self.wrong(&name, |row, line, column| Broken::UnknownMember { row, line, column });
            };
            expected = place + 1;
            let value = map.next_value::<&RawValue>()?.get();
            if self.values[place].is_some() {
                return self.wrong(&name, |row, line, column| Broken::Twice { row, line, column });
            }
            if value.starts_with(['{', '[']) {
                return self.wrong(&name, |row, line, column| Broken::Nested { row, line, column });
            }
            if value.len() > MAX_FIELD {
                return self.wrong(&name, |row, line, column| Broken::FieldTooLong { row, line, column });
            }
            self.values[place] = Some(value);
        }
        Ok(())
    }
}

impl Object<'_, '_> {
    fn place(&mut self, name: &str) -> Option<usize> {
        let members = &mut *self.members;
        if let Some(place) = members.places.get(name) {
            return Some(*place);
        }
        if !members.learns || members.names.len() >= MAX_COLUMNS {
            return None;
        }
        members.places.insert(name.to_owned(), members.names.len());
        members.names.push(name.to_owned());
        self.values.push(None);
        Some(members.names.len() - 1)
    }

    fn wrong<E: serde::de::Error>(self, name: &str, problem: impl Fn(u64, u64, String) -> Broken) -> Result<(), E> {
        // a name is what a stranger wrote: no more of it than a person can read
        *self.problem = Some(problem(self.row, self.line, name.chars().take(100).collect()));
        Err(E::custom("see the problem"))
    }
}

/// A member's name, borrowed where it holds no escape.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonRow<'_> {
    /// How many columns there are so far.
    pub const fn width(&self) -> usize {
        self.values.len()
    }

    /// The value's JSON as it was written.
    pub fn raw(&self, place: usize) -> Option<&str> {
        self.values.get(place).copied().flatten()
    }
}

impl Row for JsonRow<'_> {
    fn number(&self) -> u64 {
        self.number
    }

    fn distinct<'a>(&'a self, place: usize, _: &'a mut String) -> Result<&'a str, Broken> {
        // a member that is missing leaves as null
        Ok(self.raw(place).unwrap_or("null"))
    }

    fn text<'a>(&'a self, place: usize, scratch: &'a mut String) -> Result<&'a str, Broken> {
        let Some(raw) = self.raw(place) else { return Ok("") };
        match raw.as_bytes() {
            b"null" => Ok(""),
            [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => Ok(&raw[1..raw.len() - 1]),
            [b'"', ..] => {
                // half of a surrogate pair is valid JSON and no text
                let broken = |_| Broken::NoText { row: self.number, column: self.names[place].clone() };
                *scratch = serde_json::from_str(raw).map_err(broken)?;
                Ok(scratch)
            }
            _ => Ok(raw),
        }
    }
}

enum Found {
    /// A record at `start..end`; go on at `next`.
    Record { start: usize, end: usize, next: usize },
    /// None, or none yet; go on at `next`.
    Nothing { next: usize },
}

/// The next record of these bytes; a problem comes with its place.
fn next_record(bytes: &[u8], ended: bool, shape: &mut Shape) -> Result<Found, (usize, &'static str)> {
    let Shape::Array(at) = shape else { return Ok(next_line(bytes, ended)) };
    let blank = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
    let Some(first) = bytes.get(blank) else { return Ok(Found::Nothing { next: blank }) };
    let (then, problem) = match (*at, first) {
        (At::Open, b'[') => (At::FirstOrEnd, None),
        (At::Open, _) => (At::Open, Some("it does not begin with `[`")),
        (At::FirstOrEnd | At::CommaOrEnd, b']') => (At::Behind, None),
        (At::CommaOrEnd, b',') => (At::Record, None),
        (At::CommaOrEnd, _) => (At::CommaOrEnd, Some("`,` or `]` is missing behind a record")),
        (At::Behind, _) => (At::Behind, Some("something follows the closing `]`")),
        (At::FirstOrEnd | At::Record, b'{') => match object_end(&bytes[blank..]) {
            Some(length) => {
                *at = At::CommaOrEnd;
                return Ok(Found::Record { start: blank, end: blank + length, next: blank + length });
            }
            None if ended => {
                // cut off: the parser says where
                return Ok(Found::Record { start: blank, end: bytes.len(), next: bytes.len() });
            }
            None => return Ok(Found::Nothing { next: blank }),
        },
        (At::FirstOrEnd | At::Record, _) => (At::Record, Some("an element is not an object")),
    };
    *at = then;
    problem.map_or(Ok(Found::Nothing { next: blank + 1 }), |problem| Err((blank, problem)))
}

fn next_line(bytes: &[u8], ended: bool) -> Found {
    let (end, next) = match memchr::memchr(b'\n', bytes) {
        Some(end) => (end, end + 1),
        None if ended => (bytes.len(), bytes.len()),
        None => return Found::Nothing { next: 0 },
    };
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
    let Some(start) = bytes[..end].iter().position(|byte| !is_blank(byte)) else { return Found::Nothing { next } };
    let trailing = bytes[..end].iter().rev().take_while(|byte| is_blank(byte)).count();
    Found::Record { start, end: end - trailing, next }
}

/// The length of the object at the start; `None` if its end is not there.
fn object_end(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            b'"' => loop {
                at += 1 + memchr::memchr2(b'"', b'\\', bytes.get(at + 1..)?)?;
                if bytes[at] == b'"' {
                    break;
                }
                at += 1; // what is escaped
            },
            _ => {}
        }
        at += 1;
    }
    None
}

fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
