//! From a trained checkpoint to the bundle that the server loads.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use diptych_model::bundle::{Bundle, BundleBuilder, DataSource, Training as Provenance};

use crate::error::{Error, Result};
use crate::eval::Tables;
use crate::fit::Training;
use crate::shards::{Dataset, Manifest, TextKind, TextRow};

/// Pictures among the golden inputs, spread over the dataset.
const GOLDEN_IMAGES: usize = 6;

/// Concepts whose names, in every language, are among the golden inputs.
const GOLDEN_CONCEPTS: usize = 3;

/// What `export` wrote.
#[derive(Debug)]
pub struct ExportReport {
    /// The bundle's folder.
    pub folder: PathBuf,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Its embedding digest.
    pub embedding_digest: String,
}

impl fmt::Display for ExportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, bytes, embedding_digest } = self;
        write!(f, "{}: {bytes} bytes, embedding digest {embedding_digest}", folder.display())
    }
}

/// Writes the bundle of a trained run, with what `tables` measured, to `to`.
///
/// # Errors
/// If the run's data cannot be read for golden inputs, a weight is not finite, or the disk refuses.
pub fn export(training: &Training, tables: &Tables, to: &Path) -> Result<ExportReport> {
    let run = &training.run;
    let manifest = &training.corpus.manifest;
    let mut builder = BundleBuilder::new(
        run.model.clone(),
        run.preprocessing.image.clone(),
        run.preprocessing.text.clone(),
        training.params.tensors()?,
    );
    builder.name.clone_from(&run.name);
    builder.domain.clone_from(&run.domain);
    // The calibration goes into a file of its own.
    let metrics = serde_json::to_value(Tables { calibration: None, ..tables.clone() });
    builder.training = Provenance {
        data: sources(manifest),
        licence: licences(manifest),
        run_file: run.to_toml()?,
        seed: run.seed,
        metrics: metrics.map_err(|error| Error::setting("metrics", error.to_string()))?,
    };
    let calibrated = tables.calibration.as_ref();
    builder.calibration = calibrated.map(|found| found.calibration.to_json()).transpose()?;
    let dataset = Dataset::open(&run.data.folder)?;
    builder.golden_images = golden_images(&dataset)?;
    builder.golden_texts = golden_texts(&dataset)?;
    ExportReport::write(&builder.build()?, to)
}

impl ExportReport {
    /// Writes a bundle.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn write(bundle: &Bundle, to: &Path) -> Result<Self> {
        bundle.write(to)?;
        Ok(Self {
            folder: to.to_path_buf(),
            bytes: bundle.files().values().map(|content| content.len() as u64).sum(),
            embedding_digest: bundle.embedding_digest().to_owned(),
        })
    }
}

/// `package 1.2.3` split into name and version.
pub(crate) fn sources(manifest: &Manifest) -> Vec<DataSource> {
    let source = |source: &crate::shards::Source| {
        let (name, version) = source.package.rsplit_once(' ').unwrap_or((&source.package, ""));
        let (name, version) = (name.to_owned(), version.to_owned());
        DataSource { name, version, licence: source.licence.clone() }
    };
    manifest.sources.iter().map(source).collect()
}

/// Weights learned from the sources are offered on all their terms together.
pub(crate) fn licences(manifest: &Manifest) -> String {
    let mut licences: Vec<&str> =
        manifest.sources.iter().map(|source| source.licence.as_str()).collect();
    licences.push("Apache-2.0");
    licences.sort_unstable();
    licences.dedup();
    licences.join(" AND ")
}

/// A few pictures as files, spread over the dataset.
pub(crate) fn golden_images(dataset: &Dataset) -> Result<Vec<Vec<u8>>> {
    let count = usize::try_from(dataset.manifest().counts.images).unwrap_or(usize::MAX);
    let stride = (count / GOLDEN_IMAGES).max(1);
    let chosen = dataset.images().step_by(stride).take(GOLDEN_IMAGES);
    chosen.map(|row| Ok(row?.bytes)).collect()
}

/// The names of a few groups, one in each language, spread over the dataset.
pub(crate) fn golden_texts(dataset: &Dataset) -> Result<Vec<String>> {
    let mut names: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for row in dataset.texts() {
        let TextRow { text, lang, kind, group, .. } = row?;
        if kind == TextKind::Name {
            names.entry(group).or_default().entry(lang).or_insert(text);
        }
    }
    let stride = (names.len() / GOLDEN_CONCEPTS).max(1);
    let chosen = names.into_values().skip(stride / 2).step_by(stride).take(GOLDEN_CONCEPTS);
    Ok(chosen.flat_map(BTreeMap::into_values).collect())
}
