//! The tree: RFC 6962 §2.1 hashing, grown leaf by leaf.

use serde::{Deserialize, Serialize};

use crate::{
    crypto::{Hasher, sha256},
    id::Sha256,
};

/// Hash of a leaf: SHA-256(0x00 ‖ entry).
pub fn leaf_hash(entry: &[u8]) -> Sha256 {
    let mut hasher = Hasher::new();
    hasher.update(&[0]);
    hasher.update(entry);
    hasher.finish()
}

/// Hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Sha256, right: &Sha256) -> Sha256 {
    let mut hasher = Hasher::new();
    hasher.update(&[1]);
    hasher.update(left.as_bytes());
    hasher.update(right.as_bytes());
    hasher.finish()
}

/// A complete subtree: the leaves from `index · 2^level` on, 2^level of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// Leaves as a power of two; at most 63.
    pub level: u8,
    /// Its place among the subtrees of its level, from 0.
    pub index: u64,
}

/// The right edge of a tree: one hash for each complete subtree, from the largest to the smallest. Enough to append
/// and to give the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontier {
    size: u64,
    edge: Vec<Sha256>,
}

impl Frontier {
    /// Appends a leaf hash.
    pub fn push(&mut self, leaf: Sha256) {
        self.push_with(leaf, |_, _| {});
    }

    /// Appends a leaf hash, and tells of each complete subtree of more than one leaf that it completes.
    pub fn push_with(&mut self, leaf: Sha256, mut completed: impl FnMut(Node, Sha256)) {
        let mut hash = leaf;
        // one complete subtree for each trailing one-bit of the size: it and the new one become the next larger
        for level in 1..=self.size.trailing_ones() as u8 {
            if let Some(left) = self.edge.pop() {
                hash = node_hash(&left, &hash);
                completed(Node { level, index: self.size >> level }, hash);
            }
        }
        self.edge.push(hash);
        self.size += 1;
    }

    /// Leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root; of an empty tree, the hash of nothing.
    pub fn root(&self) -> Sha256 {
        let mut edge = self.edge.iter().rev();
        match edge.next() {
            None => sha256(b""),
            Some(last) => edge.fold(*last, |right, left| node_hash(left, &right)),
        }
    }

    /// Whether the edge can be that of a tree of this size.
    pub fn is_sound(&self) -> bool {
        self.edge.len() == self.size.count_ones() as usize
    }
}

/// The root over these leaf hashes, by the recursive definition (RFC 6962 §2.1).
pub fn root_of(leaves: &[Sha256]) -> Sha256 {
    match leaves {
        [] => sha256(b""),
        [leaf] => *leaf,
        _ => {
            let split = leaves.len().next_power_of_two() / 2;
            node_hash(&root_of(&leaves[..split]), &root_of(&leaves[split..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Leaves and roots of the reference implementation's tests (certificate-transparency, merkle_tree_test.cc).
    const LEAVES: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn roots_are_those_of_the_reference_implementation() {
        let mut frontier = Frontier::default();
        for (leaf, root) in LEAVES.iter().zip(ROOTS) {
            frontier.push(leaf_hash(leaf));
            assert_eq!(frontier.root().to_string(), root);
        }
        assert_eq!(
            Frontier::default().root().to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn the_frontier_is_the_recursive_definition_at_every_size() {
        let leaves: Vec<Sha256> = (0..300_u32).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        let mut frontier = Frontier::default();
        for size in 0..leaves.len() {
            assert_eq!(frontier.root(), root_of(&leaves[..size]), "{size}");
            assert!(frontier.is_sound());
            frontier.push(leaves[size]);
        }
    }
}
