//! `counterseal policy new`: a policy, its tests and an offer, made from a template.

use std::{
    fs,
    io::{self, BufRead, IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::{
    cli::output::{Output, table},
    error::Refusal,
    policy::{
        Column, ColumnKind, Columns,
        template::{self, Rendered, Slot, Template, TemplateError, Values},
    },
};

const EXAMPLES: &str = "\
Examples:
  counterseal policy new --list                 every template 列出模板
  counterseal policy new --list count           what it asks for 查看模板的填写项
  counterseal policy new count --out weather    asks for each value 逐项询问
  counterseal policy new count --set dataset=weather --set source=weather.csv --set group=research \\
      --set times=3 --out weather";

/// Begin with a template: writes policy.cedar, policy.test.toml and offer.toml. 从模板生成策略、测试与要约。
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct New {
    /// The template.
    #[arg(required_unless_present = "list")]
    template: Option<String>,
    /// A value. Lists with commas between, or as JSON.
    #[arg(long = "set", value_name = "SLOT=VALUE")]
    set: Vec<String>,
    /// A column of the dataset and its kind (text, integer, number, date, boolean), instead of the template's.
    #[arg(long = "column", value_name = "NAME=KIND")]
    columns: Vec<String>,
    /// The folder to write to.
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
    /// Show the templates, or what one asks for.
    #[arg(long)]
    list: bool,
}

/// Runs the command.
pub fn run(args: New, out: &Output) -> anyhow::Result<ExitCode> {
    let Some(name) = &args.template else {
        let library = template::library().map_err(refused)?;
        let value = Value::Array(library.iter().map(described).collect());
        out.show(&value, |_| {
            let rows = library.iter().map(|template| {
                let about = template.about();
                vec![about.id.clone(), about.title.clone(), about.title_zh.clone()]
            });
            table(&["template", "title", "标题"], &rows.collect::<Vec<_>>())
        });
        return Ok(ExitCode::SUCCESS);
    };
    let mut template = template::find(name).map_err(refused)?;
    if args.list {
        out.show(&described(&template), |_| in_words(&template));
        return Ok(ExitCode::SUCCESS);
    }
    if !args.columns.is_empty() {
        template = template.with_columns(columns(&args.columns)?);
    }
    let mut values = Values::new();
    for pair in &args.set {
        let (slot, value) = pair.split_once('=').with_context(|| format!("--set {pair}: write it as SLOT=VALUE"))?;
        if values.insert(slot.trim().to_owned(), value.to_owned()).is_some() {
            anyhow::bail!("--set {slot}: it is given twice; write a list as {slot}=a,b");
        }
    }
    if !args.force {
        vacant(&args.out)?;
    }
    if io::stdin().is_terminal() && !out.json {
        ask(&template, &mut values, &mut io::stdin().lock(), &mut io::stderr())?;
    }
    let rendered = template.render(&values).map_err(refused)?;
    let files = write(&args.out, &rendered, args.force)?;
    let value = json!({ "template": template.about().id, "files": files });
    out.show(&value, |_| {
        let folder = args.out.display();
        format!(
            "wrote {}\nnext: counterseal policy check {folder}; counterseal policy test {folder}; \
             counterseal offer publish {folder}/offer.toml",
            files.join(", ")
        )
    });
    Ok(ExitCode::SUCCESS)
}

fn refused(error: TemplateError) -> anyhow::Error {
    let hint = match &error {
        TemplateError::Unknown { .. } => "; counterseal policy new --list shows all".to_owned(),
        TemplateError::Missing { slots, .. } => {
            let set: Vec<String> = slots.iter().map(|(name, _)| format!("--set {name}=…")).collect();
            format!("; give {}", set.join(" "))
        }
        _ => String::new(),
    };
    Refusal::new(error.code(), format!("{error}{hint}")).into()
}

fn columns(pairs: &[String]) -> anyhow::Result<Columns> {
    let columns = pairs.iter().map(|pair| {
        let (name, kind) = pair.split_once('=').with_context(|| format!("--column {pair}: write it as NAME=KIND"))?;
        let kind = ColumnKind::deserialize(Value::String(kind.to_owned())).map_err(|_| {
            anyhow::anyhow!("--column {pair}: `{kind}` is no kind: text, integer, number, date or boolean")
        })?;
        Ok(Column { name: name.to_owned(), kind })
    });
    Ok(Columns::new(columns.collect::<anyhow::Result<_>>()?)?)
}

/// Asks for what was not given; an empty answer takes the default.
fn ask(
    template: &Template,
    values: &mut Values,
    input: &mut impl BufRead,
    shown: &mut impl Write,
) -> anyhow::Result<()> {
    let open: Vec<&Slot> = template.slots().iter().filter(|slot| !values.contains_key(&slot.name)).collect();
    for slot in open {
        loop {
            let default = slot.default.as_ref().map(|text| format!(" [{text}]")).unwrap_or_default();
            write!(shown, "{} · {}{default}\n  {}: ", slot.prompt, slot.prompt_zh, slot.name)?;
            shown.flush()?;
            let mut line = String::new();
            if input.read_line(&mut line)? == 0 {
                writeln!(shown)?;
                return Ok(()); // what is missing is refused by name
            }
            let answer = match (line.trim(), &slot.default) {
                ("", Some(_)) => break,
                ("", None) => {
                    writeln!(shown, "  it takes {}, such as {}", slot.allowed(), slot.example)?;
                    continue;
                }
                (answer, _) => answer,
            };
            match template.accepts(slot, answer) {
                Ok(()) => {
                    values.insert(slot.name.clone(), answer.to_owned());
                    break;
                }
                Err(error) => writeln!(shown, "  {error}")?,
            }
        }
    }
    Ok(())
}

const FILES: [&str; 3] = ["policy.cedar", "policy.test.toml", "offer.toml"];

fn vacant(folder: &Path) -> anyhow::Result<()> {
    match FILES.into_iter().map(|name| folder.join(name)).find(|path| path.symlink_metadata().is_ok()) {
        None => Ok(()),
        Some(path) => Err(there(&path)),
    }
}

fn there(path: &Path) -> anyhow::Error {
    let sentence = format!("{} is there already; give another --out, or --force to replace it", path.display());
    Refusal::new("file-exists", sentence).into()
}

/// All three, or an error that names the one that could not be written.
fn write(folder: &Path, rendered: &Rendered, force: bool) -> anyhow::Result<Vec<String>> {
    fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
    let mut written = Vec::new();
    for (name, text) in FILES.into_iter().zip([&rendered.policy, &rendered.tests, &rendered.offer]) {
        let path = folder.join(name);
        if force {
            // replaced as a whole: what is a link there is no longer one
            crate::node::write(folder, name, text.as_bytes(), 0o644)?;
        } else {
            let mut file = match fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(there(&path)),
                Err(error) => return Err(error).with_context(|| format!("{} can't be written", path.display())),
            };
            file.write_all(text.as_bytes()).with_context(|| format!("{} can't be written", path.display()))?;
        }
        written.push(path.display().to_string());
    }
    Ok(written)
}

fn described(template: &Template) -> Value {
    let about = template.about();
    let slots = template.slots().iter().map(|slot| {
        json!({
            "name": slot.name, "takes": slot.allowed(), "prompt": slot.prompt, "promptZh": slot.prompt_zh,
            "default": slot.default, "example": slot.example,
        })
    });
    json!({
        "id": about.id, "title": about.title, "titleZh": about.title_zh, "description": about.description,
        "descriptionZh": about.description_zh, "forWhom": about.for_whom, "forWhomZh": about.for_whom_zh,
        "slots": slots.collect::<Vec<_>>(),
    })
}

fn in_words(template: &Template) -> String {
    let about = template.about();
    let mut text = format!(
        "{} · {}\n{} · {}\nfor {} · 适用于{}\n\n",
        about.title, about.title_zh, about.description, about.description_zh, about.for_whom, about.for_whom_zh
    );
    for slot in template.slots() {
        let default = slot.default.as_ref().map(|text| format!(" [{text}]")).unwrap_or_default();
        text.push_str(&format!(
            "{}{default}: {} · {}\n    takes {}; for example {}\n",
            slot.name,
            slot.prompt,
            slot.prompt_zh,
            slot.allowed(),
            slot.example
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_for_what_is_missing_and_asks_again_for_what_it_can_not_take() {
        let template = template::find("count").unwrap();
        let mut values: Values = [("dataset".to_owned(), "weather".to_owned())].into();
        // offer and title by default; source; group; times: wrong, empty, right; uses by default
        let mut answers = "\n\nweather.csv\nresearch\n0\n\n3\n\n".as_bytes();
        let mut shown = Vec::new();
        ask(&template, &mut values, &mut answers, &mut shown).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        assert!(!shown.contains("dataset:") && shown.contains("offer: ") && shown.contains("[count]"), "{shown}");
        assert!(shown.contains("can't be `0`") && shown.contains("放行次数"), "{shown}");
        assert_eq!(values["times"], "3");
        assert!(template.render(&values).unwrap().policy.contains("context.count < 3"));
    }

    #[test]
    fn an_end_of_input_leaves_the_rest_missing() {
        let template = template::find("count").unwrap();
        let mut values = Values::new();
        ask(&template, &mut values, &mut "count-2\n".as_bytes(), &mut Vec::new()).unwrap();
        assert_eq!(values.len(), 1);
        assert_eq!(template.render(&values).unwrap_err().code(), "template-slot-missing");
    }
}
