//! `hf:ORG/NAME@REVISION`, read with care: its parts become URLs and paths.

use std::fmt;
use std::str::FromStr;

use super::error::{Error, Result};

/// What begins a checkpoint of a hub where a folder could stand.
pub const PREFIX: &str = "hf:";
/// The branch that is taken without a revision.
pub(super) const DEFAULT_REVISION: &str = "main";
/// Hex digits of a commit hash.
const COMMIT_DIGITS: usize = 40;
const MOST_LETTERS: usize = 200;

/// A checkpoint of a hub: a repository, and which state of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    repository: String,
    revision: Option<String>,
}

impl FromStr for Spec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |problem| Error::Spec { text: text.to_owned(), problem };
        let rest =
            text.strip_prefix(PREFIX).ok_or_else(|| refused("it does not begin with hf:"))?;
        let (repository, revision) = match rest.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (rest, None),
        };
        let parts: Vec<&str> = repository.split('/').collect();
        if parts.len() > 2 || !parts.iter().all(|part| is_name(part)) {
            return Err(refused(
                "the repository is one name, or two with / between, of letters, digits and . _ -",
            ));
        }
        if let Some(revision) = revision
            && !revision.split('/').all(is_name)
        {
            return Err(refused("the revision is a branch, a tag or a commit hash"));
        }
        Ok(Self { repository: repository.to_owned(), revision: revision.map(str::to_owned) })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.repository)?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

impl Spec {
    /// `ORG/NAME`, or one name for the oldest repositories.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The branch, tag or commit that was asked for, `main` without a word.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(DEFAULT_REVISION)
    }

    /// The commit, when the revision is one and so means the same for ever.
    pub fn commit(&self) -> Option<&str> {
        self.revision.as_deref().filter(|revision| is_commit(revision))
    }

    /// The same repository, pinned to a commit.
    pub(super) fn pinned(&self, commit: &str) -> Self {
        Self { repository: self.repository.clone(), revision: Some(commit.to_owned()) }
    }
}

/// Whether `text` is a whole commit hash.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == COMMIT_DIGITS
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether `text` can stand in a URL and as a name on disk as it is.
pub(super) fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty()
        && text.len() <= MOST_LETTERS
        && !text.starts_with('.')
        && !text.contains("..")
        && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_with_and_without_its_parts() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let rows = [
            ("hf:org/name".to_owned(), "org/name", "main", false),
            ("hf:gpt2@v1.0".to_owned(), "gpt2", "v1.0", false),
            ("hf:o-r.g/n_ame@refs/pr/1".to_owned(), "o-r.g/n_ame", "refs/pr/1", false),
            (format!("hf:org/name@{commit}"), "org/name", commit, true),
            (format!("hf:org/name@{}", &commit[1..]), "org/name", &commit[1..], false),
        ];
        for (text, repository, revision, pinned) in rows {
            let spec: Spec = text.parse().unwrap();
            assert_eq!((spec.repository(), spec.revision()), (repository, revision), "{text}");
            assert_eq!(spec.commit().is_some(), pinned, "{text}");
            assert_eq!(spec.to_string(), text);
        }
    }

    #[test]
    fn what_could_leave_its_folder_or_url_is_refused() {
        for text in [
            "org/name",
            "hf:",
            "hf:/name",
            "hf:org/",
            "hf:a/b/c",
            "hf:../x",
            "hf:a/..",
            "hf:a/b@",
            "hf:a/b@../x",
            "hf:a/b@x//y",
            "hf:a b/c",
            "hf:a/b?c",
            "hf:a/b@c%2f",
            "hf:a/.b",
            "hf:a/b@c@d",
        ] {
            let told = text.parse::<Spec>().unwrap_err().to_string();
            assert!(told.contains("write hf:ORG/NAME@REVISION"), "{text}: {told}");
        }
    }
}
