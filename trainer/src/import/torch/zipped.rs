//! A zip file: `NAME/data.pkl`, and a storage in each `NAME/data/KEY`. PyTorch stores without compression, so that no entry can
//! be larger than the file.

use std::fs::File;
use std::io::{BufReader, Read as _};

use zip::{CompressionMethod, ZipArchive};

use super::super::pickle::{self, View};

/// How such a file begins.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";
const PICKLE: &str = "data.pkl";
/// What TorchScript has beside it.
const CONSTANTS: &str = "constants.pkl";

type Result<T> = std::result::Result<T, String>;

/// An open file, and the folder in it.
pub(super) struct Archive {
    zip: ZipArchive<BufReader<File>>,
    root: String,
}

impl Archive {
    pub(super) fn open(file: BufReader<File>) -> Result<Self> {
        let zip = ZipArchive::new(file)
            .map_err(|error| format!("is no zip file that can be read: {error}"))?;
        let names = zip.file_names().filter_map(std::result::Result::ok);
        let names: Vec<String> = names.map(std::borrow::Cow::into_owned).collect();
        if names.iter().any(|name| name.ends_with(CONSTANTS)) {
            let message = "is TorchScript, which is a program; save the weights alone in Python: \
                           torch.save(model.state_dict(), FILE)";
            return Err(message.to_owned());
        }
        let mut roots = names.iter().filter_map(|name| name.strip_suffix(PICKLE));
        let root = match (roots.next(), roots.next()) {
            (Some(root), None) if root.is_empty() || root.ends_with('/') => root.to_owned(),
            _ => {
                return Err(
                    "is a zip file without one data.pkl; is it a file of torch.save?".to_owned()
                );
            }
        };
        let mut archive = Self { zip, root };
        if archive.entry("byteorder", 16).is_ok_and(|order| order != b"little") {
            return Err("has its numbers in big-endian order, which is not read".to_owned());
        }
        Ok(archive)
    }

    /// The pickle.
    pub(super) fn described(&mut self) -> Result<Vec<u8>> {
        self.entry(PICKLE, pickle::LARGEST)
    }

    /// The bytes of a view's storage.
    pub(super) fn storage(&mut self, view: &View) -> Result<Vec<u8>> {
        let bytes = (view.elements * view.kind.size()) as u64;
        let storage = self.entry(&format!("data/{}", view.key), bytes)?;
        if storage.len() as u64 != bytes {
            return Err(format!("its storage has {} bytes, {bytes} were told", storage.len()));
        }
        Ok(storage)
    }

    fn entry(&mut self, name: &str, most: u64) -> Result<Vec<u8>> {
        let name = format!("{}{name}", self.root);
        let mut file =
            self.zip.by_name(&name).map_err(|error| format!("its entry {name}: {error}"))?;
        if file.compression() != CompressionMethod::Stored || file.compressed_size() != file.size()
        {
            return Err(format!("its entry {name} is compressed, which torch.save does not do"));
        }
        if file.size() > most {
            return Err(format!(
                "its entry {name} has {} bytes, at most {most} are read",
                file.size()
            ));
        }
        let mut content = Vec::new();
        let read = file.by_ref().take(most).read_to_end(&mut content);
        read.map_err(|error| format!("its entry {name}: {error}"))?;
        Ok(content)
    }
}
