//! What an exclusive vector is known to say: a label column of the pictures, the language of the texts.
//!
//! A classifier by cosines on the exclusive vectors, with a cross-entropy of its own (Wang et al., 2017, "NormFace", eq. 7). It gives the
//! exclusive head a reason to keep what the shared vectors have none for; and since its weights cannot grow, vectors of one
//! class must lie close together and far from the others', which is what a search by them goes by. Use it where a user has
//! such labels, and say so beside the figures.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Tensor, Var};
use diptych_model::{Init, Params, ops};
use serde::Deserialize;

use super::{Context, Losses, check_weight, losses};
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::loader::Batch;

/// Cosines are multiplied by it. A small one asks for more than to be told apart: of three classes, a vector is content at a cosine of 1 with
/// its own class's direction and -1/2 with the others'.
const SCALE: f64 = 4.0;

/// Settings of the loss, `objective.exclusive_label` in a run file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// The label column that exclusive vectors of pictures are to tell; absent: none.
    image: Option<String>,
    /// What exclusive vectors of texts are to tell: `language`; absent: nothing.
    text: Option<TextFactor>,
    /// Weight of each of the two, 0 or more.
    #[serde(default = "one")]
    weight: f64,
}

const fn one() -> f64 {
    1.0
}

/// What is known of a text beside its concept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TextFactor {
    Language,
}

/// The loss, with its classifiers.
#[derive(Debug)]
pub(super) struct ExclusiveLabel {
    settings: Settings,
    image: Option<(Classifier, Vec<Option<u32>>)>,
    text: Option<(Classifier, BTreeMap<String, u32>)>,
    params: Option<Params>,
}

/// (C, E): a direction for each class.
#[derive(Debug)]
struct Classifier(Tensor);

impl Classifier {
    fn new(params: &Params, name: &str, classes: usize, dims: usize) -> Result<Self> {
        let start = Init::Kaiming { fan_in: dims };
        Ok(Self(params.get(&format!("{name}.weight"), &[classes, dims], start)?))
    }

    /// Cross-entropy of the rows of `vectors` (N, E) that have a class; `None` if none has.
    fn loss(&self, vectors: &Tensor, classes: &[Option<u32>]) -> Result<Option<Tensor>> {
        let labelled = (0_u32..).zip(classes).filter_map(|(row, class)| Some((row, (*class)?)));
        let (rows, classes): (Vec<u32>, Vec<u32>) = labelled.unzip();
        if rows.is_empty() {
            return Ok(None);
        }
        let rows = Tensor::new(rows, vectors.device())?;
        let directions = ops::l2_normalize(&self.0)?.t()?.contiguous()?;
        let cosines = vectors.index_select(&rows, 0)?.matmul(&directions)?;
        losses::cross_entropy(&(cosines * SCALE)?, &classes).map(Some)
    }
}

impl ExclusiveLabel {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        check_weight("exclusive_label.weight", settings.weight)?;
        if settings.image.is_none() && settings.text.is_none() {
            let message = "names neither `image` nor `text`";
            return Err(Error::setting("objective.exclusive_label", message));
        }
        Ok(Self { settings, image: None, text: None, params: None })
    }

    pub(super) fn vars(&self) -> BTreeMap<String, Var> {
        self.params.as_ref().map(Params::vars).unwrap_or_default()
    }

    /// Finds the classes in what is there to train on, and makes the classifiers.
    pub(super) fn begin(&mut self, context: Context<'_>) -> Result<()> {
        let Context { encoder, corpus, heads, seed, .. } = context;
        let params = Params::seeded(seed, encoder.logit_scale().device());
        if let Some(column) = &self.settings.image {
            let (classes, of_pictures) = picture_classes(corpus, column)?;
            let name = "objective.exclusive_label.image";
            let classifier = Classifier::new(&params, name, classes, heads.exclusive_image)?;
            self.image = Some((classifier, of_pictures));
        }
        if self.settings.text == Some(TextFactor::Language) {
            let languages: BTreeMap<String, u32> =
                corpus.languages().into_iter().map(str::to_owned).zip(0..).collect();
            at_least_two("text", "language", languages.len())?;
            let name = "objective.exclusive_label.text";
            let classifier = Classifier::new(&params, name, languages.len(), heads.exclusive_text)?;
            self.text = Some((classifier, languages));
        }
        self.params = Some(params);
        Ok(())
    }

    /// The weighted loss of the exclusive vectors of a batch's pictures (P, E) and texts (T, E'), and
    /// its terms; `None` where nothing in the batch is labelled.
    pub(super) fn losses(
        &self,
        (pictures, texts): (&Tensor, &Tensor),
        batch: &Batch,
    ) -> Result<Option<Losses>> {
        let mut terms = Vec::new();
        if let Some((classifier, classes)) = &self.image {
            let classes: Vec<_> = batch.pictures.iter().map(|picture| classes[*picture]).collect();
            let loss = classifier.loss(pictures, &classes)?;
            terms.extend(loss.map(|loss| ("exclusive_label_image", loss)));
        }
        if let Some((classifier, classes)) = &self.text {
            let class = |language: &String| classes.get(language).copied();
            let classes: Vec<_> = batch.text_languages.iter().map(class).collect();
            let loss = classifier.loss(texts, &classes)?;
            terms.extend(loss.map(|loss| ("exclusive_label_text", loss)));
        }
        let mut total: Option<Tensor> = None;
        for (_, term) in &terms {
            let weighted = (term * self.settings.weight)?;
            total = Some(match total {
                None => weighted,
                Some(total) => (total + weighted)?,
            });
        }
        Ok(total.map(|total| Losses { total, terms }))
    }
}

/// The number of values of a label column, and the class of each picture that has one.
fn picture_classes(corpus: &Corpus, column: &str) -> Result<(usize, Vec<Option<u32>>)> {
    let at = corpus.label(column).ok_or_else(|| {
        let message =
            format!("the data has no label column `{column}`; it has {:?}", corpus.manifest.labels);
        Error::setting("objective.exclusive_label.image", message)
    })?;
    let label = |picture: usize| corpus.pictures[picture].labels[at].as_deref();
    let values: BTreeSet<&str> = (0..corpus.pictures.len()).filter_map(label).collect();
    at_least_two("image", column, values.len())?;
    let classes: BTreeMap<&str, u32> = values.into_iter().zip(0..).collect();
    let class = |picture: usize| label(picture).map(|value| classes[value]);
    Ok((classes.len(), (0..corpus.pictures.len()).map(class).collect()))
}

fn at_least_two(side: &str, factor: &str, count: usize) -> Result<()> {
    if count >= 2 {
        return Ok(());
    }
    let message = format!("`{factor}` has {count} values in the data; it takes two to tell apart");
    Err(Error::setting(format!("objective.exclusive_label.{side}"), message))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_loss_goes_by_cosines_and_leaves_out_who_has_no_class() {
        // By hand: directions (1, 0) and (0, 1), whatever their length. The first row has cosines (1, 0), of class 0:
        // ln(1 + e^-4) = 0.01815; the third (.6, .8), of class 0: ln(1 + e^(4 * .2)) = 1.17110; the second counts for nothing.
        let device = Device::Cpu;
        let classifier = Classifier(Tensor::new(&[[2.0_f32, 0.0], [0.0, 0.3]], &device).unwrap());
        let rows = Tensor::new(&[[1.0_f32, 0.0], [0.0, 1.0], [0.6, 0.8]], &device).unwrap();
        let loss = classifier.loss(&rows, &[Some(0), None, Some(0)]).unwrap().unwrap();
        let loss = loss.to_scalar::<f32>().unwrap();
        assert!((loss - (0.01815 + 1.17110) / 2.0).abs() < 1e-4, "{loss}");
        assert!(classifier.loss(&rows, &[None, None, None]).unwrap().is_none());
    }
}
