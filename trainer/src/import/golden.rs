//! Inputs whose vectors a bundle of an imported checkpoint must give: made here, since such a checkpoint brings none.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};

/// Sentences of several scripts and lengths.
const TEXTS: [&str; 8] = [
    "a photo of a dog",
    "Two children play football on a wet street in the evening, and a man with a red umbrella watches them.",
    "ein Fuchs im Schnee",
    "un bateau à voile, au loin",
    "一只猫坐在窗边",
    "пустынная дорога",
    "42 !?",
    "x",
];

/// Texts.
pub(crate) fn texts() -> Vec<String> {
    TEXTS.map(str::to_owned).into()
}

/// Pictures as PNG: slow changes, sharp edges, and noise; wide, tall and square, larger and smaller than what towers take.
///
/// # Errors
/// When one cannot be written.
pub(crate) fn pictures() -> Result<Vec<Vec<u8>>> {
    let byte = |value: u32| u8::try_from(value % 256).unwrap_or(0);
    let slow =
        RgbImage::from_fn(320, 200, |x, y| Rgb([byte(x * 255 / 320), byte(y * 255 / 200), 90]));
    let sharp = RgbImage::from_fn(150, 260, |x, y| {
        let inside = (x.abs_diff(75)).pow(2) + (y.abs_diff(110)).pow(2) < 55 * 55;
        if inside { Rgb([220, 40, 30]) } else { Rgb([if y / 13 % 2 == 0 { 240 } else { 20 }; 3]) }
    });
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let noise = RgbImage::from_fn(64, 64, |_, _| Rgb(random.random()));
    [slow, sharp, noise].iter().map(png).collect()
}

fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|error| Error::setting("golden pictures", error.to_string()))?;
    Ok(bytes.into_inner())
}
