//! What was acknowledged, so that a second run sends only what is new or changed.
//!
//! One file for each server, collection and path, in the user's state folder: a first line that says which making of the
//! collection it is about, then 32 bytes for each acknowledged item, the key of its id and that of its content. It is only
//! appended to; what a crash leaves of a last record is cut off. Losing it costs a run's time, nothing else: puts are
//! idempotent. Believing it wrongly would lose items, so every id in it is looked for on the server first.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use diptych::{Client, v1};

use super::item::{Key, Piece, key};

/// First word of a file.
const MAGIC: &str = "diptych-journal-1";
const RECORD: usize = 2 * size_of::<Key>();

/// Contents of acknowledged items by their ids.
pub(crate) type Known = HashMap<Key, Key>;

/// What a journal is about.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    /// Names the file.
    name: String,
    /// Tells a collection from one that was made again under its name.
    stamp: String,
}

impl Scope {
    pub(crate) fn new(server: &str, collection: &v1::Collection, path: &Path) -> Self {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let path = path.as_os_str().as_encoded_bytes();
        let server = server.trim_start_matches("http://").trim_end_matches('/');
        let name = key(&[server.as_bytes(), collection.name.as_bytes(), path]);
        let made = collection.create_time.unwrap_or_default();
        let stamp = format!("{}.{:09} {}", made.seconds, made.nanos, collection.embedding_digest);
        Self { name: hex::encode(name), stamp }
    }

    fn header(&self) -> String {
        format!("{MAGIC} {}\n", self.stamp)
    }
}

/// A journal that is written; without a file it forgets.
#[derive(Debug)]
pub(crate) struct Journal(Option<File>);

impl Journal {
    /// One that forgets.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Opens or begins the journal in the user's state folder and reads it; without `resume` it begins again.
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub(crate) fn open(scope: &Scope, resume: bool) -> Result<(Self, Known)> {
        let folder = state_folder().context("there is no home folder")?;
        Self::open_in(&folder.join("diptych"), scope, resume)
    }

    fn open_in(folder: &Path, scope: &Scope, resume: bool) -> Result<(Self, Known)> {
        let path = folder.join(format!("{}.journal", scope.name));
        let written = || format!("cannot keep {}", path.display());
        std::fs::create_dir_all(folder).with_context(written)?;
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).append(true).create(true).open(&path).with_context(written)?;
        let known = if resume { read(&file, scope).with_context(written)? } else { None };
        let known = match known {
            Some((known, length)) => {
                file.set_len(length).with_context(written)?;
                known
            }
            None => {
                file.set_len(0).with_context(written)?;
                file.write_all(scope.header().as_bytes()).with_context(written)?;
                Known::new()
            }
        };
        Ok((Self(Some(file)), known))
    }

    /// Notes acknowledged items.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn note<'a>(&mut self, pieces: impl Iterator<Item = &'a Piece>) -> Result<()> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        let records: Vec<u8> =
            pieces.flat_map(|piece| [piece.id, piece.content].concat()).collect();
        // In one write, so that two runs at once do not mix their records.
        file.write_all(&records).context("the journal cannot be written")
    }
}

/// The records and where they end; `None` when the file is about something else.
fn read(file: &File, scope: &Scope) -> std::io::Result<Option<(Known, u64)>> {
    let mut reader = BufReader::new(file);
    let mut header = String::new();
    let longest = scope.header().len() as u64;
    if (&mut reader).take(longest).read_line(&mut header).is_err() || header != scope.header() {
        return Ok(None);
    }
    let (mut known, mut length) = (Known::new(), longest);
    let mut record = [0; RECORD];
    loop {
        match reader.read_exact(&mut record) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
        let (mut id, mut content) = (Key::default(), Key::default());
        id.copy_from_slice(&record[..size_of::<Key>()]);
        content.copy_from_slice(&record[size_of::<Key>()..]);
        known.insert(id, content);
        length += RECORD as u64;
    }
    Ok(Some((known, length)))
}

/// Where programs keep their state.
fn state_folder() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let named = named.filter(|path| path.is_absolute());
    named.or_else(|| std::env::home_dir().map(|home| home.join(".local").join("state")))
}

/// The keys of all ids in a collection.
///
/// # Errors
/// As every call.
pub(crate) async fn there(
    client: &Client,
    collection: &str,
    page_size: u32,
) -> diptych::Result<HashSet<Key>> {
    let mut request =
        v1::ListItemsRequest { collection: collection.to_owned(), page_size, ..Default::default() };
    let mut there = HashSet::new();
    loop {
        let page = client.list_items(request.clone()).await?;
        there.extend(page.items.iter().map(|item| key(&[item.id.as_bytes()])));
        if page.next_page_token.is_empty() {
            return Ok(there);
        }
        request.page_token = page.next_page_token;
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Place;
    use super::*;

    fn scope(seconds: i64) -> Scope {
        let create_time = Some(prost_types::Timestamp { seconds, nanos: 0 });
        let collection = v1::Collection { name: "x".to_owned(), create_time, ..Default::default() };
        Scope::new("http://a", &collection, Path::new("/nowhere"))
    }

    fn piece(id: &str, text: &str) -> Piece {
        Piece::new(diptych::text_item(id, text), Place::file(Path::new("f")))
    }

    fn open(folder: &Path, scope: &Scope) -> (Journal, Known) {
        Journal::open_in(folder, scope, true).unwrap()
    }

    #[test]
    fn what_was_noted_is_known_again_and_the_last_note_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, known) = open(folder.path(), &scope(1));
        assert!(known.is_empty());
        let pieces = [piece("a", "x"), piece("b", "y"), piece("a", "z")];
        journal.note(pieces.iter()).unwrap();
        let (_, known) = open(folder.path(), &scope(1));
        assert_eq!(known.len(), 2);
        assert_eq!(known[&pieces[0].id], pieces[2].content);
    }

    #[test]
    fn a_collection_that_was_made_again_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(folder.path(), &scope(1));
        journal.note([piece("a", "x")].iter()).unwrap();
        assert!(open(folder.path(), &scope(2)).1.is_empty());
        assert!(open(folder.path(), &scope(1)).1.is_empty());
    }

    #[test]
    fn no_resume_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), &scope(1)).0.note([piece("a", "x")].iter()).unwrap();
        assert!(Journal::open_in(folder.path(), &scope(1), false).unwrap().1.is_empty());
    }

    #[test]
    fn half_a_record_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(folder.path(), &scope(1));
        journal.note([piece("a", "x")].iter()).unwrap();
        journal.0.as_mut().unwrap().write_all(&[7; 5]).unwrap();
        let (mut journal, known) = open(folder.path(), &scope(1));
        assert_eq!(known.len(), 1);
        journal.note([piece("b", "y")].iter()).unwrap();
        let known = open(folder.path(), &scope(1)).1;
        assert!(known.contains_key(&piece("b", "y").id));
    }
}
