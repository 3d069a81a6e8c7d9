//! Items and hits as replies carry them.

use std::time::Duration;

use diptych_index::{Item, Modality, Pages, Vectors};
use diptych_proto::v1;

use super::convert::{Mask, modality_out, timestamp, truncation};
use super::value::{metadata_out, vector_out};
use crate::explain::Explained;
use crate::retrieval::{Answer, FilledHit};
use crate::timings::Timings;

/// What an item was made from.
fn source_out(modality: Modality, source: Vec<u8>) -> v1::Source {
    use v1::source::Content;
    let content = match modality {
        Modality::Image => Content::Image(source.into()),
        Modality::Text => Content::Text(String::from_utf8_lossy(&source).into_owned()),
    };
    v1::Source { content: Some(content) }
}

fn vectors_out(vectors: &Vectors) -> v1::Vectors {
    v1::Vectors {
        shared: vectors.shared.as_deref().map(vector_out),
        exclusive: vectors.exclusive.as_deref().map(vector_out),
    }
}

/// A stored item.
pub(super) fn item_out(item: Item, mask: Mask) -> v1::Item {
    v1::Item {
        modality: modality_out(item.modality),
        source: item.source.map(|source| source_out(item.modality, source)),
        vectors: mask.fields.vectors.then(|| vectors_out(&item.vectors)),
        id: item.id.as_str().to_owned(),
        group: item.group.unwrap_or_default(),
        metadata: if mask.metadata { metadata_out(item.metadata) } else { Default::default() },
        version: item.version,
        create_time: Some(timestamp(item.created_at_ms)),
        update_time: Some(timestamp(item.updated_at_ms)),
    }
}

fn hit_out(hit: FilledHit, metadata: bool) -> v1::Hit {
    let FilledHit { score, term_scores, probability, item } = hit;
    v1::Hit {
        score: score.into(),
        term_scores: term_scores.into_iter().map(f64::from).collect(),
        probability,
        modality: modality_out(item.modality),
        source: item.source.map(|source| source_out(item.modality, source)),
        id: item.id.as_str().to_owned(),
        group: item.group.unwrap_or_default(),
        metadata: if metadata { metadata_out(item.metadata) } else { Default::default() },
        version: item.version,
    }
}

/// Hits, next page and the rest of a search's reply.
pub(super) fn answer_out(answer: Answer, metadata: bool) -> (Vec<v1::Hit>, String, v1::SearchInfo) {
    let page_consistency = match answer.pages {
        Pages::Pinned => v1::PageConsistency::Pinned,
        Pages::BestEffort => v1::PageConsistency::BestEffort,
    };
    let info = v1::SearchInfo {
        generation: answer.generation,
        embedding_digest: answer.embedding_digest,
        cut: answer.cut,
        page_consistency: page_consistency.into(),
        truncation: truncation(answer.truncation),
        timings: None,
    };
    let hits = answer.hits.into_iter().map(|hit| hit_out(hit, metadata)).collect();
    // Last, so that the hits are in the total.
    let info = v1::SearchInfo { timings: answer.timings.as_ref().map(timings_out), ..info };
    (hits, answer.next_page_token, info)
}

fn timings_out(timings: &Timings) -> v1::SearchTimings {
    let out = |part: Duration| prost_types::Duration::try_from(part).ok();
    let embed = &timings.embed;
    v1::SearchTimings {
        check: out(timings.check),
        wait: out(embed.wait),
        decode: out(embed.decode),
        resize: out(embed.resize),
        tokenize: out(embed.tokenize),
        encode: out(embed.encode),
        search: out(timings.search),
        fill: out(timings.fill),
        total: out(timings.total()),
    }
}

/// An explained item.
pub(super) fn explained_out(explained: Explained, metadata: bool) -> v1::ExplainMatchResponse {
    let Explained { hit, passes, rank, route, visited, answer } = explained;
    let (_, _, info) = answer_out(answer, metadata);
    v1::ExplainMatchResponse {
        hit: Some(hit_out(hit, metadata)),
        passes,
        rank,
        route: route.to_owned(),
        visited,
        info: Some(info),
    }
}
