//! Which rows have which metadata values: answers a filter without looking at each row.
//!
//! For each field the distinct values are kept in order, with the rows that have them: those of
//! few rows in one common list, those of many as a compressed set, those of a good part of all rows
//! as plain bits. An answer is plain bits, which is what a walk asks for each row it meets.

use std::{
    cmp::Ordering,
    collections::{HashMap, VecDeque},
    hash::Hash,
    ops::Bound,
    sync::Arc,
};

use parking_lot::Mutex;
use roaring::RoaringBitmap;

use super::{Comparison, Filter, compare_int_float};
use crate::{embedded::Entry, graph::RowSet, types::Value};

/// Up to this many rows of a value lie in the common list: a set of so few costs more.
const FEW: usize = 64;
/// A set of more than one row in this many is kept as bits, which cost no more memory then.
const DENSE: usize = 16;

/// Answers kept for filters that come again, as those of a tenant or a language do; at most one bit
/// for each row and answer.
const ANSWERS: usize = 16;

/// The sets of one segment's rows.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    rows: usize,
    fields: HashMap<Arc<str>, Field>,
    /// Latest first. Rows do not change, so neither do answers.
    answers: Mutex<VecDeque<(Filter, Arc<RowSet>)>>,
}

/// The sets of one field.
#[derive(Debug, Default)]
struct Field {
    present: Set,
    bools: Values<bool>,
    numbers: Values<Number>,
    texts: Values<Box<str>>,
    /// Rows with several different texts.
    several: Set,
}

/// Some rows.
#[derive(Debug)]
enum Set {
    Sparse(RoaringBitmap),
    Dense(Box<[u64]>),
}

/// A number as a key: whole ones are always [`Number::Int`], so that equal numbers are equal keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Number {
    Int(i64),
    /// The bits of a finite f64 that is no i64.
    Float(u64),
}

/// Distinct values of one type in order, and the rows of each.
#[derive(Debug)]
struct Values<K> {
    keys: Vec<K>,
    rows_of: Vec<RowsOf>,
    /// Rows of the keys that have few.
    list: Vec<u32>,
    /// Rows of any key.
    all: Set,
}

#[derive(Debug)]
enum RowsOf {
    /// A range of the list, ascending.
    Few {
        from: u32,
        to: u32,
    },
    Many(Box<Set>),
}

/// What a field's values are gathered in.
#[derive(Default)]
struct Gathered<'a> {
    present: Vec<u32>,
    bools: HashMap<bool, Vec<u32>>,
    numbers: HashMap<Number, Vec<u32>>,
    texts: HashMap<&'a str, Vec<u32>>,
    several: Vec<u32>,
}

impl Sets {
    /// The sets of some rows, numbered by their place.
    pub(crate) fn new(entries: &[Arc<Entry>]) -> Self {
        let mut gathered: HashMap<&Arc<str>, Gathered<'_>> = HashMap::new();
        for (row, entry) in entries.iter().enumerate() {
            for (name, value) in &entry.fields {
                gathered.entry(name).or_default().add(row as u32, value);
            }
        }
        let rows = entries.len();
        let fields = gathered.into_iter().map(|(name, field)| (Arc::clone(name), field.sets(rows)));
        Self { rows, fields: fields.collect(), answers: Mutex::default() }
    }

    /// The rows that pass a filter that was checked.
    pub(crate) fn rows(&self, filter: &Filter) -> Arc<RowSet> {
        if let Some(known) = self.known(filter) {
            return known;
        }
        let rows = Arc::new(RowSet::from_words(self.rows, self.words(filter)));
        let mut answers = self.answers.lock();
        answers.truncate(ANSWERS - 1);
        answers.push_front((filter.clone(), Arc::clone(&rows)));
        rows
    }

    fn known(&self, filter: &Filter) -> Option<Arc<RowSet>> {
        let mut answers = self.answers.lock();
        let at = answers.iter().position(|(known, _)| known == filter)?;
        let found = answers.remove(at)?;
        let rows = Arc::clone(&found.1);
        answers.push_front(found);
        Some(rows)
    }

    fn words(&self, filter: &Filter) -> Vec<u64> {
        match filter {
            Filter::And(parts) => {
                let mut words = self.all_but(&self.none());
                for part in parts {
                    let other = self.words(part);
                    words.iter_mut().zip(other).for_each(|(word, other)| *word &= other);
                }
                words
            }
            Filter::Or(parts) => {
                let mut words = self.none();
                for part in parts {
                    let other = self.words(part);
                    words.iter_mut().zip(other).for_each(|(word, other)| *word |= other);
                }
                words
            }
            Filter::Not(part) => self.all_but(&self.words(part)),
            Filter::Exists { field } => self.of_field(field, |field, out| field.present.add(out)),
            Filter::Compare { field, op, value } => {
                self.of_field(field, |field, out| field.compare(*op, value, out))
            }
            Filter::In { field, values } => self.of_field(field, |field, out| {
                for value in values {
                    field.compare(Comparison::Eq, value, out);
                }
            }),
            Filter::Range { field, min, max } => {
                self.of_field(field, |field, out| field.between(min.as_ref(), max.as_ref(), out))
            }
        }
    }

    fn none(&self) -> Vec<u64> {
        vec![0; self.rows.div_ceil(64)]
    }

    fn all_but(&self, some: &[u64]) -> Vec<u64> {
        let mut words: Vec<u64> = some.iter().map(|word| !word).collect();
        if !self.rows.is_multiple_of(64)
            && let Some(last) = words.last_mut()
        {
            *last &= (1 << (self.rows % 64)) - 1;
        }
        words
    }

    fn of_field(&self, name: &str, add: impl FnOnce(&Field, &mut [u64])) -> Vec<u64> {
        let mut words = self.none();
        if let Some(field) = self.fields.get(name) {
            add(field, &mut words);
        }
        words
    }
}

impl Set {
    /// From ascending rows below `count`.
    fn new(rows: &[u32], count: usize) -> Self {
        if rows.len() > count / DENSE {
            let mut words = vec![0; count.div_ceil(64)];
            add_rows(rows, &mut words);
            return Self::Dense(words.into());
        }
        let sorted = RoaringBitmap::from_sorted_iter(rows.iter().copied());
        Self::Sparse(sorted.unwrap_or_else(|_| rows.iter().copied().collect()))
    }

    fn add(&self, out: &mut [u64]) {
        match self {
            Self::Sparse(rows) => {
                rows.iter().for_each(|row| out[row as usize / 64] |= 1 << (row % 64));
            }
            Self::Dense(words) => {
                out.iter_mut().zip(words).for_each(|(out, word)| *out |= word);
            }
        }
    }
}

impl Default for Set {
    fn default() -> Self {
        Self::Sparse(RoaringBitmap::new())
    }
}

fn add_rows(rows: &[u32], out: &mut [u64]) {
    rows.iter().for_each(|&row| out[row as usize / 64] |= 1 << (row % 64));
}

impl<'a> Gathered<'a> {
    fn add(&mut self, row: u32, value: &'a Value) {
        self.present.push(row);
        match value {
            Value::Bool(flag) => self.bools.entry(*flag).or_default().push(row),
            Value::Int(number) => self.numbers.entry(Number::Int(*number)).or_default().push(row),
            Value::Float(number) => {
                self.numbers.entry(Number::of(*number)).or_default().push(row);
            }
            Value::String(text) => self.texts.entry(text).or_default().push(row),
            Value::Strings(texts) => {
                let mut different = 0;
                for text in texts {
                    let rows = self.texts.entry(text).or_default();
                    if rows.last() != Some(&row) {
                        rows.push(row);
                        different += 1;
                    }
                }
                if different > 1 {
                    self.several.push(row);
                }
            }
        }
    }

    fn sets(self, count: usize) -> Field {
        let texts = self.texts.into_iter().map(|(text, rows)| (Box::from(text), rows));
        Field {
            present: Set::new(&self.present, count),
            bools: Values::new(self.bools, count, Ord::cmp),
            numbers: Values::new(self.numbers, count, Number::order),
            texts: Values::new(texts, count, Ord::cmp),
            several: Set::new(&self.several, count),
        }
    }
}

impl Field {
    /// Adds the rows for which the comparison holds.
    fn compare(&self, op: Comparison, value: &Value, out: &mut [u64]) {
        match op {
            Comparison::Eq => self.between(Bound::Included(value), Bound::Included(value), out),
            Comparison::Lt => self.between(Bound::Unbounded, Bound::Excluded(value), out),
            Comparison::Le => self.between(Bound::Unbounded, Bound::Included(value), out),
            Comparison::Gt => self.between(Bound::Excluded(value), Bound::Unbounded, out),
            Comparison::Ge => self.between(Bound::Included(value), Bound::Unbounded, out),
            Comparison::Ne => self.not_equal(value, out),
        }
    }

    fn not_equal(&self, value: &Value, out: &mut [u64]) {
        let bits = |set: &Set| {
            let mut words = vec![0; out.len()];
            set.add(&mut words);
            words
        };
        let (all, several) = match value {
            Value::Bool(_) => (bits(&self.bools.all), bits(&Set::default())),
            Value::Int(_) | Value::Float(_) => (bits(&self.numbers.all), bits(&Set::default())),
            // Whoever has another text beside an equal one has one that is not equal.
            Value::String(_) => (bits(&self.texts.all), bits(&self.several)),
            Value::Strings(_) => return,
        };
        let mut equal = vec![0; out.len()];
        self.compare(Comparison::Eq, value, &mut equal);
        for (i, out) in out.iter_mut().enumerate() {
            *out |= all[i] & (!equal[i] | several[i]);
        }
    }

    /// Adds the rows with a value between two; the ends, and so the values, are of one type.
    /// Without ends, rows with any single value.
    fn between(&self, min: Bound<&Value>, max: Bound<&Value>, out: &mut [u64]) {
        if !same_kind(min, max) {
            return;
        }
        match kind(min).or(kind(max)) {
            None => {
                let open = matches!((min, max), (Bound::Unbounded, Bound::Unbounded));
                let all = [&self.bools.all, &self.numbers.all, &self.texts.all];
                all.into_iter().filter(|_| open).for_each(|set| set.add(out));
            }
            Some(Kind::Bool) => {
                let order = |key: &bool, end: &Value| as_bool(end).map(|flag| key.cmp(&flag));
                self.bools.between((min, max), order, out);
            }
            Some(Kind::Number) => {
                let order = |key: &Number, end: &Value| Number::try_of(end).map(|n| key.order(&n));
                self.numbers.between((min, max), order, out);
            }
            Some(Kind::Text) => {
                self.texts.between(
                    (min, max),
                    |key, end| as_text(end).map(|text| key.as_ref().cmp(text)),
                    out,
                );
            }
        }
    }
}

impl<K: Eq + Hash> Values<K> {
    fn new(
        gathered: impl IntoIterator<Item = (K, Vec<u32>)>,
        count: usize,
        order: impl Fn(&K, &K) -> Ordering,
    ) -> Self {
        let mut gathered: Vec<(K, Vec<u32>)> = gathered.into_iter().collect();
        gathered.sort_unstable_by(|(a, _), (b, _)| order(a, b));
        let mut values = Self::default();
        let mut all = Vec::new();
        for (key, rows) in gathered {
            all.extend_from_slice(&rows);
            values.rows_of.push(if rows.len() > FEW {
                RowsOf::Many(Box::new(Set::new(&rows, count)))
            } else {
                let from = values.list.len() as u32;
                values.list.extend_from_slice(&rows);
                RowsOf::Few { from, to: values.list.len() as u32 }
            });
            values.keys.push(key);
        }
        all.sort_unstable();
        all.dedup();
        values.all = Set::new(&all, count);
        values.keys.shrink_to_fit();
        values.rows_of.shrink_to_fit();
        values.list.shrink_to_fit();
        values
    }
}

impl<K> Default for Values<K> {
    fn default() -> Self {
        Self { keys: vec![], rows_of: vec![], list: vec![], all: Set::default() }
    }
}

impl<K> Values<K> {
    /// Adds the rows of the keys between two ends of their type.
    fn between(
        &self,
        (min, max): (Bound<&Value>, Bound<&Value>),
        order: impl Fn(&K, &Value) -> Option<Ordering>,
        out: &mut [u64],
    ) {
        let order = |key: &K, end: &Value| order(key, end).unwrap_or(Ordering::Less);
        let from = match min {
            Bound::Unbounded => 0,
            Bound::Included(min) => self.keys.partition_point(|key| order(key, min).is_lt()),
            Bound::Excluded(min) => self.keys.partition_point(|key| order(key, min).is_le()),
        };
        let to = match max {
            Bound::Unbounded => self.keys.len(),
            Bound::Included(max) => self.keys.partition_point(|key| order(key, max).is_le()),
            Bound::Excluded(max) => self.keys.partition_point(|key| order(key, max).is_lt()),
        };
        for rows_of in self.rows_of.get(from..to).unwrap_or_default() {
            match rows_of {
                RowsOf::Few { from, to } => {
                    add_rows(&self.list[*from as usize..*to as usize], out);
                }
                RowsOf::Many(rows) => rows.add(out),
            }
        }
    }
}

impl Number {
    fn of(number: f64) -> Self {
        const EDGE: f64 = 9_223_372_036_854_775_808.0;
        if number.fract() == 0.0 && (-EDGE..EDGE).contains(&number) {
            Self::Int(number as i64)
        } else {
            Self::Float(number.to_bits())
        }
    }

    fn try_of(value: &Value) -> Option<Self> {
        match value {
            Value::Int(number) => Some(Self::Int(*number)),
            Value::Float(number) => Some(Self::of(*number)),
            Value::Bool(_) | Value::String(_) | Value::Strings(_) => None,
        }
    }

    /// Numbers are finite, so there is always an order.
    fn order(&self, other: &Self) -> Ordering {
        match (*self, *other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(&b),
            (Self::Float(a), Self::Float(b)) => f64::from_bits(a).total_cmp(&f64::from_bits(b)),
            (Self::Int(a), Self::Float(b)) => {
                compare_int_float(a, f64::from_bits(b)).unwrap_or(Ordering::Less)
            }
            (Self::Float(a), Self::Int(b)) => {
                compare_int_float(b, f64::from_bits(a)).map_or(Ordering::Greater, Ordering::reverse)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Number,
    Text,
}

fn kind(end: Bound<&Value>) -> Option<Kind> {
    match end {
        Bound::Unbounded => None,
        Bound::Included(value) | Bound::Excluded(value) => match value {
            Value::Bool(_) => Some(Kind::Bool),
            Value::Int(_) | Value::Float(_) => Some(Kind::Number),
            Value::String(_) => Some(Kind::Text),
            Value::Strings(_) => None,
        },
    }
}

/// Nothing lies between a number and a text.
fn same_kind(min: Bound<&Value>, max: Bound<&Value>) -> bool {
    let open = matches!(min, Bound::Unbounded) || matches!(max, Bound::Unbounded);
    open || kind(min) == kind(max)
}

fn as_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        _ => None,
    }
}

fn as_text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
