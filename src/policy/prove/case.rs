//! A request as a `[[case]]` of the test file beside a policy.

use std::fmt::Write as _;

use crate::policy::{Decision, Facts, Value, value::span};

/// The case, to be pasted.
pub fn case(name: &str, facts: &Facts, decision: &Decision) -> String {
    let mut text = format!("[[case]]\nname = {}\naction = \"{}\"\n", quoted(name), facts.action.as_str());
    let principal = &facts.principal;
    let _ = writeln!(
        text,
        "principal = {{ id = {}, groups = {}, roles = {}, certifications = {}, jurisdiction = {} }}",
        quoted(principal.id.as_str()),
        list(&principal.groups),
        list(&principal.roles),
        list(&principal.certifications),
        quoted(principal.jurisdiction.as_deref().unwrap_or_default()),
    );
    let resource = &facts.resource;
    let _ = write!(
        text,
        "resource = {{ dataset = {}, provider = {}",
        quoted(resource.dataset.as_str()),
        quoted(resource.provider.as_str()),
    );
    for (name, value) in [("collection", &resource.collection), ("classification", &resource.classification)] {
        if let Some(value) = value {
            let _ = write!(text, ", {name} = {}", quoted(value));
        }
    }
    let _ = writeln!(text, ", parents = {} }}", list(&resource.parents));
    if !facts.context.is_empty() {
        let context: Vec<String> =
            facts.context.iter().map(|(fact, value)| format!("{} = {}", fact.name(), written(value))).collect();
        let _ = writeln!(text, "context = {{ {} }}", context.join(", "));
    }
    let _ = writeln!(text, "expect = \"{}\"", decision.verdict.as_str());
    if !decision.policies.is_empty() {
        let _ = writeln!(text, "policies = {}", list(&decision.policies));
    }
    text
}

fn written(value: &Value) -> String {
    let numbers = |members: &[(&str, u64)]| {
        let members: Vec<String> = members.iter().map(|(name, number)| format!("{name} = {number}")).collect();
        format!("{{ {} }}", members.join(", "))
    };
    match value {
        Value::Text(text) => quoted(text),
        Value::Long(number) => number.to_string(),
        Value::Time(at) => quoted(&at.to_string()),
        Value::Span(millis) => quoted(&span(*millis)),
        Value::Decimal(money) => quoted(&money.to_string()),
        Value::Ip(ip) => quoted(&ip.to_canonical().to_string()),
        Value::Texts(texts) => list(texts),
        Value::Frequency(often) => numbers(&often.members()),
        Value::Spent(spent) => {
            let members: Vec<String> = spent
                .members()
                .iter()
                .map(|(name, amount)| format!("{name} = {}", numbers(&amount.members())))
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
    }
}

/// As TOML writes text.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}
