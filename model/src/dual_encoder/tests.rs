use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

use super::{DualEncoder, Encoding};
use crate::config::{ConvConfig, HeadsConfig, ImageTowerConfig, ModelConfig};
use crate::config::{NgramBagConfig, TextTowerConfig};
use crate::error::Kind;
use crate::ops::gradcheck::values;
use crate::ops::{cross_entropy, l2_normalize, log_softmax, similarity};
use crate::params::Params;
use crate::preprocess::TokenBatch;

fn small() -> ModelConfig {
    let conv = ConvConfig { size: 16, widths: vec![8, 16], groups: 4, ..ConvConfig::default() };
    let bag = NgramBagConfig { buckets: 24, width: 8, gate: 4, hidden: 16, manner: 0 };
    let heads = HeadsConfig {
        shared: 12,
        matryoshka: vec![4],
        exclusive_image: 6,
        exclusive_text: 5,
        exclusive_hidden: 10,
        ..HeadsConfig::default()
    };
    ModelConfig {
        image_tower: Some(ImageTowerConfig::Conv(conv)),
        text_tower: Some(TextTowerConfig::NgramBag(bag)),
        counterpart_tower: None,
        heads,
    }
}

fn pixels(batch: usize) -> Tensor {
    values(5, &[batch, 3, 16, 16]).unwrap().to_dtype(DType::F32).unwrap()
}

/// Texts of four ids each, which use every row of the small table from six texts on.
fn tokens(batch: usize) -> TokenBatch {
    let ids = (0..4 * batch as u32).map(|i| i % 24).collect();
    let every = |step: u32| (0..=batch as u32).map(move |i| step * i);
    let (word_offsets, text_offsets) = (every(4).collect(), every(1).collect());
    TokenBatch { ids, word_offsets, text_offsets, ..TokenBatch::default() }
}

/// One direction of a contrastive loss on the shared vectors, and a loss on the exclusive ones.
fn loss(model: &DualEncoder, images: &Encoding, texts: &Encoding) -> Tensor {
    let scale = model.logit_scale().exp().unwrap();
    let logits = similarity(&images.shared, &texts.shared).unwrap().broadcast_mul(&scale).unwrap();
    let labels = Tensor::arange(0, images.shared.dim(0).unwrap() as u32, &Device::Cpu).unwrap();
    let shared = cross_entropy(&log_softmax(&logits).unwrap(), &labels).unwrap();
    let exclusive = [images, texts].map(|encoding| {
        let logits =
            similarity(encoding.exclusive().unwrap(), encoding.exclusive().unwrap()).unwrap();
        let target = values(6, logits.dims()).unwrap().to_dtype(DType::F32).unwrap();
        (logits - target).unwrap().sqr().unwrap().mean_all().unwrap()
    });
    (shared + &exclusive[0]).unwrap().add(&exclusive[1]).unwrap()
}

#[test]
fn every_weight_has_a_finite_gradient_after_a_contrastive_step() {
    let params = Params::seeded(1, &Device::Cpu);
    let model = DualEncoder::new(&small(), &params).unwrap();
    let images = model.encode_images(&pixels(8)).unwrap();
    let texts = model.encode_texts(&tokens(8)).unwrap();
    let gradients = loss(&model, &images, &texts).backward().unwrap();
    for (name, var) in params.vars() {
        let gradient = gradients.get(&var).unwrap_or_else(|| panic!("{name} has no gradient"));
        let length = gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(length.is_finite() && length > 0.0, "{name}: {length}");
    }
}

/// Heads, norms of vectors and losses are in f32 behind towers in half precision.
#[test]
fn towers_in_half_precision_give_nearly_the_same_vectors_and_the_same_types() {
    let encode = |dtype| {
        let params = Params::seeded(1, &Device::Cpu).with_compute_dtype(dtype);
        let model = DualEncoder::new(&small(), &params).unwrap();
        let images = model.encode_images(&pixels(8)).unwrap();
        let texts = model.encode_texts(&tokens(8)).unwrap();
        let loss = loss(&model, &images, &texts);
        let gradients = loss.backward().unwrap();
        for (name, var) in params.vars() {
            let gradient = gradients.get(&var).unwrap_or_else(|| panic!("{name} has no gradient"));
            let length = gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(length.is_finite() && length > 0.0, "{name}: {length}");
        }
        [images.shared, images.exclusive.unwrap(), texts.shared, texts.exclusive.unwrap()]
    };
    let exact = encode(DType::F32);
    for (dtype, tolerance) in [(DType::BF16, 1e-2), (DType::F16, 1e-4)] {
        for (half, exact) in encode(dtype).iter().zip(&exact) {
            let cosines = (half * exact).unwrap().sum(1).unwrap().to_vec1::<f32>().unwrap();
            let worst = cosines.into_iter().fold(1.0, f32::min);
            assert!(worst > 1.0 - tolerance, "{dtype:?}: cosine {worst}");
        }
    }
}

/// A plain step down the gradient changes what the model that was built before computes.
#[test]
fn a_built_model_follows_its_variables() {
    let params = Params::seeded(1, &Device::Cpu);
    let model = DualEncoder::new(&small(), &params).unwrap();
    let step = || {
        let images = model.encode_images(&pixels(8)).unwrap();
        let texts = model.encode_texts(&tokens(8)).unwrap();
        loss(&model, &images, &texts)
    };
    let before = step();
    let gradients = before.backward().unwrap();
    for var in params.vars().values() {
        let change = gradients.get(var).unwrap().affine(-0.01, 0.0).unwrap();
        var.set(&(var.as_tensor() + change).unwrap()).unwrap();
    }
    let [before, after] = [before, step()].map(|loss| loss.to_scalar::<f32>().unwrap());
    assert!(after < before, "{before} -> {after}");
}

#[test]
fn a_step_gives_the_same_bits_for_any_number_of_threads() {
    let step = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let params = Params::seeded(1, &Device::Cpu);
            let model = DualEncoder::new(&small(), &params).unwrap();
            let images = model.encode_images(&pixels(70)).unwrap();
            let texts = model.encode_texts(&tokens(70)).unwrap();
            let gradients = loss(&model, &images, &texts).backward().unwrap();
            let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            params.vars().values().map(|var| flat(gradients.get(var).unwrap())).collect::<Vec<_>>()
        })
    };
    let alone = step(1);
    assert!(alone == step(2) && alone == step(5));
}

#[test]
fn one_seed_gives_one_model_and_another_seed_another() {
    let shared = |seed| {
        let model = DualEncoder::new(&small(), &Params::seeded(seed, &Device::Cpu)).unwrap();
        model.encode_images(&pixels(2)).unwrap().shared.to_vec2::<f32>().unwrap()
    };
    assert_eq!(shared(1), shared(1));
    assert_ne!(shared(1), shared(2));
}

#[test]
fn rows_have_unit_length_and_the_configured_widths() {
    let model = DualEncoder::new(&small(), &Params::seeded(1, &Device::Cpu)).unwrap();
    // Enough pictures that a rectifier would switch off all ten hidden units of one of them.
    let images = model.encode_images(&pixels(64)).unwrap();
    let texts = model.encode_texts(&tokens(64)).unwrap();
    let widths = [(&images.shared, 12), (images.exclusive().unwrap(), 6), (&texts.shared, 12)];
    for (rows, width) in widths.into_iter().chain([(texts.exclusive().unwrap(), 5)]) {
        assert_eq!(rows.dims(), [64, width]);
        for length in rows.sqr().unwrap().sum(1).unwrap().to_vec1::<f32>().unwrap() {
            assert!((length - 1.0).abs() < 1e-5);
        }
    }
    let again = l2_normalize(&images.shared).unwrap();
    assert_eq!(again.dims(), images.shared.dims());
}

#[test]
fn the_default_model_fits_16_megabytes_in_half_precision() {
    let params = Params::seeded(1, &Device::Cpu);
    DualEncoder::new(&ModelConfig::default(), &params).unwrap();
    let weights: usize = params.vars().values().map(|var| var.elem_count()).sum();
    assert!(2 * weights < 16_000_000, "{weights} weights");
    let tower = params.vars().into_iter().filter(|(name, _)| name.starts_with("image.tower."));
    let tower: usize = tower.map(|(_, var)| var.elem_count()).sum();
    assert!((600_000..900_000).contains(&tower), "{tower} weights of the image tower");
}

#[test]
fn refuses_ids_beyond_the_vocabulary_and_pictures_of_another_shape() {
    let model = DualEncoder::new(&small(), &Params::seeded(1, &Device::Cpu)).unwrap();
    assert!(
        model
            .encode_texts(&TokenBatch {
                ids: vec![24],
                word_offsets: vec![0, 1],
                text_offsets: vec![0, 1],
                ..TokenBatch::default()
            })
            .is_err()
    );
    let grey = Tensor::zeros((1, 1, 16, 16), DType::F32, &Device::Cpu).unwrap();
    assert!(model.encode_images(&grey).is_err());
}

#[test]
fn a_setting_out_of_range_is_named() {
    let mut config = small();
    config.heads.matryoshka = vec![4, 12];
    let error = DualEncoder::new(&config, &Params::seeded(1, &Device::Cpu)).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().starts_with("heads.matryoshka: "), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Vectors are the same alone and in any batch: cosine distance at most 1e-5.
    #[test]
    fn a_vector_does_not_depend_on_its_batch(size in 2..40_usize, pick in 0..40_usize) {
        let pick = pick % size;
        let model = DualEncoder::new(&small(), &Params::seeded(1, &Device::Cpu)).unwrap();
        let pixels = pixels(size);
        let together = model.encode_images(&pixels).unwrap();
        let alone = model.encode_images(&pixels.narrow(0, pick, 1).unwrap()).unwrap();
        for (alone, together) in
            [(&alone.shared, &together.shared), (alone.exclusive().unwrap(), together.exclusive().unwrap())]
        {
            let dots = similarity(alone, &together.narrow(0, pick, 1).unwrap()).unwrap();
            prop_assert!(1.0 - dots.to_vec2::<f32>().unwrap()[0][0] <= 1e-5);
        }
    }
}
