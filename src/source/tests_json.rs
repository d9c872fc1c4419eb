//! JSON Lines and JSON arrays: strict, and never a value in an error.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::policy::{Column, ColumnKind, Columns};

fn columns(names: &[&str]) -> Columns {
    Columns::new(names.iter().map(|name| Column { name: (*name).into(), kind: ColumnKind::Text }).collect()).unwrap()
}

fn read(text: &[u8], array: bool, names: &[&str]) -> Result<Vec<Vec<String>>, String> {
    let mut rows = Vec::new();
    let columns = columns(names);
    let mut json = Json::new(Cursor::new(text), array, Some(&columns), false);
    let mut scratch = String::new();
    while json.fill().map_err(|error| error.to_string())? {
        json.each(|row| {
            let texts = (0..names.len()).map(|place| Ok(row.text(place, &mut scratch)?.to_owned()));
            rows.push(texts.collect::<Result<_, Broken>>()?);
            Ok::<_, Broken>(true)
        })
        .map_err(|error| error.to_string())?;
    }
    Ok(rows)
}

fn lines(text: &str) -> Result<Vec<Vec<String>>, String> {
    read(text.as_bytes(), false, &["a", "b"])
}

fn array(text: &str) -> Result<Vec<Vec<String>>, String> {
    read(text.as_bytes(), true, &["a", "b"])
}

#[test]
fn a_value_has_the_text_that_it_was_written_with() {
    let rows =
        lines("\u{feff}{\"b\":\"x\\ny\",\"a\":1.50}\r\n\n  {\"\\u0061\":null}\n{\"a\":true,\"b\":\"\"}").unwrap();
    assert_eq!(rows, [["1.50", "x\ny"], ["", ""], ["true", ""]]);
    let rows = array(" [ {\"a\":\"]}\\\"\" , \"b\":1e5},\n{} ] \n").unwrap();
    assert_eq!(rows, [["]}\"", "1e5"], ["", ""]]);
    assert_eq!(array("[]"), Ok(vec![]));
    assert_eq!(lines(""), Ok(vec![]));
}

#[test]
fn what_is_no_flat_record_is_named_and_no_value_is_told() {
    for (text, words) in [
        ("{\"a\":1}\n{\"a\":\"secret\",\"c\":\"secret\"}", "row 2 (line 2) has a member `c` that is no column"),
        ("{\"a\":\"secret\",\"a\":2}", "row 1 (line 1) has the member `a` twice"),
        ("{\"a\":{\"x\":\"secret\"}}", "row 1 (line 1), column `a` holds an object or an array"),
        ("{\"a\":[\"secret\"]}", "column `a` holds an object or an array"),
        ("\n\"secret\"", "row 1 (line 2) is not a JSON object"),
        ("[\"secret\"]", "is not a JSON object"),
        ("{\"a\":\"secret\"} {\"a\":1}", "row 1 (line 1) is not one valid JSON value: see its byte"),
        ("{\"a\":secret}", "is not one valid JSON value"),
        ("{\"a\":\"secret\"", "is not one valid JSON value"),
        ("{\"a\":01}", "is not one valid JSON value"),
        ("{\"a\":\"\\ud800secret\"}", "row 1, column `a` holds a value that can't be written as text"),
    ] {
        let error = lines(text).unwrap_err();
        assert!(error.contains(words) && !error.contains("secret"), "{text}: {error}");
    }
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat((1 << 20) + 1));
    assert!(lines(&long).unwrap_err().contains("row 1 (line 1), column `a` has more than"));
    let endless = format!("{{\"a\":\"{}", "x".repeat(9 << 20));
    assert!(lines(&endless).unwrap_err().contains("the row that begins in line 1 has more than"));
    assert!(array(&format!("[{endless}")).unwrap_err().contains("the row that begins in line 1 has more than"));
    assert!(read(b"{\"a\":\"\xff\"}", false, &["a"]).unwrap_err().contains("is not one valid JSON value"));
}

#[test]
fn an_array_is_whole_or_refused() {
    for (text, words) in [
        ("", "there is nothing"),
        ("{\"a\":1}", "does not begin with `[`"),
        ("[{\"a\":1}", "it is cut off"),
        ("[{\"a\":1}\n{\"a\":2}]", "line 2: not a JSON array of objects: `,` or `]` is missing"),
        ("[{\"a\":1},]", "an element is not an object"),
        ("[,{\"a\":1}]", "an element is not an object"),
        ("[1]", "an element is not an object"),
        ("[{\"a\":1}] x", "something follows"),
        ("[{\"a\":1}", "cut off"),
        ("[{\"a\":\"1", "not one valid JSON value"),
    ] {
        let error = array(text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn columns_are_the_members_in_the_order_of_their_appearance() {
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let roots = Roots::new(vec![folder.path().to_owned()], home.path()).unwrap();
    let header_of = |text: &str, format| {
        std::fs::write(folder.path().join("x"), text).unwrap();
        header(&roots.open("x").unwrap(), format).map_err(|error| error.to_string())
    };
    let seen = |text: &str, format| -> Vec<(String, ColumnKind)> {
        header_of(text, format).unwrap().iter().map(|column| (column.name.clone(), column.kind)).collect()
    };
    let text = "{\"b\":1,\"a\":\"2024-02-29\"}\n{\"c\":true,\"b\":2.5}\n";
    let expected = [("b", ColumnKind::Number), ("a", ColumnKind::Date), ("c", ColumnKind::Boolean)];
    let expected: Vec<_> = expected.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
    assert_eq!(seen(text, Format::JsonLines), expected);
    assert_eq!(seen(&format!("[{}]", text.trim().replace('\n', ",")), Format::Json), expected);
    assert!(header_of("", Format::JsonLines).unwrap_err().contains("no columns"));
    assert!(header_of("{\"a\":{}}", Format::JsonLines).unwrap_err().contains("column `a` holds an object"));
    // a sample that is cut inside a record
    let wide = format!("{{\"a\":\"{}\"}}\n", "x".repeat(100_000)).repeat(200);
    assert_eq!(seen(&wide, Format::JsonLines).len(), 1);
    assert_eq!(seen(&format!("[{}]", wide.trim().replace('\n', ",")), Format::Json).len(), 1);
}

proptest! {
    #[test]
    fn whatever_serde_writes_is_read_as_it_was(rows in prop::collection::vec(("[a\"\\\\{}\\[\\],\né]{0,9}", any::<i32>()), 0..9), pretty: bool) {
        let values: Vec<_> = rows.iter().map(|(a, b)| serde_json::json!({"a": a, "b": b})).collect();
        let expected: Vec<_> = rows.iter().map(|(a, b)| vec![a.clone(), b.to_string()]).collect();
        let text = if pretty { serde_json::to_string_pretty(&values) } else { serde_json::to_string(&values) }.unwrap();
        prop_assert_eq!(array(&text), Ok(expected.clone()));
        let text: String = values.iter().map(|value| format!("{value}\n")).collect();
        prop_assert_eq!(lines(&text), Ok(expected));
    }

    #[test]
    fn whatever_comes_there_is_no_panic(text in "[\\[\\]{}\",:a1\\\\\n ]{0,40}") {
        let _ = (lines(&text), array(&text));
    }
}
