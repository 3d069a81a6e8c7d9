use std::sync::Weak;

use diptych_model::testing::tiny_bundle;

use super::*;
use crate::config::{Config, Flags};

/// Models with the tiny bundle 1 as the default, and bundle 2 in the folder that is given.
fn models() -> (tempfile::TempDir, PathBuf, Arc<Models>) {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("two");
    tiny_bundle(2).unwrap().write(&bundle).unwrap();
    let settings = Config::resolve(&Flags::default(), std::iter::empty()).unwrap().encoder;
    let decoders = Arc::new(Decoders::start(1, 1 << 30).unwrap());
    let model = Model::start(tiny_bundle(1).unwrap(), settings, &decoders).unwrap();
    let models = Arc::new(Models::new(folder.path().join("bundles"), model));
    (folder, bundle, models)
}

fn activated() -> Activated {
    Activated { at_ms: 1, previous: "another".to_owned() }
}

#[tokio::test]
async fn of_two_who_load_a_bundle_at_once_both_get_the_same() {
    let (_folder, bundle, models) = models();
    let (one, other) =
        tokio::join!(models.load(&bundle, |_| Ok(())), models.load(&bundle, |_| Ok(())));
    assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()));
    assert_eq!(models.all().len(), 2);
}

#[tokio::test]
async fn a_bundle_that_was_unloaded_is_gone_when_the_last_who_holds_it_lets_go() {
    let (_folder, bundle, models) = models();
    let model = models.load(&bundle, |_| Ok(())).await.unwrap();
    let digest = model.digest().to_owned();
    let weak: Weak<Encoder> = Arc::downgrade(model.encoder());
    models.remove(&digest);
    assert!(models.get(&digest).is_none());
    assert!(weak.upgrade().is_some_and(|encoder| encoder.embedding_digest() == digest));
    drop(model);
    // Its threads hold it too until they end.
    while weak.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn whoever_looks_while_the_default_changes_sees_one_that_is_loaded() {
    let (_folder, bundle, models) = models();
    let first = models.default_model();
    let second = models.load(&bundle, |_| Ok(())).await.unwrap();
    let (watcher, at_first) = (Arc::clone(&models), first.digest().to_owned());
    let seen = tokio::task::spawn_blocking(move || {
        for _ in 0..20_000 {
            let loaded = watcher.loaded();
            let digest = loaded.default_model().digest();
            assert!(loaded.all().any(|model| model.digest() == digest));
            let by_activation = loaded.activated().is_some_and(|activated| activated.at_ms == 1);
            assert!(by_activation || digest == at_first);
        }
    });
    while !seen.is_finished() {
        models.set_default(&second, &activated());
        models.set_default(&first, &activated());
        tokio::task::yield_now().await;
    }
    seen.await.unwrap();
}

#[tokio::test]
async fn who_holds_a_bundle_keeps_it_from_being_closed() {
    let (_folder, _, models) = models();
    let held = models.hold("").await.unwrap();
    let mut closing = Box::pin(models.close());
    let pending = std::future::poll_fn(|context| {
        std::task::Poll::Ready(closing.as_mut().poll(context).is_pending())
    });
    assert!(pending.await);
    drop(held);
    closing.await;
}
