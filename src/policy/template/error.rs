//! Why a template was not filled.

use crate::policy::problem::did_you_mean;

/// Why a template was not filled. Every message names the template and the slot.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    /// No template of this name.
    #[error("there is no template `{name}`{}", did_you_mean(suggestion.as_deref(), ""))]
    Unknown {
        /// As written.
        name: String,
        /// The nearest known one.
        suggestion: Option<String>,
    },
    /// A value for a slot that isn't there.
    #[error("the template `{template}` has no slot `{slot}`{}", did_you_mean(suggestion.as_deref(), ""))]
    UnknownSlot {
        /// The template.
        template: String,
        /// As written.
        slot: String,
        /// The nearest known one.
        suggestion: Option<String>,
    },
    /// Slots that were given no value and have no default.
    #[error("the template `{template}` needs {}", slots.iter().map(|(name, prompt)| format!("`{name}` ({prompt})")).collect::<Vec<_>>().join(", "))]
    Missing {
        /// The template.
        template: String,
        /// Names and prompts.
        slots: Vec<(String, String)>,
    },
    /// A value that the slot doesn't take.
    #[error("the template `{template}`: the slot `{slot}` can't be `{value}`: it takes {allowed}")]
    Value {
        /// The template.
        template: String,
        /// The slot.
        slot: String,
        /// As written, made harmless.
        value: String,
        /// What it takes.
        allowed: String,
    },
    /// The template itself is wrong.
    #[error("the template `{template}` is broken: {file}{}: {problem}", if *line > 0 { format!(":{line}") } else { String::new() })]
    Broken {
        /// The template.
        template: String,
        /// Which of its files.
        file: &'static str,
        /// From 1; 0 for the file as a whole.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

impl TemplateError {
    /// The reason code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "template-unknown",
            Self::UnknownSlot { .. } => "template-slot-unknown",
            Self::Missing { .. } => "template-slot-missing",
            Self::Value { .. } => "template-slot-value",
            Self::Broken { .. } => "template-broken",
        }
    }
}
