//! Retrieval by exclusive vectors, which should find nothing.
//!
//! Compared as they are, the exclusive vectors of two modalities are at chance even where they leak:
//! they live in spaces of their own. So a map from each side's exclusive vectors to the other side's
//! shared ones is fitted first, a linear and a nonlinear one, and asked on concepts it was not fitted on.

use serde::{Deserialize, Serialize};

use super::SEED;
use super::division::{Division, Rule};
use super::encoded::{Encoded, Side};
use super::matrix::Matrix;
use super::recall;
use super::retrieval;
use super::ridge::{RandomFeatures, Ridge};
use crate::error::Result;

/// Features of the nonlinear map.
const FEATURES: usize = 256;

/// Most rows that a map is fitted on.
const ROWS: usize = 10_000;

/// The penalty of the maps for each row.
const PENALTY: f64 = 0.01;

/// What retrieval by exclusive vectors finds, in both directions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExclusiveRetrieval {
    /// How the concepts to fit on and to ask were told apart.
    pub rule: Rule,
    /// Names asking for pictures.
    pub text_to_picture: Found,
    /// Pictures asking for names.
    pub picture_to_text: Found,
}

/// What was found in one direction, among the same candidates each time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Queries.
    pub queries: usize,
    /// Candidates.
    pub candidates: usize,
    /// What random scores would find.
    pub chance: Cuts,
    /// Exclusive vectors compared as they are; absent where they differ in length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfitted: Option<Cuts>,
    /// Exclusive vectors mapped to the other side's shared ones by ridge regression.
    pub ridge: Cuts,
    /// The same by ridge regression on random Fourier features.
    pub random_features: Cuts,
    /// Shared vectors, for comparison.
    pub shared: Cuts,
}

/// Recall at two cuts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cuts {
    /// Share with a true match first.
    pub at_1: f64,
    /// Share with a true match among the first ten.
    pub at_10: f64,
}

/// Asks in both directions; `None` where there is nothing to fit on or to ask, or no exclusive vectors.
///
/// # Errors
/// If a vector is not finite.
pub fn evaluate(encoded: &Encoded, division: &Division) -> Result<Option<ExclusiveRetrieval>> {
    if [&encoded.pictures, &encoded.names].iter().any(|side| side.exclusive.columns() == 0) {
        return Ok(None);
    }
    let (pictures, names) = encoded.of_concepts(|concept| division.fitted[concept as usize]);
    let fitted = (names, pictures);
    let (pictures, names) = encoded.of_concepts(|concept| division.scored[concept as usize]);
    let there = found((&fitted.0, &fitted.1), (&names, &pictures))?;
    let back = found((&fitted.1, &fitted.0), (&pictures, &names))?;
    Ok(there.zip(back).map(|(text_to_picture, picture_to_text)| ExclusiveRetrieval {
        rule: division.rule,
        text_to_picture,
        picture_to_text,
    }))
}

/// One direction: sides to fit on and to ask, each (asking, asked for).
fn found(fitted: (&Side, &Side), (asking, other): (&Side, &Side)) -> Result<Option<Found>> {
    let (inputs, targets) = pairs(fitted.0, fitted.1);
    if inputs.rows() == 0 {
        return Ok(None);
    }
    let cuts = |queries: &Matrix, candidates: &Matrix| -> Result<(usize, Cuts)> {
        let against = (candidates, &other.concepts[..]);
        let recall = retrieval::recall((queries, &asking.concepts), against)?;
        Ok((recall.queries, Cuts { at_1: recall.at_1, at_10: recall.at_10 }))
    };
    let mapped = |inputs: &Matrix, queries: &Matrix| -> Result<Cuts> {
        let penalty = PENALTY * inputs.rows() as f64;
        let mut mapped = Ridge::fit(inputs, &targets, penalty)?.apply(queries)?;
        mapped.normalise();
        Ok(cuts(&mapped, &other.shared)?.1)
    };
    let (queries, shared) = cuts(&asking.shared, &other.shared)?;
    if queries == 0 {
        return Ok(None);
    }
    let comparable = asking.exclusive.columns() == other.exclusive.columns();
    let unfitted = comparable.then(|| cuts(&asking.exclusive, &other.exclusive)).transpose()?;
    let features = RandomFeatures::new(&inputs, FEATURES, SEED);
    Ok(Some(Found {
        queries,
        candidates: other.len(),
        chance: chance(asking, other),
        unfitted: unfitted.map(|(_, cuts)| cuts),
        ridge: mapped(&inputs, &asking.exclusive)?,
        random_features: mapped(&features.apply(&inputs)?, &features.apply(&asking.exclusive)?)?,
        shared,
    }))
}

/// Exclusive vectors of one side, each with the mean shared vector of its concept on the other.
fn pairs(from: &Side, to: &Side) -> (Matrix, Matrix) {
    let count = from.concepts.iter().chain(&to.concepts).max().map_or(0, |most| *most as usize + 1);
    let width = to.shared.columns();
    let mut sums = Matrix::zeros(count, width);
    let mut has = vec![false; count];
    for (row, concept) in to.shared.iter().zip(&to.concepts) {
        let concept = *concept as usize;
        has[concept] = true;
        let sum = &mut sums.values_mut()[concept * width..(concept + 1) * width];
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    sums.normalise();
    let usable: Vec<usize> =
        (0..from.len()).filter(|at| has[from.concepts[*at] as usize]).collect();
    let stride = usable.len().div_ceil(ROWS).max(1);
    let chosen: Vec<usize> = usable.into_iter().step_by(stride).collect();
    let targets: Vec<usize> = chosen.iter().map(|at| from.concepts[*at] as usize).collect();
    (from.exclusive.select(&chosen), sums.select(&targets))
}

/// What random scores would find.
fn chance(asking: &Side, other: &Side) -> Cuts {
    let mut counts = std::collections::BTreeMap::<u32, usize>::new();
    for concept in &other.concepts {
        *counts.entry(*concept).or_default() += 1;
    }
    let right: Vec<usize> =
        asking.concepts.iter().filter_map(|concept| counts.get(concept).copied()).collect();
    let at = |k| recall::chance_at_k(&right, other.len(), k);
    Cuts { at_1: at(1), at_10: at(10) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::{generator, normal};

    /// A picture and a name for each concept. The name's exclusive vector is noise; the picture's is
    /// its shared vector in another basis (turned by a shift of the axes), or noise.
    fn made(leak: bool) -> Encoded {
        let (concepts, dims) = (200, 16);
        let mut rng = generator(7, &[]);
        let mut noise = || {
            let values = (0..concepts * dims).map(|_| normal(&mut rng)).collect();
            let mut rows = Matrix::new(values, dims);
            rows.normalise();
            rows
        };
        let (shared, own, names) = (noise(), noise(), noise());
        let turned =
            |row: &[f32]| -> Vec<f32> { (0..dims).map(|at| row[(at + 5) % dims]).collect() };
        let leaked = Matrix::new(shared.iter().flat_map(turned).collect(), dims);
        let exclusive = if leak { leaked } else { own };
        let side = |exclusive| Side {
            shared: shared.clone(),
            exclusive,
            concepts: (0..concepts as u32).collect(),
            rows: (0..concepts).collect(),
        };
        Encoded { pictures: side(exclusive), names: side(names), texts: Vec::new() }
    }

    #[test]
    fn a_leak_in_another_basis_is_seen_by_the_fitted_map_alone() {
        let division = Division::drawn(&[true; 200], 0.3, 0);
        let found = evaluate(&made(true), &division).unwrap().unwrap();
        let Found { queries, chance, unfitted, ridge, shared, .. } = found.picture_to_text;
        assert_eq!(queries, 60);
        assert!((chance.at_1 - 1.0 / 60.0).abs() < 1e-9 && (shared.at_1 - 1.0).abs() < 1e-9);
        assert!(unfitted.unwrap().at_1 < 0.1, "{unfitted:?}");
        assert!(ridge.at_1 > 0.95, "{ridge:?}");
        assert!(found.text_to_picture.ridge.at_1 < 0.1);
    }

    #[test]
    fn vectors_that_say_nothing_find_nothing() {
        let division = Division::drawn(&[true; 200], 0.3, 0);
        let found = evaluate(&made(false), &division).unwrap().unwrap().picture_to_text;
        for cuts in [found.unfitted.unwrap(), found.ridge, found.random_features] {
            assert!(cuts.at_1 < 0.1 && cuts.at_10 < 0.4, "{found:?}");
        }
        assert!(evaluate(&Encoded::default(), &division).unwrap().is_none());
    }
}
