//! One export: authentic, in its log, in order, complete, decided as it says; or exactly what is wrong.

mod halves;
mod keys;
mod log;
mod receipts;
mod replay;

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use self::keys::{Keys, Standing};
use crate::{
    agreement::{self, Agreement, SeriesSecret},
    crypto::jws::{self, Kid, Typ},
    evidence::{Bundle, ExportedAgreement},
    id::{AgreementId, Did, ParticipantId, Sha256},
    offer::Offer,
    receipt::{Kind, PeerCheckpoint, Receipt, checkpoint::Checkpoint},
};

pub use self::{keys::Trust, log::Cosignature};

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable code.
    pub code: &'static str,
    /// Where: a receipt's id, an agreement's, a file, a place in the log.
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
    /// Which of its logs: after a restore there are several, and an export of each.
    pub epoch: u64,
    /// The log before it, as its first receipt says.
    pub prior: Option<PeerCheckpoint>,
    /// Whether the series of its agreements are whole, within this log; a selection by kind, verdict or time can't be.
    pub whole: bool,
    /// Receipts that hold.
    pub receipts: usize,
    /// Log entries under the checkpoint.
    pub entries: usize,
    /// Cosignatures by partners that hold.
    pub cosignatures: usize,
    /// How far each partner has cosigned, and when.
    pub witnessed: Vec<Cosignature>,
    /// Agreements that hold.
    pub agreements: usize,
    /// Those of them that only the exporter has signed.
    pub one_sided: usize,
    /// Halves of partners that hold.
    pub halves: usize,
    /// Receipts of its own that it lost with a store, and has back from partners.
    pub recovered: usize,
    /// Decisions that came out the same when they were decided again.
    pub replayed: usize,
    /// Decisions that could not be: their request was erased or is not shown, or they are of another version.
    pub not_replayed: usize,
    /// Participants whose keys the verifier trusts.
    pub trusted: Vec<Did>,
    /// Participants whose keys are only what the export says.
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

/// What was found so far.
#[derive(Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub fn wrong(&mut self, code: &'static str, place: impl Into<String>, problem: impl Into<String>) {
        self.0.push(Finding { code, place: place.into(), problem: problem.into() });
    }

    pub fn into_vec(self) -> Vec<Finding> {
        self.0
    }
}

/// A receipt that holds, with what is known of its place.
pub(super) struct Held {
    pub receipt: Receipt,
    pub sha256: Sha256,
    /// In the exporter's log; a half's place is in its signer's.
    pub index: Option<u64>,
    /// In its series.
    pub number: u64,
    /// Under which checkpoint of its signer's a half came.
    pub checkpoint: Option<Checkpoint>,
}

/// What is known of an export once it is checked.
pub(super) struct Checked {
    pub receipts: Vec<Held>,
    pub halves: Vec<Held>,
    /// The exporter's own, of this log, that only partners kept; they have no index.
    pub recovered: Vec<Held>,
    pub agreements: HashMap<AgreementId, Agreement>,
    pub one_sided: HashSet<AgreementId>,
}

/// Checks an export, offline.
pub fn verify(bundle: &Bundle, trust: &Trust) -> Verdict {
    check(bundle, trust).0
}

pub(super) fn check(bundle: &Bundle, trust: &Trust) -> (Verdict, Checked) {
    let mut findings = Findings::default();
    let mut keys = Keys::default();
    let (mut trusted, mut unproven) = (Vec::new(), Vec::new());
    for (did, chain) in &bundle.statements {
        match keys.add(did, chain).map(|first| trust.of(did, &first)) {
            Err(error) => findings.wrong("statement-broken", did.to_string(), error),
            Ok(Standing::Trusted) => trusted.push(did.clone()),
            Ok(Standing::Unproven) => unproven.push(did.clone()),
            Ok(Standing::Other) => {
                findings.wrong("key-other", did.to_string(), "its first key is not the one that you trust");
            }
        }
    }
    let cosignatures = log::check(bundle, &keys, &mut findings);

    let mut agreements = HashMap::new();
    let mut secrets: HashMap<AgreementId, SeriesSecret> = HashMap::new();
    let mut one_sided: HashSet<AgreementId> = HashSet::new();
    let mut slices = replay::Slices::default();
    for exported in &bundle.agreements {
        match signed(&bundle.about.exporter, exported, &keys) {
            Err((place, problem)) => findings.wrong("agreement-broken", place, problem),
            Ok((agreement, alone)) => {
                let place = format!("agreement {}", agreement.id);
                if let Some(offer) = offer(&exported.offer, &agreement.provider.id, &keys, &place, &mut findings) {
                    slices.add(&offer, &place, &mut findings);
                }
                if alone {
                    one_sided.insert(agreement.id.clone());
                }
                secrets.insert(agreement.id.clone(), exported.series_secret.clone());
                if agreements.insert(agreement.id.clone(), agreement).is_some() {
                    findings.wrong("agreement-twice", place, "it is there twice");
                }
            }
        }
    }
    for jws in &bundle.offers {
        let exporter: ParticipantId = bundle.about.exporter.clone().into();
        let place = format!("offer {}", jws.sha256());
        if let Some(offer) = offer(jws, &exporter, &keys, &place, &mut findings) {
            slices.add(&offer, &place, &mut findings);
        }
    }
    replay::schema(bundle, &mut findings);
    let context = receipts::Context {
        bundle,
        keys: &keys,
        agreements: &agreements,
        secrets: &secrets,
        one_sided: &one_sided,
        slices: &slices,
        cosignatures: &cosignatures,
    };
    let (receipts, replayed, not_replayed) = receipts::check(&context, &mut findings);
    let (theirs, ours) = (halves::Whose::Partner, halves::Whose::Exporter);
    let halves = halves::check(bundle, &theirs, &keys, &agreements, &secrets, &mut findings);
    let recovered = halves::check(bundle, &ours, &keys, &agreements, &secrets, &mut findings);
    let first = receipts.iter().find(|held| held.index == Some(0));
    let verdict = Verdict {
        exporter: bundle.about.exporter.clone(),
        epoch: bundle.about.epoch,
        prior: first.and_then(|first| first.receipt.prior_log.clone()),
        whole: bundle.about.scope.is_whole(),
        receipts: receipts.len(),
        entries: bundle.entries.len(),
        cosignatures: cosignatures.len(),
        witnessed: log::newest(&cosignatures),
        agreements: agreements.len(),
        one_sided: one_sided.len(),
        halves: halves.len(),
        recovered: recovered.len(),
        replayed,
        not_replayed,
        trusted,
        unproven,
        findings: findings.0,
    };
    (verdict, Checked { receipts, halves, recovered, agreements, one_sided })
}

/// An offer by its provider, if its signature holds.
fn offer(jws: &jws::Jws, provider: &ParticipantId, keys: &Keys, place: &str, findings: &mut Findings) -> Option<Offer> {
    match jws::verify::<Offer>(jws, Typ::Offer, provider, |kid: &Kid| keys.get(kid)) {
        Ok(offer) => Some(offer.into_payload()),
        Err(error) => {
            findings.wrong("offer-broken", place, error.to_string());
            None
        }
    }
}

/// The agreement, and whether only the exporter has signed it.
fn signed(exporter: &Did, exported: &ExportedAgreement, keys: &Keys) -> Result<(Agreement, bool), (String, String)> {
    let anonymous = |problem: String| ("an agreement".to_owned(), problem);
    let key = |kid: &Kid| keys.get(kid);
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
pub(super) fn may_sign(kind: Kind, signer: &Did, agreement: &Agreement) -> bool {
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
