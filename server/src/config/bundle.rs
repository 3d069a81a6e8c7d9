//! Where a bundle comes from.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::hub::{self, Spec};

/// A folder, or a checkpoint of a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleSource {
    /// A folder that is there.
    Folder(PathBuf),
    /// What becomes a folder when the server starts.
    Hub(Spec),
}

impl fmt::Display for BundleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Hub(spec) => write!(f, "{spec}"),
        }
    }
}

impl BundleSource {
    /// What was written, or the sentence that refuses it.
    pub(super) fn read(given: PathBuf) -> Result<Self, String> {
        if given.as_os_str().is_empty() {
            return Err("bundle is empty, must be a path".to_owned());
        }
        if let Some(text) = given.to_str().filter(|text| text.starts_with(hub::PREFIX)) {
            return text
                .parse()
                .map(Self::Hub)
                .map_err(|error: hub::Error| format!("bundle: {error}"));
        }
        // A checkpoint in Hugging Face layout is told by its config.json.
        if !["bundle.json", "config.json"].iter().any(|name| given.join(name).is_file()) {
            let given = given.display();
            return Err(format!(
                "bundle is {given}: must be a folder with a bundle.json in it, or a checkpoint's config.json"
            ));
        }
        Ok(Self::Folder(given))
    }

    /// The folder; fetched first if it is a hub's. Blocks.
    pub(crate) fn folder(&self, settings: &hub::Settings) -> hub::Result<PathBuf> {
        match self {
            Self::Folder(folder) => Ok(folder.clone()),
            Self::Hub(spec) => Ok(hub::fetch(spec, settings)?.folder),
        }
    }
}

/// Splits a variable as others that hold paths; the `:` of `hf:` does not part.
pub(super) fn split(list: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<PathBuf> = Vec::new();
    for part in std::env::split_paths(list) {
        match parts.last_mut() {
            Some(last) if last.as_os_str() == "hf" => {
                let mut whole = std::ffi::OsString::from(hub::PREFIX);
                whole.push(&part);
                *last = whole.into();
            }
            _ => parts.push(part),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_of_a_hub_stands_where_a_folder_could() {
        let read = BundleSource::read("hf:org/name@main".into()).unwrap();
        assert_eq!(read.to_string(), "hf:org/name@main");
        let told = BundleSource::read("hf:org/name@".into()).unwrap_err();
        assert!(told.contains("hf:ORG/NAME@REVISION"), "{told}");
    }

    #[test]
    fn a_variable_with_several_bundles_keeps_their_names_whole() {
        let split = split(Path::new("/a/b:hf:org/name@v1:c:hf:x"));
        assert_eq!(split, ["/a/b", "hf:org/name@v1", "c", "hf:x"].map(PathBuf::from));
    }
}
