//! `split`: what both modalities say into the shared vectors, what is left into the exclusive ones.
//!
//! - Shared: symmetric InfoNCE between pictures and texts with a learned logit scale, see
//!   [`super::contrast`].
//! - Exclusive: InfoNCE between two views of a picture, and between two wordings of a text, each at a
//!   fixed temperature (Chen et al., 2020, "SimCLR", eq. 1).
//! - Known labels, if the settings name some: see [`super::exclusive_label`].
//! - Orthogonality: linear centred kernel alignment of shared and exclusive vectors, with gradients
//!   into both: without one into the shared side, what is exclusive stays in both.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use diptych_model::DualEncoder;
use serde::Deserialize;

use super::contrast::Contrast;
use super::exclusive_label::{self, ExclusiveLabel};
use super::{
    Context, Entry, Losses, Objective, Player, bounded_scale, check_positive, check_weight, losses,
    parse,
};
use crate::error::{Error, Result};
use crate::loader::{Batch, BatchPlan};

pub(super) const ENTRY: Entry = Entry {
    name: "split",
    example: "exclusive_weight = 0.1\northogonality_weight = 0.1\ncentring_weight = 1.0\nexclusive_temperature = 0.1",
    build: |table| Ok(Box::new(Split::new(parse(table)?)?)),
};

/// Everything, in one turn.
const PLAYERS: [Player; 1] = [Player { name: "encoders", prefixes: &[""] }];

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Weight of the exclusive terms (the shared one has 1), 0 or more.
    exclusive_weight: f64,
    /// Weight of the orthogonality, 0 or more.
    orthogonality_weight: f64,
    /// Weight of the concentration of the shared vectors, 0 or more. Without it, the easiest first
    /// gain is to draw all vectors together, and coming apart again takes a hundred steps.
    centring_weight: f64,
    /// Divides the similarities of exclusive vectors, above 0.
    exclusive_temperature: f64,
    /// What the exclusive vectors are known to say; absent: nothing is.
    exclusive_label: Option<exclusive_label::Settings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            exclusive_weight: 0.1,
            orthogonality_weight: 0.1,
            centring_weight: 1.0,
            exclusive_temperature: 0.1,
            exclusive_label: None,
        }
    }
}

#[derive(Debug)]
struct Split {
    settings: Settings,
    contrast: Contrast,
    known: Option<ExclusiveLabel>,
}

impl Split {
    fn new(mut settings: Settings) -> Result<Self> {
        let known = settings.exclusive_label.take().map(ExclusiveLabel::new).transpose()?;
        check_weight("exclusive_weight", settings.exclusive_weight)?;
        check_weight("orthogonality_weight", settings.orthogonality_weight)?;
        check_weight("centring_weight", settings.centring_weight)?;
        check_positive("exclusive_temperature", settings.exclusive_temperature)?;
        Ok(Self { settings, contrast: Contrast::default(), known })
    }

    /// First and second views of the same items: row i of one against all rows of the other.
    /// `vectors` has `count` rows of first views, then the second views of the first of them.
    fn exclusive(&self, vectors: &Tensor, count: usize) -> Result<Tensor> {
        let seconds = vectors.dim(0)? - count;
        let first = vectors.narrow(0, 0, seconds)?.contiguous()?;
        let second = vectors.narrow(0, count, seconds)?.t()?.contiguous()?;
        let logits = (first.matmul(&second)? / self.settings.exclusive_temperature)?;
        let items: Vec<u32> = (0..seconds as u32).collect();
        losses::symmetric_info_nce(&logits, &items, &items)
    }
}

impl Objective for Split {
    fn check(&self, plan: &BatchPlan) -> Result<()> {
        if !plan.pictures {
            return Err(Error::setting("batch.pictures", "`split` needs pictures"));
        }
        let too_few = plan.second_pictures < 2 || plan.second_texts < 2;
        if self.settings.exclusive_weight > 0.0 && too_few {
            let message = "at least 2, or exclusive_weight = 0";
            return Err(Error::setting("batch.second_pictures, batch.second_texts", message));
        }
        Ok(())
    }

    fn players(&self) -> &'static [Player] {
        &PLAYERS
    }

    fn begin(&mut self, context: Context<'_>) -> Result<()> {
        self.contrast.begin(context);
        self.known.as_mut().map_or(Ok(()), |known| known.begin(context))
    }

    fn vars(&self) -> BTreeMap<String, Var> {
        self.known.as_ref().map(ExclusiveLabel::vars).unwrap_or_default()
    }

    fn losses(&mut self, _: &Player, encoder: &DualEncoder, batch: &Batch) -> Result<Losses> {
        let pictures = batch.encode_pictures(encoder)?;
        let texts = batch.encode_texts(encoder)?;
        let (count_p, count_t) = (batch.picture_concepts.len(), batch.text_concepts.len());
        let first = |vectors: &Tensor, count: usize| vectors.narrow(0, 0, count)?.contiguous();
        let shared_p = first(&pictures.shared, count_p)?;
        let shared_t = first(&texts.shared, count_t)?;
        let pair = (&shared_p, &shared_t);
        let shared = self.contrast.loss(pair, &bounded_scale(encoder)?, batch)?;
        let centring = [losses::concentration(&shared_p)?, losses::concentration(&shared_t)?];
        let both = (&centring[0] + &centring[1])?;
        let mut total = (&shared + (both * self.settings.centring_weight)?)?;
        let [concentration_image, concentration_text] = centring;
        let mut terms = vec![
            ("shared", shared),
            ("concentration_image", concentration_image),
            ("concentration_text", concentration_text),
            ("logit_scale", encoder.logit_scale().detach()),
        ];
        if self.settings.exclusive_weight > 0.0 {
            let image = self.exclusive(pictures.exclusive()?, count_p)?;
            let text = self.exclusive(texts.exclusive()?, count_t)?;
            total = (total + ((&image + &text)? * self.settings.exclusive_weight)?)?;
            terms.extend([("exclusive_image", image), ("exclusive_text", text)]);
        }
        if self.settings.orthogonality_weight > 0.0 {
            let image = losses::alignment(&shared_p, &first(pictures.exclusive()?, count_p)?)?;
            let text = losses::alignment(&shared_t, &first(texts.exclusive()?, count_t)?)?;
            total = (total + ((&image + &text)? * self.settings.orthogonality_weight)?)?;
            terms.extend([("alignment_image", image), ("alignment_text", text)]);
        }
        if let Some(known) = &self.known {
            let exclusive_p = first(pictures.exclusive()?, count_p)?;
            let exclusive_t = first(texts.exclusive()?, count_t)?;
            if let Some(losses) = known.losses((&exclusive_p, &exclusive_t), batch)? {
                total = (total + losses.total)?;
                terms.extend(losses.terms);
            }
        }
        Ok(Losses { total, terms })
    }
}
