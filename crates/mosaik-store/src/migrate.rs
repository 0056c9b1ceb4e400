//! From older schemas to this one, a function a version.
//!
//! Invariants:
//! - Before the first step the file is copied, whole and synced; there is room for that and for the
//!   steps, or nothing is done. The copy stays until a node that has run on the new schema stops cleanly.
//! - A step and the number of its schema are one transaction. Cut off anywhere, the next start goes on.

use redb::{Database, TableDefinition, WriteTransaction};

use crate::{
    fault::StoreError,
    tables::{Bytes, Id, META_SCHEMA},
};

/// The schema that this program writes.
pub const SCHEMA: u32 = 2;

type Step = fn(&WriteTransaction) -> Result<(), StoreError>;

/// `STEPS[v - 1]` makes schema `v + 1` of schema `v`.
const STEPS: [Step; SCHEMA as usize - 1] = [without_peers];

/// Brings a store from schema `found` to [`SCHEMA`], each step in a transaction of its own.
pub(crate) fn migrate(database: &Database, found: u32) -> Result<(), StoreError> {
    for (version, step) in (1..).zip(STEPS).skip_while(|(version, _)| *version < found) {
        tracing::info!(from = version, to = version + 1, of = SCHEMA, "store migration: a step");
        let transaction = database.begin_write()?;
        step(&transaction)?;
        set_schema(&transaction, version + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Schema 2: the table `peers` is gone. Nobody ever wrote to it; the peer book is a value in `meta`.
fn without_peers(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.delete_table(TableDefinition::<Id, Bytes>::new("peers"))?;
    Ok(())
}

/// Notes the schema.
pub(crate) fn set_schema(transaction: &WriteTransaction, schema: u32) -> Result<(), StoreError> {
    let meta = TableDefinition::<Bytes, Bytes>::new("meta");
    transaction.open_table(meta)?.insert(META_SCHEMA, schema.to_le_bytes().as_slice())?;
    Ok(())
}
