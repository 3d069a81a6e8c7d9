//! Collections and items: put, get, list, delete.

use std::sync::Arc;

use diptych_index::{
    Comparison, Engine, Error, Fields, Filter, Kind, Modality, Rejection, Scan, Selection, Space,
    Value,
};

use crate::support::{
    NAME, delete_ids, id, item, many, names, nearest, over_engines, put, spec, vector,
};

const ALL: Fields = Fields { source: true, vectors: true };

#[test]
fn what_is_put_is_got_back() {
    over_engines(|mut fixture| async move {
        let mut new = item("a", Modality::Image, 7);
        new.group = Some("g".to_owned());
        new.source = Some(vec![7; 200_000]);
        let outcome = put(&*fixture.engine, vec![new.clone()]).await;
        let written = outcome.results[0].clone().unwrap();
        assert!(written.created);
        for _ in 0..2 {
            let found = fixture.engine.get(NAME, &[id("a"), id("b")], ALL).await.unwrap();
            assert!(found[1].is_none());
            let found = found[0].as_ref().unwrap();
            assert_eq!(found.version, written.version);
            assert_eq!(found.modality, Modality::Image);
            assert_eq!(found.group, new.group);
            assert_eq!(found.metadata, new.metadata);
            assert_eq!(found.source, new.source);
            assert_eq!(found.source_bytes, 200_000);
            let shared = found.vectors.shared.as_ref().unwrap();
            let length: f32 = shared.iter().map(|x| x * x).sum();
            assert!((length - 1.0).abs() < 1e-6, "vectors have unit length");
            fixture.reopen().await;
        }
    });
}

#[test]
fn a_second_put_replaces_the_first() {
    over_engines(|mut fixture| async move {
        let first = put(&*fixture.engine, vec![item("a", Modality::Image, 1)]).await;
        let second = put(&*fixture.engine, vec![item("a", Modality::Text, 2)]).await;
        let (first, second) =
            (first.results[0].clone().unwrap(), second.results[0].clone().unwrap());
        assert!(first.created && !second.created);
        assert!(second.version > first.version);
        for _ in 0..2 {
            let info = fixture.engine.collection(NAME).await.unwrap();
            assert_eq!((info.counts.images, info.counts.texts), (0, 1));
            let pictures = nearest(Modality::Image, vector(1, 19), 5);
            assert!(fixture.engine.nearest(NAME, pictures).await.unwrap().neighbours.is_empty());
            let texts = nearest(Modality::Text, vector(2, 19), 5);
            assert_eq!(names(&fixture.engine.nearest(NAME, texts).await.unwrap()), ["a"]);
            fixture.reopen().await;
        }
    });
}

#[test]
fn a_deleted_item_is_gone_and_a_second_delete_counts_it_as_not_found() {
    over_engines(|mut fixture| async move {
        put(&*fixture.engine, many("t", Modality::Text, 30)).await;
        let batch = delete_ids(&["t3", "t4", "nobody", "t3"]);
        let outcome = fixture.engine.delete(NAME, batch.clone()).await.unwrap();
        assert_eq!((outcome.deleted, outcome.not_found), (2, 1));
        let outcome = fixture.engine.delete(NAME, batch).await.unwrap();
        assert_eq!((outcome.deleted, outcome.not_found), (0, 3));
        for _ in 0..2 {
            let found = fixture.engine.get(NAME, &[id("t3")], ALL).await.unwrap();
            assert!(found[0].is_none());
            let query = nearest(Modality::Text, vector(3, 19), 100);
            let found = fixture.engine.nearest(NAME, query).await.unwrap();
            assert_eq!(found.neighbours.len(), 28);
            assert!(!names(&found).contains(&"t3"));
            fixture.reopen().await;
        }
    });
}

#[test]
fn a_group_is_deleted_whole_and_alone() {
    over_engines(|fixture| async move {
        let mut items = many("t", Modality::Text, 12);
        for (i, item) in items.iter_mut().enumerate() {
            item.group = Some(format!("g{}", i % 3));
        }
        // Replaced into another group: the old membership is gone.
        let mut moved = items[0].clone();
        moved.group = Some("g1".to_owned());
        put(&*fixture.engine, items).await;
        put(&*fixture.engine, vec![moved]).await;
        let selection = Selection::Group("g0".to_owned());
        let batch = diptych_index::DeleteBatch { selection, expected_count: None, request: None };
        let outcome = fixture.engine.delete(NAME, batch).await.unwrap();
        assert_eq!((outcome.deleted, outcome.not_found), (3, 0));
        let scan = Scan { limit: 100, group: Some("g1".to_owned()), ..Scan::default() };
        let page = fixture.engine.scan(NAME, scan).await.unwrap();
        let found: Vec<&str> = page.items.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(found, ["t0", "t1", "t10", "t4", "t7"]);
    });
}

#[test]
fn a_listing_pages_through_everything_in_the_order_of_ids() {
    over_engines(|fixture| async move {
        put(&*fixture.engine, many("t", Modality::Text, 25)).await;
        put(&*fixture.engine, many("p", Modality::Image, 25)).await;
        let filter =
            Filter::Compare { field: "seed".to_owned(), op: Comparison::Lt, value: Value::Int(20) };
        let mut scan = Scan {
            limit: 7,
            modality: Some(Modality::Text),
            filter: Some(Arc::new(filter)),
            ..Scan::default()
        };
        let mut found = Vec::new();
        loop {
            let page = fixture.engine.scan(NAME, scan.clone()).await.unwrap();
            assert!(page.items.len() <= 7);
            found.extend(page.items.into_iter().map(|item| item.id.to_string()));
            scan.after = page.next;
            if scan.after.is_none() {
                break;
            }
        }
        let mut expected: Vec<String> = (0..20).map(|seed| format!("t{seed}")).collect();
        expected.sort();
        assert_eq!(found, expected);
    });
}

#[test]
fn expected_versions_are_kept() {
    over_engines(|fixture| async move {
        let with = |version| {
            let mut new = item("a", Modality::Text, 1);
            new.expected_version = Some(version);
            vec![new]
        };
        let missing = put(&*fixture.engine, with(3)).await.results[0].clone();
        assert_eq!(missing, Err(Rejection::VersionConflict { expected: 3, actual: None }));
        let first = put(&*fixture.engine, with(0)).await.results[0].clone().unwrap();
        let again = put(&*fixture.engine, with(0)).await.results[0].clone();
        let actual = Some(first.version);
        assert_eq!(again, Err(Rejection::VersionConflict { expected: 0, actual }));
        assert!(put(&*fixture.engine, with(first.version)).await.results[0].is_ok());
    });
}

#[test]
fn a_bad_item_is_refused_by_field_and_spares_its_neighbours() {
    type Spoil = fn(&mut diptych_index::NewItem);
    let cases: [(&str, Kind, Spoil); 8] = [
        ("vectors.shared", Kind::Invalid, |i| i.vectors.shared = Some(vec![1.0; 18])),
        ("vectors.shared", Kind::Invalid, |i| i.vectors.shared = Some(vec![0.0; 19])),
        ("vectors.shared", Kind::Invalid, |i| i.vectors.shared = Some(vec![f32::NAN; 19])),
        ("vectors.shared", Kind::Invalid, |i| i.vectors.shared = None),
        ("vectors.exclusive", Kind::Invalid, |i| {
            i.vectors.exclusive = Some(vec![f32::INFINITY; 5]);
        }),
        ("group", Kind::Limit, |i| i.group = Some("g".repeat(257))),
        ("group", Kind::Invalid, |i| i.group = Some(String::new())),
        ("metadata.x", Kind::Invalid, |i| {
            i.metadata.insert("x".to_owned(), Value::Float(f64::NAN));
        }),
    ];
    over_engines(|fixture| async move {
        for (field, kind, spoil) in cases {
            let mut bad = item("bad", Modality::Image, 2);
            spoil(&mut bad);
            let items = vec![item("x", Modality::Image, 1), bad, item("y", Modality::Image, 3)];
            let outcome = put(&*fixture.engine, items).await;
            let rejection = outcome.results[1].clone().unwrap_err();
            assert_eq!((rejection.field(), rejection.kind()), (field, kind), "{rejection}");
            assert!(outcome.results[0].is_ok() && outcome.results[2].is_ok());
        }
        assert_eq!(fixture.engine.collection(NAME).await.unwrap().counts.images, 2);
    });
}

#[test]
fn a_bad_query_is_refused_by_field() {
    over_engines(|fixture| async move {
        for bad in [vec![1.0; 18], vec![0.0; 19], vec![f32::NAN; 19], Vec::new()] {
            let query = nearest(Modality::Image, bad, 3);
            let error = fixture.engine.nearest(NAME, query).await.unwrap_err();
            assert_eq!((error.kind(), error.field()), (Kind::Invalid, Some("vector")));
        }
        let deep = (0..8).fold(Filter::And(vec![]), |inner, _| Filter::Not(Box::new(inner)));
        let mut query = nearest(Modality::Image, vector(1, 19), 3);
        query.filter = Some(Arc::new(deep));
        let error = fixture.engine.nearest(NAME, query).await.unwrap_err();
        assert_eq!((error.kind(), error.field()), (Kind::Limit, Some("filter")));
    });
}

#[test]
fn ids_have_1_to_256_bytes() {
    use diptych_index::ItemId;
    assert_eq!(ItemId::try_new("").unwrap_err().kind(), Kind::Invalid);
    assert!(ItemId::try_new("é".repeat(128)).is_ok());
    let error = ItemId::try_new("x".repeat(300)).unwrap_err();
    assert_eq!(error.to_string(), "id: 300 bytes, the limit is 256");
    over_engines(|fixture| async move {
        let long = "x".repeat(256);
        let outcome = put(&*fixture.engine, vec![item(&long, Modality::Image, 1)]).await;
        assert!(outcome.results[0].is_ok());
        let query = nearest(Modality::Image, vector(1, 19), 1);
        assert_eq!(names(&fixture.engine.nearest(NAME, query).await.unwrap()), [long]);
    });
}

#[test]
fn collections_are_made_listed_and_dropped() {
    over_engines(|mut fixture| async move {
        let error = fixture.engine.create_collection(spec(NAME)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Exists);
        for bad in ["", "-a", "a b", "a/b", "é"] {
            let error = fixture.engine.create_collection(spec(bad)).await.unwrap_err();
            assert_eq!(error.field(), Some("name"), "{bad:?}");
        }
        fixture.engine.create_collection(spec("other")).await.unwrap();
        let mut large = item("a", Modality::Image, 1);
        large.source = Some(vec![1; 100_000]);
        put(&*fixture.engine, vec![large, item("b", Modality::Text, 2)]).await;
        fixture.engine.drop_collection(NAME).await.unwrap();
        fixture.reopen().await;
        let error = fixture.engine.collection(NAME).await.unwrap_err();
        assert!(matches!(error, Error::CollectionMissing { .. }));
        fixture.engine.create_collection(spec(NAME)).await.unwrap();
        let listed = fixture.engine.collections().await.unwrap();
        let listed: Vec<_> =
            listed.iter().map(|c| (c.spec.name.as_str(), c.counts.total())).collect();
        assert_eq!(listed, [("other", 0), (NAME, 0)]);
        assert!(fixture.engine.get(NAME, &[id("a")], ALL).await.unwrap()[0].is_none());
    });
}

#[test]
fn sources_are_kept_only_where_the_collection_keeps_them() {
    over_engines(|fixture| async move {
        let mut plain = spec("plain");
        plain.keep_source = false;
        plain.dims.exclusive_text = None;
        fixture.engine.create_collection(plain).await.unwrap();
        let mut new = item("a", Modality::Text, 1);
        new.vectors.exclusive = None;
        let batch = diptych_index::PutBatch { items: vec![new], ..Default::default() };
        assert!(fixture.engine.put("plain", batch).await.unwrap().results[0].is_ok());
        let found = fixture.engine.get("plain", &[id("a")], ALL).await.unwrap();
        assert_eq!(found[0].as_ref().unwrap().source, None);
        let ids = [id("a")];
        let vectors = fixture.engine.vectors("plain", &ids, Space::Exclusive).await.unwrap();
        assert_eq!(vectors[0].as_ref().unwrap().vector, None);
    });
}

#[test]
fn a_closed_engine_answers_closed() {
    over_engines(|fixture| async move {
        assert!(fixture.engine.is_alive());
        fixture.engine.close().await.unwrap();
        fixture.engine.close().await.unwrap();
        assert!(!fixture.engine.is_alive());
        let batch = diptych_index::PutBatch::default();
        for error in [
            fixture.engine.collection(NAME).await.unwrap_err(),
            fixture.engine.put(NAME, batch).await.unwrap_err(),
            fixture.engine.get(NAME, &[id("a")], ALL).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::Closed), "{error}");
        }
    });
}
