//! The partners' halves: signed by them, under an agreement of the export, with number and proof from their log.

use std::collections::HashMap;

use crate::{
    agreement::{self, Agreement, SeriesSecret},
    crypto::jws::{self, Typ},
    evidence::{
        Bundle,
        verify::{Findings, Held, keys::Keys, may_sign},
    },
    id::{AgreementId, Did, Sha256},
    receipt::{
        LogProof, PartnerHalf, Receipt,
        checkpoint::{Checkpoint, epoch_of, origin},
        entry,
    },
};

/// Whose receipts they are.
pub(super) enum Whose {
    /// The partners': the halves.
    Partner,
    /// The exporter's own, of the log that is exported or of earlier ones, that came back from partners.
    Exporter,
}

/// The halves that hold, and the checkpoints under which they are in their signers' logs.
pub(super) fn check(
    bundle: &Bundle,
    whose: &Whose,
    keys: &Keys,
    agreements: &HashMap<AgreementId, Agreement>,
    secrets: &HashMap<AgreementId, SeriesSecret>,
    findings: &mut Findings,
) -> Vec<Held> {
    let mut halves: Vec<Held> = Vec::new();
    let mut roots: HashMap<(String, u64), Sha256> = HashMap::new();
    let mut places: HashMap<(AgreementId, String), Vec<(u64, u64)>> = HashMap::new();
    let mut numbers: HashMap<(AgreementId, String, u64), Sha256> = HashMap::new();
    let all = match whose {
        Whose::Partner => &bundle.halves,
        Whose::Exporter => &bundle.recovered,
    };
    for half in all {
        let place = format!("half {} of agreement {}", half.kind, half.agreement);
        let Some(agreement) = agreements.get(&half.agreement) else {
            findings.wrong("half-foreign", place, "its agreement is not in the export");
            continue;
        };
        let exporter = &bundle.about.exporter;
        let partner = match whose {
            Whose::Exporter => exporter.as_str(),
            Whose::Partner if agreement.provider.id == *exporter => agreement.consumer.id.as_str(),
            Whose::Partner => agreement.provider.id.as_str(),
        };
        let key = |kid: &jws::Kid| keys.get(kid);
        let receipt = match half.kind.as_str() {
            "agreement" => agreement::verify(&half.jws, &partner, key).map(|_| None),
            "acknowledgement" => {
                jws::verify::<serde_json::Value>(&half.jws, Typ::Acknowledgement, &partner, key).map(|_| None)
            }
            _ => crate::receipt::verify(&half.jws, &partner, key).map(|verified| Some(verified.into_payload())),
        };
        let receipt = match receipt {
            Err(error) => {
                findings.wrong("half-broken", place, error.to_string());
                continue;
            }
            Ok(None) => continue,
            Ok(Some(receipt)) => receipt,
        };
        let place = format!("half {} ({})", receipt.id, receipt.kind.as_str());
        let Ok(signer) = Did::parse(partner) else {
            findings.wrong("half-broken", place, "its signer is no DID");
            continue;
        };
        if receipt.kind.as_str() != half.kind || receipt.agreement.as_ref() != Some(&half.agreement) {
            findings.wrong("half-broken", place, "it is not what it is said to be");
            continue;
        }
        if !may_sign(receipt.kind, &signer, agreement) {
            findings.wrong("party-wrong", place, format!("`{}` is not this party's to sign", receipt.kind.as_str()));
            continue;
        }
        let Some(secret) = secrets.get(&half.agreement) else { continue };
        match placed(half, &receipt, secret, &signer, keys) {
            Err(problem) => findings.wrong("half-unproven", place, problem),
            Ok((_, _, checkpoint))
                if matches!(whose, Whose::Exporter)
                    && epoch_of(&checkpoint.origin, &signer).is_none_or(|epoch| epoch > bundle.about.epoch) =>
            {
                findings.wrong("half-foreign", place, format!("it is of {}, which is a later log", checkpoint.origin));
            }
            Ok((number, index, checkpoint)) => {
                places.entry((half.agreement.clone(), checkpoint.origin.clone())).or_default().push((number, index));
                let place_in_series = (half.agreement.clone(), checkpoint.origin.clone(), number);
                let known = numbers.entry(place_in_series).or_insert_with(|| half.jws.sha256());
                if *known != half.jws.sha256() {
                    findings.wrong(
                        "number-reused",
                        place.clone(),
                        format!("another receipt of `{signer}` has number {number} too"),
                    );
                }
                let root = roots.entry((checkpoint.origin.clone(), checkpoint.size)).or_insert(checkpoint.root);
                if *root != checkpoint.root {
                    findings.wrong(
                        "log-forked",
                        place,
                        format!("`{signer}` signed two different logs of {} entries", checkpoint.size),
                    );
                }
                halves.push(Held {
                    receipt,
                    sha256: half.jws.sha256(),
                    index: None,
                    number,
                    checkpoint: Some(checkpoint),
                });
            }
        }
    }
    for ((agreement, log), mut places) in places {
        places.sort_unstable();
        places.dedup();
        if let Some(pair) = places.windows(2).find(|pair| pair[0].1 >= pair[1].1) {
            let problem = format!("number {} is not after number {} in it", pair[1].0, pair[0].0);
            findings.wrong("number-disordered", format!("agreement {agreement}: {log}"), problem);
        }
    }
    halves
}

/// A half's number, its place in its signer's log, and the checkpoint under which it is there.
fn placed(
    half: &PartnerHalf,
    receipt: &Receipt,
    secret: &SeriesSecret,
    signer: &Did,
    keys: &Keys,
) -> Result<(u64, u64, Checkpoint), String> {
    let (Some(number), Some(proof)) = (half.number, &half.proof) else {
        return Err("it has no place in its signer's log".into());
    };
    let party = keys.parties.get(signer).ok_or("its signer's statements are not in the export")?;
    let proof = LogProof::parse(proof).map_err(|error| error.to_string())?;
    let claimed = Checkpoint::claimed(&proof.checkpoint).map_err(|error| error.to_string())?;
    let epoch = epoch_of(&claimed.origin, signer);
    let epoch = epoch.ok_or_else(|| format!("`{}` is not a log of `{signer}`", claimed.origin))?;
    let log = origin(signer, epoch);
    let tag = secret.key_of(&signer.clone().into()).in_epoch(epoch).tag(number);
    let checkpoint = proof
        .verify(&entry(&tag, &half.jws.sha256()), &log, &party.newest.keys.log)
        .map_err(|error| format!("receipt {}: {error}", receipt.id))?;
    Ok((number, proof.index, checkpoint))
}
