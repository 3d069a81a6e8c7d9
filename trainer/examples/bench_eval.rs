//! How long recall takes in both directions: 1,000 pictures, 5,000 texts, 256 dimensions.

use std::io::Write;
use std::time::Instant;

use diptych_train::augment::generator;
use diptych_train::eval::Side;
use diptych_train::eval::matrix::Matrix;
use diptych_train::eval::retrieval::directions;
use rand::Rng;

fn side(rows: usize, per_concept: usize, seed: u64) -> Side {
    let mut rng = generator(seed, &[]);
    let values = (0..rows * 256).map(|_| rng.random::<f32>() - 0.5).collect();
    let mut shared = Matrix::new(values, 256);
    shared.normalise();
    Side::of_shared(shared, (0..rows).map(|row| (row / per_concept) as u32).collect())
}

fn main() -> anyhow::Result<()> {
    let (pictures, names) = (side(1_000, 1, 1), side(5_000, 5, 2));
    let mut out = std::io::stdout();
    for _ in 0..5 {
        let started = Instant::now();
        let found = directions(&names, &pictures)?;
        let seconds = started.elapsed().as_secs_f64();
        writeln!(out, "{seconds:.3} s, rsum {:.2} (chance 6.1)", found.rsum)?;
    }
    Ok(())
}
