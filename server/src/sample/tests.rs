use diptych_index::{DeleteBatch, EmbeddedConfig, EmbeddedEngine, ItemId, Selection, Value};
use diptych_model::testing::tiny_bundle;
use parking_lot::Mutex;

use super::*;
use crate::config::{Config, Flags};
use crate::encoder::{Decoders, EncoderSettings};

/// More than one batch.
const ITEMS: usize = 2 * BATCH + 7;

/// A pack of texts and one picture, as `diptych-train sample` writes it.
fn small_pack() -> &'static [u8] {
    let mut listing = String::from("{\"format_version\":1,\"counts\":{}}\n");
    let picture =
        r#"{"id":"p","modality":"image","group":"g","metadata":{"style":"noto"},"file":"p.png"}"#;
    listing.push_str(picture);
    for number in 1..ITEMS {
        listing.push_str(&format!(
            "\n{{\"id\":\"t{number}\",\"modality\":\"text\",\"group\":\"g\",\"metadata\":{{\"lang\":\"en\"}},\"text\":\"heart {number}\"}}"
        ));
    }
    let png = tiny_bundle(7).unwrap().files()["golden/image-000.png"].to_vec();
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(gzip);
    for (name, bytes) in [("items.jsonl", listing.as_bytes()), ("p.png", png.as_slice())] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap().leak()
}

fn settings() -> EncoderSettings {
    Config::resolve(&Flags::default(), std::iter::empty()).unwrap().encoder
}

/// The sample of a server whose data lie in `folder` and whose bundle has `seed`.
fn sample(folder: &tempfile::TempDir, seed: u64) -> Sample {
    let decoders = Arc::new(Decoders::start(1, 1 << 30).unwrap());
    let model = Model::start(tiny_bundle(seed).unwrap(), settings(), &decoders).unwrap();
    let models = Arc::new(Models::new(folder.path().join("bundles"), model));
    let store = folder.path().join("store");
    let engine = EmbeddedEngine::open(&EmbeddedConfig::new(&store)).unwrap();
    Sample { engine: Arc::new(engine), models, store }
}

async fn counted(sample: &Sample) -> usize {
    sample.present().await.unwrap().len()
}

#[tokio::test]
async fn a_fill_that_was_cut_off_goes_on_where_it_stood_with_the_bundle_it_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let pack = small_pack();
    let first = sample(&folder, 1);
    let digest = first.models.default_model().digest().to_owned();
    {
        let (tell, told) = tokio::sync::oneshot::channel();
        let tell = Mutex::new(Some(tell));
        let progress = move |done: usize, _: usize| {
            if let Some(tell) = tell.lock().take_if(|_| done >= BATCH) {
                tell.send(()).unwrap();
            }
        };
        tokio::select! {
            biased;
            outcome = told => outcome.unwrap(),
            outcome = first.fill_from(pack, &progress) => panic!("was not cut off: {outcome:?}"),
        }
    }
    assert!(!first.mark().exists());
    first.engine.close().await.unwrap();

    let second = sample(&folder, 2);
    second.models.load_kept(&digest);
    let steps = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&steps);
    assert!(second.fill_from(pack, &move |done, _| notes.lock().push(done)).await.unwrap());
    assert_eq!(*steps.lock(), [BATCH, 2 * BATCH, ITEMS]);
    assert_eq!(counted(&second).await, ITEMS);
    let info = second.engine.collection(COLLECTION).await.unwrap();
    assert_eq!(info.spec.embedding_digest, Some(digest));
}

#[tokio::test]
async fn what_a_user_deletes_stays_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let pack = small_pack();
    let sample = sample(&folder, 1);
    assert!(sample.fill_from(pack, &|_, _| {}).await.unwrap());
    let ids = vec![ItemId::try_new("t1").unwrap()];
    let delete =
        DeleteBatch { selection: Selection::Ids(ids), expected_count: None, request: None };
    sample.engine.delete(COLLECTION, delete).await.unwrap();
    assert!(sample.fill_from(pack, &|_, _| {}).await.unwrap());
    assert_eq!(counted(&sample).await, ITEMS - 1);
    sample.engine.drop_collection(COLLECTION).await.unwrap();
    assert!(!sample.fill_from(pack, &|_, _| {}).await.unwrap());
    assert!(sample.find().await.unwrap().is_none());
}

#[tokio::test]
async fn a_store_that_was_moved_away_is_filled_anew() {
    let folder = tempfile::tempdir().unwrap();
    let pack = small_pack();
    let first = sample(&folder, 1);
    assert!(first.fill_from(pack, &|_, _| {}).await.unwrap());
    first.engine.close().await.unwrap();
    std::fs::rename(&first.store, folder.path().join("damaged")).unwrap();
    let second = sample(&folder, 1);
    assert!(second.fill_from(pack, &|_, _| {}).await.unwrap());
    assert_eq!(counted(&second).await, ITEMS);
}

#[tokio::test]
async fn a_collection_that_a_user_gave_the_same_name_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&folder, 1);
    let model = sample.models.default_model();
    let spec = CollectionSpec {
        embedding_digest: Some(model.digest().to_owned()),
        ..CollectionSpec::new(COLLECTION, dims_of(&model))
    };
    sample.engine.create_collection(spec).await.unwrap();
    assert!(!sample.fill_from(small_pack(), &|_, _| {}).await.unwrap());
    assert_eq!(counted(&sample).await, 0);
}

#[test]
fn the_built_in_pack_holds_what_is_promised() {
    let items = pack::read(PACK).unwrap();
    let ids: BTreeSet<&str> = items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids.len(), items.len(), "two items share an id");
    let concepts = |wanted: fn(&PackItem) -> bool| {
        let groups = items.iter().filter(|item| wanted(item)).map(|item| item.group.as_str());
        groups.collect::<BTreeSet<_>>().len()
    };
    assert!(concepts(|item| matches!(item.source, Source::Image(_))) >= 1900);
    let languages: BTreeSet<String> = items
        .iter()
        .filter_map(|item| match item.metadata.get("lang") {
            Some(Value::String(lang)) => Some(lang.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(languages.len(), 10, "{languages:?}");
}

#[test]
fn a_damaged_pack_is_refused() {
    assert!(pack::read(b"no gzip").is_err());
    assert!(pack::read(&PACK[..PACK.len() / 2]).is_err());
}
