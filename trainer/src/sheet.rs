//! `sample --run`: what a trained run makes of codes, to be looked at: a contact sheet and a page.
//!
//! | block | columns |
//! |---|---|
//! | from the other side | what it was made from, the real item, then draws of the exclusive code |
//! | made again | the real item, then from its own exclusive and the other side's shared code |
//! | swaps | a row gives the shared code, a column the exclusive one |
//!
//! Each for pictures, and for texts or the pictures that stand in their place. The sheet has the pictures,
//! the page everything.

mod html;
mod make;
mod png;

use std::fmt;
use std::path::PathBuf;

use image::RgbImage;

use crate::device;
use crate::error::{Error, Result};
use crate::fit::Training;
use crate::generate::Generator;

/// What to make.
#[derive(Debug, Clone)]
pub struct SheetArgs {
    /// The folder of a run: its newest checkpoint.
    pub run: PathBuf,
    /// A prepared dataset, in place of the run file's.
    pub data: Option<PathBuf>,
    /// The folder that `sheet.png` and `sheet.html` go to.
    pub out: PathBuf,
    /// Concepts that are shown, at least 2.
    pub rows: usize,
    /// Draws of the exclusive code for each, at least 1.
    pub draws: usize,
    /// Decides which concepts, and the draws.
    pub seed: u64,
}

/// What `sample --run` wrote.
#[derive(Debug, Clone)]
pub struct SheetReport {
    /// The pictures.
    pub sheet: PathBuf,
    /// The page.
    pub page: PathBuf,
}

impl fmt::Display for SheetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.sheet.display(), self.page.display())
    }
}

/// A grid of pictures or texts.
#[derive(Debug)]
struct Block {
    title: String,
    /// What is to be seen in it.
    note: &'static str,
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug)]
enum Cell {
    Picture(RgbImage),
    Text(String),
}

/// Makes the sheet and the page.
///
/// # Errors
/// If the run has no decoders, its data cannot be read, or the disk refuses.
pub fn run(args: &SheetArgs) -> Result<SheetReport> {
    if args.rows < 2 || args.draws == 0 {
        return Err(Error::setting("--rows, --draws", "at least 2 rows and 1 draw"));
    }
    let device = device::open("cpu")?;
    let training = Training::of_checkpoint(&args.run, args.data.as_deref(), &device)?;
    let generator = Generator::of_run(&args.run, &training)?.ok_or_else(|| {
        let message = "has no objective with decoders in its last stage; `hybrid` and `iiae` have";
        Error::checkpoint(&args.run, message)
    })?;
    let blocks = make::blocks(&generator, args)?;
    crate::checkpoint::create_folder(&args.out)?;
    let (sheet, page) = (args.out.join("sheet.png"), args.out.join("sheet.html"));
    let write = |path: &PathBuf, bytes: &[u8]| {
        std::fs::write(path, bytes).map_err(|source| Error::io(path, source))
    };
    write(&sheet, &png::sheet(&blocks)?)?;
    write(&page, html::page(&training.run.name, &blocks)?.as_bytes())?;
    Ok(SheetReport { sheet, page })
}

#[cfg(test)]
mod tests;
