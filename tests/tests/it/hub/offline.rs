//! What the cache has, without a hub; and a cache that is not what was fetched.

use super::*;

const OFFLINE: [(&str, &str); 1] = [("HF_HUB_OFFLINE", "1")];

#[tokio::test]
async fn without_a_hub_the_cache_serves_or_says_what_it_lacks() {
    let setup = Setup::new().await;
    for spec in ["hf:org/name@main", &pinned()] {
        let told = said(&setup.run(spec, &OFFLINE, &[]).await);
        assert!(told.contains("HF_HUB_OFFLINE is set"), "{told}");
        assert!(told.contains(&format!("diptych-server pull {spec}")), "{told}");
    }
    assert_eq!(setup.hub.requests(), []);
    let folder = setup.pull("hf:org/name@main").await;
    let asked = setup.hub.requests().len();
    for spec in ["hf:org/name", "hf:org/name@main", &pinned()] {
        assert_eq!(folder_of(&setup.run(spec, &OFFLINE, &[]).await), folder, "{spec}");
    }
    assert_eq!(setup.hub.requests().len(), asked);
}

#[tokio::test]
async fn what_another_client_fetched_is_served_without_a_hub() {
    let setup = Setup::new().await;
    setup.pull("hf:org/name").await;
    // Without our part of it, the cache is as another client leaves it.
    std::fs::remove_dir_all(setup.cache().join("diptych")).unwrap();
    let folder = folder_of(&setup.run("hf:org/name", &OFFLINE, &[]).await);
    assert_eq!(contents(&folder), needed());

    std::fs::remove_dir_all(setup.cache().join("diptych")).unwrap();
    std::fs::remove_file(setup.cache().join("snapshots").join(COMMIT).join("model.safetensors"))
        .unwrap();
    let told = said(&setup.run("hf:org/name", &OFFLINE, &[]).await);
    assert!(told.contains("lacks the weights"), "{told}");
}

#[tokio::test]
async fn a_cache_that_changed_is_noticed_and_mended_where_the_hub_is_asked() {
    let setup = Setup::new().await;
    let folder = setup.pull(&pinned()).await;
    let file = folder.join("config.json");
    std::fs::write(&file, b"{ }").unwrap();
    let told = said(&setup.run(&pinned(), &OFFLINE, &[]).await);
    assert!(told.contains("config.json") && told.contains("not what was fetched"), "{told}");
    let output = setup.run(&pinned(), &[], &[]).await;
    assert_eq!(contents(&folder_of(&output)), needed());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("not what was fetched"), "{told}");
    std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    assert_eq!(contents(&setup.pull(&pinned()).await), needed());
}

#[tokio::test]
async fn a_hub_that_is_away_keeps_no_branch_from_being_served() {
    let setup = Setup::new().await;
    let folder = setup.pull("hf:org/name@main").await;
    let away = [("HF_ENDPOINT", "http://127.0.0.1:9")];
    let output = setup.run("hf:org/name@main", &away, &[]).await;
    assert_eq!(folder_of(&output), folder);
    assert!(String::from_utf8_lossy(&output.stderr).contains("serving what the cache has"));
    let told = said(&setup.run("hf:org/name@v1", &away, &[]).await);
    assert!(told.contains("gives no answer after 5 tries"), "{told}");
}

#[tokio::test]
async fn the_cache_is_where_its_variables_say() {
    let setup = Setup::new().await;
    let elsewhere = TempDir::new().unwrap();
    let variables = [("HF_HUB_CACHE", elsewhere.path().to_str().unwrap())];
    let folder = folder_of(&setup.run(&pinned(), &variables, &[]).await);
    assert!(folder.starts_with(elsewhere.path()), "{}", folder.display());
    assert!(!setup.cache().exists());
}
