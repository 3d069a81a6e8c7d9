//! Which colours a picture has, and how much of each.
//!
//! Pictures of one hand share a palette: the share of pixels near each point of a grid in the cube of colours tells who
//! drew them where edges and textures do not. Each pixel is divided among the eight points around it (trilinear weights), so that a
//! colour between two points is not told from one of them by chance; roots of shares, so that a colour of few pixels
//! counts beside that of the paper (Hellinger's distance is Euclidean in them). They are multiplied by the points a side, which brings
//! them to the order of the other statistics of a picture.

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

/// Colours of a pixel.
const CHANNELS: usize = 3;

/// `bins` times the roots of the shares of colours in `pixels` (B, H, W, 3), values from -1 to 1, what lies beyond taken for the
/// end: (B, bins³) in f32, the last channel's point fastest. `bins` is 2 at least. There is no gradient into pixels: they
/// are what a picture is, not what is learnt.
///
/// # Errors
/// If `pixels` has another shape, or no positions.
pub(crate) fn palette(pixels: &Tensor, bins: usize) -> Result<Tensor> {
    let (batch, height, width, channels) = pixels.dims4()?;
    if channels != CHANNELS || height * width == 0 || bins < 2 {
        candle_core::bail!("palette: {bins} bins of pixels of shape {:?}", pixels.dims());
    }
    let values = pixels.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let values = values.flatten_all()?.to_vec1::<f32>()?;
    let points = bins.pow(CHANNELS as u32);
    let mut shares = vec![0.0_f32; batch * points];
    values
        .par_chunks(height * width * CHANNELS)
        .zip(shares.par_chunks_mut(points))
        .for_each(|(pixels, shares)| divide(pixels, shares, bins));
    Tensor::from_vec(shares, (batch, points), &Device::Cpu)?.to_device(pixels.device())
}

fn divide(pixels: &[f32], shares: &mut [f32], bins: usize) {
    let steps = (bins - 1) as f32;
    for pixel in pixels.chunks_exact(CHANNELS) {
        let mut below = [0_usize; CHANNELS];
        let mut above = [0.0_f32; CHANNELS];
        for (channel, value) in pixel.iter().enumerate() {
            let at = ((value + 1.0) / 2.0 * steps).clamp(0.0, steps);
            below[channel] = (at as usize).min(bins - 2);
            above[channel] = at - below[channel] as f32;
        }
        for corner in 0..1 << CHANNELS {
            let (mut weight, mut point) = (1.0, 0);
            for channel in 0..CHANNELS {
                let up = corner >> channel & 1;
                weight *= if up == 1 { above[channel] } else { 1.0 - above[channel] };
                point = point * bins + below[channel] + up;
            }
            shares[point] += weight;
        }
    }
    let positions = (pixels.len() / CHANNELS) as f32;
    shares.iter_mut().for_each(|share| *share = bins as f32 * (*share / positions).sqrt());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(pixels: Vec<f32>, bins: usize) -> Vec<f32> {
        let count = pixels.len() / 3;
        let pixels = Tensor::from_vec(pixels, (1, 1, count, 3), &Device::Cpu).unwrap();
        palette(&pixels, bins).unwrap().squeeze(0).unwrap().to_vec1().unwrap()
    }

    #[test]
    fn a_colour_on_the_grid_is_one_point_and_one_between_is_divided() {
        // Black, and red of full strength: points 0 and 4 of 2 x 2 x 2; a half each, of which the roots.
        let found = shares(vec![-1.0, -1.0, -1.0, 1.0, -1.0, -1.0], 2);
        let half = 2.0 * 0.5_f32.sqrt();
        assert_eq!(found, [half, 0.0, 0.0, 0.0, half, 0.0, 0.0, 0.0]);
        // A quarter of the way from black to blue.
        let found = shares(vec![-1.0, -1.0, -0.5], 2);
        assert!((found[0] - 2.0 * 0.75_f32.sqrt()).abs() < 1e-6 && (found[1] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn shares_sum_to_one_wherever_pixels_lie() {
        let pixels = vec![-3.0, 0.2, 0.9, 1.0, 1.0, 1.0, 5.0, -0.1, 0.33];
        for bins in [2, 5, 8] {
            let found = shares(pixels.clone(), bins);
            let sum: f32 = found.iter().map(|root| (root / bins as f32).powi(2)).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{bins}: {sum}");
        }
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let flat = Tensor::zeros((1, 2, 2, 4), DType::F32, &Device::Cpu).unwrap();
        assert!(palette(&flat, 4).is_err());
        let flat = Tensor::zeros((1, 2, 2, 3), DType::F32, &Device::Cpu).unwrap();
        assert!(palette(&flat, 1).is_err());
    }
}
