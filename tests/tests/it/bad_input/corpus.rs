//! The corpus: inputs of every kind of damage, each with what must be told of it. After each one the server is asked what it was
//! asked at the start, and must answer the same.

mod gif_webp;
mod jpeg;
mod messages;
mod others;
mod png;
mod sizes;
mod texts;

use std::collections::BTreeSet;

use diptych_proto::v1;
use diptych_tests::api::*;
use diptych_tests::{Api, Refusal, inputs, wire};
use prost::Message;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tonic::{Code, Status};

use super::Fixture;

/// What is told of an input.
#[derive(Debug, Clone)]
enum Told {
    /// It is answered.
    Answered,
    /// It is refused: code, reason, the field at fault, its limit.
    Refused(Code, &'static str, String, Option<u64>),
    /// It is answered, or refused with one of these reasons: which, depends on where chance struck.
    Perhaps(&'static [&'static str]),
}

/// INVALID_ARGUMENT.
fn refused(reason: &'static str, field: &str) -> Told {
    Told::Refused(Code::InvalidArgument, reason, field.to_owned(), None)
}

/// INVALID_ARGUMENT with a limit.
fn limited(reason: &'static str, field: &str, limit: u64) -> Told {
    Told::Refused(Code::InvalidArgument, reason, field.to_owned(), Some(limit))
}

/// One input.
#[derive(Clone)]
struct Case {
    what: String,
    /// `Service/Method`.
    method: &'static str,
    message: Vec<u8>,
    told: Told,
}

impl Case {
    fn new(what: impl Into<String>, method: &'static str, message: Vec<u8>, told: Told) -> Self {
        Self { what: what.into(), method, message, told }
    }

    fn of(what: &str, method: &'static str, message: &impl Message, told: Told) -> Self {
        Self::new(what, method, message.encode_to_vec(), told)
    }

    /// A picture to embed.
    fn picture(what: impl Into<String>, file: Vec<u8>, told: Told) -> Self {
        let message = v1::EmbedImageRequest { image: file.into(), ..Default::default() };
        Self::new(what, "EmbeddingService/EmbedImage", message.encode_to_vec(), told)
    }

    /// A text to embed.
    fn text(what: &str, text: impl Into<String>, told: Told) -> Self {
        let message = v1::EmbedTextRequest { text: text.into(), ..Default::default() };
        Self::of(what, "EmbeddingService/EmbedText", &message, told)
    }

    /// What is wrong with the answer; `None` when it is as it must be.
    fn fault(&self, answer: &Result<Vec<u8>, Status>) -> Option<String> {
        match (answer, &self.told) {
            (Ok(_), Told::Answered | Told::Perhaps(_)) => None,
            (Ok(_), told) => Some(format!("is answered, must be {told:?}")),
            (Err(status), told) if status.details().is_empty() => {
                Some(format!("ends with {status:?}, must be {told:?}"))
            }
            (Err(status), told) => {
                let is = Refusal::of(status);
                let right = match told {
                    Told::Answered => false,
                    Told::Refused(code, reason, field, limit) => {
                        (is.code, &*is.reason, &is.field, is.limit)
                            == (*code, reason, field, *limit)
                    }
                    Told::Perhaps(reasons) => {
                        is.code == Code::InvalidArgument && reasons.contains(&&*is.reason)
                    }
                };
                (!right).then(|| format!("is {is:?}, must be {told:?}"))
            }
        }
    }
}

/// What the server answers as long as nothing has changed: hits and scores to the bit.
async fn usual_answer(api: &Api) -> Vec<(String, u64)> {
    let search = ask("things", v1::Modality::Text, by_text("a red heart"));
    let hits = api.hits(search).await.unwrap();
    assert!(hits.len() > 3, "{hits:?}");
    hits.into_iter().map(|hit| (hit.id, hit.score.to_bits())).collect()
}

impl Fixture {
    /// With a few things more.
    async fn furnished() -> Self {
        let fixture = Self::new().await;
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for number in 0..6 {
            let text = text_item(&format!("text {number}"), &inputs::words(&mut rng, number));
            fixture.api.put("things", text).await.unwrap();
            let image = image_item(&format!("image {number}"), inputs::png(&mut rng));
            fixture.api.put("things", image).await.unwrap();
        }
        fixture
    }
}

/// Asks every case, and after each what is usual.
async fn holds(cases: Vec<Case>, least: usize) {
    let names: BTreeSet<&str> = cases.iter().map(|case| &*case.what).collect();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    assert!(cases.len() >= least, "{} cases, {least} are promised", cases.len());
    let fixture = Fixture::furnished().await;
    let usual = usual_answer(&fixture.api).await;
    let mut faults = Vec::new();
    for case in &cases {
        let answer = wire::call(fixture.api.channel(), case.method, &case.message).await;
        faults.extend(case.fault(&answer).map(|fault| format!("{}: {fault}", case.what)));
        assert_eq!(usual_answer(&fixture.api).await, usual, "after {}", case.what);
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), cases.len(), faults.join("\n"));
    println!("{} cases", cases.len());
    fixture.still_answers().await;
}

/// The most memory that the process ever had, in KiB, as Linux tells it.
fn peak(fixture: &Fixture) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", fixture.server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn millions_of_parts_are_refused_without_the_memory_for_them() {
    let fixture = Fixture::new().await;
    let before = peak(&fixture);
    let terms = wire::long(2, "").repeat(8_000_000);
    let searches = wire::long(1, "").repeat(8_000_000);
    for (method, message) in
        [("SearchService/Search", terms), ("SearchService/BatchSearch", searches)]
    {
        let told = wire::call(fixture.api.channel(), method, &message).await.unwrap_err();
        assert_eq!(Refusal::of(&told).reason, "MESSAGE_TOO_LARGE");
    }
    // The two take 0.9 and 1.7 GiB when they are decoded, and 16 MiB as bytes.
    let more = peak(&fixture) - before;
    assert!(more < 200 << 10, "{more} KiB");
    fixture.still_answers().await;
}

/// Searches of one caller, and its pictures of one pixel, in the test of both at once.
const ROUNDS: usize = 25;

#[tokio::test]
async fn a_picture_of_one_pixel_amid_the_load_disturbs_nobody() {
    let fixture = Fixture::furnished().await;
    let usual = usual_answer(&fixture.api).await;
    let pixel = image::RgbImage::from_pixel(1, 1, image::Rgb([200, 30, 40]));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..6 {
        let (api, usual) = (fixture.api.clone(), usual.clone());
        callers.spawn(async move {
            for _ in 0..ROUNDS {
                assert_eq!(usual_answer(&api).await, usual, "caller {caller}");
            }
        });
    }
    use image::ImageFormat::{Gif, Jpeg, Png, WebP};
    for format in [Png, Jpeg, WebP, Gif] {
        let (api, file) = (fixture.api.clone(), inputs::encoded(&pixel, format));
        callers.spawn(async move {
            for round in 0..ROUNDS {
                // Bytes behind the end make another input of it, which no cache knows.
                let file = [file.as_slice(), &round.to_be_bytes()].concat();
                let embed = v1::EmbedImageRequest { image: file.into(), ..Default::default() };
                let reply = api.embedding().embed_image(embed).await.unwrap().into_inner();
                assert!(reply.embedding.is_some_and(|found| found.shared.is_some()));
            }
        });
    }
    callers.join_all().await;
    fixture.still_answers().await;
}

#[tokio::test]
async fn damaged_pictures_are_told_by_reason() {
    let mut cases = png::cases();
    cases.extend(jpeg::cases());
    cases.extend(gif_webp::cases());
    cases.extend(others::cases());
    holds(cases, 170).await;
}

#[tokio::test]
async fn pictures_at_the_limits_are_taken_and_beyond_them_told_the_limit() {
    holds(sizes::cases(), 25).await;
}

#[tokio::test]
async fn odd_texts_are_embedded_or_told_by_reason() {
    holds(texts::cases(), 30).await;
}

#[tokio::test]
async fn odd_messages_are_told_by_field() {
    holds(messages::cases(), 60).await;
}
