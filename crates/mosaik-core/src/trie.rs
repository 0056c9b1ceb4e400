//! The trie by which two nodes find where their frontiers differ: 16 children a node, keys of 32
//! bytes, at most 32 entries in a leaf.
//!
//! Invariants:
//! - The shape is a function of the set of keys, so two ends that hold the same set cut alike.
//! - A changed entry forgets the hashes of one path only; they are computed when next asked for.
//!
//! Source: FORMAT.md beside this crate, section 5; Merkle trees over key ranges as in Auvolat and
//! Taïani, "Merkle Search Trees", SRDS 2019, with the cut fixed by the keys.

use std::{cell::Cell, collections::BTreeSet};

use crate::{
    codec::{ReadError, Reader, Writer},
    id::{AuthorId, Fingerprint},
    key::deriver_of,
};

/// Entries of a leaf at the most.
pub const LEAF_MAX: usize = 32;
/// Nibbles of a key.
pub const NIBBLES: usize = 64;

/// The hash of a prefix: 16 zeros where no key is under it.
pub type Hash = [u8; 16];

/// The two hash functions of one trie.
#[derive(Clone)]
pub struct Rule {
    leaf: blake3::Hasher,
    node: blake3::Hasher,
}

impl Rule {
    /// `derive(leaf, fingerprint || items)` and `derive(node, fingerprint || 16 children)`, in this
    /// version of both.
    pub fn new(leaf: &str, node: &str, version: u32, fingerprint: &Fingerprint) -> Self {
        let prepare = |context| {
            let mut hasher = deriver_of(context, version);
            hasher.update(fingerprint.as_bytes());
            hasher
        };
        Self { leaf: prepare(leaf), node: prepare(node) }
    }

    /// The rule of frontiers, whose hashes are cut to 16 bytes.
    pub fn frontier(fingerprint: &Fingerprint) -> Self {
        Self::new("trie leaf", "trie node", 1, fingerprint)
    }

    /// The full hash of a leaf: of its items' bytes, one after the other, in order of their keys.
    pub fn leaf<I: AsRef<[u8]>>(&self, items: impl IntoIterator<Item = I>) -> [u8; 32] {
        let mut hasher = self.leaf.clone();
        for item in items {
            hasher.update(item.as_ref());
        }
        *hasher.finalize().as_bytes()
    }

    /// The full hash of a node: of its children's hashes, empty ones too.
    pub fn node<const N: usize>(&self, children: &[[u8; N]; 16]) -> [u8; 32] {
        let mut hasher = self.node.clone();
        hasher.update(children.as_flattened());
        *hasher.finalize().as_bytes()
    }
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rule(..)")
    }
}

fn cut(hash: [u8; 32]) -> Hash {
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    short
}

/// Nibble `depth` of a key, high nibble of a byte first.
fn nibble(key: &[u8; 32], depth: usize) -> usize {
    let byte = key[depth / 2];
    usize::from(if depth.is_multiple_of(2) { byte >> 4 } else { byte & 0x0f })
}

/// The first nibbles of some keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// Zeros behind the last nibble.
    key: [u8; 32],
    len: u8,
}

impl Prefix {
    /// Before the first nibble: all keys.
    pub const EMPTY: Self = Self { key: [0; 32], len: 0 };

    /// Nibbles in it, 0 to 64.
    pub fn nibbles(&self) -> usize {
        usize::from(self.len)
    }

    /// The prefix one nibble longer.
    ///
    /// # Panics
    ///
    /// If it is a whole key already.
    pub fn child(&self, nibble: usize) -> Self {
        assert!(self.nibbles() < NIBBLES, "a key has 64 nibbles");
        let mut child = *self;
        let shift = if self.len.is_multiple_of(2) { 4 } else { 0 };
        child.key[self.nibbles() / 2] |= ((nibble & 0x0f) as u8) << shift;
        child.len += 1;
        child
    }

    /// The prefix one nibble shorter, and that nibble; none for the empty one.
    pub fn parent(&self) -> Option<(Self, usize)> {
        let depth = self.nibbles().checked_sub(1)?;
        let mut parent = *self;
        parent.key[depth / 2] &= if depth.is_multiple_of(2) { 0x00 } else { 0xf0 };
        parent.len -= 1;
        Some((parent, nibble(&self.key, depth)))
    }

    /// The 16 prefixes one nibble longer.
    pub fn children(self) -> impl Iterator<Item = Self> {
        (0..16).map(move |i| self.child(i))
    }

    /// Whether `key` begins with it.
    pub fn covers(&self, key: &[u8; 32]) -> bool {
        (0..self.nibbles()).all(|depth| nibble(key, depth) == nibble(&self.key, depth))
    }

    /// The smallest key that begins with it.
    pub fn first(&self) -> AuthorId {
        AuthorId(self.key)
    }

    /// The greatest key that begins with it.
    pub fn last(&self) -> AuthorId {
        let mut key = self.key;
        let whole = self.nibbles().div_ceil(2);
        if !self.len.is_multiple_of(2) {
            key[whole - 1] |= 0x0f;
        }
        key[whole..].fill(0xff);
        AuthorId(key)
    }

    /// Appends the wire form: u8 number of nibbles, then two a byte, an odd last one padded with 0.
    pub fn write(&self, writer: &mut Writer) {
        writer.u8(self.len).raw(&self.key[..self.nibbles().div_ceil(2)]);
    }

    /// Reads the wire form.
    ///
    /// # Errors
    ///
    /// [`ReadError`] for more than `nibbles_max` nibbles or padding that is not 0.
    pub fn read(reader: &mut Reader<'_>, nibbles_max: usize) -> Result<Self, ReadError> {
        let len = reader.u8()?;
        if usize::from(len) > nibbles_max {
            return Err(ReadError::TooLong { len: u64::from(len), limit: nibbles_max });
        }
        let mut key = [0; 32];
        let bytes = reader.raw(usize::from(len).div_ceil(2))?;
        key[..bytes.len()].copy_from_slice(bytes);
        if !len.is_multiple_of(2) && bytes.last().is_some_and(|byte| byte & 0x0f != 0) {
            return Err(ReadError::Invalid("the padding of a prefix is not 0"));
        }
        Ok(Self { key, len })
    }
}

/// What stands in a trie under an author: gives the bytes that are hashed and sent.
pub trait Item {
    /// Appends the item of `author`.
    fn write_item(&self, author: &AuthorId, writer: &mut Writer);
}

/// An ordered map from authors to `V` that knows the hash of every prefix.
///
/// The methods take a set of authors to leave out, so that two ends compare what neither declines.
#[derive(Debug, Clone)]
pub struct Trie<V> {
    rule: Rule,
    root: Node<V>,
}

#[derive(Debug, Clone)]
enum Node<V> {
    Leaf { entries: Vec<(AuthorId, V)>, hash: Cell<Option<Hash>> },
    Branch { children: Box<[Node<V>; 16]>, count: usize, hash: Cell<Option<Hash>> },
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self::Leaf { entries: Vec::new(), hash: Cell::new(None) }
    }
}

impl<V> Node<V> {
    fn count(&self) -> usize {
        match self {
            Self::Leaf { entries, .. } => entries.len(),
            Self::Branch { count, .. } => *count,
        }
    }

    fn insert(&mut self, depth: usize, author: AuthorId, value: V) -> Option<V> {
        match self {
            Self::Leaf { entries, hash } => {
                hash.set(None);
                match entries.binary_search_by_key(&author, |entry| entry.0) {
                    Ok(at) => Some(std::mem::replace(&mut entries[at].1, value)),
                    Err(at) => {
                        // Leaves stay as large as they are: a share of free room in each would be
                        // a third of all memory, and new authors are rare.
                        entries.reserve_exact(1);
                        entries.insert(at, (author, value));
                        if entries.len() > LEAF_MAX {
                            let entries = std::mem::take(entries);
                            *self = Self::split(depth, entries);
                        }
                        None
                    }
                }
            }
            Self::Branch { children, count, hash } => {
                hash.set(None);
                let old = children[nibble(&author.0, depth)].insert(depth + 1, author, value);
                *count += usize::from(old.is_none());
                old
            }
        }
    }

    fn split(depth: usize, entries: Vec<(AuthorId, V)>) -> Self {
        let count = entries.len();
        let mut children: Box<[Self; 16]> = Box::default();
        for (author, value) in entries {
            children[nibble(&author.0, depth)].insert(depth + 1, author, value);
        }
        Self::Branch { children, count, hash: Cell::new(None) }
    }

    fn get(&self, depth: usize, author: &AuthorId) -> Option<&V> {
        match self {
            Self::Leaf { entries, .. } => {
                let at = entries.binary_search_by_key(author, |entry| entry.0).ok()?;
                Some(&entries[at].1)
            }
            Self::Branch { children, .. } => {
                children[nibble(&author.0, depth)].get(depth + 1, author)
            }
        }
    }

    fn get_mut(&mut self, depth: usize, author: &AuthorId) -> Option<&mut V> {
        match self {
            Self::Leaf { entries, hash } => {
                let at = entries.binary_search_by_key(author, |entry| entry.0).ok()?;
                hash.set(None);
                Some(&mut entries[at].1)
            }
            Self::Branch { children, hash, .. } => {
                hash.set(None);
                children[nibble(&author.0, depth)].get_mut(depth + 1, author)
            }
        }
    }

    fn visit<'a>(&'a self, prefix: &Prefix, depth: usize, each: &mut impl FnMut(&AuthorId, &'a V)) {
        match self {
            Self::Leaf { entries, .. } => {
                for (author, value) in entries.iter().filter(|entry| prefix.covers(&entry.0.0)) {
                    each(author, value);
                }
            }
            Self::Branch { children, .. } if depth < prefix.nibbles() => {
                children[nibble(&prefix.key, depth)].visit(prefix, depth + 1, each);
            }
            Self::Branch { children, .. } => {
                for child in children.iter() {
                    child.visit(prefix, depth + 1, each);
                }
            }
        }
    }

    /// The node that holds all keys under `prefix`: below it, or the leaf that it ends in.
    fn at(&self, prefix: &Prefix) -> &Self {
        let mut node = self;
        for depth in 0..prefix.nibbles() {
            match node {
                Self::Leaf { .. } => break,
                Self::Branch { children, .. } => node = &children[nibble(&prefix.key, depth)],
            }
        }
        node
    }
}

impl<V: Item> Trie<V> {
    /// An empty trie.
    pub fn new(rule: Rule) -> Self {
        Self { rule, root: Node::default() }
    }

    /// Authors in it.
    pub fn len(&self) -> usize {
        self.root.count()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts `value` in the place of `author`; returns what stood there.
    pub fn insert(&mut self, author: AuthorId, value: V) -> Option<V> {
        self.root.insert(0, author, value)
    }

    /// The value of `author`.
    pub fn get(&self, author: &AuthorId) -> Option<&V> {
        self.root.get(0, author)
    }

    /// The value of `author`, to change it: the hashes above it are forgotten.
    pub fn get_mut(&mut self, author: &AuthorId) -> Option<&mut V> {
        self.root.get_mut(0, author)
    }

    /// All authors under `prefix` but those of `skip`, ascending.
    pub fn under(&self, prefix: &Prefix, skip: &BTreeSet<AuthorId>) -> Vec<(AuthorId, &V)> {
        let mut found = Vec::new();
        self.root.visit(prefix, 0, &mut |author, value| {
            if !skip.contains(author) {
                found.push((*author, value));
            }
        });
        found
    }

    /// How many authors [`Trie::under`] would give.
    pub fn count(&self, prefix: &Prefix, skip: &BTreeSet<AuthorId>) -> usize {
        let all = match self.root.at(prefix) {
            Node::Branch { count, .. } => *count,
            Node::Leaf { entries, .. } => {
                entries.iter().filter(|entry| prefix.covers(&entry.0.0)).count()
            }
        };
        all - self.skipped(prefix, skip)
    }

    /// The item's bytes of `author`, if it is in the trie.
    pub fn item(&self, author: &AuthorId) -> Option<Vec<u8>> {
        self.get(author).map(|value| item_bytes(author, value))
    }

    /// The hash of `prefix`, without the authors of `skip`.
    pub fn hash(&self, prefix: &Prefix, skip: &BTreeSet<AuthorId>) -> Hash {
        self.hash_node(self.root.at(prefix), prefix, skip)
    }

    /// The hashes of the 16 prefixes one nibble longer.
    pub fn children(&self, prefix: &Prefix, skip: &BTreeSet<AuthorId>) -> [Hash; 16] {
        std::array::from_fn(|i| self.hash(&prefix.child(i), skip))
    }

    fn skipped(&self, prefix: &Prefix, skip: &BTreeSet<AuthorId>) -> usize {
        let under = skip.range(prefix.first()..=prefix.last());
        under.filter(|author| self.get(author).is_some()).count()
    }

    fn hash_node(&self, node: &Node<V>, prefix: &Prefix, skip: &BTreeSet<AuthorId>) -> Hash {
        let whole = self.skipped(prefix, skip) == 0;
        match node {
            // A leaf that lies above the prefix holds other keys too: its own hash isn't this one's.
            Node::Leaf { entries, hash } => {
                let all = whole && entries.iter().all(|entry| prefix.covers(&entry.0.0));
                if let (true, Some(hash)) = (all, hash.get()) {
                    return hash;
                }
                let items = entries
                    .iter()
                    .filter(|entry| prefix.covers(&entry.0.0) && !skip.contains(&entry.0));
                let computed = self.hash_leaf(items.map(|(author, value)| (*author, value)));
                if all {
                    hash.set(Some(computed));
                }
                computed
            }
            Node::Branch { children, count, hash } => {
                if let (true, Some(hash)) = (whole, hash.get()) {
                    return hash;
                }
                let computed = if count - self.skipped(prefix, skip) <= LEAF_MAX {
                    self.hash_leaf(self.under(prefix, skip).into_iter())
                } else {
                    let hashes = std::array::from_fn(|i| {
                        self.hash_node(&children[i], &prefix.child(i), skip)
                    });
                    cut(self.rule.node::<16>(&hashes))
                };
                if whole {
                    hash.set(Some(computed));
                }
                computed
            }
        }
    }

    fn hash_leaf<'a>(&self, entries: impl Iterator<Item = (AuthorId, &'a V)>) -> Hash
    where
        V: 'a,
    {
        let mut entries = entries.map(|(author, value)| item_bytes(&author, value)).peekable();
        if entries.peek().is_none() {
            return [0; 16];
        }
        cut(self.rule.leaf(entries))
    }
}

/// The bytes of one item.
pub fn item_bytes(author: &AuthorId, value: &impl Item) -> Vec<u8> {
    let mut writer = Writer::with_capacity(80);
    value.write_item(author, &mut writer);
    writer.into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Item for u64 {
        fn write_item(&self, author: &AuthorId, writer: &mut Writer) {
            writer.raw(author.as_bytes()).varint(*self);
        }
    }

    fn author(first: u8, second: u8) -> AuthorId {
        let mut key = [0; 32];
        (key[0], key[1]) = (first, second);
        AuthorId(key)
    }

    fn trie(entries: &[(AuthorId, u64)]) -> Trie<u64> {
        let mut trie = Trie::new(Rule::frontier(&Fingerprint([1; 32])));
        for (author, value) in entries {
            trie.insert(*author, *value);
        }
        trie
    }

    /// The rule of the format, transcribed without a tree.
    fn slow(rule: &Rule, entries: &[(AuthorId, u64)], prefix: Prefix) -> Hash {
        let under: Vec<_> = entries.iter().filter(|entry| prefix.covers(&entry.0.0)).collect();
        match under.len() {
            0 => [0; 16],
            1..=LEAF_MAX => {
                cut(rule.leaf(under.iter().map(|entry| item_bytes(&entry.0, &entry.1))))
            }
            _ => {
                cut(rule.node::<16>(&std::array::from_fn(|i| slow(rule, entries, prefix.child(i)))))
            }
        }
    }

    #[test]
    fn a_prefix_without_authors_is_zeros() {
        assert_eq!(trie(&[]).hash(&Prefix::EMPTY, &BTreeSet::new()), [0; 16]);
    }

    #[test]
    fn an_odd_prefix_is_padded_with_zero_and_nothing_else() {
        let prefix = Prefix::EMPTY.child(0xa).child(0xb).child(0xc);
        let mut writer = Writer::new();
        prefix.write(&mut writer);
        assert_eq!(writer.as_bytes(), [3, 0xab, 0xc0]);
        assert_eq!(Prefix::read(&mut Reader::new(writer.as_bytes()), 64), Ok(prefix));
        assert!(Prefix::read(&mut Reader::new(&[3, 0xab, 0xc1]), 64).is_err());
        assert!(Prefix::read(&mut Reader::new(&[64; 40]), 63).is_err());
        assert_eq!(prefix.parent(), Some((Prefix::EMPTY.child(0xa).child(0xb), 0xc)));
        assert_eq!(Prefix::EMPTY.parent(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn hashes_follow_from_the_set_alone(
            set in proptest::collection::btree_map((0u8..4, any::<u8>()), any::<u64>(), 0..200),
            skip in proptest::collection::btree_set((0u8..4, any::<u8>()), 0..40),
            updates in proptest::collection::vec((0usize..200, any::<u64>()), 0..20),
        ) {
            let mut entries: Vec<_> =
                set.iter().map(|((a, b), value)| (author(*a, *b), *value)).collect();
            let mut trie = trie(&entries);
            for (at, value) in updates.iter().filter(|(at, _)| *at < set.len()) {
                trie.hash(&Prefix::EMPTY, &BTreeSet::new());
                entries[*at].1 = *value;
                *trie.get_mut(&entries[*at].0).expect("an author of the set") = *value;
            }
            let skip: BTreeSet<_> = skip.iter().map(|(a, b)| author(*a, *b)).collect();
            let left: Vec<_> =
                entries.iter().filter(|entry| !skip.contains(&entry.0)).copied().collect();
            let deep = Prefix::EMPTY.child(0).child(1).child(7);
            for prefix in [Prefix::EMPTY, Prefix::EMPTY.child(0), Prefix::EMPTY.child(0).child(2), deep] {
                prop_assert_eq!(trie.hash(&prefix, &skip), slow(&trie.rule, &left, prefix));
                prop_assert_eq!(trie.hash(&prefix, &BTreeSet::new()), slow(&trie.rule, &entries, prefix));
                let under = left.iter().filter(|entry| prefix.covers(&entry.0.0)).count();
                prop_assert_eq!(trie.count(&prefix, &skip), under);
                prop_assert_eq!(trie.under(&prefix, &skip).len(), under);
            }
        }
    }
}
