//! Tables of medians.

use std::io::Write;

/// How many runs a row has: `SHADOWMESH_RUNS`, or what is usual for its table.
pub(crate) fn runs(usual: usize) -> usize {
    let text = std::env::var("SHADOWMESH_RUNS").ok();
    text.map_or(usual, |text| text.parse().expect("SHADOWMESH_RUNS is a number"))
}

/// Whether runs or variants are left out: what comes of it belongs on no page.
pub(crate) fn is_partial() -> bool {
    ["SHADOWMESH_RUNS", "SHADOWMESH_ONLY"].iter().any(|name| std::env::var_os(name).is_some())
}

/// Whether a variant is to be measured: all are, unless `SHADOWMESH_ONLY` has words for some.
pub(crate) fn is_wanted(name: &str) -> bool {
    let words = std::env::var("SHADOWMESH_ONLY").ok();
    words.is_none_or(|words| words.split(',').any(|word| name.contains(word)))
}

/// One table of the page.
pub(crate) struct Table {
    pub(crate) title: &'static str,
    pub(crate) method: String,
    pub(crate) unit: &'static str,
    pub(crate) digits: usize,
    /// Rows of which each is compared with the last of its group.
    pub(crate) groups: Vec<Vec<Row>>,
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

    /// The lowest and the highest run.
    pub(crate) fn range(&self) -> (f64, f64) {
        let runs = self.runs.iter().copied();
        (runs.clone().fold(f64::INFINITY, f64::min), runs.fold(f64::NEG_INFINITY, f64::max))
    }
}

impl Table {
    /// The table in Markdown; every variant is also given as a multiple of the last median of its group.
    pub(crate) fn markdown(&self) -> String {
        let digits = self.digits;
        let mut text =
            format!("| variant | median {} | lowest – highest | runs | ratio |\n", self.unit);
        text += "|---|---|---|---|---|\n";
        for group in &self.groups {
            let base = group.last().map_or(f64::NAN, Row::median);
            for row in group {
                let (low, high) = row.range();
                let (median, runs) = (row.median(), row.runs.len());
                let ratio = median / base;
                text += &format!(
                    "| {} | **{median:.digits$}** | {low:.digits$} – {high:.digits$} | {runs} | {ratio:.2} |\n",
                    row.name
                );
            }
        }
        text
    }
}

/// Prints a table, and how it came about.
pub(crate) fn print(table: &Table) {
    let text = format!("## {}\n\n{}\n\n{}", table.title, table.method, table.markdown());
    writeln!(std::io::stdout(), "{text}").expect("standard output is open");
}
