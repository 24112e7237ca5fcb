//! What of the host's memory this process could still take: the least that any of its limits leaves.

use std::fs;

/// Bytes that could be taken without others being pushed out: by the machine, by the control group (a container's limit) and by the process's own limit of address
/// space. Empty where none of them is known.
pub(crate) fn available_bytes() -> Option<u64> {
    [of_machine(), of_control_group(), of_address_space()].into_iter().flatten().min()
}

fn of_machine() -> Option<u64> {
    kib(&read("/proc/meminfo")?, "MemAvailable:")
}

/// Of the second version of control groups, which names one folder a process; the limits of those above it hold too.
fn of_control_group() -> Option<u64> {
    let groups = read("/proc/self/cgroup")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let number = |folder: &str, file: &str| read(&format!("/sys/fs/cgroup{folder}/{file}"))?.trim().parse::<u64>().ok();
    let mut folders = vec![""];
    folders.extend(own.match_indices('/').skip(1).map(|(end, _)| &own[..end]));
    folders.push(own.trim_end_matches('/'));
    let left = |folder: &str| Some(number(folder, "memory.max")?.saturating_sub(number(folder, "memory.current")?));
    folders.into_iter().filter_map(left).min()
}

fn of_address_space() -> Option<u64> {
    let limits = read("/proc/self/limits")?;
    let limit: u64 = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(kib(&read("/proc/self/status")?, "VmSize:")?))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The bytes that a line says in KiB: `VmSize:  1234 kB`.
fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_in_bytes() {
        assert_eq!(kib("MemFree: 1 kB\nMemAvailable:   2048 kB\n", "MemAvailable:"), Some(2 << 20));
        assert_eq!(kib("MemFree: 1 kB\n", "MemAvailable:"), None);
        assert!(available_bytes().is_some_and(|bytes| bytes > 0));
    }
}
