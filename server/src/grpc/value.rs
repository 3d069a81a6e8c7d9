//! Metadata values, filters and vectors, from and to the wire.

use std::collections::BTreeMap;
use std::ops::Bound;

use diptych_index::{Comparison, Filter, Metadata, Value};
use diptych_proto::v1::compare::Operator;
use diptych_proto::v1::{self, ErrorReason};

use super::convert::count;
use crate::error::{Error, Result};

/// Longest metadata key in bytes.
pub(super) const KEY_BYTES: usize = 64;
/// Longest text of a metadata value in bytes.
pub(super) const TEXT_BYTES: usize = 4096;
/// Most texts of a list.
pub(super) const LIST_TEXTS: usize = 64;
/// Most values of `In`.
const MAX_IN_VALUES: usize = 128;
/// Deeper than any filter that passes: where reading stops.
const MAX_DEPTH: usize = diptych_index::filter::FILTER_MAX_DEPTH;

/// Metadata of an item that is put.
pub(super) fn metadata(wire: BTreeMap<String, v1::Value>) -> Result<Metadata> {
    let read = |(key, wire): (String, v1::Value)| {
        // A key becomes part of a path, so its length is checked before anything names it.
        check_key("metadata", &key)?;
        let read = value(wire).map_err(|error| error.inside(&format!("metadata.{key}")))?;
        Ok((key, read))
    };
    wire.into_iter().map(read).collect()
}

/// Metadata of a stored item.
pub(super) fn metadata_out(metadata: Metadata) -> BTreeMap<String, v1::Value> {
    metadata.into_iter().map(|(key, value)| (key, value_out(value))).collect()
}

fn value(wire: v1::Value) -> Result<Value> {
    use v1::value::Kind;
    let kind = wire.kind.ok_or_else(|| Error::field("", "has no kind set"))?;
    Ok(match kind {
        Kind::BoolValue(value) => Value::Bool(value),
        Kind::IntValue(value) => Value::Int(value),
        Kind::FloatValue(value) if value.is_finite() => Value::Float(value),
        Kind::FloatValue(_) => return Err(Error::field("float_value", "must be finite")),
        Kind::TextValue(value) if value.len() <= TEXT_BYTES => Value::String(value),
        Kind::TextValue(value) => {
            let sizes = ("bytes", TEXT_BYTES as u64, value.len() as u64);
            return Err(Error::limit(ErrorReason::FieldInvalid, "text_value", sizes));
        }
        Kind::TextList(list) if list.values.len() <= LIST_TEXTS => Value::Strings(list.values),
        Kind::TextList(list) => {
            let sizes = ("texts", LIST_TEXTS as u64, list.values.len() as u64);
            return Err(Error::limit(ErrorReason::FieldInvalid, "text_list", sizes));
        }
    })
}

fn value_out(value: Value) -> v1::Value {
    use v1::value::Kind;
    let kind = match value {
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Int(value) => Kind::IntValue(value),
        Value::Float(value) => Kind::FloatValue(value),
        Value::String(value) => Kind::TextValue(value),
        Value::Strings(values) => Kind::TextList(v1::TextList { values }),
    };
    v1::Value { kind: Some(kind) }
}

/// A filter; its depth, size and keys are checked.
pub(super) fn filter(wire: Option<v1::Filter>) -> Result<Option<Filter>> {
    let Some(wire) = wire else { return Ok(None) };
    let filter = condition(wire, 1)?;
    filter.check()?;
    Ok(Some(filter))
}

fn condition(wire: v1::Filter, depth: usize) -> Result<Filter> {
    use v1::filter::Condition;
    if depth > MAX_DEPTH {
        let sizes = ("levels", MAX_DEPTH as u64, depth as u64);
        return Err(Error::limit(ErrorReason::FilterTooLarge, "filter", sizes));
    }
    let all = |list: v1::FilterList| -> Result<Vec<Filter>> {
        list.filters.into_iter().map(|filter| condition(filter, depth + 1)).collect()
    };
    match wire.condition.ok_or_else(|| Error::field("filter", "has a node without a condition"))? {
        Condition::And(list) => Ok(Filter::And(all(list)?)),
        Condition::Or(list) => Ok(Filter::Or(all(list)?)),
        Condition::Not(inner) => Ok(Filter::Not(Box::new(condition(*inner, depth + 1)?))),
        Condition::Compare(compare) => comparison(compare),
        Condition::In(member) => {
            count("filter.in.values", "values", member.values.len(), MAX_IN_VALUES)?;
            let single = |value| single("filter.in.values", value);
            let values: Result<_> = member.values.into_iter().map(single).collect();
            Ok(Filter::In { field: key("filter.in.key", member.key)?, values: values? })
        }
        Condition::Exists(exists) => {
            Ok(Filter::Exists { field: key("filter.exists.key", exists.key)? })
        }
        Condition::Range(range) => between(range),
    }
}

fn comparison(wire: v1::Compare) -> Result<Filter> {
    let operator = Operator::try_from(wire.operator)
        .map_err(|_| Error::field("filter.compare.operator", "is unknown"))?;
    let value = wire.value.ok_or_else(|| Error::field("filter.compare.value", "is required"))?;
    let field = key("filter.compare.key", wire.key)?;
    let value = single("filter.compare.value", value)?;
    let op = match operator {
        Operator::Unspecified | Operator::Equal => Comparison::Eq,
        Operator::NotEqual => Comparison::Ne,
        Operator::Less => Comparison::Lt,
        Operator::LessOrEqual => Comparison::Le,
        Operator::Greater => Comparison::Gt,
        Operator::GreaterOrEqual => Comparison::Ge,
    };
    Ok(Filter::Compare { field, op, value })
}

fn between(wire: v1::Range) -> Result<Filter> {
    let bound = |end: Option<f64>| match end {
        Some(end) if !end.is_finite() => Err(Error::field("filter.range", "must be finite")),
        Some(end) => Ok(Bound::Included(Value::Float(end))),
        None => Ok(Bound::Unbounded),
    };
    if wire.at_least.is_none() && wire.at_most.is_none() {
        return Err(Error::field("filter.range", "needs at_least or at_most"));
    }
    Ok(Filter::Range {
        min: bound(wire.at_least)?,
        max: bound(wire.at_most)?,
        field: key("filter.range.key", wire.key)?,
    })
}

/// A value that is compared: a list is none.
fn single(field: &str, wire: v1::Value) -> Result<Value> {
    match value(wire).map_err(|error| error.inside(field))? {
        Value::Strings(_) => Err(Error::field(field, "must be a single value, not a list")),
        value => Ok(value),
    }
}

fn key(field: &str, key: String) -> Result<String> {
    check_key(field, &key)?;
    Ok(key)
}

fn check_key(field: &str, key: &str) -> Result<()> {
    match key.len() {
        0 => Err(Error::field(field, format!("a key is empty, must have 1 to {KEY_BYTES} bytes"))),
        1..=KEY_BYTES => Ok(()),
        length => {
            let sizes = ("bytes of a key", KEY_BYTES as u64, length as u64);
            Err(Error::limit(ErrorReason::FieldInvalid, field, sizes))
        }
    }
}

/// A vector of any dimension; `field` is its path.
pub(super) fn vector(field: &str, wire: v1::Vector) -> Result<Vec<f32>> {
    use v1::vector::Values;
    let wrong = |text: String| Error::field_for(ErrorReason::VectorInvalid, field, text);
    let values = match wire.values.ok_or_else(|| Error::field(field, "has no values"))? {
        Values::Floats(list) => list.values,
        Values::PackedF32(bytes) => {
            let (chunks, rest) = bytes.as_chunks::<4>();
            if !rest.is_empty() {
                return Err(wrong(format!(
                    "packed_f32 has {} bytes, no multiple of 4",
                    bytes.len()
                )));
            }
            chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
        }
    };
    let told = wire.dimension as usize;
    if told != 0 && told != values.len() {
        return Err(Error::field_for(
            ErrorReason::DimensionMismatch,
            field,
            format!("dimension is {told}, but there are {} values", values.len()),
        ));
    }
    if let Some(place) = values.iter().position(|value| !value.is_finite()) {
        return Err(wrong(format!("component {place} is not finite")));
    }
    if values.iter().all(|value| *value == 0.0) {
        return Err(wrong("is empty or all zeros".to_owned()));
    }
    Ok(values)
}

/// A vector as replies carry it.
pub(super) fn vector_out(vector: &[f32]) -> v1::Vector {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    v1::Vector {
        dimension: u32::try_from(vector.len()).unwrap_or(u32::MAX),
        values: Some(v1::vector::Values::PackedF32(bytes.into())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (-1e300..1e300_f64).prop_map(Value::Float),
            "\\PC{0,40}".prop_map(Value::String),
            prop::collection::vec("\\PC{0,8}", 0..5).prop_map(Value::Strings),
        ]
    }

    proptest! {
        #[test]
        fn metadata_comes_back_as_it_went(
            values in prop::collection::btree_map("[a-z]{1,8}", any_value(), 0..6),
        ) {
            prop_assert_eq!(metadata(metadata_out(values.clone())).unwrap(), values);
        }

        #[test]
        fn a_vector_comes_back_as_it_went(values in prop::collection::vec(0.5_f32..2.0, 1..50)) {
            prop_assert_eq!(vector("vector", vector_out(&values)).unwrap(), values);
        }
    }

    #[test]
    fn a_filter_of_the_largest_size_may_say_not_equal_and_list_as_many_values_as_promised() {
        use v1::filter::Condition;
        let compare = v1::Compare {
            key: "a".to_owned(),
            operator: Operator::NotEqual.into(),
            value: Some(value_out(Value::Int(1))),
        };
        let member =
            v1::In { key: "a".to_owned(), values: vec![value_out(Value::Int(1)); MAX_IN_VALUES] };
        let node = |condition| v1::Filter { condition: Some(condition) };
        let mut filters = vec![node(Condition::Compare(compare)); 126];
        filters.push(node(Condition::In(member)));
        let all = filter(Some(node(Condition::And(v1::FilterList { filters }))));
        let lacks_the_key = Metadata::new();
        assert!(!all.unwrap().unwrap().matches(&lacks_the_key));
    }
}
