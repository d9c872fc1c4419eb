//! Right operands of ODRL's, with their types.

use chrono::DateTime;
use serde_json::Value as Json;

use crate::{
    policy::{
        Money,
        odrl::{
            OdrlError,
            json_read::At,
            literal,
            rule::{Op, Right},
            term::{Kind, Term},
        },
    },
    time::Timestamp,
};

/// A value that fits the operand, and the operator as it is meant: of what ODRL counts, ours is one less.
pub(super) fn right(term: &Term, op: Op, part: bool, json: &Json, at: &At) -> Result<(Op, Right), OdrlError> {
    let several = matches!(op, Op::AnyOf | Op::NoneOf | Op::AllOf) || (op == Op::PartOf && term.kind == Kind::Texts);
    if several {
        if part && term.kind != Kind::Texts {
            return Err(at.wrong(json, "`hasPart` is asked of what is a set"));
        }
        let items = at.many(json);
        let texts: Vec<String> = items.iter().map(|(item, at)| text(item, at)).collect::<Result<_, _>>()?;
        if texts.is_empty() {
            return Err(at.wrong(json, "there is nothing in it"));
        }
        return Ok((op, Right::Texts(texts)));
    }
    let read = |expected: &str, types: &[&str], example: &str| -> Result<String, OdrlError> {
        lexical(json, at, types).map_err(|_| at.wrong(json, &format!("expected {expected}, such as {example}")))
    };
    let value = match term.kind {
        Kind::Long => {
            const INTEGERS: [&str; 6] = ["integer", "int", "long", "nonNegativeInteger", "positiveInteger", "decimal"];
            let text = read("a whole number", &INTEGERS, "{\"@value\": \"3\", \"@type\": \"xsd:integer\"}")?;
            let number: i64 = text.parse().map_err(|_| at.wrong(json, "expected a whole number"))?;
            let out = || at.wrong(json, "out of range");
            if term.ahead == 1 {
                // "at most n, with this one" is "fewer than n before"
                let (op, less) = if op == Op::Lteq { (Op::Lt, 0) } else { (op, 1) };
                return Ok((op, Right::Long(number.checked_sub(less).ok_or_else(out)?)));
            }
            Right::Long(number)
        }
        Kind::Time => {
            let example = "{\"@value\": \"2026-12-31T00:00:00Z\", \"@type\": \"xsd:dateTime\"}";
            let text = read("a time with its zone", &["dateTime", "dateTimeStamp"], example)?;
            let wrong =
                || at.wrong(json, &format!("expected a time with its zone, to the millisecond, such as {example}"));
            let at = DateTime::parse_from_rfc3339(&text).map_err(|_| wrong())?;
            // milliseconds are all that a clock here tells: a bound between two of them would be moved
            if at.timestamp_subsec_nanos() % 1_000_000 != 0 {
                return Err(wrong());
            }
            Right::Time(Timestamp::from_millis(at.timestamp_millis()))
        }
        Kind::Span => {
            let text = read("a duration", &["duration", "dayTimeDuration"], "PT12H")?;
            let wrong = || at.wrong(json, "expected a duration of fixed length, such as P90D or PT12H");
            Right::Span(literal::parse_iso_span(&text).ok_or_else(wrong)?)
        }
        Kind::Decimal => {
            let text =
                read("an amount", &["decimal", "integer"], "{\"@value\": \"100.00\", \"@type\": \"xsd:decimal\"}")?;
            let wrong = || at.wrong(json, "expected an amount with at most four decimal places");
            Right::Decimal(Money::parse(&text).ok_or_else(wrong)?)
        }
        Kind::Ip => {
            let wrong = || at.wrong(json, "expected an address, or a network in CIDR such as 10.0.0.0/8");
            Right::Ip(literal::ip(&text(json, at)?).ok_or_else(wrong)?)
        }
        _ => Right::Text(text(json, at)?),
    };
    Ok((op, value))
}

/// The text of a duration.
pub(super) fn duration(json: &Json, at: &At) -> Result<String, OdrlError> {
    lexical(json, at, &["duration", "dayTimeDuration"])
}

/// Names in one text, as one family of connectors lists participants.
pub(super) fn comma_separated(json: &Json, at: &At) -> Result<Right, OdrlError> {
    let names: Vec<String> = text(json, at)?.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        return Err(at.wrong(json, "expected names with commas between them"));
    }
    Ok(Right::Texts(names))
}

/// Text: plain, as `@value`, or the IRI of an `@id`.
pub(super) fn text(json: &Json, at: &At) -> Result<String, OdrlError> {
    let json = only(json);
    if let Json::Object(members) = json
        && members.len() == 1
        && let Some(Json::String(iri)) = members.get("@id")
    {
        return Ok(iri.clone());
    }
    match json {
        Json::String(_) | Json::Object(_) => lexical(json, at, &["string", "anyURI"]),
        _ => Err(at.wrong(json, "expected text")),
    }
}

/// The only one of an array, as expanded JSON-LD has it.
fn only(json: &Json) -> &Json {
    match json {
        Json::Array(items) if items.len() == 1 => &items[0],
        other => other,
    }
}

/// The text of a value that has one of these types, or none that is stated.
fn lexical(json: &Json, at: &At, types: &[&str]) -> Result<String, OdrlError> {
    let json = only(json);
    let members = match json {
        Json::String(text) => return Ok(text.clone()),
        Json::Number(number) => return Ok(number.to_string()),
        Json::Object(_) => at.members(json, "value", &["@value", "@type"])?,
        _ => return Err(at.wrong(json, "expected a value")),
    };
    if let Some((name, at)) = members.get("@type") {
        let written = at.name(name)?;
        let own = written
            .strip_prefix("xsd:")
            .or_else(|| written.strip_prefix("http://www.w3.org/2001/XMLSchema#"))
            .or_else(|| written.strip_prefix("xs:"));
        if !own.is_some_and(|own| types.contains(&own)) {
            return Err(at.wrong(name, &format!("expected xsd:{}", types.join(", xsd:"))));
        }
    }
    match members.get("@value") {
        Some((Json::String(text), _)) => Ok(text.clone()),
        Some((Json::Number(number), _)) => Ok(number.to_string()),
        _ => Err(at.wrong(json, "expected a `@value`")),
    }
}
