//! A running mean of the weights, which often generalises better than the last ones (Polyak and
//! Juditsky, 1992; the exponential form as in Tarvainen and Valpola, 2017).

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};

use crate::error::{Error, Result};

/// The exponential running mean of some variables.
#[derive(Debug)]
pub(super) struct MeanWeights {
    decay: f64,
    means: BTreeMap<String, (Var, Tensor)>,
}

impl MeanWeights {
    /// A mean that begins with the weights as they are.
    pub(super) fn new(decay: f64, vars: BTreeMap<String, Var>) -> Result<Self> {
        let begin = |(name, var): (String, Var)| {
            let mean = copy(&var)?;
            Ok((name, (var, mean)))
        };
        Ok(Self { decay, means: vars.into_iter().map(begin).collect::<Result<_>>()? })
    }

    /// Takes in the weights after a step (from 0) of the stage. Early on the decay is lower, so that the
    /// mean does not remember where the stage began.
    pub(super) fn update(&mut self, step: u64) -> Result<()> {
        let warm = (1.0 + step as f64) / (10.0 + step as f64);
        let decay = self.decay.min(warm);
        for (var, mean) in self.means.values_mut() {
            let weights = var.as_detached_tensor();
            *mean = ((&*mean * decay)? + (weights * (1.0 - decay))?)?;
        }
        Ok(())
    }

    /// Puts the means in place of the weights and the weights in place of the means; twice is nothing.
    pub(super) fn swap(&mut self) -> Result<()> {
        for (var, mean) in self.means.values_mut() {
            let weights = copy(var)?;
            var.set(mean)?;
            *mean = weights;
        }
        Ok(())
    }

    /// The means by name, as `mean.NAME`.
    pub(super) fn state(&self) -> BTreeMap<String, Tensor> {
        let named =
            |(name, (_, mean)): (&String, &(Var, Tensor))| (format!("mean.{name}"), mean.clone());
        self.means.iter().map(named).collect()
    }

    /// Takes back what [`MeanWeights::state`] gave.
    pub(super) fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, (var, mean)) in &mut self.means {
            let saved = state.get(&format!("mean.{name}"));
            let saved = saved.filter(|saved| saved.dims() == var.dims()).ok_or_else(|| {
                Error::checkpoint("optimizer", format!("no `mean.{name}` of the right shape"))
            })?;
            *mean = saved.to_device(var.device())?;
        }
        Ok(())
    }
}

/// A variable's values. Detached: what is computed from a variable remembers how, and a mean of means would keep those of all steps.
fn copy(var: &Var) -> Result<Tensor> {
    Ok(var.as_tensor().copy()?.detach())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_mean_does_not_keep_the_means_of_the_steps_before() {
        let var = Var::from_vec(vec![1.0_f32, 2.0], 2, &Device::Cpu).unwrap();
        let mut means = MeanWeights::new(0.9, [("w".to_owned(), var.clone())].into()).unwrap();
        let is_bare = |means: &MeanWeights| !means.means["w"].1.track_op();
        assert!(is_bare(&means));
        means.update(0).unwrap();
        assert!(is_bare(&means));
        means.swap().unwrap();
        assert!(is_bare(&means));
        assert!(
            (&var.as_tensor().clone() * 2.0).unwrap().track_op(),
            "what is computed from it does"
        );
    }
}
