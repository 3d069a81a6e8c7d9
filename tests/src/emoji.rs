//! Questions about the sample collection.

use anyhow::Result;
use diptych_proto::v1;

use crate::Api;
use crate::api::{equals, mask, text_value};

/// The collection that a server without flags serves.
pub const COLLECTION: &str = "emoji";
/// The languages of its names.
pub const LANGUAGES: [&str; 10] = ["en", "de", "fr", "es", "ru", "ja", "zh", "ko", "ar", "hi"];
/// Those whose mean is promised.
pub const SCORED: [&str; 8] = ["en", "de", "fr", "es", "ru", "ja", "zh", "ko"];
/// U+2764, the one red heart.
pub const RED_HEART: &str = "2764";

/// All pictures, or all names, without their sources.
///
/// # Errors
/// The server's refusal.
pub async fn items(api: &Api, modality: v1::Modality) -> Result<Vec<v1::Item>> {
    let request = v1::ListItemsRequest {
        collection: COLLECTION.to_owned(),
        page_size: 1000,
        modality: modality.into(),
        ..Default::default()
    };
    Ok(api.list(request).await?)
}

/// All names of one language with their texts: group and text.
///
/// # Errors
/// The server's refusal.
pub async fn names(api: &Api, language: &str) -> Result<Vec<(String, String)>> {
    let request = v1::ListItemsRequest {
        collection: COLLECTION.to_owned(),
        page_size: 1000,
        filter: Some(equals("lang", text_value(language))),
        read_mask: mask(&["source"]),
        ..Default::default()
    };
    let named =
        api.list(request).await?.into_iter().filter_map(|item| match item.source?.content? {
            v1::source::Content::Text(text) => Some((item.group, text)),
            v1::source::Content::Image(_) => None,
        });
    Ok(named.collect())
}

/// The groups of the pictures that a text finds, one hit per group.
///
/// # Errors
/// The server's refusal.
pub async fn pictures_of(api: &Api, text: &str, limit: u32) -> Result<Vec<String>> {
    let request = v1::SearchTextToImageRequest {
        collection: COLLECTION.to_owned(),
        text: text.to_owned(),
        limit,
        one_per_group: true,
        ..Default::default()
    };
    let reply = api.search().search_text_to_image(request).await?.into_inner();
    Ok(reply.hits.into_iter().map(|hit| hit.group).collect())
}

/// The groups of the names of one language that a picture finds.
///
/// # Errors
/// The server's refusal.
pub async fn names_of(
    api: &Api,
    image: bytes::Bytes,
    language: &str,
    limit: u32,
) -> Result<Vec<String>> {
    let request = v1::SearchImageToTextRequest {
        collection: COLLECTION.to_owned(),
        image,
        limit,
        filter: Some(equals("lang", text_value(language))),
        ..Default::default()
    };
    let reply = api.search().search_image_to_text(request).await?.into_inner();
    Ok(reply.hits.into_iter().map(|hit| hit.group).collect())
}
