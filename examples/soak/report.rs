//! What was seen of the server, and whether that is a leak.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;

/// What `/proc` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub second: u64,
    pub rss_kib: u64,
    pub descriptors: u64,
    pub threads: u64,
}

impl Sample {
    pub fn of(pid: u32, second: u64) -> io::Result<Sample> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
        let (rss_kib, threads) = (field("VmRSS:"), field("Threads:"));
        Ok(Sample { second, rss_kib, descriptors, threads })
    }
}

/// All that is told at the end.
#[derive(Debug, Default)]
pub struct Report {
    /// Visits and bytes compared, by the way of the guest.
    pub visits: BTreeMap<String, (u64, u64)>,
    /// What was done to server and guests, and how often.
    pub trouble: BTreeMap<&'static str, u64>,
    pub samples: Vec<Sample>,
    /// At rest: before the first guest, and after the last.
    pub before: Option<Sample>,
    pub after: Option<Sample>,
    /// What guests found wrong, and what the server could not say.
    pub wrong: Vec<String>,
}

impl Report {
    pub fn connections(&self) -> u64 {
        self.visits.values().map(|(visits, _)| visits).sum()
    }

    pub fn gibibytes(&self) -> f64 {
        self.visits.values().map(|(_, bytes)| bytes).sum::<u64>() as f64 / f64::from(1 << 30)
    }

    /// How much RSS grows in an hour, on the straight line nearest to the samples after warm-up:
    /// the first quarter of the time. Of less than a minute nothing can be said.
    pub fn slope_kib_per_hour(&self) -> Option<f64> {
        let settled = &self.samples[self.samples.len() / 4..];
        let count = settled.len().max(1) as f64;
        let mean = |of: fn(&Sample) -> u64| settled.iter().map(of).sum::<u64>() as f64 / count;
        let (second, rss) = (mean(|sample| sample.second), mean(|sample| sample.rss_kib));
        let (mut above, mut below) = (0.0, 0.0);
        for sample in settled {
            let distance = sample.second as f64 - second;
            above += distance * (sample.rss_kib as f64 - rss);
            below += distance * distance;
        }
        (self.samples.len() >= 60).then(|| above / below * 3600.0)
    }

    /// What went wrong, if anything: a difference, something left behind, or RSS that grew by more
    /// than a mebibyte on that line.
    pub fn verdict(&self) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        let (Some(before), Some(after)) = (self.before, self.after) else {
            wrong.push("the server was never at rest".into());
            return wrong;
        };
        if after.descriptors != before.descriptors || after.threads != before.threads {
            wrong.push("descriptors or threads were left behind".into());
        }
        let hours = self.samples.len() as f64 * 0.75 / 3600.0;
        if self.slope_kib_per_hour().is_some_and(|slope| slope * hours > 1024.0) {
            wrong.push("the memory of the server grows".into());
        }
        wrong
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "connections      {:>12}", self.connections())?;
        for (way, (visits, bytes)) in &self.visits {
            writeln!(f, "  {way:<15}{visits:>12}{:>12} MiB compared", bytes >> 20)?;
        }
        writeln!(f, "bytes compared   {:>12.1} GiB, {} wrong", self.gibibytes(), self.wrong.len())?;
        for (trouble, count) in &self.trouble {
            writeln!(f, "{trouble:<17}{count:>12}")?;
        }
        if let (Some(before), Some(after)) = (self.before, self.after) {
            let (b, a) = (before.descriptors, after.descriptors);
            writeln!(f, "descriptors      {b:>12} before, {a} after")?;
            writeln!(f, "threads          {:>12} before, {} after", before.threads, after.threads)?;
            writeln!(
                f,
                "RSS              {:>12} KiB before, {} after",
                before.rss_kib, after.rss_kib
            )?;
        }
        let most = self.samples.iter().map(|sample| sample.rss_kib).max().unwrap_or(0);
        writeln!(f, "RSS at most      {most:>12} KiB")?;
        match self.slope_kib_per_hour() {
            Some(slope) => write!(f, "RSS slope        {slope:>12.1} KiB an hour, after warm-up"),
            None => write!(f, "RSS slope        {:>12}", "too short"),
        }
    }
}
