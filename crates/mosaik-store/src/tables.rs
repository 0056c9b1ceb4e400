//! The tables of the file, and the two ways to have them open.
//!
//! All are opened once a transaction. What reads works on either kind, so that a batch sees its own
//! writes by the same code that serves everyone else.

use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, TableError,
    WriteTransaction,
};

pub(crate) type Bytes = &'static [u8];
pub(crate) type Id = &'static [u8; 32];

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident: $key:ty => $value:ty;)*) => {
        /// Open tables, to read.
        pub(crate) trait Tables {
            $($(#[$doc])* fn $name(&self) -> &impl ReadableTable<$key, $value>;)*
        }

        /// Open in a write transaction.
        pub(crate) struct WriteTables<'txn> {
            $($(#[$doc])* pub(crate) $name: Table<'txn, $key, $value>,)*
        }

        impl<'txn> WriteTables<'txn> {
            /// Opens all, making those that are not there.
            pub(crate) fn open(transaction: &'txn WriteTransaction) -> Result<Self, TableError> {
                Ok(Self {
                    $($name: transaction.open_table(
                        TableDefinition::<$key, $value>::new(stringify!($name)),
                    )?,)*
                })
            }
        }

        impl Tables for WriteTables<'_> {
            $(fn $name(&self) -> &impl ReadableTable<$key, $value> {
                &self.$name
            })*
        }

        /// Open in a snapshot.
        pub(crate) struct ReadTables {
            $($name: ReadOnlyTable<$key, $value>,)*
        }

        impl ReadTables {
            pub(crate) fn open(transaction: &ReadTransaction) -> Result<Self, TableError> {
                Ok(Self {
                    $($name: transaction.open_table(
                        TableDefinition::<$key, $value>::new(stringify!($name)),
                    )?,)*
                })
            }
        }

        impl Tables for ReadTables {
            $(fn $name(&self) -> &impl ReadableTable<$key, $value> {
                &self.$name
            })*
        }
    };
}

tables! {
    /// Name -> bytes. Names with a dot in front are the store's own.
    meta: Bytes => Bytes;
    /// Branch -> author, branch and seq of the parent (0 and 0 for none), seq and id of the tip.
    branches: u32 => (Id, u32, u64, u64, Id);
    /// Branch and first seq -> a block.
    blocks: (u32, u64) => Bytes;
    /// Branch and seq -> the author's signature over that event's id.
    signatures: (u32, u64) => &'static [u8; 64];
    /// Running number -> branch, first and last seq, when received in Unix ms, way.
    arrivals: u64 => (u32, u64, u64, u64, u8);
    /// Author, branch, seq and id of an event whose payload is not here.
    missing: (Id, u32, u64, Id) => ();
    /// Stamp, branch and seq of an event that waits outside the view.
    held: (u64, u32, u64) => ();
    /// The view, as the fold lays it out.
    view: Bytes => Bytes;
}

/// Schema version, 4 bytes little-endian.
pub(crate) const META_SCHEMA: &[u8] = b".schema";
/// Fingerprint of the network, 32 bytes.
pub(crate) const META_NETWORK: &[u8] = b".network";
/// How many events all blocks hold, 8 bytes little-endian.
pub(crate) const META_EVENTS: &[u8] = b".events";
