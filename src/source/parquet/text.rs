//! The text of a typed value: what obligations are about, whatever the format.

use std::fmt::Write as _;

use arrow_array::{
    Array, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, Float16Array, Float32Array, Float64Array,
    Int8Array, Int16Array, Int32Array, Int64Array, StringViewArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
    cast::AsArray as _,
    types::{
        Date32Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
        Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use arrow_schema::{DataType, TimeUnit};
use chrono::{DateTime, Days, NaiveDate, SecondsFormat};

use crate::policy::ColumnKind;

/// A column of a batch, by its type.
pub enum Typed<'a> {
    /// Text.
    Text(&'a StringViewArray),
    Int8(&'a Int8Array),
    Int16(&'a Int16Array),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    UInt8(&'a UInt8Array),
    UInt16(&'a UInt16Array),
    UInt32(&'a UInt32Array),
    UInt64(&'a UInt64Array),
    Float16(&'a Float16Array),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Boolean(&'a BooleanArray),
    Date(&'a Date32Array),
    /// Ticks, how many make a second, and whether they count in UTC.
    Timestamp(&'a [i64], i64, bool),
    Decimal128(&'a Decimal128Array, i8),
    Decimal256(&'a Decimal256Array, i8),
}

/// What a column of this type holds; `None` for types that are not handled. Text is looked at.
pub fn kind_of(kind: &DataType) -> Option<ColumnKind> {
    use DataType as D;
    Some(match kind {
        D::Utf8View => ColumnKind::Text,
        D::Int8 | D::Int16 | D::Int32 | D::Int64 | D::UInt8 | D::UInt16 | D::UInt32 | D::UInt64 => ColumnKind::Integer,
        // sixteen bits are too few for a mark: half floats are texts to obligations
        D::Float32 | D::Float64 | D::Decimal128(..) | D::Decimal256(..) => ColumnKind::Number,
        D::Boolean => ColumnKind::Boolean,
        D::Date32 | D::Timestamp(..) => ColumnKind::Date,
        _ => return None,
    })
}

impl<'a> Typed<'a> {
    /// `None` for types that are not handled.
    pub fn of(array: &'a dyn Array) -> Option<Self> {
        use DataType as D;
        Some(match array.data_type() {
            D::Utf8View => Self::Text(array.as_string_view_opt()?),
            D::Int8 => Self::Int8(array.as_primitive_opt::<Int8Type>()?),
            D::Int16 => Self::Int16(array.as_primitive_opt::<Int16Type>()?),
            D::Int32 => Self::Int32(array.as_primitive_opt::<Int32Type>()?),
            D::Int64 => Self::Int64(array.as_primitive_opt::<Int64Type>()?),
            D::UInt8 => Self::UInt8(array.as_primitive_opt::<UInt8Type>()?),
            D::UInt16 => Self::UInt16(array.as_primitive_opt::<UInt16Type>()?),
            D::UInt32 => Self::UInt32(array.as_primitive_opt::<UInt32Type>()?),
            D::UInt64 => Self::UInt64(array.as_primitive_opt::<UInt64Type>()?),
            D::Float16 => Self::Float16(array.as_primitive_opt::<Float16Type>()?),
            D::Float32 => Self::Float32(array.as_primitive_opt::<Float32Type>()?),
            D::Float64 => Self::Float64(array.as_primitive_opt::<Float64Type>()?),
            D::Boolean => Self::Boolean(array.as_boolean_opt()?),
            D::Date32 => Self::Date(array.as_primitive_opt::<Date32Type>()?),
            D::Timestamp(unit, zone) => {
                let (ticks, second): (&[i64], i64) = match unit {
                    TimeUnit::Second => (array.as_primitive_opt::<TimestampSecondType>()?.values(), 1),
                    TimeUnit::Millisecond => (array.as_primitive_opt::<TimestampMillisecondType>()?.values(), 1000),
                    TimeUnit::Microsecond => {
                        (array.as_primitive_opt::<TimestampMicrosecondType>()?.values(), 1_000_000)
                    }
                    TimeUnit::Nanosecond => {
                        (array.as_primitive_opt::<TimestampNanosecondType>()?.values(), 1_000_000_000)
                    }
                };
                Self::Timestamp(ticks, second, zone.is_some())
            }
            D::Decimal128(_, scale) => Self::Decimal128(array.as_primitive_opt::<Decimal128Type>()?, *scale),
            D::Decimal256(_, scale) => Self::Decimal256(array.as_primitive_opt::<Decimal256Type>()?, *scale),
            _ => return None,
        })
    }

    /// The floor of a number that is not null, and whether it lies above that; `None` where only the text says it.
    pub fn short(&self, row: usize) -> Option<(i64, bool)> {
        match self {
            Self::Int8(array) => Some((array.value(row).into(), false)),
            Self::Int16(array) => Some((array.value(row).into(), false)),
            Self::Int32(array) => Some((array.value(row).into(), false)),
            Self::Int64(array) => Some((array.value(row), false)),
            Self::UInt8(array) => Some((array.value(row).into(), false)),
            Self::UInt16(array) => Some((array.value(row).into(), false)),
            Self::UInt32(array) => Some((array.value(row).into(), false)),
            // between a number and the next whole one lies nothing that its shortest text could be instead; in this
            // range an integer is exact
            Self::Float64(array) => {
                let number = array.value(row);
                let floor = number.floor();
                (floor.abs() < 1e15).then_some((floor as i64, number > floor))
            }
            Self::Float32(array) => {
                let number = array.value(row);
                let floor = number.floor();
                (floor.abs() < 1e15).then_some((floor as i64, number > floor))
            }
            _ => None,
        }
    }

    /// The text of a value that is not null, into `out`, or as it lies there; `None` if it has no text.
    pub fn text<'s>(&'s self, row: usize, out: &'s mut String) -> Option<&'s str> {
        out.clear();
        // writing to a String can't fail
        let _ = match self {
            Self::Text(array) => return Some(array.value(row)),
            Self::Int8(array) => out.write_str(itoa::Buffer::new().format(array.value(row))),
            Self::Int16(array) => out.write_str(itoa::Buffer::new().format(array.value(row))),
            Self::Int32(array) => out.write_str(itoa::Buffer::new().format(array.value(row))),
            Self::Int64(array) => out.write_str(itoa::Buffer::new().format(array.value(row))),
            Self::UInt8(array) => out.write_str(itoa::Buffer::new().format(array.value(row))),
            Self::UInt16(array) => out.write_str(itoa::Buffer::new().format(array.value(row))),
            Self::UInt32(array) => out.write_str(itoa::Buffer::new().format(array.value(row))),
            Self::UInt64(array) => out.write_str(itoa::Buffer::new().format(array.value(row))),
            Self::Float16(array) => write!(out, "{}", array.value(row).to_f32()),
            // the shortest that reads back as the same, and never with an exponent
            Self::Float32(array) => write!(out, "{}", array.value(row)),
            Self::Float64(array) => write!(out, "{}", array.value(row)),
            Self::Boolean(array) => write!(out, "{}", array.value(row)),
            Self::Date(array) => write!(out, "{}", date(array.value(row))?.format("%Y-%m-%d")),
            Self::Timestamp(ticks, second, utc) => {
                let tick = ticks.get(row)?;
                let nanos = tick.rem_euclid(*second) * (1_000_000_000 / second);
                let time = DateTime::from_timestamp(tick.div_euclid(*second), u32::try_from(nanos).ok()?)?;
                four_digits(time.date_naive())?;
                let text = time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                // a time of no zone is written without one
                write!(out, "{}", if *utc { text.as_str() } else { text.trim_end_matches('Z') })
            }
            Self::Decimal128(array, scale) => {
                decimal(&array.value(row).to_string(), *scale, out);
                Ok(())
            }
            Self::Decimal256(array, scale) => {
                decimal(&array.value(row).to_string(), *scale, out);
                Ok(())
            }
        };
        Some(out)
    }
}

fn date(days: i32) -> Option<NaiveDate> {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    let distance = Days::new(u64::from(days.unsigned_abs()));
    let date = if days < 0 { epoch.checked_sub_days(distance) } else { epoch.checked_add_days(distance) };
    four_digits(date?)
}

/// Years of four digits only: others are written in ways that nobody agrees on.
fn four_digits(date: NaiveDate) -> Option<NaiveDate> {
    (0..=9999).contains(&chrono::Datelike::year(&date)).then_some(date)
}

/// The number of these digits, so many of them behind the point, without zeros that say nothing.
pub fn decimal(unscaled: &str, scale: i8, out: &mut String) {
    let (sign, digits) = unscaled.strip_prefix('-').map_or(("", unscaled), |digits| ("-", digits));
    out.push_str(sign);
    let Ok(places) = usize::try_from(scale) else {
        out.push_str(digits);
        if digits != "0" {
            out.extend(std::iter::repeat_n('0', usize::from(scale.unsigned_abs())));
        }
        return;
    };
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(places));
    out.push_str(if whole.is_empty() { "0" } else { whole });
    let zeros = places - fraction.len();
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        out.push('.');
        out.extend(std::iter::repeat_n('0', zeros));
        out.push_str(fraction);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use arrow_array::{ArrayRef, TimestampMicrosecondArray, TimestampSecondArray};

    use super::*;

    fn texts(array: ArrayRef) -> Vec<Option<String>> {
        let typed = Typed::of(&*array).unwrap();
        (0..array.len()).map(|row| typed.text(row, &mut String::new()).map(str::to_owned)).collect()
    }

    #[test]
    fn typed_values_have_the_shortest_exact_text() {
        let some = |texts: &[&str]| texts.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>();
        assert_eq!(texts(Arc::new(Int64Array::from(vec![i64::MIN, 0]))), some(&["-9223372036854775808", "0"]));
        assert_eq!(
            texts(Arc::new(Float64Array::from(vec![0.1, 1e21, -2.0]))),
            some(&["0.1", "1000000000000000000000", "-2"])
        );
        assert_eq!(texts(Arc::new(Float32Array::from(vec![0.1]))), some(&["0.1"]));
        assert_eq!(texts(Arc::new(BooleanArray::from(vec![true, false]))), some(&["true", "false"]));
        assert_eq!(texts(Arc::new(Date32Array::from(vec![19_782, -1]))), some(&["2024-02-29", "1969-12-31"]));
        assert_eq!(texts(Arc::new(Date32Array::from(vec![i32::MAX]))), [None]);
        let utc = TimestampMicrosecondArray::from(vec![1_500_000, -1]).with_timezone("UTC");
        assert_eq!(texts(Arc::new(utc)), some(&["1970-01-01T00:00:01.500Z", "1969-12-31T23:59:59.999999Z"]));
        assert_eq!(texts(Arc::new(TimestampSecondArray::from(vec![60]))), some(&["1970-01-01T00:01:00"]));
        let decimals = Decimal128Array::from(vec![150, -5, 0, 123]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(texts(Arc::new(decimals)), some(&["1.5", "-0.05", "0", "1.23"]));
        let mut out = String::new();
        decimal("12", -3, &mut out);
        assert_eq!(out, "12000");
    }

    proptest! {
        #[test]
        fn the_quick_way_to_a_number_is_that_of_its_text(near in -1000_i32..1000, steps in -3_i64..4, any in any::<f64>(), whole in any::<i64>()) {
            let beside = f64::from_bits((f64::from(near).to_bits() as i64 + steps) as u64);
            let beside_f32 = f32::from_bits((near as f32).to_bits().wrapping_add_signed(steps as i32));
            let arrays: [ArrayRef; 4] = [
                Arc::new(Float64Array::from(vec![beside])),
                Arc::new(Float64Array::from(vec![any])),
                Arc::new(Float32Array::from(vec![beside_f32])),
                Arc::new(Int64Array::from(vec![whole])),
            ];
            for array in arrays {
                let typed = Typed::of(&*array).unwrap();
                let mut out = String::new();
                let text = typed.text(0, &mut out).unwrap().to_owned();
                if let (Some(quick), Some(exact)) = (typed.short(0), crate::source::short_floor(&text)) {
                    prop_assert_eq!(quick, exact, "{}", text);
                }
            }
        }
    }
}
