//! The contract of every row of the tables.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::{Entry, IMAGE_TOWERS, ImageFeatures, ImageTower, TEXT_TOWERS, TextTower, image, text};
use crate::config::{ImageTowerConfig, TextTowerConfig};
use crate::ops::gradcheck::values;
use crate::params::Params;
use crate::preprocess::{TokenBatch, Tokens};

/// From the numbers of made-up inputs to their features, one row for each.
type Forward = Box<dyn Fn(&[usize]) -> Tensor>;

/// A tower that the contract is checked on.
trait Subject {
    fn build(&self, params: &Params) -> Forward;
}

struct Pictures(ImageTowerConfig);

struct Texts(TextTowerConfig);

impl Subject for Pictures {
    fn build(&self, params: &Params) -> Forward {
        let tower: Box<dyn ImageTower> = image(&self.0, params, "tower").unwrap();
        let size = self.0.size();
        let dtype = params.dtype();
        Box::new(move |picks| {
            let pictures: Vec<Tensor> =
                picks.iter().map(|&pick| values(pick as u64, &[3, size, size]).unwrap()).collect();
            let pixels = Tensor::stack(&pictures, 0).unwrap().to_dtype(dtype).unwrap();
            let ImageFeatures { last, early } = tower.forward(&pixels).unwrap();
            assert_eq!(last.dims(), [picks.len(), tower.last_width()]);
            assert_eq!(early.dims(), [picks.len(), tower.early_width()]);
            Tensor::cat(&[&last, &early], 1).unwrap()
        })
    }
}

impl Subject for Texts {
    fn build(&self, params: &Params) -> Forward {
        let tower: Box<dyn TextTower> = text(&self.0, params, "tower").unwrap();
        let vocabulary = self.0.vocabulary() as u32;
        Box::new(move |picks| {
            let texts: Vec<Tokens> = picks
                .iter()
                .map(|&pick| {
                    let ids = (0..pick as u32 * 3 + 1).map(|i| (i * 31 + pick as u32) % vocabulary);
                    let word_lengths = vec![1, pick as u32 * 3];
                    Tokens { ids: ids.collect(), word_lengths, ..Tokens::default() }
                })
                .collect();
            let batch = TokenBatch::collate(&texts.iter().collect::<Vec<_>>());
            let features = tower.forward(&batch).unwrap();
            assert_eq!(features.dims(), [picks.len(), tower.width()]);
            features
        })
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The examples as configured: a table that no test walks would be a table of promises.
fn subjects() -> BTreeMap<&'static str, Box<dyn Subject>> {
    let subjects = subjects_where(|_| true);
    assert_eq!(subjects.len(), IMAGE_TOWERS.len() + TEXT_TOWERS.len(), "names are unique");
    subjects
}

fn trained_subjects() -> BTreeMap<&'static str, Box<dyn Subject>> {
    subjects_where(|entry| !entry.frozen)
}

fn subjects_where(chosen: impl Fn(&Entry) -> bool) -> BTreeMap<&'static str, Box<dyn Subject>> {
    let mut subjects: BTreeMap<&str, Box<dyn Subject>> = BTreeMap::new();
    for entry in IMAGE_TOWERS.iter().filter(|entry| chosen(entry)) {
        subjects.insert(entry.name, Box::new(Pictures(toml::from_str(entry.example).unwrap())));
    }
    for entry in TEXT_TOWERS.iter().filter(|entry| chosen(entry)) {
        subjects.insert(entry.name, Box::new(Texts(toml::from_str(entry.example).unwrap())));
    }
    subjects
}

const PICKS: [usize; 5] = [1, 2, 3, 4, 5];

#[test]
fn an_example_names_its_own_kind() {
    for entry in IMAGE_TOWERS.iter().chain(TEXT_TOWERS) {
        let example: toml::Table = toml::from_str(entry.example).unwrap();
        assert_eq!(example["kind"].as_str(), Some(entry.name));
    }
}

#[test]
fn a_row_is_the_same_alone_and_in_a_batch() {
    for (name, subject) in subjects() {
        let tower = subject.build(&Params::seeded(1, &Device::Cpu));
        let batch = tower(&PICKS);
        for (row, pick) in PICKS.into_iter().enumerate() {
            let (alone, together) = (flat(&tower(&[pick])), flat(&batch.get(row).unwrap()));
            for (alone, together) in alone.iter().zip(&together) {
                assert!((alone - together).abs() <= 1e-5 * (1.0 + alone.abs()), "{name}");
            }
        }
    }
}

/// Weights that are served are multiplied in another order than those that are trained.
#[test]
fn saved_and_loaded_weights_give_the_same_features() {
    for (name, subject) in subjects() {
        let trained = Params::seeded(2, &Device::Cpu);
        let before = flat(&subject.build(&trained)(&PICKS));
        let served = Params::from_tensors(trained.tensors().unwrap(), &Device::Cpu);
        let after = flat(&subject.build(&served)(&PICKS));
        served.finish().unwrap();
        for (before, after) in before.iter().zip(&after) {
            assert!((before - after).abs() <= 1e-5 * (1.0 + before.abs()), "{name}");
        }
        let again = Params::from_tensors(trained.tensors().unwrap(), &Device::Cpu);
        assert_eq!(after, flat(&subject.build(&again)(&PICKS)), "{name}");
    }
}

/// What CUDA does, on the CPU: features and gradients keep the type of the weights, and the features
/// nearly their direction. Bf16 has 8 significant bits, f16 11.
#[test]
fn half_precision_stays_inside_the_tower() {
    for (name, subject) in trained_subjects() {
        let exact = subject.build(&Params::seeded(4, &Device::Cpu))(&PICKS);
        for (dtype, tolerance) in [(DType::BF16, 0.02), (DType::F16, 0.003)] {
            let params = Params::seeded(4, &Device::Cpu).with_compute_dtype(dtype);
            let features = subject.build(&params)(&PICKS);
            assert_eq!(features.dtype(), DType::F32, "{name}");
            let length = |tensor: &Tensor| flat(tensor).iter().map(|v| v * v).sum::<f32>().sqrt();
            let error = length(&(&features - &exact).unwrap()) / length(&exact);
            assert!(error > 0.0 && error < tolerance, "{name} in {dtype:?}: {error}");
            let gradients = features.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            for (weight, var) in params.vars() {
                let gradient = gradients.get(&var).unwrap();
                assert_eq!(gradient.dtype(), DType::F32, "{name}: {weight}");
                let length = length(gradient);
                assert!(length.is_finite() && length > 0.0, "{name}: {weight} has {length}");
            }
        }
    }
}

#[test]
fn a_gradient_reaches_every_weight() {
    for (name, subject) in trained_subjects() {
        let params = Params::seeded(3, &Device::Cpu).with_dtype(DType::F64);
        let features = subject.build(&params)(&PICKS);
        let weights = values(9, features.dims()).unwrap();
        let gradients = (features * weights).unwrap().sum_all().unwrap().backward().unwrap();
        for (weight, var) in params.vars() {
            let gradient = gradients.get(&var).unwrap().sqr().unwrap().sum_all().unwrap();
            let length = gradient.to_scalar::<f64>().unwrap();
            assert!(length.is_finite() && length > 0.0, "{name}: {weight} has {length}");
        }
    }
}
