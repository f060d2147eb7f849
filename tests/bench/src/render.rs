//! Writes the tables of `src/guide/cost.md` and the charts of the README from `results/*.json`.
//!
//! A table stands between `<!-- FILE: TABLE -->` and `<!-- end -->`; `<!-- FILE -->` alone stands for
//! the date and the machine.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::results::{Results, folder};
use crate::table::{Cell, Row, Summary, digits};

pub fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/guide/cost.md")
}

/// Writes the page and the charts.
pub fn render() -> io::Result<()> {
    let text = fs::read_to_string(page())?;
    fs::write(page(), with_tables(&text)?)?;
    for (name, svg) in charts()? {
        fs::write(folder().join(name), svg)?;
    }
    Ok(())
}

pub fn charts() -> io::Result<[(&'static str, String); 2]> {
    let results = Results::load(&folder().join("comparison.json"))?;
    let rows = |table: &str, loads: &[&str]| -> Vec<Row> {
        let is_shown =
            |row: &&Row| row.table == table && loads.iter().any(|load| row.load.starts_with(load));
        results.rows.iter().filter(is_shown).cloned().collect()
    };
    let cpu = chart(
        "CPU time per unit of work, as a ratio to a raw epoll loop",
        &results,
        &rows("cpu", &["64 B", "16 KiB", "33", "40", "256", "a stream"]),
        |cell| cell.ratio,
        Scale::Linear,
    );
    let latency = chart(
        "Latency of 64 B at 1,000 a second, microseconds, on a logarithmic scale",
        &results,
        &rows("latency", &["p50", "p99,"]),
        |cell| Some(cell.figure),
        Scale::Log,
    );
    Ok([("cpu.svg", cpu), ("latency.svg", latency)])
}

/// Returns the text with every table made anew.
pub fn with_tables(text: &str) -> io::Result<String> {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        out += line;
        out.push('\n');
        let Some(what) = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->"))
        else {
            continue;
        };
        if what == "end" {
            return Err(io::Error::other("cost.md has `<!-- end -->` without a table before it"));
        }
        if !lines.by_ref().any(|line| line == "<!-- end -->") {
            return Err(io::Error::other(format!("cost.md has no `<!-- end -->` behind {line}")));
        }
        let (file, table) = what.split_once(": ").unwrap_or((what, ""));
        let results = Results::load(&folder().join(format!("{file}.json")))?;
        let body = match table {
            "" => format!("{}\n", results.caption()),
            _ => tables(results.rows.iter().filter(|row| row.table == table).collect()),
        };
        if body.is_empty() {
            return Err(io::Error::other(format!("{file}.json has no table {table}: measure it")));
        }
        write!(out, "\n{body}\n<!-- end -->\n").map_err(io::Error::other)?;
    }
    Ok(out)
}

/// One table for each run of rows with the same subjects.
fn tables(rows: Vec<&Row>) -> String {
    let names =
        |row: &Row| -> Vec<String> { row.cells.iter().map(|cell| cell.subject.clone()).collect() };
    let mut parts = Vec::new();
    for rows in rows.chunk_by(|a, b| {
        names(a) == names(b) || (a.cells.len() == 2 && b.cells.len() == 2 && a.floor == b.floor)
    }) {
        let same = rows.iter().all(|row| names(row) == names(rows[0]));
        parts.push(match rows {
            [row] if row.cells.len() > 4 => upright(row),
            _ if same => side_by_side(rows, &names(rows[0])),
            _ => side_by_side(rows, &["with it".into(), rows[0].cells[1].subject.clone()]),
        });
    }
    parts.join("\n")
}

fn side_by_side(rows: &[&Row], names: &[String]) -> String {
    let mut out = format!(
        "| load | unit | {} |\n|---|---|{}\n",
        names.join(" | "),
        "---:|".repeat(names.len())
    );
    for row in rows {
        let cells: Vec<String> = row.cells.iter().map(|cell| text_of(row, cell)).collect();
        let _ = writeln!(out, "| {} | {} | {} |", row.load, row.unit, cells.join(" | "));
    }
    out
}

fn upright(row: &Row) -> String {
    let mut out = format!("| {} | {} |\n|---|---:|\n", row.load, row.unit);
    for cell in &row.cells {
        let _ = writeln!(out, "| {} | {} |", cell.subject, text_of(row, cell));
    }
    out
}

/// The median; then, in brackets, the ratio with its interval.
fn text_of(row: &Row, cell: &Cell) -> String {
    let figure = digits(cell.figure.median);
    let is_floor = row.floor.as_ref() == Some(&cell.subject);
    match cell.ratio {
        _ if is_floor => figure,
        None => figure,
        Some(Summary { median, low, high }) if low == high => format!("{figure} ({median:.2})"),
        Some(Summary { median, low, high }) => {
            format!("{figure} ({median:.2}; {low:.2} to {high:.2})")
        }
    }
}

enum Scale {
    Linear,
    Log,
}

const COLORS: [&str; 4] = ["#2563a8", "#9a9a9a", "#c98a1b", "#a8434f"];

/// A group of bars for each row, with the interval as a line on each bar.
fn chart(
    title: &str,
    results: &Results,
    rows: &[Row],
    of: impl Fn(&Cell) -> Option<Summary>,
    scale: Scale,
) -> String {
    const LEFT: f64 = 250.0;
    const WIDE: f64 = 400.0;
    let summaries = || rows.iter().flat_map(|row| row.cells.iter().filter_map(&of));
    let most = summaries().map(|summary| summary.high).fold(1.0, f64::max);
    let least = match scale {
        Scale::Linear => 0.0,
        Scale::Log => summaries().map(|summary| summary.low).fold(most, f64::min).max(0.1) / 1.5,
    };
    let x = |value: f64| match scale {
        Scale::Linear => LEFT + WIDE * value / most,
        Scale::Log => LEFT + WIDE * (value.max(least) / least).ln() / (most / least).ln(),
    };
    let (mut body, mut y) = (String::new(), 58.0);
    for row in rows {
        let middle = y + 6.0 * row.cells.len() as f64;
        let _ = writeln!(
            body,
            r##"<text x="{}" y="{middle}" text-anchor="end">{}</text>"##,
            LEFT - 8.0,
            row.load
        );
        for (cell, color) in row.cells.iter().zip(COLORS) {
            let Some(Summary { median, low, high }) = of(cell) else { continue };
            let (wide, line) = (x(median) - LEFT, y + 5.0);
            let _ = writeln!(
                body,
                r##"<rect x="{LEFT}" y="{y}" width="{wide:.1}" height="10" fill="{color}"/>"##
            );
            let _ = writeln!(
                body,
                r##"<path d="M{:.1} {line}H{:.1}" stroke="#000"/>"##,
                x(low),
                x(high)
            );
            let _ = writeln!(
                body,
                r##"<text x="{:.1}" y="{}">{}</text>"##,
                x(high) + 4.0,
                y + 9.0,
                digits(median)
            );
            y += 12.0;
        }
        y += 8.0;
    }
    let mut legend = String::new();
    for (at, (cell, color)) in
        rows.first().map_or(&[][..], |row| &row.cells).iter().zip(COLORS).enumerate()
    {
        let at = LEFT + 110.0 * at as f64;
        let _ = writeln!(
            legend,
            r##"<rect x="{at}" y="34" width="10" height="10" fill="{color}"/><text x="{}" y="43">{}</text>"##,
            at + 14.0,
            cell.subject
        );
    }
    let high = y + 24.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 {high}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"720\" height=\"{high}\" fill=\"#fff\"/>\n<text x=\"8\" y=\"20\" \
         font-size=\"14\">{title}</text>\n{legend}{body}<text x=\"8\" y=\"{}\" fill=\"#555\" \
         font-size=\"10\">{}; lines: 95 % intervals</text>\n</svg>\n",
        y + 12.0,
        format!("{}, {}", results.date, results.machine)
            + if results.quick { ", a short run" } else { "" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_the_charts_show_the_committed_figures() {
        let text = fs::read_to_string(page()).unwrap();
        let advice = "run `cargo run --release -- render` in tests/bench";
        assert_eq!(with_tables(&text).unwrap(), text, "{advice}");
        for (name, svg) in charts().unwrap() {
            assert_eq!(fs::read_to_string(folder().join(name)).unwrap(), svg, "{name}: {advice}");
        }
    }

    #[test]
    fn a_table_without_an_end_is_refused() {
        assert!(with_tables("<!-- comparison -->\ntext\n").is_err());
        assert!(with_tables("<!-- comparison: no such table -->\n<!-- end -->\n").is_err());
    }
}
