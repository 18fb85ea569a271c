//! Modes side by side as one picture: recall against the number of hits, and nDCG with its interval. SVG or PNG, made in
//! memory.

mod raster;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use self::raster::{Canvas, Picture};
use super::Interval;

/// Size of the picture.
const SIZE: (u32, u32) = (1_100, 460);
/// Room for the names of modes.
const NAMES_WIDTH: u32 = 190;
/// Colours that readers with colour blindness tell apart (Okabe & Ito 2008), in the order they are used.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
    RGBColor(0, 0, 0),
];

/// One mode.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Mean recall at 1, 2, 3, ... hits.
    pub recall: Vec<f64>,
    /// Recall with its interval at some cuts.
    pub intervals: Vec<(usize, Interval)>,
    /// nDCG at the last cut.
    pub ndcg: Interval,
}

/// The picture as SVG. `Err` says what the drawing library refused.
pub fn svg(title: &str, lines: &[Line]) -> Result<String, String> {
    let mut text = String::new();
    draw(title, lines, SVGBackend::with_string(&mut text, SIZE)).map_err(|e| e.to_string())?;
    Ok(text)
}

/// The same as a PNG, with plainer letters.
pub fn png(title: &str, lines: &[Line]) -> Result<Vec<u8>, String> {
    let mut picture = Picture::new(SIZE);
    draw(title, lines, Canvas(&mut picture)).map_err(|e| e.to_string())?;
    picture.png().map_err(|e| e.to_string())
}

fn draw<B>(title: &str, lines: &[Line], into: B) -> Result<(), Box<dyn std::error::Error>>
where
    B: DrawingBackend,
    B::ErrorType: 'static,
{
    let root = into.into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(title, ("sans-serif", 20))?;
    let (left, right) = root.split_horizontally(SIZE.0 / 2);
    recall(&left, lines)?;
    ndcg(&right, lines)?;
    root.present()?;
    Ok(())
}

type Area<B> = DrawingArea<B, plotters::coord::Shift>;

fn recall<B>(area: &Area<B>, lines: &[Line]) -> Result<(), Box<dyn std::error::Error>>
where
    B: DrawingBackend,
    B::ErrorType: 'static,
{
    let cuts = lines.iter().map(|l| l.recall.len()).max().unwrap_or(1).max(2);
    let all = lines.iter().flat_map(|l| {
        let ends = l.intervals.iter().flat_map(|(_, i)| [i.low, i.high]);
        l.recall.iter().copied().chain(ends)
    });
    let (low, high) = room(all);
    // Intervals of one cut stand beside each other, not on top.
    let apart = cuts as f64 / 60.0;
    let shift = |i: usize| (i as f64 - (lines.len() as f64 - 1.0) / 2.0) * apart * 2.0 / lines.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(38)
        .y_label_area_size(52)
        .build_cartesian_2d(1.0 - 2.0 * apart..cuts as f64 + 2.0 * apart, low..high)?;
    chart
        .configure_mesh()
        .x_desc("hits")
        .y_desc("recall")
        .x_labels(cuts.min(11))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.2}"))
        .light_line_style(WHITE)
        .draw()?;
    for (i, line) in lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let points = line.recall.iter().enumerate().map(|(k, r)| ((k + 1) as f64, *r));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(line.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        let bars = line.intervals.iter().map(|(k, interval)| {
            let x = *k as f64 + shift(i);
            PathElement::new([(x, interval.low), (x, interval.high)], colour.stroke_width(1))
        });
        chart.draw_series(bars)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(RGBColor(200, 200, 200))
        .draw()?;
    Ok(())
}

fn ndcg<B>(area: &Area<B>, lines: &[Line]) -> Result<(), Box<dyn std::error::Error>>
where
    B: DrawingBackend,
    B::ErrorType: 'static,
{
    let (low, high) = room(lines.iter().flat_map(|l| [l.ndcg.low, l.ndcg.high]));
    let rows = lines.len() as f64;
    let cut = lines.first().map_or(0, |l| l.recall.len());
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(38)
        .y_label_area_size(NAMES_WIDTH)
        .build_cartesian_2d(low..high, 0f64..rows.max(1.0))?;
    chart
        .configure_mesh()
        .x_desc(format!("nDCG@{cut} with its 95 % interval"))
        .x_label_formatter(&|x| format!("{x:.3}"))
        .x_labels(6)
        .y_labels(0)
        .disable_y_mesh()
        .light_line_style(WHITE)
        .draw()?;
    for (i, line) in lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let y = rows - i as f64 - 0.5;
        let whisker = PathElement::new([(line.ndcg.low, y), (line.ndcg.high, y)], colour.stroke_width(2));
        chart.draw_series(std::iter::once(whisker))?;
        let dot = Circle::new((line.ndcg.mean, y), 5, colour.filled());
        chart.draw_series(std::iter::once(dot))?;
        // Names stand left of the axis, at the height of their dots.
        let (x, y) = chart.backend_coord(&(low, y));
        let (left, top) = area.get_base_pixel();
        let style = ("sans-serif", 14).into_text_style(area).color(&BLACK);
        let style = style.pos(Pos::new(HPos::Right, VPos::Center));
        let at = (x - left - 8, y - top);
        area.draw_text(&line.name, &style, at)?;
    }
    Ok(())
}

/// A range that holds all values, with a margin, within 0 to 1.
fn room(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((1.0f64, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    let margin = ((high - low) * 0.08).max(0.01);
    let (low, high) = ((low - margin).max(0.0), (high + margin).min(1.0));
    if high > low { (low, high) } else { (0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, at: f64) -> Line {
        let interval = |mean: f64| Interval {
            mean,
            low: mean - 0.02,
            high: mean + 0.02,
        };
        Line {
            name: name.to_owned(),
            recall: (0..10).map(|k| at + f64::from(k) * 0.01).collect(),
            intervals: vec![(1, interval(at)), (10, interval(at + 0.09))],
            ndcg: interval(at),
        }
    }

    #[test]
    fn the_picture_names_every_mode_and_is_whole() {
        let svg = svg("demo, 20 questions", &[line("bm25", 0.7), line("hybrid & more", 0.8)]).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["demo, 20 questions", "bm25", "hybrid &amp; more", "recall", "nDCG@10"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.contains("#0072B2") && svg.contains("#D55E00"));
    }

    #[test]
    fn the_pixels_show_every_mode_in_its_colour() {
        let mut picture = Picture::new(SIZE);
        let lines = [line("bm25", 0.7), line("hybrid & more", 0.8)];
        draw("demo, 20 questions", &lines, Canvas(&mut picture)).unwrap();
        let pixels = picture.pixels();
        let count = |r, g, b| pixels.iter().filter(|p| **p == [r, g, b]).count();
        assert!(count(0, 114, 178) > 300 && count(213, 94, 0) > 300, "lines of both");
        assert!(count(255, 255, 255) > pixels.len() / 2, "mostly white");
        // The title, and nothing at the very edge.
        let row = |y: u32| &pixels[(y * SIZE.0) as usize..((y + 1) * SIZE.0) as usize];
        assert!((0..30).any(|y| row(y).iter().filter(|p| p[0] < 64).count() > 10));
        assert!(row(SIZE.1 - 1).iter().all(|p| *p == [255; 3]));
    }

    #[test]
    fn odd_numbers_make_a_picture_too() {
        let flat = |at| Line {
            intervals: Vec::new(),
            ndcg: Interval {
                mean: at,
                low: at,
                high: at,
            },
            recall: vec![at],
            name: String::new(),
        };
        for lines in [vec![], vec![flat(0.0)], vec![flat(1.0)], vec![flat(1.0); 20]] {
            assert!(svg("", &lines).unwrap().contains("</svg>"));
            assert!(png("", &lines).unwrap().starts_with(b"\x89PNG"));
        }
    }
}
