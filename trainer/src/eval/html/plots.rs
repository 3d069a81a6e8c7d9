//! Plots as inline SVG.

use diptych_model::calibration::Curve;

use super::{escape, push};
use crate::eval::calibration::{Calibrated, Reliability};

/// Blue, teal and sand: told apart in grey, too.
const COLOURS: [&str; 3] = ["#2662b2", "#4fa3a5", "#d9b45b"];

/// Side of a square plot, and its margin.
const SIDE: f64 = 230.0;
const MARGIN: f64 = 34.0;

/// Grouped bars of recall at 1, 5 and 10, each 0 to 1.
pub(super) fn bars(out: &mut String, groups: &[(&str, [f64; 3])]) {
    let (step, bar, height) = (58.0, 15.0, 150.0);
    let width = MARGIN + step * groups.len() as f64 + 10.0;
    push(
        out,
        format_args!(
            "<svg width=\"{width}\" height=\"{}\" role=\"img\" aria-label=\"Recall by language\">\n",
            height + 40.0
        ),
    );
    for tenth in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let y = 10.0 + height * (1.0 - tenth);
        push(
            out,
            format_args!(
                "<line x1=\"{MARGIN}\" x2=\"{width}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#e6e9ee\"/>\
                 <text x=\"2\" y=\"{}\">{tenth:.2}</text>\n",
                y + 4.0
            ),
        );
    }
    for (number, (name, values)) in groups.iter().enumerate() {
        let x = MARGIN + step * number as f64 + 5.0;
        for ((value, colour), at) in values.iter().zip(COLOURS).zip([0.0, 1.0, 2.0]) {
            let tall = height * value.clamp(0.0, 1.0);
            push(
                out,
                format_args!(
                    "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{}\" height=\"{tall:.1}\" fill=\"{colour}\">\
                     <title>{value:.3}</title></rect>\n",
                    x + at * bar,
                    10.0 + height - tall,
                    bar - 1.0
                ),
            );
        }
        push(
            out,
            format_args!(
                "<text x=\"{:.1}\" y=\"{}\">{}</text>\n",
                x + 12.0,
                height + 26.0,
                escape(name)
            ),
        );
    }
    out.push_str("</svg>\n<p class=\"key\">");
    for (colour, name) in COLOURS.iter().zip(["R@1", "R@5", "R@10"]) {
        push(out, format_args!("<span style=\"background: {colour}\"></span>{name}"));
    }
    out.push_str("</p>\n");
}

/// What was said against what was so, and the scores of pairs and non-pairs, in both directions.
pub(super) fn calibration(out: &mut String, found: &Calibrated) {
    push(
        out,
        format_args!(
            "<h2>Calibration</h2>\n<p class=\"note\">Probability of a true pair, where true pairs are {} of all. \
             Fitted on {}, scored on {}.</p>\n",
            found.calibration.prior,
            escape(&found.fitted_on),
            escape(&found.scored_on)
        ),
    );
    let directions = [
        ("From a name to pictures", &found.text_to_picture, &found.calibration.text_to_image),
        ("From a picture to names", &found.picture_to_text, &found.calibration.image_to_text),
    ];
    for (title, reliability, curve) in directions {
        push(
            out,
            format_args!(
                "<h3>{title}: expected calibration error {:.4} over {} pairs and {} non-pairs</h3>\n\
                 <div class=\"plots\">\n",
                reliability.expected_calibration_error, reliability.pairs, reliability.non_pairs
            ),
        );
        diagram(out, reliability);
        histogram(out, reliability, curve);
        out.push_str("</div>\n");
    }
}

/// Frequency by probability; the diagonal would be perfect. A dot is as large as its bin is full.
fn diagram(out: &mut String, reliability: &Reliability) {
    open(out, "Reliability diagram", ("said", "so"));
    let at = |x: f64, y: f64| (MARGIN + x * SIDE, 10.0 + (1.0 - y) * SIDE);
    let ((x1, y1), (x2, y2)) = (at(0.0, 0.0), at(1.0, 1.0));
    push(
        out,
        format_args!(
            "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"#9aa4b2\" stroke-dasharray=\"4 3\"/>\n"
        ),
    );
    let all = (reliability.pairs + reliability.non_pairs).max(1) as f64;
    for bin in reliability.bins.iter().filter(|bin| bin.count > 0) {
        let (x, y) = at(bin.probability, bin.frequency);
        let radius = 2.5 + 9.0 * (bin.count as f64 / all).sqrt();
        push(
            out,
            format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" fill=\"{}\" fill-opacity=\"0.65\">\
                 <title>{} of {:.3}, {:.3}</title></circle>\n",
                COLOURS[0], bin.count, bin.probability, bin.frequency
            ),
        );
    }
    out.push_str("</svg>\n");
}

/// How often pairs and non-pairs have a score, each against their most frequent one; and the curve.
fn histogram(out: &mut String, reliability: &Reliability, curve: &Curve) {
    open(out, "Scores of pairs and non-pairs", ("cosine, -1 to 1", "share; probability"));
    let sides =
        [(&reliability.non_pair_scores, COLOURS[2]), (&reliability.pair_scores, COLOURS[1])];
    for (bars, colour) in sides {
        let most = bars.iter().copied().max().unwrap_or(0).max(1) as f64;
        let width = SIDE / bars.len().max(1) as f64;
        for (number, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
            let tall = SIDE * *count as f64 / most;
            push(
                out,
                format_args!(
                    "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{tall:.1}\" fill=\"{colour}\" \
                     fill-opacity=\"0.7\"><title>{count}</title></rect>\n",
                    MARGIN + width * number as f64,
                    10.0 + SIDE - tall
                ),
            );
        }
    }
    out.push_str("<polyline fill=\"none\" stroke=\"#1d2430\" stroke-width=\"1.5\" points=\"");
    for step in 0..=200 {
        let along = f64::from(step) / 200.0;
        let probability = curve.probability(2.0 * along - 1.0);
        let (x, y) = (MARGIN + along * SIDE, 10.0 + (1.0 - probability) * SIDE);
        push(out, format_args!("{x:.1},{y:.1} "));
    }
    out.push_str("\"/>\n</svg>\n<p class=\"key\">");
    for (colour, name) in
        [(COLOURS[1], "pairs"), (COLOURS[2], "non-pairs"), ("#1d2430", "probability")]
    {
        push(out, format_args!("<span style=\"background: {colour}\"></span>{name}"));
    }
    out.push_str("</p>\n");
}

fn open(out: &mut String, title: &str, (x, y): (&str, &str)) {
    push(
        out,
        format_args!(
            "<svg width=\"{}\" height=\"{}\" role=\"img\" aria-label=\"{title}\">\n\
             <rect x=\"{MARGIN}\" y=\"10\" width=\"{SIDE}\" height=\"{SIDE}\" fill=\"none\" stroke=\"#c4cbd6\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{x}</text>\
             <text x=\"12\" y=\"{}\" text-anchor=\"middle\" transform=\"rotate(-90 12 {})\">{y}</text>\n",
            SIDE + MARGIN + 10.0,
            SIDE + 40.0,
            MARGIN + SIDE / 2.0,
            SIDE + 28.0,
            10.0 + SIDE / 2.0,
            10.0 + SIDE / 2.0
        ),
    );
}
