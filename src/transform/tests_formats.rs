//! The same obligations give the same table of texts, or the same refusal, in each format.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Cursor,
    sync::Arc,
};

use arrow_array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray};
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
use proptest::prelude::*;

use super::*;
use crate::{
    policy::{AtLeast, Column, ColumnKind, ColumnRule, Columns, Filter, Obligations},
    source::{Broken, Csv, Format, Json, Parquet, Records, Row},
};

struct Fixed;

impl HashKey for Fixed {
    fn key(&self, domain: &str) -> [u8; 32] {
        [domain.len() as u8; 32]
    }
}

/// A text, an integer, a quarter, another text.
type Rows = Vec<(String, Option<i32>, Option<i16>, String)>;
type Table = Vec<Vec<String>>;

const NAMES: [&str; 4] = ["name", "age", "ratio", "note"];

fn columns() -> Columns {
    let kinds = [ColumnKind::Text, ColumnKind::Integer, ColumnKind::Number, ColumnKind::Text];
    let columns = NAMES.iter().zip(kinds).map(|(name, kind)| Column { name: (*name).into(), kind });
    Columns::new(columns.collect()).unwrap()
}

fn texts(rows: &Rows) -> Table {
    let quarter = |quarters: i16| f64::from(quarters) / 4.0;
    rows.iter()
        .map(|(name, age, ratio, note)| {
            let age = age.map(|age| age.to_string()).unwrap_or_default();
            vec![name.clone(), age, ratio.map(|ratio| quarter(ratio).to_string()).unwrap_or_default(), note.clone()]
        })
        .collect()
}

fn written(rows: &Rows, format: Format) -> Vec<u8> {
    let objects = || {
        texts(rows).into_iter().map(|row| {
            let string = |text: &str| serde_json::Value::from(text).to_string();
            let number = |text: &str| if text.is_empty() { "null".to_owned() } else { text.to_owned() };
            // an empty text is left out
            let name = if row[0].is_empty() { String::new() } else { format!("\"name\": {},", string(&row[0])) };
            format!(
                "{{{name} \"age\":{},\"note\":{}, \"ratio\":{}}}",
                number(&row[1]),
                string(&row[3]),
                number(&row[2])
            )
        })
    };
    match format {
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(NAMES).unwrap();
            texts(rows).iter().for_each(|row| writer.write_record(row).unwrap());
            writer.into_inner().unwrap()
        }
        Format::JsonLines => objects().map(|object| object + "\n").collect::<String>().into_bytes(),
        Format::Json => format!("[{}]", objects().collect::<Vec<_>>().join(",\n")).into_bytes(),
        Format::Parquet => {
            let null = |text: &String| (!text.is_empty()).then(|| text.clone());
            let columns: [ArrayRef; 4] = [
                Arc::new(rows.iter().map(|row| null(&row.0)).collect::<StringArray>()),
                Arc::new(rows.iter().map(|row| row.1).collect::<Int32Array>()),
                Arc::new(rows.iter().map(|row| row.2.map(|ratio| f64::from(ratio) / 4.0)).collect::<Float64Array>()),
                Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.3))),
            ];
            let batch = RecordBatch::try_from_iter(NAMES.into_iter().zip(columns)).unwrap();
            let properties = WriterProperties::builder().set_max_row_group_size(17.max(rows.len() / 8)).build();
            let mut bytes = Vec::new();
            let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            bytes
        }
    }
}

/// What a plan makes of it: bytes, or the refusal.
fn transformed(obligations: &Obligations, format: Format, data: Vec<u8>) -> Result<(Vec<u8>, Outcome), String> {
    let plan = Plan::compile(obligations, &columns(), format, Arc::new(Fixed)).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    let outcome = match format {
        Format::Parquet if !plan.is_identity() => plan.run_parquet(Arc::new(data), &mut out, &|| false),
        _ => plan.run_text(Cursor::new(data), &mut out, &|| false),
    };
    Ok((out, outcome.map_err(|error| error.to_string())?))
}

fn all<S: Records>(rows: &mut S, width: usize) -> Table {
    let (mut table, mut scratch) = (Vec::new(), String::new());
    while rows.fill().unwrap() {
        rows.each(|row| {
            table.push((0..width).map(|place| row.text(place, &mut scratch).unwrap().to_owned()).collect());
            Ok::<_, Broken>(true)
        })
        .unwrap();
    }
    table
}

/// The names and the table of a file.
fn read(format: Format, bytes: Vec<u8>, expected: &[String]) -> (Vec<String>, Table) {
    match format {
        Format::Csv => {
            let mut rows = Csv::open(Cursor::new(bytes), false).unwrap();
            let names = rows.names().to_vec();
            let table = all(&mut rows, names.len());
            (names, table)
        }
        Format::JsonLines | Format::Json => {
            let mut rows = Json::new(Cursor::new(bytes), format == Format::Json, None, false);
            let table = all(&mut rows, expected.len());
            // without a record there are no names
            let names = if table.is_empty() { expected.to_vec() } else { rows.names().to_vec() };
            (names, table)
        }
        Format::Parquet => {
            let parquet = Parquet::open(Arc::new(bytes)).unwrap();
            let names: Vec<String> = parquet.columns().map(|(name, _)| name.to_owned()).collect();
            let places: Vec<usize> = (0..names.len()).collect();
            let table = all(&mut parquet.batches(&places).unwrap(), names.len());
            (names, table)
        }
    }
}

fn row() -> impl Strategy<Value = (String, Option<i32>, Option<i16>, String)> {
    let text =
        || prop::sample::select(vec!["", "a", "b", "x,y", "q\"q", "line\nbreak", "é\\", "7"]).prop_map(str::to_owned);
    (text(), prop::option::of(-40..130_i32), prop::option::of(-90..90_i16), text())
}

fn rule() -> impl Strategy<Value = ColumnRule> {
    prop::sample::select(vec![
        ColumnRule::Drop,
        ColumnRule::Redact,
        ColumnRule::Nullify,
        ColumnRule::Hash("d".into()),
        ColumnRule::ShowFirst(1),
        ColumnRule::ShowLast(1),
        ColumnRule::Year,
        ColumnRule::Band(10),
        ColumnRule::Round(1),
        ColumnRule::Round(-1),
    ])
}

fn obligations() -> impl Strategy<Value = Obligations> {
    let names = || prop::collection::btree_set(prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned), 1..4);
    let filter = prop::sample::select(vec![
        "age > 18",
        "age >= 20.5 or ratio < -0.25",
        "not (ratio = 1.5)",
        "name is null",
        "note <> 'a' and age is not null",
        "name in ('a', 'x,y')",
    ]);
    let filter = prop::option::of(filter.prop_map(|text| Filter::parse(text, &columns()).unwrap()));
    let at_least = prop::option::of((2..4_u64, names()).prop_map(|(k, columns)| AtLeast { k, columns }));
    let mark = prop::sample::select(vec![("ratio", "name"), ("age", "note"), ("age", "ratio"), ("name", "age")]);
    let watermark = prop::option::weighted(0.4, mark).prop_map(|mark| {
        mark.map(|(column, key)| (column.to_owned(), BTreeSet::from([key.to_owned()]))).into_iter().collect()
    });
    let rules = prop::collection::btree_map(prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned), rule(), 0..3);
    (rules, prop::option::weighted(0.3, names()), filter, prop::option::of(0..30_u64), at_least, watermark).prop_map(
        |(columns, keep, filter, limit, at_least, watermark)| Obligations {
            columns,
            keep,
            filter,
            limit,
            at_least,
            quota: None,
            matching: Default::default(),
            watermark,
            seal: false,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn each_format_gives_the_same_table_or_the_same_refusal(rows in prop::collection::vec(row(), 0..60), obligations in obligations()) {
        let csv = transformed(&obligations, Format::Csv, written(&rows, Format::Csv));
        for format in [Format::JsonLines, Format::Json, Format::Parquet] {
            let other = transformed(&obligations, format, written(&rows, format));
            match (&csv, other) {
                (Ok((expected, counted)), Ok((bytes, outcome))) => {
                    prop_assert_eq!(outcome.bytes, bytes.len() as u64);
                    if !obligations.is_empty() {
                        prop_assert_eq!(outcome.records, counted.records, "{}", format);
                        let (names, table) = read(Format::Csv, expected.clone(), &[]);
                        prop_assert_eq!((names.clone(), table), read(format, bytes.clone(), &names), "{}", format);
                    }
                    let again = transformed(&obligations, format, written(&rows, format)).unwrap().0;
                    prop_assert_eq!(bytes, again, "the same bytes each time: a stream can be resumed");
                }
                (expected, other) => {
                    let refused = other.err();
                    prop_assert_eq!(expected.as_ref().err(), refused.as_ref(), "{}", format);
                },
            }
        }
    }
}

fn rules(rules: &[(&str, ColumnRule)]) -> Obligations {
    let columns: BTreeMap<_, _> = rules.iter().map(|(name, rule)| ((*name).to_owned(), rule.clone())).collect();
    Obligations { columns, ..Obligations::default() }
}

#[test]
fn what_nothing_touches_leaves_as_it_was() {
    let obligations = rules(&[("note", ColumnRule::Redact), ("name", ColumnRule::Nullify)]);
    let text = "{\"note\":\"x\",\"ratio\":1.50,\"age\": 1e2 }\n{\"age\":\"7\\u0041\"}\n";
    let (out, _) = transformed(&obligations, Format::JsonLines, text.into()).unwrap();
    let expected = "{\"name\":null,\"age\":1e2,\"ratio\":1.50,\"note\":\"***\"}\n\
                    {\"name\":null,\"age\":\"7\\u0041\",\"ratio\":null,\"note\":\"***\"}\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    let (out, _) = transformed(&obligations, Format::Json, b"[]".to_vec()).unwrap();
    assert_eq!(out, b"[]\n");
    let rows: Rows = vec![("a".into(), Some(1), Some(6), "b".into())];
    let (out, _) = transformed(&obligations, Format::Parquet, written(&rows, Format::Parquet)).unwrap();
    let parquet = Parquet::open(Arc::new(out)).unwrap();
    let kinds: Vec<_> = parquet.fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(kinds, ["Utf8View", "Int32", "Float64", "Utf8View"]);
}

#[test]
fn a_marked_number_keeps_its_type() {
    let rows: Rows = (0..400).map(|n| (format!("row {n}"), Some(n * 3), Some(n as i16), "x".into())).collect();
    for (column, kind) in [("age", "Int32"), ("ratio", "Float64")] {
        let watermark = BTreeMap::from([(column.to_owned(), BTreeSet::from(["name".to_owned()]))]);
        let obligations = Obligations { watermark, ..Obligations::default() };
        let (out, _) = transformed(&obligations, Format::Parquet, written(&rows, Format::Parquet)).unwrap();
        let parquet = Parquet::open(Arc::new(out)).unwrap();
        let place = NAMES.iter().position(|name| *name == column).unwrap();
        assert_eq!(parquet.fields()[place].data_type().to_string(), kind);
        let (_, table) = read(
            Format::JsonLines,
            transformed(&obligations, Format::JsonLines, written(&rows, Format::JsonLines)).unwrap().0,
            &NAMES.map(str::to_owned),
        );
        let changed = table.iter().zip(texts(&rows)).filter(|(row, before)| row[place] != before[place]).count();
        // one in four is marked, half of these had the bit already
        assert!((25..80).contains(&changed), "{changed} of 400");
        assert!(table.iter().zip(texts(&rows)).all(|(row, before)| {
            let number = |row: &[String]| row[place].replace('.', "").parse::<i64>().unwrap();
            (number(row) - number(&before)).abs() <= 1
        }));
    }
}

#[test]
fn a_mark_that_others_would_break_is_refused_by_name() {
    let watermark = |column: &str, keys: &[&str]| {
        BTreeMap::from([(column.to_owned(), keys.iter().map(|key| (*key).to_owned()).collect())])
    };
    let base = || Obligations { watermark: watermark("age", &["name"]), ..Obligations::default() };
    let with = |column: &str, rule| Obligations { columns: rules(&[(column, rule)]).columns, ..base() };
    for (obligations, words) in [
        (with("age", ColumnRule::Drop), "column `age` is not released"),
        (with("name", ColumnRule::Drop), "column `name` is not released"),
        (with("age", ColumnRule::Band(10)), "another obligation than `round`"),
        (with("name", ColumnRule::Redact), "column `name` is the same in each row"),
        (Obligations { keep: Some(BTreeSet::from(["age".into()])), ..base() }, "column `name` is not released"),
        (
            Obligations { at_least: Some(AtLeast { k: 2, columns: BTreeSet::from(["age".into()]) }), ..base() },
            "`at_least` groups by it",
        ),
        (Obligations { watermark: watermark("age", &[]), ..base() }, "no column by which"),
        (
            Obligations {
                watermark: [watermark("age", &["name"]), watermark("ratio", &["age"])].into_iter().flatten().collect(),
                ..base()
            },
            "column `age`, by which a row is known, is marked itself",
        ),
    ] {
        let error = transformed(&obligations, Format::Csv, Vec::new()).unwrap_err();
        assert!(error.starts_with("`watermark` on column") && error.contains(words), "{error}");
    }
    assert!(transformed(&with("age", ColumnRule::Round(-1)), Format::Csv, b"name,age,ratio,note\n".to_vec()).is_ok());
    assert!(
        transformed(&with("name", ColumnRule::Hash("x".into())), Format::Csv, b"name,age,ratio,note\n".to_vec())
            .is_ok()
    );
    let told = transformed(&base(), Format::Csv, b"name,age,ratio,note\na,secret,,\n".to_vec()).unwrap_err();
    assert_eq!(told, "row 1, column `age`: `watermark` needs a number");
}

#[test]
fn a_stream_is_stopped_and_a_changed_file_refused_in_each_format() {
    let rows: Rows = vec![("a".into(), Some(1), None, "b".into()); 100];
    for format in Format::ALL {
        let data = written(&rows, format);
        let plan = Plan::compile(&rules(&[("name", ColumnRule::Redact)]), &columns(), format, Arc::new(Fixed)).unwrap();
        let stopped = match format {
            Format::Parquet => plan.run_parquet(Arc::new(data.clone()), &mut Vec::new(), &|| true),
            _ => plan.run_text(Cursor::new(data.clone()), &mut Vec::new(), &|| true),
        };
        assert!(matches!(stopped, Err(TransformError::Stopped)), "{format}");
        // what needs no change is not parsed
        let (out, _) = transformed(&Obligations::default(), format, b"\xff not this format".to_vec()).unwrap();
        assert_eq!(out, b"\xff not this format");
        let (out, outcome) =
            transformed(&Obligations { seal: true, ..Obligations::default() }, format, data.clone()).unwrap();
        assert!(out == data && outcome.records == 0);
        // published with other columns than are there now
        let mut others: Vec<Column> = columns().iter().cloned().collect();
        others[3].name = "remark".into();
        let others = Columns::new(others).unwrap();
        let plan = Plan::compile(&rules(&[("name", ColumnRule::Redact)]), &others, format, Arc::new(Fixed)).unwrap();
        let refused = match format {
            Format::Parquet => plan.run_parquet(Arc::new(data), &mut Vec::new(), &|| false),
            _ => plan.run_text(Cursor::new(data), &mut Vec::new(), &|| false),
        };
        let error = refused.unwrap_err().to_string();
        let words = ["column `remark` is not where it was", "has a member `note` that is no column"];
        assert!(words.iter().any(|words| error.contains(words)), "{format}: {error}");
    }
}

/// Many row groups out of many rows: each is closed in time, and the bytes are the same again.
#[test]
fn a_long_parquet_is_written_in_row_groups_of_bounded_size() {
    let rows: Rows = (0..300_000).map(|n| (format!("{n}"), Some(n), None, String::new())).collect();
    let data = written(&rows, Format::Parquet);
    let obligations = rules(&[("age", ColumnRule::Band(5))]);
    let (out, outcome) = transformed(&obligations, Format::Parquet, data.clone()).unwrap();
    assert_eq!(outcome.records, 300_000);
    assert_eq!(transformed(&obligations, Format::Parquet, data).unwrap().0, out);
    let parquet = Parquet::open(Arc::new(out)).unwrap();
    assert_eq!((parquet.records().unwrap(), parquet.groups()), (300_000, 3));
}

#[test]
fn groups_are_of_values_that_can_not_be_told_apart_as_they_leave() {
    let columns = Columns::new(vec![Column { name: "g".into(), kind: ColumnKind::Text }]).unwrap();
    let obligations = Obligations {
        at_least: Some(AtLeast { k: 3, columns: BTreeSet::from(["g".to_owned()]) }),
        ..Obligations::default()
    };
    let plan = Plan::compile(&obligations, &columns, Format::JsonLines, Arc::new(Fixed)).unwrap();
    let mut out = Vec::new();
    let input = "{\"g\":1}\n{\"g\":1}\n{\"g\":1}\n{\"g\":\"1\"}\n{\"g\":null}\n{}\n{\"g\":\"\"}\n";
    plan.run_text(std::io::Cursor::new(input), &mut out, &|| false).unwrap();
    assert_eq!(String::from_utf8(out).unwrap().lines().count(), 3, "a text among numbers, an empty text beside nulls");
}
