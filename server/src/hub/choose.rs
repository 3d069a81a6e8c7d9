//! Which files of a repository are fetched: what a bundle lists, or what a checkpoint in Hugging Face layout is read from.
//! Pickle never is.

use std::collections::BTreeSet;

use serde_json::Value;

use super::error::{Error, Result};

const BUNDLE: &str = "bundle.json";
const MODULES: &str = "modules.json";
const WEIGHTS: &str = "model.safetensors";
const SHARD_INDEX: &str = "model.safetensors.index.json";

/// Files beside the weights that say how inputs are prepared and what the networks are.
const SETTINGS: [&str; 14] = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];
/// Ends of the names of weights that only a program that may be told anything would read.
const PICKLES: [&str; 5] = [".bin", ".pt", ".pth", ".ckpt", ".pkl"];
/// Most bytes of a file that lists others.
pub(super) const LARGEST_LISTING: u64 = 16 << 20;

/// A repository at one commit, so far as choosing goes.
#[derive(Debug)]
pub(super) struct Listing<'a> {
    pub(super) repository: &'a str,
    pub(super) commit: &'a str,
    /// Every file, by its path in the repository.
    pub(super) files: BTreeSet<&'a str>,
}

impl Listing<'_> {
    /// What is fetched for a start; [`Listing::named_by`] adds what those name.
    ///
    /// # Errors
    /// When there are no weights that could be served.
    pub(super) fn first(&self) -> Result<Vec<String>> {
        if self.has(BUNDLE) {
            return Ok(vec![BUNDLE.to_owned()]);
        }
        let weights = [WEIGHTS, SHARD_INDEX].into_iter().find(|name| self.has(name));
        let weights = weights.ok_or_else(|| self.no_weights())?;
        let names = SETTINGS.into_iter().chain([MODULES]).filter(|name| self.has(name));
        Ok(names.chain([weights]).map(str::to_owned).collect())
    }

    /// Whether `file` lists others, so that its content is asked for.
    pub(super) fn lists(file: &str) -> bool {
        [BUNDLE, MODULES, SHARD_INDEX].contains(&file)
    }

    /// The files that `file` names by its content.
    ///
    /// # Errors
    /// When it is not what it should be, names what no file may be named, or what is not there.
    pub(super) fn named_by(&self, file: &str, content: &[u8]) -> Result<Vec<String>> {
        let refused = |problem: String| Error::Listing {
            file: file.to_owned(),
            repository: self.repository.to_owned(),
            problem,
        };
        let value: Value =
            serde_json::from_slice(content).map_err(|error| refused(error.to_string()))?;
        if file == MODULES {
            return Ok(self.modules(&value));
        }
        let (named, because) = if file == BUNDLE {
            (paths(&value["files"], "path"), "its bundle.json lists")
        } else {
            (shards(&value["weight_map"]), "the index of its weights names")
        };
        let named = named.ok_or_else(|| refused("it lists no files".to_owned()))?;
        for name in &named {
            if !is_safe(name) || is_pickle(name) {
                return Err(refused(format!(
                    "it names {name:?}, which is no path of a file of it"
                )));
            }
            if !self.has(name) {
                return Err(self.lacks(name, because));
            }
        }
        Ok(named.into_iter().collect())
    }

    /// Settings and weights in the folders of sentence-transformers' modules; most have settings only.
    fn modules(&self, value: &Value) -> Vec<String> {
        let folders = paths(value, "path").unwrap_or_default();
        let files = folders
            .iter()
            .flat_map(|folder| [WEIGHTS, "config.json"].map(|name| format!("{folder}/{name}")));
        files.filter(|file| is_safe(file) && self.has(file)).collect()
    }

    fn has(&self, file: &str) -> bool {
        self.files.contains(file)
    }

    fn lacks(&self, file: &str, because: &'static str) -> Error {
        Error::NoFile {
            repository: self.repository.to_owned(),
            commit: self.commit.to_owned(),
            file: file.to_owned(),
            because,
        }
    }

    fn no_weights(&self) -> Error {
        let repository = self.repository.to_owned();
        match self.files.iter().find(|file| is_pickle(file)) {
            Some(file) => Error::Pickle { repository, file: (*file).to_owned() },
            None => Error::NoWeights { repository, commit: self.commit.to_owned() },
        }
    }
}

/// Whether a path of a repository stays below the folder that it is put in.
pub(super) fn is_safe(path: &str) -> bool {
    let parts = || path.split('/');
    path.len() <= 1024
        && !path.contains(['\\', '\0'])
        && parts().all(|part| !part.is_empty() && part != "." && part != "..")
}

fn is_pickle(file: &str) -> bool {
    PICKLES.iter().any(|end| file.ends_with(end))
}

/// The texts under `key` in a list of objects.
fn paths(value: &Value, key: &str) -> Option<BTreeSet<String>> {
    value.as_array()?.iter().map(|entry| Some(entry.get(key)?.as_str()?.to_owned())).collect()
}

/// The distinct files that an index of weights names.
fn shards(weight_map: &Value) -> Option<BTreeSet<String>> {
    weight_map.as_object()?.values().map(|file| file.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing<'a>(files: &[&'a str]) -> Listing<'a> {
        Listing { repository: "org/name", commit: "c0", files: files.iter().copied().collect() }
    }

    #[test]
    fn only_what_serves_is_fetched() {
        let files = [
            "README.md",
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "tf_model.h5",
            "onnx/model.onnx",
            "tokenizer.json",
            "vocab.json",
            "merges.txt",
            "preprocessor_config.json",
        ];
        let chosen = listing(&files).first().unwrap();
        assert_eq!(
            chosen,
            [
                "config.json",
                "preprocessor_config.json",
                "tokenizer.json",
                "vocab.json",
                "merges.txt",
                "model.safetensors"
            ]
        );
    }

    #[test]
    fn shards_and_modules_are_taken_from_the_files_that_name_them() {
        let files = [
            "config.json",
            "modules.json",
            "model.safetensors.index.json",
            "model-1.safetensors",
            "model-2.safetensors",
            "1_Pooling/config.json",
            "2_Dense/config.json",
            "2_Dense/model.safetensors",
            "2_Dense/pytorch_model.bin",
        ];
        let listing = listing(&files);
        assert!(listing.first().unwrap().contains(&"model.safetensors.index.json".to_owned()));
        let index = br#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors","c":"model-1.safetensors"}}"#;
        let shards = listing.named_by("model.safetensors.index.json", index).unwrap();
        assert_eq!(shards, ["model-1.safetensors", "model-2.safetensors"]);
        let modules = br#"[{"path":""},{"path":"1_Pooling"},{"path":"2_Dense"},{"path":"../x"}]"#;
        let named = listing.named_by("modules.json", modules).unwrap();
        assert_eq!(
            named,
            ["1_Pooling/config.json", "2_Dense/model.safetensors", "2_Dense/config.json"]
        );
    }

    #[test]
    fn a_bundle_is_what_it_lists_and_nothing_else() {
        let listing = listing(&["bundle.json", "config.json", "model.safetensors", "golden/a.png"]);
        assert_eq!(listing.first().unwrap(), ["bundle.json"]);
        let content = br#"{"files":[{"path":"model.safetensors"},{"path":"golden/a.png"}]}"#;
        let named = listing.named_by("bundle.json", content).unwrap();
        assert_eq!(named, ["golden/a.png", "model.safetensors"]);
    }

    #[test]
    fn pickle_is_refused_with_the_command_that_converts_it() {
        let told = listing(&["config.json", "pytorch_model.bin"]).first().unwrap_err().to_string();
        assert!(
            told.contains("diptych-train import") && told.contains("pytorch_model.bin"),
            "{told}"
        );
        let told = listing(&["config.json", "model.onnx"]).first().unwrap_err().to_string();
        assert!(told.contains("neither bundle.json nor model.safetensors"), "{told}");
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let listing = listing(&["bundle.json", "model.safetensors.index.json", "w.bin"]);
        for name in ["../x", "/etc/passwd", "a//b", "a/../b", "a\\b", "", "w.bin"] {
            let content = serde_json::json!({"files": [{"path": name}], "weight_map": {"a": name}});
            let content = content.to_string();
            for file in ["bundle.json", "model.safetensors.index.json"] {
                assert!(listing.named_by(file, content.as_bytes()).is_err(), "{name}");
            }
        }
        let told = listing.named_by("bundle.json", br#"{"files":[{"path":"gone"}]}"#).unwrap_err();
        assert!(told.to_string().contains("lacks gone"), "{told}");
        assert!(listing.named_by("bundle.json", b"{").is_err());
    }
}
