//! Golden inputs: what a bundle must reproduce to be served.

use std::borrow::Cow;
use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::verify::damaged;
use super::{Files, GOLDEN_FOLDER, GOLDEN_VECTORS, Manifest, WeightType, weights};
use crate::config::{Modality, Space};
use crate::error::{Error, Result};
use crate::infer::{Networks, Vectors};
use crate::preprocess::ImageLimits;
use crate::preprocess::image::{ImageFormat, sniff};

/// Least cosine between a golden vector and the one computed here. Rounding on another processor
/// stays within 1e-6; a wrong filter, weight or tokenizer does not come close.
pub const LEAST_COSINE: f32 = 1.0 - 1e-4;

/// An input of a bundle and the vectors that it must give.
#[derive(Clone, Debug)]
pub struct GoldenInput {
    /// Its path in the bundle, such as `golden/text-000.txt`.
    pub name: String,
    /// Picture or text.
    pub modality: Modality,
    /// The picture file, or the text in UTF-8.
    pub bytes: Cow<'static, [u8]>,
    /// The golden vectors.
    pub vectors: Vectors,
}

impl GoldenInput {
    /// The cosine of the golden vectors with those computed now, -1 to 1: of the shared or of the exclusive ones, whichever
    /// is smaller. Not a number when they are not of one length.
    #[must_use]
    pub fn cosine(&self, got: &Vectors) -> f32 {
        let shared = cosine(&self.vectors.shared, &got.shared);
        let exclusive = match (&self.vectors.exclusive, &got.exclusive) {
            (Some(expected), Some(got)) => cosine(expected, got),
            (None, None) => shared,
            _ => f32::NAN,
        };
        // `min` would pass over what is not a number.
        if shared.is_nan() || shared < exclusive { shared } else { exclusive }
    }
}

/// Inputs as bytes by their path in the bundle, and the vectors they give, in the order of paths.
#[derive(Debug, Default)]
pub(crate) struct Golden {
    images: BTreeMap<String, Cow<'static, [u8]>>,
    texts: BTreeMap<String, Cow<'static, [u8]>>,
    image_vectors: Vec<Vectors>,
    text_vectors: Vec<Vectors>,
}

impl Golden {
    /// Computes the vectors of these inputs.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no picture, no text or more than 1,000 of one; what
    /// encoding answers for an input that cannot be encoded.
    pub(super) fn compute(
        networks: &Networks,
        images: &[Vec<u8>],
        texts: &[String],
    ) -> Result<Self> {
        for (field, count, modality) in [
            ("golden images", images.len(), Modality::Image),
            ("golden texts", texts.len(), Modality::Text),
        ] {
            let allowed = if networks.has(modality) { 1..=1000 } else { 0..=0 };
            if !allowed.contains(&count) {
                let (least, most) = allowed.into_inner();
                let message = format!("are {count}, must be {least} to {most}");
                return Err(Error::invalid(field, message));
            }
        }
        let images = images.iter().enumerate().map(|(number, bytes)| {
            let path = format!("{GOLDEN_FOLDER}image-{number:03}.{}", extension(bytes));
            (path, Cow::Owned(bytes.clone()))
        });
        let texts = texts.iter().enumerate().map(|(number, text)| {
            let path = format!("{GOLDEN_FOLDER}text-{number:03}.txt");
            (path, Cow::Owned(text.clone().into_bytes()))
        });
        let mut golden =
            Self { images: images.collect(), texts: texts.collect(), ..Self::default() };
        (golden.image_vectors, golden.text_vectors) = golden.encode(networks)?;
        Ok(golden)
    }

    /// The files that hold all of this.
    pub(super) fn to_files(&self) -> Result<Files> {
        let mut tensors = BTreeMap::new();
        for (kind, vectors) in [("image", &self.image_vectors), ("text", &self.text_vectors)] {
            if vectors.is_empty() {
                continue;
            }
            let shared: Vec<&[f32]> = vectors.iter().map(|each| each.shared.as_slice()).collect();
            tensors.insert(format!("{kind}.shared"), rows(&shared)?);
            let exclusive: Vec<&[f32]> =
                vectors.iter().filter_map(|each| each.exclusive.as_deref()).collect();
            if !exclusive.is_empty() {
                tensors.insert(format!("{kind}.exclusive"), rows(&exclusive)?);
            }
        }
        let vectors = weights::encode(&tensors, WeightType::F32)?;
        let mut files = self.images.clone();
        files.extend(self.texts.clone());
        files.insert(GOLDEN_VECTORS.to_owned(), Cow::Owned(vectors));
        Ok(files)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when inputs and vectors do not match in number.
    pub(super) fn from_files(files: &Files, manifest: &Manifest) -> Result<Self> {
        let Manifest { model, spaces, .. } = manifest;
        let inputs = |kind: &str| -> BTreeMap<_, _> {
            let prefix = format!("{GOLDEN_FOLDER}{kind}-");
            let named = files.iter().filter(|(path, _)| path.starts_with(&prefix));
            named.map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
        };
        let tensors = weights::decode(GOLDEN_VECTORS, &files[GOLDEN_VECTORS])?;
        let vectors = |modality: Modality, count: usize| -> Result<Vec<Vectors>> {
            let kind = match modality {
                Modality::Image => "image",
                Modality::Text => "text",
            };
            if count == 0 {
                return Ok(Vec::new());
            }
            let shared = unrolled(&tensors, &format!("{kind}.shared"), count)?;
            let exclusive = match spaces.get(modality, Space::Exclusive) {
                None => vec![None; count],
                Some(_) => {
                    let rows = unrolled(&tensors, &format!("{kind}.exclusive"), count)?;
                    rows.into_iter().map(Some).collect()
                }
            };
            let pairs = shared.into_iter().zip(exclusive);
            Ok(pairs.map(|(shared, exclusive)| Vectors { shared, exclusive }).collect())
        };
        let (images, texts) = (inputs("image"), inputs("text"));
        let lacks = |modality, inputs: &BTreeMap<_, _>| model.has(modality) == inputs.is_empty();
        if lacks(Modality::Image, &images) || lacks(Modality::Text, &texts) {
            return Err(damaged(GOLDEN_FOLDER, "lacks golden pictures or golden texts"));
        }
        let image_vectors = vectors(Modality::Image, images.len())?;
        let text_vectors = vectors(Modality::Text, texts.len())?;
        Ok(Self { images, texts, image_vectors, text_vectors })
    }

    /// Each input with its vectors: pictures, then texts, each in the order of paths.
    pub(super) fn into_inputs(self) -> Vec<GoldenInput> {
        let kinds = [
            (Modality::Image, self.images, self.image_vectors),
            (Modality::Text, self.texts, self.text_vectors),
        ];
        let inputs = kinds.into_iter().flat_map(|(modality, inputs, vectors)| {
            inputs.into_iter().zip(vectors).map(move |((name, bytes), vectors)| GoldenInput {
                name,
                modality,
                bytes,
                vectors,
            })
        });
        inputs.collect()
    }

    /// Embeds the inputs and compares.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the first input that cannot be encoded or gives another vector.
    pub(crate) fn check(&self, networks: &Networks) -> Result<()> {
        let (images, texts) = self
            .encode(networks)
            .map_err(|error| damaged(GOLDEN_FOLDER, &format!("cannot be encoded ({error})")))?;
        let paths = self.images.keys().chain(self.texts.keys());
        let expected = self.image_vectors.iter().chain(&self.text_vectors);
        for ((path, expected), got) in paths.zip(expected).zip(images.iter().chain(&texts)) {
            let shared = ("shared", expected.shared.as_slice(), got.shared.as_slice());
            let exclusive = expected.exclusive.as_deref();
            let exclusive = exclusive.map(|exclusive| {
                ("exclusive", exclusive, got.exclusive.as_deref().unwrap_or_default())
            });
            for (space, expected, got) in std::iter::once(shared).chain(exclusive) {
                let cosine = cosine(expected, got);
                if cosine.is_nan() || cosine < LEAST_COSINE {
                    let wrong = format!(
                        "does not give its golden {space} vector: the cosine is {cosine}, at \
                         least {LEAST_COSINE} is needed"
                    );
                    return Err(damaged(path, &wrong));
                }
            }
        }
        Ok(())
    }

    fn encode(&self, networks: &Networks) -> Result<(Vec<Vectors>, Vec<Vectors>)> {
        let limits = ImageLimits::default();
        let images: Vec<_> = self
            .images
            .values()
            .map(|bytes| networks.prepare_image(bytes, &limits))
            .collect::<Result<_>>()?;
        let texts: Vec<_> = self
            .texts
            .iter()
            .map(|(path, bytes)| {
                let text = std::str::from_utf8(bytes)
                    .map_err(|_| damaged(path, "is not text in UTF-8"))?;
                networks.prepare_text(text, false)
            })
            .collect::<Result<_>>()?;
        Ok((networks.encode_images(&images)?, networks.encode_texts(&texts)?))
    }
}

fn extension(bytes: &[u8]) -> &'static str {
    match sniff(bytes) {
        Some(ImageFormat::Jpeg) => "jpg",
        Some(ImageFormat::Png) => "png",
        Some(ImageFormat::WebP) => "webp",
        Some(ImageFormat::Gif) => "gif",
        None => "bin",
    }
}

/// Vectors of one length as a tensor, (n, dims).
fn rows(vectors: &[&[f32]]) -> Result<Tensor> {
    let dims = vectors.first().map_or(0, |vector| vector.len());
    Ok(Tensor::from_vec(vectors.concat(), (vectors.len(), dims), &Device::Cpu)?)
}

/// The rows of the tensor `name`, which must be `count`.
fn unrolled(tensors: &BTreeMap<String, Tensor>, name: &str, count: usize) -> Result<Vec<Vec<f32>>> {
    let rows = tensors.get(name).and_then(|tensor| tensor.to_vec2::<f32>().ok());
    rows.filter(|rows| rows.len() == count).ok_or_else(|| {
        damaged(GOLDEN_VECTORS, &format!("has no tensor `{name}` with {count} rows"))
    })
}

/// Cosine of two unit vectors; not a number when their lengths differ.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::NAN;
    }
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
