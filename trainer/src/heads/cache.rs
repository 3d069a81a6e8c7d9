//! Features on disk: what a tower gave for each picture or text, so that it runs once.
//!
//! ```text
//! CACHE/KEY/pictures-00000.features   rows 0 to 4095
//! CACHE/KEY/pictures-00001.features   rows 4096 to 8191, and so on
//! ```
//!
//! KEY is a digest of the checkpoint and of the data. A file holds 8 bytes that tell what it is, the key (32
//! bytes), its first row (u64), the number of its rows and their width (u32 each), the rows (f32), and a
//! CRC-32C of all that (u32); numbers are little-endian. It is written beside its place and renamed, so a run
//! that was killed goes on behind its last file. A file that is not as it should be is made again. A row
//! that is not a number stands for an input that could not be read.

use std::fs::{self, File};
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::checkpoint::create_folder;
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"dptfeat1";
/// Bytes before the rows.
const HEADER: usize = 8 + 32 + 8 + 4 + 4;
/// Rows of a file.
pub(super) const ROWS: usize = 4096;

/// Which features these are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The folder of all caches.
    pub(super) folder: &'a Path,
    /// What they were made from.
    pub(super) key: [u8; 32],
    /// `pictures` or `texts`.
    pub(super) name: &'a str,
    /// How many inputs there are.
    pub(super) rows: usize,
    /// Numbers for each.
    pub(super) width: usize,
}

/// Rows of features on disk, of which as many are in memory as are asked for.
#[derive(Debug)]
pub(super) struct Features {
    folder: PathBuf,
    files: Vec<File>,
    width: usize,
    /// Whether there is something for each row.
    present: Vec<bool>,
    /// Rows that were computed now, and not found.
    pub(super) computed: usize,
    /// Files that were there and not as they should be.
    pub(super) damaged: Vec<PathBuf>,
}

impl Features {
    /// Opens the features and makes what is missing. `compute` gives the features of a range of inputs, one
    /// row after the other, NaN for those that cannot be read.
    ///
    /// # Errors
    /// If the disk refuses; those of `compute`.
    pub(super) fn open(
        wanted: Wanted<'_>,
        mut compute: impl FnMut(Range<usize>) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let folder = wanted.folder.join(&hex::encode(wanted.key)[..32]);
        create_folder(&folder)?;
        let mut features = Self {
            folder: folder.clone(),
            files: Vec::new(),
            width: wanted.width,
            present: Vec::with_capacity(wanted.rows),
            computed: 0,
            damaged: Vec::new(),
        };
        for first in (0..wanted.rows).step_by(ROWS) {
            let range = first..wanted.rows.min(first + ROWS);
            let path = folder.join(format!("{}-{:05}.features", wanted.name, first / ROWS));
            let content = match read(&path, wanted, &range)? {
                Found::Whole(content) => content,
                found => {
                    if matches!(found, Found::Damaged) {
                        features.damaged.push(path.clone());
                    }
                    let rows = compute(range.clone())?;
                    if rows.len() != range.len() * wanted.width {
                        let message = format!("{} features for {range:?}", rows.len());
                        return Err(Error::checkpoint(&path, message));
                    }
                    features.computed += range.len();
                    let content = encode(wanted, &range, &rows);
                    write(&path, &content)?;
                    content
                }
            };
            let rows = &content[HEADER..content.len() - 4];
            let first_of =
                |row: &[u8]| row.first_chunk().map_or(f32::NAN, |v| f32::from_le_bytes(*v));
            let there = rows.chunks_exact(4 * wanted.width).map(|row| !first_of(row).is_nan());
            features.present.extend(there);
            features.files.push(File::open(&path).map_err(|error| Error::io(&path, error))?);
        }
        Ok(features)
    }

    /// Whether there is something for a row.
    pub(super) fn has(&self, row: usize) -> bool {
        self.present.get(row).copied().unwrap_or(false)
    }

    /// Numbers of a row.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Chosen rows, one after the other.
    ///
    /// # Errors
    /// If a file cannot be read any more.
    pub(super) fn gather(&self, rows: &[usize]) -> Result<Vec<f32>> {
        let mut bytes = vec![0; 4 * self.width];
        let mut values = Vec::with_capacity(rows.len() * self.width);
        for row in rows {
            let at = HEADER + row % ROWS * bytes.len();
            self.files[row / ROWS]
                .read_exact_at(&mut bytes, at as u64)
                .map_err(|error| Error::io(&self.folder, error))?;
            let row = bytes.as_chunks::<4>().0.iter();
            values.extend(row.map(|value| f32::from_le_bytes(*value)));
        }
        Ok(values)
    }
}

enum Found {
    Whole(Vec<u8>),
    Damaged,
    Nothing,
}

/// What lies at `path`, if it is these rows and whole.
fn read(path: &Path, wanted: Wanted<'_>, range: &Range<usize>) -> Result<Found> {
    let expected = HEADER + range.len() * wanted.width * 4 + 4;
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(Error::io(path, error)),
        // Compared before it is read, which bounds what is read.
        Ok(metadata) if metadata.len() != expected as u64 => return Ok(Found::Damaged),
        Ok(_) => {}
    }
    let content = fs::read(path).map_err(|error| Error::io(path, error))?;
    let whole = content.len() == expected
        && content[..HEADER] == header(wanted, range)
        && content[expected - 4..] == crc32c::crc32c(&content[..expected - 4]).to_le_bytes();
    Ok(if whole { Found::Whole(content) } else { Found::Damaged })
}

fn header(wanted: Wanted<'_>, range: &Range<usize>) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(wanted.key);
    header.extend((range.start as u64).to_le_bytes());
    header.extend((range.len() as u32).to_le_bytes());
    header.extend((wanted.width as u32).to_le_bytes());
    header
}

fn encode(wanted: Wanted<'_>, range: &Range<usize>, rows: &[f32]) -> Vec<u8> {
    let mut content = header(wanted, range);
    content.extend(rows.iter().flat_map(|value| value.to_le_bytes()));
    let sum = crc32c::crc32c(&content);
    content.extend(sum.to_le_bytes());
    content
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    let unfinished = path.with_extension("unfinished");
    let written = File::create(&unfinished).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.map_err(|error| Error::io(&unfinished, error))?;
    fs::rename(&unfinished, path).map_err(|error| Error::io(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: usize = ROWS + 5;

    fn wanted(folder: &Path, key: u8) -> Wanted<'_> {
        Wanted { folder, key: [key; 32], name: "texts", rows: COUNT, width: 2 }
    }

    /// Row i is (i, -i); row 7 could not be read.
    fn compute(range: Range<usize>) -> Result<Vec<f32>> {
        let row = |at: usize| if at == 7 { [f32::NAN; 2] } else { [at as f32, -(at as f32)] };
        Ok(range.flat_map(row).collect())
    }

    fn never(range: Range<usize>) -> Result<Vec<f32>> {
        Err(Error::setting("features", format!("{range:?} asked for again")))
    }

    #[test]
    fn rows_are_computed_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let made = Features::open(wanted(dir.path(), 1), compute).unwrap();
        assert_eq!(made.computed, COUNT);
        let found = Features::open(wanted(dir.path(), 1), never).unwrap();
        assert_eq!(found.computed, 0);
        let last = COUNT - 1;
        let values = found.gather(&[last, 3]).unwrap();
        assert_eq!(values, [last as f32, -(last as f32), 3.0, -3.0]);
        assert!(!found.has(7) && found.has(8) && !found.has(COUNT));
    }

    #[test]
    fn other_checkpoints_and_data_have_features_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        Features::open(wanted(dir.path(), 1), compute).unwrap();
        assert!(Features::open(wanted(dir.path(), 2), never).is_err());
        // A folder that was renamed does not pass for another.
        let folder = |key: u8| dir.path().join(&hex::encode([key; 32])[..32]);
        fs::remove_dir_all(folder(2)).unwrap();
        fs::rename(folder(1), folder(2)).unwrap();
        let found = Features::open(wanted(dir.path(), 2), compute).unwrap();
        assert_eq!((found.computed, found.damaged.len()), (COUNT, 2));
    }

    #[test]
    fn a_run_that_broke_off_goes_on_behind_its_last_file() {
        let dir = tempfile::tempdir().unwrap();
        let breaks =
            |range: Range<usize>| if range.start == 0 { compute(range) } else { never(range) };
        Features::open(wanted(dir.path(), 1), breaks).unwrap_err();
        assert_eq!(Features::open(wanted(dir.path(), 1), compute).unwrap().computed, 5);
    }

    #[test]
    fn a_file_that_is_damaged_anywhere_is_made_again_and_the_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        Features::open(wanted(dir.path(), 1), compute).unwrap();
        let path = dir.path().join(&hex::encode([1; 32])[..32]).join("texts-00001.features");
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            for bad in [&flipped[..], &whole[..at]] {
                fs::write(&path, bad).unwrap();
                let again = Features::open(wanted(dir.path(), 1), compute).unwrap();
                assert_eq!((again.computed, again.damaged.as_slice()), (5, &[path.clone()][..]));
                assert_eq!(fs::read(&path).unwrap(), whole);
            }
        }
    }
}
