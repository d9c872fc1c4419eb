//! The templates that ship, embedded in the binary.

use crate::policy::problem::{harmless, nearest};

use super::{Template, TemplateError, TemplateFiles};

macro_rules! templates {
    ($($name:literal,)*) => {
        /// Each folder of `policies/templates`; a test compares.
        const FILES: [TemplateFiles<'static>; [$($name,)*].len()] = [$(TemplateFiles {
            name: $name,
            template: include_str!(concat!("../../../policies/templates/", $name, "/template.toml")),
            policy: include_str!(concat!("../../../policies/templates/", $name, "/policy.cedar")),
            tests: include_str!(concat!("../../../policies/templates/", $name, "/policy.test.toml")),
            offer: include_str!(concat!("../../../policies/templates/", $name, "/offer.toml")),
        },)*];
    };
}

// TC609-6-2025-01 §5.2.2.5, item by item; TC609-6-2025-14 Annex D, case by case; scenarios
templates! {
    "content",
    "delivery-connector",
    "use-connector",
    "user",
    "operation",
    "count",
    "duration",
    "visible-scope",
    "usable-scope",
    "notify-on-use",
    "destroy-after-use",
    "api-call",
    "joint-compute",
    "cross-party-share",
    "purchase",
    "confidential-compute",
    "one-network-sharing",
    "public-data-opening",
    "quality-dataset",
    "supply-demand",
    "gba-cross-border",
    "healthcare",
    "manufacturing",
    "green-finance",
}

/// Every template, in the order of the standard's items, then its cases, then the scenarios.
///
/// # Errors
/// One that is broken; a test keeps that from shipping.
pub fn library() -> Result<Vec<Template>, TemplateError> {
    FILES.into_iter().map(Template::parse).collect()
}

/// The template of this name.
///
/// # Errors
/// There is none; with the nearest.
pub fn find(name: &str) -> Result<Template, TemplateError> {
    match FILES.into_iter().find(|files| files.name == name) {
        Some(files) => Template::parse(files),
        None => Err(TemplateError::Unknown {
            name: harmless(name),
            suggestion: nearest(name, FILES.iter().map(|files| files.name)).map(str::to_owned),
        }),
    }
}
