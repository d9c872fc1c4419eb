//! CSV: what has one reading is read as the `csv` crate reads it; what has two is refused.

use std::io::{self, Read};

use proptest::prelude::*;

use super::*;

/// Gives out so many bytes at a time.
struct Blocks<'a>(&'a [u8], usize);

impl Read for Blocks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.1.min(self.0.len()).min(buffer.len());
        buffer[..taken].copy_from_slice(&self.0[..taken]);
        self.0 = &self.0[taken..];
        Ok(taken)
    }
}

/// All rows, the header among them.
fn read(bytes: &[u8], block: usize) -> Result<Vec<Vec<String>>, String> {
    let mut csv = Csv::open(Blocks(bytes, block), false).map_err(|error| error.to_string())?;
    let mut rows = if csv.names().is_empty() { vec![] } else { vec![csv.names().to_vec()] };
    let width = csv.names().len();
    while csv.fill().map_err(|error| error.to_string())? {
        csv.each(|row| {
            let mut scratch = String::new();
            let texts = (0..width).map(|place| row.text(place, &mut scratch).unwrap().to_owned()).collect();
            rows.push(texts);
            Ok::<_, Broken>(true)
        })
        .map_err(|error| error.to_string())?;
    }
    Ok(rows)
}

fn by_the_csv_crate(bytes: &[u8]) -> Vec<Vec<String>> {
    let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(bytes);
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[test]
fn what_has_one_reading_passes_and_what_has_two_does_not() {
    for fine in
        ["a,b\n1,2\n", "a,b\r\n\"x\"\"y\",\"1\n2,3\"\r\n", "\u{feff}\"a\",b\n,\n", "a\n\"\"", "a\n\n1", "a\r1\r2"]
    {
        for block in [1, 3, 4, 1000] {
            let stripped = fine.trim_start_matches('\u{feff}');
            assert_eq!(read(fine.as_bytes(), block).unwrap(), by_the_csv_crate(stripped.as_bytes()), "{fine:?}");
        }
    }
    assert_eq!(read(b"", 3), Ok(vec![]));
    for (wrong, words) in [
        ("a,b\n1,5\" pipe\n", "line 2: a quote inside a field"),
        ("a,b\n\"x\ny\" z,2\n", "line 3: text after a field's closing quote"),
        ("a,b\n1,\"2\n3,4\n5,6\n", "a quoted field that begins in line 2"),
        ("a,b\n1,\"2\n3,4\n5,\"6\"\n", "line 4: text after"),
    ] {
        for block in [1, 3, 4, 1000] {
            let error = read(wrong.as_bytes(), block).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}

#[test]
fn a_row_does_not_fill_the_memory() {
    const MAX: usize = 8 << 20;
    for filler in ["x", "x,", "\"\","] {
        let mut long = b"a\n1\n".to_vec();
        long.extend(filler.bytes().cycle().take(MAX + (1 << 20)));
        assert!(read(&long, 1 << 16).unwrap_err().contains("begins in line 3 has more than"), "{filler}");
        // a row of that many bytes but one is taken as a row
        long.truncate(4 + (MAX - 10) / filler.len() * filler.len());
        long.extend_from_slice(b"\nx\n");
        let error = read(&long, 1 << 16).unwrap_err();
        assert!(
            error.contains(if filler == "x" { "column `a` has more than" } else { "fields, the header has 1" }),
            "{error}"
        );
    }
}

#[test]
fn a_long_field_is_measured_without_its_doubled_quotes() {
    let field = |quotes: usize| format!("a,b\n1,\"{}{}\"\n", "\"\"".repeat(quotes), "x".repeat((1 << 20) - quotes));
    assert!(read(field(1000).as_bytes(), 1 << 16).is_ok());
    let over = format!("a,b\n1,\"{}\"\n", "\"\"".repeat((1 << 20) + 1));
    assert!(read(over.as_bytes(), 1 << 16).unwrap_err().contains("row 1 (line 2), column `b` has more than"));
}

#[test]
fn records_are_counted_to_the_end_and_a_broken_one_is_found() {
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let roots = Roots::new(vec![folder.path().to_owned()], home.path()).unwrap();
    let count = |text: &str, format| {
        std::fs::write(folder.path().join("x"), text).unwrap();
        let opened = roots.open("x").unwrap();
        let columns = header(&opened, format)?;
        records(&opened, format, &columns)
    };
    assert_eq!(count(&format!("a,b\n{}", "1,\"x\ny\"\n".repeat(5000)), Format::Csv).unwrap(), 5000);
    assert_eq!(count("a\n", Format::Csv).unwrap(), 0);
    assert_eq!(count(&"{\"a\":1}\n".repeat(5000), Format::JsonLines).unwrap(), 5000);
    assert_eq!(count("[{\"a\":1},{\"a\":2}]", Format::Json).unwrap(), 2);
    let late = count(&format!("a,b\n{}3\n", "1,2\n".repeat(5000)), Format::Csv).unwrap_err().to_string();
    assert!(late.contains("row 5001 (line 5002) has 1 fields"), "{late}");
    let late =
        count(&format!("{}{{\"b\":1}}\n", "{\"a\":1}\n".repeat(5000)), Format::JsonLines).unwrap_err().to_string();
    assert!(late.contains("row 5001 (line 5001) has a member `b` that is no column"), "{late}");
}

proptest! {
    #[test]
    fn whatever_a_careful_writer_writes_is_read_as_it_was(rows in prop::collection::vec(prop::collection::vec("[ab,\"\r\né]{0,9}", 3), 1..8), crlf: bool, block in 1_usize..40) {
        let terminator = if crlf { ::csv::Terminator::CRLF } else { ::csv::Terminator::Any(b'\n') };
        let mut writer = ::csv::WriterBuilder::new().terminator(terminator).from_writer(Vec::new());
        rows.iter().for_each(|row| writer.write_record(row).unwrap());
        prop_assert_eq!(read(&writer.into_inner().unwrap(), block), Ok(rows));
    }

    #[test]
    fn what_is_read_is_what_the_csv_crate_reads(bytes in "[ab,\"\r\n]{0,40}") {
        if let Ok(rows) = read(bytes.as_bytes(), 1000) {
            prop_assert_eq!(rows, by_the_csv_crate(bytes.as_bytes()));
        }
    }

    #[test]
    fn blocks_make_no_difference(bytes in "[ab,\"\r\n]{0,30}", block in 1_usize..9) {
        prop_assert_eq!(read(bytes.as_bytes(), block), read(bytes.as_bytes(), 1000));
    }
}
