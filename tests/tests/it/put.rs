//! `diptych put` from end to end: folders of photographs with tables of captions, bad rows, interruptions.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use diptych_proto::v1;
use diptych_tests::api::*;
use diptych_tests::process::until;
use diptych_tests::program::{command, program, signal};
use diptych_tests::{Api, Server, inputs};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Code;

use self::photos::{Photos, check, csv_row, listed};

mod photos;

const COLLECTION: &str = "pictures";

/// A server, and a home in which the command keeps its notes.
struct Fixture {
    server: Server,
    api: Api,
    folder: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let server = Server::plain(&folder.path().join("data")).await.unwrap();
        let api = server.api().await.unwrap();
        Self { server, api, folder }
    }

    /// The command, at this server.
    fn diptych(&self, arguments: &[&str]) -> Command {
        let mut command = command("diptych");
        command.args(arguments).args(["--server", &self.server.url()]).stdin(Stdio::null());
        command.env("XDG_STATE_HOME", self.folder.path().join("state"));
        command
    }

    fn put(&self, path: &Path) -> Command {
        self.diptych(&["put", COLLECTION, path.to_str().unwrap(), "--json"])
    }

    /// Items in the collection by now; none while it is not there.
    async fn count(&self) -> usize {
        let get = v1::GetCollectionRequest { name: COLLECTION.to_owned() };
        match self.api.collections().get_collection(get).await {
            Ok(reply) => {
                let counts = reply.into_inner().collection.unwrap().counts.unwrap();
                usize::try_from(counts.images + counts.texts).unwrap()
            }
            Err(status) => {
                assert_eq!(status.code(), Code::NotFound);
                0
            }
        }
    }
}

/// What a put said: counts, and its errors.
fn told(output: &Output) -> (Value, String) {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let counts = serde_json::from_slice(&output.stdout);
    (counts.unwrap_or_else(|error| panic!("no JSON ({error}): {errors}")), errors)
}

/// Runs a put that must end well, and gives its counts.
fn whole(mut put: Command) -> Value {
    let output = put.output().unwrap();
    let (counts, errors) = told(&output);
    assert!(output.status.success(), "{counts}: {errors}");
    assert_eq!((&counts["failed"], &counts["interrupted"]), (&json!(0), &json!(false)), "{errors}");
    counts
}

/// The version of every item: it grows by every put.
async fn versions(api: &Api) -> BTreeMap<String, u64> {
    listed(api, COLLECTION).await.into_iter().map(|item| (item.id, item.version)).collect()
}

fn captions(photos: &Photos) -> String {
    let rows = photos.rows().map(|(photo, caption)| csv_row(&photo.path, caption));
    "image,caption\n".to_owned() + &rows.collect::<String>()
}

#[tokio::test]
async fn a_folder_is_put_whole_and_bad_rows_are_told() {
    let fixture = Fixture::new().await;
    let photos = Photos::new(20, (120, 90));
    let mut table = captions(&photos);
    let mut bad = Vec::new();
    let row = |table: &mut String, image: &str, caption: &str| {
        table.push_str(&csv_row(image, caption));
        table.lines().count()
    };
    bad.push(row(&mut table, "strand/gone.jpg", "a picture that is not there"));
    bad.push(row(&mut table, "", "  "));
    // A picture of which nothing is said is put all the same.
    row(&mut table, &photos.photos[0].path, "");
    photos.write("captions.csv", table.as_bytes());
    let cut = &photos.photos[1].bytes[..photos.photos[1].bytes.len() / 2];
    photos.write("strand/cut.jpg", cut);

    let output = fixture.put(photos.path()).output().unwrap();
    let (counts, errors) = told(&output);
    assert!(!output.status.success(), "what failed must show in the exit code");
    for line in bad {
        assert!(errors.contains(&format!("captions.csv:{line}")), "line {line}: {errors}");
    }
    assert!(errors.contains("gone.jpg") && errors.contains("cut.jpg"), "{errors}");
    assert_eq!(
        (&counts["put"], &counts["failed"]),
        (&json!(photos.items()), &json!(3)),
        "{errors}"
    );
    check(&fixture.api, COLLECTION, &photos).await;

    let before = versions(&fixture.api).await;
    // The same again: nothing changes, and what is wrong is told again.
    let (counts, errors) = told(&fixture.put(photos.path()).output().unwrap());
    assert_eq!((&counts["put"], &counts["unchanged"]), (&json!(0), &json!(photos.items())));
    assert!(errors.contains("cut.jpg"), "{errors}");
    assert_eq!(versions(&fixture.api).await, before, "an item was put twice");
}

#[tokio::test]
async fn what_a_put_ends_with_can_be_pasted_and_get_and_search_speak_json() {
    let fixture = Fixture::new().await;
    let photos = Photos::new(6, (64, 48));
    photos.write("captions.csv", captions(&photos).as_bytes());
    let counts = whole(fixture.put(photos.path()));
    let pasted = counts["query"].as_str().unwrap();
    assert!(pasted.starts_with("diptych search "), "{pasted}");
    let folder = program("diptych").parent().unwrap().to_path_buf();
    let output = Command::new("/bin/sh").args(["-c", pasted]).env("PATH", folder).output().unwrap();
    assert!(output.status.success(), "{pasted}: {}", String::from_utf8_lossy(&output.stderr));

    let photo = &photos.photos[3];
    let picture = photos.path().join(&photo.path);
    let picture = picture.to_str().unwrap();
    let search = ["search", "--image", picture, "--target", "image", "--json", "--collection"];
    let output = fixture.diptych(&[&search[..], &[COLLECTION]].concat()).output().unwrap();
    let hits: Value = serde_json::from_slice(&output.stdout).unwrap();
    let first = &hits["hits"][0];
    assert!(first["score"].as_f64().unwrap() > 0.9999, "{hits:#}");
    let id = first["id"].as_str().unwrap();
    let saved = fixture.folder.path().join("saved");
    let get = ["get", id, "--json", "--collection", COLLECTION, "--save", saved.to_str().unwrap()];
    let output = fixture.diptych(&get).output().unwrap();
    let item: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&item["id"], &item["group"]), (&first["id"], &first["group"]));
    assert_eq!(std::fs::read(saved).unwrap(), photo.bytes);
}

#[tokio::test]
async fn a_put_that_is_interrupted_and_killed_goes_on_where_it_ended() {
    let fixture = Fixture::new().await;
    let photos = Photos::new(240, (256, 192));
    photos.write("captions.csv", captions(&photos).as_bytes());
    let mut before = 0;
    for name in ["INT", "KILL"] {
        let mut put = fixture.put(photos.path());
        let put = put.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("items are put", || async { fixture.count().await > before }).await.unwrap();
        signal(put.id(), name).unwrap();
        let output = put.wait_with_output().unwrap();
        assert!(!output.status.success(), "{name}");
        if name == "INT" {
            let (counts, errors) = told(&output);
            assert_eq!(counts["interrupted"], true, "{errors}");
            assert_eq!(counts["put"], json!(fixture.count().await), "acknowledged but not counted");
        }
        let after = fixture.count().await;
        assert!(after < photos.items(), "{name} came too late to show anything");
        before = after;
    }
    let counts = whole(fixture.put(photos.path()));
    let sum = counts["put"].as_u64().unwrap() + counts["unchanged"].as_u64().unwrap();
    assert_eq!(sum, photos.items() as u64, "{counts}");
    assert!(counts["unchanged"].as_u64().unwrap() > 0, "began anew: {counts}");
    check(&fixture.api, COLLECTION, &photos).await;
}

#[tokio::test]
async fn json_lines_are_put_with_captions_in_a_list_and_typed_metadata() {
    let fixture = Fixture::new().await;
    let photos = Photos::new(12, (64, 48));
    let row = |(number, photo): (usize, &photos::Photo)| {
        let row = json!({
            "id": format!("photo-{number}"),
            "image": photo.path,
            "captions": photo.captions,
            "year": 2000 + number,
        });
        row.to_string() + "\n"
    };
    let lines: String = photos.photos.iter().enumerate().map(row).collect();
    let table = photos.write("table.jsonl", lines.as_bytes());
    let counts = whole(fixture.put(&table));
    assert_eq!(counts["put"], json!(photos.items()));
    check(&fixture.api, COLLECTION, &photos).await;
    let item = fixture.api.get(COLLECTION, "photo-7").await.unwrap();
    assert_eq!(item.metadata.get("year"), Some(&int_value(2007)));
}

#[tokio::test]
async fn a_path_that_is_wrong_and_a_server_that_is_not_there_are_told_in_a_sentence() {
    let fixture = Fixture::new().await;
    let output = fixture.put(Path::new("/not/there")).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("/not/there"), "{errors}");
    assert_eq!(fixture.count().await, 0);
    let picture = fixture.folder.path().join("a.png");
    std::fs::write(&picture, inputs::png(&mut ChaCha8Rng::seed_from_u64(1))).unwrap();
    let nobody = diptych_tests::process::free_address().unwrap();
    let output = command("diptych")
        .args([
            "put",
            COLLECTION,
            picture.to_str().unwrap(),
            "--deadline",
            "1s",
            "--server",
            &nobody,
        ])
        .env("XDG_STATE_HOME", fixture.folder.path().join("state"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(&nobody) && !errors.contains("panicked"), "{errors}");
}
