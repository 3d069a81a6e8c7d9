//! Pictures: bytes to pixels to what a tower reads.

use diptych_model::preprocess::{ImageLimits, ImagePreprocessing, decode};

/// Small, so that inputs are quick and an allocation beyond them shows.
const LIMITS: ImageLimits = ImageLimits { max_bytes: 1 << 20, max_pixels: 1 << 20, max_side: 4096 };

/// Decodes and fits; a picture that is taken keeps its limits and has as many values as the tower reads.
pub fn image(data: &[u8]) {
    crate::quiet();
    let Ok(picture) = decode(data, &LIMITS) else { return };
    let (width, height) = picture.dimensions();
    assert!(width.max(height) <= LIMITS.max_side, "{width} x {height}");
    assert!(u64::from(width) * u64::from(height) <= LIMITS.max_pixels, "{width} x {height}");
    let settings = ImagePreprocessing { size: 16, ..ImagePreprocessing::default() };
    let values = settings.apply(&picture).expect("a decoded picture is fitted");
    assert!(values.len() == 3 * 16 * 16 && values.iter().all(|value| value.is_finite()));
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let pictures = crate::files("tests/fixtures/pictures");
    let checkpoints = crate::files("tests/fixtures/checkpoints/pictures");
    pictures.into_iter().chain(checkpoints).map(|(_, file)| file).collect()
}
