//! `hybrid`: a contrast for what is shared, a reconstruction for what is not.
//!
//! - Shared: symmetric InfoNCE, see [`super::contrast`], and the concentration that keeps vectors apart.
//! - Reconstruction: each picture and each text is made again from the *other* side's shared vector and
//!   its own exclusive code, by decoders that the exclusive code modulates (see
//!   [`diptych_model::decoder`]). What the other side does not tell must be in the exclusive code.
//! - Capacity: the exclusive code is the mean of a diagonal Gaussian, a draw of which is decoded; its
//!   divergence from the standard normal makes every bit that it keeps cost something (Kingma and
//!   Welling, 2014). What the other side tells is free, so that it is left out here.
//! - Orthogonality: linear centred kernel alignment of shared vectors and exclusive codes, with gradients
//!   into both.
//! - Known labels, if the settings name some: see [`super::exclusive_label`].

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use diptych_model::{DualEncoder, Init, Params};
use serde::Deserialize;

use super::affine::Affine;
use super::contrast::Contrast;
use super::decoders::{self, Decoders, SharedCode};
use super::exclusive_label::{self, ExclusiveLabel};
use super::losses::{self, Gaussian};
use super::noise::{self, Side};
use super::{Context, Entry, Losses, Objective, Player, bounded_scale, check_weight, parse};
use crate::error::{Error, Result};
use crate::loader::{Batch, BatchPlan, Reading};

pub(super) const ENTRY: Entry = Entry {
    name: "hybrid",
    example: "reconstruction_weight = 600.0\nkl_weight = 1.0\ndecoder = { width = 32 }",
    build: |table| Ok(Box::new(Hybrid::new(parse(table)?)?)),
};

/// Everything, in one turn.
const PLAYERS: [Player; 1] = [Player { name: "all", prefixes: &[""] }];

/// The log-variance that exclusive codes start with: little noise, so that the decoders hear them.
const START: f64 = -2.0;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Weight of the contrast of shared vectors, 0 or more.
    shared_weight: f64,
    /// Weight of the concentration of shared vectors, 0 or more.
    centring_weight: f64,
    /// Weight of the error of pictures, a mean over pixels, 0 or more.
    reconstruction_weight: f64,
    /// Weight of the error of texts, a mean over words, 0 or more.
    text_reconstruction_weight: f64,
    /// Weight of the divergence of exclusive codes, a sum over dimensions, 0 or more.
    kl_weight: f64,
    /// Weight of the alignment of shared vectors and exclusive codes, 0 or more.
    orthogonality_weight: f64,
    /// The decoders.
    decoder: decoders::Settings,
    /// What the exclusive vectors are known to say; absent: nothing is.
    exclusive_label: Option<exclusive_label::Settings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shared_weight: 1.0,
            centring_weight: 1.0,
            reconstruction_weight: 600.0,
            text_reconstruction_weight: 10.0,
            kl_weight: 1.0,
            orthogonality_weight: 1.0,
            decoder: decoders::Settings::default(),
            exclusive_label: None,
        }
    }
}

#[derive(Debug)]
struct Hybrid {
    settings: Settings,
    contrast: Contrast,
    known: Option<ExclusiveLabel>,
    networks: Option<Networks>,
}

/// What only the objective has.
#[derive(Debug)]
struct Networks {
    params: Params,
    decoders: Decoders,
    /// Exclusive codes to their log-variances, of pictures and of texts.
    spread: [Affine; 2],
}

/// One side of a batch, first views alone.
struct Half {
    /// Unit rows.
    shared: Tensor,
    /// The shared codes as decoders read them.
    content: Tensor,
    /// The exclusive vectors, unit rows.
    exclusive: Tensor,
    posterior: Gaussian,
    /// A draw from it.
    drawn: Tensor,
}

impl Hybrid {
    fn new(mut settings: Settings) -> Result<Self> {
        let known = settings.exclusive_label.take().map(ExclusiveLabel::new).transpose()?;
        for (name, weight) in [
            ("shared_weight", settings.shared_weight),
            ("centring_weight", settings.centring_weight),
            ("reconstruction_weight", settings.reconstruction_weight),
            ("text_reconstruction_weight", settings.text_reconstruction_weight),
            ("kl_weight", settings.kl_weight),
            ("orthogonality_weight", settings.orthogonality_weight),
        ] {
            check_weight(name, weight)?;
        }
        settings.decoder.check()?;
        Ok(Self { settings, contrast: Contrast::default(), known, networks: None })
    }

    fn networks(&self) -> Result<&Networks> {
        self.networks.as_ref().ok_or_else(|| Error::setting("hybrid", "the stage was not begun"))
    }
}

impl Networks {
    fn half(
        &self,
        encoder: &DualEncoder,
        (reading, count): (&Reading, usize),
        (side, seed): (Side, u64),
    ) -> Result<Half> {
        let codes = reading.first(count)?;
        let encoding = encoder.encoding(&codes)?;
        let mean = codes.exclusive()?.clone();
        let spread = &self.spread[side as usize];
        let log_variance = spread.forward(&mean)?;
        let noise = noise::normal(seed, side, mean.dims2()?, mean.device())?;
        let posterior = Gaussian::new(mean, &log_variance)?;
        Ok(Half {
            content: self.decoders.shared_code(&codes)?,
            exclusive: encoding.exclusive()?.clone(),
            shared: encoding.shared,
            drawn: posterior.sample(&noise)?,
            posterior,
        })
    }
}

impl Objective for Hybrid {
    fn check(&self, plan: &BatchPlan) -> Result<()> {
        if !plan.pictures {
            return Err(Error::setting("batch.pictures", "`hybrid` needs pictures"));
        }
        Ok(())
    }

    fn players(&self) -> &'static [Player] {
        &PLAYERS
    }

    fn begin(&mut self, context: Context<'_>) -> Result<()> {
        self.contrast.begin(context);
        let params = Params::seeded(context.seed, context.encoder.device());
        let reads = SharedCode::Direction;
        let decoders = Decoders::new(self.settings.decoder, reads, context, &params)?;
        let [image, text] = context.side_codes();
        let spread = |name: &str, dims: usize| {
            let start = (Init::Zeros, START);
            Affine::starting(&params, &format!("objective.spread.{name}"), [dims; 2], start)
        };
        let spread = [spread("image", image)?, spread("text", text)?];
        self.networks = Some(Networks { params, decoders, spread });
        self.known.as_mut().map_or(Ok(()), |known| known.begin(context))
    }

    fn vars(&self) -> BTreeMap<String, Var> {
        let own = self.networks.as_ref().map(|networks| networks.params.vars());
        let known = self.known.as_ref().map(ExclusiveLabel::vars);
        own.into_iter().chain(known).flatten().collect()
    }

    fn decoders(&self) -> Option<&Decoders> {
        self.networks.as_ref().map(|networks| &networks.decoders)
    }

    fn losses(&mut self, _: &Player, encoder: &DualEncoder, batch: &Batch) -> Result<Losses> {
        let (networks, settings) = (self.networks()?, &self.settings);
        let read = (batch.read_pictures(encoder)?, batch.picture_concepts.len());
        let pictures = networks.half(encoder, (&read.0, read.1), (Side::Image, batch.seed))?;
        let read = (batch.read_texts(encoder)?, batch.text_concepts.len());
        let texts = networks.half(encoder, (&read.0, read.1), (Side::Text, batch.seed))?;

        let scale = bounded_scale(encoder)?;
        let shared = self.contrast.loss((&pictures.shared, &texts.shared), &scale, batch)?;
        let centring =
            (losses::concentration(&pictures.shared)? + losses::concentration(&texts.shared)?)?;
        let (of_picture, of_text) = batch.partners();
        let content = |half: &Half, rows: Vec<u32>| -> Result<Tensor> {
            Ok(half.content.index_select(&Tensor::new(rows, half.content.device())?, 0)?)
        };
        let decoders = &networks.decoders;
        let from_text = content(&texts, of_picture)?;
        let image = decoders.picture_error((&from_text, &pictures.drawn), batch)?;
        let from_picture = content(&pictures, of_text)?;
        let text = decoders.text_error((&from_picture, &texts.drawn), batch)?;
        let kl = [pictures.posterior.kl_to_standard()?, texts.posterior.kl_to_standard()?];
        let alignment = [
            losses::alignment(&pictures.shared, &pictures.posterior.mean)?,
            losses::alignment(&texts.shared, &texts.posterior.mean)?,
        ];
        let text_weight = match encoder.pairs_pictures() {
            true => settings.reconstruction_weight,
            false => settings.text_reconstruction_weight,
        };
        let mut total = losses::weighted(&[
            (&shared, settings.shared_weight),
            (&centring, settings.centring_weight),
            (&image, settings.reconstruction_weight),
            (&text, text_weight),
            (&(&kl[0] + &kl[1])?, settings.kl_weight),
            (&(&alignment[0] + &alignment[1])?, settings.orthogonality_weight),
        ])?;
        let [kl_image, kl_text] = kl;
        let [alignment_image, alignment_text] = alignment;
        let mut terms = vec![
            ("shared", shared),
            ("concentration", centring),
            ("reconstruction_image", image),
            ("reconstruction_text", text),
            ("kl_image", kl_image),
            ("kl_text", kl_text),
            ("alignment_image", alignment_image),
            ("alignment_text", alignment_text),
            ("logit_scale", encoder.logit_scale().detach()),
        ];
        if let Some(known) = &self.known {
            let exclusive = (&pictures.exclusive, &texts.exclusive);
            if let Some(losses) = known.losses(exclusive, batch)? {
                total = (total + losses.total)?;
                terms.extend(losses.terms);
            }
        }
        Ok(Losses { total, terms })
    }
}

#[cfg(test)]
mod tests;
