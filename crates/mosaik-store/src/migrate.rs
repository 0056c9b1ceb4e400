//! From older schemas to this one, a function a version.

use redb::{Database, WriteTransaction};

use crate::{
    fault::StoreError,
    tables::{Bytes, META_SCHEMA},
};

/// The schema that this program writes.
pub const SCHEMA: u32 = 1;

type Step = fn(&WriteTransaction) -> Result<(), StoreError>;

/// `STEPS[v - 1]` makes schema `v + 1` of schema `v`.
const STEPS: [Step; SCHEMA as usize - 1] = [];

/// Brings a store from schema `found` to [`SCHEMA`], each step in a transaction of its own.
pub(crate) fn migrate(database: &Database, found: u32) -> Result<(), StoreError> {
    for (version, step) in (1..).zip(STEPS).skip_while(|(version, _)| *version < found) {
        let transaction = database.begin_write()?;
        step(&transaction)?;
        set_schema(&transaction, version + 1)?;
        transaction.commit()?;
        tracing::info!(schema = version + 1, "store migrated");
    }
    Ok(())
}

/// Notes the schema.
pub(crate) fn set_schema(transaction: &WriteTransaction, schema: u32) -> Result<(), StoreError> {
    let meta = redb::TableDefinition::<Bytes, Bytes>::new("meta");
    transaction.open_table(meta)?.insert(META_SCHEMA, schema.to_le_bytes().as_slice())?;
    Ok(())
}
