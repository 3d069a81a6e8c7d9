//! Opening what lives as long as the server: the bundle, the store, and the bundles that collections were made with.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use diptych_index::{EmbeddedConfig, EmbeddedEngine, Engine as _};
use diptych_model::Bundle;

use crate::config::{BundleSource, Config};
use crate::encoder::Decoders;
use crate::grpc;
use crate::memory;
use crate::models::{Model, Models, ModelsFolder};
use crate::page::PageKey;
use crate::sample;
use crate::service::Service;

/// The long-lived parts.
pub(super) struct Parts {
    pub(super) engine: Arc<EmbeddedEngine>,
    pub(super) models: Arc<Models>,
    pub(super) service: Arc<Service>,
}

/// Opens the parts. What blocks runs off tokio's threads.
///
/// # Errors
/// A sentence that says what is wrong and what to do.
pub(super) async fn parts(config: &Config) -> Result<Parts> {
    // The networks compute on rayon's global pool. It may be there already in a test; then it stays as it is.
    drop(rayon::ThreadPoolBuilder::new().num_threads(config.threads).build_global());
    let settings = config.clone();
    let (engine, models) = tokio::task::spawn_blocking(move || -> Result<_> {
        let (default, further) = served_models(&settings)?;
        let engine = store(&settings)?;
        let models = Models::new(settings.data_dir.join("bundles"), default);
        let models = if settings.bundles.is_empty() { models.built_in() } else { models };
        further.into_iter().for_each(|model| models.join(model));
        Ok((engine, models))
    })
    .await??;
    let (engine, models) = (Arc::new(engine), Arc::new(models));
    load_kept(&engine, &models).await?;
    models.take_up_activation(&*engine).await?;
    let queues = models.all().iter().map(|model| model.encoders().queue_bytes()).sum();
    let under_way = config.embedding_bytes(grpc::uncounted_bytes(config), queues);
    let mib = under_way >> 20;
    tracing::info!(mib, "requests and pictures under way take at most so much memory");
    let within = || memory::limit_within(memory::container_limit(), under_way);
    let most = config.memory_bytes.unwrap_or_else(within);
    if most > 0 {
        tracing::info!(mib = most >> 20, "from so much memory on nothing more is taken");
    }
    let key = config.page_key.clone().unwrap_or_else(random_key);
    let service = Service::new(
        Arc::clone(&engine) as _,
        Arc::clone(&models),
        config.limits,
        PageKey::new(key),
    )
    .with_recall_share(config.recall_share)
    .with_memory(most)
    .with_models_folder(config.models_dir.clone().map(ModelsFolder::new));
    Ok(Parts { engine, models, service: Arc::new(service) })
}

/// The default bundle, and those beside it.
fn served_models(config: &Config) -> Result<(Model, Vec<Model>)> {
    let decoders = Arc::new(Decoders::start(config.threads, config.decode_bytes)?);
    let start = |source: &BundleSource| -> Result<Model> {
        let folder = source.folder(&config.hub)?;
        let bundle = Bundle::open(&folder).with_context(|| refused(&folder))?;
        Model::start(bundle, config.encoder, &decoders).with_context(|| refused(&folder))
    };
    if let [first, further @ ..] = config.bundles.as_slice() {
        let further = further.iter().map(start);
        return Ok((start(first)?, further.collect::<Result<_>>()?));
    }
    let bundle =
        sample::bundle().context("the built-in bundle is damaged; build the program anew")?;
    let model = Model::start(bundle, config.encoder, &decoders).context("the built-in bundle")?;
    Ok((model, Vec::new()))
}

fn refused(folder: &Path) -> String {
    format!(
        "the bundle in {} cannot be served; export it again, or give another with --bundle",
        folder.display()
    )
}

fn store(config: &Config) -> Result<EmbeddedEngine> {
    let folder = config.data_dir.display();
    std::fs::create_dir_all(&config.data_dir).with_context(|| {
        format!("the data folder {folder} cannot be made; give another with --data-dir")
    })?;
    let mut settings = EmbeddedConfig::new(config.store_dir());
    settings.snapshots = config.data_dir.join("snapshots");
    settings.scan_threads = config.threads;
    settings.exact_below = config.exact_below;
    EmbeddedEngine::open(&settings)
        .with_context(|| format!("the data folder {folder} cannot be opened"))
}

/// Loads the bundles that collections were made with.
async fn load_kept(engine: &EmbeddedEngine, models: &Arc<Models>) -> Result<()> {
    let collections = engine.collections().await?;
    let digests: Vec<String> =
        collections.into_iter().filter_map(|info| info.spec.embedding_digest).collect();
    let models = Arc::clone(models);
    let load = move || digests.iter().for_each(|digest| models.load_kept(digest));
    Ok(tokio::task::spawn_blocking(load).await?)
}

/// A secret that ends with the process: two random UUIDs, 244 bits from the system's generator.
fn random_key() -> Vec<u8> {
    [uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes()].concat()
}
