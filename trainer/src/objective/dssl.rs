//! `dssl`: shared vectors first, then exclusive ones beside them, without decoders (Wang et al., 2024,
//! "An information criterion for controlled disentanglement of multimodal data").
//!
//! Two stages of a run, each with its `step`:
//!
//! - `shared`: symmetric InfoNCE between noisy unit vectors, and their agreement (the divergence of two
//!   von Mises-Fisher distributions, up to constants): what one side alone tells is squeezed out. The
//!   noise of concentration κ is a normal one of variance 1 / κ, brought to unit length again.
//! - `exclusive`: InfoNCE between two views of an item, each the exclusive vector of the view beside the
//!   *other* side's shared vector of that view, so that what is shared need not be told again; and
//!   orthogonality to the item's own shared vector. Nothing flows into shared vectors.
//!
//! The authors' orthogonality, `|n(A)ᵀ n(B)|` over a batch, grows with the batch; here it is divided by
//! the rows, so that its weight holds for any. Their exclusive encoder reads the shared vector; here the
//! exclusive head reads what the run file says.

use candle_core::Tensor;
use diptych_model::{DualEncoder, Encoding, ops};
use serde::Deserialize;

use super::contrast::Contrast;
use super::noise::{self, Side};
use super::{Context, Entry, Losses, Objective, Player, check_weight, losses, parse};
use crate::error::{Error, Result};
use crate::loader::{Batch, BatchPlan};

pub(super) const ENTRY: Entry = Entry {
    name: "dssl",
    example: "step = \"shared\"\ntemperature = 0.07\nagreement_weight = 0.1",
    build: |table| Ok(Box::new(Dssl::new(parse(table)?)?)),
};

/// What the first step trains: all but what the exclusive vectors alone are made of.
const SHARED: [Player; 1] = [Player {
    name: "shared",
    prefixes: &[
        "image.tower.",
        "image.shared.",
        "text.tower.",
        "text.shared.",
        "counterpart.tower.",
        "counterpart.shared.",
    ],
}];

/// What the second step trains.
const EXCLUSIVE: [Player; 1] = [Player {
    name: "exclusive",
    prefixes: &["image.exclusive.", "text.exclusive.", "counterpart.exclusive."],
}];

/// Which of the two a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Shared,
    Exclusive,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// `shared`, or `exclusive` in the stage behind it.
    step: Step,
    /// Divides similarities, above 0.
    #[serde(default = "temperature")]
    temperature: f64,
    /// Concentration of the noise on shared vectors, above 0.
    #[serde(default = "concentration")]
    concentration: f64,
    /// Weight of the agreement of shared vectors, 0 or more.
    #[serde(default = "agreement")]
    agreement_weight: f64,
    /// Weight of the orthogonality of exclusive vectors to shared ones, 0 or more.
    #[serde(default = "orthogonality")]
    orthogonality_weight: f64,
    /// Weight of the concentration of shared vectors, 0 or more, see `split`.
    #[serde(default = "centring")]
    centring_weight: f64,
}

const fn temperature() -> f64 {
    0.07
}

const fn concentration() -> f64 {
    1000.0
}

const fn agreement() -> f64 {
    0.1
}

const fn orthogonality() -> f64 {
    1.0
}

const fn centring() -> f64 {
    1.0
}

#[derive(Debug)]
struct Dssl {
    settings: Settings,
    contrast: Contrast,
}

impl Dssl {
    fn new(settings: Settings) -> Result<Self> {
        for (name, value) in
            [("temperature", settings.temperature), ("concentration", settings.concentration)]
        {
            if !(value > 0.0 && value.is_finite()) {
                let message = format!("{value} is not finite and above 0");
                return Err(Error::setting(format!("objective.{name}"), message));
            }
        }
        check_weight("agreement_weight", settings.agreement_weight)?;
        check_weight("orthogonality_weight", settings.orthogonality_weight)?;
        check_weight("centring_weight", settings.centring_weight)?;
        Ok(Self { settings, contrast: Contrast::default() })
    }

    /// Unit vectors (N, S) with noise, unit rows again.
    fn noisy(&self, vectors: &Tensor, side: Side, seed: u64) -> Result<Tensor> {
        let noise = noise::normal(seed, side, vectors.dims2()?, vectors.device())?;
        let noise = (noise / self.settings.concentration.sqrt())?;
        Ok(ops::l2_normalize(&(vectors + noise)?)?)
    }

    fn shared(&self, encoder: &DualEncoder, batch: &Batch) -> Result<Losses> {
        let (count_p, count_t) = (batch.picture_concepts.len(), batch.text_concepts.len());
        let first = |all: &Tensor, count: usize| all.narrow(0, 0, count)?.contiguous();
        let pictures = first(&batch.encode_pictures(encoder)?.shared, count_p)?;
        let texts = first(&batch.encode_texts(encoder)?.shared, count_t)?;
        let noisy_p = self.noisy(&pictures, Side::Image, batch.seed)?;
        let noisy_t = self.noisy(&texts, Side::Text, batch.seed)?;
        let scale = Tensor::new(1.0 / self.settings.temperature as f32, pictures.device())?;
        let shared = self.contrast.loss((&noisy_p, &noisy_t), &scale, batch)?;
        let (_, of_text) = batch.partners();
        let own = pictures.index_select(&Tensor::new(of_text, pictures.device())?, 0)?;
        let agreement = disagreement(&own, &texts)?;
        let centring = (losses::concentration(&pictures)? + losses::concentration(&texts)?)?;
        let total = losses::weighted(&[
            (&shared, 1.0),
            (&agreement, self.settings.agreement_weight),
            (&centring, self.settings.centring_weight),
        ])?;
        let terms =
            vec![("shared", shared), ("disagreement", agreement), ("concentration", centring)];
        Ok(Losses { total, terms })
    }

    fn exclusive(&self, encoder: &DualEncoder, batch: &Batch) -> Result<Losses> {
        let pictures = Views::of(&batch.encode_pictures(encoder)?, batch.picture_concepts.len())?;
        let texts = Views::of(&batch.encode_texts(encoder)?, batch.text_concepts.len())?;
        let (of_picture, of_text) = batch.partners();
        let image = self.told_apart(&pictures, &texts, &of_picture)?;
        let text = self.told_apart(&texts, &pictures, &of_text)?;
        let orthogonality = [pictures.overlap()?, texts.overlap()?];
        let total = losses::weighted(&[
            (&(&image + &text)?, 1.0),
            (&(&orthogonality[0] + &orthogonality[1])?, self.settings.orthogonality_weight),
        ])?;
        let [overlap_image, overlap_text] = orthogonality;
        let terms = vec![
            ("exclusive_image", image),
            ("exclusive_text", text),
            ("overlap_image", overlap_image),
            ("overlap_text", overlap_text),
        ];
        Ok(Losses { total, terms })
    }

    /// InfoNCE between first and second views of a side, each beside the other side's shared vector of that
    /// view. `partners` has each item's of the other side.
    fn told_apart(&self, own: &Views, other: &Views, partners: &[u32]) -> Result<Tensor> {
        let rows = own.exclusive[1].dim(0)?;
        // Of the other side as many have second views as of this one, or all that are partners do.
        let partners = Tensor::new(&partners[..rows], own.exclusive[1].device())?;
        let view = |nth: usize| -> Result<Tensor> {
            let exclusive = own.exclusive[nth].narrow(0, 0, rows)?.contiguous()?;
            let shared = other.shared[nth].index_select(&partners, 0)?;
            Ok(ops::l2_normalize(&Tensor::cat(&[exclusive, shared], 1)?)?)
        };
        let logits = view(0)?.matmul(&view(1)?.t()?.contiguous()?)?;
        let items: Vec<u32> = (0..rows as u32).collect();
        losses::symmetric_info_nce(&(logits / self.settings.temperature)?, &items, &items)
    }
}

/// First and second views of one side of a batch.
struct Views {
    /// Unit rows, which nothing flows into.
    shared: [Tensor; 2],
    exclusive: [Tensor; 2],
}

impl Views {
    /// The second views stand behind `count` first ones.
    fn of(encoding: &Encoding, count: usize) -> Result<Self> {
        let views = |all: &Tensor| -> Result<[Tensor; 2]> {
            let seconds = all.dim(0)? - count;
            Ok([
                all.narrow(0, 0, count)?.contiguous()?,
                all.narrow(0, count, seconds)?.contiguous()?,
            ])
        };
        Ok(Self {
            shared: views(&encoding.shared.detach())?,
            exclusive: views(encoding.exclusive()?)?,
        })
    }

    /// Half the sum of [`losses::overlap`] over both views.
    fn overlap(&self) -> Result<Tensor> {
        let [first, second] =
            [0, 1].map(|nth| losses::overlap(&self.exclusive[nth], &self.shared[nth]));
        Ok(((first? + second?)? * 0.5)?)
    }
}

/// Minus the mean cosine of unit rows that belong together.
fn disagreement(pictures: &Tensor, texts: &Tensor) -> Result<Tensor> {
    Ok((pictures * texts)?.sum(1)?.mean_all()?.neg()?)
}

impl Objective for Dssl {
    fn check(&self, plan: &BatchPlan) -> Result<()> {
        if !plan.pictures {
            return Err(Error::setting("batch.pictures", "`dssl` needs pictures"));
        }
        let whole = plan.second_texts == plan.second_pictures * plan.texts_per_concept;
        if self.settings.step == Step::Exclusive && (plan.second_pictures < 2 || !whole) {
            let message = "at least 2, and second_texts those of the same concepts";
            return Err(Error::setting("batch.second_pictures, batch.second_texts", message));
        }
        Ok(())
    }

    fn players(&self) -> &'static [Player] {
        match self.settings.step {
            Step::Shared => &SHARED,
            Step::Exclusive => &EXCLUSIVE,
        }
    }

    fn begin(&mut self, context: Context<'_>) -> Result<()> {
        self.contrast.begin(context);
        Ok(())
    }

    fn losses(&mut self, _: &Player, encoder: &DualEncoder, batch: &Batch) -> Result<Losses> {
        match self.settings.step {
            Step::Shared => self.shared(encoder, batch),
            Step::Exclusive => self.exclusive(encoder, batch),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn disagreement_is_that_of_an_independent_computation() {
        // Input A of the project's reference values: the diagonal of its similarities is 8/9, 8/9, 16/25,
        // 12/25; their mean is (16/9 + 28/25) / 4 = (400 + 252) / 900 = .724444.
        let rows = |values: [[f64; 3]; 4]| {
            ops::l2_normalize(&Tensor::new(&values, &Device::Cpu).unwrap()).unwrap()
        };
        let pictures = rows([[1., 2., 2.], [2., -1., 2.], [0., 3., 4.], [4., -3., 0.]]);
        let texts = rows([[2., 1., 2.], [1., -2., 2.], [3., 0., 4.], [0., -4., 3.]]);
        let found = disagreement(&pictures, &texts).unwrap().to_scalar::<f64>().unwrap();
        assert!((found + 0.724_444).abs() < 1e-6, "{found}");
        // Value 1 of the reference: InfoNCE at τ = .07, both directions.
        let logits = pictures.matmul(&texts.t().unwrap()).unwrap();
        let loss =
            losses::symmetric_info_nce(&(logits / 0.07).unwrap(), &[0, 1, 2, 3], &[0, 1, 2, 3]);
        assert!((loss.unwrap().to_scalar::<f64>().unwrap() - 1.615_754).abs() < 1e-6);
    }
}
