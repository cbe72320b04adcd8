//! The page of figures: new tables in the place of old ones, and what the picture shows of all.

use crate::report::Table;

/// What a table's first line begins with.
const HEAD: &str = "| variant | median ";

/// The page with the figures of these tables in place of those under the same titles.
///
/// # Panics
/// If the page has no table under one of the titles.
pub(crate) fn renewed(page: &str, tables: &[Table]) -> String {
    let mut missing: Vec<_> = tables.iter().collect();
    let (mut out, mut title, mut replaced) = (String::new(), "", false);
    for line in page.lines() {
        title = heading(line).map_or(title, |(_, title)| title);
        replaced &= line.starts_with('|');
        if line.starts_with(HEAD)
            && let Some(index) = missing.iter().position(|table| table.title == title)
        {
            out += &missing.swap_remove(index).markdown();
            replaced = true;
        }
        if !replaced {
            out += line;
            out.push('\n');
        }
    }
    let missing: Vec<_> = missing.iter().map(|table| table.title).collect();
    assert!(missing.is_empty(), "the page has no tables {missing:?}");
    out
}

/// One table of the page as bars.
#[derive(Debug)]
pub(crate) struct Chart<'p> {
    pub(crate) title: String,
    pub(crate) unit: &'p str,
    pub(crate) bars: Vec<Bar<'p>>,
}

/// One row of it.
#[derive(Debug)]
pub(crate) struct Bar<'p> {
    pub(crate) name: &'p str,
    /// As the page says it.
    pub(crate) median: &'p str,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The tables of figures on the page, in order.
pub(crate) fn charts(page: &str) -> Vec<Chart<'_>> {
    let (mut charts, mut chapter, mut title): (Vec<Chart<'_>>, _, _) = (Vec::new(), "", "");
    for line in page.lines() {
        match heading(line) {
            Some((2, text)) => (chapter, title) = (text, text),
            Some((_, text)) => title = text,
            None => {}
        }
        if let Some(unit) = line.strip_prefix(HEAD) {
            let unit = unit.split(' ').next().unwrap_or_default();
            let title =
                if title == chapter { title.to_owned() } else { format!("{chapter}: {title}") };
            charts.push(Chart { title, unit, bars: Vec::new() });
        } else if let (Some(bar), Some(chart)) = (bar(line), charts.last_mut()) {
            chart.bars.push(bar);
        }
    }
    charts
}

/// The level and text of a heading.
fn heading(line: &str) -> Option<(usize, &str)> {
    let (marks, text) = line.split_once(' ')?;
    (!marks.is_empty() && marks.bytes().all(|mark| mark == b'#')).then_some((marks.len(), text))
}

fn bar(line: &str) -> Option<Bar<'_>> {
    let (name, rest) = line.strip_prefix("| ")?.split_once(" | **")?;
    let (median, rest) = rest.split_once("** | ")?;
    let (low, rest) = rest.split_once(" – ")?;
    let (high, _) = rest.split_once(" |")?;
    Some(Bar { name, median, low: low.parse().ok()?, high: high.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Row;

    const PAGE: &str = "# Page\n\n## One\n\nHow.\n\n| variant | median s | lowest – highest | runs | ratio |\n|---|---|---|---|---|\n\
        | a | **1.5** | 1.0 – 2.0 | 2 | 0.50 |\n| b | **3.0** | 3.0 – 3.0 | 1 | 1.00 |\n\nAfter.\n\n## Two\n\n### Three\n\n\
        | variant | median ms | lowest – highest | runs | ratio |\n|---|---|---|---|---|\n| c | **4** | 4 – 4 | 1 | 1.00 |\n\n\
        ## Words\n\n| a | b |\n|---|---|\n| **1** | 2 |\n";

    fn table(title: &'static str, runs: &[f64]) -> Table {
        let groups = vec![vec![Row { name: "d", runs: runs.to_vec() }]];
        Table { title, method: String::new(), unit: "ms", digits: 1, groups }
    }

    #[test]
    fn new_figures_replace_old_ones_and_nothing_else() {
        let page = renewed(PAGE, &[table("Three", &[2.0, 6.0, 7.0])]);
        let (before, after) = PAGE.split_once("| c | **4** | 4 – 4 | 1 | 1.00 |").unwrap();
        assert_eq!(page, format!("{before}| d | **6.0** | 2.0 – 7.0 | 3 | 1.00 |{after}"));
        assert_eq!(renewed(PAGE, &[]), PAGE);
    }

    #[test]
    #[should_panic(expected = "no tables [\"Four\"]")]
    fn figures_without_a_place_are_not_lost_silently() {
        let _ = renewed(PAGE, &[table("Four", &[1.0])]);
    }

    #[test]
    fn the_picture_shows_what_the_page_says() {
        let charts = charts(PAGE);
        let seen: Vec<_> = charts.iter().map(|chart| (&*chart.title, chart.unit)).collect();
        assert_eq!(seen, [("One", "s"), ("Two: Three", "ms")]);
        let bars = charts.iter().flat_map(|chart| &chart.bars);
        let bars: Vec<_> = bars.map(|bar| (bar.name, bar.median, bar.low, bar.high)).collect();
        assert_eq!(bars, [("a", "1.5", 1.0, 2.0), ("b", "3.0", 3.0, 3.0), ("c", "4", 4.0, 4.0)]);
    }
}
