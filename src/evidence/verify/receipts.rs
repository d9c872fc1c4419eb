//! The exporter's receipts: signature, place, number, parties, order, completeness, contents and decisions.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    agreement::{Agreement, SeriesSecret},
    crypto::jws::{self, Kid},
    evidence::{
        Bundle, ExportedReceipt,
        folder::name,
        verify::{
            Cosignature, Findings, Held,
            keys::Keys,
            may_sign,
            replay::{self, Replayed, Slices},
        },
    },
    id::{AgreementId, Sha256},
    receipt::{Kind, LogProof, Receipt, checkpoint::origin, entry},
    time::Timestamp,
};

/// Receipts are signed before they are numbered: times may run back by so much.
const SKEW: i64 = 300_000;
/// The clocks of two parties may differ by so many milliseconds before one of them is not believed: an hour.
const CLOCKS: i64 = 3_600_000;

/// What receipts are checked against.
pub(super) struct Context<'a> {
    pub bundle: &'a Bundle,
    pub keys: &'a Keys,
    pub agreements: &'a HashMap<AgreementId, Agreement>,
    pub secrets: &'a HashMap<AgreementId, SeriesSecret>,
    pub one_sided: &'a HashSet<AgreementId>,
    pub slices: &'a Slices,
    pub cosignatures: &'a [Cosignature],
}

/// The receipts that hold; how many decisions were replayed, and how many could not be.
pub(super) fn check(context: &Context<'_>, findings: &mut Findings) -> (Vec<Held>, usize, usize) {
    let mut held: Vec<Held> = Vec::new();
    let (mut replayed, mut not_replayed) = (0, 0);
    let mut signers: Vec<(u64, Kid)> = Vec::new();
    let (mut places, mut ids, mut hashes) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut before: Option<u64> = None;
    for exported in &context.bundle.receipts {
        let unread = || format!("receipt at {} ({})", exported.index, name(&exported.jws));
        let exporter = &context.bundle.about.exporter;
        let receipt = match crate::receipt::verify(&exported.jws, exporter, |kid| context.keys.get(kid)) {
            Ok(verified) => verified.into_payload(),
            Err(error) => {
                findings.wrong("receipt-broken", unread(), error.to_string());
                continue;
            }
        };
        let place = format!("receipt {} ({})", receipt.id, receipt.kind.as_str());
        if !ids.insert(receipt.id.clone()) || !hashes.insert(exported.jws.sha256()) {
            findings.wrong("receipt-twice", place.clone(), "it is there at another place too");
        }
        if !places.insert(exported.index) {
            findings.wrong("receipt-twice", place.clone(), format!("entry {} is claimed twice", exported.index));
        } else if before.is_some_and(|before| before > exported.index) {
            findings.wrong("receipt-disordered", place.clone(), "it is not in the order of the log");
        }
        before = Some(exported.index);
        if let Ok((_, kid)) = jws::peek(&exported.jws) {
            signers.push((exported.index, kid));
        }
        in_log(context, exported, &receipt, &place, findings);
        parties(context, &receipt, &place, findings);
        replay::contents(&receipt, &exported.contents, &place, findings);
        if let Some(decision) = &receipt.decision {
            let outcome = exported
                .contents
                .get("request")
                .map(|request| context.slices.replay(&receipt, decision, request, &place, findings));
            match outcome {
                Some(Replayed::Same) => replayed += 1,
                Some(Replayed::Not) | None => not_replayed += 1,
            }
        }
        held.push(Held {
            receipt,
            sha256: exported.jws.sha256(),
            index: Some(exported.index),
            number: exported.number,
            checkpoint: None,
        });
    }
    continued(context, &held, findings);
    outdated(context, &held, &signers, findings);
    bracketed(context, &held, findings);
    order(&held, findings);
    if context.bundle.about.scope.is_whole() {
        complete(context, &held, findings);
    }
    (held, replayed, not_replayed)
}

/// The entry at its place is its own, by hash and, where the series is known, by number; its proof says so by itself.
fn in_log(context: &Context<'_>, exported: &ExportedReceipt, receipt: &Receipt, place: &str, findings: &mut Findings) {
    let sha256 = exported.jws.sha256();
    let found = usize::try_from(exported.index).ok().and_then(|index| context.bundle.entries.get(index));
    let Some(found) = found else {
        return findings.wrong("receipt-not-in-log", place, format!("the log has no entry {}", exported.index));
    };
    if found[0] != 1 || found[33..] != *sha256.as_bytes() {
        return findings.wrong("receipt-not-in-log", place, format!("entry {} is another receipt's", exported.index));
    }
    let about = &context.bundle.about;
    let secret = AgreementId::parse(&receipt.series).ok().and_then(|id| context.secrets.get(&id));
    if let Some(secret) = secret {
        let tag = secret.key_of(&about.exporter.clone().into()).in_epoch(about.epoch).tag(exported.number);
        if *found != entry(&tag, &sha256) {
            findings.wrong("number-wrong", place, format!("it is not number {} of its series", exported.number));
        }
    } else if receipt.series != "node" {
        findings.wrong("agreement-missing", place, "the agreement in whose series it is, is not in the export");
    }
    let Some(exporter) = context.keys.parties.get(&about.exporter) else { return };
    let log = origin(&about.exporter, about.epoch);
    let proven = LogProof::parse(&exported.proof)
        .and_then(|proof| {
            let checkpoint = proof.verify(found, &log, &exporter.newest.keys.log)?;
            Ok((proof.index, checkpoint))
        })
        .map_err(|error| error.to_string());
    match proven {
        Ok((index, _)) if index != exported.index => {
            findings.wrong("proof-broken", place, "its proof is of another place")
        }
        Ok((_, checkpoint)) if checkpoint.size > context.bundle.entries.len() as u64 => {
            findings.wrong("log-altered", place, "its proof is under a checkpoint of more entries than there are");
        }
        Ok(_) => {}
        Err(problem) => findings.wrong("proof-broken", place, problem),
    }
}

/// Its parties are its agreement's, the exporter may sign this kind, and both say whether it is one-sided.
fn parties(context: &Context<'_>, receipt: &Receipt, place: &str, findings: &mut Findings) {
    let Some(agreement) = receipt.agreement.as_ref().and_then(|id| context.agreements.get(id)) else { return };
    if receipt.provider != agreement.provider.id || receipt.consumer.as_ref() != Some(&agreement.consumer.id) {
        findings.wrong("party-foreign", place, "its parties are not the agreement's");
    }
    // a signature that was left out doesn't make an agreement one-sided: its receipts have said so from the start
    if receipt.one_sided != context.one_sided.contains(&agreement.id) {
        findings.wrong(
            "one-sided",
            place,
            "receipt and agreement differ on whether only the exporter has signed the agreement",
        );
    }
    if !may_sign(receipt.kind, &context.bundle.about.exporter, agreement) {
        findings.wrong("party-wrong", place, format!("`{}` is not this party's to sign", receipt.kind.as_str()));
    }
}

/// A later log begins with the receipt that says which was before it.
fn continued(context: &Context<'_>, held: &[Held], findings: &mut Findings) {
    let epoch = context.bundle.about.epoch;
    let first = held.iter().find(|held| held.index == Some(0));
    let says = first.and_then(|first| Some((first.receipt.kind, first.receipt.prior_log.as_ref()?.epoch)));
    match says {
        Some((Kind::Restored, before)) if before < epoch => {}
        None if epoch == 1 => {}
        _ => findings.wrong(
            "restore-unsaid",
            format!("log {epoch}"),
            "its first receipt does not say that it goes on from a log before it, as that of every later log must",
        ),
    }
}

/// No receipt is signed by a key that the log says was superseded before, or by an older one than a receipt before it.
fn outdated(context: &Context<'_>, held: &[Held], signers: &[(u64, Kid)], findings: &mut Findings) {
    let Some(exporter) = context.keys.parties.get(&context.bundle.about.exporter) else { return };
    // where the log says that a statement took effect
    let rotated: HashMap<Sha256, u64> = held
        .iter()
        .filter(|held| held.receipt.kind == Kind::Rotated && held.receipt.consumer.is_none())
        .filter_map(|held| Some((held.receipt.refers?, held.index?)))
        .collect();
    let mut newest = 0;
    for (index, kid) in signers {
        let age = exporter.ages.get(kid).copied().unwrap_or(0);
        if age < newest {
            let problem = "the key that signed it had been superseded when an earlier receipt was signed";
            findings.wrong("key-outdated", format!("receipt at {index}"), problem);
        }
        newest = newest.max(age);
        let since = exporter.superseded.get(kid).and_then(|statement| rotated.get(statement));
        if let Some(since) = since.filter(|since| *since < index) {
            let problem = format!("the key that signed it was superseded by the rotation at {since}");
            findings.wrong("key-outdated", format!("receipt at {index}"), problem);
        }
    }
}

/// A receipt is later than the cosignatures that don't cover it yet, and earlier than those that do; as far as two clocks
/// can tell.
fn bracketed(context: &Context<'_>, held: &[Held], findings: &mut Findings) {
    for one in held {
        let Some(index) = one.index else { continue };
        let covering = context.cosignatures.iter().filter(|cosignature| cosignature.size > index);
        let before = context.cosignatures.iter().filter(|cosignature| cosignature.size <= index);
        let place = || format!("receipt {} ({})", one.receipt.id, one.receipt.kind.as_str());
        let time = one.receipt.time;
        if let Some(first) = covering.min_by_key(|cosignature| cosignature.at)
            && time.millis() > first.at.millis() + CLOCKS
        {
            let problem = format!("it is from {time}, but `{}` cosigned it at {}", first.by, first.at);
            findings.wrong("time-impossible", place(), problem);
        }
        if let Some(last) = before.max_by_key(|cosignature| cosignature.at)
            && time.millis() + CLOCKS < last.at.millis()
        {
            let problem = format!("it says {time}, but was not there yet when `{}` cosigned at {}", last.by, last.at);
            findings.wrong("time-impossible", place(), problem);
        }
    }
}

/// Within a series, neither places in the log nor times run backwards.
fn order(held: &[Held], findings: &mut Findings) {
    let mut series: BTreeMap<&str, Vec<(u64, Timestamp, &Held)>> = BTreeMap::new();
    for one in held {
        series.entry(&one.receipt.series).or_default().push((one.number, one.receipt.time, one));
    }
    for receipts in series.values_mut() {
        receipts.sort_by_key(|(number, ..)| *number);
        for pair in receipts.windows(2) {
            let [(earlier, then, before), (_, now, one)] = pair else { continue };
            if one.index <= before.index {
                let place = format!("receipt {} ({})", one.receipt.id, one.receipt.kind.as_str());
                let problem = format!("number {} is not after number {earlier} in the log", one.number);
                findings.wrong("number-disordered", place, problem);
            }
            if now.millis() + SKEW < then.millis() {
                let place = format!("receipt {} ({})", one.receipt.id, one.receipt.kind.as_str());
                findings.wrong(
                    "time-backwards",
                    place,
                    format!("it is from {now}, but number {earlier} before it from {then}"),
                );
            }
        }
    }
}

/// No gap in an agreement's series, no tail that was left out, and no second receipt with a number: whoever has the secret
/// finds the tag of each number in the log exactly once, and that of the next nowhere.
fn complete(context: &Context<'_>, held: &[Held], findings: &mut Findings) {
    let mut tags: HashMap<&[u8], usize> = HashMap::new();
    for entry in &context.bundle.entries {
        *tags.entry(&entry[1..33]).or_default() += 1;
    }
    let about = &context.bundle.about;
    for (id, secret) in context.secrets {
        let mut numbers: Vec<u64> =
            held.iter().filter(|held| held.receipt.series == id.as_str()).map(|held| held.number).collect();
        numbers.sort_unstable();
        let place = || format!("agreement {id}");
        if let Some(twice) = numbers.windows(2).find(|pair| pair[0] == pair[1]) {
            let problem = format!("two receipts of the exporter's series have number {}", twice[0]);
            findings.wrong("number-reused", place(), problem);
            numbers.dedup();
        }
        for (expected, number) in (0_u64..).zip(&numbers) {
            if *number != expected {
                let problem = format!("number {expected} of the exporter's series is not in the export");
                findings.wrong("receipt-missing", place(), problem);
                break;
            }
        }
        let series = secret.key_of(&about.exporter.clone().into()).in_epoch(about.epoch);
        let logged = |number: u64| tags.get(&series.tag(number)[..]).copied().unwrap_or(0);
        for number in numbers.iter().filter(|number| logged(**number) > 1) {
            let problem = format!("the log has number {number} of the exporter's series {} times", logged(*number));
            findings.wrong("number-reused", place(), problem);
        }
        if logged(numbers.len() as u64) > 0 {
            let problem = format!("the log has number {} of the exporter's series, the export has not", numbers.len());
            findings.wrong("receipt-missing", place(), problem);
        }
    }
}
