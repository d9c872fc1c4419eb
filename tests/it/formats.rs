//! One table in four formats: published, agreed upon, released under the same obligations, used.

use std::{fs, sync::Arc};

use arrow_array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, cast::AsArray as _, types::Float64Type,
};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use serde_json::Value;

use crate::house::{House, paired};

const POLICY: &str = r#"
@id("look") permit (principal, action in [Action::"discover", Action::"negotiate"], resource);
@id("get")
@during("hash(name); band(age, 10); filter(age >= 20); drop(note)")
permit (principal, action == Action::"release", resource) when { context.purpose == "research" };
@id("read") permit (principal, action == Action::"read", resource) when { context.purpose == "research" };
"#;

/// Published under the name of its format, fetched, used: what the consumer's application reads.
fn walked(hospital: &House, research: &House, format: &str, bytes: &[u8]) -> Vec<u8> {
    fs::write(hospital.data(format), bytes).unwrap();
    hospital.write("people.cedar", POLICY);
    let offer = hospital.write(
        "offer.toml",
        &format!(
            "id = \"{format}\"\n[dataset]\nid = \"people-{format}\"\ntitle = \"People\"\nsource = \"{format}\"\n\
             format = \"{format}\"\n[policy]\nfile = \"people.cedar\"\n[audience]\nsealed_for = [\"{}\"]\n",
            research.did
        ),
    );
    let published = hospital.json(&["offer", "publish", &offer]);
    let columns: Vec<&str> =
        published["columns"].as_array().unwrap().iter().map(|column| column["kind"].as_str().unwrap()).collect();
    assert_eq!(columns, ["text", "integer", "number", "text"], "{format}");
    let dataset = format!("people-{format}");
    let agreement = research.json(&["negotiate", &hospital.did, &dataset])["agreement"].as_str().unwrap().to_owned();
    assert_eq!(research.json(&["fetch", &agreement, "--purpose", "research"])["event"], "opened");
    research.run(&["use", &dataset, "--purpose", "research"]).stdout
}

#[test]
fn every_format_is_released_as_itself_and_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (hospital, research) = paired(folder.path());
    let people = [("Ana", 38, 1.5), ("Bo", 7, 2.0), ("Çelik", 61, 0.25)];
    let object = |(name, age, weight): &(&str, i64, f64)| {
        format!("{{\"name\":\"{name}\",\"age\":{age},\"weight\":{weight},\"note\":\"x\"}}")
    };
    let objects: Vec<String> = people.iter().map(object).collect();

    let lines = walked(&hospital, &research, "jsonl", (objects.join("\n") + "\n").as_bytes());
    let lines: Vec<Value> =
        String::from_utf8(lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["age"], &lines[0]["weight"], lines[0].get("note")), (&"30-39".into(), &1.5.into(), None));
    assert_eq!(lines[0]["name"].as_str().unwrap().len(), 22);

    let array = walked(&hospital, &research, "json", format!("[{}]", objects.join(",")).as_bytes());
    let array: Vec<Value> = serde_json::from_slice(&array).unwrap();
    assert_eq!(array[1]["age"], "60-69");

    let columns: [(&str, ArrayRef); 4] = [
        ("name", Arc::new(StringArray::from_iter_values(people.iter().map(|person| person.0)))),
        ("age", Arc::new(Int64Array::from_iter_values(people.iter().map(|person| person.1)))),
        ("weight", Arc::new(Float64Array::from_iter_values(people.iter().map(|person| person.2)))),
        ("note", Arc::new(StringArray::from(vec!["x"; 3]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let released = bytes::Bytes::from(walked(&hospital, &research, "parquet", &bytes));
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(released).unwrap().build().unwrap();
    let batch = reader.next().unwrap().unwrap();
    let names: Vec<String> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!((names, batch.num_rows()), (vec!["name".into(), "age".into(), "weight".into()], 2));
    assert_eq!(batch.column(1).as_string::<i32>().value(1), "60-69");
    assert_eq!(batch.column(2).as_primitive::<Float64Type>().value(1), 0.25);
}
