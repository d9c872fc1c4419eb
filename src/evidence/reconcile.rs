//! Two parties' exports, held against each other: do the halves of the tally fit?
//!
//! A party whose store was restored has several logs, and an export of each: all of them are given, or what was left out is
//! named.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

use crate::{
    agreement::Agreement,
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
    /// Each export by itself, in the order in which they were given.
    pub verdicts: Vec<Verdict>,
    /// Agreements that both have.
    pub agreements: usize,
    /// Halves that fit: a receipt of one party that the other has too.
    pub pairs: usize,
    /// Of those, receipts that their signer lost with a store that was restored, and has back from the other.
    pub recovered: usize,
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

/// One side: its exports, one for each of its logs, and what of them holds.
struct Side<'a> {
    exporter: &'a Did,
    exports: Vec<(&'a Bundle, &'a Checked)>,
}

impl<'a> Side<'a> {
    /// Its receipts, each with the log that it is in.
    fn receipts(&self, id: &'a AgreementId) -> impl Iterator<Item = (String, &'a Held)> {
        let mut seen = HashSet::new();
        self.exports
            .iter()
            .flat_map(move |(bundle, checked)| {
                let exported = origin(&bundle.about.exporter, bundle.about.epoch);
                under(&checked.receipts, id).chain(under(&checked.recovered, id)).map(move |held| {
                    let log = held.checkpoint.as_ref().map_or_else(|| exported.clone(), |shown| shown.origin.clone());
                    (log, held)
                })
            })
            // an export of each log may hold what came back
            .filter(move |(_, held)| held.index.is_some() || seen.insert(held.sha256))
    }

    /// Its copies of the other's receipts: every export has them all.
    fn halves(&self, id: &'a AgreementId) -> impl Iterator<Item = &'a Held> {
        let mut seen = HashSet::new();
        self.exports
            .iter()
            .flat_map(move |(_, checked)| under(&checked.halves, id))
            .filter(move |half| seen.insert(half.sha256))
    }

    fn agreement(&self, id: &AgreementId) -> Option<&'a Agreement> {
        self.exports.iter().find_map(|(_, checked)| checked.agreements.get(id))
    }

    fn agreements(&self) -> BTreeSet<&'a AgreementId> {
        self.exports.iter().flat_map(|(_, checked)| checked.agreements.keys()).collect()
    }

    fn logs(&self) -> HashSet<String> {
        self.exports.iter().map(|(bundle, _)| origin(&bundle.about.exporter, bundle.about.epoch)).collect()
    }

    /// Whether an export of its would hold this agreement, made with this partner, if there is one.
    fn covers(&self, id: &AgreementId, partner: &Did) -> bool {
        self.exports.iter().any(|(bundle, _)| {
            let scope = &bundle.about.scope;
            let whole = scope.peer.is_none() && scope.agreement.is_none();
            let named = scope.agreement.as_ref() == Some(id) || scope.peer.as_ref().is_some_and(|peer| peer == partner);
            scope.is_whole() && (whole || named)
        })
    }

    /// Whether it shows itself that this log had so many entries before its store was lost: by what it says in a later log,
    /// or by the proofs of its receipts that came back.
    fn owns_up_to(&self, epoch: u64, size: u64) -> bool {
        let log = origin(self.exporter, epoch);
        let mut back = self.exports.iter().flat_map(|(_, checked)| &checked.recovered);
        if back.any(|held| held.checkpoint.as_ref().is_some_and(|shown| shown.origin == log && shown.size >= size)) {
            return true;
        }
        let restored = self.exports.iter().flat_map(|(_, checked)| &checked.receipts);
        let mut said =
            restored.filter(|held| held.receipt.kind == Kind::Restored && held.receipt.provider == *self.exporter);
        said.any(|held| held.receipt.prior_log.as_ref().is_some_and(|log| log.epoch == epoch && log.size >= size))
    }
}

/// Holds two parties' exports against each other, receipt by receipt.
pub fn reconcile(a: &Bundle, b: &Bundle, trust: &Trust) -> Reconciled {
    reconcile_all(&[a, b], trust)
}

/// The same, where a party has several logs: all of its exports, in any order.
pub fn reconcile_all(bundles: &[&Bundle], trust: &Trust) -> Reconciled {
    let (verdicts, checked): (Vec<Verdict>, Vec<Checked>) = bundles.iter().map(|bundle| check(bundle, trust)).unzip();
    let mut findings = Findings::default();
    let mut by_party: BTreeMap<&Did, Vec<(&Bundle, &Checked)>> = BTreeMap::new();
    for (bundle, checked) in bundles.iter().zip(&checked) {
        by_party.entry(&bundle.about.exporter).or_default().push((bundle, checked));
    }
    let parties = by_party.len();
    let mut sides = by_party.into_iter().map(|(exporter, exports)| Side { exporter, exports });
    let (Some(left), Some(right), None) = (sides.next(), sides.next(), sides.next()) else {
        findings.wrong("nothing-common", "the exports", format!("they are of {parties} parties, and not of two"));
        return Reconciled { verdicts, agreements: 0, pairs: 0, recovered: 0, findings: findings.into_vec() };
    };
    let sides = [left, right];
    let common: BTreeSet<&AgreementId> = sides[0].agreements().intersection(&sides[1].agreements()).copied().collect();
    if common.is_empty() {
        let place = format!("{} and {}", sides[0].exporter, sides[1].exporter);
        findings.wrong("nothing-common", place, "the two parties' exports have no agreement in common");
    }
    let (mut pairs, mut recovered) = (0, 0);
    for id in &common {
        if sides[0].agreement(id) != sides[1].agreement(id) {
            findings.wrong(
                "agreement-differs",
                format!("agreement {id}"),
                "the two parties' exports hold different texts of it",
            );
        }
        third_parties(id, &sides, &mut findings);
        for (own, other) in [(&sides[0], &sides[1]), (&sides[1], &sides[0])] {
            let (fit, back) = halves(id, own, other, &mut findings);
            pairs += fit;
            recovered += back;
        }
        counts(id, &sides, &mut findings);
        chains(id, &sides, &mut findings);
    }
    for (own, other) in [(&sides[0], &sides[1]), (&sides[1], &sides[0])] {
        denied(own, other, &mut findings);
        logs(own, other, &mut findings);
    }
    Reconciled { verdicts, agreements: common.len(), pairs, recovered, findings: findings.into_vec() }
}

fn under<'a>(held: &'a [Held], id: &'a AgreementId) -> impl Iterator<Item = &'a Held> {
    held.iter().filter(move |held| held.receipt.agreement.as_ref() == Some(id))
}

fn named(receipt: &Receipt) -> String {
    format!("receipt {} ({})", receipt.id, receipt.kind.as_str())
}

/// An agreement that both signed and one side shows, the other's export has to hold too, if it is of such a scope.
fn denied(own: &Side<'_>, other: &Side<'_>, findings: &mut Findings) {
    let known = other.agreements();
    let mut told = HashSet::new();
    for (_, checked) in &own.exports {
        for (id, agreement) in checked.agreements.iter().filter(|(id, _)| !checked.one_sided.contains(*id)) {
            let with_other = agreement.provider.id == *other.exporter || agreement.consumer.id == *other.exporter;
            if with_other && !known.contains(id) && other.covers(id, own.exporter) && told.insert(id) {
                let problem = format!("`{}` has signed it, and leaves it out of its export", other.exporter);
                findings.wrong("agreement-denied", format!("agreement {id}"), problem);
            }
        }
    }
}

/// An agreement has two parties: the exporters, and nobody else signs or is named under it.
fn third_parties(id: &AgreementId, sides: &[Side<'_>; 2], findings: &mut Findings) {
    let exporters: HashSet<&str> = sides.iter().map(|side| side.exporter.as_str()).collect();
    for side in sides {
        let parties = side.agreement(id).map(|agreement| [&agreement.provider.id, &agreement.consumer.id]);
        for party in parties.into_iter().flatten() {
            if !exporters.contains(party.as_str()) {
                findings.wrong(
                    "party-third",
                    format!("agreement {id}"),
                    format!("`{party}` is neither of the two exporters"),
                );
            }
        }
        for held in side.receipts(id).map(|(_, held)| held).chain(side.halves(id)) {
            let named_others = [Some(&held.receipt.provider), held.receipt.consumer.as_ref()];
            for party in named_others.into_iter().flatten().filter(|party| !exporters.contains(party.as_str())) {
                findings.wrong("party-third", named(&held.receipt), format!("`{party}` is no party of agreement {id}"));
            }
        }
    }
}

/// Every shared receipt of one side is among the halves of the other, and the other way round. Gives how many fit, and how
/// many of those were lost and came back.
fn halves(id: &AgreementId, own: &Side<'_>, other: &Side<'_>, findings: &mut Findings) -> (usize, usize) {
    let held: HashSet<Sha256> = other.halves(id).map(|half| half.sha256).collect();
    let mut mine: HashMap<Sha256, (String, u64)> = HashMap::new();
    let (mut pairs, mut recovered) = (0, 0);
    for (log, one) in own.receipts(id) {
        mine.insert(one.sha256, (log, one.number));
        if !SHARED.contains(&one.receipt.kind) {
            continue;
        }
        if held.contains(&one.sha256) {
            pairs += 1;
            recovered += usize::from(one.index.is_none());
        } else {
            findings.wrong("half-missing", named(&one.receipt), format!("{} does not hold it", other.exporter));
        }
    }
    let exported = own.logs();
    let mut left_out: BTreeMap<&str, usize> = BTreeMap::new();
    for half in other.halves(id) {
        let log = half.checkpoint.as_ref().map_or("", |checkpoint| checkpoint.origin.as_str());
        match mine.get(&half.sha256) {
            None if !exported.contains(log) => *left_out.entry(log).or_default() += 1,
            None => {
                let problem = format!(
                    "{} holds it, signed, as number {}, but it is not in the signer's own export",
                    other.exporter, half.number
                );
                findings.wrong("half-denied", named(&half.receipt), problem);
            }
            Some((signed_in, number)) if *number != half.number || signed_in != log => {
                let problem = format!(
                    "its signer says that it is number {number} in {signed_in}, and told its partner {} in {log}",
                    half.number
                );
                findings.wrong("number-differs", named(&half.receipt), problem);
            }
            Some(_) => {}
        }
    }
    for (log, count) in left_out {
        let problem = format!("{} holds {count} receipts of this log, and there is no export of it", other.exporter);
        findings.wrong("log-not-exported", format!("agreement {id}: {log}"), problem);
    }
    (pairs, recovered)
}

/// As many releases as one party says that it made, the other says that it was given.
fn counts(id: &AgreementId, sides: &[Side<'_>; 2], findings: &mut Findings) {
    let Some(agreement) = sides[0].agreement(id) else { return };
    let Some(provider) = sides.iter().position(|side| agreement.provider.id == *side.exporter) else { return };
    fn releases<'a>(held: impl Iterator<Item = &'a Held>) -> BTreeMap<ReleaseId, String> {
        held.filter(|held| held.receipt.kind == Kind::Released)
            .filter_map(|held| Some((held.receipt.release.clone()?, named(&held.receipt))))
            .collect()
    }
    let made = releases(sides[provider].receipts(id).map(|(_, held)| held));
    // what is in a log that is not exported is said elsewhere
    let exported = sides[provider].logs();
    let shown: HashSet<Sha256> = sides[provider].receipts(id).map(|(_, held)| held.sha256).collect();
    let of_exported = |half: &&Held| {
        shown.contains(&half.sha256) || half.checkpoint.as_ref().is_none_or(|log| exported.contains(&log.origin))
    };
    let given = releases(sides[1 - provider].halves(id).filter(of_exported));
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
        for (_, held) in side.receipts(id) {
            if let Some(release) = &held.receipt.release {
                releases.entry(release.clone()).or_default().insert(held.receipt.kind, &held.receipt);
            }
        }
    }
    // and what its signer does not export, the other side shows: it was not withheld
    for (own, other) in [(&sides[0], &sides[1]), (&sides[1], &sides[0])] {
        let exported = other.logs();
        for half in own.halves(id) {
            if let (Some(release), Some(shown)) = (&half.receipt.release, &half.checkpoint)
                && !exported.contains(&shown.origin)
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

/// What one side was shown of the other's logs is the beginning of what the other exports.
fn logs(own: &Side<'_>, other: &Side<'_>, findings: &mut Findings) {
    for (bundle, _) in &other.exports {
        let about = &bundle.about;
        let log = origin(&about.exporter, about.epoch);
        let mut shown: BTreeMap<u64, BTreeSet<(Sha256, String)>> = BTreeMap::new();
        for (_, checked) in &own.exports {
            for half in &checked.halves {
                if let Some(checkpoint) = half.checkpoint.as_ref().filter(|checkpoint| checkpoint.origin == log) {
                    shown.entry(checkpoint.size).or_default().insert((checkpoint.root, named(&half.receipt)));
                }
            }
            for held in checked.receipts.iter().filter(|held| between(&held.receipt, &about.exporter)) {
                let known = held.receipt.peer_checkpoint.as_ref().filter(|known| known.epoch == about.epoch);
                if let Some(known) = known {
                    shown.entry(known.size).or_default().insert((known.root, named(&held.receipt)));
                }
            }
        }
        let mut frontier = Frontier::default();
        let entries = &bundle.entries;
        for (size, claims) in shown {
            while frontier.size() < size && (frontier.size() as usize) < entries.len() {
                frontier.push(leaf_hash(&entries[frontier.size() as usize]));
            }
            for (root, place) in claims {
                if size > entries.len() as u64 {
                    // lost with a store that was restored, as its owner says itself
                    if other.owns_up_to(about.epoch, size) {
                        continue;
                    }
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
}

fn between(receipt: &Receipt, party: &Did) -> bool {
    receipt.provider == *party || receipt.consumer.as_ref().is_some_and(|consumer| consumer == party)
}
