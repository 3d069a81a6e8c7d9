//! From a trained checkpoint to the bundle that the server loads.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use diptych_model::bundle::{Bundle, BundleBuilder, DataSource, Training as Provenance};
use diptych_model::{Modality, Space};

use crate::error::{Error, Result};
use crate::eval::Tables;
use crate::eval::probe::Accuracy;
use crate::fit::Training;
use crate::import;
use crate::run_file::LeakLimit;
use crate::shards::{Dataset, Manifest, TextKind, TextRow};

/// Pictures among the golden inputs, spread over the dataset.
const GOLDEN_IMAGES: usize = 6;

/// Concepts whose names, in every language, are among the golden inputs.
const GOLDEN_CONCEPTS: usize = 3;

/// The factor of a limit that is no factor: what fitted maps find by exclusive vectors.
const RETRIEVAL: &str = "retrieval";

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

/// Checks what the probes of `tables` read against the limits of a run file.
///
/// # Errors
/// [`Error::Leaks`] naming every limit that is exceeded, [`Error::Setting`] for one on what was not
/// measured.
pub fn check_leaks(limits: &[LeakLimit], tables: &Tables) -> Result<()> {
    let mut exceeded = Vec::new();
    for limit in limits {
        let LeakLimit { modality, space, factor, most } = limit;
        let modality = match modality {
            Modality::Image => "image",
            Modality::Text => "text",
        };
        let Leak { read, chance } = leak(limit, tables).ok_or_else(|| {
            let message =
                format!("the data has no `{factor}` that probes could read of {modality}s");
            Error::setting("export.limits.factor", message)
        })?;
        let space = match space {
            Space::Shared => "shared",
            Space::Exclusive => "exclusive",
        };
        if read > *most {
            exceeded.push(format!(
                "`{factor}` is read from {space} {modality} vectors at {read:.3}, more than {most} \
                 (chance {chance:.3})"
            ));
        }
    }
    if exceeded.is_empty() { Ok(()) } else { Err(Error::Leaks(exceeded.join("; "))) }
}

/// What was read of a factor, and what chance would read.
struct Leak {
    read: f64,
    chance: f64,
}

/// The better of two probes, or of two fitted maps, on what a limit is about; `None` if it was not
/// measured.
fn leak(limit: &LeakLimit, tables: &Tables) -> Option<Leak> {
    let LeakLimit { modality, space, factor, .. } = limit;
    let of_modality = |name: &str| (name == "image") == (*modality == Modality::Image);
    let better = |shared: Accuracy, exclusive: Accuracy| {
        let Accuracy { linear, mlp } = match space {
            Space::Shared => shared,
            Space::Exclusive => exclusive,
        };
        linear.max(mlp)
    };
    if factor == RETRIEVAL && *space == Space::Exclusive {
        let found = tables.exclusive_retrieval.as_ref()?;
        let found = match modality {
            Modality::Image => &found.picture_to_text,
            Modality::Text => &found.text_to_picture,
        };
        let read = found.ridge.at_1.max(found.random_features.at_1);
        return Some(Leak { read, chance: found.chance.at_1 });
    }
    let mut classes = tables.probes.iter();
    if let Some(found) = classes.find(|r| of_modality(&r.modality) && r.factor == *factor) {
        return Some(Leak { read: better(found.shared, found.exclusive), chance: found.chance });
    }
    let mut numbers = tables.numbers.iter();
    let found = numbers.find(|r| of_modality(&r.modality) && r.factor == *factor)?;
    Some(Leak { read: better(found.shared, found.exclusive), chance: 0.0 })
}

/// Writes the bundle of a trained run, with what `tables` measured, to `to`.
///
/// # Errors
/// If the run's data cannot be read for golden inputs, a weight is not finite, or the disk refuses.
pub fn export(training: &Training, tables: &Tables, to: &Path) -> Result<ExportReport> {
    let run = &training.run;
    let manifest = &training.corpus.manifest;
    if training.encoder.pairs_pictures() {
        let message = "pairs pictures with pictures: a bundle holds pictures and texts";
        return Err(Error::setting("model.counterpart_tower", message));
    }
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
    if let Some(earlier) = &run.initial_weights {
        inherit(&mut builder.training, &import::provenance(earlier)?);
    }
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
            bytes: bundle.bytes(),
            embedding_digest: bundle.embedding_digest().to_owned(),
        })
    }
}

/// Adds the data and licences of weights that these were made from.
pub(crate) fn inherit(own: &mut Provenance, earlier: &Provenance) {
    for source in &earlier.data {
        if !own.data.contains(source) {
            own.data.push(source.clone());
        }
    }
    let both = [&own.licence[..], &earlier.licence].join(" AND ");
    let mut licences: Vec<&str> = both.split(" AND ").filter(|name| !name.is_empty()).collect();
    licences.sort_unstable();
    licences.dedup();
    own.licence = licences.join(" AND ");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::exclusive::{Cuts, ExclusiveRetrieval, Found};
    use crate::eval::probe::{NumberReading, Reading};

    /// Style is read at 0.9 from the shared vectors of pictures, at chance from the exclusive ones.
    fn tables() -> Tables {
        let reading = Reading {
            modality: "image".to_owned(),
            factor: "style".to_owned(),
            chance: 0.33,
            shared: Accuracy { linear: 0.7, mlp: 0.9 },
            exclusive: Accuracy { linear: 0.33, mlp: 0.33 },
            ..Reading::default()
        };
        Tables { probes: vec![reading], ..Tables::default() }
    }

    fn limit(space: Space, factor: &str, most: f64) -> LeakLimit {
        LeakLimit { modality: Modality::Image, space, factor: factor.to_owned(), most }
    }

    #[test]
    fn the_better_probe_counts_against_a_limit() {
        let allowed = [limit(Space::Shared, "style", 0.9), limit(Space::Exclusive, "style", 0.5)];
        check_leaks(&allowed, &tables()).unwrap();
        let error = check_leaks(&[limit(Space::Shared, "style", 0.8)], &tables()).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("`style` is read from shared image vectors at 0.900"),
            "{message}"
        );
    }

    #[test]
    fn numbers_and_fitted_maps_have_limits_too() {
        let number = NumberReading {
            modality: "image".to_owned(),
            factor: "colour".to_owned(),
            shared: Accuracy { linear: 0.1, mlp: 0.3 },
            exclusive: Accuracy { linear: 0.9, mlp: 0.9 },
            ..NumberReading::default()
        };
        let cuts = |at_1| Cuts { at_1, at_10: 1.0 };
        let found = |ridge, random_features| Found {
            ridge: cuts(ridge),
            random_features: cuts(random_features),
            ..Found::default()
        };
        let maps = ExclusiveRetrieval {
            picture_to_text: found(0.02, 0.05),
            text_to_picture: found(0.01, 0.01),
            ..ExclusiveRetrieval::default()
        };
        let tables = Tables { numbers: vec![number], exclusive_retrieval: Some(maps), ..tables() };
        let exceeds =
            |space, factor, most| check_leaks(&[limit(space, factor, most)], &tables).is_err();
        assert!(!exceeds(Space::Shared, "colour", 0.3) && exceeds(Space::Shared, "colour", 0.2));
        assert!(!exceeds(Space::Exclusive, "retrieval", 0.05));
        assert!(exceeds(Space::Exclusive, "retrieval", 0.04));
        // Of shared vectors it is no leak.
        assert!(exceeds(Space::Shared, "retrieval", 1.0));
    }

    #[test]
    fn a_limit_on_what_was_not_measured_is_refused_by_name() {
        let error = check_leaks(&[limit(Space::Shared, "mood", 0.8)], &tables()).unwrap_err();
        assert!(error.to_string().contains("mood"), "{error}");
    }

    #[test]
    fn weights_made_from_others_carry_their_data_and_licences() {
        let of = |name: &str, licence: &str| Provenance {
            data: vec![DataSource {
                name: name.to_owned(),
                version: String::new(),
                licence: licence.to_owned(),
            }],
            licence: format!("Apache-2.0 AND {licence}"),
            ..Provenance::default()
        };
        let mut own = of("stamps", "GPL-2.0-or-later");
        inherit(&mut own, &of("noto", "MIT"));
        inherit(&mut own, &of("noto", "MIT"));
        assert_eq!(own.licence, "Apache-2.0 AND GPL-2.0-or-later AND MIT");
        assert_eq!(own.data.len(), 2);
    }
}
