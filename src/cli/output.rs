//! What a terminal shows.

use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use crate::error::Refusal;

/// How results are shown.
pub struct Output {
    /// One JSON value instead of text.
    pub json: bool,
}

impl Output {
    /// Shows a result: as JSON, or as the lines that `text` makes of it.
    pub fn show(&self, value: &Value, text: impl FnOnce(&Value) -> String) {
        let text = if self.json { value.to_string() } else { text(value) };
        if !text.is_empty() {
            // a reader that has seen enough (`| head`) is no failure of ours
            let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
        }
    }
}

/// Prints a line; a reader that has seen enough is no failure of ours.
macro_rules! said {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($line)*);
    }};
}
pub(super) use said;

/// Shows why a command failed.
pub fn failure(error: &anyhow::Error, json: bool) {
    match error.downcast_ref::<Refusal>() {
        Some(refusal) if json => {
            eprintln!("{}", serde_json::json!({ "code": refusal.code, "reason": refusal.sentence }))
        }
        Some(refusal) => eprintln!("error: {} [{}]", plain(&refusal.sentence), refusal.code),
        None if json => eprintln!("{}", serde_json::json!({ "code": "failed", "reason": format!("{error:#}") })),
        None => eprintln!("error: {error:#}"),
    }
}

/// Text of a partner's, without what would steer a terminal or turn its reading order.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => ' ',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// What must not be overlooked: red, where a terminal shows colours (<https://no-color.org>).
pub fn alarming(line: &str) -> String {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if colours { format!("\x1b[1;31m{}\x1b[0m\n", line.trim_end_matches('\n')) } else { line.to_owned() }
}

/// A member of a JSON object as text.
pub fn text(value: &Value, member: &str) -> String {
    match &value[member] {
        Value::String(text) => plain(text),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// Text with spaces behind it up to this many columns of a terminal; Chinese takes two each.
pub fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// How many columns of a terminal a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Lines with aligned columns.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|name| name.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            line.push_str(&padded(cell, width + 2));
        }
        format!("{}\n", line.trim_end())
    };
    let mut out = line(&mut header.iter().copied());
    for row in rows {
        out.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    out
}

/// A table of these members of each value.
pub fn rows(values: &Value, members: &[&str]) -> String {
    let rows: Vec<Vec<String>> = values
        .as_array()
        .into_iter()
        .flatten()
        .map(|value| members.iter().map(|member| text(value, member)).collect())
        .collect();
    if rows.is_empty() { "none".to_owned() } else { table(members, &rows) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partners_text_can_not_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\u{202e}c\r\nd"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd} d");
    }
}
