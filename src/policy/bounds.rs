//! Bounds on policy text, checked before Cedar sees it.
//!
//! Cedar's parser, validator and syntax trees recurse: sixty nested brackets, two hundred bytes, overflow the 2 MiB
//! stack of a worker thread, and a stack overflow ends the process. Policies arrive from peers, so text is bounded
//! first, and compiled on a stack that the bounds are known to fit ([`STACK`]).

/// Most bytes of policy text in a slice.
pub(super) const MAX_TEXT: usize = 2 << 20;
/// Deepest nesting of brackets.
const MAX_NESTING: usize = 32;
/// Most operators and brackets in one policy: no syntax tree is deeper than their number.
const MAX_OPERATORS: usize = 600;
/// Bytes of stack to compile on. Reserved, not used: memory is touched only as deep as the text goes. The tests hold
/// it to twice what the worst text within the bounds needs.
pub(super) const STACK: usize = 64 << 20;

/// What is out of bounds, and at which byte.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfBounds {
    pub offset: usize,
    pub problem: String,
}

/// Checks a text. Reads strings and comments exactly as Cedar's lexer does, so that nothing hides in them.
pub(super) fn check(text: &str) -> Result<(), OutOfBounds> {
    let (mut nesting, mut operators) = (0_usize, 0_usize);
    let mut rest = text.char_indices().peekable();
    while let Some((offset, c)) = rest.next() {
        let wrong = |problem: String| Err(OutOfBounds { offset, problem });
        if invisible(c) {
            return wrong(format!(
                "the character U+{:04X} can't be seen, and may show the text in another order than it is read",
                c as u32
            ));
        }
        match c {
            '"' => {
                while let Some((at, c)) = rest.next() {
                    if invisible(c) {
                        let problem = format!("the character U+{:04X} in a string can't be seen", c as u32);
                        return Err(OutOfBounds { offset: at, problem });
                    }
                    match c {
                        '"' => break,
                        '\\' => {
                            rest.next();
                        }
                        _ => {}
                    }
                }
            }
            '/' if rest.peek().is_some_and(|(_, next)| *next == '/') => {
                while let Some((at, c)) = rest.next_if(|(_, c)| !matches!(c, '\n' | '\r')) {
                    if invisible(c) {
                        let problem = format!("the character U+{:04X} in a comment can't be seen", c as u32);
                        return Err(OutOfBounds { offset: at, problem });
                    }
                }
            }
            '(' | '[' | '{' => {
                nesting += 1;
                operators += 1;
            }
            ')' | ']' | '}' => nesting = nesting.saturating_sub(1),
            ';' if nesting == 0 => operators = 0,
            c if c.is_alphabetic() || c == '_' => {
                let start = offset;
                let mut end = offset + c.len_utf8();
                while let Some((at, c)) = rest.next_if(|(_, c)| c.is_alphanumeric() || *c == '_') {
                    end = at + c.len_utf8();
                }
                if matches!(&text[start..end], "if" | "in" | "is" | "has" | "like") {
                    operators += 1;
                }
            }
            c if c.is_ascii_punctuation() && !matches!(c, ',' | ':' | ';' | '@') => operators += 1,
            _ => {}
        }
        if nesting > MAX_NESTING {
            return wrong(format!("brackets are nested deeper than {MAX_NESTING}"));
        }
        if operators > MAX_OPERATORS {
            return wrong(format!(
                "this policy has more than {MAX_OPERATORS} operators and brackets; write a set, or several policies"
            ));
        }
    }
    Ok(())
}

/// Control characters but the usual white space, and what changes the direction of text.
pub(super) fn invisible(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Option<String> {
        check(text).err().map(|out| out.problem)
    }

    #[test]
    fn nothing_hides_in_what_only_looks_like_a_string_or_a_comment() {
        let deep = "(".repeat(MAX_NESTING + 1);
        for open in [
            deep.clone(),
            format!("// \"\n{deep}"),
            format!("// \"\r{deep}"),
            format!("\"//\" {deep}"),
            format!("\"\\\"\" {deep}"),
            format!("\"\\\\\" {deep}"),
            format!("/ {deep}"),
        ] {
            assert!(problem(&open).unwrap().contains("nested deeper"), "{open:?}");
        }
        for hidden in [format!("// {deep}"), format!("\"{deep}\""), format!("\"\\\" {deep}\"")] {
            assert_eq!(problem(&hidden), None, "{hidden:?}");
        }
    }

    #[test]
    fn operators_are_counted_by_the_policy() {
        let one = format!("permit(principal, action, resource) when {{ {} }};", vec!["true"; 250].join(" && "));
        assert_eq!(problem(&one.repeat(3)), None);
        let long = format!("permit(principal, action, resource) when {{ {} }};", vec!["true"; 400].join(" && "));
        assert!(problem(&long).unwrap().contains("operators"));
        // a set is as wide as it likes
        let set = format!("[{}].contains(context.purpose)", vec!["\"research\""; 5000].join(", "));
        assert_eq!(problem(&set), None);
    }

    #[test]
    fn text_that_reads_otherwise_than_it_looks_is_refused_where_it_stands() {
        for (text, offset) in [("ab\u{202e}", 2), ("\"a\u{2066}\"", 2), ("// \u{200b}", 3), ("\u{1b}[0m", 0)] {
            assert_eq!(check(text).unwrap_err().offset, offset, "{text:?}");
        }
        assert_eq!(problem("// 只用于研究\n@id(\"仅研究\")\t\r\n"), None);
    }
}
