//! Tables for people.

use std::collections::BTreeMap;
use std::fmt;

use super::{MEAN_LANGUAGES, Tables, mean_at_5};
use crate::eval::calibration::Calibrated;
use crate::eval::exclusive::{Cuts, ExclusiveRetrieval, Found};
use crate::eval::probe::{NumberReading, Reading};
use crate::eval::recall::Recall;
use crate::eval::retrieval::{Choice, Retrieval};
use crate::eval::swaps::{Swapped, Swaps};

impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        languages(f, "name -> picture (one hit per group)", &self.text_to_picture)?;
        for (style, by_language) in &self.text_to_picture_by_style {
            languages(f, &format!("name -> picture, {style} alone"), by_language)?;
        }
        languages(f, "picture -> own name", &self.picture_to_text)?;
        languages(f, "name -> picture of a style never seen", &self.unseen_style)?;
        if let Some(recall) = &self.withheld_names {
            heading(f, "names never seen -> picture")?;
            row(f, "all", recall)?;
        }
        if let Some(phrases) = &self.phrases {
            heading(f, "phrases -> an accepted picture")?;
            row(f, "all", &phrases.recall)?;
            writeln!(f, "  missed in the top 5: {}", phrases.missed.join("; "))?;
        }
        if let Some(found) = &self.retrieval {
            retrieval(f, &self.split, found)?;
        }
        if let Some(gap) = self.modality_gap {
            writeln!(f, "modality gap {gap:.4}")?;
        }
        probes(f, &self.probes)?;
        numbers(f, &self.numbers)?;
        if let Some(found) = &self.exclusive_retrieval {
            exclusive(f, found)?;
        }
        swaps(f, &self.swaps)?;
        self.calibration.as_ref().map_or(Ok(()), |found| calibration(f, found))
    }
}

fn languages(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    by_language: &BTreeMap<String, Recall>,
) -> fmt::Result {
    if by_language.is_empty() {
        return Ok(());
    }
    heading(f, title)?;
    for (language, recall) in by_language {
        row(f, language, recall)?;
    }
    writeln!(
        f,
        "  {:<8} {:>8} {:>8} {:>8.3}",
        "mean of",
        MEAN_LANGUAGES.len(),
        "",
        mean_at_5(by_language)
    )
}

fn heading(f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
    writeln!(f, "{title}")?;
    writeln!(
        f,
        "  {:<8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "queries", "R@1", "R@5", "R@10", "median"
    )
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, recall: &Recall) -> fmt::Result {
    let Recall { queries, at_1, at_5, at_10, median_rank } = recall;
    writeln!(f, "  {name:<8} {queries:>8} {at_1:>8.3} {at_5:>8.3} {at_10:>8.3} {median_rank:>8.1}")
}

fn retrieval(f: &mut fmt::Formatter<'_>, split: &str, found: &Retrieval) -> fmt::Result {
    let Retrieval { pictures, names, all, by_language, choice_of_20 } = found;
    heading(
        f,
        &format!("name -> picture, each counts: {names} names, {pictures} pictures ({split})"),
    )?;
    let rows =
        || by_language.iter().map(|(name, found)| (name.as_str(), found)).chain([("all", all)]);
    for (name, found) in rows() {
        row(f, name, &found.text_to_picture)?;
    }
    heading(f, "picture -> name, each counts")?;
    for (name, found) in rows() {
        row(f, name, &found.picture_to_text)?;
    }
    write!(f, "  rsum")?;
    for (name, found) in rows() {
        write!(f, "  {name} {:.1}", found.rsum)?;
    }
    writeln!(f)?;
    choice_of_20.map_or(Ok(()), |Choice { text_to_picture, picture_to_text }| {
        writeln!(f, "  one of 20: name -> picture {text_to_picture:.3}, back {picture_to_text:.3}")
    })
}

fn probes(f: &mut fmt::Formatter<'_>, readings: &[Reading]) -> fmt::Result {
    if readings.is_empty() {
        return Ok(());
    }
    writeln!(f, "probes: share read, of rows that they were not fitted on")?;
    writeln!(
        f,
        "  {:<20} {:>7} {:>7} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9}",
        "", "classes", "fitted", "scored", "chance", "S linear", "S mlp", "E linear", "E mlp"
    )?;
    for reading in readings {
        let Reading { classes, fitted, scored, chance, shared, exclusive, .. } = reading;
        let name = format!("{} {}", reading.modality, reading.factor);
        writeln!(
            f,
            "  {name:<20} {classes:>7} {fitted:>7} {scored:>7} {chance:>7.3} {:>9.3} {:>9.3} {:>9.3} {:>9.3}",
            shared.linear, shared.mlp, exclusive.linear, exclusive.mlp
        )?;
    }
    Ok(())
}

fn numbers(f: &mut fmt::Formatter<'_>, readings: &[NumberReading]) -> fmt::Result {
    if readings.is_empty() {
        return Ok(());
    }
    writeln!(f, "probes of numbers: share of the variance read, chance 0")?;
    writeln!(
        f,
        "  {:<20} {:>7} {:>7} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9}",
        "", "", "fitted", "scored", "", "S linear", "S mlp", "E linear", "E mlp"
    )?;
    for NumberReading { modality, factor, fitted, scored, shared, exclusive, .. } in readings {
        let name = format!("{modality} {factor}");
        writeln!(
            f,
            "  {name:<20} {:>7} {fitted:>7} {scored:>7} {:>7} {:>9.3} {:>9.3} {:>9.3} {:>9.3}",
            "", "", shared.linear, shared.mlp, exclusive.linear, exclusive.mlp
        )?;
    }
    Ok(())
}

fn swaps(f: &mut fmt::Formatter<'_>, swaps: &[Swaps]) -> fmt::Result {
    for Swaps { modality, swaps, content_at_1, factors } in swaps {
        writeln!(
            f,
            "{swaps} swaps made as {modality}: {content_at_1:.3} find their content first; read by others:"
        )?;
        writeln!(f, "  {:<20} {:>9} {:>11} {:>9}", "", "of real", "of content", "of style")?;
        for Swapped { factor, real, of_content, of_style } in factors {
            writeln!(f, "  {factor:<20} {real:>9.3} {of_content:>11.3} {of_style:>9.3}")?;
        }
    }
    Ok(())
}

fn exclusive(f: &mut fmt::Formatter<'_>, found: &ExclusiveRetrieval) -> fmt::Result {
    let directions =
        [("name -> picture", &found.text_to_picture), ("picture -> name", &found.picture_to_text)];
    for (direction, found) in directions {
        let Found { queries, candidates, chance, unfitted, ridge, random_features, shared } = found;
        writeln!(
            f,
            "{direction} by exclusive vectors: {queries} queries, {candidates} candidates"
        )?;
        writeln!(f, "  {:<26} {:>8} {:>8}", "", "R@1", "R@10")?;
        let mut line = |name: &str, cuts: &Cuts| {
            writeln!(f, "  {name:<26} {:>8.4} {:>8.4}", cuts.at_1, cuts.at_10)
        };
        line("chance", chance)?;
        if let Some(cuts) = unfitted {
            line("as they are", cuts)?;
        }
        line("E to other S, linear", ridge)?;
        line("E to other S, nonlinear", random_features)?;
        line("shared, for comparison", shared)?;
    }
    Ok(())
}

fn calibration(f: &mut fmt::Formatter<'_>, found: &Calibrated) -> fmt::Result {
    let Calibrated { fitted_on, scored_on, text_to_picture, picture_to_text, calibration } = found;
    writeln!(
        f,
        "calibration: fitted on {fitted_on}, scored on {scored_on}, prior {}",
        calibration.prior
    )?;
    let rows = [
        ("name -> picture", text_to_picture, &calibration.text_to_image),
        ("picture -> name", picture_to_text, &calibration.image_to_text),
    ];
    for (direction, reliability, curve) in rows {
        writeln!(
            f,
            "  {direction}: expected calibration error {:.4} over {} pairs and {} non-pairs, {} knots",
            reliability.expected_calibration_error,
            reliability.pairs,
            reliability.non_pairs,
            curve.knots.len()
        )?;
    }
    Ok(())
}
