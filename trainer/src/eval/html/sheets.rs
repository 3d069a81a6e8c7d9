//! Contact sheets: names with the pictures they find.

use std::collections::BTreeSet;
use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use diptych_model::preprocess::{ImageLimits, decode};
use image::imageops::{FilterType, resize};
use image::{ImageFormat, RgbImage};
use rand::seq::SliceRandom;

use super::{escape, push};
use crate::augment::generator;
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::eval::SEED;
use crate::eval::encoded::{Encoded, Side};
use crate::eval::recall;
use crate::eval::retrieval::for_scores;

/// Names on a sheet.
const ROWS: usize = 8;

/// Pictures shown for a name.
const TOP: usize = 5;

/// Longest side of a shown picture, in pixels.
const THUMBNAIL: u32 = 96;

/// Keeps generators of this draw apart from all others of the same seed.
const PURPOSE: u64 = 0x0073_6865_6574;

/// Some names with what they find.
pub(super) struct Sheet {
    title: &'static str,
    rows: Vec<Asked>,
}

struct Asked {
    text: String,
    language: String,
    rank: f64,
    hits: Vec<Hit>,
}

struct Hit {
    picture: usize,
    score: f32,
    right: bool,
}

/// How a name fared.
struct Fared {
    query: usize,
    rank: f64,
    /// How far the best right picture is above the best wrong one.
    margin: f32,
}

/// The names that fared best and worst, of different concepts, and some drawn at random.
pub(super) fn choose(encoded: &Encoded, names: &Side, pictures: &Side) -> Result<Vec<Sheet>> {
    let fared = fared(names, pictures)?;
    let mut by_fate: Vec<&Fared> = fared.iter().collect();
    by_fate.sort_by(|a, b| a.rank.total_cmp(&b.rank).then(b.margin.total_cmp(&a.margin)));
    let mut shuffled: Vec<&Fared> = fared.iter().collect();
    shuffled.shuffle(&mut generator(SEED, &[PURPOSE]));
    let sheets = [
        ("Best", distinct(by_fate.iter().copied(), names)),
        ("Worst", distinct(by_fate.iter().rev().copied(), names)),
        ("Drawn at random", distinct(shuffled.into_iter(), names)),
    ];
    sheets
        .into_iter()
        .map(|(title, chosen)| {
            let rows = chosen.iter().map(|fared| asked(encoded, names, pictures, fared));
            Ok(Sheet { title, rows: rows.collect::<Result<_>>()? })
        })
        .collect()
}

fn fared(names: &Side, pictures: &Side) -> Result<Vec<Fared>> {
    let mut all = Vec::new();
    if pictures.is_empty() {
        return Ok(all);
    }
    for_scores(&names.shared, &pictures.shared, |first, rows, scores| {
        let own = &names.concepts[first..first + rows];
        let ranks = recall::item_ranks(scores, &pictures.concepts, own);
        for (number, (row, rank)) in scores.chunks(pictures.len()).zip(ranks).enumerate() {
            let Some(rank) = rank else { continue };
            let best = |right: bool| {
                let of = row.iter().zip(&pictures.concepts);
                let of = of.filter(|(_, concept)| (**concept == own[number]) == right);
                of.map(|(score, _)| *score).fold(-1.0_f32, f32::max)
            };
            all.push(Fared { query: first + number, rank, margin: best(true) - best(false) });
        }
    })?;
    Ok(all)
}

/// The first few of different concepts.
fn distinct<'a>(fared: impl Iterator<Item = &'a Fared>, names: &Side) -> Vec<&'a Fared> {
    let mut seen = BTreeSet::new();
    fared.filter(|fared| seen.insert(names.concepts[fared.query])).take(ROWS).collect()
}

fn asked(encoded: &Encoded, names: &Side, pictures: &Side, fared: &Fared) -> Result<Asked> {
    let name = &encoded.texts[names.rows[fared.query]];
    let scores = names.shared.select(&[fared.query]).times_transposed(&pictures.shared)?;
    let scores = scores.values();
    let mut order: Vec<usize> = (0..pictures.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let hit = |at: &usize| Hit {
        picture: pictures.rows[*at],
        score: scores[*at],
        right: pictures.concepts[*at] == names.concepts[fared.query],
    };
    Ok(Asked {
        text: name.text.clone(),
        language: name.language.clone(),
        rank: fared.rank,
        hits: order.iter().take(TOP).map(hit).collect(),
    })
}

/// The sheets as HTML, with the pictures in it.
pub(super) fn show(corpus: &Corpus, sheets: &[Sheet]) -> Result<String> {
    let mut out = String::from(
        "<h2>Names and the pictures they find</h2>\n<p class=\"note\">The first five pictures for each name; \
         a green frame marks those of the name's own concept. The rank is that of the best of these.</p>\n",
    );
    for Sheet { title, rows } in sheets {
        push(&mut out, format_args!("<h3>{title}</h3>\n"));
        for Asked { text, language, rank, hits } in rows {
            let (text, language) = (escape(text), escape(language));
            push(
                &mut out,
                format_args!(
                    "<div class=\"ask\"><span class=\"words\" dir=\"auto\" lang=\"{language}\">{text}</span>\
                     <span>{language}</span><span class=\"rank\">rank {rank}</span>\n"
                ),
            );
            for Hit { picture, score, right } in hits {
                let class = if *right { " class=\"right\"" } else { "" };
                let alt = if *right { "right picture" } else { "other picture" };
                push(
                    &mut out,
                    format_args!(
                        "<figure{class}><img alt=\"{alt}\" title=\"{}\" src=\"data:image/png;base64,{}\"/>\
                         <figcaption>{score:.2}</figcaption></figure>\n",
                        escape(&corpus.pictures[*picture].path),
                        STANDARD.encode(thumbnail(corpus, *picture)?)
                    ),
                );
            }
            out.push_str("</div>\n");
        }
    }
    Ok(out)
}

/// A picture as a small PNG file.
fn thumbnail(corpus: &Corpus, picture: usize) -> Result<Vec<u8>> {
    let path = &corpus.pictures[picture].path;
    let pixels = decode(&corpus.file(picture)?, &ImageLimits::default())?;
    let small = fitted(&pixels, THUMBNAIL);
    let mut png = Cursor::new(Vec::new());
    small
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|error| Error::data(path, format!("cannot be shown: {error}")))?;
    Ok(png.into_inner())
}

/// A picture whose longer side is at most `side`.
fn fitted(picture: &RgbImage, side: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let longest = width.max(height);
    if longest <= side {
        return picture.clone();
    }
    let scaled = |length: u32| {
        (u64::from(length) * u64::from(side)).div_ceil(u64::from(longest)).clamp(1, side.into())
            as u32
    };
    resize(picture, scaled(width), scaled(height), FilterType::Triangle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pictures_are_scaled_and_small_ones_stay() {
        let size = |width, height| fitted(&RgbImage::new(width, height), 96).dimensions();
        assert_eq!(size(960, 480), (96, 48));
        assert_eq!(size(1, 5_000), (1, 96));
        assert_eq!(size(20, 30), (20, 30));
    }
}
