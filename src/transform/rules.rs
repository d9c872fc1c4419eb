//! What a rule makes of a column.

use arrow_array::{Array as _, StringArray, builder::StringBuilder};
use ring::hmac;

use crate::{crypto::b64, policy::ColumnRule, source::year_of};

/// A rule ready to be applied.
pub enum Rule {
    /// The column goes; its values are never made.
    Drop,
    Redact,
    Nullify,
    Hash(hmac::Key),
    ShowFirst(usize),
    ShowLast(usize),
    Year,
    Band(i128),
    Round(i32),
}

/// A value that the rule can't handle.
pub struct Unfit {
    /// Its place in the batch.
    pub row: usize,
    pub obligation: &'static str,
    pub needs: &'static str,
}

impl Rule {
    pub fn new(rule: &ColumnRule, key: impl FnOnce(&str) -> [u8; 32]) -> Self {
        match rule {
            ColumnRule::Drop => Self::Drop,
            ColumnRule::Redact => Self::Redact,
            ColumnRule::Nullify => Self::Nullify,
            ColumnRule::Hash(domain) => Self::Hash(hmac::Key::new(hmac::HMAC_SHA256, &key(domain))),
            ColumnRule::ShowFirst(count) => Self::ShowFirst(*count as usize),
            ColumnRule::ShowLast(count) => Self::ShowLast(*count as usize),
            ColumnRule::Year => Self::Year,
            ColumnRule::Band(width) => Self::Band(i128::from(*width)),
            ColumnRule::Round(places) => Self::Round(*places),
        }
    }

    /// The column as it is released. An empty value stays empty, but for `redact`, which hides that too.
    pub fn apply(&self, column: &StringArray) -> Result<StringArray, Unfit> {
        let mut out = StringBuilder::with_capacity(column.len(), column.len() * 8);
        let mut text = String::new();
        for (row, value) in column.iter().enumerate() {
            let unfit = |obligation, needs| Unfit { row, obligation, needs };
            let Some(value) = value else {
                match self {
                    Self::Redact => out.append_value("***"),
                    _ => out.append_null(),
                }
                continue;
            };
            text.clear();
            match self {
                Self::Drop | Self::Nullify => {
                    out.append_null();
                    continue;
                }
                Self::Redact => text.push_str("***"),
                Self::Hash(key) => text.push_str(&b64(&hmac::sign(key, value.as_bytes()).as_ref()[..16])),
                Self::ShowFirst(count) => {
                    text.extend(value.chars().enumerate().map(|(at, c)| if at < *count { c } else { '*' }));
                }
                Self::ShowLast(count) => {
                    let hidden = value.chars().count().saturating_sub(*count);
                    text.extend(value.chars().enumerate().map(|(at, c)| if at < hidden { '*' } else { c }));
                }
                Self::Year => text.push_str(year_of(value).ok_or_else(|| unfit("year", "a date"))?),
                Self::Band(width) => {
                    let (whole, fraction, negative) = decimal(value).ok_or_else(|| unfit("band", "a number"))?;
                    let floor = match negative {
                        false => whole,
                        true if fraction.bytes().all(|b| b == b'0') => -whole,
                        true => -whole - 1,
                    };
                    let lower = floor.div_euclid(*width) * width;
                    text.push_str(&format!("{lower}-{}", lower + width - 1));
                }
                Self::Round(places) => {
                    text.push_str(&round(value, *places).ok_or_else(|| unfit("round", "a number"))?);
                }
            }
            out.append_value(&text);
        }
        Ok(out.finish())
    }
}

/// Whole part, fraction digits, and whether it is negative; at most 30 digits.
fn decimal(value: &str) -> Option<(i128, &str, bool)> {
    let (negative, digits) = match value.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, value.strip_prefix('+').unwrap_or(value)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fine = !whole.is_empty() && whole.len() + fraction.len() <= 30;
    if !fine || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((whole.parse().ok()?, fraction, negative))
}

/// Rounds the written decimal, half away from zero, to exactly that many places.
fn round(value: &str, places: i32) -> Option<String> {
    let (_, fraction, negative) = decimal(value)?;
    let digits: String = value.chars().filter(char::is_ascii_digit).collect();
    let mut scaled: i128 = digits.parse().ok()?;
    let mut scale = i32::try_from(fraction.len()).ok()?;
    if scale > places {
        // drop digits in one step: rounding twice would not be rounding
        let unit = 10_i128.checked_pow(u32::try_from(scale - places).ok()?)?;
        scaled = (scaled + unit / 2) / unit;
        scale = places;
    }
    let (whole, part) = if scale > 0 {
        let unit = 10_i128.checked_pow(u32::try_from(scale).ok()?)?;
        (scaled / unit, format!("{:0width$}", scaled % unit, width = scale as usize))
    } else {
        (scaled.checked_mul(10_i128.checked_pow(u32::try_from(-scale).ok()?)?)?, String::new())
    };
    let sign = if negative && scaled != 0 { "-" } else { "" };
    let places = usize::try_from(places).unwrap_or(0);
    Some(if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part:0<places$}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(rule: &ColumnRule, values: &[&str]) -> Vec<String> {
        let column = StringArray::from_iter(values.iter().map(|value| (!value.is_empty()).then_some(*value)));
        let out = Rule::new(rule, |_| [7; 32]).apply(&column).unwrap_or_else(|unfit| panic!("row {}", unfit.row));
        out.iter().map(|value| value.unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn each_rule_does_what_it_says() {
        assert_eq!(
            apply(&ColumnRule::Band(10), &["38", "40", "-1", "0", "39.9", "-0.5", "", "-10"]),
            ["30-39", "40-49", "-10--1", "0-9", "30-39", "-10--1", "", "-10--1"]
        );
        assert_eq!(apply(&ColumnRule::Year, &["17-08-1984", "", "2012/01/01"]), ["1984", "", "2012"]);
        assert_eq!(apply(&ColumnRule::ShowFirst(2), &["张三丰", "a", ""]), ["张三*", "a", ""]);
        assert_eq!(apply(&ColumnRule::ShowLast(4), &["13800138000", "123"]), ["*******8000", "123"]);
        assert_eq!(apply(&ColumnRule::Redact, &["x", ""]), ["***", "***"]);
        assert_eq!(apply(&ColumnRule::Nullify, &["x", ""]), ["", ""]);
        let hashed = apply(&ColumnRule::Hash("id".into()), &["1", "2", "1", ""]);
        assert_eq!((hashed[0].len(), &hashed[0], &*hashed[3]), (22, &hashed[2], ""));
        assert_ne!(hashed[0], hashed[1]);
    }

    #[test]
    fn rounding_is_exact_on_the_written_number() {
        for (value, places, expected) in [
            ("1.005", 2, "1.01"),
            ("-1.005", 2, "-1.01"),
            ("2.5", 0, "3"),
            ("1.5", 2, "1.50"),
            ("1234", -2, "1200"),
            ("1250", -2, "1300"),
            ("-0.004", 2, "0.00"),
            ("0.1", 1, "0.1"),
            ("99.995", 2, "100.00"),
        ] {
            assert_eq!(round(value, places).unwrap(), expected, "{value} to {places}");
        }
        for wrong in ["1e5", "x", "", "1.2.3", "NaN", "-", "１"] {
            assert!(round(wrong, 1).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_by_its_place() {
        let column = StringArray::from(vec!["38", "unknown"]);
        for rule in [ColumnRule::Band(10), ColumnRule::Round(0), ColumnRule::Year] {
            let unfit = Rule::new(&rule, |_| [7; 32]).apply(&column).err().unwrap();
            assert!(unfit.row <= 1);
        }
        assert_eq!(Rule::new(&ColumnRule::Band(10), |_| [7; 32]).apply(&column).err().unwrap().row, 1);
    }
}
