use super::super::tests::{any, begun, reached};
use crate::testing::{colours_with, write_digit_pairs};

const HYBRID: &str = "kind = \"hybrid\"\ndecoder = { width = 8, text_width = 8 }";

fn only(weight: &str) -> String {
    let weights = [
        "shared_weight",
        "centring_weight",
        "reconstruction_weight",
        "text_reconstruction_weight",
        "kl_weight",
        "orthogonality_weight",
    ];
    let line = |name: &&str| format!("{name} = {}", if *name == weight { "1.0" } else { "0.0" });
    let weights: Vec<String> = weights.iter().map(line).collect();
    format!("{HYBRID}\n{}", weights.join("\n"))
}

#[test]
fn every_variable_of_model_and_objective_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    for pairs_pictures in [false, true] {
        let training = match pairs_pictures {
            true => write_digit_pairs(folder.path(), HYBRID),
            false => colours_with(folder.path(), HYBRID),
        };
        let (all, moved) = reached(&training, HYBRID);
        let still: Vec<&String> = all.difference(&moved).collect();
        assert!(still.is_empty(), "{still:?} do not move");
        let second = if pairs_pictures { "counterpart" } else { "text" };
        for name in ["image".to_owned(), format!("objective.decoder.{second}"), second.to_owned()] {
            assert!(any(&all, &name), "no {name}");
        }
    }
}

#[test]
fn a_reconstruction_teaches_its_own_exclusive_head_and_the_other_sides_shared_one() {
    let folder = tempfile::tempdir().unwrap();
    let training = colours_with(folder.path(), HYBRID);
    let (_, image) = reached(&training, &only("reconstruction_weight"));
    let (_, text) = reached(&training, &only("text_reconstruction_weight"));
    for (moved, own, other) in [(image, "image", "text"), (text, "text", "image")] {
        for (prefix, expected) in [
            (format!("{own}.exclusive."), true),
            (format!("{other}.shared."), true),
            (format!("objective.decoder.{own}."), true),
            (format!("objective.spread.{own}."), true),
            (format!("{own}.shared."), false),
            (format!("{other}.exclusive."), false),
            (format!("objective.decoder.{other}."), false),
            ("logit_scale".to_owned(), false),
        ] {
            assert_eq!(any(&moved, &prefix), expected, "{prefix} by the {own} error");
        }
    }
}

#[test]
fn the_divergence_reaches_exclusive_heads_alone_and_orthogonality_both() {
    let folder = tempfile::tempdir().unwrap();
    let training = colours_with(folder.path(), HYBRID);
    let (_, moved) = reached(&training, &only("kl_weight"));
    assert!(any(&moved, "image.exclusive.") && any(&moved, "text.exclusive."));
    assert!(!any(&moved, "image.shared.") && !any(&moved, "objective.decoder."));
    let (_, moved) = reached(&training, &only("orthogonality_weight"));
    for side in ["image", "text"] {
        assert!(any(&moved, &format!("{side}.shared.")));
        assert!(any(&moved, &format!("{side}.exclusive.")));
    }
    let (_, moved) = reached(&training, &only("shared_weight"));
    assert!(any(&moved, "logit_scale") && any(&moved, "image.shared."));
    assert!(!any(&moved, "image.exclusive.") && !any(&moved, "text.exclusive."));
}

#[test]
fn the_total_is_the_weighted_sum_of_the_terms() {
    let folder = tempfile::tempdir().unwrap();
    let training = colours_with(folder.path(), HYBRID);
    let weights = "shared_weight = 2.0\ncentring_weight = 3.0\nreconstruction_weight = 5.0\n\
                   text_reconstruction_weight = 7.0\nkl_weight = 0.5\northogonality_weight = 11.0";
    let (mut objective, batch) = begun(&training, &format!("{HYBRID}\n{weights}"));
    let player = objective.players()[0];
    let losses = objective.losses(&player, &training.encoder, &batch).unwrap();
    let term = |name: &str| {
        let found = losses.terms.iter().find(|(own, _)| *own == name).unwrap();
        f64::from(found.1.to_scalar::<f32>().unwrap())
    };
    let expected = 2.0 * term("shared")
        + 3.0 * term("concentration")
        + 5.0 * term("reconstruction_image")
        + 7.0 * term("reconstruction_text")
        + 0.5 * (term("kl_image") + term("kl_text"))
        + 11.0 * (term("alignment_image") + term("alignment_text"));
    let total = f64::from(losses.total.to_scalar::<f32>().unwrap());
    assert!((total - expected).abs() < 1e-3 * expected, "{total} and {expected}");
}

#[test]
fn what_is_drawn_depends_on_the_batch_alone() {
    let folder = tempfile::tempdir().unwrap();
    let training = colours_with(folder.path(), HYBRID);
    let total = |step: u64| {
        let (mut objective, _) = begun(&training, HYBRID);
        let batch = training.loader(0).unwrap().batch(step).unwrap();
        let player = objective.players()[0];
        let losses = objective.losses(&player, &training.encoder, &batch).unwrap();
        losses.total.to_scalar::<f32>().unwrap().to_bits()
    };
    assert_eq!(total(3), total(3));
    assert_ne!(total(3), total(4));
}
