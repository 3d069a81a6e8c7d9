//! A bundle's encoders through the door that the server uses, called as it calls: from a thread of its own.

use std::path::Path;
use std::time::Instant;

use diptych_model::bundle::Bundle;
use diptych_model::preprocess::ImageLimits;
use diptych_model::testing::disc;
use diptych_model::{Encoder, Modality};

use super::Result;

const RUNS: usize = 25;

/// Prints medians of one input and of more.
pub(crate) fn run(folder: &Path, threads: usize) -> Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let encoder = Encoder::open(&Bundle::open(folder)?)?;
    for count in [1, 2, 4, 8, 16] {
        if encoder.has(Modality::Image) {
            let image = encoder.prepare_image(&disc(200, 200)?, &ImageLimits::default())?;
            let images = vec![image; count];
            median(&format!("pictures {count}"), || encoder.encode_images(&images).map(drop))?;
        }
        if encoder.has(Modality::Text) {
            for words in [6, 126] {
                let text = encoder.prepare_text(&"word ".repeat(words), true)?;
                let name = format!("texts {count} of {} tokens", text.token_count());
                let texts = vec![text; count];
                median(&name, || encoder.encode_texts(&texts).map(drop))?;
            }
        }
    }
    Ok(())
}

fn median(name: &str, run: impl Fn() -> diptych_model::Result<()>) -> Result<()> {
    run()?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("{name:32} {:9.2} ms", times[RUNS / 2]);
    Ok(())
}
