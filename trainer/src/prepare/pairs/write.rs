//! The dataset from what was gathered.

use sha2::{Digest, Sha256};

use super::super::Report;
use super::super::table::quoted;
use super::gather::Splits;
use super::{Gathered, PairArgs};
use crate::error::{Error, Result};
use crate::shards::{DatasetWriter, ImageRow, Source, TextRow};

/// Where a dataset comes from, for its manifest.
#[derive(Debug)]
pub(in crate::prepare) struct Origin {
    /// What the source is, as in `captions.jsonl`.
    pub(in crate::prepare) source: String,
    /// Columns that were not read.
    pub(in crate::prepare) ignored: Vec<String>,
}

impl Gathered {
    /// Draws the splits and writes the dataset. `file` gives the bytes of each picture once more, in
    /// order; only one of them is held at a time, beside the writer's row group.
    ///
    /// # Errors
    /// When nothing is left to write, groups are too few, a picture changed since it was looked at,
    /// or the disk refuses the result.
    pub(in crate::prepare) fn write(
        self,
        args: &PairArgs,
        origin: &Origin,
        mut file: impl FnMut(usize, &str) -> Result<Vec<u8>>,
    ) -> Result<Report> {
        if self.pictures.is_empty() {
            let message = match self.skipped.first() {
                None => "holds no rows".to_owned(),
                Some((place, fault)) => format!(
                    "none of its rows can be used: {} skipped, the first being {place}: {fault}",
                    self.skipped.len()
                ),
            };
            return Err(Error::data(&origin.source, message));
        }
        let splits =
            self.splits(&args.shares()?).map_err(|message| Error::data(&origin.source, message))?;
        let labels: Vec<&str> = self.labels.iter().map(String::as_str).collect();
        let mut writer = DatasetWriter::create(&args.out, &args.dataset_name(), &labels)?;
        writer.add_source(Source {
            gives: "pictures and captions".to_owned(),
            package: origin.source.clone(),
            licence: args.licence.clone(),
            author: String::new(),
        });
        for note in self.notes(origin, &splits) {
            writer.note(note);
        }
        for (place, fault) in &self.skipped {
            writer.skip(place.to_string(), fault.to_string());
        }
        for (number, picture) in self.pictures.into_iter().enumerate() {
            let bytes = file(number, &picture.name)?;
            if <[u8; 32]>::from(Sha256::digest(&bytes)) != picture.digest {
                return Err(Error::data(picture.name, "changed while it was prepared"));
            }
            writer.push_image(ImageRow {
                bytes,
                path: picture.name,
                group: self.groups[picture.group].name.clone(),
                split: splits.of_group[picture.group],
                labels: picture.labels,
            })?;
        }
        for text in self.texts {
            writer.push_text(TextRow {
                text: text.text,
                lang: text.lang,
                kind: text.kind,
                group: self.groups[text.group].name.clone(),
                split: splits.of_group[text.group],
            })?;
        }
        Ok(Report { folder: args.out.clone(), manifest: writer.finish()? })
    }

    /// What the manifest and the report say beside the counts.
    fn notes(&self, origin: &Origin, splits: &Splits) -> Vec<String> {
        let mut notes = Vec::new();
        if !origin.ignored.is_empty() {
            let ignored: Vec<String> = origin.ignored.iter().map(|name| quoted(name)).collect();
            notes.push(format!("columns not read: {}", ignored.join(", ")));
        }
        let counts = [
            ("texts that their group has already", self.repeated),
            ("groups kept in one split because they share a picture", splits.joined as u64),
            ("equal pictures in two splits, as the source has them", splits.torn as u64),
        ];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        notes.extend(counts.map(|(what, count)| format!("{what}: {count}")));
        notes
    }
}
