//! Conditions as what they certainly say: a conjunction of comparisons of one fact with a literal. Everything else is
//! opaque, and compared by its syntax.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use crate::{
    policy::{
        Money,
        workbench::{Anatomy, Piece, PieceKind, anatomy::path_of, given::span},
    },
    time::Timestamp,
};

/// The least and the greatest that a number may be.
const ALL: (i128, i128) = (i64::MIN as i128, i64::MAX as i128);
/// Ranges up to this size are gone through value by value.
const SMALL: i128 = 366;

/// One thing that a condition says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Atom {
    /// A number, a time or a duration within bounds.
    Within { path: String, low: i128, high: i128 },
    /// … other than this.
    Other { path: String, value: i128 },
    /// A text out of these.
    OneOf { path: String, texts: BTreeSet<String> },
    /// A text that is none of these.
    NoneOf { path: String, texts: BTreeSet<String> },
    /// A set that holds this.
    Holds { path: String, text: String },
    /// A set that doesn't.
    Lacks { path: String, text: String },
    /// `true` or `false`.
    Constant(bool),
    /// Anything else.
    Opaque(Json),
}

/// What all conditions and the scope of a policy say together; actions are compared apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub atoms: Vec<Atom>,
    within: BTreeMap<String, (i128, i128)>,
    other: BTreeMap<String, BTreeSet<i128>>,
    one_of: BTreeMap<String, BTreeSet<String>>,
    none_of: BTreeMap<String, BTreeSet<String>>,
    holds: BTreeSet<(String, String)>,
    lacks: BTreeSet<(String, String)>,
    opaque: Vec<Json>,
    never: bool,
}

impl Known {
    pub fn of(policy: &Anatomy) -> Self {
        let mut known = Self::default();
        for piece in policy.pieces.iter().filter(|piece| piece.kind != PieceKind::Action) {
            known.add(atom(piece));
        }
        known
    }

    /// Both together.
    pub fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        other.atoms.iter().cloned().for_each(|atom| both.add(atom));
        both
    }

    pub fn add(&mut self, atom: Atom) {
        self.atoms.push(atom.clone());
        match atom {
            Atom::Within { path, low, high } => {
                let (known_low, known_high) = self.range(&path);
                self.within.insert(path, (known_low.max(low), known_high.min(high)));
            }
            Atom::Other { path, value } => {
                self.other.entry(path).or_default().insert(value);
            }
            Atom::OneOf { path, texts } => {
                let both = match self.one_of.get(&path) {
                    Some(known) => known.intersection(&texts).cloned().collect(),
                    None => texts,
                };
                self.one_of.insert(path, both);
            }
            Atom::NoneOf { path, texts } => self.none_of.entry(path).or_default().extend(texts),
            Atom::Holds { path, text } => {
                self.holds.insert((path, text));
            }
            Atom::Lacks { path, text } => {
                self.lacks.insert((path, text));
            }
            Atom::Constant(value) => self.never |= !value,
            Atom::Opaque(tree) => self.opaque.push(tree),
        }
    }

    /// Whether it can certainly never be so: what about, in words of the policy.
    pub fn impossible(&self) -> Option<String> {
        if self.never {
            return Some("false".into());
        }
        for (path, (low, high)) in &self.within {
            let excluded = self.other.get(path);
            let empty = low > high
                || high - low <= SMALL
                    && excluded.is_some_and(|excluded| (*low..=*high).all(|value| excluded.contains(&value)));
            if empty {
                return Some(path.clone());
            }
        }
        for path in self.one_of.keys() {
            if self.texts(path).is_some_and(|texts| texts.is_empty()) {
                return Some(path.clone());
            }
        }
        if let Some((path, _)) = self.holds.intersection(&self.lacks).next() {
            return Some(path.clone());
        }
        let opposed = self.opaque.iter().find(|tree| self.opaque.contains(&negated(tree)));
        opposed.map(|_| "its parts".to_owned())
    }

    /// Whether this is certainly so wherever all that is known is so.
    pub fn implies(&self, atom: &Atom) -> bool {
        match atom {
            Atom::Within { path, low, high } => {
                let (known_low, known_high) = self.range(path);
                *low <= known_low && known_high <= *high
            }
            Atom::Other { path, value } => {
                let (low, high) = self.range(path);
                !(low..=high).contains(value) || self.other.get(path).is_some_and(|others| others.contains(value))
            }
            Atom::OneOf { path, texts } => self.texts(path).is_some_and(|known| known.is_subset(texts)),
            Atom::NoneOf { path, texts } => {
                self.texts(path).is_some_and(|known| known.is_disjoint(texts))
                    || self.none_of.get(path).is_some_and(|none| texts.is_subset(none))
            }
            Atom::Holds { path, text } => self.holds.contains(&(path.clone(), text.clone())),
            Atom::Lacks { path, text } => self.lacks.contains(&(path.clone(), text.clone())),
            Atom::Constant(value) => *value,
            Atom::Opaque(tree) => self.opaque.contains(tree),
        }
    }

    /// Whether everything that the other says is certainly so.
    pub fn implies_all(&self, other: &Self) -> bool {
        other.atoms.iter().all(|atom| self.implies(atom))
    }

    fn range(&self, path: &str) -> (i128, i128) {
        self.within.get(path).copied().unwrap_or_else(|| domain(path))
    }

    fn texts(&self, path: &str) -> Option<BTreeSet<String>> {
        let texts = self.one_of.get(path)?;
        Some(match self.none_of.get(path) {
            Some(none) => texts.difference(none).cloned().collect(),
            None => texts.clone(),
        })
    }
}

/// What a connector ever gives.
fn domain(path: &str) -> (i128, i128) {
    let name = path.strip_prefix("context.").unwrap_or(path);
    match name.split('.').next().unwrap_or_default() {
        "weekday" => (1, 7),
        "timeOfDay" => (0, 86_399_999),
        "count" | "frequency" | "spent" | "subject" | "dataSize" | "dataRecord" | "timeWindow" => (0, ALL.1),
        _ => ALL,
    }
}

/// What a part of a policy says.
pub(super) fn atom(piece: &Piece) -> Atom {
    read(&piece.tree, piece.kind == PieceKind::Unless)
}

/// Whether it is so whatever happens: only by what a fact can be.
pub(super) fn always(atom: &Atom) -> bool {
    !matches!(atom, Atom::Opaque(_)) && Known::default().implies(atom)
}

fn read(tree: &Json, not: bool) -> Atom {
    let opaque = || Atom::Opaque(if not { negated(tree) } else { tree.clone() });
    if let Some(value) = tree["Value"].as_bool() {
        return Atom::Constant(value != not);
    }
    let Some((sign, operands)) = tree.as_object().and_then(|members| members.iter().next()) else { return opaque() };
    match sign.as_str() {
        "!" => return read(&operands["arg"], !not),
        "||" if !not => {
            let (left, right) = (read(&operands["left"], false), read(&operands["right"], false));
            if let (Atom::OneOf { path, texts }, Atom::OneOf { path: other, texts: more }) = (left, right)
                && path == other
            {
                return Atom::OneOf { path, texts: texts.into_iter().chain(more).collect() };
            }
            return opaque();
        }
        "contains" => return contains(operands, not).unwrap_or_else(opaque),
        "lessThan" | "lessThanOrEqual" | "greaterThan" | "greaterThanOrEqual" => {
            let sign = match sign.as_str() {
                "lessThan" => "<",
                "lessThanOrEqual" => "<=",
                "greaterThan" => ">",
                _ => ">=",
            };
            return compare(&operands[0], sign, &operands[1], not).unwrap_or_else(opaque);
        }
        "==" | "!=" | "<" | "<=" | ">" | ">=" => {
            return compare(&operands["left"], sign, &operands["right"], not).unwrap_or_else(opaque);
        }
        _ => {}
    }
    opaque()
}

fn contains(operands: &Json, not: bool) -> Option<Atom> {
    let (left, right) = (&operands["left"], &operands["right"]);
    if let Some(items) = left["Set"].as_array() {
        let path = path(right)?;
        let texts = items.iter().map(text).collect::<Option<BTreeSet<_>>>()?;
        return Some(if not { Atom::NoneOf { path, texts } } else { Atom::OneOf { path, texts } });
    }
    let (path, text) = (path(left)?, text(right)?);
    Some(if not { Atom::Lacks { path, text } } else { Atom::Holds { path, text } })
}

fn compare(left: &Json, sign: &str, right: &Json, not: bool) -> Option<Atom> {
    let (path, sign, literal) = match path(left) {
        Some(path) => (path, sign, right),
        None => {
            let turned = match sign {
                "<" => ">",
                "<=" => ">=",
                ">" => "<",
                ">=" => "<=",
                same => same,
            };
            (path(right)?, turned, left)
        }
    };
    let sign = match (sign, not) {
        (sign, false) => sign,
        ("==", true) => "!=",
        ("!=", true) => "==",
        ("<", true) => ">=",
        ("<=", true) => ">",
        (">", true) => "<=",
        (">=", true) => "<",
        _ => return None,
    };
    if let Some(value) = number(literal) {
        let within = |low, high| Some(Atom::Within { path: path.clone(), low, high });
        let (least, most) = domain(&path);
        return match sign {
            "==" => within(value, value),
            "!=" => Some(Atom::Other { path, value }),
            "<" => within(least, value - 1),
            "<=" => within(least, value),
            ">" => within(value + 1, most),
            _ => within(value, most),
        };
    }
    let texts = BTreeSet::from([text(literal)?]);
    match sign {
        "==" => Some(Atom::OneOf { path, texts }),
        "!=" => Some(Atom::NoneOf { path, texts }),
        _ => None,
    }
}

/// The fact that an access is about, in one spelling: `time` and `now` are the same instant.
fn path(tree: &Json) -> Option<String> {
    let path = path_of(tree)?.join(".");
    Some(if path == "context.time" { "context.now".to_owned() } else { path })
}

/// A text, or an entity, as a literal.
pub(super) fn text(tree: &Json) -> Option<String> {
    let value = tree.get("Value")?;
    let entity = || {
        let uid = value.get("__entity")?;
        Some(format!("{}::{:?}", uid["type"].as_str()?, uid["id"].as_str()?))
    };
    value.as_str().map(str::to_owned).or_else(entity)
}

/// A number, a time, a duration or a decimal, as a whole number.
pub(super) fn number(tree: &Json) -> Option<i128> {
    if let Some(value) = tree["Value"].as_i64() {
        return Some(value.into());
    }
    let argument = |function: &str| tree.get(function)?.get(0)?["Value"].as_str();
    if let Some(text) = argument("datetime") {
        return instant(text).map(|at| at.millis().into());
    }
    if let Some(text) = argument("duration") {
        return span(text).map(Into::into);
    }
    argument("decimal").and_then(Money::parse).map(|money| money.0.into())
}

/// Cedar's `datetime("…")`: a date, or a time with `Z` or `+0800`.
pub(super) fn instant(text: &str) -> Option<Timestamp> {
    let written = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        // Cedar writes the offset without a colon
        _ if text.len() > 15 && text[..text.len() - 4].ends_with(['+', '-']) => {
            format!("{}:{}", &text[..text.len() - 2], &text[text.len() - 2..])
        }
        _ => text.to_owned(),
    };
    Timestamp::parse(&written).ok()
}

fn negated(tree: &Json) -> Json {
    match tree.get("!") {
        Some(inner) => inner["arg"].clone(),
        None => json!({ "!": { "arg": tree } }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::workbench::anatomy::apart;

    fn known(condition: &str) -> Known {
        Known::of(&apart(&format!("permit (principal, action, resource) when {{ {condition} }};")))
    }

    #[test]
    fn what_contradicts_itself_is_seen_and_its_near_miss_is_not() {
        for impossible in [
            r#"context.purpose == "a" && context.purpose == "b""#,
            r#"context.purpose == "a" && context.purpose != "a""#,
            r#"["a", "b"].contains(context.purpose) && context.purpose == "c""#,
            "context.count < 0",
            "context.count < 3 && context.count >= 3",
            "3 > context.count && context.count == 3",
            "!(context.weekday <= 7)",
            "context.weekday > 6 && context.weekday != 7",
            "context.frequency.day < 0",
            r#"context.now >= datetime("2026-01-02") && context.time < datetime("2026-01-01T23:00:00Z")"#,
            r#"context.now > datetime("2026-01-01T00:00:00+0800") && context.now <= datetime("2025-12-31T16:00:00Z")"#,
            r#"context.timeOfDay >= duration("24h")"#,
            r#"context.payAmount.greaterThan(decimal("10.0")) && context.payAmount.lessThanOrEqual(decimal("10.0"))"#,
            r#"context.approval.contains("x") && !context.approval.contains("x")"#,
            r#"context.region like "CN*" && !(context.region like "CN*")"#,
            r#"principal == Participant::"a" && principal == Participant::"b""#,
            "false",
        ] {
            assert!(known(impossible).impossible().is_some(), "{impossible}");
        }
        for possible in [
            r#"context.purpose == "a" || context.purpose == "b""#,
            r#"["a", "b"].contains(context.purpose) && context.purpose == "b""#,
            "context.count <= 0",
            "context.count < 3 && context.count >= 2",
            "context.count < 3 && context.spent.total.count >= 3",
            "context.weekday > 5 && context.weekday != 7",
            r#"context.now >= datetime("2026-01-01") && context.now < datetime("2026-01-02")"#,
            r#"context.approval.contains("x") && !context.approval.contains("y")"#,
            r#"context.region like "CN*" && !(context.region like "CN-4*")"#,
            r#"principal in Group::"a" && principal in Group::"b""#,
            "context.payAmount.lessThan(decimal(\"-1.0\"))",
            "true",
        ] {
            assert_eq!(known(possible).impossible(), None, "{possible}");
        }
    }

    #[test]
    fn what_follows_is_seen_and_what_does_not_is_not() {
        for (from, to, follows) in [
            ("context.count < 3", "context.count < 5", true),
            ("context.count < 5", "context.count < 3", false),
            ("context.count == 2", "context.count != 3", true),
            (r#"context.purpose == "a""#, r#"["a", "b"].contains(context.purpose)"#, true),
            (r#"context.purpose == "a""#, r#"context.purpose != "b""#, true),
            (r#"["a", "b"].contains(context.purpose)"#, r#"context.purpose == "a""#, false),
            (
                r#"context.purpose == "a" || context.purpose == "b""#,
                r#"["a", "b", "c"].contains(context.purpose)"#,
                true,
            ),
            (r#"context.consent.contains("x")"#, r#"context.consent.contains("x")"#, true),
            (r#"context.consent.contains("x")"#, r#"context.consent.contains("y")"#, false),
            (r#"context.region like "C*""#, r#"context.region like "C*""#, true),
            (r#"context.region like "CN*""#, r#"context.region like "C*""#, false),
            ("true", "context.count >= 0", true),
            ("true", "context.count >= 1", false),
        ] {
            assert_eq!(known(from).implies_all(&known(to)), follows, "{from} => {to}");
        }
    }
}
