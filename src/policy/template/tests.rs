use super::*;
use crate::policy::{PolicyError, PolicySource, Slice};

/// What would end a string, a list, an obligation, a policy, a line or a file, if it went in as text.
const HOSTILE: [&str; 8] = [
    "\") permit(principal, action, resource);//",
    "\"\n\n@id(\"x\") permit(principal, action, resource);",
    "x\"; permit(principal, action, resource); \"",
    "') ; keep(a)",
    "a' OR 'a' = 'a",
    "\\\") permit(principal, action, resource); //",
    "x\"\n[audience]\nplain = true\n#",
    "{{title}}",
];

fn compiled(rendered: &Rendered, columns: &Columns) -> Result<Slice, PolicyError> {
    let own = PolicySource { name: "policy.cedar", text: &rendered.policy };
    Slice::compile(own, PolicySource { name: "global", text: "" }, "", "", columns)
}

/// Ids, effects and actions of the policies: what no value may change.
fn shape(slice: &Slice) -> Vec<String> {
    slice.clauses().iter().map(|clause| format!("{} {} {}", clause.id, clause.permit, clause.parts.len())).collect()
}

fn small(policy: &str, offer: &str, slots: &str) -> Result<Template, TemplateError> {
    let template = format!(
        "id = \"small\"\ntitle = \"t\"\ntitleZh = \"t\"\ndescription = \"d\"\ndescriptionZh = \"d\"\nforWhom = \"w\"\n\
         forWhomZh = \"w\"\n[columns]\nid = \"text\"\nage = \"integer\"\n{slots}"
    );
    Template::parse(TemplateFiles { name: "small", template: &template, policy, tests: "", offer })
}

fn slot(name: &str, kind: &str, example: &str) -> String {
    format!("[[slot]]\nname = \"{name}\"\ntype = \"{kind}\"\nprompt = \"p\"\npromptZh = \"p\"\nexample = {example}\n")
}

#[test]
fn every_folder_is_embedded_and_none_is_broken() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/templates");
    let folders: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    let embedded: BTreeSet<String> = library().unwrap().iter().map(|template| template.about().id.clone()).collect();
    assert_eq!(folders, embedded);
}

#[test]
fn every_template_compiles_with_its_examples_against_its_columns() {
    for template in library().unwrap() {
        let rendered = template.render(&template.examples()).unwrap();
        let name = &template.about().id;
        compiled(&rendered, template.columns()).unwrap_or_else(|error| panic!("{name}: {error}"));
        toml::from_str::<toml::Table>(&rendered.tests).unwrap_or_else(|error| panic!("{name}: {error}"));
        toml::from_str::<toml::Table>(&rendered.offer).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!rendered.policy.contains("{{"), "{name}");
    }
}

#[test]
fn no_value_of_any_slot_can_break_out() {
    let (mut refused, mut taken, mut compiling) = (0, 0, 0);
    for template in library().unwrap() {
        let name = template.about().id.clone();
        let rendered = template.render(&template.examples()).unwrap();
        let expected = shape(&compiled(&rendered, template.columns()).unwrap());
        let keys = |text: &str| {
            let table: toml::Table = toml::from_str(text).unwrap();
            format!(
                "{:?} {:?}",
                table.keys().collect::<Vec<_>>(),
                table.get("case").map(|cases| cases.as_array().unwrap().len())
            )
        };
        for slot in template.slots() {
            for hostile in HOSTILE {
                let mut values = template.examples();
                let value = if slot.list { serde_json::to_string(&[hostile]).unwrap() } else { hostile.to_owned() };
                values.insert(slot.name.clone(), value);
                let Ok(attacked) = template.render(&values) else {
                    refused += 1;
                    continue;
                };
                taken += 1;
                let place = format!("{name}: {} = {hostile}", slot.name);
                // what is no group's or participant's name is refused later; what compiles has the same policies
                if let Ok(slice) = compiled(&attacked, template.columns()) {
                    assert_eq!(shape(&slice), expected, "{place}");
                    compiling += 1;
                }
                assert_eq!(keys(&attacked.tests), keys(&rendered.tests), "{place}");
                assert_eq!(keys(&attacked.offer), keys(&rendered.offer), "{place}");
            }
        }
    }
    assert!(refused > 500 && taken > 300 && compiling > 300, "{refused} refused, {taken} taken, {compiling} compiling");
}

#[test]
fn a_hostile_column_name_stays_a_name() {
    for hostile in ["x\"); drop(id)", "a\") permit(principal, action, resource);//", "a, b", "it's"] {
        let columns = Columns::new(vec![
            Column { name: hostile.into(), kind: ColumnKind::Text },
            Column { name: "id".into(), kind: ColumnKind::Text },
        ])
        .unwrap();
        let template = find("content").unwrap().with_columns(columns.clone());
        let mut values = template.examples();
        values.insert("fields".into(), serde_json::to_string(&[hostile]).unwrap());
        values.insert("row_column".into(), hostile.into());
        let rendered = template.render(&values).unwrap();
        let slice =
            compiled(&rendered, &columns).unwrap_or_else(|error| panic!("{hostile}: {error}\n{}", rendered.policy));
        let demanded = slice.demanded(&["content".to_owned()]);
        assert_eq!(demanded.keep, Some([hostile.to_owned()].into()), "{hostile}");
        assert_eq!(demanded.filter.unwrap().columns(), [hostile], "{hostile}");
    }
    // the obligations' language has no escapes
    let both = Columns::new(vec![Column { name: "a'\"b".into(), kind: ColumnKind::Text }]).unwrap();
    let template = find("content").unwrap().with_columns(both);
    let mut values = template.examples();
    values.insert("fields".into(), "a'\"b".into());
    values.insert("row_column".into(), "a'\"b".into());
    let refused = template.render(&values).unwrap_err();
    assert!(refused.to_string().contains("both kinds of quotes"), "{refused}");
}

#[test]
fn each_type_takes_its_own_and_names_what_it_takes() {
    for (kind, more, good, bad, word) in [
        ("text", "", "a, b \"c\" 中文", "", "one line"),
        ("text", "", "x", "a\u{202e}b", "one line"),
        ("identifier", "", "a-b.c/d:e", "a b", "letters, digits"),
        ("did", "", "did:web:a.invalid", "a.invalid", "DID"),
        ("integer", "min = 1\nmax = 9", "9", "10", "from 1 to 9"),
        ("integer", "", "-3", "3.5", "whole number"),
        ("decimal", "min = \"0\"", "12.5", "-0.1", "at least 0"),
        ("duration", "max = \"P1D\"", "PT24H", "P2D", "at most P1D"),
        ("duration", "", "P90D", "P3M", "ISO 8601"),
        ("datetime", "", "2026-04-01T00:00:00+08:00", "2026-04-01", "a time"),
        ("date", "", "2026-04-01", "2026-02-30", "a day"),
        ("region", "", "CN-4403", "Hong Kong", "ISO 3166"),
        ("role", "", "ethics_board", "ethics board", "letters, digits"),
        ("network", "", "10.20.0.0/16", "10.20.0.0/33", "range"),
        ("network", "", "2001:db8::1", "10.20", "range"),
        ("action", "", "resultDownload", "release", "a use"),
        ("column", "", "age", "agee", "did you mean `age`"),
        ("column", "kinds = [\"text\"]", "id", "age", "holds integers"),
        ("choice", "choices = [\"a\", \"b\"]", "b", "c", "one of a, b"),
        ("list of role", "", "a, b", "a,,b", "commas"),
        ("list of role", "", "[\"a\"]", "[\"a\", \"a\"]", "only once"),
    ] {
        let slots = slot("s", kind, &format!("{good:?}")) + more;
        // the offer has no real shape here: what is looked at is which values are taken
        let template = small("", "s = {{s}}", &slots).unwrap_or_else(|error| panic!("{kind} {good}: {error}"));
        let error = template.render(&[("s".to_owned(), bad.to_owned())].into()).unwrap_err();
        assert_eq!(error.code(), "template-slot-value", "{kind} {bad}");
        assert!(error.to_string().contains(word) && error.to_string().contains("`s`"), "{kind}: {error}");
    }
}

#[test]
fn a_value_is_written_for_its_place() {
    let slots = slot("t", "text", "\"it's \\\"so\\\"\"")
        + &slot("c", "list of column", "[\"id\", \"age\"]")
        + &slot("d", "duration", "\"P90D\"")
        + &slot("u", "date", "\"2026-03-31\"")
        + &slot("n", "integer", "3")
        + &slot("a", "list of action", "[\"read\", \"view\"]")
        + &slot("o", "text", "\"it's\"");
    let policy = "@a({{c}}) {{t}} {{d}} {{u + P1D}} {{n - 1}} {{a}} {{a.first}} \"{{t}} {{d}}\"\n\
                  @during(\"keep({{c}}); accept({{o}}); filter({{c.first}} = {{o}})\")";
    let offer = "t = {{t}}\nd = {{d}}\nu = \"{{u - P31D}}T00:00\"\nfloor = \"keep({{c}})\"\nfilter = \"{{c.first}} = {{o}}\"\n\
                 met = [\"accept({{o}})\"]\n\
                 {{@columns}}";
    let rendered = {
        let template = small(policy, offer, &slots).unwrap();
        template.render(&template.examples()).unwrap()
    };
    assert_eq!(
        rendered.policy,
        "@a([\"id\", \"age\"]) \"it's \\\"so\\\"\" duration(\"90d\") datetime(\"2026-04-01T00:00:00.000+0800\") 2 \
         [Action::\"read\", Action::\"view\"] Action::\"read\" \"it's \\\"so\\\" P90D\"\n\
         @during(\"keep(id, age); accept(\\\"it's\\\"); filter(\\\"id\\\" = 'it''s')\")"
    );
    assert_eq!(
        rendered.offer,
        "t = \"it's \\\"so\\\"\"\nd = \"90d\"\nu = \"2026-02-28T00:00\"\nfloor = \"keep(id, age)\"\n\
         filter = \"\\\"id\\\" = 'it''s'\"\nmet = [\"accept(\\\"it's\\\")\"]\n\"age\" = \"integer\"\n\"id\" = \"text\""
    );
}

#[test]
fn a_slot_stands_only_where_its_value_stays_inside() {
    let text = slot("s", "text", "\"x\"");
    for (policy, offer, word) in [
        ("// {{s}}", "", "in a comment"),
        ("", "# {{s}}", "in a comment"),
        ("@before(\"accept('{{s}}')\")", "", "leave the quotes out"),
        ("@during(\"filter(a = '{{s}}')\")", "", "leave the quotes out"),
        ("context.region like \"{{s}}*\"", "", "pattern"),
        ("", "s = '{{s}}'", "literal string"),
        ("", "s = \"\"\"{{s}}\"\"\"", "several lines"),
        ("\"{{s}}", "", "without its end"),
        ("{{s", "", "without its `}}`"),
        ("{{r}} {{s}}", "", "no slot of this name"),
        ("{{s * 2}}", "", "is no slot"),
        ("{{s + 1}}", "", "can't be moved"),
        ("{{s.first}}", "", "no list"),
        ("", "", "stands nowhere"),
    ] {
        let error = small(policy, offer, &text).unwrap_err();
        assert_eq!(error.code(), "template-broken");
        assert!(error.to_string().contains(word), "{policy}{offer}: {error}");
    }
    assert!(small("context.region like \"CN*\" && {{s}}", "", &text).is_ok());
    assert!(small("@before(\"accept({{s}})\")", "", &text).is_ok());
}

#[test]
fn what_is_missing_or_unknown_is_named() {
    let template = find("count").unwrap();
    let missing = template.render(&Values::new()).unwrap_err();
    assert_eq!(missing.code(), "template-slot-missing");
    assert!(missing.to_string().contains("`group` (Which group of participants)"), "{missing}");
    let mut values = template.examples();
    values.insert("tmes".into(), "3".into());
    let unknown = template.render(&values).unwrap_err().to_string();
    assert!(unknown.contains("no slot `tmes`; did you mean `times`?"), "{unknown}");
    let near = find("cuont").unwrap_err();
    assert_eq!(
        (near.code(), near.to_string().as_str()),
        ("template-unknown", "there is no template `cuont`; did you mean `count`?")
    );
}

#[test]
fn other_columns_take_back_defaults_that_are_none_of_them() {
    let columns = Columns::new(vec![Column { name: "a".into(), kind: ColumnKind::Text }]).unwrap();
    let template = find("one-network-sharing").unwrap().with_columns(columns);
    let values: Values = [("dataset", "d"), ("source", "s.csv"), ("consumer", "did:web:c.invalid"), ("purpose", "p")]
        .map(|(slot, value)| (slot.to_owned(), value.to_owned()))
        .into();
    let missing: Vec<&str> = template.missing(&values).iter().map(|slot| slot.name.as_str()).collect();
    assert_eq!(missing, ["key", "answer"]);
}
