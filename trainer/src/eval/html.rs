//! An evaluation as one page: tables, plots, and retrievals as pictures. It needs nothing beside itself.

mod plots;
mod sheets;
mod tabular;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use super::encoded::in_scope;
use super::{Encoded, Subject, Tables};
use crate::error::Result;
use crate::shards::Split;

const STYLE: &str = "
body { font: 15px/1.45 system-ui, sans-serif; color: #1d2430; background: #fff; margin: 2rem auto; max-width: 68rem;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #d5dae2; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #e6e9ee; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; color: #48525f; }
p.note { color: #48525f; max-width: 52rem; }
.plots { display: flex; flex-wrap: wrap; gap: 1.5rem; } svg text { font: 11px system-ui, sans-serif; fill: #48525f; }
.key span { display: inline-block; width: .8em; height: .8em; margin: 0 .35em 0 1em; }
.ask { display: flex; align-items: center; gap: .5rem; padding: .25rem 0; border-bottom: 1px solid #eef0f4; }
.ask .words { width: 17rem; overflow-wrap: anywhere; } .ask .rank { width: 4.5rem; color: #48525f; text-align: right; }
td img { display: block; }
figure { margin: 0; padding: 3px; border: 3px solid transparent; border-radius: 6px; text-align: center; }
figure.right { border-color: #1a8f4c; background: #e9f7ef; } figure img { display: block; width: 72px; height: 72px;
  object-fit: contain; } figcaption { font-size: 10px; color: #48525f; }
";

/// The page, as HTML that is well-formed XML too.
///
/// # Errors
/// If a picture cannot be read.
pub fn page(subject: &Subject<'_>, tables: &Tables, encoded: &Encoded) -> Result<String> {
    let asked = in_scope(subject.corpus, Split::parse(&tables.split));
    let (pictures, names) = encoded.of_concepts(|concept| asked[concept as usize]);
    let sheets = sheets::choose(encoded, &names, &pictures)?;
    let mut body = figures(&subject.corpus.manifest.name, tables);
    body.push_str(&sheets::show(subject.corpus, &sheets)?);
    Ok(whole(&format!("Evaluation on {}", subject.corpus.manifest.name), &body))
}

/// A page of this title around a body.
pub(crate) fn whole(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

/// All but the pictures.
fn figures(name: &str, tables: &Tables) -> String {
    let mut out = format!("<h1>Evaluation on {}</h1>\n", escape(name));
    let split = if tables.split == "all" { "the whole dataset" } else { &tables.split };
    push(&mut out, format_args!("<p>Asked about: {}.", escape(split)));
    if let Some(found) = &tables.retrieval {
        let (pictures, names) = (found.pictures, found.names);
        push(
            &mut out,
            format_args!(" {pictures} pictures, {names} names; rsum {:.1} of 600.", found.all.rsum),
        );
    }
    if let Some(gap) = tables.modality_gap {
        push(&mut out, format_args!(" Modality gap {gap:.3}."));
    }
    out.push_str("</p>\n");
    tabular::recall(&mut out, tables);
    tabular::probes(&mut out, &tables.probes);
    tabular::numbers(&mut out, &tables.numbers);
    if let Some(found) = &tables.exclusive_retrieval {
        tabular::exclusive(&mut out, found);
    }
    tabular::swaps(&mut out, &tables.swaps);
    if let Some(found) = &tables.calibration {
        plots::calibration(&mut out, found);
    }
    out
}

/// Text as it stands between tags and within quoted attributes. Characters that no HTML may have are
/// left out.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && !c.is_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// Appends; writing to a string does not fail.
pub(crate) fn push(out: &mut String, what: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(what);
    debug_assert!(written.is_ok(), "a Display refused");
}
