//! Tiles and entry bundles: the paths and bytes of C2SP `tlog-tiles`. Pure; they are views over rows.

use std::fmt;

use crate::{
    id::Sha256,
    receipt::{ENTRY, merkle::Node},
};

/// Hashes in a full tile, entries in a full bundle.
pub const WIDTH: u64 = 256;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Entries.
    Entries,
    /// Hashes of complete subtrees of 256^n entries.
    Hashes(u8),
}

/// A tile or bundle: `tile/<level>/<index>[.p/<width>]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// What it holds.
    pub level: Level,
    /// Its place on its level.
    pub index: u64,
    /// How much of it: 256, or less at the edge of the tree.
    pub width: u16,
}

impl Tile {
    /// Reads a path below a log's prefix: written in the one way that the specification allows, or `None`.
    pub fn parse(path: &str) -> Option<Self> {
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let level = match level {
            "entries" => Level::Entries,
            number => Level::Hashes(number.parse().ok().filter(|level| *level < 64)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse().ok().filter(|width| (1..256).contains(width))?),
            None => (rest, WIDTH as u16),
        };
        let mut number: u64 = 0;
        for group in index.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            number = number.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        let tile = Self { level, index: number, width };
        (tile.to_string() == path).then_some(tile)
    }

    /// All tiles and bundles of a log of this size: full ones, and the partial ones at its edge.
    pub fn all(size: u64) -> Vec<Self> {
        let mut tiles = Vec::new();
        let mut row = |level, hashes: u64| {
            for index in 0..hashes.div_ceil(WIDTH) {
                tiles.push(Self { level, index, width: (hashes - index * WIDTH).min(WIDTH) as u16 });
            }
        };
        row(Level::Entries, size);
        let mut hashes = size;
        for level in 0.. {
            row(Level::Hashes(level), hashes);
            hashes /= WIDTH;
            if hashes == 0 {
                break;
            }
        }
        tiles
    }

    /// Whether a log of this size has it: whole, or at the edge to this width. (Partial ones of earlier sizes are its
    /// beginnings and there too.)
    pub fn exists_in(self, size: u64) -> bool {
        let hashes = match self.level {
            Level::Entries => size,
            Level::Hashes(level) => size.checked_shr(8 * u32::from(level)).unwrap_or(0),
        };
        self.index
            .checked_mul(WIDTH)
            .and_then(|start| start.checked_add(u64::from(self.width)))
            .is_some_and(|end| end <= hashes)
    }

    /// The tile that holds what this node is made of, and which of its hashes: first, and how many.
    pub fn of(node: Node) -> (u8, u64, usize, usize) {
        let (level, within) = (node.level / 8, u32::from(node.level % 8));
        let first = node.index << within;
        (level, first / WIDTH, (first % WIDTH) as usize, 1 << within)
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Level::Entries => write!(f, "tile/entries/")?,
            Level::Hashes(level) => write!(f, "tile/{level}/")?,
        }
        let mut groups = vec![format!("{:03}", self.index % 1000)];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        groups.reverse();
        write!(f, "{}", groups.join("/"))?;
        if u64::from(self.width) < WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// A tile's bytes: its hashes, one after the other.
pub fn hashes(hashes: &[Sha256]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// A bundle's bytes: each entry after its length (two bytes, big-endian).
pub fn bundle<'a>(entries: impl IntoIterator<Item = &'a [u8; ENTRY]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend_from_slice(&(ENTRY as u16).to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    bytes
}

/// Reads a bundle of ours: `None` for anything but entries of 65 bytes.
pub fn read_bundle(bytes: &[u8]) -> Option<Vec<[u8; ENTRY]>> {
    bytes
        .chunks(2 + ENTRY)
        .map(|chunk| {
            let (length, entry) = chunk.split_first_chunk::<2>()?;
            (u16::from_be_bytes(*length) as usize == ENTRY).then_some(())?;
            <[u8; ENTRY]>::try_from(entry).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        // C2SP tlog-tiles: "the tile index 1234067 is encoded as x001/x234/067"
        let tile = |level, index, width| Tile { level, index, width };
        for (path, expected) in [
            ("tile/0/x001/x234/067", tile(Level::Hashes(0), 1_234_067, 256)),
            ("tile/0/000", tile(Level::Hashes(0), 0, 256)),
            ("tile/63/999.p/255", tile(Level::Hashes(63), 999, 255)),
            ("tile/entries/x001/000.p/1", tile(Level::Entries, 1000, 1)),
        ] {
            assert_eq!(Tile::parse(path), Some(expected));
            assert_eq!(expected.to_string(), path);
        }
        for wrong in [
            "tile/0/0",
            "tile/0/0000",
            "tile/00/000",
            "tile/64/000",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/x001",
            "tile/0/000.p/256",
            "tile/0/000.p/0",
            "tile/0/000.p/01",
            "tile/-1/000",
            "tile/entries/",
            "tile/data/000",
            "tile/0/+01",
            "tile/0/000/",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
            "tile/0/../000",
        ] {
            assert_eq!(Tile::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_tile_is_read_as_it_was_written(level in 0_u8..65, index in any::<u64>(), width in 1_u16..=256) {
            let level = if level == 64 { Level::Entries } else { Level::Hashes(level) };
            let tile = Tile { level, index, width };
            prop_assert_eq!(Tile::parse(&tile.to_string()), Some(tile));
        }

        #[test]
        fn no_path_is_read_in_two_ways(path in "tile/(0|1|entries|[0-9]{1,3})/[x0-9/.p]{1,20}") {
            if let Some(tile) = Tile::parse(&path) {
                prop_assert_eq!(tile.to_string(), path);
            }
        }
    }

    #[test]
    fn a_log_has_the_tiles_of_its_size_and_no_others() {
        let names = |size| Tile::all(size).iter().map(Tile::to_string).collect::<Vec<_>>();
        assert_eq!(names(1), ["tile/entries/000.p/1", "tile/0/000.p/1"]);
        assert_eq!(names(256), ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
        let of_70000 = names(70_000);
        for tile in ["tile/entries/273.p/112", "tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"] {
            assert!(of_70000.iter().any(|name| name == tile), "{tile}");
        }
        for size in [1, 255, 256, 257, 65_536, 70_000] {
            assert!(Tile::all(size).into_iter().all(|tile| tile.exists_in(size)));
            assert!(Tile::all(size).into_iter().any(|tile| !tile.exists_in(size - 1)));
        }
        assert!(!Tile { level: Level::Hashes(9), index: 0, width: 1 }.exists_in(u64::MAX));
        assert!(!Tile { level: Level::Entries, index: u64::MAX / 2, width: 256 }.exists_in(u64::MAX));
    }

    #[test]
    fn a_bundle_is_read_as_it_was_written_and_a_torn_one_is_not() {
        let entries = [[1; ENTRY], [2; ENTRY]];
        let bytes = bundle(&entries);
        assert_eq!(bytes.len(), 2 * 67);
        assert_eq!(read_bundle(&bytes).unwrap(), entries);
        assert_eq!(read_bundle(&bytes[..133]), None);
        assert_eq!(read_bundle(&[0; 67]), None);
    }
}
