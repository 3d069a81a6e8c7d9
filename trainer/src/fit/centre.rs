//! Where the shared head of pictures starts: from features with their mean taken off.
//!
//! Pooled features after a rectifier are all positive and group normalisation gives every picture
//! nearly the same total, so fresh weights send all pictures in nearly the same direction. A
//! contrastive loss then sits at the logarithm of the batch size for a hundred steps before it moves.
//! Weights and bias are therefore set once from data, so that over the pictures each feature has mean
//! 0 and variance 1 before the head (Salimans and Kingma, 2016, section 3, for the layer's input).

use candle_core::{Tensor, Var};
use diptych_model::tower::ImageFeatures;

use super::Training;
use crate::corpus::Concept;
use crate::encode;
use crate::error::{Error, Result};
use crate::shards::Split;

/// Pictures that mean and variance are taken over.
const PICTURES: usize = 512;

/// Under the root of the variance: a feature that never varies stays out.
const EPSILON: f64 = 1e-6;

/// Sets the logit scale to a factor.
pub(super) fn set_logit_scale(training: &Training, factor: f64) -> Result<()> {
    let vars = training.params.vars();
    let var = vars.get("logit_scale");
    let var = var.ok_or_else(|| Error::setting("model", "there is no `logit_scale`"))?;
    var.set(&(var.as_tensor().zeros_like()? + factor.ln())?)?;
    Ok(())
}

/// Sets the shared heads of pictures from a spread of the corpus's pictures.
pub(super) fn centre_pictures(training: &Training) -> Result<()> {
    let encoder = &training.encoder;
    centre_side(training, "image", |c| &c.pictures, |pixels| Ok(encoder.image_features(pixels)?))?;
    if encoder.pairs_pictures() {
        let features = |pixels: &Tensor| Ok(encoder.counterpart_features(pixels)?);
        centre_side(training, "counterpart", |c| &c.counterparts, features)?;
    }
    Ok(())
}

fn centre_side(
    training: &Training,
    name: &str,
    pictures: impl Fn(&Concept) -> &Vec<usize>,
    features: impl Fn(&Tensor) -> Result<ImageFeatures>,
) -> Result<()> {
    let corpus = &training.corpus;
    let trained = corpus.concepts.iter().filter(|concept| concept.split == Split::Train);
    let mut pictures: Vec<usize> = trained.flat_map(pictures).copied().collect();
    pictures.sort_unstable();
    let stride = pictures.len().div_ceil(PICTURES).max(1);
    let chosen: Vec<usize> = pictures.into_iter().step_by(stride).collect();
    let pixels = encode::pixels(corpus, &chosen, training.run.model.image_size()?)?;
    let features = features(&pixels)?.last.detach();
    let vars = training.params.vars();
    let var = |part: &str| {
        let name = format!("{name}.shared.{part}");
        vars.get(&name).ok_or_else(|| Error::setting("model", format!("there is no `{name}`")))
    };
    centre(&features, var("weight")?, var("bias")?)
}

/// Sets the weight (S, D) and bias (S) of a head so that over `features` (N, D) each feature has mean 0
/// and variance 1 before it.
pub(crate) fn centre(features: &Tensor, weight: &Var, bias: &Var) -> Result<()> {
    let mean = features.mean_keepdim(0)?;
    let variance = features.broadcast_sub(&mean)?.sqr()?.mean_keepdim(0)?;
    let deviation = (variance + EPSILON)?.sqrt()?;
    // W ((f - mean) / deviation) = (W / deviation) f - (W / deviation) mean
    let scaled = weight.as_tensor().broadcast_div(&deviation)?;
    let shift = scaled.matmul(&mean.t()?.contiguous()?)?.squeeze(1)?.neg()?;
    weight.set(&scaled)?;
    bias.set(&shift)?;
    Ok(())
}
