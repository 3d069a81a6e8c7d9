use proptest::prelude::*;

use super::{
    Store,
    changes::DELETES_MAX,
    key::{self, Slot},
    record::{self, ItemRecord, SourceRef},
    write::Unused,
};
use crate::{
    encoding,
    types::{Dims, ItemId, Metadata, Modality, Space, Value, VectorStorage},
};

fn record() -> impl Strategy<Value = ItemRecord> {
    let value = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-1e9..1e9_f64).prop_map(Value::Float),
        ".{0,20}".prop_map(Value::String),
        proptest::collection::vec(".{0,8}", 0..4).prop_map(Value::Strings),
    ];
    let metadata = proptest::collection::btree_map("[a-z]{1,8}", value, 0..5);
    let source = prop_oneof![
        Just(SourceRef::None),
        any::<u64>().prop_map(|bytes| SourceRef::Inline { bytes }),
        (any::<[u8; 32]>(), any::<u64>())
            .prop_map(|(digest, bytes)| SourceRef::File { digest, bytes }),
    ];
    (any::<u64>(), any::<bool>(), proptest::option::of(".{1,20}"), metadata, source).prop_map(
        |(version, image, group, metadata, source): (_, _, _, Metadata, _)| ItemRecord {
            version,
            modality: if image { Modality::Image } else { Modality::Text },
            group,
            metadata,
            source,
            created_at_ms: version / 2,
            updated_at_ms: version,
        },
    )
}

proptest! {
    #[test]
    fn records_round_trip_and_any_flipped_byte_is_noticed(
        record in record(),
        flip in any::<prop::sample::Index>(),
        by in 1_u8..,
    ) {
        let mut value = record::encode(b"key", &record).unwrap();
        prop_assert_eq!(record::decode::<ItemRecord>(b"key", &value), Ok(record));
        prop_assert!(record::decode::<ItemRecord>(b"kez", &value).is_err());
        let at = flip.index(value.len());
        value[at] ^= by;
        prop_assert!(record::decode::<ItemRecord>(b"key", &value).is_err());
    }

    #[test]
    fn vectors_round_trip(vector in proptest::collection::vec(-1.0_f32..1.0, 1..64)) {
        for storage in [VectorStorage::F32, VectorStorage::I16, VectorStorage::I8] {
            let rounded = encoding::rounded(storage, &vector);
            let value = record::encode_vector(b"key", &rounded, storage);
            let mut back = Vec::new();
            prop_assert!(record::decode_vector((b"key", &value), vector.len(), &mut back).is_ok());
            prop_assert_eq!(&back, &rounded);
            // One more could be a short vector in another form; a collection has one length and one form.
            let dims = vector.len() + 2;
            prop_assert!(record::decode_vector((b"key", &value), dims, &mut back).is_err());
        }
    }

    #[test]
    fn a_collection_of_the_form_before_is_read(created_at_ms in any::<u64>(), words in ".{0,9}") {
        #[derive(serde::Serialize)]
        struct Before<'a>(u32, (&'a str, Option<&'a str>, Dims, bool, &'a str), u64);
        let dims = Dims { shared: Some(3), exclusive_image: None, exclusive_text: Some(200) };
        let before = Before(7, ("things", Some("abc"), dims, true, &words), created_at_ms);
        let value = record::encode(b"things", &before).unwrap();
        let read = record::decode_collection(b"things", &value).unwrap();
        prop_assert_eq!((read.id, read.created_at_ms), (7, created_at_ms));
        prop_assert_eq!(read.spec.storage, VectorStorage::F32);
        prop_assert_eq!(&read.spec.description, &words);
        let value = record::encode(b"things", &read).unwrap();
        let again = record::decode_collection(b"things", &value).unwrap();
        prop_assert_eq!((again.spec, again.created_at_ms), (read.spec, created_at_ms));
    }

    #[test]
    fn keys_sort_as_their_numbers_do(a in any::<(u32, u64)>(), b in any::<(u32, u64)>()) {
        let slot = Slot::ALL[1];
        let (x, y) = (key::vector(a.0, slot, a.1), key::vector(b.0, slot, b.1));
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        prop_assert_eq!(key::source(a.0, a.1).cmp(&key::source(b.0, b.1)), a.cmp(&b));
    }
}

#[test]
fn the_log_keeps_the_latest_deletes_and_says_how_far_the_others_reached() {
    const SURPLUS: u64 = 10;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), 64 << 20).unwrap();
    let mut txn = store.write().unwrap();
    for sequence in 1..=DELETES_MAX + SURPLUS {
        txn.log_delete(1, (&ItemId::trusted("a"), 0), sequence).unwrap();
    }
    txn.log_delete(2, (&ItemId::trusted("b"), 0), 1).unwrap();
    txn.commit(Unused::Keep).unwrap();
    let read = store.read().unwrap();
    let log = store.log(&read, 1).unwrap();
    assert_eq!((log.deletes, log.floor), (DELETES_MAX, SURPLUS));
    let oldest = store.changes(&read, 1, (0, 1)).unwrap();
    assert_eq!(oldest[0].sequence, SURPLUS + 1);
    let other = store.log(&read, 2).unwrap();
    assert_eq!((other.deletes, other.floor), (1, 0));
}

#[test]
fn slots_name_each_pair_once() {
    for (i, slot) in Slot::ALL.into_iter().enumerate() {
        assert_eq!(slot.index(), i);
        assert_eq!(Slot::new(slot.modality(), slot.space()), slot);
    }
    assert_eq!(Slot::new(Modality::Text, Space::Shared).index(), 2);
}
