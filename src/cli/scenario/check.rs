//! Whether a step came out as was expected; and what came out of a use.

use anyhow::Context as _;
use bytes::Bytes;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use serde_json::Value;

use super::step::{Step, Use};
use crate::{
    cli::{output::plain, stage::Teller},
    error::Refusal,
};

/// Holds what came of a step against what the file says.
pub fn expected(step: &Step, came: Result<(), Refusal>, teller: &mut Teller) -> anyhow::Result<()> {
    match (&step.expect, came) {
        (None, Ok(())) => match &step.deny {
            Some(deny) => teller.check(true, format!("so it is denied: {deny}"), format!("由此拒绝：{deny}")),
            None => Ok(()),
        },
        (None, Err(refusal)) => teller.check(
            false,
            format!("it is done; but it was refused: {refusal}"),
            format!("应当完成，却被拒绝：{refusal}"),
        ),
        (Some(code), Ok(())) => teller.check(
            false,
            format!("it is refused with `{code}`; but it was done"),
            format!("应当以 `{code}` 被拒，却完成了"),
        ),
        (Some(code), Err(refusal)) => {
            let says = step.says.as_deref().unwrap_or_default();
            if refusal.is(code) && refusal.sentence.contains(says) {
                let deny = step.deny.as_ref().map(|deny| format!(" ({deny})")).unwrap_or_default();
                return teller.check(true, format!("refused{deny}: {refusal}"), format!("被拒{deny}：{refusal}"));
            }
            let wanted = if says.is_empty() { format!("`{code}`") } else { format!("`{code}` and “{says}”") };
            teller.check(
                false,
                format!("it is refused with {wanted}; but: {refusal}"),
                format!("应当以 {wanted} 被拒，实为：{refusal}"),
            )
        }
    }
}

/// What came out of a use.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its columns, in order.
    columns: Vec<String>,
    /// How many rows.
    rows: usize,
    /// All of it as text.
    text: String,
}

impl Seen {
    /// Reads CSV, JSON, JSON Lines or Parquet: each says by its first bytes what it is.
    pub fn read(bytes: Vec<u8>) -> anyhow::Result<Self> {
        if bytes.starts_with(b"PAR1") {
            return Self::parquet(bytes);
        }
        let text = String::from_utf8(bytes).context("what came out is neither text nor Parquet")?;
        let rows: Vec<Value> = match text.trim_start().chars().next() {
            Some('[') => serde_json::from_str(&text)?,
            Some('{') => text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?,
            _ => return Self::csv(text),
        };
        let columns = rows.first().and_then(Value::as_object).map(|row| row.keys().cloned().collect());
        Ok(Self { columns: columns.unwrap_or_default(), rows: rows.len(), text })
    }

    fn csv(text: String) -> anyhow::Result<Self> {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let columns = reader.headers()?.iter().map(str::to_owned).collect();
        let mut rows = 0;
        for record in reader.records() {
            record?;
            rows += 1;
        }
        Ok(Self { columns, rows, text })
    }

    fn parquet(bytes: Vec<u8>) -> anyhow::Result<Self> {
        let reader = SerializedFileReader::new(Bytes::from(bytes))?;
        let schema = reader.metadata().file_metadata().schema_descr();
        let columns: Vec<String> = schema.columns().iter().map(|column| column.name().to_owned()).collect();
        let rows = reader.get_row_iter(None)?.collect::<Result<Vec<_>, _>>()?;
        let lines: Vec<String> = rows.iter().map(ToString::to_string).collect();
        Ok(Self { columns, rows: lines.len(), text: lines.join("\n") })
    }

    /// Holds it against what the step says.
    pub fn check(&self, wanted: &Use, teller: &mut Teller) -> anyhow::Result<()> {
        for line in self.text.lines().take(3) {
            let short: String = line.chars().take(120).collect();
            teller.show(&plain(&short));
        }
        let came = self.columns.join(", ");
        match &wanted.columns {
            Some(columns) if self.columns != *columns => {
                let wanted = columns.join(", ");
                let (en, zh) =
                    (format!("the columns are {wanted}; but: {came}"), format!("列应为 {wanted}，实为 {came}"));
                teller.check(false, en, zh)?;
            }
            Some(_) => teller.check(true, format!("the columns are {came}"), format!("列为 {came}"))?,
            None => {}
        }
        let came = self.rows;
        match wanted.rows {
            Some(rows) if came != rows => {
                teller.check(
                    false,
                    format!("{rows} rows come out; but: {came}"),
                    format!("应得 {rows} 行，实得 {came} 行"),
                )?;
            }
            _ => teller.check(true, format!("{came} rows come out"), format!("得到 {came} 行"))?,
        }
        for text in &wanted.shows {
            teller.check(
                self.text.contains(text),
                format!("`{text}` stands in what came out"),
                format!("结果中有 `{text}`"),
            )?;
        }
        for text in &wanted.hides {
            teller.check(
                !self.text.contains(text),
                format!("`{text}` stands nowhere in what came out"),
                format!("结果中没有 `{text}`"),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Lang, Voice};

    fn step(expect: Option<&str>, says: Option<&str>) -> Step {
        Step {
            line: 1,
            say: String::new(),
            say_zh: String::new(),
            deny: None,
            expect: expect.map(str::to_owned),
            says: says.map(str::to_owned),
            act: crate::cli::scenario::step::Act::Tamper { at: "a".into() },
        }
    }

    #[test]
    fn only_what_the_file_says_is_as_expected() {
        let mut teller = Teller::new(Voice::Silent, Lang::En);
        let no = || Err(Refusal::new("policy-no-permit", "no policy permits this"));
        for (expect, says, came, fine) in [
            (None, None, Ok(()), true),
            (None, None, no(), false),
            (Some("policy-no-permit"), None, Ok(()), false),
            (Some("policy-no-permit"), None, no(), true),
            (Some("policy-forbids"), None, no(), false),
            (Some("policy-no-permit"), Some("permits"), no(), true),
            (Some("policy-no-permit"), Some("forbids"), no(), false),
        ] {
            assert_eq!(expected(&step(expect, says), came, &mut teller).is_ok(), fine, "{expect:?} {says:?}");
        }
    }

    #[test]
    fn what_came_out_is_read_in_each_format() {
        for text in [
            "id,age\r\n1,\"3,8\"\r\n2,4\r\n",
            "[{\"id\":1,\"age\":3},{\"id\":2,\"age\":4}]",
            "{\"id\":1,\"age\":3}\n{\"id\":2,\"age\":4}\n",
        ] {
            let came = Seen::read(text.into()).unwrap();
            assert_eq!((came.columns.join(","), came.rows), ("id,age".to_owned(), 2), "{text}");
        }
        assert!(Seen::read(vec![0xff, 0xfe]).is_err());
        assert!(Seen::read(b"{\"id\":1}\nbroken".to_vec()).is_err());
    }

    #[test]
    fn a_check_on_what_came_out_can_fail() {
        let came = || Seen::read(b"id,age\n1,38\n".to_vec()).unwrap();
        let check = |rest: &str| {
            let wanted: Use = toml::from_str(&format!("by = \"a\"\nof = \"d\"\npurpose = \"x\"\n{rest}")).unwrap();
            came().check(&wanted, &mut Teller::new(Voice::Silent, Lang::En)).is_ok()
        };
        assert!(check("columns = [\"id\", \"age\"]\nrows = 1\nshows = [\"38\"]\nhides = [\"39\"]"));
        for wrong in ["columns = [\"age\", \"id\"]", "rows = 2", "shows = [\"39\"]", "hides = [\"38\"]"] {
            assert!(!check(wrong), "{wrong}");
        }
    }
}
