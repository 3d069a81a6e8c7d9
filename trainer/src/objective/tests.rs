use std::collections::BTreeSet;

use super::*;
use crate::fit::Training;
use crate::testing::{colours_with, write_digit_pairs};

/// A stage of the objective begun on a small run, and the batch of its first step.
pub(super) fn begun(training: &Training, settings: &str) -> (Box<dyn Objective>, Batch) {
    let mut objective = build(&toml::from_str(settings).unwrap()).unwrap();
    objective.begin(training.context()).unwrap();
    (objective, training.loader(0).unwrap().batch(0).unwrap())
}

/// The names of all variables, and of those that a term alone has a gradient in.
pub(super) fn reached(training: &Training, settings: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut objective, batch) = begun(training, settings);
    let player = objective.players()[0];
    let losses = objective.losses(&player, &training.encoder, &batch).unwrap();
    let grads = losses.total.backward().unwrap();
    let mut vars = training.params.vars();
    vars.extend(objective.vars());
    let moves = |var: &Var| {
        grads.get(var).is_some_and(|gradient| {
            let largest = gradient.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(largest.is_finite());
            largest > 0.0
        })
    };
    let moved = vars.iter().filter(|(_, var)| moves(var)).map(|(name, _)| name.clone()).collect();
    (vars.into_keys().collect(), moved)
}

/// Whether one of the names begins so.
pub(super) fn any(names: &BTreeSet<String>, prefix: &str) -> bool {
    names.iter().any(|name| name.starts_with(prefix))
}

#[test]
fn the_table_is_sorted_and_without_repetition() {
    let names = OBJECTIVES.map(|entry| entry.name);
    let sorted: BTreeSet<&str> = names.into_iter().collect();
    assert_eq!(sorted.into_iter().collect::<Vec<_>>(), names);
}

#[test]
fn an_unknown_objective_is_refused_with_the_known_ones() {
    let message = build(&toml::from_str("kind = \"vsse\"").unwrap()).unwrap_err().to_string();
    assert!(message.contains("`vsse`; known: centroid, dssl, hybrid, iiae, split"), "{message}");
}

#[test]
fn unknown_and_impossible_settings_are_refused_by_name() {
    for (settings, named) in [
        ("kind = \"split\"\nmargin = 1", "margin"),
        ("kind = \"split\"\nexclusive_weight = -1.0", "exclusive_weight"),
        ("kind = \"split\"\nexclusive_temperature = 0.0", "exclusive_temperature"),
        ("kind = \"centroid\"\nfrom_concept_weight = inf", "from_concept_weight"),
        ("kind = \"centroid\"\ntunes = \"sounds\"", "sounds"),
        ("kind = \"centroid\"\nscale = 0.0", "scale"),
        ("kind = \"hybrid\"\nkl_weight = nan", "kl_weight"),
        ("kind = \"hybrid\"\ndecoder = { depth = 3 }", "depth"),
        ("kind = \"iiae\"\nbeta = 0.0", "beta"),
        ("kind = \"iiae\"\nannealing_steps = -1.0", "annealing_steps"),
        ("kind = \"dssl\"", "step"),
        ("kind = \"dssl\"\nstep = \"shared\"\ntemperature = 0.0", "temperature"),
        ("margin = 1", "kind"),
    ] {
        let message = build(&toml::from_str(settings).unwrap()).unwrap_err().to_string();
        assert!(message.contains(named), "{message} does not name {named}");
    }
}

#[test]
fn a_player_trains_what_its_prefixes_name() {
    let player = Player { name: "texts", prefixes: &["text.", "logit_scale"] };
    assert!(player.trains("text.tower.table.weight") && player.trains("logit_scale"));
    assert!(!player.trains("image.tower.stem.conv.weight"));
}

#[test]
fn the_example_of_each_row_is_valid() {
    for entry in OBJECTIVES {
        let settings = format!("kind = \"{}\"\n{}", entry.name, entry.example);
        build(&toml::from_str(&settings).unwrap()).unwrap();
    }
}

#[test]
fn iiae_trains_everything_but_the_scale_of_a_contrast_and_search_learns_from_the_joint_posterior() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "kind = \"iiae\"\ndecoder = { width = 8, text_width = 8 }";
    for training in
        [write_digit_pairs(folder.path(), settings), colours_with(folder.path(), settings)]
    {
        let (all, moved) = reached(&training, settings);
        let still: Vec<&String> = all.difference(&moved).collect();
        assert_eq!(still, ["logit_scale"]);
    }
    // Without reconstruction nothing reaches the decoders, and the shared heads still follow the joint
    // posterior.
    let training = colours_with(folder.path(), settings);
    let without =
        format!("{settings}\nreconstruction_weight = 0.0\ntext_reconstruction_weight = 0.0");
    let (_, moved) = reached(&training, &without);
    assert!(!any(&moved, "objective.decoder."));
    assert!(any(&moved, "image.shared.") && any(&moved, "text.shared."));
}

#[test]
fn dssl_trains_shared_vectors_first_and_then_nothing_but_exclusive_ones() {
    let folder = tempfile::tempdir().unwrap();
    for (step, trains, leaves) in
        [("shared", "shared.", "exclusive."), ("exclusive", "exclusive.", "shared.")]
    {
        let settings = format!("kind = \"dssl\"\nstep = \"{step}\"");
        let training = colours_with(folder.path(), &settings);
        let player = build(&toml::from_str(&settings).unwrap()).unwrap().players()[0];
        let (all, moved) = reached(&training, &settings);
        for side in ["image", "text"] {
            assert!(any(&moved, &format!("{side}.{trains}")), "{step}: {moved:?}");
            assert!(!any(&moved, &format!("{side}.{leaves}")), "{step}: {moved:?}");
        }
        // What the step trains has a gradient, all of it.
        let still: Vec<&String> =
            all.difference(&moved).filter(|name| player.trains(name)).collect();
        assert!(still.is_empty(), "{still:?}");
    }
}
