//! Policy templates: a policy, its tests and an offer with typed slots, which a steward fills.
//!
//! ```text
//!   policies/templates/NAME/template.toml      what it is, its slots, the columns that it is written for
//!                           policy.cedar       … each with {{slot}} where a value goes
//!                           policy.test.toml
//!                           offer.toml
//! ```
//!
//! A value goes in by its type and the place it stands at, quoted and escaped, never as raw text: as a literal in Cedar
//! or TOML, within a string, as a word of the obligations' language, or as a literal of a filter. `{{slot - 1}}` and
//! `{{until + P1D}}` shift a number, an amount or a time, for tests on both sides of a border; `{{list.first}}` takes
//! the first of a list; `{{@columns}}` alone on a line of a TOML file stands for the columns. Where a value could end
//! what it stands in (a comment, a quoted word of an obligation, a pattern of `like`), a template can't have a slot.

mod error;
mod library;
mod place;
mod slot;
mod value;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{
    policy::{
        Column, ColumnKind, Columns,
        problem::{harmless, nearest},
    },
    time::Zone,
};

pub use self::{
    error::TemplateError,
    library::{find, library},
    slot::{Slot, SlotType},
};
use self::{
    place::{Placeholder, Within},
    value::Filled,
};

/// The files of a template's folder.
#[derive(Clone, Copy, Debug)]
pub struct TemplateFiles<'a> {
    /// The folder's name.
    pub name: &'a str,
    /// `template.toml`
    pub template: &'a str,
    /// `policy.cedar`
    pub policy: &'a str,
    /// `policy.test.toml`
    pub tests: &'a str,
    /// `offer.toml`
    pub offer: &'a str,
}

/// A template, with every slot known to work with its example.
#[derive(Clone, Debug)]
pub struct Template {
    about: About,
    slots: Vec<Slot>,
    columns: Columns,
    policy: String,
    tests: String,
    offer: String,
}

/// `template.toml`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head {
    id: String,
    title: String,
    title_zh: String,
    description: String,
    description_zh: String,
    for_whom: String,
    for_whom_zh: String,
    columns: toml::Table,
    #[serde(default)]
    zone: Zone,
    slot: Vec<slot::Written>,
}

/// What a template is, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its name, as its folder is called.
    pub id: String,
    /// A title.
    pub title: String,
    /// The same in Chinese.
    pub title_zh: String,
    /// What it says.
    pub description: String,
    /// The same in Chinese.
    pub description_zh: String,
    /// For whom it is.
    pub for_whom: String,
    /// The same in Chinese.
    pub for_whom_zh: String,
}

/// A template with its slots filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// `policy.cedar`
    pub policy: String,
    /// `policy.test.toml`
    pub tests: String,
    /// `offer.toml`
    pub offer: String,
}

/// What is put into the slots, by name, as a person writes it; lists with commas, or as JSON.
pub type Values = BTreeMap<String, String>;

impl Template {
    /// Reads a template's folder, and renders it with its examples once: one that can't be is refused here.
    ///
    /// # Errors
    /// What is wrong with the template, by file.
    pub fn parse(files: TemplateFiles<'_>) -> Result<Self, TemplateError> {
        let broken = |problem: String| TemplateError::Broken {
            template: files.name.to_owned(),
            file: "template.toml",
            line: 0,
            problem,
        };
        let head: Head = toml::from_str(files.template).map_err(|error| broken(error.to_string()))?;
        if head.id != files.name {
            return Err(broken(format!("its id is `{}`, its folder `{}`", head.id, files.name)));
        }
        let about = About {
            id: head.id,
            title: head.title,
            title_zh: head.title_zh,
            description: head.description,
            description_zh: head.description_zh,
            for_whom: head.for_whom,
            for_whom_zh: head.for_whom_zh,
        };
        let columns = head.columns.into_iter().map(|(name, kind)| {
            let kind = ColumnKind::deserialize(kind).map_err(|error| broken(format!("column `{name}`: {error}")))?;
            Ok(Column { name, kind })
        });
        let columns =
            Columns::new(columns.collect::<Result<_, TemplateError>>()?).map_err(|e| broken(e.to_string()))?;
        let mut slots: Vec<Slot> = Vec::new();
        for written in head.slot {
            let slot = Slot::take(written, &about.id, head.zone).map_err(&broken)?;
            if slots.iter().any(|other| other.name == slot.name) {
                return Err(broken(format!("two slots are called `{}`", slot.name)));
            }
            if let Some(default) = &slot.default {
                slot.read(default, &columns)?;
            }
            slots.push(slot);
        }
        let template = Self {
            about,
            slots,
            columns,
            policy: files.policy.to_owned(),
            tests: files.tests.to_owned(),
            offer: files.offer.to_owned(),
        };
        let mut used = BTreeSet::new();
        template.fill(&template.examples(), &mut used)?;
        if let Some(slot) = template.slots.iter().find(|slot| !used.contains(&slot.name)) {
            return Err(broken(format!("the slot `{}` stands nowhere", slot.name)));
        }
        Ok(template)
    }

    /// What it is.
    pub const fn about(&self) -> &About {
        &self.about
    }

    /// What can be filled in.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The columns that it is written for.
    pub const fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The same for other columns. A default that names none of them is dropped: it has to be given then.
    #[must_use]
    pub fn with_columns(mut self, columns: Columns) -> Self {
        for slot in &mut self.slots {
            if slot.default.as_ref().is_some_and(|text| slot.read(text, &columns).is_err()) {
                slot.default = None;
            }
        }
        self.columns = columns;
        self
    }

    /// Each slot's example.
    pub fn examples(&self) -> Values {
        self.slots.iter().map(|slot| (slot.name.clone(), slot.example.clone())).collect()
    }

    /// The slots that have neither a value nor a default.
    pub fn missing(&self, values: &Values) -> Vec<&Slot> {
        self.slots.iter().filter(|slot| slot.default.is_none() && !values.contains_key(&slot.name)).collect()
    }

    /// Whether one of its slots takes a value.
    ///
    /// # Errors
    /// [`TemplateError::Value`], with what it takes.
    pub fn accepts(&self, slot: &Slot, value: &str) -> Result<(), TemplateError> {
        slot.read(value, &self.columns).map(|_| ())
    }

    /// Fills the slots.
    ///
    /// # Errors
    /// A value for no slot, a slot without a value, or a value that the slot doesn't take: by name, with what is allowed.
    pub fn render(&self, values: &Values) -> Result<Rendered, TemplateError> {
        self.fill(values, &mut BTreeSet::new())
    }

    fn fill(&self, values: &Values, used: &mut BTreeSet<String>) -> Result<Rendered, TemplateError> {
        for name in values.keys() {
            if self.slots.iter().all(|slot| slot.name != *name) {
                return Err(TemplateError::UnknownSlot {
                    template: self.about.id.clone(),
                    slot: harmless(name),
                    suggestion: nearest(name, self.slots.iter().map(|slot| slot.name.as_str())).map(str::to_owned),
                });
            }
        }
        let missing = self.missing(values);
        if !missing.is_empty() {
            let slots = missing.into_iter().map(|slot| (slot.name.clone(), slot.prompt.clone())).collect();
            return Err(TemplateError::Missing { template: self.about.id.clone(), slots });
        }
        let mut filled = BTreeMap::new();
        for slot in &self.slots {
            let text = values.get(&slot.name).or(slot.default.as_ref()).map(String::as_str).unwrap_or_default();
            filled.insert(slot.name.as_str(), slot.read(text, &self.columns)?);
        }
        let mut put =
            |file: &'static str, text: &str, lexer: fn(&str) -> Result<Vec<place::Piece<'_>>, place::Wrong>| {
                self.put(file, text, lexer, &filled, used)
            };
        Ok(Rendered {
            policy: put("policy.cedar", &self.policy, place::cedar)?,
            tests: put("policy.test.toml", &self.tests, place::toml)?,
            offer: put("offer.toml", &self.offer, place::toml)?,
        })
    }

    fn put(
        &self,
        file: &'static str,
        text: &str,
        lexer: fn(&str) -> Result<Vec<place::Piece<'_>>, place::Wrong>,
        filled: &BTreeMap<&str, Filled>,
        used: &mut BTreeSet<String>,
    ) -> Result<String, TemplateError> {
        let broken = |at: usize, problem: String| TemplateError::Broken {
            template: self.about.id.clone(),
            file,
            line: text[..at].matches('\n').count() + 1,
            problem,
        };
        let mut out = String::with_capacity(text.len());
        for piece in lexer(text).map_err(|wrong| broken(wrong.at, wrong.problem))? {
            match piece {
                place::Piece::Text(text) => out.push_str(text),
                place::Piece::Slot { inner: "@columns", within: Within::Toml, .. } => {
                    let lines = self.columns.iter().map(|column| {
                        let kind = serde_json::to_value(column.kind).unwrap_or_default();
                        format!("{} = {kind}", value::quoted(&column.name))
                    });
                    out.push_str(&lines.collect::<Vec<_>>().join("\n"));
                }
                place::Piece::Slot { at, inner, within } => {
                    let wanted = Placeholder::parse(inner).map_err(|problem| broken(at, problem))?;
                    let value = filled
                        .get(wanted.name)
                        .ok_or_else(|| broken(at, format!("`{{{{{inner}}}}}`: there is no slot of this name")))?;
                    used.insert(wanted.name.to_owned());
                    let value =
                        value.shifted(&wanted).map_err(|problem| broken(at, format!("`{inner}`: {problem}")))?;
                    out.push_str(&value.written(within).map_err(|problem| TemplateError::Value {
                        template: self.about.id.clone(),
                        slot: wanted.name.to_owned(),
                        value: harmless(&value.plain()),
                        allowed: problem,
                    })?);
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
