//! What `torch.save` wrote before version 1.6: five pickles one behind the other (a magic number, a version, the machine's kind,
//! the descriptions, the names of the storages), then each storage, its number of elements in 8 bytes before it.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use super::super::pickle::{self, Heap, Value, View};

/// The magic number's pickle.
pub(super) const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9c";
const MAGIC_REST: &[u8] = b"F\xf9 j\xa8P\x19.";
/// The only version that there was.
const VERSION: i64 = 1001;

type Result<T> = std::result::Result<T, String>;

/// The descriptions, and where storages lie.
pub(super) struct Described {
    pub(super) heap: Heap,
    pub(super) top: Value,
    /// Where the first storage begins, and the names of all in their order.
    storages: (u64, Vec<String>),
    /// Bytes of each storage that is described.
    sizes: BTreeMap<String, u64>,
}

impl Described {
    pub(super) fn read(file: &mut (impl Read + Seek)) -> Result<Self> {
        let mut start = Vec::new();
        file.take(pickle::LARGEST).read_to_end(&mut start).map_err(|error| error.to_string())?;
        let damaged = || "is damaged, or no file of torch.save".to_owned();
        let rest = start.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(MAGIC_REST));
        let rest = rest.ok_or_else(damaged)?;
        let (_, version, rest) = pickle::read(rest)?;
        if version != Value::Int(VERSION) {
            return Err(format!("is of another version than {VERSION}, the only one known"));
        }
        let (heap, machine, rest) = pickle::read(rest)?;
        let order = heap.dict(machine).and_then(|pairs| {
            pairs.iter().find(|(key, _)| heap.text(*key) == Some("little_endian"))
        });
        if order.is_none_or(|(_, little)| *little != Value::Bool(true)) {
            return Err("has its numbers in big-endian order, which is not read".to_owned());
        }
        let (heap, top, rest) = pickle::read(rest)?;
        let (names, list, rest) = pickle::read(rest)?;
        let keys = names
            .list(list)
            .ok_or_else(damaged)?
            .iter()
            .map(|key| names.text(*key).map(str::to_owned));
        let keys: Vec<String> = keys.collect::<Option<_>>().ok_or_else(damaged)?;
        let sizes = heap.storages().map(|(key, bytes)| (key.to_owned(), bytes)).collect();
        Ok(Self { heap, top, storages: ((start.len() - rest.len()) as u64, keys), sizes })
    }

    /// The bytes of a view's storage.
    pub(super) fn storage(&self, file: &mut (impl Read + Seek), view: &View) -> Result<Vec<u8>> {
        let mut at = self.storages.0;
        for key in &self.storages.1 {
            if *key == view.key {
                return content(file, at, view);
            }
            let bytes =
                self.sizes.get(key).ok_or("a storage before its own is described nowhere")?;
            at = bytes.checked_add(at + 8).ok_or("a storage is larger than can be")?;
        }
        Err("its storage is not in the file".to_owned())
    }
}

fn content(file: &mut (impl Read + Seek), at: u64, view: &View) -> Result<Vec<u8>> {
    let told = |error: std::io::Error| format!("its storage: {error}");
    file.seek(SeekFrom::Start(at)).map_err(told)?;
    let mut elements = [0; 8];
    file.read_exact(&mut elements).map_err(told)?;
    if u64::from_le_bytes(elements) != view.elements as u64 {
        let found = u64::from_le_bytes(elements);
        return Err(format!("its storage has {found} elements, {} were told", view.elements));
    }
    let bytes = view.elements * view.kind.size();
    let mut content = Vec::new();
    file.take(bytes as u64).read_to_end(&mut content).map_err(told)?;
    if content.len() != bytes {
        return Err(format!("its storage has {} bytes, {bytes} were told", content.len()));
    }
    Ok(content)
}
