//! Writes a bundle with untrained weights, to start a server before one is trained:
//! `cargo run --release -p diptych-model --example untrained_bundle -- DIRECTORY [SEED]`.

use std::error::Error;

use diptych_model::ModelConfig;
use diptych_model::testing::untrained_bundle;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: untrained_bundle DIRECTORY [SEED]")?;
    let seed = arguments.next().map_or(Ok(0), |seed| seed.parse())?;
    untrained_bundle(ModelConfig::default(), seed)?.write(directory)?;
    Ok(())
}
