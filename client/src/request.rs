//! Short ways to make common requests and to read replies.

use bytes::Bytes;

use crate::v1;

/// A request for one item with its metadata and its source.
pub fn get_item(collection: &str, id: &str) -> v1::GetItemRequest {
    v1::GetItemRequest {
        collection: collection.to_owned(),
        id: id.to_owned(),
        read_mask: Some(mask(&["metadata", "source"])),
    }
}

/// A picture to put; its bytes are a JPEG, PNG, WebP or GIF file.
pub fn image_item(id: &str, image: impl Into<Bytes>) -> v1::ItemInput {
    let input = Some(v1::item_input::Input::Image(image.into()));
    v1::ItemInput { id: id.to_owned(), input, ..Default::default() }
}

/// A text to put.
pub fn text_item(id: &str, text: impl Into<String>) -> v1::ItemInput {
    let input = Some(v1::item_input::Input::Text(text.into()));
    v1::ItemInput { id: id.to_owned(), input, ..Default::default() }
}

/// Which parts of an item or a hit are to be filled.
pub fn mask(parts: &[&str]) -> prost_types::FieldMask {
    prost_types::FieldMask { paths: parts.iter().map(ToString::to_string).collect() }
}

/// A metadata value, such as `v1::value::Kind::IntValue(3)`.
pub fn value(kind: v1::value::Kind) -> v1::Value {
    v1::Value { kind: Some(kind) }
}

/// The condition that the value of `key` equals `kind`.
pub fn equals(key: &str, kind: v1::value::Kind) -> v1::Filter {
    let operator = v1::compare::Operator::Equal.into();
    let compare = v1::Compare { key: key.to_owned(), operator, value: Some(value(kind)) };
    v1::Filter { condition: Some(v1::filter::Condition::Compare(compare)) }
}

/// The condition that all of these hold.
pub fn all_of(filters: Vec<v1::Filter>) -> v1::Filter {
    v1::Filter { condition: Some(v1::filter::Condition::And(v1::FilterList { filters })) }
}

/// The condition that at least one of these holds.
pub fn any_of(filters: Vec<v1::Filter>) -> v1::Filter {
    v1::Filter { condition: Some(v1::filter::Condition::Or(v1::FilterList { filters })) }
}

/// The components of a vector in either of its forms.
pub fn components(vector: &v1::Vector) -> Vec<f32> {
    match &vector.values {
        Some(v1::vector::Values::Floats(list)) => list.values.clone(),
        Some(v1::vector::Values::PackedF32(bytes)) => {
            let (whole, _) = bytes.as_chunks::<4>();
            whole.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
        }
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_vector_are_read() {
        let values = [0.5_f32, -1.25];
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let floats = v1::FloatList { values: values.to_vec() };
        for form in
            [v1::vector::Values::PackedF32(bytes.into()), v1::vector::Values::Floats(floats)]
        {
            assert_eq!(components(&v1::Vector { dimension: 2, values: Some(form) }), values);
        }
        assert!(components(&v1::Vector::default()).is_empty());
    }
}
