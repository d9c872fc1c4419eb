//! A source's columns, what they look like in a sample, and how many records there are.

use std::{io::Read as _, sync::Arc};

use crate::{
    policy::{Column, ColumnKind, Columns},
    source::{Broken, Csv, Decimal, Format, Json, Opened, Parquet, Records, Row, SourceError, year_of},
};

/// Rows that are looked at to tell what a column holds.
const SAMPLE: u64 = 1000;
/// Most bytes that are read for header and sample.
const MAX_BYTES: u64 = 8 << 20;

/// Reads the columns, and what they hold in the first thousand rows. Columns of JSON are the members of these, in the
/// order in which they first appear.
///
/// # Errors
/// [`SourceError::Header`] where the header can't be used, or a row of the sample is broken: names the row. Better said
/// when a dataset is published than at its first release.
pub fn header(opened: &Opened, format: Format) -> Result<Columns, SourceError> {
    let wrong = |problem: String| SourceError::Header { path: opened.path().to_owned(), problem };
    let file = opened.file()?;
    let is_cut = opened.len() > MAX_BYTES;
    let broken = |error: Broken| match error {
        Broken::Header(problem) => wrong(problem),
        other => wrong(other.to_string()),
    };
    let seen = match format {
        Format::Csv => of_csv(file.take(MAX_BYTES), is_cut),
        Format::JsonLines | Format::Json => of_json(file.take(MAX_BYTES), format == Format::Json, is_cut),
        Format::Parquet => of_parquet(file),
    };
    let columns = seen.map_err(broken)?.into_iter().map(|(name, kind)| Column { name, kind });
    Columns::new(columns.collect()).map_err(|error| wrong(error.to_string()))
}

/// How many records the whole source has: it is read to its end, a Parquet file's footer says it.
///
/// # Errors
/// [`SourceError::Header`] for a row that is broken, or a header that is not the one of `columns`.
pub fn records(opened: &Opened, format: Format, columns: &Columns) -> Result<u64, SourceError> {
    let file = opened.file()?;
    let count = || {
        let mut count = 0;
        let mut one = || -> Result<bool, Broken> {
            count += 1;
            Ok(true)
        };
        match format {
            Format::Csv => {
                let mut rows = Csv::open(file, false)?;
                rows.expect(columns)?;
                while rows.fill()? {
                    rows.each(|_| one())?;
                }
            }
            Format::JsonLines | Format::Json => {
                let mut rows = Json::new(file, format == Format::Json, Some(columns), false);
                while rows.fill()? {
                    rows.each(|_| one())?;
                }
            }
            Format::Parquet => {
                let parquet = Parquet::open(Arc::new(file))?;
                super::expect(parquet.columns().map(|(name, _)| name), columns)?;
                count = parquet.records()?;
            }
        }
        Ok(count)
    };
    count().map_err(|error: Broken| SourceError::Header { path: opened.path().to_owned(), problem: error.to_string() })
}

/// Gives each record of the whole source, of whatever format, until `take` has seen enough.
///
/// # Errors
/// As [`records`], or what `take` says.
pub fn each_row(
    opened: &Opened,
    format: Format,
    columns: &Columns,
    take: &mut dyn FnMut(&dyn Row) -> Result<bool, Broken>,
) -> Result<(), SourceError> {
    let file = opened.file()?;
    let run = || {
        match format {
            Format::Csv => {
                let mut rows = Csv::open(file, false)?;
                rows.expect(columns)?;
                while rows.fill()? && rows.each::<Broken>(|row| take(row))? {}
            }
            Format::JsonLines | Format::Json => {
                let mut rows = Json::new(file, format == Format::Json, Some(columns), false);
                while rows.fill()? && rows.each::<Broken>(|row| take(row))? {}
            }
            Format::Parquet => {
                let parquet = Parquet::open(Arc::new(file))?;
                super::expect(parquet.columns().map(|(name, _)| name), columns)?;
                let all: Vec<usize> = (0..columns.len()).collect();
                let mut rows = parquet.batches(&all)?;
                while rows.fill()? && rows.each::<Broken>(|row| take(row))? {}
            }
        }
        Ok(())
    };
    run().map_err(|error: Broken| SourceError::Header { path: opened.path().to_owned(), problem: error.to_string() })
}

type Sampled = Vec<(String, ColumnKind)>;

fn of_csv(input: impl std::io::Read, is_cut: bool) -> Result<Sampled, Broken> {
    let mut rows = Csv::open(input, is_cut)?;
    let mut sample = Sample::default();
    let names = rows.names().to_vec();
    while rows.fill()? && rows.each(|row| sample.look(row, names.len()))? {}
    Ok(sample.kinds(names))
}

fn of_json(input: impl std::io::Read, array: bool, is_cut: bool) -> Result<Sampled, Broken> {
    let mut rows = Json::new(input, array, None, is_cut);
    let mut sample = Sample::default();
    while rows.fill()? && rows.each(|row| sample.look(row, row.width()))? {}
    Ok(sample.kinds(rows.names().to_vec()))
}

fn of_parquet(file: std::fs::File) -> Result<Sampled, Broken> {
    let parquet = Parquet::open(Arc::new(file))?;
    let columns: Sampled = parquet.columns().map(|(name, kind)| (name.to_owned(), kind)).collect();
    let mut sample = Sample::default();
    let all: Vec<usize> = (0..columns.len()).collect();
    let mut batches = parquet.batches(&all)?;
    while batches.fill()? && batches.each(|row| sample.look(row, columns.len()))? {}
    let (names, typed): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    // a type says more than a sample; only text may hold anything
    let kinds = sample.kinds(names).into_iter().zip(typed);
    Ok(kinds.map(|((name, seen), kind)| (name, if kind == ColumnKind::Text { seen } else { kind })).collect())
}

#[derive(Default)]
struct Sample {
    rows: u64,
    seen: Vec<Seen>,
    scratch: String,
}

impl Sample {
    /// Looks at a row; false where that was the last one of a sample.
    fn look(&mut self, row: &impl Row, width: usize) -> Result<bool, Broken> {
        self.rows += 1;
        self.seen.resize(self.seen.len().max(width), Seen::default());
        for (place, seen) in self.seen.iter_mut().enumerate().take(width) {
            seen.look(row.text(place, &mut self.scratch)?);
        }
        Ok(self.rows < SAMPLE)
    }

    fn kinds(self, names: Vec<String>) -> Sampled {
        let seen = self.seen.into_iter().chain(std::iter::repeat(Seen::default()));
        names.into_iter().zip(seen).map(|(name, seen)| (name, seen.kind())).collect()
    }
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
        long.resize((1 << 20) + 10, b'b');
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
