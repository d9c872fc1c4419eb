//! A window over a stream, in which whole records lie.

use std::io::{self, Read};

use crate::source::broken::{Broken, MAX_RECORD};

/// What is read at a time.
const BLOCK: usize = 256 << 10;

/// Bytes that were read and not yet consumed; grows only for a record that is longer than a block.
pub struct Window<R> {
    input: R,
    bytes: Vec<u8>,
    start: usize,
    filled: usize,
    ended: bool,
    at_start: bool,
}

impl<R: Read> Window<R> {
    pub fn new(input: R) -> Self {
        Self { input, bytes: vec![0; BLOCK], start: 0, filled: 0, ended: false, at_start: true }
    }

    /// Reads until the window is full or the source at its end; false if there is nothing more. `line` is where the
    /// unconsumed record begins.
    pub fn fill(&mut self, line: u64) -> Result<bool, Broken> {
        let rest = self.filled - self.start;
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.filled, 0);
            (self.start, self.filled) = (0, rest);
        }
        if rest > MAX_RECORD {
            return Err(Broken::RecordTooLong(line));
        }
        if rest == self.bytes.len() {
            self.bytes.resize((rest * 2).min(MAX_RECORD + BLOCK), 0);
        }
        while !self.ended && self.filled < self.bytes.len() {
            match self.input.read(&mut self.bytes[self.filled..]) {
                Ok(0) => self.ended = true,
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if std::mem::take(&mut self.at_start) && self.bytes[..self.filled].starts_with(b"\xef\xbb\xbf") {
            self.start = 3; // a byte order mark is no part of the data
        }
        Ok(self.start < self.filled)
    }

    /// What is there, and whether nothing follows it.
    pub fn bytes(&self) -> (&[u8], bool) {
        (&self.bytes[self.start..self.filled], self.ended)
    }

    pub const fn consume(&mut self, bytes: usize) {
        self.start += bytes;
    }
}

/// The longest prefix that is UTF-8.
pub fn valid_text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}
