//! `diptych search`.

use std::path::Path;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use diptych::v1::term::Source;
use diptych::{Client, v1};
use serde_json::{Value as Json, json};

use super::args::{SearchArgs, Shared, Target};
use super::explain;
use super::like;
use super::out::Out;
use super::pictures::Screen;
use super::table;
use super::value::{equals_typed, metadata_json, modality_name, source_text};

/// Searches and prints the hits.
pub(crate) async fn run(
    client: &Client,
    shared: &Shared,
    args: SearchArgs,
    out: Out,
) -> Result<()> {
    let pages = if args.all { u32::MAX } else { args.pages };
    let request = request(shared, &args)?;
    if let Some(id) = args.explain {
        return explain::run(client, request, id, out).await;
    }
    let hits = fetch(client, request, pages).await?;
    if out.json {
        let hits: Vec<Json> = hits.iter().map(hit_json).collect();
        return out.value(&json!({ "hits": hits }));
    }
    if hits.is_empty() {
        return Ok(out.line("no hits")?);
    }
    out.line(&table::hits(out, &hits).trim_fmt())?;
    if let Some(screen) = Screen::find(args.pictures, out) {
        screen.show(client, &shared.collection, &hits, out).await?;
    }
    Ok(())
}

/// The hits of so many pages, or of as many as there are.
async fn fetch(
    client: &Client,
    mut request: v1::SearchRequest,
    pages: u32,
) -> diptych::Result<Vec<v1::Hit>> {
    let mut hits = Vec::new();
    for _ in 0..pages {
        let page = client.search(request.clone()).await?;
        hits.extend(page.hits);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(hits)
}

/// The general search serves both plain questions too, and only it can give the texts of hits.
fn request(shared: &Shared, args: &SearchArgs) -> Result<v1::SearchRequest> {
    let (terms, found) = question(args)?;
    let target = args.target.unwrap_or(found);
    // The source of a picture would only make the answer large.
    let (target, parts): (_, &[&str]) = match target {
        Target::Image => (v1::Modality::Image, &["metadata"]),
        Target::Text => (v1::Modality::Text, &["metadata", "source"]),
    };
    Ok(v1::SearchRequest {
        collection: shared.collection.clone(),
        terms,
        target: target.into(),
        filter: filter(&args.filters),
        limit: shared.limit,
        one_per_group: shared.one_per_group,
        read_mask: Some(diptych::mask(parts)),
        exact: args.exact,
        prefix_dims: args.prefix_dims,
        ..Default::default()
    })
}

/// What is asked by, and what that finds unless something else is asked for.
fn question(args: &SearchArgs) -> Result<(Vec<v1::Term>, Target)> {
    if let Some(path) = &args.like.picture {
        return Ok((like::terms(path, &args.like)?, Target::Image));
    }
    let (source, found) = match &args.image {
        Some(path) => (Source::Image(read_picture(path)?), Target::Text),
        None => (Source::Text(args.text.clone().unwrap_or_default()), Target::Image),
    };
    Ok((vec![v1::Term { source: Some(source), ..Default::default() }], found))
}

/// The condition that all of these pairs hold; nothing without any.
pub(crate) fn filter(pairs: &[(String, String)]) -> Option<v1::Filter> {
    let filters: Vec<v1::Filter> =
        pairs.iter().map(|(key, value)| equals_typed(key, value)).collect();
    (!filters.is_empty()).then(|| diptych::all_of(filters))
}

/// The bytes of a picture's file.
pub(crate) fn read_picture(path: &Path) -> Result<Bytes> {
    let bytes = std::fs::read(path)
        .with_context(|| format!("cannot read the picture {}", path.display()))?;
    Ok(bytes.into())
}

pub(crate) fn hit_json(hit: &v1::Hit) -> Json {
    let mut json = json!({
        "id": hit.id,
        "group": hit.group,
        "score": hit.score,
        "modality": modality_name(hit.modality),
        "metadata": metadata_json(&hit.metadata),
        "version": hit.version,
    });
    if let Some(text) = source_text(hit.source.as_ref()) {
        json["text"] = json!(text);
    }
    if let Some(probability) = hit.probability {
        json["probability"] = json!(probability);
    }
    json
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Arguments, Command};

    fn asked(line: &str) -> v1::SearchRequest {
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        let Command::Search(args) = arguments.command else { panic!("no search") };
        request(&arguments.shared, &args).unwrap()
    }

    #[test]
    fn a_text_finds_pictures_and_their_bytes_stay_where_they_are() {
        let request = asked("diptych search heart");
        assert_eq!(request.target(), v1::Modality::Image);
        assert_eq!(request.read_mask.unwrap().paths, ["metadata"]);
        assert!(request.one_per_group && request.filter.is_none());
    }

    #[test]
    fn texts_come_with_what_they_say() {
        let request = asked("diptych search heart --target text --filter lang=de --filter n=1");
        assert_eq!(request.target(), v1::Modality::Text);
        assert_eq!(request.read_mask.unwrap().paths, ["metadata", "source"]);
        let Some(v1::filter::Condition::And(list)) = request.filter.unwrap().condition else {
            panic!("filters are not joined by and")
        };
        assert_eq!(list.filters.len(), 2);
    }

    #[test]
    fn a_picture_finds_texts_or_pictures_like_it() {
        let picture = tempfile::NamedTempFile::new().unwrap();
        let path = picture.path().display();
        for (option, found) in [
            ("--image", v1::Modality::Text),
            ("--like", v1::Modality::Image),
            ("--other-style --like", v1::Modality::Image),
        ] {
            assert_eq!(asked(&format!("diptych search {option} {path}")).target(), found);
        }
    }

    #[test]
    fn a_hit_in_json_has_its_text_only_when_it_is_one() {
        let content = Some(v1::source::Content::Text("ein Herz".to_owned()));
        let hit = v1::Hit {
            id: "a".to_owned(),
            modality: v1::Modality::Text.into(),
            source: Some(v1::Source { content }),
            ..Default::default()
        };
        assert_eq!(hit_json(&hit)["text"], "ein Herz");
        assert_eq!(hit_json(&hit)["modality"], "text");
        assert!(hit_json(&v1::Hit::default()).get("text").is_none());
    }
}
