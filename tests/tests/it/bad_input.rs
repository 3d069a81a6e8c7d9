//! Bad input at the real server: what is told, and that nothing else is affected.

use diptych_proto::v1;
use diptych_proto::v1::term::Source;
use diptych_tests::api::*;
use diptych_tests::{Api, Refusal, Server, inputs};
use image::{ImageFormat, Rgb, RgbImage};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use tonic::Code;

mod corpus;
mod requests;

const GOOD: &str = "a small red heart";

/// A server with the collection `things`, which holds the text [`GOOD`].
struct Fixture {
    api: Api,
    server: Server,
    _data: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let data = TempDir::new().unwrap();
        let server = Server::plain(data.path()).await.unwrap();
        let api = server.api().await.unwrap();
        api.create(create("things")).await.unwrap();
        api.put("things", text_item("good", GOOD)).await.unwrap();
        Self { api, server, _data: data }
    }

    /// The process is the same, health says SERVING, and a search finds what was there before.
    async fn still_answers(mut self) {
        self.server.wait_serving().await.unwrap();
        let hits = self.api.hits(ask("things", v1::Modality::Text, by_text(GOOD))).await.unwrap();
        assert_eq!(hits[0].id, "good");
        assert!(!self.server.stderr().contains("panicked"), "{}", self.server.stderr());
    }
}

struct BadImage {
    what: &'static str,
    bytes: Vec<u8>,
    reason: &'static str,
    limit: Option<u64>,
}

fn bad_images() -> Vec<BadImage> {
    let good = inputs::png(&mut ChaCha8Rng::seed_from_u64(1));
    let bomb = inputs::black_png(8000, 8000);
    assert!(bomb.len() < 10_000, "the bomb has {} bytes", bomb.len());
    let bad = |what, bytes, reason, limit| BadImage { what, bytes, reason, limit };
    vec![
        bad("empty", Vec::new(), "IMAGE_EMPTY", None),
        bad("truncated", good[..good.len() / 2].to_vec(), "IMAGE_CORRUPT", None),
        bad("a text", b"a red heart, not a picture".to_vec(), "IMAGE_FORMAT_UNSUPPORTED", None),
        bad("a bomb", bomb, "IMAGE_TOO_LARGE", Some(25_000_000)),
    ]
}

fn bad_texts() -> [(String, &'static str, Option<u64>); 3] {
    [
        (String::new(), "TEXT_EMPTY", None),
        (" \t\n".to_owned(), "TEXT_EMPTY", None),
        ("heart ".repeat(175_000), "TEXT_TOO_LONG", Some(8192)),
    ]
}

#[tokio::test]
async fn every_method_that_takes_a_picture_names_it() {
    let fixture = Fixture::new().await;
    let api = &fixture.api;
    for BadImage { what, bytes, reason, limit } in bad_images() {
        println!("{what}");
        let image = bytes::Bytes::from(bytes.clone());
        let embed = v1::EmbedImageRequest { image: image.clone(), ..Default::default() };
        let told = Refusal::from_call(api.embedding().embed_image(embed)).await;
        told.must_be_invalid(reason, "image", limit);
        let search = v1::SearchImageToTextRequest {
            collection: "things".to_owned(),
            image: image.clone(),
            ..Default::default()
        };
        let told = Refusal::from_call(api.search().search_image_to_text(search)).await;
        told.must_be_invalid(reason, "image", limit);
        let search = ask("things", v1::Modality::Text, Source::Image(image));
        let told = Refusal::from_call(api.search().search(search)).await;
        told.must_be_invalid(reason, "terms[0].image", limit);
        let told = Refusal::of(&api.put("things", image_item("bad", bytes)).await.unwrap_err());
        told.must_be_invalid(reason, "item.image", limit);
        assert_eq!(api.get("things", "bad").await.unwrap_err().code(), Code::NotFound);
    }
    fixture.still_answers().await;
}

#[tokio::test]
async fn every_method_that_takes_a_text_names_it() {
    let fixture = Fixture::new().await;
    let api = &fixture.api;
    for (text, reason, limit) in bad_texts() {
        let embed = v1::EmbedTextRequest { text: text.clone(), ..Default::default() };
        let told = Refusal::from_call(api.embedding().embed_text(embed)).await;
        told.must_be_invalid(reason, "text", limit);
        let search = v1::SearchTextToImageRequest {
            collection: "things".to_owned(),
            text: text.clone(),
            ..Default::default()
        };
        let told = Refusal::from_call(api.search().search_text_to_image(search)).await;
        told.must_be_invalid(reason, "text", limit);
        let search = ask("things", v1::Modality::Image, by_text(&text));
        let told = Refusal::from_call(api.search().search(search)).await;
        told.must_be_invalid(reason, "terms[0].text", limit);
        let told = Refusal::of(&api.put("things", text_item("bad", &text)).await.unwrap_err());
        told.must_be_invalid(reason, "item.text", limit);
        // Nothing of what was sent comes back in what is told.
        assert!(!told.description.contains("heart"));
    }
    fixture.still_answers().await;
}

#[tokio::test]
async fn a_long_text_is_cut_when_that_is_allowed_and_the_reply_says_so() {
    let fixture = Fixture::new().await;
    let text = "heart ".repeat(175_000);
    let total = u32::try_from(text.len()).unwrap();
    let embed = v1::EmbedTextRequest { text, truncate: true, ..Default::default() };
    let reply = fixture.api.embedding().embed_text(embed).await.unwrap().into_inner();
    let cut = reply.embedding.unwrap().truncation.unwrap();
    assert_eq!(cut.total_bytes, total);
    assert!((1..=8192).contains(&cut.used_bytes), "{cut:?}");
    fixture.still_answers().await;
}

#[tokio::test]
async fn neighbours_of_bad_items_are_stored() {
    let fixture = Fixture::new().await;
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut items = Vec::new();
    let mut expected = Vec::new();
    for bad in bad_images() {
        items.push(image_item(&format!("bad {}", bad.what), bad.bytes));
        expected.push(Some((bad.reason, "item.image", bad.limit)));
        items.push(image_item(&format!("near {}", bad.what), inputs::png(&mut rng)));
        expected.push(None);
    }
    for (place, (text, reason, limit)) in bad_texts().into_iter().enumerate() {
        items.push(text_item(&format!("bad text {place}"), &text));
        expected.push(Some((reason, "item.text", limit)));
        items.push(text_item(&format!("near text {place}"), &inputs::words(&mut rng, 7)));
        expected.push(None);
    }
    items.push(text_item(&"i".repeat(300), "a text"));
    expected.push(Some(("FIELD_INVALID", "item.id", Some(256))));
    let names: Vec<String> = items.iter().map(|item| item.id.clone()).collect();
    let batch = upserts("things", items);
    let reply = fixture.api.items().batch_upsert_items(batch).await.unwrap().into_inner();
    assert_eq!(reply.results.len(), expected.len());
    for (place, (result, expected)) in reply.results.iter().zip(expected).enumerate() {
        use v1::batch_upsert_items_response::result::Outcome;
        let id = names[place].as_str();
        match (result.outcome.as_ref().unwrap(), expected) {
            (Outcome::Written(written), None) => {
                assert!(written.created && written.id == id, "{written:?}");
                let item = fixture.api.get("things", id).await.unwrap();
                assert!(item.source.is_some());
            }
            (Outcome::Status(status), Some((reason, field, limit))) => {
                let field = format!("entries[{place}].{field}");
                Refusal::of_element(status).must_be_invalid(reason, &field, limit);
            }
            (outcome, _) => panic!("{id}: {outcome:?}"),
        }
    }
    fixture.still_answers().await;
}

#[tokio::test]
async fn neighbours_of_bad_inputs_are_embedded() {
    let fixture = Fixture::new().await;
    let good = |text: &str| v1::EmbedInput {
        input: Some(v1::embed_input::Input::Text(text.to_owned())),
        truncate: false,
    };
    let mut inputs = vec![good("a")];
    for bad in bad_images() {
        let input = Some(v1::embed_input::Input::Image(bad.bytes.into()));
        inputs.extend([v1::EmbedInput { input, truncate: false }, good("a")]);
    }
    let request = v1::BatchEmbedRequest { inputs, ..Default::default() };
    let reply = fixture.api.embedding().batch_embed(request).await.unwrap().into_inner();
    let bad = bad_images();
    assert_eq!(reply.results.len(), 2 * bad.len() + 1);
    for (place, result) in reply.results.into_iter().enumerate() {
        use v1::batch_embed_response::result::Outcome;
        match result.outcome.unwrap() {
            Outcome::Embedding(embedding) => {
                assert_eq!(place % 2, 0);
                assert!(embedding.shared.is_some() && embedding.exclusive.is_some());
            }
            Outcome::Status(status) => {
                let BadImage { reason, limit, .. } = bad[place / 2];
                let told = Refusal::of_element(&status);
                told.must_be_invalid(reason, &format!("inputs[{place}].image"), limit);
            }
        }
    }
    fixture.still_answers().await;
}

#[tokio::test]
async fn good_calls_beside_many_bad_ones_all_succeed() {
    let fixture = Fixture::new().await;
    let mut bad = tokio::task::JoinSet::new();
    let mut good = tokio::task::JoinSet::new();
    for round in 0..8 {
        for BadImage { bytes, reason, .. } in bad_images() {
            let api = fixture.api.clone();
            bad.spawn(async move {
                let refused = api.put("things", image_item("bad", bytes)).await.unwrap_err();
                assert_eq!(Refusal::of(&refused).reason, reason);
            });
        }
        let (api, id) = (fixture.api.clone(), format!("beside {round}"));
        good.spawn(async move {
            let mut rng = ChaCha8Rng::seed_from_u64(round);
            api.put("things", image_item(&id, inputs::png(&mut rng))).await.unwrap();
            id
        });
    }
    bad.join_all().await;
    for id in good.join_all().await {
        assert!(fixture.api.get("things", &id).await.is_ok());
    }
    fixture.still_answers().await;
}

#[tokio::test]
async fn a_picture_of_one_pixel_works_in_every_format() {
    let fixture = Fixture::new().await;
    let pixel = RgbImage::from_pixel(1, 1, Rgb([200, 30, 40]));
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif] {
        let id = format!("{format:?}");
        let bytes = inputs::encoded(&pixel, format);
        fixture.api.put("things", image_item(&id, bytes.clone())).await.unwrap();
        let item = fixture.api.get("things", &id).await.unwrap();
        let kept = v1::source::Content::Image(bytes.clone().into());
        assert_eq!(item.source.unwrap().content, Some(kept));
        let own = ask("things", v1::Modality::Image, Source::Image(bytes.into()));
        let hits = fixture.api.hits(own).await.unwrap();
        let found = hits.iter().find(|hit| hit.id == id).unwrap();
        assert!((found.score - hits[0].score).abs() < 1e-5, "{found:?}");
    }
    fixture.still_answers().await;
}
