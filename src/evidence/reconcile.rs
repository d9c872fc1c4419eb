//! Two parties' exports, held against each other: do the halves of the tally fit?

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

use crate::{
    evidence::{
        Bundle, Finding, Trust, Verdict,
        verify::{Checked, Findings, Held, check},
    },
    id::{AgreementId, Did, ReleaseId, Sha256},
    receipt::{
        Kind, Receipt,
        checkpoint::origin,
        merkle::{Frontier, leaf_hash},
    },
};

/// What came of holding two parties' exports against each other.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reconciled {
    /// Each export by itself.
    pub verdicts: [Verdict; 2],
    /// Agreements that both have.
    pub agreements: usize,
    /// Halves that fit: a receipt of one party that the other has too.
    pub pairs: usize,
    /// What doesn't fit.
    pub findings: Vec<Finding>,
}

impl Reconciled {
    /// Whether both hold and all fits.
    pub fn holds(&self) -> bool {
        self.findings.is_empty() && self.verdicts.iter().all(Verdict::holds)
    }
}

/// Kinds that the other party has to have a copy of.
const SHARED: [Kind; 8] = [
    Kind::Released,
    Kind::Acknowledged,
    Kind::Delivered,
    Kind::Opened,
    Kind::Disputed,
    Kind::Used,
    Kind::Revoked,
    Kind::Deleted,
];

/// Two clocks may differ by so many milliseconds before an order of times is out of order.
const SKEW: i64 = 300_000;

/// One side: its export, and what of it holds.
struct Side<'a> {
    bundle: &'a Bundle,
    checked: &'a Checked,
}

/// Holds two exports against each other, receipt by receipt.
pub fn reconcile(a: &Bundle, b: &Bundle, trust: &Trust) -> Reconciled {
    let ((first, left), (second, right)) = (check(a, trust), check(b, trust));
    let sides = [Side { bundle: a, checked: &left }, Side { bundle: b, checked: &right }];
    let mut findings = Findings::default();
    let common: BTreeSet<&AgreementId> =
        left.agreements.keys().filter(|id| right.agreements.contains_key(*id)).collect();
    if common.is_empty() {
        let place = format!("{} and {}", a.about.exporter, b.about.exporter);
        findings.wrong("nothing-common", place, "the two exports have no agreement in common");
    }
    let mut pairs = 0;
    for id in &common {
        if left.agreements[*id] != right.agreements[*id] {
            findings.wrong(
                "agreement-differs",
                format!("agreement {id}"),
                "the two exports hold different texts of it",
            );
        }
        third_parties(id, &sides, &mut findings);
        for (own, other) in [(&sides[0], &sides[1]), (&sides[1], &sides[0])] {
            pairs += halves(id, own, other, &mut findings);
        }
        counts(id, &sides, &mut findings);
        chains(id, &sides, &mut findings);
    }
    for (own, other) in [(&sides[0], &sides[1]), (&sides[1], &sides[0])] {
        logs(own, other, &mut findings);
    }
    Reconciled { verdicts: [first, second], agreements: common.len(), pairs, findings: findings.into_vec() }
}

fn under<'a>(held: &'a [Held], id: &'a AgreementId) -> impl Iterator<Item = &'a Held> {
    held.iter().filter(move |held| held.receipt.agreement.as_ref() == Some(id))
}

/// The halves that one side holds of the very log that the other exports: a party whose store was restored has several.
fn halves_of<'a>(own: &'a Side<'_>, id: &'a AgreementId, other: &Side<'_>) -> impl Iterator<Item = &'a Held> {
    let log = origin(&other.bundle.about.exporter, other.bundle.about.epoch);
    under(&own.checked.halves, id)
        .filter(move |half| half.checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.origin == log))
}

fn named(receipt: &Receipt) -> String {
    format!("receipt {} ({})", receipt.id, receipt.kind.as_str())
}

/// An agreement has two parties: the exporters, and nobody else signs or is named under it.
fn third_parties(id: &AgreementId, sides: &[Side<'_>; 2], findings: &mut Findings) {
    let exporters: HashSet<&str> = sides.iter().map(|side| side.bundle.about.exporter.as_str()).collect();
    for side in sides {
        let agreement = &side.checked.agreements[id];
        for party in [&agreement.provider.id, &agreement.consumer.id] {
            if !exporters.contains(party.as_str()) {
                findings.wrong(
                    "party-third",
                    format!("agreement {id}"),
                    format!("`{party}` is neither of the two exporters"),
                );
            }
        }
        for held in under(&side.checked.receipts, id).chain(under(&side.checked.halves, id)) {
            let named_others = [Some(&held.receipt.provider), held.receipt.consumer.as_ref()];
            for party in named_others.into_iter().flatten().filter(|party| !exporters.contains(party.as_str())) {
                findings.wrong("party-third", named(&held.receipt), format!("`{party}` is no party of agreement {id}"));
            }
        }
    }
}

/// Every shared receipt of one side is among the halves of the other, and the other way round.
fn halves(id: &AgreementId, own: &Side<'_>, other: &Side<'_>, findings: &mut Findings) -> usize {
    let held: HashSet<&Sha256> = under(&other.checked.halves, id).map(|half| &half.sha256).collect();
    let mine: HashMap<&Sha256, u64> =
        under(&own.checked.receipts, id).map(|held| (&held.sha256, held.number)).collect();
    let mut pairs = 0;
    for one in under(&own.checked.receipts, id).filter(|held| SHARED.contains(&held.receipt.kind)) {
        if held.contains(&one.sha256) {
            pairs += 1;
        } else {
            let problem = format!("{} does not hold it", other.bundle.about.exporter);
            findings.wrong("half-missing", named(&one.receipt), problem);
        }
    }
    for half in halves_of(other, id, own) {
        match mine.get(&half.sha256) {
            None => {
                let problem = format!(
                    "{} holds it, signed, as number {}, but it is not in the signer's own export",
                    other.bundle.about.exporter, half.number
                );
                findings.wrong("half-denied", named(&half.receipt), problem);
            }
            Some(number) if *number != half.number => {
                let problem =
                    format!("its signer says that it is number {number}, and told its partner {}", half.number);
                findings.wrong("number-differs", named(&half.receipt), problem);
            }
            Some(_) => {}
        }
    }
    pairs
}

/// As many releases as one party says that it made, the other says that it was given.
fn counts(id: &AgreementId, sides: &[Side<'_>; 2], findings: &mut Findings) {
    let agreement = &sides[0].checked.agreements[id];
    let Some(provider) = sides.iter().position(|side| agreement.provider.id == side.bundle.about.exporter) else {
        return;
    };
    fn releases<'a>(held: impl Iterator<Item = &'a Held>) -> BTreeMap<ReleaseId, String> {
        held.filter(|held| held.receipt.kind == Kind::Released)
            .filter_map(|held| Some((held.receipt.release.clone()?, named(&held.receipt))))
            .collect()
    }
    let made = releases(under(&sides[provider].checked.receipts, id));
    let given = releases(halves_of(&sides[1 - provider], id, &sides[provider]));
    if made.len() != given.len() {
        let differing: Vec<&str> = made
            .iter()
            .filter(|(release, _)| !given.contains_key(*release))
            .chain(given.iter().filter(|(release, _)| !made.contains_key(*release)))
            .map(|(_, name)| name.as_str())
            .collect();
        findings.wrong(
            "count-differs",
            format!("agreement {id}: {}", differing.join(", ")),
            format!("the provider counts {} releases, the consumer {}", made.len(), given.len()),
        );
    }
}

/// Each release from its decision to its outcome: the same bytes, the same key, nothing withheld, in the order of time.
fn chains(id: &AgreementId, sides: &[Side<'_>; 2], findings: &mut Findings) {
    let mut releases: BTreeMap<ReleaseId, BTreeMap<Kind, &Receipt>> = BTreeMap::new();
    for side in sides {
        for held in under(&side.checked.receipts, id) {
            if let Some(release) = &held.receipt.release {
                releases.entry(release.clone()).or_default().insert(held.receipt.kind, &held.receipt);
            }
        }
    }
    // what is in another log of its signer's than the one exported, the other side shows
    for (own, other) in [(&sides[0], &sides[1]), (&sides[1], &sides[0])] {
        let exported = origin(&other.bundle.about.exporter, other.bundle.about.epoch);
        for half in under(&own.checked.halves, id) {
            if let (Some(release), Some(checkpoint)) = (&half.receipt.release, &half.checkpoint)
                && checkpoint.origin != exported
            {
                releases.entry(release.clone()).or_default().entry(half.receipt.kind).or_insert(&half.receipt);
            }
        }
    }
    for (release, receipts) in &releases {
        let get = |kind| receipts.get(&kind).copied();
        let both = |left: &Receipt, right: &Receipt| format!("release {release}: {} and {}", named(left), named(right));
        let (released, acknowledged, delivered) = (get(Kind::Released), get(Kind::Acknowledged), get(Kind::Delivered));
        if let (Some(acknowledged), Some(delivered)) = (acknowledged, delivered) {
            let (received, sent) = (acknowledged.payload.as_ref(), delivered.payload.as_ref());
            let bytes = |payload: Option<&crate::receipt::Payload>| payload.map(|payload| payload.bytes);
            let segments = |payload: Option<&crate::receipt::Payload>| payload.map(|payload| payload.segments.clone());
            if bytes(received) != bytes(sent) {
                let told =
                    |payload| bytes(payload).map_or_else(|| "nothing".to_owned(), |bytes| format!("{bytes} bytes"));
                let problem = format!("{} were acknowledged, {} delivered", told(received), told(sent));
                findings.wrong("size-differs", both(acknowledged, delivered), problem);
            } else if segments(received) != segments(sent) {
                findings.wrong(
                    "digest-differs",
                    both(acknowledged, delivered),
                    "the bytes that were delivered are not those that were acknowledged",
                );
            }
        }
        let with_key: Vec<&Receipt> = [Kind::Released, Kind::Acknowledged, Kind::Delivered, Kind::Opened]
            .into_iter()
            .filter_map(|kind| get(kind).filter(|receipt| receipt.key_sha256.is_some()))
            .collect();
        if let Some(pair) = with_key.windows(2).find(|pair| pair[0].key_sha256 != pair[1].key_sha256) {
            findings.wrong("key-differs", both(pair[0], pair[1]), "they commit to different keys");
        }
        match (released, acknowledged, delivered) {
            (Some(released), None, _) if get(Kind::Lapsed).is_some() => {
                findings.wrong(
                    "never-acknowledged",
                    named(released),
                    "its deadline passed, and the consumer shows no acknowledgement",
                );
            }
            (_, Some(acknowledged), None) => {
                let problem = "the consumer acknowledged, but the provider shows no delivery of the key";
                findings.wrong("key-withheld", named(acknowledged), problem);
            }
            _ => {}
        }
        if let Some(disputed) = get(Kind::Disputed) {
            let why = disputed.reason.as_ref().map_or("no reason is given", |reason| reason.sentence.as_str());
            findings.wrong("release-disputed", named(disputed), why);
        }
        let ended = get(Kind::Opened).or(get(Kind::Disputed));
        let steps: Vec<&Receipt> = [released, acknowledged, delivered, ended].into_iter().flatten().collect();
        for pair in steps.windows(2) {
            if pair[1].time.millis() + SKEW < pair[0].time.millis() {
                let problem = format!("the later step is from {}, the earlier from {}", pair[1].time, pair[0].time);
                findings.wrong("time-disordered", both(pair[0], pair[1]), problem);
            }
        }
    }
}

/// What one side was shown of the other's log is the beginning of the log that the other exports.
fn logs(own: &Side<'_>, other: &Side<'_>, findings: &mut Findings) {
    let about = &other.bundle.about;
    let log = origin(&about.exporter, about.epoch);
    let mut shown: BTreeMap<u64, Vec<(Sha256, String)>> = BTreeMap::new();
    for half in &own.checked.halves {
        if let Some(checkpoint) = half.checkpoint.as_ref().filter(|checkpoint| checkpoint.origin == log) {
            shown.entry(checkpoint.size).or_default().push((checkpoint.root, named(&half.receipt)));
        }
    }
    for held in own.checked.receipts.iter().filter(|held| between(&held.receipt, &about.exporter)) {
        if let Some(known) = held.receipt.peer_checkpoint.as_ref().filter(|known| known.epoch == about.epoch) {
            shown.entry(known.size).or_default().push((known.root, named(&held.receipt)));
        }
    }
    let mut frontier = Frontier::default();
    let entries = &other.bundle.entries;
    for (size, claims) in shown {
        while frontier.size() < size && (frontier.size() as usize) < entries.len() {
            frontier.push(leaf_hash(&entries[frontier.size() as usize]));
        }
        for (root, place) in claims {
            if size > entries.len() as u64 {
                let problem = format!(
                    "it rests on {size} entries of `{}`'s log, which exports {}",
                    about.exporter,
                    entries.len()
                );
                findings.wrong("log-shorter", place, problem);
            } else if root != frontier.root() {
                let problem = format!(
                    "it rests on {size} entries of `{}`'s log that are not those that it exports",
                    about.exporter
                );
                findings.wrong("log-forked", place, problem);
            }
        }
    }
}

fn between(receipt: &Receipt, party: &Did) -> bool {
    receipt.provider == *party || receipt.consumer.as_ref().is_some_and(|consumer| consumer == party)
}
