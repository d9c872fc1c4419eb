//! The header row, and what the columns look like in a sample.

use std::io::Read as _;

use crate::{
    policy::{Column, ColumnKind, Columns},
    source::{Broken, Decimal, Format, Opened, SourceError, Strict, year_of},
};

/// Rows that are looked at to tell what a column holds.
const SAMPLE: usize = 1000;
/// Most bytes that are read for header and sample.
const MAX_BYTES: u64 = 8 << 20;
/// Longest header row, in bytes.
const MAX_HEADER: usize = 1 << 20;

/// Reads the header, and what its columns hold in the first thousand rows.
///
/// # Errors
/// [`SourceError::Header`] where the header can't be used, or a row of the sample is short, long or not UTF-8: names the
/// row. Better said when a dataset is published than at its first release.
pub fn header(opened: &Opened, format: Format) -> Result<Columns, SourceError> {
    let Format::Csv = format;
    let wrong = |problem: String| SourceError::Header { path: opened.path().to_owned(), problem };
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(Strict::new(opened.file()?.take(MAX_BYTES)));
    let names = match reader.byte_headers() {
        Ok(names) if names.as_slice().len() > MAX_HEADER => {
            return Err(wrong(format!("the header row has more than {MAX_HEADER} bytes; is it a CSV?")));
        }
        Ok(names) => names.clone(),
        Err(error) => return Err(wrong(format!("the header row can't be read: {error}"))),
    };
    let names: Vec<String> = names
        .iter()
        .enumerate()
        .map(|(at, name)| match std::str::from_utf8(name) {
            Ok(name) => Ok(name.to_owned()),
            Err(_) => Err(wrong(format!("the header's column {} is not valid UTF-8", at + 1))),
        })
        .collect::<Result<_, _>>()?;
    let mut seen = vec![Seen::default(); names.len()];
    let mut record = csv::ByteRecord::new();
    let is_cut = opened.len() > MAX_BYTES;
    for row in 1..=SAMPLE {
        let more = match reader.read_byte_record(&mut record) {
            Err(error) if is_cut && is_open_quote(&error) => break,
            Err(error) => return Err(wrong(format!("row {row} can't be read: {error}"))),
            Ok(more) => more,
        };
        if !more || is_cut && reader.position().byte() >= MAX_BYTES {
            break; // the sample's end may have cut this row
        }
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() != names.len() {
            let (found, expected) = (record.len(), names.len());
            return Err(wrong(format!("row {row} (line {line}) has {found} fields, the header has {expected}")));
        }
        for ((value, seen), name) in record.iter().zip(&mut seen).zip(&names) {
            match std::str::from_utf8(value) {
                Ok(value) => seen.look(value),
                Err(_) => return Err(wrong(format!("row {row} (line {line}), column `{name}` is not valid UTF-8"))),
            }
        }
    }
    let columns = names.into_iter().zip(&seen).map(|(name, seen)| Column { name, kind: seen.kind() });
    Columns::new(columns.collect()).map_err(|error| wrong(error.to_string()))
}

fn is_open_quote(error: &csv::Error) -> bool {
    let csv::ErrorKind::Io(error) = error.kind() else { return false };
    error.get_ref().and_then(|inner| inner.downcast_ref()).is_some_and(|broken| matches!(broken, Broken::Open(_)))
}

/// What no value so far was.
#[derive(Clone, Default)]
struct Seen {
    any: bool,
    not_integer: bool,
    not_number: bool,
    not_date: bool,
    not_boolean: bool,
}

impl Seen {
    fn look(&mut self, value: &str) {
        if value.is_empty() {
            return;
        }
        self.any = true;
        self.not_integer |= value.parse::<i64>().is_err();
        self.not_number |= Decimal::parse(value).is_none();
        self.not_date |= year_of(value).is_none();
        self.not_boolean |= !matches!(value, "true" | "false");
    }

    const fn kind(&self) -> ColumnKind {
        match self {
            Self { any: false, .. } => ColumnKind::Text,
            Self { not_integer: false, .. } => ColumnKind::Integer,
            Self { not_number: false, .. } => ColumnKind::Number,
            Self { not_date: false, .. } => ColumnKind::Date,
            Self { not_boolean: false, .. } => ColumnKind::Boolean,
            _ => ColumnKind::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Roots;

    /// What `header` says of a file with these bytes.
    fn header_of(bytes: &[u8]) -> Result<Columns, String> {
        let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("x.csv"), bytes).unwrap();
        let roots = Roots::new(vec![folder.path().to_owned()], home.path()).unwrap();
        header(&roots.open("x.csv").unwrap(), Format::Csv).map_err(|error| error.to_string())
    }

    #[test]
    fn the_real_data_is_seen_as_what_it_is() {
        let home = tempfile::tempdir().unwrap();
        let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");
        let roots = Roots::new(vec![data], home.path()).unwrap();
        let columns = header(&roots.open("lymph_node.csv").unwrap(), Format::Csv).unwrap();
        assert_eq!(columns.len(), 16);
        for (name, kind) in [
            ("id", ColumnKind::Integer),
            ("diagdateb", ColumnKind::Date),
            ("deathdate", ColumnKind::Date),
            ("age", ColumnKind::Integer),
        ] {
            assert_eq!(columns.get(name).unwrap().kind, kind, "{name}");
        }
        let weather = header(&roots.open("seattle-weather.csv").unwrap(), Format::Csv).unwrap();
        assert_eq!(weather.get("date").unwrap().kind, ColumnKind::Date);
        assert_eq!(weather.get("temp_max").unwrap().kind, ColumnKind::Number);
        assert_eq!(weather.get("weather").unwrap().kind, ColumnKind::Text);
    }

    #[test]
    fn a_column_is_of_the_kind_that_all_its_values_are() {
        let columns = header_of(b"a,b,c,d,e\n1,1,true,,1e5\n,2.5,false,,2\n-3,x,,,3\n").unwrap();
        let kinds: Vec<ColumnKind> = columns.iter().map(|column| column.kind).collect();
        assert_eq!(
            kinds,
            [ColumnKind::Integer, ColumnKind::Text, ColumnKind::Boolean, ColumnKind::Text, ColumnKind::Text]
        );
        let with_mark = header_of(b"\xef\xbb\xbf\"a\",b\n1,2\n").unwrap();
        assert_eq!(with_mark.iter().next().unwrap().name, "a", "a byte order mark is no part of a name");
    }

    #[test]
    fn a_header_that_obligations_could_not_name_is_refused() {
        for (text, word) in [
            (&b""[..], "no columns"),
            (b"a,a\n1,2\n", "twice"),
            (b"a,\n1,2\n", "column 2"),
            (b"a,\xff\n1,2\n", "column 2 is not valid UTF-8"),
        ] {
            let error = header_of(text).unwrap_err();
            assert!(error.contains(word) && error.contains("x.csv"), "{error}");
        }
        let mut long = b"a,".to_vec();
        long.resize(MAX_HEADER + 10, b'b');
        assert!(header_of(&long).unwrap_err().contains("more than 1048576 bytes"));
    }

    #[test]
    fn a_broken_row_is_named_when_the_dataset_is_published() {
        assert!(header_of(b"a,b\n1,2\n3\n").unwrap_err().contains("row 2 (line 3) has 1 fields, the header has 2"));
        assert!(
            header_of(b"a,b\n1,2\n3,\xff\n").unwrap_err().contains("row 2 (line 3), column `b` is not valid UTF-8")
        );
        assert!(header_of(b"a,b\n1,\"2\n3,4\n").unwrap_err().contains("a quoted field that begins in line 2"));
        assert!(header_of(b"a,b\n1,2\" \n").unwrap_err().contains("line 2: a quote inside a field"));
        // beyond the sample nothing is looked at; the release says it
        let mut late = b"a,b\n".to_vec();
        (0..SAMPLE).for_each(|_| late.extend_from_slice(b"1,2\n"));
        late.extend_from_slice(b"3\n");
        assert!(header_of(&late).is_ok());
    }

    #[test]
    fn a_row_that_the_sample_cuts_is_not_held_against_the_file() {
        let mut wide = b"a,b\n".to_vec();
        let cell = "x".repeat(100_000);
        (0..200).for_each(|_| wide.extend_from_slice(format!("{cell},1\n").as_bytes()));
        assert_eq!(header_of(&wide).unwrap().get("b").unwrap().kind, ColumnKind::Integer);
        let quoted = String::from_utf8(wide).unwrap().replace("x,", "x\",").replace("\nx", "\n\"x");
        assert_eq!(header_of(quoted.as_bytes()).unwrap().get("b").unwrap().kind, ColumnKind::Integer);
    }
}
