//! Parquet: what is handled, what is refused, and files that want to hurt.

use std::sync::Arc;

use ::parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding},
    file::properties::{WriterProperties, WriterVersion},
};
use arrow_array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    Time64MicrosecondArray, types::Int32Type,
};
use proptest::prelude::*;

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn file(batch: &RecordBatch, properties: WriterProperties) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn read(bytes: Vec<u8>) -> Result<Vec<Vec<String>>, Broken> {
    let parquet = Parquet::open(Arc::new(bytes))?;
    let all: Vec<usize> = (0..parquet.columns().len()).collect();
    let mut batches = parquet.batches(&all)?;
    let (mut rows, mut scratch) = (Vec::new(), String::new());
    while batches.fill()? {
        batches.each(|row| {
            let texts = all.iter().map(|place| Ok(row.text(*place, &mut scratch)?.to_owned()));
            rows.push(texts.collect::<Result<_, Broken>>()?);
            Ok::<_, Broken>(true)
        })?;
    }
    Ok(rows)
}

fn error(bytes: Vec<u8>) -> String {
    read(bytes).unwrap_err().to_string()
}

fn sample() -> RecordBatch {
    let texts = (0..3000).map(|n| (n % 7 != 0).then(|| format!("text {}", n % 100)));
    let numbers = (0..3000).map(|n| (n % 5 != 0).then_some(i64::from(n)));
    batch(vec![("t", Arc::new(StringArray::from_iter(texts))), ("n", Arc::new(Int64Array::from_iter(numbers)))])
}

#[test]
fn every_codec_and_page_version_gives_the_same_rows() {
    let expected = read(file(&sample(), WriterProperties::builder().build())).unwrap();
    assert_eq!(expected.len(), 3000);
    assert_eq!((&expected[0], &expected[1]), (&vec![String::new(), String::new()], &vec!["text 1".into(), "1".into()]));
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
            for dictionary in [true, false] {
                let properties = WriterProperties::builder()
                    .set_writer_version(version)
                    .set_compression(compression)
                    .set_dictionary_enabled(dictionary)
                    .set_encoding(Encoding::PLAIN)
                    .set_max_row_group_size(700)
                    .set_data_page_row_count_limit(100)
                    .build();
                assert_eq!(read(file(&sample(), properties)).unwrap(), expected, "{version:?} {compression}");
            }
        }
    }
}

/// Files that pyarrow wrote: `examples/data` has none, so they lie here. How: see the script beside them.
#[test]
fn files_of_other_writers_are_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parquet");
    let expected = std::fs::read_to_string(folder.join("table.csv")).unwrap();
    let mut reader = ::csv::ReaderBuilder::new().from_reader(expected.as_bytes());
    let rows: Vec<Vec<String>> = reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
    for name in ["zstd", "gzip", "snappy-v2", "plain", "polars"] {
        let bytes = std::fs::read(folder.join(format!("{name}.parquet"))).unwrap();
        assert_eq!(read(bytes).unwrap(), rows, "{name}");
    }
    for name in ["lz4", "brotli"] {
        let error = error(std::fs::read(folder.join(format!("{name}.parquet"))).unwrap());
        assert!(error.contains("is not handled; use snappy, zstd or gzip"), "{name}: {error}");
    }
}

#[test]
fn columns_that_are_not_flat_or_have_no_text_are_refused_by_name_and_type() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1)])]);
    let inner: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let structure = StructArray::try_from(vec![("x", inner)]).unwrap();
    let columns: [(ArrayRef, &str); 4] = [
        (Arc::new(list), "nested"),
        (Arc::new(structure), "nested"),
        (Arc::new(BinaryArray::from(vec![&b"\xff"[..]])), "BYTE_ARRAY"),
        (Arc::new(Time64MicrosecondArray::from(vec![1])), "Time64"),
    ];
    for (array, kind) in columns {
        let error = error(file(&batch(vec![("odd", array)]), WriterProperties::builder().build()));
        assert!(error.contains("column `odd` is of the Parquet type") && error.contains(kind), "{error}");
    }
}

#[test]
fn a_page_that_unpacks_to_more_than_it_says_or_than_the_cap_is_refused() {
    // one value of 65 MiB: in a page of its own, of more than the cap
    let huge: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(65 << 20)]));
    let plain =
        |compression| WriterProperties::builder().set_dictionary_enabled(false).set_compression(compression).build();
    for compression in [Compression::SNAPPY, Compression::UNCOMPRESSED] {
        let error = error(file(&batch(vec![("t", huge.clone())]), plain(compression)));
        assert!(error.contains("column `t`: a page has more than 67108864 bytes"), "{error}");
    }
    let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat((1 << 20) + 1)]));
    let error = error(file(&batch(vec![("t", long)]), plain(Compression::SNAPPY)));
    assert!(error.contains("row 1, column `t` has more than 1048576 bytes"), "{error}");
}

#[test]
fn a_few_bytes_cannot_stand_for_many_long_texts() {
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..100).map(|n| format!("{}{n}", "x".repeat(1000)))));
    let delta = WriterProperties::builder().set_dictionary_enabled(false).set_encoding(Encoding::DELTA_BYTE_ARRAY);
    let told = error(file(&batch(vec![("t", texts)]), delta.build()));
    assert!(told.contains("column `t`: DELTA_BYTE_ARRAY is not handled"), "{told}");
    // a dictionary's long value in each of many rows is there once
    let repeated: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n("y".repeat(1 << 19), 2000)));
    let parquet =
        Parquet::open(Arc::new(file(&batch(vec![("t", repeated)]), WriterProperties::builder().build()))).unwrap();
    let mut batches = parquet.batches(&[0]).unwrap();
    assert!(batches.fill().unwrap());
    let mut memory = 0;
    batches
        .each(|row| {
            memory = row.batch.get_array_memory_size();
            Ok::<_, Broken>(false)
        })
        .unwrap();
    assert!(memory < 4 << 20, "{memory} bytes for one value");
}

#[test]
fn a_footer_that_promises_too_much_is_refused() {
    let whole = file(&sample(), WriterProperties::builder().build());
    for cut in [0, 3, 11, whole.len() / 2, whole.len() - 1] {
        assert!(error(whole[..cut].to_vec()).contains("the Parquet file can't be read"), "{cut}");
    }
    let mut long = whole.clone();
    let at = long.len() - 8;
    long[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(error(long).contains("footer has 4294967295 bytes"));
    let mut encrypted = whole.clone();
    let at = encrypted.len() - 4;
    encrypted[at..].copy_from_slice(b"PARE");
    assert!(error(encrypted).contains("encrypted"));
    // a list of 2^31 row groups, in a footer of a dozen bytes
    let mut footer = vec![0x15, 2, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07];
    let length = footer.len() as u32;
    footer.splice(0..0, b"PAR1".iter().copied());
    footer.extend(length.to_le_bytes());
    footer.extend(b"PAR1");
    assert!(error(footer).contains("its footer is broken"));
}

/// Each byte of the footer, changed in several ways.
#[test]
fn what_is_read_is_as_much_as_the_footer_says_or_an_error() {
    let texts: ArrayRef = Arc::new(StringArray::from_iter((0..50).map(|n| (n % 3 != 0).then(|| format!("v{n}")))));
    let whole = file(&batch(vec![("t", texts)]), WriterProperties::builder().build());
    let footer = whole.len() - 8 - u32::from_le_bytes(*whole[whole.len() - 8..].first_chunk().unwrap()) as usize;
    let mut refused = 0;
    for at in footer..whole.len() {
        for flip in [1, 2, 8, 0x40] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            let said = Parquet::open(Arc::new(bytes.clone())).and_then(|parquet| parquet.records());
            match (read(bytes), said) {
                (Ok(rows), Ok(said)) => assert_eq!(rows.len() as u64, said, "byte {at} ^ {flip}"),
                (Ok(_), Err(error)) => panic!("{error}"),
                (Err(_), _) => refused += 1,
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_damaged_file_is_an_error_or_other_rows_and_never_the_end(at in 0_usize..1_000_000, value: u8, more in prop::collection::vec((0_usize..1_000_000, any::<u8>()), 0..3)) {
        let texts: ArrayRef = Arc::new(StringArray::from_iter((0..50).map(|n| (n % 3 != 0).then(|| format!("v{n}")))));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..50));
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let mut bytes = file(&batch(vec![("t", texts), ("n", numbers)]), properties);
        for (at, value) in more.into_iter().chain([(at, value)]) {
            let length = bytes.len();
            bytes[at % length] = value;
        }
        let _ = read(bytes);
    }
}
