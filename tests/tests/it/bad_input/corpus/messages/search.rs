//! What is searched by: vectors, weights, filters, pages, and how many of each.

use diptych_proto::v1;
use diptych_proto::v1::filter::Condition;
use diptych_proto::v1::term::Source;
use diptych_tests::api::*;
use diptych_tests::wire;
use tonic::Code;

use super::{Case, SEARCH, Told, field, field_limit, good, huge, limited, refused, tokens};

const BATCH: &str = "SearchService/BatchSearch";

/// Dimension of the sample bundle's shared vectors.
const SHARED: usize = 128;

pub(super) fn cases() -> Vec<Case> {
    [vectors(), scores(), filters(), names(), pages(), counts(), unset()].concat()
}

fn by_vector(what: &str, vector: v1::Vector, told: Told) -> Case {
    let search = ask("things", v1::Modality::Text, Source::Vector(vector));
    Case::of(&format!("vector: {what}"), SEARCH, &search, told)
}

fn vectors() -> Vec<Case> {
    let all = |value: f32| [value; SHARED];
    let one = |value: f32| {
        let mut vector = all(1.0);
        vector[5] = value;
        floats(&vector)
    };
    let invalid = || refused("VECTOR_INVALID", "terms[0].vector");
    let mismatch = || limited("DIMENSION_MISMATCH", "terms[0].vector", SHARED as u64);
    let bytes = |count: usize| v1::Vector {
        dimension: 0,
        values: Some(v1::vector::Values::PackedF32(vec![1; count].into())),
    };
    let told_otherwise = v1::Vector { dimension: 7, ..packed(&all(1.0)) };
    vec![
        by_vector("not a number", one(f32::NAN), invalid()),
        by_vector(
            "not a number, negative, with a load",
            one(f32::from_bits(0xFFC1_2345)),
            invalid(),
        ),
        by_vector("infinite", one(f32::INFINITY), invalid()),
        by_vector("infinite, negative", one(f32::NEG_INFINITY), invalid()),
        by_vector("zeros", floats(&all(0.0)), invalid()),
        by_vector("negative zeros", packed(&all(-0.0)), invalid()),
        by_vector("the smallest numbers", floats(&all(f32::from_bits(1))), Told::Answered),
        by_vector("the largest numbers", packed(&all(f32::MAX)), Told::Answered),
        by_vector("one of the largest numbers", one(f32::MAX), Told::Answered),
        by_vector("sizes far apart", one(1e30), Told::Answered),
        by_vector("without values", v1::Vector::default(), field("terms[0].vector")),
        by_vector("of no numbers", floats(&[]), invalid()),
        by_vector("of no bytes", bytes(0), invalid()),
        by_vector("of a number more", floats(&[1.0; SHARED + 1]), mismatch()),
        by_vector("of a million numbers", packed(&vec![1.0; 1_000_000]), mismatch()),
        by_vector("of 3 bytes", bytes(3), invalid()),
        by_vector(
            "of another dimension than it says",
            told_otherwise,
            refused("DIMENSION_MISMATCH", "terms[0].vector"),
        ),
    ]
}

fn scores() -> Vec<Case> {
    let scored = |score: f64| v1::SearchRequest { min_score: Some(score), ..good() };
    let weighed = |weight: f32| {
        let mut search = good();
        search.terms[0].weight = weight;
        search
    };
    let list = |what: &str, search: v1::SearchRequest, told| Case::of(what, SEARCH, &search, told);
    vec![
        list("least score: not a number", scored(f64::NAN), field("min_score")),
        list("least score: infinite", scored(f64::INFINITY), field("min_score")),
        list("least score: beyond 32 bits", scored(1e300), field("min_score")),
        list("least score: the smallest", scored(f64::from_bits(1)), Told::Answered),
        list("weight: not a number", weighed(f32::NAN), field("terms[0].weight")),
        list("weight: infinite", weighed(f32::INFINITY), field("terms[0].weight")),
        list("weight: the largest", weighed(f32::MAX), field("terms[0].weight")),
        list("weight: the smallest", weighed(f32::from_bits(1)), field("terms[0].weight")),
        list("weight: negative zero", weighed(-0.0), Told::Answered),
        list("weight: negative", weighed(-1.0), field("terms")),
        list(
            "ef_search: the largest",
            v1::SearchRequest { ef_search: u32::MAX, ..good() },
            field_limit("ef_search", 10_000),
        ),
        list(
            "limit: the largest",
            v1::SearchRequest { limit: u32::MAX, ..good() },
            field_limit("limit", 1000),
        ),
        list(
            "prefix: the largest",
            v1::SearchRequest { prefix_dims: u32::MAX, ..good() },
            field("prefix_dims"),
        ),
    ]
}

fn filters() -> Vec<Case> {
    let node = |condition| v1::Filter { condition: Some(condition) };
    let exists = |key: &str| node(Condition::Exists(v1::Exists { key: key.to_owned() }));
    let nots = |levels: usize| {
        (1..levels).fold(exists("a"), |inner, _| node(Condition::Not(Box::new(inner))))
    };
    let and = |filters| node(Condition::And(v1::FilterList { filters }));
    let compare = |operator, value| {
        let key = "a".to_owned();
        node(Condition::Compare(v1::Compare { key, operator, value: Some(value) }))
    };
    let float = |value| v1::Value { kind: Some(v1::value::Kind::FloatValue(value)) };
    let within = |least, most| {
        let key = "a".to_owned();
        node(Condition::Range(v1::Range { key, at_least: least, at_most: most }))
    };
    let any_of = |count: usize| {
        let values = vec![int_value(1); count];
        node(Condition::In(v1::In { key: "a".to_owned(), values }))
    };
    let list = v1::Value { kind: Some(v1::value::Kind::TextList(v1::TextList::default())) };
    let truth = v1::Value { kind: Some(v1::value::Kind::BoolValue(true)) };
    let too_large = |limit| limited("FILTER_TOO_LARGE", "filter", limit);
    let filters: Vec<(&str, v1::Filter, Told)> = vec![
        ("8 levels", nots(8), Told::Answered),
        ("9 levels", nots(9), too_large(8)),
        ("40 levels", nots(40), too_large(8)),
        ("128 nodes", and(vec![exists("a"); 127]), Told::Answered),
        ("129 nodes", and(vec![exists("a"); 128]), too_large(128)),
        ("60,000 nodes", and(vec![exists("a"); 60_000]), too_large(128)),
        ("128 lists of 8", and(vec![and(vec![exists("a"); 8]); 128]), too_large(128)),
        ("lists of nothing", and(vec![and(Vec::new()); 100]), Told::Answered),
        ("nothing", v1::Filter::default(), field("filter")),
        ("nothing within", and(vec![v1::Filter::default()]), field("filter")),
        ("no key", exists(""), field("filter.exists.key")),
        ("a key of a megabyte", exists(&"k".repeat(1 << 20)), field_limit("filter.exists.key", 64)),
        ("an unknown operator", compare(77, int_value(1)), field("filter.compare.operator")),
        ("less than a truth", compare(3, truth), field("filter")),
        ("equal to a list", compare(1, list), field("filter.compare.value")),
        ("equal to no kind", compare(1, v1::Value::default()), field("filter.compare.value")),
        (
            "equal to no number",
            compare(1, float(f64::NAN)),
            field("filter.compare.value.float_value"),
        ),
        ("below infinity", within(None, Some(f64::INFINITY)), field("filter.range")),
        ("from the end to the start", within(Some(9.0), Some(-9.0)), Told::Answered),
        ("one of nothing", any_of(0), field("filter.in.values")),
        ("one of 128", any_of(128), Told::Answered),
        ("one of 129", any_of(129), field_limit("filter.in.values", 128)),
        ("one of 100,000", any_of(100_000), field_limit("filter.in.values", 128)),
    ];
    let case = |(what, filter, told): (&str, v1::Filter, Told)| {
        let search = v1::SearchRequest { filter: Some(filter), ..good() };
        Case::of(&format!("filter: {what}"), SEARCH, &search, told)
    };
    filters.into_iter().map(case).collect()
}

fn names() -> Vec<Case> {
    let search =
        |collection: &str| v1::SearchRequest { collection: collection.to_owned(), ..good() };
    let missing =
        |field: &str| Told::Refused(Code::NotFound, "COLLECTION_NOT_FOUND", field.to_owned(), None);
    vec![
        Case::of("collection: none", SEARCH, &search(""), field("collection")),
        Case::of("collection: a path", SEARCH, &search("../things"), missing("collection")),
        Case::of("collection: hidden", SEARCH, &search("~things"), missing("collection")),
        Case::of("collection: of other case", SEARCH, &search("Things"), missing("collection")),
        Case::of(
            "collection: with a zero byte",
            SEARCH,
            &search("things\0"),
            missing("collection"),
        ),
        Case::of("collection: of 8 MB", SEARCH, &search(&huge()), field_limit("collection", 63)),
    ]
}

fn pages() -> Vec<Case> {
    let case = |(what, page_token): (&str, String)| {
        let search = v1::SearchRequest { page_token, ..good() };
        let told = refused("PAGE_TOKEN_INVALID", "page_token");
        Case::of(&format!("token of a search: {what}"), SEARCH, &search, told)
    };
    tokens().into_iter().map(case).collect()
}

/// Parts of a message at most.
fn too_many_parts() -> Told {
    let field = "message".to_owned();
    Told::Refused(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", field, Some(300_000))
}

fn counts() -> Vec<Case> {
    let terms = vec![good().terms.remove(0); 20_000];
    let searches = |count| v1::BatchSearchRequest { searches: vec![good(); count] };
    vec![
        Case::of(
            "count: 20,000 terms",
            SEARCH,
            &v1::SearchRequest { terms, ..good() },
            field_limit("terms", 16),
        ),
        // Two bytes each, and a hundred in memory: told before they are made.
        Case::new(
            "count: 8,000,000 terms",
            SEARCH,
            wire::long(2, "").repeat(8_000_000),
            too_many_parts(),
        ),
        Case::new(
            "count: 8,000,000 searches",
            BATCH,
            wire::long(1, "").repeat(8_000_000),
            too_many_parts(),
        ),
        Case::new(
            "count: 7,000,000 filters",
            SEARCH,
            wire::long(4, wire::long(1, wire::long(1, "").repeat(7_000_000))),
            too_many_parts(),
        ),
        Case::of("count: no searches", BATCH, &searches(0), field("searches")),
        Case::of("count: 2,000 searches", BATCH, &searches(2000), field_limit("searches", 64)),
    ]
}

/// Messages and alternatives that are not set.
fn unset() -> Vec<Case> {
    let sourceless = v1::SearchRequest { terms: vec![v1::Term::default()], ..good() };
    vec![
        Case::of("unset: a term's source", SEARCH, &sourceless, field("terms[0].source")),
        Case::of(
            "unset: all terms",
            SEARCH,
            &v1::SearchRequest { terms: Vec::new(), ..good() },
            field("terms"),
        ),
        Case::new(
            "unset: what to explain",
            "SearchService/ExplainMatch",
            Vec::new(),
            field("search"),
        ),
    ]
}
