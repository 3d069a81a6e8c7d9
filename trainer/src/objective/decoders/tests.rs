use super::*;
use crate::objective;
use crate::testing::colours_with;

const SETTINGS: &str = "kind = \"hybrid\"\ndecoder = { width = 8, text_width = 16 }";

#[test]
fn words_are_told_from_those_before_them_and_the_end_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let training = colours_with(folder.path(), SETTINGS);
    let vocabulary = Vocabulary::of_corpus(&training.corpus, 100);
    // Eight names in English and eight in German, and three ids with a meaning of their own.
    assert_eq!(vocabulary.len(), 19);
    let texts = ["red".to_owned(), "red green blue".to_owned()];
    let (before, after) = shifted(&vocabulary, &texts);
    let ids = vocabulary.ids("red green blue", MOST_WORDS);
    let [red, green, blue] = [ids[0], ids[1], ids[2]];
    assert_eq!(before, [BEGIN, red, END, END, BEGIN, red, green, blue]);
    let words = |ids: &[u32]| ids.iter().copied().map(Some).collect::<Vec<_>>();
    let short = [words(&[red, END]), vec![None, None]].concat();
    assert_eq!(after, [short, words(&[red, green, blue, END])].concat());
}

#[test]
fn texts_are_written_the_same_way_for_the_same_seed_and_a_wide_beam_is_as_likely_as_greed() {
    let folder = tempfile::tempdir().unwrap();
    let training = colours_with(folder.path(), SETTINGS);
    let mut objective = objective::build(&toml::from_str(SETTINGS).unwrap()).unwrap();
    objective.begin(training.context()).unwrap();
    let decoders = objective.decoders().unwrap();
    let code = |width: usize, value: f32| {
        Tensor::full(value, (3, width), training.encoder.device()).unwrap()
    };
    let write = |writing| decoders.texts(&code(16, 0.5), &code(8, -0.5), writing).unwrap().unwrap();
    let sampled = |seed| write(Writing::Sampled { temperature: 1.0, seed });
    assert_eq!(sampled(1), sampled(1));
    assert_ne!(sampled(1), sampled(2));
    let greedy = write(Writing::Greedy);
    assert_eq!(greedy.len(), 3);
    // Equal codes give equal texts, whatever stands beside them.
    assert!(greedy.iter().all(|text| *text == greedy[0]));
    assert_eq!(write(Writing::Beam { width: 1 }), greedy);
    // Hardly any warmth leaves the likeliest word.
    assert_eq!(write(Writing::Sampled { temperature: 1e-3, seed: 5 }), greedy);
    let beam = write(Writing::Beam { width: 4 });
    assert!(beam.iter().all(|text| *text == beam[0]));
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    for (settings, named) in
        [("width = 0", "width"), ("words = 0", "words"), ("text_width = 70000", "text_width")]
    {
        let table = format!("kind = \"hybrid\"\ndecoder = {{ {settings} }}");
        let error = objective::build(&toml::from_str(&table).unwrap()).unwrap_err().to_string();
        assert!(error.contains(&format!("objective.decoder.{named}")), "{error}");
    }
}
