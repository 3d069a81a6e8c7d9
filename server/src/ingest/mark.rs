//! How far an ingest came: written in one transaction with the items of a chunk, so that no crash parts them.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use diptych_index::{CollectionInfo, ItemId, StoredMark, Written};
use serde::{Deserialize, Serialize};

use super::WINDOW;
use crate::error::{Error, Result};
use crate::items::{ItemWritten, Place, aligned, unsaid};

/// Before an ingest's id, in the key of its mark.
pub(super) const KEY: &str = "ingest/";
/// How long an ingest is known after its last item.
const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// What became of an item.
pub(crate) type Outcome = Result<ItemWritten>;

/// An item that is written: its id, its version, and bytes used and total where its text was cut.
type Done = (String, Written, Option<(usize, usize)>);

/// The part of a mark that is known before the engine has written the chunk. What became of the chunk is added by the engine.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    target: Target,
    /// Number of the last item of the chunk.
    durable: u64,
    /// Milliseconds since 1970.
    at_ms: u64,
    /// What became of the items before the chunk, as many as are kept.
    before: Vec<Result<Done>>,
    /// The items of the chunk.
    places: Vec<Place>,
}

/// Where an ingest writes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Target {
    /// The collection's number.
    pub(super) number: u32,
    /// The name that the caller gave.
    pub(super) name: String,
    /// Whether that is an alias.
    pub(super) alias: bool,
}

impl Target {
    pub(super) fn new(name: String, collection: &CollectionInfo) -> Self {
        let alias = collection.spec.name != name;
        Self { number: collection.number, name, alias }
    }

    /// Whether what is asked for now is what was asked for then: the same collection, or the same alias though it moved.
    pub(super) fn goes_on_as(&self, now: &Self) -> bool {
        self.number == now.number || (self.alias && self.name == now.name)
    }
}

/// How far an ingest came.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Number of the last item that is durable or refused.
    pub(super) durable: u64,
    /// What became of the last items, the last of them number `durable`.
    kept: VecDeque<Outcome>,
}

impl Progress {
    /// What became of the items with a number above `after`, as far as it is kept.
    pub(super) fn after(&self, after: u64) -> impl Iterator<Item = (u64, &Outcome)> {
        let first = self.durable + 1 - self.kept.len() as u64;
        (first..).zip(&self.kept).filter(move |(sequence, _)| *sequence > after)
    }

    /// The value of the mark for a chunk behind this.
    pub(super) fn mark(&self, target: Target, places: &[Place]) -> Result<Vec<u8>> {
        let stored = |outcome: &Outcome| match outcome {
            Ok(ItemWritten { id, written, truncation }) => {
                Ok((id.as_str().to_owned(), *written, *truncation))
            }
            Err(error) => Err(error.clone()),
        };
        let kept = WINDOW.saturating_sub(places.len()).min(self.kept.len());
        let record = Record {
            target,
            durable: self.durable + places.len() as u64,
            at_ms: now_ms(),
            before: self.kept.iter().skip(self.kept.len() - kept).map(stored).collect(),
            places: places.to_vec(),
        };
        serde_json::to_vec(&record).map_err(unsaid)
    }

    /// Goes on by a chunk.
    pub(super) fn advance(&mut self, outcomes: &[Outcome]) {
        self.durable += outcomes.len() as u64;
        self.kept.extend(outcomes.iter().cloned());
        self.kept.drain(..self.kept.len().saturating_sub(WINDOW));
    }
}

/// A mark as it was read.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) target: Target,
    pub(super) progress: Progress,
}

/// Reads a mark; `None` for one that is too old.
pub(super) fn read(mark: StoredMark) -> Result<Option<Known>> {
    let unread = |_| Error::internal("the mark of an ingest cannot be read");
    let record: Record = serde_json::from_slice(&mark.value).map_err(unread)?;
    if is_old(record.at_ms) {
        return Ok(None);
    }
    let mut kept = VecDeque::with_capacity(WINDOW);
    for outcome in record.before {
        kept.push_back(match outcome {
            Ok((id, written, truncation)) => {
                Ok(ItemWritten { id: ItemId::try_new(id)?, written, truncation })
            }
            Err(error) => Err(error),
        });
    }
    kept.extend(aligned(record.places, mark.outcome.results));
    let progress = Progress { durable: record.durable, kept };
    Ok(Some(Known { target: record.target, progress }))
}

/// The keys of marks that are to be forgotten: those too old, those beyond the newest `most`, those that nobody can read.
pub(super) fn outlived(marks: Vec<(String, StoredMark)>, most: usize) -> Vec<String> {
    #[derive(Deserialize)]
    struct Age {
        at_ms: u64,
    }
    let aged = marks.into_iter().filter(|(key, _)| key.starts_with(KEY)).map(|(key, mark)| {
        let age = serde_json::from_slice::<Age>(&mark.value);
        (age.map_or(0, |age| age.at_ms), key)
    });
    let mut aged: Vec<(u64, String)> = aged.collect();
    aged.sort_unstable_by(|a, b| b.cmp(a));
    let outlived =
        aged.into_iter().enumerate().filter(|(rank, (at, _))| *rank >= most || is_old(*at));
    outlived.map(|(_, (_, key))| key).collect()
}

fn is_old(at_ms: u64) -> bool {
    let retention = u64::try_from(RETENTION.as_millis()).unwrap_or(u64::MAX);
    at_ms.saturating_add(retention) < now_ms()
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use diptych_index::{PutOutcome, Rejection};

    use super::*;

    fn target(number: u32, name: &str, alias: bool) -> Target {
        Target { number, name: name.to_owned(), alias }
    }

    fn place(number: u64) -> Place {
        Ok((format!("item {number}"), None))
    }

    fn written(version: u64) -> Written {
        Written { version, created: true }
    }

    /// A mark after one chunk, as the engine stores it.
    fn stored(
        progress: &Progress,
        places: &[Place],
        results: Vec<Result<Written, Rejection>>,
    ) -> StoredMark {
        let value = progress.mark(target(1, "a", false), places).unwrap();
        StoredMark { value, outcome: PutOutcome { results, generation: 0, note: Vec::new() } }
    }

    #[test]
    fn a_mark_gives_back_what_became_of_the_last_items_refused_ones_among_them() {
        let mut progress = Progress::default();
        for chunk in 0..5_u64 {
            let numbers = chunk * 20 + 1..=chunk * 20 + 20;
            let mut places: Vec<Place> = numbers.clone().map(place).collect();
            places[3] = Err(Error::field("id", "is odd"));
            let mut results: Vec<Result<Written, Rejection>> =
                numbers.filter(|number| number % 20 != 4).map(|n| Ok(written(n))).collect();
            results[0] = Err(Rejection::VersionConflict { expected: 1, actual: None });
            let mark = stored(&progress, &places, results.clone());
            let read = read(mark).unwrap().unwrap().progress;
            progress.advance(&aligned(places, results));
            assert_eq!(read.durable, progress.durable);
            let said = |progress: &Progress| format!("{:?}", progress.after(0).collect::<Vec<_>>());
            assert_eq!(said(&read), said(&progress));
        }
        assert_eq!(progress.durable, 100);
        let kept: Vec<u64> = progress.after(0).map(|(sequence, _)| sequence).collect();
        assert_eq!(kept, (37..=100).collect::<Vec<_>>());
        let refused: Vec<u64> = progress
            .after(60)
            .filter(|(_, outcome)| outcome.is_err())
            .map(|(sequence, _)| sequence)
            .collect();
        assert_eq!(refused, [61, 64, 81, 84]);
    }

    #[test]
    fn an_ingest_goes_on_in_its_collection_and_with_its_alias() {
        let (before, alias) = (target(1, "a", false), target(1, "live", true));
        assert!(before.goes_on_as(&target(1, "live", true)));
        assert!(alias.goes_on_as(&target(2, "live", true)));
        assert!(!before.goes_on_as(&target(2, "a", false)), "made anew under its name");
        assert!(!alias.goes_on_as(&target(2, "other", false)));
    }

    #[test]
    fn the_oldest_marks_go_first_and_what_cannot_be_read_goes_too() {
        let progress = Progress::default();
        let mut marks: Vec<(String, StoredMark)> = Vec::new();
        for number in 0..4_u64 {
            let mut mark = stored(&progress, &[place(1)], vec![Ok(written(1))]);
            let mut record: Record = serde_json::from_slice(&mark.value).unwrap();
            record.at_ms = if number == 3 { 1 } else { record.at_ms - number * 1000 };
            mark.value = serde_json::to_vec(&record).unwrap();
            marks.push((format!("{KEY}{number}"), mark));
        }
        let mut odd = marks[0].1.clone();
        odd.value = b"odd".to_vec();
        marks.push((format!("{KEY}odd"), odd.clone()));
        marks.push(("of another".to_owned(), odd));
        let gone = outlived(marks, 2);
        assert_eq!(gone, [format!("{KEY}2"), format!("{KEY}3"), format!("{KEY}odd")]);
    }
}
