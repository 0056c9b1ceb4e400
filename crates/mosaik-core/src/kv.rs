//! The ordered map of bytes that the view is kept in, as its storage gives it.
//!
//! The fold decides every key and value ([`crate::view`]); a store gives one table, a simulator one
//! tree. Both see their own writes at once.

use std::{collections::BTreeMap, convert::Infallible, ops::Bound};

/// In which direction a range is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// From the smallest key.
    Ascending,
    /// From the greatest key.
    Descending,
}

/// An ordered map of bytes, to read.
pub trait Kv {
    /// What can go wrong below.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The value of `key`.
    ///
    /// # Errors
    ///
    /// The storage's own.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Self::Error>;

    /// Calls `each` for the keys of `from..to` in `order`, until it returns false.
    ///
    /// # Errors
    ///
    /// The storage's own.
    fn range(
        &self,
        from: &[u8],
        to: &[u8],
        order: Order,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Self::Error>;
}

/// An ordered map of bytes, to write.
pub trait KvMut: Kv {
    /// Puts `value` in the place of `key`.
    ///
    /// # Errors
    ///
    /// The storage's own.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Self::Error>;

    /// Takes `key` away, if it is there.
    ///
    /// # Errors
    ///
    /// The storage's own.
    fn delete(&mut self, key: &[u8]) -> Result<(), Self::Error>;
}

/// The map in memory: of the simulator's store model, and of tests.
pub type MemoryKv = BTreeMap<Vec<u8>, Vec<u8>>;

impl Kv for MemoryKv {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn range(
        &self,
        from: &[u8],
        to: &[u8],
        order: Order,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Infallible> {
        if from >= to {
            return Ok(());
        }
        let mut range =
            BTreeMap::range::<[u8], _>(self, (Bound::Included(from), Bound::Excluded(to)));
        while let Some((key, value)) = match order {
            Order::Ascending => range.next(),
            Order::Descending => range.next_back(),
        } {
            if !each(key, value) {
                break;
            }
        }
        Ok(())
    }
}

impl KvMut for MemoryKv {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Infallible> {
        self.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Infallible> {
        self.remove(key);
        Ok(())
    }
}
