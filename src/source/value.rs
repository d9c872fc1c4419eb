//! What a cell's text can be: a decimal number, a date.

use std::cmp::Ordering;

/// A decimal number exactly as it is written: `[+-]digits[.digits]`, of any length. Reading one rounds nothing.
#[derive(Clone, Copy, Debug)]
pub struct Decimal<'a> {
    /// Never for zero.
    negative: bool,
    /// Without leading zeros; empty below one.
    whole: &'a str,
    /// Without trailing zeros.
    fraction: &'a str,
}

impl<'a> Decimal<'a> {
    /// Reads; `None` for what is no such number: an exponent, a lone point, digits of another script.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (signed, digits) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (digits, ""),
        };
        if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        Some(Self { negative: signed && !(whole.is_empty() && fraction.is_empty()), whole, fraction })
    }

    /// The largest integer that is not larger; `None` beyond 30 digits.
    pub fn floor(&self) -> Option<i128> {
        let whole: i128 = match self.whole.len() {
            0 => 0,
            1..=30 => self.whole.parse().ok()?,
            _ => return None,
        };
        Some(match (self.negative, self.fraction.is_empty()) {
            (false, _) => whole,
            (true, true) => -whole,
            (true, false) => -whole - 1,
        })
    }

    /// Writes it with exactly that many places (negative: tens, hundreds), halves away from zero. `scratch` is only
    /// room to work in.
    pub fn round_into(&self, places: i32, out: &mut String, scratch: &mut Vec<u8>) {
        self.rounded_digits(places, scratch);
        let (nothing, places_shown) = (scratch.is_empty(), usize::try_from(places).unwrap_or(0));
        if self.negative && !nothing {
            out.push('-');
        }
        let missing = (places_shown + 1).saturating_sub(scratch.len());
        let point = (missing + scratch.len()) - places_shown;
        let zeros = std::iter::repeat_n(b'0', missing);
        for (at, digit) in zeros.chain(scratch.iter().copied()).enumerate() {
            if at == point {
                out.push('.');
            }
            out.push(char::from(digit));
        }
        if places < 0 && !nothing {
            out.extend(std::iter::repeat_n('0', places.unsigned_abs() as usize));
        }
    }

    /// The digits of the number times ten to `places`, rounded; no leading zeros, so none for zero.
    fn rounded_digits(&self, places: i32, digits: &mut Vec<u8>) {
        digits.clear();
        let written = || self.whole.bytes().chain(self.fraction.bytes());
        let length = self.whole.len() + self.fraction.len();
        // beyond what fits, nothing is kept: the number is smaller than half a unit
        let Ok(kept) = usize::try_from(self.whole.len() as i64 + i64::from(places)) else { return };
        digits.extend(written().take(kept));
        digits.extend(std::iter::repeat_n(b'0', kept.saturating_sub(length)));
        if written().nth(kept).is_some_and(|next| next >= b'5') {
            match digits.iter().rposition(|digit| *digit != b'9') {
                Some(last) => {
                    digits[last] += 1;
                    digits[last + 1..].fill(b'0');
                }
                None => {
                    digits.fill(b'0');
                    digits.insert(0, b'1');
                }
            }
        }
        let leading = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..leading);
    }
}

impl Ord for Decimal<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        // of two whole parts without leading zeros the longer is the larger, and equally long ones compare as text;
        // fractions without trailing zeros always do
        let size = |number: &Self| (number.whole.len(), number.whole, number.fraction);
        match (self.negative, other.negative) {
            (false, false) => size(self).cmp(&size(other)),
            (true, true) => size(other).cmp(&size(self)),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Decimal<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Decimal<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Decimal<'_> {}

/// The floor of a number of at most 18 digits before its point, and whether the number lies above it. `None` for longer
/// numbers too, and for some that [`Decimal::parse`] takes: this is its quick way.
pub fn short_floor(text: &str) -> Option<(i64, bool)> {
    let bytes = text.as_bytes();
    let negative = bytes.first() == Some(&b'-');
    let digits = &bytes[usize::from(negative)..];
    let mut whole = 0_i64;
    let mut above = false;
    for (at, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' if at < 18 => whole = whole * 10 + i64::from(byte - b'0'),
            b'.' if at > 0 => {
                let fraction = &digits[at + 1..];
                if fraction.is_empty() || !fraction.iter().all(u8::is_ascii_digit) {
                    return None;
                }
                above = fraction.iter().any(|digit| *digit != b'0');
                break;
            }
            _ => return None,
        }
    }
    match (digits.is_empty(), negative) {
        (true, _) => None,
        (_, false) => Some((whole, above)),
        (_, true) => Some((-whole - i64::from(above), above)),
    }
}

/// The year of a date: four digits first or last among three numbers parted by `-`, `/` or `.`; a time may follow.
pub fn year_of(value: &str) -> Option<&str> {
    let date = value.split([' ', 'T']).next()?;
    let mut parts = date.split(['-', '/', '.']);
    let (first, middle, last) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let small = |part: &str| {
        matches!(part.len(), 1 | 2) && digits(part) && part.parse().is_ok_and(|number: u8| (1..=31).contains(&number))
    };
    let year = |part: &str| part.len() == 4 && digits(part);
    if !small(middle) {
        return None;
    }
    match (year(first) && small(last), small(first) && year(last)) {
        (true, _) => Some(first),
        (_, true) => Some(last),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(text: &str, places: i32) -> String {
        let mut out = String::new();
        Decimal::parse(text).unwrap().round_into(places, &mut out, &mut Vec::new());
        out
    }

    #[test]
    fn rounding_is_exact_on_the_written_number() {
        for (value, places, expected) in [
            ("1.005", 2, "1.01"),
            ("-1.005", 2, "-1.01"),
            ("2.5", 0, "3"),
            ("-2.5", 0, "-3"),
            ("1.5", 2, "1.50"),
            ("7", 2, "7.00"),
            ("1234", -2, "1200"),
            ("1250", -2, "1300"),
            ("50", -2, "100"),
            ("49.999", -2, "0"),
            ("5", -3, "0"),
            ("-0.004", 2, "0.00"),
            ("-0.0", 1, "0.0"),
            ("0.1", 1, "0.1"),
            ("0.05", 1, "0.1"),
            ("0.5", 0, "1"),
            ("0.49", 0, "0"),
            ("99.995", 2, "100.00"),
            ("007", 0, "7"),
            ("+1.25", 1, "1.3"),
            ("12345678901234567890123456789012345678.95", 1, "12345678901234567890123456789012345679.0"),
        ] {
            assert_eq!(round(value, places), expected, "{value} to {places}");
        }
    }

    #[test]
    fn what_is_no_decimal_is_not_taken() {
        for wrong in ["1e5", "x", "", "1.2.3", "NaN", "inf", "-", "+", ".", "5.", ".5", "１", " 1", "1 ", "--1", "0x1"]
        {
            assert!(Decimal::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn floors_go_down() {
        for (value, floor) in
            [("39.9", 39), ("-0.5", -1), ("-1", -1), ("-1.0", -1), ("-1.01", -2), ("0", 0), ("-0.00", 0), ("007", 7)]
        {
            assert_eq!(Decimal::parse(value).unwrap().floor(), Some(floor), "{value}");
        }
        assert_eq!(Decimal::parse(&"9".repeat(31)).unwrap().floor(), None);
    }

    #[test]
    fn a_year_is_found_in_dates_and_only_there() {
        for (value, year) in [
            ("17-08-1984", Some("1984")),
            ("2012/01/01", Some("2012")),
            ("1.2.2003", Some("2003")),
            ("2024-02-29T10:00:00Z", Some("2024")),
            ("2024-02-29 10:00", Some("2024")),
            ("1984", None),
            ("1.2.3", None),
            ("127.0.0.1", None),
            ("2024-99-01", None),
            ("2024-+1-01", None),
            ("20-30", None),
            ("1234-5678-9012", None),
            ("", None),
        ] {
            assert_eq!(year_of(value), year, "{value}");
        }
    }

    proptest! {
        #[test]
        fn the_quick_way_takes_nothing_that_the_exact_one_does_not(text in "[-+.0-9a]{0,24}") {
            if let Some((floor, _)) = short_floor(&text) {
                prop_assert_eq!(Decimal::parse(&text).and_then(|number| number.floor()), Some(i128::from(floor)));
            }
        }

        #[test]
        fn decimals_are_ordered_and_rounded_as_integers_are(a in -100_000_i64..100_000, b in -100_000_i64..100_000, zeros in 0_usize..4, places in -6_i32..6) {
            let written = |n: i64| {
                let sign = if n < 0 { "-" } else { "" };
                format!("{sign}{}{}.{:03}{}", "0".repeat(zeros), n.abs() / 1000, n.abs() % 1000, "0".repeat(zeros))
            };
            let (x, y) = (written(a), written(b));
            prop_assert_eq!(Decimal::parse(&x).unwrap().cmp(&Decimal::parse(&y).unwrap()), a.cmp(&b));
            prop_assert_eq!(Decimal::parse(&x).unwrap().floor(), Some(i128::from(a.div_euclid(1000))));
            prop_assert_eq!(short_floor(&x), Some((a.div_euclid(1000), a % 1000 != 0)));
            // the same in integers: thousandths to units of 10^(3 - places)
            let expected = if places >= 3 { a } else {
                let unit = 10_i64.pow((3 - places) as u32);
                (a.abs() + unit / 2) / unit * unit * a.signum()
            };
            let rounded = round(&x, places);
            let wanted = written(expected);
            prop_assert_eq!(Decimal::parse(&rounded).unwrap(), Decimal::parse(&wanted).unwrap());
            let shown = rounded.split_once('.').map_or(0, |(_, fraction)| fraction.len());
            prop_assert_eq!(shown, places.max(0) as usize);
        }
    }
}
