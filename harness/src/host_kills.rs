//! Whether the kernel ended processes since the machine's memory ran out. It counts them, for all who care to read.

use std::fs;

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
    fn a_counter_that_rose_is_a_kill() {
        let at = |text| HostKills(vec![None, count(text)]);
        let (before, after) = (at("low 0\noom 3\noom_kill 1\n"), at("low 0\noom 4\noom_kill 2\n"));
        assert!(after.are_more_than(&before) && !before.are_more_than(&before) && !before.are_more_than(&after));
        assert!(!after.are_more_than(&at("no such counter 5")), "what is not known is no kill");
    }
}
