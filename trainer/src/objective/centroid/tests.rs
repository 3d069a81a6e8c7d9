use std::path::Path;

use candle_core::{DType, Device};

use super::*;
use crate::corpus::Withheld;
use crate::fit::Training;
use crate::objective::tests::{any, begun, reached};
use crate::testing::{colours_run, one_stage};

const SETTINGS: &str = "kind = \"centroid\"\ntunes = \"pictures\"\nproxy_weight = 1.0";

fn close(value: &Tensor, expected: f64) {
    let value = f64::from(value.to_dtype(DType::F32).unwrap().to_scalar::<f32>().unwrap());
    assert!((value - expected).abs() < 1e-4, "{value} is not {expected}");
}

/// A run whose batches have pictures, each in one view.
fn pictures(folder: &Path) -> Training {
    let mut run = colours_run(folder, 2, 1);
    let batch = &mut run.stages[0].batch;
    (batch.second_pictures, batch.second_texts) = (0, 0);
    one_stage(run, SETTINGS)
}

#[test]
fn the_loss_is_that_of_a_softmax_over_all_centres_and_of_each_centre_over_the_batch() {
    // By hand: similarities times 2 are (1.2, 1.6, -1.2) and (-2, 0, 2), of classes 1 and 2. Towards centres:
    // ln(e^1.2 + e^1.6 + e^-1.2) - 1.6 = 0.54878 and ln(e^-2 + 1 + e^2) - 2 = 0.14293. Back, centre 1 sees 1.6 against 0 and
    // centre 2 sees 2 against -1.2: ln(1 + e^-1.6) = 0.18390 and ln(1 + e^-3.2) = 0.03995.
    let device = Device::Cpu;
    let mut centroid = Centroid::new(Settings::default()).unwrap();
    centroid.prefixes = vec![2];
    let tuned = Tensor::new(&[[0.6_f32, 0.8], [-1.0, 0.0]], &device).unwrap();
    let centres = Tensor::new(&[[1.0_f32, 0.0], [0.0, 1.0], [-1.0, 0.0]], &device).unwrap();
    let scale = Tensor::new(2.0_f32, &device).unwrap();
    let [to, from] = centroid.towards(&centres, (&tuned, &[1, 2]), &scale).unwrap();
    close(&to, (0.54878 + 0.14293) / 2.0);
    close(&from, (0.18390 + 0.03995) / 2.0);
}

#[test]
fn pictures_are_tuned_alone_and_proxies_start_where_the_centroids_are() {
    let folder = tempfile::tempdir().unwrap();
    let training = pictures(folder.path());
    let (_, moved) = reached(&training, SETTINGS);
    assert!(any(&moved, "image.tower.") && any(&moved, "image.shared."), "{moved:?}");
    assert!(moved.contains("objective.proxies"));
    assert!(!any(&moved, "text.") && !any(&moved, "image.exclusive."), "{moved:?}");

    let (mut objective, batch) = begun(&training, SETTINGS);
    let losses = objective.losses(&PICTURES[0], &training.encoder, &batch).unwrap();
    let term = |name: &str| {
        let (_, value) = losses.terms.iter().find(|(own, _)| *own == name).unwrap();
        f64::from(value.to_scalar::<f32>().unwrap())
    };
    close(&Tensor::new(term("to_proxy") as f32, &Device::Cpu).unwrap(), term("to_concept"));
    let total = 2.0 * (term("to_concept") + 0.5 * term("from_concept"));
    close(&losses.total, total);
}

#[test]
fn a_name_that_is_withheld_is_not_in_the_centre() {
    let folder = tempfile::tempdir().unwrap();
    let training = pictures(folder.path());
    let before = centres_of_names(training.context()).unwrap();
    let withheld = Withheld::from([(0, "de".to_owned())]);
    let context = Context { withheld: &withheld, ..training.context() };
    let after = centres_of_names(context).unwrap();
    let changed: Vec<u32> =
        before.keys().copied().filter(|concept| before[concept] != after[concept]).collect();
    assert_eq!(changed, [0]);
}

#[test]
fn what_a_batch_does_not_need_is_refused() {
    let plan = |pictures, second_pictures| BatchPlan {
        concepts: 4,
        texts_per_concept: 1,
        pictures,
        order: Default::default(),
        second_pictures,
        second_texts: 0,
    };
    let built = |settings: &str| crate::objective::build(&toml::from_str(settings).unwrap());
    let pictures = built(SETTINGS).unwrap();
    assert!(pictures.check(&plan(true, 0)).is_ok());
    assert!(pictures.check(&plan(false, 0)).is_err() && pictures.check(&plan(true, 2)).is_err());
    let texts = built("kind = \"centroid\"").unwrap();
    assert!(texts.check(&plan(false, 0)).is_ok() && texts.check(&plan(true, 0)).is_err());
    let message = built("kind = \"centroid\"\nproxy_weight = 1.0").unwrap_err().to_string();
    assert!(message.contains("proxy_weight") && message.contains("pictures"), "{message}");
}
