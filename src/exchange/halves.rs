//! The tally: our receipts on their way to the partner with proof that they are in our log, and the partner's, checked
//! when they come: signature, kind, number in the series, and inclusion.

use crate::{
    agreement::AgreementRow,
    crypto::jws::{Jws, Kid},
    error::Refusal,
    exchange::{
        Exchange, refuse,
        witness::{Evidence, ended_key},
    },
    id::{ParticipantId, Sha256},
    identity::Peer,
    protocol::extension::{HalvesRequest, LoggedReceipt, OutcomeRequest},
    receipt::{
        Commit, Kind, LogProof, PartnerHalf, Receipt, SeriesKey,
        checkpoint::{Checkpoint, epoch_of},
        entry, read,
    },
};

/// A partner's receipt that has been checked, not yet kept.
pub(super) struct CheckedHalf {
    /// What it says.
    pub receipt: Receipt,
    logged: LoggedReceipt,
    place: Vec<u8>,
    /// Whether it was not here before.
    pub new: bool,
}

impl Exchange {
    /// A receipt of ours with its place: number, and proof under our newest checkpoint.
    pub(super) async fn logged(&self, receipt: &Jws) -> Result<LoggedReceipt, Refusal> {
        let unreadable = refuse("store-unreadable");
        let missing = || Refusal::new("receipt-missing", "a receipt of ours can't be found");
        let stored = self.receipts.by_sha256(&receipt.sha256()).await.map_err(&unreadable)?.ok_or_else(missing)?;
        let proof = self.log.prove(stored.index).await.map_err(unreadable)?.ok_or_else(missing)?;
        Ok(LoggedReceipt { receipt: receipt.clone(), number: stored.number, proof: proof.to_string() })
    }

    /// Checks a receipt of the partner's: who signed it, what it is, its number, and that it is in the partner's log.
    ///
    /// # Errors
    /// `receipt-signature`, `receipt-mismatch`; `receipt-unproven` where number or proof don't hold; `number-reused`,
    /// after an alarm, where another receipt of the partner's has this number.
    pub(super) async fn check_half(
        &self,
        agreement: &AgreementRow,
        peer: &Peer,
        kinds: &[Kind],
        logged: &LoggedReceipt,
        key: impl FnOnce(&Kid) -> Option<crate::crypto::VerifyingKey>,
    ) -> Result<CheckedHalf, Refusal> {
        let receipt = crate::receipt::verify(&logged.receipt, &peer.did, key)
            .map_err(refuse("receipt-signature"))?
            .into_payload();
        if receipt.agreement.as_ref() != Some(agreement.id())
            || receipt.series != agreement.id().as_str()
            || !kinds.contains(&receipt.kind)
        {
            return Err(Refusal::new("receipt-mismatch", "the receipt is not what it is said to be"));
        }
        let signer: ParticipantId = peer.did.clone().into();
        let sha256 = logged.receipt.sha256();
        let series = agreement.series_secret.key_of(&signer);
        let log = self.check_inclusion(peer, &series, logged).await?;
        let unreadable = refuse("store-unreadable");
        let kept = self.receipts.half(agreement.id(), &sha256).await.map_err(&unreadable)?;
        if let Some(kept) = &kept
            && (kept.number != Some(logged.number) || kept.log().as_ref() != Some(&log))
        {
            let sentence = format!("`{signer}` shows one receipt at two places of its logs");
            let objects = [kept.proof.clone(), Some(logged.receipt.as_str().to_owned()), Some(logged.proof.clone())];
            let objects = objects.into_iter().flatten().collect();
            self.alarm(peer, Evidence { code: "half-moved", sentence: sentence.clone(), proven: true, objects })
                .await?;
            return Err(Refusal::new("half-moved", sentence));
        }
        let place = PartnerHalf::number_key(agreement.id(), &log, logged.number);
        let known = read::<Sha256>(&*self.store, &place).await.map_err(refuse("store-unreadable"))?;
        match known.value {
            Some(other) if other != sha256 => {
                let sentence =
                    format!("two receipts of `{signer}` have number {} of agreement {}", logged.number, agreement.id());
                let first = self.receipts.half(agreement.id(), &other).await.map_err(&unreadable)?;
                let first =
                    first.into_iter().flat_map(|half| [Some(half.jws.as_str().to_owned()), half.proof]).flatten();
                let evidence = first.chain([logged.receipt.as_str().to_owned(), logged.proof.clone()]).collect();
                self.alarm(
                    peer,
                    Evidence { code: "number-reused", sentence: sentence.clone(), proven: true, objects: evidence },
                )
                .await?;
                Err(Refusal::new("number-reused", sentence))
            }
            _ => Ok(CheckedHalf { receipt, logged: logged.clone(), place, new: kept.is_none() }),
        }
    }

    /// Gives the origin of the partner's log that it is in.
    async fn check_inclusion(
        &self,
        peer: &Peer,
        series: &SeriesKey,
        logged: &LoggedReceipt,
    ) -> Result<String, Refusal> {
        let unproven = |why: String| {
            let sentence =
                format!("receipt number {} is not proven to be in `{}`'s log: {why}", logged.number, peer.did);
            Refusal::new("receipt-unproven", sentence)
        };
        let proof = LogProof::parse(&logged.proof).map_err(|error| unproven(error.to_string()))?;
        let origin = Checkpoint::claimed(&proof.checkpoint).map_err(|error| unproven(error.to_string()))?.origin;
        let followed = self.witnesses.followed(&peer.did);
        let epoch = epoch_of(&origin, &peer.did).filter(|epoch| *epoch <= followed);
        let epoch = epoch.ok_or_else(|| unproven(format!("`{origin}` is not a log of its that we follow")))?;
        let tag = series.in_epoch(epoch).tag(logged.number);
        let checkpoint = proof
            .verify(&entry(&tag, &logged.receipt.sha256()), &origin, &peer.statement.keys.log)
            .map_err(|error| unproven(error.to_string()))?;
        if epoch < followed {
            // what was in a log before another was begun still counts; nothing is added to it any more
            let ended = read::<u64>(&*self.store, &ended_key(&origin)).await.map_err(refuse("store-unreadable"))?;
            if ended.value.is_none_or(|ended| checkpoint.size > ended) {
                return Err(unproven(format!("`{origin}` was over before it had {} entries", checkpoint.size)));
            }
        }
        self.compare_with_seen(peer, &checkpoint, &proof.checkpoint).await?;
        Ok(origin)
    }

    /// Keeps what was checked.
    pub(super) fn keep_half(&self, commit: &mut Commit, half: &CheckedHalf) -> Result<(), Refusal> {
        let Some(agreement) = half.receipt.agreement.clone() else { return Ok(()) };
        // as it came first: what its signer says of it later takes nothing from that
        if !half.new {
            return Ok(());
        }
        commit.put_new(half.place.clone(), &half.logged.receipt.sha256()).map_err(refuse("internal"))?;
        commit.half(PartnerHalf {
            agreement,
            kind: half.receipt.kind.as_str().to_owned(),
            jws: half.logged.receipt.clone(),
            number: Some(half.logged.number),
            proof: Some(half.logged.proof.clone()),
        });
        Ok(())
    }

    /// Letters are written with the commit that makes a receipt, before it has a place: number and proof are put in when
    /// the letter goes out.
    pub(super) async fn complete_halves(&self, body: &mut serde_json::Value) -> Result<(), Refusal> {
        if let Ok(mut request) = serde_json::from_value::<HalvesRequest>(body.clone()) {
            for half in &mut request.halves {
                half.logged = self.logged(&half.logged.receipt).await?;
            }
            *body = serde_json::to_value(request).map_err(refuse("internal"))?;
        } else if let Ok(mut request) = serde_json::from_value::<OutcomeRequest>(body.clone()) {
            request.outcome = self.logged(&request.outcome.receipt).await?;
            *body = serde_json::to_value(request).map_err(refuse("internal"))?;
        }
        Ok(())
    }
}

/// A receipt that has no place yet.
pub(super) fn unplaced(receipt: Jws) -> LoggedReceipt {
    LoggedReceipt { receipt, number: 0, proof: String::new() }
}
