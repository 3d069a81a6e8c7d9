//! Views of a picture as others might have rendered or cropped it. Never mirrored: arrows point.

use image::RgbImage;
use image::imageops::{self, FilterType};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How pictures are varied. Chances and amounts of zero switch a step off.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageAugmentation {
    /// Chance that a picture stays exactly as serving would see it.
    pub plain_share: f64,
    /// Smallest and largest size of the picture relative to the canvas.
    pub scale: [f64; 2],
    /// Largest rotation either way, degrees.
    pub rotation: f64,
    /// Largest change of brightness, of contrast and of saturation, as a share.
    pub colour: f64,
    /// Largest turn of the hue either way, degrees.
    pub hue: f64,
    /// Chance of a tinted background in place of white.
    pub background: f64,
    /// Chance of a rendering in fewer pixels, down to half the side, enlarged again.
    pub coarse: f64,
    /// Chance of a slight blur.
    pub blur: f64,
    /// Chance of few colour levels, as in indexed pictures.
    pub quantise: f64,
    /// What lies around a picture that does not fill the canvas.
    #[serde(skip_serializing_if = "Around::is_default")]
    pub around: Around,
}

/// What lies around a picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Around {
    /// White.
    #[default]
    White,
    /// The nearest pixel of the picture, for pictures whose background has a colour.
    Edge,
}

impl Around {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for ImageAugmentation {
    fn default() -> Self {
        Self {
            plain_share: 0.1,
            scale: [0.75, 1.05],
            rotation: 10.0,
            colour: 0.15,
            hue: 10.0,
            background: 0.05,
            coarse: 0.15,
            blur: 0.1,
            quantise: 0.1,
            around: Around::default(),
        }
    }
}

impl ImageAugmentation {
    /// Checks each value.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first one out of range.
    pub fn check(&self) -> Result<()> {
        let chances = [
            ("plain_share", self.plain_share),
            ("colour", self.colour),
            ("background", self.background),
            ("coarse", self.coarse),
            ("blur", self.blur),
            ("quantise", self.quantise),
        ];
        for (name, value) in chances {
            if !(0.0..=1.0).contains(&value) {
                let message = format!("{value} is not in 0..=1");
                return Err(Error::setting(format!("augment.image.{name}"), message));
            }
        }
        let [least, most] = self.scale;
        if !(0.1..=most).contains(&least) || most > 2.0 {
            let message = "two rising numbers within 0.1..=2";
            return Err(Error::setting("augment.image.scale", message));
        }
        let turns = 0.0..=180.0;
        if !turns.contains(&self.rotation) || !turns.contains(&self.hue) {
            return Err(Error::setting("augment.image.rotation, .hue", "0..=180 degrees"));
        }
        Ok(())
    }

    /// Another view of a square picture, `size` pixels a side; `None` for the picture
    /// exactly as serving would see it.
    ///
    /// `detailed` has a few more pixels a side than `size`: a view takes one bilinear sample a pixel.
    #[must_use]
    pub fn apply(&self, rng: &mut ChaCha8Rng, detailed: &RgbImage, size: u32) -> Option<RgbImage> {
        if rng.random_bool(self.plain_share) {
            return None;
        }
        let side =
            if rng.random_bool(self.coarse) { rng.random_range(size / 2..=size) } else { size };
        let mut view = self.placement(rng).render(detailed, side, self.around);
        self.recolour(rng, &mut view);
        if side != size {
            view = imageops::resize(&view, size, size, FilterType::Triangle);
        }
        if rng.random_bool(self.blur) {
            view = imageops::fast_blur(&view, rng.random_range(0.4..0.9));
        }
        Some(view)
    }

    fn placement(&self, rng: &mut ChaCha8Rng) -> Placement {
        let scale = uniform(rng, self.scale[0], self.scale[1]);
        // What the picture leaves of the canvas, and a little beyond.
        let slack = ((1.0 - scale) / 2.0).abs() + 0.02;
        let angle = uniform(rng, -self.rotation, self.rotation).to_radians();
        Placement {
            scale,
            shift: [uniform(rng, -slack, slack), uniform(rng, -slack, slack)],
            cosine: angle.cos(),
            sine: angle.sin(),
        }
    }

    fn recolour(&self, rng: &mut ChaCha8Rng, view: &mut RgbImage) {
        let brightness = uniform(rng, -self.colour, self.colour) as f32 * 255.0 * 0.5;
        let contrast = 1.0 + uniform(rng, -self.colour, self.colour) as f32;
        let saturation = 1.0 + uniform(rng, -self.colour, self.colour) as f32;
        let turn = hue_matrix(uniform(rng, -self.hue, self.hue).to_radians() as f32, saturation);
        let tint = if rng.random_bool(self.background) {
            [0; 3].map(|_: i32| rng.random_range(0.6..1.0_f32))
        } else {
            [1.0; 3]
        };
        let levels = rng.random_bool(self.quantise).then(|| rng.random_range(5..32_u8));
        for pixel in view.pixels_mut() {
            // A white background stays white unless it is tinted: pictures come on white.
            let white = pixel.0 == [255; 3];
            let [r, g, b] = pixel.0.map(f32::from);
            for (channel, row) in turn.iter().enumerate() {
                let turned = row[0] * r + row[1] * g + row[2] * b;
                let lit = (turned - 128.0) * contrast + 128.0 + brightness;
                let lit = if white { 255.0 } else { lit };
                pixel.0[channel] = quantised((lit * tint[channel]).clamp(0.0, 255.0), levels);
            }
        }
    }
}

/// Where a picture lies on the canvas; lengths in canvas sides.
struct Placement {
    scale: f64,
    shift: [f64; 2],
    cosine: f64,
    sine: f64,
}

impl Placement {
    /// Draws the picture on a canvas of `side` pixels.
    fn render(&self, picture: &RgbImage, side: u32, around: Around) -> RgbImage {
        RgbImage::from_fn(side, side, |column, row| {
            let x = (f64::from(column) + 0.5) / f64::from(side) - 0.5 - self.shift[0];
            let y = (f64::from(row) + 0.5) / f64::from(side) - 0.5 - self.shift[1];
            let u = (self.cosine * x + self.sine * y) / self.scale + 0.5;
            let v = (self.cosine * y - self.sine * x) / self.scale + 0.5;
            let [u, v] = match around {
                Around::White => [u, v],
                Around::Edge => [u, v].map(|at| at.clamp(0.0, 1.0)),
            };
            image::Rgb(
                bilinear(picture, u, v, around).map(|value| value.round().clamp(0.0, 255.0) as u8),
            )
        })
    }
}

/// The colour at (u, v) in 0..1 of the picture, interpolated with what is around it.
fn bilinear(picture: &RgbImage, u: f64, v: f64, around: Around) -> [f32; 3] {
    let x = u * f64::from(picture.width()) - 0.5;
    let y = v * f64::from(picture.height()) - 0.5;
    let (left, top) = (x.floor(), y.floor());
    let (fx, fy) = ((x - left) as f32, (y - top) as f32);
    let at = |dx: i64, dy: i64| -> [f32; 3] {
        let (mut column, mut row) = (left as i64 + dx, top as i64 + dy);
        if around == Around::Edge {
            column = column.clamp(0, i64::from(picture.width()) - 1);
            row = row.clamp(0, i64::from(picture.height()) - 1);
        }
        let place = (u32::try_from(column), u32::try_from(row));
        let (Ok(x), Ok(y)) = place else { return [255.0; 3] };
        picture.get_pixel_checked(x, y).map_or([255.0; 3], |pixel| pixel.0.map(f32::from))
    };
    let corners = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)];
    let weights = [(1.0 - fx) * (1.0 - fy), fx * (1.0 - fy), (1.0 - fx) * fy, fx * fy];
    std::array::from_fn(|c| corners.iter().zip(weights).map(|(p, weight)| p[c] * weight).sum())
}

/// Turns the hue about the grey axis (Rodrigues' formula) and scales the distance from grey.
fn hue_matrix(angle: f32, saturation: f32) -> [[f32; 3]; 3] {
    let (sine, cosine) = angle.sin_cos();
    let third: f32 = 1.0 / 3.0;
    let off = sine * third.sqrt();
    std::array::from_fn(|row| {
        std::array::from_fn(|column| {
            let same = if row == column { 1.0 } else { 0.0 };
            let cross = match (column + 3 - row) % 3 {
                1 => -off,
                2 => off,
                _ => 0.0,
            };
            let turned = cosine * (same - third) + cross;
            third + saturation * turned
        })
    })
}

fn quantised(value: f32, levels: Option<u8>) -> u8 {
    let value = match levels {
        Some(levels) => {
            let step = 255.0 / f32::from(levels);
            (value / step).round() * step
        }
        None => value,
    };
    value.round().clamp(0.0, 255.0) as u8
}

fn uniform(rng: &mut ChaCha8Rng, least: f64, most: f64) -> f64 {
    if least < most { rng.random_range(least..most) } else { least }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::generator;

    fn dot(side: u32) -> RgbImage {
        RgbImage::from_fn(side, side, |x, y| {
            let middle = side / 3..2 * side / 3;
            let inside = middle.contains(&x) && middle.contains(&y);
            image::Rgb(if inside { [200, 40, 40] } else { [255; 3] })
        })
    }

    #[test]
    fn the_same_generator_gives_the_same_view_and_another_one_another() {
        let augmentation = ImageAugmentation { plain_share: 0.0, ..Default::default() };
        let view = |index| augmentation.apply(&mut generator(1, &[index]), &dot(64), 48).unwrap();
        assert_eq!(view(1), view(1));
        assert_ne!(view(1), view(2));
        assert_eq!(view(1).dimensions(), (48, 48));
    }

    #[test]
    fn with_everything_off_a_view_is_the_picture() {
        let off = ImageAugmentation {
            plain_share: 0.0,
            scale: [1.0, 1.0],
            rotation: 0.0,
            colour: 0.0,
            hue: 0.0,
            background: 0.0,
            coarse: 0.0,
            blur: 0.0,
            quantise: 0.0,
            around: Around::White,
        };
        let view = off.apply(&mut generator(1, &[0]), &dot(48), 48).unwrap();
        let centre = view.get_pixel(24, 24).0;
        assert!(centre.iter().zip([200_u8, 40, 40]).all(|(a, b)| a.abs_diff(b) <= 1), "{centre:?}");
        assert_eq!(view.get_pixel(2, 2).0, [255; 3]);
    }

    #[test]
    fn a_coloured_background_goes_on_around_the_picture() {
        let shrunk = ImageAugmentation {
            scale: [0.5, 0.5],
            around: Around::Edge,
            ..serde_json::from_str(
                r#"{"plain_share": 0, "rotation": 0, "colour": 0, "hue": 0, "background": 0, "coarse": 0, "blur": 0, "quantise": 0}"#,
            )
            .unwrap()
        };
        let blue = RgbImage::from_pixel(32, 32, image::Rgb([10, 20, 200]));
        let view = shrunk.apply(&mut generator(1, &[0]), &blue, 24).unwrap();
        assert!(view.pixels().all(|pixel| pixel.0 == [10, 20, 200]));
    }

    #[test]
    fn a_hue_matrix_keeps_grey() {
        let matrix = hue_matrix(0.3, 1.2);
        for row in matrix {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}
