//! Filters: from the wire, checked, and answered over rows by sets as by looking at each row.

use std::sync::OnceLock;

use diptych_index::{Metadata, Value, fuzzing};
use diptych_proto::v1;
use diptych_proto::v1::filter::Condition;
use diptych_server::grpc::fuzzing as wire;
use prost::Message as _;

/// Rows of every type of value, and their extremes.
fn rows() -> &'static [Metadata] {
    static ROWS: OnceLock<Vec<Metadata>> = OnceLock::new();
    ROWS.get_or_init(|| {
        let texts = |all: &[&str]| Value::Strings(all.iter().map(ToString::to_string).collect());
        let values = [
            Value::Bool(true),
            Value::Bool(false),
            Value::Int(0),
            Value::Int(i64::MAX),
            Value::Int(i64::MIN),
            Value::Int((1 << 53) + 1),
            Value::Float(0.5),
            Value::Float(-0.0),
            Value::Float(f64::MAX),
            Value::Float(9_223_372_036_854_775_808.0),
            Value::String(String::new()),
            Value::String("x".to_owned()),
            texts(&[]),
            texts(&["x", "y"]),
            texts(&["x", "x"]),
        ];
        let mut rows: Vec<Metadata> = values
            .iter()
            .zip(values.iter().cycle().skip(4))
            .map(|(a, b)| [("a".to_owned(), a.clone()), ("b".to_owned(), b.clone())].into())
            .collect();
        rows.push(Metadata::new());
        rows
    })
}

/// A filter that passes its checks is answered; with the metadata of an item, which may be made to fit it, as one more row.
pub fn filter(data: &[u8]) {
    let (length, rest) = crate::choice(data);
    let (item, filter) = rest.split_at(rest.len().min(length));
    let Ok(Some(filter)) = wire::filter(filter) else { return };
    let mut rows = rows().to_vec();
    rows.extend(wire::metadata(item));
    assert!(fuzzing::sets_agree(&filter, &rows), "{filter:?}");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let node = |condition| v1::Filter { condition: Some(condition) };
    let value = |kind| Some(v1::Value { kind: Some(kind) });
    let key = || "a".to_owned();
    let compare = |operator, kind| {
        node(Condition::Compare(v1::Compare { key: key(), operator, value: value(kind) }))
    };
    use v1::value::Kind;
    let leaves = [
        compare(1, Kind::IntValue(0)),
        compare(2, Kind::FloatValue(0.5)),
        compare(3, Kind::TextValue("x".to_owned())),
        compare(6, Kind::IntValue(i64::MAX)),
        compare(1, Kind::BoolValue(true)),
        node(Condition::Exists(v1::Exists { key: "b".to_owned() })),
        node(Condition::In(v1::In {
            key: key(),
            values: vec![v1::Value { kind: Some(Kind::IntValue(3)) }; 3],
        })),
        node(Condition::Range(v1::Range { key: key(), at_least: Some(-1.0), at_most: Some(1e18) })),
    ];
    let list = || v1::FilterList { filters: leaves.to_vec() };
    let trees = [
        node(Condition::And(list())),
        node(Condition::Or(list())),
        node(Condition::Not(Box::new(node(Condition::Or(list()))))),
    ];
    let metadata = [("a".to_owned(), v1::Value { kind: Some(Kind::FloatValue(3.0)) })].into();
    let item = v1::ItemInput { metadata, ..Default::default() }.encode_to_vec();
    let seed = |filter: &v1::Filter| {
        [&[item.len() as u8], item.as_slice(), &filter.encode_to_vec()].concat()
    };
    leaves.iter().chain(&trees).map(seed).collect()
}
