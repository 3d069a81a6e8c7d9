//! What must be in the store.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use diptych_proto::v1;
use diptych_proto::v1::item_input::Input;
use diptych_tests::api::components;

use super::plan::{Step, Work};
use super::{Answer, Entry, Key};

/// Items as a server lists them.
pub(crate) type Seen = BTreeMap<Key, v1::Item>;

/// What was acknowledged, and what may have been done besides.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// Each item as it was put last, with its version.
    pub(crate) items: BTreeMap<Key, (v1::ItemInput, u64)>,
    /// Steps without an answer, at most one of each writer.
    pub(crate) doubts: Vec<Step>,
    /// Steps that were refused: surely not done.
    pub(crate) refused: Vec<Step>,
    /// Steps that were answered, oldest first; a repeat must get the same answer.
    pub(crate) answers: Vec<(Step, Answer)>,
}

/// Answers that a model remembers.
const ANSWERS: usize = 40;

impl Model {
    /// The model at a moment, of a history in which each writer's steps are in order.
    pub(crate) fn at(history: &[Entry], moment: u64) -> Result<Self> {
        let mut model = Self::default();
        for entry in history.iter().filter(|entry| entry.sent <= moment) {
            let answered = entry.answered.as_ref().filter(|(at, _)| *at <= moment);
            model.note(&entry.step, answered.map(|(_, answer)| answer))?;
        }
        Ok(model)
    }

    /// Takes in a step with its answer, or that it had none.
    ///
    /// # Errors
    /// When the answer cannot be right.
    pub(crate) fn note(&mut self, step: &Step, answer: Option<&Answer>) -> Result<()> {
        let Some(answer) = answer else {
            self.doubts.push(step.clone());
            return Ok(());
        };
        self.apply(step, answer).with_context(|| format!("{answer:?} to {step:?}"))?;
        if !step.effects.is_empty() {
            self.answers.push((step.clone(), answer.clone()));
        }
        let surplus = self.answers.len().saturating_sub(ANSWERS);
        self.answers.drain(..surplus);
        Ok(())
    }

    fn apply(&mut self, step: &Step, answer: &Answer) -> Result<()> {
        match (&step.work, answer) {
            (Work::Put(items), Answer::Put(versions)) => {
                ensure!(items.len() == versions.len(), "not an outcome for each item");
                for ((item, _), version) in items.iter().zip(versions) {
                    let key = (step.collection, item.id.clone());
                    let wanted = step.effects.contains_key(&key);
                    ensure!(
                        wanted == version.is_some(),
                        "{} was refused or taken wrongly",
                        item.id
                    );
                    let Some(version) = *version else { continue };
                    let before = self.items.insert(key, (item.clone(), version));
                    let grown = before.is_none_or(|(_, before)| before < version);
                    ensure!(grown, "the version of {} does not grow", item.id);
                }
            }
            (Work::Delete(_) | Work::DeleteGroup(_), Answer::Deleted(deleted, _)) => {
                let there =
                    step.effects.keys().filter(|key| self.items.remove(key).is_some()).count();
                ensure!(*deleted == there as u64, "{there} were there");
            }
            _ => bail!("the answer of another kind"),
        }
        Ok(())
    }

    /// Finds out which doubtful steps were done, takes them in, and gives all of them, each with whether it was.
    ///
    /// # Errors
    /// When one was done in part, or something else was done.
    pub(crate) fn settle(&mut self, seen: &Seen) -> Result<Vec<(Step, bool)>> {
        for step in std::mem::take(&mut self.refused) {
            ensure!(!self.was_done(&step, seen)?, "refused and done: {step:?}");
        }
        let doubts = std::mem::take(&mut self.doubts);
        let mut settled = Vec::new();
        for step in doubts {
            let done = self.was_done(&step, seen)?;
            if done {
                for (key, item) in &step.effects {
                    match item {
                        Some(item) => {
                            let version = seen.get(key).map_or(0, |item| item.version);
                            self.items.insert(key.clone(), (item.clone(), version));
                        }
                        None => drop(self.items.remove(key)),
                    }
                }
            }
            settled.push((step, done));
        }
        Ok(settled)
    }

    fn was_done(&self, step: &Step, seen: &Seen) -> Result<bool> {
        let mut told = None;
        for (key, after) in &step.effects {
            let before = self.items.get(key).map(|(_, version)| *version);
            let now = seen.get(key).map(|item| item.version);
            if before.is_none() && after.is_none() {
                // Deleting what was not there: both ways are the same.
                ensure!(now.is_none(), "{key:?} came from nowhere");
                continue;
            }
            let done = now != before;
            ensure!(
                !done || now.is_some() == after.is_some(),
                "{key:?} has version {now:?} after {before:?}"
            );
            ensure!(*told.get_or_insert(done) == done, "{step:?} was done in part");
        }
        Ok(told.unwrap_or(false))
    }

    /// Compares everything that is listed, one for one.
    ///
    /// # Errors
    /// Names the first item that is lost, changed or too much.
    pub(crate) fn compare(&self, seen: &Seen) -> Result<()> {
        for (key, (input, version)) in &self.items {
            let item =
                seen.get(key).with_context(|| format!("{key:?} of version {version} is lost"))?;
            ensure!(
                item.version == *version,
                "{key:?} has version {}, not {version}",
                item.version
            );
            same_content(input, item).with_context(|| format!("{key:?}"))?;
        }
        for (key, item) in seen {
            ensure!(
                self.items.contains_key(key),
                "{key:?} of version {} came back or from nowhere",
                item.version
            );
        }
        Ok(())
    }
}

/// Whether a stored item is what was put.
pub(crate) fn same_content(input: &v1::ItemInput, item: &v1::Item) -> Result<()> {
    ensure!(item.group == input.group, "group {:?}, not {:?}", item.group, input.group);
    ensure!(item.metadata == input.metadata, "other metadata");
    let kept = item.source.as_ref().and_then(|source| source.content.as_ref());
    match input.input.as_ref().context("an item of nothing")? {
        Input::Text(text) => {
            ensure!(kept == Some(&v1::source::Content::Text(text.clone())), "another text");
        }
        Input::Image(image) => {
            ensure!(kept == Some(&v1::source::Content::Image(image.clone())), "another picture");
        }
        Input::Vectors(vectors) => {
            ensure!(kept.is_none() && item.modality == input.modality, "another kind");
            let stored = item.vectors.as_ref().context("no vectors")?;
            let pairs =
                [(&vectors.shared, &stored.shared), (&vectors.exclusive, &stored.exclusive)];
            for (put, stored) in pairs {
                let (put, stored) =
                    (put.as_ref().context("none put")?, stored.as_ref().context("none kept")?);
                let near = cosine(&components(put), &components(stored)) > 1.0 - 1e-6;
                ensure!(near, "another vector");
            }
        }
    }
    Ok(())
}

/// Cosine of two vectors of one length.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
