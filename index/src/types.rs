//! Items, metadata and collections; the rules for names and sizes.

use std::{borrow::Borrow, collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Rejection, Result},
    graph::BuilderKind,
};

/// Longest item id, group and request id in bytes; the shortest is 1.
pub const ID_MAX_BYTES: usize = 256;
/// Longest name of a collection in bytes.
pub const COLLECTION_NAME_MAX_BYTES: usize = 128;
/// Most metadata fields of an item.
pub const METADATA_MAX_FIELDS: usize = 64;
/// Longest name of a metadata field in bytes.
pub const METADATA_KEY_MAX_BYTES: usize = 128;
/// Most bytes of names and values together in an item's metadata.
pub const METADATA_MAX_BYTES: usize = 16 * 1024;
/// Most dimensions of a vector.
pub const MAX_DIMS: usize = 8192;

/// Picture or text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Modality {
    /// A picture.
    Image,
    /// A text.
    Text,
}

impl Modality {
    /// Both, in the order of storage.
    pub const ALL: [Self; 2] = [Self::Image, Self::Text];
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "IMAGE",
            Self::Text => "TEXT",
        })
    }
}

/// What a vector says: what both modalities share, or what only its own says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Space {
    /// Pictures and texts meet here.
    Shared,
    /// Only compared within one modality.
    Exclusive,
}

impl Space {
    /// Both, in the order of storage.
    pub const ALL: [Self; 2] = [Self::Shared, Self::Exclusive];
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "SHARED",
            Self::Exclusive => "EXCLUSIVE",
        })
    }
}

/// Name of an item, unique in its collection: UTF-8, 1 to 256 bytes, ordered by bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(Arc<str>);

impl ItemId {
    /// Checks the length.
    ///
    /// # Errors
    /// [`Rejection::Invalid`] when empty, [`Rejection::Limit`] over 256 bytes; the field is `id`.
    pub fn try_new(id: impl Into<Arc<str>>) -> Result<Self, Rejection> {
        let id = id.into();
        check_name("id", &id)?;
        Ok(Self(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For ids read back from the store, which were checked when written.
    pub(crate) fn trusted(id: &str) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ItemId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// 1 to 256 bytes.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), Rejection> {
    if name.is_empty() {
        return Err(Rejection::invalid(field, "is empty"));
    }
    if name.len() > ID_MAX_BYTES {
        return Err(Rejection::limit(field, "bytes", ID_MAX_BYTES, name.len()));
    }
    Ok(())
}

/// One metadata value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite number.
    Float(f64),
    /// A text.
    String(String),
    /// A list of texts; a comparison holds when it holds for one of them.
    Strings(Vec<String>),
}

impl Value {
    fn bytes(&self) -> usize {
        match self {
            Self::Bool(_) => 1,
            Self::Int(_) | Self::Float(_) => 8,
            Self::String(text) => text.len(),
            Self::Strings(texts) => texts.iter().map(|text| text.len() + 1).sum(),
        }
    }
}

/// Fields of an item by name.
pub type Metadata = BTreeMap<String, Value>;

/// Checks number and length of fields and that numbers are finite.
///
/// # Errors
/// [`Rejection::Limit`] or [`Rejection::Invalid`] with the field `metadata` or `metadata.NAME`.
pub fn check_metadata(metadata: &Metadata) -> Result<(), Rejection> {
    if metadata.len() > METADATA_MAX_FIELDS {
        return Err(Rejection::limit("metadata", "fields", METADATA_MAX_FIELDS, metadata.len()));
    }
    let mut bytes = 0;
    for (name, value) in metadata {
        if name.is_empty() {
            return Err(Rejection::invalid("metadata", "has a field without a name"));
        }
        if name.len() > METADATA_KEY_MAX_BYTES {
            let actual = name.len();
            return Err(Rejection::limit(
                "metadata",
                "bytes of a field's name",
                METADATA_KEY_MAX_BYTES,
                actual,
            ));
        }
        if matches!(value, Value::Float(number) if !number.is_finite()) {
            return Err(Rejection::invalid(format!("metadata.{name}"), "is not a finite number"));
        }
        bytes += name.len() + value.bytes();
    }
    if bytes > METADATA_MAX_BYTES {
        return Err(Rejection::limit("metadata", "bytes", METADATA_MAX_BYTES, bytes));
    }
    Ok(())
}

/// The vectors of one item or query, per space. Any length of vector but zero; an engine brings
/// them to unit length.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Vectors {
    /// Shared space.
    pub shared: Option<Vec<f32>>,
    /// Exclusive space of the item's modality.
    pub exclusive: Option<Vec<f32>>,
}

impl Vectors {
    /// The vector of one space.
    pub fn get(&self, space: Space) -> Option<&Vec<f32>> {
        match space {
            Space::Shared => self.shared.as_ref(),
            Space::Exclusive => self.exclusive.as_ref(),
        }
    }
}

/// An item to be put. Every space that the collection has for the modality must be given.
#[derive(Debug, Clone, PartialEq)]
pub struct NewItem {
    /// Its name; an item of this name is replaced.
    pub id: ItemId,
    /// Picture or text. A replaced item may change its modality.
    pub modality: Modality,
    /// What it belongs together with; 1 to 256 bytes.
    pub group: Option<String>,
    /// Fields to filter by.
    pub metadata: Metadata,
    /// The picture's bytes, or the text as UTF-8; dropped when the collection keeps no sources.
    pub source: Option<Vec<u8>>,
    /// Its vectors.
    pub vectors: Vectors,
    /// Version that a stored item must have; 0: there must be none; `None`: whatever is there.
    pub expected_version: Option<u64>,
}

/// An item as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its name.
    pub id: ItemId,
    /// Picture or text.
    pub modality: Modality,
    /// What it belongs together with.
    pub group: Option<String>,
    /// Fields.
    pub metadata: Metadata,
    /// The source, when asked for and kept.
    pub source: Option<Vec<u8>>,
    /// Length of the source in bytes; 0 when none is kept.
    pub source_bytes: u64,
    /// Unit vectors, when asked for.
    pub vectors: Vectors,
    /// Grows with every write of the item, unique in the collection, not consecutive.
    pub version: u64,
    /// First put (of this life of the id), milliseconds since 1970-01-01 UTC.
    pub created_at_ms: u64,
    /// Last put, milliseconds since 1970-01-01 UTC.
    pub updated_at_ms: u64,
}

/// Length of the vectors of a collection; `None`: the collection has no such vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dims {
    /// Shared space, the same for pictures and texts.
    pub shared: Option<usize>,
    /// Exclusive space of pictures.
    pub exclusive_image: Option<usize>,
    /// Exclusive space of texts.
    pub exclusive_text: Option<usize>,
}

impl Dims {
    /// Dimensions of one (modality, space).
    pub fn get(&self, modality: Modality, space: Space) -> Option<usize> {
        match (space, modality) {
            (Space::Shared, _) => self.shared,
            (Space::Exclusive, Modality::Image) => self.exclusive_image,
            (Space::Exclusive, Modality::Text) => self.exclusive_text,
        }
    }
}

/// How many bytes a component of a stored vector takes. A vector is rounded once, when it is
/// written; scores are exact for the rounded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum VectorStorage {
    /// Four, as they came.
    #[default]
    F32,
    /// Two: fixed point with a step per vector, off by at most 1/64,000 of the largest component.
    /// Finer than half floats for all but small components.
    I16,
    /// One: fixed point with a step per vector, off by at most 1/253 of the largest component.
    I8,
}

/// What a collection is made with; never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionSpec {
    /// ASCII letters, digits, `.`, `_`, `-`; starts with a letter or digit; 1 to 128 bytes.
    pub name: String,
    /// Digest of what computes its vectors (lower-case hex); `None` when items are put as vectors.
    pub embedding_digest: Option<String>,
    /// Length of its vectors.
    pub dims: Dims,
    /// Whether sources are stored.
    pub keep_source: bool,
    /// A sentence for people; at most 1,024 bytes.
    pub description: String,
    /// How its vectors are stored.
    pub storage: VectorStorage,
    /// Who builds its graphs.
    pub graph: BuilderKind,
}

/// Items per modality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Pictures.
    pub images: u64,
    /// Texts.
    pub texts: u64,
}

impl Counts {
    /// Items of one modality.
    pub fn get(&self, modality: Modality) -> u64 {
        match modality {
            Modality::Image => self.images,
            Modality::Text => self.texts,
        }
    }

    /// All items.
    pub fn total(&self) -> u64 {
        self.images + self.texts
    }
}

/// State of the rows of one (modality, space).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexStatus {
    /// Modality of the rows.
    pub modality: Modality,
    /// Space of the rows.
    pub space: Space,
    /// Rows in memory, with those that ended and were not compacted yet.
    pub rows: usize,
    /// Rows that graphs cover; 0 without one.
    pub graph_rows: usize,
    /// Segments that the rows lie in, beside the newest.
    pub segments: usize,
    /// Rows of segments that ended.
    pub ended: usize,
    /// Rows that the start read from files of segments and not from the store.
    pub rows_from_files: usize,
}

/// A collection as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionInfo {
    /// Tells it from any other that ever had its name; never used again.
    pub number: u32,
    /// What it was made with.
    pub spec: CollectionSpec,
    /// When it was made, milliseconds since 1970-01-01 UTC.
    pub created_at_ms: u64,
    /// Grows with every change of its items.
    pub generation: u64,
    /// Items per modality.
    pub counts: Counts,
    /// Its rows per modality and space; empty where the engine does not tell.
    pub index: Vec<IndexStatus>,
}

impl CollectionSpec {
    /// A collection of vectors that callers put, with everything else as by default: sources are kept.
    pub fn new(name: impl Into<String>, dims: Dims) -> Self {
        Self {
            name: name.into(),
            embedding_digest: None,
            dims,
            keep_source: true,
            description: String::new(),
            storage: VectorStorage::default(),
            graph: BuilderKind::default(),
        }
    }

    /// Checks name, description and dimensions.
    ///
    /// # Errors
    /// [`Rejection`] with the field `name`, `description` or `dims...`.
    pub fn check(&self) -> Result<(), Rejection> {
        check_collection_name("name", &self.name)?;
        if self.description.len() > 1024 {
            return Err(Rejection::limit("description", "bytes", 1024, self.description.len()));
        }
        let dims = [
            ("dims.shared", self.dims.shared),
            ("dims.exclusive_image", self.dims.exclusive_image),
            ("dims.exclusive_text", self.dims.exclusive_text),
        ];
        if dims.iter().all(|(_, dims)| dims.is_none()) {
            return Err(Rejection::invalid("dims", "names no space"));
        }
        for (field, dims) in dims {
            match dims {
                Some(0) => return Err(Rejection::invalid(field, "is 0")),
                Some(dims) if dims > MAX_DIMS => {
                    return Err(Rejection::limit(field, "dimensions", MAX_DIMS, dims));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// ASCII letters, digits, `.`, `_`, `-`; starts with a letter or digit; 1 to 128 bytes.
///
/// # Errors
/// [`Rejection`] with the given field.
pub fn check_collection_name(field: &str, name: &str) -> Result<(), Rejection> {
    if name.len() > COLLECTION_NAME_MAX_BYTES {
        return Err(Rejection::limit(field, "bytes", COLLECTION_NAME_MAX_BYTES, name.len()));
    }
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let all_known = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !starts_well || !all_known {
        let rule =
            "must be ASCII letters, digits, '.', '_' or '-', and start with a letter or digit";
        return Err(Rejection::invalid(field, rule));
    }
    Ok(())
}
