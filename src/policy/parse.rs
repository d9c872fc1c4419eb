//! The obligations' little language: `name(argument, …); name; …`.

use crate::policy::{
    After, Before, Columns,
    obligation::{Args, Obligation, ObligationError},
};

/// Parses what stands in `@during("…")` or a floor. Empty text is an error: an annotation that says nothing is a
/// mistake.
pub(super) fn obligations(text: &str, columns: &Columns) -> Result<Vec<Obligation>, ObligationError> {
    statements(text, |name, args| Obligation::build(name, args, columns))
}

/// Parses what stands in `@before("…")`.
pub(super) fn before(text: &str) -> Result<Vec<Before>, ObligationError> {
    statements(text, Before::build)
}

/// Parses what stands in `@after("…")`.
pub(super) fn after(text: &str) -> Result<Vec<After>, ObligationError> {
    statements(text, After::build)
}

/// The statements of a text, not yet looked at.
pub(super) fn pieces(text: &str) -> Result<Vec<(String, Args)>, ObligationError> {
    statements(text, |name, args| Ok((name.to_owned(), Args { words: args.words.clone(), raw: args.raw.clone() })))
}

/// Reads `name(arguments); …`, each built into what it means.
pub(super) fn statements<T>(
    text: &str,
    build: impl Fn(&str, &Args) -> Result<T, ObligationError>,
) -> Result<Vec<T>, ObligationError> {
    let mut parser = Parser { rest: text };
    let mut found = Vec::new();
    loop {
        parser.space();
        if parser.rest.is_empty() {
            break;
        }
        let name = parser.word()?;
        parser.space();
        let args = if parser.rest.starts_with('(') { parser.arguments(name == "filter")? } else { Args::default() };
        found.push(build(&name, &args)?);
        parser.space();
        match parser.rest.strip_prefix(';') {
            Some(rest) => parser.rest = rest,
            None if parser.rest.is_empty() => {}
            None => return Err(parser.wrong("`;` between obligations")),
        }
    }
    if found.is_empty() {
        return Err(ObligationError::Syntax("no obligation in it; leave it out if nothing is demanded".into()));
    }
    Ok(found)
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn wrong(&self, expected: &str) -> ObligationError {
        let found: String = self.rest.chars().take(20).collect();
        let found = if found.is_empty() { "the end".to_owned() } else { format!("`{found}`") };
        ObligationError::Syntax(format!("expected {expected}, found {found}"))
    }

    /// A name, a number, or anything in quotes.
    fn word(&mut self) -> Result<String, ObligationError> {
        if let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            let (word, rest) = self.rest[1..].split_once(quote).ok_or_else(|| self.wrong("a closing quote"))?;
            self.rest = rest;
            return Ok(word.to_owned());
        }
        let end =
            self.rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.wrong("a name"));
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(word.to_owned())
    }

    fn arguments(&mut self, raw: bool) -> Result<Args, ObligationError> {
        let text = self.parenthesised()?;
        if raw {
            return Ok(Args { words: Vec::new(), raw: text.to_owned() });
        }
        let mut inner = Parser { rest: text };
        let mut words = Vec::new();
        inner.space();
        while !inner.rest.is_empty() {
            words.push(inner.word()?);
            inner.space();
            match inner.rest.strip_prefix(',') {
                Some(rest) => {
                    inner.rest = rest;
                    inner.space();
                    if inner.rest.is_empty() {
                        return Err(inner.wrong("an argument after `,`"));
                    }
                }
                None if inner.rest.is_empty() => {}
                None => return Err(inner.wrong("`,` or `)`")),
            }
        }
        Ok(Args { words, raw: String::new() })
    }

    /// What stands between `(` and its `)`; parentheses within quotes don't count.
    fn parenthesised(&mut self) -> Result<&'a str, ObligationError> {
        let (mut depth, mut quote) = (0_usize, None);
        for (at, c) in self.rest.char_indices() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(c),
                (None, '(') => depth += 1,
                (None, ')') => {
                    depth -= 1;
                    if depth == 0 {
                        let text = &self.rest[1..at];
                        self.rest = &self.rest[at + 1..];
                        return Ok(text);
                    }
                }
                (None, _) => {}
            }
        }
        Err(self.wrong("`(` with its `)`"))
    }
}
