//! Codes to words.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::params::{Init, Params};
use crate::tower::layers::Linear;

/// Standard deviation of the rows of the table of words.
const ROWS: f64 = 0.5;

/// Sizes of a [`TextDecoder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextDecoderShape {
    /// Width of the shared code.
    pub shared: usize,
    /// Width of the exclusive code.
    pub exclusive: usize,
    /// Words, those with a meaning of their own included.
    pub vocabulary: usize,
    /// Width of a word's row and of the state.
    pub width: usize,
}

/// Codes to a text, word by word: a gated recurrent unit (Cho et al., 2014, eq. 5 to 8) whose first state
/// comes from both codes, and whose gates see them at every word.
#[derive(Debug)]
pub struct TextDecoder {
    table: Tensor,
    start: Linear,
    condition: Linear,
    input: Linear,
    state: Linear,
    output: Linear,
    width: usize,
}

/// Where a [`TextDecoder`] is within some texts.
#[derive(Clone, Debug)]
pub struct TextState {
    /// (B, W).
    state: Tensor,
    /// (B, 3 W): what the codes add to the gates.
    condition: Tensor,
}

impl TextState {
    /// The states of chosen texts, in the order of the choice.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] if there is no such text.
    pub fn select(&self, rows: &[u32]) -> Result<Self> {
        let rows = Tensor::new(rows, self.state.device())?;
        Ok(Self {
            state: self.state.index_select(&rows, 0)?,
            condition: self.condition.index_select(&rows, 0)?,
        })
    }
}

impl TextDecoder {
    /// A decoder whose weights are named `{name}.*`.
    ///
    /// # Errors
    /// What [`Params::get`] answers.
    pub fn new(params: &Params, name: &str, shape: TextDecoderShape) -> Result<Self> {
        let TextDecoderShape { shared, exclusive, vocabulary, width } = shape;
        let linear = |part: &str, widths| Linear::new(params, &format!("{name}.{part}"), widths);
        let rows = Init::Normal { std: ROWS };
        Ok(Self {
            table: params.get(&format!("{name}.table"), &[vocabulary, width], rows)?,
            start: linear("start", [shared + exclusive, width])?,
            condition: linear("condition", [shared + exclusive, 3 * width])?,
            input: Linear::without_bias(params, &format!("{name}.input"), [width, 3 * width])?,
            state: linear("state", [width, 3 * width])?,
            output: linear("output", [width, vocabulary])?,
            width,
        })
    }

    /// The state before the first word, from shared codes (B, S) and exclusive codes (B, E), both with
    /// coordinates of about unit variance.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] if a width does not fit.
    pub fn begin(&self, shared: &Tensor, exclusive: &Tensor) -> Result<TextState> {
        let codes = Tensor::cat(&[shared, exclusive], 1)?;
        let state = self.start.forward(&codes)?.tanh()?;
        Ok(TextState { state, condition: self.condition.forward(&codes)? })
    }

    /// Takes one word (B) of each text in; logits (B, V) of the next one.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] if there is no such word.
    pub fn step(&self, at: &TextState, words: &Tensor) -> Result<(TextState, Tensor)> {
        let width = self.width;
        let words = self.table.index_select(words, 0)?;
        let input = (self.input.forward(&words)? + &at.condition)?;
        let inner = self.state.forward(&at.state)?;
        let part = |of: &Tensor, nth: usize| of.narrow(1, nth * width, width)?.contiguous();
        let gate = |nth: usize| sigmoid(&(part(&input, nth)? + part(&inner, nth)?)?);
        let (reset, keep) = (gate(0)?, gate(1)?);
        let fresh = (part(&input, 2)? + (reset * part(&inner, 2)?)?)?.tanh()?;
        // h' = (1 - z) n + z h
        let state = (&fresh + (keep * (&at.state - &fresh)?)?)?;
        let logits = self.output.forward(&state)?;
        Ok((TextState { state, condition: at.condition.clone() }, logits))
    }

    /// Logits (B, L, V) of each next word, where `words` (B, L) are the ones before it.
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] if a width does not fit or there is no such word.
    pub fn forward(&self, shared: &Tensor, exclusive: &Tensor, words: &Tensor) -> Result<Tensor> {
        let mut state = self.begin(shared, exclusive)?;
        let mut all = Vec::new();
        for at in 0..words.dim(1)? {
            let logits;
            (state, logits) =
                self.step(&state, &words.narrow(1, at, 1)?.squeeze(1)?.contiguous()?)?;
            all.push(logits);
        }
        Ok(Tensor::stack(&all, 1)?)
    }

    /// The device that the weights lie on.
    pub fn device(&self) -> &Device {
        self.table.device()
    }
}

/// 1 / (1 + e^-x), as a hyperbolic tangent: finite for any x.
fn sigmoid(x: &Tensor) -> candle_core::Result<Tensor> {
    ((x * 0.5)?.tanh()? + 1.0)? * 0.5
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::{TextDecoder, TextDecoderShape};
    use crate::ops::gradcheck::{largest_error, values};
    use crate::params::Params;

    const SHAPE: TextDecoderShape =
        TextDecoderShape { shared: 3, exclusive: 2, vocabulary: 5, width: 4 };

    fn decoder() -> TextDecoder {
        let params = Params::seeded(3, &Device::Cpu).with_dtype(DType::F64);
        TextDecoder::new(&params, "decoder", SHAPE).unwrap()
    }

    #[test]
    fn gradients_into_both_codes_equal_differences() {
        let decoder = decoder();
        let words = Tensor::new(&[[1_u32, 2, 0], [4, 4, 3]], &Device::Cpu).unwrap();
        let codes = [values(1, &[2, 3]).unwrap(), values(2, &[2, 2]).unwrap()];
        let error = largest_error(&codes, |codes| {
            let logits = decoder.forward(&codes[0], &codes[1], &words).unwrap();
            assert_eq!(logits.dims(), [2, 3, 5]);
            Ok(logits)
        });
        assert!(error.unwrap() < 1e-6);
    }

    #[test]
    fn a_text_does_not_depend_on_its_neighbours_or_on_words_to_come() {
        let decoder = decoder();
        let codes = [values(1, &[2, 3]).unwrap(), values(2, &[2, 2]).unwrap()];
        let logits = |rows: usize, words: &[[u32; 3]]| {
            let words = Tensor::from_vec(words.concat(), (rows, 3), &Device::Cpu).unwrap();
            let part = |codes: &Tensor| codes.narrow(0, 0, rows).unwrap();
            decoder.forward(&part(&codes[0]), &part(&codes[1]), &words).unwrap()
        };
        let both =
            logits(2, &[[1, 2, 0], [4, 4, 3]]).narrow(0, 0, 1).unwrap().narrow(1, 0, 2).unwrap();
        let alone = logits(1, &[[1, 2, 4]]).narrow(1, 0, 2).unwrap();
        let difference = (both - alone).unwrap().abs().unwrap().max_all().unwrap();
        assert!(difference.to_scalar::<f64>().unwrap() < 1e-12);
    }
}
