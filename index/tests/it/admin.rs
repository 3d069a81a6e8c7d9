//! The log of changes, settings, aliases, and deletes by filter.

use std::{collections::BTreeMap, sync::Arc};

use diptych_index::{
    AliasChange, ChangeKind, CollectionUpdate, Comparison, DeleteBatch, EmbeddedEngine, Engine,
    EngineAdmin, Error, Fields, Filter, Modality, Selection, Value,
};

use crate::support::{NAME, delete_ids, id, item, many, over_engines, put, spec};

/// What a follower has that reads the whole log in steps of `limit`.
async fn follow(engine: &EmbeddedEngine, from: u64, limit: usize) -> (BTreeMap<String, u64>, u64) {
    let (mut known, mut after) = (BTreeMap::new(), from);
    loop {
        let page = engine.changes(NAME, after, limit).await.unwrap();
        assert!(page.changes.len() <= limit && page.complete);
        for change in page.changes {
            assert!(change.sequence > after, "numbers rise");
            after = change.sequence;
            match change.kind {
                ChangeKind::Put => known.insert(change.id.to_string(), change.sequence),
                ChangeKind::Deleted => known.remove(change.id.as_str()),
            };
        }
        if !page.more {
            return (known, page.generation);
        }
    }
}

#[test]
fn a_follower_of_the_log_knows_every_item_and_every_delete() {
    over_engines(|mut fixture| async move {
        put(&*fixture.engine, many("a", Modality::Image, 10)).await;
        let (known, first) = follow(&fixture.engine, 0, 3).await;
        assert_eq!((known.len(), first), (10, 10));
        fixture.engine.delete(NAME, delete_ids(&["a1", "a2", "none"])).await.unwrap();
        put(&*fixture.engine, vec![item("a3", Modality::Text, 99), item("a1", Modality::Text, 7)])
            .await;
        fixture.reopen().await;
        let (all, generation) = follow(&fixture.engine, 0, 4).await;
        assert_eq!((all.len(), generation), (9, 14));
        let entries = fixture.engine.changes(NAME, 0, 100).await.unwrap().changes;
        assert_eq!(entries.len(), 9 + 2, "one entry for each item, and the deletes");
        let newer = fixture.engine.changes(NAME, first, 100).await.unwrap().changes;
        let told: Vec<_> = newer.iter().map(|change| (change.id.as_str(), change.kind)).collect();
        let (put, deleted) = (ChangeKind::Put, ChangeKind::Deleted);
        assert_eq!(told, [("a1", deleted), ("a2", deleted), ("a3", put), ("a1", put)]);
        assert!(fixture.engine.changes(NAME, 0, 0).await.is_err());
    });
}

#[test]
fn a_collection_stops_and_begins_to_keep_sources() {
    over_engines(|mut fixture| async move {
        let source = |fixture: &crate::support::Fixture, name: &'static str| {
            let engine = Arc::clone(&fixture.engine);
            async move {
                let fields = Fields { source: true, vectors: false };
                engine.get(NAME, &[id(name)], fields).await.unwrap()[0].clone().unwrap().source
            }
        };
        put(&*fixture.engine, vec![item("before", Modality::Text, 1)]).await;
        let off = CollectionUpdate { keep_source: Some(false) };
        let info = fixture.engine.update_collection(NAME, off).await.unwrap();
        assert!(!info.spec.keep_source);
        fixture.reopen().await;
        assert!(!fixture.engine.collection(NAME).await.unwrap().spec.keep_source);
        put(&*fixture.engine, vec![item("after", Modality::Text, 2)]).await;
        assert!(source(&fixture, "before").await.is_some(), "what is stored stays");
        assert!(source(&fixture, "after").await.is_none());
        let on = CollectionUpdate { keep_source: Some(true) };
        fixture.engine.update_collection(NAME, on).await.unwrap();
        put(&*fixture.engine, vec![item("after", Modality::Text, 3)]).await;
        assert!(source(&fixture, "after").await.is_some());
        let missing = fixture.engine.update_collection("none", on).await;
        assert!(matches!(missing, Err(Error::CollectionMissing { .. })));
    });
}

fn alias(name: &str, collection: Option<&str>) -> AliasChange {
    let (name, collection) = (name.to_owned(), collection.map(str::to_owned));
    AliasChange { name, collection, ..AliasChange::default() }
}

#[test]
fn an_alias_stands_for_one_collection_and_keeps_it_from_being_dropped() {
    over_engines(|mut fixture| async move {
        let engine = Arc::clone(&fixture.engine);
        engine.create_collection(spec("other")).await.unwrap();
        assert_eq!(engine.change_alias(alias("now", Some(NAME))).await.unwrap(), None);
        assert_eq!(engine.collection("now").await.unwrap().spec.name, NAME);
        drop(engine);
        fixture.reopen().await;
        let engine = Arc::clone(&fixture.engine);
        assert_eq!(engine.collection("now").await.unwrap().spec.name, NAME);
        let dropped = engine.drop_collection(NAME).await;
        assert!(matches!(dropped, Err(Error::CollectionHasAlias { .. })), "{dropped:?}");
        let moved = engine.change_alias(alias("now", Some("other"))).await.unwrap();
        assert_eq!(moved.as_deref(), Some(NAME));
        engine.drop_collection(NAME).await.unwrap();
        engine.change_alias(alias("now", None)).await.unwrap();
        let again = engine.change_alias(alias("now", None)).await;
        assert!(matches!(again, Err(Error::AliasMissing { .. })));
        assert!(matches!(engine.collection("now").await, Err(Error::CollectionMissing { .. })));
    });
}

#[test]
fn a_name_is_a_collection_or_an_alias_and_a_change_that_expects_something_else_does_nothing() {
    over_engines(|fixture| async move {
        let engine = &fixture.engine;
        engine.change_alias(alias("now", Some(NAME))).await.unwrap();
        let taken = engine.create_collection(spec("now")).await;
        assert!(matches!(taken, Err(Error::CollectionExists { .. })), "{taken:?}");
        let taken = engine.change_alias(alias(NAME, Some(NAME))).await;
        assert!(matches!(taken, Err(Error::CollectionExists { .. })), "{taken:?}");
        let nowhere = engine.change_alias(alias("new", Some("none"))).await;
        assert!(matches!(nowhere, Err(Error::CollectionMissing { .. })), "{nowhere:?}");
        engine.create_collection(spec("other")).await.unwrap();
        for expected in [None, Some("other".to_owned())] {
            let change = AliasChange { expected: Some(expected), ..alias("now", Some("other")) };
            let refused = engine.change_alias(change).await;
            assert!(matches!(refused, Err(Error::AliasMismatch { .. })), "{refused:?}");
        }
        put(&**engine, vec![item("a", Modality::Text, 1)]).await;
        let at = |generation| AliasChange {
            at_generation: Some((NAME.to_owned(), generation)),
            note: Some(("swapped".to_owned(), vec![1])),
            ..alias("now", Some("other"))
        };
        let refused = engine.change_alias(at(0)).await;
        assert!(matches!(refused, Err(Error::GenerationMoved { actual: 1, .. })), "{refused:?}");
        assert_eq!(engine.aliases().await.unwrap()[0].collection, NAME);
        assert!(engine.notes().await.unwrap().is_empty());
        engine.change_alias(at(1)).await.unwrap();
        assert_eq!(engine.notes().await.unwrap(), [("swapped".to_owned(), vec![1])]);
        engine.put_note("swapped", None).await.unwrap();
        assert!(engine.notes().await.unwrap().is_empty());
    });
}

#[test]
fn a_delete_by_filter_deletes_what_was_counted_and_nothing_else() {
    over_engines(|fixture| async move {
        let engine = &fixture.engine;
        put(&**engine, many("a", Modality::Image, 20)).await;
        let below = |bound| {
            Selection::Filter(Arc::new(Filter::Compare {
                field: "seed".to_owned(),
                op: Comparison::Lt,
                value: Value::Int(bound),
            }))
        };
        let counted = engine.matching(NAME, &below(5)).await.unwrap();
        assert_eq!((counted.deleted, counted.not_found, counted.generation), (5, 0, 20));
        let delete = |selection, expected_count| {
            engine.delete(NAME, DeleteBatch { selection, expected_count, request: None })
        };
        let refused = delete(below(5), Some(4)).await;
        assert!(matches!(refused, Err(Error::CountMismatch { expected: 4, actual: 5 })));
        assert_eq!(engine.collection(NAME).await.unwrap().counts.images, 20);
        assert_eq!(delete(below(5), Some(5)).await.unwrap().deleted, 5);
        let left = engine.collection(NAME).await.unwrap();
        assert_eq!((left.counts.images, left.generation), (15, 25));
        let ids = Selection::Ids(vec![id("a7"), id("a0"), id("a7")]);
        let counted = engine.matching(NAME, &ids).await.unwrap();
        assert_eq!((counted.deleted, counted.not_found), (1, 1));
        assert_eq!(delete(below(100), None).await.unwrap().deleted, 15);
    });
}
