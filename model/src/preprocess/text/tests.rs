//! Behaviour of tokenizing. The golden ids come from `model/tests/golden/text_ids.py`, an
//! independent implementation in Python.

use proptest::prelude::*;

use super::*;
use crate::error::Kind;

/// A text and the ids that 65,536 buckets must give.
const GOLDEN: &[(&str, &[u32])] = &[
    (
        "Red heart",
        &[
            62200, 9010, 31749, 52750, 24723, 63705, 20561, 1244, 43276, 61771, 2675, 36590, 5702,
            62409, 37413, 50744, 59904, 9541, 44370,
        ],
    ),
    (
        "  rotes\tHERZ!  ",
        &[
            14356, 28212, 27991, 27576, 62634, 44813, 50833, 23054, 34146, 25720, 57491, 29888,
            12121, 6656, 1244, 31189, 59004, 50464, 9819, 24718, 29326, 49759, 7666,
        ],
    ),
    (
        "corazón rojo",
        &[
            935, 38365, 34198, 11430, 62731, 1860, 25035, 15805, 49644, 33787, 44299, 51361, 33503,
            63735, 18909, 40126, 345, 61065, 47757, 27773, 28212, 9717, 7952, 2209, 21995, 23430,
            54209, 61923, 21891,
        ],
    ),
    (
        "coeur d'amour",
        &[
            38381, 38365, 45663, 35493, 5375, 39441, 46073, 9528, 10430, 37339, 59022, 64684,
            55980, 64721, 36741, 60865, 62957, 47641, 21888, 39441, 9051, 51632, 788, 29553, 43206,
            36273, 42122,
        ],
    ),
    (
        "ल\u{93e}ल द\u{93f}ल",
        &[9877, 39872, 41384, 57521, 32572, 38334, 7731, 39720, 1043, 31467, 1780, 24430],
    ),
    (
        "赤いハート",
        &[30813, 43308, 53375, 21526, 45482, 60244, 55810, 22492, 18394, 55551, 49295, 20398],
    ),
    ("빨간 하트", &[10536, 61394, 7305, 24870, 58993, 32872]),
    (
        "قلب أحمر",
        &[
            59024, 33523, 33195, 3967, 44916, 19738, 14351, 59320, 33727, 11978, 10653, 7265,
            61910, 53506, 5861, 24100,
        ],
    ),
    (
        "ﬁre 2\u{fe0f}\u{20e3}",
        &[
            33254, 27954, 18846, 30908, 13107, 44433, 12737, 10916, 31100, 21018, 42351, 19679,
            25448,
        ],
    ),
    ("❤\u{fe0f}", &[24959]),
    ("👩\u{200d}🚀🇩🇪", &[34262, 43234, 28428, 26485, 33365, 19738, 52081, 31252, 63389]),
    ("a", &[28712]),
];

fn ngrams(settings: HashedNgrams) -> TextPreprocessor {
    TextPreprocessor::new(&TokenizerConfig::HashedNgrams(settings), None).unwrap()
}

fn default_ids(text: &str) -> Vec<u32> {
    ngrams(HashedNgrams::default()).tokenize(text, false).unwrap().ids
}

#[test]
fn hashes_as_published() {
    // Fowler, Noll, Vo: test vectors of FNV-1a with 64 bits (draft-eastlake-fnv, appendix C).
    let rows: [(&[u8], u64); 3] = [
        (b"", 0xcbf2_9ce4_8422_2325),
        (b"a", 0xaf63_dc4c_8601_ec8c),
        (b"foobar", 0x8594_4171_f739_67e8),
    ];
    for (bytes, expected) in rows {
        assert_eq!(ngrams::fnv1a(bytes), expected);
    }
}

#[test]
fn gives_the_golden_ids() {
    for (text, expected) in GOLDEN {
        assert_eq!(&default_ids(text), expected, "{text:?}");
    }
}

#[test]
fn spelling_that_means_the_same_gives_the_same_ids() {
    let rows = [
        ("Red   Heart", " red\n\theart! "),
        ("cora\u{301}zo\u{301}n", "CORÁZÓN"),
        ("ﬁre ①", "fire 1"),
        ("ｒｅｄ", "red"),
        ("❤\u{fe0f}", "❤"),
        ("ハート", "ﾊｰﾄ"),
        ("한글", "\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}"),
        ("re\u{ad}d", "red"),
    ];
    for (left, right) in rows {
        assert_eq!(default_ids(left), default_ids(right), "{left:?} and {right:?}");
    }
}

#[test]
fn a_spaced_word_is_one_and_elsewhere_each_ngram_is() {
    let lengths =
        |text| ngrams(HashedNgrams::default()).tokenize(text, false).unwrap().word_lengths;
    // "<red>": itself, three n-grams of 3 and two of 4; "<heart>": itself, 5, 4 and 3.
    assert_eq!(lengths("Red heart"), [6, 13]);
    // "<a>" has no shorter n-grams. 赤い: two of one character and one of two.
    assert_eq!(lengths("a 赤い"), [1, 1, 1, 1]);
}

#[test]
fn marks_stay_in_their_word() {
    // "heart" in Hindi has a vowel sign, "love" a virama inside: one word each.
    for word in ["दिल", "प्यार"] {
        let characters = word.chars().count() + 2;
        let expected = 1 + (3..=5.min(characters - 1)).map(|n| characters - n + 1).sum::<usize>();
        assert_eq!(default_ids(word).len(), expected, "{word}");
    }
}

#[test]
fn a_text_of_nothing_is_empty() {
    let preprocessor = ngrams(HashedNgrams::default());
    for text in ["", "   ", "\n\t", "...!?", "—“”", "\u{200b}\u{fe0f}\u{200d}", "\u{0}"] {
        let error = preprocessor.tokenize(text, true).unwrap_err();
        assert!(matches!(error, Error::Empty { field: "text" }), "{text:?}");
        assert_eq!(error.kind(), Kind::Invalid);
    }
}

#[test]
fn a_long_text_is_refused_or_cut_and_the_cut_is_told() {
    let preprocessor = ngrams(HashedNgrams { max_bytes: 16, ..HashedNgrams::default() });
    let at_limit = "sixteen bytes ok";
    assert!(!preprocessor.tokenize(at_limit, false).unwrap().truncated);
    let error = preprocessor.tokenize("seventeen bytes!!", false).unwrap_err();
    assert_eq!(error.to_string(), "text bytes: 17 is beyond the limit of 16");
    // The sixteenth byte is inside a character of three bytes.
    let cut = preprocessor.tokenize("fourteen bytes赤い", true).unwrap();
    assert_eq!((cut.used_bytes, cut.truncated), (14, true));
    assert_eq!(cut.ids, preprocessor.tokenize("fourteen bytes", false).unwrap().ids);
    let megabyte = "word ".repeat(200_000);
    assert_eq!(preprocessor.tokenize(&megabyte, true).unwrap().used_bytes, 16);
}

#[test]
fn too_many_ids_are_refused_or_cut() {
    let preprocessor = ngrams(HashedNgrams { max_ids: 256, ..HashedNgrams::default() });
    let text = "赤".repeat(1000);
    let error = preprocessor.tokenize(&text, false).unwrap_err();
    assert_eq!(error.to_string(), "text tokens: 2997 is beyond the limit of 256");
    let cut = preprocessor.tokenize(&text, true).unwrap();
    assert!(cut.truncated && cut.ids.len() <= 256 && cut.ids.len() > 250, "{}", cut.ids.len());
}

#[test]
fn letters_are_short_ngrams_beside_the_words_where_they_are_asked_for() {
    // FNV-1a by its published definition, of <ab> < a b > <a ab b>, of each character and each pair of the second.
    let golden: [(&str, &[u32]); 2] = [
        ("Ab", &[63799, 4663, 12480, 12009, 5549, 31273, 56429, 32870]),
        ("日本語", &[30790, 22098, 24960, 45220, 17026]),
    ];
    let preprocessor = ngrams(HashedNgrams { letters: 2, ..HashedNgrams::default() });
    for (text, letters) in golden {
        let tokens = preprocessor.tokenize(text, false).unwrap();
        assert_eq!(tokens.letters, letters, "{text}");
        assert_eq!(tokens.ids, default_ids(text), "words are as without them");
    }
    let few = ngrams(HashedNgrams { letters: 2, max_ids: 256, min: 5, ..HashedNgrams::default() });
    let long = few.tokenize(&"abcdefghij ".repeat(14), false).unwrap();
    let counts = (long.ids.len(), long.letters.len());
    assert!(counts.0 < 256 && counts.1 == 256, "at most as many letters as ids may be: {counts:?}");
    let without = ngrams(HashedNgrams::default()).tokenize("Ab", false).unwrap();
    assert_eq!(without.letters, [0; 0]);
}

#[test]
fn collates_in_order() {
    let tokens = |ids: &[u32], word_lengths: &[u32]| Tokens {
        letters: vec![9; word_lengths.len()],
        ids: ids.to_vec(),
        word_lengths: word_lengths.to_vec(),
        ..Tokens::default()
    };
    let texts = [tokens(&[5, 6], &[2]), tokens(&[7], &[1]), tokens(&[8, 9, 10], &[1, 2])];
    let batch = TokenBatch::collate(&texts.iter().collect::<Vec<_>>());
    assert_eq!(batch.ids, [5, 6, 7, 8, 9, 10]);
    assert_eq!(batch.word_offsets, [0, 2, 3, 4, 6]);
    assert_eq!(batch.text_offsets, [0, 1, 2, 4]);
    assert_eq!((batch.letters.len(), &batch.letter_offsets[..]), (4, &[0, 1, 2, 4][..]));
    assert_eq!((batch.len(), batch.words()), (3, 4));
    assert!(TokenBatch::collate(&[]).is_empty());
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let good = HashedNgrams::default;
    let rows = [
        ("text.buckets", HashedNgrams { buckets: 1, ..good() }),
        ("text.min", HashedNgrams { min: 6, ..good() }),
        ("text.max", HashedNgrams { max: 17, ..good() }),
        ("text.cjk_max", HashedNgrams { cjk_max: 0, ..good() }),
        ("text.letters", HashedNgrams { letters: 9, ..good() }),
        ("text.max_bytes", HashedNgrams { max_bytes: 0, ..good() }),
        ("text.max_ids", HashedNgrams { max_ids: 255, ..good() }),
    ];
    for (field, settings) in rows {
        let error = TokenizerConfig::HashedNgrams(settings).validate().unwrap_err();
        assert!(error.to_string().starts_with(field), "{error}");
    }
}

#[test]
fn settings_are_tagged_by_kind_and_have_defaults() {
    let read = serde_json::from_str::<TokenizerConfig>;
    assert_eq!(read(r#"{"kind":"hashed_ngrams"}"#).unwrap(), TokenizerConfig::default());
    assert!(read(r#"{"kind":"hashed_ngrams","bucket":3}"#).is_err(), "an unknown key");
    assert!(read(r#"{"kind":"wordpiece"}"#).is_err(), "an unknown kind");
    assert!(read(r#"{"kind":"huggingface"}"#).is_err(), "no vocabulary");
}

/// A tokenizer of four whole words.
const WORD_LEVEL: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
    "normalizer":{"type":"Lowercase"},"pre_tokenizer":{"type":"Whitespace"},
    "post_processor":null,"decoder":null,
    "model":{"type":"WordLevel","vocab":{"[UNK]":0,"red":1,"heart":2,"blue":3},"unk_token":"[UNK]"}}"#;

fn hugging_face(vocabulary: u32) -> TokenizerConfig {
    serde_json::from_value(serde_json::json!({"kind": "huggingface", "vocabulary": vocabulary}))
        .unwrap()
}

#[test]
fn a_hugging_face_tokenizer_gives_its_ids() {
    let config = hugging_face(4);
    let preprocessor = TextPreprocessor::new(&config, Some(WORD_LEVEL.as_bytes())).unwrap();
    assert_eq!(preprocessor.tokenize("Red heart, green", false).unwrap().ids, [1, 2, 0, 0]);
    let words = preprocessor.tokenize("red heart", false).unwrap().word_lengths;
    assert_eq!(words, [1, 1], "each token is a word");
    assert!(matches!(preprocessor.tokenize("  ", false), Err(Error::Empty { .. })));
}

#[test]
fn a_tokenizer_file_that_does_not_fit_is_refused() {
    let json = WORD_LEVEL.as_bytes();
    let refused = |config: &TokenizerConfig, file: Option<&[u8]>| {
        TextPreprocessor::new(config, file).unwrap_err().kind()
    };
    assert_eq!(refused(&hugging_face(3), Some(json)), Kind::Corrupt);
    assert_eq!(refused(&hugging_face(4), Some(b"{}")), Kind::Corrupt);
    assert_eq!(refused(&hugging_face(4), None), Kind::Invalid);
    assert_eq!(refused(&TokenizerConfig::default(), Some(json)), Kind::Invalid);
}

/// Found by fuzzing: a decoder with a key that is no UTF-8.
#[test]
fn a_tokenizer_file_at_which_its_library_panics_is_refused() {
    let (before, after) = WORD_LEVEL.split_once(r#""decoder":null,"#).unwrap();
    let decoder = br#""decoder":{"type":"Metaspace","replacement":"_","add_prefi"#;
    let rest = br#"x_space":true,"prepend_scheme":"always"},"#;
    let file = |key: &[u8]| [before.as_bytes(), decoder, key, rest, after.as_bytes()].concat();
    assert!(TextPreprocessor::new(&hugging_face(4), Some(&file(b""))).is_ok());
    let refused = TextPreprocessor::new(&hugging_face(4), Some(&file(b"\xcd"))).unwrap_err();
    assert_eq!(refused.kind(), Kind::Corrupt);
    assert!(refused.to_string().contains("cannot be read"), "{refused}");
}

proptest! {
    #[test]
    fn any_text_gives_ids_in_range_or_an_error(text in ".{0,200}", buckets in 2..1000_u32) {
        let preprocessor = ngrams(HashedNgrams { buckets, ..HashedNgrams::default() });
        if let Ok(tokens) = preprocessor.tokenize(&text, false) {
            prop_assert!(!tokens.ids.is_empty() && tokens.letters.is_empty());
            prop_assert!(tokens.ids.iter().all(|id| *id < buckets));
            prop_assert_eq!(tokens.used_bytes, text.len());
            prop_assert!(!tokens.word_lengths.contains(&0));
            let sum: u32 = tokens.word_lengths.iter().sum();
            prop_assert_eq!(sum as usize, tokens.ids.len());
        }
    }

    #[test]
    fn a_cut_text_has_the_ids_of_what_was_used(text in "[a-z赤い दिल👩‍🚀]{0,900}") {
        let settings = HashedNgrams { max_bytes: 1024, max_ids: 256, ..HashedNgrams::default() };
        let preprocessor = ngrams(settings);
        if let Ok(cut) = preprocessor.tokenize(&text, true) {
            prop_assert!(cut.ids.len() <= 256 && cut.used_bytes <= 1024);
            prop_assert_eq!(cut.truncated, cut.used_bytes < text.len());
            let again = preprocessor.tokenize(&text[..cut.used_bytes], false).unwrap();
            prop_assert_eq!(again.ids, cut.ids);
        }
    }
}
