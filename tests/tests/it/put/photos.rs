//! Folders of photographs with captions, and what a collection must hold when they were put.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use diptych_proto::v1;
use diptych_proto::v1::source::Content;
use diptych_proto::v1::term::Source;
use diptych_tests::api::*;
use diptych_tests::{Api, inputs};
use image::ImageFormat;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

/// A photograph, by its path below the folder, with what is said of it.
#[derive(Debug, Clone)]
pub(super) struct Photo {
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
    pub(super) captions: Vec<String>,
}

/// A folder with photographs in folders below it. Nothing says what is in them yet.
pub(super) struct Photos {
    folder: TempDir,
    pub(super) photos: Vec<Photo>,
}

impl Photos {
    /// `count` photographs of the same seeds at every call, each with up to three captions: the first tenth with none, and
    /// one caption that several share.
    pub(super) fn new(count: usize, (width, height): (u32, u32)) -> Self {
        let folder = TempDir::new().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut photos = Vec::new();
        for number in 0..count {
            let place = ["", "strand/", "old town/2024/"][number % 3];
            let path = format!("{place}{number:04}.jpg");
            let picture = inputs::photograph(&mut rng, width, height);
            let bytes = inputs::encoded(&picture, ImageFormat::Jpeg);
            let mut captions = Vec::new();
            if number >= count / 10 {
                for _ in 0..2 {
                    captions.push(inputs::words(&mut rng, (number * 2 + captions.len()) as u64));
                }
            }
            if number % 5 == 4 {
                captions.push("a \"photograph\", nothing more".to_owned());
            }
            photos.push(Photo { path, bytes, captions });
        }
        let photos = Self { folder, photos };
        for photo in &photos.photos {
            photos.write(&photo.path, &photo.bytes);
        }
        photos
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the folder.
    pub(super) fn write(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Photograph and caption, one pair a row.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&Photo, &str)> {
        let rows = |photo| Photo::rows(photo);
        self.photos.iter().flat_map(rows)
    }

    /// Items that must come of it.
    pub(super) fn items(&self) -> usize {
        self.photos.len() + self.rows().count()
    }
}

impl Photo {
    fn rows(&self) -> impl Iterator<Item = (&Self, &str)> {
        self.captions.iter().map(move |caption| (self, caption.as_str()))
    }
}

/// A row of a CSV file.
pub(super) fn csv_row(image: &str, caption: &str) -> String {
    let quoted = |cell: &str| format!("\"{}\"", cell.replace('"', "\"\""));
    format!("{},{}\n", quoted(image), quoted(caption))
}

/// Everything in a collection, with sources.
pub(super) async fn listed(api: &Api, collection: &str) -> Vec<v1::Item> {
    let list = v1::ListItemsRequest {
        collection: collection.to_owned(),
        page_size: 100,
        read_mask: mask(&["source"]),
        ..Default::default()
    };
    api.list(list).await.unwrap()
}

/// The collection holds every photograph and every caption of one once, grouped, and nothing else; each is given by GetItem
/// and found by its own input.
pub(super) async fn check(api: &Api, collection: &str, photos: &Photos) {
    let mut groups: BTreeMap<String, Vec<Content>> = BTreeMap::new();
    for item in listed(api, collection).await {
        let content = item.source.clone().unwrap().content.unwrap();
        assert!(!item.group.is_empty(), "{} has no group", item.id);
        groups.entry(item.group.clone()).or_default().push(content.clone());
        let read = api.get(collection, &item.id).await.unwrap();
        assert_eq!(read.source.unwrap().content.as_ref(), Some(&content), "{}", item.id);
        found(api, collection, &item.id, content).await;
    }
    for photo in &photos.photos {
        let picture = Content::Image(photo.bytes.clone().into());
        let captions = photo.captions.iter().map(|caption| Content::Text(caption.clone()));
        let expected: Vec<Content> = [picture.clone()].into_iter().chain(captions).collect();
        let own: Vec<_> = groups.iter().filter(|(_, group)| group.contains(&picture)).collect();
        assert_eq!(own.len(), 1, "{} is in the groups {:?}", photo.path, own);
        let group = own[0].1;
        let missing = expected.iter().find(|content| !group.contains(content));
        assert_eq!(missing, None, "is not with {}", photo.path);
        assert_eq!(group.len(), expected.len(), "{}: {group:?}", photo.path);
    }
    assert_eq!(groups.len(), photos.photos.len(), "groups that nobody put");
}

/// A search by the item's own input finds it, first or beside an equal input.
async fn found(api: &Api, collection: &str, id: &str, content: Content) {
    let (target, query) = match content.clone() {
        Content::Text(text) => (v1::Modality::Text, by_text(&text)),
        Content::Image(image) => (v1::Modality::Image, Source::Image(image)),
    };
    let search = v1::SearchRequest { limit: 200, ..ask(collection, target, query) };
    let hits = api.hits(search).await.unwrap();
    let own = hits.iter().find(|hit| hit.id == id).unwrap_or_else(|| panic!("{id} is not found"));
    let first = &hits[0];
    assert!(first.score - own.score < 1e-5, "{id}: {own:?} behind {first:?}");
    if first.id != id {
        let other = api.get(collection, &first.id).await.unwrap();
        assert_eq!(other.source.unwrap().content, Some(content), "{id} behind {}", first.id);
    }
}
