//! Where the slots stand in a template's files: read as Cedar's and TOML's own lexers would, so that a value is written
//! for its place.

/// A piece of a template.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Text, as it is.
    Text(&'a str),
    /// `{{inner}}`
    Slot { at: usize, inner: &'a str, within: Within },
}

/// What a slot stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    /// Cedar, where a literal may stand.
    Cedar,
    /// TOML, where a value or a key may stand.
    Toml,
    /// A string of either.
    Text,
    /// An obligation in a string, where an argument may stand.
    Obligation,
    /// A filter in a string.
    Filter,
}

/// What is wrong at which byte.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub at: usize,
    pub problem: String,
}

/// `name`, `name.first`, `name - 1`, `name + P1D`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placeholder<'a> {
    pub name: &'a str,
    pub first: bool,
    /// Whether back, and by how much.
    pub shift: Option<(bool, &'a str)>,
}

impl<'a> Placeholder<'a> {
    pub fn parse(inner: &'a str) -> Result<Self, String> {
        let words: Vec<&str> = inner.split_whitespace().collect();
        let (name, shift) = match words.as_slice() {
            [name] => (*name, None),
            [name, "-", by] => (*name, Some((true, *by))),
            [name, "+", by] => (*name, Some((false, *by))),
            _ => return Err(format!("`{{{{{inner}}}}}` is no slot: write {{{{name}}}} or {{{{name + 1}}}}")),
        };
        let (name, first) = name.strip_suffix(".first").map_or((name, false), |name| (name, true));
        Ok(Self { name, first, shift })
    }
}

/// Reads a Cedar file.
pub(super) fn cedar(text: &str) -> Result<Vec<Piece<'_>>, Wrong> {
    let mut reader = Reader::new(text);
    // the last name in the code: `like`, or that of the annotation which a string belongs to
    let (mut name, mut is_annotation, mut at_sign) = (String::new(), false, false);
    while let Some((at, c)) = reader.next() {
        match c {
            '{' if reader.slot(at, Within::Cedar)? => name.clear(),
            '/' if reader.peek() == Some('/') => reader.until_line_end()?,
            '"' => {
                reader.string(match name.as_str() {
                    "like" => Language::Pattern,
                    "before" | "during" | "after" if is_annotation => Language::Obligations,
                    _ => Language::Text,
                })?;
                name.clear();
            }
            '@' => at_sign = true,
            c if is_word(c) => {
                name = String::from(c);
                while let Some(c) = reader.peek().filter(|c| is_word(*c)) {
                    name.push(c);
                    reader.next();
                }
                is_annotation = std::mem::take(&mut at_sign);
            }
            '(' => {}
            c if c.is_whitespace() => {}
            _ => name.clear(),
        }
    }
    Ok(reader.done())
}

/// Reads a TOML file: comments, bare text and basic strings of one line.
pub(super) fn toml(text: &str) -> Result<Vec<Piece<'_>>, Wrong> {
    let mut reader = Reader::new(text);
    let (mut word, mut key) = (String::new(), String::new());
    while let Some((at, c)) = reader.next() {
        match c {
            '{' if reader.slot(at, Within::Toml)? => {}
            '#' => reader.until_line_end()?,
            '\'' => return Err(Wrong { at, problem: "a literal string; templates use \"…\"".into() }),
            '"' if text[at..].starts_with("\"\"\"") => {
                return Err(Wrong { at, problem: "a string of several lines; templates use \"…\"".into() });
            }
            '"' => reader.string(match key.as_str() {
                "obligations" | "floor" | "connector_floor" | "met" | "open" | "after" => Language::Obligations,
                "filter" => Language::Filter,
                _ => Language::Text,
            })?,
            '=' => key = std::mem::take(&mut word),
            c if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') => word.push(c),
            ' ' | '\t' => {}
            _ => word.clear(),
        }
    }
    Ok(reader.done())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What a string is written in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Text,
    Obligations,
    Filter,
    /// `*` in it is no character.
    Pattern,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    kept: usize,
    pieces: Vec<Piece<'a>>,
}

impl<'a> Reader<'a> {
    const fn new(text: &'a str) -> Self {
        Self { text, at: 0, kept: 0, pieces: Vec::new() }
    }

    fn next(&mut self) -> Option<(usize, char)> {
        let at = self.at;
        let c = self.text[at..].chars().next()?;
        self.at += c.len_utf8();
        Some((at, c))
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    /// Takes a slot whose first `{` is at this byte; false if there is none.
    fn slot(&mut self, at: usize, within: Within) -> Result<bool, Wrong> {
        let Some(rest) = self.text[at..].strip_prefix("{{") else { return Ok(false) };
        let Some((inner, _)) = rest.split_once("}}").filter(|(inner, _)| !inner.contains('\n')) else {
            return Err(Wrong { at, problem: "`{{` without its `}}`".into() });
        };
        self.pieces.push(Piece::Text(&self.text[self.kept..at]));
        self.pieces.push(Piece::Slot { at, inner: inner.trim(), within });
        self.at = at + inner.len() + 4;
        self.kept = self.at;
        Ok(true)
    }

    /// Goes to the end of a comment.
    fn until_line_end(&mut self) -> Result<(), Wrong> {
        while let Some((at, c)) = self.next() {
            match c {
                '\n' | '\r' => break,
                '{' if self.peek() == Some('{') => {
                    return Err(Wrong { at, problem: "a slot in a comment: a value could end it".into() });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Goes behind the quote that ends a string.
    fn string(&mut self, language: Language) -> Result<(), Wrong> {
        let mut inside = Inside { quote: None, filter: usize::from(language == Language::Filter), word: String::new() };
        while let Some((at, c)) = self.next() {
            match c {
                '"' => return Ok(()),
                '\n' | '\r' => break,
                '\\' => {
                    if let Some((_, escaped)) = self.next() {
                        inside.look(escaped);
                    }
                }
                '{' if self.peek() == Some('{') => {
                    let within = match language {
                        Language::Text => Within::Text,
                        Language::Pattern => {
                            return Err(Wrong {
                                at,
                                problem: "a slot in a pattern: its `*` would be no character".into(),
                            });
                        }
                        _ if inside.quote.is_some() => {
                            let problem = "a slot in quotes of an obligation: leave the quotes out".into();
                            return Err(Wrong { at, problem });
                        }
                        _ if inside.filter > 0 => Within::Filter,
                        _ => Within::Obligation,
                    };
                    self.slot(at, within)?;
                }
                c => inside.look(c),
            }
        }
        Err(Wrong { at: self.at.min(self.text.len()), problem: "a string without its end on the line".into() })
    }

    fn done(mut self) -> Vec<Piece<'a>> {
        self.pieces.push(Piece::Text(&self.text[self.kept..]));
        self.pieces
    }
}

/// Where one is in the obligations' language.
struct Inside {
    quote: Option<char>,
    /// Brackets since `filter(`, that one included; 0 outside of it.
    filter: usize,
    word: String,
}

impl Inside {
    fn look(&mut self, c: char) {
        match (self.quote, c) {
            (Some(open), c) if c == open => self.quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => self.quote = Some(c),
            (None, '(') if self.filter > 0 || self.word == "filter" => self.filter += 1,
            (None, ')') => self.filter = self.filter.saturating_sub(1),
            _ => {}
        }
        match c {
            c if is_word(c) => self.word.push(c),
            ' ' => {}
            _ => self.word.clear(),
        }
    }
}
