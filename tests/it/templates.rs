//! The template library: each template's rendered tests pass, and nothing that it renders is refused as an offer.

use std::{collections::BTreeSet, fs};

use counterseal::{
    offer::OfferFile,
    policy::{Verdict, template},
};

use crate::cases::Cases;

#[test]
fn the_tests_of_every_template_pass_with_its_examples() {
    let mut failures = Vec::new();
    for template in template::library().unwrap() {
        let name = &template.about().id;
        let rendered = template.render(&template.examples()).unwrap();
        let cases = Cases::read(name, &rendered.policy, &rendered.tests);
        failures.extend(cases.failures().into_iter().map(|failure| format!("{name}: {failure}")));
        for kind in ["allow", "deny"] {
            if !cases.cases.iter().any(|case| case.expect.ends_with(kind)) {
                failures.push(format!("{name}: no case expects {kind}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A policy that no case is decided by is one that nobody has tried.
#[test]
fn every_policy_of_every_template_decides_some_case() {
    let mut idle = Vec::new();
    for template in template::library().unwrap() {
        let rendered = template.render(&template.examples()).unwrap();
        let cases = Cases::read(&template.about().id, &rendered.policy, &rendered.tests);
        let deciding: BTreeSet<String> = cases
            .cases
            .iter()
            .map(|case| cases.slice.decide(&case.facts))
            .filter(|decision| decision.verdict != Verdict::DefaultDeny)
            .flat_map(|decision| decision.policies)
            .collect();
        let all: BTreeSet<String> = cases.slice.policy_ids().into_iter().collect();
        idle.extend(all.difference(&deciding).map(|id| format!("{}: {id}", template.about().id)));
    }
    // each template's `find` is the same policy, tried in one of them
    idle.retain(|policy| !policy.ends_with(": find"));
    assert!(idle.is_empty(), "{}", idle.join("\n"));
}

#[test]
fn every_rendered_offer_is_an_offer() {
    for template in template::library().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let rendered = template.render(&template.examples()).unwrap();
        fs::write(folder.path().join("policy.cedar"), &rendered.policy).unwrap();
        fs::write(folder.path().join("offer.toml"), &rendered.offer).unwrap();
        let loaded = OfferFile::load(&folder.path().join("offer.toml"));
        let (_, policy) = loaded.unwrap_or_else(|error| panic!("{}: {error}", template.about().id));
        assert_eq!(policy, rendered.policy);
    }
}
