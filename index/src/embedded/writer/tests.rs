use std::path::Path;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use super::*;
use crate::{
    embedded::{prepare::prepare, read},
    engine::{Fields, PutBatch, Selection},
    types::{Dims, ItemId, Metadata, Modality, NewItem, Vectors},
};

/// Long enough to lie in a file of its own.
const LARGE: usize = 100_000;

fn writer(folder: &Path) -> Writer {
    let mut writer = Writer {
        store: Arc::new(Store::open(folder, 1 << 20).unwrap()),
        collections: Arc::new(ArcSwap::default()),
        aliases: Arc::new(ArcSwap::default()),
        states: HashMap::new(),
        orders: mpsc::channel().0,
        files: Arc::new(Files::open(folder.join("index"), &[])),
        exact_below: usize::MAX,
        idle_after: Duration::MAX,
        last_write: Instant::now(),
        now_ms: || 0,
        settling: Vec::new(),
        compacting: Vec::new(),
        refused: Arc::new(AtomicBool::new(false)),
        reserve: Reserve::open(folder, 64 << 10),
        probed: Instant::now(),
    };
    let dims = Dims { shared: Some(2), exclusive_image: None, exclusive_text: None };
    let spec = CollectionSpec::new("things", dims);
    let (reply, _answer) = reply();
    writer.write(vec![Write::Create { spec, reply }], Unused::Remove);
    writer
}

fn reply<T>() -> (Reply<T>, oneshot::Receiver<Result<T>>) {
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let (sender, answer) = oneshot::channel();
    (Reply { sender, permit }, answer)
}

fn things(writer: &Writer) -> Arc<Collection> {
    Arc::clone(&writer.collections.load()["things"])
}

fn put(
    writer: &Writer,
    id: &str,
    source: Vec<u8>,
) -> (Write, oneshot::Receiver<Result<PutOutcome>>) {
    let item = NewItem {
        id: ItemId::trusted(id),
        modality: Modality::Image,
        group: None,
        metadata: Metadata::new(),
        source: Some(source),
        vectors: Vectors { shared: Some(vec![1.0, 0.0]), exclusive: None },
        expected_version: None,
    };
    let batch = PutBatch { items: vec![item], ..PutBatch::default() };
    let collection = things(writer);
    let batch = prepare(&writer.store, &collection, batch).unwrap();
    let (reply, answer) = reply();
    (Write::Put { collection, batch, reply }, answer)
}

/// A source, and a plain file in the way of the folder that it would lie in.
fn hindered(folder: &Path) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let bytes = vec![9; LARGE];
    let name = hex::encode(Sha256::digest(&bytes));
    std::fs::write(folder.join("sources").join(&name[..2]), "in the way").unwrap();
    bytes
}

#[test]
fn a_write_that_is_tried_alone_keeps_the_file_that_one_before_it_freed() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path());
    let (first, answer) = put(&writer, "x", vec![7; LARGE]);
    writer.write(vec![first], Unused::Remove);
    assert!(answer.blocking_recv().unwrap().is_ok());

    let collection = things(&writer);
    let selection = Selection::Ids(vec![ItemId::trusted("x")]);
    let (deleted, _answer) = reply();
    let delete = Write::Delete {
        collection: Arc::clone(&collection),
        batch: DeleteBatch { selection, expected_count: None, request: None },
        reply: deleted,
    };
    let (same, stored) = put(&writer, "y", vec![7; LARGE]);
    let (bad, refused) = put(&writer, "z", hindered(folder.path()));
    writer.write(vec![delete, same, bad], Unused::Remove);
    assert!(stored.blocking_recv().unwrap().is_ok());
    let refused = refused.blocking_recv().unwrap().unwrap_err();
    assert!(matches!(refused, Error::NotCommitted { kind: Kind::Unavailable, .. }), "{refused}");

    let fields = Fields { source: true, vectors: false };
    let found = read::item(&writer.store, &collection, &ItemId::trusted("y"), fields).unwrap();
    assert_eq!(found.unwrap().source, Some(vec![7; LARGE]));
}

#[test]
fn a_disk_that_refused_is_asked_again_by_itself_and_by_the_next_write() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path());
    let refused = Arc::clone(&writer.refused);
    for by_itself in [true, false] {
        let (bad, _answer) = put(&writer, "z", hindered(folder.path()));
        writer.write(vec![bad], Unused::Remove);
        assert!(refused.load(Ordering::Relaxed));
        if by_itself {
            writer.probe();
        } else {
            let (good, _answer) = put(&writer, "a", vec![1]);
            writer.write(vec![good], Unused::Remove);
        }
        assert!(!refused.load(Ordering::Relaxed));
    }
}

fn delete(writer: &Writer, id: &str) -> (Write, oneshot::Receiver<Result<DeleteOutcome>>) {
    let selection = Selection::Ids(vec![ItemId::trusted(id)]);
    let batch = DeleteBatch { selection, expected_count: None, request: None };
    let (reply, answer) = reply();
    (Write::Delete { collection: things(writer), batch, reply }, answer)
}

#[test]
fn on_a_full_disk_a_delete_takes_the_reserve_and_puts_wait_until_it_is_filled_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path());
    let (first, _answer) = put(&writer, "a", vec![1]);
    writer.write(vec![first], Unused::Remove);
    let full = Some(ErrorKind::StorageFull);

    // Nothing of the disk but the reserve is left: commits fail for as long as it is there.
    *writer.store.fault.next.lock() = full;
    let (bad, refused) = put(&writer, "b", vec![2]);
    writer.write(vec![bad], Unused::Remove);
    let told = refused.blocking_recv().unwrap().unwrap_err();
    assert_eq!(told.kind(), Kind::Full, "{told}");
    assert!(writer.refused.load(Ordering::Relaxed) && !writer.reserve.is_spent());

    *writer.store.fault.next.lock() = None;
    assert!(writer.reserve.spend());
    let (bad, refused) = put(&writer, "b", vec![2]);
    let (good, deleted) = delete(&writer, "a");
    writer.write(vec![bad, good], Unused::Remove);
    assert_eq!(refused.blocking_recv().unwrap().unwrap_err().kind(), Kind::Full);
    assert_eq!(deleted.blocking_recv().unwrap().unwrap().deleted, 1);
    assert!(writer.refused.load(Ordering::Relaxed), "the reserve is spent still");

    writer.probe();
    assert!(!writer.refused.load(Ordering::Relaxed) && !writer.reserve.is_spent());
    let (good, answer) = put(&writer, "b", vec![2]);
    writer.write(vec![good], Unused::Remove);
    assert!(answer.blocking_recv().unwrap().is_ok());
}

#[test]
fn a_disk_that_turns_read_only_refuses_all_writes_with_a_reason_until_it_takes_them_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path());
    let (first, _answer) = put(&writer, "a", vec![1]);
    writer.write(vec![first], Unused::Remove);
    *writer.store.fault.next.lock() = Some(ErrorKind::ReadOnlyFilesystem);
    let (bad, refused) = put(&writer, "b", vec![2]);
    let (also, refused_delete) = delete(&writer, "a");
    writer.write(vec![bad, also], Unused::Remove);
    assert_eq!(refused.blocking_recv().unwrap().unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(refused_delete.blocking_recv().unwrap().unwrap_err().kind(), Kind::Unavailable);
    assert!(!writer.reserve.is_spent(), "the reserve is for a full disk");
    let fields = Fields::default();
    let read = read::item(&writer.store, &things(&writer), &ItemId::trusted("a"), fields);
    assert!(read.unwrap().is_some(), "reads go on");
    writer.probe();
    assert!(writer.refused.load(Ordering::Relaxed));
    *writer.store.fault.next.lock() = None;
    writer.probe();
    assert!(!writer.refused.load(Ordering::Relaxed));
}
