//! The page: well formed, complete, and safe with whatever a caption says.

use super::*;
use crate::eval::probe::NumberReading;
use crate::eval::swaps::{Swapped, Swaps};
use crate::eval::tests::{Toy, toy};
use crate::eval::{Questions, examine};

/// Checks that tags nest and close, and gives the text outside of them.
fn text_of(page: &str) -> String {
    let mut open: Vec<&str> = Vec::new();
    let mut text = String::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>\n").unwrap();
    while let Some(start) = rest.find('<') {
        text.push_str(&rest[..start]);
        let end = rest[start..].find('>').unwrap() + start;
        let tag = &rest[start + 1..end];
        assert!(!tag.contains('<'), "{tag}");
        assert!(tag.matches('"').count().is_multiple_of(2), "{tag}");
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "{open:?}");
    text + rest
}

#[test]
fn the_page_is_well_formed_and_holds_the_figures_and_pictures() {
    let Toy { training, folder: _folder } = toy("a red one");
    let subject = Subject::of_training(&training);
    let questions = Questions::all(&training.withheld);
    let (mut tables, encoded) = examine(&subject, &questions).unwrap();
    let factors =
        vec![Swapped { factor: "<hue>".to_owned(), real: 0.5, of_content: 0.25, of_style: 0.75 }];
    tables.swaps.push(Swaps { modality: "image".to_owned(), factors, ..Swaps::default() });
    tables.numbers.push(NumberReading { factor: "<hue>".to_owned(), ..NumberReading::default() });
    let page = page(&subject, &tables, &encoded).unwrap();
    let text = text_of(&page);
    assert!(page.contains("<td>&lt;hue&gt;</td><td>0.500</td><td>0.250</td><td>0.750</td>"));
    assert!(page.contains("<td> &lt;hue&gt;</td>"));
    let found = tables.retrieval.unwrap();
    assert!(text.contains(&format!("rsum {:.1} of 600", found.all.rsum)));
    assert!(
        page.contains(&format!("<td>{:.3}</td>", found.by_language["de"].text_to_picture.at_5))
    );
    for reading in &tables.probes {
        assert!(page.contains(&format!("<td>{} {}</td>", reading.modality, reading.factor)));
        assert!(page.contains(&format!(">{:.3}</td>", reading.exclusive.mlp)));
    }
    let error = tables.calibration.unwrap().text_to_picture.expected_calibration_error;
    assert!(text.contains(&format!("expected calibration error {error:.4}")));
    assert!(text.contains("a red one"));
    // Three sheets of eight names, each with five pictures.
    assert_eq!(page.matches("src=\"data:image/png;base64,").count(), 3 * 8 * 5);
    assert!(page.contains("<figure class=\"right\">"));
    // Nothing is fetched from elsewhere.
    assert!(!page.contains("http") && !page.contains("<script") && !page.contains("<link"));
}

#[test]
fn a_hostile_caption_is_text() {
    let hostile = "</span><script>alert('x')</script>\" onload=\"x\u{1b}&amp;";
    let Toy { training, folder: _folder } = toy(hostile);
    let subject = Subject::of_training(&training);
    let (tables, encoded) = examine(&subject, &Questions::all(&training.withheld)).unwrap();
    let page = page(&subject, &tables, &encoded).unwrap();
    let text = text_of(&page);
    assert!(!page.contains("<script"));
    let escaped = "&lt;/span&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot; onload=&quot;x&amp;amp;";
    assert!(text.contains(escaped));
}
