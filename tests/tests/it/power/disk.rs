//! A disk that loses power: what was synced is there, of the rest any part.
//!
//! The rules are those that a program may count on, not the kinder ones of one file system. A sync of a file keeps its bytes and
//! its length, a sync of a folder keeps its names. Of bytes written since, each sector of 512 may be there in any of its
//! versions: a page of 4 KiB can be torn in the middle, a sector cannot. Of names made, moved and removed since, each may be
//! there or not, whatever became of the others; only a name that moves is never lost on its way.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::file::File;
use super::trace::Event;

/// LMDB makes it anew at every start and maps it: what is in it after a power loss may be anything.
const SCRATCH: &str = "lock.mdb";

/// Number of a file or folder; inodes are used again, these are not.
type Number = usize;

/// How much of what was not synced survived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Luck {
    /// Chance of each sector or page.
    pub(super) bytes: f64,
    /// Whether a page is written whole, as of one moment, or each of its sectors alone.
    pub(super) whole_pages: bool,
    /// Chance of each change of a folder.
    pub(super) names: f64,
}

impl Luck {
    /// Of each kind: nothing, everything, and some of it.
    pub(super) fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut chance = || [0.0, 1.0, 0.2, 0.5, 0.8][rng.random_range(0..5)];
        let (bytes, names) = (chance(), chance());
        Self { bytes, whole_pages: rng.random(), names }
    }
}

/// A change of a folder that is not durable yet.
#[derive(Debug, Clone)]
struct Change {
    at: u64,
    name: String,
    node: Option<Number>,
    /// The name left for another place: it may be gone only where it arrived. The arrival has the same moment.
    moved: bool,
}

#[derive(Debug, Clone, Default)]
struct Folder {
    seen: BTreeMap<String, Number>,
    kept: BTreeMap<String, Number>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Node {
    File(File),
    Folder(Folder),
}

/// The disk, with one folder as its root.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    nodes: Vec<Node>,
    inodes: HashMap<u64, Number>,
}

impl Disk {
    /// A disk on which everything below `root` is durable as it is now.
    pub(super) fn of(root: &Path) -> Result<Self> {
        let mut disk = Self { nodes: Vec::new(), inodes: HashMap::new() };
        disk.read(root)?;
        Ok(disk)
    }

    fn read(&mut self, path: &Path) -> Result<Number> {
        let inode = fs::metadata(path)?.ino();
        if !path.is_dir() {
            return Ok(self.add(inode, Node::File(File::durable(fs::read(path)?))));
        }
        let number = self.add(inode, Node::Folder(Folder::default()));
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            names.insert(name_of(&entry)?, self.read(&entry.path())?);
        }
        self.nodes[number] =
            Node::Folder(Folder { kept: names.clone(), seen: names, pending: Vec::new() });
        Ok(number)
    }

    fn add(&mut self, inode: u64, node: Node) -> Number {
        self.nodes.push(node);
        self.inodes.insert(inode, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// Lets the next event happen; `now` is the length of the trace after it.
    pub(super) fn apply(&mut self, now: u64, event: &Event<'_>) -> Result<()> {
        match *event {
            Event::Create { folder, inode, name } => {
                let node = self.add(inode, Node::File(File::default()));
                self.change(folder, now, (name, Some(node)), false)
            }
            Event::MakeFolder { folder, inode, name } => {
                let node = self.add(inode, Node::Folder(Folder::default()));
                self.change(folder, now, (name, Some(node)), false)
            }
            Event::Link { folder, inode, name } => {
                let node = self.number(inode)?;
                self.change(folder, now, (name, Some(node)), false)
            }
            Event::Remove { folder, name } => self.change(folder, now, (name, None), false),
            Event::Rename { from, to } => {
                let node = self.folder(from.0)?.seen.get(from.1).copied();
                let node =
                    node.with_context(|| format!("{} is renamed and was not there", from.1))?;
                self.change(from.0, now, (from.1, None), true)?;
                self.change(to.0, now, (to.1, Some(node)), false)
            }
            Event::Write { inode, at, data, durable } => {
                let at = usize::try_from(at)?;
                self.file(inode)?.write((now, durable), at, data);
                Ok(())
            }
            Event::Size { inode, bytes } => {
                let bytes = usize::try_from(bytes)?;
                self.file(inode)?.resize(now, bytes);
                Ok(())
            }
            Event::Sync { inode, from } => self.sync(inode, from),
        }
    }

    fn sync(&mut self, inode: u64, from: u64) -> Result<()> {
        let number = self.number(inode)?;
        let folder = match &mut self.nodes[number] {
            Node::File(file) => {
                file.sync(from);
                return Ok(());
            }
            Node::Folder(folder) => folder,
        };
        // A journal takes a move as one: where the leaving is durable, the arrival is.
        let left: HashSet<u64> =
            folder.pending.iter().filter(|it| it.moved && it.at <= from).map(|it| it.at).collect();
        folder.keep(|change| change.at <= from);
        for node in &mut self.nodes {
            if let Node::Folder(folder) = node {
                folder.keep(|change| left.contains(&change.at));
            }
        }
        Ok(())
    }

    fn change(
        &mut self,
        folder: u64,
        at: u64,
        (name, node): (&str, Option<Number>),
        moved: bool,
    ) -> Result<()> {
        let folder = self.folder(folder)?;
        match node {
            Some(node) => folder.seen.insert(name.to_owned(), node),
            None => folder.seen.remove(name),
        };
        folder.pending.push(Change { at, name: name.to_owned(), node, moved });
        Ok(())
    }

    fn number(&self, inode: u64) -> Result<Number> {
        self.inodes.get(&inode).copied().with_context(|| format!("inode {inode} came from nowhere"))
    }

    fn folder(&mut self, inode: u64) -> Result<&mut Folder> {
        let number = self.number(inode)?;
        match &mut self.nodes[number] {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) => anyhow::bail!("inode {inode} is a file"),
        }
    }

    fn file(&mut self, inode: u64) -> Result<&mut File> {
        let number = self.number(inode)?;
        match &mut self.nodes[number] {
            Node::File(file) => Ok(file),
            Node::Folder(_) => anyhow::bail!("inode {inode} is a folder"),
        }
    }

    /// Writes into the empty folder `target` what a power loss at this moment would leave.
    pub(super) fn lose_power(&self, target: &Path, luck: Luck, rng: &mut ChaCha8Rng) -> Result<()> {
        // Which changes made it, by moment and name; then a move is undone where only the leaving did.
        let mut made = HashSet::new();
        let mut arrivals = HashMap::new();
        for node in &self.nodes {
            let Node::Folder(folder) = node else { continue };
            for change in &folder.pending {
                let luck = rng.random_bool(luck.names);
                if luck {
                    made.insert((change.at, change.name.clone(), change.moved));
                }
                if change.node.is_some() {
                    arrivals.insert(change.at, luck);
                }
            }
        }
        let survives = |change: &Change| {
            made.contains(&(change.at, change.name.clone(), change.moved))
                && (!change.moved || arrivals.get(&change.at).copied().unwrap_or(true))
        };
        self.write_folder(0, target, &survives, &mut (luck, rng))
    }

    fn write_folder(
        &self,
        number: Number,
        target: &Path,
        survives: &impl Fn(&Change) -> bool,
        dice: &mut (Luck, &mut ChaCha8Rng),
    ) -> Result<()> {
        let Node::Folder(folder) = &self.nodes[number] else { anyhow::bail!("the root is a file") };
        let mut names = folder.kept.clone();
        for change in folder.pending.iter().filter(|change| survives(change)) {
            match change.node {
                Some(node) => names.insert(change.name.clone(), node),
                None => names.remove(&change.name),
            };
        }
        for (name, number) in names {
            let path = target.join(&name);
            match &self.nodes[number] {
                Node::Folder(_) => {
                    fs::create_dir(&path)?;
                    self.write_folder(number, &path, survives, dice)?;
                }
                Node::File(file) if name == SCRATCH => {
                    let mut noise = vec![0; file.seen().len()];
                    dice.1.fill(&mut noise[..]);
                    fs::write(&path, noise)?;
                }
                Node::File(file) => fs::write(&path, file.after_power_loss(dice.0, dice.1))?,
            }
        }
        Ok(())
    }

    /// Compares what the events add up to with a folder that is really there: nothing may have passed the shim by.
    ///
    /// # Errors
    /// Names the first difference.
    pub(super) fn must_equal(&self, root: &Path) -> Result<()> {
        self.compare(0, root)
    }

    fn compare(&self, number: Number, path: &Path) -> Result<()> {
        match &self.nodes[number] {
            Node::File(_) if path.ends_with(SCRATCH) => Ok(()),
            Node::File(file) => {
                ensure!(fs::read(path)? == file.seen(), "{} is not as traced", path.display());
                Ok(())
            }
            Node::Folder(folder) => {
                let mut names = fs::read_dir(path)?
                    .map(|entry| name_of(&entry?))
                    .collect::<Result<Vec<_>>>()?;
                names.sort();
                ensure!(
                    names.iter().eq(folder.seen.keys()),
                    "{}: {names:?} is there",
                    path.display()
                );
                folder
                    .seen
                    .iter()
                    .try_for_each(|(name, node)| self.compare(*node, &path.join(name)))
            }
        }
    }
}

impl Folder {
    fn keep(&mut self, durable: impl Fn(&Change) -> bool) {
        let kept = &mut self.kept;
        self.pending.retain(|change| {
            if !durable(change) {
                return true;
            }
            match change.node {
                Some(node) => kept.insert(change.name.clone(), node),
                None => kept.remove(&change.name),
            };
            false
        });
    }
}

fn name_of(entry: &fs::DirEntry) -> Result<String> {
    entry.file_name().into_string().ok().context("a name that is no UTF-8")
}
