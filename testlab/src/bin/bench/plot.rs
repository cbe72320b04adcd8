//! Tables as bars.

use std::fmt::Write as _;

use crate::report::Table;

const WIDTH: f64 = 790.0;
const LABELS: f64 = 260.0;
const VALUES: f64 = 70.0;
const LINE: f64 = 22.0;
const HEAD: f64 = 34.0;

/// All tables as one SVG: a bar for each median, a line from the lowest to the highest run.
pub(crate) fn svg(tables: &[Table]) -> String {
    let height: f64 = tables.iter().map(|table| HEAD + LINE * table.rows.len() as f64).sum();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let mut top = 0.0;
    for table in tables {
        top = chart(table, top, &mut out);
    }
    out + "</svg>\n"
}

/// Appends a chart from `top` on; answers where the next begins.
fn chart(table: &Table, top: f64, out: &mut String) -> f64 {
    let runs = table.rows.iter().flat_map(|row| row.runs.iter().copied());
    let scale = (WIDTH - LABELS - VALUES) / runs.fold(f64::MIN_POSITIVE, f64::max);
    let (title, unit) = (table.title, table.unit);
    let y = top + 22.0;
    line(out, format_args!("<text x=\"4\" y=\"{y}\" font-weight=\"bold\">{title} ({unit})</text>"));
    for (index, row) in table.rows.iter().enumerate() {
        let middle = top + HEAD + LINE * (index as f64 + 0.5);
        let (text, bar) = (middle + 4.5, middle - 7.0);
        let (median, (low, high)) = (row.median(), row.range());
        let fill = if row.name.starts_with("shadowmesh") { "#2a6f97" } else { "#a9bcc8" };
        let (width, x) = (median * scale, LABELS - 8.0);
        let (from, to) = (LABELS + low * scale, LABELS + high * scale);
        let (name, digits, end) = (row.name, table.digits, WIDTH - VALUES + 8.0);
        line(out, format_args!("<text x=\"{x}\" y=\"{text}\" text-anchor=\"end\">{name}</text>"));
        line(
            out,
            format_args!(
                "<rect x=\"{LABELS}\" y=\"{bar}\" width=\"{width:.1}\" height=\"14\" fill=\"{fill}\"/>"
            ),
        );
        line(
            out,
            format_args!(
                "<path d=\"M{from:.1} {middle}H{to:.1}\" stroke=\"#333\" stroke-width=\"1.5\"/>"
            ),
        );
        line(out, format_args!("<text x=\"{end}\" y=\"{text}\">{median:.digits$}</text>"));
    }
    top + HEAD + LINE * table.rows.len() as f64
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("memory takes everything");
}
