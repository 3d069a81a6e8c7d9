//! Rows held against each other, before anything is written.

use std::collections::{BTreeMap, HashMap, HashSet};

use sha2::{Digest, Sha256};

use super::super::table::quoted;
use super::draw::{Unit, draw, join, least_units};
use super::{Fault, Place, Row, Shares};
use crate::shards::{Split, TextKind};

/// All rows of a source that can be used, and what is wrong with the others.
#[derive(Debug)]
pub(in crate::prepare) struct Gathered {
    /// The names of the label columns.
    pub(super) labels: Vec<String>,
    pub(super) pictures: Vec<Picture>,
    pub(super) texts: Vec<Text>,
    pub(super) groups: Vec<Group>,
    /// In the order of the rows.
    pub(super) skipped: Vec<(Place, Fault)>,
    /// Texts that their group has already, in the same language.
    pub(super) repeated: u64,
    by_name: HashMap<String, usize>,
    group_by_name: HashMap<String, usize>,
    ids: HashMap<String, Place>,
    said: HashSet<[u8; 32]>,
}

/// A picture that decodes.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) name: String,
    pub(super) group: usize,
    pub(super) labels: Vec<Option<String>>,
    pub(super) digest: [u8; 32],
    /// The row that named it first.
    first: Place,
}

/// A text that its group did not have.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) lang: String,
    pub(super) kind: TextKind,
    pub(super) group: usize,
}

/// Pictures and texts that belong together. Each has at least one of both.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: String,
    /// The split that a row gave it.
    given: Option<(Split, Place)>,
}

/// The picture of a row, looked at.
#[derive(Debug, Clone)]
pub(in crate::prepare) struct Pictured {
    /// Its name, unique within the dataset.
    pub(in crate::prepare) name: String,
    /// The SHA-256 of its file.
    pub(in crate::prepare) digest: [u8; 32],
}

/// What became of the splits.
#[derive(Debug)]
pub(super) struct Splits {
    /// Of each group.
    pub(super) of_group: Vec<Split>,
    /// Groups that are together because they share a picture.
    pub(super) joined: usize,
    /// Pictures that are in two splits because rows say so.
    pub(super) torn: usize,
}

impl Gathered {
    /// Nothing yet.
    pub(in crate::prepare) fn new(labels: &[String]) -> Self {
        Self {
            labels: labels.to_vec(),
            pictures: Vec::new(),
            texts: Vec::new(),
            groups: Vec::new(),
            skipped: Vec::new(),
            repeated: 0,
            by_name: HashMap::new(),
            group_by_name: HashMap::new(),
            ids: HashMap::new(),
            said: HashSet::new(),
        }
    }

    /// How many pictures there are.
    pub(in crate::prepare) fn pictures(&self) -> usize {
        self.pictures.len()
    }

    /// Notes a row that cannot be used.
    pub(in crate::prepare) fn skip(&mut self, at: Place, fault: Fault) {
        self.skipped.push((at, fault));
    }

    /// Takes a row whose picture decodes: all of it, or all of it but some of its texts, or none.
    pub(in crate::prepare) fn add(&mut self, at: &Place, row: Row, picture: &Pictured) {
        if let Err(fault) = self.check(&row, picture) {
            return self.skip(at.clone(), fault);
        }
        let (texts, faults): (Vec<_>, Vec<_>) = row.texts.into_iter().partition(Result::is_ok);
        let faults: Vec<Fault> = faults.into_iter().filter_map(Result::err).collect();
        let texts: Vec<String> = texts.into_iter().filter_map(Result::ok).collect();
        self.skipped.extend(faults.into_iter().map(|fault| (at.clone(), fault)));
        if texts.is_empty() {
            return;
        }
        if let Some(id) = row.id {
            self.ids.insert(id, at.clone());
        }
        let group = match self.by_name.get(&picture.name) {
            Some(&known) => {
                let known = &mut self.pictures[known];
                for (label, value) in known.labels.iter_mut().zip(row.labels) {
                    *label = label.take().or(value);
                }
                known.group
            }
            None => {
                let group = self.group(row.group.unwrap_or_else(|| picture.name.clone()));
                self.by_name.insert(picture.name.clone(), self.pictures.len());
                self.pictures.push(Picture {
                    name: picture.name.clone(),
                    group,
                    labels: row.labels,
                    digest: picture.digest,
                    first: at.clone(),
                });
                group
            }
        };
        if let Some(split) = row.split {
            self.groups[group].given.get_or_insert_with(|| (split, at.clone()));
        }
        for text in texts {
            self.say(group, &row.lang, row.kind, text);
        }
    }

    /// Whether a row agrees with those before it.
    fn check(&self, row: &Row, picture: &Pictured) -> Result<(), Fault> {
        if let Some((id, first)) = row.id.as_ref().and_then(|id| self.ids.get_key_value(id)) {
            return Err(Fault::IdRepeated { id: quoted(id), first: first.clone() });
        }
        let known = self.by_name.get(&picture.name).map(|&known| &self.pictures[known]);
        let group = match (known, &row.group) {
            (Some(known), Some(named)) if *named != self.groups[known.group].name => {
                return Err(Fault::GroupDiffers {
                    picture: quoted(&known.name),
                    group: quoted(&self.groups[known.group].name),
                    first: known.first.clone(),
                });
            }
            (Some(known), _) => Some(known.group),
            (None, Some(named)) => self.group_by_name.get(named).copied(),
            (None, None) => self.group_by_name.get(&picture.name).copied(),
        };
        if let Some(known) = known {
            for ((label, old), new) in self.labels.iter().zip(&known.labels).zip(&row.labels) {
                if let (Some(old), Some(new)) = (old, new)
                    && old != new
                {
                    return Err(Fault::LabelDiffers {
                        label: label.clone(),
                        picture: quoted(&known.name),
                        value: quoted(old),
                        first: known.first.clone(),
                    });
                }
            }
        }
        let given = group.and_then(|group| {
            self.groups[group].given.as_ref().map(|(split, first)| (group, *split, first))
        });
        match (given, row.split) {
            (Some((group, split, first)), Some(wanted)) if split != wanted => {
                let group = quoted(&self.groups[group].name);
                Err(Fault::SplitDiffers { group, split, first: first.clone() })
            }
            _ => Ok(()),
        }
    }

    fn group(&mut self, name: String) -> usize {
        if let Some(&known) = self.group_by_name.get(&name) {
            return known;
        }
        let number = self.groups.len();
        self.group_by_name.insert(name.clone(), number);
        self.groups.push(Group { name, given: None });
        number
    }

    /// Adds a text, once for its group.
    fn say(&mut self, group: usize, lang: &str, kind: TextKind, text: String) {
        let digest = Sha256::new()
            .chain_update(group.to_le_bytes())
            .chain_update(kind.as_str())
            .chain_update([0])
            .chain_update(lang)
            .chain_update([0])
            .chain_update(&text)
            .finalize();
        if self.said.insert(digest.into()) {
            self.texts.push(Text { text, lang: lang.to_owned(), kind, group });
        } else {
            self.repeated += 1;
        }
    }

    /// A split for each group: as given, else drawn; groups with a picture in common get the same.
    ///
    /// # Errors
    /// In words, when there are too few groups for the splits asked for.
    pub(super) fn splits(&self, shares: &Shares) -> Result<Splits, String> {
        let pictures = self.pictures.iter().map(|picture| (picture.digest, picture.group));
        let roots = join(self.groups.len(), pictures);
        let mut units: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (group, root) in roots.iter().enumerate() {
            units.entry(*root).or_default().push(group);
        }
        let given_to = |group: &usize| self.groups[*group].given.as_ref().map(|(split, _)| *split);
        let mut of_group = vec![Split::Train; self.groups.len()];
        let mut drawn: Vec<&Vec<usize>> = Vec::new();
        for unit in units.values() {
            match unit.iter().find_map(given_to) {
                None => drawn.push(unit),
                Some(first) => {
                    for group in unit {
                        of_group[*group] = given_to(group).unwrap_or(first);
                    }
                }
            }
        }
        let least = least_units(shares);
        if drawn.len() == units.len() && drawn.len() < least {
            return Err(format!(
                "{} separate groups are too few for {least} splits: set {} to 0",
                drawn.len(),
                if least - drawn.len() > 1 { "--dev and --test" } else { "--dev or --test" }
            ));
        }
        let drawable: Vec<Unit<'_>> = drawn.iter().map(|unit| self.unit(unit)).collect();
        for (unit, split) in drawn.iter().zip(draw(&drawable, shares)) {
            for group in *unit {
                of_group[*group] = split;
            }
        }
        let joined = units.values().filter(|unit| unit.len() > 1).map(Vec::len).sum();
        let torn = self.torn(&of_group);
        Ok(Splits { of_group, joined, torn })
    }

    fn unit<'a>(&'a self, groups: &[usize]) -> Unit<'a> {
        let names = groups.iter().map(|group| self.groups[*group].name.as_str());
        Unit { name: names.min().unwrap_or_default(), groups: groups.len() }
    }

    /// Distinct pictures that are in more than one split.
    fn torn(&self, of_group: &[Split]) -> usize {
        let mut first: HashMap<[u8; 32], Split> = HashMap::new();
        let mut torn = HashSet::new();
        for picture in &self.pictures {
            let split = of_group[picture.group];
            if *first.entry(picture.digest).or_insert(split) != split {
                torn.insert(picture.digest);
            }
        }
        torn.len()
    }
}
