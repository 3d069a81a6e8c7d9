use std::collections::BTreeSet;

use super::*;

#[test]
fn the_table_is_sorted_and_without_repetition() {
    let names = OBJECTIVES.map(|entry| entry.name);
    let sorted: BTreeSet<&str> = names.into_iter().collect();
    assert_eq!(sorted.into_iter().collect::<Vec<_>>(), names);
}

#[test]
fn an_unknown_objective_is_refused_with_the_known_ones() {
    let message = build(&toml::from_str("kind = \"vsse\"").unwrap()).unwrap_err().to_string();
    assert!(message.contains("`vsse`; known: centroid, split"), "{message}");
}

#[test]
fn unknown_and_impossible_settings_are_refused_by_name() {
    for (settings, named) in [
        ("kind = \"split\"\nmargin = 1", "margin"),
        ("kind = \"split\"\nexclusive_weight = -1.0", "exclusive_weight"),
        ("kind = \"split\"\nexclusive_temperature = 0.0", "exclusive_temperature"),
        ("kind = \"centroid\"\nconcept_to_text_weight = inf", "concept_to_text_weight"),
        ("margin = 1", "kind"),
    ] {
        let message = build(&toml::from_str(settings).unwrap()).unwrap_err().to_string();
        assert!(message.contains(named), "{message} does not name {named}");
    }
}

#[test]
fn a_player_trains_what_its_prefixes_name() {
    let player = Player { name: "texts", prefixes: &["text.", "logit_scale"] };
    assert!(player.trains("text.tower.table.weight") && player.trains("logit_scale"));
    assert!(!player.trains("image.tower.stem.conv.weight"));
}
