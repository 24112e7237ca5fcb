//! Whether the kernel ended processes since the machine's memory ran out. It counts them, for all who care to read.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

/// How often the kernel has done so: each counter that can be read, of our control group (a container's own limit) and of the whole machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HostKills(Vec<Option<u64>>);

impl HostKills {
    /// Until now.
    pub(crate) fn until_now() -> Self {
        let groups = read("/proc/self/cgroup").unwrap_or_default();
        let of_group =
            |start: &str| groups.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_default().trim_end_matches('/').to_owned();
        let files = [
            format!("/sys/fs/cgroup{}/memory.events", of_group("0::")),
            "/sys/fs/cgroup/memory.events".to_owned(),
            "/sys/fs/cgroup/memory/memory.oom_control".to_owned(),
            "/proc/vmstat".to_owned(),
        ];
        Self(files.iter().map(|file| count(&read(file)?)).collect())
    }

    /// Whether there are more of them than at an earlier time.
    pub(crate) fn are_more_than(&self, earlier: &Self) -> bool {
        self.0.iter().zip(&earlier.0).any(|(now, then)| matches!((now, then), (Some(now), Some(then)) if now > then))
    }
}

/// Whether the kernel's log, where it may be read, says that it ended this process for lack of memory.
pub(crate) fn kernel_log_names(process: u32) -> bool {
    let no_waiting = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let Ok(mut log) = OpenOptions::new().read(true).custom_flags(no_waiting).open("/dev/kmsg") else { return false };
    // A read gives one entry, and at the end of the log an error.
    let mut entry = [0; 8192];
    loop {
        match log.read(&mut entry) {
            Ok(length) if length > 0 && is_kill_of(process, &String::from_utf8_lossy(&entry[..length])) => return true,
            Ok(0) => return false,
            // Entries may be overwritten while they are read.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return false,
            _ => {}
        }
    }
}

/// `Memory cgroup out of memory: Killed process 4711 (lowmem-worker) total-vm:...`
fn is_kill_of(process: u32, entry: &str) -> bool {
    entry.contains(&format!("Killed process {process} ("))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The counter in a file of them, a name and a number a line.
fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_names_whom_it_killed() {
        let entry = "3,1234,5678,-;Out of memory: Killed process 4711 (lowmem-worker) total-vm:1kB";
        assert!(is_kill_of(4711, entry) && !is_kill_of(471, entry) && !kernel_log_names(u32::MAX));
    }

    #[test]
    fn a_counter_that_rose_is_a_kill() {
        let at = |text| HostKills(vec![None, count(text)]);
        let (before, after) = (at("low 0\noom 3\noom_kill 1\n"), at("low 0\noom 4\noom_kill 2\n"));
        assert!(after.are_more_than(&before) && !before.are_more_than(&before) && !before.are_more_than(&after));
        assert!(!after.are_more_than(&at("no such counter 5")), "what is not known is no kill");
    }
}
