//! Tables as bars.

use std::fmt::Write as _;

use crate::page::Chart;

const WIDTH: f64 = 820.0;
const LABELS: f64 = 290.0;
const VALUES: f64 = 70.0;
const LINE: f64 = 22.0;
const HEAD: f64 = 34.0;

/// All tables as one SVG: a bar for each median, a line from the lowest to the highest run.
pub(crate) fn svg(charts: &[Chart<'_>]) -> String {
    let height: f64 = charts.iter().map(height_of).sum();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let mut top = 0.0;
    for chart in charts {
        draw(chart, top, &mut out);
        top += height_of(chart);
    }
    out + "</svg>\n"
}

fn height_of(chart: &Chart<'_>) -> f64 {
    HEAD + LINE * chart.bars.len() as f64
}

/// Appends a chart from `top` on.
fn draw(chart: &Chart<'_>, top: f64, out: &mut String) {
    let longest = chart.bars.iter().map(|bar| bar.high).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LABELS - VALUES) / longest;
    let (title, unit) = (&chart.title, chart.unit);
    let y = top + 22.0;
    line(out, format_args!("<text x=\"4\" y=\"{y}\" font-weight=\"bold\">{title} ({unit})</text>"));
    for (index, bar) in chart.bars.iter().enumerate() {
        let middle = top + HEAD + LINE * (index as f64 + 0.5);
        let (text, edge) = (middle + 4.5, middle - 7.0);
        let fill = if bar.name.contains("shadowmesh") { "#2a6f97" } else { "#a9bcc8" };
        let (width, x) = (bar.median.parse().unwrap_or(0.0) * scale, LABELS - 8.0);
        let (from, to) = (LABELS + bar.low * scale, LABELS + bar.high * scale);
        let (name, median, end) = (bar.name, bar.median, WIDTH - VALUES + 8.0);
        line(out, format_args!("<text x=\"{x}\" y=\"{text}\" text-anchor=\"end\">{name}</text>"));
        line(
            out,
            format_args!(
                "<rect x=\"{LABELS}\" y=\"{edge}\" width=\"{width:.1}\" height=\"14\" fill=\"{fill}\"/>"
            ),
        );
        line(
            out,
            format_args!(
                "<path d=\"M{from:.1} {middle}H{to:.1}\" stroke=\"#333\" stroke-width=\"1.5\"/>"
            ),
        );
        line(out, format_args!("<text x=\"{end}\" y=\"{text}\">{median}</text>"));
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("memory takes everything");
}
