//! The header row, and what the columns look like in a sample.

use std::io::Read as _;

use crate::{
    policy::{Column, ColumnKind, Columns},
    source::{Format, Opened, SourceError},
};

/// Rows that are looked at to tell what a column holds.
const SAMPLE: usize = 1000;
/// Most bytes that are read for header and sample.
const MAX_BYTES: u64 = 8 << 20;

/// Reads the header and a sample.
pub fn header(opened: &Opened, format: Format) -> Result<Columns, SourceError> {
    let Format::Csv = format;
    let wrong = |problem: String| SourceError::Header { path: opened.path().to_owned(), problem };
    let mut reader = csv::ReaderBuilder::new().from_reader(opened.file()?.take(MAX_BYTES));
    let names = reader.headers().map_err(|error| wrong(format!("the header row: {error}")))?.clone();
    let mut seen = vec![Seen::default(); names.len()];
    let mut row = csv::StringRecord::new();
    for _ in 0..SAMPLE {
        match reader.read_record(&mut row) {
            Ok(true) => row.iter().zip(&mut seen).for_each(|(value, seen)| seen.look(value)),
            // the sample's end may cut a row; what is wrong with a row is said, with its number, at the release
            Ok(false) | Err(_) => break,
        }
    }
    let columns = names.iter().zip(&seen).map(|(name, seen)| Column { name: name.to_owned(), kind: seen.kind() });
    Columns::new(columns.collect()).map_err(|error| wrong(error.to_string()))
}

/// What every value so far could be.
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
        self.not_number |= !is_decimal(value);
        self.not_date |= year_of(value).is_none();
        self.not_boolean |= !matches!(value, "true" | "false");
    }

    fn kind(&self) -> ColumnKind {
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

fn is_decimal(value: &str) -> bool {
    let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    !whole.is_empty()
        && !fraction.is_empty()
        && [whole, fraction].iter().all(|part| part.bytes().all(|b| b.is_ascii_digit()))
}

/// The year of a date: four digits first or last among three numbers parted by `-`, `/` or `.`; a time may follow.
pub fn year_of(value: &str) -> Option<&str> {
    let date = value.split([' ', 'T']).next()?;
    let mut parts = date.split(['-', '/', '.']);
    let (first, middle, last) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let small =
        |part: &str| matches!(part.len(), 1 | 2) && part.parse::<u8>().is_ok_and(|number| (1..=31).contains(&number));
    let year = |part: &str| part.len() == 4 && part.bytes().all(|b| b.is_ascii_digit());
    if !small(middle) {
        return None;
    }
    match (year(first) && small(last), small(first) && year(last)) {
        (true, _) => Some(first),
        (_, true) => Some(last),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Roots;

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
    fn a_year_is_found_in_dates_and_only_there() {
        for (value, year) in [
            ("17-08-1984", Some("1984")),
            ("2012/01/01", Some("2012")),
            ("1.2.2003", Some("2003")),
            ("2024-02-29T10:00:00Z", Some("2024")),
            ("2024-02-29 10:00", Some("2024")),
            ("1984", None),
            ("1.2.3", None),
            ("127.0.0.1", None),
            ("2024-99-01", None),
            ("20-30", None),
            ("1234-5678-9012", None),
        ] {
            assert_eq!(year_of(value), year, "{value}");
        }
    }

    #[test]
    fn a_header_that_obligations_could_not_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let home = tempfile::tempdir().unwrap();
        let roots = Roots::new(vec![folder.path().to_owned()], home.path()).unwrap();
        for (text, word) in [("", "no columns"), ("a,a\n1,2\n", "twice"), ("a,\n1,2\n", "column 2")] {
            std::fs::write(folder.path().join("x.csv"), text).unwrap();
            let error = header(&roots.open("x.csv").unwrap(), Format::Csv).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("x.csv"), "{error}");
        }
    }
}
