//! Fetch: the consumer's side of a release, from asking to a sealed copy whose key it holds.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{
    agreement::AgreementRow,
    crypto::{
        SealingKey,
        ece::Keying,
        jwe,
        jws::{self, Jws, Typ},
    },
    dataplane::receive,
    error::Refusal,
    exchange::{
        Exchange,
        catalog::{PATIENCE, parsed},
        halves::{CheckedHalf, unplaced},
        outbox::Draft,
        refuse,
        release::KEY_CTY,
        rows::About,
    },
    id::{AgreementId, CopyId, ReleaseId, RequestId, Sha256},
    identity::Peer,
    offer::Approval,
    protocol::{
        BASE, Party,
        extension::{
            self, Acknowledgement, AcknowledgementRequest, KeyAnswer, OutcomeRequest, ReleaseAnswer, ReleaseRequest,
            Software,
        },
        message,
    },
    receipt::{Commit, Kind, Payload, Receipt, Row, list, read},
    vault::{self, CopyRow, CopyState},
};

/// How long we wait for a provider to start a transfer.
const START: Duration = Duration::from_secs(30);

/// What a person asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FetchRequest {
    /// Under which agreement.
    pub agreement: AgreementId,
    /// What for.
    pub purpose: String,
    /// Which part, with what, and what was done first.
    #[serde(default, flatten)]
    pub with: With,
    /// Stop before the acknowledgement: to see what a consumer gets that never acknowledges.
    #[serde(default)]
    pub without_acknowledgement: bool,
    /// Ask for another release, even if one was begun and is not over.
    #[serde(default)]
    pub another: bool,
}

/// What a request asks for besides a purpose, and what it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct With {
    /// Only these columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<BTreeSet<String>>,
    /// Only these rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// What is to read the data, as we declare it.
    #[serde(skip_serializing_if = "Software::is_empty")]
    pub software: Software,
    /// Statements that we accept, word for word.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub accepts: BTreeSet<String>,
    /// The acting person, as enrolled with the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// The person's one-time code. Kept nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// What a copy is asked for with, kept until it is released.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AskedFor {
    purpose: String,
    #[serde(flatten)]
    with: With,
}

/// How a fetch goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum FetchEvent {
    /// The provider decided, and its receipt is here.
    Released {
        /// The release.
        release: ReleaseId,
        /// Its receipt's hash.
        receipt: Sha256,
        /// Its number in the provider's series.
        number: u64,
        /// About how many bytes will come.
        length: u64,
    },
    /// Coded bytes so far.
    Progress {
        /// How many.
        bytes: u64,
    },
    /// Sealed bytes are here and were acknowledged.
    Acknowledged {
        /// Coded bytes.
        bytes: u64,
    },
    /// The key came, and opened what was promised.
    Opened {
        /// The copy.
        copy: CopyId,
        /// Bytes of plaintext.
        bytes: u64,
    },
    /// It ends here, as was asked.
    Sealed {
        /// The copy, without a key.
        copy: CopyId,
    },
    /// It failed.
    Failed {
        /// Why.
        refusal: Refusal,
    },
}

/// Takes events; a listener that went away is no reason to stop.
type Events = mpsc::UnboundedSender<FetchEvent>;

impl Exchange {
    /// Fetches one release, or goes on with one that was begun. The last event says how it ended.
    pub async fn fetch(&self, request: FetchRequest, events: Events) {
        if let Err(refusal) = self.fetch_all(&request, &events).await {
            let _ = events.send(FetchEvent::Failed { refusal });
        }
    }

    async fn fetch_all(&self, request: &FetchRequest, events: &Events) -> Result<(), Refusal> {
        let tell = |event| {
            let _ = events.send(event);
        };
        let (_, agreement) = self.agreement(&request.agreement).await?;
        if agreement.ours != Party::Consumer {
            return Err(Refusal::new(
                "agreement-not-ours",
                "we are the provider of this agreement; its consumer fetches",
            ));
        }
        agreement.in_force(self.clock.now())?;
        let peer = self.peer(agreement.peer())?;
        let mut copy = match self.unfinished(&request.agreement).await? {
            Some(copy) if !request.another => copy,
            _ => self.begin_copy(&agreement, request).await?,
        };
        if copy.value().state == CopyState::Receiving {
            let started = self.transfer_started(&copy.value().transfer, START).await;
            let transfer = match started {
                Ok(transfer) => transfer,
                Err(refusal) => return self.abandon(copy, refusal).await,
            };
            let endpoint = transfer
                .endpoint
                .clone()
                .ok_or_else(|| Refusal::new("transfer-pending", "the transfer start named no data address"))?;
            let token = self.kept_token(&endpoint)?;
            let answer = match self.ask_release(&peer, &endpoint.url, &token, copy.value(), request).await {
                Ok(answer) => answer,
                // it waits: the same request is made again when what has to come first is done
                Err(refusal) if refusal.is("release-conditional") => return Err(refusal),
                // nothing was released: there is nothing to go on with
                Err(refusal) if copy.value().release.is_none() => return self.abandon(copy, refusal).await,
                Err(refusal) => return Err(refusal),
            };
            let half = self.check_released(&agreement, &peer, &answer).await?;
            let released = half.receipt.clone();
            tell(FetchEvent::Released {
                release: answer.release.clone(),
                receipt: answer.released.receipt.sha256(),
                number: answer.released.number,
                length: answer.length,
            });
            let mut row = copy.value().clone();
            row.release = Some(answer.release.clone());
            row.released = Some(answer.released.receipt.clone());
            row.stream = Some(answer.stream.clone());
            let mut commit = Commit::new();
            self.keep_half(&mut commit, &half)?;
            copy = self.keep(copy, row, commit).await?;
            self.vault.room_for(answer.length).map_err(refuse("disk-full"))?;

            let client = self.clients.client_for(&peer.target(), &answer.stream).map_err(refuse("peer-address"))?;
            let folder = self.vault.folder(&copy.value().id);
            let progress = |bytes| tell(FetchEvent::Progress { bytes });
            let segments = receive(&client, &answer.stream, &token, &folder, &progress).await.map_err(|error| match error {
                crate::dataplane::ReceiveError::Refused(refusal) => refusal,
                crate::dataplane::ReceiveError::Disk(error) if error.kind() == std::io::ErrorKind::StorageFull => Refusal::new(
                    "disk-full",
                    "the disk filled up while the copy arrived; free some room and fetch again: the release is still open",
                ),
                other => Refusal::new("stream-broken", format!("{other}; fetch again: the release is still open")),
            })?;
            let mut row = copy.value().clone();
            row.segments = segments;
            copy = self.keep(copy, row, Commit::new()).await?;
            if request.without_acknowledgement {
                tell(FetchEvent::Sealed { copy: copy.value().id.clone() });
                return Ok(());
            }
            copy = self.acknowledge(copy, &agreement, &answer.released.receipt, &released).await?;
        }
        let bytes = copy.value().segments.iter().map(|segment| segment.bytes).sum();
        let answer = self.send_acknowledgement(&peer, copy.value()).await?;
        tell(FetchEvent::Acknowledged { bytes });
        let copy = self.open(copy, &agreement, &peer, answer).await?;
        let ended = self.complete_transfer(&copy.value().transfer).await;
        self.post();
        ended?;
        let row = copy.value();
        if row.state == CopyState::Disputed {
            return Err(Refusal::new(
                "release-disputed",
                "the key that the provider handed over does not open what it released; this is on record as disputed",
            ));
        }
        tell(FetchEvent::Opened { copy: row.id.clone(), bytes: row.bytes });
        Ok(())
    }

    /// A copy under this agreement whose release is not over yet.
    async fn unfinished(&self, agreement: &AgreementId) -> Result<Option<Held>, Refusal> {
        Ok(self
            .copies(Some(agreement))
            .await?
            .into_iter()
            .find(|copy| matches!(copy.value().state, CopyState::Receiving | CopyState::Sealed)))
    }

    async fn begin_copy(&self, agreement: &AgreementRow, request: &FetchRequest) -> Result<Held, Refusal> {
        let id: CopyId = self.mint();
        let request_id: RequestId = self.mint();
        self.vault.create(&id).map_err(refuse("disk-failed"))?;
        let transfer = self.request_transfer(agreement, message::HTTP_PULL, None, Approval::Auto).await?;
        let row = CopyRow {
            id: id.clone(),
            agreement: agreement.id().clone(),
            dataset: agreement.agreement.dataset.clone(),
            transfer,
            request: request_id,
            release: None,
            released: None,
            stream: None,
            segments: Vec::new(),
            acknowledgement: None,
            acknowledged: None,
            state: CopyState::Receiving,
            bytes: 0,
            contents: None,
            given_up: false,
            begun: self.clock.now(),
        };
        let fresh = read::<CopyRow>(&*self.store, &vault::key(&id)).await.map_err(refuse("store-unreadable"))?;
        let mut commit = Commit::new();
        commit.content(vault::purpose_key(&id), request.kept()?);
        self.keep(Held { row: fresh, value: row.clone() }, row, commit).await
    }

    /// A copy that nothing will come of.
    async fn abandon(&self, copy: Held, refusal: Refusal) -> Result<(), Refusal> {
        let row = CopyRow { state: CopyState::Destroyed, ..copy.value().clone() };
        let transfer = row.transfer.clone();
        self.keep(copy, row, Commit::new()).await?;
        self.complete_transfer(&transfer).await?;
        Err(refusal)
    }

    async fn ask_release(
        &self,
        peer: &Peer,
        url: &str,
        token: &str,
        copy: &CopyRow,
        request: &FetchRequest,
    ) -> Result<ReleaseAnswer, Refusal> {
        // repeated for a release that is there, it says nothing any more
        let asked = if copy.release.is_none() { request.kept()? } else { b"{}".to_vec() };
        let key = vault::purpose_key(&copy.id);
        let kept = self.store.get(&key).await.map_err(refuse("store-unreadable"))?;
        if copy.release.is_none() && kept.as_ref() != Some(&asked) {
            // what is only overwritten would stay readable where it lay
            self.store.erase(&key).await.map_err(refuse("store-failed"))?;
            let mut commit = Commit::new();
            commit.content(key, asked.clone());
            self.commit(commit).await?;
        }
        let AskedFor { purpose, with } = serde_json::from_slice(&asked).map_err(refuse("internal"))?;
        let body = serde_json::to_vec(&ReleaseRequest {
            request_id: copy.request.clone(),
            purpose,
            fields: with.fields,
            filter: with.filter,
            software: with.software,
            accepts: with.accepts,
            person: with.person,
            code: request.with.code.clone(),
        })
        .map_err(refuse("internal"))?;
        let answer = self.ask(peer, reqwest::Method::POST, url, Some(&format!("Bearer {token}")), Some(&body)).await?;
        if answer.status == 202 {
            return Err(extension::refusal_from(answer.status, &answer.body));
        }
        parsed(&answer)
    }

    /// The provider's receipt says what we asked for, and commits it to a key.
    async fn check_released(
        &self,
        agreement: &AgreementRow,
        peer: &Peer,
        answer: &ReleaseAnswer,
    ) -> Result<CheckedHalf, Refusal> {
        let half = self
            .check_half(agreement, peer, &[Kind::Released], &answer.released, |kid| self.peers.current_key(kid))
            .await?;
        let receipt = &half.receipt;
        let fits = receipt.consumer == Some(self.us.clone().into())
            && receipt.release.as_ref() == Some(&answer.release)
            && receipt.key_sha256.is_some();
        if fits {
            Ok(half)
        } else {
            Err(Refusal::new("receipt-mismatch", "the provider's `released` receipt is not of what was asked for"))
        }
    }

    /// Signs for the sealed bytes, before the key is here. The one-time key is on disk before anybody hears of it.
    async fn acknowledge(
        &self,
        copy: Held,
        agreement: &AgreementRow,
        released: &Jws,
        receipt: &Receipt,
    ) -> Result<Held, Refusal> {
        let one_time = SealingKey::generate(&*self.random);
        let mut row = copy.value().clone();
        self.vault.keep_one_time(&row.id, &one_time).map_err(refuse("disk-failed"))?;
        let release = row.release.clone().ok_or_else(|| Refusal::new("internal", "no release to acknowledge"))?;
        let body = Acknowledgement {
            v: 1,
            release: release.clone(),
            released: released.sha256(),
            segments: row.segments.clone(),
            one_time_key: one_time.public(),
        };
        let acknowledgement = jws::sign(Typ::Acknowledgement, &self.keys.signing_kid(), &self.keys.signing, &body)
            .map_err(refuse("internal"))?;
        let mut commit = Commit::new();
        let mut own = self.receipt(Kind::Acknowledged, Some(agreement));
        own.transfer = Some(row.transfer.clone());
        own.release = Some(release);
        own.refers = Some(released.sha256());
        own.key_sha256 = receipt.key_sha256;
        own.payload = Some(Payload {
            bytes: row.segments.iter().map(|segment| segment.bytes).sum(),
            records: None,
            segments: row.segments.clone(),
        });
        row.acknowledged = Some(self.agreement_receipt(&mut commit, agreement, own)?);
        row.acknowledgement = Some(acknowledgement);
        row.state = CopyState::Sealed;
        self.keep(copy, row, commit).await
    }

    async fn send_acknowledgement(&self, peer: &Peer, copy: &CopyRow) -> Result<KeyAnswer, Refusal> {
        let (Some(release), Some(acknowledgement), Some(receipt)) =
            (&copy.release, &copy.acknowledgement, &copy.acknowledged)
        else {
            return Err(Refusal::new("internal", "nothing to acknowledge"));
        };
        let acknowledged = self.logged(receipt).await?;
        let body = AcknowledgementRequest { acknowledgement: acknowledgement.clone(), acknowledged };
        let body = serde_json::to_vec(&body).map_err(refuse("internal"))?;
        let url = format!("{}{BASE}{}", peer.statement.endpoints.dsp, extension::acknowledgement_path(release));
        let mut pause = Duration::from_millis(100);
        loop {
            match self.ask(peer, reqwest::Method::POST, &url, None, Some(&body)).await {
                Ok(answer) if answer.status >= 500 && pause < PATIENCE => {}
                Ok(answer) => return parsed(&answer),
                Err(refusal) if pause >= PATIENCE => return Err(refusal),
                Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// The key is here: does it open what was promised?
    async fn open(
        &self,
        copy: Held,
        agreement: &AgreementRow,
        peer: &Peer,
        answer: KeyAnswer,
    ) -> Result<Held, Refusal> {
        let mut row = copy.value().clone();
        let delivered = self
            .check_half(agreement, peer, &[Kind::Delivered], &answer.delivered, |kid| self.peers.current_key(kid))
            .await?;
        let promised = delivered.receipt.key_sha256;
        let released = row
            .released
            .as_ref()
            .and_then(|jws| crate::receipt::verify(jws, &peer.did, |kid| self.peers.verifying_key(kid)).ok());
        if delivered.receipt.refers != row.acknowledgement.as_ref().map(Jws::sha256)
            || promised.is_none()
            || promised != released.as_ref().and_then(|receipt| receipt.payload().key_sha256)
        {
            return Err(Refusal::new(
                "receipt-mismatch",
                "the provider's `delivered` receipt is not of our acknowledgement",
            ));
        }
        let keying = match self.vault.one_time(&row.id).map_err(refuse("vault-unreadable"))? {
            Some(one_time) => jwe::open(&one_time, KEY_CTY, &answer.key)
                .ok()
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
                .map(Keying::from_bytes),
            // opened before a crash that came before it was recorded: the key itself is here
            None => Some(self.vault.keying(&row.id).map_err(refuse("vault-unreadable"))?.ok_or_else(|| {
                Refusal::new("key-lost", "the one-time key of this release is gone; the provider's key can't be opened")
            })?),
        };
        let keying = keying.filter(|keying| Some(keying.hash()) == promised);
        let opened = match keying {
            None => Err("the key is not the one whose hash was promised".to_owned()),
            Some(keying) => {
                let (vault, id, segments) = (self.vault.clone(), row.id.clone(), row.segments.clone());
                let mut counter = self.counter_of(agreement);
                tokio::task::spawn_blocking(move || {
                    let bytes = vault.open_copy(&id, &keying, &segments, &mut counter)?;
                    Ok::<_, vault::VaultError>((bytes, keying, counter.contents()))
                })
                .await
                .map_err(refuse("internal"))?
                .map_err(|error| error.to_string())
            }
        };
        let (kind, reason) = match &opened {
            Ok((bytes, keying, contents)) => {
                self.vault.keep_key(&row.id, keying).map_err(refuse("disk-failed"))?;
                row.bytes = *bytes;
                row.contents = Some(vault::Contents { arrived: Some(self.clock.now()), ..contents.clone() });
                row.state = CopyState::Held;
                (Kind::Opened, None)
            }
            Err(problem) => {
                row.state = CopyState::Disputed;
                (Kind::Disputed, Some(Refusal::new("release-disputed", problem.clone())))
            }
        };
        let mut commit = Commit::new();
        let mut own = self.receipt(kind, Some(agreement));
        own.transfer = Some(row.transfer.clone());
        own.release.clone_from(&row.release);
        own.refers = Some(answer.delivered.receipt.sha256());
        own.key_sha256 = promised;
        own.reason = reason;
        let outcome = self.agreement_receipt(&mut commit, agreement, own)?;
        self.keep_half(&mut commit, &delivered)?;
        if let (CopyState::Held, Some(release), Some(released)) = (row.state, &row.release, &released) {
            let duties = self.duties_of(agreement, released.payload())?;
            self.begin_duties(&mut commit, agreement, release, released.sha256(), duties)?;
        }
        if let Some(release) = &row.release {
            let body =
                serde_json::to_value(OutcomeRequest { outcome: unplaced(outcome) }).map_err(refuse("internal"))?;
            self.letter(
                &mut commit,
                Draft {
                    peer: &peer.did.clone().into(),
                    process: &row.transfer,
                    about: About::Notice,
                    url: format!("{}{BASE}{}", peer.statement.endpoints.dsp, extension::outcome_path(release)),
                    body,
                    last: true,
                    token: None,
                },
            )?;
        }
        let id = row.id.clone();
        match self.keep(copy, row, commit).await {
            // the agreement ended meanwhile, and the copy with it: so does the key that came
            Err(refusal) => {
                let now = read::<CopyRow>(&*self.store, &vault::key(&id)).await.map_err(refuse("store-unreadable"))?;
                if now.value.is_some_and(|now| now.state == CopyState::Destroyed) {
                    self.vault.destroy(&id).map_err(refuse("vault-unreadable"))?;
                }
                Err(refusal)
            }
            kept => kept,
        }
    }

    /// All copies, or those under one agreement.
    pub(super) async fn copies(&self, agreement: Option<&AgreementId>) -> Result<Vec<Held>, Refusal> {
        let rows = list::<CopyRow>(&*self.store, vault::PREFIX.as_bytes(), None, 100_000)
            .await
            .map_err(refuse("store-unreadable"))?;
        let mut copies: Vec<Held> = rows
            .into_iter()
            .filter_map(|row| Some(Held { value: row.value.clone()?, row }))
            .filter(|copy| agreement.is_none_or(|agreement| copy.value.agreement == *agreement))
            .collect();
        copies.sort_by_key(|copy| copy.value.begun);
        Ok(copies)
    }

    /// All copies, for people.
    pub async fn all_copies(&self) -> Result<Vec<CopyRow>, Refusal> {
        Ok(self.copies(None).await?.into_iter().map(|copy| copy.value).collect())
    }

    /// Writes a copy's row with what else there is; the row as it is then.
    pub(super) async fn keep(&self, copy: Held, value: CopyRow, mut commit: Commit) -> Result<Held, Refusal> {
        commit.put(&copy.row, &value).map_err(refuse("internal"))?;
        let committed = self.commit(commit).await?;
        let row = Row { key: copy.row.key, version: committed.version, value: Some(value.clone()) };
        Ok(Held { row, value })
    }
}

impl FetchRequest {
    /// What is kept of it until there is a release: without the code.
    fn kept(&self) -> Result<Vec<u8>, Refusal> {
        let with = With { code: None, ..self.with.clone() };
        serde_json::to_vec(&AskedFor { purpose: self.purpose.clone(), with }).map_err(refuse("internal"))
    }
}

/// A copy's row as it was read or written last.
pub(super) struct Held {
    row: Row<CopyRow>,
    value: CopyRow,
}

impl Held {
    pub(super) const fn value(&self) -> &CopyRow {
        &self.value
    }
}
