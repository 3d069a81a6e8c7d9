//! Metadata and vectors as JSON and as text.

use std::collections::BTreeMap;

use diptych::v1;
use diptych::v1::value::Kind;
use serde_json::{Map, Value as Json, json};

/// Metadata as a JSON object.
pub(crate) fn metadata_json(metadata: &BTreeMap<String, v1::Value>) -> Json {
    let entries = metadata.iter().map(|(key, value)| (key.clone(), value_json(value)));
    Json::Object(entries.collect::<Map<_, _>>())
}

fn value_json(value: &v1::Value) -> Json {
    match &value.kind {
        Some(Kind::BoolValue(value)) => json!(value),
        Some(Kind::IntValue(value)) => json!(value),
        Some(Kind::FloatValue(value)) => json!(value),
        Some(Kind::TextValue(value)) => json!(value),
        Some(Kind::TextList(list)) => json!(list.values),
        None => Json::Null,
    }
}

/// Metadata as `key=value` on one line.
pub(crate) fn metadata_line(metadata: &BTreeMap<String, v1::Value>) -> String {
    let entry = |(key, value): (&String, &v1::Value)| match value_json(value) {
        Json::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    };
    metadata.iter().map(entry).collect::<Vec<_>>().join(" ")
}

/// `image` or `text`.
pub(crate) fn modality_name(modality: i32) -> &'static str {
    match v1::Modality::try_from(modality) {
        Ok(v1::Modality::Image) => "image",
        Ok(v1::Modality::Text) => "text",
        Ok(v1::Modality::Unspecified) | Err(_) => "unknown",
    }
}

/// `shared` or `exclusive`.
pub(crate) fn space_name(space: v1::Space) -> &'static str {
    match space {
        v1::Space::Exclusive => "exclusive",
        v1::Space::Shared | v1::Space::Unspecified => "shared",
    }
}

/// What an item was made from, when that is a text.
pub(crate) fn source_text(source: Option<&v1::Source>) -> Option<&str> {
    match source?.content.as_ref()? {
        v1::source::Content::Text(text) => Some(text),
        v1::source::Content::Image(_) => None,
    }
}

/// What an item was made from, when that is a picture.
pub(crate) fn source_image(source: Option<&v1::Source>) -> Option<&[u8]> {
    match source?.content.as_ref()? {
        v1::source::Content::Image(bytes) => Some(bytes),
        v1::source::Content::Text(_) => None,
    }
}

/// The condition that the metadata `key` equals what was typed. `3` may have been put as a number or as a text, and a
/// comparison holds for one kind only, so either will do.
pub(crate) fn equals_typed(key: &str, typed: &str) -> v1::Filter {
    let text = diptych::equals(key, Kind::TextValue(typed.to_owned()));
    match parsed(typed) {
        Kind::TextValue(_) | Kind::TextList(_) => text,
        kind => diptych::any_of(vec![text, diptych::equals(key, kind)]),
    }
}

/// The value that a text without a type stands for: true, false, a number, or the text itself. What would not be written the
/// same way again, such as `007`, is a text.
pub(crate) fn parsed(text: &str) -> Kind {
    if let Ok(value) = text.parse::<bool>() {
        return Kind::BoolValue(value);
    }
    if let Ok(value) = text.parse::<i64>()
        && value.to_string() == text
    {
        return Kind::IntValue(value);
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.starts_with("0.") || digits.starts_with(|first| matches!(first, '1'..='9'));
    match text.parse::<f64>() {
        Ok(value) if plain && value.is_finite() && text.contains(['.', 'e', 'E']) => {
            Kind::FloatValue(value)
        }
        _ => Kind::TextValue(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_without_a_type_get_one() {
        assert_eq!(parsed("true"), Kind::BoolValue(true));
        assert_eq!(parsed("-12"), Kind::IntValue(-12));
        assert_eq!(parsed("0.5"), Kind::FloatValue(0.5));
        assert_eq!(parsed("1e3"), Kind::FloatValue(1000.0));
        for text in ["de", "007", "+1", "NaN", "inf", "1.2.3", "", "99999999999999999999", ".5"] {
            assert_eq!(parsed(text), Kind::TextValue(text.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_number_is_looked_for_as_number_and_as_text() {
        let plain = equals_typed("lang", "de");
        assert!(matches!(plain.condition, Some(v1::filter::Condition::Compare(_))));
        let either = equals_typed("year", "1999");
        assert!(
            matches!(either.condition, Some(v1::filter::Condition::Or(list)) if list.filters.len() == 2)
        );
    }

    #[test]
    fn metadata_is_typed_in_json() {
        let list = v1::TextList { values: vec!["x".to_owned()] };
        let entries = [("a", Kind::IntValue(3)), ("b", Kind::TextList(list))];
        let metadata: BTreeMap<_, _> =
            entries.into_iter().map(|(key, kind)| (key.to_owned(), diptych::value(kind))).collect();
        assert_eq!(metadata_json(&metadata).to_string(), r#"{"a":3,"b":["x"]}"#);
        assert_eq!(metadata_line(&metadata), r#"a=3 b=["x"]"#);
    }
}
