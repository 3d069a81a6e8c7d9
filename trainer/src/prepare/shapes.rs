//! `prepare shapes`: rows of equal shapes with captions from a grammar. Every factor is known.
//!
//! | factor | values | in pictures | in texts |
//! |---|---|---|---|
//! | `shape` | circle, square, triangle, diamond, cross | yes | yes |
//! | `size` | large, small | yes | yes |
//! | `number` | one to four | yes | yes |
//! | `place` | left, right, top, bottom | yes | yes |
//! | `companion` | at the other side: nothing, star, arrow, bar | yes | yes |
//! | `palette` | four pairs of colours for shapes and paper | yes | no |
//! | `texture` | filled, outlined, striped | yes | no |
//! | phrasing, as the language `en-x-...` | plain, list, question, telegram | no | yes |
//!
//! A concept is a scene: the first five factors. Phrasings are private varieties of English (BCP 47),
//! which makes them the factor `language` wherever languages are measured.

mod scene;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::Args;
use rand::Rng;
use rand::seq::IndexedRandom;
use rayon::prelude::*;

use self::scene::{PALETTES, PHRASINGS, Scene, TEXTURES};
use super::pairs::{Shares, Unit, draw};
use super::{Report, raster};
use crate::augment::generator;
use crate::error::{Error, Result};
use crate::shards::{DatasetWriter, ImageRow, Source, Split, TextKind, TextRow};

/// The label columns of the dataset.
const LABELS: [&str; 7] = ["shape", "size", "number", "place", "companion", "palette", "texture"];

/// Arguments of `prepare shapes`.
#[derive(Debug, Clone, Args)]
pub struct ShapesArgs {
    /// Folder to write the dataset to; shards of an earlier run there are replaced.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Side of the pictures in pixels.
    #[arg(long, value_name = "PX", default_value_t = 48, value_parser = clap::value_parser!(u32).range(8..=256))]
    pub size: u32,
    /// Pictures of each scene, 2 to 12: each with a palette and a texture of its own.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(2..=12))]
    pub pictures: u32,
    /// Share of the scenes to choose settings by, 0 to 0.5.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub dev: f64,
    /// Share of the scenes to report on, 0 to 0.5.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    pub test: f64,
    /// Decides splits, palettes, textures and where shapes lie.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Prepares the dataset: the same arguments give the same bytes.
///
/// # Errors
/// When a share is out of range or the disk refuses the result.
pub fn run(args: &ShapesArgs) -> Result<Report> {
    for (name, share) in [("--dev", args.dev), ("--test", args.test)] {
        if !(0.0..=0.5).contains(&share) {
            return Err(Error::setting(name, format!("{share} is not between 0 and 0.5")));
        }
    }
    let scenes = Scene::all();
    let names: Vec<String> = scenes.iter().map(Scene::name).collect();
    let units: Vec<Unit<'_>> = names.iter().map(|name| Unit { name, groups: 1 }).collect();
    let splits = draw(&units, &Shares { dev: args.dev, test: args.test, seed: args.seed });
    let mut writer = DatasetWriter::create(&args.out, "shapes", &LABELS)?;
    writer.add_source(Source {
        gives: "pictures and texts".to_owned(),
        package: concat!("diptych-train ", env!("CARGO_PKG_VERSION")).to_owned(),
        licence: "Apache-2.0".to_owned(),
        author: "drawn by this program".to_owned(),
    });
    let numbered: Vec<(usize, &Scene)> = scenes.iter().enumerate().collect();
    let drawn = numbered.par_iter().map(|(number, scene)| pictures(*number, scene, args));
    for (rows, split) in drawn.collect::<Result<Vec<_>>>()?.into_iter().zip(&splits) {
        for row in rows {
            writer.push_image(ImageRow { split: *split, ..row })?;
        }
    }
    for (scene, split) in scenes.iter().zip(splits) {
        for phrasing in PHRASINGS {
            writer.push_text(TextRow {
                text: scene.caption(phrasing),
                lang: phrasing.language().to_owned(),
                kind: TextKind::Name,
                group: scene.name(),
                split,
            })?;
        }
    }
    Ok(Report { folder: args.out.clone(), manifest: writer.finish()? })
}

/// The pictures of a scene; what they are for is not known here.
fn pictures(number: usize, scene: &Scene, args: &ShapesArgs) -> Result<Vec<ImageRow>> {
    let mut rng = generator(args.seed, &[number as u64]);
    let looks: Vec<(usize, usize)> = (0..PALETTES.len())
        .flat_map(|palette| (0..TEXTURES.len()).map(move |texture| (palette, texture)))
        .collect();
    let chosen: Vec<(usize, usize)> =
        looks.choose_multiple(&mut rng, args.pictures as usize).copied().collect();
    let row = |(palette, texture): (usize, usize)| {
        let shift = [0; 2].map(|_| rng.random_range(-3.0..=3.0));
        let (palette, texture) = (&PALETTES[palette], TEXTURES[texture]);
        let body = scene.drawing(palette, texture, shift);
        let bytes = raster::rasterise(&body, scene::VIEW_BOX, args.size)
            .map_err(|why| Error::data(scene.name(), why))?;
        let looks = [palette.name, texture.as_str()];
        let labels = scene.labels().into_iter().chain(looks);
        Ok(ImageRow {
            bytes,
            path: format!("{}/{}-{}.png", scene.name(), palette.name, texture.as_str()),
            group: scene.name(),
            split: Split::Train,
            labels: labels.map(|label| Some(label.to_owned())).collect(),
        })
    };
    chosen.into_iter().map(row).collect()
}
