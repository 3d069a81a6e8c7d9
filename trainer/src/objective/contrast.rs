//! The contrast between pictures and texts that objectives share.

use candle_core::Tensor;

use super::{Context, losses};
use crate::error::{Error, Result};
use crate::loader::Batch;

/// Symmetric InfoNCE between shared vectors, averaged over the Matryoshka prefixes (Kusupati et al., 2022,
/// eq. 1, equal weights). Pictures and texts of one concept are positives; none is another's negative.
#[derive(Debug, Default)]
pub(super) struct Contrast {
    /// Prefixes of the shared vectors that are trained, the whole one last.
    prefixes: Vec<usize>,
}

impl Contrast {
    pub(super) fn begin(&mut self, context: Context<'_>) {
        self.prefixes = context.heads.matryoshka.clone();
        self.prefixes.push(context.heads.shared);
    }

    /// Pictures (P, S) against texts (T, S) of the batch, unit rows, whose similarities are multiplied by
    /// `scale`.
    pub(super) fn loss(
        &self,
        (pictures, texts): (&Tensor, &Tensor),
        scale: &Tensor,
        batch: &Batch,
    ) -> Result<Tensor> {
        let mut sum = None;
        for dims in &self.prefixes {
            let pictures = losses::prefix(pictures, *dims)?;
            let texts = losses::prefix(texts, *dims)?.t()?.contiguous()?;
            let logits = pictures.matmul(&texts)?.broadcast_mul(scale)?;
            let loss =
                losses::symmetric_info_nce(&logits, &batch.picture_concepts, &batch.text_concepts)?;
            sum = Some(match sum {
                None => loss,
                Some(sum) => (sum + loss)?,
            });
        }
        let sum = sum.ok_or_else(|| Error::setting("heads", "the stage was not begun"))?;
        Ok((sum / self.prefixes.len() as f64)?)
    }
}
