//! The Parquet schemas of the two kinds of shard.

use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, Type as PhysicalType};
use parquet::errors::Result;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::{Type, TypePtr};

/// Columns of a picture shard that are not labels.
pub const IMAGE_COLUMNS: [&str; 3] = ["image", "group", "split"];

/// A required or optional UTF-8 column.
fn text_column(name: &str, repetition: Repetition) -> Result<TypePtr> {
    let column = Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY)
        .with_repetition(repetition)
        .with_logical_type(Some(LogicalType::String))
        .with_converted_type(ConvertedType::UTF8)
        .build()?;
    Ok(Arc::new(column))
}

/// `image {bytes, path}`, `group`, `split`, and an optional text column for each of `labels`.
pub(super) fn images(labels: &[String]) -> Result<TypePtr> {
    let bytes = Type::primitive_type_builder("bytes", PhysicalType::BYTE_ARRAY)
        .with_repetition(Repetition::REQUIRED)
        .build()?;
    let image = Type::group_type_builder("image")
        .with_repetition(Repetition::REQUIRED)
        .with_fields(vec![Arc::new(bytes), text_column("path", Repetition::REQUIRED)?])
        .build()?;
    let mut fields = vec![Arc::new(image)];
    for column in ["group", "split"] {
        fields.push(text_column(column, Repetition::REQUIRED)?);
    }
    for label in labels {
        fields.push(text_column(label, Repetition::OPTIONAL)?);
    }
    Ok(Arc::new(Type::group_type_builder("schema").with_fields(fields).build()?))
}

/// The picture schema without `image.bytes`, to read everything else alone.
pub(super) fn without_bytes(all: &Type) -> Result<Type> {
    let fields = all.get_fields().iter().map(|field| {
        if field.name() != "image" || !field.is_group() {
            return Ok(Arc::clone(field));
        }
        let kept = field.get_fields().iter().filter(|part| part.name() != "bytes");
        let image = Type::group_type_builder("image")
            .with_repetition(Repetition::REQUIRED)
            .with_fields(kept.cloned().collect())
            .build()?;
        Ok(Arc::new(image))
    });
    let fields = fields.collect::<Result<_>>()?;
    Type::group_type_builder(all.name()).with_fields(fields).build()
}

/// `text`, `lang`, `kind`, `group`, `split`, each required.
pub(super) fn texts() -> Result<TypePtr> {
    let fields = ["text", "lang", "kind", "group", "split"]
        .into_iter()
        .map(|name| text_column(name, Repetition::REQUIRED))
        .collect::<Result<_>>()?;
    Ok(Arc::new(Type::group_type_builder("schema").with_fields(fields).build()?))
}

/// How shards are written: Zstandard, and the key that tells Hugging Face `datasets` that the
/// `image` column holds pictures. No time and no program version goes into the file, so that equal
/// rows give equal bytes.
pub(super) fn properties(labels: Option<&[String]>) -> WriterProperties {
    let builder = WriterProperties::builder()
        .set_created_by("diptych-train".to_owned())
        .set_compression(Compression::ZSTD(parquet::basic::ZstdLevel::default()));
    match labels {
        None => builder.build(),
        Some(labels) => {
            let features = huggingface_features(labels);
            let entry = KeyValue::new("huggingface".to_owned(), features.to_string());
            builder.set_key_value_metadata(Some(vec![entry])).build()
        }
    }
}

/// The `features` of Hugging Face `datasets` for a picture shard.
fn huggingface_features(labels: &[String]) -> serde_json::Value {
    let text = || serde_json::json!({"dtype": "string", "_type": "Value"});
    let mut features = serde_json::Map::new();
    features.insert("image".to_owned(), serde_json::json!({"_type": "Image"}));
    for column in ["group", "split"] {
        features.insert(column.to_owned(), text());
    }
    for label in labels {
        features.insert(label.clone(), text());
    }
    serde_json::json!({"info": {"features": features}})
}
