//! Bundles that are loaded, activated, tested and unloaded while the server serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_model::testing::tiny_bundle;
use diptych_proto::v1;
use diptych_server::config::Flags;
use tempfile::TempDir;
use tokio::sync::watch;
use tonic::Code;

use super::support::*;

/// A server of the tiny bundle 7, and a folder with bundle 8 in `eight` from which it may load.
async fn server() -> (Server, TempDir) {
    with_flags(Flags::default()).await
}

async fn with_flags(flags: Flags) -> (Server, TempDir) {
    let folder = TempDir::new().unwrap();
    tiny_bundle(8).unwrap().write(folder.path().join("eight")).unwrap();
    let flags = Flags { models_dir: Some(folder.path().to_owned()), ..flags };
    (Server::with(Setup { flags, ..Setup::default() }).await, folder)
}

fn eight() -> String {
    tiny_bundle(8).unwrap().embedding_digest().to_owned()
}

fn load(path: &str) -> v1::LoadModelRequest {
    v1::LoadModelRequest { path: path.to_owned(), activate: false }
}

fn activate(digest: &str) -> v1::ActivateModelRequest {
    v1::ActivateModelRequest { embedding_digest: digest.to_owned() }
}

fn unload(digest: &str, force: bool) -> v1::UnloadModelRequest {
    v1::UnloadModelRequest { embedding_digest: digest.to_owned(), force }
}

fn self_test(digest: &str) -> v1::RunSelfTestRequest {
    v1::RunSelfTestRequest { embedding_digest: digest.to_owned() }
}

fn told(code: Code, reason: &str, field: &str) -> Refusal {
    Refusal { code, reason: reason.to_owned(), field: field.to_owned(), limit: None }
}

fn in_use() -> Refusal {
    told(Code::FailedPrecondition, "BUNDLE_IN_USE", "embedding_digest")
}

async fn loaded(server: &Server, path: &str) -> v1::Model {
    server.admin().load_model(load(path)).await.unwrap().into_inner().model.unwrap()
}

/// Makes a bundle the default and gives the digest of the one before.
async fn activated(server: &Server, digest: &str) -> String {
    let reply = server.admin().activate_model(activate(digest)).await.unwrap().into_inner();
    assert_eq!(reply.model.unwrap().embedding_digest, digest);
    reply.previous_embedding_digest
}

async fn models(server: &Server) -> Vec<v1::Model> {
    let request = v1::ListModelsRequest::default();
    server.info().list_models(request).await.unwrap().into_inner().models
}

async fn info(server: &Server) -> v1::GetServerInfoResponse {
    server.info().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &place);
        } else {
            std::fs::copy(entry.path(), place).unwrap();
        }
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints")
}

#[tokio::test]
async fn a_bundle_is_loaded_beside_the_others_and_says_what_it_is() {
    let (server, folder) = server().await;
    let model = loaded(&server, "eight").await;
    assert_eq!(model.embedding_digest, eight());
    assert_eq!((model.golden(), model.is_default), (v1::GoldenState::Passed, false));
    let bundle = tiny_bundle(8).unwrap();
    let weights = bundle.weights().unwrap();
    let numbers = weights.values().fold(0, |numbers, tensor| numbers + tensor.elem_count());
    // Of 16 bits or of 32 each.
    let bytes = 2 * numbers as u64..=4 * numbers as u64;
    assert!(bytes.contains(&model.weight_bytes), "{} of {bytes:?}", model.weight_bytes);
    let started = info(&server).await.start_time.unwrap();
    let since = model.load_time.unwrap();
    assert!((since.seconds, since.nanos) >= (started.seconds, started.nanos));
    assert!(models(&server).await.contains(&model));

    // What is here is not loaded again, from wherever; what is there is still the one of the settings.
    copy(&folder.path().join("eight"), &folder.path().join("deep/copy"));
    let (again, copied) = tokio::join!(loaded(&server, "eight"), loaded(&server, "deep/copy"));
    assert_eq!((&again, &copied), (&model, &model));
    assert_eq!(models(&server).await.len(), 2);
    assert_eq!(info(&server).await.default_embedding_digest, server.digest);

    let request = v1::CreateCollectionRequest {
        vectors_by: Some(v1::create_collection_request::VectorsBy::EmbeddingDigest(eight())),
        ..create("made")
    };
    server.make(request).await;
    server.put("made", text_item("a", "a red heart")).await;
    let search = ask("made", v1::Modality::Text, by_text("a red heart"));
    assert_eq!(server.search().search(search).await.unwrap().into_inner().hits[0].id, "a");
}

#[tokio::test]
async fn a_checkpoint_of_others_is_loaded_and_says_that_it_cannot_be_tested() {
    let flags = Flags { models_dir: Some(fixtures()), ..Flags::default() };
    let server = Server::with(Setup { flags, ..Setup::default() }).await;
    let model = loaded(&server, "clip").await;
    assert_eq!(model.golden(), v1::GoldenState::Absent);
    let digest = model.embedding_digest;
    let tested = server.admin().run_self_test(self_test(&digest)).await.unwrap().into_inner();
    assert_eq!((tested.results, tested.untested_embedding_digests), (vec![], vec![digest.clone()]));
    let all = server.admin().run_self_test(self_test("")).await.unwrap().into_inner();
    assert_eq!(all.untested_embedding_digests, [digest]);
    assert!(all.results.iter().all(|result| result.embedding_digest == server.digest));
    assert!(!all.results.is_empty());
}

#[tokio::test]
async fn without_a_folder_nothing_is_loaded_and_the_setting_is_named() {
    let server = Server::start().await;
    let status = server.admin().load_model(load("eight")).await.unwrap_err();
    assert_eq!(refusal(&status), told(Code::FailedPrecondition, "MODELS_DIR_UNSET", ""));
    assert!(status.message().contains("--models-dir"), "{status}");
}

#[tokio::test]
async fn what_lies_elsewhere_or_is_no_bundle_is_refused_by_field() {
    let (server, folder) = server().await;
    let outside = TempDir::new().unwrap();
    tiny_bundle(9).unwrap().write(outside.path().join("nine")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("nine"), folder.path().join("link")).unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let absolute = folder.path().join("eight").display().to_string();
    let invalid = || invalid("FIELD_INVALID", "path", None);
    let cases = [
        ("", invalid()),
        ("../eight", invalid()),
        ("eight/../../nine", invalid()),
        (&absolute, invalid()),
        ("link", invalid()),
        ("nine", told(Code::NotFound, "BUNDLE_NOT_FOUND", "path")),
        ("empty", told(Code::FailedPrecondition, "BUNDLE_REFUSED", "path")),
    ];
    for (path, expected) in cases {
        assert_eq!(refused(server.admin().load_model(load(path))).await, expected, "{path:?}");
    }
    let long = refused(server.admin().load_model(load(&"a".repeat(1025)))).await;
    assert_eq!((long.field.as_str(), long.limit), ("path", Some(1024)));
    assert_eq!(models(&server).await.len(), 1);
}

#[tokio::test]
async fn a_damaged_bundle_and_one_of_other_vectors_are_refused_and_seen_by_nobody() {
    let (server, folder) = server().await;
    let bundle = folder.path().join("eight");
    let weights = bundle.join("model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    // As many bytes, so that only the vectors can tell: the list says the digest of what is there.
    let nine = TempDir::new().unwrap();
    tiny_bundle(9).unwrap().write(nine.path().join("nine")).unwrap();
    let other = std::fs::read(nine.path().join("nine/model.safetensors")).unwrap();
    let manifest = std::fs::read_to_string(bundle.join("bundle.json")).unwrap();
    let digest = |bytes: &[u8]| hex::encode(<sha2::Sha256 as sha2::Digest>::digest(bytes));
    let vectors = manifest.replace(&digest(&whole), &digest(&other));
    assert_ne!(vectors, manifest);
    let cases = [
        (&whole[..100], &manifest, "model.safetensors"),
        (other.as_slice(), &vectors, "golden shared"),
    ];
    for (content, listed, about) in cases {
        std::fs::write(&weights, content).unwrap();
        std::fs::write(bundle.join("bundle.json"), listed).unwrap();
        let status = server.admin().load_model(load("eight")).await.unwrap_err();
        assert_eq!(refusal(&status), told(Code::FailedPrecondition, "BUNDLE_REFUSED", "path"));
        assert!(status.message().contains(about), "{status}");
        let place = folder.path().canonicalize().unwrap().display().to_string();
        assert!(!status.message().contains(&place), "{status}");
        assert_eq!(models(&server).await.len(), 1);
    }
    std::fs::write(&weights, whole).unwrap();
    std::fs::write(bundle.join("bundle.json"), manifest).unwrap();
    assert_eq!(loaded(&server, "eight").await.embedding_digest, eight());
}

#[tokio::test]
async fn new_collections_are_made_with_the_bundle_that_was_activated_and_there_is_a_way_back() {
    let (server, _folder) = server().await;
    server.make(create("before")).await;
    assert!(info(&server).await.default_activate_time.is_none());
    let unknown = refused(server.admin().activate_model(activate(&eight()))).await;
    assert_eq!(unknown, told(Code::NotFound, "BUNDLE_NOT_FOUND", "embedding_digest"));
    let empty = refused(server.admin().activate_model(activate(""))).await;
    assert_eq!(empty, invalid("FIELD_INVALID", "embedding_digest", None));

    // Loaded and activated in one.
    let request = v1::LoadModelRequest { activate: true, ..load("eight") };
    let reply = server.admin().load_model(request).await.unwrap().into_inner();
    assert!(reply.model.unwrap().is_default);
    assert_eq!(reply.previous_embedding_digest, server.digest);
    let told = info(&server).await;
    assert_eq!(told.default_embedding_digest, eight());
    assert!(told.default_activate_time.is_some());
    let models = models(&server).await;
    let default = models.iter().find(|model| model.is_default).unwrap();
    assert_eq!(default.embedding_digest, eight());
    assert_eq!(default.activate_time, told.default_activate_time);
    assert_eq!(models.iter().filter(|model| model.is_default).count(), 1);
    server.make(create("after")).await;
    assert_eq!(server.collection("after").await.embedding_digest, eight());
    assert_eq!(server.collection("before").await.embedding_digest, server.digest);
    let embed = v1::EmbedTextRequest { text: "a heart".to_owned(), ..Default::default() };
    let embedded = server.embedding().embed_text(embed).await.unwrap().into_inner();
    assert_eq!(embedded.embedding_digest, eight());

    // A caller that lost the answer asks again, and is told the same way back.
    assert_eq!(activated(&server, &eight()).await, server.digest);
    assert_eq!(activated(&server, &server.digest).await, eight());
    server.make(create("back")).await;
    assert_eq!(server.collection("back").await.embedding_digest, server.digest);
}

#[tokio::test]
async fn a_bundle_in_use_is_unloaded_by_force_alone_and_its_collections_say_so_until_it_is_back() {
    let (server, _folder) = server().await;
    let eight = eight();
    loaded(&server, "eight").await;
    activated(&server, &eight).await;
    let status = server.admin().unload_model(unload(&eight, true)).await.unwrap_err();
    assert_eq!(refusal(&status), in_use());
    assert!(status.message().contains("default"), "{status}");
    for n in 0..7 {
        server.make(create(&format!("c{n}"))).await;
    }
    let first = server.put("c0", text_item("a", "a red heart")).await;
    activated(&server, &server.digest).await;
    let status = server.admin().unload_model(unload(&eight, false)).await.unwrap_err();
    assert_eq!(refusal(&status), in_use());
    assert!(status.message().contains("c0, c1, c2, c3, c4 and 2 more"), "{status}");

    let reply = server.admin().unload_model(unload(&eight, true)).await.unwrap().into_inner();
    assert_eq!(reply.collections, ["c0", "c1", "c2", "c3", "c4", "c5", "c6"]);
    assert_eq!(models(&server).await.len(), 1);
    let gone = refused(server.admin().unload_model(unload(&eight, true))).await;
    assert_eq!(gone, told(Code::NotFound, "BUNDLE_NOT_FOUND", "embedding_digest"));
    let state = async || server.collection("c0").await.state();
    assert_eq!(state().await, v1::CollectionState::BundleMissing);
    let search = ask("c0", v1::Modality::Text, by_text("a red heart"));
    let lacks = refused(server.search().search(search.clone())).await;
    assert_eq!((lacks.code, &*lacks.reason), (Code::FailedPrecondition, "BUNDLE_MISSING"));
    let by_item = ask("c0", v1::Modality::Text, v1::term::Source::ItemId("a".to_owned()));
    server.search().search(by_item).await.unwrap();

    loaded(&server, "eight").await;
    assert_eq!(state().await, v1::CollectionState::Ready);
    assert_eq!(server.search().search(search).await.unwrap().into_inner().hits[0].id, "a");
    assert!(server.put("c0", text_item("a", "a red heart")).await.version > first.version);
}

#[tokio::test]
async fn a_collection_is_never_left_without_its_bundle_by_who_unloads_it_unforced() {
    let (server, _folder) = server().await;
    let server = Arc::new(server);
    let eight = eight();
    for round in 0..8 {
        loaded(&server, "eight").await;
        let makers: Vec<_> = (0..4)
            .map(|maker| {
                let (server, digest) = (Arc::clone(&server), eight.clone());
                tokio::spawn(async move {
                    let name = format!("r{round}-{maker}");
                    let by = v1::create_collection_request::VectorsBy::EmbeddingDigest(digest);
                    let request =
                        v1::CreateCollectionRequest { vectors_by: Some(by), ..create(&name) };
                    let made = server.collections().create_collection(request).await;
                    (name, made.map_err(|status| refusal(&status)))
                })
            })
            .collect();
        let unloaded = server.admin().unload_model(unload(&eight, false)).await;
        if let Err(status) = &unloaded {
            assert_eq!(refusal(status), in_use());
        }
        for maker in makers {
            match maker.await.unwrap() {
                (name, Ok(_)) => {
                    assert_eq!(server.collection(&name).await.state(), v1::CollectionState::Ready);
                    let name = v1::DeleteCollectionRequest { name, ..Default::default() };
                    server.collections().delete_collection(name).await.unwrap();
                }
                (_, Err(late)) => {
                    assert!(unloaded.is_ok());
                    assert_eq!(late.reason, "BUNDLE_NOT_FOUND");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_began_with_a_bundle_ends_with_it_though_it_was_unloaded() {
    let (server, _folder) = server().await;
    loaded(&server, "eight").await;
    let request = |sequence| v1::EmbedStreamRequest {
        sequence,
        embedding_digest: eight(),
        input: Some(v1::EmbedInput {
            input: Some(v1::embed_input::Input::Text("a heart".to_owned())),
            ..Default::default()
        }),
    };
    let (send, receive) = tokio::sync::mpsc::channel(4);
    let requests = tokio_stream::wrappers::ReceiverStream::new(receive);
    let mut replies = server.embedding().embed_stream(requests).await.unwrap().into_inner();
    let mut answer = async |sequence| {
        send.send(request(sequence)).await.unwrap();
        replies.message().await.unwrap().unwrap()
    };
    let first = answer(1).await;
    server.admin().unload_model(unload(&eight(), false)).await.unwrap();
    let second = answer(2).await;
    assert_eq!(second.outcome, first.outcome);
    assert!(matches!(second.outcome, Some(v1::embed_stream_response::Outcome::Embedding(_))));
    let embed = v1::EmbedTextRequest {
        text: "a heart".to_owned(),
        embedding_digest: eight(),
        ..Default::default()
    };
    assert_eq!(refused(server.embedding().embed_text(embed)).await.reason, "BUNDLE_NOT_FOUND");
}

#[tokio::test]
async fn a_self_test_tells_for_each_golden_input_how_near_its_vector_is() {
    let (server, _folder) = server().await;
    loaded(&server, "eight").await;
    let reply = server.admin().run_self_test(self_test("")).await.unwrap().into_inner();
    assert!(reply.untested_embedding_digests.is_empty());
    let inputs = ["image-000.png", "image-001.png", "text-000.txt", "text-001.txt"];
    for digest in [server.digest.clone(), eight()] {
        let of: Vec<_> =
            reply.results.iter().filter(|result| result.embedding_digest == digest).collect();
        let names: Vec<&str> = of.iter().map(|result| result.input.as_str()).collect();
        assert_eq!(names, inputs.map(|name| format!("golden/{name}")));
        assert!(of.iter().all(|result| result.passed && result.cosine >= 0.9999));
        assert!(of.iter().all(|result| result.status.is_none()));
        assert_eq!((of[0].modality(), of[3].modality()), (v1::Modality::Image, v1::Modality::Text));
    }
    let one = server.admin().run_self_test(self_test(&eight())).await.unwrap().into_inner();
    assert!(one.results.iter().all(|result| result.embedding_digest == eight()));
    let unknown = refused(server.admin().run_self_test(self_test(&"ab".repeat(32)))).await;
    assert_eq!(unknown, told(Code::NotFound, "BUNDLE_NOT_FOUND", "embedding_digest"));
}

#[tokio::test]
async fn a_golden_input_that_the_limits_of_the_server_refuse_fails_alone() {
    let flags = Flags { image_side: Some("32".to_owned()), ..Flags::default() };
    let (server, _folder) = with_flags(flags).await;
    let reply = server.admin().run_self_test(self_test("")).await.unwrap().into_inner();
    let wide = &reply.results[1];
    assert!(!wide.passed && wide.cosine == 0.0);
    assert_eq!(refusal_of(wide.status.as_ref().unwrap()).reason, "IMAGE_TOO_LARGE");
    assert!(reply.results.iter().filter(|result| result.passed).count() == 3);
}

/// Searches and writes without end in the collection `old`, and how many went well.
fn busy(server: &Arc<Server>, stop: &watch::Receiver<bool>) -> Vec<tokio::task::JoinHandle<usize>> {
    let tasks = (0..4).map(|worker| {
        let (server, stop) = (Arc::clone(server), stop.clone());
        tokio::spawn(async move {
            let mut done = 0;
            while !*stop.borrow() {
                let id = format!("w{worker}-{}", done % 20);
                server.put("old", text_item(&id, &format!("a heart w{worker}x{done}"))).await;
                let text = by_text(&format!("a heart w{worker}x{done}"));
                let search = ask("old", v1::Modality::Text, text);
                let found = server.search().search(search).await.unwrap().into_inner();
                assert_eq!(ids(&found.hits)[0], id);
                assert_eq!(found.info.unwrap().embedding_digest, server.digest);
                done += 1;
            }
            done
        })
    });
    tasks.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_goes_on_without_a_failed_call_through_all_that_happens_to_another_bundle() {
    let (server, _folder) = server().await;
    let server = Arc::new(server);
    server.make(create("old")).await;
    let (stop, stopped) = watch::channel(false);
    let workers = busy(&server, &stopped);
    for round in 0..3 {
        let reply = loaded(&server, "eight").await;
        assert_eq!(activated(&server, &eight()).await, server.digest);
        let name = format!("new{round}");
        server.make(create(&name)).await;
        server.put(&name, text_item("a", "a red heart")).await;
        let tested = server.admin().run_self_test(self_test("")).await.unwrap().into_inner();
        assert!(tested.results.iter().all(|result| result.passed));
        // The default of the settings is replaced, and cannot be unloaded while `old` needs it.
        let told = refused(server.admin().unload_model(unload(&server.digest, false))).await;
        assert_eq!(told, in_use());
        assert_eq!(activated(&server, &server.digest).await, eight());
        let gone = server.admin().unload_model(unload(&reply.embedding_digest, true)).await;
        assert_eq!(gone.unwrap().into_inner().collections.len(), round + 1);
    }
    stop.send(true).unwrap();
    for worker in workers {
        assert!(worker.await.unwrap() > 0);
    }
    assert_eq!(models(&server).await.len(), 1);
}
