//! `centroid`: one side tuned against all concepts at once, while the other stays where it is.
//!
//! A batch of contrastive training shows a text some hundred wrong pictures. With the image tower
//! frozen, each concept's pictures have one mean direction, and a text can be told from all of them:
//! a softmax classifier whose class weights are given. The other way round, each concept of the batch
//! is told its own texts from the others. With `tunes = "pictures"` it is the texts that stay: all
//! pictures of a concept are drawn to the mean direction of its names, and so to each other.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use diptych_model::DualEncoder;
use serde::Deserialize;

use super::{
    Context, Entry, Losses, OWN_PREFIX, Objective, Player, bounded_scale, check_positive,
    check_weight, losses, parse,
};
use crate::corpus::{Concept, Wordings};
use crate::encode;
use crate::error::{Error, Result};
use crate::loader::{Batch, BatchPlan};

pub(super) const ENTRY: Entry = Entry {
    name: "centroid",
    example: "tunes = \"texts\"\nfrom_concept_weight = 0.5",
    build: |table| Ok(Box::new(Centroid::new(parse(table)?)?)),
};

/// The text side of the shared space. What is begun with must not move: neither picture weights nor
/// the exclusive heads, which this loss does not see.
const TEXTS: [Player; 1] =
    [Player { name: "texts", prefixes: &["text.tower.", "text.shared.", "logit_scale"] }];

/// The picture side of it. The scale stays, for the texts.
const PICTURES: [Player; 1] =
    [Player { name: "pictures", prefixes: &["image.tower.", "image.shared.", OWN_PREFIX] }];

/// The side that moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Tuned {
    Texts,
    Pictures,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// The side that moves.
    tunes: Tuned,
    /// Weight of the direction from concepts to what is tuned (the other one has 1), 0 or more.
    from_concept_weight: f64,
    /// Multiplies the similarities, above 0; absent: the model's logit scale. A small one is content only with pictures that lie
    /// close to their centre, where a large one asks for no more than that other centres are further.
    scale: Option<f64>,
    /// Weight of the same loss towards proxies, 0 or more: points that start where the centroids are and move with the pictures, of any length
    /// (Movshovitz-Attias et al., 2017, "No Fuss Distance Metric Learning using Proxies"), so that concepts come apart
    /// whose names lie close together. For pictures alone.
    proxy_weight: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tunes: Tuned::Texts, from_concept_weight: 0.5, scale: None, proxy_weight: 0.0 }
    }
}

#[derive(Debug)]
struct Centroid {
    settings: Settings,
    prefixes: Vec<usize>,
    /// (C, S) unit rows, one for each concept that the other side has something of.
    centroids: Option<Tensor>,
    /// The row of each concept.
    rows: BTreeMap<u32, u32>,
    /// Where the proxies are, from the centroids, where the settings have any.
    offsets: Option<Var>,
}

impl Centroid {
    fn new(settings: Settings) -> Result<Self> {
        check_weight("from_concept_weight", settings.from_concept_weight)?;
        check_weight("proxy_weight", settings.proxy_weight)?;
        if settings.proxy_weight > 0.0 && settings.tunes == Tuned::Texts {
            let message = "needs tunes = \"pictures\": texts are drawn to where the pictures are";
            return Err(Error::setting("objective.proxy_weight", message));
        }
        settings.scale.map_or(Ok(()), |scale| check_positive("scale", scale))?;
        Ok(Self {
            settings,
            prefixes: Vec::new(),
            centroids: None,
            rows: BTreeMap::new(),
            offsets: None,
        })
    }

    fn row(&self, concept: u32) -> Result<u32> {
        let row = self.rows.get(&concept).copied();
        row.ok_or_else(|| Error::setting("data", "a concept of the batch has no centre"))
    }

    /// The two losses of `tuned` (N, S): each row told its class among all rows of `centres` (C, S), and each class of the batch its
    /// rows. Centres may have any length in the whole width; in prefixes they are brought to unit length.
    fn towards(
        &self,
        centres: &Tensor,
        (tuned, classes): (&Tensor, &[u32]),
        scale: &Tensor,
    ) -> Result<[Tensor; 2]> {
        let rows = Tensor::from_slice(classes, classes.len(), tuned.device())?;
        let (mut to, mut from) = (Vec::new(), Vec::new());
        for dims in &self.prefixes {
            let tuned = losses::prefix(tuned, *dims)?;
            let all = losses::prefix(centres, *dims)?.t()?.contiguous()?;
            let logits = tuned.matmul(&all)?.broadcast_mul(scale)?;
            to.push(losses::cross_entropy(&logits, classes)?);
            let own = logits.index_select(&rows, 1)?.t()?.contiguous()?;
            let matches = losses::Matches::new(classes, classes, &own)?;
            from.push(losses::info_nce(&own, &matches)?);
        }
        Ok([Tensor::stack(&to, 0)?.mean_all()?, Tensor::stack(&from, 0)?.mean_all()?])
    }
}

impl Objective for Centroid {
    fn check(&self, plan: &BatchPlan) -> Result<()> {
        let tunes_texts = self.settings.tunes == Tuned::Texts;
        if tunes_texts && (plan.pictures || plan.second_texts > 0) {
            let message = "`centroid` reads texts only: pictures = false and no second views";
            return Err(Error::setting("batch", message));
        }
        if !tunes_texts && (!plan.pictures || plan.second_pictures > 0) {
            let message = "`centroid` with tunes = \"pictures\" reads these alone: no second views";
            return Err(Error::setting("batch", message));
        }
        Ok(())
    }

    fn players(&self) -> &'static [Player] {
        match self.settings.tunes {
            Tuned::Texts => &TEXTS,
            Tuned::Pictures => &PICTURES,
        }
    }

    fn vars(&self) -> BTreeMap<String, Var> {
        self.offsets
            .iter()
            .map(|offsets| (format!("{OWN_PREFIX}proxies"), offsets.clone()))
            .collect()
    }

    fn begin(&mut self, context: Context<'_>) -> Result<()> {
        let Context { encoder, heads, .. } = context;
        self.prefixes = heads.matryoshka.clone();
        self.prefixes.push(heads.shared);
        let centres = match self.settings.tunes {
            Tuned::Texts => centres_of_pictures(context)?,
            Tuned::Pictures => centres_of_names(context)?,
        };
        self.rows = centres.keys().copied().zip(0..).collect();
        let shape = (centres.len(), heads.shared);
        let rows: Vec<f32> = centres.into_values().flatten().collect();
        let centroids = Tensor::from_vec(rows, shape, encoder.device())?;
        if self.settings.proxy_weight > 0.0 {
            self.offsets = Some(Var::from_tensor(&centroids.zeros_like()?)?);
        }
        self.centroids = Some(centroids);
        Ok(())
    }

    fn losses(&mut self, _: &Player, encoder: &DualEncoder, batch: &Batch) -> Result<Losses> {
        let centroids = self.centroids.as_ref();
        let centroids = centroids.ok_or_else(|| Error::setting("centroid", "not begun"))?;
        let scale = match self.settings.scale {
            Some(scale) => Tensor::new(scale as f32, encoder.device())?,
            None => bounded_scale(encoder)?,
        };
        let (tuned, concepts) = match self.settings.tunes {
            Tuned::Texts => (batch.encode_texts(encoder)?.shared, &batch.text_concepts),
            Tuned::Pictures => (batch.encode_pictures(encoder)?.shared, &batch.picture_concepts),
        };
        let classes: Vec<u32> =
            concepts.iter().map(|concept| self.row(*concept)).collect::<Result<_>>()?;
        let towards = |centres: &Tensor| self.towards(centres, (&tuned, &classes), &scale);
        let [to_concept, from_concept] = towards(centroids)?;
        let mut total = (&to_concept + (&from_concept * self.settings.from_concept_weight)?)?;
        let mut terms = vec![("to_concept", to_concept), ("from_concept", from_concept)];
        if let Some(offsets) = &self.offsets {
            let [to_proxy, from_proxy] = towards(&(centroids + offsets.as_tensor())?)?;
            let proxies = (&to_proxy + (&from_proxy * self.settings.from_concept_weight)?)?;
            total = (total + (proxies * self.settings.proxy_weight)?)?;
            terms.extend([("to_proxy", to_proxy), ("from_proxy", from_proxy)]);
        }
        Ok(Losses { total, terms })
    }
}

/// The mean direction of each concept's pictures.
fn centres_of_pictures(context: Context<'_>) -> Result<BTreeMap<u32, Vec<f32>>> {
    let Context { encoder, heads, corpus, image_size, .. } = context;
    let vectors = encode::pictures(encoder, corpus, image_size)?.shared.to_vec2::<f32>()?;
    let pictured = (0_u32..).zip(&corpus.concepts).filter(|(_, c)| !c.pictures.is_empty());
    let centre = |concept: &Concept| {
        mean_direction(concept.pictures.iter().map(|picture| &vectors[*picture]), heads.shared)
    };
    Ok(pictured.map(|(index, concept)| (index, centre(concept))).collect())
}

/// The mean direction of the names of each concept to train on, without those that are withheld; of its keywords where a language has
/// no name for it.
fn centres_of_names(context: Context<'_>) -> Result<BTreeMap<u32, Vec<f32>>> {
    let Context { encoder, heads, corpus, withheld, .. } = context;
    let mut named: Vec<(u32, String)> = Vec::new();
    for (concept, wordings) in corpus.training_wordings(withheld) {
        for (_, Wordings { names, keywords }) in wordings {
            let said = if names.is_empty() { keywords } else { names };
            named.extend(said.into_iter().map(|text| (concept, text)));
        }
    }
    if named.is_empty() {
        return Err(Error::setting("data.folder", "no concept to train on has a name"));
    }
    let names: Vec<&str> = named.iter().map(|(_, name)| name.as_str()).collect();
    let vectors = encode::texts(encoder, corpus.preprocessing(), &names)?.shared;
    let mut members: BTreeMap<u32, Vec<Vec<f32>>> = BTreeMap::new();
    for ((concept, _), vector) in named.iter().zip(vectors.to_vec2::<f32>()?) {
        members.entry(*concept).or_default().push(vector);
    }
    Ok(members
        .into_iter()
        .map(|(concept, members)| (concept, mean_direction(members.iter(), heads.shared)))
        .collect())
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

#[cfg(test)]
mod tests;
