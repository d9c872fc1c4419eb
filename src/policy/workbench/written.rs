//! Obligations and duties, as they are written in a policy.

use crate::policy::{ColumnRule, Duties, Obligations};

/// Obligations, one by one, in the order in which they are applied.
pub fn written(obligations: &Obligations) -> Vec<String> {
    let Obligations { columns, keep, filter, limit, quota, matching, at_least, watermark, seal } = obligations;
    let names = |names: &mut dyn Iterator<Item = &String>| names.map(|name| word(name)).collect::<Vec<_>>().join(", ");
    let mut written = Vec::new();
    if !matching.is_empty() {
        written.push(format!("match({})", names(&mut matching.iter())));
    }
    written.extend(filter.as_ref().map(|filter| format!("filter({})", filter.tree)));
    written.extend(quota.map(|records| format!("quota({records})")));
    written.extend(limit.map(|rows| format!("limit({rows})")));
    let mut dropped = Vec::new();
    for (column, rule) in columns {
        let name = word(column);
        written.push(match rule {
            ColumnRule::Drop => {
                dropped.push(column);
                continue;
            }
            ColumnRule::Redact => format!("redact({name})"),
            ColumnRule::Nullify => format!("nullify({name})"),
            ColumnRule::Hash(domain) if domain == column => format!("hash({name})"),
            ColumnRule::Hash(domain) => format!("hash({name}, {})", word(domain)),
            ColumnRule::ShowFirst(count) => format!("show_first({name}, {count})"),
            ColumnRule::ShowLast(count) => format!("show_last({name}, {count})"),
            ColumnRule::Year => format!("year({name})"),
            ColumnRule::Band(width) => format!("band({name}, {width})"),
            ColumnRule::Round(places) => format!("round({name}, {places})"),
        });
    }
    written
        .extend(at_least.as_ref().map(|group| format!("at_least({}, {})", group.k, names(&mut group.columns.iter()))));
    if !dropped.is_empty() {
        written.push(format!("drop({})", names(&mut dropped.into_iter())));
    }
    written.extend(keep.as_ref().map(|kept| format!("keep({})", names(&mut kept.iter()))));
    for (column, keys) in watermark {
        written.push(format!("watermark({}, {})", word(column), names(&mut keys.iter())));
    }
    written.extend(seal.then(|| "seal".to_owned()));
    written
}

/// What is owed afterwards, one by one.
pub fn promised(duties: &Duties) -> Vec<String> {
    duties.written()
}

fn word(name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if plain {
        name.to_owned()
    } else if name.contains('\'') {
        format!("\"{name}\"")
    } else {
        format!("'{name}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Column, ColumnKind, Columns, Obligations, parse};

    #[test]
    fn what_is_written_reads_as_the_same() {
        let column = |name: &str, kind| Column { name: name.into(), kind };
        let columns = Columns::new(vec![
            column("id", ColumnKind::Integer),
            column("age", ColumnKind::Integer),
            column("day", ColumnKind::Date),
            column("a name", ColumnKind::Text),
            column("o'clock", ColumnKind::Text),
        ])
        .unwrap();
        let text = "match(id); filter(age > 3 and day = '2020-01-01'); quota(9); limit(5); hash(id, people); band(age, 10); year(day); at_least(5, age, day); drop('a name', \"o'clock\"); keep(id, age, day); seal";
        let met = Obligations::meet(&parse::obligations(text, &columns).unwrap());
        let again = written(&met).join("; ");
        assert_eq!(Obligations::meet(&parse::obligations(&again, &columns).unwrap()), met, "{again}");
        assert!(again.contains("band(age, 10)") && again.ends_with("seal"), "{again}");
    }
}
