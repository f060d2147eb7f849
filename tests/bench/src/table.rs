//! Figures with their intervals, the goals they are compared with, and the table on the terminal.

use serde::{Deserialize, Serialize};

/// The bound of a row. It holds for the first cell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Goal {
    /// The ratio of CPU times is at most this. `--check` allows [`SLACK`] more.
    Cpu(f64),
    /// The ratio is at most this. `--check` ignores it: latencies need an idle machine.
    Ratio(f64),
    /// The ratio is at least this.
    AtLeast(f64),
    /// The figure is at most this.
    Count(f64),
    /// No bound: the figure is published for comparison.
    Open,
}

/// `--check` fails a CPU ratio if its whole interval lies above the goal by this factor.
pub const SLACK: f64 = 1.10;

/// A median, and the interval that holds the true median with a probability of 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Summary {
    pub fn exactly(figure: f64) -> Summary {
        Summary { median: figure, low: figure, high: figure }
    }

    /// The interval is that of the sign test: its ends are two of the values. Fewer than six values
    /// cannot give 95 %; the interval then is the whole range (of five values: 94 %).
    pub fn of(mut values: Vec<f64>) -> Summary {
        values.sort_by(f64::total_cmp);
        let count = values.len();
        // The probability that at most `cut` of the values lie below the true median.
        let mut chance = 0.5_f64.powi(count as i32);
        let (mut below, mut cut) = (chance, 0);
        while below <= 0.025 {
            cut += 1;
            chance *= (count - cut + 1) as f64 / cut as f64;
            below += chance;
        }
        let first = cut.saturating_sub(1);
        Summary { median: values[count / 2], low: values[first], high: values[count - 1 - first] }
    }

    pub fn times(self, factor: f64) -> Summary {
        let Summary { median, low, high } = self;
        Summary { median: median * factor, low: low * factor, high: high * factor }
    }
}

/// The figures of one subject under one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    pub subject: String,
    pub figure: Summary,
    /// The ratio to the cell that the row compares with.
    pub ratio: Option<Summary>,
}

/// One load. The first cell is ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub table: String,
    pub load: String,
    pub unit: String,
    /// The subject that the ratios compare with.
    pub floor: Option<String>,
    pub cells: Vec<Cell>,
    pub goal: Goal,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Verdict {
    Ok,
    /// The goal lies inside the interval.
    Unclear,
    Missed,
    None,
}

impl Row {
    /// Creates a row of counts, which have no interval.
    pub fn counts(table: &str, load: &str, unit: &str, cells: &[(&str, f64)], goal: Goal) -> Row {
        let floor = cells.get(1);
        let cell = |(name, figure): &(&str, f64)| Cell {
            subject: name.to_string(),
            figure: Summary::exactly(*figure),
            ratio: floor
                .filter(|floor| floor.1 > 0.0)
                .map(|floor| Summary::exactly(figure / floor.1)),
        };
        Row {
            table: table.into(),
            load: load.into(),
            unit: unit.into(),
            floor: floor.map(|floor| floor.0.into()),
            cells: cells.iter().map(cell).collect(),
            goal,
        }
    }

    /// Compares the figures of each round with one of them. `unit` is divided by.
    pub fn of_rounds(
        (table, load, unit, scale): (&str, &str, &str, f64),
        names: &[String],
        rounds: &[Vec<f64>],
        floor: usize,
        goal: Goal,
    ) -> Row {
        let cell = |at: usize| Cell {
            subject: names[at].clone(),
            figure: Summary::of(rounds.iter().map(|round| round[at]).collect()).times(1.0 / scale),
            ratio: (names.len() > 1).then(|| {
                Summary::of(rounds.iter().map(|round| round[at] / round[floor]).collect())
            }),
        };
        Row {
            table: table.into(),
            load: load.into(),
            unit: unit.into(),
            floor: (names.len() > 1).then(|| names[floor].clone()),
            cells: (0..names.len()).map(cell).collect(),
            goal,
        }
    }

    pub fn verdict(&self) -> Verdict {
        let Cell { figure, ratio, .. } = &self.cells[0];
        let ratio = ratio.unwrap_or(Summary::exactly(1.0));
        let (value, most) = match self.goal {
            Goal::Cpu(most) | Goal::Ratio(most) => (ratio, most),
            Goal::AtLeast(least) => {
                let flip = |value: f64| -value;
                let Summary { median, low, high } = ratio;
                (Summary { median: flip(median), low: flip(high), high: flip(low) }, -least)
            }
            // A run in step may begin or end one step off.
            Goal::Count(most) => (*figure, most + 0.01),
            Goal::Open => return Verdict::None,
        };
        match () {
            () if value.high <= most => Verdict::Ok,
            () if value.low > most => Verdict::Missed,
            () => Verdict::Unclear,
        }
    }

    /// Whether `--check` must fail. Ratios of latencies never do: they need an idle machine.
    pub fn fails_the_check(&self) -> bool {
        match self.goal {
            Goal::Count(_) => self.verdict() == Verdict::Missed,
            Goal::Cpu(most) => self.cells[0].ratio.is_some_and(|ratio| ratio.low > most * SLACK),
            _ => false,
        }
    }

    /// The subjects whose whole interval lies below ours, with which ours can be compared.
    pub fn cheaper(&self) -> Vec<&str> {
        let (ours, others) = self.cells.split_first().expect("a row has a cell");
        let floor = self.floor.as_deref();
        let cheaper = others.iter().filter(|cell| cell.figure.high < ours.figure.low);
        cheaper.map(|cell| cell.subject.as_str()).filter(|name| Some(*name) != floor).collect()
    }
}

/// A figure with as many digits as a reader can use.
pub fn digits(figure: f64) -> String {
    match figure.abs() {
        0.0 => "0".into(),
        100.0.. => format!("{figure:.0}"),
        10.0.. => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

pub fn print(rows: &[Row]) {
    let mut table = "";
    for row in rows {
        if row.table != table {
            table = &row.table;
            println!("\n{table}");
        }
        let goal = match row.goal {
            Goal::Cpu(most) | Goal::Ratio(most) => format!("at most x {most:.2}"),
            Goal::AtLeast(least) => format!("at least x {least:.2}"),
            Goal::Count(most) => format!("at most {}", digits(most)),
            Goal::Open => String::new(),
        };
        let verdict = match row.verdict() {
            Verdict::Ok => "ok",
            Verdict::Unclear => "within the interval",
            Verdict::Missed => "MISSED",
            Verdict::None => "",
        };
        println!("  {} [{}]  {goal} {verdict}", row.load, row.unit);
        for cell in &row.cells {
            let Summary { median, low, high } = cell.figure;
            let range = if low == high {
                String::new()
            } else {
                format!("{}..{}", digits(low), digits(high))
            };
            let ratio = cell.ratio.map_or(String::new(), |ratio| {
                let is_floor = row.floor.as_deref() == Some(&cell.subject);
                match (is_floor, ratio.low == ratio.high) {
                    (true, _) => "(1)".into(),
                    (_, true) => format!("x {:.2}", ratio.median),
                    _ => format!("x {:.2} ({:.2}..{:.2})", ratio.median, ratio.low, ratio.high),
                }
            });
            println!("    {:<30}{:>9}  {range:<16}{ratio}", cell.subject, digits(median));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(low: f64, median: f64, high: f64) -> Summary {
        Summary { median, low, high }
    }

    fn row(goal: Goal, ratio: Summary) -> Row {
        let names = ["campanile".to_string(), "floor".to_string()];
        let mut row = Row::of_rounds(("t", "l", "ns", 1.0), &names, &[vec![1.0, 1.0]], 1, goal);
        row.cells[0].ratio = Some(ratio);
        row
    }

    #[test]
    fn the_interval_of_fifteen_values_leaves_three_out_at_each_end() {
        let values = (1..=15).rev().map(f64::from).collect();
        assert_eq!(Summary::of(values), summary(4.0, 8.0, 12.0));
        assert_eq!(Summary::of(vec![3.0, 1.0, 2.0, 5.0, 4.0]), summary(1.0, 3.0, 5.0));
        assert_eq!(Summary::of((1..=200).map(f64::from).collect()).low, 86.0);
    }

    #[test]
    fn the_check_fails_a_ratio_only_if_the_whole_interval_is_above_the_goal_and_its_slack() {
        assert!(row(Goal::Cpu(1.02), summary(1.13, 1.2, 1.3)).fails_the_check());
        assert!(!row(Goal::Cpu(1.02), summary(1.05, 1.1, 1.2)).fails_the_check());
        assert!(!row(Goal::Ratio(1.02), summary(1.13, 1.2, 1.3)).fails_the_check());
        assert!(row(Goal::Count(0.0), summary(1.0, 1.0, 1.0)).fails_the_check());
    }

    #[test]
    fn a_goal_inside_the_interval_is_neither_met_nor_missed() {
        assert_eq!(row(Goal::Cpu(1.02), summary(1.0, 1.0, 1.01)).verdict(), Verdict::Ok);
        assert_eq!(row(Goal::Cpu(1.02), summary(1.0, 1.01, 1.03)).verdict(), Verdict::Unclear);
        assert_eq!(row(Goal::Ratio(0.33), summary(0.4, 0.5, 0.6)).verdict(), Verdict::Missed);
        assert_eq!(row(Goal::AtLeast(1.0), summary(0.7, 0.8, 0.9)).verdict(), Verdict::Missed);
        assert_eq!(row(Goal::AtLeast(1.0), summary(1.1, 1.2, 1.3)).verdict(), Verdict::Ok);
    }

    #[test]
    fn ratios_compare_figures_of_the_same_round() {
        let names = ["a".to_string(), "b".to_string()];
        let rounds = [vec![2.0, 1.0], vec![20.0, 10.0], vec![200.0, 100.0]];
        let row = Row::of_rounds(("t", "l", "ns", 1.0), &names, &rounds, 1, Goal::Open);
        assert_eq!(row.cells[0].ratio, Some(Summary::exactly(2.0)));
        assert_eq!(row.cells[0].figure, summary(2.0, 20.0, 200.0));
    }
}
