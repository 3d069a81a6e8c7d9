//! What must hold for a bundle's files and settings before anything is loaded from them.

use std::collections::BTreeSet;

use super::{
    CALIBRATION, FileEntry, Files, GOLDEN_FOLDER, GOLDEN_VECTORS, MANIFEST, Manifest, Spaces,
    TOKENIZER, WEIGHTS, digest,
};
use crate::bundle::stored::StoredFile;
use crate::error::{Error, Result};
use crate::preprocess::{ImagePreprocessing, TokenizerConfig};

/// Checks that the list, the files and the `weights` beside them agree: each listed file is there with
/// its length and SHA-256, nothing else is, and what every bundle needs is listed.
pub(super) fn files(
    manifest: &Manifest,
    files: &Files,
    weights: Option<&StoredFile>,
) -> Result<()> {
    let mut listed = BTreeSet::from([MANIFEST]);
    for entry in &manifest.files {
        path(&entry.path)?;
        if !listed.insert(&entry.path) {
            return Err(manifest_error(&format!("lists `{}` twice", entry.path)));
        }
        let missing = || damaged(&entry.path, "is missing");
        if entry.path == WEIGHTS {
            let weights = weights.ok_or_else(missing)?;
            same(entry, weights.length, || weights.sha256())?;
        } else {
            let content = files.get(&entry.path).ok_or_else(missing)?;
            same(entry, content.len() as u64, || Ok(digest::sha256(content)))?;
        }
    }
    if let Some(extra) = files.keys().find(|path| !listed.contains(path.as_str())) {
        return Err(manifest_error(&format!("does not list the file `{extra}`")));
    }
    let has_tokenizer = listed.contains(TOKENIZER);
    match manifest.text {
        Some(TokenizerConfig::Huggingface(_)) if !has_tokenizer => {
            Err(damaged(TOKENIZER, "is not listed, but the text tower needs it"))
        }
        Some(TokenizerConfig::HashedNgrams(_)) | None if has_tokenizer => {
            Err(manifest_error("lists `tokenizer.json`, which hashed n-grams do not use"))
        }
        _ => [WEIGHTS, GOLDEN_VECTORS]
            .into_iter()
            .find(|required| !listed.contains(required))
            .map_or(Ok(()), |missing| Err(damaged(missing, "is not listed in bundle.json"))),
    }
}

/// Checks one file's length and SHA-256 against its entry.
fn same(entry: &FileEntry, length: u64, sha256: impl FnOnce() -> Result<String>) -> Result<()> {
    if length != entry.length {
        let wrong = format!("has {length} bytes, bundle.json says {}", entry.length);
        return Err(damaged(&entry.path, &wrong));
    }
    if sha256()? != entry.sha256 {
        return Err(damaged(&entry.path, "does not have the SHA-256 that bundle.json says"));
    }
    Ok(())
}

/// Checks that a listed path stays inside the bundle and is one that a bundle may have.
pub(super) fn path(path: &str) -> Result<()> {
    let plain = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !part.starts_with('.')
    };
    let known = [WEIGHTS, TOKENIZER, CALIBRATION, GOLDEN_VECTORS].contains(&path)
        || path.strip_prefix(GOLDEN_FOLDER).is_some_and(plain);
    if known {
        Ok(())
    } else {
        Err(manifest_error(&format!("lists `{path}`, which no bundle has")))
    }
}

/// Checks that the settings are in range and agree with each other.
pub(super) fn settings(manifest: &Manifest) -> Result<()> {
    towers(manifest).map_err(|wrong| manifest_error(&wrong))?;
    if manifest.spaces != Spaces::of(&manifest.model) {
        return Err(manifest_error("states spaces other than those of its heads"));
    }
    if !(manifest.logit_scale.is_finite() && manifest.logit_scale > 0.0) {
        return Err(manifest_error("has a logit scale that is not positive"));
    }
    if manifest.logit_bias.is_finite() {
        Ok(())
    } else {
        Err(manifest_error("has a logit bias that is not finite"))
    }
}

/// Checks that towers, preprocessing and heads are in range and fit each other; else what is wrong.
pub(super) fn towers(manifest: &Manifest) -> std::result::Result<(), String> {
    let in_range = manifest
        .model
        .validate()
        .and_then(|()| manifest.image.as_ref().map_or(Ok(()), ImagePreprocessing::validate))
        .and_then(|()| manifest.text.as_ref().map_or(Ok(()), TokenizerConfig::validate));
    in_range.map_err(|error| format!("has a setting out of range ({error})"))?;
    match (&manifest.model.image_tower, &manifest.image) {
        (None, None) => {}
        (Some(tower), Some(image)) if tower.size() == image.size as usize => {}
        (Some(tower), Some(image)) => {
            let size = tower.size();
            return Err(format!("gives pictures of {} px to a tower of {size} px", image.size));
        }
        _ => return Err("has an image tower without preprocessing, or the reverse".to_owned()),
    }
    match (&manifest.model.text_tower, &manifest.text) {
        (None, None) => Ok(()),
        (Some(tower), Some(text)) if text.letters() > 0 && !tower.reads_letters() => {
            Err("gives letters to a text tower without a table for them (text_tower.manner)"
                .to_owned())
        }
        (Some(tower), Some(text)) if tower.vocabulary() == text.vocabulary() as usize => Ok(()),
        (Some(tower), Some(text)) => {
            let rows = tower.vocabulary();
            Err(format!("gives {} token ids to a tower of {rows}", text.vocabulary()))
        }
        _ => Err("has a text tower without a tokenizer, or the reverse".to_owned()),
    }
}

/// An error about a listed file: what is wrong, and what to do.
pub(super) fn damaged(path: &str, wrong: &str) -> Error {
    Error::corrupt(path, format!("{wrong}; the bundle is damaged, copy or export it again"))
}

fn manifest_error(wrong: &str) -> Error {
    damaged(MANIFEST, wrong)
}
