//! `watermark`: a keyed mark in the last digits of a column, so that a leaked copy names its recipient.
//!
//! After Agrawal and Kiernan. HMAC-SHA-256 under a key of this recipient and column, over the values by which a row is
//! known, says whether the row is marked, and with which bit; the parity of the number's last digit is that bit. Who
//! doesn't know the key sees digits that differ by one from others that nobody has.

use ring::hmac;

use crate::{
    policy::{ColumnRule, Obligations},
    source::{Decimal, Row},
    transform::{
        HashKey, TransformError,
        plan::{Made, Output},
    },
};

/// Of so many rows one is marked.
const ONE_IN: u8 = 4;

/// A mark ready to be made.
pub struct Mark {
    seal: Seal,
    /// The marked column, among those that come out.
    column: usize,
    /// Those by which a row is known.
    keys: Vec<usize>,
}

/// What a mark is computed with.
pub struct Seal(hmac::Key);

impl Seal {
    /// The mark of this column. No `hash` has this domain: none begins with a zero byte (see [`Rule::new`]).
    pub fn new(hash: &dyn HashKey, column: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &hash.key(&format!("\0watermark\0{column}"))))
    }

    /// Begins a row.
    pub fn row(&self) -> hmac::Context {
        hmac::Context::with_key(&self.0)
    }
}

/// Adds a key's value to a row, with its length.
pub fn add(row: &mut hmac::Context, value: &str) {
    row.update(&(value.len() as u64).to_be_bytes());
    row.update(value.as_bytes());
}

/// The bit of a row that is marked, and what tells it from rows of other values.
pub fn marked(row: hmac::Context) -> Option<(bool, [u8; 16])> {
    let tag = row.sign();
    let (chosen, rest) = tag.as_ref().split_first()?;
    let (bit, rest) = rest.split_first()?;
    let id = rest.first_chunk::<16>()?;
    (chosen % ONE_IN == 0).then_some((bit & 1 == 1, *id))
}

/// The parity of a number's last digit.
pub fn parity(number: &str) -> Option<bool> {
    Decimal::parse(number)?;
    number.bytes().next_back().map(|digit| digit & 1 == 1)
}

/// The number with the last digit moved by at most one, so that its parity is the bit. As many digits as before, and
/// the same sign; behind a point never to zero, which other programs leave out.
fn moved(number: &str, bit: bool) -> Option<String> {
    if parity(number)? == bit {
        return Some(number.to_owned());
    }
    let (rest, last) = number.split_at(number.len() - 1);
    let digit = last.bytes().next()?;
    let digit = if digit == b'1' && rest.contains('.') { b'2' } else { digit ^ 1 };
    Some(format!("{rest}{}", char::from(digit)))
}

impl Mark {
    /// The marks that obligations demand.
    ///
    /// # Errors
    /// [`TransformError::Watermark`] where another obligation would break one.
    pub fn of(obligations: &Obligations, output: &[Output], hash: &dyn HashKey) -> Result<Vec<Self>, TransformError> {
        let mut marks = Vec::new();
        for (column, keys) in &obligations.watermark {
            let broken_by = |problem: String| TransformError::Watermark { column: column.clone(), problem };
            let place = |name: &str| {
                let found = output.iter().position(|output| output.name == name);
                found.ok_or_else(|| broken_by(format!("column `{name}` is not released")))
            };
            let at = place(column)?;
            match obligations.columns.get(column) {
                None | Some(ColumnRule::Round(_)) => {}
                Some(_) => return Err(broken_by("another obligation than `round` changes it".into())),
            }
            if obligations.at_least.as_ref().is_some_and(|at_least| at_least.columns.contains(column)) {
                return Err(broken_by("`at_least` groups by it, and moved digits would break the groups".into()));
            }
            if keys.is_empty() {
                return Err(broken_by("it names no column by which a row is known".into()));
            }
            if let Some(marked) = keys.iter().find(|key| obligations.watermark.contains_key(*key)) {
                return Err(broken_by(format!("column `{marked}`, by which a row is known, is marked itself")));
            }
            let blank =
                |key: &&String| matches!(obligations.columns.get(*key), Some(ColumnRule::Redact | ColumnRule::Nullify));
            if let Some(key) = keys.iter().find(blank) {
                return Err(broken_by(format!(
                    "column `{key}` is the same in each row, so that no row is known by it"
                )));
            }
            let keys = keys.iter().map(|key| place(key)).collect::<Result<_, _>>()?;
            marks.push(Self { seal: Seal::new(hash, column), column: at, keys });
        }
        Ok(marks)
    }

    /// Marks a row that leaves, if it is one to be marked.
    pub fn apply<R: Row>(
        &self,
        output: &[Output],
        row: &R,
        made: &mut Made,
        scratch: &mut String,
    ) -> Result<(), TransformError> {
        let mut known = self.seal.row();
        for key in &self.keys {
            add(&mut known, made.released(*key, output, row, scratch)?);
        }
        let number = made.released(self.column, output, row, scratch)?;
        if number.is_empty() {
            return Ok(());
        }
        // also where the row is not to be marked: what is no number is found out at its first row
        let wrong = || TransformError::Value {
            row: row.number(),
            column: output[self.column].name.clone(),
            obligation: "watermark",
            needs: "a number",
        };
        let odd = parity(number).ok_or_else(wrong)?;
        if let Some((bit, _)) = marked(known)
            && bit != odd
        {
            let number = moved(number, bit).ok_or_else(wrong)?;
            made.mark(self.column, &number);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_digit_moves_by_at_most_one_and_nothing_else_does() {
        for (number, even, odd) in [
            ("0", "0", "1"),
            ("9", "8", "9"),
            ("12.8", "12.8", "12.9"),
            ("12.1", "12.2", "12.1"),
            ("-3", "-2", "-3"),
            ("3.0", "3.0", "3.1"),
            ("007", "006", "007"),
            ("+1", "+0", "+1"),
        ] {
            assert_eq!(moved(number, false).as_deref(), Some(even), "{number}");
            assert_eq!(moved(number, true).as_deref(), Some(odd), "{number}");
        }
        for wrong in ["", "x", "1e5", "1.", "NaN"] {
            assert_eq!(moved(wrong, true), None, "{wrong}");
        }
    }
}
