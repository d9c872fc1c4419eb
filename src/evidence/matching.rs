//! Two bundles: do the halves of the tally fit?

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::{
    evidence::{
        Bundle, Finding, Trust, Verdict,
        verify::{Checked, check},
    },
    id::{AgreementId, Sha256},
    receipt::{Kind, Receipt},
};

/// What came of holding two parties' bundles against each other.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Matched {
    /// Each bundle by itself.
    pub verdicts: [Verdict; 2],
    /// Agreements that both have.
    pub agreements: usize,
    /// Halves that fit: a receipt of one party that the other has too.
    pub pairs: usize,
    /// What doesn't fit.
    pub findings: Vec<Finding>,
}

impl Matched {
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

/// Holds two exports against each other, receipt by receipt.
pub fn match_halves(a: &Bundle, b: &Bundle, trust: &Trust) -> Matched {
    let (first, left) = check(a, trust);
    let (second, right) = check(b, trust);
    let mut findings = Vec::new();
    let common: Vec<&AgreementId> = left.agreements.keys().filter(|id| right.agreements.contains_key(*id)).collect();
    if common.is_empty() {
        findings.push(Finding {
            code: "nothing-common",
            place: format!("{} and {}", a.exporter, b.exporter),
            problem: "the two exports have no agreement in common".into(),
        });
    }
    let mut pairs = 0;
    for id in &common {
        if left.agreements[*id] != right.agreements[*id] {
            findings.push(Finding {
                code: "agreement-differs",
                place: format!("agreement {id}"),
                problem: "the two exports hold different texts of it".into(),
            });
        }
        pairs += compare(id, &left, &right, b, &mut findings);
        pairs += compare(id, &right, &left, a, &mut findings);
        chain(id, &left, &right, &mut findings);
    }
    Matched { verdicts: [first, second], agreements: common.len(), pairs, findings }
}

/// Every shared receipt of one side is among the halves of the other, and the other way round.
fn compare(id: &AgreementId, own: &Checked, other: &Checked, others: &Bundle, findings: &mut Vec<Finding>) -> usize {
    let under = |receipt: &Receipt| receipt.agreement.as_ref() == Some(id);
    let held: HashSet<&Sha256> =
        other.halves.iter().filter(|(receipt, _)| under(receipt)).map(|(_, sha256)| sha256).collect();
    let mine: HashSet<&Sha256> = own.receipts.iter().map(|(_, sha256)| sha256).collect();
    let mut pairs = 0;
    for (receipt, sha256) in own.receipts.iter().filter(|(receipt, _)| under(receipt) && SHARED.contains(&receipt.kind))
    {
        if held.contains(sha256) {
            pairs += 1;
        } else {
            findings.push(Finding {
                code: "half-missing",
                place: format!("receipt {} ({})", receipt.id, receipt.kind.as_str()),
                problem: format!("{} does not hold it", others.exporter),
            });
        }
    }
    for (receipt, sha256) in other.halves.iter().filter(|(receipt, _)| under(receipt)) {
        if !mine.contains(sha256) {
            findings.push(Finding {
                code: "half-denied",
                place: format!("receipt {} ({})", receipt.id, receipt.kind.as_str()),
                problem: format!("{} holds it, signed, but it is not in the signer's own export", others.exporter),
            });
        }
    }
    pairs
}

/// Within one release: same key hash, and the consumer acknowledged what the provider says it delivered.
fn chain(id: &AgreementId, left: &Checked, right: &Checked, findings: &mut Vec<Finding>) {
    let mut releases: HashMap<String, HashMap<Kind, &Receipt>> = HashMap::new();
    for (receipt, _) in
        left.receipts.iter().chain(&right.receipts).filter(|(receipt, _)| receipt.agreement.as_ref() == Some(id))
    {
        if let Some(release) = &receipt.release {
            releases.entry(release.to_string()).or_default().insert(receipt.kind, receipt);
        }
    }
    for (release, receipts) in releases {
        let place = || format!("release {release}");
        let get = |kind| receipts.get(&kind);
        if let (Some(acknowledged), Some(delivered)) = (get(Kind::Acknowledged), get(Kind::Delivered)) {
            let segments = |receipt: &Receipt| receipt.payload.as_ref().map(|payload| payload.segments.clone());
            if segments(acknowledged) != segments(delivered) {
                findings.push(Finding {
                    code: "payload-differs",
                    place: place(),
                    problem: "the bytes that were delivered are not those that were acknowledged".into(),
                });
            }
        }
        let keys: HashSet<Sha256> = [Kind::Released, Kind::Acknowledged, Kind::Delivered, Kind::Opened]
            .into_iter()
            .filter_map(|kind| get(kind)?.key_sha256)
            .collect();
        if keys.len() > 1 {
            findings.push(Finding {
                code: "key-differs",
                place: place(),
                problem: "its receipts commit to different keys".into(),
            });
        }
        if get(Kind::Acknowledged).is_some() && get(Kind::Delivered).is_none() {
            findings.push(Finding {
                code: "key-withheld",
                place: place(),
                problem: "the consumer acknowledged, but the provider shows no delivery of the key".into(),
            });
        }
    }
}
