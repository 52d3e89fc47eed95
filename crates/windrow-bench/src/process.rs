//! CPU time and memory of a process, from Linux's clocks and `/proc`.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// CPU time and memory that a process has used.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage {
    /// User and system time of all threads, also of those that have ended.
    pub(super) cpu: Duration,
    /// User and system time of the running threads, by name.
    pub(super) threads: BTreeMap<String, Duration>,
    /// Memory in use, bytes.
    pub(super) resident: u64,
    /// Peak memory, bytes.
    pub(super) peak: u64,
}

/// Usage of the process `pid`.
///
/// # Errors
/// When there is no such process, or the system is not Linux.
pub(super) fn usage(pid: u32) -> io::Result<Usage> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Ok(Usage {
        cpu: cpu(pid)?,
        threads: threads(pid),
        resident: kib("VmRSS:").unwrap_or(0) * 1024,
        peak: kib("VmHWM:").unwrap_or(0) * 1024,
    })
}

#[cfg(target_os = "linux")]
fn cpu(pid: u32) -> io::Result<Duration> {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().map_err(io::Error::other)?);
    let clock = nix::time::clock_getcpuclockid(pid)?;
    Ok(nix::time::clock_gettime(clock)?.into())
}

#[cfg(not(target_os = "linux"))]
fn cpu(_pid: u32) -> io::Result<Duration> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "CPU time of another process is measured on Linux only",
    ))
}

/// CPU time of the running threads of a process, by name.
pub fn threads(pid: u32) -> BTreeMap<String, Duration> {
    let mut out = BTreeMap::new();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    for task in tasks.flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let nanoseconds = read("schedstat")
            .split(' ')
            .next()
            .and_then(|text| text.parse().ok());
        *out.entry(read("comm").trim().to_owned()).or_default() +=
            Duration::from_nanos(nanoseconds.unwrap_or(0));
    }
    out
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_time_and_memory() {
        let me = std::process::id();
        let before = usage(me).unwrap();
        let mut sum = 0u64;
        while usage(me).unwrap().cpu < before.cpu + Duration::from_millis(20) {
            sum = std::hint::black_box((0..100_000).fold(sum, |sum, n| sum ^ n));
        }
        let after = usage(me).unwrap();
        assert!(after.resident > 0 && after.peak >= after.resident.min(before.resident));
        assert!(after.threads.values().sum::<Duration>() <= after.cpu + Duration::from_secs(1));
        assert!(usage(u32::MAX >> 1).is_err(), "there is no such process");
    }
}
