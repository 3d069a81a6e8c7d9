//! Behaviour of encoding.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::error::Kind;
use crate::testing::{disc, tiny_bundle};

static ENCODER: LazyLock<Encoder> =
    LazyLock::new(|| Encoder::open(&tiny_bundle(3).unwrap()).unwrap());

fn cosine_distance(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn assert_same(alone: &Vectors, in_batch: &Vectors) {
    let exclusive = |vectors: &Vectors| vectors.exclusive.clone().unwrap();
    for (a, b) in [(&alone.shared, &in_batch.shared), (&exclusive(alone), &exclusive(in_batch))] {
        assert!(cosine_distance(a, b) <= 1e-5, "{}", cosine_distance(a, b));
    }
}

fn image(width: u32, height: u32) -> PreparedImage {
    let limits = ImageLimits::default();
    ENCODER.prepare_image(&disc(width, height).unwrap(), &limits).unwrap()
}

#[test]
fn vectors_have_the_stated_dims_and_unit_length() {
    let images = ENCODER.encode_images(&[image(1, 1), image(200, 3)]).unwrap();
    let text = ENCODER.prepare_text("a red heart", false).unwrap();
    let texts = ENCODER.encode_texts(&[text]).unwrap();
    for (modality, vectors) in [(Modality::Image, &images), (Modality::Text, &texts)] {
        for vector in vectors {
            for (space, values) in [
                (Space::Shared, &vector.shared),
                (Space::Exclusive, vector.exclusive.as_ref().unwrap()),
            ] {
                assert_eq!(values.len(), ENCODER.space(modality, space).unwrap().dims);
                let norm: f32 = values.iter().map(|value| value * value).sum();
                assert!((norm - 1.0).abs() < 1e-5, "{norm}");
            }
        }
    }
    assert_eq!(ENCODER.spaces().shared.prefixes, [8, 16]);
}

#[test]
fn nothing_in_gives_nothing_out() {
    assert!(ENCODER.encode_images(&[]).unwrap().is_empty());
    assert!(ENCODER.encode_texts(&[]).unwrap().is_empty());
}

#[test]
fn bad_inputs_are_told_apart() {
    let limits = ImageLimits::default();
    let kind = |result: Result<PreparedImage>| result.unwrap_err().kind();
    assert_eq!(kind(ENCODER.prepare_image(b"", &limits)), Kind::Invalid);
    assert_eq!(kind(ENCODER.prepare_image(b"a text", &limits)), Kind::Invalid);
    let megabyte = "word ".repeat(200_000);
    assert_eq!(ENCODER.prepare_text(&megabyte, false).unwrap_err().kind(), Kind::Limit);
    let cut = ENCODER.prepare_text(&megabyte, true).unwrap();
    assert!(cut.truncated() && cut.used_bytes() <= 8192);
    assert_eq!(ENCODER.prepare_text("...", true).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn a_seed_always_gives_the_same_bundle() {
    let digests = |seed| {
        let bundle = tiny_bundle(seed).unwrap();
        (bundle.embedding_digest().to_owned(), bundle.bundle_digest().to_owned())
    };
    assert_eq!(digests(3), digests(3));
    assert_ne!(digests(3), digests(4));
    assert_eq!(digests(3).0, ENCODER.embedding_digest());
}

#[test]
fn is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Encoder>();
    shared::<PreparedImage>();
    shared::<PreparedText>();
}

/// More pictures than a group, in groups side by side, in one and alone.
#[test]
fn groups_and_threads_change_no_vector() {
    let images: Vec<_> = (1..20).map(|side| image(side * 3, 40)).collect();
    let alone: Vec<_> = images
        .iter()
        .map(|image| ENCODER.encode_images(std::slice::from_ref(image)).unwrap().remove(0))
        .collect();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for count in [2, 9, 19] {
            let together = pool.install(|| ENCODER.encode_images(&images[..count]).unwrap());
            assert_eq!(together.len(), count);
            for (alone, together) in alone.iter().zip(&together) {
                assert_same(alone, together);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_picture_has_the_same_vectors_alone_and_in_any_batch(
        sizes in prop::collection::vec((1..60_u32, 1..60_u32), 1..80),
        at in any::<prop::sample::Index>(),
    ) {
        let images: Vec<_> = sizes.iter().map(|&(width, height)| image(width, height)).collect();
        let batch = ENCODER.encode_images(&images).unwrap();
        let at = at.index(images.len());
        let alone = ENCODER.encode_images(&images[at..=at]).unwrap();
        assert_same(&alone[0], &batch[at]);
    }

    #[test]
    fn a_text_has_the_same_vectors_alone_and_in_any_batch(
        texts in prop::collection::vec("[a-zа-я赤い]{1,12}( [a-z]{1,9}){0,4}", 1..80),
        at in any::<prop::sample::Index>(),
    ) {
        let prepare = |text: &String| ENCODER.prepare_text(text, false).unwrap();
        let texts: Vec<_> = texts.iter().map(prepare).collect();
        let batch = ENCODER.encode_texts(&texts).unwrap();
        let at = at.index(texts.len());
        let alone = ENCODER.encode_texts(&texts[at..=at]).unwrap();
        assert_same(&alone[0], &batch[at]);
    }
}
