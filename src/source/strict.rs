//! RFC 4180 as it is written, beside the lenient parser.
//!
//! The `csv` crate reads a quote that is never closed, or one in the middle of a field, in its own way. A reader that
//! guesses where a cell ends may carry the raw cells of later rows inside one that no obligation touches. So the bytes
//! pass here first, and what has two readings is refused. Here too a row is kept from filling the memory.

use std::io::{self, Read};

/// Longest row, in bytes as they are written.
const MAX_ROW: usize = 8 << 20;

/// Why bytes don't go through. Travels inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// A quote where none can be.
    #[error("line {0}: a quote inside a field that is not quoted (RFC 4180: quote the field, and double the quote)")]
    Quote(u64),
    /// Something between a closing quote and the field's end.
    #[error("line {0}: text after a field's closing quote (RFC 4180: inside a quoted field, double each quote)")]
    AfterQuote(u64),
    /// The end, inside quotes.
    #[error("the file ends inside a quoted field that begins in line {0}; it is cut off, or a quote is not closed")]
    Open(u64),
    /// A row of more than [`MAX_ROW`] bytes.
    #[error("the row that begins in line {0} has more than {MAX_ROW} bytes; is a quote not closed?")]
    RowTooLong(u64),
}

/// A reader whose bytes are RFC 4180, or an error.
pub struct Strict<R> {
    inner: R,
    state: State,
    /// Lines so far, from 1.
    line: u64,
    /// Where the current row and the current quoted field began.
    row_line: u64,
    quote_line: u64,
    row_bytes: usize,
    at_start: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a field's first byte.
    Start,
    Plain,
    Quoted,
    /// After a quote inside quotes: closed, or the first of two.
    Closing,
}

impl<R: Read> Strict<R> {
    /// Before the header.
    pub const fn new(inner: R) -> Self {
        Self { inner, state: State::Start, line: 1, row_line: 1, quote_line: 1, row_bytes: 0, at_start: true }
    }

    fn check(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let mut rest = bytes;
        // a byte order mark is no field's first byte; in two reads it would be refused before a quote, never misread
        if std::mem::replace(&mut self.at_start, false) {
            rest = rest.strip_prefix(b"\xef\xbb\xbf").unwrap_or(rest);
        }
        if self.state != State::Quoted && self.state != State::Closing && !rest.contains(&b'"') {
            return self.check_plain(rest);
        }
        for byte in rest {
            self.state = match (self.state, byte) {
                (State::Quoted, b'"') => State::Closing,
                (State::Quoted, _) => State::Quoted,
                (State::Closing, b'"') => State::Quoted,
                (_, b',') => State::Start,
                (_, b'\n' | b'\r') => {
                    (self.row_bytes, self.row_line) = (0, self.line + u64::from(*byte == b'\n'));
                    State::Start
                }
                (State::Closing, _) => return Err(Broken::AfterQuote(self.line)),
                (State::Start, b'"') => {
                    self.quote_line = self.line;
                    State::Quoted
                }
                (State::Plain, b'"') => return Err(Broken::Quote(self.line)),
                (State::Start | State::Plain, _) => State::Plain,
            };
            self.line += u64::from(*byte == b'\n');
            self.row_bytes += 1;
            if self.row_bytes > MAX_ROW {
                return Err(Broken::RowTooLong(self.row_line));
            }
        }
        Ok(())
    }

    /// The same for a block without any quote, outside quotes: most blocks of most files.
    fn check_plain(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let Some(last) = bytes.last() else { return Ok(()) };
        self.line += bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        match bytes.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')) {
            Some(end) => (self.row_bytes, self.row_line) = (bytes.len() - end - 1, self.line),
            None => self.row_bytes += bytes.len(),
        }
        if self.row_bytes > MAX_ROW {
            return Err(Broken::RowTooLong(self.row_line));
        }
        self.state = if matches!(last, b',' | b'\n' | b'\r') { State::Start } else { State::Plain };
        Ok(())
    }
}

impl<R: Read> Read for Strict<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let checked = match (read, self.state) {
            (0, State::Quoted) if !buffer.is_empty() => Err(Broken::Open(self.quote_line)),
            _ => self.check(&buffer[..read]),
        };
        checked.map(|()| read).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives out so many bytes at a time, after a first block of three.
    struct Blocks<'a>(&'a [u8], usize);

    impl Read for Blocks<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let taken = self.1.min(self.0.len()).min(buffer.len());
            buffer[..taken].copy_from_slice(&self.0[..taken]);
            self.0 = &self.0[taken..];
            Ok(taken)
        }
    }

    fn read(bytes: &[u8], block: usize) -> Result<(), String> {
        let mut out = Vec::new();
        Strict::new(Blocks(bytes, block)).read_to_end(&mut out).map_err(|error| error.to_string())?;
        assert_eq!(out, bytes);
        Ok(())
    }

    #[test]
    fn what_has_one_reading_passes_and_what_has_two_does_not() {
        for fine in ["", "a,b\n1,2\n", "a,b\r\n\"x\"\"y\",\"1\n2,3\"\r\n", "\u{feff}\"a\",b\n,\n", "a\n\"\"", "a\n\n1"]
        {
            for block in [3, 4, 1000] {
                assert_eq!(read(fine.as_bytes(), block), Ok(()), "{fine:?}");
            }
        }
        for (wrong, words) in [
            ("a,b\n1,5\" pipe\n", "line 2: a quote inside a field"),
            ("a,b\n\"x\ny\" z,2\n", "line 3: text after a field's closing quote"),
            ("a,b\n1,\"2\n3,4\n5,6\n", "a quoted field that begins in line 2"),
            ("a,b\n1,\"2\n3,4\n5,\"6\"\n", "line 4: text after"),
        ] {
            for block in [3, 4, 1000] {
                let error = read(wrong.as_bytes(), block).unwrap_err();
                assert!(error.contains(words), "{error}");
            }
        }
    }

    #[test]
    fn a_row_does_not_fill_the_memory() {
        for filler in ["x", "x,", "\"\","] {
            let mut long = b"a\n1\n".to_vec();
            long.extend(filler.bytes().cycle().take(MAX_ROW + 10));
            assert!(read(&long, 1 << 16).unwrap_err().contains("begins in line 3 has more than"));
            long.truncate(4 + (MAX_ROW - 10) / filler.len() * filler.len());
            long.extend_from_slice(b"\nx\n");
            assert!(read(&long, 1 << 16).is_ok(), "{filler}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_careful_writer_writes_passes(rows in prop::collection::vec(prop::collection::vec("[ab,\"\r\né]{0,4}", 3), 0..8), block in 3_usize..40) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            rows.iter().for_each(|row| writer.write_record(row).unwrap());
            prop_assert_eq!(read(&writer.into_inner().unwrap(), block), Ok(()));
        }

        #[test]
        fn blocks_make_no_difference(bytes in "[ab,\"\n]{0,30}", block in 3_usize..9) {
            prop_assert_eq!(read(bytes.as_bytes(), block), read(bytes.as_bytes(), 1000));
        }
    }
}
