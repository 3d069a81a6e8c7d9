//! Use case: make, get, list, change and delete collections.

use diptych_index::{
    Alias, BuilderKind, CollectionInfo, CollectionSpec, CollectionUpdate, Dims, Modality,
    RequestKey, Space, VectorStorage,
};
use diptych_proto::v1::ErrorReason;

use crate::error::{Error, Result};
use crate::memory::give_back_beside;
use crate::models::{Held, Model};
use crate::page::Mark;
use crate::recall::Running;
use crate::requests::Answer;
use crate::service::{DEFAULT_PAGE_SIZE, Service, named_at};

/// Longest name of a collection in bytes.
pub const NAME_MAX_BYTES: usize = 63;
/// Largest dimension of a vector.
pub const MAX_DIMENSION: usize = 4096;

/// What makes the vectors of a new collection.
#[derive(Debug, Clone)]
pub enum VectorsBy {
    /// The bundle of this digest; empty for the default.
    Bundle(String),
    /// The caller.
    Caller(Dims),
}

/// A collection to make.
#[derive(Debug, Clone)]
pub struct NewCollection {
    /// Its name.
    pub name: String,
    /// What makes its vectors.
    pub vectors_by: VectorsBy,
    /// Whether items keep what they were made from.
    pub keep_source: bool,
    /// Name of the engine; empty for the default.
    pub engine: String,
    /// How its vectors are stored.
    pub vector_storage: VectorStorage,
    /// What builds its graphs.
    pub graph_builder: BuilderKind,
}

/// A collection as callers see it.
#[derive(Debug, Clone)]
pub struct CollectionView {
    /// What the engine says.
    pub info: CollectionInfo,
    /// What its bundle knows, in words; empty without one.
    pub domain: String,
    /// It was made with a bundle that is not here.
    pub bundle_missing: bool,
    /// Where its vectors live.
    pub engine: &'static str,
    /// What its searches find of the right answer; `None` before the first that was compared.
    pub recall: Option<Running>,
    /// Aliases that point at it, by name.
    pub aliases: Vec<String>,
}

impl Service {
    /// Makes a collection and keeps the bundle it is made with.
    ///
    /// # Errors
    /// A bad name, a name that is taken, an unknown bundle or engine, a reused request id.
    pub async fn create_collection(
        &self,
        new: NewCollection,
        request: Option<RequestKey>,
    ) -> Result<CollectionView> {
        self.admit()?;
        check_name(&new.name)?;
        let make = async { Ok(Answer::Collection(Box::new(self.make_collection(new).await?))) };
        self.requests.once(request, make).await?.collection()
    }

    async fn make_collection(&self, new: NewCollection) -> Result<CollectionView> {
        let engine = self.engine.capabilities().name;
        if !new.engine.is_empty() && new.engine != engine {
            return Err(Error::field("engine", format!("is unknown; known: {engine}")));
        }
        // Held until the collection is there, so that nobody unloads its bundle before.
        let (embedding_digest, dims, _in_use) = match new.vectors_by {
            VectorsBy::Bundle(digest) => {
                let held = self.models.hold(&digest).await;
                let Held { model, in_use } = held.map_err(|error| error.at("embedding_digest"))?;
                self.models.keep(&model).await?;
                (Some(model.digest().to_owned()), dims_of(&model), Some(in_use))
            }
            VectorsBy::Caller(dims) => (None, check_dims(dims)?, None),
        };
        let spec = CollectionSpec {
            embedding_digest,
            keep_source: new.keep_source,
            storage: new.vector_storage,
            graph: new.graph_builder,
            ..CollectionSpec::new(new.name, dims)
        };
        let made = self.engine.create_collection(spec).await;
        Ok(self.view(made.map_err(|error| named_at("name", error))?, &[]))
    }

    /// One collection.
    ///
    /// # Errors
    /// NOT_FOUND.
    pub async fn get_collection(&self, name: &str) -> Result<CollectionView> {
        self.admit()?;
        let info = self.collection_at("name", name).await?;
        self.seen(info).await
    }

    /// Changes settings of a collection.
    ///
    /// # Errors
    /// NOT_FOUND, a store that refuses.
    pub async fn update_collection(
        &self,
        name: &str,
        update: CollectionUpdate,
        request: Option<RequestKey>,
    ) -> Result<CollectionView> {
        self.admit()?;
        let work = async {
            let info = self.collection_at("collection.name", name).await?;
            let changed = self.engine.update_collection(&info.spec.name, update).await;
            let changed = changed.map_err(|error| named_at("collection.name", error))?;
            Ok(Answer::Collection(Box::new(self.seen(changed).await?)))
        };
        self.requests.once(request, work).await?.collection()
    }

    /// A collection as callers see it now.
    pub(crate) async fn seen(&self, info: CollectionInfo) -> Result<CollectionView> {
        let aliases = self.engine.aliases().await?;
        Ok(self.view(info, &aliases))
    }

    /// A page of collections by name, and the token of the next.
    ///
    /// # Errors
    /// A bad size or token.
    pub async fn list_collections(
        &self,
        page_size: u32,
        page_token: &str,
    ) -> Result<(Vec<CollectionView>, String)> {
        /// Listings of collections differ in nothing but their page.
        const QUERY: [u8; 32] = *b"diptych.v1.ListCollections......";
        self.admit()?;
        let sizes = (DEFAULT_PAGE_SIZE, self.limits.page_size);
        let size = Self::bounded("page_size", page_size, sizes)?;
        let after = self.pages.read(&QUERY, page_token)?.map(|mark| mark.id);
        let all = self.engine.collections().await?;
        let mut rest: Vec<CollectionInfo> = all
            .into_iter()
            .filter(|info| after.as_ref().is_none_or(|after| info.spec.name > *after))
            .collect();
        let more = rest.len() > size;
        rest.truncate(size);
        let token = match rest.last() {
            Some(last) if more => {
                let id = last.spec.name.clone();
                self.pages.issue(&QUERY, &Mark::listed(0, id))
            }
            _ => String::new(),
        };
        let aliases = self.engine.aliases().await?;
        Ok((rest.into_iter().map(|info| self.view(info, &aliases)).collect(), token))
    }

    /// Deletes a collection with all its items.
    ///
    /// # Errors
    /// NOT_FOUND; FAILED_PRECONDITION `COLLECTION_HAS_ALIAS`; a name that is an alias.
    pub async fn delete_collection(&self, name: &str, request: Option<RequestKey>) -> Result<()> {
        self.admit()?;
        let delete = async {
            let info = self.collection_at("name", name).await?;
            if info.spec.name != name {
                let text = format!("is an alias of {}: name the collection itself", info.spec.name);
                return Err(Error::field("name", text));
            }
            let gone = self.engine.drop_collection(name).await;
            if gone.is_ok() {
                // Rows of a collection are many small pieces, which the allocator keeps.
                give_back_beside();
            }
            gone.map(|()| Answer::Done).map_err(|error| named_at("name", error))
        };
        self.requests.once(request, delete).await.map(|_| ())
    }

    fn view(&self, info: CollectionInfo, aliases: &[Alias]) -> CollectionView {
        let digest = info.spec.embedding_digest.as_deref();
        let model = digest.and_then(|digest| self.models.get(digest));
        CollectionView {
            domain: model
                .as_ref()
                .map(|model| model.encoder().domain().to_owned())
                .unwrap_or_default(),
            bundle_missing: digest.is_some() && model.is_none(),
            engine: self.engine.capabilities().name,
            recall: self.gauge.of(info.number),
            aliases: aliases
                .iter()
                .filter(|alias| alias.collection == info.spec.name)
                .map(|alias| alias.name.clone())
                .collect(),
            info,
        }
    }
}

/// Dimensions of the vectors that a bundle makes.
pub(crate) fn dims_of(model: &Model) -> Dims {
    let dims = |modality, space| model.encoder().space(modality, space).map(|space| space.dims);
    Dims {
        shared: dims(diptych_model::Modality::Image, diptych_model::Space::Shared),
        exclusive_image: dims(diptych_model::Modality::Image, diptych_model::Space::Exclusive),
        exclusive_text: dims(diptych_model::Modality::Text, diptych_model::Space::Exclusive),
    }
}

fn check_dims(dims: Dims) -> Result<Dims> {
    let named = [
        ("dimensions.shared", dims.get(Modality::Image, Space::Shared)),
        ("dimensions.exclusive_image", dims.get(Modality::Image, Space::Exclusive)),
        ("dimensions.exclusive_text", dims.get(Modality::Text, Space::Exclusive)),
    ];
    if named[0].1.is_none() {
        return Err(Error::field("dimensions.shared", "is required, 1 to 4096"));
    }
    for (field, dims) in named {
        if let Some(dims) = dims.filter(|dims| *dims > MAX_DIMENSION) {
            let sizes = ("dimensions", MAX_DIMENSION as u64, dims as u64);
            return Err(Error::limit(ErrorReason::FieldInvalid, field, sizes));
        }
    }
    Ok(dims)
}

fn check_name(name: &str) -> Result<()> {
    check_name_at("name", name)
}

/// The published rule for names of collections and aliases; `field` is where the request says the name.
pub(crate) fn check_name_at(field: &str, name: &str) -> Result<()> {
    if name.len() > NAME_MAX_BYTES {
        let sizes = ("bytes", NAME_MAX_BYTES as u64, name.len() as u64);
        return Err(Error::limit(ErrorReason::FieldInvalid, field, sizes));
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let well = name.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
        && name.bytes().next().is_some_and(plain)
        && name.bytes().last().is_some_and(plain);
    if well {
        Ok(())
    } else {
        Err(Error::field(
            field,
            "must be lower-case letters, digits, '.', '_' or '-', and begin and end with a letter or digit",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_published_rule() {
        for good in ["a", "emoji", "acme.photos-2_x", "0"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "Emoji", "-a", "a-", ".a", "a b", "ä", "a/b", &"a".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name(&"a".repeat(63)).is_ok());
    }
}
