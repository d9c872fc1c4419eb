//! Plans over real data and over made-up tables.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{self, Cursor, Read, Seek, SeekFrom},
    sync::Arc,
};

use proptest::prelude::*;

use super::*;
use crate::{
    policy::{AtLeast, Column, ColumnKind, ColumnRule, Columns, Filter, Obligations},
    source::Format,
};

struct Fixed;

impl HashKey for Fixed {
    fn key(&self, domain: &str) -> [u8; 32] {
        [domain.len() as u8; 32]
    }
}

const LYMPH: &str = include_str!("../../examples/data/lymph_node.csv");

fn lymph_columns() -> Columns {
    let header = LYMPH.lines().next().unwrap();
    let kind = |name: &str| if name.contains("date") { ColumnKind::Date } else { ColumnKind::Integer };
    let columns =
        header.split(',').map(|name| name.trim_matches('"')).map(|name| Column { name: name.into(), kind: kind(name) });
    Columns::new(columns.collect()).unwrap()
}

fn lymph_rows() -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(LYMPH.as_bytes());
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

fn text_columns(names: &[&str]) -> Columns {
    Columns::new(names.iter().map(|name| Column { name: (*name).into(), kind: ColumnKind::Text }).collect()).unwrap()
}

fn run(
    obligations: &Obligations,
    columns: &Columns,
    data: &str,
) -> Result<(Vec<Vec<String>>, Outcome), TransformError> {
    let mut out = Vec::new();
    let plan = Plan::compile(obligations, columns, Format::Csv, Arc::new(Fixed))?;
    let outcome = plan.run_text(Cursor::new(data), &mut out, &|| false)?;
    assert_eq!(outcome.bytes, out.len() as u64);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&*out);
    Ok((reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect(), outcome))
}

fn rules(rules: &[(&str, ColumnRule)]) -> Obligations {
    Obligations {
        columns: rules.iter().map(|(name, rule)| ((*name).to_owned(), rule.clone())).collect(),
        ..Obligations::default()
    }
}

#[test]
fn the_cohort_leaves_as_the_policy_says() {
    let mut obligations = rules(&[
        ("id", ColumnRule::Hash("id".into())),
        ("diagdateb", ColumnRule::Year),
        ("recdate", ColumnRule::Year),
        ("age", ColumnRule::Band(10)),
        ("deathdate", ColumnRule::Drop),
    ]);
    let (rows, outcome) = run(&obligations, &lymph_columns(), LYMPH).unwrap();
    assert_eq!(outcome.records, 686);
    assert_eq!(rows[0][..4], ["id", "diagdateb", "recdate", "age"]);
    assert_eq!(rows[1][1..5], ["1984", "1988", "30-39", "1"]);
    assert_eq!(rows[1][0].len(), 22);
    assert!(rows.iter().all(|row| row.len() == 15));

    obligations.at_least = Some(AtLeast { k: 5, columns: BTreeSet::from(["grade".into(), "menopause".into()]) });
    obligations.filter = Some(Filter::parse("age >= 30", &lymph_columns()).unwrap());
    let (rows, _) = run(&obligations, &lymph_columns(), LYMPH).unwrap();
    let mut groups: HashMap<(&str, &str), usize> = HashMap::new();
    for row in &rows[1..] {
        *groups.entry((&row[4], &row[7])).or_default() += 1;
        assert!(!row[3].starts_with("20"), "the filter is on raw values");
    }
    assert!(groups.values().all(|count| *count >= 5), "{groups:?}");
}

/// The column of the real data under this rule, beside the same column as it was.
fn one_column(column: &str, rule: ColumnRule) -> Vec<(String, String)> {
    let (rows, outcome) = run(&rules(&[(column, rule)]), &lymph_columns(), LYMPH).unwrap();
    assert_eq!(outcome.records, 686);
    let raw = lymph_rows();
    assert_eq!(rows[0], raw[0]);
    let at = raw[0].iter().position(|name| name == column).unwrap();
    let pairs = raw[1..].iter().zip(&rows[1..]);
    pairs
        .map(|(raw, out)| {
            let others = |row: &[String]| [&row[..at], &row[at + 1..]].concat();
            assert_eq!(others(raw), others(out), "no other cell is touched");
            (raw[at].clone(), out[at].clone())
        })
        .collect()
}

#[test]
fn each_rule_changes_its_column_of_the_real_data_and_no_other() {
    for (raw, out) in one_column("id", ColumnRule::Redact) {
        assert!(out == "***" && !raw.is_empty());
    }
    assert!(one_column("id", ColumnRule::Nullify).iter().all(|(_, out)| out.is_empty()));
    let hashed = one_column("id", ColumnRule::Hash("id".into()));
    let pseudonyms: BTreeSet<&String> = hashed.iter().map(|(_, out)| out).collect();
    assert!(pseudonyms.len() == 686 && pseudonyms.iter().all(|text| text.len() == 22));
    for (raw, out) in one_column("diagdateb", ColumnRule::ShowFirst(2)) {
        assert_eq!(out, format!("{}********", &raw[..2]));
    }
    for (raw, out) in one_column("diagdateb", ColumnRule::ShowLast(4)) {
        assert_eq!(out, format!("******{}", &raw[6..]));
    }
    let years = one_column("deathdate", ColumnRule::Year);
    assert!(years.iter().all(|(raw, out)| out == raw.get(6..).unwrap_or_default()), "no date, no year");
    assert!(years.iter().any(|(_, out)| out == "1990"));
    for (raw, out) in one_column("age", ColumnRule::Band(10)) {
        let (from, to) =
            out.split_once('-').map(|(a, b)| (a.parse::<u32>().unwrap(), b.parse::<u32>().unwrap())).unwrap();
        let age = raw.parse().unwrap();
        assert!(from % 10 == 0 && to == from + 9 && (from..=to).contains(&age), "{raw} {out}");
    }
    for (raw, out) in one_column("prog_recp", ColumnRule::Round(-1)) {
        let raw: u32 = raw.parse().unwrap();
        assert_eq!(out, ((raw + 5) / 10 * 10).to_string());
    }
}

#[test]
fn a_rule_on_values_that_it_cannot_handle_releases_nothing_of_them() {
    for (column, rule, expected) in [
        ("age", ColumnRule::Year, "row 1, column `age`: `year` needs a date"),
        ("diagdateb", ColumnRule::Band(10), "row 1, column `diagdateb`: `band` needs a number"),
        ("diagdateb", ColumnRule::Round(0), "row 1, column `diagdateb`: `round` needs a number"),
        ("age", ColumnRule::Band(0), "`band` on column `age` can't be met: its number is out of bounds"),
    ] {
        assert_eq!(run(&rules(&[(column, rule)]), &lymph_columns(), LYMPH).unwrap_err().to_string(), expected);
    }
}

#[test]
fn columns_are_dropped_and_kept() {
    let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let mut obligations = rules(&[("id", ColumnRule::Drop), ("deathdate", ColumnRule::Drop)]);
    let (rows, _) = run(&obligations, &lymph_columns(), LYMPH).unwrap();
    assert_eq!((rows.len(), rows[0].len()), (687, 14));
    assert!(!rows[0].iter().any(|name| name == "id" || name == "deathdate"));
    obligations.keep = Some(all(&["size", "age", "id"]));
    let (rows, _) = run(&obligations, &lymph_columns(), LYMPH).unwrap();
    assert_eq!(rows[0], ["age", "size"], "in the file's order, and what is dropped is not kept");
    let raw = lymph_rows();
    assert!(rows.iter().zip(&raw).all(|(out, raw)| out[0] == raw[4] && out[1] == raw[7]));
    obligations.keep = Some(all(&["id"]));
    assert!(matches!(run(&obligations, &lymph_columns(), LYMPH), Err(TransformError::NoColumns)));
}

#[test]
fn rows_are_filtered_on_raw_values_even_of_columns_that_stay_here() {
    let mut obligations = rules(&[("age", ColumnRule::Drop), ("diagdateb", ColumnRule::Year)]);
    obligations.filter = Some(Filter::parse("age >= 70 OR deathdate IS NULL AND age < 30", &lymph_columns()).unwrap());
    let (rows, outcome) = run(&obligations, &lymph_columns(), LYMPH).unwrap();
    let wanted: Vec<String> = lymph_rows()[1..]
        .iter()
        .filter(|row| {
            let age: u32 = row[4].parse().unwrap();
            age >= 70 || row[3].is_empty() && age < 30
        })
        .map(|row| row[0].clone())
        .collect();
    assert!(!wanted.is_empty() && wanted.len() < 686);
    assert_eq!(rows[1..].iter().map(|row| row[0].clone()).collect::<Vec<_>>(), wanted);
    assert_eq!(outcome.records, wanted.len() as u64);

    // what the filter leaves out needs no year; what it lets in does, and is called by its number in the file
    let data = "d,n\nunknown,1\n2020-01-02,2\nunknown,1\nlater,3\n2021-01-02,2\n";
    let columns = Columns::new(vec![
        Column { name: "d".into(), kind: ColumnKind::Date },
        Column { name: "n".into(), kind: ColumnKind::Integer },
    ])
    .unwrap();
    let mut obligations = rules(&[("d", ColumnRule::Year)]);
    obligations.filter = Some(Filter::parse("n = 2", &columns).unwrap());
    assert_eq!(run(&obligations, &columns, data).unwrap().0[1..], [["2020", "2"], ["2021", "2"]]);
    obligations.filter = Some(Filter::parse("n > 1", &columns).unwrap());
    let error = run(&obligations, &columns, data).unwrap_err().to_string();
    assert_eq!(error, "row 4, column `d`: `year` needs a date");
    let error = run(&obligations, &columns, "d,n\n2020-01-02,2\n2020-01-02,secret\n").unwrap_err().to_string();
    assert_eq!(error, "row 2, column `n`: `filter` needs a number");
}

#[test]
fn a_limit_counts_what_the_filter_lets_through() {
    let mut obligations = Obligations { limit: Some(5), ..Obligations::default() };
    let (rows, _) = run(&obligations, &lymph_columns(), LYMPH).unwrap();
    assert_eq!(rows, lymph_rows()[..6]);
    obligations.filter = Some(Filter::parse("age > 60", &lymph_columns()).unwrap());
    let (rows, _) = run(&obligations, &lymph_columns(), LYMPH).unwrap();
    assert!(rows.len() == 6 && rows[1..].iter().all(|row| row[4].parse::<u32>().unwrap() > 60));
    obligations.limit = Some(0);
    assert_eq!(run(&obligations, &lymph_columns(), LYMPH).unwrap().0.len(), 1, "the header");
    obligations = Obligations { limit: Some(1000), ..Obligations::default() };
    assert_eq!(run(&obligations, &lymph_columns(), LYMPH).unwrap().1.records, 686);
}

#[test]
fn a_limit_comes_before_groups_are_counted() {
    // at_least then limit left a group of two on this very data; limit then at_least cannot
    let obligations = Obligations {
        limit: Some(30),
        at_least: Some(AtLeast { k: 5, columns: BTreeSet::from(["grade".into(), "menopause".into()]) }),
        ..Obligations::default()
    };
    let (rows, _) = run(&obligations, &lymph_columns(), LYMPH).unwrap();
    let mut groups: HashMap<(&str, &str), usize> = HashMap::new();
    rows[1..].iter().for_each(|row| *groups.entry((&row[5], &row[8])).or_default() += 1);
    assert!(rows.len() <= 31 && groups.values().all(|count| *count >= 5), "{groups:?}");
}

#[test]
fn data_that_needs_no_change_is_not_parsed() {
    let plan =
        Plan::compile(&Obligations::default(), &text_columns(&["a", "b"]), Format::Csv, Arc::new(Fixed)).unwrap();
    assert!(plan.is_identity());
    let broken = b"not,the,header\n\xff\xfe\"".to_vec();
    let mut out = Vec::new();
    plan.run_text(Cursor::new(&broken), &mut out, &|| false).unwrap();
    assert_eq!(out, broken);
    let sealed = Obligations { seal: true, ..Obligations::default() };
    assert!(Plan::compile(&sealed, &text_columns(&["a"]), Format::Csv, Arc::new(Fixed)).unwrap().is_identity());
}

#[test]
fn broken_rows_are_named_by_number() {
    let columns = text_columns(&["a", "b"]);
    let obligations = rules(&[("a", ColumnRule::Redact)]);
    let error = |data: &[u8]| {
        let plan = Plan::compile(&obligations, &columns, Format::Csv, Arc::new(Fixed)).unwrap();
        plan.run_text(Cursor::new(data), &mut Vec::new(), &|| false).unwrap_err().to_string()
    };
    assert_eq!(error(b"a,b\n1,2\n3\n"), "row 2 (line 3) has 1 fields, the header has 2");
    assert_eq!(error(b"a,b\n\"x\ny\",2\n3,4,5\n"), "row 2 (line 4) has 3 fields, the header has 2");
    assert_eq!(error(b"a,b\n1,2\n3,\xff\n"), "row 2 (line 3), column `b` is not valid UTF-8");
    assert!(error(b"a,c\n1,2\n").contains("column `b` is not where it was"));
    assert!(error(b"a\n1\n").contains("1 columns instead of 2"));
    let mut bomb = b"a,b\n1,\"".to_vec();
    bomb.resize(9 << 20, b'x');
    assert!(error(&bomb).contains("the row that begins in line 2 has more than"), "a quote that is never closed");
    let long = [&b"a,b\n1,2\n3,"[..], &vec![b'x'; (1 << 20) + 1]].concat();
    assert!(error(&long).contains("row 2 (line 3), column `b` has more than 1048576 bytes"));
    assert!(error(b"a,b\n1,2\n3,4\" 5\n").contains("line 3: a quote inside a field"));
    let swallowed = b"a,b\n1,\"x\n2,y\n3,\"z\"\n";
    assert!(error(swallowed).contains("line 4: text after"), "no row leaves inside another row's cell");
    assert!(error(b"a,b\n1,\"x\n2,y\n").contains("ends inside a quoted field that begins in line 2"));
    let columns = text_columns(&["a", "b", "c"]);
    let plan = Plan::compile(&rules(&[("c", ColumnRule::Drop)]), &columns, Format::Csv, Arc::new(Fixed)).unwrap();
    let unread = plan.run_text(Cursor::new(b"a,b,c\n1,2,\xff\n"), &mut Vec::new(), &|| false).unwrap_err().to_string();
    assert_eq!(unread, "row 1 (line 2), column `c` is not valid UTF-8", "also where nobody gets the column");
    let columns = Columns::new(vec![Column { name: "n".into(), kind: ColumnKind::Integer }]).unwrap();
    let plan = Plan::compile(&rules(&[("n", ColumnRule::Band(10))]), &columns, Format::Csv, Arc::new(Fixed)).unwrap();
    let error = plan.run_text(Cursor::new("n\n1\nsecret\n"), &mut Vec::new(), &|| false).unwrap_err().to_string();
    assert_eq!(error, "row 2, column `n`: `band` needs a number");
}

#[test]
fn an_obligation_that_cannot_be_met_stops_everything() {
    for obligations in [
        rules(&[("absent", ColumnRule::Drop)]),
        Obligations { keep: Some(BTreeSet::from(["absent".into()])), ..Obligations::default() },
        Obligations {
            at_least: Some(AtLeast { k: 5, columns: BTreeSet::from(["absent".into()]) }),
            ..Obligations::default()
        },
    ] {
        assert!(matches!(
            Plan::compile(&obligations, &text_columns(&["a"]), Format::Csv, Arc::new(Fixed)),
            Err(TransformError::Column(name)) if name == "absent"
        ));
    }
}

#[test]
fn cells_that_nothing_touches_come_out_as_they_were() {
    let data = "\u{feff}\"a\",b,c\r\n\"x, \"\"y\"\"\",\" 1\r\n2 \",007\r\n,\"\",é\r\n";
    let columns = text_columns(&["a", "b", "c"]);
    let (rows, _) = run(&rules(&[("c", ColumnRule::Redact)]), &columns, data).unwrap();
    assert_eq!(rows, [["a", "b", "c"], ["x, \"y\"", " 1\r\n2 ", "***"], ["", "", "***"]]);
    let mut out = Vec::new();
    let plan = Plan::compile(&rules(&[("c", ColumnRule::Redact)]), &columns, Format::Csv, Arc::new(Fixed)).unwrap();
    plan.run_text(Cursor::new(data), &mut out, &|| false).unwrap();
    let written = "a,b,c\r\n\"x, \"\"y\"\"\",\" 1\r\n2 \",***\r\n,,***\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), written, "RFC 4180, quoted only where it must be");
}

fn at_least(k: u64, columns: &[&str]) -> Obligations {
    let columns = columns.iter().map(|name| (*name).to_owned()).collect();
    Obligations { at_least: Some(AtLeast { k, columns }), ..Obligations::default() }
}

#[test]
fn groups_are_those_of_the_values_as_released() {
    let columns = Columns::new(vec![Column { name: "age".into(), kind: ColumnKind::Integer }]).unwrap();
    let data = "age\n31\n32\n33\n41\n42\n";
    assert_eq!(run(&at_least(2, &["age"]), &columns, data).unwrap().1.records, 0, "raw, each is alone");
    let banded = Obligations { columns: rules(&[("age", ColumnRule::Band(10))]).columns, ..at_least(3, &["age"]) };
    let (rows, _) = run(&banded, &columns, data).unwrap();
    assert_eq!(rows[1..], [["30-39"], ["30-39"], ["30-39"]]);
    // a column that does not leave tells nobody apart; the rows that do are one group
    let columns = text_columns(&["a", "b"]);
    let dropped = Obligations { columns: rules(&[("a", ColumnRule::Drop)]).columns, ..at_least(3, &["a"]) };
    assert_eq!(run(&dropped, &columns, "a,b\n1,x\n2,y\n3,z\n").unwrap().1.records, 3);
    assert_eq!(run(&dropped, &columns, "a,b\n1,x\n2,y\n").unwrap().1.records, 0);
    // lengths keep neighbours apart: (x, yz) is not (xy, z)
    assert_eq!(run(&at_least(2, &["a", "b"]), &columns, "a,b\nx,yz\nxy,z\n").unwrap().1.records, 0);
}

#[test]
fn too_many_groups_are_refused() {
    let columns = text_columns(&["a", "b"]);
    let mut plan = Plan::compile(&at_least(2, &["a"]), &columns, Format::Csv, Arc::new(Fixed)).unwrap();
    assert_eq!((plan.passes(), plan.max_groups), (2, 1_000_000));
    plan.max_groups = 3;
    let run = |data: &str| {
        let mut out = Vec::new();
        let result = plan.run_text(Cursor::new(data), &mut out, &|| false);
        (result, out)
    };
    assert_eq!(run("a,b\n1,\n2,\n3,\n1,\n").0.unwrap().records, 2);
    let (refused, out) = run("a,b\n1,\n2,\n3,\n4,\n");
    assert!(matches!(refused, Err(TransformError::Groups(3))) && out.is_empty(), "before anything is written");
}

#[test]
fn a_source_that_changes_between_the_passes_is_found_out() {
    /// Other bytes at each reading from the start.
    struct Changing(Vec<&'static str>, Cursor<&'static str>);
    impl Read for Changing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1.read(buffer)
        }
    }
    impl Seek for Changing {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            if to == SeekFrom::Start(0) {
                self.1 = Cursor::new(self.0.remove(0));
            }
            Ok(0)
        }
    }
    let plan = Plan::compile(&at_least(2, &["a"]), &text_columns(&["a", "b"]), Format::Csv, Arc::new(Fixed)).unwrap();
    let run = |second| {
        let source = Changing(vec![second], Cursor::new("a,b\n1,x\n1,x\n2,y\n2,y\n"));
        plan.run_text(source, &mut Vec::new(), &|| false)
    };
    assert_eq!(run("a,b\n1,x\n1,x\n2,y\n2,y\n").unwrap().records, 4);
    for other in ["a,b\n1,x\n2,y\n2,y\n", "a,b\n1,x\n1,x\n2,y\n3,y\n", "a,b\n"] {
        assert!(matches!(run(other), Err(TransformError::Changed)), "{other:?}");
    }
}

#[test]
fn a_plan_can_go_to_another_thread() {
    fn sent<T: Send>(_: &T) {}
    sent(
        &Plan::compile(&rules(&[("a", ColumnRule::Year)]), &text_columns(&["a"]), Format::Csv, Arc::new(Fixed))
            .unwrap(),
    );
}

/// A CSV of any length that is made while it is read; counts how far a reader ran ahead of the writer.
struct Endless {
    rows: u64,
    at: u64,
    pending: Vec<u8>,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.pending.len() < buffer.len() && self.at < self.rows {
            let line = if self.at == 0 { "a,b\n".to_owned() } else { format!("{},{}\n", self.at, self.at % 7) };
            self.pending.extend_from_slice(line.as_bytes());
            self.at += 1;
        }
        let taken = buffer.len().min(self.pending.len());
        buffer[..taken].copy_from_slice(&self.pending[..taken]);
        self.pending.drain(..taken);
        Ok(taken)
    }
}

impl Seek for Endless {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        (self.at, self.pending) = (0, Vec::new());
        Ok(0)
    }
}

#[test]
fn a_long_source_is_streamed() {
    struct Ahead<'a>(&'a std::cell::Cell<u64>, u64);
    impl io::Write for Ahead<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += bytes.len() as u64;
            self.0.set(self.1);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    struct Watched<'a>(Endless, &'a std::cell::Cell<u64>, u64, &'a std::cell::Cell<u64>);
    impl Read for Watched<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = self.0.read(buffer)?;
            self.2 += read as u64;
            self.3.set(self.3.get().max(self.2.saturating_sub(self.1.get())));
            Ok(read)
        }
    }
    impl Seek for Watched<'_> {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }
    let (written, ahead) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let plan = Plan::compile(
        &rules(&[("b", ColumnRule::ShowFirst(1))]),
        &text_columns(&["a", "b"]),
        Format::Csv,
        Arc::new(Fixed),
    )
    .unwrap();
    let source = Watched(Endless { rows: 1_000_000, at: 0, pending: vec![] }, &written, 0, &ahead);
    let outcome = plan.run_text(source, &mut Ahead(&written, 0), &|| false).unwrap();
    assert_eq!(outcome.records, 999_999);
    assert!(ahead.get() < 2 << 20, "{} bytes were held", ahead.get());
    let stopped = plan.run_text(Endless { rows: u64::MAX, at: 0, pending: vec![] }, &mut io::sink(), &|| true);
    assert!(matches!(stopped, Err(TransformError::Stopped)));
}

fn table() -> impl Strategy<Value = Vec<[String; 3]>> {
    let cell =
        || prop::sample::select(vec!["", "a", "b", "ab", "x,y", "q\"q", "line\nbreak", "é"]).prop_map(str::to_owned);
    prop::collection::vec([cell(), cell(), cell()], 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn small_groups_never_leave_and_untouched_cells_stay(rows in table(), k in 2_u64..6, limit in prop::option::of(1_u64..50),
            rule in prop::option::of(prop::sample::select(vec![ColumnRule::Redact, ColumnRule::ShowFirst(1), ColumnRule::Drop])),
            grouped in prop::collection::btree_set(prop::sample::select(vec!["a", "b"]), 1..3)) {
        let columns = text_columns(&["a", "b", "c"]);
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["a", "b", "c"]).unwrap();
        rows.iter().for_each(|row| writer.write_record(row).unwrap());
        let data = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let obligations = Obligations {
            columns: rule.map(|rule| ("a".to_owned(), rule)).into_iter().collect::<BTreeMap<_, _>>(),
            limit,
            at_least: Some(AtLeast { k, columns: grouped.iter().map(|name| (*name).to_owned()).collect() }),
            ..Obligations::default()
        };
        let (out, outcome) = run(&obligations, &columns, &data).unwrap();
        let again = run(&obligations, &columns, &data).unwrap();
        prop_assert_eq!((&out, outcome), (&again.0, again.1), "the same bytes each time: a stream can be resumed");
        let places: Vec<usize> = grouped.iter().filter_map(|name| out[0].iter().position(|column| column == name)).collect();
        let mut groups: HashMap<Vec<&str>, u64> = HashMap::new();
        for row in &out[1..] {
            *groups.entry(places.iter().map(|place| row[*place].as_str()).collect()).or_default() += 1;
        }
        prop_assert!(groups.values().all(|count| *count >= k), "{groups:?}");
        // a subsequence of the rows, with `c` as it was
        let c = out[0].iter().position(|column| column == "c").unwrap();
        let mut originals = rows.iter();
        for row in &out[1..] {
            prop_assert!(originals.any(|original| original[2] == row[c]));
        }
    }
}
