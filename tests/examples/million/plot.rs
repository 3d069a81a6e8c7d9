//! A row of the table, and the cost of a query over the number of rows as a drawing.

use serde_json::Value;

/// One line of the table.
pub(crate) fn line(row: &Value) -> String {
    let keys = [
        ("rows", 0),
        ("ingest_rows_per_s", 0),
        ("graph_s", 1),
        ("start_s", 2),
        ("graph_after_start_s", 1),
        ("rss_bytes_per_row", 0),
        ("ef_search", 0),
        ("recall_at_10", 4),
        ("p50_ms", 2),
        ("p99_ms", 2),
        ("searches_per_s", 0),
        ("writes_per_s", 0),
    ];
    let cells = keys.map(|(key, digits)| {
        row[key].as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
    });
    format!("| {} |", cells.join(" | "))
}

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 320.0;
const EDGE: f64 = 50.0;

/// Median and 99th percentile over rows, both axes by powers of ten.
pub(crate) fn svg(rows: &[Value]) -> String {
    let points = |key: &str| -> Vec<(f64, f64)> {
        let point = |row: &Value| Some((row["rows"].as_f64()?.log10(), row[key].as_f64()?.log10()));
        rows.iter().filter_map(point).collect()
    };
    let (median, slow) = (points("p50_ms"), points("p99_ms"));
    let all: Vec<(f64, f64)> = median.iter().chain(&slow).copied().collect();
    let span = |values: Vec<f64>| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min).floor();
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
        (least, most.max(least + 1.0))
    };
    let (left, right) = span(all.iter().map(|(x, _)| *x).collect());
    let (low, high) = span(all.iter().map(|(_, y)| *y).collect());
    let x = |value: f64| EDGE + (value - left) / (right - left) * (WIDTH - 2.0 * EDGE);
    let y = |value: f64| HEIGHT - EDGE - (value - low) / (high - low) * (HEIGHT - 2.0 * EDGE);
    let mut drawn = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n<text x=\"{EDGE}\" y=\"24\">ms for a search over gRPC, by rows: p50 \
         (blue) and p99 (red)</text>\n"
    );
    let mut add = |piece: String| drawn.push_str(&piece);
    for power in left as i32..=right as i32 {
        let at = x(power.into());
        add(format!(
            "<line x1=\"{at}\" x2=\"{at}\" y1=\"{EDGE}\" y2=\"{}\" stroke=\"#ddd\"/>\n",
            HEIGHT - EDGE
        ));
        add(format!(
            "<text x=\"{at}\" y=\"{}\" text-anchor=\"middle\">1e{power}</text>\n",
            HEIGHT - EDGE + 16.0
        ));
    }
    for power in low as i32..=high as i32 {
        let at = y(power.into());
        add(format!(
            "<line x1=\"{EDGE}\" x2=\"{}\" y1=\"{at}\" y2=\"{at}\" stroke=\"#ddd\"/>\n",
            WIDTH - EDGE
        ));
        add(format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n",
            EDGE - 6.0,
            at + 4.0,
            10_f64.powi(power)
        ));
    }
    for (points, colour) in [(median, "#1f5fbf"), (slow, "#bf2f2f")] {
        let mut path = String::new();
        for (rows, cost) in points {
            path.push_str(&format!("{:.1},{:.1} ", x(rows), y(cost)));
            add(format!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>\n",
                x(rows),
                y(cost)
            ));
        }
        add(format!(
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n"
        ));
    }
    drawn + "</svg>\n"
}
