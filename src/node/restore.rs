//! Restore: a backup put back into a home that has its keys and no store.

use std::{fs, path::Path, sync::Arc};

use serde::Serialize;

use crate::{
    agreement::{self, AgreementRow},
    config::Config,
    dataplane::Grant,
    error::Refusal,
    exchange::{RESTORED, Restored, Waiting, read_backup},
    id::{OfferId, ParticipantId},
    identity::{Keys, Peer, PeerState, TokenPeer},
    node::{Running, StartError, place},
    offer::{self, OfferRow},
    receipt::{self, PeerCheckpoint, begin_epoch, verify_log},
    store::{Batch, SledStore, Store},
    time::Timestamp,
    vault,
};

/// How the name of a store begins that is not in its place yet.
const STAGED: &str = ".store-";
/// Rows read at a time.
const PAGE: usize = 512;
/// That the connector was running when the backup was made.
const RUNNING: &[u8] = b"self/running";

/// What the operator says before a backup is put back: whatever was revoked or withdrawn since it was made is in force
/// again in it.
#[derive(Clone, Debug, Default)]
pub struct Restoration {
    /// That it was read what the backup makes valid again.
    pub accept: bool,
    /// Peers that were revoked since.
    pub revoke: Vec<ParticipantId>,
    /// Offers that were withdrawn since.
    pub withdraw: Vec<OfferId>,
}

/// What a backup holds that would be in force again.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// When it was made.
    pub made: Timestamp,
    /// Its log.
    pub log: PeerCheckpoint,
    /// Peers that are active in it.
    pub peers: Vec<ParticipantId>,
    /// Offers that are live in it.
    pub offers: Vec<OfferId>,
    /// Partners that will be asked what they know, before anything is decided under agreements with them.
    pub partners: Vec<ParticipantId>,
    /// Whether it was put back, or only looked at.
    pub restored: bool,
}

/// Checks a backup, file by file and receipt by receipt; where the operator accepts what it makes valid again, puts it back.
///
/// # Errors
/// `restore-home` where the home has a store; `backup-broken`; names that are not in the backup. Nothing is changed then.
pub async fn restore(
    home: &Path,
    config: &Config,
    backup: &Path,
    wish: &Restoration,
    now: Timestamp,
) -> Result<Contents, StartError> {
    let did = &config.participant.did;
    if let Some(running) = Running::load(home).filter(Running::is_alive) {
        let sentence = format!("this home's connector is running as process {}: stop it first", running.process);
        return Err(Refusal::new("restore-running", sentence).into());
    }
    if !home.join("keys").exists() {
        let sentence = format!(
            "{} has no keys: put back the copy of `keys/`, `certs/`, `counterseal.toml` and the token files that was kept \
             elsewhere. New keys can't go on with what the old ones signed",
            home.display()
        );
        return Err(Refusal::new("restore-keys", sentence).into());
    }
    let keys = Keys::load(home, did)?;
    let folder = home.join("store");
    if folder.exists() {
        let sentence = format!(
            "{} is there: a backup is put back into a home without a store. Move it away first, and keep it: it may hold \
             receipts that the backup doesn't",
            folder.display()
        );
        return Err(Refusal::new("restore-home", sentence).into());
    }
    let said = read_backup(backup, &keys.signing_kid(), &keys.signing.public())?;
    remove_staged(home)?;
    // beside its place until it is whole
    let staged = tempfile::Builder::new()
        .prefix(STAGED)
        .tempdir_in(home)
        .map_err(|error| StartError::File { path: home.to_owned(), error })?;
    let fresh = staged.path().join("store");
    let (from, to) = (backup.to_owned(), fresh.clone());
    let store = tokio::task::spawn_blocking(move || SledStore::restore(&from, &to))
        .await
        .map_err(|error| Refusal::new("internal", error.to_string()))??;
    let store: Arc<dyn Store> = Arc::new(store);
    let log = verify_log(store.clone(), did, &keys.log.public()).await?;
    let mut contents = look(&*store, log.clone(), said.made).await?;
    for peer in &wish.revoke {
        if !contents.peers.contains(peer) {
            let active = contents.peers.iter().map(ParticipantId::as_str).collect::<Vec<_>>().join(", ");
            let sentence = format!("--revoke {peer}: no such peer is active in the backup; there are {active}");
            return Err(Refusal::new("restore-unknown", sentence).into());
        }
    }
    for offer in &wish.withdraw {
        if !contents.offers.contains(offer) {
            let sentence = format!("--withdraw {offer}: no such offer is live in the backup");
            return Err(Refusal::new("restore-unknown", sentence).into());
        }
    }
    if !wish.accept {
        return Ok(contents);
    }
    begin(&*store, wish, &contents, &log, now).await?;
    let mut known: Vec<_> =
        all::<vault::CopyRow>(&*store, vault::PREFIX).await?.into_iter().map(|row| row.id).collect();
    let derived = all::<vault::DerivedRow>(&*store, vault::DerivedRow::PREFIX).await?;
    known.extend(derived.into_iter().map(|row| row.copy));
    drop(store);
    let failed = |error| StartError::File { path: folder.clone(), error };
    fs::rename(&fresh, &folder).map_err(failed)?;
    fs::File::open(home).and_then(|home| home.sync_all()).map_err(failed)?;
    place::check(&folder, true).map_err(|wrong| wrong.unwrap_or(StartError::Copied { home: home.to_owned() }))?;
    // a copy that was fetched after the backup is in the vault and in no row: nobody would destroy its key when it is due
    vault::Vault::open(home)?.destroy_but(&known)?;
    contents.restored = true;
    Ok(contents)
}

async fn look(store: &dyn Store, log: PeerCheckpoint, made: Timestamp) -> Result<Contents, StartError> {
    let mut contents =
        Contents { made, log, peers: Vec::new(), offers: Vec::new(), partners: Vec::new(), restored: false };
    for peer in all::<Peer>(store, Peer::PREFIX).await? {
        if peer.state == PeerState::Active {
            contents.peers.push(peer.did.clone().into());
        }
        // it follows our log, whether there are agreements or not
        contents.partners.push(peer.did.into());
    }
    for peer in all::<TokenPeer>(store, TokenPeer::PREFIX).await? {
        if peer.state == PeerState::Active {
            contents.peers.push(peer.id);
        }
    }
    for row in all::<OfferRow>(store, offer::PREFIX).await? {
        if row.withdrawn.is_none() {
            contents.offers.push(row.offer.id);
        }
    }
    for row in all::<AgreementRow>(store, agreement::PREFIX).await? {
        contents.partners.push(row.peer().clone());
    }
    contents.peers.sort();
    contents.offers.sort();
    contents.partners.sort();
    contents.partners.dedup();
    Ok(contents)
}

async fn begin(
    store: &dyn Store,
    wish: &Restoration,
    contents: &Contents,
    log: &PeerCheckpoint,
    now: Timestamp,
) -> Result<(), StartError> {
    let json = |value: serde_json::Result<Vec<u8>>| value.map_err(|error| Refusal::new("internal", error.to_string()));
    let mut rows = Vec::new();
    let restored = Restored { prior: log.clone(), backed_up: contents.made, recorded: false };
    rows.push((RESTORED.to_vec(), json(serde_json::to_vec(&restored))?));
    for partner in &contents.partners {
        let waiting = Waiting { partner: partner.clone(), accepted: false };
        rows.push((Waiting::key(partner), json(serde_json::to_vec(&waiting))?));
    }
    for mut peer in all::<Peer>(store, Peer::PREFIX).await? {
        if wish.revoke.contains(&peer.did.clone().into()) {
            peer.state = PeerState::Revoked;
            rows.push((Peer::key(&peer.did), json(serde_json::to_vec(&peer))?));
        }
    }
    for mut peer in all::<TokenPeer>(store, TokenPeer::PREFIX).await? {
        if wish.revoke.contains(&peer.id) {
            peer.state = PeerState::Revoked;
            rows.push((TokenPeer::key(&peer.id), json(serde_json::to_vec(&peer))?));
        }
    }
    for mut row in all::<OfferRow>(store, offer::PREFIX).await? {
        if wish.withdraw.contains(&row.offer.id) {
            row.withdrawn = Some(contents.made);
            rows.push((offer::key(&row.offer.id), json(serde_json::to_vec(&row))?));
        }
    }
    // what flowed then may have ended since: consumers ask again
    let mut deletes = vec![RUNNING.to_vec()];
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.scan(Grant::PREFIX.as_bytes(), after.as_deref(), PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        deletes.extend(page.into_iter().map(|(key, _)| key));
    }
    store.commit(Batch { deletes, ..Batch::default() }).await?;
    begin_epoch(store, rows, now).await?;
    Ok(())
}

/// What a restore left that was killed: a whole store, which nobody would ever erase anything in.
fn remove_staged(home: &Path) -> Result<(), StartError> {
    let failed = |error| StartError::File { path: home.to_owned(), error };
    for entry in fs::read_dir(home).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(STAGED)) {
            fs::remove_dir_all(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

async fn all<T: serde::de::DeserializeOwned>(store: &dyn Store, prefix: &str) -> Result<Vec<T>, StartError> {
    let mut found = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = receipt::list::<T>(store, prefix.as_bytes(), after.as_deref(), PAGE).await?;
        let Some(last) = rows.last() else { return Ok(found) };
        after = Some(last.key.clone());
        found.extend(rows.into_iter().filter_map(|row| row.value));
    }
}
