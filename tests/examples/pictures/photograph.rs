//! Pictures that cost a decoder what photographs do, made from a seed.

use anyhow::{Context as _, Result};
use image::RgbImage;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// What most cameras and phones write.
const QUALITY: u8 = 88;

/// A JPEG with halved colours.
///
/// # Errors
/// A size that JPEG does not have.
pub(crate) fn photograph(size: (u32, u32), seed: u64, progressive: bool) -> Result<Vec<u8>> {
    let picture = scene(size, seed);
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_progressive(progressive);
    let (width, height) = (u16::try_from(size.0)?, u16::try_from(size.1)?);
    encoder.encode(picture.as_raw(), width, height, ColorType::Rgb)?;
    Ok(bytes)
}

/// Noise of every scale, its strength falling with its fineness as in photographs, with a few edges.
fn scene((width, height): (u32, u32), seed: u64) -> RgbImage {
    let mut draw = ChaCha8Rng::seed_from_u64(seed);
    let octaves: Vec<Octave> = (0..9).map(|level| Octave::new(&mut draw, level)).collect();
    let discs: Vec<[f32; 6]> = (0..12).map(|_| std::array::from_fn(|_| draw.random())).collect();
    let scale = 512.0 / width.max(height) as f32;
    RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (x as f32 * scale, y as f32 * scale);
        let mut colour = octaves.iter().fold([120.0_f32; 3], |sum, octave| octave.add(sum, u, v));
        for [left, top, radius, red, green, blue] in &discs {
            let (across, down) = (u - left * 512.0, v - top * 512.0);
            if across * across + down * down < (radius * 60.0).powi(2) {
                let tint = [red, green, blue];
                for (channel, tint) in colour.iter_mut().zip(tint) {
                    *channel = *channel * 0.6 + tint * 100.0;
                }
            }
        }
        image::Rgb(colour.map(|channel| channel.clamp(0.0, 255.0) as u8))
    })
}

/// Values on a lattice, of which one cell is as large as the octave is coarse.
struct Octave {
    cell: f32,
    strength: f32,
    values: Vec<[f32; 3]>,
}

impl Octave {
    const SIDE: usize = 64;

    fn new(draw: &mut ChaCha8Rng, level: i32) -> Self {
        let cell = 128.0 / 2.0_f32.powi(level);
        // Brightness varies more than colour does.
        let mut value = || {
            let light: f32 = draw.random_range(-1.0..1.0);
            std::array::from_fn(|_| light + draw.random_range(-0.3..0.3))
        };
        let values = (0..Self::SIDE * Self::SIDE).map(|_| value()).collect();
        Self { cell, strength: 9.0 * cell.sqrt(), values }
    }

    /// `sum` with the octave's value between its four nearest lattice points.
    fn add(&self, sum: [f32; 3], u: f32, v: f32) -> [f32; 3] {
        let (across, down) = (u / self.cell, v / self.cell);
        let (column, row) = (across as usize, down as usize);
        let (right, below) = (across.fract(), down.fract());
        let at = |column: usize, row: usize| {
            self.values[(row % Self::SIDE) * Self::SIDE + column % Self::SIDE]
        };
        let corners =
            [at(column, row), at(column + 1, row), at(column, row + 1), at(column + 1, row + 1)];
        std::array::from_fn(|channel| {
            let [a, b, c, d] = corners.map(|corner| corner[channel]);
            let top = a + (b - a) * right;
            sum[channel] + self.strength * (top + (c + (d - c) * right - top) * below)
        })
    }
}

/// Peak of a process's memory since it started, in MiB (`VmHWM`, Linux).
///
/// # Errors
/// When the system does not tell.
pub(crate) fn peak_mib(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).context("no VmHWM")?;
    Ok(kib.trim().parse::<f64>()? / 1024.0)
}
