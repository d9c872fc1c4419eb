//! One bundle: authentic, in its log, in order, complete; or exactly what is wrong.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use crate::{
    agreement::{self, Agreement, SeriesSecret},
    crypto::{
        VerifyingKey,
        jws::{self, Jws, KeyRole, Kid, Typ},
        unb64,
    },
    evidence::Bundle,
    id::{AgreementId, Did, Sha256},
    identity::{Invitation, Statement, StatementError, verify_chain},
    receipt::{
        Kind, Receipt, SeriesKey,
        checkpoint::Checkpoint,
        entry,
        merkle::{Frontier, leaf_hash},
    },
};

/// Keys that the verifier trusts, from invitations it got by another channel.
#[derive(Debug, Default)]
pub struct Trust(BTreeMap<Did, VerifyingKey>);

impl Trust {
    /// Trusts the first key of this invitation's chain, and so what it signed on.
    pub fn add(&mut self, invitation: &Invitation) -> Result<Did, StatementError> {
        let first = invitation.statements.get(..1).unwrap_or_default();
        let statement = verify_chain(first)?;
        self.0.insert(statement.did.clone(), statement.keys.signing);
        Ok(statement.did)
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable code.
    pub code: &'static str,
    /// Where: a receipt's id, an agreement's, a place in the log.
    pub place: String,
    /// What is wrong there.
    pub problem: String,
}

/// What verification came to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whose export it is.
    pub exporter: Did,
    /// Receipts that hold.
    pub receipts: usize,
    /// Log entries under the checkpoint.
    pub entries: usize,
    /// Agreements that hold.
    pub agreements: usize,
    /// Those of them that only the exporter has signed.
    pub one_sided: usize,
    /// Halves of partners that hold.
    pub halves: usize,
    /// Participants whose keys the verifier trusts.
    pub trusted: Vec<Did>,
    /// Participants whose keys are only what the bundle says.
    pub unproven: Vec<Did>,
    /// What is wrong; nothing, if all holds.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn holds(&self) -> bool {
        self.findings.is_empty()
    }
}

/// What is known of a bundle while it is checked.
pub(super) struct Checked {
    /// Receipts that hold, with their signed form's hash.
    pub receipts: Vec<(Receipt, Sha256)>,
    /// Partners' receipts that hold.
    pub halves: Vec<(Receipt, Sha256)>,
    /// Hashes of acknowledgements among the halves.
    pub agreements: HashMap<AgreementId, Agreement>,
}

/// Checks a bundle, offline.
pub fn verify(bundle: &Bundle, trust: &Trust) -> Verdict {
    check(bundle, trust).0
}

pub(super) fn check(bundle: &Bundle, trust: &Trust) -> (Verdict, Checked) {
    let mut findings = Vec::new();
    let mut wrong = |code, place: String, problem: String| findings.push(Finding { code, place, problem });
    let mut keys: HashMap<Kid, VerifyingKey> = HashMap::new();
    let (mut trusted, mut unproven) = (Vec::new(), Vec::new());
    let mut current: BTreeMap<&Did, Statement> = BTreeMap::new();

    for (did, chain) in &bundle.statements {
        match own_keys(did, chain, &mut keys) {
            Err(error) => wrong("statement-broken", did.to_string(), error),
            Ok((first, last)) => {
                match trust.0.get(did) {
                    Some(key) if *key == first.keys.signing => trusted.push(did.clone()),
                    Some(_) => {
                        wrong("key-other", did.to_string(), "its first key is not the one that you trust".into())
                    }
                    None => unproven.push(did.clone()),
                }
                current.insert(did, last);
            }
        }
    }
    let key = |kid: &Kid| keys.get(kid).copied();

    // the log
    let mut entries = Vec::with_capacity(bundle.entries.len());
    let mut frontier = Frontier::default();
    for (index, text) in bundle.entries.iter().enumerate() {
        match unb64(text).ok().filter(|bytes| bytes.len() == 65 && bytes[0] == 1) {
            Some(bytes) => {
                frontier.push(leaf_hash(&bytes));
                entries.push(bytes);
            }
            None => {
                wrong("entry-broken", format!("entry {index}"), "not 65 bytes that begin with 0x01".into());
                frontier.push(leaf_hash(text.as_bytes()));
                entries.push(Vec::new());
            }
        }
    }
    match current.get(&bundle.exporter) {
        None => wrong(
            "statement-missing",
            bundle.exporter.to_string(),
            "the exporter's own statements are not in the bundle".into(),
        ),
        Some(statement) => {
            let origin = format!("{}/log/1", bundle.exporter);
            match Checkpoint::verify(&bundle.checkpoint, &origin, &statement.keys.log) {
                Err(error) => wrong("checkpoint-broken", origin, error.to_string()),
                Ok(checkpoint) if checkpoint.size != entries.len() as u64 || checkpoint.root != frontier.root() => {
                    wrong(
                        "log-altered",
                        origin,
                        format!(
                            "the {} entries are not the {} that the checkpoint signs",
                            entries.len(),
                            checkpoint.size
                        ),
                    )
                }
                Ok(_) => {}
            }
        }
    }

    // the agreements
    let mut agreements: HashMap<AgreementId, Agreement> = HashMap::new();
    let mut secrets: HashMap<AgreementId, SeriesSecret> = HashMap::new();
    let mut one_sided: HashSet<AgreementId> = HashSet::new();
    for exported in &bundle.agreements {
        match signed(&bundle.exporter, exported, &key) {
            Err((place, problem)) => wrong("agreement-broken", place, problem),
            Ok((agreement, alone)) => {
                if alone {
                    one_sided.insert(agreement.id.clone());
                }
                secrets.insert(agreement.id.clone(), exported.series_secret.clone());
                agreements.insert(agreement.id.clone(), agreement);
            }
        }
    }

    // the exporter's receipts
    let mut receipts = Vec::new();
    let mut series: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut times: BTreeMap<String, (u64, crate::time::Timestamp)> = BTreeMap::new();
    let mut places = HashSet::new();
    for exported in &bundle.receipts {
        let place = || format!("receipt at {} ({})", exported.index, name(&exported.jws));
        let receipt = match crate::receipt::verify(&exported.jws, &bundle.exporter, key) {
            Ok(verified) => verified.into_payload(),
            Err(error) => {
                wrong("receipt-broken", place(), error.to_string());
                continue;
            }
        };
        let place = format!("receipt {} ({})", receipt.id, receipt.kind.as_str());
        if !places.insert(exported.index) {
            wrong("receipt-twice", place.clone(), format!("entry {} is claimed twice", exported.index));
        }
        let sha256 = exported.jws.sha256();
        let found = usize::try_from(exported.index).ok().and_then(|index| entries.get(index));
        match found {
            Some(found) if found.len() == 65 && found[33..] == *sha256.as_bytes() => {
                if let Some(secret) = secrets.get_by(&receipt.series) {
                    let tag = secret.key_of(&bundle.exporter.clone().into()).tag(exported.number);
                    if found[..] != entry(&tag, &sha256) {
                        wrong(
                            "number-wrong",
                            place.clone(),
                            format!("it is not number {} of its series", exported.number),
                        );
                    }
                }
            }
            Some(_) => {
                wrong("receipt-not-in-log", place.clone(), format!("entry {} is another receipt's", exported.index))
            }
            None => wrong("receipt-not-in-log", place.clone(), format!("the log has no entry {}", exported.index)),
        }
        if let Some(agreement) = receipt.agreement.as_ref().and_then(|id| agreements.get(id)) {
            let parties =
                receipt.provider == agreement.provider.id && receipt.consumer.as_ref() == Some(&agreement.consumer.id);
            if !parties {
                wrong("party-foreign", place.clone(), "its parties are not the agreement's".into());
            }
            // a signature that was left out doesn't make an agreement one-sided: its receipts have said so from the start
            if receipt.one_sided != one_sided.contains(&agreement.id) {
                wrong(
                    "one-sided",
                    place.clone(),
                    "receipt and agreement differ on whether only the exporter has signed the agreement".into(),
                );
            }
            if !may_sign(receipt.kind, &bundle.exporter, agreement) {
                wrong("party-wrong", place.clone(), format!("`{}` is not this party's to sign", receipt.kind.as_str()));
            }
        }
        series.entry(receipt.series.clone()).or_default().push(exported.number);
        let last = times.entry(receipt.series.clone()).or_insert((exported.number, receipt.time));
        if exported.number > last.0 && receipt.time.millis() + 300_000 < last.1.millis() {
            wrong(
                "time-backwards",
                place,
                format!("it is from {}, but number {} before it from {}", receipt.time, last.0, last.1),
            );
        }
        if exported.number >= last.0 {
            *last = (exported.number, receipt.time);
        }
        receipts.push((receipt, sha256));
    }
    // gaps, and a tail that was left out: whoever has the secret finds the next number's tag in the log
    for (id, secret) in &secrets {
        let mut numbers = series.remove(id.as_str()).unwrap_or_default();
        numbers.sort_unstable();
        for (expected, number) in (0_u64..).zip(&numbers) {
            if *number != expected {
                wrong(
                    "receipt-missing",
                    format!("agreement {id}"),
                    format!("number {expected} of the exporter's series is not in the bundle"),
                );
                break;
            }
        }
        let key: SeriesKey = secret.key_of(&bundle.exporter.clone().into());
        let next = key.tag(numbers.len() as u64);
        if entries.iter().any(|found| found.len() == 65 && found[1..33] == next) {
            wrong(
                "receipt-missing",
                format!("agreement {id}"),
                format!("the log has number {} of the exporter's series, the bundle has not", numbers.len()),
            );
        }
    }

    // the partners' halves
    let mut halves = Vec::new();
    for half in &bundle.halves {
        let place = format!("half {} of agreement {}", half.kind, half.agreement);
        let Some(agreement) = agreements.get(&half.agreement) else {
            wrong("half-foreign", place, "its agreement is not in the bundle".into());
            continue;
        };
        let partner =
            if agreement.provider.id == bundle.exporter { &agreement.consumer.id } else { &agreement.provider.id };
        let result = match half.kind.as_str() {
            "agreement" => agreement::verify(&half.jws, partner, key).map(|_| None),
            "acknowledgement" => {
                jws::verify::<serde_json::Value>(&half.jws, Typ::Acknowledgement, partner, key).map(|_| None)
            }
            _ => crate::receipt::verify(&half.jws, partner, key).map(|verified| Some(verified.into_payload())),
        };
        match result {
            Err(error) => wrong("half-broken", place, error.to_string()),
            Ok(Some(receipt))
                if receipt.kind.as_str() != half.kind || receipt.agreement.as_ref() != Some(&half.agreement) =>
            {
                wrong("half-broken", place, "it is not what it is said to be".into());
            }
            Ok(Some(receipt)) => halves.push((receipt, half.jws.sha256())),
            Ok(None) => {}
        }
    }
    let verdict = Verdict {
        exporter: bundle.exporter.clone(),
        receipts: receipts.len(),
        entries: entries.len(),
        agreements: agreements.len(),
        one_sided: one_sided.len(),
        halves: halves.len(),
        trusted,
        unproven,
        findings,
    };
    (verdict, Checked { receipts, halves, agreements })
}

/// All keys of a chain, added to `keys`; gives its first and last statement.
fn own_keys(did: &Did, chain: &[Jws], keys: &mut HashMap<Kid, VerifyingKey>) -> Result<(Statement, Statement), String> {
    let mut ends = None;
    for end in 1..=chain.len() {
        let statement = verify_chain(&chain[..end]).map_err(|error| error.to_string())?;
        if statement.did != *did {
            return Err(format!("the chain is of `{}`", statement.did));
        }
        for (role, key) in [(KeyRole::Signing, statement.keys.signing), (KeyRole::Log, statement.keys.log)] {
            keys.insert(Kid::of(did, role, &key), key);
        }
        let first = ends.take().map_or_else(|| statement.clone(), |(first, _)| first);
        ends = Some((first, statement));
    }
    ends.ok_or_else(|| "no statement".to_owned())
}

/// The agreement, and whether only the exporter has signed it.
fn signed(
    exporter: &Did,
    exported: &super::ExportedAgreement,
    key: &impl Fn(&Kid) -> Option<VerifyingKey>,
) -> Result<(Agreement, bool), (String, String)> {
    let anonymous = |problem: String| ("an agreement".to_owned(), problem);
    let some = exported.by_provider.as_ref().or(exported.by_consumer.as_ref());
    let some = some.ok_or_else(|| anonymous("nobody signed it".into()))?;
    let (_, kid) = jws::peek(some).map_err(|error| anonymous(error.to_string()))?;
    let first = agreement::verify(some, kid.did(), key).map_err(|error| anonymous(error.to_string()))?;
    let agreement = first.payload().clone();
    let place = |problem: &str| (format!("agreement {}", agreement.id), problem.to_owned());
    for (signature, party) in
        [(&exported.by_provider, &agreement.provider.id), (&exported.by_consumer, &agreement.consumer.id)]
    {
        match signature {
            Some(signature) => {
                let signed = agreement::verify(signature, party, key).map_err(|error| place(&error.to_string()))?;
                if *signed.payload() != agreement {
                    return Err(place("its parties signed different texts"));
                }
            }
            None if *party == *exporter => return Err(place("the exporter itself did not sign it")),
            None => {}
        }
    }
    if exported.offer.sha256() != agreement.offer {
        return Err(place("the offer beside it is another"));
    }
    if exported.series_secret.sha256() != agreement.series_secret_sha256 {
        return Err(place("the secret of its series is another"));
    }
    let one_sided = exported.by_provider.is_none() || exported.by_consumer.is_none();
    Ok((agreement, one_sided))
}

/// Which party signs which kind.
fn may_sign(kind: Kind, signer: &Did, agreement: &Agreement) -> bool {
    match kind {
        Kind::Released | Kind::Delivered | Kind::Lapsed | Kind::Lifted | Kind::Revoked | Kind::Suspended => {
            *signer == agreement.provider.id
        }
        Kind::Acknowledged | Kind::Opened | Kind::Disputed | Kind::Used | Kind::Deleted => {
            *signer == agreement.consumer.id
        }
        _ => *signer == agreement.provider.id || *signer == agreement.consumer.id,
    }
}

/// The id that a receipt that doesn't verify claims, for the message.
fn name(jws: &Jws) -> String {
    jws.as_str()
        .split('.')
        .nth(1)
        .and_then(|part| unb64(part).ok())
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .and_then(|value| value["id"].as_str().map(|id| id.chars().take(80).collect()))
        .unwrap_or_else(|| "unreadable".to_owned())
}

/// A series is named by its agreement's id.
trait BySeries {
    fn get_by(&self, series: &str) -> Option<&SeriesSecret>;
}

impl BySeries for HashMap<AgreementId, SeriesSecret> {
    fn get_by(&self, series: &str) -> Option<&SeriesSecret> {
        self.get(&AgreementId::parse(series).ok()?)
    }
}
