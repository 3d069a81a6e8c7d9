//! Is `data.mdb` sound? Read page by page before LMDB maps it.
//!
//! LMDB trusts its file: a page that is missing or of another kind ends the process by a signal or
//! an assertion. So the pages that the newest head reaches are walked here with plain reads, and a
//! damaged file becomes a sentence. What the pages hold is checked by checksums later.
//!
//! The layout is that of LMDB 0.9 (`mdb.c`, `struct MDB_page`, `MDB_node`, `MDB_db`, `MDB_meta`) on
//! machines of 64 bits, in native byte order. Pages after the last one that is used may be missing
//! from a sound file, so the length alone says nothing.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

const HEADER: usize = 16;
const NODE: usize = 8;
const MAGIC: u32 = 0xBEEF_C0DE;
const DATA_VERSION: u32 = 1;
const LEAST_PAGE: usize = 512;
const LARGEST_PAGE: usize = 65_536;
/// LMDB's own limit is 32.
const DEEPEST: usize = 32;

const P_BRANCH: u16 = 0x01;
const P_LEAF: u16 = 0x02;
const P_OVERFLOW: u16 = 0x04;
const P_META: u16 = 0x08;
const F_BIGDATA: u16 = 0x01;
const F_SUBDATA: u16 = 0x02;

/// No page: the root of an empty tree.
const NONE: u64 = u64::MAX;

/// What is wrong with a file, in words.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Damage(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

type Checked<T> = Result<T, Fault>;

/// Checks every page in use. An empty file is sound: LMDB fills it.
pub(super) fn inspect(path: &Path) -> Checked<()> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    // LMDB's page numbers have another width there.
    if bytes == 0 || cfg!(not(target_pointer_width = "64")) {
        return Ok(());
    }
    let head = Head::read(&mut file, bytes)?;
    let pages = bytes / head.page_bytes as u64;
    let seen = vec![false; usize::try_from(pages.min(head.last_page + 1)).unwrap_or(0)];
    let mut walk =
        Walk { file, bytes, head, seen, free: Vec::new(), least: Least::default(), levels: 0 };
    let (free, main) = (walk.head.free_root, walk.head.main_root);
    walk.tree(main, Tree::Main, 0)?;
    walk.tree(free, Tree::Free, 0)?;
    walk.check_free()
}

/// The newest of the two heads.
struct Head {
    page_bytes: usize,
    free_root: u64,
    main_root: u64,
    last_page: u64,
    transaction: u64,
}

impl Head {
    fn read(file: &mut File, bytes: u64) -> Checked<Self> {
        let first = Self::read_at(file, 0, bytes)?;
        let second = Self::read_at(file, first.page_bytes as u64, bytes)?;
        Ok(if second.transaction > first.transaction { second } else { first })
    }

    fn read_at(file: &mut File, at: u64, bytes: u64) -> Checked<Self> {
        if bytes < at + 152 {
            return Err(damage(format!("the database is cut off at {bytes} bytes")));
        }
        let mut head = [0; 152];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut head)?;
        let page_bytes = u32_at(&head, 40) as usize;
        let is_head = u16_at(&head, 10) & P_META != 0
            && u32_at(&head, 16) == MAGIC
            // The list of tables is none of a special kind.
            && u16_at(&head, 92) == 0
            && page_bytes.is_power_of_two()
            && (LEAST_PAGE..=LARGEST_PAGE).contains(&page_bytes);
        if !is_head {
            return Err(damage("the file is not a database, or its head is damaged"));
        }
        if u32_at(&head, 20) != DATA_VERSION {
            return Err(damage("the database was written by another version of LMDB"));
        }
        Ok(Self {
            page_bytes,
            free_root: u64_at(&head, 80),
            main_root: u64_at(&head, 128),
            last_page: u64_at(&head, 136),
            transaction: u64_at(&head, 144),
        })
    }
}

/// What the leaves of a tree hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tree {
    /// The named databases.
    Main,
    /// Lists of free pages.
    Free,
    /// Keys and values of one named database.
    Named,
}

struct Walk {
    file: File,
    bytes: u64,
    head: Head,
    /// Pages that something points to.
    seen: Vec<bool>,
    free: Vec<u64>,
    least: Least,
    /// Levels that the table which is walked says it has.
    levels: usize,
}

/// Where keys have got to in the tree that is walked: a key out of order would not be found again.
#[derive(Debug, Default)]
struct Least {
    key: Vec<u8>,
    /// The key is a branch's, so the next leaf may begin with it.
    included: bool,
}

impl Least {
    fn advance(&mut self, key: &[u8], included: bool, number: u64) -> Checked<()> {
        let fits = key > self.key.as_slice() || (self.included && key == self.key.as_slice());
        if !fits {
            return Err(damage(format!("page {number} of the database is damaged (key order)")));
        }
        key.clone_into(&mut self.key);
        self.included = included;
        Ok(())
    }
}

impl Walk {
    fn tree(&mut self, number: u64, tree: Tree, depth: usize) -> Checked<()> {
        if number == NONE {
            return Ok(());
        }
        if depth == DEEPEST {
            return Err(damage("the database's tree is damaged (too deep)"));
        }
        let page = self.page(number)?;
        let flags = u16_at(&page, 10);
        match flags & (P_BRANCH | P_LEAF | P_OVERFLOW | P_META) {
            P_BRANCH => {
                for (i, node) in nodes(&page, number)?.enumerate() {
                    // The first child holds all that is below the second key; its own is not used.
                    if i > 0 && tree == Tree::Named {
                        self.least.advance(key(node), true, number)?;
                    }
                    let child = u64::from(u16_at(node, 0))
                        | u64::from(u16_at(node, 2)) << 16
                        | u64::from(u16_at(node, 4)) << 32;
                    self.tree(child, tree, depth + 1)?;
                }
                Ok(())
            }
            P_LEAF => {
                if tree == Tree::Named && depth + 1 != self.levels {
                    return Err(damage("the depth of a table of the database is damaged"));
                }
                for node in nodes(&page, number)? {
                    if tree == Tree::Named {
                        self.least.advance(key(node), false, number)?;
                    }
                    self.leaf(node, number, tree)?;
                }
                Ok(())
            }
            _ => Err(damage(format!("page {number} of the database is damaged"))),
        }
    }

    fn leaf(&mut self, node: &[u8], number: u64, tree: Tree) -> Checked<()> {
        let size = usize::from(u16_at(node, 0)) | usize::from(u16_at(node, 2)) << 16;
        let flags = u16_at(node, 4);
        let inline = if flags & F_BIGDATA == 0 { size } else { 8 };
        let start = NODE + usize::from(u16_at(node, 6));
        // Other kinds of nodes belong to tables that we do not make: LMDB would follow them nowhere.
        let known = match tree {
            Tree::Main => flags == F_SUBDATA,
            Tree::Free | Tree::Named => flags & !F_BIGDATA == 0,
        };
        let data = node
            .get(start..start + inline)
            .filter(|_| known)
            .ok_or_else(|| damage(format!("page {number} of the database is damaged")))?;
        let value = match flags & F_BIGDATA {
            0 => data.to_vec(),
            _ => self.overflow(u64_at(data, 0), size, tree == Tree::Free)?,
        };
        match tree {
            Tree::Named => Ok(()),
            Tree::Free => self.note_free(&value),
            // Its kind is a plain table's.
            Tree::Main if value.len() == 48 && u32_at(&value, 0) == 0 && u16_at(&value, 4) == 0 => {
                self.least = Least::default();
                self.levels = usize::from(u16_at(&value, 6));
                self.tree(u64_at(&value, 40), Tree::Named, 0)
            }
            Tree::Main => Err(damage("the list of the database's tables is damaged")),
        }
    }

    /// A value too large for a leaf: one header, then the bytes over as many pages as they need.
    fn overflow(&mut self, number: u64, size: usize, wanted: bool) -> Checked<Vec<u8>> {
        let page = self.page(number)?;
        let pages = (HEADER - 1 + size) / self.head.page_bytes + 1;
        if u16_at(&page, 10) & P_OVERFLOW == 0 || u32_at(&page, 12) as usize != pages {
            return Err(damage(format!("page {number} of the database is damaged")));
        }
        let mut value = page;
        for next in 1..pages as u64 {
            self.mark(number + next)?;
            if wanted {
                value.extend(self.read(number + next)?);
            }
        }
        value.drain(..HEADER);
        value.truncate(size);
        Ok(value)
    }

    /// A list of free pages: how many, then their numbers.
    fn note_free(&mut self, value: &[u8]) -> Checked<()> {
        let mut numbers = value.as_chunks::<8>().0.iter().map(|n| u64::from_ne_bytes(*n));
        let count = numbers.next().unwrap_or(0);
        let listed: Vec<u64> = numbers.take(usize::try_from(count).unwrap_or(usize::MAX)).collect();
        if listed.len() as u64 != count {
            return Err(damage("a list of free pages is damaged"));
        }
        self.free.extend(listed);
        Ok(())
    }

    /// A page that is free as well as in use would be overwritten.
    fn check_free(&mut self) -> Checked<()> {
        for number in std::mem::take(&mut self.free) {
            let in_use = usize::try_from(number).ok().and_then(|n| self.seen.get(n)) == Some(&true);
            if number < 2 || number > self.head.last_page || in_use {
                return Err(damage("a list of free pages is damaged"));
            }
        }
        Ok(())
    }

    /// A page that nothing else points to, with its own number in it.
    fn page(&mut self, number: u64) -> Checked<Vec<u8>> {
        self.mark(number)?;
        let page = self.read(number)?;
        if u64_at(&page, 0) != number {
            return Err(damage(format!("page {number} of the database is damaged")));
        }
        Ok(page)
    }

    fn mark(&mut self, number: u64) -> Checked<()> {
        if number > self.head.last_page || number < 2 {
            return Err(damage(format!("the database points to page {number}, which it has not")));
        }
        let seen = usize::try_from(number).ok().and_then(|number| self.seen.get_mut(number));
        match seen {
            Some(seen) if !*seen => *seen = true,
            Some(_) => return Err(damage(format!("page {number} of the database is used twice"))),
            None => {
                let bytes = self.bytes;
                return Err(damage(format!(
                    "the database is cut off at {bytes} bytes, before its page {number}"
                )));
            }
        }
        Ok(())
    }

    fn read(&mut self, number: u64) -> Checked<Vec<u8>> {
        let mut page = vec![0; self.head.page_bytes];
        self.file.seek(SeekFrom::Start(number * self.head.page_bytes as u64))?;
        self.file.read_exact(&mut page)?;
        Ok(page)
    }
}

/// Each node of a branch or leaf, from its first byte to the end of the page.
fn nodes(page: &[u8], number: u64) -> Checked<impl Iterator<Item = &[u8]>> {
    let fault = || damage(format!("page {number} of the database is damaged"));
    let (lower, upper) = (usize::from(u16_at(page, 12)), usize::from(u16_at(page, 14)));
    if lower < HEADER || lower > upper || upper > page.len() || !lower.is_multiple_of(2) {
        return Err(fault());
    }
    let places: Vec<usize> = page[HEADER..lower]
        .as_chunks::<2>()
        .0
        .iter()
        .map(|at| u16::from_ne_bytes(*at).into())
        .collect();
    let fits = |&at: &usize| {
        at >= upper && at + NODE <= page.len() && {
            let key = usize::from(u16_at(&page[at..], 6));
            at + NODE + key <= page.len()
        }
    };
    if places.is_empty() || !places.iter().all(fits) {
        return Err(fault());
    }
    Ok(places.into_iter().map(|at| &page[at..]))
}

/// The key of a node, whose length [`nodes`] has checked.
fn key(node: &[u8]) -> &[u8] {
    let end = NODE + usize::from(u16_at(node, 6));
    node.get(NODE..end).unwrap_or_default()
}

fn damage(what: impl Into<String>) -> Fault {
    Fault::Damage(what.into())
}

/// A number at a place; 0 beyond the end, which callers have checked.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes_at(bytes, at))
}
