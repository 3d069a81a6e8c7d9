//! Items of rows and files: what they are called, and what belongs together.
//!
//! Ids come from paths and contents alone, so that putting the same again gives the same ids: a picture's is its path below
//! the folder, a text's that of its picture, `#`, and a digest of the text. Both have the picture's path as their group.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use diptych::v1;

use super::item::{Key, key};
use super::row::{Picture, Row};

/// Longest name made from a path, in bytes: a digest of a text fits behind it in an id of 256.
const NAME_BYTES: usize = 240;
/// Hexadecimal digits of a digest in an id.
const DIGEST_DIGITS: usize = 12;
/// Folders beside a table that data sets keep their pictures in.
const FOLDERS: [&str; 6] = ["", "images", "Images", "pictures", "photos", "img"];

/// Makes items, and knows those that it has made.
#[derive(Debug)]
pub(crate) struct Maker {
    prefix: String,
    image_bytes: u64,
    text_bytes: u64,
    /// What each id was given to.
    ids: HashMap<Key, Key>,
    /// Pictures that are items already.
    paths: HashSet<Key>,
}

/// An item and what tells it from another with the same id.
type Made = (v1::ItemInput, Key);

/// The picture of a row.
struct Found {
    id: String,
    group: String,
    /// The item, unless it was made before.
    made: Option<Made>,
}

impl Maker {
    pub(crate) fn new(prefix: &str, limits: &v1::Limits) -> Self {
        let unlimited = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        Self {
            prefix: prefix.to_owned(),
            image_bytes: unlimited(limits.image_bytes),
            text_bytes: unlimited(limits.text_bytes.into()),
            ids: HashMap::new(),
            paths: HashSet::new(),
        }
    }

    /// The items of a row: its picture unless an earlier row had it, and its texts. Pictures lie relative to `base`, the
    /// table's folder; ids are relative to `root`.
    ///
    /// # Errors
    /// What is wrong with the row, in words that follow its place. None of its items is made then.
    pub(crate) fn row(
        &mut self,
        row: Row,
        base: &Path,
        root: &Path,
    ) -> Result<Vec<v1::ItemInput>, String> {
        let Row { picture, texts, id, group, metadata } = row;
        let found = match picture {
            Some(Picture::File(written)) => {
                let path =
                    find(base, &written).ok_or_else(|| format!("there is no picture {written}"))?;
                Some(self.file(&path, root, id.as_deref())?)
            }
            Some(Picture::Inline { bytes, name }) => {
                Some(self.inline(bytes, name.as_deref(), id.as_deref())?)
            }
            None => None,
        };
        let alone = found.is_none() && texts.len() == 1;
        let (owner, derived) = match &found {
            Some(found) => (Some(found.id.clone()), found.group.clone()),
            None => (id, String::new()),
        };
        let picture = found.and_then(|found| found.made);
        let texts = texts.into_iter().map(|text| {
            let digest = digest(text.as_bytes());
            let id = match &owner {
                Some(id) if alone => id.clone(),
                Some(id) => format!("{id}#{digest}"),
                None => format!("{}text:{digest}", self.prefix),
            };
            let origin = key(&[b"text", text.as_bytes()]);
            (diptych::text_item(&id, text), origin)
        });
        let made: Vec<Made> = picture.into_iter().chain(texts).collect();
        self.admit(made, &group.unwrap_or(derived), &metadata)
    }

    /// The items of a picture's file: the picture, unless a row had it, and the text of the file beside it.
    ///
    /// # Errors
    /// As [`Maker::row`].
    pub(crate) fn picture(
        &mut self,
        path: &Path,
        root: &Path,
    ) -> Result<Vec<v1::ItemInput>, String> {
        let Found { id, group, made } = self.file(path, root, None)?;
        let beside = path.with_extension("txt");
        let mut made: Vec<Made> = made.into_iter().collect();
        if beside.is_file() {
            let bytes = read(&beside, ("text", self.text_bytes))?;
            let text = String::from_utf8(bytes)
                .map_err(|_| format!("{} is not UTF-8", beside.display()))?;
            let text = text.trim_start_matches('\u{feff}').trim();
            if !text.is_empty() {
                let id = format!("{id}#{}", digest(text.as_bytes()));
                made.push((diptych::text_item(&id, text), key(&[b"text", text.as_bytes()])));
            }
        }
        self.admit(made, &group, &BTreeMap::new())
    }

    fn file(&self, path: &Path, root: &Path, id: Option<&str>) -> Result<Found, String> {
        let (origin, group) = (path_key(path), self.name(&relative(path, root)));
        let id = id.map_or_else(|| group.clone(), str::to_owned);
        let made = if self.paths.contains(&origin) {
            None
        } else {
            let bytes = read(path, ("picture", self.image_bytes))?;
            Some((diptych::image_item(&id, bytes), origin))
        };
        Ok(Found { id, group, made })
    }

    fn inline(&self, bytes: Bytes, name: Option<&str>, id: Option<&str>) -> Result<Found, String> {
        let (size, limit) = (bytes.len() as u64, self.image_bytes);
        if size > limit {
            return Err(format!("the picture is {size} bytes, the limit is {limit}"));
        }
        let origin = key(&[b"inline", &bytes]);
        let group = match (name.map(|name| (name, self.name(name))), id) {
            // Shards of a data set may use a name again.
            (Some((name, taken)), None) if self.taken(&taken, origin) => {
                self.name(&format!("{name}~{}", digest(&bytes)))
            }
            (Some((_, name)), _) => name,
            (None, Some(id)) => id.to_owned(),
            (None, None) => format!("{}image:{}", self.prefix, digest(&bytes)),
        };
        let id = id.map_or_else(|| group.clone(), str::to_owned);
        let made = Some((diptych::image_item(&id, bytes), origin));
        Ok(Found { id, group, made })
    }

    /// Gives group and metadata to items and notes their ids; one that was made before is left out.
    fn admit(
        &mut self,
        mut made: Vec<Made>,
        group: &str,
        metadata: &BTreeMap<String, v1::Value>,
    ) -> Result<Vec<v1::ItemInput>, String> {
        if let Some((item, _)) = made.iter().find(|(item, origin)| self.taken(&item.id, *origin)) {
            let id = &item.id;
            return Err(format!(
                "the id {id} was given to something else before; --prefix keeps paths apart"
            ));
        }
        made.retain(|(item, origin)| {
            self.paths.insert(*origin);
            self.ids.insert(key(&[item.id.as_bytes()]), *origin).is_none()
        });
        let finish = |(mut item, _): Made| {
            item.group = group.to_owned();
            item.metadata = metadata.clone();
            item
        };
        Ok(made.into_iter().map(finish).collect())
    }

    fn taken(&self, id: &str, origin: Key) -> bool {
        self.ids.get(&key(&[id.as_bytes()])).is_some_and(|by| *by != origin)
    }

    /// A name that a server takes as an id and as a group.
    fn name(&self, path: &str) -> String {
        let name = format!("{}{path}", self.prefix);
        if name.len() <= NAME_BYTES && !name.contains(char::is_control) {
            return name;
        }
        format!("path:{}", hex::encode(key(&[name.as_bytes()])))
    }
}

/// A short digest for ids.
fn digest(bytes: &[u8]) -> String {
    let mut digits = hex::encode(key(&[bytes]));
    digits.truncate(DIGEST_DIGITS);
    digits
}

/// A picture that a table names.
fn find(base: &Path, written: &str) -> Option<PathBuf> {
    let candidate = |folder: &&str| base.join(folder).join(written);
    FOLDERS.iter().map(candidate).find(|path| path.is_file())
}

/// The bytes of a file, unless there are more than the limit: then it is not read.
fn read(path: &Path, (what, limit): (&str, u64)) -> Result<Vec<u8>, String> {
    let cannot = |error| format!("cannot read {}: {error}", path.display());
    let file = File::open(path).map_err(cannot)?;
    let size = file.metadata().map_err(cannot)?.len();
    if size > limit {
        return Err(format!("the {what} {} is {size} bytes, the limit is {limit}", path.display()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // A file that grows meanwhile is cut at the limit and one byte, and the server refuses it.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}

/// A path as others would write it: absolute, without `.` and `..`. Links stay, so that ids do not depend on where they lead.
fn normal(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut normal = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

fn path_key(path: &Path) -> Key {
    key(&[b"path", normal(path).as_os_str().as_encoded_bytes()])
}

/// A path below `root` with `/` between its parts; the whole path when it lies elsewhere.
fn relative(path: &Path, root: &Path) -> String {
    let (path, root) = (normal(path), normal(root));
    let parts = path.strip_prefix(&root).unwrap_or(&path).components();
    let part = |part: Component<'_>| part.as_os_str().to_string_lossy().into_owned();
    let parts: Vec<String> = parts.filter(|part| *part != Component::RootDir).map(part).collect();
    parts.join("/")
}

#[cfg(test)]
mod tests;
