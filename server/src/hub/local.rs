//! What the cache has, when the hub is not asked or does not answer.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{self, Cache, Entry, Record};
use super::choose::Listing;
use super::error::{Error, Result};
use super::settings::Settings;
use super::spec::Spec;
use super::{Fetched, gather, recorded};

/// Deepest folders of a snapshot that are looked into.
const DEPTH: usize = 4;

/// The checkpoint as the cache has it, without a request.
pub(super) fn open(cache: &Cache, spec: &Spec, settings: &Settings) -> Result<Fetched> {
    let lacks = |what: String| Error::Offline {
        cache: settings.cache.clone().unwrap_or_default(),
        what,
        spec: spec.to_string(),
    };
    let commit = spec.commit().map(str::to_owned).or_else(|| cache.reference(spec.revision()));
    let commit = commit.ok_or_else(|| lacks(spec.to_string()))?;
    if let Some(fetched) = recorded(cache, &commit, settings, spec)? {
        return Ok(fetched);
    }
    match of_other_client(cache, spec, &commit) {
        Ok(Some(fetched)) => Ok(fetched),
        Ok(None) => Err(lacks(spec.to_string())),
        // A list of what the cache has, not of what the repository has: fetching would bring it.
        Err(Error::NoFile { file, .. }) => Err(lacks(format!("{file} of {spec}"))),
        Err(Error::NoWeights { .. } | Error::Pickle { .. }) => {
            Err(lacks(format!("the weights of {spec}")))
        }
        Err(other) => Err(other),
    }
}

/// The checkpoint as the cache has it, in place of `error`, which says that the hub gives no answer.
pub(super) fn instead(
    cache: &Cache,
    spec: &Spec,
    settings: &Settings,
    error: Error,
) -> Result<Fetched> {
    let commit = spec.commit().map(str::to_owned).or_else(|| cache.reference(spec.revision()));
    let Some(commit) = commit else { return Err(error) };
    let Some(fetched) = recorded(cache, &commit, settings, spec)? else { return Err(error) };
    tracing::warn!(%spec, commit, %error, "the hub gives no answer; serving what the cache has");
    Ok(fetched)
}

/// A snapshot that another client of the hub fetched: verified as far as names of contents are digests, and recorded.
fn of_other_client(cache: &Cache, spec: &Spec, commit: &str) -> Result<Option<Fetched>> {
    let snapshot = cache.snapshot(commit);
    let mut found = Vec::new();
    walk(&snapshot, &mut PathBuf::new(), &mut found);
    if found.is_empty() {
        return Ok(None);
    }
    let files: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    let listing = Listing { repository: spec.repository(), commit, files };
    let folder = cache.folder(commit);
    let entries = gather(&listing, &folder, |file| take(cache, spec, commit, file))?;
    let record = Record::new(spec.repository(), commit, "", entries);
    cache.set_record(&record)?;
    Ok(Some(Fetched { folder, record }))
}

fn take(cache: &Cache, spec: &Spec, commit: &str, file: &str) -> Result<Entry> {
    let path = cache.snapshot(commit).join(file);
    let blob = path.canonicalize().map_err(Error::io(&path))?;
    let length = fs::metadata(&blob).map_err(Error::io(&blob))?.len();
    let sha256 = cache::digest(&blob)?;
    let etag = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_digest = etag.len() == sha256.len() && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest && etag != sha256 {
        return Err(Error::Changed { file: path, spec: spec.to_string() });
    }
    cache.name(commit, file, &blob)?;
    Ok(Entry { path: file.to_owned(), length, sha256, etag })
}

/// Files below `root` by their path in it, with `/` between folders. What cannot be read is not there.
fn walk(root: &Path, below: &mut PathBuf, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(root.join(&below)) else { return };
    for entry in entries.flatten() {
        below.push(entry.file_name());
        match fs::metadata(root.join(&below)) {
            Ok(data) if data.is_file() => found.extend(below.to_str().map(str::to_owned)),
            Ok(data) if data.is_dir() && below.components().count() < DEPTH => {
                walk(root, below, found);
            }
            _ => {}
        }
        below.pop();
    }
}
