//! The results as a table for Markdown and for a terminal.

use std::net::SocketAddr;

use campanile::ladder::{Ladder, Outcome, Report, RungReport};

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub how: String,
    pub version: String,
    /// One climb for each ladder.
    pub climbs: Vec<Climb>,
}

/// The result of one ladder: how many rungs were reached, and why it stopped.
#[derive(Debug)]
pub struct Climb {
    mark: String,
    stop: Option<String>,
}

impl Climb {
    /// Climbs the ladder of this service until a rung fails. The service `urgent` is the exchange
    /// with an urgent byte alone.
    pub fn at(addr: SocketAddr, service: &str) -> Climb {
        if service == "urgent" {
            return match crate::urgent::exchange(addr) {
                Ok(()) => Climb { mark: "yes".into(), stop: None },
                Err(came) => Climb { mark: "no".into(), stop: Some(format!("urgent: {came}")) },
            };
        }
        let ladder = if service == "echo" { Ladder::echo(addr) } else { Ladder::daytime(addr) };
        match ladder.climb(|_| {}) {
            Ok(report) => Climb::of(&report),
            Err(error) => Climb::missing(&error.to_string()),
        }
    }

    /// A server that could not be started.
    pub fn missing(why: &str) -> Climb {
        Climb { mark: "-".into(), stop: Some(why.into()) }
    }

    fn of(report: &Report) -> Climb {
        let (reached, all) = (report.reached(), report.rungs.len());
        let Some((rung, failure)) = report.stopped() else {
            // The bounds and limits of the check itself end a climb, too.
            let is_reached = |rung: &&RungReport| matches!(rung.outcome, Outcome::Reached { .. });
            let missed = report.rungs.iter().find(|rung| !is_reached(rung));
            let stop = missed.map(|rung| {
                let words: Vec<_> = rung.to_string().split_whitespace().map(String::from).collect();
                format!("{} {}", report.service, words.join(" "))
            });
            return Climb { mark: format!("{reached} of {all}"), stop };
        };
        let stop = format!(
            "{} stops at {}, {} ({}): sent {}; received {}",
            report.service,
            rung.number,
            rung.rung.name,
            failure.rule.number,
            failure.sent,
            failure.received
        );
        Climb { mark: format!("{reached} of {all}"), stop: Some(stop) }
    }

    /// The result in one line, for the progress output.
    pub fn told(&self) -> String {
        format!("{}{}", self.mark, self.stop.as_ref().map_or(String::new(), |s| format!(": {s}")))
    }
}

/// Prints the table, and below it why each climb stopped.
pub fn print(what: &str, services: &[&str], rows: &[Row]) {
    let head = [&[what, "configuration", "version"], services].concat();
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let mut line = vec![row.name.clone(), row.how.clone(), row.version.clone()];
            line.extend(row.climbs.iter().map(|climb| climb.mark.clone()));
            line
        })
        .collect();
    let width = |at: usize| {
        let cells = lines.iter().map(|line| line[at].chars().count());
        cells.chain([head[at].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let put = |cells: &[&str]| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} |"));
        println!("|{}", cells.collect::<String>());
    };
    put(&head);
    println!("|{}", widths.iter().map(|width| "-".repeat(width + 2) + "|").collect::<String>());
    for line in &lines {
        put(&line.iter().map(String::as_str).collect::<Vec<_>>());
    }
    println!();
    for row in rows {
        for stop in row.climbs.iter().filter_map(|climb| climb.stop.as_ref()) {
            println!("- {}, {}: {stop}", row.name, row.how);
        }
    }
}
