//! Other views of a picture and other wordings of a text, from generators that the caller seeds.

pub mod image;
pub mod text;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A generator for one purpose, from the run's seed and the coordinates of what is drawn.
///
/// Everything random in training comes from here, keyed by where it is used and never by what was
/// drawn before: so the batch of any step can be made without the steps before it, on any thread.
#[must_use]
pub fn generator(seed: u64, coordinates: &[u64]) -> ChaCha8Rng {
    let mixed = coordinates.iter().fold(scramble(seed), |state, value| scramble(state ^ value));
    ChaCha8Rng::seed_from_u64(mixed)
}

/// SplitMix64's output function (Steele et al., 2014), after its increment.
fn scramble(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A standard normal number (Box and Muller, 1958).
pub(crate) fn normal(rng: &mut impl Rng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_give_different_generators_and_the_same_ones_again() {
        let first = |seed, coordinates: &[u64]| generator(seed, coordinates).random::<u64>();
        assert_eq!(first(1, &[2, 3]), first(1, &[2, 3]));
        for other in [first(2, &[2, 3]), first(1, &[3, 2]), first(1, &[2]), first(1, &[2, 3, 0])] {
            assert_ne!(first(1, &[2, 3]), other);
        }
    }
}
