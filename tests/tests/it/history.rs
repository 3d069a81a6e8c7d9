//! Writers whose every step is known, a model of the store that follows from it, and the comparison of the two.
//!
//! A writer owns its ids and groups and waits for each answer, so the state of an id is known but for at most one step, the
//! one under way when the server went away: done or not, as a whole, and nothing else.
//!
//! - `plan`: seeded steps; `call`: a step as a call, and its answer
//! - `model`: what must be there
//! - `check`: every answer of a server against it

mod call;
mod check;
mod model;
mod plan;

use std::path::{Path, PathBuf};

use anyhow::Result;
use diptych_proto::v1;
use diptych_tests::Api;
use diptych_tests::api::{create, create_bare};
use tonic::Status;

pub(crate) use self::call::{Answer, disk_refused, send};
pub(crate) use self::check::{check, listed};
pub(crate) use self::model::{Model, same_content};
pub(crate) use self::plan::{Step, Writer};

/// Items put as vectors: the model knows them, and by that every answer of a search.
pub(crate) const VECTORS: &str = "vectors";
/// Items put as texts and pictures, some large enough for a file of their own in the store.
pub(crate) const THINGS: &str = "things";
/// Of [`VECTORS`]: shared, exclusive of pictures, exclusive of texts.
const DIMS: (u32, u32, u32) = (16, 6, 5);

/// An item's collection and id.
pub(crate) type Key = (&'static str, String);

/// One step of a writer as it was seen from outside, with moments on a clock of the test's choice.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) step: Step,
    pub(crate) sent: u64,
    /// When the answer came, and what it was; `None` when none came.
    pub(crate) answered: Option<(u64, Answer)>,
}

/// The seed of a run: given, or another one each time.
pub(crate) fn seed() -> u64 {
    let given = std::env::var_os("DIPTYCH_SEED").and_then(|seed| seed.to_str()?.parse().ok());
    let seed = given.unwrap_or_else(|| rand::random_range(1..1_000_000));
    println!("DIPTYCH_SEED={seed}");
    seed
}

/// A tiny bundle, so that a start takes no time.
pub(crate) fn bundle(folder: &Path, seed: u64) -> Result<PathBuf> {
    let path = folder.join("bundle");
    diptych_model::testing::tiny_bundle(seed)?.write(&path)?;
    Ok(path)
}

/// Makes both collections.
pub(crate) async fn make_collections(api: &Api) -> Result<(), Status> {
    for request in [create_bare(VECTORS, DIMS), create(THINGS)] {
        api.collections().create_collection(request).await?;
    }
    Ok(())
}

/// Names of the collections that are there.
pub(crate) async fn collections(api: &Api) -> Result<Vec<v1::Collection>, Status> {
    let request = v1::ListCollectionsRequest::default();
    Ok(api.collections().list_collections(request).await?.into_inner().collections)
}
