//! Why policies are not taken: always with the file, the place and the policy, and what to do instead.

use std::fmt::Write as _;

use crate::policy::{ObligationError, bounds::MAX_TEXT};

/// Why policies were not taken. Every message names the file and the policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not Cedar, or out of bounds.
    #[error("{file}:{line}:{column}: {problem}")]
    Syntax {
        /// Which file.
        file: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// Cedar's message.
        problem: String,
    },
    /// Cedar, but not against our schema, or without any effect.
    #[error("{file}:{line}:{column}: policy `{policy}`: {problem}")]
    Invalid {
        /// Which file.
        file: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// `@id`.
        policy: String,
        /// Cedar's message.
        problem: String,
    },
    /// An attribute asked for by `has` that nothing has: the clause would never hold, and nobody would notice.
    #[error("{file}: policy `{policy}`: `has {attribute}`: there is no such attribute{}", did_you_mean(suggestion.as_deref(), ""))]
    Has {
        /// Which file.
        file: String,
        /// `@id`.
        policy: String,
        /// As written.
        attribute: String,
        /// The nearest known one.
        suggestion: Option<String>,
    },
    /// Cedar templates.
    #[error("{0}: policy templates with slots (`?principal`) are not taken; write policies")]
    Template(String),
    /// No policy at all.
    #[error("{0} holds no policy: nobody could ever be allowed anything")]
    Empty(String),
    /// Too long.
    #[error("{0} bytes of policies; at most {MAX_TEXT} are taken")]
    TooLong(usize),
    /// A policy without `@id`.
    #[error("{file}: policy number {number} has no `@id(\"…\")`: receipts name the deciding policies by it")]
    NoId {
        /// Which file.
        file: String,
        /// In the order of the file, from 1.
        number: usize,
    },
    /// An `@id` that can't stand in receipts and messages.
    #[error("{file}: `@id(\"{id}\")`: an id has at most {max} letters, digits and `-_.:/`")]
    BadId {
        /// Which file.
        file: String,
        /// As written, made harmless.
        id: String,
        /// Characters.
        max: usize,
    },
    /// Two policies of one `@id`.
    #[error("two policies have the id `{id}` (in {first} and {second}); receipts could not tell them apart")]
    Twice {
        /// The id.
        id: String,
        /// A file.
        first: String,
        /// The other.
        second: String,
    },
    /// An annotation that nobody would read.
    #[error("{file}: policy `{policy}`: unknown annotation `@{key}`{}; known are @id, @before, @during, @after and @contract", did_you_mean(*suggestion, "@"))]
    Annotation {
        /// Which file.
        file: String,
        /// `@id`.
        policy: String,
        /// As written.
        key: String,
        /// The nearest known one.
        suggestion: Option<&'static str>,
    },
    /// An annotation that says nothing.
    #[error("{file}: policy `{policy}`: `@{key}` is empty; leave it out if nothing is demanded")]
    EmptyAnnotation {
        /// Which file.
        file: String,
        /// `@id`.
        policy: String,
        /// The key.
        key: String,
    },
    /// Obligations on a `forbid`.
    #[error("{file}: policy `{policy}`: `@{key}` on a forbid; obligations ride on permits only")]
    OnForbid {
        /// Which file.
        file: String,
        /// `@id`.
        policy: String,
        /// The key.
        key: String,
    },
    /// Obligations on a permit under which nothing happens that they are about.
    #[error("{file}: policy `{policy}`: `@{key}` on a permit that doesn't cover {covers}: nobody would see to it")]
    NoRelease {
        /// Which file.
        file: String,
        /// `@id`.
        policy: String,
        /// The key.
        key: String,
        /// What it would have to cover.
        covers: &'static str,
    },
    /// An obligation.
    #[error("{place}: {error}")]
    Obligation {
        /// File and policy, or the floor.
        place: String,
        /// What is wrong.
        error: ObligationError,
    },
    /// The schema that ships is broken, or Cedar is.
    #[error("the Cedar schema can't be used: {0}")]
    Schema(String),
    /// No thread to compile on.
    #[error("no thread to compile the policies on: {0}")]
    Thread(std::io::Error),
}

/// `; did you mean …?`, or nothing.
pub(crate) fn did_you_mean(near: Option<&str>, sign: &str) -> String {
    near.map(|near| format!("; did you mean `{sign}{near}`?")).unwrap_or_default()
}

/// The known name nearest to what was written, if it is near: at most two slips, or only the case differs.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // the distance is quadratic; nothing this long is a slip of the hand
    if written.len() > 256 {
        return None;
    }
    known
        .into_iter()
        .map(|known| match known.eq_ignore_ascii_case(written) {
            true => (0, known),
            false => (strsim::damerau_levenshtein(known, written), known),
        })
        .filter(|(distance, known)| *distance <= 2 && *distance < known.chars().count())
        .min()
        .map(|(_, known)| known)
}

/// Foreign text made fit for one line of a message.
pub(super) fn harmless(text: &str) -> String {
    text.chars().take(60).flat_map(|c| c.escape_debug()).collect()
}

/// The first place that an error of Cedar's points to, in bytes.
pub(super) fn offset(error: &dyn miette::Diagnostic) -> Option<usize> {
    if let Some(label) = error.labels().and_then(|mut labels| labels.next()) {
        return Some(label.offset());
    }
    error.related().and_then(|mut related| related.find_map(offset))
}

/// Cedar's message with its help, bounded: types in it can be as large as the policy.
pub(super) fn explained(error: &dyn miette::Diagnostic) -> String {
    const MOST: usize = 600;
    let mut text = error.to_string();
    if let Some(help) = error.help() {
        let _ = write!(text, " ({help})");
    }
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Line and column of a byte, both from 1; columns count characters.
pub(super) fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggestion_is_near_or_none() {
        assert_eq!(nearest("maks", ["mask", "drop"]), Some("mask"));
        assert_eq!(nearest("AGE", ["age", "grade"]), Some("age"));
        assert_eq!(nearest("watermark", ["mask", "drop"]), None);
        assert_eq!(nearest("xy", ["id"]), None);
        assert_eq!(nearest(&"a".repeat(1 << 20), ["a"]), None);
    }

    #[test]
    fn places_are_counted_in_characters_from_one() {
        assert_eq!(line_column("", 0), (1, 1));
        assert_eq!(line_column("患者\nab", 8), (2, 2));
        assert_eq!(line_column("患者", 4), (1, 2));
        assert_eq!(line_column("ab", 99), (1, 3));
    }
}
