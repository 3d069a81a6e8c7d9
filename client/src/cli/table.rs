//! Tables for people.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use diptych::v1;

use super::out::Out;
use super::value::{metadata_line, source_text};

/// Longest text shown in a cell, in characters.
const TEXT_CHARS: usize = 120;
/// Columns below which a table is not fitted.
const NARROW: u16 = 60;
/// Joined to a character that has a plain form too, it asks for the coloured one.
const COLOURED: char = '\u{fe0f}';

/// An empty table: lines between columns where someone looks at it, plain columns for a pipe.
pub(crate) fn table(out: Out, header: &[&str]) -> Table {
    let mut table = Table::new();
    if out.terminal {
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        fit(&mut table);
    } else {
        table.load_style(presets::NOTHING);
    }
    table.set_header(header.to_vec());
    table
}

/// Breaks cells so that lines fit the terminal, unless it is so narrow that letters would stand below each other.
fn fit(table: &mut Table) {
    if table.width().is_some_and(|width| width >= NARROW) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
}

/// Hits, best first.
pub(crate) fn hits(out: Out, hits: &[v1::Hit]) -> Table {
    let texts = hits.iter().any(|hit| source_text(hit.source.as_ref()).is_some());
    let characters = hits.iter().any(|hit| character(hit).is_some());
    let probable = hits.iter().any(|hit| hit.probability.is_some());
    let mut header = vec!["#", "score"];
    header.extend(probable.then_some("probability"));
    header.extend(characters.then_some("emoji"));
    header.extend(texts.then_some("text"));
    header.extend(["id", "group", "metadata"]);
    let mut table = table(out, &header);
    for (place, hit) in hits.iter().enumerate() {
        let mut row = vec![number(&(place + 1)), number(&format!("{:.4}", hit.score))];
        let share = |hit: &v1::Hit| hit.probability.map(|share| format!("{share:.3}"));
        row.extend(probable.then(|| number(&share(hit).unwrap_or_default())));
        row.extend(characters.then(|| Cell::new(character(hit).unwrap_or_default())));
        let text = source_text(hit.source.as_ref()).unwrap_or_default();
        row.extend(texts.then(|| Cell::new(shortened(text))));
        row.extend([&hit.id, &hit.group, &metadata_line(&hit.metadata)].map(Cell::new));
        table.add_row(row);
    }
    table
}

/// A cell whose content stands at the right.
pub(crate) fn number(content: &impl ToString) -> Cell {
    Cell::new(content.to_string()).set_alignment(CellAlignment::Right)
}

/// Facts as `name  value`, one a line.
pub(crate) fn facts(out: Out, facts: &[(&str, String)]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if out.terminal {
        fit(&mut table);
    }
    for (name, value) in facts {
        table.add_row([Cell::new(name), Cell::new(value)]);
    }
    table
}

/// A text on one line, its end cut off when it is long.
pub(crate) fn shortened(text: &str) -> String {
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= TEXT_CHARS {
        return text;
    }
    text.chars().take(TEXT_CHARS - 1).chain(['…']).collect()
}

/// The character that a hit of the sample collection is about. Only items with the sample's metadata count: elsewhere a group
/// such as `2764` is a number.
fn character(hit: &v1::Hit) -> Option<String> {
    let sample = hit.metadata.contains_key("style") || hit.metadata.contains_key("lang");
    if sample { emoji(&hit.group) } else { None }
}

/// The emoji of a group: code points in lower-case hex joined by `-`, without the one that asks for colour.
pub(crate) fn emoji(group: &str) -> Option<String> {
    let hex = |part: &str| {
        let digits = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let code = digits.then(|| u32::from_str_radix(part, 16).ok())??;
        char::from_u32(code).filter(|char| !char.is_control())
    };
    let mut chars: Vec<char> = group.split('-').map(hex).collect::<Option<_>>()?;
    let keycap = chars.last() == Some(&'\u{20e3}');
    let pictorial = |char: char| matches!(char, '\u{a9}' | '\u{ae}' | '\u{203c}'..='\u{3299}' | '\u{1f000}'..='\u{1faff}');
    if !keycap && !chars.first().is_some_and(|first| pictorial(*first)) {
        return None;
    }
    if chars[0] < '\u{1f000}' || chars.len() == 1 {
        chars.insert(1, COLOURED);
    }
    Some(chars.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_code_points_are_shown_as_characters() {
        assert_eq!(emoji("2764").as_deref(), Some("\u{2764}\u{fe0f}"));
        assert_eq!(emoji("1f1e9-1f1ea").as_deref(), Some("🇩🇪"));
        assert_eq!(emoji("31-20e3").as_deref(), Some("1\u{fe0f}\u{20e3}"));
        assert_eq!(emoji("2764-200d-1f525").as_deref(), Some("❤\u{fe0f}\u{200d}🔥"));
        for group in ["", "photos/1.jpg", "41", "2764-", "d800", "110000", "2-7"] {
            assert_eq!(emoji(group), None, "{group}");
        }
    }

    #[test]
    fn hits_without_the_samples_metadata_show_no_character() {
        let hit = v1::Hit { group: "2764".to_owned(), ..Default::default() };
        assert_eq!(character(&hit), None);
        let metadata = [("style".to_owned(), v1::Value::default())].into();
        assert!(character(&v1::Hit { metadata, ..hit }).is_some());
    }

    #[test]
    fn long_texts_are_cut_to_one_line() {
        assert_eq!(shortened("a\n b"), "a b");
        let long = shortened(&"ä".repeat(500));
        assert_eq!(long.chars().count(), TEXT_CHARS);
        assert!(long.ends_with('…'));
    }
}
