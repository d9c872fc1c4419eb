//! The log as others see it: checkpoints, tiles, entry bundles and proofs, made from rows when somebody asks.

use std::{collections::HashMap, sync::Arc};

use crate::{
    id::Sha256,
    receipt::{
        ENTRY, LogProof, ReceiptError,
        checkpoint::Checkpoint,
        committer::{Epoch, HEAD, load},
        entry,
        merkle::{Frontier, Node, leaf_hash, node_hash},
        place::{RECEIPTS, node_key, nodes_key, parse_entry, receipt_key},
        proof::{self, Subtree},
        rows::damaged,
        tile::{self, Level, Tile, WIDTH},
    },
    store::Store,
};

/// The public side of one of our logs. A proof reads as many tiles as the tree is high: one for each factor of 256. Cheap
/// to clone.
#[derive(Clone)]
pub struct Log {
    store: Arc<dyn Store>,
    /// `None`: the newest, whichever that is.
    epoch: Option<u64>,
}

impl Log {
    /// The newest log of this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, epoch: None }
    }

    /// Another log of the same store: restored stores have several. `None` if there is no such.
    pub async fn of_epoch(&self, epoch: u64) -> Result<Option<Self>, ReceiptError> {
        let known = self.epochs().await?.iter().any(|known| known.epoch == epoch);
        Ok(known.then(|| Self { store: self.store.clone(), epoch: Some(epoch) }))
    }

    /// All logs of the store, oldest first.
    pub async fn epochs(&self) -> Result<Vec<Epoch>, ReceiptError> {
        let head = load(&*self.store).await?;
        let newest = head.epoch();
        Ok(head.earlier.into_iter().chain([newest]).collect())
    }

    /// The newest checkpoint and its signed note; `None` before the first receipt.
    pub async fn checkpoint(&self) -> Result<Option<(Checkpoint, String)>, ReceiptError> {
        let note = self.now().await?.checkpoint;
        if note.is_empty() {
            return Ok(None);
        }
        let checkpoint = Checkpoint::claimed(&note).map_err(|error| damaged(HEAD, error.to_string()))?;
        Ok(Some((checkpoint, note)))
    }

    /// Which of our logs it is.
    pub async fn epoch(&self) -> Result<u64, ReceiptError> {
        Ok(self.now().await?.epoch)
    }

    /// A tile's or bundle's bytes; `None` if the log doesn't have it (yet).
    pub async fn tile(&self, tile: Tile) -> Result<Option<Vec<u8>>, ReceiptError> {
        let of = self.now().await?;
        if !tile.exists_in(of.size) {
            return Ok(None);
        }
        let start = tile.index * WIDTH;
        Ok(Some(match tile.level {
            Level::Entries => tile::bundle(&self.entries_of(&of, start, tile.width.into()).await?),
            Level::Hashes(level) => tile::hashes(&self.hashes(&of, level, tile.index, tile.width.into()).await?),
        }))
    }

    /// Entries from a place on, as many as were asked for.
    pub async fn entries(&self, start: u64, count: usize) -> Result<Vec<[u8; ENTRY]>, ReceiptError> {
        self.entries_of(&self.now().await?, start, count).await
    }

    async fn entries_of(&self, of: &Epoch, start: u64, count: usize) -> Result<Vec<[u8; ENTRY]>, ReceiptError> {
        let start = of.first + start;
        let after = start.checked_sub(1).map(receipt_key);
        let rows = self.store.scan(RECEIPTS, after.as_deref(), count).await?;
        let mut entries = Vec::with_capacity(count);
        for (expected, (key, row)) in (start..).zip(&rows) {
            if *key != receipt_key(expected) {
                break;
            }
            let (_, tag, sha256) = parse_entry(key, row)?;
            entries.push(entry(&tag, &sha256));
        }
        if entries.len() < count {
            return Err(damaged(&receipt_key(start + entries.len() as u64), "missing"));
        }
        Ok(entries)
    }

    /// Proves that the entry at `index` is in the tree of `size` entries.
    pub async fn prove_inclusion(&self, index: u64, size: u64) -> Result<Option<Vec<Sha256>>, ReceiptError> {
        match proof::inclusion(index, size) {
            Some(path) => self.resolve(&self.now().await?, path).await.map(Some),
            None => Ok(None),
        }
    }

    /// Proves that the tree of `old` entries is the beginning of that of `new`.
    pub async fn prove_consistency(&self, old: u64, new: u64) -> Result<Option<Vec<Sha256>>, ReceiptError> {
        match proof::consistency(old, new) {
            Some(path) => self.resolve(&self.now().await?, path).await.map(Some),
            None => Ok(None),
        }
    }

    /// The proof of the receipt at this place, under the newest checkpoint of whichever log it is in.
    pub async fn prove(&self, place: u64) -> Result<Option<LogProof>, ReceiptError> {
        let epochs = self.epochs().await?;
        let Some(epoch) = epochs.into_iter().rfind(|epoch| epoch.first <= place) else { return Ok(None) };
        let index = place - epoch.first;
        let Some(path) = proof::inclusion(index, epoch.size) else { return Ok(None) };
        let path = self.resolve(&epoch, path).await?;
        Ok(Some(LogProof { index, path, checkpoint: epoch.checkpoint }))
    }

    /// The root of the first `size` entries.
    pub async fn root(&self, size: u64) -> Result<Sha256, ReceiptError> {
        if size == 0 {
            return Ok(Frontier::default().root());
        }
        let roots = self.resolve(&self.now().await?, vec![Subtree::whole(size)]).await?;
        roots.into_iter().next().ok_or_else(|| damaged(HEAD, "no root"))
    }

    /// The hash of each subtree, from the tiles that they touch, each read once.
    async fn resolve(&self, of: &Epoch, subtrees: Vec<Subtree>) -> Result<Vec<Sha256>, ReceiptError> {
        let nodes: Vec<Vec<Node>> = subtrees.into_iter().map(Subtree::nodes).collect();
        // how much of each tile: a tile at the edge is read as far as is needed
        let mut needed: HashMap<(u8, u64), usize> = HashMap::new();
        for node in nodes.iter().flatten() {
            let (level, index, first, count) = Tile::of(*node);
            let width = needed.entry((level, index)).or_default();
            *width = (*width).max(first + count);
        }
        let mut tiles = HashMap::new();
        for ((level, index), width) in needed {
            tiles.insert((level, index), self.hashes(of, level, index, width).await?);
        }
        nodes
            .iter()
            .map(|nodes| {
                let hashes = nodes
                    .iter()
                    .map(|node| {
                        let (level, index, first, count) = Tile::of(*node);
                        tiles.get(&(level, index)).and_then(|tile| complete(tile.get(first..first + count)?))
                    })
                    .collect::<Option<Vec<_>>>();
                hashes.as_deref().and_then(Subtree::fold).ok_or_else(|| damaged(HEAD, "a proof over no hashes"))
            })
            .collect()
    }

    /// The first hashes of a tile.
    async fn hashes(&self, of: &Epoch, level: u8, index: u64, width: usize) -> Result<Vec<Sha256>, ReceiptError> {
        let start = index * WIDTH;
        if level == 0 {
            return Ok(self.entries_of(of, start, width).await?.iter().map(|entry| leaf_hash(entry)).collect());
        }
        let epoch = of.epoch;
        let after = start.checked_sub(1).map(|before| node_key(epoch, level, before));
        let rows = self.store.scan(&nodes_key(epoch, level), after.as_deref(), width).await?;
        let mut hashes = Vec::with_capacity(width);
        for (expected, (key, row)) in (start..).zip(&rows) {
            if *key != node_key(epoch, level, expected) {
                break;
            }
            hashes.push(Sha256(row.as_slice().try_into().map_err(|_| damaged(key, "not a hash"))?));
        }
        if hashes.len() < width {
            return Err(damaged(&node_key(epoch, level, start + hashes.len() as u64), "missing"));
        }
        Ok(hashes)
    }

    /// The log as it is now.
    pub async fn now(&self) -> Result<Epoch, ReceiptError> {
        let head = load(&*self.store).await?;
        match self.epoch {
            Some(epoch) if epoch != head.epoch => {
                let earlier = head.earlier.into_iter().find(|earlier| earlier.epoch == epoch);
                earlier.ok_or_else(|| damaged(HEAD, format!("log {epoch} is missing")))
            }
            _ => Ok(head.epoch()),
        }
    }
}

/// The root over a power of two of hashes.
fn complete(hashes: &[Sha256]) -> Option<Sha256> {
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    level.first().copied()
}
