//! The sample that a server without flags serves: a bundle and a pack of pictures and names, both built in.
//!
//! On first start the collection `emoji` is made and filled, its vectors computed, not shipped. A start that was cut off goes
//! on where it stood. A mark in the store's folder ends this for good: what a user deletes later stays deleted.

mod pack;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use diptych_index::{
    CollectionInfo, CollectionSpec, Engine, Modality, NewItem, PutBatch, Scan, Vectors,
};
use diptych_model::preprocess::ImageLimits;
use diptych_model::{Bundle, Encoder};

use self::pack::{PackItem, Source};
use crate::collections::dims_of;
use crate::models::{Model, Models};

/// Name of the sample collection.
pub const COLLECTION: &str = "emoji";

/// Tells the sample from a collection that a user gave the same name.
const DESCRIPTION: &str = "sample: emoji in three drawing styles, named in ten languages";
/// Items that are committed together.
const BATCH: usize = 1024;
/// Ids that are read together.
const PAGE: usize = 10_000;

static BUNDLE: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/sample_bundle.rs"));
static PACK: &[u8] = include_bytes!("../sample/emoji.tar.gz");

/// The bundle that is built in.
///
/// # Errors
/// A build whose bundle does not verify.
pub fn bundle() -> Result<Bundle> {
    let files = BUNDLE.iter().map(|(name, bytes)| ((*name).to_owned(), Cow::Borrowed(*bytes)));
    Ok(Bundle::from_files(files.collect())?)
}

/// Items that are in the collection, and items in all.
pub type Progress = dyn Fn(usize, usize) + Send + Sync;

/// Fills the collection `emoji`.
#[derive(Debug)]
pub struct Sample {
    /// Where the collection lives.
    pub engine: Arc<dyn Engine>,
    /// What makes its vectors.
    pub models: Arc<Models>,
    /// Folder of the store, in which the mark lies: a store that is moved away takes it along.
    pub store: PathBuf,
}

impl Sample {
    /// Makes and fills the collection, unless that was done before. Says whether it is there at the end.
    ///
    /// # Errors
    /// A damaged build, a store that refuses.
    pub async fn fill(&self, progress: &Progress) -> Result<bool> {
        self.fill_from(PACK, progress).await
    }

    async fn fill_from(&self, pack: &'static [u8], progress: &Progress) -> Result<bool> {
        let found = self.find().await?;
        let mark = self.mark();
        if mark.exists() {
            if found.is_none() {
                let mark = mark.display().to_string();
                tracing::info!(
                    mark,
                    "the sample collection was deleted; without the mark it would be made again"
                );
            }
            return Ok(found.is_some());
        }
        let Some(model) = self.collection(found).await? else { return Ok(false) };
        let items = tokio::task::spawn_blocking(|| pack::read(pack)).await?;
        let items = items.context("the built-in sample pack is damaged; build anew")?;
        self.put_missing(&model, items, progress).await?;
        write_mark(&mark).with_context(|| format!("{} cannot be written", mark.display()))?;
        Ok(true)
    }

    /// The file that says that the collection was filled.
    fn mark(&self) -> PathBuf {
        self.store.join("sample-emoji-filled")
    }

    async fn find(&self) -> Result<Option<CollectionInfo>> {
        let collections = self.engine.collections().await?;
        Ok(collections.into_iter().find(|info| info.spec.name == COLLECTION))
    }

    /// Makes the collection unless an earlier start did, and gives the bundle that it is made with. `None`: there is one that
    /// is not the sample, or whose bundle is not here.
    async fn collection(&self, found: Option<CollectionInfo>) -> Result<Option<Arc<Model>>> {
        if let Some(info) = found {
            let digest =
                info.spec.embedding_digest.filter(|_| info.spec.description == DESCRIPTION);
            let model = digest.and_then(|digest| self.models.get(&digest));
            if model.is_none() {
                tracing::warn!(
                    "the collection {COLLECTION} is left as it is: it is not the sample, or its bundle is gone"
                );
            }
            return Ok(model);
        }
        let model = self.models.default_model();
        self.models.keep(&model).await?;
        let spec = CollectionSpec {
            embedding_digest: Some(model.digest().to_owned()),
            description: DESCRIPTION.to_owned(),
            ..CollectionSpec::new(COLLECTION, dims_of(&model))
        };
        self.engine.create_collection(spec).await?;
        Ok(Some(model))
    }

    /// Embeds and puts the items that an earlier start did not.
    async fn put_missing(
        &self,
        model: &Model,
        items: Vec<PackItem>,
        progress: &Progress,
    ) -> Result<()> {
        let present = self.present().await?;
        let total = items.len();
        let missing: Vec<PackItem> =
            items.into_iter().filter(|item| !present.contains(item.id.as_str())).collect();
        let mut done = total - missing.len();
        let mut missing = missing.into_iter().peekable();
        while missing.peek().is_some() {
            progress(done, total);
            let batch: Vec<PackItem> = missing.by_ref().take(BATCH).collect();
            done += batch.len();
            // On the encoder itself, not through its queues: nobody else asks yet, and large batches are quick.
            let encoder = Arc::clone(model.encoder());
            let items = tokio::task::spawn_blocking(move || embed(&encoder, batch)).await??;
            let outcome =
                self.engine.put(COLLECTION, PutBatch { items, ..PutBatch::default() }).await?;
            if let Some(refused) = outcome.results.into_iter().find_map(Result::err) {
                bail!("the built-in sample pack holds an item that the store refuses: {refused}");
            }
        }
        progress(done, total);
        Ok(())
    }

    /// Ids that an earlier start put.
    async fn present(&self) -> Result<BTreeSet<String>> {
        let mut ids = BTreeSet::new();
        let mut after = None;
        loop {
            let scan = Scan { after, limit: PAGE, ..Scan::default() };
            let page = self.engine.scan(COLLECTION, scan).await?;
            ids.extend(page.items.into_iter().map(|item| item.id.as_str().to_owned()));
            after = page.next;
            if after.is_none() {
                return Ok(ids);
            }
        }
    }
}

/// Items with their vectors.
fn embed(encoder: &Encoder, batch: Vec<PackItem>) -> Result<Vec<NewItem>> {
    let limits = ImageLimits::default();
    let mut images = Vec::new();
    let mut texts = Vec::new();
    for item in &batch {
        match &item.source {
            Source::Image(bytes) => images.push(encoder.prepare_image(bytes, &limits)?),
            Source::Text(text) => texts.push(encoder.prepare_text(text, false)?),
        }
    }
    let mut images = encoder.encode_images(&images)?.into_iter();
    let mut texts = encoder.encode_texts(&texts)?.into_iter();
    let items = batch.into_iter().map(|item| {
        let (modality, source, vectors) = match item.source {
            Source::Image(bytes) => (Modality::Image, bytes, images.next()),
            Source::Text(text) => (Modality::Text, text.into_bytes(), texts.next()),
        };
        let vectors = vectors.context("an input has no vectors")?;
        Ok(NewItem {
            id: item.id,
            modality,
            group: Some(item.group),
            metadata: item.metadata,
            source: Some(source),
            vectors: Vectors { shared: Some(vectors.shared), exclusive: vectors.exclusive },
            expected_version: None,
        })
    });
    items.collect()
}

/// Everything is in the store by now; the mark must outlive a crash too.
fn write_mark(mark: &Path) -> std::io::Result<()> {
    std::fs::File::create(mark)?.sync_all()?;
    match mark.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
