//! The samples of the server, and the verdict whether it leaks.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;

/// The resources of a process, from `/proc`.
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

/// The counts and samples of a soak.
#[derive(Debug, Default)]
pub struct Report {
    /// Conversations and bytes compared, by kind of client.
    pub visits: BTreeMap<String, (u64, u64)>,
    /// How often each disturbance happened.
    pub trouble: BTreeMap<&'static str, u64>,
    pub samples: Vec<Sample>,
    /// Samples without a client: before the first one, and after the last.
    pub before: Option<Sample>,
    pub after: Option<Sample>,
    /// The failures that the clients and the server reported.
    pub wrong: Vec<String>,
}

impl Report {
    pub fn connections(&self) -> u64 {
        self.visits.values().map(|(visits, _)| visits).sum()
    }

    pub fn gibibytes(&self) -> f64 {
        self.visits.values().map(|(_, bytes)| bytes).sum::<u64>() as f64 / f64::from(1 << 30)
    }

    /// The growth of RSS in an hour: the slope of the least-squares line through the samples. The
    /// first quarter of the time is warm-up and does not count. `None` for less than a minute.
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

    /// Everything that went wrong: a failed conversation, a descriptor or thread that was left over,
    /// or RSS that grew by more than a mebibyte on that line.
    pub fn verdict(&self) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        let (Some(before), Some(after)) = (self.before, self.after) else {
            wrong.push("a connection of the server never closed".into());
            return wrong;
        };
        if after.descriptors != before.descriptors || after.threads != before.threads {
            wrong.push("the server kept descriptors or threads".into());
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
