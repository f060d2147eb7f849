//! The table of figures, and the goals they are compared with.

/// The bound of a figure.
#[derive(Clone, Copy)]
pub enum Goal {
    /// The ratio to the floor is at most this.
    Ratio(f64),
    /// The ratio to the floor is at least this.
    AtLeast(f64),
    /// The figure is at most this.
    Count(f64),
    /// No bound: the figure is printed for comparison.
    Open,
}

/// One line of the table.
pub struct Row {
    pub name: String,
    pub figure: f64,
    pub floor: f64,
    pub ratio: f64,
    pub goal: Goal,
}

impl Row {
    pub fn misses_its_goal(&self) -> bool {
        match self.goal {
            Goal::Ratio(most) => self.ratio > most,
            Goal::AtLeast(least) => self.ratio < least,
            // A run in step may begin or end one step off.
            Goal::Count(most) => self.figure > most + 0.01,
            Goal::Open => false,
        }
    }
}

/// Compares the first figure of each round with another one of the same round.
pub fn ratio(name: &str, rounds: &[Vec<f64>], floor: usize, unit: f64, goal: Goal) -> Row {
    let of = |figure: &dyn Fn(&Vec<f64>) -> f64| median(rounds.iter().map(figure).collect());
    Row {
        name: name.into(),
        figure: of(&|round| round[0]) / unit,
        floor: of(&|round| round[floor]) / unit,
        ratio: of(&|round| round[0] / round[floor]),
        goal,
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub fn print(rows: &[Row]) {
    println!("\n{:<32}{:>10}{:>10}{:>8}{:>10}", "", "figure", "floor", "ratio", "goal");
    for row in rows {
        let goal = match row.goal {
            Goal::Ratio(most) => format!("x {most:.2}"),
            Goal::AtLeast(least) => format!("> x {least:.2}"),
            Goal::Count(most) => format!("{most:.0}"),
            Goal::Open => "-".into(),
        };
        let verdict = match row.goal {
            Goal::Open => "",
            _ if row.misses_its_goal() => "missed",
            _ => "ok",
        };
        let ratio = match row.floor {
            0.0 => "-".into(),
            _ => format!("{:.2}", row.ratio),
        };
        println!(
            "{:<32}{:>10.1}{:>10.1}{:>8}{:>10}  {}",
            row.name, row.figure, row.floor, ratio, goal, verdict
        );
    }
}
