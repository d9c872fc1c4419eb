//! What two releases tell together.

use super::columns;
use crate::policy::{
    Obligations, parse,
    workbench::{Level, PastRelease, ReleaseShape, releases},
};

fn obligations(text: &str) -> Obligations {
    if text.is_empty() {
        Obligations::default()
    } else {
        Obligations::meet(&parse::obligations(text, &columns()).unwrap())
    }
}

fn shape(offer: &str, dataset: &str, permits: &[&str]) -> ReleaseShape {
    ReleaseShape {
        offer: offer.into(),
        dataset: dataset.into(),
        source: format!("{dataset}.csv"),
        columns: Some(columns()),
        permits: permits.iter().enumerate().map(|(place, text)| (format!("p{place}"), obligations(text))).collect(),
    }
}

fn codes(a: &str, b: &str) -> Vec<&'static str> {
    releases(&[shape("a", "d", &[a]), shape("b", "d", &[b])], &[]).into_iter().map(|joined| joined.code).collect()
}

#[test]
fn rows_that_can_be_subtracted() {
    let groups = "keep(grade, age); at_least(5, grade)";
    assert_eq!(codes(groups, &format!("{groups}; filter(age > 40)")), ["subtract-rows"]);
    assert_eq!(codes(groups, &format!("{groups}; limit(10)")), ["subtract-rows"]);
    assert!(codes(groups, groups).is_empty());
    assert!(codes("keep(grade)", "keep(grade); limit(10)").is_empty(), "no groups, nothing to uncover");
    assert_eq!(codes("keep(grade, age); at_least(5, age)", groups), ["groups-differ"]);
}

#[test]
fn columns_that_can_be_joined_or_compared() {
    assert_eq!(codes("keep(id, age)", "keep(id, grade)"), ["joinable"]);
    assert!(codes("keep(id, age)", "keep(id)").is_empty(), "one shows nothing that the other doesn't");
    assert!(
        codes("keep(id, age); hash(id)", "keep(id, grade); hash(id)").is_empty(),
        "pseudonyms differ between agreements"
    );
    assert_eq!(codes("keep(age); band(age, 10)", "keep(age)"), ["raw-elsewhere"]);
    assert_eq!(codes("keep(age); band(age, 10)", "keep(age); band(age, 4)"), ["generalised-differently"]);
    assert!(codes("keep(age); band(age, 10)", "keep(age); band(age, 10)").is_empty());
    assert!(codes("keep(age)", "drop(age, name, id, diagdateb, recdate, deathdate); band(menopause, 2)").is_empty());
}

#[test]
fn other_datasets_are_no_matter_and_one_offers_permits_are_worth_a_note() {
    let apart = [shape("a", "d", &["keep(id, age)"]), shape("b", "e", &["keep(id, grade)"])];
    assert!(releases(&apart, &[]).is_empty());
    let one = [shape("a", "d", &["keep(id, age); hash(id)", "keep(id, grade); hash(id)"])];
    let found = releases(&one, &[]);
    assert_eq!((found[0].code, found[0].level), ("joinable", Level::Note), "one agreement, one pseudonym");
    assert_eq!(found[0].between, ["a/p0", "a/p1"]);
    assert!(!found[0].message_zh.is_ascii());
}

#[test]
fn a_snapshot_that_changed_under_groups() {
    let past = |snapshot: &str, text: &str| PastRelease {
        offer: "a".into(),
        dataset: "d".into(),
        snapshot: snapshot.into(),
        obligations: obligations(text),
    };
    let found =
        |history: &[PastRelease]| releases(&[], history).into_iter().map(|joined| joined.code).collect::<Vec<_>>();
    assert_eq!(found(&[past("1", "at_least(5, age)"), past("2", "at_least(5, age)")]), ["snapshot-changed"]);
    assert!(found(&[past("1", "at_least(5, age)"), past("1", "at_least(5, age)")]).is_empty());
    assert!(found(&[past("1", ""), past("2", "")]).is_empty());
}
