//! Use case: load and unload bundles while the server serves.
//!
//! A bundle is loaded beside those that run, one at a time, off tokio's threads, and seen once its golden inputs gave their
//! golden vectors. One that is unloaded is out of sight at once; calls that hold it end well, and the last of them ends its
//! threads and gives its memory back.

use std::sync::Arc;

use diptych_proto::v1::ErrorReason;

use crate::error::{Error, Result};
use crate::memory::give_back;
use crate::models::{Model, ModelsFolder};
use crate::service::Service;

/// Collections that a refusal names.
const NAMED: usize = 5;

impl Service {
    /// Loads the bundle at `path` below the folder of models, unless one of its digest is here; with `activate` it becomes the
    /// default. Gives it, with the digest of the default before if it was activated.
    ///
    /// # Errors
    /// FAILED_PRECONDITION `MODELS_DIR_UNSET`, `BUNDLE_REFUSED`; RESOURCE_EXHAUSTED `MEMORY_FULL`; what is wrong with the path, under the field `path`; those of
    /// [`Service::activate_model`].
    pub async fn load_model(
        &self,
        path: &str,
        activate: bool,
    ) -> Result<(Arc<Model>, Option<String>)> {
        self.admit()?;
        // What is wrong with the request comes before what is wrong with the server.
        ModelsFolder::check(path)?;
        let folder = self.models_folder.clone().ok_or_else(unset)?;
        let model = self.load_from(&folder, path).await?;
        // Collections that lacked it have it again, over restarts too. A disk that refuses is told in the log; who makes the
        // next collection with it is told by an answer.
        if !self.made_with(model.digest()).await?.is_empty() {
            drop(self.models.keep(&model).await);
        }
        let previous = if activate { Some(self.make_default(&model).await?) } else { None };
        Ok((model, previous))
    }

    async fn load_from(&self, folder: &ModelsFolder, path: &str) -> Result<Arc<Model>> {
        let (below, named) = (folder.clone(), path.to_owned());
        let resolved = tokio::task::spawn_blocking(move || below.resolve(&named)).await;
        let place = resolved.map_err(|_| Error::internal("a path was not looked at"))??;
        let memory = Arc::clone(&self.memory);
        self.models.load(&place, move |weights| memory.admit_with(weights)).await.map_err(|error| {
            let error = match error.downcast::<Error>() {
                Ok(no_room) => return no_room,
                Err(error) => error,
            };
            let told = format!("{error:#}");
            tracing::warn!(path, error = told, "a bundle was not loaded");
            Error::precondition(ErrorReason::BundleRefused, folder.relative(&told)).at("path")
        })
    }

    /// Unloads a bundle and gives the names of the collections that lack it now.
    ///
    /// # Errors
    /// FAILED_PRECONDITION `BUNDLE_IN_USE` for the default, and, without `force`, while collections were made with it;
    /// NOT_FOUND `BUNDLE_NOT_FOUND`; each under the field `embedding_digest`.
    pub async fn unload_model(&self, digest: &str, force: bool) -> Result<Vec<String>> {
        self.admit()?;
        self.loaded_model(digest)?;
        let closed = self.models.close().await;
        let model = self.loaded_model(digest)?;
        if self.models.default_model().digest() == digest {
            return Err(in_use("the bundle is the default: activate another one first".to_owned()));
        }
        let users = self.made_with(digest).await?;
        if !force && !users.is_empty() {
            return Err(in_use(used_by(&users)));
        }
        self.models.remove(digest);
        drop(closed);
        tracing::info!(digest, collections = users.len(), "a bundle was unloaded");
        // Giving back gigabytes takes a moment.
        drop(tokio::task::spawn_blocking(move || {
            drop(model);
            give_back();
        }));
        Ok(users)
    }

    /// Names of the collections that were made with a bundle.
    async fn made_with(&self, digest: &str) -> Result<Vec<String>> {
        let specs = self.engine.collections().await?.into_iter().map(|info| info.spec);
        let made = specs.filter(|spec| spec.embedding_digest.as_deref() == Some(digest));
        let mut names: Vec<String> = made.map(|spec| spec.name).collect();
        names.sort();
        Ok(names)
    }
}

fn unset() -> Error {
    let message = "no folder is set from which bundles may be loaded: start the server with --models-dir FOLDER \
                   (DIPTYCH_MODELS_DIR, or the key models_dir of its file)";
    Error::precondition(ErrorReason::ModelsDirUnset, message)
}

/// The bundle is the default, or collections were made with it.
fn in_use(message: String) -> Error {
    Error::precondition(ErrorReason::BundleInUse, message).at("embedding_digest")
}

fn used_by(collections: &[String]) -> String {
    let named = collections.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let rest = match collections.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "collections were made with the bundle: {named}{rest}; delete them or embed them anew, or unload it with `force`, \
         and they answer BUNDLE_MISSING where they need it"
    )
}
