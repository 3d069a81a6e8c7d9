//! Every answer of a server against the model.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use diptych_proto::v1;
use diptych_proto::v1::item_input::Input;
use diptych_proto::v1::term::Source;
use diptych_tests::Api;
use diptych_tests::api::*;
use rand::Rng as _;
use rand::seq::IteratorRandom as _;
use rand_chacha::ChaCha8Rng;
use tonic::Status;

use super::call::{Answer, disk_refused, send};
use super::model::{Model, Seen, cosine};
use super::{DIMS, Step, THINGS, VECTORS};

/// Searches by a random vector, and items looked at one by one.
const SAMPLES: usize = 6;

/// Compares lists, counts, items, searches, and repeats of earlier requests with the model, which then knows what became of
/// the steps in doubt. These are sent again, too, so that afterwards all of them are done.
///
/// # Errors
/// Says what differs.
pub(crate) async fn check(api: &Api, model: &mut Model, rng: &mut ChaCha8Rng) -> Result<()> {
    let seen = seen(api).await?;
    let settled = model.settle(&seen)?;
    model.compare(&seen)?;
    counts(api, model).await?;
    one_by_one(api, model, rng).await?;
    searches(api, model, rng).await?;
    repeats(api, model, settled, rng).await?;
    let seen = self::seen(api).await?;
    model.compare(&seen).context("after requests were repeated")
}

/// Everything that both collections list.
async fn seen(api: &Api) -> Result<Seen> {
    let mut seen = Seen::new();
    for collection in [VECTORS, THINGS] {
        let mut versions = BTreeSet::new();
        for item in listed(api, collection).await.context("a listing")? {
            ensure!(versions.insert(item.version), "version {} is there twice", item.version);
            let key = (collection, item.id.clone());
            ensure!(seen.insert(key, item).is_none(), "an item is listed twice");
        }
    }
    Ok(seen)
}

/// All items of a collection with everything that is stored of them.
pub(crate) async fn listed(api: &Api, collection: &str) -> Result<Vec<v1::Item>, Status> {
    let request = v1::ListItemsRequest {
        collection: collection.to_owned(),
        page_size: 500,
        read_mask: mask(&["metadata", "source", "vectors"]),
        ..Default::default()
    };
    api.list(request).await
}

async fn counts(api: &Api, model: &Model) -> Result<()> {
    let known = |collection: &v1::Collection| [VECTORS, THINGS].contains(&collection.name.as_str());
    for collection in super::collections(api).await?.into_iter().filter(known) {
        let name = collection.name.as_str();
        ensure!(
            collection.state() == v1::CollectionState::Ready,
            "{name} is {:?}",
            collection.state()
        );
        let versions =
            model.items.iter().filter(|(key, _)| key.0 == name).map(|(_, (_, version))| *version);
        let (count, newest) =
            versions.fold((0, 0), |(count, newest), version| (count + 1, newest.max(version)));
        let told = collection.counts.unwrap_or_default();
        ensure!(told.images + told.texts == count, "{name}: {told:?}, not {count} items");
        let generation = collection.generation;
        ensure!(generation >= newest, "{name}: generation {generation} before version {newest}");
    }
    Ok(())
}

async fn one_by_one(api: &Api, model: &Model, rng: &mut ChaCha8Rng) -> Result<()> {
    for ((collection, id), (input, version)) in model.items.iter().choose_multiple(rng, SAMPLES) {
        let item = api.get(collection, id).await.with_context(|| format!("{collection}/{id}"))?;
        ensure!(
            item.version == *version && item.group == input.group,
            "{id} is read otherwise than listed"
        );
        let target = v1::Modality::try_from(item.modality)?;
        // Its own vector finds it; another item may lie at the same place.
        let request =
            v1::SearchRequest { limit: 5, exact: true, ..ask(collection, target, by_item(id)) };
        let hits = api.hits(request).await?;
        ensure!(
            hits.first().is_some_and(|hit| hit.score > 1.0 - 1e-5),
            "{id} finds not even itself"
        );
        let group = v1::ListItemsRequest {
            collection: (*collection).to_owned(),
            group: input.group.clone(),
            ..Default::default()
        };
        let listed: BTreeSet<String> =
            api.list(group).await?.into_iter().map(|item| item.id).collect();
        let expected: BTreeSet<String> = model
            .items
            .iter()
            .filter(|(key, (item, _))| key.0 == *collection && item.group == input.group)
            .map(|(key, _)| key.1.clone())
            .collect();
        ensure!(listed == expected, "group {}: {listed:?}, not {expected:?}", input.group);
    }
    Ok(())
}

/// The nearest of random vectors, with and without a condition, exactly and by whatever way the server takes.
async fn searches(api: &Api, model: &Model, rng: &mut ChaCha8Rng) -> Result<()> {
    for number in 0..SAMPLES {
        let query: Vec<f32> = (0..DIMS.0).map(|_| rng.random_range(-1.0..1.0)).collect();
        let target = if rng.random() { v1::Modality::Image } else { v1::Modality::Text };
        let tag = (number % 2 == 1).then_some(["a", "b", "c"][number / 2 % 3]);
        let scores = scores(model, &query, target, tag);
        for exact in [true, false] {
            let request = v1::SearchRequest {
                exact,
                limit: 20,
                filter: tag.map(|tag| equals("tag", text_value(tag))),
                ..ask(VECTORS, target, Source::Vector(packed(&query)))
            };
            let reply = api.search().search(request).await?.into_inner();
            let cut = reply.info.is_some_and(|info| info.cut);
            nearest(&scores, &reply.hits, exact || !cut)
                .with_context(|| format!("exact: {exact}, tag: {tag:?}"))?;
        }
    }
    Ok(())
}

/// Every item that a search may find, with its score, best first.
fn scores<'m>(
    model: &'m Model,
    query: &[f32],
    target: v1::Modality,
    tag: Option<&str>,
) -> Vec<(f64, &'m str)> {
    let vector = |input: &v1::ItemInput| match &input.input {
        Some(Input::Vectors(vectors)) => vectors.shared.as_ref().map(components),
        _ => None,
    };
    let mut scores: Vec<(f64, &str)> = model
        .items
        .iter()
        .filter(|(key, (input, _))| {
            let tagged = tag.is_none_or(|tag| input.metadata.get("tag") == Some(&text_value(tag)));
            key.0 == VECTORS && input.modality() == target && tagged
        })
        .filter_map(|(key, (input, _))| Some((cosine(query, &vector(input)?), key.1.as_str())))
        .collect();
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    scores
}

/// Hits are of what there is, in order, none twice, each with its score; the best there are, where the answer is said to be right.
fn nearest(scores: &[(f64, &str)], hits: &[v1::Hit], right: bool) -> Result<()> {
    const CLOSE: f64 = 1e-5;
    let ids: BTreeSet<&str> = hits.iter().map(|hit| hit.id.as_str()).collect();
    ensure!(ids.len() == hits.len(), "an item is found twice");
    ensure!(hits.len() == scores.len().min(20), "{} hits of {}", hits.len(), scores.len());
    for (place, hit) in hits.iter().enumerate() {
        let own = scores.iter().find(|(_, id)| *id == hit.id);
        let (own, _) = own.with_context(|| format!("{} is found and was not there", hit.id))?;
        ensure!((own - hit.score).abs() < CLOSE, "{} scores {}, not {own}", hit.id, hit.score);
        let best = scores[place].0;
        ensure!(
            !right || (best - hit.score).abs() < CLOSE,
            "place {place} has {}, not {best}",
            hit.score
        );
    }
    Ok(())
}

/// Requests that were answered get the same answer, and do nothing; those in doubt are done once.
async fn repeats(
    api: &Api,
    model: &mut Model,
    settled: Vec<(Step, bool)>,
    rng: &mut ChaCha8Rng,
) -> Result<()> {
    let known = model.answers.iter().choose_multiple(rng, SAMPLES);
    for (step, answer) in known {
        let again = send(api, step).await.context("a repeat")?;
        ensure!(again == *answer, "{again:?} to the repeat of {step:?}, {answer:?} the first time");
    }
    for (step, done) in settled {
        let before = model.clone();
        let again = match send(api, &step).await {
            Err(status) if !done && disk_refused(&status) => {
                model.doubts.push(step);
                continue;
            }
            again => again.context("a repeat of what was in doubt")?,
        };
        if !done {
            model.note(&step, Some(&again))?;
            continue;
        }
        match &again {
            Answer::Put(versions) => {
                let stored: Vec<_> = step
                    .effects
                    .keys()
                    .map(|key| before.items.get(key).map(|(_, version)| *version))
                    .collect();
                let same = BTreeSet::from_iter(versions) == BTreeSet::from_iter(&stored);
                ensure!(same, "done twice: {again:?} after {stored:?}, {step:?}");
            }
            // What the first one did, not what a second one would find.
            Answer::Deleted(deleted, _) => {
                ensure!(*deleted > 0, "the first answer is forgotten: {step:?}");
            }
        }
    }
    Ok(())
}
