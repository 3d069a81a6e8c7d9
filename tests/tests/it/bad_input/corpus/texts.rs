//! Texts that nobody types, and bytes that are no text.

use diptych_tests::wire;

use super::{Case, Told, limited, refused};

/// Longest text in bytes.
const LONGEST: u64 = 8192;

/// Most parts of words that the sample's bundle takes.
const TOKENS: u64 = 32_768;

pub(super) fn cases() -> Vec<Case> {
    [empty(), odd(), long(), not_utf8()].concat()
}

/// Nothing that could be searched for: no letter, digit or symbol.
fn empty() -> Vec<Case> {
    let texts = [
        ("nothing", ""),
        ("spaces", "   "),
        ("lines", "\r\n\n\u{2028}\u{2029}"),
        ("wide spaces", "\u{3000}\u{2003}\u{A0}"),
        ("spaces of no width", "\u{200B}\u{200B}\u{FEFF}"),
        ("a zero byte", "\0"),
        ("control characters", "\u{1}\u{2}\u{1B}\u{7F}\u{85}"),
        ("marks of direction alone", "\u{202E}\u{2066}\u{2069}\u{200F}"),
        ("full stops", "...!?"),
        ("a noncharacter", "\u{FFFE}"),
        ("a private character", "\u{E000}"),
        ("a variation selector", "\u{FE0F}"),
    ];
    texts
        .map(|(what, text)| {
            Case::text(&format!("text: {what}"), text, refused("TEXT_EMPTY", "text"))
        })
        .into()
}

fn odd() -> Vec<Case> {
    let marks = format!("a{}", "\u{301}".repeat(4000));
    let family = "👨\u{200D}👩\u{200D}👧\u{200D}👦".repeat(100);
    let texts: [(&str, &str); 17] = [
        ("a letter", "a"),
        ("zero bytes between words", "red\0heart\0"),
        ("4,000 marks on a letter", &marks),
        ("a text turned round", "\u{202E}traeh der\u{202C}"),
        ("directions that never end", &"\u{2066}a".repeat(2000)),
        ("joined faces", &family),
        ("a flag of half a country", "\u{1F1E9}"),
        ("a combining mark alone", "\u{301}"),
        ("tags", "\u{E0041}\u{E007F}"),
        ("a letter of many parts", &"\u{1F82}".repeat(2000)),
        ("half a syllable", "\u{1100}"),
        ("2,000 lines", &"a\n".repeat(2000)),
        ("a byte order mark", "\u{FEFF}red heart"),
        ("markup", "<script>alert(1)</script>"),
        ("a format", "%s%n%x {0} ${jndi:ldap://x} ' OR 1=1 --"),
        ("a path", "../../../../etc/passwd"),
        ("the last character", "\u{10FFFD}x"),
    ];
    texts.map(|(what, text)| Case::text(&format!("text: {what}"), text, Told::Answered)).into()
}

fn long() -> Vec<Case> {
    let too_long = || limited("TEXT_TOO_LONG", "text", LONGEST);
    vec![
        Case::text("text: one word of 8,192 letters", "a".repeat(8192), Told::Answered),
        Case::text("text: a letter more", "a".repeat(8193), too_long()),
        Case::text("text: 8,193 bytes in 2,731 letters", "犬".repeat(2731), too_long()),
        Case::text("text: 1 MB of words", "heart ".repeat(175_000), too_long()),
        // 18 letters each once they are taken apart.
        Case::text(
            "text: 2,000 ligatures",
            "\u{FDFA}".repeat(2000),
            limited("TEXT_TOO_LONG", "text", TOKENS),
        ),
        Case::text("text: 15 MB of spaces", " ".repeat(15_000_000), too_long()),
        Case::text("text: 15 MB of marks", "\u{301}".repeat(7_500_000), too_long()),
    ]
}

/// Strings that are no UTF-8 do not parse.
fn not_utf8() -> Vec<Case> {
    let strings: [(&str, &[u8]); 7] = [
        ("a byte of no letter", b"\xFF"),
        ("half a letter", b"\xC3"),
        ("a letter written too long", b"\xC0\xAF"),
        ("half a surrogate pair", b"\xED\xA0\x80"),
        ("beyond the last character", b"\xF4\x90\x80\x80"),
        ("a rest without a start", b"a\x80b"),
        ("Latin-1", b"caf\xE9"),
    ];
    let case = |(what, string): (&str, &[u8])| {
        let message = wire::long(1, string);
        Case::new(
            format!("no UTF-8: {what}"),
            "EmbeddingService/EmbedText",
            message,
            refused("FIELD_INVALID", "message"),
        )
    };
    strings.into_iter().map(case).collect()
}
