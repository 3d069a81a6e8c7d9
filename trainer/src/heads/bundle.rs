//! The bundle that `heads` writes: the checkpoint's towers as they are, heads on top.

use diptych_model::Encoder;
use diptych_model::bundle::{Bundle, BundleBuilder, DataSource, Training as Provenance};
use diptych_model::preprocess::{ImageLimits, decode};
use serde_json::json;

use super::backbone::Backbone;
use super::settings::HeadsSettings;
use super::train::Heads;
use super::{HeadsArgs, Outcome};
use crate::error::{Error, Result};
use crate::eval::Tables;
use crate::export::{self, ExportReport, golden_images, golden_texts, licences, sources};
use crate::import::golden;
use crate::preprocessing::Preprocessing;
use crate::shards::Dataset;

/// What a bundle is made of.
pub(super) struct Parts<'a> {
    pub(super) backbone: &'a Backbone,
    pub(super) heads: &'a Heads<'a>,
    pub(super) settings: &'a HeadsSettings,
    pub(super) preprocessing: &'a Preprocessing,
    pub(super) outcome: &'a Outcome,
    pub(super) tables: &'a Tables,
}

impl Parts<'_> {
    /// Writes the bundle, and opens it as a server would.
    ///
    /// # Errors
    /// If a weight cannot be stored, golden inputs are lacking, or the disk refuses.
    pub(super) fn write(&self, args: &HeadsArgs) -> Result<ExportReport> {
        let Self { backbone, heads, .. } = self;
        let kept = matches!(self.outcome, Outcome::Kept { .. });
        let mut weights = backbone.weights(kept)?;
        let mut trained = heads.params.tensors()?;
        trained.retain(|name, _| !kept || name.contains(".exclusive."));
        weights.extend(trained);
        let (image, text) = (backbone.image().manifest(), backbone.text().manifest());
        let mut builder = BundleBuilder::new(
            backbone.model(heads.config.clone(), kept),
            image.image.clone(),
            text.text.clone(),
            weights,
        );
        builder.name = args.name.clone().unwrap_or_else(|| format!("{}-heads", image.name));
        builder.domain.clone_from(&heads.corpus.manifest.name);
        builder.weight_type = backbone.weight_type();
        // The trained ones come from a contrast that has no bias.
        builder.logit_bias = if kept { image.logit_bias } else { 0.0 };
        builder.tokenizer_json = backbone.text().tokenizer_json().map(<[u8]>::to_vec);
        builder.training = self.provenance()?;
        let calibrated = self.tables.calibration.as_ref();
        builder.calibration = calibrated.map(|found| found.calibration.to_json()).transpose()?;
        let dataset = Dataset::open(&args.data)?;
        builder.golden_images = golden_images(&dataset)?;
        builder.golden_images.retain(|file| {
            let picture = decode(file, &ImageLimits::default());
            picture.is_ok_and(|picture| self.preprocessing.image.apply(&picture).is_ok())
        });
        if builder.golden_images.is_empty() {
            builder.golden_images = golden::pictures()?;
        }
        let fits = |text: &String| self.preprocessing.text.tokenize(text, false).is_ok();
        builder.golden_texts = golden_texts(&dataset)?;
        builder.golden_texts.retain(fits);
        if builder.golden_texts.is_empty() {
            builder.golden_texts = golden::texts();
            builder.golden_texts.retain(fits);
        }
        let report = ExportReport::write(&builder.build()?, &args.to)?;
        Encoder::open(&Bundle::open(&args.to)?)?;
        Ok(report)
    }

    fn provenance(&self) -> Result<Provenance> {
        let manifest = &self.heads.corpus.manifest;
        // The calibration goes into a file of its own.
        let tables = Tables { calibration: None, ..self.tables.clone() };
        let tables = serde_json::to_value(tables);
        let mut training = Provenance {
            data: sources(manifest),
            licence: licences(manifest),
            run_file: self.settings.to_toml()?,
            seed: self.settings.seed,
            metrics: json!({
                "tables": tables.map_err(|error| Error::setting("metrics", error.to_string()))?,
                "shared_vectors": self.outcome,
            }),
        };
        for checkpoint in [self.backbone.image(), self.backbone.text()] {
            export::inherit(&mut training, &origin(checkpoint));
        }
        Ok(training)
    }
}

/// Where a checkpoint comes from; one of others says nothing but its name.
fn origin(checkpoint: &Bundle) -> Provenance {
    let manifest = checkpoint.manifest();
    if checkpoint.has_golden() {
        return manifest.training.clone();
    }
    let licence = "as its source states".to_owned();
    let (name, version) = (manifest.name.clone(), checkpoint.embedding_digest().to_owned());
    let data = vec![DataSource { name, version, licence: licence.clone() }];
    Provenance { data, licence, ..Provenance::default() }
}
