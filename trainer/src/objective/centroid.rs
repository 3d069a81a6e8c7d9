//! `centroid`: texts tuned against all concepts at once, while the pictures stay where they are.
//!
//! A batch of contrastive training shows a text some hundred wrong pictures. With the image tower
//! frozen, each concept's pictures have one mean direction, and a text can be told from all of them:
//! a softmax classifier whose class weights are given. The other way round, each concept of the batch
//! is told its own texts from the others.

use std::collections::BTreeMap;

use candle_core::Tensor;
use diptych_model::DualEncoder;
use serde::Deserialize;

use super::{
    Context, Entry, Losses, Objective, Player, bounded_scale, check_weight, losses, parse,
};
use crate::encode;
use crate::error::{Error, Result};
use crate::loader::{Batch, BatchPlan};

pub(super) const ENTRY: Entry = Entry {
    name: "centroid",
    example: "concept_to_text_weight = 0.5",
    build: |table| Ok(Box::new(Centroid::new(parse(table)?)?)),
};

/// The text side of the shared space. What is begun with must not move: neither picture weights nor
/// the exclusive heads, which this loss does not see.
const PLAYERS: [Player; 1] =
    [Player { name: "texts", prefixes: &["text.tower.", "text.shared.", "logit_scale"] }];

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Weight of the direction from concepts to texts (the other one has 1), 0 or more.
    concept_to_text_weight: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { concept_to_text_weight: 0.5 }
    }
}

#[derive(Debug)]
struct Centroid {
    settings: Settings,
    prefixes: Vec<usize>,
    /// (C, S) unit rows, one for each concept with pictures.
    centroids: Option<Tensor>,
    /// The row of each concept.
    rows: BTreeMap<u32, u32>,
}

impl Centroid {
    fn new(settings: Settings) -> Result<Self> {
        check_weight("concept_to_text_weight", settings.concept_to_text_weight)?;
        Ok(Self { settings, prefixes: Vec::new(), centroids: None, rows: BTreeMap::new() })
    }

    fn row(&self, concept: u32) -> Result<u32> {
        let row = self.rows.get(&concept).copied();
        row.ok_or_else(|| Error::setting("data", "a concept of the batch has no pictures"))
    }
}

impl Objective for Centroid {
    fn check(&self, plan: &BatchPlan) -> Result<()> {
        if plan.pictures || plan.second_texts > 0 {
            let message = "`centroid` reads texts only: pictures = false and no second views";
            return Err(Error::setting("batch", message));
        }
        Ok(())
    }

    fn players(&self) -> &'static [Player] {
        &PLAYERS
    }

    fn begin(&mut self, context: Context<'_>) -> Result<()> {
        let Context { encoder, heads, corpus, image_size, .. } = context;
        self.prefixes = heads.matryoshka.clone();
        self.prefixes.push(heads.shared);
        let vectors = encode::pictures(encoder, corpus, image_size)?.shared.to_vec2::<f32>()?;
        let pictured = corpus.concepts.iter().zip(0_u32..).filter(|(c, _)| !c.pictures.is_empty());
        let mut centroids = Vec::new();
        self.rows.clear();
        for (concept, index) in pictured {
            let members = concept.pictures.iter().map(|picture| &vectors[*picture]);
            centroids.extend(mean_direction(members, heads.shared));
            self.rows.insert(index, self.rows.len() as u32);
        }
        let shape = (self.rows.len(), heads.shared);
        self.centroids = Some(Tensor::from_vec(centroids, shape, encoder.device())?);
        Ok(())
    }

    fn losses(&mut self, _: &Player, encoder: &DualEncoder, batch: &Batch) -> Result<Losses> {
        let centroids = self.centroids.as_ref();
        let centroids = centroids.ok_or_else(|| Error::setting("centroid", "not begun"))?;
        let scale = bounded_scale(encoder)?;
        let texts = batch.encode_texts(encoder)?.shared;
        let classes: Vec<u32> =
            batch.text_concepts.iter().map(|concept| self.row(*concept)).collect::<Result<_>>()?;
        let rows = Tensor::from_slice(&classes, classes.len(), texts.device())?;
        let mut to_concept = Vec::new();
        let mut to_text = Vec::new();
        for dims in &self.prefixes {
            let texts = losses::prefix(&texts, *dims)?;
            let all = losses::prefix(centroids, *dims)?.t()?.contiguous()?;
            let logits = texts.matmul(&all)?.broadcast_mul(&scale)?;
            to_concept.push(losses::cross_entropy(&logits, &classes)?);
            let own = logits.index_select(&rows, 1)?.t()?.contiguous()?;
            let matches = losses::Matches::new(&classes, &classes, &own)?;
            to_text.push(losses::info_nce(&own, &matches)?);
        }
        let to_concept = Tensor::stack(&to_concept, 0)?.mean_all()?;
        let to_text = Tensor::stack(&to_text, 0)?.mean_all()?;
        let total = (&to_concept + (&to_text * self.settings.concept_to_text_weight)?)?;
        Ok(Losses { total, terms: vec![("to_concept", to_concept), ("to_text", to_text)] })
    }
}

/// The mean of some vectors, scaled to unit length; zero if they cancel out.
fn mean_direction<'a>(vectors: impl Iterator<Item = &'a Vec<f32>>, dims: usize) -> Vec<f32> {
    let mut sum = vec![0.0_f32; dims];
    for vector in vectors {
        for (sum, value) in sum.iter_mut().zip(vector) {
            *sum += value;
        }
    }
    let norm = sum.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
    sum.into_iter().map(|value| value / norm).collect()
}
