use proptest::prelude::*;

use super::*;
use crate::{
    embedded::Entry,
    types::{ItemId, Modality},
};

const NAMES: [&str; 3] = ["a", "b", "c"];

fn text() -> impl Strategy<Value = String> {
    "[xyz]{0,2}"
}

fn single() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        (-3..3_i64).prop_map(Value::Int),
        prop_oneof![Just(i64::MAX), Just(i64::MIN), Just(1 << 53)].prop_map(Value::Int),
        (-6..6_i32).prop_map(|half| Value::Float(f64::from(half) / 2.0)),
        prop_oneof![Just(9_223_372_036_854_775_808.0), Just(-1e300), Just(-0.0)]
            .prop_map(Value::Float),
        text().prop_map(Value::String),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => single(),
        1 => proptest::collection::vec(text(), 0..4).prop_map(Value::Strings),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Value>> {
    let ordered = || single().prop_filter("has an order", |v| !matches!(v, Value::Bool(_)));
    prop_oneof![
        1 => Just(Bound::Unbounded),
        2 => ordered().prop_map(Bound::Included),
        2 => ordered().prop_map(Bound::Excluded),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("a"), Just("b"), Just("c"), Just("d")].prop_map(str::to_owned)
}

fn filter() -> impl Strategy<Value = Filter> {
    let op = prop_oneof![
        Just(Comparison::Eq),
        Just(Comparison::Ne),
        Just(Comparison::Lt),
        Just(Comparison::Le),
        Just(Comparison::Gt),
        Just(Comparison::Ge),
    ];
    let leaf = prop_oneof![
        (name(), op, single()).prop_map(|(field, op, value)| Filter::Compare { field, op, value }),
        (name(), proptest::collection::vec(single(), 0..4))
            .prop_map(|(field, values)| Filter::In { field, values }),
        name().prop_map(|field| Filter::Exists { field }),
        (name(), bound(), bound()).prop_map(|(field, min, max)| Filter::Range { field, min, max }),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::And),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::Or),
            inner.prop_map(|part| Filter::Not(Box::new(part))),
        ]
    })
}

fn entry(row: usize, fields: Vec<Option<Value>>) -> Arc<Entry> {
    let named = NAMES.iter().zip(fields);
    let fields = named.filter_map(|(name, value)| Some((Arc::from(*name), value?))).collect();
    let id = ItemId::trusted(&row.to_string());
    Arc::new(Entry::new(id, None, Modality::Image, row as u64, fields))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn sets_give_the_rows_that_pass_one_by_one(
        rows in proptest::collection::vec(
            proptest::collection::vec(proptest::option::weighted(0.8, value()), 3), 0..40),
        filter in filter(),
    ) {
        // Booleans have no order; such a filter is refused before it comes here.
        prop_assume!(filter.check().is_ok());
        let entries: Vec<_> = rows.into_iter().enumerate().map(|(i, f)| entry(i, f)).collect();
        let passing = entries.iter().enumerate().filter(|(_, entry)| filter.passes(entry.as_ref()));
        let passing: Vec<u32> = passing.map(|(row, _)| row as u32).collect();
        let found: Vec<u32> = Sets::new(&entries).rows(&filter).iter().collect();
        prop_assert_eq!(found, passing);
    }
}

#[test]
fn values_of_many_rows_and_of_one_are_found() {
    let entries: Vec<_> = (0..1000)
        .map(|row| {
            entry(row, vec![Some(Value::Int(row as i64 / 100)), Some(Value::Int(row as i64))])
        })
        .collect();
    let sets = Sets::new(&entries);
    let eq = |field: &str, value| Filter::Compare {
        field: field.to_owned(),
        op: Comparison::Eq,
        value: Value::Int(value),
    };
    assert_eq!(sets.rows(&eq("a", 3)).iter().collect::<Vec<_>>(), (300..400).collect::<Vec<_>>());
    assert_eq!(sets.rows(&eq("b", 77)).iter().collect::<Vec<_>>(), [77]);
    assert_eq!(sets.rows(&eq("b", 1000)).len(), 0);
}
