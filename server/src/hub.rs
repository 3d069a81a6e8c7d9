//! Checkpoints of a Hugging Face hub: `hf:ORG/NAME@REVISION` becomes a folder on disk. The only part of the server that
//! connects to anyone, and only when such a name is given.
//!
//! A revision is resolved to a commit. Only files that serving needs are fetched, never pickle; large ones are compared with the
//! SHA-256 that the hub tells. What was fetched is recorded with its digests and compared at each later start, so that a cache
//! that changed is noticed. A commit that is whole in the cache is served without a request.
//!
//! - `spec`, `settings`: which checkpoint, from where, to where
//! - `client`: the hub's protocol over HTTP
//! - `choose`: which files
//! - `download`: one file; goes on where it broke off
//! - `cache`: the layout on disk, shared with the hub's other clients, and our record
//! - `local`: what the cache has, without a hub

mod cache;
mod choose;
mod client;
mod download;
mod error;
mod local;
mod settings;
mod spec;

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;

pub use self::cache::{Entry, Record};
pub use self::error::{Error, Result};
pub use self::settings::Settings;
pub use self::spec::{PREFIX, Spec};

use self::cache::{Cache, Found};
use self::choose::{LARGEST_LISTING, Listing};
use self::client::{Client, Info};
use self::download::Download;

/// A checkpoint on disk, as it was fetched.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The folder to serve.
    pub folder: PathBuf,
    /// What is in it.
    pub record: Record,
}

/// The folder of a checkpoint, fetched unless the cache has it. Blocks, for as long as the transfer takes.
///
/// # Errors
/// Says what is wrong and what to do: [`enum@Error`].
pub fn fetch(spec: &Spec, settings: &Settings) -> Result<Fetched> {
    let cache = Cache::new(settings.cache()?, spec.repository());
    if let Some(commit) = spec.commit()
        && let Some(fetched) = recorded(&cache, commit, settings, spec)?
    {
        return Ok(fetched);
    }
    if settings.offline {
        return local::open(&cache, spec, settings);
    }
    let client = Client::new(settings)?;
    let info = match client.info(spec.repository(), spec.revision()) {
        Ok(info) => info,
        Err(error @ Error::Unreachable { .. }) => {
            return local::instead(&cache, spec, settings, error);
        }
        Err(error) => return Err(error),
    };
    tell_commit(spec, &info);
    if spec.commit().is_none() {
        cache.set_reference(spec.revision(), &info.commit)?;
        if let Some(fetched) = recorded(&cache, &info.commit, settings, spec)? {
            return Ok(fetched);
        }
    }
    download(&client, &cache, spec, &info)
}

/// What was fetched of a commit before and is as it was. What is not is told, and taken out if it can be fetched again.
fn recorded(
    cache: &Cache,
    commit: &str,
    settings: &Settings,
    spec: &Spec,
) -> Result<Option<Fetched>> {
    let (record, changed) = match cache.check(commit)? {
        Found::Whole(record) => {
            return Ok(Some(Fetched { folder: cache.folder(commit), record }));
        }
        Found::Nothing => return Ok(None),
        Found::Changed(record, changed) => (record, changed),
    };
    for entry in &changed {
        let file = cache.folder(commit).join(&entry.path);
        if settings.offline {
            return Err(Error::Changed { file, spec: spec.to_string() });
        }
        tracing::warn!(
            file = %file.display(),
            repository = record.repository,
            "a file in the cache is not what was fetched; fetching it anew"
        );
    }
    cache.forget(commit, &changed)?;
    Ok(None)
}

/// Fetches every file that is needed, those that others name included, then records them all.
fn download(client: &Client, cache: &Cache, spec: &Spec, info: &Info) -> Result<Fetched> {
    let (repository, commit) = (spec.repository(), info.commit.as_str());
    let files: BTreeSet<&str> = info.files().collect();
    let listing = Listing { repository, commit, files };
    let one = Download { client, cache, repository, commit };
    let folder = cache.folder(commit);
    let entries = gather(&listing, &folder, |file| one.fetch(file))?;
    let record = Record::new(repository, commit, client.endpoint(), entries);
    cache.set_record(&record)?;
    let bytes: u64 = record.files.iter().map(|entry| entry.length).sum();
    tracing::info!(
        repository,
        commit,
        files = record.files.len(),
        bytes,
        "the checkpoint is in the cache"
    );
    Ok(Fetched { folder, record })
}

/// Takes each file that is needed by `take`, which puts it into `folder`.
fn gather(
    listing: &Listing<'_>,
    folder: &std::path::Path,
    take: impl Fn(&str) -> Result<Entry>,
) -> Result<Vec<Entry>> {
    let mut waiting: VecDeque<String> = listing.first()?.into();
    let mut entries: Vec<Entry> = Vec::new();
    while let Some(file) = waiting.pop_front() {
        if entries.iter().any(|entry| entry.path == file) {
            continue;
        }
        let entry = take(&file)?;
        if Listing::lists(&file) {
            if entry.length > LARGEST_LISTING {
                return Err(Error::Listing {
                    file,
                    repository: listing.repository.to_owned(),
                    problem: format!(
                        "it has {} bytes, at most {LARGEST_LISTING} are read",
                        entry.length
                    ),
                });
            }
            let path = folder.join(&file);
            let content = std::fs::read(&path).map_err(Error::io(&path))?;
            waiting.extend(listing.named_by(&file, &content)?);
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn tell_commit(spec: &Spec, info: &Info) {
    let commit = info.commit.as_str();
    if spec.commit().is_some() {
        tracing::info!(%spec, "fetching");
        return;
    }
    let pinned = spec.pinned(commit);
    tracing::warn!(%spec, commit, "this revision may move; write {pinned} to stay with what is served now");
}
