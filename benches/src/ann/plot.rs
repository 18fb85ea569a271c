//! Recall against queries a second as an SVG, for a page of the documentation.

use std::fmt::Write;

use super::Curve;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Recall on the left edge; settings below it are left out.
const RECALL_MIN: f64 = 0.85;
const COLOURS: [&str; 12] = [
    "#b30000", "#e07000", "#b8a000", "#1a7f37", "#0a6ebd", "#6f42c1", "#000000", "#7a5230", "#d6336c", "#5a6570",
    "#00897b", "#9e9d24",
];

pub(super) fn svg(title: &str, curves: &[(&str, &Curve)]) -> String {
    let shown = |curve: &Curve| -> Curve {
        let mut points: Curve = curve
            .iter()
            .filter(|(recall, _)| *recall >= RECALL_MIN)
            .copied()
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let speeds = curves
        .iter()
        .flat_map(|(_, curve)| shown(curve))
        .map(|(_, speed)| speed.log10());
    let (low, high) = speeds.fold((f64::MAX, f64::MIN), |(low, high), s| (low.min(s), high.max(s)));
    let (low, high) = if low < high {
        (low.floor(), high.ceil())
    } else {
        (2.0, 5.0)
    };
    let x = |recall: f64| LEFT + (recall - RECALL_MIN) / (1.0 - RECALL_MIN) * (WIDTH - LEFT - RIGHT);
    let y = |log: f64| HEIGHT - BOTTOM - (log - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"24\" font-size=\"16\">{title}</text>\n"
    );
    let mut line = |from: (f64, f64), to: (f64, f64)| {
        let _ = writeln!(
            out,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
            from.0, from.1, to.0, to.1
        );
    };
    let recalls: Vec<f64> = (0..=15).step_by(3).map(|i| RECALL_MIN + f64::from(i) / 100.0).collect();
    let mut decades = Vec::new();
    let mut decade = low;
    while decade <= high {
        decades.extend(
            [1.0f64, 2.0, 5.0]
                .map(|m| decade + m.log10())
                .into_iter()
                .filter(|d| *d <= high),
        );
        decade += 1.0;
    }
    for recall in &recalls {
        line((x(*recall), TOP), (x(*recall), HEIGHT - BOTTOM));
    }
    for log in &decades {
        line((LEFT, y(*log)), (WIDTH - RIGHT, y(*log)));
    }
    for recall in &recalls {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{recall:.2}</text>",
            x(*recall),
            HEIGHT - BOTTOM + 18.0
        );
    }
    for log in &decades {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}</text>",
            LEFT - 6.0,
            y(*log) + 4.0,
            10f64.powf(*log)
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">recall@10</text>\n<text x=\"16\" y=\"{:.1}\" transform=\"rotate(-90 16 \
         {:.1})\" text-anchor=\"middle\">queries/s</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 12.0,
        HEIGHT / 2.0,
        HEIGHT / 2.0
    );
    for (i, (name, curve)) in curves.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let points: Vec<String> = shown(curve)
            .iter()
            .map(|(recall, speed)| format!("{:.1},{:.1}", x(*recall), y(speed.log10())))
            .collect();
        let width = if name.starts_with("cairn") { 3 } else { 1 };
        let label = TOP + 18.0 * (i as f64 + 1.0);
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>\n<text x=\"{:.1}\" y=\"{label:.1}\" \
             fill=\"{colour}\">{name}</text>",
            points.join(" "),
            WIDTH - RIGHT + 12.0
        );
    }
    out.push_str("</svg>\n");
    out
}
