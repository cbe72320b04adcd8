//! Tables of medians.

use std::io::Write;

/// One table of the page.
pub(crate) struct Table {
    pub(crate) title: &'static str,
    pub(crate) method: String,
    pub(crate) unit: &'static str,
    pub(crate) digits: usize,
    pub(crate) rows: Vec<Row>,
}

/// What one variant reached, run by run.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) runs: Vec<f64>,
}

impl Row {
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.runs.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }
}

/// Prints a table; every variant is also given as a multiple of the last row's median.
pub(crate) fn print(table: &Table) {
    let digits = table.digits;
    let base = table.rows.last().map_or(f64::NAN, Row::median);
    let mut text = format!("## {}\n\n{}\n\n", table.title, table.method);
    text += &format!("| variant | median {} | lowest – highest | runs | ratio |\n", table.unit);
    text += "|---|---|---|---|---|\n";
    for row in &table.rows {
        let low = row.runs.iter().copied().fold(f64::INFINITY, f64::min);
        let high = row.runs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (median, runs) = (row.median(), row.runs.len());
        let ratio = median / base;
        text += &format!(
            "| {} | **{median:.digits$}** | {low:.digits$} – {high:.digits$} | {runs} | {ratio:.2} |\n",
            row.name
        );
    }
    writeln!(std::io::stdout(), "{text}").expect("standard output is open");
}
