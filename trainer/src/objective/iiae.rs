//! `iiae`: what is shared and what is not, told apart by information alone, without adversaries (Hwang et
//! al., 2020, "Variational interaction information maximization for cross-domain disentanglement").
//!
//! Every code is a diagonal Gaussian. A joint posterior of the shared code sees both sides, and decoders
//! read draws of it and of each side's own exclusive posterior. Each side's approximation of the joint
//! posterior, from itself alone, is what search uses: its mean is the shared vector before it is brought
//! to unit length. With R errors of reconstruction, weighted, and KL divergences, what is minimised is
//!
//! ```text
//! (λ + β) (R_x + R_y) + c (λ + β) (KL[q(e_x)] + KL[q(e_y)]) + c β KL[q(s|x,y)] + λ (KL[q(s|x,y) | r(s|x)] + KL[q(s|x,y) | r(s|y)])
//! ```
//!
//! where `c = 1 - exp(-step / annealing_steps)` lets codes form before they cost. Differences from the
//! authors' networks: the towers and heads are those of all objectives, log-variances are linear in the
//! means, and the joint posterior reads the towers' last features through one hidden layer.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use diptych_model::{DualEncoder, Init, Params};
use serde::Deserialize;

use super::affine::Affine;
use super::decoders::{self, Decoders, SharedCode};
use super::losses::{self, Gaussian};
use super::noise::{self, Side};
use super::{Context, Entry, Losses, Objective, Player, check_weight, parse};
use crate::error::{Error, Result};
use crate::loader::{Batch, BatchPlan};

pub(super) const ENTRY: Entry = Entry {
    name: "iiae",
    example: "lambda = 1.0\nbeta = 0.2\nreconstruction_weight = 1000.0\ndecoder = { width = 32 }",
    build: |table| Ok(Box::new(Iiae::new(parse(table)?)?)),
};

/// Everything, in one turn.
const PLAYERS: [Player; 1] = [Player { name: "all", prefixes: &[""] }];

/// The log-variance that codes start with: little noise, so that the decoders hear them.
const START: f64 = -2.0;

/// Width of the hidden layer of the joint posterior.
const HIDDEN: usize = 128;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Weight of what is told from both sides together, above 0.
    lambda: f64,
    /// Weight of what keeps the shared code small, above 0.
    beta: f64,
    /// Steps after which two thirds of the divergences from the prior count, above 0.
    annealing_steps: f64,
    /// Weight of the error of pictures, a mean over pixels, 0 or more.
    reconstruction_weight: f64,
    /// Weight of the error of texts, a mean over words, 0 or more.
    text_reconstruction_weight: f64,
    /// The decoders.
    decoder: decoders::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lambda: 1.0,
            beta: 0.2,
            annealing_steps: 250.0,
            reconstruction_weight: 1000.0,
            text_reconstruction_weight: 10.0,
            decoder: decoders::Settings::default(),
        }
    }
}

/// The divergences and errors of a batch.
#[derive(Debug, Clone)]
struct Parts<T> {
    /// Errors of both sides, weighted.
    errors: [T; 2],
    /// Divergences of the exclusive posteriors from the prior.
    exclusive: [T; 2],
    /// That of the joint posterior.
    joint: T,
    /// Of the joint posterior from each side's approximation.
    apart: [T; 2],
}

impl Settings {
    /// The share of the divergences from the prior that counts at a step.
    fn annealed(&self, step: u64) -> f64 {
        1.0 - (-(step as f64) / self.annealing_steps).exp()
    }

    /// The weight of the error of what is not a picture of the first kind.
    const fn second_weight(&self, is_picture: bool) -> f64 {
        if is_picture { self.reconstruction_weight } else { self.text_reconstruction_weight }
    }

    /// The sum above.
    fn total(&self, parts: &Parts<Tensor>, step: u64) -> Result<Tensor> {
        let (lambda, both) = (self.lambda, self.lambda + self.beta);
        let annealed = self.annealed(step);
        let pair = |[one, other]: &[Tensor; 2]| -> Result<Tensor> { Ok((one + other)?) };
        losses::weighted(&[
            (&pair(&parts.errors)?, both),
            (&pair(&parts.exclusive)?, annealed * both),
            (&parts.joint, annealed * self.beta),
            (&pair(&parts.apart)?, lambda),
        ])
    }
}

#[derive(Debug)]
struct Iiae {
    settings: Settings,
    networks: Option<Networks>,
}

/// What only the objective has.
#[derive(Debug)]
struct Networks {
    params: Params,
    decoders: Decoders,
    /// Means to log-variances, of pictures and of texts.
    exclusive_spread: [Affine; 2],
    shared_spread: [Affine; 2],
    /// Features of both sides to the joint posterior.
    joint_hidden: Affine,
    joint_mean: Affine,
    joint_spread: Affine,
}

impl Iiae {
    fn new(settings: Settings) -> Result<Self> {
        for (name, value) in [
            ("lambda", settings.lambda),
            ("beta", settings.beta),
            ("annealing_steps", settings.annealing_steps),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                let message = format!("{value} is not finite and above 0");
                return Err(Error::setting(format!("objective.{name}"), message));
            }
        }
        check_weight("reconstruction_weight", settings.reconstruction_weight)?;
        check_weight("text_reconstruction_weight", settings.text_reconstruction_weight)?;
        settings.decoder.check()?;
        Ok(Self { settings, networks: None })
    }
}

impl Objective for Iiae {
    fn check(&self, plan: &BatchPlan) -> Result<()> {
        if !plan.pictures {
            return Err(Error::setting("batch.pictures", "`iiae` needs pictures"));
        }
        Ok(())
    }

    fn players(&self) -> &'static [Player] {
        &PLAYERS
    }

    fn begin(&mut self, context: Context<'_>) -> Result<()> {
        let params = Params::seeded(context.seed, context.encoder.device());
        let decoders = Decoders::new(self.settings.decoder, SharedCode::Mean, context, &params)?;
        let spread = |name: &str, dims: usize| {
            let start = (Init::Zeros, START);
            Affine::starting(&params, &format!("objective.{name}"), [dims; 2], start)
        };
        let [image, text] = context.side_codes();
        let exclusive_spread =
            [spread("exclusive_spread.image", image)?, spread("exclusive_spread.text", text)?];
        let shared = context.heads.shared;
        let shared_spread =
            [spread("shared_spread.image", shared)?, spread("shared_spread.text", shared)?];
        let [image, text] = context.side_features();
        let layer =
            |name: &str, widths| Affine::new(&params, &format!("objective.joint.{name}"), widths);
        let start = (Init::Zeros, START);
        let joint_spread =
            Affine::starting(&params, "objective.joint.spread", [HIDDEN, shared], start)?;
        let (joint_hidden, joint_mean) =
            (layer("hidden", [image + text, HIDDEN])?, layer("mean", [HIDDEN, shared])?);
        self.networks = Some(Networks {
            exclusive_spread,
            shared_spread,
            joint_hidden,
            joint_mean,
            joint_spread,
            params,
            decoders,
        });
        Ok(())
    }

    fn vars(&self) -> BTreeMap<String, Var> {
        self.networks.as_ref().map(|networks| networks.params.vars()).unwrap_or_default()
    }

    fn decoders(&self) -> Option<&Decoders> {
        self.networks.as_ref().map(|networks| &networks.decoders)
    }

    fn losses(&mut self, _: &Player, encoder: &DualEncoder, batch: &Batch) -> Result<Losses> {
        let networks = self.networks.as_ref();
        let networks = networks.ok_or_else(|| Error::setting("iiae", "the stage was not begun"))?;
        let settings = &self.settings;
        let (count_p, count_t) = (batch.picture_concepts.len(), batch.text_concepts.len());
        let (pictures, texts) = (batch.read_pictures(encoder)?, batch.read_texts(encoder)?);
        let (codes_p, codes_t) = (pictures.first(count_p)?, texts.first(count_t)?);
        let (of_picture, of_text) = batch.partners();
        let device = codes_p.shared.device();
        let (of_picture, of_text) =
            (Tensor::new(of_picture, device)?, Tensor::new(of_text, device)?);

        let draw = |of: &Gaussian, side: Side| -> Result<Tensor> {
            of.sample(&noise::normal(batch.seed, side, of.mean.dims2()?, device)?)
        };
        let gaussian = |mean: &Tensor, spread: &Affine| -> Result<Gaussian> {
            Gaussian::new(mean.clone(), &spread.forward(mean)?)
        };
        let exclusive_p = gaussian(codes_p.exclusive()?, &networks.exclusive_spread[0])?;
        let exclusive_t = gaussian(codes_t.exclusive()?, &networks.exclusive_spread[1])?;
        // One row for each text: a picture with several has as many.
        let picture_rows = codes_p.shared.index_select(&of_text, 0)?;
        let from_picture = gaussian(&picture_rows, &networks.shared_spread[0])?;
        let from_text = gaussian(&codes_t.shared, &networks.shared_spread[1])?;
        let features_p =
            pictures.features.narrow(0, 0, count_p)?.contiguous()?.index_select(&of_text, 0)?;
        let features_t = texts.features.narrow(0, 0, count_t)?.contiguous()?;
        let both = Tensor::cat(&[features_p, features_t], 1)?;
        let hidden = networks.joint_hidden.forward(&both)?.silu()?;
        let joint = Gaussian::new(
            networks.joint_mean.forward(&hidden)?,
            &networks.joint_spread.forward(&hidden)?,
        )?;

        let shared = draw(&joint, Side::Joint)?;
        let of_pictures = shared.index_select(&of_picture, 0)?;
        let decoders = &networks.decoders;
        let error_image =
            decoders.picture_error((&of_pictures, &draw(&exclusive_p, Side::Image)?), batch)?;
        let error_text = decoders.text_error((&shared, &draw(&exclusive_t, Side::Text)?), batch)?;
        let text_weight = settings.second_weight(encoder.pairs_pictures());
        let parts = Parts {
            errors: [
                (&error_image * settings.reconstruction_weight)?,
                (&error_text * text_weight)?,
            ],
            exclusive: [exclusive_p.kl_to_standard()?, exclusive_t.kl_to_standard()?],
            joint: joint.kl_to_standard()?,
            apart: [joint.kl_to(&from_picture)?, joint.kl_to(&from_text)?],
        };
        let total = settings.total(&parts, batch.number)?;
        let [kl_image, kl_text] = parts.exclusive;
        let [apart_image, apart_text] = parts.apart;
        let terms = vec![
            ("reconstruction_image", error_image),
            ("reconstruction_text", error_text),
            ("kl_image", kl_image),
            ("kl_text", kl_text),
            ("kl_joint", parts.joint),
            ("kl_joint_from_image", apart_image),
            ("kl_joint_from_text", apart_text),
        ];
        Ok(Losses { total, terms })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_total_is_that_of_an_independent_computation() {
        // Section B of the project's reference values: with R_x = 30, R_y = 20 (weighted already),
        // KL_x = 4, KL_y = 3, KL_s = 10, KL_rx = 5, KL_ry = 6, λ = 1, β = .2, c at step 5,000 of 25,000:
        // c = 1 - e^-.2 = .181269, and the total is 72.885200.
        let scalar = |value: f64| Tensor::new(value, &Device::Cpu).unwrap();
        let parts = Parts {
            errors: [scalar(30.0), scalar(20.0)],
            exclusive: [scalar(4.0), scalar(3.0)],
            joint: scalar(10.0),
            apart: [scalar(5.0), scalar(6.0)],
        };
        let settings = Settings { annealing_steps: 25_000.0, ..Settings::default() };
        assert!((settings.annealed(5_000) - 0.181_269).abs() < 1e-6);
        let total = settings.total(&parts, 5_000).unwrap().to_scalar::<f64>().unwrap();
        assert!((total - 72.885_200).abs() < 1e-6, "{total}");
        // Nothing costs at the start but what cannot be made again and what the sides tell apart:
        // 1.2 * 50 + 11.
        let total = settings.total(&parts, 0).unwrap().to_scalar::<f64>().unwrap();
        assert!((total - 71.0).abs() < 1e-9, "{total}");
    }
}
