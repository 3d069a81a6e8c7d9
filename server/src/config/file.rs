//! The optional TOML file: keys to texts, whatever is wrong with it told at once.

use std::collections::BTreeMap;
use std::path::Path;

use super::names::nearest;

/// The values of the file at `path` as text, by key. A key that is none of `known`, or whose value is no single value, is a
/// fault and left out.
pub(super) fn read(
    path: &Path,
    known: &[&str],
    faults: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let place = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            faults.push(format!("config {place}: {error}"));
            return BTreeMap::new();
        }
    };
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            faults.push(format!("config {place}, line {line}: {}", error.message()));
            return BTreeMap::new();
        }
    };
    let mut values = BTreeMap::new();
    for (key, value) in table {
        if !known.contains(&key.as_str()) {
            let hint = nearest(&key, known.iter().copied());
            faults.push(format!("config {place}: the key {key} is unknown{hint}"));
        } else if let Some(text) = single(&value).or_else(|| list(&key, &value)) {
            values.insert(key, text);
        } else {
            let found = value.type_str();
            faults
                .push(format!("config {place}: {key} is of type {found}, must be a single value"));
        }
    }
    values
}

/// The one setting that may be a list, its elements on a line each.
fn list(key: &str, value: &toml::Value) -> Option<String> {
    let elements = value.as_array().filter(|elements| key == "bundle" && !elements.is_empty())?;
    let texts: Option<Vec<&str>> = elements.iter().map(toml::Value::as_str).collect();
    texts.map(|texts| texts.join("\n"))
}

fn single(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(value) => Some(value.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}
