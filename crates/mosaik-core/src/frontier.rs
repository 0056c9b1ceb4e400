//! The frontier: for every feed that is held, its tips, and the hashes to compare them by.
//!
//! Source: FORMAT.md beside this crate, section 5.

use crate::{feed::Feed, trie::Trie};

/// All held feeds by author. Their items are what two nodes compare.
pub type Frontier = Trie<Feed>;
