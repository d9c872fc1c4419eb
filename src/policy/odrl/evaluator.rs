//! A small ODRL evaluator that knows nothing of Cedar, of rules or of terms: it reads the JSON that we write, and
//! answers a request. What both translations are held to.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::{
    policy::{Action, ContextFact, Facts, UseAction, Value, Verdict},
    time::Timestamp,
};

/// What ODRL says to a request.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub verdict: Verdict,
    /// What is still to be done first.
    pub open: BTreeSet<String>,
    /// Every other duty of the permissions that hold.
    pub duties: BTreeSet<String>,
}

/// Prohibitions win; what nothing permits is denied; a permission whose duties that come first are open is conditional.
pub fn evaluate(odrl: &Json, facts: &Facts) -> Answer {
    let none = || (BTreeSet::new(), BTreeSet::new());
    let matching = |kind: &str| -> Vec<&Json> {
        let rules = odrl[kind].as_array().map(Vec::as_slice).unwrap_or_default();
        rules
            .iter()
            .filter(|rule| {
                covers(rule["action"].as_str().unwrap(), facts.action) && holds_all(&rule["constraint"], facts)
            })
            .collect()
    };
    let answer = |verdict, (open, duties)| Answer { verdict, open, duties };
    if !matching("prohibition").is_empty() {
        return answer(Verdict::Deny, none());
    }
    let permissions = matching("permission");
    if permissions.is_empty() {
        return answer(Verdict::DefaultDeny, none());
    }
    let (mut first, mut later) = none();
    for duty in permissions.iter().flat_map(|rule| rule["duty"].as_array().into_iter().flatten()) {
        let text = duty_text(duty);
        let comes_first =
            ["approve(", "consent(", "second_factor", "accept("].iter().any(|name| text.starts_with(name));
        match (comes_first, facts.action) {
            (true, Action::Discover | Action::Negotiate) => {}
            (true, _) => drop(first.insert(text)),
            (false, Action::Release) => drop(later.insert(text)),
            // about the copy that leaves
            (false, _) => {}
        }
    }
    let met: BTreeSet<String> = facts.met.iter().map(ToString::to_string).collect();
    let open: BTreeSet<String> = first.into_iter().filter(|text| !met.contains(&text.replace('\'', ""))).collect();
    match open.is_empty() {
        true => answer(Verdict::Allow, (open, later)),
        false => answer(Verdict::Conditional, (open, BTreeSet::new())),
    }
}

fn covers(name: &str, asked: Action) -> bool {
    let (lifecycle, word) = match asked {
        Action::Discover => (true, "discover"),
        Action::Negotiate => (true, "negotiate"),
        Action::Release => (true, "release"),
        Action::Use(UseAction::View) => (false, "display"),
        Action::Use(of) => (false, of.as_str()),
    };
    match (name, name.strip_prefix("https://w3id.org/counterseal/ns#"), name.strip_prefix("odrl:")) {
        ("use", ..) => word != "sell",
        (_, Some("use"), _) => !lifecycle,
        (_, Some(ours), _) => ours == word,
        (_, _, Some(core)) => core == word && !lifecycle,
        _ => panic!("{name}"),
    }
}

fn holds_all(constraints: &Json, facts: &Facts) -> bool {
    constraints.as_array().into_iter().flatten().all(|constraint| holds(constraint, facts))
}

fn holds(constraint: &Json, facts: &Facts) -> bool {
    if let Some(parts) = constraint["and"].as_array() {
        return parts.iter().all(|part| holds(part, facts));
    }
    if let Some(parts) = constraint["or"].as_array() {
        return parts.iter().any(|part| holds(part, facts));
    }
    let left = constraint["leftOperand"].as_str().unwrap();
    let left = left.strip_prefix("odrl:").or(left.strip_prefix("https://w3id.org/counterseal/ns#")).unwrap();
    let (op, right) = (constraint["operator"].as_str().unwrap(), &constraint["rightOperand"]);
    let plain = |json: &Json| json.as_str().or(json["@value"].as_str()).map(str::to_owned);
    let list = || -> BTreeSet<String> {
        right.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    let fact = |fact: ContextFact| &facts.context[&fact];
    let text = |value: &str| match op {
        "eq" => plain(right).unwrap() == value,
        "neq" => plain(right).unwrap() != value,
        "isAnyOf" => list().contains(value),
        "isNoneOf" => !list().contains(value),
        other => panic!("{other} on text"),
    };
    let set = |value: &BTreeSet<String>| match op {
        "isAnyOf" => !list().is_disjoint(value),
        "isNoneOf" => list().is_disjoint(value),
        "isAllOf" => list().is_subset(value),
        "isPartOf" => value.is_subset(&list()),
        other => panic!("{other} on a set"),
    };
    let order = |value: i128, right: i128| match op {
        "eq" => value == right,
        "neq" => value != right,
        "lt" => value < right,
        "lteq" => value <= right,
        "gt" => value > right,
        "gteq" => value >= right,
        other => panic!("{other} on a number"),
    };
    let typed = |of: &str| {
        assert_eq!(right["@type"], format!("xsd:{of}"));
        right["@value"].as_str().unwrap()
    };
    let number = |value: i128| order(value, typed("integer").parse().unwrap());
    match left {
        // this execution is counted in
        "count" => match fact(ContextFact::Count) {
            Value::Long(before) => number(i128::from(*before) + 1),
            other => panic!("{other:?}"),
        },
        "dateTime" => match fact(ContextFact::Now) {
            Value::Time(at) => order(millis(*at), millis(Timestamp::parse(typed("dateTime")).unwrap())),
            other => panic!("{other:?}"),
        },
        "recipient" if op == "isPartOf" => facts.principal.groups.contains(right.as_str().unwrap()),
        "recipient" => text(facts.principal.id.as_str()),
        "group" => set(&facts.principal.groups),
        "jurisdiction" => text(facts.principal.jurisdiction.as_deref().unwrap_or_default()),
        "roles" => set(&facts.principal.roles),
        "certifications" => set(&facts.principal.certifications),
        "dataset" => text(facts.resource.dataset.as_str()),
        "collection" => set(&facts.resource.collection.iter().cloned().collect()),
        "provider" => text(facts.resource.provider.as_str()),
        "classification" => text(facts.resource.classification.as_deref().unwrap_or_default()),
        "parents" => set(&facts.resource.parents),
        path => {
            let name = match path {
                "spatial" => "region",
                "systemDevice" => "application",
                path => path.split('.').next().unwrap(),
            };
            let mut members = path.split('.').skip(1);
            match fact(ContextFact::parse(name).unwrap()) {
                Value::Text(value) => text(value),
                Value::Texts(value) => set(value),
                Value::Long(value) => number(i128::from(*value)),
                Value::Decimal(value) => {
                    let (whole, fraction) = typed("decimal").split_once('.').unwrap();
                    assert_eq!(fraction.len(), 4);
                    order(i128::from(value.0), format!("{whole}{fraction}").parse().unwrap())
                }
                Value::Span(value) => {
                    let iso8601::Duration::YMDHMS { day, hour, minute, second, millisecond, .. } =
                        iso8601::duration(typed("duration")).unwrap()
                    else {
                        panic!("weeks")
                    };
                    let seconds =
                        ((u64::from(day) * 24 + u64::from(hour)) * 60 + u64::from(minute)) * 60 + u64::from(second);
                    order(i128::from(*value), i128::from(seconds) * 1000 + i128::from(millisecond))
                }
                Value::Ip(value) => {
                    let inside = match (right.as_str().unwrap().split_once('/'), value) {
                        (Some((network, bits)), std::net::IpAddr::V4(value)) => {
                            let shift = 32 - bits.parse::<u32>().unwrap();
                            let network: std::net::Ipv4Addr = network.parse().unwrap();
                            u64::from(value.to_bits()) >> shift == u64::from(network.to_bits()) >> shift
                        }
                        (None, value) => right == &Json::from(value.to_string()),
                        other => panic!("{other:?}"),
                    };
                    inside == matches!(op, "eq" | "isPartOf")
                }
                Value::Frequency(often) => {
                    let period = members.next().unwrap();
                    number(often.members().into_iter().find(|(name, _)| *name == period).unwrap().1.into())
                }
                Value::Spent(spent) => {
                    let (period, member) = (members.next().unwrap(), members.next().unwrap());
                    let amount = spent.members().into_iter().find(|(name, _)| *name == period).unwrap().1;
                    number(amount.members().into_iter().find(|(name, _)| *name == member).unwrap().1.into())
                }
                Value::Time(_) => panic!("{path}"),
            }
        }
    }
}

fn millis(at: Timestamp) -> i128 {
    i128::from(at.millis())
}

fn duty_text(duty: &Json) -> String {
    let right = duty["constraint"][0]["rightOperand"].clone();
    let right = right.as_str().or(right["@value"].as_str()).unwrap_or_default().to_owned();
    match duty["action"].as_str().unwrap() {
        "odrl:delete" => format!("delete_within({right})"),
        "odrl:inform" => "notify".to_owned(),
        "odrl:obtainConsent" => format!("consent({right})"),
        ours => {
            let name = ours.strip_prefix("https://w3id.org/counterseal/ns#").unwrap();
            if right.is_empty() { name.to_owned() } else { format!("{name}({right})") }
        }
    }
}
