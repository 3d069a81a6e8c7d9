use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::scene::Phrasing;
use super::*;
use crate::shards::Dataset;

fn args(out: &Path) -> ShapesArgs {
    ShapesArgs { out: out.to_path_buf(), size: 24, pictures: 3, dev: 0.1, test: 0.2, seed: 1 }
}

#[test]
fn every_scene_has_its_own_name_and_its_own_captions() {
    let scenes = Scene::all();
    // 5 shapes, 2 sizes, 4 numbers, 4 places, 4 companions.
    assert_eq!(scenes.len(), 640);
    let names: BTreeSet<String> = scenes.iter().map(Scene::name).collect();
    assert_eq!(names.len(), 640);
    for phrasing in PHRASINGS {
        let captions: BTreeSet<String> = scenes.iter().map(|s| s.caption(phrasing)).collect();
        assert_eq!(captions.len(), 640, "{phrasing:?}");
    }
    // Two large circles at the right, with an arrow.
    let caption = |phrasing| scenes[16 + 4 + 2].caption(phrasing);
    assert_eq!(caption(Phrasing::Plain), "two large circles at the right beside an arrow");
    assert_eq!(
        caption(Phrasing::Telegram),
        "right stop large circles stop two in all stop arrow stop"
    );
}

#[test]
fn content_is_in_both_and_looks_and_phrasing_in_one_alone() {
    let out = tempfile::tempdir().unwrap();
    let report = run(&args(out.path())).unwrap();
    let counts = &report.manifest.counts;
    assert_eq!((counts.groups, counts.images, counts.texts), (640, 1920, 2560));
    assert_eq!(counts.images_by_split[&Split::Test], 384);
    assert_eq!(counts.texts_by_lang.len(), 4);
    let mut content: BTreeMap<String, BTreeSet<Vec<Option<String>>>> = BTreeMap::new();
    let mut looks: BTreeMap<String, BTreeSet<Vec<Option<String>>>> = BTreeMap::new();
    for row in Dataset::open(out.path()).unwrap().images() {
        let row = row.unwrap();
        let (scene, look) = row.labels.split_at(5);
        content.entry(row.group.clone()).or_default().insert(scene.to_vec());
        looks.entry(row.group).or_default().insert(look.to_vec());
    }
    assert!(content.values().all(|labels| labels.len() == 1));
    assert!(looks.values().all(|labels| labels.len() == 3));
    for scene in Scene::all() {
        for phrasing in PHRASINGS {
            let words = scene.caption(phrasing);
            let said = scene.labels().iter().all(|label| words.contains(label));
            assert!(
                said && !PALETTES.iter().any(|palette| words.contains(palette.name)),
                "{words}"
            );
        }
    }
}

#[test]
fn palette_and_texture_change_a_picture_and_its_scene_stays_where_it_is() {
    let scene = Scene::all()[0];
    let pixels = |palette: usize, texture: usize| {
        let body = scene.drawing(&PALETTES[palette], TEXTURES[texture], [0.0; 2]);
        let png = raster::rasterise(&body, scene::VIEW_BOX, 48).unwrap();
        image::load_from_memory(&png).unwrap().to_rgb8()
    };
    // One large circle at the left, around a quarter of the way, beside nothing: ink there, paper in the corner.
    let night = pixels(0, 0);
    assert_eq!(night.get_pixel(12, 24).0, [0xff, 0xe0, 0x66]);
    assert_eq!(night.get_pixel(36, 24).0, [0x1b, 0x2a, 0x4a]);
    assert_eq!(night.get_pixel(1, 1).0, [0x1b, 0x2a, 0x4a]);
    // Outlined, the middle is paper.
    assert_eq!(pixels(0, 1).get_pixel(12, 24).0, [0x1b, 0x2a, 0x4a]);
    assert_eq!(pixels(3, 1).get_pixel(12, 24).0, [0xd9, 0xf3, 0xff]);
    assert_ne!(pixels(0, 2), night);
}

#[test]
fn the_same_seed_gives_the_same_files_and_a_share_out_of_range_is_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = |out: &Path| run(&args(out)).unwrap().manifest.files;
    assert_eq!(files(one.path()), files(two.path()));
    let error = run(&ShapesArgs { dev: 0.7, ..args(one.path()) }).unwrap_err().to_string();
    assert!(error.contains("--dev"), "{error}");
}
