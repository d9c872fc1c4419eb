//! Proofs over the tree: which subtrees they are made of, and how they are verified. Pure.
//!
//! RFC 6962 §2.1.1 and §2.1.2 say what a proof holds; RFC 9162 §2.1.3.2 and §2.1.4.2 how it is checked. A proof is made
//! in two steps, so that hashes may come from anywhere: [`inclusion`] and [`consistency`] name subtrees, [`Subtree::fold`]
//! makes the hash of each from complete ones.

use crate::{
    id::Sha256,
    receipt::merkle::{Node, node_hash},
};

/// The leaves from `start` to before `end`; `start` is a multiple of a power of two that is at least as large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subtree {
    start: u64,
    end: u64,
}

impl Subtree {
    /// The whole tree of this size.
    pub const fn whole(size: u64) -> Self {
        Self { start: 0, end: size }
    }

    /// The complete subtrees that it is made of, from the largest to the smallest.
    pub fn nodes(self) -> Vec<Node> {
        let (mut start, mut nodes) = (self.start, Vec::new());
        while start < self.end {
            let level = start.trailing_zeros().min((self.end - start).ilog2());
            nodes.push(Node { level: level as u8, index: start >> level });
            start += 1 << level;
        }
        nodes
    }

    /// Its hash from those of its nodes; `None` for none.
    pub fn fold(hashes: &[Sha256]) -> Option<Sha256> {
        let (last, rest) = hashes.split_last()?;
        Some(rest.iter().rev().fold(*last, |right, left| node_hash(left, &right)))
    }
}

/// What proves that the entry at `index` is in the tree of `size` (RFC 6962 §2.1.1), from the leaf to the root. `None` if
/// it can't be.
pub fn inclusion(index: u64, size: u64) -> Option<Vec<Subtree>> {
    if index >= size {
        return None;
    }
    let (mut start, mut end, mut path) = (0, size, Vec::new());
    while end - start > 1 {
        let split = start + split(end - start);
        if index < split {
            path.push(Subtree { start: split, end });
            end = split;
        } else {
            path.push(Subtree { start, end: split });
            start = split;
        }
    }
    path.reverse();
    Some(path)
}

/// What proves that the tree of `old` is the beginning of that of `new` (RFC 6962 §2.1.2). Nothing, where they are of one
/// size, or the old is empty. `None` if the old is the larger.
pub fn consistency(old: u64, new: u64) -> Option<Vec<Subtree>> {
    if old > new {
        return None;
    }
    if old == new || old == 0 {
        return Some(Vec::new());
    }
    let (mut start, mut end, mut path) = (0, new, Vec::new());
    while end != old {
        let split = start + split(end - start);
        if old <= split {
            path.push(Subtree { start: split, end });
            end = split;
        } else {
            path.push(Subtree { start, end: split });
            start = split;
        }
    }
    if start != 0 {
        path.push(Subtree { start, end });
    }
    path.reverse();
    Some(path)
}

/// The largest power of two below `size`, which is more than one.
const fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// Whether `path` proves that `leaf` is at `index` in the tree of `size` with this root (RFC 9162 §2.1.3.2).
pub fn verify_inclusion(index: u64, size: u64, leaf: &Sha256, path: &[Sha256], root: &Sha256) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for step in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(step, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, step);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `path` proves that the tree of size `old` with `old_root` is the beginning of that of size `new` with
/// `new_root` (RFC 9162 §2.1.4.2). An empty tree is the beginning of every one.
pub fn verify_consistency(old: u64, old_root: &Sha256, new: u64, new_root: &Sha256, path: &[Sha256]) -> bool {
    if old > new {
        return false;
    }
    if old == 0 {
        return path.is_empty() && *old_root == crate::crypto::sha256(b"");
    }
    if old == new {
        return path.is_empty() && old_root == new_root;
    }
    let mut steps = path.iter();
    let first = if old.is_power_of_two() { old_root } else { steps.next().unwrap_or(new_root) };
    if !old.is_power_of_two() && path.is_empty() {
        return false;
    }
    let shift = (old - 1).trailing_ones();
    let (mut node, mut last) = ((old - 1) >> shift, (new - 1) >> shift);
    let (mut of_old, mut of_new) = (*first, *first);
    for step in steps {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            of_old = node_hash(step, &of_old);
            of_new = node_hash(step, &of_new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            of_new = node_hash(&of_new, step);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && of_old == *old_root && of_new == *new_root
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::receipt::merkle::{leaf_hash, root_of};

    const SIZES: u64 = 300;

    static LEAVES: LazyLock<Vec<Sha256>> = LazyLock::new(|| (0..SIZES).map(|n| leaf_hash(&n.to_be_bytes())).collect());

    fn root(size: u64) -> Sha256 {
        root_of(&LEAVES[..size as usize])
    }

    fn resolve(path: Vec<Subtree>) -> Vec<Sha256> {
        path.into_iter()
            .map(|subtree| {
                let hash = |node: Node| {
                    let start = (node.index << node.level) as usize;
                    root_of(&LEAVES[start..start + (1 << node.level)])
                };
                Subtree::fold(&subtree.nodes().into_iter().map(hash).collect::<Vec<_>>()).unwrap()
            })
            .collect()
    }

    #[test]
    fn every_entry_of_every_size_is_proven_and_nothing_else_is() {
        for size in 1..=SIZES {
            let root = root(size);
            for index in 0..size {
                let path = resolve(inclusion(index, size).unwrap());
                let leaf = &LEAVES[index as usize];
                assert!(verify_inclusion(index, size, leaf, &path, &root), "{index} in {size}");
                assert!(path.len() <= size.next_power_of_two().ilog2() as usize);
                // another place, another size, another leaf, a step less or more
                assert!(!verify_inclusion(index + 1, size, leaf, &path, &root));
                assert!(!verify_inclusion(index, size, &root, &path, &root) || size == 1);
                if let Some((_, fewer)) = path.split_last() {
                    assert!(!verify_inclusion(index, size, leaf, fewer, &root));
                }
                let more: Vec<Sha256> = path.iter().copied().chain([root]).collect();
                assert!(!verify_inclusion(index, size, leaf, &more, &root));
            }
        }
        assert_eq!(inclusion(5, 5), None);
    }

    #[test]
    fn every_two_sizes_are_consistent_and_another_history_is_not() {
        let roots: Vec<Sha256> = (0..=SIZES).map(root).collect();
        for new in 0..=SIZES {
            for old in 0..=new {
                let path = resolve(consistency(old, new).unwrap());
                let (old_root, new_root) = (&roots[old as usize], &roots[new as usize]);
                assert!(verify_consistency(old, old_root, new, new_root, &path), "{old} to {new}");
                let forged = leaf_hash(b"forged");
                assert!(!verify_consistency(old, &forged, new, new_root, &path));
                assert!(!verify_consistency(old, old_root, new, &forged, &path) || old == 0);
                let more: Vec<Sha256> = path.iter().copied().chain([*new_root]).collect();
                assert!(!verify_consistency(old, old_root, new, new_root, &more));
                if let Some((_, fewer)) = path.split_last() {
                    assert!(!verify_consistency(old, old_root, new, new_root, fewer));
                }
            }
        }
        assert_eq!(consistency(3, 2), None);
    }

    proptest! {
        #[test]
        fn a_changed_step_proves_nothing(size in 2..=SIZES, place in any::<prop::sample::Index>(), step in any::<prop::sample::Index>(), bit in 0_usize..256) {
            let index = place.index(size as usize) as u64;
            let flip = |path: &mut Vec<Sha256>| {
                let step = step.index(path.len());
                path[step].0[bit / 8] ^= 1 << (bit % 8);
            };
            let mut path = resolve(inclusion(index, size).unwrap());
            flip(&mut path);
            prop_assert!(!verify_inclusion(index, size, &LEAVES[index as usize], &path, &root(size)));
            let mut path = resolve(consistency(index.max(1), size).unwrap());
            if !path.is_empty() {
                flip(&mut path);
                prop_assert!(!verify_consistency(index.max(1), &root(index.max(1)), size, &root(size), &path));
            }
        }
    }

    /// Vectors of the reference implementation (transparency-dev/merkle, `proof/verify_test.go`): its eight leaves, its
    /// proofs in the same order.
    #[test]
    fn proofs_are_those_of_the_reference_implementation() {
        let leaves: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let leaves: Vec<Sha256> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        let resolve = |path: Vec<Subtree>| -> Vec<String> {
            path.into_iter()
                .map(|subtree| {
                    let hash = |node: Node| {
                        let start = (node.index << node.level) as usize;
                        root_of(&leaves[start..start + (1 << node.level)])
                    };
                    Subtree::fold(&subtree.nodes().into_iter().map(hash).collect::<Vec<_>>()).unwrap().to_string()
                })
                .collect()
        };
        for (index, size, expected) in [
            (0, 1, &[][..]),
            (
                0,
                8,
                &[
                    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
                ],
            ),
            (
                5,
                8,
                &[
                    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                ],
            ),
            (2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
            (
                1,
                5,
                &[
                    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                ],
            ),
        ] {
            assert_eq!(resolve(inclusion(index, size).unwrap()), expected, "{index} in {size}");
        }
        for (old, new, expected) in [
            (1, 1, &[][..]),
            (
                1,
                8,
                &[
                    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
                ],
            ),
            (
                6,
                8,
                &[
                    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                ],
            ),
            (
                2,
                5,
                &[
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                ],
            ),
        ] {
            assert_eq!(resolve(consistency(old, new).unwrap()), expected, "{old} to {new}");
        }
    }
}
