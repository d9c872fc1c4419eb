//! Where things stand in a policy's text: Cedar's syntax trees don't say. Finds the parts of the conditions as they were
//! written; strings, comments and brackets are read as Cedar's lexer does.

use std::ops::Range;

/// A `when` or `unless`, and where its parts stand.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Clause {
    pub unless: bool,
    /// Byte ranges of the parts: what `&&` joins, in an `unless` what `||` joins.
    pub parts: Vec<Range<usize>>,
}

/// The clauses of one policy's text.
pub(super) fn clauses(text: &str) -> Vec<Clause> {
    let marks = marks(text);
    let mut found = Vec::new();
    let mut unless = None;
    for (place, mark) in marks.iter().enumerate() {
        match &text[mark.span.clone()] {
            "when" if mark.depth == 0 => unless = Some(false),
            "unless" if mark.depth == 0 => unless = Some(true),
            "{" if mark.depth == 0 => {
                let Some(unless) = unless.take() else { continue };
                let end = marks[place + 1..].iter().find(|mark| mark.depth == 0 && &text[mark.span.clone()] == "}");
                let Some(end) = end else { continue };
                let mut parts = Vec::new();
                split(text, mark.span.end..end.span.start, if unless { "||" } else { "&&" }, &mut parts);
                found.push(Clause { unless, parts });
            }
            _ => unless = None,
        }
    }
    found
}

/// Where a policy stands in a file, from this byte on: the whole statement is its text, not a part of one or a comment.
pub(super) fn place_of(written: &str, text: &str, from: usize) -> Option<usize> {
    let mut start = None;
    for mark in marks(text) {
        let first = *start.get_or_insert(mark.span.start);
        if mark.depth == 0 && &text[mark.span.clone()] == ";" {
            if first >= from && text[first..mark.span.end] == *written {
                return Some(first);
            }
            start = None;
        }
    }
    None
}

/// A piece of text on one line, without comments.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::new();
    let mut end = 0;
    for mark in marks(text) {
        let gap = &text[end..mark.span.start];
        if !line.is_empty() && !gap.is_empty() {
            line.push(' ');
        }
        line.push_str(&text[mark.span.clone()]);
        end = mark.span.end;
    }
    line
}

/// A word, a string, or a sign; brackets have the depth that is around them.
struct Mark {
    span: Range<usize>,
    depth: usize,
}

fn marks(text: &str) -> Vec<Mark> {
    let mut marks = Vec::new();
    let (mut at, mut depth) = (0, 0_usize);
    let bytes = text.as_bytes();
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let start = at;
        let mut around = depth;
        match c {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '/' if rest.starts_with("//") => {
                at += rest.find(['\n', '\r']).unwrap_or(rest.len());
                continue;
            }
            '"' => {
                at += 1;
                while at < text.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(text.len());
                while !text.is_char_boundary(at) {
                    at += 1;
                }
            }
            '(' | '[' | '{' => {
                depth += 1;
                at += 1;
            }
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                around = depth;
                at += 1;
            }
            c if c.is_alphanumeric() || c == '_' => {
                at += rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            }
            _ if ["&&", "||"].iter().any(|sign| rest.starts_with(sign)) => at += 2,
            c => at += c.len_utf8(),
        }
        marks.push(Mark { span: start..at, depth: around });
    }
    marks
}

/// Splits at the top-level `sign`s, through brackets that hold a whole part, as Cedar's tree does.
fn split(text: &str, range: Range<usize>, sign: &str, parts: &mut Vec<Range<usize>>) {
    let mut marks = marks(&text[range.clone()]);
    for mark in &mut marks {
        mark.span = mark.span.start + range.start..mark.span.end + range.start;
    }
    let (Some(first), Some(last)) = (marks.first(), marks.last()) else { return };
    let whole = first.span.start..last.span.end;
    let word = |mark: &Mark| &text[mark.span.clone()];
    let enclosed = word(first) == "("
        && marks.iter().position(|mark| mark.depth == 0 && word(mark) == ")") == Some(marks.len() - 1);
    if enclosed {
        let inner = first.span.end..last.span.start;
        let mut within = Vec::new();
        split(text, inner, sign, &mut within);
        // one part keeps its brackets: it may be what `||` joins
        return if within.len() == 1 { parts.push(whole) } else { parts.extend(within) };
    }
    let looser = |mark: &&Mark| mark.depth == 0 && (word(mark) == "if" || sign == "&&" && word(mark) == "||");
    if marks.iter().any(|mark| looser(&mark)) {
        return parts.push(whole);
    }
    let signs: Vec<&Mark> = marks.iter().filter(|mark| mark.depth == 0 && word(mark) == sign).collect();
    if signs.is_empty() {
        return parts.push(whole);
    }
    let mut start = whole.start;
    for mark in signs {
        split(text, start..mark.span.start, sign, parts);
        start = mark.span.end;
    }
    split(text, start..whole.end, sign, parts);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<(bool, Vec<String>)> {
        clauses(text)
            .into_iter()
            .map(|clause| (clause.unless, clause.parts.into_iter().map(|part| one_line(&text[part])).collect()))
            .collect()
    }

    #[test]
    fn a_policy_is_found_where_it_stands_alone() {
        let policy = "permit (principal, action, resource);";
        let text = format!("// {policy}\n@id(\"a;\") {policy}\n{policy} {policy}");
        let first = place_of(policy, &text, 0).unwrap();
        assert_eq!(text[..first].matches('\n').count(), 2);
        let second = place_of(policy, &text, first + 1).unwrap();
        assert_eq!((second, place_of(policy, &text, second + 1)), (text.len() - policy.len(), None));
    }

    #[test]
    fn conditions_come_apart_as_they_were_written() {
        let text = r#"@id("when { x }") permit (principal, action, resource)
            when { context.a == "&& \" }" && // not && this
                   (context.b < 3 && (context.c || context.d)) && ["x", "y"].contains(context.e) }
            unless { context.f || (context.g && context.h) } when { if a then b && c else d };"#;
        let expected = [
            (
                false,
                vec![
                    "context.a == \"&& \\\" }\"",
                    "context.b < 3",
                    "(context.c || context.d)",
                    "[\"x\", \"y\"].contains(context.e)",
                ],
            ),
            (true, vec!["context.f", "(context.g && context.h)"]),
            (false, vec!["if a then b && c else d"]),
        ];
        let found = parts(text);
        assert_eq!(found.len(), 3);
        for ((unless, found), (expected_unless, expected)) in found.iter().zip(expected) {
            assert_eq!((*unless, found.iter().map(String::as_str).collect::<Vec<_>>()), (expected_unless, expected));
        }
        assert_eq!(
            parts("permit (principal, action, resource) when { a || b && c };"),
            [(false, vec!["a || b && c".to_owned()])]
        );
        assert!(parts("permit (principal, action, resource);").is_empty());
        assert!(parts("when { \"患").is_empty(), "nothing is out of bounds in a broken text");
    }
}
