use proptest::prelude::*;

use super::{
    key::{self, Slot},
    record::{self, ItemRecord, SourceRef},
};
use crate::types::{Metadata, Modality, Space, Value};

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
        let value = record::encode_vector(b"key", &vector);
        let mut back = Vec::new();
        prop_assert!(record::decode_vector((b"key", &value), vector.len(), &mut back).is_ok());
        prop_assert_eq!(&back, &vector);
        prop_assert!(record::decode_vector((b"key", &value), vector.len() + 1, &mut back).is_err());
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
fn slots_name_each_pair_once() {
    for (i, slot) in Slot::ALL.into_iter().enumerate() {
        assert_eq!(slot.index(), i);
        assert_eq!(Slot::new(slot.modality(), slot.space()), slot);
    }
    assert_eq!(Slot::new(Modality::Text, Space::Shared).index(), 2);
}
