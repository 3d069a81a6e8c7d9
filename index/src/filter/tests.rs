use std::ops::Bound;

use super::*;

fn metadata() -> Metadata {
    Metadata::from([
        ("lang".to_owned(), Value::String("de".to_owned())),
        ("year".to_owned(), Value::Int(2024)),
        ("size".to_owned(), Value::Float(1.5)),
        ("public".to_owned(), Value::Bool(true)),
        ("tags".to_owned(), Value::Strings(vec!["red".to_owned(), "heart".to_owned()])),
    ])
}

fn compare(field: &str, op: Comparison, value: Value) -> Filter {
    Filter::Compare { field: field.to_owned(), op, value }
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn check(filter: &Filter, expected: bool) {
    filter.check().unwrap();
    assert_eq!(filter.matches(&metadata()), expected, "{filter:?}");
    let negated = Filter::Not(Box::new(filter.clone()));
    assert_eq!(negated.matches(&metadata()), !expected, "{filter:?}");
}

#[test]
fn compares_by_type() {
    use Comparison::{Eq, Ge, Gt, Le, Lt, Ne};
    for (field, op, value, expected) in [
        ("lang", Eq, text("de"), true),
        ("lang", Eq, text("en"), false),
        ("lang", Ne, text("en"), true),
        ("lang", Lt, text("en"), true),
        ("lang", Eq, Value::Int(1), false),
        ("lang", Ne, Value::Int(1), false),
        ("year", Ne, Value::Float(2024.0), false),
        ("year", Ne, Value::Float(2024.5), true),
        ("year", Gt, Value::Int(2023), true),
        ("year", Le, Value::Float(2024.0), true),
        ("year", Lt, Value::Float(2024.5), true),
        ("size", Ge, Value::Int(2), false),
        ("size", Gt, Value::Int(1), true),
        ("public", Eq, Value::Bool(true), true),
        ("public", Ne, Value::Bool(true), false),
        ("tags", Eq, text("heart"), true),
        ("tags", Eq, text("blue"), false),
        ("tags", Ne, text("red"), true),
        ("tags", Ne, Value::Int(1), false),
        ("missing", Eq, text("x"), false),
        ("missing", Ne, text("x"), false),
    ] {
        check(&compare(field, op, value), expected);
    }
}

#[test]
fn whole_numbers_beyond_the_precision_of_floats_compare_exactly() {
    let edge = (1_i64 << 53) + 1;
    let fields = Metadata::from([("n".to_owned(), Value::Int(edge))]);
    let float = Value::Float((1_i64 << 53) as f64);
    assert!(compare("n", Comparison::Gt, float.clone()).matches(&fields));
    assert!(!compare("n", Comparison::Eq, float).matches(&fields));
    let fields = Metadata::from([("n".to_owned(), Value::Int(i64::MAX))]);
    assert!(compare("n", Comparison::Lt, Value::Float(1e300)).matches(&fields));
    assert!(compare("n", Comparison::Gt, Value::Float(-1e300)).matches(&fields));
}

#[test]
fn connects_lists_and_ranges() {
    let de = compare("lang", Comparison::Eq, text("de"));
    let old = compare("year", Comparison::Lt, Value::Int(2000));
    check(&Filter::And(vec![]), true);
    check(&Filter::Or(vec![]), false);
    check(&Filter::And(vec![de.clone(), old.clone()]), false);
    check(&Filter::Or(vec![old, de]), true);
    check(&Filter::Exists { field: "tags".to_owned() }, true);
    check(&Filter::Exists { field: "none".to_owned() }, false);
    let one_of = |values| Filter::In { field: "lang".to_owned(), values };
    check(&one_of(vec![text("en"), text("de")]), true);
    check(&one_of(vec![]), false);
    let range = |min, max| Filter::Range { field: "year".to_owned(), min, max };
    check(&range(Bound::Included(Value::Int(2024)), Bound::Unbounded), true);
    check(&range(Bound::Excluded(Value::Int(2024)), Bound::Unbounded), false);
    check(&range(Bound::Unbounded, Bound::Excluded(Value::Float(2024.5))), true);
    check(&range(Bound::Included(text("a")), Bound::Unbounded), false);
}

#[test]
fn refuses_what_is_too_deep_too_wide_or_not_a_value() {
    let nested = |levels: usize| {
        (1..levels).fold(Filter::And(vec![]), |inner, _| Filter::Not(Box::new(inner)))
    };
    assert!(nested(FILTER_MAX_DEPTH).check().is_ok());
    assert_eq!(nested(FILTER_MAX_DEPTH + 1).check().unwrap_err().field(), "filter");
    let wide = |n| Filter::In { field: "f".to_owned(), values: vec![Value::Int(1); n] };
    assert!(wide(FILTER_MAX_VALUES).check().is_ok());
    assert!(wide(FILTER_MAX_VALUES + 1).check().is_err());
    assert!(Filter::Or(vec![wide(1); FILTER_MAX_NODES - 1]).check().is_ok());
    assert!(Filter::Or(vec![wide(1); FILTER_MAX_NODES]).check().is_err());
    assert!(compare("f", Comparison::Ne, Value::Bool(true)).check().is_ok());
    assert!(compare("f", Comparison::Lt, Value::Bool(true)).check().is_err());
    assert!(compare("f", Comparison::Eq, Value::Float(f64::NAN)).check().is_err());
    assert!(compare("f", Comparison::Eq, Value::Strings(vec![])).check().is_err());
    assert!(Filter::Exists { field: String::new() }.check().is_err());
}
