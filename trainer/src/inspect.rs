//! `inspect`: what a bundle says of itself, and whether it holds.

use std::fmt;
use std::path::Path;

use diptych_model::bundle::{Bundle, Manifest};
use diptych_model::{Encoder, Modality, Space};
use serde::Serialize;

use crate::error::Result;

/// What a bundle says of itself, and whether it holds.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// SHA-256 over what determines vectors; collections record it.
    pub embedding_digest: String,
    /// SHA-256 over every file.
    pub bundle_digest: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// Weights, as numbers.
    pub parameters: usize,
    /// Whether the weights fit the networks and give the golden vectors, or what is wrong.
    pub golden: Golden,
    /// Whether scores can be told as probabilities.
    pub calibrated: bool,
    /// `bundle.json`, whole.
    pub manifest: Manifest,
}

/// What became of the golden inputs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Golden {
    /// They give the vectors that they must give.
    Reproduced,
    /// A checkpoint of others has none.
    Absent,
    /// They do not, or the weights do not fit: why.
    Failed(String),
}

/// Opens a bundle and checks it as a server would.
///
/// # Errors
/// If it is no bundle, or a file of it is damaged.
pub fn inspect(folder: &Path) -> Result<Inspection> {
    let bundle = Bundle::open(folder)?;
    Ok(Inspection {
        embedding_digest: bundle.embedding_digest().to_owned(),
        bundle_digest: bundle.bundle_digest().to_owned(),
        bytes: bundle.bytes(),
        parameters: bundle.parameters(),
        golden: match Encoder::open(&bundle) {
            Ok(encoder) if !encoder.proved() => Golden::Absent,
            Ok(_) => Golden::Reproduced,
            Err(error) => Golden::Failed(error.to_string()),
        },
        calibrated: bundle.calibration().is_some(),
        manifest: bundle.manifest().clone(),
    })
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manifest = &self.manifest;
        writeln!(f, "{} (domain: {})", manifest.name, manifest.domain)?;
        writeln!(f, "embedding digest {}", self.embedding_digest)?;
        writeln!(f, "bundle digest    {}", self.bundle_digest)?;
        let files = manifest.files.len() + 1;
        writeln!(f, "{} weights, {} bytes in {files} files", self.parameters, self.bytes)?;
        for (modality, space) in [
            (Modality::Image, Space::Shared),
            (Modality::Image, Space::Exclusive),
            (Modality::Text, Space::Exclusive),
        ] {
            let Some(info) = manifest.spaces.get(modality, space) else { continue };
            let name = match (modality, space) {
                (_, Space::Shared) => "shared",
                (Modality::Image, Space::Exclusive) => "exclusive of pictures",
                (Modality::Text, Space::Exclusive) => "exclusive of texts",
            };
            writeln!(f, "space {name}: {} dimensions, prefixes {:?}", info.dims, info.prefixes)?;
        }
        match &manifest.image {
            Some(image) => writeln!(f, "pictures: {} x {0}, {:?}", image.size, image.fit)?,
            None => writeln!(f, "pictures: none, this bundle has no image tower")?,
        }
        match &manifest.text {
            Some(text) => {
                let (ids, bytes) = (text.vocabulary(), text.max_bytes());
                writeln!(f, "texts: {ids} token ids, up to {bytes} bytes")?;
            }
            None => writeln!(f, "texts: none, this bundle has no text tower")?,
        }
        writeln!(f, "logit scale {}, bias {}", manifest.logit_scale, manifest.logit_bias)?;
        for source in &manifest.training.data {
            writeln!(f, "trained on {} {} ({})", source.name, source.version, source.licence)?;
        }
        writeln!(f, "licence of the weights: {}", manifest.training.licence)?;
        writeln!(f, "calibrated: {}", if self.calibrated { "yes" } else { "no" })?;
        match &self.golden {
            Golden::Reproduced => write!(f, "golden inputs: reproduced"),
            Golden::Absent => write!(f, "golden inputs: none, this is a checkpoint of others"),
            Golden::Failed(why) => write!(f, "golden inputs: FAILED: {why}"),
        }
    }
}
