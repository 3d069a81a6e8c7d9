//! Damage to what can be made again: files below a folder `index`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rand::Rng as _;
use rand::seq::IteratorRandom as _;
use rand_chacha::ChaCha8Rng;

/// Damages some of the derived files of a data folder, or none; gives how many.
pub(super) fn damage(data: &Path, rng: &mut ChaCha8Rng) -> Result<usize> {
    let mut files = Vec::new();
    derived(data, false, &mut files)?;
    let count = rng.random_range(0..4);
    let chosen: Vec<&PathBuf> = files.iter().choose_multiple(rng, count);
    for path in &chosen {
        let mut bytes = fs::read(path)?;
        match rng.random_range(0..6) {
            0 => bytes.truncate(rng.random_range(0..=bytes.len())),
            1 => bytes.clear(),
            2 => {
                fs::remove_file(path)?;
                continue;
            }
            // Another file of the same kind, whole in itself.
            3 => {
                bytes = files
                    .iter()
                    .filter(|path| path.exists())
                    .choose(rng)
                    .map_or(Ok(bytes), fs::read)?;
            }
            4 => bytes.extend_from_slice(b"a word too much"),
            _ => {
                if let Some(byte) = bytes.iter_mut().choose(rng) {
                    *byte ^= 1 << rng.random_range(0..8);
                }
            }
        }
        match fs::write(path, bytes) {
            // On a full disk it is cut off: damaged all the same.
            Err(error) if error.kind() != ErrorKind::StorageFull => return Err(error.into()),
            _ => {}
        }
    }
    Ok(chosen.len())
}

/// Files below a folder named `index`, in the order of their paths.
fn derived(folder: &Path, inside: bool, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            derived(&path, inside || path.ends_with("index"), files)?;
        } else if inside {
            files.push(path);
        }
    }
    Ok(())
}
