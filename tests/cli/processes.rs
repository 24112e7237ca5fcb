//! Processes as the kernel lists them: how much one held at most, and which carry a mark of a test.

use std::fs;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

/// In the environment of a program and of all that it starts: which test they belong to.
pub(crate) const MARK: &str = "LOWMEM_TEST_MARK";
/// How often it is looked.
const POLL: Duration = Duration::from_millis(2);

/// How a program ended, and the most bytes of memory that it was seen to hold.
pub(crate) fn watched(child: &mut Child) -> (ExitStatus, u64) {
    let mut peak = 0;
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        peak = peak.max(kib << 10);
        if let Some(status) = child.try_wait().expect("a child") {
            return (status, peak);
        }
        thread::sleep(POLL);
    }
}

/// How a program ended, which it must do within `patience`.
pub(crate) fn ended_within(child: &mut Child, patience: Duration) -> ExitStatus {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        if Instant::now() >= deadline {
            let left = format!("{:?}", fs::read_to_string(format!("/proc/{}/stack", child.id())));
            child.kill().expect("killed");
            panic!("it does not end: {left}");
        }
        thread::sleep(POLL);
    }
}

/// The command lines of processes that carry `mark` and run. Those that are about to end have some time for it.
pub(crate) fn left(mark: &str) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        let found = marked(mark);
        if found.is_empty() || Instant::now() >= deadline {
            return found;
        }
        thread::sleep(POLL);
    }
}

fn marked(mark: &str) -> Vec<String> {
    let wanted = format!("{MARK}={mark}");
    let processes = fs::read_dir("/proc").expect("processes").flatten().map(|entry| entry.path());
    let carries = |path: &std::path::PathBuf| {
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let line = |path: std::path::PathBuf| {
        let words = fs::read(path.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).replace('\0', " ")
    };
    processes.filter(carries).map(line).collect()
}
