//! What a rule makes of a column.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;

use crate::{
    policy::ColumnRule,
    source::{Decimal, short_floor, year_of},
};

/// A rule ready to be applied.
pub enum Rule {
    Redact,
    Nullify,
    Hash(hmac::Key),
    ShowFirst(usize),
    ShowLast(usize),
    Year,
    Band(i128),
    Round(i32),
}

/// Bytes of a pseudonym, before base64url.
pub const PSEUDONYM: usize = 16;
/// Most places, either way, that `round` writes.
const MAX_PLACES: u32 = 100;

impl Rule {
    /// Makes ready a rule of a column that is released.
    ///
    /// # Errors
    /// The obligation, where its number is one that nothing can be done with, or the column is not to be released.
    pub fn new(rule: &ColumnRule, key: impl FnOnce(&str) -> [u8; 32]) -> Result<Self, &'static str> {
        Ok(match rule {
            ColumnRule::Drop => return Err("drop"),
            ColumnRule::Redact => Self::Redact,
            ColumnRule::Nullify => Self::Nullify,
            // domains of other uses than this one begin so
            ColumnRule::Hash(domain) if domain.starts_with('\0') => return Err("hash"),
            ColumnRule::Hash(domain) => Self::Hash(hmac::Key::new(hmac::HMAC_SHA256, &key(domain))),
            ColumnRule::ShowFirst(count) => Self::ShowFirst(*count as usize),
            ColumnRule::ShowLast(count) => Self::ShowLast(*count as usize),
            ColumnRule::Year => Self::Year,
            ColumnRule::Band(0) => return Err("band"),
            ColumnRule::Band(width) => Self::Band(i128::from(*width)),
            ColumnRule::Round(places) if places.unsigned_abs() > MAX_PLACES => return Err("round"),
            ColumnRule::Round(places) => Self::Round(*places),
        })
    }

    /// Writes what is released for a value. An empty one stays empty, but for `redact`: that there was none is hidden
    /// too. `scratch` is only room to work in.
    ///
    /// # Errors
    /// The obligation, and what it needs.
    pub fn apply(
        &self,
        value: &str,
        out: &mut String,
        scratch: &mut Vec<u8>,
    ) -> Result<(), (&'static str, &'static str)> {
        match self {
            Self::Redact => out.push_str("***"),
            _ if value.is_empty() => {}
            _ => self.write(value, out, scratch)?,
        }
        Ok(())
    }

    /// What comes out for one value that is not empty; else the obligation, and what it needs.
    fn write(&self, value: &str, out: &mut String, scratch: &mut Vec<u8>) -> Result<(), (&'static str, &'static str)> {
        match self {
            Self::Redact => out.push_str("***"),
            Self::Nullify => {}
            Self::Hash(key) => {
                URL_SAFE_NO_PAD.encode_string(&hmac::sign(key, value.as_bytes()).as_ref()[..PSEUDONYM], out);
            }
            Self::ShowFirst(count) => {
                out.extend(value.chars().enumerate().map(|(at, c)| if at < *count { c } else { '*' }));
            }
            Self::ShowLast(count) => {
                let hidden = value.chars().count().saturating_sub(*count);
                out.extend(value.chars().enumerate().map(|(at, c)| if at < hidden { '*' } else { c }));
            }
            Self::Year => out.push_str(year_of(value).ok_or(("year", "a date"))?),
            Self::Band(width) => {
                // the same in fewer bits, for nearly all numbers there are
                if let Some((floor, _)) = short_floor(value)
                    && let Ok(width) = i64::try_from(*width)
                    && let Some(lower) = floor.div_euclid(width).checked_mul(width)
                    && let Some(upper) = lower.checked_add(width - 1)
                {
                    let mut digits = itoa::Buffer::new();
                    out.push_str(digits.format(lower));
                    out.push('-');
                    out.push_str(digits.format(upper));
                    return Ok(());
                }
                let number = Decimal::parse(value).ok_or(("band", "a number"))?;
                let floor = number.floor().ok_or(("band", "a number of at most 30 digits before the point"))?;
                let lower = floor.div_euclid(*width) * width;
                // writing to a String can't fail
                let _ = write!(out, "{lower}-{}", lower + width - 1);
            }
            Self::Round(places) => {
                Decimal::parse(value).ok_or(("round", "a number"))?.round_into(*places, out, scratch);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Unfit = (usize, &'static str, &'static str);

    fn try_apply(rule: &ColumnRule, values: &[&str]) -> Result<Vec<String>, Unfit> {
        let rule = Rule::new(rule, |domain| [domain.len() as u8; 32]).unwrap();
        let one = |(row, value): (usize, &&str)| {
            let mut out = String::new();
            rule.apply(value, &mut out, &mut Vec::new()).map_err(|(obligation, needs)| (row, obligation, needs))?;
            Ok(out)
        };
        values.iter().enumerate().map(one).collect()
    }

    fn apply(rule: &ColumnRule, values: &[&str]) -> Vec<String> {
        try_apply(rule, values).unwrap()
    }

    #[test]
    fn each_rule_does_what_it_says() {
        assert_eq!(
            apply(&ColumnRule::Band(10), &["38", "40", "-1", "0", "39.9", "-0.5", "", "-10", "-0"]),
            ["30-39", "40-49", "-10--1", "0-9", "30-39", "-10--1", "", "-10--1", "0-9"]
        );
        assert_eq!(apply(&ColumnRule::Band((1 << 53) - 1), &["7"]), ["0-9007199254740990"]);
        assert_eq!(apply(&ColumnRule::Year, &["17-08-1984", "", "2012/01/01"]), ["1984", "", "2012"]);
        assert_eq!(apply(&ColumnRule::Round(1), &["1.25", "", "-1.25", "3"]), ["1.3", "", "-1.3", "3.0"]);
        assert_eq!(apply(&ColumnRule::Round(-1), &["15", "14.9", "-15", "-4"]), ["20", "10", "-20", "0"]);
        assert_eq!(apply(&ColumnRule::ShowFirst(2), &["张三丰", "a", ""]), ["张三*", "a", ""]);
        assert_eq!(apply(&ColumnRule::ShowFirst(0), &["abc"]), ["***"]);
        assert_eq!(apply(&ColumnRule::ShowLast(4), &["13800138000", "123"]), ["*******8000", "123"]);
        assert_eq!(apply(&ColumnRule::Redact, &["x", ""]), ["***", "***"]);
        assert_eq!(apply(&ColumnRule::Nullify, &["x", ""]), ["", ""]);
    }

    #[test]
    fn a_pseudonym_is_the_hmac_under_the_domains_key() {
        let hashed = apply(&ColumnRule::Hash("id".into()), &["1", "2", "1", ""]);
        assert_eq!((hashed[0].len(), &hashed[0], &*hashed[3]), (22, &hashed[2], ""));
        assert_ne!(hashed[0], hashed[1]);
        assert_ne!(hashed, apply(&ColumnRule::Hash("person".into()), &["1", "2", "1", ""]), "another domain");
        // python3: hmac.digest(b"\x02" * 32, b"1", "sha256")[:16], base64url
        assert_eq!(hashed[0], "-JrlJ7H6iLy_9XB0cJUMLQ");
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_by_its_place() {
        for (rule, fits, obligation, needs) in [
            (ColumnRule::Band(10), "38", "band", "a number"),
            (ColumnRule::Round(0), "38", "round", "a number"),
            (ColumnRule::Year, "17-08-1984", "year", "a date"),
        ] {
            let unfit = try_apply(&rule, &[fits, "", "unknown"]);
            assert_eq!(unfit, Err((2, obligation, needs)));
        }
        assert!(try_apply(&ColumnRule::Band(10), &[&"9".repeat(31)]).is_err());
    }

    #[test]
    fn numbers_that_nothing_can_be_done_with_are_refused() {
        for (rule, obligation) in [
            (ColumnRule::Band(0), "band"),
            (ColumnRule::Round(i32::MAX), "round"),
            (ColumnRule::Round(i32::MIN), "round"),
            (ColumnRule::Drop, "drop"),
            (ColumnRule::Hash("\0watermark\0x".into()), "hash"),
        ] {
            assert_eq!(Rule::new(&rule, |_| [0; 32]).err(), Some(obligation));
        }
    }
}
