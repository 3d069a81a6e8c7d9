//! Typed conditions on metadata.

pub(crate) mod sets;

use std::{cmp::Ordering, ops::Bound};

use serde::{Deserialize, Serialize};

use crate::{
    error::Rejection,
    types::{Metadata, Value},
};

/// Deepest nesting of a filter; a single condition has depth 1.
pub const FILTER_MAX_DEPTH: usize = 8;
/// Most nodes of a filter: conditions and connectives.
pub const FILTER_MAX_NODES: usize = 128;
/// Most values of one `In`.
pub const FILTER_MAX_VALUES: usize = 128;

/// How a field is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
}

/// A condition on an item's metadata.
///
/// Numbers compare with numbers, texts by their bytes, booleans for equality only. Every condition
/// fails where the field is missing or of another type, `Ne` too. On a list of texts a condition
/// holds when it holds for one of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Filter {
    /// All hold; true when empty.
    And(Vec<Filter>),
    /// One holds; false when empty.
    Or(Vec<Filter>),
    /// Does not hold.
    Not(Box<Filter>),
    /// Field against a value.
    Compare {
        /// Metadata field.
        field: String,
        /// How.
        op: Comparison,
        /// A single value, not a list.
        value: Value,
    },
    /// Field equals one of these.
    In {
        /// Metadata field.
        field: String,
        /// Single values.
        values: Vec<Value>,
    },
    /// Field is there.
    Exists {
        /// Metadata field.
        field: String,
    },
    /// Field lies between two values.
    Range {
        /// Metadata field.
        field: String,
        /// Lower end.
        min: Bound<Value>,
        /// Upper end.
        max: Bound<Value>,
    },
}

/// Something with fields.
pub(crate) trait FieldSource {
    /// The value of a field.
    fn field(&self, name: &str) -> Option<&Value>;
}

impl FieldSource for Metadata {
    fn field(&self, name: &str) -> Option<&Value> {
        self.get(name)
    }
}

impl Filter {
    /// Checks depth, number of nodes, names and values.
    ///
    /// # Errors
    /// [`Rejection`] with the field `filter`.
    pub fn check(&self) -> Result<(), Rejection> {
        let mut nodes = 0;
        self.check_node(1, &mut nodes)?;
        if nodes > FILTER_MAX_NODES {
            return Err(Rejection::limit("filter", "nodes", FILTER_MAX_NODES, nodes));
        }
        Ok(())
    }

    fn check_node(&self, depth: usize, nodes: &mut usize) -> Result<(), Rejection> {
        *nodes += 1;
        if depth > FILTER_MAX_DEPTH {
            return Err(Rejection::limit("filter", "levels", FILTER_MAX_DEPTH, depth));
        }
        match self {
            Self::And(parts) | Self::Or(parts) => {
                parts.iter().try_for_each(|part| part.check_node(depth + 1, nodes))
            }
            Self::Not(part) => part.check_node(depth + 1, nodes),
            Self::Exists { field } => check_field(field),
            Self::Compare { field, op, value } => {
                check_field(field)?;
                match op {
                    Comparison::Eq | Comparison::Ne => check_value(value),
                    _ => check_ordered(value),
                }
            }
            Self::In { field, values } => {
                if values.len() > FILTER_MAX_VALUES {
                    let found = values.len();
                    return Err(Rejection::limit("filter", "values", FILTER_MAX_VALUES, found));
                }
                check_field(field)?;
                values.iter().try_for_each(check_value)
            }
            Self::Range { field, min, max } => {
                check_field(field)?;
                for end in [min, max] {
                    if let Bound::Included(value) | Bound::Excluded(value) = end {
                        check_ordered(value)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Whether metadata passes.
    pub fn matches(&self, metadata: &Metadata) -> bool {
        self.passes(metadata)
    }

    pub(crate) fn passes<S: FieldSource + ?Sized>(&self, fields: &S) -> bool {
        match self {
            Self::And(parts) => parts.iter().all(|part| part.passes(fields)),
            Self::Or(parts) => parts.iter().any(|part| part.passes(fields)),
            Self::Not(part) => !part.passes(fields),
            Self::Exists { field } => fields.field(field).is_some(),
            Self::Compare { field, op, value } => {
                let test = match op {
                    Comparison::Eq => Ordering::is_eq,
                    Comparison::Ne => Ordering::is_ne,
                    Comparison::Lt => Ordering::is_lt,
                    Comparison::Le => Ordering::is_le,
                    Comparison::Gt => Ordering::is_gt,
                    Comparison::Ge => Ordering::is_ge,
                };
                fields.field(field).is_some_and(|found| holds(found, value, test))
            }
            Self::In { field, values } => fields
                .field(field)
                .is_some_and(|found| values.iter().any(|v| holds(found, v, Ordering::is_eq))),
            Self::Range { field, min, max } => {
                fields.field(field).is_some_and(|found| singles(found, |one| within(one, min, max)))
            }
        }
    }
}

fn check_field(field: &str) -> Result<(), Rejection> {
    if field.is_empty() {
        return Err(Rejection::invalid("filter", "has a condition without a field"));
    }
    Ok(())
}

fn check_value(value: &Value) -> Result<(), Rejection> {
    match value {
        Value::Float(number) if !number.is_finite() => {
            Err(Rejection::invalid("filter", "compares with a number that is not finite"))
        }
        Value::Strings(_) => {
            Err(Rejection::invalid("filter", "compares with a list; use `in` for several values"))
        }
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::String(_) => Ok(()),
    }
}

/// A value that others are less or greater than.
fn check_ordered(value: &Value) -> Result<(), Rejection> {
    match value {
        Value::Bool(_) => Err(Rejection::invalid("filter", "orders booleans")),
        value => check_value(value),
    }
}

/// A single value, borrowed from a field or one element of its list.
#[derive(Clone, Copy)]
enum One<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
}

fn singles(value: &Value, mut test: impl FnMut(One<'_>) -> bool) -> bool {
    match value {
        Value::Bool(flag) => test(One::Bool(*flag)),
        Value::Int(number) => test(One::Int(*number)),
        Value::Float(number) => test(One::Float(*number)),
        Value::String(text) => test(One::Text(text)),
        Value::Strings(texts) => texts.iter().any(|text| test(One::Text(text))),
    }
}

fn holds(found: &Value, wanted: &Value, test: fn(Ordering) -> bool) -> bool {
    singles(found, |one| compare(one, wanted).is_some_and(test))
}

fn within(one: One<'_>, min: &Bound<Value>, max: &Bound<Value>) -> bool {
    let above = match min {
        Bound::Unbounded => true,
        Bound::Included(value) => compare(one, value).is_some_and(Ordering::is_ge),
        Bound::Excluded(value) => compare(one, value).is_some_and(Ordering::is_gt),
    };
    above
        && match max {
            Bound::Unbounded => true,
            Bound::Included(value) => compare(one, value).is_some_and(Ordering::is_le),
            Bound::Excluded(value) => compare(one, value).is_some_and(Ordering::is_lt),
        }
}

fn compare(one: One<'_>, value: &Value) -> Option<Ordering> {
    match (one, value) {
        (One::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (One::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (One::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (One::Int(a), Value::Float(b)) => compare_int_float(a, *b),
        (One::Float(a), Value::Int(b)) => compare_int_float(*b, a).map(Ordering::reverse),
        (One::Text(a), Value::String(b)) => Some(a.cmp(b.as_str())),
        _ => None,
    }
}

/// Exact also beyond 2^53, where `a as f64` would round.
fn compare_int_float(a: i64, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    // 2^63 is a power of two, so it is exact as f64; below it the floor of b fits an i64.
    const EDGE: f64 = 9_223_372_036_854_775_808.0;
    if b >= EDGE {
        return Some(Ordering::Less);
    }
    if b < -EDGE {
        return Some(Ordering::Greater);
    }
    let floor = b.floor();
    let whole = a.cmp(&(floor as i64));
    Some(if whole.is_eq() && b > floor { Ordering::Less } else { whole })
}

#[cfg(test)]
#[path = "filter/tests.rs"]
mod tests;
