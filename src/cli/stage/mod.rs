//! The stage that `demo` and `scenario` share: connectors that play, and somebody who tells what was checked.

mod actor;
mod behind;

use serde_json::{Value, json};

pub use self::{
    actor::Actor,
    behind::{client, flipped, kinds_of, missing, until},
};
use crate::cli::{Lang, output::said};

/// How a story is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// Lines for people.
    Text,
    /// One JSON value a step.
    Json,
    /// Not at all: for tests.
    Silent,
}

/// Something that was checked and did not hold.
#[derive(Debug, thiserror::Error)]
#[error("step {step}: this did not hold: {what}")]
pub struct Failed {
    /// Which step, from 1.
    pub step: usize,
    /// What was said to hold.
    pub what: String,
}

/// Tells a story, step by step.
pub struct Teller {
    voice: Voice,
    lang: Lang,
    step: usize,
    id: String,
    title: String,
    evidence: Vec<String>,
}

impl Teller {
    /// Nothing is told yet.
    pub const fn new(voice: Voice, lang: Lang) -> Self {
        Self { voice, lang, step: 0, id: String::new(), title: String::new(), evidence: Vec::new() }
    }

    /// How many steps have begun.
    pub const fn steps(&self) -> usize {
        self.step
    }

    /// Begins a step.
    pub fn step(&mut self, id: &str, en: &str, zh: &str) {
        self.finish();
        self.step += 1;
        id.clone_into(&mut self.id);
        self.title = self.pick(en, zh).to_owned();
        if self.voice == Voice::Text {
            said!("\n{:>2}. {}", self.step, self.title);
        }
    }

    /// Something that was checked, and held; else the story ends.
    pub fn check(&mut self, holds: bool, en: impl Into<String>, zh: impl Into<String>) -> anyhow::Result<()> {
        let (en, zh) = (en.into(), zh.into());
        if !holds {
            return Err(Failed { step: self.step, what: self.pick(&en, &zh).to_owned() }.into());
        }
        let line = self.pick(&en, &zh).to_owned();
        if self.voice == Voice::Text {
            said!("    ✓ {line}");
        }
        self.evidence.push(line);
        Ok(())
    }

    /// Something to look at.
    pub fn show(&self, text: &str) {
        if self.voice == Voice::Text {
            for line in text.lines() {
                said!("      {line}");
            }
        }
    }

    /// A line outside of all steps.
    pub fn say(&self, en: &str, zh: &str) {
        if self.voice == Voice::Text {
            said!("{}", self.pick(en, zh));
        }
    }

    /// Ends the step that was begun last: it held.
    pub fn finish(&mut self) {
        if self.step > 0 {
            self.json(&json!({
                "step": self.step, "id": self.id, "title": self.title, "checked": self.evidence, "ok": true,
            }));
        }
        self.evidence.clear();
    }

    /// Ends the story at a step that did not hold.
    pub fn fail(&self, error: &anyhow::Error) {
        self.json(&json!({ "step": self.step, "id": self.id, "ok": false, "error": format!("{error:#}") }));
    }

    /// A value for programs.
    pub fn json(&self, value: &Value) {
        if self.voice == Voice::Json {
            said!("{value}");
        }
    }

    /// The text in the language that is told.
    pub const fn pick<'a>(&self, en: &'a str, zh: &'a str) -> &'a str {
        match self.lang {
            Lang::En => en,
            Lang::Zh => zh,
        }
    }
}
