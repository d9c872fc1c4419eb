//! TOML with the place of each key, so that what is wrong is named with its line.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::policy::problem::{did_you_mean, harmless, line_column, nearest};

/// What is wrong in a file or a command line, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Line and column, both from 1, where it stands in a file.
    pub place: Option<(usize, usize)>,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// A value and its first byte.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub at: usize,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    /// A decimal number or a time, as it was written.
    Literal(String),
    Bool(bool),
    List(Vec<Item>),
    Table(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub at: usize,
    pub item: Item,
}

/// What is wrong at a byte, before the text is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub at: usize,
    pub problem: String,
}

impl At {
    pub fn new(at: usize, problem: impl Into<String>) -> Self {
        Self { at, problem: problem.into() }
    }

    pub fn in_text(self, text: &str) -> Wrong {
        Wrong { place: Some(line_column(text, self.at)), problem: self.problem }
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{line}:{column}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

impl std::error::Error for Wrong {}

/// Reads TOML.
pub(super) fn read(text: &str) -> Result<Item, At> {
    let table = DeTable::parse(text)
        .map_err(|error| At::new(error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
    let at = table.span().start;
    Ok(Item { at, value: table_of(table.into_inner())? })
}

/// Reads what stands behind `name=` on a command line: TOML if it is some, else text.
pub(super) fn inline(text: &str) -> Item {
    let parsed = DeValue::parse(text).ok().and_then(|value| item(value).ok());
    parsed.unwrap_or_else(|| Item { at: 0, value: Value::Text(text.to_owned()) })
}

fn table_of(table: DeTable<'_>) -> Result<Value, At> {
    let mut entries = Vec::new();
    for (key, value) in table {
        entries.push(Entry { at: key.span().start, key: key.into_inner().into_owned(), item: item(value)? });
    }
    entries.sort_by_key(|entry| entry.at);
    Ok(Value::Table(entries))
}

fn item(value: Spanned<DeValue<'_>>) -> Result<Item, At> {
    let at = value.span().start;
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => Value::Integer(
            i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
                .map_err(|_| At::new(at, format!("`{}` is too large", harmless(number.as_str()))))?,
        ),
        DeValue::Float(number) => Value::Literal(number.as_str().to_owned()),
        DeValue::Datetime(time) => Value::Literal(time.to_string()),
        DeValue::Boolean(flag) => Value::Bool(flag),
        DeValue::Array(items) => Value::List(items.into_iter().map(item).collect::<Result<_, _>>()?),
        DeValue::Table(table) => table_of(table)?,
    };
    Ok(Item { at, value })
}

impl Item {
    pub fn table() -> Self {
        Self { at: 0, value: Value::Table(Vec::new()) }
    }

    pub fn entries(&self) -> Result<&[Entry], At> {
        match &self.value {
            Value::Table(entries) => Ok(entries),
            _ => Err(At::new(self.at, "a table is wanted here: `{ name = value }`")),
        }
    }

    pub fn text(&self) -> Result<&str, At> {
        match &self.value {
            Value::Text(text) => Ok(text),
            _ => Err(At::new(self.at, "a text in quotes is wanted here")),
        }
    }

    pub fn texts(&self) -> Result<Vec<(&str, usize)>, At> {
        match &self.value {
            Value::List(items) => items.iter().map(|item| Ok((item.text()?, item.at))).collect(),
            _ => Err(At::new(self.at, "a list of texts is wanted here: `[\"a\", \"b\"]`")),
        }
    }

    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.item),
            _ => None,
        }
    }

    /// Refuses keys that nobody reads.
    pub fn only(&self, known: &[&str]) -> Result<(), At> {
        for entry in self.entries()? {
            if !known.contains(&entry.key.as_str()) {
                let hint = did_you_mean(nearest(&entry.key, known.iter().copied()), "");
                let problem =
                    format!("unknown key `{}`{hint}; known here are {}", harmless(&entry.key), known.join(", "));
                return Err(At::new(entry.at, problem));
            }
        }
        Ok(())
    }

    /// This one, with what `over` says instead, member by member.
    pub fn merged(&self, over: &Self) -> Self {
        let (Value::Table(below), Value::Table(above)) = (&self.value, &over.value) else { return over.clone() };
        let mut entries = below.clone();
        for entry in above {
            match entries.iter_mut().find(|known| known.key == entry.key) {
                Some(known) => *known = Entry { item: known.item.merged(&entry.item), ..entry.clone() },
                None => entries.push(entry.clone()),
            }
        }
        Self { at: over.at, value: Value::Table(entries) }
    }

    /// Puts a value at a path, making tables on the way.
    pub fn put(&mut self, path: &[&str], item: Self) {
        let Some((first, rest)) = path.split_first() else { return *self = item };
        if !matches!(self.value, Value::Table(_)) {
            *self = Self::table();
        }
        let Value::Table(entries) = &mut self.value else { return };
        let place = entries.iter().position(|entry| entry.key == *first).unwrap_or_else(|| {
            entries.push(Entry { key: (*first).to_owned(), at: 0, item: Self::table() });
            entries.len() - 1
        });
        entries[place].item.put(rest, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_case_says_goes_over_what_all_have() {
        let base = read("context = { purpose = \"a\", frequency = { day = 1, hour = 2 } }").unwrap();
        let over = read("context = { frequency = { day = 3 } }").unwrap();
        let merged = base.merged(&over);
        let context = merged.get("context").unwrap();
        assert_eq!(context.get("purpose").unwrap().text().unwrap(), "a");
        let day = context.get("frequency").and_then(|often| often.get("day")).unwrap();
        assert_eq!(day.value, Value::Integer(3));
        assert!(context.get("frequency").unwrap().get("hour").is_some());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place() {
        let text = "a = 1\nnmae = 2\n";
        let wrong = read(text).unwrap().only(&["a", "name"]).unwrap_err().in_text(text);
        assert_eq!(wrong.place, Some((2, 1)));
        assert!(wrong.to_string().contains("did you mean `name`"), "{wrong}");
    }

    #[test]
    fn a_command_line_gives_toml_or_text() {
        assert_eq!(inline("2").value, Value::Integer(2));
        assert_eq!(inline("research").value, Value::Text("research".into()));
        assert_eq!(inline("[\"a\"]").texts().unwrap(), [("a", 1)]);
        assert_eq!(inline("2026-03-02T10:00:00+08:00").value, Value::Literal("2026-03-02T10:00:00+08:00".into()));
    }
}
