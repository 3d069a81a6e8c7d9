//! Opening what lives as long as the server: the bundle, the store, and the bundles that collections were made with.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use diptych_index::{EmbeddedConfig, EmbeddedEngine, Engine as _};
use diptych_model::Bundle;

use crate::config::Config;
use crate::models::{Model, Models};
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
        let default = default_model(&settings)?;
        let engine = store(&settings)?;
        Ok((engine, Models::new(settings.data_dir.join("bundles"), default)))
    })
    .await??;
    let (engine, models) = (Arc::new(engine), Arc::new(models));
    load_kept(config, &engine, &models).await?;
    let key = config.page_key.clone().unwrap_or_else(random_key);
    let service = Service::new(
        Arc::clone(&engine) as _,
        Arc::clone(&models),
        config.limits,
        PageKey::new(key),
    );
    Ok(Parts { engine, models, service: Arc::new(service) })
}

fn default_model(config: &Config) -> Result<Model> {
    let bundle = match &config.bundle {
        Some(folder) => Bundle::open(folder).with_context(|| refused(folder))?,
        None => {
            sample::bundle().context("the built-in bundle is damaged; build the program anew")?
        }
    };
    let model = Model::start(bundle, config.encoder);
    model.with_context(|| {
        config.bundle.as_deref().map_or_else(|| "the built-in bundle".into(), refused)
    })
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
    settings.scan_threads = config.threads;
    EmbeddedEngine::open(&settings)
        .with_context(|| format!("the data folder {folder} cannot be opened"))
}

/// Loads the bundles that collections were made with.
async fn load_kept(config: &Config, engine: &EmbeddedEngine, models: &Arc<Models>) -> Result<()> {
    let collections = engine.collections().await?;
    let digests: Vec<String> =
        collections.into_iter().filter_map(|info| info.spec.embedding_digest).collect();
    let (models, settings) = (Arc::clone(models), config.encoder);
    let load = move || digests.iter().for_each(|digest| models.load_kept(digest, settings));
    Ok(tokio::task::spawn_blocking(load).await?)
}

/// A secret that ends with the process: two random UUIDs, 244 bits from the system's generator.
fn random_key() -> Vec<u8> {
    [uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes()].concat()
}
