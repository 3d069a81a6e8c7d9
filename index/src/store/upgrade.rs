//! What a start does to a store before anyone reads it: an older format is brought up to date, and
//! collections that were being made when the process died are removed. Both can be cut off by a
//! crash at any moment and are done again.

use super::{
    HIDDEN, Store,
    env::is_map_full,
    write::{Unused, WriteTxn},
};
use crate::error::Result;

/// Format 1 had no log of changes: it is written from the items. Deletes of before are not known.
pub(super) fn write_log(store: &Store) -> Result<()> {
    tracing::info!("bringing the store to the present format");
    with_room(store, |txn| {
        let collections = store.collections(&txn.txn)?;
        for (record, sequence) in collections {
            let mut puts = Vec::new();
            for row in store.items_after(&txn.txn, record.id, None)? {
                let (id, item) = row?;
                puts.push((id, item.version));
            }
            for (id, version) in &puts {
                txn.log_put(record.id, (id, *version))?;
            }
            txn.put_log_floor(record.id, sequence)?;
        }
        Ok(())
    })
}

/// Removes collections that are not whole.
pub(super) fn remove_hidden(store: &Store) -> Result<()> {
    let collections = {
        let txn = store.read()?;
        store.collections(&txn)?
    };
    for (record, _) in collections {
        if record.spec.name.starts_with(HIDDEN) {
            tracing::info!("removing a collection whose restoring was cut off");
            with_room(store, |txn| txn.drop_collection(&record.spec.name, record.id))?;
        }
    }
    Ok(())
}

/// Runs `work` in a transaction of its own, again with a larger map as long as it is full.
fn with_room(store: &Store, work: impl Fn(&mut WriteTxn<'_>) -> Result<()>) -> Result<()> {
    let attempt = || {
        let mut txn = store.write()?;
        work(&mut txn)?;
        txn.commit(Unused::Keep)
    };
    loop {
        match attempt() {
            Err(error) if is_map_full(&error) => store.grow()?,
            done => return done,
        }
    }
}
