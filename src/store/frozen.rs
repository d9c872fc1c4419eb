//! Rows that never change again: immutable tables `archive/<n>.table`, sorted and compressed, found as any other row.
//!
//! ```text
//!   magic ‖ blocks (zstd, each about 16 KiB of rows) ‖ groups ‖ top ‖ footer
//!   row    length of key (u16) ‖ key ‖ length of value (u32) ‖ value
//!   group  of each of 64 blocks: offset (u64), length (u32), length unpacked (u32), first key, last key (u16 and bytes)
//!   top    of each group: offset (u64), length (u32), first 8 bytes of its SHA-256, first key, last key
//!   footer offset of the top (u64) ‖ its length (u64) ‖ rows (u64) ‖ SHA-256 of the top ‖ magic
//! ```
//!
//! A block never holds keys of two prefixes (the bytes up to `/`), so that a look for a key which is in no table reads
//! none. Only the top is in memory: about 150 bytes for a megabyte of rows. A look reads one group and one block, and none of a
//! table whose keys lie elsewhere.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

use crate::{
    crypto::{Hasher, sha256},
    store::objects::sync_folder,
};

const MAGIC: &[u8; 16] = b"counterseal-frz2";
const FOOTER: usize = 8 + 8 + 8 + 32 + MAGIC.len();
/// Bytes of rows in a block, before they are compressed.
const BLOCK: usize = 16 << 10;
/// Blocks in a group.
const GROUP: usize = 64;
const LEVEL: i32 = 3;

/// A key and what sled held for it.
pub type Row = (Vec<u8>, Vec<u8>);

/// A table, open.
pub struct Table {
    file: File,
    top: Vec<Group>,
}

/// Where a group lies, and the first and the last key in it.
struct Group {
    offset: u64,
    length: u32,
    digest: [u8; 8],
    first: Box<[u8]>,
    last: Box<[u8]>,
}

struct Block {
    offset: u64,
    length: u32,
    unpacked: u32,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Group {
    fn take(rest: &mut &[u8]) -> Option<Self> {
        let offset = take_u64(rest)?;
        let length = take_u32(rest)?;
        let digest = take(rest, 8)?.try_into().ok()?;
        Some(Self { offset, length, digest, first: take_key(rest)?.into(), last: take_key(rest)?.into() })
    }
}

impl Block {
    fn take(rest: &mut &[u8]) -> Option<Self> {
        Some(Self {
            offset: take_u64(rest)?,
            length: take_u32(rest)?,
            unpacked: take_u32(rest)?,
            first: take_key(rest)?.to_vec(),
            last: take_key(rest)?.to_vec(),
        })
    }
}

impl Table {
    /// Writes these rows, which are in the order of their keys, and syncs them.
    pub fn write(path: &Path, rows: impl Iterator<Item = io::Result<Row>>) -> io::Result<()> {
        let fresh = path.with_extension("new");
        let mut out = BufWriter::new(File::create(&fresh)?);
        out.write_all(MAGIC)?;
        let mut writer = Writer {
            out,
            offset: MAGIC.len() as u64,
            blocks: Vec::new(),
            rows: 0,
            block: Vec::new(),
            first: Vec::new(),
            last: Vec::new(),
        };
        for row in rows {
            let (key, value) = row?;
            writer.push(&key, &value)?;
        }
        let file = writer.finish()?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        path.parent().map_or(Ok(()), sync_folder)
    }

    /// Opens a table; its top is checked, groups and blocks are when they are read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let broken = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut footer = [0; FOOTER];
        let at = length.checked_sub(FOOTER as u64).ok_or_else(|| broken("too short"))?;
        file.read_exact_at(&mut footer, at)?;
        let number = |at: usize| footer[at..at + 8].try_into().map(u64::from_be_bytes).unwrap_or_default();
        if footer[56..] != *MAGIC {
            return Err(broken("not a table"));
        }
        let (offset, size) = (number(0), number(8));
        if offset.checked_add(size) != Some(at) {
            return Err(broken("its index is not where it should be"));
        }
        let mut bytes = vec![0; size as usize];
        file.read_exact_at(&mut bytes, offset)?;
        if sha256(&bytes).0 != footer[24..56] {
            return Err(broken("its index is damaged"));
        }
        let mut top = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            top.push(Group::take(&mut rest).ok_or_else(|| broken("its index can't be read"))?);
        }
        Ok(Self { file, top })
    }

    /// What it has at this key.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let at = self.reaching(key);
        if self.top.get(at).is_none_or(|group| &*group.first > key) {
            return Ok(None);
        }
        let blocks = self.group(at)?;
        match blocks.get(reaching(&blocks, key)) {
            Some(block) if block.first.as_slice() <= key => {
                let bytes = self.unpack(block)?;
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let (found, value) = take_row(&mut rest).ok_or_else(unreadable)?;
                    if found == key {
                        return Ok(Some(value.to_vec()));
                    }
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Its bytes, as they are on the disk.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The first group that ends at this key or after it.
    fn reaching(&self, key: &[u8]) -> usize {
        self.top.partition_point(|group| &*group.last < key)
    }

    /// The blocks of a group; none beyond the last.
    fn group(&self, at: usize) -> io::Result<Vec<Block>> {
        let Some(group) = self.top.get(at) else { return Ok(Vec::new()) };
        let mut bytes = vec![0; group.length as usize];
        self.file.read_exact_at(&mut bytes, group.offset)?;
        if sha256(&bytes).0[..8] != group.digest {
            return Err(unreadable());
        }
        let mut rest = bytes.as_slice();
        let mut blocks = Vec::with_capacity(GROUP);
        while !rest.is_empty() {
            blocks.push(Block::take(&mut rest).ok_or_else(unreadable)?);
        }
        Ok(blocks)
    }

    fn unpack(&self, block: &Block) -> io::Result<Vec<u8>> {
        thread_local! {
            static UNPACKER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
        }
        let mut packed = vec![0; block.length as usize];
        self.file.read_exact_at(&mut packed, block.offset)?;
        UNPACKER.with_borrow_mut(|unpacker| {
            if unpacker.is_none() {
                *unpacker = Some(zstd::bulk::Decompressor::new()?);
            }
            let unpacker = unpacker.as_mut().ok_or_else(unreadable)?;
            unpacker.decompress(&packed, block.unpacked as usize)
        })
    }

    fn read(&self, block: &Block) -> io::Result<VecDeque<Row>> {
        let bytes = self.unpack(block)?;
        let mut rest = bytes.as_slice();
        let mut rows = VecDeque::new();
        while !rest.is_empty() {
            let (key, value) = take_row(&mut rest).ok_or_else(unreadable)?;
            rows.push_back((key.to_vec(), value.to_vec()));
        }
        Ok(rows)
    }
}

/// The first block that ends at this key or after it.
fn reaching(blocks: &[Block], key: &[u8]) -> usize {
    blocks.partition_point(|block| block.last.as_slice() < key)
}

/// Walks the rows of a table whose keys begin with a prefix, from a key on.
pub struct Cursor {
    table: Arc<Table>,
    /// The next group.
    group: usize,
    blocks: VecDeque<Block>,
    rows: VecDeque<Row>,
    prefix: Vec<u8>,
    start: Vec<u8>,
}

impl Cursor {
    pub fn new(table: Arc<Table>, prefix: &[u8], start: &[u8]) -> Self {
        let (group, prefix, start) = (table.reaching(start), prefix.to_vec(), start.to_vec());
        Self { table, group, blocks: VecDeque::new(), rows: VecDeque::new(), prefix, start }
    }

    /// The next row, left where it is.
    pub fn peek(&mut self) -> io::Result<Option<&Row>> {
        loop {
            while self.rows.front().is_some_and(|(key, _)| key < &self.start) {
                self.rows.pop_front();
            }
            if !self.rows.is_empty() {
                break;
            }
            while self.blocks.front().is_some_and(|block| block.last < self.start) {
                self.blocks.pop_front();
            }
            let Some(block) = self.blocks.front() else {
                let Some(group) = self.table.top.get(self.group) else { return Ok(None) };
                // beyond the prefix: nothing more comes, and nothing is read to see that
                if *group.first > *self.start && !group.first.starts_with(&self.prefix) {
                    return Ok(None);
                }
                self.blocks = self.table.group(self.group)?.into();
                self.group += 1;
                continue;
            };
            // beyond the prefix: nothing more comes
            if block.first > self.start && !block.first.starts_with(&self.prefix) {
                return Ok(None);
            }
            self.rows = self.table.read(block)?;
            self.blocks.pop_front();
        }
        Ok(self.rows.front().filter(|(key, _)| key.starts_with(&self.prefix)))
    }

    pub fn next(&mut self) -> io::Result<Option<Row>> {
        let there = self.peek()?.is_some();
        Ok(if there { self.rows.pop_front() } else { None })
    }
}

struct Writer {
    out: BufWriter<File>,
    offset: u64,
    blocks: Vec<Block>,
    rows: u64,
    block: Vec<u8>,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Writer {
    fn push(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if !self.block.is_empty() && (self.block.len() >= BLOCK || room(&self.last) != room(key)) {
            self.close_block()?;
        }
        if self.block.is_empty() {
            self.first = key.to_vec();
        }
        self.last = key.to_vec();
        put_key(&mut self.block, key);
        self.block.extend_from_slice(&(value.len() as u32).to_be_bytes());
        self.block.extend_from_slice(value);
        self.rows += 1;
        Ok(())
    }

    fn close_block(&mut self) -> io::Result<()> {
        let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
        encoder.include_checksum(true)?;
        encoder.write_all(&self.block)?;
        let packed = encoder.finish()?;
        self.out.write_all(&packed)?;
        self.blocks.push(Block {
            offset: self.offset,
            length: packed.len() as u32,
            unpacked: self.block.len() as u32,
            first: self.first.clone(),
            last: self.last.clone(),
        });
        self.offset += packed.len() as u64;
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<File> {
        if !self.block.is_empty() {
            self.close_block()?;
        }
        let mut top = Vec::new();
        for blocks in self.blocks.chunks(GROUP) {
            let mut group = Vec::new();
            for block in blocks {
                group.extend_from_slice(&block.offset.to_be_bytes());
                group.extend_from_slice(&block.length.to_be_bytes());
                group.extend_from_slice(&block.unpacked.to_be_bytes());
                put_key(&mut group, &block.first);
                put_key(&mut group, &block.last);
            }
            self.out.write_all(&group)?;
            top.extend_from_slice(&self.offset.to_be_bytes());
            top.extend_from_slice(&(group.len() as u32).to_be_bytes());
            top.extend_from_slice(&sha256(&group).0[..8]);
            put_key(&mut top, blocks.first().map_or(&[][..], |block| &block.first));
            put_key(&mut top, blocks.last().map_or(&[][..], |block| &block.last));
            self.offset += group.len() as u64;
        }
        self.out.write_all(&top)?;
        self.out.write_all(&self.offset.to_be_bytes())?;
        self.out.write_all(&(top.len() as u64).to_be_bytes())?;
        self.out.write_all(&self.rows.to_be_bytes())?;
        let mut hasher = Hasher::new();
        hasher.update(&top);
        self.out.write_all(hasher.finish().as_bytes())?;
        self.out.write_all(MAGIC)?;
        self.out.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

/// A key's prefix, up to and with its first `/`.
fn room(key: &[u8]) -> &[u8] {
    key.iter().position(|byte| *byte == b'/').map_or(key, |at| &key[..=at])
}

fn put_key(out: &mut Vec<u8>, key: &[u8]) {
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    out.extend_from_slice(key);
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(take(rest, 4)?.try_into().ok()?))
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(take(rest, 8)?.try_into().ok()?))
}

fn take_key<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u16::from_be_bytes(take(rest, 2)?.try_into().ok()?);
    take(rest, length.into())
}

fn take_row<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let key = take_key(rest)?;
    let length = take_u32(rest)?;
    Some((key, take(rest, length as usize)?))
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a block can't be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let mut rows: Vec<Row> = (0..5000_u64)
            .flat_map(|n| {
                let place = n.to_be_bytes();
                [
                    ([&b"r/"[..], &place].concat(), format!("receipt {n} ").repeat(20).into_bytes()),
                    ([&b"rk/used/"[..], &place].concat(), Vec::new()),
                    ([&b"c/"[..], &sha256(&place).0].concat(), vec![2; 17]),
                ]
            })
            .collect();
        rows.sort();
        rows
    }

    #[test]
    fn what_is_frozen_is_found_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.table");
        Table::write(&path, rows().into_iter().map(Ok)).unwrap();
        let table = Arc::new(Table::open(&path).unwrap());
        for (key, value) in rows().iter().step_by(37) {
            assert_eq!(table.get(key).unwrap().as_ref(), Some(value));
        }
        for absent in [&b"r/"[..], b"a", b"n/1", b"rk/used", b"z", b"rk/used/\xff"] {
            assert_eq!(table.get(absent).unwrap(), None);
        }
        for prefix in [&b"r/"[..], b"rk/used/", b"rk/", b"c/", b"h/", b"r"] {
            let expected: Vec<Row> = rows().into_iter().filter(|(key, _)| key.starts_with(prefix)).collect();
            let mut cursor = Cursor::new(table.clone(), prefix, prefix);
            let mut found = Vec::new();
            while let Some(row) = cursor.next().unwrap() {
                found.push(row);
            }
            assert_eq!(found, expected, "{}", prefix.escape_ascii());
            if let Some((key, _)) = expected.get(expected.len() / 2) {
                let mut from = Cursor::new(table.clone(), prefix, key);
                assert_eq!(from.next().unwrap().as_ref(), expected.get(expected.len() / 2));
            }
        }
        // far smaller than what went in
        let raw: usize = rows().iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(fs::metadata(&path).unwrap().len() < raw as u64 / 2);
    }

    #[test]
    fn a_damaged_table_is_an_error_and_not_another_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.table");
        Table::write(&path, rows().into_iter().take(300).map(Ok)).unwrap();
        let good = fs::read(&path).unwrap();
        let all: Vec<Row> = rows().into_iter().take(300).collect();
        for at in (0..good.len()).step_by(211) {
            let mut bad = good.clone();
            bad[at] ^= 4;
            fs::write(&path, &bad).unwrap();
            let Ok(table) = Table::open(&path) else { continue };
            for (key, value) in &all {
                match table.get(key) {
                    Ok(found) => assert_eq!(found.as_ref(), Some(value), "byte {at}"),
                    Err(_) => continue,
                }
            }
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(Table::open(&path).is_err());
    }
}
