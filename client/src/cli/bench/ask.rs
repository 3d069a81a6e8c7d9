//! One call of a load.

use diptych::{Client, v1};

use super::super::args::{BenchArgs, BenchCall, Shared, Target};
use super::query::{Input, Queries, Truth};

/// Makes calls, by number.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) client: Client,
    pub(super) queries: Queries,
    call: BenchCall,
    target: Target,
    collection: String,
    limit: u32,
    one_per_group: bool,
}

/// How much of what is right was found, for a query that tells it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    /// Whether there was a right one among the hits.
    pub(super) any: bool,
    /// Share of the right ones, or of as many as there are hits, that was found.
    pub(super) share: f64,
}

impl Ask {
    pub(super) fn new(client: Client, queries: Queries, shared: &Shared, args: &BenchArgs) -> Self {
        Self {
            client,
            queries,
            call: args.call,
            target: args.target,
            collection: shared.collection.clone(),
            limit: shared.limit,
            one_per_group: shared.one_per_group,
        }
    }

    /// Makes the call with this number.
    pub(super) async fn call(&self, number: u64) -> diptych::Result<Option<Found>> {
        let (input, truth) = self.queries.nth(number);
        let hits = self.send(input).await?;
        Ok(truth.map(|truth| found(&hits, truth, self.limit as usize)))
    }

    async fn send(&self, input: Input) -> diptych::Result<Vec<v1::Hit>> {
        let collection = || self.collection.clone();
        let (limit, one_per_group) = (self.limit, self.one_per_group);
        match (input, self.call) {
            (Input::Text(text), BenchCall::EmbedText) => {
                let request = v1::EmbedTextRequest { text, ..Default::default() };
                self.client.embed_text(request).await.map(|_| Vec::new())
            }
            (Input::Image(image), BenchCall::EmbedImage) => {
                let request = v1::EmbedImageRequest { image, ..Default::default() };
                self.client.embed_image(request).await.map(|_| Vec::new())
            }
            (Input::Text(text), _) => {
                let collection = collection();
                let request = v1::SearchTextToImageRequest {
                    collection,
                    text,
                    limit,
                    one_per_group,
                    ..Default::default()
                };
                self.client.search_text_to_image(request).await.map(|reply| reply.hits)
            }
            (Input::Image(image), _) => {
                let collection = collection();
                let request = v1::SearchImageToTextRequest {
                    collection,
                    image,
                    limit,
                    one_per_group,
                    ..Default::default()
                };
                self.client.search_image_to_text(request).await.map(|reply| reply.hits)
            }
            (Input::Vector(vector), _) => {
                let request = self.by_vector(&vector);
                self.client.search(request).await.map(|reply| reply.hits)
            }
        }
    }

    fn by_vector(&self, vector: &[f32]) -> v1::SearchRequest {
        let packed: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
        let vector = v1::Vector {
            dimension: u32::try_from(vector.len()).unwrap_or(u32::MAX),
            values: Some(v1::vector::Values::PackedF32(packed.into())),
        };
        let target = match self.target {
            Target::Image => v1::Modality::Image,
            Target::Text => v1::Modality::Text,
        };
        v1::SearchRequest {
            collection: self.collection.clone(),
            terms: vec![v1::Term {
                source: Some(v1::term::Source::Vector(vector)),
                ..Default::default()
            }],
            target: target.into(),
            limit: self.limit,
            one_per_group: self.one_per_group,
            ..Default::default()
        }
    }
}

fn found(hits: &[v1::Hit], truth: &Truth, limit: usize) -> Found {
    let hits = &hits[..hits.len().min(limit)];
    let right = |hit: &v1::Hit| truth.ids.contains(&hit.id);
    // A group counts once, however many of its items are hits.
    let groups = truth.groups.iter().filter(|group| hits.iter().any(|hit| hit.group == **group));
    let found = hits.iter().filter(|hit| right(hit)).count() + groups.count();
    let most = (truth.ids.len() + truth.groups.len()).min(limit).max(1);
    Found { any: found > 0, share: (found as f64 / most as f64).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_a_share_of_what_could_be() {
        let hit = |id: &str, group: &str| v1::Hit {
            id: id.to_owned(),
            group: group.to_owned(),
            ..Default::default()
        };
        let hits = [hit("a", "1"), hit("b", "1"), hit("c", "2")];
        let set = |of: &[&str]| of.iter().map(ToString::to_string).collect();
        let check = |ids: &[&str], groups: &[&str], limit, any, share| {
            let truth = Truth { ids: set(ids), groups: set(groups) };
            assert_eq!(found(&hits, &truth, limit), Found { any, share });
        };
        check(&["a", "x"], &[], 3, true, 0.5);
        check(&["a", "b", "c", "x", "y"], &[], 3, true, 1.0);
        check(&["c"], &[], 2, false, 0.0);
        check(&[], &["1", "3"], 3, true, 0.5);
    }
}
