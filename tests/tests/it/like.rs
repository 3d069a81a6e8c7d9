//! `diptych search --like` from end to end: pictures of the sample by what they show, and by how they are drawn.

use std::path::PathBuf;
use std::process::Stdio;

use diptych_proto::v1;
use diptych_tests::api::{components, mask};
use diptych_tests::emoji::COLLECTION;
use diptych_tests::program::command;
use diptych_tests::{Api, Server};
use serde_json::Value;
use tempfile::TempDir;

/// A heart, a cat and a car, each of another style.
const PICTURES: [&str; 3] = ["picture/fluent/2764", "picture/noto/1f431", "picture/twemoji/1f697"];

struct Sample {
    server: Server,
    api: Api,
    folder: TempDir,
}

impl Sample {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let server = Server::start(&folder.path().join("data"), &[]).await.unwrap();
        let api = server.api().await.unwrap();
        Self { server, api, folder }
    }

    /// A stored picture as a file.
    async fn file(&self, id: &str) -> String {
        let source = self.api.get(COLLECTION, id).await.unwrap().source;
        let Some(v1::source::Content::Image(bytes)) = source.and_then(|source| source.content)
        else {
            panic!("{id} has no picture")
        };
        let path: PathBuf = self.folder.path().join(id.replace('/', "-"));
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The ids of what a search for pictures like `file` finds, in their order. All drawings of a thing may be among them.
    fn like(&self, file: &str, style: &[&str]) -> Vec<String> {
        let mut search = command("diptych");
        search.args(["search", "--like", file, "--one-per-group=false", "--json"]);
        search.args(["--server", &self.server.url()]).args(style).stdin(Stdio::null());
        let output = search.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file} {style:?}: {errors}");
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let hits = told["hits"].as_array().unwrap();
        assert_eq!(hits.len(), 10);
        assert!(hits.iter().all(|hit| hit["modality"] == "image"), "{told}");
        hits.iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The stored exclusive vector of a picture, of length 1.
    async fn exclusive(&self, id: &str) -> Vec<f32> {
        let request = v1::GetItemRequest {
            collection: COLLECTION.to_owned(),
            id: id.to_owned(),
            read_mask: mask(&["vectors"]),
        };
        let item = self.api.items().get_item(request).await.unwrap().into_inner().item;
        components(&item.unwrap().vectors.unwrap().exclusive.unwrap())
    }

    /// How near the style of these pictures is to that of `to`: the mean of the cosines.
    async fn nearness(&self, ids: &[String], to: &str) -> f32 {
        let to = self.exclusive(to).await;
        let mut sum = 0.0;
        for id in ids {
            let vector = self.exclusive(id).await;
            sum += vector.iter().zip(&to).map(|(a, b)| a * b).sum::<f32>();
        }
        sum / ids.len() as f32
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_style_is_pushed_away_or_drawn_near() {
    let sample = Sample::new().await;
    for (n, id) in PICTURES.into_iter().enumerate() {
        let other = PICTURES[(n + 1) % PICTURES.len()];
        let (file, other_file) = (sample.file(id).await, sample.file(other).await);
        let plain = sample.like(&file, &[]);
        assert_eq!(plain[0], id, "a picture is most like itself");

        let otherwise = sample.like(&file, &["--other-style"]);
        let (before, after) =
            (sample.nearness(&plain, id).await, sample.nearness(&otherwise, id).await);
        println!("{id}: its style {before:.3}, pushed away {after:.3}");
        assert!(after < before - 0.01, "{id}: {before} to {after}");
        let far = sample.like(&file, &["--other-style", "--style-weight", "1"]);
        assert!(!far.iter().any(|hit| hit == id), "{id} has its own style: {far:?}");

        let styled = sample.like(&file, &["--style-of", &other_file]);
        let (before, after) =
            (sample.nearness(&plain, other).await, sample.nearness(&styled, other).await);
        println!("{id}: the style of {other} {before:.3}, drawn near {after:.3}");
        assert!(after > before + 0.01, "{id} as {other}: {before} to {after}");
    }
}
