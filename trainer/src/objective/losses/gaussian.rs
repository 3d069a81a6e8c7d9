//! Diagonal Gaussians: what variational objectives make of codes.

use candle_core::Tensor;

use crate::error::Result;

/// Bounds of a log-variance either way, ln 10^4: beyond them exponentials drown all else.
const LARGEST_LOG_VARIANCE: f64 = 9.210_340_371_976_184;

/// Independent normal distributions: means and log-variances, each (B, D).
#[derive(Debug, Clone)]
pub struct Gaussian {
    /// Means.
    pub mean: Tensor,
    log_variance: Tensor,
}

impl Gaussian {
    /// With log-variances that are brought within bounds.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn new(mean: Tensor, log_variance: &Tensor) -> Result<Self> {
        let log_variance = log_variance.clamp(-LARGEST_LOG_VARIANCE, LARGEST_LOG_VARIANCE)?;
        Ok(Self { mean, log_variance })
    }

    /// Divergence from the standard normal distribution, summed over dimensions and averaged over rows
    /// (Kingma and Welling, 2014, appendix B): `½ sum(mean² + var - 1 - log var)`. A scalar.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn kl_to_standard(&self) -> Result<Tensor> {
        let variance = self.log_variance.exp()?;
        let each = (((self.mean.sqr()? + variance)? - &self.log_variance)? - 1.0)?;
        Ok((each.sum(1)?.mean_all()? * 0.5)?)
    }

    /// Divergence of this from another, summed over dimensions and averaged over rows:
    /// `½ sum(log var' - log var + (var + (mean - mean')²) / var' - 1)`. A scalar.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn kl_to(&self, other: &Self) -> Result<Tensor> {
        let apart = (&self.mean - &other.mean)?.sqr()?;
        let spread = (self.log_variance.exp()? + apart)?;
        let ratio = (spread * other.log_variance.neg()?.exp()?)?;
        let each = (((&other.log_variance - &self.log_variance)? + ratio)? - 1.0)?;
        Ok((each.sum(1)?.mean_all()? * 0.5)?)
    }

    /// A draw: means and standard normal `noise` (B, D) times the deviations.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        Ok((&self.mean + ((&self.log_variance * 0.5)?.exp()? * noise)?)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use diptych_model::ops::gradcheck::{largest_error, values};

    use super::*;

    fn gaussian(mean: [[f64; 2]; 3], log_variance: [[f64; 2]; 3]) -> Gaussian {
        let tensor = |rows: [[f64; 2]; 3]| Tensor::new(&rows, &Device::Cpu).unwrap();
        Gaussian::new(tensor(mean), &tensor(log_variance)).unwrap()
    }

    fn posterior() -> Gaussian {
        gaussian([[0.5, -1.0], [0.0, 0.2], [1.5, 0.3]], [[0.1, -0.4], [-1.0, 0.5], [0.0, 0.3]])
    }

    fn scalar(value: &Tensor) -> f64 {
        value.to_scalar().unwrap()
    }

    #[test]
    fn divergences_are_those_of_an_independent_computation() {
        // Section B of the project's reference values, computed there with numpy in f64.
        let other =
            gaussian([[0.0, -0.5], [0.3, 0.3], [1.0, 0.0]], [[0.2, 0.0], [-0.5, 0.1], [0.4, -0.2]]);
        assert!((scalar(&posterior().kl_to_standard().unwrap()) - 0.711_992).abs() < 1e-6);
        assert!((scalar(&posterior().kl_to(&other).unwrap()) - 0.230_363).abs() < 1e-6);
        assert!(scalar(&other.kl_to(&other).unwrap()).abs() < 1e-12);
    }

    #[test]
    fn divergence_from_the_standard_is_that_from_a_gaussian_of_zeros() {
        let standard = gaussian([[0.0; 2]; 3], [[0.0; 2]; 3]);
        let [one, two] = [posterior().kl_to_standard(), posterior().kl_to(&standard)];
        assert!((scalar(&one.unwrap()) - scalar(&two.unwrap())).abs() < 1e-12);
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let inputs = [1, 2, 3, 4].map(|seed| values(seed, &[3, 2]).unwrap());
        let error = largest_error(&inputs, |x| {
            let one = Gaussian::new(x[0].clone(), &x[1]).unwrap();
            let other = Gaussian::new(x[2].clone(), &x[3]).unwrap();
            let noise = values(5, &[3, 2])?;
            let drawn = one.sample(&noise).unwrap().sqr()?.mean_all()?;
            one.kl_to_standard().unwrap() + one.kl_to(&other).unwrap() + drawn
        });
        assert!(error.unwrap() < 1e-7);
    }

    #[test]
    fn stays_finite_at_extreme_log_variances() {
        let wild = gaussian([[3.0, -3.0]; 3], [[500.0, -500.0]; 3]);
        let other = gaussian([[0.0; 2]; 3], [[-500.0, 500.0]; 3]);
        for value in [wild.kl_to_standard(), wild.kl_to(&other), other.kl_to(&wild)] {
            assert!(scalar(&value.unwrap()).is_finite());
        }
    }

    #[test]
    fn a_draw_is_the_mean_plus_the_deviation_times_the_noise() {
        // exp(.1 / 2) = 1.051271: .5 + 2 * 1.051271 = 2.602542.
        let noise = Tensor::new(&[[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]], &Device::Cpu).unwrap();
        let drawn = posterior().sample(&noise).unwrap().to_vec2::<f64>().unwrap();
        assert!((drawn[0][0] - 2.602_542).abs() < 1e-6);
        assert!((drawn[2][1] - 0.3).abs() < 1e-12);
    }
}
