//! The vector of an input is the same alone, in any batch, and in calls that happen at the same time.

use bytes::Bytes;
use diptych_proto::v1;
use diptych_proto::v1::embed_input::Input;
use diptych_tests::api::components;
use diptych_tests::{Api, Server, inputs};
use image::{ImageFormat, Rgb, RgbImage};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

/// The cosine distance that rounding may make.
const TOLERANCE: f64 = 1e-5;
const FORMATS: [ImageFormat; 4] =
    [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif];

/// What to embed, small enough to print where a case fails.
#[derive(Debug, Clone)]
enum Thing {
    Text(String),
    /// Noise, or a few rectangles.
    Picture {
        width: u32,
        height: u32,
        noise: bool,
        format: ImageFormat,
        seed: u64,
    },
}

impl Thing {
    fn input(&self) -> Input {
        match self {
            Self::Text(text) => Input::Text(text.clone()),
            Self::Picture { width, height, noise, format, seed } => {
                let mut rng = ChaCha8Rng::seed_from_u64(*seed);
                let picture = if *noise {
                    RgbImage::from_fn(*width, *height, |_, _| Rgb(rng.random()))
                } else {
                    let whole = inputs::picture(&mut rng, *width.max(height));
                    image::imageops::crop_imm(&whole, 0, 0, *width, *height).to_image()
                };
                Input::Image(inputs::encoded(&picture, *format).into())
            }
        }
    }
}

/// Texts in many scripts, from one letter to a long line.
fn text() -> impl Strategy<Value = Thing> {
    prop_oneof![
        "[a-zA-Z0-9 ,.!?'-]{0,120}[a-z]",
        "[а-яА-Я ]{0,40}[а-я]",
        "[ぁ-ん ァ-ヶ一-龥]{0,30}[ぁ-ん]",
        "[가-힣 ]{0,30}[가-힣]",
        "[ا-ي ]{0,40}[ا-ي]",
        "[अ-ह ]{0,40}[अ-ह]",
        "[α-ωא-תก-ฮა-ჰ]{1,40}",
        "[😀-🙏🚀-🛅]{0,6}[a-z]",
        "\\PC{0,200}x",
        "( ?[a-z]{1,9}){100,200}",
    ]
    .prop_map(Thing::Text)
}

fn picture() -> impl Strategy<Value = Thing> {
    let side = prop_oneof![1..4u32, 4..64u32, 64..400u32];
    let parts = (side.clone(), side, any::<bool>(), 0..FORMATS.len(), 0..1000u64);
    parts.prop_map(|(width, height, noise, format, seed)| Thing::Picture {
        width,
        height,
        noise,
        format: FORMATS[format],
        seed,
    })
}

/// A mix in any order, always with a picture of one pixel in it.
fn mix() -> impl Strategy<Value = Vec<Thing>> {
    let things = vec(prop_oneof![text(), picture()], 1..24);
    (things, 0..FORMATS.len(), any::<prop::sample::Index>()).prop_map(|(mut things, format, at)| {
        let format = FORMATS[format];
        let pixel = Thing::Picture { width: 1, height: 1, noise: true, format, seed: 1 };
        things.insert(at.index(things.len() + 1), pixel);
        things
    })
}

async fn alone(api: &Api, input: Input) -> v1::Embedding {
    let embedding = match input {
        Input::Text(text) => {
            let request = v1::EmbedTextRequest { text, ..Default::default() };
            api.embedding().embed_text(request).await.unwrap().into_inner().embedding
        }
        Input::Image(image) => {
            let request = v1::EmbedImageRequest { image, ..Default::default() };
            api.embedding().embed_image(request).await.unwrap().into_inner().embedding
        }
    };
    embedding.unwrap()
}

async fn together(api: &Api, inputs: &[Input]) -> Vec<v1::Embedding> {
    use v1::batch_embed_response::result::Outcome;
    let inputs = inputs
        .iter()
        .map(|input| v1::EmbedInput { input: Some(input.clone()), truncate: false })
        .collect();
    let request = v1::BatchEmbedRequest { inputs, ..Default::default() };
    let reply = api.embedding().batch_embed(request).await.unwrap().into_inner();
    let embedding = |result: v1::batch_embed_response::Result| match result.outcome.unwrap() {
        Outcome::Embedding(embedding) => embedding,
        Outcome::Status(status) => panic!("{status:?}"),
    };
    reply.results.into_iter().map(embedding).collect()
}

/// In calls of their own that the server may gather into batches as it likes.
async fn at_once(api: &Api, inputs: &[Input]) -> Vec<v1::Embedding> {
    let mut calls = Vec::new();
    for input in inputs.iter().cloned() {
        let api = api.clone();
        calls.push(tokio::spawn(async move { alone(&api, input).await }));
    }
    let mut embeddings = Vec::new();
    for call in calls {
        embeddings.push(call.await.unwrap());
    }
    embeddings
}

/// The larger of the cosine distances in both spaces.
fn distance(a: &v1::Embedding, b: &v1::Embedding) -> f64 {
    let cosine = |a: &Option<v1::Vector>, b: &Option<v1::Vector>| {
        let (a, b) = (components(a.as_ref().unwrap()), components(b.as_ref().unwrap()));
        assert_eq!(a.len(), b.len());
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
    };
    (1.0 - cosine(&a.shared, &b.shared)).max(1.0 - cosine(&a.exclusive, &b.exclusive))
}

async fn check(api: &Api, things: &[Thing]) -> Result<(), TestCaseError> {
    let inputs: Vec<Input> = things.iter().map(Thing::input).collect();
    let mut each = Vec::new();
    for input in inputs.iter().cloned() {
        each.push(alone(api, input).await);
    }
    let batch = together(api, &inputs).await;
    let calls = at_once(api, &inputs).await;
    prop_assert_eq!(batch.len(), inputs.len());
    for (place, own) in each.iter().enumerate() {
        let (batched, called) = (distance(own, &batch[place]), distance(own, &calls[place]));
        prop_assert!(batched <= TOLERANCE, "{batched} in a batch: {:?}", things[place]);
        prop_assert!(called <= TOLERANCE, "{called} at the same time: {:?}", things[place]);
    }
    Ok(())
}

#[test]
fn a_vector_is_the_same_alone_in_a_batch_and_beside_other_calls() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let data = TempDir::new().unwrap();
    let server = runtime.block_on(Server::plain(data.path())).unwrap();
    let api = runtime.block_on(server.api()).unwrap();
    let config = ProptestConfig { source_file: Some(file!()), ..ProptestConfig::with_cases(24) };
    let checked =
        TestRunner::new(config).run(&mix(), |things| runtime.block_on(check(&api, &things)));
    match checked {
        Ok(()) => {}
        Err(TestError::Fail(why, things)) => panic!("{why}\nin the mix {things:#?}"),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn an_input_that_fills_a_whole_batch_has_one_vector() {
    let data = TempDir::new().unwrap();
    let server = Server::plain(data.path()).await.unwrap();
    let api = server.api().await.unwrap();
    let picture = Bytes::from(inputs::png(&mut ChaCha8Rng::seed_from_u64(5)));
    for input in [Input::Image(picture), Input::Text("ein rotes Herz".to_owned())] {
        let own = alone(&api, input.clone()).await;
        for embedding in together(&api, &vec![input; 64]).await {
            assert!(distance(&own, &embedding) <= TOLERANCE);
        }
    }
}
