//! Whole runs on the colours of [`crate::testing`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::Tensor;

use super::*;
use crate::checkpoint::Position;
use crate::eval::{self, Questions, Subject};
use crate::testing::{colours_toml, write_colours};

fn run(data: &Path, joint: u64, texts: u64, rate: f64) -> RunFile {
    parse(&colours_toml(data, joint, texts, rate))
}

fn parse(text: &str) -> RunFile {
    RunFile::parse(text, Path::new("run.toml")).unwrap()
}

/// A run with all that a stage may have: its state must survive a kill too.
fn run_with_everything(data: &Path) -> RunFile {
    let text = colours_toml(data, 6, 4, 1e-3)
        .replace("checkpoint_every = 3", "checkpoint_every = 2\nevaluate_every = 2")
        .replace(
            "name = \"joint\"",
            "name = \"joint\"\naccumulate = 2\nema_decay = 0.9\nearly_stop = { patience = 9 }\nerase = [{ modality = \"image\", space = \"shared\", factor = \"style\" }]",
        )
        .replace(
            "objective = { kind = \"split\" }",
            "objective = { kind = \"split\", exclusive_label = { image = \"style\", text = \"language\" } }",
        )
        .replace(
            "groups = [{ prefixes = [\"\"], learning_rate = 1e-3 }]",
            "groups = [{ prefixes = [\"\"], learning_rate = 1e-3 },
                { prefixes = [\"image.tower.\"], learning_rate = 1e-3, from_step = 1, until_step = 5 }]",
        );
    assert!(text.contains("until_step") && text.contains("exclusive_label"));
    parse(&text)
}

/// Breaks off after a number of steps, and keeps what was reported.
struct Until {
    steps: u64,
    reports: Vec<Report>,
}

impl Until {
    fn new(steps: u64) -> Self {
        Self { steps, reports: Vec::new() }
    }

    fn end() -> Self {
        Self::new(u64::MAX)
    }
}

impl Watch for Until {
    fn opened(&mut self, _: &Training) -> Result<()> {
        Ok(())
    }

    fn step(&mut self, report: &Report) -> Result<ControlFlow<()>> {
        self.reports.push(report.clone());
        let enough = self.reports.len() as u64 >= self.steps;
        Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn evaluate(&mut self, _: &Training, _: &Position) -> Result<()> {
        Ok(())
    }
}

fn options(out: &Path, resume: bool) -> FitOptions {
    FitOptions { out: out.to_path_buf(), resume, device: Device::Cpu }
}

/// Every weight, to the bit.
fn bits(training: &Training) -> BTreeMap<String, Vec<u32>> {
    let of = |tensor: Tensor| -> Vec<u32> {
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    let tensors = training.params.tensors().unwrap();
    tensors.into_iter().map(|(name, tensor)| (name, of(tensor))).collect()
}

#[test]
fn a_run_learns_what_belongs_together() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &[]);
    let run = run(folder.path(), 60, 10, 1e-2);
    let out = folder.path().join("out");
    let trained = fit(&run, &options(&out, false), &mut Until::end()).unwrap();
    let untrained = Training::open(&run, &Device::Cpu).unwrap();
    let at_1 = |training: &Training| {
        let tables =
            eval::evaluate(&Subject::of_training(training), &Questions::default()).unwrap();
        tables.text_to_picture["en"].at_1
    };
    assert!(at_1(&untrained) < 0.5, "{}", at_1(&untrained));
    assert!(at_1(&trained) >= 0.9, "{}", at_1(&trained));
}

#[test]
fn a_run_broken_off_anywhere_and_resumed_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &[]);
    let run = run(folder.path(), 5, 4, 1e-3);
    let whole = folder.path().join("whole");
    let expected = bits(&fit(&run, &options(&whole, false), &mut Until::end()).unwrap());
    // Within the first stage, at its end, within the second, and at the very end.
    for steps in [1, 4, 5, 7, 9] {
        let out = folder.path().join(format!("cut-{steps}"));
        fit(&run, &options(&out, false), &mut Until::new(steps)).unwrap();
        let mut rest = Until::end();
        let resumed = fit(&run, &options(&out, true), &mut rest).unwrap();
        assert_eq!(rest.reports.len() as u64, 9 - steps);
        assert!(bits(&resumed) == expected, "cut after {steps} steps");
    }
}

#[test]
fn what_was_done_since_the_last_checkpoint_is_done_again_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &[]);
    let run = run(folder.path(), 5, 4, 1e-3);
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let expected = bits(&fit(&run, &options(&whole, false), &mut Until::end()).unwrap());
    fit(&run, &options(&killed, false), &mut Until::new(4)).unwrap();
    // As a kill at step 4 leaves it: the checkpoint of step 3, and one half written.
    let checkpoints = killed.join("checkpoints");
    std::fs::rename(checkpoints.join("00000004"), checkpoints.join("00000004.unfinished")).unwrap();
    let resumed = fit(&run, &options(&killed, true), &mut Until::end()).unwrap();
    assert!(bits(&resumed) == expected);
}

#[test]
fn threads_do_not_change_the_result() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &[]);
    let run = run(folder.path(), 3, 2, 1e-3);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let out = folder.path().join(format!("threads-{threads}"));
        let trained = pool.install(|| fit(&run, &options(&out, false), &mut Until::end()));
        bits(&trained.unwrap())
    };
    assert!(with(1) == with(3));
}

#[test]
fn a_stage_moves_only_what_its_groups_name() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &[]);
    let run = run(folder.path(), 3, 3, 1e-3);
    let out = folder.path().join("out");
    let joint = bits(&fit(&run, &options(&out, false), &mut Until::new(3)).unwrap());
    let whole = bits(&fit(&run, &options(&out, true), &mut Until::end()).unwrap());
    for (name, before) in &joint {
        let trained = name.starts_with("text.tower.") || name.starts_with("text.shared.");
        assert_eq!(whole[name] != *before, trained, "{name}");
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_names_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &[]);
    let run = run(folder.path(), 20, 1, 1e30);
    let out = folder.path().join("out");
    let error = fit(&run, &options(&out, false), &mut Until::end()).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::NonFiniteLoss { .. }), "{message}");
    assert!(message.contains("stage `joint`") && message.contains("purple"), "{message}");
}

#[test]
fn a_folder_with_a_run_is_not_overwritten_and_another_run_does_not_go_on_there() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &[]);
    let (first, other) = (run(folder.path(), 2, 1, 1e-3), run(folder.path(), 3, 1, 1e-3));
    let out = folder.path().join("out");
    fit(&first, &options(&out, false), &mut Until::new(1)).unwrap();
    let again = fit(&first, &options(&out, false), &mut Until::end()).unwrap_err().to_string();
    assert!(again.contains("--resume"), "{again}");
    let another = fit(&other, &options(&out, true), &mut Until::end()).unwrap_err().to_string();
    assert!(another.contains("another run file"), "{another}");
    // The refusal leaves the first run as it was.
    fit(&first, &options(&out, true), &mut Until::end()).unwrap();
}

#[test]
fn the_state_of_every_part_of_a_stage_survives_a_break() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &["red", "white"]);
    let run = run_with_everything(folder.path());
    let whole = folder.path().join("whole");
    let expected = bits(&fit(&run, &options(&whole, false), &mut Until::end()).unwrap());
    for steps in [1, 2, 5, 6, 8] {
        let out = folder.path().join(format!("cut-{steps}"));
        fit(&run, &options(&out, false), &mut Until::new(steps)).unwrap();
        let resumed = fit(&run, &options(&out, true), &mut Until::end()).unwrap();
        assert!(bits(&resumed) == expected, "cut after {steps} steps");
    }
}

#[test]
fn a_stage_without_progress_ends_early_with_the_best_weights() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &["red", "white"]);
    // A gain of 600 points is out of reach: the first evaluation stays the best.
    let text = colours_toml(folder.path(), 50, 1, 1e-3)
        .replace("checkpoint_every = 3", "evaluate_every = 2")
        .replace(
            "name = \"joint\"",
            "name = \"joint\"\nearly_stop = { patience = 2, min_delta = 600.0 }",
        );
    let stopping = parse(&text);
    let mut watch = Until::end();
    let out = folder.path().join("out");
    let ended = fit(&stopping, &options(&out, false), &mut watch).unwrap();
    let joint = watch.reports.iter().filter(|report| report.stage == "joint").count();
    assert_eq!(joint, 6, "measured after steps 2, 4 and 6");
    let mut short = parse(&text);
    short.stages[0].early_stop = None;
    let after_two = folder.path().join("two");
    let two = bits(&fit(&short, &options(&after_two, false), &mut Until::new(2)).unwrap());
    let image = |bits: &BTreeMap<String, Vec<u32>>| bits["image.shared.weight"].clone();
    assert!(image(&bits(&ended)) == image(&two), "the second stage moves no picture weights");
}

#[test]
fn a_group_is_frozen_outside_its_steps() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &[]);
    let run = run_with_everything(folder.path());
    let at = |steps: u64| {
        let out = folder.path().join(format!("steps-{steps}"));
        let mut plain = run.clone();
        plain.stages[0].ema_decay = None;
        plain.stages[0].early_stop = None;
        let stage = fit(&plain, &options(&out, false), &mut Until::new(steps)).unwrap();
        bits(&stage)["image.tower.stem.conv.weight"].clone()
    };
    let by_step: Vec<_> = (1..=6).map(at).collect();
    assert!(by_step[0] != by_step[1] && by_step[3] != by_step[4], "steps 1 to 4 train it");
    assert!(by_step[4] == by_step[5], "step 5 does not");
}

#[test]
fn accumulated_gradients_are_the_mean_of_the_batches() {
    // With one learning step of plain descent the update tells the gradient: Adam's first step is its sign,
    // so the norm that is reported is compared instead.
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &[]);
    let text = colours_toml(folder.path(), 1, 1, 1e-3);
    let norm = |text: &str, out: &str| {
        let mut watch = Until::new(1);
        fit(&parse(text), &options(&folder.path().join(out), false), &mut watch).unwrap();
        let values = watch.reports[0].values.clone();
        let find = |name: &str| values.iter().find(|(known, _)| known == name).unwrap().1;
        (find("encoders.total"), find("encoders.gradient_norm"))
    };
    let two = text.replace("name = \"joint\"", "name = \"joint\"\naccumulate = 2");
    let ((one_loss, one_norm), (two_loss, two_norm)) = (norm(&text, "one"), norm(&two, "two"));
    assert!(one_loss != two_loss, "the second batch has another loss");
    assert!((two_loss - one_loss).abs() < 0.5 * one_loss, "a mean, not a sum: {two_loss}");
    assert!(two_norm < 1.5 * one_norm, "a mean, not a sum: {two_norm} after {one_norm}");
}

#[test]
fn every_training_picture_is_drawn_once_an_epoch_also_across_a_resume() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &["red", "white"]);
    let mut run = run(folder.path(), 6, 1, 1e-3);
    run.stages[0].batch.concepts = 4;
    run.stages[0].batch.order = crate::loader::Order::Pictures;
    let training = Training::open(&run, &Device::Cpu).unwrap();
    // Six colours in two pictures each are three batches of four; the loader is made anew at step 2.
    let mut drawn = Vec::new();
    for steps in [0..2, 2..6] {
        let mut loader = training.loader(0).unwrap();
        for step in steps {
            drawn.extend(loader.batch(step).unwrap().pictures);
        }
    }
    for epoch in drawn.chunks(12) {
        assert_eq!(epoch.iter().collect::<BTreeSet<_>>().len(), 12, "{drawn:?}");
    }
    let corpus = &training.corpus;
    let split = |picture: &usize| corpus.concepts[corpus.pictures[*picture].concept as usize].split;
    assert!(drawn.iter().all(|picture| split(picture) == crate::shards::Split::Train));
}

#[test]
fn a_run_may_begin_with_the_weights_of_another() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &[]);
    let first = folder.path().join("first");
    let learned = bits(
        &fit(&run(folder.path(), 3, 1, 1e-3), &options(&first, false), &mut Until::end()).unwrap(),
    );
    // A stage of the texts alone leaves the picture weights as it found them.
    let mut second = run(folder.path(), 1, 2, 1e-3);
    second.stages.remove(0);
    second.seed += 1;
    second.initial_weights = Some(first);
    let out = folder.path().join("second");
    let after = bits(&fit(&second, &options(&out, false), &mut Until::end()).unwrap());
    assert!(after["image.shared.weight"] == learned["image.shared.weight"]);
    assert!(after["text.shared.weight"] != learned["text.shared.weight"]);
    second.initial_weights = Some(folder.path().join("nowhere"));
    let out = folder.path().join("third");
    let error = fit(&second, &options(&out, false), &mut Until::end()).unwrap_err();
    assert!(error.to_string().contains("neither a bundle nor a run"), "{error}");
}

#[test]
fn a_factor_that_is_not_there_is_refused_by_name_when_it_is_to_be_taken_out() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &[]);
    let rule = "name = \"joint\"\nerase = [{ modality = \"image\", space = \"shared\", factor = \"age\" }]";
    let text = colours_toml(folder.path(), 1, 1, 1e-3).replace("name = \"joint\"", rule);
    let options = options(&folder.path().join("out"), false);
    let error = fit(&parse(&text), &options, &mut Until::end()).unwrap_err().to_string();
    assert!(error.contains("`erase`") && error.contains("`age`"), "{error}");
}
