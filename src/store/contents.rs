//! What may be erased later: appended to `content/<n>.pack`, synced before the batch that names the place. Before each
//! content is a byte that says that it is there: erasure makes all of it zero.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use crate::store::objects::sync_folder;

/// A pack is closed when it has grown past this.
const PACK: u64 = 64 << 20;
/// The byte before a content.
const PRESENT: u8 = 1;

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
            let length = u32::try_from(content.len() + 1).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
            places.push(Place { pack, offset: start + bytes.len() as u64, length });
            bytes.push(PRESENT);
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
    pub fn read(&self, place: Place) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; place.length as usize];
        File::open(self.path(place.pack))?.read_exact_at(&mut bytes, place.offset)?;
        Ok(bytes.split_first().filter(|(mark, _)| **mark == PRESENT).map(|(_, content)| content.to_vec()))
    }

    /// Overwrites the content at this place and syncs.
    pub fn erase(&self, place: Place) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(place.pack))?;
        file.write_all_at(&vec![0; place.length as usize], place.offset)?;
        file.sync_data()
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
