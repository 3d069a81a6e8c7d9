//! Messages: bytes that do not parse, and fields whose values no client of ours sends, by the service that takes them.

mod items;
mod others;
mod search;

use diptych_proto::v1;
use diptych_tests::api::*;
use diptych_tests::wire;
use prost::Message as _;

use super::{Case, Told, limited, refused};

const SEARCH: &str = "SearchService/Search";

pub(super) fn cases() -> Vec<Case> {
    [unreadable(), unknown(), search::cases(), items::cases(), others::cases()].concat()
}

fn good() -> v1::SearchRequest {
    ask("things", v1::Modality::Text, by_text("a red heart"))
}

fn field(name: &str) -> Told {
    refused("FIELD_INVALID", name)
}

fn field_limit(name: &str, limit: u64) -> Told {
    limited("FIELD_INVALID", name, limit)
}

/// Longer than any field may be.
fn huge() -> String {
    "n".repeat(8 << 20)
}

/// Page tokens that no server issued.
fn tokens() -> [(&'static str, String); 7] {
    [
        ("a letter", "x".to_owned()),
        ("no base64", "not base64 at all!".to_owned()),
        ("of zeros", "A".repeat(80)),
        ("with padding", "QUFB=".to_owned()),
        ("of 8 MB", "A".repeat(8 << 20)),
        ("odd letters", "ключ".to_owned()),
        ("of another version", "_".repeat(80)),
    ]
}

/// Bytes that are no message. All are told of the message as a whole.
fn unreadable() -> Vec<Case> {
    let search = good().encode_to_vec();
    let nested = |levels: usize| {
        let leaf = wire::long(6, wire::long(1, "a"));
        (0..levels).fold(leaf, |inner, _| wire::long(3, inner))
    };
    let messages: Vec<(&str, Vec<u8>)> = vec![
        ("cut", search[..search.len() - 1].to_vec()),
        ("cut in its first number", vec![0x80]),
        ("a number of eleven bytes", [wire::tag(5, 0), vec![0xFF; 11]].concat()),
        ("a length beyond the end", [wire::tag(1, 2), wire::varint(100), b"abc".to_vec()].concat()),
        ("a length of 2^63", [wire::tag(1, 2), wire::varint(1 << 63)].concat()),
        ("a length of 2^64 - 1", [wire::tag(1, 2), wire::varint(u64::MAX)].concat()),
        ("field 0", wire::number(0, 1)),
        ("field 2^29", [wire::varint(1 << 32), vec![1]].concat()),
        ("wire type 6", vec![0x0E, 0]),
        ("wire type 7", vec![0x0F, 0]),
        ("a name as a number", wire::number(1, 7)),
        ("terms as numbers", wire::number(2, 7)),
        ("a limit as a string", wire::long(5, "ten")),
        ("a score as four bytes", [wire::tag(7, 5), vec![0; 4]].concat()),
        ("a group that never ends", wire::tag(99, 3)),
        ("the end of a group that never began", wire::tag(99, 4)),
        ("1,000 groups in one another", wire::tag(99, 3).repeat(1000)),
        ("200 filters in one another", [search.clone(), wire::long(4, nested(200))].concat()),
        (
            "100,000 filters in one another",
            [search.clone(), wire::long(4, nested(100_000))].concat(),
        ),
        ("noise", (0..500_u32).map(|place| (place * 167 + 13) as u8).collect()),
        ("ones", vec![0xFF; 5000]),
        ("a page of HTML", b"<html><body>504</body></html>".to_vec()),
    ];
    let case = |(what, message): (&str, Vec<u8>)| {
        Case::new(format!("message: {what}"), SEARCH, message, field("message"))
    };
    messages.into_iter().map(case).collect()
}

/// What a newer client may send: fields and values that are not known are passed over or told.
fn unknown() -> Vec<Case> {
    let search = good().encode_to_vec();
    let with = |more: Vec<u8>| [search.clone(), more].concat();
    vec![
        Case::new("message: empty", SEARCH, Vec::new(), field("target")),
        Case::new("message: zeros", SEARCH, vec![0; 100], field("message")),
        Case::new(
            "message: an unknown field",
            SEARCH,
            with(wire::long(9999, "new")),
            Told::Answered,
        ),
        Case::new(
            "message: 100,000 unknown fields",
            SEARCH,
            with(wire::number(9999, 1).repeat(100_000)),
            Told::Answered,
        ),
        Case::new(
            "message: a megabyte of an unknown field",
            SEARCH,
            with(wire::long(9999, vec![7; 1 << 20])),
            Told::Answered,
        ),
        Case::new(
            "message: a field a thousand times",
            SEARCH,
            with(wire::number(5, 3).repeat(1000)),
            Told::Answered,
        ),
        Case::new("message: an unknown target", SEARCH, with(wire::number(3, 77)), field("target")),
        Case::new(
            "message: a target below 0",
            SEARCH,
            with(wire::number(3, u64::MAX)),
            field("target"),
        ),
        Case::of("message: an unknown space", SEARCH, &spaced(9), field("terms[0].space")),
        Case::new(
            "message: a truth of 2^63",
            SEARCH,
            with(wire::number(11, 1 << 63)),
            Told::Answered,
        ),
        Case::new(
            "message: a limit beyond 32 bits",
            SEARCH,
            with(wire::number(5, (7 << 32) | 3)),
            Told::Answered,
        ),
    ]
}

fn spaced(space: i32) -> v1::SearchRequest {
    let mut search = good();
    search.terms[0].space = space;
    search
}
