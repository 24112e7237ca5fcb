//! What this process could still take of the machine's memory: the least that any of its limits leaves.

use crate::proc::{limit, meminfo_bytes, read, status_bytes};

/// Bytes that could be taken without others being pushed out: by the machine, by the control group (a container's limit) and by the process's own limit of address
/// space. Empty where none of them is known.
pub fn available_bytes() -> Option<u64> {
    [of_machine(), of_control_group(), of_address_space()].into_iter().flatten().min()
}

fn of_machine() -> Option<u64> {
    meminfo_bytes("MemAvailable")
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
    Some(limit("Max address space")?.saturating_sub(status_bytes("VmSize")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_left() {
        assert!(available_bytes().is_some_and(|bytes| bytes > 0));
    }
}
