//! From the command to readiness, and what a fresh home needs while nobody asks anything.

use std::time::{Duration, Instant};

use crate::{house::House, promise};

/// Starts a fresh home a few times.
pub fn start() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut times = Vec::new();
    let mut resident = 0;
    for n in 0..7 {
        let mut house = House::new(folder.path(), &format!("start{n}"));
        let begun = Instant::now();
        house.serve();
        times.push(begun.elapsed());
        std::thread::sleep(Duration::from_millis(500));
        resident = resident.max(status_kib(process_of(&house), "VmRSS:"));
        house.stop();
    }
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("start: ready after {median:.0?} (median), {worst:.0?} (worst); {} KiB resident when idle", resident);
    // the process is looked at each 10 ms
    promise("start to ready under 100 ms (median)", median.as_secs_f64() * 1e3, median < Duration::from_millis(100));
    let mib = resident as f64 / 1024.0;
    promise("idle resident memory under 40 MB", mib, mib < 40.0);
}

/// The process of a running connector.
pub fn process_of(house: &House) -> u32 {
    counterseal::node::Running::load(&house.home).expect("a running connector").process
}

/// A figure of `/proc/<pid>/status`, in KiB.
pub fn status_kib(process: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = text.lines().find(|line| line.starts_with(field)).expect("the field");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
