//! What is in a copy: its columns and how many records, read off the plaintext as it passes by.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use serde::{Deserialize, Serialize};

use crate::{source, time::Timestamp};

/// Longest header row that is read.
const MAX_HEADER: usize = 1 << 20;

/// What was seen when a copy was opened first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// Its columns, where its format names them in a header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<BTreeSet<String>>,
    /// Its records, where they can be counted by lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// When the copy arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<Timestamp>,
}

/// Counts records while plaintext is written to it. Constant memory, but for the header row.
#[derive(Debug)]
pub struct Counter {
    layout: Layout,
    quoted: bool,
    /// Whether the present line has anything on it.
    filled: bool,
    lines: u64,
    header: Vec<u8>,
    header_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Csv,
    Lines,
    Other,
}

impl Counter {
    /// A counter for this media type; of one that it can't count it says nothing.
    pub fn of(media_type: &str) -> Self {
        let layout = match media_type {
            "text/csv" => Layout::Csv,
            "application/jsonl" | "application/x-ndjson" => Layout::Lines,
            _ => Layout::Other,
        };
        Self { layout, quoted: false, filled: false, lines: 0, header: Vec::new(), header_over: false }
    }

    /// What was seen, once everything has passed.
    pub fn contents(mut self) -> Contents {
        if self.filled {
            self.lines += 1;
        }
        match self.layout {
            Layout::Other => Contents::default(),
            Layout::Lines => Contents { records: Some(self.lines), ..Contents::default() },
            Layout::Csv => {
                let columns = columns(&self.header);
                Contents { records: Some(self.lines.saturating_sub(1)), columns, arrived: None }
            }
        }
    }

    fn take(&mut self, byte: u8) {
        match byte {
            b'"' if self.layout == Layout::Csv => {
                self.quoted = !self.quoted;
                self.filled = true;
            }
            b'\n' if !self.quoted => {
                self.lines += u64::from(self.filled);
                self.header_over |= self.filled;
                self.filled = false;
            }
            b'\r' => {}
            _ => self.filled = true,
        }
    }
}

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.layout != Layout::Other {
            for byte in bytes {
                if !self.header_over && self.layout == Layout::Csv && self.header.len() < MAX_HEADER {
                    self.header.push(*byte);
                }
                self.take(*byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn columns(header: &[u8]) -> Option<BTreeSet<String>> {
    let names = source::header_names(header).filter(|names| !names.is_empty())?;
    Some(names.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(media_type: &str, pieces: &[&str]) -> (Option<Vec<String>>, Option<u64>) {
        let mut counter = Counter::of(media_type);
        for piece in pieces {
            counter.write_all(piece.as_bytes()).unwrap();
        }
        let contents = counter.contents();
        (contents.columns.map(|columns| columns.into_iter().collect()), contents.records)
    }

    #[test]
    fn records_are_counted_outside_quotes_however_the_bytes_are_cut() {
        let columns = Some(vec!["a,b".to_owned(), "id".to_owned()]);
        let whole = "id,\"a,b\"\r\n1,\"x\ny\"\r\n\r\n2,\"say \"\"hi\"\"\n\"\n3,z";
        assert_eq!(seen("text/csv", &[whole]), (columns.clone(), Some(3)));
        let cut: Vec<String> = whole.chars().map(String::from).collect();
        assert_eq!(seen("text/csv", &cut.iter().map(String::as_str).collect::<Vec<_>>()), (columns, Some(3)));
        assert_eq!(seen("text/csv", &["id\n"]), (Some(vec!["id".to_owned()]), Some(0)));
    }

    #[test]
    fn what_has_no_lines_is_not_counted_and_quotes_mean_nothing_in_json_lines() {
        assert_eq!(seen("application/jsonl", &["{\"a\":1}\n{\"a\":\"", "\\\"\"}\n"]), (None, Some(2)));
        assert_eq!(seen("application/vnd.apache.parquet", &["a\nb\n"]), (None, None));
        assert_eq!(seen("application/json", &["[{},\n{}]"]), (None, None));
    }
}
