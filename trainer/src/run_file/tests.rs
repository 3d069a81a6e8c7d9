use super::*;

const SMALLEST: &str = r#"
name = "tiny"
domain = "dots"
seed = 1
data.folder = "data/tiny"

[[stages]]
name = "joint"
steps = 10
batch = { concepts = 4, texts_per_concept = 1, second_pictures = 2, second_texts = 2 }
objective = { kind = "split" }
groups = [{ prefixes = [""], learning_rate = 1e-3 }]
"#;

fn parse(text: &str) -> Result<RunFile> {
    RunFile::parse(text, Path::new("run.toml"))
}

/// The smallest run with one thing replaced fails with a message that names `field`.
fn refused(from: &str, to: &str, field: &str) {
    assert!(SMALLEST.contains(from), "{from}");
    let message = parse(&SMALLEST.replace(from, to)).unwrap_err().to_string();
    assert!(message.contains(field), "{message} does not name {field}");
}

#[test]
fn the_smallest_run_is_taken_and_survives_a_round_trip() {
    let run = parse(SMALLEST).unwrap();
    let again = parse(&run.to_toml().unwrap()).unwrap();
    assert_eq!(run.digest().unwrap(), again.digest().unwrap());
}

#[test]
fn what_is_wrong_is_named() {
    refused("steps = 10", "steps = 0", "stages[0].steps");
    refused("steps = 10", "step = 10", "step");
    refused("steps = 10", "steps = 10\nwarmup_steps = 10", "stages[0].warmup_steps");
    refused("concepts = 4", "concepts = 1", "stages[0].batch.concepts");
    refused("second_texts = 2", "second_texts = 9", "stages[0].batch.second_texts");
    refused("\"split\"", "\"splt\"", "known: centroid, dssl, hybrid, iiae, split");
    refused("\"split\" }", "\"split\", margin = 1 }", "stages[0].objective");
    refused("second_pictures = 2, ", "", "stages[0].batch.second_pictures");
    refused("1e-3", "0.0", "stages[0].groups.learning_rate");
    refused("seed = 1", "seed = 1\nsead = 2", "sead");
    refused("seed = 1", "seed = 1\naugment.text.word_dropout = 2.0", "augment.text.word_dropout");
    let stage = "steps = 10\naugment.text.filler_share = 2.0";
    refused("steps = 10", stage, "stages[0].augment.text.filler_share");
    refused("seed = 1", "seed = 1\nmodel.heads.shared = 0", "heads.shared");
    let letters = "seed = 1\npreprocessing.text = { kind = \"hashed_ngrams\", letters = 4 }";
    refused("seed = 1", letters, "model.text_tower.manner");
    refused("\"data/tiny\"", "\"d\"\ndata.hold_out = { share = 0.9, seed = 1 }", "hold_out.share");
}

#[test]
fn every_objective_has_a_valid_example() {
    for entry in objective::OBJECTIVES {
        let table = toml::from_str(entry.example).unwrap();
        (entry.build)(table).unwrap();
    }
}

#[test]
fn the_committed_runs_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/train");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        RunFile::read(&entry.unwrap().path()).unwrap();
        seen += 1;
    }
    assert!(seen >= 2);
}
