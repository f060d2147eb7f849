//! The files of figures: `results/*.json`, from which the tables and charts are made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::table::Row;

#[derive(Serialize, Deserialize)]
pub struct Results {
    pub date: String,
    pub machine: String,
    pub rustc: String,
    /// The log level of the measured program.
    pub log: String,
    /// Whether the run was a short one, with few rounds.
    pub quick: bool,
    pub rows: Vec<Row>,
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results")
}

impl Results {
    pub fn now(quick: bool, rows: Vec<Row>) -> Results {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpus = read("/proc/cpuinfo");
        let models =
            || cpus.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let model = models().next().map_or("unknown CPU", |(_, model)| model);
        let kernel = read("/proc/sys/kernel/osrelease");
        let rustc = Command::new("rustc").arg("--version").output();
        let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().into());
        Results {
            date: chrono::Local::now().format("%Y-%m-%d").to_string(),
            machine: format!("{} CPUs ({model}), Linux {}", models().count(), kernel.trim()),
            rustc: rustc.unwrap_or_default(),
            log: "campanile runs with -q: it logs errors only".into(),
            quick,
            rows,
        }
    }

    pub fn save(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
    }

    pub fn load(path: &Path) -> io::Result<Results> {
        let fail = |error: &dyn std::fmt::Display| {
            io::Error::other(format!(
                "cannot read the figures in {}: {error}; run `publish` first",
                path.display()
            ))
        };
        let text = fs::read_to_string(path).map_err(|error| fail(&error))?;
        serde_json::from_str(&text).map_err(|error| fail(&error))
    }

    /// The date and the machine, for a reader.
    pub fn caption(&self) -> String {
        let quick = if self.quick { " A short run, with few rounds." } else { "" };
        format!("{}, {}, {}; {}.{quick}", self.date, self.machine, self.rustc, self.log)
    }
}
