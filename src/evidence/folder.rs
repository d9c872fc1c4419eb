//! The export as a folder: a static C2SP `tlog-tiles` log with what the receipts rest on beside it.
//!
//! ```text
//!   README.md            for an arbiter, English and 中文
//!   manifest.jws         signed by the exporter: what was asked for, the SHA-256 of every file but tiles
//!   checkpoint, tile/…   the log (C2SP tlog-tiles): the checkpoint signs the tiles
//!   checkpoints.jsonl    checkpoints with partners' cosignatures
//!   statements.json      participant statements
//!   agreements.jsonl, offers.jsonl, receipts.jsonl, halves.jsonl, recovered.jsonl, alarms.jsonl,
//!   anchors.jsonl
//!   policies/…           the Cedar policies and the schema, readable
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    crypto::{
        SigningKey, VerifyingKey,
        jws::{self, Jws, JwsError, Kid, Typ},
        sha256,
    },
    evidence::{
        Finding,
        bundle::{About, Bundle, claimed},
    },
    id::Sha256,
    offer::Offer,
    receipt::{
        checkpoint::Checkpoint,
        merkle::{leaf_hash, root_of},
        tile::{self, Level, Tile},
    },
};

/// Files by their path in the folder.
pub type Files = BTreeMap<String, Vec<u8>>;

const MANIFEST: &str = "manifest.jws";
const TILES: &str = "tile/";
const README: &str = include_str!("arbiter.md");

/// What the exporter signs: what was asked for, and every file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest {
    about: About,
    /// SHA-256 by path.
    files: BTreeMap<String, Sha256>,
}

/// The folder's files, signed by the exporter.
pub fn files(bundle: &Bundle, kid: &Kid, key: &SigningKey) -> Result<Files, JwsError> {
    let mut files = Files::new();
    files.insert("README.md".into(), README.into());
    files.insert("checkpoint".into(), bundle.checkpoint.clone().into_bytes());
    for (path, bytes) in tiles(&bundle.entries) {
        files.insert(path, bytes);
    }
    files.insert("checkpoints.jsonl".into(), lines(&bundle.checkpoints.iter().collect::<Vec<_>>()));
    files.insert("statements.json".into(), json(&bundle.statements));
    files.insert("agreements.jsonl".into(), lines(&bundle.agreements));
    files.insert("offers.jsonl".into(), lines(&bundle.offers));
    files.insert("receipts.jsonl".into(), lines(&bundle.receipts));
    files.insert("halves.jsonl".into(), lines(&bundle.halves));
    files.insert("recovered.jsonl".into(), lines(&bundle.recovered));
    files.insert("alarms.jsonl".into(), lines(&bundle.alarms));
    files.insert("anchors.jsonl".into(), lines(&bundle.anchors));
    files.insert(schema_path(bundle), bundle.schema.clone().into_bytes());
    for (path, text) in policies(bundle) {
        files.insert(path, text);
    }
    let hashes = files
        .iter()
        .filter(|(path, _)| !path.starts_with(TILES))
        .map(|(path, bytes)| (path.clone(), sha256(bytes)))
        .collect();
    let manifest = Manifest { about: bundle.about.clone(), files: hashes };
    files.insert(MANIFEST.into(), jws::sign(Typ::Export, kid, key, &manifest)?.as_str().into());
    Ok(files)
}

fn schema_path(bundle: &Bundle) -> String {
    format!("policies/{}.cedarschema", sha256(bundle.schema.as_bytes()))
}

/// The policies of the offers, as text, under the hash that decisions name.
fn policies(bundle: &Bundle) -> Vec<(String, Vec<u8>)> {
    let offers = bundle.agreements.iter().map(|agreement| &agreement.offer).chain(&bundle.offers);
    offers
        .filter_map(|jws| {
            let payload = crate::crypto::unb64(jws.as_str().split('.').nth(1)?).ok()?;
            let policy = serde_json::from_slice::<Offer>(&payload).ok()?.policy;
            let text = if policy.global.trim().is_empty() {
                policy.cedar
            } else {
                format!("{}\n{}", policy.cedar, policy.global)
            };
            Some((format!("policies/{}.cedar", policy.sha256), text.into_bytes()))
        })
        .collect()
}

/// All tiles and bundles of these entries.
fn tiles(entries: &[[u8; 65]]) -> Vec<(String, Vec<u8>)> {
    let mut levels: Vec<Vec<Sha256>> = vec![entries.iter().map(|entry| leaf_hash(entry)).collect()];
    while let Some(below) = levels.last().filter(|below| below.len() >= 256) {
        levels.push(below.chunks_exact(256).map(root_of).collect());
    }
    Tile::all(entries.len() as u64)
        .into_iter()
        .map(|tile| {
            let (start, end) = (tile.index as usize * 256, tile.index as usize * 256 + usize::from(tile.width));
            let bytes = match tile.level {
                Level::Entries => tile::bundle(&entries[start..end]),
                Level::Hashes(level) => tile::hashes(&levels[usize::from(level)][start..end]),
            };
            (tile.to_string(), bytes)
        })
        .collect()
}

/// What the list of files and the log say of a folder, without a look at what the receipts say: any bit that was changed by
/// anybody but the exporter is found by this alone.
pub fn check(files: &Files) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut reader = Reader { files, findings: &mut findings };
    let statements = reader.json("statements.json").unwrap_or_default();
    reader.manifest(&statements);
    let checkpoint = reader.text("checkpoint").unwrap_or_default();
    reader.entries(&checkpoint);
    findings
}

/// Reads a folder. What is altered, missing or too much is found by the manifest; the rest is read as far as it can be, so
/// that what is wrong inside is named as well. `None` where too little is left to say anything.
pub fn read(files: &Files) -> (Option<Bundle>, Vec<Finding>) {
    let mut findings = Vec::new();
    let bundle = Reader { files, findings: &mut findings }.bundle();
    (bundle, findings)
}

struct Reader<'a> {
    files: &'a Files,
    findings: &'a mut Vec<Finding>,
}

impl Reader<'_> {
    fn wrong(&mut self, code: &'static str, place: impl Into<String>, problem: impl Into<String>) {
        self.findings.push(Finding { code, place: place.into(), problem: problem.into() });
    }

    fn bundle(mut self) -> Option<Bundle> {
        let statements: BTreeMap<crate::id::Did, Vec<Jws>> = self.json("statements.json").unwrap_or_default();
        let about = self.manifest(&statements)?;
        let checkpoint = self.text("checkpoint").unwrap_or_default();
        let entries = self.entries(&checkpoint);
        let checkpoints = self.lines::<(u64, String)>("checkpoints.jsonl").into_iter().collect();
        let schema = self.files.keys().find(|path| path.ends_with(".cedarschema")).cloned();
        Some(Bundle {
            about,
            statements,
            checkpoint,
            checkpoints,
            entries,
            agreements: self.lines("agreements.jsonl"),
            offers: self.lines("offers.jsonl"),
            schema: schema.and_then(|path| self.text(&path)).unwrap_or_default(),
            receipts: self.lines("receipts.jsonl"),
            halves: self.lines("halves.jsonl"),
            recovered: self.lines("recovered.jsonl"),
            alarms: self.lines("alarms.jsonl"),
            anchors: self.lines("anchors.jsonl"),
        })
    }

    fn manifest(&mut self, statements: &BTreeMap<crate::id::Did, Vec<Jws>>) -> Option<About> {
        let text = self.text(MANIFEST)?;
        let jws = match Jws::parse(text) {
            Ok(jws) => jws,
            Err(error) => {
                self.wrong("manifest-broken", MANIFEST, error.to_string());
                return None;
            }
        };
        let payload = crate::crypto::unb64(jws.as_str().split('.').nth(1).unwrap_or_default()).unwrap_or_default();
        let manifest = match serde_json::from_slice::<Manifest>(&payload) {
            Ok(manifest) => manifest,
            Err(error) => {
                self.wrong("manifest-broken", MANIFEST, format!("it can't be read: {error}"));
                return None;
            }
        };
        let exporter = &manifest.about.exporter;
        let key = |kid: &Kid| -> Option<VerifyingKey> {
            let chain = statements.get(exporter)?;
            let current = crate::identity::Statement::claimed(chain.last()?)?;
            (current.signing_kid() == *kid).then_some(current.keys.signing)
        };
        if let Err(error) = jws::verify::<Manifest>(&jws, Typ::Export, exporter, key) {
            self.wrong("manifest-broken", MANIFEST, error.to_string());
        }
        let named = |path: &String| path == MANIFEST || path.starts_with(TILES) || manifest.files.contains_key(path);
        let unknown: Vec<String> = self.files.keys().filter(|path| !named(path)).cloned().collect();
        for path in unknown {
            self.wrong("file-unknown", path, "the manifest doesn't name it");
        }
        for (path, hash) in &manifest.files {
            match self.files.get(path) {
                None => self.wrong("file-missing", path, "the manifest names it, but it isn't there"),
                Some(bytes) if sha256(bytes) != *hash => {
                    self.wrong("file-altered", path, "it is not the file that the exporter signed");
                }
                Some(_) => {}
            }
        }
        Some(manifest.about)
    }

    /// The entries from their bundles; every tile has to be what they make.
    fn entries(&mut self, checkpoint: &str) -> Vec<[u8; 65]> {
        let size = Checkpoint::claimed(checkpoint).map_or(0, |checkpoint| checkpoint.size);
        let mut entries = Vec::new();
        // not more than are there, whatever the checkpoint says
        let bundles = self.files.keys().filter(|path| path.starts_with("tile/entries/")).count() as u64;
        for tile in Tile::all(size.min(bundles.saturating_mul(256))) {
            if tile.level != Level::Entries {
                continue;
            }
            let path = tile.to_string();
            let read = self.files.get(&path).and_then(|bytes| tile::read_bundle(bytes));
            match read.filter(|read| read.len() == usize::from(tile.width)) {
                Some(read) => entries.extend(read),
                None => {
                    self.wrong("tile-broken", path, format!("not {} entries of 65 bytes", tile.width));
                    return entries;
                }
            }
        }
        let tiles: Files = tiles(&entries).into_iter().collect();
        for (path, bytes) in &tiles {
            if self.files.get(path) != Some(bytes) {
                self.wrong("tile-broken", path, "it is not what the entries make");
            }
        }
        let present = self.files.keys().filter(|path| path.starts_with(TILES));
        let unknown: Vec<String> = present.filter(|path| !tiles.contains_key(*path)).cloned().collect();
        for path in unknown {
            self.wrong("file-unknown", path, "a log of this size has no such tile");
        }
        entries
    }

    fn text(&mut self, path: &str) -> Option<String> {
        match self.files.get(path).map(|bytes| String::from_utf8(bytes.clone())) {
            Some(Ok(text)) => Some(text),
            Some(Err(_)) => {
                self.wrong("file-broken", path, "not UTF-8");
                None
            }
            None => {
                self.wrong("file-missing", path, "it isn't there");
                None
            }
        }
    }

    fn json<T: DeserializeOwned>(&mut self, path: &str) -> Option<T> {
        let text = self.text(path)?;
        serde_json::from_str(&text).map_err(|error| self.wrong("file-broken", path, error.to_string())).ok()
    }

    fn lines<T: DeserializeOwned>(&mut self, path: &str) -> Vec<T> {
        let Some(text) = self.text(path) else { return Vec::new() };
        let mut read = Vec::new();
        for (number, line) in text.lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(value) => read.push(value),
                Err(error) => self.wrong("file-broken", format!("{path}, line {}", number + 1), error.to_string()),
            }
        }
        read
    }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text
}

fn lines<T: Serialize>(values: &[T]) -> Vec<u8> {
    values.iter().flat_map(json).collect()
}

/// What a receipt of a bundle claims to be, for a message about it.
pub(super) fn name(jws: &Jws) -> String {
    claimed(jws).map_or_else(|| "unreadable".to_owned(), |receipt| receipt.id.as_str().chars().take(80).collect())
}
