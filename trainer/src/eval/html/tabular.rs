//! Tables of figures as HTML.

use super::{escape, plots, push};
use crate::eval::Tables;
use crate::eval::division::Rule;
use crate::eval::exclusive::{ExclusiveRetrieval, Found};
use crate::eval::probe::{NumberReading, Reading};
use crate::eval::recall::Recall;
use crate::eval::swaps::{Swapped, Swaps};

/// Recall in both directions, by language where there is more than one.
pub(super) fn recall(out: &mut String, tables: &Tables) {
    out.push_str("<h2>Retrieval</h2>\n");
    if let Some(found) = &tables.retrieval {
        out.push_str("<p class=\"note\">Each picture and each name counts by itself.</p>\n");
        let rows = || {
            let by_language = found.by_language.iter().map(|(name, found)| (name.as_str(), found));
            by_language.chain([("all", &found.all)])
        };
        let there = rows().map(|(name, found)| (name, &found.text_to_picture));
        table(out, "From a name to its pictures", there);
        let back = rows().map(|(name, found)| (name, &found.picture_to_text));
        table(out, "From a picture to its names", back);
        out.push_str("<h3>Recall by language, from a name to its pictures</h3>\n");
        let bars: Vec<(&str, [f64; 3])> = rows()
            .map(|(name, found)| {
                let Recall { at_1, at_5, at_10, .. } = found.text_to_picture;
                (name, [at_1, at_5, at_10])
            })
            .collect();
        plots::bars(out, &bars);
    }
    let by_group = tables.text_to_picture.iter().map(|(name, recall)| (name.as_str(), recall));
    table(out, "From a name to its pictures, one hit for each group", by_group);
    let back = tables.picture_to_text.iter().map(|(name, recall)| (name.as_str(), recall));
    table(out, "From a picture to its name, one hit for each group", back);
    let unseen = tables.unseen_style.iter().map(|(name, recall)| (name.as_str(), recall));
    table(out, "From a name to pictures of a style never seen", unseen);
    let others = [
        ("names never seen", tables.withheld_names.as_ref()),
        ("phrases", tables.phrases.as_ref().map(|phrases| &phrases.recall)),
    ];
    let others = others.into_iter().filter_map(|(name, recall)| Some((name, recall?)));
    table(out, "Other queries", others);
}

fn table<'a>(out: &mut String, title: &str, rows: impl Iterator<Item = (&'a str, &'a Recall)>) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    push(
        out,
        format_args!(
            "<h3>{title}</h3>\n<table>\n<tr><th></th><th>queries</th><th>R@1</th><th>R@5</th>\
             <th>R@10</th><th>median rank</th></tr>\n"
        ),
    );
    for (name, Recall { queries, at_1, at_5, at_10, median_rank }) in rows {
        push(
            out,
            format_args!(
                "<tr><td>{}</td><td>{queries}</td><td>{at_1:.3}</td><td>{at_5:.3}</td>\
                 <td>{at_10:.3}</td><td>{median_rank:.1}</td></tr>\n",
                escape(name)
            ),
        );
    }
    out.push_str("</table>\n");
}

/// The probes as a heat map: white is chance, the darker the more is read.
pub(super) fn probes(out: &mut String, readings: &[Reading]) {
    if readings.is_empty() {
        return;
    }
    out.push_str(
        "<h2>What the vectors say</h2>\n<p class=\"note\">The share of rows whose factor a small classifier \
         reads from the frozen vectors, on rows that it was not fitted on. White is chance (the most \
         frequent class), the darkest is always right. What only one modality says belongs into its \
         exclusive vectors, what both say into the shared ones.</p>\n<table>\n<tr><th>factor</th>\
         <th>classes</th><th>fitted</th><th>scored</th><th>rows</th><th>chance</th><th>shared, linear</th>\
         <th>shared, MLP</th><th>exclusive, linear</th><th>exclusive, MLP</th></tr>\n",
    );
    for reading in readings {
        let rule = match reading.rule {
            Rule::Splits => "by split",
            Rule::Concepts => "by concept",
            Rule::LeftOut => "one left out",
        };
        push(
            out,
            format_args!(
                "<tr><td>{} {}</td><td>{}</td><td>{}</td><td>{}</td><td>{rule}</td><td>{:.3}</td>",
                escape(&reading.modality),
                escape(&reading.factor),
                reading.classes,
                reading.fitted,
                reading.scored,
                reading.chance
            ),
        );
        let (shared, exclusive) = (reading.shared, reading.exclusive);
        for value in [shared.linear, shared.mlp, exclusive.linear, exclusive.mlp] {
            let above = (value - reading.chance) / (1.0 - reading.chance).max(1e-9);
            shaded(out, value, above);
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n");
}

/// A cell of a matrix, the darker the more of what can be read is read, 0 to 1.
fn shaded(out: &mut String, value: f64, read: f64) {
    let shade = read.clamp(0.0, 1.0) * 0.75;
    push(
        out,
        format_args!("<td style=\"background: rgba(38, 98, 178, {shade:.2})\">{value:.3}</td>"),
    );
}

/// The probes of numbers, as [`probes`].
pub(super) fn numbers(out: &mut String, readings: &[NumberReading]) {
    if readings.is_empty() {
        return;
    }
    out.push_str(
        "<h3>Factors that are numbers</h3>\n<p class=\"note\">The share of their variance that is read; white is \
         none.</p>\n<table>\n<tr><th>factor</th><th>fitted</th><th>scored</th><th>shared, linear</th>\
         <th>shared, MLP</th><th>exclusive, linear</th><th>exclusive, MLP</th></tr>\n",
    );
    for NumberReading { modality, factor, fitted, scored, shared, exclusive, .. } in readings {
        let (modality, factor) = (escape(modality), escape(factor));
        push(
            out,
            format_args!("<tr><td>{modality} {factor}</td><td>{fitted}</td><td>{scored}</td>"),
        );
        for value in [shared.linear, shared.mlp, exclusive.linear, exclusive.mlp] {
            shaded(out, value, value);
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n");
}

/// What independent classifiers read of swaps.
pub(super) fn swaps(out: &mut String, swaps: &[Swaps]) {
    if swaps.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Swaps</h2>\n<p class=\"note\">Items made of one concept's shared and another item's exclusive code, \
         read by small networks that know real items alone. What both sides say should be read as the \
         first has it, what only one says as the second has it.</p>\n",
    );
    for Swaps { modality, swaps, content_at_1, factors } in swaps {
        push(
            out,
            format_args!(
                "<h3>{swaps} made as {}: {content_at_1:.3} find the concept of their shared code first</h3>\n\
                 <table>\n<tr><th>factor</th><th>of real items</th><th>as the shared code has it</th>\
                 <th>as the exclusive code has it</th></tr>\n",
                escape(modality)
            ),
        );
        for Swapped { factor, real, of_content, of_style } in factors {
            push(
                out,
                format_args!(
                    "<tr><td>{}</td><td>{real:.3}</td><td>{of_content:.3}</td><td>{of_style:.3}</td></tr>\n",
                    escape(factor)
                ),
            );
        }
        out.push_str("</table>\n");
    }
}

/// Retrieval by exclusive vectors.
pub(super) fn exclusive(out: &mut String, found: &ExclusiveRetrieval) {
    out.push_str(
        "<h2>Retrieval by exclusive vectors</h2>\n<p class=\"note\">Should be at chance. As they are, vectors of \
         two spaces are so in any case; the maps from exclusive vectors to the other side's shared ones, \
         fitted on other concepts, would find what leaks.</p>\n",
    );
    let directions = [
        ("From a name to its pictures", &found.text_to_picture),
        ("From a picture to its names", &found.picture_to_text),
    ];
    for (title, found) in directions {
        let Found { queries, candidates, chance, unfitted, ridge, random_features, shared } = found;
        push(
            out,
            format_args!(
                "<h3>{title}: {queries} queries, {candidates} candidates</h3>\n<table>\n\
                 <tr><th></th><th>R@1</th><th>R@10</th></tr>\n"
            ),
        );
        let rows = [
            ("chance", Some(chance)),
            ("exclusive, as they are", unfitted.as_ref()),
            ("exclusive, mapped linearly", Some(ridge)),
            ("exclusive, mapped nonlinearly", Some(random_features)),
            ("shared, for comparison", Some(shared)),
        ];
        for (name, cuts) in rows.into_iter().filter_map(|(name, cuts)| Some((name, cuts?))) {
            push(
                out,
                format_args!(
                    "<tr><td>{name}</td><td>{:.4}</td><td>{:.4}</td></tr>\n",
                    cuts.at_1, cuts.at_10
                ),
            );
        }
        out.push_str("</table>\n");
    }
}
