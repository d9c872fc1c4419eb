//! Leaks: cut, shuffled, damaged, in any format; the right one is named and nobody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Cursor, Write as _},
    sync::Arc,
};

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use super::*;
use crate::{
    crypto::sha256,
    policy::{Column, ColumnKind, ColumnRule, Columns, Obligations},
    source::{Csv, Format, Records, Row},
};

/// The keys of one recipient.
#[derive(Clone)]
struct Of(&'static str);

impl HashKey for Of {
    fn key(&self, domain: &str) -> [u8; 32] {
        *sha256(format!("{}/{domain}", self.0).as_bytes()).as_bytes()
    }
}

const RECIPIENTS: [&str; 5] = ["hospital", "insurer", "lab", "school", "bank"];
const ROWS: i64 = 20_000;

fn columns() -> Columns {
    let kinds = [("person", ColumnKind::Text), ("visit", ColumnKind::Integer), ("weight", ColumnKind::Number)];
    let columns = kinds.map(|(name, kind)| Column { name: name.into(), kind });
    Columns::new(columns.to_vec()).unwrap()
}

/// All of it has one parity: what the data look like must not matter.
fn weight(visit: i64) -> String {
    format!("{}.{}", 40 + visit * 7 % 60, 2 + visit % 4 * 2)
}

fn source() -> String {
    let rows = (0..ROWS).map(|visit| format!("p{},{visit},{}\n", visit / 3, weight(visit)));
    ["person,visit,weight\n".to_owned()].into_iter().chain(rows).collect()
}

fn watermark() -> BTreeMap<String, BTreeSet<String>> {
    BTreeMap::from([("weight".to_owned(), BTreeSet::from(["visit".to_owned()]))])
}

/// What this recipient got, as rows of person, visit, weight.
fn released(to: &'static str, marked: bool) -> Vec<Vec<String>> {
    let obligations = Obligations {
        columns: BTreeMap::from([("person".to_owned(), ColumnRule::Hash("id".into()))]),
        watermark: if marked { watermark() } else { BTreeMap::new() },
        ..Obligations::default()
    };
    let plan = Plan::compile(&obligations, &columns(), Format::Csv, Arc::new(Of(to))).unwrap();
    let mut out = Vec::new();
    plan.run_text(Cursor::new(source()), &mut out, &|| false).unwrap();
    let mut csv = Csv::open(Cursor::new(out), false).unwrap();
    let (mut rows, mut scratch) = (Vec::new(), String::new());
    while csv.fill().unwrap() {
        csv.each(|row| {
            rows.push((0..3).map(|place| row.text(place, &mut scratch).unwrap().to_owned()).collect());
            Ok::<_, crate::source::Broken>(true)
        })
        .unwrap();
    }
    rows
}

/// A leak in this format, with the columns in another order; `person` left out where that is wanted.
fn leak(rows: &[Vec<String>], format: Format, person: bool) -> File {
    let mut file = tempfile::tempfile().unwrap();
    let bytes = match format {
        Format::Csv => {
            let line = |row: &Vec<String>| match person {
                true => format!("{},{},{}\n", row[2], row[0], row[1]),
                false => format!("{},{}\n", row[2], row[1]),
            };
            let header = if person { "weight,person,visit\n" } else { "weight,visit\n" };
            (header.to_owned() + &rows.iter().map(line).collect::<String>()).into_bytes()
        }
        Format::JsonLines | Format::Json => {
            let object = |row: &Vec<String>| match person {
                true => format!("{{\"weight\":{},\"visit\":{},\"person\":\"{}\"}}", row[2], row[1], row[0]),
                false => format!("{{\"weight\":{},\"visit\":{}}}", row[2], row[1]),
            };
            let objects: Vec<String> = rows.iter().map(object).collect();
            match format {
                Format::Json => format!("[{}]", objects.join(",")).into_bytes(),
                _ => objects.join("\n").into_bytes(),
            }
        }
        Format::Parquet => {
            let weights = rows.iter().map(|row| row[2].parse::<f64>().unwrap());
            let visits = rows.iter().map(|row| row[1].parse::<i64>().unwrap());
            let mut named: Vec<(&str, ArrayRef)> = vec![
                ("weight", Arc::new(Float64Array::from_iter_values(weights))),
                ("visit", Arc::new(Int64Array::from_iter_values(visits))),
            ];
            if person {
                named.push(("person", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row[0])))));
            }
            let batch = RecordBatch::try_from_iter(named).unwrap();
            let mut bytes = Vec::new();
            let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            bytes
        }
    };
    file.write_all(&bytes).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file
}

fn traced(leaked: File, format: Format) -> Vec<Found> {
    let keys = RECIPIENTS.map(Of);
    let candidates = keys.iter().map(|of| Candidate {
        name: of.0.to_owned(),
        key: of,
        watermark: watermark(),
        hashes: vec![Hashed {
            column: "person".into(),
            domain: "id".into(),
            values: Box::new((0..ROWS / 3).map(|person| format!("p{person}"))),
        }],
    });
    trace(leaked, format, candidates.collect()).unwrap()
}

fn named(name: &str) -> Verdict {
    Verdict::Named { names: vec![name.to_owned()] }
}

/// A tenth of the rows, in another order; each of the numbers of `damaged` in ten is moved to the other parity.
fn worn(rows: Vec<Vec<String>>, damaged: u64) -> Vec<Vec<String>> {
    let mut rows: Vec<(u64, Vec<String>)> = rows
        .into_iter()
        .map(|row| (u64::from_be_bytes(*sha256(row[1].as_bytes()).as_bytes().first_chunk().unwrap()), row))
        .filter(|(order, _)| order % 10 == 3)
        .collect();
    rows.sort();
    for (order, row) in &mut rows {
        if *order / 10 % 10 < damaged {
            let last = row[2].pop().unwrap();
            row[2].push(char::from(last as u8 ^ 1));
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

#[test]
fn the_recipient_is_named_by_what_is_left_of_the_marks_in_each_format() {
    for format in Format::ALL {
        for damaged in [0, 3] {
            let found = traced(leak(&worn(released("lab", true), damaged), format, false), format);
            assert_eq!(verdict(&found), named("lab"), "{format}, {damaged} of ten damaged: {found:#?}");
            let lab = &found[2];
            assert!(lab.pseudonyms[0].missing && lab.pseudonyms[0].matching == 0);
            assert!((350..650).contains(&lab.marks[0].marked), "{lab:?}");
            assert!(found.iter().all(|other| other.name == "lab" || other.marks[0].chance_log10 > -4.0), "{found:#?}");
        }
    }
}

#[test]
fn nobody_is_named_by_a_file_without_marks_or_of_somebody_unknown() {
    let unmarked = traced(leak(&released("lab", false), Format::Csv, false), Format::Csv);
    assert_eq!(verdict(&unmarked), Verdict::Nobody, "{unmarked:#?}");
    let unknown = traced(leak(&released("stranger", true), Format::Csv, true), Format::Csv);
    assert_eq!(verdict(&unknown), Verdict::Nobody, "{unknown:#?}");
    assert!(unknown[0].pseudonyms[0].leaked > 6000 && unknown[0].pseudonyms[0].matching == 0);
}

#[test]
fn one_pseudonym_is_proof() {
    let one = &released("insurer", false)[7..8];
    let found = traced(leak(one, Format::JsonLines, true), Format::JsonLines);
    assert_eq!(verdict(&found), named("insurer"));
    assert_eq!(
        found[1].pseudonyms[0],
        PseudonymsFound { column: "person".into(), missing: false, leaked: 1, matching: 1 }
    );
}

#[test]
fn a_row_that_is_copied_a_thousand_times_accuses_nobody() {
    for recipient in RECIPIENTS {
        let rows = released("nobody", true);
        let copied: Vec<Vec<String>> = rows[..8].iter().cycle().take(8000).cloned().collect();
        let found = traced(leak(&copied, Format::Csv, false), Format::Csv);
        assert_eq!(verdict(&found), Verdict::Nobody, "{recipient}: {found:#?}");
        assert!(found.iter().all(|found| found.marks[0].marked <= 8));
    }
}

#[test]
fn two_who_put_their_copies_together_are_both_named() {
    let even: Vec<_> = released("lab", true).into_iter().step_by(2).collect();
    let odd: Vec<_> = released("bank", true).into_iter().skip(1).step_by(2).collect();
    let found = traced(leak(&[even, odd].concat(), Format::Csv, false), Format::Csv);
    assert_eq!(verdict(&found), Verdict::Named { names: vec!["lab".into(), "bank".into()] });
}

#[test]
fn a_leak_without_the_columns_of_a_mark_says_which() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"weight\n50.2\n").unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let found = traced(file, Format::Csv);
    assert_eq!((found[0].marks[0].missing.clone(), found[0].marks[0].marked), (vec!["visit".to_owned()], 0));
    assert_eq!(verdict(&found), Verdict::Nobody);
}
