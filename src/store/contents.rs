//! What may be erased later: appended to `content/<n>.pack`, synced before the batch that names the place.
//!
//! ```text
//!   1 (u8) ‖ first 8 bytes of the content's SHA-256 ‖ content
//! ```
//!
//! Erasure makes all of it zero: a content that is zero throughout is erased, one that is neither whole nor zero is damaged.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use crate::{crypto::sha256, store::objects::sync_folder};

/// A pack is closed when it has grown past this.
const PACK: u64 = 64 << 20;
/// The byte before a content.
const PRESENT: u8 = 1;
/// Bytes before a content.
const HEAD: usize = 1 + 8;

/// Where a content lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pack: u32,
    offset: u64,
    length: u32,
}

impl Place {
    /// Bytes of a place in a row.
    pub const SIZE: usize = 16;

    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..4].copy_from_slice(&self.pack.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.offset.to_be_bytes());
        bytes[12..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            pack: u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?),
            offset: u64::from_be_bytes(bytes.get(4..12)?.try_into().ok()?),
            length: u32::from_be_bytes(bytes.get(12..16)?.try_into().ok()?),
        })
    }
}

/// The packs.
pub struct Contents {
    folder: PathBuf,
    open: Option<(u32, File, u64)>,
    last: u32,
}

impl Contents {
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut last = 0;
        for entry in fs::read_dir(&folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".pack")).and_then(|n| n.parse::<u32>().ok());
            last = last.max(number.unwrap_or(0));
        }
        Ok(Self { folder, open: None, last })
    }

    /// Appends these contents and syncs once.
    pub fn append<'a>(&mut self, contents: impl IntoIterator<Item = &'a [u8]>) -> io::Result<Vec<Place>> {
        let mut places = Vec::new();
        let mut bytes = Vec::new();
        let (pack, start) = self.current()?;
        for content in contents {
            let length =
                u32::try_from(content.len() + HEAD).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
            places.push(Place { pack, offset: start + bytes.len() as u64, length });
            bytes.push(PRESENT);
            bytes.extend_from_slice(&sha256(content).0[..HEAD - 1]);
            bytes.extend_from_slice(content);
        }
        if let (Some((_, file, end)), false) = (&mut self.open, bytes.is_empty()) {
            file.write_all_at(&bytes, *end)?;
            file.sync_data()?;
            *end += bytes.len() as u64;
        }
        Ok(places)
    }

    /// The content at this place; `None` once it is erased.
    ///
    /// # Errors
    /// `InvalidData` for what is neither: damaged, or half erased when the power went.
    pub fn read(&self, place: Place) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; place.length as usize];
        File::open(self.path(place.pack))?.read_exact_at(&mut bytes, place.offset)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        match bytes.split_at_checked(HEAD) {
            Some((head, content)) if head[0] == PRESENT && head[1..] == sha256(content).0[..HEAD - 1] => {
                Ok(Some(content.to_vec()))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{}.pack is damaged there", place.pack))),
        }
    }

    /// Overwrites the content at this place and syncs.
    pub fn erase(&self, place: Place) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(place.pack))?;
        file.write_all_at(&vec![0; place.length as usize], place.offset)?;
        file.sync_data()
    }

    /// Where the next content goes, if there was one: what a batch writes with the rows that name what was appended.
    pub fn end(&self) -> Option<[u8; 12]> {
        let (pack, _, end) = self.open.as_ref()?;
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&pack.to_be_bytes());
        bytes[4..].copy_from_slice(&end.to_be_bytes());
        Some(bytes)
    }

    /// Overwrites what lies beyond this end: a crash came before the batch that would have named it, so that nobody could
    /// ever erase it.
    pub fn close(&self, end: Option<&[u8]>) -> io::Result<()> {
        // as long as no batch has named any, nothing is known of what is there
        let Some(end) = end.and_then(|bytes| <[u8; 12]>::try_from(bytes).ok()) else { return Ok(()) };
        let (pack, end) = end.split_at(4);
        let pack = pack.try_into().map_or(0, u32::from_be_bytes);
        let end = end.try_into().map_or(0, u64::from_be_bytes);
        for number in pack.max(1)..=self.last {
            let path = self.path(number);
            let (from, length) = (if number == pack { end } else { 0 }, fs::metadata(&path)?.len());
            if length <= from {
                continue;
            }
            let file = OpenOptions::new().write(true).open(path)?;
            let (zeros, mut at) = (vec![0; 1 << 20], from);
            while at < length {
                let part = (length - at).min(zeros.len() as u64) as usize;
                file.write_all_at(&zeros[..part], at)?;
                at += part as u64;
            }
            file.sync_data()?;
        }
        Ok(())
    }

    /// The packs as they are now: each with its length.
    pub fn packs(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        let entries = fs::read_dir(&self.folder)?;
        entries.map(|entry| entry.and_then(|entry| Ok((entry.path(), entry.metadata()?.len())))).collect()
    }

    /// The pack to append to, and its end. A pack from before this start is never appended to: its end may be torn.
    fn current(&mut self) -> io::Result<(u32, u64)> {
        if let Some((pack, _, end)) = &self.open
            && *end < PACK
        {
            return Ok((*pack, *end));
        }
        self.last += 1;
        let file = OpenOptions::new().write(true).create_new(true).open(self.path(self.last))?;
        sync_folder(&self.folder)?;
        self.open = Some((self.last, file, 0));
        Ok((self.last, 0))
    }

    fn path(&self, pack: u32) -> PathBuf {
        self.folder.join(format!("{pack}.pack"))
    }
}
